"""Exercises of chapter *pytorch_layer*: from Keras, the backward from what was kept, a guard."""

from __future__ import annotations

import numpy as np

from . import Exercise

# ------------------------------------------------------------------------------ from Keras


def _from_keras(momentum, epsilon, moving_variance, m):
    return 1 - momentum, epsilon, moving_variance * m / (m - 1)


def _draw_layer(rng):
    momentum = float(rng.choice([0.9, 0.95, 0.99]))
    epsilon = float(rng.choice([1e-4, 1e-3]))
    return momentum, epsilon, rng.uniform(0.5, 4, rng.integers(2, 5)), int(rng.integers(3, 9))


# ------------------------------------------------------------- the backward, from what was kept


def _backward(g, x, weight, mean, rstd):
    x_hat = (x - mean) * rstd
    d_weight, d_bias = (g * x_hat).sum(axis=0), g.sum(axis=0)
    inner = g - g.mean(axis=0) - x_hat * (g * x_hat).mean(axis=0)
    return weight * rstd * inner, d_weight, d_bias


def _draw_backward(rng):
    n = rng.integers(2, 5)
    m = rng.integers(n + 2, n + 6)
    x = rng.uniform(1, 4, n) + rng.uniform(0.5, 3, n) * rng.normal(size=(m, n))
    g = rng.normal(size=(m, n)) + 1
    weight = rng.uniform(0.5, 2, n) * rng.choice([-1, 1], n)
    return g, x, weight, x.mean(axis=0), 1 / np.sqrt(x.var(axis=0) + 1e-5)


def _parts(g, x, weight, mean, rstd):
    x_hat = (x - mean) * rstd
    return x_hat, (g * x_hat).sum(axis=0), g.sum(axis=0)


def _dx(formula):
    """A wrong formula for the gradient of x, with the other two as they should be."""

    def wrong(g, x, weight, mean, rstd):
        x_hat, d_weight, d_bias = _parts(g, x, weight, mean, rstd)
        return formula(g, x_hat, weight, rstd, d_weight, d_bias), d_weight, d_bias

    return wrong


def _divided(g, x_hat, weight, rstd, d_weight, d_bias):
    m = len(g)
    return weight / rstd * (g - d_bias / m - x_hat * d_weight / m)


def _scale_for_weight(g, x, weight, mean, rstd):
    dx, _, d_bias = _backward(g, x, weight, mean, rstd)
    return dx, (g * x).sum(axis=0), d_bias


def _times_weight(g, x, weight, mean, rstd):
    dx, d_weight, d_bias = _backward(g, x, weight, mean, rstd)
    return dx, weight * d_weight, d_bias


def _averaged(g, x, weight, mean, rstd):
    dx, d_weight, d_bias = _backward(g, x, weight, mean, rstd)
    return dx, d_weight / len(g), d_bias / len(g)


# -------------------------------------------------------------------------------- the guard


def _guarded(running, batch, alpha):
    return np.where(np.isfinite(batch), (1 - alpha) * running + alpha * batch, running)


def _draw_broken(rng):
    """Five channels, of which one is infinite and one is NaN."""
    batch = rng.uniform(1, 5, 5)
    spots = rng.choice(5, 2, replace=False)
    batch[spots] = rng.choice([-1, 1]) * np.inf, np.nan
    return rng.uniform(1, 5, 5), batch, float(rng.uniform(0.1, 0.4))


def _average(running, batch, alpha):
    return (1 - alpha) * running + alpha * batch


EXERCISES = [
    Exercise(
        "pytorch_layer/from_keras",
        reference=_from_keras,
        draw=_draw_layer,
        mistakes={
            "you copied the momentum. Keras's is the weight of the old value, PyTorch's the weight "
            "of the new one: 1 − momentum":
                lambda mo, e, v, m: (mo, e, v * m / (m - 1)),
            "you kept the variance as it is. That keeps the inference; PyTorch itself would have "
            "gathered variances divided by m − 1, so m/(m − 1) times as large":
                lambda mo, e, v, m: (1 - mo, e, v),
            "you multiplied the variance by (m − 1)/m. That is the way from PyTorch to Keras; from "
            "m to m − 1 a variance grows":
                lambda mo, e, v, m: (1 - mo, e, v * (m - 1) / m),
            "you took ε for another kind of number. It is added to the variance in both, and stays "
            "what it is":
                lambda mo, e, v, m: (1 - mo, np.sqrt(e), v * m / (m - 1)),
            "you corrected ε as well. The factor m/(m − 1) is for the variance; ε stays":
                lambda mo, e, v, m: (1 - mo, e * m / (m - 1), v * m / (m - 1)),
            "you took the root: PyTorch stores the variance, not the standard deviation":
                lambda mo, e, v, m: (1 - mo, e, np.sqrt(v * m / (m - 1))),
        },
        hint="one of the three stays, one is subtracted from 1, one is multiplied by m/(m − 1).",
    ),
    Exercise(
        "pytorch_layer/backward",
        reference=_backward,
        draw=_draw_backward,
        mistakes={
            "you stopped at γ/σ · g. The mean and the variance depend on every example, and their "
            "gradients are the two subtracted terms":
                _dx(lambda g, x_hat, w, r, dw, db: w * r * g),
            "the term of the mean is missing: subtract the mean of g over the batch":
                _dx(lambda g, x_hat, w, r, dw, db: w * r * (g - x_hat * dw / len(g))),
            "the term of the variance is missing: subtract x̂ times the mean of g·x̂ over the batch":
                _dx(lambda g, x_hat, w, r, dw, db: w * r * (g - db / len(g))),
            "you left out γ in the gradient of x":
                _dx(lambda g, x_hat, w, r, dw, db: r * (g - db / len(g) - x_hat * dw / len(g))),
            "you left out 1/σ in the gradient of x: multiply by rstd":
                _dx(lambda g, x_hat, w, r, dw, db: w * (g - db / len(g) - x_hat * dw / len(g))),
            "you divided by rstd. It is 1/σ already, so multiply":
                _dx(_divided),
            "you subtracted sums where means belong: divide both by the number of examples":
                _dx(lambda g, x_hat, w, r, dw, db: w * r * (g - db - x_hat * dw)),
            "you divided by m − 1. The batch was normalised with m":
                _dx(lambda g, x_hat, w, r, dw, db:
                    w * r * (g - (db + x_hat * dw) / (len(g) - 1))),
            "the gradient of γ uses x where x̂ belongs: y = γ·x̂ + β":
                _scale_for_weight,
            "you multiplied the gradient of γ by γ. y is linear in γ, so its factor is x̂ alone":
                _times_weight,
            "you averaged the gradients of γ and β over the batch. They are sums: the mean, if "
            "there is one, is part of g":
                _averaged,
        },
        hint="make x̂ = (x − mean)·rstd first; both subtracted terms are means over axis 0.",
    ),
    Exercise(
        "pytorch_layer/guarded",
        reference=_guarded,
        draw=_draw_broken,
        mistakes={
            "one bad channel stops all of them. Decide channel by channel, with np.where":
                lambda r, b, a: _average(r, b, a) if np.isfinite(b).all() else r.copy(),
            "you put 0 for what is not finite, which pulls the average towards 0 at each such "
            "batch. Keep the old average instead":
                lambda r, b, a: _average(r, np.where(np.isfinite(b), b, 0), a),
            "np.nan_to_num makes 0 of NaN and the largest float of infinity, and both go into the "
            "average. Leave such channels alone":
                lambda r, b, a: _average(r, np.nan_to_num(b), a),
            "a channel that is not finite starts from 0 again: keep its average":
                lambda r, b, a: np.where(np.isfinite(b), _average(r, b, a), 0),
            "alpha is the weight of the new batch; you gave it to the old average":
                lambda r, b, a: np.where(np.isfinite(b), a * r + (1 - a) * b, r),
        },
        hint="np.where(np.isfinite(batch), the new average, the old one); NaN and infinity are both "
        "not finite.",
    ),
]  # fmt: skip
