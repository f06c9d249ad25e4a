"""Batch normalization: the transform, its gradient, its experiments.

``import bn`` loads NumPy and the transform, nothing else. The rest (``bn.nn`` needs PyTorch,
``bn.widgets`` needs anywidget) is loaded when it is first named.
"""

from __future__ import annotations

import importlib

from .functional import (
    batch_norm,
    batch_norm_backward,
    batch_norm_inference,
    merge_moments,
    moments,
    standardize,
    update_running,
)

__version__ = "0.1.0"

_MODULES = (
    "batched", "batchnoise", "chain", "cli", "conventions", "data", "environment", "exercises",
    "experiments", "fast", "functional", "ghost", "landscape", "layers", "models", "nn", "noisy",
    "plots", "results", "shift", "train", "widgets",
)  # fmt: skip

__all__ = [
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_inference",
    "check",
    "merge_moments",
    "moments",
    "standardize",
    "update_running",
]


def __getattr__(name: str):
    if name == "check":
        return importlib.import_module("bn.exercises").check
    if name in _MODULES:
        return importlib.import_module(f"bn.{name}")
    raise AttributeError(f"module 'bn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
