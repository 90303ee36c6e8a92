// The server that the conformance suite judges a gateway by, with the official SDK of the revisions up to 2025-11-25.
//
//   server.mjs              over stdio
//   server.mjs http PORT    over the SDK's own Streamable HTTP: what the suite says of it is no fault of a gateway's
//
// DELAY_RECONNECTION is how long test_reconnection works, in milliseconds; default 1000.
import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { Server } from "@modelcontextprotocol/sdk/server/index.js";
import { StdioServerTransport } from "@modelcontextprotocol/sdk/server/stdio.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import * as schemas from "@modelcontextprotocol/sdk/types.js";
import * as pieces from "./pieces.mjs";

const refuse = (message) => {
  throw new schemas.McpError(schemas.ErrorCode.InvalidParams, message);
};

// The tools that talk with the client while they work.
const longer = {
  async test_tool_with_logging(_, { sendNotification }) {
    const lines = ["Tool execution started", "Tool processing data", "Tool execution completed"];
    for (const [i, data] of lines.entries()) {
      if (i) await pieces.sleep(50);
      await sendNotification({ method: "notifications/message", params: { level: "info", logger: "fixture", data } });
    }
    return pieces.text("logged three times");
  },
  async test_tool_with_progress(_, { _meta, sendNotification }) {
    for (const progress of [0, 50, 100]) {
      if (progress) await pieces.sleep(50);
      const progressToken = _meta?.progressToken;
      if (progressToken === undefined) continue;
      await sendNotification({ method: "notifications/progress", params: { progressToken, progress, total: 100 } });
    }
    return pieces.text("reported three times");
  },
  async test_sampling({ prompt }, { sendRequest }) {
    const messages = [{ role: "user", content: { type: "text", text: prompt } }];
    const said = await sendRequest(
      { method: "sampling/createMessage", params: { messages, maxTokens: 100 } }, schemas.CreateMessageResultSchema);
    return pieces.text(`LLM response: ${said.content.text}`);
  },
  async test_elicitation({ message }, extra) {
    const { action, content } = await elicit(extra, message, pieces.userSchema);
    return pieces.text(`User response: action=${action}, content=${JSON.stringify(content ?? {})}`);
  },
  async test_elicitation_sep1034_defaults(_, extra) {
    const { action, content } = await elicit(extra, "Is this right?", pieces.defaultsSchema);
    return pieces.text(`Elicitation completed: action=${action}, content=${JSON.stringify(content ?? {})}`);
  },
  async test_elicitation_sep1330_enums(_, extra) {
    const { action, content } = await elicit(extra, "Which?", pieces.enumsSchema);
    return pieces.text(`Elicitation completed: action=${action}, content=${JSON.stringify(content ?? {})}`);
  },
  async test_reconnection(_, { closeSSEStream }) {
    closeSSEStream?.(); // over stdio there is none: whether the stream is closed is the gateway's affair
    await pieces.sleep(Number(process.env.DELAY_RECONNECTION ?? 1000));
    return pieces.text("the stream may have been closed meanwhile");
  },
};

// What the scenarios of 2026-07-28 call: a client of that revision comes here through a gateway that translates.
const nothing = { type: "object", properties: {} };
const modern = {
  test_logging_tool: ["logs", nothing, async (_, { sendNotification }) => {
    await sendNotification({ method: "notifications/message", params: { level: "info", data: "a line of log" } });
    return pieces.text("logged");
  }],
  test_streaming_elicitation: ["asks the user", nothing, async (_, extra) => {
    const { action } = await elicit(extra, "Who are you?", pieces.userSchema);
    return pieces.text(`said ${action}`);
  }],
  test_trigger_tool_change: ["says that the tools have changed", nothing, async (_, { sendNotification }) => {
    setTimeout(() => sendNotification({ method: "notifications/tools/list_changed" }), 20);
    return pieces.text("soon");
  }],
  test_trigger_prompt_change: ["says that the prompts have changed", nothing, async (_, { sendNotification }) => {
    setTimeout(() => sendNotification({ method: "notifications/prompts/list_changed" }), 20);
    return pieces.text("soon");
  }],
};

function elicit({ sendRequest }, message, requestedSchema) {
  return sendRequest({ method: "elicitation/create", params: { message, requestedSchema } }, schemas.ElicitResultSchema);
}

function fixture() {
  const server = new Server(pieces.info, {
    capabilities: {
      completions: {}, logging: {}, prompts: { listChanged: true }, resources: { subscribe: true, listChanged: true },
      tools: { listChanged: true },
    },
  });
  const on = (schema, answer) => server.setRequestHandler(schema, answer);
  const described = ([name, [description, inputSchema]]) => ({ name, description, inputSchema });

  on(schemas.ListToolsRequestSchema, () => ({
    tools: [...Object.entries(pieces.tools), ...Object.entries(pieces.longer), ...Object.entries(modern)].map(described),
  }));
  on(schemas.CallToolRequestSchema, ({ params }, extra) => {
    const given = params.arguments ?? {};
    if (Object.hasOwn(pieces.tools, params.name)) return pieces.tools[params.name][2](given);
    if (Object.hasOwn(longer, params.name)) return longer[params.name](given, extra);
    if (Object.hasOwn(modern, params.name)) return modern[params.name][2](given, extra);
    refuse(`no tool ${params.name}`);
  });
  on(schemas.ListResourcesRequestSchema, () => ({ resources: pieces.resources }));
  on(schemas.ListResourceTemplatesRequestSchema, () => ({ resourceTemplates: pieces.templates }));
  on(schemas.ReadResourceRequestSchema, ({ params }) => pieces.read(params.uri) ?? refuse(`no resource ${params.uri}`));
  const subscribed = new Set();
  on(schemas.SubscribeRequestSchema, async ({ params }) => {
    subscribed.add(params.uri);
    // Once, later, outside any request: it has to come on the GET stream.
    setTimeout(() => subscribed.has(params.uri) && server.sendResourceUpdated({ uri: params.uri }).catch(() => {}), 50);
    return {};
  });
  on(schemas.UnsubscribeRequestSchema, ({ params }) => {
    subscribed.delete(params.uri);
    return {};
  });
  on(schemas.ListPromptsRequestSchema, () => ({
    prompts: Object.entries(pieces.prompts).map(([name, [description, names]]) => (
      { name, description, arguments: names.map((name) => ({ name, required: true })) })),
  }));
  on(schemas.GetPromptRequestSchema, ({ params }) => {
    if (!Object.hasOwn(pieces.prompts, params.name)) refuse(`no prompt ${params.name}`);
    return { messages: pieces.prompts[params.name][2](params.arguments ?? {}) };
  });
  on(schemas.CompleteRequestSchema, ({ params }) => pieces.complete(params.argument.value));
  return server;
}

// Enough of an event store for one stream after another.
class Events {
  #all = [];
  async storeEvent(stream, message) {
    this.#all.push({ stream, message });
    return String(this.#all.length);
  }
  async getStreamIdForEventId(id) {
    return this.#all[id - 1]?.stream;
  }
  async replayEventsAfter(last, { send }) {
    const { stream } = this.#all[last - 1];
    for (const [i, event] of this.#all.entries()) {
      if (i >= last && event.stream === stream && event.message.jsonrpc) await send(String(i + 1), event.message);
    }
    return stream;
  }
}

function serveHttp(port) {
  const sessions = new Map();
  createServer(async (request, response) => {
    const id = request.headers["mcp-session-id"];
    let transport = sessions.get(id);
    if (!transport && id) return response.writeHead(404).end();
    if (!transport) {
      transport = new StreamableHTTPServerTransport({
        sessionIdGenerator: randomUUID,
        eventStore: new Events(),
        retryInterval: 200,
        enableDnsRebindingProtection: true,
        allowedHosts: [`127.0.0.1:${port}`, `localhost:${port}`],
        onsessioninitialized: (id) => void sessions.set(id, transport),
        onsessionclosed: (id) => void sessions.delete(id),
      });
      await fixture().connect(transport);
    }
    await transport.handleRequest(request, response);
  }).listen(port, "127.0.0.1");
}

if (process.argv[2] === "http") serveHttp(Number(process.argv[3]));
else await fixture().connect(new StdioServerTransport());
