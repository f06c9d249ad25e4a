"""Recorded training, replayed: the curves of both arms, and what went into a nonlinearity."""

from __future__ import annotations

import re

import numpy as np
import traitlets

from .. import results
from ._base import Widget

METRICS = {
    "test_accuracy": "test accuracy",
    "train_accuracy": "training accuracy",
    "test_loss": "test loss",
    "train_loss": "training loss",
}
ARMS = {"without": False, "with": True}
COLOURS = {"without": "#D55E00", "with": "#0072B2"}
TITLES = {"mlp": "sigmoid MLP", "lenet": "LeNet", "convnet": "ConvNet"}


class Replay(Widget):
    """Scrub through recorded training runs, with and without batch norm.

    Above, one metric by epoch: the mean over seeds as a line, smallest to largest as a band, and a
    marker at the epoch in view. Below, the distribution of what goes into one of the network's
    nonlinearities after that epoch, for each arm.

    Parameters
    ----------
    *records : dict
        Records as :func:`bn.results.load` gives them, each of one network with the parameter
        ``batch_norm`` true and false and the same seeds in both arms. Distributions are those of
        the first seed.
    net : int
        Which record is shown.
    metric : str
        ``"test_accuracy"``, ``"train_accuracy"``, ``"test_loss"`` or ``"train_loss"``.
    layer : int
        Which nonlinearity, counted from 0; negative from the end. Beyond the last is the last.
    epoch : int
        The epoch in view, from 1; beyond a network's last is its last. By default the last.

    Examples
    --------
    >>> replay = Replay(bn.results.load("mnist_mlp"))  # doctest: +SKIP
    >>> replay.epoch = 3  # doctest: +SKIP
    """

    _name = "replay"
    _title = "Replay the training"
    _shown = ("net", "metric", "layer", "epoch")
    _size = (6.4, 5.6)

    nets = traitlets.List(traitlets.Dict(), help="recorded runs").tag(sync=True)
    net = traitlets.Int(0, min=0, help="which of them").tag(sync=True)
    metric = traitlets.Enum(list(METRICS), "test_accuracy", help="what the curves show").tag(
        sync=True
    )
    layer = traitlets.Int(-1, help="which nonlinearity").tag(sync=True)
    epoch = traitlets.Int(1, min=1, help="the epoch in view").tag(sync=True)

    def __init__(self, *records, **kwargs) -> None:
        if records:
            kwargs["nets"] = [compact(record) for record in records]
        if nets := kwargs.get("nets"):
            shown = nets[min(kwargs.get("net", 0), len(nets) - 1)]
            kwargs.setdefault("epoch", shown["epochs"][-1])
        super().__init__(**kwargs)
        if not self.nets:
            raise ValueError(
                'nothing to replay: give records, as in Replay(bn.results.load("mnist_mlp"))'
            )

    @traitlets.validate("net")
    def _known(self, proposal):
        if proposal["value"] >= len(self.nets):
            raise traitlets.TraitError(
                f"there are {len(self.nets)} networks, counted from 0; got net={proposal['value']}"
            )
        return proposal["value"]

    def _view(self):
        """The network, the epoch's place in it, and the layer, all within bounds."""
        net = self.nets[self.net]
        count = len(net["layers"])
        layer = min(self.layer, count - 1) if self.layer >= 0 else max(self.layer + count, 0)
        return net, min(self.epoch, len(net["epochs"])) - 1, layer

    def alt(self) -> str:
        """Say what the curves show at the epoch in view."""
        net, at, _ = self._view()
        shown = [_spoken(self.metric, band(net["curves"][arm][self.metric])["mean"][at])
                 for arm in ("with", "without")]  # fmt: skip
        return (
            f"{net['title']}, after epoch {at + 1}: {METRICS[self.metric]}, {shown[0]} with batch norm "
            f"and {shown[1]} without, means of {net['seeds']} seeds."
        )

    def draw(self, figure) -> None:
        """Draw the curves, and the two distributions below them."""
        net, at, layer = self._view()
        curves, *rows = figure.subplots(3, 1, height_ratios=[2.4, 1, 1])
        for arm in ARMS:
            values = band(net["curves"][arm][self.metric])
            curves.fill_between(
                net["epochs"], values["low"], values["high"], color=COLOURS[arm], alpha=0.22
            )
            curves.plot(net["epochs"], values["mean"], color=COLOURS[arm],
                        linestyle="-" if arm == "with" else "--", label=f"{arm} batch norm")  # fmt: skip
        curves.axvline(at + 1, color="#1f2328", linewidth=1)
        curves.set(
            xlabel="epoch", ylabel=METRICS[self.metric], title=f"{net['title']}, epoch {at + 1}"
        )
        if self.metric.endswith("loss"):
            curves.set_yscale("log")
        curves.legend()
        low, high = reach(net["layers"][layer])
        for axes, arm in zip(rows, ARMS, strict=True):
            seen = net["layers"][layer][arm]
            edges = np.linspace(*seen["edges"][at], len(seen["counts"][at]) + 1)
            axes.stairs(seen["counts"][at], edges, fill=True, color=COLOURS[arm], alpha=0.5)
            axes.set(xlim=(low, high), yticks=[], ylabel=arm)
        rows[0].set_xticklabels([])
        rows[1].set_xlabel(
            f"what goes into {net['layers'][layer]['label']} (scaled to equal height)"
        )


# ------------------------------------------------------------------ records, made small


def compact(record: dict) -> dict:
    """Take from a record what the replay draws.

    Parameters
    ----------
    record : dict
        One experiment's record: units with ``params["batch_norm"]``, a seed and epochs.

    Returns
    -------
    dict
        ``title``, ``seeds`` (how many), ``epochs`` (their numbers), ``curves`` by arm and metric
        as ``[seed][epoch]``, and ``layers`` with quantiles and histograms in parts per thousand by
        arm and epoch.

    Raises
    ------
    bn.results.RecordError
        An arm lacks a seed, or there is no such arm.
    """
    curves = {
        arm: {m: _short(results.curves(record, m, batch_norm=flag)).tolist() for m in METRICS}
        for arm, flag in ARMS.items()
    }
    first = {
        arm: next(u["epochs"] for u in record["units"]
                  if u["seed"] == record["seeds"][0] and u["params"]["batch_norm"] is flag)
        for arm, flag in ARMS.items()
    }  # fmt: skip
    network = record["config"]["network"]
    return {
        "title": TITLES.get(network, network),
        "seeds": len(record["seeds"]),
        "epochs": [row["epoch"] for row in first["with"]],
        "curves": curves,
        "layers": [
            {"name": name, "label": re.sub(r"(\d+)$", r" \1", name).replace("relu", "ReLU")}
            | {arm: _distributions(rows, name) for arm, rows in first.items()}
            for name in first["with"][0]["preactivations"]
        ],
    }


def _distributions(rows, name) -> dict:
    seen = [row["preactivations"][name] for row in rows]
    return {
        "edges": _short([s["edges"] for s in seen]).tolist(),
        "quantiles": _short([s["quantiles"] for s in seen]).tolist(),
        "counts": [[round(1000 * c / max(sum(s["counts"]), 1)) for c in s["counts"]] for s in seen],
    }


@np.vectorize
def _short(value: float) -> float:
    """Four significant digits: finer than a pixel, and a third of the weight on the page."""
    return float(f"{value:.4g}")


# ------------------------------------------------- what replay_maths.js computes as well


def band(seeds) -> dict:
    """Mean, smallest and largest over seeds, epoch by epoch, of ``seeds[seed][epoch]``."""
    values = np.asarray(seeds, dtype=float)
    return {"mean": values.mean(0), "low": values.min(0), "high": values.max(0)}


def density(counts, edges) -> np.ndarray:
    """Heights of a histogram of equal bins over ``edges = [low, high]``, with area one."""
    counts = np.asarray(counts, dtype=float)
    return counts / (max(counts.sum(), 1) * (edges[1] - edges[0]) / len(counts))


def reach(layer: dict) -> tuple[float, float]:
    """One axis for a layer, so that epochs and arms compare: the ends of all its histograms."""
    ends = [end for arm in ARMS for end in layer[arm]["edges"]]
    return min(low for low, _ in ends), max(high for _, high in ends)


def _spoken(metric: str, value: float) -> str:
    return f"{100 * value:.1f} %" if metric.endswith("accuracy") else f"{value:.3g}"
