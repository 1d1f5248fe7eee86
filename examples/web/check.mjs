// Uses the page as a person would, in a headless browser, and prints what it showed after each step as JSON.
//   node check.mjs best.onnx photo.png [other.onnx broken.jpg …] [--conf 0.25] [--camera clip.mjpeg] [--pages FOLDER]
// best.onnx is served with the page, photo.png chosen, then each further file, as a model where it ends in .onnx, else as
// a photo; last, the camera is used, which sees the clip. --pages: a picture of the page (page-N.png) and of what it drew
// (drawn-N.png) for every step. CHROMIUM names the browser, else it is looked for under its usual names.
import { existsSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";
import { serve } from "./serve.mjs";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { conf: { type: "string" }, camera: { type: "string" }, pages: { type: "string" } },
});
const [model, ...files] = positionals;
const usual = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const executablePath = process.env.CHROMIUM ?? usual.find((path) => existsSync(path));
const quiet = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--no-first-run"];
const camera = values.camera
  ? ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream", `--use-file-for-fake-video-capture=${values.camera}`]
  : [];

const server = await serve(model, 0);
const browser = await chromium.launch({ executablePath, args: [...quiet, ...camera] });
try {
  const page = await browser.newPage({ viewport: { width: 1000, height: 1000 } });
  const [problems, hosts, steps] = [[], new Set(), []];
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("requestfailed", (request) => problems.push(`${request.url()} ${request.failure()?.errorText}`));
  page.on("request", (request) => hosts.add(new URL(request.url()).hostname));

  const seen = async (what) => {
    if (values.pages) {
      await page.screenshot({ path: join(values.pages, `page-${steps.length}.png`), fullPage: true });
      const drawn = await page.evaluate(() => document.getElementById("picture").toDataURL("image/png").split(",")[1]);
      writeFileSync(join(values.pages, `drawn-${steps.length}.png`), Buffer.from(drawn, "base64"));
    }
    const rows = await page.$$eval("#rows tr", (all) => all.map((row) => [...row.cells].map((cell) => cell.textContent)));
    const [status, about, error] = await Promise.all(["#status", "#about", "#error"].map((id) => page.textContent(id)));
    const found = rows.map(([name, confidence, box, area]) => ({
      name,
      confidence: Number(confidence),
      box: box.split(", ").map(Number),
      area: area && Number(area),
    }));
    steps.push({ what, status, about, error, found });
  };
  const settled = () => page.waitForSelector('body[aria-busy="false"]', { timeout: 120_000 });

  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  await settled();
  if (values.conf) await page.fill("#conf", values.conf);
  await seen(basename(model));
  for (const file of files) {
    await page.setInputFiles(file.endsWith(".onnx") ? "#model" : "#photo", file);
    await settled();
    await seen(basename(file));
  }
  if (values.camera) {
    await page.evaluate(() => (document.getElementById("status").textContent = ""));
    await page.click("#camera");
    await page.waitForFunction(() => / ms$/.test(document.getElementById("status").textContent), { timeout: 120_000 });
    await page.click("#camera");
    await settled();
    await seen("camera");
  }
  console.log(JSON.stringify({ steps, problems, hosts: [...hosts].filter(Boolean) }));
} finally {
  await browser.close();
  server.close();
}
