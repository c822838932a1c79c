// What the fixture offers: the tools, prompts and resources that the official conformance suite asks
// for by name, and nothing else. Every tool is written once; the SDK lets the ones that ask the user
// something do so in the way of each era. See server.mjs for how they are served.
import { randomBytes } from 'node:crypto';
import { setTimeout as passed } from 'node:timers/promises';
import {
    McpServer,
    ResourceTemplate,
    acceptedContent,
    completable,
    createRequestStateCodec,
    fromJsonSchema,
    inputRequired,
    inputResponse
} from '@modelcontextprotocol/server';
import { z } from 'zod';
import { EXTENSION, TOOLS } from './tasks.mjs';

// A picture of one pixel and a sound of no length: as small as the formats allow.
const PNG = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBgAAAABQABpfZFQAAAAABJRU5ErkJggg==';
const WAV = 'UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQAAAAA=';
// How long a tool "works" between two of its notifications, so that they do not arrive as one piece.
const WORK_MS = 50;

const text = value => ({ type: 'text', text: value });
const image = { type: 'image', data: PNG, mimeType: 'image/png' };
const says = value => ({ content: [text(value)] });
const message = content => ({ role: 'user', content });
const told = answer => says(`The user answered: ${JSON.stringify(answer)}`);
const form = (message, properties, required = Object.keys(properties)) =>
    inputRequired.elicit({ message, requestedSchema: { type: 'object', properties, required } });
const question = (words, maxTokens) => inputRequired.createMessage({ messages: [message(text(words))], maxTokens });

const state = createRequestStateCodec({ key: randomBytes(32) });

/** A server with all of it. `notify` tells subscribers of the modern era about changes. */
export function fixture(notify) {
    const server = new McpServer(
        { name: 'toolgate-conformance-fixture', version: '1.0.0' },
        {
            capabilities: {
                completions: {},
                extensions: { [EXTENSION]: {} },
                logging: {},
                prompts: { listChanged: true },
                resources: { listChanged: true, subscribe: true },
                tools: { listChanged: true }
            },
            // Shared caches may keep every list: what the gateway makes of that is part of the test.
            cacheHints: Object.fromEntries(
                ['tools/list', 'prompts/list', 'resources/list', 'resources/templates/list', 'resources/read'].map(
                    method => [method, { ttlMs: 60_000, cacheScope: 'public' }]
                )
            ),
            requestState: { verify: state.verify }
        }
    );
    contentTools(server);
    streamingTools(server, notify);
    askingTools(server);
    schemaTools(server);
    roundTripTools(server);
    taskTools(server);
    prompts(server);
    resources(server);
    return server;
}

function contentTools(server) {
    const answers = {
        test_simple_text: ['One piece of text.', [text('Just text, as asked for.')]],
        test_image_content: ['One image.', [image]],
        test_audio_content: ['One sound.', [{ type: 'audio', data: WAV, mimeType: 'audio/wav' }]],
        test_embedded_resource: ['One resource inside the answer.', [embedded('test://embedded-resource', 'Held inside the answer.')]],
        test_multiple_content_types: [
            'Text, an image and a resource.',
            [text('Three kinds of content:'), image, embedded('test://mixed-content-resource', '{"kind":3}', 'application/json')]
        ]
    };
    for (const [name, [description, content]] of Object.entries(answers)) {
        server.registerTool(name, { description }, () => ({ content }));
    }
    server.registerTool('test_error_handling', { description: 'Fails, always.' }, () => ({
        ...says('This tool fails on purpose.'),
        isError: true
    }));
}

function streamingTools(server, notify) {
    server.registerTool('test_tool_with_logging', { description: 'Logs three lines while it works.' }, async context => {
        await context.mcpReq.log('info', 'begun');
        await passed(WORK_MS);
        await context.mcpReq.log('info', 'half done');
        await passed(WORK_MS);
        await context.mcpReq.log('info', 'done');
        return says('Three lines were logged.');
    });
    server.registerTool('test_logging_tool', { description: 'Logs one line, for those who want logs.' }, async context => {
        await context.mcpReq.log('info', 'one line');
        return says('One line was logged, if it was wanted.');
    });
    server.registerTool('test_tool_with_progress', { description: 'Reports progress to those who ask for it.' }, async context => {
        for (const progress of [0, 50, 100]) {
            await reportProgress(context, progress);
            if (progress < 100) await passed(WORK_MS);
        }
        return says('All of the work is done.');
    });
    server.registerTool(
        'test_reconnection',
        { description: 'Lets go of its stream before it answers; the answer waits for whoever resumes the stream.' },
        async context => {
            context.http?.closeSSE?.();
            await passed(WORK_MS);
            return says('Answered after the stream was let go.');
        }
    );
    let changes = 0;
    server.registerTool('test_trigger_tool_change', { description: 'Announces that the list of tools changed.' }, () => {
        notify?.toolsChanged();
        return says(`change ${(changes += 1)}`);
    });
    server.registerTool('test_trigger_prompt_change', { description: 'Announces that the list of prompts changed.' }, () => {
        notify?.promptsChanged();
        return says(`change ${(changes += 1)}`);
    });
}

async function reportProgress(context, progress) {
    const progressToken = context.mcpReq._meta?.progressToken;
    if (progressToken === undefined) return;
    await context.mcpReq.notify({ method: 'notifications/progress', params: { progressToken, progress, total: 100 } });
}

/** Tools that ask the user or the model. Up to 2025-11-25 the SDK sends the question as a request. */
function askingTools(server) {
    const asks = (name, config, request) =>
        server.registerTool(name, config, (...given) => {
            const context = given.at(-1);
            const answer = context.mcpReq.inputResponses?.answer;
            return answer ? told(answer) : inputRequired({ inputRequests: { answer: request(given[0]) } });
        });

    asks(
        'test_sampling',
        { description: 'Puts a question to the model of the client.', inputSchema: z.object({ prompt: z.string() }) },
        ({ prompt }) => question(prompt, 100)
    );
    asks(
        'test_elicitation',
        { description: 'Asks the user for a name and an address.', inputSchema: z.object({ message: z.string() }) },
        ({ message }) =>
            form(message, {
                username: { type: 'string', description: 'What the user is called' },
                email: { type: 'string', description: 'Where mail reaches the user' }
            })
    );
    asks('test_elicitation_sep1034_defaults', { description: 'Asks with a default for every kind of field.' }, () =>
        form(
            'Please look through these values.',
            {
                name: { type: 'string', default: 'John Doe' },
                age: { type: 'integer', default: 30 },
                score: { type: 'number', default: 95.5 },
                status: { type: 'string', enum: ['active', 'inactive', 'pending'], default: 'active' },
                verified: { type: 'boolean', default: true }
            },
            []
        )
    );
    const three = ['option1', 'option2', 'option3'];
    const titled = ['First', 'Second', 'Third'].map((title, index) => ({ const: `value${index + 1}`, title }));
    asks('test_elicitation_sep1330_enums', { description: 'Asks with every form of a choice.' }, () =>
        form(
            'Please choose.',
            {
                untitledSingle: { type: 'string', enum: three },
                titledSingle: { type: 'string', oneOf: titled },
                legacyEnum: { type: 'string', enum: ['opt1', 'opt2', 'opt3'], enumNames: ['One', 'Two', 'Three'] },
                untitledMulti: { type: 'array', items: { type: 'string', enum: three } },
                titledMulti: { type: 'array', items: { anyOf: titled } }
            },
            []
        )
    );
    server.registerTool(
        'test_streaming_elicitation',
        { description: 'Reports progress, then asks the user: a stream that holds no request of its own.' },
        async context => {
            await reportProgress(context, 50);
            const answer = context.mcpReq.inputResponses?.answer;
            if (answer) return told(answer);
            return inputRequired({ inputRequests: { answer: form('Go on?', { yes: { type: 'boolean' } }) } });
        }
    );
    // Without that capability the SDK answers -32021 in place of the question.
    asks('test_missing_capability', { description: 'Needs a client that can ask a model.' }, () => question('Are you there?', 10));
}

/** What the client says it can do: with every request in the modern era, once a session before it. */
function declared(context, server) {
    const envelope = context.mcpReq.envelope?.['io.modelcontextprotocol/clientCapabilities'];
    return envelope ?? server.server.getClientCapabilities() ?? {};
}

function schemaTools(server) {
    server.registerTool(
        'json_schema_2020_12_tool',
        {
            description: 'Takes a contact; its schema uses much of JSON Schema 2020-12.',
            inputSchema: fromJsonSchema({
                $schema: 'https://json-schema.org/draft/2020-12/schema',
                type: 'object',
                $defs: {
                    address: {
                        $anchor: 'addressDef',
                        type: 'object',
                        properties: { street: { type: 'string' }, city: { type: 'string' } }
                    }
                },
                properties: {
                    name: { type: 'string' },
                    address: { $ref: '#/$defs/address' },
                    contactMethod: { type: 'string', enum: ['phone', 'email'] },
                    phone: { type: 'string' },
                    email: { type: 'string' }
                },
                allOf: [{ anyOf: [{ required: ['phone'] }, { required: ['email'] }] }],
                if: { properties: { contactMethod: { const: 'phone' } }, required: ['contactMethod'] },
                then: { required: ['phone'] },
                else: { required: ['email'] },
                additionalProperties: false
            })
        },
        contact => says(`noted: ${JSON.stringify(contact)}`)
    );
    server.registerTool(
        'test_x_mcp_header',
        {
            description: 'Has an argument that clients repeat in a header.',
            inputSchema: fromJsonSchema({
                type: 'object',
                properties: { [MIRRORED.argument]: { type: 'string', 'x-mcp-header': MIRRORED.header } }
            })
        },
        ({ region }) => says(`in ${region ?? 'no region'}`)
    );
}

/** The argument of test_x_mcp_header that is repeated in a header, `Mcp-Param-Region`. */
export const MIRRORED = { tool: 'test_x_mcp_header', argument: 'region', header: 'Region' };

/** Tools that need several rounds: they return what they want to know, and are called again with it. */
function roundTripTools(server) {
    const tool = (name, description, run) => server.registerTool(name, { description }, run);
    const named = { name: { type: 'string' } };
    const agreed = { ok: { type: 'boolean' } };

    tool('test_input_required_result_elicitation', 'Greets the user by name.', ({ mcpReq }) => {
        const user = acceptedContent(mcpReq.inputResponses, 'user_name', z.object({ name: z.string() }));
        if (user) return says(`Hello, ${user.name}!`);
        return inputRequired({ inputRequests: { user_name: form('What is your name?', named) } });
    });
    tool('test_input_required_result_sampling', 'Asks the model for a capital.', ({ mcpReq }) => {
        const answer = mcpReq.inputResponses?.capital_question;
        if (answer) return says(`The model says: ${answer.content?.text}`);
        return inputRequired({ inputRequests: { capital_question: question('What is the capital of France?', 100) } });
    });
    tool('test_input_required_result_list_roots', 'Asks for the roots of the client.', ({ mcpReq }) => {
        const answer = mcpReq.inputResponses?.client_roots;
        if (answer) return says(`Roots: ${answer.roots?.map(root => root.uri).join(', ')}`);
        return inputRequired({ inputRequests: { client_roots: inputRequired.listRoots() } });
    });
    for (const name of ['request_state', 'tampered_state']) {
        tool(`test_input_required_result_${name}`, 'Gives its state away and takes it back only unchanged.', async context => {
            const known = context.mcpReq.requestState();
            if (known?.tool === name && acceptedContent(context.mcpReq.inputResponses, 'confirm')) return says('state-ok');
            return inputRequired({
                inputRequests: { confirm: form('Please confirm.', agreed) },
                requestState: await state.mint({ tool: name })
            });
        });
    }
    tool('test_input_required_result_multiple_inputs', 'Asks the user, the model and the client at once.', async ({ mcpReq }) => {
        const wanted = {
            user_name: form('What is your name?', named),
            greeting: question('Write a greeting.', 50),
            client_roots: inputRequired.listRoots()
        };
        if (mcpReq.requestState() && Object.keys(wanted).every(key => mcpReq.inputResponses?.[key])) {
            return says('All three have answered.');
        }
        return inputRequired({ inputRequests: wanted, requestState: await state.mint({ asked: 3 }) });
    });
    tool('test_input_required_result_multi_round', 'Asks one thing after the other.', async ({ mcpReq }) => {
        const known = mcpReq.requestState() ?? {};
        const first = acceptedContent(mcpReq.inputResponses, 'step1', z.object({ name: z.string() }));
        const second = acceptedContent(mcpReq.inputResponses, 'step2', z.object({ color: z.string() }));
        if (known.name && second) return says(`${known.name} likes ${second.color}.`);
        const name = known.name ?? (known.round === 1 ? first?.name : undefined);
        return inputRequired({
            inputRequests: name
                ? { step2: form('Which colour do you like?', { color: { type: 'string' } }) }
                : { step1: form('What is your name?', named) },
            requestState: await state.mint(name ? { round: 2, name } : { round: 1 })
        });
    });
    tool('test_input_required_result_capabilities', 'Asks only what the client can answer.', context => {
        if (inputResponse(context.mcpReq.inputResponses, 'answer').kind !== 'missing') return says('Thank you.');
        const can = declared(context, server);
        if (can.elicitation) return inputRequired({ inputRequests: { answer: form('Go on?', agreed) } });
        if (can.sampling) return inputRequired({ inputRequests: { answer: question('Go on?', 10) } });
        return says('This client can answer nothing.');
    });
}

/** What tasks.mjs does as tasks; here it is done at once, where that can be. */
function taskTools(server) {
    server.registerTool(
        'greet',
        { description: 'Greets by name.', inputSchema: z.object({ name: z.string() }) },
        ({ name }) => says(`Hello, ${name}!`)
    );
    for (const [name, { properties, sync }] of Object.entries(TOOLS)) {
        const inputSchema = fromJsonSchema({ type: 'object', properties });
        const alone = sync ?? (() => ({ ...says('This tool needs the tasks extension.'), isError: true }));
        server.registerTool(name, { description: 'Becomes a task where the client can have one.', inputSchema }, given =>
            alone(given)
        );
    }
}

function prompts(server) {
    server.registerPrompt('test_simple_prompt', { description: 'One message.' }, () => ({
        messages: [message(text('A prompt without arguments.'))]
    }));
    const suggest = value => ['alpha', 'beta', 'paris', 'park', 'party'].filter(word => word.startsWith(value ?? ''));
    server.registerPrompt(
        'test_prompt_with_arguments',
        {
            description: 'Repeats its two arguments.',
            argsSchema: z.object({ arg1: completable(z.string(), suggest), arg2: completable(z.string(), suggest) })
        },
        ({ arg1, arg2 }) => ({ messages: [message(text(`Prompt with arguments: arg1='${arg1}', arg2='${arg2}'`))] })
    );
    server.registerPrompt(
        'test_prompt_with_embedded_resource',
        { description: 'Holds a resource.', argsSchema: z.object({ resourceUri: z.string() }) },
        ({ resourceUri }) => ({
            messages: [message(embedded(resourceUri, 'Held inside the prompt.')), message(text('Please read the resource above.'))]
        })
    );
    server.registerPrompt('test_prompt_with_image', { description: 'Holds an image.' }, () => ({
        messages: [message(image), message(text('Please look at the image above.'))]
    }));
    server.registerPrompt('test_input_required_result_prompt', { description: 'Asks what it is about first.' }, ({ mcpReq }) => {
        const user = acceptedContent(mcpReq.inputResponses, 'user_context', z.object({ context: z.string() }));
        if (user) return { messages: [message(text(`About: ${user.context}`))] };
        return inputRequired({
            inputRequests: { user_context: form('What is the prompt about?', { context: { type: 'string' } }) }
        });
    });
}

function resources(server) {
    const plain = { mimeType: 'text/plain' };
    server.registerResource('static-text', 'test://static-text', { description: 'Some text.', ...plain }, uri => ({
        contents: [{ uri: uri.href, ...plain, text: 'The text of the resource.' }]
    }));
    server.registerResource(
        'static-binary',
        'test://static-binary',
        { description: 'A picture.', mimeType: 'image/png' },
        uri => ({ contents: [{ uri: uri.href, mimeType: 'image/png', blob: PNG }] })
    );
    server.registerResource('watched', 'test://watched-resource', { description: 'Can be watched.', ...plain }, uri => ({
        contents: [{ uri: uri.href, ...plain, text: 'Nothing has happened yet.' }]
    }));
    server.registerResource(
        'template',
        new ResourceTemplate('test://template/{id}/data', {
            list: undefined,
            complete: { id: value => ['1', '12', '123'].filter(id => id.startsWith(value)) }
        }),
        { description: 'One resource for every id.', mimeType: 'application/json' },
        (uri, { id }) => ({
            contents: [{ uri: uri.href, mimeType: 'application/json', text: JSON.stringify({ id, templateTest: true, data: `of ${id}` }) }]
        })
    );
    const watched = new Set();
    server.server.setRequestHandler('resources/subscribe', ({ params }) => {
        watched.add(params.uri);
        return {};
    });
    server.server.setRequestHandler('resources/unsubscribe', ({ params }) => {
        watched.delete(params.uri);
        return {};
    });
}

function embedded(uri, value, mimeType = 'text/plain') {
    return { type: 'resource', resource: { uri, mimeType, text: value } };
}
