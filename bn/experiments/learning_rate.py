"""What is left of the gain when each network has the learning rate that suits it?

The rate is chosen on training images that were held out, so that the test images judge once.
"""

from __future__ import annotations

from bn.experiments._engine import Experiment, Verdict
from bn.results import final, paired


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


def best_rate(record, network, batch_norm):
    """Return the rate with the highest mean accuracy on the held-out images after the last epoch.

    Parameters
    ----------
    record : dict
        Of this experiment.
    network : str
        ``"mlp"`` or ``"lenet"``.
    batch_norm : bool
        Which arm.

    Returns
    -------
    float
        One of the rates of the grid.
    """
    arm = {"network": network, "batch_norm": batch_norm}
    rates = [
        unit["params"]["lr"]
        for unit in record["units"]
        if arm.items() <= unit["params"].items() and unit["seed"] == record["seeds"][0]
    ]
    return max(rates, key=lambda lr: final(record, "validation_accuracy", lr=lr, **arm).mean())


def verdict(record):
    """Apply the criterion."""
    tests, reasons = [], []
    for network in ("mlp", "lenet"):
        arms = [
            {"network": network, "batch_norm": b, "lr": best_rate(record, network, b)}
            for b in (True, False)
        ]
        gap = paired(record, "test_accuracy", a=arms[0], b=arms[1])
        tests.append(gap.low > 0)
        reasons.append(
            f"{network}: rate {arms[0]['lr']:g} with and {arms[1]['lr']:g} without, "
            f"test accuracy {final(record, 'test_accuracy', **arms[0]).mean():.2%} against "
            f"{final(record, 'test_accuracy', **arms[1]).mean():.2%}, a difference of "
            f"{gap.mean:+.2%} [{gap.low:+.2%}, {gap.high:+.2%}]"
        )
    return Verdict.of(tests, "; ".join(reasons) + f"; {len(record['seeds'])} seeds")


EXPERIMENTS = [
    Experiment(
        name="mnist_learning_rate",
        claim="The gain remains when each network is trained at the learning rate that suits it "
        "best.",
        source="the question that Bjorck et al. (2018) raise: how much of it is the larger rate?",
        chapter="evidence/mnist",
        run=run,
        data="mnist",
        config={"sizes": {}, "epochs": 5, "batch_size": 64, "held_out": 10_000, "optimizer": "SGD"},
        grid=tuple(
            {"network": network, "batch_norm": batch_norm, "lr": lr}
            for network in ("mlp", "lenet")
            for lr in (0.01, 0.04, 0.16, 0.64, 2.56, 10.24)
            for batch_norm in (True, False)
        ),
        verdict=verdict,
        criterion="For each network, with the rate of each arm chosen on held-out training images, "
        "the 95 % interval of the paired difference in test accuracy excludes zero.",
        seeds=(0, 1, 2),
        core_minutes=22,
    )
]
