"""The NumPy library: against torch step by step, against central differences, and on bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import bn
from bn.layers import SGD, BatchNorm, Linear, ReLU, Sequential, Sigmoid, softmax_cross_entropy

torch = pytest.importorskip("torch")
F = torch.nn.functional

seeds = st.integers(0, 2**32 - 1)


def tensor(x, grad=False):
    return torch.tensor(x, requires_grad=grad)


# ------------------------------------------------------------------- one layer, against torch

PAIRS = {
    "linear": lambda n, rng: (Linear(n, 3, rng=rng), torch.nn.Linear(n, 3)),
    "relu": lambda n, rng: (ReLU(), torch.nn.ReLU()),
    "sigmoid": lambda n, rng: (Sigmoid(), torch.nn.Sigmoid()),
    "norm": lambda n, rng: (BatchNorm(n), torch.nn.BatchNorm1d(n)),
}


def pair(kind, n, rng):
    """One of our layers, and torch's with the same parameters, all of them odd."""
    ours, theirs = PAIRS[kind](n, rng)
    for value in ours.params.values():
        value[...] = rng.normal(size=value.shape)
    theirs = theirs.double()
    theirs.load_state_dict({k: tensor(v) for k, v in ours.params.items()}, strict=False)
    return ours, theirs


@settings(deadline=None)
@given(st.sampled_from(sorted(PAIRS)), st.integers(2, 6), st.integers(1, 5), seeds)
def test_a_layer_is_torchs_forward_and_backward(kind, m, n, seed):
    rng = np.random.default_rng(seed)
    ours, theirs = pair(kind, n, rng)
    x = 2 * rng.normal(size=(m, n)) + 1
    before = x.copy()
    at = tensor(x, grad=True)
    y, their_y = ours.forward(x), theirs(at)
    assert_allclose(y, their_y.detach(), rtol=1e-9, atol=1e-10)
    g = rng.normal(size=y.shape)
    their_y.backward(tensor(g))
    assert_allclose(ours.backward(g), at.grad, rtol=1e-8, atol=1e-8)
    assert ours.grads.keys() == ours.params.keys()
    for name, p in theirs.named_parameters():
        assert_allclose(ours.grads[name], p.grad, rtol=1e-8, atol=1e-8)
    assert_array_equal(x, before)  # nothing is changed in place


@settings(deadline=None)
@given(
    st.lists(st.integers(2, 6), min_size=1, max_size=8),
    st.integers(1, 4),
    st.floats(0, 1),
    st.sampled_from([1e-10, 1e-5, 0.1]),
    seeds,
)
def test_batch_norm_keeps_torchs_state(batches, n, momentum, eps, seed):
    """Any sequence of batches, of any size, and inference after each."""
    rng = np.random.default_rng(seed)
    ours = BatchNorm(n, eps=eps, momentum=momentum)
    theirs = torch.nn.BatchNorm1d(n, eps=eps, momentum=momentum, dtype=torch.float64)
    for m in batches:
        x = rng.normal(3, 2, size=(m, n))
        ours.forward(x)
        theirs.train()(tensor(x))
        assert_allclose(ours.running_mean, theirs.running_mean, rtol=1e-12, atol=1e-12)
        assert_allclose(ours.running_var, theirs.running_var, rtol=1e-12, atol=1e-12)
        state = ours.running_mean, ours.running_var
        alone = ours.forward(x[:1], training=False)
        assert_allclose(alone, theirs.eval()(tensor(x[:1])).detach(), rtol=1e-9, atol=1e-9)
        assert ours.running_mean is state[0]
        assert ours.running_var is state[1]


@given(st.integers(1, 6), st.integers(1, 6), st.sampled_from([1.0, 30.0, 1e4]), seeds)
def test_the_loss_is_torchs(n, classes, size, seed):
    rng = np.random.default_rng(seed)
    z, labels = size * rng.normal(size=(n, classes)), rng.integers(0, classes, n)
    at = tensor(z, grad=True)
    theirs = F.cross_entropy(at, tensor(labels))
    theirs.backward()
    loss, g = softmax_cross_entropy(z, labels)
    assert isinstance(loss, float)
    assert loss == pytest.approx(theirs.item(), rel=1e-12, abs=1e-14)
    assert_allclose(g, at.grad, rtol=1e-9, atol=1e-15)


def test_the_loss_leaves_its_logits_alone():
    z = np.array([[1.0, 2.0]])
    softmax_cross_entropy(z, [0])
    assert_array_equal(z, [[1.0, 2.0]])


def test_extreme_inputs_stay_finite():
    with np.errstate(over="raise", invalid="raise"):
        assert_array_equal(Sigmoid().forward(np.array([-1e4, 1e4])), [0, 1])
        loss, g = softmax_cross_entropy([[1e4, 0.0], [-1e4, 0.0]], [0, 0])
    assert loss == 5e3
    assert np.isfinite(g).all()


def test_relu_has_slope_zero_at_zero_and_blocks_even_infinity():
    relu = ReLU()
    assert_array_equal(relu.forward(np.array([0.0, -1, 2])), [0, 0, 2])
    assert_array_equal(relu.backward(np.array([5.0, np.inf, 7])), [0, 0, 7])


@np.errstate(invalid="ignore")
def test_nan_is_passed_on():
    x = np.array([[np.nan, 1.0], [0.0, 2.0]])
    for layer in (Linear(2, 2, rng=np.random.default_rng(0)), ReLU(), Sigmoid(), BatchNorm(2)):
        assert np.isnan(layer.forward(x)).any()
    assert math.isnan(softmax_cross_entropy(x, [0, 1])[0])
    assert np.isfinite(BatchNorm(2).forward(x)[:, 1]).all()  # the other feature notices nothing


# ------------------------------------------------------------------------------- networks


def numerical(loss, x, h=1e-5):
    gradient = np.empty_like(x)
    for j in np.ndindex(x.shape):
        kept = x[j]
        x[j] = kept + h
        up = loss()
        x[j] = kept - h
        gradient[j] = (up - loss()) / (2 * h)
        x[j] = kept
    return gradient


@pytest.mark.parametrize("seed", range(5))
def test_a_network_passes_the_gradient_check(seed):
    """Sigmoids only: a central difference across a ReLU's corner is no derivative."""
    rng = np.random.default_rng(seed)
    net = Sequential(
        Linear(4, 5, rng=rng), BatchNorm(5), Sigmoid(),
        Sequential(Linear(5, 3, rng=rng), Sigmoid(), BatchNorm(3)), Linear(3, 3, rng=rng),
    )  # fmt: skip
    x, labels = rng.normal(size=(6, 4)), rng.integers(0, 3, 6)

    def loss():
        return softmax_cross_entropy(net.forward(x), labels)[0]

    _, g = softmax_cross_entropy(net.forward(x), labels)
    ours = {"x": net.backward(g), **net.grads}
    where = {"x": x, **net.params}
    assert ours.keys() == where.keys()
    assert "3.0.weight" in where  # a network inside a network
    for name, array in where.items():
        assert_allclose(ours[name], numerical(loss, array), rtol=1e-5, atol=1e-8, err_msg=name)


NONLINEAR = {"relu": (ReLU, torch.nn.ReLU), "sigmoid": (Sigmoid, torch.nn.Sigmoid)}


@settings(deadline=None, max_examples=20)
@given(
    st.sampled_from(sorted(NONLINEAR)),
    st.booleans(),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.5, 0.9]),
    st.sampled_from([0.01, 0.1]),
    seeds,
)
def test_training_is_torchs_step_by_step(kind, norm, depth, momentum, lr, seed):
    """Forty steps: loss, parameters, running statistics and inference, after every one."""
    rng = np.random.default_rng(seed)
    nonlinear, their_nonlinear = NONLINEAR[kind]
    layers, their_layers, n = [], [], 6
    for _ in range(depth):
        layers.append(Linear(n, 8, rng=rng))
        their_layers.append(torch.nn.Linear(n, 8))
        if norm:
            layers.append(BatchNorm(8))
            their_layers.append(torch.nn.BatchNorm1d(8))
        layers.append(nonlinear())
        their_layers.append(their_nonlinear())
        n = 8
    ours = Sequential(*layers, Linear(n, 3, rng=rng))
    theirs = torch.nn.Sequential(*their_layers, torch.nn.Linear(n, 3)).double()
    theirs.load_state_dict({k: tensor(v.copy()) for k, v in ours.params.items()}, strict=False)
    optimizer = SGD(ours, lr, momentum)
    their_optimizer = torch.optim.SGD(theirs.parameters(), lr=lr, momentum=momentum)
    close = {"rtol": 1e-8, "atol": 1e-9}
    for step in range(40):
        x, labels = rng.normal(size=(10, 6)), rng.integers(0, 3, 10)
        loss, g = softmax_cross_entropy(ours.forward(x), labels)
        ours.backward(g)
        optimizer.step()
        their_optimizer.zero_grad()
        their_loss = F.cross_entropy(theirs.train()(tensor(x)), tensor(labels))
        their_loss.backward()
        their_optimizer.step()
        assert_allclose(loss, their_loss.item(), **close, err_msg=f"loss of step {step}")
        for name, p in theirs.named_parameters():
            assert_allclose(ours.params[name], p.detach(), **close, err_msg=f"{name}, step {step}")
        for layer, theirs_layer in zip(ours.layers, theirs, strict=True):
            if isinstance(layer, BatchNorm):
                assert_allclose(layer.running_mean, theirs_layer.running_mean, **close)
                assert_allclose(layer.running_var, theirs_layer.running_var, **close)
    one = rng.normal(size=(1, 6))
    assert_allclose(ours.forward(one, training=False), theirs.eval()(tensor(one)).detach(), **close)


def test_inference_moves_nothing():
    rng = np.random.default_rng(0)
    net = Sequential(Linear(3, 3, rng=rng), BatchNorm(3), ReLU())
    before = {k: v.copy() for k, v in net.params.items()}
    net.forward(rng.normal(size=(5, 3)), training=False)
    assert_array_equal(net.layers[1].running_mean, np.zeros(3))
    assert_array_equal(net.layers[1].running_var, np.ones(3))
    for name, p in net.params.items():
        assert_array_equal(p, before[name])


def test_an_empty_network_is_the_identity():
    net, x = Sequential(), np.ones((2, 2))
    assert net.forward(x) is x
    assert net.backward(x) is x
    assert net.params == net.grads == {}


def test_a_backward_pass_replaces_the_gradients_of_the_one_before():
    layer = Linear(2, 1, rng=np.random.default_rng(0))
    layer.forward(np.ones((1, 2)))
    layer.backward(np.ones((1, 1)))
    layer.backward(np.ones((1, 1)))
    assert_array_equal(layer.grads["weight"], [[1, 1]])


# ------------------------------------------------------------------------ initial weights


def test_the_usual_scale_and_any_other():
    rng = np.random.default_rng(0)
    weight = Linear(200, 300, rng=rng).params["weight"]
    assert weight.shape == (300, 200)
    assert weight.std() == pytest.approx(math.sqrt(2 / 200), rel=0.02)
    assert abs(weight.mean()) < 0.001
    assert Linear(200, 300, scale=3.0, rng=rng).params["weight"].std() == pytest.approx(3, rel=0.02)
    assert not Linear(4, 4, scale=0, rng=rng).params["weight"].any()
    assert not Linear(4, 4, rng=rng).params["bias"].any()


def test_a_scale_multiplies_one_draw():
    """Two scales of a sweep differ in length only."""
    one, ten = (Linear(5, 4, scale=s, rng=np.random.default_rng(7)) for s in (1.0, 10.0))
    assert_allclose(ten.params["weight"], 10 * one.params["weight"], rtol=1e-15)


def test_the_usual_scale_keeps_a_relu_networks_signal():
    rng = np.random.default_rng(0)
    h = rng.normal(size=(50, 300))
    sizes = []
    for _ in range(8):
        y = Linear(300, 300, rng=rng).forward(h)
        sizes.append(np.mean(y**2))
        h = ReLU().forward(y)
    assert 0.5 < sizes[-1] / sizes[1] < 2


# -------------------------------------------------------------------------------- momentum


@given(st.floats(0, 0.99), st.integers(1, 30), seeds)
def test_the_velocity_is_a_sum_of_fading_gradients(momentum, steps, seed):
    grads = np.random.default_rng(seed).normal(size=(steps, 3))
    layer = BatchNorm(3)
    optimizer = SGD(layer, lr=0.1, momentum=momentum)
    for g in grads:
        layer.grads = {"weight": g, "bias": -g}
        optimizer.step()
    want = (momentum ** np.arange(steps)[::-1]) @ grads
    assert_allclose(optimizer.velocity["weight"], want, rtol=1e-9, atol=1e-12)
    assert_allclose(optimizer.velocity["bias"], -want, rtol=1e-9, atol=1e-12)


def test_a_step_is_taken_in_place_and_leaves_the_gradients_alone():
    layer = BatchNorm(2)
    weight, g = layer.params["weight"], np.array([1.0, 2.0])
    layer.grads = {"weight": g, "bias": np.zeros(2)}
    optimizer = SGD(layer, lr=0.5, momentum=0.9)
    optimizer.step()
    optimizer.step()
    assert layer.params["weight"] is weight
    assert_allclose(weight, 1 - 0.5 * g - 0.5 * 1.9 * g)
    assert_array_equal(g, [1.0, 2.0])


# ------------------------------------------------------------------------------ kind errors

RNG = np.random.default_rng(0)


def after_inference(layer):
    layer.forward(np.ones((3, 2)))
    layer.forward(np.ones((3, 2)), training=False)
    return layer


LAYERS = [lambda: Linear(2, 2, rng=RNG), ReLU, Sigmoid, lambda: BatchNorm(2)]


@pytest.mark.parametrize("make", LAYERS)
def test_backward_needs_a_forward_in_training(make):
    for layer in (make(), after_inference(make())):
        with pytest.raises(RuntimeError, match=rf"{type(layer).__name__}.backward needs forward"):
            layer.backward(np.ones((3, 2)))


@pytest.mark.parametrize("make", LAYERS)
def test_a_gradient_of_the_wrong_shape_is_refused(make):
    layer = make()
    layer.forward(np.arange(6.0).reshape(3, 2))
    with pytest.raises(ValueError, match=r"shape of y, \(3, 2\), got \(2, 3\)"):
        layer.backward(np.ones((2, 3)))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Linear(2, 2, rng=0), TypeError, "numpy.random.Generator.*got 0"),
        (lambda: Linear(2, 2, scale=-1.0, rng=RNG), ValueError, "scale .* got -1.0"),
        (lambda: Linear(2, 2, scale=math.nan, rng=RNG), ValueError, "scale .* got nan"),
        (lambda: Linear(2, 2, scale=math.inf, rng=RNG), ValueError, "scale .* got inf"),
        (lambda: Linear(2, 2, rng=RNG).forward(np.ones((4, 3))), ValueError,
         r"Linear expects x of shape \(N, 2\), got \(4, 3\)"),
        (lambda: Linear(2, 2, rng=RNG).forward(np.ones(2)), ValueError, r"got \(2,\)"),
        (lambda: BatchNorm(2).forward(np.ones((4, 2, 3))), ValueError,
         r"BatchNorm expects x of shape \(N, 2\), got \(4, 2, 3\)"),
        (lambda: BatchNorm(2).forward(np.ones((1, 2))), ValueError, "more than 1 value"),
        (lambda: BatchNorm(2).forward(np.ones((4, 2), int)), TypeError, "floating point"),
        (lambda: BatchNorm(2, eps=-1).forward(np.ones((4, 2))), ValueError, "eps"),
        (lambda: Sequential(*[ReLU()] * 2), ValueError, "stands twice"),
        (lambda: softmax_cross_entropy(np.ones(3), [0]), ValueError, r"\(N, classes\).*got \(3,\)"),
        (lambda: softmax_cross_entropy(np.ones((0, 3)), np.ones(0, int)), ValueError, r"got \(0, 3\)"),
        (lambda: softmax_cross_entropy(np.ones((2, 3)), [0.0, 1.0]), TypeError, "integers, got float64"),
        (lambda: softmax_cross_entropy(np.ones((2, 3)), [0, math.nan]), TypeError, "integers"),
        (lambda: softmax_cross_entropy(np.ones((2, 3)), [True, False]), TypeError, "integers, got bool"),
        (lambda: softmax_cross_entropy(np.ones((2, 3)), [[0], [1]]), ValueError, r"shape \(2,\).*got \(2, 1\)"),
        (lambda: softmax_cross_entropy(np.ones((2, 3)), [0]), ValueError, r"shape \(2,\).*got \(1,\)"),
        (lambda: softmax_cross_entropy(np.ones((2, 3)), [0, 3]), ValueError, "between 0 and 2, got 3"),
        (lambda: softmax_cross_entropy(np.ones((2, 3)), [-1, 0]), ValueError, "between 0 and 2, got -1"),
        (lambda: SGD(BatchNorm(1), lr=-0.1), ValueError, "lr .* got -0.1"),
        (lambda: SGD(BatchNorm(1), lr=math.nan), ValueError, "lr .* got nan"),
        (lambda: SGD(BatchNorm(1), lr=math.inf), ValueError, "lr .* got inf"),
        (lambda: SGD(BatchNorm(1), lr=0.1, momentum=1.0), ValueError, "momentum .* got 1.0"),
        (lambda: SGD(BatchNorm(1), lr=0.1, momentum=-0.1), ValueError, "momentum .* got -0.1"),
        (lambda: SGD(BatchNorm(1), lr=0.1).step(), RuntimeError, r"\['bias', 'weight'\]: call backward"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_in_words(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("momentum", [0.1, 1.5])
def test_a_refused_call_changes_no_state(momentum):
    layer = BatchNorm(2, momentum=momentum)
    mean, var = layer.running_mean, layer.running_var = np.full(2, 3.0), np.full(2, 4.0)
    for bad in (np.ones((0, 2)), np.ones((1, 2)), np.ones((3, 3)), np.ones((3, 2))):
        if bad.shape != (3, 2) or momentum > 1:
            with pytest.raises(ValueError):
                layer.forward(bad)
            assert layer.running_mean is mean
            assert layer.running_var is var


def test_the_package_names_its_module():
    assert bn.layers.BatchNorm is BatchNorm
