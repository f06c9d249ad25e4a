import { frame, slider, logSlider, button, linear, ticks, s, h, fmt, superscript, listen, set, onVisible, drag } from "./common.js";
import { batchNorm, moments, reach, stack } from "./batch_maths.js";

const START = [1, 2, 3, 4.5, 5.5, 8], MOST = 12, LARGEST = 1000;
const LINES = [ // one scale, three lines: where each stands, its name and its colour
  { key: "x", at: 96, color: "without" },
  { key: "x̂", at: 206, color: "third" },
  { key: "y", at: 316, color: "with" },
];
const RADIUS = 11, LEFT = 34, RIGHT = 466;
const sub = (n) => String(n).replace(/\d/g, (d) => "₀₁₂₃₄₅₆₇₈₉"[d]);
const eps10 = (v) => (v === 0 ? "0" : Math.abs(Math.log10(v) % 1) < 1e-9 && (v < 0.01) ? `10${superscript(Math.round(Math.log10(v)))}` : fmt(v));

function render({ model, el, signal }) {
  const f = frame({ model, el, signal, title: "Move the batch", height: 350, role: "group" });
  f.root.classList.add("bn-batch");
  f.controls.append(
    slider(model, "gamma", { label: "γ, scale", min: -3, max: 3, step: 0.1, signal }),
    slider(model, "beta", { label: "β, shift", min: -5, max: 5, step: 0.1, signal }),
    logSlider(model, "eps", { label: "ε", min: 1e-10, max: 10, step: 1, zero: true, format: eps10, signal }),
  );
  const x = () => model.get("x");
  const move = (next) => set(model, "x", next.map((v) => Number(v.toPrecision(12))));
  const about = (factor) => { const { mean } = moments(x()); move(x().map((v) => mean + factor * (v - mean))); };
  const farthest = (next) => Math.max(...next.map(Math.abs));
  const buttons = {
    shift: button("Shift by 1", () => move(x().map((v) => v + 1)), { signal }),
    stretch: button("Stretch × 2", () => about(2), { signal }),
    shrink: button("Shrink ÷ 10", () => about(0.1), { signal }),
    equal: button("All equal", () => move(x().map(() => x()[0])), { signal }),
    add: button("Add a point", () => move([...x(), 0]), { signal }),
    remove: button("Remove a point", () => move(x().slice(0, -1)), { signal }),
    reset: button("Reset", () => { move(START); set(model, "gamma", 1.5); set(model, "beta", 0.5); set(model, "eps", 1e-5); }, { signal }),
  };
  f.controls.append(h("div", { class: "bn-buttons" }, Object.values(buttons)));

  const table = h("table", { class: "bn-values" });
  const beside = h("div", { class: "bn-beside" });
  f.svg.replaceWith(beside);
  beside.append(f.svg, h("div", { class: "bn-scroll" }, table));

  const back = s("g", { "aria-hidden": "true" }), dots = LINES.map(() => s("g"));
  dots.slice(1).forEach((g) => g.setAttribute("aria-hidden", "true"));
  f.svg.append(back, ...dots);
  let X = linear([-10, 10], [LEFT, RIGHT]), points = [], active = -1;

  const place = (i, value) => {
    const edge = X.domain[1], next = [...x()];
    next[i] = Math.min(edge, Math.max(-edge, value));
    move(next);
  };
  // Whole grid steps, so that equal values can be made by hand.
  const snap = (value) => { const grid = X.domain[1] / 100; return Math.round(value / grid) * grid; };

  function point(i) {
    const node = s("g", { class: "bn-point bn-without", tabindex: 0, role: "slider", "aria-orientation": "horizontal", "aria-label": `x${sub(i + 1)}` },
      s("circle", { class: "bn-hit", r: 21 }), s("circle", { class: "bn-ring", r: 15 }),
      s("circle", { class: "bn-mark", r: RADIUS }), s("text", { class: "bn-number", "text-anchor": "middle", y: 6 }, String(i + 1)));
    drag(f.svg, node, (px) => place(i, snap(X.invert(px))), signal);
    node.addEventListener("keydown", (event) => {
      const grid = X.domain[1] / 100, edge = X.domain[1], by = event.shiftKey ? 10 : 1;
      const step = { ArrowRight: by, ArrowUp: by, ArrowLeft: -by, ArrowDown: -by, PageUp: 10, PageDown: -10 }[event.key];
      const target = step !== undefined ? x()[i] + step * grid : { Home: -edge, End: edge }[event.key];
      if (target === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      place(i, target);
    }, { signal });
    node.addEventListener("focus", () => { active = i; draw(); }, { signal });
    node.addEventListener("blur", () => { active = -1; draw(); }, { signal });
    return node;
  }

  const cells = (tag, first, rest, attrs) => h("tr", attrs, h("th", { scope: "row" }, first), rest.map((v) => h(tag, null, v)));

  const draw = onVisible(el, () => {
    const batch = x(), gamma = model.get("gamma"), beta = model.get("beta"), eps = model.get("eps");
    const m = batch.length, alone = m < 2;
    const { mean, variance } = moments(batch);
    const nothing = batch.map(() => NaN);
    const out = alone ? { centred: nothing, xHat: nothing, y: nothing } : batchNorm(batch, gamma, beta, eps);
    const undefinedHere = !alone && variance + eps === 0;
    const rows = [batch, out.xHat, out.y];
    const edge = reach(rows.flat());
    X = linear([-edge, edge], [LEFT, RIGHT]);

    while (points.length > m) points.pop().remove();
    while (points.length < m) { points.push(point(points.length)); dots[0].append(points.at(-1)); }

    const marks = ticks(-edge, edge, 4);
    back.replaceChildren(
      ...marks.flatMap((v) => [
        s("line", { class: "bn-grid", x1: X(v), x2: X(v), y1: 8, y2: LINES[2].at }),
        s("text", { x: X(v), y: LINES[2].at + 28, "text-anchor": "middle" }, fmt(v)),
      ]),
      ...(alone || undefinedHere ? [] : batch.flatMap((_, i) => [0, 1].map((k) => s("line", { class: "bn-link",
        x1: X(rows[k][i]), y1: LINES[k].at, x2: X(rows[k + 1][i]), y2: LINES[k + 1].at })))),
    );
    LINES.forEach(({ key, at, color }, k) => {
      const g = s("g", { class: `bn-${color}` }, s("line", { class: "bn-rule", x1: LEFT, x2: RIGHT, y1: at, y2: at }),
        s("text", { class: "bn-label", x: 2, y: at + 6 }, key));
      const known = rows[k].every(Number.isFinite);
      if (known) {
        const { mean: centre, variance: v } = moments(rows[k]), spread = Math.sqrt(v);
        g.append(s("line", { class: "bn-spread", x1: X(centre - spread), x2: X(centre + spread), y1: at, y2: at }),
          s("path", { class: "bn-bar", d: `M${X(centre)} ${at + 3}l-6 10h12z` }));
      } else g.append(s("text", { class: "bn-halo", x: 240, y: at - 16, "text-anchor": "middle" },
        alone ? "no spread to divide by" : "0/0, undefined"));
      back.append(g);
      const where = rows[k].map(X), level = stack(where, 2 * RADIUS);
      const room = at - (k ? LINES[k - 1].at + 16 : 0) - 2 * RADIUS; // above this line
      const up = Math.min(2 * RADIUS, room / Math.max(1, ...level));
      const spot = (i) => `translate(${where[i].toFixed(2)} ${(at - RADIUS - level[i] * up).toFixed(2)})`;
      if (k === 0) points.forEach((node, i) => {
        node.setAttribute("transform", spot(i));
        const says = { "aria-valuemin": -edge, "aria-valuemax": edge, "aria-valuenow": batch[i],
          "aria-valuetext": known && !alone && !undefinedHere
            ? `${fmt(batch[i])}, standardised ${fmt(out.xHat[i])}, output ${fmt(out.y[i])}` : fmt(batch[i]) };
        for (const [name, value] of Object.entries(says)) node.setAttribute(name, value);
      });
      else dots[k].replaceChildren(...(known ? where.map((_, i) => s("g", { class: `bn-${color}`, transform: spot(i) },
        s("circle", { class: "bn-mark", r: RADIUS }), s("text", { class: "bn-number", "text-anchor": "middle", y: 6 }, String(i + 1)))) : []));
    });

    const num = (v) => (Number.isNaN(v) ? "–" : fmt(v)), column = (values) => (values.every(Number.isFinite) ? moments(values) : { mean: NaN, variance: NaN });
    const columns = [batch, out.centred, out.xHat, out.y];
    table.replaceChildren(
      h("thead", null, h("tr", null, h("td"), ["x", "x − μ", "x̂", "y"].map((name, k) =>
        h("th", { scope: "col", class: `bn-tinted bn-${["without", "muted", "third", "with"][k]}` }, name)))),
      h("tbody", null, batch.map((_, i) => cells("td", String(i + 1), columns.map((c) => num(c[i])), { class: i === active ? "bn-active" : false }))),
      h("tfoot", null, cells("td", "mean", columns.map((c) => tidy(column(c).mean, batch, num))),
        cells("td", "var.", columns.map((c) => num(column(c).variance)))),
    );

    buttons.shift.disabled = farthest(batch.map((v) => v + 1)) > LARGEST;
    buttons.stretch.disabled = variance === 0 || farthest(batch.map((v) => mean + 2 * (v - mean))) > LARGEST;
    buttons.shrink.disabled = variance < 1e-20;
    buttons.add.disabled = m >= MOST;
    buttons.remove.disabled = alone;

    const stats = `μ = ${fmt(mean)}, σ² = ${fmt(variance)}`;
    if (alone) {
      f.status.textContent = `${stats}. One example is its own mean: x̂ would be 0 whatever it is, so the layer refuses a batch of one.`;
    } else if (undefinedHere) {
      f.status.textContent = `${stats}, ε = 0: x̂ would be 0/0. Any ε above 0 gives x̂ = 0 and y = β.`;
    } else {
      f.status.textContent = `${stats}, √(σ² + ε) = ${fmt(out.sigma)}. Largest |x̂| = ${fmt(Math.max(...out.xHat.map(Math.abs)))}, and it can never pass √(m − 1) = ${fmt(Math.sqrt(m - 1))}.`;
    }
    const span = (values) => `from ${fmt(Math.min(...values))} to ${fmt(Math.max(...values))}`;
    f.describe(`A batch of ${m}: ${batch.map((v) => fmt(v)).join(", ")}. Mean ${fmt(mean)}, variance ${fmt(variance)}. ${
      alone ? "One value alone cannot be standardised."
        : undefinedHere ? "With ε = 0 the standardised values are undefined."
          : `Standardised, it runs ${span(out.xHat)}; with γ = ${fmt(gamma)}, β = ${fmt(beta)} and ε = ${eps10(eps)}, y runs ${span(out.y)}.`}`);
  }, signal);
  listen(model, "change:x change:gamma change:beta change:eps", draw, signal);
}

// A mean that is 0 but for rounding is shown as 0.
function tidy(value, batch, num) {
  return Math.abs(value) < 1e-12 * Math.max(1, ...batch.map(Math.abs)) ? "0" : num(value);
}

export default { render };
