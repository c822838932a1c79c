//! The answer to a request: permitted or refused, by which policies, and what the caller may learn.
//!
//! How a refusal is put on the wire is the gateway's matter; what each kind may disclose is said
//! here.

use std::rc::Rc;

/// The answer to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Permitted or not.
    pub outcome: Outcome,
    /// Ids of the policies that determined it: the satisfied permits when permitted, the satisfied
    /// forbids when a forbid refused it, empty when nothing permitted it or nothing was evaluated.
    /// Sorted. For audit; never for the caller.
    pub policies: Vec<Rc<str>>,
    /// Everything that could not be evaluated. For audit; never for the caller.
    pub errors: Vec<PolicyError>,
}

impl Decision {
    /// Whether the request may go on.
    #[must_use]
    pub fn is_permit(&self) -> bool {
        self.outcome == Outcome::Permit
    }
}

/// Permitted or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// At least one policy permits the request and none forbids it.
    Permit,
    /// None forbids it, and all that permit it ask for an approval: it may go on once it has one.
    Approval(ApprovalNeeded),
    /// The request must not go on.
    Deny(Refusal),
}

/// What a call needs that is only permitted once somebody has approved it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApprovalNeeded {
    /// Who may approve it: one of these is enough. Sorted, without duplicates, not empty.
    pub approvers: Vec<Approvers>,
    /// The `@advice` texts of the permits, for the caller; sorted, without duplicates, possibly empty.
    pub advice: Vec<String>,
}

/// Who may approve a call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Approvers {
    /// Whoever the issuers of approvals vouch for.
    Anyone,
    /// Those of them that are in this group.
    Group(String),
}

/// Why a request was refused, and thereby what its caller may learn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The caller could not be permitted with any arguments: for it the thing does not exist. Answer
    /// exactly as for a name that no server has.
    Invisible,
    /// The caller may use this tool, with other arguments. `advice` holds the `@advice` texts of the
    /// forbids that refused it or, when there was none and only a permit is missing, of the permits
    /// that other arguments could satisfy; sorted, without duplicates, possibly empty. These texts
    /// are written for the caller.
    Arguments {
        /// Texts for the caller.
        advice: Vec<String>,
    },
    /// The caller may use this tool, and its arguments are not of the declared type. The text names
    /// the member and the expected type, never the value; it is meant for the caller.
    InvalidArguments(String),
    /// Something could not be evaluated, listed in [`Decision::errors`]; these are the ids of the
    /// policies, if policies were the cause. Whether the caller may know of the thing is undecided:
    /// answer as for [`Refusal::Invisible`], and audit it as an error.
    Error(Vec<Rc<str>>),
}

/// What policies in shadow would have made of a request that was decided without them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShadowDecision {
    /// The decision with them.
    pub decision: Decision,
    /// Those of the policies in shadow that determined it or could not be evaluated. Sorted.
    pub policies: Vec<Rc<str>>,
}

/// Something that could not be evaluated. Every one denies the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyError {
    /// The policy, unless the request itself could not be put into Cedar.
    pub policy: Option<Rc<str>>,
    /// What went wrong.
    pub message: String,
}
