"""A batch of three in three dimensions: which parts of a gradient batch norm removes."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import traitlets

from .. import functional
from ._base import Widget

START_X = [1.0, 2.0, 4.5]
START_G = [0.5, -0.5, 1.8]


class Parts(NamedTuple):
    """A gradient in parts, ``g = along_one + along_x_hat + left``; and ``dx = left / sigma``."""

    x_hat: np.ndarray
    along_one: np.ndarray
    along_x_hat: np.ndarray
    left: np.ndarray
    dx: np.ndarray


class Projection(Widget):
    """Batch norm's gradient for a batch of three, drawn in the space of the three examples.

    A batch is a point in three dimensions, and so is the gradient ``g`` at the layer's output.
    The layer removes the part of ``g`` along (1, 1, 1) and the part along ``x_hat``; what is left,
    divided by sigma, is the gradient at its input. gamma is 1.

    Parameters
    ----------
    x : list of float
        The batch: three values from -5 to 5.
    g : list of float
        The gradient of the loss with respect to the layer's output: three values from -2 to 2.
    eps : float
        Added to the variance. With 0 and three equal values, everything is undefined.
    turn, tilt : float
        Where the eye is, in degrees. At tilt 90 the direction (1, 1, 1) points at it.

    Examples
    --------
    >>> figure = Projection(x=[2, 3, 4], g=[1, 0, 0], eps=0)
    >>> figure.parts.left.round(4).tolist()
    [0.1667, -0.3333, 0.1667]
    """

    _name = "projection"
    _title = "What is left of a push"
    _shown = ("x", "g", "eps")
    _size = (6.4, 4.2)

    x = traitlets.List(traitlets.Float(), START_X, minlen=3, maxlen=3, help="the batch").tag(
        sync=True
    )
    g = traitlets.List(traitlets.Float(), START_G, minlen=3, maxlen=3, help="gradient").tag(
        sync=True
    )
    eps = traitlets.Float(1e-5, min=0, max=1000, help="added to the variance").tag(sync=True)
    turn = traitlets.Float(-50.0, min=-180, max=180, help="of the eye, degrees").tag(sync=True)
    tilt = traitlets.Float(30.0, min=0, max=90, help="of the eye, degrees").tag(sync=True)

    @traitlets.validate("x", "g")
    def _on_the_axis(self, proposal):
        name, most = proposal["trait"].name, {"x": 5, "g": 2}[proposal["trait"].name]
        for value in proposal["value"]:
            if not abs(value) <= most:  # NaN too
                raise traitlets.TraitError(
                    f"{name} must hold numbers from {-most} to {most}, got {value}"
                )
        return [float(value) for value in proposal["value"]]

    @traitlets.validate("eps", "turn", "tilt")
    def _number(self, proposal):
        if not math.isfinite(proposal["value"]):
            raise traitlets.TraitError(f"{proposal['trait'].name} must be a finite number")
        return proposal["value"]

    @property
    def parts(self) -> Parts:
        """The parts of ``g``; NaN where variance and eps are both 0."""
        g = np.array(self.g)
        with np.errstate(all="ignore"):
            _, cache = functional.batch_norm(np.array(self.x), 1.0, 0.0, eps=self.eps)
            dx, *_ = functional.batch_norm_backward(g, cache)
        along_one = np.full(3, g.mean())
        along_x_hat = cache.x_hat * (g * cache.x_hat).mean()
        return Parts(cache.x_hat, along_one, along_x_hat, g - along_one - along_x_hat, dx)

    def alt(self) -> str:
        """Say what the picture shows."""
        start = f"The batch is {_words(self.x)}, the gradient g is {_words(self.g)}. "
        parts = self.parts
        if not np.isfinite(parts.x_hat).all():
            return start + "With epsilon 0 and no spread, all else is undefined."
        return start + (
            f"Removed are {_words(parts.along_one)} along the direction of the mean and "
            f"{_words(parts.along_x_hat)} along x̂; left is {_words(parts.left)}."
        )

    def draw(self, figure) -> None:
        """Draw the vectors as the eye sees them."""
        axes = figure.add_subplot()

        def seen(*points):
            return look(np.array(points), self.turn, self.tilt)[..., :2]

        def arrow(start, end, colour, label, **style):
            a, b = seen(start, end)
            axes.annotate(
                "", b, a, arrowprops={"arrowstyle": "->", "color": colour, "lw": 2, **style}
            )
            axes.plot([], [], color=colour, label=label, linestyle=style.get("linestyle", "-"))

        t = np.linspace(0, 2 * np.pi, 73)[:, None]
        ring = np.sqrt(1.5) * np.cos(t) * [1, -1, 0] + np.sqrt(0.5) * np.sin(t) * [1, 1, -2]
        axes.fill(*seen(*ring).T, color="#8A9099", alpha=0.18)
        axes.plot(*seen([-1.15] * 3, [1.15] * 3).T, color="#8A9099", linewidth=1)
        axes.annotate("1", seen([1.15] * 3)[0], textcoords="offset points", xytext=(6, 0))
        origin, parts = np.zeros(3), self.parts
        arrow(origin, self.g, "#D55E00", "g")
        if np.isfinite(parts.x_hat).all():
            between = parts.left + parts.along_x_hat
            arrow(between, self.g, "#8A9099", "along 1, removed", linestyle=":")
            arrow(parts.left, between, "#9B5FA5", "along x̂, removed", linestyle="--")
            arrow(origin, parts.x_hat, "#009E73", "x̂")
            arrow(origin, parts.left, "#0072B2", "left")
        reach = max(2.1, *(np.linalg.norm(v) for v in (self.g, ring[0])))
        axes.set(xlim=(-1.5 * reach, 1.5 * reach), ylim=(-reach, reach), aspect="equal")
        axes.axis("off")
        axes.legend(loc="upper left")


def look(points, turn: float, tilt: float) -> np.ndarray:
    """Points of three dimensions on paper: right, up, and towards the eye.

    Parameters
    ----------
    points : array_like, shape (..., 3)
    turn, tilt : float
        In degrees. The direction (1, 1, 1) stands upright at tilt 0 and points at the eye at 90.

    Returns
    -------
    ndarray, shape (..., 3)

    Examples
    --------
    >>> look([1, 0, 0], turn=0, tilt=0).round(3).tolist()
    [0.707, 0.577, -0.408]
    """
    frame = np.array([[1, -1, 0], [1, 1, -2], [1, 1, 1]]) / np.sqrt([[2], [6], [3]])
    t, e = np.radians(turn), np.radians(tilt)
    about = [[np.cos(t), -np.sin(t), 0], [np.sin(t), np.cos(t), 0], [0, 0, 1]]
    lean = [[1, 0, 0], [0, np.sin(e), np.cos(e)], [0, -np.cos(e), np.sin(e)]]
    return np.asarray(points) @ (np.array(lean) @ about @ frame).T


def _words(values) -> str:
    return "(" + ", ".join(f"{value:.3g}" for value in values) + ")"
