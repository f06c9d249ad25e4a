"""A sweep on a Dask cluster, with a worker killed in the middle, ends with the record of a local run.

The scheduler and its workers are processes of their own, as on a cluster. Whatever is waited for
has a time limit, so that a hang is a failure.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bn import experiments
from bn.experiments import Experiment, ExperimentError, UnitError, Verdict, _engine

START, RUN = 60, 90  # seconds; what they bound takes about a tenth on a machine at rest
HERE = Path(__file__).parent


def train(config, params, seed, data, checkpoint):
    """Train on the digits; on a cluster at the pace that the workers are given."""
    import torch

    from bn import models, train

    torch.manual_seed(seed)
    model = models.mlp(params["batch_norm"], in_features=64)
    for row in train.train(model, data, epochs=config["epochs"], seed=seed, probe=0,
                           checkpoint=checkpoint):  # fmt: skip
        time.sleep(float(os.environ.get("BN_TEST_PACE", "0")))
        yield row


def die(config, params, seed, data, checkpoint):
    """End the process, as a training that takes more memory than there is."""
    os._exit(9)
    yield


def declare(**changes) -> Experiment:
    options = {
        "name": "sweep",
        "claim": "A worker can die.",
        "source": "here",
        "chapter": "evidence/mnist",
        "run": train,
        "data": "digits",
        "config": {"epochs": 3},
        "grid": ({"batch_norm": True}, {"batch_norm": False}),
        "verdict": lambda record: Verdict.of([True], ""),
        "criterion": "",
        "seeds": (0, 1, 2),
    }
    return Experiment(**(options | changes))


def start(*arguments, folder, **environment):
    paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, "-m", *arguments], cwd=folder, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | environment,
    )  # fmt: skip


def start_worker(address, folder, **environment):
    return start("distributed.cli.dask_worker", address, "--nthreads=1", "--no-nanny",
                 "--no-dashboard", folder=folder, **environment)  # fmt: skip


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The address of a scheduler, a function that starts workers, and the folder they are in."""
    folder = tmp_path_factory.mktemp("cluster")
    note = folder / "scheduler.json"
    processes = [
        start("distributed.cli.dask_scheduler", "--host=127.0.0.1", "--port=0", "--no-dashboard",
              f"--scheduler-file={note}", folder=folder,
              DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="1")
    ]  # fmt: skip
    try:
        wait_for(note.exists, START)
        address = json.loads(note.read_text())["address"]

        def add(**environment):
            processes.append(start_worker(address, folder, **environment))
            return processes[-1]

        yield address, add
    finally:
        for process in processes:
            process.kill()
            process.wait()


def wait_for(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds} s for {condition}")
        time.sleep(0.05)


def go(address, folder, **changes):
    """Run the sweep in a thread, so that one that hangs is seen."""
    outcome = {}

    def run():
        try:
            outcome["record"] = _engine.run(declare(**changes), dask=address, folder=folder,
                                            progress=False)  # fmt: skip
        except Exception as error:
            outcome["error"] = error

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, outcome


def finish(thread, outcome):
    thread.join(RUN)
    assert not thread.is_alive(), f"the run hangs: not over after {RUN} s"
    if "error" in outcome:
        raise outcome["error"]
    return outcome["record"]


def epochs_done(folder):
    return sum(_engine._epochs(path) for path in folder.rglob("*seed=*.json"))


def numbers(record):
    return [(unit["params"], unit["seed"], unit["epochs"]) for unit in record["units"]]


def test_nobody_there(cluster, tmp_path, monkeypatch):
    address, _ = cluster
    monkeypatch.setattr(_engine, "PATIENCE", (0.5, 0.5))
    with pytest.raises(ExperimentError, match=f"{address} has no workers.*dask worker {address}"):
        finish(*go(address, tmp_path))
    for nowhere in ("tcp://127.0.0.1:1", "nonsense://x"):
        with pytest.raises(ExperimentError, match=f"no Dask scheduler answers at {nowhere}"):
            finish(*go(nowhere, tmp_path))


def test_a_dead_worker_is_survived(cluster, tmp_path):
    address, add = cluster
    workers = [add(BN_TEST_PACE="0.15") for _ in range(2)]
    thread, outcome = go(address, tmp_path / "dask")
    wait_for(lambda: epochs_done(tmp_path) >= 5 or outcome, START)
    assert all(worker.poll() is None for worker in workers)
    workers[0].kill()
    assert not outcome  # it falls in the middle
    before = epochs_done(tmp_path)
    record = finish(thread, outcome)
    assert 5 <= before < 18
    assert workers[1].poll() is None

    local = _engine.run(declare(), workers=1, folder=tmp_path / "local", progress=False)
    assert len(record["units"]) == 6
    assert record["seeds"] == [0, 1, 2]
    assert numbers(record) == numbers(local)
    assert record["code"] == local["code"] == experiments.code_hash(declare())


def test_a_worker_with_other_code_is_refused(cluster, tmp_path, monkeypatch):
    address, _ = cluster  # with the worker that lived on
    monkeypatch.setattr(_engine, "code_hash", lambda experiment: "of another version")
    with pytest.raises(ExperimentError, match="other code or versions"):
        finish(*go(address, tmp_path, seeds=(0,)))


def test_a_training_that_kills_its_workers_is_an_error_and_no_hang(cluster, tmp_path):
    """One death is allowed here. joblib's own backend for Dask waits for ever after the second."""
    address, add = cluster
    thread, outcome = go(address, tmp_path, run=die, seeds=(0,), grid=({"batch_norm": True},))
    add()
    with pytest.raises(UnitError, match="KilledWorker on the Dask cluster"):
        finish(thread, outcome)
