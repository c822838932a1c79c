// The server on the official TypeScript SDK v1, which speaks only the older revisions.
//
// Environment, besides that of serving.mjs:
//   EVENT_STORE  its streams can be resumed, if this is set
import { randomUUID } from 'node:crypto';
import { setTimeout as passed } from 'node:timers/promises';
import { McpServer, ResourceTemplate } from '@modelcontextprotocol/sdk/server/mcp.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';
import { ElicitResultSchema } from '@modelcontextprotocol/sdk/types.js';
import { z } from 'zod';
import { refuse } from '../http.mjs';
import { STEPS, STEP_MS, serve, wait, wasCancelled } from './serving.mjs';

const sessions = new Map();

serve(async (req, res, body) => {
    const session = req.headers['mcp-session-id'];
    if (session === undefined && body?.method !== 'initialize') return refuse(res, 400, -32000, 'no session');
    const transport = session === undefined ? await newSession() : sessions.get(session);
    if (!transport) return refuse(res, 404, -32001, 'unknown session');
    return transport.handleRequest(req, res, body);
});

/** The events of a session's streams, in the order in which they were sent. */
class EventStore {
    #events = [];

    async storeEvent(stream, message) {
        const id = randomUUID();
        this.#events.push({ id, stream, message });
        return id;
    }

    async getStreamIdForEventId(id) {
        return this.#events.find(event => event.id === id)?.stream;
    }

    async replayEventsAfter(last, { send }) {
        const at = this.#events.findIndex(event => event.id === last);
        if (at < 0) throw new Error('there is no such event');
        const { stream } = this.#events[at];
        for (const event of this.#events.slice(at + 1)) if (event.stream === stream) await send(event.id, event.message);
        return stream;
    }
}

async function newSession() {
    const transport = new StreamableHTTPServerTransport({
        sessionIdGenerator: randomUUID,
        eventStore: process.env.EVENT_STORE ? new EventStore() : undefined,
        onsessioninitialized: opened => void sessions.set(opened, transport),
        onsessionclosed: closed => void sessions.delete(closed)
    });
    await peer().connect(transport);
    return transport;
}

function peer() {
    const server = new McpServer({ name: 'peer-ts-v1', version: '1.0.0' });
    const says = text => ({ content: [{ type: 'text', text }] });
    const tool = (name, inputSchema, run) => server.registerTool(name, { description: name, inputSchema }, run);

    tool('echo', { text: z.string() }, ({ text }) => says(text));
    tool('add', { a: z.number().int(), b: z.number().int() }, ({ a, b }) => says(String(a + b)));
    tool('secret', {}, () => says('a secret'));
    tool('work', {}, async (_, extra) => {
        for (let step = 1; step <= STEPS; step += 1) {
            await passed(STEP_MS);
            await progress(extra, step);
        }
        return says('worked');
    });
    tool('ask', {}, async (_, extra) => {
        const requestedSchema = { type: 'object', properties: { name: { type: 'string' } }, required: ['name'] };
        const params = { message: 'What is your name?', requestedSchema };
        const answer = await extra.sendRequest({ method: 'elicitation/create', params }, ElicitResultSchema);
        return says(answer.action === 'accept' ? `hello ${answer.content.name}` : answer.action);
    });
    tool('wait', { key: z.string() }, async ({ key }, extra) => {
        await progress(extra, 1);
        await wait(key, extra.signal);
        return says('waited');
    });
    tool('was_cancelled', { key: z.string() }, async ({ key }) => says(await wasCancelled(key)));

    const asked = text => ({ messages: [{ role: 'user', content: { type: 'text', text } }] });
    server.registerPrompt('greeting', { description: 'Asks for a greeting.', argsSchema: { name: z.string() } }, ({ name }) => asked(`Greet ${name}.`));
    server.registerPrompt('secret', { description: 'Is not for everybody.' }, () => asked('a secret'));

    const holds = text => uri => ({ contents: [{ uri: uri.href, mimeType: 'text/plain', text }] });
    server.registerResource('about', 'peer://about', {}, holds('A peer.'));
    server.registerResource('secret', 'peer://secret', {}, holds('a secret'));
    const template = uri => new ResourceTemplate(uri, { list: undefined });
    server.registerResource('item', template('peer://items/{id}'), {}, (uri, { id }) => holds(`Item ${id}.`)(uri));
    server.registerResource('secrets', template('peer://secrets/{id}'), {}, holds('a secret'));
    return server;
}

async function progress(extra, step) {
    const progressToken = extra._meta?.progressToken;
    if (progressToken === undefined) return;
    const params = { progressToken, progress: step, total: STEPS };
    await extra.sendNotification({ method: 'notifications/progress', params });
}
