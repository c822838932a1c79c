//! Calls of the gateway in a real Envoy, whose one worker serves many exchanges at a time: the program
//! that the variable `ENVOY` names, or `envoy` on the path.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;
use toolgate_harness::envoy::Envoy;
use toolgate_harness::people::Issuer;
use toolgate_harness::play::{Driver as _, Request, request};
use toolgate_harness::repository;
use toolgate_harness::scenario::{Behaviour, ExchangeScript, Scenario, read_all};
use toolgate_harness::wire;
use toolgate_harness::world::{Asked, World};

/// How long anything may take on a slow machine before the test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

fn until(what: &str, holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "in vain: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// What becomes of bob's call of `echo`: the tool's answer, or the gateway's error.
fn called(port: u16, issuer: &Issuer, script: &ExchangeScript) -> String {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let echo = request(script, issuer, since_epoch).unwrap();
    let seen = wire::exchange(port, &echo, &|| true).unwrap();
    String::from_utf8(seen.body).unwrap()
}

#[test]
fn policies_are_fetched_renewed_and_kept_while_nothing_better_can_be_had() {
    let program = std::env::var("ENVOY").unwrap_or_else(|_| "envoy".into());
    let issuer = Issuer::demo().unwrap();
    let scenarios = read_all(&repository::path("tests/scenarios")).unwrap();
    let mut scenario: Scenario = scenarios
        .into_iter()
        .find(|scenario| scenario.name == "newer_policies_come_into_force_and_wrong_ones_do_not")
        .unwrap();
    scenario.configuration = Some(json!({
        "policy": null,
        "policy_bundle": {"cluster": "idp", "path": "/bundle", "poll_seconds": 1},
    }));
    let envoy = Envoy::start(&program, std::slice::from_ref(&scenario)).unwrap();
    let world = Arc::new(World::default());
    let fetches = |behaviour| {
        world.behave(&BTreeMap::from([("idp".to_owned(), behaviour)]));
        world.take_asked();
    };
    fetches(Behaviour::Error);
    let session = envoy.start(&scenario, Arc::clone(&world)).unwrap();
    let port = envoy.port(&scenario.name).unwrap();
    let call = || called(port, &issuer, &scenario.exchanges[0]);

    assert!(call().contains("policies_unavailable"));
    fetches(Behaviour::Well);
    until("the first policies are in force", || call().contains("called echo"));
    fetches(Behaviour::Rotated);
    until("newer ones are in force", || call().contains("Unknown tool"));
    // Two fetches: what the first brought has been looked at when the second is made.
    for worse in [Behaviour::NoKeys, Behaviour::Garbage, Behaviour::Error] {
        fetches(worse);
        let mut polls = 0;
        let polled = |asked: Asked| usize::from(asked.cluster == "idp");
        while polls < 2 {
            assert!(call().contains("Unknown tool"), "{worse:?}");
            polls += world.take_asked().into_iter().map(polled).sum::<usize>();
        }
    }
    fetches(Behaviour::Well);
    until("good ones are in force again", || call().contains("called echo"));
    drop(session);
}

#[test]
fn two_hundred_first_calls_ask_the_vault_once_though_the_first_client_goes_away() {
    let program = std::env::var("ENVOY").unwrap_or_else(|_| "envoy".into());
    let issuer = Issuer::demo().unwrap();
    let scenarios = read_all(&repository::path("tests/scenarios")).unwrap();
    let mut scenario: Scenario = scenarios
        .into_iter()
        .find(|scenario| scenario.name == "a_vault_that_is_down_is_an_error")
        .unwrap();
    // The vault is held until all are there, which may take its time.
    scenario.configuration = Some(json!({"vaults": {"main": {"timeout_ms": 60_000}}}));
    let envoy = Envoy::start(&program, std::slice::from_ref(&scenario)).unwrap();
    let world = Arc::new(World::default());
    world.behave(&BTreeMap::from([("vault".to_owned(), Behaviour::Held)]));
    let session = envoy.start(&scenario, Arc::clone(&world)).unwrap();
    let refund = request(&scenario.exchanges[0], &issuer, session.now()).unwrap();
    let port = envoy.port(&scenario.name).unwrap();

    // The client whose request makes the call goes away while the vault thinks.
    let first = Request { abort: true, ..refund.clone() };
    wire::exchange(port, &first, &|| world.was_asked()).unwrap();
    let others: Vec<_> = (0..199)
        .map(|_| {
            let refund = refund.clone();
            std::thread::spawn(move || wire::exchange(port, &refund, &|| true))
        })
        .collect();
    until("all requests are in Envoy", || envoy.active_requests() == Some(199));
    world.behave(&BTreeMap::from([("vault".to_owned(), Behaviour::Well)]));
    for other in others {
        let seen = other.join().unwrap().unwrap();
        assert_eq!(seen.status, Some(200), "{}", String::from_utf8_lossy(&seen.body));
    }
    let mut asked: BTreeMap<String, usize> = BTreeMap::new();
    for request in world.take_asked() {
        *asked.entry(request.cluster).or_default() += 1;
    }
    // A login and a read.
    let expected = BTreeMap::from([("vault".to_owned(), 2), ("billing".to_owned(), 199)]);
    assert_eq!(asked, expected);
}

#[test]
fn a_limit_on_calls_holds_over_two_workers() {
    const CALLS: usize = 64;
    let program = std::env::var("ENVOY").unwrap_or_else(|_| "envoy".into());
    let issuer = Issuer::demo().unwrap();
    let scenarios = read_all(&repository::path("tests/scenarios")).unwrap();
    // Two calls an hour.
    let name = "a_limit_on_calls_in_a_window_holds_and_says_what_the_policy_advises";
    let scenario: Scenario = scenarios.into_iter().find(|scenario| scenario.name == name).unwrap();
    let envoy = Envoy::start_with_workers(&program, std::slice::from_ref(&scenario), 2).unwrap();
    let world = Arc::new(World::default());
    let session = envoy.start(&scenario, Arc::clone(&world)).unwrap();
    let echo = request(&scenario.exchanges[0], &issuer, session.now()).unwrap();
    let port = envoy.port(&scenario.name).unwrap();
    // Every one comes by a connection of its own, and the kernel gives these to both workers.
    let calls: Vec<_> = (0..CALLS)
        .map(|_| {
            let echo = echo.clone();
            std::thread::spawn(move || wire::exchange(port, &echo, &|| true))
        })
        .collect();
    let answers: Vec<String> = calls
        .into_iter()
        .map(|call| String::from_utf8(call.join().unwrap().unwrap().body).unwrap())
        .collect();
    let count = |part: &str| answers.iter().filter(|answer| answer.contains(part)).count();
    assert_eq!(count("called echo"), 2, "{answers:?}");
    assert_eq!(count("Unknown tool: echo"), CALLS - 2, "{answers:?}");
    assert_eq!(world.take_asked().len(), 2);
    let connections = envoy.connections(&scenario.name).unwrap();
    assert_eq!(connections.len(), 2);
    assert!(connections.iter().all(|taken| *taken > 0), "{connections:?}");
}

/// A line of Prometheus' format that has these labels, in any order and no others but Envoy's own.
fn value(text: &str, metric: &str, labels: &[(&str, &str)]) -> Option<u64> {
    text.lines().find_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, found) = series.strip_suffix('}')?.split_once('{')?;
        let found: Vec<&str> = found.split(',').filter(|label| !label.is_empty()).collect();
        let all =
            labels.iter().all(|(name, value)| found.contains(&&*format!("{name}=\"{value}\"")));
        (name == metric && found.len() == labels.len() && all).then(|| value.parse().ok())?
    })
}

#[test]
fn what_is_measured_is_in_envoys_statistics_with_labels() {
    let program = std::env::var("ENVOY").unwrap_or_else(|_| "envoy".into());
    let issuer = Issuer::demo().unwrap();
    let scenarios = read_all(&repository::path("tests/scenarios")).unwrap();
    let find = |name: &str| scenarios.iter().find(|scenario| scenario.name == name).cloned();
    let calls = find(
        "a_call_is_counted_by_server_tool_and_decision_and_its_credential_by_where_it_came_from",
    )
    .unwrap();
    let denials =
        find("a_denial_is_counted_with_its_reason_and_what_the_client_wrote_is_in_no_series")
            .unwrap();
    let envoy = Envoy::start(&program, &[calls.clone(), denials.clone()]).unwrap();
    for scenario in [&calls, &denials] {
        let mut session = envoy.start(scenario, Arc::new(World::default())).unwrap();
        for script in &scenario.exchanges {
            let request = request(script, &issuer, session.now()).unwrap();
            let _answered = session.exchange(&request).unwrap();
        }
    }
    let text = envoy.prometheus().unwrap();
    let of_refund = |more: &[(&'static str, &'static str)]| {
        let tags = [("server", "billing"), ("method", "tools/call"), ("tool", "refund")];
        value(&text, "toolgate_requests_total", &[&tags, more].concat())
    };
    assert_eq!(of_refund(&[("decision", "allow")]), Some(2), "{text}");
    assert_eq!(
        of_refund(&[("decision", "deny"), ("reason", "arguments_refused")]),
        Some(1),
        "{text}"
    );
    let tags = [
        ("server", "other"),
        ("method", "other"),
        ("decision", "deny"),
        ("reason", "unknown_server"),
    ];
    assert_eq!(value(&text, "toolgate_requests_total", &tags), Some(1), "{text}");
    // Envoy adds up histograms of its workers from time to time.
    let count = "toolgate_request_duration_milliseconds_count";
    until("the histogram is there", || {
        let text = envoy.prometheus().unwrap_or_default();
        value(&text, count, &[("server", "billing")]) == Some(2)
    });
    for source in ["vault", "cache"] {
        let tags = [("credential", "billing-key"), ("source", source)];
        assert_eq!(value(&text, "toolgate_credentials_total", &tags), Some(1), "{text}");
    }
    // A cluster of this test's own for each scenario.
    let tags = [("purpose", "credential"), ("cluster", "vault-0"), ("result", "ok")];
    assert_eq!(value(&text, "toolgate_outgoing_calls_total", &tags), Some(1), "{text}");
    assert!(
        value(&text, "toolgate_configurations_total", &[("result", "accepted")]) >= Some(2),
        "{text}"
    );
    assert!(!text.contains("no-tool-of-the-configuration"), "{text}");
}
