// What the table of predictions computes: no page, no model, so that a test can run it alone.

const GREYS = "0123456789abcdefg"; // one character a pixel: 0 is paper, g (sixteen) is full ink

// The ink of one image, row by row, each between 0 and 1.
export function ink(images, index, side) {
  const area = side * side;
  return [...images.slice(index * area, (index + 1) * area)].map((c) => GREYS.indexOf(c) / 16);
}

// Which images the filters keep, in the order of the table. `other`: the second net, or null.
export function choose(labels, said, other, { truth, predicted, outcome, order }) {
  const right = (net, i) => net.predicted[i] === labels[i];
  const fits = {
    all: () => true,
    right: (i) => right(said, i),
    wrong: (i) => !right(said, i),
    only: (i) => !right(said, i) && other !== null && right(other, i),
  }[outcome];
  const sign = order === "rising" ? 1 : -1;
  return labels.map((_, i) => i)
    .filter((i) => (truth < 0 || labels[i] === truth) && (predicted < 0 || said.predicted[i] === predicted) && fits(i))
    .sort((i, j) => sign * (said.confidence[i] - said.confidence[j]) || i - j);
}

// How many images of each class (row) the net gave each class (column).
export function confusion(labels, predicted, classes) {
  const table = Array.from({ length: classes }, () => new Array(classes).fill(0));
  labels.forEach((label, i) => { table[label][predicted[i]] += 1; });
  return table;
}
