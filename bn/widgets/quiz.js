// A quiz: one fieldset per question, native radio buttons and checkboxes, feedback on every option.
import { button, h, listen, uid } from "./common.js";
import { EVENT, keepQuiz, read } from "./store.js";

// Pieces of text (made by quiz.py) to nodes. Nothing is ever read as HTML.
function nodes(pieces) {
  return pieces.map((p) => {
    if ("text" in p) return document.createTextNode(p.text);
    if ("code" in p) return h("code", null, p.code);
    if ("em" in p) return h("em", null, nodes(p.em));
    if ("strong" in p) return h("strong", null, nodes(p.strong));
    if ("href" in p) return h("a", { href: p.href }, nodes(p.label));
    const xml = new DOMParser().parseFromString(p.mathml, "application/xml").documentElement;
    return h("span", { class: "bn-math", "data-tex": p.tex }, document.importNode(xml, true));
  });
}

// MathML shows at once everywhere. A page that has MathJax (the site) sets the same maths in its font.
async function typeset(root, signal) {
  const loaded = document.readyState === "complete" ? null
    : new Promise((done) => addEventListener("load", done, { once: true, signal }));
  await loaded;
  const jax = window.MathJax;
  if (!jax?.startup?.promise) return;
  await jax.startup.promise;
  if (!jax.tex2chtmlPromise || signal?.aborted) return;
  const size = jax.getMetricsFor?.(root, false); // of text that shows: notes are still hidden
  for (const span of root.querySelectorAll(".bn-math"))
    span.replaceChildren(await jax.tex2chtmlPromise(span.dataset.tex, { ...size, display: false }));
  jax.startup.document.clear(); // adds the style sheet's new characters
  jax.startup.document.updateDocument();
}

const same = (a, b) => a.length === b.length && a.every((v, i) => v === b[i]);
const answer = (q) => q.options.flatMap((o, i) => (o.correct ? [i] : []));

// Old answers count only if they still fit the questions.
function fitting(questions, picked) {
  const out = {};
  for (const q of questions) {
    const p = picked?.[q.id];
    if (Array.isArray(p) && p.length && p.every((i) => Number.isInteger(i) && i >= 0 && i < q.options.length)
      && (q.multiple || p.length === 1)) out[q.id] = [...p].sort((a, b) => a - b);
  }
  return out;
}

function render({ model, el, signal }) {
  const questions = model.get("questions"), id = model.get("quiz_id"), total = questions.length;
  const titleId = uid("title"), name = uid("quiz");
  const description = h("p", { class: "bn-sr bn-description" });
  const score = h("p", { class: "bn-score", role: "status" });
  let own = false; // this quiz is writing

  const parts = questions.map((q, n) => {
    const inputs = q.options.map((_, i) => h("input", { type: q.multiple ? "checkbox" : "radio",
      name: `${name}-${n}`, id: `${name}-${n}-${i}`, signal, onchange: () => changed(n) }));
    const marks = q.options.map(() => h("span", { class: "bn-verdict" }));
    const notes = q.options.map((o, i) => h("div", { class: "bn-note", id: `${name}-${n}-${i}-note`, hidden: true },
      marks[i], " ", nodes(o.feedback)));
    const verdict = h("p", { class: "bn-result", role: "status" });
    const check = button("Check", () => submit(n), { signal, "aria-describedby": `${name}-${n}-legend` });
    const root = h("fieldset", { class: "bn-question" },
      h("legend", { id: `${name}-${n}-legend` }, h("span", { class: "bn-number" }, `${n + 1}. `), nodes(q.prompt),
        q.multiple ? h("span", { class: "bn-many" }, " Choose all that hold.") : null),
      q.order.map((i) => h("div", { class: "bn-option" },
        h("label", { for: inputs[i].id }, inputs[i], h("span", null, nodes(q.options[i].text))), notes[i])),
      h("div", { class: "bn-buttons" }, check, verdict));
    return { q, inputs, marks, notes, verdict, check, root };
  });

  const chosen = ({ inputs }) => inputs.flatMap((input, i) => (input.checked ? [i] : []));

  // `picked` counts options as the file does; `order` is how they stand on the page.
  // Show what is known about one question: nothing, or the verdict on what was picked.
  function show(n, picked) {
    const { q, inputs, marks, notes, verdict, root } = parts[n];
    const right = picked && same(picked, answer(q));
    root.dataset.state = !picked ? "open" : right ? "right" : "wrong";
    q.options.forEach((o, i) => {
      const mine = Boolean(picked?.includes(i));
      const seen = Boolean(picked) && (mine || right); // solved: every option explains itself
      notes[i].hidden = !seen;
      marks[i].textContent = !seen ? "" : o.correct ? "✓ Right." : mine ? "✗ Not this one." : "✗ Not so.";
      notes[i].dataset.kind = o.correct ? "right" : "wrong";
      if (seen) inputs[i].setAttribute("aria-describedby", notes[i].id);
      else inputs[i].removeAttribute("aria-describedby");
    });
    const missing = picked && !right && picked.every((i) => q.options[i].correct);
    verdict.textContent = !picked ? "" : right ? "Right. Each option says why."
      : missing ? "So far right, but something is missing." : "Not yet. Read the note and try again.";
  }

  function changed(n) {
    const picked = { ...model.get("picked") };
    if (picked[questions[n].id]) {
      delete picked[questions[n].id];
      keep(picked);
    }
    show(n, null);
  }

  function submit(n) {
    const mine = chosen(parts[n]);
    if (!mine.length) {
      parts[n].verdict.textContent = "Choose an answer first.";
      parts[n].inputs[questions[n].order[0]].focus();
      return;
    }
    keep({ ...model.get("picked"), [questions[n].id]: mine });
    show(n, mine);
  }

  function tally(picked) {
    return questions.filter((q) => picked[q.id] && same(picked[q.id], answer(q))).length;
  }

  function keep(picked) {
    const right = tally(picked), was = read().quizzes[id];
    own = true;
    // Passed once stays passed: changing an answer to see its note loses nothing.
    const passed = right === total || was?.passed === true;
    const kept = keepQuiz(id, Object.keys(picked).length || passed
      ? { picked, right, total, passed, at: new Date().toISOString() } : null);
    model.set("picked", picked);
    model.set("right", right);
    model.set("passed", right === total);
    model.save_changes();
    own = false;
    report(picked, kept);
  }

  function report(picked, kept = true) {
    const right = tally(picked), asked = Object.keys(picked).length;
    score.textContent = right === total ? `All ${total} right. Quiz passed.`
      : asked ? `${right} of ${total} right so far.` : `${total} questions.`;
    if (!kept) score.textContent += " This browser keeps no storage here: your answers last until you leave the page.";
    description.textContent = `Quiz with ${total} questions. ${asked} checked, ${right} right.`;
    again.hidden = !asked;
  }

  const again = button("Start again", () => {
    keepQuiz(id, null);
    load({});
    keep({});
    parts[0].inputs[questions[0].order[0]].focus();
  }, { signal, hidden: true });

  // Put answers on the page without checking storage.
  function load(picked) {
    parts.forEach(({ q, inputs }, n) => {
      inputs.forEach((input, i) => { input.checked = Boolean(picked[q.id]?.includes(i)); });
      show(n, picked[q.id] ?? null);
    });
    report(picked);
  }

  el.classList.add("bn-host");
  const root = h("section", { class: "bn-widget bn-quiz", "aria-labelledby": titleId },
    h("p", { class: "bn-title", id: titleId }, model.get("heading")),
    parts.map((p) => p.root), h("div", { class: "bn-buttons bn-foot" }, again, score), description);
  el.replaceChildren(root);
  signal?.addEventListener("abort", () => root.remove(), { once: true });

  // Python's answers, if it has some, otherwise what the browser kept.
  const given = fitting(questions, model.get("picked"));
  const start = Object.keys(given).length ? given : fitting(questions, read().quizzes[id]?.picked);
  load(start);
  if (Object.keys(start).length) {
    model.set("picked", start);
    model.set("right", tally(start));
    model.set("passed", tally(start) === total);
    model.save_changes();
  }
  listen(model, "change:picked", () => { if (!own) load(fitting(questions, model.get("picked"))); }, signal);
  addEventListener(EVENT, (event) => { // reset or import on the progress page, or in another view
    if (own || (event.detail?.quiz && event.detail.quiz !== id)) return;
    const picked = fitting(questions, read().quizzes[id]?.picked);
    model.set("picked", picked);
    load(picked);
  }, { signal });
  typeset(root, signal).catch((error) => console.error(error));
}

export default { render };
