// The `ws` package as a peer: `peer.mjs client|server scenario|echo|goodbye PORT plain|deflate`.
//
// A server prints `ready` once it listens. `scenario` and `goodbye` serve one connection and end with 0 when all was
// right; `echo` goes on until it is ended. A client takes a URL in place of the port too.
import WebSocket, { WebSocketServer } from "ws";
import { farewell, payload, same, scenario, text } from "./scenario.mjs";

const [role, part, port, compression] = process.argv.slice(2);
const perMessageDeflate = compression === "deflate" ? { threshold: 0 } : false;

function adapt(ws) {
  const queue = [];
  const waiting = [];
  let over;
  ws.on("message", (data, binary) => {
    const message = binary ? new Uint8Array(data) : data.toString();
    waiting.length ? waiting.shift().resolve(message) : queue.push(message);
  });
  ws.on("error", (error) => fail(error));
  const closed = new Promise((resolve) =>
    ws.on("close", (code, reason) => {
      over = new Error(`closed with ${code} "${reason}"`);
      for (const one of waiting) one.reject(over);
      resolve([code, reason.toString()]);
    }),
  );
  return {
    send: (data) => ws.send(data),
    receive: () =>
      queue.length
        ? Promise.resolve(queue.shift())
        : new Promise((resolve, reject) => (over ? reject(over) : waiting.push({ resolve, reject }))),
    close: (code, reason) => ws.close(code, reason),
    closed: () => closed,
  };
}

async function run(ws) {
  const socket = adapt(ws);
  if (ws.readyState !== WebSocket.OPEN) await new Promise((resolve) => ws.once("open", resolve));
  const agreed = ws.extensions.includes("permessage-deflate");
  if (agreed !== (compression === "deflate")) throw new Error(`extensions are "${ws.extensions}", not ${compression}`);
  if (part === "goodbye") {
    socket.send("here");
    same(await socket.receive(), "here", "before the goodbye");
    console.log("connected");
    const [code] = await socket.closed();
    if (code !== 1001) throw new Error(`goodbye is ${code}, not 1001`);
    return;
  }
  await scenario(socket);
  for (const sent of [text(70000), payload(70000)]) {
    const pong = new Promise((resolve) => ws.once("pong", resolve));
    const binary = typeof sent !== "string";
    const bytes = Buffer.from(sent); // of a text too: a fragment may end in the middle of a character
    for (let at = 0; at < bytes.length; at += 7001) ws.send(bytes.subarray(at, at + 7001), { fin: false, binary });
    ws.ping("between");
    ws.send("", { fin: true, binary });
    same(await socket.receive(), sent, "in fragments");
    same((await pong).toString(), "between", "the pong");
  }
  await farewell(socket);
}

function fail(error) {
  console.error(error);
  process.exit(1);
}

setTimeout(() => part !== "echo" && fail(new Error("not done in 60 s")), 60_000).unref();
if (role === "client") {
  const ws = new WebSocket(port.includes("/") ? port : `ws://127.0.0.1:${port}/`, { perMessageDeflate });
  if (part === "echo") {
    ws.on("error", fail);
    ws.on("message", (data, binary) => ws.send(data, { binary }));
    ws.on("close", () => process.exit(0));
  } else {
    run(ws).then(() => process.exit(0), fail);
  }
} else {
  const server = new WebSocketServer({ host: "127.0.0.1", port: Number(port), perMessageDeflate });
  server.on("listening", () => console.log("ready"));
  server.on("error", fail);
  server.on("connection", (ws) => {
    if (part === "echo") {
      ws.on("error", () => {});
      ws.on("message", (data, binary) => ws.send(data, { binary }));
    } else {
      run(ws).then(() => process.exit(0), fail);
    }
  });
}
