//! `target/toolgate.wasm` under the rules of Kong that could let something through: each test plays one
//! situation that the scenarios cannot, since it is about the proxy and not about client and servers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeMap;

use serde_json::{Value, json};
use toolgate_harness::host::{
    CallOutcome, ExchangeId, Headers, Host, HttpRequest, Observed, PendingCall, Profile, Settings,
    Step, UpstreamRequest,
};
use toolgate_harness::native::BEGIN;
use toolgate_harness::people::Issuer;
use toolgate_harness::scenario::Altered;
use toolgate_harness::world::{SECRETS, secret};
use toolgate_harness::{configuration, kong_log, repository};

/// The filter in Kong with the demo's configuration, changed.
fn kong(settings: Settings, patch: Value) -> Host {
    let mut plugin = configuration::plugin(None).unwrap();
    configuration::adapt_to_kong(&mut plugin, |name| {
        let ports = [("everything", 3001), ("billing", 3002), ("vault", 8200)];
        ports.iter().find(|(known, _)| *known == name).map(|(_, port)| format!("127.0.0.1:{port}"))
    });
    configuration::merge(&mut plugin, &patch);
    with_configuration(settings, plugin.to_string().as_bytes())
}

fn with_configuration(settings: Settings, configuration: &[u8]) -> Host {
    let wasm = repository::path("target/toolgate.wasm");
    let mut host = Host::load_with(&wasm, settings, configuration, &[])
        .unwrap_or_else(|error| panic!("{error}; run scripts/build first"));
    assert!(host.configured(), "Kong would serve without the filter: {:?}", host.logs());
    host.set_time(BEGIN);
    host
}

/// As kong.conf sets it.
fn settings() -> Settings {
    let mut settings = Settings::new(Profile::Kong);
    settings.client_body_buffer = 1 << 20;
    settings
}

fn demo() -> Host {
    kong(settings(), json!({}))
}

fn post(person: &str, server: &str, message: &Value) -> HttpRequest {
    let token = Issuer::demo().unwrap().token(person, &Altered::default(), BEGIN).unwrap();
    HttpRequest::new("POST", &format!("/mcp/{server}"))
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .header("authorization", format!("Bearer {token}"))
        .body(message.to_string())
}

fn ask(method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
}

fn echo() -> HttpRequest {
    post("bob", "everything", &ask("tools/call", json!({"name": "echo"})))
}

fn list() -> HttpRequest {
    post("bob", "everything", &ask("tools/list", json!({})))
}

fn refund() -> HttpRequest {
    let params = json!({"name": "refund", "arguments": {"invoice": "I-1", "amount": 1}});
    post("alice", "billing", &ask("tools/call", params))
}

const TOOLS: &str =
    r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"echo"},{"name":"get-env"}]}}"#;

fn upstream(host: &mut Host, id: ExchangeId) -> UpstreamRequest {
    match host.step(id) {
        Step::Upstream(request) => request,
        other => panic!("expected the upstream, got {other:?}; log {:?}", host.logs()),
    }
}

fn call(host: &mut Host, id: ExchangeId) -> PendingCall {
    match host.step(id) {
        Step::Call(call) => call,
        other => panic!("expected a call, got {other:?}; log {:?}", host.logs()),
    }
}

fn done(host: &mut Host, id: ExchangeId) -> Observed {
    match host.step(id) {
        Step::Done => {}
        other => panic!("expected the end, got {other:?}; log {:?}", host.logs()),
    }
    let seen = host.finish(id);
    assert!(!seen.trapped, "{:?}", host.logs());
    seen
}

fn respond(host: &mut Host, id: ExchangeId, lines: &[(&str, &str)], chunks: &[&str]) {
    let mut head = Headers::from([(":status", "200"), ("content-type", "application/json")]);
    for (name, value) in lines {
        head.add(*name, *value);
    }
    let known_length = lines.iter().any(|(name, _)| *name == "content-length");
    host.upstream_response_head(id, head, false);
    for (index, chunk) in chunks.iter().enumerate() {
        host.upstream_response_body(
            id,
            chunk.as_bytes(),
            known_length && index + 1 == chunks.len(),
        );
    }
    if !known_length {
        host.upstream_response_body(id, b"", true);
    }
}

/// The records in Kong's error log.
fn records(host: &Host) -> Vec<BTreeMap<String, String>> {
    kong_log::records(host.logs().iter().map(|line| line.text.as_str()))
}

fn reason(host: &Host) -> String {
    let records = records(host);
    assert_eq!(records.len(), 1, "{records:?}");
    records[0].get("reason").cloned().unwrap_or_default()
}

/// The record that Kong's own plugins see by now.
fn shared(host: &Host, id: ExchangeId) -> Value {
    let properties = &host.observed(id).unwrap().properties;
    serde_json::from_slice(&properties["kong.ctx.shared.toolgate"]).unwrap()
}

// === where a request goes ===

#[test]
fn a_request_goes_to_the_target_with_the_servers_path_host_and_scheme() {
    let server = json!({"cluster": "127.0.0.1:8443", "scheme": "https", "authority": "tools.example", "path": "/v1/mcp"});
    let mut host = kong(settings(), json!({"servers": {"everything": server}}));
    let id = host.begin(echo());
    let request = upstream(&mut host, id);
    assert_eq!(request.address.as_deref(), Some("127.0.0.1:8443"));
    assert_eq!(request.scheme.as_deref(), Some("https"));
    assert_eq!(request.headers.text(":path"), Some("/v1/mcp"));
    assert_eq!(request.headers.text(":authority"), Some("tools.example"));
}

#[test]
fn a_path_means_what_kong_understands_of_it_and_goes_on_as_configured() {
    let mut host = demo();
    let id = host.begin(echo());
    let plain = upstream(&mut host, id).headers.text(":path").map(str::to_owned);
    for path in ["/mcp/%65verything", "//mcp//everything", "/mcp/billing/../everything?x=%2e"] {
        let mut request = echo();
        request.headers.set(":path", path.as_bytes());
        let id = host.begin(request);
        assert_eq!(upstream(&mut host, id).headers.text(":path"), plain.as_deref(), "{path}");
    }
    // What is not a server's when it is understood is not one either way.
    let mut request = echo();
    request.headers.set(":path", b"/mcp/everything%2fbilling");
    let id = host.begin(request);
    assert_eq!(done(&mut host, id).upstream, None);
}

#[test]
fn a_vault_is_called_by_the_scheme_that_is_configured() {
    for (patch, scheme) in [(json!({}), "http"), (json!({"scheme": "https"}), "https")] {
        let mut host = kong(settings(), json!({"vaults": {"main": patch}}));
        let id = host.begin(refund());
        let call = call(&mut host, id);
        assert_eq!(call.cluster, "127.0.0.1:8200");
        assert_eq!(call.headers.text(":scheme"), Some(scheme));
    }
}

#[test]
fn a_server_behind_a_service_of_another_machine_is_sent_nothing() {
    let mut elsewhere = settings();
    elsewhere.service_host = "10.0.0.1".into();
    let mut host = kong(elsewhere, json!({}));
    let id = host.begin(echo());
    let seen = done(&mut host, id);
    assert_eq!((seen.status, seen.upstream), (Some(500), None));
    assert_eq!(reason(&host), "internal");
    assert!(
        host.logs().iter().any(|line| line.text.contains("the Service of this route has the host"))
    );
}

#[test]
fn a_server_that_is_not_named_by_host_and_port_is_sent_nothing_and_nothing_traps() {
    for name in ["everything", "everything:", "everything:99999", ":80"] {
        let mut host = kong(settings(), json!({"servers": {"everything": {"cluster": name}}}));
        let id = host.begin(echo());
        let seen = done(&mut host, id);
        assert_eq!((seen.status, seen.upstream), (Some(500), None), "{name}");
        assert!(host.logs().iter().any(|line| line.text.contains("is not host:port")), "{name}");
    }
}

// === configuration ===

#[test]
fn a_bad_configuration_refuses_every_request() {
    for configuration in ["", "{}", "[]", "{\"servers\": 1}", "not JSON"] {
        let mut host = with_configuration(settings(), configuration.as_bytes());
        for request in [echo(), refund(), HttpRequest::new("GET", "/")] {
            let id = host.begin(request);
            let seen = done(&mut host, id);
            assert_eq!((seen.status, seen.upstream), (Some(503), None), "{configuration}");
        }
    }
}

#[test]
fn an_empty_list_that_lua_made_an_object_is_a_list_again() {
    let patch = json!({
        "origins": {},
        "servers": {"everything": {"forward_headers": {}}},
        "policy": {"entities": [
            {"uid": {"type": "MCP::Group", "id": "engineering"}, "parents": [{"type": "MCP::Group", "id": "staff"}]},
            {"uid": {"type": "MCP::Group", "id": "staff"}, "attrs": {}, "parents": {}},
        ]},
    });
    let mut host = kong(settings(), patch);
    let id = host.begin(echo());
    upstream(&mut host, id);
}

#[test]
fn a_number_that_lua_cannot_keep_is_refused_with_a_message() {
    let patch = json!({"policy": {"entities": [
        {"uid": {"type": "MCP::Group", "id": "staff"}, "attrs": {"limit": 9_007_199_254_740_992_i64}},
    ]}});
    let mut host = kong(settings(), patch);
    assert!(host.logs().iter().any(|line| line.text.contains("cannot hand over exactly")));
    let id = host.begin(echo());
    assert_eq!(done(&mut host, id).status, Some(503));
}

// === request bodies ===

#[test]
fn a_body_that_kong_put_into_a_file_is_refused_with_the_setting_named() {
    let mut host = kong(Settings::new(Profile::Kong), json!({}));
    let params = json!({"name": "echo", "arguments": {"message": "x".repeat(9000)}});
    let id = host.begin(post("bob", "everything", &ask("tools/call", params)));
    let seen = done(&mut host, id);
    assert_eq!((seen.status, seen.upstream.as_ref()), (Some(413), None));
    assert!(seen.text().contains("nginx_http_client_body_buffer_size"), "{}", seen.text());
    let [record] = records(&host).try_into().unwrap();
    assert_eq!(record["reason"], "body_too_large");
    assert!(record["detail"].contains("nginx_http_client_body_buffer_size"));
}

// === responses ===

#[test]
fn a_list_of_known_length_in_pieces_is_filtered_though_its_end_is_never_told() {
    let mut host = demo();
    let id = host.begin(list());
    upstream(&mut host, id);
    let (first, second) = TOOLS.split_at(40);
    let length = TOOLS.len().to_string();
    respond(&mut host, id, &[("content-length", &length)], &[first, second]);
    let seen = host.finish(id);
    assert!(!seen.hangs && seen.complete);
    let answer: Value = serde_json::from_slice(&seen.body()).unwrap();
    assert_eq!(answer["result"]["tools"], json!([{"name": "echo"}]));
}

#[test]
fn an_answer_that_is_replaced_keeps_no_length_that_a_client_would_wait_for() {
    let mut host = demo();
    let id = host.begin(echo());
    upstream(&mut host, id);
    let page = "<html>".repeat(500);
    let head = Headers::from([
        (":status", "200"),
        ("content-type", "text/html"),
        ("content-length", "3000"),
    ]);
    host.upstream_response_head(id, head, false);
    host.upstream_response_body(id, page.as_bytes(), true);
    let seen = host.finish(id);
    assert_eq!((seen.status, seen.hangs), (Some(502), false));
    assert!(seen.text().contains("server_answer") && !seen.text().contains("<html>"));
}

// === calls ===

#[test]
fn a_vault_that_cannot_be_reached_in_any_way_is_an_error_and_no_call() {
    use CallOutcome::{Failed, TimedOut, Unreachable, Unresolved};
    for outcome in [Failed, TimedOut, Unreachable, Unresolved] {
        let mut host = demo();
        let id = host.begin(refund());
        let call = call(&mut host, id);
        host.answer_call(call.token, outcome.clone());
        let seen = done(&mut host, id);
        assert_eq!((seen.status, seen.upstream), (Some(503), None), "{outcome:?}");
        assert_eq!(reason(&host), "credential_unavailable", "{outcome:?}");
    }
}

// === contexts that begin in the middle ===

#[test]
fn a_request_whose_context_was_lost_during_a_call_reaches_no_server() {
    let mut host = demo();
    let id = host.begin(refund());
    let call = call(&mut host, id);
    host.another_filter_traps();
    host.answer_call(call.token, CallOutcome::json(200, r#"{"auth":{"client_token":"t"}}"#));
    let seen = done(&mut host, id);
    assert_eq!((seen.status, seen.upstream), (Some(500), None));
    assert_eq!(reason(&host), "internal");
}

#[test]
fn answers_to_calls_of_a_lost_instance_leave_the_calls_of_the_new_one_alone() {
    let mut host = demo();
    let lost: Vec<_> = (0..3).map(|_| host.begin(refund())).collect();
    let stale: Vec<_> = lost.iter().map(|id| call(&mut host, *id).token).collect();
    host.another_filter_traps();
    let fresh = host.begin(refund());
    let login = call(&mut host, fresh);
    for (id, token) in lost.into_iter().zip(stale) {
        host.answer_call(token, CallOutcome::json(200, r#"{"auth":{"client_token":"t"}}"#));
        assert_eq!(done(&mut host, id).status, Some(500));
    }
    // The call of the request that began since is still waited for.
    host.answer_call(login.token, CallOutcome::Failed);
    let seen = done(&mut host, fresh);
    assert_eq!((seen.status, seen.upstream), (Some(503), None));
}

#[test]
fn an_answer_to_an_unknown_call_changes_nothing_for_a_request_under_way() {
    let mut host = demo();
    let id = host.begin(refund());
    let login = call(&mut host, id);
    assert!(host.answer_unknown_call(id, login.token + 1000));
    host.answer_call(login.token, CallOutcome::Failed);
    assert_eq!(done(&mut host, id).status, Some(503));
}

#[test]
fn a_request_whose_context_was_lost_before_its_body_reaches_no_server() {
    let mut host = demo();
    host.another_filter_traps_before_the_body();
    let id = host.begin(echo());
    let seen = done(&mut host, id);
    assert_eq!((seen.status, seen.upstream), (Some(500), None));
    assert_eq!(reason(&host), "internal");
}

#[test]
fn an_answer_whose_context_was_lost_is_replaced() {
    for lines in [&[][..], &[("content-length", "85"), ("mcp-session-id", "s")]] {
        let mut host = demo();
        let id = host.begin(list());
        upstream(&mut host, id);
        host.another_filter_traps();
        let (first, second) = TOOLS.split_at(40);
        respond(&mut host, id, lines, &[first, second]);
        let seen = host.finish(id);
        assert_eq!((seen.status, seen.hangs), (Some(500), false), "{lines:?}");
        assert!(seen.headers.get("mcp-session-id").is_none());
        let answer: Value = serde_json::from_slice(&seen.body()).unwrap();
        assert_eq!(answer["error"]["data"]["reason"], "internal");
        assert_eq!(reason(&host), "internal");
    }
}

#[test]
fn an_answer_whose_context_was_lost_under_way_becomes_blank() {
    let mut host = demo();
    let id = host.begin(list());
    upstream(&mut host, id);
    let head = Headers::from([(":status", "200"), ("content-type", "application/json")]);
    host.upstream_response_head(id, head, false);
    let (first, second) = TOOLS.split_at(40);
    host.upstream_response_body(id, first.as_bytes(), false);
    host.another_filter_traps();
    host.upstream_response_body(id, second.as_bytes(), false);
    host.upstream_response_body(id, b"", true);
    let seen = host.finish(id);
    assert!(!seen.hangs && !seen.text().contains("tools"), "{}", seen.text());
    assert_eq!(seen.text().trim(), "");
    assert_eq!(reason(&host), "internal");
}

#[test]
fn a_worker_serves_again_after_another_filter_trapped() {
    let mut host = demo();
    host.another_filter_traps();
    let id = host.begin(list());
    upstream(&mut host, id);
    respond(&mut host, id, &[], &[TOOLS]);
    let seen = host.finish(id);
    assert_eq!(seen.status, Some(200));
    assert!(!seen.text().contains("get-env"));
}

// === audit ===

#[test]
fn kongs_plugins_see_the_record_before_the_request_goes_on_and_after_the_answer_began() {
    let mut host = demo();
    let id = host.begin(echo());
    upstream(&mut host, id);
    let early = shared(&host, id);
    assert_eq!((&early["decision"], &early["tool"]), (&json!("allow"), &json!("echo")));
    assert_eq!(early.get("upstream_status"), None);
    host.upstream_response_head(
        id,
        Headers::from([(":status", "200"), ("content-type", "text/html")]),
        false,
    );
    let late = shared(&host, id);
    assert_eq!((&late["decision"], &late["upstream_status"]), (&json!("error"), &json!(200)));
    host.finish(id);
    let [record] = records(&host).try_into().unwrap();
    assert_eq!(early["record_id"], record["record_id"]);
    assert_eq!(late["record_id"], record["record_id"]);
}

#[test]
fn kongs_plugins_see_the_record_of_a_denial() {
    let mut host = demo();
    let id = host.begin(post("bob", "billing", &ask("ping", json!({}))));
    assert_eq!(host.step(id), Step::Done);
    assert_eq!(shared(&host, id)["reason"], "unknown_server");
}

#[test]
fn a_record_longer_than_a_line_of_the_log_is_whole_all_the_same() {
    let text = "\"é\u{1}".repeat(2000);
    let mut host = kong(settings(), json!({"audit": {"arguments": "full"}}));
    let params = json!({"name": "echo", "arguments": {"message": text}});
    let id = host.begin(post("bob", "everything", &ask("tools/call", params)));
    upstream(&mut host, id);
    host.finish(id);
    let longest = host.logs().iter().map(|line| line.text.len()).max().unwrap();
    assert!(longest < 2000, "nginx would cut a line of {longest} bytes");
    let [record] = records(&host).try_into().unwrap();
    assert_eq!(record["arguments"], json!({"message": text}).to_string());
}

#[test]
fn no_record_that_plugins_see_holds_a_secret() {
    let mut host = demo();
    let id = host.begin(refund());
    let login = call(&mut host, id);
    let token = json!({"auth": {"client_token": secret("VAULT_TOKEN"), "lease_duration": 60}});
    host.answer_call(login.token, CallOutcome::json(200, token.to_string()));
    let read = call(&mut host, id);
    let key = json!({"data": {"data": {"key": secret("BILLING_KEY")}, "metadata": {"version": 3}}});
    host.answer_call(read.token, CallOutcome::json(200, key.to_string()));
    let request = upstream(&mut host, id);
    assert_eq!(request.headers.text("x-billing-key"), Some(secret("BILLING_KEY")));
    let record = shared(&host, id).to_string();
    assert!(record.contains("billing-key"), "{record}");
    for (name, value) in SECRETS {
        assert!(!record.contains(value), "{name}");
    }
}
