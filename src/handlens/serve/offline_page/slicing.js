// How a picture is divided into slices and an overview. Sizes in, sizes out; the same decisions as core/slicing.py.

// Halves go to the even neighbour, as Python rounds.
export function roundHalfEven(value) {
  const below = Math.floor(value);
  const rest = value - below;
  if (rest !== 0.5) return rest < 0.5 ? below : below + 1;
  return below % 2 === 0 ? below : below + 1;
}

export function roundToMultiple(length, multiple) {
  return Math.max(roundHalfEven(length / multiple) * multiple, multiple);
}

export function fitArea(width, height, { side_px, patch_px, enlarge }) {
  if (width * height > side_px * side_px || enlarge) {
    const ratio = width / height;
    height = Math.trunc(side_px / Math.sqrt(ratio));
    width = Math.trunc(height * ratio);
  }
  return [roundToMultiple(width, patch_px), roundToMultiple(height, patch_px)];
}

// `logs` holds what Python's log gives for every ratio of a grid: two grids can be equally near, and then the last bit
// of a logarithm decides. Browsers round that bit in their own way.
export function chooseGrid(width, height, { side_px, max_slices, logs }) {
  const wanted = Math.min(Math.ceil((width * height) / (side_px * side_px)), max_slices);
  if (wanted <= 1) return null;
  const log = (ratio) => logs[String(ratio)] ?? Math.log(ratio);
  const shape = log(width / height);
  let best = null;
  let least = Infinity;
  for (const count of [wanted - 1, wanted, wanted + 1]) {
    if (count <= 1 || count > max_slices) continue;
    for (let columns = 1; columns <= count; columns += 1) {
      if (count % columns) continue;
      const rows = count / columns;
      const stretch = Math.abs(shape - log(columns / rows));
      if (stretch < least) [best, least] = [{ columns, rows }, stretch];
    }
  }
  return best;
}

// Sizes are [width, height]. `refined` is the size of the enlarged picture from which the cells are cut.
export function planSlices(width, height, rules) {
  const { side_px, patch_px } = rules;
  const grid = chooseGrid(width, height, rules);
  const overview = fitArea(width, height, { side_px, patch_px, enlarge: grid === null });
  const plan = { width, height, grid, overview, refined: null, cell: null, num_slices: 1, patch_px };
  if (grid) {
    const { columns, rows } = grid;
    plan.cell = fitArea(roundToMultiple(width, columns) / columns, roundToMultiple(height, rows) / rows, {
      side_px,
      patch_px,
      enlarge: true,
    });
    plan.refined = [plan.cell[0] * columns, plan.cell[1] * rows];
    plan.num_slices = 1 + columns * rows;
  }
  const finest = plan.refined ?? overview;
  plan.resize_factor = Math.sqrt((finest[0] * finest[1]) / (width * height));
  return plan;
}
