"""Two networks and one initial scale: the training in JavaScript against bn.layers, and the reader."""

from __future__ import annotations

import math

import numpy as np
import pytest
import traitlets
from widget_harness import evaluate, mount, page, widget_browser  # noqa: F401

from bn.widgets import Scale
from bn.widgets import scale as module

START = {"scale": 0.1, "eta": 0.05, "eps": 1e-5, "matched": False, "seed": 2}


@pytest.fixture
def shown(page):  # noqa: F811
    return mount(page, Scale())


# ------------------------------------------------------------------------------ the numbers


def cases():
    rng = np.random.default_rng(0)
    for _ in range(14):
        yield {
            "seed": int(rng.integers(0, 1000)),
            "scale": 10 ** rng.uniform(-4, 4),
            "eta": 10 ** rng.uniform(-4, -1),
            "eps": float(rng.choice([0, 1e-10, 1e-5, 1e-2])),
            "matched": bool(rng.integers(2)),
        }
    yield START
    yield START | {"scale": 1e4, "eta": 1.0}  # the plain network is thrown far out
    for seed in range(3):
        yield START | {"seed": seed, "scale": 1.0, "eta": 0.5}


def test_javascript_trains_as_bn_layers_does(page):  # noqa: F811
    """Losses before each of 60 steps, spreads at the start, both arms.

    At rates above 0.1 the losses jump up and down, and each jump multiplies rounding errors: there
    the first ten steps, which use every operation, are held to the same digits.
    """
    trials = [[state, arm] for state in cases() for arm in (False, True)]
    for (state, arm), got in zip(
        trials, evaluate(page, "scale_maths", "train", trials), strict=True
    ):
        want = module.train(**state, batch_norm=arm)
        assert len(got["losses"]) == module.STEPS + 1
        steps = 10 if state["eta"] > 0.1 else None
        np.testing.assert_allclose(got["losses"][:steps], want["losses"][:steps], rtol=1e-9, atol=1e-12,
                                   err_msg=f"{state} {arm}")  # fmt: skip
        np.testing.assert_allclose(got["spreads"], want["spreads"], rtol=1e-9)


def test_javascript_draws_the_same_points_and_weights(page):  # noqa: F811
    for seed, got in zip((0, 2, 999), evaluate(page, "scale_maths", "problem", [[0], [2], [999]]),
                         strict=True):  # fmt: skip
        x, labels, weights = module.problem(seed)
        np.testing.assert_allclose(got["x"], x.ravel(), rtol=1e-15)
        assert got["labels"] == labels.tolist()
        for w, theirs in zip(weights, got["weights"], strict=True):
            np.testing.assert_allclose(theirs, w.ravel(), rtol=1e-15)


def test_the_weights_have_the_usual_scale():
    for k, n in enumerate(module.SIZES[:-1]):
        drawn = np.concatenate([module.problem(seed)[2][k].ravel() for seed in range(40)])
        assert drawn.std() == pytest.approx(math.sqrt(2 / n), rel=0.06)


def test_scale_and_learning_rate_cancel_behind_batch_norm():
    """Part (c) of the chapter's proposition, in the figure."""
    reference = Scale(scale=1.0, eps=0.0, matched=True).runs
    for scale in (1e-3, 0.25, 30.0):
        runs = Scale(scale=scale, eps=0.0, matched=True).runs
        np.testing.assert_allclose(runs["with"]["losses"], reference["with"]["losses"], rtol=1e-6)
        assert not np.allclose(runs["without"]["losses"], reference["without"]["losses"], rtol=0.1)


def test_the_spread_is_a_power_of_the_scale_without_and_one_with():
    one, ten = Scale(scale=1.0, eps=0.0).runs, Scale(scale=10.0, eps=0.0).runs
    ratio = ten["without"]["spreads"] / one["without"]["spreads"]
    np.testing.assert_allclose(ratio, 10.0 ** np.arange(1, module.DEPTH + 1), rtol=1e-9)
    for runs in (one, ten):
        np.testing.assert_allclose(runs["with"]["spreads"], 1, rtol=1e-9)


# ------------------------------------------------------------------------------- the reader


def test_the_sliders_move_scale_rate_and_epsilon(shown):
    before = shown.description()
    shown.press("Scale c", "ArrowRight", times=4)
    assert shown.get("scale") == pytest.approx(1.0)
    assert shown.description() != before
    shown.press("Rate η", "End")
    assert shown.get("eta") == 1
    shown.press("ε", "Home")
    assert shown.get("eps") == 0
    assert "ε 0." in shown.description()


def test_every_place_of_a_slider_is_a_state_of_the_class(shown):
    for label, trait in (("Scale c", "scale"), ("Rate η", "eta"), ("ε", "eps")):
        for key in ("Home", "End"):
            shown.press(label, key)
            Scale(**{trait: shown.get(trait)})


def numbers(text):
    return [float(t.rstrip(".").replace("−", "-")) for t in text.split() if t[0].isdigit()]


@pytest.mark.parametrize("state", [{}, {"scale": 1.0}, {"scale": 1e-3, "matched": True}])
def test_the_status_says_the_losses(page, state):  # noqa: F811
    shown, runs = mount(page, Scale(**state)), Scale(**state).runs
    status = shown.root.locator(".bn-status").inner_text().replace(";", "").replace(",", "")
    steps, with_norm, without, guessing = numbers(status)
    assert steps == module.STEPS
    assert with_norm == pytest.approx(runs["with"]["losses"][-1], rel=5e-3)
    assert without == pytest.approx(runs["without"]["losses"][-1], rel=5e-3)
    assert guessing == pytest.approx(math.log(2), rel=5e-3)


@pytest.mark.parametrize(
    "state", [{}, {"scale": 1e4, "eta": 1.0}, {"scale": 1e-4, "eps": 0.0}, {"eps": 1.0}]
)
def test_nothing_shown_is_undefined(page, state):  # noqa: F811
    shown = mount(page, Scale(**state))
    for text in (shown.description(), shown.root.locator(".bn-status").inner_text()):
        assert "undefined" not in text
        assert "NaN" not in text
    for path in shown.root.locator(".bn-svg path").all():
        assert "NaN" not in path.get_attribute("d")
        assert "undefined" not in path.get_attribute("d")


def test_the_curves_stay_inside_the_drawing(page):  # noqa: F811
    shown = mount(page, Scale(scale=1e4, eta=1.0))
    svg = shown.root.locator(".bn-svg").bounding_box()
    for path in shown.root.locator(".bn-svg path").all():
        box = path.bounding_box()
        if box:
            assert box["x"] >= svg["x"] - 1
            assert box["x"] + box["width"] <= svg["x"] + svg["width"] + 1
            assert box["y"] >= svg["y"] - 1


def test_matching_the_rates_lays_the_curves_of_all_scales_on_one(shown):
    shown.set(scale=1.0, eps=0)
    said = shown.root.locator(".bn-status").inner_text().split(" with batch norm")[0]
    shown.root.get_by_label("hidden layers learn at η c²").check()
    for scale in (0.01, 100):
        shown.set(scale=scale)
        assert shown.root.locator(".bn-status").inner_text().startswith(said)
    assert "hidden layers" in shown.description()


def test_a_new_draw_and_back(shown):
    before = shown.description()
    shown.root.get_by_role("button", name="New draw").click()
    shown.settle()
    assert shown.get("seed") == 3
    assert shown.description() != before
    shown.set(scale=10.0, eta=0.5, eps=0.0, matched=True)
    shown.root.get_by_role("button", name="Reset").click()
    shown.settle()
    for trait, value in START.items():
        assert shown.get(trait) == value == getattr(Scale(), trait)
    assert shown.description() == before


@pytest.mark.parametrize("width", [320, 390])
def test_fits_a_phone(page, width):  # noqa: F811
    assert mount(page, Scale(scale=1e4, matched=True), width=width).overflow() <= 0


def test_nothing_outlives_the_widget(shown):
    shown.set(scale=3.0)
    assert shown.leftovers() == []


# ------------------------------------------------------------------------------- the class


@pytest.mark.parametrize(
    "bad",
    [{"scale": 0.0}, {"scale": math.nan}, {"scale": 1e5}, {"eta": 0.0}, {"eta": 2.0},
     {"eps": -1.0}, {"eps": math.nan}, {"eps": math.inf}, {"seed": -1}, {"matched": "yes"}],
)  # fmt: skip
def test_bad_values_are_refused(bad):
    with pytest.raises(traitlets.TraitError):
        Scale(**bad)


@pytest.mark.parametrize("state", [{}, {"scale": 1e4, "eta": 1.0}, {"scale": 1e-4, "eps": 0.0}])
def test_every_state_has_a_picture_and_a_sentence(state):
    figure = Scale(**state)
    assert figure.poster().startswith("<svg")
    assert f"{module.STEPS} steps" in figure.alt()
    assert "nan" not in figure.alt()


def test_a_loss_that_is_no_number_is_said_in_words():
    assert module._said(math.nan) == "no number any more"
    assert module._said(0.12345) == "0.123"
