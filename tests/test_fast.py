"""The fast transform gives what the textbook one gives: any shape, layout, dtype and content."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from bn import fast, functional

#: Cut small, so that small batches take every path: many planes, many blocks of uneven length.
SMALL = {"PLANE": range(40, 400), "WIDTH": 24, "BLOCK": 60}

SHAPES = {  # shape, axis
    "features": ((40, 5), 0),
    "a prime number of examples": ((97, 3), 0),
    "wide": ((3, 200), 0),
    "images as planes": ((2, 3, 8, 9), (0, 2, 3)),
    "images as rows": ((7, 3, 2, 3), (0, 2, 3)),
    "channels last": ((3, 4, 5, 6), (0, 1, 2)),
    "sequences": ((5, 6, 7), (0, 2)),
    "two channel axes": ((9, 2, 3, 4), (0, 3)),
    "channels first": ((4, 50), 1),
    "one channel": ((60, 1), 0),
    "channels apart": ((4, 5, 6), 1),
    "no channels kept": ((4, 5), None),
    "volumes": ((2, 3, 4, 5, 6), (0, 2, 3, 4)),
}
LAYOUTS = {
    "C": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "reversed": lambda a: a[::-1].copy()[::-1],
}


def small(monkeypatch_or_context):
    for name, value in SMALL.items():
        monkeypatch_or_context.setattr(fast, name, value)


def draw(shape, axis, seed=0, dtype=np.float32, offset=0.0, scale=1.0):
    rng = np.random.default_rng(seed)
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
    wide, slope = x.astype(np.float64), g.astype(np.float64)
    sigma = np.sqrt(wide.var(axes, keepdims=True) + eps)
    x_hat = (wide - wide.mean(axes, keepdims=True)) / sigma
    full = np.expand_dims(np.asarray(gamma, np.float64), axes)
    along = (x_hat * slope).mean(axes, keepdims=True)
    terms = {
        "y": np.abs(full) * (1 + np.abs(x_hat)) + np.abs(theirs[0]),
        "dx": np.abs(full) / sigma * (np.abs(slope) + np.abs(slope).mean(axes, keepdims=True)
                                      + (1 + np.abs(x_hat)) * (np.abs(along) + np.abs(slope).mean())),
        "dgamma": np.abs(x_hat * slope).sum(axes) + np.abs(slope).sum(axes),
        "dbeta": np.abs(slope).sum(axes),
    }  # fmt: skip
    for (name, size), got, want in zip(terms.items(), ours, theirs, strict=True):
        assert got.dtype == want.dtype == x.dtype, name
        assert got.shape == want.shape, name
        assert (np.abs(got.astype(np.float64) - want) <= 8 * np.finfo(x.dtype).eps * size).all(), (
            name, np.max(np.abs(got - want) / size) / np.finfo(x.dtype).eps,
        )  # fmt: skip


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("shape", "axis"), SHAPES.values(), ids=SHAPES)
def test_it_is_the_textbooks(shape, axis, dtype, threads, monkeypatch):
    small(monkeypatch)
    x, gamma, beta, g = draw(shape, axis, dtype=dtype)
    ours, theirs, caches = both(x, gamma, beta, g, axis, threads=threads)
    assert_agree(ours, theirs, x, gamma, g, axis)
    np.testing.assert_allclose(caches[0].mean, caches[1].mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(caches[0].var, caches[1].var, rtol=1e-5)


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_any_batch(data):
    shape = tuple(data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=4), "shape"))
    axis = tuple(data.draw(st.sets(st.integers(0, len(shape) - 1), min_size=1), "axis"))
    if np.prod([shape[a] for a in axis]) == 1:
        shape = tuple(n + 1 for n in shape)
    dtype = data.draw(st.sampled_from([np.float32, np.float64]), "dtype")
    offset, scale = data.draw(
        st.sampled_from([(0, 1), (1e4, 1), (-3, 1e-3), (1, 1e10), (0, 1e-12)]), "values"
    )
    eps = data.draw(st.sampled_from([1e-5, 1e-12, 1.0]), "eps")
    layout = LAYOUTS[data.draw(st.sampled_from(sorted(LAYOUTS)), "layout")]
    threads = data.draw(st.integers(1, 3), "threads")
    x, gamma, beta, g = draw(shape, axis, data.draw(st.integers(0, 999)), dtype, offset, scale)
    x, g = layout(x), layout(g)
    before = x.copy(), g.copy()
    for a in (x, g):
        a.flags.writeable = False
    with pytest.MonkeyPatch.context() as patch:
        small(patch)
        ours, theirs, _ = both(x, gamma, beta, g, axis, eps, threads)
    assert_agree(ours, theirs, x, gamma, g, axis, eps)
    assert_array_equal(x, before[0])
    assert_array_equal(g, before[1])
