//! `toolgate explain`: who, which tool, which arguments: the decision, the policies that determined it,
//! and what would change it.
//!
//! Not here: what single policies say (`concern`).

use std::io;
use std::path::Path;

use serde::Serialize;
use toolgate_protocol::json::Json;

use crate::Findings;
use crate::arguments::Explain;
use crate::concern::{self, Concerned, OtherArguments, Status};
use crate::policy_set::{Failure, PolicySet};
use crate::question::{
    Answer, Question, RequestFields, ServerAction, TokenFields, What, Who, Word,
};
use crate::terminal::{Colour, Terminal, plain};

/// A decision, explained.
#[derive(Serialize)]
pub(crate) struct Explanation {
    policy_set: String,
    principal: String,
    action: String,
    resource: String,
    #[serde(flatten)]
    answer: Answer,
    /// Whether the caller sees it in lists.
    listed: bool,
    /// The policies whose action and resource are these.
    concerned: Vec<Concerned>,
    /// What would make the decision another one.
    changes: Vec<String>,
}

/// Explains the decision that `options` ask for.
///
/// # Errors
/// What could not be used.
pub(crate) fn run(options: Explain) -> Result<Explanation, Failure> {
    let set = PolicySet::load(&options.policies)?;
    let question = question(options)?;
    if !set.servers.contains(&question.server) {
        let servers = set.servers.join(", ");
        let message = format!("unknown server {:?}; there are: {servers}", question.server);
        return Err(Failure::unusable("--server", message));
    }
    let answer = question.ask(&set).map_err(Failure::Unusable)?;
    let listed = question.is_listed(&set).map_err(Failure::Unusable)?;
    let concerned = concern::of(&question, &set).map_err(Failure::Unusable)?;
    let left_out = question.left_out(&set).map_err(Failure::Unusable)?;
    let changes = match left_out {
        Some(reason) => vec![format!("{reason}: its principals would have to list that type")],
        None => changes(&answer, &concerned),
    };
    let quoted = |(kind, id): (&str, &str)| format!("{kind}::{id:?}");
    let (kind, id) = question.resource();
    Ok(Explanation {
        policy_set: set.engine.version().to_owned(),
        principal: quoted(question.principal()),
        action: quoted(("MCP::Action", &question.action(&set))),
        resource: quoted((kind, &id)),
        changes,
        answer,
        listed,
        concerned,
    })
}

/// The question that the options put.
fn question(options: Explain) -> Result<Question, Failure> {
    let who = match options.subject {
        None => Who::Anonymous,
        Some(subject) => {
            let mut claims = std::collections::BTreeMap::new();
            for claim in options.claim {
                let (name, text) = claim.split_once('=').ok_or_else(|| {
                    Failure::unusable("--claim", format!("{claim:?} is not NAME=TEXT"))
                })?;
                claims.insert(name.to_owned(), text.into());
            }
            Who::Token(Box::new(TokenFields {
                kind: options.kind,
                subject,
                issuer: options.issuer,
                client: options.client,
                groups: options.group,
                roles: options.role,
                claims,
                scopes: options.scope,
            }))
        }
    };
    let target = options.target;
    let what = if let Some(name) = target.tool {
        let text = options.arguments.as_deref().unwrap_or("null");
        let arguments = json_or_file("--arguments", text)?;
        What::Tool { name, arguments }
    } else if let Some(name) = target.prompt {
        What::Prompt(name)
    } else if let Some(uri) = target.resource {
        What::Resource(uri)
    } else {
        What::Server(target.action.unwrap_or(ServerAction::Connect))
    };
    let now = || chrono::DateTime::<chrono::Utc>::from(std::time::SystemTime::now()).to_rfc3339();
    let request = RequestFields {
        time: Some(options.time.unwrap_or_else(now)),
        source_ip: options.source_ip,
        session: options.session,
        client_name: options.client_name,
        token_age_seconds: options.token_age_seconds,
        protocol_version: options.protocol_version,
        calls: options.calls.into_iter().collect(),
    };
    Ok(Question { who, server: options.server, what, request })
}

/// What `option` gives: JSON, or a file with it after an `@`.
///
/// # Errors
/// Why it cannot be used.
pub(crate) fn json_or_file(option: &str, text: &str) -> Result<Json, Failure> {
    let text = match text.strip_prefix('@') {
        None => text.to_owned(),
        Some(file) => std::fs::read_to_string(Path::new(file))
            .map_err(|error| Failure::unusable(file, error))?,
    };
    // The gateway's own parser: what it refuses is not a call.
    Json::parse(text.as_bytes()).map_err(|error| Failure::unusable(option, error))
}

/// What would make the decision another one, in sentences.
fn changes(answer: &Answer, concerned: &[Concerned]) -> Vec<String> {
    let named = |policy: &Concerned| format!("`{}` ({})", policy.id, policy.place);
    let told = |policy: &Concerned| match &policy.advice {
        Some(advice) => format!("; its advice: {advice}"),
        None => String::new(),
    };
    let forbids = || concerned.iter().filter(|policy| policy.effect == "forbid");
    let permits = || concerned.iter().filter(|policy| policy.effect == "permit");
    let applied = || forbids().filter(|policy| policy.status == Status::Applies);
    let mut changes = Vec::new();
    match answer.outcome {
        Word::Permit => {
            changes.extend(forbids().map(|policy| {
                let when = match policy.status {
                    Status::OtherPrincipal => format!("for others: {}", policy.principal),
                    _ => "when its condition holds".to_owned(),
                };
                format!("forbid {} refuses it {when}", named(policy))
            }));
            if let [only] = &answer.policies[..] {
                changes.push(format!("without permit `{only}` nothing would permit it"));
            }
        }
        Word::Approval => {
            let groups = match &answer.approvers[..] {
                [] => "an approver".to_owned(),
                groups => format!("an approver in {}", groups.join(" or ")),
            };
            changes
                .push(format!("an approval of this very call by {groups}, who is not the caller"));
        }
        Word::Refused if applied().next().is_some() => {
            changes.extend(applied().map(|policy| {
                format!(
                    "arguments to which forbid {} does not apply{}",
                    named(policy),
                    told(policy)
                )
            }));
        }
        Word::Refused => {
            let could = permits()
                .filter(|policy| policy.other_arguments == Some(OtherArguments::CouldPermit));
            changes.extend(could.map(|policy| {
                format!("arguments that permit {} allows{}", named(policy), told(policy))
            }));
        }
        Word::Invalid => changes.extend(answer.message.clone()),
        Word::Error => {
            let erring = concerned.iter().filter(|policy| policy.status == Status::Errs);
            changes.extend(erring.map(|policy| {
                format!("{} {} must be such that it can be evaluated", policy.effect, named(policy))
            }));
        }
        Word::Invisible => {
            changes.extend(applied().map(|policy| {
                format!(
                    "forbid {} applies whatever the arguments are: it would have to leave this \
                     caller or request out",
                    named(policy)
                )
            }));
            let before = changes.len();
            for policy in permits() {
                match policy.status {
                    Status::OtherPrincipal => changes.push(format!(
                        "a caller of whom this holds: {}, for permit {}",
                        policy.principal,
                        named(policy)
                    )),
                    Status::ConditionNotMet => changes.push(format!(
                        "the condition of permit {}, which does not hold for this caller and request",
                        named(policy)
                    )),
                    Status::Applies | Status::Errs | Status::NotEvaluated => {}
                }
            }
            let permitted = permits().any(|policy| policy.status == Status::Applies);
            if changes.len() == before && !permitted {
                changes.push("a permit: none is about this action and resource".to_owned());
            }
        }
    }
    changes
}

impl Findings for Explanation {
    /// 0: whatever the decision is.
    fn exit_code(&self) -> u8 {
        0
    }

    fn write_text(&self, terminal: &mut Terminal<'_>) -> io::Result<()> {
        let answer = &self.answer;
        let colour = match answer.outcome {
            Word::Permit => Colour::Green,
            Word::Approval => Colour::Yellow,
            _ => Colour::Red,
        };
        let word = terminal.coloured(colour, answer.outcome.as_str());
        let question = format!("{} {} {}", self.principal, self.action, self.resource);
        terminal.line(&format!("{word}: {}", plain(&question)))?;
        terminal.line(&format!("  {}", meaning(answer.outcome)))?;
        terminal.line(&format!("  in lists: {}", if self.listed { "yes" } else { "no" }))?;
        let determined = if answer.policies.is_empty() {
            "no policy".into()
        } else {
            answer.policies.join(", ")
        };
        terminal.indented("  ", "determined by: ", "    ", &determined)?;
        for text in answer.message.iter().chain(&answer.advice) {
            terminal.indented("  ", "the caller is told: ", "    ", text)?;
        }
        if let Some(shadow) = &answer.shadow {
            let by = if shadow.policies.is_empty() { "" } else { " by " };
            let text = format!("{}{by}{}", shadow.outcome.as_str(), shadow.policies.join(", "));
            terminal.indented("  ", "in shadow it would be: ", "    ", &text)?;
        }
        for error in &answer.errors {
            let policy = error.policy.as_deref().unwrap_or("the request");
            terminal.indented("  ", "error: ", "    ", &format!("{policy}: {}", error.message))?;
        }
        terminal.line(&format!("  policy set {}", plain(&self.policy_set)))?;
        terminal.line("")?;
        terminal.line("policies about this action and resource:")?;
        if self.concerned.is_empty() {
            terminal.line("  none")?;
        }
        for policy in &self.concerned {
            let effect = match policy.effect {
                "permit" => terminal.coloured(Colour::Green, "permit "),
                effect => terminal.coloured(Colour::Red, &format!("{effect} ")),
            };
            let said = format!("{} ({}): {}", policy.id, policy.place, said_of(policy));
            terminal.indented("  ", &effect, "    ", &said)?;
            terminal.indented("    ", "", "    ", &policy.text)?;
        }
        terminal.line("")?;
        terminal.line("what would change it:")?;
        if self.changes.is_empty() {
            terminal.line("  nothing but other policies")?;
        }
        self.changes.iter().try_for_each(|change| terminal.indented("  ", "- ", "    ", change))
    }
}

/// What an outcome means to the caller.
fn meaning(outcome: Word) -> &'static str {
    match outcome {
        Word::Permit => "it goes on",
        Word::Approval => "it goes on once somebody has approved it",
        Word::Refused => {
            "the caller may use it with other arguments, and is told that policy refuses these"
        }
        Word::Invalid => "the arguments are not of the declared type; policies are not asked",
        Word::Invisible => "for this caller it does not exist",
        Word::Error => "something could not be evaluated: denied, and audited as an error",
    }
}

/// What there is to say of one policy.
fn said_of(policy: &Concerned) -> String {
    let status = match policy.status {
        Status::Applies => "applies".to_owned(),
        Status::OtherPrincipal => "is about other callers".to_owned(),
        Status::ConditionNotMet => "its condition does not hold".to_owned(),
        Status::Errs => {
            format!("cannot be evaluated: {}", policy.error.as_deref().unwrap_or_default())
        }
        Status::NotEvaluated => "not asked, the arguments are not of the declared type".to_owned(),
    };
    let others = match policy.other_arguments {
        Some(OtherArguments::CouldPermit) if policy.status != Status::Applies => {
            "; other arguments could satisfy it"
        }
        Some(OtherArguments::CannotPermit) if policy.status != Status::OtherPrincipal => {
            "; no arguments satisfy it"
        }
        Some(OtherArguments::CouldAvoid) if policy.status == Status::Applies => {
            "; not to all arguments"
        }
        Some(OtherArguments::CannotAvoid) => "; whatever the arguments are",
        _ => "",
    };
    format!("{status}{others}")
}
