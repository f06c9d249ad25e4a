"""Chapter layer/convolution: its propositions on any array, its record against MNIST itself."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from chapters import Chapter
from hypothesis import given, settings
from hypothesis import strategies as st

import bn
from benchmarks import effective_batch

NOTEBOOK = Chapter("layer/convolution")
RECORD = json.loads((bn.results.FOLDER / "effective_batch.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def chapter():
    return NOTEBOOK.run("setup", "feature-code", "shift-code", "shift-padding", "axes-code", "worth-code",
               "layout-rounding", "layout-test")  # fmt: skip


seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=40, deadline=None)


# ------------------------------------------------------------------------ what commutes


@few
@given(seeds, st.sampled_from([1e-5, 1e-3, 0.5]))
def test_batch_norm_commutes_with_any_rearrangement_of_each_image(seed, eps):
    rng = np.random.default_rng(seed)
    n, c, h, w = rng.integers(2, 6, size=4)
    x = rng.normal(size=(n, c, h * w)) * np.exp(rng.normal(size=(c, 1)))
    order = [rng.permutation(h * w) for _ in range(n)]  # each image its own, all channels alike

    def rearrange(x):
        flat = x.reshape(n, c, h * w)
        return np.stack([image[:, o] for image, o in zip(flat, order, strict=True)]).reshape(
            x.shape
        )

    x = x.reshape(n, c, h, w)
    gamma, beta = rng.normal(size=(2, c))
    statistics = bn.moments(rng.normal(size=(7, c)))
    for f in (
        lambda x: bn.batch_norm(x, gamma, beta, axis=(0, 2, 3), eps=eps)[0],
        lambda x: bn.batch_norm_inference(x, gamma, beta, *statistics, axis=(0, 2, 3), eps=eps),
    ):
        np.testing.assert_allclose(f(rearrange(x)), rearrange(f(x)), rtol=1e-9, atol=1e-12)


def test_a_norm_per_position_breaks_in_three_of_four_cases(chapter):
    for (kind, case), error in chapter["broken"].items():
        if kind == "channel" or case == "all images shifted":
            assert error < 1e-12, (kind, case)
        else:
            assert error > 1, (kind, case)


def test_zero_padding_breaks_the_border_and_training_carries_it_inwards(chapter):
    off = chapter["off"]
    for name in ("convolution", "+ batch norm", "+ stored"):
        assert off["wrap", name].max() < 1e-12
        assert off["constant", name][[0, 1, 7]].min() > 0.5  # the border
    assert off["constant", "convolution"][2:7].max() < 1e-12
    assert off["constant", "+ stored"][2:7].max() < 1e-12
    assert off["constant", "+ batch norm"][2:7].min() > 0.04


@pytest.mark.parametrize(("pad", "mode"), [("constant", "zeros"), ("wrap", "circular")])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_the_chapters_convolution_is_torchs(chapter, pad, mode, k):
    rng = np.random.default_rng(k)
    x, w = rng.normal(size=(3, 2, 7, 6)), rng.normal(size=(4, 2, k, k))
    conv = torch.nn.Conv2d(2, 4, k, padding=k // 2, padding_mode=mode, bias=False)
    conv.weight.data = torch.tensor(w)
    want = conv(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(chapter["convolve"](x, w, pad), want, atol=1e-12)


# ---------------------------------------------------------------------------- the worth


def populations(seed):
    """Images whose pixels agree, or balance each other, or neither, to any degree."""
    rng = np.random.default_rng(seed)
    m, c, h, w = rng.integers(2, 8), 2, *rng.integers(2, 5, size=2)
    x = rng.normal(size=(m, c, h, w)) + rng.normal(size=(c, h, w))
    own = rng.uniform(-1.2, 2, size=(c, 1, 1))  # −1 takes an image's mean away, +… adds to it
    return rng, x + own * x.mean(axis=(2, 3), keepdims=True)


@few
@given(seeds)
def test_the_worth_is_the_formula_with_the_mean_correlation(chapter, seed):
    _, x = populations(seed)
    pixels = x.shape[2] * x.shape[3]
    rho = chapter["mean_correlation"](x)
    np.testing.assert_allclose(
        1 / chapter["worth"](x), (1 + (pixels - 1) * rho) / pixels, rtol=1e-7, atol=1e-12
    )


@few
@given(seeds, st.integers(2, 3))
def test_mean_and_variance_over_all_batches_there_are(chapter, seed, size):
    """Every batch of `size` images, drawn with replacement, counted once: no chance is left."""
    _, x = populations(seed)
    x = x[:5]
    worth = chapter["worth"](x)
    means, variances = zip(
        *(bn.moments(x[list(batch)], axis=(0, 2, 3))
          for batch in itertools.product(range(len(x)), repeat=size)),
        strict=True,
    )  # fmt: skip
    var = x.var(axis=(0, 2, 3))
    np.testing.assert_allclose(np.var(means, axis=0), var / (size * worth), rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(
        np.mean(variances, axis=0), var * (1 - 1 / (size * worth)), rtol=1e-7, atol=1e-12
    )


def test_the_worth_at_its_extremes(chapter):
    rng = np.random.default_rng(0)
    worth = chapter["worth"]
    assert worth(np.broadcast_to(rng.normal(size=(50, 1, 1, 1)), (50, 1, 4, 5))) == pytest.approx(1)
    independent = rng.normal(size=(20_000, 1, 4, 5))
    assert worth(independent) == pytest.approx(20, rel=0.05)
    balanced = rng.normal(size=(50, 1, 4, 5))
    balanced -= balanced.mean(axis=(2, 3), keepdims=True)
    assert worth(balanced) > 1e20
    assert chapter["mean_correlation"](balanced) == pytest.approx(-1 / 19)


@few
@given(seeds, st.integers(1, 4))
def test_repeating_pixels_changes_nothing(chapter, seed, times):
    _, x = populations(seed)
    zoomed = np.kron(x, np.ones((1, 1, times, times)))
    np.testing.assert_allclose(1 / chapter["worth"](zoomed), 1 / chapter["worth"](x), atol=1e-12)


# --------------------------------------------------------------------------- the record


def test_the_record_is_whole():
    config, rows = RECORD["config"], RECORD["rows"]
    assert (config["batch"], config["small"], config["batches"]) == (
        effective_batch.BATCH, effective_batch.SMALL, effective_batch.BATCHES
    )  # fmt: skip
    expected = [("pixels", 0, 0)] + [
        (layer, seed, epochs)
        for seed in effective_batch.SEEDS
        for epochs in (0, 1)
        for layer in effective_batch.LAYERS
    ]
    assert [(r["layer"], r["seed"], r["epochs"]) for r in rows] == expected
    for row in rows:
        assert {len(v) for v in row.values() if isinstance(v, list)} == {
            {"pixels": 1, "conv1": 6, "pool1": 6, "conv2": 16}[row["layer"]]
        }


@pytest.mark.mnist
def test_mnist_gives_what_was_recorded():
    mnist = bn.data.mnist()
    assert RECORD["data"] == {"name": "mnist", "sha256": bn.data.digest(mnist)}
    torch.manual_seed(0)
    model = bn.models.lenet(batch_norm=False).eval()
    found = effective_batch.population(model[: effective_batch.LAYERS["pool1"]], mnist.x_train)
    (row,) = (r for r in RECORD["rows"] if (r["layer"], r["seed"], r["epochs"]) == ("pool1", 0, 0))
    for name, values in effective_batch.describe(found, 0).items():
        np.testing.assert_allclose(values, row[name], rtol=1e-3, err_msg=name)


@pytest.mark.mnist
def test_the_chapters_own_function_finds_the_same_on_mnist(chapter):
    x = bn.data.mnist().x_train
    pixels, conv1 = RECORD["rows"][:2]
    assert (pixels["layer"], conv1["layer"], conv1["seed"]) == ("pixels", "conv1", 0)
    found = chapter["worth"](x.astype(float))
    assert found == pytest.approx(pixels["var"][0] / pixels["var_of_image_mean"][0], rel=1e-4)

    torch.manual_seed(0)
    conv = bn.models.lenet(batch_norm=False).conv1
    channel = 1
    with torch.no_grad():
        features = torch.cat([
            torch.nn.functional.conv2d(chunk, conv.weight[channel : channel + 1], padding=2)
            for chunk in torch.tensor(x).split(200)
        ]).double().numpy()  # fmt: skip
    recorded = conv1["var"][channel] / conv1["var_of_image_mean"][channel]
    assert chapter["worth"](features) == pytest.approx(recorded, rel=1e-3)


# --------------------------------------------------------------------------- the layouts


def test_the_order_of_the_additions_moves_the_last_digits(chapter):
    error = {k: abs(v / chapter["exact"] - 1) for k, v in chapter["sums"].items()}
    assert len(set(chapter["sums"].values())) == 3
    assert max(error.values()) < 1e-4
    assert min(error, key=error.get) == "a total for each image"


def test_float64_tells_rounding_from_a_bug(chapter):
    for dtype in (torch.float32, torch.float64):
        assert chapter["layouts_differ"](chapter["Swaps"], dtype) > 1
    assert chapter["layouts_differ"](torch.nn.BatchNorm2d, torch.float64) < 1e-13


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_package_gives_one_result_in_both_layouts(dtype):
    rng = np.random.default_rng(0)
    first = (3 + rng.normal(size=(16, 8, 7, 5))).astype(dtype)
    last = np.ascontiguousarray(first.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert first.strides != last.strides
    gamma, beta = rng.normal(size=(2, 8))
    a, b = (bn.batch_norm(x, gamma, beta, axis=(0, 2, 3))[0] for x in (first, last))
    np.testing.assert_allclose(a, b, atol=4 * np.finfo(dtype).eps * np.abs(a).max(), rtol=0)
