r"""The deep linear chain: one weight per layer, no activation.

.. math:: \hat y = x\,w_1 w_2 \cdots w_l, \qquad g_i = \frac{\partial\hat y}{\partial w_i}
          = x\prod_{j\ne i} w_j

It is the smallest network whose layers interact. A step :math:`w \leftarrow w - \eta g` moves every
weight at once, so the new output is a polynomial of degree :math:`l` in :math:`\eta`, while the
gradient promises its first-order term alone: :math:`\hat y - \eta\,g^\top g`.

Numerics
--------
Everything is float64. ``output``, ``gradient`` and ``step_exact`` multiply, so they are accurate to
a few units in the last place per weight. With ``g`` the gradient, ``step_orders`` adds only numbers
of one sign within an order (:math:`g_i/w_i = \hat y/w_i^2` has the sign of :math:`\hat y` whatever
the weights' signs), so each order is as accurate as a product. The orders themselves alternate in
sign: their sum can lose digits by cancellation, which ``step_exact`` does not. Magnitudes past
1.8e308 become ``inf``, with NumPy's warning; products below 1e-308 lose digits and end at 0.

References
----------
I. Goodfellow, Y. Bengio, A. Courville. *Deep Learning*. MIT Press, 2016, section 8.7.1.
"""

from __future__ import annotations

import numpy as np

from .functional import standardize

__all__ = [
    "bounds",
    "first_order",
    "gradient",
    "gradient_normalized",
    "hessian",
    "newton_step",
    "output",
    "output_normalized",
    "step_exact",
    "step_orders",
]


def output(x, w) -> float:
    """The output ``x * w[0] * ... * w[l-1]``.

    Parameters
    ----------
    x : float
        The input.
    w : array_like, shape (l,)
        One weight per layer, ``l >= 1``.

    Returns
    -------
    float

    Examples
    --------
    >>> output(2, [3, 4])
    24.0
    """
    return float(x * np.prod(_weights(w)))


def gradient(x, w) -> np.ndarray:
    """The gradient of the output with respect to each weight.

    Each entry is the product of everything *but* one weight: what lies below it times what lies
    above. Dividing the output by the weight would say the same, except where a weight is 0.

    Parameters
    ----------
    x, w
        As in :func:`output`.

    Returns
    -------
    ndarray, shape (l,)

    Examples
    --------
    >>> gradient(2, [3, 4])
    array([8., 6.])
    >>> gradient(2, [0, 4])
    array([8., 0.])
    """
    w = _weights(w)
    below = np.cumprod(np.concatenate([[x], w[:-1]]))
    above = np.cumprod(np.concatenate([[1.0], w[:0:-1]]))[::-1]
    return below * above


def step_orders(x, w, eta, g=None) -> np.ndarray:
    r"""The new output after one step, order by order in the learning rate.

    .. math:: x\prod_i (w_i - \eta g_i)
              = \sum_{k=0}^{l} x(-\eta)^k \sum_{|S|=k}\ \prod_{i\in S} g_i \prod_{i\notin S} w_i

    Order ``k`` sums over the ``C(l, k)`` ways to choose which ``k`` weights contribute their change:
    1 is what the gradient sees, 2 what pairs of layers do to each other, and so on. The sums are
    elementary symmetric polynomials, so multiplying the ``l`` factors out one at a time takes
    ``l**2`` operations instead of ``2**l``.

    Parameters
    ----------
    x, w
        As in :func:`output`.
    eta : float
        The learning rate.
    g : array_like, shape (l,), optional
        The direction of the step ``w - eta * g``. Default: :func:`gradient`.

    Returns
    -------
    ndarray, shape (l + 1,)
        The contribution of each order to the new output. Entry 0 is the old output, entry 1 is
        ``-eta * g @ g`` when ``g`` is the gradient; all of them add up to :func:`step_exact`.

    Examples
    --------
    >>> step_orders(1, [2, 3], 0.1)        # g = (3, 2):  6 - 0.1 (9 + 4) + 0.01 (3 * 2)
    array([ 6.  , -1.3 ,  0.06])
    """
    w, g = _step(x, w, g)
    orders = np.zeros(len(w) + 1)
    orders[0] = x
    for stay, move in zip(w, -eta * g, strict=True):
        # times (stay + move * t), where t counts the weights that contribute their change
        orders[1:] = stay * orders[1:] + move * orders[:-1]
        orders[0] *= stay
    return orders


def step_exact(x, w, eta, g=None) -> float:
    """The new output after the step ``w - eta * g``, as the product it is.

    Parameters
    ----------
    x, w, eta, g
        As in :func:`step_orders`.

    Returns
    -------
    float

    Examples
    --------
    >>> round(step_exact(1, [1.0] * 50, 0.002), 4)
    0.9047
    """
    w, g = _step(x, w, g)
    return output(x, w - eta * g)


def first_order(x, w, eta, g=None) -> float:
    """The new output that the gradient promises: ``output - eta * gradient @ g``.

    Parameters
    ----------
    x, w, eta, g
        As in :func:`step_orders`. With ``g`` left out, the promise is ``output - eta * g @ g``.

    Returns
    -------
    float

    Examples
    --------
    >>> round(first_order(1, [1.0] * 50, 0.002), 4)
    0.9
    """
    w, g = _step(x, w, g)
    return float(output(x, w) - eta * gradient(x, w) @ g)


def bounds(y, delta) -> tuple[float, float]:
    r"""Bounds on the new output of a chain after the normalised step ``eta = delta / (g @ g)``.

    To first order that step lowers the output ``y`` by exactly ``delta``. In truth the new output
    lies between :math:`y-\delta` and :math:`y\,e^{-\delta/y}`, for every depth, every input and
    weights of any sign, provided :math:`\delta/y \le 2`. No blow-up: what fails at a fixed ``eta``
    is the size of the step, not its direction.

    Parameters
    ----------
    y : float
        The output before the step.
    delta : float
        The decrease asked for (an increase, where negative), ``delta / y <= 2``.

    Returns
    -------
    lower, upper : float
        Equal when ``y`` is 0: the one weight that is 0 then moves alone.

    Raises
    ------
    ValueError
        If ``delta / y > 2``, where the proof ends.

    Notes
    -----
    Write :math:`w_i - \eta g_i = w_i(1 - a_i)` with :math:`a_i = \eta y/w_i^2`, so that the new
    output is :math:`y\prod_i(1-a_i)`. Since :math:`g^\top g = y^2\sum_i 1/w_i^2`, the :math:`a_i` have
    one sign and add up to :math:`s = \delta/y`. Then :math:`1-s \le \prod_i(1-a_i) \le e^{-s}`:
    above, because :math:`1-a \le e^{-a}`; below, by induction on the number of factors (Weierstrass).
    This needs :math:`a_i \le 1`, which :math:`s \le 1` gives. If :math:`1 < s \le 2`, at most one
    factor is negative, say the first; the others lie between :math:`1-(s-a_1)` and 1, so the
    product lies between :math:`1-s` and 0. For :math:`s < 0` every factor exceeds 1, and both
    inequalities hold for any :math:`s`.

    The upper bound first fails at :math:`s = 2u`, where :math:`u - 1 = e^{-u}` (about 2.557), for
    two equal weights; the lower first fails at :math:`s = 9`, for three.

    Examples
    --------
    >>> lower, upper = bounds(1.0, 0.1)
    >>> round(lower, 4), round(upper, 4)
    (0.9, 0.9048)
    """
    if y == 0:
        return -float(delta), -float(delta)
    if not delta / y <= 2:  # also refuses nan
        raise ValueError(
            f"no bound is known for delta / y = {delta / y:g} (y = {y:g}, delta = {delta:g}): "
            "choose a delta with delta / y <= 2"
        )
    lower, upper = sorted([float(y - delta), float(y * np.exp(-delta / y))])
    return lower, upper


def hessian(x, w) -> np.ndarray:
    r"""The second derivatives of the output: what each pair of weights does together.

    .. math:: H_{ij} = x\prod_{k\ne i,j} w_k \quad (i\ne j), \qquad H_{ii} = 0

    With no weight 0 it has one eigenvalue of the sign of the output and ``l - 1`` of the other: it
    is indefinite from ``l = 2`` on.

    Parameters
    ----------
    x, w
        As in :func:`output`.

    Returns
    -------
    ndarray, shape (l, l)

    Examples
    --------
    >>> hessian(1, [2, 3, 5])
    array([[0., 5., 3.],
           [5., 0., 2.],
           [3., 2., 0.]])
    """
    w = _weights(w)
    h = np.zeros((len(w), len(w)))
    if len(w) > 1:
        for i in range(len(w)):
            h[i, np.arange(len(w)) != i] = gradient(x, np.delete(w, i))
    return h


def newton_step(x, w) -> np.ndarray:
    r"""The weights after one full Newton step on the output: ``w - inv(hessian) @ gradient``.

    Parameters
    ----------
    x : float
        The input, not 0.
    w : array_like, shape (l,)
        At least two weights, none of them 0.

    Returns
    -------
    ndarray, shape (l,)

    Raises
    ------
    ValueError
        If the Hessian is singular: fewer than two weights, or a factor that is 0.

    Notes
    -----
    The step goes to the stationary point of the quadratic model, which is a saddle. Write
    :math:`D=\operatorname{diag}(1/w_i)`; then :math:`g=\hat y D\mathbf 1` and
    :math:`H=\hat y D(\mathbf 1\mathbf 1^\top-I)D`. Since
    :math:`(\mathbf 1\mathbf 1^\top-I)\mathbf 1=(l-1)\mathbf 1`, the step is
    :math:`H^{-1}g=w/(l-1)`: every weight loses the same share :math:`1/(l-1)`, whatever the weights.

    Examples
    --------
    >>> newton_step(1, [2.0, 4.0, 6.0])
    array([1., 2., 3.])
    """
    w = _weights(w)
    if len(w) < 2 or x == 0 or not w.all():
        raise ValueError(
            "the Hessian of the chain is singular: it takes l >= 2 weights and no factor that is 0, "
            f"got x = {x} and w = {w}"
        )
    return w - w / (len(w) - 1)


def output_normalized(x, w, eps=1e-5) -> np.ndarray:
    r"""The outputs of a batch, when ``h[l-1]`` is standardised before the last weight.

    .. math:: h = x\,w_1\cdots w_{l-1}, \qquad
              \hat y = w_l\,\frac{h-\bar h}{\sqrt{\operatorname{var}h+\epsilon}}

    With ``eps = 0`` it is :math:`\pm w_l\hat x`: of the lower weights only the sign of their product
    is left.

    Parameters
    ----------
    x : array_like, shape (m,)
        A batch of inputs, ``m >= 2``.
    w : array_like, shape (l,)
        One weight per layer.
    eps : float
        Added to the variance of ``h``.

    Returns
    -------
    ndarray, shape (m,)

    Examples
    --------
    >>> output_normalized([1.0, 3.0], [2.0, -50.0, 7.0], eps=0)
    array([ 7., -7.])
    """
    w = _weights(w)
    return w[-1] * standardize(_batch(x) * np.prod(w[:-1]), eps=eps)


def gradient_normalized(x, w, eps=1e-5) -> np.ndarray:
    r"""The gradient of each output of :func:`output_normalized` with respect to each weight.

    Write :math:`p=w_1\cdots w_{l-1}` and :math:`v` for the variance of ``x``. The last weight sees
    :math:`\hat h`. A lower one sees the chain's :math:`\hat y/w_i` times a factor that ``eps`` alone
    keeps from 0:

    .. math:: \frac{\partial\hat y}{\partial w_i}
              = \frac{\hat y}{w_i}\,\frac{\epsilon}{p^2v+\epsilon} \qquad (i<l)

    Parameters
    ----------
    x, w, eps
        As in :func:`output_normalized`.

    Returns
    -------
    ndarray, shape (l, m)

    Examples
    --------
    >>> gradient_normalized([1.0, 3.0], [2.0, 5.0], eps=12)
    array([[-0.9375,  0.9375],
           [-0.5   ,  0.5   ]])
    """
    w, x = _weights(w), _batch(x)
    p, centred = np.prod(w[:-1]), x - x.mean()
    var = p**2 * np.mean(centred**2) + eps
    lower = gradient(1.0, w[:-1]) if len(w) > 1 else np.zeros(0)
    return np.vstack([
        np.outer(w[-1] * lower * eps / var**1.5, centred),
        p * centred / np.sqrt(var),
    ])  # fmt: skip


def _batch(x) -> np.ndarray:
    x = np.asarray(x, dtype=float)
    if x.ndim != 1 or x.size < 2:
        raise ValueError(
            f"x must be a batch of at least two inputs, shape (m,), got shape {x.shape}"
        )
    return x


def _weights(w) -> np.ndarray:
    w = np.asarray(w, dtype=float)
    if w.ndim != 1 or w.size == 0:
        raise ValueError(f"w must hold one weight per layer, shape (l,) with l >= 1, got {w.shape}")
    return w


def _step(x, w, g) -> tuple[np.ndarray, np.ndarray]:
    w = _weights(w)
    g = gradient(x, w) if g is None else np.asarray(g, dtype=float)
    if g.shape != w.shape:
        raise ValueError(f"g must have one entry per weight, {w.shape}, got shape {g.shape}")
    return w, g
