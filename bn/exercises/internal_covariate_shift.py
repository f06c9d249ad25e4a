"""Checks for the chapter *Internal covariate shift*."""

from __future__ import annotations

import itertools

import numpy as np

from . import Exercise


def importance_weights(x, train, test):
    """Density under the test distribution over that under the training distribution."""
    return _normal(x, *test) / _normal(x, *train)


def _normal(x, mean, std, *, power=1, square=True, std_is_var=False):
    std = np.sqrt(std) if std_is_var else std
    z = (x - mean) / std
    return np.exp(-0.5 * z**2 if square else -(z**2)) / std**power


def _ratio(**wrong):
    return lambda x, train, test: _normal(x, *test, **wrong) / _normal(x, *train, **wrong)


def _sum_to_one(x, train, test):
    weights = importance_weights(x, train, test)
    return weights / weights.sum()


def _draw_gaussians(rng):
    train = rng.normal(), rng.uniform(0.8, 1.6)
    test = train[0] + rng.choice([-1, 1]) * rng.uniform(0.5, 1.5), rng.uniform(0.4, 0.75)
    return rng.normal(*train, size=int(rng.integers(5, 12))), train, test


def _gradients(x, y, weights):
    """Gradients of the mean of half the squared error of ``x @ w[0] @ … @ w[-1]``."""
    front = [x]
    for w in weights:
        front.append(front[-1] @ w)
    error, found = (front[-1] - y) / len(x), []
    for h, w in zip(front[-2::-1], weights[::-1], strict=True):
        found.append(h.T @ error)
        error = error @ w.T
    return found[::-1]


def gradient_shift(x, y, weights, lr):
    """Relative change of each layer's gradient after the layers before it took their step."""
    return _shift(lambda i, j: j < i)(x, y, weights, lr)


def _shift(moves, *, sign=-1, relative_to=0, in_turn=False):
    """The measure, with a wrong choice of the layers `j` that move for layer `i`."""

    def attempt(x, y, weights, lr):
        before, found = _gradients(x, y, weights), []
        for i in range(len(weights)):
            moved = list(weights)
            for j in range(len(weights)):
                if moves(i, j):
                    step = _gradients(x, y, moved)[j] if in_turn else before[j]
                    moved[j] = weights[j] + sign * lr * step
            pair = before[i], _gradients(x, y, moved)[i]
            scale = 1 if relative_to is None else np.linalg.norm(pair[relative_to])
            found.append(np.linalg.norm(pair[0] - pair[1]) / scale)
        return np.array(found)

    return attempt


def _draw_linear_network(rng):
    sizes = rng.integers(2, 6, size=int(rng.integers(4, 6)))
    weights = [rng.normal(size=pair) / np.sqrt(pair[0]) for pair in itertools.pairwise(sizes)]
    x = rng.normal(size=(int(rng.integers(6, 12)), sizes[0]))
    y = rng.normal(size=(len(x), sizes[-1]))
    return x, y, weights, float(rng.uniform(0.1, 0.4))


EXERCISES = [
    Exercise(
        "internal_covariate_shift/importance_weights",
        reference=importance_weights,
        draw=_draw_gaussians,
        mistakes={
            "that is the ratio the other way round: an example that is common in testing and rare "
            "in training must count more": lambda x, train, test: importance_weights(
                x, test, train
            ),
            "you left out the factor 1/std in front of the exponential; it does not cancel, since "
            "the two deviations differ": _ratio(power=0),
            "you divided by the variance in front of the exponential; there it is the standard "
            "deviation": _ratio(power=2),
            "the exponent lacks its ½": _ratio(square=False),
            "you took the second number for a variance; it is a standard deviation": _ratio(
                std_is_var=True
            ),
            "you made the weights sum to 1; asked for is the ratio of the densities, whose mean "
            "over many training examples is near 1": _sum_to_one,
            "you returned the density in testing; divide it by the one in training": (
                lambda x, train, test: _normal(x, *test) / np.sqrt(2 * np.pi)
            ),
        },
        hint="A normal density is exp(−½((x − mean)/std)²) / (std·√(2π)); take one over the other.",
    ),
    Exercise(
        "internal_covariate_shift/gradient_shift",
        reference=gradient_shift,
        draw=_draw_linear_network,
        mistakes={
            "you moved the layer itself as well; only those before it take their step": _shift(
                lambda i, j: j <= i
            ),
            "you moved every other layer, those behind it too; definition 2.1 moves only those "
            "before it": _shift(lambda i, j: j != i),
            "you moved the layers behind instead of those before": _shift(lambda i, j: j > i),
            "you moved only the layer directly before; all of them take their step": _shift(
                lambda i, j: j == i - 1
            ),
            "you walked uphill: a step is −lr·gradient": _shift(lambda i, j: j < i, sign=1),
            "you recomputed the gradients between the layers' steps; all steps use the gradients "
            "at the old weights": _shift(lambda i, j: j < i, in_turn=True),
            "you divided by the length of the new gradient; the old one is the scale": _shift(
                lambda i, j: j < i, relative_to=1
            ),
            "you returned the length of the difference; divide it by that of the old "
            "gradient": _shift(lambda i, j: j < i, relative_to=None),
        },
        hint="Compute all old gradients first. For layer i, move a copy of the layers 0 … i−1 by "
        "them, and compute the gradient of layer i again.",
    ),
]
