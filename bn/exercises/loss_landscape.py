"""Exercises of chapter *loss_landscape*: effective β, filter normalisation, curvature."""

from __future__ import annotations

import numpy as np

from . import Exercise

# --------------------------------------------------------------------------- effective β-smoothness


def _lengths(rows):
    return np.sqrt((rows**2).sum(axis=1))


def _beta(points, gradients):
    return (_lengths(gradients[1:] - gradients[0]) / _lengths(points[1:] - points[0])).max()


def _draw_walk(rng):
    k, n = rng.integers(4, 7), rng.integers(2, 5)
    start, gradient = rng.normal(size=n), rng.normal(size=n)
    factors = np.concatenate([[0], np.cumsum(rng.uniform(0.2, 1, k))])
    points = start - 0.3 * factors[:, None] * gradient
    noise = rng.normal(size=(k + 1, n)) * np.concatenate([[0], rng.uniform(0.2, 3, k)])[:, None]
    return points, gradient + noise


# ----------------------------------------------------------------------------- filter normalisation


def _normalised(direction, weight):
    return direction * (_lengths(weight) / _lengths(direction))[:, None]


def _draw_filters(rng):
    rows, columns = rng.choice(np.arange(2, 7), 2, replace=False)
    scale = rng.uniform(0.3, 4, (rows, 1))
    return rng.normal(size=(rows, columns)), scale * rng.normal(size=(rows, columns))


# -------------------------------------------------------------------- curvature through batch norm


def _curvature(x, g, H, gamma):
    """The curvature along the gradient, with its parts open to mistakes."""
    return _with(x, g, H, gamma)


def _with(x, g, H, gamma, first=lambda gamma, s: gamma**2 / s**2,
          second=lambda gamma, s, m: -gamma / (m * s**2), along=None, part="both"):  # fmt: skip
    m, s = len(x), x.std()
    x_hat = (x - x.mean()) / s
    d = g - g.mean() - x_hat * (g @ x_hat) / m
    d = g if along == "g" else d
    found = 0.0
    if part != "second":
        found += first(gamma, s) * (d @ H @ d) / (d @ d)
    if part != "first":
        found += second(gamma, s, m) * (g @ x_hat)
    return found


def _wrong(**changes):
    return lambda x, g, H, gamma: _with(x, g, H, gamma, **changes)


def _times_length(x, g, H, gamma):
    m, s = len(x), x.std()
    x_hat = (x - x.mean()) / s
    d = gamma / s * (g - g.mean() - x_hat * (g @ x_hat) / m)
    return _with(x, g, H, gamma) * (d @ d)


def _draw_curvature(rng):
    m = rng.integers(4, 9)
    a = rng.normal(size=(m, m))
    x = rng.normal(size=m) * rng.uniform(0.3, 0.7)
    return x, rng.normal(size=m) + x, a @ a.T / m, rng.uniform(1.2, 2)


EXERCISES = [
    Exercise(
        "loss_landscape/effective_beta",
        reference=_beta,
        draw=_draw_walk,
        mistakes={
            "you divided the largest change of the gradient by the largest distance. Divide point by "
            "point, and take the largest ratio":
                lambda points, gradients: _lengths(gradients[1:] - gradients[0]).max()
                / _lengths(points[1:] - points[0]).max(),
            "you took the mean of the ratios: β is the largest":
                lambda points, gradients: (
                    _lengths(gradients[1:] - gradients[0]) / _lengths(points[1:] - points[0])
                ).mean(),
            "you took the smallest ratio: β is the largest":
                lambda points, gradients: (
                    _lengths(gradients[1:] - gradients[0]) / _lengths(points[1:] - points[0])
                ).min(),
            "you compared each point with the one before it. Compare it with the start, from which "
            "the step is taken":
                lambda points, gradients: (
                    _lengths(np.diff(gradients, axis=0)) / _lengths(np.diff(points, axis=0))
                ).max(),
            "you subtracted lengths of gradients. A gradient that turns keeps its length: subtract "
            "the vectors, then take the length":
                lambda points, gradients: (
                    abs(_lengths(gradients[1:]) - _lengths(gradients[:1]))
                    / _lengths(points[1:] - points[0])
                ).max(),
            "you took the largest change of the gradient, without the distance":
                lambda points, gradients: _lengths(gradients[1:] - gradients[0]).max(),
            "you did not subtract the gradient at the start":
                lambda points, gradients: (
                    _lengths(gradients[1:]) / _lengths(points[1:] - points[0])
                ).max(),
            "you divided by the squared distance":
                lambda points, gradients: (
                    _lengths(gradients[1:] - gradients[0]) / _lengths(points[1:] - points[0]) ** 2
                ).max(),
            "you returned the squared ratio: take the root":
                lambda points, gradients: _beta(points, gradients) ** 2,
            "you turned the ratio over: change of the gradient over distance":
                lambda points, gradients: (
                    _lengths(points[1:] - points[0]) / _lengths(gradients[1:] - gradients[0])
                ).max(),
        },
        hint="For k = 1, 2, …: the length of gradients[k] − gradients[0] over the length of "
        "points[k] − points[0]. Then the largest.",
    ),
    Exercise(
        "loss_landscape/filter_normalised",
        reference=_normalised,
        draw=_draw_filters,
        mistakes={
            "you gave the whole matrix the length of the weights. Every row, a filter, gets its own":
                lambda direction, weight: direction
                * np.linalg.norm(weight)
                / np.linalg.norm(direction),
            "you went by columns. A row holds the weights that lead to one unit":
                lambda direction, weight: direction
                * np.linalg.norm(weight, axis=0)
                / np.linalg.norm(direction, axis=0),
            "your rows have length 1: multiply each by the length of the row of weights":
                lambda direction, weight: direction / _lengths(direction)[:, None],
            "you multiplied by the lengths of the weights and did not divide by those of the "
            "direction":
                lambda direction, weight: direction * _lengths(weight)[:, None],
            "the ratio is the wrong way round":
                lambda direction, weight: direction
                * (_lengths(direction) / _lengths(weight))[:, None],
            "you took squared lengths: take the root":
                lambda direction, weight: direction
                * ((weight**2).sum(1) / (direction**2).sum(1))[:, None],
            "you scaled every entry by its weight. Only the row's length counts":
                lambda direction, weight: direction * weight,
            "you took the rows' largest entries for their lengths":
                lambda direction, weight: direction
                * (abs(weight).max(1) / abs(direction).max(1))[:, None],
        },
        hint="np.linalg.norm(weight, axis=1, keepdims=True) holds the length of each row.",
    ),
    Exercise(
        "loss_landscape/curvature",
        reference=_curvature,
        draw=_draw_curvature,
        mistakes={
            "you left out the second term, −γ⟨g, x̂⟩/(mσ²): normalising is itself curved":
                _wrong(part="first"),
            "you left out the term with H": _wrong(part="second"),
            "the second term has the wrong sign: x̂ bends back towards the mean":
                _wrong(second=lambda gamma, s, m: gamma / (m * s**2)),
            "the second term lacks 1/m": _wrong(second=lambda gamma, s, m: -gamma / s**2),
            "γ² in the second term: there γ stands once":
                _wrong(second=lambda gamma, s, m: -(gamma**2) / (m * s**2)),
            "you left γ out of the second term":
                _wrong(second=lambda gamma, s, m: -1 / (m * s**2)),
            "σ in the second term is squared":
                _wrong(second=lambda gamma, s, m: -gamma / (m * s)),
            "the first term has (γ/σ)², not γ/σ": _wrong(first=lambda gamma, s: gamma / s),
            "the first term lacks 1/σ²": _wrong(first=lambda gamma, s: gamma**2),
            "the first term lacks γ²": _wrong(first=lambda gamma, s: 1 / s**2),
            "you took H along g. The gradient with respect to x has the direction of P g":
                _wrong(along="g"),
            "you forgot to divide by ‖d‖²: curvature is per unit of length, squared": _times_length,
        },
        hint="d = g − mean(g) − x̂ ⟨g, x̂⟩/m gives the direction; its length cancels in dᵀHd/‖d‖². "
        "Then subtract γ⟨g, x̂⟩/(mσ²).",
    ),
]  # fmt: skip
