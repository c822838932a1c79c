//! Counters of calls in `target/toolgate.wasm` while another worker writes the same memory: the decision is
//! made again on what is there then, so many times and no more, and what cannot be counted does not go on.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use serde_json::{Value, json};
use toolgate_harness::host::{ExchangeId, Host, HttpRequest, Profile, Settings, Step};
use toolgate_harness::native::BEGIN;
use toolgate_harness::people::Issuer;
use toolgate_harness::scenario::Altered;
use toolgate_harness::{configuration, repository};

/// More than any decision is tried.
const FOR_EVER: u32 = 1_000;

/// The filter with a limit of two calls, one of which was made: Kong has no slot to compare with before.
fn host(profile: Profile) -> Host {
    let mut plugin = configuration::plugin(Some(&json!({"policy": {
        "counters": {"echoes": {"server": "everything", "tools": ["echo"], "window_seconds": 3600}},
        "policies": {"demo.cedar": "@id(\"once\") permit (principal, action, resource)
            when { context.request.calls.echoes < 2 };"},
    }})))
    .unwrap();
    if profile == Profile::Kong {
        configuration::adapt_to_kong(&mut plugin, |_| Some("127.0.0.1:3001".to_owned()));
    }
    let wasm = repository::path("target/toolgate.wasm");
    let mut host =
        Host::load_with(&wasm, Settings::new(profile), plugin.to_string().as_bytes(), &[])
            .unwrap_or_else(|error| panic!("{error}; run scripts/build first"));
    assert!(host.configured(), "{:?}", host.logs());
    host.set_time(BEGIN);
    permitted(&mut host);
    host
}

fn permitted(host: &mut Host) {
    let id = begin(host);
    let step = host.step(id);
    assert!(matches!(step, Step::Upstream(_)), "{step:?} {:?}", host.logs());
}

fn begin(host: &mut Host) -> ExchangeId {
    let token = Issuer::demo().unwrap().token("bob", &Altered::default(), BEGIN).unwrap();
    let echo: Value =
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo"}});
    host.begin(
        HttpRequest::new("POST", "/mcp/everything")
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("authorization", format!("Bearer {token}"))
            .body(echo.to_string()),
    )
}

/// What the client gets without a server being asked.
fn refused(host: &mut Host) -> String {
    let id = begin(host);
    match host.step(id) {
        Step::Done => {}
        other => panic!("expected a refusal, got {other:?}; log {:?}", host.logs()),
    }
    let seen = host.finish(id);
    assert!(!seen.trapped && !seen.hangs, "{:?}", host.logs());
    String::from_utf8(seen.body()).unwrap()
}

#[test]
fn a_call_that_another_worker_was_faster_than_is_counted_on_what_is_there_then() {
    for profile in [Profile::Envoy, Profile::Kong] {
        let mut host = host(profile);
        host.shared_data().outrun(3);
        permitted(&mut host);
        assert_eq!(host.shared_data().outruns(), 0, "it was tried again");
        // It was counted once and for all.
        assert!(refused(&mut host).contains("Unknown tool: echo"));
    }
}

#[test]
fn a_call_that_others_are_always_faster_than_is_refused_after_so_many_times() {
    for profile in [Profile::Envoy, Profile::Kong] {
        let mut host = host(profile);
        host.shared_data().outrun(FOR_EVER);
        let answer = refused(&mut host);
        assert!(answer.contains("not_counted"), "{answer}");
        let tries = FOR_EVER - host.shared_data().outruns();
        assert!((2..=64).contains(&tries), "{tries}");
        // It has used nothing up.
        host.shared_data().outrun(0);
        permitted(&mut host);
    }
}
