"""The experiments: every module here that declares some is found, and run, by name.

To add one, write a module with a function `run` and a list ``EXPERIMENTS`` of
:class:`Experiment`; nothing has to be registered.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from functools import lru_cache

from bn.experiments._engine import (
    Experiment,
    ExperimentError,
    Verdict,
    check_seeds,
    circumstances,
    code_hash,
    user_folder,
)
from bn.experiments._engine import run as _run
from bn.experiments._engine import verify as _verify

__all__ = [
    "Experiment",
    "ExperimentError",
    "Verdict",
    "check_seeds",
    "circumstances",
    "code_hash",
    "get",
    "names",
    "run",
    "user_folder",
    "verify",
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
    """Run an experiment by name; the options are those of :func:`bn.experiments._engine.run`."""
    return _run(get(name), **options)


def verify(name: str, **options) -> tuple[list[dict], list[str]]:
    """Re-run one seed of a record and compare; see :func:`bn.experiments._engine.verify`."""
    return _verify(get(name), **options)
