"""Every page of the built site, opened once in the light, once in the dark, once from disk.

What only looks at a page shares one visit to it: opening is what takes the time. The tests of one
visit run in the order in which they stand here, and only the last of them change the window.
"""

from __future__ import annotations

import gzip
from urllib.parse import urlsplit

import pytest
from site_pages import PAGES, views, visit

pytestmark = pytest.mark.browser

BUDGET = 500_000  # bytes over the wire, compressed
COMPRESSED = {".html", ".css", ".js", ".svg", ".json", ".txt"}
PHONE = {"width": 390, "height": 800}
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

CUT_OFF = """() => [...document.querySelectorAll('main mjx-container[display="true"]')]
  .filter((e) => e.checkVisibility() && e.scrollWidth > e.clientWidth + 1)
  .map((e) => `${e.scrollWidth} > ${e.clientWidth}: ${e.textContent.slice(0, 60)}`)"""


@pytest.fixture(scope="module", params=PAGES)
def path(request):
    return request.param


@pytest.fixture(scope="module")
def light(path, server, chromium):
    """A page as served, on a laptop, in the light."""
    with visit(chromium, f"{server}{path}", color_scheme="light") as shown:
        shown.scroll_through()
        yield shown


@pytest.fixture(scope="module")
def dark(path, server, chromium):
    """A page as served, on a phone, in the dark."""
    with visit(chromium, f"{server}{path}", color_scheme="dark", viewport=PHONE) as shown:
        shown.scroll_through()
        yield shown


@pytest.fixture(scope="module")
def from_disk(path, site, chromium):
    """A page opened from a folder."""
    with visit(chromium, (site / path).as_uri()) as shown:
        shown.scroll_through()
        yield shown


# ------------------------------------------------------------------------ clean, and complete


@pytest.mark.parametrize("how", ["light", "dark", "from_disk"])
def test_a_page_asks_no_other_host_and_all_its_figures_live(how, path, site, server, request):
    shown = request.getfixturevalue(how)
    own = site.as_uri() if how == "from_disk" else server
    foreign = [u for u in shown.requests if not u.startswith((own, "blob:", "data:"))]
    assert not foreign, "asks other hosts"
    assert not shown.complaints
    mounted = shown.page.locator(".static-widget[data-ready]").count()
    assert mounted == views((site / path).read_text(encoding="utf-8"))
    assert shown.page.locator(".static-widget[data-failed]").count() == 0
    assert shown.page.locator("mjx-merror").count() == 0, "maths that MathJax cannot read"


def test_a_page_weighs_no_more_than_its_budget(light, site, server):
    weights = {}
    for url in light.requests:
        if url.startswith(server):
            name = urlsplit(url).path.lstrip("/")
            content = (site / name).read_bytes()
            packed = (site / name).suffix in COMPRESSED
            weights[name] = len(gzip.compress(content, 6) if packed else content)
    heaviest = sorted(weights.items(), key=lambda item: -item[1])[:6]
    assert sum(weights.values()) <= BUDGET, f"{sum(weights.values())} bytes; heaviest: {heaviest}"


def test_a_page_is_complete_for_a_screen_reader(light):
    unnamed = light.page.evaluate(
        """() => [...document.querySelectorAll('main :is(a[href], button, input, select, summary)')]
        .filter((e) => e.checkVisibility() && !e.hidden && e.type !== 'hidden')
        .filter((e) => ![e.textContent.trim(), e.getAttribute('aria-label'), e.title, e.value && e.type === 'submit',
                         e.labels?.length, e.querySelector?.('img[alt]:not([alt=""])'),
                         e.getAttribute('aria-labelledby')].some(Boolean))
        .map((e) => e.outerHTML.slice(0, 120))"""
    )
    assert not unnamed
    assert light.page.locator("main article h1").count() == 1
    assert light.page.locator("main img:not([alt]), main img[alt='']").count() == 0
    assert light.page.evaluate("document.documentElement.lang") == "en"


def test_a_chapter_has_a_figure_that_moves_and_a_quiz(light, path):
    if path.count("/") > 1:
        sliders = ".static-widget :is(input[type=range], [role=slider], select, table)"
        assert light.page.locator(sliders).count() >= 1
        assert light.page.locator(".bn-quiz").count() == 1


# --------------------------------------------------------------------------- widths and themes


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_overflows(theme, path, request):
    """On a laptop, a phone and a small phone; in the dark, which changes colours, on a phone."""
    shown = request.getfixturevalue(theme)
    for width in (1280, 390, 320) if theme == "light" else (390,):
        shown.page.set_viewport_size({"width": width, "height": 800})
        shown.scroll_through()
        assert not shown.page.evaluate(STICKS_OUT), f"sticks out at {width} px"
        wide = shown.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert wide <= 0, f"the page is {wide} px wider than a window of {width} px"
        if width == 1280:
            assert not shown.page.evaluate(CUT_OFF), "on a laptop an equation is seen whole"
    assert not shown.complaints


def test_a_tap_target_is_large_enough(light):
    """WCAG 2.2, 2.5.8: 24 by 24 pixels, for everything that is not a link in a sentence."""
    light.page.set_viewport_size(PHONE)
    small = """() => [...document.querySelectorAll('main :is(button, select, summary, input)')]
      .filter((e) => e.checkVisibility({ visibilityProperty: true }) && !e.closest('.bn-unseen, .bn-sr')
        && !e.matches('.bn-unseen, .bn-sr, .copybtn, .search-button, [type=hidden]'))
      .map((e) => [e.closest('label') ?? e, e])
      .map(([box, e]) => [e.outerHTML.slice(0, 100), box.getBoundingClientRect()])
      .filter(([, box]) => box.width && (box.width < 24 || box.height < 23.9)).map(([text]) => text)"""
    assert not light.page.evaluate(small)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_each_drawing_has_the_colours_of_the_theme(theme, path, request):
    page = request.getfixturevalue(theme).page
    assert page.evaluate("document.documentElement.dataset.theme") == theme
    # a drawing inside a fold shows once the fold is open
    page.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
    pairs = page.evaluate(
        """() => [...document.querySelectorAll('img.only-light')].map((light) => [
        light.checkVisibility(), light.nextElementSibling.checkVisibility(),
        light.alt, light.nextElementSibling.alt])"""
    )
    for shown_light, shown_dark, alt, dark_alt in pairs:
        assert (shown_light, shown_dark) == (theme == "light", theme == "dark")
        assert alt == dark_alt
    page.evaluate("for (const d of document.querySelectorAll('details')) d.open = false")


def test_paper_shows_folds_open_and_light_colours(dark):
    page = dark.page
    page.set_viewport_size({"width": 1280, "height": 900})
    # an image on paper has to be there, seen on the screen or not
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.evaluate("[...document.querySelectorAll('main details')].every((d) => d.open)")
    assert page.evaluate(
        "[...document.querySelectorAll('img.only-dark')].every((i) => !i.checkVisibility())"
    )
    page.wait_for_function(
        "[...document.querySelectorAll('img.only-light')].every((i) => i.complete && i.naturalWidth)"
    )
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") in (
        "rgb(255, 255, 255)",
        "rgba(0, 0, 0, 0)",
    )
    assert not page.locator("#pst-primary-sidebar").is_visible()
    page.emulate_media(media="screen")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert not dark.complaints


# ------------------------------------------------------------------------- the site as a whole


def test_the_address_of_the_site_leads_to_the_first_page(server, chromium):
    with visit(chromium, server) as shown:
        shown.page.wait_for_url(f"**/{PAGES[0]}")
        assert not shown.complaints


def test_the_theme_can_be_switched_and_stays(server, chromium):
    with visit(chromium, f"{server}{PAGES[0]}", color_scheme="light") as shown:
        theme = "document.documentElement.dataset.theme"
        assert shown.page.evaluate(theme) == "light"
        button = shown.page.locator(".theme-switch-button:visible").first
        for _ in range(3):  # light, dark, auto in some order
            button.click()
            if shown.page.evaluate(theme) == "dark":
                break
        assert shown.page.evaluate(theme) == "dark"
        shown.page.goto(f"{server}{PAGES[1]}")
        assert shown.page.evaluate(theme) == "dark"


def test_search_finds_a_page(server, chromium):
    with visit(chromium, f"{server}search.html?q=normalization") as shown:
        shown.page.locator("#search-results li").first.wait_for()
        assert not shown.complaints
