"""The figure of conventions: its numbers against bn.conventions, and what a reader does with it."""

from __future__ import annotations

import numpy as np
import pytest
import traitlets
from widget_harness import evaluate, mount, page, widget_browser  # noqa: F401

from bn.conventions import CONVENTIONS, convert_momentum, convert_variance
from bn.widgets import Conventions
from bn.widgets import conventions as module


@pytest.fixture
def figure(page):  # noqa: F811
    return mount(page, Conventions())


def number(text: str) -> float:
    return float(text.replace("−", "-"))


# ------------------------------------------------------------------------------ the numbers


def test_javascript_knows_the_same_facts(page):  # noqa: F811
    (theirs,) = evaluate(page, "conventions_maths", "conventions", [[]])
    assert list(theirs) == list(CONVENTIONS)
    for name, fact in theirs.items():
        ours = CONVENTIONS[name]
        assert fact["title"] == ours.title
        assert (fact["momentum"], fact["eps"]) == (ours.momentum, ours.eps)
        assert (fact["weighsNew"], fact["unbiased"]) == (ours.weighs_new, ours.unbiased)
        assert (fact["defaults"] or [None, None]) == [ours.default_momentum, ours.default_eps]


def test_javascript_translates_as_python_does(page):  # noqa: F811
    rng = np.random.default_rng(0)
    cases = [[float(v), a, b] for a in CONVENTIONS for b in CONVENTIONS
             for v in (0.0, 1.0, 0.1, 0.99, rng.uniform())]  # fmt: skip
    got = evaluate(page, "conventions_maths", "convertMomentum", cases)
    np.testing.assert_allclose(got, [convert_momentum(*c) for c in cases], rtol=1e-9, atol=1e-15)
    cases = [[name, 3.0, m] for name in CONVENTIONS for m in (2, 3, 64)]
    got = evaluate(page, "conventions_maths", "batchVariance", cases)
    want = [convert_variance(v, "onnx", name, m=m) for name, v, m in cases]
    np.testing.assert_allclose(got, want, rtol=1e-12)


def test_javascript_averages_as_python_does(page):  # noqa: F811
    noise = module.NOISE
    cases = [[noise, 4.0, m] for m in (2, 3, 8, 64)]
    streams = evaluate(page, "conventions_maths", "batches", cases)
    for case, got in zip(cases, streams, strict=True):
        np.testing.assert_allclose(got, module.batches(*case), rtol=1e-9, atol=1e-12)
    cases = [[name, momentum, streams[i], cases[i][2]] for name in CONVENTIONS
             for momentum in (0.0, 0.1, 0.99, 1.0) for i in range(4)]  # fmt: skip
    for case, got in zip(cases, evaluate(page, "conventions_maths", "running", cases), strict=True):
        np.testing.assert_allclose(got, module.running(*case), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("m", [8, 16, 64])
def test_the_stream_is_what_it_says(m):
    """Batches of m normal values: the mean and the spread of their variances, over m."""
    many = module.batches(np.random.default_rng(1).normal(size=200_000), 4.0, m)
    k = m - 1
    assert many.mean() == pytest.approx(4 * k / m, rel=5e-3)
    assert many.std() == pytest.approx(4 * np.sqrt(2 * k) / m, rel=2e-2)


def test_the_averages_are_those_of_torch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(2)
    x = rng.normal(size=(30, 6, 1))
    layer = torch.nn.BatchNorm1d(1, momentum=0.2).double()
    ours = module.running("pytorch", 0.2, x.var(axis=1)[:, 0], 6)
    for step, batch in enumerate(x):
        layer(torch.tensor(batch))
        assert layer.running_var.item() == pytest.approx(ours[step + 1], rel=1e-12)


# ------------------------------------------------------------------------------ on the page


def cells(figure):
    return [[c.inner_text() for c in row.locator("th, td").all()]
            for row in figure.root.locator("tbody tr").all()]  # fmt: skip


def test_the_table_translates_for_everyone(figure):
    rows = {row[0]: row[1:] for row in cells(figure)}
    assert list(rows) == [c.title for c in CONVENTIONS.values()]
    assert rows["PyTorch"][0] == "momentum=0.1, eps=1e-5"
    assert rows["Keras"][0] == "momentum=0.9, epsilon=1e-5"
    assert rows["cuDNN"][:2] == ["exponentialAverageFactor=0.1, epsilon=1e-5", "m − 1"]
    curves = Conventions().curves
    assert number(rows["PyTorch"][2]) == pytest.approx(curves["source"][-1], abs=5e-3)
    assert number(rows["ONNX"][2]) == pytest.approx(curves["translated"][-1], abs=5e-3)


def test_the_words_give_the_numbers_of_the_class(figure):
    figure.set(step=40, m=16, momentum=0.25)
    at = {k: c[40] for k, c in Conventions(step=40, m=16, momentum=0.25).curves.items()}
    said = figure.description()
    for value in at.values():
        assert f"{value:.3g}" in said
    assert "write 0.75" in figure.root.locator(".bn-status").inner_text()


def test_swap_says_the_same_the_other_way_round(figure):
    figure.root.get_by_role("button", name="Swap").click()
    figure.settle()
    assert (figure.get("source"), figure.get("to"), figure.get("momentum")) == (
        "keras",
        "pytorch",
        0.9,
    )
    assert "write 0.1" in figure.root.locator(".bn-status").inner_text()


def test_defaults_are_those_of_the_framework_written_for(figure):
    figure.set(source="keras")
    figure.root.get_by_role("button", name="Keras’s defaults").click()
    assert (figure.get("momentum"), figure.get("eps")) == (0.99, 1e-3)
    figure.set(source="cudnn")
    assert figure.root.get_by_role("button", name="cuDNN’s defaults").is_disabled()


def test_nothing_to_translate(figure):
    figure.set(to="pytorch")
    assert "Nothing to translate" in figure.root.locator(".bn-status").inner_text()
    assert figure.root.get_by_role("button", name="Swap").is_disabled()
    figure.set(to="cudnn")
    assert "means the same" in figure.root.locator(".bn-status").inner_text()


@pytest.mark.parametrize("width", [320, 390])
def test_fits_a_phone(page, width):  # noqa: F811
    assert mount(page, Conventions(source="cudnn"), width=width).overflow() <= 0


# ------------------------------------------------------------------------------- the class


def test_translated_arguments_and_repr():
    figure = Conventions(source="keras", to="pytorch", momentum=0.99, eps=1e-3)
    assert figure.translated == {"momentum": 0.01, "eps": 1e-3}
    assert repr(figure) == (
        "Conventions(source='keras', to='pytorch', momentum=0.99, eps=0.001, m=8, step=120)"
    )


@pytest.mark.parametrize(
    "bad",
    [{"source": "tf"}, {"to": 3}, {"momentum": 1.1}, {"momentum": float("nan")}, {"eps": -1.0},
     {"m": 1}, {"m": 65}, {"step": 121}],
)  # fmt: skip
def test_bad_values_are_refused(bad):
    with pytest.raises(traitlets.TraitError):
        Conventions(**bad)


@pytest.mark.parametrize("state", [{}, {"m": 2}, {"to": "pytorch"}, {"momentum": 1.0, "step": 0}])
def test_every_state_has_a_picture_and_a_sentence(state):
    figure = Conventions(**state)
    assert figure.poster().startswith("<svg")
    assert "nan" not in figure.alt()
