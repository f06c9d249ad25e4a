"""Training is repeatable, resumable and measured as it says."""

from __future__ import annotations

import copy
import math
from itertools import islice

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bn import models, train
from bn.data import Data, digits

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def small() -> Data:
    whole = digits()
    return Data(whole.x_train[:200], whole.y_train[:200], whole.x_test[:60], whole.y_test[:60])


def build(seed=0, dropout=0.25, batch_norm=True):
    """A network with everything that a checkpoint must keep: statistics, dropout, momentum."""
    torch.manual_seed(seed)
    return models.convnet(batch_norm, image=8, dropout=dropout)


OPTIONS = {"epochs": 3, "batch_size": 32, "lr": 0.05, "momentum": 0.9, "seed": 7}


def weights(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture(scope="module")
def reference(small):
    model = build()
    rows = list(train.train(model, small, **OPTIONS))
    return rows, weights(model)


def test_same_seed_same_numbers(small, reference):
    model = build()
    torch.manual_seed(123)  # what the global generator holds makes no difference
    assert list(train.train(model, small, **OPTIONS)) == reference[0]
    assert same(weights(model), reference[1])


@pytest.mark.parametrize(
    "change",
    [{"seed": 8}, {"lr": 0.06}, {"batch_size": 31}, {"momentum": 0}, {"weight_decay": 0.01}],
)
def test_every_option_counts(small, reference, change):
    rows = list(train.train(build(), small, **(OPTIONS | change)))
    assert all(a["train_loss"] != b["train_loss"] for a, b in zip(rows, reference[0], strict=True))


@pytest.mark.parametrize("stop", [0, 1, 2, 3])
def test_resumed_is_bit_for_bit_the_uninterrupted(small, reference, tmp_path, stop):
    path = tmp_path / "run.pt"
    list(islice(train.train(build(), small, **OPTIONS, checkpoint=path), stop))
    assert path.exists() == (stop > 0)
    model = build(seed=99)  # other weights: they must come from the checkpoint
    if stop == 0:
        model = build()
    assert list(train.train(model, small, **OPTIONS, checkpoint=path)) == reference[0]
    assert same(weights(model), reference[1])
    assert [p.name for p in tmp_path.iterdir()] == ["run.pt"]


def test_what_is_yielded_is_the_callers_to_change(small, reference, tmp_path):
    path = tmp_path / "run.pt"
    for row in train.train(build(), small, **(OPTIONS | {"epochs": 2}), checkpoint=path):
        row.clear()
    assert list(train.train(build(), small, **OPTIONS, checkpoint=path)) == reference[0]


def test_interleaved_runs_do_not_disturb_each_other(small, reference):
    a, b = (train.train(build(), small, **OPTIONS) for _ in range(2))
    pairs = list(zip(a, b, strict=True))
    assert [p for p, _ in pairs] == [q for _, q in pairs] == reference[0]


def test_global_generator_is_left_alone(small):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    model = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(64, 10))
    torch.manual_seed(5)
    list(train.train(model, small, epochs=1))
    assert torch.equal(torch.rand(1), expected)


def test_both_arms_see_the_same_batches_and_dropout_masks(small):
    seen = {}
    for arm in (True, False):
        model, log = build(batch_norm=arm), []
        model.conv1.register_forward_pre_hook(lambda m, x, log=log: log.append(x[0].clone()))
        model.dropout.register_forward_hook(
            lambda m, x, y, log=log: log.append((y == 0) & (x[0] != 0))
        )
        torch.nn.init.constant_(model.conv2.bias, 100.0)  # nothing is zero but what was dropped
        model.train()
        train.run_epoch(
            model, torch.optim.SGD(model.parameters(), lr=0), torch.from_numpy(small.x_train),
            torch.from_numpy(small.y_train), batch_size=32, seed=3, epoch=0,
        )  # fmt: skip
        seen[arm] = log
    batches = [seen[arm][0::2] for arm in (True, False)]
    assert all(torch.equal(p, q) for p, q in zip(*batches, strict=True))
    plain = seen[False][1]
    assert 0.15 < plain.float().mean() < 0.35
    kept = seen[True][1] & ~plain
    assert not kept.any()  # with batch norm some inputs are zero anyway; no other is dropped


def test_plain_gradient_descent_step_by_step(small):
    """One epoch against the textbook: w ← w − η·∂L/∂w over the batches in the stated order."""
    torch.manual_seed(0)
    model = models.mlp(in_features=64, width=5, depth=1).double()
    twin = models.mlp(in_features=64, width=5, depth=1).double()
    twin.load_state_dict(model.state_dict())
    x, y = torch.from_numpy(small.x_train).double(), torch.from_numpy(small.y_train)
    doubled = small._replace(x_train=x.numpy(), x_test=small.x_test.astype(float))
    list(train.train(model, doubled, epochs=2, batch_size=64, lr=0.3, seed=4))

    twin.train()
    for epoch in range(2):
        order = np.random.default_rng((4, epoch)).permutation(len(x))
        for start in range(0, len(x), 64):
            batch = order[start : start + 64]
            loss = F.cross_entropy(twin(x[batch]), y[batch])
            gradients = torch.autograd.grad(loss, list(twin.parameters()))
            with torch.no_grad():
                for w, g in zip(twin.parameters(), gradients, strict=True):
                    w -= 0.3 * g
    for a, b in zip(model.state_dict().values(), twin.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_every_example_once_an_epoch_but_a_last_one_alone(small):
    seen = []

    def look(module, inputs):
        if module.training:
            seen.append(inputs[0].flatten(1))

    model = models.mlp(in_features=64)
    model.register_forward_pre_hook(look)
    list(train.train(model, small, epochs=1, batch_size=199))
    assert [len(batch) for batch in seen] == [199]
    seen.clear()
    list(train.train(model, small, epochs=1, batch_size=64))
    assert [len(batch) for batch in seen] == [64, 64, 64, 8]
    expected = torch.from_numpy(small.x_train).flatten(1)
    assert sorted(torch.cat(seen).tolist()) == sorted(expected.tolist())


def test_batches_of_one_are_not_left_out_in_silence(small):
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        list(train.train(models.mlp(in_features=64), small, epochs=1, batch_size=1))
    rows = list(train.train(models.mlp(False, in_features=64), small, epochs=1, batch_size=1))
    assert len(rows) == 1


def test_metrics_are_what_they_say(small):
    model = build(dropout=0.9)
    row = next(train.train(model, small, epochs=1, measure=50, validation=(
        small.x_test[:7], small.y_test[:7])))  # fmt: skip
    model.eval()
    with torch.no_grad():
        for name, x, y in [
            ("train", small.x_train[:50], small.y_train[:50]),
            ("test", small.x_test, small.y_test),
            ("validation", small.x_test[:7], small.y_test[:7]),
        ]:
            logits, labels = model(torch.from_numpy(x)), torch.from_numpy(y)
            assert row[f"{name}_loss"] == pytest.approx(F.cross_entropy(logits, labels).item())
            hits = (logits.argmax(1) == labels).sum().item()
            assert row[f"{name}_accuracy"] == hits / len(y)
    assert row["epoch"] == 1


@pytest.mark.parametrize("training", [True, False])
def test_measuring_leaves_the_model_as_it_was(small, training):
    model = build().train(training)
    before = weights(model)
    train.evaluate(model, small.x_test, small.y_test)
    train.predict_proba(model, small.x_test)
    train.preactivations(model, small.x_test)
    assert model.training is training
    assert same(weights(model), before)
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_evaluate_does_not_depend_on_its_batches(small):
    model = build()
    whole = train.evaluate(model, small.x_test, small.y_test, batch_size=60)
    assert train.evaluate(model, small.x_test, small.y_test, batch_size=7) == pytest.approx(whole)


def test_predict_proba_is_softmax(small):
    model = build()
    probabilities = train.predict_proba(model, small.x_test, batch_size=7)
    assert probabilities.shape == (60, 10)
    assert probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities.sum(1), 1)
    loss, accuracy = train.evaluate(model, small.x_test, small.y_test)
    assert -np.log(probabilities[np.arange(60), small.y_test]).mean() == pytest.approx(loss)
    assert (probabilities.argmax(1) == small.y_test).mean() == accuracy


@pytest.mark.parametrize("inplace", [False, True])
def test_preactivations_are_the_inputs_of_the_nonlinearities(small, inplace):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 7), nn.ReLU(inplace))
    found = train.preactivations(model, small.x_test)
    values = model[1](torch.from_numpy(small.x_test).flatten(1)).detach().numpy()
    assert list(found) == ["2"]
    np.testing.assert_allclose(
        found["2"]["quantiles"], np.quantile(values, [0.05, 0.15, 0.5, 0.85, 0.95]), rtol=1e-4
    )
    lo, hi = found["2"]["edges"]
    np.testing.assert_allclose([lo, hi], np.quantile(values, [0.001, 0.999]), rtol=1e-4)
    assert (values < 0).any()
    assert lo < 0
    assert len(found["2"]["counts"]) == 28
    assert 0.99 * values.size < sum(found["2"]["counts"]) <= values.size


def test_preactivations_name_every_nonlinearity(small):
    assert list(train.preactivations(build(), small.x_test)) == ["relu1", "relu2", "relu3"]
    model = models.mlp(in_features=64)
    assert list(train.preactivations(model, small.x_test)) == ["sigmoid1", "sigmoid2", "sigmoid3"]


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
def test_preactivations_survive_what_cannot_be_drawn(small, value):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 7), nn.ReLU())
    nn.init.constant_(model[1].weight, 0)
    nn.init.constant_(model[1].bias, value)
    found = train.preactivations(model, small.x_test)["2"]
    assert found["counts"] == [0] * 28


def test_divergence_is_reported_not_hidden(small):
    rows = list(train.train(models.mlp(False, in_features=64), small, epochs=2, lr=1e38))
    assert len(rows) == 2
    assert not math.isfinite(rows[-1]["train_loss"])


def test_training_learns(small):
    rows = list(train.train(build(), digits(), epochs=2, probe=0))
    assert rows[-1]["test_accuracy"] > 0.9
    assert "preactivations" not in rows[-1]


def test_damaged_checkpoint_is_refused_by_name(small, tmp_path):
    path = tmp_path / "run.pt"
    next(train.train(build(), small, **OPTIONS, checkpoint=path))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"run\.pt.*[Dd]elete"):
        next(train.train(build(), small, **OPTIONS, checkpoint=path))


def test_an_epoch_is_a_permutation_cut_into_batches():
    for n, size, lengths in ((7, 3, [3, 3]), (8, 3, [3, 3, 2]), (8, 1, [1] * 8), (6, 6, [6])):
        cut = train.epoch_batches(n, size, seed=2, epoch=4)
        assert [len(batch) for batch in cut] == lengths
        order = np.random.default_rng((2, 4)).permutation(n)
        assert torch.cat(cut).tolist() == order[: sum(lengths)].tolist()
    whole = train.epoch_batches(8, 3, seed=2, epoch=4, drop_last=True)
    assert [len(batch) for batch in whole] == [3, 3]


def test_too_few_examples_for_a_batch_are_refused():
    with pytest.raises(ValueError, match="5 examples do not fill a batch of 6: take smaller"):
        next(train.batches(5, 6, seed=0, drop_last=True))
    with pytest.raises(ValueError, match="1 examples do not fill a batch of 2"):
        train.epoch_batches(1, 64, seed=0, epoch=0)


def test_steps_pause_at_the_stops_and_end_at_the_last():
    data = digits()
    torch.manual_seed(0)
    one = models.mlp(in_features=64)
    two = copy.deepcopy(one)
    seen = [
        step for step, *_ in train.steps(one, data, batch_size=60, lr=0.1, seed=0, stops=[2, 5])
    ]
    assert seen == [2, 5]
    for step, *_ in train.steps(two, data, batch_size=60, lr=0.1, seed=0):
        if step == 5:
            break
    weights = two.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in one.state_dict().items())


@pytest.mark.parametrize("batch_size", [60, 100])
def test_steps_train_as_train_does(batch_size):
    data = digits()
    torch.manual_seed(0)
    one = models.mlp(in_features=64, width=12)
    two = copy.deepcopy(one).eval()
    list(train.train(one, data, epochs=2, batch_size=batch_size, lr=0.1, seed=5, probe=0))
    per_epoch = math.ceil(len(data.x_train) / batch_size)
    for step, images, labels in train.steps(two, data, batch_size=batch_size, lr=0.1, seed=5):
        assert len(images) == len(labels)
        if step == 2 * per_epoch:
            break
    weights = two.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in one.state_dict().items())
