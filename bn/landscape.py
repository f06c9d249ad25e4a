"""The loss around a network: along its gradient, on a slice, and through one batch-norm layer.

Every measurement is made in training mode, on one batch, and leaves the network as it was:
weights, running statistics and modes. The network must give the same output twice, so dropout
has to be switched off.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections import OrderedDict

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bn import models

__all__ = [
    "deep_linear",
    "directions",
    "insert",
    "layers",
    "network",
    "probe",
    "summary",
    "surface",
    "untouched",
]

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@contextlib.contextmanager
def untouched(model: nn.Module):
    """Put a network into training mode for a while; then give back all that it was.

    Parameters
    ----------
    model : torch.nn.Module
        Its parameters, buffers (running statistics) and modes are restored at the end, also after
        an error.

    Examples
    --------
    >>> import torch, bn
    >>> norm = torch.nn.BatchNorm1d(2).eval()
    >>> with bn.landscape.untouched(norm):
    ...     _ = norm(torch.randn(9, 2))
    ...     bool(norm.training), norm.running_mean.abs().sum().item() > 0
    (True, True)
    >>> norm.training, norm.running_mean
    (False, tensor([0., 0.]))
    """
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [(module, module.training) for module in model.modules()]
    model.train()
    try:
        yield
    finally:
        model.load_state_dict(state)
        for module, mode in modes:
            module.training = mode


def probe(model: nn.Module, images, labels, lr: float, factors, loss=F.cross_entropy) -> dict:
    """Walk along the gradient, and see how the loss and the gradient change.

    From the weights θ with gradient g the walk goes to θ − f·lr·g for each factor f: a step of
    gradient descent, shorter or longer.

    Parameters
    ----------
    model : torch.nn.Module
        Left as it was; see :func:`untouched`.
    images, labels : array or Tensor
        The batch.
    lr : float
        Learning rate, more than 0.
    factors : sequence of float
        How many learning rates each point lies away, each more than 0.
    loss : callable
        ``loss(output, labels)``.

    Returns
    -------
    dict
        ``loss`` L and ``gradient`` ‖g‖ at θ; ``weights``, the norm of all parameters with two
        or more axes; ``losses``, L at each point; ``changes``, ‖g′ − g‖ at each point, with g′ the
        gradient there; ``beta``, the largest of ‖g′ − g‖ / ‖f·lr·g‖: the *effective β-smoothness*.

    References
    ----------
    Santurkar et al. (2018), section 3.2.

    Examples
    --------
    A parabola with curvature 3 has β = 3 everywhere:

    >>> import torch, bn
    >>> line = torch.nn.Linear(1, 1, bias=False)
    >>> half_square = lambda output, labels: 1.5 * output.square().mean()
    >>> walk = bn.landscape.probe(line, torch.ones(1, 1), None, 0.1, [0.5, 4], half_square)
    >>> round(walk["beta"], 4)
    3.0
    """
    if not lr > 0 or not all(factor > 0 for factor in factors):
        raise ValueError(f"lr and factors must be more than 0, not {lr} and {list(factors)}")
    images, labels = _tensor(images), _tensor(labels)
    with untouched(model):
        weights = list(model.parameters())
        at, start = _gradient(model, images, labels, loss)
        home = [p.detach().clone() for p in weights]
        length = _norm(start)
        losses, changes = [], []
        for factor in factors:
            with torch.no_grad():
                for p, p0, g in zip(weights, home, start, strict=True):
                    p.copy_(p0 - factor * lr * g)
            there, gradient = _gradient(model, images, labels, loss)
            losses.append(there)
            changes.append(_norm([b - a for a, b in zip(start, gradient, strict=True)]))
    slopes = [
        change / (factor * lr * length) if length else math.nan
        for change, factor in zip(changes, factors, strict=True)
    ]
    return {
        "loss": at,
        "gradient": length,
        "weights": _norm([p for p in home if p.dim() > 1]),
        "losses": losses,
        "changes": changes,
        "beta": float(np.max(slopes)),
    }


def summary(walks) -> dict[str, list[float]]:
    """Keep of several walks what a figure needs, to six significant digits.

    Parameters
    ----------
    walks : iterable of dict
        From :func:`probe`, one for each stop.

    Returns
    -------
    dict of list
        ``loss``, ``gradient``, ``weights`` and ``beta`` as they are; ``low`` and ``high``, the
        smallest and largest loss of the walk; ``change``, the largest change of the gradient.

    Examples
    --------
    >>> walk = {"loss": 1.0, "gradient": 2.0, "weights": 3.0, "beta": 4.0,
    ...         "losses": [0.9, 0.8, 1.2], "changes": [0.1, 0.4, 0.3]}
    >>> summary([walk])["high"], summary([walk])["change"]
    ([1.2], [0.4])
    """
    rows = [
        {
            **{key: walk[key] for key in ("loss", "gradient", "weights", "beta")},
            "low": min(walk["losses"]),
            "high": max(walk["losses"]),
            "change": max(walk["changes"]),
        }
        for walk in walks
    ]
    return {key: [float(f"{row[key]:.6g}") for row in rows] for key in rows[0]}


def layers(model: nn.Module, images, labels, loss=F.cross_entropy) -> dict[str, dict]:
    """Measure what each batch-norm layer does to the gradient that passes through it.

    With g the gradient with respect to one unit's outputs over the batch, the gradient with
    respect to its inputs is (γ/σ) P g, where P removes the mean of g and what goes along with x̂.

    Parameters
    ----------
    model : torch.nn.Module
        Left as it was; see :func:`untouched`.
    images, labels : array or Tensor
        The batch.
    loss : callable
        ``loss(output, labels)``.

    Returns
    -------
    dict
        For each batch-norm layer under its name, over its units: ``scale``, the median of ``|γ|/σ``;
        ``kept``, the median of ‖P g‖/‖g‖; ``ratio``, ‖∂L/∂x‖/‖∂L/∂y‖ of the whole layer;
        ``shrinking``, the share of units with γ·∂L/∂γ > 0, whose γ a step of gradient descent
        would make smaller in size. Empty if there is no such layer.

    Examples
    --------
    >>> import torch, bn
    >>> _ = torch.manual_seed(0)
    >>> model, data = bn.models.mlp(in_features=64), bn.data.digits()
    >>> found = bn.landscape.layers(model, data.x_train[:64], data.y_train[:64])
    >>> list(found), found["norm3"]["scale"] > 1 > found["norm3"]["kept"]
    (['norm1', 'norm2', 'norm3'], True)
    """
    images, labels = _tensor(images), _tensor(labels)
    seen = {}

    def keep(name):
        def hook(module, inputs, output):
            seen[name] = (module, inputs[0], output)

        return hook

    norms = [(name, m) for name, m in model.named_modules() if isinstance(m, NORMS)]
    if not norms:
        return {}
    handles = [module.register_forward_hook(keep(name)) for name, module in norms]
    try:
        with untouched(model):
            value = loss(model(images), labels)
            ends = [tensor for _, x, y in seen.values() for tensor in (x, y)]
            gradients = iter(torch.autograd.grad(value, ends))
    finally:
        for handle in handles:
            handle.remove()
    found = {}
    for name, (module, x, y) in seen.items():
        into, out = (_by_unit(next(gradients)) for _ in range(2))
        x, y = _by_unit(x.detach()), _by_unit(y.detach())
        gamma = module.weight.detach().double()
        scale = gamma.abs() / torch.sqrt(x.var(1, correction=0) + module.eps)
        share = into.norm(dim=1) / (scale * out.norm(dim=1))
        along = (out * (y - module.bias.detach().double()[:, None])).sum(1)  # γ ∂L/∂γ
        found[name] = {
            "scale": scale.median().item(),
            "kept": share.median().item(),
            "ratio": (into.norm() / out.norm()).item(),
            "shrinking": (along > 0).double().mean().item(),
        }
    return found


def insert(model: nn.Sequential, images) -> nn.Sequential:
    """Put batch norm behind each hidden linear layer so that nothing changes on this batch.

    Each new layer has γ = σ and β = μ of what arrives, and so returns it. The network is the same
    function of the batch, and another function of its weights.

    Parameters
    ----------
    model : torch.nn.Sequential
        A network without batch norm, such as ``bn.models.mlp(False)``; a copy of it is built.
    images : array or Tensor
        The batch.

    Returns
    -------
    torch.nn.Sequential
        In training mode.

    Examples
    --------
    >>> import torch, bn
    >>> _ = torch.manual_seed(0)
    >>> plain, x = bn.models.mlp(False, in_features=64), torch.randn(32, 1, 8, 8)
    >>> torch.allclose(bn.landscape.insert(plain, x)(x), plain(x), atol=1e-6)
    True
    """
    children = OrderedDict()
    x = _tensor(images)
    *hidden, _ = [name for name, layer in model.named_children() if isinstance(layer, nn.Linear)]
    for name, layer in model.named_children():
        layer = copy.deepcopy(layer)
        children[name] = layer
        with torch.no_grad():
            x = layer(x)
            if name in hidden:
                norm = nn.BatchNorm1d(x.shape[1], dtype=x.dtype)
                norm.weight.copy_(torch.sqrt(x.var(0, correction=0) + norm.eps))
                norm.bias.copy_(x.mean(0))
                children[f"norm_{name}"] = norm
    return nn.Sequential(children).train()


def directions(model: nn.Module, seed: int = 0) -> tuple[dict, dict]:
    """Draw two random directions, filter by filter as long as the weights.

    Each row of a weight matrix, and each filter of a convolution, gets a Gaussian direction of its
    own length. Parameters with a single axis (biases, γ, β) stay where they are.

    Parameters
    ----------
    model : torch.nn.Module
        The network.
    seed : int
        Two networks with the same weights' names and shapes get the same Gaussian draws.

    Returns
    -------
    pair of dict
        For each such parameter a tensor of its shape, under its name.

    References
    ----------
    Li et al. (2018), section 4.

    Examples
    --------
    >>> import bn
    >>> model = bn.models.mlp(in_features=64)
    >>> a, b = bn.landscape.directions(model)
    >>> lengths = [d["linear2.weight"].norm(dim=1) for d in (a, b)]
    >>> bool(torch.allclose(lengths[0], model.linear2.weight.norm(dim=1)))
    True
    """
    generator = torch.Generator().manual_seed(seed)
    pair = ({}, {})
    for name, p in model.named_parameters():
        if p.dim() > 1:
            for direction in pair:
                draw = torch.randn(p.shape, generator=generator).flatten(1)
                draw *= p.detach().flatten(1).norm(dim=1, keepdim=True) / draw.norm(
                    dim=1, keepdim=True
                )
                direction[name] = draw.view_as(p).to(p.dtype)
    return pair


def surface(model: nn.Module, images, labels, pair, ticks, loss=F.cross_entropy) -> np.ndarray:
    """Measure the loss on a slice through the weights.

    Parameters
    ----------
    model : torch.nn.Module
        Left as it was; see :func:`untouched`. Batch norm takes the statistics of `images` anew at
        each point, as in training.
    images, labels : array or Tensor
        The batch.
    pair : pair of dict
        From :func:`directions`.
    ticks : sequence of float
        Coordinates along either direction; 0 is where the network stands.
    loss : callable
        ``loss(output, labels)``.

    Returns
    -------
    ndarray of float64, shape (ticks, ticks)
        ``[i, j]`` is the loss at θ + ``ticks[i]``·a + ``ticks[j]``·b.

    Examples
    --------
    >>> import bn
    >>> model, data = bn.models.mlp(in_features=64), bn.data.digits()
    >>> pair = bn.landscape.directions(model)
    >>> bn.landscape.surface(model, data.x_train, data.y_train, pair, [-1, 0, 1]).shape
    (3, 3)
    """
    images, labels = _tensor(images), _tensor(labels)
    values = np.empty((len(ticks), len(ticks)))
    with untouched(model), torch.no_grad():
        moved = [
            (p, p.clone(), pair[0][name], pair[1][name])
            for name, p in model.named_parameters()
            if name in pair[0]
        ]
        for i, s in enumerate(ticks):
            for j, t in enumerate(ticks):
                for p, p0, a, b in moved:
                    p.copy_(p0 + s * a + t * b)
                values[i, j] = loss(model(images), labels).item()
    return values


def network(name: str, batch_norm: bool) -> nn.Sequential:
    """Build one of the two networks whose landscape the book measures.

    Parameters
    ----------
    name : str
        ``"sigmoid"``: :func:`bn.models.mlp` as it is. ``"relu"``: six hidden layers of 100 ReLUs,
        with Glorot's uniform weights and biases of zero.
    batch_norm : bool
        Put batch norm before each nonlinearity.

    Returns
    -------
    torch.nn.Sequential
        Maps MNIST's images to logits.

    Examples
    --------
    >>> import bn
    >>> list(bn.landscape.network("relu", True)._modules)[:4]
    ['flatten', 'linear1', 'norm1', 'relu1']
    """
    if name == "sigmoid":
        return models.mlp(batch_norm)
    model = models.mlp(batch_norm, depth=6, activation=name)
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return model


def deep_linear(batch_norm: bool, *, depth: int = 25, width: int = 10) -> nn.Sequential:
    """Build a deep linear network: square matrices without bias, batch norm between them.

    Parameters
    ----------
    batch_norm : bool
        Put :class:`torch.nn.BatchNorm1d` behind each matrix but the last.
    depth, width : int
        How many matrices, and their side.

    Returns
    -------
    torch.nn.Sequential
        Children ``linear1``, (``norm1``,) ``linear2``, …, in float64; Glorot's uniform weights.

    References
    ----------
    Santurkar et al. (2018) use 25 layers of 10×10.

    Examples
    --------
    >>> import bn
    >>> len(bn.landscape.deep_linear(True)), len(bn.landscape.deep_linear(False))
    (49, 25)
    """
    children = OrderedDict()
    for i in range(1, depth + 1):
        matrix = nn.Linear(width, width, bias=False, dtype=torch.float64)
        nn.init.xavier_uniform_(matrix.weight)
        children[f"linear{i}"] = matrix
        if batch_norm and i < depth:
            children[f"norm{i}"] = nn.BatchNorm1d(width, dtype=torch.float64)
    return nn.Sequential(children)


def _gradient(model, images, labels, loss):
    value = loss(model(images), labels)
    return value.item(), torch.autograd.grad(value, list(model.parameters()))


def _norm(tensors) -> float:
    return math.sqrt(sum(t.detach().double().square().sum().item() for t in tensors))


def _by_unit(x: Tensor) -> Tensor:
    """A layer's values with units first, and all examples and places of a unit in a row."""
    return x.double().transpose(0, 1).flatten(1)


def _tensor(values):
    return None if values is None else torch.as_tensor(values)
