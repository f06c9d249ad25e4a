// One gradient step of the deep linear chain, order by order.
import { axis, fmt, frame, h, legend, linear, line, listen, logSlider, button, onVisible, s, set, slider, symlog, toggle } from "./common.js";
import { state } from "./chain_maths.js";

const KEYS = ["depth", "weight", "spread", "seed", "x", "normalised", "eta", "share"];
const LEFT = 82, RIGHT = 472, TOP = 34, BOTTOM = 226, ROW = 30, ROWS = 312, BARS = 248; // drawing units
const BIG = 1e300; // what is larger is drawn as large as this

const held = (v) => Math.max(-BIG, Math.min(BIG, v));
const kind = (k) => ["bn-muted", "bn-third", "bn-accent"][k] ?? "bn-without";

// The ticks that have room: 0 first, then those far enough from every tick kept so far.
function roomy(scale, n, gap) {
  const kept = [];
  for (const v of scale.ticks(n).sort((a, b) => Math.abs(a) - Math.abs(b))) {
    if (kept.every((u) => Math.abs(scale(u) - scale(v)) >= gap)) kept.push(v);
  }
  return kept;
}

// Ends of an axis that hold 0 and all values, at powers of ten.
function ends(values, small) {
  const up = (v) => (v > small ? 10 ** Math.ceil(Math.log10(v) + 1e-9) : 0);
  const hi = up(Math.max(...values)), lo = -up(-Math.min(...values));
  return lo === 0 && hi === 0 ? [-small, small] : [lo, hi];
}

function render({ model, el, signal }) {
  const f = frame({ model, el, signal, title: "One step of the deep linear chain, order by order", height: 470 });
  const common = { signal };
  const eta = logSlider(model, "eta", { label: "Learning rate η", min: 1e-5, max: 1, step: 0.05, ...common });
  const share = slider(model, "share", { label: "Ask δ/|ŷ|", min: 0, max: 2, step: 0.05, ...common });
  f.controls.append(
    slider(model, "depth", { label: "Depth l", min: 1, max: 60, ...common }),
    slider(model, "weight", { label: "Weights", min: 0.5, max: 1.5, step: 0.01, ...common }),
    slider(model, "spread", { label: "Their spread", min: 0, max: 0.5, step: 0.01,
      format: (v) => `±${Math.round(100 * v)} %`, ...common }),
    slider(model, "x", { label: "Input x", min: -2, max: 2, step: 0.1, ...common }),
    toggle(model, "normalised", { label: "Normalised step η = δ/gᵀg", ...common }),
    eta, share,
    h("div", { class: "bn-buttons" }, button("New weights",
      () => set(model, "seed", (model.get("seed") + 1) % 1000), { signal })),
  );
  f.svg.after(legend([
    { label: "order 0: the old output", color: "muted", shape: "square" },
    { label: "1: the gradient's promise", color: "third", shape: "square" },
    { label: "2: pairs", color: "accent", shape: "square" },
    { label: "3 and more", color: "without", shape: "square" },
  ]));

  const draw = onVisible(el, () => {
    const now = Object.fromEntries(KEYS.map((k) => [k, model.get(k)])), r = state(now);
    eta.style.display = now.normalised ? "none" : "";
    share.style.display = now.normalised ? "" : "none";
    const small = 10 ** Math.floor(Math.log10(Math.abs(r.y) || 1) - 3);

    // one bar per order
    const bars = r.contributions.map(held);
    const X = linear([-0.6, now.depth + 0.6], [LEFT, RIGHT]);
    const Y = symlog(ends(bars, small), [BOTTOM, TOP], { linear: small });
    const width = Math.min(34, 0.8 * (X(1) - X(0))), zero = Y(0);
    const every = [1, 2, 5, 10].find((n) => now.depth / n <= 7) ?? 20;
    const marks = r.contributions.map((_, k) => k).filter((k) => k % every === 0);

    // before, promised, delivered on one line
    const rows = [["before", r.y, "bn-muted"], ["promised", r.promised, "bn-third"], ["delivered", r.delivered, "bn-without"]];
    const Z = symlog(ends([...rows.map(([, v]) => held(v)), ...(r.within ?? [])], small), [BARS, RIGHT - 28], { linear: small });
    const low = ROWS + 3 * ROW + 2;

    f.svg.replaceChildren(
      axis(Y, { side: "left", at: LEFT, label: "what each order adds to the output", values: roomy(Y, 7, 20), grid: [LEFT, RIGHT] }),
      ...bars.map((v, k) => s("rect", { class: `bn-bar ${kind(k)}`, x: X(k) - width / 2, width,
        y: Math.min(Y(v), zero), height: Math.max(v === 0 ? 0 : 1.5, Math.abs(Y(v) - zero)) })),
      line([LEFT, RIGHT], [zero, zero], { class: "bn-rule" }),
      axis(X, { side: "bottom", at: BOTTOM + 8, values: marks, format: String, label: "order k of the learning rate" }),
      axis(Z, { side: "bottom", at: low, label: "output", values: roomy(Z, 4, 64), grid: [ROWS - 6, low] }),
      ...(r.within ? [s("rect", { class: "bn-band bn-muted", x: Z(r.within[0]) - 2, width: Z(r.within[1]) - Z(r.within[0]) + 4,
        y: ROWS + 2 * ROW - 3, height: ROW })] : []),
      ...rows.flatMap(([name, v, color], i) => {
        const y = ROWS + i * ROW, p = Z(held(v)), origin = Z(0);
        return [
          s("text", { x: 2, y: y + 18 }, name),
          s("text", { class: `bn-label ${color}`, x: BARS - 12, y: y + 18, "text-anchor": "end" }, fmt(v)),
          s("rect", { class: `bn-bar ${color}`, x: Math.min(p, origin), y: y + 3, width: Math.max(3, Math.abs(p - origin)), height: ROW - 11 }),
        ];
      }),
      line([Z(0), Z(0)], [ROWS - 6, low], { class: "bn-rule" }),
    );

    const largest = r.contributions.reduce((best, v, k, all) => (k > 0 && Math.abs(v) > Math.abs(all[best]) ? k : best), Math.min(1, now.depth));
    const asked = r.y === 0 ? "The output is 0." : `The promise asks for ${fmt(Math.abs(r.asked))} times the output.`;
    const inside = r.within ? ` The two bounds: ${fmt(r.within[0])} and ${fmt(r.within[1])}.` : "";
    f.status.textContent = `${asked}${inside}`;
    f.describe(`A chain of ${now.depth} weights near ${fmt(now.weight)}, output ${fmt(r.y)}. `
      + `One step with η = ${fmt(r.rate)} promises ${fmt(r.promised)} and delivers ${fmt(r.delivered)}. `
      + `The largest change comes from order ${largest}: ${fmt(r.contributions[largest])}. ${asked}${inside}`);
  }, signal);
  listen(model, KEYS.map((k) => `change:${k}`).join(" "), draw, signal);
}

export default { render };
