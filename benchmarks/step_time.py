"""What batch norm costs: the time of a training step with and without it.

python -m benchmarks.step_time [--record]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

from benchmarks import ratio
from bn import checkpoint, results
from bn.experiments import _engine

BATCH, ROUNDS = 64, 40


def measure() -> dict:
    """Measure the three networks as the experiments train them: one thread, channels last."""
    import torch
    from torch.nn import functional as F

    from bn import models

    torch.set_num_threads(1)
    torch.manual_seed(0)
    images, labels = torch.rand(BATCH, 1, 28, 28), torch.randint(10, (BATCH,))

    def step(name, batch_norm):
        torch.manual_seed(0)
        model = models.BUILDERS[name](batch_norm).to(memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

        def one():
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()

        return one

    nets = {}
    for name in models.BUILDERS:
        found = ratio(step(name, True), step(name, False), rounds=ROUNDS, seconds=0.15)
        nets[name] = {
            "with_ms": round(1e3 * found.a, 4),
            "without_ms": round(1e3 * found.b, 4),
            "ratio": round(found.median, 4),
            "quartiles": [round(found.low, 4), round(found.high, 4)],
        }
    return {
        "kind": "timing",
        "schema": results.SCHEMA,
        "config": {"batch_size": BATCH, "threads": 1, "rounds": ROUNDS, "clock": "process time"},
        "nets": nets,
        "versions": _engine.versions(),
        "hardware": _engine.hardware(),
    }


def main(arguments: list[str]) -> None:
    """Print the table; with --record, put it among the results that bn ships."""
    if "--measure" in arguments:
        print(json.dumps(measure()))
        return
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.step_time", "--measure"],
        env=_engine.ALLOCATOR | os.environ, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    print(f"{'':<10}{'with':>12}{'without':>12}    with / without")
    for name, net in found["nets"].items():
        low, high = net["quartiles"]
        print(f"{name:<10}{net['with_ms']:>9.2f} ms{net['without_ms']:>9.2f} ms"
              f"    {net['ratio']:.2f} [{low:.2f}, {high:.2f}]")  # fmt: skip
    if "--record" in arguments:
        checkpoint.write(results.FOLDER / "step_time.json", json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
