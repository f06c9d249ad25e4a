"""A small network trained live, with and without batch norm, from any scale of initial weights."""

from __future__ import annotations

import functools
import math

import numpy as np
import traitlets

from ..layers import SGD, BatchNorm, Linear, ReLU, Sequential, softmax_cross_entropy
from ._base import Widget
from .chain import uniform

EXAMPLES, WIDTH, DEPTH, STEPS, MOMENTUM = 40, 8, 4, 60, 0.9
SIZES = [2, *[WIDTH] * DEPTH, 2]
COLOURS = {"without": "#D55E00", "with": "#0072B2"}
LABELS = {"without": "without", "with": "with batch norm"}
GUESSING = math.log(2)


class Scale(Widget):
    """Move the scale of the initial weights and see both networks train.

    Forty points in a square; their class is the sign of the product of their coordinates. Four
    hidden layers of eight ReLUs, with batch norm before each or without, from the same weights;
    60 steps of gradient descent on all points with momentum 0.9. `scale` multiplies the initial
    weights of the hidden layers, not those of the output.

    Parameters
    ----------
    scale : float
        Multiplies weights of standard deviation sqrt(2 / n_in); 1e-4 to 1e4.
    eta : float
        The learning rate, 1e-4 to 1.
    eps : float
        The epsilon of batch norm, 0 to 1.
    matched : bool
        Give the hidden layers' weights and biases the learning rate ``eta * scale**2``.
    seed : int
        Which points and weights.

    Examples
    --------
    >>> figure = Scale(scale=1e-3)
    >>> {arm: bool(run["losses"][-1] < 0.1) for arm, run in figure.runs.items()}
    {'without': False, 'with': True}
    """

    _name = "scale"
    _title = "Two networks, one initial scale"
    _shown = ("scale", "eta", "eps", "matched", "seed")
    _size = (6.4, 4.8)

    scale = traitlets.Float(0.1, min=1e-4, max=1e4, help="factor of the weights").tag(sync=True)
    eta = traitlets.Float(0.05, min=1e-4, max=1.0, help="learning rate").tag(sync=True)
    eps = traitlets.Float(1e-5, min=0.0, max=1.0, help="added to the variance").tag(sync=True)
    matched = traitlets.Bool(False, help="hidden layers learn at eta * scale**2").tag(sync=True)
    seed = traitlets.Int(2, min=0, max=2**32 - 1, help="which draw").tag(sync=True)

    @traitlets.validate("scale", "eta", "eps")
    def _number(self, proposal):
        if not math.isfinite(proposal["value"]):
            raise traitlets.TraitError(f"{proposal['trait'].name} must be a finite number")
        return proposal["value"]

    @property
    def runs(self) -> dict:
        """``"losses"`` by step and ``"spreads"`` by layer, for the arms ``"without"`` and ``"with"``."""
        now = {name: getattr(self, name) for name in self._shown}
        return {"without": train(**now, batch_norm=False), "with": train(**now, batch_norm=True)}

    def alt(self) -> str:
        """Say where both networks start and end."""
        ends = {arm: _said(run["losses"][-1]) for arm, run in self.runs.items()}
        return (
            f"Initial weights at {self.scale:g} times the usual scale, learning rate {self.eta:g}: after "
            f"{STEPS} steps the loss is {ends['with']} with batch norm and {ends['without']} without; "
            f"guessing has {GUESSING:.3g}."
        )

    def draw(self, figure) -> None:
        """Draw the losses by step, and the spread by layer at the start."""
        losses, spreads = figure.subplots(2, 1, height_ratios=[1.6, 1])
        for arm, run in self.runs.items():
            style = {"color": COLOURS[arm], "linestyle": "-" if arm == "with" else "--"}
            losses.plot(run["losses"], **style, label=LABELS[arm])
            spreads.plot(range(1, DEPTH + 1), run["spreads"], **style,
                         marker="o" if arm == "with" else "D")  # fmt: skip
        losses.set(xlabel="step", ylabel="loss", yscale="log", ylim=(1e-4, 1e2))
        losses.set_title(f"initial weights × {self.scale:g}, learning rate {self.eta:g}")
        losses.legend(loc="lower left")
        spreads.set(xlabel="layer", ylabel="into ReLU, st. dev.", yscale="log")
        spreads.set_xticks(range(1, DEPTH + 1))
        low, high = spreads.get_ylim()
        spreads.set_ylim(min(low, 0.1), max(high, 10))


# ---------------------------------------------------- what scale_maths.js computes as well


def problem(seed: int) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Points in a square, the sign of their product as 0 or 1, and the weights at scale 1."""
    shapes = list(zip(SIZES[1:], SIZES, strict=False))
    cuts = np.cumsum([2 * EXAMPLES, *(a * b for a, b in shapes)])
    x, *weights = np.split(2 * uniform(seed, cuts[-1]) - 1, cuts[:-1])
    x = x.reshape(EXAMPLES, 2)
    labels = (x[:, 0] * x[:, 1] > 0).astype(int)
    # even in ±√(6/n_in): standard deviation √(2/n_in)
    weights = [
        w.reshape(shape) * math.sqrt(6 / shape[1]) for w, shape in zip(weights, shapes, strict=True)
    ]
    return x, labels, weights


@functools.lru_cache(maxsize=4)  # the picture and its sentence ask for the same runs
@np.errstate(all="ignore")
def train(seed, scale, eta, eps, matched, *, batch_norm: bool) -> dict:
    """Losses before each of the steps and after the last; the spread into each ReLU at the start."""
    x, labels, weights = problem(seed)
    layers, optimizers = [], []
    for i, w in enumerate(weights):
        hidden = i < DEPTH
        layer = Linear(w.shape[1], w.shape[0], scale=0, rng=np.random.default_rng(0))
        layer.params["weight"] += w * scale if hidden else w
        optimizers.append(SGD(layer, eta * scale**2 if hidden and matched else eta, MOMENTUM))
        layers.append(layer)
        if hidden and batch_norm:
            layers.append(BatchNorm(WIDTH, eps))
            optimizers.append(SGD(layers[-1], eta, MOMENTUM))
        if hidden:
            layers.append(ReLU())
    net, losses, spreads = Sequential(*layers), [], []
    h = x
    for layer in layers:
        if isinstance(layer, ReLU):
            spreads.append(h.std())
        h = layer.forward(h)
    for _ in range(STEPS):
        loss, g = softmax_cross_entropy(net.forward(x), labels)
        losses.append(loss)
        net.backward(g)
        for optimizer in optimizers:
            optimizer.step()
    losses.append(softmax_cross_entropy(net.forward(x), labels)[0])
    return {"losses": np.array(losses), "spreads": np.array(spreads)}


def _said(loss: float) -> str:
    return f"{loss:.3g}" if math.isfinite(loss) else "no number any more"
