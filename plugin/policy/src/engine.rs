//! The policy engine: a compiled configuration that answers requests.
//!
//! All checks happen in [`PolicyEngine::compile`]; a decision cannot fail, it can only deny. Not
//! here: how refusals look on the wire, and caches.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use cedar_policy::{AuthorizationError, Authorizer, Entities, Entity, PolicyId, Request, Schema};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::arguments;
use crate::catalog::{Catalog, Located};
use crate::config::{PolicyConfig, PolicyText, Problem};
use crate::decision::{Decision, Outcome, PolicyError, Refusal};
use crate::index::{self, ActionPolicies};
use crate::listing::{Listing, Question};
use crate::names;
use crate::policies;
use crate::principal::{Caller, Principal, PrincipalError};
use crate::request::{self, RequestFacts, ServerAction, Target};
use crate::schema;

/// A configuration that is valid, ready to decide.
#[derive(Debug)]
pub struct PolicyEngine {
    version: String,
    schema: Schema,
    catalog: Catalog,
    actions: HashMap<String, ActionPolicies>,
    policies: HashMap<PolicyId, About>,
    authorizer: Authorizer,
}

/// What is said about a policy beside what it decides.
#[derive(Debug)]
struct About {
    id: Rc<str>,
    advice: Option<String>,
}

/// What policies said, over all slices.
#[derive(Default)]
struct Evaluation {
    permits: Vec<PolicyId>,
    forbids: Vec<PolicyId>,
    errors: Vec<(PolicyId, String)>,
}

impl PolicyEngine {
    /// Checks `config` against the names of the gateway's `servers` and makes it ready.
    ///
    /// # Errors
    /// Everything that is wrong, at once: texts that do not parse, names and types that do not fit
    /// the schema, policies that can never apply, entities that do not conform. Where the schema is
    /// wrong, policies and entities are not looked at: their problems would be consequences.
    pub fn compile(config: &PolicyConfig, servers: &[String]) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
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
        let schema = match schema::compile(config.schema.as_deref(), &known) {
            Ok(schema) => schema,
            Err(found) => {
                problems.extend(found);
                return Err(problems);
            }
        };
        let policies = policies::compile(&config.policies, &schema.schema, &known);
        let catalog = Catalog::compile(&config.entities, &known, &schema.schema);
        match (policies, catalog) {
            (Ok(policies), Ok(catalog)) if problems.is_empty() => {
                let actions = index::build(&schema, &policies)
                    .map_err(|message| vec![Problem::new("policy.policies", message)])?;
                let about = |named: policies::NamedPolicy| {
                    (named.policy.id().clone(), About { id: named.id, advice: named.advice })
                };
                Ok(Self {
                    version: version(config, &known),
                    schema: schema.schema,
                    catalog,
                    actions,
                    policies: policies.into_iter().map(about).collect(),
                    authorizer: Authorizer::new(),
                })
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
        let Some((action, located)) = self.locate(principal, target) else {
            return refused(Refusal::Invisible);
        };
        let arguments = match (&action.arguments, target) {
            (Some(members), Target::Tool { arguments, .. }) => {
                match arguments::convert(members, arguments) {
                    Ok(arguments) => Some(arguments),
                    Err(message) => {
                        let listing = self.listing(principal, action, &located, facts);
                        return self.refuse(listing, Refusal::InvalidArguments(message));
                    }
                }
            }
            _ => None,
        };
        let evaluation = facts.to_record().and_then(|request| {
            let context = request::context(request, arguments)?;
            self.evaluate(principal, action, &located, context)
        });
        let evaluation = match evaluation {
            Ok(evaluation) => evaluation,
            Err(message) => return not_a_request(message),
        };
        if !evaluation.errors.is_empty() {
            return self.failed(evaluation);
        }
        if evaluation.forbids.is_empty() && !evaluation.permits.is_empty() {
            let policies = self.names(&evaluation.permits);
            return Decision { outcome: Outcome::Permit, policies, errors: Vec::new() };
        }
        let policies = self.names(&evaluation.forbids);
        if action.arguments.is_none() {
            let outcome = Outcome::Deny(Refusal::Invisible);
            return Decision { outcome, policies, errors: Vec::new() };
        }
        let listing = self.listing(principal, action, &located, facts);
        let advisers =
            if evaluation.forbids.is_empty() { &listing.permits } else { &evaluation.forbids };
        let advice = self.advice(advisers);
        let refused = self.refuse(listing, Refusal::Arguments { advice });
        Decision { policies, ..refused }
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
        let Some((action, located)) = self.locate(principal, target) else {
            return false;
        };
        if action.arguments.is_some() {
            return self.listing(principal, action, &located, facts).is_visible();
        }
        self.decide(principal, target, facts).is_permit()
    }

    /// The action and the resource of `target`; None when its server is not one of the gateway's,
    /// or its schema does not have it for callers like `principal`.
    fn locate(
        &self,
        principal: &Principal,
        target: &Target<'_>,
    ) -> Option<(&ActionPolicies, Located)> {
        let located = self.catalog.locate(target)?;
        let id = match target {
            Target::Server(_, ServerAction::Connect) => "connect",
            Target::Server(_, ServerAction::SetLogLevel) => "set_log_level",
            Target::Server(_, ServerAction::UseTasks) => "use_tasks",
            Target::Prompt { .. } => "get_prompt",
            Target::Resource { .. } => "read_resource",
            Target::Tool { .. } => {
                // Its own action, if it has one: that contains a separator, as the actions of the
                // model never do.
                let own = located.uid.id().unescaped();
                if self.actions.contains_key(own) { own } else { "call_tool" }
            }
        };
        let action = self.actions.get(id).filter(|action| action.applies_to(&principal.uid))?;
        Some((action, located))
    }

    /// Asks all policies that can matter.
    fn evaluate(
        &self,
        principal: &Principal,
        action: &ActionPolicies,
        located: &Located,
        context: cedar_policy::Context,
    ) -> Result<Evaluation, String> {
        // With the schema: whatever went into the request, Cedar checks it once more.
        let request = Request::new(
            principal.uid.clone(),
            action.uid.clone(),
            located.uid.clone(),
            context,
            Some(&self.schema),
        )
        .map_err(|error| error.to_string())?;
        let entities = Entities::from_entities(entities(principal, action, located), None)
            .map_err(|error| error.to_string())?;
        let mut evaluation = Evaluation::default();
        for slice in action.slices(&located.uid, &located.ancestors) {
            let response = self.authorizer.is_authorized(&request, &slice.policies, &entities);
            let reasons = response.diagnostics().reason().cloned();
            match response.decision() {
                cedar_policy::Decision::Allow => evaluation.permits.extend(reasons),
                cedar_policy::Decision::Deny => evaluation.forbids.extend(reasons),
            }
            for error in response.diagnostics().errors() {
                let AuthorizationError::PolicyEvaluationError(error) = error;
                let message = error.inner().to_string();
                evaluation.errors.push((error.policy_id().clone(), message));
            }
        }
        Ok(evaluation)
    }

    /// What is known of a typed tool before its arguments are.
    fn listing(
        &self,
        principal: &Principal,
        action: &ActionPolicies,
        located: &Located,
        facts: &RequestFacts<'_>,
    ) -> Listing {
        let mut listing = Listing::default();
        let question = facts.to_record().and_then(|request| {
            Question::new(
                &principal.uid,
                &action.uid,
                &located.uid,
                request,
                entities(principal, action, located),
                &self.schema,
            )
        });
        match question {
            Ok(question) => {
                for slice in action.slices(&located.uid, &located.ancestors) {
                    question.put(slice, &mut listing);
                }
            }
            Err(message) => listing.failure = Some(message),
        }
        listing
    }

    /// `refusal` for a caller that may know of the tool, else what it may know.
    fn refuse(&self, listing: Listing, refusal: Refusal) -> Decision {
        if let Some(message) = listing.failure {
            return not_a_request(message);
        }
        if !listing.errors.is_empty() {
            let message = "it cannot be evaluated, whatever the arguments are".to_owned();
            let errors = listing.errors.into_iter().map(|id| (id, message.clone())).collect();
            return self.failed(Evaluation { errors, ..Evaluation::default() });
        }
        refused(if listing.is_visible() { refusal } else { Refusal::Invisible })
    }

    fn failed(&self, evaluation: Evaluation) -> Decision {
        let ids: Vec<PolicyId> = evaluation.errors.iter().map(|(id, _)| id.clone()).collect();
        let mut errors: Vec<PolicyError> = evaluation
            .errors
            .into_iter()
            .map(|(id, message)| PolicyError { policy: Some(self.name(&id)), message })
            .collect();
        errors.sort_by(|a, b| a.policy.cmp(&b.policy));
        Decision {
            outcome: Outcome::Deny(Refusal::Error(self.names(&ids))),
            policies: self.names(&evaluation.forbids),
            errors,
        }
    }

    fn name(&self, id: &PolicyId) -> Rc<str> {
        self.policies.get(id).map_or_else(|| Rc::from(id.as_ref()), |about| about.id.clone())
    }

    fn names(&self, ids: &[PolicyId]) -> Vec<Rc<str>> {
        let sorted: BTreeSet<Rc<str>> = ids.iter().map(|id| self.name(id)).collect();
        sorted.into_iter().collect()
    }

    fn advice(&self, ids: &[PolicyId]) -> Vec<String> {
        let texts: BTreeSet<&String> =
            ids.iter().filter_map(|id| self.policies.get(id)?.advice.as_ref()).collect();
        texts.into_iter().cloned().collect()
    }
}

/// The entities of one decision: who, what, and what these lie in.
fn entities<'a>(
    principal: &'a Principal,
    action: &'a ActionPolicies,
    located: &'a Located,
) -> impl Iterator<Item = Entity> + 'a {
    principal.entities.iter().chain(&action.entities).chain(&located.entities).cloned()
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
