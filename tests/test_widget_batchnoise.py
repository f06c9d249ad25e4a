"""The figure of one example in many batches: its numbers against Python, and what a reader does."""

from __future__ import annotations

import math

import numpy as np
import pytest
import traitlets
from widget_harness import evaluate, mount, page, widget_browser  # noqa: F401

import bn
from bn import batchnoise
from bn.experiments import regularization
from bn.widgets import BatchNoise
from bn.widgets import batchnoise as widget_module

MADE_UP = {
    "sizes": [2, 4, 8],
    "accuracy": [[0.7, 0.69, 0.71], [0.92, 0.915, 0.925], [0.94, 0.935, 0.945]],
    "without": [0.91, 0.905, 0.915],
    "seeds": 7,
}


@pytest.fixture
def shown(page):  # noqa: F811
    return mount(page, BatchNoise(recorded=MADE_UP))


# ------------------------------------------------------------------------------ the numbers


@pytest.mark.parametrize("distribution", widget_module.SHAPES)
def test_values_are_the_same_in_both_languages(page, distribution):  # noqa: F811
    others = widget_module.neighbours(distribution, 3)
    (flat,) = evaluate(page, "batchnoise_maths", "neighbours", [[distribution, 3]])
    np.testing.assert_allclose(flat, others.ravel(), rtol=1e-9, atol=1e-12)
    cases = [[flat, example, m] for example, m in ((-2.5, 2), (0.0, 16), (1.0, 512))]
    for (_, example, m), got in zip(
        cases, evaluate(page, "batchnoise_maths", "normalized", cases), strict=True
    ):
        want = widget_module.normalized(others, example, m)
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)
        (found,) = evaluate(page, "batchnoise_maths", "moments", [[got]])
        np.testing.assert_allclose(found, [want.mean(), want.std()], rtol=1e-9, atol=1e-12)
        (theory,) = evaluate(page, "batchnoise_maths", "predicted", [[distribution, example, m]])
        shape = widget_module.SHAPES[distribution]
        assert theory == pytest.approx(batchnoise.normalized_variance(example, *shape, m), rel=1e-9)
    assert evaluate(page, "batchnoise_maths", "reach", [[MADE_UP]])[0] == pytest.approx(
        widget_module.reach(MADE_UP)
    )


@pytest.mark.parametrize("distribution", widget_module.SHAPES)
def test_the_neighbours_have_the_moments_that_theory_is_told(distribution):
    var, *shape = batchnoise.shape(widget_module.neighbours(distribution, 5).ravel())
    assert var == pytest.approx(1, abs=0.03)
    np.testing.assert_allclose(shape, widget_module.SHAPES[distribution], atol=0.35)


def test_the_example_is_in_its_batch():
    values = BatchNoise(recorded=MADE_UP, power=1, example=3.0, distribution="uniform").values
    np.testing.assert_allclose(values, 1)  # of two, the larger
    values = BatchNoise(recorded=MADE_UP, power=4, example=3.0).values
    assert (values < math.sqrt(15)).all()


def test_large_batches_scatter_as_predicted():
    for distribution in widget_module.SHAPES:
        widget = BatchNoise(recorded=MADE_UP, power=8, example=-0.5, distribution=distribution)
        assert widget.values.std() == pytest.approx(widget.predicted, rel=0.2)
        assert widget.values.mean() == pytest.approx(-0.5, abs=0.03)


def test_what_is_drawn_is_what_was_recorded():
    record = bn.results.load("ghost_batches")
    drawn = BatchNoise().recorded
    assert drawn == BatchNoise(record).recorded
    assert drawn["seeds"] == len(record["seeds"])
    for m, (mean, low, high) in zip(drawn["sizes"], drawn["accuracy"], strict=True):
        rate = regularization.best_rate(record, m)
        accuracy = bn.results.final(record, "test_accuracy", norm=m, lr=rate)
        assert mean == pytest.approx(accuracy.mean(), rel=1e-4)
        assert low < mean < high


# ------------------------------------------------------------------------------- the reader


def test_the_words_say_the_numbers(shown):
    shown.set(power=3, example=-1.5, distribution="exponential")
    widget = BatchNoise(recorded=MADE_UP, power=3, example=-1.5, distribution="exponential")
    words = shown.root.locator(".bn-status").inner_text().replace("−", "-")
    numbers = [
        float(w.strip(":,.%()±")) for w in words.split() if w.strip(":,.%()±-")[:1].isdigit()
    ]
    want = [200, widget.values.mean(), widget.values.std(), widget.predicted, math.sqrt(7),
            8, 94, 93.5, 94.5, 7]  # fmt: skip
    np.testing.assert_allclose(numbers, want, rtol=6e-3)


def test_sizes_by_keyboard(shown):
    before = shown.description()
    shown.press("Batch size", "ArrowLeft")
    assert shown.get("power") == 3
    assert "batches of 8" in shown.description() != before
    shown.press("Batch size", "Home")
    assert "batches of 2," in shown.description()
    shown.press("Batch size", "End")
    assert "batches of 512" in shown.description()
    assert "statistics of 8 examples" in shown.description()  # the largest recorded


def test_every_batch_is_a_dot_and_beyond_the_axis_a_ring(shown):
    dots = shown.root.locator(".bn-muted :is(.bn-dot, .bn-beyond)")
    assert dots.count() == widget_module.BATCHES
    shown.set(power=9, example=3.0, distribution="uniform")
    assert dots.count() == widget_module.BATCHES
    assert shown.root.locator(".bn-with .bn-beyond").count() == 1  # the size below the axis
    assert shown.root.locator(".bn-with .bn-mark").count() == 2


def test_new_batches_and_back(shown):
    before = shown.description()
    shown.root.get_by_role("button", name="New batches").click()
    shown.settle()
    assert shown.get("seed") == 2
    assert shown.description() != before
    shown.set(power=7, example=0.5, distribution="uniform")
    shown.root.get_by_role("button", name="Reset").click()
    shown.settle()
    for trait in ("power", "example", "distribution"):
        assert shown.get(trait) == getattr(BatchNoise(recorded=MADE_UP), trait)


def test_a_redraw_draws_no_new_numbers(page):  # noqa: F811
    """Counted, not timed: moving the sliders keeps the batches."""
    shown = mount(page, BatchNoise(recorded=MADE_UP))
    calls = page.evaluate(
        """async () => { let n = 0; const imul = Math.imul; Math.imul = (a, b) => { n++; return imul(a, b); };
        __model.set("power", 9); __model.set("example", 2); await __frames(3); const kept = n;
        __model.set("seed", 7); await __frames(3); Math.imul = imul; return [kept, n > 0]; }"""
    )
    assert calls == [0, True]
    assert shown.get("seed") == 7


@pytest.mark.parametrize("width", [320, 390])
def test_fits_a_phone(page, width):  # noqa: F811
    assert mount(page, BatchNoise(recorded=MADE_UP, power=9), width=width).overflow() <= 0


@pytest.mark.parametrize(
    "bad",
    [{"power": 0}, {"power": 10}, {"example": 4.0}, {"example": math.nan}, {"seed": -1},
     {"distribution": "cauchy"}],
)  # fmt: skip
def test_bad_values_are_refused(bad):
    with pytest.raises(traitlets.TraitError):
        BatchNoise(recorded=MADE_UP, **bad)


def test_picture_and_sentence():
    widget = BatchNoise(recorded=MADE_UP, power=9)
    assert widget.poster().startswith("<svg")
    assert "200 batches of 512" in widget.alt()
    assert "statistics of 8 examples: 94.00 %" in widget.alt()
    assert repr(widget) == "BatchNoise(power=9, example=1, distribution='normal', seed=1)"
