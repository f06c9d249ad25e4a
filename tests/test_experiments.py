"""Whatever stops a run, what it leaves is whole, and the next run ends with the same record."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from bn import checkpoint, data, experiments, results
from bn.experiments import Experiment, ExperimentError, UnitError, Verdict, _engine


def count(config, params, seed, data, checkpoint):
    """Stand in for a training: numbers from the parameters, in no time."""
    for epoch in range(1, config["epochs"] + 1):
        value = (seed + 1) * epoch / (3 if params["batch_norm"] else 7)
        yield {"epoch": epoch, "train_loss": 1 / value, "test_accuracy": value}


def threads(config, params, seed, data, checkpoint):
    pools = {pool["user_api"]: pool["num_threads"] for pool in threadpool_info()}
    yield {"epoch": 1, "torch": torch.get_num_threads(), **pools}


def declare(**changes) -> Experiment:
    options = {
        "name": "counting",
        "claim": "Numbers grow.",
        "source": "here",
        "chapter": "evidence/mnist",
        "run": count,
        "data": "digits",
        "config": {"epochs": 3},
        "grid": ({"batch_norm": True}, {"batch_norm": False}),
        "verdict": lambda record: Verdict.of([True], ""),
        "criterion": "",
        "seeds": (0, 1),
    }
    return Experiment(**(options | changes))


def go(folder, experiment=None, **options):
    options = {"workers": 1, "progress": False} | options
    return _engine.run(experiment or declare(), folder=folder, **options)


def repeatable(record):
    return [
        record[key] if key != "units" else
        [{k: unit[k] for k in ("params", "seed", "epochs")} for unit in record["units"]]
        for key in results.REPEATABLE
    ]  # fmt: skip


def files(folder):
    return sorted(p.name for p in Path(folder).rglob("*") if p.is_file())


# -- the registry -------------------------------------------------------------------------------


def test_registry():
    assert {"mnist_mlp", "mnist_lenet", "mnist_convnet", "mnist_learning_rate"} <= set(
        experiments.names()
    )
    for name in experiments.names():
        e = experiments.get(name)
        assert e.name == name
        assert e.claim.endswith(".")
        assert e.criterion.endswith(".")
        assert e.source
        assert e.data is None or hasattr(data, e.data)
        assert e.core_minutes > 0
        assert {**e.config, **e.quick}["epochs"] >= 1
        assert e.config["epochs"] >= 1
        assert len({json.dumps(p) for p in e.grid}) == len(e.grid)
        assert len(e.seeds) >= 3


def test_unknown_experiment_suggests_one():
    with pytest.raises(ExperimentError, match="Did you mean 'mnist_lenet'"):
        experiments.get("mnist_lnet")


def test_listing_needs_no_torch():
    code = "import sys, bn; bn.experiments.names(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# -- records ------------------------------------------------------------------------------------


def test_record_says_what_made_it(tmp_path):
    record = go(tmp_path)
    assert [u["seed"] for u in record["units"]] == [0, 1, 0, 1]
    assert record["seeds"] == [0, 1]
    assert record["config"] == {"epochs": 3}
    assert record["units"][3]["epochs"][2]["test_accuracy"] == 6 / 7
    assert record["data"] == {"name": "digits", "sha256": data.digest(data.digits())}
    assert record["code"] == experiments.code_hash(declare())
    assert set(record["versions"]) == {"python", "numpy", "torch", "scikit-learn"}
    assert record["hardware"]["cores"] == os.cpu_count()
    assert len(record["seconds"]) == 4
    assert results.load("counting", tmp_path) == record


def test_same_seed_same_bytes_whatever_the_workers(tmp_path):
    e = experiments.get("digits_mlp")
    short = declare(
        name="short", run=e.run, config={**e.config, "epochs": 2}, grid=e.grid, seeds=(0, 3)
    )
    one = go(tmp_path / "one", short)
    two = go(tmp_path / "two", short, workers=2)
    assert repeatable(one) == repeatable(two)
    texts = [(tmp_path / n / "short.json").read_text().split('"verified"')[0] for n in
             ("one", "two")]  # fmt: skip
    assert texts[0] == texts[1]


def test_seeds_add_up(tmp_path):
    assert go(tmp_path, seeds=[1])["seeds"] == [1]
    assert go(tmp_path, seeds=[5, 0, 5])["seeds"] == [0, 1, 5]
    assert repeatable(go(tmp_path, seeds=[0]))[3] == [0, 1, 5]


def test_a_seed_counts_when_all_its_units_are_finished(tmp_path):
    go(tmp_path)
    last = next(tmp_path.rglob("batch_norm=False,seed=1.json"))
    unit = json.loads(last.read_text())
    last.write_text(json.dumps({**unit, "epochs": unit["epochs"][:2]}))
    assert go(tmp_path, seeds=[0])["seeds"] == [0]
    last.unlink()
    assert go(tmp_path, seeds=[0])["seeds"] == [0]


def test_what_a_broken_write_left_is_swept_up(tmp_path):
    go(tmp_path)
    (units,) = (tmp_path / ".units").iterdir()
    (units / ".batch_norm=True,seed=0.json.x1y2").write_text('{"epo')
    go(tmp_path)
    assert [name for name in files(tmp_path) if name.startswith(".")] == []


def test_finished_units_are_not_run_again(tmp_path):
    go(tmp_path)

    def refuse(*args):
        pytest.fail("ran again")

    same_code = declare(run=count)
    object.__setattr__(same_code, "run", refuse)
    _, job = _engine._plan(declare(), False, tmp_path)
    refused = dataclasses.replace(job, experiment=same_code)
    assert _engine._unit(refused, {"batch_norm": True}, 1)["seed"] == 1


@pytest.mark.parametrize(
    "change",
    [{"config": {"epochs": 4}}, {"config": {"epochs": 3, "lr": 1}}, {"name": "other"}],
)
def test_what_another_declaration_left_is_not_used(tmp_path, change):
    go(tmp_path)
    record = go(tmp_path, declare(**change))
    assert len(record["units"][0]["epochs"]) == declare(**change).config["epochs"]
    assert len(list((tmp_path / ".units").iterdir())) == 2


def test_what_other_versions_left_is_not_used(tmp_path, monkeypatch):
    go(tmp_path)
    monkeypatch.setattr(_engine, "versions", lambda: {"python": "another"})
    assert go(tmp_path)["versions"] == {"python": "another"}
    assert len(list((tmp_path / ".units").iterdir())) == 2


def test_a_unit_has_one_thread_and_gives_the_others_back(tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with threadpool_limits(2):
            record = go(tmp_path, declare(run=threads, config={"epochs": 1}))
            assert {pool["num_threads"] for pool in threadpool_info()} == {2}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    (pools,) = {json.dumps(unit["epochs"][0]) for unit in record["units"]}
    assert json.loads(pools) == {"epoch": 1, "torch": 1, "openmp": 1, "blas": 1}


def test_a_seed_named_twice_is_one(tmp_path):
    assert experiments.check_seeds([5, 0, 5]) == (0, 5)


def test_quick_is_one_epoch_and_no_record_of_the_full_run(tmp_path):
    record = go(tmp_path, quick=True)
    assert all(len(unit["epochs"]) == 1 for unit in record["units"])
    assert record["seeds"] == [0]
    assert go(tmp_path, quick=True, seeds=[3])["seeds"] == [0, 3]
    assert [p.name for p in tmp_path.glob("*.json")] == ["counting.quick.json"]


# -- several in one pool ------------------------------------------------------------------------


def slow_to_start(config, params, seed, data, checkpoint):
    time.sleep(0.3)
    yield from count(config, params, seed, data, checkpoint)


def broken(config, params, seed, data, checkpoint):
    if params["batch_norm"]:
        yield {"epoch": 1, "train_loss": 1.0}
    raise ZeroDivisionError("power cut")


def go_many(folder, *declared, **options):
    options = {"workers": 1, "progress": False} | options
    return [(e.name, outcome) for e, outcome in
            _engine.run_many(declared, folder=folder, **options)]  # fmt: skip


def watch(monkeypatch):
    """Note which units are begun, in order."""
    begun, unit = [], _engine._unit

    def noted(job, params, seed):
        begun.append((job.experiment.name, seed, params["batch_norm"]))
        return unit(job, params, seed)

    monkeypatch.setattr(_engine, "_unit", noted)
    return begun


def test_the_longest_units_begin_first_and_each_record_is_there_when_its_last_ends(
    tmp_path, monkeypatch
):
    begun = watch(monkeypatch)
    short = declare(name="short", core_minutes=1)
    long = declare(name="long", core_minutes=4, seeds=(0, 1, 2))
    ended = []
    for e, record in _engine.run_many([short, long], folder=tmp_path, workers=1, progress=False):
        assert results.load(e.name, tmp_path) == record
        _, job = _engine._plan(e, False, tmp_path)
        with _engine._alone(job.folder, e.name):  # it is free for another run
            pass
        ended.append((e.name, len(begun)))
    assert ended == [("long", 6), ("short", 10)]
    assert [name for name, *_ in begun] == ["long"] * 6 + ["short"] * 4
    assert [rest for _, *rest in begun[:3]] == [[0, True], [0, False], [1, True]]


def test_together_or_alone_the_record_is_the_same(tmp_path):
    one, two = declare(), declare(name="other", run=slow_to_start, seeds=(3, 4))
    together = dict(go_many(tmp_path / "together", one, two, workers=2))
    alone = {e.name: go(tmp_path / "alone", e) for e in (one, two)}
    assert {k: repeatable(v) for k, v in together.items()} == {
        k: repeatable(v) for k, v in alone.items()
    }


@pytest.mark.parametrize("workers", [1, 2])
def test_the_failure_of_one_is_told_and_costs_the_others_nothing(tmp_path, workers):
    outcomes = go_many(tmp_path, declare(name="bad", run=broken, core_minutes=9), declare(),
                       workers=workers)  # fmt: skip
    (first, error), (second, record) = outcomes
    assert (first, second) == ("bad", "counting")
    assert isinstance(error, UnitError)
    assert re.fullmatch(r"ZeroDivisionError: power cut \(batch_norm=\w+, seed=0\)", str(error))
    assert "in broken" in error.__notes__[0]
    assert record["seeds"] == [0, 1]
    assert files(tmp_path).count("bad.json") == 0


def test_after_a_failure_no_unit_of_that_experiment_begins(tmp_path, monkeypatch):
    begun = watch(monkeypatch)
    outcomes = go_many(tmp_path, declare(name="bad", run=broken, core_minutes=9, seeds=range(5)),
                       declare())  # fmt: skip
    assert [name for name, _ in outcomes] == ["bad", "counting"]
    assert begun[:1] == [("bad", 0, True)]
    assert len([name for name, *_ in begun if name == "bad"]) == 1


def test_what_cannot_begin_is_told_and_the_others_run(tmp_path, monkeypatch):
    monkeypatch.setenv("BN_DATA_DIR", str(tmp_path / "nowhere"))
    _engine._dataset.cache_clear()
    _engine._digest.cache_clear()
    busy = declare(name="busy")
    _, job = _engine._plan(busy, False, tmp_path)
    with _engine._alone(job.folder, "busy"):
        outcomes = dict(go_many(tmp_path, declare(name="far", data="mnist"), busy, declare()))
    assert isinstance(outcomes["far"], data.DataError)
    assert isinstance(outcomes["busy"], ExperimentError)
    assert outcomes["counting"]["seeds"] == [0, 1]


def test_a_damaged_unit_of_one_costs_the_others_nothing(tmp_path):
    go(tmp_path)
    unit = next(tmp_path.rglob("*seed=1.json"))
    unit.write_text(unit.read_text()[:50])
    for seeds in ([0], [1]):  # when the record is made, and when the unit is due
        outcomes = dict(go_many(tmp_path, declare(), declare(name="other"), seeds=seeds))
        assert "damaged: delete it" in str(outcomes["counting"])
        assert outcomes["other"]["seeds"] == list(range(seeds[0] + 1))


def test_a_full_disk_stops_all_and_the_next_run_ends_with_the_same(tmp_path, monkeypatch):
    both = declare(), declare(name="other", seeds=(5,), core_minutes=0.1)
    whole = dict(go_many(tmp_path / "whole", *both))
    writes, fsync = [], os.fsync

    def full(descriptor):
        writes.append(descriptor)
        if len(writes) == 15:  # 4 units of 3 epochs, a record, an epoch of the other
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            go_many(tmp_path / "full", *both)
    begun = watch(monkeypatch)
    assert "counting.json" in files(tmp_path / "full")
    again = dict(go_many(tmp_path / "full", *both))
    assert {name for name, *_ in begun} == {"other"}  # what was finished is not even looked into
    assert {k: repeatable(v) for k, v in again.items()} == {
        k: repeatable(v) for k, v in whole.items()
    }


def die(config, params, seed, data, checkpoint):
    yield {"epoch": 1, "train_loss": 1.0}
    os._exit(9)


def test_a_worker_that_is_lost_is_said_kindly_and_what_is_done_is_kept(tmp_path):
    deadly = declare(name="deadly", run=die, core_minutes=0.1)
    with pytest.raises(ExperimentError, match=r"worker process was killed.*is kept"):
        go_many(tmp_path, declare(), deadly, workers=2)
    left = [p.name for p in tmp_path.rglob("*deadly*/*.json")]
    assert left
    assert go(tmp_path)["seeds"] == [0, 1]


def test_code_that_changed_while_the_run_was_at_work_is_refused(tmp_path, monkeypatch):
    declared = declare()
    monkeypatch.setattr(_engine, "_imported", lambda run, files: "changed")
    with pytest.raises(ExperimentError, match="a file changed meanwhile"):
        go(tmp_path, declared)
    assert not list(tmp_path.rglob("*.json"))


def test_a_worker_with_other_versions_is_refused(tmp_path, monkeypatch):
    _, job = _engine._plan(declare(), False, tmp_path)
    monkeypatch.setattr(_engine, "versions", lambda: {"python": "another"})
    _, error = _engine._attempt(0, job, {"batch_norm": True}, 0)
    assert isinstance(error, ExperimentError)
    assert "other code or versions" in str(error)


def test_what_a_worker_did_on_a_disk_of_its_own_is_written_here(tmp_path, monkeypatch):
    whole = go(tmp_path / "whole")
    _, job = _engine._plan(declare(), False, tmp_path / "here")
    begun = job.path({"batch_norm": True}, 0)  # by a run that was stopped here
    two = {**whole["units"][0], "epochs": whole["units"][0]["epochs"][:2]}
    checkpoint.write(begun, json.dumps(two))

    def elsewhere(tasks, workers, dask):
        for number, job, *unit in tasks:
            there = dataclasses.replace(job, folder=tmp_path / "not here" / job.folder.name)
            yield _engine._attempt(number, there, *unit)

    monkeypatch.setattr(_engine, "_parallel", elsewhere)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "theirs"))
    assert repeatable(go(tmp_path / "here")) == repeatable(whole)
    assert not (tmp_path / "not here").exists()
    assert len(list((tmp_path / "theirs").rglob("*.json"))) == 4


def test_a_process_does_one_unit_at_a_time(tmp_path, monkeypatch):
    """Two in the threads of a Dask worker would share PyTorch's random generator."""
    at_work, most = [], []

    def unit(job, params, seed):
        at_work.append(seed)
        time.sleep(0.05)
        most.append(len(at_work))
        at_work.pop()
        return {}

    monkeypatch.setattr(_engine, "_unit", unit)
    _, job = _engine._plan(declare(), False, tmp_path)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda n: _engine._attempt(n, job, {"batch_norm": True}, n), range(3)))
    assert most == [1, 1, 1]


def test_bars_of_each_and_of_all(tmp_path, capsys):
    short, long = declare(name="short"), declare(name="long", core_minutes=3)
    go_many(tmp_path, short, long, progress=True)
    bars = capsys.readouterr().err
    assert "all: 100%" in bars
    go_many(tmp_path, short, progress=True)
    bars = capsys.readouterr().err
    assert "short: 100%" in bars
    assert "12/12" in bars
    assert "all" not in bars


# -- status -------------------------------------------------------------------------------------


def test_status_counts_what_is_done_and_what_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path / "shipped")
    e = declare(core_minutes=2)
    assert _engine.status(e, tmp_path) == {
        "seeds": [], "changed": [], "units": 0, "of": 4, "seconds": 120.0
    }  # fmt: skip
    record = go(tmp_path, seeds=[0])
    (cut,) = (tmp_path / ".units").rglob("batch_norm=True,seed=0.json")
    unit = json.loads(cut.read_text())
    cut.write_text(json.dumps({**unit, "epochs": unit["epochs"][:1]}))
    found = _engine.status(e, tmp_path)
    assert (found["units"], found["seconds"]) == (1, pytest.approx(120 * 8 / 12))
    results.save(record, tmp_path / "shipped" / "counting.json")
    assert _engine.status(e, tmp_path)["seeds"] == [0]
    assert _engine.status(e, tmp_path)["seconds"] > 0  # seed 1 is declared too
    elsewhere = {**go(tmp_path), "hardware": {"processor": "another"}}  # that is no reason
    results.save(elsewhere, tmp_path / "shipped" / "counting.json")
    assert _engine.status(e, tmp_path / "elsewhere")["seconds"] == 0
    results.save({**elsewhere, "code": "old"}, tmp_path / "shipped" / "counting.json")
    assert _engine.status(e, tmp_path / "elsewhere")["seconds"] == 120
    changed = _engine.status(declare(config={"epochs": 4}), tmp_path)
    assert "the configuration was" in " ".join(changed["changed"])
    assert changed["seconds"] == 60


def test_status_without_mnist_downloads_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("BN_DATA_DIR", str(tmp_path))
    found = experiments.status("mnist_mlp", tmp_path)
    assert (found["units"], found["of"], found["seeds"]) == (None, 20, list(range(10)))
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    assert experiments.status("mnist_mlp", tmp_path)["seconds"] == 60 * (
        experiments.get("mnist_mlp").core_minutes
    )


def test_user_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BN_RESULTS_DIR", raising=False)
    go(None)
    assert (tmp_path / "bn-runs" / "counting.json").exists()
    monkeypatch.setenv("BN_RESULTS_DIR", str(tmp_path / "mine"))
    go(None)
    assert (tmp_path / "mine" / "counting.json").exists()


# -- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [[], [-1], [2**32], [0.5], ["1"], [True]])
def test_bad_seeds(tmp_path, seeds):
    with pytest.raises(ExperimentError, match="seed"):
        go(tmp_path, seeds=seeds)
    assert files(tmp_path) == []


@pytest.mark.parametrize("workers", [0, -2])
def test_bad_workers(tmp_path, workers):
    with pytest.raises(ExperimentError, match="at least 1"):
        go(tmp_path, workers=workers)


def test_dask_without_distributed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ExperimentError, match=r"bn\[cluster\]"):
        go(tmp_path, dask="tcp://127.0.0.1:1")


def test_missing_data_stops_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setenv("BN_DATA_DIR", str(tmp_path / "nowhere"))
    _engine._dataset.cache_clear()
    _engine._digest.cache_clear()
    with pytest.raises(data.DataError, match="train-images"):
        go(tmp_path, declare(data="mnist"))
    assert files(tmp_path) == []


def test_damaged_unit_is_refused_by_name(tmp_path):
    go(tmp_path)
    unit = next(tmp_path.rglob("*seed=1.json"))
    unit.write_text(unit.read_text()[:50])
    with pytest.raises(ExperimentError, match="damaged: delete it") as caught:
        go(tmp_path)
    assert unit.name in str(caught.value)


# -- interruptions ------------------------------------------------------------------------------


def test_failure_in_a_unit_keeps_the_epochs_before_it(tmp_path):
    whole = go(tmp_path / "whole")
    calls = []

    def fail(*args):
        for row in count(*args):
            calls.append(row)
            if len(calls) == 8:
                raise RuntimeError("power cut")
            yield row

    broken = declare()
    object.__setattr__(broken, "run", fail)
    patched = pytest.MonkeyPatch()
    same = experiments.code_hash(declare())
    patched.setattr(_engine, "_hash", lambda run, files: same)
    with pytest.raises(RuntimeError, match="power cut"):
        go(tmp_path / "broken", broken)
    (units,) = (tmp_path / "broken" / ".units").iterdir()
    left = [len(json.loads(p.read_text())["epochs"]) for p in units.glob("*.json")]
    assert sorted(left) == [1, 3, 3]
    assert not (tmp_path / "broken" / "counting.json").exists()

    def fail_again(*args):  # in the epochs that the files know
        yield next(count(*args))
        raise RuntimeError("power cut")

    (cut,) = (p for p in units.glob("*.json") if len(json.loads(p.read_text())["epochs"]) == 1)
    two = {**json.loads(cut.read_text()), "epochs": [{"epoch": 1}, {"epoch": 2}]}
    cut.write_text(json.dumps(two))
    _, job = _engine._plan(broken, False, tmp_path / "broken")
    object.__setattr__(broken, "run", fail_again)
    with pytest.raises(RuntimeError, match="power cut"):
        _engine._unit(job, two["params"], two["seed"])
    assert json.loads(cut.read_text()) == two

    patched.undo()
    cut.unlink()
    assert repeatable(go(tmp_path / "broken")) == repeatable(whole)


BOTH = ("digits_mlp", "identity_backward")


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fresh")
    return run_both(folder)


def run_both(folder):
    options = {"seeds": [3], "workers": 1, "folder": folder, "progress": False}
    return {name: repeatable(record) for name, record in experiments.run_many(BOTH, **options)}


@pytest.mark.parametrize(("blow", "workers"), [("SIGINT", "2"), ("SIGKILL", "1")])
def test_killed_and_resumed_is_the_uninterrupted_record(tmp_path, fresh, blow, workers):
    command = [sys.executable, "-m", "bn", "run", *BOTH, "--seeds=3", "--workers", workers]
    environment = os.environ | {"BN_RESULTS_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    for _ in range(5):  # on a busy machine the run may be over before the blow falls: again then
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
            # the tests may have been started in the background, where Ctrl-C is not heard
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            done = [p.read_text().count('"epoch":') for p in tmp_path.rglob("batch_norm*.json")]
            if sum(done) >= 3:
                break
            time.sleep(0.01)
        if process.poll() is None:
            os.killpg(process.pid, getattr(signal, blow))  # as the terminal does: the whole group
        _, errors = process.communicate(timeout=60)
        if not (tmp_path / "digits_mlp.json").exists():
            break
        for path in [*tmp_path.rglob("*.json"), *tmp_path.rglob("*.pt")]:
            path.unlink()
    assert not (tmp_path / "digits_mlp.json").exists()
    if blow == "SIGINT":
        assert process.returncode == 130
        assert "goes on from there" in errors
        assert "Traceback" not in errors
    before = sum(p.read_text().count('"epoch":') for p in tmp_path.rglob("batch_norm*.json"))
    assert before >= 3
    for _ in range(200):  # the workers end with it
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.05)
    else:
        pytest.fail("a worker lives on")

    (units,) = (tmp_path / ".units").glob("digits_mlp-*")
    (units / ".batch_norm=True,seed=3.pt.killed").touch()  # what a blow in mid-write leaves
    assert run_both(tmp_path) == fresh
    assert not [name for name in files(tmp_path) if name.startswith(".")]


def test_two_runs_at_once(tmp_path):
    go(tmp_path)
    (units,) = (tmp_path / ".units").iterdir()
    with _engine._alone(units, "counting"):
        with pytest.raises(ExperimentError, match=rf"process {os.getpid()}.*--folder"):
            go(tmp_path)
        go(tmp_path, declare(name="another"))
    go(tmp_path)


@pytest.mark.parametrize("write", range(1, 14))
def test_disk_full_at_any_write(tmp_path, monkeypatch, write):
    """4 units of 3 epochs and the record are 13 writes; each of them is the one that fails."""
    whole = go(tmp_path / "whole")
    writes = []
    fsync = os.fsync

    def full(descriptor):
        writes.append(descriptor)
        if len(writes) == write:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError) as caught:
        go(tmp_path / "full")
    assert caught.value.errno == errno.ENOSPC
    assert ".json" in caught.value.filename
    assert not (tmp_path / "full" / "counting.json").exists()
    for path in (tmp_path / "full").rglob("*"):
        if path.is_file() and path.name != "lock":
            json.loads(path.read_text())
            assert not path.name.startswith(".")
    assert repeatable(go(tmp_path / "full")) == repeatable(whole)


def test_atomic_write_keeps_the_old_file_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "file"
    checkpoint.write(path, "old")

    def fail(*args):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="Input/output error"):
        checkpoint.write(path, b"new")
    assert path.read_text() == "old"
    assert files(tmp_path) == ["file"]


# -- verify -------------------------------------------------------------------------------------


def verify(folder, **options):
    options = {"workers": 1, "progress": False, "folder": folder} | options
    return _engine.verify(declare(), **options)


def test_verify_agrees_with_a_fresh_record(tmp_path):
    go(tmp_path)
    assert verify(tmp_path) == ([], [])
    assert verify(tmp_path, seeds=[0], quick=True) == ([], [])


def test_verify_begins_with_what_came_last_and_knows_nothing_of_the_run(tmp_path, monkeypatch):
    go(tmp_path)
    begun = watch(monkeypatch)
    assert verify(tmp_path, seeds=[0, 1]) == ([], [])
    assert [rest for _, *rest in begun] == [[1, False], [0, False], [1, True], [0, True]]
    begun.clear()
    verify(tmp_path)
    assert {seed for _, seed, _ in begun} == {1}


def leaky(config, params, seed, data, checkpoint, seen=[]):
    seen.append(seed)
    yield {"epoch": 1, "train_loss": float(len(seen))}


def test_verify_finds_a_number_that_depends_on_the_units_before_it(tmp_path):
    leaks = declare(run=leaky, config={"epochs": 1})
    go(tmp_path, leaks)
    differences, _ = _engine.verify(leaks, folder=tmp_path, workers=1, progress=False)
    assert {d["metric"] for d in differences} == {"train_loss"}


def test_verify_of_several_goes_on_after_one_that_cannot_be(tmp_path):
    go(tmp_path)
    both = [declare(name="none"), declare()]
    (_, error), (_, agreed) = _engine.verify_many(both, folder=tmp_path, workers=1, progress=False)
    assert isinstance(error, results.RecordError)
    assert agreed == ([], [])


def test_verify_says_what_differs_and_by_how_much(tmp_path):
    record = go(tmp_path)
    record["units"][1]["epochs"][2]["test_accuracy"] += 1e-9
    results.save(record, tmp_path / "counting.json")
    assert verify(tmp_path, seeds=[0])[0] == []
    assert verify(tmp_path, quick=True)[0] == []  # the first epoch does agree
    (difference,), _ = verify(tmp_path, seeds=[0, 1])
    assert (difference["params"], difference["epoch"]) == ({"batch_norm": True}, 3)
    assert difference["seed"] == 1
    assert difference["recorded"] - difference["found"] == pytest.approx(1e-9)


def test_verify_says_what_has_changed_since(tmp_path):
    record = go(tmp_path)
    record["code"], record["versions"]["torch"] = "old", "0.4"
    record["data"]["sha256"] = "other"
    results.save(record, tmp_path / "counting.json")
    changed = " ".join(verify(tmp_path)[1])
    assert "code" in changed
    assert "torch was 0.4" in changed
    assert "data" in changed


def test_stamp_notes_the_code_that_reproduces_a_record(tmp_path):
    record = go(tmp_path)
    record["code"] = "old"
    results.save(record, tmp_path / "counting.json")
    verify(tmp_path, stamp=True)
    verified = results.load("counting", tmp_path)["verified"]
    assert verified == [{"code": experiments.code_hash(declare()), "seed": 1, "epochs": 3}]
    assert verify(tmp_path)[1] == []

    record["units"][1]["epochs"][0]["train_loss"] = 0.0
    results.save(record, tmp_path / "counting.json")
    verify(tmp_path, stamp=True)
    assert results.load("counting", tmp_path)["verified"] == []


def test_verify_needs_a_seed_of_the_record(tmp_path):
    go(tmp_path)
    with pytest.raises(ExperimentError, match=r"no seed 7; it has \[0, 1\]"):
        verify(tmp_path, seeds=[7])


def test_code_hash_sees_code_and_nothing_else():
    source = '__all__ = ["f"]\ndef f(x):\n    """Docs."""\n    return x + 1  # why\n'
    same = "def f(x):\n\n    return (x +\n            1)\n"
    other = "def f(x):\n    return x + 2\n"
    assert _engine._bare(source) == _engine._bare(same) != _engine._bare(other)
    assert experiments.code_hash(declare()) != experiments.code_hash(experiments.get("mnist_mlp"))


def test_code_hash_sees_the_networks_and_the_training(tmp_path, monkeypatch):
    before = experiments.code_hash(declare())
    for name in ("models.py", "train.py"):
        source = (_engine.PACKAGE / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(source, encoding="utf-8")
    monkeypatch.setattr(_engine, "PACKAGE", tmp_path)
    assert experiments.code_hash(declare()) == before
    seen = {before}
    for name in ("models.py", "train.py"):
        with open(tmp_path / name, "a", encoding="utf-8") as file:
            file.write("changed = True\n")
        seen.add(experiments.code_hash(declare()))
    assert len(seen) == 3


# -- verdicts -----------------------------------------------------------------------------------


def test_verdict_words():
    assert Verdict.of([True, True], "").word == "holds"
    assert Verdict.of([True, False], "").word == "holds with a caveat"
    assert Verdict.of([False, False], "").word == "did not reproduce here"


def made_up(gains, losses):
    """A record of an MNIST pair: final gain in accuracy and first gain in loss, seed by seed."""
    units = [
        {"params": {"batch_norm": b}, "seed": s, "epochs": [
            {"train_loss": 1 + b * losses[s], "test_accuracy": 0.0},
            {"train_loss": 0.0, "test_accuracy": 0.9 + b * gains[s]},
        ]}
        for b in (True, False) for s in range(len(gains))
    ]  # fmt: skip
    return {"experiment": "made_up", "config": {"epochs": 2}, "seeds": list(range(len(gains))),
            "units": units}  # fmt: skip


@pytest.mark.parametrize(
    ("gains", "losses", "word"),
    [
        ([0.01, 0.012, 0.009], [-0.5, -0.4, -0.6], "holds"),
        ([0.01, -0.012, 0.009], [-0.5, -0.4, -0.6], "holds with a caveat"),
        ([0.01, 0.012, 0.009], [0.5, -0.4, 0.6], "holds with a caveat"),
        ([-0.01, -0.012, -0.009], [0.5, 0.4, 0.6], "did not reproduce here"),
    ],
)
def test_verdict_of_the_mnist_pairs(gains, losses, word):
    verdict = experiments.get("mnist_lenet").verdict(made_up(gains, losses))
    assert verdict.word == word
    assert "3 seeds" in verdict.reason


def test_best_rate_is_chosen_on_the_held_out_images():
    from bn.experiments.learning_rate import best_rate

    units = [
        {"params": {"network": "mlp", "batch_norm": b, "lr": lr}, "seed": s, "epochs": [
            {"validation_accuracy": val + s / 100, "test_accuracy": test}]}
        for s in (0, 1)
        for b, lr, val, test in [(True, 0.1, 0.8, 0.99), (True, 1.0, 0.9, 0.5),
                                 (False, 0.1, 0.7, 0.2), (False, 1.0, 0.1, 0.99)]
    ]  # fmt: skip
    record = {"experiment": "made_up", "seeds": [0, 1], "units": units}
    assert best_rate(record, "mlp", True) == 1.0
    assert best_rate(record, "mlp", False) == 0.1
