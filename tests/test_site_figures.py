"""The interactive figures of the built site: by keyboard, on paper, without JavaScript."""

from __future__ import annotations

import json
import re

import pytest
from livebook.widgets import STATE
from site_pages import PAGES, views, visit

pytestmark = pytest.mark.browser

CHAPTERS = [path for path in PAGES if path.count("/") > 1]


@pytest.mark.parametrize("path", PAGES)
def test_every_slider_moves_by_keyboard_and_the_words_follow(path, site, server, chromium):
    if not views((site / path).read_text(encoding="utf-8")):
        return  # a page of text
    with visit(chromium, f"{server}{path}") as shown:
        page = shown.page
        sliders = page.locator(".static-widget :is(input[type=range], [role=slider])")
        for slider in sliders.all():
            if not slider.is_visible() or slider.is_disabled():
                continue
            name = slider.evaluate(
                "e => e.getAttribute('aria-label') ?? e.labels?.[0]?.textContent ?? e.outerHTML"
            )
            slider.scroll_into_view_if_needed()
            page.evaluate(
                "() => new Promise((d) => requestAnimationFrame(() => requestAnimationFrame(d)))"
            )
            before = _said(slider)
            slider.focus()
            for key in ("ArrowRight", "ArrowLeft", "ArrowLeft"):  # one of them has room to move
                page.keyboard.press(key)
                page.evaluate(
                    "() => new Promise((d) => requestAnimationFrame(() => requestAnimationFrame(d)))"
                )
                after = _said(slider)
                if after != before:
                    break
            assert after["value"] != before["value"], f"{name}: its value does not move"
            assert after["words"] != before["words"], f"{name}: the description does not follow"
        assert not shown.complaints


def _said(slider) -> dict:
    """What a slider and its figure tell a screen reader now."""
    return slider.evaluate(
        """e => ({
        value: e.getAttribute('aria-valuetext') ?? e.getAttribute('aria-valuenow') ?? e.value,
        words: [...e.closest('.static-widget').querySelectorAll('.bn-description')].map((d) => d.textContent).join(),
        })"""
    )


@pytest.mark.parametrize("path", CHAPTERS)
def test_a_quiz_is_passed_by_keyboard_and_remembered(path, site, server, chromium):
    html = (site / path).read_text(encoding="utf-8")
    saved = json.loads(
        re.search(rf'<script type="{re.escape(STATE)}">(.*?)</script>', html, re.S)[1]
    )
    questions = next(
        model["state"]["questions"]
        for model in saved["state"].values()
        if "questions" in model["state"]
    )
    with visit(chromium, f"{server}{path}") as shown:
        page = shown.page
        for number, question in enumerate(questions):
            fieldset = page.locator(".bn-quiz fieldset").nth(number)
            for option, choice in enumerate(question["options"]):
                if choice.get("correct"):
                    fieldset.locator("input").nth(question["order"].index(option)).focus()
                    page.keyboard.press("Space")
            for _ in range(len(question["options"]) + 1):
                page.keyboard.press("Tab")
                if page.evaluate("document.activeElement.tagName") == "BUTTON":
                    break
            page.keyboard.press("Enter")
            assert fieldset.get_attribute("data-state") == "right", question["id"]
        assert "Quiz passed" in page.locator(".bn-quiz .bn-score").inner_text()
        page.reload()
        page.wait_for_function("document.documentElement.dataset.widgets === 'ready'")
        assert "Quiz passed" in page.locator(".bn-quiz .bn-score").inner_text()
        page.goto(f"{server}book/progress.html")
        assert "quiz passed" in page.locator(".bd-sidebar-primary").inner_text().lower() or (
            page.locator(".bn-mark-done").count() == 1
        )
        assert not shown.complaints


@pytest.mark.parametrize("path", PAGES)
def test_without_javascript_each_figure_has_a_picture(path, site, server, chromium):
    html = (site / path).read_text(encoding="utf-8")
    quizzes = len(re.findall(r"\bQuiz\(", html))
    window = chromium.new_context(java_script_enabled=False)
    page = window.new_page()
    page.goto(f"{server}{path}")
    pictures = page.locator(".bn-poster img").all()
    assert len(pictures) >= views(html) - quizzes
    for picture in pictures:
        picture.scroll_into_view_if_needed()
        assert picture.get_attribute("alt")
        assert picture.bounding_box()["height"] > 50
    window.close()


def test_a_broken_figure_says_so_in_its_place(site, server, chromium, tmp_path):
    path = next(path for path in PAGES if views((site / path).read_text(encoding="utf-8")))
    broken = """
    const load = URL.createObjectURL;
    URL.createObjectURL = () => load(new Blob(["export default { render() { throw new Error('on purpose'); } }"],
                                              { type: "text/javascript" }));"""
    window = chromium.new_context()
    page = window.new_page()
    page.add_init_script(broken)
    page.goto(f"{server}{path}")
    page.wait_for_function("document.documentElement.dataset.widgets === 'ready'")
    text = page.locator(".static-widget[data-failed]").first.inner_text()
    assert "could not start: on purpose" in text
    window.close()
