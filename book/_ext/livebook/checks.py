"""What would be broken for a reader fails the build.

Every finding is a Sphinx warning, and the book is built with warnings as errors.
"""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util import logging

from .widgets import STATE, VIEW, Page

logger = logging.getLogger(__name__)

# (tag, attribute) that the browser fetches by itself; a link that a reader may follow is none.
FETCHED = {
    "audio": ("src",), "embed": ("src",), "iframe": ("src",), "img": ("src", "srcset"),
    "input": ("src",), "object": ("data",), "script": ("src",), "source": ("src", "srcset"),
    "track": ("src",), "video": ("src", "poster"), "image": ("href", "xlink:href"),
    "use": ("href", "xlink:href"),
}  # fmt: skip
FETCHED_LINKS = {"stylesheet", "preload", "modulepreload", "prefetch", "preconnect", "icon",
                 "dns-prefetch", "manifest"}  # fmt: skip


class _Reader(HTMLParser):
    """Collects what the checks look at."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.silent_images: list[str] = []
        self.scripts: dict[str, list[str]] = {STATE: [], VIEW: []}
        self._script: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.fetched += [attributes[a] for a in FETCHED.get(tag, ()) if attributes.get(a)]
        if tag == "link" and FETCHED_LINKS & set(attributes.get("rel", "").lower().split()):
            self.fetched.append(attributes.get("href", ""))
        if tag == "img":
            alt, source = attributes.get("alt"), attributes.get("src", "")
            # docutils falls back on the address, which says nothing; alt="" marks decoration
            if alt is None or (alt and alt.endswith(source.rsplit("/", 1)[-1])):
                self.silent_images.append(source)
        if tag == "script":
            self._script = attributes.get("type")

    def handle_data(self, data: str) -> None:
        if self._script in self.scripts:
            self.scripts[self._script].append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._script = None


def findings(html: str) -> Iterator[str]:
    """Say what is wrong with one page."""
    reader = _Reader()
    reader.feed(html)
    for url in reader.fetched:
        if url.startswith(("http:", "https:", "//", "ftp:")):
            yield f"asks another host: {url}"
    for source in reader.silent_images:
        yield (
            f"image without a text alternative: {source} (write a caption '*Figure: …*' in the "
            'next Markdown cell, or set mystnb: {"image": {"alt": "…"}} in the cell\'s metadata)'
        )
    page = Page(reader.scripts[STATE])
    for view in reader.scripts[VIEW]:
        if reason := page.dead(view):
            yield f"widget that is dead without a kernel: {reason}"


def check_pages(app: Sphinx, error: Exception | None) -> None:
    """Read every page of this build again, as a browser would."""
    if error is not None or app.builder.format != "html":
        return
    for docname in sorted(app.env.found_docs):
        path = Path(app.builder.get_outfilename(docname))
        for finding in findings(path.read_text(encoding="utf-8")):
            logger.warning(finding, location=docname, type="livebook")


def setup(app: Sphinx) -> None:
    app.connect("build-finished", check_pages, priority=900)
