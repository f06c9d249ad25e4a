import { axis, choice, fmt, frame, h, legend, line, listen, log, logSlider, onVisible, s } from "./common.js";
import { WAYS, point } from "./roofline_maths.js";

const LEFT = 66, RIGHT = 468, TOP = 34, BOTTOM = 276; // drawing units
const LOOKS = { textbook: ["without", "square"], "in place": ["warn", "diamond"], "in blocks": ["with", "dot"] };
const X_ENDS = [0.05, 200];
const time = (sec) => (sec >= 1 ? `${fmt(sec)} s` : sec >= 1e-3 ? `${fmt(1e3 * sec)} ms` : `${fmt(1e6 * sec)} µs`);

function mark(kind, x, y, r) {
  if (kind === "square") return s("rect", { class: "bn-mark", x: x - r, y: y - r, width: 2 * r, height: 2 * r });
  if (kind === "diamond") return s("path", { class: "bn-mark", d: `M${x} ${y - 1.3 * r}l${1.3 * r} ${1.3 * r}l${-1.3 * r} ${1.3 * r}l${-1.3 * r} ${-1.3 * r}z` });
  return s("circle", { class: "bn-mark", cx: x, cy: y, r });
}

function render({ model, el, signal }) {
  const f = frame({ model, el, signal, title: "Batch norm under a machine's roof", height: 336 });
  const common = { signal };
  f.controls.append(
    choice(model, "way", { label: "Way", options: Object.keys(WAYS), ...common }),
    logSlider(model, "values", { label: "Values in the batch", min: 1e3, max: 1e9, step: 0.1, ...common }),
    choice(model, "itemsize", { label: "Bytes of a value", options: [2, 4, 8], ...common }),
    logSlider(model, "cache", { label: "Cache, MB", min: 0.01, max: 1000, step: 0.1, ...common }),
    logSlider(model, "bandwidth", { label: "Memory, GB/s", min: 1, max: 1e4, step: 0.1, ...common }),
    logSlider(model, "peak", { label: "Arithmetic, Gop/s", min: 1, max: 1e6, step: 0.1, ...common }),
  );
  f.svg.after(legend(Object.entries(LOOKS).map(([label, [color, shape]]) => ({ label, color, shape }))));

  const draw = onVisible(el, () => {
    const [way, values, itemsize, cache, bandwidth, peak] =
      ["way", "values", "itemsize", "cache", "bandwidth", "peak"].map((k) => model.get(k));
    const of = (name) => point(name, values, itemsize, 1e6 * cache, 1e9 * bandwidth, 1e9 * peak);
    const ridge = peak / bandwidth, shown = of(way);
    const lo = Math.min(X_ENDS[0], ridge / 3), hi = Math.max(X_ENDS[1], 3 * ridge);
    const X = log([lo, hi], [LEFT, RIGHT]);
    const low = Math.min(...Object.keys(WAYS).map((name) => of(name).rate / 1e9), peak) / 3;
    const Y = log([10 ** Math.floor(Math.log10(low)), 10 ** Math.ceil(Math.log10(peak) + 0.15)], [BOTTOM, TOP]);
    const floor = Math.max(lo, Y.domain[0] / bandwidth); // where the slope leaves the drawing
    f.svg.replaceChildren(
      axis(X, { side: "bottom", at: BOTTOM, label: "operations for each byte moved", n: 5 }),
      axis(Y, { side: "left", at: LEFT, label: "billion operations a second", n: 5, grid: [LEFT, RIGHT] }),
      line([floor, ridge, hi].map(X), [floor * bandwidth, peak, peak].map(Y), { class: "bn-line" }),
      ...Object.entries(LOOKS).flatMap(([name, [color, kind]]) => {
        const p = of(name), x = X(p.intensity), y = Y(p.rate / 1e9);
        return [s("g", { class: `bn-${color}` },
          name === way ? s("line", { class: "bn-line bn-thin bn-dash", x1: x, x2: x, y1: BOTTOM, y2: y }) : null,
          mark(kind, x, y, name === way ? 10 : name === "textbook" ? 9 : 6))];
      }),
    );
    const other = Object.keys(WAYS).filter((name) => name !== way).map((name) => `${name} ${time(of(name).seconds)}`);
    f.status.textContent = `${way}: ${shown.walks} walks over the batch, ${fmt(shown.intensity)} operations a byte, at least ${time(shown.seconds)}; ${other.join(", ")}. The ${shown.byMemory ? "memory" : "arithmetic"} sets the time.`;
    f.describe(`A batch of ${fmt(values)} values of ${itemsize} bytes ${shown.fits ? "fits" : "does not fit"} into a cache of ${fmt(cache)} MB. Written ${way}, batch norm walks ${shown.walks} times over it: ${fmt(shown.intensity)} operations for each byte. The roof rises to ${fmt(peak)} billion operations a second at ${fmt(ridge)} operations a byte. So it takes at least ${time(shown.seconds)}, and ${shown.byMemory ? "memory" : "arithmetic"} sets the time. Others: ${other.join(", ")}.`);
  }, signal);
  listen(model, "change:way change:values change:itemsize change:cache change:bandwidth change:peak", draw, signal);
}

export default { render };
