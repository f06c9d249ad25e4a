import { frame, slider, choice, legend, linear, log, axis, line, s, h, fmt, listen, onVisible } from "./common.js";
import { band } from "./replay_maths.js";
import { finalLoss, reach } from "./noisy_maths.js";

const LEFT = 62, RIGHT = 468, TALL = 70, TOP = 40, PITCH = 92; // the three distributions
const LOSS = [404, 524]; // the curves below
const NAMES = { sigmoid: "sigmoid network", relu: "deep ReLU network" };
const STYLES = [["without", " bn-dash"], ["with", ""], ["third", " bn-dots"]];

function render({ model, el, signal }) {
  const f = frame({ model, el, signal, title: "Shake a network while it trains", height: 574 });
  f.root.classList.add("bn-noisy");
  const { strengths, networks, spans, window: size, last, seeds } = model.get("runs");
  const times = (level) => `×${strengths[level]}`;
  f.controls.append(
    slider(model, "level", { label: "Noise", min: 0, max: strengths.length - 1, format: times, signal }),
    choice(model, "network", { label: "Network:", options: Object.keys(networks).map((k) => [k, k === "relu" ? "ReLU" : k]), signal }),
    choice(model, "span", { label: "Time:", options: [["steps", "25 steps"], ["run", "whole run"]], signal }),
    choice(model, "common", { label: "Scale:", options: [[true, "one for all"], [false, "each its own"]], signal }),
  );
  f.svg.after(legend([
    { label: "without batch norm", color: "without", shape: "dash" },
    { label: "batch norm", color: "with", shape: "line" },
    { label: "batch norm and noise", color: "third", shape: "dot" },
  ]));

  const draw = onVisible(el, () => {
    const level = model.get("level"), span = model.get("span"), network = model.get("network");
    const { plain, norm } = networks[network], arms = [plain, norm[0], norm[level]];
    const names = ["without batch norm", "batch norm", `batch norm, noise ${times(level)}`];
    const [first, , stride] = spans[span], count = plain.traces[span].length;
    const steps = plain.traces[span].map((_, i) => first + i * stride);
    const X = linear([steps[0], steps[count - 1]], [LEFT, RIGHT]), xs = steps.map(X), parts = [];
    const ends = reach(arms.map((arm) => arm.traces[span]), model.get("common"));
    arms.forEach(({ traces }, i) => {
      const top = TOP + i * PITCH, floor = top + TALL, trace = traces[span];
      const Y = linear(ends[i], [floor, top]), at = (k) => trace.map((q) => Y(q[k]));
      const area = (low, high, name) => s("path", { class: name, d: `M${[
        ...at(low).map((y, t) => [xs[t], y]), ...at(high).map((y, t) => [xs[t], y]).reverse(),
      ].map((p) => p.map((v) => v.toFixed(2)).join(" ")).join("L")}Z` });
      parts.push(
        axis(Y, { side: "left", at: LEFT, n: 3, grid: [LEFT, RIGHT] }),
        s("g", { class: `bn-${STYLES[i][0]}` },
          area(0, 4, "bn-band"), area(1, 3, "bn-band"), line(xs, at(2), { class: "bn-line" }),
          s("text", { class: "bn-label bn-halo", x: LEFT + 6, y: top - 5 }, names[i])),
      );
    });
    parts.push(axis(X, { at: TOP + 2 * PITCH + TALL, n: 5, label: "step", format: (v) => fmt(v, 4) }));

    const bands = arms.map(({ loss }) => band(loss));
    const W = linear([0, size * bands[0].mean.length], [LEFT, RIGHT]);
    const ws = bands[0].mean.map((_, t) => W((t + 0.5) * size));
    const all = bands.flatMap(({ low, high }) => [...low, ...high]).filter((v) => v > 0);
    const L = log([Math.min(...all) / 1.1, Math.max(...all) * 1.1], [LOSS[1], LOSS[0]]);
    parts.push(
      axis(W, { at: LOSS[1], n: 5, label: "step", format: (v) => fmt(v, 4) }),
      axis(L, { side: "left", at: LEFT, grid: [LEFT, RIGHT], label: "training loss",
        values: [0.1, 0.2, 0.5, 1, 2].filter((v) => v >= L.domain[0] && v <= L.domain[1]) }),
    );
    bands.forEach(({ mean, low, high }, i) => {
      const edge = [...ws.map((x, t) => [x, L(low[t])]), ...ws.map((x, t) => [x, L(high[t])]).reverse()];
      parts.push(s("g", { class: `bn-${STYLES[i][0]}` },
        s("path", { class: "bn-band", d: `M${edge.map((p) => p.map((v) => v.toFixed(2)).join(" ")).join("L")}Z` }),
        line(ws, mean.map(L), { class: `bn-line${STYLES[i][1]}` })));
    });
    f.svg.replaceChildren(...parts);

    const losses = arms.map(({ loss }) => fmt(finalLoss(loss, last)));
    const far = (arm) => `${fmt(arm.moved, 2)}, ${fmt(arm.shift, 2)} of the spread`;
    f.status.replaceChildren(
      h("span", null, `One step moves a unit’s distribution by ${far(arms[2])}; without batch norm by ${far(plain)}.`),
      h("span", null, `Final training loss ${losses[2]}; batch norm ${losses[1]}; without ${losses[0]}.`));
    f.describe(`The ${NAMES[network]}, noise ${times(level)} behind batch norm. One step moves a unit's distribution by ${far(arms[2])}, against ${far(plain)} without batch norm. The training loss over the last ${last * size} steps, mean of ${seeds} seeds, is ${losses[2]} with noise, ${losses[1]} with batch norm alone and ${losses[0]} without. Above, quantiles of one unit over ${span === "run" ? "the whole run" : `steps ${steps[0]} to ${steps[count - 1]}`}.`);
  }, signal);
  listen(model, "change:level change:network change:span change:common", draw, signal);
}

export default { render };
