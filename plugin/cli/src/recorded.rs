//! Audit records as questions: what was asked once, to be asked again.
//!
//! A record says who asked for what, with `audit.arguments: full` with which arguments, and with
//! `audit.caller: memberships` in which groups and roles and with which scopes; of the caller's claims it
//! says nothing. What it does not say comes from elsewhere. Not here: asking (`diff`).

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use toolgate_protocol::json::Json;

use crate::case;
use crate::policy_set::Failure;
use crate::question::{Kind, Question, RequestFields, ServerAction, TokenFields, What, Who, Word};

/// What a line of a log is.
pub(crate) enum Line {
    /// A record of a decision of policies.
    Decision(Box<Recorded>),
    /// A record that is no decision of policies, or no record: there is nothing to ask again.
    Other,
    /// A decision that cannot be asked again, and why.
    Lost(String),
}

/// A decision that was recorded.
pub(crate) struct Recorded {
    pub(crate) question: Question,
    /// Whether the arguments are those of the call.
    pub(crate) has_arguments: bool,
    /// What was decided.
    pub(crate) outcome: Word,
}

/// What is known of callers beside their names. A caller is named by its id, or as Cedar writes it,
/// `MCP::Client::"id"`, where a user and a client have one id.
pub(crate) type Callers = BTreeMap<String, CallerFields>;

/// What a caller's tokens say, by the caller's id.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CallerFields {
    groups: Vec<String>,
    roles: Vec<String>,
    claims: BTreeMap<String, Value>,
    scopes: Vec<String>,
}

/// Reads a file of callers.
///
/// # Errors
/// Why it cannot be used.
pub(crate) fn callers(file: &Path) -> Result<Callers, Failure> {
    let text =
        std::fs::read_to_string(file).map_err(|error| Failure::unusable(file.display(), error))?;
    let value: Value =
        serde_saphyr::from_str(&text).map_err(|error| Failure::unusable(file.display(), error))?;
    case::strictly(value).map_err(|error| Failure::unusable(file.display(), error))
}

/// The fields of a record that say what was asked.
struct Record {
    /// What the proxy wrote by itself, or all.
    line: Value,
    /// The record, where a log has it as a field.
    whole: Option<Value>,
}

impl Record {
    fn new(line: Value) -> Self {
        let whole = line.get("record").and_then(Value::as_str);
        let whole = whole.and_then(|json| serde_json::from_str(json).ok());
        Self { line, whole }
    }

    /// A field that applies; hosts write null or a dash for one that does not.
    fn field(&self, name: &str) -> Option<&str> {
        let whole = self.whole.as_ref().and_then(|whole| whole.get(name));
        whole
            .or_else(|| self.line.get(name))?
            .as_str()
            .filter(|text| !text.is_empty() && *text != "-")
    }
}

/// Reads a line of a log: JSON, with or without something before it.
pub(crate) fn read(line: &str, callers: &Callers) -> Line {
    let json = line.find('{').and_then(|at| line.get(at..)).unwrap_or_default();
    let Ok(value) = serde_json::from_str::<Value>(json.trim_end()) else { return Line::Other };
    let record = Record::new(value);
    let (Some(server), Some(method), Some(_)) =
        (record.field("server"), record.field("mcp_method"), record.field("policy_set"))
    else {
        return Line::Other;
    };
    let Some(outcome) = outcome(&record) else { return Line::Other };
    let who = match who(&record, callers) {
        Ok(who) => who,
        Err(reason) => return Line::Lost(reason),
    };
    let recorded = record.field("arguments").and_then(|text| Json::parse(text.as_bytes()).ok());
    let recorded = recorded.filter(|arguments| matches!(arguments, Json::Object(_) | Json::Null));
    let has_arguments = recorded.is_some();
    let what = if let Some(tool) = record.field("tool") {
        What::Tool { name: tool.to_owned(), arguments: recorded.unwrap_or(Json::Null) }
    } else if let Some(prompt) = record.field("prompt") {
        What::Prompt(prompt.to_owned())
    } else if let Some(uri) = record.field("resource") {
        What::Resource(uri.to_owned())
    } else {
        What::Server(match method {
            "logging/setLevel" => ServerAction::SetLogLevel,
            method if method.starts_with("tasks/") => ServerAction::UseTasks,
            _ => ServerAction::Connect,
        })
    };
    let text = |name: &str| record.field(name).map(str::to_owned);
    let request = RequestFields {
        calls: calls(&record),
        time: text("time"),
        source_ip: text("source"),
        protocol_version: text("protocol_version"),
        ..RequestFields::default()
    };
    let question = Question { who, server: server.to_owned(), what, request };
    Line::Decision(Box::new(Recorded { question, has_arguments, outcome }))
}

/// What policies decided, if they did.
fn outcome(record: &Record) -> Option<Word> {
    match (record.field("decision")?, record.field("reason")) {
        // Policy has asked for an approval, whatever became of the call then.
        (_, _) if record.field("approver").is_some() => Some(Word::Approval),
        (_, Some("approval_required" | "approval_invalid" | "approval_unavailable")) => {
            Some(Word::Approval)
        }
        ("allow", _) => Some(Word::Permit),
        (_, Some("arguments_refused")) => Some(Word::Refused),
        (_, Some("argument_types")) => Some(Word::Invalid),
        (_, Some("not_visible" | "unknown_server" | "not_permitted")) => Some(Word::Invisible),
        (_, Some("policy_error")) => Some(Word::Error),
        // Permitted, and something failed after that.
        ("error", _) => Some(Word::Permit),
        _ => None,
    }
}

/// What counters said that policies looked at: `refunds_last_hour=4,...`.
fn calls(record: &Record) -> BTreeMap<String, i64> {
    let counts = record.field("calls").unwrap_or_default().split(',');
    let read = |count: &str| {
        let (name, calls) = count.split_once('=')?;
        Some((name.to_owned(), calls.parse().ok()?))
    };
    counts.filter_map(read).collect()
}

fn who(record: &Record, callers: &Callers) -> Result<Who, String> {
    let subject = record.field("principal").ok_or("the record names no principal")?;
    if subject == "anonymous" && record.field("issuer").is_none() {
        return Ok(Who::Anonymous);
    }
    let kind = match record.field("principal_type") {
        Some("client") => Kind::Client,
        _ => Kind::User,
    };
    let named = format!("{}::{subject:?}", kind.type_name());
    let recorded = || serde_json::from_str(record.field("caller")?).ok();
    let known = callers.get(&named).or_else(|| callers.get(subject)).cloned();
    let known = known.or_else(recorded).ok_or_else(|| {
        format!("nothing says which groups {subject:?} is in: name it in the file of --callers")
    })?;
    let CallerFields { groups, roles, claims, scopes } = known;
    Ok(Who::Token(Box::new(TokenFields {
        kind,
        subject: subject.to_owned(),
        issuer: record.field("issuer").map(str::to_owned),
        client: record.field("client").map(str::to_owned),
        groups,
        roles,
        claims,
        scopes,
    })))
}
