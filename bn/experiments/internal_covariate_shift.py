"""Internal covariate shift on MNIST, by both definitions, in the network that first showed it.

The first experiment is figure 1 of Ioffe & Szegedy (2015): what goes into a sigmoid, and the
accuracy, over 50,000 steps. The second follows the first 10,000 steps of the same runs, and
measures at each layer how a step of the layers before it changes the gradient; and those of runs
at a second learning rate.
"""

from __future__ import annotations

import numpy as np

from bn.experiments._engine import Experiment, Verdict
from bn.results import curves, interval, paired

EARLY = 1000  # steps: one pass over the training images
RATES = (0.1, 0.5)
ARMS = ({"batch_norm": True}, {"batch_norm": False})


def run_distributions(config, params, seed, data, checkpoint):
    """Train, and stop at each mark to look at what goes into the sigmoids."""
    import torch

    from bn import shift, train

    torch.manual_seed(seed)
    data = shift.binary(data, config["threshold"])
    model = shift.network(params["batch_norm"], std=config["std"], **config["sizes"])
    probe = data.x_test[: config["probe"]]
    marks, seen = config["marks"][: config["epochs"]], []

    def short(values):
        return [float(f"{v:.4g}") for v in np.ravel(values)]

    def histogram(values):
        edges = np.quantile(values, (0.001, 0.999))
        counts = np.histogram(values, config["bins"], edges)[0]
        return {"edges": short(edges), "counts": counts.tolist()}

    training = train.steps(
        model, data, batch_size=config["batch_size"], lr=config["lr"], seed=seed, stops=marks
    )
    for step, _, _ in training:
        layers = list(shift.inputs(model, probe).values())
        seen.append([np.percentile(z, shift.PERCENTILES, axis=0).T for z in layers])
        units = [np.stack(layer) for layer in zip(*seen, strict=True)]  # (marks, units, 3)
        loss, accuracy = train.evaluate(model, data.x_test, data.y_test)
        row = {
            "epoch": len(seen),
            "step": step,
            "test_loss": loss,
            "test_accuracy": accuracy,
            # of all units of a layer together, layer by layer; then of the unit that is watched
            "percentiles": [short(np.percentile(z, shift.PERCENTILES)) for z in layers],
            "unit": short(seen[-1][-1][config["unit"]]),
            # of each unit by itself, up to here: the median over the units of a layer
            "travel": short([np.median(shift.travel(p)) for p in units]),
            "stretch": short([np.median(shift.stretch(p)) for p in units]),
        }
        if seed in config["drawn"]:
            row["histograms"] = [histogram(z) for z in [*layers, layers[-1][:, config["unit"]]]]
        yield row


def run_gradients(config, params, seed, data, checkpoint):
    """Train, and at each mark measure every layer's shift on the batch of the next step."""
    import torch

    from bn import shift, train

    torch.manual_seed(seed)
    data = shift.binary(data, config["threshold"])
    model = shift.network(params["batch_norm"], std=config["std"], **config["sizes"])
    training = train.steps(
        model, data, batch_size=config["batch_size"], lr=params["lr"], seed=seed,
        stops=config["marks"][: config["epochs"]],
    )  # fmt: skip
    for epoch, (step, images, labels) in enumerate(training, 1):
        found = shift.internal_covariate_shift(model, images, labels, params["lr"]).values()
        yield {
            "epoch": epoch,
            "step": step,
            "test_accuracy": train.evaluate(model, data.x_test, data.y_test)[1],
            **{
                name: [float(f"{layer[name]:.7g}") for layer in found]
                for name in ("norm", "relative", "cosine")
            },
        }


def verdict_distributions(record):
    """Apply the criterion of figure 1."""
    marks = record["config"]["marks"]
    early, late = paired(record, epoch=marks.index(EARLY)), paired(record)
    moved = [
        interval(
            curves(record, name, batch_norm=True)[:, -1, -1]
            - curves(record, name, batch_norm=False)[:, -1, -1]
        )
        for name in ("travel", "stretch")
    ]
    with_, without = (
        [curves(record, name, batch_norm=b)[:, -1, -1].mean() for name in ("travel", "stretch")]
        for b in (True, False)
    )
    return Verdict.of(
        [early.low > 0, late.low > 0, *(m.high < 0 for m in moved)],
        f"the test accuracy differs by {early.points()} after {EARLY:,} steps and {late.points()} "
        f"after {marks[-1]:,}; the median of an input to the last sigmoids travels {with_[0]:.1f} of its "
        f"final spreads with batch norm and {without[0]:.1f} without, and the spread changes by "
        f"{with_[1]:.1f} and {without[1]:.1f} doublings ({len(late.differences)} seeds)",
    )


def typical(record, metric, **params):
    """Return the median of a measure of shift over steps and layers, for every seed.

    Parameters
    ----------
    record : dict
        Of the experiment ``mnist_gradient_shift``.
    metric : str
        ``"norm"``, ``"relative"`` or ``"cosine"``.
    **params
        The units wanted: ``batch_norm`` and ``lr``.

    Returns
    -------
    ndarray of float64, shape (seeds,)
        Without the first layer, which has no layer before it.
    """
    return np.median(curves(record, metric, **params)[:, :, 1:], axis=(1, 2))


def difference(record, metric, lr):
    """Compare :func:`typical` with and without batch norm at one learning rate, seed by seed."""
    with_, without = (typical(record, metric, batch_norm=b, lr=lr) for b in (True, False))
    return interval(with_ - without)


def verdict_gradients(record):
    """Apply the criterion of definition 2.1."""
    tests, said = [], []
    for lr in RATES:
        norm, relative, cosine = (
            difference(record, metric, lr) for metric in ("norm", "relative", "cosine")
        )
        tests += [norm.low > 0, relative.low > 0, cosine.high < 0]
        said.append(
            f"at the learning rate {lr:g} the medians over steps and layers differ by "
            f"{norm.mean:+.2g} [{norm.low:+.2g}, {norm.high:+.2g}] (norm), "
            f"{relative.mean:+.2g} [{relative.low:+.2g}, {relative.high:+.2g}] (relative) and "
            f"{cosine.mean:+.2g} [{cosine.low:+.2g}, {cosine.high:+.2g}] (cosine)"
        )
    return Verdict.of(tests, f"{'; '.join(said)}; {len(record['seeds'])} seeds")


def _marks(last):
    """Eight steps in each power of ten up to 1,000, then every 1,000, from 10,000 every 2,500."""
    powers = {round(10 ** (k / 8)) for k in range(25)}
    return sorted({0, *powers, *range(1000, 10_000, 1000), *range(10_000, last + 1, 2500)})


def _declare(name, run, verdict, claim, source, criterion, grid, marks, core_minutes, **config):
    return Experiment(
        name=name,
        claim=claim,
        source=source,
        chapter="why/internal_covariate_shift",
        run=run,
        data="mnist",
        config={
            "sizes": {},
            "std": 0.1,
            "threshold": 0.5,
            "batch_size": 60,
            "optimizer": "SGD",
            "epochs": len(marks),
            "marks": marks,
            **config,
        },
        grid=grid,
        verdict=verdict,
        criterion=criterion,
        core_minutes=core_minutes,
        code=("models.py", "shift.py", "train.py"),
        quick={"epochs": 21},
    )


# What the paper does not say is chosen here: the learning rate, the standard deviation of the
# weights, the threshold, which images and which unit are looked at. Rate and deviation are such
# that the plain network leaves its plateau within the first pass over the data; tried with seed
# 100. There a rate of 0.5 suited the plain network better than 0.1: the second experiment has both.
EXPERIMENTS = [
    _declare(
        "mnist_distribution_shift",
        run_distributions,
        verdict_distributions,
        "With batch norm the network trains faster and reaches a higher test accuracy, and the "
        "distribution of a sigmoid's input is more stable over the course of training.",
        "Ioffe & Szegedy (2015), section 4.1 and figure 1",
        f"With batch norm the test accuracy is higher after {EARLY:,} steps and at the end; and "
        "over the training the median of an input to a sigmoid of the last hidden layer travels "
        "less far, in units of its final distance from the 15th to the 85th percentile, and that "
        "distance changes by fewer doublings (medians over the units): each time the 95 % "
        "interval of the paired difference excludes zero.",
        ARMS,
        _marks(50_000),
        9,
        lr=0.1,
        probe=1000,
        unit=0,
        bins=32,
        drawn=[0],
    ),
    _declare(
        "mnist_gradient_shift",
        run_gradients,
        verdict_gradients,
        "By the change of a layer's gradient when the layers before it take their step, internal "
        "covariate shift is no smaller with batch norm.",
        "Santurkar et al. (2018), section 2.2 and definition 2.1",
        "With batch norm the median over steps and layers of the change is larger, in itself and "
        "relative to the gradient, and that of the cosine between the gradients before and after "
        "is smaller, at both learning rates: each time the 95 % interval of the paired difference "
        "excludes zero.",
        tuple({**arm, "lr": lr} for lr in RATES for arm in ARMS),
        _marks(10_000),
        4,
    ),
]
