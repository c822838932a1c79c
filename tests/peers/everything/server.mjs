// Starts the reference server `@modelcontextprotocol/server-everything` on Streamable HTTP at
// http://127.0.0.1:3001/mcp (environment: PORT). The server itself would listen on every interface;
// this file makes it listen on loopback only and stop on SIGTERM.
import { Server } from 'node:net';

process.env.PORT ??= '3001';
const listen = Server.prototype.listen;
Server.prototype.listen = function (port, ...rest) {
    const callback = rest.find(argument => typeof argument === 'function');
    return listen.call(this, { port: Number(port), host: '127.0.0.1' }, callback);
};
process.on('SIGTERM', () => process.exit(0));

process.argv[2] = 'streamableHttp';
await import('@modelcontextprotocol/server-everything/dist/index.js');
