"""The static host alone, on pages written by hand and opened from disk."""

from __future__ import annotations

import json

import pytest
from livebook.widgets import HOST, STATE, VIEW, slim

pytestmark = pytest.mark.browser

COUNTER = """
globalThis.imports = (globalThis.imports ?? 0) + 1;
export default {
  initialize({ model }) { model.set("initialized", (model.get("initialized") ?? 0) + 1); },
  render({ model, el, signal }) {
    const button = document.createElement("button");
    const show = () => { button.textContent = `${model.get("name")} ${model.get("count")}`; };
    button.addEventListener("click", () => { model.set("count", model.get("count") + 1); model.save_changes(); });
    model.on("change:count", show);
    signal.addEventListener("abort", () => { document.title = "aborted " + model.get("name"); });
    show();
    el.append(button);
  },
};
"""


def anywidget(esm=COUNTER, **state) -> dict:
    return {"model_name": "AnyModel", "model_module": "anywidget",
            "state": {"_esm": esm, "_css": "button { color: rgb(1, 2, 3) }", **state}}  # fmt: skip


def page(tmp_path, chromium, models: dict, shown: list[str], poster: str = ""):
    """Open a page that shows some of its models."""
    views = "".join(
        f'<p>before</p><script type="{VIEW}">{json.dumps({"model_id": name})}</script>{poster}'
        for name in shown
    )
    state = json.dumps(slim(models)).replace("<", "\\u003c")
    (tmp_path / "page.html").write_text(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>page</title>'
        f'<script type="{STATE}">{state}</script><script>{HOST.read_text()}</script></head>'
        f"<body>{views}<p>after</p></body></html>"
    )
    opened = chromium.new_page()
    opened.goto((tmp_path / "page.html").as_uri())
    opened.wait_for_function("document.documentElement.dataset.widgets === 'ready'")
    return opened


def test_two_widgets_of_a_kind_share_their_module_and_nothing_else(tmp_path, chromium):
    models = {"a": anywidget(name="a", count=1), "b": anywidget(name="b", count=5)}
    opened = page(tmp_path, chromium, models, ["a", "b", "a"])
    buttons = opened.locator("button")
    assert buttons.all_inner_texts() == ["a 1", "b 5", "a 1"]
    buttons.nth(0).click()
    assert buttons.all_inner_texts() == ["a 2", "b 5", "a 2"], "two views of one model agree"
    assert opened.evaluate("imports") == 1
    assert opened.locator("head style").count() == 1
    opened.close()


@pytest.mark.parametrize(("kind", "back"), [("LinkModel", True), ("DirectionalLinkModel", False)])
def test_jslink_and_jsdlink(kind, back, tmp_path, chromium):
    models = {
        "a": anywidget(name="a", count=1),
        "b": anywidget(name="b", count=5),
        "link": {"model_name": kind, "model_module": "@jupyter-widgets/controls",
                 "state": {"source": ["IPY_MODEL_a", "count"], "target": ["IPY_MODEL_b", "count"]}},
    }  # fmt: skip
    opened = page(tmp_path, chromium, models, ["a", "b"])
    buttons = opened.locator("button")
    assert buttons.all_inner_texts() == ["a 1", "b 1"], "the target takes the source's value"
    buttons.nth(0).click()
    assert buttons.all_inner_texts() == ["a 2", "b 2"]
    buttons.nth(1).click()
    assert buttons.all_inner_texts() == (["a 3", "b 3"] if back else ["a 2", "b 3"])
    opened.close()


def test_a_box_shows_its_children(tmp_path, chromium):
    models = {
        "a": anywidget(name="a", count=1),
        "b": anywidget(name="b", count=5),
        "box": {"model_name": "HBoxModel", "model_module": "@jupyter-widgets/controls",
                "state": {"children": ["IPY_MODEL_a", "IPY_MODEL_b"]}},
    }  # fmt: skip
    opened = page(tmp_path, chromium, models, ["box"])
    assert opened.locator(".static-hbox button").all_inner_texts() == ["a 1", "b 5"]
    opened.close()


def test_listeners_die_with_a_figure_that_leaves_the_page(tmp_path, chromium):
    opened = page(tmp_path, chromium, {"a": anywidget(name="a", count=1)}, ["a"])
    opened.evaluate("document.querySelector('.static-widget').remove()")
    opened.wait_for_function("document.title === 'aborted a'")
    opened.close()


def test_the_state_of_a_model_is_its_own_to_change(tmp_path, chromium):
    esm = """export default { render({ model, el }) {
      const log = [];
      model.on("change:x change:y", (m, v) => log.push(v));
      const off = () => log.push("never"); model.on("change:x", off); model.off("change:x", off);
      model.on("change", () => log.push("any"));
      model.on("change:x", () => { throw new Error("a broken listener"); });
      model.set("x", 1); model.set({ x: 1, y: 2 }); model.set({ x: 3, y: 4 });
      model.off(); model.set("x", 9);
      el.textContent = JSON.stringify([log, model.get("x")]);
    } }"""
    opened = page(tmp_path, chromium, {"a": anywidget(esm, x=0, y=0)}, ["a"])
    log, x = json.loads(opened.locator(".static-widget").inner_text())
    assert log == [1, "any", 2, "any", 3, 4, "any"]
    assert x == 9
    opened.close()


def test_binary_traits_arrive_as_a_dataview(tmp_path, chromium):
    esm = """export default { render({ model, el }) {
      el.textContent = new Uint8Array(model.get("data").buffer).join() + " " + model.get("deep").a.getUint8(0); } }"""
    model = anywidget(esm, deep={}) | {
        "buffers": [{"path": ["data"], "encoding": "base64", "data": "AQID"},
                    {"path": ["deep", "a"], "encoding": "hex", "data": "ff00"}]}  # fmt: skip
    opened = page(tmp_path, chromium, {"a": model}, ["a"])
    assert opened.locator(".static-widget").inner_text() == "1,2,3 255"
    opened.close()


def test_a_figure_that_fails_says_so_and_shows_its_picture(tmp_path, chromium):
    poster = '<noscript><img alt="the picture" src="data:image/svg+xml,<svg/>"></noscript>'
    broken = anywidget("export default { render() { throw new Error('no luck'); } }", name="broken")
    models = {"a": broken, "b": anywidget(name="b", count=1)}
    opened = page(tmp_path, chromium, models, ["a", "b", "gone"], poster)
    failed = opened.locator(".static-widget[data-failed]")
    assert "could not start: no luck" in failed.nth(0).inner_text()
    assert "its saved state is missing" in failed.nth(1).inner_text()
    assert failed.nth(0).locator("img[alt='the picture']").count() == 1
    assert opened.locator("button").inner_text() == "b 1", "the others live"
    opened.close()


def test_a_script_end_inside_a_text_does_not_end_the_state(tmp_path, chromium):
    esm = 'export default { render({ el }) { el.textContent = "</script><b>x"; } }'
    opened = page(tmp_path, chromium, {"a": anywidget(esm)}, ["a"])
    assert opened.locator(".static-widget").inner_text() == "</script><b>x"
    opened.close()
