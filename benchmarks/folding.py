"""What folding saves: the time of inference with batch norm, folded by bn, folded by PyTorch.

python -m benchmarks.folding [--record]
"""

from __future__ import annotations

import json
import sys

from benchmarks import ratio
from bn import checkpoint, results
from bn.experiments import _engine

BATCHES, ROUNDS = (1, 64), 40


def measure() -> dict:
    """Measure two networks of the course at inference: one thread, float32."""
    import torch

    import bn
    from bn import models

    torch.set_num_threads(1)
    torch.manual_seed(0)
    nets = {}
    with torch.no_grad():
        for name in ("mlp", "convnet"):
            model = models.BUILDERS[name](True).eval()
            ours, theirs = bn.nn.fold(model), by_torch(model)
            for batch in BATCHES:
                images = torch.rand(batch, 1, 28, 28)
                torch.testing.assert_close(ours(images), model(images), rtol=1e-4, atol=1e-5)
                torch.testing.assert_close(theirs(images), model(images), rtol=1e-4, atol=1e-5)
                gain = ratio(lambda: ours(images), lambda: model(images), rounds=ROUNDS)  # noqa: B023
                rival = ratio(lambda: ours(images), lambda: theirs(images), rounds=ROUNDS)  # noqa: B023
                nets[f"{name}, batch {batch}"] = {
                    "folded_ms": round(1e3 * gain.a, 4),
                    "before_ms": round(1e3 * gain.b, 4),
                    "to_before": [round(v, 4) for v in gain[:3]],
                    "to_torch": [round(v, 4) for v in rival[:3]],
                }
    return {
        "kind": "timing",
        "schema": results.SCHEMA,
        "config": {"threads": 1, "rounds": ROUNDS, "clock": "process time"},
        "nets": nets,
        "versions": _engine.versions(),
        "hardware": _engine.hardware(),
    }


def by_torch(model):
    """Fold with PyTorch's own two functions, each batch norm into what stands before it."""
    import torch
    from torch.nn.utils import fusion

    layers = []
    for layer in model:
        if isinstance(layer, torch.nn.BatchNorm1d):
            layers[-1] = fusion.fuse_linear_bn_eval(layers[-1], layer)
        elif isinstance(layer, torch.nn.BatchNorm2d):
            layers[-1] = fusion.fuse_conv_bn_eval(layers[-1], layer)
        else:
            layers.append(layer)
    return torch.nn.Sequential(*layers).eval()


def main(arguments: list[str]) -> None:
    """Print the table; with --record, put it among the results that bn ships."""
    found = measure()
    print(f"{'':<20}{'folded':>12}{'before':>12}    {'folded / before':<22}folded / torch's")
    for name, net in found["nets"].items():
        ours, theirs = (
            "{1:.2f} [{0:.2f}, {2:.2f}]".format(*net[k]) for k in ("to_before", "to_torch")
        )
        print(
            f"{name:<20}{net['folded_ms']:>9.3f} ms{net['before_ms']:>9.3f} ms    {ours:<22}{theirs}"
        )
    if "--record" in arguments:
        checkpoint.write(results.FOLDER / "folding.json", json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
