// What the replay computes: no page, no model, so that a test can run it alone.

/** Mean, smallest and largest value over seeds, epoch by epoch. `seeds[s][e]` is one run's value. */
export function band(seeds) {
  return seeds[0].map((_, e) => {
    const values = seeds.map((run) => run[e]);
    return {
      mean: values.reduce((a, b) => a + b, 0) / values.length,
      low: Math.min(...values),
      high: Math.max(...values),
    };
  });
}

/** Bars of a histogram with area one: `[{ left, right, height }]` for equal bins over `edges`. */
export function density(counts, [low, high]) {
  const width = (high - low) / counts.length;
  const total = counts.reduce((a, b) => a + b, 0) || 1;
  return counts.map((count, i) => ({
    left: low + i * width,
    right: low + (i + 1) * width,
    height: count / (total * width),
  }));
}
