"""Chapter evidence/learning_rate: what it proves holds on any draw, and what it says of its records is in
them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from chapters import Chapter
from hypothesis import given, settings
from hypothesis import strategies as st

import bn
from bn import experiments, results
from bn.experiments import learning_rate as lr

NOTEBOOK = Chapter("evidence/learning_rate")
seeds = st.integers(0, 2**32 - 1)
scales = st.floats(-3, 3).map(lambda e: 10.0**e)


# ------------------------------------------------------------------------------------- what is proved


def gradient(w, u, g):
    """The gradient of sum(g * batch_norm(u @ w)) with respect to w, at epsilon zero."""
    y, cache = bn.batch_norm(u @ w.T, np.ones(len(w)), np.zeros(len(w)), eps=0.0)
    dx, _, _ = bn.batch_norm_backward(g, cache)
    return y, dx.T @ u


@settings(deadline=None)
@given(seeds, scales)
def test_larger_weights_have_a_smaller_gradient_at_a_right_angle(seed, c):
    rng = np.random.default_rng(seed)
    u, w, g = rng.normal(size=(12, 5)), rng.normal(size=(3, 5)), rng.normal(size=(12, 3))
    (y, small), (same, large) = gradient(w, u, g), gradient(c * w, u, g)
    np.testing.assert_allclose(same, y, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(c * large, small, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose((w * small).sum(1), 0, atol=1e-9 * np.abs(small).max() + 1e-12)


@settings(deadline=None)
@given(seeds, scales)
def test_gamma_and_beta_have_no_scale_before_relu_and_another_batch_norm(seed, c):
    generator = torch.Generator().manual_seed(seed % 2**31)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.double)

    x, v, target = normal(16, 4), normal(3, 4), normal(16, 3)
    # |γ| well above |β|, so that no unit is dead for the whole batch
    pair = [(0.5 + normal(4).abs()).requires_grad_(), (0.1 * normal(4)).requires_grad_()]

    def through(gamma, beta, activation):
        h = activation((x - x.mean(0)) / x.std(0, correction=0) * gamma + beta) @ v.T
        return (h - h.mean(0)) / h.std(0, correction=0)

    y = through(*pair, torch.relu)
    torch.testing.assert_close(through(*(c * p for p in pair), torch.relu), y, rtol=1e-6, atol=1e-8)
    grads = torch.autograd.grad((y * target).sum(), pair)
    along = sum((p * g).sum() for p, g in zip(pair, grads, strict=True))
    assert abs(along) < 1e-9 * max(1, *(g.norm().item() for g in grads))
    # the page says that the sigmoid is different
    if not 0.5 < c < 2:
        bent = through(*(c * p for p in pair), torch.sigmoid)
        assert not torch.allclose(bent, through(*pair, torch.sigmoid), rtol=1e-4, atol=1e-4)


@given(seeds, st.floats(-6, 8).map(lambda e: 10.0**e))
def test_the_next_effective_rate_is_bounded(seed, eta):
    rng = np.random.default_rng(seed)
    w, g = rng.normal(size=(2, 6))
    g -= (g @ w) / (w @ w) * w
    new = w - eta * g
    bound = 1 / (2 * np.linalg.norm(w) * np.linalg.norm(g))
    assert eta / (new @ new) <= bound * (1 + 1e-9)
    at_best = np.linalg.norm(w) / np.linalg.norm(g)
    best = w - at_best * g
    assert at_best / (best @ best) == pytest.approx(bound)


# -------------------------------------------------------------------------- what it says of its records


def reached(activation, batch_norm):
    """Where the mean over seeds reaches the threshold, [scale, rate]."""
    record = results.load("rate_map")
    found = results.final(record, "test_accuracy", activation=activation, batch_norm=batch_norm)
    return found.mean(0) >= record["config"]["learned"]


def test_the_right_border_is_vertical_and_the_left_one_diagonal():
    rates = np.array(results.load("rate_map")["config"]["rates"])
    scales = np.array(results.load("rate_map")["config"]["scales"])
    found = reached("relu", True)
    top = [rates[row].max() for row in found if row.any()]
    assert max(top) / min(top) < 4  # one step of the grid at most
    low = {c: rates[row].min() for c, row in zip(scales, found, strict=True) if row.any()}
    assert low[10.0] / low[1.0] >= 10  # c² would be 100, less where the output layer helps
    assert low[0.01] == rates[0]


def test_the_plain_network_is_a_tilted_island():
    config, found = results.load("rate_map")["config"], reached("relu", False)
    scales, rates = np.array(config["scales"]), np.array(config["rates"])
    rows = np.flatnonzero(found.any(1))
    assert scales[rows[[0, -1]]].tolist() == [0.1, 3.162]
    assert rates[found[rows[0]]].max() == pytest.approx(0.3162)
    assert rates[found[rows[-1]]].max() == pytest.approx(0.03162)


def test_who_saves_what_at_whose_rate():
    own = results.load("own_best_rate")
    for activation, scale in lr.networks(own):
        steps = lr.steps_split(own, activation, scale)
        at_once = results.interval(steps["without"] - steps["same"])
        more = results.interval(2 * steps["same"] - steps["own"] - steps["without"])
        assert 0.5 < steps["own"].mean() / steps["without"].mean() < 0.87  # saves 1/7 to 1/2
        assert (at_once.low > 0) == (activation == "relu")
        assert (more.low > 0) == (scale == 4)
        assert (more.high < 0) == (activation == "relu")


def test_what_is_left_in_accuracy_is_about_a_point():
    own = results.load("own_best_rate")
    for activation, scale in lr.networks(own):
        arm = {"activation": activation, "scale": scale}
        best = lr.own_rates(own, "validation_accuracy", **arm)
        with_, without = (
            results.final(own, "test_accuracy", batch_norm=b, **arm)[:, k]
            for b, k in zip((True, False), best, strict=True)
        )
        gap = results.interval(with_ - without)
        assert gap.low > 0
        assert 0.005 < gap.mean < 0.015


def test_with_batch_norm_the_limit_hardly_moves_and_without_it_falls():
    sweep = results.load("largest_rate")
    found = {
        b: [
            np.nan_to_num(results.final(sweep, "largest", batch_norm=b, **s))
            for s in lr.setups(sweep)
        ]
        for b in (True, False)
    }
    assert np.min(found[True]) >= 2
    assert np.max(found[True]) <= 4
    base = {"width": 50, "scale": 1.0}
    by_depth = [
        np.log(results.final(sweep, "largest", batch_norm=False, depth=d, **base)).mean()
        for d in (1, 2, 4, 8, 16)
    ]
    assert (np.diff(by_depth) < 0).all()
    none = results.final(sweep, "largest", batch_norm=False, depth=4, width=50, scale=4.0)
    assert np.isnan(none).all()


@pytest.mark.parametrize("name", ["rate_map", "largest_rate", "divergence", "own_best_rate"])
def test_the_page_prints_the_verdict(name):
    text = NOTEBOOK.path.read_text(encoding="utf-8")
    assert f'experiments.get(\\"{name}\\").verdict' in text
    declared = experiments.get(name)
    assert declared.chapter == "evidence/learning_rate"
    assert declared.code == lr.CODE
