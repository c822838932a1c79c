//! The policies in force, and whom they know without a token.
//!
//! A set of policies and the principals made for it belong together: a request goes on with the set by
//! which its caller was made a principal, though another comes into force meanwhile. Not here: where
//! another comes from (`policy_bundle`).

use std::collections::BTreeMap;
use std::rc::Rc;

use toolgate_policy::{PolicyConfig, PolicyEngine, PolicyMode, PolicyText, Problem, Validation};

use crate::identity::{ConfiguredCallers, Identity};

/// One set of policies, compiled.
pub(crate) struct Policies {
    pub(crate) engine: PolicyEngine,
    /// Its name and hash.
    pub(crate) set: Rc<str>,
    /// Callers that no token tells of.
    pub(crate) callers: ConfiguredCallers,
}

impl Policies {
    /// Compiles policies for these servers and callers.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub(crate) fn compile(
        config: &PolicyConfig,
        servers: &[String],
        identity: &Identity,
        validation: Validation<'_>,
    ) -> Result<Self, Vec<Problem>> {
        let engine = PolicyEngine::compile_with(config, servers, validation)?;
        let mut problems = Vec::new();
        if let Some(id) = engine.asks_for_approval().filter(|_| identity.approvals().is_none()) {
            problems.push(Problem {
                path: "approvals".into(),
                message: format!("policy `{id}` has `@approval`, and nobody can approve anything"),
                help: Some("say who signs approvals: approvals.issuers".into()),
            });
        }
        let callers = identity.configured_callers(&engine, &mut problems);
        match problems.is_empty() {
            true => Ok(Self { set: engine.version().into(), engine, callers }),
            false => Err(problems),
        }
    }

    /// Whether they decide, or only say what they would decide.
    pub(crate) fn are_enforced(&self) -> bool {
        self.engine.mode() == PolicyMode::Enforce
    }
}

/// How policies are validated that say they were checked, or do not.
pub(crate) fn validation(checked: Option<&str>) -> Validation<'_> {
    checked.map_or(Validation::Bounded, Validation::Checked)
}

/// Policies that permit nothing.
pub(crate) fn none() -> PolicyConfig {
    PolicyConfig {
        name: "none".into(),
        policies: PolicyText::One(String::new()),
        schema: None,
        entities: Vec::new(),
        counters: BTreeMap::new(),
        mode: PolicyMode::Enforce,
    }
}
