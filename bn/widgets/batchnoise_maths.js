// One example in many random batches, as batchnoise.py has it. Pure functions;
// tests/test_widget_batchnoise.py compares them with Python's.

import { uniform } from "./chain_maths.js";
import { normals } from "./running_maths.js";

export const BATCHES = 200;
export const LARGEST = 512;

// What is drawn has mean 0 and variance 1; skewness and excess kurtosis are these.
export const SHAPES = { normal: [0, 0], uniform: [0, -1.2], exponential: [2, 6] };

// The neighbours: for each batch as many as the largest needs. A smaller batch keeps the first.
export function neighbours(distribution, seed) {
  const n = BATCHES * (LARGEST - 1);
  if (distribution === "normal") return normals(seed, n);
  const u = uniform(seed, n);
  return distribution === "uniform" ? u.map((v) => Math.sqrt(12) * (v - 0.5)) : u.map((v) => -Math.log(1 - v) - 1);
}

// The example's normalised value in each batch of m: itself and its first m - 1 neighbours.
export function normalized(others, example, m) {
  return Array.from({ length: BATCHES }, (_, b) => {
    const from = b * (LARGEST - 1), to = from + m - 1;
    let sum = example, squares = 0;
    for (let i = from; i < to; i++) sum += others[i];
    const mean = sum / m;
    for (let i = from; i < to; i++) squares += (others[i] - mean) ** 2;
    squares += (example - mean) ** 2;
    return (example - mean) / Math.sqrt(squares / m);
  });
}

// The predicted variance, to leading order in 1/m.
export function predicted(distribution, example, m) {
  const [skewness, kurtosis] = SHAPES[distribution];
  return (1 + skewness * example + ((kurtosis + 2) / 4) * example ** 2) / m;
}

export function moments(values) {
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  return [mean, Math.sqrt(values.reduce((a, v) => a + (v - mean) ** 2, 0) / values.length)];
}

// An axis that holds all sizes but the smallest, and the network without.
export function reach({ accuracy, without }) {
  const shown = [...accuracy.slice(1), without];
  const low = Math.min(...shown.map((v) => v[1])), high = Math.max(...shown.map((v) => v[2]));
  const room = 0.06 * (high - low);
  return [low - room, high + room];
}
