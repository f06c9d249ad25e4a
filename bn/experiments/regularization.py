"""Are batch statistics a noise, and does the noise regularise?

Small training sets, so that there is something to overfit: 2,048 images, drawn anew for each seed. All
arms of a seed have the same images, the same first weights, the same batches and, where there is dropout,
the same masks. The step's batch has 256 images throughout. What varies is whose statistics normalise it.
"""

from __future__ import annotations

from bn.experiments._engine import Experiment, Verdict
from bn.results import final, interval, paired

GHOSTS = (2, 4, 8, 16, 32, 64, 128, 256)
RATES = (0.2, 0.5)
SIZES = (2, 4, 8, 16, 32, 64, 128, 256, 512)


def run_noise(config, params, seed, data, checkpoint):
    """Train one network, then draw batches from what goes into its norms."""
    import numpy as np
    import torch

    from bn import batchnoise, ghost

    n, rng = config["images"], np.random.default_rng((seed, 0, 1))
    chosen = rng.choice(len(data.x_train), n, replace=False)
    x, y = torch.from_numpy(data.x_train[chosen]), torch.from_numpy(data.y_train[chosen])
    torch.manual_seed(seed)
    model = ghost.network(torch.nn.BatchNorm1d, in_features=x[0].numel())
    how = {"batch_size": config["batch_size"], "lr": config["lr"], "seed": seed}
    ghost.fit(model, x, y, passes=config["passes"], **how)

    row = {"epoch": 1, "sizes": config["sizes"], "layers": []}
    inputs = ghost.inputs(model, x)
    for name in ("norm1", "norm2", "norm3"):
        values = inputs[name].numpy()
        shape = batchnoise.shape(values)
        values = (values - values.mean(0)) / np.sqrt(shape.var)
        layer = {
            "name": name,
            "skewness": shape.skewness.tolist(),
            "kurtosis": shape.kurtosis.tolist(),
        }
        for what in ("mean", "deviation", "moved"):
            layer[what], layer[f"{what}_predicted"] = [], []
        for m in config["sizes"]:
            means, deviations, moved = [], [], []
            for _ in range(config["draws"]):
                batch = values[rng.choice(n, m, replace=False)]
                means.append(batch.mean(0))
                deviations.append(batch.std(0))
                x_hat = (batch - means[-1]) / np.maximum(deviations[-1], 1e-9)
                moved.append(((x_hat - batch) ** 2).mean(0))
            measured = np.var(means, 0), np.var(deviations, 0), np.mean(moved, 0)
            predicted = (
                np.full(values.shape[1], batchnoise.mean_variance(1.0, m, n)),
                batchnoise.deviation_variance(1.0, shape.kurtosis, m, n),
                batchnoise.normalized_variance(1.0, 0.0, shape.kurtosis, m, n),
            )
            for what, got, want in zip(
                ("mean", "deviation", "moved"), measured, predicted, strict=True
            ):
                layer[what].append(float(f"{got.mean():.5g}"))
                layer[f"{what}_predicted"].append(float(f"{want.mean():.5g}"))
        for what in ("skewness", "kurtosis"):
            layer[what] = [float(f"{v:.5g}") for v in layer[what]]
        row["layers"].append(layer)
    yield row


def noise_verdict(record):
    """Apply the criterion."""
    tests, reasons = [], []
    for what, least in (("mean", 2), ("deviation", 32)):
        off = {m: _ratio(record, what, m) for m in record["config"]["sizes"] if m >= least}
        tests.append(all(gap.low > 0.95 and gap.high < 1.05 for gap in off.values()))
        m, gap = max(off.items(), key=lambda item: abs(item[1].mean - 1))
        reasons.append(
            f"the variance of the batch {what}, over what is predicted, is furthest from 1 at {m} "
            f"examples: {gap.mean:.3f} [{gap.low:.3f}, {gap.high:.3f}]"
        )
    return Verdict.of(tests, "; ".join(reasons) + f"; {len(record['seeds'])} seeds")


def _ratio(record, what, m):
    """Measured over predicted, by seed, averaged over the layers."""
    at = record["config"]["sizes"].index(m)
    return interval(
        [
            sum(layer[what][at] / layer[f"{what}_predicted"][at] for layer in layers) / len(layers)
            for layers in (unit["epochs"][-1]["layers"] for unit in record["units"])
        ]
    )


def run_training(config, params, seed, data, checkpoint):
    """Train one network on a small set, normalised by the statistics that `params` name."""
    import functools

    import numpy as np
    import torch

    from bn import ghost

    n = config["images"]
    chosen = np.random.default_rng((seed, 0, 1)).choice(len(data.x_train), 2 * n, replace=False)
    x, y = torch.from_numpy(data.x_train[chosen]), torch.from_numpy(data.y_train[chosen])
    sets = {
        "train": (x[:n], y[:n]),
        "validation": (x[n:], y[n:]),
        "test": (torch.from_numpy(data.x_test), torch.from_numpy(data.y_test)),
    }
    norm, reference = params["norm"], None
    if isinstance(norm, int):
        layer = functools.partial(ghost.GhostBatchNorm1d, ghost=norm)
    elif norm == "none":
        layer = None
    else:
        reference = x[:n]
        layer = functools.partial(
            ghost.ReferenceBatchNorm1d, reference=n, gradient=norm == "whole set"
        )
    dropout = {key: params[key] for key in ("dropout", "place") if key in params}
    torch.manual_seed(seed)
    model = ghost.network(layer, in_features=x[0].numel(), **dropout)

    for row in range(config["epochs"]):
        ghost.fit(
            model, x[:n], y[:n], passes=config["passes"], start=row * config["passes"],
            batch_size=config["batch_size"], lr=params.get("lr", config.get("lr")), seed=seed,
            reference=reference,
        )  # fmt: skip
        found = {"epoch": row + 1, **ghost.evaluate(model, x[:n], sets)}
        if params.get("dropout") and norm != "none" and row + 1 == config["epochs"]:
            found["shift"] = {
                name: {key: sum(values) / len(values) for key, values in one.items()}
                for name, one in ghost.variance_shift(model, x[:n]).items()
            }
        yield {
            key: float(f"{value:.6g}") if isinstance(value, float) else value
            for key, value in found.items()
        }


def best_rate(record, norm):
    """Return the rate with the highest mean accuracy on the held-out images.

    Parameters
    ----------
    record : dict
        Of ``ghost_batches``.
    norm : int or str
        The arm: the size of a ghost batch, or ``"none"``.

    Returns
    -------
    float
    """
    return max(RATES, key=lambda lr: final(record, "validation_accuracy", norm=norm, lr=lr).mean())


def best_ghost(record):
    """Return the size below 256 with the highest mean accuracy on the held-out images.

    Parameters
    ----------
    record : dict
        Of ``ghost_batches``.

    Returns
    -------
    int
    """

    def held_out(norm):
        lr = best_rate(record, norm)
        return final(record, "validation_accuracy", norm=norm, lr=lr).mean()

    return max(GHOSTS[:-1], key=held_out)


def ghost_verdict(record):
    """Apply the criterion."""
    small = best_ghost(record)
    arm = {norm: {"norm": norm, "lr": best_rate(record, norm)} for norm in (small, 256, "none")}
    better = paired(record, "test_accuracy", a=arm[small], b=arm[256])
    looser = paired(record, "train_loss", a=arm[small], b=arm[256])
    gain = paired(record, "test_accuracy", a=arm[256], b=arm["none"])
    return Verdict.of(
        [better.low > 0, looser.low > 0, gain.low > 0],
        f"statistics of {small} examples instead of 256 change the test accuracy by {better.points()} "
        f"and the training loss by {looser.mean:+.5f} [{looser.low:+.5f}, {looser.high:+.5f}]; "
        f"those of 256 instead of no batch norm change the test accuracy by {gain.points()}; "
        f"{len(record['seeds'])} seeds",
    )


def switched_off_verdict(record):
    """Apply the criterion."""
    still = {"norm": "whole set"}
    noise = {m: paired(record, "test_accuracy", a={"norm": m}, b=still) for m in (16, 256)}
    rest = paired(record, "test_accuracy", a=still, b={"norm": "none"})
    return Verdict.of(
        [gap.low > 0 for gap in noise.values()],
        f"compared with statistics of the whole training set, those of 16 examples change the test "
        f"accuracy by {noise[16].points()} and those of 256 by {noise[256].points()}; without noise, "
        f"the gain over no batch norm is {rest.points()}; {len(record['seeds'])} seeds",
    )


def interaction(record, p, metric="test_accuracy"):
    """What dropout changes with batch norm, minus what it changes without.

    Parameters
    ----------
    record : dict
        Of ``dropout_batch_norm``.
    p : float
        Probability of dropping, after each ReLU.
    metric : str
        What to compare.

    Returns
    -------
    bn.results.Paired
    """

    def change(norm):
        quiet, dropped = (
            final(record, metric, norm=norm, dropout=d, place="after") for d in (0.0, p)
        )
        return dropped - quiet

    return interval(change(256) - change("none"))


def dropout_verdict(record):
    """Apply the criterion."""
    before = {"norm": 256, "dropout": 0.5, "place": "before"}
    shift = [unit["epochs"][-1]["shift"] for unit in record["units"] if unit["params"] == before]
    ratios = [interval([one["norm1"][kind] for one in shift]) for kind in ("stored", "predicted")]
    off = interval([one["norm1"]["stored"] / one["norm1"]["predicted"] for one in shift])
    repaired = interval(
        final(record, "test_accuracy", **before) - final(record, "test_accuracy_stored", **before)
    )
    joint = interaction(record, 0.5, "test_accuracy_stored")
    return Verdict.of(
        [off.low > 0.95 and off.high < 1.05, repaired.low > 0, joint.high < 0],
        f"directly behind dropout of one half the stored variance is {ratios[0].mean:.3f} times that "
        f"at evaluation, predicted {ratios[1].mean:.3f}; recomputed statistics change the test accuracy "
        f"by {repaired.points()}; together the two change it by {joint.points()} more than the sum of "
        f"each; {len(record['seeds'])} seeds",
    )


COMMON = {"images": 2048, "batch_size": 256, "optimizer": "SGD"}
TRAINING = {**COMMON, "epochs": 4, "passes": 10}
QUICK = {"epochs": 1, "passes": 1, "images": 512}
CODE = ("batchnoise.py", "ghost.py", "models.py", "train.py")
SEEDS = tuple(range(10))

EXPERIMENTS = [
    Experiment(
        name="batch_noise",
        claim="The mean of a batch of M examples varies with variance σ²/M, its standard deviation with "
        "variance σ²(ρ + 2)/(4M) to leading order, where ρ is the excess kurtosis.",
        source="Luo et al. (2019), https://arxiv.org/abs/1809.00846",
        chapter="evidence/regularization",
        run=run_noise,
        data="mnist",
        config={**COMMON, "epochs": 1, "passes": 40, "lr": 0.5, "sizes": list(SIZES), "draws": 400},
        grid=({},),
        verdict=noise_verdict,
        criterion="On what goes into the norms of a trained network, batches drawn without replacement: "
        "measured over predicted, averaged over units and layers, has a 95 % interval within 0.95 to "
        "1.05, for the mean at every size from 2, for the deviation at every size from 32.",
        seeds=SEEDS,
        core_minutes=0.3,
        code=CODE,
        quick={"passes": 1, "images": 1024, "draws": 10},
    ),
    Experiment(
        name="ghost_batches",
        claim="Batch norm regularises, and by its noise: statistics of smaller batches fit the training "
        "set less closely and generalise better.",
        source="Ioffe & Szegedy (2015), section 3.4, https://arxiv.org/abs/1502.03167, and Hoffer et al. "
        "(2017), https://arxiv.org/abs/1705.08741",
        chapter="evidence/regularization",
        run=run_training,
        data="mnist",
        config=TRAINING,
        grid=tuple({"norm": norm, "lr": lr} for norm in ("none", *GHOSTS) for lr in RATES),
        verdict=ghost_verdict,
        criterion="Each arm at the rate that held-out images choose; the ghost batch chosen by them too. "
        "It has a higher test accuracy and a higher training loss than statistics of all 256 examples "
        "of the batch, and these have a higher test accuracy than no batch norm: each time the 95 % "
        "interval of the paired difference excludes zero.",
        seeds=SEEDS,
        core_minutes=4,
        code=CODE,
        quick=QUICK,
    ),
    Experiment(
        name="noise_switched_off",
        claim="What batch norm gains in test accuracy is, at least in part, the noise of its statistics.",
        source="Shekhovtsov & Flach (2018), https://arxiv.org/abs/1811.00639, and Kosson, Fan & Jaggi "
        "(2023), https://openreview.net/forum?id=kuAQRCHQNX",
        chapter="evidence/regularization",
        run=run_training,
        data="mnist",
        config={**TRAINING, "lr": 0.5},
        grid=tuple({"norm": norm} for norm in ("none", 16, 256, "whole set", "constants")),
        verdict=switched_off_verdict,
        criterion="Statistics of 16 and of 256 examples each give a higher test accuracy than those of "
        "the whole training set, which have no noise: the 95 % interval of the paired difference "
        "excludes zero.",
        seeds=SEEDS,
        core_minutes=3,
        code=CODE,
        quick=QUICK,
    ),
    Experiment(
        name="dropout_batch_norm",
        claim="Dropout before batch norm makes the variance in training another than at evaluation, "
        "which costs accuracy; the two together do worse than their separate effects promise.",
        source="Li et al. (2019), https://arxiv.org/abs/1801.05134",
        chapter="evidence/regularization",
        run=run_training,
        data="mnist",
        config={**TRAINING, "lr": 0.5},
        grid=tuple(
            {"norm": norm, "dropout": p, "place": place}
            for norm, p, place in (
                ("none", 0.0, "after"),
                ("none", 0.2, "after"),
                ("none", 0.5, "after"),
                (256, 0.0, "after"),
                (256, 0.2, "after"),
                (256, 0.5, "after"),
                (256, 0.5, "before"),
                (256, 0.5, "last"),
            )
        ),
        verdict=dropout_verdict,
        criterion="Dropout of one half directly before each norm: the variance that the first norm stores, "
        "over that at evaluation, is what the formula says within 5 %; recomputed statistics raise the "
        "test accuracy. Dropout of one half after each ReLU, with the statistics stored: what it changes "
        "with batch norm is less than what it changes without. Each by the 95 % interval.",
        seeds=SEEDS,
        core_minutes=2,
        code=CODE,
        quick=QUICK,
    ),
]
