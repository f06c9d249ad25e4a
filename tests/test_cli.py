"""The command ``bn`` says what it did, and errors are one line without a traceback."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys

import pytest

from bn import cli, data, experiments, results


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
    assert "10 trainings of 10 epochs" in out


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
        (["run", "digits_mlp", "--all"], "not both"),
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
