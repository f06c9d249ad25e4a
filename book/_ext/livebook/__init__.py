"""The book's one Sphinx extension: pages that live by themselves.

A page of the built book asks no other host for anything, and its interactive figures work
without a kernel, served or opened from disk. One module holds one idea:

- ``assets``: MathJax, icons and scripts come from the site itself;
- ``cache``: executed notebooks are reused until the code they run has changed;
- ``widgets``: the state of every anywidget is in its page, once, with a picture for readers
  without JavaScript; ``static_host.js`` brings it to life;
- ``figures``: a drawing has a twin for the dark theme and a text alternative;
- ``repository``: links to the source and to Colab, if the repository is known;
- ``api``: the docstrings of a module are part of one page;
- ``checks``: what would be broken for a reader fails the build.

Beside the extension: ``ledger`` writes the page of all claims from the records.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from sphinx.application import Sphinx

from . import api, assets, cache, checks, figures, repository, widgets


def setup(app: Sphinx) -> dict:
    """Register every part with Sphinx."""
    for part in (api, assets, cache, figures, widgets, repository, checks):
        part.setup(app)
    # a change of the extension builds every page anew
    sources = sorted(Path(__file__).parent.glob("*.*"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    app.add_config_value("livebook_digest", digest, "env")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
