import { frame, slider, select, button, legend, linear, log, axis, line, s, h, fmt, listen, set, onVisible } from "./common.js";
import { BATCHES, LARGEST, SHAPES, neighbours, normalized, predicted, moments, reach } from "./batchnoise_maths.js";

const DEFAULTS = { power: 4, example: 1, distribution: "normal" };
const LEFT = 62, RIGHT = 468;
const TOP = 22, FLOOR = 168; // the scatter
const HEAD = 268, BASE = 412; // the record
const EDGE = 4; // of the scatter's axis
const rate = (v) => `${(100 * v).toFixed(2)} %`;

function render({ model, el, signal }) {
  const f = frame({ model, el, signal, title: "One example, many batches", height: 466 });
  f.root.classList.add("bn-batchnoise");
  f.controls.append(
    slider(model, "power", { label: "Batch size", min: 1, max: Math.log2(LARGEST), format: (k) => String(2 ** k), signal }),
    slider(model, "example", { label: "The example", min: -3, max: 3, step: 0.25, signal }),
    select(model, "distribution", { label: "The others", options: Object.keys(SHAPES), signal }),
  );
  f.root.insertBefore(h("div", { class: "bn-buttons" },
    button("New batches", () => set(model, "seed", model.get("seed") + 1), { signal }),
    button("Reset", () => { for (const [key, value] of Object.entries(DEFAULTS)) set(model, key, value); }, { signal }),
  ), f.svg);
  f.svg.after(legend([
    { label: "in one batch", color: "muted", shape: "dot" },
    { label: "predicted; below: measured", color: "with", shape: "line" },
    { label: "true value; below: no batch norm", color: "without", shape: "dash" },
  ]));

  const X = linear([-EDGE, EDGE], [LEFT, RIGHT]), S = log([1.7, LARGEST * 1.2], [LEFT, RIGHT]);
  let drawn = "", others; // kept while distribution and seed stay
  const draw = onVisible(el, () => {
    const power = model.get("power"), m = 2 ** power, example = model.get("example");
    const distribution = model.get("distribution"), seed = model.get("seed"), recorded = model.get("recorded");
    if (drawn !== `${distribution} ${seed}`) { others = neighbours(distribution, seed); drawn = `${distribution} ${seed}`; }
    const values = normalized(others, example, m), [mean, spread] = moments(values);
    const expected = Math.sqrt(predicted(distribution, example, m));

    const P = linear([0, 1], [FLOOR, TOP]);
    const ts = Array.from({ length: 321 }, (_, i) => -EDGE + (i * EDGE) / 160);
    const curve = ts.map((t) => Math.exp(-(((t - example) / expected) ** 2) / 2));
    const parts = [
      axis(X, { at: FLOOR, n: 8, label: "normalised value of the example" }),
      s("g", { class: "bn-muted" }, values.map((v, b) =>
        s("circle", { class: Math.abs(v) > EDGE ? "bn-beyond" : "bn-dot", cx: X.clamp(v).toFixed(1), cy: P((b + 0.5) / BATCHES).toFixed(1), r: 2.2 }))),
      s("g", { class: "bn-without" }, s("line", { class: "bn-line bn-dash", x1: X(example), x2: X(example), y1: TOP - 6, y2: FLOOR })),
      s("g", { class: "bn-with" }, line(ts.map(X), curve.map((v) => P(v)))),
    ];

    const Y = linear(reach(recorded), [BASE, HEAD]), [plain, low, high] = recorded.without;
    parts.push(
      axis(S, { at: BASE, values: [2, 8, 32, 128, 512], format: String, label: "examples that share statistics" }),
      axis(Y, { side: "left", at: LEFT, n: 4, grid: [LEFT, RIGHT], label: "test accuracy, %", format: (v) => fmt(100 * v, 4) }),
      s("line", { class: "bn-now", x1: S(m), x2: S(m), y1: HEAD, y2: BASE }),
      s("g", { class: "bn-without" },
        s("rect", { class: "bn-room", x: LEFT, width: RIGHT - LEFT, y: Y(high), height: Math.max(0, Y(low) - Y(high)) }),
        s("line", { class: "bn-line bn-dash", x1: LEFT, x2: RIGHT, y1: Y(plain), y2: Y(plain) })),
    );
    const inside = (v) => v >= Y.domain[0];
    const shown = recorded.sizes.map((n, i) => [S(n), ...recorded.accuracy[i]]);
    parts.push(s("g", { class: "bn-with" },
      line(shown.map((p) => p[0]), shown.map((p) => (inside(p[1]) ? Y(p[1]) : NaN))),
      shown.flatMap(([x, v, a, b]) => (inside(v)
        ? [s("line", { class: "bn-bar", x1: x, x2: x, y1: Y(a), y2: Y(b) }), s("circle", { class: "bn-mark", cx: x, cy: Y(v), r: 5 })]
        : s("circle", { class: "bn-beyond", cx: x, cy: BASE - 6, r: 5 })))));
    f.svg.replaceChildren(...parts);

    const at = Math.min(power, recorded.sizes.length) - 1, [got, from, to] = recorded.accuracy[at];
    const scatter = `mean ${fmt(mean)}, deviation ${fmt(spread)}, predicted ${fmt(expected)}`;
    f.status.replaceChildren(
      h("span", null, `In ${BATCHES} batches: ${scatter}. No value can leave ±${fmt(Math.sqrt(m - 1))}.`),
      h("span", null, `Trained with statistics of ${recorded.sizes[at]}: ${rate(got)} of test images right (${rate(from)} to ${rate(to)}, ${recorded.seeds} seeds).`),
    );
    f.describe(`The example lies ${fmt(example)} true deviations from the mean; the others are ${distribution}; ${BATCHES} batches of ${m}, draw ${seed}: its normalised value has ${scatter}. Networks trained with statistics of ${recorded.sizes[at]} examples: test accuracy ${rate(got)}, without batch norm ${rate(plain)}.`);
  }, signal);
  listen(model, "change:power change:example change:distribution change:seed change:recorded", draw, signal);
}

export default { render };
