import { axis, button, fmt, frame, h, legend, line, linear, listen, log, logSlider, onVisible, s, set, superscript, toggle } from "./common.js";
import { DEPTH, STEPS, train } from "./scale_maths.js";

const KEYS = ["scale", "eta", "eps", "matched", "seed"], ARMS = ["without", "with"];
const LEFT = 70, RIGHT = 468, TOP = 36, FLOOR = 214, HIGH = 318, LOW = 430; // drawing units
const LEAST = 1e-4, MOST = 1e2; // the losses drawn; what lies outside is drawn at the edge
const power = (v) => (v === 0 ? "0" : Math.abs(Math.log10(v) % 1) < 1e-9 && Math.abs(Math.log10(v)) > 1.5
  ? `10${superscript(Math.round(Math.log10(v)))}` : fmt(v, 2));
const said = (loss) => (Number.isFinite(loss) ? fmt(loss) : "no number any more");

function render({ model, el, signal }) {
  const f = frame({ model, el, signal, title: "Two networks, one initial scale", height: 480 });
  f.controls.append(
    logSlider(model, "scale", { label: "Scale c", min: 1e-4, max: 1e4, step: 0.25, format: power, signal }),
    logSlider(model, "eta", { label: "Rate η", min: 1e-4, max: 1, step: 0.1, format: power, signal }),
    logSlider(model, "eps", { label: "ε", min: 1e-10, max: 1, step: 1, zero: true, format: power, signal }),
    toggle(model, "matched", { label: "hidden layers learn at η c²", signal }),
    h("div", { class: "bn-buttons" },
      button("New draw", () => set(model, "seed", (model.get("seed") + 1) % 1000), { signal }),
      button("Reset", () => { for (const [k, v] of Object.entries(START)) set(model, k, v); }, { signal })),
  );
  f.svg.after(legend([
    { label: "with batch norm", color: "with", shape: "line" },
    { label: "without", color: "without", shape: "dash" },
  ]));

  const draw = onVisible(el, () => {
    const now = Object.fromEntries(KEYS.map((k) => [k, model.get(k)]));
    const runs = { without: train(now, false), with: train(now, true) };
    const X = linear([0, STEPS], [LEFT, RIGHT]), Y = log([LEAST, MOST], [FLOOR, TOP]);
    const all = ARMS.flatMap((arm) => runs[arm].spreads).filter((v) => v > 0 && Number.isFinite(v));
    const ends = [Math.floor(Math.log10(Math.min(0.1, ...all))), Math.ceil(Math.log10(Math.max(10, ...all)))];
    const D = linear([0.7, DEPTH + 0.3], [LEFT, RIGHT]), S = log(ends.map((e) => 10 ** e), [LOW, HIGH]);
    const parts = [
      axis(X, { at: FLOOR, label: "step" }),
      axis(Y, { side: "left", at: LEFT, n: 7, grid: [LEFT, RIGHT], label: "loss" }),
      line([LEFT, RIGHT], [Y(Math.LN2), Y(Math.LN2)], { class: "bn-rule" }),
      s("text", { class: "bn-halo", x: RIGHT, y: Y(Math.LN2) - 8, "text-anchor": "end" }, "guessing"),
      axis(D, { at: LOW, values: Array.from({ length: DEPTH }, (_, i) => i + 1), format: String, label: "layer" }),
      axis(S, { side: "left", at: LEFT, n: 4, grid: [LEFT, RIGHT], label: "spread going into each ReLU, at the start" }),
    ];
    for (const arm of ARMS) {
      const { losses, spreads } = runs[arm], dash = arm === "without" ? " bn-dash" : "";
      const xs = spreads.map((_, i) => D(i + 1)), ys = spreads.map((v) => S(v));
      parts.push(s("g", { class: `bn-${arm}` },
        line(losses.map((_, t) => X(t)), losses.map((v) => (Number.isFinite(v) ? Y.clamp(Math.max(v, LEAST)) : NaN)), { class: `bn-line${dash}` }),
        line(xs, ys, { class: `bn-line${dash}` }),
        xs.map((x, i) => (!Number.isFinite(ys[i]) ? null : arm === "with" ? s("circle", { class: "bn-mark", cx: x, cy: ys[i], r: 6 })
          : s("path", { class: "bn-mark", d: `M${x} ${ys[i] - 8}l8 8l-8 8l-8 -8Z` })))));
    }
    f.svg.replaceChildren(...parts);
    const last = (arm) => said(runs[arm].losses.at(-1));
    const rate = now.matched ? `, hidden layers ${power(now.eta * now.scale ** 2)}` : "";
    f.status.textContent = `Loss after ${STEPS} steps: ${last("with")} with batch norm, ${last("without")} without; guessing has ${fmt(Math.LN2)}.`;
    const span = (arm) => `from ${fmt(runs[arm].spreads[0])} in layer 1 to ${fmt(runs[arm].spreads[DEPTH - 1])} in layer ${DEPTH}`;
    f.describe(`Initial weights at ${power(now.scale)} times the usual scale, learning rate ${power(now.eta)}${rate}, ε ${power(now.eps)}. `
      + `After ${STEPS} steps the loss is ${last("with")} with batch norm and ${last("without")} without; guessing has ${fmt(Math.LN2)}. `
      + `What goes into the ReLUs at the start spreads ${span("with")} with batch norm, ${span("without")} without.`);
  }, signal);
  listen(model, KEYS.map((k) => `change:${k}`).join(" "), draw, signal);
}

const START = { scale: 0.1, eta: 0.05, eps: 1e-5, matched: false, seed: 2 };

export default { render };
