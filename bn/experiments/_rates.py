"""What the experiments on learning rates share: small images, and grids trained as one stack."""

from __future__ import annotations

import math
from itertools import islice

import torch
from torch import Tensor
from torch.nn import functional as F

from bn.batched import Stack, mlp
from bn.train import batches


def small(data) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return training and test images at half their height and width, standardised, and labels.

    Pixels are averaged in squares of 2×2; then the mean over all training images and pixels is
    subtracted, and the result divided by their standard deviation.
    """
    train, test = (F.avg_pool2d(torch.as_tensor(x), 2) for x in (data.x_train, data.x_test))
    mean, std = train.mean(), train.std()
    labels = (torch.as_tensor(y) for y in (data.y_train, data.y_test))
    return (train - mean) / std, (test - mean) / std, *labels


def stack_of(cells, batch_norm, seed, in_features, **sizes) -> tuple[Stack, Tensor]:
    """Stack one network for each (rate, scale), all from the same draws; and their rates."""
    models = [
        mlp(batch_norm, scale=scale, seed=seed, in_features=in_features, **sizes)
        for _, scale in cells
    ]
    return Stack(models), torch.tensor([rate for rate, _ in cells], dtype=torch.float32)


def train_stack(stack, x, y, lr, *, steps, batch_size, seed, look=None) -> Tensor:
    """Train for some steps on the same batches; return the losses of the batches, (steps, K).

    `look` is called before each step with its number and the batch's images and labels.
    """
    losses = []
    for step, batch in enumerate(islice(batches(len(x), batch_size, seed), steps)):
        if look is not None:
            look(step, x[batch], y[batch])
        losses.append(stack.step(x[batch], y[batch], lr))
    return torch.stack(losses)


def windows(losses: Tensor, length: int) -> list[list[float]]:
    """Return the mean loss in windows of some steps, three digits, for each network."""
    means = losses.double().unflatten(0, (-1, length)).mean(1)
    return rounded(means.T.tolist(), 3)


def trains(losses: Tensor, last: int, fraction: float) -> list[bool]:
    """Say which networks train: mean loss of the last batches below a fraction of guessing's."""
    return (losses[-last:].double().mean(0) < fraction * math.log(10)).tolist()


def largest(rates, trained, ends):
    """Return the largest learning rate that trains, going up from the one that ends lowest.

    Parameters
    ----------
    rates : list of float
        In increasing order.
    trained : list of bool
        Which of them train.
    ends : list of float
        The loss at the end, for each.

    Returns
    -------
    float or None
        The last rate before the first that does not train; None if none trains.
    """
    if not any(trained):
        return None
    k = min((i for i, good in enumerate(trained) if good), key=lambda i: ends[i])
    while k + 1 < len(rates) and trained[k + 1]:
        k += 1
    return rates[k]


def rounded(value, digits: int):
    """Round to significant digits, in lists too."""
    if isinstance(value, list):
        return [rounded(item, digits) for item in value]
    return float(f"{value:.{digits}g}")
