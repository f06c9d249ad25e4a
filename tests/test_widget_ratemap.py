"""The map of rates and scales: its numbers against Python's, and what a reader does with it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import traitlets
from widget_harness import evaluate, mount, page, state_of, widget_browser  # noqa: F401

from bn.widgets import RateMap
from bn.widgets.ratemap import CEILING, cell, compact, learn, shade

RATES, SCALES = [0.001, 0.01, 0.1, 1.0, 10.0], [0.01, 0.1, 1.0, 10.0]


def record(seeds=(0, 1, 2)):
    """A record of the right form: with batch norm a rate serves every scale, without it one."""
    rng = np.random.default_rng(0)

    def row(activation, batch_norm):
        accuracy = np.full((len(SCALES), len(RATES)), 0.1)
        accuracy[(slice(None) if batch_norm else 2), 2] = 0.95 if activation == "relu" else 0.9
        accuracy[:, 1] = 0.6
        loss = 2.5 * (1 - accuracy)[:, :, None] * np.array([1.0, 0.8, 0.6, 0.4]) + rng.uniform(
            0, 0.1, (*accuracy.shape, 4)
        )
        loss[:, -1] = 50.0 if batch_norm else np.nan
        return {"epoch": 1, "test_accuracy": accuracy.tolist(), "loss": loss.tolist()}

    return {
        "experiment": "rate_map",
        "config": {"rates": RATES, "scales": SCALES, "steps": 40, "window": 10, "learned": 0.8},
        "seeds": list(seeds),
        "units": [
            {"params": {"activation": a, "batch_norm": b}, "seed": s, "epochs": [row(a, b)]}
            for a in ("relu", "sigmoid") for b in (True, False) for s in seeds
        ],
    }  # fmt: skip


def figure(**kwargs):
    return RateMap(record(), **{"rate": 2, "scale": 1, **kwargs})


@pytest.fixture
def shown(page):  # noqa: F811
    return mount(page, figure())


def status(shown):
    return shown.root.locator(".bn-status").inner_text().replace("\u00a0", " ")


# ------------------------------------------------------------------------------ the numbers


def test_javascript_computes_what_python_computes(page):  # noqa: F811
    rng = np.random.default_rng(0)
    cases = [[v] for v in [*rng.uniform(-0.1, 1.1, 30), 0.0, 0.1, 1.0]]
    want = [shade(*case) for case in cases]
    np.testing.assert_allclose(
        evaluate(page, "ratemap_maths", "shade", cases), want, rtol=1e-9, atol=1e-12
    )
    maps = [[rng.uniform(size=(4, 5)).tolist(), int(rng.integers(5)), 0.5] for _ in range(20)]
    assert evaluate(page, "ratemap_maths", "learn", maps) == [learn(*case) for case in maps]
    points = [
        [*rng.uniform(-20, 320, 2).tolist(), [62.0, 262.0, 36.0, 198.0], 11, 9] for _ in range(60)
    ]
    found = evaluate(page, "ratemap_maths", "cell", points)
    assert found == [cell(*case) for case in points]


def test_the_cell_is_where_the_point_is():
    box = [100, 200, 50, 90]  # ten columns of ten units, four rows of ten
    assert cell(101, 89, box, 10, 4) == [0, 0]
    assert cell(199, 51, box, 10, 4) == [9, 3]
    assert cell(145, 72, box, 10, 4) == [4, 1]
    assert cell(-5, 500, box, 10, 4) == [0, 0]
    assert cell(500, -5, box, 10, 4) == [9, 3]


def test_what_is_drawn_is_what_was_recorded():
    full = record()
    small = compact(full)
    assert small["seeds"] == 3
    assert small["steps"] == [10, 20, 30, 40]
    for unit_batch_norm, arm in ((True, "with"), (False, "without")):
        units = [
            u["epochs"][0]
            for u in full["units"]
            if u["params"] == {"activation": "sigmoid", "batch_norm": unit_batch_norm}
        ]
        kept = small["maps"]["sigmoid"][arm]
        np.testing.assert_allclose(
            kept["accuracy"], np.mean([u["test_accuracy"] for u in units], axis=0), rtol=5e-3
        )
        losses = np.array([u["loss"] for u in units])
        for k, of_seeds in enumerate((np.min, np.median, np.max)):
            np.testing.assert_allclose(
                np.array(kept["loss"])[:, :-1, k], of_seeds(losses[:, :, :-1], axis=0), rtol=5e-3
            )
        assert np.all(np.array(kept["loss"])[:, -1] == CEILING)  # diverged: at the edge, no NaN
    json.dumps(state_of(figure()), allow_nan=False)


# ------------------------------------------------------------------------------- the reader


def test_says_the_cell_in_view(shown):
    assert "ReLU network, learning rate 0.1, initial weights at 0.1 times" in shown.description()
    assert "test accuracy 95 % with batch norm and 10 % without, means of 3 seeds" in (
        shown.description().replace("\u00a0", " ")
    )
    assert "reaches 80 % from 4 of 4 scales with, 1 without" in status(shown)


def test_the_sliders_move_the_cell(shown):
    box = shown.root.locator(".bn-chosen").first
    before = box.get_attribute("x"), box.get_attribute("y")
    shown.press("Rate η", "ArrowRight")
    shown.press("Scale c", "ArrowRight")
    box = shown.root.locator(".bn-chosen").first
    assert float(box.get_attribute("x")) > float(before[0])
    assert float(box.get_attribute("y")) < float(before[1])  # larger scales stand higher
    assert (shown.get("rate"), shown.get("scale")) == (3, 2)
    assert "learning rate 1, initial weights at 1 times" in shown.description()


def test_the_arrow_keys_move_on_the_map_and_stop_at_its_edge(shown):
    pad = shown.root.locator(".bn-pad").first
    pad.focus()
    for key, times in (("ArrowRight", 1), ("ArrowUp", 9), ("ArrowLeft", 2)):
        for _ in range(times):
            shown.page.keyboard.press(key)
    shown.settle()
    assert (shown.get("rate"), shown.get("scale")) == (1, 3)
    assert pad.get_attribute("aria-valuetext") == "rate 0.01, scale 10"
    for _ in range(9):
        shown.page.keyboard.press("ArrowDown")
    assert shown.get("scale") == 0


def test_the_cell_follows_the_mouse(shown):
    box = shown.root.locator(".bn-pad").nth(1).bounding_box()
    shown.page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + 0.1 * box["height"])
    shown.settle()
    assert (shown.get("rate"), shown.get("scale")) == (4, 3)


def test_the_cell_follows_a_finger(page):  # noqa: F811
    shown = mount(page, figure(), width=390)
    pad = shown.root.locator(".bn-pad").first
    box = pad.bounding_box()
    pad.dispatch_event(
        "pointerdown",
        {"clientX": box["x"] + 0.5 * box["width"], "clientY": box["y"] + 0.95 * box["height"],
         "pointerType": "mouse", "pointerId": 1, "bubbles": True},
    )  # fmt: skip
    shown.settle()
    assert (shown.get("rate"), shown.get("scale")) == (2, 0)
    assert pad.evaluate("e => getComputedStyle(e).touchAction") == "none"


def test_the_network_is_switched(shown):
    shown.root.get_by_label("sigmoid").check()
    shown.settle()
    assert "sigmoid network" in shown.description()
    assert "90 % with batch norm" in status(shown)


def test_the_dots_count_what_the_words_say(shown):
    assert shown.root.locator(".bn-learned").count() == 4 + 1


# ------------------------------------------------------------------------------- the class


def test_repr_picture_and_words():
    assert repr(figure()) == "RateMap(activation='relu', rate=2, scale=1)"
    assert "95 % with batch norm and 10 % without" in figure().alt()
    assert figure(activation="sigmoid").poster().startswith("<svg")


def test_bad_values_are_refused_in_words():
    with pytest.raises(ValueError, match="no maps"):
        RateMap()
    with pytest.raises(traitlets.TraitError, match="5 rates, counted from 0; got rate=5"):
        figure(rate=5)
    with pytest.raises(traitlets.TraitError, match="4 scales"):
        figure(scale=4)
    with pytest.raises(traitlets.TraitError):
        figure(activation="tanh")
