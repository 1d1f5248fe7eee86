// From a picture's pixels to boxes, with an exported .onnx file and onnxruntime-web. Knows nothing of the page.
import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs";

/** Protobuf's fields of `bytes`, one level deep: yields [number, payload] of those with a length. */
function* fields(bytes) {
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      if (at >= bytes.length) throw new Error("the file is cut off");
      const byte = bytes[at++];
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const tag = varint();
    const kind = tag % 8;
    if (kind === 0) varint();
    else if (kind === 1) at += 8;
    else if (kind === 5) at += 4;
    else if (kind === 2) {
      const length = varint();
      if (at + length > bytes.length) throw new Error("the file is cut off");
      yield [Math.floor(tag / 8), bytes.subarray(at, (at += length))];
    } else throw new Error("not an .onnx file");
  }
}

/** What export.py wrote into an .onnx file (names, layout, imgsz, …). onnxruntime-web does not show it, so read it here. */
export function readMetadata(bytes) {
  const text = new TextDecoder();
  for (const [number, entry] of fields(bytes)) {
    if (number !== 14) continue; // metadata_props of ONNX's ModelProto; an entry is { 1: key, 2: value }
    const { 1: key, 2: value } = Object.fromEntries([...fields(entry)].map(([k, v]) => [k, text.decode(v)]));
    if (key === "yolov5") return JSON.parse(value);
  }
  throw new Error("not made by this project's export.py");
}

/** As Python rounds: a half goes to the even neighbour. */
const rounded = (value) => (value % 1 === 0.5 ? 2 * Math.round(value / 2) : Math.round(value));

const limited = (value, least, most) => Math.min(Math.max(value, least), most);

/** Linear interpolation along one axis: for each of `count` places, two neighbours among `cells` and the second's share. */
function taps(count, cells, place) {
  return Array.from({ length: count }, (_, i) => {
    const at = limited(place(i), 0, cells - 1);
    return [Math.floor(at), Math.min(Math.floor(at) + 1, cells - 1), at - Math.floor(at)];
  });
}

/** What `taps` gives for a picture of `cells` pixels resized to `count`, shares in 2048ths, as OpenCV's resize has them. */
const resizing = (count, cells) =>
  taps(count, cells, (i) => ((i + 0.5) * cells) / count - 0.5).map(([low, high, share]) => [
    low,
    high,
    Math.round((1 - share) * 2048),
    Math.round(share * 2048),
  ]);

/**
 * RGB 0..1 planes (3 × height × width) of `image` (ImageData) fitted into that size, and where it lies there. Resized as
 * OpenCV's bilinear one does, to the bit: a grey level can move an unsure box by pixels.
 */
export function letterbox(image, width, height) {
  const ratio = Math.min(width / image.width, height / image.height);
  const [w, h] = [rounded(image.width * ratio), rounded(image.height * ratio)];
  const [left, top] = [Math.round((width - w) / 2 - 0.1), Math.round((height - h) / 2 - 0.1)];
  const data = new Float32Array(3 * width * height).fill(114 / 255);
  const columns = resizing(w, image.width);
  resizing(h, image.height).forEach(([y0, y1, upper, lower], y) => {
    const [row0, row1] = [y0 * image.width, y1 * image.width];
    for (let x = 0; x < w; x++) {
      const [x0, x1, former, latter] = columns[x];
      for (let c = 0; c < 3; c++) {
        const value = (row, column) => image.data[(row + column) * 4 + c];
        const above = value(row0, x0) * former + value(row0, x1) * latter;
        const below = value(row1, x0) * former + value(row1, x1) * latter;
        const sum = ((upper * (above >> 4)) >> 16) + ((lower * (below >> 4)) >> 16);
        data[(c * height + top + y) * width + left + x] = ((sum + 2) >> 2) / 255;
      }
    }
  });
  return { data, ratio, pad: [(width - image.width * ratio) / 2, (height - image.height * ratio) / 2] };
}

/** Rows of a (1, N, C) tensor. */
const rowsOf = ({ data, dims }) =>
  Array.from({ length: dims[1] }, (_, i) => data.subarray(i * dims[2], (i + 1) * dims[2]));

/** Candidates { box: [x1, y1, x2, y2] in the input, score, cls, coefficients } above `conf`, whatever the layout. */
function candidates(outputs, metadata, conf) {
  const found = [];
  if (metadata.layout === "nms") {
    for (const row of rowsOf(outputs.detections))
      if (row[4] > conf) found.push({ box: [...row.slice(0, 4)], score: row[4], cls: row[5], coefficients: row.slice(6) });
    return found;
  }
  const [nc, separate] = [Object.keys(metadata.names).length, metadata.layout === "separate"];
  const [boxes, scores] = separate ? [rowsOf(outputs.boxes), rowsOf(outputs.scores)] : [rowsOf(outputs.output0), null];
  const masks = separate && outputs.coefficients ? rowsOf(outputs.coefficients) : null;
  boxes.forEach((row, i) => {
    const objectness = separate ? 1 : row[4];
    if (objectness <= conf) return;
    const each = separate ? scores[i] : row.subarray(5, 5 + nc);
    let cls = 0;
    for (let c = 1; c < nc; c++) if (each[c] > each[cls]) cls = c;
    const score = each[cls] * objectness;
    if (score <= conf) return;
    const [x, y, w, h] = row;
    const coefficients = separate ? (masks?.[i] ?? []) : row.slice(5 + nc).map((value) => value * objectness);
    found.push({ box: [x - w / 2, y - h / 2, x + w / 2, y + h / 2], score, cls, coefficients });
  });
  return found;
}

function overlap([ax1, ay1, ax2, ay2], [bx1, by1, bx2, by2]) {
  const shared = Math.max(0, Math.min(ax2, bx2) - Math.max(ax1, bx1)) * Math.max(0, Math.min(ay2, by2) - Math.max(ay1, by1));
  return shared / ((ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - shared);
}

/** The best first, less those that a better one of their class overlaps by more than `iou`. */
function suppress(found, iou) {
  const kept = [];
  for (const one of found.sort((a, b) => b.score - a.score))
    if (!kept.some((other) => other.cls === one.cls && overlap(other.box, one.box) > iou)) kept.push(one);
  return kept;
}

/**
 * The picture's pixels inside a mask: { left, top, width, height, inside (0 or 1 a pixel) }. `box` is in the picture,
 * which lies at `pad` with `ratio` in a network input of `size` [width, height]; `prototypes` cover that input.
 */
function maskIn([x1, y1, x2, y2], coefficients, prototypes, ratio, pad, size) {
  const [, channels, ...cells] = prototypes.dims; // rows, columns
  const logits = new Float32Array(cells[0] * cells[1]);
  for (let c = 0; c < channels; c++)
    for (let i = 0; i < logits.length; i++) logits[i] += coefficients[c] * prototypes.data[c * logits.length + i];
  const along = (from, to, axis, count) => {
    const [first, last] = [Math.ceil(from - 0.5), Math.ceil(to - 0.5)]; // a pixel belongs to a box if its centre does
    const place = (i) => (((first + i + 0.5) * ratio + pad[axis]) * count) / size[axis] - 0.5;
    return [first, taps(last - first, count, place)];
  };
  const [[left, columns], [top, rows]] = [along(x1, x2, 0, cells[1]), along(y1, y2, 1, cells[0])];
  const inside = new Uint8Array(rows.length * columns.length);
  rows.forEach(([y0, y1, fy], y) => {
    const [row0, row1] = [y0 * cells[1], y1 * cells[1]];
    columns.forEach(([x0, x1, fx], x) => {
      const above = logits[row0 + x0] * (1 - fx) + logits[row0 + x1] * fx;
      const below = logits[row1 + x0] * (1 - fx) + logits[row1 + x1] * fx;
      inside[y * columns.length + x] = Number(above * (1 - fy) + below * fy > 0);
    });
  });
  return { left, top, width: columns.length, height: rows.length, inside };
}

export class Detector {
  /** Of the bytes (Uint8Array) of an .onnx file. Throws an Error of one line for a file that it cannot run. */
  static async load(bytes) {
    const metadata = readMetadata(bytes);
    if (metadata.half) throw new Error("has half precision; export it without --half");
    if (!["decoded", "separate", "nms"].includes(metadata.layout)) throw new Error(`has ${metadata.layout} heads; export it without --raw-heads`);
    const session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
    return new Detector(session, metadata);
  }

  constructor(session, metadata) {
    Object.assign(this, { session, metadata });
  }

  /** Objects in `image` (ImageData): [{ name, cls, score, box: [x1, y1, x2, y2] in its pixels, mask? }], the best first. */
  async detect(image, { conf = 0.25, iou = 0.45 } = {}) {
    const [[height, width], batch] = [this.metadata.imgsz, this.metadata.dynamic ? 1 : this.metadata.batch];
    const { data, ratio, pad } = letterbox(image, width, height);
    const input = new Float32Array(batch * data.length);
    for (let i = 0; i < batch; i++) input.set(data, i * data.length); // a file of a fixed batch wants that many
    const tensor = new ort.Tensor("float32", input, [batch, 3, height, width]);
    const outputs = await this.session.run({ [this.session.inputNames[0]]: tensor });
    const found = candidates(outputs, this.metadata, conf);
    const prototypes = outputs.prototypes ?? outputs.output1;
    const picture = [image.width, image.height];
    return (this.metadata.layout === "nms" ? found : suppress(found, iou)).map(({ box: inInput, score, cls, coefficients }) => {
      const box = inInput.map((value, i) => limited((value - pad[i % 2]) / ratio, 0, picture[i % 2]));
      const mask = prototypes && maskIn(box, coefficients, prototypes, ratio, pad, [width, height]);
      return { name: this.metadata.names[cls], cls, score, box, mask };
    });
  }
}
