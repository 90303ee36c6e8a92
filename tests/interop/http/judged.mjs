// The client that the conformance suite judges: `judged.mjs URL`, with MCP_CONFORMANCE_SCENARIO in the environment. An
// official SDK client over stdio; between it and the suite's server stands the bridge under test, whose HTTP is judged.
//
// JUDGED_BRIDGE: the bridge's command, split at blanks; `{url}` in it is replaced.
const url = process.argv.at(-1);
const scenario = process.env.MCP_CONFORMANCE_SCENARIO;
const [command, ...args] = process.env.JUDGED_BRIDGE.split(" ").map((word) => word.replace("{url}", url));
const modern = ["request-metadata", "http-standard-headers", "http-custom-headers"].includes(scenario);
const [{ Client }, { StdioClientTransport }] = modern
  ? [await import("@modelcontextprotocol/client"), await import("@modelcontextprotocol/client/stdio")]
  : [await import("@modelcontextprotocol/sdk/client/index.js"), await import("@modelcontextprotocol/sdk/client/stdio.js")];

const client = new Client({ name: "judged", version: "0.0.0" }, {
  capabilities: { roots: {}, sampling: {}, elicitation: {} },
  versionNegotiation: modern ? { mode: { pin: "2026-07-28" } } : undefined,
});
for (const method of modern ? ["elicitation/create"] : []) client.setRequestHandler(method, () => ({ action: "decline" }));
await client.connect(new StdioClientTransport({ command, args, stderr: "inherit", env: process.env }));
const call = (name, given = {}) => client.callTool({ name, arguments: given });
const { tools = [] } = await client.listTools().catch((error) => {
  if (scenario !== "initialize") throw error;
  return {};
});
switch (scenario) {
  case "tools_call":
    await call("add_numbers", { a: 2, b: 40 });
    break;
  case "sse-retry":
    await call("test_reconnection");
    break;
  case "http-standard-headers":
    for (const { name } of tools) await call(name);
    for (const { uri } of (await client.listResources()).resources) await client.readResource({ uri });
    for (const { name } of (await client.listPrompts()).prompts) await client.getPrompt({ name });
    break;
  case "http-custom-headers":
    for (const { name, arguments: given } of JSON.parse(process.env.MCP_CONFORMANCE_CONTEXT).toolCalls) await call(name, given);
    break;
}
await client.close();
