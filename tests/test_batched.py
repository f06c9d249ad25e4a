"""Many networks as one: each the same as if it were alone."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import bn
from bn.batched import Stack, mlp
from bn.train import batches

SIZES = {"in_features": 64, "width": 12, "depth": 3}
RATES = torch.tensor([0.01, 0.1, 0.5])


@pytest.fixture(scope="module")
def digits():
    x, y = map(torch.as_tensor, bn.data.digits()[:2])
    return x, y


def alone(model, x, y, lr, order):
    """Train one model by the plain loop; return its losses."""
    optimizer = torch.optim.SGD(model.parameters(), lr=float(lr))
    losses = []
    for batch in order:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x[batch]), y[batch])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def build(batch_norm, activation="relu", dtype=torch.float64):
    return [mlp(batch_norm, activation=activation, seed=k, **SIZES).to(dtype) for k in range(3)]


# In float32 each product and mean is rounded to 6e-8 of its size, in another order in a stack than
# alone; forty steps of training carry that on and let it grow.
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-3)])
@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("own", [True, False])
def test_each_network_is_as_if_alone(digits, batch_norm, activation, own, dtype, tolerance):
    x, y = digits[0].to(dtype), digits[1]
    models = build(batch_norm, activation, dtype)
    stack = Stack(models)
    orders = [list(itertools.islice(batches(len(x), 32, k * own), 40)) for k in range(3)]
    rates = RATES.to(dtype)
    found = []
    for step in zip(*orders, strict=True):
        batch = torch.stack(step) if own else step[0]
        found.append(stack.step(x[batch], y[batch], rates))
    for k, model in enumerate(models):
        expected = torch.tensor(alone(model, x, y, rates[k], orders[k]), dtype=dtype)
        close = {"rtol": tolerance, "atol": tolerance}
        torch.testing.assert_close(torch.stack(found)[:, k], expected, **close)
        for key, value in stack.model(k).state_dict().items():
            torch.testing.assert_close(value, model.state_dict()[key], **close)
        loss, accuracy = bn.train.evaluate(model, x, y)
        losses, accuracies = stack.evaluate(x, y)
        assert losses[k].item() == pytest.approx(loss, rel=tolerance)
        assert accuracies[k].item() == pytest.approx(accuracy, abs=0 if tolerance < 1e-9 else 2e-3)


def test_a_network_that_overflows_leaves_the_others_alone(digits):
    x, y = digits

    def run(rates):
        stack = Stack(build(True, dtype=torch.float32) + build(True, dtype=torch.float32))
        for batch in itertools.islice(batches(len(x), 32, 0), 15):
            losses = stack.step(x[batch], y[batch], torch.tensor(rates))
        return losses, stack

    quiet, first = run([0.1, 0.1, 0.1, 0.1, 0.1, 0.1])
    loud, second = run([0.1, float("inf"), 0.1, 1e30, 0.1, float("nan")])
    kept = [0, 2, 4]
    assert not torch.isfinite(loud[[1, 3, 5]]).any()
    assert torch.equal(quiet[kept], loud[kept])
    assert any(value[3].isnan().any() for value in second.params.values())  # its gradient counts
    for key, value in first.params.items():
        assert torch.equal(value[kept], second.params[key][kept])
    for one, other in zip(first.evaluate(x, y), second.evaluate(x, y), strict=True):
        assert torch.equal(one[kept], other[kept])


def test_a_stack_of_one_is_the_model(digits):
    x = digits[0].double()
    model = mlp(True, **SIZES).double()
    torch.testing.assert_close(Stack([model])(x, training=False)[0], model.eval()(x))


def test_the_models_stay_as_they_are(digits):
    x, y = digits
    models = build(True, dtype=torch.float32)
    before = [{k: v.clone() for k, v in m.state_dict().items()} for m in models]
    stack = Stack(models)
    stack.step(x[:32], y[:32], RATES)
    for model, old in zip(models, before, strict=True):
        assert all(torch.equal(v, old[k]) for k, v in model.state_dict().items())
    single = stack.model(1)
    stack.step(x[:32], y[:32], RATES)
    assert not torch.equal(single[1].weight, stack.model(1)[1].weight)


def test_evaluation_does_not_depend_on_its_batches_and_changes_nothing(digits):
    x, y = digits
    stack = Stack(build(True))
    before = {k: v.clone() for k, v in stack.buffers.items()}
    one, two = (stack.evaluate(x.double(), y, size) for size in (100, 7))
    torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)
    assert all(torch.equal(v, before[k]) for k, v in stack.buffers.items())


def test_the_batches_are_those_of_the_training_loop(digits, monkeypatch):
    data = bn.data.digits()
    seen = []

    class Look(nn.Module):
        def forward(self, x):
            if self.training:
                seen.append(x[:, 0, 0, 0])
            return torch.zeros(len(x), 10, requires_grad=True)

    numbered = data._replace(
        x_train=np.arange(65, dtype=np.float32)[:, None, None, None], y_train=data.y_train[:65]
    )
    model = nn.Sequential(Look(), nn.Linear(10, 10))
    list(bn.train.train(model, numbered, epochs=2, batch_size=8, seed=3, probe=0))
    expected = list(itertools.islice(batches(65, 8, 3), 16))
    assert len(seen) == 16  # the last batch would hold one example
    assert all(torch.equal(a.long(), b) for a, b in zip(seen, expected, strict=True))


def test_the_scale_multiplies_the_hidden_weights_and_nothing_else():
    for activation, gain in (("relu", 2**0.5), ("sigmoid", 1.0)):
        one = mlp(False, activation=activation, width=300, seed=1)
        big = mlp(True, activation=activation, width=300, seed=1, scale=4.0)
        linear, scaled = ([m for m in net if isinstance(m, nn.Linear)] for net in (one, big))
        for a, b in zip(linear[:-1], scaled[:-1], strict=True):
            torch.testing.assert_close(4 * a.weight, b.weight)
            assert a.weight.std().item() * a.in_features**0.5 == pytest.approx(gain, rel=0.02)
        assert torch.equal(linear[-1].weight, scaled[-1].weight)
        assert all((m.bias == 0).all() for m in linear)


def test_building_leaves_the_global_generator():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    mlp(seed=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_errors_say_what_and_what_to_do():
    with pytest.raises(ValueError, match="at least one model"):
        Stack([])
    with pytest.raises(TypeError, match=r"layer '0' is Conv2d.*is made of Flatten, Linear"):
        Stack([nn.Sequential(nn.Conv2d(1, 2, 3))])
    with pytest.raises(TypeError, match="running statistics"):
        Stack([nn.Sequential(nn.BatchNorm1d(3, affine=False))])
    with pytest.raises(ValueError, match="number 1 differs from number 0"):
        Stack([mlp(width=3), mlp(width=4)])
    two, x, y = Stack([mlp(width=3)] * 2), torch.zeros(4, 784), torch.zeros(4, dtype=torch.long)
    with pytest.raises(ValueError, match=r"shape \(2,\), not \(3,\)"):
        two.step(x, y, torch.ones(3))
    with pytest.raises(ValueError, match="'tanh'"):
        mlp(activation="tanh")
