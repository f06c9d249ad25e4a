r"""“Noisy” batch norm: distributions shifted on purpose, and how far distributions move.

Santurkar et al. (2018) put noise behind every batch norm layer: at every training step each unit
gets a random shift and scale, so that what the next layer receives is distributed differently from
step to step. If a network trained fast *because* its distributions stay where they are, this would
have to slow it down.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bn import models
from bn.train import batches

__all__ = ["Noise", "Step", "distance", "network", "recalibrate", "steps"]

SHIFT, SCALE, JITTER = 0.5, 0.25, 0.1  # n_μ, n_σ − 1 and r_μ = r_σ of the source


class Noise(nn.Module):
    r"""Scale and shift each unit by noise whose distribution changes at every training step.

    At every step each unit :math:`j` draws :math:`\mu_j \sim U(-\tfrac12 k, \tfrac12 k)` and
    :math:`\sigma_j \sim U(1, 1 + \tfrac14 k)`. Then each example :math:`i` of the batch draws
    :math:`m_{ij} \sim U(\mu_j - \tfrac1{10}k, \mu_j + \tfrac1{10}k)` and a normal :math:`s_{ij}`
    with mean :math:`\sigma_j` and standard deviation :math:`\tfrac1{10}k`, and
    :math:`a_{ij}` becomes :math:`s_{ij} a_{ij} + m_{ij}`. In evaluation mode nothing happens.

    Parameters
    ----------
    units : int
        Units, or channels of images, whose positions count as examples.
    strength : float
        The factor :math:`k`; 1 is the noise of the source, 0 none.
    steady : bool
        Draw :math:`\mu` and :math:`\sigma` once, when the layer is made: as much noise, but one
        distribution for the whole training.

    Notes
    -----
    Put it behind batch norm, γ and β included. The random numbers come from torch's global
    generator. The source writes :math:`N(\sigma, r_\sigma)` and does not say whether
    :math:`r_\sigma` is a variance or a standard deviation; here it is the latter.

    References
    ----------
    Santurkar et al. (2018), `How Does Batch Normalization Help Optimization?
    <https://arxiv.org/abs/1805.11604>`_, Algorithm 1 in appendix A.2.1.

    Examples
    --------
    >>> layer = nn.Sequential(nn.BatchNorm1d(100), Noise(100))
    >>> y = layer(torch.randn(60, 100))
    >>> bool(y.mean(0).abs().max() > 0.1)  # behind batch norm alone the means are 0
    True
    """

    def __init__(self, units: int, strength: float = 1.0, steady: bool = False) -> None:
        super().__init__()
        if not strength >= 0:
            raise ValueError(f"strength must be 0 or more, got {strength}")
        self.units, self.strength, self.steady = units, strength, steady
        scale, shift = self._unit(torch.empty(0)) if steady else (None, None)
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def _unit(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Draw each unit's mean scale and mean shift."""
        sigma = like.new_empty(self.units).uniform_(1, 1 + SCALE * self.strength)
        mu = like.new_empty(self.units).uniform_(-SHIFT * self.strength, SHIFT * self.strength)
        return sigma, mu

    def draw(self, a: Tensor) -> tuple[Tensor, Tensor]:
        """Draw one step's noise for a batch.

        Parameters
        ----------
        a : Tensor, shape (n, units) or (n, units, height, width)
            Its values play no part.

        Returns
        -------
        scale, shift : Tensor
            Of the shape and dtype of `a`.
        """
        if a.dim() < 2 or a.shape[1] != self.units:
            raise ValueError(
                f"expected (n, {self.units}, …), got a batch of shape {tuple(a.shape)}"
            )
        unit = (self.scale, self.shift) if self.steady else self._unit(a)
        sigma, mu = (v.view(self.units, *[1] * (a.dim() - 2)) for v in unit)
        reach = JITTER * self.strength
        scale = torch.empty_like(a).normal_(0, reach).add_(sigma)
        return scale, torch.empty_like(a).uniform_(-reach, reach).add_(mu)

    def forward(self, a: Tensor) -> Tensor:
        """Return the batch with noise, of the same shape; in evaluation mode as it came."""
        if not self.training or self.strength == 0:
            return a
        scale, shift = self.draw(a.detach())
        return torch.addcmul(shift, scale, a)

    def extra_repr(self) -> str:
        """Say what it was built with."""
        return f"{self.units}, strength={self.strength}, steady={self.steady}"


def network(
    batch_norm: bool,
    *,
    strength: float = 0.0,
    steady: bool = False,
    activation: str = "sigmoid",
    **sizes: int,
) -> nn.Sequential:
    """Build a fully connected network; in front of each nonlinearity batch norm, then noise.

    Networks built after the same :func:`torch.manual_seed` start from the same weights, whatever
    stands between their linear layers.

    Parameters
    ----------
    batch_norm : bool
        With batch norm or without.
    strength, steady
        Of :class:`Noise`; without it where the strength is 0.
    activation : str
        ``"sigmoid"``, with PyTorch's default initial weights as in :func:`bn.models.mlp`, or
        ``"relu"``, with those of Glorot & Bengio and biases of zero.
    **sizes
        As for :func:`bn.models.mlp`: ``in_features``, ``width``, ``depth``, ``classes``.

    Returns
    -------
    torch.nn.Sequential
        Maps images to logits. Children ``flatten``, ``linear1``, (``norm1``,) (``noise1``,)
        ``sigmoid1`` or ``relu1``, … ``output``.

    Examples
    --------
    >>> [name for name, _ in network(True, strength=1, depth=1).named_children()]
    ['flatten', 'linear1', 'norm1', 'noise1', 'sigmoid1', 'output']
    """
    plain = models.mlp(batch_norm, activation=activation, **sizes)
    if activation == "relu":
        for layer in plain:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_normal_(layer.weight)
                nn.init.zeros_(layer.bias)
    layers = OrderedDict()
    for name, layer in plain.named_children():
        if name.startswith(activation) and strength:
            noise = Noise(plain.linear1.out_features, strength, steady)
            layers[name.replace(activation, "noise")] = noise
        layers[name] = layer
    return nn.Sequential(layers)


class Step(NamedTuple):
    """A training step about to be taken.

    Attributes
    ----------
    number : int
        From 0.
    images, labels : Tensor
        Its batch.
    loss, accuracy : float
        Of the network on that batch before the step, as it trains: with noise where there is some.
    """

    number: int
    images: Tensor
    labels: Tensor
    loss: float
    accuracy: float


def steps(model: nn.Module, data, *, batch_size: int, lr: float, seed: int) -> Iterator[Step]:
    """Train as :func:`bn.train.steps` does, and show each step with its loss under its own noise.

    The forward pass of a step comes before the pause, since its noise is drawn only once.

    Parameters
    ----------
    model, data, batch_size, lr, seed
        As there, in whole batches only. The noise comes from torch's global generator.

    Yields
    ------
    Step
        The step is taken when the next one is asked for. There is no last one.

    Examples
    --------
    >>> import bn, itertools
    >>> model = network(True, strength=1, in_features=64)
    >>> walk = steps(model, bn.data.digits(), batch_size=60, lr=0.5, seed=0)
    >>> losses = [step.loss for step in itertools.islice(walk, 50)]
    >>> losses[-1] < losses[0]
    True
    """
    x, y = torch.as_tensor(data.x_train), torch.as_tensor(data.y_train)
    parameters = list(model.parameters())
    for number, batch in enumerate(batches(len(x), batch_size, seed, drop_last=True)):
        images, labels = x[batch], y[batch]
        logits = model.train()(images)
        loss = F.cross_entropy(logits, labels)
        gradients = torch.autograd.grad(loss, parameters)
        hits = (logits.argmax(1) == labels).float().mean()
        yield Step(number, images, labels, loss.item(), hits.item())
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.sub_(gradient, alpha=lr)


def recalibrate(model: nn.Module, images: Tensor, batch_size: int = 1000) -> None:
    """Give batch norm the statistics of these images through the network as it is, without noise.

    Parameters
    ----------
    model : torch.nn.Module
        Its running statistics are replaced; otherwise it is left as it was.
    images : Tensor
        What to take the statistics of.
    batch_size : int
        Images in a pass; each pass counts equally.
    """
    training = model.training
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d)]
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all passes
        norm.train()
    with torch.no_grad():
        for batch in images.split(batch_size):
            model(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.train(training)


def distance(before, after) -> tuple[float, float]:
    r"""Say how far the distributions of a layer's units have moved.

    For each unit, the Wasserstein distance between its values before and after: for as many values
    on both sides it is the mean difference of the sorted values. A unit that moves by a constant
    and keeps its shape has that constant as its distance.

    Parameters
    ----------
    before, after : ndarray, shape (n, units)
        Values of the same units, on as many examples.

    Returns
    -------
    absolute : float
        The mean of the distances over the units.
    relative : float
        That divided by the mean of the units' standard deviations (of each unit the root of its
        mean variance before and after); NaN when no unit has a spread.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(scale=4, size=(10_000, 20))
    >>> absolute, relative = distance(x, x + 2)
    >>> round(absolute, 2), round(relative, 2)
    (2.0, 0.5)
    """
    before, after = (np.asarray(x, dtype=np.float64) for x in (before, after))
    if before.shape != after.shape:
        raise ValueError(
            f"as many values of the same units are compared: {before.shape} and {after.shape}"
        )
    moved = abs(np.sort(before, axis=0) - np.sort(after, axis=0)).mean()
    spread = np.sqrt((before.var(axis=0) + after.var(axis=0)) / 2).mean()
    return float(moved), float(moved / spread) if spread > 0 else float("nan")
