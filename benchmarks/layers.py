"""Batch norm, forward and backward, against torch.nn's on the same arrays; one thread, float32.

python -m benchmarks.layers
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import nn

import bn
from benchmarks import ratio

SHAPES = [(64, 100), (256, 1024), (64, 6, 14, 14), (64, 32, 26, 26), (64, 64, 24, 24)]
BUDGETS = {"bn.functional": 1.0, "bn.nn": 1.3, "bn.nn, compiled": 1.0}


def cases(shape):
    """Return {what: (ours, torch's)}, functions that go forward and backward once."""
    rng = np.random.default_rng(0)
    x, g = (rng.standard_normal(shape, dtype=np.float32) for _ in range(2))
    gamma, beta = np.ones(shape[1], np.float32), np.zeros(shape[1], np.float32)
    axis = (0, *range(2, len(shape)))
    name = "BatchNorm1d" if len(shape) == 2 else "BatchNorm2d"

    def functional():
        _, cache = bn.batch_norm(x, gamma, beta, axis=axis)
        bn.batch_norm_backward(g, cache)

    gradient = torch.from_numpy(g)

    def step(layer):
        image = torch.from_numpy(x).requires_grad_()
        wanted = [image, *layer.parameters()]
        return lambda: torch.autograd.grad(layer(image), wanted, gradient)

    ours, theirs = getattr(bn.nn, name)(shape[1]), getattr(nn, name)(shape[1])
    reference = step(theirs)
    return {
        "bn.functional": (functional, reference),
        "bn.nn": (step(ours), reference),
        "bn.nn, compiled": (step(torch.compile(ours, dynamic=False)), reference),
    }


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="torch")
    print(f"{'':<18}{'shape':<20}{'time against torch.nn':<26}{'budget':<8}")
    for shape in SHAPES:
        for what, (ours, theirs) in cases(shape).items():
            try:
                found = ratio(ours, theirs)
            except Exception as error:  # torch.compile needs a C++ compiler
                print(f"{what:<18}{shape!s:<20}not measured: {type(error).__name__}")
                continue
            over = "" if found.median <= BUDGETS[what] else "over"
            print(f"{what:<18}{shape!s:<20}{found!s:<26}{BUDGETS[what]:<8}{over}", flush=True)


if __name__ == "__main__":
    main()
