"""The figure of a projected gradient: its numbers against bn.functional, and what a reader does."""

from __future__ import annotations

import math

import numpy as np
import pytest
import traitlets
from widget_harness import evaluate, mount, page, widget_browser  # noqa: F401

from bn import functional
from bn.widgets import Projection
from bn.widgets.projection import look


@pytest.fixture
def shown(page):  # noqa: F811
    return mount(page, Projection())


# ------------------------------------------------------------------------------ the numbers


def cases():
    rng = np.random.default_rng(0)
    for eps in (0.0, 1e-10, 1e-5, 0.1, 10.0):
        for spread in (1e-3, 1.0, 2.5):
            x = rng.uniform(-2, 2) + spread * rng.uniform(-1, 1, size=3)
            yield [x.tolist(), rng.uniform(-2, 2, size=3).tolist(), eps]
    yield [[3.0, 3.0, 3.0], [1.0, 0.5, -2.0], 1e-5]  # no spread
    yield [[3.0, 3.0, 3.0], [1.0, 0.5, -2.0], 0.0]  # 0/0
    yield [[-5.0, 5.0, 5.0], [0.0, 0.0, 0.0], 0.0]


def test_javascript_computes_what_python_computes(page):  # noqa: F811
    all_cases = list(cases())
    results = evaluate(page, "projection_maths", "decompose", all_cases)
    for (x, g, eps), got in zip(all_cases, results, strict=True):
        parts = Projection(x=x, g=g, eps=eps).parts
        var = np.var(x)
        want = {"xHat": parts.x_hat, "alongOne": parts.along_one, "alongXHat": parts.along_x_hat,
                "left": parts.left, "dx": parts.dx, "sigma": np.sqrt(var + eps),
                "leak": eps / (var + eps) if var + eps else np.nan}  # fmt: skip
        for key, value in want.items():
            scale = np.abs(g).max() / (want["sigma"] or 1) if key == "dx" else 1
            np.testing.assert_allclose(got[key], value, rtol=1e-9, atol=1e-12 * scale + 1e-15,
                                       err_msg=f"{key} of {x, g, eps}")  # fmt: skip


def test_the_eye_sees_in_both_languages_the_same(page):  # noqa: F811
    rng = np.random.default_rng(1)
    views = [(rng.normal(size=3).tolist(), rng.uniform(-180, 180), rng.uniform(0, 90))
             for _ in range(20)]  # fmt: skip
    got = evaluate(page, "projection_maths", "look", views)
    np.testing.assert_allclose(got, [look(*view) for view in views], rtol=1e-9, atol=1e-12)


def test_looking_is_a_rotation():
    eye = look(np.eye(3), turn=33, tilt=57)
    np.testing.assert_allclose(eye @ eye.T, np.eye(3), atol=1e-15)
    assert np.linalg.det(eye) == pytest.approx(1)  # no mirror


def test_helpers_of_the_drawing(page):  # noqa: F811
    vectors = np.random.default_rng(2).normal(size=(10, 3))
    for v, n in zip(
        vectors, evaluate(page, "projection_maths", "across", vectors[:, None]), strict=True
    ):
        np.testing.assert_allclose(n, np.cross([1, 1, 1], v), atol=1e-12)
    (ring,) = evaluate(page, "projection_maths", "circle", [[2.0, 12]])
    ring = np.array(ring)
    np.testing.assert_allclose(np.linalg.norm(ring, axis=1), 2)
    np.testing.assert_allclose(ring.sum(axis=1), 0, atol=1e-12)


# ------------------------------------------------------------------------------- the reader


def rows(shown):
    found = {}
    for row in shown.root.locator(".bn-values tbody tr").all():
        name, *values = row.locator("th, td").all_inner_texts()
        found[name] = [number(v) for v in values]
    return found


def number(text):
    if "×" in text:
        mantissa, power = text.replace("−", "-").split("×10")
        return float(mantissa) * 10.0 ** int(
            power.translate(str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-"))
        )
    return math.nan if text == "–" else float(text.replace("−", "-"))


def test_the_table_shows_the_parts(shown):
    shown.set(x=[2, 3, 4], g=[1, 0, 0], eps=0)
    table, parts = rows(shown), Projection(x=[2, 3, 4], g=[1, 0, 0], eps=0).parts
    for name, want in zip(
        ["x̂", "− along 1", "− along x̂", "= left", "÷ σ: ∂L/∂x"], parts, strict=True
    ):
        np.testing.assert_allclose(
            table[name], [*want, np.linalg.norm(want)], atol=6e-3, err_msg=name
        )
    assert "16.7 %" in shown.root.locator(".bn-status").inner_text()


def test_arrow_keys_move_a_value_and_everything_follows(shown):
    before = shown.description()
    shown.press("g₂", "ArrowRight", times=3)
    assert shown.get("g") == pytest.approx([0.5, -0.2, 1.8])
    assert shown.description() != before
    shown.press("x₁", "End")
    assert shown.get("x")[0] == 5
    shown.press("x₁", "ArrowRight")  # stays on the axis
    assert shown.get("x")[0] == 5
    node = shown.root.get_by_label("x₁", exact=True)
    assert node.get_attribute("aria-valuenow") == "5"
    assert "left of the push" in node.get_attribute("aria-valuetext")
    assert node.evaluate("e => e === document.activeElement")  # a redraw keeps the focus


def test_a_dot_is_dragged_with_the_mouse(shown):
    box = shown.root.get_by_label("x₂", exact=True).locator(".bn-mark").bounding_box()
    svg = shown.root.locator(".bn-svg").first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    shown.page.mouse.move(x, y)
    shown.page.mouse.down()
    shown.page.mouse.move(x - svg["width"] * 396 / 480 / 10 * 3, y, steps=4)  # three units of ten
    shown.page.mouse.up()
    shown.settle()
    assert shown.get("x")[1] == pytest.approx(-1, abs=0.11)
    shown.page.mouse.move(x, y)  # released: nothing follows
    assert shown.get("x")[1] == pytest.approx(-1, abs=0.11)


def test_the_picture_is_turned_by_dragging_it(shown):
    box = shown.root.locator(".bn-turn").bounding_box()
    x, y = box["x"] + 40, box["y"] + 60
    shown.page.mouse.move(x, y)
    shown.page.mouse.down()
    shown.page.mouse.move(x + 60, y + 40, steps=4)
    shown.page.mouse.up()
    shown.settle()
    assert shown.get("turn") == pytest.approx(-20, abs=1)
    assert shown.get("tilt") == pytest.approx(50, abs=1)
    shown.page.mouse.move(x, y)
    assert shown.get("tilt") == pytest.approx(50, abs=1)


def click(shown, name):
    shown.root.get_by_role("button", name=name, exact=True).click()
    shown.settle()


def test_the_two_directions_that_vanish(shown):
    shown.set(eps=0)
    for name in ("g = 1", "g = x̂"):
        click(shown, name)
        assert rows(shown)["= left"] == [0, 0, 0, 0], name


def test_projecting_twice_changes_nothing_at_epsilon_zero_only(shown):
    shown.set(eps=0)
    click(shown, "g ← what is left")
    once = shown.get("g")
    click(shown, "g ← what is left")
    np.testing.assert_allclose(shown.get("g"), once, atol=1e-11)
    assert "100.0 %" in shown.root.locator(".bn-status").inner_text()
    click(shown, "Reset")
    shown.set(eps=1)
    click(shown, "g ← what is left")
    once = shown.get("g")
    click(shown, "g ← what is left")
    assert np.abs(np.subtract(shown.get("g"), once)).max() > 0.05
    assert "through" in shown.root.locator(".bn-status").inner_text()


def test_looking_along_one_shows_the_plane(shown):
    click(shown, "Look along 1")
    assert shown.get("tilt") == 90
    click(shown, "Reset")
    start = Projection()
    for trait in ("x", "g", "eps", "turn", "tilt"):
        assert shown.get(trait) == getattr(start, trait)


def test_equal_values_are_zero_or_undefined_as_epsilon_says(shown):
    shown.set(x=[2, 2, 2])
    assert rows(shown)["x̂"] == [0, 0, 0, 0]
    assert "two dimensions are left" in shown.root.locator(".bn-status").inner_text()
    shown.set(eps=0)
    assert all(map(math.isnan, rows(shown)["x̂"]))
    assert "0/0" in shown.root.locator(".bn-status").inner_text()
    assert shown.root.get_by_role("button", name="g = x̂").is_disabled()


@pytest.mark.parametrize("width", [320, 390])
def test_fits_a_phone(page, width):  # noqa: F811
    shown = mount(page, Projection(x=[-5, 5, 4.9], g=[-2, -2, 1.9], tilt=5.0), width=width)
    assert shown.overflow() <= 0
    hit = shown.root.locator(".bn-hit").first.bounding_box()
    assert min(hit["width"], hit["height"]) >= 24


@pytest.mark.parametrize("state", [{"g": [2, 2, 2], "tilt": 0.0}, {"g": [-2, -2, -2], "tilt": 0.0},
                                   {"g": [2, -2, -2], "tilt": 90.0}, {"g": [0, 0, 0]}])  # fmt: skip
def test_the_picture_stays_inside_its_frame(page, state):  # noqa: F811
    shown = mount(page, Projection(**state))
    inside = shown.page.evaluate(
        """() => { const f = document.querySelector('.bn-turn').getBoundingClientRect();
        return [...document.querySelectorAll('.bn-picture *')].map((e) => e.getBoundingClientRect())
          .every((r) => r.left >= f.left - 1 && r.right <= f.right + 1 && r.top >= f.top - 1 && r.bottom <= f.bottom + 1); }"""
    )
    assert inside


def test_nothing_outlives_the_widget(shown):
    shown.set(x=[1, 2, -3], eps=0)
    assert shown.leftovers() == []


# ------------------------------------------------------------------------------- the class


def test_numbers_and_repr():
    figure = Projection(x=[2, 3, 4], g=[1, 0, 0], eps=0)
    assert repr(figure) == "Projection(x=[2, 3, 4], g=[1, 0, 0], eps=0)"
    parts = figure.parts
    np.testing.assert_allclose(parts.along_one + parts.along_x_hat + parts.left, figure.g)
    _, cache = functional.batch_norm(np.array(figure.x), 1.0, 0.0, eps=0)
    dx, *_ = functional.batch_norm_backward(np.array(figure.g), cache)
    np.testing.assert_allclose(parts.left / cache.sigma, dx)
    np.testing.assert_allclose(parts.dx, dx)


@pytest.mark.parametrize(
    "bad",
    [{"x": [1, 2]}, {"x": [1, 2, 3, 4]}, {"x": [math.nan, 1, 2]}, {"x": [5.1, 1, 2]}, {"g": [0, 0, 2.1]},
     {"g": [0, 0, math.inf]}, {"eps": -1.0}, {"eps": math.nan}, {"tilt": 91.0}, {"turn": math.nan}, {"x": "abc"}],
)  # fmt: skip
def test_bad_values_are_refused(bad):
    with pytest.raises(traitlets.TraitError):
        Projection(**bad)


def test_a_refusal_names_the_value_and_the_range():
    with pytest.raises(traitlets.TraitError, match=r"g must hold numbers from -2 to 2, got 2\.5"):
        Projection(g=[0, 0, 2.5])


@pytest.mark.parametrize(
    "state", [{}, {"x": [3.0] * 3, "eps": 0.0}, {"x": [3.0] * 3}, {"tilt": 90.0}]
)
def test_every_state_has_a_picture_and_a_sentence(state):
    figure = Projection(**state)
    assert figure.poster().startswith("<svg")
    assert "gradient" in figure.alt()
    assert "nan" not in figure.alt()
