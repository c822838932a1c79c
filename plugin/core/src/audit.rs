//! The record of an exchange: who asked what of whom, what was decided and why, how it ended.
//!
//! One record for each exchange, whatever became of it. It never holds a secret: credentials and
//! tokens stand in it by name, sessions by digest. The host writes it where its access log reads: as
//! one property, since every call of the host costs, and those fields apart that somebody asks for.

use std::rc::Rc;

use serde::Serialize;
use sha2::{Digest, Sha256};
use toolgate_protocol::json::Json;

/// The property that is the whole record, as JSON.
const WHOLE: &str = "record";

/// What stands for every field in a configuration.
const ALL: &str = "all";

/// Most records of calls fit in so many bytes.
const USUAL_BYTES: usize = 1024;

/// The names of all fields, as [`AuditRecord::each_field`] and the JSON have them.
const FIELDS: [&str; 45] = [
    "record_id",
    "decision",
    "reason",
    "detail",
    "principal",
    "principal_type",
    "caller",
    "issuer",
    "client",
    "server",
    "portal",
    "left_out",
    "mcp_method",
    "batch",
    "protocol_version",
    "jsonrpc_id",
    "session",
    "tool",
    "prompt",
    "resource",
    "arguments",
    "calls",
    "policy_set",
    "policies",
    "approver",
    "approval_id",
    "shadow_decision",
    "shadow_policies",
    "shadow_reason",
    "shadow_detail",
    "shadow_listed",
    "shadow_hidden",
    "credential",
    "credential_source",
    "credential_lease",
    "credential_version",
    "credentials",
    "credential_retried",
    "credential_echoed",
    "upstream_status",
    "listed",
    "hidden",
    "decided_us",
    "calls_us",
    "total_us",
];

/// The fields that are written apart, beside the whole record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFields(Vec<&'static str>);

impl AuditFields {
    /// No field apart.
    pub const NONE: &Self = &Self(Vec::new());

    /// Every field.
    #[must_use]
    pub fn all() -> Self {
        Self(FIELDS.to_vec())
    }

    /// The fields of these names; `all` is every field.
    ///
    /// # Errors
    /// Which of the names, by index, are no field.
    pub(crate) fn named(names: &[String]) -> Result<Self, Vec<usize>> {
        let mut apart = Self::default();
        let mut unknown = Vec::new();
        for (index, name) in names.iter().enumerate() {
            match FIELDS.iter().find(|field| *field == name) {
                Some(field) if apart.0.contains(field) => {}
                Some(field) => apart.0.push(field),
                None if name == ALL => apart = Self::all(),
                None => unknown.push(index),
            }
        }
        if unknown.is_empty() { Ok(apart) } else { Err(unknown) }
    }
}

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
    /// For whom it acts: `user`, `client` for itself, `anonymous`. One name as both is two callers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal_type: Option<&'static str>,
    /// Its groups, roles and scopes, as JSON, where that is configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
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
    /// What the counters said that policies looked at: `refunds_last_hour=4,...`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls: Option<String>,
    /// Name and hash of the policy set that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_set: Option<Rc<str>>,
    /// The policies that determined the decision; none where nothing permitted it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<Rc<str>>,
    /// Who approved the call: subject of the approval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approver: Option<Rc<str>>,
    /// Identifier of the approval, its `jti`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval_id: Option<String>,
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
    /// Name of the credential that was attached; of several, their names, joined by commas.
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
    /// Where there are several, each of them; the fields above are then of the last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub credentials: Vec<CredentialUse>,
    /// Whether the server refused the first credential and the request was made once more with another,
    /// which is the one that the record names. Present where it was.
    #[serde(skip_serializing_if = "is_not")]
    pub credential_retried: bool,
    /// Whether the server sent a credential back, which was masked. Present where it did.
    #[serde(skip_serializing_if = "is_not")]
    pub credential_echoed: bool,
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

/// One of several credentials that go with a request, in the words of the record's own fields.
#[derive(Clone, Debug, Serialize)]
pub struct CredentialUse {
    /// Its name.
    pub name: Rc<str>,
    /// Where it came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<&'static str>,
    /// Its version in the vault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// Digest of its lease.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<String>,
}

impl AuditRecord {
    /// The record as one line of JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut json = Vec::with_capacity(USUAL_BYTES);
        serde_json::to_writer(&mut json, self)
            .ok()
            .and_then(|()| String::from_utf8(json).ok())
            .unwrap_or_else(|| r#"{"decision":"error"}"#.into())
    }

    /// Hands the record to `each` as properties of the host, by name, as text: the whole of it as JSON
    /// as `record`, and the fields that are asked for apart and apply.
    pub fn each_property(&self, apart: &AuditFields, mut each: impl FnMut(&'static str, &str)) {
        each(WHOLE, &self.to_json());
        if !apart.0.is_empty() {
            self.each_field(|name, value| {
                if apart.0.contains(&name) {
                    each(name, value);
                }
            });
        }
    }

    /// Hands every field that applies to `each`, by name, as text. Lists are joined by commas.
    pub fn each_field(&self, mut each: impl FnMut(&'static str, &str)) {
        let policies = self.policies.join(",");
        let shadow_policies = self.shadow_policies.join(",");
        let batch = self.batch.as_ref().map(|batch| batch.to_bytes());
        let batch = batch.as_deref().and_then(|bytes| std::str::from_utf8(bytes).ok());
        let several = !self.credentials.is_empty();
        let credentials = several.then(|| serde_json::to_string(&self.credentials).ok()).flatten();
        let texts = [
            ("record_id", Some(self.record_id.as_str())),
            ("decision", Some(self.decision.as_str())),
            ("reason", self.reason),
            ("detail", self.detail.as_deref()),
            ("principal", self.principal.as_deref()),
            ("principal_type", self.principal_type),
            ("caller", self.caller.as_deref()),
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
            ("calls", self.calls.as_deref()),
            ("policy_set", self.policy_set.as_deref()),
            ("policies", (!policies.is_empty()).then_some(policies.as_str())),
            ("approver", self.approver.as_deref()),
            ("approval_id", self.approval_id.as_deref()),
            ("shadow_decision", self.shadow_decision),
            ("shadow_policies", (!shadow_policies.is_empty()).then_some(shadow_policies.as_str())),
            ("shadow_reason", self.shadow_reason),
            ("shadow_detail", self.shadow_detail.as_deref()),
            ("credential", self.credential.as_deref()),
            ("credential_source", self.credential_source),
            ("credential_lease", self.credential_lease.as_deref()),
            ("credentials", credentials.as_deref()),
            ("credential_retried", self.credential_retried.then_some("true")),
            ("credential_echoed", self.credential_echoed.then_some("true")),
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

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_not(flag: &bool) -> bool {
    !flag
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
    let mut text = String::with_capacity(2 * most.min(bytes.len()));
    for byte in bytes.iter().take(most) {
        let digits = [byte >> 4, byte & 0xf].map(|half| char::from_digit(half.into(), 16));
        text.extend(digits.into_iter().flatten());
    }
    text
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    fn full() -> AuditRecord {
        let text = || Some("x".to_owned());
        let name = || Some(Rc::<str>::from("x"));
        AuditRecord {
            record_id: "x".into(),
            decision: Outcome::Allow,
            reason: Some("x"),
            detail: text(),
            principal: name(),
            principal_type: Some("x"),
            caller: text(),
            issuer: name(),
            client: name(),
            server: name(),
            portal: name(),
            mcp_method: text(),
            batch: Some(Json::Null),
            protocol_version: Some("x"),
            jsonrpc_id: text(),
            session: text(),
            tool: Some("re\"fund\u{7}".into()),
            prompt: text(),
            resource: text(),
            arguments: text(),
            calls: text(),
            policy_set: name(),
            policies: vec!["a".into(), "b".into()],
            approver: name(),
            approval_id: text(),
            shadow_decision: Some("x"),
            shadow_policies: vec!["a".into()],
            shadow_reason: Some("x"),
            shadow_detail: text(),
            shadow_listed: Some(1),
            shadow_hidden: Some(1),
            credential: name(),
            credential_version: Some(1),
            credential_lease: text(),
            credential_source: Some("x"),
            credentials: vec![CredentialUse {
                name: "x".into(),
                source: Some("x"),
                version: Some(1),
                lease: text(),
            }],
            credential_retried: true,
            credential_echoed: true,
            upstream_status: Some(200),
            listed: Some(1),
            left_out: text(),
            hidden: Some(1),
            decided_us: Some(1),
            calls_us: Some(1),
            total_us: 1,
        }
    }

    fn properties(apart: &AuditFields) -> Vec<(&'static str, String)> {
        let mut all = Vec::new();
        full().each_property(apart, |name, value| all.push((name, value.to_owned())));
        all
    }

    #[test]
    fn every_field_has_its_name_in_json_and_apart() {
        let json: Value = serde_json::from_str(&full().to_json()).unwrap();
        let in_json: BTreeSet<&str> =
            json.as_object().unwrap().keys().map(String::as_str).collect();
        let mut apart = BTreeSet::new();
        full().each_field(|name, _| assert!(apart.insert(name), "{name} comes twice"));
        assert_eq!(in_json, FIELDS.into_iter().collect());
        assert_eq!(apart, FIELDS.into_iter().collect());
    }

    #[test]
    fn a_record_is_one_property() {
        let [(WHOLE, json)] = &properties(AuditFields::NONE)[..] else { panic!("not one") };
        let json: Value = serde_json::from_str(json).unwrap();
        assert_eq!(json["tool"], "re\"fund\u{7}");
        assert_eq!(json["policies"], serde_json::json!(["a", "b"]));
    }

    #[test]
    fn fields_are_written_apart_when_they_are_asked_for() {
        let asked = ["policies", "tool", "tool"].map(String::from);
        let names: Vec<_> = properties(&AuditFields::named(&asked).unwrap())
            .into_iter()
            .skip(1)
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(names, ["tool=re\"fund\u{7}", "policies=a,b"]);
        let all = AuditFields::named(&["tool".into(), "all".into()]).unwrap();
        assert_eq!(properties(&all).len(), FIELDS.len() + 1);
    }

    #[test]
    fn names_of_no_field_are_told_apart() {
        let asked = ["tool", "tols", "record", "All"].map(String::from);
        assert_eq!(AuditFields::named(&asked), Err(vec![1, 2, 3]));
    }
}
