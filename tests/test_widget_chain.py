"""The figure of the chain: its numbers against bn.chain, and what a reader does with it."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import traitlets
from widget_harness import evaluate, mount, page, widget_browser  # noqa: F401

from bn import chain
from bn.widgets import Chain
from bn.widgets.chain import uniform

STATES = [
    {},
    {"depth": 1},
    {"depth": 60, "weight": 1.2, "spread": 0.3, "seed": 7},
    {"depth": 60, "weight": 0.5, "eta": 1.0},
    {"depth": 13, "weight": 0.9, "spread": 0.5, "x": -1.7, "eta": 0.05, "seed": 999},
    {"normalised": True, "share": 0.8, "spread": 0.5},
    {"normalised": True, "share": 2.0, "x": -0.3, "depth": 5},
    {"normalised": True, "share": 0.0},
    {"x": 0.0, "depth": 4},
    {"x": 0.0, "depth": 4, "normalised": True},
]


def arguments(figure: Chain) -> dict:
    return {key: getattr(figure, key) for key in figure._shown}


def floats(values):
    return np.asarray(values, dtype=float)  # 1e20 comes out of JSON as a Python integer


@pytest.fixture
def shown(page):  # noqa: F811
    return mount(page, Chain())


# ------------------------------------------------------------------------------ the numbers


def test_both_languages_draw_the_same_weights(page):  # noqa: F811
    seeds = [0, 1, 2, 999, 2**31, 2**32 - 1]
    for seed, got in zip(
        seeds, evaluate(page, "chain_maths", "uniform", [[s, 60] for s in seeds]), strict=True
    ):
        assert got == uniform(seed, 60).tolist()
        assert 0 <= min(got) < 0.1
        assert 0.9 < max(got) < 1


def test_javascript_computes_what_python_computes(page):  # noqa: F811
    figures = [Chain(**state) for state in STATES]
    got = evaluate(page, "chain_maths", "state", [[arguments(f)] for f in figures])
    for figure, values in zip(figures, got, strict=True):
        y, g = chain.output(figure.x, figure.w), chain.gradient(figure.x, figure.w)
        want = {
            "w": figure.w,
            "y": y,
            "rate": figure.rate,
            "contributions": figure.contributions,
            "promised": figure.promised,
            "delivered": figure.delivered,
            "asked": figure.rate * (g @ g) / y if y else 0.0,
        }
        for key, value in want.items():
            # A promise near 0 is a difference: it is as accurate as what it is the difference of.
            atol = 1e-12 * abs(y) if key == "promised" else 0
            np.testing.assert_allclose(
                floats(values[key]), value, rtol=1e-9, atol=atol, err_msg=f"{key} of {figure}"
            )
        if figure.normalised:
            within = chain.bounds(y, figure.share * abs(y))
            np.testing.assert_allclose(values["within"], within, rtol=1e-9, atol=1e-15)
        else:
            assert values["within"] is None


def test_javascript_follows_python_over_many_draws(page):  # noqa: F811
    rng = np.random.default_rng(0)
    cases = [(rng.uniform(-2, 2), rng.uniform(-1.5, 1.5, rng.integers(1, 61)), 10 ** rng.uniform(-5, 0))
             for _ in range(100)]  # fmt: skip
    cases.append((2.0, np.array([0.0, 3.0, -4.0]), 0.5))  # a weight that is 0
    sent = [[x, w.tolist(), eta] for x, w, eta in cases]
    for name, python in (
        ("orders", chain.step_orders),
        ("stepExact", chain.step_exact),
        ("firstOrder", chain.first_order),
    ):
        for case, got in zip(cases, evaluate(page, "chain_maths", name, sent), strict=True):
            scale = 1e-14 * abs(chain.output(*case[:2])) if name == "firstOrder" else 0
            np.testing.assert_allclose(
                floats(got), python(*case), rtol=1e-9, atol=scale, err_msg=name
            )


def test_overflow_reads_as_infinity(page):  # noqa: F811
    figure = Chain(depth=60, weight=1.5, eta=1.0)
    (values,) = evaluate(page, "chain_maths", "state", [[arguments(figure)]])
    with np.errstate(over="ignore"):
        assert figure.delivered == values["delivered"] == math.inf
    shown = mount(page, figure)
    assert "delivers ∞" in shown.description()


# --------------------------------------------------------------------------- what it shows


def test_it_starts_in_the_state_the_chapter_speaks_of(shown):
    figure = Chain()
    assert math.isclose(figure.promised, -1021.5027, rel_tol=1e-6)
    assert math.isclose(figure.delivered, 0.0024292, rel_tol=1e-4)
    text = shown.description()
    assert "promises −1022 and delivers 0.00243" in text
    assert "order 8" in text
    assert repr(figure).startswith("Chain(depth=50, weight=1.1")


def test_one_bar_for_each_order(shown):
    bars = shown.root.locator("svg.bn-svg rect.bn-bar")
    assert bars.count() == 51 + 3  # the orders, and before, promised, delivered
    shown.set(depth=7)
    assert bars.count() == 8 + 3


def test_bars_point_the_way_of_their_sign(shown):
    shown.set(depth=3, weight=1.0, eta=0.1)
    tops = [float(shown.root.locator("rect.bn-bar").nth(k).get_attribute("y")) for k in range(4)]
    zero = float(shown.root.locator("rect.bn-bar").nth(0).get_attribute("height")) + tops[0]
    assert tops[0] < zero
    assert tops[2] < zero
    assert math.isclose(tops[1], zero, abs_tol=0.1)
    assert math.isclose(tops[3], zero, abs_tol=0.1)


# ------------------------------------------------------------------------------ at the desk


def test_every_control_answers_the_keyboard(shown):
    for label, key, trait, value in [
        ("Depth l", "ArrowRight", "depth", 51),
        ("Weights", "ArrowLeft", "weight", 1.09),
        ("Their spread", "ArrowRight", "spread", 0.01),
        ("Input x", "ArrowLeft", "x", 0.9),
    ]:
        before = shown.description()
        shown.press(label, key)
        assert shown.get(trait) == pytest.approx(value)
        assert shown.description() != before
    before = shown.get("eta")
    shown.press("Learning rate η", "ArrowRight")
    assert shown.get("eta") > before
    before = shown.description()
    shown.root.get_by_role("button", name="New weights").press("Enter")
    shown.settle()
    assert shown.get("seed") == 2
    assert shown.description() != before


def test_the_normalised_step_brings_its_own_slider_and_bounds(shown):
    rate, share = (
        shown.root.get_by_label(name, exact=True) for name in ("Learning rate η", "Ask δ/|ŷ|")
    )
    assert rate.is_visible()
    assert not share.is_visible()
    assert "bounds" not in shown.description()
    shown.press("Normalised step η = δ/gᵀg", "Space")
    assert share.is_visible()
    assert not rate.is_visible()
    assert "asks for 0.5 times the output. The two bounds: 58.7 and 71.2" in shown.description()
    shown.press("Ask δ/|ŷ|", "ArrowRight")
    assert shown.get("share") == pytest.approx(0.55)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_fits_a_phone(page, theme):  # noqa: F811
    shown = mount(page, Chain(), theme=theme, width=320)
    for state in STATES:
        shown.set(**arguments(Chain(**state)))
        assert shown.overflow() <= 0, state
        boxes = page.evaluate("""() => {
            const frame = document.querySelector('.bn-svg').getBoundingClientRect();
            return [...document.querySelectorAll('.bn-svg text')].map((t) => {
                const b = t.getBoundingClientRect();
                return [t.textContent, b.left - frame.left, frame.right - b.right];
            });
        }""")
        assert not [b for b in boxes if min(b[1:]) < -2], state


def test_the_numbers_of_the_rows_do_not_touch_their_names(page):  # noqa: F811
    shown = mount(page, Chain(depth=60, weight=1.3, eta=1.0))
    name, value = (shown.root.locator("svg text", has_text=t).first.bounding_box()
                   for t in ("promised", "−1.67×10¹⁵"))  # fmt: skip
    assert name["x"] + name["width"] < value["x"]


def test_it_leaves_nothing_behind(shown):
    assert shown.leftovers() == []


# ------------------------------------------------------------------------------- in Python


@pytest.mark.parametrize("bad", [{"depth": 0}, {"depth": 61}, {"weight": 2.0}, {"spread": -0.1},
                                 {"eta": -1.0}, {"share": 2.5}, {"x": "one"}])  # fmt: skip
def test_traits_refuse_what_makes_no_chain(bad):
    with pytest.raises(traitlets.TraitError):
        Chain(**bad)


def test_weights_are_where_the_traits_say():
    figure = Chain(depth=60, weight=0.8, spread=0.25, seed=3)
    assert figure.w.shape == (60,)
    assert 0.6 <= figure.w.min() < 0.65
    assert 0.95 < figure.w.max() < 1.0
    assert not np.array_equal(figure.w, Chain(depth=60, weight=0.8, spread=0.25, seed=4).w)


@pytest.mark.parametrize("state", [*STATES, {"depth": 60, "weight": 1.5, "eta": 1.0}])
def test_the_picture_can_be_drawn_in_every_state(state):
    figure = Chain(**state)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # overflow, where there is one
        svg = figure.poster()
        assert svg == Chain(**state).poster()
    assert svg.startswith("<svg")
    assert figure.alt() in svg
