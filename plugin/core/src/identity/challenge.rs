//! What a client is told that has to log in, log in again, or ask for more (RFC 6750 section 3,
//! RFC 9728 section 5.1).

use std::borrow::Cow;

use super::dpop;
use super::metadata::Endpoint;
use crate::denial::{Denial, Reason};

/// How a token is sent, and so challenged for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    /// By itself (RFC 6750).
    Bearer,
    /// Beside a proof (RFC 9449 section 7.1).
    DPoP,
}

/// Why a request proves no caller.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) reason: Reason,
    pub(super) message: Cow<'static, str>,
    /// For the audit record alone.
    pub(super) detail: Option<String>,
}

impl Refused {
    /// There is no token.
    pub(super) fn no_token() -> Self {
        let message = "an access token is needed: send Authorization: Bearer";
        Self::new(Reason::NoToken, message)
    }

    /// The token is not valid here.
    pub(super) fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Reason::InvalidToken, message)
    }

    /// Its time is over.
    pub(super) fn expired() -> Self {
        Self::new(Reason::ExpiredToken, "the token has expired")
    }

    /// Whether it is valid cannot be known at the moment.
    pub(super) fn unavailable(error: &impl ToString) -> Self {
        let message = "the token cannot be verified at the moment; try again later";
        let refused = Self::new(Reason::IssuerUnavailable, message);
        Self { detail: Some(error.to_string()), ..refused }
    }

    pub(super) fn new(reason: Reason, message: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, message: message.into(), detail: None }
    }

    /// The refusal with its challenge. `endpoint` is the one that was asked, where clients can find
    /// out about it, and `scopes` what a token has to be good for there.
    pub(super) fn into_denial(
        self,
        scheme: Scheme,
        endpoint: Option<&Endpoint<'_>>,
        scopes: &[String],
    ) -> Denial {
        let Self { reason, message, .. } = self;
        let denial = Denial::new(reason, message.clone().into_owned());
        let error = match reason {
            Reason::NoToken => None,
            Reason::TokenInUrl => Some("invalid_request"),
            Reason::InvalidToken | Reason::ExpiredToken => Some("invalid_token"),
            Reason::InvalidProof => Some("invalid_dpop_proof"),
            _ => return denial,
        };
        let description = error.map(|_| &*message);
        let value = challenge(scheme, error, description, endpoint, scopes);
        denial.with_header("www-authenticate", value)
    }
}

/// A token that is good for less than the request needs: 403 with all scopes in one challenge, so that
/// one more login is enough (2025-11-25, "Scope Challenge Handling").
pub(super) fn insufficient_scope(
    scheme: Scheme,
    endpoint: Option<&Endpoint<'_>>,
    missing: &[&str],
    needed: &[String],
) -> Denial {
    let message = format!("the token lacks scopes for this request: {}", missing.join(" "));
    let value = challenge(scheme, Some("insufficient_scope"), Some(&message), endpoint, needed);
    Denial::new(Reason::InsufficientScope, message).with_header("www-authenticate", value)
}

fn challenge(
    scheme: Scheme,
    error: Option<&str>,
    description: Option<&str>,
    endpoint: Option<&Endpoint<'_>>,
    scopes: &[String],
) -> String {
    let scopes = (!scopes.is_empty()).then(|| scopes.join(" "));
    let metadata = endpoint.map(Endpoint::metadata_url);
    let algorithms = (scheme == Scheme::DPoP).then(|| dpop::ALGORITHMS.join(" "));
    let parameters = [
        ("error", error),
        ("error_description", description),
        ("scope", scopes.as_deref()),
        ("algs", algorithms.as_deref()),
        ("resource_metadata", metadata.as_deref()),
    ];
    // A quoted string must not be left by what it quotes (RFC 9110 section 5.6.4).
    let quotable = |c: &char| matches!(c, ' '..='~') && !matches!(c, '"' | '\\');
    let parameters: Vec<String> = parameters
        .into_iter()
        .filter_map(|(name, value)| {
            let value: String = value?.chars().filter(quotable).collect();
            Some(format!("{name}=\"{value}\""))
        })
        .collect();
    let name = match scheme {
        Scheme::Bearer => "Bearer",
        Scheme::DPoP => "DPoP",
    };
    if parameters.is_empty() {
        name.to_owned()
    } else {
        format!("{name} {}", parameters.join(", "))
    }
}
