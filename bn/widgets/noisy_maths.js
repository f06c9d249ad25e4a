// What the figure of noisy batch norm computes: no page, no model, so that a test can run it alone.

// The mean over seeds of the last `windows` of each curve, curves[seed][window].
export function finalLoss(curves, windows) {
  const ends = curves.map((curve) => curve.slice(-windows).reduce((a, b) => a + b, 0) / windows);
  return ends.reduce((a, b) => a + b, 0) / ends.length;
}

// Ends of a vertical axis for each trace[step][quantile]: the trace's own, or one for all of them.
export function reach(traces, common) {
  const ends = traces.map((trace) => [
    Math.min(...trace.map((q) => q[0])), Math.max(...trace.map((q) => q.at(-1))),
  ]);
  if (!common) return ends;
  const all = [Math.min(...ends.map((e) => e[0])), Math.max(...ends.map((e) => e[1]))];
  return ends.map(() => all);
}
