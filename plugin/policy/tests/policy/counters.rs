//! Counters of earlier calls: what is wrong with one, and what policies make of what they say.

#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use std::collections::BTreeMap;

use toolgate_policy::{
    Count, CountedCalls, CountedPer, CounterConfig, Outcome, PolicyConfig, PolicyEngine, Refusal,
    RequestFacts, Target,
};

use crate::support::{alice, config, facts, json, servers, texts};

fn counter(server: &str) -> CounterConfig {
    CounterConfig {
        server: server.to_owned(),
        tools: vec!["pay".to_owned()],
        window_seconds: 60,
        per: CountedPer::Principal,
        counts: CountedCalls::Permitted,
    }
}

fn with(counters: &[(&str, CounterConfig)], policies: &str) -> PolicyConfig {
    let counters =
        counters.iter().map(|(name, counter)| ((*name).to_owned(), counter.clone())).collect();
    PolicyConfig { counters, ..config(policies) }
}

fn engine(policies: &str) -> PolicyEngine {
    let config = with(&[("payments", counter("bank")), ("others", counter("bank"))], policies);
    PolicyEngine::compile(&config, &servers())
        .unwrap_or_else(|problems| panic!("{}", texts(&problems).join("\n")))
}

fn counts(engine: &PolicyEngine, calls: &[Option<i64>]) -> Vec<Count> {
    let names = engine.counters().iter().map(|counter| counter.name.clone());
    names.zip(calls).map(|(counter, calls)| Count { counter, calls: *calls }).collect()
}

const LIMITED: &str = r#"@id("limited") permit (principal, action in MCP::Action::"call_tool", resource)
    when { context.request.calls.payments < 2 };"#;

#[test]
fn a_limit_decides_on_calls_and_lists_alike() {
    let engine = engine(LIMITED);
    let arguments = json("{}");
    let target = Target::Tool { server: "files", name: "anything", arguments: &arguments };
    // The last but one by name: `others`, `payments`.
    for (calls, permitted) in [(0, true), (1, true), (2, false), (i64::MAX, false)] {
        let calls = counts(&engine, &[Some(7), Some(calls)]);
        let facts = RequestFacts { calls: &calls, ..facts() };
        assert_eq!(engine.decide(&alice(&engine), &target, &facts).is_permit(), permitted);
        assert_eq!(engine.visible(&alice(&engine), &target, &facts), permitted);
    }
}

#[test]
fn a_count_that_is_looked_at_and_not_known_denies_and_is_an_error() {
    let engine = engine(LIMITED);
    let arguments = json("{}");
    let target = Target::Tool { server: "files", name: "anything", arguments: &arguments };
    for calls in [counts(&engine, &[Some(0), None]), Vec::new()] {
        let facts = RequestFacts { calls: &calls, ..facts() };
        let decision = engine.decide(&alice(&engine), &target, &facts);
        assert!(matches!(decision.outcome, Outcome::Deny(Refusal::Error(_))), "{decision:?}");
        assert!(!engine.visible(&alice(&engine), &target, &facts));
    }
    // One that no policy looks at may be missing.
    let calls = counts(&engine, &[None, Some(0)]);
    let facts = RequestFacts { calls: &calls, ..facts() };
    assert!(engine.decide(&alice(&engine), &target, &facts).is_permit());
}

#[test]
fn a_typed_tool_is_listed_as_long_as_some_arguments_are_within_the_limit() {
    let engine = engine(
        r#"@id("a") permit (principal, action in MCP::Action::"call_tool", resource);
           @id("b") forbid (principal, action == MCP::Action::"files/read", resource)
           when { context.request.calls.payments >= 1 && context.arguments.path == "secret"
                  || context.request.calls.payments >= 2 };"#,
    );
    let arguments = json(r#"{"path": "secret"}"#);
    let target = Target::Tool { server: "files", name: "read", arguments: &arguments };
    for (calls, permitted, listed) in [
        (Some(0), true, true),
        (Some(1), false, true),
        (Some(2), false, false),
        (None, false, false),
    ] {
        let calls = counts(&engine, &[Some(0), calls]);
        let facts = RequestFacts { calls: &calls, ..facts() };
        assert_eq!(
            engine.decide(&alice(&engine), &target, &facts).is_permit(),
            permitted,
            "{calls:?}"
        );
        assert_eq!(engine.visible(&alice(&engine), &target, &facts), listed, "{calls:?}");
    }
}

#[test]
fn only_requests_that_a_policy_on_counters_can_matter_to_look_at_them() {
    let engine = engine(
        r#"@id("a") permit (principal, action, resource);
           @id("b") forbid (principal, action in MCP::Action::"call_tool", resource in MCP::Server::"bank")
           when { context.request.calls.payments >= 2 };"#,
    );
    let arguments = json("{}");
    let looks = |server| {
        let target = Target::Tool { server, name: "other", arguments: &arguments };
        engine.looks_at_calls(&alice(&engine), Some(&target))
    };
    assert!(looks("bank"));
    assert!(!looks("files"));
    assert!(engine.looks_at_calls(&alice(&engine), None), "a list may hold anything");
}

#[test]
fn everything_that_is_wrong_with_counters_is_said() {
    let long = CounterConfig { window_seconds: 32 * 86_400, ..counter("bank") };
    let instant = CounterConfig { window_seconds: 0, ..counter("bank") };
    let nameless = CounterConfig { tools: vec![String::new()], ..counter("bank") };
    let wrong = [
        ("Upper", counter("bank")),
        ("if", counter("bank")),
        ("nowhere", counter("nobody")),
        ("long", long),
        ("instant", instant),
        ("nameless", nameless),
    ];
    let problems = PolicyEngine::compile(&with(&wrong, ""), &servers()).unwrap_err();
    let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
    let expected = [
        "policy.counters.Upper",
        "policy.counters.if",
        "policy.counters.instant.window_seconds",
        "policy.counters.long.window_seconds",
        "policy.counters.nameless.tools[0]",
        "policy.counters.nowhere.server",
    ];
    assert_eq!(paths, expected, "{}", texts(&problems).join("\n"));
    let many: BTreeMap<String, CounterConfig> =
        (0..17).map(|number| (format!("c{number}"), counter("bank"))).collect();
    let problems =
        PolicyEngine::compile(&PolicyConfig { counters: many, ..config("") }, &servers());
    assert_eq!(problems.unwrap_err()[0].path, "policy.counters");
    let unknown = with(
        &[("payments", counter("bank"))],
        r#"@id("a") permit (principal, action, resource) when { context.request.calls.paiments < 2 };"#,
    );
    let problems = texts(&PolicyEngine::compile(&unknown, &servers()).unwrap_err());
    assert!(problems[0].contains("calls.paiments"), "{problems:?}");
}

#[test]
fn counters_are_part_of_the_version() {
    let version = |counters: &[(&str, CounterConfig)]| {
        PolicyEngine::compile(&with(counters, ""), &servers()).unwrap().version().to_owned()
    };
    let all = CounterConfig { counts: CountedCalls::All, ..counter("bank") };
    let versions = [
        version(&[]),
        version(&[("payments", counter("bank"))]),
        version(&[("payments", all)]),
        version(&[("other", counter("bank"))]),
    ];
    for (index, one) in versions.iter().enumerate() {
        assert!(versions.iter().skip(index + 1).all(|other| one != other), "{versions:?}");
    }
}

#[test]
fn what_was_checked_with_some_counters_was_not_checked_with_others() {
    let checked = |names: &[&str]| {
        let counters: Vec<_> = names.iter().map(|name| (*name, counter("bank"))).collect();
        with(&counters, LIMITED).checked()
    };
    assert_ne!(checked(&["payments"]), checked(&["others"]));
    assert_ne!(checked(&["payments"]), checked(&[]));
}
