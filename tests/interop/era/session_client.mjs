// A client with sessions (SDK 1.x) in front of stateless_server.mjs: node session_client.mjs COMMAND ARGUMENTS
import assert from 'node:assert/strict';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import {
  ElicitRequestSchema,
  ResourceUpdatedNotificationSchema,
  ToolListChangedNotificationSchema,
} from '@modelcontextprotocol/sdk/types.js';

const [command, ...args] = process.argv.slice(2);
const client = new Client({ name: 'session', version: '1' }, { capabilities: { elicitation: {} } });
client.setRequestHandler(ElicitRequestSchema, async (request) => ({
  action: 'accept',
  content: { name: `me, ${request.params.message}` },
}));
const changed = new Promise((resolve) => client.setNotificationHandler(ToolListChangedNotificationSchema, resolve));
const updated = new Promise((resolve) => client.setNotificationHandler(ResourceUpdatedNotificationSchema, resolve));
await client.connect(new StdioClientTransport({ command, args, env: process.env, stderr: 'inherit' }));
const text = (result) => result.content[0].text;

assert.equal(client.getServerVersion().name, 'stateless');
assert.equal(client.getServerCapabilities().resources.subscribe, true);
await client.ping();
assert.deepEqual((await client.listTools()).tools.map((tool) => tool.name), ['echo', 'ask', 'touch']);
assert.equal(text(await client.callTool({ name: 'echo', arguments: { message: 'hé' } })), 'hé');
assert.equal(text(await client.callTool({ name: 'ask', arguments: {} })), 'me, who? state');
assert.equal((await client.readResource({ uri: 'test://x' })).contents[0].text, 'x');
await client.setLoggingLevel('debug');
await client.subscribeResource({ uri: 'test://x' });
await client.callTool({ name: 'touch', arguments: {} });
await changed;
assert.equal((await updated).params.uri, 'test://x');
await client.unsubscribeResource({ uri: 'test://x' });
await assert.rejects(client.callTool({ name: 'nothing', arguments: {} }), /-32602/);
await client.close();
