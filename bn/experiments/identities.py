"""Identities that are proved, tried on random numbers.

A proof on a page can have a slip that its reader repeats. So each identity is tried on a thousand
random cases, and each side of it computed in its own way (:mod:`bn.experiments._identities`).
"""

from __future__ import annotations

from functools import partial

from bn.experiments._engine import Experiment, Verdict
from bn.results import final

TOLERANCE = 1e-9


def run(config, params, seed, data, checkpoint):
    """Try an identity on random cases: the largest error; of a copied version, the middle one."""
    import numpy as np

    from bn.experiments import _identities

    rng = np.random.default_rng(seed)
    try_once = getattr(_identities, config["identity"])
    cases = [try_once(rng) for _ in range(config["cases"])]
    over = {"error": np.max, "copied": np.median, "gradient": np.median}
    yield {"epoch": 1, **{k: float(over[k]([case[k] for case in cases])) for k in cases[0]}}


def verdict(record, others):
    """Apply the criterion; `others` says what else was compared, by its name in the record."""
    seeds, cases = len(record["seeds"]), record["config"]["cases"]
    error = final(record, "error").max()
    tests = [error < TOLERANCE]
    off = f"off by at most {error:.0e} of its size" if error else "not off at all"
    reason = f"{off} in {seeds * cases:,} random cases, {cases} for each of {seeds} seeds"
    for name, what in others.items():
        off = final(record, name)
        reason += f"; {what}, by {off.mean():.0%} in the middle case "
        reason += f"[{off.min():.0%} to {off.max():.0%} over the seeds]"
        if name == "gradient":
            tests.append(off.max() < TOLERANCE)
    return Verdict.of(tests, reason)


def _declare(name, chapter, claim, source, criterion="", **others):
    return Experiment(
        name=f"identity_{name}",
        claim=claim,
        source=source,
        chapter=chapter,
        run=run,
        data=None,
        config={"identity": name, "epochs": 1, "cases": 100},
        grid=({},),
        verdict=partial(verdict, others=others),
        criterion=f"In no random case is it off by more than {TOLERANCE:g} of its size, in float64, "
        f"with derivatives by complex steps.{criterion}",
        seeds=tuple(range(10)),
        core_minutes=0.01,
        code=("experiments/_identities.py",),
        quick={"cases": 5},
    )


EXPERIMENTS = [
    _declare(
        "backward",
        "layer/backward",
        "With g = ∂L/∂y the gradient is ∂L/∂x = (γ/σ)(g − mean g − x̂ · mean(g x̂)), where "
        "σ² is the variance plus ε.",
        "Derived here; Ioffe & Szegedy (2015, section 3) give it node by node",
    ),
    _declare(
        "projection",
        "layer/backward",
        "σ ∂x̂/∂x is symmetric and has the eigenvalues 0, ε/(variance + ε), and m − 2 times 1.",
        "Derived here",
    ),
    _declare(
        "bound",
        "layer/transform",
        "At ε = 0 no standardised value of a batch of m is larger than √(m − 1), one value against "
        "equals reaches that, and a batch of two becomes ±1.",
        "Samuelson (1968)",
    ),
    _declare(
        "gradient_norm",
        "layer/backward",
        "At ε = 0, ‖∂L/∂x‖² = (γ²/σ²)(‖g‖² − ⟨1, g⟩²/m − ⟨g, x̂⟩²/m).",
        "Santurkar et al. (2018, theorem 4.1), where it bounds one network's gradient by another's",
        copied="with 1/√m in the last term, as it is also printed, the right side is too small",
    ),
    _declare(
        "scale_invariance",
        "layer/backward",
        "At ε = 0 the gradient of weights in front of batch norm is at right angles to them, so "
        "‖w − η∇L‖² = ‖w‖² + η²‖∇L‖²: gradient descent makes them longer at every step.",
        "Derived here; van Laarhoven (2017) and Li & Arora (2020) build on it",
    ),
    _declare(
        "redundant_bias",
        "layer/backward",
        "The gradient of a bias in front of batch norm is 0.",
        "Ioffe & Szegedy (2015, section 3.2): such a bias can be left out",
    ),
    _declare(
        "chain_orders",
        "why/deep_linear_chain",
        "After a gradient step w − ηg the output of a deep linear chain of l weights is a "
        "polynomial in η whose coefficient of order k is a sum over the C(l, k) choices of k "
        "weights; that of order 1 is −gᵀg.",
        "Goodfellow, Bengio & Courville (2016, section 8.7.1)",
    ),
    _declare(
        "chain_bound",
        "why/deep_linear_chain",
        "With the normalised step η = δ/gᵀg and 0 < δ ≤ ŷ the new output of a deep linear chain "
        "lies between ŷ − δ and ŷ exp(−δ/ŷ), at any depth.",
        "Derived here",
    ),
    _declare(
        "folding",
        "layer/inference",
        "At inference, batch norm and the linear layer in front of it are exactly one linear layer.",
        "Ioffe & Szegedy (2015, section 3.1)",
    ),
    _declare(
        "renorm",
        "layer/inference",
        "Batch renormalization without clipping normalises by the running statistics.",
        "Ioffe (2017)",
        " The second test asks the same of the gradients.",
        gradient="its gradient, with r and d held fixed, differs from that of the same function "
        "with all statistics fixed",
    ),
    _declare(
        "mean_variance",
        "layer/inference",
        "Over all batches of m independent draws from n values of variance σ² the batch mean has "
        "the variance σ²/m; drawn without replacement, as an epoch draws, (σ²/m)(n − m)/(n − 1).",
        "Luo et al. (2019) use the first; both are classical",
        copied="the first formula where the draws are without replacement, from 3 to 6 values, is "
        "too large",
    ),
    _declare(
        "total_variance",
        "layer/inference",
        "The variance of all data is the mean of the batches' variances plus the variance of their "
        "means, each batch weighted by its size.",
        "Wu & Johnson (2021) on statistics for inference; the law of total variance",
        copied="without its second term the right side is too small",
    ),
]
