"""Exercises of chapter *inference*: moving averages, their start, pooled statistics, folding."""

from __future__ import annotations

import numpy as np

from . import Exercise

EPS = 1e-5


# ------------------------------------------------------------------------ one step of the average


def _update(running_mean, running_var, x, momentum):
    mean, var = x.mean(axis=0), x.var(axis=0, ddof=1)
    return (
        (1 - momentum) * running_mean + momentum * mean,
        (1 - momentum) * running_var + momentum * var,
    )


def _updated(mean, var, keep=lambda a: 1 - a, take=lambda a: a):
    """The same step with other statistics, or other weights."""

    def step(running_mean, running_var, x, momentum):
        return (
            keep(momentum) * running_mean + take(momentum) * mean(x),
            keep(momentum) * running_var + take(momentum) * var(x),
        )

    return step


def _mean(x):
    return x.mean(axis=0)


def _unbiased(x):
    return x.var(axis=0, ddof=1)


def _about_running_mean(running_mean, running_var, x, momentum):
    new_mean, _ = _update(running_mean, running_var, x, momentum)
    var = ((x - new_mean) ** 2).sum(axis=0) / (len(x) - 1)
    return new_mean, (1 - momentum) * running_var + momentum * var


def _draw_update(rng):
    m, n = rng.integers(3, 7), rng.integers(2, 5)
    x = rng.uniform(1, 3, n) + rng.uniform(0.5, 2, n) * rng.normal(size=(m, n))
    return rng.normal(size=n), rng.uniform(0.5, 3, n), x, rng.uniform(0.05, 0.4)


# ----------------------------------------------------------------------- without the start's share


def _moving(values, momentum, start=0.0):
    running = start
    for value in values:
        running = (1 - momentum) * running + momentum * value
    return running


def _debiased(values, momentum):
    return _moving(values, momentum) / (1 - (1 - momentum) ** len(values))


def _every_step(values, momentum):
    running = 0.0
    for n, value in enumerate(values, 1):
        running = ((1 - momentum) * running + momentum * value) / (1 - (1 - momentum) ** n)
    return running


def _draw_values(rng):
    return rng.uniform(2, 5, rng.integers(3, 9)), rng.uniform(0.05, 0.4)


# -------------------------------------------------------------------------------- pooled statistics


def _pooled(counts, means, variances):
    share = (counts / counts.sum())[:, None]
    mean = (share * means).sum(axis=0)
    return mean, (share * (variances + (means - mean) ** 2)).sum(axis=0)


def _within_only(counts, means, variances):
    share = (counts / counts.sum())[:, None]
    return (share * means).sum(axis=0), (share * variances).sum(axis=0)


def _all_alike(counts, means, variances):
    return means.mean(axis=0), (variances + (means - means.mean(axis=0)) ** 2).mean(axis=0)


def _from_deviations(counts, means, variances):
    share = (counts / counts.sum())[:, None]
    mean = (share * means).sum(axis=0)
    within = (share * np.sqrt(variances)).sum(axis=0) ** 2
    return mean, within + (share * (means - mean) ** 2).sum(axis=0)


def _corrected(counts, means, variances):
    mean, var = _pooled(counts, means, variances)
    return mean, var * counts.sum() / (counts.sum() - 1)


def _deviation(counts, means, variances):
    mean, var = _pooled(counts, means, variances)
    return mean, np.sqrt(var)


def _between_only(counts, means, variances):
    share = (counts / counts.sum())[:, None]
    mean = (share * means).sum(axis=0)
    return mean, (share * (means - mean) ** 2).sum(axis=0)


def _between_unweighted(counts, means, variances):
    mean, within = _within_only(counts, means, variances)
    return mean, within + means.var(axis=0)


def _draw_pooled(rng):
    b, n = rng.integers(3, 6), rng.integers(2, 4)
    counts = rng.permutation(np.append(rng.integers(20, 40, b - 1), rng.integers(2, 6)))
    return counts, rng.normal(size=(b, n)) + 3, rng.uniform(0.5, 2, (b, n))


# ------------------------------------------------------------------------------------------ folding


def _fold(W, b, gamma, beta, mean, var):
    scale = gamma / np.sqrt(var + EPS)
    return scale[:, None] * W, scale * (b - mean) + beta


def _folded(scale, bias):
    """Fold with another factor, or another bias."""

    def fold(W, b, gamma, beta, mean, var):
        s = scale(gamma, var)
        return s[:, None] * W, bias(s, b, beta, mean)

    return fold


def _factor(gamma, var):
    return gamma / np.sqrt(var + EPS)


def _shift(scale, b, beta, mean):
    return scale * (b - mean) + beta


def _draw_fold(rng):
    out, into = rng.choice(np.arange(2, 7), 2, replace=False)
    sign = rng.choice([-1, 1], out)
    return (rng.normal(size=(out, into)), rng.normal(size=out) + 1, sign * rng.uniform(0.5, 2, out),
            rng.normal(size=out) + 1, rng.normal(size=out) - 2,
            np.append(rng.uniform(0.2, 3, out - 1), rng.uniform(1e-5, 1e-4)))  # fmt: skip


EXERCISES = [
    Exercise(
        "inference/update",
        reference=_update,
        draw=_draw_update,
        mistakes={
            "the weights are the other way round: momentum is the weight of the new batch here, as "
            "in PyTorch. Keras and ONNX give it to the old value":
                _updated(_mean, _unbiased, keep=lambda a: a, take=lambda a: 1 - a),
            "you stored the biased variance. The batch is normalised with the one divided by m; what "
            "is stored is divided by m − 1":
                _updated(_mean, lambda x: x.var(axis=0)),
            "you multiplied the biased variance by (m − 1)/m. It has to grow: m/(m − 1)":
                _updated(_mean, lambda x: x.var(axis=0) * (len(x) - 1) / len(x)),
            "you corrected the unbiased variance once more by m/(m − 1): ddof=1 has done it already":
                _updated(_mean, lambda x: x.var(axis=0, ddof=1) * len(x) / (len(x) - 1)),
            "you averaged standard deviations. What is stored is the variance":
                _updated(_mean, lambda x: x.std(axis=0, ddof=1)),
            "you took the variance about the running mean. It is taken about the batch's own mean":
                _about_running_mean,
            "you added the new value and did not shrink the old one: its weight is 1 − momentum":
                _updated(_mean, _unbiased, keep=lambda a: 1),
            "you took the optimizer's momentum, momentum · old + new: here the weights sum to one":
                _updated(_mean, _unbiased, keep=lambda a: a, take=lambda a: 1),
            "you returned the batch's own statistics: average them with the running ones":
                _updated(_mean, _unbiased, keep=lambda a: 0, take=lambda a: 1),
            "you took one mean and one variance of the whole array. Every feature has its own: axis=0":
                _updated(lambda x: x.mean(), lambda x: x.var(ddof=1)),
        },
        hint="Two lines of one form, (1 − momentum) · old + momentum · new; new is x.mean(axis=0) "
        "in the first and x.var(axis=0, ddof=1) in the second.",
    ),
    Exercise(
        "inference/debias",
        reference=_debiased,
        draw=_draw_values,
        mistakes={
            "you returned the plain moving average: the start still holds the share (1 − α)ⁿ. Divide "
            "by what the values hold together, 1 − (1 − α)ⁿ":
                _moving,
            "you divided by (1 − α)ⁿ, the share of the start. The values hold 1 − (1 − α)ⁿ":
                lambda values, momentum: _moving(values, momentum) / (1 - momentum) ** len(values),
            "you divided by 1 − αⁿ. The start shrinks by the factor 1 − α at each step":
                lambda values, momentum: _moving(values, momentum) / (1 - momentum ** len(values)),
            "your exponent is n − 1: after n values the start has shrunk n times":
                lambda values, momentum: _moving(values, momentum)
                / (1 - (1 - momentum) ** (len(values) - 1)),
            "you began with the first value. That removes the start, and leaves the first value a "
            "weight of (1 − α)ⁿ⁻¹, larger than any other":
                lambda values, momentum: _moving(values[1:], momentum, values[0]),
            "you divided at every step and went on with the divided value. Keep the average as it "
            "is, and divide the end only":
                _every_step,
            "you took the plain mean: recent values should weigh more":
                lambda values, momentum: values.mean(),
            "the weights are the other way round: momentum is the weight of the new value":
                lambda values, momentum: _debiased(values, 1 - momentum),
        },
        hint="Run the average from 0. The weights of the n values sum to 1 − (1 − α)ⁿ; divide by that.",
    ),
    Exercise(
        "inference/population",
        reference=_pooled,
        draw=_draw_pooled,
        mistakes={
            "you averaged the variances and left out the variance of the means. The population "
            "varies within the batches and between them":
                _within_only,
            "you weighed all batches alike. A batch counts as often as it has examples":
                _all_alike,
            "you averaged standard deviations and squared: average the variances":
                _from_deviations,
            "you multiplied by n/(n − 1). The variance of all data together divides by their number":
                _corrected,
            "you returned the standard deviation: leave out the square root":
                _deviation,
            "you returned the variance of the means alone: add the mean of the variances":
                _between_only,
            "you weighed the variances by their counts and the spread of the means not. Both take "
            "the same weights":
                _between_unweighted,
        },
        hint="Weights counts / counts.sum(). The mean of the means, then the mean of "
        "variances + (means − mean)².",
    ),
    Exercise(
        "inference/fold",
        reference=_fold,
        draw=_draw_fold,
        mistakes={
            "you forgot ε: fold with the ε that the layer was trained with":
                _folded(lambda gamma, var: gamma / np.sqrt(var), _shift),
            "you added ε outside the root: √(var + ε), not √var + ε":
                _folded(lambda gamma, var: gamma / (np.sqrt(var) + EPS), _shift),
            "you divided by the variance: take its root":
                _folded(lambda gamma, var: gamma / (var + EPS), _shift),
            "you left out γ: the factor is γ/√(var + ε)":
                _folded(lambda gamma, var: 1 / np.sqrt(var + EPS), _shift),
            "you dropped the linear layer's own bias: b − mean, not −mean":
                _folded(_factor, lambda scale, b, beta, mean: beta - scale * mean),
            "you kept b as it is. It goes through the normalisation too: scale · (b − mean) + β":
                _folded(_factor, lambda scale, b, beta, mean: b - scale * mean + beta),
            "you subtracted the mean without scaling it: scale · (b − mean) + β":
                _folded(_factor, lambda scale, b, beta, mean: scale * b - mean + beta),
            "you forgot the mean: scale · (b − mean) + β":
                _folded(_factor, lambda scale, b, beta, mean: scale * b + beta),
            "you forgot β":
                _folded(_factor, lambda scale, b, beta, mean: scale * (b - mean)),
            "you scaled β as well: it comes after the scaling":
                _folded(_factor, lambda scale, b, beta, mean: scale * (b - mean + beta)),
            "you added the mean: it is subtracted":
                _folded(_factor, lambda scale, b, beta, mean: scale * (b + mean) + beta),
        },
        hint="Put z = W x + b into γ (z − mean)/√(var + ε) + β and collect: what stands before x, and "
        "what is left. One factor for each row of W.",
    ),
]  # fmt: skip
