//! What would be decided if the policies in shadow were in force.
//!
//! They are asked together with those that are, as one set with memory of its own: what they say, and
//! whether they can be evaluated at all, never reaches a decision or a list. Without any of them nothing
//! here costs anything.

use crate::config::PolicyMode;
use crate::decision::{Decision, Refusal, ShadowDecision};
use crate::engine::PolicyEngine;
use crate::principal::Principal;
use crate::request::{RequestFacts, Target};
use crate::{Outcome, decision::PolicyError};

impl PolicyEngine {
    /// What the policies in shadow would have made of a request on which [`Self::decide`] said
    /// `decided`; None where they make no difference to the outcome and to what determined it.
    ///
    /// With [`PolicyMode::Shadow`] all policies are in shadow, and what they decide is always told.
    #[must_use]
    pub fn shadow(
        &self,
        principal: &Principal,
        target: &Target<'_>,
        facts: &RequestFacts<'_>,
        decided: &Decision,
    ) -> Option<ShadowDecision> {
        if self.mode() == PolicyMode::Shadow {
            let (decision, policies) = (decided.clone(), determining(decided));
            return Some(ShadowDecision { decision, policies });
        }
        let rules = self.with_shadow.as_ref()?;
        let decision = self.decide_by(rules, principal, target, facts);
        if decision == *decided {
            return None;
        }
        let mut policies = determining(&decision);
        policies.retain(|id| rules.index.is_in_shadow(id));
        Some(ShadowDecision { decision, policies })
    }

    /// Whether `target` would exist for `principal`, see [`Self::visible`]; None where nothing is in
    /// shadow.
    #[must_use]
    pub fn visible_in_shadow(
        &self,
        principal: &Principal,
        target: &Target<'_>,
        facts: &RequestFacts<'_>,
    ) -> Option<bool> {
        if self.mode() == PolicyMode::Shadow {
            return Some(self.visible(principal, target, facts));
        }
        let rules = self.with_shadow.as_ref()?;
        Some(self.visible_by(rules, principal, target, facts))
    }
}

/// The policies that determined a decision or kept one from being found, each once, sorted.
fn determining(decision: &Decision) -> Vec<std::rc::Rc<str>> {
    let mut policies = decision.policies.clone();
    if let Outcome::Deny(Refusal::Error(erring)) = &decision.outcome {
        policies.extend_from_slice(erring);
    }
    policies.extend(decision.errors.iter().filter_map(|PolicyError { policy, .. }| policy.clone()));
    policies.sort_unstable();
    policies.dedup();
    policies
}
