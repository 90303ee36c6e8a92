// A page in headless Chromium as the client: `browser.mjs PORT plain|deflate`. Ends with 0 when all was right.
//
// CHROMIUM names the browser; default `chromium-headless-shell`. A page cannot do without offering permessage-deflate,
// so `plain` means: the server may not take it.
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";

const [port, compression] = process.argv.slice(2);
const page = `<!doctype html><script type="module">
import { farewell, scenario } from "/scenario.mjs";
try {
  const ws = new WebSocket("ws://127.0.0.1:${port}/");
  ws.binaryType = "arraybuffer";
  const queue = [], waiting = [];
  ws.onmessage = ({ data }) => {
    const message = typeof data === "string" ? data : new Uint8Array(data);
    waiting.length ? waiting.shift().resolve(message) : queue.push(message);
  };
  const closed = new Promise((resolve) => ws.onclose = ({ code, reason }) => {
    for (const one of waiting) one.reject(new Error("closed with " + code));
    resolve([code, reason]);
  });
  await Promise.race([new Promise((resolve) => ws.onopen = resolve),
    closed.then(([code]) => { throw new Error("not opened: " + code); })]);
  if (ws.extensions.includes("permessage-deflate") !== ("${compression}" === "deflate"))
    throw new Error("extensions are " + ws.extensions);
  const socket = {
    send: (data) => ws.send(data),
    receive: () => queue.length ? Promise.resolve(queue.shift())
      : new Promise((resolve, reject) => waiting.push({ resolve, reject })),
    close: (code, reason) => ws.close(code, reason),
    closed: () => closed,
  };
  await scenario(socket);
  await farewell(socket);
  await fetch("/done", { method: "POST", body: "ok" });
} catch (error) {
  await fetch("/done", { method: "POST", body: String(error) });
}
</script>`;

const profile = mkdtempSync(join(tmpdir(), "fw-chromium-"));
let browser;
let over = false;
function finish(code, message) {
  if (over) return;
  over = true;
  if (message) console.error(message);
  if (browser?.pid) {
    try {
      process.kill(-browser.pid, "SIGKILL"); // Debian's is a script that starts the browser: the whole group
    } catch {} // gone already
  }
  setTimeout(() => {
    rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
    process.exit(code);
  }, 200);
}

const server = createServer((request, response) => {
  if (request.url === "/done") {
    let body = "";
    request.on("data", (part) => (body += part));
    request.on("end", () => finish(body === "ok" ? 0 : 1, body === "ok" ? "" : body));
    response.end();
  } else if (request.url === "/scenario.mjs") {
    response.setHeader("content-type", "text/javascript");
    response.end(readFileSync(new URL("./scenario.mjs", import.meta.url)));
  } else {
    response.setHeader("content-type", "text/html");
    response.end(request.url === "/" ? page : "");
  }
});
server.listen(0, "127.0.0.1", () => {
  browser = spawn(
    process.env.CHROMIUM ?? "chromium-headless-shell",
    ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
      `--user-data-dir=${profile}`, "--remote-debugging-port=0", `http://127.0.0.1:${server.address().port}/`],
    { stdio: "ignore", detached: true },
  );
  browser.on("error", (error) => finish(1, error));
  browser.on("exit", (code) => finish(1, `the browser ended with ${code}`));
});
process.on("SIGTERM", () => finish(1, "ended from outside"));
setTimeout(() => finish(1, "not done in 60 s"), 60_000);
