// The page: what is shown and what is pressed. What is computed is in detector.js.
import { Detector } from "./detector.js";

const $ = (id) => document.getElementById(id);
const canvas = $("picture");
const pen = canvas.getContext("2d", { willReadFrequently: true });
const video = Object.assign(document.createElement("video"), { muted: true, playsInline: true });
const colour = (cls) => `hsl(${(cls * 137.5) % 360} 75% 42%)`;

let detector = null;
let picture = null; // the photo that is shown (ImageBitmap)
let busy = false;

const say = (text) => ($("status").textContent = text);
function complain(text) {
  $("error").hidden = !text;
  $("error").textContent = text;
}

/** Run `action`; what goes wrong is one line on the page, whose status stays as it was. Busy meanwhile. */
let running = 0;
async function attempt(what, action) {
  const before = $("status").textContent;
  complain("");
  document.body.ariaBusy = Boolean(++running);
  try {
    await action();
  } catch (error) {
    say(before);
    complain(`${what}: ${String(error?.message ?? error).split("\n")[0]}`);
  }
  document.body.ariaBusy = Boolean(--running);
}

async function useModel(name, bytes) {
  say(`Preparing ${name} …`);
  detector = await Detector.load(bytes);
  const { names, imgsz, task, conf_thres: least = 0 } = detector.metadata;
  for (const id of ["photo", "camera"]) $(id).disabled = false;
  $("conf").min = Math.max(least, 0.05); // with NMS in the file, it gives nothing below its own threshold
  showConfidence();
  const classes = Object.keys(names).length;
  $("about").textContent = `${name}: ${task}, ${classes} class${classes === 1 ? "" : "es"}, ${imgsz[1]}×${imgsz[0]}`;
  if (picture && !video.srcObject) await showPhoto();
  else say("Ready: choose a photo, or use the camera");
}

/** The bytes at `url`, telling how far it is; null where there is nothing. */
async function download(url) {
  const response = await fetch(url);
  if (response.status === 404) return null;
  if (!response.ok) throw new Error(`${url}: ${response.status} ${response.statusText}`);
  const total = Number(response.headers.get("Content-Length"));
  const parts = [];
  let size = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    size += value.length;
    say(`Loading the model … ${total ? `${Math.round((100 * size) / total)} %` : `${(size / 1e6).toFixed(1)} MB`}`);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

function drawMask({ left, top, width, height, inside }, cls) {
  if (!inside.length) return; // a box between two pixels
  const brush = new OffscreenCanvas(width, height).getContext("2d");
  const pixels = brush.createImageData(width, height);
  inside.forEach((value, i) => (pixels.data[4 * i + 3] = 255 * value));
  brush.putImageData(pixels, 0, 0);
  brush.globalCompositeOperation = "source-in";
  brush.fillStyle = colour(cls);
  brush.fillRect(0, 0, width, height);
  pen.globalAlpha = 0.45;
  pen.drawImage(brush.canvas, left, top);
  pen.globalAlpha = 1;
}

/** Show `sheet` (a canvas) with what was found in it; a small one larger, so that its letters can be read. */
function draw(sheet, found) {
  const longest = Math.max(sheet.width, sheet.height);
  const zoom = Math.max(1, Math.floor(960 / longest));
  const size = longest / 640; // lines and letters as large as the picture asks for
  Object.assign(canvas, { hidden: false, width: sheet.width * zoom, height: sheet.height * zoom });
  pen.scale(zoom, zoom);
  pen.drawImage(sheet, 0, 0);
  const upwards = [...found].reverse(); // the surest on top
  for (const { mask, cls } of upwards) if (mask) drawMask(mask, cls);
  for (const { name, cls, score, box: [x1, y1, x2, y2] } of upwards) {
    pen.strokeStyle = pen.fillStyle = colour(cls);
    pen.lineWidth = 2.5 * size;
    pen.strokeRect(x1, y1, x2 - x1, y2 - y1);
    pen.font = `${14 * size}px system-ui, sans-serif`;
    const text = `${name} ${score.toFixed(2)}`;
    const width = pen.measureText(text).width + 10 * size;
    const left = Math.max(Math.min(x1 - 1.25 * size, sheet.width - width), 0);
    const top = Math.max(y1 - 20 * size, 0);
    pen.fillRect(left, top, width, 20 * size);
    pen.fillStyle = "white";
    pen.fillText(text, left + 5 * size, top + 15 * size);
  }
}

function list(found) {
  $("rows").closest("table").hidden = !found.length;
  $("area").hidden = !found[0]?.mask;
  $("rows").replaceChildren(
    ...found.map(({ name, cls, score, box, mask }) => {
      const row = document.createElement("tr");
      const cells = [name, score.toFixed(3), box.map((v) => v.toFixed(1)).join(", ")];
      if (mask) cells.push(mask.inside.reduce((sum, value) => sum + value, 0));
      for (const text of cells)
        row.append(Object.assign(document.createElement("td"), { textContent: text }));
      row.style.setProperty("--colour", colour(cls));
      return row;
    }),
  );
}

/** Detect in `source` (a picture or a frame of the camera) of this size, and show it with its boxes. */
async function show(source, width, height) {
  const start = performance.now();
  const sheet = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  sheet.drawImage(source, 0, 0);
  const found = await detector.detect(sheet.getImageData(0, 0, width, height), { conf: Number($("conf").value) });
  draw(sheet.canvas, found);
  list(found);
  const count = `${found.length || "No"} object${found.length === 1 ? "" : "s"}`;
  say(`${count} with a confidence above ${confidence()}, in ${Math.round(performance.now() - start)} ms`);
}

/** One picture at a time; what is asked for meanwhile (a moved slider) comes after it. */
let again = false;
async function showPhoto() {
  again = true;
  if (busy) return;
  busy = true;
  try {
    while (again && !video.srcObject) {
      again = false;
      say("Looking …");
      await new Promise((painted) => requestAnimationFrame(() => setTimeout(painted)));
      await show(picture, picture.width, picture.height);
    }
  } finally {
    busy = false;
  }
}

function stopCamera() {
  video.srcObject?.getTracks().forEach((track) => track.stop());
  video.srcObject = null;
  $("camera").textContent = "Use the camera";
}

async function startCamera() {
  if (!navigator.mediaDevices) throw new Error("the browser gives it only to https pages and to localhost");
  const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  video.srcObject = stream;
  $("camera").textContent = "Stop the camera";
  await video.play();
  try {
    while (video.srcObject === stream) {
      await new Promise((next) => requestAnimationFrame(next));
      if (video.srcObject === stream && !busy) await show(video, video.videoWidth, video.videoHeight);
    }
  } catch (error) {
    stopCamera();
    throw error;
  }
}

$("photo").addEventListener("change", ({ target }) => {
  const [file] = target.files;
  target.value = "";
  if (!file) return;
  stopCamera();
  attempt(file.name, async () => {
    const bitmap = await createImageBitmap(file).catch(() => {
      throw new Error("not a picture that this browser reads");
    });
    picture = bitmap;
    await showPhoto();
  });
});
$("camera").addEventListener("click", () => (video.srcObject ? stopCamera() : attempt("The camera", startCamera)));
$("model").addEventListener("change", ({ target }) => {
  const [file] = target.files;
  target.value = "";
  if (file) attempt(file.name, async () => useModel(file.name, new Uint8Array(await file.arrayBuffer())));
});
const confidence = () => Number($("conf").value).toFixed(2);
const showConfidence = () => ($("conf-value").textContent = confidence());
$("conf").addEventListener("input", () => {
  showConfidence();
  if (picture && detector && !video.srcObject) attempt("The photo", showPhoto);
});

attempt("model.onnx", async () => {
  const bytes = await download("model.onnx");
  if (bytes) await useModel("model.onnx", bytes);
});
