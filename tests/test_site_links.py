"""Every link inside the built site leads somewhere."""

from __future__ import annotations

from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from site_pages import PAGES


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.anchors: list[str] = []

    def handle_starttag(self, tag, attrs) -> None:
        attributes = dict(attrs)
        self.targets += [attributes[name] for name in ("href", "src") if attributes.get(name)]
        if attributes.get("id"):
            self.anchors.append(attributes["id"])


@cache
def read(path: Path) -> _Links:
    links = _Links()
    links.feed(path.read_text(encoding="utf-8"))
    return links


@pytest.mark.parametrize("path", PAGES)
def test_internal_links_resolve(path, site):
    page = site / path
    broken = []
    for target in read(page).targets:
        url = urlsplit(target)
        if url.scheme or url.netloc:
            continue
        file = (page.parent / unquote(url.path)).resolve() if url.path else page
        if not file.is_file():
            broken.append(target)
        elif file.suffix == ".html" and url.fragment:
            broken += [target] if unquote(url.fragment) not in read(file).anchors else []
    assert not broken


@pytest.mark.parametrize("path", PAGES)
def test_an_anchor_is_unique(path, site):
    anchors = read(site / path).anchors
    assert sorted(set(anchors)) == sorted(anchors)
