"""The declaration of an experiment, and the engine that runs it.

An experiment is a grid of parameters times a list of seeds. One point of it is a *unit*: one
training. Units run in parallel processes and know nothing of each other. After each epoch a
unit leaves two files, ``….pt`` (the state to resume from) and ``….json`` (what it measured),
each written whole or not at all, in a folder whose name is made from everything that determines
the numbers. So whatever stops a run, the next one finds only files that are valid for it.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import inspect
import json
import os
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial
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
VERSIONS = ("numpy", "torch", "scikit-learn")
PACKAGE = Path(__file__).parents[1]


class ExperimentError(ValueError):
    """An experiment cannot be run as asked; the message says why, and what to do."""


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
        What a quick run changes in `config`.
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


@dataclass(frozen=True)
class _Job:
    """What a worker needs to know; everything that determines the numbers is in it."""

    experiment: Experiment
    config: dict
    folder: Path

    def path(self, params: dict, seed: int) -> Path:
        name = ",".join(f"{key}={value}" for key, value in {**params, "seed": seed}.items())
        return self.folder / f"{name}.json"


def code_hash(experiment: Experiment) -> str:
    """Hash the code that determines an experiment's numbers.

    That is the files in its `code` and its `run`, without comments, docstrings, layout and
    ``__all__``. The data that go in have a hash of their own (:func:`bn.data.digest`).
    """
    sources = [(PACKAGE / name).read_text(encoding="utf-8") for name in experiment.code]
    sources.append(inspect.getsource(experiment.run))
    return hashlib.sha256("\n".join(map(_bare, sources)).encode()).hexdigest()


def _bare(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        if documented and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    tree.body = [node for node in tree.body if not ast.unparse(node).startswith("__all__ = ")]
    return ast.unparse(tree)


def run(
    experiment: Experiment,
    *,
    seeds: Iterable[int] | None = None,
    workers: int | None = None,
    dask: str | None = None,
    quick: bool = False,
    folder: str | os.PathLike | None = None,
    progress: bool = True,
) -> dict:
    """Run an experiment and write its record; continue where an earlier run stopped.

    Parameters
    ----------
    experiment : Experiment
        From :func:`bn.experiments.get`.
    seeds : iterable of int, optional
        By default those of the declaration.
    workers : int, optional
        Processes; by default one for each core. One core each: the number of workers changes
        the time and nothing else.
    dask : str, optional
        Address of a Dask scheduler to send the units to instead.
    quick : bool
        A shorter run, to see that it works (the declaration's `quick`); the record is named
        ``NAME.quick``.
    folder : path, optional
        Where records go; by default :func:`bn.experiments.user_folder`.
    progress : bool
        Show a bar with the time left.

    Returns
    -------
    dict
        The record (see :func:`bn.results.load`), of all seeds finished so far.

    Raises
    ------
    ExperimentError
        The seeds or the number of workers make no sense, or another run is at work on this.
    bn.data.DataError
        The data cannot be had.
    """
    seeds = check_seeds(experiment.seeds if seeds is None else seeds)
    workers = os.cpu_count() if workers is None else workers
    if workers < 1:
        raise ExperimentError(f"workers must be at least 1, not {workers}")
    folder = user_folder() if folder is None else Path(folder)
    config = {**experiment.config, **experiment.quick} if quick else experiment.config
    identity = {
        "schema": results.SCHEMA,
        "experiment": experiment.name,
        "config": config,
        "data": {"name": experiment.data, "sha256": _digest(experiment)},
        "code": code_hash(experiment),
    }
    key = hashlib.sha256(json.dumps([identity, versions()]).encode()).hexdigest()[:12]
    job = _Job(experiment, config, folder / ".units" / f"{experiment.name}-{key}")
    units = [(params, seed) for seed in seeds for params in experiment.grid]

    with _alone(job.folder, experiment.name), _progress(job, units, progress):
        for half_written in job.folder.glob(".*"):  # by a process that was killed
            half_written.unlink()
        for unit in _parallel(partial(_unit, job), units, workers, dask):
            path = job.path(unit["params"], unit["seed"])
            if not _epochs(path):  # a Dask worker wrote it on a disk of its own
                checkpoint.write(path, json.dumps(unit))

    record = _record(identity, job)
    name = f"{experiment.name}.quick" if quick else experiment.name
    results.save(record, folder / f"{name}.json")
    return results.load(name, folder)


def _record(identity: dict, job: _Job) -> dict:
    """Gather the units of every seed for which all are finished."""
    grid, epochs = job.experiment.grid, job.config["epochs"]
    found = {json.loads(path.read_text())["seed"] for path in job.folder.glob("*.json")}
    seeds = [
        seed
        for seed in sorted(found)
        if all(_epochs(job.path(params, seed)) == epochs for params in grid)
    ]
    units = [json.loads(job.path(params, seed).read_text()) for params in grid for seed in seeds]
    return {
        **identity,
        "seeds": seeds,
        "units": units,
        "verified": [],
        "seconds": [unit["seconds"] for unit in units],
        "versions": versions(),
        "hardware": hardware(),
    }


def verify(
    experiment: Experiment,
    *,
    seed: int | None = None,
    quick: bool = False,
    folder: str | os.PathLike | None = None,
    workers: int | None = None,
    stamp: bool = False,
    progress: bool = True,
) -> tuple[list[dict], list[str]]:
    """Run one seed of a record again and compare.

    Parameters
    ----------
    experiment : Experiment
        From :func:`bn.experiments.get`.
    seed : int, optional
        By default the first of the record.
    quick : bool
        Run only the first epoch and compare that.
    folder : path, optional
        Where the record is; by default among those that `bn` ships.
    workers : int, optional
        Processes; by default one for each core.
    stamp : bool
        If all agrees to the last bit, note in the record that the present code reproduces it.
    progress : bool
        Show a bar with the time left.

    Returns
    -------
    differences : list of dict
        ``params``, ``epoch``, ``metric``, ``recorded`` and ``found`` of every number that is not
        the same; empty when the record is reproduced bit for bit.
    circumstances : list of str
        What is not as it was when the record was made: code, data, configuration, versions,
        machine.
    """
    record = results.load(experiment.name, folder)
    seed = record["seeds"][0] if seed is None else check_seeds([seed])[0]
    if seed not in record["seeds"]:
        raise ExperimentError(f"the record has no seed {seed}; it has {record['seeds']}")
    epochs = 1 if quick else record["config"]["epochs"]
    units = [unit for unit in record["units"] if unit["seed"] == seed]
    differences = []
    with tempfile.TemporaryDirectory(prefix="bn-verify-") as temporary:
        job = _Job(experiment, {**record["config"], "epochs": epochs}, Path(temporary))
        points = [(unit["params"], seed) for unit in units]
        with _progress(job, points, progress):
            again = list(_parallel(partial(_unit, job), points, workers or os.cpu_count(), None))
    for unit in units:
        (found,) = (other for other in again if other["params"] == unit["params"])
        for old, new in zip(unit["epochs"][:epochs], found["epochs"], strict=True):
            old = results.finite(old)
            differences += [
                {"params": unit["params"], "epoch": old["epoch"], "metric": metric,
                 "recorded": old.get(metric), "found": new.get(metric)}
                for metric in {**old, **new}
                if old.get(metric) != new.get(metric)
            ]  # fmt: skip
    if stamp and not differences:
        note = {"code": code_hash(experiment), "seed": seed, "epochs": epochs}
        record["verified"] = [*record["verified"], note]
        results.save(record, Path(folder or results.FOLDER) / f"{experiment.name}.json")
    changed = circumstances(experiment, record)
    if _digest(experiment) != record["data"]["sha256"]:
        changed.append("the data are not the same")
    return differences, changed


def circumstances(experiment: Experiment, record: dict) -> list[str]:
    """Say what is not as it was when a record was made."""
    changed = []
    codes = [record["code"], *(note["code"] for note in record["verified"])]
    if code_hash(experiment) not in codes:
        changed.append("the code that determines the numbers has changed")
    if experiment.config != record["config"]:
        changed.append(f"the configuration was {record['config']}, is {experiment.config}")
    for place, now in (("versions", versions()), ("hardware", hardware())):
        changed += [
            f"{key} was {then}, is {now.get(key)}"
            for key, then in record[place].items()
            if now.get(key) != then
        ]
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


@lru_cache(maxsize=1)
def _dataset(name: str | None) -> data.Data | None:
    """Load a data set, once in a process."""
    return None if name is None else getattr(data, name)()


def _digest(experiment: Experiment) -> str | None:
    dataset = _dataset(experiment.data)
    return None if dataset is None else data.digest(dataset)


def _unit(job: _Job, params: dict, seed: int) -> dict:
    """Train one unit to the end, or say what it measured if that is done."""
    path = job.path(params, seed)
    state = path.with_suffix(".pt")
    unit = _read(path) or {"params": params, "seed": seed, "epochs": [], "seconds": 0.0}
    if len(unit["epochs"]) < job.config["epochs"]:
        before, start = unit["seconds"], time.perf_counter()
        with _one_thread():
            rows = []
            path.parent.mkdir(parents=True, exist_ok=True)
            dataset = _dataset(job.experiment.data)
            for row in job.experiment.run(job.config, params, seed, dataset, state):
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
    unit = _read(path)
    return len(unit["epochs"]) if unit else 0


def _parallel(function, units, workers, dask):
    """Yield the results of function(*unit) as they come."""
    import joblib

    with contextlib.ExitStack() as stack:
        if dask is not None:
            try:
                from distributed import Client
            except ImportError as error:
                raise ExperimentError(
                    "--dask needs the package distributed: pip install 'bn[cluster]'"
                ) from error
            stack.enter_context(Client(dask, timeout=20))
            stack.enter_context(joblib.parallel_config(backend="dask"))
            options = {}
        else:
            stack.enter_context(_environment(ALLOCATOR))
            options = {"n_jobs": min(workers, len(units)), "return_as": "generator_unordered"}
        yield from joblib.Parallel(batch_size=1, pre_dispatch="all", **options)(
            joblib.delayed(function)(*unit) for unit in units
        )


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
def _progress(job: _Job, units, show: bool):
    """Show how many epochs are done, by looking at the files that the workers leave."""
    if not show:
        yield
        return
    from tqdm.auto import tqdm

    paths = [job.path(*unit) for unit in units]
    total = len(paths) * job.config["epochs"]

    def done():
        return sum(p.read_text().count('"epoch":') for p in paths if p.exists())

    stop = threading.Event()
    with tqdm(total=total, initial=done(), desc=job.experiment.name, unit="epoch",
              file=sys.stderr, mininterval=0.1 if sys.stderr.isatty() else 60) as bar:  # fmt: skip

        def watch():
            while not stop.wait(0.5):
                bar.update(done() - bar.n)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            stop.set()
            watcher.join()
            bar.update(done() - bar.n)
