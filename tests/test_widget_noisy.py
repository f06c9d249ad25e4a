"""The figure of noisy batch norm: its numbers against Python's, and what a reader does with it."""

from __future__ import annotations

import numpy as np
import pytest
import traitlets
from widget_harness import evaluate, mount, page, widget_browser  # noqa: F401

from bn.widgets import Noisy
from bn.widgets.noisy import NETWORKS, STRENGTHS, final_loss, reach


def record(seeds=(0, 1, 2), windows=24) -> dict:
    """A record of the right form: the loss grows with the noise, and so does the distance moved."""
    rng = np.random.default_rng(0)

    def unit(network, batch_norm, strength, seed):
        level = (1.0 if batch_norm else 3.0) + strength / 10 + (network == "relu")
        move = strength / 3 + (0.02 if batch_norm else 0.01)
        row = {
            "epoch": 1,
            "loss": (level / np.arange(1, windows + 1) * rng.uniform(0.9, 1.1, windows)).tolist(),
            "moved": [move, 2 * move],
            "shift": [move / 2, move],
        }
        if seed == seeds[0]:
            row["traces"] = {
                name: (level * np.sort(rng.normal(size=(25, 5)), axis=1)).tolist()
                for name in ("steps", "run")
            }
        return {
            "params": {"network": network, "lr": 0.5, "batch_norm": batch_norm,
                       "strength": strength, "steady": False},
            "seed": seed,
            "epochs": [row],
        }  # fmt: skip

    return {
        "experiment": "noisy_batch_norm",
        "config": {"window": 50, "drawn": [seeds[0]],
                   "traces": {"steps": [600, 625], "run": [0, 1200, 48]}},
        "seeds": list(seeds),
        "units": [
            unit(network, batch_norm, strength, seed)
            for network in NETWORKS
            for batch_norm, strength in ((False, 0), *((True, k) for k in STRENGTHS))
            for seed in seeds
        ],
    }  # fmt: skip


@pytest.fixture
def shown(page):  # noqa: F811
    return mount(page, Noisy(record()))


def status(shown):
    return shown.root.locator(".bn-status").inner_text()


def test_the_numbers_are_the_same_in_both_languages(page):  # noqa: F811
    rng = np.random.default_rng(1)
    curves = [rng.random((n, 9)).tolist() for n in (1, 4)]
    cases = [[c, k] for c in curves for k in (1, 4, 9)]
    for case, got in zip(cases, evaluate(page, "noisy_maths", "finalLoss", cases), strict=True):
        assert got == pytest.approx(final_loss(*case), rel=1e-9)
    traces = [np.sort(rng.normal(size=(7, 5)) * s, axis=1).tolist() for s in (1, 0.01, 30)]
    cases = [[traces, common] for common in (True, False)]
    for case, got in zip(cases, evaluate(page, "noisy_maths", "reach", cases), strict=True):
        np.testing.assert_allclose(got, reach(*case), rtol=1e-9)


def test_one_scale_holds_all_and_its_own_holds_each():
    traces = [[[-1, 0, 1], [-2, 0, 5]], [[0.1, 0.2, 0.3]]]
    assert reach(traces, common=False) == [[-2, 5], [0.1, 0.3]]
    assert reach(traces, common=True) == [[-2, 5], [-2, 5]]


def test_the_final_loss_is_a_mean_over_the_last_windows():
    assert final_loss([[9, 1, 3], [9, 5, 7]], 2) == 4


def test_the_words_say_the_numbers_of_the_noise_in_view(shown):
    for network in NETWORKS:
        for level, strength in enumerate(STRENGTHS):
            shown.set(network=network, level=level)
            widget = Noisy(record(), network=network, level=level)
            plain, norm, noisy = widget.arms
            first, second = status(shown).split("\n")
            assert f"distribution by {noisy['moved']:.2g}" in first
            assert f"without batch norm by {plain['moved']:.2g}" in first
            for arm, words in zip((noisy, norm, plain), second.split(";"), strict=True):
                got = float(words.split()[-1].rstrip("."))
                assert got == pytest.approx(final_loss(arm["loss"], 4), rel=6e-3)
            assert f"×{strength}" in shown.description()
            assert f"×{strength}" in widget.alt()


def test_the_noise_goes_up_with_the_keyboard(shown):
    before = shown.description()
    shown.press("Noise", "ArrowRight", times=2)
    assert shown.get("level") == 3
    assert "noise ×4" in shown.description() != before
    shown.press("Noise", "Home")
    assert shown.get("level") == 0


def test_each_choice_changes_the_drawing(shown):
    seen = {shown.root.locator("svg.bn-svg").inner_html()}
    for label in ("ReLU", "whole run", "each its own"):
        shown.root.get_by_text(label, exact=True).click()
        shown.settle()
        seen.add(shown.root.locator("svg.bn-svg").inner_html())
    assert len(seen) == 4
    assert (shown.get("network"), shown.get("span"), shown.get("common")) == ("relu", "run", False)
    assert "whole run" in shown.description()


@pytest.mark.parametrize("width", [320, 390])
def test_it_fits_a_phone(page, width):  # noqa: F811
    assert mount(page, Noisy(record()), width=width).overflow() <= 0


def test_the_picture_shows_the_noise_in_view():
    still = Noisy(record(), level=0).poster()
    assert still != Noisy(record(), level=4).poster()
    assert Noisy(record(), span="run").poster() != Noisy(record(), span="steps").poster()


@pytest.mark.parametrize("bad", [{"level": 5}, {"level": -1}, {"network": "x"}, {"span": "day"}])
def test_what_cannot_be_shown_is_refused(bad):
    with pytest.raises(traitlets.TraitError):
        Noisy(record(), **bad)


def test_without_a_record_it_says_what_to_give():
    with pytest.raises(ValueError, match="noisy_batch_norm"):
        Noisy()
