"""Exercises whose check names the mistake.

``bn.check("transform/standardize", your_function)`` runs your function on fresh random inputs and
answers in words. A wrong answer is compared, on the same inputs, with a bank of classic wrong
solutions: when it equals one of them everywhere, the verdict says which.

An exercise of chapter ``transform`` is declared in ``bn/exercises/transform.py``, in the list
``EXERCISES``; nothing else needs to know about it::

    EXERCISES = [
        Exercise(
            "transform/standardize",
            reference=lambda x: (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5),
            draw=lambda rng: (rng.normal(size=(rng.integers(4, 9), 3)),),
            mistakes={"you divided by m − 1 in the variance": ...},
        ),
    ]
"""

from __future__ import annotations

import copy
import difflib
import functools
import importlib
import inspect
import linecache
import pkgutil
import textwrap
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

__all__ = ["Exercise", "Verdict", "check", "get", "names"]

STATES = ("passes", "not attempted", "raises", "mistake", "wrong")


@dataclass(frozen=True)
class Exercise:
    """One coding exercise and what is known about its wrong answers.

    Parameters
    ----------
    name : str
        ``"chapter/exercise"``; the chapter is the name of the module that declares it.
    reference : callable
        A right solution. Its parameter names are shown to the learner. It may return a number,
        an array, a tensor, or a tuple, list or dict of these.
    draw : callable
        ``draw(rng)`` returns the tuple of arguments for one call, drawn with the
        :class:`numpy.random.Generator` it is given. Draw shapes as well as values. An exercise
        whose answer is a value, not a function, has ``draw=lambda rng: ()``.
    mistakes : dict of str to callable
        The bank: a sentence that tells the learner what they did, and a function that does it.
        Each must differ from the reference, and from the others, on almost every draw.
    hint : str
        One sentence, shown with a wrong answer that is not in the bank.
    rtol, atol : float
        An entry is right when ``|got - expected| <= atol + rtol * |expected|``.
    draws : int
        Fresh inputs for each check.
    """

    name: str
    reference: Callable
    draw: Callable[[np.random.Generator], tuple]
    mistakes: Mapping[str, Callable] = field(default_factory=dict)
    hint: str = ""
    rtol: float = 1e-6
    atol: float = 1e-8
    draws: int = 6


@dataclass(frozen=True, repr=False)
class Verdict:
    """What :func:`check` found. Shows itself as plain text; true when the answer passes.

    Attributes
    ----------
    exercise : str
        The exercise's name.
    state : str
        ``"passes"``, ``"not attempted"``, ``"raises"``, ``"mistake"`` or ``"wrong"``.
    message : str
        The verdict in words.
    mistakes : tuple of str
        The known mistakes it looks like; empty unless ``state`` is ``"mistake"``.
    inputs : tuple
        The arguments of the call that the verdict is about, to try again by hand:
        ``your_function(*verdict.inputs)``.
    """

    exercise: str
    state: str
    message: str
    mistakes: tuple[str, ...] = ()
    inputs: tuple = ()

    def __bool__(self) -> bool:
        return self.state == "passes"

    def __repr__(self) -> str:
        first, *rest = f"{self.exercise}: {self.message}".split("\n")
        return "\n".join(
            textwrap.fill(line, 76, initial_indent=indent, subsequent_indent="  ",
                          break_long_words=False, break_on_hyphens=False)
            for line, indent in [(first, ""), *((line, "  ") for line in rest)]
        )  # fmt: skip

    __str__ = __repr__


# ------------------------------------------------------------------------------- registry


def _chapters() -> list[str]:
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


@functools.cache
def _chapter(chapter: str) -> dict[str, Exercise]:
    module = importlib.import_module(f"{__name__}.{chapter}")
    exercises = getattr(module, "EXERCISES", ())
    for exercise in exercises:
        if not exercise.name.startswith(f"{chapter}/"):
            raise ValueError(
                f"bn/exercises/{chapter}.py declares {exercise.name!r}: "
                f"its name must begin with '{chapter}/'."
            )
    return {exercise.name: exercise for exercise in exercises}


def names() -> list[str]:
    """The names of all exercises, chapter by chapter, in the order of the chapters' text."""
    return [name for chapter in _chapters() for name in _chapter(chapter)]


def get(name: str) -> Exercise:
    """The exercise called `name`.

    Raises
    ------
    LookupError
        There is none; the message offers the names that come close.
    """
    if not isinstance(name, str):
        raise TypeError(
            f"the exercise's name comes first, then your function: "
            f"bn.check('chapter/exercise', f). Got {type(name).__name__} first."
        )
    chapter = name.partition("/")[0]
    if chapter in _chapters() and name in _chapter(chapter):
        return _chapter(chapter)[name]
    known = names()
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or [
        n for n in known if name.split("/")[-1] in n
    ]
    raise LookupError(
        f"no exercise is called {name!r}. "
        + (f"Did you mean {' or '.join(map(repr, close))}?" if close
           else f"There are: {', '.join(known)}.")
    )  # fmt: skip


# ------------------------------------------------------------------------------- the check


def check(name: str, answer, *, seed: int | None = None) -> Verdict:
    """Check an answer on fresh random inputs, and say in words what was found.

    Parameters
    ----------
    name : str
        The exercise, for example ``"transform/standardize"``; :func:`names` lists them.
    answer : callable
        Your function. For an exercise that asks for a value: the value.
    seed : int, optional
        Draw the same inputs again. By default every call draws new ones.

    Returns
    -------
    Verdict
        Shows itself as text, and is true when the answer passes.

    Raises
    ------
    LookupError
        No exercise has this name.
    TypeError
        `answer` is not a function although the exercise asks for one.

    Examples
    --------
    >>> import bn
    >>> bn.check("start/centre", lambda x: x - x.mean())
    start/centre: passes.
    """
    return judge(get(name), answer, seed=seed)


def judge(exercise: Exercise, answer, *, seed: int | None = None) -> Verdict:
    """:func:`check` for an :class:`Exercise` that is not in the registry."""
    rng = np.random.default_rng(seed)
    calls = [tuple(exercise.draw(rng)) for _ in range(exercise.draws)]
    verdict = functools.partial(Verdict, exercise.name)
    untouched = verdict("not attempted", "not attempted yet.")
    if answer is None or answer is ...:
        return untouched
    if not callable(answer):
        if calls[0]:
            raise TypeError(
                f"{exercise.name} asks for a function of {_parameters(exercise)}: write "
                f"bn.check({exercise.name!r}, f), not f(…). Got {_summary(answer)}."
            )
        value = answer

        def answer():
            return value

    problem = _signature_problem(exercise, answer, calls[0])
    if problem:
        return verdict("raises", problem, inputs=calls[0])

    expected = [_run(exercise.reference, args) for args in copy.deepcopy(calls)]
    for outcome in expected:
        if isinstance(outcome, _Raised):
            raise outcome.error  # an exercise whose own solution fails is ours to mend
    given = copy.deepcopy(calls)
    got = [_like(e, _run(answer, args)) for e, args in zip(expected, given, strict=True)]
    if all(_blank(g) for g in got):
        return untouched

    report = [_compare(exercise, e, g) for e, g in zip(expected, got, strict=True)]
    worst = next((i for i, r in enumerate(report) if r), None)
    if worst is None:
        for i, (args, after) in enumerate(zip(calls, given, strict=True)):
            for label, before, now in zip(_labels(exercise, args), args, after, strict=True):
                if not _unchanged(before, now):
                    return verdict(
                        "wrong",
                        f"the result is right, but your function changed its input {label}. "
                        f"Work on a copy: an operation such as {label} -= … writes into the "
                        f"caller's array.",
                        inputs=calls[i],
                    )
        return verdict("passes", "passes.")

    named = _recognise(exercise, calls, expected, got)
    about = f"On {_call(exercise, calls[worst])}: "
    if named:
        sentences = " Or: ".join(_sentence(m) for m in named)
        return verdict("mistake", f"not yet. This looks like a known mistake.\n{sentences}",
                       mistakes=tuple(named), inputs=calls[worst])  # fmt: skip
    if isinstance(got[worst], _Raised):
        return verdict("raises", f"raises an error.\n{about}{got[worst].text(answer)}",
                       inputs=calls[worst])  # fmt: skip
    right = sum(not r for r in report)
    lines = ["not yet.", about + report[worst]]
    if right:
        lines.append(f"Right on {right} of {len(report)} inputs.")
    relation = _relation(expected, got)
    if relation:
        lines.append(relation)
    if exercise.hint:
        lines.append(f"Hint: {exercise.hint}")
    return verdict("wrong", "\n".join(lines), inputs=calls[worst])


@dataclass
class _Raised:
    error: Exception

    def text(self, fn) -> str:
        what = f"{type(self.error).__name__}: {self.error}".strip()
        code = getattr(inspect.unwrap(fn), "__code__", None)
        frames = traceback.extract_tb(self.error.__traceback__)
        for frame in reversed(frames):
            if code is not None and frame.filename == code.co_filename:
                line = linecache.getline(frame.filename, frame.lineno).strip()
                return what + (f"\nRaised in the line: {line}" if line else "")
        return what

    def like(self, other) -> bool:
        return isinstance(other, _Raised) and (type(self.error), str(self.error)) == (
            type(other.error),
            str(other.error),
        )


def _run(fn, args):
    """What `fn` gives for `args`, or the error it raises. NaN is reported, not warned about."""
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return fn(*args)
    except Exception as error:
        return _Raised(error)


def _blank(outcome) -> bool:
    """What a stub gives: None, ``...``, a tuple of these, or NotImplementedError."""
    if isinstance(outcome, _Raised):
        return isinstance(outcome.error, NotImplementedError)
    return all(part is None or part is ... for _, part in _parts(outcome))


# ------------------------------------------------------------------- comparing two results


def _parts(value) -> list[tuple[str, object]]:
    """A result as labelled parts: ``[("", value)]``, or one for each element of a tuple."""
    if isinstance(value, Mapping):
        return [(f"[{key!r}]", part) for key, part in sorted(value.items(), key=str)]
    if isinstance(value, tuple) and value:
        return [(f"[{i}]", part) for i, part in enumerate(value)]
    return [("", value)]


def _like(expected, got):
    """`got` in the form of `expected`: a list will do for a tuple, a tuple for an array."""
    if isinstance(expected, tuple) and isinstance(got, list):
        return tuple(got) if len(got) == len(expected) else got
    if not isinstance(expected, tuple | Mapping) and isinstance(got, tuple):
        return array if (array := _array(got)).shape == _array(expected).shape else got
    return got


def _array(value) -> np.ndarray:
    if hasattr(value, "detach"):  # a tensor, without importing torch
        value = value.detach().cpu().numpy()
    try:
        return np.asarray(value)
    except ValueError:  # a ragged list
        return np.empty((), dtype=object)


def _close(exercise, want, have) -> np.ndarray:
    """Entry by entry: is `have` the same as `want`? Both have one shape."""
    if want.dtype.kind in "fc" or have.dtype.kind in "fc":
        return np.isclose(have, want, rtol=exercise.rtol, atol=exercise.atol, equal_nan=True)
    return want == have


def _same(exercise, want, have) -> bool:
    want, have = _array(want), _array(have)
    if want.shape != have.shape or "O" in want.dtype.kind + have.dtype.kind:
        return False
    return bool(np.all(_close(exercise, want, have)))


def _compare(exercise, expected, got) -> str:
    """Empty when right, else where and how far off."""
    if isinstance(got, _Raised):
        return "raises"
    want, have = _parts(expected), _parts(got)
    if [label for label, _ in want] != [label for label, _ in have]:
        return f"got {_form(got)}; expected is {_form(expected)}."
    for (label, w), (_, h) in zip(want, have, strict=True):
        problem = _difference(exercise, w, h)
        if problem:
            return f"result {label}, {problem}" if label else problem
    return ""


def _difference(exercise, expected, got) -> str:
    if got is None or got is ...:
        return "nothing is returned (None)."
    want, have = _array(expected), _array(got)
    if have.dtype.kind not in "biufcUS" or (want.dtype.kind in "US") != (have.dtype.kind in "US"):
        return f"got {_summary(got)}; expected is {_summary(expected)}."
    if want.shape != have.shape:
        same = want.size == have.size and np.all(_close(exercise, want.ravel(), have.ravel()))
        flip = want.shape == have.shape[::-1] and np.all(_close(exercise, want, have.T))
        note = " The values are right." if same else " It is the transpose." if flip else ""
        return f"the shape is {have.shape}; expected is {want.shape}.{note}"
    right = _close(exercise, want, have)
    if np.all(right):
        return ""
    if want.dtype.kind not in "iufc":
        at = np.argwhere(~right)[0] if right.ndim else ()
        where = f" at {_index(at)}" if len(at) else ""
        return f"expected{where} {want[tuple(at)]}, got {have[tuple(at)]}."
    off = np.where(right, 0, np.abs(np.subtract(have, want, dtype=np.result_type(have, want, 1.0))))
    strange = ~np.isfinite(have) & np.isfinite(want)
    at = np.unravel_index(np.argmax(strange if strange.any() else off), off.shape)
    e, g = want[at], have[at]
    where = f" at {_index(at)}" if off.ndim else ""
    if strange.any():
        return f"{_number(g)}{where} where {_number(e)} is expected ({_share(strange)})."
    return f"expected{where} {_number(e, g)}, got {_number(g, e)}, off by {_number(off[at])}" + (
        f" ({_share(~right)} wrong, this one most)." if off.ndim else "."
    )


def _relation(expected, got) -> str:
    """A regularity of the error that is worth saying: one factor or one shift everywhere."""
    ratios, shifts = [], []
    for e, g in zip(expected, got, strict=True):
        if isinstance(g, _Raised):
            return ""
        want, have = _parts(e), _parts(g)
        if len(want) != 1 or len(have) != 1:
            return ""
        w, h = _array(want[0][1]), _array(have[0][1])
        if w.shape != h.shape or w.dtype.kind not in "iuf" or h.dtype.kind not in "iuf":
            return ""
        with np.errstate(all="ignore"):
            ratios.append(np.ravel(h / w))
            shifts.append(np.ravel(h - np.asarray(w, dtype=float)))
    ratio, shift = np.concatenate(ratios), np.concatenate(shifts)
    if len(ratio) < 3 or not np.all(np.isfinite(ratio)) or not np.all(np.isfinite(shift)):
        return ""
    if np.allclose(ratio, ratio[0], rtol=1e-6, atol=0) and ratio[0] != 0:
        if np.isclose(ratio[0], -1):
            return "Only the sign is wrong: the result is −1 times the right one everywhere."
        return f"The result is {_number(ratio[0])} times the right one everywhere."
    if np.allclose(shift, shift[0], rtol=1e-6, atol=1e-12):
        return f"The result is the right one shifted by {_number(shift[0])} everywhere."
    return ""


def _recognise(exercise, calls, expected, got) -> list[str]:
    """The bank's mistakes that equal the answer on every input.

    A mistake explains a part of the result (one element of a returned tuple) when it equals the
    answer's part on all inputs and differs there from the reference in some finite entry. Several
    parts may be wrong in different known ways; one unexplained part, and nothing is named.
    """
    bank = {
        sentence: [
            _like(e, _run(fn, args)) for e, args in zip(expected, copy.deepcopy(calls), strict=True)
        ]
        for sentence, fn in exercise.mistakes.items()
    }

    def explaining(want, have, outcomes):
        """The sentences whose function gives `have` throughout, and not merely `want`."""
        return [
            sentence
            for sentence in bank
            if all(_equal(exercise, o, h) for o, h in zip(outcomes[sentence], have, strict=True))
            and any(_departs(exercise, w, o) for w, o in zip(want, outcomes[sentence], strict=True))
        ]

    whole = explaining(expected, got, bank)
    count = len(_parts(expected[0]))
    if whole or count == 1 or any(len(_parts(g)) != count for g in got):
        return whole
    found = []
    for i in range(count):
        want, have = _column(expected, i), _column(got, i)
        if not all(_equal(exercise, w, h) for w, h in zip(want, have, strict=True)):
            explained = explaining(want, have, {s: _column(o, i) for s, o in bank.items()})
            if not explained:
                return []
            found.append(explained[0])
    return list(dict.fromkeys(found))


def _column(outcomes, i) -> list:
    """Part `i` of each result; an error, or a result of another form, stands for itself."""
    return [parts[i][1] if len(parts := _parts(o)) > i else o for o in outcomes]


def _equal(exercise, a, b) -> bool:
    if isinstance(a, _Raised) or isinstance(b, _Raised):
        return isinstance(a, _Raised) and a.like(b)
    pa, pb = _parts(a), _parts(b)
    return len(pa) == len(pb) and all(
        _same(exercise, x, y) for (_, x), (_, y) in zip(pa, pb, strict=True)
    )


def _departs(exercise, expected, outcome) -> bool:
    """Differs from the reference in something other than NaN or infinity, which are anybody's."""
    if isinstance(outcome, _Raised):
        return True
    pe, po = _parts(expected), _parts(outcome)
    if len(pe) != len(po):
        return True
    for (_, e), (_, o) in zip(pe, po, strict=True):
        e, o = _array(e), _array(o)
        if e.shape != o.shape:
            return True
        finite = np.isfinite(o) if o.dtype.kind in "iufc" else np.ones(o.shape, dtype=bool)
        if not np.all(_close(exercise, e, o)[finite]):
            return True
    return False


def _unchanged(before, now) -> bool:
    if not hasattr(before, "shape") or not hasattr(before, "dtype"):
        return True
    return np.array_equal(_array(before), _array(now), equal_nan=_array(before).dtype.kind in "fc")


# ---------------------------------------------------------------------------------- words


def _signature_problem(exercise, fn, args) -> str:
    try:
        inspect.signature(fn).bind(*args)
    except TypeError:
        return (
            f"your function takes {inspect.signature(fn)}; it is called with "
            f"{len(args)} argument{'s' * (len(args) != 1)}: {_parameters(exercise)}."
        )
    except ValueError:  # a builtin without a signature
        pass
    return ""


def _labels(exercise, args) -> list[str]:
    try:
        labels = list(inspect.signature(exercise.reference).parameters)
    except (TypeError, ValueError):
        labels = []
    return [*labels, *(f"argument {i + 1}" for i in range(len(labels), len(args)))][: len(args)]


def _parameters(exercise) -> str:
    args = tuple(exercise.draw(np.random.default_rng(0)))
    return f"({', '.join(_labels(exercise, args))})"


def _call(exercise, args) -> str:
    shown = [f"{n} = {_summary(a)}" for n, a in zip(_labels(exercise, args), args, strict=True)]
    return ", ".join(shown) or "the call without arguments"


def _summary(value) -> str:
    """A value in a few words: what it is, its shape, its range."""
    if isinstance(value, bool | str) or value is None or value is ...:
        return repr(value)
    if isinstance(value, tuple):
        return f"({', '.join(_summary(v) for v in value)})"
    array = _array(value)
    if array.dtype.kind not in "biufc":
        return f"something of type {type(value).__name__}, which is no array of numbers"
    if array.ndim == 0:
        return _number(array[()])
    kind = "tensor" if hasattr(value, "detach") else "array"
    if array.ndim == 1 and array.size <= 6 and array.dtype.kind in "iuf":
        return f"[{', '.join(_number(v) for v in array)}]"
    if array.size == 0 or array.dtype.kind in "bc":
        return f"{array.dtype} {kind} of shape {array.shape}"
    return (
        f"{array.dtype} {kind} of shape {array.shape} "
        f"(from {_number(array.min())} to {_number(array.max())})"
    )


def _number(value, other=None) -> str:
    """`value` in four digits, or in as many as it takes to tell it from `other`."""
    if isinstance(value, bool | np.bool_ | str):
        return str(value)
    if isinstance(value, int | np.integer):
        return str(value).replace("-", "−")
    for digits in (4, 6, 9, 12, 17):
        text = f"{value:.{digits}g}"
        if other is None or text != f"{other:.{digits}g}":
            break
    return text.replace("-", "−")


def _index(at) -> str:
    return f"[{', '.join(str(int(i)) for i in at)}]"


def _share(flags) -> str:
    return f"{int(np.sum(flags))} of {flags.size} entries"


def _form(value) -> str:
    """What a whole result consists of."""
    if isinstance(value, Mapping):
        return f"a dict with the keys {', '.join(sorted(map(repr, value)))}"
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}: {', '.join(_summary(v) for v in value)}"
    return _summary(value)


def _sentence(text: str) -> str:
    """The bank's words as a sentence: a capital at the front, a stop at the end."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
