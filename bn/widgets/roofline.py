"""The roofline: how fast a machine can run batch norm, by how many bytes each way of it moves."""

from __future__ import annotations

from typing import NamedTuple

import traitlets

from ._base import Widget


class Way(NamedTuple):
    """A way to write batch norm: what forward and backward together do to each value."""

    operations: int
    fetched: int  # times that the batch comes from memory when it does not fit into the cache
    stored: int  # times that something of its size goes there
    alive: int  # arrays of its size that are in use at a time


WAYS = {
    "textbook": Way(15, 17, 11, 6),
    "in place": Way(14, 16, 10, 4),
    "in blocks": Way(14, 6, 2, 4),
}


class Point(NamedTuple):
    """Where a way stands under the roof."""

    walks: int  # fetched and stored
    intensity: float  # operations for each byte moved
    seconds: float  # at least
    rate: float  # operations a second, at most
    by_memory: bool  # whether memory sets the time


def point(way, values, itemsize, cache, bandwidth, peak) -> Point:
    """Return what a machine allows.

    Parameters
    ----------
    way : str
        A key of ``WAYS``.
    values : float
        In the batch.
    itemsize, cache : float
        Bytes.
    bandwidth, peak : float
        Bytes and operations, a second.

    Examples
    --------
    >>> point("in blocks", 1e6, 4, 1e6, 20e9, 100e9).intensity
    0.4375
    """
    operations, fetched, stored, alive = WAYS[way]
    walks = 4 if alive * values * itemsize <= cache else fetched + stored
    moving, computing = walks * itemsize * values / bandwidth, operations * values / peak
    seconds = max(moving, computing)
    return Point(
        walks, operations / (walks * itemsize), seconds, operations * values / seconds,
        moving >= computing,
    )  # fmt: skip


class Roofline(Widget):
    """A machine's roof over operations per byte, and three ways to write batch norm under it.

    Parameters
    ----------
    way : str
        ``"textbook"``, ``"in place"`` or ``"in blocks"``: the one that the text speaks of.
    values : float
        In the batch, 1e3 to 1e9.
    itemsize : int
        Bytes of a value: 2, 4 or 8.
    cache : float
        Megabytes.
    bandwidth : float
        Gigabytes a second to and from memory.
    peak : float
        Billions of operations a second.

    Examples
    --------
    >>> figure = Roofline(way="textbook", values=1e6, bandwidth=28, peak=100)
    >>> figure.point.seconds
    0.004
    """

    _name = "roofline"
    _title = "Batch norm under a machine's roof"
    _shown = ("way", "values", "itemsize", "cache", "bandwidth", "peak")
    _size = (6.4, 3.8)

    way = traitlets.Enum(list(WAYS), "textbook", help="the way the text speaks of").tag(sync=True)
    values = traitlets.Float(1e7, min=1e3, max=1e9, help="values in the batch").tag(sync=True)
    itemsize = traitlets.Enum([2, 4, 8], 4, help="bytes of a value").tag(sync=True)
    cache = traitlets.Float(1.0, min=0.01, max=1000, help="cache, MB").tag(sync=True)
    bandwidth = traitlets.Float(20.0, min=1, max=1e4, help="memory, GB/s").tag(sync=True)
    peak = traitlets.Float(100.0, min=1, max=1e6, help="arithmetic, Gop/s").tag(sync=True)

    def of(self, way: str) -> Point:
        """Return where a way stands on this machine."""
        machine = 1e6 * self.cache, 1e9 * self.bandwidth, 1e9 * self.peak
        return point(way, self.values, self.itemsize, *machine)

    @property
    def point(self) -> Point:
        """Where the chosen way stands."""
        return self.of(self.way)

    def alt(self) -> str:
        """Say what the picture shows."""
        shown = self.point
        limit = "memory" if shown.by_memory else "arithmetic"
        return (
            f"A batch of {self.values:.3g} values, {self.way}: {shown.walks} walks over it, "
            f"{shown.intensity:.3g} operations a byte, at least {1e3 * shown.seconds:.3g} ms, "
            f"limited by {limit}. The roof turns flat at {self.peak / self.bandwidth:.3g} "
            "operations a byte."
        )

    def draw(self, figure) -> None:
        """Draw the roof and the three ways."""
        axes = figure.add_subplot()
        ridge = self.peak / self.bandwidth
        ends = [min(0.05, ridge / 3), max(20, 3 * ridge)]
        axes.loglog(
            [ends[0], ridge, ends[1]],
            [ends[0] * self.bandwidth, self.peak, self.peak],
            color="#1f2328",
        )
        for name, colour, marker in zip(
            WAYS, ("#D55E00", "#E69F00", "#0072B2"), "sDo", strict=True
        ):
            found = self.of(name)
            axes.plot(
                found.intensity, found.rate / 1e9, marker, color=colour, markersize=9,
                label=f"{name}: {1e3 * found.seconds:.3g} ms",
            )  # fmt: skip
        axes.set(xlabel="operations for each byte moved", ylabel="billion operations a second")
        axes.legend()
