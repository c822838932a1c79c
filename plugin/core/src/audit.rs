//! The record of an exchange: who asked what of whom, what was decided and why, how it ended.
//!
//! One record for each exchange, whatever became of it. It never holds a secret: credentials and
//! tokens stand in it by name, sessions by digest. The host writes it where its access log reads.

use std::rc::Rc;

use serde::Serialize;
use sha2::{Digest, Sha256};
use toolgate_protocol::json::Json;

/// What became of an exchange.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Policy permitted it and it was passed on.
    Allow,
    /// The gateway refused it.
    Deny,
    /// It was permitted, and something failed: the vault, the server, the gateway.
    Error,
    /// The client went away before anything was decided.
    #[default]
    Abort,
}

/// The record of one exchange. Absent fields did not apply.
#[derive(Clone, Debug, Default, Serialize)]
pub struct AuditRecord {
    /// Identifies the exchange: unique among all workers.
    pub record_id: String,
    /// What became of it.
    pub decision: Outcome,
    /// Why, where it was not simply allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// Details for whoever investigates; the client does not see them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The caller: subject of the token, or `anonymous`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal: Option<Rc<str>>,
    /// Issuer of the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<Rc<str>>,
    /// OAuth client that holds the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<Rc<str>>,
    /// Name of the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<Rc<str>>,
    /// Name of the portal it came through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub portal: Option<Rc<str>>,
    /// MCP method; `batch` for several messages in one body; `GET` and `DELETE` for the requests
    /// without a message; `response` for the answer
    /// to a request of the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mcp_method: Option<String>,
    /// What became of each message of a batch (2025-03-26), as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<Json>,
    /// MCP revision the client speaks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol_version: Option<&'static str>,
    /// JSON-RPC id of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jsonrpc_id: Option<String>,
    /// Digest of the MCP session id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Name of the tool that was called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// Name of the prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// URI of the resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// Digest of the arguments, or the arguments, as configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arguments: Option<String>,
    /// Name and hash of the policy set that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_set: Option<Rc<str>>,
    /// The policies that determined the decision; none where nothing permitted it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<Rc<str>>,
    /// What would have been decided if the policies in shadow were in force: `would_allow` or
    /// `would_deny`. Absent where that is the same by the same policies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow_decision: Option<&'static str>,
    /// The policies in shadow that would have determined it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shadow_policies: Vec<Rc<str>>,
    /// Why it would have been denied, in the words of `reason`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow_reason: Option<&'static str>,
    /// What could not be evaluated of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow_detail: Option<String>,
    /// Elements of lists that policies in shadow would have shown and that were not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow_listed: Option<usize>,
    /// Elements of lists that policies in shadow would have left out and that were shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow_hidden: Option<usize>,
    /// Name of the credential that was attached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<Rc<str>>,
    /// Version of the credential in the vault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential_version: Option<u64>,
    /// Digest of the lease by which the vault lent it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential_lease: Option<String>,
    /// Where the credential came from: `vault`, `client_credentials`, `token_exchange` or `jwt_bearer`
    /// when it was fetched for this exchange; `cache`; `static`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential_source: Option<&'static str>,
    /// HTTP status of the server's answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_status: Option<u16>,
    /// Elements of lists that the caller was shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listed: Option<usize>,
    /// Servers whose lists could not be had, each with the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_out: Option<String>,
    /// Elements of lists that the caller may not see, and updates of resources that it may not read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden: Option<usize>,
    /// Microseconds from the request's arrival to the decision, calls included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decided_us: Option<u64>,
    /// Microseconds of that spent waiting for calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls_us: Option<u64>,
    /// Microseconds from the request's arrival to its end.
    pub total_us: u64,
}

impl AuditRecord {
    /// The record as one line of JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|_| r#"{"decision":"error"}"#.into())
    }
}

impl AuditRecord {
    /// Hands every field that applies to `each`, by name, as text. Lists are joined by commas.
    pub fn each_field(&self, mut each: impl FnMut(&'static str, &str)) {
        let policies = self.policies.join(",");
        let shadow_policies = self.shadow_policies.join(",");
        let batch = self.batch.as_ref().map(|batch| batch.to_bytes());
        let batch = batch.as_deref().and_then(|bytes| std::str::from_utf8(bytes).ok());
        let texts = [
            ("record_id", Some(self.record_id.as_str())),
            ("decision", Some(self.decision.as_str())),
            ("reason", self.reason),
            ("detail", self.detail.as_deref()),
            ("principal", self.principal.as_deref()),
            ("issuer", self.issuer.as_deref()),
            ("client", self.client.as_deref()),
            ("server", self.server.as_deref()),
            ("portal", self.portal.as_deref()),
            ("left_out", self.left_out.as_deref()),
            ("mcp_method", self.mcp_method.as_deref()),
            ("batch", batch),
            ("protocol_version", self.protocol_version),
            ("jsonrpc_id", self.jsonrpc_id.as_deref()),
            ("session", self.session.as_deref()),
            ("tool", self.tool.as_deref()),
            ("prompt", self.prompt.as_deref()),
            ("resource", self.resource.as_deref()),
            ("arguments", self.arguments.as_deref()),
            ("policy_set", self.policy_set.as_deref()),
            ("policies", (!policies.is_empty()).then_some(policies.as_str())),
            ("shadow_decision", self.shadow_decision),
            ("shadow_policies", (!shadow_policies.is_empty()).then_some(shadow_policies.as_str())),
            ("shadow_reason", self.shadow_reason),
            ("shadow_detail", self.shadow_detail.as_deref()),
            ("credential", self.credential.as_deref()),
            ("credential_source", self.credential_source),
            ("credential_lease", self.credential_lease.as_deref()),
        ];
        for (name, value) in texts {
            if let Some(value) = value {
                each(name, value);
            }
        }
        let counts = [
            ("credential_version", self.credential_version),
            ("upstream_status", self.upstream_status.map(u64::from)),
            ("listed", self.listed.and_then(|count| u64::try_from(count).ok())),
            ("hidden", self.hidden.and_then(|count| u64::try_from(count).ok())),
            ("shadow_listed", self.shadow_listed.and_then(|count| u64::try_from(count).ok())),
            ("shadow_hidden", self.shadow_hidden.and_then(|count| u64::try_from(count).ok())),
            ("decided_us", self.decided_us),
            ("calls_us", self.calls_us),
            ("total_us", Some(self.total_us)),
        ];
        for (name, value) in counts {
            if let Some(value) = value {
                each(name, &value.to_string());
            }
        }
    }
}

impl Outcome {
    /// The word for this outcome.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Error => "error",
            Self::Abort => "abort",
        }
    }
}

/// The first 16 hexadecimal digits of the SHA-256 of a text: enough to match records, too little to
/// find the text.
pub(crate) fn short_digest(text: &str) -> String {
    hex(&Sha256::digest(text), 8)
}

/// The SHA-256 of bytes in hexadecimal digits.
pub(crate) fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes), 32)
}

/// At most this many bytes in hexadecimal digits.
pub(crate) fn hex(bytes: &[u8], most: usize) -> String {
    use std::fmt::Write as _;
    bytes.iter().take(most).fold(String::with_capacity(most * 2), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}
