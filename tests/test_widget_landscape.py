"""The slice and the band: numbers against Python's, and what a reader does with them."""

from __future__ import annotations

import itertools
import json

import contourpy
import numpy as np
import pytest
import traitlets
from widget_harness import evaluate, mount, page, state_of, widget_browser  # noqa: F401

from bn.results import RecordError
from bn.widgets import Landscape
from bn.widgets.landscape import compact, decode, encode, rise

STOPS = [0, 1, 5, 20, 300]


def records(seeds=(3, 4), n=9):
    """Two records of the right form: bowls that deepen with training, one steeper."""
    ticks = np.linspace(-1, 1, n)

    def bowl(batch_norm, seed, k):
        a, b = (2, 1) if batch_norm else (9, 4)
        heights = a * ticks[:, None] ** 2 + b * ticks**2 + 0.3 * ticks[:, None] * ticks
        return 2.5 / (k + 1 + seed / 10) + heights

    slices = {
        "experiment": "loss_slices",
        "config": {"network": "relu", "lr": 0.1, "stops": STOPS[::2], "points": n, "reach": 1.0},
        "seeds": list(seeds),
        "units": [
            {"params": {"batch_norm": b}, "seed": s,
             "epochs": [{"epoch": 1, "slices": [bowl(b, s, k).ravel().tolist() for k in range(3)]}]}
            for b in (True, False) for s in seeds
        ],
    }  # fmt: skip

    def walk(batch_norm, seed):
        loss = 2.5 / (1 + np.arange(len(STOPS)) + seed / 10)
        wide = 0.05 if batch_norm else 0.4
        return {
            "epoch": 1,
            "loss": loss.tolist(),
            "low": (loss * (1 - wide)).tolist(),
            "high": (loss * (1 + wide)).tolist(),
        }

    walks = {
        "experiment": "loss_landscape",
        "config": {"stops": STOPS},
        "seeds": list(seeds),
        "units": [
            {"params": {"network": net, "lr": lr, "batch_norm": b}, "seed": s,
             "epochs": [walk(b, s + (net == "sigmoid"))]}
            for net in ("relu", "sigmoid") for lr in (0.1, 0.4) for b in (True, False) for s in seeds
        ],
    }  # fmt: skip
    return slices, walks


@pytest.fixture
def shown(page):  # noqa: F811
    return mount(page, Landscape(*records(), stop=1))


# ------------------------------------------------------------------------------ the numbers


def area(polygons) -> float:
    total = 0.0
    for flat in polygons:
        x, y = np.array(flat).reshape(-1, 2).T
        total += 0.5 * (x @ np.roll(y, -1) - y @ np.roll(x, -1))
    return total


def test_javascript_computes_what_python_computes(page):  # noqa: F811
    rng = np.random.default_rng(0)
    cases, wanted, heights = [], [], []
    for _ in range(20):
        n = int(rng.integers(1, 6)) * 2 + 1
        bounds = sorted(rng.normal(size=2).tolist())
        text = encode(rng.uniform(*bounds, n * n), bounds)
        cases.append([text, bounds])
        wanted.append(decode(text, bounds))
        heights.append([wanted[-1].tolist(), n])
    for got, want in zip(evaluate(page, "landscape_maths", "decode", cases), wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)
    for got, (logs, n) in zip(
        evaluate(page, "landscape_maths", "rise", heights), heights, strict=True
    ):
        assert got == pytest.approx(rise(10 ** np.reshape(logs, (n, n))), rel=1e-9, abs=1e-12)


def test_the_shaded_region_is_what_contourpy_fills(page):  # noqa: F811
    rng = np.random.default_rng(1)
    cases, wanted = [], []
    for _ in range(20):
        n = int(rng.integers(3, 12))
        x, y = np.meshgrid(np.arange(n), np.arange(n))
        u, v = x - rng.uniform(-1, n), y - rng.uniform(-1, n)
        z = 1.3 * u**2 + 0.7 * v**2 + rng.uniform(-1, 1) * u * v + rng.normal() * u  # no saddle
        level = float(rng.uniform(z.min() - 1, z.max() + 5))
        lines = contourpy.contour_generator(z=z, fill_type="OuterOffset").filled(level, 1e9)
        size = 0.0
        for points, offsets in zip(*lines, strict=True):
            for a, b in itertools.pairwise(offsets):
                size += area([points[a : b - 1].ravel()])  # holes run the other way
        cases.append([z.ravel().tolist(), n, level])
        wanted.append(size)
    found = evaluate(page, "landscape_maths", "region", cases)
    got = [area(region["inside"]) for region in found]
    assert max(wanted) > 0
    assert min(got) == 0
    np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-9)
    for region, (z, n, level) in zip(found, cases, strict=True):
        z = np.reshape(z, (n, n))
        for x, y in np.reshape(region["border"], (-1, 2)):  # on a line of the grid, at the level
            i, j = int(min(y, n - 2)), int(min(x, n - 2))
            (a, b), (c, d) = z[i : i + 2, j : j + 2]
            u, v = x - j, y - i
            assert min(u, v, 1 - u, 1 - v) == pytest.approx(0, abs=1e-9)
            height = (1 - v) * ((1 - u) * a + u * b) + v * ((1 - u) * c + u * d)
            assert height == pytest.approx(level, rel=1e-9, abs=1e-9)


def test_the_levels_are_doublings_inside_the_bounds(page):  # noqa: F811
    got = evaluate(
        page, "landscape_maths", "levels", [[[-1.0, 0.5]], [[-1.05, -0.7]], [[0.0, 0.1]]]
    )
    np.testing.assert_allclose(got[0], [0.1, 0.2, 0.4, 0.8, 1.6])
    np.testing.assert_allclose(got[1], [0.1])
    assert got[2] == []


def test_a_compact_record_says_what_the_records_say():
    slices, walks = records()
    small = compact(slices, walks, seed=4)
    assert small["steps"] == [0, 5, 300]
    assert small["walk"]["steps"] == STOPS
    unit = slices["units"][3]  # without, seed 4
    low, high = small["bounds"]
    for text, want in zip(small["slices"]["without"], unit["epochs"][0]["slices"], strict=True):
        half = (high - low) / 255 / 2
        np.testing.assert_allclose(decode(text, (low, high)), np.log10(want), atol=half * 1.001)
    (chosen,) = [
        u for u in walks["units"]
        if u["seed"] == 4 and u["params"] == {"network": "relu", "lr": 0.1, "batch_norm": True}
    ]  # fmt: skip
    for key in ("loss", "low", "high"):
        np.testing.assert_allclose(small["walk"]["with"][key], chosen["epochs"][0][key], rtol=1e-3)


def test_the_state_stays_light():
    assert len(json.dumps(state_of(Landscape(*records(n=21))))) < 30_000


# ------------------------------------------------------------------------------- the reader


def test_the_slider_changes_slices_cursor_and_words(shown):
    before = [p.get_attribute("d") for p in shown.root.locator(".bn-slice .bn-shade").all()]
    x = float(shown.root.locator(".bn-now").get_attribute("x1"))
    assert "Before step 5:" in shown.description()
    shown.press("Training", "End")
    assert shown.get("stop") == 2
    assert "Before step 300:" in shown.description()
    assert float(shown.root.locator(".bn-now").get_attribute("x1")) > x
    assert before != [p.get_attribute("d") for p in shown.root.locator(".bn-slice .bn-shade").all()]


def test_the_words_are_those_of_python(shown):
    widget = Landscape(*records(), stop=2)
    shown.set(stop=2)
    assert shown.description() == widget.alt()


def test_play_runs_to_the_last_stop(shown):
    play = shown.root.get_by_role("button", name="Play")
    play.click()
    shown.root.get_by_role("button", name="Pause").click()
    assert shown.get("stop") == 1
    shown.root.get_by_role("button", name="Play").click()
    shown.page.wait_for_function("__model.get('stop') === 2")
    shown.root.get_by_role("button", name="Play").wait_for(timeout=3000)
    shown.root.get_by_role("button", name="Play").click()  # from the end: again from the start
    assert shown.get("stop") == 0


def test_where_motion_is_unwelcome_a_press_is_one_stop(page):  # noqa: F811
    page.emulate_media(reduced_motion="reduce")
    shown = mount(page, Landscape(*records()))
    shown.root.get_by_role("button", name="Next stop").click()
    assert shown.get("stop") == 1


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 700])
def test_fits(page, theme, width):  # noqa: F811
    shown = mount(page, Landscape(*records()), theme=theme, width=width)
    assert shown.overflow() <= 0


def test_nothing_outlives_the_widget(shown):
    shown.root.get_by_role("button", name="Play").click()
    assert shown.leftovers() == []


def test_a_slice_is_traced_once(page):  # noqa: F811
    """Counted, not timed: going back to a stop decodes nothing."""
    shown = mount(page, Landscape(*records()))
    calls = page.evaluate(
        """async () => { let n = 0; const real = window.atob; window.atob = (t) => { n++; return real(t); };
        __model.set("stop", 1); await __frames(3); const first = n;
        __model.set("stop", 0); await __frames(3); __model.set("stop", 1); await __frames(3);
        window.atob = real; return [first, n]; }"""
    )
    assert calls == [2, 2]
    assert shown.get("stop") == 1


# ------------------------------------------------------------------------------- the class


def test_repr_and_picture():
    widget = Landscape(*records(), seed=4, stop=1)
    assert repr(widget) == "Landscape(stop=1)"
    assert widget.poster().startswith("<svg")
    assert "Before step 5" in widget.alt()


def test_what_cannot_be_shown_is_refused_in_words():
    slices, walks = records()
    with pytest.raises(ValueError, match="nothing to show"):
        Landscape()
    with pytest.raises(traitlets.TraitError, match="3 steps are recorded"):
        Landscape(slices, walks, stop=3)
    with pytest.raises(traitlets.TraitError):
        Landscape(slices, walks, stop=-1)
    with pytest.raises(RecordError, match="seed 9"):
        Landscape(slices, walks, seed=9)
    slices["config"]["stops"] = [0, 5, 301]
    with pytest.raises(RecordError, match="301"):
        Landscape(slices, walks)
