r"""The noise of batch statistics, predicted.

A batch of :math:`M` examples estimates the mean and the deviation of a feature, and an estimate
varies from batch to batch. Its variance, to leading order in :math:`1/M`, needs three numbers of the
feature: the variance :math:`\sigma^2`, the skewness :math:`s` and the excess kurtosis :math:`\rho`.
Dropout adds a noise of its own, and with it a variance that is there in training only.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["Shape", "deviation_variance", "dropout_shift", "mean_variance", "normalized_variance",
           "shape"]  # fmt: skip


class Shape(NamedTuple):
    """What the noise of a feature's batch statistics depends on; see :func:`shape`."""

    var: np.ndarray
    skewness: np.ndarray
    kurtosis: np.ndarray  # the excess: 0 for a normal distribution


def shape(x) -> Shape:
    r"""Variance, skewness and excess kurtosis of each column.

    .. math:: s = \overline{\hat x^3}, \qquad \rho = \overline{\hat x^4} - 3, \qquad
              \hat x = \frac{x - \mu}{\sigma}

    Parameters
    ----------
    x : array_like, shape (n, ...)
        All the values that batches are drawn from, examples first.

    Returns
    -------
    Shape
        Each of shape (...). A column without variance has skewness and kurtosis NaN.

    Examples
    --------
    >>> coin = shape([0.0, 1.0, 0.0, 1.0])
    >>> float(coin.var), float(coin.skewness), float(coin.kurtosis)
    (0.25, 0.0, -2.0)
    """
    x = np.asarray(x, np.float64)
    var = x.var(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        x_hat = (x - x.mean(axis=0)) / np.sqrt(var)
    return Shape(var, (x_hat**3).mean(axis=0), (x_hat**4).mean(axis=0) - 3)


def mean_variance(var, m, n=None):
    r"""Variance of the mean of a batch.

    .. math:: \operatorname{Var}[\mu_B] = \frac{\sigma^2}{M}\,\frac{n-M}{n-1}

    Exact, for any distribution.

    Parameters
    ----------
    var : float or ndarray
        Variance of the feature, over all `n` examples (divided by `n`).
    m : int or ndarray of int
        Examples in a batch.
    n : int, optional
        Batches are drawn without replacement from this many examples; by default from infinitely
        many, where the last factor is 1.

    Returns
    -------
    float or ndarray

    Raises
    ------
    ValueError
        If `m` is less than 1 or more than `n`.

    Examples
    --------
    >>> mean_variance(4.0, 16), mean_variance(4.0, 16, n=16)
    (0.25, 0.0)
    """
    factor = _left_over(m, n)
    return var / m * factor


def deviation_variance(var, kurtosis, m, n=None):
    r"""Variance of the standard deviation of a batch, to leading order.

    .. math:: \operatorname{Var}[\sigma_B] \approx \frac{\sigma^2(\rho+2)}{4M}\,\frac{n-M}{n-1}

    Parameters
    ----------
    var, kurtosis : float or ndarray
        Variance of the feature, and its excess kurtosis; see :func:`shape`.
    m, n : int
        As in :func:`mean_variance`.

    Returns
    -------
    float or ndarray

    Raises
    ------
    ValueError
        As :func:`mean_variance`.

    References
    ----------
    P. Luo, X. Wang, W. Shao, Z. Peng. *Towards Understanding Regularization in Batch
    Normalization*. ICLR 2019. https://arxiv.org/abs/1809.00846

    Examples
    --------
    >>> deviation_variance(4.0, 0.0, 16)  # normal
    0.125
    >>> deviation_variance(4.0, -2.0, 16)  # a fair coin: to this order none
    0.0
    """
    factor = _left_over(m, n)
    return var * (kurtosis + 2) / (4 * m) * factor


def normalized_variance(x_hat, skewness, kurtosis, m, n=None):
    r"""Variance of an example's normalised value over the batches it falls into, to leading order.

    .. math:: \operatorname{Var}\Big[\frac{x-\mu_B}{\sigma_B}\Big] \approx
              \frac1M\Big(1 + s\,\hat x + \frac{\rho+2}{4}\,\hat x^2\Big)\,\frac{n-M}{n-1}

    Parameters
    ----------
    x_hat : float or ndarray
        The example, normalised with the true mean and deviation.
    skewness, kurtosis : float or ndarray
        Of the feature; see :func:`shape`.
    m, n : int
        As in :func:`mean_variance`.

    Returns
    -------
    float or ndarray

    Raises
    ------
    ValueError
        As :func:`mean_variance`.

    Examples
    --------
    >>> normalized_variance(0.0, 0.0, 0.0, 64), normalized_variance(2.0, 0.0, 0.0, 64)
    (0.015625, 0.046875)
    """
    factor = _left_over(m, n)
    return (1 + skewness * x_hat + (kurtosis + 2) / 4 * x_hat**2) / m * factor


def dropout_shift(mean, cov, p, weight=None):
    r"""How much larger a variance is in training than at evaluation, behind dropout.

    Dropout multiplies with :math:`d/(1-p)`, where :math:`d` is 0 with probability :math:`p` and else 1.
    A feature with mean :math:`\mu` and variance :math:`\sigma^2` then has the variance
    :math:`\sigma^2 + \frac{p}{1-p}(\sigma^2+\mu^2)` in training, and :math:`\sigma^2` at evaluation.
    Behind a linear layer with weights :math:`w` the noises of its inputs add up:

    .. math:: r = 1 + \frac{p}{1-p}\,
              \frac{\sum_j w_j^2\,(\sigma_j^2+\mu_j^2)}{w^\top \Sigma\, w} .

    Parameters
    ----------
    mean : array_like, shape (k,)
        Means of the features that are dropped.
    cov : array_like, shape (k, k) or (k,)
        Their covariance; without `weight` the variances are enough.
    p : float
        Probability of dropping, below 1.
    weight : array_like, shape (outputs, k), optional
        Of the linear layer between dropout and batch norm.

    Returns
    -------
    ndarray, shape (k,) or (outputs,)
        Variance in training over variance at evaluation.

    Raises
    ------
    ValueError
        If `p` is not a probability below 1, or the shapes do not fit.

    References
    ----------
    X. Li, S. Chen, X. Hu, J. Yang. *Understanding the Disharmony between Dropout and Batch
    Normalization by Variance Shift*. CVPR 2019. https://arxiv.org/abs/1801.05134

    Examples
    --------
    >>> dropout_shift([0.0, 1.0], [1.0, 1.0], p=0.5).tolist()
    [2.0, 3.0]
    """
    if not 0 <= p < 1:
        raise ValueError(f"p must be a probability below 1, got {p}")
    mean, cov = np.asarray(mean, np.float64), np.asarray(cov, np.float64)
    k = mean.shape[-1] if mean.ndim else 0
    wanted = [(k, k)] if weight is not None else [(k, k), (k,)]
    if mean.ndim != 1 or cov.shape not in wanted:
        raise ValueError(
            f"mean must have shape (k,) and cov {' or '.join(map(str, wanted))}, got {mean.shape} "
            f"and {cov.shape}"
        )
    var = cov if cov.ndim == 1 else np.diag(cov)
    added = p / (1 - p) * (var + mean**2)
    if weight is None:
        return 1 + added / var
    weight = np.asarray(weight, np.float64)
    if weight.ndim != 2 or weight.shape[1] != k:
        raise ValueError(f"weight must have shape (outputs, {k}), got {weight.shape}")
    return 1 + weight**2 @ added / np.einsum("oj,jk,ok->o", weight, cov, weight)


def _left_over(m, n):
    """The factor for drawing without replacement: 0 when the batch is everything."""
    if np.any(np.asarray(m) < 1) or (n is not None and np.any(np.asarray(m) > n)):
        raise ValueError(f"a batch has between 1 and n = {n} examples, got m = {m}")
    return 1.0 if n is None else (n - m) / (n - 1)
