"""The table of predictions: its numbers against Python's, and what a reader does with it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import traitlets
from hypothesis import given, settings
from hypothesis import strategies as st
from widget_harness import evaluate, mount, page, state_of, widget_browser  # noqa: F401

from bn.widgets import Predictions
from bn.widgets.predictions import rank


def made(n=40, classes=10, nets=2, seed=0):
    """Random images and nets that are right four times in five."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    images = rng.integers(0, 17, (n, 1, 8, 8)) / 16
    said = {}
    for title in ["with batch norm", "without", "third"][:nets]:
        logits = rng.normal(size=(n, classes))
        logits[np.arange(n), np.where(rng.random(n) < 0.8, labels, (labels + 1) % classes)] += 4
        p = np.exp(logits)
        said[title] = p / p.sum(1, keepdims=True)
    return images, labels, said


@pytest.fixture
def table(page):  # noqa: F811
    return mount(page, Predictions(*made()))


def rows(shown):
    return [
        [c.replace("\u00a0", " ") for c in r.locator("td").all_inner_texts()]
        for r in shown.root.locator(".bn-answers tbody tr").all()
    ]


def choose(shown, label, option):
    shown.root.get_by_label(label, exact=True).select_option(option)
    shown.settle()


# ------------------------------------------------------------------------------ the numbers


def test_javascript_selects_and_sorts_as_python_does(page):  # noqa: F811
    cases, want = [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        widget = Predictions(*made(30, 4, nets=1 + seed % 3, seed=seed))
        for outcome in ("all", "right", "wrong", "only"):
            widget.set_trait("net", int(rng.integers(len(widget.nets))))
            widget.truth, widget.predicted = (int(v) for v in rng.integers(-1, 4, 2))
            widget.outcome, widget.order = outcome, ("falling", "rising")[seed % 2]
            other = widget.nets[1 - widget.net] if len(widget.nets) == 2 else None
            cases.append([widget.labels, widget.nets[widget.net], other,
                          {k: getattr(widget, k) for k in ("truth", "predicted", "outcome", "order")}])  # fmt: skip
            want.append(widget.selected)
    assert evaluate(page, "predictions_maths", "choose", cases) == want
    assert sum(map(len, want)) > 50


def test_javascript_counts_confusions_as_python_does(page):  # noqa: F811
    widget = Predictions(*made(200))
    got = evaluate(
        page, "predictions_maths", "confusion", [[widget.labels, widget.nets[0]["predicted"], 10]]
    )
    np.testing.assert_array_equal(got[0], widget.confusion)
    assert widget.confusion.sum() == 200
    assert (widget.confusion.sum(1) == np.bincount(widget.labels, minlength=10)).all()


def test_the_picture_is_the_image(page):  # noqa: F811
    images, labels, said = made(5)
    widget = Predictions(images, labels, said)
    got = evaluate(page, "predictions_maths", "ink", [[widget.images, i, 8] for i in range(5)])
    np.testing.assert_allclose(got, images.reshape(5, 64), atol=1e-12)
    shown = mount(
        page, Predictions(images[:1], labels[:1], {"a": said["without"][:1]}, outcome="all")
    )
    drawn = shown.page.evaluate(
        "[...document.querySelector('canvas').getContext('2d').getImageData(0, 0, 8, 8).data]"
    )
    np.testing.assert_allclose(np.array(drawn)[::4], 255 - 255 * images[0].ravel(), atol=0.51)


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 6), st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_rank_gives_the_two_largest(classes, n, seed):
    p = np.random.default_rng(seed).dirichlet(np.ones(classes), n)
    got = rank(p)
    ordered = np.sort(p, axis=1)[:, ::-1]
    np.testing.assert_allclose(got["confidence"], ordered[:, 0], atol=5.1e-5)
    np.testing.assert_allclose(got["second_confidence"], ordered[:, 1], atol=5.1e-5)
    assert got["predicted"] == p.argmax(1).tolist()
    assert all(a != b for a, b in zip(got["predicted"], got["second"], strict=True))


def test_the_state_stays_light():
    assert len(json.dumps(state_of(Predictions(*made(360))))) < 80_000


# ------------------------------------------------------------------------------- the reader


def test_starts_with_the_surest_mistakes(table):
    widget = Predictions(*made())
    first = widget.selected[0]
    net = widget.nets[0]
    truth, says, second = rows(table)[0]
    assert truth == str(widget.labels[first])
    assert says == f"{net['predicted'][first]} ✗ {100 * net['confidence'][first]:.1f} %"
    assert second == f"{net['second'][first]} {100 * net['second_confidence'][first]:.1f} %"
    right = int(widget.confusion.trace())
    assert table.description().startswith(f"with batch norm: {right} of 40 images right.")


def test_every_filter_filters(table):
    choose(table, "Show", "right")
    assert all("✓" in says for _, says, _ in rows(table))
    choose(table, "Show", "all")
    choose(table, "True class", "3")
    assert rows(table)
    assert all(truth == "3" for truth, _, _ in rows(table))
    choose(table, "True class", "any")
    choose(table, "Predicted", "4")
    assert rows(table)
    assert all(says.startswith("4") for _, says, _ in rows(table))
    choose(table, "Predicted", "any")
    choose(table, "Order", "least sure first")
    sure = [float(says.split()[2]) for _, says, _ in rows(table)]
    assert sure == sorted(sure)
    choose(table, "Net", "without")
    choose(table, "Show", "wrong in this net only")
    widget = Predictions(*made(), net=1, outcome="only", order="rising")
    assert [r[0] for r in rows(table)] == [str(widget.labels[i]) for i in widget.selected[:6]]


def test_pages_turn_and_a_filter_goes_back_to_the_first(table):
    choose(table, "Show", "all")
    before = rows(table)
    back, on = (table.root.get_by_role("button", name=n) for n in ("Previous", "Next"))
    assert back.is_disabled()
    on.click()
    table.settle()
    assert rows(table) != before
    assert "7–12 of 40" in table.root.inner_text()
    for _ in range(5):
        on.click()
    table.settle()
    assert on.is_disabled()
    assert "37–40 of 40" in table.root.inner_text()
    assert len(rows(table)) == 4
    choose(table, "Order", "least sure first")
    assert table.get("page") == 0
    assert "1–6 of 40" in table.root.inner_text()


def test_no_image_is_said(table):
    table.set(truth=0, predicted=9)
    assert rows(table) == [["No image fits these filters."]]
    assert "0 in all" in table.description()


def test_a_cell_of_the_matrix_filters_and_lets_go(table):
    widget = Predictions(*made())
    i, j = (int(v) for v in np.argwhere(widget.confusion * (1 - np.eye(10, dtype=int)))[0])
    cell = table.root.get_by_label(f"{i} taken for {j}: {widget.confusion[i, j]}")
    cell.click()
    table.settle()
    assert (table.get("truth"), table.get("predicted"), table.get("outcome")) == (i, j, "all")
    assert len(rows(table)) == widget.confusion[i, j]
    assert cell.get_attribute("aria-pressed") == "true"
    cell.click()
    table.settle()
    assert (table.get("truth"), table.get("predicted")) == (-1, -1)


def test_the_matrix_is_one_stop_and_arrows_walk_it(table):
    cells = table.root.locator(".bn-confusion button")
    assert cells.evaluate_all("c => c.filter((b) => b.tabIndex === 0).length") == 1
    labels = cells.evaluate_all("c => c.map((b) => b.getAttribute('aria-label'))")
    focused = "document.activeElement.getAttribute('aria-label')"
    cells.first.focus()
    table.page.keyboard.press("ArrowRight")
    assert table.page.evaluate(focused) == labels[1]
    table.page.keyboard.press("End")
    assert table.page.evaluate(focused) == labels[-1]
    table.page.keyboard.press("ArrowUp")
    assert table.page.evaluate(focused) in labels[:-1]
    table.page.keyboard.press("Home")
    table.page.keyboard.press("Enter")
    table.settle()
    assert table.page.evaluate(focused) == labels[0]  # a redraw keeps the focus
    assert cells.evaluate_all("c => c.filter((b) => b.tabIndex === 0).length") == 1


def test_it_is_a_real_table(table):
    assert table.root.locator(".bn-answers th[scope=col]").count() == 4
    assert table.root.locator(".bn-answers tbody th[scope=row] canvas[role=img]").count() == 6
    assert table.root.locator(".bn-answers caption").inner_text()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 700])
def test_fits(page, theme, width):  # noqa: F811
    images, labels, said = made(400)
    shown = mount(page, Predictions(images, labels, said), theme=theme, width=width)
    assert shown.overflow() <= 0
    assert shown.root.locator("section, .bn-confusion").last.evaluate(
        "e => e.scrollWidth <= e.clientWidth"
    )
    box = shown.root.locator(".bn-confusion button").first.bounding_box()
    assert min(box["width"], box["height"]) >= 24


def test_nothing_outlives_the_widget(table):
    choose(table, "Show", "all")
    assert table.leftovers() == []


# ------------------------------------------------------------------------------- the class


def test_repr_and_picture():
    widget = Predictions(*made())
    assert (
        repr(widget)
        == "Predictions(net=0, truth=-1, predicted=-1, outcome='wrong', order='falling')"
    )
    assert widget.poster().startswith("<svg")
    widget.truth, widget.predicted = 0, 9  # an empty selection has a picture too
    assert widget.poster().startswith("<svg")
    assert "keeps 0" in widget.alt()


def test_bad_input_is_refused_in_words():
    images, labels, said = made(6)
    with pytest.raises(ValueError, match=r"got \(6, 8, 7\)"):
        Predictions(images[:, 0, :, 1:], labels, said)
    with pytest.raises(ValueError, match="between 0 and 1; got 0 to 16"):
        Predictions(np.concatenate([0 * images[:3], 0 * images[3:] + 16]), labels, said)
    with pytest.raises(ValueError, match="between 0 and 1; got nan"):
        Predictions(images * np.nan, labels, said)
    with pytest.raises(ValueError, match=r"6 whole numbers.*\(5,\)"):
        Predictions(images, labels[:5], said)
    with pytest.raises(ValueError, match="between 0 and 9"):
        Predictions(images, labels + 9, said)
    with pytest.raises(ValueError, match=r"shape \(6, classes\).*\(5, 10\)"):
        Predictions(images, labels, {"a": said["without"][:5]})
    with pytest.raises(ValueError, match="softmax"):
        Predictions(images, labels, {"a": np.log(said["without"])})
    with pytest.raises(ValueError, match="nets is empty"):
        Predictions(images, labels, {})
    with pytest.raises(traitlets.TraitError, match="2 nets"):
        Predictions(images, labels, said, net=2)
    with pytest.raises(traitlets.TraitError):
        Predictions(images, labels, said, outcome="maybe")
