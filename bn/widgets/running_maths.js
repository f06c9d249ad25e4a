// Running estimates of a drifting stream, as running.py has them. Pure functions;
// tests/test_widget_running.py compares them with Python's.

import { uniform } from "./chain_maths.js";

export const STEPS = 150;
const START = 3; // the mean before the first step

// Normal numbers from pairs of even ones (Box and Muller).
export function normals(seed, n) {
  const u = uniform(seed, 2 * Math.ceil(n / 2));
  const out = new Array(u.length);
  for (let i = 0; i < u.length; i += 2) {
    const r = Math.sqrt(-2 * Math.log(1 - u[i])), angle = 2 * Math.PI * u[i + 1];
    out[i] = r * Math.cos(angle);
    out[i + 1] = r * Math.sin(angle);
  }
  return out.slice(0, n);
}

// Mean and unbiased variance of each batch of m standard normal numbers.
export function batches(seed, m) {
  const z = normals(seed, STEPS * m), mean = [], variance = [];
  for (let t = 0; t < STEPS; t++) {
    let sum = 0, squares = 0;
    for (let i = t * m; i < (t + 1) * m; i++) sum += z[i];
    for (let i = t * m; i < (t + 1) * m; i++) squares += (z[i] - sum / m) ** 2;
    mean.push(sum / m);
    variance.push(squares / (m - 1));
  }
  return { mean, variance };
}

// r ← (1 − α) r + α v over a series. momentum null: α = 1/n at the n-th value.
export function average(values, momentum, start) {
  let r = start;
  return values.map((v, i) => {
    const a = momentum ?? 1 / (i + 1);
    return (r = (1 - a) * r + a * v);
  });
}

// What is true, what each batch says, what is stored (run), and what would be stored if every batch
// told the truth (clear): the difference of the last two is noise.
export function chase({ mean: z, variance: s }, momentum, drift, growth, spread) {
  const steps = z.map((_, t) => t + 1);
  const sd = steps.map((t) => spread * (1 + growth) ** t);
  const truth = { mean: steps.map((t) => START + drift * t), variance: sd.map((v) => v * v) };
  const batch = { mean: z.map((v, t) => truth.mean[t] + sd[t] * v), variance: s.map((v, t) => truth.variance[t] * v) };
  const stored = (of) => ({ mean: average(of.mean, momentum, 0), variance: average(of.variance, momentum, 1) });
  return { truth, batch, run: stored(batch), clear: stored(truth) };
}

// An axis that holds the truth and the start, whatever the momentum is.
export function edges(series, what) {
  if (what === "variance") return [0, 2.2 * Math.max(1, ...series.truth.variance)];
  const shown = [...series.truth.mean, ...series.batch.mean, 0];
  return [Math.min(...shown), Math.max(...shown)];
}
