"""The layers inside what PyTorch does to a model: compile, export, vmap, autocast, meta, extremes."""

from __future__ import annotations

import copy
import io
import shutil

import pytest

torch = pytest.importorskip("torch")

import bn.nn  # noqa: E402

nn = torch.nn
LAYERS = {d: [getattr(m, f"BatchNorm{d}d") for m in (bn.nn, nn)] for d in (1, 2, 3)}
SHAPES = {1: (6, 3), 2: (4, 3, 5, 4), 3: (2, 3, 2, 3, 2)}


def draw(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator).to(dtype)


def close(a, b, tolerance=1e-11, **options):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, **options)


def same_state(a, b, tolerance=1e-11):
    for (name, mine), (_, other) in zip(
        a.state_dict().items(), b.state_dict().items(), strict=True
    ):
        close(mine, other, tolerance, msg=lambda m, name=name: f"{name}: {m}")


def step(call, layer, x):
    """Result and gradients of one call."""
    layer.zero_grad()
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    y = call(x)
    (y * draw(*y.shape, seed=9, dtype=y.dtype)).sum().backward()
    return [y.detach(), x.grad, *(p.grad for p in layer.parameters())]


# torch.compile and torch.export


OPTIONS = [{}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("d", [1, 2])
def test_it_compiles_as_one_graph(d, options, training):
    torch.compiler.reset()
    eager = LAYERS[d][0](3, dtype=torch.float64, **options).train(training)
    traced = copy.deepcopy(eager)
    # aot_eager does what every compiler starts with, and needs no C++
    compiled = torch.compile(traced, backend="aot_eager", fullgraph=True)
    for seed in range(2):
        x = draw(*SHAPES[d], seed=seed)
        for a, b in zip(step(compiled, traced, x), step(eager, eager, x), strict=True):
            close(a, b)
    same_state(traced, eager)


def test_a_compiled_layer_takes_batches_of_any_size():
    torch.compiler.reset()
    eager, traced = (bn.nn.BatchNorm1d(3, dtype=torch.float64) for _ in range(2))
    compiled = torch.compile(traced, backend="aot_eager", fullgraph=True, dynamic=True)
    for size in 4, 7, 2:
        x = draw(size, 3)
        for a, b in zip(step(compiled, traced, x), step(eager, eager, x), strict=True):
            close(a, b)
    same_state(traced, eager)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile's own backend needs g++")
def test_what_the_compiler_makes_of_it_is_right():
    torch.compiler.reset()
    eager = bn.nn.BatchNorm2d(3)
    traced = copy.deepcopy(eager)
    compiled = torch.compile(traced, fullgraph=True)
    far = (100 + draw(40, 3, 5, 5)).float()  # E[x^2] - E[x]^2 would be off by 1e-3 there
    for x in far - 100, far:
        for a, b in zip(step(compiled, traced, x), step(eager, eager, x), strict=True):
            close(a, b, 1e-4)
    same_state(traced, eager, 2e-5)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_it_exports(training, strict):
    layer = bn.nn.BatchNorm2d(3, dtype=torch.float64).train(training)
    other = copy.deepcopy(layer)
    x = draw(4, 3, 5, 4)
    exported = torch.export.export(layer, (x,), strict=strict).module()
    close(exported(x), other(x))
    for name, buffer in exported.named_buffers():
        close(buffer, getattr(other, name))
    assert ("num_batches_tracked" in dict(exported.named_buffers())) or not training


# torch.func


def models(source, count=3):
    made = []
    for seed in range(count):
        model = nn.Sequential(nn.Linear(4, 3), source.BatchNorm1d(3)).double()
        for i, p in enumerate(model.parameters()):
            p.data = draw(*p.shape, seed=10 * seed + i)
        made.append(model)
    return made


@pytest.mark.parametrize(
    ("compiled", "shared_input", "training"),
    [(False, s, t) for s in (True, False) for t in (True, False)] + [(True, True, True)],
)
def test_many_models_at_once(compiled, shared_input, training):
    torch.compiler.reset()
    several = [m.train(training) for m in models(bn.nn)]
    x = draw(6, 4) if shared_input else draw(3, 6, 4)
    parameters, buffers = torch.func.stack_module_state(several)
    base = copy.deepcopy(several[0]).to("meta")

    def loss(p, b, x):
        return (torch.func.functional_call(base, (p, b), (x,)) ** 3).sum()

    def run():
        one = torch.func.grad_and_value(loss)
        return torch.func.vmap(one, (0, 0, None if shared_input else 0))(parameters, buffers, x)

    run = torch.compile(run, backend="aot_eager", fullgraph=True) if compiled else run
    gradients, values = run()
    for i, model in enumerate(several):
        value = (model(x if shared_input else x[i]) ** 3).sum()
        value.backward()
        close(values[i], value.detach())
        for name, p in model.named_parameters():
            close(gradients[name][i], p.grad)
        for name, b in model.named_buffers():  # each model's statistics have moved on their own
            close(buffers[name][i], b)


def test_the_cumulative_average_of_many_models_at_once():
    several = [bn.nn.BatchNorm1d(3, momentum=None).double() for _ in range(2)]
    parameters, buffers = torch.func.stack_module_state(several)
    base, x = several[0], draw(2, 2, 5, 3)

    def call(p, b, x):
        return torch.func.functional_call(base, (p, b), (x,))

    for batch in x:
        torch.func.vmap(call)(parameters, buffers, batch)
    close(buffers["running_mean"], x.mean((0, 2)))


def test_forward_mode_goes_through_the_layer():
    layer = bn.nn.BatchNorm1d(3, track_running_stats=False).double()
    x, v = draw(5, 3), draw(5, 3, seed=1)
    y, along = torch.func.jvp(layer, (x,), (v,))
    step = 1e-6
    close(along, (layer(x + step * v) - layer(x - step * v)) / (2 * step), 1e-8)
    close(y, layer(x))


# Memory formats, devices, precision


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("d", [2, 3])
def test_channels_last_stays_channels_last(d, training):
    form = {2: torch.channels_last, 3: torch.channels_last_3d}[d]
    results = []
    for cls in LAYERS[d]:
        layer = cls(3, dtype=torch.float64).train(training)
        x = draw(*SHAPES[d]).to(memory_format=form)
        results.append(step(layer, layer, x))
        with torch.no_grad():
            assert layer(x).is_contiguous(memory_format=form)
    for mine, theirs in zip(*results, strict=True):
        close(mine, theirs)
    for mine in results[0][:2]:
        assert mine.is_contiguous(memory_format=form)


@pytest.mark.parametrize("training", [True, False])
def test_meta_has_shapes_and_no_numbers(training):
    layer = bn.nn.BatchNorm2d(3, device="meta").train(training)
    x = torch.empty(4, 3, 5, 4, device="meta", requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert y.shape == x.grad.shape == x.shape
    assert x.grad.device.type == layer.weight.grad.device.type == "meta"
    real = layer.to_empty(device="cpu")
    real.reset_parameters()
    assert torch.equal(real.running_var, torch.ones(3))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_is_torchs(dtype, training):
    results = []
    for cls in LAYERS[2]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(2, 3, 3), cls(3), nn.ReLU()).train(training)
        x = draw(4, 2, 6, 6, dtype=torch.float32).requires_grad_()
        with torch.autocast("cpu", dtype):
            y = model(x)
        assert y.dtype == dtype
        y.float().square().sum().backward()
        assert model[1].weight.grad.dtype == model[1].running_var.dtype == torch.float32
        results.append((model, [y.float(), x.grad, *(p.grad for p in model.parameters())]))
    (mine, a), (theirs, b) = results
    same_state(mine, theirs, 1e-5)
    for i, (one, other) in enumerate(zip(a, b, strict=True)):
        # the bias in front of batch norm has no gradient but what rounding leaves of it
        scale = max(other.abs().max().item(), 1.0) if i != 3 or not training else 100.0
        assert (one - other).abs().max() < 20 * torch.finfo(dtype).eps * scale


def test_half_precision_buffers_hold_what_float16_can():
    # 0.1 of this variance fits into float16, the variance itself does not
    x = torch.tensor([[-400.0], [400.0]], dtype=torch.float16)
    ours, theirs = (cls(1, dtype=torch.float16) for cls in LAYERS[1])
    for layer in ours, theirs:
        layer(x)
    assert 0 < ours.running_var < torch.inf
    close(ours.running_var, theirs.running_var, 2e-3)


# Extremes: what torch does, and never in another channel


EXTREMES = {
    "constant": lambda x: 0 * x + 3.7,
    "zero": lambda x: 0 * x,
    "one other": lambda x: torch.cat([0 * x[:-1], 0 * x[-1:] + 1]),
    "huge": lambda x: 1e12 * x,
    "tiny": lambda x: 1e-12 * x,
    "denormal": lambda x: 1e-40 * x,
    "far": lambda x: x + 1e4,
    "overflow": lambda x: 1e30 * x,
    "infinite": lambda x: torch.cat([x[:-1], 0 * x[-1:] + torch.inf]),
    "minus infinite": lambda x: torch.cat([x[:-1], 0 * x[-1:] - torch.inf]),
    "nan": lambda x: torch.cat([x[:-1], 0 * x[-1:] + torch.nan]),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", EXTREMES)
@pytest.mark.parametrize("d", [1, 2])
def test_an_extreme_channel_does_what_torchs_does_and_disturbs_no_other(d, kind, training):
    x = draw(*SHAPES[d], dtype=torch.float32)
    odd = x.clone()
    odd[:, 1] = EXTREMES[kind](x[:, 1])
    runs = {}
    for source, batch in (("ours", odd), ("theirs", odd), ("calm", x)):
        layer = LAYERS[d][source == "theirs"](3).train(training)
        runs[source] = [*step(layer, layer, batch), layer.running_mean, layer.running_var]
    for i, (mine, theirs, calm) in enumerate(zip(*runs.values(), strict=True)):
        axis = 1 if i < 2 else 0
        for channel in 0, 2:  # not one bit of the others depends on it
            assert torch.equal(mine.select(axis, channel), calm.select(axis, channel))
        a, b = mine.select(axis, 1), theirs.select(axis, 1)
        if kind == "overflow" and training and i > 1:
            continue  # sums of squares beyond float32: torch adds in float64 and rounds at the end
        assert torch.equal(a.isfinite(), b.isfinite())
        # to rounding of x, which moves x_hat by |x| / sigma, and dx by 1 / sigma more
        good = odd[:, 1][odd[:, 1].isfinite()]
        sigma = (good.double().var(correction=0) + 1e-5).sqrt().item() if training else 1.0
        spread = (1 + good.abs().max().item() / sigma) * max(1, 1 / sigma)
        finite = a.isfinite()
        size = max(1.0, b[finite].abs().max().item()) if finite.any() else 1.0
        assert (a - b)[finite].abs().sum() <= 1e-5 * spread * size


@pytest.mark.parametrize("training", [True, False])
def test_a_batch_whose_variance_overflows_poisons_its_own_statistics_only(training):
    layer = bn.nn.BatchNorm1d(2).train(training)
    x = torch.tensor([[1e30, 1.0], [-1e30, 3.0]])
    y = layer(x)
    assert torch.equal(y[:, 1], bn.nn.BatchNorm1d(2).train(training)(x[:, 1:].expand(2, 2))[:, 1])
    assert layer.running_var[1].isfinite()
    assert layer.running_var[0].isfinite() != training


# Gradients and modes


def test_inference_is_the_same_with_and_without_gradients():
    layer = bn.nn.BatchNorm2d(3, dtype=torch.float64)
    for p in layer.parameters():
        p.data = draw(3, seed=4)
    x = draw(*SHAPES[2])
    layer(x)
    layer.eval()
    y = layer(x)
    with torch.no_grad():
        close(layer(x), y.detach())
        layer.bias = None
        close(layer(x), layer.train(False)(x))
    with torch.inference_mode():
        close(layer(x).clone(), layer(x.clone()))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_inference_without_gradients_is_torchs(affine, bias):
    ours, theirs = (cls(3, affine=affine, dtype=torch.float64) for cls in LAYERS[2])
    x = draw(*SHAPES[2])
    for layer in ours, theirs:
        layer(x * 3 + 1)
        if affine:
            layer.weight.data, layer.bias.data = draw(3, seed=1), draw(3, seed=2)
            if not bias:
                layer.bias = None
        layer.eval()
    with torch.no_grad():
        close(ours(x), theirs(x))


@pytest.mark.parametrize("training", [True, False])
def test_no_gradient_flows_where_none_is_wanted(training):
    layer = bn.nn.BatchNorm1d(3).train(training).requires_grad_(False)
    assert not layer(torch.randn(4, 3)).requires_grad
    x = torch.randn(4, 3, requires_grad=True)
    layer(x).sum().backward()
    assert layer.weight.grad is None


def test_a_call_without_gradients_still_moves_the_statistics():
    ours, theirs = (cls(3, dtype=torch.float64) for cls in LAYERS[1])
    with torch.no_grad():
        for layer in ours, theirs:
            layer(draw(4, 3))
    same_state(ours, theirs)


def test_a_bias_may_change_before_the_backward_as_in_torch():
    for cls in LAYERS[1]:
        layer = cls(3)
        y = layer(torch.randn(4, 3))
        with torch.no_grad():
            layer.bias.add_(1)
        y.sum().backward()
        y = layer(torch.randn(4, 3))
        with torch.no_grad():
            layer.weight.add_(1)  # the backward needs the old one: better an error than a wrong one
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.square().sum().backward()


def test_a_saved_checkpoint_goes_both_ways():
    ours, theirs = (cls(3) for cls in LAYERS[2])
    for a, b in (ours, theirs), (theirs, ours):
        a(torch.randn(4, 3, 2, 2))
        file = io.BytesIO()
        torch.save(a.state_dict(), file)
        file.seek(0)
        b.load_state_dict(torch.load(file, weights_only=True))
        same_state(ours, theirs)
