//! Where credentials come from, and how they are attached.

use serde::Deserialize;

use super::Scheme;
use crate::secret::SecretSource;

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
    #[serde(default = "default_timeout")]
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
    /// With the JWT/OIDC method: a token of the gateway's own, or the caller's, so that the vault's own
    /// policies decide for each caller.
    Jwt(JwtLoginConfig),
    /// With the Kubernetes method and the token of a service account.
    Kubernetes(KubernetesLoginConfig),
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

/// Login by JWT.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct JwtLoginConfig {
    /// Where the method is mounted under `auth/`.
    #[serde(default = "default_jwt_mount")]
    pub mount: String,
    /// The role at the vault.
    pub role: String,
    /// The token. None is the caller's own: a login for each caller.
    #[serde(default)]
    pub token: Option<SecretSource>,
}

/// Login by Kubernetes.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct KubernetesLoginConfig {
    /// Where the method is mounted under `auth/`.
    #[serde(default = "default_kubernetes_mount")]
    pub mount: String,
    /// The role at the vault.
    pub role: String,
    /// The service account's token. A plugin cannot read files: the host hands it on in a variable.
    pub token: SecretSource,
}

/// A token endpoint of an OAuth authorization server.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TokenEndpointConfig {
    /// The host's name for the upstream: an Envoy cluster; on Kong `host:port`.
    pub cluster: String,
    /// How it is spoken to. Only Kong asks: on Envoy the cluster says it.
    #[serde(default)]
    pub scheme: Scheme,
    /// `Host` that it is addressed by; the cluster's name where none is given.
    #[serde(default)]
    pub authority: Option<String>,
    /// Path of the token endpoint.
    pub path: String,
    /// The gateway's client identifier there.
    pub client_id: String,
    /// The secret that goes with it.
    pub client_secret: SecretSource,
    /// How the client authenticates (RFC 6749 section 2.3.1).
    #[serde(default)]
    pub authentication: ClientAuthentication,
    /// How long to wait for an answer, in milliseconds.
    #[serde(default = "default_timeout")]
    pub timeout_ms: u64,
}

/// How an OAuth client authenticates.
#[derive(Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum ClientAuthentication {
    /// In the `Authorization` header.
    #[default]
    #[serde(rename = "client_secret_basic")]
    Basic,
    /// In the body.
    #[serde(rename = "client_secret_post")]
    Post,
}

/// Where a credential comes from.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum CredentialConfig {
    /// A vault's key-value engine.
    Kv(KvConfig),
    /// Another engine of a vault, which makes a secret for the asking and lends it for a time:
    /// databases, clouds.
    Dynamic(DynamicConfig),
    /// An access token for the gateway itself (RFC 6749 section 4.4).
    ClientCredentials(OauthConfig),
    /// An access token for the caller, in exchange for the one that it presented (RFC 8693).
    TokenExchange(OauthConfig),
    /// An access token for the caller, with the one that it presented as the grant (RFC 7523).
    JwtBearer(OauthConfig),
    /// A fixed value, for development: it is not renewed, and changing it is a rollout. Refused in
    /// production.
    Static(SecretSource),
}

/// A credential in a vault's key-value engine.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct KvConfig {
    /// Name of an entry of `vaults`.
    pub vault: String,
    /// Where the engine is mounted.
    #[serde(default = "default_mount")]
    pub mount: String,
    /// The engine's version: 1 or 2.
    #[serde(default = "default_version")]
    pub version: u64,
    /// Path of the secret in the engine, without `data/`. Claims of the caller may stand in it:
    /// `mcp/{sub}/github`; `{sha256(sub)}` for subjects that cannot be part of a path;
    /// `{type}` is `user` or `client`.
    pub path: String,
    /// The field of the secret that is the credential: its name, or a JSON pointer (RFC 6901).
    pub field: String,
    /// Further fields, which a header's format may name.
    #[serde(default)]
    pub fields: Vec<String>,
    /// How long a value is used before it is read again, in seconds; a shorter lease wins.
    #[serde(default = "default_ttl")]
    pub ttl_seconds: u64,
    /// Where a caller for whom nothing is stored yet can link an account.
    #[serde(default)]
    pub link_url: Option<String>,
}

/// A credential that a vault makes.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DynamicConfig {
    /// Name of an entry of `vaults`.
    pub vault: String,
    /// What is read: `database/creds/reports`. Claims of the caller may stand in it.
    pub path: String,
    /// The field of the answer that is the credential: its name, or a JSON pointer (RFC 6901).
    pub field: String,
    /// Further fields, which a header's format may name.
    #[serde(default)]
    pub fields: Vec<String>,
    /// Where a caller whom the vault does not know can link an account.
    #[serde(default)]
    pub link_url: Option<String>,
}

/// An access token from a token endpoint.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct OauthConfig {
    /// Name of an entry of `token_endpoints`.
    pub endpoint: String,
    /// Scopes to ask for, separated by spaces.
    #[serde(default)]
    pub scope: Option<String>,
    /// The server that the token is for (RFC 8707).
    #[serde(default)]
    pub resource: Option<String>,
    /// The same by its name at the authorization server (RFC 8693 section 2.1).
    #[serde(default)]
    pub audience: Option<String>,
    /// Where a caller whom the authorization server refuses can link an account.
    #[serde(default)]
    pub link_url: Option<String>,
}

/// How a credential is attached to requests to a server.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct InjectionConfig {
    /// Name of an entry of `credentials`.
    pub name: String,
    /// Header that carries it; `authorization` where `basic` is given.
    #[serde(default)]
    pub header: Option<String>,
    /// The header's value, `{}` standing for the secret: `Bearer {}`; `{name}` for a further field.
    #[serde(default)]
    pub format: Option<String>,
    /// User and password of HTTP's Basic scheme: `{username}:{}`. In place of `format`.
    #[serde(default)]
    pub basic: Option<String>,
    /// Query parameter that carries it, in place of a header. Queries end up in the logs of servers:
    /// only for servers with `credentials_in_query`.
    #[serde(default)]
    pub query: Option<String>,
}

fn default_timeout() -> u64 {
    2_000
}

fn default_app_role_mount() -> String {
    "approle".into()
}

fn default_jwt_mount() -> String {
    "jwt".into()
}

fn default_kubernetes_mount() -> String {
    "kubernetes".into()
}

fn default_mount() -> String {
    "secret".into()
}

fn default_version() -> u64 {
    2
}

fn default_ttl() -> u64 {
    300
}
