"""The deep linear chain: every order of one gradient step, the promise and what is delivered."""

from __future__ import annotations

import numpy as np
import traitlets

from bn import chain

from ._base import Widget


def uniform(seed: int, n: int) -> np.ndarray:
    """Draw `n` numbers in [0, 1) that JavaScript draws too (mulberry32).

    Examples
    --------
    >>> uniform(1, 2).round(4).tolist()
    [0.6271, 0.0027]
    """
    mask, out = 0xFFFFFFFF, []
    a = seed & mask
    for _ in range(n):
        a = (a + 0x6D2B79F5) & mask
        t = (a ^ (a >> 15)) * (a | 1) & mask
        t ^= (t + ((t ^ (t >> 7)) * (t | 61) & mask)) & mask
        out.append((t ^ (t >> 14)) / 2**32)
    return np.array(out)


class Chain(Widget):
    """A chain whose depth, weights, input and step can be moved.

    Parameters
    ----------
    depth : int
        Number of weights, 1 to 60.
    weight, spread : float
        Every weight is ``weight * (1 + spread * u)``, ``u`` even in [-1, 1).
    seed : int
        Which ``u``.
    x : float
        The input.
    eta : float
        The learning rate of the fixed step.
    normalised : bool
        Take ``eta = delta / (g @ g)`` instead, with ``delta = share * abs(output)``.
    share : float
        See `normalised`; 0 to 2.

    Examples
    --------
    >>> from bn.widgets import Chain
    >>> figure = Chain(depth=50, weight=1.1)
    >>> round(figure.promised, 1), round(figure.delivered, 4)
    (-1021.5, 0.0024)
    """

    _name = "chain"
    _title = "One step of the deep linear chain, order by order"
    _shown = ("depth", "weight", "spread", "seed", "x", "eta", "normalised", "share")

    depth = traitlets.Int(50, min=1, max=60, help="number of weights").tag(sync=True)
    weight = traitlets.Float(1.1, min=0.5, max=1.5, help="centre of the weights").tag(sync=True)
    spread = traitlets.Float(0.0, min=0.0, max=0.5, help="relative half-width").tag(sync=True)
    seed = traitlets.Int(1, min=0, max=2**32 - 1, help="which draw of weights").tag(sync=True)
    x = traitlets.Float(1.0, min=-2.0, max=2.0, help="the input").tag(sync=True)
    eta = traitlets.Float(0.002, min=0.0, max=1.0, help="fixed learning rate").tag(sync=True)
    normalised = traitlets.Bool(False, help="use eta = delta / (g @ g)").tag(sync=True)
    share = traitlets.Float(
        0.5, min=0.0, max=2.0, help="delta as a share of the size of the output"
    ).tag(sync=True)

    @property
    def w(self) -> np.ndarray:
        """The weights, shape (depth,)."""
        return self.weight * (1 + self.spread * (2 * uniform(self.seed, self.depth) - 1))

    @property
    def rate(self) -> float:
        """The learning rate of the step that is shown."""
        if not self.normalised:
            return self.eta
        g = chain.gradient(self.x, self.w)
        return self.share * abs(chain.output(self.x, self.w)) / (g @ g) if g.any() else 0.0

    @property
    def contributions(self) -> np.ndarray:
        """What each order of the learning rate adds to the new output, shape (depth + 1,)."""
        return chain.step_orders(self.x, self.w, self.rate)

    @property
    def promised(self) -> float:
        """The new output to first order."""
        return chain.first_order(self.x, self.w, self.rate)

    @property
    def delivered(self) -> float:
        """The new output."""
        return chain.step_exact(self.x, self.w, self.rate)

    def alt(self) -> str:
        """Say in one sentence what the picture shows."""
        return (
            f"A chain of {self.depth} weights near {self.weight:g} with output "
            f"{chain.output(self.x, self.w):.3g}: one step promises {self.promised:.3g} "
            f"and delivers {self.delivered:.3g}."
        )

    def draw(self, figure) -> None:
        """Draw the orders, and below them the output before, as promised and as delivered."""
        from bn.plots import COLORS

        y = chain.output(self.x, self.w)
        small = 10.0 ** np.floor(np.log10(abs(y) or 1.0) - 3)
        orders = np.clip(self.contributions, -1e300, 1e300)
        rows = {"before": y, "promised": self.promised, "delivered": self.delivered}
        colors = [COLORS[c] for c in ("muted", "third", "accent", "without")]
        top, bottom = figure.subplots(2, 1, height_ratios=[3, 1.3])
        top.bar(range(len(orders)), orders, color=[colors[min(k, 3)] for k in range(len(orders))])
        top.set_yscale("symlog", linthresh=small)
        top.axhline(0, lw=0.8, color=COLORS["ink"])
        top.set(xlabel="order k of the learning rate", title="What each order adds to the output")
        bottom.barh(
            range(3), np.clip([*rows.values()], -1e300, 1e300), color=[*colors[:2], colors[3]]
        )
        bottom.set_xscale("symlog", linthresh=small)
        bottom.axvline(0, lw=0.8, color=COLORS["ink"])
        bottom.set_yticks(range(3), [f"{name}  {value:.3g}" for name, value in rows.items()])
        bottom.invert_yaxis()
        bottom.set_xlabel("output")
        top.yaxis.get_major_locator().set_params(numticks=7)
        bottom.xaxis.get_major_locator().set_params(numticks=5)
