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


def skip_aliases(
    app: Sphinx, what: str, name: str, obj: object, skip: bool, options: object
) -> bool | None:
    """Leave out the fields of a named tuple: its class says more than "Alias for field number 0".

    Examples
    --------
    >>> from collections import namedtuple
    >>> skip_aliases(None, "class", "x", namedtuple("Point", "x y").x, False, None)
    True
    """
    return True if (getattr(obj, "__doc__", None) or "").startswith("Alias for field") else None


def setup(app: Sphinx) -> None:
    app.connect("autodoc-skip-member", skip_aliases)
    app.connect("autodoc-process-docstring", headings_to_rubrics)
