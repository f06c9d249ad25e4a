"""Layer, instance, group and RMS norm: the same transform over other axes, against torch's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from bn.functional import (
    batch_norm_backward,
    group_norm,
    instance_norm,
    layer_norm,
    rms_norm,
)

torch = pytest.importorskip("torch")
F = torch.nn.functional

LAYOUTS = {
    "C": lambda x: x.copy(order="C"),
    "Fortran": lambda x: x.copy(order="F"),
    "strided": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "reversed": lambda x: x[::-1].copy()[::-1],
}


NORMS = {
    "layer": lambda x, gamma, beta, how, eps: layer_norm(x, gamma, beta, axis=how, eps=eps),
    "instance": lambda x, gamma, beta, how, eps: instance_norm(x, gamma, beta, eps=eps),
    "group": lambda x, gamma, beta, how, eps: group_norm(x, gamma, beta, how, eps=eps),
    "rms": lambda x, gamma, beta, how, eps: rms_norm(x, gamma, axis=how, eps=eps),
}
TORCHS = {
    "layer": lambda x, gamma, beta, how, eps: F.layer_norm(x, gamma.shape, gamma, beta, eps),
    "instance": lambda x, gamma, beta, how, eps: F.instance_norm(
        x, weight=gamma, bias=beta, eps=eps
    ),
    "group": lambda x, gamma, beta, how, eps: F.group_norm(x, how, gamma, beta, eps),
    "rms": lambda x, gamma, beta, how, eps: F.rms_norm(x, gamma.shape, gamma, eps),
}


@st.composite
def cases(draw, names=tuple(NORMS)):
    """A norm's name, x, gamma, beta, g, and its axes or its number of groups."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    name = draw(st.sampled_from(names))
    if name in ("layer", "rms"):
        shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
        last = draw(st.integers(1, len(shape)))  # torch averages over the last axes only
        if name == "layer" and np.prod(shape[-last:]) == 1:
            shape[-1] = 3
        own, how = tuple(shape[-last:]), tuple(range(-last, 0))
    else:
        groups, per_group = draw(st.integers(1, 3)), draw(st.integers(1, 3))
        positions = draw(st.lists(st.integers(1, 3), max_size=3))
        if name == "instance":
            positions = [*positions, draw(st.integers(2, 4))]
        elif per_group * np.prod(positions) == 1:
            per_group = 2
        own, how = (groups * per_group,), groups
        shape = [draw(st.integers(1, 3)), *own, *positions]
    x = draw(st.sampled_from([0.0, -30.0])) + rng.normal(size=shape)
    arrays = [x, rng.normal(size=own), rng.normal(size=own), rng.normal(size=shape)]
    arrays = [LAYOUTS[draw(st.sampled_from(sorted(LAYOUTS)))](a) for a in arrays]
    for a in arrays:
        a.flags.writeable = False
    return name, *arrays, how


def both(case, eps):
    """y, dx, dgamma, dbeta: here, and torch's."""
    name, x, gamma, beta, g, how = case
    y, cache = NORMS[name](x, gamma, beta, how, eps)
    tx, tgamma, tbeta = (torch.tensor(a.copy(), requires_grad=True) for a in (x, gamma, beta))
    ty = TORCHS[name](tx, tgamma, tbeta, how, eps)
    ty.backward(torch.tensor(g.copy()))
    theirs = [
        None if a is None else a.detach().numpy() for a in (ty, tx.grad, tgamma.grad, tbeta.grad)
    ]
    return (y, *batch_norm_backward(g, cache)), theirs, 1 / cache.sigma.min()


@settings(deadline=None, max_examples=300)
@given(cases(), st.sampled_from([1e-6, 1e-5, 1.0]))
def test_outputs_and_gradients_are_torchs(case, eps):
    ours, theirs, gain = both(case, eps)
    assert (ours[3] is None) == (theirs[3] is None) == (case[0] == "rms")
    # x is rounded to 4e-15 where it lies near -30, which x_hat sees divided by sigma
    for a, b, scale in zip(ours, theirs, (gain, gain**2, gain, 1), strict=True):
        if a is not None:
            assert a.shape == b.shape
            assert_allclose(a, b, rtol=1e-12, atol=1e-12 * max(scale, 1))
