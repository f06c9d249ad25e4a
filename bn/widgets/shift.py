"""What goes into a sigmoid, step by step, in two networks side by side."""

from __future__ import annotations

import numpy as np
import traitlets

from .. import results
from ._base import Widget
from .replay import ARMS, COLOURS, density, reach


class Shift(Widget):
    """Scrub through the training, and watch what goes into the sigmoids of two networks.

    Above, the distribution at the step in view, without batch norm on the left and with it on the
    right, over the same axis. Below, its 15th, 50th and 85th percentiles by step: the band and
    line of one run, and the medians of the other seeds as thin lines.

    Parameters
    ----------
    record : dict
        That of ``mnist_distribution_shift``, from :func:`bn.results.load`. Histograms and bands are
        those of its first seed.
    part : int
        Which distribution: 0, 1, 2 for the inputs of all units of a layer, 3 for those of one
        unit of the last.
    mark : int
        The step in view, as its place among the recorded ones, from 0; beyond the last is the last.

    Examples
    --------
    >>> shift = Shift(bn.results.load("mnist_distribution_shift"))  # doctest: +SKIP
    >>> shift.mark = 20  # doctest: +SKIP
    """

    _name = "shift"
    _title = "What goes into a sigmoid, step by step"
    _shown = ("part", "mark")
    _size = (6.4, 4.8)

    steps = traitlets.List(traitlets.Int(), help="the recorded steps").tag(sync=True)
    parts = traitlets.List(traitlets.Dict(), help="the distributions").tag(sync=True)
    part = traitlets.Int(3, min=0, help="which distribution").tag(sync=True)
    mark = traitlets.Int(0, min=0, help="which recorded step is in view").tag(sync=True)

    def __init__(self, record: dict | None = None, **kwargs) -> None:
        if record is not None:
            kwargs |= compact(record)
        super().__init__(**kwargs)
        if not self.parts:
            raise ValueError(
                "nothing to show: give the record, as in "
                'Shift(bn.results.load("mnist_distribution_shift"))'
            )

    @traitlets.validate("part")
    def _known(self, proposal):
        if self.parts and proposal["value"] >= len(self.parts):
            raise traitlets.TraitError(
                f"there are {len(self.parts)} distributions, counted from 0; "
                f"got part={proposal['value']}"
            )
        return proposal["value"]

    def _view(self):
        return self.parts[self.part], min(self.mark, len(self.steps) - 1)

    def alt(self) -> str:
        """Say where the middle of each distribution lies at the step in view."""
        part, at = self._view()
        low, high = ({arm: part[arm]["bands"][0][at][i] for arm in ARMS} for i in (0, 2))
        return (
            f"After {self.steps[at]:,} steps the middle 70 % of the inputs of {part['label']} lie "
            f"from {low['without']:.3g} to {high['without']:.3g} without batch norm and from "
            f"{low['with']:.3g} to {high['with']:.3g} with it."
        )

    def draw(self, figure) -> None:
        """Draw both histograms, and the percentiles by step below them."""
        part, at = self._view()
        above, below = figure.subplots(2, 2, height_ratios=[1, 1.3], sharey="row")
        limits = reach(part)
        for arm, top, bottom in zip(ARMS, above, below, strict=True):
            seen, colour = part[arm], COLOURS[arm]
            heights = density(seen["counts"][at], seen["edges"][at])
            edges = np.linspace(*seen["edges"][at], len(heights) + 1)
            top.stairs(heights / heights.max(), edges, fill=True, color=colour, alpha=0.5)
            top.set(xlim=limits, yticks=[], title=f"{arm} batch norm", xlabel="input")
            bands = np.array(seen["bands"])
            bottom.fill_between(
                self.steps, bands[0, :, 0], bands[0, :, 2], color=colour, alpha=0.22
            )
            for run in bands[1:]:
                bottom.plot(self.steps, run[:, 1], color=colour, linewidth=0.7)
            bottom.plot(self.steps, bands[0, :, 1], color=colour, linewidth=2)
            bottom.axvline(self.steps[at], color="#1f2328", linewidth=1)
            bottom.set_xscale("symlog", linthresh=1)
            bottom.set(xlabel="step", xlim=(0, self.steps[-1]))
        below[0].set_ylabel(part["label"])


def compact(record: dict) -> dict:
    """Take from a record what the figure draws.

    Parameters
    ----------
    record : dict
        Rows with ``step``, ``percentiles``, ``unit`` and, for the first seed, ``histograms``.

    Returns
    -------
    dict
        ``steps``, and ``parts``: for each distribution a ``label`` and by arm ``edges`` and
        ``counts`` (parts per thousand) at each step, and ``bands`` as ``[seed][step]`` with three
        percentiles, the seed of the histograms first.

    Raises
    ------
    bn.results.RecordError
        An arm lacks a seed.
    """
    bands = {}
    for arm, flag in ARMS.items():
        layers = results.curves(record, "percentiles", batch_norm=flag)
        unit = results.curves(record, "unit", batch_norm=flag)
        bands[arm] = np.concatenate([layers, unit[:, :, None]], axis=2)  # seeds, steps, parts, 3
    first = {
        arm: next(
            u["epochs"] for u in record["units"]
            if u["seed"] == record["seeds"][0] and u["params"]["batch_norm"] is flag
        )
        for arm, flag in ARMS.items()
    }  # fmt: skip
    count = bands["with"].shape[2] - 1
    labels = [f"sigmoid {i}, all units" for i in range(1, count + 1)] + [
        f"sigmoid {count}, one unit"
    ]
    return {
        "steps": [row["step"] for row in first["with"]],
        "parts": [
            {"label": label} | {
                arm: {
                    "edges": [row["histograms"][i]["edges"] for row in first[arm]],
                    "counts": [_thousandths(row["histograms"][i]["counts"]) for row in first[arm]],
                    "bands": bands[arm][:, :, i].tolist(),
                }
                for arm in ARMS
            }
            for i, label in enumerate(labels)
        ],
    }  # fmt: skip


def _thousandths(counts) -> list[int]:
    return [round(1000 * c / max(sum(counts), 1)) for c in counts]
