//! Passing the caller's own token on to a server, where that is configured for it by name.
//!
//! MCP forbids it otherwise (2025-11-25 authorization, "Token Passthrough"): a token for the gateway is
//! no token for what is behind it. It is for servers that are an audience of the same token.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use toolgate_protocol::json::Json;

use crate::denial::{Denial, Reason};
use crate::request::Asked;
use crate::secret::Secret;

/// The value of `Authorization` for a server that is this audience.
///
/// # Errors
/// [`Denial`] when the caller presented no token, or one that is not for this server.
pub(crate) fn token(asked: &Asked, audience: &str) -> Result<Secret, Denial> {
    let token = asked.head.bearer().filter(|token| is_for(token, audience)).ok_or_else(|| {
        let message = "this server takes the caller's own token, and yours is not for it";
        Denial::new(Reason::TokenAudience, message)
    })?;
    Ok(Secret::new(format!("Bearer {token}")))
}

/// Whether a token that was verified names this audience.
fn is_for(token: &str, audience: &str) -> bool {
    let claims = token
        .split('.')
        .nth(1)
        .and_then(|payload| URL_SAFE_NO_PAD.decode(payload).ok())
        .and_then(|payload| Json::parse(&payload).ok());
    match claims.as_ref().and_then(|claims| claims.get("aud")) {
        Some(Json::String(only)) => only == audience,
        Some(Json::Array(all)) => all.iter().any(|one| one.as_str() == Some(audience)),
        _ => false,
    }
}
