// Two grants that oidc-provider leaves to its users: token exchange (RFC 8693) and JWT bearer (RFC 7523).
// Both take a token of the issuer whose keys are in the file SUBJECT_KEYS names, and give one for the same
// person and one resource (RFC 8707). For people without an account the answer is `invalid_grant`.
import { readFileSync } from 'node:fs';
import { createLocalJWKSet, jwtVerify } from 'jose';
import { errors } from 'oidc-provider';

const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const BEARER = 'urn:ietf:params:oauth:grant-type:jwt-bearer';
const ACCESS_TOKEN = 'urn:ietf:params:oauth:token-type:access_token';

/** The names of the grants, where the keys of a trusted issuer were given. */
export const grants = process.env.SUBJECT_KEYS ? [EXCHANGE, BEARER] : [];

/** Adds the grants to a provider; `accounts` are the people it knows, `resourceServer` makes what a token is for. */
export function addGrants(provider, accounts, resourceServer) {
    if (!process.env.SUBJECT_KEYS) return;
    const keys = createLocalJWKSet(JSON.parse(readFileSync(process.env.SUBJECT_KEYS, 'utf8')));
    const handler = (field, answer) => async (ctx) => {
        const { client, params } = ctx.oidc;
        if (typeof params.resource !== 'string') throw new errors.InvalidTarget('one resource has to be named');
        if (field === 'subject_token' && params.subject_token_type !== ACCESS_TOKEN) {
            throw new errors.InvalidRequest('subject_token_type is not supported');
        }
        let subject;
        try {
            subject = (await jwtVerify(params[field] ?? '', keys)).payload.sub;
        } catch {
            throw new errors.InvalidGrant(`${field} is not valid`);
        }
        if (!accounts.includes(subject)) throw new errors.InvalidGrant('the subject has no account');
        const grant = new provider.Grant({ accountId: subject, clientId: client.clientId });
        const token = new provider.AccessToken({ accountId: subject, client, grantId: await grant.save(), gty: field });
        token.resourceServer = resourceServer(params.resource);
        ctx.body = { access_token: await token.save(), expires_in: token.expiration, token_type: token.tokenType, ...answer };
    };
    const shared = ['resource', 'audience', 'scope'];
    const exchanged = [...shared, 'subject_token', 'subject_token_type', 'requested_token_type', 'actor_token', 'actor_token_type'];
    provider.registerGrantType(EXCHANGE, handler('subject_token', { issued_token_type: ACCESS_TOKEN }), exchanged);
    provider.registerGrantType(BEARER, handler('assertion', {}), [...shared, 'assertion']);
}
