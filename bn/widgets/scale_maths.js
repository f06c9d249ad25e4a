// A small network trained twice, with and without batch norm, as bn.layers trains it. Pure functions.
import { uniform } from "./chain_maths.js";

export const EXAMPLES = 40, WIDTH = 8, DEPTH = 4, STEPS = 60, MOMENTUM = 0.9;
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

// A layer has forward(x), backward(g) and pairs [parameter, gradient].
function linear(weight, nIn, nOut) {
  const bias = new Float64Array(nOut), dw = new Float64Array(weight.length), db = new Float64Array(nOut);
  let kept;
  return {
    pairs: [[weight, dw], [bias, db]],
    forward(x) {
      kept = x;
      const y = new Float64Array(EXAMPLES * nOut);
      for (let i = 0; i < EXAMPLES; i++) for (let o = 0; o < nOut; o++) {
        let sum = 0;
        for (let k = 0; k < nIn; k++) sum += x[i * nIn + k] * weight[o * nIn + k];
        y[i * nOut + o] = sum + bias[o];
      }
      return y;
    },
    backward(g) {
      const dx = new Float64Array(EXAMPLES * nIn);
      dw.fill(0); db.fill(0);
      for (let i = 0; i < EXAMPLES; i++) for (let o = 0; o < nOut; o++) {
        const v = g[i * nOut + o];
        db[o] += v;
        for (let k = 0; k < nIn; k++) {
          dw[o * nIn + k] += v * kept[i * nIn + k];
          dx[i * nIn + k] += v * weight[o * nIn + k];
        }
      }
      return dx;
    },
  };
}

function norm(n, eps) {
  const gamma = new Float64Array(n).fill(1), beta = new Float64Array(n), dgamma = new Float64Array(n), dbeta = new Float64Array(n);
  const xHat = new Float64Array(EXAMPLES * n), sigma = new Float64Array(n);
  return {
    pairs: [[gamma, dgamma], [beta, dbeta]],
    forward(x) {
      const y = new Float64Array(x.length);
      for (let c = 0; c < n; c++) {
        let mean = 0, variance = 0;
        for (let j = c; j < x.length; j += n) mean += x[j] / EXAMPLES;
        for (let j = c; j < x.length; j += n) variance += (x[j] - mean) ** 2 / EXAMPLES;
        sigma[c] = Math.sqrt(variance + eps);
        for (let j = c; j < x.length; j += n) {
          xHat[j] = (x[j] - mean) / sigma[c];
          y[j] = gamma[c] * xHat[j] + beta[c];
        }
      }
      return y;
    },
    backward(g) {
      const dx = new Float64Array(g.length);
      for (let c = 0; c < n; c++) {
        dgamma[c] = dbeta[c] = 0;
        for (let j = c; j < g.length; j += n) { dbeta[c] += g[j]; dgamma[c] += g[j] * xHat[j]; }
        for (let j = c; j < g.length; j += n) {
          dx[j] = (gamma[c] / sigma[c]) * (g[j] - dbeta[c] / EXAMPLES - xHat[j] * (dgamma[c] / EXAMPLES));
        }
      }
      return dx;
    },
  };
}

function relu() {
  let positive;
  return {
    pairs: [],
    forward(x) { positive = x.map((v) => (v > 0 ? 1 : 0)); return x.map((v) => (v > 0 || v !== v ? v : 0)); },
    backward: (g) => g.map((v, j) => (positive[j] ? v : 0)),
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
    if (hidden) layers.push(relu());
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
