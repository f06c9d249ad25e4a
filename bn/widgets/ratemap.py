"""Recorded training from every learning rate and initial scale: two maps, and the curves of a cell."""

from __future__ import annotations

import math

import numpy as np
import traitlets

from .. import results
from ._base import Widget

ARMS = {"without": False, "with": True}
COLOURS = {"without": "#D55E00", "with": "#0072B2"}
ACTIVATIONS = {"relu": "ReLU", "sigmoid": "sigmoid"}
CEILING = 10.0  # losses above it, and those that are no number, are drawn here


class RateMap(Widget):
    """Walk over the learning rates and initial scales of two networks, with and without batch norm.

    Above, two maps: a cell for each rate and scale, the fuller the higher the test accuracy, with a
    dot where it reaches the record's threshold. Below, the training loss of the cell in view, by
    step: the median over seeds as a line, smallest to largest as a band.

    Parameters
    ----------
    record : dict
        Of the experiment `rate_map`, as :func:`bn.results.load` gives it.
    activation : str
        ``"relu"`` or ``"sigmoid"``.
    rate, scale : int
        The cell in view, counted from 0 in the record's lists of rates and scales.

    Examples
    --------
    >>> figure = RateMap(bn.results.load("rate_map"))  # doctest: +SKIP
    >>> figure.rate = 8  # doctest: +SKIP
    """

    _name = "ratemap"
    _title = "Learning rate and initial scale"
    _shown = ("activation", "rate", "scale")
    _size = (6.4, 5.6)

    runs = traitlets.Dict(help="what was recorded").tag(sync=True)
    activation = traitlets.Enum(list(ACTIVATIONS), "relu", help="which nonlinearity").tag(sync=True)
    rate = traitlets.Int(6, min=0, help="which learning rate").tag(sync=True)
    scale = traitlets.Int(5, min=0, help="which initial scale").tag(sync=True)

    def __init__(self, record=None, **kwargs) -> None:
        if record is not None:
            kwargs["runs"] = compact(record)
        if not kwargs.get("runs"):
            raise ValueError('no maps: give a record, as in RateMap(bn.results.load("rate_map"))')
        super().__init__(**kwargs)

    @traitlets.validate("rate", "scale")
    def _inside(self, proposal):
        name, value = proposal["trait"].name, proposal["value"]
        count = len(self.runs.get(f"{name}s", ()))
        if count and value >= count:
            raise traitlets.TraitError(
                f"there are {count} {name}s, counted from 0; got {name}={value}"
            )
        return value

    def alt(self) -> str:
        """Say what the cell in view reached."""
        said = {
            arm: self.runs["maps"][self.activation][arm]["accuracy"][self.scale][self.rate]
            for arm in ARMS
        }
        return (
            f"{ACTIVATIONS[self.activation]} network, learning rate "
            f"{self.runs['rates'][self.rate]:.2g}, initial weights at {self.runs['scales'][self.scale]:.2g} "
            f"times the usual scale: test accuracy {100 * said['with']:.0f} % with batch norm and "
            f"{100 * said['without']:.0f} % without, means of {self.runs['seeds']} seeds."
        )

    def draw(self, figure) -> None:
        """Draw both maps, and the curves of the cell below."""
        rates, scales = self.runs["rates"], self.runs["scales"]
        grid = figure.add_gridspec(2, 2, height_ratios=[1.2, 1])
        below = figure.add_subplot(grid[1, :])
        steps = self.runs["steps"]
        for column, (arm, colour) in enumerate(COLOURS.items()):
            axes = figure.add_subplot(grid[0, column])
            shown = self.runs["maps"][self.activation][arm]
            for i, j in np.ndindex(len(scales), len(rates)):
                accuracy = shown["accuracy"][i][j]
                axes.add_patch(_square(j, i, color=colour, alpha=shade(accuracy), linewidth=0))
                if accuracy >= self.runs["learned"]:
                    axes.plot(j, i, ".", color="white", markersize=3)
            axes.add_patch(_square(self.rate, self.scale, fill=False, edgecolor="#1f2328"))
            axes.set(xlim=(-0.5, len(rates) - 0.5), ylim=(-0.5, len(scales) - 0.5), title=arm,
                     xlabel="learning rate")  # fmt: skip
            axes.set_xticks(range(0, len(rates), 2), [f"{v:g}" for v in rates[::2]], fontsize=8)
            axes.set_yticks(range(0, len(scales), 2), [f"{v:g}" for v in scales[::2]])
            axes.grid(visible=False)
            if column == 0:
                axes.set_ylabel("initial scale")
            low, middle, high = shown["loss"][self.scale][self.rate]
            below.fill_between(steps, low, high, color=colour, alpha=0.22)
            below.plot(steps, middle, color=colour, linestyle="-" if arm == "with" else "--",
                       label=f"{arm} batch norm")  # fmt: skip
        below.axhline(math.log(10), color="#1f2328", linewidth=1)
        below.set(xlabel="step", ylabel="training loss", yscale="log", ylim=(0.02, CEILING * 1.1))
        below.legend(loc="lower left")


def _square(column, row, **style):
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.5, row - 0.5), 1, 1, **style)


def compact(record: dict) -> dict:
    """Take from a record what the figure draws.

    Parameters
    ----------
    record : dict
        Of the experiment `rate_map`.

    Returns
    -------
    dict
        ``rates``, ``scales``, ``steps`` (the end of each window), ``seeds`` (how many), ``learned``
        (the threshold), and ``maps`` by activation and arm: ``accuracy`` ``[scale][rate]``, its
        mean over seeds, and ``loss`` ``[scale][rate][3][window]``, the smallest, the median and the
        largest.
    """
    config = record["config"]
    maps = {}
    for activation in ACTIVATIONS:
        maps[activation] = {}
        for arm, flag in ARMS.items():
            chosen = {"activation": activation, "batch_norm": flag}
            losses = results.final(record, "loss", **chosen)
            losses = np.where(losses <= CEILING, losses, CEILING)  # not a number, too
            three = np.stack([losses.min(0), np.median(losses, 0), losses.max(0)], axis=2)
            accuracy = results.final(record, "test_accuracy", **chosen).mean(0)
            maps[activation][arm] = {
                "accuracy": _short(accuracy).tolist(),
                "loss": _short(three).tolist(),
            }
    windows = config["steps"] // config["window"]
    return {
        "rates": config["rates"],
        "scales": config["scales"],
        "steps": [config["window"] * (i + 1) for i in range(windows)],
        "seeds": len(record["seeds"]),
        "learned": config["learned"],
        "maps": maps,
    }


@np.vectorize
def _short(value: float) -> float:
    """Three significant digits: finer than a pixel."""
    return float(f"{value:.3g}")


# ------------------------------------------------- what ratemap_maths.js computes as well


def shade(accuracy: float) -> float:
    """How full a cell is: 0.04 at guessing's accuracy of a tenth and below, 1 at 100 %."""
    return min(1.0, max(0.04, (accuracy - 0.1) / 0.9) ** 1.5 + 0.04)


def learn(accuracy, rate: int, threshold: float) -> int:
    """From how many initial scales the network learns at one rate, of ``accuracy[scale][rate]``."""
    return sum(row[rate] >= threshold for row in accuracy)


def cell(x: float, y: float, box, columns: int, rows: int) -> list[int]:
    """The cell at a point of the drawing, the nearest one outside: column, and row from below.

    `box` is ``[left, right, top, bottom]``.
    """
    left, right, top, bottom = box
    column = math.floor((x - left) / (right - left) * columns)
    row = math.floor((bottom - y) / (bottom - top) * rows)
    return [min(columns - 1, max(0, column)), min(rows - 1, max(0, row))]
