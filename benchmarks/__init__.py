"""Speed, measured as a ratio of two things run in turns in one process."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Ratio(NamedTuple):
    """How long `a` takes against `b`: quartiles over the rounds, and the median seconds of each."""

    low: float
    median: float
    high: float
    a: float
    b: float

    def __str__(self) -> str:
        return f"{self.median:5.2f} [{self.low:.2f}, {self.high:.2f}]"


def ratio(a: Callable, b: Callable, *, rounds: int = 25, seconds: float = 0.05) -> Ratio:
    """Compare two functions, round by round, in turns.

    The clock is the processor time of this process, which does not run while other programs
    have the core; what they do to the caches and to the clock rate hits both alike.
    """
    repeats = [max(1, round(seconds / _time(f, 2))) for f in (a, b)]
    times = np.empty((rounds, 2))
    for i, row in enumerate(times):
        for j in (0, 1) if i % 2 else (1, 0):
            row[j] = _time((a, b)[j], repeats[j])
    quartiles = np.quantile(times[:, 0] / times[:, 1], (0.25, 0.5, 0.75))
    return Ratio(*map(float, quartiles), *map(float, np.median(times, axis=0)))


def _time(function: Callable, repeats: int, clock: Callable = time.process_time) -> float:
    start = clock()
    for _ in range(repeats):
        function()
    return (clock() - start) / repeats


def turns(functions: dict, *, rounds: int, seconds: float, cpu: bool) -> dict:
    """Time functions in turns; return {name: seconds of a call in each round}.

    Parameters
    ----------
    functions : dict
        What to call, by name.
    rounds : int
    seconds : float
        How long a function's turn lasts, at least one call.
    cpu : bool
        Whether to use the processor time of this process, as :func:`ratio` does, or the wall's.
    """
    clock = time.process_time if cpu else time.perf_counter
    for function in functions.values():
        function()  # what is compiled is compiled now
    repeats = {k: max(1, round(seconds / _time(f, 2, clock))) for k, f in functions.items()}
    times = {name: np.empty(rounds) for name in functions}
    for i in range(rounds):
        for name in list(functions)[:: 1 if i % 2 else -1]:
            times[name][i] = _time(functions[name], repeats[name], clock)
    return times
