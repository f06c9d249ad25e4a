"""Does a network with batch norm need its distributions to stay where they are?

Behind each batch norm layer, noise shifts and scales every unit anew at every step. The same runs
measure how far the distributions move, with the noise and without batch norm, and how the gradient
of a layer changes when the layers before it move. Two networks: a sigmoid network that trains
slowly without batch norm, and a deep ReLU network that trains well without it.
"""

from __future__ import annotations

import numpy as np

from bn.experiments._engine import Experiment, Verdict
from bn.results import curves, interval

PLAIN = {"batch_norm": False, "strength": 0, "steady": False}
NORM = {"batch_norm": True, "strength": 0, "steady": False}
NOISY = {"batch_norm": True, "strength": 1, "steady": False}
SHAKEN = {"batch_norm": False, "strength": 1, "steady": False}
STRENGTHS = (0, 1, 2, 4, 8)
# Chosen from single runs with another seed. At the first rate the noise comes in all strengths.
RATES = {"sigmoid": (0.5, 2.5), "relu": (0.1, 0.3)}
LAST = 4  # windows of 50 steps whose mean is the final training loss


def run(config, params, seed, data, checkpoint):
    """Train one network; look at it now and then, and again some steps later."""
    import torch

    from bn import noisy, shift, train

    def short(values):
        return [float(f"{v:.4g}") for v in values]

    def look(held):
        with torch.random.fork_rng(devices=[]):
            if held:
                torch.manual_seed(0)  # always the same noise
            return list(shift.inputs(model, probe).values())

    def gradients(fresh):
        seeds = iter(range(100))

        def draw(*_):  # for every forward pass its own noise, or for all the same
            torch.manual_seed(next(seeds) if fresh else 0)

        handle = model.register_forward_pre_hook(draw)
        found = shift.internal_covariate_shift(model, step.images, step.labels, params["lr"])
        handle.remove()
        return [[layer[k] for layer in found.values()] for k in ("norm", "relative", "cosine")]

    side = config["networks"][params["network"]]["side"]
    pixels = {  # of 28×28 images, means over squares
        name: torch.nn.functional.avg_pool2d(torch.as_tensor(x), x.shape[-1] // side)
        for name, x in (("x_train", data.x_train), ("x_test", data.x_test))
    }
    data = data._replace(**pixels)
    torch.manual_seed(seed)
    model = noisy.network(
        activation=params["network"],
        **config["networks"][params["network"]]["sizes"],
        **{key: params[key] for key in ("batch_norm", "strength", "steady")},
    )
    measured = torch.as_tensor(data.x_train[: config["measure"]])
    probe, window = measured[: config["probe"]], config["window"]
    looks, lags = config["looks"], config["lags"]
    marks = {start + lag for start in looks for lag in (0, *lags)}
    views, angles, losses, hits, tests = {}, [], [], [], []
    middle = config["networks"][params["network"]]["sizes"]["depth"] // 2
    traces = {name: [] for name in config["traces"]}

    def quartiles():
        return short(np.quantile(look(False)[middle][:, 0], (0.05, 0.25, 0.5, 0.75, 0.95)))

    walk = noisy.steps(model, data, batch_size=config["batch_size"], lr=params["lr"], seed=seed)
    for step in walk:
        if step.number in marks:
            views[step.number] = [look(False), look(True)]
        if step.number in looks:
            angles.append([gradients(False), gradients(True)])
        if seed in config["drawn"]:
            for name, at in config["traces"].items():
                if step.number in range(*at):
                    traces[name].append(quartiles())
        if step.number % config["test_every"] == 0 and step.number:
            tests.append(train.evaluate(model, data.x_test, data.y_test))
        if step.number == config["steps"]:
            break
        losses.append(step.loss)
        hits.append(step.accuracy)

    # for each lag [look, fresh or held noise, layer, absolute or relative]; of these the mean over
    # layers and the median over looks
    moved = {
        lag: np.array(
            [
                [[noisy.distance(*pair) for pair in zip(*both, strict=True)]
                 for both in zip(views[start], views[start + lag], strict=True)]
                for start in looks if start + lag in views
            ]
        )
        for lag in lags
    }  # fmt: skip
    typical = np.median(angles, axis=0)  # [held or fresh noise, measure, layer]
    row = {
        "epoch": 1,
        "loss": short(np.reshape(losses, (-1, window)).mean(1)),
        "accuracy": short(np.reshape(hits, (-1, window)).mean(1)),
        "test_loss": short([loss for loss, _ in tests]),
        "test_accuracy": short([accuracy for _, accuracy in tests]),
    }
    for i, kind in enumerate(("", "held_")):
        for j, name in enumerate(("moved", "shift")):
            row[kind + name] = short(np.median(m[:, i, :, j].mean(1)) for m in moved.values())
    for i, kind in enumerate(("", "fresh_")):
        for j, name in enumerate(("norm", "relative", "cosine")):
            row[kind + name] = short(typical[i, j, 1:])  # the first layer has none before it
    noisy.recalibrate(model, measured)
    row["recalibrated_accuracy"] = train.evaluate(model, data.x_test, data.y_test)[1]
    if params["batch_norm"]:
        row["gain"] = short(
            module.weight.abs().mean().item()
            for name, module in model.named_children()
            if name.startswith("norm")
        )
    if seed in config["drawn"]:
        row["traces"] = traces
    yield row


def final_loss(record, **params):
    """Return the training loss at the end, as it trains, for every seed.

    Parameters
    ----------
    record : dict
        Of this experiment.
    **params
        The units wanted: ``network``, ``lr``, ``batch_norm``, ``strength``, ``steady``.

    Returns
    -------
    ndarray of float64, shape (seeds,)
        Mean over the batches of the last 200 steps, with noise where the training has noise.
    """
    return curves(record, "loss", **params)[:, 0, -LAST:].mean(1)


def best_rate(record, network, arm):
    """Return that of the two learning rates at which an arm's mean final loss is lower."""
    return min(
        RATES[network], key=lambda lr: final_loss(record, network=network, lr=lr, **arm).mean()
    )


def comparison(record, network):
    """Compare the three arms of one network, seed by seed.

    Returns
    -------
    dict of str to bn.results.Paired
        At the first rate: ``moved`` and ``shift``, the logarithm of how many times farther noisy
        batch norm's distributions move in one step than the plain network's, in absolute terms and
        in units of their spread; ``plain``, the final loss of noisy
        batch norm minus the plain network's; ``cost``, that of noisy batch norm minus batch norm's,
        less a quarter of the plain network's minus batch norm's. ``best``: as ``plain``, each at
        its own better rate.
    """
    at = {"network": network, "lr": RATES[network][0]}
    plain, norm, noisy = (final_loss(record, **at, **arm) for arm in (PLAIN, NORM, NOISY))
    farther = {
        name: [curves(record, name, **at, **arm)[:, 0, 0] for arm in (NOISY, PLAIN)]
        for name in ("moved", "shift")
    }
    best = [
        final_loss(record, network=network, lr=best_rate(record, network, arm), **arm)
        for arm in (NOISY, PLAIN)
    ]
    return {
        **{name: interval(np.log(a / b)) for name, (a, b) in farther.items()},
        "plain": interval(noisy - plain),
        "cost": interval(noisy - norm - (plain - norm) / 4),
        "best": interval(best[0] - best[1]),
    }


def verdict(record):
    """Apply the criterion."""
    tests, reasons = [], []
    for network, (lr, _) in RATES.items():
        found = comparison(record, network)
        tests += [
            found["moved"].low > 0,
            found["shift"].low > 0,
            found["plain"].high < 0,
            found["cost"].high < 0,
            found["best"].high < 0,
        ]
        plain, norm, noisy = (
            final_loss(record, network=network, lr=lr, **arm).mean() for arm in (PLAIN, NORM, NOISY)
        )
        gap, best = found["plain"], found["best"]
        reasons += [
            f"{network} network, one step: noisy batch norm's distributions move "
            f"{np.exp(found['moved'].mean):.3g} times as far as those without batch norm, "
            f"{np.exp(found['shift'].mean):.3g} times in units of their spread",
            f"{network} network, final training loss: {norm:.3f} with batch norm, {noisy:.3f} noisy, "
            f"{plain:.3f} without, and noisy minus without {gap.mean:+.3f} [{gap.low:+.3f}, "
            f"{gap.high:+.3f}] at one rate, {best.mean:+.3f} [{best.low:+.3f}, {best.high:+.3f}] "
            "at the better of two rates each",
        ]
    return Verdict.of(tests, "; ".join(reasons) + f" ({len(record['seeds'])} seeds)")


def _grid():
    for network, (first, second) in RATES.items():
        arms = [PLAIN, SHAKEN, *({**NORM, "strength": k} for k in STRENGTHS)]
        steady = [{**NORM, "strength": k, "steady": True} for k in (1, 4)]
        for lr, some in ((first, arms + steady), (second, [PLAIN, NORM, NOISY])):
            yield from ({"network": network, "lr": lr, **arm} for arm in some)


EXPERIMENTS = [
    Experiment(
        name="noisy_batch_norm",
        claim="“Noisy” batch norm trains about as well as batch norm and much better than no batch "
        "norm, although its distributions are less stable than those without batch norm.",
        source="Santurkar et al. (2018), section 2.1, figure 2 and algorithm 1",
        chapter="evidence/noisy_batch_norm",
        run=run,
        data="mnist",
        config={
            "networks": {
                "sigmoid": {"side": 28, "sizes": {"in_features": 784, "width": 100, "depth": 3}},
                "relu": {"side": 14, "sizes": {"in_features": 196, "width": 60, "depth": 8}},
            },
            "epochs": 1,
            "steps": 1200,
            "batch_size": 60,
            "window": 50,
            "test_every": 200,
            "measure": 10_000,
            "probe": 300,
            "looks": list(range(50, 1200, 200)),
            "lags": [1, 10, 100, 600],
            "drawn": [0],
            "traces": {"steps": [600, 625], "run": [0, 1200, 48]},
            "optimizer": "SGD",
        },
        grid=tuple(_grid()),
        verdict=verdict,
        criterion="For both networks, each time judged by the 95 % interval of the paired "
        "difference: the distributions of noisy batch norm move farther in one step than those "
        "without batch norm, in absolute terms and in units of their own spread; its final training "
        "loss is lower than without batch norm, at the first of two learning rates and with each at "
        "its better one; and at the first rate the noise costs less than a quarter of what batch "
        "norm gains.",
        seeds=tuple(range(8)),
        core_minutes=9,
        code=("models.py", "noisy.py", "shift.py", "train.py"),
        quick={"steps": 200, "looks": [50], "lags": [1, 10], "test_every": 100,
               "traces": {"steps": [100, 103], "run": [0, 200, 64]}},
    )
]  # fmt: skip
