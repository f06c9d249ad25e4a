"""The fast transform gives what the textbook one gives: any shape, layout, dtype and content."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from bn import fast, functional

#: Cut small, so that small batches make many blocks, the last one shorter than the others, and
#: both ways to add up are taken.
SMALL = {"WIDTH": 24, "BLOCK": 60, "LONG": 8}

SHAPES = {  # shape, axis
    "features": ((40, 5), 0),
    "a prime number of examples": ((97, 3), 0),
    "wide": ((3, 200), 0),
    "images": ((2, 3, 8, 9), (0, 2, 3)),
    "small images": ((7, 3, 2, 3), (0, 2, 3)),
    "channels last": ((3, 4, 5, 6), (0, 1, 2)),
    "sequences": ((5, 6, 7), (0, 2)),
    "two channel axes": ((9, 2, 3, 4), (0, 3)),
    "channels first": ((4, 50), 1),
    "one channel": ((60, 1), 0),
    "channels apart": ((4, 5, 6), 1),
    "channels apart, behind the examples": ((6, 2, 3, 2), (0, 2)),
    "no channels kept": ((4, 5), None),
    "volumes": ((2, 3, 4, 5, 6), (0, 2, 3, 4)),
}
LAYOUTS = {
    "C": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "reversed": lambda a: a[::-1].copy()[::-1],
}


def small(patch):
    for name, value in SMALL.items():
        patch.setattr(fast, name, value)


def sample(shape, axis, rng=0, dtype=np.float32, offset=0.0, scale=1.0):
    rng = np.random.default_rng(rng)
    axes = range(len(shape)) if axis is None else np.atleast_1d(axis)
    kept = [n for a, n in enumerate(shape) if a not in axes]
    x = (offset + scale * rng.normal(size=shape)).astype(dtype)
    return x, rng.normal(size=kept), rng.normal(size=kept), rng.normal(size=shape).astype(dtype)


def both(x, gamma, beta, g, axis, eps=1e-5, threads=1):
    """((y, dx, dgamma, dbeta) of fast, the same of functional, the two caches)."""
    ours = fast.batch_norm(x, gamma, beta, axis=axis, eps=eps, threads=threads)
    theirs = functional.batch_norm(x, gamma, beta, axis=axis, eps=eps)
    return (
        (ours[0], *fast.batch_norm_backward(g, ours[1])),
        (theirs[0], *functional.batch_norm_backward(g, theirs[1])),
        (ours[1], theirs[1]),
    )


def assert_agree(ours, theirs, x, gamma, g, axis, eps=1e-5):
    """Equal to rounding: a few units of the dtype, of the terms that each result is made of."""
    axes = tuple(range(x.ndim)) if axis is None else tuple(np.atleast_1d(axis))
    wide, slope = x.astype(np.float64), np.abs(g.astype(np.float64))
    unit = np.finfo(x.dtype).eps
    mean, sigma = wide.mean(axes, keepdims=True), np.sqrt(wide.var(axes, keepdims=True) + eps)
    # the textbook's mean is rounded to float64: far from zero, every x_hat is off by that
    off = 1 + np.abs(mean) / sigma * (np.finfo(float).eps / unit)
    x_hat = np.abs(wide - mean) / sigma + off
    scale = np.abs(np.expand_dims(np.asarray(gamma, np.float64), axes))
    along = (x_hat * slope).mean(axes, keepdims=True)
    terms = {
        "y": scale * x_hat + np.abs(theirs[0]),
        "dx": scale / sigma * (slope + slope.mean(axes, keepdims=True) + x_hat * along),
        "dgamma": (x_hat * slope).sum(axes),
        "dbeta": slope.sum(axes),
    }
    for (name, size), got, want in zip(terms.items(), ours, theirs, strict=True):
        assert got.dtype == want.dtype == x.dtype, name
        assert got.shape == want.shape, name
        error = np.abs(got.astype(np.float64) - want) / (unit * size)
        assert error.max(initial=0) <= 8, name


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("shape", "axis"), SHAPES.values(), ids=SHAPES)
def test_it_is_the_textbooks(shape, axis, dtype, threads, monkeypatch):
    small(monkeypatch)
    x, gamma, beta, g = sample(shape, axis, dtype=dtype)
    ours, theirs, caches = both(x, gamma, beta, g, axis, threads=threads)
    assert_agree(ours, theirs, x, gamma, g, axis)
    np.testing.assert_allclose(caches[0].mean, caches[1].mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(caches[0].var, caches[1].var, rtol=1e-5)


@st.composite
def batches(draw):
    """Examples, channels, positions, each of any number of axes: what can be cut, and how else."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    lengths = [
        draw(st.lists(st.integers(1, 20), max_size=2)),
        draw(st.lists(st.integers(1, 5), max_size=2)),
        draw(st.lists(st.integers(1, 9), max_size=2)),
    ]
    shape = [n for part in lengths for n in part] or [3]
    kept = range(len(lengths[0]), len(lengths[0]) + len(lengths[1]))
    axis = [a for a in range(len(shape)) if a not in kept] or [0]
    if np.prod([shape[a] for a in axis]) == 1:
        shape[axis[0]] = draw(st.integers(2, 20))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    offset, scale = draw(st.sampled_from([(0, 1), (1e4, 1), (-3, 1e-3), (1, 1e10), (0, 1e-12)]))
    x, gamma, beta, g = sample(shape, axis, rng, dtype, offset, scale)
    layout = LAYOUTS[draw(st.sampled_from(["C", "C", "C", *LAYOUTS]))]
    return layout(x), gamma, beta, layout(g), tuple(axis)


@settings(deadline=None, max_examples=300)
@given(batches(), st.sampled_from([1e-5, 1e-12, 1.0]), st.integers(1, 3))
def test_any_batch(batch, eps, threads):
    x, gamma, _, g, axis = batch
    before = x.copy(), g.copy()
    for a in (x, g):
        a.flags.writeable = False
    with pytest.MonkeyPatch.context() as patch:
        small(patch)
        ours, theirs, _ = both(*batch, eps, threads)
    assert_agree(ours, theirs, x, gamma, g, axis, eps)
    assert_array_equal(x, before[0])
    assert_array_equal(g, before[1])


@pytest.mark.parametrize(
    ("shape", "axis"), [((8192, 96), 0), ((700, 100), 0), ((24, 12, 26, 26), (0, 2, 3))]
)
@pytest.mark.parametrize("drift", [False, True])
def test_a_batch_of_real_size_far_from_zero(shape, axis, drift):
    """Mean 1e4 and deviation 1 in float32; and examples that come in order, so that no sample of
    the first ones is like the rest."""
    x, gamma, beta, g = sample(shape, axis, offset=1e4)
    if drift:
        x += np.linspace(-50, 50, len(x), dtype=np.float32).reshape(-1, *[1] * (x.ndim - 1)) ** 3
    ours, theirs, caches = both(x, gamma, beta, g, axis, threads=2)
    assert isinstance(caches[0], fast.Cache)
    assert_agree(ours, theirs, x, gamma, g, axis)
    off = (caches[0].mean - caches[1].mean) / np.sqrt(caches[1].var)
    assert np.abs(off).max() <= 1e-7
    np.testing.assert_allclose(caches[0].var, caches[1].var, rtol=1e-6)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("eps", [1e-5, 0.0])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, "constant", 1e30, 1e-30, 3e38])
@pytest.mark.parametrize("name", ["features", "images", "small images"])
def test_what_one_channel_holds_touches_no_other(name, value, eps, monkeypatch):
    small(monkeypatch)
    shape, axis = SHAPES[name]
    x, gamma, beta, g = sample(shape, axis)
    if value == "constant":
        x[:, 1] = 3
    elif np.isfinite(value):
        x[:, 1] *= np.float32(value) / np.abs(x[:, 1]).max()
    else:
        x[2 % len(x), 1] = value
    ours, theirs, _ = both(x, gamma, beta, g, axis, eps)
    for got, want in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    assert np.isfinite(np.delete(ours[0], 1, axis=1)).all()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e38])
@pytest.mark.parametrize("name", ["features", "images"])
def test_a_gradient_that_does_not_fit_touches_no_other_channel(name, bad, monkeypatch):
    small(monkeypatch)
    shape, axis = SHAPES[name]
    x, gamma, beta, g = sample(shape, axis)
    g[:, 1] = bad * np.sign(x[:, 1])
    ours, theirs, _ = both(x, gamma, beta, g, axis)
    for got, want in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    assert np.isfinite(np.delete(ours[1], 1, axis=1)).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("threads", [1, 2])
def test_what_does_not_fit_is_tried_in_silence(threads, monkeypatch):
    """The sums overflow in float32; the textbook's float64 holds them, and so nothing is wrong."""
    small(monkeypatch)
    x, gamma, beta, _ = sample((40, 5), 0, offset=1e38, scale=1e36)
    y, cache = fast.batch_norm(x, gamma, beta, threads=threads)
    assert isinstance(cache, functional.Cache)
    assert_array_equal(y, functional.batch_norm(x, gamma, beta)[0])


@pytest.mark.filterwarnings("error")
def test_what_is_left_to_the_textbook():
    x, gamma, beta, g = sample((6, 4, 5), (0, 2))
    for batch in (x.astype(np.float16), x.astype(np.longdouble), x.astype(">f4"), x[:, ::-1]):
        _, cache = fast.batch_norm(batch, gamma, beta, axis=(0, 2))
        assert isinstance(cache, functional.Cache)
    for empty in (np.empty((0, 4, 5)), np.empty((6, 4, 0))):
        y, cache = fast.batch_norm(empty, gamma, beta, axis=(0, 2))
        assert y.shape == empty.shape
        assert fast.batch_norm_backward(empty, cache)[1].tolist() == [0] * 4
    _, cache = fast.batch_norm(x, gamma, beta, axis=(0, 2))
    for gradient in (g.astype(np.float64), np.asfortranarray(g), g.tolist()):
        assert_array_equal(
            fast.batch_norm_backward(gradient, cache)[0], fast.batch_norm_backward(g, cache)[0]
        )


def test_the_backward_pass_keeps_the_input_and_not_a_copy():
    x, gamma, beta, _ = sample((64, 3, 16, 16), (0, 2, 3))
    y, cache = fast.batch_norm(x, gamma, beta, axis=(0, 2, 3))
    assert cache.x is x
    assert not np.shares_memory(y, x)
    assert sum(np.asarray(v).nbytes for v in cache[1:4]) < 100


BAD = {
    "integers": lambda f: f(np.ones((4, 3), int), np.ones(3), np.ones(3)),
    "axis too large": lambda f: f(np.ones((4, 3)), np.ones(3), np.ones(3), axis=2),
    "one value": lambda f: f(np.ones((1, 3)), np.ones(3), np.ones(3)),
    "gamma too long": lambda f: f(np.ones((4, 3)), np.ones(4), np.ones(3)),
    "gamma complex": lambda f: f(np.ones((4, 3)), np.ones(3, complex), np.ones(3)),
    "beta a scalar": lambda f: f(np.ones((4, 3)), np.ones(3), 0.0),
    "negative eps": lambda f: f(np.ones((4, 3)), np.ones(3), np.ones(3), eps=-1),
    "eps a little negative": lambda f: f(np.eye(3), np.ones(3), np.ones(3), eps=-0.01),
    "gamma before eps": lambda f: f(np.ones((4, 3)), np.ones(4), np.ones(3), eps=-1),
}


@pytest.mark.parametrize("call", BAD.values(), ids=BAD)
def test_bad_input_is_refused_in_the_same_words(call):
    with pytest.raises((TypeError, ValueError)) as theirs:
        call(functional.batch_norm)
    with pytest.raises(theirs.type) as ours:
        call(fast.batch_norm)
    assert str(ours.value) == str(theirs.value)


@pytest.mark.parametrize("g", [np.ones(3), np.ones((3, 4)), np.ones((4, 3), int)])
def test_a_bad_gradient_is_refused_in_the_same_words(g):
    x = np.random.default_rng(0).normal(size=(4, 3))
    said = []
    for module in (functional, fast):
        _, cache = module.batch_norm(x, np.ones(3), np.ones(3))
        with pytest.raises((TypeError, ValueError)) as caught:
            module.batch_norm_backward(g, cache)
        said.append((caught.type, str(caught.value)))
    assert said[0] == said[1]


def test_no_threads_are_refused():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        fast.batch_norm(np.ones((4, 3)), np.ones(3), np.ones(3), threads=0)
