"""Every page fits a small phone, a phone and a laptop; in the dark, which changes colours, a phone."""

from __future__ import annotations

import pytest
from site_pages import PAGES, visit

pytestmark = pytest.mark.browser

# What sticks out of the window although nothing around it scrolls or hides it.
STICKS_OUT = """() => [...document.querySelectorAll('main *')].filter((e) => {
  const box = e.getBoundingClientRect();
  if (box.right <= innerWidth + 1 || !box.width || !e.checkVisibility()) return false;
  for (let p = e; p && p !== document.body; p = p.parentElement) {
    const { overflowX, clipPath } = getComputedStyle(p);
    if (overflowX !== 'visible' || clipPath !== 'none') return false;
  }
  return true;
}).map((e) => `${e.tagName}.${e.getAttribute('class')}: ${e.textContent.slice(0, 60)}`).slice(0, 5)"""


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("path", PAGES)
def test_nothing_overflows(path, theme, server, chromium):
    with visit(chromium, f"{server}{path}", color_scheme=theme) as shown:
        assert shown.page.evaluate("document.documentElement.dataset.theme") == theme
        for width in (1280, 390, 320) if theme == "light" else (390,):
            shown.page.set_viewport_size({"width": width, "height": 800})
            shown.scroll_through()
            assert not shown.page.evaluate(STICKS_OUT), f"sticks out at {width} px"
            wide = shown.page.evaluate(
                "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
            assert wide <= 0, f"the page is {wide} px wider than a window of {width} px"
        assert not shown.complaints


@pytest.mark.parametrize("path", PAGES)
def test_each_drawing_has_the_colours_of_the_theme(path, server, chromium):
    for theme in ("light", "dark"):
        with visit(chromium, f"{server}{path}", color_scheme=theme) as shown:
            # a drawing inside a fold shows once the fold is open
            shown.page.evaluate(
                "for (const d of document.querySelectorAll('details')) d.open = true"
            )
            pairs = shown.page.evaluate(
                """() => [...document.querySelectorAll('img.only-light')].map((light) => [
                light.checkVisibility(), light.nextElementSibling.checkVisibility(),
                light.alt, light.nextElementSibling.alt])"""
            )
            for light, dark, alt, dark_alt in pairs:
                assert (light, dark) == (theme == "light", theme == "dark")
                assert alt == dark_alt


def test_a_tap_target_is_large_enough(server, chromium):
    """WCAG 2.2, 2.5.8: 24 by 24 pixels, for everything that is not a link in a sentence."""
    small = """() => [...document.querySelectorAll('main :is(button, select, summary, input)')]
      .filter((e) => e.checkVisibility({ visibilityProperty: true }) && !e.closest('.bn-unseen, .bn-sr')
        && !e.matches('.bn-unseen, .bn-sr, .copybtn, .search-button, [type=hidden]'))
      .map((e) => [e.closest('label') ?? e, e])
      .map(([box, e]) => [e.outerHTML.slice(0, 100), box.getBoundingClientRect()])
      .filter(([, box]) => box.width && (box.width < 24 || box.height < 23.9)).map(([text]) => text)"""
    for path in PAGES:
        with visit(chromium, f"{server}{path}", viewport={"width": 390, "height": 800}) as shown:
            assert not shown.page.evaluate(small), path
