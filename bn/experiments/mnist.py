"""Does batch normalization help? Three networks on MNIST, paired by seed.

Both arms of a pair start from the same weights, see the same batches, lose the same features to
dropout and share one learning rate. What is left when each may have a rate of its own is the
question of :mod:`bn.experiments.learning_rate`.
"""

from __future__ import annotations

from bn.experiments._engine import Experiment, Verdict
from bn.results import final, paired


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


def verdict(record):
    """Apply the criterion."""
    early, late = paired(record, "train_loss", epoch=0), paired(record, "test_accuracy")
    with_, without = (final(record, "test_accuracy", batch_norm=b).mean() for b in (True, False))
    return Verdict.of(
        [early.high < 0, late.low > 0],
        f"after one epoch the training loss differs by {early.mean:+.3f} "
        f"[{early.low:+.3f}, {early.high:+.3f}]; after {record['config']['epochs']} the test "
        f"accuracy is {with_:.2%} against {without:.2%}, a difference of {late.points()} "
        f"over {len(late.differences)} seeds",
    )


NETWORKS = {"mlp": "a sigmoid network", "lenet": "a LeNet", "convnet": "a ConvNet"}


def _declare(name, network, lr, core_minutes, *, data="mnist", epochs=10, seeds=5, **sizes):
    return Experiment(
        name=name,
        claim=f"With batch norm {NETWORKS[network]} trains faster, and reaches a higher test accuracy "
        f"({'MNIST' if data == 'mnist' else '8×8 digits'}, {epochs} epochs).",
        source="Ioffe & Szegedy (2015), section 4.1",
        chapter="evidence/mnist",
        run=run,
        data=data,
        config={
            "network": network,
            "sizes": sizes,
            "epochs": epochs,
            "batch_size": 64,
            "lr": lr,
            "optimizer": "SGD",
        },
        grid=({"batch_norm": True}, {"batch_norm": False}),
        verdict=verdict,
        criterion="With batch norm the training loss is lower after the first epoch, and the test "
        "accuracy higher after the last: each time the 95 % interval of the paired difference "
        "excludes zero.",
        seeds=tuple(range(seeds)),
        core_minutes=core_minutes,
    )


# The rates: of .01, .03 and .1 the largest at which, with seed 0, both arms of a convolutional
# network improve from each of the first epochs to the next or nearly so; at .1 the LeNet's loss
# jumps up in both. The sigmoid network needs the .1 to leave its plateau within the ten epochs.
EXPERIMENTS = [
    _declare("digits_mlp", "mlp", 0.1, 0.3, data="digits", epochs=30, in_features=64),
    _declare("mnist_mlp", "mlp", 0.1, 3.5, seeds=10),
    _declare("mnist_lenet", "lenet", 0.03, 12),
    _declare("mnist_convnet", "convnet", 0.03, 28, epochs=2),
]
