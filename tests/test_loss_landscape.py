"""The experiments on the landscape: what a unit measures, and what a verdict says of a record."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import bn
from bn import landscape
from bn.experiments import loss_landscape as experiments

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(300, 1, 28, 28)).astype(np.float32)
DATA = bn.data.Data(IMAGES, RNG.integers(10, size=300), IMAGES[:1], np.array([0]))
CONFIG = {"stops": [0, 1, 3], "factors": [0.5, 4.0], "batch_size": 64}


def declared(name):
    return bn.experiments.get(name)


def first_batch(seed, data=DATA):
    order = np.random.default_rng((seed, 0)).permutation(len(data.y_train))[:64]
    return torch.from_numpy(data.x_train[order]), torch.from_numpy(data.y_train[order])


def only(rows):
    (row,) = rows
    return row


# ------------------------------------------------------------------------------ what a unit measures


@pytest.mark.parametrize("name", ["sigmoid", "relu"])
def test_a_unit_walks_from_the_network_that_trains(name):
    rows = {
        b: only(
            experiments.run_walk(
                CONFIG, {"network": name, "lr": 0.1, "batch_norm": b}, 7, DATA, None
            )
        )
        for b in (True, False)
    }
    x, y = first_batch(7)
    for batch_norm, row in rows.items():
        torch.manual_seed(7)
        model = landscape.network(name, batch_norm)
        walk = landscape.probe(model, x, y, 0.1, CONFIG["factors"])
        assert row["loss"][0] == pytest.approx(walk["loss"], rel=1e-5)
        assert row["high"][0] == pytest.approx(max(walk["losses"]), rel=1e-5)
        assert row["beta"][0] == pytest.approx(walk["beta"], rel=1e-4)
        assert all(len(row[key]) == 3 for key in experiments.KEYS)
        assert row["loss"][0] != row["loss"][1]  # it trains
    layers = 3 if name == "sigmoid" else 6
    assert np.shape(rows[True]["scale"]) == (3, layers)
    assert "scale" not in rows[False]
    assert rows[True]["weights"][0] == rows[False]["weights"][0]  # the same start


def test_the_inserted_layers_change_no_loss():
    row = only(experiments.run_inserted(CONFIG, {"network": "relu", "lr": 0.1}, 0, DATA, None))
    np.testing.assert_allclose(row["plain"]["loss"], row["inserted"]["loss"], rtol=1e-4)
    assert row["plain"]["beta"] != row["inserted"]["beta"]
    walked = only(
        experiments.run_walk(
            CONFIG, {"network": "relu", "lr": 0.1, "batch_norm": False}, 0, DATA, None
        )
    )
    assert row["plain"] == {key: walked[key] for key in row["plain"]}  # probing disturbs nothing


def test_a_slice_has_the_loss_at_its_centre():
    config = {"network": "relu", "lr": 0.1, "stops": [0, 2], "images": 50, "points": 3,
              "reach": 0.5, "batch_size": 64}  # fmt: skip
    row = only(experiments.run_slices(config, {"batch_norm": True}, 3, DATA, None))
    assert np.shape(row["slices"]) == (2, 9)
    torch.manual_seed(3)
    model = landscape.network("relu", True)
    x, y = torch.from_numpy(DATA.x_train[:50]), torch.from_numpy(DATA.y_train[:50])
    assert row["slices"][0][4] == pytest.approx(
        F.cross_entropy(model(x), y).item(),
        rel=5e-3,  # three digits are kept
    )
    assert row["slices"][0][4] != row["slices"][1][4]


def test_the_deep_linear_network_fits_a_linear_map():
    config = {"depth": 4, "width": 3, "samples": 50, "stops": [0, 1, 40]}
    row = only(
        experiments.run_deep_linear(config, {"batch_norm": False, "lr": 0.02}, 1, None, None)
    )
    assert row["loss"][2] < row["loss"][1] < row["loss"][0]
    again = only(
        experiments.run_deep_linear(config, {"batch_norm": False, "lr": 0.02}, 1, None, None)
    )
    assert row == again
    assert all(low <= middle <= 1 for low, middle in zip(row["lowest"], row["cosine"], strict=True))
    still = only(
        experiments.run_deep_linear(config, {"batch_norm": True, "lr": 1e-9}, 1, None, None)
    )
    np.testing.assert_allclose(still["cosine"], 1, atol=1e-4)  # nothing in front moves


def test_the_curvature_is_that_of_the_proposition_and_the_bound_depends_on_gamma():
    rows = {
        scale: only(experiments.run_curvature({"cases": 60}, {"scale": scale}, 4, None, None))
        for scale in (0.5, 1, 8)
    }
    assert max(row["error"] for row in rows.values()) < 1e-9
    assert rows[0.5]["bounded"] > 0.9
    assert 0.5 < rows[1]["bounded"] < 0.95
    assert rows[8]["bounded"] == 0
    assert 0.2 < rows[0.5]["lowered"] < 0.95


# -------------------------------------------------------------------------------- the verdicts


def walk(scale, stops=5, seed=0):
    """A walk whose raw measures all go with `scale`, with a little noise."""
    rng = np.random.default_rng(seed)
    wobble = np.exp(0.05 * rng.normal(size=stops))
    loss = np.linspace(2.3, 0.5, stops)
    row = {
        "loss": loss, "low": loss - 0.1 * scale * wobble, "high": loss + 0.1 * scale * wobble,
        "gradient": 1 + 0 * loss, "weights": 10 + 0 * loss, "change": scale * wobble,
        "beta": 3 * scale * wobble,
    }  # fmt: skip
    return {key: values.tolist() for key, values in row.items()}


def walks(scales):
    """A record: the scale of each arm's measures by (network, lr, batch_norm), 1 if not named."""
    seeds = list(range(4))
    units = [
        {"params": p, "seed": s, "epochs": [
            {"epoch": 1, **walk(scales.get((p["network"], p["lr"], p["batch_norm"]), 1.0), seed=s)}
        ]}
        for p in experiments.ARMS for s in seeds
    ]  # fmt: skip
    return {"experiment": "loss_landscape", "config": {}, "seeds": seeds, "units": units}


def test_a_claim_that_holds_everywhere_somewhere_and_nowhere():
    everywhere = {(n, lr, True): 0.5 for n, rates in experiments.NETWORKS.items() for lr in rates}
    assert experiments.verdict_walk(walks(everywhere)).word == "holds"
    assert experiments.verdict_walk(walks({("relu", 0.1, True): 0.5})).word == "holds with a caveat"
    assert experiments.verdict_walk(walks({})).word == "did not reproduce here"
    rougher = {key: 2.0 for key in everywhere}
    assert experiments.verdict_walk(walks(rougher)).word == "did not reproduce here"
    assert "relu at 0.1: range × 0.5 [" in experiments.verdict_walk(walks(everywhere)).reason


def test_all_three_measures_are_needed():
    record = walks({("relu", 0.1, True): 0.5})
    for unit in record["units"]:
        if unit["params"] == {"network": "relu", "lr": 0.1, "batch_norm": True}:
            unit["epochs"][0]["beta"] = [6 * v for v in unit["epochs"][0]["beta"]]
    assert experiments.verdict_walk(record).word == "did not reproduce here"


def test_a_stop_without_a_number_is_left_out():
    record = walks({("relu", 0.1, True): 0.5})
    want = experiments.verdict_walk(record)
    for unit in record["units"]:
        row = unit["epochs"][0]
        for key in row:
            if key != "epoch":
                row[key] = [*row[key], np.nan]
    assert experiments.verdict_walk(record) == want


def test_the_measures_are_what_they_are_called():
    found = {key: np.array(values) for key, values in walk(2.0).items()}
    np.testing.assert_allclose(experiments.measure(found, "range"), found["high"] - found["low"])
    np.testing.assert_allclose(
        experiments.measure(found, "relative range"), (found["high"] - found["low"]) / found["loss"]
    )
    found["gradient"] *= 4
    np.testing.assert_allclose(experiments.measure(found, "relative change"), found["change"] / 4)
    np.testing.assert_allclose(experiments.measure(found, "relative beta"), found["beta"] * 100)


def test_inserted_networks_are_compared_at_each_point():
    seeds = list(range(4))
    units = [
        {"params": p, "seed": s,
         "epochs": [{"epoch": 1, "plain": walk(1.0, seed=s), "inserted": walk(0.3, seed=s)}]}
        for p in experiments.RATES for s in reversed(seeds)
    ]  # fmt: skip
    record = {"experiment": "inserted_batch_norm", "config": {}, "seeds": seeds, "units": units}
    assert experiments.verdict_inserted(record).word == "holds"
    for unit in units:
        row = unit["epochs"][0]
        row["plain"], row["inserted"] = row["inserted"], row["plain"]
    assert experiments.verdict_inserted(record).word == "did not reproduce here"


def bowls(heights):
    n, seeds = 5, [0, 1, 2]
    ticks = np.linspace(-1, 1, n)
    bowl = np.maximum(abs(ticks[:, None]), abs(ticks)).ravel()  # 1 on the whole edge
    units = [
        {"params": {"batch_norm": b}, "seed": s,
         "epochs": [{"epoch": 1, "slices": [(0.3 + 9 * bowl).tolist(),
                                            (0.3 + (heights[b] + s / 10) * bowl).tolist()]}]}
        for b in (True, False) for s in seeds
    ]  # fmt: skip
    return {"experiment": "loss_slices", "config": {"points": n, "stops": [0, 9]}, "seeds": seeds,
            "units": units}  # fmt: skip


def test_a_slice_rises_from_its_centre_to_its_edge():
    record = bowls({True: 2.0, False: 5.0})
    np.testing.assert_allclose(experiments.rise(record, True), [[9, 2], [9, 2.1], [9, 2.2]])
    verdict = experiments.verdict_slices(record)
    assert verdict.word == "holds"
    assert "-3.00 [" in verdict.reason
    assert (
        experiments.verdict_slices(bowls({True: 5.0, False: 5.0})).word == "did not reproduce here"
    )


def chains(loss, cosine):
    """A record; `loss` and `cosine` give the values at two stops by batch norm."""
    seeds = [0, 1, 2]
    units = [
        {"params": {"batch_norm": b, "lr": lr}, "seed": s,
         "epochs": [{"epoch": 1, "loss": [v * (1 + s / 50) for v in loss[b]],
                     "cosine": [v - s / 500 for v in cosine[b]]}]}
        for b in (True, False) for lr in (1e-3, 1e-4) for s in seeds
    ]  # fmt: skip
    return {"experiment": "deep_linear_network", "config": {}, "seeds": seeds, "units": units}


def test_the_three_statements_on_the_deep_linear_network():
    as_claimed = chains({True: [100, 1], False: [100, 50]}, {True: [0.2, 0.1], False: [0.99, 0.97]})
    verdict = experiments.verdict_deep_linear(as_claimed)
    assert verdict.word == "holds"
    assert "at 0.001" in verdict.reason
    turned = chains({True: [100, 60], False: [100, 50]}, {True: [0.9, 0.9], False: [0.99, 0.3]})
    assert experiments.verdict_deep_linear(turned).word == "did not reproduce here"
    partly = chains({True: [100, 1], False: [100, 50]}, {True: [0.9, 0.9], False: [0.99, 0.3]})
    assert experiments.verdict_deep_linear(partly).word == "holds with a caveat"


def bounds(error, share):
    units = [
        {"params": {"scale": scale}, "seed": s,
         "epochs": [{"epoch": 1, "error": error, "bounded": share, "lowered": 0.5}]}
        for scale in (0.5, 1, 8) for s in (0, 1)
    ]  # fmt: skip
    return {"experiment": "curvature_along_gradient", "config": {"cases": 7}, "seeds": [0, 1],
            "units": units}  # fmt: skip


def test_the_theorem_holds_when_identity_and_bound_do():
    assert experiments.verdict_curvature(bounds(1e-13, 1.0)).word == "holds"
    caveat = experiments.verdict_curvature(bounds(1e-13, 0.99))
    assert caveat.word == "holds with a caveat"
    assert "in 42 random cases" in caveat.reason
    assert experiments.verdict_curvature(bounds(1e-3, 0.5)).word == "did not reproduce here"


def test_training_that_diverged_counts_as_none():
    nan = float("nan")
    record = chains({True: [100, 90], False: [100, nan]}, {True: [0.2, 0.1], False: [0.99, nan]})
    verdict = experiments.verdict_deep_linear(record)
    assert verdict.word == "holds with a caveat"  # its first loss, 100, and a cosine of 0
    assert "nan" not in verdict.reason


# ------------------------------------------------------------------------------- the records


@pytest.mark.parametrize(
    ("name", "seeds"),
    [("curvature_along_gradient", 10), ("loss_landscape", 10), ("inserted_batch_norm", 10), ("loss_slices", 10),
     ("deep_linear_network", 10)],
)  # fmt: skip
def test_the_record_is_whole_and_of_this_code(name, seeds):
    record = bn.results.load(name)
    experiment = declared(name)
    assert len(record["seeds"]) >= seeds
    assert len(record["units"]) == len(record["seeds"]) * len(experiment.grid)
    assert record["config"] == experiment.config
    assert (bn.results.FOLDER / f"{name}.json").stat().st_size < 400_000
    assert experiment.verdict(record).word in bn.experiments._engine.Verdict.WORDS


@pytest.mark.mnist
def test_a_recorded_walk_is_found_again():
    """The first stop of one unit."""
    record = bn.results.load("loss_landscape")
    params = {"network": "relu", "lr": 0.1, "batch_norm": True}
    row = only(
        experiments.run_walk({**record["config"], "stops": [0]}, params, 0, bn.data.mnist(), None)
    )
    recorded = next(u for u in record["units"] if u["params"] == params and u["seed"] == 0)
    for key in experiments.KEYS:
        assert row[key][0] == pytest.approx(recorded["epochs"][0][key][0], rel=1e-3)
