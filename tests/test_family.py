"""Layer, instance, group and RMS norm: the same transform over other axes, against torch's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from bn.functional import (
    batch_norm,
    batch_norm_backward,
    group_norm,
    instance_norm,
    layer_norm,
    rms_norm,
    standardize,
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


@settings(deadline=None, max_examples=200)
@given(cases(), st.sampled_from([1e-6, 1e-5, 1.0]))
def test_outputs_and_gradients_are_torchs(case, eps):
    ours, theirs, gain = both(case, eps)
    assert (ours[3] is None) == (theirs[3] is None) == (case[0] == "rms")
    # x is rounded to 4e-15 where it lies near -30, which x_hat sees divided by sigma
    for a, b, scale in zip(ours, theirs, (gain, gain**2, gain, 1), strict=True):
        if a is not None:
            assert a.shape == b.shape
            assert_allclose(a, b, rtol=1e-12, atol=1e-12 * max(scale, 1))


@settings(deadline=None, max_examples=50)
@given(cases(), st.sampled_from([np.float16, np.float32, np.longdouble]))
def test_other_dtypes_are_the_wide_result_rounded_once(case, dtype):
    name, *arrays, how = case
    x, gamma, beta, g = narrow = [a.astype(dtype) for a in arrays]
    wide_x, wide_gamma, wide_beta, wide_g = (a.astype(np.float64) for a in narrow)
    y, cache = NORMS[name](x, gamma, beta, how, 1e-3)
    wide_y, wide_cache = NORMS[name](wide_x, wide_gamma, wide_beta, how, 1e-3)
    ours, wide = batch_norm_backward(g, cache), batch_norm_backward(wide_g, wide_cache)
    assert y.dtype == ours[0].dtype == dtype
    assert ours[1].dtype == np.promote_types(dtype, np.float32)
    digits = max(np.finfo(dtype).eps, 1e-13)
    for a, b in zip((y, *ours), (wide_y, *wide), strict=True):
        if a is not None:
            assert_allclose(a, b, rtol=digits, atol=1e-7 if dtype == np.float16 else 1e-11)


# The same transform, other axes


def assert_same(one, other):
    """Outputs and gradients of two calls."""
    for a, b in zip(one, other, strict=True):
        assert_allclose(a, b, rtol=0, atol=1e-12)


def run(forward, x, gamma, beta, g, **options):
    y, cache = forward(x, gamma, beta, **options)
    return y, *batch_norm_backward(g, cache)


def draws(*shapes):
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape) for shape in shapes]


def test_layer_norm_is_batch_norm_of_the_transpose():
    x, g = draws((5, 7), (5, 7))
    # gamma and beta stay with the features, so only 1 and 0 mean the same on both sides
    y, dx, dgamma, dbeta = run(layer_norm, x, np.ones(7), np.zeros(7), g)
    y_t, dx_t, _, _ = run(batch_norm, x.T, np.ones(5), np.zeros(5), g.T)
    assert_same((y, dx), (y_t.T, dx_t.T))
    assert_allclose(dgamma, (g * y).sum(0), atol=1e-12)
    assert_allclose(dbeta, g.sum(0), atol=1e-12)


@pytest.mark.parametrize("axis", [1, (1,), (0, 1), (1, 0), (-1, 0), (0, 2), None])
def test_layer_norm_takes_any_axes_in_any_order(axis):
    x, g = draws((3, 4, 2), (3, 4, 2))
    axes = range(3) if axis is None else sorted(a % 3 for a in np.atleast_1d(axis))
    own = tuple(x.shape[a] for a in axes)
    gamma, beta = draws(own, own)
    # the averaged axes moved to the end, where torch has them
    order = [*(a for a in range(3) if a not in axes), *axes]
    back = np.argsort(order)
    tx, tgamma, tbeta = (
        torch.tensor(a.copy(), requires_grad=True) for a in (x.transpose(order), gamma, beta)
    )
    ty = F.layer_norm(tx, own, tgamma, tbeta)
    ty.backward(torch.tensor(g.transpose(order).copy()))
    theirs = [a.detach().numpy() for a in (ty, tx.grad, tgamma.grad, tbeta.grad)]
    theirs[:2] = (a.transpose(back) for a in theirs[:2])
    assert_same(run(layer_norm, x, gamma, beta, g, axis=axis), theirs)

    ty = F.rms_norm(tx, own, tgamma, 1e-5)
    y, cache = rms_norm(x, gamma, axis=axis)
    assert_allclose(y, ty.detach().numpy().transpose(back), atol=1e-13)
    assert cache.var.shape == x.mean(tuple(axes)).shape


def test_instance_norm_is_batch_norm_of_every_image_alone():
    x, g, gamma, beta = draws((4, 3, 2, 5), (4, 3, 2, 5), 3, 3)
    y, dx, dgamma, dbeta = run(instance_norm, x, gamma, beta, g)
    alone = [run(batch_norm, x[i, None], gamma, beta, g[i, None], axis=(0, 2, 3)) for i in range(4)]
    assert_same((y, dx), (np.concatenate([a[k] for a in alone]) for k in (0, 1)))
    assert_same((dgamma, dbeta), (sum(a[k] for a in alone) for k in (2, 3)))


def test_one_group_is_layer_norm_and_a_group_per_channel_instance_norm():
    x, g, gamma, beta = draws((4, 6, 2, 3), (4, 6, 2, 3), 6, 6)
    assert_same(run(group_norm, x, gamma, beta, g, groups=6), run(instance_norm, x, gamma, beta, g))
    y, dx, dgamma, dbeta = run(group_norm, x, gamma, beta, g, groups=1)
    wide = [np.broadcast_to(a[:, None, None], (6, 2, 3)) for a in (gamma, beta)]
    whole = run(layer_norm, x, *wide, g, axis=(1, 2, 3))
    assert_same((y, dx), whole[:2])
    assert_same((dgamma, dbeta), (a.sum((1, 2)) for a in whole[2:]))


def test_groups_are_neighbouring_channels():
    x = np.array([[0.0, 2.0, 100.0, 300.0]])
    y, cache = group_norm(x, np.ones(4), np.zeros(4), 2, eps=0)
    assert y.tolist() == [[-1, 1, -1, 1]]
    assert cache.mean.tolist() == [[1, 200]]
    assert cache.var.tolist() == [[1, 10_000]]
    assert cache.m == 2


def test_rms_norm_is_layer_norm_where_the_mean_is_zero():
    x, g, gamma = draws((5, 7), (5, 7), 7)
    x -= x.mean(1, keepdims=True)
    y, dx, dgamma, none = run(lambda x, gamma, beta: rms_norm(x, gamma), x, gamma, None, g)
    layer = run(layer_norm, x, gamma, np.zeros(7), g)
    assert none is None
    assert_same((y, dgamma), (layer[0], layer[2]))
    # the gradient keeps the mean that layer norm removes
    assert_same([dx - dx.mean(1, keepdims=True)], [layer[1]])
    assert np.abs(dx.mean(1)).min() > 1e-3


@pytest.mark.parametrize("m", [1, 2, 10])
@pytest.mark.parametrize("eps", [0.0, 0.3])
def test_the_jacobian_of_rms_norm_loses_one_direction(m, eps):
    x = np.random.default_rng(m).normal(size=m)
    _, cache = rms_norm(x, np.ones(m), eps=eps)
    jacobian = np.array([batch_norm_backward(e, cache)[0] for e in np.eye(m)])
    square = (x**2).mean()
    sigma = np.sqrt(square + eps)
    assert_allclose(jacobian * sigma, np.eye(m) - np.outer(x, x) / sigma**2 / m, atol=1e-14)
    expected = [eps / (square + eps), *[1] * (m - 1)]
    assert_allclose(np.linalg.eigvalsh(jacobian * sigma), expected, atol=1e-13)


# Against finite differences


@settings(deadline=None, max_examples=20)
@given(cases())
def test_backward_is_the_derivative(case):
    name, x, gamma, beta, g, how = case

    def loss(x, gamma, beta):
        return (g * NORMS[name](x, gamma, beta, how, 0.1)[0]).sum()

    grads = batch_norm_backward(g, NORMS[name](x, gamma, beta, how, 0.1)[1])
    rng, h = np.random.default_rng(0), 1e-5
    for i, grad in enumerate(grads):
        if grad is None:
            continue
        # one random direction sees every component
        direction = rng.normal(size=grad.shape)
        up, down = [x, gamma, beta], [x, gamma, beta]
        up[i], down[i] = up[i] + h * direction, down[i] - h * direction
        numeric = (loss(*up) - loss(*down)) / (2 * h)
        assert_allclose((grad * direction).sum(), numeric, rtol=1e-6, atol=1e-6)


# Invariances


def test_what_scaling_and_shifting_an_example_changes():
    x, gamma, beta = draws((5, 8, 3), 8, 8)
    a, b = np.array([0.1, 1, 7, 30, 1e3])[:, None, None], np.arange(5.0)[:, None, None]
    wide = [np.broadcast_to(v[:, None], (8, 3)) for v in (gamma, beta)]
    for norm in (
        lambda x: layer_norm(x, *wide, axis=(1, 2), eps=0)[0],
        lambda x: instance_norm(x, gamma, beta, eps=0)[0],
        lambda x: group_norm(x, gamma, beta, 4, eps=0)[0],
    ):
        assert_allclose(norm(a * x + b), norm(x), atol=1e-11)
    rms = lambda x: rms_norm(x, wide[0], axis=(1, 2), eps=0)[0]  # noqa: E731
    assert_allclose(rms(a * x), rms(x), atol=1e-13)
    assert np.abs(rms(x + 1) - rms(x)).max() > 0.1


def test_no_example_touches_another():
    x, g, gamma, beta = draws((5, 4, 3), (5, 4, 3), 4, 4)
    wide = [np.broadcast_to(v[:, None], (4, 3)) for v in (gamma, beta)]
    for norm in (
        lambda x: layer_norm(x, *wide, axis=(1, 2)),
        lambda x: instance_norm(x, gamma, beta),
        lambda x: group_norm(x, gamma, beta, 2),
        lambda x: rms_norm(x, wide[0], axis=(1, 2)),
    ):
        y, cache = norm(x)
        dx = batch_norm_backward(g, cache)[0]
        for bad in np.nan, np.inf, 1e200:
            other = x.copy()
            other[2] = bad
            with np.errstate(invalid="ignore", over="ignore"):
                y2, cache = norm(other)
                dx2 = batch_norm_backward(g, cache)[0]
            rest = [0, 1, 3, 4]
            assert_array_equal(y2[rest], y[rest])
            assert_array_equal(dx2[rest], dx[rest])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("eps", [0, 1e-5])
def test_nothing_in_nothing_out(eps):
    for x, own, norm in (
        (np.empty((0, 5)), 5, lambda *a: layer_norm(*a, eps=eps)),
        (np.empty((5, 0)), 0, lambda *a: layer_norm(*a, eps=eps)),
        (np.empty((0, 4, 3)), 4, lambda *a: instance_norm(*a, eps=eps)),
        (np.empty((2, 4, 0)), 4, lambda *a: instance_norm(*a, eps=eps)),
        (np.empty((0, 4)), 4, lambda *a: group_norm(*a, 2, eps=eps)),
        (np.empty((2, 4, 0)), 4, lambda *a: group_norm(*a, 2, eps=eps)),
        (np.empty((2, 0, 3)), 0, lambda *a: group_norm(*a, 2, eps=eps)),
        (np.empty((0, 5)), 5, lambda x, gamma, _: rms_norm(x, gamma, eps=eps)),
        (np.empty((5, 0)), 0, lambda x, gamma, _: rms_norm(x, gamma, eps=eps)),
    ):
        y, cache = norm(x, np.ones(own), np.zeros(own))
        dx, dgamma, _ = batch_norm_backward(x, cache)
        assert y.shape == dx.shape == x.shape
        assert_array_equal(dgamma, np.zeros(own))


def test_what_the_caller_changes_afterwards_does_not_matter():
    x, g, gamma, beta = draws((6, 4), (6, 4), 4, 4)
    for norm in (
        lambda: layer_norm(x, gamma, beta),
        lambda: group_norm(x, gamma, beta, 2),
        lambda: rms_norm(x, gamma),
    ):
        y, cache = norm()
        expected = batch_norm_backward(g, cache)
        kept = [a.copy() for a in (x, gamma, beta)]
        for a in (x, y, gamma, beta):
            a[:] = 7.0
        for now, then in zip(batch_norm_backward(g, cache), expected, strict=True):
            assert_array_equal(now, then)
        x[:], gamma[:], beta[:] = kept


def test_where_bn_refuses_a_value_that_is_its_own_mean_torch_returns_beta():
    x, beta = torch.tensor(draws((4, 3))[0]), torch.tensor([1.0, 2.0, 3.0]).double()
    for theirs, expected in (
        (F.layer_norm(x[:, :1], (1,), None, beta[:1]), beta[:1]),
        (F.group_norm(x, 3, None, beta), beta),
    ):
        assert_allclose(theirs, expected.expand(theirs.shape), rtol=1e-12)
    with pytest.raises(ValueError, match="more than 1 value"):
        F.group_norm(x[:1], 3, None, beta)


# Bad input

X = standardize(np.arange(24.0).reshape(4, 6))

BAD = {
    "layer, integers": (TypeError, "int64", lambda: layer_norm([[1, 2]], np.ones(2), np.ones(2))),
    "layer, one feature": (
        ValueError, "more than 1 value per example, got x of shape (4, 1)",
        lambda: layer_norm(np.ones((4, 1)), [1.0], [0.0]),
    ),
    "layer, gamma of the examples": (
        ValueError, "gamma must have shape (6,)", lambda: layer_norm(X, np.ones(4), np.ones(4)),
    ),
    "layer, eps": (ValueError, "eps", lambda: layer_norm(X, np.ones(6), np.ones(6), eps=-1)),
    "layer, axis": (ValueError, "axis 2", lambda: layer_norm(X, np.ones(6), np.ones(6), axis=2)),
    "instance, integers": (
        TypeError, "int64", lambda: instance_norm(np.ones((1, 1, 2), int), [1.0], [0.0]),
    ),
    "instance, no channels": (
        ValueError, "(N, C, ...), got (3,)", lambda: instance_norm(np.ones(3), np.ones(3), np.ones(3)),
    ),
    "instance, no positions": (
        ValueError, "per channel of an example, got x of shape (4, 6)",
        lambda: instance_norm(X, np.ones(6), np.ones(6)),
    ),
    "instance, beta": (
        ValueError, "beta must have shape (6,)",
        lambda: instance_norm(X[..., None] * [1, 2], np.ones(6), np.ones((6, 2))),
    ),
    "group, does not divide": (
        ValueError, "4 groups do not divide the 6 channels of x (4, 6)",
        lambda: group_norm(X, np.ones(6), np.ones(6), 4),
    ),
    "group, none": (ValueError, "0 groups", lambda: group_norm(X, np.ones(6), np.ones(6), 0)),
    "group, negative": (ValueError, "-1 groups", lambda: group_norm(X, np.ones(6), np.ones(6), -1)),
    "group, a fraction": (
        TypeError, "integer", lambda: group_norm(X, np.ones(6), np.ones(6), 2.0),
    ),
    "group, one value": (
        ValueError, "6 channels take fewer groups",
        lambda: group_norm(X, np.ones(6), np.ones(6), 6),
    ),
    "group, gamma": (
        ValueError, "gamma must have shape (6,)", lambda: group_norm(X, np.ones(2), np.ones(6), 2),
    ),
    "group, beta split": (
        ValueError, "beta must have shape (6,)",
        lambda: group_norm(X, np.ones(6), np.ones((2, 3)), 2),
    ),
    "rms, integers": (TypeError, "int64", lambda: rms_norm([[1, 2]], np.ones(2))),
    "rms, gamma": (ValueError, "gamma must have shape (6,)", lambda: rms_norm(X, np.ones(4))),
    "rms, eps": (ValueError, "eps", lambda: rms_norm(X, np.ones(6), eps=-1e-9)),
    "g of the groups' shape": (
        ValueError, "(4, 6), got (4, 2, 3)",
        lambda: batch_norm_backward(
            np.ones((4, 2, 3)), group_norm(X, np.ones(6), np.ones(6), 2)[1]
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("error", "says", "call"), BAD.values(), ids=BAD)
def test_bad_input_is_named(error, says, call):
    with pytest.raises(error) as caught:
        call()
    assert says in str(caught.value)
