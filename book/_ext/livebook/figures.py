"""Drawings for both themes, with a text alternative; captions, takeaways and folds.

The book's matplotlib style (``bn/bn.mplstyle``) draws on white with one ink and one palette. A
drawing's dark twin is the same SVG with those colours exchanged; the theme shows one of the two.
The text alternative of a figure without one of its own is its caption, the paragraph
``*Figure: …*`` that follows it.
"""

from __future__ import annotations

import html
import re
from pathlib import Path

from docutils import nodes
from myst_nb.sphinx_ import HideCodeCellNode
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.writers.html5 import HTML5Translator

# Light to dark: paper, ink and grid, then the palette of bn.plots.COLORS.
DARK = {
    "#ffffff": "#121212",
    "#1f2328": "#dfe3e8",
    "#000000": "#dfe3e8",
    "#d8dce1": "#363c44",
    "#0072b2": "#56b4e9",
    "#d55e00": "#ff8c42",
    "#009e73": "#2fc79a",
    "#9b5fa5": "#c79bd2",
    "#e69f00": "#f2c14e",
    "#8a9099": "#9aa1ab",
}
_COLOUR = re.compile("|".join(DARK), re.I)
CAPTION = r"Figure\b[\s\d.]*:\s*"


def compact(svg: str) -> str:
    """Write coordinates to a tenth of a point, less than a pixel shows, and leave out what draws nothing.

    Examples
    --------
    >>> compact('<!-- a line --><path d="M 0.123456 7 L 10.999999 8.5"/>')
    '<path d="M 0.1 7 L 11 8.5"/>'
    """

    def shorten(path: re.Match) -> str:
        return re.sub(
            r"-?\d+\.\d{2,}",
            lambda number: f"{float(number[0]):.1f}".rstrip("0").rstrip("."),
            path[0],
        )

    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r'\b(?:d|x|y)="[^"]*"', shorten, svg)
    return re.sub(r"\n\s*", "\n", svg)


def darken(svg: str) -> str:
    """Exchange the colours of the book's style.

    Examples
    --------
    >>> darken('<path style="fill: #FFFFFF; stroke: #0072b2"/>')
    '<path style="fill: #121212; stroke: #56b4e9"/>'
    """
    svg = _COLOUR.sub(lambda match: DARK[match[0].lower()], svg)
    # SVG's own default fill is black: glyphs and shapes that name no colour inherit this one
    return re.sub(r"(<svg\b)", rf'\1 fill="{DARK["#000000"]}"', svg, count=1)


def _is_paragraph(node: nodes.Node, first: type, beginning: str, alone: bool = False) -> bool:
    """Tell whether a paragraph begins with an inline element of a kind, and with some words."""
    if not isinstance(node, nodes.paragraph) or not re.match(beginning, node.astext()):
        return False
    parts = [child for child in node.children if child.astext()]  # Markdown leaves empty ones
    return isinstance(parts[0], first) and (len(parts) == 1 or not alone)


def is_caption(node: nodes.Node) -> bool:
    """Tell whether a paragraph is all emphasis and begins with 'Figure:'."""
    return _is_paragraph(node, nodes.emphasis, CAPTION, alone=True)


def is_takeaway(node: nodes.Node) -> bool:
    """Tell whether a paragraph begins with a bold 'Takeaway'."""
    return _is_paragraph(node, nodes.strong, r"Takeaway\b")


def describe(app: Sphinx, doctree: nodes.document) -> None:
    """Mark captions; give an image that has no text alternative the words of its caption."""
    image: nodes.image | None = None
    for node in doctree.findall():
        if isinstance(node, nodes.image):
            image = node
        elif is_caption(node):
            node["classes"].append("bn-caption")
            if image is not None:
                image.setdefault("alt", re.sub(f"^{CAPTION}", "", node.astext()))
                image = None
        elif isinstance(node, nodes.section):
            image = None  # a caption speaks of a figure of its own section
        elif is_takeaway(node):
            node["classes"].append("bn-takeaway")


class DarkTwins(SphinxPostTransform):
    """Put the dark twin behind each SVG that a code cell drew."""

    default_priority = 5  # right after MyST-NB has chosen each output's format
    formats = ("html",)

    def run(self, **kwargs: object) -> None:
        drawn = Path(self.env.mystnb_config.output_folder)
        for light in list(self.document.findall(nodes.image)):
            path = Path(self.env.srcdir, light["uri"])
            if path.suffix != ".svg" or drawn not in path.resolve().parents:
                continue
            svg = compact(path.read_text(encoding="utf-8"))
            dark = light.deepcopy()
            light.parent.insert(light.parent.index(light) + 1, dark)
            for node, theme, text in ((light, "light", svg), (dark, "dark", darken(svg))):
                twin = path.with_name(f"{path.stem[:16]}-{theme}.svg")
                twin.write_text(text, encoding="utf-8")
                node["uri"] = str(Path(light["uri"]).with_name(twin.name))
                node["candidates"] = {"*": node["uri"]}
                node["classes"].append(f"only-{theme}")
                node["loading"] = "lazy"  # the one that is hidden is never fetched
                self.env.images.add_file(self.env.docname, node["uri"])


class SolutionPrompts(SphinxPostTransform):
    """Call a folded solution a solution."""

    default_priority = 198  # before MyST-NB folds the cells
    formats = ("html",)

    def run(self, **kwargs: object) -> None:
        for node in self.document.findall(nodes.container):
            if "tag_solution" in node["classes"] and node.get("hide_mode"):
                node["prompt_show"] = "Solution"


def open_fold(translator: HTML5Translator, node: HideCodeCellNode) -> None:
    """Write MyST-NB's fold as a plain one, whose name is what it says."""
    classes = " ".join(node["classes"])
    name = html.escape(node["prompt_show"])
    translator.body.append(f'<details class="hide {classes}"><summary>{name}</summary>\n')


def close_fold(translator: HTML5Translator, node: HideCodeCellNode) -> None:
    translator.body.append("</details>\n")


def setup(app: Sphinx) -> None:
    app.connect("doctree-read", describe)
    app.add_post_transform(DarkTwins)
    app.add_post_transform(SolutionPrompts)
    app.add_node(HideCodeCellNode, override=True, html=(open_fold, close_fold))
