//! What Kong does with a request: each rule on, and off.

use std::fmt::Debug;

use toolgate_harness::host::{
    CallOutcome, EnvoyRules, Host, HostError, HttpRequest, KongRules, LogLevel, Observed, Profile,
    Settings, Step,
};

use super::wat::{host_with, kong, kong_without, module, said};
use super::{call, done, head, upstream, yes};

/// Plays one exchange with the rule on and with the rule off.
pub(super) fn rule<T: PartialEq + Debug>(
    name: &str,
    body: &str,
    play: impl Fn(&mut Host) -> T,
    on: T,
    off: T,
) {
    assert_ne!(on, off, "the rule makes no difference");
    assert_eq!(play(&mut kong(body)), on, "with {name}");
    assert_eq!(play(&mut kong_without(name, body)), off, "without {name}");
}

/// The body of an `on_request_headers`.
pub(super) fn in_headers(body: &str) -> String {
    format!(
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) {body} (i32.const 0))"#
    )
}

pub(super) fn callbacks(seen: &Observed) -> Vec<&str> {
    seen.callbacks.iter().map(String::as_str).collect()
}

fn words(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// Steps once and says what the filter logged.
fn speaks(host: &mut Host) -> Vec<String> {
    let id = host.begin(HttpRequest::new("GET", "/original").header("x-client", "1"));
    host.step(id);
    said(host)
}

/// Steps once; whether the exchange trapped.
fn traps(host: &mut Host) -> bool {
    let id = host.begin(HttpRequest::new("POST", "/").body("abcd"));
    host.step(id);
    host.finish(id).trapped
}

#[test]
fn every_rule_has_a_test() {
    let tests =
        [include_str!("kong.rs"), include_str!("kong_response.rs"), include_str!("loading.rs")]
            .concat();
    for name in KongRules::NAMES {
        assert!(tests.contains(&format!("\"{name}\"")), "no test switches {name} off");
    }
    let tests = include_str!("envoy.rs");
    for name in EnvoyRules::NAMES {
        assert!(tests.contains(name), "no test switches {name} off");
    }
    assert_eq!(KongRules::all_but("nonsense"), None);
}

// === §3: properties ===

#[test]
fn numbers_are_text() {
    let body = in_headers(
        r#"(drop (call $get_property @"source\0port" (i32.const 0) (i32.const 4)))
           (call $say_number (i32.load (i32.const 4)))"#,
    );
    rule("properties_are_strings", &body, speaks, words(&["5"]), words(&["8"]));
}

#[test]
fn authority_names_the_server() {
    let body = in_headers(
        r#"(drop (call $get_value (i32.const 0) @":authority" (i32.const 0) (i32.const 4))) (call $say_result)
           (drop (call $get_property @"request\0host" (i32.const 0) (i32.const 4))) (call $say_result)
           (drop (call $get_value (i32.const 0) @"Host" (i32.const 0) (i32.const 4))) (call $say_result)"#,
    );
    rule(
        "authority_is_server_name",
        &body,
        speaks,
        words(&["kong:8000", "kong:8000", "gateway.example"]),
        words(&["gateway.example", "gateway.example", "gateway.example"]),
    );
}

#[test]
fn unknown_kong_property_traps() {
    let body = in_headers(r#"(drop (call $set_property @"kong\0nonsense" @"1"))"#);
    rule("unknown_kong_property_traps", &body, traps, true, false);
}

#[test]
fn response_source_traps() {
    let body = in_headers(
        r#"(drop (call $get_property @"kong.response.source" (i32.const 0) (i32.const 4)))"#,
    );
    rule("response_source_traps", &body, traps, true, false);
}

#[test]
fn other_namespaces_cannot_be_set() {
    let body = in_headers(r#"(call $say_number (call $set_property @"toolgate.tool" @"echo"))"#);
    rule("unknown_property_is_not_found", &body, speaks, words(&["1"]), words(&["0"]));
}

#[test]
fn read_only_variable_is_a_failure() {
    let body = in_headers(r#"(call $say_number (call $set_property @"ngx.remote_addr" @"1"))"#);
    rule("read_only_variable_is_internal_failure", &body, speaks, words(&["10"]), words(&["0"]));
}

#[test]
fn upstream_address_has_garbage() {
    let body = r#"(func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
        (drop (call $get_property @"upstream\0address" (i32.const 0) (i32.const 4)))
        (call $say_number (i32.load (i32.const 4))) (i32.const 0))"#;
    let play = |host: &mut Host| {
        let id = host.begin(HttpRequest::new("GET", "/"));
        upstream(host, id);
        host.upstream_response_head(id, head(204, &[]), true);
        said(host)
    };
    rule("upstream_address_is_garbled", body, play, words(&["21"]), words(&["17"]));
}

#[test]
fn root_context_has_no_properties() {
    let body = r#"(func (export "proxy_on_configure") (param i32 i32) (result i32)
        (call $say_number (call $get_property @"request\0path" (i32.const 0) (i32.const 4)))
        (call $say_number (call $set_property @"kong.ctx.shared.a" @"1")) (i32.const 1))"#;
    rule("root_properties_fail", body, |host| said(host), words(&["10", "10"]), words(&["1", "1"]));
}

#[test]
fn plugin_name_while_configuring_kills_the_worker() {
    let body = r#"(func (export "proxy_on_configure") (param i32 i32) (result i32)
        (call $say_number (call $get_property @"plugin_name" (i32.const 0) (i32.const 4))) (i32.const 1))"#;
    let text = module(body);
    let loaded = Host::from_bytes(text.as_bytes(), Settings::new(Profile::Kong), b"", &[]);
    assert_eq!(loaded.err(), Some(HostError::WorkerCrashed));
    assert!(kong_without("plugin_name_in_configure_crashes", body).configured());
}

#[test]
fn host_is_recognised_by_its_version() {
    let body = in_headers(
        r#"(drop (call $get_property @"kong\0version" (i32.const 0) (i32.const 4))) (call $say_result)"#,
    );
    assert_eq!(speaks(&mut kong(&body)), ["3.9.3"]);
}

// === §4: host calls ===

#[test]
fn tick_period_belongs_to_the_root() {
    let body = in_headers("(drop (call $set_tick (i32.const 5)))");
    rule("tick_period_in_root_only", &body, traps, true, false);
}

#[test]
fn tick_period_is_set_once() {
    let body = r#"(func (export "proxy_on_configure") (param i32 i32) (result i32)
        (drop (call $set_tick (i32.const 5))) (drop (call $set_tick (i32.const 0)))
        (drop (call $set_tick (i32.const 5))) (drop (call $set_tick (i32.const 6))) (i32.const 1))"#;
    rule("second_tick_period_traps", body, |host| host.configured(), false, true);
}

#[test]
fn what_is_not_implemented_traps() {
    let body = in_headers("(drop (call $close (i32.const 0)))");
    rule("unimplemented_traps", &body, traps, true, false);
}

#[test]
fn effective_context_stays_where_it_is() {
    // Context 99 does not exist: Envoy would say BadArgument.
    let body = in_headers("(call $say_number (call $effective (i32.const 99)))");
    rule("effective_context_ignored", &body, speaks, words(&["0"]), words(&["2"]));
}

#[test]
fn trailers_never_come() {
    let play = |host: &mut Host| {
        let id = host.begin(HttpRequest::new("POST", "/").body("ab").trailers([("x-t", "1")]));
        upstream(host, id);
        host.finish(id).callbacks.iter().any(|name| name.starts_with("on_request_trailers"))
    };
    rule("trailers_never_come", "", play, false, true);
}

// === §5: the request ===

#[test]
fn headers_never_end_the_request() {
    let play = |host: &mut Host| {
        let id = host.begin(HttpRequest::new("GET", "/"));
        upstream(host, id);
        host.finish(id).callbacks[0].clone()
    };
    rule(
        "eos_never_in_headers",
        "",
        play,
        "on_request_headers(1, 0)".into(),
        "on_request_headers(1, 1)".into(),
    );
}

#[test]
fn body_comes_once_and_whole_or_never() {
    let play = |host: &mut Host| {
        let id = host.begin(HttpRequest::new("POST", "/").chunks(["ab", "cd"]));
        let body = upstream(host, id).body;
        (body, callbacks(&host.finish(id))[1..].join(" "))
    };
    let whole = b"abcd".to_vec();
    rule(
        "body_called_once",
        "",
        play,
        (whole.clone(), "on_request_body(4, 1) on_done() on_log() on_delete()".to_owned()),
        (
            whole,
            "on_request_body(2, 0) on_request_body(4, 0) on_request_body(4, 1) on_done() on_log() on_delete()".to_owned(),
        ),
    );
    let mut host = kong("");
    let id = host.begin(HttpRequest::new("POST", "/"));
    upstream(&mut host, id);
    assert_eq!(host.observed(id).expect("open").callbacks.len(), 1, "no body, no callback");
}

const PAUSES_AND_ASKS: &str = r#"
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
      (call $call_out @get_auth) (i32.const 1))"#;

#[test]
fn pause_in_the_headers_holds_the_body() {
    let play = |host: &mut Host| {
        let id = host.begin(HttpRequest::new("POST", "/").body("ab"));
        let pending = call(host, id);
        assert_eq!(host.step(id), Step::Held { calls: 1 });
        let early = host.observed(id).expect("open").callbacks.len() == 2;
        host.answer_call(pending.token, yes());
        upstream(host, id);
        early
    };
    rule("headers_pause_holds_body", PAUSES_AND_ASKS, play, false, true);
}

/// Says two bytes from offset 1 of the body, then replaces it with six bytes under a size of 4.
const EDITS_BODY: &str = r#"
    (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
      (i32.store (i32.const 4) (i32.const 0))
      (call $say_number (call $get_buffer (i32.const 0) (i32.const 1) (i32.const 2) (i32.const 0) (i32.const 4)))
      (call $say_result)
      (call $say_number (call $set_buffer (i32.const 0) (i32.const 0) (i32.const 4) @"longer"))
      (i32.const 0))"#;

fn edits(host: &mut Host) -> (String, String) {
    let id = host.begin(HttpRequest::new("POST", "/").body("abcd"));
    let request = upstream(host, id);
    assert_eq!(request.headers.content_length(), Some(request.body.len()), "recomputed");
    (said(host)[1].clone(), String::from_utf8_lossy(&request.body).into_owned())
}

#[test]
fn get_buffer_reads_from_the_start() {
    let (on, off) = (("ab", "long"), ("bc", "long"));
    let own = |(said, sent): (&str, &str)| (said.to_owned(), sent.to_owned());
    rule("get_buffer_ignores_offset", EDITS_BODY, edits, own(on), own(off));
}

#[test]
fn set_buffer_cuts_to_the_size() {
    let own = |(said, sent): (&str, &str)| (said.to_owned(), sent.to_owned());
    rule("set_buffer_cuts_to_size", EDITS_BODY, edits, own(("ab", "long")), own(("ab", "longer")));
}

#[test]
fn large_body_is_announced_but_unreadable() {
    let body = r#"(func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
        (call $say_number (local.get 1))
        (call $say_number (call $get_buffer (i32.const 0) (i32.const 0) (i32.const -1) (i32.const 0) (i32.const 4)))
        (i32.const 0))"#;
    let play = |host: &mut Host| {
        let id = host.begin(HttpRequest::new("POST", "/").body(vec![b'x'; 9000]));
        upstream(host, id);
        said(host)
    };
    rule("large_body_is_in_a_file", body, play, words(&["9000", "1"]), words(&["9000", "0"]));
}

#[test]
fn path_cannot_be_rewritten_but_the_variable_can() {
    let path = in_headers(r#"(drop (call $replace (i32.const 0) @":path" @"/other"))"#);
    let play = |host: &mut Host| {
        let id = host.begin(HttpRequest::new("GET", "/original"));
        upstream(host, id).headers.text(":path").map(str::to_owned)
    };
    rule("path_set_has_no_effect", &path, play, Some("/original".into()), Some("/other".into()));
    let variable = in_headers(r#"(drop (call $set_property @"ngx\0upstream_uri" @"/other?a=1"))"#);
    assert_eq!(play(&mut kong(&variable)).as_deref(), Some("/other?a=1"));
}

#[test]
fn path_is_what_nginx_understands_of_it() {
    let body = in_headers(
        r#"(drop (call $get_value (i32.const 0) @":path" (i32.const 0) (i32.const 4))) (call $say_result)"#,
    );
    for (path, understood) in
        [("/a/%62//c/../d?e=%66", "/a/b/d?e=%66"), ("/a/.", "/a/"), ("/%2e%2E/a%2Fb/", "/a/b/")]
    {
        let play = |host: &mut Host| {
            let id = host.begin(HttpRequest::new("GET", path));
            host.step(id);
            said(host)
        };
        rule("path_is_decoded", &body, play, words(&[understood]), words(&[path]));
    }
}

#[test]
fn authority_cannot_be_set() {
    let body = in_headers(
        r#"(call $say_number (call $replace (i32.const 0) @":authority" @"other"))
           (drop (call $get_value (i32.const 0) @":authority" (i32.const 0) (i32.const 4))) (call $say_result)"#,
    );
    rule(
        "authority_is_read_only",
        &body,
        speaks,
        words(&["0", "kong:8000"]),
        words(&["0", "other"]),
    );
}

/// What nginx would connect to, and as whom it would address it.
fn destination(host: &mut Host) -> (Option<String>, Option<String>) {
    let id = host.begin(HttpRequest::new("GET", "/"));
    let request = upstream(host, id);
    (request.address.clone(), request.headers.text(":authority").map(str::to_owned))
}

const SETS_TARGET: &str =
    r#"(drop (call $set_property @"kong\0service\0target" @"10.0.0.1:8080"))"#;

#[test]
fn upstream_host_is_the_services_or_the_variable() {
    let host = in_headers(r#"(drop (call $replace (i32.const 0) @"host" @"other"))"#);
    let (service, other) = (Some("black-hole.invalid".into()), Some("other".into()));
    rule("host_set_has_no_effect", &host, destination, (None, service), (None, other));
    let variable =
        in_headers(r#"(drop (call $set_property @"ngx.upstream_host" @"tools.example"))"#);
    assert_eq!(
        destination(&mut kong(&variable)),
        (None, Some("tools.example".into())),
        "and no target: the black hole"
    );
}

#[test]
fn target_changes_the_port_and_not_the_machine() {
    let play = |host: &mut Host| destination(host).0;
    let (on, off) = (Some("127.0.0.1:8080".into()), Some("10.0.0.1:8080".into()));
    rule("target_keeps_service_address", &in_headers(SETS_TARGET), play, on, off);
}

#[test]
fn target_writes_over_the_host() {
    let variable = r#"(drop (call $set_property @"ngx.upstream_host" @"tools.example"))"#;
    let body = in_headers(&format!("{variable} {SETS_TARGET}"));
    let play = |host: &mut Host| destination(host).1;
    let (on, off) = (Some("10.0.0.1".into()), Some("tools.example".into()));
    rule("target_sets_upstream_host", &body, play, on, off);
}

#[test]
fn target_without_a_port_traps() {
    let body = in_headers(r#"(drop (call $set_property @"kong.service.target" @"everything"))"#);
    rule("malformed_target_traps", &body, traps, true, false);
}

#[test]
fn method_and_other_headers_can_be_set() {
    let body = in_headers(
        r#"(drop (call $replace (i32.const 0) @":method" @"PUT"))
           (drop (call $add (i32.const 0) @"X-Added" @"1")) (drop (call $remove (i32.const 0) @"x-client"))"#,
    );
    let mut host = kong(&body);
    let id = host.begin(HttpRequest::new("GET", "/").header("x-client", "1"));
    let request = upstream(&mut host, id);
    assert_eq!(request.headers.text(":method"), Some("PUT"));
    assert_eq!(
        (request.headers.text("x-added"), request.headers.text("x-client")),
        (Some("1"), None)
    );
}

// === §5: calls ===

#[test]
fn dispatch_without_path_traps() {
    rule(
        "dispatch_needs_method_and_path",
        &in_headers("(call $call_out @no_path)"),
        traps,
        true,
        false,
    );
}

#[test]
fn dispatch_while_configuring_traps() {
    let body = r#"(func (export "proxy_on_configure") (param i32 i32) (result i32)
        (call $call_out @get_auth) (i32.const 1))"#;
    rule("dispatch_out_of_phase_traps", body, |host| host.configured(), false, true);
}

#[test]
fn dispatch_looks_like_nginx_sends_it() {
    let mut host = kong(PAUSES_AND_ASKS);
    let id = host.begin(HttpRequest::new("GET", "/"));
    let pending = call(&mut host, id);
    assert_eq!(pending.headers.text("connection"), Some("close"));
    assert_eq!(pending.headers.text("content-length"), Some("0"));
}

#[test]
fn tokens_start_at_zero() {
    let play = |host: &mut Host| {
        let id = host.begin(HttpRequest::new("GET", "/"));
        call(host, id).token
    };
    rule("tokens_start_at_zero", PAUSES_AND_ASKS, play, 0, 1);
}

#[test]
fn request_waits_for_every_call() {
    let body = r#"
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
          (call $call_out @get_auth) (call $call_out @get_auth) (i32.const 1))
        (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32)
          (drop (call $continue (i32.const 0))))"#;
    let play = |host: &mut Host| {
        let id = host.begin(HttpRequest::new("GET", "/"));
        let (first, second) = (call(host, id), call(host, id));
        host.answer_call(first.token, yes());
        let early = matches!(host.step(id), Step::Upstream(_));
        if !early {
            host.answer_call(second.token, yes());
            upstream(host, id);
        }
        early
    };
    rule("resume_waits_for_all_calls", body, play, false, true);
}

#[test]
fn request_resumes_by_itself_after_the_last_call() {
    let play = |host: &mut Host| {
        let id = host.begin(HttpRequest::new("GET", "/"));
        let pending = call(host, id);
        host.answer_call(pending.token, yes());
        matches!(host.step(id), Step::Upstream(_))
    };
    rule("resumes_by_itself", PAUSES_AND_ASKS, play, true, false);
}

#[test]
fn failed_call_says_how_it_failed_and_nothing_else() {
    let body = PAUSES_AND_ASKS.to_owned()
        + r#"(func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32)
          (call $say_number (local.get 2))
          (call $say_number (call $get_value (i32.const 6) @":status" (i32.const 0) (i32.const 4)))
          (call $say_number (call $get_value (i32.const 6) @":dispatch_status" (i32.const 0) (i32.const 4)))
          (call $say_result))"#;
    let play = |outcome: CallOutcome| {
        move |host: &mut Host| {
            let id = host.begin(HttpRequest::new("GET", "/"));
            let pending = call(host, id);
            host.answer_call(pending.token, outcome.clone());
            said(host)[1..].to_vec()
        }
    };
    let name = "failed_call_has_dispatch_status";
    let off = words(&["0", "1", "1"]);
    let play_timeout = |host: &mut Host| play(CallOutcome::TimedOut)(host)[..3].to_vec();
    rule(name, &body, play_timeout, words(&["0", "1", "0"]), off);
    assert_eq!(play(CallOutcome::TimedOut)(&mut kong(&body))[3], "timeout");
    assert_eq!(play(CallOutcome::Unreachable)(&mut kong(&body))[3], "broken connection");
    let name = "unresolved_name_says_ok";
    let (on, off) = (words(&["0", "1", "0", "ok"]), words(&["0", "1", "0", "resolver failure"]));
    rule(name, &body, play(CallOutcome::Unresolved), on, off);
}

#[test]
fn late_call_of_a_request_that_went_on_kills_the_worker() {
    let body = in_headers("(call $call_out @get_auth)")
        + r#"(func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) (i32.const 0))"#;
    let play = |host: &mut Host| {
        let id = host.begin(HttpRequest::new("GET", "/"));
        let pending = call(host, id);
        upstream(host, id);
        host.upstream_response_head(id, head(204, &[]), true);
        let other = host.begin(HttpRequest::new("GET", "/other"));
        host.step(other);
        host.answer_call(pending.token, yes());
        let filtered =
            host.finish(id).callbacks.iter().any(|name| name.starts_with("on_response_headers"));
        (host.crashes(), filtered, host.finish(other).reset)
    };
    rule("dispatch_then_continue_crashes", &body, play, (1, false, true), (0, true, false));
}

// === §5: traps ===

#[test]
fn request_body_during_a_call_response_traps_and_so_proxies() {
    let body = PAUSES_AND_ASKS.to_owned()
        + r#"(func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32)
               (call $say_body (i32.const 0)))"#;
    let play = |host: &mut Host| {
        let id = host.begin(HttpRequest::new("POST", "/").body("abcd"));
        let pending = call(host, id);
        host.answer_call(pending.token, yes());
        upstream(host, id);
        host.finish(id).trapped
    };
    rule("request_body_out_of_phase_traps", &body, play, true, false);
}

#[test]
fn request_headers_after_the_response_began_trap() {
    let body = r#"(func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
        (drop (call $add (i32.const 0) @"x" @"y")) (i32.const 0))"#;
    let play = |host: &mut Host| {
        let id = host.begin(HttpRequest::new("GET", "/"));
        upstream(host, id);
        host.upstream_response_head(id, head(204, &[]), true);
        host.finish(id).trapped
    };
    rule("headers_out_of_phase_trap", body, play, true, false);
}

#[test]
fn trap_in_the_request_is_a_500_without_the_filter() {
    let body = in_headers("(unreachable)");
    let play = |host: &mut Host| {
        let id = host.begin(HttpRequest::new("GET", "/"));
        let proxied = matches!(host.step(id), Step::Upstream(_));
        let seen = host.finish(id);
        (proxied, seen.status, seen.callbacks.len())
    };
    rule("request_trap_is_500", &body, play, (false, Some(500), 1), (true, None, 1));
}

#[test]
fn trap_in_a_call_response_proxies_the_request() {
    let body = PAUSES_AND_ASKS.to_owned()
        + r#"(func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32) (unreachable))"#;
    let play = |host: &mut Host| {
        let id = host.begin(HttpRequest::new("GET", "/"));
        let pending = call(host, id);
        host.answer_call(pending.token, yes());
        let proxied = matches!(host.step(id), Step::Upstream(_));
        (proxied, host.finish(id).status)
    };
    rule("call_trap_proxies", &body, play, (true, None), (false, Some(500)));
}

#[test]
fn trap_leaves_every_other_exchange_an_empty_context() {
    // Each instance counts the contexts it was told of.
    let body = r#"
        (global $contexts (mut i32) (i32.const 0))
        (func (export "proxy_on_context_create") (param i32 i32)
          (global.set $contexts (i32.add (global.get $contexts) (i32.const 1))))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
          (drop (call $get_value (i32.const 0) @"x-trap" (i32.const 0) (i32.const 4)))
          (if (i32.load (i32.const 4)) (then (unreachable)))
          (i32.const 0))
        (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
          (call $say_number (global.get $contexts)) (i32.const 0))"#;
    let play = |host: &mut Host| {
        let waiting = host.begin(HttpRequest::new("GET", "/"));
        upstream(host, waiting);
        let trapping = host.begin(HttpRequest::new("GET", "/").header("x-trap", "1"));
        done(host, trapping);
        host.upstream_response_head(waiting, head(204, &[]), true);
        let seen = host.finish(waiting);
        assert_eq!(
            callbacks(&seen).iter().filter(|name| name.starts_with("on_request_headers")).count(),
            1
        );
        said(host)
    };
    // A fresh instance knows its root and this context; the old one knew the trapping context too.
    rule("trap_empties_contexts", body, play, words(&["2"]), words(&["3"]));
}

#[test]
fn timer_of_a_dead_instance_fires_and_cannot_dispatch() {
    let body = r#"
        (func (export "proxy_on_configure") (param i32 i32) (result i32)
          (drop (call $set_tick (i32.const 1000))) (i32.const 1))
        (func (export "proxy_on_tick") (param i32)
          (call $say_number (i32.const 7)) (call $call_out @get_auth))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (unreachable))"#;
    let play = |host: &mut Host| {
        let id = host.begin(HttpRequest::new("GET", "/"));
        done(host, id);
        host.tick();
        let traps = host.logs().iter().filter(|line| line.level == LogLevel::Critical).count();
        let ticks = said(host).iter().filter(|text| *text == "7").count();
        (ticks, traps, host.root_call().is_some())
    };
    rule("stale_timer_fires", body, play, (2, 2, true), (1, 1, true));
}

#[test]
fn worker_goes_on_after_a_trap() {
    let mut host = kong(&in_headers(
        r#"(drop (call $get_value (i32.const 0) @"x-trap" (i32.const 0) (i32.const 4)))
           (if (i32.load (i32.const 4)) (then (unreachable)))"#,
    ));
    for trap in ["1", "", "1", ""] {
        let id = host.begin(HttpRequest::new("GET", "/").header("x-trap", trap));
        let proxied = matches!(host.step(id), Step::Upstream(_));
        assert_eq!(proxied, trap.is_empty());
        host.finish(id);
    }
}

#[test]
fn aborted_exchange_is_told_and_its_call_is_dropped() {
    let mut host = host_with(Settings::new(Profile::Kong), PAUSES_AND_ASKS);
    let id = host.begin(HttpRequest::new("GET", "/"));
    let pending = call(&mut host, id);
    host.client_aborts(id);
    assert!(!host.answer_call(pending.token, yes()));
    assert_eq!(callbacks(&host.finish(id))[1..], ["on_done()", "on_log()", "on_delete()"]);
}
