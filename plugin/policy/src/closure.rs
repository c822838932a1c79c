//! Entities that know everything they lie in, so that sets of them can be put together for a decision
//! without looking for it again.
//!
//! INVARIANT: an [`Entities`] that [`together`] makes is closed, since each of its parts is: callers
//! lie in groups and roles, targets in servers and the gateway, actions in groups of actions, and
//! nothing of one part lies in another.

use std::sync::Arc;

use cedar_policy::Entity;
use cedar_policy_core::ast;
use cedar_policy_core::entities::{Entities, NoEntitiesSchema, TCComputation};
use cedar_policy_core::extensions::Extensions;

/// Entities with all their ancestors, shared.
pub(crate) type Closed = Vec<Arc<ast::Entity>>;

/// `entities` with what they lie in, all of which is among them, worked out. In no order.
///
/// # Errors
/// Cedar's, e.g. for entities that lie in each other.
pub(crate) fn closed(entities: impl IntoIterator<Item = Entity>) -> Result<Closed, String> {
    let entities = cedar_policy::Entities::from_entities(entities, None)
        .map_err(|error| crate::catalog::full_message(&error))?;
    let entities: &Entities = entities.as_ref();
    Ok(entities.iter().map(|entity| Arc::new(entity.clone())).collect())
}

/// One store of closed parts.
///
/// # Errors
/// Cedar's, when two of them have one name and are not the same.
pub(crate) fn together<'a>(
    parts: impl IntoIterator<Item = &'a Arc<ast::Entity>>,
) -> Result<Entities, String> {
    Entities::new()
        .add_entities(
            parts.into_iter().cloned(),
            None::<&NoEntitiesSchema>,
            TCComputation::AssumeAlreadyComputed,
            Extensions::all_available(),
        )
        .map_err(|error| error.to_string())
}
