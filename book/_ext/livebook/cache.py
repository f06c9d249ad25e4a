"""Reuse executed notebooks until the code they run has changed.

jupyter-cache compares a notebook's own cells only. The cache folder's name therefore holds a
hash of everything else that an execution depends on; a folder with another name is out of date
and goes. The name is part of the configuration, so that a new one makes Sphinx read every page
again.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from pathlib import Path

import nbformat
from jupyter_cache import get_cache
from jupyter_cache.executors import load_executor
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment

# What a notebook can see besides its own cells.
PATTERNS = ("bn/**/*", "book/**/*.json", "book/**/*.bib", "requirements.txt")
KEEP_SECONDS = 7 * 24 * 3600  # going back to another branch within a week costs nothing


def key(root: Path) -> str:
    """Hash the name and content of every file that an execution depends on."""
    digest = hashlib.sha256()
    for path in sorted({path for pattern in PATTERNS for path in root.glob(pattern)}):
        if path.is_file() and "__pycache__" not in path.parts:
            name = path.relative_to(root).as_posix()
            digest.update(f"{name}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def name_folder(app: Sphinx, config: Config) -> None:
    """Point MyST-NB at the cache folder of this state of the code; remove old ones."""
    if config.nb_execution_mode != "cache" or config.nb_execution_cache_path:
        return
    folders = Path(app.outdir).parent / ".jupyter_cache"
    current = folders / key(Path(app.srcdir))
    current.mkdir(parents=True, exist_ok=True)
    current.touch()  # used now
    for folder in folders.iterdir():
        if folder != current and folder.stat().st_mtime < time.time() - KEEP_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
    config.nb_execution_cache_path = str(current)


def execute_ahead(app: Sphinx, env: BuildEnvironment, documents: list[str]) -> None:
    """Execute the notebooks that are to be read and are not in the cache, one on each core."""
    if app.config.nb_execution_mode != "cache":
        return
    executed = get_cache(app.config.nb_execution_cache_path)
    paths = [path for path in map(env.doc2path, documents) if path.endswith(".ipynb")]
    for path in paths:
        try:
            executed.match_cache_notebook(nbformat.read(path, as_version=4))
        except KeyError:
            executed.add_nb_to_project(path)
    load_executor("local-parallel", executed).run_and_cache(
        filter_uris=paths, timeout=app.config.nb_execution_timeout
    )


def setup(app: Sphinx) -> None:
    app.connect("config-inited", name_folder)
    app.connect("env-before-read-docs", execute_ahead)
