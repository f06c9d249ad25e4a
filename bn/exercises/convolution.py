"""Exercises of chapter *convolution*: the axes of images, padding, what an image is worth."""

from __future__ import annotations

import numpy as np

from . import Exercise

EPS = 1e-5


# ------------------------------------------------------------------------------ images


def _batch_norm(x, gamma, beta, *, axis=(0, 2, 3), kept=1, ddof=0, eps=EPS, outside=0.0):
    mean = x.mean(axis=axis, keepdims=True)
    sigma = np.sqrt(x.var(axis=axis, ddof=ddof, keepdims=True) + eps) + outside
    shape = [1] * x.ndim
    shape[kept] = -1
    return gamma.reshape(shape) * (x - mean) / sigma + beta.reshape(shape)


def _images(x, gamma, beta):
    return _batch_norm(x, gamma, beta)


def _with(**how):
    return lambda x, gamma, beta: _batch_norm(x, gamma, beta, **how)


def _draw_images(rng):
    """As many columns as channels, so that a slip of the axes runs; one channel is tight."""
    c = rng.integers(3, 6)
    shape = rng.integers(2, 5), c, rng.integers(2, 5), c
    scale = np.append(rng.uniform(0.5, 3, c - 1), rng.uniform(2e-3, 6e-3))[:, None, None]
    x = rng.uniform(1, 4, (c, 1, 1)) * rng.choice([-1, 1], (c, 1, 1)) + scale * rng.normal(
        size=shape
    )
    return x, rng.uniform(0.5, 2, c) * rng.choice([-1, 1], c), rng.uniform(0.5, 2, c)


# --------------------------------------------------------------------------- sequences


def _real(x, lengths):
    return np.broadcast_to((np.arange(x.shape[2]) < lengths[:, None])[:, None], x.shape)


def _masked(x, lengths):
    real = _real(x, lengths)
    mean = x.mean(axis=(0, 2), where=real, keepdims=True)
    var = x.var(axis=(0, 2), where=real, keepdims=True)
    return np.where(real, (x - mean) / np.sqrt(var + EPS), 0.0)


def _padding_counts(x, lengths):
    return (x - x.mean((0, 2), keepdims=True)) / np.sqrt(x.var((0, 2), keepdims=True) + EPS)


def _divides_by_all(x, lengths):
    real, m = _real(x, lengths), x.shape[0] * x.shape[2]
    mean = x.sum((0, 2), where=real, keepdims=True) / m
    var = ((x - mean) ** 2).sum((0, 2), where=real, keepdims=True) / m
    return np.where(real, (x - mean) / np.sqrt(var + EPS), 0.0)


def _padding_in_variance(x, lengths):
    real = _real(x, lengths)
    mean = x.mean((0, 2), where=real, keepdims=True)
    var = ((x - mean) ** 2).mean((0, 2), keepdims=True)
    return np.where(real, (x - mean) / np.sqrt(var + EPS), 0.0)


def _sequence_by_sequence(x, lengths):
    real = _real(x, lengths)
    mean = x.mean(2, where=real, keepdims=True)
    return np.where(real, (x - mean) / np.sqrt(x.var(2, where=real, keepdims=True) + EPS), 0.0)


def _means_of_means(x, lengths):
    real = _real(x, lengths)
    mean = x.mean(2, where=real, keepdims=True).mean(0, keepdims=True)
    var = ((x - mean) ** 2).mean(2, where=real, keepdims=True).mean(0, keepdims=True)
    return np.where(real, (x - mean) / np.sqrt(var + EPS), 0.0)


def _padding_left(x, lengths):
    real = _real(x, lengths)
    mean = x.mean((0, 2), where=real, keepdims=True)
    return (x - mean) / np.sqrt(x.var((0, 2), where=real, keepdims=True) + EPS)


def _channels_together(x, lengths):
    real = _real(x, lengths)
    return np.where(real, (x - x[real].mean()) / np.sqrt(x[real].var() + EPS), 0.0)


def _draw_sequences(rng):
    n, c, length = rng.integers(3, 6), rng.integers(2, 4), rng.integers(7, 11)
    lengths = np.append(length, rng.integers(2, length - 2, n - 1))
    x = rng.uniform(1, 4, (c, 1)) + rng.uniform(0.5, 2, (c, 1)) * rng.normal(size=(n, c, length))
    return np.where(_real(x, lengths), x, 0.0), lengths


# ------------------------------------------------------------------ what an image is worth


def _worth(x):
    return x.var(axis=(0, 2, 3)) / x.mean(axis=(2, 3)).var(axis=0)


def _draw_population(rng):
    """Images whose pixels agree in part: every image has a brightness of its own."""
    n, c, h, w = rng.integers(6, 12), rng.integers(2, 4), rng.integers(3, 5), rng.integers(5, 7)
    own = rng.uniform(0.3, 1, (c, 1, 1)) * rng.normal(size=(n, c, 1, 1))
    return (rng.uniform(-2, 2, (c, 1, 1)) + own + rng.normal(size=(n, c, h, w)),)


EXERCISES = [
    Exercise(
        "convolution/batch_norm",
        reference=_images,
        draw=_draw_images,
        mistakes={
            "you averaged over the examples only, so every position has a mean of its own. A channel "
            "has one: average over axes 0, 2 and 3":
                _with(axis=(0,)),
            "you averaged over the positions of each image by itself: that is instance norm. Average "
            "over the examples too":
                _with(axis=(2, 3)),
            "you averaged over the channels and positions of each image: that is layer norm. Channels "
            "are kept, examples are averaged over":
                _with(axis=(1, 2, 3)),
            "you averaged over everything: every channel has its own mean and variance":
                _with(axis=(0, 1, 2, 3)),
            "you took the last axis for the channels. Here they are axis 1; the check draws as many "
            "columns as channels, so nothing complained":
                _with(axis=(0, 1, 2), kept=3),
            "γ and β run along the last axis. An array of shape (C,) broadcasts against the columns: "
            "write gamma[:, None, None]":
                _with(kept=3),
            "you divided by m − 1 in the variance: the batch is normalised with its own variance, "
            "divided by m = N·H·W":
                _with(ddof=1),
            "you forgot ε":
                _with(eps=0.0),
            "you added ε outside the root: √(σ² + ε), not √σ² + ε":
                _with(eps=0.0, outside=EPS),
            "you returned x̂: scale by γ and shift by β":
                lambda x, gamma, beta: _batch_norm(x, np.ones_like(gamma), np.zeros_like(beta)),
        },
        hint="axis=(0, 2, 3) and keepdims=True for mean and variance; gamma[:, None, None] for the "
        "scale.",
    ),
    Exercise(
        "convolution/masked",
        reference=_masked,
        draw=_draw_sequences,
        mistakes={
            "the padding went into the statistics, and comes out as something else than 0. Average "
            "over the real values only":
                _padding_counts,
            "the padding went into the statistics. Setting it back to 0 afterwards does not take it "
            "out of the mean and the variance":
                lambda x, lengths: np.where(_real(x, lengths), _padding_counts(x, lengths), 0.0),
            "you summed over the real values and divided by N·L. Divide by how many real values there "
            "are, lengths.sum()":
                _divides_by_all,
            "your mean leaves the padding out and your variance does not: a padded 0 lies far from "
            "the mean, and its square counts":
                _padding_in_variance,
            "you normalised each sequence by itself. A channel has one mean and one variance, over "
            "all sequences":
                _sequence_by_sequence,
            "you averaged the sequences' averages, so a short sequence weighs as much as a long one. "
            "Every value weighs the same":
                _means_of_means,
            "the statistics are right, but the padding no longer is 0: (0 − μ)/σ is not. Set it back":
                _padding_left,
            "you took one mean and one variance of all channels: every channel has its own":
                _channels_together,
        },
        hint="np.arange(L) < lengths[:, None] is true where a value is real; x.mean takes where=.",
    ),
    Exercise(
        "convolution/worth",
        reference=_worth,
        draw=_draw_population,
        mistakes={
            "you returned H·W, the number of positions. That is what an image is worth when its "
            "pixels are independent":
                lambda x: np.full(x.shape[1], float(x.shape[2] * x.shape[3])),
            "your quotient stands upside down: the variance of all values over the variance of the "
            "images' means":
                lambda x: 1 / _worth(x),
            "you averaged over the images at each position. Average over the positions of each image":
                lambda x: x.var((0, 2, 3)) / x.mean(0).var((1, 2)),
            "you took the variance within each image. The numerator is the variance of all values "
            "about the mean of all":
                lambda x: x.var((2, 3)).mean(0) / x.mean((2, 3)).var(0),
            "you compared standard deviations: the quotient is one of variances":
                lambda x: np.sqrt(_worth(x)),
            "you divided by the number of images − 1 in the variance of the means. The array is the "
            "whole population here: divide by their number":
                lambda x: x.var((0, 2, 3)) / x.mean((2, 3)).var(0, ddof=1),
            "you multiplied by the number of images. Asked is what one image is worth":
                lambda x: len(x) * _worth(x),
            "you mixed the channels: each has its own variance and its own image means":
                lambda x: np.full(x.shape[1], x.var() / x.mean((1, 2, 3)).var()),
        },
        hint="Two variances for each channel: of all its values, and of its means over the positions "
        "of each image.",
    ),
]  # fmt: skip
