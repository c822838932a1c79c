//! The plugin configuration as it is written: one JSON document, strict in every field.
//!
//! Types here only say what may be written; `compile` turns them into a gateway or into a list of
//! everything that is wrong. Field names are the ones used in audit records and documentation.

use std::collections::BTreeMap;

use serde::Deserialize;
use toolgate_policy::PolicyConfig;

mod approvals;
mod credentials;
mod identity;
mod policy_bundle;
mod sessions;

pub use crate::federation::config::{EntryConfig, FederationConfig, MemberConfig, PortalConfig};
pub use approvals::{ApprovalIssuerConfig, ApprovalsConfig};
pub use credentials::{
    AppRoleConfig, ClientAuthentication, CredentialConfig, DynamicConfig, InjectionConfig,
    JwtLoginConfig, KubernetesLoginConfig, KvConfig, LoginConfig, OauthConfig, TokenEndpointConfig,
    VaultConfig,
};
pub use identity::{
    ApiKeyConfig, ApiKeysConfig, ClaimsConfig, DeniedConfig, HostHeaderConfig, HostIdentityConfig,
    IdentityConfig, IntrospectionConfig, IssuerConfig, KeyPrincipalConfig, OAuthProxyConfig,
    PrincipalConfig, RemoteKeysConfig, ScopesConfig, ServerMetadataConfig,
};
pub use policy_bundle::PolicyBundleConfig;
pub use sessions::SessionsConfig;

/// The whole configuration.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// MCP servers by name; each is reached under `/mcp/{name}`.
    pub servers: BTreeMap<String, ServerConfig>,
    /// Origins of the web pages that may call, e.g. `https://inspector.example`. Pages of all others
    /// are refused; clients that are no browsers are not concerned.
    #[serde(default)]
    pub origins: Vec<String>,
    /// Hosts that the gateway answers to, e.g. `gateway.example` (every port) or `localhost:10000`;
    /// requests to others are refused. Every host where none is named.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Who issues the tokens that callers present.
    pub identity: IdentityConfig,
    /// Cedar policies, schema and entities; with `policy_bundle` those until the first are fetched.
    #[serde(default)]
    pub policy: Option<PolicyConfig>,
    /// What `toolgate check` writes of `policy`: these very policies and this schema were validated, and are
    /// not once more. Needed for more than 1,000 policies or tools with types.
    #[serde(default)]
    pub policy_checked: Option<String>,
    /// Where policies are fetched.
    #[serde(default)]
    pub policy_bundle: Option<PolicyBundleConfig>,
    /// How calls are approved that a policy with `@approval` permits; no such policy may be there where
    /// this is absent.
    #[serde(default)]
    pub approvals: Option<ApprovalsConfig>,
    /// Vaults by name.
    #[serde(default)]
    pub vaults: BTreeMap<String, VaultConfig>,
    /// Token endpoints of OAuth authorization servers, by name.
    #[serde(default)]
    pub token_endpoints: BTreeMap<String, TokenEndpointConfig>,
    /// Whether this gateway is in production: what is for development only is then refused, and so are
    /// sessions that are not bound to their principals (`sessions.keys`).
    #[serde(default)]
    pub production: bool,
    /// Credentials by name: what servers are given.
    #[serde(default)]
    pub credentials: BTreeMap<String, CredentialConfig>,
    /// Several servers behind one endpoint; there is none where this is absent.
    #[serde(default)]
    pub federation: Option<FederationConfig>,
    /// How session ids are bound to their principals.
    #[serde(default)]
    pub sessions: SessionsConfig,
    /// Bounds on what is held in memory.
    #[serde(default)]
    pub limits: Limits,
    /// What audit records hold.
    #[serde(default)]
    pub audit: AuditConfig,
}

/// One MCP server behind the gateway.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    /// The host's name for the upstream: an Envoy cluster; on Kong `host:port`.
    pub cluster: String,
    /// How the server is spoken to. Only Kong asks: on Envoy the cluster says it.
    #[serde(default)]
    pub scheme: Scheme,
    /// Path of the MCP endpoint on the server.
    #[serde(default = "default_path")]
    pub path: String,
    /// `Host` that the server is addressed by; the cluster's name where none is given.
    #[serde(default)]
    pub authority: Option<String>,
    /// The credential this server wants.
    #[serde(default)]
    pub credential: Option<InjectionConfig>,
    /// Scopes that its requests need.
    #[serde(default)]
    pub scopes: ScopesConfig,
    /// Further credentials, for servers that want more than one.
    #[serde(default)]
    pub further_credentials: Vec<InjectionConfig>,
    /// Whether a credential may stand in the query, which ends up in the server's logs.
    #[serde(default)]
    pub credentials_in_query: bool,
    /// Passes the caller's own token on to this server, if this is one of the token's audiences. The
    /// server can then do all that the caller can wherever the token is good: exchange it instead,
    /// where that is possible.
    #[serde(default)]
    pub passthrough: Option<String>,
    /// Further request headers of the client that go on to this server, in lower case.
    #[serde(default)]
    pub forward_headers: Vec<String>,
    /// Arguments of tools that calls of 2026-07-28 repeat in header fields, for tools whose list a worker
    /// may not have seen yet: tool, name after `Mcp-Param-`, JSON pointer (RFC 6901) to the argument.
    #[serde(default)]
    pub mirrored: BTreeMap<String, BTreeMap<String, String>>,
    /// Whether every request goes on with the `Accept` that MCP servers want, whatever the client
    /// accepts; otherwise with the client's own.
    #[serde(default = "default_true")]
    pub normalize_accept: bool,
}

/// How an upstream is spoken to.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Scheme {
    /// In the clear.
    #[default]
    Http,
    /// By TLS.
    Https,
}

impl Scheme {
    /// The scheme as it stands in a URL.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// Bounds on what is held in memory.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Largest request body, in bytes.
    pub request_bytes: usize,
    /// Largest list that is filtered, in bytes.
    pub list_bytes: usize,
    /// Largest event of a filtered stream, in bytes.
    pub event_bytes: usize,
    /// Largest access token, in bytes.
    pub token_bytes: usize,
}

/// What audit records hold.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct AuditConfig {
    /// What is recorded of a call's arguments.
    pub arguments: ArgumentsAudit,
    /// What is recorded of a caller beside its name.
    pub caller: CallerAudit,
    /// Fields that are also written each apart, beside the whole record, for a log format or a filter
    /// of the proxy that wants them so: names of fields, or `all`. Only Envoy reads them; each costs.
    pub fields: Vec<String>,
}

/// What is recorded of a call's arguments.
#[derive(Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ArgumentsAudit {
    /// Nothing.
    None,
    /// Their SHA-256, of the body as it is forwarded.
    #[default]
    Digest,
    /// The arguments themselves.
    Full,
}

/// What is recorded of a caller beside its name.
#[derive(Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum CallerAudit {
    /// Nothing.
    #[default]
    None,
    /// Its groups, roles and scopes, so that its decisions can be made again.
    Memberships,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_bytes: 1 << 20,
            list_bytes: 8 << 20,
            event_bytes: 8 << 20,
            token_bytes: 16 << 10,
        }
    }
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self { arguments: ArgumentsAudit::Digest, caller: CallerAudit::None, fields: Vec::new() }
    }
}

fn default_true() -> bool {
    true
}

fn default_path() -> String {
    "/mcp".into()
}
