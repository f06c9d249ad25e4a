r"""Internal covariate shift, by both of its definitions, measured without disturbing the training.

Ioffe & Szegedy (2015) mean a change of *distributions*: what goes into a layer today is not what
went into it yesterday. :func:`inputs` collects what goes into each nonlinearity; :func:`travel`
and :func:`stretch` say how far the middle of a distribution has moved, and how its spread.

Santurkar et al. (2018) mean a change of *gradients*: a layer's gradient is computed as if the
layers before it stood still, and they move at the same step.
:func:`internal_covariate_shift` moves them, and looks at the layer's gradient again.

Both look at the network as a training step sees it: batch norm uses the statistics of the batch.

References
----------
S. Ioffe, C. Szegedy. *Batch Normalization: Accelerating Deep Network Training by Reducing Internal
Covariate Shift*. ICML, 2015. arXiv:1502.03167, section 2 and figure 1.

S. Santurkar, D. Tsipras, A. Ilyas, A. Mądry. *How Does Batch Normalization Help Optimization?*
NeurIPS, 2018. arXiv:1805.11604, definition 2.1.
"""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bn.data import Data
from bn.models import mlp
from bn.train import NONLINEARITIES

__all__ = [
    "binary",
    "inputs",
    "internal_covariate_shift",
    "layers",
    "network",
    "stretch",
    "travel",
]

PERCENTILES = (15, 50, 85)  # those of figure 1


def layers(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Group a network's parameters into layers.

    A layer begins at a module with a matrix of weights (linear, convolution) and owns what follows
    it up to the next one: so the scale and shift of batch norm belong to the layer in front of it.

    Parameters
    ----------
    model : torch.nn.Module
        Its modules were registered in the order in which it uses them.

    Returns
    -------
    dict
        The trainable parameters of each layer, from the input upwards, under the name of the module
        that it begins with.

    Examples
    --------
    >>> import bn
    >>> {name: len(p) for name, p in layers(bn.models.mlp(depth=2)).items()}
    {'linear1': 4, 'linear2': 4, 'output': 2}
    """
    found: dict[str, list[nn.Parameter]] = {}
    for name, module in model.named_modules():
        own = [p for p in module.parameters(recurse=False) if p.requires_grad]
        if own and (not found or any(p.dim() > 1 for p in own)):
            found[name] = []
        if own:
            found[next(reversed(found))] += own
    return found


def internal_covariate_shift(
    model: nn.Module, images, labels, lr: float, loss=F.cross_entropy
) -> dict[str, dict[str, float]]:
    r"""Measure how a step of the layers before it changes a layer's gradient.

    Let :math:`G_i` be the gradient of the loss on this batch with respect to the parameters of
    layer :math:`i`, and :math:`G_i'` the same after layers :math:`1,\dots,i-1` have taken their step
    :math:`-\eta\,G_j`, all of them computed at the old parameters, while layer :math:`i` and all
    behind it stand still.

    Parameters
    ----------
    model : torch.nn.Module
        It is left as it was found, running statistics included: the work is done on a copy, in
        training mode and in float64.
    images, labels : array or Tensor
        The batch of a training step.
    lr : float
        The learning rate :math:`\eta` of plain gradient descent.
    loss : callable
        ``loss(output, labels)``, a scalar.

    Returns
    -------
    dict
        For each layer (see :func:`layers`), from the input upwards: ``norm``,
        :math:`\lVert G-G'\rVert`; ``relative``, that divided by :math:`\lVert G\rVert`; ``cosine``,
        that of the angle between :math:`G` and :math:`G'`. The first layer has nothing before it:
        0, 0 and 1. A gradient that is zero has no direction: NaN.

    Raises
    ------
    ValueError
        The learning rate is not a positive number, or nothing in the model can be trained.

    Notes
    -----
    What the network draws from the global random generator (dropout) is the same for :math:`G` and
    :math:`G'`, and the generator is left as it was found.

    References
    ----------
    Santurkar et al. (2018), definition 2.1, which is the ``norm``.

    Examples
    --------
    >>> import bn, torch
    >>> _ = torch.manual_seed(0)
    >>> data, model = bn.data.digits(), bn.models.mlp(in_features=64)
    >>> found = internal_covariate_shift(model, data.x_train[:60], data.y_train[:60], lr=0.1)
    >>> list(found), found["linear1"]
    (['linear1', 'linear2', 'linear3', 'output'], {'norm': 0.0, 'relative': 0.0, 'cosine': 1.0})
    >>> found["output"]["relative"] > 0
    True
    """
    if not (lr > 0 and math.isfinite(lr)):
        raise ValueError(f"lr must be a positive number, the learning rate of the step, not {lr!r}")
    net = copy.deepcopy(model).double().train()
    images, labels = torch.as_tensor(images).double(), torch.as_tensor(labels)
    groups = layers(net)
    if not groups:
        raise ValueError("the model has no parameters that can be trained, so no gradient to watch")
    start = _gradients(net, images, labels, list(groups.values()), loss)
    before = dict(zip(groups, start, strict=True))
    found = {}
    for name, parameters in groups.items():
        (after,) = _gradients(net, images, labels, [parameters], loss)
        found[name] = _compare(before[name], after)
        with torch.no_grad():  # from here on this layer is one of those before
            vector = nn.utils.parameters_to_vector(parameters)
            nn.utils.vector_to_parameters(vector - lr * before[name], parameters)
    return found


def _gradients(net, images, labels, groups, loss) -> list[Tensor]:
    """Return the gradient with respect to each group of parameters, as one vector each."""
    with torch.random.fork_rng(devices=[]):
        flat = torch.autograd.grad(
            loss(net(images), labels), [p for group in groups for p in group]
        )
    vectors = iter(flat)
    return [torch.cat([next(vectors).flatten() for _ in group]) for group in groups]


def _compare(before: Tensor, after: Tensor) -> dict[str, float]:
    norm, a, b = (x.norm().item() for x in (before - after, before, after))
    if a == 0 or b == 0:
        return {"norm": norm, "relative": math.nan, "cosine": math.nan}
    # The law of cosines, solved for 1 - cos: nearly equal gradients keep their digits.
    return {
        "norm": norm,
        "relative": norm / a,
        "cosine": 1 - (norm**2 - (a - b) ** 2) / (2 * a * b),
    }


def inputs(model: nn.Module, images) -> dict[str, np.ndarray]:
    """Return what goes into each nonlinearity, in training mode.

    Parameters
    ----------
    model : torch.nn.Module
        Left as it was found, running statistics included.
    images : array or Tensor, shape (n, 1, h, w)
        One batch: batch norm takes its statistics from these images.

    Returns
    -------
    dict
        For each sigmoid, tanh or ReLU, under its name in the model, an array of shape
        ``(n, features)`` or ``(n, channels, h, w)``.

    Examples
    --------
    >>> import bn
    >>> found = inputs(bn.models.mlp(in_features=64), bn.data.digits().x_train[:60])
    >>> {name: values.shape for name, values in found.items()}
    {'sigmoid1': (60, 100), 'sigmoid2': (60, 100), 'sigmoid3': (60, 100)}
    """
    net, found = copy.deepcopy(model).train(), {}
    for name, module in net.named_modules():
        if isinstance(module, NONLINEARITIES):
            module.register_forward_pre_hook(
                lambda _, given, name=name: found.update({name: given[0].numpy().copy()})
            )
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        net(torch.as_tensor(images))
    return found


def network(batch_norm: bool, *, std: float, in_features: int = 784) -> nn.Sequential:
    """Build the network of figure 1 of Ioffe & Szegedy (2015), with and without batch norm.

    Parameters
    ----------
    batch_norm : bool
        Put batch norm before each sigmoid of :func:`bn.models.mlp`.
    std : float
        Standard deviation of the Gaussian that the weights are drawn from. Biases start at zero.
    in_features : int
        Pixels in an image.

    Returns
    -------
    torch.nn.Sequential
        After the same :func:`torch.manual_seed` both versions start from the same weights.

    Examples
    --------
    >>> model = network(True, std=0.1)
    >>> [name for name, _ in model.named_children()][:4]
    ['flatten', 'linear1', 'norm1', 'sigmoid1']
    """
    model = mlp(batch_norm, in_features=in_features)
    for module in model:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=std)
            nn.init.zeros_(module.bias)
    return model


def binary(data: Data, threshold: float = 0.5) -> Data:
    """Return the same images in black and white: 1 where a pixel is at least `threshold`, else 0.

    Parameters
    ----------
    data : bn.data.Data
        Images in [0, 1].
    threshold : float
        The lightest grey that counts as ink.

    Returns
    -------
    bn.data.Data

    Examples
    --------
    >>> import bn, numpy as np
    >>> np.unique(binary(bn.data.digits()).x_train).tolist()
    [0.0, 1.0]
    """
    return data._replace(
        **{
            name: (getattr(data, name) >= threshold).astype(np.float32)
            for name in ("x_train", "x_test")
        }
    )


def travel(percentiles) -> np.ndarray:
    """Return how far the median of a distribution travels, in units of its final spread.

    Parameters
    ----------
    percentiles : array_like, shape (steps, ..., 3)
        The 15th, 50th and 85th percentile at each of several steps.

    Returns
    -------
    ndarray of float64, shape (...)
        The sum of the moves of the 50th from each step to the next, up or down, divided by the
        distance from the 15th to the 85th at the last step.

    Examples
    --------
    >>> float(travel([[-1, 0, 1], [0, 1, 2], [-2, 0, 2]]))  # up 1, down 1; at last 4 wide
    0.5
    """
    percentiles = np.asarray(percentiles, dtype=np.float64)
    return np.abs(np.diff(percentiles[..., 1], axis=0)).sum(0) / _spread(percentiles)[-1]


def stretch(percentiles) -> np.ndarray:
    """Return by how many doublings and halvings the spread of a distribution changes in all.

    Parameters
    ----------
    percentiles : array_like, shape (steps, ..., 3)
        The 15th, 50th and 85th percentile at each of several steps.

    Returns
    -------
    ndarray of float64, shape (...)
        The sum, over the steps, of the change of the base-2 logarithm of the distance from the 15th
        to the 85th, up or down.

    Examples
    --------
    >>> float(stretch([[-1, 0, 1], [-4, 0, 4], [-2, 0, 2]]))  # doubled twice, halved once
    3.0
    """
    percentiles = np.asarray(percentiles, dtype=np.float64)
    return np.abs(np.diff(np.log2(_spread(percentiles)), axis=0)).sum(0)


def _spread(percentiles: np.ndarray) -> np.ndarray:
    return percentiles[..., 2] - percentiles[..., 0]
