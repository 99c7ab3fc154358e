// What the page does with its contents (serkit/explore/contents.py): panels, and what moves them.

const byId = (id) => document.getElementById(id);
const contents = JSON.parse(byId("contents").textContent);
const COLOURS = contents.style.colours, SYMBOLS = contents.style.symbols;
const explorer = (window.explorer = { contents, ready: null }); // what tests and the curious read

let array; // a reference's numbers
const state = { row: 0, other: 0, z: null, space: null, highlight: null, draws: [], path: [], walk: null, pen: null, tab: "draw" };

// -- small ones -----------------------------------------------------------------------------------

function make(tag, attributes = {}, ...children) {
  const space = ["svg", "g", "rect", "text", "path", "line", "circle", "title", "polyline"].includes(tag)
    ? "http://www.w3.org/2000/svg" : "http://www.w3.org/1999/xhtml";
  const element = document.createElementNS(space, tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}
const range = (n) => Array.from({ length: n }, (_, i) => i);
const sum = (values) => values.reduce((a, b) => a + b, 0);
const largest = (values) => values.reduce((best, v, i) => (v > values[best] ? i : best), 0);
function short(value) {
  const size = Math.abs(value);
  if (!Number.isFinite(value)) return "?";
  if (size !== 0 && (size < 0.001 || size >= 1e6)) return value.toExponential(2);
  return size >= 1000 ? value.toFixed(0) : String(Number(value.toPrecision(3)));
}
const colourOf = (number) => (number < 0 ? "#b8c0c8" : COLOURS[number % COLOURS.length]);
const symbolOf = (number) => (number < 0 ? SYMBOLS[0] : SYMBOLS[Math.floor(number / COLOURS.length) % SYMBOLS.length]);
const RAMP = ["#440154", "#3b528b", "#21918c", "#5ec962", "#fde725"];

function random(seed) { // mulberry32: the same draws for the same seed
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
const rng = random(1);
const normal = () => Math.sqrt(-2 * Math.log(1 - rng())) * Math.cos(2 * Math.PI * rng());

function everyFrame(task) { // many calls, one a frame
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; task(); });
  };
}

// -- latents, nets, mixtures ----------------------------------------------------------------------

const observationOf = (name) => contents.observations.find((one) => one.name === name);

function latentOf(space, row) {
  return array(space.latents).subarray(row * space.n_dims, (row + 1) * space.n_dims);
}

function rowsOf(observation, row) { // an observation's values in a row, in the data's units
  if (!observation.rows || (observation.observed && !array(observation.observed)[row])) return null;
  const values = array(observation.rows).subarray(row * observation.size, (row + 1) * observation.size);
  if (observation.kind !== "image") return values;
  const scale = (observation.high - observation.low) / 255;
  return Float32Array.from(values, (grey) => observation.low + grey * scale);
}

// A net of the page or of onnxruntime: what it makes of a row.
async function through(net, row) {
  if (net.onnx) {
    net.session ??= await sessionOf(net);
    const given = new net.session.Tensor("float32", Float32Array.from(row), net.shape), { inputNames: [take], outputNames: [give] } = net.session;
    const mine = (turns = turns.then(() => net.session.run({ [take]: given }))); // one at a time
    return (await mine)[give].data;
  }
  return run((net.ready ??= prepared(net.layers, array)), row);
}

let turns = Promise.resolve();
let runtime = null; // onnxruntime-web, where a net needs it
async function sessionOf(net) {
  runtime ??= (async () => {
    const script = new Blob([await inflated(byId("ort").textContent)], { type: "text/javascript" });
    const ort = await import(URL.createObjectURL(script));
    Object.assign(ort.env.wasm, { numThreads: 1, wasmBinary: (await inflated(byId("wasm").textContent)).buffer });
    return ort;
  })();
  const ort = await runtime, session = await ort.InferenceSession.create(Uint8Array.from(array(net.onnx)), { executionProviders: ["wasm"] });
  session.Tensor = ort.Tensor;
  return session;
}

// What a space's latents stand for: the values of each observation that can be decoded.
async function decode(space, z) {
  if (!space.decoder) return {};
  const values = await through(space.decoder, z), found = {};
  for (const { observation, start, size } of space.decoder.outputs) found[observation] = values.slice(start, start + size);
  return found;
}

function cholesky(matrix, d) {
  const lower = new Float64Array(d * d);
  for (let i = 0; i < d; i++) for (let j = 0; j <= i; j++) {
    let value = matrix[i * d + j];
    for (let k = 0; k < j; k++) value -= lower[i * d + k] * lower[j * d + k];
    lower[i * d + j] = i === j ? Math.sqrt(Math.max(value, 1e-12)) : value / lower[j * d + j];
  }
  return lower;
}

function mixtureOf(space) { // means, covariances' roots and log weights, made once
  const given = space.mixture;
  if (!given || given.ready) return given;
  const d = space.n_dims, k = given.weights.length;
  const cut = (ref, size) => range(k).map((i) => array(ref).subarray(i * size, (i + 1) * size));
  given.mu = cut(given.means, d);
  given.sigma = cut(given.covariances, d * d);
  given.lower = given.sigma.map((matrix) => cholesky(matrix, d));
  given.constant = given.lower.map((lower, i) =>
    Math.log(given.weights[i]) - sum(range(d).map((j) => Math.log(lower[j * d + j]))) - (d / 2) * Math.log(2 * Math.PI));
  given.ready = true;
  return given;
}

function solved(lower, d, right) { // lower^-1 right
  const out = new Float64Array(d);
  for (let i = 0; i < d; i++) {
    let value = right[i];
    for (let j = 0; j < i; j++) value -= lower[i * d + j] * out[j];
    out[i] = value / lower[i * d + i];
  }
  return out;
}

function logJoint(space, z) { // log pi_k N(z; mu_k, Sigma_k) of each component
  const mixture = mixtureOf(space), d = space.n_dims;
  return mixture.mu.map((mu, k) => {
    const white = solved(mixture.lower[k], d, range(d).map((j) => z[j] - mu[j]));
    return mixture.constant[k] - 0.5 * sum(white.map((v) => v * v));
  });
}
function logDensity(space, z) {
  const joint = logJoint(space, z), most = Math.max(...joint);
  return most + Math.log(sum(joint.map((v) => Math.exp(v - most))));
}
function byCluster(mixture, values) { // of components, added up by the clusters they belong to
  const out = new Array(mixture.names.length).fill(0);
  values.forEach((value, k) => (out[mixture.owners[k]] += value));
  return out;
}
const responsibilities = (space, z) => byCluster(mixtureOf(space), softmax(logJoint(space, z)));

function gradient(space, z) { // of the log density
  const mixture = mixtureOf(space), d = space.n_dims, r = softmax(logJoint(space, z)), out = new Float64Array(d);
  mixture.mu.forEach((mu, k) => {
    if (r[k] < 1e-12) return;
    const lower = mixture.lower[k], white = solved(lower, d, range(d).map((j) => mu[j] - z[j]));
    for (let i = d - 1; i >= 0; i--) { // lower^-T white
      let value = white[i];
      for (let j = i + 1; j < d; j++) value -= lower[j * d + i] * white[j];
      white[i] = value / lower[i * d + i];
      out[i] += r[k] * white[i];
    }
  });
  return out;
}

function drawnFrom(space, component) { // a draw of N(mu_k, Sigma_k)
  const mixture = mixtureOf(space), d = space.n_dims, noise = range(d).map(normal), lower = mixture.lower[component];
  return Float32Array.from(range(d), (i) => mixture.mu[component][i] + sum(range(i + 1).map((j) => lower[i * d + j] * noise[j])));
}
function chosen(weights) { // an index, by weight
  let left = rng() * sum(weights);
  const found = weights.findIndex((weight) => (left -= weight) < 0);
  return found < 0 ? weights.length - 1 : found;
}
function componentOf(space, source) { // "all", "cluster 3" or "component 3"
  const mixture = mixtureOf(space), [kind, number] = source.split(" ");
  if (kind === "component") return Number(number);
  return chosen(mixture.weights.map((w, k) => (kind === "all" || mixture.owners[k] === Number(number) ? w : 0)));
}

// -- paths ----------------------------------------------------------------------------------------

const PATHS = {
  "straight line": (space, a, b, n) => range(n).map((i) => a.map((v, j) => v + ((b[j] - v) * i) / (n - 1))),
  "arc about 0": (space, a, b, n) => {
    const size = (v) => Math.sqrt(sum(Array.from(v, (x) => x * x))), ra = size(a), rb = size(b);
    const cosine = sum(Array.from(a, (v, i) => (v * b[i]) / (ra * rb))), angle = Math.acos(Math.min(Math.max(cosine, -1), 1));
    if (!(Math.sin(angle) > 1e-6)) return PATHS["straight line"](space, a, b, n);
    return range(n).map((i) => {
      const t = i / (n - 1), radius = ra + (rb - ra) * t;
      const of = Math.sin((1 - t) * angle) / Math.sin(angle) / ra, to = Math.sin(t * angle) / Math.sin(angle) / rb;
      return a.map((v, j) => radius * (of * v + to * b[j]));
    });
  },
  // Through where the mixture is dense: serkit.paths.densest, climbed by steps that never fall.
  "densest path": (space, a, b, n, stiffness = 10) => {
    let path = PATHS["straight line"](space, a, b, n).map((z) => Float64Array.from(z));
    const length = sum(Array.from(a, (v, i) => (v - b[i]) ** 2)), price = (stiffness * (n - 1)) / (length || 1);
    if (!length) return path;
    const value = (p) => sum(p.slice(1, -1).map((z) => logDensity(space, z))) / (n - 2)
      - price * sum(range(n - 1).map((i) => sum(Array.from(p[i], (v, j) => (p[i + 1][j] - v) ** 2))));
    let step = 0.02, best = value(path);
    for (let round = 0; round < 150 && step > 1e-6; round++) {
      const next = path.map((z, i) => {
        if (i === 0 || i === n - 1) return z;
        const pull = gradient(space, z);
        return z.map((v, j) => v + step * (pull[j] / (n - 2) + 2 * price * (path[i - 1][j] - 2 * v + path[i + 1][j])));
      });
      const reached = value(next);
      if (reached > best) { path = next; best = reached; step *= 1.3; } else step /= 2;
    }
    return path.map((z) => Float32Array.from(z));
  },
};

// -- pictures of rows -----------------------------------------------------------------------------

function picture(observation, values, width) {
  const [channels, h, w] = observation.image, canvas = make("canvas", { class: "picture", width: w, height: h });
  paint(canvas, observation, values);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${(width * h) / w}px`;
  if (channels !== 1 && channels !== 3) canvas.title = `channel 1 of ${channels}`;
  return canvas;
}
function paint(canvas, observation, values) { // the lowest value is white in one channel, as ink on paper
  const [channels, h, w] = observation.image, context = canvas.getContext("2d"), image = context.createImageData(w, h);
  const grey = (v) => (255 * (v - observation.low)) / (observation.high - observation.low || 1);
  for (let i = 0; i < h * w; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = channels === 3 ? grey(values[c * h * w + i]) : 255 - grey(values[i]);
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

const placeIn = (observation, j, value) => {
  const low = observation.low[j], high = observation.high[j];
  return Math.min(Math.max((value - low) / (high - low || 1), -0.02), 1.02);
};

function barChart(observation, values, made, width, height) { // values as bars, what is expected as a line
  const n = Math.min(observation.size, 100), bin = (all) => all && range(n).map((j) => sum(Array.from(all.subarray(...ends(j)))));
  const ends = (j) => [Math.floor((j * observation.size) / n), Math.floor(((j + 1) * observation.size) / n)];
  const [bars, line] = [bin(values), bin(made)], most = Math.max(1e-9, ...(bars ?? [0]), ...(line ?? [0])), step = width / n;
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, width, height }), top = (v) => height - 1 - (Math.max(v, 0) / most) * (height - 4);
  const name = (j) => { const [from, to] = ends(j); return observation.names[from] + (to > from + 1 ? ` to ${observation.names[to - 1]}` : ""); };
  if (bars) bars.forEach((v, j) => svg.append(make("rect", { x: j * step, y: top(v), width: Math.max(step - 0.6, 0.5), height: height - 1 - top(v), fill: made ? "#9fb6cc" : "#4f7597" },
    make("title", {}, `${name(j)}: ${short(v)}`))));
  if (line) svg.append(make("path", { d: line.map((v, j) => `${j ? "L" : "M"}${(j + 0.5) * step},${top(v)}`).join(""), fill: "none", stroke: "#d86000", "stroke-width": 1.4 }));
  svg.append(make("line", { x1: 0, x2: width, y1: height - 0.5, y2: height - 0.5, stroke: "#8b97a3" }));
  return svg;
}
function glyph(observation, values, width, height) { // where each column's value is in its range
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, width, height }), step = width / observation.size;
  range(observation.size).forEach((j) => {
    const share = Math.max(placeIn(observation, j, values[j]), 0);
    svg.append(make("rect", { x: j * step, y: height - 1 - share * (height - 2), width: Math.max(step - 1, 0.5), height: share * (height - 2) + 1, fill: "#4f7597" }));
  });
  return svg;
}
function thumb(observation, values, width = 64) {
  if (observation.kind === "image") return picture(observation, values, width);
  return observation.kind === "counts" ? barChart(observation, values, null, 1.5 * width, 0.75 * width) : glyph(observation, values, 1.5 * width, 0.75 * width);
}

function valueTable(observation, values, made, most = Infinity) {
  const body = make("table", { class: "values" });
  body.append(make("tr", {}, make("th"), values ? make("th", {}, "row") : null, made ? make("th", {}, values ? "reconstructed" : "") : null, make("th", {}, "")));
  const shown = range(observation.size).slice(0, most);
  for (const j of shown) {
    const place = make("td", { class: "place" });
    if (values) place.append(make("i", { style: `left:${100 * placeIn(observation, j, values[j])}%` }));
    if (made) place.append(make("i", { class: "made", style: `left:${100 * placeIn(observation, j, made[j])}%` }));
    body.append(make("tr", {}, make("td", { title: observation.names[j] }, observation.names[j]),
      values ? make("td", {}, short(values[j])) : null, made ? make("td", {}, short(made[j])) : null, place));
  }
  return observation.size > shown.length ? [body, make("div", { class: "hint" }, `and ${observation.size - shown.length} more`)] : [body];
}
const captioned = (caption, ...content) => make("figure", {}, ...content, make("figcaption", {}, caption));

// An observation's values in a row, beside what is made or expected of it.
function figures(observation, values, made, captions, width = 112) {
  const box = make("div", { class: "figures" });
  if (observation.kind === "image") {
    if (values) box.append(captioned(captions[0], picture(observation, values, width)));
    if (made) box.append(captioned(captions[1], picture(observation, made, width)));
  } else if (observation.kind === "counts") {
    const caption = [values && `${captions[0]} (bars)`, made && `${captions[1]} (line)`].filter(Boolean).join(", ");
    box.append(captioned(caption, barChart(observation, values, made, 300, 76)));
  } else {
    const scroll = make("div", { class: "scroll" }, ...valueTable(observation, values, made, 200));
    const differs = made && values && values.some((v, j) => Math.abs(v - made[j]) > 1e-6 * Math.abs(v));
    box.append(captioned(made && !differs ? captions[0] : captions.join(", "), scroll));
  }
  return box;
}

function classBars(names, columns, colours) { // {title: probabilities} side by side
  const best = Object.values(columns)[0], order = range(names.length);
  const shown = names.length > 12 ? order.sort((a, b) => best[b] - best[a]).slice(0, 10) : order;
  const table = make("table", { class: "bars" });
  table.append(make("tr", {}, make("th"), ...Object.keys(columns).map((title) => make("th", {}, title))));
  for (const k of shown) {
    const cells = Object.values(columns).map((p) => make("td", { class: "cell" },
      make("i", { style: `width:${100 * p[k]}%;background:${colourOf(colours[k])}55;border-left:3px solid ${colourOf(colours[k])}` }),
      make("b", {}, p[k] >= 0.005 ? p[k].toFixed(2) : "")));
    table.append(make("tr", {}, make("td", {}, names[k]), ...cells));
  }
  return table;
}
const columnOf = (title) => contents.columns.find((column) => column.name === title);
const coloursOf = (module, n) => columnOf(`cluster (${module})`)?.colours ?? range(n);

// -- the points -----------------------------------------------------------------------------------

function projected(space, z) { // three numbers, by the projection chosen
  const { mean, matrix } = state.projection, m = array(mean), p = array(matrix), out = [0, 0, 0];
  for (let i = 0; i < space.n_dims; i++) for (let j = 0; j < 3; j++) out[j] += (z[i] - m[i]) * p[3 * i + j];
  return out;
}
function placeOf(space, z) { // of any latents; where a projection knows rows alone, near the nearest of these
  if (state.projection.matrix) return projected(space, z);
  const all = array(space.latents), d = space.n_dims, near = [];
  for (let row = 0; row < contents.n_rows; row++) {
    let distance = 0;
    for (let j = 0; j < d; j++) distance += (all[row * d + j] - z[j]) ** 2;
    if (near.length < 5 || distance < near[4].distance) {
      near.push({ row, distance });
      near.sort((a, b) => a.distance - b.distance).splice(5);
    }
  }
  const weights = near.map((one) => 1 / (one.distance + 1e-9)), total = sum(weights);
  return range(3).map((j) => sum(near.map((one, i) => (weights[i] / total) * knownPlace(one.row)[j])));
}
function knownPlace(row) {
  const deep = Number(byId("dimensions").value) === 3, n = deep ? 3 : 2;
  const places = array(deep ? state.projection.deep : state.projection.flat);
  return [places[row * n], places[row * n + 1], deep ? places[row * n + 2] : 0];
}

// The rows drawn now: all of them, or those kept of a round.
function scene() {
  const space = state.space, rounds = space.rounds, at = Number(byId("round").value);
  const kept = rounds.length && at < rounds.length ? rounds[at] : null;
  const rows = kept ? Array.from(array(kept.rows)) : range(contents.n_rows);
  const d = space.n_dims, latents = kept ? array(kept.latents) : array(space.latents);
  const places = rows.map((row, i) => kept || state.projection.matrix
    ? placeOf(space, latents.subarray(i * d, (i + 1) * d)) : knownPlace(row));
  return { kept, rows, places, latents };
}

function looks(scene) { // colour, symbol and group of each row
  const column = columnOf(byId("colour").value), values = array(column.values);
  const isCluster = scene.kept?.clusters && column.name === `cluster (${state.space.mixture?.module})`;
  const codes = isCluster ? Array.from(array(scene.kept.clusters)) : scene.rows.map((row) => values[row]);
  if (column.kind === "number") {
    const sorted = Float32Array.from(values).sort(), low = sorted[Math.floor(0.01 * sorted.length)], high = sorted[Math.floor(0.99 * (sorted.length - 1))];
    return { column, codes, low, high };
  }
  const styles = codes.map((code) => (code < 0 ? -1 : column.colours[code]));
  return { column, codes, colours: styles.map(colourOf), symbols: styles.map(symbolOf) };
}

function clusterShapes(scene) { // mean and covariance of each cluster, as projected
  const space = state.space, mixture = mixtureOf(space);
  if (!mixture || !byId("ellipses").checked || !state.projection.matrix) return [];
  const p = array(state.projection.matrix), d = space.n_dims, colours = coloursOf(mixture.module, mixture.names.length);
  if (!scene.kept) return mixture.mu.map((mu, k) => {
    if (mixture.weights[k] < 1e-4) return null;
    const covariance = range(3).map((a) => range(3).map((b) => {
      let value = 0;
      for (let i = 0; i < d; i++) for (let j = 0; j < d; j++) value += p[3 * i + a] * mixture.sigma[k][i * d + j] * p[3 * j + b];
      return value;
    }));
    return { mean: projected(space, mu), covariance, name: mixture.names[mixture.owners[k]], colour: colourOf(colours[mixture.owners[k]]) };
  }).filter(Boolean);
  if (!scene.kept.clusters) return [];
  const clusters = array(scene.kept.clusters);
  return mixture.names.map((name, k) => {
    const own = scene.places.filter((_, i) => clusters[i] === k);
    if (own.length < 3) return null;
    const mean = range(3).map((a) => sum(own.map((v) => v[a])) / own.length);
    const covariance = range(3).map((a) => range(3).map((b) => sum(own.map((v) => (v[a] - mean[a]) * (v[b] - mean[b]))) / own.length));
    return { mean, covariance, name, colour: colourOf(colours[k]) };
  }).filter(Boolean);
}
function outlines({ mean, covariance }, n) { // lines of two standard deviations, [x, y, z] each
  const lines = [], planes = n === 2 ? [[0, 1]] : [[0, 1], [0, 2], [1, 2]];
  const lower = cholesky(covariance.slice(0, n).flatMap((row) => row.slice(0, n)), n);
  for (const [a, b] of planes) {
    lines.push(range(49).map((i) => {
      const angle = (2 * Math.PI * i) / 48, unit = new Array(n).fill(0);
      unit[a] = 2 * Math.cos(angle);
      unit[b] = 2 * Math.sin(angle);
      return range(3).map((r) => mean[r] + (r < n ? sum(range(r + 1).map((c) => lower[r * n + c] * unit[c])) : 0));
    }));
  }
  return lines;
}

function trace(points, options, n) {
  const made = { hoverinfo: "skip", showlegend: false, x: points.map((p) => p && p[0]), y: points.map((p) => p && p[1]), ...options };
  if (n === 3) { made.z = points.map((p) => p && p[2]); made.type = "scatter3d"; } else made.type = options.type ?? "scatter";
  return made;
}

// Points are traces; what stands over them is, in two dimensions, shapes, which are quick to move.
let drawn = null; // the scene and its clusters that the plot shows
function drawPoints() {
  if (!window.Plotly) return null; // not loaded yet: all else works without
  const n = Number(byId("dimensions").value), now = scene(), look = looks(now), many = now.rows.length > 4000;
  const size = n === 3 ? (many ? 2 : 3) : many ? 4 : now.rows.length > 800 ? 6 : 8;
  const faint = (i) => state.highlight !== null && look.codes[i] !== state.highlight;
  const marker = look.column.kind === "number"
    ? { color: look.codes, cmin: look.low, cmax: look.high, colorscale: RAMP.map((c, i) => [i / (RAMP.length - 1), c]) }
    : { color: look.colours.map((c, i) => (faint(i) ? "#e3e7eb" : c)), symbol: look.symbols };
  const type = state.webgl && now.rows.length > 3000 ? "scattergl" : "scatter";
  const points = trace(now.places, { mode: "markers", customdata: now.rows, hoverinfo: "none", type,
    marker: { ...marker, size, opacity: n === 3 ? 1 : 0.75, line: { width: 0 } } }, n);
  drawn = { n, now, shapes: clusterShapes(now) };
  const axis = (title) => ({ title: { text: title, font: { size: 12 }, standoff: 4 }, zeroline: false, gridcolor: "#eceff2", tickfont: { size: 11, color: "#5b6876" } });
  const [x, y, z] = range(3).map((j) => axis(`${state.projection.name} ${j + 1}`));
  const layout = { hovermode: "closest", dragmode: n === 3 ? "turntable" : "pan", uirevision: `${n} ${state.space.name} ${state.projection.name}`,
    paper_bgcolor: "#fff", plot_bgcolor: "#fff", font: { family: getComputedStyle(document.body).fontFamily }, showlegend: false,
    ...(n === 3 ? { scene: { xaxis: x, yaxis: y, zaxis: z }, margin: { l: 0, r: 0, t: 0, b: 0 } } : { xaxis: x, yaxis: y, margin: { l: 42, r: 8, t: 8, b: 36 }, ...overlay() }) };
  const buttons = n === 3 ? ["orbitRotation", "tableRotation", "pan3d", "resetCameraDefault3d"] : ["pan2d", "zoom2d", "zoomIn2d", "zoomOut2d", "resetScale2d"];
  const config = { responsive: true, displaylogo: false, scrollZoom: true, modeBarButtons: [buttons] }; // none that would send anything
  explorer.points = { n: now.rows.length, rows: now.rows, places: now.places };
  return Plotly.react(byId("plot"), n === 3 ? [points, ...overlay3()] : [points], layout, config);
}
function drawOver() { // what moves while points stay
  if (!drawn || !window.Plotly) return null;
  if (drawn.n === 2) return Plotly.relayout(byId("plot"), overlay());
  return drawPoints();
}

function overlay() { // shapes and labels in two dimensions
  const { now, shapes } = drawn, space = state.space, ink = "#1c2733", place = (z) => placeOf(space, z);
  const line = (points, style) => ({ type: "path", path: points.map((p, i) => `${i ? "L" : "M"}${p[0]},${p[1]}`).join(""), line: style });
  const mark = (at, path, style) => ({ type: "path", path, xsizemode: "pixel", ysizemode: "pixel", xanchor: at[0], yanchor: at[1], line: style });
  const found = shapes.flatMap((shape) => outlines(shape, 2).map((points) => line(points, { color: shape.colour, width: 1.8 })));
  if (state.path.length) {
    const way = state.path.map(place);
    found.push(line(way, { color: ink, width: 2 }), ...way.map((at) => mark(at, "M-2,0L0,2L2,0L0,-2Z", { color: ink, width: 3 })));
  }
  if (state.tab === "draw") found.push(...state.draws.map((z) => mark(place(z), "M-4,-4L4,4M-4,4L4,-4", { color: ink, width: 2 })));
  const at = now.rows.indexOf(state.row);
  if (at >= 0) found.push({ type: "circle", xsizemode: "pixel", ysizemode: "pixel", xanchor: now.places[at][0], yanchor: now.places[at][1], x0: -8, x1: 8, y0: -8, y1: 8, line: { color: ink, width: 2.5 } });
  if (!atRow()) found.push(mark(place(state.z), "M-11,0L11,0M0,-11L0,11", { color: "#ffffff", width: 6 }), mark(place(state.z), "M-10,0L10,0M0,-10L0,10", { color: "#d3003f", width: 3 }));
  found.push(...shapes.map((shape) => mark(shape.mean, "M-2,0L0,2L2,0L0,-2Z", { color: shape.colour, width: 3 })));
  const annotations = shapes.map((shape) => ({ x: shape.mean[0], y: shape.mean[1], text: shape.name.replaceAll("<", "&lt;"), showarrow: false, font: { size: 12, color: ink },
    bgcolor: "#ffffffd9", bordercolor: shape.colour, borderwidth: 2, borderpad: 2, yshift: 16 }));
  return { shapes: found, annotations };
}
const atRow = () => latentOf(state.space, state.row).every((v, j) => v === state.z[j]); // where a ring is
function overlay3() { // the same as traces
  const { now, shapes } = drawn, space = state.space, ink = "#1c2733", place = (z) => placeOf(space, z), traces = [];
  for (const shape of shapes) {
    const points = outlines(shape, 3).flatMap((line) => [...line, null]);
    traces.push(trace(points, { mode: "lines", line: { color: shape.colour, width: 2.5 } }, 3));
  }
  if (shapes.length) traces.push(trace(shapes.map((s) => s.mean), { mode: "markers+text", text: shapes.map((s) => s.name), textfont: { size: 14, color: ink, family: "sans-serif" }, textposition: "top center", marker: { size: 5, color: shapes.map((s) => s.colour), line: { color: "#fff", width: 1 } } }, 3));
  if (state.path.length) traces.push(trace(state.path.map(place), { mode: "lines+markers", line: { color: ink, width: 4 }, marker: { size: 3, color: ink } }, 3));
  if (state.draws.length && state.tab === "draw") traces.push(trace(state.draws.map(place), { mode: "markers", marker: { symbol: "diamond-open", size: 6, color: ink } }, 3));
  const at = now.rows.indexOf(state.row);
  if (at >= 0) traces.push(trace([now.places[at]], { mode: "markers", marker: { symbol: "circle-open", size: 9, color: ink, line: { width: 3, color: ink } } }, 3));
  if (!atRow()) traces.push(trace([place(state.z)], { mode: "markers", marker: { symbol: "diamond", size: 8, color: "#d3003f" } }, 3));
  return traces;
}
const redraw = everyFrame(drawPoints), redrawOver = everyFrame(drawOver);

function drawLegend() {
  const look = looks(scene()), legend = byId("legend");
  if (look.column.kind === "number") {
    legend.replaceChildren(make("span", { class: "ramp" }, short(look.low), make("i", { style: `background:linear-gradient(90deg,${RAMP.join(",")})` }), short(look.high)));
    return;
  }
  const counts = new Map();
  for (const code of look.codes) counts.set(code, (counts.get(code) ?? 0) + 1);
  const codes = [...counts.keys()].sort((a, b) => (a < 0) - (b < 0) || a - b).slice(0, 60);
  legend.replaceChildren(...codes.map((code) => make("button", { type: "button", "aria-pressed": state.highlight === code, title: `${counts.get(code)} rows; click to show these alone`,
    onclick: () => { state.highlight = state.highlight === code ? null : code; drawLegend(); redraw(); } },
    sign(code < 0 ? -1 : look.column.colours[code]), code < 0 ? "unknown" : look.column.names[code])));
}
function sign(style) { // a point as the plot has it
  const shapes = { circle: "M6,1A5,5 0 1 0 6.01,1Z", diamond: "M6,0L12,6L6,12L0,6Z", square: "M1,1H11V11H1Z", cross: "M4,0H8V4H12V8H8V12H4V8H0V4H4Z", x: "M2,0L6,4L10,0L12,2L8,6L12,10L10,12L6,8L2,12L0,10L4,6L0,2Z" };
  return make("svg", { width: 12, height: 12, viewBox: "0 0 12 12" }, make("path", { d: shapes[symbolOf(style)], fill: colourOf(style) }));
}

function hovered(event) {
  const point = event.points.find((one) => one.customdata !== undefined), box = byId("hover");
  if (!point) return;
  const row = point.customdata, parts = [make("strong", {}, `row ${array(contents.rows)[row]}`)];
  for (const column of contents.columns.slice(0, 6)) parts.push(make("div", {}, `${column.name}: ${columnText(column, row)}`));
  for (const observation of contents.observations) {
    const values = rowsOf(observation, row);
    if (!values) continue;
    if (observation.kind === "table") parts.push(...valueTable(observation, values, null, 13));
    else parts.push(observation.kind === "image" ? picture(observation, values, 84) : barChart(observation, values, null, 150, 40));
  }
  box.replaceChildren(...parts);
  box.hidden = false;
  const { clientX: x, clientY: y } = event.event, { width, height } = box.getBoundingClientRect();
  box.style.left = `${Math.min(x + 16, innerWidth - width - 8)}px`;
  box.style.top = `${Math.max(8, Math.min(y + 12, innerHeight - height - 8))}px`;
}
function columnText(column, row) {
  const value = array(column.values)[row];
  return column.kind === "number" ? short(value) : value < 0 ? "unknown" : column.names[value];
}

function stepTo(direction) { // the nearest row in the direction of an arrow key
  const { rows, places } = scene(), here = places[Math.max(rows.indexOf(state.row), 0)];
  const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }, [x, y] = ways[direction];
  let best = null, least = Infinity;
  places.forEach((place, i) => {
    const dx = place[0] - here[0], dy = place[1] - here[1], along = dx * x + dy * y, aside = Math.abs(dx * y) + Math.abs(dy * x);
    if (along > aside && along > 0 && along + 2 * aside < least) { least = along + 2 * aside; best = rows[i]; }
  });
  if (best !== null) pick(best);
}

// -- a row ----------------------------------------------------------------------------------------

async function pick(row) {
  state.other = state.row;
  state.row = row;
  byId("number").value = array(contents.rows)[row];
  await goTo(latentOf(state.space, row));
  await showRow();
  if (state.tab === "morph") await showMorph();
}

async function showRow() {
  const row = state.row, made = await decode(state.space, latentOf(state.space, row)), parts = [];
  for (const observation of contents.observations) {
    const values = rowsOf(observation, row);
    const isSpace = state.space.name === observation.name;
    if (made[observation.name] && !isSpace) parts.push(figures(observation, values, made[observation.name], [observation.name, "reconstructed"]));
    else if (values && !(observation.kind === "counts" && contents.expected.some((one) => one.of === observation.name))) parts.push(figures(observation, values, null, [observation.name]));
    parts.push(...await expectedOf(observation, row, values));
  }
  const bars = contents.classes.map(({ module, names, probabilities, told }) => {
    const k = names.length, cut = (ref) => array(ref).subarray(row * k, (row + 1) * k), columns = { [module]: cut(probabilities) };
    for (const [child, said] of Object.entries(told)) columns[`${child} says`] = cut(said);
    return classBars(names, columns, coloursOf(module, k));
  });
  byId("row-body").replaceChildren(...parts, ...bars);
  byId("row-classes").replaceChildren(...contents.columns.filter((column) => column.kind === "class").map((column) => {
    const value = array(column.values)[row];
    return make("span", { class: "chip" }, sign(value < 0 ? -1 : column.colours[value]), `${column.name}: ${columnText(column, row)}`);
  }));
}

// What another modality alone lets expect of an observation: one is seen, the other heard.
async function expectedOf(observation, row, values) {
  const parts = [];
  for (const entry of contents.expected.filter((one) => one.of === observation.name)) {
    const caption = `expected from ${entry.from} alone`;
    const means = Object.values(entry.by_cluster).reverse().find((one) => one.means);
    if (entry.values || means) {
      const n = observation.size, made = entry.values ? array(entry.values).subarray(row * n, (row + 1) * n) : blend(means, row, n);
      parts.push(figures(observation, observation.kind === "counts" ? values : null, made, observation.kind === "counts" ? [observation.name, caption] : [caption]));
    } else {
      const space = contents.spaces.find((one) => one.mixture && one.decoder?.outputs.some((o) => o.observation === observation.name) && entry.by_cluster[one.mixture.module]);
      if (!space) continue;
      const mixture = mixtureOf(space), k = mixture.names.length;
      const cluster = largest(array(entry.by_cluster[space.mixture.module].probabilities).subarray(row * k, (row + 1) * k));
      const component = range(mixture.mu.length).find((k) => mixture.owners[k] === cluster);
      const made = (await decode(space, mixture.mu[component]))[observation.name];
      parts.push(make("div", { class: "figures" }, captioned(caption, picture(observation, made, 112))));
    }
  }
  return parts;
}

function blend({ probabilities, means }, row, n) { // the classes' means, by how probable they are
  const k = array(means).length / n, p = array(probabilities).subarray(row * k, (row + 1) * k);
  return mixed(p, array(means), n);
}
const mixed = (p, means, n) => Float32Array.from(range(n), (j) => sum(Array.from(p, (share, i) => share * means[i * n + j])));

// -- sliders --------------------------------------------------------------------------------------

function makeSliders() {
  const space = state.space;
  byId("sliders").replaceChildren(...space.sliders.map((j) => {
    const low = space.low[j], high = space.high[j], margin = 0.1 * (high - low) || 1;
    const value = make("output"), slider = make("input", { type: "range", min: low - margin, max: high + margin, step: "any", "data-dimension": j, "aria-label": space.names[j] });
    const step = (high - low) / 50 || 0.1;
    slider.addEventListener("input", () => { state.z[j] = Number(slider.value); value.textContent = short(state.z[j]); showDecoded(); redrawOver(); });
    slider.addEventListener("keydown", (event) => { // "any" has no steps of its own
      const way = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
      if (!way) return;
      event.preventDefault();
      slider.value = Number(slider.value) + way * step;
      slider.dispatchEvent(new Event("input"));
    });
    return make("label", { title: space.names[j] }, make("span", {}, space.names[j]), slider, value);
  }));
  byId("latent-body").classList.toggle("wide", space.decoder?.outputs.some((o) => observationOf(o.observation).kind !== "image") ?? false);
}
async function goTo(z) {
  state.z = Float32Array.from(z);
  for (const slider of byId("sliders").querySelectorAll("input")) {
    slider.value = state.z[slider.dataset.dimension];
    slider.nextSibling.textContent = short(state.z[slider.dataset.dimension]);
  }
  redrawOver();
  await showDecoded();
}

let turn = 0; // so that of decodings that overlap the last one counts
async function showDecoded() {
  const space = state.space, mine = ++turn, start = performance.now(), z = Float32Array.from(state.z), made = await decode(space, z);
  if (mine !== turn) return;
  explorer.decoded = { z, values: made, milliseconds: performance.now() - start };
  const box = byId("decoded"), parts = [];
  for (const [name, values] of Object.entries(made)) {
    const observation = observationOf(name), before = box.querySelector(`canvas[data-of="${CSS.escape(name)}"]`);
    if (observation.kind === "image") {
      const canvas = before ?? picture(observation, values, 168);
      canvas.dataset.of = name;
      paint(canvas, observation, values);
      parts.push(canvas);
    } else if (space.name !== name) parts.push(figures(observation, null, values, ["", "decoded"]));
  }
  if (space.mixture) {
    const mixture = mixtureOf(space), r = responsibilities(space, z);
    explorer.decoded.responsibilities = r;
    parts.push(...heard(space, r));
    parts.push(classBars(mixture.names, { [`P(k | ${observationOf(space.name) ? "x" : "z"})`]: r }, coloursOf(mixture.module, r.length)));
    byId("density").textContent = `log density ${logDensity(space, z).toFixed(1)} nats`;
  } else byId("density").textContent = "";
  if (!space.decoder) parts.push(make("p", { class: "hint" }, `${space.name} decodes in Python only.`));
  box.replaceChildren(...parts);
}
function heard(space, r) { // what the clusters let expect of the other modalities
  const own = (space.decoder?.outputs ?? []).map((output) => output.observation), parts = [];
  for (const entry of contents.expected) {
    const means = entry.by_cluster[space.mixture.module]?.means, observation = observationOf(entry.of);
    if (!means || !own.includes(entry.from) || own.includes(entry.of)) continue;
    const values = mixed(r, array(means), observation.size);
    explorer.decoded.heard = { ...explorer.decoded.heard, [entry.of]: values };
    parts.push(figures(observation, values, null, [`${entry.of} expected`]));
  }
  return parts;
}

// -- draw, morph, walk ----------------------------------------------------------------------------

async function thumbsOf(zs, box, onpick) {
  const parts = [];
  for (const [i, z] of zs.entries()) {
    const made = await decode(state.space, z), [name, values] = Object.entries(made)[0] ?? [];
    const content = name ? thumb(observationOf(name), values, 60) : document.createTextNode(`${i + 1}`);
    parts.push(make("button", { type: "button", "aria-label": `number ${i + 1}`, onclick: () => onpick(i) }, content));
  }
  box.replaceChildren(...parts);
}
async function drawSome() {
  if (!state.space.mixture) return;
  const source = byId("draw-from").value;
  state.draws = range(12).map(() => drawnFrom(state.space, componentOf(state.space, source)));
  explorer.draws = state.draws;
  await thumbsOf(state.draws, byId("draws"), (i) => goTo(state.draws[i]));
  redrawOver();
}
async function showMorph() {
  const space = state.space, n = 11;
  state.path = PATHS[byId("path").value](space, Float32Array.from(latentOf(space, state.other)), Float32Array.from(latentOf(space, state.row)), n);
  explorer.path = state.path;
  const numbers = array(contents.rows);
  byId("morph-ends").textContent = `row ${numbers[state.other]} to row ${numbers[state.row]}`;
  await thumbsOf(state.path, byId("frames"), morphTo);
  redrawOver();
}
async function morphTo(i) {
  byId("morph-at").value = i;
  [...byId("frames").children].forEach((frame, j) => frame.setAttribute("aria-current", i === j));
  await goTo(state.path[i]);
}
async function walkOn() {
  const space = state.space, mixture = mixtureOf(space), k = state.walk.component, d = space.n_dims, keep = 0.9;
  const fresh = drawnFrom(space, k), noise = Math.sqrt(1 - keep * keep); // an Ornstein-Uhlenbeck step: the cluster stays its distribution
  const z = Float32Array.from(range(d), (j) => mixture.mu[k][j] + keep * (state.z[j] - mixture.mu[k][j]) + noise * (fresh[j] - mixture.mu[k][j]));
  state.path = [...state.path.slice(-30), z];
  explorer.walk = { component: k, n: (explorer.walk?.n ?? 0) + 1 };
  await goTo(z);
  const made = Object.entries(await decode(space, z))[0];
  if (!made) return;
  byId("walked").append(make("span", {}, thumb(observationOf(made[0]), made[1], 60)));
  if (byId("walked").children.length > 16) byId("walked").firstChild.remove();
}
const timers = {};
function play(button, step, pause) { // a button that starts and stops something
  const [start, name] = [button.textContent, button.id];
  button.addEventListener("click", async () => {
    if (timers[name]) return stop();
    button.textContent = "Stop";
    const mine = (timers[name] = {});
    while (timers[name] === mine && (await step()) !== false) await new Promise((done) => setTimeout(done, pause));
    if (timers[name] === mine) stop();
  });
  function stop() { timers[name] = null; button.textContent = start; }
}

// -- the pen --------------------------------------------------------------------------------------

function makePen() {
  const encoder = state.space.encoder, observation = encoder && observationOf(encoder.observation);
  const can = observation?.kind === "image";
  byId("tab-pen").hidden = !can;
  if (!can) return;
  const [, h, w] = observation.image, paper = byId("paper");
  Object.assign(paper, { width: w, height: h });
  paper.style.height = `${(196 * h) / w}px`;
  state.pen = { observation, ink: new Float32Array(h * w), centre: centreOf(observation) };
  byId("pen-width").value = Math.max(0.6, h / 22);
  clearPen();
}
function centreOf(observation) { // the mean centre of mass of the rows' ink
  const [channels, h, w] = observation.image, n = Math.min(contents.n_rows, 200);
  let x = 0, y = 0, mass = 0;
  for (let row = 0; row < n; row++) {
    const values = array(observation.rows).subarray(row * observation.size, row * observation.size + h * w);
    values.forEach((v, i) => { mass += v; x += v * (i % w); y += v * Math.floor(i / w); });
  }
  return [x / (mass || 1), y / (mass || 1)];
}
function clearPen() {
  state.pen.ink.fill(0);
  showPaper();
  byId("penned").replaceChildren();
}
function showPaper() {
  const { observation, ink } = state.pen;
  paint(byId("paper"), observation, inUnits(observation, ink));
}
function inUnits(observation, ink) { // ink from 0 to 1, the same in all channels
  const [channels] = observation.image, values = Float32Array.from(ink, (v) => observation.low + v * (observation.high - observation.low));
  return channels === 1 ? values : Float32Array.from(range(channels).flatMap(() => Array.from(values)));
}
function inked(from, to) { // a soft line on the paper
  const { observation, ink } = state.pen, [, h, w] = observation.image, radius = Number(byId("pen-width").value) / 2;
  for (let y = 0; y < h; y++) for (let x = 0; x < w; x++) {
    const dx = to[0] - from[0], dy = to[1] - from[1], long = dx * dx + dy * dy;
    const t = long ? clipped(((x - from[0]) * dx + (y - from[1]) * dy) / long, 0, 1) : 0;
    const distance = Math.hypot(x - from[0] - t * dx, y - from[1] - t * dy);
    ink[y * w + x] = Math.max(ink[y * w + x], clipped(radius + 0.5 - distance, 0, 1));
  }
}
function centred(ink, [, h, w], [cx, cy]) { // moved, between pixels too, so that its centre of mass is there
  let x = 0, y = 0, mass = 0;
  ink.forEach((v, i) => { mass += v; x += v * (i % w); y += v * Math.floor(i / w); });
  if (!mass || !byId("pen-centre").checked) return ink;
  const dx = cx - x / mass, dy = cy - y / mass, at = (i, j) => (i < 0 || j < 0 || i >= h || j >= w ? 0 : ink[i * w + j]);
  return Float32Array.from(range(h * w), (place) => {
    const i = Math.floor(place / w) - dy, j = (place % w) - dx, a = Math.floor(i), b = Math.floor(j), s = i - a, t = j - b;
    return (1 - s) * (1 - t) * at(a, b) + (1 - s) * t * at(a, b + 1) + s * (1 - t) * at(a + 1, b) + s * t * at(a + 1, b + 1);
  });
}
async function encodePen() {
  const { observation, ink, centre } = state.pen, moved = centred(ink, observation.image, centre), row = inUnits(observation, moved);
  const z = await through(state.space.encoder, row);
  explorer.penned = { row, z };
  await goTo(z);
  const made = (await decode(state.space, z))[observation.name], parts = [captioned("as encoded", picture(observation, row, 84))];
  if (made) parts.push(captioned("decoded again", picture(observation, made, 84)));
  if (state.space.mixture) {
    const mixture = mixtureOf(state.space), r = responsibilities(state.space, z);
    const best = largest(r), colours = coloursOf(mixture.module, r.length);
    parts.push(make("div", {}, make("span", { class: "chip" }, "cluster ", sign(colours[best]), `${mixture.names[best]}, probability ${r[best].toFixed(2)}`)));
  }
  byId("penned").replaceChildren(...parts);
}
function bindPen() {
  const paper = byId("paper"), showNow = everyFrame(showPaper), encodeNow = everyFrame(encodePen);
  let last = null;
  const place = (event) => {
    const box = paper.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * paper.width - 0.5, ((event.clientY - box.top) / box.height) * paper.height - 0.5];
  };
  paper.addEventListener("pointerdown", (event) => { last = place(event); paper.setPointerCapture(event.pointerId); inked(last, last); showNow(); });
  paper.addEventListener("pointermove", (event) => {
    if (!last) return;
    const next = place(event);
    inked(last, next);
    last = next;
    showNow();
    encodeNow();
  });
  paper.addEventListener("pointerup", () => { last = null; encodeNow(); });
  byId("pen-clear").addEventListener("click", clearPen);
  byId("pen-row").addEventListener("click", () => {
    const { observation, ink } = state.pen, values = rowsOf(observation, state.row);
    if (!values) return;
    ink.forEach((_, i) => (ink[i] = (values[i] - observation.low) / (observation.high - observation.low || 1)));
    showPaper();
    encodePen();
  });
}

// -- rounds ---------------------------------------------------------------------------------------

function showRound() {
  const rounds = state.space.rounds, at = Number(byId("round").value), now = rounds[at];
  const entry = contents.history.find((one) => one.round === now?.round) ?? contents.history[contents.history.length - 1] ?? {};
  const numbers = ["accuracy", "objective"].filter((key) => entry[key] !== undefined).map((key) => `${key} ${key === "accuracy" ? entry[key].toFixed(3) : entry[key].toFixed(1)}`);
  byId("round-text").textContent = [now ? `after round ${now.round}` : "now, all rows shown", ...numbers].join(", ");
  byId("curves").replaceChildren(...["accuracy", "objective"].map((key) => curve(key, entry.round)).filter(Boolean));
  explorer.round = now?.round ?? null;
  drawLegend();
  redraw();
}
function curve(key, round) {
  const points = contents.history.filter((one) => one[key] !== undefined), width = 340, height = 84;
  if (points.length < 2) return null;
  const values = points.map((one) => one[key]), low = Math.min(...values), high = Math.max(...values), first = points[0].round, last = points[points.length - 1].round;
  const x = (r) => 52 + ((width - 64) * (r - first)) / (last - first || 1), y = (v) => height - 18 - ((height - 36) * (v - low)) / (high - low || 1);
  const text = (content, options) => make("text", { "font-size": 11, fill: "#5b6876", ...options }, content);
  const format = (v) => v.toFixed(key === "accuracy" ? 3 : high - low < 1 ? 2 : 1), here = points.find((one) => one.round === round);
  return make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${key} by round` },
    text(key === "objective" ? "objective (nats per row)" : key, { x: 52, y: 11 }), text(format(high), { x: 46, y: y(high) + 4, "text-anchor": "end" }), text(format(low), { x: 46, y: y(low) + 4, "text-anchor": "end" }),
    text(`round ${first}`, { x: 52, y: height - 3 }), text(last, { x: width - 12, y: height - 3, "text-anchor": "end" }),
    make("polyline", { points: points.map((one) => `${x(one.round)},${y(one[key])}`).join(" "), fill: "none", stroke: "#005a9c", "stroke-width": 1.8 }),
    here ? make("circle", { cx: x(here.round), cy: y(here[key]), r: 4.5, fill: "#d86000" }) : null);
}

// -- the graph ------------------------------------------------------------------------------------

function drawGraph() {
  const nodes = contents.nodes, named = Object.fromEntries(nodes.map((node) => [node.name, node])), level = {};
  for (const node of nodes) level[node.name] = node.parents.length ? 1 + Math.max(...node.parents.map((parent) => level[parent])) : 0;
  for (const node of nodes) { // an observation stands just below the first that reads it
    const children = nodes.filter((other) => other.parents.includes(node.name));
    if (!node.parents.length && children.length) level[node.name] = Math.min(...children.map((child) => level[child.name])) - 1;
  }
  const W = 152, H = 56, depth = Math.max(...Object.values(level)), flat = depth < 3; // deep graphs stand upright
  const counts = {}, place = {};
  for (const node of [...nodes].sort((a, b) => !a.parents.length - !b.parents.length)) { // observations beside the modules
    const at = level[node.name], i = (counts[at] = (counts[at] ?? -1) + 1);
    place[node.name] = flat ? [at * (W + 104), i * (H + 30)] : [i * (W + 100), (depth - at) * (H + 46)];
  }
  const across = Math.max(...nodes.map((node) => place[node.name][0])) + W, down = Math.max(...nodes.map((node) => place[node.name][1])) + H;
  const edge = flat ? 8 : 30, wide = across + 2 * edge;
  const svg = make("svg", { viewBox: `${-edge} -8 ${wide} ${down + 16}`, style: `max-width:${wide}px;min-width:${0.6 * wide}px` });
  const button = (label, show, ...content) => {
    const group = make("g", { role: "button", tabindex: 0, "aria-label": label }, ...content);
    const go = () => { svg.querySelectorAll(".picked").forEach((one) => one.classList.remove("picked")); group.classList.add("picked"); show(); };
    group.addEventListener("click", go);
    group.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); go(); } });
    return group;
  };
  const labels = []; // over all arrows
  const arrow = (from, to, kind, title, facts, side) => {
    const up = side < 0, [x0, y0] = from, [x1, y1] = to;
    const a = flat ? [x0 + (up ? W : 0), y0 + H / 2 + side] : [x0 + W / 2 + 4 * side, y0 + (up ? 0 : H)];
    const b = flat ? [x1 + (up ? 0 : W), y1 + H / 2 + side] : [x1 + W / 2 + 4 * side, y1 + (up ? H : 0)];
    const dx = b[0] - a[0], dy = b[1] - a[1], long = Math.hypot(dx, dy) || 1, tip = [(dx / long) * 7, (dy / long) * 7];
    const at = flat || x0 === x1 ? 0.5 : up ? 0.3 : 0.7; // beside the lower end of slanting ones
    const middle = [a[0] + at * (b[0] - a[0]) + (flat ? 0 : 3 * side), a[1] + at * (b[1] - a[1]) + (flat ? 1.4 * side : 0)];
    svg.append(make("path", { d: `M${a}L${b[0] - tip[0]},${b[1] - tip[1]}`, fill: "none", stroke: "#5b6876", "stroke-width": 1.3, "stroke-dasharray": side > 0 ? "4 3" : null }),
      make("path", { d: `M${b}L${b[0] - tip[0] - tip[1] / 2},${b[1] - tip[1] + tip[0] / 2}L${b[0] - tip[0] + tip[1] / 2},${b[1] - tip[1] - tip[0] / 2}Z`, fill: "#5b6876" }));
    labels.push(button(`${title}: ${kind}`, () => tell(title, kind, facts), make("rect", { x: middle[0] - 39, y: middle[1] - 9, width: 78, height: 17, rx: 4, fill: "#ffffffe6", stroke: "none" }),
        make("text", { x: middle[0], y: middle[1] + 4, "text-anchor": "middle", class: "soft" }, kind)));
  };
  for (const node of nodes) for (const parent of node.parents) {
    const up = named[parent].up, message = node.down[parent];
    if (up) arrow(place[parent], place[node.name], up.kind, `${parent} to ${node.name}`, up.facts, -8);
    if (message) arrow(place[node.name], place[parent], message.kind, `${node.name} to ${parent}`, message.facts, 8);
  }
  svg.append(...labels);
  for (const node of nodes) {
    const [x, y] = place[node.name], fill = node.parents.length ? "#e3eef8" : "#eceff2", fits = (text) => (text.length > 24 ? `${text.slice(0, 23)}…` : text);
    svg.append(button(`${node.name}, ${node.kind}`, () => tell(node.name, `${node.kind}, ${node.facts}`, node.report, node.up),
      make("rect", { x, y, width: W, height: H, rx: 7, fill, stroke: "#8fa3b5" }),
      make("text", { x: x + W / 2, y: y + 18, "text-anchor": "middle", "font-weight": 600 }, fits(node.name)),
      make("text", { x: x + W / 2, y: y + 33, "text-anchor": "middle", class: "soft" }, fits(node.kind)),
      make("text", { x: x + W / 2, y: y + 47, "text-anchor": "middle", class: "soft" }, fits(node.facts))));
  }
  byId("drawing").replaceChildren(svg);
}
function tell(title, kind, facts, up) {
  const list = (entries) => make("dl", {}, ...Object.entries(entries).flatMap(([key, value]) => [make("dt", {}, key), make("dd", {}, value)]));
  const parts = [make("strong", {}, title), ` (${kind})`, list(facts)];
  if (up) parts.push(make("div", { style: "margin-top:6px" }, `sends ${up.kind}:`), list(up.facts));
  byId("message").replaceChildren(...parts);
}

// -- putting it together --------------------------------------------------------------------------

function fill(select, values, texts = values) {
  select.replaceChildren(...values.map((value, i) => make("option", { value }, texts[i])));
}
async function enterSpace(name) {
  const space = (state.space = contents.spaces.find((one) => one.name === name)), mixture = space.mixture;
  byId("map-title").textContent = observationOf(name) ? "Rows" : space.is_classes ? "Classes" : "Latents";
  byId("ellipses").closest("label").hidden = !mixture;
  byId("latent").hidden = byId("make").hidden = !space.decoder && !mixture;
  fill(byId("projection"), space.projections.map((one) => one.name));
  state.projection = space.projections[0];
  state.draws = [];
  state.path = [];
  const clusters = mixture ? mixture.names.map((_, k) => `cluster ${k}`) : [], parts = mixture && mixture.weights.length > mixture.names.length ? mixture.weights.map((_, k) => `component ${k}`) : [];
  fill(byId("draw-from"), ["all", ...clusters, ...parts], ["the whole mixture", ...(mixture?.names ?? []).map((one) => `cluster ${one}`), ...parts]);
  fill(byId("walk-in"), clusters, mixture?.names ?? []);
  fill(byId("path"), Object.keys(PATHS).filter((one) => mixture || one !== "densest path"));
  byId("tab-draw").hidden = byId("tab-walk").hidden = !mixture;
  byId("rounds").hidden = !space.rounds.length && contents.history.filter((one) => one.accuracy !== undefined || one.objective !== undefined).length < 2;
  Object.assign(byId("round"), { max: space.rounds.length, value: space.rounds.length });
  byId("round").hidden = byId("round-play").hidden = !space.rounds.length;
  byId("draws").replaceChildren();
  makeSliders();
  makePen();
  openTab(mixture ? "draw" : "morph");
  await pick(state.row);
  showRound();
}
function openTab(name) {
  state.tab = name;
  for (const tab of document.querySelectorAll('[role="tab"]')) {
    const is = tab.id === `tab-${name}`;
    tab.setAttribute("aria-selected", is);
    tab.tabIndex = is ? 0 : -1;
    byId(tab.getAttribute("aria-controls")).hidden = !is;
  }
  if (name !== "walk" && timers["walk-go"]) byId("walk-go").click();
  state.path = [];
  if (name === "morph" && state.z) showMorph();
  else if (state.z) redrawOver();
}
const neighbour = (step) => pick((state.row + step + contents.n_rows) % contents.n_rows);
function moveRound(step) {
  const slider = byId("round");
  slider.value = Number(slider.value) + step;
  showRound();
}

function bind() {
  byId("space").addEventListener("change", (event) => enterSpace(event.target.value));
  byId("projection").addEventListener("change", (event) => { state.projection = state.space.projections.find((one) => one.name === event.target.value); redraw(); });
  byId("dimensions").addEventListener("change", redraw);
  byId("ellipses").addEventListener("change", redraw);
  byId("colour").addEventListener("change", () => { state.highlight = null; drawLegend(); redraw(); });
  byId("round").addEventListener("input", showRound);
  byId("previous").addEventListener("click", () => neighbour(-1));
  byId("next").addEventListener("click", () => neighbour(1));
  byId("number").addEventListener("change", (event) => { // the row of that number, or the next one that is shown
    const at = array(contents.rows).findIndex((row) => row >= Number(event.target.value));
    pick(at < 0 ? contents.n_rows - 1 : at);
  });
  byId("to-row").addEventListener("click", () => goTo(latentOf(state.space, state.row)));
  byId("to-centre").addEventListener("click", () => goTo(centreOfRows()));
  byId("draw-go").addEventListener("click", drawSome);
  byId("path").addEventListener("change", showMorph);
  byId("morph-at").addEventListener("input", (event) => morphTo(Number(event.target.value)));
  play(byId("morph-play"), async () => { await morphTo((Number(byId("morph-at").value) + 1) % 11); }, 180);
  play(byId("walk-go"), async () => {
    const source = `cluster ${byId("walk-in").value.split(" ")[1]}`;
    if (state.walk?.source !== source) {
      state.walk = { source, component: componentOf(state.space, source) };
      state.path = [];
      await goTo(drawnFrom(state.space, state.walk.component));
    }
    await walkOn();
  }, 160);
  play(byId("round-play"), async () => {
    const slider = byId("round"), ended = Number(slider.value) >= Number(slider.max);
    if (ended && !timers.started) { slider.value = 0; timers.started = true; showRound(); return true; }
    if (ended) { timers.started = false; return false; }
    timers.started = true;
    moveRound(1);
    return true;
  }, 700);
  const tabs = [...document.querySelectorAll('[role="tab"]')];
  tabs.forEach((tab) => {
    tab.addEventListener("click", () => openTab(tab.id.slice(4)));
    tab.addEventListener("keydown", (event) => {
      const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key], shown = tabs.filter((one) => !one.hidden);
      if (!way) return;
      const next = shown[(shown.indexOf(tab) + way + shown.length) % shown.length];
      openTab(next.id.slice(4));
      next.focus();
    });
  });
  byId("plot").addEventListener("keydown", (event) => { if (event.key.startsWith("Arrow")) { event.preventDefault(); stepTo(event.key); } });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    const keys = { ",": () => neighbour(-1), ".": () => neighbour(1), "[": () => moveRound(-1), "]": () => moveRound(1), d: () => { openTab("draw"); drawSome(); },
      e: () => byId("ellipses").click() };
    keys[event.key]?.();
  });
  bindPen();
}
function centreOfRows() {
  const space = state.space, all = array(space.latents), mean = new Float32Array(space.n_dims);
  all.forEach((v, i) => (mean[i % space.n_dims] += v / contents.n_rows));
  return mean;
}

// What torch made of a few rows, against what the page makes of them.
async function checkNets() {
  const wrong = [];
  for (const space of contents.spaces) for (const kind of ["decoder", "encoder"]) {
    const net = space[kind];
    if (!net) continue;
    const { n, rows, wanted, tolerance } = net.probes, size = array(rows).length / n, out = array(wanted).length / n;
    for (let i = 0; i < n; i++) {
      const made = await through(net, array(rows).subarray(i * size, (i + 1) * size));
      const difference = made.reduce((most, v, j) => Math.max(most, Math.abs(v - array(wanted)[i * out + j])), 0);
      if (!(difference <= tolerance)) wrong.push(`${space.name}'s ${kind} by ${difference.toPrecision(2)}`);
    }
  }
  explorer.wrong = wrong;
  if (wrong.length) complain(`What this browser decodes differs from torch: ${[...new Set(wrong)].join(", ")}.`);
}
function complain(text) {
  byId("problem").textContent = text;
  byId("problem").hidden = false;
}

async function start() {
  const bytes = await inflated(byId("blob").textContent), known = new Map();
  array = (reference) => {
    const key = `${reference}`;
    if (!known.has(key)) known.set(key, unpacked(bytes, reference));
    return known.get(key);
  };
  const { n_rows: n, n_all: all } = contents, counted = n < all ? `${n.toLocaleString("en")} of ${all.toLocaleString("en")}` : n.toLocaleString("en");
  byId("facts").textContent = `${counted} rows, ${contents.spaces[0].n_dims} ${observationOf(contents.spaces[0].name) ? "columns" : contents.spaces[0].is_classes ? "classes" : "latent dimensions"}`;
  fill(byId("space"), contents.spaces.map((space) => space.name));
  byId("space-label").hidden = contents.spaces.length < 2;
  fill(byId("colour"), contents.columns.map((column) => column.name));
  drawGraph();
  bind();
  await enterSpace(contents.spaces[0].name);
  await drawSome();
  await checkNets();
  explorer.usable = performance.now();
  await loadPlotly();
  await drawPoints();
  byId("plot").on("plotly_click", (event) => { const point = event.points.find((one) => one.customdata !== undefined); if (point) pick(point.customdata); });
  byId("plot").on("plotly_hover", hovered);
  byId("plot").on("plotly_unhover", () => (byId("hover").hidden = true));
  explorer.complete = performance.now();
}
async function loadPlotly() { // last, as it takes longest
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  const script = make("script");
  script.textContent = new TextDecoder().decode(await inflated(byId("plotly").textContent));
  document.head.append(script);
  state.webgl = !!document.createElement("canvas").getContext("webgl");
}
Object.assign(explorer, { array: (reference) => array(reference), pick, goTo, decode: (z) => decode(state.space, z), responsibilities: (z) => responsibilities(state.space, z), state });
explorer.ready = start().catch((error) => { complain(`This page cannot be shown: ${error.message}`); throw error; });
