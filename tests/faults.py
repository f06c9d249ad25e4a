"""Put known mistakes into the code, one at a time, and see whether the tests notice each.

A test that cannot fail proves nothing. This script copies the project to a temporary folder, makes
one change there that a person could have made, runs the tests of that file, and reports the faults
that no test saw. It takes about ten seconds a fault, so it is run by hand; ``test_faults.py`` checks
with every test run that each fault can still be made.

python tests/faults.py [WORD] …      only the faults whose file or reason contains a word
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import fault_lists

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("bn", "tests", "benchmarks", "book")


class Fault(NamedTuple):
    """A mistake: in `file`, `old` (which occurs once) becomes `new`."""

    file: str
    old: str
    new: str
    why: str

    def apply(self, root: Path) -> None:
        """Make the mistake in a copy of the project."""
        path = root / self.file
        source = path.read_text(encoding="utf-8")
        if source.count(self.old) != 1:
            raise ValueError(
                f"{self.file}: to be changed once, but found {source.count(self.old)} times: "
                f"{self.old!r} ({self.why})"
            )
        path.write_text(source.replace(self.old, self.new), encoding="utf-8")


FAULTS = [(Fault(*fault), tests) for faults, tests in fault_lists.ALL for fault in faults]


def seen(fault: Fault, tests: list[str]) -> str:
    """Return the first test that fails with the fault, or an empty string."""
    with tempfile.TemporaryDirectory(prefix="bn-fault-") as folder:
        root = Path(folder)
        for name in FOLDERS:
            ignore = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
            shutil.copytree(ROOT / name, root / name, ignore=ignore)
        shutil.copy(ROOT / "pyproject.toml", root)
        fault.apply(root)
        options = ["-x", "-q", "-n0", "-p", "no:cacheprovider"]
        command = [sys.executable, "-m", "pytest", *options, *tests]
        environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
        try:
            run = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True,
                                 timeout=600)  # fmt: skip
        except subprocess.TimeoutExpired:
            return "the tests do not end"
        lines = [x for x in run.stdout.splitlines() if x.startswith(("FAILED", "ERROR"))]
        if run.returncode == 0:
            return ""
        return lines[0].removeprefix("FAILED ") if lines else f"pytest ended with {run.returncode}"


def main(words: list[str]) -> int:
    """Try the faults; return how many no test saw."""
    chosen = [f for f in FAULTS if not words or any(w in f[0].file + f[0].why for w in words)]
    missed = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for (fault, _), test in zip(chosen, pool.map(lambda f: seen(*f), chosen), strict=True):
            missed += not test
            verdict = f"seen     [{test}]" if test else "NOT SEEN"
            print(f"{fault.file}: {fault.why}: {verdict}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} faults seen")
    return missed


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
