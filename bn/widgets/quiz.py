"""A quiz from a JSON file: feedback on every option, maths everywhere, progress that is kept."""

from __future__ import annotations

import json
import random
import re
import textwrap
from pathlib import Path
from xml.etree import ElementTree

import traitlets

from ._base import HERE, Widget

_INLINE = re.compile(
    r"\\(?P<plain>[\\`*$\[\]])"
    r"|`(?P<code>[^`]+)`"
    r"|\$(?P<math>(?:\\.|[^$\\])+)\$"
    r"|\*\*(?P<strong>.+?)\*\*"
    r"|\*(?P<em>[^*\s](?:[^*]*[^*\s])?)\*"
    r"|\[(?P<label>[^\]]+)\]\((?P<href>[^()\s]+)\)"
)
_SAFE_LINK = re.compile(r"^(?:https?://|#|[\w.][\w./#-]*$)")


class QuizError(ValueError):
    """A quiz file that cannot be used, and why."""


def tokens(text: str, where: str = "text") -> list[dict]:
    """Read the small Markdown of a quiz into pieces that a page builds without `innerHTML`.

    Maths becomes MathML here, because JupyterLab lends widgets no MathJax and every browser
    draws MathML by itself. The TeX goes along: a page that has MathJax sets it in its own font.

    Parameters
    ----------
    text
        Text with ``*emphasis*``, ``**strong**``, `` `code` ``, ``[links](…)`` and ``$maths$``; a
        backslash before one of these signs makes it plain.
    where
        Named in an error.

    Examples
    --------
    >>> tokens("a *b*")
    [{'text': 'a '}, {'em': [{'text': 'b'}]}]
    """
    out: list[dict] = []

    def plain(piece: str) -> None:
        if piece and out and "text" in out[-1]:
            out[-1]["text"] += piece
        elif piece:
            out.append({"text": piece})

    end = 0
    for m in _INLINE.finditer(text):
        plain(text[end : m.start()])
        end = m.end()
        kind = m.lastgroup
        if kind == "plain":
            plain(m["plain"])
        elif kind == "code":
            out.append({"code": m["code"]})
        elif kind == "math":
            out.append({"tex": m["math"], "mathml": _mathml(m["math"], where)})
        elif kind == "href":
            if not _SAFE_LINK.match(m["href"]):
                raise QuizError(
                    f"{where}: a link to {m['href']!r}; use https:// or a relative page"
                )
            out.append({"href": m["href"], "label": tokens(m["label"], where)})
        else:
            out.append({kind: tokens(m[kind], where)})
    plain(text[end:])
    if any("$" in t.get("text", "") for t in out) and "\\$" not in text:
        raise QuizError(f"{where}: a dollar sign without its partner in {text!r}; write \\\\$ in the "
                        "JSON file for a plain one")  # fmt: skip
    return out


# How many parts each of these has; the converter lets \frac{1} through with one.
_PARTS = {
    "mfrac": 2,
    "msup": 2,
    "msub": 2,
    "mover": 2,
    "munder": 2,
    "mroot": 2,
    "msubsup": 3,
    "munderover": 3,
}


def _mathml(tex: str, where: str) -> str:
    from latex2mathml.converter import convert

    try:
        if tex.count("{") != tex.count("}"):
            raise ValueError("braces do not match")
        mathml = convert(tex)
        for node in ElementTree.fromstring(mathml).iter():
            name = node.tag.split("}")[1]
            if len(node) != _PARTS.get(name, len(node)):
                raise ValueError("a part is missing")
    except Exception as error:  # the converter raises many kinds, some of them bare
        why = str(error) if type(error) is ValueError else type(error).__name__
        raise QuizError(f"{where}: cannot read the maths ${tex}$: {why}") from error
    if unknown := re.search(r"\\[a-zA-Z]+", mathml):
        raise QuizError(f"{where}: unknown command {unknown[0]} in the maths ${tex}$")
    return mathml


def load(path: str | Path) -> dict:
    """Read and check a quiz file.

    Parameters
    ----------
    path
        The JSON file; its form is ``bn/widgets/quiz.schema.json``.

    Returns
    -------
    dict
        The file's content.

    Raises
    ------
    FileNotFoundError
        With where it was looked for.
    QuizError
        With the place in the file, what is wrong there and what belongs there.
    """
    import jsonschema

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no quiz file {path.name} in {path.resolve().parent}. It lies beside its chapter: run the "
            "notebook from its own folder, in a clone of the repository."
        )
    try:
        quiz = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise QuizError(f"{path.name} is not JSON in UTF-8: {error}. In JSON a backslash is "
                        r"written twice: $\\mu$.") from error  # fmt: skip
    schema = json.loads((HERE / "quiz.schema.json").read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator(schema)
    if error := jsonschema.exceptions.best_match(validator.iter_errors(quiz)):
        raise QuizError(f"{path.name}: {_place(error.absolute_path)}: {error.message}")
    ids = [q["id"] for q in quiz["questions"]]
    if twice := {i for i in ids if ids.count(i) > 1}:
        raise QuizError(f"{path.name}: two questions have the id {min(twice)!r}; give each its own")
    for i, question in enumerate(quiz["questions"]):
        place = f"{path.name}: {_place(['questions', i])} ({question['id']})"
        right = sum(o.get("correct", False) for o in question["options"])
        if question.get("multiple") and right == 0:
            raise QuizError(f"{place}: no option is correct; mark those that are")
        if not question.get("multiple") and right != 1:
            raise QuizError(f'{place}: {right} options are correct, not 1; with "multiple": true '
                            "there may be several")  # fmt: skip
        texts = [o["text"] for o in question["options"]]
        if len(set(texts)) < len(texts):
            raise QuizError(f"{place}: two options say the same")
    return quiz


def _place(path) -> str:
    """['questions', 0, 'options', 2] in words: question 1, option 3."""
    path = list(path)
    words = []
    for key, index in zip(path, [*path[1:], None], strict=False):
        if isinstance(key, str):
            words.append(f"{key[:-1]} {index + 1}" if isinstance(index, int) else key)
    return ", ".join(words) or "the file"


def _order(quiz_id: str, question: dict) -> list[int]:
    """Shuffle the options, the same way every time: the right one tends to be written first."""
    order = list(range(len(question["options"])))
    if not question.get("keep_order"):
        random.Random(f"{quiz_id}/{question['id']}").shuffle(order)
    return order


class Quiz(Widget):
    """A chapter's quiz.

    Parameters
    ----------
    path
        The JSON file beside the chapter.

    Attributes
    ----------
    right : int
        How many questions are answered right, now.
    passed : bool
        Whether all are.

    Notes
    -----
    Answers are kept in the browser's own storage, under the quiz's id, and nowhere else. What
    the learner picked is also in the trait ``picked``: question id → numbers of the options.
    """

    _name = "quiz"
    _title = "Quiz"
    _shown = ("quiz_id", "total", "right")

    quiz_id = traitlets.Unicode(help="the chapter's page").tag(sync=True)
    questions = traitlets.List(help="the questions, their texts as pieces").tag(sync=True)
    heading = traitlets.Unicode().tag(sync=True)
    picked = traitlets.Dict(help="question id -> options picked and checked").tag(sync=True)
    right = traitlets.Int(0, min=0).tag(sync=True)
    passed = traitlets.Bool(False).tag(sync=True)

    def __init__(self, path: str | Path, **kwargs) -> None:
        self.source = quiz = load(path)
        name = Path(path).name
        questions = []
        for i, question in enumerate(quiz["questions"]):
            place = f"{name}: question {i + 1} ({question['id']})"
            questions.append({
                "id": question["id"],
                "multiple": question.get("multiple", False),
                "order": _order(quiz["id"], question),
                "prompt": tokens(question["prompt"], place),
                "options": [
                    {
                        "text": tokens(o["text"], f"{place}, option {k + 1}"),
                        "feedback": tokens(o["feedback"], f"{place}, feedback {k + 1}"),
                        "correct": o.get("correct", False),
                    }
                    for k, o in enumerate(question["options"])
                ],
            })  # fmt: skip
        super().__init__(quiz_id=quiz["id"], heading=quiz["title"], questions=questions, **kwargs)

    @property
    def total(self) -> int:
        """Number of questions."""
        return len(self.questions)

    def _texts(self, question: dict) -> list[str]:
        return [question["options"][i]["text"] for i in _order(self.quiz_id, question)]

    def markdown(self) -> str:
        """The questions as Markdown, for viewers that run no widgets."""
        lines = [f"**{self.heading}** (answers and feedback: on the site or in a running notebook)"]
        for i, question in enumerate(self.source["questions"], 1):
            many = " *(several may be right)*" if question.get("multiple") else ""
            lines += ["", f"{i}. {question['prompt']}{many}", ""]
            lines += [f"   - {text}" for text in self._texts(question)]
        return "\n".join(lines) + "\n"

    def _still(self) -> dict[str, str]:
        super()._still()
        return {"text/markdown": self.markdown()}  # text and maths, better than their picture

    def alt(self) -> str:
        """Say what the quiz asks."""
        return f"{self.total} questions, answered on the site or in a running notebook."

    def poster(self) -> str:
        """Return the questions as a picture, as tall as they need."""
        self._size = (6.4, 0.23 * sum(n for *_, n in self._lines()) + 0.45)
        return super().poster()

    def _lines(self):
        """Yield (indent, bullet, text of wrapped lines, number of lines)."""
        for i, question in enumerate(self.source["questions"], 1):
            for indent, bullet, text in (
                (0, f"{i}.", question["prompt"]),
                *((1, "○", text) for text in self._texts(question)),
            ):
                lines = _wrap(text, 84 - 4 * indent)
                yield indent, bullet, "\n".join(lines), len(lines) + (0.45 if indent == 0 else 0)

    def draw(self, figure) -> None:
        """Draw the questions."""
        height = figure.get_size_inches()[1]
        y = height - 0.12
        figure.text(0.02, y / height, self.heading, weight="bold", va="top")
        y -= 0.2
        for indent, bullet, text, count in self._lines():
            y -= 0.1 if indent == 0 else 0
            x = 0.02 + 0.045 * indent
            figure.text(x, y / height, bullet, va="top", size=9)
            figure.text(x + 0.035, y / height, text, va="top", size=9, linespacing=1.5)
            y -= 0.23 * (count if indent else count - 0.45) + 0.003


def _wrap(text: str, width: int) -> list[str]:
    """Wrap text for matplotlib, never inside a formula; formulas it cannot draw stay TeX."""
    from matplotlib.mathtext import MathTextParser

    parser = MathTextParser("path")

    def words(token: dict) -> str:
        if "tex" in token:
            try:
                parser.parse(f"${token['tex']}$")
            except ValueError:
                return token["tex"].replace("$", r"\$").replace(" ", "\0")
            return f"${token['tex']}$".replace(" ", "\0")
        if "label" in token:
            return "".join(map(words, token["label"]))
        inner = next(iter(token.values()))
        return "".join(map(words, inner)) if isinstance(inner, list) else inner.replace("$", r"\$")

    flat = "".join(map(words, tokens(text)))
    lines = textwrap.wrap(flat, width, break_long_words=False, break_on_hyphens=False)
    return [piece.replace("\0", " ") for piece in lines]
