// What the shift figure computes: no page, no model, so that a test can run it alone.

const spread = ([low, , high]) => high - low;

// How far the median of rows [p15, p50, p85] travels, in units of the spread of the last row.
export function travel(rows) {
  let way = 0;
  for (let i = 1; i < rows.length; i++) way += Math.abs(rows[i][1] - rows[i - 1][1]);
  return way / spread(rows.at(-1));
}

// By how many doublings and halvings the spread of the rows changes in all.
export function stretch(rows) {
  let sum = 0;
  for (let i = 1; i < rows.length; i++) sum += Math.abs(Math.log2(spread(rows[i]) / spread(rows[i - 1])));
  return sum;
}

// One axis for both networks and all steps: the ends of all the histograms of one distribution.
export function reach(part) {
  const ends = ["without", "with"].flatMap((arm) => part[arm].edges);
  return [Math.min(...ends.map((e) => e[0])), Math.max(...ends.map((e) => e[1]))];
}
