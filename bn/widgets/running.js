import { frame, slider, logSlider, toggle, button, legend, linear, axis, line, s, h, fmt, percent, listen, set, onVisible, calm } from "./common.js";
import { STEPS, batches, chase, edges } from "./running_maths.js";

const DEFAULTS = { momentum: 0.1, cumulative: false, batch_size: 16, drift: 0.03, growth: 0.003, spread: 2, step: 40 };
const LEFT = 58, RIGHT = 468;
const PANELS = [["mean", 40, 184], ["variance", 238, 382]]; // what, top, floor
const PACE = 90; // milliseconds for a step
const signed = (v) => (v > 0 ? `+${fmt(v)}` : fmt(v));

function render({ model, el, signal }) {
  const f = frame({ model, el, signal, title: "Chase a drifting stream", height: 436 });
  f.root.classList.add("bn-running");
  const momentum = logSlider(model, "momentum", { label: "Momentum", min: 0.001, max: 1, step: 0.1, zero: true, signal });
  f.controls.append(
    momentum,
    slider(model, "batch_size", { label: "Batch size", min: 2, max: 128, format: String, signal }),
    slider(model, "drift", { label: "Drift of μ", min: -0.1, max: 0.1, step: 0.005, signal }),
    slider(model, "growth", { label: "Growth of σ", min: -0.01, max: 0.01, step: 0.001, format: (v) => percent(v), signal }),
    slider(model, "spread", { label: "First σ", min: 0.5, max: 4, step: 0.1, signal }),
    slider(model, "step", { label: "Step", min: 1, max: STEPS, format: String, signal }),
  );

  // A press starts it and stops it. Where motion is unwelcome, a press goes ten steps on.
  let timer = 0;
  const go = (by) => set(model, "step", model.get("step") >= STEPS ? 1 : Math.min(STEPS, model.get("step") + by));
  const stop = () => { clearInterval(timer); timer = 0; name(); };
  const start = () => {
    if (model.get("step") >= STEPS) set(model, "step", 1);
    timer = setInterval(() => { go(1); if (model.get("step") >= STEPS) stop(); }, PACE);
    name();
  };
  const play = button("Play", () => (calm() ? go(10) : timer ? stop() : start()), { signal });
  const name = () => { play.textContent = calm() ? "Ten steps on" : timer ? "Pause" : "Play"; };
  matchMedia("(prefers-reduced-motion: reduce)").addEventListener("change", stop, { signal });
  signal?.addEventListener("abort", () => clearInterval(timer), { once: true });
  name();

  f.root.insertBefore(h("div", { class: "bn-buttons" },
    toggle(model, "cumulative", { label: "momentum=None", signal }), play,
    button("New stream", () => set(model, "seed", model.get("seed") + 1), { signal }),
    button("Reset", () => { for (const [key, value] of Object.entries(DEFAULTS)) set(model, key, value); }, { signal }),
  ), f.svg);
  f.svg.after(legend([
    { label: "running estimate", color: "with", shape: "line" },
    { label: "true", color: "without", shape: "dash" },
    { label: "a batch’s own", color: "muted", shape: "dot" },
  ]));

  let drawn = "", seen; // the batches, kept while seed and size stay
  const draw = onVisible(el, () => {
    const { seed, batch_size: m, drift, growth, spread, step, cumulative } = Object.fromEntries(
      ["seed", "batch_size", "drift", "growth", "spread", "step", "cumulative"].map((k) => [k, model.get(k)]));
    momentum.querySelector("input").disabled = cumulative;
    if (drawn !== `${seed} ${m}`) { seen = batches(seed, m); drawn = `${seed} ${m}`; }
    const series = chase(seen, cumulative ? null : model.get("momentum"), drift, growth, spread);
    const at = step - 1, X = linear([0, STEPS], [LEFT, RIGHT]), xs = series.run.mean.map((_, t) => X(t + 1));
    const parts = [], said = [], heard = [];
    for (const [what, top, floor] of PANELS) {
      const Y = linear(edges(series, what), [floor, top]), truth = series.truth[what], run = series.run[what];
      const ys = run.map(Y);
      parts.push(
        axis(Y, { side: "left", at: LEFT, n: 4, grid: [LEFT, RIGHT], label: what }),
        axis(X, { at: floor, n: 6, label: what === "variance" ? "step" : "", format: what === "variance" ? undefined : () => "" }),
        s("line", { class: "bn-now", x1: xs[at], x2: xs[at], y1: top, y2: floor }),
        s("g", { class: "bn-muted" }, series.batch[what].slice(0, step).map((v, t) =>
          s("circle", { class: Y(v) < top ? "bn-beyond" : "bn-dot", cx: xs[t], cy: Y.clamp(v), r: 3 }))),
        s("g", { class: "bn-without" }, line(xs, truth.map(Y), { class: "bn-line bn-dash" })),
        s("g", { class: "bn-with" },
          line(xs.slice(at), ys.slice(at), { class: "bn-line bn-thin bn-ahead" }),
          line(xs.slice(0, step), ys.slice(0, step))),
        s("g", { class: "bn-accent" },
          s("line", { class: "bn-gap", x1: xs[at], x2: xs[at], y1: ys[at], y2: Y(truth[at]) })),
        s("g", { class: "bn-without" }, s("circle", { class: "bn-hollow", cx: xs[at], cy: Y(truth[at]), r: 4.5 })),
        s("g", { class: "bn-with" }, s("circle", { class: "bn-mark", cx: xs[at], cy: ys[at], r: 6 })),
      );
      const blind = series.clear[what][at] - truth[at], noise = run[at] - series.clear[what][at];
      said.push(`${what} ${fmt(run[at])}, true ${fmt(truth[at])}: ${signed(blind)} from start and lag, ${signed(noise)} from noise`);
      heard.push(`running ${what} ${fmt(run[at])}, true ${fmt(truth[at])}, error ${signed(run[at] - truth[at])}`);
    }
    f.svg.replaceChildren(...parts);
    f.status.replaceChildren(...said.map((text) => h("span", null, text[0].toUpperCase() + text.slice(1) + ". ")));
    f.describe(`Batches of ${m}, ${cumulative ? "momentum None" : `momentum ${fmt(model.get("momentum"))}`}, drift ${fmt(drift)} and growth ${percent(growth)} per step. At step ${step}: ${heard.join("; ")}.`);
  }, signal);
  listen(model, "change:momentum change:cumulative change:batch_size change:drift change:growth change:spread change:seed change:step", draw, signal);
}

export default { render };
