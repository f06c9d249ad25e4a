"""How large may the learning rate be, and what is left of the gain when each has its own?

`mnist_learning_rate` trains the networks of :mod:`bn.models`. The others train stacks of a small
MLP (:mod:`bn.batched`) on MNIST's images at half their size, so that a whole grid of rates and
scales is one unit. Rates are chosen on training images that were held out, so that the test images
judge once.
"""

from __future__ import annotations

import math

import numpy as np

from bn.experiments._engine import Experiment, Verdict
from bn.results import final, interval, paired

CODE = ("batched.py", "experiments/_rates.py", "models.py", "train.py")


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
            f"{gap.points()}"
        )
    return Verdict.of(tests, "; ".join(reasons) + f"; {len(record['seeds'])} seeds")


# ------------------------------------------------------------------------ rate × initial scale


def run_map(config, params, seed, data, checkpoint):
    """Train every rate and initial scale at once; yield the maps, and every curve thinned."""
    from bn.experiments import _rates

    x, x_test, y, y_test = _rates.small(data)
    cells = [(rate, scale) for scale in config["scales"] for rate in config["rates"]]
    stack, lr = _rates.stack_of(
        cells, params["batch_norm"], seed, x[0].numel(),
        activation=params["activation"], width=config["width"], depth=config["depth"],
    )  # fmt: skip
    losses = _rates.train_stack(
        stack, x, y, lr, steps=config["steps"], batch_size=config["batch_size"], seed=seed
    )
    _, accuracies = stack.evaluate(x_test, y_test)
    shape = (len(config["scales"]), len(config["rates"]))
    curves = np.array(_rates.windows(losses, config["window"]))
    yield {
        "epoch": 1,
        "test_accuracy": accuracies.view(shape).tolist(),
        "loss": curves.reshape(*shape, -1).tolist(),
    }


def scales_reached(record, activation, batch_norm):
    """Count the initial scales from which a network learns, at each rate.

    Parameters
    ----------
    record : dict
        Of `rate_map`.
    activation : str
        ``"relu"`` or ``"sigmoid"``.
    batch_norm : bool
        Which arm.

    Returns
    -------
    ndarray of int, shape (seeds, rates)
        How many scales end with the accuracy that the configuration asks for.
    """
    found = final(record, "test_accuracy", activation=activation, batch_norm=batch_norm)
    return (found >= record["config"]["learned"]).sum(axis=1)


def verdict_map(record):
    """Apply the criterion."""
    tests, reasons = [], []
    rates, scales = record["config"]["rates"], record["config"]["scales"]
    for activation in ("relu", "sigmoid"):
        widest = []
        for batch_norm in (True, False):
            counts = scales_reached(record, activation, batch_norm)
            k = int(counts.mean(axis=0).argmax())
            widest.append((rates[k], counts[:, k]))
        (rate, with_), (plain_rate, without) = widest
        gap = interval(with_ - without)
        tests.append(gap.low > 0)
        reasons.append(
            f"{activation}: {with_.mean():.1f} of the {len(scales)} scales with batch norm (rate "
            f"{rate:.2g}) and {without.mean():.1f} without (rate {plain_rate:.2g}), a difference "
            f"of {gap.mean:+.1f} [{gap.low:+.1f}, {gap.high:+.1f}]"
        )
    return Verdict.of(tests, "; ".join(reasons) + f"; {len(record['seeds'])} seeds")


# ------------------------------------------------------------------------ the largest rate


def run_largest(config, params, seed, data, checkpoint):
    """Train every rate at once; yield how each ends, which of them train, and the largest."""
    from bn.experiments import _rates

    x, _, y, _ = _rates.small(data)
    rates = config["rates"]
    stack, lr = _rates.stack_of(
        [(rate, params["scale"]) for rate in rates], params["batch_norm"], seed, x[0].numel(),
        activation=config["activation"], width=params["width"], depth=params["depth"],
    )  # fmt: skip
    losses = _rates.train_stack(
        stack, x, y, lr, steps=config["steps"], batch_size=config["batch_size"], seed=seed
    )
    ends = losses[-config["last"] :].double().mean(0).tolist()
    trained = _rates.trains(losses, config["last"], config["fraction"])
    yield {
        "epoch": 1,
        "loss": _rates.rounded(ends, 5),
        "largest": _rates.largest(rates, trained, ends),
    }


def setups(record):
    """Return the depths, widths and scales of `largest_rate`, each setup once."""
    found = {
        tuple(unit["params"][key] for key in ("depth", "width", "scale"))
        for unit in record["units"]
    }
    return [dict(zip(("depth", "width", "scale"), point, strict=True)) for point in sorted(found)]


def octaves(record, **setup):
    """Return log2 of the largest rate with batch norm over that without, for every seed.

    Where no rate trains, the lowest of the grid stands in.
    """
    lowest = record["config"]["rates"][0]
    with_, without = (
        np.nan_to_num(final(record, "largest", batch_norm=b, **setup), nan=lowest)
        for b in (True, False)
    )
    return np.log2(with_ / without)


def verdict_largest(record):
    """Apply the criterion."""
    gaps = [interval(octaves(record, **setup)) for setup in setups(record)]
    tests = [gap.low > 0 for gap in gaps]
    both = [
        np.isfinite([final(record, "largest", batch_norm=b, **setup) for b in (True, False)]).all()
        for setup in setups(record)
    ]
    factors = [2**gap.mean for gap, found in zip(gaps, both, strict=True) if found]
    by = f"{min(factors):.2g} to {max(factors):.2g}" if factors else "an unknown number"
    return Verdict.of(
        tests,
        f"in {sum(tests)} of {len(tests)} setups the largest rate that trains is larger with batch "
        f"norm; where every seed of both arms has one, by a factor of {by} in the geometric mean "
        f"({len(both) - sum(both)} of the setups lack one); {len(record['seeds'])} seeds",
    )


# ------------------------------------------------------------------------ how it diverges


def run_divergence(config, params, seed, data, checkpoint):
    """Find the rate and the step at which the plain network diverges; look inside until then."""
    import torch

    from bn.experiments import _rates

    x, _, y, _ = _rates.small(data)
    rates, sizes = config["rates"], {key: config[key] for key in ("activation", "width", "depth")}
    cells = [(rate, 1.0) for rate in rates]
    training = {"steps": config["steps"], "batch_size": config["batch_size"], "seed": seed}

    stack, lr = _rates.stack_of(cells, False, seed, x[0].numel(), **sizes)
    losses = _rates.train_stack(stack, x, y, lr, **training)
    over = ~(losses <= config["diverged"])  # not a number counts too
    k = int(over.any(0).int().argmax())
    end = int(over[:, k].int().argmax())

    spreads, gradients, weights = [], [], []

    def look(step, images, labels):
        if not end - config["before"] <= step <= end:
            return
        _, found = stack.gradients(images, labels)
        h, row = images, []
        with torch.no_grad():
            for layer in stack.model(k):
                h = layer(h)
                if isinstance(layer, torch.nn.Linear):
                    row.append(h.double().square().mean().sqrt().item())
        keys = [key for key, value in stack.params.items() if value.dim() == 3]
        spreads.append(_rates.rounded(row, 4))
        gradients.append(_rates.rounded([found[key][k].norm().item() for key in keys], 4))
        weights.append(_rates.rounded([stack.params[key][k].norm().item() for key in keys], 4))

    stack, lr = _rates.stack_of(cells, params["batch_norm"], seed, x[0].numel(), **sizes)
    losses = _rates.train_stack(stack, x, y, lr, look=look, **training)
    yield {
        "epoch": 1,
        "rate": rates[k],
        "step": end,
        "loss": _rates.rounded(losses[: end + 1, k].tolist(), 4),
        "end": _rates.rounded(losses[-config["last"] :, k].double().mean().item(), 4),
        "spread": spreads,
        "gradient": gradients,
        "weight": weights,
    }


def growth(record):
    """Return how much each layer's output grew until the plain network diverged, in log2.

    Parameters
    ----------
    record : dict
        Of `divergence`.

    Returns
    -------
    ndarray, shape (seeds, layers)
        log2 of the root mean square of the linear layers' outputs, hidden layers only, at the
        step where the loss exceeds the bound, over the first of the steps recorded.
    """
    found = [
        np.array(unit["epochs"][-1]["spread"])[:, :-1]
        for unit in record["units"]
        if not unit["params"]["batch_norm"]
    ]
    return np.array([np.log2(spread[-1] / spread[0]) for spread in found])


def verdict_divergence(record):
    """Apply the criterion."""
    layers = np.arange(1, record["config"]["depth"] + 1)
    slope = interval([np.polyfit(layers, row, 1)[0] for row in growth(record)])
    ends = final(record, "end", batch_norm=True)
    bound = record["config"]["fraction"] * math.log(10)
    return Verdict.of(
        [slope.low > 0, bool((ends < bound).all())],
        f"when the plain network diverges, the outputs of its layers have grown by "
        f"{slope.mean:+.2f} [{slope.low:+.2f}, {slope.high:+.2f}] more doublings with each layer; at "
        f"the same rate the network with batch norm ends below {bound:.2f} in "
        f"{int((ends < bound).sum())} of {len(ends)} seeds",
    )


# ------------------------------------------------------------------------ each at its own rate


def run_own(config, params, seed, data, checkpoint):
    """Train every rate at once, look often; yield accuracies and the steps to the target."""
    import torch

    from bn.experiments import _rates

    x, x_test, y, y_test = _rates.small(data)
    kept = len(x) - config["held_out"]
    rates = config["rates"]
    stack, lr = _rates.stack_of(
        [(rate, params["scale"]) for rate in rates], params["batch_norm"], seed, x[0].numel(),
        activation=params["activation"], width=config["width"], depth=config["depth"],
    )  # fmt: skip
    found = []

    def look(step, images, labels):
        if step and step % config["every"] == 0:
            found.append(stack.evaluate(x[kept:], y[kept:])[1])

    _rates.train_stack(
        stack, x[:kept], y[:kept], lr,
        steps=config["steps"] + 1, batch_size=config["batch_size"], seed=seed, look=look,
    )  # fmt: skip
    found = torch.stack(found)
    reached = found >= config["target"]
    first = torch.where(reached.any(0), config["every"] * (1.0 + reached.int().argmax(0)), math.nan)
    yield {
        "epoch": 1,
        "steps_to_target": first.tolist(),
        "validation_accuracy": found[-1].tolist(),
        "test_accuracy": stack.evaluate(x_test, y_test)[1].tolist(),
        "curve": found[config["thin"] - 1 :: config["thin"]].T.tolist(),
    }


def own_rates(record, metric, activation, scale):
    """Return the indices of the best rates with and without batch norm, by a mean over seeds.

    Parameters
    ----------
    record : dict
        Of `own_best_rate`.
    metric : str
        ``"validation_accuracy"``, the higher the better, or ``"steps_to_target"``, the fewer; a
        rate that does not reach the target with every seed is out.
    activation, scale
        Which network.

    Returns
    -------
    tuple of int
        Into the configuration's `rates`.
    """
    best = []
    for batch_norm in (True, False):
        values = final(record, metric, activation=activation, scale=scale, batch_norm=batch_norm)
        mean = values.mean(axis=0) * (-1 if metric == "steps_to_target" else 1)
        best.append(int(np.nanargmax(mean)))
    return tuple(best)


def steps_split(record, activation, scale):
    """Split the steps that batch norm saves into those at the plain network's rate, and the rest.

    Parameters
    ----------
    record : dict
        Of `own_best_rate`.
    activation, scale
        Which network.

    Returns
    -------
    dict of str to ndarray, shape (seeds,)
        Steps to the target: ``"without"`` at the plain network's best rate, ``"same"`` with batch
        norm at that rate, ``"own"`` with batch norm at its own best.
    """
    own, plain = own_rates(record, "steps_to_target", activation, scale)
    arm = {"activation": activation, "scale": scale}
    with_ = final(record, "steps_to_target", batch_norm=True, **arm)
    without = final(record, "steps_to_target", batch_norm=False, **arm)
    return {"without": without[:, plain], "same": with_[:, plain], "own": with_[:, own]}


def networks(record):
    """Return the (activation, scale) of `own_best_rate`, each once."""
    return sorted({(u["params"]["activation"], u["params"]["scale"]) for u in record["units"]})


def verdict_own(record):
    """Apply the criterion."""
    tests, reasons = [], []
    for activation, scale in networks(record):
        steps = steps_split(record, activation, scale)
        saved = interval(steps["without"] - steps["own"])
        by_rate = interval((steps["same"] - steps["own"]) - (steps["without"] - steps["same"]))
        tests += [saved.low > 0, saved.low > 0 and by_rate.low > 0]
        reasons.append(
            f"{activation} at scale {scale:g}: {steps['without'].mean():.0f} steps without, "
            f"{steps['same'].mean():.0f} with batch norm at the same rate, "
            f"{steps['own'].mean():.0f} at its own; saved {saved.mean:+.0f} "
            f"[{saved.low:+.0f}, {saved.high:+.0f}], by the rate more than by the rest "
            f"{by_rate.mean:+.0f} [{by_rate.low:+.0f}, {by_rate.high:+.0f}]"
        )
    return Verdict.of(tests, "; ".join(reasons) + f"; {len(record['seeds'])} seeds")


# ------------------------------------------------------------------------ what is declared

CHAPTER = "evidence/learning_rate"
NET = {"activation": "relu", "width": 50, "depth": 3}
BASE = {"depth": 4, "width": 50, "scale": 1.0}
SETUPS = [
    BASE,
    *({**BASE, "depth": depth} for depth in (1, 2, 8, 16)),
    *({**BASE, "width": width} for width in (25, 100, 200)),
    *({**BASE, "scale": scale} for scale in (0.25, 0.5, 2.0, 4.0)),
]

EXPERIMENTS = [
    Experiment(
        name="mnist_learning_rate",
        claim="The gain remains when each network is trained at the learning rate that suits it "
        "best.",
        source="the question that Bjorck et al. (2018) raise: how much of it is the larger rate?",
        chapter="evidence/mnist",
        run=run,
        data="mnist",
        config={"sizes": {}, "epochs": 3, "batch_size": 64, "held_out": 10_000, "optimizer": "SGD"},
        grid=tuple(
            {"network": network, "batch_norm": batch_norm, "lr": lr}
            for network, highest in (("mlp", 10.24), ("lenet", 0.64))  # above, neither LeNet trains
            for lr in (0.01, 0.04, 0.16, 0.64, 2.56, 10.24)
            if lr <= highest
            for batch_norm in (True, False)
        ),
        verdict=verdict,
        criterion="For each network, with the rate of each arm chosen on held-out training images, "
        "the 95 % interval of the paired difference in test accuracy excludes zero.",
        core_minutes=15,
    ),
    Experiment(
        name="rate_map",
        claim="With batch norm one can be less careful about the initial weights: a network learns "
        "from a wider range of their scales.",
        source="Ioffe & Szegedy (2015), abstract",
        chapter=CHAPTER,
        run=run_map,
        data="mnist",
        config={
            "epochs": 1,
            "width": 50,
            "depth": 3,
            "steps": 800,
            "window": 50,
            "batch_size": 64,
            "rates": [float(f"{10 ** (e / 2):.4g}") for e in range(-6, 5)],
            "scales": [float(f"{10 ** (e / 2):.4g}") for e in range(-4, 5)],
            "learned": 0.8,
        },
        grid=tuple(
            {"activation": activation, "batch_norm": batch_norm}
            for activation in ("relu", "sigmoid")
            for batch_norm in (True, False)
        ),
        verdict=verdict_map,
        criterion="For ReLU and for the sigmoid: count the initial scales from which the network "
        "reaches 80 % test accuracy, each arm at the one rate that serves most scales; the 95 % "
        "interval of the paired difference excludes zero.",
        core_minutes=4,
        code=CODE,
        quick={"steps": 20, "window": 10},
    ),
    Experiment(
        name="largest_rate",
        claim="Batch norm enables training with larger learning rates.",
        source="Bjorck et al. (2018), abstract; Ioffe & Szegedy (2015), section 3.3",
        chapter=CHAPTER,
        run=run_largest,
        data="mnist",
        config={
            "epochs": 1,
            "activation": "relu",
            "steps": 300,
            "last": 50,
            "fraction": 0.5,
            "batch_size": 64,
            "rates": [float(f"{2 ** (e / 2):.4g}") for e in range(-18, 9)],
        },
        grid=tuple({**setup, "batch_norm": b} for setup in SETUPS for b in (True, False)),
        verdict=verdict_largest,
        criterion="A rate trains when the mean loss of the last 50 of 300 batches is below half of "
        "guessing's, ln 10; the largest is the last that trains, going up from the one that ends "
        "lowest. In every setup of depth, width and scale the 95 % interval of log2 of the ratio "
        "with/without, paired by seed, lies above zero; where no rate trains, the lowest of the "
        "grid stands in.",
        core_minutes=5,
        code=CODE,
        quick={"steps": 12, "last": 4, "fraction": 1.0},
    ),
    Experiment(
        name="divergence",
        claim="Without batch norm large updates make the loss diverge and the activations grow "
        "with depth; with it the same rate trains.",
        source="Bjorck et al. (2018), abstract",
        chapter=CHAPTER,
        run=run_divergence,
        data="mnist",
        config={
            "epochs": 1,
            **NET,
            "depth": 8,
            "steps": 300,
            "last": 50,
            "fraction": 0.5,
            "batch_size": 64,
            "rates": [float(f"{2 ** (e / 2):.4g}") for e in range(-6, 5)],
            "diverged": 100.0,
            "before": 8,
        },
        grid=({"batch_norm": True}, {"batch_norm": False}),
        verdict=verdict_divergence,
        criterion="At the lowest rate of the grid at which the plain network's batch loss exceeds "
        "100 within 300 steps: from the first step recorded to that one, log2 of the growth of the "
        "hidden layers' outputs rises with the layer (95 % interval of the slope over seeds), and "
        "with batch norm the mean loss of the last 50 batches is below half of guessing's in every "
        "seed.",
        seeds=tuple(range(10)),
        core_minutes=0.7,
        code=CODE,
        quick={"steps": 20, "last": 5},
    ),
    Experiment(
        name="own_best_rate",
        claim="The larger learning rates that batch norm allows are the cause of its faster "
        "convergence.",
        source="Bjorck et al. (2018), abstract",
        chapter=CHAPTER,
        run=run_own,
        data="mnist",
        config={
            "epochs": 1,
            "width": 50,
            "depth": 3,
            "steps": 3000,
            "every": 50,
            "thin": 4,
            "target": 0.95,
            "batch_size": 64,
            "held_out": 5000,
            "rates": [2.0**e for e in range(-4, 5)],
        },
        grid=tuple(
            {"activation": activation, "scale": scale, "batch_norm": batch_norm}
            for activation, scale in (("relu", 1.0), ("sigmoid", 1.0), ("sigmoid", 4.0))
            for batch_norm in (True, False)
        ),
        verdict=verdict_own,
        criterion="Steps until 95 % of 5,000 held-out images are right, each net at the rate with "
        "the fewest. For every network: the net with batch norm needs fewer; and of what it saves, "
        "more is lost when it must take the plain net's rate than is kept (95 % intervals of the "
        "paired differences).",
        seeds=tuple(range(10)),
        core_minutes=6.5,
        code=CODE,
        quick={"steps": 20, "every": 10, "thin": 1, "target": 0.1},
    ),
]
