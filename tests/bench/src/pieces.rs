//! Where the time of an exchange goes: the core without a proxy, event by event, and its pieces.
//!
//! `scripts/bench --native` runs it as it is, `scripts/bench --v8` as WebAssembly in V8. What the
//! host does for each call of the plugin is not in here: `scripts/bench --host-calls` has that.
#![allow(clippy::indexing_slicing, reason = "into a document of this repository, in a bench")]

mod federation;
#[path = "messages.rs"]
#[allow(dead_code, reason = "the other program asks for more")]
mod messages;
mod policies;
mod tokens;

use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::io::{self, Write};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use toolgate_core::{Effect, Event, Exchange, Flow, Gateway, Headers, Timestamp};
use toolgate_policy::{Caller, PolicyConfig, PolicyEngine, Principal, RequestFacts, Target};
use toolgate_protocol::json::Json;
use toolgate_protocol::jsonrpc::Message;

/// Where the plugin's configuration stands in `envoy/envoy.yaml`.
const PLUGIN: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters/0/typed_config/config/configuration/value";

fn main() -> Result<(), Box<dyn Error>> {
    let token = std::env::var("BENCH_TOKEN").map_err(|_| "BENCH_TOKEN is not set")?;
    let bootstrap: Value = serde_saphyr::from_str(&fs::read_to_string("envoy/envoy.yaml")?)?;
    let mut plugin = bootstrap.pointer(PLUGIN).cloned().ok_or("envoy.yaml has another form")?;
    plugin["credentials"]["billing-key"] =
        json!({"static": {"value": "only-the-server-sees-this"}});
    plugin["vaults"] = json!({});
    // `bench-pieces TEXT` runs only the pieces with this in their name, and longer: for a profiler;
    // `bench-pieces policies` only what many policies cost, `federation` what many servers do,
    // `tokens` what it costs to know the caller.
    match std::env::args().nth(1) {
        Some(text) if text == "policies" => policies::report(),
        Some(text) if text == "federation" => federation::report(),
        Some(text) if text == "tokens" => tokens::report(&plugin),
        None => {
            exchanges(&plugin, &token)?;
            pieces(
                plugin.clone(),
                &token,
                &Chosen { text: String::new(), time: Duration::from_millis(400) },
            )?;
            tokens::report(&plugin)?;
            policies::report()?;
            federation::report()
        }
        Some(text) => pieces(plugin, &token, &Chosen { text, time: Duration::from_secs(4) }),
    }
}

/// Which pieces run, and for how long.
struct Chosen {
    text: String,
    time: Duration,
}

/// A request and what it is answered.
struct Case {
    name: &'static str,
    head: Vec<(String, Vec<u8>)>,
    body: String,
    answer: String,
}

/// Time spent in the phases of one case, and how often.
#[derive(Default)]
struct Spent {
    head: Vec<Duration>,
    body: Vec<Duration>,
    response: Vec<Duration>,
    close: Vec<Duration>,
}

fn exchanges(plugin: &Value, token: &str) -> Result<(), Box<dyn Error>> {
    let compiled = Gateway::compile(plugin.to_string().as_bytes(), &|_: &str| None);
    let gateway = Rc::new(compiled.map_err(|problems| format!("{problems:?}"))?);
    let call = messages::call_answer();
    let case = |name, server: &str, body: String, answer: &str| Case {
        name,
        head: head(server, &body, token),
        body,
        answer: answer.to_owned(),
    };
    let refund = json!({"invoice": "I-1001", "amount": 40, "reason": "late"});
    let typed = ["list_invoices", "statement", "refund", "delete_customer"];
    let list = |count| messages::list_answer(&typed, count);
    let cases = [
        case("typed call, credential", "billing", messages::call("refund", &refund), &call),
        case(
            "untyped call",
            "everything",
            messages::call("echo", &json!({"message": "hi, it is me again"})),
            &call,
        ),
        case("list of 20, all shown", "everything", messages::list(), &list(20)),
        case("list of 20, 3 typed shown", "billing", messages::list(), &list(20)),
        case("list of 500, all shown", "everything", messages::list(), &list(500)),
    ];
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{:<28} {:>10} {:>10} {:>10} {:>10} {:>10}   µs",
        "exchange", "head", "body", "response", "close", "sum"
    )?;
    for case in &cases {
        let mut spent = Spent::default();
        let end = Instant::now() + Duration::from_millis(1500);
        while Instant::now() < end {
            exchange(&gateway, case, &mut spent)?;
        }
        let phases =
            [&spent.head, &spent.body, &spent.response, &spent.close].map(|all| typical(all));
        let sum: f64 = phases.iter().sum();
        let [head, body, response, close] = phases;
        writeln!(
            out,
            "{:<28} {head:>10.2} {body:>10.2} {response:>10.2} {close:>10.2} {sum:>10.2}",
            case.name
        )?;
    }
    writeln!(out)?;
    Ok(())
}

fn head(server: &str, body: &str, token: &str) -> Vec<(String, Vec<u8>)> {
    let request = messages::request(server, body, token);
    let text = String::from_utf8_lossy(&request).into_owned();
    let pair = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
    let pseudo = [
        pair(":authority", "127.0.0.1:10000"),
        pair(":path", &format!("/mcp/{server}")),
        pair(":method", "POST"),
        pair(":scheme", "http"),
    ];
    let sent = text
        .lines()
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(": "))
        .filter(|(name, _)| *name != "host")
        .map(|(name, value)| pair(name, value));
    let added = [
        pair("x-forwarded-for", "127.0.0.1"),
        pair("x-forwarded-proto", "http"),
        pair("x-envoy-external-address", "127.0.0.1"),
        pair("x-request-id", "712ff5df-fbb0-4f01-92ef-605dec7d53b6"),
    ];
    pseudo.into_iter().chain(sent).chain(added).collect()
}

fn now() -> Timestamp {
    Timestamp(SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default())
}

/// One exchange, as the filter drives it.
fn exchange(gateway: &Rc<Gateway>, case: &Case, spent: &mut Spent) -> Result<(), Box<dyn Error>> {
    let mut effects = Vec::new();
    let arrived = case.head.clone();
    let answered: [(&str, Vec<u8>); 4] = [
        (":status", b"200".to_vec()),
        ("content-type", b"application/json".to_vec()),
        ("content-length", case.answer.len().to_string().into_bytes()),
        ("x-envoy-upstream-service-time", b"0".to_vec()),
    ];

    let begin = Instant::now();
    let mut exchange = Exchange::new(Some(Rc::clone(gateway)));
    let headers = Headers::from_pairs(arrived);
    let source = Some("127.0.0.1".to_owned());
    let _held =
        exchange.handle(Event::RequestHead { headers, source, end: false }, now(), &mut effects);
    let head = begin.elapsed();

    let begin = Instant::now();
    let event = Event::RequestBody { chunk: case.body.as_bytes(), end: true };
    let flow = exchange.handle(event, now(), &mut effects);
    let sends = effects.iter().any(|effect| matches!(effect, Effect::SendUpstream(_)));
    if flow != Flow::Forward || !sends {
        return Err(format!("{}: refused", case.name).into());
    }
    effects.clear();
    let body = begin.elapsed();

    let begin = Instant::now();
    let headers = Headers::from_pairs(answered);
    let _goes_on =
        exchange.handle(Event::ResponseHead { headers, end: false }, now(), &mut effects);
    if exchange.reads_response() {
        // As it comes from a socket.
        let mut pieces = case.answer.as_bytes().chunks(16384).peekable();
        while let Some(chunk) = pieces.next() {
            let end = pieces.peek().is_none();
            let event = Event::ResponseBody { chunk, end };
            let _goes_on = exchange.handle(event, now(), &mut effects);
        }
    }
    effects.clear();
    let response = begin.elapsed();

    let begin = Instant::now();
    let _goes_on = exchange.handle(Event::Closed, now(), &mut effects);
    for effect in &effects {
        if let Effect::Audit(record) = effect {
            record.each_property(exchange.audit_fields(), |name, value| {
                let path: Rc<str> = format!("toolgate.{name}").into();
                black_box((path, value));
            });
        }
    }
    drop(effects);
    drop(exchange);
    let close = begin.elapsed();

    spent.head.push(head);
    spent.body.push(body);
    spent.response.push(response);
    spent.close.push(close);
    Ok(())
}

fn pieces(mut plugin: Value, token: &str, chosen: &Chosen) -> Result<(), Box<dyn Error>> {
    let config: PolicyConfig = serde_json::from_value(plugin["policy"].take())?;
    let servers = ["billing".to_owned(), "everything".to_owned()];
    let engine =
        PolicyEngine::compile(&config, &servers).map_err(|problems| format!("{problems:?}"))?;
    let caller = Caller {
        id: "alice".into(),
        issuer: "https://idp.demo.toolgate.example".into(),
        groups: vec!["finance".into()],
        claims: [("scope", "mcp:tools"), ("sub", "alice"), ("iat", "1795435200")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        ..Caller::default()
    };
    let principal: Principal = engine.principal(&caller)?;
    let scopes = ["mcp:tools".to_owned()];
    let facts = RequestFacts {
        calls: &[],
        time_ms: now().milliseconds(),
        scopes: &scopes,
        source_ip: Some("127.0.0.1"),
        session: Some("3f8c2f6e-6f0e-4f53-9d5b-8f3a3c1d2e4f"),
        client_name: None,
        token_age_seconds: Some(60),
        protocol_version: Some("2025-11-25"),
    };
    let call =
        messages::call("refund", &json!({"invoice": "I-1001", "amount": 40, "reason": "late"}));
    let message = Message::parse(call.as_bytes())?;
    let arguments = Json::parse(br#"{"invoice":"I-1001","amount":40,"reason":"late"}"#)?;
    let refund = Target::Tool { server: "billing", name: "refund", arguments: &arguments };
    let echo = Target::Tool { server: "everything", name: "echo", arguments: &arguments };
    let headers = head("billing", &call, token);
    let list = messages::list_answer(&[], 500);

    writeln!(io::stdout(), "{:<44} {:>10}   µs", "piece", "")?;
    chosen
        .each("header fields, copied and lower-cased", || Headers::from_pairs(headers.clone()))?;
    chosen.each("SHA-256 of the token", || Sha256::digest(token))?;
    chosen.each("SHA-256 of the arguments", || Sha256::digest(arguments.to_bytes()))?;
    chosen.each("message of a call, parsed", || Message::parse(call.as_bytes()))?;
    chosen.each("message of a call, written", || message.to_bytes())?;
    chosen.each("list of 500, parsed", || Json::parse(list.as_bytes()))?;
    let tree = Json::parse(list.as_bytes())?;
    chosen.each("list of 500, written", || tree.to_bytes())?;
    chosen.each("policy: typed call", || engine.decide(&principal, &refund, &facts))?;
    chosen.each("policy: untyped call", || engine.decide(&principal, &echo, &facts))?;
    chosen
        .each("policy: is a typed tool visible", || engine.visible(&principal, &refund, &facts))?;
    chosen.each("policy: is an untyped tool visible", || engine.visible(&principal, &echo, &facts))
}

impl Chosen {
    fn each<T>(&self, name: &str, mut piece: impl FnMut() -> T) -> Result<(), Box<dyn Error>> {
        if !name.contains(&self.text) {
            return Ok(());
        }
        let mut times = Vec::new();
        let end = Instant::now() + self.time;
        while Instant::now() < end {
            // In eights, since a clock is not free either.
            let begin = Instant::now();
            for _ in 0..8 {
                black_box(piece());
            }
            times.push(begin.elapsed() / 8);
        }
        writeln!(io::stdout(), "{name:<44} {:>10.2}", typical(&times))?;
        Ok(())
    }
}

/// The lower quartile in microseconds, of the later half: when all is warm and little disturbs.
fn typical(times: &[Duration]) -> f64 {
    let mut warm = times.get(times.len() / 2..).unwrap_or_default().to_vec();
    warm.sort_unstable();
    warm.get(warm.len() / 4).map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
}
