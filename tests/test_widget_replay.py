"""The replay of training: its numbers against Python's, and what a reader does with it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import traitlets
from widget_harness import evaluate, mount, page, state_of, widget_browser  # noqa: F401

from bn import results
from bn.widgets import Replay
from bn.widgets.replay import METRICS, band, compact, density, reach


def record(network="mlp", epochs=5, seeds=(0, 1, 2), layers=("sigmoid1", "sigmoid2"), seed=0):
    """A record of the right form, with curves that rise and two arms that differ."""
    rng = np.random.default_rng(seed)

    def row(epoch, batch_norm):
        accuracy = 0.5 + 0.09 * epoch * (1 if batch_norm else 0.4) + 0.02 * rng.random()
        spread = 2.0 if batch_norm else 0.3 * epoch
        return {
            "epoch": epoch,
            **{m: accuracy if m.endswith("accuracy") else 1.2 - accuracy for m in METRICS},
            "preactivations": {
                name: {
                    "quantiles": (spread * np.array([-1, -0.5, 0.1, 0.5, 1])).tolist(),
                    "counts": rng.integers(0, 90, 28).tolist(),
                    "edges": [-2 * spread, 2 * spread],
                }
                for name in layers
            },
        }

    return {
        "experiment": f"test_{network}",
        "config": {"network": network},
        "seeds": list(seeds),
        "units": [
            {"params": {"batch_norm": b}, "seed": s,
             "epochs": [row(e, b) for e in range(1, epochs + 1)]}
            for b in (True, False) for s in seeds
        ],
    }  # fmt: skip


@pytest.fixture
def replay(page):  # noqa: F811
    return mount(
        page, Replay(record(), record("lenet", layers=("relu1", "relu2", "relu3"), seed=1))
    )


def status(shown):
    return shown.root.locator(".bn-status").inner_text().replace("\u00a0", " ")


# ------------------------------------------------------------------------------ the numbers


def test_javascript_computes_what_python_computes(page):  # noqa: F811
    rng = np.random.default_rng(0)
    runs = [rng.normal(size=(rng.integers(1, 7), rng.integers(1, 12))).tolist() for _ in range(20)]
    for seeds, got in zip(
        runs, evaluate(page, "replay_maths", "band", [[r] for r in runs]), strict=True
    ):
        for key, want in band(seeds).items():
            np.testing.assert_allclose(got[key], want, rtol=1e-9, atol=1e-12)
    bars = [
        [rng.integers(0, 100, rng.integers(1, 40)).tolist(), [-rng.random(), 2.0]]
        for _ in range(20)
    ]
    bars.append([[0, 0, 0], [0.0, 3.0]])  # nothing counted
    for (counts, edges), got in zip(
        bars, evaluate(page, "replay_maths", "density", bars), strict=True
    ):
        np.testing.assert_allclose(got, density(counts, edges), rtol=1e-9)
        if sum(counts):
            assert sum(got) * (edges[1] - edges[0]) / len(counts) == pytest.approx(1)
    layer = compact(record())["layers"][1]
    assert evaluate(page, "replay_maths", "reach", [[layer]]) == [list(reach(layer))]


def test_a_compact_record_says_what_the_record_says():
    full = record()
    small = compact(full)
    assert small["title"] == "sigmoid MLP"
    assert small["seeds"] == 3
    assert small["epochs"] == [1, 2, 3, 4, 5]
    for arm, flag in (("with", True), ("without", False)):
        for metric in METRICS:
            np.testing.assert_allclose(
                small["curves"][arm][metric],
                results.curves(full, metric, batch_norm=flag),
                rtol=5e-4,
            )
        seen = full["units"][0 if flag else 3]["epochs"][2]["preactivations"]["sigmoid2"]
        kept = small["layers"][1][arm]
        assert kept["edges"][2] == pytest.approx(seen["edges"], rel=5e-4)
        assert kept["quantiles"][2] == pytest.approx(seen["quantiles"], rel=5e-4)
        share = np.array(seen["counts"]) / sum(seen["counts"])
        np.testing.assert_allclose(kept["counts"][2], 1000 * share, atol=0.5)
    assert [layer["label"] for layer in small["layers"]] == ["sigmoid 1", "sigmoid 2"]


def test_the_state_stays_light():
    nets = [
        record(n, 10, range(5), [f"relu{i}" for i in range(1, 5)])
        for n in ("mlp", "lenet", "convnet")
    ]
    state = state_of(Replay(*nets))
    assert len(json.dumps(state)) < 80_000


# ------------------------------------------------------------------------------- the reader


def test_starts_at_the_last_epoch_and_says_what_it_shows(replay):
    assert replay.get("epoch") == 5
    assert "After epoch 5" in status(replay)
    assert "3 seeds" in status(replay)
    assert "sigmoid MLP, test accuracy, after epoch 5 of 5" in replay.description()
    assert "sigmoid 2" in replay.description()


def test_the_slider_moves_the_marker_and_the_words(replay):
    x = replay.root.locator(".bn-now").get_attribute("x1")
    replay.press("Epoch", "Home")
    assert replay.get("epoch") == 1
    assert float(replay.root.locator(".bn-now").get_attribute("x1")) < float(x)
    mean = 100 * band(compact(record())["curves"]["with"]["test_accuracy"])["mean"][0]
    assert f"After epoch 1: {mean:.1f} %" in status(replay)


def test_the_layers_follow_the_network(replay):
    into = replay.root.get_by_label("Into")
    assert into.locator("option").all_inner_texts() == ["sigmoid 1", "sigmoid 2"]
    into.select_option("sigmoid 1")
    replay.settle()
    assert "into sigmoid 1" in replay.description()
    replay.root.get_by_label("Network").select_option("LeNet")
    replay.settle()
    assert into.locator("option").all_inner_texts() == ["ReLU 1", "ReLU 2", "ReLU 3"]
    into.select_option("ReLU 3")
    replay.root.get_by_label("Network").select_option("sigmoid MLP")
    replay.settle()
    assert "into sigmoid 2" in replay.description()  # beyond the last is the last
    assert into.evaluate("e => e.selectedOptions[0].textContent") == "sigmoid 2"


def test_the_epochs_follow_the_network(page):  # noqa: F811
    shown = mount(page, Replay(record(epochs=5), record("convnet", epochs=3)))
    shown.root.get_by_label("Network").select_option("ConvNet")
    shown.settle()
    slider = shown.root.get_by_label("Epoch")
    assert (shown.get("epoch"), slider.input_value()) == (3, "3")
    assert "after epoch 3 of 3" in shown.description()
    shown.press("Epoch", "Home")
    shown.press("Epoch", "End")
    assert shown.get("epoch") == 3
    shown.root.get_by_label("Network").select_option("sigmoid MLP")
    shown.settle()
    shown.press("Epoch", "End")
    assert shown.get("epoch") == 5
    assert Replay(record(epochs=5), record(epochs=3), net=1).epoch == 3


def test_a_loss_is_drawn_on_its_own_scale(replay):
    replay.root.get_by_label("Curves").select_option("training loss")
    replay.settle()
    assert "training loss" in replay.description()
    assert "%" not in status(replay)


def test_play_runs_from_the_first_epoch_to_the_last_and_stops(replay):
    play = replay.root.locator("button")
    play.click()
    assert play.inner_text() == "Pause"
    assert replay.get("epoch") == 1
    replay.page.wait_for_function("__model.get('epoch') === 2")
    play.click()
    assert play.inner_text() == "Play"
    at = replay.get("epoch")
    replay.page.wait_for_timeout(900)
    assert replay.get("epoch") == at  # paused
    play.click()
    replay.page.wait_for_function("__model.get('epoch') === 5")
    replay.page.wait_for_function("document.querySelector('button').textContent === 'Play'")


def test_where_motion_is_unwelcome_a_press_is_one_epoch(page):  # noqa: F811
    page.emulate_media(reduced_motion="reduce")
    shown = mount(page, Replay(record(), epoch=2))
    step = shown.root.get_by_role("button", name="Next epoch")
    step.click()
    assert shown.get("epoch") == 3
    page.wait_for_timeout(900)
    assert shown.get("epoch") == 3  # nothing moves by itself
    step.click(), step.click(), step.click()
    assert shown.get("epoch") == 1  # past the last comes the first


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 700])
def test_fits(page, theme, width):  # noqa: F811
    shown = mount(page, Replay(record()), theme=theme, width=width)
    assert shown.overflow() <= 0
    box = shown.root.get_by_label("Epoch").bounding_box()
    assert box["height"] >= 24


def test_nothing_outlives_the_widget(replay):
    replay.root.locator("button").click()  # even while it plays
    assert replay.leftovers() == []


# ------------------------------------------------------------------------------- the class


def test_repr_and_picture():
    replay = Replay(record(), epoch=2)
    assert repr(replay) == "Replay(net=0, metric='test_accuracy', layer=-1, epoch=2)"
    assert "after epoch 2" in replay.alt()
    for metric in METRICS:
        replay.metric = metric
        assert replay.poster().startswith("<svg")


def test_bad_values_are_refused_in_words():
    with pytest.raises(ValueError, match="nothing to replay"):
        Replay()
    with pytest.raises(traitlets.TraitError, match="1 networks"):
        Replay(record(), net=1)
    for bad in ({"metric": "error"}, {"epoch": 0}):
        with pytest.raises(traitlets.TraitError):
            Replay(record(), **bad)
    unpaired = record()
    unpaired["units"].pop()
    with pytest.raises(results.RecordError, match="seeds"):
        Replay(unpaired)
