"""One layer, five spellings: what PyTorch, Keras, Flax, ONNX and cuDNN mean by the same words.

Momentum weighs the new value in some and the old one in others, the running variance is divided by
m or by m - 1, and channels are the second axis or the last. The functions here carry arguments,
statistics and arrays from one convention to another. They need neither framework.

Every entry of :data:`CONVENTIONS` was read in the source it names, not quoted from memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

__all__ = [
    "CONVENTIONS",
    "Convention",
    "convert_arguments",
    "convert_momentum",
    "convert_state",
    "convert_variance",
    "move_channels",
]


@dataclass(frozen=True)
class Convention:
    """How one framework spells batch normalization.

    Attributes
    ----------
    title : str
        The framework's name.
    momentum, eps : str
        What its two numbers are called.
    weighs_new : bool
        Whether its momentum is the weight of the new batch in the running averages (True), or of
        the average so far (False).
    default_momentum, default_eps : float or None
        None where a value must be given.
    unbiased : bool
        Whether the running variance averages variances divided by m - 1 (True) or by m (False).
        The batch itself is always normalised with m.
    axis : int
        Where the channels are, unless told otherwise.
    names : tuple of str
        What it calls gamma, beta, the running mean and the running variance.
    freeze : str
        How inference with fixed statistics is asked for.
    checked : str
        The version that was read.
    source : str
        Where this stands.
    """

    title: str
    momentum: str
    weighs_new: bool
    default_momentum: float | None
    eps: str
    default_eps: float | None
    unbiased: bool
    axis: int
    names: tuple[str, str, str, str]
    freeze: str
    checked: str
    source: str


#: What each framework does, by the name that the functions below take.
CONVENTIONS: Mapping[str, Convention] = {
    "pytorch": Convention(
        title="PyTorch",
        momentum="momentum", weighs_new=True, default_momentum=0.1,
        eps="eps", default_eps=1e-5,
        unbiased=True,
        axis=1,
        names=("weight", "bias", "running_mean", "running_var"),
        freeze="layer.eval(), again after every model.train(); requires_grad=False for the parameters",
        checked="2.13",
        source="https://docs.pytorch.org/docs/stable/generated/torch.nn.modules.batchnorm.BatchNorm1d.html",
    ),
    "keras": Convention(
        title="Keras",
        momentum="momentum", weighs_new=False, default_momentum=0.99,
        eps="epsilon", default_eps=1e-3,
        unbiased=False,
        axis=-1,
        names=("gamma", "beta", "moving_mean", "moving_variance"),
        freeze="layer.trainable = False: parameters and statistics stay, and the layer infers",
        checked="3.16",
        source="https://github.com/keras-team/keras/blob/3422977a5e38fb2f7709aaa9a08e47f0c43d0f60/keras/src/layers/normalization/batch_normalization.py",
    ),
    "flax": Convention(
        title="Flax",
        momentum="momentum", weighs_new=False, default_momentum=0.99,
        eps="epsilon", default_eps=1e-5,
        unbiased=False,
        axis=-1,
        names=("scale", "bias", "mean", "var"),
        freeze="use_running_average=True; scale and bias are the optimizer's to leave alone",
        checked="0.12.8",
        source="https://github.com/google/flax/blob/18f8f311c275d57f46d95e41b15aa97b454754c0/flax/linen/normalization.py",
    ),
    "onnx": Convention(
        title="ONNX",
        momentum="momentum", weighs_new=False, default_momentum=0.9,
        eps="epsilon", default_eps=1e-5,
        unbiased=False,
        axis=1,
        names=("scale", "B", "input_mean", "input_var"),
        freeze="training_mode=0, the default",
        checked="operator set 15",
        source="https://onnx.ai/onnx/operators/onnx__BatchNormalization",
    ),
    "cudnn": Convention(
        title="cuDNN",
        momentum="exponentialAverageFactor", weighs_new=True, default_momentum=None,
        eps="epsilon", default_eps=None,
        unbiased=True,
        axis=1,
        names=("bnScale", "bnBias", "resultRunningMean", "resultRunningVariance"),
        freeze="another function: cudnnBatchNormalizationForwardInference",
        checked="comments of the header cudnn_ops_train.h, 8.2.1",
        # the header says "variance"; that it is the unbiased one was measured, and told here
        source="https://forums.developer.nvidia.com/t/cudnn-batch-normalization-oddness/45063",
    ),
}  # fmt: skip


def convert_momentum(momentum: float | None, source: str, to: str) -> float | None:
    r"""The momentum that makes `to` average as `source` does.

    With :math:`\alpha` the weight of the new batch, PyTorch and cuDNN ask for :math:`\alpha`;
    Keras, Flax and ONNX for :math:`1-\alpha`.

    Parameters
    ----------
    momentum : float or None
        Between 0 and 1. None, PyTorch's average over all batches so far, exists in PyTorch alone.
    source, to : str
        Keys of :data:`CONVENTIONS`.

    Returns
    -------
    float or None

    Raises
    ------
    ValueError
        For an unknown framework, a momentum outside [0, 1], or None where it has no meaning.

    Examples
    --------
    >>> convert_momentum(0.99, "keras", "pytorch")
    0.01
    """
    a, b = _convention(source), _convention(to)
    if momentum is None:
        if a is b is CONVENTIONS["pytorch"]:
            return None
        raise ValueError(
            f"momentum=None, the plain average over batches, is PyTorch's alone and cannot go from "
            f"{a.title} to {b.title}: there, set the weight of the n-th batch to 1/n yourself"
        )
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum must lie between 0 and 1, got {momentum}")
    if a.weighs_new == b.weighs_new:
        return momentum
    return round(1 - momentum, 15)  # 1 - 0.99 is 0.01, without the digits that float64 adds


def convert_arguments(arguments: Mapping[str, float | None], source: str, to: str) -> dict:
    """Momentum and epsilon of a layer, under the names and with the meaning that `to` gives them.

    Parameters
    ----------
    arguments : mapping
        What the layer is made with, under the names of `source`. What is left out has the default
        of `source`, and is written out in the result: the defaults differ.
    source, to : str
        Keys of :data:`CONVENTIONS`.

    Returns
    -------
    dict
        Both arguments, under the names of `to`.

    Raises
    ------
    ValueError
        As in :func:`convert_momentum`; for a negative epsilon; for an argument that is left out
        where `source` (cuDNN) has no default.
    TypeError
        For an argument of another name.

    Examples
    --------
    >>> convert_arguments({}, "keras", "pytorch")
    {'momentum': 0.01, 'eps': 0.001}
    """
    a, b = _convention(source), _convention(to)
    unknown = sorted(set(arguments) - {a.momentum, a.eps})
    if unknown:
        raise TypeError(
            f"{a.title} calls the arguments that can be converted {a.momentum} and {a.eps}; "
            f"got {', '.join(map(repr, unknown))}"
        )
    given = {a.momentum: a.default_momentum, a.eps: a.default_eps, **arguments}
    missing = [
        name for name in (a.momentum, a.eps) if given[name] is None and name not in arguments
    ]
    if missing:
        raise ValueError(f"{a.title} has no default for {' and '.join(missing)}: give a value")
    eps = given[a.eps]
    if not eps >= 0:
        raise ValueError(f"{a.eps} must not be negative, got {eps}")
    return {b.momentum: convert_momentum(given[a.momentum], source, to), b.eps: eps}


def convert_variance(var, source: str, to: str, *, m: int | None = None, start: float = 0.0):
    r"""A running variance as the other framework would have it after the same batches.

    Where one averages variances divided by :math:`m` and the other by :math:`m-1`, every batch
    differs by the factor :math:`f=\frac{m}{m-1}`, and so does their average. The initial value 1 is
    in the average too, with a weight that is gone after some hundred steps and that no correction
    touches: :math:`(\mathrm{var}-\mathrm{start})\,f+\mathrm{start}`.

    Parameters
    ----------
    var : array_like
        Running variance of `source`, any shape.
    source, to : str
        Keys of :data:`CONVENTIONS`.
    m : int, optional
        The number of values behind each batch's variance: batch size times positions (N, N·L or
        N·H·W). The same in all batches. Needed where the two differ.
    start : float
        What is left of the initial value 1: ``(1 - alpha) ** steps``, with alpha the weight of a
        new batch. It is below 0.001 after ``7 / alpha`` steps.

    Returns
    -------
    ndarray

    Raises
    ------
    ValueError
        For an unknown framework, or where `m` is needed and missing or less than 2.

    Examples
    --------
    >>> convert_variance([3.0], "keras", "pytorch", m=4).tolist()
    [4.0]
    """
    a, b = _convention(source), _convention(to)
    var = np.asarray(var)
    if a.unbiased == b.unbiased:
        return var.copy()
    if m is None or m < 2:
        by = {True: "m - 1", False: "m"}
        raise ValueError(
            f"{a.title} divides its running variance by {by[a.unbiased]}, {b.title} by "
            f"{by[b.unbiased]}: give m, the number of values behind each batch's variance "
            f"(batch size times positions, at least 2); got m={m}"
        )
    factor = m / (m - 1) if b.unbiased else (m - 1) / m
    return (var - start) * factor + start


def convert_state(
    state: Mapping, source: str, to: str, *, m: int | None = None, start: float = 0.0
) -> dict:
    """Parameters and statistics of a layer, under the names and with the meaning of `to`.

    Parameters
    ----------
    state : mapping of str to array_like
        The layer's arrays under the names of `source`; what it does not have is left out.
        PyTorch's ``num_batches_tracked`` may be among them and is dropped.
    source, to : str
        Keys of :data:`CONVENTIONS`.
    m : int, optional
        Without it the running variance is copied, and inference gives the same results as before.
        With it, the variance becomes what `to` would have gathered from the same batches: see
        :func:`convert_variance`.
    start : float
        As in :func:`convert_variance`.

    Returns
    -------
    dict of str to ndarray
        Copies, under the names of `to`.

    Raises
    ------
    ValueError
        For an unknown framework, or `m` less than 2 where it is used.
    TypeError
        For a name that `source` does not know.

    Examples
    --------
    >>> state = {"gamma": [2.0], "beta": [0.5], "moving_mean": [10.0], "moving_variance": [3.0]}
    >>> new = convert_state(state, "keras", "pytorch")
    >>> {name: value.tolist() for name, value in new.items()}
    {'weight': [2.0], 'bias': [0.5], 'running_mean': [10.0], 'running_var': [3.0]}
    """
    a, b = _convention(source), _convention(to)
    unknown = sorted(set(state) - set(a.names) - {"num_batches_tracked"})
    if unknown:
        raise TypeError(
            f"{a.title} calls its arrays {', '.join(a.names)}; got {', '.join(map(repr, unknown))}"
        )
    pairs = zip(a.names, b.names, strict=True)
    new = {there: np.array(state[here]) for here, there in pairs if here in state}
    var = b.names[3]
    if m is not None and var in new:
        new[var] = convert_variance(new[var], source, to, m=m, start=start)
    return new


def move_channels(x, source: str, to: str) -> np.ndarray:
    """An array with its channels where `to` expects them.

    Parameters
    ----------
    x : array_like
        Examples along axis 0, channels where `source` has them. At least two axes.
    source, to : str
        Keys of :data:`CONVENTIONS`.

    Returns
    -------
    ndarray
        A view: the numbers stay where they are in memory.

    Raises
    ------
    ValueError
        For an unknown framework, or fewer than two axes.

    Examples
    --------
    >>> move_channels(np.zeros((8, 3, 28, 28)), "pytorch", "keras").shape
    (8, 28, 28, 3)
    """
    a, b = _convention(source), _convention(to)
    x = np.asarray(x)
    if x.ndim < 2:
        raise ValueError(f"x needs axes for examples and channels, got shape {x.shape}")
    return np.moveaxis(x, a.axis, b.axis)


def _convention(name: str) -> Convention:
    if name not in CONVENTIONS:
        raise ValueError(
            f"no convention is known for {name!r}: choose one of {', '.join(CONVENTIONS)}"
        )
    return CONVENTIONS[name]
