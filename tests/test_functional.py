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
    merge_moments,
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


@settings(deadline=None, max_examples=200)
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


LAYERS = {2: torch.nn.BatchNorm1d, 3: torch.nn.BatchNorm1d, 4: torch.nn.BatchNorm2d,
          5: torch.nn.BatchNorm3d}  # fmt: skip


@st.composite
def sequences(draw):
    """A layer of torch, and the calls to make: each in training or not, on its own batch."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    channels = draw(st.integers(1, 3))
    positions = draw(st.lists(st.integers(1, 3), max_size=3))
    layer = LAYERS[2 + len(positions)](
        channels,
        eps=draw(st.sampled_from([1e-5, 0.1])),
        momentum=draw(st.sampled_from([0.1, 0.5, 1.0, 0.0, None])),
        affine=draw(st.booleans()),
        track_running_stats=draw(st.booleans()),
        dtype=torch.float64,
    )
    if layer.affine:
        for p in layer.parameters():
            p.data = torch.tensor(rng.normal(size=channels))
    layout = LAYOUTS[draw(st.sampled_from(sorted(LAYOUTS)))]
    calls = []
    for n, training in draw(st.lists(st.tuples(st.integers(2, 5), st.booleans()), min_size=1)):
        x = rng.normal(size=channels)[:, *[None] * len(positions)] + rng.normal(
            size=(n, channels, *positions)
        )
        calls.append((training, layout(x), layout(rng.normal(size=x.shape))))
    return layer, calls


@settings(deadline=None, max_examples=100)
@given(sequences())
def test_a_sequence_of_training_and_inference_is_torchs(sequence):
    layer, calls = sequence
    ones, zeros = np.ones(layer.num_features), np.zeros(layer.num_features)
    gamma = layer.weight.detach().numpy() if layer.affine else ones
    beta = layer.bias.detach().numpy() if layer.affine else zeros
    running_mean, running_var, batches = zeros, ones, 0
    for training, x, g in calls:
        axis = (0, *range(2, x.ndim))
        layer.train(training)
        layer.zero_grad()
        tx = torch.tensor(x.copy(), requires_grad=True)
        ty = layer(tx)
        ty.backward(torch.tensor(g.copy()))
        if training or not layer.track_running_stats:
            y, cache = batch_norm(x, gamma, beta, axis=axis, eps=layer.eps)
            dx, dgamma, dbeta = batch_norm_backward(g, cache)
            # the smallest sigma of a batch of two is what divides, twice in dx
            gain = 1 / cache.sigma.min()
            assert_allclose(dx, tx.grad.numpy(), rtol=0, atol=1e-12 * gain * gain)
            if layer.affine:
                assert_allclose(dgamma, layer.weight.grad.numpy(), rtol=0, atol=1e-12 * gain)
                assert_allclose(dbeta, layer.bias.grad.numpy(), rtol=0, atol=1e-13)
        else:
            y = batch_norm_inference(
                x, gamma, beta, running_mean, running_var, axis=axis, eps=layer.eps
            )
            gain = 1 / np.sqrt(running_var.min() + layer.eps)
        assert_allclose(y, ty.detach().numpy(), rtol=0, atol=1e-13 * gain)
        if training:
            batches += 1
            momentum = 1 / batches if layer.momentum is None else layer.momentum
            running_mean = update_running(running_mean, cache.mean, momentum)
            running_var = update_running(running_var, cache.var, momentum, m=cache.m)
        if layer.track_running_stats:
            assert_allclose(running_mean, layer.running_mean.numpy(), rtol=0, atol=1e-14)
            assert_allclose(running_var, layer.running_var.numpy(), rtol=1e-13)
            assert layer.num_batches_tracked == batches


def test_momentum_one_over_n_is_the_plain_average():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(9, 4))
    running = np.full(4, 7.0)  # whatever it starts from
    for n, value in enumerate(values, start=1):
        running = update_running(running, value, 1 / n)
    assert_allclose(running, values.mean(0), rtol=1e-13)


def test_the_cache_holds_what_the_running_averages_need():
    x = np.random.default_rng(0).normal(2, 3, size=(4, 3, 2, 5))
    _, cache = batch_norm(x, np.ones(3), np.zeros(3), axis=(0, -1, 2), eps=0.1)
    mean, var = moments(x, (0, 2, 3))
    assert cache.m == 40
    assert_array_equal(cache.mean, mean)
    assert_array_equal(cache.var, var)
    assert_allclose(cache.var, x.var((0, 2, 3)), rtol=1e-14)
    # not to be read off a cache of narrower x: the wide values, before they are rounded
    _, narrow = batch_norm(x.astype(np.float32), np.ones(3), np.zeros(3), axis=(0, 2, 3))
    assert_allclose(narrow.var, x.astype(np.float32).astype(float).var((0, 2, 3)), rtol=1e-14)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
def test_running_averages_keep_their_dtype(dtype):
    new = update_running(np.array([1, 2], dtype), np.array([3.0, 5.0]), 0.25, m=2)
    assert new.dtype == dtype
    assert_array_equal(new, [2.25, 4.0])


def test_running_averages_may_start_as_integers_or_lists():
    assert_array_equal(update_running([0, 1], np.array([1, 2]), 0.5), [0.5, 1.5])
    assert update_running(0, 1.0) == 0.1


def test_a_step_changes_neither_the_average_nor_the_batch():
    running, batch = np.zeros(3), np.ones(3)
    new = update_running(running, batch, m=3)
    assert_array_equal(running, np.zeros(3))
    assert_array_equal(batch, np.ones(3))
    assert not np.shares_memory(update_running(running, batch, 0.0), running)
    assert not np.shares_memory(new, batch)


@pytest.mark.parametrize("momentum", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_batch_poisons_its_own_average_as_in_torch(momentum, bad):
    x = np.random.default_rng(0).normal(size=(5, 3))
    x[1, 1] = bad
    layer = torch.nn.BatchNorm1d(3, momentum=momentum, dtype=torch.float64)
    layer(torch.tensor(x))
    with np.errstate(invalid="ignore"):
        _, cache = batch_norm(x, np.ones(3), np.zeros(3))
        mean = update_running(np.zeros(3), cache.mean, momentum)
        var = update_running(np.ones(3), cache.var, momentum, m=cache.m)
    assert_allclose(mean, layer.running_mean.numpy(), rtol=1e-14)
    assert_allclose(var, layer.running_var.numpy(), rtol=1e-14)
    assert np.isfinite(mean[[0, 2]]).all()


# Two sets of values together


@settings(deadline=None)
@given(
    st.lists(st.lists(st.integers(-1000, 1000), max_size=6), min_size=1, max_size=5),
    st.sampled_from([0, 10**6]),
)
def test_merged_moments_are_those_of_all_values(parts, offset):
    total = (0, 0.0, 0.0)
    for part in parts:
        values = np.array(part, float) + offset
        total = merge_moments(total, (len(part), *(moments(values) if part else (0.0, 0.0))))
    everything = [Fraction(v + offset) for part in parts for v in part]
    m, mean, var = total
    assert m == len(everything)
    if m:
        exact = sum(everything) / m
        assert_allclose(mean, float(exact), rtol=1e-14, atol=1e-12)
        exact_var = float(sum((v - exact) ** 2 for v in everything) / m)
        # every mean is off by the last digit of the values, and delta**2 by 2 delta times that
        off = 1e-15 * offset
        assert_allclose(var, exact_var, rtol=1e-12, atol=2 * off * (exact_var**0.5 + off))


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 9), min_size=3, max_size=3))
def test_merging_takes_any_order_and_keeps_channels_apart(seed, counts):
    rng = np.random.default_rng(seed)
    a, b, c = ((n, rng.normal(size=(2, 3)), rng.uniform(size=(2, 3))) for n in counts)
    left, right = merge_moments(merge_moments(a, b), c), merge_moments(b, merge_moments(c, a))
    for one, other in zip(left, right, strict=True):
        assert_allclose(one, other, rtol=1e-12, atol=1e-14)
    a[1][0, 1] = np.nan
    _, mean, var = merge_moments(a, b)
    assert np.isnan(mean).sum() == np.isnan(var).sum() == 1


def test_merging_counts_unequal_batches_by_their_size():
    # 2 values of mean 0 and 6 of mean 4, each with variance 1
    m, mean, var = merge_moments((2, [0.0], [1.0]), (6, [4.0], [1.0]))
    assert (m, mean.tolist(), var.tolist()) == (8, [3.0], [4.0])


def test_merging_is_in_float64_and_changes_nothing():
    a = (np.int64(3), np.float32([1e4]), np.float32([1.0]))
    b = (4, np.float32([1e4 + 1]), np.float32([2.0]))
    m, mean, var = merge_moments(a, b)
    assert type(m) is int
    assert mean.dtype == var.dtype == np.float64
    assert_allclose(mean, 1e4 + 4 / 7, rtol=1e-15)
    assert (a[1], a[2], b[1], b[2]) == (1e4, 1, 1e4 + 1, 2)
    for empty_first in merge_moments((0, 0.0, 0.0), b), merge_moments(b, (0, 0.0, 0.0)):
        assert empty_first == (4, 1e4 + 1, 2)
        assert empty_first[1].dtype == np.float64
    kept = np.ones(3)
    for part in merge_moments((0, 0.0, 0.0), (4, kept, kept))[1:]:
        assert not np.shares_memory(part, kept)


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


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_order_of_examples_and_of_channels_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    x, g, gamma, beta = (rng.normal(size=s) for s in [(10, 4), (10, 4), 4, 4])
    rows, columns = rng.permutation(10), rng.permutation(4)
    y, cache = batch_norm(x, gamma, beta)
    dx, dgamma, dbeta = batch_norm_backward(g, cache)
    moved = np.ix_(rows, columns)
    y2, cache2 = batch_norm(x[moved], gamma[columns], beta[columns])
    dx2, dgamma2, dbeta2 = batch_norm_backward(g[moved], cache2)
    for there, here in (y2, y[moved]), (dx2, dx[moved]), (dgamma2, dgamma[columns]), (
        dbeta2, dbeta[columns],
    ):  # fmt: skip
        assert_allclose(there, here, rtol=0, atol=1e-12)


@settings(deadline=None)
@given(cases())
def test_the_gradient_has_no_mean_and_nothing_along_x_hat(case):
    x, gamma, beta, g, axis = case
    _, cache = batch_norm(x, gamma, beta, axis=axis, eps=0)
    dx, _, _ = batch_norm_backward(g, cache)
    atol = 1e-12 * condition(x, axis) * np.abs(cache.gamma / cache.sigma).max()
    assert_allclose(dx.mean(axis), 0, atol=atol)
    assert_allclose((dx * standardize(x, axis, 0)).mean(axis), 0, atol=atol)


@settings(deadline=None)
@given(cases(), st.floats(-10, 10), st.sampled_from([0.0, 0.1]))
def test_the_gradient_is_linear_in_g_and_its_jacobian_symmetric(case, a, eps):
    x, gamma, beta, g, axis = case
    other = np.random.default_rng(0).normal(size=g.shape)
    _, cache = batch_norm(x, gamma, beta, axis=axis, eps=eps)
    forth, back = batch_norm_backward(g, cache), batch_norm_backward(other, cache)
    both = batch_norm_backward(g + a * other, cache)
    gain = 1 + np.abs(cache.gamma / cache.sigma).max()
    for one, two, sum_ in zip(forth, back, both, strict=True):
        assert_allclose(sum_, one + a * two, rtol=0, atol=1e-11 * gain)
    assert_allclose((forth[0] * other).sum(), (g * back[0]).sum(), rtol=0, atol=1e-11 * gain)


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


def odd_values(dtype):
    """What a channel may hold, for better or worse: ten values each."""
    limits, rng = np.finfo(dtype), np.random.default_rng(0)
    normal = rng.normal(size=10)
    one = {"nan": np.nan, "inf": np.inf, "minus inf": -np.inf}
    return {
        "constant": np.full(10, 3.0),
        "zero": np.zeros(10),
        "constant but one": np.eye(10)[0],
        "far from zero": 1e4 + normal,
        "large": normal * (float(limits.max) / 64),
        "large when squared": normal * (4 * float(limits.max) ** 0.5),
        "tiny": normal * float(limits.tiny),
        "denormal": normal * float(limits.smallest_subnormal) * 99,
        "tiny when squared": normal * float(limits.tiny) ** 0.5 / 8,
        "both infinities": np.array([np.inf, -np.inf, *normal[2:]]),
        **{name: np.array([normal[0], value, *normal[2:]]) for name, value in one.items()},
    }


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("eps", [1e-10, 1e-5, 1e-3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", odd_values(np.float64))
def test_an_odd_channel_does_what_torch_does_in_float64_and_touches_no_other(name, dtype, eps):
    rng = np.random.default_rng(1)
    x, g = rng.normal(size=(5, 3, 2)), rng.normal(size=(5, 3, 2)).astype(dtype)
    x[:, 1] = odd_values(dtype)[name].reshape(5, 2)
    x, gamma, beta = x.astype(dtype), rng.normal(size=3).astype(dtype), np.ones(3, dtype)
    y, cache = batch_norm(x, gamma, beta, axis=(0, 2), eps=eps)
    dx, dgamma, dbeta = batch_norm_backward(g, cache)

    tx, tgamma, tbeta = (
        torch.tensor(a.astype(float), requires_grad=True) for a in (x, gamma, beta)
    )
    ty = torch.nn.functional.batch_norm(tx, None, None, tgamma, tbeta, training=True, eps=eps)
    ty.backward(torch.tensor(g.astype(float)))
    theirs = [a.numpy() for a in (ty.detach(), tx.grad, tgamma.grad, tbeta.grad)]
    digits = 1e-6 if dtype == np.float32 else 1e-10  # torch's own, on the constant
    for ours, a in zip((y, dx, dgamma, dbeta), theirs, strict=True):
        largest = np.abs(a).max(where=np.isfinite(a), initial=1)
        assert_allclose(ours, a.astype(dtype), rtol=digits, atol=digits * largest)

    # and the others get, bit for bit, what they get beside an ordinary channel
    x[:, 1] = rng.normal(size=(5, 2))
    plain, plain_cache = batch_norm(x, gamma, beta, axis=(0, 2), eps=eps)
    assert_array_equal(y[:, [0, 2]], plain[:, [0, 2]])
    assert_array_equal(dx[:, [0, 2]], batch_norm_backward(g, plain_cache)[0][:, [0, 2]])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("mean", [0.0, 1e300, np.inf, np.nan])
@pytest.mark.parametrize("var", [0.0, 1e-320, 1e300, np.inf, -1.0, np.nan])
def test_inference_with_odd_statistics_is_torchs(mean, var):
    x = np.array([[1.0, 0.0], [np.inf, 1.0], [np.nan, 2.0], [-1e300, 3.0], [1e-320, 4.0]])
    parameters = np.array([2.0, 1.0]), np.array([1.0, 0.0])
    statistics = np.array([mean, 0.5]), np.array([var, 2.0])
    y = batch_norm_inference(x, *parameters, *statistics)
    order = [torch.tensor(a) for a in (x, *statistics, *parameters)]
    theirs = torch.nn.functional.batch_norm(*order, eps=1e-5).numpy()
    assert_allclose(y[:, 1], (x[:, 1] - 0.5) / np.sqrt(2.00001), rtol=1e-15)
    assert_allclose(y, theirs, rtol=1e-13, atol=1e-13)


def test_inference_subtracts_the_mean_before_it_scales():
    x = 1e15 + np.array([[0.0], [1.0], [2.0]])
    y = batch_norm_inference(x, [1 / 3], [0.0], mean=[1e15], var=[1.0], eps=0)
    assert_allclose(y, [[0], [1 / 3], [2 / 3]], rtol=1e-15)


def test_a_mean_of_1e4_takes_no_digits_from_float32():
    x = (1e4 + np.random.default_rng(0).normal(size=(256, 4))).astype(np.float32)
    exact = batch_norm(x.astype(float), np.ones(4), np.zeros(4))[0]
    y, _ = batch_norm(x, np.ones(4), np.zeros(4))
    assert_array_equal(y, exact.astype(np.float32))
    z = batch_norm_inference(x, np.ones(4), np.zeros(4), x.mean(0, float), np.ones(4), eps=0)
    assert_allclose(z, x - x.mean(0, float), rtol=1e-7)
    # torch.nn, as the docstring says
    theirs = torch.nn.BatchNorm1d(4)(torch.tensor(x)).detach().numpy()
    assert 1e-4 < np.abs(theirs - exact).max() < 1e-2


@pytest.mark.parametrize("value", [0.0, 3.1, -1e-40, 1e30, np.finfo(np.float32).max])
def test_a_constant_channel_becomes_beta(value):
    x = np.full((7, 3), value, np.float32)
    y, cache = batch_norm(x, np.ones(3), [1.0, -2.0, 0.0])
    assert_array_equal(y, np.tile(np.float32([1, -2, 0]), (7, 1)))
    # nothing to lose along x_hat: only the mean of the gradient goes
    dx, dgamma, _ = batch_norm_backward(np.eye(7, 3), cache)
    assert_allclose(dx, (np.eye(7, 3) - 1 / 7) / np.sqrt(1e-5), rtol=1e-6)
    assert_array_equal(dgamma, np.zeros(3))


def test_a_deviation_over_1e19_does_not_overflow_in_float32():
    x = np.array([[-4e19], [0.0], [4e19]], np.float32)
    expected = [[-(1.5**0.5)], [0], [1.5**0.5]]
    assert_allclose(standardize(x), expected, rtol=1e-7)
    # torch.nn, as the docstring says
    assert_array_equal(torch.nn.BatchNorm1d(1)(torch.tensor(x)).detach(), np.zeros((3, 1)))


def test_longdouble_is_computed_in_longdouble():
    if np.finfo(np.longdouble).eps == np.finfo(float).eps:
        pytest.skip("longdouble is float64 here")
    # deviations that float64 cannot tell from 0
    x = np.longdouble(1) + np.array([[-1], [0], [1]]) * np.longdouble(2) ** -60
    g = np.longdouble(1) + np.array([[0], [1], [5]]) * np.longdouble(2) ** -60
    y, cache = batch_norm(x, np.ones(1), np.zeros(1), eps=0)
    dx, dgamma, dbeta = batch_norm_backward(g, cache)
    root = np.sqrt(np.longdouble(1.5))
    assert_allclose(y[:, 0], [-root, 0, root], rtol=1e-18)
    assert dx.dtype == dgamma.dtype == dbeta.dtype == np.longdouble
    assert dbeta[0] - 3 == np.longdouble(6) * np.longdouble(2) ** -60
    assert_allclose(dx[:, 0] * cache.sigma[0, 0] * np.longdouble(2) ** 60, [0.5, -1, 0.5], rtol=0.3)
    z = batch_norm_inference(x, np.ones(1), np.zeros(1), np.ones(1), np.zeros(1), eps=1)
    assert z[2, 0] == np.longdouble(2) ** -60


def test_what_the_caller_changes_afterwards_does_not_matter():
    rng = np.random.default_rng(0)
    x, g, gamma, beta = (rng.normal(size=s) for s in [(6, 3), (6, 3), 3, 3])
    y, cache = batch_norm(x, gamma, beta)
    expected = batch_norm_backward(g, cache)
    for a in (x, y, gamma, beta):
        a[:] = 7.0
    for now, then in zip(batch_norm_backward(g, cache), expected, strict=True):
        assert_array_equal(now, then)
    # and the other way round: what comes out is the caller's to change
    before = [a.copy() for a in cache[:3]]
    for a in batch_norm_backward(g, cache):
        a[:] = 7.0
    for a, b in zip(cache[:3], before, strict=True):
        assert_array_equal(a, b)
    assert not np.shares_memory(standardize(x), x)
    z = batch_norm_inference(x, np.ones(3), np.zeros(3), np.zeros(3), np.ones(3), eps=0)
    assert not np.shares_memory(z, x)


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
    assert cache.m == 0
    assert y.dtype == standardize(np.empty(shape, np.float16), axis).astype(float).dtype


@pytest.mark.filterwarnings("error")
def test_no_channels_are_no_trouble():
    y, cache = batch_norm(np.empty((4, 0)), [], [])
    dx, dgamma, dbeta = batch_norm_backward(np.empty((4, 0)), cache)
    assert y.shape == dx.shape == (4, 0)
    assert dgamma.shape == dbeta.shape == (0,)
    assert moments(np.empty((4, 0)))[1].shape == (0,)


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
    "gamma complex": (
        TypeError, "gamma must hold real numbers, got complex128",
        lambda: batch_norm(x_of(4, 3), np.ones(3) * 1j, np.ones(3)),
    ),
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
    "negative momentum": (
        ValueError, "-0.1", lambda: update_running(np.ones(3), np.ones(3), -0.1),
    ),
    "momentum nan": (ValueError, "nan", lambda: update_running(np.ones(3), np.ones(3), np.nan)),
    "merging a fraction": (TypeError, "integer", lambda: merge_moments((1.5, 0.0, 0.0), (1, 0.0, 0.0))),
    "merging less than nothing": (
        ValueError, "b counts -1", lambda: merge_moments((1, 0.0, 0.0), (-1, 0.0, 0.0)),
    ),
    "merging shapes": (
        ValueError, "(3,) and (4,)",
        lambda: merge_moments((1, np.ones(3), np.ones(3)), (1, np.ones(4), np.ones(4))),
    ),
    "merging mean and var of two shapes": (
        ValueError, "a has a mean of shape (3,)",
        lambda: merge_moments((1, np.ones(3), np.ones(4)), (1, np.ones(3), np.ones(3))),
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
