// The tasks extension of 2026-07-28 (io.modelcontextprotocol/tasks), for the fixture. The SDK has none
// for servers, so this answers before it: the methods tasks/*, and calls of tools that become tasks. What
// it leaves alone (undefined) goes on to the SDK, where every such tool is registered, too.
import { randomUUID } from 'node:crypto';
import { setTimeout as passed } from 'node:timers/promises';

export const EXTENSION = 'io.modelcontextprotocol/tasks';

const VERSION = 'io.modelcontextprotocol/protocolVersion';
const CAPABILITIES = 'io.modelcontextprotocol/clientCapabilities';
const TTL_MS = 600_000;
const POLL_MS = 100;
const JOB_SECONDS = 0.2;
const [HEADER_MISMATCH, MISSING_CAPABILITY, INVALID_PARAMS] = [-32020, -32021, -32602];

const tasks = new Map(); // by id
const says = value => ({ content: [{ type: 'text', text: value }], resultType: 'complete' });
const ask = (message, properties) => ({
    method: 'elicitation/create',
    params: { mode: 'form', message, requestedSchema: { type: 'object', properties, required: Object.keys(properties) } }
});
const CONFIRM = { confirm: { type: 'boolean' } };
const NAME = { name: { type: 'string' } };

/**
 * What each tool does: `run` as a task, `sync` without the extension. One without `sync` cannot do
 * without. `before` may ask for input before there is a task; its answers are given to `run`.
 */
export const TOOLS = {
    slow_compute: {
        properties: { seconds: { type: 'number' }, label: { type: 'string' } },
        instant: ({ seconds }) => !(seconds > 0),
        run: async ({ seconds, label }, { signal }) => {
            await passed((seconds ?? 0) * 1000, undefined, { signal });
            return says(`computed ${label}`);
        },
        sync: ({ label }) => says(`computed ${label}`)
    },
    failing_job: {
        properties: {},
        run: async () => {
            await passed(JOB_SECONDS * 1000);
            return { ...says('This job fails on purpose.'), isError: true };
        }
    },
    protocol_error_job: {
        properties: {},
        run: async () => {
            await passed(JOB_SECONDS * 1000);
            throw new Error('This job breaks on purpose.');
        }
    },
    confirm_delete: {
        properties: { filename: { type: 'string' } },
        run: async ({ filename }, { input }) => {
            const { ok } = await input({ ok: ask(`Delete ${filename}?`, CONFIRM) });
            return says(ok.content?.confirm ? `deleted ${filename}` : `kept ${filename}`);
        }
    },
    multi_input: {
        properties: {},
        run: async (_, { input }) => {
            const answers = await input({ first: ask('First?', NAME), second: ask('Second?', NAME) });
            return says(`${answers.first.content?.name} and ${answers.second.content?.name}`);
        }
    },
    test_tool_with_task: {
        properties: {},
        before: { user_name: ask('What is your name?', NAME) },
        run: async (_, { answers }) => says(`Hello, ${answers.user_name.content?.name}!`)
    }
};

/** The HTTP status and the JSON-RPC answer to a message; undefined where the SDK has to answer. */
export function answer(body, headers) {
    const { id, method, params } = body ?? {};
    if (id === undefined || params?._meta?.[VERSION] === undefined) return undefined;
    const tool = method === 'tools/call' && Object.hasOwn(TOOLS, params.name) ? TOOLS[params.name] : undefined;
    if (!tool && !Object.hasOwn(METHODS, method)) return undefined;

    const refuse = (status, code, message, data) => [status, { jsonrpc: '2.0', id, error: { code, message, data } }];
    if (headers['mcp-method'] !== method || plain(headers['mcp-name']) !== (tool ? params.name : params.taskId)) {
        return refuse(400, HEADER_MISMATCH, 'a header does not say what the body says');
    }
    if (params._meta[CAPABILITIES]?.extensions?.[EXTENSION] === undefined) {
        if (tool?.sync) return undefined;
        const requiredCapabilities = { extensions: { [EXTENSION]: {} } };
        return refuse(400, MISSING_CAPABILITY, 'this takes the tasks extension', { requiredCapabilities });
    }
    if (tool?.instant?.(params.arguments ?? {})) return undefined;
    const result = tool ? call(tool, params) : METHODS[method](tasks.get(params.taskId), params);
    if (result === undefined) return refuse(200, INVALID_PARAMS, 'no such task');
    return [200, { jsonrpc: '2.0', id, result }];
}

/** The value of a header that repeats a name, which may be encoded. */
function plain(value) {
    const encoded = /^=\?base64\?(.*)\?=$/.exec(value ?? '')?.[1];
    return encoded === undefined ? value : Buffer.from(encoded, 'base64').toString('utf8');
}

/** The methods of the extension, each with what it answers about a task that there is. */
export const METHODS = {
    'tasks/get': task => task && { resultType: 'complete', ...task.told },
    'tasks/update': (task, { inputResponses }) => task && (task.give(inputResponses ?? {}), { resultType: 'complete' }),
    'tasks/cancel': task => task && (task.cancel(), { resultType: 'complete' })
};

function call(tool, { arguments: given = {}, inputResponses: answers = {} }) {
    const missing = Object.keys(tool.before ?? {}).filter(key => !answers[key]);
    if (missing.length > 0) return { resultType: 'input_required', inputRequests: tool.before };
    const task = new Task();
    tasks.set(task.told.taskId, task);
    const created = { resultType: 'task', ...task.told };
    task.work(tool, given, answers);
    return created;
}

/** Work that goes on after its call was answered; `told` is what a client may know of it. */
class Task {
    #gone = new AbortController();
    #answered = () => {};
    #answers = {};

    constructor() {
        const now = new Date().toISOString();
        this.told = { taskId: randomUUID(), createdAt: now, ttlMs: TTL_MS, pollIntervalMs: POLL_MS };
        this.#now('working');
    }

    async work(tool, given, answers) {
        try {
            const input = wanted => this.#input(wanted);
            const result = await tool.run(given, { signal: this.#gone.signal, answers, input });
            this.#now('completed', { result });
        } catch (error) {
            this.#now('failed', { error: { code: -32603, message: error.message } });
        }
    }

    give(answers) {
        const open = this.told.inputRequests ?? {};
        for (const [key, value] of Object.entries(answers)) if (Object.hasOwn(open, key)) this.#answers[key] = value;
        const left = Object.fromEntries(Object.entries(open).filter(([key]) => !this.#answers[key]));
        if (Object.keys(left).length > 0) return this.#now('input_required', { inputRequests: left });
        this.#answered(this.#answers);
    }

    cancel() {
        this.#now('cancelled');
        this.#gone.abort();
    }

    async #input(wanted) {
        const answers = new Promise(resolve => (this.#answered = resolve));
        this.#now('input_required', { inputRequests: wanted });
        const given = await answers;
        this.#now('working');
        return given;
    }

    /** A task that has come to its end stays as it is. */
    #now(status, more = {}) {
        if (['completed', 'failed', 'cancelled'].includes(this.told.status)) return;
        const { taskId, createdAt, ttlMs, pollIntervalMs } = this.told;
        const lastUpdatedAt = new Date().toISOString();
        this.told = { taskId, status, createdAt, lastUpdatedAt, ttlMs, pollIntervalMs, ...more };
    }
}
