"""The deep linear chain: against exact fractions, all subsets, autograd, and its bounds proved."""

from __future__ import annotations

import itertools
import math
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from bn import chain

# Floats whose products neither overflow nor underflow at the depths below.
WEIGHTS = st.floats(0.1, 3) | st.floats(-3, -0.1)
CHAINS = st.lists(WEIGHTS, min_size=1, max_size=10)


def exact(values):
    return [Fraction(float(v)) for v in values]


def exact_gradient(x, w):
    x, w = Fraction(float(x)), exact(w)
    return [x * math.prod(w[:i] + w[i + 1 :]) for i in range(len(w))]


def exact_orders(x, w, eta, g):
    """Order k as the textbook writes it: one term for each set of k weights."""
    x, eta, w = Fraction(float(x)), Fraction(float(eta)), exact(w)
    return [
        x * (-eta) ** k
        * sum(
            math.prod(g[i] if i in chosen else w[i] for i in range(len(w)))
            for chosen in itertools.combinations(range(len(w)), k)
        )
        for k in range(len(w) + 1)
    ]  # fmt: skip


def floats(fractions):
    return [float(f) for f in fractions]


# Against exact arithmetic


@settings(deadline=None)
@given(WEIGHTS, CHAINS)
def test_output_and_gradient_are_exact_to_rounding(x, w):
    y = Fraction(x) * math.prod(exact(w))
    assert chain.output(x, w) == pytest.approx(float(y), rel=1e-14)
    assert_allclose(chain.gradient(x, w), floats(exact_gradient(x, w)), rtol=1e-14)


@settings(deadline=None)
@given(WEIGHTS, CHAINS, st.data())
def test_the_gradient_is_right_where_weights_are_zero(x, w, data):
    for i in data.draw(st.sets(st.integers(0, len(w) - 1), min_size=1, max_size=2)):
        w[i] = 0.0
    assert_allclose(chain.gradient(x, w), floats(exact_gradient(x, w)), rtol=1e-14)


@settings(deadline=None)
@given(WEIGHTS, CHAINS, st.floats(1e-4, 10))
def test_each_order_is_the_sum_over_its_subsets(x, w, eta):
    orders = chain.step_orders(x, w, eta)
    expected = floats(exact_orders(x, w, eta, exact_gradient(x, w)))
    # to the digits of each order, also of those that are tiny beside the others: no cancellation
    assert_allclose(orders, expected, rtol=1e-13)


@settings(deadline=None)
@given(WEIGHTS, CHAINS, st.floats(-2, 2), st.data())
def test_any_direction_can_be_followed(x, w, eta, data):
    w = [data.draw(st.sampled_from([v, 0.0])) for v in w]
    g = [data.draw(WEIGHTS) for _ in w]
    orders = exact_orders(x, w, eta, exact(g))
    # here terms of both signs meet, so an order is as accurate as its largest term
    largest = max(max(map(abs, w)), max(map(abs, g)) * abs(eta), 1) ** len(w) * 2 ** len(w)
    assert_allclose(
        chain.step_orders(x, w, eta, g), floats(orders), rtol=1e-13, atol=1e-14 * largest * abs(x)
    )
    truth = float(Fraction(x) * math.prod(a - Fraction(eta) * b for a, b in zip(exact(w), exact(g), strict=True)))  # fmt: skip
    assert chain.step_exact(x, w, eta, g) == pytest.approx(truth, rel=1e-9, abs=1e-14 * largest)
    promised = float(orders[0] + (orders[1] if len(orders) > 1 else 0))
    assert chain.first_order(x, w, eta, g) == pytest.approx(
        promised, rel=1e-12, abs=1e-12 * largest
    )


def test_the_subsets_of_a_chain_of_fifty_number_c_50_k():
    # with w = x = 1 every term is 1, so order k counts its subsets
    orders = chain.step_orders(1, np.ones(50), -1.0)
    assert_array_equal(orders, [math.comb(50, k) for k in range(51)])


@pytest.mark.parametrize("depth", [1, 2, 5, 50, 300])
def test_the_orders_add_up_to_the_exact_step(depth):
    rng = np.random.default_rng(depth)
    w = rng.uniform(0.9, 1.1, size=depth) * rng.choice([-1, 1], size=depth)
    eta = 0.1 / depth
    orders = chain.step_orders(1.5, w, eta)
    # the sum cancels: its error is that of the largest order
    assert math.fsum(orders) == pytest.approx(
        chain.step_exact(1.5, w, eta), abs=1e-14 * depth * np.abs(orders).max()
    )
    assert orders[0] == pytest.approx(chain.output(1.5, w), rel=1e-13)
    assert orders[0] + orders[1] == pytest.approx(chain.first_order(1.5, w, eta), rel=1e-12)


def test_orders_alternate_when_the_output_and_the_rate_are_positive():
    orders = chain.step_orders(1, [1.2, -0.7, -2.0, 1.1], 0.3)
    assert_array_equal(np.sign(orders), [1, -1, 1, -1, 1])


# Against autograd


@settings(deadline=None)
@given(WEIGHTS, CHAINS)
def test_gradient_and_hessian_are_autograds(x, w):
    torch = pytest.importorskip("torch")
    w = torch.tensor(w, dtype=torch.float64)
    gradient = torch.func.grad(lambda w: x * w.prod())(w)
    assert_allclose(chain.gradient(x, w.numpy()), gradient, rtol=1e-12)
    hessian = torch.autograd.functional.hessian(lambda w: x * w.prod(), w)
    # torch divides the product by weights, so its diagonal is the rounding of y / w**2
    rounding = 1e-14 * abs(chain.output(x, w.numpy())) / w.abs().min().item() ** 2
    assert_allclose(chain.hessian(x, w.numpy()), hessian, rtol=1e-12, atol=rounding)


@settings(deadline=None)
@given(WEIGHTS, CHAINS)
def test_the_hessian_is_exact_to_rounding(x, w):
    exact_w, depth = exact(w), range(len(w))
    expected = [
        [
            0.0 if i == j else
            float(Fraction(x) * math.prod(exact_w[k] for k in depth if k not in (i, j)))
            for j in depth
        ]
        for i in depth
    ]  # fmt: skip
    assert_allclose(chain.hessian(x, w), expected, rtol=1e-14)


# The published numbers


@pytest.mark.parametrize(
    ("w", "promised", "true", "digits"),
    [(1.0, 0.9, 0.9047, 4), (1.1, -1021.5, 0.0024, 4), (1.2, -5.7e6, 1.8e57, None)],
)
def test_fifty_layers(w, promised, true, digits):
    got = chain.first_order(1, [w] * 50, 0.002), chain.step_exact(1, [w] * 50, 0.002)
    if digits is None:
        assert [f"{v:.1e}" for v in got] == [f"{promised:.1e}", f"{true:.1e}"]
    else:
        assert round(got[0], 1) == promised
        assert round(got[1], digits) == true


# The bounds of the normalised step


def normalised(x, w, share):
    """Old output, delta, and the new output after eta = delta / g.g, in exact fractions."""
    y = Fraction(x) * math.prod(exact(w))
    g = exact_gradient(x, w)
    delta = Fraction(share) * y
    eta = delta / sum(v * v for v in g)
    new = Fraction(x) * math.prod(a - eta * b for a, b in zip(exact(w), g, strict=True))
    return y, delta, new


def exp(f: Fraction) -> Fraction:
    with localcontext() as context:
        context.prec = 60
        return Fraction((Decimal(f.numerator) / Decimal(f.denominator)).exp())


@settings(deadline=None, max_examples=1000)
@given(WEIGHTS, CHAINS, st.floats(-20, 2))
@example(1.0, [1.0] * 10, 1.0)
@example(1.0, [0.1, 3.0], 2.0)
def test_the_bounds_hold_in_exact_arithmetic(x, w, share):
    y, delta, new = normalised(x, w, share)
    lower, upper = sorted([y - delta, y * exp(-delta / y)])
    slack = abs(y) * Fraction(1, 10**50)  # of the sixty digits of exp
    assert lower - slack <= new <= upper + slack
    got = chain.bounds(float(y), float(delta))
    assert_allclose(got, floats([lower, upper]), rtol=1e-12, atol=1e-15 * abs(float(y)))


def test_the_bounds_hold_on_thousands_of_chains_in_floats():
    rng = np.random.default_rng(0)
    closest = np.inf
    for _ in range(5000):
        w = rng.normal(size=rng.integers(1, 60)) * np.exp(rng.normal())
        x, share = rng.normal(), rng.uniform(0, 2)
        y, g = chain.output(x, w), chain.gradient(x, w)
        if not 1e-100 < abs(y) < 1e100:
            continue
        new = chain.step_exact(x, w, share * y / (g @ g))
        lower, upper = chain.bounds(y, share * y)
        slack = 1e-12 * abs(y)
        assert lower - slack <= new <= upper + slack
        closest = min(closest, (upper - new) / abs(y), (new - lower) / abs(y))
    assert closest < 1e-3  # neither side could be moved in by much


def test_the_bounds_are_tight():
    assert chain.step_exact(5, [2.0], 3 / 25) == pytest.approx(chain.bounds(10, 3)[0])
    w = np.ones(10**5)
    assert chain.step_exact(1, w, 0.3 / len(w)) == pytest.approx(chain.bounds(1, 0.3)[1], rel=1e-6)


@pytest.mark.parametrize(("depth", "fails_at"), [(2, 2.55693), (3, 9.0)])
def test_where_the_inequalities_end(depth, fails_at):
    for s, holds in (fails_at - 1e-4, True), (fails_at + 1e-4, False):
        _, _, product = normalised(1.0, [1.0] * depth, s)
        inside = product <= exp(-Fraction(s)) if depth == 2 else product >= 1 - Fraction(s)
        assert inside is holds


def test_a_chain_with_one_zero_weight_does_as_promised():
    w = np.array([0.0, 2.0, -3.0])
    g = chain.gradient(1.5, w)
    assert chain.bounds(0.0, 0.7) == (-0.7, -0.7)
    assert chain.step_exact(1.5, w, 0.7 / (g @ g)) == pytest.approx(-0.7)


@pytest.mark.parametrize(("y", "delta"), [(1, 2.1), (-1, -2.1), (1, math.nan), (math.nan, 1)])
def test_a_step_past_the_proof_has_no_bounds(y, delta):
    with pytest.raises(ValueError, match="delta / y"):
        chain.bounds(y, delta)


# Newton's step and the normalised chain


@settings(deadline=None)
@given(WEIGHTS, st.lists(WEIGHTS, min_size=2, max_size=8))
def test_newtons_step_solves_its_equations(x, w):
    step = np.array(w) - chain.newton_step(x, w)
    # H (w - w_new) = g, to the digits that H has
    assert_allclose(chain.hessian(x, w) @ step, chain.gradient(x, w), rtol=1e-12)


@settings(deadline=None)
@given(st.lists(WEIGHTS, min_size=1, max_size=6), st.sampled_from([0.0, 1e-5, 0.5]))
def test_the_normalised_chain_and_its_gradient_are_autograds(w, eps):
    torch = pytest.importorskip("torch")
    x = torch.tensor([0.3, -1.0, 2.0, 0.9], dtype=torch.float64)

    def f(w):
        h = x * w[:-1].prod()
        return w[-1] * (h - h.mean()) / (h.var(correction=0) + eps).sqrt()

    t = torch.tensor(w, dtype=torch.float64)
    assert_allclose(chain.output_normalized(x.numpy(), w, eps), f(t), rtol=1e-10, atol=1e-12)
    jacobian = torch.autograd.functional.jacobian(f, t).T
    scale = max(1, 1 / min(map(abs, w)))
    assert_allclose(
        chain.gradient_normalized(x.numpy(), w, eps), jacobian, rtol=1e-9, atol=1e-10 * scale
    )


# Numerics at the edge, and bad input


def test_what_is_too_large_is_infinite_and_not_wrong():
    with np.errstate(over="ignore"):
        assert chain.output(1, [1e200] * 2) == np.inf
        assert chain.step_exact(1, [1.2] * 5000, 0.002) in (np.inf, -np.inf)


@settings(deadline=None)
@given(WEIGHTS, CHAINS, st.floats(1e-4, 1))
def test_nothing_given_is_changed(x, w, eta):
    w = np.array(w)
    w.flags.writeable = False
    for f in chain.step_orders, chain.step_exact, chain.first_order:
        f(x, w, eta)
        f(x, w, eta, w)


BAD = {
    "no weights": ("(0,)", lambda: chain.output(1, [])),
    "a number for the weights": ("()", lambda: chain.gradient(1, 3.0)),
    "a matrix of weights": ("(2, 2)", lambda: chain.step_orders(1, np.ones((2, 2)), 0.1)),
    "a direction too short": (
        "(2,), got shape (1,)", lambda: chain.step_exact(1, [1, 2], 0.1, [1.0]),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("says", "call"), BAD.values(), ids=BAD)
def test_bad_input_is_named(says, call):
    with pytest.raises(ValueError, match=r"shape|weight") as caught:
        call()
    assert says in str(caught.value)
