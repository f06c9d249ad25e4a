import { frame, slider, logSlider, select, button, legend, linear, axis, line, s, h, fmt, superscript, listen, set, onVisible } from "./common.js";
import { CONVENTIONS, convertMomentum, running, batches } from "./conventions_maths.js";

const POPULATION = 4, STEPS = 120;
const LEFT = 40, RIGHT = 470, TOP = 40, FLOOR = 232;
const NAMES = Object.entries(CONVENTIONS).map(([key, { title }]) => [key, title]);
const plain = (v) => (v !== 0 && v < 1e-3 ? v.toExponential() : String(v)); // as a program writes it
const eps10 = (v) => (v === 0 ? "0" : v < 0.01 ? `10${superscript(Math.round(Math.log10(v)))}` : fmt(v));

function render({ model, el, signal }) {
  const f = frame({ model, el, signal, title: "Copied or translated", height: 288 });
  f.root.classList.add("bn-conventions");
  const source = () => model.get("source"), to = () => model.get("to");
  const defaults = button("Defaults", () => {
    const [momentum, eps] = CONVENTIONS[source()].defaults;
    set(model, "momentum", momentum);
    set(model, "eps", eps);
  }, { signal });
  const swap = button("Swap", () => {
    const [a, b, there] = [source(), to(), convertMomentum(model.get("momentum"), source(), to())];
    set(model, "source", b);
    set(model, "to", a);
    set(model, "momentum", there);
  }, { signal });
  f.controls.append(
    select(model, "source", { label: "Written for", options: NAMES, signal }),
    select(model, "to", { label: "Read by", options: NAMES, signal }),
    slider(model, "momentum", { label: "momentum", min: 0, max: 1, step: 0.01, format: String, signal }),
    logSlider(model, "eps", { label: "ε", min: 1e-10, max: 0.1, step: 1, zero: true, format: eps10, signal }),
    slider(model, "m", { label: "values, m", min: 2, max: 64, step: 1, format: String, signal }),
    slider(model, "step", { label: "batches", min: 0, max: STEPS, step: 1, format: String, signal }),
    h("div", { class: "bn-buttons" }, defaults, swap),
  );
  const key = h("div"), table = h("table", { class: "bn-values" });
  f.svg.after(key, h("div", { class: "bn-scroll" }, table));

  const draw = onVisible(el, () => {
    const [a, b] = [CONVENTIONS[source()], CONVENTIONS[to()]];
    const momentum = model.get("momentum"), eps = model.get("eps"), m = model.get("m"), step = model.get("step");
    const stream = batches(model.get("_noise"), POPULATION, m);
    const theirs = (name) => running(name, convertMomentum(momentum, source(), name), stream, m);
    const curves = { copied: running(to(), momentum, stream, m), source: theirs(source()), translated: theirs(to()) };
    const at = Object.fromEntries(Object.entries(curves).map(([k, c]) => [k, c[step]]));

    const X = linear([0, STEPS], [LEFT, RIGHT]);
    const top = Math.max(6, ...Object.values(curves).flat(), ...stream);
    const Y = linear([0, top], [FLOOR, TOP]), xs = curves.source.map((_, i) => X(i));
    const looks = [["copied", "without", "bn-line bn-dash"], ["source", "with", "bn-line"], ["translated", "third", "bn-line bn-dots"]];
    f.svg.replaceChildren(
      axis(X, { at: FLOOR, label: "batches", n: 6 }),
      axis(Y, { side: "left", at: LEFT, n: 4, grid: [LEFT, RIGHT], label: "running variance" }),
      s("line", { class: "bn-truth", x1: LEFT, x2: RIGHT, y1: Y(POPULATION), y2: Y(POPULATION) }),
      s("g", { class: "bn-muted" }, stream.map((v, i) => s("circle", { class: "bn-speck", cx: X(i + 1), cy: Y(v), r: 2.2 }))),
      s("line", { class: "bn-now", x1: X(step), x2: X(step), y1: TOP, y2: FLOOR }),
      ...looks.map(([name, color, look]) => s("g", { class: `bn-${color}` },
        line(xs, curves[name].map(Y), { class: look }),
        name === "copied" ? s("path", { class: "bn-mark", d: `M${X(step)} ${Y(at[name]) - 7}l7 7l-7 7l-7 -7Z` })
          : s("circle", { class: "bn-mark", cx: X(step), cy: Y(at[name]), r: name === "source" ? 6.5 : 4.5 }))),
    );
    key.replaceChildren(legend([
      { label: `${a.title}, as written`, color: "with", shape: "line" },
      { label: `${b.title}, number copied`, color: "without", shape: "dash" },
      { label: `${b.title}, translated`, color: "third", shape: "dot" },
      { label: "variance of one batch, over m", color: "muted", shape: "dot" },
    ]));

    table.replaceChildren(
      h("thead", null, h("tr", null, ["", "arguments", "over", `after ${step}`].map((t) => h("th", { scope: "col" }, t)))),
      h("tbody", null, NAMES.map(([name, title]) => {
        const c = CONVENTIONS[name];
        return h("tr", { class: name === source() ? "bn-active" : false }, h("th", { scope: "row" }, title),
          h("td", null, h("code", null, `${c.momentum}=${plain(convertMomentum(momentum, source(), name))}, `),
            h("code", null, `${c.eps}=${plain(eps)}`)),
          h("td", null, c.unbiased ? "m − 1" : "m"), h("td", null, fmt(theirs(name)[step])));
      })),
    );
    defaults.textContent = `${a.title}’s defaults`;
    defaults.disabled = a.defaults === null;
    swap.disabled = source() === to();

    const there = convertMomentum(momentum, source(), to());
    const weight = a.weighsNew ? momentum : 1 - momentum;
    const says = `${a.title}’s ${momentum} gives a new batch the weight ${fmt(weight)}.`;
    const gap = a.unbiased === b.unbiased ? "" : ` What is left between them is m − 1 against m.`;
    f.status.textContent = source() === to() ? `${says} Nothing to translate.`
      : there === momentum ? `${says} ${b.title} means the same by it.${gap}`
        : `${says} In ${b.title}, ${momentum} would give it ${fmt(1 - weight)}; write ${plain(there)} there.${gap}`;
    f.describe(`Written for ${a.title}, momentum ${momentum}, ε = ${eps10(eps)}; read by ${b.title}. After ${step} batches of ${m} values from a population with variance 4, the running variance is ${fmt(at.source)} in ${a.title}, ${fmt(at.copied)} in ${b.title} with the number copied, ${fmt(at.translated)} with ${plain(there)}, the number translated.`);
  }, signal);
  listen(model, "change:source change:to change:momentum change:eps change:m change:step", draw, signal);
}

export default { render };
