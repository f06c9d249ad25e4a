"""The base of every widget: one ES module per widget, a picture where nothing runs, a stable repr.

A widget is three files and, usually, a fourth::

    dial.py         the class: validated traits, a picture drawn with matplotlib
    dial.js         the face: an ES module with a default export {render}
    dial.css        its own style, if common.css is not enough (optional)
    dial_maths.js   the numbers: pure functions, tested against Python

The class:

.. code-block:: python

    class Dial(Widget):
        _name = "dial"                      # dial.js, dial.css
        _title = "A parabola"               # heading and accessible name
        _shown = ("x",)                     # traits that stand in the repr
        x = traitlets.Float(1.0, help="where to look").tag(sync=True)

        def alt(self):                      # one sentence, for the picture
            return f"x squared is {self.x**2:g} at x = {self.x:g}."

        def draw(self, figure):             # the picture, for GitHub, print, no JavaScript
            axes = figure.add_subplot()
            t = np.linspace(-3, 3)
            axes.plot(t, t**2)
            axes.plot(self.x, self.x**2, "o")

The face (``text`` in an SVG is 17 units or more; colours come from common.css, by class):

.. code-block:: js

    import { frame, slider, linear, axis, line, s, fmt, listen, onVisible } from "./common.js";
    import { square } from "./dial_maths.js";

    function render({ model, el, signal }) {
      const f = frame({ model, el, signal, title: "A parabola", height: 272 });
      f.controls.append(slider(model, "x", { label: "x", min: -3, max: 3, step: 0.1, signal }));
      const X = linear([-3, 3], [50, 470]), Y = linear([0, 9], [220, 36]);
      const t = Array.from({ length: 61 }, (_, i) => -3 + i / 10);
      const draw = onVisible(el, () => {
        const x = model.get("x"), y = square(x);
        f.svg.replaceChildren(
          axis(X, { side: "bottom", at: 220, label: "x" }),
          axis(Y, { side: "left", at: 50, label: "x²", grid: [50, 470] }),
          line(t.map(X), t.map((v) => Y(square(v))), { class: "bn-line bn-with" }),
          s("circle", { class: "bn-mark bn-without", cx: X(x), cy: Y(y), r: 7 }),
        );
        f.status.textContent = `x² = ${fmt(y)}`;
        f.describe(`At x = ${fmt(x)} the parabola is ${fmt(y)} high.`);
      }, signal);
      listen(model, "change:x", draw, signal);
    }
    export default { render };

Rules of the house: every listener dies with ``signal``; nothing has a global id; nothing is said by
colour alone; a slider is a native ``<input type="range">``; ``describe`` says in words what is
shown *now*.
"""

from __future__ import annotations

import io
import re
from html import escape
from pathlib import Path

import anywidget
import traitlets

HERE = Path(__file__).resolve().parent

_IMPORT = re.compile(
    r"""^import\s*(?:\{(?P<names>[^}]*)\}|\*\s*as\s+(?P<star>\w+))\s*from\s*"""
    r"""["']\./(?P<file>[\w-]+)\.js["'];?[ \t]*$""",
    re.M,
)
_EXPORT = re.compile(r"^export\s+(?=(?:async\s+)?(?:function\b\*?|const|let|class)\s+(\w+))", re.M)
_LEFT = re.compile(r"^\s*(?:import\b(?!\s*\()|export\b).*$", re.M)


def bundle(name: str, folder: Path = HERE) -> str:
    """Return ``name.js`` as one ES module, with the relative modules it imports put inside.

    Jupyter and the static page each load a widget from a single text, where ``./common.js`` has
    no meaning. So every imported module becomes a function that is called once and returns its
    exports: names inside it stay its own.

    Parameters
    ----------
    name
        The module, without ``.js``.
    folder
        Where the modules lie.

    Returns
    -------
    str
        The text of an ES module without any import; its exports are those of ``name.js``.

    Raises
    ------
    FileNotFoundError
        If a module does not exist.
    ValueError
        For what the bundler does not read: a package import, an import cycle, a default export
        or ``export {...}`` in an imported module.

    Examples
    --------
    >>> "import" in bundle("common")
    False
    """
    parts: list[str] = []
    done: set[str] = set()

    def convert(module: str, above: tuple[str, ...]) -> str:
        path = folder / f"{module}.js"
        if not path.exists():
            raise FileNotFoundError(f"{above[-1] if above else 'bundle'} needs {path.name}, "
                                    f"and {folder} has no such file")  # fmt: skip
        if module in above:
            raise ValueError("modules import each other in a circle: "
                             + " → ".join((*above, module)))  # fmt: skip
        text = path.read_text(encoding="utf-8")
        for match in _IMPORT.finditer(text):
            if match["file"] not in done:
                inner = convert(match["file"], (*above, module))
                names = ", ".join(_EXPORT.findall(inner))
                body = _EXPORT.sub("", inner)
                if left := _LEFT.search(body):
                    raise ValueError(f"{match['file']}.js: cannot inline {left[0].strip()!r}; write "
                                     "'export function f' or 'export const x'")  # fmt: skip
                parts.append(
                    f"const {_variable(match['file'])} = (() => {{\n{body}\nreturn {{ {names} }};\n}})();"
                )
                done.add(match["file"])
        text = _IMPORT.sub(_unpack, text)
        for left in _LEFT.finditer(text):
            if left[0].lstrip().startswith("import"):
                raise ValueError(f"{path.name}: cannot inline {left[0].strip()!r}; write "
                                 'import { a, b } from "./file.js"')  # fmt: skip
        return text

    entry = convert(name, ())
    return "\n".join([*parts, entry])


def _variable(module: str) -> str:
    return "$" + re.sub(r"\W", "_", module)


def _unpack(match: re.Match) -> str:
    variable = _variable(match["file"])
    if match["star"]:
        return f"const {match['star']} = {variable};"
    names = re.sub(r"(\w+)\s+as\s+(\w+)", r"\1: \2", match["names"])
    return f"const {{{names}}} = {variable};"


def styles(name: str, folder: Path = HERE) -> str:
    """Return the common style sheet followed by ``name.css``, if there is one."""
    files = (folder / "common.css", folder / f"{name}.css")
    return "\n".join(f.read_text(encoding="utf-8") for f in files if f.exists())


class Widget(anywidget.AnyWidget):
    """Base of the book's widgets; see the module's docstring for how to write one.

    With a kernel it is an ordinary ipywidget: observe its traits, link them, set them. Without
    one, the same ES module runs on the built page by itself.
    """

    _name: str = ""  #: stem of the .js and .css files
    _title: str = ""  #: accessible name
    _shown: tuple[str, ...] = ()  #: traits that stand in the repr, small ones only
    _size: tuple[float, float] = (6.4, 4.0)  #: of the picture, in inches

    _poster = traitlets.Unicode("", help="SVG for readers without JavaScript").tag(sync=True)

    def __init_subclass__(cls, **kwargs) -> None:
        super().__init_subclass__(**kwargs)
        if "_name" in vars(cls):
            cls._esm = bundle(cls._name)
            cls._css = styles(cls._name)

    def __repr__(self) -> str:
        """Name and values, never an address: notebooks are compared with what they printed."""
        return f"{type(self).__name__}({', '.join(f'{k}={_short(getattr(self, k))}' for k in self._shown)})"

    def alt(self) -> str:
        """Say in one sentence what the picture shows."""
        return f"{self._title}, as it stands before anything is moved."

    def draw(self, figure) -> None:
        """Draw the widget's present state into a matplotlib figure. Subclasses do."""
        raise NotImplementedError(
            f"{type(self).__name__} draws no picture: write draw(self, figure)"
        )

    def poster(self) -> str:
        """Return an SVG picture of the present state, with a title and a description."""
        return picture(self.draw, self._title or type(self).__name__, self.alt(), self._size)

    def _repr_mimebundle_(self, **kwargs):
        """Add the picture, for every viewer that runs no widgets (GitHub, nbviewer, print)."""
        data = super()._repr_mimebundle_(**kwargs)
        if data is None:
            return None
        views, metadata = data if isinstance(data, tuple) else (data, {})
        return {**views, **self._still()}, metadata

    def _still(self) -> dict[str, str]:
        """The view that needs no JavaScript, by mime type; none where matplotlib is missing."""
        try:
            self._poster = self.poster()
        except ModuleNotFoundError as error:
            if error.name != "matplotlib":
                raise
            return {}
        return {"image/svg+xml": self._poster}


def _short(value) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        if len(value) > 8 or any(isinstance(v, (list, tuple, dict)) for v in value):
            return f"<{len(value)}>"
        return "[" + ", ".join(map(_short, value)) + "]"
    return repr(value)


def picture(draw, title: str, description: str, size=(6.4, 4.0)) -> str:
    """Draw with the book's style into an SVG text that is the same on every run.

    Parameters
    ----------
    draw
        Called with a `matplotlib.figure.Figure`.
    title, description
        What the picture is, and what it shows; written into the SVG.
    size
        Width and height in inches.

    Examples
    --------
    >>> svg = picture(lambda figure: figure.add_subplot().plot([1, 2]), "A line", "It rises.")
    >>> svg.startswith("<svg") and "<desc>It rises.</desc>" in svg
    True
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings = {
        "svg.hashsalt": title,
        "svg.fonttype": "none",
        "figure.constrained_layout.use": True,
    }
    text = io.StringIO()
    with matplotlib.rc_context(fname=HERE.parent / "bn.mplstyle"):
        matplotlib.rcParams.update(settings)
        figure = Figure(figsize=size)
        draw(figure)
        FigureCanvasSVG(figure).print_svg(
            text, metadata={"Date": None, "Creator": None, "Type": None, "Format": None}
        )
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.S)
    head = f'<svg role="img"><title>{escape(title)}</title>\n<desc>{escape(description)}</desc>'
    start, end = head.split(">", 1)
    opening = svg.index(">")
    return start + svg[4:opening] + ">" + end + svg[opening + 1 :]
