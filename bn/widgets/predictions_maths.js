// What the table of predictions computes: no page, no model, so that a test can run it alone.

const GREYS = "0123456789abcdefg"; // one character a pixel: 0 is paper, g (sixteen) is full ink

/** The ink of image `index`, row by row, each between 0 and 1. */
export function pixels(images, index, size) {
  const area = size * size;
  return [...images.slice(index * area, (index + 1) * area)].map((c) => GREYS.indexOf(c) / 16);
}

/** Which images a filter keeps, in the order in which the table shows them. */
export function choose(labels, net, { truth, predicted, outcome, order }, other = null) {
  const kept = labels.map((_, i) => i).filter((i) => {
    const right = net.predicted[i] === labels[i];
    return (
      (truth < 0 || labels[i] === truth) &&
      (predicted < 0 || net.predicted[i] === predicted) &&
      (outcome === "all" ||
        (outcome === "right" && right) ||
        (outcome === "wrong" && !right) ||
        (outcome === "only" && !right && other !== null && other.predicted[i] === labels[i]))
    );
  });
  const sign = order === "rising" ? 1 : -1;
  return kept.sort((i, j) => sign * (net.confidence[i] - net.confidence[j]) || i - j);
}

/** How many images of each true class (row) were given each predicted class (column). */
export function confusion(labels, predicted, classes) {
  const table = Array.from({ length: classes }, () => new Array(classes).fill(0));
  labels.forEach((label, i) => (table[label][predicted[i]] += 1));
  return table;
}
