// The same server with the TypeScript SDK v2, which reads the body itself and speaks both eras.
//
// Environment: PORT
import { createServer } from 'node:http';
import { toNodeHandler } from '@modelcontextprotocol/node';
import { McpServer, createMcpHandler } from '@modelcontextprotocol/server';
import { offer, takeRan } from './tools.mjs';

const mcp = toNodeHandler(createMcpHandler(() => offer(new McpServer({ name: 'v2', version: '1.0.0' }))));

createServer((req, res) => {
    if (req.url === '/ready') return res.end('ready');
    if (req.url === '/ran') {
        res.setHeader('content-type', 'application/json');
        return res.end(JSON.stringify(takeRan()));
    }
    return mcp(req, res);
}).listen(Number(process.env.PORT), '127.0.0.1');

for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(0));
