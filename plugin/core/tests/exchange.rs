//! Whole exchanges through the core, also as WebAssembly in V8: signature, policy, vault, record.
//!
//! The scenario suite has the many cases; this is the path they share, in the engine of the proxy.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use toolgate_core::{
    AuditRecord, CallId, CallOutcome, Effect, Event, Exchange, FinishedCall, Flow, Gateway,
    Headers, Outcome, Timestamp,
};
#[cfg(all(target_family = "wasm", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// Alice's, signed with the demo's key, issued at [`ISSUED`] for an hour.
const TOKEN: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImRlbW8tMjAyNiIsInR5cCI6ImF0K2p3dCJ9.eyJpc3MiOiJodHRwczovL2lkcC5kZW1vLnRvb2xnYXRlLmV4YW1wbGUiLCJhdWQiOiJodHRwOi8vMTI3LjAuMC4xOjEwMDAwL21jcCIsInN1YiI6ImFsaWNlIiwiZ3JvdXBzIjpbImZpbmFuY2UiXSwic2NvcGUiOiJtY3A6dG9vbHMiLCJpYXQiOjE3OTU0MzUyMDAsImV4cCI6MTc5NTQzODgwMH0.Xd4McIBEQeWa_ilTZc-2QV1BUuMPIuNSI8ULf5v-TgCSa-DCIkMleJtFy47C_QSZOhHR0T_RZ9N_os5DcHMy1g";
const ISSUED: u64 = 1_795_435_200;

fn gateway() -> Rc<Gateway> {
    gateway_of(&document())
}

fn gateway_of(document: &Value) -> Rc<Gateway> {
    let environment = |name: &str| (name == "ROLE").then(|| "role".to_owned());
    let compiled = Gateway::compile(document.to_string().as_bytes(), &environment);
    Rc::new(compiled.unwrap_or_else(|problems| panic!("{problems:?}")))
}

fn document() -> Value {
    let jwks: Value =
        serde_json::from_str(include_str!("../../../scripts/stack/demo-jwks.json")).unwrap();
    let entities: Value =
        serde_json::from_str(include_str!("../../../policies/demo.entities.json")).unwrap();
    json!({
        "servers": {
            "everything": {"cluster": "everything"},
            "billing": {"cluster": "billing", "credential": {"name": "key", "header": "x-billing-key"}},
        },
        "federation": {},
        "identity": {"issuers": [{
            "issuer": "https://idp.demo.toolgate.example",
            "audiences": ["http://127.0.0.1:10000/mcp"],
            "algorithms": ["ES256"],
            "jwks": jwks,
        }]},
        "vaults": {"main": {"cluster": "vault", "login": {"app_role": {
            "role_id": {"environment": "ROLE"}, "secret_id": {"value": "s3cret"},
        }}}},
        "credentials": {"key": {"kv": {"vault": "main", "path": "mcp/billing", "field": "key"}}},
        "policy": {
            "name": "demo",
            "policies": include_str!("../../../policies/demo.cedar"),
            "schema": include_str!("../../../policies/demo.cedarschema"),
            "entities": entities,
        },
    })
}

#[test]
fn policies_that_were_not_checked_are_not_taken_for_checked() {
    let environment = |name: &str| (name == "ROLE").then(|| "role".to_owned());
    let mut wrong = document();
    wrong["policy_checked"] = "sha256:0000".into();
    for compiled in [
        Gateway::compile(wrong.to_string().as_bytes(), &environment),
        Gateway::check(wrong.to_string().as_bytes(), &environment),
    ] {
        let Err(problems) = compiled else { panic!("it was taken for checked") };
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].path, "policy_checked");
    }
    let mut none = document();
    none["policy"].take();
    let Err(problems) = Gateway::compile(none.to_string().as_bytes(), &environment) else {
        panic!("nothing is no policy")
    };
    assert_eq!(problems[0].path, "policy");
}

/// A refund of this amount, with a token, at this many seconds after it was issued.
fn refund(exchange: &mut Exchange, amount: u32, age: u64) -> (Flow, Vec<Effect>) {
    let now = Timestamp(Duration::from_secs(ISSUED + age));
    let headers = Headers::from_pairs([
        (":method", "POST"),
        (":path", "/mcp/billing"),
        ("content-type", "application/json"),
        ("authorization", &format!("Bearer {TOKEN}")),
    ]);
    let mut out = Vec::new();
    let flow =
        exchange.handle(Event::RequestHead { headers, source: None, end: false }, now, &mut out);
    if !out.is_empty() {
        return (flow, out);
    }
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
        "name": "refund", "arguments": {"invoice": "I-1", "amount": amount}}});
    let body = body.to_string();
    let flow =
        exchange.handle(Event::RequestBody { chunk: body.as_bytes(), end: true }, now, &mut out);
    (flow, out)
}

/// The call among these effects.
fn called(effects: &[Effect]) -> Option<CallId> {
    effects.iter().find_map(|effect| match effect {
        Effect::Call { id, .. } => Some(*id),
        _ => None,
    })
}

/// Ends a call with this answer.
fn finish(gateway: &Gateway, id: CallId, body: &Value) -> FinishedCall {
    finish_at(gateway, id, body, 0)
}

/// The same, so many seconds after the token was issued.
fn finish_at(gateway: &Gateway, id: CallId, body: &Value, age: u64) -> FinishedCall {
    let outcome = CallOutcome::Response {
        status: 200,
        headers: Headers::default(),
        body: body.to_string().into_bytes(),
    };
    gateway.finish_call(id, outcome, Timestamp(Duration::from_secs(ISSUED + age)))
}

fn hand(exchange: &mut Exchange, done: &FinishedCall) -> (Flow, Vec<Effect>) {
    hand_at(exchange, done, 0)
}

fn hand_at(exchange: &mut Exchange, done: &FinishedCall, age: u64) -> (Flow, Vec<Effect>) {
    let mut out = Vec::new();
    let now = Timestamp(Duration::from_secs(ISSUED + age));
    let flow = exchange.handle(Event::CallDone(done), now, &mut out);
    (flow, out)
}

fn answer(
    gateway: &Gateway,
    exchange: &mut Exchange,
    effects: &[Effect],
    body: &Value,
) -> (Flow, Vec<Effect>) {
    let done = finish(gateway, called(effects).unwrap(), body);
    assert_eq!(done.waiting(), [exchange.waits_as().unwrap()]);
    hand(exchange, &done)
}

fn login() -> Value {
    json!({"auth": {"client_token": "t", "lease_duration": 60}})
}

fn secret() -> Value {
    json!({"data": {"data": {"key": "k3y"}, "metadata": {"version": 2}}})
}

fn record(exchange: &mut Exchange) -> AuditRecord {
    let mut out = Vec::new();
    let _nothing_follows =
        exchange.handle(Event::Closed, Timestamp(Duration::from_secs(ISSUED + 9)), &mut out);
    match out.pop() {
        Some(Effect::Audit(record)) => *record,
        _ => panic!("no record"),
    }
}

#[test]
fn a_permitted_call_waits_for_its_credential_and_then_goes_upstream() {
    let gateway = gateway();
    let mut exchange = Exchange::new(Some(Rc::clone(&gateway)));
    let (flow, effects) = refund(&mut exchange, 100, 0);
    assert_eq!(flow, Flow::Hold);
    let (flow, read) = answer(&gateway, &mut exchange, &effects, &login());
    assert_eq!(flow, Flow::Hold);
    let (flow, sent) = answer(&gateway, &mut exchange, &read, &secret());
    assert_eq!(flow, Flow::Forward);
    let Some(Effect::SendUpstream(request)) = sent.last() else { panic!("not sent") };
    assert_eq!(&*request.cluster, "billing");
    let key = request.edit.set.iter().find(|(name, _)| name == "x-billing-key").unwrap();
    assert_eq!(key.1.expose(), "k3y");
    assert!(request.edit.remove.contains(&"authorization".to_owned()));
    let record = record(&mut exchange);
    assert_eq!((record.decision, record.credential_version), (Outcome::Allow, Some(2)));
    assert!(!record.to_json().contains("k3y"));
}

/// Makes a refund at this age, whose calls get these answers, each ten seconds after it was asked for.
/// Returns the paths of the calls.
fn refund_slowly(gateway: &Rc<Gateway>, mut age: u64, answers: &[Value]) -> Vec<String> {
    let mut exchange = Exchange::new(Some(Rc::clone(gateway)));
    let (mut flow, mut effects) = refund(&mut exchange, 1, age);
    let mut paths = Vec::new();
    let mut answers = answers.iter();
    while let Some(Effect::Call { id, call }) = effects.first() {
        paths.push(call.path.clone());
        age += 10;
        let done = finish_at(gateway, *id, answers.next().unwrap(), age);
        (flow, effects) = hand_at(&mut exchange, &done, age);
    }
    assert_eq!(flow, Flow::Forward);
    assert!(answers.next().is_none());
    let _last_used = record(&mut exchange);
    paths
}

/// Lets the timer fire at this age; its calls are answered at once. Returns their paths.
fn tick(gateway: &Gateway, age: u64, answer: impl Fn(&str) -> Value) -> Vec<String> {
    let calls = gateway.tick(Timestamp(Duration::from_secs(ISSUED + age)));
    let calls = calls.into_iter().map(|(id, call)| {
        let _nobody_waits = finish_at(gateway, id, &answer(&call.path), age);
        call.path
    });
    calls.collect()
}

/// The document with this as its credential.
fn document_with(credential: Value) -> Value {
    let mut document = document();
    document["token_endpoints"] = json!({"idp": {"cluster": "idp", "path": "/token",
        "client_id": "toolgate", "client_secret": {"value": "s3cret"}}});
    document["credentials"]["key"] = credential;
    document
}

fn login_for(seconds: u32) -> Value {
    json!({"auth": {"client_token": "t", "lease_duration": seconds, "renewable": true}})
}

fn lent_for(seconds: u32) -> Value {
    json!({"lease_id": "database/creds/app/1", "lease_duration": seconds, "renewable": true,
        "data": {"key": "k3y"}})
}

const LOGIN: &str = "/v1/auth/approle/login";
const RENEW_LOGIN: &str = "/v1/auth/token/renew-self";
const RENEW_LEASE: &str = "/v1/sys/leases/renew";

#[test]
fn what_is_lent_ends_as_if_it_had_been_lent_when_it_was_asked_for() {
    let lent = json!({"dynamic": {"vault": "main", "path": "database/creds/app", "field": "key"}});
    let token = json!({"client_credentials": {"endpoint": "idp"}});
    // Tokens are not used for the last five seconds of their life.
    let access = json!({"access_token": "k3y", "token_type": "bearer", "expires_in": 65});
    for (credential, answers, ends) in
        [(lent, vec![login_for(3600), lent_for(60)], 10 + 60), (token, vec![access], 60)]
    {
        let gateway = gateway_of(&document_with(credential));
        refund_slowly(&gateway, 0, &answers);
        assert!(refund_slowly(&gateway, ends - 1, &[]).is_empty(), "it ends too early");
        let again = refund_slowly(&gateway, ends, &answers[answers.len() - 1..]);
        assert_eq!(again.len(), 1, "it is used for longer than it was lent");
    }
}

#[test]
fn a_login_ends_as_if_it_had_been_given_when_it_was_asked_for() {
    let kept = json!({"kv": {"vault": "main", "path": "x", "field": "key", "ttl_seconds": 1}});
    let gateway = gateway_of(&document_with(kept));
    refund_slowly(&gateway, 0, &[login_for(100), secret()]);
    // Used for nine tenths of its life.
    assert_eq!(refund_slowly(&gateway, 89, &[secret()]), ["/v1/secret/data/x"]);
    assert_eq!(refund_slowly(&gateway, 90 + 10, &[login_for(100), secret()])[0], LOGIN);
}

#[test]
fn a_login_is_renewed_as_long_as_the_vault_gives_it_as_much_as_at_first() {
    let kept = json!({"kv": {"vault": "main", "path": "x", "field": "key", "ttl_seconds": 3000}});
    let gateway = gateway_of(&document_with(kept));
    refund_slowly(&gateway, 0, &[login_for(100), secret()]);
    for age in [75, 150, 225, 300, 375, 450] {
        assert_eq!(tick(&gateway, age, |_| login_for(100)), [RENEW_LOGIN], "{age}");
    }
    // It nears the longest life that it may have: there will be a new one.
    assert_eq!(tick(&gateway, 525, |_| login_for(40)), [RENEW_LOGIN]);
    assert!(tick(&gateway, 560, |_| login_for(40)).is_empty());
}

#[test]
fn what_is_lent_for_longer_than_its_login_is_kept_together_with_it() {
    let lent = json!({"dynamic": {"vault": "main", "path": "database/creds/app", "field": "key"}});
    let gateway = gateway_of(&document_with(lent));
    refund_slowly(&gateway, 0, &[login_for(100), lent_for(3600)]);
    let renewed = |path: &str| if path == RENEW_LOGIN { login_for(100) } else { lent_for(3600) };
    assert_eq!(tick(&gateway, 78, renewed), [RENEW_LOGIN, RENEW_LEASE]);
    assert!(refund_slowly(&gateway, 110, &[]).is_empty(), "it ended with its login");
    // A login that is not renewed takes with it what it was lent.
    assert_eq!(tick(&gateway, 153, |_| lent_for(3600)), [RENEW_LOGIN, RENEW_LEASE]);
    let again = refund_slowly(&gateway, 178, &[login_for(100), lent_for(3600)]);
    assert_eq!(again[0], LOGIN, "it is used after its login has ended");
}

#[test]
fn exchanges_that_need_the_same_make_one_call_and_all_go_on() {
    let gateway = gateway();
    gateway.share_calls();
    let mut first = Exchange::new(Some(Rc::clone(&gateway)));
    let (_, effects) = refund(&mut first, 1, 0);
    let mut others: Vec<Exchange> =
        (0..199).map(|_| Exchange::new(Some(Rc::clone(&gateway)))).collect();
    for exchange in &mut others {
        let (flow, effects) = refund(exchange, 1, 0);
        assert_eq!((flow, called(&effects)), (Flow::Hold, None));
    }
    let done = finish(&gateway, called(&effects).unwrap(), &login());
    assert_eq!(done.waiting().len(), 200);
    let (flow, effects) = hand(&mut first, &done);
    assert_eq!(flow, Flow::Hold);
    for exchange in &mut others {
        let (flow, effects) = hand(exchange, &done);
        assert_eq!((flow, called(&effects)), (Flow::Hold, None));
    }
    // The one that made the call goes away, and the others get what it brings.
    assert_eq!(record(&mut first).reason, Some("client_closed"));
    let done = finish(&gateway, called(&effects).unwrap(), &secret());
    assert_eq!(done.waiting().len(), 199);
    for exchange in &mut others {
        let (flow, effects) = hand(exchange, &done);
        assert_eq!(flow, Flow::Forward);
        assert!(matches!(effects.last(), Some(Effect::SendUpstream(_))));
    }
}

#[test]
fn requests_that_are_refused_together_fetch_the_credential_once_and_each_is_made_once_more() {
    let gateway = gateway();
    gateway.share_calls();
    refund_slowly(&gateway, 0, &[login_for(3600), secret()]);
    let age = 40;
    let now = Timestamp(Duration::from_secs(ISSUED + age));
    let mut exchanges: Vec<Exchange> =
        (0..200).map(|_| Exchange::new(Some(Rc::clone(&gateway)))).collect();
    for exchange in &mut exchanges {
        assert_eq!(refund(exchange, 1, age).0, Flow::Forward);
    }
    let refused = |exchange: &mut Exchange| {
        let mut out = Vec::new();
        let headers = Headers::from_pairs([(":status", "401")]);
        let flow = exchange.handle(Event::ResponseHead { headers, end: true }, now, &mut out);
        assert_eq!((flow, exchange.holds_response()), (Flow::Hold, true));
        out
    };
    let first = called(&refused(&mut exchanges[0])).unwrap();
    for exchange in exchanges.iter_mut().skip(1) {
        assert!(refused(exchange).is_empty());
    }
    let new = json!({"data": {"data": {"key": "n3w"}, "metadata": {"version": 3}}});
    let fetched = finish_at(&gateway, first, &new, age);
    assert_eq!(fetched.waiting().len(), 200);
    for exchange in &mut exchanges {
        let (flow, effects) = hand_at(exchange, &fetched, age);
        let [Effect::Call { id, call }] = effects.as_slice() else { panic!("not made again") };
        assert_eq!((flow, &*call.cluster, call.path.as_str()), (Flow::Hold, "billing", "/mcp"));
        let key = call.credentials.iter().find(|(name, _)| name == "x-billing-key").unwrap();
        assert_eq!(key.1.expose(), "n3w");
        assert!(!call.credentials.iter().any(|(name, _)| name == "authorization"));
        let answered = finish_at(&gateway, *id, &json!({"id": 1, "result": {}}), age);
        assert_eq!(answered.waiting().len(), 1);
        let (flow, effects) = hand_at(exchange, &answered, age);
        let [Effect::Answer(reply)] = effects.as_slice() else { panic!("no answer") };
        assert_eq!((flow, exchange.holds_response()), (Flow::Hold, false));
        assert_eq!(reply.status, 502, "an answer without a type is none");
        let record = record(exchange);
        assert_eq!((record.credential_retried, record.credential_version), (true, Some(3)));
    }
}

#[test]
fn a_server_that_is_slow_holds_up_no_other_servers_pages() {
    let gateway = gateway();
    gateway.share_calls();
    let mut exchange = Exchange::new(Some(Rc::clone(&gateway)));
    let now = Timestamp(Duration::from_secs(ISSUED));
    let mut out = Vec::new();
    let headers = Headers::from_pairs([
        (":method", "POST"),
        (":path", "/mcp"),
        ("content-type", "application/json"),
        ("authorization", &format!("Bearer {TOKEN}")),
    ]);
    let _held =
        exchange.handle(Event::RequestHead { headers, source: None, end: false }, now, &mut out);
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).to_string();
    let body = Event::RequestBody { chunk: body.as_bytes(), end: true };
    assert_eq!(exchange.handle(body, now, &mut out), Flow::Hold);
    let calls = |effects: &[Effect]| -> Vec<(CallId, String)> {
        let calls = effects.iter().filter_map(|effect| match effect {
            Effect::Call { id, call } => Some((*id, call.cluster.to_string())),
            _ => None,
        });
        calls.collect()
    };
    let mut begun = calls(&out);
    begun.sort_by(|one, other| one.1.cmp(&other.1));
    let [(pages, everything), (login_call, vault)] = begun.as_slice() else { panic!("{begun:?}") };
    assert_eq!((everything.as_str(), vault.as_str()), ("everything", "vault"));
    let page = |result: Value| json!({"jsonrpc": "2.0", "id": "toolgate", "result": result});
    let list = |tool: &str| page(json!({"tools": [{"name": tool}], "ttlMs": 60000}));
    // The vault is silent, and the next page is asked for all the same.
    let first = page(json!({"tools": [{"name": "echo"}], "nextCursor": "2", "ttlMs": 60000}));
    let (flow, effects) = hand(&mut exchange, &finish(&gateway, *pages, &first));
    assert_eq!(flow, Flow::Hold);
    let second = calls(&effects);
    assert_eq!(second.len(), 1);
    assert_eq!(second[0].1, "everything");
    // A list that has come whole leads to nothing more.
    let (_, effects) = hand(&mut exchange, &finish(&gateway, second[0].0, &list("get-sum")));
    assert!(effects.is_empty());
    let (_, read) = hand(&mut exchange, &finish(&gateway, *login_call, &login()));
    let (_, billing) = answer(&gateway, &mut exchange, &read, &secret());
    assert_eq!(calls(&billing)[0].1, "billing");
    let (_, effects) = answer(&gateway, &mut exchange, &billing, &list("refund"));
    let [Effect::Reply(reply)] = effects.as_slice() else { panic!("no answer") };
    let reply: Value = serde_json::from_slice(&reply.body).unwrap();
    let names: Vec<_> = reply["result"]["tools"].as_array().unwrap().iter().collect();
    let names: Vec<_> = names.into_iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["billing__refund", "everything__echo", "everything__get-sum"]);
}

#[test]
fn on_a_host_that_cannot_wake_others_every_exchange_makes_its_own_call() {
    let gateway = gateway();
    for _ in 0..3 {
        let mut exchange = Exchange::new(Some(Rc::clone(&gateway)));
        let (_, effects) = refund(&mut exchange, 1, 0);
        assert!(called(&effects).is_some());
    }
}

#[test]
fn an_answer_that_is_too_large_is_no_answer() {
    let gateway = gateway();
    let mut exchange = Exchange::new(Some(Rc::clone(&gateway)));
    let (_, effects) = refund(&mut exchange, 1, 0);
    let huge = json!({"auth": {"client_token": "t", "padding": "x".repeat(10 << 20)}});
    let (flow, effects) = answer(&gateway, &mut exchange, &effects, &huge);
    assert_eq!(flow, Flow::Hold);
    assert!(matches!(effects.as_slice(), [Effect::Reply(reply)] if reply.status == 503));
    let detail = record(&mut exchange).detail;
    assert_eq!(detail.as_deref(), Some("the vault's answer is larger than any secret"));
}

#[test]
fn a_call_that_nobody_made_teaches_nothing() {
    let gateway = gateway();
    let mut exchange = Exchange::new(Some(Rc::clone(&gateway)));
    let (_, effects) = refund(&mut exchange, 1, 0);
    let id = called(&effects).unwrap();
    let _taken = finish(&gateway, id, &login());
    let again = finish(&gateway, id, &secret());
    assert!(again.waiting().is_empty());
    assert_eq!(hand(&mut exchange, &again).0, Flow::Hold);
}

#[test]
fn a_refused_call_is_answered_at_once_and_asks_nobody() {
    let mut exchange = Exchange::new(Some(gateway()));
    let (flow, effects) = refund(&mut exchange, 101, 0);
    assert_eq!(flow, Flow::Hold);
    let [Effect::Reply(reply)] = effects.as_slice() else { panic!("not only a reply") };
    assert!(String::from_utf8_lossy(&reply.body).contains("Refunds over 100 need a person"));
    assert_eq!(record(&mut exchange).reason, Some("arguments_refused"));
}

#[test]
fn an_expired_token_is_refused_before_the_body_is_read() {
    let mut exchange = Exchange::new(Some(gateway()));
    let (_, effects) = refund(&mut exchange, 1, 3600 + 31);
    let [Effect::Reply(reply)] = effects.as_slice() else { panic!("not only a reply") };
    assert_eq!(reply.status, 401);
    assert_eq!(record(&mut exchange).reason, Some("expired_token"));
}

#[test]
fn an_exchange_without_a_gateway_serves_nothing() {
    let mut exchange = Exchange::new(None);
    let (flow, effects) = refund(&mut exchange, 1, 0);
    assert_eq!(flow, Flow::Hold);
    let [Effect::Reply(reply)] = effects.as_slice() else { panic!("not only a reply") };
    assert_eq!(reply.status, 503);
    assert_eq!(record(&mut exchange).reason, Some("not_configured"));
}

#[test]
fn an_event_that_is_not_expected_holds_for_good() {
    let mut exchange = Exchange::new(Some(gateway()));
    let mut out = Vec::new();
    let now = Timestamp(Duration::from_secs(ISSUED));
    let body = Event::RequestBody { chunk: b"{}", end: true };
    assert_eq!(exchange.handle(body, now, &mut out), Flow::Hold);
    let (flow, effects) = refund(&mut exchange, 1, 0);
    assert_eq!(flow, Flow::Hold);
    assert!(effects.is_empty());
    let record = record(&mut exchange);
    assert_eq!((record.decision, record.reason), (Outcome::Error, Some("internal")));
}
