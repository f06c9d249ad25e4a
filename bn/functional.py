r"""Batch normalization and its gradient as pure functions of NumPy arrays.

``axis`` always names the axes that are averaged over, as in ``numpy.mean``: 0 for a batch of
shape (N, C), ``(0, 2, 3)`` for images of shape (N, C, H, W). What is kept, here the channels, has
one mean, one variance, one gamma and one beta each. :math:`m` is the number of values averaged.
Layer, instance, group and RMS norm are the same transform over other axes, and
:func:`batch_norm_backward` is the gradient of them all.

Inputs may have any number of axes, any memory layout and any floating dtype, and are never
modified. Everything is computed in float64 (``longdouble`` in ``longdouble``) and rounded once, to
the dtype of ``x``. Statistics and the gradients of gamma and beta have that dtype too, but float32
where ``x`` is float16.

A channel that holds NaN or an infinity becomes NaN where its own statistics are used, and no other
channel notices; a constant channel becomes beta. ``torch.nn`` does the same. In float32 it loses
more: it computes ``x * scale + shift``, so that a channel of mean 1e4 and deviation 1 comes out some
1e-3 off, and it squares in float32, so that a deviation over 1e19 overflows and the result is beta.

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
    "group_norm",
    "instance_norm",
    "layer_norm",
    "merge_moments",
    "moments",
    "rms_norm",
    "standardize",
    "update_running",
]


class Cache(NamedTuple):
    """What the forward pass keeps, for :func:`batch_norm_backward` and :func:`update_running`.

    ``mean`` and ``var`` are those of :func:`moments` before they are rounded, and ``m`` is the
    number of values behind each, so that the running statistics need no second look at ``x``.
    """

    x_hat: np.ndarray  # in the dtype of the computation; group norm splits axis 1 of x in two
    sigma: np.ndarray  # sqrt(var + eps), broadcastable against x_hat
    gamma: np.ndarray  # broadcastable against x_hat
    axis: tuple[int, ...]  # of x_hat
    mean: np.ndarray | None  # None if it was not subtracted: RMS norm
    var: np.ndarray
    shape: tuple[int, ...]  # of x, and so of dx
    dtype: np.dtype  # of x, and so of dx
    params: tuple[int, ...]  # shape of gamma and beta as they were given

    @property
    def m(self) -> int:
        """The number of values averaged."""
        return _count(self.x_hat.shape, self.axis)


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
    mean, var, _ = _moments(x, axis)
    dtype = _at_least_float32(x.dtype)
    return mean.squeeze(axis).astype(dtype), var.squeeze(axis).astype(dtype)


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
    axis = _axes(axis, x)
    _check_more_than_one("channel", x, axis, "use a larger batch, or batch_norm_inference")
    x_hat, *_ = _standardize(x, axis, eps)
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
    _check_more_than_one("channel", x, axis, "use a larger batch, or batch_norm_inference")
    return _normalize(x, gamma, beta, axis, _kept(axis, x), eps)


def batch_norm_backward(g, cache: Cache) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    r"""The gradient of a loss with respect to the inputs of :func:`batch_norm`.

    With :math:`g=\partial L/\partial y`, :math:`\sigma=\sqrt{\mathrm{var}+\epsilon}` and a bar for the
    mean over ``axis``,

    .. math:: \frac{\partial L}{\partial x} = \frac{\gamma}{\sigma}
              \bigl(g - \overline{g} - \hat x\,\overline{g\hat x}\bigr), \qquad
              \frac{\partial L}{\partial\gamma} = \sum_i g_i\hat x_i, \qquad
              \frac{\partial L}{\partial\beta} = \sum_i g_i .

    Every example's gradient holds the mean and the variance of the whole batch: that is what the
    two subtracted terms are.

    The family has the same gradient. Where gamma varies along the averaged axes, as in layer norm,
    it is averaged with g:

    .. math:: \frac{\partial L}{\partial x} = h - \overline{h} - \hat x\,\overline{h\hat x},
              \qquad h = \frac{\gamma g}{\sigma} .

    RMS norm subtracts no mean, so its gradient has no :math:`\overline h`.

    Parameters
    ----------
    g : array_like, shape of ``y``
        Gradient of the loss with respect to ``y``.
    cache : Cache
        From :func:`batch_norm`, :func:`layer_norm`, :func:`instance_norm`, :func:`group_norm` or
        :func:`rms_norm`.

    Returns
    -------
    dx : ndarray, shape and dtype of ``x``
    dgamma, dbeta : ndarray, shape of ``gamma``
        ``dbeta`` is None for RMS norm, which has no beta.

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
    g = _floating(g, "g")
    if g.shape != cache.shape:
        raise ValueError(f"g must have the shape of y, {cache.shape}, got {g.shape}")
    x_hat, axis = cache.x_hat, cache.axis
    g = g.astype(x_hat.dtype, copy=False).reshape(x_hat.shape)
    h = cache.gamma * g / cache.sigma
    mean_h = 0 if cache.mean is None else _mean(h, axis)
    dx = h - mean_h - x_hat * _mean(h * x_hat, axis)

    # one gamma serves all values along the axes where it has length 1
    shared = tuple(a for a, n in enumerate(cache.gamma.shape) if n == 1)

    def of_parameter(terms: np.ndarray) -> np.ndarray:
        return terms.sum(shared).reshape(cache.params).astype(_at_least_float32(cache.dtype))

    dgamma = of_parameter(g * x_hat)
    dbeta = None if cache.mean is None else of_parameter(g)
    return dx.reshape(cache.shape).astype(cache.dtype, copy=False), dgamma, dbeta


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
    kept = _kept(axis, x)
    mean = _parameter("mean", mean, x, kept)
    var = _parameter("var", var, x, kept)
    gamma = _parameter("gamma", gamma, x, kept)
    beta = _parameter("beta", beta, x, kept)
    _check_eps(eps)
    y = gamma / np.sqrt(var + eps) * (x - mean) + beta
    return y.astype(x.dtype, copy=False)


def update_running(running, batch_value, momentum=0.1, *, m=None) -> np.ndarray:
    r"""One step of the moving average that inference uses.

    .. math:: \mathrm{running} \leftarrow (1-\alpha)\,\mathrm{running} + \alpha\,\mathrm{batch}

    ``momentum`` is :math:`\alpha`, the weight of the *new* value, as in PyTorch. Give ``m`` when
    averaging a variance: :func:`moments` returns the biased one, which normalises the batch, and
    what is stored is the unbiased estimate :math:`\frac{m}{m-1}\sigma^2` of the population's. The
    cache of :func:`batch_norm` holds all three: ``cache.mean``, ``cache.var``, ``cache.m``.

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
        A new array in the floating dtype of ``running``, which stays as it is.

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

    With what :func:`batch_norm` has at hand:

    >>> y, cache = batch_norm([[1.0], [2.0], [6.0]], gamma=[1.0], beta=[0.0])
    >>> update_running(np.array([1.0]), cache.var, m=cache.m).round(4).tolist()
    [1.6]
    """
    running, batch_value = np.asarray(running), np.asarray(batch_value)
    dtype = running.dtype if running.dtype.kind == "f" else np.dtype(float)
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
    return ((1 - momentum) * _wide(running) + momentum * batch_value).astype(dtype)


def merge_moments(a, b) -> tuple[int, np.ndarray, np.ndarray]:
    r"""Count, mean and variance of two sets of values together, from those of each.

    .. math:: \mu &= \mu_a + \frac{m_b}{m}\,\delta, \\
              \sigma^2 &= \frac{m_a\sigma_a^2 + m_b\sigma_b^2}{m} + \frac{m_a m_b}{m^2}\,\delta^2, \\
              m &= m_a + m_b, \quad \delta = \mu_b - \mu_a

    The variance of the whole is the mean of the variances plus the variance of the means. Merged
    batch by batch, in any order, this gives the statistics of all the data without holding it.

    Parameters
    ----------
    a, b : tuple (m, mean, var)
        How many values, and what :func:`moments` says of them: the variances are biased. A set
        without values, ``(0, 0.0, 0.0)``, is where a loop starts.

    Returns
    -------
    m : int
    mean, var : ndarray
        In float64 or wider. The variance is the biased one; times ``m / (m - 1)`` it is unbiased.

    Raises
    ------
    TypeError
        If a count is not an integer.
    ValueError
        If a count is negative, or shapes differ.

    References
    ----------
    T. Chan, G. Golub, R. LeVeque. *Updating Formulae and a Pairwise Algorithm for Computing Sample
    Variances*. Technical report STAN-CS-79-773, Stanford University, 1979.
    http://i.stanford.edu/TR/CS-TR-79-773.html

    Examples
    --------
    >>> total = (0, 0.0, 0.0)
    >>> for batch in np.array([1.0, 2.0]), np.array([3.0, 4.0, 5.0]):
    ...     total = merge_moments(total, (len(batch), *moments(batch)))
    >>> m, mean, var = total
    >>> m, mean.item(), var.item()
    (5, 3.0, 2.0)
    """
    (m_a, mean_a, var_a), (m_b, mean_b, var_b) = _counted("a", a), _counted("b", b)
    if m_a == 0 or m_b == 0:
        return (m_b, mean_b, var_b) if m_a == 0 else (m_a, mean_a, var_a)
    if mean_a.shape != mean_b.shape:
        raise ValueError(
            f"the means have shapes {mean_a.shape} and {mean_b.shape}: they must agree"
        )
    w_a, w_b = m_a / (m_a + m_b), m_b / (m_a + m_b)
    delta = mean_b - mean_a
    return m_a + m_b, mean_a + w_b * delta, w_a * var_a + w_b * var_b + w_a * w_b * delta**2


# The family: the same transform, other axes.


def layer_norm(x, gamma, beta, *, axis=-1, eps=1e-5) -> tuple[np.ndarray, Cache]:
    r"""Layer normalization: every example has its own mean and variance, over its features.

    :func:`batch_norm` with the axes exchanged: what batch norm keeps is averaged over, and what it
    averages over is kept. Gamma and beta stay with the features. No example depends on any other,
    so training and inference are the same.

    Parameters
    ----------
    x : array_like of float
    gamma, beta : array_like, shape of the averaged axes
        In the order that they have in ``x``.
    axis : int or tuple of int or None
        The axes to average over.
    eps : float
        Added to the variance.

    Returns
    -------
    y : ndarray, shape and dtype of ``x``
    cache : Cache
        For :func:`batch_norm_backward`.

    Raises
    ------
    TypeError
        If ``x`` is not floating point.
    ValueError
        If ``gamma`` or ``beta`` do not match, or only one value is averaged. (PyTorch returns beta
        then, whatever the value is.)

    References
    ----------
    J. L. Ba, J. R. Kiros, G. E. Hinton. *Layer Normalization*. 2016.
    https://arxiv.org/abs/1607.06450

    Examples
    --------
    >>> y, cache = layer_norm([[1.0, 2.0, 3.0], [10.0, 20.0, 60.0]], gamma=np.ones(3), beta=np.zeros(3))
    >>> y.round(3).tolist()
    [[-1.225, 0.0, 1.225], [-0.926, -0.463, 1.389]]
    """
    x = _floating(x)
    axis = _axes(axis, x)
    _check_more_than_one("example", x, axis, "average over more axes")
    return _normalize(x, gamma, beta, axis, axis, eps)


def instance_norm(x, gamma, beta, *, eps=1e-5) -> tuple[np.ndarray, Cache]:
    """Instance normalization: every channel of every example has its own mean and variance.

    Parameters
    ----------
    x : array_like of float, shape (N, C, ...)
        With at least one axis after the channels: those are averaged over.
    gamma, beta : array_like, shape (C,)
    eps : float
        Added to the variance.

    Returns
    -------
    y : ndarray, shape and dtype of ``x``
    cache : Cache
        For :func:`batch_norm_backward`.

    Raises
    ------
    TypeError
        If ``x`` is not floating point.
    ValueError
        If ``gamma`` or ``beta`` do not match, or there are fewer than two positions to average.

    References
    ----------
    D. Ulyanov, A. Vedaldi, V. Lempitsky. *Instance Normalization: The Missing Ingredient for Fast
    Stylization*. 2016. https://arxiv.org/abs/1607.08022

    Examples
    --------
    >>> y, cache = instance_norm([[[1.0, 3.0], [10.0, 30.0]]], gamma=[1.0, 2.0], beta=[0.0, 5.0], eps=0)
    >>> y.tolist()
    [[[-1.0, 1.0], [3.0, 7.0]]]
    """
    x = _channelled(x)
    axis = tuple(range(2, x.ndim))
    _check_more_than_one("channel of an example", x, axis, "it needs positions, as in (N, C, L)")
    return _normalize(x, gamma, beta, axis, (1,), eps)


def group_norm(x, gamma, beta, groups, *, eps=1e-5) -> tuple[np.ndarray, Cache]:
    """Group normalization: neighbouring channels of an example share a mean and a variance.

    One group is layer norm over all axes but the first, with a gamma and a beta per channel; as
    many groups as channels are instance norm.

    Parameters
    ----------
    x : array_like of float, shape (N, C, ...)
    gamma, beta : array_like, shape (C,)
    groups : int
        How many groups of C / groups channels.
    eps : float
        Added to the variance.

    Returns
    -------
    y : ndarray, shape and dtype of ``x``
    cache : Cache
        For :func:`batch_norm_backward`. Its ``mean`` and ``var`` have shape (N, groups).

    Raises
    ------
    TypeError
        If ``x`` is not floating point, or ``groups`` not an integer.
    ValueError
        If ``groups`` does not divide C, ``gamma`` or ``beta`` do not match, or a group has only one
        value. (PyTorch returns beta then, whatever the value is, unless it is the only one.)

    References
    ----------
    Y. Wu, K. He. *Group Normalization*. ECCV 2018. https://arxiv.org/abs/1803.08494

    Examples
    --------
    >>> x = np.array([[1.0, 3.0, 10.0, 30.0]])
    >>> y, cache = group_norm(x, gamma=np.ones(4), beta=np.zeros(4), groups=2, eps=0)
    >>> y.tolist()
    [[-1.0, 1.0, -1.0, 1.0]]
    """
    x = _channelled(x)
    n, channels, *positions = x.shape
    groups = operator.index(groups)
    if groups < 1 or channels % groups:
        raise ValueError(f"{groups} groups do not divide the {channels} channels of x {x.shape}")
    split = (groups, channels // groups)
    grouped = x.reshape(n, *split, *positions)
    axis = tuple(range(2, grouped.ndim))
    _check_more_than_one("group", grouped, axis, f"{channels} channels take fewer groups")
    gamma, beta = (
        _parameter(name, value, x, (1,)).reshape(split)
        for name, value in (("gamma", gamma), ("beta", beta))
    )
    y, cache = _normalize(grouped, gamma, beta, axis, (1, 2), eps)
    return y.reshape(x.shape), cache._replace(shape=x.shape, params=(channels,))


def rms_norm(x, gamma, *, axis=-1, eps=1e-5) -> tuple[np.ndarray, Cache]:
    r"""Layer normalization without the mean: divide by the root of the mean square.

    .. math:: y = \gamma\,\frac{x}{\sqrt{\overline{x^2}+\epsilon}}

    At ``eps=0``, scaling ``x`` changes nothing; shifting it does. The Jacobian of :math:`\hat x` is
    :math:`(I-\hat x\hat x^\top/m)/\sigma`, so the gradient loses one direction instead of two:
    that of :math:`\hat x`, wholly at ``eps=0``.

    Parameters
    ----------
    x : array_like of float
    gamma : array_like, shape of the averaged axes
        In the order that they have in ``x``.
    axis : int or tuple of int or None
        The axes to average over.
    eps : float
        Added to the mean square.

    Returns
    -------
    y : ndarray, shape and dtype of ``x``
    cache : Cache
        For :func:`batch_norm_backward`. Its ``mean`` is None, its ``var`` the mean square.

    Raises
    ------
    TypeError
        If ``x`` is not floating point.
    ValueError
        If ``gamma`` does not match.

    References
    ----------
    B. Zhang, R. Sennrich. *Root Mean Square Layer Normalization*. NeurIPS 2019.
    https://arxiv.org/abs/1910.07467

    Examples
    --------
    >>> y, cache = rms_norm([[3.0, 4.0]], gamma=[1.0, 1.0], eps=0)
    >>> y.round(4).tolist()                                  # divided by the root of 12.5
    [[0.8485, 1.1314]]
    """
    x = _floating(x)
    axis = _axes(axis, x)
    params = np.shape(gamma)
    gamma = _parameter("gamma", gamma, x, axis)
    _check_eps(eps)
    square = _mean(_wide(x) ** 2, axis)
    sigma = np.sqrt(square + eps)
    x_hat = x / sigma
    cache = Cache(x_hat, sigma, gamma, axis, None, square.squeeze(axis), x.shape, x.dtype, params)
    return (gamma * x_hat).astype(x.dtype, copy=False), cache


# What the functions above share.


def _normalize(x, gamma, beta, axis, own, eps) -> tuple[np.ndarray, Cache]:
    """The transform: statistics over ``axis``, one gamma and one beta per index of ``own``."""
    params = np.shape(gamma)
    gamma, beta = _parameter("gamma", gamma, x, own), _parameter("beta", beta, x, own)
    x_hat, sigma, mean, var = _standardize(x, axis, eps)
    y = gamma * x_hat + beta
    cache = Cache(x_hat, sigma, gamma, axis, mean, var, x.shape, x.dtype, params)
    return y.astype(x.dtype, copy=False), cache


def _standardize(x, axis, eps) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    _check_eps(eps)
    mean, var, centred = _moments(x, axis)
    sigma = np.sqrt(var + eps)
    return centred / sigma, sigma, mean.squeeze(axis), var.squeeze(axis)


def _moments(x, axis) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x = _wide(x)
    mean = _mean(x, axis)
    centred = x - mean
    return mean, _mean(centred**2, axis), centred


def _mean(x: np.ndarray, axis: tuple[int, ...]) -> np.ndarray:
    """The mean, with the averaged axes kept at length 1; of no values, 0."""
    return x.sum(axis, keepdims=True) / max(_count(x.shape, axis), 1)


def _wide(x: np.ndarray) -> np.ndarray:
    """The same values in the dtype to compute in: long sums in float32 lose digits."""
    return x.astype(np.promote_types(x.dtype, np.float64), copy=False)


def _at_least_float32(dtype: np.dtype) -> np.dtype:
    """For statistics and parameters: float16 has neither the range nor the digits."""
    return np.promote_types(dtype, np.float32)


def _count(shape: tuple[int, ...], axis: tuple[int, ...]) -> int:
    return math.prod(shape[a] for a in axis)


def _axes(axis, x: np.ndarray) -> tuple[int, ...]:
    axes = range(x.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    axes = [operator.index(a) for a in axes]
    if any(not -x.ndim <= a < x.ndim for a in axes) or len({a % x.ndim for a in axes}) < len(axes):
        raise ValueError(f"axis {axis} does not name distinct axes of x, which has shape {x.shape}")
    return tuple(sorted(a % x.ndim for a in axes))


def _kept(axis: tuple[int, ...], x: np.ndarray) -> tuple[int, ...]:
    return tuple(a for a in range(x.ndim) if a not in axis)


def _parameter(name: str, value, x: np.ndarray, own: tuple[int, ...]) -> np.ndarray:
    """One value per index of the axes ``own`` of x, made broadcastable against x."""
    value = np.asarray(value)
    if value.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers, got {value.dtype}")
    expected = tuple(x.shape[a] for a in own)
    if value.shape != expected:
        raise ValueError(
            f"{name} must have shape {expected}, one value for each index of axes {own} of x "
            f"{x.shape}, got {value.shape}"
        )
    # a copy: the caller's may change before the backward pass comes
    return np.expand_dims(_wide(value).copy(), _kept(own, x))


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


def _channelled(x) -> np.ndarray:
    x = _floating(x)
    if x.ndim < 2:
        raise ValueError(f"x must have shape (N, C, ...), got {x.shape}")
    return x


def _counted(name: str, moments) -> tuple[int, np.ndarray, np.ndarray]:
    m, mean, var = moments
    m, mean, var = operator.index(m), np.array(mean), np.array(var)
    if m < 0:
        raise ValueError(f"{name} counts {m} values: a count must not be negative")
    if mean.shape != var.shape:
        raise ValueError(f"{name} has a mean of shape {mean.shape} and a var of shape {var.shape}")
    return m, _wide(mean), _wide(var)


def _check_more_than_one(per: str, x: np.ndarray, axis: tuple[int, ...], remedy: str) -> None:
    if _count(x.shape, axis) == 1:
        raise ValueError(
            f"expected more than 1 value per {per}, got x of shape {x.shape} averaged over axis "
            f"{axis}: {remedy}"
        )


def _check_eps(eps: float) -> None:
    if not eps >= 0:
        raise ValueError(f"eps must not be negative, got {eps}")
