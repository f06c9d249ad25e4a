"""Quizzes: what a file may say, what a learner meets, and the quizzes of the book themselves."""

from __future__ import annotations

import copy
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_widgets import QUIZ
from widget_harness import mount, page, widget_browser  # noqa: F401

from bn.widgets import Quiz
from bn.widgets.quiz import QuizError, load, tokens

BOOK = Path(__file__).parents[1] / "book"
FILES = sorted(BOOK.rglob("*.quiz.json"))


@pytest.fixture
def write(tmp_path):
    def put(quiz):
        path = tmp_path / "page.quiz.json"
        path.write_text(quiz if isinstance(quiz, str) else json.dumps(quiz), encoding="utf-8")
        return path

    return put


# --------------------------------------------------------------------------------- the book's own


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_a_chapters_quiz(path):
    quiz = load(path)
    name = path.relative_to(BOOK).as_posix().removesuffix(".quiz.json")
    assert quiz["id"] == name, "the id is the page, or progress cannot find it"
    assert path.with_name(path.name.replace(".quiz.json", ".ipynb")).exists()
    widget = Quiz(path)
    assert ET.fromstring(widget.poster()) is not None
    places = {
        q["order"].index(next(i for i, o in enumerate(q["options"]) if o["correct"]))
        for q in widget.questions
    }
    assert len(places) > 1, "the right answer always stands in the same place"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_a_chapters_quiz_fits_a_phone(page, path):  # noqa: F811
    shown = mount(page, Quiz(path), width=320)
    for box in page.locator("#here fieldset").all():
        right = box.locator("input").all()
        for option in right if right[0].get_attribute("type") == "checkbox" else right[:1]:
            option.check()
        box.get_by_role("button").click()
    assert shown.overflow() <= 0


# --------------------------------------------------------------------------------- what a file says


def broken(change):
    quiz = copy.deepcopy(QUIZ)
    change(quiz, quiz["questions"])
    return quiz


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda z, q: z.pop("title"), "the file: 'title' is a required property"),
        (lambda z, q: z.update(id="Has Spaces"), "id: 'Has Spaces' does not match"),
        (lambda z, q: q.pop(), "questions: .* is too short"),
        (lambda z, q: q[0].update(hint="?"), r"question 1: Additional properties .*'hint'"),
        (
            lambda z, q: q[1]["options"][2].pop("feedback"),
            "question 2, option 3: 'feedback' is a required",
        ),
        (
            lambda z, q: q[0]["options"][0].update(correct="yes"),
            "question 1, option 1, correct: 'yes'",
        ),
        (
            lambda z, q: q[0]["options"][1].update(correct=True),
            r"question 1 \(one\): 2 options are correct",
        ),
        (
            lambda z, q: q[0]["options"][0].pop("correct"),
            r"question 1 \(one\): 0 options are correct",
        ),
        (
            lambda z, q: [o.pop("correct", 0) for o in q[1]["options"]],
            r"\(many\): no option is correct",
        ),
        (lambda z, q: q[2].update(id="one"), "two questions have the id 'one'"),
        (lambda z, q: q[1]["options"][1].update(text="2"), "two options say the same"),
    ],
)
def test_a_bad_file_says_where_and_why(write, change, message):
    with pytest.raises(QuizError, match=rf"page\.quiz\.json: .*{message}"):
        load(write(broken(change)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            r"$\frac{1$",
            r"question 3 \(last\), feedback 1: cannot read the maths .* braces do not match",
        ),
        (r"$\begin{matrix} a$", r"cannot read the maths"),
        (r"$\frac{1}$", "a part is missing"),
        ("$a & b$", "cannot read the maths"),
        (r"$\nonsense x$", r"unknown command \\nonsense"),
        ("costs $5", "dollar sign without its partner"),
        ("[x](javascript:alert(1))", None),
        ("[x](javascript:alert)", "a link to 'javascript:alert'"),
    ],
)
def test_bad_text_says_where_and_why(write, text, message):
    path = write(broken(lambda z, q: q[2]["options"][0].update(feedback=text)))
    if message is None:  # not a link at all, so plain text
        assert Quiz(path).questions[2]["options"][0]["feedback"] == [{"text": text}]
        return
    with pytest.raises(QuizError, match=message):
        Quiz(path)


def test_no_file_says_where_it_looked(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=re.escape(f"no quiz file gone.quiz.json in {tmp_path}")
    ):
        Quiz(tmp_path / "gone.quiz.json")


@pytest.mark.parametrize("text", ["{", '{"a": "$\\mu$"}', ""])
def test_not_json(write, text):
    with pytest.raises(QuizError, match=r"not JSON in UTF-8.*a backslash is written twice"):
        load(write(text))


def test_pieces_of_text():
    assert tokens(r"a *b `c`* **d** \*e\* [f *g*](../h.html#i) $x_1$")[:-1] == [
        {"text": "a "}, {"em": [{"text": "b "}, {"code": "c"}]}, {"text": " "},
        {"strong": [{"text": "d"}]}, {"text": " *e* "},
        {"href": "../h.html#i", "label": [{"text": "f "}, {"em": [{"text": "g"}]}]}, {"text": " "},
    ]  # fmt: skip
    maths = tokens("$x_1 < 2$")[0]
    assert maths["tex"] == "x_1 < 2"
    assert ET.fromstring(maths["mathml"]).tag.endswith("}math")


@given(st.text(alphabet=st.characters(exclude_characters="\\`*$[]"), max_size=60))
def test_plain_text_stays_itself(text):
    assert "".join(t["text"] for t in tokens(text)) == text


def test_viewers_without_widgets_get_markdown(write):
    quiz = Quiz(write(QUIZ))
    text = quiz._repr_mimebundle_()[0]["text/markdown"]
    assert r"1. What is $\frac{1}{2} + \frac12$?" in text
    assert "   - 4\n" in text
    assert "Two halves" not in text, "the answers are not given away"


# ------------------------------------------------------------------------------------ what one meets


@pytest.fixture
def shown(page, write):  # noqa: F811
    return mount(page, Quiz(write(QUIZ)))


def question(shown, n):
    return shown.root.locator("fieldset").nth(n)


def answer(shown, n, *labels, check=True):
    while (boxes := question(shown, n).locator("input[type=checkbox]:checked")).count():
        boxes.first.uncheck()
    for label in labels:
        question(shown, n).get_by_label(label, exact=True).check()
    if check:
        question(shown, n).get_by_role("button", name="Check").click()
    return question(shown, n).inner_text()


def test_wrong_then_right(shown):
    text = answer(shown, 2, "yes")
    assert "✗ Not this one. It is not read as HTML." in text
    assert "Not yet" in text
    assert "See there" not in text, "the other options' notes would give the answer away"
    assert shown.get("right") == 0
    text = answer(shown, 2, "no", check=False)
    assert "Not this one" not in text, "a new choice clears the old verdict"
    text = answer(shown, 2, "no")
    assert "✓ Right. See there." in text
    assert "✗ Not so. It is not read as HTML." in text
    assert shown.get("right") == 1
    assert shown.get("picked") == {"last": [1]}
    assert "1 right" in shown.description()


def test_several_right(shown):
    assert "something is missing" in answer(shown, 1, "2")
    assert "✗ Not this one. Odd." in answer(shown, 1, "2", "3")
    assert "Right. Each option says why." in answer(shown, 1, "2", "4")


def test_nothing_chosen(shown):
    question(shown, 0).get_by_role("button", name="Check").click()
    assert "Choose an answer first." in question(shown, 0).inner_text()
    assert shown.get("picked") == {}


def test_pass_and_start_again(shown):
    question(shown, 0).locator("label", has_text="1").locator("input").check()
    question(shown, 0).get_by_role("button", name="Check").click()
    answer(shown, 1, "2", "4")
    assert shown.get("passed") is False
    answer(shown, 2, "no")
    assert shown.get("passed") is True
    assert "All 3 right. Quiz passed." in shown.root.inner_text()
    shown.root.get_by_role("button", name="Start again").click()
    assert shown.get("picked") == {}
    assert shown.get("passed") is False
    assert shown.root.locator("input:checked").count() == 0
    assert "Right" not in shown.root.inner_text()


def test_with_the_keyboard_alone(shown):
    page = shown.page  # noqa: F811
    question(shown, 2).get_by_label("yes").focus()
    page.keyboard.press("ArrowDown")  # wraps around
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert shown.get("picked") == {"last": [1]}


def test_html_in_a_text_is_shown_not_read(shown):
    assert "Is <b>this</b> bold?" in question(shown, 2).inner_text()
    assert shown.root.locator("b").count() == 0


def test_maths_needs_no_script(shown):
    box = question(shown, 0).locator("legend math mfrac").first.bounding_box()
    assert box["height"] > 1.5 * 16 > box["width"], "a fraction stands upright"


def test_maths_in_the_sites_font(page, write):  # noqa: F811
    """Where there is MathJax, it sets the maths, even if it comes later than the widget."""
    page.set_content("<title>x</title>")
    page.evaluate(
        """() => { window.MathJax = { calls: [], startup: { promise: new Promise((r) => setTimeout(r, 50)),
        document: { clear() {}, updateDocument() { MathJax.updated = true; } } },
        tex2chtmlPromise: async (tex) => { MathJax.calls.push(tex); return document.createElement('mjx-container'); } }; }"""
    )
    shown = mount(page, Quiz(write(QUIZ)))
    page.wait_for_function("MathJax.updated")
    assert sorted(page.evaluate("MathJax.calls")) == ["1", r"\frac{1}{2} + \frac12"]
    assert shown.root.locator("math").count() == 0
    assert shown.root.locator("mjx-container").count() == 2


def test_feedback_belongs_to_its_option(shown):
    answer(shown, 2, "yes")
    wrong = question(shown, 2).get_by_label("yes")
    note = shown.root.locator("#" + wrong.get_attribute("aria-describedby"))
    assert "It is not read as HTML." in note.inner_text()


def test_python_sets_the_answers(shown):
    shown.set(picked={"last": [0]})
    assert question(shown, 2).get_by_label("yes").is_checked()
    shown.set(picked={"last": [7], "gone": [0], "many": "no"})  # of another version of the file
    assert shown.root.locator("input:checked").count() == 0


def test_order_is_shuffled_but_steady(write):
    orders = [q["order"] for q in Quiz(write(QUIZ)).questions]
    assert orders == [q["order"] for q in Quiz(write(QUIZ)).questions]
    assert any(o != sorted(o) for o in orders)
    kept = broken(lambda z, q: [x.update(keep_order=True) for x in q])
    assert all(q["order"] == sorted(q["order"]) for q in Quiz(write(kept)).questions)


def test_schema_file_is_for_editors_too(write):
    quiz = {"$schema": "../../bn/widgets/quiz.schema.json", **QUIZ}
    assert load(write(quiz))["id"] == "part/page"
