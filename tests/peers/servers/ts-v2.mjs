// The server on the official TypeScript SDK v2, in both eras.
import { randomUUID } from 'node:crypto';
import { setTimeout as passed } from 'node:timers/promises';
import { NodeStreamableHTTPServerTransport, toNodeHandler, toWebRequest } from '@modelcontextprotocol/node';
import {
    McpServer,
    ResourceTemplate,
    acceptedContent,
    createMcpHandler,
    inputRequired,
    isLegacyRequest
} from '@modelcontextprotocol/server';
import { z } from 'zod';
import { refuse } from '../http.mjs';
import { STEPS, STEP_MS, serve, wait, wasCancelled } from './serving.mjs';

const modern = toNodeHandler(createMcpHandler(peer, { legacy: 'reject' }));
const sessions = new Map();

serve(async (req, res, body) => {
    if (!(await isLegacyRequest(await toWebRequest(req, body)))) return modern(req, res, body);
    const session = req.headers['mcp-session-id'];
    if (session === undefined && body?.method !== 'initialize') return refuse(res, 400, -32600, 'no session');
    const transport = session === undefined ? await newSession() : sessions.get(session);
    if (!transport) return refuse(res, 404, -32600, 'unknown session');
    return transport.handleRequest(req, res, body);
});

async function newSession() {
    const transport = new NodeStreamableHTTPServerTransport({
        sessionIdGenerator: randomUUID,
        onsessioninitialized: opened => void sessions.set(opened, transport),
        onsessionclosed: closed => void sessions.delete(closed)
    });
    await peer().connect(transport);
    return transport;
}

function peer() {
    const server = new McpServer({ name: 'peer-ts-v2', version: '1.0.0' });
    const says = text => ({ content: [{ type: 'text', text }] });
    const tool = (name, shape, run) =>
        server.registerTool(name, { description: name, inputSchema: z.object(shape) }, run);

    tool('echo', { text: z.string() }, ({ text }) => says(text));
    tool('add', { a: z.int(), b: z.int() }, ({ a, b }) => says(String(a + b)));
    tool('secret', {}, () => says('a secret'));
    tool('work', {}, async (_, context) => {
        for (let step = 1; step <= STEPS; step += 1) {
            await passed(STEP_MS);
            await progress(context, step);
        }
        return says('worked');
    });
    // Up to 2025-11-25 the SDK sends what is required here as a request to the client.
    tool('ask', {}, (_, { mcpReq }) => {
        const answer = acceptedContent(mcpReq.inputResponses, 'who', z.object({ name: z.string() }));
        if (answer) return says(`hello ${answer.name}`);
        const requestedSchema = { type: 'object', properties: { name: { type: 'string' } }, required: ['name'] };
        const who = inputRequired.elicit({ message: 'What is your name?', requestedSchema });
        return inputRequired({ inputRequests: { who } });
    });
    tool('wait', { key: z.string() }, async ({ key }, context) => {
        await progress(context, 1);
        await wait(key, context.mcpReq.signal);
        return says('waited');
    });
    tool('was_cancelled', { key: z.string() }, async ({ key }) => says(await wasCancelled(key)));

    const asked = text => ({ messages: [{ role: 'user', content: { type: 'text', text } }] });
    const argsSchema = z.object({ name: z.string() });
    server.registerPrompt('greeting', { description: 'Asks for a greeting.', argsSchema }, ({ name }) => asked(`Greet ${name}.`));
    server.registerPrompt('secret', { description: 'Is not for everybody.' }, () => asked('a secret'));

    const holds = text => uri => ({ contents: [{ uri: uri.href, mimeType: 'text/plain', text }] });
    server.registerResource('about', 'peer://about', {}, holds('A peer.'));
    server.registerResource('secret', 'peer://secret', {}, holds('a secret'));
    const template = uri => new ResourceTemplate(uri, { list: undefined });
    server.registerResource('item', template('peer://items/{id}'), {}, (uri, { id }) => holds(`Item ${id}.`)(uri));
    server.registerResource('secrets', template('peer://secrets/{id}'), {}, holds('a secret'));
    return server;
}

async function progress({ mcpReq }, step) {
    const progressToken = mcpReq._meta?.progressToken;
    if (progressToken === undefined) return;
    const params = { progressToken, progress: step, total: STEPS };
    await mcpReq.notify({ method: 'notifications/progress', params });
}
