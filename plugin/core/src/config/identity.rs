//! Who may vouch for callers, and how clients find out.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Scheme;
use crate::secret::SecretSource;

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
    /// Keys of machines that cannot log in.
    #[serde(default)]
    pub api_keys: ApiKeysConfig,
    /// Where the host says who calls, when it has authenticated the caller itself.
    #[serde(default)]
    pub host: Option<HostIdentityConfig>,
    /// Whether tokens that are bound to a certificate are accepted (RFC 8705), by what the host says of
    /// the connection; otherwise they are refused.
    #[serde(default)]
    pub certificate_bound_tokens: bool,
    /// Scopes that a scope stands for besides itself: `{"billing": ["billing.read"]}`.
    #[serde(default)]
    pub scope_hierarchy: BTreeMap<String, Vec<String>>,
    /// Who is refused although a valid token says otherwise.
    #[serde(default)]
    pub denied: DeniedConfig,
}

/// Keys of machines that cannot log in.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ApiKeysConfig {
    /// The header that carries a key besides `Authorization: Bearer`: `x-api-key`.
    pub header: Option<String>,
    /// Put before a key's name to name the principal.
    pub principal_prefix: String,
    /// What those who hold a key are to policies.
    pub principal: KeyPrincipalConfig,
    /// The keys.
    pub keys: Vec<ApiKeyConfig>,
}

/// One API key.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ApiKeyConfig {
    /// Who holds it.
    pub name: String,
    /// Its SHA-256 in hexadecimal digits. The key itself must be random, not a password.
    pub sha256: String,
    /// Groups of the principal.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Roles of the principal.
    #[serde(default)]
    pub roles: Vec<String>,
    /// Scopes that it stands for.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Servers where it is good; all when none is named.
    #[serde(default)]
    pub servers: Vec<String>,
}

/// Where the host says who calls. `property` or `header`.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct HostIdentityConfig {
    /// Path of a property of the host that holds claims as JSON. No client can write it.
    #[serde(default)]
    pub property: Option<Vec<String>>,
    /// A header that holds claims as JSON, or that in base64.
    #[serde(default)]
    pub header: Option<HostHeaderConfig>,
    /// Who authenticates, for policy and audit.
    pub issuer: String,
    /// Put before the subject to name the principal.
    #[serde(default)]
    pub principal_prefix: String,
    /// Where claims stand.
    #[serde(default)]
    pub claims: ClaimsConfig,
}

/// A header of the host.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct HostHeaderConfig {
    /// Its name.
    pub name: String,
    /// What the host adds as `x-toolgate-host-secret`, at least 32 characters. The host must take both
    /// headers out of every client's request.
    pub secret: SecretSource,
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
    /// Accepted signature algorithms, e.g. `["ES256"]`; none for an issuer that is asked.
    #[serde(default)]
    pub algorithms: Vec<String>,
    /// Its public keys (RFC 7517). This, `remote_jwks` or `introspection`.
    #[serde(default)]
    pub jwks: Option<serde_json::Value>,
    /// Where it publishes its public keys.
    #[serde(default)]
    pub remote_jwks: Option<RemoteKeysConfig>,
    /// Where it is asked what a token is good for. For opaque tokens; one issuer can have them.
    #[serde(default)]
    pub introspection: Option<IntrospectionConfig>,
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
    /// Where its metadata is (RFC 8414, OpenID Connect Discovery), which clients of revision 2025-03-26
    /// get that ask for `/.well-known/oauth-authorization-server` at the gateway. One issuer can have it.
    #[serde(default)]
    pub authorization_server_metadata: Option<ServerMetadataConfig>,
    /// For authorization servers that clients of MCP cannot log in at by themselves: clients are told to
    /// log in at the gateway, which hands on what is right for the server.
    #[serde(default)]
    pub oauth_proxy: Option<OAuthProxyConfig>,
}

/// Where an authorization server says what it is (RFC 8414).
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ServerMetadataConfig {
    /// The host's name for the upstream: an Envoy cluster; on Kong `host:port`.
    pub cluster: String,
    /// How it is spoken to. Only Kong asks: on Envoy the cluster says it.
    #[serde(default)]
    pub scheme: Scheme,
    /// `Host` that it is addressed by; the cluster's name where none is given.
    #[serde(default)]
    pub authority: Option<String>,
    /// Path of the document: `/.well-known/openid-configuration`, after that of the issuer.
    pub path: String,
    /// How long to wait for an answer, in milliseconds.
    #[serde(default = "default_timeout")]
    pub timeout_ms: u64,
    /// How long a document is handed on before it is fetched anew, in seconds.
    #[serde(default = "default_refresh")]
    pub refresh_seconds: u64,
    /// How long the last good document is handed on while no new one can be had, in seconds.
    #[serde(default = "default_keep")]
    pub keep_seconds: u64,
}

/// How the gateway stands in for an authorization server.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct OAuthProxyConfig {
    /// Takes the parameter `resource` (RFC 8707), which clients of MCP must send, out of requests to a
    /// server that refuses it.
    #[serde(default)]
    pub drop_resource: bool,
    /// Answers registrations (RFC 7591) for a server that registers nobody: the identifier of a public
    /// client that was registered there beforehand, with the redirect URIs of all agents.
    #[serde(default)]
    pub client_id: Option<String>,
}

/// Where an issuer publishes its public keys (RFC 7517).
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RemoteKeysConfig {
    /// The host's name for the upstream: an Envoy cluster; on Kong `host:port`.
    pub cluster: String,
    /// How it is spoken to. Only Kong asks: on Envoy the cluster says it.
    #[serde(default)]
    pub scheme: Scheme,
    /// `Host` that it is addressed by; the cluster's name where none is given.
    #[serde(default)]
    pub authority: Option<String>,
    /// Path of the document: that of `jwks_uri` in the issuer's metadata.
    pub path: String,
    /// How long to wait for an answer, in milliseconds.
    #[serde(default = "default_timeout")]
    pub timeout_ms: u64,
    /// How often the keys are fetched anew, in seconds.
    #[serde(default = "default_refresh")]
    pub refresh_seconds: u64,
    /// How long a token of an unknown key causes no further fetch, in seconds.
    #[serde(default = "default_unknown_key")]
    pub unknown_key_seconds: u64,
    /// How long the last good keys are used while no new ones can be had, in seconds.
    #[serde(default = "default_keep")]
    pub keep_seconds: u64,
}

/// Where an issuer is asked what a token is good for (RFC 7662).
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct IntrospectionConfig {
    /// The host's name for the upstream: an Envoy cluster; on Kong `host:port`.
    pub cluster: String,
    /// How it is spoken to. Only Kong asks: on Envoy the cluster says it.
    #[serde(default)]
    pub scheme: Scheme,
    /// `Host` that it is addressed by; the cluster's name where none is given.
    #[serde(default)]
    pub authority: Option<String>,
    /// Path of the endpoint: that of `introspection_endpoint` in the issuer's metadata.
    pub path: String,
    /// How long to wait for an answer, in milliseconds.
    #[serde(default = "default_timeout")]
    pub timeout_ms: u64,
    /// The gateway's own client identifier at the issuer.
    pub client_id: String,
    /// The secret that goes with it.
    pub client_secret: SecretSource,
    /// How long an answer is believed, in seconds: as long may a token work that was revoked.
    #[serde(default = "default_introspection_ttl")]
    pub ttl_seconds: u64,
    /// Whether tokens without an audience are refused. Where it is `false` the issuer must issue
    /// tokens for this gateway alone.
    #[serde(default = "default_true")]
    pub require_audience: bool,
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
    /// What callers are to policies.
    pub principal: PrincipalConfig,
    /// Claims that say that a token is a client's own, beside a subject that is the OAuth client: JSON
    /// pointers, each with the value that says so, or null where it is enough that the claim is there.
    /// `{"/idtyp": "app"}`, `{"/gty": "client-credentials"}`.
    pub client_when: BTreeMap<String, Option<String>>,
}

/// What callers are to policies.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum PrincipalConfig {
    /// `MCP::Client` where the subject is the OAuth client itself (RFC 9068 section 2.2) or a claim of
    /// `client_when` says so, otherwise `MCP::User`.
    #[default]
    ByToken,
    /// `MCP::User`, all of them.
    User,
    /// `MCP::Client`, all of them: for who vouches for machines only.
    Client,
}

/// What those who hold a key are to policies.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum KeyPrincipalConfig {
    /// `MCP::User`.
    #[default]
    User,
    /// `MCP::Client`.
    Client,
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

impl Default for ApiKeysConfig {
    fn default() -> Self {
        Self {
            header: None,
            principal_prefix: "api-key:".into(),
            principal: KeyPrincipalConfig::default(),
            keys: Vec::new(),
        }
    }
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
            principal: PrincipalConfig::default(),
            client_when: BTreeMap::new(),
        }
    }
}

fn default_timeout() -> u64 {
    2_000
}

fn default_refresh() -> u64 {
    300
}

fn default_unknown_key() -> u64 {
    30
}

fn default_keep() -> u64 {
    86_400
}

fn default_introspection_ttl() -> u64 {
    60
}

fn default_true() -> bool {
    true
}

fn default_leeway() -> u64 {
    30
}
