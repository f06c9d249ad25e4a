"""Chapter why/deep_linear_chain: its code is the package's, its propositions hold, its runs are right."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from chapters import Chapter
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bn import chain, exercises
from bn.widgets import Quiz

NOTEBOOK = Chapter("why/deep_linear_chain")

SIZE = st.floats(0.2, 3)
WEIGHT = SIZE | SIZE.map(lambda v: -v)
CHAIN = st.lists(WEIGHT, min_size=2, max_size=12).map(np.array)


@pytest.fixture(scope="module")
def chapter():
    return NOTEBOOK.run("setup", "orders-code", "train")


# --------------------------------------------------------- the code of the chapter is bn's


@given(WEIGHT, CHAIN, st.floats(0, 1))
def test_the_chapters_orders_are_the_packages(chapter, x, w, eta):
    np.testing.assert_allclose(
        chapter["orders"](x, w, eta), chain.step_orders(x, w, eta), rtol=1e-9
    )
    np.testing.assert_allclose(chapter["gradient"](x, w), chain.gradient(x, w), rtol=1e-12)


# --------------------------------------------------------------- the second order of bn.chain


@given(WEIGHT, st.lists(st.just(0.0) | WEIGHT, min_size=1, max_size=7))
def test_hessian_is_the_product_of_all_but_two(x, w):
    H = chain.hessian(x, w)
    for i in range(len(w)):
        for j in range(len(w)):
            others = math.prod(v for k, v in enumerate(w) if k not in (i, j))
            assert math.isclose(H[i, j], 0 if i == j else x * others, rel_tol=1e-12)


@given(WEIGHT, CHAIN)
def test_newton_takes_the_same_share_from_every_weight(x, w):
    n, y = len(w) - 1, chain.output(x, w)
    g, H = chain.gradient(x, w), chain.hessian(x, w)
    np.testing.assert_allclose(H @ w, n * g, rtol=1e-9)  # Euler
    new = chain.newton_step(x, w)
    np.testing.assert_allclose(w - new, np.linalg.solve(H, g), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(new, w * (1 - 1 / n), rtol=1e-12, atol=1e-15)
    signs = np.sign(np.linalg.eigvalsh(H)) * np.sign(y)
    assert (signs > 0).sum() == 1
    assert (signs < 0).sum() == n


@pytest.mark.parametrize(("x", "w"), [(1, [2.0]), (0, [1.0, 2.0]), (1, [1.0, 0.0, 3.0])])
def test_newton_refuses_a_singular_hessian(x, w):
    with pytest.raises(ValueError, match="singular"):
        chain.newton_step(x, w)


# --------------------------------------------------------------------- the normalised chain

BATCH = st.lists(st.floats(-5, 5), min_size=2, max_size=9).map(np.array)


def with_spread(x):
    assume(x.std() > 0.1)
    return x


@given(BATCH, CHAIN)
def test_without_epsilon_only_a_sign_is_left(x, w):
    x = with_spread(x)
    sign = np.sign(np.prod(w[:-1]))
    want = w[-1] * sign * (x - x.mean()) / x.std()
    np.testing.assert_allclose(chain.output_normalized(x, w, eps=0), want, rtol=1e-7, atol=1e-9)
    assert not chain.gradient_normalized(x, w, eps=0)[:-1].any()


@given(BATCH, CHAIN, st.sampled_from([1e-5, 1e-2, 1.0]))
def test_a_lower_weight_keeps_epsilons_share(x, w, eps):
    x = with_spread(x)
    y, gradient = chain.output_normalized(x, w, eps), chain.gradient_normalized(x, w, eps)
    share = eps / (np.prod(w[:-1]) ** 2 * x.var() + eps)
    np.testing.assert_allclose(gradient[:-1], share * y / w[:-1, None], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(gradient[-1], y / w[-1], rtol=1e-7, atol=1e-9)


@settings(max_examples=50)
@given(
    BATCH,
    st.lists(st.just(0.0) | WEIGHT, min_size=1, max_size=6).map(np.array),
    st.sampled_from([1e-2, 1.0]),
)
def test_normalised_gradient_is_the_difference_quotient(x, w, eps):
    gradient, d = chain.gradient_normalized(x, w, eps), 1e-6
    for i in range(len(w)):
        step = d * np.eye(len(w))[i]
        slope = (
            chain.output_normalized(x, w + step, eps) - chain.output_normalized(x, w - step, eps)
        ) / (2 * d)
        np.testing.assert_allclose(
            gradient[i], slope, rtol=1e-4, atol=1e-4 * max(1, abs(gradient).max())
        )


@pytest.mark.parametrize("x", [1.0, [1.0], [[1.0, 2.0]]])
@pytest.mark.parametrize("f", [chain.output_normalized, chain.gradient_normalized])
def test_a_batch_has_at_least_two_inputs(f, x):
    with pytest.raises(ValueError, match="at least two inputs"):
        f(x, [1.0, 2.0])


# ---------------------------------------------------------------------------- the simulation


@pytest.mark.parametrize("how", ["without", "with", "normalised step"])
def test_one_step_of_the_simulation_is_autograds(chapter, how):
    torch = pytest.importorskip("torch")
    rng, eta = np.random.default_rng(0), 0.03
    w, x = rng.normal(1, 0.3, (3, 6)), rng.normal(0.3, 1, (2, 3, 8))
    y = 2 * x + rng.normal(size=x.shape)

    def loss(t, x, y):
        below, top = t[:, :-1].prod(1, keepdim=True), t[:, -1:]
        h = below * x
        if how == "with":
            h = torch.nn.functional.batch_norm(h.T, None, None, training=True, eps=1e-5).T
        return ((top * h - y) ** 2).mean(1) / 2

    t = torch.tensor(w, requires_grad=True)
    x_t, y_t = torch.tensor(x), torch.tensor(y)
    first = loss(t, x_t[0], y_t[0])
    (g,) = torch.autograd.grad(first.sum(), t)
    if how == "normalised step":  # along the output's gradient, in units of its squared length
        slope = t.prod(1, keepdim=True)
        (direction,) = torch.autograd.grad(slope.sum(), t)
        g = g / (direction**2).sum(1, keepdim=True)
    second = loss(t - eta * g, x_t[1], y_t[1])
    got = chapter["train"](w, x, y, eta, how)
    np.testing.assert_allclose(got, torch.stack([first, second]).detach(), rtol=1e-9)


def test_what_the_chapter_concludes_of_training(chapter):
    trained = {name: int(np.sum(f < 1)) for name, f in chapter["final"].items()}
    assert trained == {"without, η = 0.1": 0, "with, η = 0.1": 20,
                       "without, η = 0.01": 20, "without, normalised step": 20}  # fmt: skip
    (survivor,) = chapter["final"]["without, η = 0.1"][
        np.isfinite(chapter["final"]["without, η = 0.1"])
    ]
    assert survivor == pytest.approx(2, rel=0.05)  # a chain whose output is 0: E(2x)²/2
    assert not np.array_equal(chapter["x"][0, 0], chapter["x"][0, 1])  # seeds differ
    again, _, _ = chapter["draws"](range(20), 50, 1.0, 300)
    assert np.array_equal(again, chapter["w0"])


# ---------------------------------------------------------------------------- the page's form


def test_every_section_of_the_argument_ends_in_one_takeaway():
    text = "\n\n".join(
        "".join(c["source"]) for c in NOTEBOOK.cells.values() if c["cell_type"] == "markdown"
    )
    sections = re.split(r"(?m)^## ", text)[1:]
    argument = [
        s
        for s in sections
        if not s.startswith(("Before", "Exercises", "Quiz", "Recap", "References"))
    ]
    assert len(argument) >= 9
    for section in argument:
        last = section.strip().split("\n\n")[-1]
        assert last.startswith("**Takeaway.**"), section[:40]
        assert section.count("**Takeaway.**") == 1, section[:40]


def test_the_sign_of_the_first_order_is_right_on_the_page():
    assert r"\hat y(w-\eta g) = \hat y + g^\top(-\eta g)" in NOTEBOOK.source("promise")
    x, w, eta = 1.3, np.array([1.2, -0.7, 2.0]), 1e-4
    assert chain.first_order(x, w, eta) < chain.output(x, w)


def test_every_exercise_of_the_bank_is_set_and_solved():
    for exercise in [n for n in exercises.names() if n.startswith("chain/")]:
        cells = [
            c for c in NOTEBOOK.cells.values() if f'bn.check("{exercise}"' in "".join(c["source"])
        ]
        assert ["solution" in c["metadata"].get("tags", []) for c in cells] == [False, True]


def test_the_quiz_is_one():
    quiz = Quiz(NOTEBOOK.path.with_suffix(".quiz.json"))
    assert "why/deep_linear_chain" in repr(quiz)
    assert "total=6" in repr(quiz)
