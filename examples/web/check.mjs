// Uses the page as a person would, in a headless browser, and prints what it showed as JSON.
//   node check.mjs best.onnx photo.png [--camera clip.mjpeg] [--screenshot page.png]
// CHROMIUM names the browser, else it is looked for under its usual names.
import { existsSync } from "node:fs";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";
import { serve } from "./serve.mjs";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { camera: { type: "string" }, screenshot: { type: "string" } },
});
const [model, photo] = positionals;
const usual = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const executablePath = process.env.CHROMIUM ?? usual.find((path) => existsSync(path));
const camera = values.camera
  ? ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream", `--use-file-for-fake-video-capture=${values.camera}`]
  : [];

const server = await serve(model, 0);
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", ...camera] });
try {
  const page = await browser.newPage({ viewport: { width: 1000, height: 1000 } });
  const problems = [];
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("requestfailed", (request) => problems.push(`${request.url()} ${request.failure()?.errorText}`));
  const hosts = new Set();
  page.on("request", (request) => hosts.add(new URL(request.url()).hostname));
  const settled = async (pattern) => {
    await page.waitForFunction(
      (source) => !document.getElementById("error").hidden || new RegExp(source).test(document.getElementById("status").textContent),
      pattern,
      { timeout: 120_000 },
    );
    return { status: await page.textContent("#status"), error: await page.textContent("#error") };
  };
  const rows = async () =>
    (await page.$$eval("#rows tr", (all) => all.map((row) => [...row.cells].map((cell) => cell.textContent)))).map(
      ([name, confidence, box]) => ({ name, confidence: Number(confidence), box: box.split(", ").map(Number) }),
    );

  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  const shown = { ready: await settled("^(Ready|No model)") };
  if (!shown.ready.error) {
    await page.setInputFiles("#photo", photo);
    shown.photo = { ...(await settled(" ms$")), rows: await rows() };
    if (values.screenshot) await page.screenshot({ path: values.screenshot, fullPage: true });
  }
  if (values.camera && !shown.ready.error) {
    await page.evaluate(() => (document.getElementById("status").textContent = ""));
    await page.click("#camera");
    shown.camera = { ...(await settled(" ms$")), rows: await rows() };
    await page.click("#camera");
    shown.stopped = await page.textContent("#camera");
  }
  console.log(JSON.stringify({ ...shown, problems, hosts: [...hosts].filter(Boolean) }));
} finally {
  await browser.close();
  server.close();
}
