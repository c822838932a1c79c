//! What policies say of one caller and one target, as far as it does not depend on the request.
//!
//! Cedar evaluates each policy by itself. So the policies of a decision fall into three groups, by
//! what their conditions look at: those that look at nothing of the context are evaluated here once;
//! those that look at facts of the request are evaluated again when such a fact is another than last
//! time; those that look at arguments are evaluated for every call. Together that is what Cedar says
//! of all of them at once. Not here: what a refusal discloses (`engine`).

use std::cell::RefCell;
use std::rc::Rc;

use cedar_policy::EntityUid;
#[cfg(debug_assertions)]
use cedar_policy::Schema;
use cedar_policy_core::ast::{self, Context, EntityUIDEntry, Literal, Value, ValueKind};
use cedar_policy_core::entities::Entities;
use cedar_policy_core::evaluator::Evaluator;
use cedar_policy_core::extensions::Extensions;

use crate::catalog::Located;
use crate::closure::together;
use crate::index::{Action, Candidate, Index};
use crate::listing::{Listing, Lists, Question};
use crate::looks::Looks;
use crate::principal::Known;
use crate::remembered::Remembered;
use crate::request::{self, Count, RequestFacts};

/// A caller before a target.
#[derive(Debug)]
pub(crate) struct Standing {
    pub(crate) principal: Rc<Known>,
    pub(crate) action: Rc<Action>,
    resource: EntityUid,
    request: ast::Request,
    entities: Entities,
    /// What the policies say that look at nothing of the context.
    fixed: Rc<Evaluation>,
    /// Policies that look at facts and not at arguments, and at which facts they look together.
    by_facts: Vec<Rc<Candidate>>,
    facts: Looks,
    /// Policies that look at arguments, and at which facts beside.
    by_arguments: Vec<Rc<Candidate>>,
    facts_beside: Looks,
    /// What `by_facts` and `fixed` said last.
    settled: RefCell<Remembered<Rc<Evaluation>>>,
    /// What of `by_arguments` follows without the arguments, last time.
    listed: RefCell<Remembered<Rc<Listing>>>,
}

/// What policies said.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evaluation {
    pub(crate) permits: Vec<Rc<Candidate>>,
    pub(crate) forbids: Vec<Rc<Candidate>>,
    pub(crate) errors: Vec<(Rc<Candidate>, String)>,
}

impl Evaluation {
    fn add(&mut self, candidate: &Rc<Candidate>, result: Result<bool, String>) {
        match result {
            Ok(false) => {}
            Ok(true) if candidate.is_forbid() => self.forbids.push(Rc::clone(candidate)),
            Ok(true) => self.permits.push(Rc::clone(candidate)),
            Err(message) => self.errors.push((Rc::clone(candidate), message)),
        }
    }

    pub(crate) fn extend(&mut self, other: &Self) {
        self.permits.extend_from_slice(&other.permits);
        self.forbids.extend_from_slice(&other.forbids);
        self.errors.extend_from_slice(&other.errors);
    }
}

impl Standing {
    /// What the policies of `index` say to `principal` about doing `action` on what is `located`.
    ///
    /// # Errors
    /// Why Cedar does not take the entities.
    pub(crate) fn new(
        principal: Rc<Known>,
        action: Rc<Action>,
        located: Located,
        index: &Index,
    ) -> Result<Self, String> {
        let Located { uid: resource, entities, ancestors } = located;
        let entities =
            together(principal.entities.iter().chain(&*action.entities).chain(&*entities))?;
        let entry = |uid: &EntityUid| EntityUIDEntry::known(uid.clone().into(), None);
        let mut standing = Self {
            request: ast::Request::new_unchecked(
                entry(&principal.uid),
                entry(&action.uid),
                entry(&resource),
                None,
            ),
            principal,
            action,
            resource,
            entities,
            fixed: Rc::default(),
            by_facts: Vec::new(),
            facts: Looks::NOTHING,
            by_arguments: Vec::new(),
            facts_beside: Looks::NOTHING,
            settled: RefCell::default(),
            listed: RefCell::default(),
        };
        standing.sort(&index.candidates(
            &standing.principal.memberships,
            &standing.action,
            &standing.resource,
            &ancestors,
        ));
        Ok(standing)
    }

    /// Sorts the policies out whose scope does not match, and the others by what they look at.
    fn sort(&mut self, candidates: &[Rc<Candidate>]) {
        // Without a declared type there are no arguments in any context, and to look at them is to
        // look at nothing.
        let varying = match self.action.arguments {
            Some(_) => Looks::FACTS.and(Looks::ARGUMENTS),
            None => Looks::FACTS,
        };
        let mut fixed = Evaluation::default();
        let (mut by_facts, mut facts) = (Vec::new(), Looks::NOTHING);
        let (mut by_arguments, mut facts_beside) = (Vec::new(), Looks::NOTHING);
        let evaluator = self.evaluator(self.context(Value::empty_record(None)));
        for candidate in candidates {
            match matches(&evaluator, candidate) {
                Ok(false) => continue,
                Ok(true) => {}
                Err(message) => {
                    fixed.add(candidate, Err(message));
                    continue;
                }
            }
            let looks = candidate.looks.among(varying);
            if looks.at(Looks::ARGUMENTS) {
                facts_beside = facts_beside.and(looks.among(Looks::FACTS));
                by_arguments.push(Rc::clone(candidate));
            } else if looks.at(Looks::FACTS) {
                facts = facts.and(looks);
                by_facts.push(Rc::clone(candidate));
            } else {
                fixed.add(candidate, holds(&evaluator, candidate));
            }
        }
        self.fixed = Rc::new(fixed);
        (self.by_facts, self.facts) = (by_facts, facts);
        (self.by_arguments, self.facts_beside) = (by_arguments, facts_beside);
    }

    /// What the policies look at that can matter here.
    pub(crate) fn looks(&self) -> Looks {
        self.facts.and(self.facts_beside)
    }

    /// How many bytes it takes, about and at most, with everything it refers to.
    pub(crate) fn weight(&self) -> usize {
        let candidates = self.by_facts.len() + self.by_arguments.len() + self.fixed.permits.len();
        let texts = 4 * self.resource.id().unescaped().len() + 2 * Remembered::<()>::MOST;
        2048 + self.principal.weight + 128 * self.entities.len() + 256 * candidates + texts
    }

    /// What policies say that do not look at arguments.
    ///
    /// # Errors
    /// Why a fact they look at has no form in Cedar.
    pub(crate) fn settled(&self, facts: &RequestFacts<'_>) -> Result<Rc<Evaluation>, String> {
        if self.by_facts.is_empty() {
            return Ok(Rc::clone(&self.fixed));
        }
        let mut remembered = self.settled.borrow_mut();
        if let Some(evaluation) = remembered.under(self.facts, facts) {
            return Ok(Rc::clone(evaluation));
        }
        let evaluator = self.evaluator(self.context(facts.to_record(self.facts)?));
        let mut evaluation = (*self.fixed).clone();
        for candidate in &self.by_facts {
            evaluation.add(candidate, holds(&evaluator, candidate));
        }
        let evaluation = Rc::new(evaluation);
        // Messages of errors are of any length.
        if evaluation.errors.is_empty() {
            remembered.remember(self.facts, facts, Rc::clone(&evaluation));
        }
        Ok(evaluation)
    }

    /// Whether a policy looks at arguments.
    pub(crate) fn depends_on_arguments(&self) -> bool {
        !self.by_arguments.is_empty()
    }

    /// What policies say of a call with these `arguments`, those that do not look at them left out.
    ///
    /// # Errors
    /// Why a fact they look at has no form in Cedar.
    pub(crate) fn called(
        &self,
        facts: &RequestFacts<'_>,
        arguments: Value,
    ) -> Result<Evaluation, String> {
        let record = facts.to_record(self.facts_beside)?;
        let evaluator = self.evaluator(request::context(record, Some(arguments)));
        let mut evaluation = Evaluation::default();
        for candidate in &self.by_arguments {
            evaluation.add(candidate, holds(&evaluator, candidate));
        }
        Ok(evaluation)
    }

    /// What follows, whatever the arguments are, from the policies that look at them.
    ///
    /// # Errors
    /// Why partial evaluation is not possible.
    pub(crate) fn listed(
        &self,
        facts: &RequestFacts<'_>,
        lists: &Lists,
    ) -> Result<Rc<Listing>, String> {
        let mut remembered = self.listed.borrow_mut();
        if let Some(listing) = remembered.under(self.facts_beside, facts) {
            return Ok(Rc::clone(listing));
        }
        let mut own = None;
        let mut listing = Listing::default();
        for candidate in &self.by_arguments {
            let listed = self.action.listed(candidate, |is_same_for_all| {
                if is_same_for_all
                    && let Ok(listed) =
                        self.question(None, lists).and_then(|question| question.put(candidate))
                {
                    return Ok(listed);
                }
                let question = match &mut own {
                    Some(question) => question,
                    none => none.insert(self.question(Some(facts), lists)?),
                };
                // What was rewritten is of the same type as what was validated. Should Cedar see
                // that otherwise, then the original policy answers.
                question.put(candidate).or_else(|_| question.put_as_written(candidate))
            })?;
            listing.add(candidate, listed);
        }
        let listing = Rc::new(listing);
        remembered.remember(self.facts_beside, facts, Rc::clone(&listing));
        Ok(listing)
    }

    fn question<'a>(
        &self,
        facts: Option<&RequestFacts<'_>>,
        lists: &'a Lists,
    ) -> Result<Question<'a>, String> {
        let known = match facts {
            Some(facts) => Some((self.every_fact(facts)?, &self.entities)),
            None => None,
        };
        let (action, resource) = (&self.action.uid, &self.resource);
        Question::new(&self.principal.uid, action, resource, known, lists)
    }

    /// All facts, as the schema has them: a counter that nothing here looks at may be unknown, and is
    /// as good as 0.
    ///
    /// # Errors
    /// Why a fact has no form in Cedar, or which counter is looked at and not known.
    fn every_fact(&self, facts: &RequestFacts<'_>) -> Result<Value, String> {
        let known = |count: &Count| match count.calls {
            None if self.facts_beside.at(Looks::CALLS) => {
                Err(format!("the counter `{}` could not be read", count.counter))
            }
            calls => Ok(Count { calls: Some(calls.unwrap_or(0)), ..count.clone() }),
        };
        let calls = facts.calls.iter().map(known).collect::<Result<Vec<Count>, String>>()?;
        RequestFacts { calls: &calls, ..*facts }.to_record(Looks::FACTS)
    }

    /// Whether Cedar agrees that a request is one, by its schema. What went into it was converted
    /// along the same schema, so this is for builds that test; it costs as much as the decision.
    #[cfg(debug_assertions)]
    pub(crate) fn conforms(
        &self,
        facts: &RequestFacts<'_>,
        arguments: Option<Value>,
        schema: &Schema,
    ) -> Result<(), String> {
        let known = |count: &Count| Count { calls: count.calls.or(Some(0)), ..count.clone() };
        let calls: Vec<Count> = facts.calls.iter().map(known).collect();
        let whole = RequestFacts { calls: &calls, ..*facts }.to_record(Looks::FACTS)?;
        let context = request::context(whole, arguments);
        cedar_policy::Request::new(
            self.principal.uid.clone(),
            self.action.uid.clone(),
            self.resource.clone(),
            context.into(),
            Some(schema),
        )
        .map(|_| ())
        .map_err(|error| error.to_string())
    }

    /// A context without the arguments, which nothing looks at but for their being there.
    fn context(&self, request: Value) -> Context {
        let arguments = self.action.arguments.as_ref().map(|_| Value::empty_record(None));
        request::context(request, arguments)
    }

    fn evaluator(&self, context: Context) -> Evaluator<'_> {
        let request = ast::Request::new_unchecked(
            self.request.principal().clone(),
            self.request.action().clone(),
            self.request.resource().clone(),
            Some(context),
        );
        Evaluator::new(request, &self.entities, Extensions::all_available())
    }
}

/// Whether the scope of a policy matches.
fn matches(evaluator: &Evaluator<'_>, candidate: &Candidate) -> Result<bool, String> {
    let policy: &ast::Policy = candidate.policy.as_ref();
    let scope = [
        policy.principal_constraint().as_expr(),
        policy.action_constraint().as_expr(),
        policy.resource_constraint().as_expr(),
    ];
    for part in &scope {
        if !truth(evaluator, part, policy)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the condition of a policy holds.
fn holds(evaluator: &Evaluator<'_>, candidate: &Candidate) -> Result<bool, String> {
    let policy: &ast::Policy = candidate.policy.as_ref();
    match policy.non_scope_constraints() {
        None => Ok(true),
        Some(condition) => truth(evaluator, condition, policy),
    }
}

fn truth(
    evaluator: &Evaluator<'_>,
    expression: &ast::Expr,
    policy: &ast::Policy,
) -> Result<bool, String> {
    match evaluator.interpret(expression, policy.env()) {
        Ok(Value { value: ValueKind::Lit(Literal::Bool(truth)), .. }) => Ok(truth),
        Ok(_) => Err("the condition is neither true nor false".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
