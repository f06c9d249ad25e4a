"""Chapter layer/backward: its code is the package's gradient, and its propositions hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from chapters import Chapter
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import bn

NOTEBOOK = Chapter("layer/backward")


@pytest.fixture(scope="module")
def chapter():
    return NOTEBOOK.run("setup", "nodes-code", "line-code", "projection-code", "numerical-code")


finite = st.floats(-100, 100, allow_subnormal=False)
pairs = st.tuples(st.integers(2, 10), st.integers(1, 4)).flatmap(
    lambda s: st.tuples(arrays(float, s, elements=finite), arrays(float, s, elements=finite))
)
features = st.integers(2, 10).flatmap(lambda m: st.tuples(*[arrays(float, m, elements=finite)] * 2))
epsilons = st.sampled_from([1e-5, 1e-3, 1.0])


def matrix(x, eps):
    """P of the chapter, from the package's backward: one column for each unit push."""
    _, cache = bn.batch_norm(x, 1.0, 0.0, eps=eps)
    pushes = np.eye(len(x))
    return np.column_stack([cache.sigma * bn.batch_norm_backward(g, cache)[0] for g in pushes])


# --------------------------------------------------------- the code of the chapter is bn's


@given(pairs, epsilons, st.integers(0, 2**32 - 1))
def test_both_forms_are_the_packages_gradient(chapter, pair, eps, seed):
    x, g = pair
    gamma, beta = np.random.default_rng(seed).normal(size=(2, x.shape[1]))
    _, cache = bn.batch_norm(x, gamma, beta, eps=eps)
    dx, dgamma, dbeta = bn.batch_norm_backward(g, cache)
    node = chapter["backward_by_node"](g, x, gamma, eps)
    sigma = np.sqrt(x.var(axis=0) + eps)
    line = chapter["backward"](g, (x - x.mean(axis=0)) / sigma, sigma, gamma)
    scale = (np.abs(gamma) * (1 + np.abs(g).max(axis=0)) / sigma).max()
    for got, want, size in ((node["x"], dx, scale), (line, dx, scale),
                            (node["gamma"], dgamma, np.abs(g).sum() + 1),
                            (node["beta"], dbeta, np.abs(g).sum() + 1)):  # fmt: skip
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9 * size)


def test_the_lines_of_one_feature_are_the_function(chapter):
    steps = NOTEBOOK.run("setup", "nodes-forward", "nodes-top-code", "nodes-sigma-code", "nodes-c-code",
                "nodes-x-code")  # fmt: skip
    g, x = steps["g"][:, None], np.array([2.0, 4, 4, 6, 9])[:, None]
    whole = chapter["backward_by_node"](g, x, np.array([2.0]))
    for name in ("beta", "gamma", "x_hat", "sigma", "var", "c", "mean", "x"):
        np.testing.assert_allclose(
            steps[f"d_{name}"], whole[name].squeeze(), rtol=1e-14, err_msg=name
        )
    _, cache = bn.batch_norm(x, np.array([2.0]), np.array([1.0]))
    np.testing.assert_allclose(steps["d_x"], bn.batch_norm_backward(g, cache)[0][:, 0], rtol=1e-13)


def test_autograd_is_compared_at_every_node(chapter):
    g, x = np.random.default_rng(0).normal(size=(2, 5, 3))
    gamma, beta = np.ones(3), np.zeros(3)
    theirs = chapter["backward_by_autograd"](g, x, gamma, beta)
    assert theirs.keys() == chapter["backward_by_node"](g, x, gamma).keys()
    assert set(chapter["agree"].values()) == {100}


# ------------------------------------------------------------------------ the propositions


@given(features, epsilons)
def test_eigenvalues_of_the_jacobian(pair, eps):
    x, _ = pair
    assume(x.std() > 1e-3)
    lam = eps / (x.var() + eps)
    expected = np.sort([0, lam, *[1] * (len(x) - 2)])
    np.testing.assert_allclose(np.linalg.eigvalsh(matrix(x, eps)), expected, atol=1e-9)


@given(features, epsilons)
def test_it_is_a_projection_up_to_epsilon_exactly(pair, eps):
    x, _ = pair
    assume(x.std() > 1e-3)
    P, lam = matrix(x, eps), eps / (x.var() + eps)
    np.testing.assert_allclose(P, P.T, atol=1e-9)
    assert np.linalg.norm(P @ P - P, 2) == pytest.approx(lam - lam**2, abs=1e-9)
    P = matrix(x, 0.0)
    np.testing.assert_allclose(P @ P, P, atol=1e-6)


@given(features, epsilons)
def test_length_of_the_gradient(pair, eps):
    x, g = pair
    assume(x.std() > 1e-3)
    _, cache = bn.batch_norm(x, 1.7, 0.0, eps=eps)
    dx, *_ = bn.batch_norm_backward(g, cache)
    m, lam, x_hat = len(x), eps / (x.var() + eps), cache.x_hat
    bracket = g @ g - g.sum() ** 2 / m - (1 + lam) / m * (g @ x_hat) ** 2
    scale = 1.7**2 / (x.var() + eps)
    assert dx @ dx == pytest.approx(scale * bracket, rel=1e-6, abs=1e-9 * scale * (1 + g @ g))


@given(features)
def test_the_circulating_bound_is_refuted_by_x_hat(pair):
    x, _ = pair
    assume(x.std() > 1e-3)
    x_hat, m = bn.standardize(x, eps=0), len(x)
    assert x_hat @ x_hat - (x_hat @ x_hat) ** 2 / np.sqrt(m) < -0.5  # m − m√m, for m ≥ 2
    _, cache = bn.batch_norm(x, 1.0, 0.0, eps=0)
    dx, *_ = bn.batch_norm_backward(x_hat, cache)
    assert np.abs(dx * cache.sigma).max() < 1e-9


@given(st.floats(-3, 3), st.floats(0, 10), features, epsilons)
def test_two_examples_pass_what_the_formula_says(centre, d, pair, eps):
    g = pair[1][:2]
    _, cache = bn.batch_norm(np.array([centre + d, centre - d]), 1.0, 0.0, eps=eps)
    dx, *_ = bn.batch_norm_backward(g, cache)
    factor = eps / (d**2 + eps) ** 1.5
    expected = factor * (g[0] - g[1]) / 2 * np.array([1, -1])
    np.testing.assert_allclose(
        dx, expected, rtol=1e-6, atol=1e-10 * (1 + np.abs(g).max() / np.sqrt(eps))
    )


@given(st.integers(3, 10), finite, st.floats(1, 100), st.integers(0, 2**32 - 1))
def test_one_against_equals_receives_nothing(m, common, apart, seed):
    x = np.full(m, common)
    x[0] += apart
    _, cache = bn.batch_norm(x, 1.0, 0.0, eps=0)
    g = np.random.default_rng(seed).normal(size=m)
    assert abs(bn.batch_norm_backward(g, cache)[0][0]) < 1e-10


def test_the_share_that_passes_is_measured_near_its_expectation():
    share = NOTEBOOK.run("setup", "projection-code", "two-outlier")["share"]
    for m, passed in share.items():
        assert passed == pytest.approx((m - 2) / m, abs=0.01)


# -------------------------------------------------------------------- numerical gradients


def test_the_error_falls_with_the_step_and_its_square_then_rises():
    study = NOTEBOOK.run("setup", "nodes-code", "numerical-code", "numerical-study")
    steps, errors = study["steps"], study["errors"]

    def slope(name, low, high):
        here = (steps >= low) & (steps <= high)
        return np.polyfit(np.log10(steps[here]), np.log10(errors[name][here]), 1)[0]

    assert slope("forward, float64", 1e-5, 1e-2) == pytest.approx(1, abs=0.05)
    assert slope("central, float64", 1e-3, 1e-1) == pytest.approx(2, abs=0.05)
    for name in ("forward, float64", "central, float64"):
        assert slope(name, 1e-13, 1e-10) == pytest.approx(-1, abs=0.25)  # rounding
    digits = {name: -np.log10(off.min()) for name, off in errors.items()}
    assert 3.5 < digits["central, float32"] < 5.5
    assert 6.5 < digits["forward, float64"] < 8.5
    assert 9.5 < digits["central, float64"] < 12
    at = np.abs(steps - 1e-5).argmin()
    assert 0.01 < errors["central, float32"][at] < 0.2  # "several per cent"


def test_which_test_values_hide_which_mistakes():
    hidden = NOTEBOOK.run("setup", "nodes-code", "numerical-code", "values-code")["missed"]
    assert hidden.pop("irregular values") == []
    assert len(hidden) == 5
    assert all(hidden.values())
    assert "returns zero" in hidden["loss Σ y"]
    assert "returns zero" in hidden["loss ½ Σ y², β = 0"]
    assert "no term for the mean" in hidden["loss ½ Σ y², β = 0"]
    assert "no term for the variance" in hidden["loss Σ y"]
    assert hidden["symmetric values"] == ["no term for the variance", "x instead of x̂"]
    assert "returns zero" in hidden["a batch of two"]
    assert hidden["γ = 1"] == ["γ forgotten"]


# -------------------------------------------------------------------------- second order


@pytest.fixture(scope="module")
def twice():
    return NOTEBOOK.run("setup", "nodes-code", "numerical-code", "numerical-study", "twice-code")[
        "double_backward"
    ]


@given(pairs, epsilons, st.integers(0, 2**32 - 1))
def test_double_backward_is_autograds(twice, pair, eps, seed):
    x, g = pair
    rng = np.random.default_rng(seed)
    u, gamma = rng.normal(size=x.shape), rng.normal(size=x.shape[1])
    tensors = [torch.tensor(v, requires_grad=True) for v in (g, x, gamma)]
    y = torch.nn.functional.batch_norm(
        tensors[1], None, None, tensors[2], None, training=True, eps=eps
    )
    (dx,) = torch.autograd.grad(y, tensors[1], tensors[0], create_graph=True)
    theirs = torch.autograd.grad(dx, tensors, torch.tensor(u))
    sigma = np.sqrt(x.var(axis=0) + eps)
    for mine, other, power in zip(twice(u, g, x, gamma, eps), theirs, (1, 2, 1), strict=True):
        tiny = 1e-8 * (len(x) * np.abs(u).max() * (1 + np.abs(g).max()) / sigma**power).max()
        np.testing.assert_allclose(mine, other.numpy(), rtol=1e-7, atol=tiny)


def test_double_backward_with_respect_to_g_is_the_backward(twice):
    u, g, x = np.random.default_rng(0).normal(size=(3, 6, 2))
    gamma = np.array([1.5, -2.0])
    _, cache = bn.batch_norm(x, gamma, np.zeros(2))
    np.testing.assert_allclose(twice(u, g, x, gamma)[0], bn.batch_norm_backward(u, cache)[0])
    np.testing.assert_allclose(twice(u, g, x, gamma)[1], twice(g, u, x, gamma)[1])  # symmetric
