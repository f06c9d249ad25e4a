"""The distributions of two networks side by side: their numbers, and what a reader does with them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import traitlets
from widget_harness import evaluate, mount, page, state_of, widget_browser  # noqa: F401

from bn import results
from bn.widgets import Shift
from bn.widgets.replay import reach
from bn.widgets.shift import compact

STEPS = [0, 1, 3, 10, 100, 1000, 5000]


def record(seeds=(0, 1, 2), steps=tuple(STEPS)):
    """A record of the right form; without batch norm the distributions wander and widen."""
    rng = np.random.default_rng(0)

    def percentiles(i, batch_norm):
        middle, half = (0.05 * i, 1 + 0.02 * i) if batch_norm else (0.4 * i, 0.1 + 0.3 * i)
        return [middle - half, middle + 0.01 * rng.random(), middle + half]

    def row(i, seed, batch_norm):
        units = [percentiles(i, batch_norm) for _ in range(4)]
        histograms = [
            {"edges": [low - 1, high + 1], "counts": rng.integers(1, 90, 12).tolist()}
            for low, _, high in units
        ]
        return {
            "epoch": i + 1,
            "step": steps[i],
            "percentiles": units[:3],
            "unit": units[3],
            **({"histograms": histograms} if seed == seeds[0] else {}),
        }

    return {
        "experiment": "test_shift",
        "seeds": list(seeds),
        "units": [
            {"params": {"batch_norm": b}, "seed": s,
             "epochs": [row(i, s, b) for i in range(len(steps))]}
            for b in (True, False) for s in seeds
        ],
    }  # fmt: skip


@pytest.fixture
def shift(page):  # noqa: F811
    return mount(page, Shift(record(), mark=4))


def status(shown):
    return shown.root.locator(".bn-status").inner_text()


# ------------------------------------------------------------------------------ the numbers


def test_javascript_computes_what_python_computes(page):  # noqa: F811
    from bn import shift

    rng = np.random.default_rng(1)
    runs = [np.sort(rng.normal(size=(rng.integers(1, 9), 3))) for _ in range(20)]
    for name in ("travel", "stretch"):
        got = evaluate(page, "shift_maths", name, [[run] for run in runs])
        want = [getattr(shift, name)(run) for run in runs]
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)
    part = compact(record())["parts"][1]
    assert evaluate(page, "shift_maths", "reach", [[part]]) == [list(reach(part))]


def test_what_is_drawn_is_what_was_recorded():
    full = record()
    small = compact(full)
    assert small["steps"] == STEPS
    assert [part["label"] for part in small["parts"]] == [
        "sigmoid 1, all units", "sigmoid 2, all units", "sigmoid 3, all units",
        "sigmoid 3, one unit",
    ]  # fmt: skip
    for unit in full["units"]:
        arm = "with" if unit["params"]["batch_norm"] else "without"
        for i, row in enumerate(unit["epochs"]):
            for k, percentiles in enumerate([*row["percentiles"], row["unit"]]):
                seen = small["parts"][k][arm]
                assert seen["bands"][unit["seed"]][i] == percentiles
                if unit["seed"] == 0:
                    assert seen["edges"][i] == row["histograms"][k]["edges"]
                    counts = np.array(row["histograms"][k]["counts"])
                    np.testing.assert_allclose(
                        seen["counts"][i], 1000 * counts / counts.sum(), atol=0.5
                    )


def test_the_state_of_the_real_record_stays_light():
    import gzip

    state = json.dumps(state_of(Shift(results.load("mnist_distribution_shift"))))
    assert len(gzip.compress(state.encode())) < 60_000


# ------------------------------------------------------------------------------- the reader


def test_says_what_it_shows(shift):
    from bn.shift import stretch, travel

    assert "sigmoid 3, one unit, after 100 of 5,000 steps" in shift.description()
    assert "After 100 steps" in status(shift)
    plain = np.array(compact(record())["parts"][3]["without"]["bands"][0][:5])
    said = f"travelled {travel(plain):.2g} of its spreads, and the spread has changed by {stretch(plain):.2g}"
    assert said in status(shift)
    assert f"from {plain[4, 0]:.3g} to {plain[4, 2]:.3g} without" in shift.description().replace(
        "−", "-"
    )


def test_the_slider_moves_the_cursor_the_bars_and_the_words(shift):
    cursor = shift.root.locator(".bn-now").first
    heap = shift.root.locator(".bn-without .bn-heap")
    x, bars = cursor.get_attribute("x1"), heap.get_attribute("d")
    shift.press("Step", "ArrowRight")
    assert shift.get("mark") == 5
    assert float(cursor.get_attribute("x1")) > float(x)
    assert heap.get_attribute("d") != bars
    walked = shift.root.locator(".bn-without .bn-line:not(.bn-thin, .bn-hair)").get_attribute("d")
    end = float(walked.split("L")[-1].split()[0])
    assert end == pytest.approx(float(cursor.get_attribute("x1")), abs=0.01)
    assert "After 1,000 steps" in status(shift)
    assert shift.root.locator("output").inner_text() == "1,000"
    shift.press("Step", "Home")
    assert "after 0 of 5,000 steps" in shift.description()
    shift.press("Step", "End")
    assert "after 5,000 of 5,000 steps" in shift.description()


def test_both_networks_share_their_axes(shift):
    """A band of one network is drawn to the same scale as the other's."""
    part = compact(record())["parts"][3]
    shift.press("Step", "End")
    heights = {
        arm: shift.root.locator(f".bn-{arm} .bn-middle").evaluate(
            "e => Math.abs(e.getAttribute('y1') - e.getAttribute('y2'))"
        )
        for arm in ("without", "with")
    }
    spreads = {arm: part[arm]["bands"][0][-1][2] - part[arm]["bands"][0][-1][0] for arm in heights}
    assert heights["without"] / heights["with"] == pytest.approx(
        spreads["without"] / spreads["with"], rel=1e-3
    )


def test_every_distribution_can_be_chosen(shift):
    into = shift.root.get_by_label("Into", exact=True)
    into.select_option("sigmoid 1, all units")
    shift.settle()
    assert shift.get("part") == 0
    assert "sigmoid 1, all units" in shift.description()


def test_every_seed_has_its_line(shift):
    assert shift.root.locator(".bn-with .bn-hair").count() == 2
    assert shift.root.locator(".bn-without .bn-hair").count() == 2


def test_play_runs_to_the_last_step_and_stops(shift):
    play = shift.root.locator("button")
    play.click()
    assert play.inner_text() == "Pause"
    shift.page.wait_for_function("__model.get('mark') === 6")
    shift.page.wait_for_function("document.querySelector('button').textContent === 'Play'")
    play.click()
    assert shift.get("mark") == 0  # from the end it starts anew
    play.click()
    at = shift.get("mark")
    shift.page.wait_for_timeout(500)
    assert shift.get("mark") == at  # paused


def test_where_motion_is_unwelcome_a_press_is_one_step(page):  # noqa: F811
    page.emulate_media(reduced_motion="reduce")
    shown = mount(page, Shift(record(), mark=5))
    press = shown.root.get_by_role("button", name="Next step")
    press.click()
    assert shown.get("mark") == 6
    press.click()
    assert shown.get("mark") == 0  # past the last comes the first
    page.wait_for_timeout(500)
    assert shown.get("mark") == 0  # nothing moves by itself


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 700])
def test_fits(page, theme, width):  # noqa: F811
    shown = mount(page, Shift(record()), theme=theme, width=width)
    assert shown.overflow() <= 0
    assert shown.root.get_by_label("Step", exact=True).bounding_box()["height"] >= 24


def test_nothing_outlives_the_widget(shift):
    shift.root.locator("button").click()  # even while it plays
    assert shift.leftovers() == []


# ------------------------------------------------------------------------------- the class


def test_repr_and_picture():
    shift = Shift(record(), part=2, mark=99)  # beyond the last is the last
    assert repr(shift) == "Shift(part=2, mark=99)"
    assert "After 5,000 steps" in shift.alt()
    assert "sigmoid 3, all units" in shift.alt()
    assert shift.poster().startswith("<svg")


def test_bad_values_are_refused_in_words():
    with pytest.raises(ValueError, match="nothing to show"):
        Shift()
    with pytest.raises(traitlets.TraitError, match="4 distributions"):
        Shift(record(), part=4)
    with pytest.raises(traitlets.TraitError):
        Shift(record(), mark=-1)
    unpaired = record()
    unpaired["units"].pop()
    with pytest.raises(results.RecordError, match="seeds"):
        Shift(unpaired)
