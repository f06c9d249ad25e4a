"""What a second worker saves: the time of a whole run by one worker, by two, and on a Dask cluster.

python -m benchmarks.workers [NAME]

Wall time, in turns, of `bn run` from its start to its end: the start of the processes, which import
PyTorch each, is in it. Other programs on the machine spoil it, so the load is printed too.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROUNDS = 3


def run(name: str, *options: str) -> float:
    """Run an experiment from nothing and return the seconds it took."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "bn", "run", name, "--folder", folder, *options]
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return time.perf_counter() - start


@contextlib.contextmanager
def cluster(workers: int):
    """Start a Dask scheduler and workers here; give the address."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:

        def start(*arguments):
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments, "--no-dashboard"], cwd=folder,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            stack.callback(process.wait)
            stack.callback(process.kill)

        note = Path(folder) / "scheduler.json"
        start("distributed.cli.dask_scheduler", "--host=127.0.0.1", "--port=0",
              f"--scheduler-file={note}")  # fmt: skip
        while not note.exists():
            time.sleep(0.1)
        address = json.loads(note.read_text())["address"]
        for _ in range(workers):
            start("distributed.cli.dask_worker", address, "--nthreads=1", "--no-nanny")
        yield address


def main(names: list[str]) -> None:
    """Print the seconds of each way and its speed-up over one worker."""
    name = names[0] if names else "digits_mlp"
    print(f"{name}, {ROUNDS} runs each way, {os.cpu_count()} cores, "
          f"load before {os.getloadavg()[0]:.1f}")  # fmt: skip
    with cluster(2) as address:
        ways = {
            "1 worker": ("--workers", "1"),
            "2 workers": ("--workers", "2"),
            "Dask, 2 workers": ("--dask", address),
        }
        seconds = np.array([[run(name, *way) for way in ways.values()] for _ in range(ROUNDS)])
    for way, column in zip(ways, seconds.T, strict=True):
        ratios = np.sort(seconds[:, 0] / column)
        print(f"{way:<16} {np.median(column):6.1f} s   {np.median(ratios):.2f} times as fast "
              f"[{ratios[0]:.2f}, {ratios[-1]:.2f}]")  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
