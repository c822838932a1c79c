// HTTP as the servers of the tests need it beneath the SDK.

/** The whole body of a request. */
export async function read(req) {
    const chunks = [];
    for await (const chunk of req) chunks.push(chunk);
    return Buffer.concat(chunks).toString('utf8');
}

/** What the text is as JSON; nothing where it is none. */
export function parse(text) {
    try {
        return text === '' ? undefined : JSON.parse(text);
    } catch {
        return undefined;
    }
}

/** Answers with a JSON-RPC error that is about no message in particular. */
export function refuse(res, status, code, message) {
    res.writeHead(status, { 'content-type': 'application/json' });
    res.end(JSON.stringify({ jsonrpc: '2.0', id: null, error: { code, message } }));
}
