//! What Kong does with a response: each rule on, and off.

use toolgate_harness::host::{Host, HttpRequest, LogLevel, Observed, Step};

use super::kong::{callbacks, in_headers, rule};
use super::wat::{kong, said};
use super::{done, head, respond, upstream};

/// Plays a response with these lines and chunks.
fn plays(lines: &[(&str, &str)], chunks: &[&str], end: bool) -> impl Fn(&mut Host) -> Observed {
    move |host| {
        let id = host.begin(HttpRequest::new("GET", "/"));
        upstream(host, id);
        host.upstream_response_head(id, head(200, lines), false);
        for (index, chunk) in chunks.iter().enumerate() {
            host.upstream_response_body(id, chunk.as_bytes(), end && index + 1 == chunks.len());
        }
        if !end {
            host.upstream_response_body(id, b"", true);
        }
        host.finish(id)
    }
}

fn body_callbacks(seen: &Observed) -> Vec<String> {
    seen.callbacks.iter().filter(|name| name.starts_with("on_response_body")).cloned().collect()
}

fn words(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn chunked_response_ends_in_an_empty_eos() {
    let seen = plays(&[], &["one", "four"], false)(&mut kong(""));
    assert_eq!(
        body_callbacks(&seen),
        ["on_response_body(3, 0)", "on_response_body(4, 0)", "on_response_body(0, 1)"]
    );
    assert_eq!((seen.text().as_str(), seen.complete), ("onefour", true));
}

#[test]
fn split_response_of_known_length_never_ends() {
    let play = |host: &mut Host| {
        body_callbacks(&plays(&[("content-length", "7")], &["one", "four"], true)(host))
    };
    rule(
        "eos_only_when_chunk_is_content_length",
        "",
        play,
        words(&["on_response_body(3, 0)", "on_response_body(4, 0)"]),
        words(&["on_response_body(3, 0)", "on_response_body(4, 1)"]),
    );
    let seen = plays(&[("content-length", "3")], &["one"], true)(&mut kong(""));
    assert_eq!(body_callbacks(&seen), ["on_response_body(3, 1)"]);
}

#[test]
fn response_without_body_is_an_empty_eos_except_for_head() {
    let play = |method: &'static str| {
        move |host: &mut Host| {
            let id = host.begin(HttpRequest::new(method, "/"));
            upstream(host, id);
            host.upstream_response_head(id, head(204, &[]), true);
            body_callbacks(&host.finish(id))
        }
    };
    assert_eq!(play("GET")(&mut kong("")), ["on_response_body(0, 1)"]);
    rule(
        "no_body_callback_for_head",
        "",
        play("HEAD"),
        words(&[]),
        words(&["on_response_body(0, 1)"]),
    );
}

#[test]
fn pause_in_the_response_headers_is_ignored() {
    let body = r#"(func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) (i32.const 1))"#;
    let play = |host: &mut Host| {
        let id = host.begin(HttpRequest::new("GET", "/"));
        upstream(host, id);
        respond(host, id, &["one"]);
        let held = matches!(host.step(id), Step::Held { .. });
        (held, host.finish(id).status, host.logs().iter().any(|line| line.level == LogLevel::Warn))
    };
    rule(
        "response_headers_pause_ignored",
        body,
        play,
        (false, Some(200), true),
        (true, None, false),
    );
}

#[test]
fn paused_response_is_buffered_once() {
    let body = r#"(func (export "proxy_on_response_body") (param i32 i32 i32) (result i32)
        (i32.eqz (local.get 2)))"#;
    let big = "x".repeat(10_000);
    let play = |host: &mut Host| {
        let seen = plays(&[], &[&big, &big, "tail"], false)(host);
        assert_eq!(seen.body().len(), 20_004);
        (body_callbacks(&seen), host.logs().iter().any(|line| line.level == LogLevel::Error))
    };
    rule(
        "response_buffers_once",
        body,
        play,
        (
            words(&[
                "on_response_body(10000, 0)",
                "on_response_body(20000, 0)",
                "on_response_body(4, 0)",
                "on_response_body(0, 1)",
            ]),
            true,
        ),
        (
            words(&[
                "on_response_body(10000, 0)",
                "on_response_body(20000, 0)",
                "on_response_body(20004, 0)",
                "on_response_body(20004, 1)",
            ]),
            false,
        ),
    );
}

#[test]
fn small_paused_response_comes_back_whole() {
    let body = r#"(func (export "proxy_on_response_body") (param i32 i32 i32) (result i32)
        (call $say_body (i32.const 1)) (i32.eqz (local.get 2)))"#;
    let mut host = kong(body);
    let seen = plays(&[], &["one", "two"], false)(&mut host);
    assert_eq!((seen.text().as_str(), seen.chunks.len()), ("onetwo", 1));
    assert_eq!(said(&host), ["one", "onetwo"]);
}

#[test]
fn chunk_can_be_blanked_and_the_rest_emitted_at_the_end() {
    let body = r#"
        (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
          (drop (call $replace (i32.const 2) @":status" @"403")) (i32.const 0))
        (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32)
          (if (local.get 2)
            (then (drop (call $set_buffer (i32.const 1) (i32.const 0) (i32.const -1) @"denied")))
            (else (drop (call $set_buffer (i32.const 1) (i32.const 0) (i32.const -1) @""))))
          (i32.const 0))"#;
    let seen = plays(&[], &["secret", "secret"], false)(&mut kong(body));
    assert_eq!((seen.status, seen.text().as_str(), seen.complete), (Some(403), "denied", true));
}

#[test]
fn local_reply_in_the_request_passes_the_response_callbacks() {
    let body = in_headers("(call $deny (i32.const 403))")
        + r#"(func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
             (drop (call $replace (i32.const 2) @":status" @"404")) (i32.const 0))"#;
    let play = |host: &mut Host| {
        let id = host.begin(HttpRequest::new("GET", "/"));
        let seen = done(host, id);
        assert_eq!((seen.status, seen.headers.text("x-reason")), (Some(404), Some("test")));
        assert!(seen.upstream.is_none() && seen.complete);
        (seen.text(), body_callbacks(&seen))
    };
    rule(
        "local_reply_ends_in_newline",
        &body,
        play,
        ("denied\n".to_owned(), words(&["on_response_body(7, 1)"])),
        ("denied".to_owned(), words(&["on_response_body(6, 1)"])),
    );
}

#[test]
fn second_local_reply_traps() {
    let body = in_headers("(call $deny (i32.const 403)) (call $deny (i32.const 404))");
    let play = |host: &mut Host| {
        let id = host.begin(HttpRequest::new("GET", "/"));
        done(host, id).status
    };
    rule("second_local_reply_traps", &body, play, Some(500), Some(403));
}

#[test]
fn local_reply_in_the_response_headers_hangs_the_client() {
    let body = r#"(func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
        (call $deny (i32.const 502)) (i32.const 0))"#;
    let play = |host: &mut Host| {
        let seen = plays(&[("content-length", "100")], &[&"x".repeat(100)], true)(host);
        (seen.status, seen.text(), seen.hangs, seen.headers.text("x-reason").is_some())
    };
    let denied = "denied\n".to_owned();
    rule(
        "local_reply_in_response_headers_hangs",
        body,
        play,
        (Some(502), denied.clone(), true, false),
        (Some(502), denied, false, true),
    );
}

#[test]
fn local_reply_in_the_response_body_traps() {
    let body = r#"(func (export "proxy_on_response_body") (param i32 i32 i32) (result i32)
        (call $deny (i32.const 502)) (i32.const 0))"#;
    let play = |host: &mut Host| plays(&[("content-length", "3")], &["one"], true)(host).trapped;
    rule("local_reply_in_response_body_traps", body, play, true, false);
}

#[test]
fn response_body_out_of_its_callback_traps() {
    let body = r#"(func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
        (call $say_body (i32.const 1)) (i32.const 0))"#;
    let play = |host: &mut Host| plays(&[], &["one"], false)(host).trapped;
    rule("response_body_out_of_phase_traps", body, play, true, false);
}

#[test]
fn trap_in_the_response_passes_it_unmodified() {
    let body = r#"(func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
        (drop (call $replace (i32.const 2) @":status" @"403")) (unreachable))"#;
    let play = |host: &mut Host| {
        let seen = plays(&[], &["secret"], false)(host);
        (seen.status, seen.text(), seen.reset)
    };
    rule(
        "response_trap_passes",
        body,
        play,
        (Some(200), "secret".to_owned(), false),
        (None, String::new(), true),
    );
}

#[test]
fn trap_in_the_response_body_passes_the_rest() {
    let body = r#"(func (export "proxy_on_response_body") (param i32 i32 i32) (result i32) (unreachable))"#;
    let seen = plays(&[], &["one", "two"], false)(&mut kong(body));
    assert_eq!((seen.text().as_str(), seen.trapped, seen.complete), ("onetwo", true, true));
    assert_eq!(body_callbacks(&seen).len(), 1);
}

#[test]
fn kongs_own_errors_do_not_pass_the_filter() {
    let play = |host: &mut Host| {
        let id = host.begin(HttpRequest::new("GET", "/"));
        upstream(host, id);
        host.upstream_reset(id);
        let seen = done(host, id);
        (seen.status, callbacks(&seen).iter().any(|name| name.starts_with("on_response_headers")))
    };
    rule("own_errors_skip_filter", "", play, (Some(502), false), (Some(502), true));
}

#[test]
fn done_comes_before_log() {
    let play = |host: &mut Host| {
        let seen = plays(&[], &[], false)(host);
        callbacks(&seen).iter().rev().take(3).rev().map(ToString::to_string).collect::<Vec<_>>()
    };
    rule(
        "done_before_log",
        "",
        play,
        words(&["on_done()", "on_log()", "on_delete()"]),
        words(&["on_log()", "on_done()", "on_delete()"]),
    );
}

#[test]
fn long_metric_names_trap() {
    let name = "m".repeat(250);
    let body =
        in_headers(&format!(r#"(drop (call $define (i32.const 0) @"{name}" (i32.const 8)))"#));
    let play = |host: &mut Host| {
        let id = host.begin(HttpRequest::new("GET", "/"));
        host.step(id);
        host.finish(id).trapped
    };
    rule("long_metric_name_traps", &body, play, true, false);
}
