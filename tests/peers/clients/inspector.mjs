// The MCP Inspector's command line as a client with the actions and the output of the others
// (../README.md). It connects anew for every action. It cannot cancel, shows no progress, and has
// nobody to answer a server that asks.
import { spawnSync } from 'node:child_process';
import { main } from './command.mjs';

const PROGRAM = new URL('../inspector/node_modules/.bin/mcp-inspector', import.meta.url).pathname;

await main(async (url, era = 'auto', { requestInit: { headers } }) => {
    const sent = Object.entries(headers).flatMap(([name, value]) => ['--header', `${name}: ${value}`]);
    const inspect = (method, ...options) => {
        const words = ['--cli', url.href, '--transport', 'http', '--stored-auth-only', '--quiet', '--protocol-era', era];
        const ran = spawnSync(PROGRAM, [...words, ...sent, '--method', method, ...options], { encoding: 'utf8' });
        const answer = parse(ran.stdout);
        if (answer === undefined || (ran.status !== 0 && !answer.isError)) throw problem(ran);
        return answer;
    };
    const first = inspect('tools/list'); // connecting is nothing that it does by itself
    return {
        protocol: () => null, // it does not tell
        getServerVersion: () => undefined,
        listTools: () => first,
        listPrompts: () => inspect('prompts/list'),
        listResources: () => inspect('resources/list'),
        listResourceTemplates: () => inspect('resources/templates/list'),
        callTool: ({ name, arguments: given }) =>
            inspect('tools/call', '--tool-name', name, '--tool-args-json', JSON.stringify(given)),
        callWithProgress: ({ name, arguments: given }, { signal }) => {
            if (signal) throw new Error('the command line has no way to cancel a call');
            return inspect('tools/call', '--tool-name', name, '--tool-args-json', JSON.stringify(given));
        },
        getPrompt: ({ name, arguments: given }) =>
            inspect('prompts/get', '--prompt-name', name, '--prompt-args', ...pairs(given)),
        readResource: ({ uri }) => inspect('resources/read', '--uri', uri),
        finish: () => {}
    };
});

function pairs(values) {
    return Object.entries(values).map(([name, value]) => `${name}=${value}`);
}

function problem({ stderr, stdout }) {
    return new Error(parse(stderr)?.error?.message ?? `${stderr}${stdout}`.trim());
}

function parse(text) {
    try {
        return JSON.parse(text);
    } catch {
        return undefined;
    }
}
