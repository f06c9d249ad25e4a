r"""Batch norm whose statistics do not come from the step's batch: from parts of it, or from elsewhere.

Three layers that differ from :class:`torch.nn.BatchNorm1d` in training only, and hold the same
parameters and buffers. So any of them can be trained, and its weights evaluated in another.

A *ghost batch* is a part of the batch that is normalised by itself. The step averages the gradients of
all parts: the optimisation sees the whole batch, and the noise of the statistics is that of a small one.
A *reference* is a second set of examples that goes through the network with the batch and lends it its
statistics. If that is the whole training set, the statistics have no noise.
"""

from __future__ import annotations

import copy
from collections import OrderedDict

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bn import batchnoise, models, train

__all__ = ["GhostBatchNorm1d", "ReferenceBatchNorm1d", "evaluate", "fit", "inputs", "network",
           "variance_shift"]  # fmt: skip


class GhostBatchNorm1d(nn.BatchNorm1d):
    r"""Batch normalization of each ghost batch by itself.

    Of a batch of :math:`G M` examples, example :math:`i` goes to ghost batch :math:`i \bmod G`. Seen as
    an array of :math:`M` rows, the ghost batches lie side by side as so many more channels. The running
    statistics move towards the mean over the ghost batches.

    Parameters
    ----------
    num_features : int
        Channels.
    ghost : int
        Examples in a ghost batch, at least 2; it must divide the batch.
    eps, momentum
        As in :class:`torch.nn.BatchNorm1d`.

    References
    ----------
    E. Hoffer, I. Hubara, D. Soudry. *Train longer, generalize better*. NeurIPS 2017.
    https://arxiv.org/abs/1705.08741

    Examples
    --------
    >>> layer = GhostBatchNorm1d(1, ghost=2, eps=1e-12)
    >>> x = torch.tensor([[0.0], [5.0], [1.0], [9.0]])
    >>> layer(x).flatten().tolist()  # of the ghost batches (0, 1) and (5, 9)
    [-1.0, -1.0, 1.0, 1.0]
    """

    def __init__(self, num_features: int, ghost: int, eps: float = 1e-5, momentum: float = 0.1):
        if ghost < 2:
            raise ValueError(f"a ghost batch has at least 2 examples, got ghost={ghost}")
        super().__init__(num_features, eps, momentum)
        self.ghost = ghost

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C); in training N must be a multiple of `ghost`."""
        if not self.training:
            return super().forward(x)
        self._check_input_dim(x)
        parts, rest = divmod(len(x), self.ghost)
        if rest or x.dim() != 2:
            raise ValueError(
                f"ghost batches of {self.ghost} need (N, C) with N a multiple of {self.ghost}, got "
                f"{tuple(x.shape)}"
            )
        mean, var = self.running_mean.repeat(parts), self.running_var.repeat(parts)
        x_hat = F.batch_norm(
            x.reshape(self.ghost, -1), mean, var, None, None, True, self.momentum, self.eps
        )
        self.running_mean.copy_(mean.view(parts, -1).mean(0))
        self.running_var.copy_(var.view(parts, -1).mean(0))
        return torch.addcmul(self.bias, x_hat.view_as(x), self.weight)


class ReferenceBatchNorm1d(nn.BatchNorm1d):
    """Batch normalization with the statistics of a reference.

    In training the last rows of the input are the reference. All rows are normalised with its mean and
    variance.

    Parameters
    ----------
    num_features : int
        Channels.
    reference : int
        How many rows at the end are the reference, at least 2.
    gradient : bool
        Whether the gradient flows through the statistics. Without it they are constants.
    eps, momentum
        As in :class:`torch.nn.BatchNorm1d`.

    Examples
    --------
    >>> layer = ReferenceBatchNorm1d(1, reference=2, eps=0)
    >>> layer(torch.tensor([[7.0], [1.0], [3.0]])).flatten().tolist()
    [5.0, -1.0, 1.0]
    """

    def __init__(
        self,
        num_features: int,
        reference: int,
        gradient: bool = True,
        eps: float = 1e-5,
        momentum: float = 0.1,
    ):
        if reference < 2:
            raise ValueError(f"a reference has at least 2 examples, got reference={reference}")
        super().__init__(num_features, eps, momentum)
        self.reference, self.gradient = reference, gradient

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C); in training the last `reference` rows are the reference."""
        if not self.training:
            return super().forward(x)
        if x.dim() != 2 or len(x) < self.reference:
            raise ValueError(
                f"the input must be (N, C) and end in the {self.reference} rows of the reference, "
                f"got {tuple(x.shape)}"
            )
        seen = x[-self.reference :]
        var, mean = torch.var_mean(seen if self.gradient else seen.detach(), 0, correction=0)
        with torch.no_grad():
            unbiased = var * (self.reference / (self.reference - 1))
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(unbiased, self.momentum)
        scale = self.weight * torch.rsqrt(var + self.eps)
        return torch.addcmul(self.bias, x - mean, scale)


def network(
    norm=None, *, in_features: int = 784, width: int = 100, depth: int = 3, classes: int = 10,
    dropout: float = 0.0, place: str = "after",
) -> nn.Sequential:  # fmt: skip
    """Build a ReLU network whose norm layers, and places of dropout, are chosen freely.

    Parameters
    ----------
    norm : callable, optional
        Makes a norm layer from its number of features; it stands between each hidden linear layer and
        its ReLU. None for a network without.
    in_features, width, depth, classes : int
        As in :func:`bn.models.mlp`, whose weights it has after the same seed.
    dropout : float
        Probability of dropping.
    place : {"before", "after", "last"}
        Dropout directly before each norm; after each ReLU; or after the last ReLU only, which no norm
        follows.

    Returns
    -------
    torch.nn.Sequential
        Maps images (n, 1, h, w) to logits (n, classes).

    Raises
    ------
    ValueError
        If `place` is none of the three.

    Examples
    --------
    >>> [type(layer).__name__ for layer in network(nn.BatchNorm1d, depth=1, dropout=0.5)]
    ['Flatten', 'Linear', 'BatchNorm1d', 'ReLU', 'Dropout', 'Linear']
    """
    if place not in ("before", "after", "last"):
        raise ValueError(f"place must be 'before', 'after' or 'last', got {place!r}")
    layers = OrderedDict()
    plain = models.mlp(
        False, in_features=in_features, width=width, depth=depth, classes=classes, activation="relu"
    )
    for name, layer in plain.named_children():
        i = name.removeprefix("relu") if isinstance(layer, nn.ReLU) else ""
        if i and dropout and place == "before":
            layers[f"dropout{i}"] = nn.Dropout(dropout)
        if i and norm is not None:
            layers[f"norm{i}"] = norm(width)
        layers[name] = layer
        if i and dropout and (place == "after" or (place == "last" and int(i) == depth)):
            layers[f"dropout{i}"] = nn.Dropout(dropout)
    return nn.Sequential(layers)


def fit(model, images, labels, *, passes, batch_size, lr, seed, start=0, reference=None):
    """Train in place by plain stochastic gradient descent; only whole batches.

    Parameters
    ----------
    model : torch.nn.Module
        Such as :func:`network`.
    images, labels : Tensor
        Of the training set.
    passes, batch_size : int
        Passes over the training set, and examples in a step.
    lr : float
        Learning rate.
    seed, start : int
        The order of the examples and the dropout masks of pass `start`, `start` + 1, … depend on the seed
        and on the number of the pass alone.
    reference : Tensor, optional
        Images that go through the network with each batch, for :class:`ReferenceBatchNorm1d`; no loss is
        computed on them.
    """
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    model.train()

    def beside(x):
        """Send the reference through the network with the batch."""
        return model(torch.cat([x, reference]))[: len(x)]

    for epoch in range(start, start + passes):
        train.run_epoch(
            model if reference is None else beside, optimizer, images, labels,
            batch_size=batch_size, seed=seed, epoch=epoch, drop_last=True,
        )  # fmt: skip


def evaluate(model, images, sets):
    """Measure loss and accuracy with two kinds of statistics: those of the data, and those stored.

    The first are those of all of `images` in one batch, layer after layer, under the weights as they are
    now and without dropout. The model is left as it was.

    Parameters
    ----------
    model : torch.nn.Module
        Such as :func:`network`.
    images : Tensor
        The training images.
    sets : dict of str to (images, labels)
        What to measure on.

    Returns
    -------
    dict
        ``NAME_loss`` and ``NAME_accuracy`` with the statistics of the data, ``NAME_loss_stored`` and
        ``NAME_accuracy_stored`` with the running averages. Without batch norm the two are the same.
    """
    twin, found = _plain(model), {}
    for kind in ("_stored", ""):
        if not kind:
            _settle(twin, images)
        for name, (x, y) in sets.items():
            loss, accuracy = train.evaluate(twin, x, y, batch_size=2500)
            found[f"{name}_loss{kind}"], found[f"{name}_accuracy{kind}"] = loss, accuracy
    return found


def inputs(model, images):
    """Return what goes into each layer, with the statistics of all the images and without dropout.

    Parameters
    ----------
    model : torch.nn.Sequential
        From :func:`network`; it is left as it was.
    images : Tensor
        In one batch.

    Returns
    -------
    dict of str to Tensor of float64
        Under the name of the layer.
    """
    twin = _plain(model)
    _settle(twin, images)
    return _walk(twin.eval(), images)


def variance_shift(model, images):
    """Compare variances in training and at evaluation, for each norm of a network with dropout.

    Parameters
    ----------
    model : torch.nn.Sequential
        From :func:`network`, with norms and with dropout before or after them; it is left as it was.
    images : Tensor
        The training images, each time in one batch.

    Returns
    -------
    dict
        For each norm that has dropout somewhere before it, under its name: ``train``, the variance of its
        input in training over that at evaluation, both with the statistics of all images; ``predicted``,
        the same by :func:`bn.batchnoise.dropout_shift` from what goes into the nearest dropout at
        evaluation; ``stored``, the running variance over the variance that the layer meets at
        evaluation when all norms use what they have stored. Lists, one number for each unit.
    """
    quiet, noisy = inputs(model, images), _walk(_plain(model).train(), images)
    met = _walk(_plain(model).eval(), images)
    found, before = {}, None  # the dropout seen last, and the linear layer behind it
    for name, layer in model.named_children():
        if isinstance(layer, nn.Dropout):
            before = (layer.p, quiet[name].numpy(), None)
        elif isinstance(layer, nn.Linear) and before is not None:
            before = (*before[:2], layer.weight.detach().numpy())
        elif isinstance(layer, nn.BatchNorm1d) and before is not None:
            p, x, weight = before
            moments = x.mean(0), np.cov(x, rowvar=False, ddof=0) if weight is not None else x.var(0)
            var = quiet[name].var(0, correction=0)
            found[name] = {
                "train": (noisy[name].var(0, correction=0) / var).tolist(),
                "predicted": batchnoise.dropout_shift(*moments, p, weight).tolist(),
                "stored": (layer.running_var / met[name].var(0, correction=0)).tolist(),
            }
    return found


def _plain(model):
    """Copy a model; its norms, of whatever kind, become those of torch.nn."""
    twin = copy.deepcopy(model)
    for layer in twin.modules():
        if isinstance(layer, nn.BatchNorm1d):
            layer.__class__ = nn.BatchNorm1d
    return twin


@torch.no_grad()
def _settle(model, images):
    """Set the running statistics to those of the images in one batch, without dropout."""
    for layer in model.modules():
        layer.training = isinstance(layer, nn.BatchNorm1d)
        if layer.training:
            layer.momentum = 1.0
    model(images)


@torch.no_grad()
def _walk(model, images):
    """What goes into each layer of a Sequential, in the mode that it is in."""
    found, x = {}, images
    for name, layer in model.named_children():
        found[name] = x.double()
        x = layer(x)
    return found
