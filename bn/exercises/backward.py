"""Exercises of chapter *backward*: the gradients of the layer, its Jacobian, a numerical check."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import Exercise

EPS = 1e-5


def _draw(rng):
    """More examples than features; one feature so tight that epsilon shows."""
    n = rng.integers(3, 5)
    m = rng.integers(n + 2, n + 6)
    scale = np.append(rng.uniform(0.5, 3, n - 1), rng.uniform(2e-3, 6e-3))
    x = rng.uniform(1, 4, n) * rng.choice([-1, 1], n) + scale * rng.normal(size=(m, n))
    return rng.normal(size=(m, n)) + 1, x, rng.uniform(1.5, 3, n) * rng.choice([-1, 1], n)


def _standardize(x, eps=EPS, ddof=0):
    sigma = np.sqrt(x.var(axis=0, ddof=ddof) + eps)
    return (x - x.mean(axis=0)) / sigma, sigma


# ---------------------------------------------------------------------- the three gradients


def _dx(g, x, gamma):
    x_hat, sigma = _standardize(x)
    return gamma / sigma * (g - g.mean(axis=0) - x_hat * (g * x_hat).mean(axis=0))


def _parts(g, x, **how):
    """x̂, σ and the two terms that are subtracted from g."""
    x_hat, sigma = _standardize(x, **how)
    return x_hat, sigma, g.mean(axis=0), x_hat * (g * x_hat).mean(axis=0)


def _dx_with(wrong, **how):
    """A wrong line in x̂, σ and the two terms."""
    return lambda g, x, gamma: wrong(g, x, gamma, *_parts(g, x, **how))


def _over_features(g, x, gamma):
    x_hat, sigma = _standardize(x)
    share = (g * x_hat).mean(axis=1, keepdims=True)
    return gamma / sigma * (g - g.mean(axis=1, keepdims=True) - x_hat * share)


def _parameters(g, x):
    x_hat, _ = _standardize(x)
    return (g * x_hat).sum(axis=0), g.sum(axis=0)


# ----------------------------------------------------------------------------- the Jacobian


def _jacobian(x, of_mean=1.0, of_x_hat=1.0, identity=1.0, eps=EPS, count=0, power=1):
    x_hat, sigma = _standardize(x, eps)
    m = len(x) + count
    inside = identity * np.eye(len(x)) - of_mean / m - of_x_hat * np.outer(x_hat, x_hat) / m
    return inside / sigma**power


def _draw_feature(rng):
    m = rng.integers(4, 8)
    return (rng.uniform(-3, 3) + rng.uniform(3e-3, 8e-3) * rng.normal(size=m),)


# ----------------------------------------------------------------- the gradient by differences


@dataclass(frozen=True)
class _Loss:
    """A smooth function of an array, no derivative of which is zero."""

    a: tuple
    b: float

    def __call__(self, x):
        a = np.reshape(self.a, np.shape(x))
        return float(np.sum(a * np.sin(x) + self.b * x**3) + 7)


def _draw_loss(rng):
    shape = tuple(rng.integers(2, 4, size=2))
    x = rng.uniform(0.5, 1.5, shape) * rng.choice([-1, 1], shape)
    return _Loss(tuple(rng.uniform(1, 2, x.size).tolist()), rng.uniform(0.5, 1)), x


def _moves(f, x, h, ahead=1, behind=1):
    """Take f a step ahead minus f a step behind, for each entry."""
    out = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[i] = h
        out[i] = f(x + ahead * step) - f(x - behind * step)
    return out


def _numerical_gradient(f, x, h=1e-5):
    return _moves(f, x, h) / (2 * h)


def _all_at_once(f, x):
    return np.full_like(x, (f(x + 1e-5) - f(x - 1e-5)) / 2e-5)


def _never_put_back(f, x):
    x, out = x.copy(), np.zeros_like(x)
    for i in np.ndindex(x.shape):
        x[i] += 1e-5
        ahead = f(x)
        x[i] -= 1e-5
        out[i] = (ahead - f(x)) / 2e-5
    return out


EXERCISES = [
    Exercise(
        "backward/parameters",
        reference=_parameters,
        draw=lambda rng: _draw(rng)[:2],
        mistakes={
            "you swapped the two: γ's gradient is the sum of g x̂, β's the sum of g":
                lambda g, x: _parameters(g, x)[::-1],
            "you averaged over the batch. Every example uses γ and β once, so the contributions are "
            "summed; a mean, if there is one, is in the loss and so in g already":
                lambda g, x: tuple(v / len(x) for v in _parameters(g, x)),
            "you multiplied g with x, not with x̂: γ scales the standardised value":
                lambda g, x: ((g * x).sum(axis=0), g.sum(axis=0)),
            "you multiplied g with x − μ: divide by σ too":
                lambda g, x: ((g * (x - x.mean(axis=0))).sum(axis=0), g.sum(axis=0)),
            "you summed over the features. γ and β have one entry per column, so sum over the "
            "examples, axis=0":
                lambda g, x: ((g * _standardize(x)[0]).sum(axis=1), g.sum(axis=1)),
            "you summed over the whole array: every feature has its own γ and β, axis=0":
                lambda g, x: ((g * _standardize(x)[0]).sum(), g.sum()),
            "you did not sum: γ serves every example of its column, so its gradient is a sum over them":
                lambda g, x: (g * _standardize(x)[0], g),
            "you forgot ε in σ":
                lambda g, x: ((g * _standardize(x, 0)[0]).sum(axis=0), g.sum(axis=0)),
            "you divided by m − 1 in the variance: batch norm divides by m":
                lambda g, x: ((g * _standardize(x, ddof=1)[0]).sum(axis=0), g.sum(axis=0)),
        },
        hint="y = γ x̂ + β: differentiate with respect to γ, multiply by g, and sum over the "
        "examples, axis=0.",
    ),
    Exercise(
        "backward/dx",
        reference=_dx,
        draw=_draw,
        mistakes={
            "you treated mean and variance as constants: γ g / σ. They depend on x, and give the two "
            "terms to subtract":
                _dx_with(lambda g, x, gamma, x_hat, sigma, a, b: gamma / sigma * g),
            "you forgot the term of the mean: subtract the mean of g over the batch":
                _dx_with(lambda g, x, gamma, x_hat, sigma, a, b: gamma / sigma * (g - b)),
            "you forgot the term of the variance: subtract x̂ times the mean of g x̂":
                _dx_with(lambda g, x, gamma, x_hat, sigma, a, b: gamma / sigma * (g - a)),
            "you added the two terms: both are subtracted":
                _dx_with(lambda g, x, gamma, x_hat, sigma, a, b: gamma / sigma * (g + a + b)),
            "you subtracted sums over the batch; they are means, divided by m":
                _dx_with(lambda g, x, gamma, x_hat, sigma, a, b: gamma / sigma * (g - len(x) * (a + b))),
            "you subtracted the mean of g x̂ itself: it is multiplied by each example's x̂":
                _dx_with(lambda g, x, gamma, x_hat, sigma, a, b:
                         gamma / sigma * (g - a - (g * x_hat).mean(axis=0))),
            "you used x where x̂ belongs in the last term":
                _dx_with(lambda g, x, gamma, x_hat, sigma, a, b:
                         gamma / sigma * (g - a - x * (g * x).mean(axis=0))),
            "you forgot γ":
                _dx_with(lambda g, x, gamma, x_hat, sigma, a, b: (g - a - b) / sigma),
            "only g was multiplied by γ. The subtracted terms come from g too: γ stands in front of "
            "the bracket":
                _dx_with(lambda g, x, gamma, x_hat, sigma, a, b: (gamma * g - a - b) / sigma),
            "you forgot to divide by σ":
                _dx_with(lambda g, x, gamma, x_hat, sigma, a, b: gamma * (g - a - b)),
            "you multiplied by σ: divide by it":
                _dx_with(lambda g, x, gamma, x_hat, sigma, a, b: gamma * sigma * (g - a - b)),
            "you divided by the variance: divide by σ, its root":
                _dx_with(lambda g, x, gamma, x_hat, sigma, a, b: gamma / sigma**2 * (g - a - b)),
            "you forgot ε in σ":
                _dx_with(lambda g, x, gamma, x_hat, sigma, a, b: gamma / sigma * (g - a - b), eps=0),
            "you divided by m − 1 in the variance: batch norm divides by m":
                _dx_with(lambda g, x, gamma, x_hat, sigma, a, b: gamma / sigma * (g - a - b), ddof=1),
            "you averaged over the features. Each feature is averaged over the examples, axis=0":
                _over_features,
        },
        hint="Three factors and terms: γ/σ in front, and in the bracket g, minus its mean, minus x̂ "
        "times the mean of g x̂; every mean with axis=0, σ = √(variance + 1e-5).",
    ),
    Exercise(
        "backward/jacobian",
        reference=lambda x: _jacobian(x),
        draw=_draw_feature,
        mistakes={
            "you forgot to divide by σ":
                lambda x: _jacobian(x, power=0),
            "you divided by σ twice":
                lambda x: _jacobian(x, power=2),
            "you left out the matrix of ones: the mean depends on every x too":
                lambda x: _jacobian(x, of_mean=0),
            "you left out x̂ x̂ᵀ: σ depends on every x too":
                lambda x: _jacobian(x, of_x_hat=0),
            "you differentiated with mean and σ as constants":
                lambda x: _jacobian(x, of_mean=0, of_x_hat=0),
            "you did not divide the two subtracted matrices by m":
                lambda x: _jacobian(x, of_mean=len(x), of_x_hat=len(x)),
            "you divided by m − 1: both matrices are divided by m":
                lambda x: _jacobian(x, count=-1),
            "you added the two matrices: both are subtracted":
                lambda x: _jacobian(x, of_mean=-1, of_x_hat=-1),
            "you left out the identity":
                lambda x: _jacobian(x, identity=0),
            "you forgot ε in σ":
                lambda x: _jacobian(x, eps=0),
            "you used x − μ where x̂ belongs":
                lambda x: _jacobian(x, of_x_hat=x.var() + EPS),
        },
        hint="The identity, minus a matrix of 1/m, minus the outer product of x̂ with itself over m; "
        "all of it divided by σ.",
    ),
    Exercise(
        "backward/numerical",
        reference=lambda f, x: _numerical_gradient(f, x),
        draw=_draw_loss,
        mistakes={
            **{
                f"you used the forward difference f(x + h) − f(x) with h = {h:.0e}. Its error shrinks only "
                "with h; that of the central difference, f(x + h) − f(x − h) over 2h, with h²":
                    lambda f, x, h=h: _moves(f, x, h, behind=0) / h
                for h in (1e-4, 1e-5, 1e-6)
            },
            "you divided by h: from x − h to x + h it is 2h":
                lambda f, x: _moves(f, x, 1e-5) / 1e-5,
            "your step is 0.1, too long: the function bends over that distance":
                lambda f, x: _numerical_gradient(f, x, 0.1),
            "your step is 0.01, too long: the function bends over that distance":
                lambda f, x: _numerical_gradient(f, x, 0.01),
            "you moved all entries of x at once. One entry at a time gives the partial derivatives":
                _all_at_once,
            "the sign is reversed: f a step ahead minus f a step behind":
                lambda f, x: -_numerical_gradient(f, x),
            "the second value is f(x), not f(x − h): step back twice, or work on a copy":
                _never_put_back,
        },
        hint="For each entry: f with that entry h larger, minus f with it h smaller, over 2h; h about "
        "1e-5; everything in float64.",
        rtol=3e-8,
        atol=3e-8,
    ),
]  # fmt: skip
