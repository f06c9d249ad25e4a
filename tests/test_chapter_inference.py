"""Chapter layer/inference: its formulas hold on any stream, its code is the package's, and what it
says it measured was measured."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from chapters import Chapter
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

import bn

NOTEBOOK = Chapter("layer/inference")


@pytest.fixture(scope="module")
def chapter():
    return NOTEBOOK.run(
        "setup", "why-code", "noise-code", "total-code", "folding-code", "modes-code"
    )


finite = st.floats(-100, 100, allow_subnormal=False)
momenta = st.floats(0.01, 1)


# ------------------------------------------------------------------------- the moving average


@given(arrays(float, st.integers(1, 40), elements=finite), finite, momenta)
def test_weights_of_values_and_start(values, start, a):
    running = start
    for value in values:
        running = bn.update_running(running, value, a)
    weights = a * (1 - a) ** np.arange(len(values))[::-1]
    left = (1 - a) ** len(values)
    assert running == pytest.approx(left * start + weights @ values, rel=1e-9, abs=1e-9)
    assert weights.sum() + left == pytest.approx(1)


@given(finite, finite, momenta, st.integers(1, 60))
def test_the_bias_from_the_start_and_its_correction(start, value, a, n):
    r, zero = start, 0.0
    for _ in range(n):
        r, zero = (1 - a) * r + a * value, (1 - a) * zero + a * value
    assert r - value == pytest.approx((1 - a) ** n * (start - value), abs=1e-9)
    assert zero / (1 - (1 - a) ** n) == pytest.approx(value, rel=1e-9, abs=1e-9)


@settings(deadline=None)  # the first call imports what torch needs
@given(st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_momentum_none_is_the_plain_mean_and_forgets_the_start(n, seed):
    x = torch.tensor(np.random.default_rng(seed).normal(size=(n, 6, 2)))
    for cls in (nn.BatchNorm1d, bn.nn.BatchNorm1d):
        layer = cls(2, momentum=None).double()
        layer.running_mean.fill_(1e6)
        for batch in x:
            layer(batch)
        torch.testing.assert_close(layer.running_mean, x.mean(1).mean(0))
        torch.testing.assert_close(layer.running_var, x.var(1, correction=1).mean(0))


def test_the_steps_of_the_table_are_the_first_that_are_enough():
    for a, steps in NOTEBOOK.run("setup", "average-code")["one_per_cent"].items():
        assert (1 - a) ** steps <= 0.01 < (1 - a) ** (steps - 1)


# --------------------------------------------------------------------------- noise and lag


@given(momenta)
def test_the_sums_behind_noise_and_lag(a):
    k = np.arange(4000)
    w = a * (1 - a) ** k
    assert (w**2).sum() == pytest.approx(a / (2 - a))
    assert (w * k).sum() == pytest.approx((1 - a) / a, abs=1e-12)


@given(st.floats(0.001, 0.05), st.integers(2, 128))
def test_the_best_momentum_for_a_slow_drift(chapter, drift, m):
    """The rule is the minimum of the approximation, and near that of the formula while small."""
    rule = (4 * m * drift**2) ** (1 / 3)
    grid = np.geomspace(1e-4, 1, 4001)
    approximate = grid / (2 * m) + (drift / grid) ** 2
    assert grid[approximate.argmin()] == pytest.approx(min(rule, 1), rel=5e-3)
    exact = np.hypot(chapter["noise"](grid, m), chapter["lag"](grid, drift))
    if rule < 0.05:
        assert grid[exact.argmin()] == pytest.approx(rule, rel=0.06)


def test_the_last_batch_of_an_epoch():
    last = NOTEBOOK.run("setup", "why-code", "noise-code", "total-last-code")["after_epoch"]
    assert last(64) == pytest.approx(np.sqrt(0.1 / 1.9 / 64))  # a full one changes nothing
    assert last(2, a=1.0) == pytest.approx(np.sqrt(1 / 2))  # it alone counts


# ------------------------------------------------------------------------------ m and m - 1


@given(st.integers(2, 6), st.integers(0, 2**32 - 1))
def test_over_m_minus_1_the_variance_is_unbiased_exactly(m, seed):
    """Over all batches that can be drawn, with replacement, from a small population."""
    values = np.random.default_rng(seed).normal(size=3)
    draws = np.stack(np.meshgrid(*[values] * m), axis=-1).reshape(-1, m)
    assert draws.var(axis=1).mean() == pytest.approx((m - 1) / m * values.var())
    assert draws.var(axis=1, ddof=1).mean() == pytest.approx(values.var())


def test_the_relative_error_of_an_unbiased_variance():
    for m in (2, 8, 33):
        var = np.random.default_rng(m).normal(size=(40_000, m)).var(axis=1, ddof=1)
        assert var.std() == pytest.approx(np.sqrt(2 / (m - 1)), rel=0.04)


# ---------------------------------------------------------------------- the law of total variance


@given(st.lists(st.integers(1, 20), min_size=1, max_size=8), st.integers(0, 2**32 - 1))
def test_pooling_is_exact_however_the_data_are_cut(chapter, sizes, seed):
    rng = np.random.default_rng(seed)
    parts = [100 * rng.normal() + rng.normal(size=(size, 3)) for size in sizes]
    whole = np.concatenate(parts)
    mean, var = chapter["pooled"](
        np.array(sizes), np.array([p.mean(0) for p in parts]), np.array([p.var(0) for p in parts])
    )
    np.testing.assert_allclose(mean, whole.mean(0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(var, whole.var(0), rtol=1e-9, atol=1e-12)


def test_the_term_between_shuffled_batches_is_a_thirty_second():
    """On average over orders, for samples without replacement from a large set."""
    x, order = np.random.default_rng(0).normal(size=1440), np.random.default_rng(1)
    between = [order.permutation(x).reshape(45, 32).mean(1).var() / x.var() for _ in range(400)]
    assert np.mean(between) == pytest.approx(1 / 32, rel=0.05)


# --------------------------------------------------------------------------------- measured


@pytest.fixture(scope="module")
def measured():
    return NOTEBOOK.run("setup", "why-code", "measured-train", "measured-judge", "measured-code")


def test_the_eight_networks_are_eight_networks_of_torch(measured):
    """One of the eight, trained alone with torch's layers, optimizer and moving averages."""
    m, lr, steps = 32, 0.1, 12
    ((_, params, moving),) = measured["train"](m, lr, (steps,))
    start, sizes = np.random.default_rng(0), (64, 32, 32, 10)
    first = [torch.tensor(start.normal(size=(8, a, b)) * (2 / a) ** 0.5)
             for a, b in itertools.pairwise(sizes)]  # fmt: skip
    order = start.random((8, 1437)).argsort(axis=1)
    for which in (0, 5):
        net = nn.Sequential(
            nn.Linear(64, 32, bias=False), nn.BatchNorm1d(32), nn.ReLU(),
            nn.Linear(32, 32, bias=False), nn.BatchNorm1d(32), nn.ReLU(),
            nn.Linear(32, 10, bias=False),
        ).double()  # fmt: skip
        for layer, weight in zip(net[::3], first, strict=True):
            layer.weight.data = weight[which].T.clone()
        optimizer = torch.optim.SGD(net.parameters(), lr=lr)
        for t in range(steps):
            chosen = order[which, m * t : m * (t + 1)]
            optimizer.zero_grad()
            logits = net(measured["x_train"][chosen])
            nn.functional.cross_entropy(logits, measured["y_train"][chosen]).backward()
            optimizer.step()
        for layer, weight in zip(net[::3], params[:3], strict=True):
            torch.testing.assert_close(layer.weight.data, weight[which].T.detach())
        for norm, (mean, var) in zip(net[1::3], moving[0.1], strict=True):
            torch.testing.assert_close(norm.running_mean, mean[which, 0])
            torch.testing.assert_close(norm.running_var, var[which, 0])
        right = (net.eval()(measured["x_test"]).argmax(1) == measured["y_test"]).double().mean()
        assert measured["accuracy"](params, moving[0.1])[which] == pytest.approx(right.item())

        bn.nn.precise_statistics(net, measured["x_train"].split(m))
        for norm, (mean, var) in zip(net[1::3], measured["statistics_of"](params, m), strict=True):
            torch.testing.assert_close(norm.running_mean, mean[which, 0])
            torch.testing.assert_close(norm.running_var, var[which, 0])


def test_what_the_measurement_says(measured):
    """The statements of the text, network by network where they compare two statistics."""
    runs = measured["runs"]

    def gain(key, a, b):
        return 100 * (runs[key][0][a] - runs[key][0][b])

    early = gain((1.0, 32, 80), "precise", 0.01)
    assert early.mean() > 10
    assert (early >= 0).all()
    small = gain((0.1, 4, 160), "precise", "test batch")
    assert (small > 10).all()
    for key, (found, _) in runs.items():
        for kind in (0.01, 0.1, 0.5, "test batch"):
            lead = 100 * (found[kind] - found["precise"])  # of each of the eight
            error = lead.std(ddof=1) / np.sqrt(len(lead))
            assert lead.mean() < 0.1 + 2.4 * error, (key, kind)  # never clearly better
        assert abs(gain(key, "whole", "precise").mean()) < 1.2, key
    calm = gain((0.1, 32, 160), "precise", 0.1)
    assert abs(calm.mean()) < calm.std(ddof=1)
    assert runs[0.1, 2, 160][0]["precise"].mean() < 0.4  # no statistics repair that training


def test_momentum_does_not_touch_the_training():
    x = torch.tensor(np.random.default_rng(0).normal(size=(20, 8, 4)))
    ends = []
    for momentum in (0.0, 0.5, 1.0, None):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5, momentum=momentum), nn.Linear(5, 1))
        net.double()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
        for batch in x:
            optimizer.zero_grad()
            (net(batch) - batch[:, :1]).square().mean().backward()
            optimizer.step()
        ends.append(net[0].weight.detach())
    assert ends[0].isfinite().all()
    assert all(torch.equal(ends[0], end) for end in ends)


# ------------------------------------------------------------------------------ modes, folding


def test_every_row_of_the_table_of_modes(chapter):
    assert chapter["modes"] == {
        "train()": ("the batch", "moves", "learn"),
        "train(), torch.no_grad()": ("the batch", "moves", "do not"),
        "train(), momentum=0": ("the batch", "stays", "learn"),
        "train(), requires_grad=False": ("the batch", "moves", "do not"),
        "eval()": ("stored", "stays", "learn"),
        "eval(), later train()": ("the batch", "moves", "learn"),
        "bn.nn.freeze, later train()": ("stored", "stays", "do not"),
    }


@pytest.mark.parametrize("padding", ["zeros", "reflect", "circular", "replicate"])
def test_folding_behind_a_convolution_is_exact_with_any_padding(chapter, padding):
    layer = nn.Conv2d(2, 3, 3, padding=1, stride=2, dilation=2, padding_mode=padding).double()
    norm = chapter["random_norm"](nn.BatchNorm2d(3).double())
    x = torch.randn(2, 2, 9, 9, dtype=torch.float64)
    for one in (chapter["folded"](layer, norm), bn.nn.fold_pair(layer, norm)):
        torch.testing.assert_close(one(x), norm(layer(x)), rtol=1e-12, atol=1e-12)


def test_lenet_is_left_as_it_is():
    names = [type(layer) for layer in bn.models.lenet(True, image=8)]
    assert [type(layer) for layer in bn.nn.fold(bn.models.lenet(True, image=8))] == names


def test_the_record_of_folding_is_of_what_is_there():
    record = json.loads((bn.results.FOLDER / "folding.json").read_text(encoding="utf-8"))
    assert record["kind"] == "timing"
    for name, found in record["nets"].items():
        assert name.split(",")[0] in bn.models.BUILDERS
        low, median, high = found["to_before"]
        assert low <= median <= high
        assert median == pytest.approx(found["folded_ms"] / found["before_ms"], rel=0.1)
