"""The PyTorch layers against ``torch.nn``: results, gradients, buffers, checkpoints, bad input."""

from __future__ import annotations

import copy
import inspect
import pickle
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

import bn.nn  # noqa: E402

PAIRS = {
    d: (getattr(bn.nn, f"BatchNorm{d}d"), getattr(torch.nn, f"BatchNorm{d}d")) for d in (1, 2, 3)
}
BIAS = "bias" in inspect.signature(torch.nn.BatchNorm1d).parameters  # an argument since torch 2.13


def pair(d=1, num_features=3, *, seed=0, **options):
    """The same layer twice, ours and torch's, with the same random state."""
    options = {"dtype": torch.float64, **options}
    ours, theirs = (cls(num_features, **options) for cls in PAIRS[d])
    generator = torch.Generator().manual_seed(seed)
    for tensor in theirs.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def close(ours, theirs, **tolerance):
    torch.testing.assert_close(ours, theirs, **{"rtol": 1e-10, "atol": 1e-11, **tolerance})


def same_state(ours, theirs, **tolerance):
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for mine, other in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        close(mine, other, **tolerance)


def same_step(ours, theirs, x, **tolerance):
    """One forward and backward pass through both: results, gradients and state agree."""
    before = x.clone()
    if x.numel() and not tolerance:
        # Rounding x moves its standardised value by |x| / sigma times that; a gradient by 1 / sigma
        # more. Where a channel is constant, sigma is sqrt(eps).
        sigma = (x.var([a for a in range(x.dim()) if a != 1], correction=0) + ours.eps).sqrt().min()
        kappa = 1 + (x.abs().max() / sigma).item()
        tolerance = {"atol": 1e-13 * kappa * max(1, 1 / sigma.item())}
    results = []
    for layer in ours, theirs:
        layer.zero_grad()
        leaf = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        y = layer(leaf)
        weights = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view(y.shape)
        if y.requires_grad:
            (y * weights).sum().backward()
        results.append((y, leaf.grad, *(p.grad for p in layer.parameters())))
    for mine, other in zip(*results, strict=True):
        assert mine.shape == other.shape
        assert mine.dtype == other.dtype
        close(mine, other, **tolerance)
    same_state(ours, theirs, **tolerance)
    assert torch.equal(x, before)


# Any configuration, any sequence of calls


LAYOUTS = {
    "contiguous": lambda x: x,
    "last two axes swapped": lambda x: x.transpose(-1, -2).contiguous().transpose(-1, -2),
    "every other value": lambda x: x.repeat_interleave(2, dim=-1)[..., ::2],
    "channels last": lambda x: x.movedim(1, -1).contiguous().movedim(-1, 1),
    "expanded": lambda x: x[:1].expand_as(x),
}
OPTIONS = st.fixed_dictionaries(
    {
        "eps": st.sampled_from([1e-5, 1e-3, 1e-10, 1.0]),
        "momentum": st.sampled_from([0.1, None, 0.0, 1.0, 0.7]),
        "affine": st.booleans(),
        "track_running_stats": st.booleans(),
        **({"bias": st.booleans()} if BIAS else {}),
    }
)


@settings(deadline=None, max_examples=120)
@given(st.data(), st.sampled_from([1, 2, 3]), st.integers(1, 4), OPTIONS)
def test_any_sequence_of_calls_does_what_torch_does(data, d, channels, options):
    ours, theirs = pair(d, channels, **options)
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    actions = st.sampled_from(["call"] * 5 + ["train", "eval", "reset", "swap", "stop tracking"])
    for action in data.draw(st.lists(actions, min_size=1, max_size=8)):
        if action == "call":
            axes = data.draw(st.lists(st.integers(1, 4), min_size=d, max_size=d))
            if d == 1 and data.draw(st.booleans()):
                axes = []
            batch = data.draw(st.integers(0 if channels else 1, 5))
            shape = (batch, channels, *axes)
            if batch * int(torch.tensor(axes).prod()) == 1:
                shape = (2, *shape[1:])
            scale, offset = data.draw(st.sampled_from([(1, 0), (1e-2, 1), (1e3, -1e3)]))
            x = offset + scale * torch.randn(shape, dtype=torch.float64, generator=generator)
            layout = data.draw(st.sampled_from(sorted(LAYOUTS)))
            same_step(ours, theirs, LAYOUTS[layout](x) if batch else x)
        elif action == "swap":  # checkpoints in both directions
            a, b = copy.deepcopy(ours.state_dict()), copy.deepcopy(theirs.state_dict())
            ours.load_state_dict(b)
            theirs.load_state_dict(a)
        else:
            for layer in ours, theirs:
                if action == "reset":
                    layer.reset_running_stats()
                elif action == "stop tracking":
                    layer.track_running_stats = False
                else:
                    layer.train(action == "train")
        same_state(ours, theirs)


def test_a_later_call_does_not_disturb_an_earlier_backward():
    layer, _ = pair()
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    y = layer.eval()(x)
    expected = layer.weight / (layer.running_var + layer.eps).sqrt()
    layer.train()(x)  # moves running_var, which torch would then use for y: pytorch#13402
    y.sum().backward()
    close(x.grad, expected.detach().expand(5, 3))


def test_training_a_network_follows_the_same_path():
    losses = []
    for nn in bn.nn, torch.nn:
        torch.manual_seed(0)
        net = torch.nn.Sequential(
            torch.nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Flatten(),
            torch.nn.Linear(64, 8), nn.BatchNorm1d(8), torch.nn.Tanh(), torch.nn.Linear(8, 1),
        ).double()  # fmt: skip
        optimiser = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
        x = torch.randn(16, 1, 6, 6, dtype=torch.float64)
        path = []
        for step in range(30):
            loss = ((net(x[step % 3 :: 2]) - 1) ** 2).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            path.append(loss.item())
        path.append(net.eval()(x).sum().item())
        losses.append(path)
    assert losses[0] == pytest.approx(losses[1], rel=1e-8)
    assert losses[0][29] < losses[0][0] / 2


# Derivatives of first and second order


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(4, 2), (3, 2, 3), (2, 2, 2, 2), (2, 2, 1, 2, 2)])
def test_autograd_is_right_to_second_order(shape, training):
    d = max(1, len(shape) - 2)
    layer, _ = pair(d, 2, track_running_stats=True)
    layer.train(training)
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x.requires_grad_()

    def f(x, weight, bias):
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x,))

    inputs = x, layer.weight, layer.bias
    assert torch.autograd.gradcheck(f, inputs)
    assert torch.autograd.gradgradcheck(f, inputs)


def test_second_derivatives_are_torchs():
    results = []
    for layer in pair():
        x = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        x.requires_grad_()
        loss = (layer(x) ** 3).sum()
        (g,) = torch.autograd.grad(loss, x, create_graph=True)
        (g**2).sum().backward()
        results.append((x.grad, layer.weight.grad, layer.bias.grad))
    for mine, theirs in zip(*results, strict=True):
        close(mine, theirs, rtol=1e-8)


def test_running_statistics_carry_no_graph():
    layer = bn.nn.BatchNorm1d(3)
    x = torch.randn(4, 3, requires_grad=True)
    for _ in range(2):
        layer(x).sum().backward()
    assert not layer.running_mean.requires_grad
    assert not layer.running_var.requires_grad


# Numerics


def test_the_variance_is_safe_far_from_zero():
    x = 1e4 + torch.randn(1000, 1, generator=torch.Generator().manual_seed(0))
    y = bn.nn.BatchNorm1d(1)(x).double()
    exact = x.double()
    exact = (exact - exact.mean()) / (exact.var(correction=0) + 1e-5).sqrt()
    # float32 holds x to 5e-4 here; E[x^2] - E[x]^2 would be off by several units
    assert (y - exact).abs().max() < 1e-3


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layer_dtype", [torch.float32, None])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_torchs(dtype, layer_dtype, training):
    ours, theirs = pair(2, 3, dtype=layer_dtype or dtype)
    x = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    # both compute in float32 and round once: one unit in the last place apart at most
    tolerance = {"rtol": 2 * torch.finfo(dtype).eps, "atol": 2 * torch.finfo(dtype).eps}
    for layer in ours, theirs:
        layer.train(training)
    mine, other = ours(x), theirs(x)
    assert mine.dtype == other.dtype == dtype
    close(mine, other, **tolerance)
    same_state(ours, theirs, **tolerance)


def test_half_precision_does_not_overflow_in_the_variance():
    x = torch.tensor([[-3e4], [0.0], [3e4]], dtype=torch.float16)
    y = bn.nn.BatchNorm1d(1)(x)
    close(y, torch.tensor([[-1.2247], [0.0], [1.2247]], dtype=torch.float16), rtol=0, atol=1e-3)


def test_autocast_leaves_it_alone():
    layer = bn.nn.BatchNorm1d(3)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(4, 3)).dtype == torch.float32
        assert layer(torch.randn(4, 3).bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_stay_in_their_channel(bad, training):
    ours, theirs = pair(2, 3)
    for layer in ours, theirs:
        layer.train(training)
    x = torch.randn(2, 3, 2, 2, dtype=torch.float64)
    x[1, 1, 0, 1] = bad
    mine, other = ours(x), theirs(x)
    close(mine, other, equal_nan=True)
    assert mine[:, [0, 2]].isfinite().all()
    for name in "running_mean", "running_var":
        good = [0, 2]
        close(getattr(ours, name)[good], getattr(theirs, name)[good])
        assert getattr(ours, name).isfinite().tolist() == getattr(theirs, name).isfinite().tolist()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("d", "shape"), [(1, (0, 3)), (1, (0, 3, 4)), (1, (2, 3, 0)), (2, (0, 3, 2, 2))]
)
def test_an_empty_batch_is_counted_and_changes_nothing(d, shape, training):
    ours, theirs = pair(d)
    for layer in ours, theirs:
        layer.train(training)
    same_step(ours, theirs, torch.empty(shape, dtype=torch.float64))
    same_step(ours, theirs, torch.randn(4, *shape[1:2], *[2] * (len(shape) - 2)).double())


@pytest.mark.parametrize("training", [True, False])
def test_memory_formats_are_kept(training):
    layer = bn.nn.BatchNorm2d(3).train(training)
    x = torch.randn(2, 3, 4, 5)
    assert layer(x).is_contiguous()
    y = layer(x.to(memory_format=torch.channels_last))
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_it_compiles_as_one_graph():
    ours, theirs = pair(2)
    compiled = torch.compile(ours, backend="eager", fullgraph=True)
    x = torch.randn(4, 3, 2, 2, dtype=torch.float64)
    close(compiled(x), theirs(x))
    same_state(ours, theirs)


# What can be seen from outside


@pytest.mark.parametrize("d", PAIRS)
def test_arguments_are_torchs(d):
    ours, theirs = (inspect.signature(cls).parameters for cls in PAIRS[d])
    assert {k: p.default for k, p in ours.items() if k != "bias"} == {
        k: p.default for k, p in theirs.items() if k != "bias"
    }
    if BIAS:
        assert ours["bias"].kind == theirs["bias"].kind


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("track", [True, False])
def test_names_order_dtypes_and_starting_values_are_torchs(affine, track):
    options = {"affine": affine, "track_running_stats": track}
    ours, theirs = (cls(4, momentum=None, **options) for cls in PAIRS[2])
    for part in "named_parameters", "named_buffers":
        mine, other = dict(getattr(ours, part)()), dict(getattr(theirs, part)())
        assert list(mine) == list(other)
        for name, tensor in mine.items():
            assert tensor.dtype == other[name].dtype
            assert torch.equal(tensor, other[name])
    for name in "weight", "bias", "running_mean", "running_var", "num_batches_tracked":
        assert (getattr(ours, name) is None) == (getattr(theirs, name) is None)
    assert ours.state_dict()._metadata == theirs.state_dict()._metadata  # the version
    if BIAS:
        assert repr(ours) == repr(theirs)


def test_reset_parameters_forgets_everything():
    ours, theirs = pair()
    for layer in ours, theirs:
        layer(torch.randn(5, 3, dtype=torch.float64))
        layer.reset_parameters()
    assert torch.equal(ours.running_var, torch.ones(3, dtype=torch.float64))
    assert ours.num_batches_tracked == 0
    assert ours.weight.tolist() == [1, 1, 1]
    same_state(ours, theirs)


def test_copies_are_independent():
    layer, _ = pair()
    x = torch.randn(5, 3, dtype=torch.float64)
    layer(x)
    for other in copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)):
        same_state(other, layer)
        other(x)
        assert other.num_batches_tracked == layer.num_batches_tracked + 1


def test_moving_the_layer_keeps_the_counter_an_integer():
    layer = bn.nn.BatchNorm1d(3).half()
    assert layer.weight.dtype == torch.float16
    assert layer.num_batches_tracked.dtype == torch.int64
    assert bn.nn.BatchNorm1d(3, device="meta")(torch.ones(4, 3, device="meta")).shape == (4, 3)


@pytest.mark.parametrize("inside", [True, False])
def test_a_checkpoint_without_the_counter_still_loads(inside):
    ours, theirs = pair()
    for layer in ours, theirs:
        layer.num_batches_tracked.fill_(7)
    if inside:
        ours, theirs = torch.nn.Sequential(ours), torch.nn.Sequential(theirs)
    old = {k: v + 1 for k, v in theirs.state_dict().items() if "num_batches" not in k}
    for net in ours, theirs:
        net.load_state_dict(old)  # a plain dict has no version, as then
    same_state(ours, theirs)
    assert [*ours.state_dict().values()][-1] == 7


def test_a_new_checkpoint_without_the_counter_is_refused():
    ours, theirs = pair()
    broken = theirs.state_dict()
    del broken["num_batches_tracked"]
    for layer in ours, theirs:
        with pytest.raises(RuntimeError, match="num_batches_tracked"):
            layer.load_state_dict(broken)


# Bad input: the same kind of error as torch, and the shape in it


BAD = {
    "one axis": (1, {}, lambda: torch.randn(3).double(), r"2D or 3D .*1D.*\(3,\)"),
    "four axes for 1d": (1, {}, lambda: torch.randn(2, 3, 2, 2).double(), r"2D or 3D .*4D"),
    "two axes for 2d": (2, {}, lambda: torch.randn(2, 3).double(), r"4D .*2D.*\(2, 3\)"),
    "four axes for 3d": (3, {}, lambda: torch.randn(2, 3, 2, 2).double(), r"5D .*4D"),
    "features": (1, {}, lambda: torch.randn(4, 5).double(), r"5 elements not 3.*\(4, 5\)"),
    "features, not affine": (
        1, {"affine": False}, lambda: torch.randn(4, 5).double(), "running_mean should contain 5",
    ),
    "features, not tracked": (
        1, {"track_running_stats": False}, lambda: torch.randn(4, 5).double(), "weight should",
    ),
    "integers": (1, {}, lambda: torch.ones(4, 3, dtype=torch.long), r"int64.*\(4, 3\)"),
    "booleans": (2, {}, lambda: torch.ones(4, 3, 2, 2, dtype=torch.bool), "bool"),
    "complex": (1, {}, lambda: torch.ones(4, 3, dtype=torch.complex64), "complex64"),
    "float32 into float64": (1, {}, lambda: torch.randn(4, 3), "float32 .*float64"),
    "half into float64": (1, {}, lambda: torch.randn(4, 3).half(), "float16 .*float64"),
    "float64 into float32": (
        1, {"dtype": torch.float32}, lambda: torch.randn(4, 3).double(), "float64 .*float32",
    ),
    "bfloat16 into half": (
        1, {"dtype": torch.float16}, lambda: torch.randn(4, 3).bfloat16(), "bfloat16 .*float16",
    ),
}  # fmt: skip


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("d", "options", "make", "says"), BAD.values(), ids=BAD)
def test_bad_input_raises_what_torch_raises(d, options, make, says, training):
    ours, theirs = pair(d, **options)
    before = copy.deepcopy(ours.state_dict())
    errors = []
    for layer in ours, theirs:
        with pytest.raises((ValueError, RuntimeError)) as caught:
            layer.train(training)(make())
        errors.append(caught.value)
    assert type(errors[0]) is type(errors[1])
    assert re.search(says, str(errors[0]), re.DOTALL)
    assert type(ours).__name__ in str(errors[0])
    for name, tensor in ours.state_dict().items():  # a call that fails changes nothing
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1)])
def test_one_value_per_channel(shape):
    x = torch.randn(shape, dtype=torch.float64)
    ours, theirs = pair()
    for layer in ours, theirs:
        with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
            layer(x)
    assert ours.num_batches_tracked == 0
    close(ours.eval()(x), theirs.load_state_dict(ours.state_dict()) and theirs.eval()(x))
    ours, theirs = pair(track_running_stats=False)
    for layer in ours, theirs:
        with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
            layer.eval()(x)


def test_an_empty_batch_is_checked_too():
    layer = bn.nn.BatchNorm1d(3)
    with pytest.raises(RuntimeError, match=r"5 elements not 3.*\(0, 5\)"):
        layer(torch.empty(0, 5))
    with pytest.raises(NotImplementedError, match="int64"):
        layer(torch.empty(0, 3, dtype=torch.long))


def test_without_parameters_or_buffers_any_number_of_channels_goes_as_in_torch():
    same_step(*pair(affine=False, track_running_stats=False), torch.randn(4, 5).double())


def test_eps():
    x = torch.randn(5, 3, dtype=torch.float64)
    y = bn.nn.BatchNorm1d(3, eps=0, dtype=torch.float64)(x)
    close((y**2).mean(0), torch.ones(3, dtype=torch.float64))
    with pytest.raises(ValueError, match="-1"):
        bn.nn.BatchNorm1d(3, eps=-1)(x.float())


# One statement of the book each


def test_a_bias_before_it_has_no_gradient():
    linear, layer = torch.nn.Linear(4, 3).double(), bn.nn.BatchNorm1d(3).double()
    (layer(linear(torch.randn(6, 4).double())) ** 3).sum().backward()
    assert linear.bias.grad.abs().max() < 1e-12 * linear.weight.grad.abs().max()


def test_the_numpy_transform_is_the_same():
    layer, _ = pair(2)
    x = torch.randn(4, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    y = layer(x)
    g = torch.randn_like(y)
    y.backward(g)
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    mine, cache = bn.batch_norm(x.detach().numpy(), weight, bias, axis=(0, 2, 3))
    gradients = bn.batch_norm_backward(g.numpy(), cache)
    for a, b in zip(
        (mine, *gradients), (y, x.grad, layer.weight.grad, layer.bias.grad), strict=True
    ):
        close(torch.tensor(a), b.detach())
