// Serves this folder on this computer only, and a model beside it:  node serve.mjs [best.onnx] [port]
// The two Cross-Origin headers let the browser give ONNX Runtime more than one thread.
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import { dirname, extname, join, normalize, resolve, sep } from "node:path";
import { fileURLToPath } from "node:url";

const FOLDER = dirname(fileURLToPath(import.meta.url));
const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".mjs": "text/javascript; charset=utf-8",
  ".json": "application/json",
  ".wasm": "application/wasm",
};

/** A running server; `model` is the .onnx file that is to be had as /model.onnx, port 0 any free one. */
export function serve(model, port = 8000) {
  const server = createServer(async (request, response) => {
    const headers = {
      "Cross-Origin-Opener-Policy": "same-origin",
      "Cross-Origin-Embedder-Policy": "require-corp",
      "Cache-Control": "no-cache",
    };
    try {
      const path = decodeURIComponent(new URL(request.url, "http://localhost").pathname);
      const file = model && path === "/model.onnx" ? resolve(model) : join(FOLDER, normalize(path), path.endsWith("/") ? "index.html" : "");
      const inside = file.startsWith(FOLDER + sep) || (model && file === resolve(model));
      const found = inside ? await stat(file) : null;
      if (!found?.isFile()) throw new Error("not a file of this folder");
      const type = TYPES[extname(file)] ?? "application/octet-stream";
      response.writeHead(200, { ...headers, "Content-Type": type, "Content-Length": found.size });
      createReadStream(file).on("error", () => response.destroy()).pipe(response);
    } catch {
      response.writeHead(404, { ...headers, "Content-Type": "text/plain" }).end("not found\n");
    }
  });
  return new Promise((done, failed) => server.once("error", failed).listen(port, "127.0.0.1", () => done(server)));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [model, port] = process.argv.slice(2);
  try {
    if (model && !(await stat(model)).isFile()) throw new Error(`${model} is not a file`);
    const server = await serve(model, Number(port ?? 8000));
    console.log(`http://localhost:${server.address().port}/  (Ctrl-C ends it)`);
  } catch (error) {
    console.error(error.message);
    process.exitCode = 1;
  }
}
