//! Which policies can matter to which request, by the scope of the policies.
//!
//! A decision visits the policies of its action that have no resource in their scope, and those that
//! name its resource or what that lies in: its cost grows with these, not with the policy set. The
//! index only leaves out policies whose scope cannot match; whether one matches Cedar decides.

use std::collections::HashMap;

use cedar_policy::{
    ActionConstraint, Entities, Entity, EntityTypeName, EntityUid, PolicySet, ResourceConstraint,
    Schema,
};

use crate::arguments::RecordType;
use crate::listing;
use crate::policies::NamedPolicy;
use crate::schema::CompiledSchema;

/// Everything of one action.
#[derive(Debug)]
pub(crate) struct ActionPolicies {
    pub(crate) uid: EntityUid,
    /// The types of callers it applies to: for all others it does not exist.
    principals: Vec<EntityTypeName>,
    /// The action and the groups it lies in: without them `action in` would be false.
    pub(crate) entities: Vec<Entity>,
    /// The type of its arguments, for the action of a tool.
    pub(crate) arguments: Option<RecordType>,
    anywhere: Slice,
    by_resource: HashMap<EntityUid, Slice>,
}

/// Policies that are evaluated together.
#[derive(Debug, Default)]
pub(crate) struct Slice {
    pub(crate) policies: PolicySet,
    /// The same for the question what is listed; only where there are arguments.
    pub(crate) listing: PolicySet,
}

impl ActionPolicies {
    /// Whether the schema has the action for callers like `principal`.
    pub(crate) fn applies_to(&self, principal: &EntityUid) -> bool {
        self.principals.contains(principal.type_name())
    }

    /// The policies that can matter to `resource`, which lies in `ancestors`.
    pub(crate) fn slices<'a>(
        &'a self,
        resource: &'a EntityUid,
        ancestors: &'a [EntityUid],
    ) -> impl Iterator<Item = &'a Slice> {
        let keyed =
            std::iter::once(resource).chain(ancestors).filter_map(|uid| self.by_resource.get(uid));
        std::iter::once(&self.anywhere).chain(keyed).filter(|slice| !slice.policies.is_empty())
    }
}

/// The index over all actions that requests can have, by action id.
///
/// # Errors
/// A text for the configuration's author, when Cedar refuses what it has validated before.
pub(crate) fn build(
    schema: &CompiledSchema,
    policies: &[NamedPolicy],
) -> Result<HashMap<String, ActionPolicies>, String> {
    let actions = schema.schema.action_entities().map_err(|error| error.to_string())?;
    let mut index = HashMap::new();
    for uid in schema.schema.actions() {
        let Some(kind) = resource_type(&schema.schema, uid) else {
            continue; // a group
        };
        let id = uid.id().unescaped();
        let arguments = schema.arguments.get(id).cloned();
        let principals = schema.schema.principals_for_action(uid).into_iter().flatten();
        let mut entry = ActionPolicies {
            uid: uid.clone(),
            principals: principals.cloned().collect(),
            entities: closure(&actions, uid),
            anywhere: Slice::default(),
            by_resource: HashMap::new(),
            arguments,
        };
        for named in policies {
            if !may_match(&actions, &named.policy.action_constraint(), uid) {
                continue;
            }
            let slice = match named.policy.resource_constraint() {
                ResourceConstraint::Any => &mut entry.anywhere,
                ResourceConstraint::Is(named) if named == kind => &mut entry.anywhere,
                ResourceConstraint::IsIn(named, within) if named == kind => {
                    entry.by_resource.entry(within).or_default()
                }
                ResourceConstraint::Eq(resource) | ResourceConstraint::In(resource) => {
                    entry.by_resource.entry(resource).or_default()
                }
                ResourceConstraint::Is(_) | ResourceConstraint::IsIn(..) => continue,
            };
            if entry.arguments.is_some() {
                let policy = listing::without_request(&named.policy)?;
                slice.listing.add(policy).map_err(|error| error.to_string())?;
            }
            slice.policies.add(named.policy.clone()).map_err(|error| error.to_string())?;
        }
        index.insert(id.to_owned(), entry);
    }
    Ok(index)
}

/// The resource type of `action`; every action of the model has one.
fn resource_type(schema: &Schema, action: &EntityUid) -> Option<EntityTypeName> {
    schema.resources_for_action(action)?.next().cloned()
}

/// `uid` and its ancestors.
fn closure(entities: &Entities, uid: &EntityUid) -> Vec<Entity> {
    let ancestors = entities.ancestors(uid).into_iter().flatten();
    std::iter::once(uid).chain(ancestors).filter_map(|uid| entities.get(uid).cloned()).collect()
}

fn may_match(actions: &Entities, constraint: &ActionConstraint, action: &EntityUid) -> bool {
    match constraint {
        ActionConstraint::Any => true,
        ActionConstraint::Eq(named) => named == action,
        ActionConstraint::In(named) => {
            named.iter().any(|group| group == action || actions.is_ancestor_of(group, action))
        }
    }
}
