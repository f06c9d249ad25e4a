"""The declaration of an experiment, and the engine that runs it.

An experiment is a grid of parameters times a list of seeds. One point of it is a *unit*: one
training. The units of all experiments of a run go into one pool of processes, the longest first,
and know nothing of each other. After each epoch a unit leaves two files, ``….pt`` (the state to resume from) and ``….json`` (what it measured),
each written whole or not at all, in a folder whose name is made from everything that determines
the numbers. So whatever stops a run, the next one finds only files that are valid for it.
"""

from __future__ import annotations

import ast
import contextlib
import errno
import hashlib
import inspect
import itertools
import json
import os
import platform
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from bn import checkpoint, data, results

# glibc gives large arrays back to the kernel at once, and the page faults of the next ones then
# take up to a fifth of a convolution's time. Kept in the process instead. No number changes.
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 32),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 33),
    "MALLOC_TOP_PAD_": str(1 << 28),
}
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
PATIENCE = 20, 60  # seconds to wait for a Dask scheduler, and for its first worker
VERSIONS = ("numpy", "torch", "scikit-learn")
PACKAGE = Path(__file__).parents[1]


class ExperimentError(ValueError):
    """An experiment cannot be run as asked; the message says why, and what to do."""


class UnitError(RuntimeError):
    """A training failed; the message says which and why, and a note holds the traceback."""


@dataclass(frozen=True)
class Verdict:
    """What a record says about a claim.

    Attributes
    ----------
    word : str
        ``"holds"``, ``"holds with a caveat"`` or ``"did not reproduce here"``.
    reason : str
        The numbers it rests on, in a sentence.
    """

    word: str
    reason: str

    WORDS = ("holds", "holds with a caveat", "did not reproduce here")

    @classmethod
    def of(cls, tests: Iterable[bool], reason: str) -> Verdict:
        """Make a verdict from tests: all passed, some, or none."""
        tests = list(tests)
        return cls(cls.WORDS[0 if all(tests) else 1 if any(tests) else 2], reason)


@dataclass(frozen=True)
class Experiment:
    """An experiment, declared.

    Attributes
    ----------
    name : str
        What it is called on the command line.
    claim, source : str
        The statement under test, and who made it.
    chapter : str
        The page of the book that tells it, such as ``"evidence/mnist"``.
    run : callable
        ``run(config, params, seed, data, checkpoint)`` trains one unit and yields one dict of
        metrics an epoch; it hands `checkpoint` on to :func:`bn.train.train`. A function of its
        own: only its own lines and the files in `code` count for :func:`code_hash`.
    data : str or None
        A function of :mod:`bn.data`: ``"mnist"`` or ``"digits"``; None if `run` draws its own.
    config : dict
        What all units share; ``config["epochs"]`` is how many dicts a unit yields.
    grid : tuple of dict
        The parameters of the units.
    verdict : callable
        ``verdict(record) -> Verdict``: the criterion, fixed with the declaration.
    criterion : str
        The same in words.
    seeds : tuple of int
        What a full run uses.
    core_minutes : float
        What a full run takes on one core.
    code : tuple of str
        The files of the package, beside the lines of `run`, that determine the numbers.
    quick : dict
        What a quick run changes in `config`. All quick runs together are to take less than five
        minutes on two cores.
    """

    name: str
    claim: str
    source: str
    chapter: str
    run: Callable[..., Iterator[dict]]
    data: str | None
    config: dict
    grid: tuple[dict, ...]
    verdict: Callable[[dict], Verdict]
    criterion: str
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    core_minutes: float = 1.0
    code: tuple[str, ...] = ("models.py", "train.py")
    quick: dict = field(default_factory=lambda: {"epochs": 1})


@dataclass(frozen=True, eq=False)
class _Job:
    """What a worker needs to know; everything that determines the numbers is in it."""

    experiment: Experiment
    config: dict
    folder: Path
    epochs: int  # to be done of config["epochs"]
    code: str
    versions: dict

    def path(self, params: dict, seed: int) -> Path:
        name = ",".join(f"{key}={value}" for key, value in {**params, "seed": seed}.items())
        return self.folder / f"{name}.json"

    @property
    def seconds(self) -> float:
        """Of an epoch of the full experiment on one core, as declared."""
        e = self.experiment
        return 60 * e.core_minutes / (len(e.grid) * len(e.seeds) * e.config["epochs"])


def code_hash(experiment: Experiment) -> str:
    """Hash the code that determines an experiment's numbers.

    That is the files in its `code` and its `run`, without comments, docstrings, layout and
    ``__all__``. The data that go in have a hash of their own (:func:`bn.data.digest`).
    """
    return _hash(experiment.run, experiment.code)


def _hash(run: Callable, files: tuple[str, ...]) -> str:
    sources = [(PACKAGE / name).read_text(encoding="utf-8") for name in files]
    sources.append(inspect.getsource(run))
    return hashlib.sha256("\n".join(map(_bare, sources)).encode()).hexdigest()


def _bare(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        if documented and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    tree.body = [node for node in tree.body if not ast.unparse(node).startswith("__all__ = ")]
    return ast.unparse(tree)


def run(experiment: Experiment, **options) -> dict:
    """Run an experiment and write its record; continue where an earlier run stopped.

    Parameters
    ----------
    experiment : Experiment
        From :func:`bn.experiments.get`.
    **options
        Those of :func:`run_many`.

    Returns
    -------
    dict
        The record (see :func:`bn.results.load`), of all seeds finished so far.

    Raises
    ------
    ExperimentError
        The seeds or the number of workers make no sense, or another run is at work on this.
    UnitError
        A training failed.
    bn.data.DataError
        The data cannot be had.
    """
    ((_, outcome),) = run_many([experiment], **options)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def run_many(
    experiments: Iterable[Experiment],
    *,
    seeds: Iterable[int] | None = None,
    workers: int | None = None,
    dask: str | None = None,
    quick: bool = False,
    folder: str | os.PathLike | None = None,
    progress: bool = True,
) -> Iterator[tuple[Experiment, dict | Exception]]:
    """Run experiments in one pool of workers, and write the record of each when its last unit ends.

    Parameters
    ----------
    experiments : iterable of Experiment
        From :func:`bn.experiments.get`.
    seeds : iterable of int, optional
        By default those of each declaration; of a quick run the first of them.
    workers : int, optional
        Processes; by default one for each core. One core each: the number of workers changes
        the time and nothing else.
    dask : str, optional
        Address of a Dask scheduler to send the units to instead, such as
        ``"tcp://127.0.0.1:8786"``. Its workers need the same `bn` and versions; give them one
        thread each (``dask worker ADDRESS --nworkers 2 --nthreads 1``), since a process does
        one unit at a time.
    quick : bool
        A shorter run, to see that it works (the declaration's `quick`), by default of one seed;
        the records are named ``NAME.quick``.
    folder : path, optional
        Where records go; by default :func:`bn.experiments.user_folder`.
    progress : bool
        Show bars with the time left, of each experiment at work and of all.

    Yields
    ------
    experiment : Experiment
        One that has ended.
    outcome : dict or Exception
        Its record, or what stopped it; the others go on. A full disk stops all: it is raised.
    """
    seeds = None if seeds is None else check_seeds(seeds)
    workers = _count(workers)
    folder = user_folder() if folder is None else Path(folder)
    with contextlib.ExitStack() as stack:
        work, identities, locks = {}, {}, {}
        for experiment in experiments:
            try:
                identity, job = _plan(experiment, quick, folder)
                lock = stack.enter_context(contextlib.ExitStack())
                lock.enter_context(_alone(job.folder, experiment.name))
            except (ExperimentError, data.DataError) as error:
                yield experiment, error
                continue
            for half_written in job.folder.glob(".*"):  # by a process that was killed
                half_written.unlink()
            identities[job], locks[job] = identity, lock
            declared = experiment.seeds[:1] if quick else experiment.seeds
            work[job] = [(p, seed) for seed in seeds or declared for p in experiment.grid]
        for job, error in _each(work, workers, dask, progress):
            if error is None:
                name = f"{job.experiment.name}.quick" if quick else job.experiment.name
                try:
                    results.save(_record(identities[job], job), folder / f"{name}.json")
                except ExperimentError as damaged:
                    error = damaged
                locks[job].close()
            yield job.experiment, error or results.load(name, folder)


def _plan(experiment: Experiment, quick: bool, folder: Path) -> tuple[dict, _Job]:
    """Say what determines an experiment's numbers, and where its units go: by the hash of that."""
    config = {**experiment.config, **experiment.quick} if quick else experiment.config
    identity = {
        "schema": results.SCHEMA,
        "experiment": experiment.name,
        "config": config,
        "data": {"name": experiment.data, "sha256": _digest(experiment.data)},
        "code": code_hash(experiment),
    }
    key = hashlib.sha256(json.dumps([identity, versions()]).encode()).hexdigest()[:12]
    units = folder.absolute() / ".units" / f"{experiment.name}-{key}"
    return identity, _Job(experiment, config, units, config["epochs"], identity["code"], versions())


def _count(workers: int | None) -> int:
    workers = os.cpu_count() or 1 if workers is None else workers
    if workers < 1:
        raise ExperimentError(f"workers must be at least 1, not {workers}")
    return workers


def status(experiment: Experiment, folder: str | os.PathLike | None = None) -> dict:
    """Say what is recorded of an experiment, and how far a run has come.

    Parameters
    ----------
    experiment : Experiment
        From :func:`bn.experiments.get`.
    folder : path, optional
        Where the run is; by default :func:`bn.experiments.user_folder`.

    Returns
    -------
    dict
        Of the record that `bn` ships: ``seeds`` (empty without one) and ``changed``, whether code
        or configuration are no longer those that made it, in words. Of a full run by the present
        code: ``units``, how many are finished, and ``of`` how many; ``units`` is None where the
        data are not here, without which their runs cannot be told from others. ``seconds`` of one
        core are left until all seeds of the declaration are recorded by the present code.
    """
    try:
        record = results.load(experiment.name)
    except results.RecordError:
        record = {"seeds": []}
    changed = _outdated(experiment, record) if record["seeds"] else []
    of = len(experiment.seeds) * len(experiment.grid)
    if experiment.data == "mnist" and data.missing():
        units, seconds = None, 60 * experiment.core_minutes
    else:
        _, job = _plan(experiment, False, user_folder() if folder is None else Path(folder))
        epochs = [_epochs(job.path(p, s)) for s in experiment.seeds for p in experiment.grid]
        units = sum(n == job.epochs for n in epochs)
        seconds = job.seconds * sum(job.epochs - n for n in epochs)
    recorded = set(experiment.seeds) <= set(record["seeds"]) and not changed
    return {
        "seeds": record["seeds"],
        "changed": changed,
        "units": units,
        "of": of,
        "seconds": 0.0 if recorded else seconds,
    }


def _record(identity: dict, job: _Job) -> dict:
    """Gather the units of every seed for which all are finished."""
    grid = job.experiment.grid
    found = {_read(path)["seed"] for path in job.folder.glob("*.json")}
    seeds = [
        seed
        for seed in sorted(found)
        if all(_epochs(job.path(params, seed)) == job.epochs for params in grid)
    ]
    units = [_read(job.path(params, seed)) for params in grid for seed in seeds]
    return {
        **identity,
        "seeds": seeds,
        "units": units,
        "verified": [],
        "seconds": [unit["seconds"] for unit in units],
        "versions": versions(),
        "hardware": hardware(),
    }


def verify(experiment: Experiment, **options) -> tuple[list[dict], list[str]]:
    """Run seeds of a record again and compare.

    Parameters
    ----------
    experiment : Experiment
        From :func:`bn.experiments.get`.
    **options
        Those of :func:`verify_many`.

    Returns
    -------
    differences : list of dict
        ``params``, ``seed``, ``epoch``, ``metric``, ``recorded`` and ``found`` of every number
        that is not the same; empty when the record is reproduced bit for bit.
    circumstances : list of str
        What is not as it was when the record was made: code, data, configuration, versions,
        machine.

    Raises
    ------
    ExperimentError
        The record has no such seed.
    UnitError
        A training failed.
    bn.data.DataError
        The data cannot be had.
    bn.results.RecordError
        There is no record.
    """
    ((_, outcome),) = verify_many([experiment], **options)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def verify_many(
    experiments: Iterable[Experiment],
    *,
    seeds: Iterable[int] | None = None,
    quick: bool = False,
    folder: str | os.PathLike | None = None,
    workers: int | None = None,
    stamp: bool = False,
    progress: bool = True,
) -> Iterator[tuple[Experiment, tuple[list[dict], list[str]] | Exception]]:
    """Run seeds of records again, in one pool, and compare.

    Each experiment starts afresh with the units that came last in its record: nothing of an
    earlier run is used, and a number that depended on what its process did before would show.

    Parameters
    ----------
    experiments : iterable of Experiment
        From :func:`bn.experiments.get`.
    seeds : iterable of int, optional
        By default the last of each record.
    quick : bool
        Run only the first epoch and compare that.
    folder : path, optional
        Where the records are; by default among those that `bn` ships.
    workers : int, optional
        Processes; by default one for each core.
    stamp : bool
        If all agrees to the last bit, note in the record that the present code reproduces it.
    progress : bool
        Show bars with the time left.

    Yields
    ------
    experiment : Experiment
        One that has ended.
    outcome : tuple or Exception
        What :func:`verify` returns, or what stopped it.
    """
    workers = _count(workers)
    seeds = None if seeds is None else check_seeds(seeds)
    with tempfile.TemporaryDirectory(prefix="bn-verify-") as temporary:
        work, records = {}, {}
        for experiment in experiments:
            try:
                record = results.load(experiment.name, folder)
                chosen = record["seeds"][-1:] if seeds is None else seeds
                if absent := sorted(set(chosen) - set(record["seeds"])):
                    raise ExperimentError(
                        f"the record has no seed {absent[0]}; it has {record['seeds']}"
                    )
                same_data = _digest(experiment.data) == record["data"]["sha256"]
            except (ExperimentError, data.DataError, results.RecordError) as error:
                yield experiment, error
                continue
            epochs = 1 if quick else record["config"]["epochs"]
            place = Path(temporary) / experiment.name
            code = code_hash(experiment)
            job = _Job(experiment, record["config"], place, epochs, code, versions())
            work[job] = [(unit["params"], unit["seed"]) for unit in reversed(record["units"])
                         if unit["seed"] in chosen]  # fmt: skip
            changed = circumstances(experiment, record)
            records[job] = record, changed if same_data else [*changed, "the data are not the same"]
        for job, error in _each(work, workers, None, progress):
            if error is None:
                record, changed = records[job]
                differences = _differences(record, job, work[job])
                if stamp and not differences:
                    record["verified"] += [
                        {"code": job.code, "seed": seed, "epochs": job.epochs}
                        for seed in sorted({seed for _, seed in work[job]})
                    ]
                    path = Path(folder or results.FOLDER) / f"{job.experiment.name}.json"
                    results.save(record, path)
            yield job.experiment, error or (differences, changed)


def _differences(record: dict, job: _Job, units: list) -> list[dict]:
    """Compare what the units of a job measured with a record."""
    differences = []
    for unit in record["units"]:
        params, seed = unit["params"], unit["seed"]
        if (params, seed) not in units:
            continue
        found = _read(job.path(params, seed))["epochs"]
        for old, new in zip(unit["epochs"][: job.epochs], found, strict=True):
            old = results.finite(old)
            differences += [
                {"params": params, "seed": seed, "epoch": old["epoch"], "metric": metric,
                 "recorded": old.get(metric), "found": new.get(metric)}
                for metric in {**old, **new}
                if old.get(metric) != new.get(metric)
            ]  # fmt: skip
    return differences


def circumstances(experiment: Experiment, record: dict) -> list[str]:
    """Say what is not as it was when a record was made."""
    changed = _outdated(experiment, record)
    for place, now in (("versions", versions()), ("hardware", hardware())):
        changed += [
            f"{key} was {then}, is {now.get(key)}"
            for key, then in record[place].items()
            if now.get(key) != then
        ]
    return changed


def _outdated(experiment: Experiment, record: dict) -> list[str]:
    """Say what a declaration has changed in since a record was made."""
    changed = []
    codes = [record["code"], *(note["code"] for note in record["verified"])]
    if code_hash(experiment) not in codes:
        changed.append("the code that determines the numbers has changed")
    if experiment.config != record["config"]:
        changed.append(f"the configuration was {record['config']}, is {experiment.config}")
    return changed


def check_seeds(seeds: Iterable[int]) -> tuple[int, ...]:
    """Return the seeds in order, each once; refuse what cannot be one."""
    seeds = tuple(seeds)
    bad = [s for s in seeds if isinstance(s, bool) or not isinstance(s, int) or not 0 <= s < 2**32]
    if bad:
        raise ExperimentError(f"a seed is a whole number from 0 to 2³² − 1, not {bad[0]!r}")
    if not seeds:
        raise ExperimentError("no seeds given")
    return tuple(sorted(set(seeds)))


def user_folder() -> Path:
    """Return where your own records go: ``BN_RESULTS_DIR``, or ``bn-runs`` here."""
    return Path(os.environ.get("BN_RESULTS_DIR", "bn-runs"))


def versions() -> dict[str, str]:
    """Return the versions that determine the last bits."""
    return {"python": platform.python_version(), **{name: version(name) for name in VERSIONS}}


def hardware() -> dict:
    """Describe this machine."""
    processor = platform.processor()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(x.split(":")[1].strip() for x in lines if x.startswith("model name"))
    return {"processor": processor, "machine": platform.machine(), "cores": os.cpu_count()}


@lru_cache
def _dataset(name: str | None) -> data.Data | None:
    """Load a data set, once in a process."""
    return None if name is None else getattr(data, name)()


@lru_cache
def _digest(name: str | None) -> str | None:
    return None if name is None else data.digest(_dataset(name))


@lru_cache
def _imported(run: Callable, files: tuple[str, ...]) -> str | None:
    """Hash the code as it is when this process first needs it, which is what it imports."""
    try:
        return _hash(run, files)
    except OSError:  # `run` has no file: it was sent from a notebook
        return None


# PyTorch's random generator and number of threads belong to the process: two units at once in the
# threads of a Dask worker would disturb each other.
_ONE_AT_A_TIME = threading.Lock()


def _attempt(number: int, job: _Job, params: dict, seed: int) -> tuple[int, dict | Exception]:
    """Do a unit in a worker; return its number with what it measured, or with what stopped it."""
    try:
        with _ONE_AT_A_TIME:
            code = _imported(job.experiment.run, job.experiment.code)
            if code not in (job.code, None) or versions() != job.versions:
                raise ExperimentError(
                    f"process {os.getpid()} on {platform.node()} has other code or versions than "
                    "those with which the run began: was a file changed meanwhile, or is it "
                    "another installation? Run again, with workers that have the same."
                )
            if not job.folder.is_dir():  # a Dask worker with a disk of its own
                place = Path(tempfile.gettempdir()) / "bn-units" / job.folder.name
                job = replace(job, folder=place)
            return number, _unit(job, params, seed)
    except (OSError, ImportError, ExperimentError, data.DataError) as error:
        return number, error
    except Exception as error:  # of any class: this process may be the only one that can import it
        unit = ", ".join(f"{key}={value}" for key, value in {**params, "seed": seed}.items())
        failure = UnitError(f"{type(error).__name__}: {error} ({unit})")
        failure.add_note(traceback.format_exc())
        return number, failure


def _unit(job: _Job, params: dict, seed: int) -> dict:
    """Train one unit to the end, or say what it measured if that is done."""
    path = job.path(params, seed)
    state = path.with_suffix(".pt")
    unit = _read(path) or {"params": params, "seed": seed, "epochs": [], "seconds": 0.0}
    if len(unit["epochs"]) < job.epochs:
        before, start = unit["seconds"], time.perf_counter()
        with _one_thread():
            rows = []
            path.parent.mkdir(parents=True, exist_ok=True)
            dataset = _dataset(job.experiment.data)
            epochs = job.experiment.run(job.config, params, seed, dataset, state)
            for row in itertools.islice(epochs, job.epochs):
                rows.append(results.finite(row))
                if len(rows) > len(unit["epochs"]):
                    seconds = round(before + time.perf_counter() - start, 2)
                    unit = {**unit, "epochs": rows.copy(), "seconds": seconds}
                    checkpoint.write(path, json.dumps(unit))
    state.unlink(missing_ok=True)
    return unit


@contextlib.contextmanager
def _one_thread():
    """Give PyTorch and NumPy one thread: more would change the order of the sums."""
    import torch
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)


def _read(path: Path) -> dict | None:
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ExperimentError(f"{path} is damaged: delete it and run again") from error


def _epochs(path: Path) -> int:
    """Count the epochs in a file; a damaged one has none, and is refused when it is needed."""
    with contextlib.suppress(ExperimentError):
        unit = _read(path)
        return len(unit["epochs"]) if unit else 0
    return 0


def _each(work, workers, dask, progress):
    """Do the units of all jobs in one pool; yield each job, and its error or None, when it ends.

    The first error of a job ends it: those of its units that have not begun are left out.
    """
    todo = [
        (job, *unit)
        for job in sorted(work, key=lambda job: -job.seconds * job.epochs)
        for unit in work[job]
        if _epochs(job.path(*unit)) < job.epochs
    ]
    left, failed = Counter(job for job, *_ in todo), set()
    for job in work:
        job.folder.mkdir(parents=True, exist_ok=True)
    with _progress(work, progress) as look:
        yield from ((job, None) for job in work if not left[job])
        tasks = ((n, *task) for n, task in enumerate(todo) if task[0] not in failed)
        for number, outcome in _parallel(tasks, min(workers, len(todo)), dask):
            job, *unit = todo[number]
            if isinstance(outcome, Exception):
                if isinstance(outcome, OSError) and outcome.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise outcome
                if job not in failed:
                    failed.add(job)
                    yield job, outcome
                continue
            if _epochs(job.path(*unit)) < job.epochs:  # a Dask worker has it on a disk of its own
                checkpoint.write(job.path(*unit), json.dumps(outcome))
            left[job] -= 1
            if not left[job] and job not in failed:
                look()  # so that its bar is full and closed
                yield job, None


def _parallel(tasks, workers, dask):
    """Yield what :func:`_attempt` returns for each task, as they end; take a task when it is due."""
    if not workers:
        return
    if dask is not None:
        yield from _on_dask(tasks, dask)
        return
    import joblib

    with _environment(ALLOCATOR | THREADS), warnings.catch_warnings():
        # A worker whose memory has grown is replaced between two units; nothing is lost.
        warnings.filterwarnings(
            "ignore", "A worker stopped while some jobs were given", UserWarning
        )
        pool = joblib.Parallel(workers, batch_size=1, return_as="generator_unordered")
        try:
            yield from pool(joblib.delayed(_attempt)(*task) for task in tasks)
        except BrokenProcessPool as error:
            raise ExperimentError(
                "a worker process was killed, perhaps for want of memory. What is done is kept: "
                "run the same command again, or with fewer workers."
            ) from error


def _on_dask(tasks, address):
    """Send tasks to a Dask cluster, which gives those of a worker that died to another.

    Not through joblib's backend for Dask: when a task fails in Dask itself (three workers died of
    it, or one cannot import it) that never calls joblib back, as of 1.6, and the run would wait
    for ever. Here the error is one like any other.
    """
    try:
        from distributed import Client, as_completed
    except ImportError as error:
        raise ExperimentError(
            "--dask needs the package distributed: pip install 'bn[cluster]'"
        ) from error
    try:
        client = Client(address, timeout=PATIENCE[0], set_as_default=False)
    except (OSError, ValueError) as error:
        raise ExperimentError(f"no Dask scheduler answers at {address} ({error})") from error
    with client:
        try:
            client.wait_for_workers(1, timeout=PATIENCE[1])
        except TimeoutError as error:
            raise ExperimentError(
                f"the Dask scheduler at {address} has no workers. Start some with: "
                f"dask worker {address} --nworkers 2 --nthreads 1"
            ) from error
        numbers, running = {}, as_completed(loop=client.loop)

        def send():  # two for each worker: one to do and one to wait
            room = max(1, 2 * sum(client.nthreads().values()) - len(numbers))
            for task in itertools.islice(tasks, room):
                future = client.submit(_attempt, *task, pure=False)
                numbers[future] = task[0]
                running.add(future)

        send()
        for future in running:
            number = numbers.pop(future)
            try:
                outcome = future.result()
            except (Exception, CancelledError) as error:
                yield number, UnitError(f"{type(error).__name__} on the Dask cluster: {error}")
            else:
                yield outcome
            send()


@contextlib.contextmanager
def _environment(variables):
    """Set environment variables that are not set, for the processes started meanwhile."""
    added = {key: value for key, value in variables.items() if key not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for key in added:
            os.environ.pop(key, None)


@contextlib.contextmanager
def _alone(folder: Path, name: str):
    """Hold a lock that the operating system releases however the process ends.

    Without one (Windows) two runs would do the same work twice, and no harm: every file is
    written whole, and both write the same.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise ExperimentError(
                f"another run of {name} (process {lock.read().strip() or 'unknown'}) is at work "
                f"in {folder}. Wait for it, or write elsewhere with --folder."
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


@contextlib.contextmanager
def _progress(work, show: bool):
    """Show the epochs done and the time left, by looking at the files that the workers leave.

    One bar for each experiment, from its first epoch on; with several, one for all, in which an
    epoch counts as much as it costs. Yields a function that looks at once.
    """
    if not show or not work:
        yield lambda: None
        return
    from tqdm.auto import tqdm

    known: dict[Path, tuple[int, int]] = {}

    def done(job):
        for path in (job.path(*unit) for unit in work[job]):
            with contextlib.suppress(FileNotFoundError):
                stamp = path.stat().st_mtime_ns
                if known.get(path, (0,))[0] != stamp:
                    known[path] = stamp, _epochs(path)
                yield known[path][1]

    counts = {job: sum(done(job)) for job in work}
    totals = {job: len(units) * job.epochs for job, units in work.items()}
    bars = {}

    def bar(total, initial, name, **options):
        quiet = 0.1 if sys.stderr.isatty() else 60
        return tqdm(total=total, initial=initial, desc=name, file=sys.stderr, mininterval=quiet,
                    **options)  # fmt: skip

    def cost(epochs):
        return sum(job.seconds * n for job, n in epochs.items())

    def look():
        with lock:
            for job in work:
                now = sum(done(job))
                if job not in bars and (now > counts[job] or len(work) == 1):
                    bars[job] = bar(totals[job], now, job.experiment.name, unit="epoch")
                if job in bars:
                    bars[job].update(now - bars[job].n)
                    if now == totals[job]:
                        bars[job].close()
                counts[job] = now
            if everything is not None:
                everything.update(cost(counts) - everything.n)

    lock, stop, everything = threading.Lock(), threading.Event(), None
    if len(work) > 1:
        everything = bar(cost(totals), cost(counts), "all", smoothing=0,
                         bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}")  # fmt: skip
    look()

    def watch():
        while not stop.wait(0.5):
            look()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield look
    finally:
        stop.set()
        watcher.join()
        look()
        for open_bar in [*bars.values(), *([everything] if everything else [])]:
            open_bar.close()
