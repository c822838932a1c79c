//! Credentials for servers: what is asked of a vault, what its answers mean, what is remembered.
//!
//! Speaks the HTTP interface of Vault and OpenBao: AppRole login and reads of the key-value engine,
//! version 2. Values live in the memory of one worker, in types that cannot be printed, until their
//! time is over. Not here: which credential a request needs (`broker`), attaching it (`upstream`).

mod broker;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use toolgate_protocol::json::{Json, Object};

use crate::config::{KvConfig, Scheme};
use crate::event::{CallOutcome, FieldValue, HttpCall, Timestamp};
use crate::secret::Secret;

/// What lasts for a time is fetched anew once this share of the time is over.
const REFRESHED_AFTER: f64 = 0.75;

/// A vault token is used until this share of its life is over, so that none expires under way.
const TOKEN_LIFE_USED: f64 = 0.9;

/// Largest answer of a vault that is read, in bytes.
const LARGEST_ANSWER: usize = 64 << 10;

/// Longest credential in bytes: what proxies accept as one header field.
const LONGEST_CREDENTIAL: usize = 8 << 10;

/// A vault, compiled.
pub(crate) struct Vault {
    pub(crate) cluster: Rc<str>,
    pub(crate) scheme: Scheme,
    pub(crate) authority: Rc<str>,
    pub(crate) namespace: Option<String>,
    pub(crate) login: Login,
    pub(crate) timeout: Duration,
}

/// How the gateway logs in.
pub(crate) enum Login {
    /// With a token from the configuration.
    Token(Rc<Secret>),
    /// With the AppRole method.
    AppRole {
        /// Mount of the method under `auth/`.
        mount: String,
        /// The role's identifier.
        role_id: Secret,
        /// The secret that goes with it.
        secret_id: Secret,
    },
    /// The configuration names a variable that is not set.
    Unset,
}

/// A credential, compiled.
pub(crate) enum Credential {
    /// Read from a vault.
    Kv(KvCredential),
    /// Part of the configuration; none where it names a variable that is not set.
    Static(Option<Rc<Fetched>>),
}

/// A credential in a vault's key-value engine.
pub(crate) struct KvCredential {
    pub(crate) vault: Rc<str>,
    path: String,
    field: String,
    ttl: Duration,
}

/// A credential's value with what audit says of it.
pub(crate) struct Fetched {
    pub(crate) value: Rc<Secret>,
    pub(crate) version: Option<u64>,
    /// Fetched anew from then on, if it was used.
    pub(crate) refresh: Timestamp,
    /// Used until then.
    pub(crate) expires: Timestamp,
    /// Whether a request has used it since it was fetched.
    pub(crate) used: Cell<bool>,
}

/// A login's token.
pub(crate) struct VaultToken {
    pub(crate) token: Rc<Secret>,
    pub(crate) obtained: Timestamp,
    pub(crate) refresh: Timestamp,
    pub(crate) expires: Timestamp,
}

/// What one worker remembers of vaults. Its size is bounded by the configuration: at most one entry
/// for each vault and each credential.
#[derive(Default)]
pub(crate) struct CredentialCache {
    pub(crate) tokens: BTreeMap<Rc<str>, Rc<VaultToken>>,
    pub(crate) values: BTreeMap<Rc<str>, Rc<Fetched>>,
}

/// Why a vault gave no credential. `Display` is for the audit record; it holds nothing the vault said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum VaultError {
    /// The configuration takes the login or the credential from a variable that is not set.
    #[error("an environment variable of the configuration is not set")]
    Unset,
    /// No answer in time.
    #[error("the vault did not answer")]
    Unreachable,
    /// Status 403: the token or login is not accepted, or policy of the vault forbids the path.
    #[error("the vault refused access")]
    Forbidden,
    /// Status 404: nothing is at this path.
    #[error("the vault has nothing at this path")]
    Missing,
    /// Another status than 200.
    #[error("the vault answered with status {0}")]
    Status(u16),
    /// An answer that no secret is as large as.
    #[error("the vault's answer is larger than any secret")]
    TooLarge,
    /// Status 200 with a body that is not what the interface promises.
    #[error("the vault's answer could not be understood")]
    Garbage,
    /// The secret has no such field, or it is not text.
    #[error("the secret has no text in the configured field")]
    Field,
    /// The value cannot be a header field: empty, too long, or with control characters.
    #[error("the secret's value cannot be sent in a header")]
    Value,
}

impl Vault {
    /// The login call; `None` where a token is configured and nobody has to log in.
    pub(crate) fn login_call(&self) -> Option<HttpCall> {
        let Login::AppRole { mount, role_id, secret_id } = &self.login else { return None };
        let body: Object = [("role_id", role_id.expose()), ("secret_id", secret_id.expose())]
            .map(|(name, value)| (name, Json::from(value)))
            .into_iter()
            .collect();
        let body = String::from_utf8(Json::from(body).to_bytes()).ok()?;
        let mut call = self.call("POST", format!("/v1/auth/{mount}/login"), None);
        call.headers.push(("content-type", FieldValue::Public("application/json".into())));
        call.body = Some(Secret::new(body));
        Some(call)
    }

    /// The call that reads a credential.
    pub(crate) fn read_call(&self, credential: &KvCredential, token: Rc<Secret>) -> HttpCall {
        self.call("GET", credential.path.clone(), Some(token))
    }

    fn call(&self, method: &'static str, path: String, token: Option<Rc<Secret>>) -> HttpCall {
        // OpenBao and Vault agents ask for this header against request forgery.
        let mut headers = vec![("x-vault-request", FieldValue::Public("true".into()))];
        if let Some(token) = token {
            headers.push(("x-vault-token", FieldValue::Secret(token)));
        }
        if let Some(namespace) = &self.namespace {
            headers.push(("x-vault-namespace", FieldValue::Public(namespace.clone())));
        }
        HttpCall {
            cluster: Rc::clone(&self.cluster),
            scheme: self.scheme,
            authority: Rc::clone(&self.authority),
            method,
            path,
            headers,
            body: None,
            timeout: self.timeout,
            most_bytes: LARGEST_ANSWER,
        }
    }
}

impl KvCredential {
    pub(crate) fn new(config: KvConfig) -> Self {
        Self {
            vault: config.vault.into(),
            // Both parts were checked to hold only characters that stand for themselves in a path.
            path: format!("/v1/{}/data/{}", config.mount, config.path),
            field: config.field,
            ttl: Duration::from_secs(config.ttl_seconds),
        }
    }

    /// Reads the answer to [`Vault::read_call`].
    pub(crate) fn read_answer(
        &self,
        outcome: &CallOutcome,
        now: Timestamp,
    ) -> Result<Fetched, VaultError> {
        let answer = answer(outcome)?;
        let secret = answer.get("data").ok_or(VaultError::Garbage)?;
        let value = secret
            .get("data")
            .ok_or(VaultError::Garbage)?
            .get(&self.field)
            .and_then(Json::as_str)
            .ok_or(VaultError::Field)?;
        if !is_sendable(value) {
            return Err(VaultError::Value);
        }
        let lease = lease(&answer, "lease_duration");
        let life = lease.map_or(self.ttl, |lease| lease.min(self.ttl));
        let version = match secret.at(&["metadata", "version"]) {
            Some(Json::Integer(version)) => u64::try_from(*version).ok(),
            _ => None,
        };
        Ok(Fetched {
            value: Rc::new(Secret::new(value.to_owned())),
            version,
            refresh: now.after(life.mul_f64(REFRESHED_AFTER)),
            expires: now.after(life),
            used: Cell::new(false),
        })
    }
}

impl Fetched {
    /// A value that stays as it is.
    pub(crate) fn lasting(value: Rc<Secret>) -> Self {
        let never = Timestamp(Duration::MAX);
        Self { value, version: None, refresh: never, expires: never, used: Cell::new(false) }
    }
}

/// Whether a header field can carry this credential as it is.
pub(crate) fn is_sendable(value: &str) -> bool {
    !value.is_empty()
        && value.len() <= LONGEST_CREDENTIAL
        && value.bytes().all(|byte| matches!(byte, b' '..=b'~'))
        && value.trim() == value
}

/// Reads the answer to [`Vault::login_call`].
pub(crate) fn login_answer(
    outcome: &CallOutcome,
    now: Timestamp,
) -> Result<VaultToken, VaultError> {
    let answer = match answer(outcome) {
        // A wrong role or secret is 400 at the AppRole method.
        Err(VaultError::Status(400)) => return Err(VaultError::Forbidden),
        other => other?,
    };
    let auth = answer.get("auth").ok_or(VaultError::Garbage)?;
    let token = auth
        .get("client_token")
        .and_then(Json::as_str)
        .filter(|token| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()))
        .ok_or(VaultError::Garbage)?;
    // A duration of zero is a token that does not expire; an hour makes sure of a new one.
    let life = lease(auth, "lease_duration").unwrap_or(Duration::from_secs(3600));
    Ok(VaultToken {
        token: Rc::new(Secret::new(token.to_owned())),
        obtained: now,
        refresh: now.after(life.mul_f64(REFRESHED_AFTER)),
        expires: now.after(life.mul_f64(TOKEN_LIFE_USED)),
    })
}

fn lease(answer: &Json, name: &str) -> Option<Duration> {
    match answer.get(name) {
        Some(Json::Integer(seconds)) if *seconds > 0 => {
            Some(Duration::from_secs(seconds.unsigned_abs()))
        }
        _ => None,
    }
}

/// The JSON of a successful answer.
fn answer(outcome: &CallOutcome) -> Result<Json, VaultError> {
    match outcome {
        CallOutcome::Failed => Err(VaultError::Unreachable),
        CallOutcome::TooLarge => Err(VaultError::TooLarge),
        CallOutcome::Response { status: 200, body, .. } => {
            Json::parse(body).map_err(|_| VaultError::Garbage)
        }
        CallOutcome::Response { status: 403, .. } => Err(VaultError::Forbidden),
        CallOutcome::Response { status: 404, .. } => Err(VaultError::Missing),
        // What a proxy answers in place of a vault that it cannot reach.
        CallOutcome::Response { status: 502..=504, .. } => Err(VaultError::Unreachable),
        CallOutcome::Response { status, .. } => Err(VaultError::Status(*status)),
    }
}
