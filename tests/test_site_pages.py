"""Every page of the built site opens clean: no other host, no complaint, everything alive."""

from __future__ import annotations

import gzip
from urllib.parse import urlsplit

import pytest
from site_pages import PAGES, views, visit

pytestmark = pytest.mark.browser

BUDGET = 500_000  # bytes over the wire, compressed
COMPRESSED = {".html", ".css", ".js", ".svg", ".json", ".txt"}


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("how", ["served", "disk"])
def test_a_page_asks_no_other_host_and_all_its_figures_live(path, how, site, server, chromium):
    url = f"{server}{path}" if how == "served" else (site / path).as_uri()
    own = server if how == "served" else site.as_uri()
    with visit(chromium, url) as shown:
        shown.scroll_through()
        foreign = [u for u in shown.requests if not u.startswith((own, "blob:", "data:"))]
        assert not foreign, "asks other hosts"
        assert not shown.complaints
        mounted = shown.page.locator(".static-widget[data-ready]").count()
        assert mounted == views((site / path).read_text(encoding="utf-8"))
        assert shown.page.locator(".static-widget[data-failed]").count() == 0
        assert shown.page.locator("mjx-merror").count() == 0, "maths that MathJax cannot read"


def test_the_address_of_the_site_leads_to_the_first_page(server, chromium):
    with visit(chromium, server) as shown:
        shown.page.wait_for_url(f"**/{PAGES[0]}")
        assert not shown.complaints


@pytest.mark.parametrize("path", PAGES)
def test_a_page_weighs_no_more_than_its_budget(path, site, server, chromium):
    with visit(chromium, f"{server}{path}") as shown:
        shown.scroll_through()
        weights = {}
        for url in shown.requests:
            if url.startswith(server):
                name = urlsplit(url).path.lstrip("/")
                content = (site / name).read_bytes()
                packed = (site / name).suffix in COMPRESSED
                weights[name] = len(gzip.compress(content, 6) if packed else content)
    heaviest = sorted(weights.items(), key=lambda item: -item[1])[:6]
    assert sum(weights.values()) <= BUDGET, f"{sum(weights.values())} bytes; heaviest: {heaviest}"


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_complete_for_a_screen_reader(path, server, chromium):
    with visit(chromium, f"{server}{path}") as shown:
        unnamed = shown.page.evaluate(
            """() => [...document.querySelectorAll('main :is(a[href], button, input, select, summary)')]
            .filter((e) => e.checkVisibility() && !e.hidden && e.type !== 'hidden')
            .filter((e) => ![e.textContent.trim(), e.getAttribute('aria-label'), e.title, e.value && e.type === 'submit',
                             e.labels?.length, e.querySelector?.('img[alt]:not([alt=""])'),
                             e.getAttribute('aria-labelledby')].some(Boolean))
            .map((e) => e.outerHTML.slice(0, 120))"""
        )
        assert not unnamed
        assert shown.page.locator("main article h1").count() == 1
        silent = shown.page.locator("main img:not([alt]), main img[alt='']").count()
        assert silent == 0
        assert shown.page.evaluate("document.documentElement.lang") == "en"


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
