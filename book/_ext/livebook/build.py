"""Build the whole book strictly, and say what came out; serve it while it is being written."""

from __future__ import annotations

import functools
import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

from filelock import FileLock

SITE = Path("_build", "html")
# What a page is made of. `serve` watches these.
SOURCES = ("_config.yml", "_toc.yml", "requirements.txt", "book/**/*", "bn/**/*")
SECOND = 1.0


def summary(site: Path) -> str:
    """Count a site's pages and figures.

    Returns
    -------
    str
        For instance ``10 pages, 4 interactive figures and quizzes, 12 drawings``.
    """
    pages = [path.read_text(encoding="utf-8") for path in (site / "book").rglob("*.html")]
    alive = sum(page.count("application/vnd.jupyter.widget-view+json") for page in pages)
    drawn = sum(len(re.findall(r"<img[^>]*_images/[^>]*-dark\.svg", page)) for page in pages)
    return f"{len(pages)} pages, {alive} interactive figures and quizzes, {drawn} drawings"


def build(root: Path) -> int:
    """Build the site under ``root``; return the exit status."""
    began = time.monotonic()
    output = root / "_build"
    output.mkdir(exist_ok=True)
    with FileLock(output / ".lock"):
        book = Path(sys.executable).with_name("jupyter-book")
        command = [str(book), "build", ".", "-W", "-n", "--keep-going"]
        # one thread: sums are added in the same order everywhere, and kernels do not wait for
        # each other's threads
        environment = os.environ | {"OMP_NUM_THREADS": "1", "JUPYTER_PLATFORM_DIRS": "1",
                                    "PYDEVD_DISABLE_FILE_VALIDATION": "1"}  # fmt: skip
        status = subprocess.run(command, cwd=root, env=environment, check=False).returncode
        if status:
            # Sphinx would not say the same thing twice: make it read every page again
            shutil.rmtree(output / ".doctrees", ignore_errors=True)
            for report in sorted((root / SITE / "reports").rglob("*.log")):
                print(f"\n{report.relative_to(root)}:\n{report.read_text()}", file=sys.stderr)
            print("The book was not built: see the messages above.", file=sys.stderr)
            return 1
    seconds = time.monotonic() - began
    print(f"The site is at {root / SITE / 'index.html'}")
    print(f"{summary(root / SITE)}, in {seconds:.0f} s", flush=True)
    return 0


def changed_at(root: Path) -> float:
    """Return when a source last changed, in seconds since the epoch."""
    files = (path for pattern in SOURCES for path in root.glob(pattern))
    return max(path.stat().st_mtime for path in files
               if path.is_file() and "__pycache__" not in path.parts
               and ".ipynb_checkpoints" not in path.parts)  # fmt: skip


def serve(root: Path, port: int) -> int:
    """Serve the site on localhost; build it at once, and anew whenever a source changes.

    A look at a few hundred files' times once a second needs no library, and works on every file
    system.
    """
    handler = functools.partial(_Quiet, directory=str(root / SITE))
    (root / SITE).mkdir(parents=True, exist_ok=True)
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            while True:
                seen = changed_at(root)
                build(root)
                print(
                    f"Serving http://127.0.0.1:{server.server_port}/ (Ctrl-C ends it)", flush=True
                )
                while changed_at(root) <= seen:
                    time.sleep(SECOND)
        except KeyboardInterrupt:
            return 0


class _Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files, always fresh, without a line for each."""

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, *arguments: object) -> None:
        pass
