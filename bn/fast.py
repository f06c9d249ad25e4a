r"""Batch normalization at the speed of memory: the transform of :mod:`bn.functional`, in blocks.

The same mathematics in another order. The textbook form walks over the whole batch for each line of
the derivation and writes a temporary each time. A batch is larger than a core's cache, so each walk
waits for memory. Here a *block* that fits into the cache goes through all lines before the next one
is fetched. Nothing as large as the batch is made but the results: the backward pass gets ``x``
itself, not :math:`\hat x`.

The batch is seen as (N, C, S): N examples, C channels, S positions. There are two ways to cut it.

- *Planes.* All values of one channel are a block. It is copied together, and what is done to it is
  done in place, with scalars.
- *Rows.* Where channels lie too close together for that, a block is some of the examples. One walk
  sums, a second one writes the result.

Both subtract before they square. A channel whose squares do not fit into the dtype, or that holds
NaN or infinity, goes the textbook's way, and so does a batch in another dtype or memory layout.
"""

from __future__ import annotations

import functools
import math
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from . import functional

__all__ = ["Cache", "batch_norm", "batch_norm_backward"]

PLANE = range(1 << 13, 1 << 20)  # values in a channel that make it worth a block of its own
WIDTH = 1 << 13  # values in a row: at shorter ones NumPy's broadcasting costs more than the sums
BLOCK = 1 << 17  # values in a block of rows: half of a core's cache


class Cache(NamedTuple):
    """What :func:`batch_norm` keeps for :func:`batch_norm_backward`."""

    x: np.ndarray  # the caller's own, not a copy: it must not change before the backward pass
    gamma: np.ndarray
    mean: np.ndarray  # float64, shape of gamma, and so is var
    var: np.ndarray
    eps: float
    axis: tuple[int, ...]
    threads: int


def batch_norm(x, gamma, beta, *, axis=0, eps=1e-5, threads=1) -> tuple[np.ndarray, Cache]:
    r"""The batch normalizing transform, training mode, as :func:`bn.functional.batch_norm`.

    Parameters
    ----------
    x : array_like of float
        Kept for the backward pass as it is, without a copy: do not change it before that.
    gamma, beta : array_like, shape of the kept axes
        Scale and shift.
    axis : int or tuple of int or None
        The axes to average over.
    eps : float
        Added to the variance.
    threads : int
        How many threads share the work, here and in the backward pass.

    Returns
    -------
    y : ndarray
        Shape and dtype of ``x``; float32 differs from :mod:`bn.functional`'s in rounding.
    cache : Cache
        For :func:`batch_norm_backward`. Its ``mean`` and ``var`` are the batch's.

    Raises
    ------
    TypeError, ValueError
        As :func:`bn.functional.batch_norm`.

    Examples
    --------
    >>> x = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 60.0]], np.float32)
    >>> y, cache = batch_norm(x, gamma=[1.0, 2.0], beta=[0.0, 1.0])
    >>> y.round(3).tolist()[0]
    [-1.225000023841858, -0.8519999980926514]
    """
    if threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    x = functional._floating(x)
    axis = functional._axes(axis, x)
    shape = _planes(x, axis)
    if shape is None:
        return functional.batch_norm(x, gamma, beta, axis=axis, eps=eps)
    gamma, beta = np.asarray(gamma), np.asarray(beta)
    own = functional._kept(axis, x)
    flat = [functional._parameter(*p, x, own).ravel() for p in (("gamma", gamma), ("beta", beta))]
    functional._check_eps(eps)
    y = np.empty_like(x)
    forward = _forward_planes if _by_planes(shape) else _forward_rows
    mean, var = forward(x.reshape(shape), y.reshape(shape), *flat, eps, threads)
    smallest = np.finfo(x.dtype).tiny / np.finfo(x.dtype).eps
    if not (np.isfinite(var) & (var + eps > smallest)).all():
        return functional.batch_norm(x, gamma, beta, axis=axis, eps=eps)
    mean, var = mean.reshape(gamma.shape), var.reshape(gamma.shape)
    return y, Cache(x, gamma, mean, var, eps, axis, threads)


def batch_norm_backward(g, cache) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""The gradient, as :func:`bn.functional.batch_norm_backward`.

    Parameters
    ----------
    g : array_like, shape of ``y``
        Gradient of the loss with respect to ``y``.
    cache : Cache
        From :func:`batch_norm`.

    Returns
    -------
    dx : ndarray, shape and dtype of ``x``
    dgamma, dbeta : ndarray, shape of ``gamma``, dtype of ``x``

    Raises
    ------
    TypeError, ValueError
        As :func:`bn.functional.batch_norm_backward`.

    Examples
    --------
    >>> _, cache = batch_norm([[1.0], [2.0], [6.0]], gamma=[1.0], beta=[0.0], eps=0)
    >>> dx, dgamma, dbeta = batch_norm_backward(np.array([[1.0], [0.0], [0.0]]), cache)
    >>> dx.round(4).tolist()
    [[0.1763], [-0.2204], [0.0441]]
    """
    if not isinstance(cache, Cache):
        return functional.batch_norm_backward(g, cache)
    x, gamma, mean, var, eps, axis, threads = cache
    given = functional._floating(g, "g")
    if given.shape != x.shape:
        raise ValueError(f"g must have the shape of y, {x.shape}, got {given.shape}")
    shape = _planes(x, axis)
    g = np.ascontiguousarray(given, x.dtype)
    dx = np.empty_like(x)
    backward = _backward_planes if _by_planes(shape) else _backward_rows
    blocks = (a.reshape(shape) for a in (x, g, dx))
    invstd = 1 / np.sqrt(var + eps)
    flat = (v.ravel() for v in (mean, invstd, gamma * invstd))
    dgamma, dbeta = backward(*blocks, *flat, threads)
    if not (np.isfinite(dgamma) & np.isfinite(dbeta)).all():
        _, cache = functional.batch_norm(x, gamma, gamma, axis=axis, eps=eps)
        return functional.batch_norm_backward(given, cache)
    return dx, *(v.reshape(gamma.shape).astype(x.dtype) for v in (dgamma, dbeta))


def _planes(x, axis):
    """The shape (N, C, S) that x has without being copied; None where this module does not help."""
    own = functional._kept(axis, x)
    together = bool(own) and own[-1] - own[0] == len(own) - 1
    if not together or x.dtype not in (np.float32, np.float64) or not x.flags.c_contiguous:
        return None
    first, last = own[0], own[-1] + 1
    n, c, s = (math.prod(part) for part in (x.shape[:first], x.shape[first:last], x.shape[last:]))
    return (n, c, s) if n * s > 1 and c > 0 else None


def _by_planes(shape):
    n, _, s = shape
    return n * s in PLANE and 64 <= s <= 10_000


@functools.cache
def _pool(threads):
    return ThreadPoolExecutor(threads)


def _share(work, n, threads):
    """Call work(start, stop) for a part of range(n) on each thread."""

    def quietly(start):
        with np.errstate(all="ignore"):
            return work(start, min(start + size, n))

    size = -(-n // threads)
    starts = range(0, n, size)
    return list(_pool(threads).map(quietly, starts) if len(starts) > 1 else map(quietly, starts))


def _total(v):
    return v.sum(dtype=np.float64)


def _dots(a, b):
    """The dot product of each row of a with the same row of b."""
    return a[:, None] @ b[:, :, None]


def _forward_planes(x, y, gamma, beta, eps, threads):
    n, c, s = x.shape
    mean, var = np.empty((2, c))

    def work(start, stop):
        d = np.empty((n, s), x.dtype)
        for i in range(start, stop):
            d[:] = x[:, i]
            near = x.dtype.type(_total(d.sum(0)) / (n * s))
            d -= near
            rest = _total(d.sum(0)) / (n * s)
            mean[i], var[i] = near + rest, _total(_dots(d, d)) / (n * s) - rest**2
            scale = gamma[i] / np.sqrt(var[i] + eps)
            d *= float(scale)
            d += float(beta[i] - scale * rest)
            y[:, i] = d

    _share(work, c, threads)
    return mean, var


def _backward_planes(x, g, dx, mean, invstd, scale, threads):
    n, c, s = x.shape
    dgamma, dbeta = np.empty((2, c))

    def work(start, stop):
        d, h = np.empty((2, n, s), x.dtype)
        for i in range(start, stop):
            d[:], h[:] = x[:, i], g[:, i]
            near = x.dtype.type(mean[i])
            rest = mean[i] - near
            d -= near
            dbeta[i] = _total(h.sum(0))
            dgamma[i] = invstd[i] * (_total(_dots(d, h)) - rest * dbeta[i])
            slope = dgamma[i] * invstd[i] / (n * s)
            d *= float(-slope)
            d += h
            d += float(slope * rest - dbeta[i] / (n * s))
            d *= float(scale[i])
            dx[:, i] = d

    _share(work, c, threads)
    return dgamma, dbeta


def _as_rows(*arrays):
    """Arrays (N, C, S) as matrices: as many whole examples to a row as make it WIDTH long.

    With them come `wide`, from values of the channels to values of the columns; `narrow`, from sums
    over columns, one for each block, to sums over channels; and the rows of a block.
    """
    n, c, s = arrays[0].shape
    together = max(k for k in range(1, max(WIDTH // (c * s), 1) + 1) if n % k == 0)
    rows, width = n // together, together * c * s

    def wide(*values):
        columns = np.array(values, arrays[0].dtype)[:, None, :, None]
        return np.broadcast_to(columns, (len(values), together, c, s)).reshape(-1, width)

    def narrow(sums):
        sums = np.array(sums, np.float64)
        return np.einsum("bvkcs->vc", sums.reshape(*sums.shape[:2], together, c, s))

    return *(a.reshape(rows, width) for a in arrays), wide, narrow, max(4, BLOCK // width)


def _each(function, rows, size, threads):
    """Call function(block) for all blocks of rows; return the results."""

    def part(start, stop):
        return [function(slice(i, min(i + size, stop))) for i in range(start, stop, size)]

    return [one for many in _share(part, rows, threads) for one in many]


def _forward_rows(x, y, gamma, beta, eps, threads):
    n, c, s = x.shape
    x, y, wide, narrow, size = _as_rows(x, y)
    sample = x[::8]
    (pilot,) = narrow([[sample.sum(0)]]) * (c / sample.size)
    (columns,) = wide(pilot)

    def sums(block):
        d = x[block] - columns
        first = d.sum(0)
        d *= d
        return first, d.sum(0)

    first, second = narrow(_each(sums, len(x), size, threads)) / (n * s)
    mean, var = pilot.astype(x.dtype) + first, second - first**2
    scale, near = gamma / np.sqrt(var + eps), mean.astype(x.dtype)
    scale, near, shift = wide(scale, near, beta - scale * (mean - near))

    def write(block):
        out = np.subtract(x[block], near, out=y[block])
        out *= scale
        out += shift

    _each(write, len(x), size, threads)
    return mean, var


def _backward_rows(x, g, dx, mean, invstd, scale, threads):
    m = x.shape[0] * x.shape[2]
    x, g, dx, wide, narrow, size = _as_rows(x, g, dx)
    (near,) = wide(mean)

    def sums(block):
        d = x[block] - near
        d *= g[block]
        return d.sum(0), g[block].sum(0)

    dgamma, dbeta = narrow(_each(sums, len(x), size, threads))
    rest = mean - mean.astype(x.dtype)
    dgamma = invstd * (dgamma - rest * dbeta)
    slope = dgamma * invstd / m
    slope, shift, scale = wide(-slope, slope * rest - dbeta / m, scale)

    def write(block):
        out = np.subtract(x[block], near, out=dx[block])
        out *= slope
        out += g[block]
        out += shift
        out *= scale

    _each(write, len(x), size, threads)
    return dgamma, dbeta
