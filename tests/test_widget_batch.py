"""The figure of a batch: its numbers against bn.functional, and what a reader does with it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import traitlets
from widget_harness import evaluate, mount, page, widget_browser  # noqa: F401

from bn import functional
from bn.widgets import Batch

POINT = "x₂"


@pytest.fixture
def batch(page):  # noqa: F811
    return mount(page, Batch())


# ------------------------------------------------------------------------------ the numbers


def python(x, gamma, beta, eps):
    x = np.array(x, dtype=float)
    mean, var = functional.moments(x)
    with np.errstate(all="ignore"):
        y, cache = functional.batch_norm(x, gamma, beta, eps=eps)
    return {"mean": mean, "variance": var, "xHat": cache.x_hat, "y": y}


def cases():
    rng = np.random.default_rng(0)
    for m in range(2, 13):
        for spread in (1e-6, 1.0, 300.0):
            x = rng.uniform(-1, 1) * 100 + spread * rng.normal(size=m)
            yield [x.tolist(), rng.normal(), rng.normal(), 10.0 ** rng.integers(-10, 2)]
    yield [[3.0, 3.0, 3.0], 2.0, 1.0, 1e-5]  # no spread
    yield [[3.0, 3.0, 3.0], 2.0, 1.0, 0.0]  # 0/0
    yield [[0.1] * 7, 2.0, 1.0, 0.0]  # no spread but for rounding, at full size
    yield [[0.1] * 10, 2.0, 1.0, 0.0]
    yield [[-5.0, 5.0], 0.0, 0.0, 0.0]
    yield [[1000.0] * 11 + [-1000.0], -3.0, 5.0, 10.0]


def test_javascript_computes_what_python_computes(page):  # noqa: F811
    all_cases = list(cases())
    for case, got in zip(
        all_cases, evaluate(page, "batch_maths", "batchNorm", all_cases), strict=True
    ):
        for key, want in python(*case).items():
            np.testing.assert_allclose(
                got[key], want, rtol=1e-9, atol=1e-12, err_msg=f"{key} of {case}"
            )


def test_javascript_refuses_one_value_as_python_does(page):  # noqa: F811
    with pytest.raises(ValueError, match="more than 1 value"):
        functional.batch_norm(np.array([3.0]), 1.0, 0.0)
    with pytest.raises(Exception, match="more than 1 value"):
        evaluate(page, "batch_maths", "batchNorm", [[[3.0], 1, 0, 1e-5]])


def test_dots_never_cover_each_other(page):  # noqa: F811
    rng = np.random.default_rng(1)
    trials = [[rng.uniform(0, 60, size=12).tolist(), 22] for _ in range(30)] + [[[5, 5, 5], 22]]
    for (positions, width), level in zip(
        trials, evaluate(page, "batch_maths", "stack", trials), strict=True
    ):
        for i in range(len(positions)):
            for j in range(i):
                assert level[i] != level[j] or abs(positions[i] - positions[j]) >= width
    assert sorted(level) == [0, 1, 2]


def test_the_axis_reaches_every_value(page):  # noqa: F811
    values = [[[0.0]], [[10.0]], [[-10.1, 3]], [[21]], [[51]], [[101]], [[-999.0]]]
    assert evaluate(page, "batch_maths", "reach", values) == [10, 10, 20, 50, 100, 200, 1000]


# ------------------------------------------------------------------------------- the reader


def test_arrow_keys_move_a_point_and_everything_follows(batch):
    before = batch.description()
    batch.press(POINT, "ArrowRight", times=3)
    assert batch.get("x")[1] == pytest.approx(2.3)
    assert batch.description() != before
    batch.press(POINT, "PageDown")
    assert batch.get("x")[1] == pytest.approx(1.3)
    batch.press(POINT, "Home")
    assert batch.get("x")[1] == -10
    batch.press(POINT, "ArrowLeft")  # stays on the axis
    assert batch.get("x")[1] == -10
    point = batch.root.get_by_label(POINT, exact=True)
    assert point.get_attribute("aria-valuenow") == "-10"
    assert "standardised" in point.get_attribute("aria-valuetext")
    assert point.evaluate("e => e === document.activeElement")  # a redraw keeps the focus


def test_a_point_is_dragged_with_the_mouse(batch):
    box = batch.root.get_by_label(POINT, exact=True).locator(".bn-mark").bounding_box()
    svg = batch.root.locator(".bn-svg").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    batch.page.mouse.move(x, y)
    batch.page.mouse.down()
    batch.page.mouse.move(x + svg["width"] * 432 / 480 / 20 * 5, y, steps=4)  # five units of 20
    batch.page.mouse.up()
    batch.settle()
    assert batch.get("x")[1] == pytest.approx(7, abs=0.11)
    batch.page.mouse.move(x, y)  # released: nothing follows
    assert batch.get("x")[1] == pytest.approx(7, abs=0.11)


def rows(shown):
    return [
        r.locator("th, td").all_inner_texts() for r in shown.root.locator(".bn-values tr").all()
    ]


def number(text):
    return float(text.replace("−", "-").replace(",", ""))


def test_the_table_shows_the_numbers_of_the_layer(batch):
    batch.set(x=[1, 2, 3], eps=0)
    header, *body, mean, variance = rows(batch)
    assert header[1:] == ["x", "x − μ", "x̂", "y"]
    widget = Batch(x=[1, 2, 3], eps=0)
    for i, row in enumerate(body):
        got = [number(v) for v in row[1:]]
        want = [widget.x[i], widget.x[i] - 2, widget.x_hat[i], widget.y[i]]
        np.testing.assert_allclose(got, want, atol=5e-3)
    assert mean == ["mean", "2", "0", "0", "0.5"]
    assert variance == ["var.", "0.667", "0.667", "1", "2.25"]


def test_shift_and_stretch_leave_x_hat_where_it_was(batch):
    batch.set(eps=0)
    before = [r[3] for r in rows(batch)[1:-2]]
    for name in ("Shift by 1", "Stretch × 2", "Shrink ÷ 10"):
        batch.root.get_by_role("button", name=name).click()
        batch.settle()
        assert [r[3] for r in rows(batch)[1:-2]] == before, name


def test_all_equal_is_zero_or_undefined_as_epsilon_says(batch):
    batch.root.get_by_role("button", name="All equal").click()
    batch.settle()
    assert [r[3] for r in rows(batch)[1:-2]] == ["0"] * 6
    assert [r[4] for r in rows(batch)[1:-2]] == ["0.5"] * 6
    batch.set(eps=0)
    assert [r[3] for r in rows(batch)[1:-2]] == ["–"] * 6
    assert "0/0" in batch.root.locator(".bn-status").inner_text()
    assert "undefined" in batch.description()


def test_one_point_is_refused_in_words(batch):
    remove = batch.root.get_by_role("button", name="Remove a point")
    for _ in range(5):
        remove.click()
    batch.settle()
    assert len(batch.get("x")) == 1
    assert remove.is_disabled()
    assert "refuses" in batch.root.locator(".bn-status").inner_text()
    add = batch.root.get_by_role("button", name="Add a point")
    for _ in range(11):
        add.click()
    batch.settle()
    assert len(batch.get("x")) == 12
    assert add.is_disabled()


def test_reset_goes_back_to_the_start(batch):
    start = Batch()
    batch.set(x=[5, 5], gamma=-2, beta=3, eps=0)
    batch.root.get_by_role("button", name="Reset").click()
    batch.settle()
    for trait in ("x", "gamma", "beta", "eps"):
        assert batch.get(trait) == getattr(start, trait)


def test_epsilon_has_a_place_for_zero(batch):
    batch.press("ε", "Home")
    assert batch.get("eps") == 0
    batch.press("ε", "ArrowRight")
    assert batch.get("eps") == 1e-10


@pytest.mark.parametrize("width", [320, 390])
def test_fits_a_phone(page, width):  # noqa: F811
    shown = mount(page, Batch(x=[-999.5, 1000, 0.001, 33.25, 2, 1, 2, 3, 4, 5, 6, 7]), width=width)
    assert shown.overflow() <= 0
    hit = shown.root.locator(".bn-hit").first.bounding_box()
    assert min(hit["width"], hit["height"]) >= 24


def test_nothing_outlives_the_widget(batch):
    batch.set(x=[1, 2], eps=0)
    assert batch.leftovers() == []


# ------------------------------------------------------------------------------- the class


def test_numbers_and_repr():
    batch = Batch(x=[1, 2, 3], gamma=1.5, beta=0.5, eps=0)
    assert repr(batch) == "Batch(x=[1, 2, 3], gamma=1.5, beta=0.5, eps=0)"
    np.testing.assert_allclose(batch.y, [0.5 - 1.5 * 1.5**0.5, 0.5, 0.5 + 1.5 * 1.5**0.5])


@pytest.mark.parametrize(
    "bad",
    [{"x": []}, {"x": [1.0] * 13}, {"x": [math.nan, 1]}, {"x": [1e6, 1]}, {"eps": -1.0},
     {"eps": math.nan}, {"gamma": math.inf}, {"beta": math.nan}, {"x": "abc"}],
)  # fmt: skip
def test_bad_values_are_refused(bad):
    with pytest.raises(traitlets.TraitError):
        Batch(**bad)


@pytest.mark.parametrize(
    "state",
    [{}, {"x": [2.0]}, {"x": [3.0, 3.0], "eps": 0.0}, {"x": [3.0, 3.0]}, {"x": [900.0, 1.0, 2.0]}],
)
def test_every_state_has_a_picture_and_a_sentence(state):
    batch = Batch(**state)
    assert batch.poster().startswith("<svg")
    assert "mean" in batch.alt()
    assert "nan" not in batch.alt()
