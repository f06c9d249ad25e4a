"""The derived backward: right to any order, in little memory, under every way to differentiate."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

import bn.nn  # noqa: E402
from bn.nn import BatchNormFunction  # noqa: E402

D = torch.float64
EPS = 1e-3


def draw(*shape, seed=0, dtype=D):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=D, generator=generator).to(dtype)


def close(a, b, tolerance=1e-11):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def inputs(*shape, weight=True, bias=True):
    """x, weight and bias that want gradients."""
    c = shape[1]
    made = draw(*shape), draw(c, seed=1) if weight else None, draw(c, seed=2) if bias else None
    return [v if v is None else v.requires_grad_() for v in made]


def apply(x, weight=None, bias=None):
    return BatchNormFunction.apply(x, weight, bias, EPS)


def by_definition(x, weight=None, bias=None):
    axes = [a for a in range(x.dim()) if a != 1]
    mean = x.mean(axes, keepdim=True)
    var = ((x - mean) ** 2).mean(axes, keepdim=True)
    y = (x - mean) / (var + EPS) ** 0.5
    if weight is not None:
        y = y * weight.view(var.shape)
    if bias is not None:
        y = y + bias.view(var.shape)
    return y, mean.flatten(), var.flatten()


LAYOUTS = {
    "contiguous": lambda x: x,
    "channels last": lambda x: x.movedim(1, -1).contiguous().movedim(-1, 1),
    "every other": lambda x: x.repeat_interleave(2, dim=0)[::2],
    "expanded": lambda x: x[:1].expand_as(x),
}


@pytest.mark.parametrize("g_layout", LAYOUTS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(5, 3), (4, 3, 5), (2, 3, 4, 2)])
def test_it_is_the_definition_and_its_gradient(shape, layout, g_layout):
    x, weight, bias = inputs(*shape)
    x = LAYOUTS[layout](x.detach()).requires_grad_()
    mine, other = apply(x, weight, bias), by_definition(x, weight, bias)
    g = LAYOUTS[g_layout](draw(*shape, seed=3)), draw(3, seed=4), draw(3, seed=5)
    kept = [x.detach().clone(), *(v.clone() for v in g)]
    for count in 1, 2, 3:  # y alone, then with its mean, then with its variance
        leaves = x, weight, bias
        got = torch.autograd.grad(mine[:count], leaves, g[:count], retain_graph=True)
        want = torch.autograd.grad(other[:count], leaves, g[:count], retain_graph=True)
        graph = torch.autograd.grad(mine[:count], leaves, g[:count], create_graph=True)
        for a, b, c in zip(got, want, graph, strict=True):
            close(a, b)
            close(c, b)
    for a, b in zip(mine, other, strict=True):
        close(a, b)
    for now, before in zip([x.detach(), *g], kept, strict=True):
        assert torch.equal(now, before)  # written over nothing that is not its own


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("weight", [True, False])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_each_result_can_be_missing(which, weight, bias):
    leaves = inputs(5, 3, 2, weight=weight, bias=bias)
    learned = [v for v in leaves if v is not None]
    g = draw(*((5, 3, 2) if which == 0 else (3,)), seed=3)
    got, want = (
        torch.autograd.grad(
            f(*leaves)[which], learned, g, allow_unused=True, materialize_grads=True
        )
        for f in (apply, by_definition)
    )
    for a, b in zip(got, want, strict=True):
        close(a, b)


@pytest.mark.parametrize("way", ["definition", "formula"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("weight", [True, False])
@pytest.mark.parametrize("shape", [(5, 3, 2), (32, 3), (20, 3)])
def test_what_a_compiler_gets_is_the_same(shape, weight, bias, way, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    leaves = inputs(*shape, weight=weight, bias=bias)
    learned = [v for v in leaves if v is not None]
    g = draw(*shape, seed=3), draw(3, seed=4), draw(3, seed=5)
    f = {"definition": bn.nn._normalize, "formula": bn.nn._Formula.apply}[way]
    mine, other = f(*leaves, EPS), by_definition(*leaves)
    gradients = (torch.autograd.grad(results, learned, g) for results in (mine, other))
    for a, b in zip((*mine, *next(gradients)), (*other, *next(gradients)), strict=True):
        close(a, b)


def test_a_compiler_is_not_given_what_it_cannot_look_into(monkeypatch):
    assert bn.nn._transform() == BatchNormFunction.apply
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert bn.nn._transform() == bn.nn._Formula.apply
    seen = []
    torch.func.vmap(lambda x: seen.append(bn.nn._transform()) or x)(draw(2, 3))
    assert seen == [bn.nn._normalize]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(10, 3), (7, 3, 4), (1, 3, 40)])
def test_blocks_are_the_same_transform(shape, bias, monkeypatch):
    monkeypatch.setattr(bn.nn, "BLOCK", 24)  # the last block is shorter than the others
    x, weight, bias = inputs(*shape, bias=bias)
    with torch.no_grad():  # no block is like another
        x += 100 * torch.arange(len(x), dtype=D).view(-1, *[1] * (x.dim() - 1)) ** 2
    g = draw(*shape, seed=3)
    learned = [v for v in (x, weight, bias) if v is not None]
    mine, other = apply(x, weight, bias), by_definition(x, weight, bias)
    gradients = (torch.autograd.grad(results[0], learned, g) for results in (mine, other))
    for a, b in zip((*mine, *next(gradients)), (*other, *next(gradients)), strict=True):
        close(a, b, 1e-10)


def test_only_what_is_asked_for_is_computed():
    x, weight, bias = inputs(5, 3)
    y, _, _ = apply(x.detach(), weight, bias.detach())
    y.sum().backward()
    assert weight.grad is not None
    assert x.grad is bias.grad is None


# Every way to differentiate: reverse, forward, one after the other, many at once


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("weight", [True, False])
def test_first_derivatives(weight, bias):
    leaves = inputs(3, 2, 2, weight=weight, bias=bias)
    assert torch.autograd.gradcheck(
        apply, leaves, check_forward_ad=True, check_batched_grad=True,
        check_batched_forward_grad=True,
    )  # fmt: skip


@pytest.mark.parametrize("parameters", [True, False])
def test_second_derivatives(parameters):
    leaves = inputs(4, 2, weight=parameters, bias=parameters)
    assert torch.autograd.gradgradcheck(
        apply, leaves, check_fwd_over_rev=True, check_batched_grad=True
    )


def test_third_derivatives():
    x, weight, _ = inputs(4, 2)
    results = []
    for f in apply, by_definition:
        value = (f(x, weight)[0] ** 3).sum()
        for seed in range(3):
            (g,) = torch.autograd.grad(value, x, create_graph=True)
            value = (g * draw(4, 2, seed=seed + 7)).sum()
        results.append(g)
    close(*results, 1e-8)


def test_hessians_both_ways():
    x, weight, bias = (v.detach() for v in inputs(4, 2))
    hessians = [
        outer(torch.func.jacrev(lambda x: (f(x, weight, bias)[0] ** 3).sum()))(x)
        for f in (apply, by_definition)
        for outer in (torch.func.jacfwd, torch.func.jacrev)
    ]
    for h in hessians[1:]:
        close(h, hessians[0], 1e-9)


def test_many_gradients_at_once():
    x, weight, bias = inputs(4, 2)
    y, _, _ = apply(x, weight, bias)
    gs = draw(3, 4, 2, seed=3)
    one_by_one = [torch.autograd.grad(y, (x, weight, bias), g, retain_graph=True) for g in gs]
    leaves = x, weight, bias
    at_once = torch.autograd.grad(y, leaves, gs, is_grads_batched=True, retain_graph=True)
    by_vmap = torch.func.vmap(lambda g: torch.autograd.grad(y, leaves, g, retain_graph=True))(gs)
    for one, two, *rest in zip(at_once, by_vmap, *one_by_one, strict=True):
        close(one, torch.stack(rest))
        close(two, torch.stack(rest))


IN_DIMS = [(0, 0, 0), (2, 1, 0), (None, 0, 0), (0, None, None), (None, None, 1), (1, 0, None)]


@pytest.mark.parametrize("in_dims", IN_DIMS)
@pytest.mark.parametrize("shape", [(5, 3), (2, 3, 2, 2)])
def test_vmap_is_a_loop(shape, in_dims):
    models = 4
    tensors, slices = [], []
    for seed, (dim, kind) in enumerate(zip(in_dims, (shape, (3,), (3,)), strict=True)):
        many = draw(models, *kind, seed=seed)
        tensors.append(many[0] if dim is None else many.movedim(0, dim))
        slices.append([many[0]] * models if dim is None else list(many))
    got = torch.func.vmap(apply, in_dims)(*tensors)
    want = [torch.stack(r) for r in zip(*(by_definition(*s) for s in zip(*slices)), strict=True)]
    for a, b in zip(got, want, strict=True):
        close(a, b)

    def loss(f):
        return lambda *leaves: (f(*leaves)[0] ** 3).sum()

    got = torch.func.vmap(torch.func.grad(loss(apply), (0, 1, 2)), in_dims)(*tensors)
    want = [torch.func.grad(loss(by_definition), (0, 1, 2))(*s) for s in zip(*slices)]
    for a, b in zip(got, zip(*want, strict=True), strict=True):
        close(a, torch.stack(b))


def test_vmap_without_parameters():
    x = draw(4, 5, 3)
    y, _, _ = torch.func.vmap(apply)(x)
    close(y, torch.stack([by_definition(v)[0] for v in x]))


def test_vmap_in_vmap():
    x, weight = draw(2, 4, 5, 3), draw(2, 3)
    y, _, _ = torch.func.vmap(torch.func.vmap(apply, (0, None)))(x, weight)
    close(y[1, 2], by_definition(x[1, 2], weight[1])[0])


# Memory and digits


def peak(f) -> int:
    """The most bytes that f holds at a time, beyond those held before."""
    with torch.profiler.profile(profile_memory=True) as profile:
        f()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def layers(d, channels):
    return [getattr(m, f"BatchNorm{d}d")(channels) for m in (bn.nn, torch.nn)]


@pytest.mark.parametrize("shape", [(256, 100), (16, 8, 20, 20)])
def test_forward_and_backward_take_no_more_memory_than_torchs(shape):
    used = []
    for layer in layers(max(1, len(shape) - 2), shape[1]):
        x, g = draw(*shape, dtype=torch.float32).requires_grad_(), torch.ones(shape)
        used.append(peak(lambda layer=layer, x=x, g=g: layer(x).backward(g)))
    mine, theirs = used
    assert 2 * x.nbytes <= mine <= theirs  # the result and the gradient must be somewhere
    assert mine < 2.1 * x.nbytes


def test_it_keeps_the_input_and_two_numbers_per_channel():
    x = draw(64, 8, 5, 5, dtype=torch.float32).requires_grad_()
    kept = []
    for layer in layers(2, 8):
        saved = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, saved=saved: saved.setdefault(t.data_ptr(), t), lambda t: t
        ):
            layer(x)
        assert x.data_ptr() in saved
        kept.append(sum(t.nbytes for t in saved.values()) - x.nbytes)
    assert kept[0] == 3 * 8 * 4  # weight, mean, var
    assert kept[0] <= kept[1]


@pytest.mark.parametrize("block", [300, 1 << 20])
@pytest.mark.parametrize("offset", [0, 1e2, 1e4])
@pytest.mark.parametrize("shape", [(1000, 4), (50, 4, 5, 4)])
def test_float32_keeps_its_digits_far_from_zero(shape, offset, block, monkeypatch):
    monkeypatch.setattr(bn.nn, "BLOCK", block)
    x = (offset + draw(*shape)).float().requires_grad_()
    exact = x.detach().double().requires_grad_()
    g = draw(*shape, seed=1)
    for mine, other in zip(apply(x), by_definition(exact), strict=True):
        # one unit in the last place of x, in standard deviations of x; in x's own units for mean
        assert (mine - other).abs().max() < 1e-6 * (10 + offset)
    (mine,) = torch.autograd.grad(apply(x)[0], x, g.float())
    (other,) = torch.autograd.grad(by_definition(exact)[0], exact, g)
    assert (mine - other).abs().max() < 1e-7 * (20 + offset)


@pytest.mark.parametrize("layer_dtype", [torch.float32, None])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gradients_in_half_precision_are_torchs(dtype, layer_dtype):
    results = []
    for module in bn.nn, torch.nn:
        layer = module.BatchNorm2d(3, dtype=layer_dtype or dtype)
        x = draw(4, 3, 5, 5, dtype=dtype).requires_grad_()
        layer(x).backward(draw(4, 3, 5, 5, seed=1, dtype=dtype))
        results.append((x.grad, layer.weight.grad, layer.bias.grad))
    for mine, theirs in zip(*results, strict=True):
        assert mine.dtype == theirs.dtype
        eps = torch.finfo(theirs.dtype).eps
        torch.testing.assert_close(mine, theirs, rtol=4 * eps, atol=8 * eps)
