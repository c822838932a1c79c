//! Who may vouch for callers, and how clients find out.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Who may vouch for callers.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct IdentityConfig {
    /// URL under which clients reach the gateway, without a slash at the end: `https://mcp.example`.
    /// With it clients find out where to log in (RFC 9728), and tokens issued for `{public_url}`, or for
    /// the URL of the endpoint that is asked, are accepted without naming these under `audiences`.
    #[serde(default)]
    pub public_url: Option<String>,
    /// Token issuers.
    #[serde(default)]
    pub issuers: Vec<IssuerConfig>,
    /// Whether requests without a token are decided on as `MCP::Anonymous`; otherwise they get 401.
    #[serde(default)]
    pub anonymous: bool,
    /// Largest difference in seconds between the issuer's clock and ours.
    #[serde(default = "default_leeway")]
    pub leeway_seconds: u64,
    /// Scopes that a scope stands for besides itself: `{"billing": ["billing.read"]}`.
    #[serde(default)]
    pub scope_hierarchy: BTreeMap<String, Vec<String>>,
    /// Who is refused although a valid token says otherwise.
    #[serde(default)]
    pub denied: DeniedConfig,
}

/// One issuer of access tokens (RFC 9068 JSON Web Tokens).
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct IssuerConfig {
    /// The exact `iss` of its tokens.
    pub issuer: String,
    /// Further accepted `aud` values, besides those that `public_url` gives: one must be in the token.
    #[serde(default)]
    pub audiences: Vec<String>,
    /// Accepted signature algorithms, e.g. `["ES256"]`.
    pub algorithms: Vec<String>,
    /// Its public keys (RFC 7517).
    pub jwks: serde_json::Value,
    /// Where claims stand in its tokens.
    #[serde(default)]
    pub claims: ClaimsConfig,
    /// Put before `sub` to name the principal. With several issuers each needs its own, so that none
    /// can vouch for another's users.
    #[serde(default)]
    pub principal_prefix: String,
    /// Accepted only with `typ: at+jwt` (RFC 9068 section 4). Otherwise `JWT` and none are accepted,
    /// too, as many issuers have it.
    #[serde(default)]
    pub strict_type: bool,
    /// What clients are told to log in at (RFC 8414 issuer identifier), where it is not `issuer`.
    #[serde(default)]
    pub authorization_server: Option<String>,
}

/// JSON pointers (RFC 6901) to the claims that become parts of the principal.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ClaimsConfig {
    /// Who the token is about: a string.
    pub subject: String,
    /// Groups: an array of strings.
    pub groups: String,
    /// Roles: an array of strings.
    pub roles: String,
    /// OAuth client; the first pointer that leads to a string.
    pub client: Vec<String>,
    /// Scopes, as one string or an array; the first pointer that leads anywhere.
    pub scopes: Vec<String>,
    /// Further tags of the principal by name; claims of the first level are tags by themselves.
    pub tags: BTreeMap<String, String>,
}

/// Who is refused although a valid token says otherwise.
#[derive(Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct DeniedConfig {
    /// Principals, with their issuer's `principal_prefix`.
    pub subjects: Vec<String>,
    /// OAuth clients.
    pub clients: Vec<String>,
    /// Tokens by their `jti`.
    pub token_ids: Vec<String>,
    /// Tokens by their SHA-256 in hexadecimal digits.
    pub token_digests: Vec<String>,
}

/// The scopes that requests to a server need, besides what policy asks for.
#[derive(Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ScopesConfig {
    /// For every request.
    pub required: Vec<String>,
    /// Further ones for calls of tools, by name.
    pub tools: BTreeMap<String, Vec<String>>,
    /// Further ones for prompts, by name.
    pub prompts: BTreeMap<String, Vec<String>>,
    /// Further ones for resources, by URI.
    pub resources: BTreeMap<String, Vec<String>>,
}

impl Default for ClaimsConfig {
    fn default() -> Self {
        Self {
            subject: "/sub".into(),
            groups: "/groups".into(),
            roles: "/roles".into(),
            client: vec!["/client_id".into(), "/azp".into()],
            scopes: vec!["/scope".into(), "/scp".into()],
            tags: BTreeMap::new(),
        }
    }
}

fn default_leeway() -> u64 {
    30
}
