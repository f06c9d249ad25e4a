"""The loss around a network: numbers against mathematics, and nothing left behind."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import bn
from bn import landscape


def state(model):
    return {
        "values": {k: v.clone() for k, v in model.state_dict().items()},
        "modes": [m.training for m in model.modules()],
    }


def same(a, b):
    return a["modes"] == b["modes"] and all(
        torch.equal(v, b["values"][k]) for k, v in a["values"].items()
    )


def small(batch_norm=True, seed=0):
    """A small network with batch norm that has already seen a batch, in mixed modes."""
    torch.manual_seed(seed)
    model = bn.models.mlp(batch_norm, in_features=6, width=5, depth=2, classes=3)
    model(torch.randn(20, 6))
    model.eval()
    model.linear2.train()
    return model


def batch(m=16, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(m, 6, generator=generator), torch.randint(3, (m,), generator=generator)


class Bowl(nn.Module):
    """L = ½ (w − c)ᵀ A (w − c), whatever goes in."""

    def __init__(self, A, w, c):
        super().__init__()
        self.w, self.A, self.c = nn.Parameter(w.clone()), A, c

    def forward(self, images):
        return 0.5 * (self.w - self.c) @ self.A @ (self.w - self.c)


def bowl(seed=0, n=4):
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(n, n))
    return Bowl(*(torch.tensor(v) for v in (A @ A.T, rng.normal(size=n), rng.normal(size=n))))


# ------------------------------------------------------------------------ nothing is left behind


@pytest.mark.parametrize(
    "measure",
    [
        lambda model, x, y: landscape.probe(model, x, y, 0.5, [0.5, 4]),
        lambda model, x, y: landscape.layers(model, x, y),
        lambda model, x, y: landscape.surface(
            model, x, y, landscape.directions(model), [-1, 0, 0.5]
        ),
    ],
)
def test_a_measurement_leaves_weights_statistics_and_modes_as_they_were(measure):
    model, (x, y) = small(), batch()
    before = state(model)
    measure(model, x, y)
    assert same(before, state(model))
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())


def test_the_running_statistics_do_not_enter():
    x, y = batch()
    a, b = small(), small()
    b.norm1.running_mean += 3
    b.norm2.running_var *= 9
    assert landscape.probe(a, x, y, 0.5, [1]) == landscape.probe(b, x, y, 0.5, [1])


def test_after_an_error_too_all_is_as_it_was():
    def fail(output, labels):
        model.linear1.weight.data += 1
        raise RuntimeError("bang")

    model, (x, y) = small(), batch()
    before = state(model)
    with pytest.raises(RuntimeError, match="bang"):
        landscape.probe(model, x, y, 0.1, [1], fail)
    assert same(before, state(model))


# -------------------------------------------------------------------------------- along the gradient


def test_the_walk_through_a_bowl_is_the_formula():
    for seed in range(5):
        model, lr, factors = bowl(seed), 0.03, [0.5, 1.0, 4.0]
        A, offset = model.A, (model.w - model.c).detach()
        g = A @ offset
        walk = landscape.probe(model, None, None, lr, factors, loss=lambda output, _: output)
        there = [offset - f * lr * g for f in factors]
        assert walk["loss"] == pytest.approx((0.5 * offset @ g).item())
        assert walk["gradient"] == pytest.approx(g.norm().item())
        np.testing.assert_allclose(walk["losses"], [(0.5 * v @ A @ v).item() for v in there])
        np.testing.assert_allclose(walk["changes"], [(A @ v - g).norm().item() for v in there])
        assert walk["beta"] == pytest.approx(((A @ g).norm() / g.norm()).item())
        assert walk["beta"] <= torch.linalg.eigvalsh(A)[-1].item() * (1 + 1e-12)


def test_beta_is_the_largest_ratio_and_not_the_ratio_of_the_largest():
    quartic = bowl(n=1)
    start = (quartic.w - quartic.c).item()

    def cosine_wave(output, _):  # L = 1 − cos(offset): curvature falls off
        return 1 - torch.cos(torch.sqrt(2 * output / quartic.A[0, 0]))

    factors = [0.5, 2.0, 4.0]
    walk = landscape.probe(quartic, None, None, 1.0, factors, cosine_wave)
    g = math.sin(abs(start))
    ratios = [abs(math.sin(abs(start) - f * g) - g) / (f * g) for f in factors]
    assert walk["beta"] == pytest.approx(max(ratios), rel=1e-6)
    assert max(walk["changes"]) / (4 * g) < walk["beta"]


def test_the_first_step_is_that_of_gradient_descent():
    model, (x, y) = small().train(), batch()
    walk = landscape.probe(model, x, y, 0.3, [1.0])
    F.cross_entropy(model(x), y).backward()
    torch.optim.SGD(model.parameters(), lr=0.3).step()
    assert walk["losses"][0] == pytest.approx(F.cross_entropy(model(x), y).item(), rel=1e-5)


def test_weights_are_those_of_the_matrices():
    model, (x, y) = small(), batch()
    walk = landscape.probe(model, x, y, 0.3, [1.0])
    matrices = [model.linear1.weight, model.linear2.weight, model.output.weight]
    want = math.sqrt(sum(w.square().sum().item() for w in matrices))
    assert walk["weights"] == pytest.approx(want)


def test_where_the_gradient_is_zero_there_is_no_direction():
    model = bowl()
    model.c = model.w.detach().clone()
    walk = landscape.probe(model, None, None, 0.1, [1.0], lambda output, _: output)
    assert math.isnan(walk["beta"])


@pytest.mark.parametrize(("lr", "factors"), [(0, [1]), (-1, [1]), (0.1, [1, 0]), (math.nan, [1])])
def test_steps_that_are_none_are_refused(lr, factors):
    with pytest.raises(ValueError, match="more than 0"):
        landscape.probe(small(), *batch(), lr, factors)


def test_a_summary_keeps_extremes():
    walk = {"loss": 1.23456789, "gradient": 2.0, "weights": 3.0, "beta": 4.0,
            "losses": [0.9, 1.5, 0.8], "changes": [0.1, 0.4, 0.2]}  # fmt: skip
    assert landscape.summary([walk, walk]) == {
        "loss": [1.23457] * 2, "gradient": [2.0] * 2, "weights": [3.0] * 2, "beta": [4.0] * 2,
        "low": [0.8] * 2, "high": [1.5] * 2, "change": [0.4] * 2,
    }  # fmt: skip


# --------------------------------------------------------------------------- through one layer


@pytest.mark.parametrize("convolution", [False, True])
def test_what_a_layer_does_to_the_gradient(convolution):
    torch.manual_seed(2)
    norm, at = nn.BatchNorm1d(5), (0,)
    head = nn.Sequential(nn.Linear(5, 3))
    x = torch.randn(12, 5)
    if convolution:
        norm, at, x = nn.BatchNorm2d(5), (0, 2, 3), torch.randn(6, 5, 3, 2)
        head = nn.Sequential(nn.Tanh(), nn.Flatten(), nn.Linear(30, 3))
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    first = nn.Conv2d(5, 5, 1) if convolution else nn.Linear(5, 5)
    labels = torch.randint(3, (len(x),))
    model = nn.Sequential(first, norm, head)
    found = landscape.layers(model, x, labels)["1"]

    h = first(x)
    y = norm(h)
    y.retain_grad()
    F.cross_entropy(head(y), labels).backward()
    h, g = h.detach().double().numpy(), y.grad.double().numpy()
    gamma = norm.weight.detach().double().numpy().reshape(1, 5, *[1] * (len(at) - 1))
    dx, _, _ = bn.batch_norm_backward(
        g, bn.batch_norm(h, gamma.ravel(), np.zeros(5), axis=at, eps=norm.eps)[1]
    )
    sigma = np.sqrt(h.var(axis=at, keepdims=True) + norm.eps)
    scale = (abs(gamma) / sigma).ravel()
    lengths = [np.sqrt((v**2).sum(axis=at)) for v in (dx, g)]

    def lower(v):
        return np.sort(v)[(len(v) - 1) // 2]  # torch's median

    assert found["scale"] == pytest.approx(lower(scale), rel=1e-5)
    assert found["kept"] == pytest.approx(lower(lengths[0] / scale / lengths[1]), rel=1e-4)
    assert found["ratio"] == pytest.approx(np.linalg.norm(dx) / np.linalg.norm(g), rel=1e-4)
    shrinking = (norm.weight.grad * norm.weight > 0).double().mean().item()
    assert found["shrinking"] == shrinking


def test_without_batch_norm_there_is_nothing_to_say():
    assert landscape.layers(small(False), *batch()) == {}


def test_inserted_layers_change_the_landscape_and_not_the_function():
    for name in ("sigmoid", "relu"):
        torch.manual_seed(0)
        plain = landscape.network(name, False)
        x, y = torch.randn(32, 1, 28, 28), torch.arange(32) % 10
        with_layers = landscape.insert(plain, x)
        assert sum(isinstance(m, nn.BatchNorm1d) for m in with_layers) == (
            3 if name == "sigmoid" else 6
        )
        assert with_layers.training
        torch.testing.assert_close(with_layers(x), plain(x), rtol=1e-4, atol=1e-4)
        for norm in landscape.layers(with_layers, x, y).values():
            assert norm["scale"] == pytest.approx(1, rel=1e-3)  # γ = √(v + ε)
            assert norm["ratio"] < 1
        with_layers.linear1.weight.data += 1  # a copy
        assert not torch.equal(with_layers.linear1.weight, plain.linear1.weight)


# ----------------------------------------------------------------------------------- slices


def test_directions_have_the_lengths_of_the_weights_row_by_row():
    torch.manual_seed(0)
    model = bn.models.lenet(image=8)
    with torch.no_grad():
        model.conv1.weight[2] *= 7
    a, b = landscape.directions(model, seed=3)
    assert set(a) == {f"{n}.weight" for n in ("conv1", "conv2", "linear3", "linear4", "output")}
    for name, p in model.named_parameters():
        if p.dim() > 1:
            for d in (a, b):
                torch.testing.assert_close(d[name].flatten(1).norm(dim=1), p.flatten(1).norm(dim=1))
            assert abs(F.cosine_similarity(a[name].flatten(), b[name].flatten(), dim=0)) < 0.5
    again, _ = landscape.directions(model, seed=3)
    other, _ = landscape.directions(model, seed=4)
    assert all(torch.equal(a[k], again[k]) for k in a)
    assert not torch.equal(a["output.weight"], other["output.weight"])


def test_with_and_without_batch_norm_get_the_same_draws():
    pair = []
    for batch_norm in (True, False):
        torch.manual_seed(0)
        pair.append(landscape.directions(bn.models.mlp(batch_norm, in_features=6), seed=1)[0])
    assert all(torch.equal(pair[0][k], v) for k, v in pair[1].items())


def test_a_surface_is_the_loss_at_each_point():
    model, (x, y) = small(), batch()
    pair = landscape.directions(model)
    ticks = [-0.5, 0.0, 1.0]
    values = landscape.surface(model, x, y, pair, ticks)
    for i, s in enumerate(ticks):
        for j, t in enumerate(ticks):
            moved = copy.deepcopy(model).train()
            with torch.no_grad():
                for name, p in moved.named_parameters():
                    if name in pair[0]:
                        p += s * pair[0][name] + t * pair[1][name]
                assert values[i, j] == pytest.approx(F.cross_entropy(moved(x), y).item(), rel=1e-5)
    assert values[0, 2] != pytest.approx(values[2, 0], rel=1e-3)


# --------------------------------------------------------------------------------- training


def test_training_is_plain_gradient_descent_on_the_batches_it_shows():
    data = bn.data.digits()
    torch.manual_seed(0)
    model = bn.models.mlp(in_features=64)
    twin = copy.deepcopy(model)
    walk = bn.train.steps(
        model, data, lr=0.2, batch_size=500, seed=5, stops=[0, 1, 2, 3], drop_last=True
    )  # two steps to an epoch
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.2)
    seen = []
    for step, x, y in walk:
        assert all(torch.equal(v, twin.state_dict()[k]) for k, v in model.state_dict().items())
        epoch, place = divmod(step, 2)
        order = np.random.default_rng((5, epoch)).permutation(len(data.y_train))
        chosen = order[500 * place : 500 * (place + 1)]
        np.testing.assert_array_equal(y, data.y_train[chosen])
        np.testing.assert_array_equal(x, data.x_train[chosen])
        optimizer.zero_grad()
        F.cross_entropy(twin(x), y).backward()
        optimizer.step()
        seen.append(step)
    assert seen == [0, 1, 2, 3]


def test_a_measurement_at_a_stop_does_not_disturb_the_training():
    data, ends = bn.data.digits(), []
    for look in (False, True):
        torch.manual_seed(0)
        model = bn.models.mlp(in_features=64)
        for _, x, y in bn.train.steps(model, data, lr=0.2, batch_size=64, seed=0, stops=[0, 1, 2]):
            if look:
                landscape.probe(model, x, y, 0.2, [4.0])
                landscape.layers(model, x, y)
        ends.append(state(model))
    assert same(*ends)


# ---------------------------------------------------------------------------- the networks


def test_the_relu_network_is_paired_and_starts_as_glorot_says():
    models = []
    for batch_norm in (True, False):
        torch.manual_seed(3)
        models.append(landscape.network("relu", batch_norm))
    with_norm, plain = (m.state_dict() for m in models)
    assert all(torch.equal(with_norm[k], v) for k, v in plain.items())
    assert [type(m) for m in models[0]].count(nn.ReLU) == 6
    assert [type(m) for m in models[0]].count(nn.Sigmoid) == 0
    first = models[1].linear1
    assert first.weight.abs().max().item() == pytest.approx(math.sqrt(6 / 884), rel=1e-2)
    assert not first.bias.any()
    with pytest.raises(ValueError, match="not 'tanh'"):
        landscape.network("tanh", True)


def test_the_deep_linear_network_is_a_product_of_matrices():
    torch.manual_seed(0)
    plain = landscape.deep_linear(False)
    x = torch.randn(7, 10, dtype=torch.float64)
    product = x
    for layer in plain:
        product = product @ layer.weight.T
    torch.testing.assert_close(plain(x), product)
    assert len(plain) == 25
    assert max(layer.weight.abs().max().item() for layer in plain) <= math.sqrt(6 / 20)
    names = list(landscape.deep_linear(True)._modules)
    assert names[:3] == ["linear1", "norm1", "linear2"]
    assert names[-1] == "linear25"
