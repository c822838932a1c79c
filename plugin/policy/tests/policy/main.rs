//! What the policy engine promises, each promise a test. Grouped by what a caller, an operator and
//! an auditor rely on; helpers are in `support`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod agreement;
mod approval;
mod arguments;
mod call_kinds;
mod checked;
mod clients;
mod compile;
mod counters;
mod decisions;
mod demo;
mod listing;
mod plain;
mod redaction;
mod shadow;
mod support;
