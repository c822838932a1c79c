//! The test host itself, held to what the real proxies were seen to do.
//!
//! The filters are text: each exists to show one rule of a proxy, and its test fails when the rule is gone.

#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod envoy;
mod kong;
mod kong_response;
mod loading;
mod wat;

use toolgate_harness::host::{
    CallOutcome, ExchangeId, Headers, Host, Observed, PendingCall, Step, UpstreamRequest,
};

/// Steps to a call.
fn call(host: &mut Host, id: ExchangeId) -> PendingCall {
    match host.step(id) {
        Step::Call(call) => call,
        other => panic!("expected a call, got {other:?}; log {:?}", host.logs()),
    }
}

/// Steps to the upstream.
fn upstream(host: &mut Host, id: ExchangeId) -> UpstreamRequest {
    match host.step(id) {
        Step::Upstream(request) => request,
        other => panic!("expected the upstream, got {other:?}; log {:?}", host.logs()),
    }
}

/// Steps to the end.
fn done(host: &mut Host, id: ExchangeId) -> Observed {
    match host.step(id) {
        Step::Done => host.finish(id),
        other => panic!("expected the end, got {other:?}; log {:?}", host.logs()),
    }
}

/// A response head.
fn head(status: u16, lines: &[(&str, &str)]) -> Headers {
    let mut headers = Headers::from([(":status", status.to_string())]);
    for (name, value) in lines {
        headers.add(*name, *value);
    }
    headers
}

/// Answers 200 with a chunked body to an exchange whose request is upstream.
fn respond(host: &mut Host, id: ExchangeId, chunks: &[&str]) {
    host.upstream_response_head(id, head(200, &[("content-type", "text/event-stream")]), false);
    for chunk in chunks {
        host.upstream_response_body(id, chunk.as_bytes(), false);
    }
    host.upstream_response_body(id, b"", true);
}

/// A good answer to a call.
fn yes() -> CallOutcome {
    CallOutcome::json(200, r#"{"ok":true}"#)
}
