// Pixels: make a picture smaller or larger, cut it, and scale it to [-1, 1]. A picture is {width, height, data} with three
// bytes per pixel. Resizing is Pillow's bicubic filter with its fixed-point arithmetic: every byte is equal.

const PRECISION_BITS = 22;

// Cubic convolution with a = -0.5.
function bicubic(x) {
  const a = -0.5;
  x = Math.abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

// For every output place: where its inputs begin, how many there are, and their weights as integers.
function weightsOf(from, to) {
  const scale = from / to;
  const widen = Math.max(scale, 1);
  const support = 2 * widen;
  const most = Math.ceil(support) * 2 + 1;
  const begins = new Int32Array(to);
  const counts = new Int32Array(to);
  const weights = new Int32Array(to * most);
  const row = new Float64Array(most);
  for (let place = 0; place < to; place += 1) {
    const centre = (place + 0.5) * scale;
    const begin = Math.max(Math.trunc(centre - support + 0.5), 0);
    const count = Math.min(Math.trunc(centre + support + 0.5), from) - begin;
    let sum = 0;
    for (let tap = 0; tap < count; tap += 1) {
      row[tap] = bicubic((tap + begin - centre + 0.5) * (1 / widen));
      sum += row[tap];
    }
    for (let tap = 0; tap < count; tap += 1) {
      const share = sum === 0 ? row[tap] : row[tap] / sum;
      weights[place * most + tap] = Math.trunc((share < 0 ? -0.5 : 0.5) + share * (1 << PRECISION_BITS));
    }
    begins[place] = begin;
    counts[place] = count;
  }
  return { begins, counts, weights, most };
}

const HALF = 1 << (PRECISION_BITS - 1);
const toByte = (sum) => {
  const value = sum >> PRECISION_BITS;
  return value < 0 ? 0 : value > 255 ? 255 : value;
};

function resizeAcross({ width, height, data }, to) {
  const { begins, counts, weights, most } = weightsOf(width, to);
  const out = new Uint8Array(to * height * 3);
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < to; x += 1) {
      let from = (y * width + begins[x]) * 3;
      let red = HALF;
      let green = HALF;
      let blue = HALF;
      for (let tap = x * most, end = tap + counts[x]; tap < end; tap += 1, from += 3) {
        const weight = weights[tap];
        red += data[from] * weight;
        green += data[from + 1] * weight;
        blue += data[from + 2] * weight;
      }
      const place = (y * to + x) * 3;
      out[place] = toByte(red);
      out[place + 1] = toByte(green);
      out[place + 2] = toByte(blue);
    }
  }
  return { width: to, height, data: out };
}

function resizeDown({ width, height, data }, to) {
  const { begins, counts, weights, most } = weightsOf(height, to);
  const stride = width * 3;
  const out = new Uint8Array(stride * to);
  const sums = new Int32Array(stride);
  for (let y = 0; y < to; y += 1) {
    sums.fill(HALF);
    for (let tap = 0; tap < counts[y]; tap += 1) {
      const weight = weights[y * most + tap];
      const from = (begins[y] + tap) * stride;
      for (let x = 0; x < stride; x += 1) sums[x] += data[from + x] * weight;
    }
    for (let x = 0; x < stride; x += 1) out[y * stride + x] = toByte(sums[x]);
  }
  return { width, height: to, data: out };
}

// Each direction rounds to bytes, so their order shows. Pillow from 13.0 on goes down first where that saves more rows
// than twice the columns it costs; before, it always went across first.
export function resize(picture, [width, height]) {
  const across = (made) => (made.width === width ? made : resizeAcross(made, width));
  const down = (made) => (made.height === height ? made : resizeDown(made, height));
  const isDownFirst = height < picture.height && 2 * (picture.width - width) < picture.height - height;
  return isDownFirst ? across(down(picture)) : down(across(picture));
}

export function crop({ width, data }, left, top, columns, rows) {
  const out = new Uint8Array(columns * rows * 3);
  for (let y = 0; y < rows; y += 1) {
    const from = ((top + y) * width + left) * 3;
    out.set(data.subarray(from, from + columns * 3), y * columns * 3);
  }
  return { width: columns, height: rows, data: out };
}

// The overview, then the slices row by row.
export function cut(picture, plan) {
  const pictures = [resize(picture, plan.overview)];
  if (!plan.grid) return pictures;
  const refined = resize(picture, plan.refined);
  const [width, height] = plan.cell;
  for (let row = 0; row < plan.grid.rows; row += 1) {
    for (let column = 0; column < plan.grid.columns; column += 1) {
      pictures.push(crop(refined, column * width, row * height, width, height));
    }
  }
  return pictures;
}

// Bytes of a canvas, four per pixel, on white paper as Pillow lays them.
export function dropAlpha(width, height, rgba) {
  const data = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; to < data.length; from += 4, to += 3) {
    const alpha = rgba[from + 3];
    for (let channel = 0; channel < 3; channel += 1) {
      const value = rgba[from + channel];
      data[to + channel] = alpha === 255 ? value : Math.round((value * alpha + 255 * (255 - alpha)) / 255);
    }
  }
  return { width, height, data };
}
