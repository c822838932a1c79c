//! The wire of an MCP gateway: JSON, JSON-RPC, MCP in both eras and Server-Sent Events.
//!
//! Everything here is a pure function of bytes: no clock, no input or output, no policy. What a
//! parser of this crate accepts, it can serialise again with the same meaning for any other parser.
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod canonical;
pub mod headers;
pub mod json;
pub mod jsonrpc;
pub mod list;
pub mod mcp;
pub mod mirror;
pub mod sse;
pub mod update;
