r"""Batch normalization and its gradient as pure functions of NumPy arrays.

``axis`` always names the axes that are averaged over, as in ``numpy.mean``: 0 for a batch of
shape (N, C), ``(0, 2, 3)`` for images of shape (N, C, H, W). What is kept, here the channels, has
one mean, one variance, one gamma and one beta each. :math:`m` is the number of values averaged.

Inputs may have any number of axes, any memory layout and any floating dtype, and are never
modified. Results have the dtype of ``x``. float16 is computed in float32, and sums run in float64.

References
----------
S. Ioffe, C. Szegedy. *Batch Normalization: Accelerating Deep Network Training by Reducing Internal
Covariate Shift*. ICML 2015, Algorithm 1. https://arxiv.org/abs/1502.03167
"""

from __future__ import annotations

import math
import operator
from typing import NamedTuple

import numpy as np

__all__ = [
    "Cache",
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_inference",
    "moments",
    "standardize",
    "update_running",
]


class Cache(NamedTuple):
    """What :func:`batch_norm` keeps for :func:`batch_norm_backward`."""

    x_hat: np.ndarray  # shape of x, in the dtype of the computation
    sigma: np.ndarray  # sqrt(var + eps), broadcastable against x
    gamma: np.ndarray  # broadcastable against x
    axis: tuple[int, ...]
    dtype: np.dtype  # of x, and so of dx


def moments(x, axis=0) -> tuple[np.ndarray, np.ndarray]:
    r"""Mean and biased variance over ``axis``.

    .. math:: \mu = \frac1m\sum_i x_i, \qquad \sigma^2 = \frac1m\sum_i (x_i-\mu)^2

    Two passes: the mean first, then the squares of what is left. The one-pass formula
    :math:`\overline{x^2}-\bar x^2` subtracts two large, nearly equal numbers when the mean is large
    against the spread, and returns noise or a negative variance.

    Parameters
    ----------
    x : array_like of float
    axis : int or tuple of int or None
        The axes to average over; None averages over all.

    Returns
    -------
    mean, var : ndarray, shape of the kept axes
        In the dtype of ``x``, but float32 for float16.

    Raises
    ------
    TypeError
        If ``x`` is not floating point.
    ValueError
        If there is nothing to average.

    Examples
    --------
    >>> mean, var = moments([[1.0, 10.0], [3.0, 30.0]])
    >>> mean.tolist(), var.tolist()
    ([2.0, 20.0], [1.0, 100.0])
    """
    x = _floating(x)
    axis = _axes(axis, x)
    if _count(x.shape, axis) == 0:
        raise ValueError(f"the mean of no values is undefined: x has shape {x.shape}, axis {axis}")
    mean, var = _moments(x.astype(_working_dtype(x), copy=False), axis)
    return mean.squeeze(axis), var.squeeze(axis)


def standardize(x, axis=0, eps=1e-5) -> np.ndarray:
    r"""Subtract the mean over ``axis`` and divide by the standard deviation.

    .. math:: \hat x = \frac{x-\mu}{\sqrt{\sigma^2+\epsilon}}

    Parameters
    ----------
    x : array_like of float
    axis : int or tuple of int or None
        The axes to average over.
    eps : float
        Added to the variance, so in its units: the square of those of ``x``.

    Returns
    -------
    x_hat : ndarray
        Shape and dtype of ``x``. Over ``axis`` its mean is 0 and its variance
        :math:`\sigma^2/(\sigma^2+\epsilon)`.

    Raises
    ------
    TypeError
        If ``x`` is not floating point.
    ValueError
        If only one value is averaged: it would be its own mean, and the result 0 whatever it is.

    Examples
    --------
    >>> standardize([[1.0], [2.0], [3.0]], eps=0).round(4).tolist()
    [[-1.2247], [0.0], [1.2247]]
    """
    x = _floating(x)
    x_hat, _ = _standardize(x, _axes(axis, x), eps)
    return x_hat.astype(x.dtype, copy=False)


def batch_norm(x, gamma, beta, *, axis=0, eps=1e-5) -> tuple[np.ndarray, Cache]:
    r"""The batch normalizing transform, training mode.

    .. math:: y = \gamma\,\frac{x-\mu}{\sqrt{\sigma^2+\epsilon}} + \beta

    Parameters
    ----------
    x : array_like of float
        Shape (N, C) with ``axis=0``, (N, C, H, W) with ``axis=(0, 2, 3)``, or any other.
    gamma, beta : array_like, shape of the kept axes
        Scale and shift, such as shape (C,).
    axis : int or tuple of int or None
        The axes to average over.
    eps : float
        Added to the variance.

    Returns
    -------
    y : ndarray
        Shape and dtype of ``x``. An empty batch gives an empty result.
    cache : Cache
        For :func:`batch_norm_backward`.

    Raises
    ------
    TypeError
        If ``x`` is not floating point.
    ValueError
        If ``gamma`` or ``beta`` do not match, or only one value is averaged per channel.

    References
    ----------
    Ioffe & Szegedy 2015, Algorithm 1.

    Examples
    --------
    >>> x = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 60.0]])
    >>> y, cache = batch_norm(x, gamma=[1.0, 2.0], beta=[0.0, 1.0])
    >>> y.round(3).tolist()
    [[-1.225, -0.852], [0.0, 0.074], [1.225, 3.777]]
    """
    x = _floating(x)
    axis = _axes(axis, x)
    x_hat, sigma = _standardize(x, axis, eps)
    gamma = _per_channel("gamma", gamma, x, axis)
    beta = _per_channel("beta", beta, x, axis)
    y = gamma * x_hat + beta
    return y.astype(x.dtype, copy=False), Cache(x_hat, sigma, gamma, axis, x.dtype)


def batch_norm_backward(g, cache: Cache) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""The gradient of a loss with respect to the inputs of :func:`batch_norm`.

    With :math:`g=\partial L/\partial y`, :math:`\sigma=\sqrt{\mathrm{var}+\epsilon}` and a bar for the
    mean over ``axis``,

    .. math:: \frac{\partial L}{\partial x} = \frac{\gamma}{\sigma}
              \bigl(g - \overline{g} - \hat x\,\overline{g\hat x}\bigr), \qquad
              \frac{\partial L}{\partial\gamma} = \sum_i g_i\hat x_i, \qquad
              \frac{\partial L}{\partial\beta} = \sum_i g_i .

    Every example's gradient holds the mean and the variance of the whole batch: that is what the
    two subtracted terms are.

    Parameters
    ----------
    g : array_like, shape of ``y``
        Gradient of the loss with respect to ``y``.
    cache : Cache
        From :func:`batch_norm`.

    Returns
    -------
    dx : ndarray, shape and dtype of ``x``
    dgamma, dbeta : ndarray, shape of ``gamma``
        In the dtype of ``x``, but float32 for float16.

    Raises
    ------
    TypeError
        If ``g`` is not floating point.
    ValueError
        If ``g`` does not have the shape of ``y``.

    Examples
    --------
    >>> y, cache = batch_norm([[1.0], [2.0], [6.0]], gamma=[1.0], beta=[0.0], eps=0)
    >>> dx, dgamma, dbeta = batch_norm_backward(np.array([[1.0], [0.0], [0.0]]), cache)
    >>> dx.round(4).tolist()               # a push on the first example moves all three
    [[0.1763], [-0.2204], [0.0441]]
    """
    x_hat, sigma, gamma, axis, dtype = cache
    g = _floating(g, "g")
    if g.shape != x_hat.shape:
        raise ValueError(f"g must have the shape of y, {x_hat.shape}, got {g.shape}")
    g = g.astype(x_hat.dtype, copy=False)
    dbeta = _sum(g, axis)
    dgamma = _sum(g * x_hat, axis)
    m = max(_count(g.shape, axis), 1)
    dx = gamma / sigma * (g - dbeta / m - x_hat * (dgamma / m))
    return dx.astype(dtype, copy=False), dgamma.squeeze(axis), dbeta.squeeze(axis)


def batch_norm_inference(x, gamma, beta, mean, var, *, axis=0, eps=1e-5) -> np.ndarray:
    r"""The transform with given statistics, as at inference.

    .. math:: y = \gamma\,\frac{x-\mathrm{mean}}{\sqrt{\mathrm{var}+\epsilon}} + \beta

    No example depends on any other, so a batch of one is as good as any.

    Parameters
    ----------
    x : array_like of float
    gamma, beta, mean, var : array_like, shape of the kept axes
    axis : int or tuple of int or None
        The axes that one mean and one variance serve, as in :func:`batch_norm`.
    eps : float
        Added to the variance.

    Returns
    -------
    y : ndarray, shape and dtype of ``x``

    Raises
    ------
    TypeError
        If ``x`` is not floating point.
    ValueError
        If a parameter or a statistic does not match the kept axes.

    Examples
    --------
    >>> batch_norm_inference([[5.0]], gamma=[2.0], beta=[1.0], mean=[3.0], var=[4.0], eps=0).tolist()
    [[3.0]]
    """
    x = _floating(x)
    axis = _axes(axis, x)
    mean = _per_channel("mean", mean, x, axis)
    var = _per_channel("var", var, x, axis)
    gamma = _per_channel("gamma", gamma, x, axis)
    beta = _per_channel("beta", beta, x, axis)
    _check_eps(eps)
    y = gamma * (x - mean) / np.sqrt(var + eps) + beta
    return y.astype(x.dtype, copy=False)


def update_running(running, batch_value, momentum=0.1, *, m=None) -> np.ndarray:
    r"""One step of the moving average that inference uses.

    .. math:: \mathrm{running} \leftarrow (1-\alpha)\,\mathrm{running} + \alpha\,\mathrm{batch}

    ``momentum`` is :math:`\alpha`, the weight of the *new* value, as in PyTorch. Give ``m`` when
    averaging a variance: :func:`moments` returns the biased one, which normalises the batch, and
    what is stored is the unbiased estimate :math:`\frac{m}{m-1}\sigma^2` of the population's.

    Parameters
    ----------
    running : array_like
        The average so far.
    batch_value : array_like, shape of ``running``
        Mean or biased variance of this batch.
    momentum : float
        Between 0 and 1. ``1 / n`` at the n-th batch gives the plain average over batches.
    m : int, optional
        The number of values behind each biased variance. Leave it out for a mean.

    Returns
    -------
    ndarray
        A new array; ``running`` stays as it is.

    Raises
    ------
    ValueError
        If shapes differ, ``momentum`` is outside [0, 1], or ``m < 2``.

    Examples
    --------
    >>> update_running(np.array([0.0]), np.array([5.0])).tolist()
    [0.5]
    >>> update_running(np.array([1.0]), np.array([3.0]), momentum=0.5, m=4).tolist()   # 3 * 4/3
    [2.5]
    """
    running, batch_value = np.asarray(running), np.asarray(batch_value)
    if running.shape != batch_value.shape:
        raise ValueError(
            f"running has shape {running.shape}, this batch's value {batch_value.shape}: they must "
            "agree"
        )
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum must lie between 0 and 1, got {momentum}")
    if m is not None:
        if m < 2:
            raise ValueError(f"a variance needs at least 2 values to be unbiased, got m = {m}")
        batch_value = batch_value * (m / (m - 1))
    return (1 - momentum) * running + momentum * batch_value


# What the functions above share.


def _floating(x, name="x") -> np.ndarray:
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, whose mask would be ignored: fill it first")
    x = np.asarray(x)
    if not np.issubdtype(x.dtype, np.floating):
        raise TypeError(
            f"{name} must be floating point, got {x.dtype} of shape {x.shape}: "
            f"convert it first, as in np.asarray({name}, np.float32)"
        )
    return x


def _working_dtype(x: np.ndarray) -> np.dtype:
    """The dtype to compute in: float16 has neither the range nor the digits for a variance."""
    return np.promote_types(x.dtype, np.float32)


def _axes(axis, x: np.ndarray) -> tuple[int, ...]:
    axes = range(x.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    axes = [operator.index(a) for a in axes]
    if any(not -x.ndim <= a < x.ndim for a in axes) or len({a % x.ndim for a in axes}) < len(axes):
        raise ValueError(f"axis {axis} does not name distinct axes of x, which has shape {x.shape}")
    return tuple(a % x.ndim for a in axes)


def _check_eps(eps: float) -> None:
    if not eps >= 0:
        raise ValueError(f"eps must not be negative, got {eps}")


def _count(shape: tuple[int, ...], axis: tuple[int, ...]) -> int:
    return math.prod(shape[a] for a in axis)


def _per_channel(name: str, value, x: np.ndarray, axis: tuple[int, ...]) -> np.ndarray:
    value = np.asarray(value)
    kept = tuple(n for a, n in enumerate(x.shape) if a not in axis)
    if value.shape != kept:
        raise ValueError(
            f"{name} must have shape {kept}, the axes of x {x.shape} that are not averaged over "
            f"(axis {axis}), got {value.shape}"
        )
    return np.expand_dims(value.astype(_working_dtype(x), copy=False), axis)


# In float32, NumPy adds along a strided axis one value at a time and loses digits with each.
# Both keep the averaged axes with length 1, so that the result broadcasts against x.


def _sum(x: np.ndarray, axis: tuple[int, ...]) -> np.ndarray:
    wide = np.promote_types(x.dtype, np.float64)
    return x.sum(axis, dtype=wide, keepdims=True).astype(x.dtype, copy=False)


def _mean(x: np.ndarray, axis: tuple[int, ...]) -> np.ndarray:
    wide = np.promote_types(x.dtype, np.float64)
    return x.mean(axis, dtype=wide, keepdims=True).astype(x.dtype, copy=False)


def _moments(x: np.ndarray, axis: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    mean = _mean(x, axis)
    return mean, _mean((x - mean) ** 2, axis)


def _standardize(x: np.ndarray, axis: tuple[int, ...], eps: float) -> tuple[np.ndarray, np.ndarray]:
    m = _count(x.shape, axis)
    if m == 1:
        raise ValueError(
            f"expected more than 1 value per channel, got x of shape {x.shape} averaged over axis "
            f"{axis}: use a larger batch, or batch_norm_inference"
        )
    _check_eps(eps)
    x = x.astype(_working_dtype(x), copy=False)
    if m == 0:  # nothing to normalise
        return x.copy(), np.ones([1] * x.ndim, x.dtype)
    mean, var = _moments(x, axis)
    sigma = np.sqrt(var + eps)
    return (x - mean) / sigma, sigma
