//! Who signs approvals, and where one is asked for.

use serde::Deserialize;

use super::RemoteKeysConfig;

/// How calls are approved that a policy with `@approval` permits.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ApprovalsConfig {
    /// Who signs approvals.
    pub issuers: Vec<ApprovalIssuerConfig>,
    /// The `aud` that approvals for this gateway have; `identity.public_url` where none is given.
    #[serde(default)]
    pub audience: Option<String>,
    /// Where whoever is refused for want of an approval can ask for one: told in the error.
    #[serde(default)]
    pub url: Option<String>,
    /// Longest time from `iat` to `exp` of an approval, in seconds. So long is remembered which were
    /// used.
    #[serde(default = "default_max_age")]
    pub max_age_seconds: u64,
}

/// One issuer of approvals.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ApprovalIssuerConfig {
    /// The exact `iss` of its approvals.
    pub issuer: String,
    /// Accepted signature algorithms, e.g. `["ES256"]`.
    pub algorithms: Vec<String>,
    /// Its public keys (RFC 7517). This or `remote_jwks`.
    #[serde(default)]
    pub jwks: Option<serde_json::Value>,
    /// Where it publishes its public keys.
    #[serde(default)]
    pub remote_jwks: Option<RemoteKeysConfig>,
}

fn default_max_age() -> u64 {
    600
}
