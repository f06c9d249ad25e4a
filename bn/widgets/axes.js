import { frame, slider, choice, legend, s, h, listen, set, onVisible } from "./common.js";
import { NORMS, divisors, sharing, step, fit } from "./axes_maths.js";

const LEFT = 40, TOP = 40, RIGHT = 474, HEIGHT = 292, BOTTOM = HEIGHT - 6;
const MOST = 8, PLACES = 6;
const NAMES = { batch: "Batch", layer: "Layer", instance: "Instance", group: "Group" };
const AVERAGED = { batch: "examples and positions", layer: "channels and positions",
  instance: "positions", group: "a group's channels and positions" };

function render({ model, el, signal }) {
  const f = frame({ el, signal, title: "Who shares a mean?", height: HEIGHT, role: "group" });
  f.root.classList.add("bn-axes");
  const size = (key, label, max) => slider(model, key, { label, min: 1, max, signal });
  const groups = choice(model, "groups", { label: "Groups",
    options: Array.from({ length: MOST }, (_, i) => [i + 1, String(i + 1)]), signal });
  f.controls.append(
    choice(model, "norm", { label: "Norm", options: NORMS.map((k) => [k, NAMES[k]]), signal }),
    groups,
    h("div", { class: "bn-sizes" }, size("N", "N, images", MOST), size("C", "C, channels", MOST),
      size("H", "H, rows", PLACES), size("W", "W, columns", PLACES)),
    choice(model, "show", { label: "Light what shares", options: [["statistics", "μ and σ²"], ["parameters", "γ and β"]], signal }),
  );
  f.root.append(legend([
    { label: "shares with the chosen value", color: "with", shape: "square" },
    { label: "does not", color: "muted", shape: "dot" },
  ]));

  const shape = () => ["N", "C", "H", "W"].map((k) => model.get(k));
  const tidy = () => {
    const to = fit(shape(), model.get("groups"), model.get("at"));
    if (to.groups !== model.get("groups")) set(model, "groups", to.groups);
    if (to.at.some((v, k) => v !== model.get("at")[k])) set(model, "at", to.at);
  };

  const sheet = s("g", { "aria-hidden": "true" });
  const ring = s("rect", { class: "bn-chosen" });
  const pad = s("rect", { class: "bn-pad" });
  const cursor = s("g", { class: "bn-cursor", tabindex: 0, role: "slider", "aria-label": "Chosen value",
    "aria-roledescription": "value on a sheet of tiles" }, pad, ring);
  f.svg.append(sheet, cursor);

  // Where things stand: tiles with a gap between them, a wider one between groups.
  let place;
  const layout = () => {
    const [N, C, H, W] = shape(), grouped = model.get("norm") === "group", per = C / model.get("groups");
    const breaks = grouped ? model.get("groups") - 1 : 0;
    const cell = Math.min((RIGHT - LEFT) / (C * W + 0.8 * (C - 1) + breaks), (BOTTOM - TOP) / (N * H + 0.8 * (N - 1)), 30);
    const width = cell * (C * W + 0.8 * (C - 1) + breaks), left = LEFT + (RIGHT - LEFT - width) / 2;
    const x = (c, w) => left + cell * (c * (W + 0.8) + w + (grouped ? Math.floor(c / per) : 0));
    const y = (n, i) => TOP + cell * (n * (H + 0.8) + i);
    return { cell, x, y, left, width, height: y(N - 1, H) - TOP };
  };

  cursor.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const last = shape().map((n) => n - 1);
    const to = { Home: [0, 0, 0, 0], End: last }[event.key]
      ?? (event.key.startsWith("Arrow") ? step(shape(), model.get("at"), event.key, event.shiftKey) : null);
    if (!to) return;
    event.preventDefault();
    set(model, "at", to);
  }, { signal });
  pad.addEventListener("click", (event) => { // a tap, so that a finger can still scroll the page
    const p = new DOMPoint(event.clientX, event.clientY).matrixTransform(f.svg.getScreenCTM().inverse());
    const [N, C, H, W] = shape(), at = [0, 0, 0, 0];
    const nearest = (count, middle, v) => Array.from({ length: count }, (_, i) => i)
      .reduce((best, i) => (Math.abs(middle(i) - v) < Math.abs(middle(best) - v) ? i : best), 0);
    const half = place.cell / 2;
    at[0] = nearest(N, (n) => place.y(n, H / 2), p.y);
    at[1] = nearest(C, (c) => place.x(c, W / 2), p.x);
    at[2] = nearest(H, (i) => place.y(at[0], i) + half, p.y);
    at[3] = nearest(W, (i) => place.x(at[1], i) + half, p.x);
    set(model, "at", at);
    cursor.focus();
  }, { signal });

  const draw = onVisible(el, () => {
    const [N, C, H, W] = shape(), norm = model.get("norm"), G = model.get("groups"), at = model.get("at");
    const found = sharing([N, C, H, W], norm, G, at), statistics = model.get("show") === "statistics";
    const lit = new Set(statistics ? found.statistics : found.parameters);
    place = layout();
    const { cell, x, y } = place;
    const square = (left, top, side) => {
      const off = (cell - side) / 2;
      return `M${(left + off).toFixed(1)} ${(top + off).toFixed(1)}h${side.toFixed(1)}v${side.toFixed(1)}h${(-side).toFixed(1)}z`;
    };
    let on = "", off = "", i = 0;
    for (let n = 0; n < N; n++) for (let c = 0; c < C; c++)
      for (let a = 0; a < H; a++) for (let b = 0; b < W; b++) {
        if (lit.has(i++)) on += square(x(c, b), y(n, a), cell * 0.88);
        else off += square(x(c, b), y(n, a), cell * 0.4);
      }
    sheet.replaceChildren(
      s("text", { x: (LEFT + RIGHT) / 2, y: 14, "text-anchor": "middle" }, "channel c"),
      ...Array.from({ length: C }, (_, c) => s("text", { x: x(c, W / 2), y: TOP - 6, "text-anchor": "middle" }, String(c))),
      s("text", { x: place.left - 24, y: TOP - 6, "text-anchor": "middle" }, "n"),
      ...Array.from({ length: N }, (_, n) => s("text", { x: place.left - 24, y: y(n, H / 2) + 6, "text-anchor": "middle" }, String(n))),
      s("path", { class: "bn-bar bn-muted", d: off }), s("path", { class: "bn-bar bn-with", d: on }),
    );
    const [n, c, a, b] = at;
    for (const [key, value] of Object.entries({ x: x(c, b) - 2, y: y(n, a) - 2, width: cell + 4, height: cell + 4 })) ring.setAttribute(key, value);
    for (const [key, value] of Object.entries({ x: place.left - 4, y: TOP - 4, width: place.width + 8, height: place.height + 8 })) pad.setAttribute(key, value);
    const name = `x[${at.join(", ")}]`, total = N * C * H * W;
    const says = { "aria-valuemin": 0, "aria-valuemax": total - 1, "aria-valuenow": ((n * C + c) * H + a) * W + b,
      "aria-valuetext": `${name}: example ${n}, channel ${c}, row ${a}, column ${b}` };
    for (const [key, value] of Object.entries(says)) cursor.setAttribute(key, value);

    groups.hidden = norm !== "group";
    groups.querySelectorAll("label").forEach((label, k) => { label.hidden = !divisors(C).includes(k + 1); });

    const kind = `${NAMES[norm]} norm${norm === "group" ? ` with ${G} ${G === 1 ? "group" : "groups"}` : ""}`;
    const plural = (k, what, many) => `${k} ${k === 1 ? what : many}`;
    const counts = `${plural(found.means, "mean", "means")} and ${plural(found.means, "variance", "variances")}, each of m = ${found.m} ${found.m === 1 ? "value" : "values"}; ${found.gammas} γ and ${found.gammas} β.`;
    const same = sameAs(norm, N, C, G);
    f.status.textContent = `${kind}: ${counts}${found.m === 1 ? " One value is its own mean: nothing is left to normalise." : ""}${same}`;
    f.describe(`An array of ${plural(N, "example", "examples")}, ${plural(C, "channel", "channels")}, ${plural(H, "row", "rows")} and ${plural(W, "column", "columns")}. ${kind} averages over ${AVERAGED[norm]}. ${
      statistics ? `${found.m} of ${total} values share a mean and a variance with ${name}` : `${found.parameters.length} of ${total} values share γ and β with ${name}`}. There are ${counts}${same}`);
  }, signal);
  listen(model, "change:N change:C change:H change:W", tidy, signal);
  listen(model, "change:norm change:N change:C change:H change:W change:groups change:at change:show", draw, signal);
}

// Where two norms take the same averages.
function sameAs(norm, N, C, G) {
  if (norm === "group" && G === 1) return " The averages are those of layer norm.";
  if (norm === "group" && G === C) return " The averages are those of instance norm.";
  if (norm === "batch" && N === 1) return " With one example the averages are those of instance norm.";
  if (norm === "layer" && C === 1) return " With one channel the averages are those of instance norm.";
  return "";
}

export default { render };
