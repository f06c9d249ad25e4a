"""Interactive figures that live with a kernel and without one.

Needs anywidget (``pip install "bn[book]"``). Every name is loaded when it is first used.
"""

from __future__ import annotations

import importlib

_WHERE = {
    "Axes": "axes",
    "Batch": "batch",
    "BatchNoise": "batchnoise",
    "Chain": "chain",
    "Conventions": "conventions",
    "Landscape": "landscape",
    "Noisy": "noisy",
    "Predictions": "predictions",
    "Projection": "projection",
    "Quiz": "quiz",
    "RateMap": "ratemap",
    "Replay": "replay",
    "Roofline": "roofline",
    "Running": "running",
    "Scale": "scale",
    "Shift": "shift",
}

__all__ = ["Widget", *_WHERE]


def __getattr__(name: str):
    if name == "Widget":
        return importlib.import_module("bn.widgets._base").Widget
    if name in _WHERE:
        return getattr(importlib.import_module(f"bn.widgets.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'bn.widgets' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
