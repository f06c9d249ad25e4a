"""The page of the package: a module's docstring is part of that page, not a page of its own."""

from __future__ import annotations

import re

from sphinx.application import Sphinx

_HEADING = re.compile(r"^[-=~]{3,}$")


def headings_to_rubrics(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Keep the headings of a module's docstring out of the page's table of contents.

    Examples
    --------
    >>> lines = ["References", "----------", "A book."]
    >>> headings_to_rubrics(None, "module", "bn", None, None, lines)
    >>> lines
    ['.. rubric:: References', '', 'A book.']
    """
    if what != "module":
        return
    for number in range(1, len(lines)):
        if _HEADING.match(lines[number]) and lines[number - 1].strip():
            lines[number - 1 : number + 1] = [f".. rubric:: {lines[number - 1]}", ""]


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", headings_to_rubrics)
