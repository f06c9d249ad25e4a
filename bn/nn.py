r"""Batch normalization for PyTorch, written out: drop-in for ``torch.nn.BatchNorm1d``, ``2d``, ``3d``.

Training normalises each channel with the statistics of the batch and lets the gradient flow through
them; inference uses running averages of those statistics. Autograd differentiates the plain
operations below, to any order.

What can be seen from outside follows ``torch.nn``: arguments, names of parameters and buffers,
``state_dict`` in both directions, results, kinds of errors. Four things differ. A call that fails
changes no buffer. ``eps=0`` is allowed. An empty batch must still have the right number of channels
and a floating dtype. The gradient of a call in ``eval`` mode stays right if a call in training moves
the running statistics before ``backward``
(`pytorch#13402 <https://github.com/pytorch/pytorch/issues/13402>`_).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["BatchNorm1d", "BatchNorm2d", "BatchNorm3d"]


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
        # A variance needs more range and digits than half precision has.
        x = input.float() if input.dtype in _HALF else input

        def per_channel(v: Tensor) -> Tensor:  # (C,) to (C, 1, ...), which broadcasts against x
            return v.view(-1, *[1] * (x.dim() - 2))

        track = self.training and self.track_running_stats
        if track and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)

        m = _values_per_channel(x)
        if not use_batch:
            centred = x - per_channel(self.running_mean)
            var = per_channel(self.running_var)
        elif m == 0:  # no statistics, and nothing to normalise with them
            centred, var = x, x.new_ones(1)
        else:
            axes = [a for a in range(x.dim()) if a != 1]
            mean = x.mean(axes, keepdim=True)
            centred = x - mean
            var = centred.square().mean(axes, keepdim=True)
            if track and self.running_mean is not None:
                self._update(self.running_mean, mean.detach())
                self._update(self.running_var, var.detach() * (m / (m - 1)))  # unbiased

        scale = torch.rsqrt(var + self.eps)
        if self.weight is not None:
            scale = scale * per_channel(self.weight)
        y = centred * scale
        if self.bias is not None:
            y = y + per_channel(self.bias)
        return y.to(input.dtype)

    def _update(self, running: Tensor, batch: Tensor) -> None:
        alpha = self.momentum
        if alpha is None:
            alpha = 1.0 / float(self.num_batches_tracked)
        running.copy_((1 - alpha) * running + alpha * batch.flatten())

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


def _values_per_channel(x: Tensor) -> int:
    return x.size(0) * math.prod(x.shape[2:])


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
