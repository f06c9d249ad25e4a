"""Numbers in prose come from code: find the bound ones, compute them, compare.

In Markdown a computed number is followed at once by an HTML comment that holds an expression,
``0.9047<!--= chain.step_exact(1, w, .002) -->``; no reader sees it, in Jupyter, on Colab or on
the site. Behind the closing dollar of a formula it binds the formula's last number; inside displayed
maths it stands in a TeX comment at the end of a line, ``\\ldots % <!--= value -->``. When the
expression gives k values it binds the last k numbers in front of it (a row of a table, a vector).
The expression is evaluated in the namespace of the notebook at that point (a name that a later
cell defines: at the end), and compared after rounding to the digits that are printed.

``python tests/prose.py book/why/deep_linear_chain.ipynb …`` prints what a chapter's author needs.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import linecache
import os
import re
import sys
import traceback
import warnings
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
BOOK = ROOT / "book"
SKIPPED = {"skip-execution", "nbval-skip"}

_SUPERSCRIPT = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_SPACE = r"(?:,|\{,\}|\\,|\u202f|\u2009|\u00a0)"
_POWER = r"10(?:\^\{?[+\-−]?\d+\}?|[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+)"
_NUMBER = re.compile(
    rf"""(?<![\w.])(?<![_^]\{{)(?<![_^])       # not inside a word, a subscript or an exponent
    (?P<sign>(?<![\w)\]}}^_])[+\-−])?           # a sign, unless something is subtracted from
    (?<![\^_][\-−+])(?<![\^_]\{{[\-−+])
    (?:(?P<power>{_POWER})|
       (?P<mantissa>\d{{1,3}}(?:{_SPACE}\d{{3}})+(?!\d)(?:\.\d+)?|\d*\.\d+|\d+)
       (?:[eE](?P<e>[+\-−]?\d+)(?!\w)|\s*(?:\\times|\\cdot|×|·)\s*(?P<times>{_POWER}))?)
    """,
    re.X,
)
_BINDING = re.compile(r"<!--=(.*?)-->", re.S)
_LIST = r"[-−]?[\d.]+(?:,?(?:\\[ ,;]|\s)*[-−]?[\d.]+)*"
_SETTING = (  # \eta = 0.002, w_1 = 1.1, \gamma = (1.5, 1, 0.5): but not \hat x = …
    r"(?<!hat )(?<!hat\{)(?<![\\A-Za-z])"
    r"(?:\\(?:eta|epsilon|varepsilon|delta|gamma|beta|lambda|alpha)|[xwpmηεδγβλα])(?:_(?:\w|\{\w+\}))?"
    rf"\s*=\s*(?:\({_LIST}\)|[-−]?[\d.]+)(?![\d.]|\s*(?:\\times|\\cdot|[-+/^]))"
)
_CLOSERS = re.compile(r"(?:\s|…|\\l?dots|\\?%|\*|_|&|\\\\|\\end\{\w+\*?\}|\)|\]|\})*$")


@dataclass(frozen=True)
class Number:
    """A printed number: its exact value, the unit of its last digit, and where it stands."""

    text: str
    value: Fraction
    unit: Fraction
    start: int
    end: int
    cut: bool = False

    def agrees(self, value) -> bool:
        """Does `value`, rounded to the printed digits, read like this? A tie may go either way.

        A number that goes on in dots, 333.33…, is cut, not rounded.
        """
        slack = self.unit * Fraction(1, 10**9)
        if self.cut:
            beyond = (Fraction(value) - self.value) * (-1 if self.text[0] in "-−" else 1)
            return -slack <= beyond < self.unit + slack
        return abs(Fraction(value) - self.value) <= self.unit / 2 + slack


@dataclass(frozen=True)
class Binding:
    """An expression in a comment, and the numbers in front of it that it may bind."""

    expression: str
    numbers: tuple[Number, ...]
    before: str
    start: int


def _exponent(power: str) -> int:
    return int(power[2:].strip("^{}").translate(_SUPERSCRIPT).replace("−", "-"))


def numbers(text: str, offset: int = 0) -> list[Number]:
    """Every number in `text`, with its value and the unit of its last printed digit."""
    found = []
    for match in _NUMBER.finditer(text):
        sign = -1 if match["sign"] in ("-", "−") else 1
        if match["power"]:
            digits, exponent = "1", _exponent(match["power"])
        else:
            digits = re.sub(_SPACE, "", match["mantissa"])
            exponent = int((match["e"] or "0").replace("−", "-"))
            exponent += _exponent(match["times"]) if match["times"] else 0
        scale = Fraction(10) ** exponent
        unit = scale / 10 ** len(digits.partition(".")[2])
        value = sign * Fraction(digits if digits[0] != "." else "0" + digits) * scale
        cut = re.match(r"…|\.\.\.|\s*\\l?dots", text[match.end() :]) is not None
        start, end = offset + match.start(), offset + match.end()
        found.append(Number(match[0], value, unit, start, end, cut))
    return found


def _blanked(pattern: str, text: str, flags=0) -> str:
    return re.sub(pattern, lambda m: re.sub(r"[^\n]", " ", m[0]), text, flags=flags)


def without_code(text: str) -> str:
    """`text` with fenced code and code spans blanked out, every position kept."""
    text = _blanked(r"^(?P<fence>`{3,}|~{3,}).*?^(?P=fence)`*\s*$", text, re.M | re.S)
    return _blanked(r"(?<!`)(?P<tick>`+)(?!`).+?(?<!`)(?P=tick)(?!`)", text, re.S)


def bindings(text: str) -> list[Binding]:
    """The bindings of a Markdown text, in order."""
    text = without_code(text)
    found, last = [], 0
    for match in _BINDING.finditer(text):
        start = max(last, text.rfind("\n\n", 0, match.start()) + 1)
        before = text[start : match.start()]
        last = match.end()
        stem = before.rstrip()
        seen = numbers(before, start)
        if stem.endswith("$") and not stem.endswith("$$"):
            opening = start + stem.rfind("$", 0, len(stem) - 1)
            if not any(n.start > opening for n in seen):
                seen = []
        elif stem.endswith("$$"):
            pass
        elif seen and start + len(_CLOSERS.sub("", stem)) != seen[-1].end:
            seen = []
        found.append(Binding(match[1].strip(), tuple(seen), before.strip()[-40:], match.start()))
    return found


def _values(result) -> list:
    """The number or numbers that an expression gave, as exact Python numbers."""
    if hasattr(result, "detach"):
        result = result.detach().cpu().numpy()
    if isinstance(result, int | Fraction) and not isinstance(result, bool):
        return [Fraction(result)]
    array = np.asarray(result)
    if array.dtype.kind not in "iuf" or array.size == 0:
        raise TypeError(f"the expression gives {result!r}, which is not a number")
    if not np.all(np.isfinite(array)):
        raise ValueError(f"the expression gives {result!r}")
    return [Fraction(v.item()) for v in array.ravel()]


def _shown(value: Fraction) -> str:
    try:
        return f"{float(value):.10g}"
    except OverflowError:
        return str(value)


def compare(binding: Binding, result) -> str:
    """What is wrong between the printed numbers and the computed ones; empty when they agree."""
    values = _values(result)
    if not binding.numbers:
        return "there is no number directly before the comment"
    if len(values) > len(binding.numbers):
        return f"the expression gives {len(values)} values for {len(binding.numbers)} numbers"
    for number, value in zip(binding.numbers[-len(values) :], values, strict=True):
        if not number.agrees(value):
            return f"prints {number.text}, computed is {_shown(value)}"
    return ""


def unbound(text: str, covered: set[int] = frozenset()) -> list[str]:
    """The decimal numbers of a chapter's prose that no binding vouches for.

    `covered` holds the positions of the numbers that are bound. Free are code, links, headings,
    numbers of versions and sections, and the settings of a symbol, such as
    ``\\eta = 0.002`` or ``\\gamma = (1.5, 1)``. Anything else is bound, a constant to itself: ``0.1<!--= 0.1 -->``.
    """
    text = without_code(text)
    text = _blanked(r"<!--.*?-->", text, re.S)
    text = _blanked(r"!?\[[^\]]*\]\([^)]*\)|<https?:[^>]*>|https?://\S+", text)
    text = _blanked(r"^#{1,6} .*$", text, re.M)
    text = _blanked(r"</?[A-Za-z][^>]*>", text)
    text = _blanked(_SETTING, text)
    naming = (
        r"(?:Python|PyTorch|NumPy|[Vv]ersions?|BY|§+|"
        r"[Ss]ections?|[Ff]ig(?:ure|\.)s?|[Tt]ables?|[Tt]h(?:eorem|m\.?)|[Dd]efinition|"
        r"[Cc]hapters?|[Aa]lgorithm|[Ee]q(?:uation|\.))\s*(?:\d+(?:\.\d+)*\s*(?:,|–|and|to)\s*)?$"
    )
    loose = []
    for number in numbers(text):
        if "." not in number.text or number.start in covered:
            continue
        if re.match(r"\.\d", text[number.end :]) or re.search(naming, text[: number.start]):
            continue
        around = " ".join(text[max(0, number.start - 40) : number.end + 20].split())
        loose.append(f"{number.text} in “…{around}…”")
    return loose


@dataclass
class Page:
    """What checking a page gave: failures, loose numbers, how many agree, exercise verdicts."""

    path: Path
    failures: list[str] = field(default_factory=list)
    loose: list[str] = field(default_factory=list)
    checked: int = 0
    verdicts: list[Check] = field(default_factory=list)


@dataclass(frozen=True)
class Check:
    """One call of ``bn.check`` while a notebook ran."""

    cell: int
    tags: tuple[str, ...]
    exercise: str
    verdict: object


class _Markdown:
    """The bindings of one piece of Markdown, evaluated as soon as their names exist."""

    def __init__(self, page: Page, where: str, text: str):
        self.page, self.where, self.text = page, where, text
        self.waiting, self.covered = bindings(text), set()

    def evaluate(self, namespace: dict, last: bool = False) -> None:
        waiting, self.waiting = self.waiting, []
        for binding in waiting:
            try:
                result = eval(binding.expression, dict(namespace))
                problem = compare(binding, result)
                self.covered |= {n.start for n in binding.numbers[-len(_values(result)) :]}
                self.page.checked += 1
            except NameError as error:
                if not last:
                    self.waiting.append(binding)
                    continue
                problem = f"{type(error).__name__}: {error}"
            except Exception as error:
                problem = f"{type(error).__name__}: {error}"
            if "--" in binding.expression:
                problem = "'--' ends an HTML comment early in some renderers; write it otherwise"
            if problem:
                self.page.failures.append(
                    f"{self.where}: “…{binding.before}” <!--= {binding.expression} -->: {problem}"
                )

    def finish(self, namespace: dict) -> None:
        self.evaluate(namespace, last=True)
        self.page.loose += [f"{self.where}: {n}" for n in unbound(self.text, self.covered)]


def check_text(text: str, namespace: dict, path: Path = Path("text.md")) -> Page:
    """Check the numbers of one piece of Markdown."""
    page = Page(path)
    _Markdown(page, path.name, text).finish(namespace)
    return page


@contextlib.contextmanager
def _in(folder: Path):
    """As a notebook's kernel sees the world: its own folder, no window, nobody listening."""
    import matplotlib
    import matplotlib.pyplot as plt

    before = Path.cwd()
    os.chdir(folder)
    sink = io.StringIO()
    try:
        with (
            matplotlib.rc_context({"backend": "agg", "figure.max_open_warning": 0}),
            warnings.catch_warnings(),
            contextlib.redirect_stdout(sink),
            contextlib.redirect_stderr(sink),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        plt.close("all")
        os.chdir(before)


@functools.cache
def check_page(path: Path) -> Page:
    """Run a notebook, or read a Markdown page, and check every bound number on the way.

    A notebook's code cells run in this process, in order, in the notebook's folder. Cells tagged
    ``skip-execution`` or ``nbval-skip`` do not run.
    """
    if path.suffix == ".md":
        import bn

        namespace = {"np": np, "bn": bn}
        return check_text(path.read_text(encoding="utf-8"), namespace, path)

    from IPython.display import display  # IPython has it built in

    import bn.exercises

    page, namespace, texts = Page(path), {"__name__": "__main__", "display": display}, []
    original = bn.exercises.check
    with _in(path.parent):
        try:
            for i, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
                source = "".join(cell["source"])
                tags = tuple(cell["metadata"].get("tags", ()))
                if cell["cell_type"] == "markdown":
                    texts.append(_Markdown(page, f"{path.name}, cell {i}", source))
                    texts[-1].evaluate(namespace)
                elif cell["cell_type"] == "code" and not SKIPPED & set(tags):

                    def recorded(name, answer, *, seed=None, _at=(i, tags)):
                        verdict = original(name, answer, seed=seed)
                        page.verdicts.append(Check(*_at, name, verdict))
                        return verdict

                    bn.exercises.check = recorded
                    _execute(source, f"{path.name}, cell {i}", namespace)
        except _Failed as failed:  # kept, so that the page does not run again for the next test
            page.failures.append(str(failed))
            return page
        finally:
            bn.exercises.check = original
        for text in texts:
            text.finish(namespace)
    return page


class _Failed(Exception):
    """A cell failed; the message says which and how."""


def _execute(source: str, name: str, namespace: dict) -> None:
    lines = ["" if line.startswith("%") else line for line in source.splitlines(keepends=True)]
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    try:
        exec(compile("".join(lines), name, "exec"), namespace)
    except Exception as error:
        line = traceback.extract_tb(error.__traceback__)[1].line
        raise _Failed(f"{name} fails: {type(error).__name__}: {error} in: {line}") from error


def pages() -> list[Path]:
    """Every page of the book, and the README."""
    found = [p for p in BOOK.rglob("*") if p.suffix in (".ipynb", ".md")]
    hidden = {"_build", ".ipynb_checkpoints", "_ext", "_static"}
    found = [p for p in found if not hidden & set(p.relative_to(BOOK).parts)]
    return [*sorted(found), ROOT / "README.md"]


def chapters() -> list[Path]:
    """The notebooks of the four parts."""
    return [p for p in pages() if p.suffix == ".ipynb" and p.parent != BOOK]


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        result = check_page(Path(argument).resolve())
        print(f"{argument}: {result.checked} numbers checked")
        print("\n".join(f"  wrong: {line}" for line in result.failures) or "  none wrong")
        print("\n".join(f"  loose: {line}" for line in result.loose) or "  none loose")
        for seen in result.verdicts:
            print(f"  cell {seen.cell} {' '.join(seen.tags)}: {seen.verdict!r}")
