"""What tests share: which need more than Python, what happens without it, and the built site.

A test marked ``browser`` needs Chromium, one marked ``mnist`` the four MNIST files. Without them it
skips and the closing summary says so. ``BN_REQUIRE=mnist,browser`` turns such a skip into a
failure, for machines on which everything must run.
"""

from __future__ import annotations

import doctest
import functools
import http.server
import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from widget_harness import ARGS, chromium_path

# Several test processes share the cores. Threads of theirs that wait for each other would take most
# of the time: a cell of ten seconds then takes a minute. Set here, before anything loads NumPy.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "_build" / "html"

HOW_TO_GET = {
    "browser": "no Chromium here: install it, or name it in BN_CHROMIUM",
    "mnist": "no MNIST files here: run `bn data`, or name their folder in BN_DATA_DIR",
}


def has_mnist() -> bool:
    """Tell whether the MNIST files are on this machine; nothing is downloaded."""
    from bn import data

    return not data.missing()


@functools.cache
def is_here(what: str) -> bool:
    return chromium_path() is not None if what == "browser" else has_mnist()


def required() -> set[str]:
    names = {name.strip() for name in os.environ.get("BN_REQUIRE", "").split(",")} - {""}
    if unknown := names - HOW_TO_GET.keys():
        raise pytest.UsageError(
            f"BN_REQUIRE names {', '.join(sorted(unknown))}; it may name {', '.join(HOW_TO_GET)}"
        )
    return names


def pytest_configure(config: pytest.Config) -> None:
    required()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take out what is marked as never to be run: it is no test, and skipping it says nothing."""
    idle = [item for item in items if _is_idle(item)]
    items[:] = [item for item in items if item not in idle]
    config.hook.pytest_deselected(items=idle)


def _is_idle(item: pytest.Item) -> bool:
    """Tell whether an item is a cell tagged nbval-skip, or a doctest that skips every line."""
    if cell := getattr(item, "cell", None):
        return "nbval-skip" in cell.metadata.get("tags", [])
    if isinstance(item, pytest.DoctestItem):
        return all(example.options.get(doctest.SKIP) for example in item.dtest.examples)
    return False


def pytest_runtest_setup(item: pytest.Item) -> None:
    for what, remedy in HOW_TO_GET.items():
        if item.get_closest_marker(what) and not is_here(what):
            if what in required():
                pytest.fail(f"BN_REQUIRE asks for {what}, but {remedy}", pytrace=False)
            pytest.skip(remedy)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the very end what did not run, and how to make it run."""
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ")
                      for report in terminalreporter.getreports("skipped")
                      if isinstance(report.longrepr, tuple))  # fmt: skip
    terminalreporter.section("what did not run")
    for reason, count in reasons.most_common():
        terminalreporter.line(f"{count} test{'s' * (count > 1)} skipped: {reason}")
    if not reasons:
        terminalreporter.line("nothing: Chromium and MNIST are here, and no test was skipped")


@pytest.fixture(scope="session")
def site() -> Path:
    """The folder of the built site; it is built if it is missing."""
    if not (SITE / "book" / "index.html").exists():
        environment = os.environ | {"PYTHONPATH": str(ROOT / "book" / "_ext")}
        subprocess.run([sys.executable, "-m", "livebook", "build"], cwd=ROOT, env=environment,
                       check=True)  # fmt: skip
    return SITE


def pages_of(site: Path) -> list[str]:
    """Return the addresses of the book's pages, relative to the site."""
    return sorted(path.relative_to(site).as_posix() for path in (site / "book").rglob("*.html"))


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="session")
def server(site: Path):
    """The site's address on this machine, in a subfolder as on GitHub Pages."""
    handler = functools.partial(_Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as http_server:
        threading.Thread(target=http_server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http_server.server_port}/"
        http_server.shutdown()


@pytest.fixture(scope="session")
def chromium():
    """A running Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium_path(), args=ARGS)
        yield browser
        browser.close()
