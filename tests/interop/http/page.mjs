// A page in headless Chromium as the client: `page.mjs http|ws URL`. Ends with 0 when all was right.
// CHROMIUM names the browser; default `chromium-headless-shell`. The page's origin is another port of 127.0.0.1.
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";

const [kind, url] = process.argv.slice(2);
const page = `<!doctype html><script type="module">
const url = ${JSON.stringify(url)};
const revision = "2025-11-25";
const hello = { protocolVersion: revision, capabilities: {}, clientInfo: { name: "page", version: "0" } };

function overWebSocket() {
  const socket = new WebSocket(url);
  const waiting = new Map();
  const heard = [];
  let next = 0;
  socket.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    if ("method" in message) return heard.push(message);
    waiting.get(message.id)(message);
    waiting.delete(message.id);
  };
  const opened = new Promise((resolve, reject) => {
    socket.onopen = resolve;
    socket.onerror = () => reject(new Error("the socket failed"));
  });
  return {
    heard, opened,
    ask: (method, params) => new Promise((resolve) => {
      waiting.set(++next, resolve);
      socket.send(JSON.stringify({ jsonrpc: "2.0", id: next, method, params }));
    }),
    tell: async (method) => socket.send(JSON.stringify({ jsonrpc: "2.0", method })),
    close: async () => socket.close(),
  };
}

async function* messages(response) {
  if (!response.headers.get("content-type").startsWith("text/event-stream")) return yield await response.json();
  let rest = "";
  for await (const part of response.body.pipeThrough(new TextDecoderStream())) {
    rest += part;
    const events = rest.split("\\n\\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.split("\\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart()).join("\\n");
      if (data) yield JSON.parse(data);
    }
  }
}

function overFetch() {
  const heard = [];
  const headers = { "content-type": "application/json", accept: "application/json, text/event-stream" };
  let next = 0;
  const post = async (message) => {
    const response = await fetch(url, { method: "POST", headers, body: JSON.stringify({ jsonrpc: "2.0", ...message }) });
    if (!response.ok) throw new Error("POST: " + response.status + " " + await response.text());
    const session = response.headers.get("mcp-session-id");
    if (session) Object.assign(headers, { "mcp-session-id": session, "mcp-protocol-version": revision });
    return response;
  };
  return {
    heard, opened: Promise.resolve(),
    async ask(method, params) {
      const id = ++next;
      for await (const message of messages(await post({ id, method, params }))) {
        if (message.id === id && !("method" in message)) return message;
        heard.push(message);
      }
      throw new Error("no answer to " + method);
    },
    tell: (method) => post({ method }),
    async listen() {
      const response = await fetch(url, { headers: { ...headers, accept: "text/event-stream" } });
      if (!response.ok) throw new Error("GET: " + response.status);
      (async () => { for await (const message of messages(response)) heard.push(message); })().catch(() => {});
    },
    async close() {
      if (!headers["mcp-session-id"]) throw new Error("the page could not read Mcp-Session-Id");
      const { status } = await fetch(url, { method: "DELETE", headers });
      if (status >= 300) throw new Error("DELETE: " + status);
    },
  };
}

try {
  const peer = "${kind}" === "ws" ? overWebSocket() : overFetch();
  await peer.opened;
  const { result } = await peer.ask("initialize", hello);
  if (!result?.protocolVersion) throw new Error("initialize failed");
  await peer.tell("notifications/initialized");
  await peer.listen?.();
  const call = async (name, given = {}, _meta) => {
    const said = await peer.ask("tools/call", { name, arguments: given, ...(_meta && { _meta }) });
    if (!said.result || said.result.isError) throw new Error(name + ": " + JSON.stringify(said).slice(0, 200));
    return said.result.content[0].text;
  };
  const large = "Grüße, 世界 🦀".repeat(20000);
  if (await call("echo", { message: large }) !== large) throw new Error("a large echo came back changed");
  const many = await Promise.all(Array.from({ length: 16 }, (_, i) => call("echo", { message: "m" + i })));
  if (many.some((text, i) => text !== "m" + i)) throw new Error("calls at once were mixed up");
  await call("test_tool_with_progress", {}, { progressToken: "p" });
  const progress = peer.heard.filter(({ method }) => method === "notifications/progress").map(({ params }) => params.progress);
  if (String(progress) !== "0,50,100") throw new Error("progress was " + progress);
  await peer.ask("resources/subscribe", { uri: "test://watched-resource" });
  for (let i = 0; !peer.heard.some(({ method }) => method === "notifications/resources/updated"); i++) {
    if (i > 200) throw new Error("no update came");
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  await peer.close();
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
  if (message) console.error(String(message));
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
  } else {
    response.setHeader("content-type", "text/html; charset=utf-8");
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
