"""Many small networks trained at once, as one.

A small network keeps the processor waiting: most of a step goes into calling PyTorch, not into
arithmetic. Stack the weights of K networks of one architecture, and one call does the work of K.
Nothing couples the networks: each has its own weights, learning rate and running statistics, and
one whose loss overflows leaves the others as they are.

Inside, examples stand in **columns**: a layer holds an array ``(K, features, examples)``. Then a
linear layer is one product of matrices for each network, and what batch norm averages over lies
together in memory.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bn import models as _models
from bn.train import NONLINEARITIES

__all__ = ["Stack", "mlp"]

GAINS = {"relu": math.sqrt(2), "sigmoid": 1.0}


def mlp(
    batch_norm: bool = True,
    *,
    activation: str = "relu",
    scale: float = 1.0,
    in_features: int = 784,
    width: int = 100,
    depth: int = 3,
    classes: int = 10,
    seed: int = 0,
) -> nn.Sequential:
    """Build a network of any depth, nonlinearity and initial scale, batch norm before each.

    The weights into a layer of ``n`` inputs are normal with standard deviation ``gain / sqrt(n)``;
    biases are zero. The gain of a hidden layer is `scale` times √2 for ReLU (He et al. 2015) and
    `scale` times 1 for the sigmoid; that of the output layer is always 1. Two networks with the
    same seed and sizes start from the same draws, whatever their scale and batch norm.

    Parameters
    ----------
    batch_norm : bool
        Put :class:`torch.nn.BatchNorm1d` between each hidden linear layer and its nonlinearity.
    activation : str
        ``"relu"`` or ``"sigmoid"``.
    scale : float
        Multiplies the initial weights of the hidden layers.
    in_features, width, depth, classes : int
        Pixels in an image, units in a hidden layer, hidden layers, classes.
    seed : int
        Which draw. The global generator is left as it was.

    Returns
    -------
    torch.nn.Sequential
        That of :func:`bn.models.mlp`, with these weights.
    """
    with torch.random.fork_rng(devices=[]):
        model = _models.mlp(
            batch_norm, in_features=in_features, width=width, depth=depth, classes=classes,
            activation=activation,
        )  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    for layer in (layer for layer in model if isinstance(layer, nn.Linear)):
        factor = 1.0 if layer is model.output else GAINS[activation] * scale
        with torch.no_grad():
            layer.weight.normal_(generator=generator).mul_(factor / math.sqrt(layer.in_features))
            layer.bias.zero_()
    return model


class Stack:
    """K networks of one architecture, as one.

    Parameters
    ----------
    models : sequence of torch.nn.Sequential
        Made of Flatten, Linear, BatchNorm1d, ReLU, Sigmoid and Tanh, all alike but for their
        numbers. They are copied, and stay as they are.

    Attributes
    ----------
    params, buffers : dict of str to Tensor
        As in a model's ``state_dict()``, each with a first axis of length K.

    Examples
    --------
    Four learning rates at once, on the digits:

    >>> import bn, torch
    >>> from bn.train import batches
    >>> x, y = map(torch.as_tensor, bn.data.digits()[:2])
    >>> stack = Stack([mlp(in_features=64, width=20) for _ in range(4)])
    >>> rates = torch.tensor([0.001, 0.01, 0.1, 1.0])
    >>> for _, batch in zip(range(50), batches(len(x), 64, seed=0)):
    ...     losses = stack.step(x[batch], y[batch], rates)
    >>> losses.shape, bool(losses[2] < losses[0])
    (torch.Size([4]), True)
    """

    def __init__(self, models: Sequence[nn.Sequential]) -> None:
        if not models:
            raise ValueError("a stack needs at least one model")
        for model in models:
            for name, layer in model.named_children():
                if not isinstance(layer, (nn.Flatten, nn.Linear, nn.BatchNorm1d, *NONLINEARITIES)):
                    raise TypeError(
                        f"layer {name!r} is {layer}; a stack is made of Flatten, Linear, "
                        "BatchNorm1d, ReLU, Sigmoid and Tanh"
                    )
                if isinstance(layer, nn.BatchNorm1d) and not (
                    layer.affine and layer.track_running_stats and layer.momentum is not None
                ):
                    raise TypeError(
                        f"layer {name!r} is {layer}; in a stack batch norm has weight and bias, "
                        "running statistics and a momentum"
                    )
        drawings = [str(model) for model in models]
        for k, drawing in enumerate(drawings):
            if drawing != drawings[0]:
                raise ValueError(
                    f"the models of a stack are alike but for their numbers; number {k} differs "
                    f"from number 0:\n{drawing}\nand\n{drawings[0]}"
                )
        self.size = len(models)
        self._model = copy.deepcopy(models[0])
        states = [model.state_dict() for model in models]
        state = {key: torch.stack([s[key] for s in states]) for key in states[0]}
        trained = dict(self._model.named_parameters())
        self.params = {k: v.requires_grad_() for k, v in state.items() if k in trained}
        self.buffers = {k: v for k, v in state.items() if k not in trained}

    def __call__(self, images: Tensor, *, training: bool, own: bool = False) -> Tensor:
        """Return the logits, shape (K, n, classes).

        Parameters
        ----------
        images : Tensor, shape (n, …), or (K, n, …) with `own`
            The same images for all, or every network's own.
        training : bool
            Normalise by the statistics of the batch, and update the running ones; else normalise
            by the running ones.
        own : bool
            Whether the first axis counts the networks.
        """
        h = images.flatten(2).transpose(1, 2) if own else images.flatten(1).T
        for name, layer in self._model.named_children():
            if isinstance(layer, nn.Linear):
                weight, bias = (self.params[f"{name}.{key}"] for key in ("weight", "bias"))
                if h.dim() == 2:  # one product for all
                    h = torch.addmm(bias.flatten()[:, None], weight.flatten(0, 1), h)
                    h = h.unflatten(0, (self.size, -1))
                else:
                    h = torch.baddbmm(bias[..., None], weight, h)
            elif isinstance(layer, nn.BatchNorm1d):
                h = self._batch_norm(name, layer, h, training)
            elif isinstance(layer, NONLINEARITIES):
                h = layer(h)
        return h.transpose(1, 2)

    def _batch_norm(self, name, layer, h, training):
        """Normalise all features of all networks, as the channels of one batch norm."""
        if training:
            self.buffers[f"{name}.num_batches_tracked"] += 1
        mean, var, weight, bias = (
            tensors[f"{name}.{key}"].view(-1)
            for tensors, keys in (
                (self.buffers, ("running_mean", "running_var")),
                (self.params, ("weight", "bias")),
            )
            for key in keys
        )
        channels = h.flatten(0, 1)[None]
        out = F.batch_norm(channels, mean, var, weight, bias, training, layer.momentum, layer.eps)
        return out.view_as(h)

    def gradients(self, images: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return each network's mean cross-entropy, and its gradient, in training mode.

        Parameters
        ----------
        images : Tensor, shape (n, …) or (K, n, …)
            The same batch for all, or every network's own.
        labels : Tensor, shape (n,) or (K, n)
            Their shape says which.

        Returns
        -------
        losses : Tensor, shape (K,)
            Before any step.
        gradients : dict of str to Tensor
            Like `params`. No network's loss depends on another's parameters, so the gradient of
            the sum of the losses holds the gradient of each.
        """
        own = labels.dim() == 2
        logits = self(images, training=True, own=own)
        labels = labels if own else labels.expand(self.size, -1)
        losses = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none").mean(1)
        found = torch.autograd.grad(losses.sum(), list(self.params.values()))
        return losses.detach(), dict(zip(self.params, found, strict=True))

    def step(self, images: Tensor, labels: Tensor, lr: Tensor) -> Tensor:
        """Take one step of gradient descent in every network; return the losses before it.

        Parameters
        ----------
        images, labels : Tensor
            As for :meth:`gradients`.
        lr : Tensor, shape (K,)
            Learning rates.

        Returns
        -------
        Tensor, shape (K,)
            Mean cross-entropy of the batch. A loss that is no longer finite is returned as it is.
        """
        if lr.shape != (self.size,):
            raise ValueError(
                f"lr holds one learning rate for each of the {self.size} networks, shape "
                f"({self.size},), not {tuple(lr.shape)}"
            )
        losses, found = self.gradients(images, labels)
        with torch.no_grad():
            for key, param in self.params.items():
                param -= lr.view(-1, *[1] * (param.dim() - 1)) * found[key]
        return losses

    @torch.no_grad()
    def evaluate(
        self, images: Tensor, labels: Tensor, batch_size: int = 100
    ) -> tuple[Tensor, Tensor]:
        """Return each network's mean cross-entropy and accuracy, in evaluation mode.

        Parameters
        ----------
        images, labels : Tensor, shapes (n, …) and (n,)
            The same for all.
        batch_size : int
            Images in a forward pass; changes the memory, not the meaning.

        Returns
        -------
        losses, accuracies : Tensor of float64, shape (K,)
        """
        logits = torch.cat([self(b, training=False) for b in images.split(batch_size)], 1)
        labels = labels.expand(self.size, -1)
        losses = F.cross_entropy(logits.double().transpose(1, 2), labels, reduction="none").mean(1)
        return losses, (logits.argmax(2) == labels).double().mean(1)

    def model(self, k: int) -> nn.Sequential:
        """Return network `k` as a model of its own, with a copy of its present numbers."""
        model = copy.deepcopy(self._model)
        model.load_state_dict({key: v[k] for key, v in (self.params | self.buffers).items()})
        return model
