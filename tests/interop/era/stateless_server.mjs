// A server of revision 2026-07-28 only, over stdio: what a client with sessions cannot use without a translation.
import { inputRequired, McpServer } from '@modelcontextprotocol/server';
import { serveStdio } from '@modelcontextprotocol/server/stdio';
import * as z from 'zod';

const none = z.object({});
const capabilities = { tools: { listChanged: true }, resources: { subscribe: true, listChanged: true }, logging: {} };

function create() {
  const server = new McpServer({ name: 'stateless', version: '1.0.0' }, { capabilities });
  server.registerTool('echo', { inputSchema: z.object({ message: z.string() }) }, async ({ message }) => ({
    content: [{ type: 'text', text: message }],
  }));
  server.registerTool('ask', { inputSchema: none }, async (_, context) => {
    const answer = context.mcpReq.inputResponses?.name;
    if (answer === undefined) {
      const requestedSchema = { type: 'object', properties: { name: { type: 'string' } } };
      const name = inputRequired.elicit({ message: 'who?', requestedSchema });
      return inputRequired({ inputRequests: { name }, requestState: 'state' });
    }
    return { content: [{ type: 'text', text: `${answer.content.name} ${context.mcpReq.requestState()}` }] };
  });
  server.registerTool('touch', { inputSchema: none }, async () => {
    server.sendToolListChanged();
    await server.server.sendResourceUpdated({ uri: 'test://x' });
    return { content: [] };
  });
  server.registerResource('x', 'test://x', {}, async (uri) => ({ contents: [{ uri: uri.href, text: 'x' }] }));
  return server;
}

serveStdio(create, { legacy: 'reject' });
