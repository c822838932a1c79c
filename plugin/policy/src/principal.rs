//! Who calls, as Cedar entities, built once per token and used for all its requests.
//!
//! A [`Caller`] is believed: tokens are verified elsewhere, and which claim names a group is decided
//! there.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use cedar_policy::{Entity, EntityUid, RestrictedExpression};

use crate::catalog::Groups;
use crate::closure::{Closed, closed};
use crate::names;

/// Most groups, most roles and most claims one caller may have.
pub const MAX_MEMBERSHIPS: usize = 256;

/// For whom a caller with a token acts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CallerKind {
    /// For a person: `MCP::User`.
    #[default]
    User,
    /// For itself: `MCP::Client`.
    Client,
}

/// What a verified token says of the caller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// For whom it acts. One id as both is two principals.
    pub kind: CallerKind,
    /// The id of the `MCP::User` or `MCP::Client` entity. Policies name callers by it, so no two issuers
    /// may be able to give the same id to different ones.
    pub id: String,
    /// Who says so.
    pub issuer: String,
    /// The OAuth client that acts for the user, or that the client is.
    pub client: Option<String>,
    /// Ids of the `MCP::Group`s the token names; the groups around these come from configuration.
    pub groups: Vec<String>,
    /// Ids of the `MCP::Role`s the token names.
    pub roles: Vec<String>,
    /// The claims as text, each a tag of the caller.
    pub claims: BTreeMap<String, String>,
}

/// A caller as entities, ready for decisions. Keep it as long as the token is valid, and no longer
/// than the engine it came from. Clones are the same principal; what the engine remembers of one it
/// does not remember of another that was made from an equal caller.
#[derive(Clone, Debug)]
pub struct Principal(pub(crate) Rc<Known>);

/// What a [`Principal`] is.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) uid: EntityUid,
    /// The caller and every group around it. Empty for anonymous callers: entities of that type have
    /// neither attributes nor parents.
    pub(crate) entities: Closed,
    /// What the caller is or lies in: a policy whose scope names anything else does not match.
    pub(crate) memberships: Vec<EntityUid>,
    /// How many bytes it takes, about.
    pub(crate) weight: usize,
}

/// Why a caller cannot be a principal: it must be refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrincipalError {
    /// More than [`MAX_MEMBERSHIPS`] groups, roles or claims.
    #[error("the caller has {count} {what}, more than {MAX_MEMBERSHIPS}")]
    TooMany {
        /// `groups`, `roles` or `claims`.
        what: &'static str,
        /// How many there are.
        count: usize,
    },
    /// Cedar does not take the entity.
    #[error("the caller is not a valid entity: {0}")]
    Entity(String),
}

impl Principal {
    /// The caller without a token.
    pub(crate) fn anonymous() -> Self {
        let uid = names::uid(&names::ANONYMOUS, names::ANONYMOUS_ID);
        let memberships = vec![uid.clone()];
        Self(Rc::new(Known { uid, entities: Vec::new(), memberships, weight: 256 }))
    }

    /// `caller` with the configured `groups` around those it is in.
    pub(crate) fn new(caller: &Caller, groups: &Groups) -> Result<Self, PrincipalError> {
        for (what, count) in [
            ("groups", caller.groups.len()),
            ("roles", caller.roles.len()),
            ("claims", caller.claims.len()),
        ] {
            if count > MAX_MEMBERSHIPS {
                return Err(PrincipalError::TooMany { what, count });
            }
        }
        let kind = match caller.kind {
            CallerKind::User => &names::USER,
            CallerKind::Client => &names::CLIENT,
        };
        let uid = names::uid(kind, &caller.id);
        let mut attributes = HashMap::from([
            ("id".to_owned(), RestrictedExpression::new_string(caller.id.clone())),
            ("issuer".to_owned(), RestrictedExpression::new_string(caller.issuer.clone())),
        ]);
        if let Some(client) = &caller.client {
            attributes
                .insert("client".to_owned(), RestrictedExpression::new_string(client.clone()));
        }
        let tags = caller
            .claims
            .iter()
            .map(|(name, text)| (name.clone(), RestrictedExpression::new_string(text.clone())));
        let member_of = caller.groups.iter().map(|group| names::uid(&names::GROUP, group));
        let roles: HashSet<EntityUid> =
            caller.roles.iter().map(|role| names::uid(&names::ROLE, role)).collect();
        let itself = Entity::new_with_tags(
            uid.clone(),
            attributes,
            member_of.chain(roles.iter().cloned()),
            tags,
        )
        .map_err(|error| PrincipalError::Entity(error.to_string()))?;

        let mut entities = vec![itself];
        entities.extend(roles.into_iter().map(Entity::with_uid));
        entities.extend(groups.around(&caller.groups));
        let memberships = entities.iter().map(Entity::uid).collect();
        let weight = weight(caller, &entities);
        let entities = closed(entities).map_err(PrincipalError::Entity)?;
        Ok(Self(Rc::new(Known { uid, entities, memberships, weight })))
    }
}

/// Texts of the token and their places in maps, each of which stands in a few of them.
fn weight(caller: &Caller, entities: &[Entity]) -> usize {
    let claims: usize =
        caller.claims.iter().map(|(name, text)| name.len() + text.len() + 128).sum();
    let names: usize = entities.iter().map(|entity| entity.uid().id().unescaped().len()).sum();
    claims + 4 * names + 512 * entities.len()
}
