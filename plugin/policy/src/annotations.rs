//! The annotations of a policy: what they mean, and which are rejected.
//!
//! None is ever ignored: an annotation that is not known, or whose value means nothing, is a problem of
//! the configuration. Not here: what follows from them.

use cedar_policy::{Effect, Policy};

use crate::config::Problem;
use crate::decision::Approvers;
use crate::redaction::{self, ArgumentPath};

/// The annotations that mean something. `@description` is for the reader of the policy.
const KNOWN: [&str; 6] = ["id", "advice", "approval", "description", "mode", "redact"];

/// Longest `@id`.
const MAX_ID: usize = 128;

/// What the annotations of one policy say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Annotations {
    /// `@advice`: what a caller is told when the policy is the reason for a refusal.
    pub(crate) advice: Option<String>,
    /// `@mode("shadow")`: the policy is evaluated for audit and decides nothing.
    pub(crate) in_shadow: bool,
    /// `@redact`: arguments that no record may hold.
    pub(crate) redact: Vec<ArgumentPath>,
    /// `@approval`: what the policy permits has to be approved by one of these.
    pub(crate) approval: Option<Approvers>,
}

/// The `@id` and the other annotations of the policy at `path`; None when it has no id to be used.
pub(crate) fn read(
    policy: &Policy,
    path: &str,
    problems: &mut Vec<Problem>,
) -> Option<(String, Annotations)> {
    for (name, _) in policy.annotations() {
        if name == "limit" {
            problems.push(
                Problem::new(path, "`@limit` is reserved for quotas, and nothing enforces it yet")
                    .with_help("take it out: a policy must not promise what does not happen"),
            );
        } else if !KNOWN.contains(&name) {
            problems.push(
                Problem::new(path, format!("unknown annotation `@{name}`"))
                    .with_help(format!("known are @{}; none is ever ignored", KNOWN.join(", @"))),
            );
        }
    }
    let advice = policy.annotation("advice");
    if advice.is_some_and(|advice| advice.trim().is_empty()) {
        problems.push(Problem::new(path, "`@advice` is empty"));
    }
    let in_shadow =
        match policy.annotation("mode") {
            None => false,
            Some("shadow") => true,
            Some(other) => {
                problems.push(Problem::new(path, format!("`@mode` is {other:?}")).with_help(
                    "write @mode(\"shadow\"), or leave it out for a policy that decides",
                ));
                false
            }
        };
    let redact = match policy.annotation("redact").map(redaction::read) {
        None => Vec::new(),
        Some(Ok(paths)) => paths,
        Some(Err((message, help))) => {
            problems.push(Problem::new(path, message).with_help(help));
            Vec::new()
        }
    };
    if in_shadow && !redact.is_empty() {
        problems.push(
            Problem::new(path, "`@redact` on a policy in shadow, which has no effect")
                .with_help("put it on a policy that decides"),
        );
    }
    let approval =
        policy.annotation("approval").map(|group| approvers(policy, group, path, problems));
    let id = id(policy, path, problems)?;
    Some((id, Annotations { advice: advice.map(str::to_owned), in_shadow, redact, approval }))
}

/// Whom `@approval` names: a group of approvers, or nobody in particular.
fn approvers(policy: &Policy, group: &str, path: &str, problems: &mut Vec<Problem>) -> Approvers {
    if policy.effect() == Effect::Forbid {
        problems.push(
            Problem::new(path, "`@approval` on a forbid, which nobody can approve").with_help(
                "put it on the permit, and let the forbid not apply to what may be approved",
            ),
        );
    }
    if group.is_empty() {
        return Approvers::Anyone;
    }
    if group.len() > MAX_ID || group.trim() != group || group.chars().any(char::is_control) {
        problems.push(
            Problem::new(path, format!("`@approval` is {group:?}, which is no name of a group"))
                .with_help(
                    "write @approval(\"security\") for approvers of that group, @approval for all",
                ),
        );
    }
    Approvers::Group(group.to_owned())
}

fn id(policy: &Policy, path: &str, problems: &mut Vec<Problem>) -> Option<String> {
    match policy.annotation("id") {
        None => {
            problems.push(
                Problem::new(path, "the policy has no `@id`")
                    .with_help("audit names policies by it: put @id(\"..\") before the policy"),
            );
            None
        }
        Some(id) if id.is_empty() || id.len() > MAX_ID || id.chars().any(char::is_control) => {
            problems.push(Problem::new(
                path,
                format!("`@id` is empty, longer than {MAX_ID} bytes or has control characters"),
            ));
            None
        }
        Some(id) => Some(id.to_owned()),
    }
}
