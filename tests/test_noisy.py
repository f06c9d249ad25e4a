"""Noisy batch norm: the noise is that of its source, and the distances are what they are called."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional as F

import bn
from bn import experiments, noisy, shift
from bn.experiments import noisy_batch_norm as declared
from bn.noisy import Noise

EXPERIMENT = experiments.get("noisy_batch_norm")


# ------------------------------------------------------------------------------------- the noise


@pytest.mark.parametrize("k", [0.5, 1.0, 8.0])
def test_a_units_shift_and_scale_are_those_of_algorithm_1(k):
    torch.manual_seed(0)
    layer, a = Noise(2000, k), torch.empty(400, 2000)
    scale, shift_ = (t.double().numpy() for t in layer.draw(a))
    mu, sigma = shift_.mean(0), scale.mean(0)  # over the examples: close to the unit's own
    slack = 4 * 0.1 * k / np.sqrt(400)
    assert stats.kstest(mu, stats.uniform(-0.5 * k, k).cdf).pvalue > 1e-3
    assert stats.kstest(sigma, stats.uniform(1, 0.25 * k).cdf).pvalue > 1e-3
    assert abs(mu).max() < 0.5 * k + slack
    assert sigma.min() > 1 - slack
    assert sigma.max() < 1 + 0.25 * k + slack
    assert abs(np.corrcoef(mu, sigma)[0, 1]) < 0.1
    # of each example around its unit's: uniform of half-width k/10, normal of deviation k/10
    assert abs(shift_ - mu).max() < 0.1 * k + slack
    assert (shift_ - mu).std() == pytest.approx(0.1 * k / np.sqrt(3), rel=0.01)
    assert (scale - sigma).std() == pytest.approx(0.1 * k, rel=0.01)
    assert stats.kurtosis((shift_ - mu).ravel()[:50_000]) == pytest.approx(-1.2, abs=0.1)
    assert stats.kurtosis((scale - sigma).ravel()[:50_000]) == pytest.approx(0, abs=0.1)


def test_it_scales_first_and_then_shifts():
    layer, a = Noise(3, 2.0), torch.randn(5, 3)
    torch.manual_seed(1)
    scale, shift_ = layer.draw(a)
    torch.manual_seed(1)
    torch.testing.assert_close(layer(a), scale * a + shift_)


def test_the_gradient_sees_the_scale_and_not_the_draw():
    layer, a = Noise(3), torch.randn(5, 3, requires_grad=True)
    torch.manual_seed(1)
    layer(a).sum().backward()
    torch.manual_seed(1)
    torch.testing.assert_close(a.grad, layer.draw(a.detach())[0])


def test_every_step_draws_anew_and_a_steady_unit_keeps_its_own():
    a = torch.zeros(4000, 50)
    moving, steady = Noise(50, 1.0), Noise(50, 1.0, steady=True)
    jump = (moving(a).mean(0) - moving(a).mean(0)).abs().mean()
    assert jump == pytest.approx(1 / 3, abs=0.15)
    still = (steady(a).mean(0) - steady(a).mean(0)).abs().mean()
    assert still < 0.01
    assert steady(a).mean(0).abs().mean() == pytest.approx(0.25, abs=0.1)
    assert not torch.equal(steady(a), steady(a))  # the examples are jittered anew


def test_positions_of_an_image_are_examples():
    a = torch.zeros(30, 4, 9, 9)
    y = Noise(4, 1.0)(a)
    assert y.shape == a.shape
    centres = y.mean((2, 3))  # (examples, channels): one centre for each channel
    assert centres.std(0).max() < 0.03
    assert y.std((0, 2, 3)) == pytest.approx(0.1 / np.sqrt(3), abs=0.005)


def test_without_training_or_strength_everything_passes_as_it_is():
    a = torch.randn(6, 3)
    assert Noise(3).eval()(a) is a
    assert Noise(3, 0)(a) is a


def test_it_keeps_the_precision_and_refuses_what_does_not_fit():
    assert Noise(3)(torch.zeros(2, 3, dtype=torch.float64)).dtype == torch.float64
    with pytest.raises(ValueError, match=r"expected \(n, 3, …\), got a batch of shape \(2, 4\)"):
        Noise(3)(torch.zeros(2, 4))
    with pytest.raises(ValueError, match="strength must be 0 or more, got -1"):
        Noise(3, -1)
    assert repr(Noise(3, 2.0, steady=True)) == "Noise(3, strength=2.0, steady=True)"


# --------------------------------------------------------------------------------- the networks


@pytest.mark.parametrize("nonlinearity", ["sigmoid", "relu"])
def test_all_versions_of_a_network_start_from_the_same_weights(nonlinearity):
    built = []
    for arm in (declared.PLAIN, declared.NORM, declared.NOISY, {**declared.NOISY, "steady": True}):
        torch.manual_seed(3)
        built.append(
            noisy.network(activation=nonlinearity, in_features=64, width=7, depth=2, **arm)
        )
    for other in built[1:]:
        for name, value in built[0].state_dict().items():
            assert torch.equal(other.state_dict()[name], value), name
    names = [name for name, _ in built[2].named_children()]
    assert names[1:5] == ["linear1", "norm1", "noise1", f"{nonlinearity}1"]


def test_the_relu_network_starts_as_glorot_and_bengio_say():
    torch.manual_seed(0)
    model = noisy.network(False, activation="relu", in_features=196, width=600, depth=1)
    assert model.linear1.weight.var().item() == pytest.approx(2 / (196 + 600), rel=0.02)
    assert not model.linear1.bias.any()


# --------------------------------------------------------------------------------- the training


def test_a_step_is_plain_gradient_descent_on_the_batches_of_bn_train():
    digits = bn.data.digits()
    torch.manual_seed(0)
    model = noisy.network(True, in_features=64, width=9, depth=1)
    torch.manual_seed(0)
    twin = noisy.network(True, in_features=64, width=9, depth=1)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.3)
    order = np.random.default_rng((5, 0)).permutation(len(digits.x_train))
    walk = noisy.steps(model, digits, batch_size=60, lr=0.3, seed=5)
    for step in itertools.islice(walk, 20):
        batch = order[60 * step.number : 60 * (step.number + 1)]
        x, y = torch.as_tensor(digits.x_train[batch]), torch.as_tensor(digits.y_train[batch])
        assert torch.equal(step.images, x)
        assert torch.equal(step.labels, y)
        logits = twin.train()(x)
        loss = F.cross_entropy(logits, y)
        assert step.loss == pytest.approx(loss.item(), rel=1e-5)
        assert step.accuracy == pytest.approx((logits.argmax(1) == y).double().mean().item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_a_network_in_evaluation_mode_is_trained_in_training_mode():
    model = noisy.network(True, in_features=64, width=9, depth=1, strength=1).eval()
    next(noisy.steps(model, bn.data.digits(), batch_size=60, lr=0.1, seed=0))
    assert model.training
    assert model.norm1.num_batches_tracked == 1


def test_what_is_left_of_a_pass_is_left_out():
    digits = bn.data.digits()
    model = noisy.network(False, in_features=64, depth=0)
    walk = noisy.steps(model, digits, batch_size=1000, lr=0.1, seed=0)
    sizes = [len(step.labels) for step in itertools.islice(walk, 3)]
    assert sizes == [1000, 1000, 1000]


def test_recalibration_takes_the_statistics_without_noise():
    images = torch.as_tensor(bn.data.digits().x_train)
    torch.manual_seed(0)
    model = noisy.network(True, in_features=64, width=8, depth=2, strength=4).train()
    model(images)  # statistics with noise
    noisy.recalibrate(model, images, batch_size=len(images))
    assert model.training
    assert model.norm1.training
    assert model.norm1.momentum == 0.1
    model.eval()
    z = model.linear1(images.flatten(1))
    torch.testing.assert_close(model.norm1.running_mean, z.mean(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.norm1.running_var, z.var(0), rtol=1e-4, atol=1e-4)
    a = torch.sigmoid(F.batch_norm(z, None, None, training=True))
    z = model.linear2(a)
    torch.testing.assert_close(model.norm2.running_mean, z.mean(0), rtol=1e-3, atol=1e-3)


# -------------------------------------------------------------------------------- the distances


def test_the_distance_is_the_mean_wasserstein_distance():
    rng = np.random.default_rng(0)
    before, after = rng.normal(size=(80, 6)), rng.gamma(2, 3, size=(80, 6))
    absolute, relative = noisy.distance(before, after)
    each = [stats.wasserstein_distance(x, y) for x, y in zip(before.T, after.T, strict=True)]
    spread = np.sqrt((before.var(0) + after.var(0)) / 2).mean()
    assert absolute == pytest.approx(np.mean(each))
    assert relative == pytest.approx(np.mean(each) / spread)
    assert noisy.distance(7 * before, 7 * after) == pytest.approx((7 * absolute, relative))


def test_the_distance_knows_no_order_and_no_direction():
    rng = np.random.default_rng(1)
    before, after = rng.normal(size=(2, 50, 3))
    assert noisy.distance(before, rng.permutation(before)) == (0, 0)
    assert noisy.distance(before, after) == pytest.approx(noisy.distance(after, before))


def test_the_distance_of_units_without_spread_and_of_other_shapes():
    absolute, relative = noisy.distance(np.zeros((4, 2)), np.ones((4, 2)))
    assert absolute == 1
    assert np.isnan(relative)
    with pytest.raises(ValueError, match=r"\(4, 2\) and \(5, 2\)"):
        noisy.distance(np.zeros((4, 2)), np.zeros((5, 2)))


def test_both_definitions_take_a_noisy_network():
    """The gradients are taken in float64, with the same noise for both unless it is reseeded."""
    digits = bn.data.digits()
    torch.manual_seed(0)
    model = noisy.network(True, in_features=64, width=8, depth=2, strength=1)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    batch = digits.x_train[:60], digits.y_train[:60]
    found = shift.internal_covariate_shift(model, *batch, lr=1e-9)
    assert all(layer["cosine"] > 1 - 1e-9 for layer in found.values())
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


# ------------------------------------------------------------------------------- the experiment

SMALL = {
    "networks": {
        "sigmoid": {"side": 8, "sizes": {"in_features": 64, "width": 12, "depth": 2}},
        "relu": {"side": 4, "sizes": {"in_features": 16, "width": 9, "depth": 4}},
    },
    "epochs": 1, "steps": 40, "batch_size": 60, "window": 10, "test_every": 20, "measure": 200,
    "probe": 50, "looks": [2, 12], "lags": [1, 10], "drawn": [0],
    "traces": {"steps": [5, 8], "run": [0, 40, 10]},
}  # fmt: skip


def run(network, arm, seed=0):
    params = {"network": network, "lr": 0.5, **arm}
    (row,) = declared.run(SMALL, params, seed, bn.data.digits(), None)
    return row


@pytest.mark.parametrize("network", ["sigmoid", "relu"])
def test_a_unit_measures_what_it_says_and_repeats(network):
    row = run(network, declared.NOISY)
    layers = SMALL["networks"][network]["sizes"]["depth"] + 1
    assert {k: len(v) for k, v in row.items() if isinstance(v, list)} == {
        "loss": 4, "accuracy": 4, "test_loss": 2, "test_accuracy": 2, "gain": layers - 1,
        **{k + m: 2 for k in ("", "held_") for m in ("moved", "shift")},
        **{k + m: layers - 1 for k in ("", "fresh_") for m in ("norm", "relative", "cosine")},
    }  # fmt: skip
    assert [len(v) for v in row["traces"].values()] == [3, 4]
    assert all(q == sorted(q) for trace in row["traces"].values() for q in trace)
    assert row["shift"][0] > 3 * row["held_shift"][0]
    assert np.mean(row["fresh_cosine"]) < np.mean(row["cosine"])
    assert row == run(network, declared.NOISY)
    assert "traces" not in run(network, declared.NOISY, seed=1)


def test_where_there_is_no_noise_held_and_fresh_are_the_same():
    for arm in (declared.PLAIN, declared.NORM):
        row = run("sigmoid", arm)
        assert row["shift"] == row["held_shift"]
        assert row["norm"] == row["fresh_norm"]
        assert ("gain" in row) == arm["batch_norm"]
    assert run("sigmoid", declared.PLAIN)["recalibrated_accuracy"] == pytest.approx(
        run("sigmoid", declared.PLAIN)["test_accuracy"][-1]
    )


@pytest.mark.parametrize("arm", [declared.NORM, declared.NOISY], ids=["norm", "noisy"])
def test_noise_and_measuring_leave_the_arms_paired(arm):
    """What is looked at, and when, changes nothing of the training."""
    config = {**SMALL, "looks": [2], "lags": [1], "drawn": []}
    params = {"network": "sigmoid", "lr": 0.5, **arm}
    (row,) = declared.run(config, params, 0, bn.data.digits(), None)
    assert row["loss"] == run("sigmoid", arm)["loss"]


def test_the_grid_has_every_arm_once():
    points = [tuple(point.items()) for point in EXPERIMENT.grid]
    assert len(points) == len(set(points)) == 24
    for network, rates in declared.RATES.items():
        for lr, arm in itertools.product(rates, (declared.PLAIN, declared.NORM, declared.NOISY)):
            assert {"network": network, "lr": lr, **arm} in EXPERIMENT.grid
        for k in declared.STRENGTHS:
            point = {"network": network, "lr": rates[0], **declared.NORM, "strength": k}
            assert point in EXPERIMENT.grid


def made_up(noisy_loss=0.3, norm_loss=0.2, plain_loss=1.0, moved=(0.3, 0.1), seeds=4):
    """A record in which the losses and distances are as given, up to a little luck."""
    rng = np.random.default_rng(0)
    luck = rng.uniform(0.99, 1.01, (len(EXPERIMENT.grid), seeds))

    def row(params, factor):
        kind = "noisy" if params["strength"] else "norm" if params["batch_norm"] else "plain"
        loss = {"noisy": noisy_loss, "norm": norm_loss, "plain": plain_loss}[kind] * factor
        far = moved[0 if kind == "noisy" else 1] * factor
        return {"epoch": 1, "loss": [9.0, *[loss] * 4], "moved": [far, 9.0], "shift": [far, 9.0]}

    return {
        "experiment": "noisy_batch_norm",
        "seeds": list(range(seeds)),
        "units": [
            {"params": params, "seed": seed, "epochs": [row(params, luck[i, seed])]}
            for i, params in enumerate(EXPERIMENT.grid)
            for seed in range(seeds)
        ],
    }


@pytest.mark.parametrize(
    ("how", "word"),
    [
        ({}, "holds"),
        ({"noisy_loss": 0.45}, "holds with a caveat"),  # costs more than a quarter
        ({"noisy_loss": 0.398}, "holds with a caveat"),  # less, and the interval contains it
        ({"noisy_loss": 1.5}, "holds with a caveat"),  # worse than without
        ({"moved": (0.1, 0.3)}, "holds with a caveat"),  # no less stable than without
        ({"noisy_loss": 1.5, "moved": (0.1, 0.3)}, "did not reproduce here"),
    ],
)
def test_the_verdict_follows_the_criterion(how, word):
    assert declared.verdict(made_up(**how)).word == word


def test_a_cost_whose_interval_contains_the_quarter_does_not_pass():
    for network in declared.RATES:
        cost = declared.comparison(made_up(noisy_loss=0.398), network)["cost"]
        assert cost.low < 0 < cost.high


def test_the_verdicts_numbers_are_the_records():
    found = declared.comparison(made_up(), "relu")
    assert found["plain"].mean == pytest.approx(-0.7, abs=0.02)
    assert found["cost"].mean == pytest.approx(0.3 - 0.2 - (1.0 - 0.2) / 4, abs=0.02)
    assert np.exp(found["moved"].mean) == pytest.approx(3, abs=0.1)
    assert "3" in declared.verdict(made_up()).reason


def test_a_layer_of_noise_fits_between_any_two_layers():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), Noise(4), nn.ReLU())
    assert model(torch.randn(8, 1, 8, 8)).shape == (8, 4, 6, 6)
