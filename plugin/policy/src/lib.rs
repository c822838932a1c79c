//! Cedar as the policy of an MCP gateway: who may reach which server, tool, prompt or resource, with
//! which arguments, and why.
//!
//! [`PolicyEngine::compile`] turns the configuration into an engine or into the list of everything
//! that is wrong with it; [`PolicyEngine::decide`] answers one request and
//! [`PolicyEngine::visible`] whether something is listed at all. The model policies are written
//! against is [`BASE_SCHEMA`].
//!
//! What holds whatever the policies say: nothing is permitted unless a policy permits it, a forbid
//! wins over every permit, and a policy that cannot be evaluated denies. Not here: tokens (a
//! [`Caller`] is believed), the wire, files, clocks: the time is an argument.
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod annotations;
mod arguments;
mod call_kind;
mod catalog;
mod closure;
mod config;
mod counters;
mod decision;
mod engine;
mod index;
mod listing;
mod looks;
mod names;
mod outline;
mod policies;
mod possible;
mod principal;
mod recent;
mod redaction;
mod remembered;
mod request;
mod schema;
mod shadow;
mod source;
mod standing;
mod standings;
mod values;

pub use config::{
    CountedCalls, CountedPer, CounterConfig, MOST_UNCHECKED, PolicyConfig, PolicyMode, PolicyText,
    Problem, Validation,
};
pub use counters::Counter;
pub use decision::{
    ApprovalNeeded, Approvers, Decision, Outcome, PolicyError, Refusal, ShadowDecision,
};
pub use engine::PolicyEngine;
pub use outline::{Effect, PolicyOutline};
pub use principal::{Caller, CallerKind, MAX_MEMBERSHIPS, Principal, PrincipalError};
pub use request::{Count, RequestFacts, ServerAction, Target};

/// The Cedar schema every policy is validated against, before the configuration's own is added.
pub const BASE_SCHEMA: &str = include_str!("toolgate.cedarschema");
