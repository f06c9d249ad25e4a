"""Chapter evidence/loss_landscape: its code is the package's, its words are the records'."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from chapters import Chapter

import bn
from bn.experiments import loss_landscape as experiments
from bn.experiments.loss_landscape import MEASURES, arm, compared, inserted, measure, rise
from bn.results import curves, interval

NOTEBOOK = Chapter("evidence/loss_landscape")
WALKS = bn.results.load("loss_landscape")
POINTS = [(p["network"], p["lr"]) for p in experiments.RATES]


def pair(network, lr):
    return [arm(WALKS, network=network, lr=lr, batch_norm=b) for b in (True, False)]


def same_place(network, lr):
    record = bn.results.load("inserted_batch_norm")
    return [inserted(record, which, network=network, lr=lr) for which in ("inserted", "plain")]


def text(*names):
    return "\n".join(NOTEBOOK.source(name) for name in names)


# ---------------------------------------------------------------------- the chapter's code


def test_the_walk_is_the_packages():
    chapter = NOTEBOOK.run("setup", "walk-code")
    torch.manual_seed(3)
    model = bn.models.lenet(image=8).train()
    images, labels = chapter["images"][:20], chapter["labels"][:20]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    got = chapter["walk"](model, images, labels, 0.05, [0.5, 2, 4])
    want = bn.landscape.probe(model, images, labels, 0.05, [0.5, 2, 4])
    np.testing.assert_allclose(
        got, [np.ptp(want["losses"]), max(want["changes"]), want["beta"]], rtol=1e-3
    )
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_the_solution_of_the_curvature_is_what_autograd_finds():
    chapter = NOTEBOOK.run("setup", "curvature-code", "ex-curvature-solution")
    rng = np.random.default_rng(5)
    for _ in range(20):
        m = int(rng.integers(3, 9))
        A, c = rng.normal(size=(m, m)), rng.normal(size=m)
        x, gamma = rng.normal(size=m), rng.normal()
        x_hat = bn.standardize(x, eps=0.0)
        y = gamma * x_hat

        def loss(x, gamma=gamma, A=A, c=c):
            y = gamma * chapter["standardize"](x)
            return 0.5 * y @ torch.tensor(A + A.T) @ y + torch.tensor(c) @ y

        g = (A + A.T) @ y + c
        t = torch.tensor(x, requires_grad=True)
        (d,) = torch.autograd.grad(loss(t), t)
        hessian = torch.autograd.functional.hessian(loss, t.detach())
        want = (d @ hessian @ d / (d @ d)).item()
        assert chapter["curvature"](x, g, A + A.T, gamma) == pytest.approx(want, rel=1e-6)


def test_the_other_solutions_are_what_the_package_measures():
    chapter = NOTEBOOK.run("setup", "ex-beta-solution", "ex-filter-solution")
    torch.manual_seed(0)
    model = bn.models.mlp(in_features=64)
    a, _ = bn.landscape.directions(model, seed=2)
    weight = model.linear1.weight.detach().numpy()
    raw = torch.randn(weight.shape, generator=torch.Generator().manual_seed(2)).numpy()
    np.testing.assert_allclose(
        chapter["filter_normalised"](raw, weight), a["linear1.weight"], rtol=1e-4, atol=1e-7
    )
    points = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    bowl = np.array([[3.0, 1.0], [1.0, 2.0]])
    want = np.linalg.norm(bowl[:, 0])
    assert chapter["effective_beta"](points, points @ bowl) == pytest.approx(want)


def test_the_condition_of_the_second_form_is_not_mild():
    shares = NOTEBOOK.run("setup", "curvature-condition")["shares"]
    assert shares[0.5] > 0.99
    assert 0.70 < shares[1] < 0.80  # "about three draws in four"
    assert shares[2] < 0.01  # "almost none"
    assert shares[8] == 0
    tried = bn.results.load("curvature_along_gradient")
    assert curves(tried, "bounded", scale=8).max() == 0
    assert max(curves(tried, "error", scale=scale).max() for scale in (0.5, 1, 8)) < 1e-13


# ------------------------------------------------------ what the text says of the records


def test_the_verdict_words_of_the_page_are_those_of_the_records():
    for name, cells in (
        ("curvature_along_gradient", ("curvature-sign",)),
        ("loss_landscape", ("record-words", "recap")),
        ("inserted_batch_norm", ("same-words", "recap")),
        ("loss_slices", ("slice-limits",)),
        ("deep_linear_network", ("deep-words", "recap")),
    ):
        word = bn.experiments.get(name).verdict(bn.results.load(name)).word
        for cell in cells:
            assert f"*{word}*" in text(cell), (name, cell)


def test_no_network_and_rate_has_all_three_measures_smaller():
    found = {p: {name: compared(*pair(*p), name) for name in MEASURES} for p in POINTS}
    for p, row in found.items():
        assert not all(f.high < 0 for f in row.values()), p
    for lr in (0.1, 2.56):  # "all three larger, at both rates"
        assert all(f.low > 0 for f in found["sigmoid", lr].values())
    closest = found["relu", 0.4]
    assert closest["range"].high < 0
    assert closest["change"].high < 0
    assert closest["beta"].low < 0 < closest["beta"].high
    smaller = [p for p in POINTS if compared(*pair(*p), "relative change").high < 0]
    assert smaller == [("sigmoid", 0.1), ("relu", 0.1), ("relu", 0.4)]


def test_before_and_after_the_plateau_the_order_is_the_reverse():
    for name in ("range", "change"):
        a, b = pair("relu", 0.1)
        ratios = np.median(measure(a, name) / measure(b, name), axis=0)
        steps = np.array(WALKS["config"]["stops"])
        assert ratios[steps <= 20].min() > 2
        assert ratios[steps >= 49].max() < 0.5
    for network, lr in (("relu", 0.1), ("sigmoid", 2.56)):
        _, plain = pair(network, lr)
        assert abs(np.median(plain["loss"], 0)[4] - np.log(10)) < 0.1  # at step 4: guessing


def test_off_the_plateau():
    chapter = NOTEBOOK.run("setup", "record-load", "record-later")
    for network, lr in (("sigmoid", 2.56), ("relu", 0.1), ("relu", 0.4)):
        a, b = pair(network, lr)
        both = np.maximum(a["loss"], b["loss"]) < np.log(10) / 2
        assert both.any(axis=1).all()
        for name in MEASURES:
            logs = np.where(both, np.log10(measure(a, name) / measure(b, name)), np.nan)
            want = interval(np.nanmedian(logs, axis=1))
            np.testing.assert_allclose(
                chapter["learning"](network, lr, name), 10 ** np.array(want[:3])
            )
        spread = chapter["learning"](network, lr, "range")
        assert 1 / 20 < spread[0] < 1 / 10
        assert chapter["learning"](network, lr, "change")[0] == pytest.approx(0.28, abs=0.06)
        assert 0.6 < chapter["learning"](network, lr, "beta")[0] < 1  # "a third at most"
    assert chapter["learning"]("relu", 0.1, "beta")[2] > 1
    never = pair("sigmoid", 0.1)[1]["loss"].min()
    assert never > np.log(10) / 2


def test_the_projection_removes_little_and_the_factor_decides():
    for p in experiments.RATES:
        kept = curves(WALKS, "kept", **p, batch_norm=True)[:, 0]
        assert np.median(kept) > 0.98
        scale = curves(WALKS, "scale", **p, batch_norm=True)[:, 0, 0]
        assert scale.min() > 1  # "at the start it is larger than 1"
        ratio = curves(WALKS, "ratio", **p, batch_norm=True)[:, 0]
        np.testing.assert_allclose(
            np.log(ratio), np.log(curves(WALKS, "scale", **p, batch_norm=True)[:, 0]), atol=0.9
        )


def test_the_shares_of_units_whose_scale_shrinks():
    late = curves(WALKS, "shrinking", network="sigmoid", lr=0.1, batch_norm=True)[:, 0, :, 2]
    assert np.median(late, axis=0).min() == 0  # the third layer: every γ grows
    every = [curves(WALKS, "shrinking", **p, batch_norm=True).ravel() for p in experiments.RATES]
    assert np.mean(np.concatenate(every)) == pytest.approx(0.5, abs=0.06)  # "close to one half"


# ----------------------------------------------------------------------- the same weights


def test_at_the_same_weights_the_relu_network_is_smoother_with_the_layer():
    found = {p: {name: compared(*same_place(*p), name) for name in MEASURES} for p in POINTS}
    for lr in (0.1, 0.4):
        assert found["relu", lr]["change"].high < 0
        assert found["relu", lr]["beta"].high < np.log10(0.6)
    for name in MEASURES:
        assert abs(found["sigmoid", 0.1][name].mean) < 0.02  # "next to nothing"


# ----------------------------------------------------------------------------- the slices


def test_the_slices_at_the_first_stop_and_the_last():
    record = bn.results.load("loss_slices")
    for batch_norm in (True, False):
        shape = (len(record["seeds"]), len(record["config"]["stops"]))
        assert rise(record, batch_norm).shape == shape
    other_way = rise(record, True)[:, 2] > rise(record, False)[:, 2]
    assert other_way.sum() == 9
    assert len(other_way) == 10
    assert (rise(record, True)[:, -1] < rise(record, False)[:, -1]).all()
    n = record["config"]["points"]
    centre = curves(record, "slices", batch_norm=False)[:, 0, 0].reshape(-1, n, n)
    assert abs(centre[:, n // 2, n // 2] - np.log(10)).max() < 0.2  # guessing


def test_halfway_to_the_edge_no_difference_can_be_told():
    record = bn.results.load("loss_slices")
    ticks = np.linspace(-1, 1, record["config"]["points"])
    square = np.isclose(np.maximum.outer(abs(ticks), abs(ticks)), 0.5)
    found = []
    for batch_norm in (True, False):
        last = curves(record, "slices", batch_norm=batch_norm)[:, 0, -1]
        last = last.reshape(-1, *square.shape)
        found.append(last[:, square].mean(axis=1) - last[:, len(ticks) // 2, len(ticks) // 2])
    gap = interval(found[0] - found[1])
    assert gap.low < 0 < gap.high
    chapter = NOTEBOOK.run("setup", "slice-record", known={"slices": record})
    assert chapter["halfway_gap"][:3] == pytest.approx(gap[:3])


# ------------------------------------------------------------------ the deep linear network


def linear(metric, lr, batch_norm):
    record = bn.results.load("deep_linear_network")
    return curves(record, metric, lr=lr, batch_norm=batch_norm)[:, 0]


@pytest.mark.parametrize("lr", [1e-3, 1e-4])
def test_the_deep_linear_network_statement_by_statement(lr):
    gain = np.log10(linear("loss", lr, True)[:, -1] / linear("loss", lr, False)[:, -1])
    assert interval(gain).high < 0  # it trains better
    assert (gain < 0).all()
    lowest = linear("cosine", lr, False).min(axis=1)
    assert interval(lowest).low < 0.9  # "almost no shift" did not reproduce
    more = linear("cosine", lr, True).mean(1) - linear("cosine", lr, False).mean(1)
    assert interval(more).high < 0  # more shift with batch norm
    if lr == 1e-3:
        assert np.sum(lowest < 0.25) == 9  # "nine of ten runs have a stop"
        assert len(lowest) == 10


def test_at_the_smaller_rate_the_plain_loss_hardly_moves_for_thirty_steps():
    stops = bn.results.load("deep_linear_network")["config"]["stops"]
    loss = linear("loss", 1e-4, False)
    assert np.median(loss[:, stops.index(30)] / loss[:, 0]) > 0.95
