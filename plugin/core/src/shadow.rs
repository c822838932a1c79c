//! Policies in shadow: what they would have decided goes into the record, and nowhere else.
//!
//! Not here: what they say (`toolgate_policy`), the decision (`decide`).

use toolgate_policy::{Outcome, Refusal, ShadowDecision, Target};

use crate::audit::AuditRecord;
use crate::decide::request_facts;
use crate::denial::Reason;
use crate::event::Timestamp;
use crate::gateway::Gateway;
use crate::request::Asked;

/// The decision that would have been, as the record says it.
const WOULD_ALLOW: &str = "would_allow";
const WOULD_DENY: &str = "would_deny";

/// How many elements of lists policies in shadow would have treated otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ShadowLists {
    listed: usize,
    hidden: usize,
}

impl Gateway {
    /// Whether policy lets the caller of `asked` see this in a list. What would be otherwise with the
    /// policies in shadow is counted.
    pub(crate) fn listed(
        &self,
        asked: &Asked,
        target: &Target<'_>,
        now: Timestamp,
        counts: &mut ShadowLists,
    ) -> bool {
        let is_visible = self.visible(asked, target, now);
        let (Ok(caller), Ok(policies)) = (asked.head.caller(), asked.head.policies()) else {
            return false;
        };
        let facts = request_facts(asked, caller, now);
        match policies.engine.visible_in_shadow(&caller.principal, target, &facts) {
            Some(true) if !is_visible => counts.listed += 1,
            Some(false) if is_visible => counts.hidden += 1,
            _ => {}
        }
        is_visible
    }
}

impl AuditRecord {
    /// Notes what would have been decided. Of several decisions on one request the first that would
    /// have denied stays.
    pub(crate) fn note_shadow(&mut self, shadow: ShadowDecision) {
        if self.shadow_decision == Some(WOULD_DENY) {
            return;
        }
        let ShadowDecision { decision, policies } = shadow;
        self.shadow_decision = Some(if decision.is_permit() { WOULD_ALLOW } else { WOULD_DENY });
        self.shadow_policies = policies;
        self.shadow_reason = match decision.outcome {
            Outcome::Permit => None,
            Outcome::Approval(_) => Some(Reason::ApprovalRequired),
            Outcome::Deny(Refusal::Invisible) => Some(Reason::NotVisible),
            Outcome::Deny(Refusal::Arguments { .. }) => Some(Reason::Arguments),
            Outcome::Deny(Refusal::InvalidArguments(_)) => Some(Reason::ArgumentTypes),
            Outcome::Deny(Refusal::Error(_)) => Some(Reason::PolicyError),
        }
        .map(Reason::as_str);
        let messages: Vec<&str> =
            decision.errors.iter().map(|error| error.message.as_str()).collect();
        self.shadow_detail = (!messages.is_empty()).then(|| messages.join("; "));
    }

    /// Adds what was counted of lists.
    pub(crate) fn count_shadow(&mut self, lists: ShadowLists) {
        let add = |count: &mut Option<usize>, more: usize| {
            if more > 0 {
                *count = Some(count.unwrap_or_default() + more);
            }
        };
        add(&mut self.shadow_listed, lists.listed);
        add(&mut self.shadow_hidden, lists.hidden);
    }
}
