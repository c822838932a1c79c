// A command-line MCP client on the official TypeScript SDK v1, which speaks only the older revisions.
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { ElicitRequestSchema } from '@modelcontextprotocol/sdk/types.js';
import { ANSWER, main } from './command.mjs';

await main(async (url, era = 'legacy', options) => {
    if (era !== 'legacy') throw new Error(`SDK v1 has no era "${era}"`);
    const client = new Client(
        { name: 'toolgate-ts-v1', version: '1.0.0' },
        { capabilities: { elicitation: { form: {} } } }
    );
    client.setRequestHandler(ElicitRequestSchema, () => ANSWER);
    const transport = new StreamableHTTPClientTransport(url, options);
    await client.connect(transport);
    return Object.assign(client, {
        protocol: () => transport.protocolVersion,
        callWithProgress: (params, request) => client.callTool(params, undefined, request),
        finish: async () => {
            await transport.terminateSession();
            await client.close();
        }
    });
});
