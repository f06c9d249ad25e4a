"""What `bn.environment.report` says when things are there, missing or damaged."""

from __future__ import annotations

import sys

import pytest

from bn import data, environment


def line(word: str) -> str:
    return next(text for text in repr(environment.report()).split("\n") if word in text)


def test_every_line_begins_with_its_state():
    for text in repr(environment.report()).split("\n"):
        assert text.startswith(("ready    ", "missing  ", "         "))


@pytest.mark.parametrize(
    ("package", "word", "remedy"),
    [
        ("torch", "PyTorch", 'pip install "bn[torch]"'),
        ("matplotlib", "figures: ", 'pip install "bn[book]"'),
        ("anywidget", "interactive figures", "brings anywidget"),
        ("ipywidgets", "interactive figures", "brings ipywidgets"),
    ],
)
def test_a_missing_package_comes_with_its_remedy(monkeypatch, package, word, remedy):
    monkeypatch.setattr(
        environment, "find_spec", lambda name: None if name == package else object()
    )
    text = line(word)
    assert text.startswith("missing  ")
    assert remedy in text
    assert not environment.report().complete


def test_an_old_python(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 9))
    assert line("Python ").startswith("missing")
    assert "use 3.11 or newer" in line("Python ")


def test_mnist_missing_in_a_named_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("BN_DATA_DIR", str(tmp_path))
    text = repr(environment.report())
    assert "missing  MNIST, for the recorded experiments only: 4 of 4 files" in text
    assert f"looked for in {tmp_path}" in text
    assert "or unset it" in text
    assert list(tmp_path.iterdir()) == []


def test_mnist_damaged(monkeypatch, tmp_path):
    monkeypatch.setenv("BN_DATA_DIR", str(tmp_path))
    name = next(iter(data.FILES))
    (tmp_path / name).write_bytes(b"not the file")
    assert f"damaged or not official: {name}" in line("MNIST")


def test_mnist_missing_in_the_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("BN_DATA_DIR", raising=False)
    monkeypatch.setattr(data, "folder", lambda: tmp_path / "cache")
    assert "bn data fetches them" in repr(environment.report())
    assert not (tmp_path / "cache").exists()


@pytest.mark.mnist
def test_mnist_there():
    assert line("MNIST").startswith("ready    MNIST: four files")


def test_the_home_folder_is_not_shown(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("BN_DATA_DIR", str(tmp_path / "mnist"))
    assert "looked for in ~/mnist" in repr(environment.report())
    assert str(tmp_path) not in repr(environment.report())
