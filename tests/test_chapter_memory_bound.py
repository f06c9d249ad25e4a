"""The chapter on memory: its ways are one transform, its cache counts what the figure counts."""

from __future__ import annotations

import json

import numpy as np
import pytest
from chapters import Chapter
from hypothesis import given, settings
from hypothesis import strategies as st

import bn
from bn import results
from bn.widgets.roofline import WAYS

NOTEBOOK = Chapter("layer/memory_bound")
SPEED = json.loads((results.FOLDER / "layer_speed.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def chapter() -> dict:
    return NOTEBOOK.run("setup", "textbook", "machine", "in-place", "in-blocks", "safe-code")


def ways(chapter) -> dict:
    return {
        name: (chapter[f"forward{end}"], chapter[f"backward{end}"])
        for name, end in (("textbook", ""), ("in place", "_in_place"), ("in blocks", "_in_blocks"))
    }


# ------------------------------------------------------------------------ the ways are one


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 6), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_every_way_is_the_packages_transform(chapter, blocks, n, seed):
    rng = np.random.default_rng(seed)
    x, g = rng.normal(size=(2, 64 * blocks, n))
    gamma, beta = rng.uniform(0.5, 2, n), rng.normal(size=n)
    y, cache = bn.batch_norm(x, gamma, beta)
    right = y, *bn.batch_norm_backward(g, cache)
    for forward, backward in ways(chapter).values():
        ours, kept = forward(x, gamma, beta)
        for got, want in zip((ours, *backward(g, kept)), right, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-7, atol=1e-9)


# ------------------------------------------------------------------- the cache and its walks


@pytest.mark.parametrize("shape", [(1024, 128), (4096, 64)])
def test_the_walks_are_those_of_the_figure(chapter, shape):
    for name, way in ways(chapter).items():
        cost = chapter["run"](*way, cache=128 * 1024, shape=shape)
        assert cost["fetched"] == pytest.approx(WAYS[name].fetched, abs=0.1)
        assert cost["stored"] == pytest.approx(WAYS[name].stored, abs=0.2)
        assert cost["operations"] == pytest.approx(WAYS[name].operations, abs=0.5)


def test_a_cache_that_holds_everything_is_filled_once(chapter):
    for name, way in ways(chapter).items():
        cost = chapter["run"](*way, cache=2**26)
        assert cost["fetched"] == 2
        if name != "textbook":  # its temporaries are never read again, but the cache cannot know
            assert cost["stored"] == pytest.approx(2, abs=0.2)


def test_no_way_goes_below_the_proposition(chapter):
    for way in ways(chapter).values():
        cost = chapter["run"](*way)
        batch = 2048 * 64 * 4
        saved = 2 * 3 * 64 * 1024 / batch  # what the cache may still hold at each turn
        assert cost["fetched"] + cost["stored"] >= 8 - saved


def test_the_cache_counts_as_a_naive_one(chapter):
    """Against a list searched from end to end."""
    rng = np.random.default_rng(0)
    machine, held = chapter["Machine"](5 * 4096), []
    fetched = stored = 0
    for page, write in zip(rng.integers(0, 9, 2000), rng.integers(0, 2, 2000), strict=True):
        machine.touch(page, bool(write))
        before = [entry for entry in held if entry[0] == page]
        fetched += not before and not write
        held = [e for e in held if e[0] != page] + [(page, write or (before and before[0][1]))]
        if len(held) > 5:
            stored += bool(held.pop(0)[1])
    assert (machine.fetched, machine.stored) == (fetched * 4096, stored * 4096)


# --------------------------------------------------------------------------- what it states


def test_the_condition_number_is_reached(chapter):
    """The plain formula is as bad as the bound says, the shifted one never."""
    rng = np.random.default_rng(1)
    x = (1000 + rng.normal(size=4096)).astype(np.float32)
    exact = x.astype(float).var()
    unit = np.finfo(np.float32).eps / 2
    worst = max(
        abs(chapter["block_variance"](x + np.float32(k)) / exact - 1) for k in range(0, 400, 25)
    )
    assert worst > 0.1 * unit * 1e6
    assert abs(chapter["block_variance"](x, np.float32(1000)) / exact - 1) < 10 * unit


def test_the_share_of_the_operations_is_counted_right():
    space = NOTEBOOK.run("setup", "share")
    norm = 15 * (32 * 26 * 26 + 64 * 24 * 24 + 128)
    rest = 6 * (9 * 32 * 26**2 + 9 * 32 * 64 * 24**2 + 9216 * 128 + 128 * 10)
    assert space["operations"] == {"batch norm": norm, "all other layers": rest}
    assert space["of_time"] > 3 * space["share"]  # "several times that share"
    assert 0.005 < space["share"] < 0.015  # "about one per cent"


def test_the_live_cell_runs(chapter, capsys):
    code = NOTEBOOK.source("live-cell")
    assert "8192, 1024" in code
    exec(compile(code.replace("8192, 1024", "128, 1024"), "live-cell", "exec"), dict(chapter))
    assert capsys.readouterr().out.count("ms") == 6


# ------------------------------------------------------------------------------ the record


def both(memory="kept", threads=1):
    found: dict = {}
    for row in SPEED["rows"]:
        if (row["memory"], row["threads"], row["pass"]) == (memory, threads, "both"):
            found.setdefault(tuple(row["shape"]), {})[row["what"]] = row
    return found


def test_the_record_is_whole():
    what = {"bn.functional", "bn.fast", "bn.nn", "bn.nn, compiled", "torch.nn"}
    for memory in ("fresh", "kept"):
        for threads in (1, 2):
            shapes = both(memory, threads)
            assert len(shapes) == 7
            assert all(rows.keys() == what for rows in shapes.values())
    for row in SPEED["rows"]:
        low, middle, high = row["ms"]
        assert 0 < low <= middle <= high
    assert {r["what"] for r in SPEED["peak_memory"]} == {"torch.nn", "bn.nn"}


def test_what_the_text_says_of_the_record():
    for shape, rows in both().items():
        if np.prod(shape) > 100_000:
            slowest = max(rows, key=lambda what: rows[what]["ms"][1])
            assert slowest == "bn.functional", shape
    each = {what: rows["ms"][1] / 12_800 for what, rows in both()[128, 100].items()}
    large = {what: rows["ms"][1] / 8_388_608 for what, rows in both()[8192, 1024].items()}
    for what in ("bn.fast", "torch.nn", "bn.nn", "bn.nn, compiled"):
        assert each[what] > large[what]  # a small batch costs more for each value
    blocks = [r["bn.fast"]["ms"][1] / np.prod(s) for s, r in both().items() if np.prod(s) > 1e5]
    assert max(blocks) < 2 * min(blocks)  # "nearly flat"
    features, images = both()[8192, 1024]["torch.nn"], both()[128, 64, 24, 24]["torch.nn"]
    assert images["ms"][1] / 4_718_592 > 1.5 * features["ms"][1] / 8_388_608
    sizes = SPEED["machine"]["sizes"]
    assert max(s["copy"] for s in sizes) > 2 * sizes[-1]["copy"]
    assert SPEED["machine"]["gflops"] / sizes[-1]["copy"] > 5 * 15 / 112  # left of the ridge
    for row in SPEED["peak_memory"]:
        assert row["batches"] >= 2
        if np.prod(row["shape"]) > 100_000:
            assert round(row["batches"]) == {"bn.nn": 2, "torch.nn": 3}[row["what"]]
