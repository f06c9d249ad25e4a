"""Every widget keeps the house rules; the parts it is built from do what they say."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import traitlets
from test_widget_landscape import records as landscapes
from test_widget_noisy import record as noises
from test_widget_ratemap import record as ratemaps
from test_widget_shift import record as shifts
from widget_harness import evaluate, mount, page, state_of, widget_browser  # noqa: F401

from bn import widgets
from bn.widgets import _base
from bn.widgets._base import Widget, bundle, picture

SVG = "{http://www.w3.org/2000/svg}"

QUIZ = {
    "title": "A quiz for tests",
    "id": "part/page",
    "questions": [
        {
            "id": "one",
            "prompt": r"What is $\frac{1}{2} + \frac12$?",
            "options": [
                {"text": "$1$", "correct": True, "feedback": "Two halves."},
                {"text": "*two*", "feedback": "That is `1 + 1`."},
            ],
        },
        {
            "id": "many",
            "multiple": True,
            "prompt": "Which are even?",
            "options": [
                {"text": "2", "correct": True, "feedback": "Yes."},
                {"text": "3", "feedback": "Odd."},
                {"text": "4", "correct": True, "feedback": "Yes, **twice two**."},
            ],
        },
        {
            "id": "last",
            "prompt": "Is <b>this</b> bold?",
            "options": [
                {"text": "yes", "feedback": "It is not read as HTML."},
                {"text": "no", "correct": True, "feedback": "See [there](https://example.org/)."},
            ],
        },
    ],
}


@pytest.fixture
def quiz_file(tmp_path):
    path = tmp_path / "page.quiz.json"
    path.write_text(json.dumps(QUIZ), encoding="utf-8")
    return path


def record(epochs=4) -> dict:
    """A record of two arms and two seeds, with two layers, as experiments write them."""

    def row(epoch, seed, batch_norm):
        loss = (2.0 - batch_norm) / (epoch + seed + 1)
        seen = {
            "quantiles": [-2.0, -1.0, 0.1, 1.0, 2.0],
            "counts": [epoch, 5, 9, 4],
            "edges": [-3.0, 3.0 + epoch],
        }
        return {
            "epoch": epoch, "train_loss": loss, "test_loss": loss * 1.1, "train_accuracy": 1 - loss / 3,
            "test_accuracy": 1 - loss / 2.5, "preactivations": {"sigmoid1": seen, "sigmoid2": seen},
        }  # fmt: skip

    units = [
        {
            "params": {"batch_norm": bn},
            "seed": s,
            "epochs": [row(e + 1, s, bn) for e in range(epochs)],
        }
        for bn in (False, True)
        for s in (0, 1)
    ]
    return {
        "experiment": "mnist_mlp",
        "config": {"network": "mlp"},
        "seeds": [0, 1],
        "units": units,
    }


def make(name: str, quiz_file) -> Widget:
    """Build the widget as a chapter does, with its defaults."""
    cls = getattr(widgets, name)
    how = {
        "Quiz": lambda: cls(quiz_file),
        "Replay": lambda: cls(record()),
        "Landscape": lambda: cls(*landscapes()),
        "RateMap": lambda: cls(ratemaps(), rate=2, scale=1),
        "Noisy": lambda: cls(noises()),
        "Shift": lambda: cls(shifts()),
        "Predictions": lambda: cls(*seen()),
    }
    return how.get(name, cls)()


def seen(n=40):
    """Images, labels and what two nets say of them, for Predictions."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 10
    nets = {}
    for name, sharp in (("with", 2.5), ("without", 1.5)):
        scores = rng.normal(size=(n, 10)) + sharp * np.eye(10)[labels]
        nets[name] = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    return rng.uniform(size=(n, 1, 8, 8)).astype(np.float32), labels, nets


HERE = [name for name, module in widgets._WHERE.items() if (_base.HERE / f"{module}.py").exists()]


def test_every_widget_named_is_there():
    assert sorted(widgets._WHERE) == sorted(HERE)


@pytest.fixture(params=HERE)
def widget(request, quiz_file):
    return make(request.param, quiz_file)


# ------------------------------------------------------------------- the contract, without a browser


def test_repr_is_stable_and_short(widget, quiz_file):
    name = type(widget).__name__
    assert repr(widget) == repr(make(name, quiz_file))
    assert repr(widget).startswith(f"{name}(")
    assert "0x" not in repr(widget)
    assert "\n" not in repr(widget)
    assert len(repr(widget)) < 160


def test_module_stands_alone(widget):
    assert not re.search(r"^\s*import\b(?!\s*\()", widget._esm, re.M)
    assert re.search(r"^export default\b", widget._esm, re.M)
    assert not re.search(r"https?://(?!www\.w3\.org/)", widget._esm), "a widget asks no other host"
    assert "--bn-with" in widget._css


def test_poster_is_a_described_svg(widget):
    svg = ET.fromstring(widget.poster())
    assert svg.tag == SVG + "svg"
    assert svg.get("role") == "img"
    assert len(svg.findtext(SVG + "title")) > 3
    assert len(svg.findtext(SVG + "desc")) > 15
    assert len(list(svg.iter())) > 20, "the picture is empty"


def test_poster_is_the_same_every_time(widget, quiz_file):
    assert widget.poster() == make(type(widget).__name__, quiz_file).poster()


def test_notebook_gets_a_view_without_javascript(widget):
    data, _ = widget._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    assert data["text/plain"] == repr(widget)
    assert {"image/svg+xml", "text/markdown"} & data.keys()
    assert widget._poster.startswith("<svg"), "the site takes its static picture from the state"


def test_state_is_small_and_plain(widget):
    state = state_of(widget)
    assert json.loads(json.dumps(state, allow_nan=False)) == state, "NaN is not JSON"
    assert len(json.dumps(state)) < 400_000


# -------------------------------------------------------------------------- the contract, in a browser


def test_describes_itself(page, widget):  # noqa: F811
    shown = mount(page, widget)
    assert len(shown.description()) > 15
    assert page.locator("#here .bn-title").first.text_content()
    for svg in page.locator("#here svg:not([aria-hidden=true])").all():
        named = svg.get_attribute("aria-label") or svg.get_attribute("aria-labelledby")
        assert svg.get_attribute("role") in ("img", "group", "application")
        assert named


def modes(page):  # noqa: F811
    """The widget as it opens, then in each of the modes its radio buttons choose."""
    yield "as it opens"
    for option in page.locator("#here .bn-choice input[type=radio]").all():
        if option.is_visible():
            option.check()
            page.evaluate("__frames(3)")
            yield page.evaluate("e => e.labels[0].textContent", option.element_handle())


def test_every_slider_obeys_the_keyboard(page, widget):  # noqa: F811
    shown = mount(page, widget)
    for mode in modes(page):
        for slider in page.locator("#here input[type=range]:not([disabled]):visible").all():
            before = (
                slider.input_value(),
                slider.get_attribute("aria-valuetext"),
                shown.description(),
            )
            low, high = (float(slider.get_attribute(k)) for k in ("min", "max"))
            slider.focus()
            page.keyboard.press(
                "ArrowLeft" if float(before[0]) > (low + high) / 2 else "ArrowRight"
            )
            shown.settle()
            label = page.evaluate("e => e.labels[0]?.textContent", slider.element_handle())
            assert label, "a slider without a name"
            assert slider.input_value() != before[0], f"{mode}, {label}: the key moved nothing"
            assert slider.get_attribute("aria-valuetext") != before[1], (
                f"{mode}, {label}: same words"
            )
            assert shown.description() != before[2], f"{mode}, {label}: the description ignores it"


def test_every_control_has_a_name_and_is_large_enough(page, widget):  # noqa: F811
    mount(page, widget, width=320)
    small = page.evaluate(
        """[...document.querySelectorAll('#here :is(button, select, input, a, [tabindex="0"])')]
        .filter((e) => e.checkVisibility() && !e.closest('.bn-sr'))
        .map((e) => { const t = e.type === 'checkbox' || e.type === 'radio' ? e.labels[0] ?? e : e,
          r = t.getBoundingClientRect(), link = e.tagName === 'A';
          return [e.labels?.[0]?.textContent || e.ariaLabel || e.getAttribute('aria-labelledby')
            || e.textContent, r.width, r.height, link]; })"""
    )
    for name, width, height, link in small:
        assert name, "a control without a name"
        assert link or (width >= 24 and height >= 24), f"{name}: {width:.0f}×{height:.0f} px"


@pytest.mark.parametrize("width", [320, 700])
def test_fits(page, widget, width):  # noqa: F811
    shown = mount(page, widget, width=width)
    assert shown.overflow() <= 0
    outside = page.evaluate(
        """(() => { const box = document.querySelector('#here .bn-widget').getBoundingClientRect();
        return [...document.querySelectorAll('#here :is(text, p, button, input, select, output, label)')]
        .filter((e) => e.checkVisibility() && !e.closest('.bn-sr') && !e.closest('.bn-scroll'))
        .map((e) => [e.textContent || e.type, e.getBoundingClientRect()])
        .filter(([, r]) => r.width && (r.left < box.left - 1 || r.right > box.right + 1 || r.top < box.top - 1
          || r.bottom > box.bottom + 1)).map(([t, r]) => `${t}: ${r.left}–${r.right}`); })()"""
    )
    assert not outside, "sticks out of the widget's frame"


def test_text_in_a_drawing_is_large_enough(page, widget):  # noqa: F811
    mount(page, widget)
    sizes = page.evaluate(
        """[...document.querySelectorAll('#here svg text')].map((e) => [e.textContent,
        parseFloat(getComputedStyle(e).fontSize) * 480 / e.ownerSVGElement.viewBox.baseVal.width])"""
    )
    assert not [t for t, size in sizes if size < 16.5]


def _luminance(rgb):
    c = np.array(rgb) / 255
    c = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    return c @ [0.2126, 0.7152, 0.0722]


def contrast(a, b):
    hi, lo = sorted((_luminance(a), _luminance(b)), reverse=True)
    return (hi + 0.05) / (lo + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_contrast(page, widget, theme):  # noqa: F811
    mount(page, widget, theme=theme)
    found = page.evaluate(
        """(() => { const ctx = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
        const rgb = (c) => { ctx.clearRect(0, 0, 1, 1); ctx.fillStyle = c; ctx.fillRect(0, 0, 1, 1);
          return [...ctx.getImageData(0, 0, 1, 1).data]; };
        const html = (e) => { for (; e; e = e.parentElement) {
          const c = rgb(getComputedStyle(e).backgroundColor); if (c[3] > 250) return c; } return [255, 255, 255, 255]; };
        const back = (e) => { // what is painted under the middle of the text
          if (!e.ownerSVGElement) return html(e);
          const r = e.getBoundingClientRect();
          for (const shape of [...e.ownerSVGElement.querySelectorAll('rect, circle, path')].reverse()) {
            const b = shape.getBoundingClientRect(), x = r.x + r.width / 2, y = r.y + r.height / 2;
            if (b.left > x || b.right < x || b.top > y || b.bottom < y || !shape.checkVisibility()) continue;
            if (!(e.compareDocumentPosition(shape) & Node.DOCUMENT_POSITION_PRECEDING)) continue;
            const style = getComputedStyle(shape), c = rgb(style.fill === 'none' ? 'transparent' : style.fill);
            const inside = shape.isPointInFill(new DOMPoint(x, y).matrixTransform(shape.getScreenCTM().inverse()));
            if (inside && c[3] > 250 && style.fillOpacity > 0.95 && style.opacity > 0.95) return c; }
          return html(e.ownerSVGElement.parentElement); };
        return [...document.querySelectorAll('#here *')].filter((e) => e.checkVisibility() && !e.closest('.bn-sr')
          && !e.disabled && [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()))
        .map((e) => { const style = getComputedStyle(e);
          return [e.textContent.trim().slice(0, 40), rgb(e.ownerSVGElement ? style.fill : style.color), back(e)]; }); })()"""
    )
    assert found
    faint = {
        t: round(contrast(c[:3], b[:3]), 2) for t, c, b in found if contrast(c[:3], b[:3]) < 4.5
    }
    assert not faint


def test_nothing_listens_after_the_end(page, widget):  # noqa: F811
    shown = mount(page, widget)
    for slider in page.locator("#here input[type=range]:not([disabled])").all()[:2]:
        slider.focus()
        page.keyboard.press("ArrowRight")
    shown.settle()
    assert shown.leftovers() == []


def test_two_on_a_page_share_no_id(page, widget):  # noqa: F811
    mount(page, widget)
    page.evaluate(
        "x => __mount(x)", {"esm": widget._esm, "css": widget._css, "state": state_of(widget)}
    )
    page.evaluate("__frames(3)")
    ids = page.evaluate("[...document.querySelectorAll('#here [id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))


def test_no_work_off_screen(page, widget):  # noqa: F811
    shown = mount(page, widget)
    page.evaluate(
        """() => { const space = document.createElement('div'); space.style.height = '5000px';
        document.getElementById('here').before(space); scrollTo(0, 0); }"""
    )
    shown.settle()
    page.wait_for_timeout(150)  # until the observer has told
    drawn = page.evaluate(
        """async () => { let n = 0;
        const watch = new MutationObserver((all) => { n += all.length; });
        for (const e of __el.querySelectorAll('.bn-svg')) watch.observe(e, { childList: true, subtree: true, attributes: true });
        for (const k of Object.keys(__model.state)) __model.emit('change:' + k, __model, __model.get(k));
        await __frames(4); return n; }"""
    )
    assert drawn == 0
    page.evaluate("() => __el.scrollIntoView()")
    page.wait_for_timeout(150)
    assert shown.description()


def test_paper_shows_what_the_screen_has_not_shown_yet(page):  # noqa: F811
    shown = mount(page, widgets.Chain())
    page.evaluate("() => { __el.style.marginTop = '5000px'; scrollTo(0, 0); }")
    page.wait_for_timeout(150)
    shown.set(depth=7)
    assert "7 weights" not in shown.description()
    page.evaluate("() => dispatchEvent(new Event('beforeprint'))")
    assert "7 weights" in shown.description()


PALE, DARK = "rgb(0, 114, 178)", "rgb(86, 180, 233)"  # --bn-with in each theme


@pytest.mark.parametrize(
    ("host", "system", "medium", "expected"),
    [
        ("html data-theme=light", "dark", "screen", PALE),
        ("html data-theme=dark", "light", "screen", DARK),
        ("html data-theme=dark", "dark", "print", PALE),
        ("html theme=dark", "light", "screen", DARK),  # Colab
        ("body data-jp-theme-light=false", "light", "screen", DARK),
        ("body data-jp-theme-light=true", "dark", "screen", PALE),
        ("body class=vscode-dark", "light", "screen", DARK),
        ("body class=vscode-light", "dark", "screen", PALE),
        ("", "dark", "screen", DARK),
        ("", "dark", "print", PALE),
        ("", "light", "screen", PALE),
    ],
)
def test_colours_follow_the_host(page, host, system, medium, expected):  # noqa: F811
    page.set_content(
        f"<style>{_base.styles('common')}</style><p class=bn-widget style='outline-color: var(--bn-with)'>x"
    )
    page.emulate_media(color_scheme=system, media=medium)
    if host:
        element, attribute, value = re.split("[ =]", host)
        page.evaluate(
            "([e, a, v]) => document.querySelector(e).setAttribute(a, v)",
            [element, attribute, value],
        )
    style = "getComputedStyle(document.querySelector('.bn-widget'))"
    assert page.evaluate(f"{style}.outlineColor") == expected
    ink, paper = (
        [int(v) for v in re.findall(r"\d+", page.evaluate(f"{style}.{k}"))[:3]]
        for k in ("color", "backgroundColor")
    )
    assert contrast(ink, paper) > 7


# ------------------------------------------------------------------------------------- the bundler


@pytest.fixture
def modules(tmp_path):
    def write(**texts):
        for name, text in texts.items():
            (tmp_path / f"{name}.js").write_text(text)
        return tmp_path

    return write


def test_bundle_keeps_names_apart(page, modules):  # noqa: F811
    folder = modules(
        a='import { twice, one as uno } from "./b.js";\nimport * as c from "./c.js";\n'
        "const secret = 100;\nexport function f(x) { return twice(x) + uno + c.three + secret; }\n",
        b="import { three } from './c.js';\nconst secret = 2;\n"
        "export const one = three - 2;\nexport function twice(x) { return secret * x; }\n",
        c="const secret = 3;\nexport const three = secret;\n",
    )
    assert evaluate(page, "a", "f", [[1], [20]], folder) == [106, 144]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"a": 'import { x } from "./gone.js";'}, "gone.js"),
        ({"a": 'import { x } from "./b.js";', "b": 'import { y } from "./a.js";'}, "circle"),
        ({"a": 'import d3 from "https://esm.sh/d3";'}, "cannot inline"),
        ({"a": 'import { x } from "./b.js";', "b": "export default 1;"}, "export default 1"),
        (
            {"a": 'import { x } from "./b.js";', "b": "const x = 1;\nexport { x };"},
            "export const x",
        ),
    ],
)
def test_bundle_says_what_it_cannot_read(modules, texts, message):
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(message)):
        bundle("a", modules(**texts))


# ---------------------------------------------------------------------------------- picture and base


def test_picture_escapes_its_words():
    svg = picture(lambda figure: figure.add_subplot(), "a < b & c", '"quoted" <tag>')
    root = ET.fromstring(svg)
    assert root.findtext(SVG + "title") == "a < b & c"
    assert root.findtext(SVG + "desc") == '"quoted" <tag>'


class Plain(Widget):
    _name = "common"
    _title = "Plain"
    _shown = ("x", "values")
    x = traitlets.Float(1 / 3).tag(sync=True)
    values = traitlets.List([1.0, 2.5]).tag(sync=True)

    def draw(self, figure):
        figure.add_subplot().plot(self.values)


def test_repr_shows_values():
    assert repr(Plain()) == "Plain(x=0.333333, values=[1, 2.5])"
    assert repr(Plain(values=[0.0] * 50)) == "Plain(x=0.333333, values=<50>)"


def test_without_matplotlib_a_widget_still_shows(monkeypatch):
    plain = Plain()
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    data, _ = plain._repr_mimebundle_()
    assert "image/svg+xml" not in data
    assert "application/vnd.jupyter.widget-view+json" in data


def test_an_error_in_a_picture_is_not_swallowed():
    class Broken(Plain):
        def draw(self, figure):
            import no_such_module  # noqa: F401

    with pytest.raises(ModuleNotFoundError):
        Broken()._repr_mimebundle_()


def test_widgets_answer_python():
    import ipywidgets

    a, b, seen = Plain(), Plain(), []
    a.observe(lambda change: seen.append(change.new), "x")
    ipywidgets.link((a, "x"), (b, "x"))
    b.x = 5.0
    assert a.x == 5.0
    assert seen == [5.0]


# ---------------------------------------------------------------------------------------- common.js


def test_numbers_for_readers(page):  # noqa: F811
    expected = {
        0.0: "0", 1.0: "1", -1.0: "−1", 0.1 + 0.2: "0.3", 1234.0: "1234", 12345.0: "12,345",
        1e-4: "10⁻⁴", -1.5e-7: "−1.5×10⁻⁷", 123456.0: "1.23×10⁵", 1.8e57: "1.8×10⁵⁷", -1e6: "−10⁶",
        0.00123: "0.00123", 99.96: "100", -1021.5: "−1022", math.inf: "∞", -math.inf: "−∞",
        5e-324: "4.94×10⁻³²⁴", 0.9999999: "1", 99999.99: "100,000",
    }  # fmt: skip
    assert evaluate(page, "common", "fmt", [[x] for x in expected]) == list(expected.values())
    assert evaluate(page, "common", "fmt", [[math.nan]]) == ["undefined"]


def test_ticks_are_round_and_inside(page):  # noqa: F811
    rng = np.random.default_rng(1)
    ranges = [
        (lo, lo + 10 ** rng.uniform(-8, 8), int(rng.integers(2, 9)))
        for lo in rng.normal(size=50) * 100
    ]
    for (lo, hi, n), marks in zip(ranges, evaluate(page, "common", "ticks", ranges), strict=True):
        slack = 1e-9 * max(abs(lo), abs(hi))
        assert 1 <= len(marks) <= 2 * n + 1
        assert all(lo - slack <= v <= hi + slack for v in marks)
        steps = np.diff(marks)
        assert np.allclose(steps, steps[:1], rtol=1e-3)


SCALES = """
import { linear, log, symlog } from "./common.js";
const made = { linear, log, symlog };
export const there = (kind, domain, range, v) => made[kind](domain, range)(v);
export const back = (kind, domain, range, p) => made[kind](domain, range).invert(p);
export const marks = (kind, domain, n) => made[kind](domain, [0, 1]).ticks(n);
"""


@pytest.fixture
def scales(tmp_path):
    (tmp_path / "common.js").write_text((_base.HERE / "common.js").read_text(encoding="utf-8"))
    (tmp_path / "scales.js").write_text(SCALES)
    return tmp_path


def test_scales_and_their_inverse(page, scales):  # noqa: F811
    domains = {"linear": (-3.0, 7.0), "log": (1e-6, 1e4), "symlog": (-1e5, 1e3)}
    rng = np.random.default_rng(2)
    cases = []
    for kind, (lo, hi) in domains.items():
        for u in rng.uniform(size=30):
            v = lo * (hi / lo) ** u if kind == "log" else lo + u * (hi - lo)
            cases.append([kind, [lo, hi], [460, 40], v])
    there = evaluate(page, "scales", "there", cases, scales)
    assert all(40 <= p <= 460 for p in there)
    back = evaluate(
        page, "scales", "back", [[*c[:3], p] for c, p in zip(cases, there, strict=True)], scales
    )
    assert np.allclose(back, [c[3] for c in cases], rtol=1e-9, atol=1e-9)


def test_marks_of_the_scales(page, scales):  # noqa: F811
    cases = [
        ["log", [1e-3, 1e3], 4],
        ["symlog", [-1e6, 1e3], 6],
        ["log", [2, 9], 4],
        ["symlog", [-1, 1], 5],
    ]
    log, symlog, narrow, flat = evaluate(page, "scales", "marks", cases, scales)
    assert log == [1e-2, 1, 1e2]
    assert 0 in symlog
    assert symlog == sorted(symlog)
    assert min(symlog) >= -1e6
    assert narrow
    assert all(2 <= v <= 9 for v in narrow)
    assert 0 in flat
