"""A drifting stream of batches, and the running estimates that chase it."""

from __future__ import annotations

import math

import numpy as np
import traitlets

from ._base import Widget
from .chain import uniform

STEPS = 150
START = 3.0  # the mean before the first step


def normals(seed: int, n: int) -> np.ndarray:
    """Draw `n` normal numbers that JavaScript draws too (Box and Muller).

    Examples
    --------
    >>> normals(1, 2).round(4).tolist()
    [1.4043, 0.0241]
    """
    u = uniform(seed, 2 * math.ceil(n / 2))
    r, angle = np.sqrt(-2 * np.log(1 - u[::2])), 2 * np.pi * u[1::2]
    return np.stack([r * np.cos(angle), r * np.sin(angle)], axis=1).ravel()[:n]


def batches(seed: int, m: int) -> dict[str, np.ndarray]:
    """Mean and unbiased variance of each batch of `m` standard normal numbers."""
    z = normals(seed, STEPS * m).reshape(STEPS, m)
    return {"mean": z.mean(axis=1), "variance": z.var(axis=1, ddof=1)}


def average(values, momentum: float | None, start: float) -> np.ndarray:
    """Run ``r = (1 - a) * r + a * v`` over a series; with momentum None, ``a = 1 / n`` at the n-th.

    Examples
    --------
    >>> average([4.0, 8.0], 0.5, start=0).tolist()
    [2.0, 5.0]
    >>> average([4.0, 8.0], None, start=0).tolist()
    [4.0, 6.0]
    """
    running, kept = start, []
    for n, value in enumerate(values, 1):
        a = 1 / n if momentum is None else momentum
        running = (1 - a) * running + a * value
        kept.append(running)
    return np.array(kept)


def chase(seen: dict, momentum: float | None, drift: float, growth: float, spread: float) -> dict:
    """What is true, what each batch says, what is stored, and what is stored without noise.

    Parameters
    ----------
    seen : dict
        Of standard normal numbers, from :func:`batches`.
    momentum : float or None
        Weight of the new batch; None weighs all batches alike.
    drift, growth : float
        At each step the mean moves by `drift`, and the deviation grows by the factor ``1 + growth``.
    spread : float
        The deviation before the first step.

    Returns
    -------
    dict
        ``truth``, ``batch``, ``run`` (the running estimates, from 0 and 1) and ``clear`` (the same
        if every batch told the truth), each with the series ``mean`` and ``variance``.
    """
    steps = np.arange(1, len(seen["mean"]) + 1)
    sd = spread * (1 + growth) ** steps
    truth = {"mean": START + drift * steps, "variance": sd**2}
    batch = {"mean": truth["mean"] + sd * seen["mean"], "variance": sd**2 * seen["variance"]}

    def stored(of):
        return {"mean": average(of["mean"], momentum, 0.0),
                "variance": average(of["variance"], momentum, 1.0)}  # fmt: skip

    return {"truth": truth, "batch": batch, "run": stored(batch), "clear": stored(truth)}


class Running(Widget):
    """Watch running mean and variance chase a stream whose mean and spread drift.

    Above the mean, below the variance, over 150 steps: the truth, each batch's own statistic as a
    dot, and the running estimate that starts from 0 and 1. The variance is stored unbiased.

    Parameters
    ----------
    momentum : float
        Weight of the new batch, 0 to 1, as in PyTorch.
    cumulative : bool
        ``momentum=None``: all batches weigh the same.
    batch_size : int
        Values in a batch, 2 to 128.
    drift : float
        What is added to the mean at each step.
    growth : float
        By which share the standard deviation grows at each step.
    spread : float
        The standard deviation before the first step.
    seed : int
        Which stream.
    step : int
        The step in view, 1 to 150.

    Examples
    --------
    >>> still = Running(momentum=0.1, drift=0, growth=0, step=20)
    >>> float(round(still.clear["mean"][19] / 3, 4))               # 1 - 0.9 ** 20
    0.8784
    """

    _name = "running"
    _title = "Chase a drifting stream"
    _shown = ("momentum", "cumulative", "batch_size", "drift", "growth", "spread", "seed", "step")
    _size = (6.4, 4.8)

    momentum = traitlets.Float(0.1, min=0, max=1, help="weight of the new batch").tag(sync=True)
    cumulative = traitlets.Bool(False, help="momentum=None").tag(sync=True)
    batch_size = traitlets.Int(16, min=2, max=128, help="values in a batch").tag(sync=True)
    drift = traitlets.Float(0.03, min=-1, max=1, help="of the mean, per step").tag(sync=True)
    growth = traitlets.Float(0.003, min=-0.05, max=0.05, help="of the deviation").tag(sync=True)
    spread = traitlets.Float(2.0, min=0.1, max=10, help="first deviation").tag(sync=True)
    seed = traitlets.Int(1, min=0, help="which stream").tag(sync=True)
    step = traitlets.Int(40, min=1, max=STEPS, help="the step in view").tag(sync=True)

    @traitlets.validate("momentum", "drift", "growth", "spread")
    def _number(self, proposal):
        if not math.isfinite(proposal["value"]):
            raise traitlets.TraitError(
                f"{proposal['trait'].name} must be a finite number, got {proposal['value']}"
            )
        return proposal["value"]

    def _series(self) -> dict:
        return chase(
            batches(self.seed, self.batch_size),
            None if self.cumulative else self.momentum,
            self.drift,
            self.growth,
            self.spread,
        )

    @property
    def truth(self) -> dict[str, np.ndarray]:
        """The stream's mean and variance at each step."""
        return self._series()["truth"]

    @property
    def batch(self) -> dict[str, np.ndarray]:
        """Mean and unbiased variance of each batch."""
        return self._series()["batch"]

    @property
    def run(self) -> dict[str, np.ndarray]:
        """The running estimates after each step."""
        return self._series()["run"]

    @property
    def clear(self) -> dict[str, np.ndarray]:
        """The running estimates if every batch told the truth: start and lag, without noise."""
        return self._series()["clear"]

    def alt(self) -> str:
        """Say how far off the estimates are at the step in view."""
        series, at = self._series(), self.step - 1
        said = [
            f"running {what} {series['run'][what][at]:.3g}, true {series['truth'][what][at]:.3g}"
            for what in ("mean", "variance")
        ]
        how = "momentum None" if self.cumulative else f"momentum {self.momentum:g}"
        return (
            f"With {how} and batches of {self.batch_size}, at step {self.step}: {'; '.join(said)}."
        )

    def draw(self, figure) -> None:
        """Draw the mean above, the variance below."""
        series, steps = self._series(), np.arange(1, STEPS + 1)
        for axes, what in zip(
            figure.subplots(2, 1, sharex=True), ("mean", "variance"), strict=True
        ):
            axes.plot(
                steps,
                series["batch"][what],
                ".",
                color="#8A9099",
                markersize=4,
                label="a batch's own",
            )
            axes.plot(steps, series["truth"][what], "--", color="#D55E00", label="true")
            axes.plot(steps, series["run"][what], color="#0072B2", linewidth=2, label="running")
            axes.axvline(self.step, color="#1f2328", linewidth=1)
            axes.set(ylabel=what)
            low, high = edges(series, what)
            axes.set_ylim(low, high)
        axes.set_xlabel("step")
        figure.axes[0].legend(loc="lower right", ncols=3)


def edges(series: dict, what: str) -> tuple[float, float]:
    """Return an axis that holds the truth and the start, whatever the momentum is."""
    if what == "mean":
        shown = np.concatenate([series["truth"]["mean"], series["batch"]["mean"], [0.0]])
        return float(shown.min()), float(shown.max())
    return 0.0, 2.2 * max(1.0, float(series["truth"]["variance"].max()))
