// The tools of the servers that smuggling is tried on: `echo` and `pay` are for everybody, `secret` for nobody.
import { z } from 'zod';

let ran = [];

/** The calls that tools got since the last time: [[name, arguments], …]. */
export function takeRan() {
    const taken = ran;
    ran = [];
    return taken;
}

/** Gives a server the tools. */
export function offer(server) {
    const text = value => ({ content: [{ type: 'text', text: value }] });
    const tool = (name, inputSchema) =>
        server.registerTool(name, { inputSchema }, async given => {
            // As text, since JSON has no form for what some of them are.
            ran.push([name, Object.fromEntries(Object.entries(given).map(([key, value]) => [key, String(value)]))]);
            return text(`ran ${name}`);
        });
    tool('echo', z.object({ message: z.any().optional() }));
    tool('secret', z.object({}));
    tool('pay', z.object({ amount: z.number().or(z.any()) }));
    return server;
}
