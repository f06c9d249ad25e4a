"""Records are read strictly, and the statistics read off them are the textbook's."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bn import experiments, results


def make(values, metric="test_accuracy") -> dict:
    """A record from {(batch_norm, seed): [value of each epoch]}."""
    units = [
        {
            "params": {"batch_norm": b},
            "seed": s,
            "epochs": [{"epoch": i + 1, metric: v} for i, v in enumerate(row)],
        }
        for (b, s), row in values.items()
    ]
    return {
        "schema": results.SCHEMA,
        "experiment": "made_up",
        "config": {"epochs": 2},
        "seeds": sorted({s for _, s in values}),
        "data": {"name": "digits", "sha256": "0"},
        "code": "0",
        "units": units,
        "verified": [],
        "seconds": [1.5] * len(units),
        "versions": {},
        "hardware": {},
    }


def strip(record):
    return {**record, "units": [{k: u[k] for k in ("params", "seed", "epochs")}
                                for u in record["units"]]}  # fmt: skip


@settings(deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=2))
def test_every_bit_survives_the_file(tmp_path_factory, row):
    record = make({(True, 0): row, (False, 0): row[::-1]})
    folder = tmp_path_factory.mktemp("r")
    results.save(record, folder / "made_up.json")
    loaded = results.load("made_up", folder)
    assert strip(loaded) == record
    assert [u["seconds"] for u in loaded["units"]] == [1.5, 1.5]
    again = folder / "again.json"
    results.save(loaded, again)
    assert again.read_bytes() == (folder / "made_up.json").read_bytes()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_null_in_the_file_and_nan_in_memory(tmp_path, value):
    results.save(make({(True, 0): [1.0, value]}), tmp_path / "made_up.json")
    text = (tmp_path / "made_up.json").read_text()
    json.loads(text, parse_constant=lambda c: pytest.fail(f"{c} is no JSON"))
    assert "null" in text
    assert math.isnan(results.final(results.load("made_up", tmp_path), "test_accuracy")[0])


def test_unknown_record_suggests_one():
    with pytest.raises(results.RecordError, match=r"Did you mean 'mnist_mlp'.*bn run mnist_mpl"):
        results.load("mnist_mpl")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not a record"),
        ('{"schema": 1', "not a record"),
        ("[]", "not a record"),
        ("{}", "not a record"),
        ('{"schema": 2}', "Install a newer bn"),
        ('{"schema": 0}', "Run the experiment again"),
        ('{"schema": "one"}', "Run the experiment again"),
        ('{"schema": 1}', "lacks experiment, config"),
    ],
)
def test_what_is_not_a_record_is_refused_by_name(tmp_path, text, words):
    path = tmp_path / "odd.json"
    path.write_text(text)
    with pytest.raises(results.RecordError, match=words) as caught:
        results.load("odd", tmp_path)
    assert str(path) in str(caught.value)


def test_names_are_the_records_only(tmp_path):
    results.save(make({(True, 0): [1.0, 2.0]}), tmp_path / "made_up.json")
    (tmp_path / "other.json").write_text('{"kind": "timing"}')
    assert results.names(tmp_path) == ["made_up"]
    assert set(results.names()) <= set(experiments.names())


def test_curves_and_final_follow_the_seeds():
    record = make({(True, 3): [1, 2], (False, 3): [3, 4], (True, 1): [5, 6], (False, 1): [7, 8]})
    assert results.curves(record, "test_accuracy", batch_norm=True).tolist() == [[5, 6], [1, 2]]
    assert results.final(record, "test_accuracy", batch_norm=False).tolist() == [8, 4]


@pytest.mark.parametrize("params", [{}, {"batch_norm": None}, {"lr": 1}])
def test_ambiguous_or_empty_choice_is_refused(params):
    record = make({(True, 0): [1, 2], (False, 0): [3, 4]})
    with pytest.raises(results.RecordError, match=r'The units are: .*"batch_norm": false'):
        results.curves(record, "test_accuracy", **params)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=9).filter(
        lambda pairs: np.std([a - b for a, b in pairs]) > 1e-6
    )
)
def test_paired_is_the_t_interval_of_the_paired_test(pairs):
    values = {}
    for seed, (a, b) in enumerate(pairs):
        values[True, seed], values[False, seed] = [0.0, a], [0.0, b]
    gap = results.paired(make(values))
    a, b = np.array(pairs).T
    interval = stats.ttest_rel(a, b).confidence_interval(0.95)
    np.testing.assert_allclose(gap.differences, a - b)
    np.testing.assert_allclose(
        [gap.mean, gap.low, gap.high], [(a - b).mean(), *interval], rtol=1e-7, atol=1e-12
    )


def test_paired_chooses_arms_and_epoch():
    record = make({(True, 0): [1, 2], (False, 0): [4, 8], (True, 1): [1, 2], (False, 1): [4, 8]})
    assert results.paired(record, epoch=0).mean == -3
    swapped = results.paired(record, a={"batch_norm": False}, b={"batch_norm": True})
    assert swapped.mean == 6


def test_one_seed_gives_no_interval():
    gap = results.paired(make({(True, 0): [1, 2], (False, 0): [1, 1]}))
    assert gap.mean == 1
    assert (gap.low, gap.high) == (-math.inf, math.inf)


def test_a_difference_of_fractions_in_points():
    gap = results.Paired(0.01234, -0.001, 0.025, np.zeros(2))
    assert gap.points() == "+1.23 points [-0.10, +2.50]"


# -- the records that bn ships ------------------------------------------------------------------

RECORDS = results.names()


@pytest.mark.parametrize("name", RECORDS)
def test_record_is_whole_and_of_the_present_code(name):
    record, e = results.load(name), experiments.get(name)
    assert record["experiment"] == name
    assert record["config"] == e.config
    assert tuple(record["seeds"]) == e.seeds
    expected = [(params, seed) for params in e.grid for seed in e.seeds]
    assert [(u["params"], u["seed"]) for u in record["units"]] == expected
    for unit in record["units"]:
        assert [row["epoch"] for row in unit["epochs"]] == list(range(1, e.config["epochs"] + 1))
        for row in unit["epochs"]:
            assert len(row) > 1, "an epoch, and nothing measured"
            accuracies = [value for key, value in row.items() if key.endswith("accuracy")]
            assert all(0 <= value <= 1 for value in accuracies if isinstance(value, float))
    codes = [record["code"], *(note["code"] for note in record["verified"])]
    assert experiments.code_hash(e) in codes, (
        f"what determines the numbers of {name} has changed: run it anew with --record, or, if "
        f"the numbers should be the same, show it with: bn verify {name} --stamp"
    )
    assert e.verdict(record).word in experiments.Verdict.WORDS


def test_every_experiment_is_recorded():
    assert experiments.names() == RECORDS


@pytest.mark.parametrize("name", [n for n in RECORDS if experiments.get(n).data == "digits"])
def test_record_was_made_from_these_digits(name):
    from bn import data

    assert results.load(name)["data"] == {"name": "digits", "sha256": data.digest(data.digits())}


@pytest.mark.mnist
def test_records_were_made_from_this_mnist():
    from bn import data

    expected = {"name": "mnist", "sha256": data.digest(data.mnist())}
    for name in RECORDS:
        if experiments.get(name).data == "mnist":
            assert results.load(name)["data"] == expected


def test_step_time_is_of_the_networks_there_are():
    from bn import models

    found = results.step_time()
    assert found["nets"].keys() == models.BUILDERS.keys()
    for net in found["nets"].values():
        low, high = net["quartiles"]
        assert low <= net["ratio"] <= high
        assert net["ratio"] == pytest.approx(net["with_ms"] / net["without_ms"], rel=0.1)
