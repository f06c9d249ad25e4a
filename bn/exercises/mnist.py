"""Checks for the chapter *MNIST, with and without batch norm*."""

from __future__ import annotations

import numpy as np
from scipy import stats

from . import Exercise


def paired_interval(with_bn, without_bn, level=0.95):
    """Mean of the paired differences, and the two ends of its t-interval."""
    difference = np.asarray(with_bn) - np.asarray(without_bn)
    n = len(difference)
    half = stats.t.ppf((1 + level) / 2, n - 1) * difference.std(ddof=1) / np.sqrt(n)
    return difference.mean(), difference.mean() - half, difference.mean() + half


def _interval(difference, *, quantile, scale):
    mean, half = difference.mean(), quantile * scale
    return mean, mean - half, mean + half


def _paired(*, quantile=None, ddof=1, root=True, divide=True):
    """A wrong turn of the paired interval."""

    def attempt(with_bn, without_bn):
        d = np.asarray(with_bn) - np.asarray(without_bn)
        n = len(d)
        scale = d.std(ddof=ddof)
        if divide:
            scale = scale / (np.sqrt(n) if root else n)
        q = stats.t.ppf(0.975, n - 1) if quantile is None else quantile(n)
        return _interval(d, quantile=q, scale=scale)

    return attempt


def _unpaired(with_bn, without_bn):
    a, b = np.asarray(with_bn), np.asarray(without_bn)
    n = len(a)
    scale = np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / n)
    mean = a.mean() - b.mean()
    half = stats.t.ppf(0.975, 2 * n - 2) * scale
    return mean, mean - half, mean + half


def _swapped(with_bn, without_bn):
    return paired_interval(without_bn, with_bn)


def _draw_accuracies(rng):
    n = int(rng.integers(4, 8))
    seed_effect = rng.normal(0, 0.8, n)  # what a pair shares, and a paired comparison removes
    without_bn = 96 + seed_effect + rng.normal(0, 0.2, n)
    with_bn = 97 + rng.normal(0, 0.5) + seed_effect + rng.normal(0, 0.2, n)
    return with_bn, without_bn


def accuracy(model, x, y):
    """Share of rows whose largest logit is the label's, in evaluation mode."""
    import torch

    model.eval()
    with torch.no_grad():
        return (model(x).argmax(dim=1) == y).double().mean().item()


def _in_training_mode(model, x, y):
    return (model(x).argmax(dim=1) == y).double().mean().item()


def _confidence_in_the_label(model, x, y):
    import torch

    model.eval()
    with torch.no_grad():
        return model(x).softmax(dim=1).gather(1, y[:, None]).double().mean().item()


def _draw_model(rng):
    import torch

    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    model = torch.nn.Sequential(
        torch.nn.Linear(6, 12), torch.nn.BatchNorm1d(12), torch.nn.Sigmoid(), torch.nn.Linear(12, 4)
    )
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(normal(*p.shape))
        # Running statistics that differ from any batch's, so that the mode shows in the answer.
        model[1].running_mean.copy_(normal(12))
        model[1].running_var.copy_(0.2 + normal(12).square())
    x = normal(60, 6)
    with torch.no_grad():
        y = model.eval()(x).argmax(dim=1)
    y = torch.where(torch.rand(60, generator=generator) < 0.25, (y + 1) % 4, y)
    return model.train(), x, y


EXERCISES = [
    Exercise(
        "mnist/paired_interval",
        reference=paired_interval,
        draw=_draw_accuracies,
        mistakes={
            "you treated the two lists as independent; the runs are paired: take the differences "
            "seed by seed first": _unpaired,
            "your standard deviation divides by n; a sample's divides by n − 1 (ddof=1)": _paired(
                ddof=0
            ),
            "you used the normal quantile 1.96; with so few seeds the t quantile with n − 1 "
            "degrees of freedom is needed": _paired(quantile=lambda n: stats.norm.ppf(0.975)),
            "you used the t quantile with n degrees of freedom; the mean has used one up: "
            "n − 1": _paired(quantile=lambda n: stats.t.ppf(0.975, n)),
            "you used the t quantile at 0.95, which leaves 5 % on each side; two-sided 95 % needs "
            "the one at 0.975": _paired(quantile=lambda n: stats.t.ppf(0.95, n - 1)),
            "you divided the standard deviation by n; the standard error divides it by the root "
            "of n": _paired(root=False),
            "you left out the division by the root of n: that is the spread of one difference, "
            "not of their mean": _paired(divide=False),
            "you subtracted in the other order: positive should mean that batch norm is "
            "better": _swapped,
        },
        hint="Take d = with_bn − without_bn first; everything else is about the n numbers in d.",
    ),
    Exercise(
        "mnist/accuracy",
        reference=accuracy,
        draw=_draw_model,
        mistakes={
            "you left the model in training mode: batch norm used the statistics of the batch; "
            "call model.eval() first": _in_training_mode,
            "you counted the hits; divide by the number of rows": lambda model, x, y: (
                accuracy(model, x, y) * len(y)
            ),
            "you returned per cent; a fraction between 0 and 1 was asked for": lambda model, x, y: (
                100 * accuracy(model, x, y)
            ),
            "you returned the share of errors, not of hits": lambda model, x, y: (
                1 - accuracy(model, x, y)
            ),
            "you averaged the probability of the right class; accuracy asks only which class is "
            "largest": _confidence_in_the_label,
        },
        hint="Put the model in evaluation mode, take the argmax of each row of logits, compare.",
    ),
]
