"""Exercises of chapter *memory_bound*: the roof, one multiplication and one addition, blocks."""

from __future__ import annotations

import numpy as np

from . import Exercise

EPS = 1e-5


# --------------------------------------------------------------------------------- the roof


def _least_seconds(walks, operations, values, itemsize, bandwidth, peak):
    return np.maximum(values * itemsize * walks / bandwidth, values * operations / peak)


def _draw_machine(rng):
    """Six ways, from one far on the memory's side of the ridge to one far on the other side."""
    values, itemsize = int(10 ** rng.uniform(4, 8)), int(rng.choice([2, 4, 8]))
    walks, bandwidth, ridge = rng.integers(5, 29, 6), 10 ** rng.uniform(10, 12), rng.uniform(5, 50)
    sides = np.exp(rng.permutation(np.linspace(-4, 4, 6)))
    return (
        walks,
        np.ceil(walks * itemsize * ridge * sides),
        values,
        itemsize,
        bandwidth,
        bandwidth * ridge,
    )


# ------------------------------------------------------------------------ scale and shift


def _fold(mean, var, gamma, beta):
    scale = gamma / np.sqrt(var + EPS)
    return scale, beta - scale * mean


def _draw_channel(rng):
    n = rng.integers(2, 6)
    var = np.append(rng.uniform(0.3, 3, n - 1), rng.uniform(1e-5, 1e-4))
    gamma = rng.uniform(0.5, 2, n) * rng.choice([-1, 1], n)
    return rng.uniform(1, 3, n) * rng.choice([-1, 1], n), var, gamma, rng.uniform(0.5, 2, n)


def _fold_with(scale, shift):
    def wrong(mean, var, gamma, beta):
        a = scale(mean, var, gamma, beta)
        return a, shift(a, mean, var, gamma, beta)

    return wrong


def _right_scale(mean, var, gamma, beta):
    return gamma / np.sqrt(var + EPS)


def _right_shift(a, mean, var, gamma, beta):
    return beta - a * mean


# ---------------------------------------------------------------------------------- blocks


def _from_blocks(blocks):
    count = np.array([len(b) for b in blocks])
    means = np.array([b.mean(axis=0, dtype=float) for b in blocks])
    variances = np.array([b.var(axis=0, dtype=float) for b in blocks])
    mean = count @ means / count.sum()
    return mean, count @ (variances + (means - mean) ** 2) / count.sum()


def _draw_blocks(rng):
    """Blocks of unequal length whose means differ; float32, far from zero."""
    n, k = rng.integers(2, 5), rng.integers(3, 6)
    lengths = 3 + rng.permutation(12)[:k]
    offset = rng.choice([-1, 1], n) * rng.uniform(2000, 5000, n)
    spread = rng.uniform(0.5, 2, n)
    shifts = spread * rng.normal(size=(k, n)) * 2
    return (
        [
            (offset + shift + spread * rng.normal(size=(m, n))).astype(np.float32)
            for m, shift in zip(lengths, shifts, strict=True)
        ],
    )


def _plain_average(blocks):
    mean = np.mean([b.mean(axis=0, dtype=float) for b in blocks], axis=0)
    return mean, np.mean([((b - mean) ** 2).mean(axis=0) for b in blocks], axis=0)


def _only_within(blocks):
    mean, _ = _from_blocks(blocks)
    count = np.array([len(b) for b in blocks])
    return mean, count @ np.array([b.var(axis=0, dtype=float) for b in blocks]) / count.sum()


def _only_between(blocks):
    mean, _ = _from_blocks(blocks)
    count = np.array([len(b) for b in blocks])
    means = np.array([b.mean(axis=0, dtype=float) for b in blocks])
    return mean, count @ (means - mean) ** 2 / count.sum()


def _squares(blocks):
    m = sum(len(b) for b in blocks)
    mean = sum(b.sum(axis=0) for b in blocks) / np.float32(m)
    return mean, sum((b**2).sum(axis=0) for b in blocks) / np.float32(m) - mean**2


def _unbiased(blocks):
    m = sum(len(b) for b in blocks)
    mean, var = _from_blocks(blocks)
    return mean, var * m / (m - 1)


EXERCISES = [
    Exercise(
        "memory_bound/least_seconds",
        reference=_least_seconds,
        draw=_draw_machine,
        mistakes={
            "you added the two times. A machine computes while it fetches: the longer one counts":
                lambda w, o, v, i, b, p: v * i * w / b + v * o / p,
            "you took the shorter of the two times: nothing is done before the slower side is":
                lambda w, o, v, i, b, p: np.minimum(v * i * w / b, v * o / p),
            "you looked at the memory only: with few bytes for each operation, arithmetic decides":
                lambda w, o, v, i, b, p: v * i * w / b,
            "you looked at the arithmetic only, as if data came for nothing":
                lambda w, o, v, i, b, p: v * o / p,
            "you forgot the bytes of a value: the bandwidth is in bytes a second":
                lambda w, o, v, i, b, p: np.maximum(v * w / b, v * o / p),
            "you let the batch pass memory once. It is walked over `walks` times":
                lambda w, o, v, i, b, p: np.maximum(v * i / b, v * o / p),
            "you returned operations a second, the height of the roof, not the time":
                lambda w, o, v, i, b, p: np.minimum(p, b * o / (i * w)),
        },
        hint="Bytes divided by bandwidth is one time, operations divided by the peak"
        " another; np.maximum compares entry by entry.",
        atol=0.0,
    ),
    Exercise(
        "memory_bound/scale_and_shift",
        reference=_fold,
        draw=_draw_channel,
        mistakes={
            "your shift is β − μ: the mean is scaled too before it is subtracted, β − scale·μ":
                _fold_with(_right_scale, lambda a, mean, var, gamma, beta: beta - mean),
            "your shift adds scale·μ: it is subtracted":
                _fold_with(_right_scale, lambda a, mean, var, gamma, beta: beta + a * mean),
            "your shift is −scale·μ: β is missing":
                _fold_with(_right_scale, lambda a, mean, var, gamma, beta: -a * mean),
            "your shift is β alone: the mean of x has to go":
                _fold_with(_right_scale, lambda a, mean, var, gamma, beta: beta),
            "you forgot ε":
                _fold_with(lambda mean, var, gamma, beta: gamma / np.sqrt(var), _right_shift),
            "you added ε outside the root: √(σ² + ε), not √σ² + ε":
                _fold_with(lambda mean, var, gamma, beta: gamma / (np.sqrt(var) + EPS), _right_shift),
            "you divided by the variance: take its root":
                _fold_with(lambda mean, var, gamma, beta: gamma / (var + EPS), _right_shift),
            "you forgot γ in the scale":
                _fold_with(lambda mean, var, gamma, beta: 1 / np.sqrt(var + EPS), _right_shift),
            "you divided the mean by γ in the shift: β − γ·μ/√(σ² + ε) has γ above":
                _fold_with(
                    _right_scale,
                    lambda a, mean, var, gamma, beta: beta - mean / gamma / np.sqrt(var + EPS),
                ),
        },
        hint="Multiply out γ (x − μ)/√(σ² + ε) + β and collect what stands before x.",
    ),
    Exercise(
        "memory_bound/moments_of_blocks",
        reference=_from_blocks,
        draw=_draw_blocks,
        mistakes={
            "you averaged the blocks' variances and left out that their means differ. The total "
            "variance is the mean of the variances plus the variance of the means":
                _only_within,
            "you took the variance of the blocks' means and left out the variance inside the blocks":
                _only_between,
            "you gave every block the same weight. They have different lengths: weigh by them":
                _plain_average,
            "you subtracted the square of the mean from the mean of the squares. In float32, with "
            "values in the thousands, the digits are gone: subtract a mean before you square":
                _squares,
            "you divided by m − 1: the batch's own variance divides by m":
                _unbiased,
        },
        hint="For each block its length, mean and variance; then a weighted mean, and the law of "
        "total variance.",
        rtol=2e-3,
    ),
]  # fmt: skip
