"""The figure of a drifting stream: its numbers against Python, and what a reader does with it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import traitlets
from widget_harness import evaluate, mount, page, widget_browser  # noqa: F401

from bn.widgets import Running, running


@pytest.fixture
def shown(page):  # noqa: F811
    return mount(page, Running())


# ------------------------------------------------------------------------------ the numbers


def test_the_random_numbers_are_the_same_in_both_languages(page):  # noqa: F811
    cases = [[1, 2], [0, 7], [12345, 1], [4294967295, 64]]
    for (seed, n), got in zip(
        cases, evaluate(page, "running_maths", "normals", cases), strict=True
    ):
        np.testing.assert_allclose(got, running.normals(seed, n), rtol=1e-9, atol=1e-12)


def test_the_random_numbers_are_normal_and_independent():
    z = running.normals(3, 40_000)
    assert abs(z.mean()) < 0.02
    assert z.var() == pytest.approx(1, abs=0.03)
    assert (np.abs(z) < 1.959964).mean() == pytest.approx(0.95, abs=0.005)
    assert (z**4).mean() == pytest.approx(3, abs=0.2)
    for lag in (1, 2, 3):
        assert abs((z[lag:] * z[:-lag]).mean()) < 0.02


def test_batches_are_the_same_in_both_languages(page):  # noqa: F811
    cases = [[1, 2], [2, 16], [3, 128]]
    for case, got in zip(cases, evaluate(page, "running_maths", "batches", cases), strict=True):
        for what, want in running.batches(*case).items():
            np.testing.assert_allclose(got[what], want, rtol=1e-9, atol=1e-12, err_msg=f"{case}")


def test_the_chase_is_the_same_in_both_languages(page):  # noqa: F811
    seen = running.batches(5, 4)
    cases = [
        [seen, momentum, drift, growth, spread]
        for momentum in (0.0, 0.001, 0.1, 1.0, None)
        for drift, growth, spread in ((0.03, 0.003, 2.0), (-1.0, -0.05, 10.0), (0.0, 0.0, 0.1))
    ]
    answers = evaluate(page, "running_maths", "chase", cases)
    for case, got in zip(cases, answers, strict=True):
        want = running.chase(*case)
        for part in ("truth", "batch", "run", "clear"):
            for what in ("mean", "variance"):
                np.testing.assert_allclose(
                    got[part][what],
                    want[part][what],
                    rtol=1e-9,
                    atol=1e-12,
                    err_msg=f"{part} {what}",
                )
        for what in ("mean", "variance"):
            (ends,) = evaluate(page, "running_maths", "edges", [[got, what]])
            np.testing.assert_allclose(ends, running.edges(want, what), rtol=1e-9)


@pytest.mark.parametrize("momentum", [0.01, 0.1, 0.5, 1.0, None])
def test_the_running_estimates_are_those_of_pytorch(momentum):
    """The figure's batches, put through the layer itself."""
    m, drift, growth, spread = 5, 0.1, 0.01, 2.0
    z = running.normals(9, running.STEPS * m).reshape(running.STEPS, m)
    layer = torch.nn.BatchNorm1d(1, momentum=momentum, affine=False).double()
    ours = running.chase(running.batches(9, m), momentum, drift, growth, spread)["run"]
    for t, row in enumerate(z, 1):
        x = running.START + drift * t + spread * (1 + growth) ** t * row
        layer(torch.tensor(x)[:, None])
        assert layer.running_mean.item() == pytest.approx(ours["mean"][t - 1], rel=1e-9)
        assert layer.running_var.item() == pytest.approx(ours["variance"][t - 1], rel=1e-9)


# ------------------------------------------------------------------------------- the reader


def status(shown):
    return shown.root.locator(".bn-status").inner_text()


def number(text):
    return float(text.rstrip(":,.;").replace("−", "-").replace(",", ""))


def test_the_words_say_the_numbers(shown):
    shown.set(step=75, momentum=0.05, batch_size=4)
    widget = Running(step=75, momentum=0.05, batch_size=4)
    for line, what in zip(status(shown).split("\n"), ("mean", "variance"), strict=True):
        words = line.split()
        got = [number(words[i]) for i in (1, 3, 4, 9)]
        run, true, clear = (s[what][74] for s in (widget.run, widget.truth, widget.clear))
        np.testing.assert_allclose(got, [run, true, clear - true, run - clear], rtol=6e-3)


def test_the_step_is_scrubbed_with_the_keyboard(shown):
    before = shown.description()
    shown.press("Step", "ArrowRight", times=3)
    assert shown.get("step") == 43
    assert "At step 43" in shown.description() != before
    shown.press("Step", "Home")
    assert shown.get("step") == 1
    shown.press("Step", "End")
    assert shown.get("step") == running.STEPS


def test_only_the_batches_seen_so_far_are_dots(shown):
    shown.set(step=17)
    assert shown.root.locator(":is(.bn-dot, .bn-beyond)").count() == 2 * 17


def test_play_goes_on_and_stops(shown):
    play = shown.root.get_by_role("button", name="Play")
    play.click()
    shown.page.wait_for_function("__model.get('step') > 42")
    shown.root.get_by_role("button", name="Pause").click()
    at = shown.get("step")
    shown.page.wait_for_timeout(250)
    assert shown.get("step") == at
    shown.set(step=running.STEPS)
    play.click()  # from the end: again from the start
    assert shown.get("step") < running.STEPS


def test_play_stops_at_the_end(shown):
    shown.set(step=running.STEPS - 1)
    shown.root.get_by_role("button", name="Play").click()
    shown.root.get_by_role("button", name="Play").wait_for(timeout=3000)
    assert shown.get("step") == running.STEPS


def test_where_motion_is_unwelcome_a_press_goes_ten_steps(page):  # noqa: F811
    page.emulate_media(reduced_motion="reduce")
    shown = mount(page, Running())
    shown.root.get_by_role("button", name="Ten steps on").click()
    assert shown.get("step") == 50
    page.wait_for_timeout(250)
    assert shown.get("step") == 50


def test_momentum_none_takes_the_slider_out(shown):
    box = shown.root.get_by_label("momentum=None", exact=True)
    box.focus()
    shown.page.keyboard.press("Space")
    shown.settle()
    assert shown.get("cumulative") is True
    assert shown.root.get_by_label("Momentum", exact=True).is_disabled()
    assert "momentum None" in shown.description()


def test_momentum_has_a_place_for_zero_and_one(shown):
    shown.press("Momentum", "Home")
    assert shown.get("momentum") == 0
    assert "running mean 0," in shown.description()  # it never leaves its start
    shown.press("Momentum", "End")
    assert shown.get("momentum") == 1
    assert "0 from start and lag" in status(shown)


def test_a_new_stream_and_back(shown):
    before = shown.description()
    shown.root.get_by_role("button", name="New stream").click()
    shown.settle()
    assert shown.get("seed") == 2
    assert shown.description() != before
    shown.set(
        momentum=0.5, cumulative=True, batch_size=3, drift=0.0, growth=0.0, spread=1.0, step=9
    )
    shown.root.get_by_role("button", name="Reset").click()
    shown.settle()
    start = Running(seed=2)  # the stream stays
    for trait in Running._shown:
        assert shown.get(trait) == getattr(start, trait), trait


def test_a_dot_beyond_the_axis_is_drawn_hollow_at_its_edge(page):  # noqa: F811
    shown = mount(page, Running(batch_size=2, step=running.STEPS))
    widget = Running(batch_size=2)
    beyond = (widget.batch["variance"] > running.edges(widget._series(), "variance")[1]).sum()
    assert beyond > 3
    assert shown.root.locator(".bn-beyond").count() == beyond


@pytest.mark.parametrize("width", [320, 390])
def test_fits_a_phone(page, width):  # noqa: F811
    shown = mount(page, Running(spread=10.0, drift=1.0, growth=0.05, step=150), width=width)
    assert shown.overflow() <= 0


def test_nothing_outlives_the_widget(shown):
    shown.root.get_by_role("button", name="Play").click()
    assert shown.leftovers() == []


def test_a_redraw_takes_less_than_a_frame(page):  # noqa: F811
    """Counted, not timed: a new momentum draws no new random numbers."""
    shown = mount(page, Running(batch_size=128))
    calls = page.evaluate(
        """async () => { let n = 0; const cos = Math.cos; Math.cos = (v) => { n++; return cos(v); };
        __model.set("momentum", 0.2); await __frames(3); const kept = n;
        __model.set("seed", 7); await __frames(3); Math.cos = cos; return [kept, n]; }"""
    )
    assert calls == [0, running.STEPS * 64]
    assert shown.get("seed") == 7


# ------------------------------------------------------------------------------- the class


def test_numbers_and_repr():
    widget = Running(drift=0.5, growth=0.01, spread=2.0, batch_size=8, step=3)
    assert repr(widget) == (
        "Running(momentum=0.1, cumulative=False, batch_size=8, drift=0.5, growth=0.01, spread=2, "
        "seed=1, step=3)"
    )
    np.testing.assert_allclose(widget.truth["mean"][:2], [3.5, 4.0])
    np.testing.assert_allclose(widget.truth["variance"][1], (2 * 1.01**2) ** 2)


def test_the_start_and_the_lag_are_the_chapters_formulas():
    """The mean's error without noise: what is left of the start, and the lag that builds up."""
    for a, d in ((0.1, 0.03), (0.5, -0.2), (0.02, 0.0)):
        widget = Running(momentum=a, drift=d)
        n = np.arange(1, running.STEPS + 1)
        left = (1 - a) ** n
        want = -left * running.START - (1 - left) * (1 - a) / a * d
        np.testing.assert_allclose(widget.clear["mean"] - widget.truth["mean"], want, atol=1e-12)


@pytest.mark.parametrize(
    "bad",
    [{"momentum": -0.1}, {"momentum": 1.5}, {"momentum": math.nan}, {"batch_size": 1},
     {"batch_size": 129}, {"drift": math.inf}, {"growth": 0.1}, {"spread": 0.0}, {"seed": -1},
     {"step": 0}, {"step": 151}, {"spread": math.nan}],
)  # fmt: skip
def test_bad_values_are_refused(bad):
    with pytest.raises(traitlets.TraitError):
        Running(**bad)


@pytest.mark.parametrize("state", [{}, {"cumulative": True}, {"momentum": 0.0}, {"batch_size": 2}])
def test_every_state_has_a_picture_and_a_sentence(state):
    widget = Running(**state)
    assert widget.poster().startswith("<svg")
    assert "running variance" in widget.alt()
    assert "nan" not in widget.alt()
