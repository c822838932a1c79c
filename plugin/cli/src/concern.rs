//! Which policies concern a question, and what each of them says by itself.
//!
//! Every policy is put into an engine of its own, a forbid with a permit for everything beside it, so
//! that what is said of it is what the filter's engine does with it. Not here: what follows from all of
//! them together (`explain`).

use cedar_policy::{ActionConstraint, EntityUid, Policy, PrincipalConstraint, ResourceConstraint};
use serde::Serialize;
use toolgate_policy::{Effect, PolicyOutline};

use crate::policy_set::PolicySet;
use crate::question::{Question, What, Word};

/// Permits everything, so that a forbid beside it is what decides.
const EVERYTHING: &str =
    "@id(\"everything beside one forbid\") permit (principal, action, resource);";

/// A policy whose action and resource are those of the question.
#[derive(Serialize)]
pub(crate) struct Concerned {
    pub(crate) id: String,
    /// `permit` or `forbid`.
    pub(crate) effect: &'static str,
    pub(crate) place: String,
    pub(crate) text: String,
    pub(crate) status: Status,
    /// Why it errs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// What other arguments could do, where arguments are typed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) other_arguments: Option<OtherArguments>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) advice: Option<String>,
    #[serde(skip)]
    pub(crate) principal: String,
}

/// What a policy says to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    /// It is satisfied.
    Applies,
    /// It is about other callers.
    OtherPrincipal,
    /// It is about this caller, and its conditions do not hold.
    ConditionNotMet,
    /// It cannot be evaluated.
    Errs,
    /// The arguments are not of the declared type, so no policy was asked.
    NotEvaluated,
}

/// What other arguments could make of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OtherArguments {
    /// Some would satisfy the permit.
    CouldPermit,
    /// None satisfies the permit.
    CannotPermit,
    /// The forbid does not apply to some.
    CouldAvoid,
    /// The forbid applies to all.
    CannotAvoid,
}

/// The policies of `set` that concern `question`, in the order in which they stand.
///
/// # Errors
/// Why the question cannot be asked.
pub(crate) fn of(question: &Question, set: &PolicySet) -> Result<Vec<Concerned>, String> {
    let scope = Scope::of(question, set)?;
    let mut found = Vec::new();
    for outline in &set.policies {
        let policy = Policy::parse(None, &outline.text)
            .map_err(|error| format!("{}: {error}", outline.id))?;
        if scope.contains(&policy) {
            found.push(look_at(outline, &policy, question, set)?);
        }
    }
    Ok(found)
}

/// Action and resource of a question, with everything they lie in, themselves first.
struct Scope {
    actions: Vec<EntityUid>,
    resources: Vec<EntityUid>,
}

impl Scope {
    fn of(question: &Question, set: &PolicySet) -> Result<Self, String> {
        let uid = |kind: &str, id: &str| -> Result<EntityUid, String> {
            let kind = kind.parse().map_err(|error| format!("{kind}: {error}"))?;
            Ok(EntityUid::from_type_name_and_id(kind, cedar_policy::EntityId::new(id)))
        };
        let actions = question.actions(set).into_iter().map(|id| uid("MCP::Action", &id));
        let actions = actions.collect::<Result<Vec<EntityUid>, String>>()?;
        let (kind, id) = question.resource();
        let mut resources = vec![uid(kind, &id)?, uid("MCP::Gateway", "toolgate")?];
        if !matches!(question.what, What::Server(_)) {
            resources.push(uid("MCP::Server", &question.server)?);
        }
        Ok(Self { actions, resources })
    }

    /// Whether the action and the resource in the scope of `policy` are those of the question.
    fn contains(&self, policy: &Policy) -> bool {
        let [resource, ..] = &self.resources[..] else { return false };
        let action = match policy.action_constraint() {
            ActionConstraint::Any => true,
            ActionConstraint::Eq(action) => self.actions.first() == Some(&action),
            ActionConstraint::In(groups) => groups.iter().any(|group| self.actions.contains(group)),
        };
        action
            && match policy.resource_constraint() {
                ResourceConstraint::Any => true,
                ResourceConstraint::Eq(named) => named == *resource,
                ResourceConstraint::In(within) => self.resources.contains(&within),
                ResourceConstraint::Is(kind) => kind == *resource.type_name(),
                ResourceConstraint::IsIn(kind, within) => {
                    kind == *resource.type_name() && self.resources.contains(&within)
                }
            }
    }
}

fn look_at(
    outline: &PolicyOutline,
    policy: &Policy,
    question: &Question,
    set: &PolicySet,
) -> Result<Concerned, String> {
    let forbids = outline.effect == Effect::Forbid;
    let alone = |text: &str| {
        let text = if forbids { format!("{text}\n{EVERYTHING}") } else { text.to_owned() };
        set.with_policies(text)
            .map_err(|error| format!("policy `{}` by itself: {error}", outline.id))
    };
    // What a policy in shadow would do: as if it were in force.
    let itself = alone(&in_force(policy, &outline.text)?)?;
    let answer = question.ask(&itself)?;
    let listed = question.is_listed(&itself)?;
    let mut error = None;
    let status = match answer.outcome {
        Word::Error => {
            let messages: Vec<String> =
                answer.errors.into_iter().map(|error| error.message).collect();
            error = Some(messages.join("; "));
            Status::Errs
        }
        _ if answer.policies.contains(&outline.id) => Status::Applies,
        Word::Invalid => Status::NotEvaluated,
        _ if !forbids || answer.outcome == Word::Permit => {
            let scope_only = alone(&without_conditions(policy)?)?;
            let matched = question.ask(&scope_only)?;
            if matched.outcome == Word::Invalid {
                Status::NotEvaluated
            } else if matched.policies.contains(&outline.id) {
                Status::ConditionNotMet
            } else {
                Status::OtherPrincipal
            }
        }
        _ => Status::NotEvaluated,
    };
    let typed =
        matches!(&question.what, What::Tool { name, .. } if set.is_typed(&question.server, name));
    let other_arguments = typed.then_some(match (forbids, listed) {
        (false, true) => OtherArguments::CouldPermit,
        (false, false) => OtherArguments::CannotPermit,
        (true, true) => OtherArguments::CouldAvoid,
        (true, false) => OtherArguments::CannotAvoid,
    });
    Ok(Concerned {
        id: outline.id.clone(),
        effect: if forbids { "forbid" } else { "permit" },
        place: set.place(outline),
        text: outline.text.clone(),
        status,
        error,
        other_arguments,
        advice: outline.annotations.get("advice").cloned(),
        principal: principal_of(policy),
    })
}

/// The text of `policy` without `@mode`.
fn in_force(policy: &Policy, text: &str) -> Result<String, String> {
    if policy.annotation("mode").is_none() {
        return Ok(text.to_owned());
    }
    let mut json = policy.to_json().map_err(|error| error.to_string())?;
    without_mode(&mut json);
    let policy = Policy::from_json(None, json).map_err(|error| error.to_string())?;
    policy.to_cedar().ok_or_else(|| "it has no text".to_owned())
}

fn without_mode(policy: &mut serde_json::Value) {
    let annotations = policy.get_mut("annotations").and_then(serde_json::Value::as_object_mut);
    if let Some(annotations) = annotations {
        annotations.remove("mode");
    }
}

/// `policy` with its scope only and in force, as text.
fn without_conditions(policy: &Policy) -> Result<String, String> {
    let mut json = policy.to_json().map_err(|error| error.to_string())?;
    without_mode(&mut json);
    if let Some(conditions) = json.get_mut("conditions") {
        *conditions = serde_json::Value::Array(Vec::new());
    }
    let policy = Policy::from_json(None, json).map_err(|error| error.to_string())?;
    policy.to_cedar().ok_or_else(|| "it has no text".to_owned())
}

/// What a policy says of its principal.
fn principal_of(policy: &Policy) -> String {
    match policy.principal_constraint() {
        PrincipalConstraint::Any => "principal".to_owned(),
        PrincipalConstraint::Eq(uid) => format!("principal == {uid}"),
        PrincipalConstraint::In(uid) => format!("principal in {uid}"),
        PrincipalConstraint::Is(kind) => format!("principal is {kind}"),
        PrincipalConstraint::IsIn(kind, uid) => format!("principal is {kind} in {uid}"),
    }
}
