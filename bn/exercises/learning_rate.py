"""Exercises of chapter *learning_rate*: the rate that a scale leaves, the largest rate that trains."""

from __future__ import annotations

import numpy as np

from . import Exercise

# ------------------------------------------------------------------------- the effective rates


def _effective(W, eta):
    return eta / (W**2).sum(axis=1)


def _draw_effective(rng):
    out, into = rng.choice(np.arange(2, 7), 2, replace=False)
    return rng.uniform(0.3, 3, (out, 1)) * rng.normal(size=(out, into)), rng.uniform(0.05, 0.9)


# -------------------------------------------------------------------------- the largest that trains


def _largest(rates, losses, bound):
    trains = losses < bound  # not a number is below nothing
    if not trains.any():
        return None
    k = int(np.argmin(np.where(trains, losses, np.inf)))
    while k + 1 < len(rates) and trains[k + 1]:
        k += 1
    return rates[k]


def _any_that_trains(rates, losses, bound):
    trains = losses < bound
    return rates[trains].max() if trains.any() else None


def _nan_trains(rates, losses, bound):
    return _largest(rates, np.where(np.isnan(losses), -np.inf, losses), bound)


def _best(rates, losses, bound):
    trains = losses < bound
    return rates[np.argmin(np.where(trains, losses, np.inf))] if trains.any() else None


def _from_the_first(rates, losses, bound):
    trains = losses < bound
    if not trains.any():
        return None
    k = int(trains.argmax())
    while k + 1 < len(rates) and trains[k + 1]:
        k += 1
    return rates[k]


def _first_failure(rates, losses, bound):
    largest = _largest(rates, losses, bound)
    if largest is None:
        return None
    k = int(np.flatnonzero(rates == largest)[0])
    return rates[min(k + 1, len(rates) - 1)]


def _index(rates, losses, bound):
    largest = _largest(rates, losses, bound)
    return None if largest is None else int(np.flatnonzero(rates == largest)[0])


def _draw_sweep(rng):
    """Losses of a sweep: too slow, a pocket that trains, a gap, the valley, a gap, a pocket, NaN."""
    bound = rng.uniform(0.8, 1.2)

    def good(n):
        return bound * rng.uniform(0.5, 0.9, n)

    def bad(n):
        return bound * rng.uniform(1.1, 2.5, n)

    valley = good(rng.integers(3, 5))
    valley[0] = 0.2 * bound
    parts = [bad(2), good(1), bad(1), valley, bad(rng.integers(1, 3)), good(1),
             bad(1), np.full(rng.integers(1, 3), np.nan)]  # fmt: skip
    losses = np.concatenate(parts)
    return 2.0 ** np.arange(-7, len(losses) - 7), losses, bound


EXERCISES = [
    Exercise(
        "learning_rate/effective",
        reference=_effective,
        draw=_draw_effective,
        mistakes={
            "you divided by the length of the weights. A longer weight vector has a smaller gradient "
            "as well: both together give the square":
                lambda W, eta: eta / np.sqrt((W**2).sum(axis=1)),
            "you took one length for the whole matrix. Batch norm undoes the scale of every unit "
            "separately: one length for each row":
                lambda W, eta: eta / (W**2).sum() * np.ones(len(W)),
            "you summed over the units. A unit's weights stand in a row: sum along axis 1":
                lambda W, eta: eta / (W**2).sum(axis=0),
            "you took the mean of the squares. The length is their sum":
                lambda W, eta: eta / (W**2).mean(axis=1),
            "you multiplied. A longer weight vector turns less, not more: divide":
                lambda W, eta: eta * (W**2).sum(axis=1),
            "you left out the learning rate":
                lambda W, eta: 1 / (W**2).sum(axis=1),
            "you used the spread about the mean. The length counts from zero":
                lambda W, eta: eta / ((W - W.mean(axis=1, keepdims=True)) ** 2).sum(axis=1),
        },
        hint="One number for each row of W: the rate over the sum of the squares in that row.",
    ),
    Exercise(
        "learning_rate/largest",
        reference=_largest,
        draw=_draw_sweep,
        mistakes={
            "you took the largest of all rates that train. Above the first failure a run may train "
            "by luck: stop at the first rate that does not":
                _any_that_trains,
            "you counted a loss that is not a number as trained. Every comparison with NaN is false: "
            "ask for loss < bound, not for “not loss >= bound”":
                _nan_trains,
            "you returned the rate with the lowest loss. That is the best one; go up from it while "
            "the runs train":
                _best,
            "you went up from the smallest rate that trains. Go up from the one with the lowest "
            "loss: below it a run may fail because it is too slow":
                _from_the_first,
            "you returned the first rate that fails: go back by one":
                _first_failure,
            "you returned the place in the list: return the rate":
                _index,
        },
        hint="Find the rate with the lowest loss; while the next one trains, go there.",
    ),
]  # fmt: skip
