//! One question to a policy set, and its answer: who asks for what, with which arguments, under which
//! circumstances.
//!
//! The answer is the filter's own, by the same engine. Not here: where questions come from.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, NaiveTime};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use toolgate_policy::{
    Approvers, Caller, CallerKind, Count, Counter, Decision, Outcome, Principal, Refusal,
    RequestFacts, Target,
};
use toolgate_protocol::json::Json;

use crate::policy_set::PolicySet;

/// What a case is decided at when it does not say: a decision must not depend on when it is tested.
pub(crate) const DEFAULT_TIME: &str = "2026-01-01T12:00:00Z";

/// The issuer of callers where neither they nor the configuration name one.
const DEFAULT_ISSUER: &str = "https://issuer.example";

/// A question.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) who: Who,
    pub(crate) server: String,
    pub(crate) what: What,
    pub(crate) request: RequestFields,
}

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) enum Who {
    /// A caller without a token.
    Anonymous,
    /// What a token says of its caller.
    Token(Box<TokenFields>),
}

/// What a verified token says of its caller.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenFields {
    /// For whom the caller acts.
    #[serde(default, rename = "as")]
    pub(crate) kind: Kind,
    /// The id of the principal.
    pub(crate) subject: String,
    #[serde(default)]
    pub(crate) issuer: Option<String>,
    #[serde(default)]
    pub(crate) client: Option<String>,
    #[serde(default)]
    pub(crate) groups: Vec<String>,
    #[serde(default)]
    pub(crate) roles: Vec<String>,
    /// Further claims; what is no text becomes JSON text, as with a token.
    #[serde(default)]
    pub(crate) claims: BTreeMap<String, Value>,
    #[serde(default)]
    pub(crate) scopes: Vec<String>,
}

/// For whom a caller with a token acts.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// For a person: `MCP::User`.
    #[default]
    User,
    /// For itself: `MCP::Client`.
    Client,
}

impl Kind {
    /// The type of the Cedar entity.
    pub(crate) fn type_name(self) -> &'static str {
        match self {
            Self::User => "MCP::User",
            Self::Client => "MCP::Client",
        }
    }
}

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) enum What {
    Server(ServerAction),
    Tool { name: String, arguments: Json },
    Prompt(String),
    Resource(String),
}

/// What is asked of a server itself.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub(crate) enum ServerAction {
    /// To reach it at all.
    Connect,
    /// To set the level of its log messages.
    SetLogLevel,
    /// To ask for, change, end or list tasks.
    UseTasks,
}

impl ServerAction {
    /// All of them.
    const ALL: [Self; 3] = [Self::Connect, Self::SetLogLevel, Self::UseTasks];

    /// The id of the Cedar action.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::SetLogLevel => "set_log_level",
            Self::UseTasks => "use_tasks",
        }
    }

    /// The action with this id.
    pub(crate) fn with_id(id: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == id)
    }
}

/// What is known of the request beside the token, named as in `context.request`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RequestFields {
    /// RFC 3339.
    pub(crate) time: Option<String>,
    pub(crate) source_ip: Option<String>,
    pub(crate) session: Option<String>,
    pub(crate) client_name: Option<String>,
    pub(crate) token_age_seconds: Option<i64>,
    pub(crate) protocol_version: Option<String>,
    /// What counters say; those that are not named say 0.
    pub(crate) calls: BTreeMap<String, i64>,
}

/// What the answer is, in one word.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Word {
    /// It may go on.
    Permit,
    /// It may go on once somebody has approved it.
    Approval,
    /// The caller may use the tool, with other arguments.
    Refused,
    /// The arguments are not of the declared type; the caller may use the tool.
    Invalid,
    /// For this caller it does not exist.
    Invisible,
    /// Something could not be evaluated.
    Error,
}

impl Word {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Permit => "permit",
            Self::Approval => "approval",
            Self::Refused => "refused",
            Self::Invalid => "invalid",
            Self::Invisible => "invisible",
            Self::Error => "error",
        }
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Answer {
    pub(crate) outcome: Word,
    /// Ids of the policies that determined it.
    pub(crate) policies: Vec<String>,
    /// What the caller is told.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) advice: Vec<String>,
    /// Groups of which one has to approve it; with `approval`, none stands for any approver.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) approvers: Vec<String>,
    /// What is wrong with the arguments, as the caller is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<String>,
    /// What could not be evaluated.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) errors: Vec<Erred>,
    /// What would be with the policies in shadow, where that is another answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) shadow: Option<ShadowAnswer>,
}

/// The answer that policies in shadow would give.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ShadowAnswer {
    pub(crate) outcome: Word,
    /// Ids of those in shadow that would determine it.
    pub(crate) policies: Vec<String>,
}

/// Something that could not be evaluated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Erred {
    pub(crate) policy: Option<String>,
    pub(crate) message: String,
}

impl Question {
    /// The answer of `set`.
    ///
    /// # Errors
    /// Why the question cannot be asked.
    pub(crate) fn ask(&self, set: &PolicySet) -> Result<Answer, String> {
        self.with(set, |set, principal, target, facts| {
            let decision = set.engine.decide(principal, target, facts);
            let shadow =
                set.engine.shadow(principal, target, facts, &decision).map(|shadow| ShadowAnswer {
                    outcome: Answer::from(shadow.decision).outcome,
                    policies: shadow.policies.iter().map(ToString::to_string).collect(),
                });
            Answer { shadow, ..Answer::from(decision) }
        })
    }

    /// Whether `set` lets the caller see it in lists.
    ///
    /// # Errors
    /// Why the question cannot be asked.
    pub(crate) fn is_listed(&self, set: &PolicySet) -> Result<bool, String> {
        self.with(set, |set, principal, target, facts| set.engine.visible(principal, target, facts))
    }

    /// Why `set` has it for no caller of this type, if it does not.
    ///
    /// # Errors
    /// Why the question cannot be asked.
    pub(crate) fn left_out(&self, set: &PolicySet) -> Result<Option<String>, String> {
        self.with(set, |set, principal, target, _| set.engine.left_out(principal, target))
    }

    fn with<T>(
        &self,
        set: &PolicySet,
        ask: impl FnOnce(&PolicySet, &Principal, &Target<'_>, &RequestFacts<'_>) -> T,
    ) -> Result<T, String> {
        let (principal, scopes) = match &self.who {
            Who::Anonymous => (set.engine.anonymous(), &[][..]),
            Who::Token(token) => {
                let caller = token.caller(set);
                let principal = set.engine.principal(&caller).map_err(|error| error.to_string())?;
                (principal, &token.scopes[..])
            }
        };
        let target = self.target();
        let request = &self.request;
        let calls = self.counts(set)?;
        let facts = RequestFacts {
            calls: &calls,
            time_ms: milliseconds(request.time.as_deref().unwrap_or(DEFAULT_TIME))?,
            scopes,
            source_ip: request.source_ip.as_deref(),
            session: request.session.as_deref(),
            client_name: request.client_name.as_deref(),
            token_age_seconds: request.token_age_seconds,
            protocol_version: request.protocol_version.as_deref(),
        };
        Ok(ask(set, &principal, &target, &facts))
    }

    /// What every counter of `set` says.
    fn counts(&self, set: &PolicySet) -> Result<Vec<Count>, String> {
        let counters = set.engine.counters();
        let given = &self.request.calls;
        let is_known = |name: &str| counters.iter().any(|counter| &*counter.name == name);
        if let Some(unknown) = given.keys().find(|name| !is_known(name)) {
            return Err(format!("`calls`: there is no counter {unknown:?}"));
        }
        let count = |counter: &Counter| Count {
            counter: std::rc::Rc::clone(&counter.name),
            calls: Some(given.get(&*counter.name).copied().unwrap_or(0)),
        };
        Ok(counters.iter().map(count).collect())
    }

    /// The Cedar action that `set` has for it, without its namespace and type.
    pub(crate) fn action(&self, set: &PolicySet) -> String {
        let own = self.actions(set).into_iter().next();
        // Of a server that is not there.
        own.unwrap_or_else(|| "none".to_owned())
    }

    /// This and all groups that it lies in.
    pub(crate) fn actions(&self, set: &PolicySet) -> Vec<String> {
        set.engine.actions(&self.target()).into_iter().map(str::to_owned).collect()
    }

    fn target(&self) -> Target<'_> {
        let server = &*self.server;
        match &self.what {
            What::Server(action) => Target::Server(server, (*action).into()),
            What::Tool { name, arguments } => Target::Tool { server, name, arguments },
            What::Prompt(name) => Target::Prompt { server, name },
            What::Resource(uri) => Target::Resource { server, uri },
        }
    }

    /// Type and id of the Cedar resource.
    pub(crate) fn resource(&self) -> (&'static str, String) {
        match &self.what {
            What::Server(_) => ("MCP::Server", self.server.clone()),
            What::Tool { name, .. } => ("MCP::Tool", format!("{}/{name}", self.server)),
            What::Prompt(name) => ("MCP::Prompt", format!("{}/{name}", self.server)),
            What::Resource(uri) => ("MCP::Resource", format!("{}/{uri}", self.server)),
        }
    }

    /// Type and id of the Cedar principal.
    pub(crate) fn principal(&self) -> (&'static str, &str) {
        match &self.who {
            Who::Anonymous => ("MCP::Anonymous", "anonymous"),
            Who::Token(token) => (token.kind.type_name(), &token.subject),
        }
    }
}

impl TokenFields {
    fn caller(&self, set: &PolicySet) -> Caller {
        let text = |value: &Value| match value {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        let issuer = self.issuer.as_ref().or(set.issuer.as_ref());
        Caller {
            kind: match self.kind {
                Kind::User => CallerKind::User,
                Kind::Client => CallerKind::Client,
            },
            id: self.subject.clone(),
            issuer: issuer.map_or(DEFAULT_ISSUER, String::as_str).to_owned(),
            client: self.client.clone(),
            groups: self.groups.clone(),
            roles: self.roles.clone(),
            claims: self
                .claims
                .iter()
                .filter_map(|(name, value)| Some((name.clone(), text(value)?)))
                .collect(),
        }
    }
}

impl From<ServerAction> for toolgate_policy::ServerAction {
    fn from(action: ServerAction) -> Self {
        match action {
            ServerAction::Connect => Self::Connect,
            ServerAction::SetLogLevel => Self::SetLogLevel,
            ServerAction::UseTasks => Self::UseTasks,
        }
    }
}

impl From<Decision> for Answer {
    fn from(decision: Decision) -> Self {
        let mut approvers = Vec::new();
        let (outcome, advice, message) = match decision.outcome {
            Outcome::Permit => (Word::Permit, Vec::new(), None),
            Outcome::Approval(needed) => {
                approvers = groups(needed.approvers);
                (Word::Approval, needed.advice, None)
            }
            Outcome::Deny(Refusal::Invisible) => (Word::Invisible, Vec::new(), None),
            Outcome::Deny(Refusal::Arguments { advice }) => (Word::Refused, advice, None),
            Outcome::Deny(Refusal::InvalidArguments(message)) => {
                (Word::Invalid, Vec::new(), Some(message))
            }
            Outcome::Deny(Refusal::Error(_)) => (Word::Error, Vec::new(), None),
        };
        let erred = |error: toolgate_policy::PolicyError| Erred {
            policy: error.policy.map(|policy| policy.to_string()),
            message: error.message,
        };
        Self {
            outcome,
            policies: decision.policies.iter().map(ToString::to_string).collect(),
            advice,
            approvers,
            message,
            errors: decision.errors.into_iter().map(erred).collect(),
            shadow: None,
        }
    }
}

/// The groups of which one has to approve; none where any approver will do.
fn groups(approvers: Vec<Approvers>) -> Vec<String> {
    let groups: Option<Vec<String>> = approvers
        .into_iter()
        .map(|approvers| match approvers {
            Approvers::Anyone => None,
            Approvers::Group(group) => Some(group),
        })
        .collect();
    groups.unwrap_or_default()
}

/// Milliseconds since the epoch of an RFC 3339 time, or of a date alone: its midnight in UTC.
pub(crate) fn milliseconds(text: &str) -> Result<i64, String> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.timestamp_millis());
    }
    // Cedar writes offsets without a colon.
    if let Ok(time) = DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f%z") {
        return Ok(time.timestamp_millis());
    }
    match text.parse::<NaiveDate>() {
        Ok(date) => Ok(date.and_time(NaiveTime::MIN).and_utc().timestamp_millis()),
        Err(_) => Err(format!("{text:?} is not an RFC 3339 time, e.g. {DEFAULT_TIME}")),
    }
}
