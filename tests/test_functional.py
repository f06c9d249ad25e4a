"""The NumPy transform: against torch in float64, against closed forms, and on bad input."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import bn
from bn.functional import (
    batch_norm,
    batch_norm_backward,
    batch_norm_inference,
    moments,
    standardize,
    update_running,
)

torch = pytest.importorskip("torch")

LAYOUTS = {
    "C": lambda x: x.copy(order="C"),
    "Fortran": lambda x: x.copy(order="F"),
    "strided": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "reversed": lambda x: x[::-1].copy()[::-1],
}


@st.composite
def cases(draw, dtype=np.float64):
    """x, gamma, beta, g, axis: any number of axes, any of them averaged, any layout, read-only."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.lists(st.integers(1, 5), min_size=1, max_size=5))
    axis = draw(st.sets(st.integers(0, len(shape) - 1), min_size=1))
    if np.prod([shape[a] for a in axis]) == 1:
        shape[max(axis)] = draw(st.integers(2, 5))
    kept = [n for a, n in enumerate(shape) if a not in axis]
    scale, offset = draw(st.sampled_from([1e-3, 1.0, 1e3])), draw(st.sampled_from([0.0, 1.0, -1e3]))
    x = offset + scale * rng.normal(size=shape)
    arrays = [x, rng.normal(size=kept), rng.normal(size=kept), rng.normal(size=shape)]
    layout = LAYOUTS[draw(st.sampled_from(sorted(LAYOUTS)))]
    arrays = [layout(a.astype(dtype)) if a.ndim else a.astype(dtype) for a in arrays]
    for a in arrays:
        a.flags.writeable = False
    # numpy's own spellings: negative axes, any order, a bare integer
    axis = draw(st.permutations([a - len(shape) * draw(st.booleans()) for a in axis]))
    return *arrays, axis[0] if len(axis) == 1 and draw(st.booleans()) else tuple(axis)


def as_rows(x, axis):
    """x as a matrix, one column per channel, and the way back."""
    axis = np.atleast_1d(axis) % x.ndim
    order = [*axis, *(a for a in range(x.ndim) if a not in axis)]
    moved = x.transpose(order)
    m = int(np.prod([x.shape[a] for a in axis]))
    return (
        moved.reshape(m, -1),
        lambda rows: rows.reshape(moved.shape).transpose(np.argsort(order)),
    )


def condition(x, axis):
    """How much rounding x's own digits can move x_hat: |x| in standard deviations."""
    return 1 + (np.abs(x) / np.sqrt(x.var(axis, keepdims=True) + 1e-12)).max()


# Against torch, in float64


@settings(deadline=None, max_examples=300)
@given(cases(), st.sampled_from([1e-10, 1e-5, 1e-3, 1.0]))
def test_forward_and_backward_are_torchs(case, eps):
    x, gamma, beta, g, axis = case
    before = x.copy(), gamma.copy(), beta.copy(), g.copy()
    y, cache = batch_norm(x, gamma, beta, axis=axis, eps=eps)
    dx, dgamma, dbeta = batch_norm_backward(g, cache)

    rows, back = as_rows(x, axis)
    tx, tgamma, tbeta = (
        torch.tensor(np.ascontiguousarray(a), requires_grad=True)
        for a in (rows, gamma.reshape(-1), beta.reshape(-1))
    )
    ty = torch.nn.functional.batch_norm(tx, None, None, tgamma, tbeta, training=True, eps=eps)
    ty.backward(torch.tensor(np.ascontiguousarray(as_rows(g, axis)[0])))

    kappa = condition(x, axis)
    gain = (np.abs(gamma) / np.sqrt(x.var(tuple(np.atleast_1d(axis))) + eps)).max()
    assert_allclose(y, back(ty.detach().numpy()), rtol=0, atol=1e-14 * kappa * 10)
    assert_allclose(dx, back(tx.grad.numpy()), rtol=0, atol=1e-14 * kappa * 100 * gain)
    assert_allclose(dgamma, tgamma.grad.numpy().reshape(gamma.shape), rtol=0, atol=1e-12 * kappa)
    assert_allclose(dbeta, tbeta.grad.numpy().reshape(beta.shape), rtol=0, atol=1e-12)
    assert y.shape == dx.shape == x.shape
    assert dgamma.shape == dbeta.shape == gamma.shape
    for now, then in zip((x, gamma, beta, g), before, strict=True):
        assert_array_equal(now, then)


@settings(deadline=None, max_examples=100)
@given(cases(), st.sampled_from([1e-10, 1e-5, 1.0]))
def test_inference_is_torchs(case, eps):
    x, gamma, beta, _, axis = case
    rng = np.random.default_rng(0)
    mean, var = rng.normal(size=gamma.shape), rng.uniform(0.1, 2, size=gamma.shape)
    y = batch_norm_inference(x, gamma, beta, mean, var, axis=axis, eps=eps)
    rows, back = as_rows(x, axis)
    stats = [torch.tensor(a.reshape(-1).copy()) for a in (mean, var, gamma, beta)]
    ty = torch.nn.functional.batch_norm(torch.tensor(np.ascontiguousarray(rows)), *stats, eps=eps)
    assert_allclose(y, back(ty.numpy()), rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("momentum", [0.1, 0.5, 1.0, 0.0])
def test_running_averages_are_torchs(momentum):
    rng = np.random.default_rng(0)
    layer = torch.nn.BatchNorm2d(3, momentum=momentum, dtype=torch.float64)
    mean, var = np.zeros(3), np.ones(3)
    for n in range(2, 7):
        x = rng.normal(2, 3, size=(n, 3, 2, 2))
        layer(torch.tensor(x))
        batch_mean, batch_var = moments(x, axis=(0, 2, 3))
        mean = update_running(mean, batch_mean, momentum)
        var = update_running(var, batch_var, momentum, m=4 * n)
    assert_allclose(mean, layer.running_mean.numpy(), rtol=1e-13)
    assert_allclose(var, layer.running_var.numpy(), rtol=1e-13)


def test_momentum_one_over_n_is_the_plain_average():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(9, 4))
    running = np.full(4, 7.0)  # whatever it starts from
    for n, value in enumerate(values, start=1):
        running = update_running(running, value, 1 / n)
    assert_allclose(running, values.mean(0), rtol=1e-13)


# Against finite differences


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(0,), (0, 2), (1,)]), st.sampled_from([0, 1e-3]))
def test_backward_is_the_derivative(seed, axis, eps):
    rng = np.random.default_rng(seed)
    shape = (4, 3, 3)
    kept = [n for a, n in enumerate(shape) if a not in axis]
    x, g = rng.normal(size=shape), rng.normal(size=shape)
    gamma, beta = rng.normal(size=kept), rng.normal(size=kept)

    def loss(x, gamma, beta):
        return (g * batch_norm(x, gamma, beta, axis=axis, eps=eps)[0]).sum()

    grads = batch_norm_backward(g, batch_norm(x, gamma, beta, axis=axis, eps=eps)[1])
    sigma = np.sqrt(x.var(axis).min())
    h = 1e-5 * sigma
    for i, grad in enumerate(grads):
        numeric = np.zeros_like(grad)
        for where in np.ndindex(grad.shape):
            up, down = [x.copy(), gamma.copy(), beta.copy()], [x.copy(), gamma.copy(), beta.copy()]
            up[i][where] += h
            down[i][where] -= h
            numeric[where] = (loss(*up) - loss(*down)) / (2 * h)
        assert_allclose(grad, numeric, rtol=1e-6, atol=1e-7 / sigma)


# Closed forms


def jacobian(x, gamma, eps):
    """dy_i / dx_j for one channel, column by column from the backward pass."""
    _, cache = batch_norm(x[:, None], [gamma], [0.0], eps=eps)
    rows = [batch_norm_backward(e[:, None], cache)[0][:, 0] for e in np.eye(len(x))]
    return np.array(rows)


@pytest.mark.parametrize("m", [2, 3, 10])
@pytest.mark.parametrize("eps", [0.0, 1e-5, 0.3])
def test_jacobian_is_a_projection(m, eps):
    rng = np.random.default_rng(m)
    x, gamma = rng.normal(size=m), 1.7
    sigma = np.sqrt(x.var() + eps)
    x_hat = (x - x.mean()) / sigma
    J = jacobian(x, gamma, eps)
    expected = np.eye(m) - 1 / m - np.outer(x_hat, x_hat) / m
    assert_allclose(J * sigma / gamma, expected, atol=1e-14)
    eigenvalues = np.linalg.eigvalsh(J * sigma / gamma)
    assert_allclose(eigenvalues, np.sort([0, eps / (x.var() + eps), *[1] * (m - 2)]), atol=1e-13)


@settings(deadline=None)
@given(st.integers(2, 30), st.integers(0, 2**32 - 1))
def test_gradient_norm(m, seed):
    rng = np.random.default_rng(seed)
    x, g, gamma = rng.normal(size=m), rng.normal(size=m), rng.normal()
    _y, cache = batch_norm(x[:, None], [gamma], [0.0], eps=0)
    dx = batch_norm_backward(g[:, None], cache)[0]
    x_hat = (x - x.mean()) / x.std()
    expected = (gamma / x.std()) ** 2 * (g @ g - g.sum() ** 2 / m - (g @ x_hat) ** 2 / m)
    assert_allclose(
        (dx**2).sum(), expected, rtol=1e-9, atol=1e-12 * (gamma / x.std()) ** 2 * (g @ g)
    )


def test_a_batch_of_two_forgets_all_but_the_order():
    x = np.array([[3.0, -2.0, 5.0], [3.5, -200.0, 5.0001]])
    y, cache = batch_norm(x, np.ones(3), np.zeros(3), eps=0)
    assert_allclose(y, [[-1, 1, -1], [1, -1, 1]], rtol=1e-9)
    g = np.random.default_rng(0).normal(size=x.shape)
    assert_allclose(batch_norm_backward(g, cache)[0] * x.std(0), 0, atol=1e-9)


@settings(deadline=None)
@given(st.integers(2, 40), st.integers(0, 2**32 - 1))
def test_no_value_is_further_than_root_m_minus_one(m, seed):
    x = np.random.default_rng(seed).standard_cauchy(size=(m, 1))
    assert np.abs(standardize(x, eps=0)).max() <= np.sqrt(m - 1) * (1 + 1e-12)
    spike = np.zeros((m, 1))
    spike[0] = 1
    assert_allclose(standardize(spike, eps=0).max(), np.sqrt(m - 1))


def test_a_bias_before_it_has_no_gradient():
    rng = np.random.default_rng(0)
    x, g = rng.normal(size=(8, 3, 5)), rng.normal(size=(8, 3, 5))
    _, cache = batch_norm(x, rng.normal(size=3), rng.normal(size=3), axis=(0, 2))
    assert_allclose(batch_norm_backward(g, cache)[0].sum((0, 2)), 0, atol=1e-12)


def test_ioffe_and_szegedy_example():
    x = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 60.0]])
    y, _ = batch_norm(x, [2.0, 1.0], [0.5, 0.0], eps=0)
    assert_allclose(y[:, 0], [0.5 - np.sqrt(6), 0.5, 0.5 + np.sqrt(6)])
    assert_allclose(y[:, 1], np.array([-20, -10, 30]) / np.sqrt(1400 / 3))


# Invariances


@settings(deadline=None)
@given(cases(), st.floats(0.1, 10), st.floats(-10, 10))
def test_shift_and_scale_of_the_input_do_not_matter(case, a, b):
    x, gamma, beta, _, axis = case
    y, _ = batch_norm(x, gamma, beta, axis=axis, eps=0)
    scaled, _ = batch_norm(a * x + b, gamma, beta, axis=axis, eps=0)
    flipped, _ = batch_norm(-a * x + b, -gamma, beta, axis=axis, eps=0)
    atol = 1e-13 * (condition(x, axis) + condition(a * x + b, axis) + condition(-a * x + b, axis))
    assert_allclose(scaled, y, atol=atol)
    assert_allclose(flipped, y, atol=atol)


@settings(deadline=None)
@given(cases())
def test_gamma_and_beta_are_the_scale_and_the_mean_of_the_result(case):
    x, gamma, beta, _, axis = case
    mean, var = moments(batch_norm(x, gamma, beta, axis=axis, eps=0)[0], axis)
    assert_allclose(mean, beta, atol=1e-13 * condition(x, axis))
    assert_allclose(np.sqrt(var), np.abs(gamma), atol=1e-12)


def test_the_order_of_the_examples_does_not_matter():
    rng = np.random.default_rng(0)
    x, order = rng.normal(size=(10, 4)), rng.permutation(10)
    assert_allclose(standardize(x[order]), standardize(x)[order], atol=1e-14)


# Numerics


@settings(deadline=None)
@given(st.lists(st.integers(-(2**20), 2**20), min_size=1, max_size=20), st.integers(0, 2**40))
def test_moments_are_accurate_far_from_zero(values, offset):
    exact = [Fraction(v + offset) for v in values]
    mean = sum(exact) / len(exact)
    var = sum((v - mean) ** 2 for v in exact) / len(exact)
    got_mean, got_var = moments(np.array(values, float) + offset)
    assert_allclose(got_mean, float(mean), rtol=1e-14, atol=1e-9)
    # the mean is rounded to the digits of x, which moves the variance by the square of that
    assert_allclose(got_var, float(var), rtol=1e-12, atol=float(abs(mean)) ** 2 * 1e-30)


def test_float32_keeps_its_digits_over_a_long_strided_axis():
    x = (1000 + np.random.default_rng(0).normal(size=(200_000, 2))).astype(np.float32)
    mean, var = moments(x)
    assert mean.dtype == var.dtype == np.float32
    exact = x.astype(np.float64)
    assert_allclose(mean, exact.mean(0), rtol=2**-24)
    assert_allclose(var, exact.var(0), rtol=2**-22)


def test_float32_mean_does_not_overflow_before_it_is_divided():
    assert_allclose(moments(np.full(4, 3e38, np.float32))[0], 3e38, rtol=1e-7)


@settings(deadline=None)
@given(cases(), st.sampled_from([np.float16, np.float32]))
def test_narrow_dtypes_are_the_wide_result_rounded_once(case, dtype):
    *arrays, axis = case
    with np.errstate(over="ignore"):
        narrow = x, gamma, beta, g = [a.astype(dtype) for a in arrays]
    wide = [a.astype(np.float64) for a in narrow]
    y, cache = batch_norm(x, gamma, beta, axis=axis)
    wide_y, wide_cache = batch_norm(*wide[:3], axis=axis)
    found = batch_norm_backward(g, cache)
    expected = batch_norm_backward(wide[3], wide_cache)
    inference = batch_norm_inference(x, gamma, beta, gamma, gamma**2, axis=axis)
    wide_inference = batch_norm_inference(*wide[:3], wide[1], gamma.astype(dtype) ** 2, axis=axis)
    assert y.dtype == found[0].dtype == standardize(x, axis).dtype == inference.dtype == dtype
    with np.errstate(over="ignore"):
        assert_array_equal(y, wide_y.astype(dtype))
        assert_array_equal(found[0], expected[0].astype(dtype))
        assert_array_equal(inference, wide_inference.astype(dtype))
    for a, b in zip((*found[1:], *moments(x, axis)), (*expected[1:], *moments(wide[0], axis))):
        assert a.dtype == np.float32
        assert_array_equal(a, b.astype(np.float32))


def test_float16_does_not_overflow_in_the_variance():
    x = np.array([[-1e4], [0.0], [1e4]], np.float16)
    assert_allclose(standardize(x), [[-1.2247], [0], [1.2247]], rtol=1e-3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble, ">f4"])
def test_the_result_has_the_dtype_of_x(dtype):
    x = np.arange(6).reshape(3, 2).astype(dtype)
    y, cache = batch_norm(x, np.ones(2), np.zeros(2))
    dx, _, _ = batch_norm_backward(np.ones((3, 2)), cache)
    z = batch_norm_inference(x, np.ones(2), np.zeros(2), np.zeros(2), np.ones(2))
    assert y.dtype == dx.dtype == z.dtype == standardize(x).dtype == x.dtype


def test_longdouble_keeps_its_digits():
    if np.finfo(np.longdouble).eps == np.finfo(float).eps:
        pytest.skip("longdouble is float64 here")
    x = np.longdouble(1) + np.arange(4, dtype=np.longdouble) * np.finfo(np.longdouble).eps
    assert moments(x)[1] > 0


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_stay_in_their_channel_as_in_torch(bad):
    x = np.random.default_rng(0).normal(size=(5, 3, 2))
    x[2, 1, 0] = bad
    y, cache = batch_norm(x, np.ones(3), np.zeros(3), axis=(0, 2))
    dx = batch_norm_backward(np.ones_like(x), cache)[0]
    assert np.isnan(y[:, 1]).all()
    assert np.isnan(dx[:, 1]).all()
    assert np.isfinite(y[:, [0, 2]]).all()
    assert np.isfinite(dx[:, [0, 2]]).all()
    ty = torch.nn.functional.batch_norm(torch.tensor(x), None, None, training=True)
    assert_allclose(y, ty.numpy(), atol=1e-12)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("shape", "axis"), [((0, 3), 0), ((0, 3, 4), (0, 2)), ((2, 3, 0), (0, 2))])
def test_an_empty_batch_passes_through_as_in_torch(shape, axis):
    y, cache = batch_norm(np.empty(shape), np.ones(3), np.zeros(3), axis=axis, eps=0)
    dx, dgamma, dbeta = batch_norm_backward(np.empty(shape), cache)
    assert y.shape == dx.shape == shape
    assert_array_equal(dgamma, np.zeros(3))
    assert_array_equal(dbeta, np.zeros(3))
    stats = np.ones(3)
    assert batch_norm_inference(np.empty(shape), *[stats] * 4, axis=axis).shape == shape


# Bad input


def x_of(*shape):
    return np.random.default_rng(0).normal(size=shape)


BAD = {
    "integers": (TypeError, "int64 of shape (4, 3)", lambda: standardize(np.ones((4, 3), int))),
    "booleans": (TypeError, "bool", lambda: moments(np.ones((4, 3), bool))),
    "complex": (TypeError, "complex128", lambda: moments(np.ones((4, 3), complex))),
    "text": (TypeError, "<U1", lambda: moments(["a", "b"])),
    "masked": (
        TypeError, "mask", lambda: standardize(np.ma.masked_invalid([[1.0], [np.nan], [3.0]])),
    ),
    "integer x at inference": (
        TypeError, "int64", lambda: batch_norm_inference([[1]], [1.0], [1.0], [1.0], [1.0]),
    ),
    "integer g": (
        TypeError, "g must be floating",
        lambda: batch_norm_backward(np.ones((4, 3), int), batch_norm(x_of(4, 3), *[np.ones(3)] * 2)[1]),
    ),
    "no axes": (ValueError, "()", lambda: standardize(np.float64(3.0))),
    "axis too large": (ValueError, "(4, 3)", lambda: standardize(x_of(4, 3), axis=2)),
    "axis twice": (ValueError, "(0, -2)", lambda: standardize(x_of(4, 3), axis=(0, -2))),
    "axis not an integer": (TypeError, "integer", lambda: standardize(x_of(4, 3), axis=0.5)),
    "one value": (
        ValueError, "more than 1 value per channel, got x of shape (1, 3)",
        lambda: batch_norm(x_of(1, 3), np.ones(3), np.ones(3)),
    ),
    "one value, images": (
        ValueError, "(1, 3, 1, 1)", lambda: standardize(x_of(1, 3, 1, 1), axis=(0, 2, 3)),
    ),
    "no axis averaged": (ValueError, "more than 1 value", lambda: standardize(x_of(4, 3), axis=())),
    "moments of nothing": (ValueError, "(0, 3)", lambda: moments(x_of(0, 3))),
    "gamma too long": (
        ValueError, "gamma must have shape (3,)", lambda: batch_norm(x_of(4, 3), np.ones(4), np.ones(3)),
    ),
    "beta a scalar": (ValueError, "got ()", lambda: batch_norm(x_of(4, 3), np.ones(3), 0.0)),
    "gamma of length 1": (
        ValueError, "got (1,)", lambda: batch_norm(x_of(4, 3), np.ones(1), np.ones(3)),
    ),
    "gamma shaped to broadcast": (
        ValueError, "got (1, 3)", lambda: batch_norm(x_of(4, 3), np.ones((1, 3)), np.ones(3)),
    ),
    "features on the wrong axis": (
        ValueError, "x (4, 3)", lambda: batch_norm(x_of(4, 3), np.ones(3), np.ones(3), axis=1),
    ),
    "empty batch, wrong features": (
        ValueError, "x (0, 5)", lambda: batch_norm(x_of(0, 5), np.ones(3), np.ones(3)),
    ),
    "running mean too long": (
        ValueError, "mean must have shape (3,)",
        lambda: batch_norm_inference(x_of(4, 3), *[np.ones(3)] * 2, np.ones(4), np.ones(3)),
    ),
    "running var too long": (
        ValueError, "var must have shape (3,)",
        lambda: batch_norm_inference(x_of(4, 3), *[np.ones(3)] * 3, np.ones(4)),
    ),
    "g of another shape": (
        ValueError, "(4, 3), got (3,)",
        lambda: batch_norm_backward(np.ones(3), batch_norm(x_of(4, 3), np.ones(3), np.ones(3))[1]),
    ),
    "negative eps": (ValueError, "-1", lambda: standardize(x_of(4, 3), eps=-1)),
    "eps nan": (ValueError, "nan", lambda: standardize(x_of(4, 3), eps=np.nan)),
    "negative eps at inference": (
        ValueError, "eps", lambda: batch_norm_inference(x_of(4, 3), *[np.ones(3)] * 4, eps=-2),
    ),
    "running of another shape": (
        ValueError, "(3,)", lambda: update_running(np.ones(3), np.ones(4)),
    ),
    "momentum of torch's opposite": (
        ValueError, "between 0 and 1", lambda: update_running(np.ones(3), np.ones(3), 1.5),
    ),
    "variance of one": (ValueError, "m = 1", lambda: update_running(np.ones(3), np.ones(3), m=1)),
}  # fmt: skip


@pytest.mark.parametrize(("error", "says", "call"), BAD.values(), ids=BAD)
def test_bad_input_is_named(error, says, call):
    with pytest.raises(error) as caught:
        call()
    assert says in str(caught.value)


def test_the_package_exports_the_same_functions():
    assert bn.batch_norm is batch_norm
    assert bn.standardize is standardize
