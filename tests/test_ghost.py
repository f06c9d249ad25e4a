"""Batch norm with other statistics: each layer is batch norm on the examples that it should see."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import bn
from bn import ghost


def learned(layer):
    """The layer in double precision, with parameters that are not 1 and 0."""
    layer.double()
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(0.5, 2, layer.num_features))
        layer.bias.copy_(torch.linspace(-1, 1, layer.num_features))
    return layer


@pytest.fixture
def x():
    torch.manual_seed(0)
    return (torch.randn(12, 3, dtype=torch.float64) * 2 + 1).requires_grad_()


# -------------------------------------------------------------------------------- ghost batches


@pytest.mark.parametrize("size", [2, 3, 4, 6, 12])
def test_each_ghost_batch_is_batch_norm_by_itself(x, size):
    layer, plain = learned(ghost.GhostBatchNorm1d(3, size)), learned(nn.BatchNorm1d(3))
    parts = len(x) // size
    want = torch.empty_like(x)
    moved = []
    for g in range(parts):
        one = copy.deepcopy(plain)
        want = want.index_copy(0, torch.arange(g, 12, parts), one(x[g::parts]))
        moved.append((one.running_mean, one.running_var))
    got = layer(x)
    torch.testing.assert_close(got, want)
    for buffer, each in zip((layer.running_mean, layer.running_var), zip(*moved), strict=True):
        torch.testing.assert_close(buffer, torch.stack(each).mean(0))
    weight = torch.randn_like(x)
    for a, b in zip(
        torch.autograd.grad((got * weight).sum(), x),
        torch.autograd.grad((want * weight).sum(), x),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_a_ghost_batch_of_two_knows_only_the_order(x):
    layer = ghost.GhostBatchNorm1d(3, 2).double()
    torch.testing.assert_close(layer(x).abs(), torch.ones_like(x), rtol=0, atol=1e-2)


def test_evaluation_is_that_of_batch_norm(x):
    plain = learned(nn.BatchNorm1d(3))
    plain(x)
    for layer in (ghost.GhostBatchNorm1d(3, 5), ghost.ReferenceBatchNorm1d(3, 4)):
        layer.double().load_state_dict(plain.state_dict())
        torch.testing.assert_close(layer.eval()(x), plain.eval()(x))
        plain.train()


@pytest.mark.parametrize("shape", [(10, 3), (3, 3), (8, 3, 2)])
def test_ghost_batches_that_do_not_fit_are_refused(shape):
    with pytest.raises(ValueError, match="ghost batches of 4 need"):
        ghost.GhostBatchNorm1d(3, 4)(torch.zeros(shape))
    with pytest.raises(ValueError, match="got ghost=1"):
        ghost.GhostBatchNorm1d(3, 1)


# ------------------------------------------------------------------------------------ a reference


def test_a_batch_that_is_its_own_reference_gets_batch_norm(x):
    layer, plain = learned(ghost.ReferenceBatchNorm1d(3, 12)), learned(nn.BatchNorm1d(3))
    torch.testing.assert_close(layer(torch.cat([x, x]))[:12], plain(x))
    for name, value in plain.named_buffers():
        if value.dim():
            torch.testing.assert_close(dict(layer.named_buffers())[name], value)


def test_gradient_through_the_statistics_or_not(x):
    for gradient in (True, False):
        reference = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
        layer = learned(ghost.ReferenceBatchNorm1d(3, 5, gradient=gradient))
        loss = layer(torch.cat([x, reference]))[:12].square().sum()
        to_x, to_reference = torch.autograd.grad(loss, (x, reference))
        assert to_reference.abs().max().item() > 0.1 if gradient else not to_reference.any()
        sigma = (reference.var(0, correction=0) + layer.eps).sqrt()
        y = layer(torch.cat([x, reference]))[:12]
        torch.testing.assert_close(to_x, 2 * y * layer.weight / sigma)


def test_the_training_set_as_reference_is_full_batch_batch_norm():
    """Three layers deep: each row of the batch is what it is when all go through together."""
    torch.manual_seed(0)
    images = torch.rand(20, 1, 8, 8)
    models = []
    for layer in (nn.BatchNorm1d, lambda c: ghost.ReferenceBatchNorm1d(c, 20)):
        torch.manual_seed(1)
        models.append(ghost.network(layer, in_features=64))
    whole, lent = models
    chosen = torch.tensor([3, 7, 11])
    got = lent(torch.cat([images[chosen], images]))[:3]
    torch.testing.assert_close(got, whole(images)[chosen])


def test_too_small_a_reference_is_refused():
    with pytest.raises(ValueError, match="got reference=1"):
        ghost.ReferenceBatchNorm1d(3, 1)
    with pytest.raises(ValueError, match="4 rows of the reference, got"):
        ghost.ReferenceBatchNorm1d(3, 4)(torch.zeros(3, 3))


# ------------------------------------------------------------------------------------ the network


def test_the_network_starts_as_that_of_the_course():
    for norm in (None, nn.BatchNorm1d):
        torch.manual_seed(3)
        ours = ghost.network(norm, in_features=64).state_dict()
        torch.manual_seed(3)
        for name, value in bn.models.mlp(norm is not None, in_features=64).state_dict().items():
            assert torch.equal(ours[name], value), name


@pytest.mark.parametrize(
    ("place", "layers"),
    [
        ("before", "Linear Dropout BatchNorm1d ReLU Linear Dropout BatchNorm1d ReLU Linear"),
        ("after", "Linear BatchNorm1d ReLU Dropout Linear BatchNorm1d ReLU Dropout Linear"),
        ("last", "Linear BatchNorm1d ReLU Linear BatchNorm1d ReLU Dropout Linear"),
    ],
)
def test_places_of_dropout(place, layers):
    model = ghost.network(nn.BatchNorm1d, depth=2, dropout=0.3, place=place)
    assert " ".join(type(layer).__name__ for layer in list(model)[1:]) == layers
    with pytest.raises(ValueError, match="got 'between'"):
        ghost.network(place="between")


def test_without_norm_dropout_may_stand_on_either_side_of_a_relu():
    x, found = torch.rand(6, 1, 8, 8), []
    for place in ("before", "after"):
        torch.manual_seed(2)
        model = ghost.network(in_features=64, dropout=0.5, place=place)
        found.append(model(x))
    torch.testing.assert_close(*found)


# ------------------------------------------------------------------------------ training, measuring


@pytest.fixture(scope="module")
def digits():
    data = bn.data.digits()
    return torch.from_numpy(data.x_train[:256]), torch.from_numpy(data.y_train[:256])


def fitted(digits, norm=nn.BatchNorm1d, parts=((0, 3),), **kwargs):
    torch.manual_seed(0)
    model = ghost.network(norm, in_features=64, width=20, **kwargs)
    for start, passes in parts:
        ghost.fit(model, *digits, passes=passes, start=start, batch_size=64, lr=0.5, seed=0)
    return model


def test_training_in_parts_is_training(digits):
    state = torch.get_rng_state()
    whole = fitted(digits, dropout=0.5).state_dict()
    parts = fitted(digits, dropout=0.5, parts=((0, 1), (1, 2))).state_dict()
    assert all(torch.equal(whole[name], value) for name, value in parts.items())
    torch.manual_seed(0)
    ghost.network(nn.BatchNorm1d, in_features=64, width=20)
    left = torch.get_rng_state()
    fitted(digits)
    assert torch.equal(torch.get_rng_state(), left)
    assert not torch.equal(state, left)


def test_training_learns_with_every_layer(digits):
    norms = (
        (nn.BatchNorm1d, None),
        (lambda c: ghost.GhostBatchNorm1d(c, 16), None),
        (lambda c: ghost.ReferenceBatchNorm1d(c, 256), digits[0]),
    )
    for norm, reference in norms:
        torch.manual_seed(0)
        model = ghost.network(norm, in_features=64, width=20)
        how = {"batch_size": 64, "lr": 0.5, "seed": 0, "reference": reference}
        ghost.fit(model, *digits, passes=8, **how)
        assert ghost.evaluate(model, digits[0], {"train": digits})["train_accuracy"] > 0.85


def test_only_whole_batches_and_one_for_each_part_of_the_pass(digits):
    seen = []
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    model.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    ghost.fit(model, digits[0][:150], digits[1][:150], passes=2, batch_size=64, lr=0.1, seed=0)
    assert seen == [64] * 4


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, lambda c: ghost.GhostBatchNorm1d(c, 8)])
def test_the_statistics_of_the_data_are_those_of_the_package(digits, norm):
    model = fitted(digits, norm, dropout=0.2)
    before = copy.deepcopy(model.state_dict())
    found = ghost.evaluate(model, digits[0], {"train": digits})
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training
    model.eval()
    assert found["train_loss_stored"] == pytest.approx(bn.train.evaluate(model, *digits)[0])

    plain = ghost.network(nn.BatchNorm1d, in_features=64, width=20, dropout=0.2)
    plain.load_state_dict(before)
    bn.nn.precise_statistics(plain, [digits[0]])
    loss, accuracy = bn.train.evaluate(plain, *digits)
    assert found["train_loss"] == pytest.approx(loss, rel=2e-2)  # its variances divide by n
    assert found["train_accuracy"] == pytest.approx(accuracy, abs=0.01)
    assert found["train_loss"] != found["train_loss_stored"]
    rows = ghost.inputs(model, digits[0])
    for name in ("norm1", "norm2", "norm3"):
        layer = dict(plain.named_children())[name]
        torch.testing.assert_close(
            layer.running_mean.double(), rows[name].mean(0), rtol=2e-2, atol=2e-2
        )


def test_without_norms_there_is_one_kind_of_evaluation(digits):
    found = ghost.evaluate(fitted(digits, None), digits[0], {"train": digits})
    assert found["train_loss"] == found["train_loss_stored"]


def test_the_shift_behind_dropout_is_as_predicted(digits):
    """A thousand masks of the same images: the variance in training is that of the formula."""
    many = digits[0].repeat(40, 1, 1, 1)
    model = fitted(digits, dropout=0.5, place="before")
    shift = ghost.variance_shift(model, many)
    assert set(shift) == {"norm1", "norm2", "norm3"}
    first = {kind: np.array(values) for kind, values in shift["norm1"].items()}
    np.testing.assert_allclose(first["train"], first["predicted"], rtol=0.06)
    assert first["train"].mean() > 2
    model = fitted(digits, dropout=0.5, place="after")
    shift = ghost.variance_shift(model, many)
    assert set(shift) == {"norm2", "norm3"}
    np.testing.assert_allclose(
        np.mean(shift["norm2"]["train"]), np.mean(shift["norm2"]["predicted"]), rtol=0.03
    )


def test_the_stored_variance_is_compared_with_what_evaluation_meets(digits):
    model = fitted(digits, dropout=0.5, place="before")
    stored = ghost.variance_shift(model, digits[0])
    model.eval()
    x = digits[0]
    for name, layer in model.named_children():
        if isinstance(layer, nn.BatchNorm1d):
            ratio = layer.running_var / x.var(0, correction=0)
            np.testing.assert_allclose(stored[name]["stored"], ratio.detach(), rtol=1e-4)
        x = layer(x)


def test_no_dropout_no_shift(digits):
    assert ghost.variance_shift(fitted(digits), digits[0]) == {}
    assert ghost.variance_shift(fitted(digits, dropout=0.5, place="last"), digits[0]) == {}
