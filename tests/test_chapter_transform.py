"""Chapter layer/transform: its code is the package's, and its propositions hold on any batch."""

from __future__ import annotations

import numpy as np
import pytest
from chapters import Chapter
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import bn

NOTEBOOK = Chapter("layer/transform")


@pytest.fixture(scope="module")
def chapter():
    return NOTEBOOK.run("setup", "layer", "by-hand-code", "by-hand-check", "variance-code")


finite = st.floats(-1e3, 1e3, allow_subnormal=False)
batches = st.tuples(st.integers(2, 12), st.integers(1, 5)).flatmap(
    lambda s: arrays(float, s, elements=finite)
)
epsilons = st.sampled_from([1e-10, 1e-5, 1e-3, 1.0])


def with_spread(x):
    """The data are not rounding noise around one value, of which no formula can make sense."""
    assume((x.std(axis=0) > 1e-6 * (1 + np.abs(x).max(axis=0))).all())
    return x


# --------------------------------------------------------- the code of the chapter is bn's


@given(batches, epsilons, st.integers(0, 2**32 - 1))
def test_the_chapters_layer_is_the_packages(chapter, x, eps, seed):
    gamma, beta = np.random.default_rng(seed).normal(size=(2, x.shape[1]))
    ours = chapter["batch_norm"](x, gamma, beta, eps)
    np.testing.assert_allclose(
        ours, bn.batch_norm(x, gamma, beta, eps=eps)[0], rtol=1e-9, atol=1e-7
    )


def test_the_four_single_lines_are_the_layer(chapter):
    lines = NOTEBOOK.run(
        "setup", "one-feature", "line-mean-code", "line-var-code", "line-xhat-code", "line-y-code"
    )
    np.testing.assert_array_equal(lines["y"], chapter["batch_norm"](lines["x"], 2.0, 1.0))
    np.testing.assert_allclose(lines["y"], bn.batch_norm(lines["x"], 2.0, 1.0)[0], rtol=1e-14)


# ---------------------------------------------------------------------- the table by hand


def test_the_table_is_exact(chapter):
    root = np.sqrt(1.5)
    exact = np.array([[-1.5 * root + 0.5, -root, -0.5 * root - 0.5],
                      [0.5, 0, -0.5],
                      [1.5 * root + 0.5, root, 0.5 * root - 0.5]])  # fmt: skip
    np.testing.assert_allclose(chapter["Y3"], exact, rtol=1e-15, atol=1e-15)


def test_the_circulating_table_is_the_truncated_one_transposed(chapter):
    printed = [[-1.336, 0.5, 2.336], [-1.224, 0, 1.224], [-1.112, -0.5, 0.112]]
    np.testing.assert_allclose(chapter["truncated"].T, printed, atol=1e-12)
    assert np.abs(chapter["Y3"] - chapter["truncated"]).max() > 1e-3  # rounding would not do this


def test_only_a_square_table_hides_the_slip(chapter):
    slip, layer = chapter["sum_over_m_divided_by_n"], chapter["batch_norm"]
    np.testing.assert_allclose(slip(chapter["X3"]), layer(chapter["X3"], 1, 0, eps=0))
    assert np.abs(slip(chapter["wide"]) - layer(chapter["wide"], 1, 0, eps=0)).max() > 0.5


# ------------------------------------------------------------------------ the propositions


@given(batches, epsilons)
def test_mean_and_variance_of_the_output(x, eps):
    var = x.var(axis=0)
    x_hat = bn.standardize(x, eps=eps)
    scale = 1 + np.abs(x).max(axis=0) / np.sqrt(var + eps)  # of the rounding error
    assert (np.abs(x_hat.mean(axis=0)) <= 1e-13 * scale).all()
    np.testing.assert_allclose((x_hat**2).mean(axis=0), var / (var + eps), rtol=1e-9, atol=1e-12)


@given(batches, epsilons | st.just(0.0))
def test_no_example_stands_out_by_more_than_the_bound(x, eps):
    assume(eps > 0 or (x.var(axis=0) > 0).all())
    assert np.abs(bn.standardize(x, eps=eps)).max() <= np.sqrt(len(x) - 1) * (1 + 1e-9)


@given(st.integers(2, 50), finite, finite)
def test_the_bound_is_reached_by_one_against_equals(m, common, other):
    assume(abs(common - other) > 1e-3)
    x = np.full((m, 1), common)
    x[0] = other
    assert np.abs(bn.standardize(x, eps=0))[0, 0] == pytest.approx(np.sqrt(m - 1), rel=1e-7)


@given(finite, finite)
def test_two_examples_keep_only_their_order(a, b):
    assume(abs(a - b) > 1e-6)
    np.testing.assert_allclose(
        bn.standardize([[a], [b]], eps=0), np.sign([[a - b], [b - a]]), rtol=1e-6
    )


@given(batches, epsilons)
def test_one_batch_is_restored_and_two_only_with_equal_statistics(x, eps):
    mean, var = bn.moments(x)
    restore = np.sqrt(var + eps), mean
    np.testing.assert_allclose(bn.batch_norm(x, *restore, eps=eps)[0], x, rtol=1e-9, atol=1e-9)
    moved = x + 1.0
    off = bn.batch_norm(moved, *restore, eps=eps)[0] - moved
    np.testing.assert_allclose(off, -1, rtol=1e-6)  # it restores the first batch's mean
    fixed = bn.batch_norm_inference(moved, *restore, mean, var, eps=eps)
    np.testing.assert_allclose(fixed, moved, rtol=1e-9, atol=1e-9)


@given(batches, st.floats(0.01, 100), finite)
def test_location_and_scale_are_forgotten(x, scale, shift):
    with_spread(x)
    np.testing.assert_allclose(
        bn.standardize(scale * x + shift, eps=0), bn.standardize(x, eps=0), rtol=1e-4, atol=1e-4
    )


@given(batches, st.floats(0.01, 100), epsilons)
def test_epsilon_has_the_units_of_a_variance(x, scale, eps):
    with_spread(x)
    np.testing.assert_allclose(
        bn.standardize(scale * x, eps=eps),
        bn.standardize(x, eps=eps / scale**2),
        rtol=1e-5,
        atol=1e-6,
    )


@given(batches, epsilons, st.integers(0, 2**32 - 1))
def test_a_bias_before_the_layer_gets_no_gradient(x, eps, seed):
    rng = np.random.default_rng(seed)
    gamma, beta = rng.normal(size=(2, x.shape[1]))
    _, cache = bn.batch_norm(x, gamma, beta, eps=eps)
    dx, *_ = bn.batch_norm_backward(rng.normal(size=x.shape), cache)
    assert (np.abs(dx.sum(axis=0)) <= 1e-10 * (1 + np.abs(gamma) / cache.sigma[0])).all()


# ---------------------------------------------------------------------------- measurements


def test_the_two_formulas_of_the_variance(chapter):
    assert (chapter["wrong"] % 8 == 0).all()
    assert (chapter["wrong"] < 0).any()
    np.testing.assert_allclose(chapter["right"], chapter["truth"], rtol=1e-3)
    np.testing.assert_allclose(bn.moments(chapter["far"])[1], chapter["truth"], rtol=1e-6)


def test_steps_of_descent_agree_with_the_loop():
    chapter = NOTEBOOK.run("setup", "conditioning")
    descents, t = chapter["runs_of"], chapter["t"]
    assert descents["whitened"].steps == 1
    assert descents["as measured"].steps > 1e5 * descents["standardised"].steps
    for name in ("standardised", "mean subtracted"):
        d = descents[name]
        v = np.zeros(d.A.shape[1])
        for _ in range(d.steps):
            v -= d.eta * d.A.T @ (d.A @ v - t) / len(t)
        loss = [((d.A @ p - t) ** 2).mean() for p in (v, d.best, np.zeros_like(v))]
        left = (loss[0] - loss[1]) / (loss[2] - loss[1])
        assert left == pytest.approx(d.excess(d.steps), rel=1e-6)
        assert d.excess(d.steps) <= 0.01 < d.excess(d.steps - 1)


def test_detached_statistics_let_the_bias_run_away():
    runs = NOTEBOOK.run("setup", "inside-code")["runs"]
    through, detached = runs[False, False], runs[False, True]
    assert np.abs(through[:, 1]).max() < 1e-12
    np.testing.assert_allclose(np.diff(detached[:, 1]), detached[1, 1], rtol=1e-9)  # one rate
    assert np.ptp(detached[100:, 0]) < 1e-3  # while the loss stands still
    assert detached[-1, 0] > through[-1, 0] + 0.02
    assert (np.diff(runs[True, True][20:, 2]) > 0).all()  # with scaling, the weights too
