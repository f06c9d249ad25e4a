"""Interactive figures without a kernel.

MyST-NB writes into a page the state of all its widgets and, where a widget is shown, its
identity. ``static_host.js`` reads both and runs the widget's own front end. This module makes
the state small, and gives readers without JavaScript a picture.
"""

from __future__ import annotations

import hashlib
import html
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

STATE = "application/vnd.jupyter.widget-state+json"
VIEW = "application/vnd.jupyter.widget-view+json"
HOST = Path(__file__).with_name("static_host.js")

_VIEW_TAG = re.compile(rf'<script type="{re.escape(VIEW)}">(.*?)</script>', re.S)
_LINKS = ("LinkModel", "DirectionalLinkModel")
_BOXES = ("BoxModel", "HBoxModel", "VBoxModel")
# Long texts that every instance of a widget repeats: the page holds each once.
_SHARED = ("_esm", "_css")


def _script_safe(text: str) -> str:
    """Escape JSON for the inside of a script element, where '</script' would end it."""
    return text.replace("<", "\\u003c")


def slim(state: dict[str, Any]) -> dict[str, Any]:
    """Return what the static host needs of a saved widget state: shared texts once, no layouts.

    Parameters
    ----------
    state
        Model id to ``{"model_name", "model_module", "state", ...}``, as Jupyter saves it.

    Returns
    -------
    dict
        ``{"state": …, "texts": […]}``; a shared text is replaced by its index in ``texts``.
    """
    texts: dict[str, int] = {}
    models = {}
    for model_id, model in state.items():
        if model["model_module"] != "anywidget" and model["model_name"] not in _LINKS + _BOXES:
            continue
        values = {
            name: value
            for name, value in model["state"].items()
            if name not in ("_poster", "layout", "tabbable", "tooltip", "_dom_classes")
            and not name.startswith(("_model_", "_view_", "_anywidget_id"))
        }
        for name in _SHARED:
            if values.get(name):
                values[name] = texts.setdefault(values[name], len(texts))
        models[model_id] = {
            "model_name": model["model_name"],
            "model_module": model["model_module"],
            "state": values,
        } | ({"buffers": model["buffers"]} if model.get("buffers") else {})
    return {"state": models, "texts": list(texts)}


class Page:
    """The widgets of one built page."""

    def __init__(self, scripts: Iterable[str]) -> None:
        self.models: dict[str, dict] = {}
        for script in scripts:
            self.models |= json.loads(script)["state"]

    def dead(self, view: str) -> str | None:
        """Say why the widget that is shown would not come to life, or return None."""
        model_id = json.loads(view)["model_id"]
        if (model := self.models.get(model_id)) is None:
            return "it is no anywidget, or its state was not saved"
        if model["model_name"] in _BOXES:
            children = [child.removeprefix("IPY_MODEL_") for child in model["state"]["children"]]
            reasons = (self.dead(json.dumps({"model_id": child})) for child in children)
            return next(filter(None, reasons), None)
        if model["model_module"] != "anywidget":
            return f"{model['model_name']} needs a running kernel"
        return None


def _poster(app: Sphinx, state: dict[str, Any], to_root: str) -> str:
    """Write a widget's picture beside the page's images; return the element that shows it."""
    svg = state.get("_poster")
    if not svg:
        return ""
    name = f"poster-{hashlib.sha256(svg.encode()).hexdigest()[:16]}.svg"
    folder = Path(app.outdir) / "_images"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(svg, encoding="utf-8")
    described = re.search(r"<desc>(.*?)</desc>", svg, re.S)  # bn.widgets writes one
    alt = described[1].strip() if described else "The interactive figure in its first state."
    return (
        f'<noscript class="bn-poster"><img src="{to_root}_images/{name}" alt="{html.escape(html.unescape(alt))}">'
        "<p>This figure moves when JavaScript is on.</p></noscript>"
    )


def prepare_page(app: Sphinx, pagename: str, template: str, context: dict, doctree: Any) -> None:
    """Slim the page's widget state and put a picture behind each view."""
    if app.builder.format != "html":
        return
    models: dict[str, dict] = {}
    for script in context["script_files"]:
        attributes = getattr(script, "attributes", {})
        if attributes.get("type") == STATE:
            state = json.loads(attributes["body"])["state"]
            models |= state
            attributes["body"] = _script_safe(json.dumps(slim(state), separators=(",", ":")))
    if models:
        root = context["content_root"]

        def add_poster(match: re.Match) -> str:
            model = models.get(json.loads(match[1])["model_id"], {})
            return match[0] + _poster(app, model.get("state", {}), root)

        context["body"] = _VIEW_TAG.sub(add_poster, context["body"])


def set_host(app: Sphinx, config: Any) -> None:
    """Name the script that MyST-NB puts on every page with widgets."""
    config.nb_ipywidgets_js = {HOST.name: {}}


def setup(app: Sphinx) -> None:
    app.connect("config-inited", set_host)
    app.connect("html-page-context", prepare_page, priority=600)  # after MyST-NB
