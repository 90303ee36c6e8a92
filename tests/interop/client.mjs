// Drives an MCP server with an official TypeScript client: client.mjs 1|2 SCENARIO COMMAND [ARG...]
//
// 1 is @modelcontextprotocol/sdk, 2 is @modelcontextprotocol/client. Exits 0 when every step of the scenario came out
// as expected. The steps mirror client.py.

import assert from 'node:assert/strict';
import { randomFillSync } from 'node:crypto';
import { gunzipSync } from 'node:zlib';

const [generation, scenario, command, ...args] = process.argv.slice(2);
const [{ Client }, { StdioClientTransport }] =
  generation === '1'
    ? [await import('@modelcontextprotocol/sdk/client/index.js'), await import('@modelcontextprotocol/sdk/client/stdio.js')]
    : [await import('@modelcontextprotocol/client'), await import('@modelcontextprotocol/client/stdio')];

const AWKWARD =
  'Grüße, 世界 🦀 "quoted" back\\slash tab\t newline\n return\r next\x85 separators\u2028\u2029 end';
const LARGE = 4 * 1024 * 1024;
const RESOURCE = 3 * 1024 * 1024;

const client = new Client({ name: 'framewire-interop', version: '0.0.0' });

/** The first text of a tool's answer. The generations differ in whether a result schema stands before the options. */
async function call(name, params, options = {}) {
  const request = { name, arguments: params };
  const result = await (generation === '1'
    ? client.callTool(request, undefined, options)
    : client.callTool(request, options));
  assert(!result.isError, `${name} failed: ${JSON.stringify(result).slice(0, 200)}`);
  return result.content[0];
}

/** demo: and the rmcp example. What they have of demo:'s tools is tried; the required ones they must have. */
async function small(...required) {
  const tools = (await client.listTools()).tools.map((tool) => tool.name);
  assert(required.every((name) => tools.includes(name)), `tools are ${tools}`);
  await client.ping();

  for (const message of [AWKWARD, '', '0123456789abcdef'.repeat(LARGE / 16)]) {
    const { text } = await call('echo', { message });
    assert(text === message, `echo of ${message.length} characters came back changed`);
  }
  const messages = Array.from({ length: 64 }, (_, i) => `m${i}`);
  const answers = await Promise.all(messages.map((message) => call('echo', { message })));
  assert.deepEqual(answers.map(({ text }) => text), messages);

  if (tools.includes('add')) assert.equal((await call('add', { a: 2, b: 40 })).text, '42');
  if (tools.includes('big')) {
    const { text } = await call('big', { bytes: 2 * LARGE });
    assert(text.length === 2 * LARGE && text.startsWith('abcdefghij'), `big is ${text.length} characters`);
  }
  if (tools.includes('sleep')) await slowly('sleep', { seconds: 1 });
}

/** Progress arrives in order and before the answer, and a slow call does not hold up a fast one. */
async function slowly(name, params) {
  const steps = [];
  let done = false;
  const slow = call(name, params, { onprogress: ({ progress, total }) => steps.push([progress, total]) }).then(() => {
    done = true;
  });
  await call('echo', { message: 'overtakes' });
  assert(!done, 'a fast call waited for a slow one');
  await slow;
  // The SDKs handle a notification a microtask later than an answer, so the last one may miss its call by a hair
  // when both came in one read.
  assert(steps.length >= 4, `progress was ${JSON.stringify(steps)}`);
  assert.deepEqual(steps, [1, 2, 3, 4, 5].slice(0, steps.length).map((step) => [step, 5]));
}

const scenarios = {
  demo: () => small('echo', 'add', 'sleep', 'big'),
  rmcp: () => small('echo'),


  /** @modelcontextprotocol/server-everything */
  async everything() {
    assert.equal(client.getServerVersion().name, 'mcp-servers/everything');
    const tools = (await client.listTools()).tools.map((tool) => tool.name);
    assert(tools.length >= 13 && tools.includes('echo'), `tools are ${tools}`);
    await client.ping();

    for (const message of [AWKWARD, 'x', '0123456789abcdef'.repeat(LARGE / 16)]) {
      const { text } = await call('echo', { message });
      assert(text === `Echo: ${message}`, `echo of ${message.length} characters came back changed`);
    }

    await slowly('trigger-long-running-operation', { duration: 1, steps: 5 });

    const messages = Array.from({ length: 64 }, (_, i) => `m${i}`);
    const answers = await Promise.all(messages.map((message) => call('echo', { message })));
    assert.deepEqual(answers.map(({ text }) => text), messages.map((message) => `Echo: ${message}`));

    // A large resource, made by a tool and then read.
    const data = randomFillSync(Buffer.alloc(RESOURCE));
    const { uri } = await call('gzip-file-as-resource', {
      name: 'large.gz',
      data: `data:application/octet-stream;base64,${data.toString('base64')}`,
    });
    const { contents } = await client.readResource({ uri });
    assert(gunzipSync(Buffer.from(contents[0].blob, 'base64')).equals(data), 'the large resource came back changed');

    assert((await client.listResources()).resources.length > 3);
    assert((await client.listPrompts()).prompts.length > 1);
    await assert.rejects(call('no-such-tool', {}), /no-such-tool/);
  },
};

setTimeout(() => {
  console.error('the scenario took more than 60 s');
  process.exit(2);
}, 60_000).unref();

await client.connect(new StdioClientTransport({ command, args }));
await scenarios[scenario]();
const closing = performance.now();
await client.close();
// The client waits 2 s after closing stdin before it sends SIGTERM: a clean end needs neither.
assert(performance.now() - closing < 2000, `shutdown took ${performance.now() - closing} ms`);
