// The numbers of ratemap.py's last section, the same in both languages.

// How full a cell is: 0.04 at guessing's accuracy of a tenth and below, about 1 at 100 %.
export const shade = (accuracy) => Math.min(1, Math.max(0.04, (accuracy - 0.1) / 0.9) ** 1.5 + 0.04);

// From how many initial scales the network learns at one rate, of accuracy[scale][rate].
export const learn = (accuracy, rate, threshold) => accuracy.filter((row) => row[rate] >= threshold).length;

// The cell at a point, the nearest one outside: [column, row from below]. box: [left, right, top, bottom].
export function cell(x, y, [left, right, top, bottom], columns, rows) {
  const column = Math.floor(((x - left) / (right - left)) * columns), row = Math.floor(((bottom - y) / (bottom - top)) * rows);
  return [Math.min(columns - 1, Math.max(0, column)), Math.min(rows - 1, Math.max(0, row))];
}
