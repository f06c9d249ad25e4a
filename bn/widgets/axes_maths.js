// Which values of an (N, C, H, W) array share their statistics, and which share γ and β.
// Pure functions. Shapes and indices are [n, c, h, w]; sets are flat indices in C order.

export const NORMS = ["batch", "layer", "instance", "group"];

export const divisors = (n) => Array.from({ length: n }, (_, i) => i + 1).filter((d) => n % d === 0);

// The ranges [from, to) of n, c, h and w over which the mean at `at` is taken.
function box(shape, norm, groups, at) {
  const [N, C, H, W] = shape, [n, c] = at, size = C / groups, first = Math.floor(c / size) * size;
  const examples = norm === "batch" ? [0, N] : [n, n + 1];
  const channels = { batch: [c, c + 1], instance: [c, c + 1], layer: [0, C], group: [first, first + size] }[norm];
  return [examples, channels, [0, H], [0, W]];
}

// Layer norm has a γ and a β for each place of an image, as in torch; the others one for each channel.
function shared(shape, norm, at) {
  const [N, , H, W] = shape, [, c, h, w] = at, one = (i) => [i, i + 1];
  return norm === "layer" ? [[0, N], one(c), one(h), one(w)] : [[0, N], one(c), [0, H], [0, W]];
}

function flat(shape, [ns, cs, hs, ws]) {
  const [, C, H, W] = shape, out = [];
  for (let n = ns[0]; n < ns[1]; n++)
    for (let c = cs[0]; c < cs[1]; c++)
      for (let h = hs[0]; h < hs[1]; h++)
        for (let w = ws[0]; w < ws[1]; w++) out.push(((n * C + c) * H + h) * W + w);
  return out;
}

// m values share a mean with the one at `at`; there are `statistics` means, and as many variances,
// and `parameters` γ, and as many β.
export function sharing(shape, norm, groups, at) {
  const [N, C, H, W] = shape, statistics = flat(shape, box(shape, norm, groups, at));
  const parameters = { batch: C, instance: C, group: C, layer: C * H * W }[norm];
  return { m: statistics.length, means: (N * C * H * W) / statistics.length, gammas: parameters,
    statistics, parameters: flat(shape, shared(shape, norm, at)) };
}

// One step with an arrow key on the sheet of tiles: images downwards, channels to the right. A step
// off a tile leads to the next one; at the edge of the sheet it stays.
export function step(shape, at, key, tile = false) {
  const [N, C, H, W] = shape, [n, c, h, w] = at;
  const [dy, dx] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[key];
  const clip = (v, top) => Math.min(top - 1, Math.max(0, v));
  const y = clip(n * H + h + dy * (tile ? H : 1), N * H), x = clip(c * W + w + dx * (tile ? W : 1), C * W);
  return [Math.floor(y / H), Math.floor(x / W), y % H, x % W];
}

// After a change of shape: the next number of groups that divides C, the nearest value that is there.
export function fit(shape, groups, at) {
  return { groups: divisors(shape[1]).filter((d) => d <= groups).at(-1), at: at.map((i, k) => Math.min(i, shape[k] - 1)) };
}
