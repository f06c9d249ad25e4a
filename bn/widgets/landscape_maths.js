// What the landscape computes: no page, no model, so that a test can run it alone.

// Logarithms (base 10) of a slice's losses, from bytes that divide [low, high] into 255 parts.
export function decode(text, [low, high]) {
  return Array.from(atob(text), (c) => low + ((high - low) * c.charCodeAt(0)) / 255);
}

// How far the loss rises towards the edge of an n × n slice: mean over the edge, minus the centre.
export function rise(logs, n) {
  const losses = logs.map((v) => 10 ** v);
  const edge = losses.filter((_, k) => k < n || k >= n * (n - 1) || k % n === 0 || k % n === n - 1);
  return edge.reduce((a, b) => a + b, 0) / edge.length - losses[(n * n - 1) / 2];
}

// The part of the slice where `logs` is at least `level`: polygons [x, y, x, y, …] that fill it, and
// its border in pieces [x, y, x, y]. In units of cells, x along a row; straight within a cell.
export function region(logs, n, level) {
  const inside = [], border = [];
  for (let i = 0; i + 1 < n; i++) {
    let from = -1; // whole cells side by side become one rectangle
    const close = (j) => { if (from >= 0) inside.push([from, i, j, i, j, i + 1, from, i + 1]); from = -1; };
    for (let j = 0; j + 1 < n; j++) {
      const corners = [[j, i], [j + 1, i], [j + 1, i + 1], [j, i + 1]].map(([x, y]) => [x, y, logs[y * n + x] - level]);
      const above = corners.filter((c) => c[2] >= 0).length;
      if (above === 4) { if (from < 0) from = j; continue; }
      close(j);
      if (above) clip(corners, inside, border);
    }
    close(n - 1);
  }
  return { inside, border };
}

// What is left of a cell where the third number of its corners is not negative.
function clip(corners, inside, border) {
  const kept = [], cuts = []; // a cut where the level is crossed, downwards first
  const start = corners.findIndex(([, , v], k) => v >= 0 && corners[(k + 1) % 4][2] < 0);
  for (let k = start; k < start + 4; k++) {
    const [x, y, v] = corners[k % 4], [x2, y2, v2] = corners[(k + 1) % 4];
    if (v >= 0) kept.push(x, y);
    if (v >= 0 !== v2 >= 0) {
      const cut = [x + ((x2 - x) * v) / (v - v2), y + ((y2 - y) * v) / (v - v2)];
      kept.push(...cut);
      cuts.push(cut);
    }
  }
  inside.push(kept);
  for (let k = 0; k < cuts.length; k += 2) border.push([...cuts[k], ...cuts[k + 1]]);
}

// Losses at which the shading deepens: every doubling of 0.1 inside the bounds.
export function levels([low, high]) {
  const first = Math.ceil((low + 1) / Math.log10(2) - 1e-9), last = Math.floor((high + 1) / Math.log10(2) + 1e-9);
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, k) => 0.1 * 2 ** (first + k));
}
