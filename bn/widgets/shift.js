import { frame, slider, select, button, legend, linear, symlog, axis, line, s, h, fmt, listen, set, onVisible, calm } from "./common.js";
import { density } from "./replay_maths.js";
import { travel, stretch, reach } from "./shift_maths.js";

const ARMS = ["without", "with"];
const COLUMN = { without: [56, 250], with: [276, 470] };
const TALL = 74, BASE = 116, TOP = 214, FLOOR = 376; // the histograms; the bands
const PACE = 350; // milliseconds for a recorded step

function render({ model, el, signal }) {
  const f = frame({ model, el, signal, title: "What goes into a sigmoid, step by step", height: 430 });
  const steps = model.get("steps"), parts = model.get("parts"), last = steps.length - 1;
  const place = () => Math.min(model.get("mark"), last);
  const number = (n) => n.toLocaleString("en-US");
  const play = button("Play", () => (calm() ? step() : timer ? stop() : start()), { signal });
  f.controls.append(
    select(model, "part", { label: "Into", options: parts.map(({ label }, i) => [i, label]), signal }),
    slider(model, "mark", { label: "Step", min: 0, max: last, format: (i) => number(steps[Math.min(i, last)]), signal }),
    h("div", { class: "bn-buttons" }, play),
  );
  f.svg.after(legend([
    { label: "with batch norm", color: "with", shape: "line" },
    { label: "without", color: "without", shape: "dash" },
  ]));

  // A press starts it and stops it. Where motion is unwelcome, a press goes one step on.
  let timer = 0;
  const name = () => { play.textContent = calm() ? "Next step" : timer ? "Pause" : "Play"; };
  const step = () => set(model, "mark", place() >= last ? 0 : place() + 1);
  const stop = () => { clearInterval(timer); timer = 0; name(); };
  const start = () => {
    if (place() >= last) set(model, "mark", 0);
    timer = setInterval(() => { step(); if (place() >= last) stop(); }, PACE);
    name();
  };
  matchMedia("(prefers-reduced-motion: reduce)").addEventListener("change", stop, { signal });
  signal?.addEventListener("abort", () => clearInterval(timer), { once: true });
  name();

  const draw = onVisible(el, () => {
    const part = parts[Math.min(model.get("part"), parts.length - 1)], at = place();
    const limits = reach(part), Y = linear(limits, [FLOOR, TOP]);
    const pieces = [axis(Y, { side: "left", at: COLUMN.without[0], n: 5, grid: [COLUMN.without[0], COLUMN.with[1]],
      label: "15th, 50th and 85th percentile" })];
    for (const arm of ARMS) {
      const { edges, counts, bands } = part[arm], [from, to] = edges[at], columns = COLUMN[arm];
      const V = linear(limits, columns), X = symlog([0, steps[last]], columns);
      const dash = arm === "without" ? " bn-dash" : "";

      const heights = density(counts[at], edges[at]), top = Math.max(...heights) || 1;
      const width = (to - from) / heights.length;
      const stairs = heights.map((v, i) => {
        const y = (BASE - (v / top) * TALL).toFixed(2);
        return `L${V(from + i * width).toFixed(2)} ${y}L${V(from + (i + 1) * width).toFixed(2)} ${y}`;
      });

      const xs = steps.map(X), [own, ...others] = bands;
      const edge = [...own.map((row, i) => [xs[i], Y(row[0])]), ...own.map((row, i) => [xs[i], Y(row[2])]).reverse()];
      const ys = own[at].map(Y);
      pieces.push(
        axis(V, { at: BASE, n: 3, grid: [BASE - TALL, BASE], label: "input" }),
        axis(X, { at: FLOOR, values: [0, 100, 10000].filter((v) => v <= steps[last]), label: "step" }),
        s("line", { class: "bn-now", x1: xs[at], x2: xs[at], y1: TOP, y2: FLOOR }),
        s("g", { class: `bn-${arm}` },
          s("path", { class: "bn-heap", d: `M${V(from).toFixed(2)} ${BASE}${stairs.join("")}L${V(to).toFixed(2)} ${BASE}Z` }),
          s("text", { class: "bn-label bn-halo", x: columns[0] + 2, y: 26 }, arm === "with" ? "with batch norm" : "without"),
          s("path", { class: "bn-band", d: `M${edge.map((p) => p.map((v) => v.toFixed(2)).join(" ")).join("L")}Z` }),
          others.map((run) => line(xs, run.map((row) => Y(row[1])), { class: "bn-line bn-hair" })),
          line(xs, own.map((row) => Y(row[1])), { class: `bn-line bn-thin bn-ahead${dash}` }),
          line(xs.slice(0, at + 1), own.slice(0, at + 1).map((row) => Y(row[1])), { class: `bn-line${dash}` }),
          s("line", { class: "bn-middle", x1: xs[at], x2: xs[at], y1: ys[0], y2: ys[2] }),
          s("circle", { class: "bn-hollow", cx: xs[at], cy: ys[1], r: 4.5 })));
    }
    f.svg.replaceChildren(...pieces);

    const so_far = (arm) => part[arm].bands[0].slice(0, at + 1);
    const said = (arm) => [fmt(travel(so_far(arm)), 2), fmt(stretch(so_far(arm)), 2)];
    const [way, doublings] = said("without"), [wayWith, doublingsWith] = said("with");
    f.status.textContent = `After ${number(steps[at])} steps, without batch norm: the median has travelled ${way} of its spreads, and the spread has changed by ${doublings} doublings. With batch norm: ${wayWith} and ${doublingsWith}.`;
    const span = (arm) => { const [low, , high] = part[arm].bands[0][at]; return `from ${fmt(low)} to ${fmt(high)}`; };
    f.describe(`${part.label}, after ${number(steps[at])} of ${number(steps[last])} steps: the middle 70 percent of the inputs lie ${span("without")} without batch norm and ${span("with")} with it.`);
  }, signal);
  listen(model, "change:part change:mark", draw, signal);
}

export default { render };
