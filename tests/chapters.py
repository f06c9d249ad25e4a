"""A chapter's own cells, for the tests that hold its code and its words to the package."""

from __future__ import annotations

import json

import matplotlib
import prose


class Chapter:
    """The notebook of a page, such as ``layer/backward``: its cells by their ids."""

    def __init__(self, page: str) -> None:
        self.path = prose.BOOK / f"{page}.ipynb"
        notebook = json.loads(self.path.read_text(encoding="utf-8"))
        self.cells = {cell["id"]: cell for cell in notebook["cells"]}

    def source(self, name: str) -> str:
        return "".join(self.cells[name]["source"])

    def run(self, *names: str, known: dict | None = None) -> dict:
        """Execute cells, with `known` names at hand; return all names that there are then."""
        matplotlib.use("agg")
        namespace = dict(known or {})
        for name in names:
            exec(compile(self.source(name), name, "exec"), namespace)
        return namespace
