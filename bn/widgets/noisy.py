"""Noise behind batch norm: what it does to a unit's distribution, and to the training."""

from __future__ import annotations

import numpy as np
import traitlets

from .. import results
from ._base import Widget

STRENGTHS = (0, 1, 2, 4, 8)
NETWORKS = {"sigmoid": "sigmoid network", "relu": "deep ReLU network"}
COLOURS = ("#D55E00", "#0072B2", "#009E73")
LINES = ("--", "-", ":")


class Noisy(Widget):
    """Turn up the noise behind batch norm, and see distributions move and the loss fall.

    Above, quantiles (.05, .25, .5, .75, .95) of what goes into one unit in the middle of the
    network, on the same images at every step: without batch norm, with it, and with noise behind
    it. Below, the training loss: mean over seeds, smallest to largest as a band.

    Parameters
    ----------
    record : dict
        Of the experiment ``noisy_batch_norm``.
    level : int
        The noise: the place in ``(0, 1, 2, 4, 8)`` times that of the source.
    network : str
        ``"sigmoid"`` or ``"relu"``.
    span : str
        ``"steps"``: 25 steps in a row; ``"run"``: 25 points of the whole training.
    common : bool
        One vertical scale for the three distributions, or each its own.

    Examples
    --------
    >>> noisy = Noisy(bn.results.load("noisy_batch_norm"))  # doctest: +SKIP
    >>> noisy.level = 4  # eight times the noise  # doctest: +SKIP
    """

    _name = "noisy"
    _title = "Shake a network while it trains"
    _shown = ("network", "level", "span", "common")
    _size = (6.4, 6.0)

    runs = traitlets.Dict(help="what the record holds of it").tag(sync=True)
    level = traitlets.Int(1, min=0, max=len(STRENGTHS) - 1, help="place of the strength").tag(
        sync=True
    )
    network = traitlets.Enum(list(NETWORKS), "sigmoid", help="which network").tag(sync=True)
    span = traitlets.Enum(["steps", "run"], "steps", help="which time").tag(sync=True)
    common = traitlets.Bool(True, help="one scale for all distributions").tag(sync=True)

    def __init__(self, record=None, **kwargs) -> None:
        if record is not None:
            kwargs["runs"] = compact(record)
        super().__init__(**kwargs)
        if not self.runs:
            raise ValueError(
                'nothing to show: give the record, as in Noisy(bn.results.load("noisy_batch_norm"))'
            )

    @property
    def arms(self) -> list[dict]:
        """What is drawn: without batch norm, with it, with it and the noise in view."""
        found = self.runs["networks"][self.network]
        return [found["plain"], found["norm"][0], found["norm"][self.level]]

    def alt(self) -> str:
        """Say how far one step moves the distributions, and what the losses are."""
        plain, norm, noisy = self.arms
        loss = [final_loss(arm["loss"], self.runs["last"]) for arm in (noisy, norm, plain)]
        return (
            f"The {NETWORKS[self.network]}, noise ×{STRENGTHS[self.level]} behind batch norm. One "
            f"step moves a unit's distribution by {noisy['moved']:.2g}, without batch norm by "
            f"{plain['moved']:.2g}. Final training loss {loss[0]:.3g} with noise, {loss[1]:.3g} "
            f"with batch norm alone, {loss[2]:.3g} without."
        )

    def draw(self, figure) -> None:
        """Draw the three distributions over time, and the curves below them."""
        *rows, curves = figure.subplots(4, 1, height_ratios=[1, 1, 1, 1.9])
        names = ("without", "batch norm", f"noise ×{STRENGTHS[self.level]}")
        first, _, stride = self.runs["spans"][self.span]
        ends = reach([arm["traces"][self.span] for arm in self.arms], self.common)
        for i, (axes, arm) in enumerate(zip(rows, self.arms, strict=True)):
            q = np.transpose(arm["traces"][self.span])
            steps = first + stride * np.arange(q.shape[1])
            for low, high in ((0, 4), (1, 3)):
                axes.fill_between(steps, q[low], q[high], color=COLOURS[i], alpha=0.25, lw=0)
            axes.plot(steps, q[2], color=COLOURS[i])
            axes.set(ylabel=names[i], ylim=ends[i])
        for axes in rows[:2]:
            axes.set_xticklabels([])
        for i, arm in enumerate(self.arms):
            loss = np.array(arm["loss"])
            steps = self.runs["window"] * (0.5 + np.arange(loss.shape[1]))
            curves.fill_between(steps, loss.min(0), loss.max(0), color=COLOURS[i], alpha=0.22)
            curves.plot(steps, loss.mean(0), LINES[i], color=COLOURS[i], label=names[i])
        curves.set(xlabel="step", ylabel="training loss", yscale="log")
        curves.legend()


def compact(record: dict) -> dict:
    """Take from a record what the figure draws, at each network's first learning rate."""
    networks = {}
    for network in NETWORKS:
        units = [u for u in record["units"] if u["params"]["network"] == network]
        at = {"network": network, "lr": units[0]["params"]["lr"], "steady": False}
        networks[network] = {
            "plain": _arm(record, **at, batch_norm=False, strength=0),
            "norm": [_arm(record, **at, batch_norm=True, strength=k) for k in STRENGTHS],
        }
    config = record["config"]
    return {
        "strengths": list(STRENGTHS),
        "networks": networks,
        "spans": {k: [a, b, (*step, 1)[0]] for k, (a, b, *step) in config["traces"].items()},
        "window": config["window"],
        "last": 4,
        "seeds": len(record["seeds"]),
    }


def _arm(record, **params) -> dict:
    (drawn,) = (
        unit
        for unit in record["units"]
        if unit["seed"] == record["config"]["drawn"][0] and params.items() <= unit["params"].items()
    )
    short = np.vectorize(lambda value: float(f"{value:.4g}"))
    return {
        "loss": short(results.curves(record, "loss", **params)[:, 0]).tolist(),
        "traces": {k: short(v).tolist() for k, v in drawn["epochs"][0]["traces"].items()},
        **{
            name: float(results.curves(record, name, **params)[:, 0, 0].mean())
            for name in ("moved", "shift")
        },
    }


# ------------------------------------------------- what noisy_maths.js computes as well


def final_loss(curves, windows: int) -> float:
    """Mean over seeds of the last `windows` of each of ``curves[seed][window]``."""
    return float(np.mean(np.asarray(curves)[:, -windows:]))


def reach(traces, common: bool) -> list[list[float]]:
    """Ends of a vertical axis for each ``trace[step][quantile]``: its own, or one for all."""
    ends = [[min(q[0] for q in t), max(q[-1] for q in t)] for t in traces]
    if common:
        return [[min(low for low, _ in ends), max(high for _, high in ends)]] * len(ends)
    return ends
