//! The plugin configuration as it is written: one JSON document, strict in every field.
//!
//! Types here only say what may be written; `compile` turns them into a gateway or into a list of
//! everything that is wrong. Field names are the ones used in audit records and documentation.

use std::collections::BTreeMap;

use serde::Deserialize;
use toolgate_policy::PolicyConfig;

use crate::secret::SecretSource;

mod identity;
mod sessions;

pub use crate::federation::config::{EntryConfig, FederationConfig, MemberConfig, PortalConfig};
pub use identity::{
    ApiKeyConfig, ApiKeysConfig, ClaimsConfig, DeniedConfig, HostHeaderConfig, HostIdentityConfig,
    IdentityConfig, IntrospectionConfig, IssuerConfig, RemoteKeysConfig, ScopesConfig,
};
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
    /// Cedar policies, schema and entities.
    pub policy: PolicyConfig,
    /// Vaults by name.
    #[serde(default)]
    pub vaults: BTreeMap<String, VaultConfig>,
    /// Credentials by name: what is read from a vault for the servers.
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

/// How a credential is attached to requests to a server.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct InjectionConfig {
    /// Name of an entry of `credentials`.
    pub name: String,
    /// Header that carries it.
    pub header: String,
    /// Its value, `{}` standing for the secret: `Bearer {}`.
    #[serde(default = "default_format")]
    pub format: String,
}

/// A Vault or OpenBao cluster.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VaultConfig {
    /// The host's name for the upstream: an Envoy cluster; on Kong `host:port`.
    pub cluster: String,
    /// How the vault is spoken to. Only Kong asks: on Envoy the cluster says it.
    #[serde(default)]
    pub scheme: Scheme,
    /// `Host` that the vault is addressed by; the cluster's name where none is given.
    #[serde(default)]
    pub authority: Option<String>,
    /// Vault namespace, sent as `X-Vault-Namespace`.
    #[serde(default)]
    pub namespace: Option<String>,
    /// How the gateway logs in.
    pub login: LoginConfig,
    /// How long to wait for an answer, in milliseconds.
    #[serde(default = "default_vault_timeout")]
    pub timeout_ms: u64,
}

/// How the gateway logs in to a vault.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum LoginConfig {
    /// With a token that somebody else keeps alive.
    Token(SecretSource),
    /// With the AppRole method.
    AppRole(AppRoleConfig),
}

/// Login by AppRole.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AppRoleConfig {
    /// Where the method is mounted under `auth/`.
    #[serde(default = "default_app_role_mount")]
    pub mount: String,
    /// The role's identifier.
    pub role_id: SecretSource,
    /// The secret that goes with it.
    pub secret_id: SecretSource,
}

/// Where a credential comes from.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum CredentialConfig {
    /// A vault's key-value engine, version 2.
    Kv(KvConfig),
    /// A fixed value, for development: it is not renewed, and changing it is a rollout.
    Static(SecretSource),
}

/// A credential in a vault's key-value engine, version 2.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct KvConfig {
    /// Name of an entry of `vaults`.
    pub vault: String,
    /// Where the engine is mounted.
    #[serde(default = "default_mount")]
    pub mount: String,
    /// Path of the secret in the engine, without `data/`.
    pub path: String,
    /// The field of the secret that is the credential.
    pub field: String,
    /// How long a value is used before it is read again, in seconds; a shorter lease wins.
    #[serde(default = "default_ttl")]
    pub ttl_seconds: u64,
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
        Self { arguments: ArgumentsAudit::Digest }
    }
}

fn default_true() -> bool {
    true
}

fn default_path() -> String {
    "/mcp".into()
}

fn default_format() -> String {
    "{}".into()
}

fn default_vault_timeout() -> u64 {
    2_000
}

fn default_app_role_mount() -> String {
    "approle".into()
}

fn default_mount() -> String {
    "secret".into()
}

fn default_ttl() -> u64 {
    300
}
