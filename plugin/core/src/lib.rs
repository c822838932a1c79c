//! The gateway as a state machine: events in, effects out.
//!
//! [`Gateway::compile`] turns a configuration into a gateway; an [`Exchange`] takes what happens to
//! one request as [`Event`]s and says what to do as [`Effect`]s. Nothing here reads a clock, a
//! socket, a file or a variable, so that the same code runs in a proxy, in tests and in the command
//! line tool. Not here: bytes on the wire (`toolgate-protocol`), Cedar (`toolgate-policy`).
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod audit;
mod batch;
mod calls;
mod compile;
pub mod config;
mod cors;
mod counting;
mod counts;
mod credentials;
mod decide;
mod denial;
mod disclosure;
mod endpoint;
mod event;
mod exchange;
mod facts;
mod federation;
mod gateway;
mod hosts;
mod identity;
mod metrics;
mod mirrors;
mod policies;
mod policy_bundle;
mod request;
mod response;
mod secret;
mod session;
mod shadow;
mod shape;
mod upstream;

pub use audit::{AuditFields, AuditRecord, CredentialUse, Outcome};
pub use calls::{ExchangeId, FinishedCall};
pub use compile::Environment;
pub use counting::{SharedAccess, SharedSlot, SharedValue};
pub use denial::{LocalReply, Reason};
pub use event::{
    CallId, CallOutcome, Effect, Event, FieldValue, Flow, HeadEdit, HostFacts, HostQuestions,
    HttpCall, ServerReply, Timestamp, UpstreamRequest,
};
pub use exchange::Exchange;
pub use gateway::Gateway;
pub use metrics::{Measurement, MetricKind, Series, configuration_series};
pub use policy_bundle::Note;
pub use secret::{Secret, SecretSource};
pub use toolgate_policy::Problem;
pub use toolgate_protocol::headers::Headers;
