"""Try a widget in Chromium by itself: no Jupyter, no site, no network.

``mount(page, widget)`` puts a Python widget's state and its ES module on an empty page and runs it
against a small in-page model, as the built site does::

    def test_moves(chromium):                      # fixture of tests/test_widgets.py and conftest
        page = chromium.new_page()
        shown = mount(page, Chain(depth=3))
        before = shown.description()
        shown.press("Depth", "ArrowRight")
        assert shown.get("depth") == 4
        assert shown.description() != before
        shown.check()                              # no error on the console, nothing leaked

``evaluate(page, "chain_maths", "orders", cases)`` calls an exported function of a module under
``bn/widgets`` on each case's arguments, for comparison with Python; NaN and infinities survive.

The fixtures ``browser_page`` and ``harness`` come with ``pytest_plugins = ["widget_harness"]`` or
``from widget_harness import browser_page``.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bn.widgets import _base

ARGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>widget</title>
<style>body{margin:8px;background:#fff} html[data-theme=dark] body{background:#14181e}</style>
</head><body><main id="here"></main></body></html>"""

# The in-page model, and a ledger of every listener that outlives the widget.
MODEL = r"""
(() => {
  const live = new Map();                                    // target -> Set of listeners not removed
  const add = EventTarget.prototype.addEventListener, remove = EventTarget.prototype.removeEventListener;
  const name = (t) => t === window ? "window" : t === document ? "document" : t.constructor.name;
  EventTarget.prototype.addEventListener = function (type, fn, options) {
    add.call(this, type, fn, options);
    if (!window.__count || this instanceof AbortSignal) return;
    const key = { target: this, type, fn };
    window.__listeners.add(key);
    options?.signal?.addEventListener("abort", () => window.__listeners.delete(key));
  };
  EventTarget.prototype.removeEventListener = function (type, fn, options) {
    remove.call(this, type, fn, options);
    for (const k of window.__listeners ?? []) if (k.target === this && k.type === type && k.fn === fn) window.__listeners.delete(k);
  };
  window.__listeners = new Set();
  window.__left = () => [...window.__listeners].filter((k) => k.target === window || k.target === document
    || k.target instanceof MediaQueryList || k.target.isConnected).map((k) => `${name(k.target)}: ${k.type}`);

  class Model {
    constructor(state) { this.state = state; this.handlers = {}; this.saved = 0; this.sent = []; }
    get(k) { return this.state[k]; }
    set(k, v) {
      const all = typeof k === "object" ? k : { [k]: v };
      const changed = Object.entries(all).filter(([n, x]) => !Object.is(this.state[n], x));
      for (const [n, x] of changed) this.state[n] = x;
      for (const [n, x] of changed) this.emit("change:" + n, this, x);
      if (changed.length) this.emit("change", this);
    }
    save_changes() { this.saved++; }
    send(content) { this.sent.push(content); }
    on(names, f) { for (const n of names.split(/\s+/)) (this.handlers[n] ||= new Set()).add(f); }
    off(names, f) {
      if (!names) { this.handlers = {}; return; }
      for (const n of names.split(/\s+/)) f ? this.handlers[n]?.delete(f) : delete this.handlers[n];
    }
    emit(n, ...a) { for (const f of [...(this.handlers[n] ?? [])]) f(...a); }
    get listening() { return Object.values(this.handlers).reduce((n, f) => n + f.size, 0); }
    get widget_manager() { return { get_model: async () => { throw new Error("one widget only"); } }; }
  }

  window.__mount = async ({ esm, css, state }) => {
    const style = document.createElement("style");
    style.textContent = css;
    document.head.append(style);
    const url = URL.createObjectURL(new Blob([esm], { type: "text/javascript" }));
    let widget = (await import(url)).default;
    if (typeof widget === "function") widget = await widget();
    const model = new Model(state), abort = new AbortController(), el = document.createElement("div");
    document.getElementById("here").append(el);
    window.__count = true;
    await widget.initialize?.({ model, signal: abort.signal });
    await widget.render({ model, el, signal: abort.signal, experimental: {} });
    Object.assign(window, { __model: model, __el: el, __abort: abort });
  };
  window.__frames = (n = 2) => new Promise((done) => {
    const step = () => (n-- > 0 ? requestAnimationFrame(step) : done());
    step();
  });
})();
"""


def chromium_path() -> str | None:
    """The system's Chromium, or None."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return os.environ.get("BN_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


def need_chromium() -> str:
    """The system's Chromium; without it skip, or fail where BN_REQUIRE names the browser."""
    path = chromium_path()
    try:
        import playwright  # noqa: F401
    except ModuleNotFoundError:
        path = None
    if path is None:
        reason = "no Chromium (or no playwright) here: widgets are not tried in a browser"
        if "browser" in os.environ.get("BN_REQUIRE", "").split(","):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@pytest.fixture
def widget_browser(request):
    """The Chromium that all tests of a process share."""
    need_chromium()
    return request.getfixturevalue("chromium")


@pytest.fixture
def page(widget_browser):
    """An empty page; any error on its console fails the test."""
    context = widget_browser.new_context(viewport={"width": 700, "height": 900})
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda e: errors.append(str(e)))
    page.on("console", lambda m: errors.append(m.text) if m.type in ("error", "warning") else None)
    yield page
    context.close()
    assert not errors, "the page's console says: " + "; ".join(errors)


@dataclass
class Shown:
    """A widget on a page."""

    page: object
    name: str
    root: object = field(init=False)

    def __post_init__(self):
        self.root = self.page.locator("#here .bn-widget").first

    def settle(self) -> None:
        """Wait until what was asked for is drawn."""
        self.page.evaluate("__frames(3)")

    def get(self, trait: str):
        return self.page.evaluate("k => __model.get(k)", trait)

    def set(self, **values) -> None:
        """Set traits as a kernel or a link would."""
        self.page.evaluate("kv => { __model.set(kv); }", values)
        self.settle()

    def description(self) -> str:
        """What a screen reader is told the widget shows now."""
        return self.root.locator(".bn-description").first.text_content()

    def press(self, label: str, key: str, times: int = 1) -> None:
        """Press a key on the control with this label."""
        control = self.root.get_by_label(label, exact=True)
        control.focus()
        for _ in range(times):
            self.page.keyboard.press(key)
        self.settle()

    def theme(self, name: str) -> None:
        self.page.evaluate("t => { document.documentElement.dataset.theme = t; }", name)
        self.settle()

    def overflow(self) -> float:
        """How many pixels the page is wider than the window."""
        return self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )

    def leftovers(self) -> list[str]:
        """End the widget; return the listeners that outlive it."""
        return self.page.evaluate(
            """async () => { __abort.abort(); await __frames(2);
            return [...__left(), ...(__model.listening ? [`model: ${__model.listening} handlers`] : [])]; }"""
        )


def state_of(widget) -> dict:
    """The synced state as JSON would carry it (binary traits do not come along)."""
    state = widget.get_state()
    return json.loads(
        json.dumps({k: v for k, v in state.items() if k not in ("_esm", "_css", "layout")})
    )


def mount(page, widget, *, theme: str = "light", width: int | None = None) -> Shown:
    """Run a Python widget's module on an empty page and wait for its first drawing."""
    if width:
        page.set_viewport_size({"width": width, "height": 900})
    page.set_content(PAGE)
    page.wait_for_function("true")  # Playwright's own listeners come first, and are not counted
    page.evaluate(MODEL)
    page.evaluate("t => { document.documentElement.dataset.theme = t; }", theme)
    page.evaluate("x => __mount(x)", {"esm": widget._esm, "css": widget._css,
                                      "state": state_of(widget)})  # fmt: skip
    shown = Shown(page, type(widget)._name)
    page.wait_for_function(
        "document.querySelector('#here .bn-description')?.textContent.length > 0"
    )
    shown.settle()
    return shown


REVIVE = "(k, v) => v === '@NaN' ? NaN : v === '@Inf' ? Infinity : v === '@-Inf' ? -Infinity : v"
KEEP = (
    "(k, v) => ArrayBuffer.isView(v) ? [...v] : typeof v === 'number' && !Number.isFinite(v) ?"
    " (Number.isNaN(v) ? '@NaN' : v > 0 ? '@Inf' : '@-Inf') : v"
)


def _mark(value):
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {k: _mark(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_mark(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "@NaN" if math.isnan(value) else "@Inf" if value > 0 else "@-Inf"
    return value


def _unmark(value):
    if isinstance(value, dict):
        return {k: _unmark(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_unmark(v) for v in value]
    return (
        {"@NaN": math.nan, "@Inf": math.inf, "@-Inf": -math.inf}.get(value, value)
        if isinstance(value, str)
        else value
    )


def evaluate(page, module: str, function: str, cases, folder: Path = _base.HERE) -> list:
    """Call ``function`` of ``bn/widgets/<module>.js`` with each case's arguments, in the browser."""
    text = json.dumps([_mark(list(case)) for case in cases])
    answer = page.evaluate(
        f"""async ([esm, name, cases]) => {{
        const url = URL.createObjectURL(new Blob([esm], {{ type: "text/javascript" }}));
        const f = (await import(url))[name];
        if (!f) throw new Error("the module exports no " + name);
        return JSON.stringify(JSON.parse(cases, {REVIVE}).map((c) => f(...c) ?? null), {KEEP});
        }}""",
        [_base.bundle(module, folder), function, text],
    )
    return _unmark(json.loads(answer))
