"""Chapter evidence/mnist: what it says of the records is true of them, and its one line runs."""

from __future__ import annotations

import itertools
import json

import matplotlib
import numpy as np
import pytest
from chapters import Chapter

import bn
from bn import results

NOTEBOOK = Chapter("evidence/mnist")


def curves(name, metric="test_accuracy", batch_norm=True):
    return results.curves(bn.results.load(name), metric, batch_norm=batch_norm)


# ------------------------------------------------------ what the text says of the records


@pytest.mark.parametrize("name", ["mnist_mlp", "mnist_lenet", "mnist_convnet"])
def test_trains_faster_and_ends_higher(name):
    record = bn.results.load(name)
    assert len(record["seeds"]) >= 5
    assert (results.paired(record).differences > 0).all()
    assert results.paired(record).low > 0
    early = results.paired(record, "train_loss", epoch=0)
    assert early.high < 0


def test_the_verdicts_that_the_page_gives_are_those_of_the_records():
    for name in ("digits_mlp", "mnist_mlp", "mnist_lenet", "mnist_convnet"):
        assert bn.experiments.get(name).verdict(bn.results.load(name)).word == "holds"
    sweep = bn.experiments.get("mnist_learning_rate").verdict(
        bn.results.load("mnist_learning_rate")
    )
    assert sweep.word == "holds with a caveat"
    assert "**It holds with a caveat**" in "".join(NOTEBOOK.cells["rate-words"]["source"])


def test_the_gain_of_the_mlp_is_many_times_that_of_the_others():
    mlp, lenet, convnet = (
        results.paired(bn.results.load(f"mnist_{n}")) for n in ("mlp", "lenet", "convnet")
    )
    assert mlp.low > 10 * lenet.mean
    assert lenet.high < 0.01  # "a quarter of one" point
    assert lenet.low < 0.001  # "its interval nearly touches zero": under ten images
    assert mlp.low > convnet.high


def test_a_gap_shrinks_while_the_plain_network_catches_up():
    lenet, convnet = (bn.results.load(f"mnist_{name}") for name in ("lenet", "convnet"))
    second = results.paired(lenet, epoch=1)
    assert second.mean > 4 * results.paired(lenet).mean
    assert abs(second.mean - results.paired(convnet).mean) < 0.01  # "not far from"
    plain = curves("mnist_convnet", batch_norm=False).mean(0)
    assert plain[-1] - plain[-2] > 0.01  # "still gaining"


def test_the_plain_mlp_waits_on_a_plateau_and_leaves_it_in_the_third_epoch():
    plain = curves("mnist_mlp", batch_norm=False)
    assert plain[:, 0].max() < 0.12
    assert plain[:, 1].mean() < 0.15
    assert plain[:, 2].min() > 0.15
    assert plain[:, -1].mean() - plain[:, -2].mean() > 0.005  # "was still gaining"


def test_the_accuracy_with_batch_norm_can_fall():
    assert np.diff(curves("mnist_mlp")).min() < -0.02


def test_on_the_digits_the_plain_mlp_stays_at_chance():
    assert curves("digits_mlp", batch_norm=False)[:, -1].max() < 0.12
    assert curves("digits_mlp")[:, -1].min() > 0.9


def arm(network, batch_norm, lr):
    return {"network": network, "batch_norm": batch_norm, "lr": lr}


def test_with_its_own_rate_each_the_lenet_gains_and_the_mlp_may_not():
    sweep = bn.results.load("mnist_learning_rate")
    chosen = {}
    for network, flag in itertools.product(("mlp", "lenet"), (True, False)):
        rates = {u["params"]["lr"] for u in sweep["units"] if u["params"]["network"] == network}
        chosen[network, flag] = max(
            (arm(network, flag, lr) for lr in rates),
            key=lambda choice: results.final(sweep, "validation_accuracy", **choice).mean(),
        )
    gaps = {
        network: results.paired(
            sweep, "test_accuracy", a=chosen[network, True], b=chosen[network, False]
        )
        for network in ("mlp", "lenet")
    }
    assert chosen["mlp", True]["lr"] == chosen["mlp", False]["lr"] == 2.56
    assert (chosen["lenet", True]["lr"], chosen["lenet", False]["lr"]) == (0.16, 0.04)
    assert gaps["mlp"].low < 0 < gaps["mlp"].high
    assert gaps["lenet"].low > 0


def test_one_poor_run_of_the_plain_lenet_decides_its_rate():
    sweep = bn.results.load("mnist_learning_rate")

    def held_out(flag, lr):
        return np.sort(results.final(sweep, "validation_accuracy", **arm("lenet", flag, lr)))

    worst, *others = held_out(False, 0.16)
    assert worst < 0.75
    assert min(others) > held_out(False, 0.04).max()  # else the larger rate would have been chosen
    assert min(others) > held_out(True, 0.16).min() - 0.005  # "nearly as good as with batch norm"
    assert held_out(True, 0.16).min() > 0.98  # "no bad one"


def test_batch_norm_is_worth_its_time():
    timing = json.loads((results.FOLDER / "step_time.json").read_text(encoding="utf-8"))["nets"]
    ratios = {name: net["ratio"] for name, net in timing.items()}
    assert ratios["mlp"] > ratios["lenet"] > ratios["convnet"] > 1
    for name in ("mlp", "lenet", "convnet"):
        goal = curves(f"mnist_{name}", batch_norm=False)[:, -1].mean()
        epochs = 1 + int(np.argmax(curves(f"mnist_{name}").mean(0) >= goal))
        assert epochs * ratios[name] < len(curves(f"mnist_{name}")[0])


# ---------------------------------------------------------------------- the chapter's code


def test_the_one_line_that_is_not_executed_in_the_build_runs(tmp_path, monkeypatch):
    """As it stands in the notebook, but for one epoch, one seed, and the digits."""
    cell = NOTEBOOK.cells["run-again"]
    assert set(cell["metadata"]["tags"]) >= {"skip-execution", "nbval-skip"}
    experiment = bn.experiments.get("digits_mlp")
    seen = []

    def get(name):
        seen.append(name)
        return experiment

    monkeypatch.setattr(bn.experiments, "get", get)
    real = bn.experiments.run
    monkeypatch.setattr(
        bn.experiments,
        "run",
        lambda name: real(name, seeds=[0], workers=1, quick=True, folder=tmp_path, progress=False),
    )
    namespace = {"bn": bn}
    exec("".join(cell["source"]), namespace)
    assert "mnist_mlp" in seen
    assert len(namespace["record"]["units"]) == 2
    assert "mnist_mlp" in bn.experiments.names()


def test_the_walk_stops_where_a_shape_does_not_fit(capsys):
    chapter = NOTEBOOK.run("setup", "shapes-code", "printed-code")
    out = capsys.readouterr().out
    assert "400" in out
    assert "cannot take (256,)" in out
    assert "cannot take (1, 28, 28)" in out
    assert chapter["image"].shape == (1, 1, 28, 28)


def test_the_solution_of_the_interval_is_what_bn_computes():
    solution = NOTEBOOK.run("setup", "ex-interval-solution")["paired_interval"]
    record = bn.results.load("mnist_lenet")
    want = results.paired(record)
    got = solution(*(results.final(record, "test_accuracy", batch_norm=b) for b in (True, False)))
    np.testing.assert_allclose(got, want[:3], rtol=1e-12)


# -------------------------------------------------------------------------------- figures


def lines(ax):
    return {line.get_label(): line.get_xydata() for line in ax.lines}


def test_the_curves_that_are_drawn_are_the_records(monkeypatch):
    matplotlib.use("agg")
    from matplotlib.figure import Figure

    from bn import plots

    record = bn.results.load("digits_mlp")
    drawn = lines(plots.training_curves(record, "test_accuracy", Figure().add_subplot()))
    for label, flag in (("with batch norm", True), ("without", False)):
        want = 100 * curves("digits_mlp", batch_norm=flag).mean(0)
        np.testing.assert_allclose(drawn[label][:, 1], want)
        np.testing.assert_array_equal(drawn[label][:, 0], np.arange(1, len(want) + 1))
    ax = plots.training_curves(record, "train_loss", Figure().add_subplot())
    assert ax.get_yscale() == "log"
    assert ax.get_ylabel() == "training loss"

    gain = results.paired(record)
    ax = plots.paired_differences({"digits": gain}, Figure().add_subplot())
    drawn = [line.get_xdata() for line in ax.lines]
    np.testing.assert_allclose(drawn[1], 100 * gain.differences)
    np.testing.assert_allclose(drawn[2], [100 * gain.low, 100 * gain.high])

    drawn = lines(plots.quantile_bands(record, "sigmoid3", Figure().add_subplot()))
    first = record["units"][0]["epochs"][0]["preactivations"]["sigmoid3"]["quantiles"]
    assert drawn["with batch norm"][0, 1] == first[2]


def test_a_sweep_is_drawn_by_its_rates():
    matplotlib.use("agg")
    from matplotlib.figure import Figure

    from bn import plots

    rng = np.random.default_rng(0)
    record = {
        "experiment": "sweep",
        "seeds": [0, 1],
        "units": [
            {"params": {"network": network, "batch_norm": b, "lr": lr}, "seed": s,
             "epochs": [{"test_accuracy": rng.random()}]}
            for network in ("mlp", "lenet") for lr in (0.64, 0.01) for b in (True, False) for s in (0, 1)
        ],
    }  # fmt: skip
    drawn = lines(
        plots.learning_rates(record, "test_accuracy", Figure().add_subplot(), network="lenet")
    )
    want = [
        100
        * results.final(record, "test_accuracy", network="lenet", batch_norm=False, lr=lr).mean()
        for lr in (0.01, 0.64)
    ]
    np.testing.assert_allclose(drawn["without"], np.transpose([[0.01, 0.64], want]))
