"""The experiments on learning rates: what they compute, and verdicts that can go either way."""

import itertools
import math

import numpy as np
import pytest
import torch

import bn
from bn import experiments, results
from bn.batched import Stack, mlp
from bn.exercises.learning_rate import _draw_sweep, _largest
from bn.experiments import _rates
from bn.experiments import learning_rate as lr
from bn.train import batches

NEW = ("rate_map", "largest_rate", "divergence", "own_best_rate")


def record(name, seeds, row, **config):
    """A record of the right form: `row(params, seed)` is what a unit measured."""
    declared = experiments.get(name)
    units = [
        {"params": params, "seed": seed, "epochs": [{"epoch": 1, **row(params, seed)}]}
        for params in declared.grid
        for seed in seeds
    ]
    return {"experiment": name, "config": {**declared.config, **config}, "seeds": list(seeds),
            "units": units}  # fmt: skip


def word(name, made):
    return experiments.get(name).verdict(made).word


# ------------------------------------------------------------------------------- what is shared


def test_small_images_are_means_of_squares_and_standardised():
    digits = bn.data.digits()
    x, x_test, y, y_test = _rates.small(digits)
    assert x.shape[1:] == (1, 4, 4)
    assert abs(x.mean()) < 1e-6
    assert x.std() == pytest.approx(1)
    square = digits.x_train[5, 0, 2:4, 4:6].mean()
    other = digits.x_test[7, 0, 6:8, :2].mean()
    found = (x_test[7, 0, 3, 0] - x[5, 0, 1, 2]).item()
    pooled = digits.x_train.reshape(-1, 4, 2, 4, 2).mean((2, 4))
    assert found == pytest.approx((other - square) / pooled.std(), rel=1e-4)
    assert (y.numpy() == digits.y_train).all()
    assert (y_test.numpy() == digits.y_test).all()


def test_the_largest_rate_is_that_of_the_exercise():
    rng = np.random.default_rng(0)
    for _ in range(50):
        rates, losses, bound = _draw_sweep(rng)
        trained = (losses < bound).tolist()
        got = _rates.largest(rates.tolist(), trained, losses.tolist())
        assert got == _largest(rates, losses, bound)
    assert _rates.largest([1, 2], [False, False], [3.0, math.nan]) is None
    assert _rates.largest([1, 2], [True, True], [0.1, 0.2]) == 2


def test_trains_means_the_last_batches_and_nan_does_not():
    losses = torch.full((10, 4), 0.1)
    losses[-2:, 1] = 2.0
    losses[:-2, 2] = 50.0  # only the last two count
    losses[-1, 3] = math.nan
    assert _rates.trains(losses, 2, 0.5) == [True, False, True, False]


def test_windows_are_means():
    losses = torch.arange(12.0).reshape(6, 2)
    assert _rates.windows(losses, 3) == [[2.0, 8.0], [3.0, 9.0]]


def test_a_stack_of_cells_has_their_scales_and_rates():
    cells = [(0.1, 1.0), (0.5, 10.0)]
    stack, rates = _rates.stack_of(cells, True, 3, 16, width=5, depth=2)
    torch.testing.assert_close(
        10 * stack.params["linear1.weight"][0], stack.params["linear1.weight"][1]
    )
    assert rates.tolist() == pytest.approx([0.1, 0.5])


# --------------------------------------------------------------------------- runs, on the digits


@pytest.mark.parametrize("name", NEW)
def test_a_quick_unit_has_the_form_of_the_record(name):
    e = experiments.get(name)
    config = {**e.config, **e.quick}
    if "held_out" in config:
        config["held_out"] = 200
    rows = [list(e.run(config, params, 1, bn.data.digits(), None)) for params in e.grid[:2]]
    again = list(e.run(config, e.grid[0], 1, bn.data.digits(), None))
    assert results.finite(again[0]) == results.finite(rows[0][0])
    full = results.load(name)["units"][0]["epochs"][0]
    for (row,) in rows:
        assert row.keys() == full.keys()
        assert row["epoch"] == 1


def test_the_map_is_what_training_each_cell_by_itself_gives():
    digits = bn.data.digits()
    e = experiments.get("rate_map")
    config = {**e.config, "steps": 12, "window": 4, "rates": [0.01, 0.3, 3.0], "scales": [0.5, 2.0],
              "width": 8}  # fmt: skip
    (row,) = e.run(config, {"activation": "sigmoid", "batch_norm": True}, 2, digits, None)
    x, x_test, y, y_test = _rates.small(digits)
    for (i, scale), (j, rate) in itertools.product(
        enumerate([0.5, 2.0]), enumerate(config["rates"])
    ):
        one = Stack([mlp(activation="sigmoid", scale=scale, in_features=16, width=8, seed=2)])
        losses = [
            one.step(x[b], y[b], torch.tensor([rate])).item()
            for b in itertools.islice(batches(len(x), 64, 2), 12)
        ]
        np.testing.assert_allclose(
            row["loss"][i][j], np.mean(np.reshape(losses, (3, 4)), 1), rtol=6e-3
        )
        accuracy = one.evaluate(x_test, y_test)[1].item()
        assert row["test_accuracy"][i][j] == pytest.approx(accuracy, abs=0.01)


def test_divergence_looks_at_the_same_step_in_both_arms():
    e = experiments.get("divergence")
    config = {**e.config, "steps": 12, "last": 3}
    rows = {p["batch_norm"]: next(e.run(config, p, 0, bn.data.digits(), None)) for p in e.grid}
    assert rows[True]["rate"] == rows[False]["rate"]
    assert rows[True]["step"] == rows[False]["step"]
    plain = rows[False]
    assert not plain["loss"][-1] <= config["diverged"]
    assert all(v <= config["diverged"] for v in plain["loss"][:-1])
    for row in rows.values():
        seen = min(plain["step"], config["before"]) + 1
        assert np.shape(row["spread"]) == np.shape(row["gradient"]) == (seen, config["depth"] + 1)
    # the same weights before the first batch norm, and the same images
    if plain["step"] <= config["before"]:
        assert rows[True]["spread"][0][0] == pytest.approx(plain["spread"][0][0], rel=1e-3)


# ------------------------------------------------------------------------------------- verdicts


def accuracies(with_, without, sigmoid=None):
    """Rows of `rate_map` in which a rate serves so many scales."""

    def row(params, seed):
        counts = with_ if params["batch_norm"] else without
        if sigmoid is not None and params["activation"] == "sigmoid":
            counts = sigmoid
        found = np.full((9, 11), 0.1)
        found[: counts + seed % 2, 4] = 0.9
        found[0, 6] = 0.9
        return {"test_accuracy": found.tolist()}

    return row


def test_verdict_of_the_map():
    seeds = range(4)
    assert word("rate_map", record("rate_map", seeds, accuracies(7, 2))) == "holds"
    assert word("rate_map", record("rate_map", seeds, accuracies(2, 7))) == "did not reproduce here"
    one = record("rate_map", seeds, accuracies(7, 2, sigmoid=3))
    assert word("rate_map", one) == "holds with a caveat"
    counts = lr.scales_reached(one, "relu", True)
    assert counts.shape == (4, 11)
    assert counts[:, 4].tolist() == [7, 8, 7, 8]


def test_verdict_of_the_largest_rate_and_what_stands_in():
    seeds = range(3)

    def row(ratio, absent=None):
        def made(params, seed):
            if not params["batch_norm"] and absent == params["scale"]:
                return {"largest": math.nan}
            return {"largest": 2.0 ** (seed % 2) * (ratio if params["batch_norm"] else 1.0)}

        return made

    assert word("largest_rate", record("largest_rate", seeds, row(4.0))) == "holds"
    assert word("largest_rate", record("largest_rate", seeds, row(1.0))) == "did not reproduce here"
    gone = record("largest_rate", seeds, row(1.0, absent=4.0))
    assert word("largest_rate", gone) == "holds with a caveat"
    lowest = gone["config"]["rates"][0]
    found = lr.octaves(gone, depth=4, width=50, scale=4.0)
    np.testing.assert_allclose(found, np.log2([1 / lowest, 2 / lowest, 1 / lowest]))
    np.testing.assert_allclose(lr.octaves(gone, depth=8, width=50, scale=1.0), 0)
    assert len(lr.setups(gone)) == 12


def test_verdict_of_divergence():
    def row(slope, end):
        def made(params, seed):
            first = np.ones(9)
            last = 2.0 ** (slope * np.arange(1, 10) + 0.1 * seed)
            return {"spread": [first.tolist(), last.tolist()], "end": end}

        return made

    seeds = range(4)
    made = record("divergence", seeds, row(0.5, 0.3))
    assert word("divergence", made) == "holds"
    np.testing.assert_allclose(lr.growth(made)[1], 0.5 * np.arange(1, 9) + 0.1)
    assert word("divergence", record("divergence", seeds, row(0.5, 2.3))) == "holds with a caveat"
    assert word("divergence", record("divergence", seeds, row(-0.5, math.nan))) == (
        "did not reproduce here"
    )


def test_verdict_of_own_rates_splits_the_steps():
    def row(plain, same, own):
        def made(params, seed):
            steps = np.full(9, math.nan)
            if params["batch_norm"]:
                steps[2], steps[5] = same, own
            else:
                steps[2] = plain
            steps += seed
            steps[7] = 100.0 if seed == 1 else math.nan  # one lucky seed is not a rate
            accuracy = np.linspace(0.5, 0.9, 9)
            return {"steps_to_target": steps.tolist(), "validation_accuracy": accuracy.tolist()}

        return made

    seeds = range(3)
    rate = record("own_best_rate", seeds, row(1000, 900, 400))
    assert word("own_best_rate", rate) == "holds"
    split = lr.steps_split(rate, "relu", 1.0)
    assert {k: v.tolist() for k, v in split.items()} == {
        "without": [1000, 1001, 1002], "same": [900, 901, 902], "own": [400, 401, 402]
    }  # fmt: skip
    assert lr.own_rates(rate, "validation_accuracy", "relu", 1.0) == (8, 8)
    rest = record("own_best_rate", seeds, row(1000, 500, 400))
    assert word("own_best_rate", rest) == "holds with a caveat"
    none = record("own_best_rate", seeds, row(400, 401, 500))
    assert word("own_best_rate", none) == "did not reproduce here"


@pytest.mark.parametrize("name", NEW)
def test_the_records_are_whole_and_small(name):
    e = experiments.get(name)
    made = results.load(name)
    assert len(made["seeds"]) >= 5
    assert len(made["units"]) == len(e.grid) * len(made["seeds"])
    assert (results.FOLDER / f"{name}.json").stat().st_size < 300_000
    assert e.verdict(made).word in experiments.Verdict.WORDS
