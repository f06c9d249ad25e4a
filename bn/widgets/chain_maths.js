// The deep linear chain, as bn/chain.py has it. Pure functions; tests/test_widget_chain.py compares
// them with Python's.

// Even numbers in [0, 1) from a seed, the same in JavaScript and in Python (mulberry32).
export function uniform(seed, n) {
  let a = seed >>> 0;
  return Array.from({ length: n }, () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), a | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  });
}

export const weights = (depth, weight, spread, seed) =>
  uniform(seed, depth).map((u) => weight * (1 + spread * (2 * u - 1)));

export const output = (x, w) => w.reduce((h, v) => h * v, x);

// What lies below a weight times what lies above it.
export function gradient(x, w) {
  const g = new Array(w.length);
  let below = x, above = 1;
  for (let i = 0; i < w.length; i++) { g[i] = below; below *= w[i]; }
  for (let i = w.length - 1; i >= 0; i--) { g[i] *= above; above *= w[i]; }
  return g;
}

export const dot = (a, b) => a.reduce((sum, v, i) => sum + v * b[i], 0);

// The new output, order by order: multiply the factors (w − ηg·t) out, t counting the changes.
export function orders(x, w, eta) {
  const g = gradient(x, w), out = new Array(w.length + 1).fill(0);
  out[0] = x;
  for (let i = 0; i < w.length; i++) {
    for (let k = i + 1; k > 0; k--) out[k] = w[i] * out[k] - eta * g[i] * out[k - 1];
    out[0] *= w[i];
  }
  return out;
}

export function stepExact(x, w, eta) {
  const g = gradient(x, w);
  return output(x, w.map((v, i) => v - eta * g[i]));
}

export function firstOrder(x, w, eta) {
  const g = gradient(x, w);
  return output(x, w) - eta * dot(g, g);
}

// Where the new output must lie after η = δ/gᵀg, for δ/ŷ ≤ 2.
export function bounds(y, delta) {
  if (y === 0) return [-delta, -delta];
  return [y - delta, y * Math.exp(-delta / y)].sort((a, b) => a - b);
}

// All that the figure shows, from the figure's state.
export function state({ depth, weight, spread, seed, x, normalised, eta, share }) {
  const w = weights(depth, weight, spread, seed), y = output(x, w), g = gradient(x, w), gg = dot(g, g);
  const delta = share * Math.abs(y);
  const rate = normalised ? (gg > 0 ? delta / gg : 0) : eta;
  return {
    w, y, rate,
    contributions: orders(x, w, rate),
    promised: normalised ? y - (gg > 0 ? delta : 0) : y - rate * gg,
    delivered: stepExact(x, w, rate),
    asked: y === 0 ? 0 : (rate * gg) / y, // the promised fall, as a share of the output
    within: normalised ? bounds(y, delta) : null,
  };
}
