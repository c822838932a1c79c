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

use std::collections::HashMap;

use cedar_policy::{
    Effect, Entities, Entity, EntityTypeName, EntityUid, PartialEntities, PartialEntityUid,
    PartialRequest, Policy, PolicyId, PolicySet, RestrictedExpression, Schema, TpeResponse,
};
use serde_json::{Value, json};

use crate::index::Slice;
use crate::names;
use crate::possible::Possible;
use crate::schema::LISTING_FACTS;

/// Id of the one entity that carries what is known of the request.
const NOW: &str = "now";

/// What partial evaluation found.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Permits that some arguments could satisfy, or all do.
    pub(crate) permits: Vec<PolicyId>,
    /// Policies that err whatever the arguments are: these deny.
    pub(crate) errors: Vec<PolicyId>,
    /// Whether a policy denies whatever the arguments are.
    denied: bool,
    /// Why partial evaluation itself was not possible: nothing is listed.
    pub(crate) failure: Option<String>,
}

impl Listing {
    /// Whether some arguments could be permitted.
    pub(crate) fn is_visible(&self) -> bool {
        !self.permits.is_empty() && !self.denied && self.errors.is_empty() && self.failure.is_none()
    }

    fn read(response: &TpeResponse<'_>) -> Self {
        let mut listing = Self {
            permits: response.true_permits().cloned().collect(),
            errors: response.error_permits().chain(response.error_forbids()).cloned().collect(),
            denied: response.true_forbids().next().is_some(),
            failure: None,
        };
        for residual in response.residual_policies() {
            let possible = Possible::of(&residual);
            if residual.effect() == Effect::Permit && possible.satisfied {
                listing.permits.push(residual.id().clone());
            } else {
                // Any error denies, so a forbid that is true or an error denies in any case, and
                // so does a permit that is nothing but an error.
                listing.denied |= !possible.unsatisfied;
            }
        }
        listing
    }

    fn extend(&mut self, other: Self) {
        self.permits.extend(other.permits);
        self.errors.extend(other.errors);
        self.denied |= other.denied;
        self.failure = self.failure.take().or(other.failure);
    }
}

/// The question, ready to be put to several policy sets.
pub(crate) struct Question<'a> {
    request: PartialRequest,
    entities: PartialEntities,
    schema: &'a Schema,
}

impl<'a> Question<'a> {
    /// May `principal` do `action` on `resource` with some arguments, under what `facts` says?
    ///
    /// # Errors
    /// Why Cedar does not take the question.
    pub(crate) fn new(
        principal: &EntityUid,
        action: &EntityUid,
        resource: &EntityUid,
        facts: RestrictedExpression,
        entities: impl IntoIterator<Item = Entity>,
        schema: &'a Schema,
    ) -> Result<Self, String> {
        let attributes = HashMap::from([("request".to_owned(), facts)]);
        let now = Entity::new(now()?, attributes, Default::default())
            .map_err(|error| error.to_string())?;
        let entities = Entities::from_entities(entities.into_iter().chain([now]), None)
            .map_err(|error| error.to_string())?;
        let request = PartialRequest::new(
            PartialEntityUid::from_concrete(principal.clone()),
            action.clone(),
            PartialEntityUid::from_concrete(resource.clone()),
            None,
            schema,
        )
        .map_err(|error| error.to_string())?;
        let entities =
            PartialEntities::from_concrete(entities, schema).map_err(|error| error.to_string())?;
        Ok(Self { request, entities, schema })
    }

    /// Adds what the policies of `slice` say.
    pub(crate) fn put(&self, slice: &Slice, listing: &mut Listing) {
        // What was rewritten is of the same type as what was validated. Should Cedar see that
        // otherwise, then the original policies answer, with nothing known of the request.
        let ask = |policies: &'_ PolicySet| -> Result<Listing, String> {
            let response = policies
                .tpe(&self.request, &self.entities, self.schema)
                .map_err(|error| error.to_string())?;
            Ok(Listing::read(&response))
        };
        match ask(&slice.listing).or_else(|_| ask(&slice.policies)) {
            Ok(found) => listing.extend(found),
            Err(message) => listing.failure = Some(message),
        }
    }
}

/// `policy` with `context.request` read from the entity of the listing.
///
/// # Errors
/// When Cedar cannot write the policy as JSON or read it again.
pub(crate) fn without_request(policy: &Policy) -> Result<Policy, String> {
    let mut json = policy.to_json().map_err(|error| error.to_string())?;
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
