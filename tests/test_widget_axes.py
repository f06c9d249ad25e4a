"""The figure of the axes: its sets against the gradients of torch's layers, and the reader's moves."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import traitlets
from widget_harness import evaluate, mount, page, widget_browser  # noqa: F401

from bn.widgets import Axes
from bn.widgets.axes import NORMS


@pytest.fixture
def axes(page):  # noqa: F811
    return mount(page, Axes())


# ------------------------------------------------------------------------------ the numbers


def states():
    rng = np.random.default_rng(0)
    for norm in NORMS:
        for _ in range(8):
            shape = [int(rng.integers(1, k)) for k in (5, 9, 4, 5)]
            C = shape[1]
            groups = int(rng.choice([g for g in range(1, C + 1) if C % g == 0]))
            yield shape, norm, groups, [int(rng.integers(k)) for k in shape]
        yield [4, 6, 3, 4], norm, 2, [1, 2, 1, 1]  # the figure as it opens
        yield [2, 8, 2, 3], norm, 8, [1, 7, 1, 2]


STATES = list(states())


def layer(norm, shape, groups):
    _, C, H, W = shape
    make = {  # with an eps so large that even of two values each moves the other's output
        "batch": lambda: torch.nn.BatchNorm2d(C, eps=0.5),
        "layer": lambda: torch.nn.LayerNorm([C, H, W], eps=0.5),
        "instance": lambda: torch.nn.InstanceNorm2d(C, affine=True, eps=0.5),
        "group": lambda: torch.nn.GroupNorm(groups, C, eps=0.5),
    }
    return make[norm]().double()


def widget(shape, norm, groups, at):
    return Axes(norm=norm, groups=groups, at=at, **dict(zip("NCHW", shape, strict=True)))


@pytest.mark.parametrize("state", [s for s in STATES if widget(*s).m > 1], ids=str)
def test_python_lights_what_torch_depends_on(state):
    """The output at `at` has a gradient by what shares its mean; its γ moves what shares its γ."""
    shape, norm, groups, at = state
    axes = widget(*state)
    torch.manual_seed(0)
    net = layer(norm, shape, groups)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    y = net(x)
    dx, dgamma = torch.autograd.grad(y[tuple(at)], [x, net.weight])
    np.testing.assert_array_equal(axes.statistics, dx.numpy() != 0)
    assert dgamma.count_nonzero() == 1
    with torch.no_grad():
        net.weight += dgamma != 0
        np.testing.assert_array_equal(axes.parameters, (net(x) != y).numpy())
    assert axes.gammas == net.weight.numel() == net.bias.numel()
    assert axes.means * axes.m == y.numel()


def test_javascript_lights_what_python_lights(page):  # noqa: F811
    for case, got in zip(STATES, evaluate(page, "axes_maths", "sharing", STATES), strict=True):
        axes = widget(*case)
        assert got["statistics"] == np.flatnonzero(axes.statistics).tolist(), case
        assert got["parameters"] == np.flatnonzero(axes.parameters).tolist(), case
        assert (got["m"], got["means"], got["gammas"]) == (axes.m, axes.means, axes.gammas), case


def test_the_sets_of_the_statistics_part_the_array():
    """Whichever value is chosen, its set is the same from each of its members, and none is in two."""
    for norm in NORMS:
        axes = Axes(norm=norm, N=2, C=4, H=2, W=3, groups=2, at=[0, 0, 0, 0])
        found = set()
        for at in itertools.product(*map(range, axes.shape)):
            axes.at = list(at)
            assert axes.statistics[at]
            assert axes.parameters[at]
            found.add(axes.statistics.tobytes())
        assert len(found) == axes.means


def test_a_step_stays_on_the_sheet_and_crosses_from_tile_to_tile(page):  # noqa: F811
    shape = [2, 3, 2, 4]
    N, C, H, W = shape
    cases = [
        (shape, [n, c, h, w], key, tile)
        for n, c, h, w in itertools.product(*map(range, shape))
        for key in ("ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight")
        for tile in (False, True)
    ]
    for (_, (n, c, h, w), key, tile), got in zip(
        cases, evaluate(page, "axes_maths", "step", cases), strict=True
    ):
        y, x = n * H + h, c * W + w  # on the sheet
        far = {"ArrowUp": (-H, 0), "ArrowDown": (H, 0), "ArrowLeft": (0, -W), "ArrowRight": (0, W)}
        dy, dx = far[key] if tile else np.sign(far[key])
        y, x = np.clip(y + dy, 0, N * H - 1), np.clip(x + dx, 0, C * W - 1)
        assert got == [y // H, x // W, y % H, x % W]


def test_a_new_shape_takes_the_nearest_choice(page):  # noqa: F811
    cases, widgets = [], []
    for _, norm, groups, at in STATES:
        for shape in ([1, 1, 1, 1], [2, 3, 1, 4], [3, 8, 2, 2], [8, 6, 6, 1]):
            C = next(c for c in range(8, 0, -1) if c % groups == 0)
            axes = Axes(norm=norm, N=8, C=C, H=6, W=6, groups=groups, at=at)
            axes.N, axes.C, axes.H, axes.W = shape
            widgets.append(axes)
            cases.append((shape, groups, at))
    for axes, got in zip(widgets, evaluate(page, "axes_maths", "fit", cases), strict=True):
        assert got == {"groups": axes.groups, "at": axes.at}
        assert axes.C % axes.groups == 0


# ------------------------------------------------------------------------------- the reader


def test_arrow_keys_move_the_value_and_the_words_follow(axes):
    before = axes.description()
    axes.press("Chosen value", "ArrowRight", times=3)
    assert axes.get("at") == [1, 3, 1, 0]
    assert "x[1, 3, 1, 0]" in axes.description() != before
    cursor = axes.root.get_by_label("Chosen value", exact=True)
    assert (
        cursor.get_attribute("aria-valuetext")
        == "x[1, 3, 1, 0]: example 1, channel 3, row 1, column 0"
    )
    assert cursor.get_attribute("aria-valuenow") == str(((1 * 6 + 3) * 3 + 1) * 4)
    axes.press("Chosen value", "Shift+ArrowDown")
    assert axes.get("at") == [2, 3, 1, 0]
    axes.press("Chosen value", "Home")
    axes.press("Chosen value", "ArrowUp")
    assert axes.get("at") == [0, 0, 0, 0]
    axes.press("Chosen value", "End")
    assert axes.get("at") == [3, 5, 2, 3]
    assert cursor.evaluate("e => e === document.activeElement")


@pytest.mark.parametrize("at", [[0, 0, 0, 0], [2, 3, 1, 1], [1, 4, 2, 3], [3, 5, 2, 3]])
def test_a_tap_chooses_the_value_under_it(axes, at):
    axes.set(norm="group", at=at)
    box = axes.root.locator(".bn-chosen").bounding_box()
    axes.set(at=[3, 1, 1, 2])
    axes.page.mouse.click(box["x"] + box["width"] / 2 + 2, box["y"] + box["height"] / 2 - 2)
    axes.settle()
    assert axes.get("at") == at


@pytest.mark.parametrize("norm", NORMS)
def test_what_is_drawn_lit_is_what_is_counted(axes, norm):
    axes.set(norm=norm)
    python = Axes(norm=norm)
    for show in ("statistics", "parameters"):
        axes.set(show=show)
        drawn = axes.root.locator("path.bn-bar.bn-with").nth(0).get_attribute("d").count("M")
        assert drawn == getattr(python, show).sum()
    status = axes.root.locator(".bn-status").inner_text()
    assert f"{python.means} means" in status
    assert f"m = {python.m} values" in status
    assert f"{python.gammas} γ" in status


def test_only_groups_that_divide_are_offered(axes):
    axes.set(norm="group")
    group = axes.root.get_by_role("group", name="Groups")

    def offered():
        radios = group.get_by_role("radio").all()  # those that can be seen
        return [r.evaluate("e => e.labels[0].textContent") for r in radios]

    assert offered() == ["1", "2", "3", "6"]
    axes.set(groups=6, C=8)
    assert axes.get("groups") == 4
    assert offered() == ["1", "2", "4", "8"]
    axes.set(norm="batch")
    assert not group.is_visible()


def test_it_says_where_two_norms_agree(axes):
    says = axes.root.locator(".bn-status")
    axes.set(norm="group", groups=1)
    assert "layer norm" in says.inner_text()
    axes.set(groups=6)
    assert "instance norm" in says.inner_text()
    axes.set(norm="batch", N=1)
    assert "instance norm" in says.inner_text()
    axes.set(norm="instance", H=1, W=1)
    assert "nothing is left to normalise" in says.inner_text()


@pytest.mark.parametrize("width", [320, 390])
def test_fits_a_phone(page, width):  # noqa: F811
    shown = mount(page, Axes(N=8, C=8, H=6, W=6, norm="group"), width=width)
    assert shown.overflow() <= 0


def test_nothing_outlives_the_widget(axes):
    axes.set(norm="group", C=4)
    assert axes.leftovers() == []


# ------------------------------------------------------------------------------- the class


def test_numbers_and_repr():
    axes = Axes(norm="group", groups=3)
    assert repr(axes) == "Axes(norm='group', N=4, C=6, H=3, W=4, groups=3, at=[1, 2, 1, 1])"
    assert (axes.m, axes.means, axes.gammas) == (24, 12, 6)


def test_a_smaller_shape_moves_the_value_inside():
    axes = Axes()
    axes.C = 2
    assert axes.at == [1, 1, 1, 1]
    axes.C = 1
    assert (axes.at, axes.groups) == ([1, 0, 1, 1], 1)
    assert Axes(C=3).groups == 1  # the default of two does not divide


@pytest.mark.parametrize(
    "bad",
    [{"norm": "weight"}, {"N": 0}, {"C": 9}, {"W": 7}, {"groups": 4}, {"at": [4, 0, 0, 0]},
     {"at": [0, 0, 0]}, {"at": [0, 0, 0, -1]}, {"show": "gamma"}],
)  # fmt: skip
def test_bad_values_are_refused(bad):
    with pytest.raises(traitlets.TraitError):
        Axes(**bad)


@pytest.mark.parametrize("norm", NORMS)
def test_every_state_has_a_picture_and_a_sentence(norm):
    axes = Axes(norm=norm, N=1, C=1, H=1, W=1, show="parameters")
    assert axes.poster().startswith("<svg")
    assert "gamma" in axes.alt()
