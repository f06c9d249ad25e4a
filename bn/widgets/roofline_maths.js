// What a machine allows a way to write batch norm, as bn.widgets.roofline computes it. Pure functions.

// Forward and backward, for each value: operations; times that the batch is fetched and stored when
// it does not fit into the cache; arrays of its size in use at a time.
export const WAYS = {
  textbook: { operations: 15, fetched: 17, stored: 11, alive: 6 },
  "in place": { operations: 14, fetched: 16, stored: 10, alive: 4 },
  "in blocks": { operations: 14, fetched: 6, stored: 2, alive: 4 },
};

// values in the batch; itemsize and cache in bytes; bandwidth and peak in bytes and operations a second.
export function point(way, values, itemsize, cache, bandwidth, peak) {
  const { operations, fetched, stored, alive } = WAYS[way];
  const fits = alive * values * itemsize <= cache, walks = fits ? 4 : fetched + stored;
  const moving = (walks * itemsize * values) / bandwidth, computing = (operations * values) / peak;
  const seconds = Math.max(moving, computing);
  return { walks, fits, intensity: operations / (walks * itemsize), seconds,
    rate: (operations * values) / seconds, byMemory: moving >= computing };
}
