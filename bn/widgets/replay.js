import { frame, slider, select, button, legend, linear, log, axis, line, s, h, fmt, listen, set, onVisible, calm } from "./common.js";
import { band, density, reach } from "./replay_maths.js";

const METRICS = [
  ["test_accuracy", "test accuracy"],
  ["train_accuracy", "training accuracy"],
  ["test_loss", "test loss"],
  ["train_loss", "training loss"],
];
const ARMS = ["without", "with"];
const LEFT = 66, RIGHT = 468, TOP = 40, FLOOR = 206; // the curves
const ROWS = { without: 344, with: 424 }, TALL = 58, AXIS = 440; // the distributions
const PACE = 700; // milliseconds for an epoch

function render({ model, el, signal }) {
  const f = frame({ model, el, signal, title: "Replay the training", height: 496 });
  const nets = model.get("nets");
  const net = () => nets[Math.min(model.get("net"), nets.length - 1)], last = () => net().epochs.length;
  const layerIndex = () => {
    const { length } = net().layers, k = model.get("layer");
    return k >= 0 ? Math.min(k, length - 1) : Math.max(k + length, 0);
  };

  const layerRow = h("div");
  const chooseLayer = () => layerRow.replaceChildren(pickLayer());
  function pickLayer() {
    const row = select(model, "layer", { label: "Into", signal,
      options: net().layers.map(({ label }, i) => [i, label]) });
    row.querySelector("select").selectedIndex = layerIndex(); // it may be counted from the end
    return row;
  }
  const epochs = slider(model, "epoch", { label: "Epoch", min: 1, max: last(), step: 1, format: String, signal });
  const fitEpochs = () => {
    epochs.querySelector("input").max = last();
    if (model.get("epoch") > last()) set(model, "epoch", last());
  };
  const play = button("Play", () => (calm() ? step() : timer ? stop() : start()), { signal });
  f.controls.append(
    select(model, "net", { label: "Network", options: nets.map(({ title }, i) => [i, title]), signal }),
    select(model, "metric", { label: "Curves", options: METRICS, signal }),
    layerRow,
    epochs,
    h("div", { class: "bn-buttons" }, play),
  );
  f.svg.after(legend([
    { label: "with batch norm", color: "with", shape: "line" },
    { label: "without", color: "without", shape: "dash" },
  ]));
  chooseLayer();

  // A press starts it and stops it. Where motion is unwelcome, a press goes one epoch on.
  let timer = 0;
  const name = () => { play.textContent = calm() ? "Next epoch" : timer ? "Pause" : "Play"; };
  const step = () => set(model, "epoch", model.get("epoch") >= last() ? 1 : model.get("epoch") + 1);
  const stop = () => { clearInterval(timer); timer = 0; name(); };
  const start = () => {
    if (model.get("epoch") >= last()) set(model, "epoch", 1);
    timer = setInterval(() => { step(); if (model.get("epoch") >= last()) stop(); }, PACE);
    name();
  };
  matchMedia("(prefers-reduced-motion: reduce)").addEventListener("change", stop, { signal });
  signal?.addEventListener("abort", () => clearInterval(timer), { once: true });
  name();

  const draw = onVisible(el, () => {
    const { title, epochs, curves, layers, seeds } = net(), metric = model.get("metric");
    const at = Math.min(model.get("epoch"), epochs.length) - 1;
    const rate = metric.endsWith("accuracy"), layer = layers[layerIndex()];
    const value = (v) => (rate ? `${(100 * v).toFixed(1)}\u00a0%` : fmt(v));
    const bands = Object.fromEntries(ARMS.map((arm) => [arm, band(curves[arm][metric])]));

    const all = ARMS.flatMap((arm) => [...bands[arm].low, ...bands[arm].high]).filter(Number.isFinite);
    const lo = Math.min(...all), hi = Math.max(...all), room = rate ? 0.04 * (hi - lo) || 0.01 : 0;
    const X = linear([1, epochs.length], [LEFT, RIGHT]);
    const Y = rate ? linear([Math.max(0, lo - room), Math.min(1, hi + room)], [FLOOR, TOP])
      : log([lo / 1.1, hi * 1.1], [FLOOR, TOP]);
    const xs = epochs.map((_, e) => X(e + 1));
    const parts = [
      axis(X, { at: FLOOR, label: "epoch", values: epochs }),
      axis(Y, { side: "left", at: LEFT, n: 5, grid: [LEFT, RIGHT], label: METRICS.find(([m]) => m === metric)[1] + (rate ? ", %" : ""),
        format: rate ? (v) => fmt(100 * v, 4) : undefined }),
      s("line", { class: "bn-now", x1: X(at + 1), x2: X(at + 1), y1: TOP, y2: FLOOR }),
    ];
    for (const arm of ARMS) {
      const { mean, low, high } = bands[arm], dash = arm === "without" ? " bn-dash" : "";
      const edge = [...xs.map((x, e) => [x, Y(low[e])]), ...xs.map((x, e) => [x, Y(high[e])]).reverse()];
      const ys = mean.map(Y);
      parts.push(s("g", { class: `bn-${arm}` },
        s("path", { class: "bn-band", d: `M${edge.map((p) => p.map((v) => v.toFixed(2)).join(" ")).join("L")}Z` }),
        line(xs, ys, { class: `bn-line bn-thin bn-ahead${dash}` }),
        line(xs.slice(0, at + 1), ys.slice(0, at + 1), { class: `bn-line${dash}` }),
        arm === "with" ? s("circle", { class: "bn-mark", cx: xs[at], cy: ys[at], r: 7 })
          : s("path", { class: "bn-mark", d: `M${xs[at].toFixed(2)} ${(ys[at] - 8).toFixed(2)}l8 8l-8 8l-8 -8Z` })));
    }

    const V = linear(reach(layer), [LEFT, RIGHT]);
    parts.push(axis(V, { at: AXIS, n: 6, grid: [ROWS.without - TALL, AXIS], label: `what goes into ${layer.label}` }));
    for (const arm of ARMS) {
      const { edges, counts, quantiles } = layer[arm], [from, to] = edges[at], base = ROWS[arm];
      const heights = density(counts[at], edges[at]), top = Math.max(...heights) || 1;
      const width = (to - from) / heights.length;
      const steps = heights.map((v, i) => {
        const y = (base - (v / top) * TALL).toFixed(2);
        return `L${V(from + i * width).toFixed(2)} ${y}L${V(from + (i + 1) * width).toFixed(2)} ${y}`;
      });
      const [q05, q15, q50, q85, q95] = quantiles[at].map((q) => V.clamp(q));
      parts.push(s("g", { class: `bn-${arm}` },
        s("path", { class: "bn-heap", d: `M${V(from).toFixed(2)} ${base}${steps.join("")}L${V(to).toFixed(2)} ${base}Z` }),
        s("line", { class: "bn-line", x1: q05, x2: q95, y1: base + 7, y2: base + 7 }),
        s("line", { class: "bn-middle", x1: q15, x2: q85, y1: base + 7, y2: base + 7 }),
        s("circle", { class: "bn-hollow", cx: q50, cy: base + 7, r: 4.5 }),
        s("text", { class: "bn-label bn-halo", x: 2, y: base - TALL + 12 }, arm)));
    }
    f.svg.replaceChildren(...parts);

    const said = (arm) => `${value(bands[arm].mean[at])} (${value(bands[arm].low[at])} to ${value(bands[arm].high[at])})`;
    f.status.textContent = `After epoch ${at + 1}: ${said("with")} with batch norm, ${said("without")} without. Mean and range of ${seeds} seeds.`;
    const span = (arm) => `from ${fmt(layer[arm].quantiles[at][0])} to ${fmt(layer[arm].quantiles[at][4])}`;
    f.describe(`${title}, ${METRICS.find(([m]) => m === metric)[1]}, after epoch ${at + 1} of ${epochs.length}: mean of ${seeds} seeds ${value(bands.with.mean[at])} with batch norm, ${value(bands.without.mean[at])} without. Nine tenths of what goes into ${layer.label} lie ${span("with")} with batch norm, ${span("without")} without.`);
  }, signal);
  listen(model, "change:net", chooseLayer, signal);
  listen(model, "change:net", fitEpochs, signal);
  listen(model, "change:layer", () => { layerRow.querySelector("select").selectedIndex = layerIndex(); }, signal);
  listen(model, "change:net change:metric change:layer change:epoch", draw, signal);
}

export default { render };
