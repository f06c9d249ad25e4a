"""What works on a model's batch norm layers: convert, freeze, precise_statistics, fold."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

import bn.nn  # noqa: E402
from bn.nn import convert, fold, fold_pair, freeze, precise_statistics, unfreeze  # noqa: E402

nn = torch.nn


def random_(model, seed=0):
    """The model in float64 with random parameters and statistics."""
    generator = torch.Generator().manual_seed(seed)
    model.double()
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
            if name.endswith("running_var"):
                tensor.abs_().add_(0.1)
    return model


def draw(*shape, seed=1):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def close(a, b, tolerance=1e-11):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


# convert


@pytest.mark.parametrize("d", [1, 2, 3])
def test_convert_there_and_back_keeps_everything_but_the_class(d):
    theirs = getattr(nn, f"BatchNorm{d}d")
    ours = getattr(bn.nn, f"BatchNorm{d}d")
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[d - 1]
    model = random_(nn.Sequential(conv(2, 3, 2), nn.Sequential(theirs(3)), nn.ReLU())).eval()
    norm = model[1][0]
    parts = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    calls = []
    norm.register_forward_hook(lambda *_: calls.append(1))
    x = draw(2, 2, *[4] * d)
    expected = model(x)
    assert convert(model) is model
    assert type(norm) is ours
    assert model[1][0] is norm
    for name, tensor in {**dict(model.named_parameters()), **dict(model.named_buffers())}.items():
        assert tensor is parts[name]
    assert not norm.training
    close(model(x), expected)
    assert len(calls) == 2
    assert convert(model, "torch") is model
    assert type(norm) is theirs
    close(model(x), expected)
    assert len(calls) == 3


def test_convert_goes_by_the_exact_class():
    class Mine(nn.BatchNorm1d):
        pass

    model = nn.Sequential(Mine(3), nn.SyncBatchNorm(3), nn.LazyBatchNorm1d())
    before = [type(layer) for layer in model]
    assert [type(layer) for layer in convert(model)] == before
    layer = nn.BatchNorm2d(3)
    assert type(convert(layer)) is bn.nn.BatchNorm2d  # a layer alone
    assert type(convert(layer)) is bn.nn.BatchNorm2d  # and a second time


def test_convert_says_what_to_can_be():
    with pytest.raises(ValueError, match="'bn' or 'torch', got 'jax'"):
        convert(nn.BatchNorm1d(3), "jax")


# freeze


@pytest.mark.parametrize("source", [bn.nn, nn])
def test_a_frozen_layer_stays_what_it_is(source):
    model = random_(nn.Sequential(nn.Linear(2, 3), source.BatchNorm1d(3)))
    assert freeze(model) is model
    before = copy.deepcopy(model[1].state_dict())
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    x = draw(4, 2)
    for _ in range(2):
        model.train()
        assert model[0].training
        assert not model[1].training
        y = model(x)
        close(y[:1], model(x[:1]))  # no example depends on any other
        y.square().sum().backward()
        optimiser.step()
    for name, tensor in model[1].state_dict().items():
        assert torch.equal(tensor, before[name])
    assert not torch.equal(model[0].weight.grad, torch.zeros(3, 2))


@pytest.mark.parametrize("source", [bn.nn, nn])
def test_unfreeze_gives_back_what_learned_before(source):
    layer = source.BatchNorm1d(3)
    layer.bias.requires_grad_(False)
    freeze(freeze(layer))  # a second time changes nothing
    assert unfreeze(layer) is layer
    assert not layer.training
    assert layer.train().training
    assert (layer.weight.requires_grad, layer.bias.requires_grad) == (True, False)
    assert list(vars(unfreeze(layer))) == list(vars(source.BatchNorm1d(3)))


@pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_of_a_frozen_model_are_frozen_by_themselves(again):
    model = freeze(nn.Sequential(bn.nn.BatchNorm1d(3)))
    other = again(model)
    assert not other.train()[0].training
    assert unfreeze(other).train()[0].training
    assert other[0].weight.requires_grad
    assert not model.train()[0].training


def test_freeze_refuses_a_layer_without_statistics_and_freezes_none():
    model = nn.Sequential(
        bn.nn.BatchNorm1d(3), nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False))
    )
    with pytest.raises(ValueError, match=r"layer '1\.0' has no running statistics"):
        freeze(model)
    assert model.train()[0].training


def test_a_frozen_layer_can_be_converted():
    model = convert(freeze(nn.Sequential(nn.BatchNorm1d(3))))
    assert not model.train()[0].training
    assert unfreeze(model).train()[0].training


# precise_statistics


@pytest.mark.parametrize("source", [bn.nn, nn])
@pytest.mark.parametrize("sizes", [(10,), (3, 7), (2, 2, 6), (5, 0, 5)])
def test_precise_statistics_are_those_of_all_the_data(sizes, source):
    layer = source.BatchNorm1d(3).double()
    x = 100 + draw(10, 3, 4)
    precise_statistics(layer, x.split(sizes))
    close(layer.running_mean, x.mean((0, 2)))
    close(layer.running_var, x.var((0, 2), correction=0))


def test_precise_statistics_change_nothing_else():
    model = nn.Sequential(
        nn.Linear(2, 3), bn.nn.BatchNorm1d(3), nn.Dropout(0.5), nn.BatchNorm1d(3),
        freeze(bn.nn.BatchNorm1d(3)), bn.nn.BatchNorm1d(3, track_running_stats=False),
    ).double()  # fmt: skip
    model[0].eval()
    modes = [m.training for m in model.modules()]
    before = copy.deepcopy(model.state_dict())
    x = draw(8, 2)
    precise_statistics(model, [x])
    assert [m.training for m in model.modules()] == modes
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {f"{i}.running_{what}" for i in (1, 3) for what in ("mean", "var")}
    h = model[0](x)
    h = (h - h.mean(0)) / (h.var(0, correction=0) + 1e-5).sqrt()  # no dropout on the way
    close(model[3].running_var, h.var(0, correction=0))
    assert model[1].track_running_stats
    assert not model[5].track_running_stats
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_a_layer_used_twice_sees_both():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.unused = bn.nn.BatchNorm1d(1).double(), bn.nn.BatchNorm1d(1)

        def forward(self, x):
            self.norm(x)
            return self.norm(3 * x)

    model = Twice()
    x = draw(6, 1)
    precise_statistics(model, [x])
    close(model.norm.running_var, torch.cat([x, 3 * x]).var(0, correction=0))
    assert model.unused.running_var == 1


def test_precise_statistics_keep_their_digits_far_from_zero():
    layer = bn.nn.BatchNorm1d(1)
    x = 1e4 + torch.randn(1000, 1, generator=torch.Generator().manual_seed(0))
    precise_statistics(layer, x.split(100))
    close(layer.running_var.double(), x.double().var(0, correction=0), 1e-5)


def test_a_failure_leaves_the_model_as_it_was():
    layer = bn.nn.BatchNorm1d(3)
    model = nn.Sequential(layer)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError, match="4 elements not 3"):
        precise_statistics(model, [torch.randn(5, 3), torch.randn(5, 4)])
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert layer.training
    assert layer.track_running_stats
    assert not layer._forward_pre_hooks


def test_precise_statistics_say_what_is_missing():
    with pytest.raises(ValueError, match="no batches"):
        precise_statistics(bn.nn.BatchNorm1d(3), [])
    with pytest.raises(ValueError, match="Linear has no batch norm"):
        precise_statistics(nn.Linear(2, 3), [torch.ones(2, 2)])
    with pytest.raises(ValueError, match="not frozen"):
        precise_statistics(freeze(bn.nn.BatchNorm1d(3)), [torch.ones(2, 3)])


# fold

CONVOLUTIONS = [
    (f"{'ConvTranspose' if transposed else 'Conv'}{d}d", d, groups, bias)
    for transposed in (False, True)
    for d in (1, 2, 3)
    for groups in (1, 2, 4)
    for bias in (True, False)
]


@pytest.mark.parametrize(("name", "d", "groups", "bias"), CONVOLUTIONS)
def test_folding_a_convolution_is_exact(name, d, groups, bias):
    options = {"stride": 2, "padding": 1, "groups": groups, "bias": bias}
    layer = random_(getattr(nn, name)(4, 8, 3, **options))
    norm = random_(getattr(bn.nn, f"BatchNorm{d}d")(8), seed=2).eval()
    x = draw(2, 4, *[5] * d)
    expected = norm(layer(x))
    before = copy.deepcopy([layer.state_dict(), norm.state_dict()])
    close(fold_pair(layer, norm)(x), expected)
    for module, state in zip((layer, norm), before, strict=True):
        for key, tensor in module.state_dict().items():
            assert torch.equal(tensor, state[key])


@pytest.mark.parametrize("source", [bn.nn, nn])
@pytest.mark.parametrize("options", [{}, {"affine": False}, {"eps": 0.5}, {"momentum": None}])
@pytest.mark.parametrize("bias", [True, False])
def test_folding_a_linear_is_exact(source, options, bias):
    layer = random_(nn.Linear(4, 3, bias=bias))
    norm = random_(source.BatchNorm1d(3, **options), seed=2).eval()
    x = draw(5, 4)
    close(fold_pair(layer, norm)(x), norm(layer(x)))


def test_fold_finds_the_pairs():
    model = random_(
        nn.Sequential(
            bn.nn.BatchNorm2d(1),  # nothing in front
            nn.Sequential(nn.Conv2d(1, 4, 3), nn.Sequential(nn.BatchNorm2d(4)), nn.ReLU()),
            bn.nn.BatchNorm2d(4),  # behind a ReLU
            nn.ConvTranspose2d(4, 2, 3, groups=2),
            bn.nn.BatchNorm2d(2),
            nn.Dropout(),
            nn.Flatten(),
            nn.Linear(72, 3),
            nn.BatchNorm1d(3),
        )
    )
    state = copy.deepcopy(model.state_dict())
    folded = fold(model)
    kinds = [type(m).__name__ for m in folded.modules() if not list(m.children())]
    assert kinds == [
        "BatchNorm2d",
        "Conv2d",
        "Identity",
        "ReLU",
        "BatchNorm2d",
        "ConvTranspose2d",
        "Identity",
        "Dropout",
        "Flatten",
        "Linear",
        "Identity",
    ]
    assert model.training
    assert not folded.training
    assert list(model.state_dict()) == list(state)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name])
    x = draw(3, 1, 6, 6)
    close(folded(x), model.eval()(x))


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_fold_never_changes_what_a_model_computes(data):
    shared = [nn.ReLU(), nn.Conv2d(2, 2, 1), bn.nn.BatchNorm2d(2)]

    def hooked():
        layer = nn.Conv2d(2, 2, 1)
        layer.register_forward_hook(lambda module, args, y: y + 1)
        return layer

    kinds = {
        "conv": lambda: nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"),
        "grouped": lambda: nn.ConvTranspose2d(2, 2, 1, groups=2),
        "norm": lambda: bn.nn.BatchNorm2d(2, eps=0.1),
        "torch's norm": lambda: nn.BatchNorm2d(2, affine=False),
        "shared": lambda: data.draw(st.sampled_from(shared)),
        "hooked": hooked,
    }
    leaf = st.sampled_from(sorted(kinds)).map(lambda kind: kinds[kind]())
    tree = st.recursive(
        leaf,
        lambda inner: st.lists(inner, min_size=1, max_size=4).map(lambda m: nn.Sequential(*m)),
        max_leaves=8,
    )
    model = random_(nn.Sequential(*data.draw(st.lists(tree, min_size=1, max_size=4)))).eval()
    x = draw(2, 2, 3, 3)
    want = model(x).detach()
    size = 1 + want.abs().max()
    close(fold(model)(x).detach() / size, want / size, 1e-10)


def test_fold_leaves_what_it_cannot_fold():
    relu = nn.ReLU()
    conv, norm = nn.Conv2d(2, 2, 1), bn.nn.BatchNorm2d(2)
    hooked = nn.Sequential(nn.Conv2d(2, 2, 1))
    hooked.register_forward_hook(lambda module, args, y: 2 * y)
    watched = nn.Conv2d(2, 2, 1)
    watched.register_forward_hook(lambda module, args, y: 2 * y)
    early = bn.nn.BatchNorm2d(2)
    early.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    model = random_(
        nn.Sequential(
            relu, nn.Conv2d(2, 2, 1), relu, bn.nn.BatchNorm2d(2),  # a ReLU between, used twice
            conv, bn.nn.BatchNorm2d(2), conv,  # a convolution used twice
            nn.Conv2d(2, 2, 1), norm, relu, norm,  # a norm used twice
            hooked, bn.nn.BatchNorm2d(2),
            watched, bn.nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1), early,
            torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 2, 1)), bn.nn.BatchNorm2d(2),
            nn.Conv2d(2, 2, 1), bn.nn.BatchNorm2d(2, track_running_stats=False),
        )
    )  # fmt: skip
    folded = fold(model)
    assert not any(isinstance(m, nn.Identity) for m in folded.modules())
    x = draw(2, 2, 3, 3)
    close(folded(x), model.eval()(x))


def test_fold_goes_into_modules_of_any_kind():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(2, 2, 1), bn.nn.BatchNorm2d(2))
            self.conv, self.norm = nn.Conv2d(2, 2, 1), bn.nn.BatchNorm2d(2)

        def forward(self, x):
            return x + self.body(x) - self.conv(self.norm(x))

    model = random_(nn.Sequential(nn.Conv2d(2, 2, 1), Block(), bn.nn.BatchNorm2d(2)))
    folded = fold(model)
    assert isinstance(folded[1].body[1], nn.Identity)
    assert isinstance(folded[1].norm, bn.nn.BatchNorm2d)
    x = draw(2, 2, 3, 3)
    close(folded(x), model.eval()(x))
    assert type(fold(bn.nn.BatchNorm1d(2))) is bn.nn.BatchNorm1d


def test_folding_keeps_whether_it_learns_and_the_dtype():
    layer = nn.Linear(2, 2, bias=False).bfloat16().requires_grad_(False)
    folded = fold_pair(layer, bn.nn.BatchNorm1d(2))
    assert folded.weight.dtype == folded.bias.dtype == torch.bfloat16
    assert not folded.weight.requires_grad
    assert fold_pair(nn.Linear(2, 2), bn.nn.BatchNorm1d(2)).bias.requires_grad
    assert not folded.training


def test_fold_pair_says_what_does_not_fit():
    norm = bn.nn.BatchNorm1d(3)
    with pytest.raises(TypeError, match="ConvTranspose3d, got ReLU"):
        fold_pair(nn.ReLU(), norm)
    with pytest.raises(TypeError, match="got LayerNorm"):
        fold_pair(nn.Linear(2, 3), nn.LayerNorm(3))
    with pytest.raises(ValueError, match="no running statistics"):
        fold_pair(nn.Linear(2, 3), bn.nn.BatchNorm1d(3, track_running_stats=False))
    with pytest.raises(ValueError, match="4 output channels, the norm 3"):
        fold_pair(nn.Linear(2, 4), norm)
    with pytest.raises(ValueError, match="6 output channels, the norm 3"):
        fold_pair(nn.ConvTranspose1d(2, 6, 1, groups=2), norm)
