// An identity provider for the tests: `oidc-provider` on loopback, where everybody may log in.
//
//     PORT=3010 node idp/server.mjs
//
// It registers clients (RFC 7591), issues JWT access tokens for one resource each (RFC 8707, RFC 9068),
// answers introspection (RFC 7662) and binds tokens by DPoP (RFC 9449) where a client asks. With
// SUBJECT_KEYS, a file with another issuer's keys, it exchanges that issuer's tokens (grants.mjs). Its keys are
// made when it starts. Who logs in is said by `login_hint` in the authorization URL: there is no page to
// type into. Machines log in by client credentials, and have tokens bound to the certificate that the
// header `x-test-certificate` shows (RFC 8705). For tests there are, besides: `POST /test/rotate` makes a
// new signing key and keeps the old ones published; `POST /test/algorithm` (RS256, ES256 or EdDSA as the
// body) says which signs from now on. With TOKEN_FORMAT=opaque its tokens are no JWTs.
//
// With QUIRKS=1 it is as Entra and Okta are: it refuses `resource`, registers nobody and sends no `iss`
// (RFC 9207). Tokens are for DEFAULT_RESOURCE then, and agents share the client `toolgate-agents`.
import { createServer } from 'node:http';
import { exportJWK, generateKeyPair } from 'jose';
import { Provider } from 'oidc-provider';
import { addGrants, grants } from './grants.mjs';

const port = Number(process.env.PORT ?? '3010');
const issuer = `http://127.0.0.1:${port}`;
const quirky = process.env.QUIRKS === '1';
const groups = { alice: ['finance'], bob: ['engineering'] };
const scopes = (process.env.SCOPES ?? 'mcp:tools billing:read billing:refund').split(' ');

let serial = 0;
async function key(alg) {
    const { privateKey } = await generateKeyPair(alg, { extractable: true });
    serial += 1;
    return { ...(await exportJWK(privateKey)), kid: `${alg}-${serial}`, alg, use: 'sig' };
}

let keys = [await key('RS256'), await key('ES256'), await key('EdDSA')];
let algorithm = process.env.ALGORITHM ?? 'ES256';

function resourceServerInfo(resource) {
    return {
        scope: scopes.join(' '),
        audience: resource,
        accessTokenTTL: 600,
        accessTokenFormat: process.env.TOKEN_FORMAT ?? 'jwt',
        jwt: { sign: { alg: algorithm } },
    };
}

function provider() {
    const made = new Provider(issuer, {
        jwks: { keys },
        // The gateway itself, which may introspect; all other clients register.
        clients: [
            {
                client_id: 'toolgate',
                client_secret: process.env.INTROSPECTION_SECRET ?? 'introspection-secret-of-the-tests',
                redirect_uris: [],
                response_types: [],
                grant_types: ['client_credentials', ...grants],
            },
            ...['machine', 'bound'].map(name => ({
                client_id: name,
                client_secret: `${name}-secret-of-the-tests`,
                redirect_uris: [],
                response_types: [],
                grant_types: ['client_credentials'],
                tls_client_certificate_bound_access_tokens: name === 'bound',
            })),
            {
                client_id: 'toolgate-agents',
                token_endpoint_auth_method: 'none',
                application_type: 'native',
                redirect_uris: ['http://127.0.0.1:9/callback'],
                grant_types: ['authorization_code', 'refresh_token'],
            },
        ],
        clientDefaults: { grant_types: ['authorization_code', 'refresh_token'] },
        scopes: ['openid', 'offline_access', ...scopes],
        cookies: { keys: ['test'] },
        pkce: { required: () => true },
        enabledJWA: { dPoPSigningAlgValues: ['ES256', 'EdDSA'] },
        ttl: { AccessToken: 600, AuthorizationCode: 60, Grant: 3600, Interaction: 600, Session: 3600, RefreshToken: 3600, IdToken: 600, ClientCredentials: 600 },
        features: {
            devInteractions: { enabled: false },
            registration: { enabled: !quirky },
            introspection: { enabled: true, allowedPolicy: () => true },
            revocation: { enabled: true },
            clientCredentials: { enabled: true },
            dPoP: { enabled: true },
            mTLS: {
                enabled: true,
                certificateBoundAccessTokens: true,
                getCertificate: context => {
                    const shown = context.get('x-test-certificate');
                    return shown ? Buffer.from(shown, 'base64').toString('utf8') : undefined;
                },
            },
            resourceIndicators: {
                enabled: true,
                defaultResource: () => process.env.DEFAULT_RESOURCE,
                useGrantedResource: () => true,
                getResourceServerInfo: (_context, resource) => resourceServerInfo(resource),
            },
        },
        findAccount: (_context, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
        extraTokenClaims: (_context, token) => ({ groups: groups[token.accountId] ?? [] }),
        interactions: { url: (_context, interaction) => `/interaction/${interaction.uid}` },
    });
    made.proxy = false;
    addGrants(made, Object.keys(groups), (resource) => new made.ResourceServer(resource, resourceServerInfo(resource)));
    return made;
}

let current = provider();

/** Logs in whoever `login_hint` names and grants what the client asks for. */
async function interact(req, res) {
    const details = await current.interactionDetails(req, res);
    const { prompt, params } = details;
    if (prompt.name === 'login') {
        await current.interactionFinished(req, res, { login: { accountId: params.login_hint ?? 'alice' } });
        return;
    }
    const accountId = details.session.accountId;
    const known = details.grantId && (await current.Grant.find(details.grantId));
    const grant = known || new current.Grant({ accountId, clientId: params.client_id });
    const asked = (params.scope ?? '').split(' ').filter(Boolean);
    grant.addOIDCScope(asked.join(' '));
    for (const resource of [params.resource ?? []].flat()) grant.addResourceScope(resource, asked.join(' '));
    const consent = { grantId: await grant.save() };
    await current.interactionFinished(req, res, { consent }, { mergeWithLastSubmission: true });
}

/** What Entra says to a request with `resource`; whether it did. */
async function refusesResource(req, res) {
    const query = new URL(req.url, issuer).searchParams;
    let form = new URLSearchParams();
    if (req.method === 'POST' && req.url === '/token') {
        req.body = await text(req);
        form = new URLSearchParams(req.body);
    }
    if (!query.has('resource') && !form.has('resource')) return false;
    res.writeHead(400, { 'content-type': 'application/json' });
    res.end(JSON.stringify({ error: 'invalid_target', error_description: 'AADSTS9010010' }));
    return true;
}

/** Takes `iss` out of where a browser is sent on to. */
function sendsNoIss(res) {
    const set = res.setHeader.bind(res);
    res.setHeader = (name, value) => {
        if (name.toLowerCase() !== 'location' || !String(value).includes('code=')) return set(name, value);
        const target = new URL(value);
        target.searchParams.delete('iss');
        return set(name, target.href);
    };
}

async function text(req) {
    const chunks = [];
    for await (const chunk of req) chunks.push(chunk);
    return Buffer.concat(chunks).toString('utf8');
}

const server = createServer(async (req, res) => {
    try {
        if (quirky) {
            sendsNoIss(res);
            if (await refusesResource(req, res)) return;
        }
        if (req.url === '/test/rotate') {
            keys = [await key(algorithm), ...keys];
            current = provider();
            res.end(keys[0].kid);
        } else if (req.url === '/test/algorithm') {
            algorithm = (await text(req)).trim();
            res.end(algorithm);
        } else if (req.url.startsWith('/interaction/')) {
            await interact(req, res);
        } else {
            if (req.method === 'POST' && req.url === '/reg') {
                // A client that names scopes when it registers would be held to them: no step-up.
                const { scope: _dropped, ...client } = JSON.parse(await text(req));
                req.body = client;
            }
            await current.callback()(req, res);
        }
    } catch (error) {
        console.error(error);
        if (!res.headersSent) res.writeHead(500);
        res.end();
    }
});
server.listen(port, '127.0.0.1', () => console.log(`ready at ${issuer}`));
process.on('SIGTERM', () => process.exit(0));
