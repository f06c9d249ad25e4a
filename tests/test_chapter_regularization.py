"""Chapter evidence/regularization: its code is the package's, its verdicts can go either way, and
what it says it measured was measured."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from chapters import Chapter

import bn
from bn import ghost
from bn.experiments import get, regularization
from bn.results import final, paired

NOTEBOOK = Chapter("evidence/regularization")
TRAINED = ("ghost_batches", "noise_switched_off", "dropout_batch_norm")


@pytest.fixture(scope="module")
def chapter():
    return NOTEBOOK.run(
        "setup", "trained-code", "trained-check", "ghost-code", "ghost-figure", "ghost-table",
        "off-code", "off-numbers", "shift-code", "both-code", "both-numbers",
    )  # fmt: skip


# ------------------------------------------------------------------------------- the experiments


def test_all_arms_of_a_seed_share_images_weights_and_batches():
    """The same arm in three experiments, trained three times, is the same to the last bit."""
    one, two, three = (bn.results.load(name) for name in TRAINED)
    seeds = min(len(r["seeds"]) for r in (one, two, three))
    for norm in (256, "none"):
        arms = [
            final(one, "test_loss", norm=norm, lr=0.5),
            final(two, "test_loss", norm=norm),
            final(three, "test_loss", norm=norm, dropout=0.0, place="after"),
        ]
        for other in arms[1:]:
            assert np.array_equal(arms[0][:seeds], other[:seeds])
    assert np.array_equal(
        final(one, "test_loss", norm=16, lr=0.5)[:seeds], final(two, "test_loss", norm=16)[:seeds]
    )


@pytest.mark.parametrize("params", [
    {"norm": 64, "lr": 0.5}, {"norm": "none", "lr": 0.5}, {"norm": "whole set"},
    {"norm": "constants"}, {"norm": 64, "dropout": 0.5, "place": "before"},
])  # fmt: skip
def test_a_unit_runs_on_the_digits_and_repeats_itself(params):
    config = {"images": 256, "batch_size": 64, "epochs": 2, "passes": 1, "lr": 0.5}
    digits, rows = bn.data.digits(), []
    for _ in range(2):
        torch.manual_seed(int(torch.randint(9, ()).item()))  # whatever the global state is
        rows.append(list(regularization.run_training(config, params, 0, digits, None)))
    assert rows[0] == rows[1]
    assert [row["epoch"] for row in rows[0]] == [1, 2]
    assert ("shift" in rows[0][1]) == ("dropout" in params)
    if params["norm"] != "constants":  # its gradient is another function's
        assert rows[0][1]["train_loss"] < rows[0][0]["train_loss"]


def test_constants_have_the_statistics_of_the_whole_set_and_another_gradient():
    config = {"images": 256, "batch_size": 64, "epochs": 1, "passes": 1, "lr": 0.5}
    digits = bn.data.digits()
    rows = [
        next(regularization.run_training({**config, "passes": p}, {"norm": n}, 0, digits, None))
        for n in ("whole set", "constants")
        for p in (0, 1)
    ]
    for key in ("train_loss", "test_loss"):  # before the first step, and after it
        assert rows[0][key] == rows[2][key]
        assert rows[1][key] != rows[3][key]


def test_noise_is_measured_as_predicted_on_the_digits():
    config = {"images": 512, "batch_size": 64, "passes": 2, "lr": 0.5, "sizes": [2, 64, 256],
              "draws": 300}  # fmt: skip
    (row,) = regularization.run_noise(config, {}, 0, bn.data.digits(), None)
    assert [layer["name"] for layer in row["layers"]] == ["norm1", "norm2", "norm3"]
    for layer in row["layers"]:
        assert len(layer["kurtosis"]) == 100
        np.testing.assert_allclose(layer["mean"], layer["mean_predicted"], rtol=0.25)
        for what in ("deviation", "moved"):
            np.testing.assert_allclose(layer[what][1:], layer[f"{what}_predicted"][1:], rtol=0.25)
        assert layer["deviation"][0] < 0.9 * layer["deviation_predicted"][0]


# ------------------------------------------------------------------------------------ verdicts


def changed(name, edit):
    """The verdict on a record of which each unit was edited."""
    record = copy.deepcopy(bn.results.load(name))
    for unit in record["units"]:
        edit(unit["params"], unit["epochs"][-1])
    return get(name).verdict(record).word


def plus(value, *keys):
    return lambda row: row.update({key: row[key] + value for key in keys})


def test_the_verdict_on_ghost_batches_can_be_each_word():
    record = bn.results.load("ghost_batches")
    best = regularization.best_ghost(record)

    def as_claimed(params, row):
        row["train_loss"] = 0.01 + 1e-4 * row["test_loss"] + 0.1 * (params["norm"] == best)

    def no_gain(params, row):
        row["test_accuracy"] = 0.9 + 1e-3 * row["test_loss"] * (params["norm"] == 256)
        row["train_loss"] = 0.1

    assert changed("ghost_batches", as_claimed) == "holds"
    assert changed("ghost_batches", no_gain) != "holds"

    def worse(params, row):
        row["test_accuracy"] = {"none": 0.95, 256: 0.94}.get(params["norm"], 0.93)
        row["train_loss"] = 0.1

    assert changed("ghost_batches", worse) == "did not reproduce here"


def test_the_verdict_on_noise_can_be_each_word():
    def level(whole):
        def edit(params, row):
            row["test_accuracy"] = {"whole set": whole, 16: 0.94}.get(params["norm"], 0.92)

        return edit  # fmt: skip

    words = [changed("noise_switched_off", level(whole)) for whole in (0.91, 0.93, 0.95)]
    assert words == ["holds", "holds with a caveat", "did not reproduce here"]


def test_the_verdict_on_dropout_hangs_on_its_three_tests():
    def repaired(params, row):
        if params["place"] == "before":
            row["test_accuracy"] = row["test_accuracy_stored"] + 0.01
        elif params["norm"] == 256 and params["dropout"] == 0.5:
            row["test_accuracy_stored"] -= 0.1

    def friendly(params, row):
        if params["norm"] == 256 and params["dropout"] == 0.5:
            row["test_accuracy_stored"] += 0.1
            row["test_accuracy"] = row["test_accuracy_stored"] - 0.01
            if "shift" in row and "norm1" in row["shift"]:
                row["shift"]["norm1"]["stored"] *= 2

    assert changed("dropout_batch_norm", repaired) == "holds"
    assert changed("dropout_batch_norm", friendly) == "did not reproduce here"


def test_the_verdict_on_the_formulas_can_fail():
    def off(params, row):
        for layer in row["layers"]:
            layer["mean"] = [1.1 * v for v in layer["mean"]]

    assert changed("batch_noise", lambda params, row: None) == "holds"
    assert changed("batch_noise", off) == "holds with a caveat"


def test_the_interaction_is_a_difference_of_differences():
    record = bn.results.load("dropout_batch_norm")
    arm = {
        (norm, p): final(record, "test_accuracy", norm=norm, dropout=p, place="after")
        for norm in ("none", 256)
        for p in (0.0, 0.5)
    }
    want = arm[256, 0.5] - arm[256, 0.0] - arm["none", 0.5] + arm["none", 0.0]
    np.testing.assert_allclose(regularization.interaction(record, 0.5).differences, want)


def test_rates_and_sizes_are_chosen_on_held_out_images():
    record = copy.deepcopy(bn.results.load("ghost_batches"))
    for unit in record["units"]:
        row = unit["epochs"][-1]
        row["validation_accuracy"] = (unit["params"]["norm"] == 64) + 0.1 * unit["params"]["lr"]
    assert regularization.best_ghost(record) == 64
    assert regularization.best_rate(record, "none") == 0.5


# ------------------------------------------------------------------------------ the chapter's code


def test_ghost_norm_of_the_page_is_the_layer(chapter):
    x = np.random.default_rng(0).normal(size=(24, 3)) * 2 + 1
    for size in (2, 3, 8, 24):
        layer = ghost.GhostBatchNorm1d(3, size).double()
        np.testing.assert_allclose(
            chapter["ghost_norm"](x, size), layer(torch.tensor(x)).detach(), atol=1e-12
        )


def test_what_the_page_says_of_the_ghost_batches(chapter):
    record, smaller, gain = (chapter[name] for name in ("record", "smaller", "gain"))
    best = regularization.best_ghost(record)
    assert best == 32
    assert smaller[best].low > 0  # more noise, up to a point
    assert smaller[4].high < 0
    assert smaller[8].high > 0
    assert chapter["at_rate"](16, 0.2).low > 0
    assert final(record, "train_accuracy", **chapter["arm"](2)).mean() < 0.8
    looser = chapter["looser"]
    assert all(looser[m].low > 0 for m in (4, 8))  # worse fits, where the test is past its best
    assert looser[32].mean < 0
    assert gain[256].low > 0
    assert gain[256].mean > smaller[best].mean
    assert paired(record, "train_loss", a=chapter["arm"]("none"), b=chapter["arm"](256)).low > 0
    large = ("none", *(m for m in regularization.GHOSTS if m >= 8))
    assert {regularization.best_rate(record, m) for m in large} == {0.5}


def test_what_the_page_says_of_the_noise_switched_off(chapter):
    rest, noise, cut = (chapter[name] for name in ("rest", "noise_of", "cut"))
    assert rest.low > 0
    assert chapter["whole_gain"].mean > 0
    assert all(gap.mean < rest.mean for gap in noise.values())
    assert noise[16].low > 0
    assert noise[256].low < 0 < noise[256].high  # "cannot be told from nothing"
    assert cut.high < -0.01


def test_what_the_page_says_of_dropout(chapter):
    shift_of, change, repair = (chapter[name] for name in ("shift_of", "change", "repair"))
    for place, layer in (("before", "norm1"), ("after", "norm2")):
        train, predicted = (shift_of(place, layer, kind).mean for kind in ("train", "predicted"))
        assert train == pytest.approx(predicted, rel=0.02)
    assert shift_of("before", "norm2", "train").high < 1
    assert all(shift_of("before", f"norm{i}", "stored").low > 1 for i in (1, 2, 3))
    joint = chapter["joint"]
    assert joint[0.5].low < 0 < joint[0.5].high  # "does not quite settle"
    assert joint[0.2].high < 0
    assert all(np.sum(gap.differences < 0) >= 8 for gap in joint.values())
    accuracy, cost = repair("both, 0.5 before"), change("both, 0.5 before", "batch norm")
    assert abs(accuracy.mean) < 0.25 * abs(cost.mean)
    assert repair("both, 0.5 before", "test_loss").low > 0
    last = change("both, 0.5 last", "batch norm")
    assert last.mean > -0.001
    for name in ("both, 0.2", "both, 0.5", "both, 0.5 before"):
        assert change(name, "batch norm").high < 0


def test_the_verdicts_on_the_page_are_those_of_the_records():
    text = "".join(
        NOTEBOOK.source(name) for name in ("ghost-reading", "off-reading", "both-reading")
    )
    for name in TRAINED:
        assert f"**{get(name).verdict(bn.results.load(name)).word}**" in text


def test_tables_compare_with_all_256(chapter):
    record = chapter["record"]
    for norm in ("none", 2, 128):
        accuracy, mean, low, high = chapter["row"](norm)
        gap = paired(record, a=chapter["arm"](norm), b=chapter["arm"](256))
        assert accuracy == pytest.approx(
            100 * final(record, "test_accuracy", **chapter["arm"](norm)).mean()
        )
        assert (mean, low, high) == pytest.approx(tuple(100 * v for v in gap[:3]))
