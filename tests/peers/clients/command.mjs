// What the two TypeScript clients share: the command line, the actions and the output (../README.md).

const ARGUMENTS = {
    ping: 0, tools: 0, call: 2, progress: 2, cancel: 2, prompts: 0, prompt: 2, resources: 0, templates: 0, read: 1
};
const USAGE = 'usage: CLIENT URL [--era legacy|auto|modern] ACTION [ARGUMENT...] ...';

/** What the user answers when a server asks. */
export const ANSWER = { action: 'accept', content: { name: 'Ada' } };

/** Connects with `connect(url, era, options)` and performs the actions of the command line. */
export async function main(connect) {
    const { url, era, actions } = parse(process.argv.slice(2));
    const status = { last: null };
    const headers = JSON.parse(process.env.MCP_HEADERS ?? '{}');
    if (process.env.MCP_TOKEN) headers.authorization = `Bearer ${process.env.MCP_TOKEN}`;
    const options = { requestInit: { headers }, fetch: remembering(status) };

    let client;
    try {
        client = await connect(new URL(url), era, options);
    } catch (error) {
        return emit(['connect'], { ok: false, error: describe(error, status) });
    }
    emit(['connect'], {
        ok: true,
        result: { protocol: client.protocol() ?? null, server: client.getServerVersion()?.name ?? null }
    });
    for (const action of actions) {
        try {
            emit(action, { ok: true, result: await perform(client, action) });
        } catch (error) {
            emit(action, { ok: false, error: describe(error, status) });
        }
    }
    await client.finish();
}

async function perform(client, [action, name, argument]) {
    switch (action) {
        case 'ping':
            return client.ping();
        case 'tools':
            return (await client.listTools()).tools.map(tool => tool.name);
        case 'call':
            return client.callTool({ name, arguments: JSON.parse(argument) });
        case 'progress': {
            const began = performance.now();
            const after = () => (performance.now() - began) / 1000;
            const progress = [];
            const onprogress = note => progress.push({ progress: note.progress, after: after() });
            const result = await client.callWithProgress({ name, arguments: JSON.parse(argument) }, { onprogress });
            return { ...result, progress, after: after() };
        }
        case 'cancel':
            return cancelledAtItsFirstProgress(client, { name, arguments: JSON.parse(argument) });
        case 'prompts':
            return (await client.listPrompts()).prompts.map(prompt => prompt.name);
        case 'prompt':
            return client.getPrompt({ name, arguments: JSON.parse(argument) });
        case 'resources':
            return (await client.listResources()).resources.map(resource => resource.uri);
        case 'templates':
            return (await client.listResourceTemplates()).resourceTemplates.map(template => template.uriTemplate);
        case 'read':
            return client.readResource({ uri: name });
    }
}

async function cancelledAtItsFirstProgress(client, params) {
    const controller = new AbortController();
    const onprogress = () => controller.abort();
    try {
        const result = await client.callWithProgress(params, { onprogress, signal: controller.signal });
        return { ...result, cancelled: false };
    } catch (error) {
        if (!controller.signal.aborted) throw error;
        return { cancelled: true };
    }
}

function parse(words) {
    let era;
    const at = words.indexOf('--era');
    if (at >= 0) [, era] = words.splice(at, 2);
    const [url, ...rest] = words;
    const actions = [];
    while (rest.length > 0) {
        const count = ARGUMENTS[rest[0]];
        if (count === undefined || rest.length <= count) usage(`unknown action or missing argument: ${rest.join(' ')}`);
        actions.push(rest.splice(0, count + 1));
    }
    if (!url || ![undefined, 'legacy', 'auto', 'modern'].includes(era)) usage('');
    return { url, era, actions };
}

/** A `fetch` that keeps the status of the last answer to a POST: the one an error is about. */
function remembering(status) {
    return async (input, init) => {
        const response = await fetch(input, init);
        if (init?.method === 'POST') status.last = response.status;
        return response;
    };
}

function describe(error, status) {
    // A JSON-RPC error in a 4xx answer comes out of the SDKs as an HTTP error that quotes the body.
    const quoted = /"code"\s*:\s*(-?\d+)/.exec(error.data?.text ?? error.message)?.[1];
    const code = quoted ?? (Number.isInteger(error.code) ? error.code : null);
    return {
        code: code === null ? null : Number(code),
        message: error.message,
        data: quoted ? null : (error.data ?? null),
        http_status: status.last
    };
}

function emit([action, target], fields) {
    console.log(JSON.stringify({ action, ...(target === undefined ? {} : { target }), ...fields }));
}

function usage(problem) {
    console.error(`${USAGE}\n${problem}`);
    process.exit(2);
}
