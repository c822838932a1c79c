// What the two TypeScript servers share: HTTP beneath the SDK, the request log, and who was cancelled.
// What such a server offers is told in ../README.md.
//
// Environment:
//   PORT         where it listens; required
//   REQUEST_LOG  file that gets one JSON line for each answered HTTP request but `/ready`; required
//   WAIT_MS      the longest that the tool `wait` waits; 20 seconds
import { appendFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { setTimeout as passed } from 'node:timers/promises';
import { parse, read, refuse } from '../http.mjs';

const { PORT, REQUEST_LOG } = process.env;
if (!PORT || !REQUEST_LOG) {
    console.error('server: set PORT and REQUEST_LOG (a file to append to)');
    process.exit(2);
}

export const STEPS = 4;
/** How long `work` works before each of its notifications. */
export const STEP_MS = 120;
/** The longest that `wait` waits, and `was_cancelled` for it. */
const WAIT_MS = Number(process.env.WAIT_MS ?? 20_000);
const WAS_CANCELLED_MS = 2_000;

/** Listens at /mcp and hands every request over, with its body as JSON. */
export function serve(answer) {
    createServer(async (req, res) => {
        if (req.url === '/ready') return res.end('ready'); // for whoever started it
        record(req, res);
        try {
            if (new URL(req.url, 'http://server').pathname !== '/mcp') return refuse(res, 404, -32600, 'not found');
            const body = parse(await read(req));
            if (req.method === 'POST' && body === undefined) return refuse(res, 400, -32700, 'the body is not JSON');
            await answer(req, res, body);
        } catch (error) {
            console.error('server:', error);
            if (res.headersSent) res.destroy();
            else refuse(res, 500, -32603, 'internal error');
        }
    }).listen(Number(PORT), '127.0.0.1');
    for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(0));
}

function record(req, res) {
    const { 'x-peer-run': run = null, 'mcp-session-id': session, 'mcp-protocol-version': version = null } = req.headers;
    res.once('close', () => {
        const line = { run, method: req.method, status: res.statusCode, version, session: session !== undefined };
        appendFileSync(REQUEST_LOG, `${JSON.stringify(line)}\n`);
    });
}

const cancelled = new Map(); // by the key of the call

function cancellation(key) {
    if (!cancelled.has(key)) cancelled.set(key, Promise.withResolvers?.() ?? withResolvers());
    return cancelled.get(key);
}

function withResolvers() {
    const made = {};
    made.promise = new Promise(resolve => (made.resolve = resolve));
    return made;
}

/** Waits until the call with this key is cancelled, and notes that it was. */
export async function wait(key, signal) {
    const note = () => cancellation(key).resolve(true);
    if (signal.aborted) note();
    signal.addEventListener('abort', note);
    await Promise.race([cancellation(key).promise, passed(WAIT_MS, undefined, { ref: false })]);
}

/** Whether the call with this key was cancelled, or is before long. */
export async function wasCancelled(key) {
    const late = passed(WAS_CANCELLED_MS, false, { ref: false });
    return (await Promise.race([cancellation(key).promise, late])) ? 'cancelled' : 'not cancelled';
}
