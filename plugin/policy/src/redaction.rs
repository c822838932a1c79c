//! `@redact`: arguments that no record may hold.
//!
//! A path holds for every call of the tools that the policy's action and resource name, whoever calls and
//! whether the policy is satisfied: what must not be recorded must not be recorded of refused calls
//! either. Not here: what a record holds.

use cedar_policy::{ActionConstraint, EntityUid, Policy, ResourceConstraint};
use toolgate_protocol::json::Json;

use crate::arguments::{ArgumentType, RecordType};
use crate::index::Action;
use crate::names;

/// What stands in place of what was taken out.
const REDACTED: &str = "[redacted]";

/// The members on the way to an argument, e.g. `["card", "number"]`. A list on the way stands for each
/// of its elements.
pub(crate) type ArgumentPath = Vec<String>;

/// The paths of one policy and what it is about.
#[derive(Clone, Debug)]
pub(crate) struct Redaction {
    action: ActionConstraint,
    resource: ResourceConstraint,
    paths: Vec<ArgumentPath>,
}

impl Redaction {
    pub(crate) fn new(policy: &Policy, paths: &[ArgumentPath]) -> Option<Self> {
        (!paths.is_empty()).then(|| Self {
            action: policy.action_constraint(),
            resource: policy.resource_constraint(),
            paths: paths.to_vec(),
        })
    }

    /// Whether it is about calls of the tool `name` at `server`, which are `action`.
    pub(crate) fn concerns(&self, action: &Action, server: &str, name: &str) -> bool {
        let tool = names::uid(&names::TOOL, names::member_id(server, name));
        let within = |uid: &EntityUid| {
            *uid == tool
                || *uid == names::uid(&names::SERVER, server)
                || *uid == names::uid(&names::GATEWAY, names::GATEWAY_ID)
        };
        let of_action = match &self.action {
            ActionConstraint::Any => true,
            ActionConstraint::Eq(uid) => action.uid == *uid,
            ActionConstraint::In(uids) => uids.iter().any(|uid| action.lies_in(uid)),
        };
        of_action
            && match &self.resource {
                ResourceConstraint::Any => true,
                ResourceConstraint::Eq(uid) => tool == *uid,
                ResourceConstraint::In(uid) => within(uid),
                ResourceConstraint::Is(kind) => *kind == *names::TOOL,
                ResourceConstraint::IsIn(kind, uid) => *kind == *names::TOOL && within(uid),
            }
    }

    /// Takes out of `arguments` what its paths lead to.
    pub(crate) fn apply(&self, arguments: &mut Json) {
        for path in &self.paths {
            take_out(arguments, path);
        }
    }
}

/// Reads the value of `@redact`: paths with commas between them, `arguments.card.number, arguments.pin`.
///
/// # Errors
/// What is wrong with it, and what would be right.
pub(crate) fn read(text: &str) -> Result<Vec<ArgumentPath>, (String, &'static str)> {
    const HELP: &str =
        "write paths of arguments: @redact(\"arguments.card.number, arguments.pin\")";
    let mut paths = Vec::new();
    for path in text.split(',').map(str::trim) {
        let mut members = path.split('.').map(str::to_owned);
        match members.next().as_deref() {
            Some("arguments") => {}
            Some("result") => {
                let message = format!("`@redact` names `{path}`, and no record holds a result");
                return Err((message, "take the path out: only arguments are recorded"));
            }
            _ => return Err((format!("`@redact` names `{path}`"), HELP)),
        }
        let path: ArgumentPath = members.collect();
        if path.is_empty() || path.iter().any(String::is_empty) {
            return Err(("`@redact` has a path without a name".to_owned(), HELP));
        }
        paths.push(path);
    }
    Ok(paths)
}

/// Whether arguments of this type have something at `path`.
pub(crate) fn exists(members: &RecordType, path: &[String]) -> bool {
    let Some((first, rest)) = path.split_first() else { return true };
    let Some(member) = members.iter().find(|member| member.name == *first) else { return false };
    let mut ty = &member.ty;
    while let ArgumentType::Set(element) = ty {
        ty = element;
    }
    match ty {
        ArgumentType::Record(members) => exists(members, rest),
        _ => rest.is_empty(),
    }
}

fn take_out(value: &mut Json, path: &[String]) {
    if let Some(elements) = value.as_array_mut().filter(|_| !path.is_empty()) {
        elements.iter_mut().for_each(|element| take_out(element, path));
        return;
    }
    let Some((first, rest)) = path.split_first() else {
        *value = Json::from(REDACTED);
        return;
    };
    match value.as_object_mut() {
        Some(object) => {
            if let Some(member) = object.get_mut(first) {
                take_out(member, rest);
            }
        }
        // Not what the path expects: nobody knows what it holds.
        None => *value = Json::from(REDACTED),
    }
}
