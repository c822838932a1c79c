//! Session ids as clients see them.

use serde::Deserialize;

use crate::secret::SecretSource;

/// How the session ids of servers are sealed for clients.
#[derive(Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct SessionsConfig {
    /// Secrets of at least 32 characters, the same on every gateway that shares sessions; at most
    /// four. The first seals session ids, all of them open. Without any, session ids pass as servers
    /// made them and are not bound to their principals.
    pub keys: Vec<SecretSource>,
}
