"""Make .venv and install requirements.txt and bn into it; do nothing if that is done.

Needs Python's standard library only. It can be interrupted at any moment: a folder that a run
left half made, the next makes anew. A .venv that someone else made is kept and added to. Two runs
at once do not meet: one waits.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
ENVIRONMENT = ROOT / ".venv"
STAMP = ENVIRONMENT / ".installed"  # holds what the environment was made from
HALF_MADE = ENVIRONMENT / ".half-made"
WANTED = (ROOT / "requirements.txt", ROOT / "pyproject.toml")
PYTHON = (3, 11)


def state() -> str:
    """Return what the environment was, or should be, made from."""
    digest = hashlib.sha256(f"{sys.version_info[:3]} {ROOT}".encode())
    for path in WANTED:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def installed() -> str | None:
    """Return what the environment was made from, if it was made to the end."""
    return STAMP.read_text() if STAMP.exists() else None


def install() -> None:
    """Bring the environment to the state that is wanted."""
    if HALF_MADE.exists():
        shutil.rmtree(ENVIRONMENT)
    print("Installing the tested packages into .venv: a few minutes, once.", flush=True)
    if not ENVIRONMENT.exists():
        ENVIRONMENT.mkdir()
        HALF_MADE.touch()
        venv.create(ENVIRONMENT, with_pip=True)
    STAMP.unlink(missing_ok=True)
    pip = [str(ENVIRONMENT / "bin" / "python"), "-m", "pip", "install", "--quiet",
           "--disable-pip-version-check"]  # fmt: skip
    subprocess.run([*pip, "-r", str(WANTED[0])], check=True)
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", "-e", str(ROOT)], check=True)
    HALF_MADE.unlink(missing_ok=True)
    STAMP.write_text(state())


def main() -> int:
    if sys.version_info[:2] != PYTHON:
        wanted, this = (".".join(map(str, v)) for v in (PYTHON, sys.version_info[:2]))
        print(f"The pinned packages are tested with Python {wanted}; this is {this}.\n"
              f"Name the right one: make PYTHON=/path/to/python{wanted} …", file=sys.stderr)  # fmt: skip
        return 1
    if installed() == state():
        return 0
    with open(ROOT / ".venv.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the system lets go of it however this process ends
        if installed() != state():
            try:
                install()
            except subprocess.CalledProcessError as error:
                print(f"Installing failed (pip ended with {error.returncode}; its message stands "
                      "above). Run the same command again to retry.", file=sys.stderr)  # fmt: skip
                return 1
            except KeyboardInterrupt:
                print("\nInterrupted: the next run begins anew.", file=sys.stderr)
                return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
