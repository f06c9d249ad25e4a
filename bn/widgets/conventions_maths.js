// What the table of conventions computes: no page, no model, so that a test can run it alone.

// The facts of bn.conventions that the figure needs; a test holds the two together.
export const CONVENTIONS = {
  pytorch: { title: "PyTorch", momentum: "momentum", weighsNew: true, eps: "eps", unbiased: true, defaults: [0.1, 1e-5] },
  keras: { title: "Keras", momentum: "momentum", weighsNew: false, eps: "epsilon", unbiased: false, defaults: [0.99, 1e-3] },
  flax: { title: "Flax", momentum: "momentum", weighsNew: false, eps: "epsilon", unbiased: false, defaults: [0.99, 1e-5] },
  onnx: { title: "ONNX", momentum: "momentum", weighsNew: false, eps: "epsilon", unbiased: false, defaults: [0.9, 1e-5] },
  cudnn: { title: "cuDNN", momentum: "exponentialAverageFactor", weighsNew: true, eps: "epsilon", unbiased: true, defaults: null },
};

export const conventions = () => CONVENTIONS;

// The momentum of `to` that averages as `momentum` does in `source`.
export function convertMomentum(momentum, source, to) {
  return CONVENTIONS[source].weighsNew === CONVENTIONS[to].weighsNew ? momentum
    : Number((1 - momentum).toFixed(15));
}

// What one framework divides by m − 1 and the other by m.
export function batchVariance(name, variance, m) {
  return CONVENTIONS[name].unbiased ? (variance * m) / (m - 1) : variance;
}

// Running variance of a framework from 1 on, after 0, 1, …, all batches of biased variances.
export function running(name, momentum, variances, m) {
  const weight = CONVENTIONS[name].weighsNew ? momentum : 1 - momentum, out = [1];
  for (const v of variances) out.push((1 - weight) * out.at(-1) + weight * batchVariance(name, v, m));
  return out;
}

// Biased variances of batches of m normal values with variance `population`, from standard normal
// draws: a χ² with m − 1 degrees of freedom after Wilson and Hilferty.
export function batches(noise, population, m) {
  const k = m - 1, a = 2 / (9 * k);
  return noise.map((z) => (population * Math.max(0, 1 - a + z * Math.sqrt(a)) ** 3 * k) / m);
}
