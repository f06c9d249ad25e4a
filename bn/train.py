"""Plain stochastic gradient descent on the cross-entropy: an epoch at a time, or a step.

What makes two runs comparable, and a run repeatable:

- the order of the examples in epoch *e* of seed *s* depends on ``(s, e)`` alone
  (:func:`epoch_batches`);
- so do the random numbers that dropout draws, and the global generator is left as it was found;
- the layers see every example of every epoch (a last batch of a single example, which has no
  variance, is left out), unless only whole batches are asked for.

An epoch therefore needs nothing from the one before but the weights, the optimizer's state and
the running statistics: that is all a checkpoint holds, and a run resumed from one is the same,
bit for bit, as one that was never interrupted. The number of threads changes the order of
floating-point sums: it is part of "the same machine".
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bn import checkpoint as _checkpoint

__all__ = ["batches", "epoch_batches", "evaluate", "preactivations", "predict_proba", "run_epoch",
           "steps", "train"]  # fmt: skip

NONLINEARITIES = (nn.ReLU, nn.Sigmoid, nn.Tanh)
QUANTILES = (0.05, 0.15, 0.5, 0.85, 0.95)
BINS = 28


def train(
    model: nn.Module,
    data,
    *,
    epochs: int,
    batch_size: int = 64,
    lr: float = 0.1,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    seed: int = 0,
    measure: int = 10_000,
    probe: int = 100,
    validation=None,
    checkpoint: str | os.PathLike | None = None,
) -> Iterator[dict]:
    """Train a model and yield what an epoch did, epoch by epoch.

    Parameters
    ----------
    model : torch.nn.Module
        Maps images ``(n, 1, h, w)`` to logits ``(n, classes)``; trained in place. Its initial
        weights are the caller's: call :func:`torch.manual_seed` before building it.
    data : bn.data.Data
        Training and test images and labels, arrays or tensors.
    epochs, batch_size : int
        Passes over the training data, and examples in a step.
    lr, momentum, weight_decay : float
        Of :class:`torch.optim.SGD`.
    seed : int
        Decides the order of the examples and the dropout masks.
    measure : int
        The training loss and accuracy are measured on the first `measure` training examples.
    probe : int
        The pre-activations are measured on the first `probe` test examples; 0 for none.
    validation : pair of arrays, optional
        Images and labels to evaluate as well.
    checkpoint : path, optional
        File that keeps the state after each epoch. A run that finds one yields the epochs in it
        at once and continues after them.

    Yields
    ------
    dict
        ``epoch`` (from 1), ``train_loss``, ``train_accuracy``, ``test_loss``, ``test_accuracy``
        (with `validation` also ``validation_loss``, ``validation_accuracy``) and, with `probe`,
        ``preactivations``. All are measured **after** the epoch, in evaluation mode: batch norm
        uses its running statistics, and nothing is dropped out. Losses are means over the
        examples, in nats; accuracies are fractions.

    Notes
    -----
    The last batch of an epoch holds what is left over. A loss that is no longer finite is
    yielded as it is; training goes on.

    Examples
    --------
    >>> import torch, bn
    >>> _ = torch.manual_seed(0)
    >>> model = bn.models.mlp(in_features=64)
    >>> *_, last = bn.train.train(model, bn.data.digits(), epochs=4)
    >>> last["epoch"], last["test_accuracy"] > 0.5  # ten classes: guessing gives 0.1
    (4, True)
    """
    x, y = _tensors(data.x_train, data.y_train)
    sets = {"train": (x[:measure], y[:measure]), "test": _tensors(data.x_test, data.y_test)}
    if validation is not None:
        sets["validation"] = _tensors(*validation)
    probe_images = sets["test"][0][:probe]
    optimizer = torch.optim.SGD(
        model.parameters(), lr=lr, momentum=momentum, weight_decay=weight_decay
    )

    history = _checkpoint.load(checkpoint, model, optimizer)
    yield from map(dict, history[:epochs])
    for epoch in range(len(history), epochs):
        model.train()
        run_epoch(model, optimizer, x, y, batch_size=batch_size, seed=seed, epoch=epoch)
        row = {"epoch": epoch + 1}
        for name, (images, labels) in sets.items():
            row[f"{name}_loss"], row[f"{name}_accuracy"] = evaluate(model, images, labels)
        if probe:
            row["preactivations"] = preactivations(model, probe_images)
        history.append(row)
        _checkpoint.save(checkpoint, model, optimizer, history)
        yield dict(row)


def epoch_batches(
    n: int, batch_size: int, seed: int, epoch: int, *, drop_last: bool = False
) -> list[Tensor]:
    """Divide the examples among the batches of one epoch.

    Parameters
    ----------
    n : int
        Examples to choose from; each is in one batch at most.
    batch_size : int
        Examples in a batch. The last batch holds what is left over; a single example is left out.
    seed, epoch : int
        They decide the order, and nothing else does.
    drop_last : bool
        Whole batches only.

    Returns
    -------
    list of Tensor
        The indices of the examples of each batch.

    Raises
    ------
    ValueError
        If there are too few examples for a single batch.

    Examples
    --------
    >>> [len(batch) for batch in epoch_batches(7, 3, seed=0, epoch=0)]
    [3, 3]
    >>> [len(batch) for batch in epoch_batches(8, 3, seed=0, epoch=0)]
    [3, 3, 2]
    """
    least = batch_size if drop_last else min(2, batch_size)
    if n < least:
        raise ValueError(f"{n} examples do not fill a batch of {least}: take smaller batches")
    order = torch.from_numpy(np.random.default_rng((seed, epoch)).permutation(n))
    return [batch for batch in order.split(batch_size) if len(batch) >= least]


def batches(n: int, batch_size: int, seed: int, *, drop_last: bool = False) -> Iterator[Tensor]:
    """Yield the batches of :func:`epoch_batches`, one epoch after another, without end.

    Parameters
    ----------
    n, batch_size, seed, drop_last
        As there.

    Examples
    --------
    >>> some = batches(5, 2, seed=0)
    >>> [len(next(some)) for _ in range(6)]
    [2, 2, 2, 2, 2, 2]
    """
    for epoch in itertools.count():
        yield from epoch_batches(n, batch_size, seed, epoch, drop_last=drop_last)


def run_epoch(
    forward: Callable[[Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    drop_last: bool = False,
) -> None:
    """Take one pass over the data, a step for each batch.

    Parameters
    ----------
    forward : callable
        Maps a batch of images to logits: a model in training mode.
    optimizer : torch.optim.Optimizer
        It holds the parameters.
    images, labels : Tensor
        The training data.
    batch_size, seed, epoch, drop_last
        As for :func:`epoch_batches`. Seed and epoch decide what dropout draws, too.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.SeedSequence((seed, epoch, 1)).generate_state(1)[0]))
        for batch in epoch_batches(len(images), batch_size, seed, epoch, drop_last=drop_last):
            optimizer.zero_grad()
            F.cross_entropy(forward(images[batch]), labels[batch]).backward()
            optimizer.step()


def steps(
    model: nn.Module, data, *, batch_size: int, lr: float, seed: int, stops=None,
    drop_last: bool = False,
) -> Iterator[tuple[int, Tensor, Tensor]]:  # fmt: skip
    """Train by plain gradient descent, and pause before a step for whoever wants to look.

    Parameters
    ----------
    model : torch.nn.Module
        Maps images to logits; trained in place, in training mode.
    data : bn.data.Data
        Training images and labels, arrays or tensors.
    batch_size, seed, drop_last
        As for :func:`epoch_batches`.
    lr : float
        The learning rate.
    stops : increasing sequence of int, optional
        Pause before these steps only, counted from 0; the last ends the training. By default before
        every step, without end.

    Yields
    ------
    step : int
        How many steps have been taken.
    images, labels : Tensor
        The batch of the next step, which is taken when the next item is asked for.

    Examples
    --------
    >>> import bn
    >>> data, model = bn.data.digits(), bn.models.mlp(in_features=64)
    >>> for step, images, labels in steps(
    ...     model, data, batch_size=60, lr=0.1, seed=0, stops=[0, 100]):
    ...     print(step, images.shape)
    0 torch.Size([60, 1, 8, 8])
    100 torch.Size([60, 1, 8, 8])
    """
    x, y = _tensors(data.x_train, data.y_train)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    model.train()
    for step, batch in enumerate(batches(len(x), batch_size, seed, drop_last=drop_last)):
        if stops is None or step in stops:
            yield step, x[batch], y[batch]
        if stops is not None and step >= stops[-1]:
            return
        optimizer.zero_grad()
        F.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()


def evaluate(model: nn.Module, images, labels, batch_size: int = 100) -> tuple[float, float]:
    """Return the mean cross-entropy and the accuracy, in evaluation mode.

    Parameters
    ----------
    model : torch.nn.Module
        Its mode is restored afterwards.
    images, labels : array or Tensor
        Shapes ``(n, 1, h, w)`` and ``(n,)``.
    batch_size : int
        Images in a forward pass; changes the memory, not the meaning.

    Returns
    -------
    loss : float
        Mean over the examples, in nats.
    accuracy : float
        Fraction of examples whose largest logit is that of the label.
    """
    images, labels = _tensors(images, labels)
    logits = _logits(model, images, batch_size)
    loss = F.cross_entropy(logits.double(), labels).item()
    return loss, (logits.argmax(1) == labels).double().mean().item()


def predict_proba(model: nn.Module, images, batch_size: int = 100) -> np.ndarray:
    """Return the probability of each class, in evaluation mode.

    Parameters
    ----------
    model : torch.nn.Module
        Its mode is restored afterwards.
    images : array or Tensor, shape (n, 1, h, w)
        The images.
    batch_size : int
        Images in a forward pass.

    Returns
    -------
    ndarray of float64, shape (n, classes)
        Rows sum to 1.
    """
    logits = _logits(model, torch.as_tensor(images), batch_size)
    return torch.softmax(logits.double(), 1).numpy()


def preactivations(model: nn.Module, images) -> dict[str, dict]:
    """Summarise what goes into each nonlinearity, in evaluation mode.

    Parameters
    ----------
    model : torch.nn.Module
        Its mode is restored afterwards.
    images : array or Tensor, shape (n, 1, h, w)
        One batch.

    Returns
    -------
    dict
        For each sigmoid, tanh or ReLU, under its name in the model: ``quantiles`` at .05, .15,
        .5, .85 and .95 over all examples, units and positions, and ``counts``, a histogram of
        28 equal bins between ``edges = [lo, hi]``, the .001 and .999 quantiles (what lies
        outside is not counted).
    """
    found = {}

    def look(name):
        def hook(module, inputs):
            # Measured here and now: an in-place nonlinearity would overwrite its input.
            found[name] = _summary(inputs[0].detach().numpy().ravel())

        return hook

    handles = [
        module.register_forward_pre_hook(look(name))
        for name, module in model.named_modules()
        if isinstance(module, NONLINEARITIES)
    ]
    try:
        _logits(model, torch.as_tensor(images), len(images))
    finally:
        for handle in handles:
            handle.remove()
    return found


def _summary(values: np.ndarray) -> dict:
    lo, *quantiles, hi = np.quantile(values.astype(np.float64), (0.001, *QUANTILES, 0.999))
    drawable = lo < hi and np.isfinite([lo, hi]).all()
    return {
        "quantiles": [_round(q) for q in quantiles],
        "counts": np.histogram(values, BINS, (lo, hi))[0].tolist() if drawable else [0] * BINS,
        "edges": [_round(lo), _round(hi)],
    }


def _round(value: float) -> float:
    return float(f"{value:.5g}")


def _logits(model: nn.Module, images: Tensor, batch_size: int) -> Tensor:
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            return torch.cat([model(batch) for batch in images.split(batch_size)])
    finally:
        model.train(training)


def _tensors(images, labels) -> tuple[Tensor, Tensor]:
    return torch.as_tensor(images), torch.as_tensor(labels)
