// Squares -> an answer: the network, calibrated probabilities, when to answer none of these, and
// the decision. All numbers come from the page itself.

const ESCAPED = [0x00, 0x0d, 0x3c];

// The bytes of a text with 7 bits a letter, gzipped, unpacked.
async function unpacked(id, size) {
  const element = document.getElementById(id);
  const text = element.textContent;
  element.remove();
  const bytes = new Uint8Array(size);
  let bits = 0;
  let n = 0;
  let at = 0;
  for (let i = 0; i < text.length && at < size; i++) {
    const code = text.charCodeAt(i);
    bits = ((bits << 7) | (code < 128 ? code : ESCAPED[code - 256])) & 0xffff;
    n += 7;
    if (n >= 8) {
      n -= 8;
      bytes[at++] = bits >> n;
    }
  }
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Takes tensors out of bytes, one after the other.
class Reader {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }

  take(n) {
    this.at += n;
    return this.bytes.slice(this.at - n, this.at);
  }

  tensor({ kind, shape }, out) {
    const n = shape.reduce((a, b) => a * b, 1);
    if (kind === "i32") return new Int32Array(this.take(4 * n).buffer);
    if (kind === "f32") {
      out.set(new Float32Array(this.take(4 * n).buffer));
    } else if (kind === "f16") {
      halves(this.take(2 * n), n, out);
    } else {
      const scales = new Float32Array(this.take(4 * shape[0]).buffer);
      const steps = new Int8Array(this.take(n).buffer);
      const row = n / shape[0];
      for (let i = 0, o = 0; o < shape[0]; o++) {
        for (const end = i + row; i < end; i++) out[i] = steps[i] * scales[o];
      }
    }
    return out;
  }
}

// float16, all low bytes first, to float32.
function halves(bytes, n, out) {
  for (let i = 0; i < n; i++) {
    const high = bytes[n + i];
    const exponent = (high >> 2) & 31;
    const fraction = ((high & 3) << 8) | bytes[i];
    const size = exponent ? (1024 + fraction) * 2 ** (exponent - 25) : fraction * 2 ** -24;
    out[i] = high & 128 ? -size : size;
  }
}

function numbers(shape) {
  return shape.reduce((a, b) => a * b, 1);
}

class Classifier {
  // The runtime and the network, unpacked and ready.
  static async load(about) {
    const ort = globalThis.ort;
    ort.env.wasm.numThreads = 1; // more need headers that a file has not
    ort.env.wasm.wasmBinary = await unpacked("runtime", about.runtime);
    const reader = new Reader(await unpacked("network", about.network.bytes));
    const graph = reader.take(about.network.graph);
    const total = about.network.weights.reduce((sum, { shape }) => sum + numbers(shape), 0);
    const weights = new Float32Array(total);
    let at = 0;
    for (const tensor of about.network.weights) {
      const n = numbers(tensor.shape);
      reader.tensor(tensor, weights.subarray(at, at + n));
      at += n;
    }
    const rejection = about.rejection && readRejection(about.rejection, reader);
    const externalData = [{ path: about.network.beside, data: new Uint8Array(weights.buffer) }];
    const session = await ort.InferenceSession.create(graph, { externalData });
    return new Classifier(about, session, rejection);
  }

  constructor(about, session, rejection) {
    Object.assign(this, { about, session, rejection });
  }

  // A file -> { probabilities, measures, rejected, answer }.
  async classify(file) {
    return this.judge(await squaresOf(file, this.about));
  }

  async judge(squares) {
    const feeds = {};
    squares.forEach(({ width, height, channels, data }, i) => {
      const pixels = new Uint8Array(data.buffer, data.byteOffset, data.length);
      feeds[this.about.inputs[i]] = new ort.Tensor("uint8", pixels, [1, height, width, channels]);
    });
    const output = await this.session.run(feeds);
    const row = output[this.about.output].data;
    const n = this.about.classes.length;
    const logits = Array.from(row.subarray(0, n), (logit) => logit / this.about.temperature);
    const features = row.subarray(n);
    const several = this.about.thresholds !== null;
    const probabilities = several ? logits.map(sigmoid) : softmax(logits);
    const measures = this.rejection && measured(this.rejection, features, logits);
    const rejected = measures && this.reason(measures);
    const answer = rejected ? [] : this.decide(probabilities);
    return { probabilities, measures, rejected, answer };
  }

  // Why an image is refused: how foreign it is, or how much of an unknown kind.
  reason(measures) {
    const { thresholds } = this.about.rejection;
    const [energy, distance, excess] = measures.map((value, i) => score(this.rejection, i, value));
    if (Math.max(distance, excess) > thresholds[0]) return "foreign";
    return energy + excess > thresholds[1] ? "unknown kind" : null;
  }

  // The numbers of the classes that an image is given, the most probable first.
  decide(probabilities) {
    const order = ranked(probabilities);
    const { thresholds, point } = this.about;
    if (thresholds) return order.filter((i) => probabilities[i] >= thresholds[i]);
    if (!point) return [order[0]];
    if (probabilities[point.positive] >= point.threshold) return [point.positive];
    return [order.find((i) => i !== point.positive)];
  }
}

function ranked(probabilities) {
  return [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a] || a - b);
}

function sigmoid(x) {
  return 1 / (1 + Math.exp(-x));
}

function softmax(logits) {
  const top = Math.max(...logits);
  const shares = logits.map((logit) => Math.exp(logit - top));
  const sum = shares.reduce((a, b) => a + b, 0);
  return shares.map((share) => share / sum);
}

// None of these (foveate/rejection.py).

function readRejection(about, reader) {
  const found = {};
  for (const { name, ...tensor } of about.tensors) {
    found[name] = reader.tensor(tensor, new Float32Array(numbers(tensor.shape)));
  }
  return found;
}

// Energy, the distance to the nearest class, and its excess over that to all.
function measured(parts, features, logits) {
  return [energy(logits), ...distances(parts, reduced(parts, features))];
}

function energy(logits) {
  const top = Math.max(...logits);
  return -top - Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - top), 0));
}

function reduced({ buckets, factors, shift }, features) {
  const sums = new Float64Array(shift.length);
  for (let i = 0; i < features.length; i++) sums[buckets[i]] += features[i] * factors[i];
  return sums.map((sum, i) => sum - shift[i]);
}

// To the nearest class, and that less the distance to all.
function distances({ root, mean, means, between }, row) {
  const size = row.length;
  const turned = new Float64Array(size).map((_, j) => -mean[j]);
  for (let i = 0; i < size; i++) {
    for (let j = 0; j < size; j++) turned[j] += row[i] * root[i * size + j];
  }
  const classes = means.length / size;
  let nearer = Infinity;
  let shorter = 0;
  for (let c = 0; c < classes; c++) {
    let [length, product, reach] = [0, 0, 0];
    for (let j = 0; j < size; j++) {
      const mine = means[c * size + j];
      length += mine * mine;
      product += mine * turned[j];
      reach += turned[j] * between[j * classes + c];
    }
    nearer = Math.min(nearer, length - 2 * product);
    shorter += reach * reach;
  }
  const own = turned.reduce((sum, x) => sum + x * x, 0);
  return [Math.max(own + nearer, 0), nearer + shorter];
}

// The normal score of a measure among those of the training images.
function score({ known, places }, measure, value) {
  const n = places.length - 1;
  const line = known.subarray(measure * n, (measure + 1) * n);
  if (value > line[n - 1]) return places[n];
  if (!(value > line[0])) return places[0];
  let [low, high] = [0, n - 1]; // line[low] <= value
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (line[middle] <= value) low = middle;
    else high = middle;
  }
  const share = (value - line[low]) / (line[high] - line[low]);
  return places[low] + share * (places[high] - places[low]);
}
