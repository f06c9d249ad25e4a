"""Internal covariate shift against brute force, closed forms, and a network that must not notice."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import bn.nn
from bn import models, shift
from bn.data import digits

torch.set_num_threads(1)
DATA = digits()
X, Y = torch.as_tensor(DATA.x_train[:40]), torch.as_tensor(DATA.y_train[:40])


def mlp(batch_norm, seed=0):
    torch.manual_seed(seed)
    return models.mlp(batch_norm, in_features=64, width=12)


def small_convnet(batch_norm=True, seed=0):
    torch.manual_seed(seed)
    return models.convnet(batch_norm, image=8, dropout=0)


def twins(batch_norm=True, seed=0):
    """The same network with the layers of `bn`."""
    model = mlp(batch_norm, seed)
    for name, module in list(model.named_children()):
        if isinstance(module, nn.BatchNorm1d):
            setattr(model, name, bn.nn.BatchNorm1d(module.num_features))
    return model


def by_hand(model, lr):
    """Definition 2.1 with one fresh copy for each layer, and the order of the layers typed in."""
    names = list(dict.fromkeys(name.split(".")[0] for name, _ in model.named_parameters()))
    order = []
    for name in names:
        if name.startswith("norm"):
            order[-1].append(name)
        else:
            order.append([name])

    def gradient(net, group):
        net.zero_grad()
        F.cross_entropy(net(X.double()), Y).backward()
        own = [p.grad for name in group for p in getattr(net, name).parameters()]
        return torch.cat([g.flatten() for g in own])

    found = {}
    for i, group in enumerate(order):
        net = copy.deepcopy(model).double().train()
        g = gradient(net, group)
        with torch.no_grad():
            for earlier in order[:i]:
                for name in earlier:
                    for p in getattr(net, name).parameters():
                        p -= lr * p.grad
        g_new = gradient(net, group)
        found[group[0]] = {
            "norm": (g - g_new).norm().item(),
            "relative": ((g - g_new).norm() / g.norm()).item(),
            "cosine": (g @ g_new / g.norm() / g_new.norm()).item(),
        }
    return found


@pytest.mark.parametrize("build", [mlp, small_convnet, twins])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_against_a_copy_for_each_layer(build, batch_norm):
    model = build(batch_norm)
    found = shift.internal_covariate_shift(model, X, Y, 0.7)
    expected = by_hand(model, 0.7)
    assert list(found) == list(expected)
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, rel=1e-9, abs=1e-13)
    assert found[list(found)[-1]]["relative"] > 1e-3  # there was something to measure


def test_the_first_layer_has_nothing_before_it():
    for model in (mlp(True), mlp(False), small_convnet()):
        first, *others = shift.internal_covariate_shift(model, X, Y, 0.1).values()
        assert first == {"norm": 0, "relative": 0, "cosine": 1}
        assert all(other["norm"] > 0 for other in others)


def test_a_training_step_is_measured_whatever_the_mode():
    model = mlp(True)
    trained = shift.internal_covariate_shift(model.train(), X, Y, 0.1)
    assert shift.internal_covariate_shift(model.eval(), X, Y, 0.1) == trained


def test_closed_form_of_a_linear_network():
    """Two matrices, no nonlinearity: both gradients are products that can be written down."""
    rng = np.random.default_rng(3)
    x, labels = rng.normal(size=(9, 5)), rng.integers(3, size=9)
    w1, w2, lr = rng.normal(size=(4, 5)), rng.normal(size=(3, 4)), 0.3

    def error(w1, w2):
        logits = x @ w1.T @ w2.T
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        return (p - np.eye(3)[labels]) / len(x)

    g1 = w2.T @ error(w1, w2).T @ x
    g2 = error(w1, w2).T @ x @ w1.T
    w1_new = w1 - lr * g1
    g2_new = error(w1_new, w2).T @ x @ w1_new.T
    model = nn.Sequential(nn.Linear(5, 4, bias=False), nn.Linear(4, 3, bias=False)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.from_numpy(w1))
        model[1].weight.copy_(torch.from_numpy(w2))
    found = shift.internal_covariate_shift(model, x, labels, lr)["1"]
    norm = np.linalg.norm(g2 - g2_new)
    cosine = (g2 * g2_new).sum() / np.linalg.norm(g2) / np.linalg.norm(g2_new)
    assert found == pytest.approx(
        {"norm": norm, "relative": norm / np.linalg.norm(g2), "cosine": cosine}, rel=1e-12
    )


def test_small_steps_follow_the_hessian():
    """To first order G' - G is -lr times the mixed second derivatives times the step before."""
    model = mlp(True).double()
    parameters = list(model.parameters())
    (g,) = (
        torch.autograd.grad(F.cross_entropy(model(X.double()), Y), parameters, create_graph=True),
    )
    earlier, last = g[:-2], torch.cat([g[-2].flatten(), g[-1]])
    moved = sum((a * a.detach()).sum() for a in earlier)  # half of it would be a squared length
    mixed = torch.autograd.grad(moved, parameters[-2:])
    expected = torch.cat([m.flatten() for m in mixed]).norm().item()
    for lr, tolerance in ((1e-4, 1e-3), (1e-6, 1e-5)):
        found = shift.internal_covariate_shift(model, X, Y, lr)["output"]
        assert found["norm"] / lr == pytest.approx(expected, rel=tolerance)
        assert found["norm"] / found["relative"] == pytest.approx(last.norm().item(), rel=1e-9)


@pytest.mark.parametrize("look", [
    lambda model: shift.internal_covariate_shift(model, X, Y, 0.1),
    lambda model: shift.inputs(model, X),
])  # fmt: skip
@pytest.mark.parametrize("training", [True, False])
def test_the_model_and_the_generator_do_not_notice(look, training):
    torch.manual_seed(1)
    model = models.convnet(image=8, dropout=0.5).train(training)
    model.norm2.eval()  # a mode of its own, as of a frozen layer
    F.cross_entropy(model(X), Y).backward()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    gradients = [p.grad.clone() for p in model.parameters()]
    modes = [module.training for module in model.modules()]
    generator = torch.get_rng_state()
    first, again = look(model), look(model)
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    assert all(torch.equal(g, p.grad) for g, p in zip(gradients, model.parameters(), strict=True))
    assert modes == [module.training for module in model.modules()]
    assert torch.equal(generator, torch.get_rng_state())
    assert not any(module._forward_pre_hooks for module in model.modules())
    for name in first:  # the same dropout masks too
        assert np.array_equal(first[name], again[name]) or first[name] == again[name]


def test_both_gradients_drop_the_same_units():
    torch.manual_seed(0)
    model = models.convnet(image=8, dropout=0.5)
    found = shift.internal_covariate_shift(model, X, Y, 1e-9)
    assert all(layer["relative"] < 1e-5 for layer in found.values())


def test_layers_own_their_scale_and_shift():
    groups = shift.layers(models.lenet(image=8))
    assert {name: len(group) for name, group in groups.items()} == {
        "conv1": 4, "conv2": 4, "linear3": 2, "linear4": 2, "output": 2,
    }  # fmt: skip
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    model[1].weight.requires_grad_(False)
    assert {name: len(group) for name, group in shift.layers(model).items()} == {"0": 5, "3": 2}


def test_a_gradient_of_zero_has_no_direction():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 10))
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].bias.fill_(-1)  # every unit is dead
    found = shift.internal_covariate_shift(model, X, Y, 0.1)
    assert math.isnan(found["1"]["relative"])
    assert math.isnan(found["1"]["cosine"])
    assert found["1"]["norm"] == 0


@pytest.mark.parametrize("lr", [0, -0.1, math.inf, math.nan])
def test_a_step_needs_a_rate(lr):
    with pytest.raises(ValueError, match="lr must be a positive number"):
        shift.internal_covariate_shift(mlp(True), X, Y, lr)


def test_a_network_without_parameters():
    with pytest.raises(ValueError, match="no parameters that can be trained"):
        shift.internal_covariate_shift(nn.Flatten(), X, Y, 0.1)


def test_inputs_are_what_the_nonlinearity_gets_in_training_mode():
    model = mlp(True)
    with torch.no_grad():
        model.norm2.weight.uniform_(-2, 2)
        model.norm2.bias.uniform_(-2, 2)
    found = shift.inputs(model.eval(), X)
    assert list(found) == ["sigmoid1", "sigmoid2", "sigmoid3"]
    z = found["sigmoid2"]
    np.testing.assert_allclose(z.mean(0), model.norm2.bias.detach(), atol=1e-5)
    np.testing.assert_allclose(z.std(0), model.norm2.weight.detach().abs(), rtol=5e-3, atol=1e-4)
    plain = mlp(False)
    expected = plain.linear1(X.flatten(1)).detach()
    np.testing.assert_array_equal(shift.inputs(plain, X)["sigmoid1"], expected)


def test_the_shift_of_another_loss():
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Linear(6, 4, bias=False), nn.BatchNorm1d(4), nn.Linear(4, 3, bias=False)
    ).double()
    x, y = torch.randn(9, 6).double(), torch.randn(9, 3).double()
    first, last = shift.internal_covariate_shift(model, x, y, 0.7, F.mse_loss).values()
    assert first == {"norm": 0.0, "relative": 0.0, "cosine": 1.0}
    parameters = list(model.parameters())
    *front, before = torch.autograd.grad(F.mse_loss(model(x), y), parameters)
    with torch.no_grad():  # the matrix in front, and batch norm's scale and shift
        for p, g in zip(parameters[:-1], front, strict=True):
            p -= 0.7 * g
    (after,) = torch.autograd.grad(F.mse_loss(model(x), y), parameters[-1:])
    assert last["norm"] == pytest.approx((after - before).norm().item())
    assert last["relative"] == pytest.approx(last["norm"] / before.norm().item())
    cosine = F.cosine_similarity(after.flatten(), before.flatten(), dim=0).item()
    assert last["cosine"] == pytest.approx(cosine)


def test_travel_and_stretch_count_every_way():
    rng = np.random.default_rng(0)
    percentiles = np.sort(rng.normal(size=(7, 4, 3)))
    travel, stretch = shift.travel(percentiles), shift.stretch(percentiles)
    for unit in range(4):
        low, middle, high = percentiles[:, unit].T
        way = sum(abs(middle[i + 1] - middle[i]) for i in range(6))
        assert travel[unit] == pytest.approx(way / (high[-1] - low[-1]), rel=1e-12)
        ratios = [(high[i + 1] - low[i + 1]) / (high[i] - low[i]) for i in range(6)]
        assert stretch[unit] == pytest.approx(sum(abs(math.log2(r)) for r in ratios), rel=1e-12)
    for measure, value in ((shift.travel, travel), (shift.stretch, stretch)):
        np.testing.assert_allclose(measure(3 * percentiles + 2), value)  # no units of its own
        assert measure(np.repeat(percentiles[:1], 5, axis=0)).max() == 0


def test_the_network_of_the_paper():
    arms = []
    for batch_norm in (True, False):
        torch.manual_seed(4)
        model = shift.network(batch_norm, std=0.05)
        arms.append(model.state_dict())
        assert [m.out_features for m in model if isinstance(m, nn.Linear)] == [100, 100, 100, 10]
        assert sum(isinstance(m, nn.BatchNorm1d) for m in model) == 3 * batch_norm
    for key, value in arms[1].items():
        assert torch.equal(arms[0][key], value)
        if key.endswith("weight"):
            assert value.std().item() == pytest.approx(0.05, rel=0.1)
            assert abs(value.mean().item()) < 0.01
        else:
            assert not value.any()


def test_binary_images():
    images = np.array([0, 0.49, 0.5, 1], np.float32).reshape(1, 1, 2, 2)
    data = DATA._replace(x_train=images, x_test=1 - images)
    black = shift.binary(data)
    assert black.x_train.ravel().tolist() == [0, 0, 1, 1]
    assert black.x_test.ravel().tolist() == [1, 1, 1, 0]
    assert black.x_train.dtype == np.float32
    assert black.y_train is data.y_train
    assert shift.binary(data, 0.4).x_train.sum() == 3
