"""Exercises of chapter *numpy_layer*: a linear layer's gradient, the loss, momentum, running statistics."""

from __future__ import annotations

import numpy as np

from . import Exercise

# ------------------------------------------------------------------- the gradient of a Linear


def _linear(g, x, weight):
    return g @ weight, g.T @ x, g.sum(axis=0)


def _draw_linear(rng):
    n, n_in, n_out = rng.permutation([3, 4, 5]) + rng.integers(0, 4) * 3
    return rng.normal(size=(n, n_out)), rng.normal(size=(n, n_in)), rng.normal(size=(n_out, n_in))


# --------------------------------------------------------------------- softmax cross-entropy


def _log_softmax(z, axis=1):
    z = z - z.max(axis=axis, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=axis, keepdims=True))


def _one_hot(z, labels):
    return np.eye(z.shape[1])[labels]


def _loss(log_p, labels):
    return -log_p[np.arange(len(labels)), labels].mean()


def _cross_entropy(logits, labels):
    log_p = _log_softmax(logits)
    return _loss(log_p, labels), (np.exp(log_p) - _one_hot(logits, labels)) / len(labels)


def _changed(loss=lambda value, n: value, gradient=lambda g, z, labels: g):
    """The right answer with one of its two parts changed."""

    def wrong(logits, labels):
        value, g = _cross_entropy(logits, labels)
        return loss(value, len(labels)), gradient(g, logits, labels)

    return wrong


def _over_examples(logits, labels):
    log_p = _log_softmax(logits, axis=0)
    return _loss(log_p, labels), (np.exp(log_p) - _one_hot(logits, labels)) / len(labels)


def _draw_logits(rng):
    """One example of ordinary size, one whose exponentials overflow."""
    n, classes = rng.integers(3, 7), rng.integers(7, 10)
    logits = rng.normal(size=(n, classes))
    logits[0] += 800
    return logits, rng.integers(0, classes, n)


# -------------------------------------------------------------------------------- momentum


def _sgd(p, grads, rates, momentum):
    v = np.zeros_like(p)
    for g, lr in zip(grads, rates, strict=True):
        v = momentum * v + g
        p = p - lr * v
    return p


def _other_sgd(step):
    """``step(p, v, g, lr, momentum, t)`` returns the new p and v."""

    def wrong(p, grads, rates, momentum):
        v = np.zeros_like(p)
        for t, (g, lr) in enumerate(zip(grads, rates, strict=True)):
            p, v = step(p, v, g, lr, momentum, t)
        return p

    return wrong


def _dampened(p, v, g, lr, mu, t):
    v = mu * v + (1 - mu) * g
    return p - lr * v, v


def _dampened_after_the_first(p, v, g, lr, mu, t):
    v = mu * v + (1 - mu) * g if t else g
    return p - lr * v, v


def _nesterov(p, v, g, lr, mu, t):
    v = mu * v + g
    return p - lr * (g + mu * v), v


def _rate_inside(p, v, g, lr, mu, t):
    v = mu * v + lr * g
    return p - v, v


def _old_velocity(p, v, g, lr, mu, t):
    return p - lr * v, mu * v + g


def _everything_decays(p, v, g, lr, mu, t):
    v = mu * (v + g)
    return p - lr * v, v


def _upwards(p, v, g, lr, mu, t):
    v = mu * v + g
    return p + lr * v, v


def _weights_decay(p, v, g, lr, mu, t):
    return mu * p - lr * g, v


def _plain(p, v, g, lr, mu, t):
    return p - lr * g, v


def _sum_of_all(p, v, g, lr, mu, t):
    v = v + g
    return p - lr * v, v


def _draw_steps(rng):
    steps, n = rng.integers(4, 8), rng.integers(2, 5)
    rates = rng.uniform(0.1, 0.2) * 0.7 ** np.arange(steps)
    return (
        rng.normal(size=n) + 2,
        rng.normal(size=(steps, n)) + 1,
        rates,
        round(rng.uniform(0.6, 0.9), 2),
    )


# --------------------------------------------------------------------- running statistics


def _running(mean, var, x, momentum):
    return (
        (1 - momentum) * mean + momentum * x.mean(axis=0),
        (1 - momentum) * var + momentum * x.var(axis=0, ddof=1),
    )


def _draw_running(rng):
    m, n = rng.integers(5, 8), rng.integers(2, 5)
    return (
        rng.normal(size=n),
        rng.uniform(0.5, 2, n),
        rng.normal(size=(m, n)) * rng.uniform(1, 2, n) + rng.uniform(1, 3, n),
        round(rng.uniform(0.05, 0.3), 2),
    )


def _shrunk(mean, var, x, momentum):
    m = len(x)
    return (
        _running(mean, var, x, momentum)[0],
        (1 - momentum) * var + momentum * x.var(axis=0) * (m - 1) / m,
    )


EXERCISES = [
    Exercise(
        "numpy_layer/linear",
        reference=_linear,
        draw=_draw_linear,
        mistakes={
            "you averaged over the examples in dweight and dbias. g is the gradient of the loss and "
            "holds its 1/N already: the examples' parts add up":
                lambda g, x, weight: (g @ weight, g.T @ x / len(g), g.mean(axis=0)),
            "you averaged over the examples in dbias: b is added to every example, so their parts "
            "add up":
                lambda g, x, weight: (g @ weight, g.T @ x, g.mean(axis=0)),
            "dweight is transposed: it has the shape of weight, (n_out, n_in)":
                lambda g, x, weight: (g @ weight, x.T @ g, g.sum(axis=0)),
            "you summed g over the outputs in dbias, axis 1. The bias has one entry for each "
            "output; sum over the examples, axis 0":
                lambda g, x, weight: (g @ weight, g.T @ x, g.sum(axis=1)),
            "dbias is not summed over the examples: every row of g holds a part of it":
                lambda g, x, weight: (g @ weight, g.T @ x, g),
            "you swapped dx and dweight in what you return: first dx, then dweight, then dbias":
                lambda g, x, weight: (g.T @ x, g @ weight, g.sum(axis=0)),
        },
        hint="Shapes decide: dx is (N, n_in), dweight (n_out, n_in), dbias (n_out,). Only one product "
        "of the right two arrays has each shape.",
    ),
    Exercise(
        "numpy_layer/cross_entropy",
        reference=_cross_entropy,
        draw=_draw_logits,
        mistakes={
            "you forgot to divide the gradient by N. The loss is a mean over the examples, so each "
            "row's gradient carries 1/N":
                _changed(gradient=lambda g, z, labels: g * len(labels)),
            "you summed the losses of the examples: take their mean":
                _changed(loss=lambda value, n: value * n),
            "you summed over the examples, in the loss and in the gradient: both are of the mean":
                _changed(lambda value, n: value * n, lambda g, z, labels: g * len(labels)),
            "you did not subtract 1 at the label: the gradient is p minus the one-hot vector, over N":
                _changed(gradient=lambda g, z, labels: g + _one_hot(z, labels) / len(labels)),
            "the gradient has the wrong sign: it is p minus the one-hot vector, not the reverse":
                _changed(gradient=lambda g, z, labels: -g),
            "the loss has the wrong sign: a log-probability is negative, the loss is its opposite":
                _changed(loss=lambda value, n: -value),
            "you took the softmax over the examples, axis 0. Each example has its own: axis 1":
                _over_examples,
            "the gradient is nonzero at the label only. The softmax ties all logits of a row "
            "together, so each of them has a gradient":
                _changed(gradient=lambda g, z, labels: g * _one_hot(z, labels)),
            "you took the logarithm to base 2: the gradient p − one-hot belongs to the natural one":
                _changed(loss=lambda value, n: value / np.log(2)),
        },
        hint="For each row log p = z − log Σ exp(z); the loss is minus the mean of log p at the labels, "
        "the gradient (p − one-hot) / N. If you got nan or inf: one row has logits near 800, whose "
        "exponentials overflow. Subtract each row's maximum first; its softmax stays the same.",
    ),
    Exercise(
        "numpy_layer/momentum",
        reference=_sgd,
        draw=_draw_steps,
        mistakes={
            "you weighted the new gradient with 1 − φ (dampening). PyTorch adds it whole: "
            "v ← φ v + g. With dampening the same learning rate steps 1 − φ times as far":
                _other_sgd(_dampened),
            "you weighted the new gradient with 1 − φ from the second step on. That is PyTorch's "
            "dampening=φ; its default is 0, v ← φ v + g":
                _other_sgd(_dampened_after_the_first),
            "this is Nesterov's version, which steps along g + φ v. Plain momentum steps along v":
                _other_sgd(_nesterov),
            "you put the learning rate into the velocity, v ← φ v + η g. Many texts do; with a "
            "constant rate it is the same, but here the rate falls, and PyTorch multiplies all of "
            "v by the present rate":
                _other_sgd(_rate_inside),
            "you stepped before updating the velocity: each step uses the gradient before":
                _other_sgd(_old_velocity),
            "φ multiplies the new gradient too: v ← φ v + g, not φ (v + g)":
                _other_sgd(_everything_decays),
            "you stepped up the gradient: θ ← θ − η v":
                _other_sgd(_upwards),
            "φ multiplies the parameter. It multiplies the velocity":
                _other_sgd(_weights_decay),
            "the momentum has no effect: keep v from step to step":
                _other_sgd(_plain),
            "the old velocity does not decay: v ← φ v + g":
                _other_sgd(_sum_of_all),
        },
        hint="Start with v = 0. For each gradient: v ← φ v + g, then θ ← θ − η v with that step's η.",
    ),
    Exercise(
        "numpy_layer/running",
        reference=_running,
        draw=_draw_running,
        mistakes={
            "you averaged the biased variance, divided by m. It normalises the batch; what is stored "
            "estimates the population's variance and divides by m − 1 (ddof=1)":
                lambda mean, var, x, a: (_running(mean, var, x, a)[0], (1 - a) * var + a * x.var(axis=0)),
            "momentum weighs the wrong side: in PyTorch it is the weight of the new value. Keras "
            "means the weight of the old one":
                lambda mean, var, x, a: _running(mean, var, x, 1 - a),
            "you stored the standard deviation: store the variance":
                lambda mean, var, x, a: (_running(mean, var, x, a)[0], (1 - a) * var + a * x.std(axis=0, ddof=1)),
            "the correction is upside down: multiply the biased variance by m/(m − 1), not (m − 1)/m":
                _shrunk,
            "you replaced the averages by the batch's own values: they move only by the share "
            "`momentum`":
                lambda mean, var, x, a: (x.mean(axis=0), x.var(axis=0, ddof=1)),
            "you added the batch's share without shrinking the old value: weights 1 − momentum and "
            "momentum":
                lambda mean, var, x, a: (mean + a * x.mean(axis=0), var + a * x.var(axis=0, ddof=1)),
            "you measured the batch's variance around the running mean: its own mean is the centre":
                lambda mean, var, x, a: (
                    _running(mean, var, x, a)[0],
                    (1 - a) * var + a * ((x - mean) ** 2).sum(axis=0) / (len(x) - 1),
                ),
            "you swapped the two averages in what you return: the mean first":
                lambda mean, var, x, a: _running(mean, var, x, a)[::-1],
        },
        hint="(1 − momentum) · old + momentum · new, for the mean and for the variance over axis 0; the "
        "new variance divides by m − 1.",
    ),
]  # fmt: skip
