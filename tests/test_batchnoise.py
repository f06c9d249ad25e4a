"""The predicted noise of batch statistics, against every batch there is and against random ones."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bn import batchnoise

DRAWS = {
    "normal": lambda rng, n: rng.normal(size=n),
    "uniform": lambda rng, n: rng.uniform(size=n),
    "exponential": lambda rng, n: rng.exponential(size=n),
}
TRUE = {"normal": (1, 0, 0), "uniform": (1 / 12, 0, -1.2), "exponential": (1, 2, 6)}


def test_shape_is_that_of_scipy_column_by_column():
    x = np.random.default_rng(0).exponential(size=(50, 3)) * [1, 10, 0.1] + 5
    var, skewness, kurtosis = batchnoise.shape(x)
    np.testing.assert_allclose(var, x.var(0))
    np.testing.assert_allclose(skewness, stats.skew(x))
    np.testing.assert_allclose(kurtosis, stats.kurtosis(x))
    assert np.isnan(batchnoise.shape([3.0, 3.0]).kurtosis)


def test_the_variance_of_the_mean_is_exact_over_all_batches_without_replacement():
    x = np.random.default_rng(1).exponential(size=7)
    for m in range(1, 8):
        means = [np.mean(batch) for batch in itertools.combinations(x, m)]
        assert np.var(means) == pytest.approx(batchnoise.mean_variance(x.var(), m, 7), abs=1e-15)
        with_replacement = [np.mean(b) for b in itertools.product(x, repeat=min(m, 4))]
        assert np.var(with_replacement) == pytest.approx(
            batchnoise.mean_variance(x.var(), min(m, 4))
        )


@pytest.mark.parametrize("name", DRAWS)
def test_the_variance_of_the_deviation_to_leading_order(name):
    rng, (var, _, kurtosis) = np.random.default_rng(2), TRUE[name]
    off = {}
    for m in (8, 256):
        found = DRAWS[name](rng, (12_000, m)).std(axis=1).var()
        off[m] = abs(found / batchnoise.deviation_variance(var, kurtosis, m) - 1)
    assert off[256] < 0.06
    assert off[8] > off[256]  # leading order only


def test_the_deviation_varies_less_without_replacement():
    rng = np.random.default_rng(3)
    x = rng.exponential(size=600)
    var, _, kurtosis = batchnoise.shape(x)
    found = np.var([rng.choice(x, 400, replace=False).std() for _ in range(4000)])
    assert found == pytest.approx(batchnoise.deviation_variance(var, kurtosis, 400, 600), rel=0.08)
    assert found < 0.5 * batchnoise.deviation_variance(var, kurtosis, 400)


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("x_hat", [-0.9, 0.0, 1.5])
def test_one_example_in_many_batches(name, x_hat):
    rng, m, (var, skewness, kurtosis) = np.random.default_rng(4), 300, TRUE[name]
    centre = {"uniform": 0.5, "exponential": 1.0}.get(name, 0.0)
    batch = (DRAWS[name](rng, (8000, m)) - centre) / np.sqrt(var)
    batch[:, 0] = x_hat
    found = ((x_hat - batch.mean(1)) / batch.std(1)).var()
    assert found == pytest.approx(
        batchnoise.normalized_variance(x_hat, skewness, kurtosis, m), rel=0.07
    )


@settings(deadline=None)
@given(st.lists(st.integers(-9, 9), min_size=3, max_size=12), st.floats(-5, 5))
def test_no_feature_has_a_negative_variance(values, x_hat):
    var, skewness, kurtosis = batchnoise.shape(values)
    if var > 0:
        assert batchnoise.normalized_variance(x_hat, skewness, kurtosis, 4) >= -1e-9


def test_a_fair_coin_moves_its_deviation_in_the_next_order_only():
    assert batchnoise.deviation_variance(1.0, -2.0, 8) == 0
    batches = np.array(list(itertools.product((-1.0, 1.0), repeat=8)))
    assert 0 < batches.std(1).var() < 0.1


def test_nothing_is_left_of_the_noise_when_the_batch_is_everything():
    assert batchnoise.mean_variance(2.0, 10, 10) == 0
    assert batchnoise.deviation_variance(2.0, 1.0, 10, 10) == 0
    assert batchnoise.normalized_variance(1.0, 0.0, 0.0, 10, 10) == 0


def test_sizes_may_be_an_array():
    m = np.array([2, 5, 10])
    np.testing.assert_allclose(batchnoise.mean_variance(1.0, m, 10), [4 / 9, 1 / 9, 0])


@pytest.mark.parametrize(("m", "n"), [(0, None), (-1, None), (-1, 5), (6, 5)])
def test_a_batch_that_cannot_be_drawn(m, n):
    with pytest.raises(ValueError, match=f"got m = {m}"):
        batchnoise.mean_variance(1.0, m, n)


# ------------------------------------------------------------------------------------- dropout


def masks(k, p):
    """Every mask of k features, and its probability."""
    for keep in itertools.product((0, 1), repeat=k):
        yield np.array(keep) / (1 - p), np.prod([1 - p if d else p for d in keep])


@pytest.mark.parametrize("p", [0.0, 0.2, 0.5, 0.9])
def test_the_shift_is_exact_over_all_masks(p):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(9, 3)) @ rng.normal(size=(3, 3)) + [0, 1, -3]
    weight = rng.normal(size=(2, 3))
    for w in (None, weight):
        seen = [(x * d if w is None else (x * d) @ w.T, chance) for d, chance in masks(3, p)]
        mean = sum(chance * y.mean(0) for y, chance in seen)
        var = sum(chance * ((y - mean) ** 2).mean(0) for y, chance in seen)
        quiet = (x if w is None else x @ w.T).var(0)
        cov = np.cov(x, rowvar=False, ddof=0)
        np.testing.assert_allclose(batchnoise.dropout_shift(x.mean(0), cov, p, w), var / quiet)
    np.testing.assert_allclose(
        batchnoise.dropout_shift(x.mean(0), x.var(0), p),
        batchnoise.dropout_shift(x.mean(0), cov, p),
    )


def test_the_shift_of_one_half():
    assert batchnoise.dropout_shift([0.0], [3.0], 0.5).tolist() == [2.0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (([0.0], [1.0], 1.0), "got 1.0"),
        (([0.0], [1.0], -0.1), "got -0.1"),
        (([0.0, 1.0], [1.0], 0.5), r"\(2,\) and \(1,\)"),
        (([0.0, 1.0], [1.0, 1.0], 0.5, [[1.0, 1.0]]), r"cov \(2, 2\), got"),
        (([0.0], [[1.0]], 0.5, [1.0]), r"\(outputs, 1\), got \(1,\)"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        batchnoise.dropout_shift(*arguments)
