"""The experiments: every module here that declares some is found, and run, by name.

To add one, write a module with a function `run` and a list ``EXPERIMENTS`` of
:class:`Experiment`; nothing has to be registered.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterable, Iterator
from functools import lru_cache

from bn.experiments._engine import (
    Experiment,
    ExperimentError,
    UnitError,
    Verdict,
    check_seeds,
    circumstances,
    code_hash,
    user_folder,
)
from bn.experiments._engine import run as _run
from bn.experiments._engine import run_many as _run_many
from bn.experiments._engine import status as _status
from bn.experiments._engine import verify as _verify
from bn.experiments._engine import verify_many as _verify_many

__all__ = [
    "Experiment",
    "ExperimentError",
    "UnitError",
    "Verdict",
    "check_seeds",
    "circumstances",
    "code_hash",
    "get",
    "names",
    "run",
    "run_many",
    "status",
    "user_folder",
    "verify",
    "verify_many",
]


@lru_cache(maxsize=1)
def _registry() -> dict[str, Experiment]:
    found = {}
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            declared = importlib.import_module(f"{__name__}.{module.name}").EXPERIMENTS
            found.update((experiment.name, experiment) for experiment in declared)
    return dict(sorted(found.items()))


def names() -> list[str]:
    """Return the names of all experiments.

    Examples
    --------
    >>> import bn
    >>> "mnist_mlp" in bn.experiments.names()
    True
    """
    return list(_registry())


def get(name: str) -> Experiment:
    """Return an experiment's declaration.

    Raises
    ------
    ExperimentError
        There is none of that name; the message suggests one.
    """
    if name not in _registry():
        close = difflib.get_close_matches(name, names(), 1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ExperimentError(
            f"There is no experiment {name!r}.{hint} There are: {', '.join(names())}."
        )
    return _registry()[name]


def run(name: str, **options) -> dict:
    """Run an experiment by name; the options are those of :func:`run_many`."""
    return _run(get(name), **options)


def run_many(names: Iterable[str], **options) -> Iterator[tuple[str, dict | Exception]]:
    """Run experiments in one pool of workers; see :func:`bn.experiments._engine.run_many`."""
    for experiment, outcome in _run_many([get(name) for name in names], **options):
        yield experiment.name, outcome


def status(name: str, folder=None) -> dict:
    """Say what is recorded, and how far a run is; see :func:`bn.experiments._engine.status`."""
    return _status(get(name), folder)


def verify(name: str, **options) -> tuple[list[dict], list[str]]:
    """Run seeds of a record again and compare; the options are those of :func:`verify_many`."""
    return _verify(get(name), **options)


def verify_many(names: Iterable[str], **options) -> Iterator[tuple[str, tuple | Exception]]:
    """Run seeds of records again in one pool; see :func:`bn.experiments._engine.verify_many`."""
    for experiment, outcome in _verify_many([get(name) for name in names], **options):
        yield experiment.name, outcome
