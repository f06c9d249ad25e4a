"""Everything a page loads comes from the site itself, and no more than it needs.

- MathJax comes out of the wheel ``sphinx-mathjax-offline``, as one file made of the components
  that the book uses: two thirds of the weight of the ready-made bundle, whose context menu is
  what is left out.
- The theme's icons come as web fonts. A subset holds the icons in use (a few kB instead of 300),
  and the theme's style sheet keeps the rules of those. The theme's second copy of all icons, a
  script of 1.5 MB, is not loaded.
- The search index is loaded by the page that searches, not by every page: it grows with the book.
- jupyter-book always loads sphinx-thebe, which calls a CDN and fails on every page: it goes.
"""

from __future__ import annotations

import importlib.util
import logging
import re
import shutil
from pathlib import Path

import pydata_sphinx_theme
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ExtensionError

from .widgets import HOST

# In the order in which each needs the ones before it.
MATHJAX = ("startup", "core", "input/tex", "output/chtml", "output/chtml/fonts/tex",
           "a11y/assistive-mml")  # fmt: skip
MATHJAX_PROVIDES = (*MATHJAX[1:], "input/tex-base", "[tex]/ams", "[tex]/newcommand",
                    "[tex]/noundefined", "[tex]/require", "[tex]/autoload",
                    "[tex]/configmacros")  # fmt: skip
MATHJAX_ON_DEMAND = ("output/chtml/fonts/woff-v2/*.woff", "input/tex/extensions/*.js")
MATHJAX_FILE = "mathjax/mathjax.js"

THEME = Path(pydata_sphinx_theme.__file__).parent / "theme" / "pydata_sphinx_theme" / "static"
# What a page must hold to need these files.
OPTIONAL = {r"\bsd-": "sphinx-design|design-tabs", "toggle|dropdown": "togglebutton"}
# family: (file of the full font, weight)
FONTS = {
    "Font Awesome 6 Free": (("fa-solid-900", 900), ("fa-regular-400", 400)),
    "Font Awesome 6 Brands": (("fa-brands-400", 400),),
}
LAYOUT = """\
{%- extends "!layout.html" %}
{%- block extrahead %}
  <meta name="viewport" content="width=device-width, initial-scale=1"/>
{%- endblock %}
"""
ICONS_FILE = "icons/icons.css"


def mathjax_folder() -> Path:
    """Return the folder of MathJax inside the installed wheel."""
    spec = importlib.util.find_spec("sphinx-mathjax-offline")
    if spec is None or not spec.submodule_search_locations:
        raise ExtensionError("MathJax is missing: pip install sphinx-mathjax-offline")
    return Path(next(iter(spec.submodule_search_locations))) / "static" / "mathjax"


def write_mathjax(static: Path) -> None:
    """Write MathJax's one file, and beside it what it loads when a page asks for it."""
    source = mathjax_folder()
    target = static / MATHJAX_FILE
    target.parent.mkdir(parents=True, exist_ok=True)
    parts = [(source / f"{name}.js").read_text(encoding="utf-8") for name in MATHJAX]
    names = ", ".join(f'"{name}"' for name in MATHJAX_PROVIDES)
    # MathJax starts in a microtask, so after the last line of this file
    parts.insert(1, f"MathJax.loader.preLoad({names});")
    target.write_text("\n;\n".join(parts), encoding="utf-8")
    for pattern in MATHJAX_ON_DEMAND:
        for path in source.glob(pattern):
            copy = target.parent / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)


def drop_unused_icons(css: str, used: set[str]) -> str:
    """Leave out of a style sheet the rules of icons that no page shows.

    Examples
    --------
    >>> drop_unused_icons('.fa-bars:before,.fa-navicon:before{content:"a"}.fa-x:before{content:"b"}', {"bars"})
    '.fa-bars:before,.fa-navicon:before{content:"a"}'
    """

    def keep(rule: re.Match) -> str:
        return rule[0] if used & set(re.findall(r"\.fa-([a-z0-9-]+)", rule[0])) else ""

    return re.sub(r'(?:\.fa-[a-z0-9-]+:before,?)+\{content:"[^"]*"\}', keep, css)


def icons_in_use(pages: list[Path]) -> set[str]:
    """Return the names of the icons that pages ask for."""
    return {name for page in pages for name in re.findall(r"\bfa-([a-z0-9-]+)", page.read_text())}


def write_icons(static: Path, pages: list[Path]) -> None:
    """Write the subset of the theme's icon fonts that the pages need."""
    from fontTools.subset import Options, Subsetter
    from fontTools.ttLib import TTFont

    logging.getLogger("fontTools").setLevel(logging.WARNING)
    theme_css = (THEME / "styles" / "pydata-sphinx-theme.css").read_text(encoding="utf-8")
    codes = {
        int(code, 16)
        for icon in icons_in_use(pages)
        for code in re.findall(rf'\.fa-{icon}:before[^{{}}]*{{content:"\\([0-9a-f]+)"', theme_css)
    }
    folder = (static / ICONS_FILE).parent
    faces = []
    for family, files in FONTS.items():
        for name, weight in files:
            font = TTFont(THEME / "vendor" / "fontawesome" / "webfonts" / f"{name}.ttf")
            present = codes & set(font.getBestCmap())
            if not present:
                continue
            options = Options(flavor="woff", layout_features=[], hinting=False, notdef_outline=True)
            subsetter = Subsetter(options)
            subsetter.populate(unicodes=present)
            subsetter.subset(font)
            font.flavor = "woff"
            font.recalcTimestamp = False
            font.save(folder / f"{name}.woff")
            span = ",".join(f"U+{code:x}" for code in sorted(present))
            faces.append(
                f'@font-face{{font-family:"{family}";font-weight:{weight};font-display:block;'
                f'src:url({name}.woff) format("woff");unicode-range:{span}}}'
            )
    (static / ICONS_FILE).write_text("\n".join(faces) + "\n", encoding="utf-8")


def configure(app: Sphinx, config: Config) -> None:
    """Point Sphinx and its theme at the site's own files."""
    config.mathjax_path = MATHJAX_FILE
    config.html_context.setdefault("default_mode", "auto")
    config.html_theme_options.setdefault("navbar_persistent", [])  # one search field is enough
    # the theme's list of scripts, without the script that holds every icon there is
    macros = (THEME / "webpack-macros.html").read_text(encoding="utf-8")
    kept, removed = re.subn(r"<script[^>]*/fontawesome\.js[^>]*></script>", "", macros)
    if not removed:
        raise ExtensionError("the theme no longer loads fontawesome.js: simplify livebook.assets")
    templates = Path(app.outdir).parent / "templates"
    (templates / "static").mkdir(parents=True, exist_ok=True)
    (templates / "static" / "webpack-macros.html").write_text(kept, encoding="utf-8")
    # without search-as-you-type only the search page needs the index
    config.html_theme_options["search_as_you_type"] = False
    (templates / "layout.html").write_text(LAYOUT, encoding="utf-8")
    config.templates_path = [str(templates), *config.templates_path]


def drop_unused_files(
    app: Sphinx, pagename: str, template: str, context: dict, doctree: object
) -> None:
    """Leave out of a page the scripts and styles of directives that it does not use."""
    body = context.get("body", "")
    for word, files in OPTIONAL.items():
        if not re.search(word, body):
            for kind in ("css_files", "script_files"):
                context[kind][:] = [
                    file for file in context[kind] if not re.search(files, str(file.filename))
                ]


def copy_before_writing(app: Sphinx) -> None:
    """Copy assets first, so that Sphinx can put their checksums into the pages."""
    if app.builder.format != "html":
        return
    static = Path(app.outdir) / "_static"
    write_mathjax(static)
    shutil.copyfile(HOST, static / HOST.name)
    icons = static / ICONS_FILE
    icons.parent.mkdir(parents=True, exist_ok=True)
    icons.touch()
    app.add_css_file(ICONS_FILE)


def copy_after_writing(app: Sphinx, error: Exception | None) -> None:
    """Subset the icons once all pages are there; leave out what no page loads."""
    if error is not None or app.builder.format != "html":
        return
    static = Path(app.outdir) / "_static"
    pages = list(Path(app.outdir).rglob("*.html"))
    write_icons(static, pages)
    for name in ("pydata-sphinx-theme.css", "pydata-sphinx-theme.css.map"):
        (static / "styles" / name).unlink(missing_ok=True)
    css = (THEME / "styles" / "pydata-sphinx-theme.css").read_text(encoding="utf-8")
    css = drop_unused_icons(css, icons_in_use(pages)).split("/*# sourceMappingURL")[0]
    (static / "styles" / "pydata-sphinx-theme.css").write_text(css, encoding="utf-8")
    for path in static.glob("scripts/fontawesome.js*"):
        path.unlink()


def drop_thebe(app: Sphinx) -> None:
    """Undo what sphinx-thebe has registered."""
    for listeners in app.events.listeners.values():
        for listener in list(listeners):
            if listener.handler.__module__.split(".")[0] == "sphinx_thebe":
                app.disconnect(listener.id)
    app.registry.css_files[:] = [css for css in app.registry.css_files if "thebe" not in css[0]]


def setup(app: Sphinx) -> None:
    drop_thebe(app)
    app.connect("config-inited", configure)
    app.connect("builder-inited", copy_before_writing)
    app.connect("html-page-context", drop_unused_files, priority=700)
    app.connect("build-finished", copy_after_writing, priority=800)
