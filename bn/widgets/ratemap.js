import { axis, choice, fmt, frame, legend, line, linear, listen, log, onVisible, s, set, slider } from "./common.js";
import { cell, learn, shade } from "./ratemap_maths.js";

const ARMS = ["without", "with"], NAMES = { relu: "ReLU", sigmoid: "sigmoid" };
const BOX = { without: [62, 262, 36, 198], with: [276, 476, 36, 198] }; // left, right, top, bottom
const LEFT = 62, RIGHT = 464, TOP = 316, FLOOR = 452, LEAST = 0.02, MOST = 10; // the curves

function render({ model, el, signal }) {
  const f = frame({ model, el, signal, title: "Learning rate and initial scale", height: 512, role: "group" });
  const { rates, scales, steps, seeds, learned, maps } = model.get("runs");
  const share = (v) => `${(100 * v).toFixed(0)}\u00a0%`;
  const rate = () => fmt(rates[model.get("rate")], 2), scale = () => fmt(scales[model.get("scale")], 2);
  f.controls.append(
    choice(model, "activation", { label: "Network", options: Object.entries(NAMES), signal }),
    slider(model, "rate", { label: "Rate η", min: 0, max: rates.length - 1, format: (i) => fmt(rates[i], 2), signal }),
    slider(model, "scale", { label: "Scale c", min: 0, max: scales.length - 1, format: (i) => fmt(scales[i], 2), signal }),
  );
  f.svg.after(legend([
    { label: "with batch norm", color: "with", shape: "line" },
    { label: "without", color: "without", shape: "dash" },
  ]));

  // The maps take the pointer and the arrow keys; everything else in the drawing is drawn anew.
  const drawn = s("g");
  const go = (column, row) => {
    if (column !== model.get("rate")) set(model, "rate", column);
    if (row !== model.get("scale")) set(model, "scale", row);
  };
  const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  const within = (i, list) => Math.min(list.length - 1, Math.max(0, i));
  const pads = ARMS.map((arm) => {
    const box = BOX[arm], [left, right, top, bottom] = box;
    const at = (event) => {
      const p = new DOMPoint(event.clientX, event.clientY).matrixTransform(f.svg.getScreenCTM().inverse());
      go(...cell(p.x, p.y, box, rates.length, scales.length));
    };
    return s("rect", { class: "bn-pad", x: left, y: top, width: right - left, height: bottom - top, tabindex: 0,
      role: "slider", "aria-label": `Map ${arm}${arm === "with" ? " batch norm" : ""}: arrow keys choose a cell`,
      "aria-valuemin": 0, "aria-valuemax": rates.length - 1, signal,
      onpointerdown: (event) => { if (event.pointerType !== "mouse") event.target.setPointerCapture(event.pointerId); at(event); },
      onpointermove: at,
      onkeydown: (event) => {
        const move = MOVES[event.key];
        if (!move) return;
        event.preventDefault();
        go(within(model.get("rate") + move[0], rates), within(model.get("scale") + move[1], scales));
      } });
  });
  f.svg.append(drawn, ...pads);

  const draw = onVisible(el, () => {
    const [i, j] = [model.get("scale"), model.get("rate")], both = maps[model.get("activation")], parts = [];
    const X = linear([0, steps.at(-1)], [LEFT, RIGHT]), Y = log([LEAST, MOST], [FLOOR, TOP]);
    parts.push(axis(X, { at: FLOOR, label: "step" }),
      axis(Y, { side: "left", at: LEFT, n: 4, grid: [LEFT, RIGHT], label: `training loss at rate ${rate()}, scale ${scale()}` }),
      line([LEFT, RIGHT], [Y(Math.LN10), Y(Math.LN10)], { class: "bn-rule" }),
      s("text", { class: "bn-halo", x: RIGHT, y: Y(Math.LN10) - 7, "text-anchor": "end" }, "guessing"));
    for (const arm of ARMS) {
      const [left, right, top, bottom] = BOX[arm], { accuracy, loss } = both[arm];
      const wide = (right - left) / rates.length, tall = (bottom - top) / scales.length;
      const C = log([rates[0], rates.at(-1)], [left + wide / 2, right - wide / 2]);
      const R = log([scales[0], scales.at(-1)], [bottom - tall / 2, top + tall / 2]);
      parts.push(s("g", { class: `bn-${arm}` },
        accuracy.flatMap((row, r) => row.map((v, c) => s("rect", { class: "bn-cell", x: left + c * wide, y: bottom - (r + 1) * tall,
          width: wide - 1, height: tall - 1, "fill-opacity": shade(v).toFixed(3) }))),
        accuracy.flatMap((row, r) => row.map((v, c) => (v < learned ? null
          : s("circle", { class: "bn-learned", cx: left + (c + 0.5) * wide - 0.5, cy: bottom - (r + 0.5) * tall - 0.5, r: 2.5 })))),
        s("text", { class: "bn-label", x: (left + right) / 2, y: top - 12, "text-anchor": "middle" }, arm)),
        axis(C, { at: bottom, label: "rate η", values: [0.001, 0.1, 10], format: (v) => fmt(v, 2) }),
        s("rect", { class: "bn-chosen", x: left + j * wide - 0.5, y: bottom - (i + 1) * tall - 0.5, width: wide, height: tall }));
      if (arm === "without") parts.push(axis(R, { side: "left", at: left, values: [0.01, 1, 100], format: (v) => fmt(v, 2), label: "scale c" }));
      const [low, middle, high] = loss[i][j].map((values) => values.map((v) => Y.clamp(v)));
      const xs = steps.map((t) => X(t)), edge = [...xs.map((x, k) => [x, low[k]]), ...xs.map((x, k) => [x, high[k]]).reverse()];
      parts.push(s("g", { class: `bn-${arm}` },
        s("path", { class: "bn-band", d: `M${edge.map((p) => p.map((v) => v.toFixed(1)).join(" ")).join("L")}Z` }),
        line(xs, middle, { class: `bn-line${arm === "without" ? " bn-dash" : ""}` })));
    }
    drawn.replaceChildren(...parts);
    const reached = (arm) => share(both[arm].accuracy[i][j]);
    const wide = (arm) => learn(both[arm].accuracy, j, learned);
    for (const pad of pads) {
      pad.setAttribute("aria-valuenow", j);
      pad.setAttribute("aria-valuetext", `rate ${rate()}, scale ${scale()}`);
    }
    f.status.textContent = `Test accuracy ${reached("with")} with batch norm, ${reached("without")} without. `
      + `At rate ${rate()} the network reaches ${share(learned)} from ${wide("with")} of ${scales.length} scales with, ${wide("without")} without.`;
    f.describe(`${NAMES[model.get("activation")]} network, learning rate ${rate()}, initial weights at ${scale()} times the usual scale: `
      + `test accuracy ${reached("with")} with batch norm and ${reached("without")} without, means of ${seeds} seeds. `
      + `At this rate it reaches ${share(learned)} from ${wide("with")} of ${scales.length} initial scales with batch norm, ${wide("without")} without.`);
  }, signal);
  listen(model, "change:activation change:rate change:scale", draw, signal);
}

export default { render };
