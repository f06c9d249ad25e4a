r"""A small neural-network library in NumPy: layers that know their forward and backward pass.

Every layer has ``forward(x, training=True)``, ``backward(g)`` and two dictionaries of arrays,
``params`` and ``grads``, with the same names. ``backward`` takes :math:`g=\partial L/\partial y`,
the gradient of the loss with respect to the layer's last output, returns
:math:`\partial L/\partial x`, and puts the gradients of the parameters into ``grads``, in place of
those that were there. Examples stand in rows. Names, shapes and conventions are those of
``torch.nn``. A NaN is passed on, not refused: it is how a training run says that it diverged.

Examples
--------
Ten steps on made-up data:

>>> rng = np.random.default_rng(0)
>>> x, labels = rng.normal(size=(50, 4)), rng.integers(0, 3, 50)
>>> net = Sequential(Linear(4, 8, rng=rng), BatchNorm(8), ReLU(), Linear(8, 3, rng=rng))
>>> optimizer = SGD(net, lr=0.1, momentum=0.9)
>>> losses = []
>>> for _ in range(10):
...     loss, g = softmax_cross_entropy(net.forward(x), labels)
...     _ = net.backward(g)
...     optimizer.step()
...     losses.append(loss)
>>> losses[-1] < losses[0]
True
"""

from __future__ import annotations

import math

import numpy as np

from .functional import batch_norm, batch_norm_backward, batch_norm_inference, update_running

__all__ = [
    "SGD",
    "BatchNorm",
    "Linear",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "softmax_cross_entropy",
]


class _Layer:
    """What the layers share: parameters, gradients, and what forward keeps for backward."""

    def __init__(self) -> None:
        self.params: dict[str, np.ndarray] = {}
        self.grads: dict[str, np.ndarray] = {}
        self._kept: tuple | None = None

    def _keep(self, training: bool, y: np.ndarray, kept) -> np.ndarray:
        self._kept = (y.shape, kept) if training else None
        return y

    def _recall(self, g) -> tuple:
        name = type(self).__name__
        if self._kept is None:
            raise RuntimeError(
                f"{name}.backward needs forward(x, training=True) before it: nothing was kept"
            )
        g, (shape, kept) = np.asarray(g), self._kept
        if g.shape != shape:
            raise ValueError(f"{name}.backward: g must have the shape of y, {shape}, got {g.shape}")
        return g, kept


class Linear(_Layer):
    r"""The affine map :math:`y = x W^\top + b`.

    Parameters
    ----------
    n_in, n_out : int
        Features that come in and go out.
    scale : float, optional
        Standard deviation of the initial weights, drawn from a normal distribution with mean 0.
        By default :math:`\sqrt{2/n_\mathrm{in}}`, which keeps the size of a signal through a
        ReLU network. The bias starts at 0.
    rng : numpy.random.Generator
        Where the weights come from. Layers that share one start differently.

    Attributes
    ----------
    params : dict
        ``"weight"`` of shape (n_out, n_in) and ``"bias"`` of shape (n_out,).

    References
    ----------
    K. He et al. *Delving Deep into Rectifiers*. ICCV 2015. https://arxiv.org/abs/1502.01852

    Examples
    --------
    >>> layer = Linear(2, 1, rng=np.random.default_rng(0))
    >>> layer.params["weight"][:] = [[3.0, 4.0]]
    >>> layer.forward(np.array([[1.0, 10.0]])).tolist()
    [[43.0]]
    >>> layer.backward(np.array([[1.0]])).tolist(), layer.grads["weight"].tolist()
    ([[3.0, 4.0]], [[1.0, 10.0]])
    """

    def __init__(self, n_in: int, n_out: int, *, scale: float | None = None, rng) -> None:
        super().__init__()
        if not isinstance(rng, np.random.Generator):
            raise TypeError(
                f"rng must be a numpy.random.Generator, as np.random.default_rng(0) gives, got {rng!r}"
            )
        scale = math.sqrt(2 / n_in) if scale is None else scale
        if not 0 <= scale < math.inf:
            raise ValueError(f"scale is a standard deviation, 0 or more and finite, got {scale}")
        self.params = {
            "weight": scale * rng.standard_normal((n_out, n_in)),
            "bias": np.zeros(n_out),
        }

    def forward(self, x, training: bool = True) -> np.ndarray:
        """Map x of shape (N, n_in) to y of shape (N, n_out)."""
        weight, bias = self.params["weight"], self.params["bias"]
        x = _table(x, weight.shape[1], "Linear")
        return self._keep(training, x @ weight.T + bias, x)

    def backward(self, g) -> np.ndarray:
        """Return dL/dx from g = dL/dy; put dL/dweight and dL/dbias into ``grads``."""
        g, x = self._recall(g)
        self.grads = {"weight": g.T @ x, "bias": g.sum(axis=0)}
        return g @ self.params["weight"]


class ReLU(_Layer):
    r""":math:`y = \max(x, 0)`, elementwise, with derivative 0 at 0.

    Examples
    --------
    >>> relu = ReLU()
    >>> relu.forward(np.array([-2.0, 0.0, 3.0])).tolist()
    [0.0, 0.0, 3.0]
    >>> relu.backward(np.ones(3)).tolist()
    [0.0, 0.0, 1.0]
    """

    def forward(self, x, training: bool = True) -> np.ndarray:
        """Map x of any shape."""
        x = np.asarray(x)
        return self._keep(training, np.maximum(x, 0), x > 0)

    def backward(self, g) -> np.ndarray:
        """Return dL/dx from g = dL/dy."""
        g, positive = self._recall(g)
        return np.where(positive, g, 0)


class Sigmoid(_Layer):
    r""":math:`y = 1/(1+e^{-x})`, elementwise.

    Examples
    --------
    >>> sigmoid = Sigmoid()
    >>> sigmoid.forward(np.array([-1000.0, 0.0, 1000.0])).tolist()
    [0.0, 0.5, 1.0]
    >>> sigmoid.backward(np.ones(3)).tolist()
    [0.0, 0.25, 0.0]
    """

    def forward(self, x, training: bool = True) -> np.ndarray:
        """Map x of any shape."""
        y = np.exp(-np.logaddexp(0, -np.asarray(x)))  # e⁻ˣ alone would overflow
        return self._keep(training, y, y)

    def backward(self, g) -> np.ndarray:
        """Return dL/dx from g = dL/dy."""
        g, y = self._recall(g)
        return g * y * (1 - y)


class BatchNorm(_Layer):
    r"""Batch normalization of a table of shape (N, C).

    Training standardises each feature with the mean and the biased variance of the batch and
    moves the running statistics, the variance by its unbiased estimate (divided by N − 1).
    Inference uses the running statistics and changes nothing.

    Parameters
    ----------
    num_features : int
        Features C.
    eps : float
        Added to the variance.
    momentum : float
        Weight of the new batch in the running statistics, as in PyTorch.

    Attributes
    ----------
    params : dict
        ``"weight"`` (gamma, from 1) and ``"bias"`` (beta, from 0), of shape (C,).
    running_mean, running_var : ndarray of shape (C,)
        From 0 and 1.

    See Also
    --------
    bn.functional : The transform and its gradient.
    bn.nn : The same layer in PyTorch.

    Examples
    --------
    >>> layer = BatchNorm(1)
    >>> layer.forward(np.array([[1.0], [2.0], [6.0]])).round(3).tolist()
    [[-0.926], [-0.463], [1.389]]
    >>> layer.running_mean.round(3).tolist(), layer.running_var.round(3).tolist()
    ([0.3], [1.6])
    >>> layer.forward(np.array([[2.0]]), training=False).round(3).tolist()
    [[1.344]]
    """

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.params = {"weight": np.ones(num_features), "bias": np.zeros(num_features)}
        self.running_mean, self.running_var = np.zeros(num_features), np.ones(num_features)

    def forward(self, x, training: bool = True) -> np.ndarray:
        """Map x of shape (N, C); training needs two rows or more."""
        weight, bias = self.params["weight"], self.params["bias"]
        x = _table(x, len(weight), "BatchNorm")
        if not training:
            statistics = self.running_mean, self.running_var
            y = batch_norm_inference(x, weight, bias, *statistics, eps=self.eps)
            return self._keep(training, y, None)
        y, cache = batch_norm(x, weight, bias, eps=self.eps)
        mean = update_running(self.running_mean, cache.mean, self.momentum)
        var = update_running(self.running_var, cache.var, self.momentum, m=len(x))
        self.running_mean, self.running_var = mean, var  # both, or an error and neither
        return self._keep(training, y, cache)

    def backward(self, g) -> np.ndarray:
        """Return dL/dx from g = dL/dy; put dL/dweight and dL/dbias into ``grads``."""
        g, cache = self._recall(g)
        dx, dweight, dbias = batch_norm_backward(g, cache)
        self.grads = {"weight": dweight, "bias": dbias}
        return dx


class Sequential:
    """Layers one after the other; itself a layer.

    Parameters
    ----------
    *layers : layer
        Distinct objects: each remembers one forward pass.

    Attributes
    ----------
    layers : tuple
    params, grads : dict
        Those of all layers, named as in PyTorch: ``"0.weight"`` is the weight of the first layer.

    Examples
    --------
    >>> net = Sequential(Linear(64, 10, rng=np.random.default_rng(0)), ReLU(), BatchNorm(10))
    >>> {name: value.shape for name, value in net.params.items()}
    {'0.weight': (10, 64), '0.bias': (10,), '2.weight': (10,), '2.bias': (10,)}
    """

    def __init__(self, *layers) -> None:
        if len({id(layer) for layer in layers}) < len(layers):
            raise ValueError(
                "a layer stands twice in this Sequential, but each remembers one forward pass "
                "only: make a new one for every place"
            )
        self.layers = layers

    @property
    def params(self) -> dict[str, np.ndarray]:  # noqa: D102, see Attributes
        return {f"{i}.{k}": v for i, la in enumerate(self.layers) for k, v in la.params.items()}

    @property
    def grads(self) -> dict[str, np.ndarray]:  # noqa: D102
        return {f"{i}.{k}": v for i, la in enumerate(self.layers) for k, v in la.grads.items()}

    def forward(self, x, training: bool = True) -> np.ndarray:
        """Send x through all layers."""
        for layer in self.layers:
            x = layer.forward(x, training)
        return x

    def backward(self, g) -> np.ndarray:
        """Send g = dL/dy back through all layers; return dL/dx."""
        for layer in reversed(self.layers):
            g = layer.backward(g)
        return g


def softmax_cross_entropy(logits, labels) -> tuple[float, np.ndarray]:
    r"""Mean cross-entropy of the softmax of logits, and its gradient.

    With :math:`p_i = \mathrm{softmax}(z_i)` and :math:`t_i` the label of example :math:`i`,

    .. math:: L = -\frac1N\sum_i \log p_{i t_i}, \qquad
              \frac{\partial L}{\partial z_i} = \frac{p_i - e_{t_i}}{N} .

    Parameters
    ----------
    logits : array_like of float, shape (N, classes)
    labels : array_like of int, shape (N,)
        Classes, from 0.

    Returns
    -------
    loss : float
        In nats.
    g : ndarray, shape of ``logits``
        Gradient of the loss with respect to the logits.

    Raises
    ------
    ValueError
        If ``logits`` is not a table with at least one row, or a label is missing or names no class.
    TypeError
        If the labels are not integers.

    Examples
    --------
    >>> loss, g = softmax_cross_entropy([[0.0, 0.0]], [1])
    >>> round(loss, 4), g.tolist()  # log 2: it guesses
    (0.6931, [[0.5, -0.5]])
    """
    z, labels = np.asarray(logits), np.asarray(labels)
    if z.ndim != 2 or z.size == 0:
        raise ValueError(f"logits must have shape (N, classes), with N ≥ 1, got {z.shape}")
    n, classes = z.shape
    if not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(f"labels must be integers, got {labels.dtype} of shape {labels.shape}")
    if labels.shape != (n,):
        raise ValueError(
            f"labels must have shape ({n},), one for each row of the logits {z.shape}, got "
            f"{labels.shape}"
        )
    outside = labels[(labels < 0) | (labels >= classes)]
    if outside.size:
        raise ValueError(f"labels must lie between 0 and {classes - 1}, got {outside[0]}")
    rows = np.arange(n)
    z = z - z.max(axis=1, keepdims=True)  # the same softmax, and no exponential overflows
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    g = np.exp(log_p)
    g[rows, labels] -= 1
    return -float(log_p[rows, labels].mean()), g / n


class SGD:
    r"""Gradient descent with momentum, as ``torch.optim.SGD`` does it.

    .. math:: v \leftarrow \varphi v + \nabla L, \qquad \theta \leftarrow \theta - \eta v

    Parameters
    ----------
    model : layer
        Whose parameters to move, in place: a :class:`Sequential`, or a single layer.
    lr : float
        The learning rate :math:`\eta`.
    momentum : float
        :math:`\varphi`, at least 0 and below 1.

    Examples
    --------
    >>> layer = BatchNorm(1)
    >>> optimizer = SGD(layer, lr=0.1, momentum=0.5)
    >>> for _ in range(2):
    ...     layer.grads = {"weight": np.array([1.0]), "bias": np.array([0.0])}
    ...     optimizer.step()
    ...     print(layer.params["weight"].round(4))
    [0.9]
    [0.75]
    """

    def __init__(self, model, lr: float, momentum: float = 0.0) -> None:
        if not 0 <= lr < math.inf:
            raise ValueError(f"lr must be 0 or more and finite, got {lr}")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be at least 0 and below 1, got {momentum}")
        self.model, self.lr, self.momentum = model, lr, momentum
        self.velocity = {name: np.zeros_like(p) for name, p in model.params.items()}

    def step(self) -> None:
        """Move every parameter once, along the gradients of the last ``backward``."""
        grads = self.model.grads
        if missing := self.velocity.keys() - grads.keys():
            raise RuntimeError(f"no gradient yet for {sorted(missing)}: call backward before step")
        for name, p in self.model.params.items():
            self.velocity[name] = self.momentum * self.velocity[name] + grads[name]
            p -= self.lr * self.velocity[name]


def _table(x, columns: int, layer: str) -> np.ndarray:
    x = np.asarray(x)
    if x.ndim != 2 or x.shape[1] != columns:
        raise ValueError(f"{layer} expects x of shape (N, {columns}), got {x.shape}")
    return x
