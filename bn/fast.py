r"""Batch normalization in blocks: the transform of :mod:`bn.functional` with fewer trips to memory.

The same mathematics in another order. The textbook form walks over the whole batch for each line of
the derivation and writes a temporary each time; a batch is larger than a core's cache, so each walk
waits for memory. Here some examples, a *block*, go through all lines while they are in the cache.
One walk over the blocks sums, a second one writes the result. Nothing as large as the batch is made
but the results: the backward pass keeps ``x`` itself, not :math:`\hat x`.

Other dtypes than float32 and float64, arrays that are not contiguous, and values whose squares do
not fit into the dtype go the textbook's way.
"""

from __future__ import annotations

import functools
import math
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from . import functional

__all__ = ["Cache", "batch_norm", "batch_norm_backward"]

BLOCK = 1 << 18  # values in a block: 1 MB of float32, a core's own cache on a server of today
WIDTH = 1 << 13  # values in a row, at least: along shorter ones NumPy's loops start too often
LONG = 128  # positions from which on BLAS adds them up faster than NumPy adds up rows


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
        How many threads share the work, here and in the backward pass. Measure before you raise it: on
        two cores a second thread took a sixth off the time of a batch of 8192×1024, and nothing off
        smaller ones; the smallest took longer.

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
    shape = _as_planes(x, axis)
    if shape is None:
        return functional.batch_norm(x, gamma, beta, axis=axis, eps=eps)
    gamma, beta = np.asarray(gamma), np.asarray(beta)
    own = functional._kept(axis, x)
    flat = [functional._parameter(*p, x, own).ravel() for p in (("gamma", gamma), ("beta", beta))]
    functional._check_eps(eps)
    y = np.empty_like(x)
    mean, var = _forward(x.reshape(shape), y.reshape(shape), *flat, eps, threads)
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
    shape = _as_planes(x, axis)
    g = np.ascontiguousarray(given, x.dtype)
    dx = np.empty_like(x)
    blocks = (a.reshape(shape) for a in (x, g, dx))
    invstd = 1 / np.sqrt(var + eps)
    flat = (v.ravel() for v in (mean, invstd, _far(mean, var, x.dtype), gamma * invstd))
    dgamma, dbeta = _backward(*blocks, *flat, threads)
    if not (np.isfinite(dgamma) & np.isfinite(dbeta)).all():
        _, cache = functional.batch_norm(x, gamma, gamma, axis=axis, eps=eps)
        return functional.batch_norm_backward(given, cache)
    return dx, *(v.reshape(gamma.shape).astype(x.dtype) for v in (dgamma, dbeta))


def _as_planes(x, axis):
    """The shape (examples, channels, positions) of x, or None where this module does not help."""
    own = functional._kept(axis, x)
    together = bool(own) and own[-1] - own[0] == len(own) - 1
    if not together or x.dtype not in (np.float32, np.float64) or not x.flags.c_contiguous:
        return None
    first, last = own[0], own[-1] + 1
    n, c, s = (math.prod(part) for part in (x.shape[:first], x.shape[first:last], x.shape[last:]))
    return (n, c, s) if n * s > 1 and c > 0 else None


@functools.cache
def _pool(threads):
    return ThreadPoolExecutor(threads)


def _share(work, n, threads):
    """Call work(start, stop) for a part of range(n) on each thread."""

    def quietly(start):
        with np.errstate(all="ignore"):  # each thread has its own
            return work(start, min(start + size, n))

    size = -(-n // threads)
    starts = range(0, n, size)
    return list(_pool(threads).map(quietly, starts) if len(starts) > 1 else map(quietly, starts))


def _far(mean, var, dtype):
    """The means that must be subtracted before squaring, in dtype; 0 where that may be left out.

    The mean of the squares minus the square of the mean loses digits: its condition number is
    1 + mean**2 / var. Up to 5 that is less than a digit.
    """
    return np.where(mean**2 > 4 * var, mean, 0).astype(dtype)


def _as_rows(*arrays):
    """Arrays (N, C, S) as matrices, with whole examples to a row, as many as fit into WIDTH.

    With them come `wide`, from values of the channels to values of the columns; `narrow`, from sums
    over the columns of each block to sums over channels; and the number of rows in a block.
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


def _sums(x, near, g, threads):
    """Add up, for each channel, g and g * (x - near); without a g, x - near takes its place."""
    n, c, s = x.shape
    if s >= LONG:
        ones, start = np.ones(s, x.dtype), near.astype(x.dtype)[:, None]

        def sums(block):
            d = x[block] - start if near.any() else x[block]
            w = (d if g is None else g[block])[:, :, None]
            return [(w @ v[..., None]).sum((0, 2, 3), dtype=float) for v in (ones, d)]

        return np.array(_each(sums, n, max(1, BLOCK // (c * s)), threads)).sum(0)

    x, g_rows, wide, narrow, size = _as_rows(x, x if g is None else g)
    start = wide(near)[0]

    def sums(block):
        d = x[block] - start if near.any() else x[block]
        w = d if g is None else g_rows[block]
        return w.sum(0), np.einsum("ij,ij->j", w, d)

    return narrow(_each(sums, len(x), size, threads))


@np.errstate(all="ignore")  # what overflows is done again by the textbook
def _forward(x, y, gamma, beta, eps, threads):
    def moments(near):
        rest, square = _sums(x, near, None, threads) / (x.size / len(gamma))
        return near + rest, square - rest**2

    near = np.zeros(len(gamma), x.dtype)
    mean, var = moments(near)
    near = _far(mean, var, x.dtype)
    if near.any():
        mean, var = moments(near)
    scale = gamma / np.sqrt(var + eps)
    x, y, wide, _, size = _as_rows(x, y)
    start, scale, shift = wide(near, scale, beta - scale * (mean - near))

    def write(block):
        d = np.subtract(x[block], start, out=y[block]) if near.any() else x[block]
        out = np.multiply(d, scale, out=y[block])
        out += shift

    _each(write, len(x), size, threads)
    return mean, var


def _backward(x, g, dx, mean, invstd, near, scale, threads):
    m = x.shape[0] * x.shape[2]
    dbeta, dgamma = _sums(x, near, g, threads)
    rest = mean - near
    dgamma = invstd * (dgamma - rest * dbeta)
    slope = dgamma * invstd / m
    x, g, dx, wide, _, size = _as_rows(x, g, dx)
    start, slope, shift, scale = wide(near, -slope, slope * rest - dbeta / m, scale)

    def write(block):
        d = np.subtract(x[block], start, out=dx[block]) if near.any() else x[block]
        out = np.multiply(d, slope, out=dx[block])
        out += g[block]
        out += shift
        out *= scale

    _each(write, len(x), size, threads)
    return dgamma, dbeta
