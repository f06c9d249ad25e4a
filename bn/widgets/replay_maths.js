// What the replay computes: no page, no model, so that a test can run it alone.

// Mean, smallest and largest over seeds, epoch by epoch, of seeds[seed][epoch].
export function band(seeds) {
  const columns = seeds[0].map((_, e) => seeds.map((run) => run[e]));
  return {
    mean: columns.map((c) => c.reduce((a, b) => a + b, 0) / c.length),
    low: columns.map((c) => Math.min(...c)),
    high: columns.map((c) => Math.max(...c)),
  };
}

// Heights of a histogram of equal bins over [low, high], with area one.
export function density(counts, [low, high]) {
  const total = Math.max(1, counts.reduce((a, b) => a + b, 0));
  return counts.map((c) => c / ((total * (high - low)) / counts.length));
}

// One axis for a layer, so that epochs and arms compare: the ends of all its histograms.
export function reach(layer) {
  const ends = ["without", "with"].flatMap((arm) => layer[arm].edges);
  return [Math.min(...ends.map((e) => e[0])), Math.max(...ends.map((e) => e[1]))];
}
