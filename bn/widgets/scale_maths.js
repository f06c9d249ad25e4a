// A small network trained twice, with and without batch norm, as bn.layers trains it. Pure functions.
import { uniform } from "./chain_maths.js";

export const DEPTH = 4;
export const STEPS = 60;
const EXAMPLES = 40, WIDTH = 8, MOMENTUM = 0.9;
const SIZES = [2, ...new Array(DEPTH).fill(WIDTH), 2];

// Points in a square, which class (the product's sign), and the weights at scale 1.
export function problem(seed) {
  const count = 2 * EXAMPLES + SIZES.slice(1).reduce((sum, n, i) => sum + n * SIZES[i], 0);
  const u = uniform(seed, count).map((v) => 2 * v - 1), x = Float64Array.from(u.slice(0, 2 * EXAMPLES));
  const labels = Array.from({ length: EXAMPLES }, (_, i) => (x[2 * i] * x[2 * i + 1] > 0 ? 1 : 0));
  let at = 2 * EXAMPLES;
  const weights = SIZES.slice(1).map((n, i) => {
    const size = Math.sqrt(6 / SIZES[i]); // even in ±size: standard deviation √(2/n_in)
    return Float64Array.from(u.slice(at, (at += n * SIZES[i])), (v) => v * size);
  });
  return { x, labels, weights };
}

// A layer has forward(x), backward(g), which may return one array again and again, and pairs
// [parameter, gradient]. Plain loops over flat arrays: all steps must fit in a frame.
function linear(weight, fanIn, fanOut) {
  const bias = new Float64Array(fanOut), dw = new Float64Array(weight.length), db = new Float64Array(fanOut);
  const y = new Float64Array(EXAMPLES * fanOut), dx = new Float64Array(EXAMPLES * fanIn);
  let kept;
  return {
    pairs: [[weight, dw], [bias, db]],
    forward(x) {
      kept = x;
      for (let i = 0, j = 0; i < EXAMPLES; i++) for (let o = 0, w = 0; o < fanOut; o++, j++) {
        let sum = 0;
        for (let k = i * fanIn, end = k + fanIn; k < end; k++, w++) sum += x[k] * weight[w];
        y[j] = sum + bias[o];
      }
      return y;
    },
    backward(g) {
      dw.fill(0); db.fill(0); dx.fill(0);
      for (let i = 0, j = 0; i < EXAMPLES; i++) for (let o = 0, w = 0; o < fanOut; o++, j++) {
        const v = g[j];
        if (v === 0) { w += fanIn; continue; } // behind a ReLU that is off
        db[o] += v;
        for (let k = i * fanIn, end = k + fanIn; k < end; k++, w++) {
          dw[w] += v * kept[k];
          dx[k] += v * weight[w];
        }
      }
      return dx;
    },
  };
}

function norm(n, eps) {
  const gamma = new Float64Array(n).fill(1), beta = new Float64Array(n), dgamma = new Float64Array(n), dbeta = new Float64Array(n);
  const size = EXAMPLES * n, xHat = new Float64Array(size), y = new Float64Array(size), dx = new Float64Array(size), sigma = new Float64Array(n);
  return {
    pairs: [[gamma, dgamma], [beta, dbeta]],
    forward(x) {
      for (let c = 0; c < n; c++) {
        let mean = 0, variance = 0;
        for (let j = c; j < size; j += n) mean += x[j];
        mean /= EXAMPLES;
        for (let j = c; j < size; j += n) variance += (x[j] - mean) * (x[j] - mean);
        sigma[c] = Math.sqrt(variance / EXAMPLES + eps);
        for (let j = c; j < size; j += n) {
          xHat[j] = (x[j] - mean) / sigma[c];
          y[j] = gamma[c] * xHat[j] + beta[c];
        }
      }
      return y;
    },
    backward(g) {
      for (let c = 0; c < n; c++) {
        let sum = 0, along = 0;
        for (let j = c; j < size; j += n) { sum += g[j]; along += g[j] * xHat[j]; }
        dbeta[c] = sum; dgamma[c] = along;
        const factor = gamma[c] / sigma[c], a = sum / EXAMPLES, b = along / EXAMPLES;
        for (let j = c; j < size; j += n) dx[j] = factor * (g[j] - a - xHat[j] * b);
      }
      return dx;
    },
  };
}

function relu(n) {
  const y = new Float64Array(EXAMPLES * n), dx = new Float64Array(EXAMPLES * n);
  return {
    pairs: [],
    forward(x) {
      for (let j = 0; j < y.length; j++) y[j] = x[j] <= 0 ? 0 : x[j]; // NaN stays
      return y;
    },
    backward(g) {
      for (let j = 0; j < y.length; j++) dx[j] = y[j] > 0 ? g[j] : 0;
      return dx;
    },
  };
}

// Mean loss over the examples and its gradient.
function crossEntropy(z, labels) {
  const g = new Float64Array(z.length);
  let loss = 0;
  labels.forEach((label, i) => {
    const top = Math.max(z[2 * i], z[2 * i + 1]);
    const a = z[2 * i] - top, b = z[2 * i + 1] - top, log = Math.log(Math.exp(a) + Math.exp(b));
    [a - log, b - log].forEach((v, k) => {
      if (k === label) loss -= v / EXAMPLES;
      g[2 * i + k] = (Math.exp(v) - (k === label)) / EXAMPLES;
    });
  });
  return { loss, g };
}

const deviation = (values) => {
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  return Math.sqrt(values.reduce((a, v) => a + (v - mean) ** 2, 0) / values.length);
};

// The losses before each of STEPS steps and after the last; the spread that enters each ReLU at the start.
export function train({ seed, scale, eta, eps, matched }, batchNorm) {
  const { x, labels, weights } = problem(seed), layers = [], steps = [];
  const use = (layer, rate) => {
    layers.push(layer);
    for (const [p, gradient] of layer.pairs) steps.push({ p, gradient, rate, v: new Float64Array(p.length) });
  };
  weights.forEach((w, i) => {
    const hidden = i < DEPTH;
    use(linear(hidden ? w.map((v) => v * scale) : w, SIZES[i], SIZES[i + 1]), hidden && matched ? eta * scale ** 2 : eta);
    if (hidden && batchNorm) use(norm(WIDTH, eps), eta);
    if (hidden) layers.push(relu(WIDTH));
  });
  const losses = [], spreads = [];
  for (let t = 0; t <= STEPS; t++) {
    let h = x;
    for (const layer of layers) {
      if (t === 0 && layer.pairs.length === 0) spreads.push(deviation(h));
      h = layer.forward(h);
    }
    const { loss, g } = crossEntropy(h, labels);
    losses.push(loss);
    if (t === STEPS) break;
    layers.reduceRight((back, layer) => layer.backward(back), g);
    for (const { p, gradient, rate, v } of steps) for (let j = 0; j < p.length; j++) {
      v[j] = MOMENTUM * v[j] + gradient[j];
      p[j] -= rate * v[j];
    }
  }
  return { losses, spreads };
}
