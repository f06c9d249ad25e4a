"""A slice of the loss for two networks, and the loss along the gradient, scrubbed over training."""

from __future__ import annotations

import base64

import numpy as np
import traitlets

from ..results import RecordError, curves
from ._base import Widget

ARMS = {"with": True, "without": False}
COLOURS = {"without": "#D55E00", "with": "#0072B2"}


class Landscape(Widget):
    """Scrub through training: a slice of the loss around two networks, and the range of the loss.

    Above, the loss on a slice through the weights along two filter-normalised random directions,
    with and without batch norm; both have one scale. Below, the loss over training, and as a band
    its range along the gradient.

    Parameters
    ----------
    slices, walks : dict
        Records of the experiments ``loss_slices`` and ``loss_landscape``.
    seed : int, optional
        Which run; by default the first seed of `slices`.
    stop : int
        Which of the recorded steps is in view, counted from 0.

    Examples
    --------
    >>> from bn import results
    >>> records = [results.load(name) for name in ("loss_slices", "loss_landscape")]
    >>> Landscape(*records, stop=2)
    Landscape(stop=2)
    """

    _name = "landscape"
    _title = "A slice of the loss, and the loss along the gradient"
    _shown = ("stop",)
    _size = (6.4, 5.6)

    data = traitlets.Dict(help="one run of either arm").tag(sync=True)
    stop = traitlets.Int(0, min=0, help="which of the recorded steps").tag(sync=True)

    def __init__(self, slices=None, walks=None, *, seed=None, **kwargs) -> None:
        if slices is not None:
            kwargs["data"] = compact(slices, walks, seed)
        super().__init__(**kwargs)
        if not self.data:
            raise ValueError(
                "nothing to show: give the records, as in Landscape("
                'bn.results.load("loss_slices"), bn.results.load("loss_landscape"))'
            )

    @traitlets.validate("stop")
    def _recorded(self, proposal):
        steps = self.data.get("steps", [])
        if steps and proposal["value"] >= len(steps):
            raise traitlets.TraitError(
                f"{len(steps)} steps are recorded, counted from 0; got stop={proposal['value']}"
            )
        return proposal["value"]

    def _losses(self, arm: str) -> np.ndarray:
        n = self.data["points"]
        return 10 ** decode(self.data["slices"][arm][self.stop], self.data["bounds"]).reshape(n, n)

    def alt(self) -> str:
        """Say what the slices and the band show at the step in view."""
        step, walk = self.data["steps"][self.stop], self.data["walk"]
        k = walk["steps"].index(step)
        told = []
        for arm, name in (("with", "with batch norm"), ("without", "without")):
            losses = self._losses(arm)
            centre = losses[len(losses) // 2, len(losses) // 2]
            told.append(
                f"{name} the loss is {centre:.3g} at the centre and {rise(losses):.3g} higher at "
                f"the edge; along the gradient it goes from {walk[arm]['low'][k]:.3g} to "
                f"{walk[arm]['high'][k]:.3g}"
            )
        return f"Before step {step}: {'. '.join(told)}."

    def draw(self, figure) -> None:
        """Draw the two slices, and the band below them."""
        data, walk = self.data, self.data["walk"]
        axes = figure.subplot_mosaic([["with", "without"], ["band", "band"]], height_ratios=[2, 1])
        ticks = np.linspace(-data["reach"], data["reach"], data["points"])
        for arm in ARMS:
            drawn = axes[arm].contourf(
                ticks, ticks, np.log10(self._losses(arm)), 12, cmap="Greys",
                vmin=data["bounds"][0], vmax=data["bounds"][1],
            )  # fmt: skip
            drawn.set_edgecolor("face")
            axes[arm].plot(0, 0, "o", mfc="white", color=COLOURS[arm])
            axes[arm].set(title="with batch norm" if arm == "with" else "without", aspect="equal")
            xs = 1 + np.array(walk["steps"])
            axes["band"].fill_between(
                xs, walk[arm]["low"], walk[arm]["high"], color=COLOURS[arm], alpha=0.22
            )
            axes["band"].plot(
                xs, walk[arm]["loss"], color=COLOURS[arm], linestyle="-" if arm == "with" else "--"
            )
        axes["band"].axvline(1 + data["steps"][self.stop], color="#1f2328", linestyle=":")
        axes["band"].set(
            xscale="log", yscale="log", xlabel="1 + training step", ylabel="loss along the gradient"
        )


def compact(slices: dict, walks: dict, seed: int | None = None) -> dict:
    """Keep of two records what the figure draws: one run of either arm.

    Parameters
    ----------
    slices, walks : dict
        Records of ``loss_slices`` and ``loss_landscape``.
    seed : int, optional
        Which run; by default the first seed of `slices`.

    Returns
    -------
    dict
        ``steps``, ``reach``, ``points``; ``slices``, for each arm and step the loss as bytes in
        base64, the logarithm between ``bounds`` in 255 parts; ``walk``, its ``steps`` and, for each
        arm, ``loss``, ``low`` and ``high``.

    Raises
    ------
    bn.results.RecordError
        The walks have no run of this network, rate and seed that stops at the slices' steps.
    """
    config = slices["config"]
    seed = slices["seeds"][0] if seed is None else seed
    steps = walks["config"]["stops"]
    if seed not in walks["seeds"] or seed not in slices["seeds"]:
        raise RecordError(
            f"both records must have seed {seed}: {slices['seeds']} and {walks['seeds']}"
        )
    if not set(config["stops"]) <= set(steps):
        raise RecordError(f"the slices stop at {config['stops']}, the walks only at {steps}")
    logs, walk = {}, {"steps": list(steps)}
    for arm, batch_norm in ARMS.items():
        at = slices["seeds"].index(seed)
        logs[arm] = np.log10(curves(slices, "slices", batch_norm=batch_norm)[at, 0])
        chosen = {"network": config["network"], "lr": config["lr"], "batch_norm": batch_norm}
        at = walks["seeds"].index(seed)
        walk[arm] = {
            key: [float(f"{v:.4g}") for v in curves(walks, key, **chosen)[at, 0]]
            for key in ("loss", "low", "high")
        }
    values = np.concatenate(list(logs.values()))
    low, high = float(values.min()), float(values.max())
    return {
        "steps": list(config["stops"]),
        "reach": config["reach"],
        "points": config["points"],
        "bounds": [low, high],
        "slices": {arm: [encode(row, (low, high)) for row in rows] for arm, rows in logs.items()},
        "walk": walk,
    }


def encode(logs, bounds) -> str:
    """Write numbers within bounds as bytes, 255 equal parts, in base64."""
    low, high = bounds
    return base64.b64encode(
        np.rint(255 * (np.asarray(logs) - low) / (high - low)).astype(np.uint8).tobytes()
    ).decode()


def decode(text: str, bounds) -> np.ndarray:
    """Undo :func:`encode`, up to half a part."""
    low, high = bounds
    return low + (high - low) * np.frombuffer(base64.b64decode(text), np.uint8) / 255


def rise(losses: np.ndarray) -> float:
    """Return how far the loss rises towards the edge: mean over the edge, minus the centre."""
    n = len(losses)
    inner = losses[1:-1, 1:-1]
    return float((losses.sum() - inner.sum()) / (losses.size - inner.size) - losses[n // 2, n // 2])
