// The server that the conformance suite judges a gateway by at 2026-07-28, with the official SDK of that revision.
//
//   modern.mjs              over stdio, 2026-07-28 only
//   modern.mjs both         over stdio, also with an `initialize` of the revisions before
//   modern.mjs http PORT    over the SDK's own HTTP: what the suite says of it is no fault of a gateway's
import { createServer } from "node:http";
import {
  Server, createMcpHandler, inputRequired, MissingRequiredClientCapabilityError, ProtocolError, ProtocolErrorCode,
  hostHeaderValidationResponse, localhostAllowedHostnames, originValidationResponse,
} from "@modelcontextprotocol/server";
import { serveStdio } from "@modelcontextprotocol/server/stdio";
import * as pieces from "./pieces.mjs";

const refuse = (message, data) => {
  throw new ProtocolError(ProtocolErrorCode.InvalidParams, message, data);
};

const nothing = { type: "object", properties: {} };
const headed = {
  type: "object",
  properties: { region: { type: "string", "x-mcp-header": "Region" } },
  required: ["region"],
};

// What only this revision's scenarios ask for. Each: description, input schema, what it does.
const more = (server) => ({
  test_tool_with_progress: [...pieces.longer.test_tool_with_progress, async (_, { mcpReq }) => {
    for (const progress of [0, 50, 100]) {
      if (progress) await pieces.sleep(50);
      const progressToken = mcpReq._meta?.progressToken;
      if (progressToken === undefined) continue;
      await mcpReq.notify({ method: "notifications/progress", params: { progressToken, progress, total: 100 } });
    }
    return pieces.text("reported three times");
  }],
  test_logging_tool: ["logs", nothing, async (_, { mcpReq }) => {
    await mcpReq.log("info", "a line of log");
    return pieces.text("logged if asked to");
  }],
  test_missing_capability: ["needs sampling", nothing, (_, { mcpReq }) => {
    const given = mcpReq.envelope?.["io.modelcontextprotocol/clientCapabilities"];
    if (!given?.sampling) throw new MissingRequiredClientCapabilityError({ requiredCapabilities: { sampling: {} } });
    return pieces.text("the client can sample");
  }],
  test_streaming_elicitation: ["asks the user by way of its result", nothing, (_, { mcpReq }) => {
    const name = mcpReq.inputResponses?.name;
    if (name) return pieces.text(`said ${name.action}`);
    const ask = inputRequired.elicit({ message: "Who are you?", requestedSchema: pieces.userSchema });
    return inputRequired({ inputRequests: { name: ask } });
  }],
  test_trigger_tool_change: ["says that the tools have changed", nothing, async () => {
    await server.sendToolListChanged();
    return pieces.text("said");
  }],
  test_trigger_prompt_change: ["says that the prompts have changed", nothing, async () => {
    await server.sendPromptListChanged();
    return pieces.text("said");
  }],
  test_region: ["has an argument that is a header too", headed, ({ region }) => pieces.text(region)],
  test_slow: ["takes its time unless cancelled", nothing, async (_, { mcpReq }) => {
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, 10_000);
      mcpReq.signal.addEventListener("abort", () => (clearTimeout(timer), resolve()));
    });
    if (mcpReq.signal.aborted) cancelled += 1;
    return pieces.text("done");
  }],
  test_cancelled: ["how often test_slow was cancelled", nothing, () => pieces.text(String(cancelled))],
});

// Asks the client by way of its result, and says what came of it.
const asks = (described, request, say) => [...described, (given, { mcpReq }) => {
  const said = mcpReq.inputResponses?.asked;
  return said ? pieces.text(say(said)) : inputRequired({ inputRequests: { asked: request(given) } });
}];
const elicits = (message, requestedSchema) => () => inputRequired.elicit({ message, requestedSchema });
const completed = ({ action, content }) => `Elicitation completed: action=${action}, content=${JSON.stringify(content ?? {})}`;

// What the scenarios of 2025-11-25 call: a client of that revision comes here through a gateway that translates.
const legacy = {
  test_tool_with_logging: [...pieces.longer.test_tool_with_logging, async (_, { mcpReq }) => {
    for (const line of ["Tool execution started", "Tool processing data", "Tool execution completed"]) {
      await mcpReq.log("info", line, "fixture");
      await pieces.sleep(50);
    }
    return pieces.text("logged three times");
  }],
  test_sampling: asks(pieces.longer.test_sampling, ({ prompt }) => inputRequired.createMessage({
    messages: [{ role: "user", content: { type: "text", text: prompt } }], maxTokens: 100,
  }), ({ content }) => `LLM response: ${[content].flat()[0].text}`),
  test_elicitation: asks(pieces.longer.test_elicitation,
    ({ message }) => inputRequired.elicit({ message, requestedSchema: pieces.userSchema }),
    ({ action, content }) => `User response: action=${action}, content=${JSON.stringify(content ?? {})}`),
  test_elicitation_sep1034_defaults: asks(
    pieces.longer.test_elicitation_sep1034_defaults, elicits("Is this right?", pieces.defaultsSchema), completed),
  test_elicitation_sep1330_enums: asks(
    pieces.longer.test_elicitation_sep1330_enums, elicits("Which?", pieces.enumsSchema), completed),
};

let cancelled = 0;

function fixture() {
  const server = new Server(pieces.info, {
    capabilities: {
      completions: {}, logging: {}, prompts: { listChanged: true }, resources: { subscribe: true, listChanged: true },
      tools: { listChanged: true },
    },
  });
  const tools = { ...pieces.tools, ...more(server), ...legacy };
  const on = (method, answer) => server.setRequestHandler(method, answer);
  on("tools/list", () => ({
    tools: Object.entries(tools).map(([name, [description, inputSchema]]) => ({ name, description, inputSchema })),
  }));
  on("tools/call", ({ params }, context) => {
    if (!Object.hasOwn(tools, params.name)) refuse(`no tool ${params.name}`);
    return tools[params.name][2](params.arguments ?? {}, context);
  });
  on("resources/list", () => ({ resources: pieces.resources }));
  on("resources/templates/list", () => ({ resourceTemplates: pieces.templates }));
  on("resources/read", ({ params: { uri } }) => pieces.read(uri) ?? refuse("Resource not found", { uri }));
  on("prompts/list", () => ({
    prompts: Object.entries(pieces.prompts).map(([name, [description, names]]) => (
      { name, description, arguments: names.map((name) => ({ name, required: true })) })),
  }));
  on("prompts/get", ({ params }) => {
    if (!Object.hasOwn(pieces.prompts, params.name)) refuse(`no prompt ${params.name}`);
    return { messages: pieces.prompts[params.name][2](params.arguments ?? {}) };
  });
  // Goes to whoever listens for it; the SDK keeps it from all others.
  setInterval(() => server.sendResourceUpdated({ uri: "test://watched-resource" }).catch(() => {}), 300).unref();
  on("completion/complete", ({ params }) => pieces.complete(params.argument.value));
  return server;
}

function serveHttp(port) {
  const handler = createMcpHandler(fixture, { legacy: "reject" });
  createServer(async (incoming, outgoing) => {
    const chunks = [];
    for await (const chunk of incoming) chunks.push(chunk);
    const gone = new AbortController();
    outgoing.on("close", () => gone.abort());
    const request = new Request(`http://${incoming.headers.host}${incoming.url}`, {
      method: incoming.method, headers: incoming.headers, body: chunks.length ? Buffer.concat(chunks) : undefined,
      signal: gone.signal,
    });
    const response = hostHeaderValidationResponse(request, localhostAllowedHostnames())
      ?? originValidationResponse(request, localhostAllowedHostnames()) ?? (await handler.fetch(request));
    outgoing.writeHead(response.status, Object.fromEntries(response.headers));
    outgoing.flushHeaders();
    for await (const chunk of response.body ?? []) outgoing.write(chunk);
    outgoing.end();
  }).listen(port, "127.0.0.1");
}

if (process.argv[2] === "http") serveHttp(Number(process.argv[3]));
else serveStdio(fixture, { legacy: process.argv[2] === "both" ? "serve" : "reject" });
