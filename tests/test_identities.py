"""The identities hold on fresh draws, and a slip in any of them shows."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from bn import experiments, results
from bn.experiments import _identities

NAMES = [name for name in experiments.names() if name.startswith("identity_")]

# A slip for each identity: what the source says, what it says then.
SLIPS = [
    ("backward", "(g * x_hat).mean()", "(g * x_hat).sum()"),
    ("backward", "g - g.mean()", "g"),
    ("projection", "eps / (x.var() + eps)", "0"),
    ("projection", "np.ones(m - 2)", "np.full(m - 2, 0.999)"),
    ("bound", "reached = abs(standardize(alone)).max() / np.sqrt(m - 1)",
     "reached = abs(standardize(alone)).max() / np.sqrt(m)"),
    ("bound", "standardize(rng.standard_cauchy(m))", "1.2 * standardize(alone)"),
    ("gradient_norm", "g.sum() ** 2 / m", "g.sum() ** 2"),
    ("gradient_norm", "(m, np.sqrt(m))", "(np.sqrt(m), m)"),
    ("scale_invariance", "longer = w @ w + step @ step", "longer = w @ w"),
    ("redundant_bias", "loss(w, b)])", "loss(w, b) + b[0]])"),
    ("chain_orders", "g @ g", "g.sum()"),
    ("chain_orders", "combinations(range(depth), k)", "combinations(range(1, depth + 1), k)"),
    ("chain_bound", "1 - share - new", "1 - share / 2 - new"),
    ("chain_bound", "np.exp(-share)", "np.exp(-1.2 * share)"),
    ("folding", "(b - mean) * scale + beta)", "b * scale + beta)"),
    ("renorm", "x.std() / sigma", "sigma / x.std()"),
    ("renorm", "(x.mean() - mean)", "(mean - x.mean())"),
    ("mean_variance", "population.var() / m", "population.var(ddof=1) / m"),
    ("mean_variance", "(n - m) / (n - 1)", "(n - m) / n"),
    ("total_variance", "(within + between)", "within"),
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_holds_on_draws_that_no_record_used(name):
    try_once = getattr(_identities, name.removeprefix("identity_"))
    rng = np.random.default_rng(2_000)
    assert max(try_once(rng)["error"] for _ in range(20)) < 1e-11


@pytest.mark.parametrize(("name", "said", "says"), SLIPS)
def test_a_slip_shows(name, said, says):
    source = inspect.getsource(getattr(_identities, name))
    assert said in source
    namespace = dict(vars(_identities))
    exec(source.replace(said, says), namespace)
    rng = np.random.default_rng(2_000)
    errors = [namespace[name](rng)["error"] for _ in range(30)]
    assert max(errors) > 1e-3


def test_every_identity_is_declared_and_has_a_slip():
    tried = {name.removeprefix("identity_") for name in NAMES}
    assert tried == {name for name, *_ in SLIPS}


def test_derivatives_are_exact_to_rounding():
    x = np.array([0.3, -2.0])
    found = _identities.derivative(lambda x: np.array([x[0] * x[1], np.exp(x[0]), x[1] ** 3]), x)
    np.testing.assert_allclose(found, [[-2, 0.3], [np.exp(0.3), 0], [0, 12]], rtol=1e-15)


def test_run_takes_the_worst_error_and_the_middle_copy():
    e = experiments.get("identity_total_variance")
    rng = np.random.default_rng(3)
    cases = [_identities.total_variance(rng) for _ in range(5)]
    (row,) = e.run({**e.config, "cases": 5}, {}, 3, None, None)
    assert row == {
        "epoch": 1,
        "error": max(case["error"] for case in cases),
        "copied": sorted(case["copied"] for case in cases)[2],
    }


@pytest.mark.parametrize(
    ("name", "changes", "word"),
    [
        ("identity_backward", {}, "holds"),
        ("identity_backward", {"error": 2e-9}, "did not reproduce here"),
        ("identity_gradient_norm", {"copied": 0.0}, "holds"),
        ("identity_renorm", {}, "holds with a caveat"),
        ("identity_renorm", {"gradient": 0.0}, "holds"),
    ],
)
def test_verdict(name, changes, word):
    record = results.load(name)
    for unit in record["units"]:
        unit["epochs"][0].update(changes)
    assert experiments.get(name).verdict(record).word == word
