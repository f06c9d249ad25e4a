// The transform of one feature over a batch, as bn.functional computes it. Pure functions.

// The sum in NumPy's order, eight running totals at a time, so that rounding agrees to the last bit
// (up to 128 values).
function sum(values) {
  const whole = values.length < 8 ? 0 : values.length - (values.length % 8);
  const r = values.slice(0, Math.min(whole, 8));
  for (let i = 8; i < whole; i++) r[i % 8] += values[i];
  const head = whole ? r[0] + r[1] + (r[2] + r[3]) + (r[4] + r[5] + (r[6] + r[7])) : 0;
  return values.slice(whole).reduce((total, v) => total + v, head);
}

// Two passes: the mean first, then the squares of what is left.
export function moments(x) {
  const mean = sum(x) / x.length;
  return { mean, variance: sum(x.map((v) => (v - mean) ** 2)) / x.length };
}

// y = γ (x − μ) / √(σ² + ε) + β. One value throws, as in bn; σ² = ε = 0 gives NaN, as in bn.
export function batchNorm(x, gamma = 1, beta = 0, eps = 1e-5) {
  if (x.length < 2) throw new RangeError(`expected more than 1 value, got ${x.length}`);
  const { mean, variance } = moments(x), sigma = Math.sqrt(variance + eps);
  const centred = x.map((v) => v - mean), xHat = centred.map((v) => v / sigma);
  return { mean, variance, sigma, centred, xHat, y: xHat.map((v) => gamma * v + beta) };
}

// Heights for dots of one width on a line: a dot that would cover another sits on top of it.
export function stack(positions, width) {
  const level = new Array(positions.length).fill(0), placed = [];
  const order = positions.map((_, i) => i).sort((i, j) => positions[i] - positions[j] || i - j);
  for (const i of order) {
    const taken = new Set(placed.filter((j) => Math.abs(positions[i] - positions[j]) < width).map((j) => level[j]));
    while (taken.has(level[i])) level[i]++;
    placed.push(i);
  }
  return level;
}

// The half-width of an axis that shows every value: 10, 20, 50, 100, …
export function reach(values) {
  const top = Math.max(...values.filter(Number.isFinite).map(Math.abs), 0);
  let size = 10;
  for (let i = 0; size < top * (1 - 1e-12); i++) size = [20, 50, 100][i % 3] * 10 ** Math.floor(i / 3);
  return size;
}
