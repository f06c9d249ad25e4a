"""What this machine has of what the course uses, said in words."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

__all__ = ["Report", "report"]


@dataclass(frozen=True)
class Report:
    """Lines of (is it there, what it is and what to do about it)."""

    lines: tuple[tuple[bool, str], ...]

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return all(ready for ready, _ in self.lines)

    def __repr__(self) -> str:
        return "\n".join(
            ("ready    " if ready else "missing  ") + text.replace("\n", "\n         ")
            for ready, text in self.lines
        )


def report() -> Report:
    """Look for everything the course can use; download nothing.

    Returns
    -------
    Report
        One line for each thing: ready, or missing with what to do.

    Examples
    --------
    >>> print(report())  # doctest: +ELLIPSIS
    ready    Python 3...
    """
    return Report((_python(), _bn(), _torch(), _figures(), _widgets(), _digits(), _mnist()))


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package) if find_spec(package) else None
    except importlib.metadata.PackageNotFoundError:
        return None


def _python() -> tuple[bool, str]:
    ready = sys.version_info >= (3, 11)
    return ready, f"Python {platform.python_version()}" + ("" if ready else "; use 3.11 or newer")


def _bn() -> tuple[bool, str]:
    from . import __version__

    return True, f"bn {__version__}"


def _torch() -> tuple[bool, str]:
    if version := _version("torch"):
        return True, f"PyTorch {version}"
    return False, 'PyTorch, for the networks of Part III: pip install "bn[torch]"'


def _figures() -> tuple[bool, str]:
    if version := _version("matplotlib"):
        return True, f"figures: matplotlib {version}"
    return False, 'figures: pip install "bn[book]" brings matplotlib'


def _widgets() -> tuple[bool, str]:
    absent = [name for name in ("anywidget", "ipywidgets") if not _version(name)]
    if absent:
        return False, f'interactive figures: pip install "bn[book]" brings {" and ".join(absent)}'
    where = "alive in this notebook" if _kernel() else "alive in Jupyter, not in this terminal"
    return True, f"interactive figures: anywidget {_version('anywidget')}, {where}"


def _kernel() -> bool:
    try:
        return hasattr(get_ipython(), "kernel")
    except NameError:
        return False


def _digits() -> tuple[bool, str]:
    return True, "digits: 1,797 images of 8×8, inside scikit-learn"


def _mnist() -> tuple[bool, str]:
    from . import data

    problems, folder = data.missing(), _home(data.folder())
    if not problems:
        return True, f"MNIST: four files in {folder}"
    damaged = [name for name, problem in problems.items() if problem != "is missing"]
    first = f"MNIST, for the recorded experiments only: {len(problems)} of 4 files"
    if damaged:
        first += f", of which damaged or not official: {', '.join(damaged)}"
    how = (
        "BN_DATA_DIR names this folder: put the files into it, or unset it"
        if "BN_DATA_DIR" in os.environ
        else "bn data fetches them (12 MB); without a network, put them into a\n"
        "folder and set BN_DATA_DIR to it"
    )
    return False, f"{first}\nlooked for in {folder}\n{how}"


def _home(path: Path) -> str:
    """`path` with the home folder as ``~``, so that a notebook does not show who ran it."""
    try:
        return str(Path("~") / path.relative_to(Path.home()))
    except (ValueError, RuntimeError):
        return str(path)
