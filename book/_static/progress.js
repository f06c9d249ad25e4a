// What the reader has done: chapters marked done, quizzes passed. Kept in the browser's own
// storage and nowhere else; shown in the sidebar, at each chapter's end and on progress.html.
// A classic script, so that it also runs on a page opened from disk.
// The quiz widget (bn/widgets/store.js) writes the same record under the same key:
// { version: 1, chapters: { page: { done: date } }, quizzes: { id: { picked, right, total, passed, at } } }
(() => {
  "use strict";
  const KEY = "bn-book/1";
  const EVENT = "bn-progress";
  const LARGEST = 1e6; // characters of a file to import

  // ------------------------------------------------------------ the record

  const isObject = (x) => x !== null && typeof x === "object" && !Array.isArray(x);
  const isDate = (x) => typeof x === "string" && !Number.isNaN(Date.parse(x));
  const isCount = (x) => Number.isInteger(x) && x >= 0;
  const PAGE = /^[a-z0-9_]+(\/[a-z0-9_]+)*$/;

  const goodChapter = (c) => isObject(c) && isDate(c.done);
  const goodQuiz = (q) => isObject(q) && isCount(q.right) && isCount(q.total) && q.right <= q.total
    && typeof q.passed === "boolean" && isDate(q.at) && isObject(q.picked)
    && Object.values(q.picked).every((p) => Array.isArray(p) && p.every(isCount));

  const keepGood = (entries, good) =>
    Object.fromEntries(Object.entries(isObject(entries) ? entries : {}).filter(([k, v]) => PAGE.test(k) && good(v)));

  let memory = null; // where storage is blocked, progress lasts as long as the page

  // Whatever the storage holds, a record of the right form comes back.
  function read() {
    let all = memory;
    if (!all) {
      try {
        all = JSON.parse(localStorage.getItem(KEY));
      } catch {
        all = null;
      }
    }
    if (!isObject(all) || all.version !== 1) all = {};
    return { version: 1, chapters: keepGood(all.chapters, goodChapter), quizzes: keepGood(all.quizzes, goodQuiz) };
  }

  function write(record) {
    try {
      localStorage.setItem(KEY, JSON.stringify(record));
      memory = null;
    } catch {
      memory = record;
    }
    dispatchEvent(new CustomEvent(EVENT, { detail: {} }));
  }

  // ------------------------------------------------------------ the pages

  const root = new URL(document.documentElement.dataset.content_root || "./", location.href);

  // "why/deep_linear_chain" for .../book/why/deep_linear_chain.html; null outside the site.
  function pageOf(href) {
    const url = new URL(href, location.href);
    if (url.host !== root.host || !url.pathname.startsWith(root.pathname)) return null;
    const path = decodeURIComponent(url.pathname.slice(root.pathname.length));
    return path.replace(/^book\//, "").replace(/(\.html|\/)$/, "") || "index";
  }
  const here = pageOf(location.href);
  const isChapter = (page) => page !== null && (page.includes("/") || page === "start"); // chapters lie in their part's folder

  // The course as the sidebar has it: [{ part, page, title, href, link }]
  function chapters() {
    const found = [], seen = new Set();
    const nav = document.querySelector("nav.bd-links, .bd-sidebar-primary nav, #bd-docs-nav");
    for (const link of nav?.querySelectorAll("a.reference.internal[href]") ?? []) {
      const page = pageOf(link.href);
      if (!isChapter(page) || link.hash.length > 1 || seen.has(page)) continue;
      seen.add(page);
      let caption = link.closest("ul")?.previousElementSibling;
      while (caption && !caption.matches(".caption")) caption = caption.previousElementSibling;
      const title = [...link.childNodes].filter((n) => !n.classList?.contains("bn-mark-done")).map((n) => n.textContent).join("");
      found.push({ part: caption?.textContent.trim() ?? "", page, title: title.trim(), href: link.href, link });
    }
    return found;
  }

  // done: marked done; begun: the quiz has answers; open: neither.
  function state(record, page) {
    const quiz = record.quizzes[page];
    return {
      done: Boolean(record.chapters[page]),
      passed: Boolean(quiz?.passed),
      quiz: !quiz ? "not tried" : quiz.passed ? "passed" : `${quiz.right} of ${quiz.total} right`,
      begun: Boolean(quiz),
    };
  }

  // ------------------------------------------------------------ elements

  function h(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes ?? {})) {
      if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else if (value !== false && value !== null && value !== undefined) node.setAttribute(key, value === true ? "" : value);
    }
    node.append(...children.flat().filter((c) => c !== null && c !== undefined));
    return node;
  }
  const hidden = (text) => h("span", { class: "bn-unseen" }, text);

  function sidebar(record) {
    for (const { page, link } of chapters()) {
      link.querySelector(".bn-mark-done")?.remove();
      const { done, passed, begun } = state(record, page);
      if (!done && !begun) continue;
      const words = done ? (passed ? " (done, quiz passed)" : " (done)") : passed ? " (quiz passed)" : " (begun)";
      link.append(h("span", { class: "bn-mark-done", "data-state": done ? "done" : "begun" },
        h("span", { "aria-hidden": "true" }, done ? "✓" : "◐"), hidden(words)));
    }
  }

  // The button at a chapter's end.
  let button, note;
  function atEnd(record) {
    if (!isChapter(here)) return;
    const article = document.querySelector("article.bd-article, article[role=main], main article");
    if (!article) return;
    if (!button) {
      button = h("button", { type: "button", class: "bn-done-button", onclick: () => {
        const now = read();
        if (now.chapters[here]) delete now.chapters[here];
        else now.chapters[here] = { done: new Date().toISOString() };
        write(now);
      } });
      note = h("p", { role: "status" });
      const overview = chapters().length
        ? h("a", { href: new URL(pagePath("progress"), root).href }, "Your progress") : null;
      article.append(h("aside", { class: "bn-done", "aria-label": "Your progress in this chapter" },
        h("div", { class: "bn-done-row" }, button, overview), note));
    }
    const { done, quiz, begun } = state(record, here);
    button.textContent = done ? "✓ Done. Undo" : "Mark this chapter as done";
    button.dataset.state = done ? "done" : "open";
    note.textContent = [done ? "This chapter is marked done." : "", begun ? `Quiz: ${quiz}.` : "",
      memory ? "This browser keeps no storage here: the mark is lost when you leave the page." : ""].filter(Boolean).join(" ");
  }

  // Pages lie in the site's root or in book/, as this page's own address shows.
  const pagePath = (page) => {
    const own = decodeURIComponent(new URL(location.href).pathname.slice(root.pathname.length));
    return (own.startsWith("book/") ? "book/" : "") + page + ".html";
  };

  // ------------------------------------------------------------ the page of progress

  function say(text, wrong = false) {
    const place = document.querySelector("#bn-progress .bn-said");
    place.setAttribute("role", wrong ? "alert" : "status");
    place.dataset.kind = wrong ? "wrong" : "right";
    place.textContent = text;
  }

  const count = (n, one) => `${n} ${one}${n === 1 ? "" : one.endsWith("z") ? "zes" : "s"}`;

  function save() {
    const record = read();
    const file = { kind: "bn-book-progress", saved: new Date().toISOString(), ...record };
    const url = URL.createObjectURL(new Blob([JSON.stringify(file, null, 1) + "\n"], { type: "application/json" }));
    const link = h("a", { href: url, download: `batch-normalization-progress-${file.saved.slice(0, 10)}.json` });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
    say(`Saved ${count(Object.keys(record.chapters).length, "chapter")} and ${count(Object.keys(record.quizzes).length, "quiz")}.`);
  }

  // Check a file's text; throws an Error that says what is wrong with it.
  function parse(text) {
    if (text.length > LARGEST) throw new Error("the file is far too large for a record of progress");
    let file;
    try {
      file = JSON.parse(text);
    } catch {
      throw new Error("the file is not JSON; choose a file that was saved on this page");
    }
    if (!isObject(file) || file.kind !== "bn-book-progress") throw new Error("the file is JSON, but not a record of progress saved on this page");
    if (file.version !== 1) throw new Error(`the record has version ${JSON.stringify(file.version)}; this site reads version 1`);
    for (const [what, good] of [["chapters", goodChapter], ["quizzes", goodQuiz]]) {
      if (!isObject(file[what])) throw new Error(`the record has no “${what}”`);
      for (const [page, entry] of Object.entries(file[what]))
        if (!PAGE.test(page) || !good(entry)) throw new Error(`in “${what}”, the entry ${JSON.stringify(page)} is damaged; nothing was read`);
    }
    return file;
  }

  // Join a file with what is here: a mark stays, of two quizzes the later one counts.
  function merge(record, file) {
    for (const [page, chapter] of Object.entries(file.chapters)) record.chapters[page] ??= { done: chapter.done };
    for (const [id, { picked, right, total, passed, at }] of Object.entries(file.quizzes)) {
      const mine = record.quizzes[id];
      const later = !mine || Date.parse(at) > Date.parse(mine.at) ? { picked, right, total, passed, at } : mine;
      record.quizzes[id] = { ...later, passed: passed || Boolean(mine?.passed) };
    }
    return record;
  }

  async function load(input) {
    const [file] = input.files;
    if (!file) return;
    try {
      if (file.size > LARGEST) throw new Error("the file is far too large for a record of progress");
      const found = parse(await file.text());
      write(merge(read(), found));
      say(`Read ${count(Object.keys(found.chapters).length, "chapter")} and ${count(Object.keys(found.quizzes).length, "quiz")} from ${file.name}. What was here is kept.`);
    } catch (error) {
      say(`Not imported: ${error.message}.`, true);
    }
    input.value = ""; // the same file may be chosen again
  }

  function reset() {
    const record = read();
    const chapters = Object.keys(record.chapters).length, quizzes = Object.keys(record.quizzes).length;
    if (!chapters && !quizzes) return say("There is nothing to forget.");
    if (!confirm(`Forget ${count(chapters, "chapter")} and ${count(quizzes, "quiz")}? This cannot be undone; export first to keep a copy.`)) return;
    write({ version: 1, chapters: {}, quizzes: {} });
    say("All forgotten.");
  }

  function overview(record) {
    const place = document.getElementById("bn-progress");
    if (!place) return;
    if (!place.firstElementChild) {
      const input = h("input", { type: "file", accept: ".json,application/json", id: "bn-import", class: "bn-unseen", tabindex: "-1",
        "aria-label": "A file of progress", onchange: () => load(input) });
      place.append(
        h("p", { class: "bn-sum" }), h("div", { class: "bn-table" }),
        h("div", { class: "bn-done-row" },
          h("button", { type: "button", onclick: save }, "Export to a file"),
          h("button", { type: "button", onclick: () => input.click() }, "Import from a file"),
          h("button", { type: "button", onclick: reset }, "Forget everything"), input),
        h("p", { class: "bn-said", role: "status" }));
    }
    const all = chapters(), states = all.map(({ page }) => state(record, page));
    const done = states.filter((x) => x.done).length, passed = states.filter((x) => x.passed).length;
    place.querySelector(".bn-sum").textContent =
      `${done} of ${count(all.length, "chapter")} done, ${passed} of ${count(all.length, "quiz")} passed.`
      + (memory ? " This browser keeps no storage here: export before you leave the page." : "");
    const mark = (yes, words) => h("td", { "data-state": yes ? "done" : "open" },
      h("span", { "aria-hidden": "true" }, yes ? "✓ " : "○ "), words);
    const rows = [];
    let part;
    all.forEach((chapter, i) => {
      if (chapter.part !== part) {
        part = chapter.part;
        if (part) rows.push(h("tr", { class: "bn-part" }, h("th", { colspan: 3, scope: "colgroup" }, part)));
      }
      rows.push(h("tr", null, h("th", { scope: "row" }, h("a", { href: chapter.href }, chapter.title)),
        mark(states[i].done, states[i].done ? "done" : "not yet"), mark(states[i].passed, states[i].quiz)));
    });
    place.querySelector(".bn-table").replaceChildren(h("table", null,
      h("caption", { class: "bn-unseen" }, "Chapters and quizzes"),
      h("thead", null, h("tr", null, ["Chapter", "Read", "Quiz"].map((t) => h("th", { scope: "col" }, t)))),
      h("tbody", null, rows)));
  }

  function show() {
    const record = read();
    sidebar(record);
    atEnd(record);
    overview(record);
  }

  function start() {
    show();
    addEventListener(EVENT, show);
    // Another tab wrote: the widgets on this page hear of it the same way.
    addEventListener("storage", (event) => {
      if (event.key === KEY || event.key === null) dispatchEvent(new CustomEvent(EVENT, { detail: {} }));
    });
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
