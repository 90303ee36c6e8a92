// A client of revision 2026-07-28 only (SDK 2.x) in front of server-everything, which has sessions:
// node stateless_client.mjs COMMAND ARGUMENTS, or node stateless_client.mjs http://…
import assert from 'node:assert/strict';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';

const [command, ...args] = process.argv.slice(2);
const transport = command.startsWith('http')
  ? new StreamableHTTPClientTransport(new URL(command))
  : new StdioClientTransport({ command, args, env: process.env, stderr: 'inherit' });
const client = new Client(
  { name: 'stateless', version: '1' },
  {
    capabilities: { elicitation: {}, sampling: {}, roots: {} },
    versionNegotiation: { mode: { pin: '2026-07-28' } },
  },
);
client.setRequestHandler('elicitation/create', async () => ({ action: 'accept', content: { name: 'me' } }));
client.setRequestHandler('sampling/createMessage', async () => ({
  role: 'assistant',
  model: 'none',
  content: { type: 'text', text: 'sampled' },
}));
client.setRequestHandler('roots/list', async () => ({ roots: [{ uri: 'file:///somewhere', name: 'root' }] }));
await client.connect(transport);
const call = async (name, args, options) =>
  JSON.stringify((await client.callTool({ name, arguments: args }, options)).content);

assert.equal(client.getServerVersion().name, 'mcp-servers/everything');
const names = (await client.listTools()).tools.map((tool) => tool.name);
assert.ok(names.includes('echo') && names.includes('trigger-elicitation-request'), names.join());
assert.match(await call('echo', { message: 'hé' }), /hé/);
assert.match(await call('trigger-sampling-request', { prompt: 'p', maxTokens: 5 }), /sampled/);
assert.match(await call('trigger-elicitation-request', {}), /Name: me/);
const { resources } = await client.listResources();
assert.ok((await client.readResource({ uri: resources[0].uri })).contents.length > 0);
await assert.rejects(client.readResource({ uri: 'test://nothing' }), (error) => error.code === -32602);
const progress = [];
await call('trigger-long-running-operation', { duration: 1, steps: 4 }, {
  onprogress: (made) => progress.push(made.progress),
});
// The SDK loses the last when it comes with the result, and tells of the round of input as a step of its own.
assert.ok([1, 2, 3].every((step) => progress.includes(step)), progress.join());
await client.close();
