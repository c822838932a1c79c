//! The policies of a configuration: parsed, named, annotated, validated; or everything that is
//! wrong with them.
//!
//! Validation is strict and to dereference level 2: a policy reaches attributes of its principal
//! and resource and of the resource's server, which are exactly the entities every decision has at
//! hand, so no policy can err on a missing one. Not here: which policies matter to which request.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use cedar_policy::{
    ActionConstraint, EntityUid, Policy, PolicyId, PolicySet, ResourceConstraint, Schema,
    ValidationMode, ValidationResult, ValidationWarning, Validator,
};
use miette::Diagnostic;

use crate::annotations::{self, Annotations};
use crate::call_kind::CallKind;
use crate::config::{MOST_UNCHECKED, PolicyText, Problem, Validation};
use crate::names;
use crate::redaction;
use crate::schema::{CompiledSchema, LISTING_FACTS};
use crate::source::{self, Source};

/// Deepest access to entities: `resource` is the first, `resource.server` the second.
const DEREFERENCE_LEVEL: u32 = 2;

/// How many policies are checked together against the part of the schema that they name.
const AT_ONCE: usize = 24;

/// A policy under its stable name.
#[derive(Clone, Debug)]
pub(crate) struct NamedPolicy {
    pub(crate) id: Rc<str>,
    pub(crate) policy: Policy,
    pub(crate) annotations: Annotations,
}

/// Reads and validates all policies of `text`.
///
/// # Errors
/// Everything that is wrong with them.
pub(crate) fn compile(
    text: &PolicyText,
    schema: &CompiledSchema,
    servers: &BTreeSet<&str>,
    validation: Validation<'_>,
) -> Result<Vec<NamedPolicy>, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut policies: Vec<NamedPolicy> = Vec::new();
    let mut sources: HashMap<String, Source<'_>> = HashMap::new();
    for (path, text) in text.texts() {
        let source = Source::new(path, text);
        let set = match text.parse::<PolicySet>() {
            Ok(set) => set,
            Err(errors) => {
                problems.extend(errors.iter().map(|error| source::problem(&source, error)));
                continue;
            }
        };
        for template in set.templates() {
            problems.push(Problem::new(
                source.path_of(&template.to_cedar()),
                "a template has no principal or resource to apply to",
            ));
        }
        for (offset, policy) in in_order(&set, text) {
            let path = source.path_at(offset);
            let (id, annotations) = match annotations::read(&policy, &path, &mut problems) {
                Some((id, _)) if sources.contains_key(&id) => {
                    problems.push(
                        Problem::new(path, format!("the id `{id}` is taken"))
                            .with_help("audit names policies by `@id`: make it unique"),
                    );
                    continue;
                }
                Some(read) => read,
                None => continue,
            };
            check_names(&policy, &id, &path, servers, &mut problems);
            check_redaction(&policy, &annotations, schema, &path, &mut problems);
            check_approval(&policy, &annotations, schema, &path, &mut problems);
            sources.insert(id.clone(), source.clone());
            policies.push(NamedPolicy {
                annotations,
                policy: policy.new_id(PolicyId::new(&id)),
                id: id.into(),
            });
        }
    }
    let (count, tools) = (policies.len(), schema.arguments.len());
    match validation {
        Validation::Checked(_) => {}
        Validation::Bounded if count.max(tools) > MOST_UNCHECKED => problems.push(
            Problem::new(
                "policy_checked",
                format!(
                    "{count} policies and {tools} tools with types are too many to validate here: at \
                     most {MOST_UNCHECKED} of each are"
                ),
            )
            .with_help("validate them with `toolgate check`, and set policy_checked to what it writes"),
        ),
        Validation::Full | Validation::Bounded => {
            validate(&policies, schema, &sources, &mut problems);
        }
    }
    if problems.is_empty() { Ok(policies) } else { Err(problems) }
}

/// The policies of `set`, which was read from `text`, with their offsets, in the order of the text.
pub(crate) fn in_order(set: &PolicySet, text: &str) -> Vec<(usize, Policy)> {
    let mut policies: Vec<&Policy> = set.policies().collect();
    // Cedar numbers them: `policy0`, `policy1`, ..
    policies.sort_by_key(|policy| {
        let id: &str = policy.id().as_ref();
        id.trim_start_matches("policy").parse().unwrap_or(usize::MAX)
    });
    let mut from = 0;
    let mut found = Vec::with_capacity(policies.len());
    for policy in policies {
        let own = policy.to_cedar().unwrap_or_default();
        let offset = text.get(from..).and_then(|rest| rest.find(&own)).unwrap_or(0) + from;
        found.push((offset, policy.clone()));
        from = (offset + own.len()).min(text.len());
    }
    found
}

/// Finds what the validator cannot: names it knows nothing of, and a trap.
fn check_names(
    policy: &Policy,
    id: &str,
    path: &str,
    servers: &BTreeSet<&str>,
    problems: &mut Vec<Problem>,
) {
    if let ActionConstraint::Eq(action) = policy.action_constraint()
        && CallKind::with_action(action.id().unescaped()).is_some()
    {
        problems.push(
            Problem::new(
                path,
                format!("for policy `{id}`, `action ==` misses tools with an action of their own"),
            )
            .with_help(format!("write `action in {action}`")),
        );
    }
    for uid in policy.entity_literals() {
        let kind = uid.type_name();
        let name = uid.id().unescaped();
        let member = [&*names::TOOL, &*names::PROMPT, &*names::RESOURCE];
        let wrong = if *kind == *names::SERVER {
            (!servers.contains(name)).then(|| format!("unknown server `{name}`"))
        } else if member.contains(&kind) {
            match names::split_member_id(name) {
                None => Some(format!("`{name}` is not of the form `server/name`")),
                Some((server, _)) if !servers.contains(server) => {
                    Some(format!("unknown server `{server}`"))
                }
                Some(_) => None,
            }
        } else if *kind == *names::GATEWAY {
            (name != names::GATEWAY_ID)
                .then(|| format!("the gateway is called `{}`", names::GATEWAY_ID))
        } else {
            (kind.basename() == LISTING_FACTS).then(|| format!("`{kind}` is not for policies"))
        };
        if let Some(wrong) = wrong {
            problems.push(Problem::new(path, format!("for policy `{id}`, `{uid}`: {wrong}")));
        }
    }
}

/// Finds paths of `@redact` that lead nowhere: to take nothing out would be to record it.
fn check_redaction(
    policy: &Policy,
    annotations: &Annotations,
    schema: &CompiledSchema,
    path: &str,
    problems: &mut Vec<Problem>,
) {
    if annotations.redact.is_empty() {
        return;
    }
    const OTHERS: [&str; 5] =
        ["connect", "get_prompt", "read_resource", "set_log_level", "use_tasks"];
    let is_other = |uid: &EntityUid| OTHERS.contains(&uid.id().unescaped());
    let about_others = match policy.action_constraint() {
        ActionConstraint::Any => false,
        ActionConstraint::Eq(uid) => is_other(&uid),
        ActionConstraint::In(uids) => uids.iter().all(is_other),
    };
    if about_others {
        problems.push(
            Problem::new(path, "`@redact` on a policy that is not about tools")
                .with_help("only calls of tools have arguments that are recorded"),
        );
    }
    // Where all tools of the policy have types, these say which arguments there are.
    let Some(actions) = tool_actions(policy) else { return };
    for redacted in &annotations.redact {
        let has = |uid: &EntityUid| {
            let members = schema.arguments.get(uid.id().unescaped());
            members.is_some_and(|members| redaction::exists(members, redacted))
        };
        if !actions.iter().any(has) {
            let name = redacted.join(".");
            problems.push(
                Problem::new(
                    path,
                    format!("`@redact` names `arguments.{name}`, which no tool of the policy has"),
                )
                .with_help("compare with the types in `policy.schema`"),
            );
        }
    }
}

/// Finds `@approval` on what is no call of a tool: an approval names a tool and its arguments.
fn check_approval(
    policy: &Policy,
    annotations: &Annotations,
    schema: &CompiledSchema,
    path: &str,
    problems: &mut Vec<Problem>,
) {
    if annotations.approval.is_none() {
        return;
    }
    let of_tools = match policy.resource_constraint() {
        ResourceConstraint::Eq(uid) => *uid.type_name() == *names::TOOL,
        ResourceConstraint::Is(kind) | ResourceConstraint::IsIn(kind, _) => kind == *names::TOOL,
        ResourceConstraint::Any | ResourceConstraint::In(_) => false,
    };
    let is_call = |uid: &EntityUid| {
        let id = uid.id().unescaped();
        CallKind::with_action(id).is_some()
            || names::split_member_id(id).is_some()
            || schema.is_within_calls(uid)
    };
    let of_calls = match policy.action_constraint() {
        ActionConstraint::Any => false,
        ActionConstraint::Eq(uid) => is_call(&uid),
        ActionConstraint::In(uids) => !uids.is_empty() && uids.iter().all(is_call),
    };
    if !of_tools && !of_calls {
        problems.push(
            Problem::new(path, "`@approval` on a policy that is not only about calls of tools")
                .with_help(
                    "write `action in MCP::Action::\"call_tool\"`, or name the actions of tools; \
                     what else is permitted needs a permit of its own",
                ),
        );
    }
}

/// Types, names and reachability of `policies`, by Cedar.
fn validate(
    policies: &[NamedPolicy],
    schema: &CompiledSchema,
    sources: &HashMap<String, Source<'_>>,
    problems: &mut Vec<Problem>,
) {
    // What is found wrong with a part of the schema is looked at again with all of it.
    let policies = unproven(policies, schema);
    let set = match PolicySet::from_policies(policies.iter().map(|named| named.policy.clone())) {
        Ok(set) => set,
        Err(error) => {
            problems.push(Problem::new("policy.policies", error.to_string()));
            return;
        }
    };
    if set.is_empty() {
        return;
    }
    let result = check(&set, &schema.schema);
    let mut found = Vec::new();
    for error in result.validation_errors() {
        found.extend(located(sources, error.policy_id(), error));
    }
    for warning in warnings(&result) {
        found.extend(located(sources, warning.policy_id(), warning));
    }
    // Cedar reports in no particular order, and once for each combination of types.
    found.sort_by(|a, b| (&a.path, &a.message).cmp(&(&b.path, &b.message)));
    found.dedup();
    problems.extend(found);
}

/// Those of `policies` that are not found valid with the part of the schema that their scope names.
fn unproven<'a>(policies: &'a [NamedPolicy], schema: &CompiledSchema) -> Vec<&'a NamedPolicy> {
    let actions: Vec<Option<Vec<EntityUid>>> =
        policies.iter().map(|named| tool_actions(&named.policy)).collect();
    let named = policies.iter().zip(&actions);
    let mut all: Vec<&NamedPolicy> =
        named.clone().filter(|(_, actions)| actions.is_none()).map(|(policy, _)| policy).collect();
    let mut narrow: Vec<(&NamedPolicy, &[EntityUid])> =
        named.filter_map(|(policy, actions)| Some((policy, actions.as_deref()?))).collect();
    if narrow.len() <= AT_ONCE {
        // Not worth a schema of their own.
        all.extend(narrow.iter().map(|(policy, _)| *policy));
        return all;
    }
    narrow.sort_by_key(|(_, actions)| *actions);
    for part in narrow.chunks(AT_ONCE) {
        let ids = part.iter().flat_map(|(_, actions)| *actions).map(|uid| uid.id().unescaped());
        let is_valid = schema.with_actions(&ids.collect()).is_some_and(|schema| {
            PolicySet::from_policies(part.iter().map(|(named, _)| named.policy.clone())).is_ok_and(
                |set| {
                    let result = check(&set, &schema);
                    result.validation_passed() && warnings(&result).next().is_none()
                },
            )
        });
        if !is_valid {
            all.extend(part.iter().map(|(policy, _)| *policy));
        }
    }
    all
}

/// The actions in the scope of `policy`, when these are tools' own and nothing else.
fn tool_actions(policy: &Policy) -> Option<Vec<EntityUid>> {
    let actions = match policy.action_constraint() {
        ActionConstraint::Any => return None,
        ActionConstraint::Eq(uid) => vec![uid],
        ActionConstraint::In(uids) => uids,
    };
    let of_tools = |uid: &EntityUid| names::split_member_id(uid.id().unescaped()).is_some();
    (!actions.is_empty() && actions.iter().all(of_tools)).then_some(actions)
}

fn check(policies: &PolicySet, schema: &Schema) -> ValidationResult {
    let validator = Validator::new(schema.clone());
    validator.validate_with_level(policies, ValidationMode::Strict, DEREFERENCE_LEVEL)
}

/// Text in other scripts than Latin is no mistake; everything else that Cedar warns of makes a policy
/// that never applies, or reads as another than it is.
fn warnings(result: &ValidationResult) -> impl Iterator<Item = &ValidationWarning> {
    result
        .validation_warnings()
        .filter(|warning| !matches!(warning, ValidationWarning::MixedScriptString(_)))
}

fn located<E: Diagnostic + 'static>(
    sources: &HashMap<String, Source<'_>>,
    id: &PolicyId,
    error: &E,
) -> Option<Problem> {
    let id: &str = id.as_ref();
    Some(source::problem(sources.get(id)?, error))
}
