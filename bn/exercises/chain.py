"""Exercises of the chapter on the deep linear chain."""

from __future__ import annotations

import numpy as np

from bn import chain

from . import Exercise


def _size(rng, low: float, high: float, size=None):
    """Numbers of either sign, well away from 0: a mistake must show."""
    return rng.choice([-1.0, 1.0], size) * rng.uniform(low, high, size)


def _chain(rng):
    return _size(rng, 1.2, 2.0), _size(rng, 0.6, 1.4, rng.integers(3, 7)), rng.uniform(0.05, 0.2)


def _batch(rng):
    w = _size(rng, 0.6, 1.6, rng.integers(3, 6))
    w[0] = -abs(w[0]) * np.sign(np.prod(w[1:-1]))  # the lower weights' product is negative
    return rng.normal(3.0, 2.0, rng.integers(4, 9)), w, rng.uniform(0.05, 0.3)


# ------------------------------------------------------------------- the orders of one step


def _multiply_out(x, stay, move):
    orders = np.zeros(len(stay) + 1)
    orders[0] = x
    for a, b in zip(stay, move, strict=True):
        orders[1:] = a * orders[1:] + b * orders[:-1]
        orders[0] *= a
    return orders


def _in_place(x, w, eta):
    g, orders = chain.gradient(x, w), [x] + [0.0] * len(w)
    for i in range(len(w)):
        for k in range(len(w) + 1):  # upwards: orders[k - 1] is already the new one
            orders[k] = w[i] * orders[k] - (eta * g[i] * orders[k - 1] if k else 0)
    return np.array(orders)


def _one_by_one(x, w, eta):
    w = w.copy()
    stay, move = w.copy(), np.zeros_like(w)
    for i in range(len(w)):
        move[i] = -eta * chain.gradient(x, w)[i]
        w[i] += move[i]
    return _multiply_out(x, stay, move)


orders = Exercise(
    "chain/orders",
    reference=lambda x, w, eta: chain.step_orders(x, w, eta),
    draw=_chain,
    mistakes={
        "the sign of the odd orders is wrong: the step is w − ηg, so each g comes with −η":
            lambda x, w, eta: chain.step_orders(x, w, -eta),
        "the factor x in front of the product is missing; the gradient you use has it":
            lambda x, w, eta: chain.step_orders(x, w, eta) / x,
        "x is left out altogether, in the product and in the gradient":
            lambda x, w, eta: chain.step_orders(1.0, w, eta),
        "these are the coefficients: each order k still has to be multiplied by η to the power k":
            lambda x, w, eta: chain.step_orders(x, w, eta) / eta ** np.arange(len(w) + 1),
        "these are running totals: return what each order adds, not the sum up to it":
            lambda x, w, eta: np.cumsum(chain.step_orders(x, w, eta)),
        "the list is updated in place from k = 0 upwards, so orders[k − 1] is already the new one; "
        "go from the highest k down": _in_place,
        "the gradient is taken again after each weight has moved; one step uses the gradient at "
        "the old weights for all of them": _one_by_one,
        "the weights that stay are missing: a subset's term is the product of g inside it *and* of "
        "w outside it":
            lambda x, w, eta: _multiply_out(x, np.ones(len(w)), -eta * chain.gradient(x, w)),
        "order 0 is missing: the old output comes first":
            lambda x, w, eta: chain.step_orders(x, w, eta)[1:],
        "these are changes: order 0 is the old output, not 0":
            lambda x, w, eta: np.concatenate([[0.0], chain.step_orders(x, w, eta)[1:]]),
    },
    hint="Begin with [x, 0, …, 0] and multiply by one factor (w_i − η g_i) at a time.",
    rtol=1e-9,
    atol=1e-12,
)  # fmt: skip


# --------------------------------------------------------------------- the normalised step


def _normalized(x, w, delta):
    g = chain.gradient(x, w)
    return w - delta / (g @ g) * g


def _draw_normalized(rng):
    x, w, _ = _chain(rng)
    return x, w, rng.uniform(0.2, 0.9) * abs(chain.output(x, w))


def _one_by_one_normalized(x, w, delta):
    g, w = chain.gradient(x, w), w.copy()
    eta = delta / (g @ g)
    for i in range(len(w)):
        w[i] -= eta * chain.gradient(x, w)[i]
    return w


def _with_gradient(f):
    return lambda x, w, delta: f(w, delta, chain.gradient(x, w))


normalized_step = Exercise(
    "chain/normalized_step",
    reference=lambda x, w, delta: _normalized(x, w, delta),
    draw=_draw_normalized,
    mistakes={
        "you divided by the length of g; the promise falls by η gᵀg, so divide by its square":
            _with_gradient(lambda w, delta, g: w - delta / np.linalg.norm(g) * g),
        "the step goes uphill: to lower the output the weights move against the gradient":
            _with_gradient(lambda w, delta, g: w + delta / (g @ g) * g),
        "you divided by the squared sum of g; gᵀg is the sum of the squares":
            _with_gradient(lambda w, delta, g: w - delta / g.sum() ** 2 * g),
        "you shared δ among the weights once more (a factor 1/l too many)":
            _with_gradient(lambda w, delta, g: w - delta / len(w) / (g @ g) * g),
        "δ itself is used as the learning rate; it still has to be divided by gᵀg":
            _with_gradient(lambda w, delta, g: w - delta * g),
        "the gradient misses the factor x":
            lambda x, w, delta: _normalized(1.0, w, delta),
        "the gradient is taken again after each weight has moved; all of them use the old one":
            _one_by_one_normalized,
        "this is η; the function returns the new weights":
            _with_gradient(lambda w, delta, g: delta / (g @ g)),
        "this is the change of the weights; the function returns the new weights":
            _with_gradient(lambda w, delta, g: -delta / (g @ g) * g),
        "every weight moves by the same share; along the gradient, small weights move more":
            lambda x, w, delta: w * (1 - delta / (len(w) * chain.output(x, w))),
    },
    hint="Choose η so that η gᵀg = δ, then take one ordinary gradient step.",
    rtol=1e-9,
    atol=1e-12,
)  # fmt: skip


# ------------------------------------------------------------- normalising the last hidden value


def _standard(h, eps):
    return (h - h.mean()) / np.sqrt(h.var() + eps)


normalized_output = Exercise(
    "chain/normalized_output",
    reference=lambda x, w, eps: chain.output_normalized(x, w, eps),
    draw=_batch,
    mistakes={
        "the inputs are standardised, not h[l−1]: the sign (and, through ε, the size) of the lower "
        "weights' product is lost":
            lambda x, w, eps: w[-1] * _standard(x, eps),
        "the output is standardised, after the last weight: what w[l] does is normalised away":
            lambda x, w, eps: _standard(x * np.prod(w), eps),
        "h is only divided by its standard deviation; subtract its mean first":
            lambda x, w, eps: w[-1] * (h := x * np.prod(w[:-1])) / np.sqrt(h.var() + eps),
        "h is only centred; divide by its standard deviation too":
            lambda x, w, eps: w[-1] * ((h := x * np.prod(w[:-1])) - h.mean()),
        "you divided by m − 1 in the variance; batch normalization divides by m":
            lambda x, w, eps: w[-1] * ((h := x * np.prod(w[:-1])) - h.mean())
            / np.sqrt(h.var(ddof=1) + eps),
        "ε is added outside the root; it belongs to the variance, inside it":
            lambda x, w, eps: w[-1] * ((h := x * np.prod(w[:-1])) - h.mean()) / (h.std() + eps),
        "ε is missing":
            lambda x, w, eps: w[-1] * _standard(x * np.prod(w[:-1]), 0.0),
        "you divided by the variance; divide by its square root":
            lambda x, w, eps: w[-1] * ((h := x * np.prod(w[:-1])) - h.mean()) / (h.var() + eps),
        "the last weight is missing: ŷ = w[l] times the standardised h[l−1]":
            lambda x, w, eps: _standard(x * np.prod(w[:-1]), eps),
        "the last weight is inside h and outside too; h[l−1] is the product of the weights below it":
            lambda x, w, eps: w[-1] * _standard(x * np.prod(w), eps),
    },
    hint="h = x·w₁⋯w_{l−1} first; then standardise h over the batch; then multiply by w_l.",
    rtol=1e-9,
    atol=1e-12,
)  # fmt: skip

EXERCISES = [orders, normalized_step, normalized_output]
