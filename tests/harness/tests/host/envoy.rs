//! What Envoy does with an exchange.

use toolgate_harness::host::{
    CallOutcome, Client, ClientCertificate, ClientTls, Headers, HttpRequest, Profile, Settings,
    Step,
};

use super::wat::{envoy, envoy_without, host_with, said};
use super::{call, done, head, respond, upstream, yes};

/// Pauses until the end of the body, says each callback's whole body.
const HOLDS_BODY: &str = r#"
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
      (i32.eqz (local.get 2)))
    (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
      (call $say_body (i32.const 0))
      (i32.eqz (local.get 2)))"#;

#[test]
fn held_body_accumulates_and_ends_in_an_empty_chunk() {
    let mut host = envoy(HOLDS_BODY);
    let id = host.begin(HttpRequest::new("POST", "/").chunks(["ab", "cd"]));
    let request = upstream(&mut host, id);
    assert_eq!(request.body, b"abcd");
    assert_eq!(said(&host), ["ab", "abcd", "abcd"]);
    let callbacks = &host.observed(id).expect("open").callbacks;
    assert_eq!(
        callbacks,
        &[
            "on_request_headers(4, 0)",
            "on_request_body(2, 0)",
            "on_request_body(4, 0)",
            "on_request_body(4, 1)"
        ]
    );
}

#[test]
fn body_that_is_not_held_comes_chunk_by_chunk() {
    let mut host = envoy(
        r#"(func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
             (call $say_body (i32.const 0)) (i32.const 0))"#,
    );
    let id = host.begin(HttpRequest::new("POST", "/").chunks(["ab", "cd"]));
    assert_eq!(upstream(&mut host, id).body, b"abcd");
    assert_eq!(said(&host), ["ab", "cd", ""]);
}

#[test]
fn request_without_body_ends_in_its_headers() {
    let mut host = envoy(HOLDS_BODY);
    let id = host.begin(HttpRequest::new("GET", "/"));
    upstream(&mut host, id);
    assert_eq!(host.observed(id).expect("open").callbacks, ["on_request_headers(4, 1)"]);
}

#[test]
fn http2_may_end_with_the_last_chunk() {
    let mut host = envoy_without("end_in_empty_chunk", HOLDS_BODY);
    let id = host.begin(HttpRequest::new("POST", "/").chunks(["ab", "cd"]));
    upstream(&mut host, id);
    assert_eq!(said(&host), ["ab", "abcd"]);
}

#[test]
fn trailers_come_instead_of_the_end() {
    let mut host = envoy(HOLDS_BODY);
    let id = host.begin(HttpRequest::new("POST", "/").chunks(["ab"]).trailers([("x-t", "1")]));
    let request = upstream(&mut host, id);
    assert_eq!((request.body.as_slice(), request.trailers.is_some()), (b"ab".as_slice(), true));
    let callbacks = &host.observed(id).expect("open").callbacks;
    assert_eq!(callbacks[1..], ["on_request_body(2, 0)", "on_request_trailers(1)"]);
}

#[test]
fn without_stop_iteration_a_pause_holds_the_body_back() {
    let pauses = r#"
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
          (call $call_out @get_auth) (i32.const 1))
        (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) (i32.const 1))
        (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32)
          (drop (call $effective (i32.const 2))) (drop (call $continue (i32.const 0))))"#;
    let mut host = envoy(pauses);
    let id = host.begin(HttpRequest::new("POST", "/").chunks(["ab", "cd"]));
    call(&mut host, id);
    assert_eq!(host.step(id), Step::Held { calls: 1 });
    assert_eq!(host.observed(id).expect("open").callbacks.len(), 4, "the body came");

    let mut host = envoy_without("allow_on_headers_stop_iteration", pauses);
    let id = host.begin(HttpRequest::new("POST", "/").chunks(["ab", "cd"]));
    let pending = call(&mut host, id);
    assert_eq!(host.step(id), Step::Held { calls: 1 });
    assert_eq!(host.observed(id).expect("open").callbacks.len(), 1, "the body did not come");
    host.answer_call(pending.token, yes());
    host.step(id);
    let callbacks = &host.observed(id).expect("open").callbacks;
    assert_eq!(
        callbacks.last().map(String::as_str),
        Some("on_request_body(4, 1)"),
        "in one piece, after resuming"
    );
}

#[test]
fn body_over_the_limit_is_413_and_passes_the_response_callbacks() {
    let body = HOLDS_BODY.to_owned()
        + r#"(func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
               (drop (call $add (i32.const 2) @"x-seen" @"1")) (i32.const 0))"#;
    let mut settings = Settings::new(Profile::Envoy);
    settings.buffer_limit = 3;
    let mut host = host_with(settings.clone(), &body);
    let id = host.begin(HttpRequest::new("POST", "/").chunks(["ab", "cd"]));
    let seen = done(&mut host, id);
    assert_eq!((seen.status, seen.headers.text("x-seen")), (Some(413), Some("1")));
    assert!(seen.upstream.is_none());

    settings.envoy.buffer_limit_enforced = false;
    let mut host = host_with(settings, &body);
    let id = host.begin(HttpRequest::new("POST", "/").chunks(["ab", "cd"]));
    upstream(&mut host, id);
}

/// Holds the body, asks "auth" at its end, sets the route and resumes.
const ASKS: &str = r#"
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 1))
    (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
      (if (local.get 2) (then (call $call_out @get_auth)))
      (i32.const 1))
    (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32)
      (call $say_number (call $get_value (i32.const 6) @":status" (i32.const 0) (i32.const 4)))
      (call $say_number (call $get_buffer (i32.const 4) (i32.const 0) (i32.const -1) (i32.const 0) (i32.const 4)))
      (call $say_number (call $effective (i32.const 2)))
      (drop (call $replace (i32.const 0) @"X-Route" @"tools"))
      (drop (call $set_buffer (i32.const 0) (i32.const 0) (i32.const -1) @"rewritten"))
      (drop (call $continue (i32.const 0)))
      (call $say_number (call $get_value (i32.const 0) @"x-route" (i32.const 0) (i32.const 4))))"#;

#[test]
fn route_header_and_body_can_be_set_when_the_call_is_answered() {
    let mut host = envoy(ASKS);
    let id = host.begin(HttpRequest::new("POST", "/").chunks(["ab"]));
    let pending = call(&mut host, id);
    assert_eq!((pending.cluster.as_str(), pending.exchange), ("auth", Some(id)));
    assert_eq!(pending.headers.text(":path"), Some("/check"));
    assert_eq!(pending.timeout, Some(std::time::Duration::from_secs(1)));
    assert_eq!(host.step(id), Step::Held { calls: 1 });
    assert!(host.observed(id).expect("open").upstream.is_none(), "nothing was forwarded yet");
    host.answer_call(pending.token, yes());
    let request = upstream(&mut host, id);
    assert_eq!(
        (request.headers.text("x-route"), request.body.as_slice()),
        (Some("tools"), b"rewritten".as_slice())
    );
    assert_eq!(
        said(&host),
        ["0", "0", "0", "0", "2"],
        "request headers are gone after continue_stream"
    );
}

#[test]
fn failed_call_has_no_headers_and_no_body() {
    let mut host = envoy(ASKS);
    let id = host.begin(HttpRequest::new("POST", "/").chunks(["ab"]));
    let pending = call(&mut host, id);
    host.answer_call(pending.token, CallOutcome::Failed);
    assert_eq!(said(&host)[..3], ["0", "2", "1"], "BadArgument for the map, NotFound for the body");
    let callbacks = &host.observed(id).expect("open").callbacks;
    assert_eq!(callbacks.last().map(String::as_str), Some("on_http_call_response(4, 0, 0, 0)"));
}

#[test]
fn call_without_connection_or_time_is_answered_by_the_router() {
    for (outcome, status) in [
        (CallOutcome::Unreachable, "503"),
        (CallOutcome::Unresolved, "503"),
        (CallOutcome::TimedOut, "504"),
    ] {
        let mut host = envoy(
            r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                 (call $call_out @get_auth) (i32.const 1))
               (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32)
                 (drop (call $get_value (i32.const 6) @":status" (i32.const 0) (i32.const 4)))
                 (call $say_result))"#,
        );
        let id = host.begin(HttpRequest::new("GET", "/"));
        let pending = call(&mut host, id);
        host.answer_call(pending.token, outcome);
        assert_eq!(said(&host), ["0", status]);
    }
}

#[test]
fn bad_calls_are_bad_arguments() {
    let calls = r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (call $call_out @get_auth) (call $call_out @no_path) (i32.const 0))"#;
    let mut settings = Settings::new(Profile::Envoy);
    settings.clusters = Some(["other".to_owned()].into());
    let mut host = host_with(settings, calls);
    let id = host.begin(HttpRequest::new("GET", "/"));
    upstream(&mut host, id);
    assert_eq!(said(&host), ["2", "2"]);

    let mut host = envoy(calls);
    let id = host.begin(HttpRequest::new("GET", "/"));
    call(&mut host, id);
    assert_eq!(said(&host), ["0", "2"]);

    let mut host = envoy_without("bad_call_is_bad_argument", calls);
    let id = host.begin(HttpRequest::new("GET", "/"));
    call(&mut host, id);
    assert_eq!(said(&host), ["0", "0"]);
}

#[test]
fn call_outlives_its_stream() {
    let mut host = envoy(ASKS);
    let id = host.begin(HttpRequest::new("POST", "/").chunks(["ab"]));
    let pending = call(&mut host, id);
    host.client_aborts(id);
    assert!(host.answer_call(pending.token, yes()), "the root context is told");
    assert_eq!(said(&host)[..4], ["0", "0", "0", "2"], "but the stream's context is no more");
    assert!(host.finish(id).aborted);
}

const LOOKS_LATER: &str = r#"
    (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
      (call $say_number (call $get_value (i32.const 0) @":path" (i32.const 0) (i32.const 4)))
      (call $say_number (call $get_pairs (i32.const 0) (i32.const 0) (i32.const 4)))
      (call $say_number (i32.load (i32.const 4)))
      (i32.const 0))
    (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32)
      (call $say_number (call $get_value (i32.const 2) @":status" (i32.const 0) (i32.const 4)))
      (call $say_number (call $replace (i32.const 2) @"x" @"y"))
      (i32.const 0))
    (func (export "proxy_on_log") (param i32)
      (call $say_number (call $get_value (i32.const 0) @":path" (i32.const 0) (i32.const 4)))
      (call $say_result))"#;

#[test]
fn headers_are_gone_once_their_callback_continued() {
    let mut host = envoy(LOOKS_LATER);
    let id = host.begin(HttpRequest::new("GET", "/p"));
    upstream(&mut host, id);
    host.upstream_response_head(id, head(200, &[]), false);
    host.upstream_response_body(id, b"", true);
    assert_eq!(
        said(&host),
        ["2", "0", "0", "2", "2", "0", "/p"],
        "BadArgument; no pairs; the log sees them again"
    );

    let mut host = envoy_without("headers_gone_after_continue", LOOKS_LATER);
    let id = host.begin(HttpRequest::new("GET", "/p"));
    upstream(&mut host, id);
    host.upstream_response_head(id, head(200, &[]), true);
    assert_eq!(said(&host)[0], "0");
}

#[test]
fn headers_stay_while_the_request_was_held_in_its_headers() {
    let body = r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 1))
      (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) (i32.eqz (local.get 2)))"#
        .to_owned()
        + LOOKS_LATER;
    let mut host = envoy(&body);
    let id = host.begin(HttpRequest::new("POST", "/p").chunks(["ab"]));
    upstream(&mut host, id);
    host.upstream_response_head(id, head(200, &[]), true);
    assert_eq!(said(&host)[0], "0", "the body callback's Continue does not forget the headers");
}

const DENIES: &str = r#"
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
      (call $deny (i32.const 403)) (i32.const 0))
    (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
      (drop (call $replace (i32.const 2) @":status" @"404")) (i32.const 0))"#;

#[test]
fn local_reply_passes_the_filters_own_response_callbacks() {
    let mut host = envoy(DENIES);
    let id = host.begin(HttpRequest::new("POST", "/").chunks(["ab"]));
    let seen = done(&mut host, id);
    assert_eq!((seen.status, seen.text().as_str()), (Some(404), "denied"));
    assert_eq!(seen.headers.text("content-type"), Some("text/plain"));
    assert_eq!(seen.headers.text("x-reason"), Some("test"));
    let reply = seen.local_reply.expect("a local reply");
    assert_eq!(
        (reply.status, reply.details.as_str(), reply.by_filter),
        (403, "denied_by_test", true)
    );
    assert!(seen.upstream.is_none() && seen.complete);
    assert_eq!(seen.callbacks[1..3], ["on_response_headers(4, 0)", "on_response_body(6, 1)"]);

    let mut host = envoy_without("local_reply_passes_filter", DENIES);
    let id = host.begin(HttpRequest::new("GET", "/"));
    assert_eq!(done(&mut host, id).status, Some(403));
}

#[test]
fn local_reply_in_the_response_headers_goes_straight_to_the_client() {
    let mut host = envoy(
        r#"(func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
             (call $deny (i32.const 502)) (i32.const 1))"#,
    );
    let id = host.begin(HttpRequest::new("GET", "/"));
    upstream(&mut host, id);
    host.upstream_response_head(id, head(200, &[("x-upstream", "1")]), false);
    let seen = done(&mut host, id);
    assert_eq!((seen.status, seen.text().as_str()), (Some(502), "denied"));
    assert_eq!(seen.headers.text("x-upstream"), None);
    assert_eq!(seen.callbacks.iter().filter(|name| name.starts_with("on_response")).count(), 1);
}

#[test]
fn local_reply_after_the_head_resets_the_stream() {
    let mut host = envoy(
        r#"(func (export "proxy_on_response_body") (param i32 i32 i32) (result i32)
             (call $deny (i32.const 502)) (i32.const 1))"#,
    );
    let id = host.begin(HttpRequest::new("GET", "/"));
    upstream(&mut host, id);
    respond(&mut host, id, &["one"]);
    let seen = done(&mut host, id);
    assert_eq!((seen.status, seen.reset, seen.complete), (Some(200), true, false));
}

#[test]
fn broken_upstream_is_a_503_that_passes_the_filter() {
    let mut host = envoy(
        DENIES
            .split_once("(func (export \"proxy_on_response")
            .map(|(_, rest)| rest)
            .map_or_else(String::new, |rest| format!("(func (export \"proxy_on_response{rest}"))
            .as_str(),
    );
    let id = host.begin(HttpRequest::new("GET", "/"));
    upstream(&mut host, id);
    host.upstream_reset(id);
    let seen = done(&mut host, id);
    assert_eq!(seen.status, Some(404), "the filter changed it");
    assert!(seen.local_reply.is_some_and(|reply| reply.status == 503 && !reply.by_filter));
    assert!(
        String::from_utf8_lossy(seen.chunks[0].bytes.as_slice())
            .starts_with("upstream connect error")
    );
}

#[test]
fn upstream_breaking_after_the_head_resets_the_client() {
    let mut host = envoy("");
    let id = host.begin(HttpRequest::new("GET", "/"));
    upstream(&mut host, id);
    host.upstream_response_head(id, head(200, &[]), false);
    host.upstream_reset(id);
    assert!(done(&mut host, id).reset);
}

#[test]
fn chunks_reach_the_client_as_they_come() {
    let mut host = envoy(
        r#"(func (export "proxy_on_response_body") (param i32 i32 i32) (result i32)
             ;; the first chunk is kept back, the second carries both
             (if (i32.eq (local.get 1) (i32.const 3)) (then
               (drop (call $set_buffer (i32.const 1) (i32.const 0) (i32.const -1) @""))
               (return (i32.const 0))))
             (if (i32.eq (local.get 1) (i32.const 4)) (then
               (drop (call $set_buffer (i32.const 1) (i32.const 0) (i32.const 0) @"one"))))
             (i32.const 0))"#,
    );
    let id = host.begin(HttpRequest::new("GET", "/"));
    upstream(&mut host, id);
    host.upstream_response_head(id, head(200, &[]), false);
    host.upstream_response_body(id, b"one", false);
    assert!(host.observed(id).expect("open").chunks.is_empty());
    host.upstream_response_body(id, b"four", false);
    let then = host.moment();
    assert_eq!(host.observed(id).expect("open").text(), "onefour");
    assert_eq!(host.step(id), Step::AwaitUpstream);
    host.upstream_response_body(id, b"fives", true);
    let seen = done(&mut host, id);
    assert_eq!(seen.chunks.len(), 2);
    assert_eq!(seen.chunks[0].moment, then);
    assert!(seen.chunks[1].moment > then);
}

#[test]
fn paused_response_is_held_whole_with_its_headers() {
    let mut host = envoy(
        r#"(func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) (i32.const 1))
           (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32)
             (call $say_body (i32.const 1))
             (if (local.get 2) (then
               (drop (call $remove (i32.const 2) @"content-length"))
               (drop (call $set_buffer (i32.const 1) (i32.const 0) (i32.const -1) @"all"))))
             (i32.eqz (local.get 2)))"#,
    );
    let id = host.begin(HttpRequest::new("GET", "/"));
    upstream(&mut host, id);
    host.upstream_response_head(id, head(200, &[("content-length", "6")]), false);
    host.upstream_response_body(id, b"one", false);
    assert_eq!(host.observed(id).expect("open").status, None);
    host.upstream_response_body(id, b"two", false);
    host.upstream_response_body(id, b"", true);
    let seen = done(&mut host, id);
    assert_eq!((seen.status, seen.text().as_str(), seen.chunks.len()), (Some(200), "all", 1));
    assert_eq!(said(&host), ["one", "onetwo", "onetwo"]);
}

#[test]
fn held_response_over_the_limit_is_a_500() {
    let mut settings = Settings::new(Profile::Envoy);
    settings.buffer_limit = 4;
    let mut host = host_with(
        settings,
        r#"(func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) (i32.const 1))
           (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32) (i32.const 1))"#,
    );
    let id = host.begin(HttpRequest::new("GET", "/"));
    upstream(&mut host, id);
    respond(&mut host, id, &["one", "two"]);
    assert_eq!(done(&mut host, id).status, Some(500));
}

#[test]
fn client_waits_for_what_content_length_promised() {
    let shortens = |removes: &str| {
        format!(
            r#"(func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) {removes} (i32.const 0))
               (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32)
                 (drop (call $set_buffer (i32.const 1) (i32.const 0) (i32.const -1) @"x")) (i32.const 0))"#
        )
    };
    for (removes, hangs) in
        [("", true), (r#"(drop (call $remove (i32.const 2) @"content-length"))"#, false)]
    {
        let mut host = envoy(&shortens(removes));
        let id = host.begin(HttpRequest::new("GET", "/"));
        upstream(&mut host, id);
        host.upstream_response_head(id, head(200, &[("content-length", "6")]), false);
        host.upstream_response_body(id, b"sixsix", true);
        let seen = done(&mut host, id);
        assert_eq!((seen.hangs, seen.complete), (hangs, !hangs));
    }
}

#[test]
fn log_comes_before_done_and_delete() {
    let mut host = envoy("");
    let id = host.begin(HttpRequest::new("GET", "/"));
    upstream(&mut host, id);
    respond(&mut host, id, &[]);
    assert_eq!(
        done(&mut host, id).callbacks.join(" ").split_once("on_log"),
        Some((
            "on_request_headers(4, 1) on_response_headers(3, 0) on_response_body(0, 1) ",
            "() on_done() on_delete()"
        ))
    );
}

const TRAPS_ON_PATH_X: &str = r#"
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
      (drop (call $get_value (i32.const 0) @":path" (i32.const 0) (i32.const 4)))
      (if (i32.eq (i32.load (i32.const 4)) (i32.const 2)) (then (unreachable)))
      (i32.const 0))
    (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
      (drop (call $add (i32.const 2) @"x-seen" @"1")) (i32.const 0))"#;

#[test]
fn trap_closes_every_stream_of_the_vm() {
    let mut host = envoy(TRAPS_ON_PATH_X);
    let waiting = host.begin(HttpRequest::new("GET", "/"));
    upstream(&mut host, waiting);
    let trapping = host.begin(HttpRequest::new("GET", "/x"));
    let seen = done(&mut host, trapping);
    assert_eq!((seen.status, seen.trapped, seen.headers.text("x-seen")), (Some(503), true, None));
    assert!(host.failed());
    let after = host.begin(HttpRequest::new("GET", "/"));
    assert_eq!(done(&mut host, after).status, Some(503));
    host.upstream_response_head(waiting, head(200, &[]), true);
    let seen = done(&mut host, waiting);
    assert_eq!((seen.status, seen.trapped), (Some(503), false));

    let mut host = envoy_without("fail_closed", TRAPS_ON_PATH_X);
    let trapping = host.begin(HttpRequest::new("GET", "/x"));
    done(&mut host, trapping);
    let after = host.begin(HttpRequest::new("GET", "/"));
    upstream(&mut host, after);
}

#[test]
fn trap_in_a_call_response_forwards_nothing() {
    let mut host = envoy(
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
             (call $call_out @get_auth) (i32.const 1))
           (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32) (unreachable))"#,
    );
    let id = host.begin(HttpRequest::new("GET", "/"));
    let pending = call(&mut host, id);
    host.answer_call(pending.token, yes());
    assert_eq!(host.step(id), Step::Held { calls: 0 });
    let seen = host.finish(id);
    assert!(seen.trapped && seen.upstream.is_none() && seen.status.is_none());
}

#[test]
fn properties_of_the_filter_are_filter_state() {
    let mut host = envoy(
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
             (call $say_number (call $set_property @"toolgate.tool" @"echo"))
             (call $say_number (call $set_property @"toolgate\0tool" @"lost"))
             (call $say_number (call $get_property @"toolgate.tool" (i32.const 0) (i32.const 4)))
             (call $say_result)
             (call $say_number (call $get_property @"nothing\0here" (i32.const 0) (i32.const 4)))
             (i32.const 0))"#,
    );
    let id = host.begin(HttpRequest::new("GET", "/"));
    upstream(&mut host, id);
    assert_eq!(said(&host), ["0", "0", "0", "echo", "1"]);
    let seen = host.finish(id);
    assert_eq!(
        seen.properties.get("wasm.toolgate.tool").map(Vec::as_slice),
        Some(b"echo".as_slice())
    );
    assert!(
        seen.properties.contains_key("wasm.toolgate\0tool"),
        "several segments do not become a dotted name"
    );
}

#[test]
fn numbers_in_properties_are_raw() {
    let body = r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
             (call $say_number (call $get_property @"source\0port" (i32.const 0) (i32.const 4)))
             (call $say_number (i32.load (i32.const 4)))
             (call $say_number (i32.load (i32.load (i32.const 0))))
             (drop (call $get_property @"connection\0mtls" (i32.const 0) (i32.const 4)))
             (call $say_number (i32.load (i32.const 4)))
             (call $say_number (i32.load8_u (i32.load (i32.const 0))))
             (drop (call $get_property @"source\0address" (i32.const 0) (i32.const 4)))
             (call $say_result)
             (i32.const 0))"#;
    let mut host = envoy(body);
    let mut request = HttpRequest::new("GET", "/");
    let certificate =
        ClientCertificate { uri_san: "spiffe://example/agent".to_owned(), ..Default::default() };
    let tls =
        ClientTls { server_name: "gateway.example".to_owned(), certificate: Some(certificate) };
    request.client = Client { tls: Some(tls), ..Client::default() };
    let id = host.begin(request);
    upstream(&mut host, id);
    assert_eq!(said(&host), ["0", "8", "40000", "1", "1", "192.0.2.10:40000"]);

    let mut host = envoy_without("properties_are_raw", body);
    let id = host.begin(HttpRequest::new("GET", "/"));
    upstream(&mut host, id);
    assert_eq!(said(&host)[1], "5", "the text 40000");
}

#[test]
fn set_buffer_replaces_the_start_prepends_appends_or_refuses() {
    let body = r#"
        (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
          (if (local.get 2) (then (return (i32.const 0))))
          (call $say_number (call $set_buffer (i32.const 0) (i32.const 0) (i32.const 2) @"XY"))
          (call $say_number (call $set_buffer (i32.const 0) (i32.const 0) (i32.const 0) @"<"))
          (call $say_number (call $set_buffer (i32.const 0) (i32.const 99) (i32.const 0) @">"))
          (call $say_number (call $set_buffer (i32.const 0) (i32.const 2) (i32.const 1) @"?"))
          (call $say_body (i32.const 0))
          (i32.store (i32.const 4) (i32.const 0))
          (drop (call $get_buffer (i32.const 0) (i32.const 2) (i32.const 2) (i32.const 0) (i32.const 4)))
          (call $say_result)
          (i32.const 0))"#;
    let mut host = envoy(body);
    let id = host.begin(HttpRequest::new("POST", "/").chunks(["abcd"]));
    upstream(&mut host, id);
    assert_eq!(
        said(&host),
        ["0", "0", "0", "2", "<XYcd>", "Yc"],
        "as Envoy 1.40 answered this filter"
    );
}

#[test]
fn pairs_keep_order_repeats_and_empty_values() {
    let mut host = envoy(
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
             (drop (call $set_pairs (i32.const 0) @twice))
             (drop (call $get_pairs (i32.const 0) (i32.const 0) (i32.const 4)))
             (drop (call $set_property @"pairs" (i32.load (i32.const 0)) (i32.load (i32.const 4))))
             (drop (call $add (i32.const 0) @"X-B" @"3"))
             (i32.const 0))"#,
    );
    let id = host.begin(HttpRequest::new("GET", "/"));
    let request = upstream(&mut host, id);
    assert_eq!(
        request.headers,
        Headers::from([("x-a", "1"), ("x-a", "2"), ("x-empty", ""), ("x-b", "3")])
    );
    let seen = host.finish(id);
    assert_eq!(
        seen.properties.get("wasm.pairs").map(Vec::as_slice),
        Some(b"\x03\0\0\0\x03\0\0\0\x01\0\0\0\x03\0\0\0\x01\0\0\0\x07\0\0\0\0\0\0\0x-a\x001\0x-a\x002\0x-empty\0\0".as_slice())
    );
}

#[test]
fn closed_stream_is_reset() {
    let mut host = envoy(
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
             (call $say_number (call $close (i32.const 0))) (i32.const 1))"#,
    );
    let id = host.begin(HttpRequest::new("GET", "/"));
    let seen = done(&mut host, id);
    assert_eq!((seen.reset, seen.status), (true, None));
}

#[test]
fn hold_that_nothing_can_end_shows_as_held_without_calls() {
    let mut host = envoy(
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 1))"#,
    );
    let id = host.begin(HttpRequest::new("GET", "/"));
    assert_eq!(host.step(id), Step::Held { calls: 0 });
    let seen = host.finish(id);
    assert!(seen.aborted && seen.upstream.is_none());
}
