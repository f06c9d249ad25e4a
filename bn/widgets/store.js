// What the reader has done, in the browser's own storage: one key, one version.
// { version: 1, chapters: { page: { done: date } }, quizzes: { id: { picked, right, total, passed, at } } }
// book/_static/progress.js reads and writes the same. Storage may be blocked, full or altered.
export const KEY = "bn-book/1";
export const EVENT = "bn-progress";

const plain = (x) => (x && typeof x === "object" && !Array.isArray(x) ? x : {});

export function read() {
  try {
    const all = plain(JSON.parse(localStorage.getItem(KEY)));
    if (all.version === 1) return { version: 1, chapters: plain(all.chapters), quizzes: plain(all.quizzes) };
  } catch { /* blocked or not JSON: as if nothing had been kept */ }
  return { version: 1, chapters: {}, quizzes: {} };
}

// Keep (or, with null, forget) one quiz; true if it is kept.
export function keepQuiz(id, entry) {
  const all = read();
  if (entry) all.quizzes[id] = entry;
  else delete all.quizzes[id];
  let kept = true;
  try {
    localStorage.setItem(KEY, JSON.stringify(all));
  } catch {
    kept = false;
  }
  dispatchEvent(new CustomEvent(EVENT, { detail: { quiz: id, entry } }));
  return kept;
}
