"""Exercises of chapter *transform*: variance, standardising, the layer, inference, the gradient."""

from __future__ import annotations

import numpy as np

from . import Exercise

EPS = 1e-5


# ------------------------------------------------------------------------------- variance


def _variance(x):
    return ((x - x.mean(axis=0)) ** 2).mean(axis=0)


def _draw_far(rng):
    """float32 features far from zero against their spread, where the one-pass formula fails."""
    m, n = rng.integers(5, 10), rng.integers(2, 5)
    x = rng.choice([-1, 1], n) * rng.uniform(2000, 5000, n) + rng.uniform(0.5, 2, n) * rng.normal(
        size=(m, n)
    )
    return (x.astype(np.float32),)


# ---------------------------------------------------------------------------- standardising


def _standardize(x):
    return (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + EPS)


def _draw_batch(rng):
    """More examples than features; one feature so tight that epsilon shows."""
    n = rng.integers(3, 5)
    m = rng.integers(n + 2, n + 6)
    scale = np.append(rng.uniform(0.5, 3, n - 1), rng.uniform(2e-3, 6e-3))
    return (rng.uniform(1, 4, n) * rng.choice([-1, 1], n) + scale * rng.normal(size=(m, n)),)


def _by_example(x):
    return ((x.T - x.mean(axis=1)) / np.sqrt(x.var(axis=1) + EPS)).T


def _by_features(x):
    mean = x.sum(axis=0) / x.shape[1]
    return (x - mean) / np.sqrt(((x - mean) ** 2).sum(axis=0) / x.shape[1] + EPS)


STANDARDIZE = {
    "you divided by m − 1 in the variance. The batch's own variance divides by m; m − 1 is for "
    "estimating the variance of a population (x.var(axis=0) divides by m, ddof=1 by m − 1)":
        lambda x: (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0, ddof=1) + EPS),
    "you forgot ε. Where a feature hardly varies it decides the result, and without it a constant "
    "feature gives 0/0":
        lambda x: (x - x.mean(axis=0)) / x.std(axis=0),
    "you added ε outside the root. It belongs to the variance: √(σ² + ε), not √σ² + ε":
        lambda x: (x - x.mean(axis=0)) / (x.std(axis=0) + EPS),
    "you averaged over the wrong axis: each example over its features. Batch norm averages each "
    "feature over the examples, axis 0":
        _by_example,
    "you divided by the variance. Divide by the standard deviation, its square root":
        lambda x: (x - x.mean(axis=0)) / (x.var(axis=0) + EPS),
    "you took one mean and one variance of the whole array. Every feature has its own: axis=0":
        lambda x: (x - x.mean()) / np.sqrt(x.var() + EPS),
    "you did not subtract the mean. Dividing sets the spread; the mean has to go first":
        lambda x: x / np.sqrt(x.var(axis=0) + EPS),
    "you subtracted the mean and did not divide by the standard deviation":
        lambda x: x - x.mean(axis=0),
    "you summed over the m examples and divided by the number of features. Divide by m, the "
    "number of values summed; only a square table hides the slip":
        _by_features,
    "you squared ε, or added it to the deviation before squaring: it is added once to the "
    "variance":
        lambda x: (x - x.mean(axis=0)) / np.sqrt((x.std(axis=0) + EPS) ** 2 + EPS**2),
}  # fmt: skip


# ------------------------------------------------------------------------------- the layer


def _batch_norm(x, gamma, beta):
    return gamma * _standardize(x) + beta


def _draw_layer(rng):
    (x,) = _draw_batch(rng)
    n = x.shape[1]
    return x, rng.uniform(0.5, 2, n) * rng.choice([-1, 1], n), rng.uniform(0.5, 2, n)


def _with_affine(wrong):
    return lambda x, gamma, beta: gamma * wrong(x) + beta


# ------------------------------------------------------------------------------- inference


def _inference(x, gamma, beta, mean, var):
    return gamma * (x - mean) / np.sqrt(var + EPS) + beta


def _draw_inference(rng):
    x, gamma, beta = _draw_layer(rng)
    n = x.shape[1]
    mean = x.mean(axis=0) + rng.normal(size=n)
    return x, gamma, beta, mean, np.append(rng.uniform(0.2, 3, n - 1), rng.uniform(1e-5, 1e-4))


# ------------------------------------------------------------------ the gradient, in torch


def _through(x, t, *, detach_mean=False, detach_var=False, correction=0, forget_eps=False):
    import torch

    x = x.detach().clone().requires_grad_()
    mean = x.mean(dim=0)
    centred = x - (mean.detach() if detach_mean else mean)
    var = x.var(dim=0, correction=correction)
    var = var.detach() if detach_var else var
    x_hat = centred / torch.sqrt(var + (0 if forget_eps else EPS))
    (((x_hat - t) ** 2).mean() / 2).backward()
    return x.grad


def _gradient(x, t):
    return _through(x, t)


def _at_x_hat(x, t):
    return (_standardize_torch(x) - t) / x.numel()


def _standardize_torch(x):
    import torch

    return (x - x.mean(dim=0)) / torch.sqrt(x.var(dim=0, correction=0) + EPS)


def _draw_torch(rng):
    import torch

    (x,) = _draw_batch(rng)
    return torch.tensor(x), torch.tensor(rng.normal(size=x.shape) + 1)


EXERCISES = [
    Exercise(
        "transform/variance",
        reference=_variance,
        draw=_draw_far,
        mistakes={
            "you computed the mean of the squares minus the square of the mean. In float32 both "
            "are near 10⁷ here and their difference is rounding error: subtract the mean first":
                lambda x: (x**2).mean(axis=0) - x.mean(axis=0) ** 2,
            "you divided by m − 1: the batch's own variance divides by m":
                lambda x: x.var(axis=0, ddof=1),
            "you returned the standard deviation: leave out the square root":
                lambda x: x.std(axis=0),
            "you averaged over the wrong axis: over the features of each example":
                lambda x: x.var(axis=1),
            "you took one variance of the whole array: every feature has its own, axis=0":
                lambda x: x.var(),
            "you returned the sum of the squares, not their mean: divide by m":
                lambda x: ((x - x.mean(axis=0)) ** 2).sum(axis=0),
            "you averaged the absolute deviations: square them":
                lambda x: np.abs(x - x.mean(axis=0)).mean(axis=0),
        },
        hint="Two passes: first the mean of each feature, then the mean of (x − mean)². A formula "
        "that squares x itself has no digits left here.",
        rtol=2e-3,
    ),
    Exercise(
        "transform/standardize",
        reference=_standardize,
        draw=_draw_batch,
        mistakes=STANDARDIZE,
        hint="Four steps, each with axis=0: mean, variance (divide by m), root of variance + "
        "1e-5, quotient.",
    ),
    Exercise(
        "transform/batch_norm",
        reference=_batch_norm,
        draw=_draw_layer,
        mistakes={
            "you swapped γ and β: γ scales, β shifts":
                lambda x, gamma, beta: beta * _standardize(x) + gamma,
            "you shifted first and scaled the shift too: y = γ x̂ + β, not γ (x̂ + β)":
                lambda x, gamma, beta: gamma * (_standardize(x) + beta),
            "you forgot β":
                lambda x, gamma, beta: gamma * _standardize(x),
            "you forgot γ":
                lambda x, gamma, beta: _standardize(x) + beta,
            "you returned x̂: scale by γ and shift by β":
                lambda x, gamma, beta: _standardize(x),
            "you subtracted β: it is added":
                lambda x, gamma, beta: gamma * _standardize(x) - beta,
            "you scaled and shifted x itself, not x̂":
                lambda x, gamma, beta: gamma * x + beta,
            **{sentence: _with_affine(wrong) for sentence, wrong in STANDARDIZE.items()},
        },
        hint="Standardise each column as before, then γ times it plus β; both have one entry for "
        "each column, and broadcasting does the rest.",
    ),
    Exercise(
        "transform/inference",
        reference=_inference,
        draw=_draw_inference,
        mistakes={
            "you used the batch's own mean and variance. At inference the stored ones are used, "
            "so that no example depends on its neighbours":
                lambda x, gamma, beta, mean, var: _batch_norm(x, gamma, beta),
            "you used the stored mean with the batch's own variance":
                lambda x, gamma, beta, mean, var: gamma * (x - mean) / np.sqrt(x.var(axis=0) + EPS) + beta,
            "you used the stored variance with the batch's own mean":
                lambda x, gamma, beta, mean, var: gamma * (x - x.mean(axis=0)) / np.sqrt(var + EPS) + beta,
            "you forgot ε: the layer must do at inference what it did in training":
                lambda x, gamma, beta, mean, var: gamma * (x - mean) / np.sqrt(var) + beta,
            "you added ε outside the root: √(var + ε), not √var + ε":
                lambda x, gamma, beta, mean, var: gamma * (x - mean) / (np.sqrt(var) + EPS) + beta,
            "you divided by the variance: take its root":
                lambda x, gamma, beta, mean, var: gamma * (x - mean) / (var + EPS) + beta,
            "you swapped γ and β: γ scales, β shifts":
                lambda x, gamma, beta, mean, var: beta * (x - mean) / np.sqrt(var + EPS) + gamma,
        },
        hint="The formula of the layer with `mean` and `var` put in; nothing is averaged.",
    ),
    Exercise(
        "transform/gradient",
        reference=_gradient,
        draw=_draw_torch,
        mistakes={
            "the statistics are detached from the gradient: mean and variance were treated as "
            "constants. They depend on x; leave out .detach(), .item() and torch.no_grad()":
                lambda x, t: _through(x, t, detach_mean=True, detach_var=True),
            "the mean is detached from the gradient: it depends on x too":
                lambda x, t: _through(x, t, detach_mean=True),
            "the variance is detached from the gradient: it depends on x too":
                lambda x, t: _through(x, t, detach_var=True),
            "you divided by m − 1 in the variance. That is what tensor.var does unless you write "
            "correction=0":
                lambda x, t: _through(x, t, correction=1),
            "you forgot ε":
                lambda x, t: _through(x, t, forget_eps=True),
            "you returned the gradient with respect to x̂, not x":
                _at_x_hat,
        },
        hint="Let autograd see every step: x.requires_grad_(), mean, variance, quotient, loss, "
        "backward.",
        atol=1e-10,
    ),
]  # fmt: skip
