"""Chapter layer/pytorch_layer: its module, its backward and its claims hold on any batch."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest
import torch
from chapters import Chapter
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import bn
from bn.conventions import CONVENTIONS

NOTEBOOK = Chapter("layer/pytorch_layer")

seeds = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def chapter():
    return NOTEBOOK.run("setup", "module-code", "saved-code", "function-code", "saved-table")


def draw(seed, low=2):
    """A batch whose features have spread, an incoming gradient and parameters, in float64."""
    rng = np.random.default_rng(seed)
    m, n = rng.integers(low, 9), rng.integers(1, 6)
    x = rng.normal(size=n) + rng.uniform(0.5, 3, n) * rng.normal(size=(m, n))
    x[0] += 1.0 + np.abs(x).max()  # never a batch of nearly equal values
    values = x, rng.normal(size=(m, n)), rng.normal(size=n), rng.normal(size=n)
    return [torch.tensor(v) for v in values]


# --------------------------------------------------------- the code of the chapter is bn's


@settings(max_examples=30, deadline=None)  # torch's first call is slow
@given(st.sampled_from([0.0, 0.1, 1.0, None]), st.lists(seeds, min_size=1, max_size=8))
def test_the_chapters_module_is_the_packages_and_torchs(chapter, momentum, stream):
    n = 4
    ours = chapter["BatchNorm"](n, eps=1e-3, momentum=momentum).double()
    others = [cls(n, eps=1e-3, momentum=momentum).double()
              for cls in (bn.nn.BatchNorm1d, nn.BatchNorm1d)]  # fmt: skip
    for seed in stream:
        rng = np.random.default_rng(seed)
        x = torch.tensor(rng.normal(3, 2, size=(int(rng.integers(2, 9)), n)))
        mode = bool(rng.integers(4))
        y = ours.train(mode)(x)
        for layer in others:
            torch.testing.assert_close(layer.train(mode)(x), y, rtol=1e-9, atol=1e-9)
            assert layer.state_dict().keys() == ours.state_dict().keys()
            for key, value in ours.state_dict().items():
                torch.testing.assert_close(layer.state_dict()[key], value, rtol=1e-9, atol=1e-12)


@settings(deadline=None)
@given(seeds, st.sampled_from([1e-5, 1e-2, 1.0]))
def test_the_chapters_backward_is_autograds_and_numpys(chapter, seed, eps):
    x, g, weight, bias = draw(seed)
    leaves = [v.requires_grad_() for v in (x, weight, bias)]
    y = chapter["Function"].apply(x, weight, bias, eps)
    got = torch.autograd.grad(y, leaves, g)
    theirs = nn.functional.batch_norm(x, None, None, weight, bias, training=True, eps=eps)
    torch.testing.assert_close(y, theirs)
    for a, b in zip(got, torch.autograd.grad(theirs, leaves, g), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)
    parts = [v.detach().numpy() for v in (x, weight, bias)]
    _, cache = bn.batch_norm(*parts, eps=eps)
    for a, b in zip(got, bn.batch_norm_backward(g.numpy(), cache), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)


def test_differentiating_twice_without_the_guard_would_be_wrong(chapter):
    """Why the Function is once differentiable: mean and rstd would pass for constants."""
    source = NOTEBOOK.source("function-code")
    bare = NOTEBOOK.run(known={"torch": torch})
    exec(source.replace("    @once_differentiable\n", ""), bare)
    x, _, weight, bias = draw(1, low=4)
    x.requires_grad_()

    def second(f):
        (first,) = torch.autograd.grad(f(x).pow(3).sum(), x, create_graph=True)
        return torch.autograd.grad(first.square().sum(), x)[0]

    right = second(lambda x: bn.nn.BatchNormFunction.apply(x, weight, bias, 1e-3)[0])
    truth = second(lambda x: nn.functional.batch_norm(x, None, None, weight, bias, True, 0.1, 1e-3))
    wrong = second(lambda x: bare["Function"].apply(x, weight, bias, 1e-3))
    torch.testing.assert_close(right, truth)
    assert (wrong - truth).abs().max() > 1e-2 * truth.abs().max()


# ---------------------------------------------------------------------------- measurements


@pytest.mark.parametrize("shape", [(64, 8), (1000, 30)])
def test_what_is_kept_for_the_backward(chapter, shape):
    x, n = torch.randn(shape, requires_grad=True), shape[1]
    kept = chapter["saved_bytes"]
    per_channel = 4 * n
    assert kept(chapter["BatchNorm"](n), x) == 3 * x.nbytes + 2 * per_channel
    weight, bias = torch.ones(n, requires_grad=True), torch.zeros(n, requires_grad=True)
    function = kept(lambda x: chapter["Function"].apply(x, weight, bias, 1e-5), x)
    assert function == x.nbytes + 3 * per_channel  # weight, mean, rstd
    for layer in (bn.nn.BatchNorm1d(n), nn.BatchNorm1d(n)):
        assert kept(layer, x) <= x.nbytes + 6 * per_channel


def test_the_three_arrays_are_those_that_the_text_names(chapter):
    layer = chapter["BatchNorm"](5)
    x = torch.randn(20, 5, requires_grad=True)
    kept = []
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t)
    with hooks:
        layer(x)
    large = {tuple(t.detach().flatten()[:7].tolist()): t for t in kept if t.shape == x.shape}
    assert len(large) == 3
    centred = x - x.mean(0)
    x_hat = centred / torch.sqrt(x.var(0, correction=0) + layer.eps)
    for named in (x, centred, x_hat):
        assert any(torch.allclose(t, named, atol=1e-6) for t in large.values())


def test_every_switch_does_what_the_table_says():
    states = NOTEBOOK.run("setup", "modes-code")["states"]
    assert states == {
        "train()": (True, True, True),
        "torch.no_grad()": (True, True, False),
        "momentum = 0": (True, False, True),
        "requires_grad_(False)": (True, True, False),
        "eval()": (False, False, True),
        "eval(), then train()": (True, True, True),
        "freeze, then train()": (False, False, False),
    }


def test_float16_loses_what_the_text_says():
    half = torch.float16
    assert torch.tensor(256.0, dtype=half).square().isinf()
    assert torch.tensor(255.0, dtype=half).square().isfinite()
    smallest = torch.finfo(half).smallest_normal * torch.finfo(half).eps
    assert torch.tensor(smallest, dtype=half) > 0
    assert torch.tensor(smallest / 2, dtype=half) == 0
    assert torch.tensor(1.6e-4, dtype=half).square() == 0
    assert torch.tensor(1.8e-4, dtype=half).square() > 0
    assert torch.tensor(1000.24, dtype=half) == 1000
    assert torch.tensor(1000.26, dtype=half) > 1000
    got = NOTEBOOK.run("setup", "half-buffers-code")
    assert got["half"][0] == 1000
    assert got["full"][0] == pytest.approx(1002 - 2 * 0.9**50, abs=1e-2)
    assert got["overflowed"] == float("inf")


@pytest.mark.parametrize("make", [nn.BatchNorm1d, bn.nn.BatchNorm1d])
def test_a_layer_in_float32_takes_float16_and_gives_it_back(make):
    layer = make(3)
    x = (300 * torch.randn(50, 3)).half()  # whose squares float16 cannot hold
    y = layer(x)
    assert y.dtype == torch.float16
    assert y.isfinite().all()
    torch.testing.assert_close(layer.running_var, 0.9 + 0.1 * x.float().var(0))


# -------------------------------------------------------------------------- the overflow


@pytest.fixture(scope="module")
def poisoned():
    return NOTEBOOK.run("setup", "poison-code")


def column(rows, name):
    return [row[name] for row in rows]


def test_an_overflow_poisons_the_averages_although_the_step_is_skipped(poisoned):
    model, rows = poisoned["model"], poisoned["rows"]
    only_four = [step != 4 for step in range(10)]
    assert column(rows, "loss finite") == only_four
    assert column(rows, "step taken") == only_four
    assert all(column(rows, "weights finite"))
    assert column(rows, "averages finite") == [step < 4 for step in range(10)]
    assert column(rows, "inference finite") == [step < 4 for step in range(10)]
    assert not model[1].running_var.isfinite().any()


def test_the_guard_costs_one_batch_and_no_more(poisoned):
    guarded = NOTEBOOK.run("guard-code", known=poisoned)["guarded"]
    assert all(column(guarded, "averages finite"))
    assert all(column(guarded, "inference finite"))
    assert column(guarded, "step taken") == column(poisoned["rows"], "step taken")


def test_a_scale_that_is_too_large_skips_the_step_and_poisons_nothing(poisoned):
    source = NOTEBOOK.source("poison-code")
    source = source.replace("init_scale=2.0**10", "init_scale=2.0**120")
    source = source.replace("data[4, 0, 0] = 3e5", "pass")
    rows = NOTEBOOK.run("setup")
    exec(source, rows)
    rows = rows["rows"]
    assert not any(column(rows, "step taken"))
    assert all(column(rows, "loss finite"))
    assert all(column(rows, "averages finite"))
    assert all(column(rows, "inference finite"))


@pytest.mark.parametrize("precision", ["dtype=torch.bfloat16", "enabled=False"])
def test_the_range_of_float32_prevents_it(precision):
    namespace = NOTEBOOK.run("setup")
    source = NOTEBOOK.source("poison-code")
    assert "dtype=torch.float16" in source
    exec(source.replace("dtype=torch.float16", precision), namespace)
    assert all(all(row.values()) for row in namespace["rows"])


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_nothing_dilutes_it(bad):
    layer = nn.BatchNorm1d(2)
    broken = torch.randn(8, 2)
    broken[3, 0] = bad
    layer(broken)
    for _ in range(200):
        layer(torch.randn(8, 2))
    assert layer.running_mean.isfinite().tolist() == [False, True]  # channel by channel
    assert layer.running_var.isfinite().tolist() == [False, True]


def test_the_repair_gathers_the_statistics_of_the_data(poisoned):
    model = copy.deepcopy(poisoned["model"])
    data = torch.randn(20, 32, 4)
    bn.nn.precise_statistics(model, data)
    h = model[0](data.flatten(0, 1))
    torch.testing.assert_close(model[1].running_mean, h.mean(0).detach(), atol=1e-5, rtol=1e-4)
    assert model.eval()(data[0]).isfinite().all()


# ------------------------------------------------------------------------------ conversion


def test_a_swap_keeps_parameters_statistics_and_modes(chapter):
    swap = NOTEBOOK.run("setup", "module-code", "convert-code")
    inner = nn.Sequential(nn.ReLU(), nn.BatchNorm1d(3, momentum=None).eval())
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, eps=1e-2), inner)
    model[0:2](torch.randn(9, 4))
    twin = copy.deepcopy(model)
    parameters = [id(p) for p in model.parameters()]
    assert swap["swap"](model) is model
    assert [id(p) for p in model.parameters()] == parameters
    assert [type(m) for m in (model[1], model[2][1])] == [swap["BatchNorm"]] * 2
    assert (model[1].training, model[2][1].training) == (True, False)
    x = torch.randn(6, 4)
    torch.testing.assert_close(model(x), twin(x))
    for key, value in twin.state_dict().items():
        torch.testing.assert_close(model.state_dict()[key], value)


# --------------------------------------------------------------------- the table of conventions


def table() -> dict[str, list[str]]:
    """The cells of the two tables, row by row under the library's name."""
    text = re.sub(r"<!--.*?-->", "", NOTEBOOK.source("conventions"))
    rows: dict[str, list[str]] = {}
    for line in text.split("\n"):
        if line.startswith("|"):
            title, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            rows.setdefault(title.split()[0] if title.strip("-") else "", []).extend(cells)
    rows.pop("")
    return rows


def test_the_table_is_the_data_of_bn_conventions():
    rows = table()
    assert list(rows) == [c.title for c in CONVENTIONS.values()]
    for row, c in zip(rows.values(), CONVENTIONS.values(), strict=True):
        weighs, default, eps, over, channels, freeze, source = row
        assert weighs == ("new value" if c.weighs_new else "old value")
        assert default == ("none" if c.default_momentum is None else str(c.default_momentum))
        exponent = re.search(r"10\^\{(-\d)\}", eps)
        assert (float(f"1e{exponent[1]}") if exponent else None) == c.default_eps
        assert over == ("$m-1$" if c.unbiased else "$m$")
        assert channels == {1: "axis 1", -1: "last axis"}[c.axis]
        assert c.source in source
        assert c.checked.split()[-1] in source
        code = re.search(r"`([^`]+)`", freeze)[1]
        assert code in c.freeze


def test_the_numbers_around_the_table():
    assert bn.conventions.convert_variance(1.0, "onnx", "pytorch", m=16) == pytest.approx(
        1.0667, abs=1e-4
    )
    assert round(100 * (16 / 15 - 1)) == 7
    x = torch.randn(2, 3, 4, 5)
    moved = x.contiguous(memory_format=torch.channels_last)
    assert moved.shape == x.shape
    for layer in (nn.BatchNorm2d(3), bn.nn.BatchNorm2d(3)):
        torch.testing.assert_close(layer(moved), layer(x))


def test_the_simulation_agrees_with_torch():
    ns = NOTEBOOK.run("setup", "conventions-code", "simulation-code")
    layer = nn.BatchNorm1d(3, momentum=ns["translated"]).double()
    rng = np.random.default_rng(0)
    for _ in range(200):
        layer(torch.tensor(rng.normal(1, 2, size=(8, 3))))
    np.testing.assert_allclose(layer.running_var, ns["in_pytorch"][1], rtol=1e-9)
    np.testing.assert_allclose(ns["converted"], ns["in_pytorch"][1], rtol=1e-6)
    assert np.abs(ns["copied"][1] / ns["in_pytorch"][1] - 1).max() > 0.2
