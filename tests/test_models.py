"""The networks are those of the literature, and each pair starts equal."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bn import models

CASES = [
    ("mlp", {}, (1, 28, 28)),
    ("mlp", {"in_features": 64}, (1, 8, 8)),
    ("mlp", {"depth": 0, "in_features": 64}, (1, 8, 8)),
    ("lenet", {}, (1, 28, 28)),
    ("lenet", {"image": 8}, (1, 8, 8)),
    ("lenet", {"image": 32}, (1, 32, 32)),
    ("convnet", {}, (1, 28, 28)),
    ("convnet", {"image": 8}, (1, 8, 8)),
]


def build(name, batch_norm, options, seed=0):
    torch.manual_seed(seed)
    return models.BUILDERS[name](batch_norm, **options)


@pytest.mark.parametrize(("name", "options", "shape"), CASES)
@pytest.mark.parametrize("batch_norm", [True, False])
def test_maps_images_to_logits(name, options, shape, batch_norm):
    logits = build(name, batch_norm, options)(torch.rand(3, *shape))
    assert logits.shape == (3, 10)
    assert (logits < 0).any()  # no softmax, no ReLU at the end


@pytest.mark.parametrize(("name", "options", "shape"), CASES)
def test_same_seed_same_weights_with_and_without(name, options, shape):
    with_, without = (build(name, b, options).state_dict() for b in (True, False))
    assert without
    assert without.keys() <= with_.keys()
    assert all(torch.equal(with_[key], without[key]) for key in without)
    assert all("norm" in key for key in with_.keys() - without.keys())
    other = build(name, False, options, seed=1).state_dict()
    assert not any(torch.equal(other[key], without[key]) for key in without)


@pytest.mark.parametrize(("name", "options", "shape"), CASES)
def test_building_draws_the_same_random_numbers(name, options, shape):
    build(name, True, options)
    after = torch.rand(1)
    build(name, False, options)
    assert torch.equal(after, torch.rand(1))


def kinds(model):
    return [f"{name}:{type(layer).__name__}" for name, layer in model.named_children()]


def test_where_batch_norm_stands():
    assert kinds(models.mlp(depth=1))[1:4] == [
        "linear1:Linear", "norm1:BatchNorm1d", "sigmoid1:Sigmoid",
    ]  # fmt: skip
    assert kinds(models.lenet())[:8] == [
        "conv1:Conv2d", "relu1:ReLU", "pool1:MaxPool2d", "norm1:BatchNorm2d",
        "conv2:Conv2d", "relu2:ReLU", "pool2:MaxPool2d", "norm2:BatchNorm2d",
    ]  # fmt: skip
    assert kinds(models.convnet()) == [
        "conv1:Conv2d", "norm1:BatchNorm2d", "relu1:ReLU",
        "conv2:Conv2d", "norm2:BatchNorm2d", "relu2:ReLU",
        "pool2:MaxPool2d", "dropout:Dropout", "flatten:Flatten",
        "linear3:Linear", "norm3:BatchNorm1d", "relu3:ReLU", "output:Linear",
    ]  # fmt: skip
    for builder in models.BUILDERS.values():
        assert not any("Norm" in kind for kind in kinds(builder(False)))
        assert all(type(layer).__module__.startswith("torch.nn") for layer in builder().children())


def test_sizes_of_the_sources():
    mlp, lenet, convnet = models.mlp(), models.lenet(), models.convnet()
    hidden = [(m.in_features, m.out_features) for m in mlp.modules() if isinstance(m, nn.Linear)]
    assert hidden == [(784, 100), (100, 100), (100, 100), (100, 10)]
    assert lenet.conv1.weight.shape == (6, 1, 5, 5)
    assert lenet.conv2.weight.shape == (16, 6, 5, 5)
    assert lenet.linear3.in_features == 16 * 5 * 5
    assert (lenet.linear3.out_features, lenet.linear4.out_features) == (120, 84)
    assert convnet.conv1.weight.shape == (32, 1, 3, 3)
    assert convnet.conv2.weight.shape == (64, 32, 3, 3)
    assert (convnet.linear3.in_features, convnet.linear3.out_features) == (9216, 128)
    assert convnet.dropout.p == 0.25


def test_cross_entropy_on_logits_is_log_softmax_with_nll():
    torch.manual_seed(0)
    logits = torch.randn(5, 10, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(10, (5,))
    a = F.cross_entropy(logits, labels)
    b = F.nll_loss(F.log_softmax(logits, 1), labels)
    torch.testing.assert_close(a, b)
    (ga,), (gb,) = torch.autograd.grad(a, logits), torch.autograd.grad(b, logits)
    torch.testing.assert_close(ga, gb)
