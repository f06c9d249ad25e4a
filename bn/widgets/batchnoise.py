"""One example in many random batches: how its normalised value scatters, and what was measured."""

from __future__ import annotations

import math

import numpy as np
import traitlets

from .. import batchnoise, results
from ._base import Widget
from .chain import uniform
from .running import normals

BATCHES, LARGEST = 200, 512
SHAPES = {"normal": (0.0, 0.0), "uniform": (0.0, -1.2), "exponential": (2.0, 6.0)}


def neighbours(distribution: str, seed: int) -> np.ndarray:
    """Draw the other examples of every batch, with mean 0 and variance 1.

    Examples
    --------
    >>> neighbours("uniform", 1).shape
    (200, 511)
    """
    n = BATCHES * (LARGEST - 1)
    if distribution == "normal":
        drawn = normals(seed, n)
    elif distribution == "uniform":
        drawn = np.sqrt(12) * (uniform(seed, n) - 0.5)
    else:
        drawn = -np.log(1 - uniform(seed, n)) - 1
    return drawn.reshape(BATCHES, LARGEST - 1)


def normalized(others: np.ndarray, example: float, m: int) -> np.ndarray:
    """Normalise the example in each batch of itself and its first `m` - 1 neighbours.

    Examples
    --------
    >>> float(normalized(np.array([[1.0, 9.0]]), 3.0, 2)[0])
    1.0
    """
    batch = np.concatenate([np.full((len(others), 1), example), others[:, : m - 1]], axis=1)
    return (example - batch.mean(1)) / batch.std(1)


def recorded(record: dict) -> dict:
    """Take from the record of ``ghost_batches`` what the widget draws.

    Parameters
    ----------
    record : dict
        From :func:`bn.results.load`.

    Returns
    -------
    dict
        ``sizes``, and for each size ``accuracy``: mean over the seeds and its 95 % interval, each arm
        at the rate that its held-out images choose; ``without``, the same without batch norm; and
        ``seeds``, how many.
    """
    from ..experiments.regularization import GHOSTS, best_rate

    def accuracy(norm):
        lr = best_rate(record, norm)
        found = results.interval(results.final(record, "test_accuracy", norm=norm, lr=lr))
        return [float(f"{v:.5g}") for v in found[:3]]

    return {
        "sizes": list(GHOSTS),
        "accuracy": [accuracy(m) for m in GHOSTS],
        "without": accuracy("none"),
        "seeds": len(record["seeds"]),
    }


class BatchNoise(Widget):
    """Put one example into 200 random batches and watch its normalised value scatter.

    Above, the value in each batch as a dot, and the normal curve with the predicted variance. Below,
    the test accuracy recorded for networks trained with statistics of so many examples.

    Parameters
    ----------
    record : dict, optional
        Of ``ghost_batches``; by default the one that `bn` ships.
    power : int
        A batch has 2 to this power examples, 1 to 9.
    example : float
        The example's value in units of the true deviation from the true mean, -3 to 3.
    distribution : str
        Of the other examples: ``"normal"``, ``"uniform"`` or ``"exponential"``.
    seed : int
        Which batches.

    Examples
    --------
    >>> noise = BatchNoise(power=6, example=0.0)
    >>> float(noise.predicted)
    0.125
    """

    _name = "batchnoise"
    _title = "One example, many batches"
    _shown = ("power", "example", "distribution", "seed")
    _size = (6.4, 5.2)

    recorded = traitlets.Dict(help="test accuracy by size of the ghost batch").tag(sync=True)
    power = traitlets.Int(4, min=1, max=9, help="a batch has 2 ** power examples").tag(sync=True)
    example = traitlets.Float(1.0, min=-3, max=3, help="in true deviations").tag(sync=True)
    distribution = traitlets.Enum(list(SHAPES), "normal", help="of the others").tag(sync=True)
    seed = traitlets.Int(1, min=0, help="which batches").tag(sync=True)

    def __init__(self, record=None, **kwargs) -> None:
        if "recorded" not in kwargs:
            kwargs["recorded"] = recorded(record or results.load("ghost_batches"))
        super().__init__(**kwargs)

    @traitlets.validate("example")
    def _number(self, proposal):
        if not math.isfinite(proposal["value"]):
            raise traitlets.TraitError(f"example must be a finite number, got {proposal['value']}")
        return proposal["value"]

    @property
    def batch_size(self) -> int:
        """Examples in a batch."""
        return 2**self.power

    @property
    def values(self) -> np.ndarray:
        """The example's normalised value in each batch."""
        return normalized(neighbours(self.distribution, self.seed), self.example, self.batch_size)

    @property
    def predicted(self) -> float:
        """The standard deviation that theory predicts for them, to leading order."""
        shape = SHAPES[self.distribution]
        return math.sqrt(
            batchnoise.normalized_variance(self.example, *shape, float(self.batch_size))
        )

    def alt(self) -> str:
        """Say how far the value scatters, and what was recorded at this size."""
        at, values = min(self.power, len(self.recorded["sizes"])) - 1, self.values
        return (
            f"An example {self.example:g} deviations from the mean, in {BATCHES} batches of "
            f"{self.batch_size}: its normalised value has mean {values.mean():.2f} and deviation "
            f"{values.std():.3f}, predicted {self.predicted:.3f}. Recorded test accuracy with "
            f"statistics of {self.recorded['sizes'][at]} examples: "
            f"{100 * self.recorded['accuracy'][at][0]:.2f} %."
        )

    def draw(self, figure) -> None:
        """Draw the scatter above, the recorded accuracy below."""
        above, below = figure.subplots(2, 1)
        above.plot(
            np.clip(self.values, -4, 4), np.linspace(0, 1, BATCHES), ".", color="#8A9099",
            markersize=3, label="in a batch",
        )  # fmt: skip
        t = np.linspace(-4, 4, 400)
        curve = np.exp(-(((t - self.example) / self.predicted) ** 2) / 2)
        above.plot(t, curve, color="#0072B2", label="predicted")
        above.axvline(self.example, color="#D55E00", linestyle="--", label="true")
        above.set(xlabel="normalised value", yticks=[], xlim=(-4, 4))
        above.legend(loc="upper left")
        mean, low, high = 100 * np.array(self.recorded["accuracy"]).T
        below.errorbar(
            self.recorded["sizes"], mean, [mean - low, high - mean], fmt="o-", color="#0072B2"
        )
        below.axhline(100 * self.recorded["without"][0], color="#D55E00", linestyle="--")
        below.axvline(self.batch_size, color="#1f2328", linewidth=1)
        below.set_xscale("log", base=2)
        below.set(xlabel="examples that share statistics", ylabel="test accuracy, %",
                  ylim=[100 * v for v in reach(self.recorded)])  # fmt: skip


def reach(recorded: dict) -> tuple[float, float]:
    """Return an axis that holds all sizes but the smallest, and the network without."""
    shown = [*recorded["accuracy"][1:], recorded["without"]]
    low, high = min(v[1] for v in shown), max(v[2] for v in shown)
    room = 0.06 * (high - low)
    return low - room, high + room
