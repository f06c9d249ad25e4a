import { frame, slider, logSlider, button, legend, line, linear, ticks, s, h, fmt, percent, superscript, listen, set, onVisible, drag } from "./common.js";
import { stack } from "./batch_maths.js";
import { across, circle, decompose, look, norm } from "./projection_maths.js";

const START = { x: [1, 2, 4.5], g: [0.5, -0.5, 1.8], eps: 1e-5, turn: -50, tilt: 30 };
const CX = 240, CY = 166, REACH = 152, RADIUS = 12; // drawing units
const LINES = [ // the two lines of dots under the picture
  { key: "x", says: "batch x", most: 5, at: 396, color: "third" },
  { key: "g", says: "push g", most: 2, at: 506, color: "without" },
];
const sub = (n) => "₀₁₂₃"[n];
const eps10 = (v) => (v === 0 ? "0" : v < 0.01 ? `10${superscript(Math.round(Math.log10(v)))}` : fmt(v));
const degrees = (v) => `${Math.round(v)}°`.replace("-", "−");
const tuple = (v) => `(${v.map((n) => short(n)).join(", ")})`;
// Three digits, and 0 for what is 0 but for rounding.
const short = (v) => (Number.isNaN(v) ? "–" : fmt(Math.abs(v) < 1e-12 ? 0 : v, Math.abs(v) < 1e-3 ? 2 : 3));

function render({ model, el, signal }) {
  const f = frame({ model, el, signal, title: "What is left of a push", height: 548, role: "group" });
  f.root.classList.add("bn-projection");
  f.controls.append(
    slider(model, "turn", { label: "Turn", min: -180, max: 180, step: 5, format: degrees, signal }),
    slider(model, "tilt", { label: "Tilt", min: 0, max: 90, step: 5, format: degrees, signal }),
    logSlider(model, "eps", { label: "ε", min: 1e-10, max: 100, step: 1, zero: true, format: eps10, signal }),
  );
  const parts = () => decompose(model.get("x"), model.get("g"), model.get("eps"));
  const push = (values) => set(model, "g", values);
  const buttons = {
    one: button("g = 1", () => push([1, 1, 1]), { signal }),
    xHat: button("g = x̂", () => push(parts().xHat), { signal }),
    again: button("g ← what is left", () => push(parts().left), { signal }),
    along: button("Look along 1", () => set(model, "tilt", 90), { signal }),
    reset: button("Reset", () => Object.entries(START).forEach(([key, value]) => set(model, key, value)), { signal }),
  };
  f.controls.append(h("div", { class: "bn-buttons" }, Object.values(buttons)));
  const table = h("table", { class: "bn-values" });
  f.svg.after(legend([
    { label: "push g", color: "without" }, { label: "x̂", color: "third" },
    { label: "part along 1, removed", color: "muted", shape: "dash" },
    { label: "part along x̂, removed", color: "accent", shape: "dash" },
    { label: "what is left", color: "with" },
  ]), h("div", { class: "bn-scroll" }, table));

  // the picture is turned by dragging it; a finger that moves up or down still scrolls the page
  const ground = s("rect", { class: "bn-turn", x: 0, y: 0, width: 480, height: 330 });
  let held = null;
  ground.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    ground.setPointerCapture(event.pointerId);
    held = { x: event.clientX, y: event.clientY, turn: model.get("turn"), tilt: model.get("tilt") };
  }, { signal });
  ground.addEventListener("pointermove", (event) => {
    if (!ground.hasPointerCapture(event.pointerId)) return;
    const turn = held.turn + (event.clientX - held.x) / 2;
    set(model, "turn", Math.round(((turn + 540) % 360) - 180));
    set(model, "tilt", Math.round(Math.min(90, Math.max(0, held.tilt + (event.clientY - held.y) / 2))));
  }, { signal });

  const picture = s("g", { class: "bn-picture", "aria-hidden": "true" }), back = s("g", { "aria-hidden": "true" });
  const rows = LINES.map((row) => ({ ...row, X: linear([-row.most, row.most], [60, 456]) }));
  const points = rows.map((row) => [0, 1, 2].map((i) => point(row, i)));
  f.svg.append(ground, picture, back, ...points.flat());

  function point({ key, most, color, X }, i) {
    const place = (value) => {
      const next = [...model.get(key)];
      next[i] = Number(Math.min(most, Math.max(-most, value)).toPrecision(12));
      set(model, key, next);
    };
    const node = s("g", { class: `bn-point bn-${color}`, tabindex: 0, role: "slider", "aria-orientation": "horizontal",
      "aria-label": `${key}${sub(i + 1)}`, "aria-valuemin": -most, "aria-valuemax": most },
    s("circle", { class: "bn-hit", r: 21 }), s("circle", { class: "bn-ring", r: 15 }),
    s("circle", { class: "bn-mark", r: RADIUS }), s("text", { class: "bn-number", "text-anchor": "middle", y: 6 }, String(i + 1)));
    drag(f.svg, node, (px) => place(Math.round(X.invert(px) * 10) / 10), signal);
    node.addEventListener("keydown", (event) => {
      const by = event.shiftKey ? 1 : 0.1;
      const step = { ArrowRight: by, ArrowUp: by, ArrowLeft: -by, ArrowDown: -by, PageUp: 1, PageDown: -1 }[event.key];
      const target = step !== undefined ? model.get(key)[i] + step : { Home: -most, End: most }[event.key];
      if (target === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      place(target);
    }, { signal });
    return node;
  }

  const draw = onVisible(el, () => {
    const now = Object.fromEntries(Object.keys(START).map((key) => [key, model.get(key)]));
    const r = parts(), known = r.xHat.every(Number.isFinite), flat = known && norm(r.xHat) < 1e-9;
    const between = r.left.map((v, i) => v + r.alongXHat[i]);
    const unit = REACH / Math.max(2, norm(now.g), known ? norm(between) : 0);
    const at = (p) => { const [u, v] = look(p, now.turn, now.tilt); return [CX + unit * u, CY - unit * v]; };
    const times = (k, v) => v.map((n) => k * n);
    const strut = (a, b, attrs) => { const [p, q] = [at(a), at(b)]; return line([p[0], q[0]], [p[1], q[1]], attrs); };

    const labels = []; // each where it covers no other
    const label = (p, text, color) => {
      const [x, y] = at(p), out = Math.hypot(x - CX, y - CY) || 1;
      const spots = [[(x - CX) / out, (y - CY) / out], [0, -1], [1, 0], [-1, 0], [0, 1], [0.7, -1.6], [-0.7, -1.6], [0.7, 1.7]]
        .map(([dx, dy]) => [Math.min(468, Math.max(12, x + 18 * dx)), Math.min(322, Math.max(18, y + 18 * dy + 6))]);
      const spot = spots.find(([a, b]) => labels.every(([c, d]) => Math.abs(a - c) > 24 || Math.abs(b - d) > 20)) ?? spots[0];
      labels.push(spot);
      return s("text", { class: `bn-label bn-halo bn-${color}`, x: spot[0], y: spot[1], "text-anchor": "middle" }, text);
    };
    const arrow = (a, b, kind) => {
      const [p, q] = [at(a), at(b)], dx = q[0] - p[0], dy = q[1] - p[1], long = Math.hypot(dx, dy);
      if (long < 1) return [];
      const head = Math.min(13, long), ux = dx / long, uy = dy / long, bx = q[0] - head * ux, by = q[1] - head * uy;
      const side = 0.45 * head;
      return [line([p[0], bx], [p[1], by], { class: `bn-line ${kind}` }),
        s("path", { class: `bn-head ${kind}`, d: `M${q[0]} ${q[1]}L${bx - side * uy} ${by + side * ux}L${bx + side * uy} ${by - side * ux}Z` })];
    };

    const ring = circle(Math.sqrt(3)).map(at), one = [1.15, 1.15, 1.15], origin = [0, 0, 0];
    const rest = times(2.2 / (norm(across(r.xHat)) || 1), across(r.xHat));
    picture.replaceChildren(
      s("path", { class: "bn-band bn-muted", d: `M${ring.map((p) => p.map((v) => v.toFixed(1)).join(" ")).join("L")}Z` }),
      strut(times(-1, one), one, { class: "bn-rule" }),
      ...(known && !flat ? [strut(times(-1, rest), rest, { class: "bn-line bn-thin bn-dots bn-with" })] : []),
      ...(known ? [
        ...arrow(between, now.g, "bn-muted bn-dash"), ...arrow(r.left, between, "bn-accent bn-dash"),
        ...arrow(origin, r.xHat, "bn-third"),
      ] : []),
      ...arrow(origin, now.g, "bn-without"),
      ...(known ? arrow(origin, r.left, "bn-with") : []),
      label(now.g, "g", "without"),
      ...(known && !flat ? [label(r.xHat, "x̂", "third")] : []),
      ...(known && norm(r.left) > 0.15 ? [label(r.left, "left", "with")] : []),
      label(one, "1", "muted"),
    );

    back.replaceChildren(...rows.flatMap(({ says, most, at: y, X, key, color }) => [
      ...ticks(-most, most, 4).flatMap((v) => [
        s("line", { class: "bn-tick", x1: X(v), x2: X(v), y1: y, y2: y + 5 }),
        s("text", { x: X(v), y: y + 24, "text-anchor": "middle" }, fmt(v))]),
      s("line", { class: "bn-rule", x1: X.range[0], x2: X.range[1], y1: y, y2: y }),
      s("text", { class: `bn-label bn-${color}`, x: 2, y: y - 44 }, says),
    ]));
    rows.forEach(({ key, at: y, X }, k) => {
      const where = now[key].map(X), level = stack(where, 2 * RADIUS);
      points[k].forEach((node, i) => {
        node.setAttribute("transform", `translate(${where[i].toFixed(2)} ${y - RADIUS - level[i] * 2 * RADIUS})`);
        node.setAttribute("aria-valuenow", now[key][i]);
        node.setAttribute("aria-valuetext", `${fmt(now[key][i])}${known ? `, left of the push ${short(r.left[i])}` : ""}`);
      });
    });

    const row = (name, values, color) => h("tr", { class: color ? `bn-${color}` : false }, h("th", { scope: "row" }, name),
      [...values, norm(values)].map((v) => h("td", null, short(v))));
    table.replaceChildren(
      h("thead", null, h("tr", null, h("td"), ["1", "2", "3", "length"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", null, row("x̂", r.xHat, "third"), row("g", now.g, "without"), row("− along 1", r.alongOne, "muted"),
        row("− along x̂", r.alongXHat, "accent"), row("= left", r.left, "with"), row("÷ σ: ∂L/∂x", r.dx)),
    );
    buttons.xHat.disabled = buttons.again.disabled = !known;

    const whole = norm(now.g), kept = whole ? (norm(r.left) / whole) ** 2 : 0;
    const leak = r.leak > 1e-3 ? ` ε lets ${percent(r.leak)} of the part along x̂ through.` : "";
    const says = !known ? "All three values are equal and ε = 0: x̂ would be 0/0."
      : flat ? "All three values are equal: x̂ = 0, only the part along 1 is removed, and two dimensions are left."
        : `Of three dimensions two are removed; one is left, the dotted line. ${whole ? `It holds ${percent(kept)} of the push's squared length.` : "There is no push."}${leak}`;
    f.status.textContent = says;
    f.describe(`Batch ${tuple(now.x)}, push g = ${tuple(now.g)}, ε = ${eps10(now.eps)}, seen at turn ${degrees(now.turn)}, tilt ${degrees(now.tilt)}. ${
      known ? `x̂ = ${tuple(r.xHat)}. Removed: ${tuple(r.alongOne)} along 1 and ${tuple(r.alongXHat)} along x̂. Left: ${tuple(r.left)}; divided by σ = ${fmt(r.sigma)} it is the gradient ${tuple(r.dx)}. ` : ""}${says}`);
  }, signal);
  listen(model, Object.keys(START).map((key) => `change:${key}`).join(" "), draw, signal);
}

export default { render };
