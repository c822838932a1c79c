//! Vaults: logins, what is asked of their engines, what their answers mean.
//!
//! The HTTP interface of Vault and OpenBao. Not here: which credential is needed (`broker`).

use std::cell::Cell;
use std::ops::Deref;
use std::rc::Rc;
use std::time::Duration;

use toolgate_protocol::json::{Json, Object};

use super::template::Template;
use super::{
    CredentialError, Fetched, LARGEST_ANSWER, Lease, REFRESHED_AFTER, Written, is_sendable,
};
use crate::endpoint::Endpoint;
use crate::event::{CallOutcome, FieldValue, HttpCall, Timestamp};
use crate::secret::Secret;

/// A vault token is used until this share of its life is over, so that none ends under way.
const TOKEN_LIFE_USED: f64 = 0.9;

/// A vault, compiled.
pub(crate) struct Vault {
    pub(crate) endpoint: Endpoint,
    pub(crate) namespace: Option<String>,
    pub(crate) login: Login,
}

/// How the gateway logs in.
pub(crate) enum Login {
    /// With a token from the configuration.
    Token(Rc<Secret>),
    /// By a call to a method: its path, and the members of the body.
    Method {
        /// Mount of the method under `auth/`.
        mount: String,
        /// Members of the body that are no secret, then those that are.
        public: Vec<(&'static str, String)>,
        secret: Vec<(&'static str, Secret)>,
    },
    /// By the JWT method with the caller's own token.
    Caller {
        /// Mount of the method under `auth/`.
        mount: String,
        role: String,
    },
    /// The configuration names a variable that is not set.
    Unset,
}

/// A login's token.
pub(crate) struct VaultToken {
    pub(crate) token: Rc<Secret>,
    pub(crate) obtained: Timestamp,
    pub(crate) renewable: bool,
    /// For how long it was given.
    pub(crate) given: Duration,
    /// Renewed from then on.
    pub(crate) refresh: Timestamp,
    /// Used until then.
    pub(crate) expires: Timestamp,
    /// Revoked by the vault then, with everything that it lent to it.
    pub(crate) ends: Timestamp,
}

/// A secret of a vault, compiled.
pub(crate) struct VaultSecret {
    pub(crate) vault: Rc<str>,
    pub(crate) engine: Engine,
    pub(crate) path: Template,
    /// JSON pointers to the fields; the first is the credential.
    pub(crate) fields: Vec<String>,
    /// How long a value is used at most; `None` for what has a lease.
    pub(crate) ttl: Option<Duration>,
}

/// What kind of engine answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    /// Key and value, without versions.
    Kv1,
    /// Key and value, with versions.
    Kv2,
    /// One that makes secrets.
    Dynamic,
}

impl Vault {
    /// The login call, with the caller's token where the login rests on it. `None` where nobody logs in.
    pub(crate) fn login_call(&self, caller: Option<&Secret>) -> Option<HttpCall> {
        let (mount, members): (&str, Vec<(&'static str, &str)>) = match &self.login {
            Login::Method { mount, public, secret } => {
                let public = public.iter().map(|(name, value)| (*name, value.as_str()));
                let secret = secret.iter().map(|(name, value)| (*name, value.expose()));
                (mount, public.chain(secret).collect())
            }
            Login::Caller { mount, role } => {
                (mount, vec![("role", role.as_str()), ("jwt", caller?.expose())])
            }
            Login::Token(_) | Login::Unset => return None,
        };
        Some(self.post(format!("/v1/auth/{mount}/login"), None, &members))
    }

    /// The call that renews a login.
    pub(crate) fn renew_login_call(&self, token: &Rc<Secret>) -> HttpCall {
        self.post("/v1/auth/token/renew-self".into(), Some(token), &[])
    }

    /// The call that reads a secret.
    pub(crate) fn read_call(&self, path: &str, token: &Rc<Secret>) -> HttpCall {
        self.call("GET", path.to_owned(), Some(token))
    }

    /// The call that renews a lease.
    pub(crate) fn renew_lease_call(&self, lease: &Lease, token: &Rc<Secret>) -> HttpCall {
        let members = [("lease_id", lease.id.expose())];
        self.post("/v1/sys/leases/renew".into(), Some(token), &members)
    }

    fn post(&self, path: String, token: Option<&Rc<Secret>>, members: &[(&str, &str)]) -> HttpCall {
        let body: Object =
            members.iter().map(|(name, value)| (*name, Json::from(*value))).collect();
        let mut body = Json::from(body);
        // No escape is longer than six bytes, and a text that grows leaves copies behind.
        let most = members.iter().map(|(name, value)| name.len() + 6 * value.len() + 6).sum();
        let mut bytes = Vec::with_capacity(usize::max(most, 2));
        body.write(&mut bytes);
        body.wipe();
        let mut call = self.call("POST", path, token);
        call.headers.push(("content-type", FieldValue::Public("application/json".into())));
        // Serialised JSON is UTF-8.
        call.body = String::from_utf8(bytes).ok().map(Secret::new);
        call
    }

    fn call(&self, method: &'static str, path: String, token: Option<&Rc<Secret>>) -> HttpCall {
        let mut call = self.endpoint.call(method, path, LARGEST_ANSWER);
        // OpenBao and Vault agents ask for this header against request forgery.
        call.headers.push(("x-vault-request", FieldValue::Public("true".into())));
        if let Some(token) = token {
            call.headers.push(("x-vault-token", FieldValue::Secret(Rc::clone(token))));
        }
        if let Some(namespace) = &self.namespace {
            call.headers.push(("x-vault-namespace", FieldValue::Public(namespace.clone())));
        }
        call
    }
}

impl VaultSecret {
    /// Reads the answer to [`Vault::read_call`], made at `since`: the vault may have lent what it says
    /// as early as that.
    pub(crate) fn read_answer(
        &self,
        outcome: &CallOutcome,
        since: Timestamp,
        now: Timestamp,
    ) -> Result<Fetched, CredentialError> {
        let answer = answer(outcome)?;
        let data = answer.get("data").ok_or(CredentialError::Garbage)?;
        let secret = match self.engine {
            Engine::Kv2 => data.get("data").ok_or(CredentialError::Garbage)?,
            Engine::Kv1 | Engine::Dynamic => data,
        };
        let mut values = Vec::with_capacity(self.fields.len());
        for field in &self.fields {
            let value = pointed(secret, field).and_then(Json::as_str);
            let value = value.ok_or(CredentialError::Field)?;
            if !is_sendable(value) {
                return Err(CredentialError::Value);
            }
            values.push(Rc::new(Secret::new(value.to_owned())));
        }
        let lent = duration(&answer, "lease_duration");
        let lease_id = answer.get("lease_id").and_then(Json::as_str).filter(|id| !id.is_empty());
        let life = match (self.ttl, lent) {
            (Some(ttl), Some(lent)) => ttl.min(lent),
            (Some(life), None) | (None, Some(life)) => life,
            // Lent for no time at all: good for this once.
            (None, None) => Duration::from_secs(1),
        };
        let version = match data.at(&["metadata", "version"]) {
            Some(Json::Integer(version)) if self.engine == Engine::Kv2 => {
                u64::try_from(*version).ok()
            }
            _ => None,
        };
        Ok(Fetched {
            values,
            source: "vault",
            version,
            lease: lease_id.map(|id| Lease {
                id: Secret::new(id.to_owned()),
                renewable: matches!(answer.get("renewable"), Some(Json::Bool(true))),
                given: life,
            }),
            obtained: now,
            refresh: since.after(life.mul_f64(REFRESHED_AFTER)),
            expires: since.after(life),
            used: Cell::new(now),
            is_used: Cell::new(false),
            written: Written::default(),
        })
    }
}

/// Reads the answer to [`Vault::login_call`] or [`Vault::renew_login_call`], made at `since`: the life
/// of the token may have begun as early as that.
pub(crate) fn login_answer(
    outcome: &CallOutcome,
    since: Timestamp,
    now: Timestamp,
) -> Result<VaultToken, CredentialError> {
    let answer = match answer(outcome) {
        // What the methods answer to a wrong role, secret or token.
        Err(CredentialError::Status(400)) => return Err(CredentialError::Forbidden),
        other => other?,
    };
    let auth = answer.get("auth").ok_or(CredentialError::Garbage)?;
    let token = auth
        .get("client_token")
        .and_then(Json::as_str)
        .filter(|token| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()))
        .ok_or(CredentialError::Garbage)?;
    // A duration of zero is a token that does not expire; an hour makes sure of a new one.
    let life = duration(auth, "lease_duration").unwrap_or(Duration::from_secs(3600));
    let expires = since.after(life.mul_f64(TOKEN_LIFE_USED));
    if expires <= now {
        // Nothing can be read with it any more.
        return Err(CredentialError::Unreachable);
    }
    Ok(VaultToken {
        token: Rc::new(Secret::new(token.to_owned())),
        obtained: now,
        renewable: matches!(auth.get("renewable"), Some(Json::Bool(true))),
        given: life,
        refresh: since.after(life.mul_f64(REFRESHED_AFTER)),
        expires,
        ends: since.after(life),
    })
}

/// Reads the answer to [`Vault::renew_lease_call`]: how long the lease lasts from now on, and whether
/// it can be renewed again.
pub(crate) fn lease_answer(outcome: &CallOutcome) -> Result<(Duration, bool), CredentialError> {
    let answer = match answer(outcome) {
        // "lease not found": it was revoked, or it has ended.
        Err(CredentialError::Status(400)) => return Err(CredentialError::Missing),
        other => other?,
    };
    let lent = duration(&answer, "lease_duration").ok_or(CredentialError::Missing)?;
    Ok((lent, matches!(answer.get("renewable"), Some(Json::Bool(true)))))
}

/// A JSON pointer (RFC 6901), resolved.
fn pointed<'a>(json: &'a Json, pointer: &str) -> Option<&'a Json> {
    pointer.strip_prefix('/')?.split('/').try_fold(json, |json, token| {
        let token = token.replace("~1", "/").replace("~0", "~");
        json.get(&token)
    })
}

/// A duration in whole seconds. None where it is absent or zero.
pub(super) fn duration(answer: &Json, name: &str) -> Option<Duration> {
    match answer.get(name) {
        // A century: later times than that are as good as each other, and sums of them stay in range.
        Some(Json::Integer(seconds)) if *seconds > 0 => {
            Some(Duration::from_secs(seconds.unsigned_abs().min(3_155_760_000)))
        }
        _ => None,
    }
}

/// An answer that holds secrets: wiped when it has been read.
pub(super) struct Answer(Json);

impl Deref for Answer {
    type Target = Json;

    fn deref(&self) -> &Json {
        &self.0
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.0.wipe();
    }
}

/// The JSON of a successful answer.
pub(super) fn answer(outcome: &CallOutcome) -> Result<Answer, CredentialError> {
    match outcome {
        CallOutcome::Failed => Err(CredentialError::Unreachable),
        CallOutcome::TooLarge => Err(CredentialError::TooLarge),
        CallOutcome::Response { status: 200, body, .. } => {
            Json::parse_secret(body).map(Answer).map_err(|_| CredentialError::Garbage)
        }
        CallOutcome::Response { status: 403, .. } => Err(CredentialError::Forbidden),
        CallOutcome::Response { status: 404, .. } => Err(CredentialError::Missing),
        // What a proxy answers in place of a vault that it cannot reach, or a vault that is sealed.
        CallOutcome::Response { status: 502..=504, .. } => Err(CredentialError::Unreachable),
        CallOutcome::Response { status, .. } => Err(CredentialError::Status(*status)),
    }
}

#[cfg(test)]
mod tests {
    use toolgate_protocol::headers::Headers;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn a_value_that_is_no_text_for_a_header_is_refused() {
        let secret = VaultSecret {
            vault: "main".into(),
            engine: Engine::Kv1,
            path: Template::parse("/v1/kv/x").unwrap(),
            fields: vec!["/key".into()],
            ttl: None,
        };
        let long = format!("{:?}", "x".repeat(9000));
        for (value, error) in [
            ("7", CredentialError::Field),
            ("null", CredentialError::Field),
            ("true", CredentialError::Field),
            ("{}", CredentialError::Field),
            (r#"["key"]"#, CredentialError::Field),
            (r#""""#, CredentialError::Value),
            (r#"" key""#, CredentialError::Value),
            (r#""key\n""#, CredentialError::Value),
            (r#""k\u0000ey""#, CredentialError::Value),
            (r#""schlüssel""#, CredentialError::Value),
            (&long, CredentialError::Value),
        ] {
            let body = format!(r#"{{"data": {{"key": {value}}}}}"#).into_bytes();
            let outcome = CallOutcome::Response { status: 200, headers: Headers::default(), body };
            let found = secret.read_answer(&outcome, Timestamp::default(), Timestamp::default());
            assert_eq!(found.err(), Some(error), "{value}");
        }
    }
}
