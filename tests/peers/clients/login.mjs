// Logs in as a person would who points an agent at a URL, with an official TypeScript SDK and nothing
// else configured: discovers, registers, logs in with PKCE, calls, and asks for more when it has to.
//
//     node login.mjs v1|v2 URL PERSON TOOL JSON
//
// Prints one JSON line: what the client did, with which scopes, and what the call answered. The browser
// is a loop that follows redirects, since the provider of the tests logs everybody in.
const [sdk, address, person, tool, json] = process.argv.slice(2);
const REDIRECT = 'http://127.0.0.1:9/callback';
const url = new URL(address);

const { Client, StreamableHTTPClientTransport, UnauthorizedError } = await load();

async function load() {
    if (sdk === 'v2') return import('@modelcontextprotocol/client');
    const { Client } = await import('@modelcontextprotocol/sdk/client/index.js');
    const transport = await import('@modelcontextprotocol/sdk/client/streamableHttp.js');
    const { UnauthorizedError } = await import('@modelcontextprotocol/sdk/client/auth.js');
    return { Client, UnauthorizedError, ...transport };
}

/** Follows redirects, keeping cookies, up to the client's own address. */
async function browse(start) {
    const cookies = new Map();
    let next = new URL(start);
    next.searchParams.set('login_hint', person);
    for (let step = 0; step < 20; step += 1) {
        if (next.href.startsWith(REDIRECT)) return next.searchParams;
        const cookie = [...cookies].map(([name, value]) => `${name}=${value}`).join('; ');
        const answer = await fetch(next, { redirect: 'manual', headers: { cookie } });
        for (const line of answer.headers.getSetCookie()) {
            const [name, ...value] = line.split(';')[0].split('=');
            cookies.set(name, value.join('='));
        }
        const location = answer.headers.get('location');
        if (!location) throw new Error(`${next} answered ${answer.status}: ${await answer.text()}`);
        next = new URL(location, next);
    }
    throw new Error('too many redirects');
}

const seen = { logins: [] };
let arrived;
const memory = {};
const provider = {
    redirectUrl: REDIRECT,
    clientMetadata: { client_name: 'login test', redirect_uris: [REDIRECT], grant_types: ['authorization_code', 'refresh_token'], response_types: ['code'], token_endpoint_auth_method: 'none' },
    state: () => 'state-of-the-test',
    clientInformation: () => memory.client,
    saveClientInformation: client => void (memory.client = client),
    tokens: () => memory.tokens,
    saveTokens: tokens => void (memory.tokens = tokens),
    codeVerifier: () => memory.verifier,
    saveCodeVerifier: verifier => void (memory.verifier = verifier),
    saveDiscoveryState: state => void (memory.discovery = state),
    discoveryState: () => memory.discovery,
    redirectToAuthorization: async target => {
        const asked = new URL(target).searchParams;
        seen.logins.push({ scope: asked.get('scope'), resource: asked.get('resource'), pkce: asked.get('code_challenge_method') });
        arrived = await browse(target);
    }
};

/** Does something with the client, logging in as often as it is told to. */
async function withLogin(transport, act) {
    for (let login = 0; login < 3; login += 1) {
        try {
            return await act();
        } catch (error) {
            if (!(error instanceof UnauthorizedError) || !arrived) throw error;
            const code = arrived;
            arrived = undefined;
            await (sdk === 'v2' ? transport().finishAuth(code) : transport().finishAuth(code.get('code')));
        }
    }
    throw new Error('the client was sent to log in again and again');
}

let transport;
const connect = async () => {
    transport = new StreamableHTTPClientTransport(url, { authProvider: provider });
    const client = new Client({ name: `login-${sdk}`, version: '1.0.0' }, sdk === 'v2' ? { versionNegotiation: { mode: 'auto' } } : {});
    await client.connect(transport);
    return client;
};

try {
    const client = await withLogin(() => transport, connect);
    seen.tools = (await client.listTools()).tools.map(each => each.name);
    const result = await withLogin(() => transport, () => client.callTool({ name: tool, arguments: JSON.parse(json) }));
    seen.result = result.content;
    seen.scope = memory.tokens.scope;
    seen.registered = Boolean(memory.client.client_id);
    // For what the test does with it afterwards.
    [seen.client, seen.token] = [memory.client.client_id, memory.tokens.access_token];
    await client.close();
} catch (error) {
    seen.error = { name: error.constructor.name, code: error.code, message: error.message };
}
console.log(JSON.stringify(seen));
process.exit(seen.error ? 1 : 0);
