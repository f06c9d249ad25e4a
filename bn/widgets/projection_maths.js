// What the gradient of batch norm keeps of a push g on a batch of three. Pure functions.
import { batchNorm, moments } from "./batch_maths.js";

// g = along 1 + along x̂ + left, as bn.batch_norm_backward subtracts them; gamma is 1.
export function decompose(x, g, eps) {
  const { variance, sigma, xHat } = batchNorm(x, 1, 0, eps);
  const meanG = moments(g).mean, meanGX = moments(g.map((v, i) => v * xHat[i])).mean;
  const alongOne = g.map(() => meanG), alongXHat = xHat.map((v) => v * meanGX);
  const left = g.map((v, i) => v - alongOne[i] - alongXHat[i]);
  return { sigma, xHat, alongOne, alongXHat, left, dx: left.map((v) => v / sigma), leak: eps / (variance + eps) };
}

export const norm = (v) => Math.hypot(...v);

// The direction at right angles to (1, 1, 1) and to v.
export const across = ([a, b, c]) => [c - b, a - c, b - a];

// A point of three dimensions on paper: right, up, towards the eye. The direction (1, 1, 1) stands
// upright at tilt 0 and points at the eye at tilt 90 degrees.
export function look([a, b, c], turn, tilt) {
  const t = (turn * Math.PI) / 180, e = (tilt * Math.PI) / 180;
  const X = (a - b) / Math.sqrt(2), Y = (a + b - 2 * c) / Math.sqrt(6), Z = (a + b + c) / Math.sqrt(3);
  const right = X * Math.cos(t) - Y * Math.sin(t), deep = X * Math.sin(t) + Y * Math.cos(t);
  return [right, Z * Math.cos(e) + deep * Math.sin(e), Z * Math.sin(e) - deep * Math.cos(e)];
}

// A circle around (1, 1, 1), in the plane of the batches with mean 0.
export function circle(radius, n = 72) {
  return Array.from({ length: n }, (_, i) => {
    const t = (2 * Math.PI * i) / n, p = (radius * Math.cos(t)) / Math.sqrt(2), q = (radius * Math.sin(t)) / Math.sqrt(6);
    return [p + q, q - p, -2 * q];
  });
}
