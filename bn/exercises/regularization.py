"""Exercises of chapter *regularization*: the noise of a deviation, ghost batches, dropout's shift."""

from __future__ import annotations

import numpy as np

from . import Exercise

EPS = 1e-5


# ------------------------------------------------------------ the variance of a batch's deviation


def _moments(x):
    """Variance and excess kurtosis."""
    var = ((x - x.mean()) ** 2).mean()
    return var, ((x - x.mean()) ** 4).mean() / var**2 - 3


def _noise(formula):
    """A variance of the batch's deviation, made from var, the excess kurtosis and m."""

    def deviation_noise(x, m):
        return formula(*_moments(x), m)

    return deviation_noise


def _draw_noise(rng):
    n = rng.integers(30, 60)
    return rng.uniform(1, 3) + rng.uniform(2, 4) * rng.exponential(size=n), rng.integers(4, 20)


# ----------------------------------------------------------------------------------- ghost batches


def _ghost(x, size):
    parts = x.reshape(-1, size, x.shape[1])
    mean, var = parts.mean(axis=1, keepdims=True), parts.var(axis=1, keepdims=True)
    return ((parts - mean) / np.sqrt(var + EPS)).reshape(x.shape)


def _parted(mean, var, root=lambda var: np.sqrt(var + EPS)):
    """The same with other statistics."""

    def ghost(x, size):
        parts = x.reshape(-1, size, x.shape[1])
        return ((parts - mean(parts)) / root(var(parts))).reshape(x.shape)

    return ghost


def _mean(parts):
    return parts.mean(axis=1, keepdims=True)


def _var(parts):
    return parts.var(axis=1, keepdims=True)


def _whole_mean(parts):
    return parts.mean(axis=(0, 1), keepdims=True)


def _whole_var(parts):
    return parts.var(axis=(0, 1), keepdims=True)


def _interleaved(x, size):
    groups = x.reshape(size, -1)
    return ((groups - groups.mean(0)) / np.sqrt(groups.var(0) + EPS)).reshape(x.shape)


def _as_count(x, size):
    return _ghost(x, len(x) // size)


def _draw_ghost(rng):
    size, parts = rng.choice([3, 4, 5, 6], 2, replace=False)
    x = rng.normal(size=(size * parts, rng.integers(2, 4)))
    return rng.uniform(1, 3) + rng.uniform(0.2, 2, x.shape[1]) * x, int(size)


# --------------------------------------------------------------------------- the shift of dropout


def _shift(mean, var, p):
    return 1 + p / (1 - p) * (1 + mean**2 / var)


def _draw_shift(rng):
    n = rng.integers(2, 5)
    return rng.uniform(0.5, 2, n), rng.uniform(0.5, 3, n), rng.uniform(0.1, 0.4)


EXERCISES = [
    Exercise(
        "regularization/deviation_noise",
        reference=_noise(lambda var, rho, m: var * (rho + 2) / (4 * m)),
        draw=_draw_noise,
        mistakes={
            "you used the kurtosis itself. The formula has the excess over a normal distribution: "
            "subtract 3":
                _noise(lambda var, rho, m: var * (rho + 5) / (4 * m)),
            "you took the feature to be normal: its excess kurtosis is not 0":
                _noise(lambda var, rho, m: var / (2 * m)),
            "that is the variance of the batch's variance. The deviation is its square root, whose "
            "slope is 1/(2σ): divide by 4σ²":
                _noise(lambda var, rho, m: var**2 * (rho + 2) / m),
            "that is the variance of the batch's mean":
                _noise(lambda var, rho, m: var / m),
            "you returned a deviation: the question is about the variance of σ_B":
                _noise(lambda var, rho, m: np.sqrt(var * (rho + 2) / (4 * m))),
            "you left out σ²: the noise of σ_B grows with the feature's scale":
                _noise(lambda var, rho, m: (rho + 2) / (4 * m)),
            "you multiplied with σ and not with σ²":
                _noise(lambda var, rho, m: np.sqrt(var) * (rho + 2) / (4 * m)),
            "you divided by √m: averaging m independent values divides a variance by m":
                _noise(lambda var, rho, m: var * (rho + 2) / (4 * np.sqrt(m))),
            "the slope of the square root, 1/(2σ), comes in squared: 4 in the denominator, not 2":
                _noise(lambda var, rho, m: var * (rho + 2) / (2 * m)),
        },
        hint="Variance and excess kurtosis of all of x first: the mean fourth power of the centred "
        "values, over the squared variance, minus 3.",
    ),
    Exercise(
        "regularization/ghost",
        reference=_ghost,
        draw=_draw_ghost,
        mistakes={
            "you normalised the whole batch at once: that is ordinary batch norm":
                _parted(_whole_mean, _whole_var),
            "your ghost batches hold every k-th example. Here they are consecutive ones":
                _interleaved,
            "you took size for the number of ghost batches. It is how many examples each of them has":
                _as_count,
            "you subtracted the mean of the whole batch. Each ghost batch has its own":
                _parted(_whole_mean, _var),
            "you divided by the deviation of the whole batch. Each ghost batch has its own":
                _parted(_mean, _whole_var),
            "you divided by size − 1 in the variance: batch norm normalises with the biased one":
                _parted(_mean, lambda parts: parts.var(axis=1, keepdims=True, ddof=1)),
            "you left out ε. The deviation is √(σ² + ε)":
                _parted(_mean, _var, np.sqrt),
            "you added ε outside the root. The deviation is √(σ² + ε)":
                _parted(_mean, _var, lambda var: np.sqrt(var) + EPS),
            "you divided by the variance and not by the deviation":
                _parted(_mean, _var, lambda var: var + EPS),
            "you took one mean and one variance for all features of a ghost batch":
                _parted(lambda parts: parts.mean(axis=(1, 2), keepdims=True),
                        lambda parts: parts.var(axis=(1, 2), keepdims=True)),
        },
        hint="x.reshape(-1, size, x.shape[1]) puts each ghost batch into a slice of its own; axis 1 "
        "runs over its examples.",
        rtol=1e-9,
    ),
    Exercise(
        "regularization/dropout_shift",
        reference=_shift,
        draw=_draw_shift,
        mistakes={
            "that holds for features of mean zero. Dropping a feature that is never near zero makes "
            "more variance: μ² belongs to it":
                lambda mean, var, p: 1 / (1 - p) + 0 * var,
            "that is the variance in training. The ratio divides it by σ²":
                lambda mean, var, p: var + p / (1 - p) * (var + mean**2),
            "you forgot that what is kept is divided by 1 − p. That keeps the mean, and makes the "
            "variance larger":
                lambda mean, var, p: (1 - p) * (1 + p * mean**2 / var),
            "your ratio is upside down: training over evaluation":
                lambda mean, var, p: 1 / _shift(mean, var, p),
            "p and 1 − p are exchanged: p is the probability of dropping":
                lambda mean, var, p: _shift(mean, var, 1 - p),
            "the factor is p/(1 − p), not p: what is kept is divided by 1 − p":
                lambda mean, var, p: 1 + p * (1 + mean**2 / var),
            "that is how much is added. The feature's own variance is there as well: 1 plus it":
                lambda mean, var, p: _shift(mean, var, p) - 1,
            "you divided μ² by σ and not by σ²":
                lambda mean, var, p: 1 + p / (1 - p) * (1 + mean**2 / np.sqrt(var)),
            "that is a ratio of deviations: the question is about variances":
                lambda mean, var, p: np.sqrt(_shift(mean, var, p)),
            "you subtracted no mean: that is the second moment over σ². The mean of the dropped "
            "feature is still μ":
                lambda mean, var, p: (var + mean**2) / (1 - p) / var,
        },
        hint="E[d²] = 1/(1 − p) for the factor d, and E[d] = 1. The variance is E[d²]E[x²] − μ².",
    ),
]  # fmt: skip
