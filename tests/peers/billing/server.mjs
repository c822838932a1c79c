// The billing server: the demo's second MCP server, behind a secret that only the vault holds.
//
// Written with the official TypeScript SDK v2. One endpoint, http://127.0.0.1:3002/mcp, speaks both
// eras: 2026-07-28 (no sessions) and the older revisions (initialize, sessions, GET streams).
//
// Environment:
//   BILLING_KEY   every request must carry it as `x-billing-key`; anything else gets 401
//   REQUEST_LOG   file that gets one JSON line for each HTTP request but `/ready`, before anything is
//                 checked: header names only, never a value, so the file can prove what did not arrive
//   PORT          default 3002
import { randomUUID, timingSafeEqual } from 'node:crypto';
import { appendFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { NodeStreamableHTTPServerTransport, toNodeHandler, toWebRequest } from '@modelcontextprotocol/node';
import { McpServer, createMcpHandler, isLegacyRequest } from '@modelcontextprotocol/server';
import { z } from 'zod';
import { parse, read, refuse } from '../http.mjs';

const { BILLING_KEY, REQUEST_LOG, PORT = '3002' } = process.env;
if (!BILLING_KEY || !REQUEST_LOG) {
    console.error('billing: set BILLING_KEY (the secret a caller must present) and REQUEST_LOG (a file to append to)');
    process.exit(2);
}

const modern = toNodeHandler(createMcpHandler(billing, { legacy: 'reject' }));
const sessions = new Map();

createServer(async (req, res) => {
    try {
        await answer(req, res);
    } catch (error) {
        console.error('billing:', error);
        if (res.headersSent) res.destroy();
        else refuse(res, 500, -32603, 'internal error');
    }
}).listen(Number(PORT), '127.0.0.1', () => console.error(`billing: listening on http://127.0.0.1:${PORT}/mcp`));

for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(0));

async function answer(req, res) {
    if (req.url === '/ready') return res.end('ready'); // for whoever started it, on the way to no tool
    const text = await read(req);
    const body = parse(text);
    record(req, body);
    if (new URL(req.url, 'http://billing').pathname !== '/mcp') return refuse(res, 404, -32600, 'not found');
    if (!holdsKey(req)) return refuse(res, 401, 401, 'x-billing-key is missing or wrong');
    if (req.method === 'POST' && body === undefined) return refuse(res, 400, -32700, 'the body is not JSON');

    if (!(await isLegacyRequest(await toWebRequest(req, body)))) return modern(req, res, body);
    const transport = await legacyTransport(req, body);
    if (!transport) return refuse(res, 404, -32600, 'unknown session');
    return transport.handleRequest(req, res, body);
}

/** The session's transport; a new one when the request opens a session. */
async function legacyTransport(req, body) {
    const id = req.headers['mcp-session-id'];
    if (id !== undefined || body?.method !== 'initialize') return sessions.get(id);
    const transport = new NodeStreamableHTTPServerTransport({
        sessionIdGenerator: randomUUID,
        onsessioninitialized: opened => void sessions.set(opened, transport),
        onsessionclosed: closed => void sessions.delete(closed)
    });
    await billing().connect(transport);
    return transport;
}

/** What the server offers; made anew for every session and every modern request. */
function billing() {
    const server = new McpServer({ name: 'billing', version: '1.0.0' });
    const text = value => ({ content: [{ type: 'text', text: value }] });

    server.registerTool(
        'list_invoices',
        { description: 'Lists the open invoices.', inputSchema: z.object({}), annotations: { readOnlyHint: true } },
        async () => text('INV-1 acme 40 EUR; INV-2 globex 900 EUR')
    );
    server.registerTool(
        'refund',
        {
            description: 'Pays an amount back to the customer of an invoice.',
            inputSchema: z.object({ invoice: z.string(), amount: z.int(), reason: z.string().optional() }),
            annotations: { readOnlyHint: false, destructiveHint: false, idempotentHint: false }
        },
        async ({ invoice, amount }) => text(`refunded ${amount} EUR on ${invoice}`)
    );
    server.registerTool(
        'delete_customer',
        {
            description: 'Deletes a customer and everything known about them.',
            inputSchema: z.object({ customer: z.string() }),
            annotations: { readOnlyHint: false, destructiveHint: true }
        },
        async ({ customer }) => text(`deleted ${customer}`)
    );
    server.registerTool(
        'statement',
        {
            description: 'Prepares the statement of the year; reports progress to callers that ask for it.',
            inputSchema: z.object({ customer: z.string().optional() }),
            annotations: { readOnlyHint: true }
        },
        async ({ customer }, context) => {
            const progressToken = context.mcpReq._meta?.progressToken;
            for (let quarter = 1; progressToken !== undefined && quarter <= 4; quarter += 1) {
                await context.mcpReq.notify({
                    method: 'notifications/progress',
                    params: { progressToken, progress: quarter, total: 4, message: `quarter ${quarter}` }
                });
            }
            return text(`statement of ${customer ?? 'all customers'}: 12 invoices, 11 paid`);
        }
    );
    server.registerPrompt(
        'dunning_letter',
        { description: 'A friendly reminder to pay.', argsSchema: z.object({ customer: z.string() }) },
        async ({ customer }) => ({
            messages: [{ role: 'user', content: { type: 'text', text: `Write a friendly reminder to ${customer}.` } }]
        })
    );
    server.registerResource('terms', 'billing://terms', { mimeType: 'text/plain' }, async uri => ({
        contents: [{ uri: uri.href, mimeType: 'text/plain', text: 'Payable within 30 days.' }]
    }));
    return server;
}

function record(req, body) {
    const message = Array.isArray(body) ? { method: 'batch' } : (body ?? {});
    const line = {
        time: new Date().toISOString(),
        http_method: req.method,
        path: req.url,
        jsonrpc_method: message.method ?? null,
        tool: message.method === 'tools/call' ? (message.params?.name ?? null) : null,
        headers: Object.keys(req.headers).sort(),
        authorization: 'authorization' in req.headers,
        key_accepted: holdsKey(req)
    };
    appendFileSync(REQUEST_LOG, `${JSON.stringify(line)}\n`);
}

function holdsKey(req) {
    const given = Buffer.from(String(req.headers['x-billing-key'] ?? ''));
    const wanted = Buffer.from(BILLING_KEY);
    return given.length === wanted.length && timingSafeEqual(given, wanted);
}
