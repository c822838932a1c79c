// A command-line MCP client on the official TypeScript SDK v2. See ../README.md.
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { ANSWER, main } from './command.mjs';

const MODES = { legacy: 'legacy', auto: 'auto', modern: { pin: '2026-07-28' } };

await main(async (url, era = 'auto', options) => {
    const client = new Client(
        { name: 'toolgate-ts-v2', version: '1.0.0' },
        { versionNegotiation: { mode: MODES[era] }, capabilities: { elicitation: { form: {} } } }
    );
    client.setRequestHandler('elicitation/create', () => ANSWER);
    const transport = new StreamableHTTPClientTransport(url, options);
    await client.connect(transport);
    return Object.assign(client, {
        protocol: () => client.getNegotiatedProtocolVersion(),
        callWithProgress: (params, request) => client.callTool(params, request),
        finish: async () => {
            await transport.terminateSession();
            await client.close();
        }
    });
});
