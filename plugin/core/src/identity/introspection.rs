//! Opaque tokens: asking the issuer what one is good for (RFC 7662).
//!
//! What it says is believed for a while and no longer, so that a token that was revoked is refused
//! soon; that a token is not active is believed as long. Not here: claims (`issuer`, `claims`).

use std::cmp::Ordering;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use toolgate_policy::Problem;
use toolgate_protocol::json::Json;

use super::endpoint::{AuthorizationEndpoint, EndpointConfig};
use super::tokens::TokenDigest;
use crate::config::IntrospectionConfig;
use crate::credentials::{basic_login, percent_encoded};
use crate::event::{CallOutcome, HttpCall};
use crate::secret::Secret;

/// Largest answer that is read, in bytes.
const MOST_BYTES: usize = 64 << 10;

/// An issuer that is asked, compiled.
pub(super) struct Introspection {
    endpoint: AuthorizationEndpoint,
    /// The gateway's own login; none where the configuration names a variable that is not set.
    login: Option<Rc<Secret>>,
    /// How long an answer is believed.
    pub(super) ttl: Duration,
    /// Whether a token must say whom it is for.
    pub(super) requires_audience: bool,
}

/// A token that somebody presented; what it is, only the call may see.
#[derive(Clone)]
pub(crate) struct PresentedToken {
    digest: TokenDigest,
    text: Rc<Secret>,
}

/// Why an issuer did not say what a token is good for. `Display` is for the audit record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IntrospectionError {
    /// The gateway's login stands in a variable that is not set.
    #[error("an environment variable of the configuration is not set")]
    Unset,
    /// No answer in time.
    #[error("the issuer did not answer")]
    Unreachable,
    /// Status 401 or 403: it does not accept the gateway's login.
    #[error("the issuer refused the gateway's login")]
    Forbidden,
    /// Another status than 200.
    #[error("the issuer answered with status {0}")]
    Status(u16),
    /// Something that is no answer of this kind.
    #[error("the issuer's answer could not be understood")]
    Garbage,
}

impl Introspection {
    pub(super) fn compile(
        config: IntrospectionConfig,
        secret: Option<&Secret>,
        path: &str,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let ttl_seconds = config.ttl_seconds;
        if !(1..=3600).contains(&ttl_seconds) {
            problems.push(Problem {
                path: format!("{path}.ttl_seconds"),
                message: format!("{ttl_seconds} is not usable"),
                help: Some("choose 1 to 3600 seconds: as long may a revoked token work".into()),
            });
        }
        let login = secret.map(|secret| Rc::new(basic_login(&config.client_id, secret)));
        let IntrospectionConfig { cluster, scheme, authority, path: at, timeout_ms, .. } = config;
        let endpoint = EndpointConfig { cluster, scheme, authority, path: at, timeout_ms };
        Self {
            endpoint: AuthorizationEndpoint::compile(endpoint, path, problems),
            login,
            ttl: Duration::from_secs(ttl_seconds),
            requires_audience: config.require_audience,
        }
    }

    /// Whether the gateway can ask at all.
    pub(super) fn is_ready(&self) -> Result<(), IntrospectionError> {
        self.login.as_ref().map(|_| ()).ok_or(IntrospectionError::Unset)
    }

    pub(super) fn call(&self, token: &PresentedToken) -> Option<HttpCall> {
        let token = Secret::new(percent_encoded(token.text.expose()));
        let form = format!("token={}&token_type_hint=access_token", token.expose());
        Some(self.endpoint.post(Secret::new(form), self.login.as_ref()?, MOST_BYTES))
    }
}

/// What an answer says of a token: its claims, or `None` for one that is not active.
pub(crate) fn read(outcome: &CallOutcome) -> Result<Option<Rc<Json>>, IntrospectionError> {
    let body = match outcome {
        CallOutcome::Failed => return Err(IntrospectionError::Unreachable),
        CallOutcome::TooLarge => return Err(IntrospectionError::Garbage),
        CallOutcome::Response { status: 200, body, .. } => body,
        CallOutcome::Response { status: 401 | 403, .. } => {
            return Err(IntrospectionError::Forbidden);
        }
        CallOutcome::Response { status: 502..=504, .. } => {
            return Err(IntrospectionError::Unreachable);
        }
        CallOutcome::Response { status, .. } => return Err(IntrospectionError::Status(*status)),
    };
    let answer = Json::parse(body).map_err(|_| IntrospectionError::Garbage)?;
    match answer.get("active") {
        Some(Json::Bool(true)) => Ok(Some(Rc::new(answer))),
        Some(Json::Bool(false)) => Ok(None),
        _ => Err(IntrospectionError::Garbage),
    }
}

impl PresentedToken {
    pub(super) fn new(digest: TokenDigest, text: &str) -> Self {
        Self { digest, text: Rc::new(Secret::new(text.to_owned())) }
    }

    pub(super) fn digest(&self) -> &TokenDigest {
        &self.digest
    }
}

impl fmt::Debug for PresentedToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("PresentedToken")
    }
}

impl PartialEq for PresentedToken {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for PresentedToken {}

impl Ord for PresentedToken {
    fn cmp(&self, other: &Self) -> Ordering {
        self.digest.cmp(&other.digest)
    }
}

impl PartialOrd for PresentedToken {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
