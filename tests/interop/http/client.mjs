// An official TypeScript client over HTTP: client.mjs 1|1sse|2|2auto everything|fixture URL. Exits 0 when all came out right.
// 1 is @modelcontextprotocol/sdk, 2 is @modelcontextprotocol/client; the steps mirror client.py.
import assert from "node:assert/strict";

const [which, scenario, url] = process.argv.slice(2);
const first = which.startsWith("1");
const { Client } = first ? await import("@modelcontextprotocol/sdk/client/index.js") : await import("@modelcontextprotocol/client");
const schemas = first ? await import("@modelcontextprotocol/sdk/types.js") : undefined;
const { StreamableHTTPClientTransport } = first
  ? await import("@modelcontextprotocol/sdk/client/streamableHttp.js") : await import("@modelcontextprotocol/client");
const { SSEClientTransport } = first ? await import("@modelcontextprotocol/sdk/client/sse.js") : {};

const AWKWARD = 'Grüße, 世界 🦀 "quoted" back\\slash tab\t newline\n return\r next\x85 separators\u2028\u2029 end';
const client = new Client({ name: "framewire-interop", version: "0.0.0" }, {
  capabilities: { sampling: {}, elicitation: {} },
  versionNegotiation: which === "2auto" ? { mode: "auto" } : undefined,
});
const on = (method, schema, answer) => client.setRequestHandler(first ? schemas[schema] : method, answer);
on("sampling/createMessage", "CreateMessageRequestSchema", ({ params }) => ({
  role: "assistant", model: "m", content: { type: "text", text: `heard ${[params.messages[0].content].flat()[0].text}` },
}));
on("elicitation/create", "ElicitRequestSchema", () => ({ action: "accept", content: { username: "u", email: "e" } }));
const logged = [];
let updated;
const update = new Promise((resolve) => (updated = resolve));
const hear = (method, schema, handler) => client.setNotificationHandler(first ? schemas[schema] : method, handler);
hear("notifications/message", "LoggingMessageNotificationSchema", ({ params }) => void logged.push(params.data));
hear("notifications/resources/updated", "ResourceUpdatedNotificationSchema", () => updated());

async function call(name, given, options) {
  const request = { name, arguments: given };
  const result = await (first ? client.callTool(request, undefined, options) : client.callTool(request, options));
  assert(!result.isError, `${name} failed: ${JSON.stringify(result).slice(0, 200)}`);
  return result.content[0].text;
}

async function echoes(wrap) {
  for (const message of [AWKWARD, "x", "0123456789abcdef".repeat(131072)]) {
    assert((await call("echo", { message })) === wrap(message), `${message.length} characters came back changed`);
  }
  const messages = Array.from({ length: 32 }, (_, i) => `m${i}`);
  assert.deepEqual(await Promise.all(messages.map((message) => call("echo", { message }))), messages.map(wrap));
}

async function progressOf(name, given) {
  const steps = [];
  await call(name, given, { onprogress: ({ progress }) => steps.push(progress) });
  assert(steps.length >= 2 && steps.every((step, i) => !i || step > steps[i - 1]), `progress was ${steps}`);
}

const transport = which === "1sse" ? new SSEClientTransport(new URL(url)) : new StreamableHTTPClientTransport(new URL(url));
const limit = setTimeout(() => { throw new Error("not done in 60 s"); }, 60_000);
await client.connect(transport);
if (scenario === "everything") {
  assert((await client.listTools()).tools.length >= 10);
  await echoes((said) => `Echo: ${said}`);
  await progressOf("trigger-long-running-operation", { duration: 0.4, steps: 4 });
} else {
  await echoes((said) => said);
  await progressOf("test_tool_with_progress", {});
  assert.match((await client.readResource({ uri: "test://static-text" })).contents[0].text, /^This is/);
  const version = transport.protocolVersion ?? client.getNegotiatedProtocolVersion?.() ?? "";
  if (version < "2026") {
    assert.equal(await call("test_sampling", { prompt: "me" }), "LLM response: heard me");
    assert.match(await call("test_elicitation", { message: "who" }), /accept/);
    await call("test_tool_with_logging", {});
    await new Promise((resolve) => setTimeout(resolve, 100));
    assert.equal(logged.length, 3, `logged were ${logged}`);
    await client.subscribeResource({ uri: "test://watched-resource" });
    await update; // belongs to no request: by GET
  }
}
if (transport.terminateSession && transport.sessionId) await transport.terminateSession();
await client.close();
clearTimeout(limit);
