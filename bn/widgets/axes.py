"""A batch of images as a sheet of tiles: which values share a mean, for four norms."""

from __future__ import annotations

import numpy as np
import traitlets

from ._base import Widget

NORMS = ("batch", "layer", "instance", "group")
SIZE, PLACES = 8, 6  # largest N and C, largest H and W


class Axes(Widget):
    """An array of shape (N, C, H, W), with the values lit that share a mean with a chosen one.

    Parameters
    ----------
    norm : str
        ``"batch"``, ``"layer"``, ``"instance"`` or ``"group"``.
    N, C, H, W : int
        The shape: 1 to 8 examples and channels, 1 to 6 rows and columns.
    groups : int
        For group norm; must divide C.
    at : list of int
        The chosen value, ``[n, c, h, w]``, counted from 0.
    show : str
        ``"statistics"`` lights the values that share a mean and a variance with the chosen one,
        ``"parameters"`` those that share its gamma and beta.

    Examples
    --------
    >>> axes = Axes(norm="batch", N=4, C=6, H=3, W=4)
    >>> axes.m, axes.means, axes.gammas
    (48, 6, 6)
    >>> axes.lit.shape, int(axes.lit.sum())
    ((4, 6, 3, 4), 48)
    """

    _name = "axes"
    _title = "Who shares a mean?"
    _shown = ("norm", "N", "C", "H", "W", "groups", "at")
    _size = (6.4, 4.2)

    norm = traitlets.Enum(NORMS, "batch", help="which norm").tag(sync=True)
    N = traitlets.Int(4, min=1, max=SIZE, help="examples").tag(sync=True)
    C = traitlets.Int(6, min=1, max=SIZE, help="channels").tag(sync=True)
    H = traitlets.Int(3, min=1, max=PLACES, help="rows of an image").tag(sync=True)
    W = traitlets.Int(4, min=1, max=PLACES, help="columns of an image").tag(sync=True)
    groups = traitlets.Int(2, min=1, max=SIZE, help="groups of channels").tag(sync=True)
    at = traitlets.List(traitlets.Int(), [1, 2, 1, 1], minlen=4, maxlen=4, help="the value").tag(
        sync=True
    )
    show = traitlets.Enum(("statistics", "parameters"), "statistics", help="what is lit").tag(
        sync=True
    )

    @traitlets.validate("groups")
    def _divides(self, proposal):
        if self.C % proposal["value"]:
            raise traitlets.TraitError(
                f"{proposal['value']} groups do not divide {self.C} channels"
            )
        return proposal["value"]

    @traitlets.validate("at")
    def _inside(self, proposal):
        if not all(0 <= i < n for i, n in zip(proposal["value"], self.shape, strict=True)):
            raise traitlets.TraitError(
                f"at = {proposal['value']} lies outside the shape {self.shape}"
            )
        return proposal["value"]

    @traitlets.observe("N", "C", "H", "W")
    def _fit(self, _) -> None:
        """After a change of shape: the nearest value that is there, the next groups that divide."""
        self.groups = next(g for g in range(self.groups, 0, -1) if self.C % g == 0)
        self.at = [min(i, n - 1) for i, n in zip(self.at, self.shape, strict=True)]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """``(N, C, H, W)``."""
        return self.N, self.C, self.H, self.W

    @property
    def axis(self) -> tuple[int, ...]:
        """The averaged axes: of ``(N, groups, C / groups, H, W)`` for group norm, else of the shape."""
        return {"batch": (0, 2, 3), "layer": (1, 2, 3), "instance": (2, 3), "group": (2, 3, 4)}[
            self.norm
        ]

    def _grouped(self, x: np.ndarray) -> np.ndarray:
        if self.norm != "group":
            return x
        return x.reshape(self.N, self.groups, self.C // self.groups, self.H, self.W)

    @property
    def statistics(self) -> np.ndarray:
        """True where a value shares its mean and variance with the chosen one."""
        chosen = np.zeros(self.shape, bool)
        chosen[tuple(self.at)] = True
        reached = self._grouped(chosen).any(axis=self.axis, keepdims=True)
        return (reached & self._grouped(np.ones(self.shape, bool))).reshape(self.shape)

    @property
    def parameters(self) -> np.ndarray:
        """True where a value has the chosen one's gamma and beta.

        Layer norm has one for each place of an image, as in ``torch.nn.LayerNorm``, the other
        norms one for each channel.
        """
        _, c, h, w = self.at
        same = np.zeros(self.shape, bool)
        same[(slice(None), c, h, w) if self.norm == "layer" else (slice(None), c)] = True
        return same

    @property
    def lit(self) -> np.ndarray:
        """What is lit: `statistics` or `parameters`, as `show` says."""
        return getattr(self, self.show)

    @property
    def m(self) -> int:
        """How many values share one mean."""
        return int(self.statistics.sum())

    @property
    def means(self) -> int:
        """How many means there are, and variances."""
        return self.statistics.size // self.m

    @property
    def gammas(self) -> int:
        """How many gammas there are, and betas."""
        return self.C * self.H * self.W if self.norm == "layer" else self.C

    def alt(self) -> str:
        """Say what the picture shows."""
        groups = f" with {self.groups} groups" if self.norm == "group" else ""
        return (
            f"{self.norm.capitalize()} norm{groups} of an array of shape {self.shape}: "
            f"{int(self.lit.sum())} of {self.lit.size} values share "
            f"{'a mean and a variance' if self.show == 'statistics' else 'gamma and beta'} with "
            f"x{self.at}. There are {self.means} means and {self.gammas} gammas."
        )

    def draw(self, figure) -> None:
        """Draw the sheet of tiles."""
        axes = figure.add_subplot()
        n, c, h, w = np.indices(self.shape)
        x, y = c * (self.W + 1) + w, n * (self.H + 1) + h
        axes.scatter(x[~self.lit], y[~self.lit], s=5, marker="s", color="#8A9099")
        axes.scatter(x[self.lit], y[self.lit], s=42, marker="s", color="#0072B2")
        at = tuple(self.at)
        axes.scatter(x[at], y[at], s=120, marker="s", facecolor="none", edgecolor="#1f2328",
                     linewidth=2)  # fmt: skip
        axes.set_xticks(np.arange(self.C) * (self.W + 1) + (self.W - 1) / 2, range(self.C))
        axes.set_yticks(np.arange(self.N) * (self.H + 1) + (self.H - 1) / 2, range(self.N))
        axes.set(xlabel="channel c", ylabel="example n", aspect="equal")
        axes.invert_yaxis()
        axes.grid(visible=False)
        axes.set_title(f"{self.norm} norm: {self.means} means of {self.m} values each")
