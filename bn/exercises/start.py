"""The exercise on which chapter *start* shows how a check answers."""

from __future__ import annotations

import numpy as np

from . import Exercise


def centre(x):
    """Subtract the mean."""
    return x - x.mean()


EXERCISES = [
    Exercise(
        "start/centre",
        reference=centre,
        draw=lambda rng: (rng.normal(3, 2, size=rng.integers(4, 9)),),
        mistakes={
            "you subtracted the median; the mean was asked for": lambda x: x - np.median(x),
            "you added the mean: the sign is wrong": lambda x: x + x.mean(),
            "you also divided by the standard deviation": lambda x: (x - x.mean()) / x.std(),
            "you returned the mean itself, not x minus the mean": lambda x: x.mean(),
            "you subtracted the first value, not the mean": lambda x: x - x[0],
        },
        hint="NumPy has x.mean(); subtracting it from x shifts every entry.",
    ),
]
