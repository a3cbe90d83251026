// A file's bytes -> its pixels, as Foveate decodes them: upright, on white, without ICC profiles; a
// large JPEG at 1/2, 1/4 or 1/8 of its size, as libjpeg scales it. Browsers with an ImageDecoder do
// the same; elsewhere the means of blocks are taken, which differ where colours are stored at half
// the size.

const MOST_BYTES = 100e6;
const MOST_PIXELS = 100e6; // a canvas holds four bytes of each
const STRIP = 512; // rows that are read at once: a multiple of every scale

class Unreadable extends Error {
  constructor(key, values = {}) {
    super(key);
    this.values = values;
  }
}

// What is needed to decode a file: { bytes, kind, jpeg, width, height }; of what is no JPEG the
// size is 0 where only decoding tells it.
async function examined(file) {
  if (file.size === 0) throw new Unreadable("empty");
  if (file.size > MOST_BYTES) {
    const [n, most] = [megabytes(file.size), megabytes(MOST_BYTES)];
    throw new Unreadable("too_many_bytes", { n, most });
  }
  let bytes;
  try {
    bytes = new Uint8Array(await file.arrayBuffer());
  } catch {
    throw new Unreadable("not_there");
  }
  const kind = kindOf(bytes);
  if (kind === "HEIC" || kind === "TIFF") throw new Unreadable("kind", { kind });
  const jpeg = kind === "JPEG" ? jpegHeader(bytes) : null;
  if (isCut(kind, bytes, jpeg)) throw new Unreadable("cut");
  const [width, height] = jpeg ? [jpeg.width, jpeg.height] : sizeOf(kind, bytes);
  refuseLarge(width, height);
  return { bytes, kind, jpeg, width, height };
}

// The whole image at a scale, upright.
async function decoded(opened, scale) {
  const { jpeg } = opened;
  if (jpeg === null) return drawn(opened, 1);
  const image = (await decodedAt(opened, scale)) ?? (await drawn(opened, scale));
  return turned(image, jpeg.orientation);
}

// A JPEG, smaller, by the browser's ImageDecoder; null where there is none, or it gives another
// size or what is not RGB: those of full size are YUV, of which a browser makes RGB in another way
// than libjpeg.
async function decodedAt({ bytes, width, height }, scale) {
  if (typeof ImageDecoder !== "function" || scale === 1) return null;
  const [w, h] = [Math.ceil(width / scale), Math.ceil(height / scale)];
  const size = { desiredWidth: w, desiredHeight: h };
  const options = { data: bytes, type: "image/jpeg", colorSpaceConversion: "none", ...size };
  let decoder;
  let frame;
  try {
    decoder = new ImageDecoder(options);
    frame = (await decoder.decode()).image;
    const fits = frame.codedWidth === w && frame.codedHeight === h;
    if (!fits || !/^(RGB|BGR)/.test(frame.format)) return null;
    const data = new Uint8ClampedArray(4 * w * h);
    await frame.copyTo(data, { format: "RGBX" });
    return { width: w, height: h, channels: 4, data };
  } catch {
    return null;
  } finally {
    frame?.close();
    decoder?.close();
  }
}

// An image by a canvas, which every browser has.
async function drawn({ bytes, kind }, scale) {
  let bitmap;
  try {
    // no orientation is left in a JPEG; of another kind the browser applies it
    bitmap = await createImageBitmap(new Blob([bytes]), { colorSpaceConversion: "none" });
  } catch {
    throw new Unreadable(kind ? "damaged" : "no_image");
  }
  try {
    refuseLarge(bitmap.width, bitmap.height);
    return pixelsAt(bitmap, scale);
  } finally {
    bitmap.close();
  }
}

function refuseLarge(width, height) {
  if (width * height > MOST_PIXELS) {
    throw new Unreadable("too_many_pixels", { width, height, most: MOST_PIXELS / 1e6 });
  }
}

function megabytes(n) {
  return Math.round(n / 1e6);
}

function starts(bytes, text, at = 0) {
  for (let i = 0; i < text.length; i++) if (bytes[at + i] !== text.charCodeAt(i)) return false;
  return true;
}

function kindOf(bytes) {
  if (starts(bytes, "\xff\xd8\xff")) return "JPEG";
  if (starts(bytes, "\x89PNG\r\n\x1a\n")) return "PNG";
  if (starts(bytes, "GIF8")) return "GIF";
  if (starts(bytes, "RIFF") && starts(bytes, "WEBP", 8)) return "WebP";
  if (starts(bytes, "BM")) return "BMP";
  if (starts(bytes, "II*\0") || starts(bytes, "MM\0*")) return "TIFF";
  if (starts(bytes, "ftyp", 4)) return starts(bytes, "avi", 8) ? "AVIF" : "HEIC";
  return "";
}

// The size that a header states, where that is easily read; else 0.
function sizeOf(kind, bytes) {
  const view = new DataView(bytes.buffer);
  if (kind === "PNG" && bytes.length > 24) return [view.getUint32(16), view.getUint32(20)];
  if (kind === "GIF" && bytes.length > 10) return [6, 8].map((at) => view.getUint16(at, true));
  return [0, 0];
}

// Whether the end of a file is missing: browsers show such an image in part, as if it were whole.
function isCut(kind, bytes, jpeg) {
  const last = bytes.length;
  if (kind === "JPEG") return jpeg === null || !has(bytes, "\xff\xd9", jpeg.scan);
  if (kind === "PNG") return !has(bytes, "IEND", Math.max(8, last - (1 << 16)));
  if (kind === "WebP") return new DataView(bytes.buffer).getUint32(4, true) + 8 > last;
  if (kind === "GIF") return !has(bytes, ";", Math.max(13, last - 64));
  return false;
}

function has(bytes, text, from) {
  for (let i = bytes.length - text.length; i >= from; i--) if (starts(bytes, text, i)) return true;
  return false;
}

// The size, the orientation and the first scan of a JPEG; null if its header ends before. The
// orientation is taken out of the bytes: blocks lie as the camera stored them.
function jpegHeader(bytes) {
  const view = new DataView(bytes.buffer);
  const found = { width: 0, height: 0, orientation: 1, lossless: false, scan: 0 };
  let at = 2;
  while (at + 9 < bytes.length && bytes[at] === 0xff) {
    const marker = bytes[at + 1];
    if (marker === 0xff) {
      at += 1; // a fill byte
      continue;
    }
    const length = view.getUint16(at + 2);
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) {
      found.height = view.getUint16(at + 5);
      found.width = view.getUint16(at + 7);
      found.lossless = marker % 4 === 3;
    }
    if (marker === 0xe1 && starts(bytes, "Exif\0\0", at + 4) && found.orientation === 1) {
      found.orientation = takeOrientation(view, at + 10, Math.min(at + 2 + length, bytes.length));
    }
    if (marker === 0xda) return { ...found, scan: at };
    at += 2 + Math.max(length, 2);
  }
  return null;
}

function takeOrientation(view, start, end) {
  if (start + 14 > end) return 1;
  const little = view.getUint16(start) === 0x4949;
  const first = start + view.getUint32(start + 4, little);
  if (first + 2 > end) return 1;
  const count = view.getUint16(first, little);
  for (let entry = first + 2; entry < first + 2 + 12 * count && entry + 12 <= end; entry += 12) {
    if (view.getUint16(entry, little) !== 0x0112) continue;
    const orientation = view.getUint16(entry + 8, little);
    view.setUint16(entry + 8, 1, little);
    return orientation;
  }
  return 1;
}

// By how much a JPEG is read smaller for a view that needs this short side: 1, 2, 4 or 8.
function scaleOf({ jpeg, width, height }, shortSide) {
  if (jpeg === null || jpeg.lossless) return 1;
  const scale = (2 * shortSide) / Math.min(width, height);
  if (scale >= 1) return 1;
  const wanted = [width, height].map((side) => rounded(side * scale));
  const most = Math.min(Math.floor(width / wanted[0]), Math.floor(height / wanted[1]));
  return [8, 4, 2, 1].find((by) => by <= most);
}

// The pixels of a bitmap on white, smaller by the means of blocks.
function pixelsAt(bitmap, scale) {
  const { width, height } = bitmap;
  const [w, h] = [Math.ceil(width / scale), Math.ceil(height / scale)];
  const data = new Uint8ClampedArray(w * h * 4);
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = Math.min(STRIP, height);
  const context = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
  for (let top = 0; top < height; top += STRIP) {
    const rows = Math.min(STRIP, height - top);
    context.fillStyle = "#fff"; // under what is transparent
    context.fillRect(0, 0, width, rows);
    context.drawImage(bitmap, 0, top, width, rows, 0, 0, width, rows);
    const strip = context.getImageData(0, 0, width, rows).data;
    const part = data.subarray((top / scale) * w * 4);
    if (scale === 1) part.set(strip);
    else means(strip, width, rows, scale, part);
  }
  return { width: w, height: h, channels: 4, data };
}

// The mean of each block of RGBA; one that is cut by an edge has the last pixels there repeated.
// Red and blue, 16 bits apart, are summed at once.
function means(strip, width, rows, scale, out) {
  const pixels = new Uint32Array(strip.buffer);
  const whole = width - (width % scale);
  const shift = 2 * Math.log2(scale);
  const half = (scale * scale) >> 1;
  let at = 0;
  for (let top = 0; top < rows; top += scale) {
    for (let left = 0; left < width; left += scale) {
      let redBlue = 0;
      let green = 0;
      for (let y = top; y < top + scale; y++) {
        const row = (y < rows ? y : rows - 1) * width;
        for (let x = left; x < left + scale; x++) {
          const pixel = pixels[row + (left < whole || x < width ? x : width - 1)];
          redBlue += pixel & 0xff00ff;
          green += (pixel >> 8) & 0xff;
        }
      }
      out[at++] = ((redBlue & 0xffff) + half) >> shift;
      out[at++] = (green + half) >> shift;
      out[at++] = ((redBlue >>> 16) + half) >> shift;
      at++;
    }
  }
}

// By EXIF's orientation: [column, row] of the stored image that comes to (x, y).
const TURNS = {
  2: (x, y, w) => [w - 1 - x, y],
  3: (x, y, w, h) => [w - 1 - x, h - 1 - y],
  4: (x, y, w, h) => [x, h - 1 - y],
  5: (x, y) => [y, x],
  6: (x, y, w, h) => [y, h - 1 - x],
  7: (x, y, w, h) => [w - 1 - y, h - 1 - x],
  8: (x, y, w) => [w - 1 - y, x],
};

function turned(image, orientation) {
  const from = TURNS[orientation];
  if (!from) return image;
  const { width, height, data } = image;
  const [w, h] = orientation >= 5 ? [height, width] : [width, height];
  const out = new Uint8ClampedArray(data.length);
  const [pixels, placed] = [data, out].map(({ buffer }) => new Uint32Array(buffer));
  let at = 0;
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      const [column, row] = from(x, y, width, height);
      placed[at++] = pixels[row * width + column];
    }
  }
  return { width: w, height: h, channels: 4, data: out };
}

// As Pillow: ITU-R 601-2 luma in 16 bits.
function grey(image) {
  const { width, height, data } = image;
  const out = new Uint8ClampedArray(width * height);
  for (let i = 0; i < out.length; i++) {
    const luma = data[4 * i] * 19595 + data[4 * i + 1] * 38470 + data[4 * i + 2] * 7471;
    out[i] = (luma + 0x8000) >> 16;
  }
  return { width, height, channels: 1, data: out };
}

// The square of each view of a file.
async function squaresOf(file, about) {
  const opened = await examined(file);
  const read = new Map();
  const squares = [];
  for (const view of about.views) {
    const scale = scaleOf(opened, view.resize);
    if (!read.has(scale)) {
      const image = await decoded(opened, scale);
      read.set(scale, about.channels === 1 ? grey(image) : image);
    }
    squares.push(square(read.get(scale), view, about.border));
  }
  return squares;
}
