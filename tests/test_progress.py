"""Progress in a real browser, on a tiny site opened from disk: pages, sidebar, storage, files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from widget_harness import state_of, widget_browser  # noqa: F401

from bn.widgets import Quiz

STATIC = Path(__file__).parents[1] / "book" / "_static"
KEY = "bn-book/1"
PAGES = {
    "why/first": "The first",
    "layer/second": "The second",
    "progress": "Progress",
    "notation": "Notation",
}

QUIZ = {
    "title": "Quiz", "id": "why/first",
    "questions": [
        {"id": f"q{i}", "prompt": f"Question {i}", "options": [
            {"text": "right", "correct": True, "feedback": "Yes."}, {"text": "wrong", "feedback": "No."}]}
        for i in range(3)
    ],
}  # fmt: skip


@pytest.fixture
def site(tmp_path):
    """Four pages with the markup of the real site's sidebar."""
    (tmp_path / "progress.js").write_text((STATIC / "progress.js").read_text())
    (tmp_path / "progress.css").write_text((STATIC / "progress.css").read_text())
    for page in PAGES:
        up = "../" * (page.count("/") + 1)

        def item(name, up=up, page=page):
            href = "#" if name == page else f"{up}book/{name}.html"
            return f'<li><a class="reference internal" href="{href}">{PAGES[name]}</a></li>'

        place = tmp_path / "book" / f"{page}.html"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(
            f"""<!doctype html><html lang="en" data-content_root="{up}" data-theme="light"><head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{page}</title>
<link rel="stylesheet" href="{up}progress.css"><script src="{up}progress.js"></script></head><body>
<nav class="bd-links"><p class="caption"><span class="caption-text">Part I</span></p>
<ul>{item("why/first")}</ul><p class="caption"><span class="caption-text">Part II</span></p>
<ul>{item("layer/second")}</ul><p class="caption">At hand</p><ul>{item("progress")}{item("notation")}</ul></nav>
<main><article class="bd-article"><h1>{PAGES[page]}</h1><div id="{"bn-progress" if page == "progress" else "x"}">
</div></article></main></body></html>""",
            encoding="utf-8",
        )
    return tmp_path / "book"


@pytest.fixture
def tab(widget_browser, site):  # noqa: F811
    """A tab on that site; open("why/first") goes there. Console errors fail the test."""
    context = widget_browser.new_context(viewport={"width": 700, "height": 800})
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda e: errors.append(str(e)))
    page.open = lambda name: page.goto((site / f"{name}.html").as_uri())
    page.record = lambda: json.loads(page.evaluate(f"localStorage.getItem('{KEY}')") or "null")
    page.keep = lambda x: page.evaluate(f"x => localStorage.setItem('{KEY}', x)", x)
    yield page
    context.close()
    assert not errors, errors


def rows(page):
    return [r.inner_text().split("\t") for r in page.locator("#bn-progress tbody tr").all()]


def said(page):
    page.locator("#bn-progress .bn-said:not(:empty)").wait_for()
    return page.locator("#bn-progress .bn-said").inner_text()


def test_mark_done_and_undo(tab):
    tab.open("why/first")
    button = tab.get_by_role("button", name="Mark this chapter as done")
    button.focus()
    tab.keyboard.press("Enter")
    assert "why/first" in tab.record()["chapters"]
    assert tab.locator("nav a").first.inner_text().startswith("The first")
    assert "(done)" in tab.locator("nav a").first.text_content()
    tab.open("layer/second")
    assert "(done)" in tab.locator("nav a").first.text_content()
    assert "(done)" not in tab.locator("nav a").nth(1).text_content()
    tab.open("progress")
    assert tab.locator(".bn-sum").inner_text() == "1 of 2 chapters done, 0 of 2 quizzes passed."
    table = rows(tab)
    assert table[0] == ["Part I"]
    assert table[2] == ["Part II"]
    assert table[1] == ["The first", "✓ done", "○ not tried"]
    tab.open("why/first")
    tab.get_by_role("button", name="✓ Done. Undo").click()
    assert tab.record()["chapters"] == {}


def test_only_chapters_have_the_button(tab):
    for page, there in {"notation": 0, "progress": 0, "layer/second": 1}.items():
        tab.open(page)
        assert tab.locator(".bn-done").count() == there


def mount_quiz(page, tmp_path):
    path = tmp_path / "q.json"
    path.write_text(json.dumps(QUIZ))
    from widget_harness import MODEL

    quiz = Quiz(path)
    page.evaluate(
        "document.querySelector('article').insertAdjacentHTML('beforeend', '<div id=here></div>')"
    )
    page.evaluate(MODEL)
    page.evaluate("x => __mount(x)", {"esm": quiz._esm, "css": quiz._css, "state": state_of(quiz)})


def test_a_quiz_passed_shows(tab, tmp_path):
    tab.open("why/first")
    mount_quiz(tab, tmp_path)
    for i, field in enumerate(tab.locator("fieldset").all()):
        field.get_by_label("right").check()
        field.get_by_role("button").click()
        marks = tab.locator("nav a").first.text_content()
        assert ("(quiz passed)" in marks) == (i == 2)
        assert ("(begun)" in marks) == (i < 2)
    tab.open("progress")
    assert rows(tab)[1] == ["The first", "○ not yet", "✓ passed"]
    tab.once("dialog", lambda d: d.accept())
    tab.get_by_role("button", name="Forget everything").click()
    assert rows(tab)[1] == ["The first", "○ not yet", "○ not tried"]


def test_a_quiz_takes_up_where_it_was(tab, tmp_path):
    tab.open("why/first")
    mount_quiz(tab, tmp_path)
    tab.locator("fieldset").nth(1).get_by_label("wrong").check()
    tab.locator("fieldset").nth(1).get_by_role("button").click()
    tab.open("why/first")
    mount_quiz(tab, tmp_path)
    field = tab.locator("fieldset").nth(1)
    assert field.get_by_label("wrong").is_checked()
    assert "No." in field.inner_text()
    assert tab.evaluate("__model.get('picked')") == {"q1": [1]}


@pytest.mark.parametrize(
    "kept",
    ["", "{", "[]", "null", '"x"', '{"version": 2, "chapters": {"why/first": {"done": "2026-01-01"}}}',
     '{"version": 1, "chapters": [], "quizzes": 7}',
     '{"version": 1, "chapters": {"why/first": {"done": 3}, "<img>": {"done": "2026-01-01"}}, '
     '"quizzes": {"why/first": {"right": "many"}}}'],
)  # fmt: skip
def test_damaged_storage_counts_as_empty(tab, tmp_path, kept):
    tab.open("why/first")
    tab.keep(kept)
    tab.open("why/first")
    assert tab.locator(".bn-mark-done").count() == 0
    mount_quiz(tab, tmp_path)
    tab.get_by_role("button", name="Mark this chapter as done").click()
    assert list(tab.record()["chapters"]) == ["why/first"]


def test_blocked_storage(widget_browser, site, tmp_path):  # noqa: F811
    page = widget_browser.new_page()
    errors = []
    page.on("pageerror", lambda e: errors.append(str(e)))
    page.add_init_script(
        "for (const f of ['getItem', 'setItem']) Storage.prototype[f] = () => { throw new DOMException('no', 'SecurityError'); }"
    )
    page.goto((site / "why/first.html").as_uri())
    page.get_by_role("button", name="Mark this chapter as done").click()
    assert "(done)" in page.locator("nav a").first.text_content()
    assert "keeps no storage" in page.locator(".bn-done [role=status]").inner_text()
    mount_quiz(page, tmp_path)
    page.locator("fieldset").first.get_by_label("right").check()
    page.locator("fieldset").first.get_by_role("button").click()
    assert "keeps no storage" in page.locator(".bn-score").inner_text()
    page.close()
    assert not errors


RECORD = {
    "version": 1,
    "chapters": {"why/first": {"done": "2026-01-01T00:00:00.000Z"}},
    "quizzes": {"why/first": {"picked": {"q0": [1]}, "right": 0, "total": 3, "passed": False,
                              "at": "2026-01-01T00:00:00.000Z"}},
}  # fmt: skip


def test_export_and_import_elsewhere(tab, widget_browser, site, tmp_path):  # noqa: F811
    tab.open("progress")
    tab.keep(json.dumps(RECORD))
    tab.open("progress")
    with tab.expect_download() as download:
        tab.get_by_role("button", name="Export to a file").click()
    file = tmp_path / "saved.json"
    download.value.save_as(file)
    assert json.loads(file.read_text())["kind"] == "bn-book-progress"
    assert said(tab) == "Saved 1 chapter and 1 quiz."

    other = widget_browser.new_context().new_page()
    other.goto((site / "progress.html").as_uri())
    other.set_input_files("#bn-import", file)
    assert said(other).startswith("Read 1 chapter and 1 quiz from saved.json")
    assert rows(other)[1] == ["The first", "✓ done", "○ 0 of 3 right"]
    assert json.loads(other.evaluate(f"localStorage.getItem('{KEY}')")) == RECORD
    other.context.close()


def test_import_joins(tab, tmp_path):
    """What is here stays; of two attempts at a quiz the later counts; passed stays passed."""
    here = json.loads(json.dumps(RECORD))
    here["chapters"] = {"layer/second": {"done": "2026-02-02"}}
    here["quizzes"]["why/first"] |= {"right": 3, "passed": True, "at": "2025-01-01T00:00:00Z"}
    tab.open("progress")
    tab.keep(json.dumps(here))
    tab.open("progress")
    file = tmp_path / "f.json"
    file.write_text(json.dumps({"kind": "bn-book-progress", **RECORD}))
    tab.set_input_files("#bn-import", file)
    said(tab)
    record = tab.record()
    assert sorted(record["chapters"]) == ["layer/second", "why/first"]
    quiz = record["quizzes"]["why/first"]
    assert quiz["right"] == 0
    assert quiz["passed"] is True


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[1, 2]", "not a record of progress"),
        ('{"kind": "bn-book-progress", "version": 9}', "version 9; this site reads version 1"),
        ('{"kind": "bn-book-progress", "version": 1, "chapters": {}}', "no “quizzes”"),
        ('{"kind": "bn-book-progress", "version": 1, "chapters": {"x": {}}, "quizzes": {}}', '"x" is damaged'),
        ('{"kind": "bn-book-progress", "version": 1, "chapters": {}, "quizzes": {"x": {"right": 9, "total": 3, "passed": false, "at": "2026-01-01", "picked": {}}}}',
         '"x" is damaged'),
        ("x" * 1_100_000, "far too large"),
    ],
)  # fmt: skip
def test_a_bad_file_changes_nothing(tab, tmp_path, text, message):
    tab.open("progress")
    tab.keep(json.dumps(RECORD))
    tab.open("progress")
    file = tmp_path / "bad.json"
    file.write_text(text, encoding="utf-8")
    tab.set_input_files("#bn-import", file)
    assert message in said(tab)
    assert tab.locator(".bn-said").get_attribute("role") == "alert"
    assert tab.record() == RECORD


def test_reset_asks_first(tab):
    tab.open("progress")
    tab.keep(json.dumps(RECORD))
    tab.open("progress")
    tab.once("dialog", lambda d: d.dismiss())
    tab.get_by_role("button", name="Forget everything").click()
    assert tab.record() == RECORD
    tab.once("dialog", lambda d: d.accept())
    tab.get_by_role("button", name="Forget everything").click()
    assert tab.record() == {"version": 1, "chapters": {}, "quizzes": {}}


def test_two_tabs_agree(tab):
    tab.open("progress")
    other = tab.context.new_page()
    other.goto(tab.url.replace("progress.html", "why/first.html"))
    other.get_by_role("button", name="Mark this chapter as done").click()
    tab.locator("#bn-progress .bn-sum", has_text="1 of 2 chapters done").wait_for(timeout=5000)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_fits_a_phone(tab, theme):
    tab.set_viewport_size({"width": 320, "height": 700})
    for name in ("progress", "why/first"):
        tab.open(name)
        tab.evaluate("t => { document.documentElement.dataset.theme = t; }", theme)
        wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert tab.evaluate(wide) <= 0
        for button in tab.locator("button").all():
            assert button.bounding_box()["height"] >= 24
