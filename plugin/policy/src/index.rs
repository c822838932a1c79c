//! Which policies can matter to which request, by the scope of the policies.
//!
//! A policy stands under the action, the resource and the principal that its scope names, or under
//! none where it names none. Of a request it is looked up under everything that each of the three is
//! or lies in: the cost grows with what is found there, not with the policy set. The index only leaves
//! out policies whose scope cannot match; whether one matches Cedar decides.

use std::cell::{OnceCell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use cedar_policy::{
    ActionConstraint, Effect, Entities, EntityId, EntityTypeName, EntityUid, Policy,
    PrincipalConstraint, ResourceConstraint,
};

use crate::annotations::Annotations;
use crate::arguments::RecordType;
use crate::closure::{Closed, closed};
use crate::listing::{self, Listed, Lists, Question};
use crate::looks::Looks;
use crate::names;
use crate::policies::NamedPolicy;
use crate::schema::CompiledSchema;

/// A policy, ready for decisions.
#[derive(Debug)]
pub(crate) struct Candidate {
    /// Its place in the configuration: candidates are found in this order.
    place: usize,
    /// Its name in audit records.
    pub(crate) id: Rc<str>,
    pub(crate) annotations: Annotations,
    pub(crate) policy: Policy,
    /// What its condition looks at.
    pub(crate) looks: Looks,
    listing: OnceCell<Policy>,
}

/// An action that requests can have.
#[derive(Debug)]
pub(crate) struct Action {
    pub(crate) uid: EntityUid,
    /// The types of callers it applies to: for all others it does not exist.
    principals: Vec<EntityTypeName>,
    /// The types of what it is done to.
    resources: Vec<EntityTypeName>,
    /// The action and the groups it lies in: without them `action in` would be false.
    pub(crate) entities: Closed,
    /// The same by name.
    memberships: Vec<EntityUid>,
    /// The type of its arguments, for the action of a tool.
    pub(crate) arguments: Option<RecordType>,
    /// What partial evaluation says of policies that look at nothing but arguments: the same for
    /// everybody. By their place.
    listed: RefCell<HashMap<usize, Listed>>,
}

/// All actions and policies.
#[derive(Debug)]
pub(crate) struct Index {
    actions: HashMap<String, Rc<Action>>,
    policies: Keyed<Keyed<Keyed<Vec<Rc<Candidate>>>>>,
    /// Ids of tools, prompts and resources that some policy names.
    named: HashSet<EntityUid>,
    /// What all policies together look at.
    looks: Looks,
    /// Policies that look at which tool, prompt or resource it is.
    looking_at_names: Vec<Rc<Candidate>>,
    /// Ids of the policies in shadow.
    in_shadow: HashSet<Rc<str>>,
}

/// What stands under an entity, and what stands under none.
#[derive(Debug, Default)]
struct Keyed<T> {
    under_none: T,
    under: HashMap<EntityUid, T>,
}

impl<T: Default> Keyed<T> {
    fn entry(&mut self, key: Option<EntityUid>) -> &mut T {
        match key {
            None => &mut self.under_none,
            Some(uid) => self.under.entry(uid).or_default(),
        }
    }

    fn each<'a>(
        &'a self,
        keys: impl Iterator<Item = &'a EntityUid>,
    ) -> impl Iterator<Item = &'a T> {
        std::iter::once(&self.under_none).chain(keys.filter_map(|uid| self.under.get(uid)))
    }

    fn all(&self) -> impl Iterator<Item = &T> {
        std::iter::once(&self.under_none).chain(self.under.values())
    }
}

impl Candidate {
    fn new(place: usize, named: &NamedPolicy) -> Self {
        Self {
            place,
            id: Rc::clone(&named.id),
            annotations: named.annotations.clone(),
            policy: named.policy.clone(),
            looks: Looks::of(&named.policy),
            listing: OnceCell::new(),
        }
    }

    pub(crate) fn is_forbid(&self) -> bool {
        self.policy.effect() == Effect::Forbid
    }

    /// The same policy for the question what is listed, see `listing`.
    ///
    /// # Errors
    /// When Cedar cannot write the policy as JSON or read it again.
    pub(crate) fn listing(&self) -> Result<&Policy, String> {
        if let Some(policy) = self.listing.get() {
            return Ok(policy);
        }
        let policy = listing::without_request(&self.policy)?;
        Ok(self.listing.get_or_init(|| policy))
    }
}

impl Action {
    /// Whether the schema has the action for callers like `principal`.
    pub(crate) fn applies_to(&self, principal: &EntityUid) -> bool {
        self.principals.contains(principal.type_name())
    }

    /// Whether it is `group` or lies in it.
    pub(crate) fn lies_in(&self, group: &EntityUid) -> bool {
        self.memberships.contains(group)
    }

    /// The ids of itself and of all groups around it, its own first.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        self.memberships.iter().map(|uid| uid.id().unescaped())
    }

    /// What partial evaluation says of `candidate`, from memory where that is the same for everybody.
    /// `ask` is told whether it is.
    ///
    /// # Errors
    /// Those of `ask`.
    pub(crate) fn listed(
        &self,
        candidate: &Candidate,
        ask: impl FnOnce(bool) -> Result<Listed, String>,
    ) -> Result<Listed, String> {
        if candidate.looks.at(Looks::FACTS.and(Looks::ENTITIES)) {
            return ask(false);
        }
        if let Some(listed) = self.listed.borrow().get(&candidate.place) {
            return Ok(*listed);
        }
        let listed = ask(true)?;
        self.listed.borrow_mut().insert(candidate.place, listed);
        Ok(listed)
    }
}

impl Index {
    /// The index over all actions of `schema` and all `policies`.
    ///
    /// # Errors
    /// A text for the configuration's author, when Cedar refuses what it has validated before.
    pub(crate) fn build<'a>(
        schema: &CompiledSchema,
        policies: impl Iterator<Item = &'a NamedPolicy>,
    ) -> Result<Self, String> {
        let entities = schema.schema.action_entities().map_err(|error| error.to_string())?;
        let mut index = Self {
            actions: HashMap::new(),
            policies: Keyed::default(),
            named: HashSet::new(),
            looks: Looks::NOTHING,
            looking_at_names: Vec::new(),
            in_shadow: HashSet::new(),
        };
        for uid in schema.schema.actions() {
            let types = schema.schema.resources_for_action(uid).into_iter().flatten();
            let resources: Vec<EntityTypeName> = types.cloned().collect();
            if resources.is_empty() {
                continue; // a group
            }
            let id = uid.id().unescaped();
            let memberships = memberships(&entities, uid);
            let within = memberships.iter().filter_map(|uid| entities.get(uid).cloned());
            let principals = schema.schema.principals_for_action(uid).into_iter().flatten();
            let action = Action {
                uid: uid.clone(),
                principals: principals.cloned().collect(),
                resources,
                entities: closed(within)?,
                arguments: schema.arguments.get(id).cloned(),
                listed: RefCell::default(),
                memberships,
            };
            index.actions.insert(id.to_owned(), Rc::new(action));
        }
        for (place, named) in policies.enumerate() {
            let candidate = Rc::new(Candidate::new(place, named));
            if !schema.arguments.is_empty() && candidate.looks.at(Looks::ARGUMENTS) {
                // Found out now rather than at a caller's first list.
                candidate.listing()?;
            }
            index.add(&candidate);
        }
        Ok(index)
    }

    /// Asks what policies on the arguments of one action say when it is listed, where that is the same
    /// for everybody: once, and not while somebody waits for the first list. What cannot be asked now
    /// is asked then.
    pub(crate) fn ask_ahead(&self, lists: &Lists) {
        for action in self.actions.values().filter(|action| action.arguments.is_some()) {
            let anybody = |kinds: &[EntityTypeName]| {
                let kind = kinds.first()?.clone();
                Some(EntityUid::from_type_name_and_id(kind, EntityId::new("")))
            };
            let (Some(policies), Some(principal), Some(resource)) = (
                self.policies.under.get(&action.uid),
                anybody(&action.principals),
                anybody(&action.resources),
            ) else {
                continue;
            };
            let question = Question::new(&principal, &action.uid, &resource, None, lists);
            let Ok(question) = question else { continue };
            for candidate in policies.all().flat_map(Keyed::all).flatten() {
                if candidate.looks.at(Looks::ARGUMENTS) {
                    let _remembered = action.listed(candidate, |is_same_for_all| {
                        if is_same_for_all { question.put(candidate) } else { Err(String::new()) }
                    });
                }
            }
        }
    }

    fn add(&mut self, candidate: &Rc<Candidate>) {
        let policy = &candidate.policy;
        let kinds = [&*names::TOOL, &*names::PROMPT, &*names::RESOURCE];
        let literals = policy.entity_literals().into_iter();
        self.named.extend(literals.filter(|uid| kinds.contains(&uid.type_name())));
        self.looks = self.looks.and(candidate.looks);
        if candidate.annotations.in_shadow {
            self.in_shadow.insert(Rc::clone(&candidate.id));
        }
        if candidate.looks.at(Looks::NAME) {
            self.looking_at_names.push(Rc::clone(candidate));
        }
        let actions = match policy.action_constraint() {
            ActionConstraint::Any => vec![None],
            ActionConstraint::Eq(uid) => vec![Some(uid)],
            ActionConstraint::In(uids) => uids.into_iter().map(Some).collect(),
        };
        let resource = match policy.resource_constraint() {
            ResourceConstraint::Any | ResourceConstraint::Is(_) => None,
            ResourceConstraint::Eq(uid)
            | ResourceConstraint::In(uid)
            | ResourceConstraint::IsIn(_, uid) => Some(uid),
        };
        let principal = match policy.principal_constraint() {
            PrincipalConstraint::Any | PrincipalConstraint::Is(_) => None,
            PrincipalConstraint::Eq(uid)
            | PrincipalConstraint::In(uid)
            | PrincipalConstraint::IsIn(_, uid) => Some(uid),
        };
        for action in actions {
            let under = self.policies.entry(action).entry(resource.clone());
            under.entry(principal.clone()).push(Rc::clone(candidate));
        }
    }

    /// The action called `id`, if requests can have it.
    pub(crate) fn action(&self, id: &str) -> Option<&Rc<Action>> {
        self.actions.get(id)
    }

    /// What all policies together look at.
    pub(crate) fn looks(&self) -> Looks {
        self.looks
    }

    /// Whether the policy of this id is in shadow.
    pub(crate) fn is_in_shadow(&self, id: &str) -> bool {
        self.in_shadow.contains(id)
    }

    /// The ids of all actions.
    pub(crate) fn actions(&self) -> impl Iterator<Item = &str> {
        self.actions.keys().map(String::as_str)
    }

    /// Tools, prompts and resources that some policy names.
    pub(crate) fn named(&self) -> impl Iterator<Item = &EntityUid> {
        self.named.iter()
    }

    /// Whether some policy of the action called `id` looks at which tool, prompt or resource it is
    /// asked about, other than by naming it.
    pub(crate) fn looks_at_names(&self, id: &str) -> bool {
        let Some(action) = self.actions.get(id) else { return true };
        let has = |kind: &EntityTypeName| action.resources.contains(kind);
        self.looking_at_names.iter().any(|candidate| {
            let of_action = match candidate.policy.action_constraint() {
                ActionConstraint::Any => true,
                ActionConstraint::Eq(uid) => action.memberships.contains(&uid),
                ActionConstraint::In(uids) => {
                    uids.iter().any(|uid| action.memberships.contains(uid))
                }
            };
            let of_resource = match candidate.policy.resource_constraint() {
                ResourceConstraint::Is(kind) | ResourceConstraint::IsIn(kind, _) => has(&kind),
                _ => true,
            };
            of_action && of_resource
        })
    }

    /// The policies that can matter when a caller who is and lies in `principal` asks for `action` on
    /// `resource`, which lies in `ancestors`. Each once, in the order of the configuration.
    pub(crate) fn candidates(
        &self,
        principal: &[EntityUid],
        action: &Action,
        resource: &EntityUid,
        ancestors: &[EntityUid],
    ) -> Vec<Rc<Candidate>> {
        let within = || std::iter::once(resource).chain(ancestors);
        let mut found: Vec<Rc<Candidate>> = self
            .policies
            .each(action.memberships.iter())
            .flat_map(|policies| policies.each(within()))
            .flat_map(|policies| policies.each(principal.iter()))
            .flatten()
            .cloned()
            .collect();
        // A policy may name several of the groups that an action lies in.
        found.sort_unstable_by_key(|candidate| candidate.place);
        found.dedup_by_key(|candidate| candidate.place);
        found
    }
}

/// `uid` and what it lies in.
fn memberships(entities: &Entities, uid: &EntityUid) -> Vec<EntityUid> {
    let ancestors = entities.ancestors(uid).into_iter().flatten();
    std::iter::once(uid).chain(ancestors).cloned().collect()
}
