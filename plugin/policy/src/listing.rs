//! Whether something with typed arguments is listed: could some arguments be permitted?
//!
//! Cedar's typed partial evaluation answers it with everything known but the arguments. It takes a
//! context that is known or unknown as a whole, so the policies of this question read what is known
//! of the request from an entity instead: `context.request` becomes
//! `MCP::ListingFacts::"now".request`, and the context, which then is the arguments, is unknown.
//!
//! Never hidden is what some arguments would permit: a condition is only taken as false or as an
//! error when it is so for all arguments. Shown may be what no arguments permit, where that follows
//! from several conditions together (`amount < 1 && amount > 2`): partial evaluation does not solve
//! them. Not here: untyped targets, whose listing is plain authorisation.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;

use cedar_policy::{
    Effect, EntityTypeName, EntityUid, PartialEntities, PartialEntityUid, PartialRequest, Policy,
    PolicySet, Schema, TpeResponse,
};
use cedar_policy_core::ast;
use cedar_policy_core::entities::{Entities, NoEntitiesSchema, TCComputation};
use cedar_policy_core::extensions::Extensions;
use serde_json::{Value, json};

use crate::counters::Counters;
use crate::index::Candidate;
use crate::looks::Looks;
use crate::names;
use crate::possible::Possible;
use crate::request::{Count, RequestFacts};
use crate::schema::LISTING_FACTS;

/// Id of the one entity that carries what is known of the request.
const NOW: &str = "now";

/// What partial evaluation found.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Permits that some arguments could satisfy, or all do.
    pub(crate) permits: Vec<Rc<Candidate>>,
    /// Policies that err whatever the arguments are: these deny.
    pub(crate) errors: Vec<Rc<Candidate>>,
    /// Whether a policy denies whatever the arguments are.
    pub(crate) denied: bool,
}

/// What partial evaluation found of one policy.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Listed {
    permits: bool,
    errs: bool,
    denies: bool,
}

impl Listing {
    /// Adds what was found of `policy`.
    pub(crate) fn add(&mut self, policy: &Rc<Candidate>, listed: Listed) {
        if listed.permits {
            self.permits.push(Rc::clone(policy));
        }
        if listed.errs {
            self.errors.push(Rc::clone(policy));
        }
        self.denied |= listed.denies;
    }
}

impl Listed {
    /// Reads the answer about a set of one policy.
    fn read(response: &TpeResponse<'_>) -> Self {
        let mut listed = Self {
            permits: response.true_permits().next().is_some(),
            errs: response.error_permits().chain(response.error_forbids()).next().is_some(),
            denies: response.true_forbids().next().is_some(),
        };
        for residual in response.residual_policies() {
            let possible = Possible::of(&residual);
            if residual.effect() == Effect::Permit && possible.satisfied {
                listed.permits = true;
            } else {
                // Any error denies, so a forbid that is true or an error denies in any case, and
                // so does a permit that is nothing but an error.
                listed.denies |= !possible.unsatisfied;
            }
        }
        listed
    }
}

/// What questions are put with, whoever asks.
#[derive(Debug)]
pub(crate) struct Lists {
    pub(crate) schema: Schema,
    /// Entities enough for policies that look at neither entities nor facts; they hold all actions, and
    /// to put them together takes longer than to ask.
    none: OnceCell<Rc<PartialEntities>>,
    /// Every counter at 0.
    calls: Vec<Count>,
}

impl Lists {
    pub(crate) fn new(schema: Schema, counters: &Counters) -> Self {
        let calls = counters.names().into_iter().map(|counter| Count { counter, calls: Some(0) });
        Self { schema, none: OnceCell::new(), calls: calls.collect() }
    }

    fn none(&self) -> Result<Rc<PartialEntities>, String> {
        if let Some(none) = self.none.get() {
            return Ok(Rc::clone(none));
        }
        let facts = RequestFacts { calls: &self.calls, ..RequestFacts::default() };
        let facts = facts.to_record(Looks::FACTS)?;
        let none = Rc::new(partial(&Entities::new(), facts, &self.schema)?);
        Ok(Rc::clone(self.none.get_or_init(|| none)))
    }
}

/// The question, ready to be put to policies.
pub(crate) struct Question<'a> {
    request: PartialRequest,
    entities: Rc<PartialEntities>,
    schema: &'a Schema,
}

impl<'a> Question<'a> {
    /// May `principal` do `action` on `resource` with some arguments, under what `facts` says? Where
    /// these are not given, only for policies that look at nothing but arguments.
    ///
    /// # Errors
    /// Why Cedar does not take the question.
    pub(crate) fn new(
        principal: &EntityUid,
        action: &EntityUid,
        resource: &EntityUid,
        known: Option<(ast::Value, &Entities)>,
        lists: &'a Lists,
    ) -> Result<Self, String> {
        let schema = &lists.schema;
        let request = PartialRequest::new(
            PartialEntityUid::from_concrete(principal.clone()),
            action.clone(),
            PartialEntityUid::from_concrete(resource.clone()),
            None,
            schema,
        )
        .map_err(|error| error.to_string())?;
        let entities = match known {
            Some((facts, entities)) => Rc::new(partial(entities, facts, schema)?),
            None => lists.none()?,
        };
        Ok(Self { request, entities, schema })
    }

    /// What `policy`, whose scope matches, says.
    ///
    /// # Errors
    /// Why Cedar cannot say.
    pub(crate) fn put(&self, policy: &Candidate) -> Result<Listed, String> {
        policy.listing().and_then(|policy| self.ask(policy))
    }

    /// The same of the policy as it was written, with nothing known of the request.
    ///
    /// # Errors
    /// Why Cedar cannot say.
    pub(crate) fn put_as_written(&self, policy: &Candidate) -> Result<Listed, String> {
        self.ask(&policy.policy)
    }

    fn ask(&self, policy: &Policy) -> Result<Listed, String> {
        let set = PolicySet::from_policies([policy.clone()]).map_err(|error| error.to_string())?;
        let response = set
            .tpe(&self.request, &self.entities, self.schema)
            .map_err(|error| error.to_string())?;
        Ok(Listed::read(&response))
    }
}

/// `entities` and the one that carries `facts`.
fn partial(
    entities: &Entities,
    facts: ast::Value,
    schema: &Schema,
) -> Result<PartialEntities, String> {
    let now = ast::Entity::new_with_attr_partial_value(
        now()?.into(),
        [("request".into(), facts.into())],
        HashSet::new(),
        HashSet::new(),
        [],
    );
    let entities = entities
        .clone()
        .add_entities(
            [Arc::new(now)],
            None::<&NoEntitiesSchema>,
            TCComputation::AssumeAlreadyComputed,
            Extensions::all_available(),
        )
        .map_err(|error| error.to_string())?;
    PartialEntities::from_concrete(entities.into(), schema).map_err(|error| error.to_string())
}

/// `policy` with `context.request` read from the entity of the listing, and without a scope: it is asked
/// where that matches.
///
/// # Errors
/// When Cedar cannot write the policy as JSON or read it again.
pub(crate) fn without_request(policy: &Policy) -> Result<Policy, String> {
    let mut json = policy.to_json().map_err(|error| error.to_string())?;
    for part in ["principal", "action", "resource"] {
        if let Some(scope) = json.get_mut(part) {
            *scope = json!({"op": "All"});
        }
    }
    if let Some(conditions) = json.get_mut("conditions") {
        rewrite(conditions);
    }
    Policy::from_json(Some(policy.id().clone()), json).map_err(|error| error.to_string())
}

/// Replaces the context in an expression of Cedar's JSON policy format.
fn rewrite(expression: &mut Value) {
    if is_context(expression) {
        // The context as a whole, e.g. compared with a record.
        *expression = json!({"Record": {"request": facts(), "arguments": arguments()}});
        return;
    }
    let Some((operator, path)) = accessed(expression) else {
        match expression {
            Value::Array(parts) => parts.iter_mut().for_each(rewrite),
            Value::Object(parts) => parts.values_mut().for_each(rewrite),
            _ => {}
        }
        return;
    };
    let member = match path.first().map(String::as_str) {
        Some("request") => facts(),
        Some("arguments") => arguments(),
        // Whatever else it is, such a context does not have it.
        _ => return,
    };
    *expression = match (operator.as_str(), path.get(1..).unwrap_or_default()) {
        (".", _) => member,
        // The context of a typed tool has both members.
        (_, []) => json!({"Value": true}),
        (_, [attribute]) => json!({"has": {"left": member, "attr": attribute}}),
        (_, deeper) => json!({"has": {"left": member, "attr": deeper}}),
    };
}

fn is_context(expression: &Value) -> bool {
    expression.as_object().is_some_and(|object| object.len() == 1)
        && expression.get("Var").and_then(Value::as_str) == Some("context")
}

/// The operator and the attributes, when `expression` is `context.x`, `context has x` or
/// `context has x.y`.
fn accessed(expression: &Value) -> Option<(String, Vec<String>)> {
    let (operator, operands) = expression.as_object()?.iter().next()?;
    if !is_context(operands.get("left")?) || ![".", "has"].contains(&operator.as_str()) {
        return None;
    }
    let path = match operands.get("attr")? {
        Value::Array(path) => path.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        attribute => vec![attribute.as_str()?.to_owned()],
    };
    Some((operator.clone(), path))
}

/// The arguments are what remains of the context.
fn arguments() -> Value {
    json!({".": {"left": {"Var": "context"}, "attr": "arguments"}})
}

fn facts() -> Value {
    let entity = json!({"type": format!("{}::{LISTING_FACTS}", names::NAMESPACE), "id": NOW});
    json!({".": {"left": {"Value": {"__entity": entity}}, "attr": "request"}})
}

fn now() -> Result<EntityUid, String> {
    let kind: EntityTypeName = format!("{}::{LISTING_FACTS}", names::NAMESPACE)
        .parse()
        .map_err(|error: cedar_policy::ParseErrors| error.to_string())?;
    Ok(names::uid(&kind, NOW))
}
