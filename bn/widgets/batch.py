"""A batch of one feature as points to drag, with its mean, variance, x̂ and y beside it."""

from __future__ import annotations

import math

import numpy as np
import traitlets

from .. import functional
from ._base import Widget

START = [1.0, 2.0, 3.0, 4.5, 5.5, 8.0]


class Batch(Widget):
    """One feature over a batch: drag its values, see what batch norm makes of them.

    Three lines of dots on one scale: the batch ``x``, standardised ``x_hat``, and the output
    ``y = gamma * x_hat + beta``; beside them the table of the same numbers.

    Parameters
    ----------
    x : list of float
        The batch, 1 to 12 values of size at most 1000. With one value there is nothing to show
        but why.
    gamma, beta : float
        Scale and shift of the output.
    eps : float
        Added to the variance; 0 is allowed, and undefined where the variance is 0.

    Examples
    --------
    >>> batch = Batch(x=[1, 2, 3], gamma=1.5, beta=0.5, eps=0)
    >>> batch.y.round(3).tolist()
    [-1.337, 0.5, 2.337]
    """

    _name = "batch"
    _title = "Move the batch"
    _shown = ("x", "gamma", "beta", "eps")
    _size = (6.4, 3.6)

    x = traitlets.List(traitlets.Float(), START, minlen=1, maxlen=12, help="the batch").tag(
        sync=True
    )
    gamma = traitlets.Float(1.5, min=-100, max=100, help="scale").tag(sync=True)
    beta = traitlets.Float(0.5, min=-100, max=100, help="shift").tag(sync=True)
    eps = traitlets.Float(1e-5, min=0, max=1000, help="added to the variance").tag(sync=True)

    @traitlets.validate("x")
    def _finite(self, proposal):
        for value in proposal["value"]:
            if not (math.isfinite(value) and abs(value) <= 1000):
                raise traitlets.TraitError(f"x must hold numbers of size at most 1000, got {value}")
        return [float(value) for value in proposal["value"]]

    @traitlets.validate("gamma", "beta", "eps")
    def _number(self, proposal):
        if not math.isfinite(proposal["value"]):
            raise traitlets.TraitError(f"{proposal['trait'].name} must be a finite number")
        return proposal["value"]

    @property
    def x_hat(self) -> np.ndarray:
        """The standardised batch; NaN where variance and eps are both 0."""
        with np.errstate(invalid="ignore"):
            return functional.standardize(np.array(self.x), eps=self.eps)

    @property
    def y(self) -> np.ndarray:
        """The output."""
        return self.gamma * self.x_hat + self.beta

    def alt(self) -> str:
        """Say what the picture shows."""
        mean, var = functional.moments(np.array(self.x))
        start = f"A batch of {len(self.x)} values has mean {mean:.3g} and variance {var:.3g}. "
        if len(self.x) < 2:
            return start + "One value alone cannot be standardised."
        if var + self.eps == 0:
            return start + "With epsilon 0 its standardised values are undefined."
        return start + (
            f"Standardised, it runs from {self.x_hat.min():.3g} to {self.x_hat.max():.3g}; "
            f"scaled by {self.gamma:g} and shifted by {self.beta:g}, "
            f"from {self.y.min():.3g} to {self.y.max():.3g}."
        )

    def draw(self, figure) -> None:
        """Draw the three lines of dots."""
        axes = figure.add_subplot()
        rows = [(2, "x", np.array(self.x), "#D55E00")]
        if len(self.x) > 1 and np.isfinite(self.x_hat).all():
            rows += [(1, "x̂", self.x_hat, "#009E73"), (0, "y", self.y, "#0072B2")]
            for path in zip(*(row[2] for row in rows), strict=True):
                axes.plot(path, [2, 1, 0], color="#8A9099", linewidth=0.8)
        for height, _, values, colour in rows:
            axes.plot(values, np.full(len(values), height), "o", color=colour, markersize=9)
            axes.plot(values.mean(), height - 0.16, "^", color=colour, markersize=6)
        reach = max(10, *(np.abs(row[2]).max() for row in rows))
        axes.set(
            xlim=(-1.05 * reach, 1.05 * reach),
            ylim=(-0.4, 2.4),
            xlabel="value (one scale for all three)",
        )
        axes.set_yticks([2, 1, 0], ["x", "x̂", "y = γ x̂ + β"])
        axes.set_title(f"γ = {self.gamma:g}, β = {self.beta:g}, ε = {self.eps:g}; triangles: means")
