r"""Batch normalization for PyTorch, written out: drop-in for ``torch.nn.BatchNorm1d``, ``2d``, ``3d``.

Training normalises each channel with the statistics of the batch and lets the gradient flow through
them; inference uses running averages of those statistics.

What can be seen from outside follows ``torch.nn``: arguments, names of parameters and buffers,
``state_dict`` in both directions, results, kinds of errors. Five things differ. A call that fails
changes no buffer. ``eps=0`` is allowed. An empty batch must still have the right number of channels
and a floating dtype. The gradient of a call in ``eval`` mode stays right if a call in training moves
the running statistics before ``backward``
(`pytorch#13402 <https://github.com/pytorch/pytorch/issues/13402>`_).
And ``torch.fx.symbolic_trace``, which takes the layers of ``torch.nn`` as they are, cannot look into
these: :func:`convert` the model to ``"torch"`` for it.

The transform stands here twice. ``_normalize`` is the definition, in operations that PyTorch can
differentiate by itself. :class:`BatchNormFunction` is the same with the derivative worked out by hand:
it keeps the input and two numbers per channel where autograd would keep whole arrays. A compiler gets
the definition together with the derivative, without what is done in place.
The tools at the end work on a model's batch norm layers, these and those of ``torch.nn`` alike.
"""

from __future__ import annotations

import copy
import functools
import inspect
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "BatchNormFunction",
    "convert",
    "fold",
    "fold_pair",
    "freeze",
    "precise_statistics",
    "unfreeze",
]


# The transform. Statistics and parameters have shape (C,); channels are axis 1 of x.

BLOCK = 1 << 20  # values: 4 MB of float32, of a size with a processor's last cache
COLUMN = 16  # examples


def _axes(x: Tensor) -> list[int]:
    return [a for a in range(x.dim()) if a != 1]


def _values_per_channel(x: Tensor) -> int:
    return x.size(0) * math.prod(x.shape[2:])


def _like(x: Tensor, v: Tensor) -> Tensor:
    """View (C,) as (C, 1, ...), which broadcasts against x."""
    return v if x.dim() == 2 else v.view(-1, *[1] * (x.dim() - 2))


def _wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype to compute in: a variance needs more range and digits than half precision has."""
    return torch.promote_types(dtype, torch.float32)


def _sum(x: Tensor) -> Tensor:
    """Add up each channel, positions or short columns first: faster than all axes at once."""
    wide = _wide(x.dtype)
    if x.dim() > 2:
        x = x.sum(_axes(x)[1:], dtype=wide)
    elif _in_short_columns(x):
        x = x.unflatten(0, (-1, COLUMN)).sum(1, dtype=wide)
    return x.sum(0, dtype=wide)


def _in_short_columns(x: Tensor) -> bool:
    """Whether to cut the columns of a matrix: for a compiler, whose loops go down one column after the
    other. When they come back from a long one, the cache has lost the values beside it.
    """
    return torch.compiler.is_compiling() and x.dim() == 2 and x.size(0) % COLUMN == 0


def _scale(var: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    scale = torch.rsqrt(var + eps)
    return scale if weight is None else scale * weight


def _with_statistics(
    x: Tensor, mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    """Normalise with given statistics: one scale and one shift per channel."""
    scale = _scale(var, weight, eps)
    shift = -mean * scale if bias is None else bias - mean * scale
    return torch.addcmul(_like(x, shift), x, _like(x, scale)).to(x.dtype)


def _blocks(*tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """Cut all alike, along the batch, into blocks that a processor's cache holds."""
    x = tensors[0]
    if x.numel() <= BLOCK or not x.is_cpu:
        return [tensors]
    rows = max(1, BLOCK * x.size(0) // x.numel())
    return list(zip(*(t.split(rows) for t in tensors), strict=True))


def _total(
    counts: list[int], means: list[Tensor], variances: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """Mean and variance of all from those of the parts: the law of total variance."""
    if len(counts) == 1:
        return means[0], variances[0]
    means, variances = torch.stack(means), torch.stack(variances)
    share = means.new_tensor(counts)[:, None] / sum(counts)
    mean = (share * means).sum(0)
    return mean, (share * (variances + (means - mean).square())).sum(0)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel. E[x^2] - E[x]^2 would cancel where the mean is large."""
    if not _in_short_columns(x):
        var, mean = torch.var_mean(x, _axes(x), correction=0)  # Welford's algorithm, one safe pass
        return mean, var
    columns = x.unflatten(0, (-1, COLUMN))
    means = columns.mean(1)
    variances = (columns - means[:, None]).square().mean(1)
    mean = means.mean(0)
    return mean, (variances + (means - mean).square()).mean(0)  # the law of total variance


def _normalize(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The definition: the normalised input, and the mean and biased variance of each channel."""
    mean, var = _moments(x.to(_wide(x.dtype)))
    y = (x - _like(x, mean)) * _like(x, _scale(var, weight, eps))
    if bias is not None:
        y = y + _like(x, bias)
    return y.to(x.dtype), mean, var


def _scale_and_shift_(t: Tensor, scale: Tensor, shift: Tensor | None) -> Tensor:
    """Write t * scale + shift over t, by the way that is faster for its memory layout."""
    if shift is None:
        return t.mul_(_like(t, scale))
    if t.stride(1) == 1:  # channels side by side
        return torch.addcmul(_like(t, shift), t, _like(t, scale), out=t)
    return t.mul_(_like(t, scale)).add_(_like(t, shift))


def _is_mapped(g: Tensor) -> bool:
    """Whether g stands for many tensors, under vmap: it has then no memory of its own."""
    try:
        g.data_ptr()
    except RuntimeError:
        return True
    return False


class _Formula(torch.autograd.Function):
    """The definition with its derivative, in operations that a compiler fuses and differentiates."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x, weight, bias, eps):
        return _normalize(x, weight, bias, eps)

    @staticmethod
    def setup_context(ctx, inputs, output):
        """Keep the input and two numbers per channel.

        ``mean`` and ``var`` are results of this function, so autograd knows where they come from. That
        is what makes the backward differentiable in its turn.
        """
        x, weight, _bias, ctx.eps = inputs
        _y, mean, var = output
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, weight, mean, var)
        ctx.save_for_forward(x, weight, mean, var)

    @staticmethod
    def backward(ctx, g, g_mean, g_var):
        """The gradients, from those with respect to y, mean and var."""
        x, weight, mean, var = ctx.saved_tensors
        g = torch.zeros_like(x) if g is None else g
        m = _values_per_channel(x)
        inverse = torch.rsqrt(var + ctx.eps)
        scale = inverse if weight is None else inverse * weight
        centred = x - _like(x, mean)
        sum_g, sum_gx = _sum(g), _sum(g * centred) * inverse
        x_hat = centred * _like(x, inverse)
        dx = (g - _like(x, sum_g / m) - x_hat * _like(x, sum_gx / m)) * _like(x, scale)
        if g_mean is not None:
            dx = dx + _like(x, g_mean / m)
        if g_var is not None:
            dx = dx + centred * _like(x, 2 * g_var / m)
        _, with_weight, with_bias, _ = ctx.needs_input_grad
        return dx, sum_gx if with_weight else None, sum_g if with_bias else None, None


class BatchNormFunction(_Formula):
    r"""The transform in training mode, with its derivative worked out by hand.

    ``BatchNormFunction.apply(x, weight, bias, eps)`` returns ``y, mean, var``: the normalised input,
    and the mean and biased variance of each channel. ``weight`` and ``bias`` may be None.

    With :math:`g=\partial L/\partial y` and a bar for the mean over the batch and all positions,

    .. math:: \frac{\partial L}{\partial x} = \frac{\gamma}{\sigma}
              \bigl(g - \overline{g} - \hat x\,\overline{g\hat x}\bigr).

    What is saved for it is ``x``, which the layer before has in memory anyway, ``weight``, ``mean``
    and ``var``; :math:`\hat x` is made again. All three results can be differentiated, to any order,
    in forward and reverse mode, and mapped over with ``torch.func.vmap``.

    Examples
    --------
    >>> x = torch.tensor([[1.0], [2.0], [6.0]], requires_grad=True)
    >>> y, mean, var = BatchNormFunction.apply(x, None, None, 0.0)
    >>> y[0].backward()                    # a push on the first example moves all three
    >>> [round(v, 4) for v in x.grad.flatten().tolist()]
    [0.1763, -0.2204, 0.0441]
    """

    generate_vmap_rule = False

    @staticmethod
    def forward(x, weight, bias, eps):
        """The definition, in blocks, in the memory of the result: it holds the squares first."""
        y = torch.empty_like(x, dtype=_wide(x.dtype))
        parts = []
        for part, out in _blocks(x, y):
            m = _values_per_channel(part)
            mean = _sum(part) / m
            squares = torch.sub(part, _like(x, mean), out=out).square_()
            parts.append((m, mean, _sum(squares) / m))
        mean, var = _total(*zip(*parts, strict=True))
        scale = _scale(var, weight, eps)
        for part, out in _blocks(x, y):
            _scale_and_shift_(torch.sub(part, _like(x, mean), out=out), scale, bias)
        return y.to(x.dtype), mean, var

    @staticmethod
    def backward(ctx, g, g_mean, g_var):
        """The formula, in blocks, and in the memory of the result."""
        may_write = g is not None and g_mean is g_var is None and not _is_mapped(g)
        if torch.is_grad_enabled() or not may_write:
            return _Formula.backward(ctx, g, g_mean, g_var)
        x, weight, mean, var = ctx.saved_tensors
        mu = _like(x, mean)
        inverse = torch.rsqrt(var + ctx.eps)
        scale = inverse if weight is None else inverse * weight
        dx = torch.empty_like(x, dtype=mean.dtype)
        sums = [
            (_sum(pull), _sum(torch.sub(part, mu, out=out).mul_(pull)))
            for part, pull, out in _blocks(x, g, dx)
        ]
        sum_g, sum_gx = (functools.reduce(torch.add, s) for s in zip(*sums, strict=True))
        sum_gx = sum_gx * inverse
        by = scale / -_values_per_channel(x)
        slope, shift, scale = sum_gx * inverse * by, sum_g * by, _like(x, scale)
        for part, pull, out in _blocks(x, g, dx):
            _scale_and_shift_(torch.sub(part, mu, out=out), slope, shift).addcmul_(pull, scale)
        _, with_weight, with_bias, _ = ctx.needs_input_grad
        return dx, sum_gx if with_weight else None, sum_g if with_bias else None, None

    @staticmethod
    def jvp(ctx, dx, d_weight, d_bias, _):
        """The derivatives along a change of x, weight and bias."""
        x, weight, mean, var = ctx.saved_tensors
        centred = x - _like(x, mean)
        dx = torch.zeros_like(x) if dx is None else dx
        d_mean = dx.mean(_axes(x), dtype=mean.dtype)
        d_var = 2 * (centred * dx).mean(_axes(x))
        inverse = torch.rsqrt(var + ctx.eps)
        scale = inverse if weight is None else inverse * weight
        d_scale = -0.5 * scale * d_var / (var + ctx.eps)
        if d_weight is not None:
            d_scale = d_scale + inverse * d_weight
        dy = (dx - _like(x, d_mean)) * _like(x, scale) + centred * _like(x, d_scale)
        if d_bias is not None:
            dy = dy + _like(x, d_bias)
        return dy.to(x.dtype), d_mean, d_var

    @staticmethod
    def vmap(info, in_dims, x, weight, bias, eps):
        """Many models side by side are one model with as many times the channels."""
        models = info.batch_size

        def first(v, dim):
            return v.expand(models, *v.shape) if dim is None else v.movedim(dim, 0)

        x = first(x, in_dims[0]).movedim(0, 1)
        weight = None if weight is None else first(weight, in_dims[1]).flatten()
        bias = None if bias is None else first(bias, in_dims[2]).flatten()
        y, mean, var = BatchNormFunction.apply(x.flatten(1, 2), weight, bias, eps)
        parts = y.unflatten(1, (models, -1)), mean.view(models, -1), var.view(models, -1)
        return parts, (1, 0, 0)


# apply() asks for the signature at every call, which takes as long as ten operations on a small batch.
BatchNormFunction.forward.__signature__ = inspect.signature(BatchNormFunction.forward)


def _transform() -> Callable:
    """The form to use: a compiler cannot look into a Function with a jvp, and under ``torch.func`` into
    none at all. (``Function.apply`` asks in the same way whether it is under ``torch.func``.)
    """
    if not torch.compiler.is_compiling():
        return BatchNormFunction.apply
    return _normalize if torch._C._are_functorch_transforms_active() else _Formula.apply


# The layers


class _BatchNorm(nn.Module):
    """The layer for any number of axes; a subclass says how many its input may have."""

    _dims: tuple[int, ...]
    _version = 2  # of the state_dict: 2 added num_batches_tracked

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device=None,
        dtype=None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats

        def new() -> Tensor:
            return torch.empty(num_features, device=device, dtype=dtype)

        def counter() -> Tensor:
            return torch.tensor(0, device=device)

        self.register_parameter("weight", nn.Parameter(new()) if affine else None)
        self.register_parameter("bias", nn.Parameter(new()) if affine and bias else None)
        self.register_buffer("running_mean", new() if track_running_stats else None)
        self.register_buffer("running_var", new() if track_running_stats else None)
        self.register_buffer("num_batches_tracked", counter() if track_running_stats else None)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        if self.track_running_stats:
            self.running_mean.zero_()
            self.running_var.fill_(1)
            self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        self.reset_running_stats()
        if self.weight is not None:
            nn.init.ones_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        use_batch = self.training or (self.running_mean is None and self.running_var is None)
        self._check(input, use_batch)
        track = self.training and self.track_running_stats
        if track and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)

        wide, m = _wide(input.dtype), _values_per_channel(input)
        if not use_batch:
            mean = self.running_mean.clone()  # the backward of this call must not see a later one's
            var = self.running_var.to(wide)
            return _with_statistics(input, mean, var, self.weight, self.bias, self.eps)
        if m == 0:  # no statistics, and nothing to normalise with them
            zero, one = input.new_zeros(1, dtype=wide), input.new_ones(1, dtype=wide)
            return _with_statistics(input, zero, one, self.weight, self.bias, self.eps)

        y, mean, var = _transform()(input, self.weight, self.bias, self.eps)
        if track and self.running_mean is not None:
            self._update(self.running_mean, mean.detach())
            self._update(self.running_var, var.detach() * (m / (m - 1)))  # unbiased
        return y

    def _update(self, running: Tensor, batch: Tensor) -> None:
        alpha = self.momentum
        if alpha is None:  # 1 / n, in a tensor: a Python number would end a compiler's graph
            alpha = 1 / self.num_batches_tracked.to(batch.dtype)
        running.mul_(1 - alpha).add_(alpha * batch)

    def _check(self, x: Tensor, use_batch: bool) -> None:
        name, shape = type(self).__name__, tuple(x.shape)
        if x.dim() not in self._dims:
            expected = " or ".join(f"{d}D" for d in self._dims)
            raise ValueError(f"{name}: expected {expected} input (got {x.dim()}D, shape {shape})")
        if not x.is_floating_point():
            raise NotImplementedError(
                f"{name}: not implemented for {x.dtype} (input of shape {shape}). "
                "Convert the input first, as in x.float()"
            )
        for key in "running_mean", "running_var", "weight", "bias":
            own = getattr(self, key)
            if own is None:
                continue
            if own.numel() != x.size(1):
                raise RuntimeError(
                    f"{name}: {key} should contain {x.size(1)} elements not {own.numel()}. The "
                    f"input of shape {shape} has {x.size(1)} channels (axis 1); make the layer with "
                    f"num_features={x.size(1)}"
                )
            if own.dtype != x.dtype and not (x.dtype in _HALF and own.dtype == torch.float32):
                raise RuntimeError(
                    f"{name}: mixed dtype, the input is {x.dtype} and {key} is {own.dtype}. "
                    f"Convert the input, as in x.to({own.dtype}), or the layer"
                )
        if use_batch and _values_per_channel(x) == 1:
            raise ValueError(
                f"{name}: Expected more than 1 value per channel when training, got input size "
                f"{shape}. Use a larger batch, or eval()"
            )
        if use_batch and self.eps < 0:
            raise ValueError(f"{name}: eps must not be negative, got {self.eps}")

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *args) -> None:
        # A checkpoint from before version 2 has no counter: keep the one that is here.
        if (local_metadata.get("version") or 1) < 2 and self.track_running_stats:
            state_dict.setdefault(prefix + "num_batches_tracked", self.num_batches_tracked)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)


_HALF = (torch.float16, torch.bfloat16)


class BatchNorm1d(_BatchNorm):
    r"""Batch normalization of inputs (N, C) or (N, C, L).

    .. math:: y = \frac{x-\mu}{\sqrt{\sigma^2+\epsilon}}\,\mathrm{weight} + \mathrm{bias}

    Training takes the mean and the biased variance (divided by m) of each channel over the batch
    and all positions. The running averages, which inference uses, take the unbiased variance
    (divided by m - 1). Half precision is computed in float32.

    Parameters
    ----------
    num_features : int
        Number of channels C, the length of axis 1.
    eps : float
        Added to the variance, in its units: the square of those of the input.
    momentum : float or None
        Weight of the new batch in the running averages; None weighs all batches so far equally.
    affine : bool
        Whether to learn ``weight`` (gamma, from 1) and ``bias`` (beta, from 0), shape (C,).
    track_running_stats : bool
        Whether to keep ``running_mean``, ``running_var`` and ``num_batches_tracked``. Without them,
        inference uses the statistics of its batch too.
    device, dtype
        Of parameters and buffers.
    bias : bool
        False leaves out ``bias`` alone.

    Raises
    ------
    ValueError
        At a call: wrong number of axes, or, where the batch's statistics are used, one value per
        channel (the result would be 0 whatever it is) or a negative ``eps``.
    RuntimeError
        At a call: wrong number of channels; or a dtype that is neither the parameters' nor half
        precision under float32 parameters. ``NotImplementedError``, a kind of it, for an input that
        is not floating point.

    References
    ----------
    S. Ioffe, C. Szegedy. *Batch Normalization: Accelerating Deep Network Training by Reducing
    Internal Covariate Shift*. ICML 2015. https://arxiv.org/abs/1502.03167

    Examples
    --------
    >>> layer = BatchNorm1d(2)
    >>> y = layer(torch.tensor([[1.0, 10.0], [3.0, 30.0]]))
    >>> [[round(v, 4) for v in row] for row in y.tolist()]
    [[-1.0, -1.0], [1.0, 1.0]]
    >>> layer.running_mean
    tensor([0.2000, 2.0000])
    """

    _dims = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Batch normalization of images (N, C, H, W). Otherwise as :class:`BatchNorm1d`.

    Examples
    --------
    >>> BatchNorm2d(3)(torch.randn(8, 3, 5, 5)).shape
    torch.Size([8, 3, 5, 5])
    """

    _dims = (4,)


class BatchNorm3d(_BatchNorm):
    """Batch normalization of volumes (N, C, D, H, W). Otherwise as :class:`BatchNorm1d`."""

    _dims = (5,)


# Tools for the batch norm layers of a model


_PAIRS = {
    "bn": {
        nn.BatchNorm1d: BatchNorm1d,
        nn.BatchNorm2d: BatchNorm2d,
        nn.BatchNorm3d: BatchNorm3d,
    },
    "torch": {
        BatchNorm1d: nn.BatchNorm1d,
        BatchNorm2d: nn.BatchNorm2d,
        BatchNorm3d: nn.BatchNorm3d,
    },
}
_NORMS = (_BatchNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def convert(module: nn.Module, to: str = "bn") -> nn.Module:
    """Turn the ``torch.nn.BatchNorm*`` of a model into those of this module, or back, in place.

    The two differ in their code and in nothing that they hold. So each layer stays the object that
    it is, with its parameters, buffers, mode, hooks and every reference to it, an optimiser's too,
    and only its class changes. A subclass, ``torch.nn.SyncBatchNorm`` and layers that are still lazy
    are left alone. What looks for the classes of ``torch.nn``, such as ``torch.fx``, quantization and
    ``SyncBatchNorm.convert_sync_batchnorm``, wants ``to="torch"`` first.

    Parameters
    ----------
    module : torch.nn.Module
        A model, or a batch norm layer.
    to : {"bn", "torch"}
        Whose layers it shall have.

    Returns
    -------
    torch.nn.Module
        ``module`` itself.

    Raises
    ------
    ValueError
        If ``to`` is neither.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    >>> type(convert(model)[1]).__module__
    'bn.nn'
    """
    if to not in _PAIRS:
        raise ValueError(f"convert: to must be 'bn' or 'torch', got {to!r}")
    for layer in module.modules():
        if type(layer) in _PAIRS[to]:
            layer.__class__ = _PAIRS[to][type(layer)]
    return module


def freeze(module: nn.Module) -> nn.Module:
    """Keep a model's batch norm layers as they are now, in training too, in place.

    A frozen layer uses its running statistics, does not move them, and does not learn ``weight`` and
    ``bias``. ``model.train()`` passes it by; :func:`unfreeze` ends it. This is how a network is
    fine-tuned with batches too small for statistics.

    Parameters
    ----------
    module : torch.nn.Module
        A model, or a batch norm layer, of this module or of ``torch.nn``.

    Returns
    -------
    torch.nn.Module
        ``module`` itself.

    Raises
    ------
    ValueError
        If a layer has no running statistics to keep. Nothing is frozen then.

    Examples
    --------
    >>> model = freeze(nn.Sequential(nn.Linear(4, 3), BatchNorm1d(3))).train()
    >>> model[0].training, model[1].training, model[1].weight.requires_grad
    (True, False, False)
    """
    layers = [(name, layer) for name, layer in _norms(module) if not _is_frozen(layer)]
    for name, layer in layers:
        if layer.running_mean is None or layer.running_var is None:
            raise ValueError(
                f"freeze: layer {name!r} has no running statistics (track_running_stats=False), so "
                "it uses those of the batch in every mode"
            )
    for _, layer in layers:
        layer.eval()
        learned = {key: p.requires_grad for key, p in layer.named_parameters()}
        layer.requires_grad_(False)
        layer.train = functools.partial(_stay_frozen, layer, learned)
    return module


def unfreeze(module: nn.Module) -> nn.Module:
    """Undo :func:`freeze`, in place: what learned before learns again, and ``train()`` is heard.

    The layers stay in eval mode until the next ``train()``.

    Parameters
    ----------
    module : torch.nn.Module

    Returns
    -------
    torch.nn.Module
        ``module`` itself.

    Examples
    --------
    >>> layer = unfreeze(freeze(BatchNorm1d(3))).train()
    >>> layer.training, layer.weight.requires_grad
    (True, True)
    """
    for _, layer in _norms(module):
        if _is_frozen(layer):
            for key, learns in layer.train.args[1].items():
                getattr(layer, key).requires_grad_(learns)
            del layer.train
    return module


def _stay_frozen(layer: nn.Module, learned: dict[str, bool], mode: bool = True) -> nn.Module:
    """What ``train`` is for a frozen layer; ``learned`` is for unfreeze."""
    return layer


def _is_frozen(layer: nn.Module) -> bool:
    train = vars(layer).get("train")
    return isinstance(train, functools.partial) and train.func is _stay_frozen


def _norms(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return ((name, layer) for name, layer in module.named_modules() if isinstance(layer, _NORMS))


@torch.no_grad()
def precise_statistics(model: nn.Module, batches: Iterable[Tensor]) -> None:
    r"""Set a model's running statistics to those of a whole data set.

    A moving average forgets, and while the network learns it mixes statistics of many networks. This
    runs the data through the network as it is now. With :math:`n_k` values per channel in batch
    :math:`k`, of mean :math:`\mu_k` and variance :math:`\sigma_k^2`, the law of total variance
    gives those of all the values:

    .. math:: \mu = \sum_k \frac{n_k}{n} \mu_k, \qquad
              \sigma^2 = \sum_k \frac{n_k}{n} \bigl(\sigma_k^2 + (\mu_k - \mu)^2\bigr).

    Exact, however the data are cut into batches, for a layer with no other batch norm before it. One
    further on sees what the earlier ones make of each batch with its own statistics, as in training,
    so large batches are better. Everything but batch norm runs in eval mode: at inference there is
    no dropout either.

    Parameters
    ----------
    model : torch.nn.Module
        Its running statistics change; its modes, its counters ``num_batches_tracked`` and its frozen
        layers do not. A layer that no batch reaches keeps what it has.
    batches : iterable of Tensor
        What the model is called with. For a loader of pairs: ``(x for x, _ in loader)``.

    Raises
    ------
    ValueError
        If no layer keeps running statistics, or there are no batches. If the model raises an error,
        nothing has changed.

    References
    ----------
    Y. Wu, J. Johnson. *Rethinking "Batch" in BatchNorm*. 2021. https://arxiv.org/abs/2105.07576

    Examples
    --------
    >>> layer = BatchNorm1d(1)
    >>> precise_statistics(layer, [torch.tensor([[1.0], [3.0]]), torch.tensor([[2.0], [6.0]])])
    >>> layer.running_mean, layer.running_var
    (tensor([3.]), tensor([3.5000]))
    """
    layers = [
        layer
        for _, layer in _norms(model)
        if layer.track_running_stats and layer.running_mean is not None and not _is_frozen(layer)
    ]
    if not layers:
        raise ValueError(
            f"precise_statistics: {type(model).__name__} has no batch norm layer that keeps running "
            "statistics and is not frozen"
        )
    seen = {layer: [] for layer in layers}

    def record(layer, args):
        x = args[0].double()
        if _values_per_channel(x):
            var, mean = torch.var_mean(x, _axes(x), correction=0)
            seen[layer].append((_values_per_channel(x), mean, var))

    modes = {module: module.training for module in model.modules()}
    hooks = [layer.register_forward_pre_hook(record) for layer in layers]
    try:
        model.eval()
        for layer in layers:
            layer.training, layer.track_running_stats = True, False  # use the batch, move nothing
        for batch in batches:
            model(batch)
    finally:
        for hook in hooks:
            hook.remove()
        for layer in layers:
            layer.track_running_stats = True
        for module, mode in modes.items():
            module.training = mode
    if not any(seen.values()):
        raise ValueError("precise_statistics: there are no batches, or they are empty")
    for layer, parts in seen.items():
        if parts:
            mean, var = _total(*zip(*parts, strict=True))
            layer.running_mean.copy_(mean)
            layer.running_var.copy_(var)


_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_FOLDABLE = (nn.Linear, *_CONVOLUTIONS, *_TRANSPOSED)


@torch.no_grad()
def fold_pair(layer: nn.Module, norm: nn.Module) -> nn.Module:
    r"""Give the one layer that does what ``layer`` followed by ``norm`` does at inference.

    With fixed statistics batch norm is a scale and a shift of each output channel, which the layer's
    own weight and bias can take over, with :math:`s = \gamma/\sqrt{\sigma^2+\epsilon}`:

    .. math:: W' = s\,W, \qquad b' = s\,(b-\mu) + \beta.

    Parameters
    ----------
    layer : torch.nn.Linear, Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
        Not changed. A Linear is taken to see inputs of shape (N, features): between the axes of a
        longer input and the channels of the batch norm behind it, there is no telling here.
    norm : BatchNorm1d, BatchNorm2d, BatchNorm3d, of this module or of torch.nn
        Not changed. Its running statistics are used, whatever its mode.

    Returns
    -------
    torch.nn.Module
        A new layer of the type of ``layer``, in eval mode, with a bias.

    Raises
    ------
    TypeError
        If one of them is of another type.
    ValueError
        If their numbers of channels differ, or ``norm`` has no running statistics.

    Examples
    --------
    >>> layer, norm = nn.Linear(4, 3), BatchNorm1d(3).eval()
    >>> x = torch.randn(5, 4)
    >>> torch.allclose(fold_pair(layer, norm)(x), norm(layer(x)), atol=1e-6)
    True
    """
    if type(layer) not in _FOLDABLE:
        names = ", ".join(cls.__name__ for cls in _FOLDABLE)
        raise TypeError(f"fold_pair: the layer must be one of {names}, got {type(layer).__name__}")
    if not isinstance(norm, _NORMS):
        raise TypeError(
            f"fold_pair: the norm must be a batch norm layer, got {type(norm).__name__}"
        )
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError(
            "fold_pair: the norm has no running statistics (track_running_stats=False): what it does "
            "depends on the batch, and no weight can hold that"
        )
    transposed = isinstance(layer, _TRANSPOSED)
    channels = layer.weight.size(1) * layer.groups if transposed else layer.weight.size(0)
    if channels != norm.num_features:
        raise ValueError(
            f"fold_pair: the layer has {channels} output channels, the norm {norm.num_features}"
        )
    scale = _scale(norm.running_var, norm.weight, norm.eps)
    shift = -norm.running_mean if layer.bias is None else layer.bias - norm.running_mean
    bias = scale * shift
    if norm.bias is not None:
        bias = bias + norm.bias
    if transposed:
        # weight is (in, out / groups, ...), and each group of inputs has its own outputs
        grouped = layer.weight.unflatten(0, (layer.groups, -1))
        by_output = scale.view(layer.groups, 1, -1, *[1] * (layer.weight.dim() - 2))
        weight = (grouped * by_output).flatten(0, 1)
    else:
        weight = layer.weight * scale.view(-1, *[1] * (layer.weight.dim() - 1))
    folded = copy.deepcopy(layer).eval()
    learns = layer.weight.requires_grad
    folded.weight = nn.Parameter(weight.to(layer.weight.dtype), learns)
    folded.bias = nn.Parameter(bias.to(layer.weight.dtype), learns)
    return folded


def fold(model: nn.Module) -> nn.Module:
    """Copy a model for inference, with each batch norm folded into the layer in front of it.

    Only ``torch.nn.Sequential`` says what comes after what, so pairs are found there, also across
    the border of one Sequential inside another, and in Sequentials anywhere in the model. A folded
    batch norm becomes ``torch.nn.Identity``, so no other layer changes its name.

    Left as they are: a batch norm behind anything but the layers of :func:`fold_pair`; one without
    running statistics; a pair of which one has hooks or a parametrization, or is used in more
    than one place. In a module with a ``forward`` of its own, use :func:`fold_pair`.

    Parameters
    ----------
    model : torch.nn.Module
        Not changed.

    Returns
    -------
    torch.nn.Module
        In eval mode. To rounding, what ``model.eval()`` computes.

    Raises
    ------
    ValueError
        If a pair does not fit together: the model itself could not run.

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), BatchNorm2d(2), nn.ReLU())
    >>> [type(layer).__name__ for layer in fold(model)]
    ['Conv2d', 'Identity', 'ReLU']
    """
    model = copy.deepcopy(model).eval()
    uses = Counter(module for _, module in model.named_modules(remove_duplicate=False))
    for chain in _chains(model):
        for (owner, name), (next_owner, next_name) in itertools.pairwise(chain):
            layer, norm = getattr(owner, name), getattr(next_owner, next_name)
            if (
                type(layer) in _FOLDABLE
                and isinstance(norm, _NORMS)
                and norm.running_mean is not None
                and not (_has_hooks(layer) or _has_hooks(norm))
                and uses[layer] == uses[norm] == 1
            ):
                setattr(owner, name, fold_pair(layer, norm))
                setattr(next_owner, next_name, nn.Identity())
    return model


def _chains(model: nn.Module) -> list[list[tuple[nn.Module, str]]]:
    """The runs of modules called one after the other, each as (owner, name of the attribute)."""

    def transparent(module: nn.Module) -> bool:
        return _is_sequence(module) and not _has_hooks(module)

    def flat(sequence: nn.Module) -> Iterator[tuple[nn.Module, str]]:
        for name, child in sequence._modules.items():  # children() leaves out repetitions
            if transparent(child):
                yield from flat(child)
            else:
                yield sequence, name

    sequences = [module for module in model.modules() if _is_sequence(module)]
    inner = {child for module in sequences for child in module.children() if transparent(child)}
    return [list(flat(module)) for module in sequences if module not in inner]


def _is_sequence(module: nn.Module) -> bool:
    return type(module).forward is nn.Sequential.forward


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)
