"""Chapter layer/numpy_layer: its page is bn.layers, its proposition holds, its measurements are sturdy."""

from __future__ import annotations

import contextlib
import io
from types import SimpleNamespace

import numpy as np
import pytest
from chapters import Chapter
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import bn

NOTEBOOK = Chapter("layer/numpy_layer")
PAGE = ("linear-code", "elementwise-code", "loss-code", "norm-code", "network-code", "sgd-code")
NAMES = bn.layers.__all__


def run(*names: str, until: str | None = None) -> dict:
    """Execute cells, and the beginning of one more; return what they define."""
    with contextlib.redirect_stdout(io.StringIO()):
        space = NOTEBOOK.run(*names)
        if until:
            cell, _, stop = until.partition(":")
            exec(NOTEBOOK.source(cell).split(stop)[0], space)
    return space


@pytest.fixture(scope="module")
def chapter():
    """The page, and all that the sweep defines, but not the sweep itself."""
    return run("setup", "linear-code", "numerical", "elementwise-code", "loss-code", "norm-code",
               "network-code", "sgd-code", "torch-code", until="sweep-code:scales, seeds =")  # fmt: skip


seeds = st.integers(0, 2**32 - 1)


# ------------------------------------------------------------------- the page is bn.layers


@settings(deadline=None, max_examples=15)
@given(seeds, st.sampled_from(["ReLU", "Sigmoid"]), st.sampled_from([0.0, 0.9]), st.booleans())
def test_the_pages_classes_train_as_the_packages(chapter, seed, nonlinear, momentum, norm):
    page = SimpleNamespace(**{name: chapter[name] for name in NAMES})

    def trained(library):
        rng = np.random.default_rng(seed)
        net = library.Sequential(
            library.Linear(5, 7, rng=rng), *([library.BatchNorm(7)] if norm else []),
            getattr(library, nonlinear)(), library.Linear(7, 3, scale=0.3, rng=rng),
        )  # fmt: skip
        optimizer, losses = library.SGD(net, 0.1, momentum), []
        for _ in range(8):
            x, labels = rng.normal(size=(9, 5)), rng.integers(0, 3, 9)
            loss, g = library.softmax_cross_entropy(net.forward(x), labels)
            dx = net.backward(g)
            optimizer.step()
            losses.append(loss)
        state = net.layers[1]
        extra = [state.running_mean, state.running_var] if norm else []
        return [losses, dx, net.forward(x, training=False), *net.params.values(), *extra]

    for ours, theirs in zip(trained(page), trained(bn.layers), strict=True):
        assert_array_equal(ours, theirs)


def test_it_is_about_a_page():
    """Without the checks that share a cell with it."""
    lines = []
    for name in PAGE:
        code = NOTEBOOK.source(name).split("\n\n\nfor ")[0].split("\n\n\none = ")[0]
        lines += [line for line in code.splitlines() if line.strip()]
    assert len(lines) <= 100


# ------------------------------------------------------------------------------ the checks


def test_the_check_sees_a_wrong_gradient(chapter):
    """A transpose, a mean for a sum, a missing term: each is found."""
    rng, check = np.random.default_rng(0), chapter["check"]

    class Mean(chapter["Linear"]):
        def backward(self, g):
            dx = super().backward(g)
            self.grads["bias"] = g.mean(axis=0)
            return dx

    class Detached(chapter["BatchNorm"]):
        def backward(self, g):
            super().backward(g)
            return g * self.params["weight"] / self.cache.sigma

    class Flat(chapter["Sigmoid"]):
        def backward(self, g):
            return g * self.y

    x = rng.normal(size=(5, 4))
    for right, wrong in (
        (chapter["Linear"](4, 3, rng=rng), Mean(4, 3, rng=rng)),
        (chapter["BatchNorm"](4), Detached(4)),
        (chapter["Sigmoid"](), Flat()),
    ):
        assert check(right, x, rng) < 1e-5
        assert check(wrong, x, rng) > 1e-2


def test_numerical_leaves_its_array_as_it_was(chapter):
    x = np.random.default_rng(0).normal(size=(3, 2))
    before = x.copy()
    assert_allclose(chapter["numerical"](lambda: (x**2).sum(), x), 2 * x, atol=1e-8)
    assert_array_equal(x, before)


def test_side_by_side_would_see_the_other_convention(chapter):
    """With the learning rate inside the velocity and a rate that drops, torch goes another way."""
    walk = run("setup", "sgd-code", "sgd-check")["walk"]
    rates = np.where(np.arange(60) < 30, 0.1, 0.01)
    assert np.abs(walk(rates)[-1] - walk(rates, inside=True)[-1]) > 1e-3


# ------------------------------------------------------------------------- the proposition


@settings(deadline=None, max_examples=25)
@given(seeds, st.integers(-8, 8), st.sampled_from([0.0, 0.5, 0.9]), st.floats(0.01, 0.3))
def test_scale_and_rate_cancel_bit_for_bit(chapter, seed, power, momentum, eta):
    """L(cW), its gradient, and whole runs: exact when c is a power of two."""
    c = 2.0**power
    data = np.random.default_rng([seed, 1])
    x, labels = data.normal(size=(12, 6)), data.integers(0, 3, 12)

    def trained(c):
        rng = np.random.default_rng(seed)
        first = chapter["Linear"](6, 5, scale=c, rng=rng)
        norm = chapter["BatchNorm"](5, eps=0)
        rest = chapter["Sequential"](norm, chapter["ReLU"](), chapter["Linear"](5, 3, rng=rng))
        net = chapter["Sequential"](first, rest)
        optimizers = (
            chapter["SGD"](first, eta * c**2, momentum),
            chapter["SGD"](rest, eta, momentum),
        )
        losses, slopes = [], []
        for _ in range(10):
            loss, g = chapter["softmax_cross_entropy"](net.forward(x), labels)
            net.backward(g)
            losses.append(loss)
            slopes.append(first.grads["weight"])
            for optimizer in optimizers:
                optimizer.step()
        return losses, np.array(slopes), first.params["weight"]

    (ours, slopes, weight), (reference, slopes_1, weight_1) = trained(c), trained(1.0)
    assert ours == reference
    assert_array_equal(slopes * c, slopes_1)
    assert_array_equal(weight, c * weight_1)


@settings(deadline=None, max_examples=25)
@given(seeds, st.floats(0.05, 20), st.floats(0.01, 1))
def test_a_plain_step_lengthens_every_units_weights(chapter, seed, c, eta):
    """Perpendicular unit by unit, so Pythagoras holds for each row."""
    rng = np.random.default_rng(seed)
    first = chapter["Linear"](6, 5, scale=c, rng=rng)
    net = chapter["Sequential"](
        first,
        chapter["BatchNorm"](5, eps=0),
        chapter["Sigmoid"](),
        chapter["Linear"](5, 3, rng=rng),
    )
    x, labels = rng.normal(size=(12, 6)), rng.integers(0, 3, 12)
    _, g = chapter["softmax_cross_entropy"](net.forward(x), labels)
    net.backward(g)
    w, slope = first.params["weight"].copy(), first.grads["weight"]
    size = np.linalg.norm(w, axis=1) * np.linalg.norm(slope, axis=1)
    assert (np.abs((w * slope).sum(axis=1)) <= 1e-10 * (1 + size)).all()
    chapter["SGD"](first, eta).step()
    longer = (w**2).sum(axis=1) + eta**2 * (slope**2).sum(axis=1)
    assert_allclose((first.params["weight"] ** 2).sum(axis=1), longer, rtol=1e-9)


# ------------------------------------------------------------------------ the measurements


@pytest.mark.parametrize("c", [1e-3, 1.0, 10.0])
@pytest.mark.parametrize("arm", [False, True])
def test_the_accuracies_survive_rounding(chapter, c, arm, monkeypatch):
    """Another machine adds in another order. Weights moved in the 15th digit: the same count."""
    with np.errstate(all="ignore"):
        plain = chapter["run"](c, arm, 0)
        init = chapter["Linear"].__init__

        def jolted(self, *args, **kwargs):
            init(self, *args, **kwargs)
            noise = np.random.default_rng(1).standard_normal(self.params["weight"].shape)
            self.params["weight"] *= 1 + 2e-15 * noise

        monkeypatch.setattr(chapter["Linear"], "__init__", jolted)
        moved = chapter["run"](c, arm, 0)
    assert (moved.net.params["0.weight"] != plain.net.params["0.weight"]).any()
    assert moved.accuracy == plain.accuracy


def test_both_arms_start_from_the_same_weights(chapter):
    plain, norm = (chapter["network"](0.3, arm, np.random.default_rng(5)) for arm in (False, True))
    linear = [[layer.params["weight"] for layer in net.layers if "weight" in layer.params
               and layer.params["weight"].ndim == 2] for net in (plain, norm)]  # fmt: skip
    assert len(linear[0]) == 5
    for a, b in zip(*linear, strict=True):
        assert_array_equal(a, b)


def test_only_the_hidden_layers_are_scaled(chapter):
    one, ten = (chapter["network"](c, False, np.random.default_rng(5)) for c in (1.0, 10.0))
    ratios = [b.params["weight"][0, 0] / a.params["weight"][0, 0]
              for a, b in zip(one.layers, ten.layers, strict=True) if a.params]  # fmt: skip
    assert_allclose(ratios, [10, 10, 10, 10, 1])


def test_frozen_weights_stay_and_the_rest_learns(chapter):
    one = chapter["run"](1.0, True, 0, frozen=True)
    assert one.norms[0] == one.norms[-1]
    assert one.accuracy > 0.5


def test_what_the_saved_table_says():
    """The text speaks of this output."""
    (output,) = NOTEBOOK.cells["sweep-code"]["outputs"]
    rows = ["".join(output["text"]).splitlines()[k].split() for k in range(2, 10)]
    assert [float(row[0]) for row in rows] == [10.0**k for k in range(-4, 4)]
    assert [row[1] for row in rows].count("10") == 7  # one scale of the eight works
    assert min(int(row[6]) for row in rows) > 60  # with batch norm all of them
    least, most = ([int(row[k].strip("()")) for row in rows] for k in (8, 10))
    assert max(most[0], most[-1]) < least[4]  # every run at the ends below every run at c = 1


# ------------------------------------------------------------------------------- the figure


def test_the_figure_starts_as_the_text_says():
    figure = bn.widgets.Scale()
    assert figure.scale == 0.1
    runs = figure.runs
    assert runs["without"]["losses"][-1] > 0.6
    assert runs["with"]["losses"][-1] < 0.01


def test_at_ten_the_hidden_layers_would_need_a_rate_beyond_the_slider():
    figure = bn.widgets.Scale(scale=10.0)
    assert figure.eta * figure.scale**2 > type(figure).eta.max
