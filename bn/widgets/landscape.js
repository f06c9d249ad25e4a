import { frame, slider, button, legend, linear, log, axis, line, s, h, fmt, listen, set, onVisible, calm } from "./common.js";
import { decode, region, rise, levels } from "./landscape_maths.js";

const ARMS = ["with", "without"];
const SIDE = 204, TOP = 40, LEFTS = { with: 38, without: 272 }; // the two slices
const KEY = 312; // the shades
const LEFT = 58, RIGHT = 470, ROOF = 398, FLOOR = 520; // the band
const PACE = 1100; // milliseconds for a stop
const NAMES = { with: "with batch norm", without: "without" };
const point = (v) => v.toFixed(2);

function render({ model, el, signal }) {
  const f = frame({ model, el, signal, title: "A slice of the loss, and the loss along the gradient", height: 576 });
  f.root.classList.add("bn-landscape");
  const { steps, reach, points: n, bounds, slices, walk } = model.get("data");
  const depths = levels(bounds);
  f.controls.append(
    slider(model, "stop", { label: "Training", min: 0, max: steps.length - 1, step: 1, signal,
      format: (k) => `step ${steps[k]}` }),
  );

  // A press starts it and stops it. Where motion is unwelcome, a press goes one stop on.
  let timer = 0;
  const last = steps.length - 1;
  const on = () => set(model, "stop", model.get("stop") >= last ? 0 : model.get("stop") + 1);
  const stop = () => { clearInterval(timer); timer = 0; name(); };
  const start = () => {
    if (model.get("stop") >= last) set(model, "stop", 0);
    timer = setInterval(() => { on(); if (model.get("stop") >= last) stop(); }, PACE);
    name();
  };
  const play = button("Play", () => (calm() ? on() : timer ? stop() : start()), { signal });
  const name = () => { play.textContent = calm() ? "Next stop" : timer ? "Pause" : "Play"; };
  matchMedia("(prefers-reduced-motion: reduce)").addEventListener("change", stop, { signal });
  signal?.addEventListener("abort", () => clearInterval(timer), { once: true });
  name();
  f.root.insertBefore(h("div", { class: "bn-buttons" }, play), f.svg);
  f.svg.after(legend([
    { label: "with batch norm", color: "with", shape: "line" },
    { label: "without", color: "without", shape: "dash" },
  ]));

  const lows = ARMS.flatMap((arm) => walk[arm].low), highs = ARMS.flatMap((arm) => walk[arm].high);
  const X = linear([0, Math.log10(1 + walk.steps.at(-1))], [LEFT, RIGHT]), at = (step) => X(Math.log10(1 + step));
  const Y = log([Math.min(...lows) / 1.15, Math.max(...highs) * 1.15], [FLOOR, ROOF]);
  const band = (arm) => {
    const { loss, low, high } = walk[arm], xs = walk.steps.map(at);
    const edge = [...xs.map((x, k) => [x, Y(low[k])]), ...xs.map((x, k) => [x, Y(high[k])]).reverse()];
    return s("g", { class: `bn-${arm}` },
      s("path", { class: "bn-band", d: `M${edge.map((p) => p.map(point).join(" ")).join("L")}Z` }),
      line(xs, loss.map(Y), { class: arm === "with" ? "bn-line" : "bn-line bn-dash" }));
  };

  const shown = {}; // the shades of a slice, drawn once
  const shades = (arm, stop) => shown[`${arm} ${stop}`] ??= (() => {
    const logs = decode(slices[arm][stop], bounds);
    const U = linear([0, n - 1], [LEFTS[arm], LEFTS[arm] + SIDE]), V = linear([0, n - 1], [TOP + SIDE, TOP]);
    const trace = (corners) => {
      let d = "";
      for (let k = 0; k < corners.length; k += 2) d += `${k ? "L" : "M"}${point(U(corners[k]))} ${point(V(corners[k + 1]))}`;
      return d;
    };
    const paths = depths.map((depth) => {
      const { inside, border } = region(logs, n, Math.log10(depth));
      return [inside.map((corners) => `${trace(corners)}Z`).join(""), border.map(trace).join("")];
    });
    return { paths, centre: 10 ** logs[(n * n - 1) / 2], rise: rise(logs, n) };
  })();

  const draw = onVisible(el, () => {
    const stop = Math.min(model.get("stop"), last), step = steps[stop];
    const parts = [], said = [];
    for (const arm of ARMS) {
      const x = LEFTS[arm], { paths, centre, rise: up } = shades(arm, stop);
      const T = linear([-reach, reach], [x, x + SIDE]), S = linear([-reach, reach], [TOP + SIDE, TOP]);
      parts.push(
        s("g", { class: `bn-${arm} bn-slice` },
          s("rect", { class: "bn-frame", x, y: TOP, width: SIDE, height: SIDE }),
          paths.map(([inside]) => s("path", { class: "bn-shade", d: inside })),
          paths.map(([, border]) => s("path", { class: "bn-contour", d: border })),
          s("text", { class: "bn-label", x, y: TOP - 14 }, NAMES[arm]),
          s("circle", { class: "bn-hollow", cx: T(0), cy: S(0), r: 5 })),
        axis(T, { at: TOP + SIDE, values: [-reach, 0, reach] }));
      if (arm === "with") parts.push(axis(S, { side: "left", at: x, values: [-reach, 0, reach] }));
      const k = walk.steps.indexOf(step);
      said.push(`${NAMES[arm]} the loss is ${fmt(centre)} at the centre and ${fmt(up)} higher at the edge; along the gradient it goes from ${fmt(walk[arm].low[k])} to ${fmt(walk[arm].high[k])}`);
    }
    const wide = (RIGHT - LEFT) / (depths.length + 1);
    parts.push(s("g", { class: "bn-slice bn-key" },
      depths.flatMap((_, k) => depths.slice(0, k + 1).map(() => // as many layers as in the slice
        s("rect", { class: "bn-shade", x: LEFT + wide * (k + 1), y: KEY - 16, width: wide, height: 16 }))),
      depths.map((depth, k) => (k % 2 ? null : s("text", { x: LEFT + wide * (k + 1), y: KEY + 20, "text-anchor": "middle" }, fmt(depth, 2)))),
      s("text", { x: LEFT - 20, y: KEY - 2, "text-anchor": "middle" }, "loss")));
    parts.push(
      axis(X, { at: FLOOR, label: "training step", values: [0, 1, 10, 100, 1000].filter((v) => v <= walk.steps.at(-1)).map((v) => Math.log10(1 + v)), format: (v) => fmt(10 ** v - 1) }),
      axis(Y, { side: "left", at: LEFT, n: 4, grid: [LEFT, RIGHT], label: "loss, and its range along the gradient" }),
      s("line", { class: "bn-now", x1: at(step), x2: at(step), y1: ROOF, y2: FLOOR }),
      band("without"), band("with"));
    f.svg.replaceChildren(...parts);
    f.status.textContent = `Before step ${step}, towards the edge: ${ARMS.map((arm) => `+${fmt(shades(arm, stop).rise)} ${NAMES[arm]}`).join(", ")}.`;
    f.describe(`Before step ${step}: ${said.join(". ")}.`);
  }, signal);
  listen(model, "change:stop", draw, signal);
}

export default { render };
