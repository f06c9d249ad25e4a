"""Does batch norm make the loss smoother? Walks along the gradient, slices, a deep linear network.

Five experiments after Santurkar et al. (2018). One tries the theorem on the curvature on random
cases. Of the others the first compares two networks that train, each
at its own weights; the second two networks at the same weights, which are the same function; the
third draws slices; the fourth repeats their deep linear network.
"""

from __future__ import annotations

import numpy as np

from bn.experiments._engine import Experiment, Verdict
from bn.results import curves, interval

CODE = ("landscape.py", "models.py", "train.py")
NETWORKS = {"sigmoid": (0.1, 2.56), "relu": (0.1, 0.4)}  # and their learning rates
MEASURES = ("range", "change", "beta")
RATES = tuple({"network": n, "lr": lr} for n, rates in NETWORKS.items() for lr in rates)
ARMS = tuple({**point, "batch_norm": b} for point in RATES for b in (True, False))
STOPS = (0, 1, 2, 3, 4, 6, 8, 11, 15, 20, 27, 36, 49, 66, 90, 121, 164, 222, 300, 406, 549, 742,
         1004, 1357)  # fmt: skip
WALK = {
    "epochs": 1,
    "stops": list(STOPS),
    "factors": [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0],
    "batch_size": 64,
    "optimizer": "SGD",
}
QUICK = {"stops": [0, 1]}


def run_walk(config, params, seed, data, checkpoint):
    """Train, and at every stop walk along the gradient of the batch that comes next."""
    import torch

    from bn import landscape, train

    torch.manual_seed(seed)
    model = landscape.network(params["network"], params["batch_norm"])
    walks, passed = [], []
    for _, images, labels in train.steps(
        model, data, lr=params["lr"], batch_size=config["batch_size"], seed=seed,
        stops=config["stops"], drop_last=True,
    ):  # fmt: skip
        walks.append(landscape.probe(model, images, labels, params["lr"], config["factors"]))
        passed.append(landscape.layers(model, images, labels))
    row = {"epoch": 1, **landscape.summary(walks)}
    if params["batch_norm"]:
        for key in ("scale", "kept", "ratio", "shrinking"):
            row[key] = [
                [float(f"{layer[key]:.3g}") for layer in found.values()] for found in passed
            ]
    yield row


def run_inserted(config, params, seed, data, checkpoint):
    """Train without batch norm; at every stop probe the network, and itself with the layer in it."""
    import torch

    from bn import landscape, train

    torch.manual_seed(seed)
    model = landscape.network(params["network"], False)
    walks = {"plain": [], "inserted": []}
    for _, images, labels in train.steps(
        model, data, lr=params["lr"], batch_size=config["batch_size"], seed=seed,
        stops=config["stops"], drop_last=True,
    ):  # fmt: skip
        for name, net in (("plain", model), ("inserted", landscape.insert(model, images))):
            walks[name].append(
                landscape.probe(net, images, labels, params["lr"], config["factors"])
            )
    yield {"epoch": 1, **{name: landscape.summary(found) for name, found in walks.items()}}


def run_slices(config, params, seed, data, checkpoint):
    """Train, and at every stop measure the loss on a slice through the weights."""
    import numpy as np
    import torch

    from bn import landscape, train

    torch.manual_seed(seed)
    model = landscape.network(config["network"], params["batch_norm"])
    images, labels = data.x_train[: config["images"]], data.y_train[: config["images"]]
    ticks = np.linspace(-config["reach"], config["reach"], config["points"])
    slices = []
    for _ in train.steps(
        model, data, lr=config["lr"], batch_size=config["batch_size"], seed=seed,
        stops=config["stops"], drop_last=True,
    ):  # fmt: skip
        pair = landscape.directions(model, seed)
        values = landscape.surface(model, images, labels, pair, ticks)
        slices.append([float(f"{v:.3g}") for v in values.ravel()])
    yield {"epoch": 1, "slices": slices}


def run_deep_linear(config, params, seed, data, checkpoint):
    """Fit a random linear map with 25 matrices, full batch; measure the shift on the way."""
    import numpy as np
    import torch

    from bn import landscape, shift

    torch.manual_seed(seed)
    model = landscape.deep_linear(
        params["batch_norm"], depth=config["depth"], width=config["width"]
    )
    x = torch.randn(config["samples"], config["width"], dtype=torch.float64)
    y = x @ torch.randn(config["width"], config["width"], dtype=torch.float64).T

    def loss(output, target):
        return (output - target).square().sum(1).mean()

    optimizer = torch.optim.SGD(model.parameters(), lr=params["lr"])
    row = {"epoch": 1, "loss": [], "norm": [], "relative": [], "cosine": [], "lowest": []}
    for step in range(config["stops"][-1] + 1):
        if step in config["stops"]:
            _, *layers = shift.internal_covariate_shift(model, x, y, params["lr"], loss).values()
            found = {k: np.median([layer[k] for layer in layers]) for k in layers[0]}
            found["lowest"] = min(layer["cosine"] for layer in layers)
            found["loss"] = loss(model(x), y).item()
            for key, number in found.items():
                row[key].append(float(f"{number:.4g}"))
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
    yield row


def run_curvature(config, params, seed, data, checkpoint):
    """Try the curvature along ∂L/∂x, as derived and as bounded, on random convex losses."""
    import numpy as np
    import torch

    rng = np.random.default_rng(seed)
    errors, bounded, lowered = [], [], []
    for _ in range(config["cases"]):
        m = int(rng.integers(4, 32))
        x, g = torch.tensor(rng.normal(size=(2, m)) * rng.uniform(0.1, 3))
        root = torch.tensor(rng.normal(size=(m, m)) / np.sqrt(m))
        H, sigma = root @ root.T, x.std(correction=0)
        gamma, x_hat = params["scale"] * sigma, (x - x.mean()) / sigma
        linear = g - gamma * H @ x_hat  # so that ∂L/∂y is g

        def loss(x, gamma=gamma, H=H, linear=linear):
            centred = x - x.mean()
            y = gamma * centred / torch.sqrt((centred**2).mean())
            return 0.5 * y @ H @ y + linear @ y

        x.requires_grad_()
        (d,) = torch.autograd.grad(loss(x), x, create_graph=True)
        (Hd,) = torch.autograd.grad(d @ d.detach(), x)
        d = d.detach()
        last = gamma / (m * sigma**2) * (g @ x_hat) * (d @ d)
        first, copied = ((gamma / sigma) ** 2 * (v @ H @ v) for v in (d, g))
        errors.append(abs(Hd @ d - (first - last)) / (first + abs(last)))
        bounded.append(Hd @ d <= (copied - last) * (1 + 1e-9))
        lowered.append(last > 0)
    yield {
        "epoch": 1,
        "error": float(max(errors)),
        "bounded": float(np.mean(bounded)),
        "lowered": float(np.mean(lowered)),
    }


# ------------------------------------------------------------------------------------- verdicts


def measure(walks: dict, name: str) -> np.ndarray:
    """Return one measure at every stop: of the row of a record, or of its arrays over seeds.

    ``range`` is the largest minus the smallest loss on the walk, ``change`` the largest change of
    the gradient, ``beta`` the effective β-smoothness. ``relative range`` is in units of the loss
    where the walk starts, ``relative change`` of the gradient there; ``relative beta`` is β·‖W‖²:
    the curvature when lengths are measured in units of the weights'.
    """
    walks = {key: np.asarray(values) for key, values in walks.items()}
    return {
        "range": lambda: walks["high"] - walks["low"],
        "change": lambda: walks["change"],
        "beta": lambda: walks["beta"],
        "relative range": lambda: (walks["high"] - walks["low"]) / walks["loss"],
        "relative change": lambda: walks["change"] / walks["gradient"],
        "relative beta": lambda: walks["beta"] * walks["weights"] ** 2,
    }[name]()


KEYS = ("loss", "gradient", "weights", "low", "high", "change", "beta")


def arm(record, **params):
    """Return the walks of one arm: arrays of shape (seeds, stops)."""
    return {key: curves(record, key, **params)[:, 0] for key in KEYS}


def compared(a: dict, b: dict, name: str):
    """Return the paired difference of log₁₀ of a measure, `a` minus `b`, median over the stops."""
    with np.errstate(all="ignore"):
        logs = np.log10(measure(a, name) / measure(b, name))
    return interval(np.nanmedian(logs, axis=1))  # a loss that overflowed has no measure


def inserted(record, which, **params):
    """Return the walks ``"plain"`` or ``"inserted"``: arrays of shape (seeds, stops)."""
    units = sorted((u for u in record["units"] if u["params"] == params), key=lambda u: u["seed"])
    return {key: np.array([u["epochs"][0][which][key] for u in units]) for key in KEYS}


def _factor(found):
    return f"{10**found.mean:.2g} [{10**found.low:.2g}, {10**found.high:.2g}]"


def _told(results):
    return "; ".join(
        f"{point['network']} at {point['lr']:g}: "
        + ", ".join(f"{name} × {_factor(found)}" for name, found in row.items())
        for point, row in results
    )


def verdict_walk(record):
    """Apply the criterion."""
    results = [
        (point, {name: compared(arm(record, **point, batch_norm=True),
                                arm(record, **point, batch_norm=False), name)
                 for name in MEASURES})
        for point in RATES
    ]  # fmt: skip
    return Verdict.of(
        [all(found.high < 0 for found in row.values()) for _, row in results],
        f"with batch norm, as a multiple of without: {_told(results)}",
    )


def verdict_inserted(record):
    """Apply the criterion."""
    results = [
        (point, {name: compared(inserted(record, "inserted", **point),
                                inserted(record, "plain", **point), name)
                 for name in MEASURES})
        for point in RATES
    ]  # fmt: skip
    return Verdict.of(
        [all(found.high < 0 for found in row.values()) for _, row in results],
        f"with the layer, as a multiple of without: {_told(results)}",
    )


def rise(record, batch_norm: bool) -> np.ndarray:
    """Return how far the loss rises on a slice: mean over its edge minus centre, (seeds, stops)."""
    n = record["config"]["points"]
    values = curves(record, "slices", batch_norm=batch_norm)[:, 0]
    values = values.reshape(*values.shape[:2], n, n)
    edge = np.ones((n, n), bool)
    edge[1:-1, 1:-1] = False
    return values[:, :, edge].mean(-1) - values[:, :, n // 2, n // 2]


def verdict_slices(record):
    """Apply the criterion."""
    with_, without = rise(record, True)[:, -1], rise(record, False)[:, -1]
    found = interval(with_ - without)
    return Verdict.of(
        [found.high < 0],
        f"after {record['config']['stops'][-1]} steps the loss rises towards the edge of the slice "
        f"by {with_.mean():.2f} with batch norm and by {without.mean():.2f} without; difference "
        f"{found.mean:+.2f} [{found.low:+.2f}, {found.high:+.2f}]",
    )


def verdict_deep_linear(record):
    """Apply the criterion."""
    tests, told = [], []
    for lr in sorted({unit["params"]["lr"] for unit in record["units"]}, reverse=True):

        def of(metric, batch_norm, lr=lr):
            return curves(record, metric, batch_norm=batch_norm, lr=lr)[:, 0]

        ends = [np.where(np.isfinite(x[:, -1]), x[:, -1], x[:, 0])
                for x in (of("loss", True), of("loss", False))]  # fmt: skip
        gain = interval(np.log10(ends[0] / ends[1]))
        plain = interval(np.nan_to_num(of("cosine", False)).min(axis=1))
        normed = interval(np.nan_to_num(of("cosine", True)).mean(axis=1))
        tests += [gain.high < 0, plain.low > 0.9, normed.high < 0.5]
        told.append(
            f"at {lr:g} the last loss with batch norm is {_factor(gain)} of that without; the "
            f"cosine of G and G′, median over the layers, falls as low as {plain.mean:.2f} "
            f"[{plain.low:.2f}, {plain.high:.2f}] without, and is {normed.mean:.2f} "
            f"[{normed.low:.2f}, {normed.high:.2f}] on average with"
        )
    return Verdict.of(tests, "; ".join(told))


def verdict_curvature(record):
    """Apply the criterion."""
    scales = sorted({unit["params"]["scale"] for unit in record["units"]})
    error = max(curves(record, "error", scale=scale).max() for scale in scales)
    shares = {scale: curves(record, "bounded", scale=scale).mean() for scale in scales}
    return Verdict.of(
        [error < 1e-9, *(share == 1 for share in shares.values())],
        f"the identity is off by at most {error:.0e} of its size in "
        f"{len(record['units']) * record['config']['cases']:,} random cases; the bound with g in "
        "the place of ∂L/∂x holds in "
        + ", ".join(f"{share:.1%} of them at γ = {scale:g} σ" for scale, share in shares.items()),
    )


CHAPTER = "evidence/loss_landscape"
SOURCE = "Santurkar, Tsipras, Ilyas & Mądry (2018)"

EXPERIMENTS = [
    Experiment(
        name="curvature_along_gradient",
        claim="At ε = 0 the second derivatives of L with respect to x, taken along d = ∂L/∂x, give "
        "(γ²/σ²) dᵀHd − γ⟨g, x̂⟩‖d‖²/(mσ²), where g and H are the derivatives with respect to y; "
        "and no more than that with gᵀHg in the place of dᵀHd.",
        source=f"{SOURCE}, theorem 4.2, where the first is an inequality and the second has a "
        "condition on H",
        chapter=CHAPTER,
        run=run_curvature,
        data=None,
        config={"epochs": 1, "cases": 100},
        grid=tuple({"scale": scale} for scale in (0.5, 1, 8)),
        verdict=verdict_curvature,
        criterion="In no random case, with a positive definite H, is the identity off by more than "
        "1e-9 of its size, in float64; and the bound holds in every case, at γ = σ/2, σ and 8σ.",
        seeds=tuple(range(10)),
        core_minutes=0.05,
        code=(),
        quick={"cases": 5},
    ),
    Experiment(
        name="loss_landscape",
        claim="With batch norm the loss varies less along the gradient, the gradient changes less, "
        "and the effective β-smoothness is better (smaller).",
        source=f"{SOURCE}, section 3.2 and figure 4",
        chapter=CHAPTER,
        run=run_walk,
        data="mnist",
        config=WALK,
        grid=ARMS,
        verdict=verdict_walk,
        criterion="At each of two rates of each network: the range of the loss, the largest change "
        "of the gradient and the effective β over half a step to four steps are all smaller with "
        "batch norm. Each time the logarithm of the ratio, median over the stops, is below zero "
        "with its whole paired 95 % interval (stops at which a measure is not a number are left "
        "out). The claim holds if that is so at all four, with a "
        "caveat if at some.",
        seeds=tuple(range(10)),
        core_minutes=2.5,
        code=CODE,
        quick=QUICK,
    ),
    Experiment(
        name="inserted_batch_norm",
        claim="At the same weights and the same function (γ = σ, β = μ) the loss is smoother with "
        "batch norm than without.",
        source=f"{SOURCE}, section 4, on observation 4.3",
        chapter=CHAPTER,
        run=run_inserted,
        data="mnist",
        config=WALK,
        grid=RATES,
        verdict=verdict_inserted,
        criterion="As for loss_landscape, but both networks are taken at the weights of the one "
        "that trains without batch norm.",
        seeds=tuple(range(10)),
        core_minutes=1.5,
        code=CODE,
        quick=QUICK,
    ),
    Experiment(
        name="loss_slices",
        claim="Around a network trained with batch norm the loss is flatter: on a slice with "
        "filter-normalised directions it rises less.",
        source=f"the picture drawn after Li et al. (2018) and {SOURCE}; neither states it so",
        chapter=CHAPTER,
        run=run_slices,
        data="mnist",
        config={
            "epochs": 1,
            "network": "relu",
            "lr": 0.1,
            "stops": [0, 8, 27, 90, 164, 300, 549, 1357],
            "images": 500,
            "points": 21,
            "reach": 1.0,
            "batch_size": 64,
            "optimizer": "SGD",
        },
        grid=({"batch_norm": True}, {"batch_norm": False}),
        verdict=verdict_slices,
        criterion="After the last stop the mean of the loss on the slice's edge, minus the loss at "
        "its centre, is smaller with batch norm: the 95 % interval of the paired difference is "
        "below zero.",
        seeds=tuple(range(10)),
        core_minutes=3.5,
        code=CODE,
        quick={"stops": [0], "points": 3},
    ),
    Experiment(
        name="deep_linear_network",
        claim="A deep linear network trains far better with batch norm, although it has almost no "
        "internal covariate shift without, and uncorrelated gradients G and G′ with it.",
        source=f"{SOURCE}, section 2.2 and figure 3",
        chapter=CHAPTER,
        run=run_deep_linear,
        data=None,
        config={
            "epochs": 1,
            "depth": 25,
            "width": 10,
            "samples": 1000,
            "stops": [0, 1, 2, 4, 7, 11, 18, 30, 50, 80, 130, 220, 360, 600, 1000, 1500],
            "optimizer": "gradient descent",
        },
        grid=tuple({"batch_norm": b, "lr": lr} for lr in (1e-3, 1e-4) for b in (True, False)),
        verdict=verdict_deep_linear,
        criterion="At each rate: the last loss is smaller with batch norm (95 % interval of the "
        "log ratio below zero); without, the cosine of G and G′, median over the layers, stays "
        "above 0.9 at every stop; with batch norm its mean over the stops is below 0.5 (each with "
        "its whole 95 % interval). Training that diverged counts as none: its first loss, and a "
        "cosine of 0.",
        seeds=tuple(range(10)),
        core_minutes=4.5,
        code=(*CODE, "shift.py"),
        quick={"stops": [0, 1]},
    ),
]
