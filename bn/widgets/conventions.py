"""One layer in five frameworks: its arguments translated, and the averages that they lead to."""

from __future__ import annotations

import math

import numpy as np
import traitlets

from ..conventions import CONVENTIONS, convert_arguments, convert_momentum
from ._base import Widget

POPULATION = 4.0
STEPS = 120
NOISE = np.random.default_rng(35).normal(size=STEPS).round(3).tolist()


class Conventions(Widget):
    """Read the arguments of one framework in another, copied and translated.

    A stream of batches, all from one population with variance 4, goes into the running variance of
    two frameworks: of `source`, with the momentum as it is written, and of `to`, once with the same
    number and once with its translation.

    Parameters
    ----------
    source, to : str
        Keys of :data:`bn.conventions.CONVENTIONS`.
    momentum : float
        As `source` means it, between 0 and 1.
    eps : float
        Added to the variance.
    m : int
        The number of values behind each batch's variance, 2 to 64.
    step : int
        How many batches have passed, 0 to 120.

    Examples
    --------
    >>> figure = Conventions(source="pytorch", to="keras", momentum=0.1, m=8, step=120)
    >>> figure.translated
    {'momentum': 0.9, 'epsilon': 1e-05}
    """

    _name = "conventions"
    _title = "Copied or translated"
    _shown = ("source", "to", "momentum", "eps", "m", "step")
    _size = (6.4, 3.8)

    source = traitlets.Enum(list(CONVENTIONS), "pytorch", help="written for").tag(sync=True)
    to = traitlets.Enum(list(CONVENTIONS), "keras", help="read by").tag(sync=True)
    momentum = traitlets.Float(0.1, min=0, max=1, help="as the first means it").tag(sync=True)
    eps = traitlets.Float(1e-5, min=0, max=1, help="added to the variance").tag(sync=True)
    m = traitlets.Int(8, min=2, max=64, help="values behind each variance").tag(sync=True)
    step = traitlets.Int(STEPS, min=0, max=STEPS, help="batches so far").tag(sync=True)
    _noise = traitlets.List(traitlets.Float(), NOISE).tag(sync=True)

    @traitlets.validate("momentum", "eps")
    def _number(self, proposal):
        if not math.isfinite(proposal["value"]):
            raise traitlets.TraitError(f"{proposal['trait'].name} must be a finite number")
        return proposal["value"]

    @property
    def translated(self) -> dict:
        """The arguments for `to`."""
        own = CONVENTIONS[self.source]
        return convert_arguments(
            {own.momentum: self.momentum, own.eps: self.eps}, self.source, self.to
        )

    @property
    def curves(self) -> dict[str, np.ndarray]:
        """Running variances after 0, 1, … batches: ``source``, ``copied`` and ``translated``."""
        stream = batches(self._noise, POPULATION, self.m)
        translated = convert_momentum(self.momentum, self.source, self.to)
        return {
            "source": running(self.source, self.momentum, stream, self.m),
            "copied": running(self.to, self.momentum, stream, self.m),
            "translated": running(self.to, translated, stream, self.m),
        }

    def alt(self) -> str:
        """Say what the three averages are at the step in view."""
        at = {name: curve[self.step] for name, curve in self.curves.items()}
        a, b = CONVENTIONS[self.source].title, CONVENTIONS[self.to].title
        return (
            f"Momentum {self.momentum:g} of {a}. After {self.step} batches of {self.m} values the "
            f"running variance is {at['source']:.3g} in {a}; in {b} it is {at['copied']:.3g} with "
            f"the number copied and {at['translated']:.3g} with the number translated."
        )

    def draw(self, figure) -> None:
        """Draw the three averages and the batches' own variances."""
        axes = figure.add_subplot()
        stream = batches(self._noise, POPULATION, self.m)
        axes.plot(np.arange(1, STEPS + 1), stream, ".", color="#8A9099", label="each batch, over m")
        a, b = CONVENTIONS[self.source].title, CONVENTIONS[self.to].title
        looks = {
            "copied": ("#D55E00", "--", f"{b}, number copied"),
            "source": ("#0072B2", "-", f"{a}, as written"),
            "translated": ("#009E73", "-.", f"{b}, translated"),
        }
        for name, (colour, dash, label) in looks.items():
            axes.plot(self.curves[name], dash, color=colour, label=label)
        axes.axvline(self.step, color="#1f2328", linewidth=1)
        top = max(6, stream.max(), *(curve.max() for curve in self.curves.values()))
        axes.set(xlabel="batches", ylabel="running variance", ylim=(0, 1.25 * top))
        axes.legend(loc="upper center", fontsize="small", ncols=2)


# --------------------------------------------- what conventions_maths.js computes as well


def running(name: str, momentum: float, variances, m: int) -> np.ndarray:
    """Running variance of a framework from 1 on, after 0, 1, …, all batches.

    Parameters
    ----------
    name : str
        Key of :data:`bn.conventions.CONVENTIONS`.
    momentum : float
        As that framework means it.
    variances : sequence of float
        Of each batch, divided by `m`.
    m : int
        The number of values in each batch.
    """
    convention = CONVENTIONS[name]
    weight = momentum if convention.weighs_new else 1 - momentum
    factor = m / (m - 1) if convention.unbiased else 1
    out = [1.0]
    for v in variances:
        out.append((1 - weight) * out[-1] + weight * factor * v)
    return np.array(out)


def batches(noise, population: float, m: int) -> np.ndarray:
    """Biased variances of batches of `m` normal values, from standard normal draws.

    ``m * variance / population`` has a chi-square distribution with k = m - 1 degrees of freedom;
    E. B. Wilson and M. M. Hilferty (1931) approximate its cube root by a normal distribution.
    """
    k = m - 1
    a = 2 / (9 * k)
    return population * np.maximum(0, 1 - a + np.array(noise) * np.sqrt(a)) ** 3 * k / m
