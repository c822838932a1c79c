// The fixture of the official conformance suite: one endpoint, http://127.0.0.1:$PORT/mcp, both eras,
// on the official TypeScript SDK v2. What it offers is in features.mjs.
//
// Environment:
//   PORT  where it listens; required
//   LAX   when "1", it believes the body of a 2026-07-28 request and never looks at the headers that
//         repeat parts of it: a server of the kind that a gateway has to protect
import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import {
    NodeStreamableHTTPServerTransport,
    localhostHostValidation,
    localhostOriginValidation,
    toNodeHandler,
    toWebRequest
} from '@modelcontextprotocol/node';
import { createMcpHandler, isLegacyRequest } from '@modelcontextprotocol/server';
import { MIRRORED, fixture } from './features.mjs';
import * as tasks from './tasks.mjs';
import { parse, read, refuse } from '../http.mjs';

const { PORT, LAX } = process.env;
if (!PORT) {
    console.error('fixture: set PORT');
    process.exit(2);
}

const VERSION = 'io.modelcontextprotocol/protocolVersion';
const NAMED_BY = { 'tools/call': 'name', 'prompts/get': 'name', 'resources/read': 'uri' };
for (const method of Object.keys(tasks.METHODS)) NAMED_BY[method] = 'taskId';
// How soon a client whose stream was let go should come back.
const RETRY_MS = 200;

const handler = createMcpHandler(() => fixture(handler.notify), { legacy: 'reject' });
const modern = toNodeHandler(handler);
const sessions = new Map();
const rightHost = localhostHostValidation();
const rightOrigin = localhostOriginValidation();

createServer(async (req, res) => {
    try {
        await answer(req, res);
    } catch (error) {
        console.error('fixture:', error);
        if (res.headersSent) res.destroy();
        else refuse(res, 500, -32603, 'internal error');
    }
}).listen(Number(PORT), '127.0.0.1', () => console.error(`fixture: listening on http://127.0.0.1:${PORT}/mcp`));

for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(0));

async function answer(req, res) {
    if (req.url === '/ready') return res.end('ready'); // for whoever started it
    if (!rightHost(req, res) || !rightOrigin(req, res)) return; // they have answered
    if (new URL(req.url, 'http://fixture').pathname !== '/mcp') return refuse(res, 404, -32600, 'not found');
    const body = parse(await read(req));
    if (req.method === 'POST' && body === undefined) return refuse(res, 400, -32700, 'the body is not JSON');
    if (LAX === '1') believe(body, req.headers);
    const [status, message] = tasks.answer(body, req.headers) ?? [];
    if (message) return res.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(message));
    if (!(await isLegacyRequest(await toWebRequest(req, body)))) return modern(req, res, body);

    const session = req.headers['mcp-session-id'];
    if (session === undefined && body?.method !== 'initialize') return refuse(res, 400, -32600, 'no session');
    const transport = session === undefined ? await newSession() : sessions.get(session);
    if (!transport) return refuse(res, 404, -32600, 'unknown session');
    return transport.handleRequest(req, res, body);
}

/** Makes the headers repeat the body, whatever they said. */
function believe(body, headers) {
    const params = body?.params;
    const version = params?._meta?.[VERSION];
    if (typeof body?.method !== 'string' || typeof version !== 'string') return;
    const name = params[NAMED_BY[body.method]];
    const mirrored = params.name === MIRRORED.tool ? params.arguments?.[MIRRORED.argument] : undefined;
    for (const key of Object.keys(headers)) if (/^mcp-(method|name|param-)/.test(key)) delete headers[key];
    headers['mcp-protocol-version'] = version;
    headers['mcp-method'] = body.method;
    if (typeof name === 'string') headers['mcp-name'] = encoded(name);
    if (mirrored !== undefined) headers[`mcp-param-${MIRRORED.header.toLowerCase()}`] = encoded(String(mirrored));
}

const encoded = value => `=?base64?${Buffer.from(value).toString('base64')}?=`;

async function newSession() {
    const transport = new NodeStreamableHTTPServerTransport({
        sessionIdGenerator: randomUUID,
        eventStore: new Events(),
        retryInterval: RETRY_MS,
        onsessioninitialized: opened => void sessions.set(opened, transport),
        onsessionclosed: closed => void sessions.delete(closed)
    });
    await fixture().connect(transport);
    return transport;
}

/** The events of one session, so that a stream can be resumed. Ids are positions in one sequence. */
class Events {
    #sent = [];

    async storeEvent(streamId, message) {
        return `${streamId}/${this.#sent.push({ streamId, message })}`;
    }

    async getStreamIdForEventId(eventId) {
        return this.#sent[this.#position(eventId) - 1]?.streamId;
    }

    async replayEventsAfter(lastEventId, { send }) {
        const position = this.#position(lastEventId);
        const streamId = this.#sent[position - 1]?.streamId;
        if (streamId === undefined) throw new Error('no such event');
        for (const [index, event] of this.#sent.entries()) {
            const missed = index >= position && event.streamId === streamId && Object.keys(event.message).length > 0;
            if (missed) await send(`${streamId}/${index + 1}`, event.message);
        }
        return streamId;
    }

    #position(eventId) {
        return Number(eventId.slice(eventId.lastIndexOf('/') + 1));
    }
}
