import { frame, select, button, percent as withSpace, h, listen, set, onVisible } from "./common.js";
import { choose, confusion, ink } from "./predictions_maths.js";

// The space before the sign must not break.
const percent = (v) => withSpace(v).replace(" ", "\u00a0");

const FILTERS = ["net", "truth", "predicted", "outcome", "order"];

function render({ model, el, signal }) {
  const f = frame({ model, el, signal, title: "Find the mistakes", height: 10 });
  f.root.classList.add("bn-predictions");
  const labels = model.get("labels"), images = model.get("images"), side = model.get("side");
  const classes = model.get("classes"), nets = model.get("nets"), rows = model.get("rows");
  const pair = nets.length === 2;
  const each = Array.from({ length: classes }, (_, c) => [c, String(c)]);
  f.controls.append(
    select(model, "net", { label: "Net", options: nets.map(({ title }, i) => [i, title]), signal }),
    select(model, "outcome", { label: "Show", signal, options: [["wrong", "wrong"], ["right", "right"], ["all", "all"],
      ...(pair ? [["only", "wrong in this net only"]] : [])] }),
    select(model, "truth", { label: "True class", options: [[-1, "any"], ...each], signal }),
    select(model, "predicted", { label: "Predicted", options: [[-1, "any"], ...each], signal }),
    select(model, "order", { label: "Order", signal,
      options: [["falling", "surest first"], ["rising", "least sure first"]] }),
  );

  const caption = h("caption", { class: "bn-sr" });
  const body = h("tbody");
  const table = h("table", { class: "bn-answers" }, caption,
    h("thead", null, h("tr", null, ["Image", "True", "The net says", "Runner-up"].map((t) => h("th", { scope: "col" }, t)))), body);
  const turn = (by) => () => set(model, "page", Math.min(Math.max(0, model.get("page") + by), pages() - 1));
  const back = button("Previous", turn(-1), { signal }), on = button("Next", turn(1), { signal });
  const place = h("span", { class: "bn-place" });
  const matrix = h("table", { class: "bn-confusion" });
  const title = h("summary", null, "Confusion matrix: a cell filters the table");
  const fold = h("details", { open: true }, title, matrix);
  f.svg.replaceWith(table, h("div", { class: "bn-buttons" }, back, on, place));
  f.status.after(fold);

  const said = () => nets[Math.min(model.get("net"), nets.length - 1)];
  const other = () => (pair ? nets[1 - nets.indexOf(said())] : null);
  const filter = () => Object.fromEntries(FILTERS.slice(1).map((key) => [key, model.get(key)]));
  let kept = [];
  const pages = () => Math.max(1, Math.ceil(kept.length / rows));

  // A cell of the matrix shows its images; once more, and the filter is gone. One stop for the Tab
  // key; arrows go from cell to cell, past the empty ones.
  function cell(count, i, j) {
    if (!count) return h("td", null, "");
    const pressed = model.get("truth") === i && model.get("predicted") === j;
    const node = h("button", { type: "button", tabindex: -1, "data-row": i, "data-column": j, "aria-pressed": String(pressed),
      "aria-label": `${i} taken for ${j}: ${count}` }, String(count));
    return h("td", { class: i === j ? "bn-hit" : "bn-miss" }, node);
  }
  matrix.addEventListener("click", (event) => {
    const node = event.target.closest("button");
    if (!node) return;
    const again = node.getAttribute("aria-pressed") === "true";
    if (!again) set(model, "outcome", "all");
    set(model, "truth", again ? -1 : Number(node.dataset.row));
    set(model, "predicted", again ? -1 : Number(node.dataset.column));
  }, { signal });
  matrix.addEventListener("keydown", (event) => {
    const cells = [...matrix.querySelectorAll("button")], from = cells.indexOf(event.target);
    if (from < 0 || event.ctrlKey || event.altKey || event.metaKey) return;
    const { row, column } = event.target.dataset;
    const same = cells.filter((c) => c.dataset.column === column);
    const to = {
      ArrowRight: () => cells[from + 1], ArrowLeft: () => cells[from - 1],
      ArrowDown: () => same.find((c) => +c.dataset.row > +row), ArrowUp: () => same.findLast((c) => +c.dataset.row < +row),
      Home: () => cells[0], End: () => cells.at(-1),
    }[event.key];
    if (!to) return;
    event.preventDefault();
    const target = to();
    if (!target) return;
    event.target.tabIndex = -1;
    target.tabIndex = 0;
    target.focus();
  }, { signal });

  function drawMatrix() {
    const focus = matrix.contains(document.activeElement) ? document.activeElement.dataset : null;
    const counts = confusion(labels, said().predicted, classes);
    matrix.replaceChildren(
      h("caption", null, "Rows: the true class. Columns: what the net says."),
      h("thead", null, h("tr", null, h("td"),
        each.map(([, c]) => h("th", { scope: "col" }, c)))),
      h("tbody", null, counts.map((line, i) => h("tr", null, h("th", { scope: "row" }, String(i)), line.map((n, j) => cell(n, i, j))))),
    );
    const at = (d) => matrix.querySelector(`button[data-row="${d.row}"][data-column="${d.column}"]`);
    const stop = (focus && at(focus)) || matrix.querySelector('button[aria-pressed="true"]') || matrix.querySelector("button");
    if (stop) stop.tabIndex = 0;
    if (focus) stop?.focus();
  }

  function picture(index) {
    const canvas = h("canvas", { width: side, height: side, role: "img", "aria-label": `image ${index}` });
    const context = canvas.getContext("2d"), data = context.createImageData(side, side);
    ink(images, index, side).forEach((v, k) => data.data.set([255 - 255 * v, 255 - 255 * v, 255 - 255 * v, 255], 4 * k));
    context.putImageData(data, 0, 0);
    return canvas;
  }

  const answer = (net, i) => {
    const right = net.predicted[i] === labels[i];
    return h("td", { class: right ? "bn-with" : "bn-without" },
      h("span", { class: "bn-verdict" }, `${net.predicted[i]} ${right ? "✓" : "✗"}`), ` ${percent(net.confidence[i])}`,
      h("span", { class: "bn-sure", "aria-hidden": "true", style: `width:${(100 * net.confidence[i]).toFixed(1)}%` }));
  };

  const draw = onVisible(el, () => {
    const net = said();
    kept = choose(labels, net, other(), filter());
    const page = Math.min(model.get("page"), pages() - 1), first = page * rows;
    const shown = kept.slice(first, first + rows);
    body.replaceChildren(...(shown.length ? shown.map((i) => h("tr", null, h("th", { scope: "row" }, picture(i)), h("td", null, String(labels[i])),
      answer(net, i), h("td", null, `${net.second[i]} `, h("span", { class: "bn-quiet" }, percent(net.second_confidence[i])))))
      : [h("tr", null, h("td", { colspan: 4, class: "bn-none" }, "No image fits these filters."))]));
    back.disabled = page === 0;
    on.disabled = page >= pages() - 1;
    place.textContent = kept.length ? `${first + 1}–${first + shown.length} of ${kept.length}` : "none";
    drawMatrix();

    const right = labels.filter((label, i) => net.predicted[i] === label).length;
    const words = { all: "all images", right: "right answers", wrong: "wrong answers", only: "images that only this net gets wrong" };
    const { truth, predicted, outcome, order } = filter();
    const which = words[outcome] + (truth < 0 ? "" : `, true class ${truth}`) + (predicted < 0 ? "" : `, taken for ${predicted}`);
    f.status.textContent = `${net.title}: ${right} of ${labels.length} right (${percent(right / labels.length)}).`;
    caption.textContent = `${which}, ${order === "falling" ? "surest" : "least sure"} first`;
    f.describe(`${net.title}: ${right} of ${labels.length} images right. Shown: ${which}, ${kept.length} in all, page ${page + 1} of ${pages()}. ${
      shown.map((i) => `A ${labels[i]} taken for ${net.predicted[i]} with ${percent(net.confidence[i])}`).slice(0, 3).join("; ")}${shown.length ? "." : ""}`);
  }, signal);
  for (const key of FILTERS) listen(model, `change:${key}`, () => { if (model.get("page")) set(model, "page", 0); draw(); }, signal);
  listen(model, "change:page", draw, signal);
}

export default { render };
