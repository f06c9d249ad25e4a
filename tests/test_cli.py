"""The command ``bn`` says what it did, and errors are one line without a traceback."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats
from test_experiments import broken, declare

from bn import cli, data, experiments, results
from bn.experiments import _report


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("BN_RESULTS_DIR", str(tmp_path / "runs"))
    return tmp_path / "runs"


def bn(capsys, *arguments):
    code = cli.main(list(arguments))
    out, err = capsys.readouterr()
    return code, out, err


def test_list(capsys):
    code, out, _ = bn(capsys, "list")
    assert code == 0
    assert all(name in out for name in experiments.names())
    assert "10 runs of 10 epochs" in out


def test_run_show_verify(capsys, own_folder):
    code, out, err = bn(capsys, "run", "digits_mlp", "--seeds", "1-2", "--workers", "1")
    assert code == 0
    assert "Verdict:" in out
    assert str(own_folder / "digits_mlp.json") in out
    assert "120/120" in err  # the bar
    code, shown, _ = bn(capsys, "show", "digits_mlp", "--folder", str(own_folder))
    assert code == 0
    assert shown in out
    options = ("--folder", str(own_folder), "--workers", "1", "--quick")
    code, out, _ = bn(capsys, "verify", "digits_mlp", *options)
    assert (code, out) == (0, "digits_mlp: reproduced, bit for bit.\n")

    record = results.load("digits_mlp", own_folder)
    record["units"][1]["epochs"][0]["train_loss"] += 0.25
    record["units"][3]["epochs"][0]["preactivations"]["sigmoid1"]["counts"][0] += 1
    results.save(record, own_folder / "digits_mlp.json")
    code, out, _ = bn(capsys, "verify", "digits_mlp", *options)
    assert code == 1
    assert "2 numbers differ" in out
    assert "by 0.25; batch_norm=True, seed 2, epoch 1" in out
    assert "preactivations: not the same; batch_norm=False" in out

    shutil.copy(results.FOLDER / "digits_mlp.json", own_folder / "shipped.json")
    shipped, own = str(own_folder / "shipped.json"), str(own_folder / "digits_mlp.json")
    code, out, _ = bn(capsys, "compare", "digits_mlp", shipped)
    assert (code, out) == (0, "Identical: every number of every unit, to the last bit.\n")
    code, out, _ = bn(capsys, "compare", shipped, own)
    assert code == 1
    assert "Not the same: seeds: [0, 1, 2, 3, 4] and [1, 2]" in out
    assert "no single number that both measured differs there" in out  # only the first epochs do


def test_show_tells_the_shipped_record(capsys):
    code, out, _ = bn(capsys, "show", "mnist_mlp")
    assert code == 0
    for words in ("Claim:", "Criterion:", "Verdict:", "batch_norm=True", "torch", "test accuracy"):
        assert words in out


def test_quick_has_no_verdict_and_cannot_be_recorded(capsys):
    code, out, _ = bn(capsys, "run", "digits_mlp", "--seeds", "0", "--workers", "1", "--quick")
    assert code == 0
    assert "Verdict: none" in out
    code, _, err = bn(
        capsys, "run", "digits_mlp", "--seeds", "0", "--workers", "1", "--quick", "--record"
    )
    assert code == 1
    assert "leave out --quick" in err


def test_record_goes_among_those_that_ship(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path / "shipped")
    code, _out, _ = bn(capsys, "run", "digits_mlp", "--seeds", "0", "--workers", "1", "--record")
    assert code == 0
    assert json.loads((tmp_path / "shipped" / "digits_mlp.json").read_text())


@pytest.fixture
def small(monkeypatch):
    """Three experiments that take no time: two that run, and one that fails."""
    sound = [declare(name=n, config={"epochs": e}) for n, e in (("curved", 3), ("single", 1))]
    declared = {e.name: e for e in [*sound, declare(name="broken", run=broken, core_minutes=9)]}
    monkeypatch.setattr(experiments, "_registry", lambda: dict(sorted(declared.items())))


def test_all_in_one_run_and_what_failed_is_told_at_the_end(
    capsys, small, own_folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    code, out, err = bn(capsys, "run", "--all", "--workers", "1")
    assert code == 1
    for name in ("curved", "single"):
        assert f"{name}: holds: . Written to {own_folder / name}.json\n" in out
    assert "in broken" in err  # the traceback
    assert err.endswith("bn: broken: ZeroDivisionError: power cut (batch_norm=True, seed=0)\n")

    _, out, _ = bn(capsys, "run", "curved", "--workers", "1", "--seeds", "1", "--folder", "else")
    assert "Verdict: holds:  (without the seeds 0 of a full run)." in out

    code, out, err = bn(capsys, "verify", "--all", "--folder", str(own_folder), "--workers", "1")
    assert (code, out.count("reproduced, bit for bit.")) == (0, 2)
    code, _, err = bn(capsys, "verify", "broken", "--folder", str(own_folder), "--workers", "1")
    assert code == 1
    assert err.startswith("bn: There is no record")


def test_status_says_what_is_left(capsys, small, own_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path / "shipped")
    bn(capsys, "run", "curved", "--workers", "1", "--record")
    bn(capsys, "run", "single", "--workers", "1", "--seeds", "0")
    code, out, _ = bn(capsys, "status")
    assert code == 0
    broken, curved, single = (line.split() for line in out.splitlines()[1:4])
    assert broken == ["broken", "none", "-", "9", "min"]
    assert curved == ["curved", "seeds", "0-1", "4", "of", "4", "-"]
    assert single == ["single", "none", "2", "of", "4", "30", "s"]
    assert f"Left in all: 10 min on one core. Runs in {own_folder}." in out

    record = results.load("curved", tmp_path / "shipped")
    results.save({**record, "code": "old"}, tmp_path / "shipped" / "curved.json")
    _, out, _ = bn(capsys, "status")
    assert "seeds 0-1, but" in out
    assert "the code that determines the numbers has changed" in out


def test_status_says_what_cannot_be_told_without_mnist(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("BN_DATA_DIR", str(tmp_path))
    code, out, _ = bn(capsys, "status", "--folder", str(tmp_path))
    assert code == 0
    (line,) = (line.split() for line in out.splitlines() if line.startswith("mnist_mlp "))
    assert line == ["mnist_mlp", "seeds", "0-9", "?", "-"]
    assert "MNIST is not here" in out
    assert "bn data" in out


def test_a_figure_over_the_epochs_or_of_the_end(capsys, small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = ("--folder", str(tmp_path / "runs"))
    bn(capsys, "run", "curved", "single", "--workers", "1")
    code, out, _ = bn(capsys, "show", "curved", *folder, "--plot")
    assert (code, out.splitlines()[-1]) == (0, "Drawn in curved.png")
    assert (tmp_path / "curved.png").read_bytes().startswith(b"\x89PNG")
    code, out, _ = bn(capsys, "show", "single", *folder, "--plot", "end.svg")
    assert code == 0
    assert "<svg" in (tmp_path / "end.svg").read_text()

    over = _report.figure(results.load("curved", tmp_path / "runs"))
    assert [ax.get_ylabel() for ax in over.axes] == ["train loss", "test accuracy"]
    with_, without = over.axes[1].lines
    np.testing.assert_allclose(with_.get_ydata(), [0.5, 1.0, 1.5])  # (1 + 2) epoch / 3 / 2
    band = over.axes[1].collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (pytest.approx(1 / 3), 2.0)
    assert with_.get_linestyle() != without.get_linestyle()
    end = _report.figure(results.load("single", tmp_path / "runs"))
    dots = end.axes[1].lines[0]
    np.testing.assert_allclose(dots.get_xdata(), [1 / 3, 2 / 3])
    assert [t.get_text() for t in end.axes[0].get_yticklabels()] == [
        "batch_norm=True", "batch_norm=False"]  # fmt: skip


def test_a_figure_without_matplotlib(capsys, monkeypatch):
    for name in [n for n in sys.modules if n.split(".")[0] == "matplotlib"] + ["bn.plots"]:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, out, err = bn(capsys, "show", "digits_mlp", "--plot")
    assert (code, out) == (1, "")
    assert err == "bn: this needs matplotlib: pip install 'bn[book]'\n"


def test_the_table_is_of_what_was_measured():
    rows = {True: [1.0, 3.0], False: [float("nan"), 2.0]}
    units = [
        {"params": {"on": on}, "seed": seed, "epochs": [
            {"epoch": 1, "gap": value, "list": [1.0], "big": 12345.678 + value * 0, "word": "x"}]}
        for on, values in rows.items() for seed, value in enumerate(values)
    ]  # fmt: skip
    lines = list(_report.table({"units": units}))
    assert lines[0].split() == ["gap", "big"]
    assert lines[1].startswith("on=True")
    assert "2.000 ± 1.4" in lines[1]  # the deviation of 1 and 3, by n − 1
    assert "1 of 2 not finite" in lines[2]
    assert lines[-1] == "Recorded too, but not as one number: list, word"
    assert max(map(len, _report.table({"units": units}, width=30))) < 60


def test_comparing_pairs_the_seeds(capsys, small, tmp_path):
    folder = tmp_path / "runs"
    bn(capsys, "run", "curved", "--workers", "1", "--seeds", "0-4")
    other = results.load("curved", folder)
    gains = [0.1, 0.2, 0.3, 0.2]
    for unit in other["units"]:
        if unit["params"]["batch_norm"] and unit["seed"] < 4:
            unit["epochs"][-1]["test_accuracy"] += gains[unit["seed"]]
    other["units"] = [unit for unit in other["units"] if unit["seed"] < 4]
    other["seeds"], other["code"] = [0, 1, 2, 3], "other"
    other["seconds"] = other["seconds"][:8]
    results.save(other, folder / "other.json")
    code, out, _ = bn(capsys, "compare", str(folder / "curved.json"), str(folder / "other.json"))
    assert code == 1
    interval = stats.t.interval(0.95, 3, np.mean(gains), stats.sem(gains))
    assert "test_accuracy, batch_norm=True: +0.2  [{:+.3g}, {:+.3g}]".format(*interval) in out
    assert "batch_norm=False" not in out
    assert "train_loss" not in out
    for words in ("code: ", "seeds: [0, 1, 2, 3, 4] and [0, 1, 2, 3]"):
        assert f"Not the same: {words}" in out


def test_a_reader_who_has_had_enough_is_no_error():
    command = f"{sys.executable} -m bn show mnist_mlp | head -c 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("m", "")


def test_ranges():
    assert cli._ranges([0, 1, 2, 7]) == "0-2,7"
    assert cli._ranges([3]) == "3"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "mnist_mpl"], "Did you mean 'mnist_mlp'"),
        (["show", "mnist_mpl"], "Did you mean 'mnist_mlp'"),
        (["verify", "mnist_mpl"], "Did you mean 'mnist_mlp'"),
        (["verify", "digits_mlp", "--seeds", "99"], "no seed 99"),
        (["run", "digits_mlp", "--seeds", "4294967296"], "2³² − 1"),
        (["run", "digits_mlp", "--workers", "0"], "at least 1"),
        (["run"], "say --all"),
        (["verify", "digits_mlp", "--all", "--seeds", "99"], "not both"),
        (["run", "--all", "--quick", "--record"], "leave out --quick"),
        (["verify"], "say --all"),
    ],
)
def test_errors_are_one_line(capsys, arguments, words):
    code, _, err = bn(capsys, *arguments)
    assert code == 1
    assert err.startswith("bn: ")
    assert words in err
    assert err.count("\n") == 1


def test_two_that_cannot_be_compared_leave_with_2(capsys, tmp_path):
    code, out, err = bn(capsys, "compare", "digits_mlp", str(tmp_path / "none.json"))
    assert (code, out) == (2, "")
    assert err.startswith("bn: There is no record of 'none'")


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "3-1", "1,,2", "1.5", "0-99999999"])
def test_seeds_that_are_none(capsys, text):
    with pytest.raises(SystemExit) as caught:
        cli.main(["run", "digits_mlp", f"--seeds={text}"])
    assert caught.value.code == 2
    assert "seed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "seeds"), [("3", (3,)), ("0-2", (0, 1, 2)), ("7, 1-2", (7, 1, 2)), ("2-2", (2,))]
)
def test_seeds_that_are(text, seeds):
    assert cli._seeds(text) == seeds


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x.json"), "what is done is kept"),
        (PermissionError(errno.EACCES, "Permission denied", "x.json"), "x.json"),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), "bn[torch]"),
        (data.DataError("MNIST cannot be loaded"), "MNIST cannot"),
    ],
)
def test_what_can_go_wrong_in_a_run(capsys, monkeypatch, error, words):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(experiments, "run_many", fail)
    code, _, err = bn(capsys, "run", "digits_mlp")
    assert code == 1
    assert words in err
    assert "Traceback" not in err


def test_data_looks_and_says(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("BN_DATA_DIR", str(tmp_path))
    code, out, _ = bn(capsys, "data", "--check")
    assert code == 1
    assert out.count("is missing") == 4
    assert str(tmp_path) in out
    assert all(sha in out for sha in data.FILES.values())
    code, _, err = bn(capsys, "data")
    assert code == 1
    assert all(sha in err for sha in data.FILES.values())


@pytest.mark.mnist
def test_data_is_there(capsys):
    code, out, _ = bn(capsys, "data")
    assert code == 0
    assert out.count("is there") == 4


def test_as_a_module_without_torch():
    done = subprocess.run(
        [sys.executable, "-c", "import sys, runpy; sys.modules['torch'] = None; "
         "sys.argv = ['bn', 'list']; runpy.run_module('bn', run_name='__main__')"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0
    assert "mnist_convnet" in done.stdout
