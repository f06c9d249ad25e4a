"""How many independent values is a channel's batch worth? Measured on MNIST, not timed.

python -m benchmarks.effective_batch [--record]

The population is the training set, every image equally likely. For each channel: the variance of
its values, of an image's mean and of an image's mean square, and what many random batches give.
"""

from __future__ import annotations

import json
import sys

import numpy as np

from bn import checkpoint, data, results
from bn.experiments import _engine

SEEDS, BATCH, SMALL, BATCHES = (0, 1, 2, 3, 4), 64, 2, 2000
LAYERS = {"conv1": 1, "pool1": 3, "conv2": 4}  # how many modules of the plain LeNet before it
CHUNK = 200


def population(layer, images) -> dict[str, np.ndarray]:
    """Return what the whole set says of every channel that `layer` puts out.

    ``means`` and ``squares``, shape (images, channels): an image's mean, and its mean square
    deviation from the channel's mean; ``mean``, ``var``, ``fourth``, shape (channels,): the
    channel's mean and central moments; ``positions``: values that an image holds of a channel.
    """
    import torch

    def outputs():
        with torch.no_grad():
            for chunk in torch.as_tensor(images).split(CHUNK):
                yield layer(chunk).double().flatten(2).numpy()

    means = np.concatenate([x.mean(axis=2) for x in outputs()])
    mean = means.mean(axis=0)
    squares, fourth = [], 0.0
    for x in outputs():
        square = (x - mean[:, None]) ** 2
        squares.append(square.mean(axis=2))
        fourth = fourth + (square**2).mean(axis=2).sum(axis=0)
    squares = np.concatenate(squares)
    return {
        "means": means,
        "squares": squares,
        "mean": mean,
        "var": squares.mean(axis=0),
        "fourth": fourth / len(means),
        "positions": x.shape[2],
    }


def random_batches(found: dict, channel: int, size: int, rng) -> tuple[np.ndarray, np.ndarray]:
    """Draw batches of images, with replacement; return each one's mean and biased variance."""
    chosen = rng.integers(len(found["means"]), size=(BATCHES, size))
    mean = found["means"][chosen, channel].mean(axis=1)
    square = found["squares"][chosen, channel].mean(axis=1)
    return mean, square - (mean - found["mean"][channel]) ** 2


def describe(found: dict, seed: int) -> dict[str, list[float]]:
    """Return the population's numbers and those of the random batches, a value per channel."""
    rng = np.random.default_rng(seed)
    columns = {
        "var": found["var"],
        "var_of_image_mean": found["means"].var(axis=0),
        "fourth_moment": found["fourth"],
        "var_of_image_square": found["squares"].var(axis=0),
    }
    measured = []
    for channel in range(found["means"].shape[1]):
        mean, var = random_batches(found, channel, BATCH, rng)
        _, of_two = random_batches(found, channel, SMALL, rng)
        measured.append((mean.var(ddof=1), var.var(ddof=1), of_two.mean(), of_two.std(ddof=1)))
    names = ("var_of_batch_mean", "var_of_batch_var", "small_batch_var", "small_batch_var_sd")
    columns |= dict(zip(names, np.transpose(measured), strict=True))
    return {name: [float(f"{v:.6g}") for v in values] for name, values in columns.items()}


def measure(mnist) -> list[dict]:
    """Measure every layer of LeNets as they are drawn, and after an epoch of training."""
    import torch

    from bn import models, train

    torch.set_num_threads(1)
    rows = []

    def add(layer, name, seed, epochs):
        found = population(layer, mnist.x_train)
        rows.append({"layer": name, "seed": seed, "epochs": epochs,
                     "positions": found["positions"], **describe(found, seed)})  # fmt: skip

    add(torch.nn.Identity(), "pixels", 0, 0)
    for seed in SEEDS:
        torch.manual_seed(seed)
        model = models.lenet(batch_norm=False)
        for epochs in (0, 1):
            if epochs:
                list(train.train(model, mnist, epochs=1, lr=0.03, seed=seed, probe=0))
            model.eval()
            for name, depth in LAYERS.items():
                add(model[:depth], name, seed, epochs)
    return rows


def main(arguments: list[str]) -> None:
    """Print the table; with --record, put it among the results that bn ships."""
    mnist = data.mnist()
    rows = measure(mnist)
    print("layer   epochs seed   effective values per image, by channel")
    for row in rows:
        worth = np.array(row["var"]) / row["var_of_image_mean"]
        print(
            f"{row['layer']:8}{row['epochs']:4}{row['seed']:5}   of {row['positions']}: {worth.round(1)}"
        )
    if "--record" in arguments:
        head = {
            "kind": "statistics",
            "schema": results.SCHEMA,
            "config": {"network": "lenet", "batch": BATCH, "small": SMALL, "batches": BATCHES},
            "data": {"name": "mnist", "sha256": data.digest(mnist)},
            "versions": _engine.versions(),
        }
        lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
        table = ",\n  ".join(json.dumps(row, separators=(",", ":")) for row in rows)
        text = "{\n" + ",\n".join([*lines, f' "rows": [\n  {table}\n ]']) + "\n}\n"
        checkpoint.write(results.FOLDER / "effective_batch.json", text)


if __name__ == "__main__":
    main(sys.argv[1:])
