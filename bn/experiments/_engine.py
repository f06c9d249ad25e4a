"""Runs a declared experiment: units in parallel, resumable, one record at the end."""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from bn import checkpoint, data

SCHEMA = 1
# glibc hands large arrays back to the kernel at once, and page faults then take a quarter of a
# convolution's time. Kept in the process instead; the numbers do not change.
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 32),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 33),
    "MALLOC_TOP_PAD_": str(1 << 28),
}


@dataclass(frozen=True)
class Experiment:
    name: str
    claim: str
    source: str
    run: Callable
    data: str
    config: dict
    grid: tuple
    seeds: tuple = (0, 1, 2, 3, 4)
    minutes: float = 1.0


def code_hash(experiment) -> str:
    """Hash what determines the numbers: models, training loop, the experiment's function."""
    from bn import models, train

    text = "\n".join(_code(part) for part in (models, train, experiment.run))
    return hashlib.sha256(text.encode()).hexdigest()


def _code(part) -> str:
    """Return the source without comments, docstrings and layout."""
    tree = ast.parse(inspect.getsource(part))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def unit_name(params, seed):
    return ",".join(f"{k}={json.dumps(v)}" for k, v in {**params, "seed": seed}.items()).replace('"', "")


def run_unit(experiment, config, params, seed, folder):
    import torch

    torch.set_num_threads(1)
    path = Path(folder) / f"{unit_name(params, seed)}.json"
    if path.exists():
        unit = json.loads(path.read_text())
        if len(unit["epochs"]) >= config["epochs"]:
            return unit
        before = unit["seconds"]
    else:
        before = 0.0
    start, rows = time.perf_counter(), []
    rows = []
    dataset = getattr(data, experiment.data)()
    for row in experiment.run(config, params, seed, dataset, path.with_suffix(".pt")):
        rows.append(row)
        unit = {"params": params, "seed": seed, "epochs": rows,
                "seconds": round(before + time.perf_counter() - start, 2)}
        checkpoint.write(path, json.dumps(unit))
    path.with_suffix(".pt").unlink(missing_ok=True)
    return unit
