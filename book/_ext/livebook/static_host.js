// Bring the anywidgets of a static page to life: no kernel, no require.js, no html-manager.
//
// The page holds a script with the state of all its widgets and, where a widget is shown, a
// script with its identity (MyST-NB writes both, livebook/widgets.py makes the first small).
// This is a classic script, not a module, so that it also runs on a page opened from disk.
(() => {
  "use strict";
  const STATE = "application/vnd.jupyter.widget-state+json";
  const VIEW = "application/vnd.jupyter.widget-view+json";
  const models = new Map(); // model id -> Model

  const resolve = (reference) => models.get(String(reference).replace(/^(IPY_MODEL_|anywidget:)/, ""));

  // Binary traits arrive as text; a widget expects a DataView, as in Jupyter.
  function decode(entry, texts) {
    const state = { ...entry.state };
    for (const name of ["_esm", "_css"]) {
      if (typeof state[name] === "number") state[name] = texts[state[name]];
    }
    for (const { path, encoding, data } of entry.buffers || []) {
      const bytes =
        encoding === "hex"
          ? Uint8Array.from(data.match(/../g) || [], (pair) => parseInt(pair, 16))
          : Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
      const parents = path.slice(0, -1);
      parents.reduce((value, key) => value[key], state)[path.at(-1)] = new DataView(bytes.buffer);
    }
    return state;
  }

  // The part of anywidget's model that has a meaning without a kernel.
  class Model {
    #state;
    #handlers = new Map(); // event name -> Set of functions

    constructor(id, entry, texts) {
      this.model_id = id;
      this.name = entry.model_name;
      this.module = entry.model_module;
      this.#state = decode(entry, texts);
      this.widget_manager = { get_model: async (reference) => resolve(reference) };
    }
    get(key) {
      return this.#state[key];
    }
    set(key, value) {
      const values = typeof key === "object" ? key : { [key]: value };
      const changed = Object.keys(values).filter((k) => !Object.is(this.#state[k], values[k]));
      Object.assign(this.#state, values);
      for (const k of changed) this.#emit(`change:${k}`, this, values[k]);
      if (changed.length) this.#emit("change", this);
    }
    save_changes() {}
    send() {}
    on(names, handler) {
      for (const name of names.split(/\s+/)) {
        if (!this.#handlers.has(name)) this.#handlers.set(name, new Set());
        this.#handlers.get(name).add(handler);
      }
    }
    off(names, handler) {
      if (!names) return this.#handlers.clear();
      for (const name of names.split(/\s+/)) {
        if (handler) this.#handlers.get(name)?.delete(handler);
        else this.#handlers.delete(name);
      }
    }
    #emit(name, ...details) {
      for (const handler of [...(this.#handlers.get(name) || [])]) {
        try {
          handler(...details);
        } catch (error) {
          console.error(error); // one broken listener does not silence the others
        }
      }
    }
  }

  // ipywidgets' jslink and jsdlink.
  function link(model) {
    const [from, fromName] = model.get("source");
    const [to, toName] = model.get("target");
    const source = resolve(from);
    const target = resolve(to);
    if (!source || !target) return;
    const forward = () => target.set(toName, source.get(fromName));
    source.on(`change:${fromName}`, forward);
    if (model.name === "LinkModel") {
      target.on(`change:${toName}`, () => source.set(fromName, target.get(toName)));
    }
    forward();
  }

  // Each distinct module is imported once, each distinct style sheet added once.
  const modules = new Map();
  function load(esm) {
    if (!modules.has(esm)) {
      const url = URL.createObjectURL(new Blob([esm], { type: "text/javascript" }));
      modules.set(
        esm,
        import(url).then(async ({ default: widget }) => (typeof widget === "function" ? widget() : widget)),
      );
    }
    return modules.get(esm);
  }
  const styles = new Set();
  function style(css) {
    if (!css || styles.has(css)) return;
    styles.add(css);
    document.head.append(Object.assign(document.createElement("style"), { textContent: css }));
  }

  const initialized = new Map();
  async function initialize(model) {
    const widget = await load(model.get("_esm"));
    if (!initialized.has(model)) {
      const { signal } = new AbortController(); // a model lives as long as its page
      initialized.set(model, Promise.resolve(widget.initialize?.({ model, signal })));
    }
    await initialized.get(model);
    return widget;
  }

  const shown = new Map(); // element -> AbortController
  async function render(model, el) {
    if (!model) throw new Error("its saved state is missing");
    if (/^[HV]?BoxModel$/.test(model.name)) {
      el.classList.add(model.name === "HBoxModel" ? "static-hbox" : "static-vbox");
      await Promise.all(
        model.get("children").map((child) => render(resolve(child), el.appendChild(document.createElement("div")))),
      );
      return;
    }
    if (model.module !== "anywidget") throw new Error(`${model.name} needs a running kernel`);
    style(model.get("_css"));
    const widget = await initialize(model);
    const controller = new AbortController();
    shown.set(el, controller);
    const { signal } = controller;
    const invoke = async () => {
      throw new Error("there is no kernel on a static page");
    };
    const cleanUp = await widget.render?.({ model, el, signal, experimental: { invoke } });
    if (typeof cleanUp === "function") signal.addEventListener("abort", cleanUp);
  }

  async function mount(script) {
    const el = Object.assign(document.createElement("div"), { className: "static-widget" });
    script.before(el);
    try {
      await render(resolve(JSON.parse(script.textContent).model_id), el);
      el.dataset.ready = "";
      if (!performance.getEntriesByName("first-widget").length) performance.mark("first-widget");
    } catch (error) {
      console.error(error);
      const note = document.createElement("p");
      note.textContent = `This interactive figure could not start: ${error.message}.`;
      el.replaceChildren(note);
      el.dataset.failed = "";
      const picture = script.nextElementSibling; // the picture for readers without JavaScript
      if (picture?.matches("noscript")) el.insertAdjacentHTML("beforeend", picture.textContent);
    }
  }

  // The parser has passed the end of an element as soon as something follows it.
  function complete(element) {
    if (document.readyState !== "loading") return true;
    for (let node = element; node; node = node.parentNode) if (node.nextSibling) return true;
    return false;
  }

  const seen = new WeakSet();
  const pending = [];
  function fresh(type) {
    const scripts = [...document.querySelectorAll(`script[type="${type}"]`)];
    return scripts.filter((script) => !seen.has(script) && complete(script) && seen.add(script));
  }
  function scan() {
    for (const script of fresh(STATE)) {
      const { state, texts = [] } = JSON.parse(script.textContent);
      const added = Object.entries(state).map(([id, entry]) => new Model(id, entry, texts));
      for (const model of added) models.set(model.model_id, model);
      for (const model of added) if (/^(Directional)?LinkModel$/.test(model.name)) link(model);
    }
    for (const script of fresh(VIEW)) pending.push(mount(script));
  }
  function sweep() {
    for (const [el, controller] of shown) {
      if (el.isConnected) continue;
      shown.delete(el);
      controller.abort(); // a figure that left the page takes its listeners along
    }
  }

  // Mount while the page is still being parsed: MathJax and the theme's scripts come later.
  const watch = (callback) => {
    const observer = new MutationObserver(callback);
    observer.observe(document, { childList: true, subtree: true });
    return observer;
  };
  const parsing = watch(scan);
  async function finish() {
    parsing.disconnect();
    scan();
    watch(sweep);
    await Promise.all(pending);
    document.documentElement.dataset.widgets = "ready";
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", finish);
  else finish();
})();
