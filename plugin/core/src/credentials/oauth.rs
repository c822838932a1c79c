//! Access tokens from OAuth authorization servers: what is asked of a token endpoint, what it answers.
//!
//! RFC 6749 section 4.4 (client credentials), RFC 8693 (token exchange), RFC 7523 section 2.1 (the
//! caller's JWT as the grant), RFC 8707 (`resource`).

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use toolgate_protocol::json::Json;

use super::template::percent_encoded;
use super::vault::{answer, duration};
use super::{CredentialError, Fetched, LARGEST_ANSWER, REFRESHED_AFTER, Written, is_sendable};
use crate::config::ClientAuthentication;
use crate::endpoint::Endpoint;
use crate::event::{CallOutcome, FieldValue, HttpCall, Timestamp};
use crate::secret::Secret;

/// How long a token is used whose server does not say how long it lasts (RFC 6749 section 5.1).
const UNSAID_LIFE: Duration = Duration::from_secs(60);

/// A token is not used in the last moments of its life, so that none ends under way.
const MARGIN: Duration = Duration::from_secs(5);

/// A token endpoint, compiled. Without a secret where a variable of the configuration is not set.
pub(crate) struct TokenEndpoint {
    pub(crate) endpoint: Endpoint,
    pub(crate) path: String,
    pub(crate) client_id: String,
    pub(crate) client_secret: Option<Secret>,
    pub(crate) authentication: ClientAuthentication,
}

/// An access token that can be asked for, compiled.
pub(crate) struct AccessToken {
    pub(crate) endpoint: Rc<str>,
    pub(crate) grant: Grant,
    pub(crate) scope: Option<String>,
    pub(crate) resource: Option<String>,
    pub(crate) audience: Option<String>,
}

/// What a token is given for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grant {
    /// The gateway's own right.
    ClientCredentials,
    /// The caller's token, in exchange.
    TokenExchange,
    /// The caller's token, as an assertion.
    JwtBearer,
}

impl Grant {
    /// Whether the caller's own token is needed for it.
    pub(crate) fn is_per_caller(self) -> bool {
        self != Self::ClientCredentials
    }
}

impl TokenEndpoint {
    /// The call that asks for a token; `caller` is the token that the caller presented. `None` where
    /// the grant needs one and there is none, or the client has no secret.
    pub(crate) fn call(&self, token: &AccessToken, caller: Option<&Secret>) -> Option<HttpCall> {
        let secret = self.client_secret.as_ref()?;
        let mut form: Vec<(&str, &str)> = Vec::new();
        match token.grant {
            Grant::ClientCredentials => form.push(("grant_type", "client_credentials")),
            Grant::TokenExchange => form.extend([
                ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
                ("subject_token", caller?.expose()),
                ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
                ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
            ]),
            Grant::JwtBearer => form.extend([
                ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
                ("assertion", caller?.expose()),
            ]),
        }
        let named =
            [("scope", &token.scope), ("resource", &token.resource), ("audience", &token.audience)];
        form.extend(named.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))));
        let mut call = self.endpoint.call("POST", self.path.clone(), LARGEST_ANSWER);
        let form_type = "application/x-www-form-urlencoded";
        call.headers.push(("content-type", FieldValue::Public(form_type.into())));
        call.headers.push(("accept", FieldValue::Public("application/json".into())));
        match self.authentication {
            ClientAuthentication::Basic => {
                let login = Rc::new(basic_login(&self.client_id, secret));
                call.headers.push(("authorization", FieldValue::Secret(login)));
            }
            ClientAuthentication::Post => form.extend([
                ("client_id", self.client_id.as_str()),
                ("client_secret", secret.expose()),
            ]),
        }
        let encoded: Vec<Secret> =
            form.iter().map(|(_, value)| Secret::new(percent_encoded(value))).collect();
        let mut parts = Vec::with_capacity(form.len() * 4);
        for ((name, _), value) in form.iter().zip(&encoded) {
            parts.extend([if parts.is_empty() { "" } else { "&" }, name, "=", value.expose()]);
        }
        call.body = Some(Secret::joined(&parts));
        Some(call)
    }
}

/// The `Authorization` by which a client authenticates with its secret: RFC 6749 section 2.3.1, both
/// parts form-encoded first.
pub(crate) fn basic_login(client_id: &str, secret: &Secret) -> Secret {
    let secret = Secret::new(percent_encoded(secret.expose()));
    let pair = Secret::joined(&[&percent_encoded(client_id), ":", secret.expose()]);
    let encoded = Secret::new(STANDARD.encode(pair.expose()));
    Secret::joined(&["Basic ", encoded.expose()])
}

impl AccessToken {
    /// Reads the answer to [`TokenEndpoint::call`], made at `since`: the life of the token may have
    /// begun as early as that.
    pub(crate) fn read_answer(
        &self,
        outcome: &CallOutcome,
        since: Timestamp,
        now: Timestamp,
    ) -> Result<Fetched, CredentialError> {
        let answer = answer(outcome).map_err(|error| refusal(self.grant, outcome, error))?;
        // Anything else than a bearer token cannot be attached as it is (RFC 6749 section 7.1).
        let is_bearer = answer
            .get("token_type")
            .and_then(Json::as_str)
            .is_some_and(|kind| kind.eq_ignore_ascii_case("bearer"));
        let token = answer.get("access_token").and_then(Json::as_str);
        let token = token.filter(|_| is_bearer).ok_or(CredentialError::Garbage)?;
        if !is_sendable(token) {
            return Err(CredentialError::Value);
        }
        let life = duration(&answer, "expires_in").unwrap_or(UNSAID_LIFE);
        Ok(Fetched {
            values: vec![Rc::new(Secret::new(token.to_owned()))],
            source: match self.grant {
                Grant::ClientCredentials => "client_credentials",
                Grant::TokenExchange => "token_exchange",
                Grant::JwtBearer => "jwt_bearer",
            },
            version: None,
            lease: None,
            obtained: now,
            refresh: since.after(life.mul_f64(REFRESHED_AFTER)),
            expires: since.after(life.saturating_sub(MARGIN).max(Duration::from_secs(1))),
            used: Cell::new(now),
            is_used: Cell::new(false),
            written: Written::default(),
        })
    }
}

/// What a refusal means (RFC 6749 section 5.2, RFC 8693 section 2.2.2).
fn refusal(grant: Grant, outcome: &CallOutcome, error: CredentialError) -> CredentialError {
    let CallOutcome::Response { status: 400..=403, body, .. } = outcome else { return error };
    let Ok(json) = Json::parse(body) else { return error };
    match json.get("error").and_then(Json::as_str) {
        // The server has nothing for this caller.
        Some("invalid_grant" | "access_denied") if grant.is_per_caller() => {
            CredentialError::Missing
        }
        Some("invalid_client" | "unauthorized_client" | "invalid_grant" | "access_denied") => {
            CredentialError::Forbidden
        }
        _ => error,
    }
}
