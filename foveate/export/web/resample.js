// An image -> the square that the network reads, to the bit as Pillow makes it: the same weights,
// rounded to 22 bits, and the same rounding after each of the two passes.
// An image here is { width, height, channels, data }, data row by row, a byte a channel: 1 of grey,
// 3 of RGB, and 4 of RGB with a byte that says nothing.

const PRECISION = 22;
const KERNELS = {
  bilinear: { support: 1, weight: (x) => (Math.abs(x) < 1 ? 1 - Math.abs(x) : 0) },
  bicubic: {
    support: 2,
    weight: (x) => {
      const a = -0.5;
      const d = Math.abs(x);
      if (d < 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
      return d < 2 ? (((d - 5) * d + 8) * d - 4) * a : 0;
    },
  },
};

// What of a line of `size` pixels each of `wanted` pixels is made of, which are the part from
// `from` to `to`: where it starts, how many there are, and their weights, `most` a pixel.
function shares(size, from, to, wanted, kernel) {
  const scale = Math.fround(to - from) / wanted;
  const stretch = Math.max(scale, 1);
  const support = kernel.support * stretch;
  const most = Math.ceil(support) * 2 + 1;
  const starts = new Int32Array(wanted);
  const counts = new Int32Array(wanted);
  const weights = new Int32Array(wanted * most);
  for (let i = 0; i < wanted; i++) {
    const centre = from + (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const count = Math.min(size, Math.trunc(centre + support + 0.5)) - first;
    const found = [];
    let sum = 0;
    for (let k = 0; k < count; k++) {
      found.push(kernel.weight((k + first - centre + 0.5) * (1 / stretch)));
      sum += found[k];
    }
    starts[i] = first;
    counts[i] = count;
    for (let k = 0; k < count; k++) {
      const share = (sum ? found[k] / sum : found[k]) * (1 << PRECISION);
      weights[i * most + k] = Math.trunc(share < 0 ? share - 0.5 : share + 0.5);
    }
  }
  return { starts, counts, weights, most };
}

// An image squeezed sideways, of rows from `top` on, `height` of them; grey or RGB.
function sideways(image, top, height, width, { starts, counts, weights, most }) {
  const { channels, data } = image;
  const grey = channels === 1;
  const out = new Uint8ClampedArray(width * height * (grey ? 1 : 3));
  const half = 1 << (PRECISION - 1);
  let at = 0;
  for (let y = top; y < top + height; y++) {
    for (let x = 0; x < width; x++) {
      let [red, green, blue] = [half, half, half];
      let i = (y * image.width + starts[x]) * channels;
      const end = x * most + counts[x];
      for (let k = x * most; k < end; k++, i += channels) {
        const weight = weights[k];
        red = (red + Math.imul(data[i], weight)) | 0;
        if (grey) continue;
        green = (green + Math.imul(data[i + 1], weight)) | 0;
        blue = (blue + Math.imul(data[i + 2], weight)) | 0;
      }
      out[at++] = red >> PRECISION; // which clamps
      if (grey) continue;
      out[at++] = green >> PRECISION;
      out[at++] = blue >> PRECISION;
    }
  }
  return { width, height, channels: grey ? 1 : 3, data: out };
}

// The same downwards, where the first row that there is, is `top`.
function downwards(image, top, height, { starts, counts, weights, most }) {
  const { width, channels, data } = image;
  const line = width * channels;
  const out = new Uint8ClampedArray(line * height);
  const sums = new Int32Array(line);
  for (let y = 0; y < height; y++) {
    sums.fill(1 << (PRECISION - 1));
    for (let k = 0; k < counts[y]; k++) {
      const weight = weights[y * most + k];
      const row = (starts[y] - top + k) * line;
      for (let x = 0; x < line; x++) sums[x] += Math.imul(data[row + x], weight);
    }
    for (let x = 0; x < line; x++) out[y * line + x] = sums[x] >> PRECISION;
  }
  return { width, height, channels, data: out };
}

// Pillow's Image.resize of a part, [left, top, right, bottom], which may end within a pixel.
function resize(image, width, height, box, interpolation) {
  const [left, top, right, bottom] = box.map(Math.fround);
  const kernel = KERNELS[interpolation];
  const across = shares(image.width, left, right, width, kernel);
  const down = shares(image.height, top, bottom, height, kernel);
  const narrows = width !== image.width || left !== 0 || right !== width;
  const shortens = height !== image.height || top !== 0 || bottom !== height;
  if (!shortens) return narrows ? sideways(image, 0, height, width, across) : coloured(image);
  if (!narrows) return coloured(downwards(image, 0, height, down));
  // the pass that comes first rounds first: Pillow 13 starts downwards where more goes there
  const lost = image.height - height;
  if (lost > 0 && lost > 2 * (image.width - width)) {
    return sideways(downwards(image, 0, height, down), 0, height, width, across);
  }
  const first = down.starts[0];
  const last = down.starts[height - 1] + down.counts[height - 1];
  return downwards(sideways(image, first, last - first, width, across), first, height, down);
}

// The same in RGB, without the byte that says nothing.
function coloured(image) {
  if (image.channels !== 4) return image;
  const { width, height, data } = image;
  const out = new Uint8ClampedArray(3 * width * height);
  for (let i = 0, k = 0; i < data.length; i += 4) {
    out[k++] = data[i];
    out[k++] = data[i + 1];
    out[k++] = data[i + 2];
  }
  return { width, height, channels: 3, data: out };
}

// Python's round: halves go to the even number.
function rounded(x) {
  const down = Math.floor(x);
  if (x - down !== 0.5) return Math.round(x);
  return down % 2 ? down + 1 : down;
}

// The square of one view.
function square(image, view, border) {
  const { width, height } = image;
  const { resize: side, crop, stretch, interpolation, fit } = view;
  if (fit === "pad") {
    const scale = crop / Math.max(width, height);
    const [w, h] = [width, height].map((length) => Math.max(1, rounded(length * scale)));
    const small = resize(image, w, h, [0, 0, width, height], interpolation);
    return padded(small, crop, border);
  }
  let [w, h] = [width, height];
  if (fit === "crop") {
    const seen = (Math.min(width, height) * crop) / side;
    w = width > height ? Math.min(width, seen * stretch) : seen;
    h = height > width ? Math.min(height, seen * stretch) : seen;
  }
  const box = [(width - w) / 2, (height - h) / 2, (width + w) / 2, (height + h) / 2];
  return resize(image, crop, crop, box, interpolation);
}

function padded(small, crop, border) {
  const { width, height, channels } = small;
  const data = new Uint8ClampedArray(crop * crop * channels);
  for (let i = 0; i < data.length; i++) data[i] = border[i % channels];
  const left = Math.floor((crop - width) / 2);
  const top = Math.floor((crop - height) / 2);
  for (let y = 0; y < height; y++) {
    const row = small.data.subarray(y * width * channels, (y + 1) * width * channels);
    data.set(row, ((top + y) * crop + left) * channels);
  }
  return { width: crop, height: crop, channels, data };
}
