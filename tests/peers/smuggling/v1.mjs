// A server of the TypeScript SDK v1 as its examples build one: Express reads the body, the transport keeps no
// session. It remembers which tools ran, with which arguments; `GET /ran` tells, and forgets.
//
// Environment: PORT
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';
import express from 'express';
import { offer, takeRan } from './tools.mjs';

const app = express();
app.get('/ready', (_, res) => res.end('ready'));
app.get('/ran', (_, res) => res.json(takeRan()));
app.use(express.json());
app.post('/mcp', async (req, res) => {
    const server = offer(new McpServer({ name: 'v1', version: '1.0.0' }));
    const transport = new StreamableHTTPServerTransport({ sessionIdGenerator: undefined, enableJsonResponse: true });
    res.on('close', () => void server.close());
    await server.connect(transport);
    await transport.handleRequest(req, res, req.body);
});
app.listen(Number(process.env.PORT), '127.0.0.1');

for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(0));
