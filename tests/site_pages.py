"""What the tests of the built site share: its pages, and a page opened as a reader would."""

from __future__ import annotations

import re
from contextlib import contextmanager
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
VIEW = "application/vnd.jupyter.widget-view+json"


def documents() -> list[str]:
    """Return every page of the table of contents, without suffix, in its order."""
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    chapters = [chapter["file"] for part in contents["parts"] for chapter in part["chapters"]]
    return [contents["root"], *chapters]


PAGES = [f"{document}.html" for document in documents()]
# Set on a page when its figures have drawn and its maths is set.
SETTLE = """
addEventListener("load", async () => {
  await window.MathJax?.startup?.promise;
  while (document.querySelector(`script[type="VIEW"]`) && !document.documentElement.dataset.widgets)
    await new Promise((done) => setTimeout(done, 20));
  window.__settled = true;
});
""".replace("VIEW", VIEW)


class Visit:
    """One page in a browser, and all it asked for and complained of."""

    def __init__(self, page) -> None:
        self.page = page
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("requestfailed", lambda r: self.complaints.append(f"failed: {r.url}"))
        page.on(
            "response", lambda r: r.status >= 400 and self.complaints.append(f"{r.status}: {r.url}")
        )
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._listen)

    def _listen(self, message) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    def open(self, url: str) -> Visit:
        self.page.add_init_script(SETTLE)
        self.page.goto(url)
        self.page.wait_for_function("window.__settled")
        return self

    def scroll_through(self) -> None:
        """Bring every part of the page on screen once."""
        self.page.evaluate(
            """async () => {
            for (let y = 0; y < document.documentElement.scrollHeight; y += innerHeight) {
              scrollTo(0, y);
              await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
            }
            scrollTo(0, 0);
            }"""
        )


@contextmanager
def visit(browser, url: str, **context):
    """Open a page in a fresh window; ``context`` as for Playwright's new_context."""
    window = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **context})
    try:
        yield Visit(window.new_page()).open(url)
    finally:
        window.close()


def views(html: str) -> int:
    """Count the interactive figures that a page's source shows."""
    return len(re.findall(re.escape(f'<script type="{VIEW}">'), html))
