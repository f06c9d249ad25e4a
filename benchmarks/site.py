"""The built site over a slow line: the weight of each page, and when its first figure lives.

The line is 10 Mbit/s with a latency of 40 ms, emulated by Chromium; the server compresses as a
static host does. Run `make book` first.

python -m benchmarks.site
"""

from __future__ import annotations

import functools
import gzip
import http.server
import os
import shutil
import statistics
import sys
import threading
from pathlib import Path

SITE = Path(__file__).resolve().parents[1] / "_build" / "html"
BYTES_PER_SECOND = 10e6 / 8
LATENCY = 40  # milliseconds
ROUNDS = 3
PACKED = {".html", ".css", ".js", ".svg", ".json"}


class Compressing(http.server.SimpleHTTPRequestHandler):
    """Serves a folder as GitHub Pages does: texts compressed."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        body = _body(path)
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(str(path)))
        self.send_header("Content-Length", str(len(body)))
        if path.suffix in PACKED:
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@functools.cache
def _body(path: Path) -> bytes:
    content = path.read_bytes()
    return gzip.compress(content, 6) if path.suffix in PACKED else content


def visit(browser, url: str) -> tuple[float, float | None]:
    """Open a page with an empty cache; return its kilobytes and when its first figure lives."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    session = context.new_cdp_session(page)
    session.send("Network.enable")
    line = {"offline": False, "latency": LATENCY, "downloadThroughput": BYTES_PER_SECOND,
            "uploadThroughput": BYTES_PER_SECOND}  # fmt: skip
    session.send("Network.emulateNetworkConditions", line)
    received: list[float] = []
    session.on("Network.loadingFinished", lambda event: received.append(event["encodedDataLength"]))
    page.goto(url)
    page.wait_for_load_state("networkidle")
    marks = page.evaluate("performance.getEntriesByName('first-widget').map((m) => m.startTime)")
    context.close()
    return sum(received) / 1000, marks[0] / 1000 if marks else None


def main() -> int:
    """Print a line for each page."""
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = os.environ.get("BN_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if chromium is None or not (SITE / "book").is_dir():
        print("needs Chromium and the built site: make book")
        return 0
    from playwright.sync_api import sync_playwright

    handler = functools.partial(Compressing, directory=str(SITE))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"{'page':34} {'kB':>6} {'first figure, s':>16}")
    with sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        for path in sorted((SITE / "book").rglob("*.html")):
            name = path.relative_to(SITE).as_posix()
            visits = [visit(browser, f"http://127.0.0.1:{server.server_port}/{name}")
                      for _ in range(ROUNDS)]  # fmt: skip
            times = [seconds for _, seconds in visits if seconds is not None]
            first = f"{statistics.median(times):.2f}" if times else "none"
            print(f"{name:34} {max(size for size, _ in visits):6.0f} {first:>16}", flush=True)
        browser.close()
    print("budget: 500 kB (with every drawing, tests/test_site_pages.py) and 1 s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
