"""The exercises' checks: right passes, a stub is untouched, a known mistake is named, no other.

That the notebooks hold a stub and a solution for each is in test_prose.py, which runs them.
"""

from __future__ import annotations

import copy
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bn
from bn import exercises
from bn.exercises import Exercise, judge

ALL = [exercises.get(name) for name in exercises.names()]
BANK = [(e, sentence) for e in ALL for sentence in e.mistakes]
every = pytest.mark.parametrize("exercise", ALL, ids=lambda e: e.name)


# ---------------------------------------------------------------------------- every exercise


@every
def test_the_reference_passes(exercise):
    for seed in range(10):
        assert judge(exercise, exercise.reference, seed=seed).state == "passes"


@every
@pytest.mark.parametrize("nothing", [None, ..., NotImplementedError], ids=str)
def test_a_stub_is_not_attempted(exercise, nothing):
    def stub(*args):
        if nothing is NotImplementedError:
            raise NotImplementedError
        return nothing

    verdict = judge(exercise, stub)
    assert verdict.state == "not attempted"
    assert repr(verdict) == f"{exercise.name}: not attempted yet."


@pytest.mark.parametrize(("exercise", "sentence"), BANK, ids=lambda x: getattr(x, "name", None))
def test_every_known_mistake_is_named_and_only_that_one(exercise, sentence):
    for seed in range(5):
        verdict = judge(exercise, exercise.mistakes[sentence], seed=seed)
        assert verdict.state == "mistake", f"seed {seed}: {verdict!r}"
        assert verdict.mistakes == (sentence,), f"seed {seed}"


@every
def test_an_exercise_knows_at_least_two_mistakes(exercise):
    assert len(exercise.mistakes) >= 2


@every
def test_the_draws_are_fresh_and_reproducible(exercise):
    def flat(seed):
        return repr(exercise.draw(np.random.default_rng(seed)))

    assert flat(1) == flat(1)
    assert flat(1) != flat(2) or not exercise.draw(np.random.default_rng(0))


@every
def test_the_reference_leaves_its_inputs_alone(exercise):
    args = exercise.draw(np.random.default_rng(0))
    before = copy.deepcopy(args)
    exercise.reference(*args)
    assert repr(before) == repr(args)


def distorted(exercise: Exercise, kind: str, seed: int):
    """A wrong answer that nobody foresaw: the right one, spoilt at random."""
    rng = np.random.default_rng(seed)

    def spoil(value):
        if isinstance(value, tuple):
            return tuple(spoil(v) for v in value)
        if isinstance(value, dict):
            return {k: spoil(v) for k, v in value.items()}
        array = exercises._array(value)
        if array.dtype.kind not in "iuf":
            return value
        array = array.astype(float)
        if kind == "noise":
            return array + rng.normal(size=array.shape) * (1 + np.abs(array))
        if kind == "scale":
            return array * rng.uniform(1.1, 3) + 0.001
        if kind == "shift":
            return array + rng.uniform(0.1, 3)
        if kind == "one entry":
            array = np.array(array)
            array.flat[rng.integers(array.size)] += rng.uniform(0.5, 2) * (1 + np.abs(array).max())
            return array
        return rng.normal(size=array.shape)

    def answer(*args):
        return spoil(exercise.reference(*args))

    return answer


@every
@settings(max_examples=15, deadline=None)
@given(
    kind=st.sampled_from(["noise", "scale", "shift", "one entry", "unrelated"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_random_wrong_answer_is_not_taken_for_a_known_one(exercise, kind, seed):
    verdict = judge(exercise, distorted(exercise, kind, seed), seed=seed)
    assert verdict.state == "wrong", repr(verdict)
    assert not verdict.mistakes


# --------------------------------------------------------------------------- the engine


def double(x):
    return 2 * x


DOUBLE = Exercise(
    "made/double",
    reference=double,
    draw=lambda rng: (rng.normal(size=(rng.integers(2, 5), 3)) + 5,),
    mistakes={"you squared": lambda x: x**2, "you halved": lambda x: x / 2},
    hint="Twice.",
)
PAIR = Exercise(
    "made/pair",
    reference=lambda x, y: (x + y, x - y),
    draw=lambda rng: (rng.normal(size=3), rng.normal(size=3)),
    mistakes={
        "you multiplied instead of adding": lambda x, y: (x * y, x - y),
        "you subtracted the wrong way round": lambda x, y: (x + y, y - x),
        "you swapped the two results": lambda x, y: (x - y, x + y),
    },
)
VALUE = Exercise("made/value", lambda: 42.0, lambda rng: (), {"you forgot the 2": lambda: 40.0})


def test_passes():
    verdict = judge(DOUBLE, lambda x: x + x)
    assert verdict
    assert repr(verdict) == str(verdict) == "made/double: passes."


def test_a_verdict_shows_itself_as_plain_text_only():
    verdict = judge(DOUBLE, double)
    assert not hasattr(verdict, "_repr_html_")
    assert not hasattr(verdict, "_repr_markdown_")


@pytest.mark.parametrize("answer", [lambda x: (2 * x).tolist(), lambda x: tuple(2 * x)])
def test_a_list_or_a_tuple_does_for_an_array(answer):
    assert judge(DOUBLE, answer)


def test_a_list_does_for_a_tuple():
    assert judge(PAIR, lambda x, y: [x + y, x - y])


def test_raises_says_which_input_and_which_error():
    def broken(x):
        return x[100]

    verdict = judge(DOUBLE, broken)
    assert verdict.state == "raises"
    assert "On x = float64 array of shape" in verdict.message
    assert "IndexError: index 100 is out of bounds" in verdict.message
    assert "Raised in the line: return x[100]" in verdict.message
    with pytest.raises(IndexError):
        broken(*verdict.inputs)


def test_wrong_says_where_and_how_far_off():
    def off(x):
        y = 2 * x
        y[1, 2] += 0.25
        return y

    verdict = judge(DOUBLE, off, seed=1)
    x = verdict.inputs[0]
    assert verdict.state == "wrong"
    assert "expected at [1, 2]" in verdict.message
    assert f"got {exercises._number(2 * x[1, 2] + 0.25)}, off by 0.25 (1 of" in verdict.message
    assert "Hint: Twice." in verdict.message


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda x: (2 * x).T, "the shape is (3, "),
        (lambda x: (2 * x).ravel(), "The values are right."),
        (lambda x: (2 * x).T.copy(), "It is the transpose."),
        (lambda x: -2 * x, "Only the sign is wrong"),
        (lambda x: 3 * x, "1.5 times the right one everywhere"),
        (lambda x: 2 * x + 0.5, "shifted by 0.5 everywhere"),
        (lambda x: x * np.nan, "nan at [0, 0] where"),
        (lambda x: x / 0, "inf at [0, 0] where"),
        (lambda x: "twelve", "got 'twelve'; expected is float64 array"),
        (lambda x: (x, x), "got a tuple of 2"),
        (lambda x: [[1], [2, 3]], "something of type list, which is no array"),
        (lambda x: {"a": x}, "got a dict with the keys 'a'"),
        (lambda x: object(), "got something of type object"),
        (lambda x: 2 * x + 1e-3 * (x == x.max()), "(1 of"),
    ],
)
def test_wrong_in_a_way_worth_saying(answer, words):
    for seed in range(30):  # a square input is its transpose's shape
        verdict = judge(DOUBLE, answer, seed=seed)
        if len(verdict.inputs[0]) != 3:
            break
    assert verdict.state == "wrong"
    assert words in " ".join(verdict.message.split())


def test_nearly_right_shows_enough_digits_to_tell_apart():
    verdict = judge(DOUBLE, lambda x: 2 * x + 3e-5, seed=0)
    expected, got = verdict.message.split("expected at ")[1].split(", off by")[0].split(", got ")
    assert expected.split("] ")[1] != got


def test_right_only_sometimes_is_said():
    calls = []

    def flaky(x):
        calls.append(x)
        return 2 * x + (len(calls) > 4)

    assert "Right on 4 of 6 inputs." in judge(DOUBLE, flaky).message


def test_changing_the_input_is_found():
    def inplace(x):
        x *= 2
        return x

    verdict = judge(DOUBLE, inplace)
    assert verdict.state == "wrong"
    assert "changed its input x" in verdict.message


def test_a_known_mistake_that_changes_its_input_does_not_spoil_the_others():
    def squares_in_place(x):
        x **= 2
        return x

    exercise = Exercise("made/x", double, DOUBLE.draw,
                        {"in place": squares_in_place, "halved": lambda x: x / 2})  # fmt: skip
    assert judge(exercise, lambda x: 0.5 * x).mistakes == ("halved",)


def test_parts_wrong_in_two_known_ways_name_both():
    verdict = judge(PAIR, lambda x, y: (x * y, y - x))
    assert verdict.mistakes == (
        "you multiplied instead of adding",
        "you subtracted the wrong way round",
    )


def test_one_unknown_part_and_nothing_is_named():
    verdict = judge(PAIR, lambda x, y: (x * y, y - 7 * x))
    assert verdict.state == "wrong"
    assert "result [0]" in verdict.message


def test_half_a_tuple_is_not_a_stub():
    assert judge(PAIR, lambda x, y: (None, ...)).state == "not attempted"
    verdict = judge(PAIR, lambda x, y: (x + y, None))
    assert verdict.state == "wrong"
    assert "result [1], nothing is returned" in verdict.message


def test_indistinguishable_mistakes_are_both_named():
    exercise = Exercise("made/x", double, DOUBLE.draw,
                        {"you halved": lambda x: x / 2, "you divided": lambda x: 0.5 * x})  # fmt: skip
    verdict = judge(exercise, lambda x: x / 2)
    assert verdict.mistakes == ("you halved", "you divided")
    assert "You halved. Or: You divided." in verdict.message


def test_a_mistake_that_only_yields_nan_names_nobody():
    exercise = Exercise("made/x", double, DOUBLE.draw, {"nan": lambda x: x * np.nan})
    assert judge(exercise, lambda x: np.full_like(x, np.nan)).state == "wrong"


def test_a_mistake_is_named_only_if_it_matches_on_every_input():
    calls = []

    def once(x):
        calls.append(x)
        return x / 2 if len(calls) < 6 else x / 3

    assert judge(DOUBLE, once).state == "wrong"


def test_a_known_error_is_a_mistake_too():
    def wrong_axis(x):
        return x + np.ones(99)

    exercise = Exercise("made/x", double, DOUBLE.draw, {"wrong axis": wrong_axis})
    assert judge(exercise, lambda x: x + np.zeros(99)).mistakes == ("wrong axis",)
    assert judge(exercise, lambda x: x + np.zeros(98)).state == "raises"


def test_the_number_of_arguments():
    verdict = judge(PAIR, lambda x: x)
    assert verdict.state == "raises"
    assert verdict.message == ("your function takes (x); it is called with 2 arguments: (x, y).")


def test_an_answer_that_is_a_value():
    assert judge(VALUE, 42.0)
    assert judge(VALUE, 42)
    assert judge(VALUE, 40.0).mistakes == ("you forgot the 2",)
    assert judge(VALUE, None).state == "not attempted"
    assert judge(VALUE, ...).state == "not attempted"
    assert judge(VALUE, 41.0).state == "wrong"


def test_a_value_where_a_function_is_asked_for():
    with pytest.raises(TypeError, match="asks for a function of \\(x\\)"):
        judge(DOUBLE, 3.0)


def test_tensors():
    torch = pytest.importorskip("torch")
    exercise = Exercise(
        "made/tensor",
        reference=lambda x: 2 * x,
        draw=lambda rng: (torch.tensor(rng.normal(size=3), requires_grad=True),),
        mistakes={"you halved": lambda x: x / 2},
    )
    assert judge(exercise, lambda x: x + x)
    assert judge(exercise, lambda x: (x + x).detach().numpy())
    assert judge(exercise, lambda x: x / 2).mistakes == ("you halved",)
    assert "changed its input" in judge(exercise, lambda x: x.data.mul_(2)).message


def test_an_error_of_the_exercise_itself_is_not_the_learners():
    def broken(x):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        judge(Exercise("made/x", broken, DOUBLE.draw), double)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("start/center", "Did you mean 'start/centre'"),
        ("centre", "Did you mean 'start/centre'"),
        ("nothing at all like it", "There are: "),
    ],
)
def test_an_unknown_name_offers_what_comes_close(name, words):
    with pytest.raises(LookupError, match=words):
        bn.check(name, double)


def test_the_arguments_in_the_wrong_order():
    with pytest.raises(TypeError, match="the exercise's name comes first"):
        bn.check(double, "start/centre")


def test_the_same_seed_draws_the_same_inputs():
    a, b, c = (bn.check("start/centre", np.sort, seed=s).inputs for s in (3, 3, 4))
    assert repr(a) == repr(b) != repr(c)


def test_exercises_do_not_import_torch():
    code = "import sys, bn.exercises as e; e.names(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
