"""Exercises of chapter *noisy batch norm*: the noise, and how far a distribution moves."""

from __future__ import annotations

import numpy as np

from . import Exercise

# ------------------------------------------------------------------------------------- the noise


def _scale(sigma, z, r):
    return sigma + r * z


def _shift(mu, u, r):
    return mu + r * (2 * u - 1)


def _shaken(scale=_scale, shift=_shift):
    """Noise with this scale and shift."""

    def shake(a, mu, sigma, u, z, r):
        return scale(sigma, z, r) * a + shift(mu, u, r)

    return shake


def _shift_first(a, mu, sigma, u, z, r):
    return _scale(sigma, z, r) * (a + _shift(mu, u, r))


def _scale_added(a, mu, sigma, u, z, r):
    return a + _scale(sigma, z, r) + _shift(mu, u, r)


def _units_only(a, mu, sigma, u, z, r):
    return sigma * a + mu


def _draw_shake(rng):
    n, units = int(rng.integers(3, 7)), int(rng.integers(2, 5))
    return (
        rng.normal(size=(n, units)),
        rng.uniform(-0.5, 0.5, units),
        rng.uniform(1, 1.25, units),
        rng.random((n, units)),
        rng.normal(size=(n, units)),
        rng.uniform(0.1, 0.4),
    )


# ------------------------------------------------------------------- how far a distribution moves


def _moved(before, after, axis=0):
    return abs(np.sort(before, axis=axis) - np.sort(after, axis=axis)).mean()


def _spread(before, after):
    return np.sqrt((before.var(axis=0) + after.var(axis=0)) / 2).mean()


def _distance(before, after):
    return _moved(before, after) / _spread(before, after)


def _by_example(before, after):
    return abs(before - after).mean() / _spread(before, after)


def _means_only(before, after):
    return abs(before.mean(axis=0) - after.mean(axis=0)).mean() / _spread(before, after)


def _signed(before, after):
    return (after.mean(axis=0) - before.mean(axis=0)).mean() / _spread(before, after)


def _unit_by_unit(before, after):
    moved = abs(np.sort(before, axis=0) - np.sort(after, axis=0)).mean(axis=0)
    return (moved / np.sqrt((before.var(axis=0) + after.var(axis=0)) / 2)).mean()


def _draw_distance(rng):
    n, units = int(rng.integers(5, 12)), int(rng.integers(2, 5))
    spread = rng.uniform(0.2, 3, (2, units))
    before, after = spread[:, None] * rng.normal(size=(2, n, units))
    return before, after + rng.uniform(-1, 1, units)


EXERCISES = [
    Exercise(
        "noisy_batch_norm/shake",
        reference=_shaken(),
        draw=_draw_shake,
        mistakes={
            "u runs from 0 to 1, so that your shift lies between μ and μ + r; it should reach as "
            "far below μ as above: 2u − 1 runs from −1 to 1": _shaken(
                shift=lambda mu, u, r: mu + r * u
            ),
            "your shift covers half the range; from μ − r to μ + r the width is 2r": _shaken(
                shift=lambda mu, u, r: mu + r * (u - 0.5)
            ),
            "you took r as the variance of the scale; here it is the standard deviation, so that "
            "the scale is σ + r z": _shaken(scale=lambda sigma, z, r: sigma + np.sqrt(r) * z),
            "you shifted first, and scaled the shift too; scale first, then shift": _shift_first,
            "you used only the unit's μ and σ; each example has its own m and s around "
            "them": _units_only,
            "you added the scale; it multiplies the activation": _scale_added,
            "you left out the scale": _shaken(scale=lambda sigma, z, r: 1),
            "you left out the shift": _shaken(shift=lambda mu, u, r: 0),
        },
        hint="m = μ + r(2u − 1), s = σ + r z, and the result is s·a + m.",
    ),
    Exercise(
        "noisy_batch_norm/distance",
        reference=_distance,
        draw=_draw_distance,
        mistakes={
            "you compared example by example; a distribution has no order: sort the values of "
            "each unit first": _by_example,
            "you sorted within each example; sort each unit's values over the examples, "
            "axis=0": lambda before, after: _moved(before, after, 1) / _spread(before, after),
            "you sorted all units together; sort each unit by itself, axis=0": lambda before, after: (
                _moved(before, after, None) / _spread(before, after)
            ),
            "you compared only the means, so that a unit that widens does not move": _means_only,
            "you let moves of opposite sign cancel; take absolute values": _signed,
            "you left out the spread: that is the absolute distance": _moved,
            "you took the spread before only; take the mean of both variances": lambda before, after: (
                _moved(before, after) / before.std(axis=0).mean()
            ),
            "you divided unit by unit and then averaged; average the distances and the spreads "
            "over the units, then divide": _unit_by_unit,
        },
        hint="np.sort(x, axis=0) sorts each column. The spread of a unit is the root of the mean "
        "of its two variances (np.var, dividing by n).",
    ),
]
