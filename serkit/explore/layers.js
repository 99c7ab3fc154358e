"use strict";
// Numbers and nets as serkit wrote them (serkit/explore/packing.py, layers.py), run in the page.

const LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;,=>?@^_`{|}~";

function bytesOf(text) { // five letters are four bytes
  const digits = new Uint8Array(128), n = Math.floor((text.length * 4) / 5), bytes = new Uint8Array(n + 4);
  for (let i = 0; i < LETTERS.length; i++) digits[LETTERS.charCodeAt(i)] = i;
  for (let i = 0, k = 0; i < text.length; i += 5) {
    let word = 0;
    for (let j = i; j < i + 5; j++) word = word * 85 + (j < text.length ? digits[text.charCodeAt(j)] : 84);
    for (let shift = 24; shift >= 0; shift -= 8) bytes[k++] = word >>> shift;
  }
  return bytes.subarray(0, n);
}

async function inflated(text) {
  const stream = new Blob([bytesOf(text)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function halfFloat(bits) {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return exponent ? sign * 2 ** (exponent - 15) * (1 + fraction / 1024) : sign * 2 ** -24 * fraction;
}

// An array by its reference [first byte, number of values, code]; bytes stand highest first.
function unpacked(bytes, [start, n, code]) {
  const size = Number(code[1]);
  if (code === "u1") return bytes.subarray(start, start + n);
  const values = code === "i4" ? new Int32Array(n) : new Float32Array(n);
  const bits = code === "i4" ? values : new Uint32Array(values.buffer);
  for (let i = 0; i < n; i++) {
    let word = 0;
    for (let plane = 0; plane < size; plane++) word |= bytes[start + plane * n + i] << (24 - 8 * plane);
    if (code === "f2") values[i] = halfFloat(word >>> 16);
    else bits[i] = word;
  }
  return values;
}

function erf(x) { // Abramowitz and Stegun 7.1.5 near 0, a continued fraction beyond
  const a = Math.abs(x);
  if (a > 6) return Math.sign(x);
  if (a < 2.5) {
    let term = x, sum = x;
    for (let n = 1; n < 60; n++) { term *= (-x * x) / n; sum += term / (2 * n + 1); }
    return (2 / Math.sqrt(Math.PI)) * sum;
  }
  let fraction = 0;
  for (let n = 60; n > 0; n--) fraction = n / 2 / (a + fraction);
  return Math.sign(x) * (1 - Math.exp(-a * a) / Math.sqrt(Math.PI) / (a + fraction));
}

const sigmoid = (x) => 1 / (1 + Math.exp(-x));
const clipped = (x, low, high) => Math.min(Math.max(x, low), high);
const softplus = (x, beta = 1, threshold = 20) =>
  x * beta > threshold ? x : Math.log1p(Math.exp(x * beta)) / beta;
const ACTIVATIONS = {
  relu: () => (x) => (x > 0 ? x : 0),
  relu6: () => (x) => clipped(x, 0, 6),
  leaky_relu: (o) => (x) => (x > 0 ? x : o.negative_slope * x),
  elu: (o) => (x) => (x > 0 ? x : o.alpha * Math.expm1(x)),
  celu: (o) => (x) => (x > 0 ? x : o.alpha * Math.expm1(x / o.alpha)),
  selu: () => (x) => 1.0507009873554805 * (x > 0 ? x : 1.6732632423543772 * Math.expm1(x)),
  gelu: (o) => o.approximate === "tanh"
    ? (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)))
    : (x) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
  silu: () => (x) => x * sigmoid(x),
  mish: () => (x) => x * Math.tanh(softplus(x)),
  sigmoid: () => sigmoid,
  logsigmoid: () => (x) => -softplus(-x),
  tanh: () => Math.tanh,
  softplus: (o) => (x) => softplus(x, o.beta, o.threshold),
  softsign: () => (x) => x / (1 + Math.abs(x)),
  hardtanh: (o) => (x) => clipped(x, o.min_val, o.max_val),
  hardsigmoid: () => (x) => clipped(x / 6 + 0.5, 0, 1),
  hardswish: () => (x) => x * clipped(x / 6 + 0.5, 0, 1),
};

function softmax(x) {
  const largest = x.reduce((a, b) => Math.max(a, b), -Infinity);
  const powers = x.map((v) => Math.exp(v - largest)), sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((p) => p / sum);
}

// Each takes a row's values and a layer, and gives the values of `layer.size` that come out.
const LAYERS = {
  linear(x, { size, weight, bias, inner }) {
    const nIn = inner[0], nOut = weight.length / nIn, out = new Float32Array(size);
    for (let i = 0; i < size; i++) {
      const row = (i % nOut) * nIn, from = Math.floor(i / nOut) * nIn;
      let sum = bias ? bias[i % nOut] : 0;
      for (let j = 0; j < nIn; j++) sum += weight[row + j] * x[from + j];
      out[i] = sum;
    }
    return out;
  },
  conv(x, layer) {
    const { size, shape, weight, bias, stride, padding, dilation, groups, inner } = layer;
    const [nIn, H, W] = layer.from, [nOut, h, w] = shape, out = new Float32Array(size);
    const [perGroup, ...kernel] = inner;
    for (let o = 0; o < nOut; o++) {
      const first = Math.floor(o / (nOut / groups)) * perGroup;
      for (let i = 0; i < h; i++) for (let j = 0; j < w; j++) {
        let sum = bias ? bias[o] : 0;
        for (let c = 0; c < perGroup; c++) for (let a = 0; a < kernel[0]; a++) {
          const y = i * stride[0] - padding[0] + a * dilation[0];
          if (y < 0 || y >= H) continue;
          const at = ((o * perGroup + c) * kernel[0] + a) * kernel[1], line = ((first + c) * H + y) * W;
          for (let b = 0; b < kernel[1]; b++) {
            const z = j * stride[1] - padding[1] + b * dilation[1];
            if (z >= 0 && z < W) sum += weight[at + b] * x[line + z];
          }
        }
        out[(o * h + i) * w + j] = sum;
      }
    }
    return out;
  },
  conv_back(x, layer) {
    const { size, shape, weight, bias, stride, padding, dilation, groups, inner } = layer;
    const [nIn, H, W] = layer.from, [, h, w] = shape, out = new Float64Array(size);
    const [perGroup, ...kernel] = inner;
    if (bias) for (let i = 0; i < size; i++) out[i] = bias[Math.floor(i / (h * w))];
    for (let c = 0; c < nIn; c++) {
      const first = Math.floor(c / (nIn / groups)) * perGroup;
      for (let y = 0; y < H; y++) for (let z = 0; z < W; z++) {
        const value = x[(c * H + y) * W + z];
        if (!value) continue;
        for (let o = 0; o < perGroup; o++) for (let a = 0; a < kernel[0]; a++) {
          const i = y * stride[0] - padding[0] + a * dilation[0];
          if (i < 0 || i >= h) continue;
          const at = ((c * perGroup + o) * kernel[0] + a) * kernel[1], line = ((first + o) * h + i) * w;
          for (let b = 0; b < kernel[1]; b++) {
            const j = z * stride[1] - padding[1] + b * dilation[1];
            if (j >= 0 && j < w) out[line + j] += weight[at + b] * value;
          }
        }
      }
    }
    return Float32Array.from(out);
  },
  scale(x, { size, factor, shift }) {
    const inner = size / factor.length;
    return x.map((v, i) => v * factor[Math.floor(i / inner)] + shift[Math.floor(i / inner)]);
  },
  slope(x, { size, factor }) {
    const inner = size / factor.length;
    return x.map((v, i) => (v < 0 ? v * factor[Math.floor(i / inner)] : v));
  },
  activation(x, layer) {
    return layer.name === "softmax" ? softmax(x) : x.map(ACTIVATIONS[layer.name](layer));
  },
  max_pool(x, { size, shape, kernel_size, stride, padding, from }) {
    const [, H, W] = from, [n, h, w] = shape, out = new Float32Array(size).fill(-Infinity);
    for (let c = 0; c < n; c++) for (let i = 0; i < h; i++) for (let j = 0; j < w; j++)
      for (let a = 0; a < kernel_size[0]; a++) for (let b = 0; b < kernel_size[1]; b++) {
        const y = i * stride[0] - padding[0] + a, z = j * stride[1] - padding[1] + b;
        if (y < 0 || y >= H || z < 0 || z >= W) continue;
        const at = (c * h + i) * w + j;
        out[at] = Math.max(out[at], x[(c * H + y) * W + z]);
      }
    return out;
  },
  take(x, { places }) {
    return places ? Float32Array.from(places, (place) => (place < 0 ? 0 : x[place])) : x;
  },
  separable(x, { size, shape, down, across, from }) {
    const [, H, W] = from, [n, h, w] = shape, out = new Float32Array(size);
    for (let c = 0; c < n; c++) for (let i = 0; i < h; i++) for (let j = 0; j < w; j++) {
      let sum = 0;
      for (let y = 0; y < H; y++) {
        if (!down[i * H + y]) continue;
        for (let z = 0; z < W; z++) sum += down[i * H + y] * across[j * W + z] * x[(c * H + y) * W + z];
      }
      out[(c * h + i) * w + j] = sum;
    }
    return out;
  },
};

// A net's layers with their arrays, ready to run.
function prepared(layers, array) {
  return layers.map((layer) => {
    const made = { ...layer, size: layer.shape.reduce((a, b) => a * b, 1) };
    for (const name of layer.arrays) made[name] = array(layer[name]);
    return made;
  });
}

// What a net makes of one row.
function run(layers, row) {
  return layers.reduce((values, layer) => LAYERS[layer.kind](values, layer), Float32Array.from(row));
}
