//! The world around the gateway: two MCP servers and a vault, each with a behaviour, and what they
//! were asked. One implementation for all drivers; the real proxy reaches it through `listen`.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::scenario::Behaviour;

/// Secrets that are planted in the world. Scenarios name them with a dollar sign.
pub const SECRETS: &[(&str, &str)] = &[
    ("ROLE_ID", "planted-role-3f1c5a"),
    ("SECRET_ID", "planted-secret-id-9d2e77"),
    ("VAULT_TOKEN", "hvs.planted-token-51ab"),
    ("BILLING_KEY", "planted-billing-key-c0ffee42"),
    ("NEW_BILLING_KEY", "planted-new-billing-key-9e61"),
    ("HOST_SECRET", "planted-host-secret-0123456789abcdef"),
    ("API_KEY", "planted-api-key-of-ci-0123456789abcdef"),
    ("INTROSPECTION_SECRET", "planted-introspection-9b3d"),
    ("SESSION_KEY", "planted-session-key-0123456789abcdef"),
    ("ALICE_KEY", "planted-key-of-alice-77e1"),
    ("DB_PASSWORD", "planted-db-password-8d1f"),
    ("CLIENT_SECRET", "planted-client-secret-66aa"),
    ("ACCESS_TOKEN", "planted-access-token-f00d"),
];

/// Which upstream a planted secret is for.
#[must_use]
pub fn is_meant(secret: &str, cluster: &str) -> bool {
    match secret {
        "BILLING_KEY" | "NEW_BILLING_KEY" => cluster == "billing",
        "ALICE_KEY" | "DB_PASSWORD" | "ACCESS_TOKEN" => cluster == "everything",
        "SESSION_KEY" => false,
        "INTROSPECTION_SECRET" => cluster == "idp",
        // The gateway's own, for vaults and authorization servers.
        _ => cluster == "vault",
    }
}

/// A planted secret by its name.
#[must_use]
pub fn secret(name: &str) -> &'static str {
    SECRETS.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
}

/// A request that an upstream was sent.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Name of the cluster.
    pub cluster: String,
    /// HTTP method.
    pub method: String,
    /// Path.
    pub path: String,
    /// Header fields, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// What an upstream does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It answers.
    Reply(Reply),
    /// It takes the request and never answers.
    Silence,
    /// Nobody is there.
    Nobody,
}

/// An answer in pieces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Header fields; without a length, since the pieces come one by one.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub chunks: Vec<Vec<u8>>,
    /// What stands after it.
    pub trailers: Vec<(String, String)>,
}

/// Upstreams with their behaviour and memory.
#[derive(Debug, Default)]
pub struct World {
    state: Mutex<State>,
    /// Told when a behaviour changes.
    changed: Condvar,
    /// Told when an upstream is asked.
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct State {
    behaviours: BTreeMap<String, Behaviour>,
    asked: Vec<Asked>,
    logins: usize,
    revoked: usize,
    /// What billing says to its old key, once it has a new one.
    replaced: Option<u16>,
    /// Whose login a token is, where it is a caller's.
    owners: BTreeMap<String, String>,
    leases: usize,
    /// Sessions that servers of the legacy era have opened, by cluster.
    sessions: BTreeMap<String, Sessions>,
}

#[derive(Debug, Default)]
struct Sessions {
    opened: usize,
    /// Those up to this one are forgotten.
    forgotten: usize,
    /// Those that the client has said are open.
    ready: Vec<usize>,
    /// What was asked of the user and is not answered yet.
    question: Option<Question>,
}

/// A tool's question to the user, and the call that it belongs to.
#[derive(Debug, Default)]
struct Question {
    /// Id of the call.
    call: Value,
    /// The client's answer, once it is there.
    answer: Option<Value>,
}

impl Asked {
    /// A header field.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

impl World {
    /// Sets how upstreams behave from now on.
    pub fn behave(&self, behaviours: &BTreeMap<String, Behaviour>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for (cluster, behaviour) in behaviours {
            if *behaviour == Behaviour::Revoked {
                state.revoked = state.logins;
            }
            match (cluster.as_str(), behaviour) {
                ("vault", Behaviour::Rotated) => state.replaced = Some(401),
                ("vault", Behaviour::RotatedForbidden) => state.replaced = Some(403),
                _ => {}
            }
            if *behaviour == Behaviour::LegacyRestarted {
                let sessions = state.sessions.entry(cluster.clone()).or_default();
                sessions.forgotten = sessions.opened;
            }
            state.behaviours.insert(cluster.clone(), *behaviour);
        }
        self.changed.notify_all();
    }

    /// How an upstream behaves.
    #[must_use]
    pub fn behaviour(&self, cluster: &str) -> Behaviour {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.behaviours.get(cluster).copied().unwrap_or_default()
    }

    /// Takes out what upstreams were asked since the last time.
    pub fn take_asked(&self) -> Vec<Asked> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut state.asked)
    }

    /// Waits until each upstream was asked as often as `expected` says, for `longest` at most: a request
    /// that nobody waits for may arrive after the client has its answer.
    pub fn wait_until_asked(&self, expected: &BTreeMap<String, usize>, longest: Duration) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_lacking = |state: &mut State| {
            let count = |of: &str| state.asked.iter().filter(|asked| asked.cluster == of).count();
            expected.iter().any(|(cluster, expected)| count(cluster) < *expected)
        };
        let _those_that_came_are_compared =
            self.arrived.wait_timeout_while(state, longest, is_lacking);
    }

    /// Whether an upstream was asked anything that was not taken out.
    #[must_use]
    pub fn was_asked(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        !state.asked.is_empty()
    }

    /// What an upstream does with a request.
    pub fn answer(&self, asked: Asked) -> Answer {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = |state: &State| state.behaviours.get(&asked.cluster).copied().unwrap_or_default();
        if now(&state) == Behaviour::Down {
            return Answer::Nobody;
        }
        state.asked.push(asked.clone());
        self.arrived.notify_all();
        let is_held = |state: &mut State| now(state) == Behaviour::Held;
        let mut state =
            self.changed.wait_while(state, is_held).unwrap_or_else(PoisonError::into_inner);
        let behaviour = now(&state);
        let refused = state.replaced.filter(|_| shows_old_key(&asked));
        let answer = match behaviour {
            _ if refused.is_some() => {
                // It is not discreet.
                let error = format!("{} is not accepted any more", secret("BILLING_KEY"));
                reply(refused.unwrap_or(401), &json!({"error": error}))
            }
            Behaviour::Silent => Answer::Silence,
            Behaviour::Html => html(200),
            Behaviour::HtmlError => html(500),
            Behaviour::BadGateway => html(502),
            Behaviour::Error => reply(500, &json!({"errors": ["internal error"]})),
            Behaviour::Forbidden => reply(403, &json!({"errors": ["permission denied"]})),
            Behaviour::Unauthorized => reply(401, &json!({"error": "invalid_token"})),
            Behaviour::Garbage => text(200, "application/json", "{\"data\": {\"da"),
            Behaviour::Redirect => Answer::Reply(Reply {
                status: 302,
                headers: vec![("location".into(), "https://elsewhere.example/".into())],
                chunks: Vec::new(),
                trailers: Vec::new(),
            }),
            _ if asked.cluster == "idp" => idp(&asked, behaviour),
            _ if asked.cluster == "vault" => vault(&mut state, &asked, behaviour),
            Behaviour::Legacy
            | Behaviour::LegacyRestarted
            | Behaviour::LegacyAsks
            | Behaviour::LegacyLinks
            | Behaviour::LegacyAsksOnce => legacy(&mut state, &asked, behaviour),
            Behaviour::Both if asked.header("mcp-protocol-version") != Some("2026-07-28") => {
                legacy(&mut state, &asked, behaviour)
            }
            Behaviour::Echoes | Behaviour::EchoesEvents => echoing(&asked, behaviour),
            _ => server(&asked, behaviour),
        };
        match answer {
            Answer::Reply(mut reply) => {
                let talkative = SOFTWARE.map(|(name, value)| (name.into(), value.into()));
                reply.headers.extend(talkative);
                Answer::Reply(reply)
            }
            other => other,
        }
    }
}

/// Whether a request to billing has the key that it had first.
fn shows_old_key(asked: &Asked) -> bool {
    asked.cluster == "billing" && asked.header("x-billing-key") == Some(secret("BILLING_KEY"))
}

/// What every upstream says of what it is made of.
const SOFTWARE: [(&str, &str); 3] =
    [("server", "gunicorn"), ("x-powered-by", "Express"), ("x-aspnet-version", "4.0.30319")];

/// An identity provider: the keys of the demo's issuer, and what it says of opaque tokens.
fn idp(asked: &Asked, behaviour: Behaviour) -> Answer {
    match (asked.method.as_str(), asked.path.as_str()) {
        ("GET", "/jwks") => {
            let demo = crate::repository::read("scripts/stack/demo-jwks.json").unwrap_or_default();
            let mut set: Value = serde_json::from_str(&demo).unwrap_or_default();
            let keys = set.get_mut("keys").and_then(Value::as_array_mut);
            match (behaviour, keys) {
                (Behaviour::NoKeys, Some(keys)) => keys.clear(),
                (Behaviour::Rotated, Some(keys)) => keys.insert(0, crate::people::new_key()),
                (Behaviour::Huge, Some(keys)) => {
                    keys.push(json!({"kty": "oct", "k": "x".repeat(300 << 10)}));
                }
                // Kinds of keys that are not known are for others.
                (_, Some(keys)) => keys.push(json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": "x"})),
                (_, None) => {}
            }
            reply(200, &set)
        }
        ("GET", "/bundle") => bundle(asked, behaviour),
        ("GET", "/approvals/jwks") => reply(200, &json!({"keys": [crate::people::approval_key()]})),
        ("POST", "/introspect") => {
            let login = format!("toolgate:{}", secret("INTROSPECTION_SECRET"));
            let login = format!("Basic {}", STANDARD.encode(login));
            if asked.header("authorization") != Some(login.as_str()) {
                return reply(401, &json!({"error": "invalid_client"}));
            }
            let form = String::from_utf8_lossy(&asked.body);
            let token = form.split('&').find_map(|pair| pair.strip_prefix("token="));
            let person = token.and_then(|token| token.strip_prefix("opaque-"));
            let audience = "http://127.0.0.1:10000/mcp";
            match person {
                Some("bob") => reply(
                    200,
                    &json!({
                        "active": true, "iss": "https://idp.demo.toolgate.example", "sub": "bob", "aud": audience,
                        "client_id": "demo-agent", "scope": "mcp:tools", "groups": ["engineering"],
                    }),
                ),
                Some("elsewhere") => reply(
                    200,
                    &json!({"active": true, "sub": "bob", "aud": "https://elsewhere.example"}),
                ),
                Some("anywhere") => reply(200, &json!({"active": true, "sub": "bob"})),
                Some("late") => {
                    reply(200, &json!({"active": true, "sub": "bob", "aud": audience, "exp": 1000}))
                }
                Some("foreign") => reply(
                    200,
                    &json!({"active": true, "iss": "https://other.example", "sub": "bob", "aud": audience}),
                ),
                _ => reply(200, &json!({"active": false})),
            }
        }
        ("GET", "/.well-known/openid-configuration") => {
            let url = |path: &str| format!("https://idp.demo.toolgate.example{path}");
            let issuer = if behaviour == Behaviour::NoKeys {
                "https://other.example".into()
            } else {
                url("")
            };
            let mut metadata = json!({
                "issuer": issuer, "authorization_endpoint": url("/authorize"), "token_endpoint": url("/token"),
                "jwks_uri": url("/jwks"), "scopes_supported": ["openid"], "grant_types_supported": ["authorization_code"],
                "pushed_authorization_request_endpoint": url("/par"), "dpop_signing_alg_values_supported": ["ES256"],
                "authorization_response_iss_parameter_supported": true,
            });
            if behaviour == Behaviour::Rotated {
                metadata["token_endpoint"] = json!("https://elsewhere.example/token");
            }
            if behaviour == Behaviour::Huge {
                metadata["service_documentation"] = json!("x".repeat(80 << 10));
            }
            reply(200, &metadata)
        }
        // It refuses `resource`, as Entra does.
        ("POST", "/token") => {
            let form = String::from_utf8_lossy(&asked.body);
            if form.contains("resource") {
                return reply(400, &json!({"error": "invalid_target"}));
            }
            if !form.contains("code=code-of-the-test") {
                return reply(400, &json!({"error": "invalid_grant"}));
            }
            reply(200, &json!({"access_token": "token-of-the-test", "token_type": "Bearer"}))
        }
        _ => reply(404, &json!({})),
    }
}

/// Policies as `toolgate bundle` writes them: the demo's, rotated with one more, and wrong ones.
fn bundle(asked: &Asked, behaviour: Behaviour) -> Answer {
    let plugin = crate::configuration::plugin(None).unwrap_or_default();
    let mut policy = plugin.get("policy").cloned().unwrap_or_default();
    policy["name"] = json!("fetched");
    let etag = match behaviour {
        Behaviour::Rotated => {
            policy["policies"]["more.cedar"] = json!(
                "@id(\"no-echo\") forbid (principal, action in MCP::Action::\"call_tool\", \
                 resource == MCP::Tool::\"everything/echo\");"
            );
            "\"2\""
        }
        Behaviour::NoKeys => {
            policy["policies"]["more.cedar"] =
                json!("permit (principal, action, resource == MCP::Tool::\"nowhere/x\");");
            "\"3\""
        }
        Behaviour::Huge => return json_of_bytes(vec![b' '; 9 << 20]),
        _ => "\"1\"",
    };
    if asked.header("if-none-match") == Some(etag) {
        return Answer::Reply(Reply { status: 304, ..Reply::default() });
    }
    let mut reply = json_reply(200, &json!({"policy": policy}));
    reply.headers.push(("etag".into(), etag.into()));
    Answer::Reply(reply)
}

fn json_of_bytes(body: Vec<u8>) -> Answer {
    let headers = vec![("content-type".into(), "application/json".into())];
    Answer::Reply(Reply { status: 200, headers, chunks: vec![body], trailers: Vec::new() })
}

fn vault(state: &mut State, asked: &Asked, behaviour: Behaviour) -> Answer {
    if asked.path == "/oauth/token" {
        return token_endpoint(asked, behaviour);
    }
    if let Some(answer) = further_engines(state, asked, behaviour) {
        return answer;
    }
    match (asked.method.as_str(), asked.path.as_str()) {
        ("POST", "/v1/auth/approle/login") => {
            let body: Value = serde_json::from_slice(&asked.body).unwrap_or_default();
            let right = body.get("role_id").and_then(Value::as_str) == Some(secret("ROLE_ID"))
                && body.get("secret_id").and_then(Value::as_str) == Some(secret("SECRET_ID"));
            if !right || behaviour == Behaviour::NoLogin {
                return reply(400, &json!({"errors": ["invalid role or secret ID"]}));
            }
            state.logins += 1;
            let token = format!("{}-{}", secret("VAULT_TOKEN"), state.logins);
            reply(
                200,
                &json!({"auth": {"client_token": token, "lease_duration": 3600, "renewable": true}}),
            )
        }
        ("GET", "/v1/secret/data/mcp/billing") => {
            let valid = is_logged_in(state, asked);
            if !valid {
                return reply(403, &json!({"errors": ["permission denied"]}));
            }
            let data = match behaviour {
                Behaviour::NoSecret => return reply(404, &json!({"errors": []})),
                Behaviour::NoField => json!({"other": "x"}),
                Behaviour::LineBreak => json!({"key": "a\r\nx-admin: true"}),
                _ if state.replaced.is_some() => json!({"key": secret("NEW_BILLING_KEY")}),
                _ => json!({"key": secret("BILLING_KEY")}),
            };
            let version = if state.replaced.is_some() { 4 } else { 3 };
            reply(
                200,
                &json!({"lease_duration": 0, "data": {"data": data, "metadata": {"version": version}}}),
            )
        }
        _ => reply(404, &json!({"errors": []})),
    }
}

/// Whether a request has a vault token that is good.
fn is_logged_in(state: &State, asked: &Asked) -> bool {
    asked
        .header("x-vault-token")
        .and_then(|token| token.strip_prefix(secret("VAULT_TOKEN"))?.strip_prefix('-'))
        .and_then(|number| number.parse::<usize>().ok())
        .is_some_and(|number| number > state.revoked && number <= state.logins)
}

/// Logins by token, per-user secrets, version 1 of the key-value engine, an engine that lends.
fn further_engines(state: &mut State, asked: &Asked, behaviour: Behaviour) -> Option<Answer> {
    let body: Value = serde_json::from_slice(&asked.body).unwrap_or_default();
    let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let forbidden = || reply(403, &json!({"errors": ["permission denied"]}));
    match (asked.method.as_str(), asked.path.as_str()) {
        ("POST", "/v1/auth/jwt/login" | "/v1/auth/kubernetes/login") => {
            let jwt = text("jwt");
            if text("role") != "mcp" || jwt.is_empty() || behaviour == Behaviour::NoLogin {
                return Some(reply(400, &json!({"errors": ["role or token is not accepted"]})));
            }
            state.logins += 1;
            let token = format!("{}-{}", secret("VAULT_TOKEN"), state.logins);
            if let Some(subject) = subject(&jwt) {
                state.owners.insert(token.clone(), subject);
            }
            Some(reply(
                200,
                &json!({"auth": {"client_token": token, "lease_duration": 3600, "renewable": true}}),
            ))
        }
        ("POST", "/v1/auth/token/renew-self") => Some(match is_logged_in(state, asked) {
            false => forbidden(),
            true => {
                let token = asked.header("x-vault-token");
                let auth =
                    json!({"client_token": token, "lease_duration": 3600, "renewable": true});
                reply(200, &json!({"auth": auth}))
            }
        }),
        ("POST", "/v1/sys/leases/renew") => Some(match behaviour {
            _ if !is_logged_in(state, asked) => forbidden(),
            Behaviour::NoSecret => reply(400, &json!({"errors": ["lease not found"]})),
            _ => reply(
                200,
                &json!({"lease_id": text("lease_id"), "lease_duration": 60, "renewable": true}),
            ),
        }),
        ("GET", path) => {
            let user = path.strip_prefix("/v1/secret/data/users/");
            let user = user.and_then(|rest| rest.strip_suffix("/github")).map(str::to_owned);
            if user.is_none() && !matches!(path, "/v1/kv1/mcp/billing" | "/v1/database/creds/app") {
                return None;
            }
            if !is_logged_in(state, asked) {
                return Some(forbidden());
            }
            let Some(user) = user else {
                return Some(match path {
                    "/v1/kv1/mcp/billing" => reply(
                        200,
                        &json!({"lease_duration": 2_764_800, "data": {"deep": {"key": secret("BILLING_KEY")}}}),
                    ),
                    _ => {
                        state.leases += 1;
                        let number = state.leases;
                        reply(
                            200,
                            &json!({
                                "lease_id": format!("database/creds/app/{number}"),
                                "lease_duration": 60, "renewable": true,
                                "data": {"username": format!("u-{number}"), "password": secret("DB_PASSWORD")},
                            }),
                        )
                    }
                });
            };
            // The vault's own policies: what a caller's login may read.
            let owner = asked.header("x-vault-token").and_then(|token| state.owners.get(token));
            if owner.is_some_and(|owner| *owner != user) {
                return Some(forbidden());
            }
            Some(match user.as_str() {
                "alice" => reply(
                    200,
                    &json!({"data": {"data": {"key": secret("ALICE_KEY")}, "metadata": {"version": 1}}}),
                ),
                _ => reply(404, &json!({"errors": []})),
            })
        }
        _ => None,
    }
}

/// The `sub` of a token that somebody else has verified.
fn subject(jwt: &str) -> Option<String> {
    use base64::Engine as _;
    let payload = jwt.split('.').nth(1)?;
    let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).ok()?;
    let claims: Value = serde_json::from_slice(&payload).ok()?;
    claims.get("sub")?.as_str().map(str::to_owned)
}

/// A token endpoint that knows the gateway as a client, and of people only alice.
fn token_endpoint(asked: &Asked, behaviour: Behaviour) -> Answer {
    use base64::Engine as _;
    let pair = format!("toolgate:{}", secret("CLIENT_SECRET"));
    let basic = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
    let body = String::from_utf8_lossy(&asked.body).into_owned();
    let field = |name: &str| {
        body.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).unwrap_or("")
    };
    let known = asked.header("authorization") == Some(basic.as_str())
        || field("client_secret") == secret("CLIENT_SECRET");
    if !known {
        return reply(401, &json!({"error": "invalid_client"}));
    }
    let caller = match field("grant_type") {
        "client_credentials" => Some("toolgate".to_owned()),
        "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange" => {
            subject(field("subject_token"))
        }
        "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer" => subject(field("assertion")),
        _ => return reply(400, &json!({"error": "unsupported_grant_type"})),
    };
    match caller.as_deref() {
        Some("toolgate" | "alice") => {
            let kind = if behaviour == Behaviour::NoField { "DPoP" } else { "Bearer" };
            reply(
                200,
                &json!({"access_token": secret("ACCESS_TOKEN"), "token_type": kind, "expires_in": 300}),
            )
        }
        _ => reply(400, &json!({"error": "invalid_grant"})),
    }
}

/// A server that knows nothing but sessions (2025-11-25, "Session Management"), and holds clients to them.
fn legacy(state: &mut State, asked: &Asked, behaviour: Behaviour) -> Answer {
    let refuse = |status: u16, message: &str| {
        reply(
            status,
            &json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32000, "message": message}}),
        )
    };
    let message: Value = serde_json::from_slice(&asked.body).unwrap_or_default();
    let method = message.get("method").and_then(Value::as_str).unwrap_or_default();
    let sessions = state.sessions.entry(asked.cluster.clone()).or_default();
    if method == "initialize" {
        sessions.opened += 1;
        let Answer::Reply(mut reply) = server(asked, behaviour) else { return Answer::Nobody };
        reply.headers.retain(|(name, _)| name != "mcp-session-id");
        reply.headers.push(("mcp-session-id".into(), format!("legacy-{}", sessions.opened)));
        return Answer::Reply(reply);
    }
    if asked.header("mcp-protocol-version") == Some("2026-07-28") {
        return refuse(400, "Bad Request: Unsupported protocol version");
    }
    let Some(session) = asked.header("mcp-session-id") else {
        return refuse(400, "Bad Request: Server not initialized");
    };
    let number = session.strip_prefix("legacy-").and_then(|number| number.parse::<usize>().ok());
    let known = number.filter(|number| *number > sessions.forgotten && *number <= sessions.opened);
    let Some(number) = known else { return refuse(404, "Session not found") };
    if matches!(behaviour, Behaviour::LegacyAsks | Behaviour::LegacyAsksOnce)
        && let Some(answer) = legacy_asks(sessions, asked, &message, behaviour)
    {
        return answer;
    }
    if method == "notifications/initialized" {
        sessions.ready.push(number);
    } else if !sessions.ready.contains(&number) {
        return refuse(400, "Received request before initialization was complete");
    }
    server(asked, behaviour)
}

/// What the tools of a server do that asks the user first: it asks in the stream of the call, is answered
/// in a request of its own, and answers the call in the same stream or in the one that resumes it.
fn legacy_asks(
    sessions: &mut Sessions,
    asked: &Asked,
    message: &Value,
    behaviour: Behaviour,
) -> Option<Answer> {
    let resumable = behaviour == Behaviour::LegacyAsks;
    if asked.method == "GET" {
        let question = sessions.question.as_ref();
        let answer = question.and_then(|question| question.answer.clone());
        return Some(match (asked.header("last-event-id"), question, answer) {
            (Some("e-1"), Some(_), _) => events(&[("e-2", question_of_a_tool(asked))]),
            (Some("e-2"), Some(question), Some(answer)) => {
                let answer = answer.get("result").cloned().unwrap_or_default();
                let text = format!("answered {answer}");
                let result = json!({"content": [{"type": "text", "text": text}]});
                events(&[("e-3", json!({"jsonrpc": "2.0", "id": question.call, "result": result}))])
            }
            _ => reply(
                400,
                &json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32000, "message": "Invalid event ID"}}),
            ),
        });
    }
    match (message.get("method").and_then(Value::as_str), message.get("id")) {
        (None, Some(id)) => {
            let question = sessions.question.as_mut().filter(|_| *id == json!(5))?;
            question.answer = Some(message.clone());
            None
        }
        (Some("tools/call"), Some(id)) => {
            sessions.question = Some(Question { call: id.clone(), answer: None });
            let log = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x"}});
            let result = json!({"content": [{"type": "text", "text": "nobody was asked"}]});
            let done = json!({"jsonrpc": "2.0", "id": id, "result": result});
            Some(match resumable {
                true => {
                    events(&[("e-1", Value::Null), ("", log), ("e-2", question_of_a_tool(asked))])
                }
                // It has been told that nobody can be asked, and goes on.
                false => events(&[("", question_of_a_tool(asked)), ("", done)]),
            })
        }
        _ => None,
    }
}

/// What a tool asks. A server with a key of its own is careless with it.
fn question_of_a_tool(asked: &Asked) -> Value {
    let key = asked.header("x-billing-key").map(|key| format!(" ({key})")).unwrap_or_default();
    json!({"jsonrpc": "2.0", "id": 5, "method": "elicitation/create", "params": {
        "message": format!("Sure?{key}"), "requestedSchema": {"type": "object", "properties": {"sure": {"type": "boolean"}}},
        "_meta": {"progressToken": 1},
    }})
}

/// A stream of events with ids; an event without a message holds no data.
fn events(messages: &[(&str, Value)]) -> Answer {
    let mut bytes = Vec::new();
    for (id, message) in messages {
        let data = if message.is_null() { String::new() } else { message.to_string() };
        let id = if id.is_empty() { String::new() } else { format!("id: {id}\n") };
        bytes.extend(format!("event: message\n{id}data: {data}\n\n").into_bytes());
    }
    Answer::Reply(Reply {
        status: 200,
        headers: vec![("content-type".into(), "text/event-stream".into())],
        chunks: bytes.chunks(7).map(<[u8]>::to_vec).collect(),
        trailers: Vec::new(),
    })
}

fn server(asked: &Asked, behaviour: Behaviour) -> Answer {
    let keys = ["BILLING_KEY", "NEW_BILLING_KEY"].map(|name| Some(secret(name)));
    if asked.cluster == "billing" && !keys.contains(&asked.header("x-billing-key")) {
        return reply(401, &json!({"error": "x-billing-key is missing or wrong"}));
    }
    if let Some(refusal) = session_rules(asked, behaviour) {
        return refusal;
    }
    if asked.method == "DELETE" {
        return Answer::Reply(Reply { status: 200, ..Reply::default() });
    }
    if asked.method == "GET" {
        let notification = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"});
        // Answers to earlier requests may be replayed on such a stream.
        let replayed =
            json!({"jsonrpc": "2.0", "id": 7, "result": {"tools": tools(&asked.cluster)}});
        return match behaviour {
            Behaviour::CutStream => cut_stream(&notification, &replayed),
            Behaviour::HugeEvent => {
                let huge = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": "x".repeat(9 << 20)}});
                stream(&[notification, huge, replayed])
            }
            Behaviour::Updates => stream(&updates()),
            _ => stream(&[notification, replayed]),
        };
    }
    let message: Value = serde_json::from_slice(&asked.body).unwrap_or_default();
    if let Value::Array(messages) = message {
        return batch(asked, &messages, behaviour);
    }
    // Notifications, and answers to questions of the server's own.
    let (Some(id), Some(_)) = (message.get("id"), message.get("method")) else {
        return Answer::Reply(Reply { status: 202, ..Reply::default() });
    };
    let params = message.get("params").cloned().unwrap_or_default();
    let name = params.get("name").and_then(Value::as_str).unwrap_or_default();
    let result = match message.get("method").and_then(Value::as_str).unwrap_or_default() {
        "initialize" if behaviour == Behaviour::Modern => {
            return error(id, -32601, "method not found");
        }
        "initialize" => json!({
            "protocolVersion": params.get("protocolVersion"),
            "capabilities": {"tools": {}, "logging": {}},
            "serverInfo": {"name": asked.cluster, "version": "1"},
        }),
        "ping" | "logging/setLevel" => json!({}),
        "server/discover" => json!({
            "resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}},
            "ttlMs": 0, "cacheScope": "public",
        }),
        "tools/list" if behaviour == Behaviour::Huge => {
            json!({"tools": [{"name": "echo", "description": "x".repeat(20 << 20)}]})
        }
        "tools/list" if behaviour == Behaviour::LargeNumbers => {
            let bounds = json!({"minimum": i64::MIN, "maximum": u64::MAX, "default": 9_007_199_254_740_993_i64});
            let mut tools = tools(&asked.cluster);
            if let Some(schema) = tools.pointer_mut("/0/inputSchema") {
                *schema = json!({"type": "object", "properties": {"n": bounds}});
            }
            json!({"tools": tools})
        }
        "tools/list" if behaviour == Behaviour::Endless => {
            let page = params.get("cursor").and_then(Value::as_str).unwrap_or("0");
            let next = page.parse::<usize>().map_or(1, |page| page + 1);
            json!({"tools": [], "nextCursor": next.to_string()})
        }
        "tools/list" if behaviour == Behaviour::Many => {
            let tool = |number: usize| json!({"name": format!("tool-{number}")});
            json!({"tools": (0..10_000).map(tool).collect::<Vec<_>>()})
        }
        "tools/list" if behaviour == Behaviour::Twins => {
            let tool = |text: &str| json!({"name": "echo", "description": text});
            json!({"tools": [tool("the first"), tool("the second")]})
        }
        "tools/list" if behaviour == Behaviour::Odd => {
            let names = ["a.b", "files/read", "l\u{f6}schen", &"n".repeat(300), "get-env"];
            json!({"tools": names.map(|name| json!({"name": name}))})
        }
        "tools/list" if params.get("cursor").and_then(Value::as_str) == Some("page-2") => {
            json!({"tools": [], "cacheScope": "public", "ttlMs": 30000})
        }
        "tools/list" => json!({
            "tools": tools(&asked.cluster), "nextCursor": "page-2", "cacheScope": "public", "ttlMs": 30000,
        }),
        "subscriptions/listen" if behaviour == Behaviour::Updates => return stream(&updates()),
        "prompts/list" => json!({"prompts": [{"name": "dunning_letter"}, {"name": "other"}]}),
        "resources/list" => json!({"resources": [
            {"uri": "billing://terms", "name": "terms"}, {"uri": "billing://secret", "name": "secret"},
        ]}),
        "tools/call" if matches!(behaviour, Behaviour::Links | Behaviour::LegacyLinks) => {
            let updated = json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": "billing://ledger"}});
            let link =
                json!({"type": "resource_link", "uri": "billing://ledger", "name": "ledger"});
            let embedded = json!({"type": "resource", "resource": {"uri": "billing://terms", "text": "see billing://ledger"}});
            let related = json!({"io.modelcontextprotocol/related-task": {"taskId": "t-1"}});
            let result = json!({"content": [link, embedded], "_meta": related});
            return stream(&[updated, json!({"jsonrpc": "2.0", "id": id, "result": result})]);
        }
        "tools/call" if behaviour == Behaviour::ListsChange => {
            let changed = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"});
            let content = json!([{"type": "text", "text": format!("called {name}")}]);
            return stream(&[
                changed,
                json!({"jsonrpc": "2.0", "id": id, "result": {"content": content}}),
            ]);
        }
        "tasks/get" | "tasks/cancel"
            if matches!(behaviour, Behaviour::Links | Behaviour::LegacyLinks) =>
        {
            json!({"taskId": params.get("taskId"), "status": "working", "ttl": null})
        }
        "resources/templates/list" => {
            json!({"resourceTemplates": [{"uriTemplate": "billing://{id}", "name": "one"}]})
        }
        "subscriptions/listen" if behaviour == Behaviour::Links => {
            let id_of = json!({"io.modelcontextprotocol/subscriptionId": id});
            let taken = json!({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged",
                "params": {"notifications": params.get("notifications"), "_meta": id_of}});
            let update = |uri: &str| {
                json!({"jsonrpc": "2.0", "method": "notifications/resources/updated",
                "params": {"uri": uri, "_meta": id_of}})
            };
            return stream(&[taken, update("billing://secret"), update("billing://terms")]);
        }
        "tools/call" if behaviour == Behaviour::Asks && params.get("inputResponses").is_none() => {
            json!({
                "resultType": "input_required", "requestState": "s-1",
                "inputRequests": {"sure": {"method": "elicitation/create", "params": {
                    "message": "Sure?", "requestedSchema": {"type": "object", "properties": {}},
                }}},
            })
        }
        "tools/call" if behaviour == Behaviour::Asks => {
            let answers = params.get("inputResponses").cloned().unwrap_or_default();
            json!({"resultType": "complete", "content": [{"type": "text", "text": format!("answered {answers}")}]})
        }
        "tools/call" => json!({"content": [{"type": "text", "text": format!("called {name}")}]}),
        "prompts/get" => json!({"messages": []}),
        "resources/read" => json!({"contents": [{"uri": params.get("uri"), "text": "terms"}]}),
        _ => return error(id, -32601, "method not found"),
    };
    let other = json!("of somebody else");
    let id = if behaviour == Behaviour::OtherId { &other } else { id };
    let answer = json!({"jsonrpc": "2.0", "id": id, "result": result});
    match behaviour {
        Behaviour::EventStream => stream(&[
            json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "é"}}),
            answer,
        ]),
        Behaviour::Gzip => Answer::Reply(Reply {
            status: 200,
            headers: vec![
                ("content-type".into(), "application/json".into()),
                ("content-encoding".into(), "gzip".into()),
            ],
            chunks: vec![vec![0x1f, 0x8b, 8, 0]],
            trailers: Vec::new(),
        }),
        _ => {
            let mut reply = json_reply(200, &answer);
            if message.get("method").and_then(Value::as_str) == Some("initialize") {
                reply.headers.push(("mcp-session-id".into(), "session-1".into()));
            }
            Answer::Reply(reply)
        }
    }
}

/// A server that shows what it was sent: as text, as JSON, as JSON within JSON, in a header field.
fn echoing(asked: &Asked, behaviour: Behaviour) -> Answer {
    let message: Value = serde_json::from_slice(&asked.body).unwrap_or_default();
    let sent: serde_json::Map<_, _> =
        asked.headers.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let shown = format!("{} {}", asked.path, Value::Object(sent.clone()));
    let result = match message.get("method").and_then(Value::as_str) {
        Some("tools/list") => {
            let tool = |name: &str| json!({"name": name, "description": shown, "inputSchema": {"type": "object"}});
            json!({"tools": [tool("refund"), tool("echo")]})
        }
        _ => json!({"content": [{"type": "text", "text": shown}], "sent": sent}),
    };
    let answer = json!({"jsonrpc": "2.0", "id": message.get("id"), "result": result});
    let answered = match behaviour {
        Behaviour::EchoesEvents => stream(&[
            json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "debug", "data": shown}}),
            answer,
        ]),
        _ => reply(200, &answer),
    };
    let Answer::Reply(mut reply) = answered else { return answered };
    reply.chunks = reply.chunks.concat().chunks(11).map(<[u8]>::to_vec).collect();
    let credential = asked.header("x-billing-key").or_else(|| asked.header("authorization"));
    let shown = format!("with {}", credential.unwrap_or_default());
    // A list that is held whole to be filtered comes to nothing when it ends in trailers.
    if message["method"] != "tools/list" {
        reply.trailers.push(("x-sent-last".into(), shown.clone()));
    }
    reply.headers.push(("x-sent".into(), shown));
    Answer::Reply(reply)
}

/// What a server with rules of its own about sessions says to a request that breaks them.
fn session_rules(asked: &Asked, behaviour: Behaviour) -> Option<Answer> {
    let refuse = |status: u16, text: &str| {
        let error = json!({"code": -32600, "message": text});
        Some(reply(status, &json!({"jsonrpc": "2.0", "id": null, "error": error})))
    };
    let message: Value = serde_json::from_slice(&asked.body).unwrap_or_default();
    let opens = message.get("method").and_then(Value::as_str) == Some("initialize");
    match (behaviour, asked.header("mcp-session-id")) {
        (Behaviour::Modern, _) if asked.method != "POST" => refuse(405, "there is no such stream"),
        (Behaviour::Sessions, None) if !opens => refuse(400, "no session"),
        (Behaviour::Sessions, Some(id)) if id != "session-1" => refuse(404, "unknown session"),
        _ => None,
    }
}

/// Updates of resources that nobody asked to hear of all of: in sub-resources, in a batch, and one
/// that names nothing.
fn updates() -> Vec<Value> {
    let update = |params: Value| json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": params});
    vec![
        update(json!({"uri": "billing://ledger"})),
        update(json!({"uri": "billing://terms"})),
        json!([update(json!({"uri": "billing://ledger/1"})), {"jsonrpc": "2.0", "method": "notifications/prompts/list_changed"}]),
        json!([update(json!({"uri": "billing://ledger/2"}))]),
        update(json!({"title": "without a uri"})),
        json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}),
    ]
}

/// A stream whose last event has no end.
fn cut_stream(whole: &Value, cut: &Value) -> Answer {
    let bytes = format!("data: {whole}\n\nid: 9\ndata: {cut}\n").into_bytes();
    Answer::Reply(Reply {
        status: 200,
        headers: vec![("content-type".into(), "text/event-stream".into())],
        chunks: bytes.chunks(7).map(<[u8]>::to_vec).collect(),
        trailers: Vec::new(),
    })
}

/// Answers a batch (2025-03-26): each request of it as if it came alone.
fn batch(asked: &Asked, messages: &[Value], behaviour: Behaviour) -> Answer {
    let answers: Vec<Value> = messages
        .iter()
        .filter_map(|message| {
            let body = message.to_string().into_bytes();
            match server(&Asked { body, ..asked.clone() }, Behaviour::Well) {
                Answer::Reply(reply) => serde_json::from_slice(&reply.chunks.concat()).ok(),
                Answer::Silence | Answer::Nobody => None,
            }
        })
        .collect();
    match (answers.is_empty(), behaviour) {
        (true, _) => Answer::Reply(Reply { status: 202, ..Reply::default() }),
        (false, Behaviour::EventStream) => stream(&answers),
        (false, _) => reply(200, &Value::Array(answers)),
    }
}

fn tools(cluster: &str) -> Value {
    let names: &[&str] = match cluster {
        "billing" => &["list_invoices", "refund", "delete_customer", "statement", "undeclared"],
        _ => &["echo", "get-sum", "get-env"],
    };
    let tool = |name: &&str| match *name {
        // Its region is repeated in a header (2026-07-28).
        "get-sum" => json!({"name": name, "inputSchema": {"type": "object", "properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
        }}}),
        name => json!({"name": name, "inputSchema": {"type": "object"}}),
    };
    names.iter().map(tool).collect()
}

/// An event stream in the pieces that a network makes of it: cut inside lines and characters.
fn stream(messages: &[Value]) -> Answer {
    let mut bytes = b": hello\n\nid: 0\nretry: 100\ndata:\n\n".to_vec();
    for message in messages {
        bytes.extend(format!("event: message\r\ndata: {message}\r\n\r\n").into_bytes());
    }
    Answer::Reply(Reply {
        status: 200,
        headers: vec![("content-type".into(), "text/event-stream".into())],
        chunks: bytes.chunks(7).map(<[u8]>::to_vec).collect(),
        trailers: Vec::new(),
    })
}

fn error(id: &Value, code: i64, message: &str) -> Answer {
    let error = json!({"code": code, "message": message});
    reply(200, &json!({"jsonrpc": "2.0", "id": id, "error": error}))
}

fn reply(status: u16, body: &Value) -> Answer {
    Answer::Reply(json_reply(status, body))
}

fn json_reply(status: u16, body: &Value) -> Reply {
    let bytes = body.to_string().into_bytes();
    let size = bytes.len().div_ceil(3).max(1);
    Reply {
        status,
        headers: vec![("content-type".into(), "application/json".into())],
        chunks: bytes.chunks(size).map(<[u8]>::to_vec).collect(),
        trailers: Vec::new(),
    }
}

fn html(status: u16) -> Answer {
    text(status, "text/html", "<html><h1>It works!</h1></html>")
}

fn text(status: u16, content_type: &str, body: &str) -> Answer {
    Answer::Reply(Reply {
        status,
        headers: vec![("content-type".into(), content_type.into())],
        chunks: vec![body.as_bytes().to_vec()],
        trailers: Vec::new(),
    })
}
