//! The policy engine: a compiled configuration that answers requests.
//!
//! All checks happen in [`PolicyEngine::compile`]; a decision cannot fail, it can only deny. Not
//! here: how refusals look on the wire.

use std::collections::BTreeSet;
use std::rc::Rc;

use serde_json::Value;
use sha2::{Digest, Sha256};
use toolgate_protocol::json::Json;

use crate::arguments;
use crate::call_kind;
use crate::catalog::Catalog;
use crate::config::{MOST_UNCHECKED, PolicyConfig, PolicyMode, PolicyText, Problem, Validation};
use crate::counters::Counters;
use crate::decision::{ApprovalNeeded, Approvers, Decision, Outcome, PolicyError, Refusal};
use crate::index::{Action, Candidate, Index};
use crate::listing::{Listing, Lists};
use crate::looks::Looks;
use crate::names;
use crate::policies::{self, NamedPolicy};
use crate::principal::{Caller, Principal, PrincipalError};
use crate::redaction::Redaction;
use crate::request::{RequestFacts, Target};
use crate::schema;
use crate::standing::{Evaluation, Standing};
use crate::standings::Standings;

/// A configuration that is valid, ready to decide.
#[derive(Debug)]
pub struct PolicyEngine {
    version: String,
    mode: PolicyMode,
    lists: Lists,
    catalog: Catalog,
    pub(crate) counters: Counters,
    /// The policies that decide.
    pub(crate) enforced: Rules,
    /// These and the ones in shadow, where there are any.
    pub(crate) with_shadow: Option<Rules>,
    redactions: Vec<Redaction>,
    without_clients: Vec<String>,
    /// The first policy that asks for approvals.
    approved: Option<Rc<str>>,
    /// How many policies there are, or tools with types where these are more.
    size: usize,
}

/// Policies, and what was found out with them.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) index: Index,
    standings: Standings,
}

impl PolicyEngine {
    /// Checks `config` against the names of the gateway's `servers` and makes it ready.
    ///
    /// # Errors
    /// Everything that is wrong, at once: texts that do not parse, names and types that do not fit
    /// the schema, policies that can never apply, entities that do not conform. Where the schema is
    /// wrong, policies and entities are not looked at: their problems would be consequences.
    pub fn compile(config: &PolicyConfig, servers: &[String]) -> Result<Self, Vec<Problem>> {
        Self::compile_with(config, servers, Validation::Full)
    }

    /// The same, with policies validated as far as `validation` says.
    ///
    /// # Errors
    /// Everything that is wrong; with [`Validation::Checked`] also that other policies were checked.
    pub fn compile_with(
        config: &PolicyConfig,
        servers: &[String],
        validation: Validation<'_>,
    ) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        if let Validation::Checked(digest) = validation
            && digest != config.checked()
        {
            problems.push(
                Problem::new("policy_checked", "these are not the policies and the schema that were checked, or other rules hold")
                    .with_help("run `toolgate check` of this version, and set policy_checked to what it writes"),
            );
            return Err(problems);
        }
        let known: BTreeSet<&str> = servers.iter().map(String::as_str).collect();
        if config.name.is_empty() || config.name.chars().any(|c| c.is_control() || c == '@') {
            problems.push(
                Problem::new("policy.name", "the name is empty or has control characters or `@`")
                    .with_help("audit records name the policy set `name@hash`"),
            );
        }
        for server in &known {
            if server.is_empty() || server.contains(names::SEPARATOR) {
                problems.push(Problem::new(
                    "servers",
                    format!("the server name `{server}` is empty or contains `/`"),
                ));
            }
        }
        let counters = Counters::compile(&config.counters, &known).unwrap_or_else(|found| {
            problems.extend(found);
            Counters::default()
        });
        let kinds = call_kind::of_tools(&config.entities);
        let text = config.schema.as_deref();
        let schema = match schema::compile(text, &known, &counters.names(), &kinds) {
            Ok(schema) => schema,
            Err(found) => {
                problems.extend(found);
                return Err(problems);
            }
        };
        let policies = policies::compile(&config.policies, &schema, &known, validation);
        let catalog = Catalog::compile(&config.entities, &known, &schema.schema);
        match (policies, catalog) {
            (Ok(policies), Ok(catalog)) if problems.is_empty() => {
                // Where no policy decides, they are asked all together what they would decide.
                let decides = |policy: &&NamedPolicy| {
                    config.mode.is_shadow() || !policy.annotations.in_shadow
                };
                let rules =
                    |policies: &mut dyn Iterator<Item = &NamedPolicy>| -> Result<_, Vec<Problem>> {
                        let index = Index::build(&schema, policies)
                            .map_err(|message| vec![Problem::new("policy.policies", message)])?;
                        Ok(Rules { standings: Standings::new(&index, &catalog), index })
                    };
                let has_shadow = !policies.iter().all(|policy| decides(&policy));
                let redactions = policies
                    .iter()
                    .filter_map(|named| Redaction::new(&named.policy, &named.annotations.redact));
                let approved = policies.iter().find(|named| named.annotations.approval.is_some());
                let engine = Self {
                    approved: approved.map(|named| Rc::clone(&named.id)),
                    size: policies.len().max(schema.arguments.len()),
                    redactions: redactions.collect(),
                    without_clients: schema.without_clients.clone(),
                    version: version(config, &known),
                    mode: config.mode,
                    enforced: rules(&mut policies.iter().filter(decides))?,
                    with_shadow: match has_shadow {
                        true => Some(rules(&mut policies.iter())?),
                        false => None,
                    },
                    lists: Lists::new(schema.schema, &counters),
                    catalog,
                    counters,
                };
                for rules in std::iter::once(&engine.enforced).chain(&engine.with_shadow) {
                    rules.index.ask_ahead(&engine.lists);
                }
                Ok(engine)
            }
            (policies, catalog) => {
                problems.extend(policies.err().into_iter().flatten());
                problems.extend(catalog.err().into_iter().flatten());
                Err(problems)
            }
        }
    }

    /// Name and hash of the policy set, `name@0123456789abcdef`: the first 16 digits of a SHA-256
    /// over everything that goes into decisions except requests, so two engines of one version
    /// answer alike.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Whether some policy looks at [`RequestFacts::source_ip`]. Where none does, decisions are the same
    /// with every valid address and without one.
    #[must_use]
    pub fn looks_at_source(&self) -> bool {
        let looks = |rules: &Rules| rules.index.looks().at(Looks::SOURCE_IP);
        looks(&self.enforced) || self.with_shadow.as_ref().is_some_and(looks)
    }

    /// The tools that the configuration names, by an action, an entity or in a policy: the server and the
    /// name there. Some come twice.
    pub fn tools(&self) -> impl Iterator<Item = (&str, &str)> {
        let rules = std::iter::once(&self.enforced).chain(self.with_shadow.as_ref());
        let named = rules.flat_map(|rules| {
            let literals = rules.index.named().filter(|uid| *uid.type_name() == *names::TOOL);
            rules.index.actions().chain(literals.map(|uid| uid.id().unescaped()))
        });
        named.chain(self.catalog.tools()).filter_map(names::split_member_id)
    }

    /// What is valid and may not be meant.
    #[must_use]
    pub fn advice(&self) -> Vec<Problem> {
        const NAMED: usize = 5;
        let actions = &self.without_clients;
        if actions.is_empty() {
            return Vec::new();
        }
        let mut named: Vec<String> =
            actions.iter().take(NAMED).map(|id| format!("`{id}`")).collect();
        if actions.len() > NAMED {
            named.push(format!("{} more", actions.len() - NAMED));
        }
        let message = format!(
            "users and anonymous callers may be permitted {}, clients that act for themselves never",
            named.join(", ")
        );
        let help = "write `principal: [User, Client, Anonymous]`, or `[User]` where it is meant so";
        vec![Problem::new("policy.schema", message).with_help(help)]
    }

    /// Whether the policies decide. With [`PolicyMode::Shadow`] whoever asks lets everything go on, and
    /// records what [`Self::shadow`] says.
    #[must_use]
    pub fn mode(&self) -> PolicyMode {
        self.mode
    }

    /// Whether there is too much of it to be validated where somebody waits ([`Validation::Bounded`]).
    #[must_use]
    pub fn has_to_be_checked(&self) -> bool {
        self.size > MOST_UNCHECKED
    }

    /// The id of a policy that asks for approvals; None where none does, and no decision is
    /// [`Outcome::Approval`].
    #[must_use]
    pub fn asks_for_approval(&self) -> Option<&str> {
        self.approved.as_deref()
    }

    /// The arguments of a call as records may hold them; None where that is as they are.
    #[must_use]
    pub fn redacted(&self, server: &str, tool: &str, arguments: &Json) -> Option<Json> {
        if self.redactions.is_empty() {
            return None;
        }
        let index = &self.enforced.index;
        let action = self.call_of(index, &names::member_id(server, tool))?;
        let mut concerned =
            self.redactions.iter().filter(|it| it.concerns(action, server, tool)).peekable();
        concerned.peek()?;
        let mut arguments = arguments.clone();
        concerned.for_each(|redaction| redaction.apply(&mut arguments));
        Some(arguments)
    }

    /// The principal that `caller` is.
    ///
    /// # Errors
    /// [`PrincipalError`] when there is too much of it; the request must be refused.
    pub fn principal(&self, caller: &Caller) -> Result<Principal, PrincipalError> {
        Principal::new(caller, &self.catalog.groups)
    }

    /// The principal that a caller without a token is.
    #[must_use]
    pub fn anonymous(&self) -> Principal {
        Principal::anonymous()
    }

    /// Whether `principal` may do what `target` says, and why.
    ///
    /// Never fails and never permits by accident: what cannot be evaluated denies.
    #[must_use]
    pub fn decide(
        &self,
        principal: &Principal,
        target: &Target<'_>,
        facts: &RequestFacts<'_>,
    ) -> Decision {
        self.decide_by(&self.enforced, principal, target, facts)
    }

    pub(crate) fn decide_by(
        &self,
        rules: &Rules,
        principal: &Principal,
        target: &Target<'_>,
        facts: &RequestFacts<'_>,
    ) -> Decision {
        let standing = match self.standing(rules, principal, target) {
            Ok(Some(standing)) => standing,
            Ok(None) => return refused(Refusal::Invisible),
            Err(message) => return not_a_request(message),
        };
        self.decide_on(&standing, target, facts).unwrap_or_else(not_a_request)
    }

    /// The decision.
    ///
    /// # Errors
    /// Why the request has no form in Cedar.
    fn decide_on(
        &self,
        standing: &Standing,
        target: &Target<'_>,
        facts: &RequestFacts<'_>,
    ) -> Result<Decision, String> {
        facts.validate()?;
        let settled = standing.settled(facts)?;
        let (Some(members), Target::Tool { arguments, .. }) = (&standing.action.arguments, target)
        else {
            #[cfg(debug_assertions)]
            standing.conforms(facts, None, &self.lists.schema)?;
            return Ok(decided(&settled).unwrap_or_else(|| Decision {
                policies: names_of(&settled.forbids),
                ..refused(Refusal::Invisible)
            }));
        };
        let arguments = match arguments::convert(members, arguments) {
            Ok(arguments) => arguments,
            Err(message) => {
                return self
                    .refuse(standing, facts, &settled, |_| Refusal::InvalidArguments(message));
            }
        };
        #[cfg(debug_assertions)]
        standing.conforms(facts, Some(arguments.clone()), &self.lists.schema)?;
        let mut evaluation = standing.called(facts, arguments)?;
        evaluation.extend(&settled);
        if let Some(decision) = decided(&evaluation) {
            return Ok(decision);
        }
        let refused = self.refuse(standing, facts, &settled, |permits| {
            let forbids = &evaluation.forbids;
            Refusal::Arguments {
                advice: advice(if forbids.is_empty() { permits } else { forbids }),
            }
        })?;
        Ok(match refused.outcome {
            Outcome::Deny(Refusal::Error(_)) => refused,
            _ => Decision { policies: names_of(&evaluation.forbids), ..refused },
        })
    }

    /// Whether `target` exists for `principal`: whether some arguments could be permitted. The
    /// arguments in `target` are not looked at.
    ///
    /// Exact for everything without typed arguments. For a typed tool nothing is hidden that some
    /// arguments would permit; it is shown unless the policies refuse it whatever the arguments are,
    /// as far as that follows from each condition by itself.
    #[must_use]
    pub fn visible(
        &self,
        principal: &Principal,
        target: &Target<'_>,
        facts: &RequestFacts<'_>,
    ) -> bool {
        self.visible_by(&self.enforced, principal, target, facts)
    }

    pub(crate) fn visible_by(
        &self,
        rules: &Rules,
        principal: &Principal,
        target: &Target<'_>,
        facts: &RequestFacts<'_>,
    ) -> bool {
        let Ok(Some(standing)) = self.standing(rules, principal, target) else { return false };
        let shown = || -> Result<bool, String> {
            facts.validate()?;
            let settled = standing.settled(facts)?;
            if !settled.errors.is_empty() || !settled.forbids.is_empty() {
                return Ok(false);
            }
            if !standing.depends_on_arguments() {
                return Ok(!settled.permits.is_empty());
            }
            let listing = standing.listed(facts, &self.lists)?;
            Ok(is_visible(&settled, &listing))
        };
        shown().unwrap_or(false)
    }

    /// Why `target` exists for no caller like `principal`, whatever policies say: the schema has its
    /// action for callers of other types. None where that is not so.
    #[must_use]
    pub fn left_out(&self, principal: &Principal, target: &Target<'_>) -> Option<String> {
        let action = self.action(&self.enforced.index, target)?;
        let uid = &principal.0.uid;
        (!action.applies_to(uid)).then(|| {
            format!("policy.schema has {} for no caller of type {}", action.uid, uid.type_name())
        })
    }

    /// What is known of `principal` and `target` before the request; None when its server is not one
    /// of the gateway's, or its schema does not have it for callers like `principal`.
    pub(crate) fn standing(
        &self,
        rules: &Rules,
        principal: &Principal,
        target: &Target<'_>,
    ) -> Result<Option<Rc<Standing>>, String> {
        rules.standings.of(&principal.0, target, || {
            let Some(located) = self.catalog.locate(target) else { return Ok(None) };
            let action = self.action(&rules.index, target);
            let Some(action) = action.filter(|action| action.applies_to(&principal.0.uid)) else {
                return Ok(None);
            };
            let (principal, action) = (Rc::clone(&principal.0), Rc::clone(action));
            Standing::new(principal, action, located, &rules.index).map(Some)
        })
    }

    /// The ids of the action that `target` is and of all groups around it, its own first; none for what is
    /// no server's.
    #[must_use]
    pub fn actions(&self, target: &Target<'_>) -> Vec<&str> {
        let action = self.action(&self.enforced.index, target);
        let action = action.filter(|_| self.catalog.locate(target).is_some());
        action.map(|action| action.ids().collect()).unwrap_or_default()
    }

    /// The action that `target` is.
    fn action<'a>(&self, index: &'a Index, target: &Target<'_>) -> Option<&'a Rc<Action>> {
        match target.action() {
            Some(id) => index.action(id),
            None => self.call_of(index, &names::member_id(target.server(), target.name()?)),
        }
    }

    /// The action of a call of the tool with this id: its own, if it has one, since the id of that contains a
    /// separator, as the ids of the model's actions never do.
    fn call_of<'a>(&self, index: &'a Index, id: &str) -> Option<&'a Rc<Action>> {
        index.action(id).or_else(|| index.action(self.catalog.kind(id).action()))
    }

    /// `refusal` for a caller that may know of the tool, else what it may know. `refusal` is given the
    /// permits that other arguments could satisfy.
    fn refuse(
        &self,
        standing: &Standing,
        facts: &RequestFacts<'_>,
        settled: &Evaluation,
        refusal: impl FnOnce(&[Rc<Candidate>]) -> Refusal,
    ) -> Result<Decision, String> {
        if !settled.errors.is_empty() {
            return Ok(failed(settled));
        }
        let nothing = Listing::default();
        let listing = if standing.depends_on_arguments() {
            Some(standing.listed(facts, &self.lists)?)
        } else {
            None
        };
        let listing = listing.as_deref().unwrap_or(&nothing);
        if !listing.errors.is_empty() {
            let message = "it cannot be evaluated, whatever the arguments are".to_owned();
            let errors = listing.errors.iter().map(|policy| (Rc::clone(policy), message.clone()));
            return Ok(failed(&Evaluation { errors: errors.collect(), ..Evaluation::default() }));
        }
        Ok(refused(if is_visible(settled, listing) {
            let permits = [&*settled.permits, &*listing.permits].concat();
            refusal(&permits)
        } else {
            Refusal::Invisible
        }))
    }
}

/// Whether some arguments could be permitted: `settled` is what policies say that do not look at
/// them, `listing` what is known of the others.
fn is_visible(settled: &Evaluation, listing: &Listing) -> bool {
    let permitted = !settled.permits.is_empty() || !listing.permits.is_empty();
    let denied = !settled.forbids.is_empty() || listing.denied;
    permitted && !denied && settled.errors.is_empty() && listing.errors.is_empty()
}

/// The decision when all policies have spoken; None when it is a refusal without an error.
fn decided(evaluation: &Evaluation) -> Option<Decision> {
    if !evaluation.errors.is_empty() {
        return Some(failed(evaluation));
    }
    let permitted = evaluation.forbids.is_empty() && !evaluation.permits.is_empty();
    permitted.then(|| Decision {
        outcome: approval(&evaluation.permits).map_or(Outcome::Permit, Outcome::Approval),
        policies: names_of(&evaluation.permits),
        errors: Vec::new(),
    })
}

/// What has to be approved when these permits are satisfied; None where one asks for no approval.
fn approval(permits: &[Rc<Candidate>]) -> Option<ApprovalNeeded> {
    let asked: Option<BTreeSet<&Approvers>> =
        permits.iter().map(|permit| permit.annotations.approval.as_ref()).collect();
    let approvers = asked?.into_iter().cloned().collect();
    Some(ApprovalNeeded { approvers, advice: advice(permits) })
}

fn failed(evaluation: &Evaluation) -> Decision {
    let policies: Vec<_> = evaluation.errors.iter().map(|(policy, _)| Rc::clone(policy)).collect();
    let mut errors: Vec<PolicyError> = evaluation
        .errors
        .iter()
        .map(|(policy, message)| PolicyError {
            policy: Some(Rc::clone(&policy.id)),
            message: message.clone(),
        })
        .collect();
    errors.sort_by(|a, b| a.policy.cmp(&b.policy));
    Decision {
        outcome: Outcome::Deny(Refusal::Error(names_of(&policies))),
        policies: names_of(&evaluation.forbids),
        errors,
    }
}

/// The ids of `policies`, sorted.
fn names_of(policies: &[Rc<Candidate>]) -> Vec<Rc<str>> {
    let mut names: Vec<Rc<str>> = policies.iter().map(|policy| Rc::clone(&policy.id)).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn advice(policies: &[Rc<Candidate>]) -> Vec<String> {
    let texts: BTreeSet<&String> =
        policies.iter().filter_map(|policy| policy.annotations.advice.as_ref()).collect();
    texts.into_iter().cloned().collect()
}

fn refused(refusal: Refusal) -> Decision {
    Decision { outcome: Outcome::Deny(refusal), policies: Vec::new(), errors: Vec::new() }
}

/// The request itself has no form in Cedar.
fn not_a_request(message: String) -> Decision {
    Decision {
        errors: vec![PolicyError { policy: None, message }],
        ..refused(Refusal::Error(Vec::new()))
    }
}

fn version(config: &PolicyConfig, servers: &BTreeSet<&str>) -> String {
    let mut hash = Sha256::new();
    // Lengths before contents: no two configurations write the same bytes.
    let mut field = |text: &str| {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    };
    field(crate::BASE_SCHEMA);
    match &config.policies {
        PolicyText::One(text) => {
            field("one");
            field(text);
        }
        PolicyText::Files(files) => {
            field("files");
            field(&files.len().to_string());
            for (name, text) in files {
                field(name);
                field(text);
            }
        }
    }
    if config.mode.is_shadow() {
        field("mode shadow");
    }
    for (name, counter) in &config.counters {
        field("counter");
        field(name);
        field(&format!("{counter:?}"));
    }
    field(if config.schema.is_some() { "schema" } else { "no schema" });
    field(config.schema.as_deref().unwrap_or_default());
    field(&Value::Array(config.entities.iter().map(sorted).collect()).to_string());
    for server in servers {
        field(server);
    }
    let hex: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{}@{hex}", config.name)
}

/// `value` with its members in order of their names.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(elements) => elements.iter().map(sorted).collect(),
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(name, _)| *name);
            members.into_iter().map(|(name, value)| (name.clone(), sorted(value))).collect()
        }
        other => other.clone(),
    }
}
