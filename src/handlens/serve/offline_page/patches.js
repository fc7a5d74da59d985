// Slices become normalised patches, position ids and key positions; the numbers of core/patches.py.

const { fround } = Math;
const SCALED = Float32Array.from({ length: 256 }, (_, byte) => fround(fround(fround(byte / 255) - 0.5) / 0.5));

// Row-major patches, each flattened as (channel, row, column).
export function toPatches({ width, height, data }, side) {
  const columns = Math.floor(width / side);
  const rows = Math.floor(height / side);
  const area = side * side;
  const out = new Float32Array(rows * columns * 3 * area);
  for (let row = 0, to = 0; row < rows; row += 1) {
    for (let column = 0; column < columns; column += 1, to += 3 * area) {
      for (let y = 0; y < side; y += 1) {
        let from = ((row * side + y) * width + column * side) * 3;
        for (let x = 0; x < side; x += 1, from += 3) {
          const place = to + y * side + x;
          out[place] = SCALED[data[from]];
          out[place + area] = SCALED[data[from + 1]];
          out[place + 2 * area] = SCALED[data[from + 2]];
        }
      }
    }
  }
  return { rows, columns, values: out };
}

// The released bucket rule, in the order in which its float32 numbers are rounded.
export function axisBuckets(count, tableSide, rule) {
  if (rule === "floor") return Array.from({ length: count }, (_, index) => Math.floor((index * tableSide) / count));
  if (rule !== "bucketised") throw new Error(`This page knows no position rule '${rule}'.`);
  const boundaries = Array.from({ length: tableSide - 1 }, (_, index) => fround((index + 1) / tableSide));
  const step = fround(1 / fround(count));
  return Array.from({ length: count }, (_, index) => {
    const lane = index % 8;
    const place = fround(fround((index - lane) * step) + lane * step);
    let bucket = 0;
    while (bucket < boundaries.length && boundaries[bucket] <= place) bucket += 1;
    return bucket;
  });
}

export function positionIds(rows, columns, { table_side, rule }) {
  const down = axisBuckets(rows, table_side, rule);
  const across = axisBuckets(columns, table_side, rule);
  const out = new BigInt64Array(rows * columns);
  for (let place = 0; place < out.length; place += 1) {
    out[place] = BigInt(down[Math.floor(place / columns)] * table_side + across[place % columns]);
  }
  return out;
}

// The 2-D sin-cos code of integer patch places: sin x, cos x, sin y, cos y, a quarter each.
export function keyPositions(rows, columns, dim) {
  const quarter = dim / 4;
  const rates = Float32Array.from({ length: quarter }, (_, index) => 1 / fround(10000 ** fround(index / quarter)));
  const out = new Float32Array(rows * columns * dim);
  for (let place = 0; place < rows * columns; place += 1) {
    const coordinates = [place % columns, Math.floor(place / columns)];
    coordinates.forEach((coordinate, axis) => {
      const to = place * dim + axis * 2 * quarter;
      for (let index = 0; index < quarter; index += 1) {
        const angle = fround(coordinate * rates[index]);
        out[to + index] = Math.sin(angle);
        out[to + quarter + index] = Math.cos(angle);
      }
    });
  }
  return out;
}
