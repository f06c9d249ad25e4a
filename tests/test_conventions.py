"""Conversions between frameworks: each framework's rule, as its documentation words it, agrees.

The rules below are written from the documentation alone, one by one, and know nothing of
``bn.conventions``: what converts one into the other is tested against them.
"""

from __future__ import annotations

import inspect
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bn import conventions
from bn.conventions import (
    CONVENTIONS,
    convert_arguments,
    convert_momentum,
    convert_state,
    convert_variance,
    move_channels,
)

NAMES = list(CONVENTIONS)
PAIRS = list(itertools.permutations(NAMES, 2))
names = st.sampled_from(NAMES)
weights = st.floats(0, 1)
seeds = st.integers(0, 2**32 - 1)


# ------------------------------------------------------ each framework's rule, as documented


def pytorch(mean, var, x, momentum):
    """x_new = (1 − momentum) x + momentum x_t; stored is torch.var(input, correction=1)."""
    axes = (0, *range(2, x.ndim))
    mean = (1 - momentum) * mean + momentum * x.mean(axes)
    return mean, (1 - momentum) * var + momentum * x.var(axes, ddof=1)


def keras(mean, var, x, momentum):
    """moving_var = moving_var * momentum + var(batch) * (1 - momentum), over all but the last axis."""
    axes = tuple(range(x.ndim - 1))
    mean = mean * momentum + x.mean(axes) * (1 - momentum)
    return mean, var * momentum + x.var(axes) * (1 - momentum)


def flax(mean, var, x, momentum):
    """ra = momentum * ra + (1 - momentum) * new, with var = mean(x²) − mean(x)²."""
    axes = tuple(range(x.ndim - 1))
    mu = x.mean(axes)
    new = np.maximum(0, (x**2).mean(axes) - mu**2)
    return momentum * mean + (1 - momentum) * mu, momentum * var + (1 - momentum) * new


def onnx(mean, var, x, momentum):
    """running_var = input_var * momentum + current_var * (1 - momentum), the population variance."""
    axes = (0, *range(2, x.ndim))
    current = np.square(x - x.mean(axes, keepdims=True)).mean(axes)
    mean = mean * momentum + x.mean(axes) * (1 - momentum)
    return mean, var * momentum + current * (1 - momentum)


def cudnn(mean, var, x, factor):
    """runningMean = newMean*factor + runningMean*(1-factor); 20 of 20 values becomes 21.05."""
    axes = (0, *range(2, x.ndim))
    m = x[:, 0].size
    mean = x.mean(axes) * factor + mean * (1 - factor)
    return mean, x.var(axes) * m / (m - 1) * factor + var * (1 - factor)


RULES = {"pytorch": pytorch, "keras": keras, "flax": flax, "onnx": onnx, "cudnn": cudnn}


def after(name, momentum, batches, channels):
    """Running statistics of one framework over batches given with channels on axis 1."""
    mean, var = np.zeros(channels), np.ones(channels)
    for x in batches:
        mean, var = RULES[name](mean, var, move_channels(x, "pytorch", name), momentum)
    return mean, var


def draw(seed):
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(2, 7)), int(rng.integers(1, 4)), *rng.integers(1, 4, rng.integers(3)))
    batches = rng.normal(1, 2, size=(int(rng.integers(1, 12)), *shape))
    return batches, shape[1], batches[0, :, 0].size


@pytest.mark.parametrize("name", NAMES)
def test_every_convention_is_simulated(name):
    assert name in RULES


@given(names, names, st.floats(0.01, 0.99), seeds)
def test_the_same_batches_give_the_same_statistics(source, to, alpha, seed):
    batches, channels, m = draw(seed)
    momentum = convert_momentum(alpha, "pytorch", source)
    mean, var = after(source, momentum, batches, channels)
    theirs = after(to, convert_momentum(momentum, source, to), batches, channels)
    state = dict(zip(CONVENTIONS[source].names[2:], (mean, var), strict=True))
    start = (1 - alpha) ** len(batches)
    ours = convert_state(state, source, to, m=m, start=start)
    assert list(ours) == list(CONVENTIONS[to].names[2:])
    for got, want in zip(ours.values(), theirs, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)


def test_without_start_the_initial_value_is_corrected_too():
    batches, channels, m = draw(0)
    alpha = 0.5
    _, var = after("keras", 0.5, batches, channels)
    _, want = after("pytorch", 0.5, batches, channels)
    off = convert_variance(var, "keras", "pytorch", m=m) - want
    np.testing.assert_allclose(off, (1 - alpha) ** len(batches) / (m - 1), rtol=1e-9)


# ----------------------------------------------------------------------------- round trips


@given(names, names, weights)
def test_momentum_goes_round(a, b, momentum):
    there = convert_momentum(momentum, a, b)
    assert 0 <= there <= 1
    assert convert_momentum(there, b, a) == pytest.approx(momentum, abs=2e-15)


@given(names, names, names, weights)
def test_momentum_by_a_detour(a, b, c, momentum):
    detour = convert_momentum(convert_momentum(momentum, a, b), b, c)
    assert detour == pytest.approx(convert_momentum(momentum, a, c), abs=2e-15)


@given(names, names, weights, st.floats(0, 1))
def test_arguments_go_round(a, b, momentum, eps):
    arguments = {CONVENTIONS[a].momentum: momentum, CONVENTIONS[a].eps: eps}
    back = convert_arguments(convert_arguments(arguments, a, b), b, a)
    assert back == pytest.approx(arguments, abs=2e-15)


@given(names, names, st.integers(2, 1000), st.floats(0, 1), seeds)
def test_a_state_goes_round(a, b, m, start, seed):
    rng = np.random.default_rng(seed)
    state = {name: rng.uniform(1, 5, size=3) for name in CONVENTIONS[a].names}
    there = convert_state(state, a, b, m=m, start=start)
    assert list(there) == list(CONVENTIONS[b].names)
    back = convert_state(there, b, a, m=m, start=start)
    for name, value in state.items():
        np.testing.assert_allclose(back[name], value, rtol=1e-12)
        assert not np.shares_memory(back[name], value)


@given(names, names, st.integers(2, 5), seeds)
def test_channels_go_round(a, b, ndim, seed):
    shape = np.random.default_rng(seed).integers(1, 5, ndim)
    x = np.arange(shape.prod(), dtype=float).reshape(shape)
    there = move_channels(x, a, b)
    assert there.shape[CONVENTIONS[b].axis] == x.shape[CONVENTIONS[a].axis]
    assert there.shape[0] == x.shape[0]
    np.testing.assert_array_equal(move_channels(there, b, a), x)
    assert there.size == 0 or np.shares_memory(there, x)


# -------------------------------------------------------------- what can be checked right here


def test_pytorchs_entries_are_those_of_the_torch_that_is_installed():
    torch = pytest.importorskip("torch")
    ours = CONVENTIONS["pytorch"]
    defaults = inspect.signature(torch.nn.BatchNorm2d).parameters
    assert defaults[ours.momentum].default == ours.default_momentum
    assert defaults[ours.eps].default == ours.default_eps
    layer = torch.nn.BatchNorm2d(3, momentum=0.25).double()
    assert set(layer.state_dict()) == {*ours.names, "num_batches_tracked"}
    x = np.random.default_rng(0).normal(size=(4, 3, 2, 2))
    layer(torch.tensor(x))
    mean, var = pytorch(np.zeros(3), np.ones(3), x, 0.25)
    np.testing.assert_allclose(layer.running_mean, mean)
    np.testing.assert_allclose(layer.running_var, var)


def test_a_layer_from_keras_infers_in_torch_as_it_did_there():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng()
    gamma, beta, mean = rng.normal(size=(3, 5))
    var = rng.uniform(0.5, 2, 5)
    x = rng.normal(size=(4, 6, 6, 5))
    there = gamma * (x - mean) / np.sqrt(var + 1e-3) + beta

    state = {"gamma": gamma, "beta": beta, "moving_mean": mean, "moving_variance": var}
    layer = torch.nn.BatchNorm2d(5, **convert_arguments({}, "keras", "pytorch"))
    same = convert_state(state, "keras", "pytorch")  # without m: the variance stays what it is
    layer.load_state_dict({name: torch.tensor(v) for name, v in same.items()})
    layer.double().eval()
    here = layer(torch.tensor(move_channels(x, "keras", "pytorch"))).detach().numpy()
    np.testing.assert_allclose(move_channels(here, "pytorch", "keras"), there, rtol=1e-5, atol=1e-6)


def test_the_published_numbers():
    defaults = {"keras": (0.99, 1e-3), "flax": (0.99, 1e-5), "onnx": (0.9, 1e-5)}
    for name, pair in {**defaults, "pytorch": (0.1, 1e-5), "cudnn": (None, None)}.items():
        assert (CONVENTIONS[name].default_momentum, CONVENTIONS[name].default_eps) == pair
    assert convert_momentum(0.1, "pytorch", "onnx") == 0.9
    assert convert_momentum(0.99, "keras", "pytorch") == 0.01
    assert convert_momentum(0.1, "pytorch", "cudnn") == 0.1
    assert convert_arguments({}, "onnx", "pytorch") == {"momentum": 0.1, "eps": 1e-5}
    assert convert_arguments({}, "flax", "keras") == {"momentum": 0.99, "epsilon": 1e-5}
    # the measurement that NVIDIA's forum reports: variance 20 of 20 values is stored as 21.05
    assert convert_variance(20.0, "onnx", "cudnn", m=20) == pytest.approx(21.05, abs=5e-3)


def test_every_entry_names_where_it_stands():
    for convention in CONVENTIONS.values():
        assert convention.source.startswith("https://")
        assert convention.checked
        assert len(set(convention.names)) == 4


# --------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: convert_momentum(0.1, "tf", "keras"), ValueError, "'tf': choose one of pytorch"),
        (lambda: convert_momentum(0.1, "keras", "jax"), ValueError, "'jax'"),
        (lambda: convert_momentum(1.5, "keras", "flax"), ValueError, "between 0 and 1, got 1.5"),
        (lambda: convert_momentum(float("nan"), "keras", "flax"), ValueError, "got nan"),
        (lambda: convert_momentum(None, "pytorch", "keras"), ValueError, "1/n"),
        (lambda: convert_momentum(None, "keras", "keras"), ValueError, "PyTorch's alone"),
        (lambda: convert_arguments({"eps": 1}, "keras", "onnx"), TypeError, "epsilon; got 'eps'"),
        (lambda: convert_arguments({"epsilon": -1}, "keras", "onnx"), ValueError, "got -1"),
        (lambda: convert_arguments({"epsilon": 1}, "cudnn", "onnx"), ValueError, "AverageFactor"),
        (lambda: convert_variance(1, "keras", "pytorch"), ValueError, "by m, PyTorch by m - 1"),
        (lambda: convert_variance(1, "pytorch", "keras", m=1), ValueError, "got m=1"),
        (lambda: convert_state({"moving_variance": 1}, "keras", "pytorch", m=1), ValueError, "m=1"),
        (lambda: convert_state({"mean": 1}, "keras", "flax"), TypeError, "moving_mean.*got 'mean'"),
        (lambda: move_channels(np.zeros(3), "keras", "onnx"), ValueError, r"shape \(3,\)"),
    ],
)  # fmt: skip
def test_refused_in_words(call, error, says):
    with pytest.raises(error, match=says):
        call()


def test_none_stays_none_in_pytorch():
    assert convert_momentum(None, "pytorch", "pytorch") is None
    assert convert_arguments({"momentum": None}, "pytorch", "pytorch")["momentum"] is None


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_a_state_without_m_keeps_its_variance(a, b):
    assert list(convert_state({CONVENTIONS[a].names[3]: [2.0]}, a, b).values()) == [[2.0]]


def test_only_the_counter_is_dropped():
    state = {"running_mean": [1.0], "num_batches_tracked": 7}
    assert convert_state(state, "pytorch", "keras") == {"moving_mean": np.array([1.0])}


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_m_is_asked_for_only_where_it_matters(a, b):
    differ = CONVENTIONS[a].unbiased != CONVENTIONS[b].unbiased
    if differ:
        with pytest.raises(ValueError, match="give m"):
            convert_variance([2.0], a, b)
    else:
        assert convert_variance([2.0], a, b) == [2.0]


def test_all_says_what_is_public():
    public = {n for n in vars(conventions) if not n.startswith("_") and n[0] in "Ccm"}
    assert set(conventions.__all__) <= public
