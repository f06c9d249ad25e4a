"""Does batch normalization help on MNIST? Three networks, paired by seed."""

from __future__ import annotations

from bn.experiments._engine import Experiment


def run(config, params, seed, data, checkpoint):
    """Train one network with one seed; with and without batch norm start from the same weights."""
    import torch

    from bn import models, train

    torch.manual_seed(seed)
    model = models.BUILDERS[config["network"]](params["batch_norm"], **config["sizes"])
    return train.train(
        model.to(memory_format=torch.channels_last),  # the faster layout on a CPU
        data,
        epochs=config["epochs"],
        batch_size=config["batch_size"],
        lr=config["lr"],
        seed=seed,
        checkpoint=checkpoint,
    )


def _declare(name, network, lr, minutes, source, dataset="mnist", epochs=10, **sizes):
    return Experiment(
        name=name,
        claim="",
        source=source,
        run=run,
        data=dataset,
        config={
            "network": network,
            "sizes": sizes,
            "epochs": epochs,
            "batch_size": 64,
            "lr": lr,
            "optimizer": "SGD",
        },
        grid=({"batch_norm": True}, {"batch_norm": False}),
        minutes=minutes,
    )


EXPERIMENTS = [
    _declare("digits_mlp", "mlp", 0.1, 0.3, "", "digits", in_features=64),
    _declare("mnist_mlp", "mlp", 0.1, 2, ""),
    _declare("mnist_lenet", "lenet", 0.03, 10, ""),
    _declare("mnist_convnet", "convnet", 0.03, 80, ""),
]
