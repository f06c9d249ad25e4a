// What every widget is built from. Plain DOM, no dependency; inlined into each widget's module.
// Listeners die with `signal`. One redraw per animation frame, none off screen.

const SVG = "http://www.w3.org/2000/svg";
const here = Math.random().toString(36).slice(2, 8); // several widgets on a page: ids stay apart
let count = 0;
export const uid = (what = "id") => `bn-${what}-${here}-${++count}`;

// ---------------------------------------------------------------- elements

function fill(node, attrs, children) {
  const { signal, ...rest } = attrs ?? {};
  for (const [key, value] of Object.entries(rest)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value, { signal });
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== false));
  return node;
}

// h("button", { class: "x", onclick: f, signal }, "text") makes an HTML element, s(…) an SVG one.
export const h = (tag, attrs, ...children) => fill(document.createElement(tag), attrs, children);
export const s = (tag, attrs, ...children) => fill(document.createElementNS(SVG, tag), attrs, children);

// model.on that ends with the signal. `names` as in Backbone: "change:a change:b".
export function listen(model, names, fn, signal) {
  if (signal?.aborted) return;
  for (const name of names.split(/\s+/)) {
    model.on(name, fn);
    signal?.addEventListener("abort", () => model.off(name, fn), { once: true });
  }
}

export function set(model, key, value) {
  model.set(key, value);
  model.save_changes();
}

// ---------------------------------------------------------------- numbers in words

const UP = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };
export const superscript = (n) => String(n).replace(/./g, (c) => UP[c] ?? c);

// A number for a reader: 3 digits that count, a true minus sign, powers of ten when far from 1.
export function fmt(x, digits = 3) {
  if (x === null || x === undefined || Number.isNaN(x)) return "undefined";
  if (!Number.isFinite(x)) return x > 0 ? "∞" : "−∞";
  if (x === 0) return "0";
  const size = Math.abs(x), sign = x < 0 ? "−" : "";
  if (size >= 10 ** Math.max(5, digits) || size < 1e-3) {
    const [m, e] = size.toExponential(digits - 1).split("e");
    const mantissa = Number(m), power = `10${superscript(Number(e))}`;
    return sign + (mantissa === 1 ? power : `${mantissa}×${power}`);
  }
  const places = Math.max(0, digits - 1 - Math.floor(Math.log10(size)));
  const rounded = Number(size.toFixed(Math.min(places, 20)));
  return sign + (rounded >= 1e4 ? rounded.toLocaleString("en-US") : String(rounded));
}

export const percent = (x, places = 1) => `${(100 * x).toFixed(places).replace("-", "−")} %`;

// ---------------------------------------------------------------- scales and axes

function scale(to, from, domain, range, marks, extra = {}) {
  const a = to(domain[0]), k = (range[1] - range[0]) / (to(domain[1]) - a || 1);
  const f = (v) => range[0] + (to(v) - a) * k;
  f.invert = (p) => from(a + (p - range[0]) / k);
  f.clamp = (v) => Math.min(Math.max(...range), Math.max(Math.min(...range), f(v)));
  f.ticks = (n = 5) => marks(n);
  return Object.assign(f, { domain, range, format: (v) => fmt(v, 3) }, extra);
}

// Round numbers inside [lo, hi], about n of them.
export function ticks(lo, hi, n = 5) {
  if (!(hi > lo) || !Number.isFinite(hi - lo)) return [lo];
  const raw = (hi - lo) / Math.max(1, n), power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((m) => m * power >= raw * 0.999);
  const first = Math.ceil(lo / step - 1e-9), last = Math.floor(hi / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

// At most n whole powers of ten between 10^lo and 10^hi.
function decades(lo, hi, n) {
  const first = Math.ceil(lo - 1e-9), last = Math.floor(hi + 1e-9);
  const step = Math.max(1, Math.ceil((last - first + 1) / Math.max(1, n)));
  const out = [];
  for (let e = Math.ceil(first / step) * step; e <= last; e += step) out.push(e);
  return out;
}

const power = (v) => {
  const e = Math.log10(Math.abs(v)), whole = Math.abs(e - Math.round(e)) < 1e-9;
  return whole && (Math.abs(e) > 3.5) ? `${v < 0 ? "−" : ""}10${superscript(Math.round(e))}` : fmt(v, 3);
};

export const linear = (domain, range) =>
  scale((v) => v, (v) => v, domain, range, (n) => ticks(Math.min(...domain), Math.max(...domain), n));

export const log = (domain, range) =>
  scale(Math.log10, (v) => 10 ** v, domain, range, (n) => {
    const [lo, hi] = [...domain].sort((a, b) => a - b).map(Math.log10);
    const whole = decades(lo, hi, n).map((e) => Number(`1e${e}`));
    return whole.length > 1 ? whole : ticks(10 ** lo, 10 ** hi, n).filter((v) => v > 0);
  }, { format: power });

// Straight within ±linear, logarithmic beyond: for values of both signs and many sizes.
export function symlog(domain, range, { linear: c = 1 } = {}) {
  const to = (v) => Math.sign(v) * Math.log10(1 + Math.abs(v) / c);
  const from = (u) => Math.sign(u) * c * (10 ** Math.abs(u) - 1);
  return scale(to, from, domain, range, (n) => {
    const lo = Math.min(...domain), hi = Math.max(...domain), base = Math.log10(c);
    const side = (size) => size > c ? decades(base, Math.log10(size), n / 2).map((e) => Number(`1e${e}`)) : [];
    return [...side(-lo).reverse().map((v) => -v), 0, ...side(hi)].filter((v) => v >= lo && v <= hi);
  }, { format: power });
}

// An axis as a <g>. side: "bottom" | "left" | "right"; at: where it stands; grid: [from, to] of faint lines.
export function axis(scale, { side = "bottom", at = 0, label = "", n = 5, values, format, grid } = {}) {
  const flat = side === "bottom", g = s("g", { class: "bn-axis" });
  const [a, b] = scale.range, text = format ?? scale.format;
  const sign = side === "right" ? 1 : -1;
  for (const v of values ?? scale.ticks(n)) {
    const p = scale(v);
    if (!Number.isFinite(p)) continue;
    if (grid) g.append(s("line", flat ? { class: "bn-grid", x1: p, x2: p, y1: grid[0], y2: grid[1] }
      : { class: "bn-grid", y1: p, y2: p, x1: grid[0], x2: grid[1] }));
    g.append(s("line", flat ? { class: "bn-tick", x1: p, x2: p, y1: at, y2: at + 5 }
      : { class: "bn-tick", y1: p, y2: p, x1: at, x2: at + sign * 5 }));
    g.append(flat ? s("text", { x: p, y: at + 24, "text-anchor": "middle" }, text(v))
      : s("text", { x: at + sign * 9, y: p + 6, "text-anchor": sign < 0 ? "end" : "start" }, text(v)));
  }
  g.append(s("line", flat ? { class: "bn-rule", x1: a, x2: b, y1: at, y2: at }
    : { class: "bn-rule", y1: a, y2: b, x1: at, x2: at }));
  if (label) g.append(flat
    ? s("text", { class: "bn-axis-label", x: (a + b) / 2, y: at + 47, "text-anchor": "middle" }, label)
    : s("text", { class: "bn-axis-label", x: side === "right" ? 478 : 2, y: Math.min(a, b) - 14,
      "text-anchor": side === "right" ? "end" : "start" }, label));
  return g;
}

// A line through points already in drawing units; it breaks where a value is not finite.
export function line(xs, ys, attrs = {}) {
  let d = "", pen = false;
  for (let i = 0; i < xs.length; i++) {
    const ok = Number.isFinite(xs[i]) && Number.isFinite(ys[i]);
    if (ok) d += `${pen ? "L" : "M"}${xs[i].toFixed(2)} ${ys[i].toFixed(2)}`;
    pen = ok;
  }
  return s("path", { class: "bn-line", ...attrs, d });
}

// ---------------------------------------------------------------- controls

// A native range input in a row: label, slider, value. The value is also what a screen reader says.
function range(model, key, { label, signal, format = fmt, attrs, read, write }) {
  const id = uid(key);
  const input = h("input", { type: "range", id, ...attrs, signal,
    oninput: () => set(model, key, read(Number(input.value))) });
  const output = h("output", { for: id });
  const sync = () => {
    const value = model.get(key);
    input.value = write(value);
    input.setAttribute("aria-valuetext", format(value));
    output.textContent = format(value);
  };
  listen(model, `change:${key}`, sync, signal);
  sync();
  return h("div", { class: "bn-row" }, h("label", { for: id }, label), input, output);
}

export function slider(model, key, { min, max, step = 1, ...rest }) {
  return range(model, key, { ...rest, attrs: { min, max, step }, read: (v) => v, write: (v) => v });
}

// Even steps in log10. zero: true adds a leftmost place that means exactly 0.
export function logSlider(model, key, { min, max, step = 0.1, digits = 2, zero = false, ...rest }) {
  const lo = Math.log10(min), hi = Math.log10(max), first = zero ? lo - step : lo;
  return range(model, key, { ...rest, attrs: { min: first, max: hi, step },
    read: (v) => (zero && v < lo - step / 2 ? 0 : Number((10 ** v).toPrecision(digits))),
    write: (v) => (v > 0 ? Math.log10(v) : first) });
}

export function toggle(model, key, { label, signal }) {
  const input = h("input", { type: "checkbox", signal, onchange: () => set(model, key, input.checked) });
  const sync = () => { input.checked = Boolean(model.get(key)); };
  listen(model, `change:${key}`, sync, signal);
  sync();
  return h("label", { class: "bn-toggle" }, input, h("span", null, label));
}

// options: ["a", "b"] or [[value, "label"], …]
const pairs = (options) => options.map((o) => (Array.isArray(o) ? o : [o, String(o)]));

export function select(model, key, { label, options, signal }) {
  const id = uid(key), all = pairs(options);
  const input = h("select", { id, signal, onchange: () => set(model, key, all[input.selectedIndex][0]) },
    all.map(([, text]) => h("option", null, text)));
  const sync = () => { input.selectedIndex = all.findIndex(([v]) => v === model.get(key)); };
  listen(model, `change:${key}`, sync, signal);
  sync();
  return h("div", { class: "bn-row bn-pick" }, h("label", { for: id }, label), input);
}

// A few options side by side: radio buttons, arrow keys move between them.
export function choice(model, key, { label, options, signal }) {
  const name = uid(key), all = pairs(options);
  const inputs = all.map(([value]) => h("input", { type: "radio", name, signal, onchange: () => set(model, key, value) }));
  const sync = () => all.forEach(([v], i) => { inputs[i].checked = v === model.get(key); });
  listen(model, `change:${key}`, sync, signal);
  sync();
  return h("fieldset", { class: "bn-choice" }, h("legend", null, label),
    all.map(([, text], i) => h("label", null, inputs[i], h("span", null, text))));
}

export const button = (label, onclick, { signal, ...attrs } = {}) =>
  h("button", { type: "button", class: "bn-button", signal, onclick, ...attrs }, label);

// ---------------------------------------------------------------- the figure around it

// items: [{ label, color: "with", shape: "line" | "dash" | "dot" | "square" | "diamond" }]
const SHAPES = {
  line: () => s("path", { class: "bn-line", d: "M1 9H27" }),
  dash: () => s("path", { class: "bn-line bn-dash", d: "M1 9H27" }),
  dot: () => s("circle", { class: "bn-mark", cx: 14, cy: 9, r: 6 }),
  square: () => s("rect", { class: "bn-bar", x: 6, y: 2, width: 16, height: 14 }),
  diamond: () => s("path", { class: "bn-mark", d: "M14 1L22 9L14 17L6 9Z" }),
};
export const legend = (items) => h("ul", { class: "bn-legend" }, items.map(({ label, color, shape = "line" }) => {
  const key = SHAPES[shape]();
  key.classList.add(`bn-${color}`);
  return h("li", null, s("svg", { viewBox: "0 0 28 18", width: 28, height: 18, "aria-hidden": "true" }, key), label);
}));

// The widget's skeleton: heading, controls, drawing, a visible line of text, a description in words.
// role: "img" for a picture; "group" when parts of the drawing take the focus themselves.
export function frame({ el, signal, title, height = 300, role = "img" }) {
  const titleId = uid("title"), descId = uid("desc");
  const controls = h("div", { class: "bn-controls" });
  const svg = s("svg", { class: "bn-svg", viewBox: `0 0 480 ${height}`, role,
    "aria-labelledby": titleId, "aria-describedby": descId });
  const status = h("p", { class: "bn-status" });
  const description = h("p", { class: "bn-sr bn-description", id: descId });
  const live = h("p", { class: "bn-sr bn-live", "aria-live": "polite" });
  const root = h("section", { class: "bn-widget", "aria-labelledby": titleId },
    h("p", { class: "bn-title", id: titleId }, title), controls, svg, status, description, live);
  el.classList.add("bn-host");
  el.replaceChildren(root);
  let timer;
  const describe = (text) => {
    if (description.textContent === text) return;
    description.textContent = text;
    // Said aloud after a pause, and only to someone who is using this widget.
    clearTimeout(timer);
    timer = setTimeout(() => { if (root.contains(document.activeElement)) live.textContent = text; }, 700);
  };
  signal?.addEventListener("abort", () => { clearTimeout(timer); root.remove(); }, { once: true });
  return { root, controls, svg, status, describe };
}

// Returns schedule(): asks for one redraw in the next frame, or when `el` comes into view.
export function onVisible(el, draw, signal) {
  let wanted = false, visible = false, request = 0;
  const run = () => {
    request = 0;
    if (!wanted || signal?.aborted) return;
    wanted = false;
    draw();
  };
  const schedule = () => {
    wanted = true;
    if (visible && !request && !signal?.aborted) request = requestAnimationFrame(run);
  };
  const observer = new IntersectionObserver((entries) => {
    visible = entries.at(-1).isIntersecting;
    if (visible && wanted) schedule();
  }, { rootMargin: "200px" });
  observer.observe(el);
  addEventListener("beforeprint", run, { signal }); // paper shows what the screen has not shown yet
  signal?.addEventListener("abort", () => { observer.disconnect(); cancelAnimationFrame(request); }, { once: true });
  schedule();
  return schedule;
}

// Drag `node` (inside `svg`) with mouse, pen or finger; move(x, y) gets viewBox units.
// The keyboard is the caller's: give the node tabindex and role="slider".
export function drag(svg, node, move, signal) {
  const at = (event) => {
    const p = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    move(p.x, p.y);
  };
  node.classList.add("bn-drag");
  node.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    event.preventDefault();
    node.focus?.();
    node.setPointerCapture(event.pointerId);
  }, { signal });
  node.addEventListener("pointermove", (event) => {
    if (node.hasPointerCapture(event.pointerId)) at(event);
  }, { signal });
}

export const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
