"""Batch norm, forward and backward, against torch.nn's and a plain copy: float32, 1 and 2 threads.

    python -m benchmarks.layers [--record]

All that is compared takes turns in one process, and a ratio is the median over the rounds of one
time over the other. One thread is timed by the processor's clock, which stands still while other
programs have the core; two threads by the clock on the wall, so that they need a quiet machine.

There are two ways to come by the memory of a result. *Fresh*: the C library gives large arrays back
to the kernel and asks for new pages each time, as it does unless told otherwise. *Kept*: the
process keeps its memory, as the experiments of this project do.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings

import numpy as np

from benchmarks import bandwidth, turns
from bn import checkpoint, results
from bn.experiments import _engine

SHAPES = [
    (128, 100), (64, 6, 14, 14), (256, 1024), (64, 256, 7, 7), (128, 32, 26, 26),
    (128, 64, 24, 24), (8192, 1024),
]  # fmt: skip
LARGE = 100_000  # values from which on the budgets hold
FAST, EAGER, COMPILED = "bn.fast", "bn.nn", "bn.nn, compiled"
BUDGETS = {FAST: 1.0, EAGER: 1.3, COMPILED: 1.0}
ROUNDS, SECONDS = 11, 0.02


def functions(shape, threads: int) -> dict:
    """Return {(what, pass): a function that does it once} on one batch of this shape."""
    import torch

    import bn

    rng = np.random.default_rng(0)
    x, g = (rng.standard_normal(shape, dtype=np.float32) for _ in range(2))
    gamma, beta = np.ones(shape[1], np.float32), np.zeros(shape[1], np.float32)
    options = {"axis": (0, *range(2, len(shape)))}
    found = {("copy", "forward"): x.copy}

    def add(what, forward, backward):
        kept = forward()
        found[what, "forward"] = forward
        if what != COMPILED:  # compiled code reuses the memory that it has read: once is all
            found[what, "backward"] = lambda: backward(kept)
        found[what, "both"] = lambda: backward(forward())

    for what, module, more in (
        ("bn.functional", bn.functional, {}), (FAST, bn.fast, {"threads": threads}),
    ):  # fmt: skip
        add(
            what,
            lambda module=module, more=more: module.batch_norm(x, gamma, beta, **options, **more)[
                1
            ],
            lambda cache, module=module: module.batch_norm_backward(g, cache),
        )

    name = "BatchNorm1d" if len(shape) == 2 else "BatchNorm2d"
    image, gradient = torch.from_numpy(x).requires_grad_(), torch.from_numpy(g)
    layers = {
        "torch.nn": getattr(torch.nn, name)(shape[1]),
        EAGER: getattr(bn.nn, name)(shape[1]),
        COMPILED: torch.compile(getattr(bn.nn, name)(shape[1]), dynamic=False),
    }
    for what, layer in layers.items():
        wanted = [image, *layer.parameters()]
        add(
            what,
            lambda layer=layer: layer(image),
            lambda y, wanted=wanted, what=what: torch.autograd.grad(
                y, wanted, gradient, retain_graph=what != COMPILED
            ),
        )
    return found


def measure(threads: int) -> list[dict]:
    """Return a row for each shape, pass and function: milliseconds, and against two others."""
    import torch

    torch.set_num_threads(threads)
    warnings.filterwarnings("ignore", module="torch")
    rows = []
    for shape in SHAPES:
        todo = functions(shape, threads)
        times = turns(todo, rounds=ROUNDS, seconds=SECONDS, cpu=threads == 1)
        for (what, which), seconds in times.items():
            rows.append({
                "shape": shape, "threads": threads, "what": what, "pass": which,
                "ms": _quartiles(1e3 * seconds),
                "to_copy": _quartiles(seconds / times["copy", "forward"])[1],
            })  # fmt: skip
            if what != "copy":
                rows[-1]["to_torch"] = _quartiles(seconds / times["torch.nn", which])
    return rows


def _quartiles(values) -> list[float]:
    return [float(f"{v:.4g}") for v in np.quantile(values, (0.25, 0.5, 0.75))]


def peak_memory() -> list[dict]:
    """The most memory that a forward and a backward pass hold at a time, in copies of the batch."""
    import torch

    import bn

    rows = []
    for shape in SHAPES:
        name = "BatchNorm1d" if len(shape) == 2 else "BatchNorm2d"
        x, g = torch.randn(shape).requires_grad_(), torch.ones(shape)
        for what, module in (("torch.nn", torch.nn), (EAGER, bn.nn)):
            layer = getattr(module, name)(shape[1])
            layer(x).backward(g)  # makes the gradients of the parameters
            x.grad = None
            with torch.profiler.profile(profile_memory=True) as profile:
                layer(x).backward(g)
            events = profile.profiler.kineto_results.events()
            events = [e for e in events if e.name() == "[memory]"]
            held = np.cumsum([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())])
            x.grad = None
            rows.append({"shape": shape, "what": what, "batches": round(held.max() / x.nbytes, 3)})
    return rows


def in_a_process(threads: int, memory: str) -> list[dict]:
    """Measure with this many threads, and this way to come by memory."""
    env = {
        **os.environ,
        **(_engine.ALLOCATOR if memory == "kept" else {}),
        "OMP_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "benchmarks.layers", "--measure", str(threads)]
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
    return [{"memory": memory, **row} for row in json.loads(done.stdout)]


def table(rows: list[dict]) -> None:
    """Print rows with the same threads and memory, and what they say about the budgets."""
    print(f"\n{rows[0]['threads']} thread(s), {rows[0]['memory']} memory: ms, against torch.nn [quartiles],"
          " against a copy of the batch")  # fmt: skip
    for row in rows:
        if row["what"] == "copy":
            print(f"\n{tuple(row['shape'])}: a copy takes {row['ms'][1]:.3g} ms")
            continue
        low, middle, high = row["to_torch"]
        over = row["pass"] == "both" and middle > BUDGETS.get(row["what"], np.inf)
        over = "  over budget" if over and np.prod(row["shape"]) > LARGE else ""
        print(f"  {row['what']:<16}{row['pass']:<9}{row['ms'][1]:>9.3f}   "
              f"{middle:5.2f} [{low:.2f}, {high:.2f}]   {row['to_copy']:6.1f}{over}")  # fmt: skip
    for what in BUDGETS:
        large = [r["to_torch"][1] for r in rows if (r["what"], r["pass"]) == (what, "both")
                 and np.prod(r["shape"]) > LARGE]  # fmt: skip
        if large:
            mean = np.exp(np.log(large).mean())
            print(f"{what}: {mean:.2f} times torch.nn, geometric mean over {len(large)} shapes"
                  f" with more than {LARGE:,} values")  # fmt: skip


def main(arguments: list[str]) -> None:
    """Print the tables; with --record, put them among the results that bn ships."""
    if "--measure" in arguments:
        print(json.dumps(measure(int(arguments[1]))))
        return
    rows = []
    for memory in ("fresh", "kept"):
        for threads in (1, 2):
            rows += (found := in_a_process(threads, memory))
            table(found)
    memory = peak_memory()
    print("\npeak memory of forward and backward, in copies of the batch")
    for row in memory:
        print(f"  {tuple(row['shape'])!s:<20}{row['what']:<10}{row['batches']:.2f}")
    if "--record" in arguments:
        head = {
            "kind": "timing",
            "schema": results.SCHEMA,
            "config": {"dtype": "float32", "rounds": ROUNDS, "allocator": _engine.ALLOCATOR},
            "machine": bandwidth.measure(),
            "peak_memory": memory,
            "versions": _engine.versions(),
            "hardware": _engine.hardware(),
        }
        lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
        lines.append(' "rows": [\n  ' + ",\n  ".join(map(json.dumps, rows)) + "\n ]")
        text = "{\n" + ",\n".join(lines) + "\n}\n"
        checkpoint.write(results.FOLDER / "layer_speed.json", text)


if __name__ == "__main__":
    main(sys.argv[1:])
