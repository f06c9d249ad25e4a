"""The figure of the roof: its numbers against Python's and the chapter's cache, and a reader's use."""

from __future__ import annotations

import itertools
import math

import pytest
import traitlets
from widget_harness import evaluate, mount, page, widget_browser  # noqa: F401

from bn.widgets import Roofline
from bn.widgets.roofline import WAYS, point


@pytest.fixture
def shown(page):  # noqa: F811
    return mount(page, Roofline())


CASES = [
    list(case)
    for case in itertools.product(
        WAYS, (1e3, 3.7e6, 1e9), (2, 4, 8), (1e4, 32e6, 1e9), (1e9, 20e9, 3e12), (1e9, 1e11, 1e15)
    )
]


def test_javascript_computes_what_python_computes(page):  # noqa: F811
    for case, got in zip(CASES, evaluate(page, "roofline_maths", "point", CASES), strict=True):
        want = point(*case)
        assert got["walks"] == want.walks
        assert got["byMemory"] == want.by_memory
        for key in ("intensity", "seconds", "rate"):
            assert got[key] == pytest.approx(getattr(want, key), rel=1e-9), (key, case)


@pytest.mark.parametrize("case", CASES[::37])
def test_a_point_lies_on_the_roof(case):
    _, values, _, _, bandwidth, peak = case
    found = point(*case)
    assert found.rate == pytest.approx(min(peak, bandwidth * found.intensity))
    assert found.seconds == pytest.approx(WAYS[case[0]].operations * values / found.rate)
    assert found.by_memory == (found.intensity <= peak / bandwidth)


def test_fewer_walks_or_a_larger_cache_never_cost_time():
    machine = 4, 1e6, 20e9, 100e9
    slow, middle, fast = (point(way, 1e7, *machine).seconds for way in WAYS)
    assert slow > middle > fast
    for way in WAYS:
        times = [point(way, 1e7, 4, cache, 20e9, 100e9).seconds for cache in (1e6, 1e8, 1e9)]
        assert times == sorted(times, reverse=True)
        assert point(way, 1e7, 4, 1e9, 20e9, 100e9).walks == 4


def test_the_reader_chooses_a_way_and_moves_the_machine(shown):
    before = shown.description()
    assert "28 times" in before
    shown.root.get_by_role("radio", name="in blocks").check()
    shown.settle()
    assert shown.get("way") == "in blocks"
    assert "8 times" in shown.description()
    assert "memory sets the time" in shown.description()
    shown.press("Arithmetic, Gop/s", "Home")
    assert shown.get("peak") == 1
    assert "arithmetic sets the time" in shown.description()
    shown.press("Cache, MB", "End")
    assert "fits into a cache" in shown.description()
    assert "4 times" in shown.description()
    shown.root.get_by_role("radio", name="2").check()
    shown.settle()
    assert shown.get("itemsize") == 2


@pytest.mark.parametrize(
    "state", [{}, {"peak": 1e6}, {"peak": 1, "bandwidth": 1e4}, {"itemsize": 8}]
)
def test_every_mark_stays_in_the_drawing(page, state):  # noqa: F811
    shown = mount(page, Roofline(**state))
    outer = shown.root.locator(".bn-svg").bounding_box()
    marks = shown.root.locator(".bn-svg .bn-mark").all()
    assert len(marks) == 3
    for mark in marks:
        box = mark.bounding_box()
        assert outer["x"] <= box["x"] <= outer["x"] + outer["width"] - box["width"]
        assert outer["y"] <= box["y"] <= outer["y"] + outer["height"] - box["height"]


@pytest.mark.parametrize("width", [320, 390])
def test_fits_a_phone(page, width):  # noqa: F811
    assert mount(page, Roofline(values=1e9, peak=1e6), width=width).overflow() <= 0


def test_nothing_outlives_the_widget(shown):
    shown.set(way="in place", cache=100.0)
    assert shown.leftovers() == []


def test_numbers_picture_and_repr():
    figure = Roofline(way="in blocks", values=1e6, cache=0.1, bandwidth=32, peak=1000)
    assert figure.point.seconds == pytest.approx(32e6 / 32e9)
    assert repr(figure).startswith("Roofline(way='in blocks', values=1e+06")
    assert "8 walks" in figure.alt()
    assert figure.poster().startswith("<svg")


@pytest.mark.parametrize(
    "bad",
    [{"way": "fused"}, {"itemsize": 3}, {"values": 0.0}, {"peak": 0.0}, {"cache": -1.0},
     {"bandwidth": math.inf}, {"values": 1e12}],
)  # fmt: skip
def test_bad_values_are_refused(bad):
    with pytest.raises(traitlets.TraitError):
        Roofline(**bad)
