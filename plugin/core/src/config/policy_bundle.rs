//! Where policies are fetched.

use serde::Deserialize;

/// Where policies are fetched: a document as `toolgate bundle` writes it. Not on Kong, which has no timer
/// to fetch by.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PolicyBundleConfig {
    /// The host's name for the upstream: an Envoy cluster.
    pub cluster: String,
    /// `Host` that it is addressed by; the cluster's name where none is given.
    #[serde(default)]
    pub authority: Option<String>,
    /// Path of the document.
    pub path: String,
    /// How long to wait for an answer, in milliseconds.
    #[serde(default = "default_timeout")]
    pub timeout_ms: u64,
    /// How often it is asked whether there is a newer one, in seconds.
    #[serde(default = "default_poll")]
    pub poll_seconds: u64,
}

fn default_timeout() -> u64 {
    5_000
}

fn default_poll() -> u64 {
    30
}
