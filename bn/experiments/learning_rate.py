"""What is left of the gain when each network has the learning rate that suits it?"""

from __future__ import annotations

from bn.experiments._engine import Experiment


def run(config, params, seed, data, checkpoint):
    """Train on all but the held-out training images; measure on those and on the test images."""
    import torch

    from bn import models, train

    torch.manual_seed(seed)
    model = models.BUILDERS[params["network"]](params["batch_norm"], **config["sizes"])
    kept = len(data.x_train) - config["held_out"]
    return train.train(
        model.to(memory_format=torch.channels_last),
        data._replace(x_train=data.x_train[:kept], y_train=data.y_train[:kept]),
        epochs=config["epochs"],
        batch_size=config["batch_size"],
        lr=params["lr"],
        seed=seed,
        probe=0,
        validation=(data.x_train[kept:], data.y_train[kept:]),
        checkpoint=checkpoint,
    )


EXPERIMENTS = [
    Experiment(
        name="mnist_learning_rate",
        claim="",
        source="",
        run=run,
        data="mnist",
        config={"sizes": {}, "epochs": 5, "batch_size": 64, "held_out": 10_000, "optimizer": "SGD"},
        grid=tuple(
            {"network": network, "batch_norm": batch_norm, "lr": lr}
            for network in ("mlp", "lenet")
            for lr in (0.01, 0.04, 0.16, 0.64, 2.56, 10.24)
            for batch_norm in (True, False)
        ),
        seeds=(0, 1, 2),
        minutes=20,
    )
]
