"""Chapter evidence/noisy_batch_norm: what it says of the record is true of it, and its code is the
package's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from chapters import Chapter
from scipy import stats

import bn
from bn import noisy
from bn.experiments import noisy_batch_norm as declared
from bn.experiments.noisy_batch_norm import NOISY, NORM, PLAIN, RATES, SHAKEN
from bn.results import curves, interval

NOTEBOOK = Chapter("evidence/noisy_batch_norm")
RECORD = bn.results.load("noisy_batch_norm")
TEXT = "\n".join(NOTEBOOK.source(name) for name in NOTEBOOK.cells)


def values(metric, network, arm, place=0):
    return curves(RECORD, metric, network=network, lr=RATES[network][place], **arm)[:, 0]


def loss(network, arm, place=0):
    return declared.final_loss(RECORD, network=network, lr=RATES[network][place], **arm)


def noise(k, **more):
    return {**NORM, "strength": k, **more}


# ------------------------------------------------------------------------ its code, its formulas


@pytest.fixture(scope="module")
def chapter():
    return NOTEBOOK.run("setup", "noise-code", "next-code", "distance-code")


@pytest.mark.parametrize("k", [1, 3])
def test_the_chapters_noise_is_that_of_the_package(chapter, k):
    a = np.zeros((2000, 300))
    torch.manual_seed(0)
    ours = noisy.Noise(300, k)(torch.zeros(2000, 300)).numpy()
    theirs = chapter["noise"](a, k, np.random.default_rng(0))[0]
    assert stats.ks_2samp(ours.mean(0), theirs.mean(0)).pvalue > 1e-3
    assert ours.std(0) == pytest.approx(theirs.std(0), rel=0.1)
    ones = torch.ones(2000, 300)
    ours = noisy.Noise(300, k)(ones).numpy()
    theirs, mu, sigma = chapter["noise"](ones.numpy(), k, np.random.default_rng(1))
    assert theirs.mean(0) == pytest.approx(mu + sigma, abs=0.02 * k)
    assert stats.ks_2samp(ours.mean(0), theirs.mean(0)).pvalue > 1e-3
    assert ours.std(0).mean() == pytest.approx(theirs.std(0).mean(), rel=0.02)


@pytest.mark.parametrize("k", [0.5, 2.0])
def test_the_mean_jump_is_a_third_of_the_strength(k):
    mu = np.random.default_rng(0).uniform(-k / 2, k / 2, (2, 400_000))
    assert abs(mu[0] - mu[1]).mean() == pytest.approx(k / 3, rel=0.01)
    assert np.sqrt(((mu[0] - mu[1]) ** 2).mean()) == pytest.approx(k / np.sqrt(6), rel=0.01)


def test_a_shared_shift_vanishes_behind_a_linear_layer_whatever_its_size(chapter):
    for k in (1, 100):
        assert chapter["arrives"](lambda a: a, k) < 1e-9
    bent = chapter["reach"]
    assert bent["sigmoid"] < bent["ReLU"]


# ----------------------------------------------------------------- what it says of the trainings


def test_enough_seeds():
    assert len(RECORD["seeds"]) >= 5


def test_the_noisy_sigmoid_network_trains_as_with_batch_norm():
    gap = interval(loss("sigmoid", NOISY) - loss("sigmoid", NORM))
    gain = loss("sigmoid", PLAIN) - loss("sigmoid", NORM)
    assert gap.high < 0.02 * gain.mean()  # "costs the first nothing that we could find"
    assert interval(loss("sigmoid", NOISY) - loss("sigmoid", PLAIN)).high < -1


def test_the_noisy_relu_network_starts_faster_than_without_and_ends_no_better():
    early = [values("loss", "relu", arm)[:, 4:8].mean(1) for arm in (NORM, NOISY, PLAIN)]
    assert interval(early[1] - early[0]).low > 0
    assert interval(early[2] - early[1]).low > 0.1
    assert interval(loss("relu", NOISY) - loss("relu", PLAIN)).high > 0
    assert loss("relu", NOISY).mean() > loss("relu", PLAIN).mean()
    assert interval(loss("relu", NOISY) - loss("relu", NORM)).low > 0


def test_noise_helps_the_plain_sigmoid_network_and_slows_the_plain_relu_network():
    assert interval(loss("sigmoid", SHAKEN) - loss("sigmoid", PLAIN)).high < 0
    assert interval(loss("relu", SHAKEN) - loss("relu", PLAIN)).low > 0
    assert loss("relu", SHAKEN).max() < 1  # "but it trains": guessing costs 2.3


def test_at_its_own_better_rate_the_plain_sigmoid_network_stays_behind():
    assert declared.best_rate(RECORD, "sigmoid", PLAIN) == RATES["sigmoid"][1]
    assert declared.comparison(RECORD, "sigmoid")["best"].high < 0


def test_a_rate_four_times_as_large_diverges_in_the_other_record():
    sweep = bn.results.load("mnist_learning_rate")
    rates = sorted({u["params"]["lr"] for u in sweep["units"]})
    assert rates[-1] / rates[-2] == 4
    assert rates[-2] / RATES["sigmoid"][1] == pytest.approx(1, rel=0.05)
    last = bn.results.final(sweep, "train_loss", network="mlp", batch_norm=False, lr=rates[-1])
    assert last.min() > np.log(10)  # worse than guessing


# ------------------------------------------------------------------ what it says of the distances


def test_the_noise_moves_as_far_in_one_step_as_in_hundreds_and_the_plain_network_drifts():
    for network in RATES:
        for metric in ("moved", "shift"):
            noisy_, plain = (values(metric, network, arm).mean(0) for arm in (NOISY, PLAIN))
            assert noisy_.max() < 1.2 * noisy_.min()
            assert (np.diff(plain) > 0).all()
            assert plain[-1] > 2 * plain[0]


def test_which_distances_are_larger_with_noise():
    sigmoid, relu = (declared.comparison(RECORD, network) for network in RATES)
    assert relu["moved"].low > 0
    assert relu["shift"].low > 0
    assert sigmoid["moved"].low > np.log(10)
    assert abs(sigmoid["shift"].mean) < np.log(1.5)  # "level with it"
    assert sigmoid["shift"].low < 0 < sigmoid["shift"].high  # "the interval just contains 1"
    late = {
        (network, metric): interval(
            np.log(values(metric, network, PLAIN)[:, 3] / values(metric, network, NOISY)[:, 3])
        )
        for network in RATES
        for metric in ("moved", "shift")
    }
    assert late["sigmoid", "moved"].low > 0
    assert late["sigmoid", "shift"].low > 0
    assert late["relu", "moved"].high < 0
    assert late["relu", "shift"].low > 0
    for network in RATES:  # the one measure in the order of the early training losses
        far = [values("shift", network, arm)[:, 3] for arm in (NORM, NOISY)]
        assert interval(np.log(far[1] / far[0])).low > 0


def test_batch_norm_alone_moves_least_relative_to_its_spread():
    for network in RATES:
        ratio = values("shift", network, NORM)[:, 0] / values("shift", network, PLAIN)[:, 0]
        assert interval(np.log(ratio)).high < 0
        held = [values("held_shift", network, arm)[:, 0] for arm in (NOISY, NORM)]
        assert held[0].mean() == pytest.approx(held[1].mean(), rel=0.2)  # "as little of it"


def test_by_gradients_the_order_is_another_one():
    mean = {
        (network, name): values(metric, network, arm).mean(1)
        for network in RATES
        for name, metric, arm in (
            ("plain", "relative", PLAIN),
            ("norm", "relative", NORM),
            ("held", "relative", NOISY),
            ("fresh", "fresh_relative", NOISY),
        )
    }
    assert mean["sigmoid", "plain"].max() < 0.05
    for name in ("norm", "held", "fresh"):
        assert interval(mean["sigmoid", name] - mean["sigmoid", "plain"]).low > 0.3
    gap = interval(mean["relu", "norm"] - mean["relu", "plain"])
    assert gap.low < 0 < gap.high  # "at the edge of what we can tell"
    relu = [mean["relu", name].mean() for name in ("plain", "norm", "held", "fresh")]
    assert max(relu) < 1.6 * min(relu)  # "all lie close together"
    assert interval(mean["relu", "fresh"] - mean["relu", "plain"]).low > 0


# ----------------------------------------------------------- what it says of stronger noise


def test_moving_costs_more_than_standing_and_more_the_farther():
    for network in RATES:
        cost = {
            k: interval(loss(network, noise(k)) - loss(network, noise(k, steady=True)))
            for k in (1, 4)
        }
        assert cost[1].low > 0
        assert cost[4].low > 2 * cost[1].mean
    gain = loss("sigmoid", PLAIN) - loss("sigmoid", NORM)
    assert interval(loss("sigmoid", noise(4)) - loss("sigmoid", NORM)).high < 0.1 * gain.mean()
    assert interval(loss("sigmoid", noise(8)) - loss("sigmoid", PLAIN)).high < -1
    assert loss("relu", noise(8)).mean() > 1


def test_noise_drawn_once_helps_the_sigmoid_network():
    gap = interval(loss("sigmoid", noise(1, steady=True)) - loss("sigmoid", NORM))
    assert gap.high < 0
    gamma = [values("gain", "sigmoid", noise(k)).mean(1) for k in (8, 0)]
    assert interval(gamma[0] - gamma[1]).low > 0


def test_statistics_collected_with_noise_are_wrong_without_it():
    stored = values("test_accuracy", "relu", noise(4))[:, -1]
    again = values("recalibrated_accuracy", "relu", noise(4))
    assert interval(again - stored).low > 0.3
    plain = values("test_accuracy", "relu", PLAIN)[:, -1]
    gain = interval(values("recalibrated_accuracy", "relu", NOISY) - plain)
    assert gain.low > 0  # "better than what it shows while it is being shaken"


def test_the_verdict_on_the_page_is_the_records():
    (output,) = NOTEBOOK.cells["verdict-code"]["outputs"]
    *_, last = "".join(output["text"]).strip().splitlines()
    assert last == f"Verdict: {declared.verdict(RECORD).word}" == "Verdict: holds with a caveat"


def test_what_keeps_the_claim_from_holding_in_full():
    sigmoid, relu = (declared.comparison(RECORD, network) for network in RATES)
    failed = {name for name in ("moved", "shift") if sigmoid[name].low <= 0}
    failed |= {name for name in ("plain", "cost", "best") if sigmoid[name].high >= 0}
    assert failed == {"shift"}
    assert relu["plain"].high >= 0
    assert relu["best"].high >= 0
    assert relu["cost"].low > 0
    assert relu["moved"].low > 0
    assert relu["shift"].low > 0


def test_the_criterion_is_the_declared_one():
    experiment = bn.experiments.get("noisy_batch_norm")
    assert "a quarter" in experiment.criterion
    assert RECORD["config"] == experiment.config
    assert len({str(unit["params"]) for unit in RECORD["units"]}) == len(experiment.grid)
