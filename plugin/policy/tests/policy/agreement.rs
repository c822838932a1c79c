//! Lists and calls agree, and both agree with plain Cedar over all policies at once, whatever was
//! asked before.

#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use toolgate_policy::{
    Outcome, PolicyEngine, Principal, Refusal, RequestFacts, ServerAction, Target,
};

use crate::plain::*;
use crate::support::*;

const THINGS: [Thing; 18] = [
    ("Tool", "bank/pay"),
    ("Tool", "bank/book"),
    ("Tool", "files/read"),
    ("Tool", "files/list"),
    ("Tool", "files/find"),
    ("Tool", "files/other"),
    ("Tool", "bank/letter"),
    ("Tool", "bank/other"),
    ("Prompt", "bank/letter"),
    ("Prompt", "bank/pay"),
    ("Prompt", "files/other"),
    ("Resource", "bank/bank://open/1"),
    ("Resource", "bank/bank://shut/1"),
    ("Resource", "files/file:///open"),
    ("connect", "bank"),
    ("connect", "files"),
    ("set_log_level", "bank"),
    ("use_tasks", "bank"),
];

fn one_of(texts: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    prop::sample::select(texts)
}

fn policy() -> impl Strategy<Value = String> {
    let principal = one_of(&[
        "principal",
        "principal",
        "principal == MCP::User::\"alice\"",
        "principal in MCP::Group::\"staff\"",
        "principal in MCP::Group::\"bosses\"",
        "principal in MCP::Role::\"auditor\"",
        "principal is MCP::Anonymous",
        "principal is MCP::Client",
        "principal == MCP::Client::\"alice\"",
        "principal is MCP::Client in MCP::Role::\"auditor\"",
        "principal is MCP::User in MCP::Group::\"bankers\"",
    ]);
    let action = one_of(&[
        "action",
        "action",
        "action in MCP::Action::\"mcp\"",
        "action in MCP::Action::\"call_tool\"",
        "action in MCP::Action::\"bank-write\"",
        "action in MCP::Action::\"call_read_only_tool\"",
        "action in MCP::Action::\"call_destructive_tool\"",
        "action in [MCP::Action::\"call_read_only_tool\", MCP::Action::\"get_prompt\", MCP::Action::\"bank-write\"]",
        "action == MCP::Action::\"bank/pay\"",
        "action == MCP::Action::\"files/read\"",
        "action in [MCP::Action::\"bank/pay\", MCP::Action::\"files/read\"]",
        "action in [MCP::Action::\"bank/pay\", MCP::Action::\"bank-write\", MCP::Action::\"call_tool\"]",
        "action == MCP::Action::\"get_prompt\"",
        "action == MCP::Action::\"read_resource\"",
        "action in [MCP::Action::\"connect\", MCP::Action::\"set_log_level\"]",
    ]);
    let resource = one_of(&[
        "resource",
        "resource",
        "resource is MCP::Tool",
        "resource in MCP::Server::\"bank\"",
        "resource in MCP::Gateway::\"toolgate\"",
        "resource is MCP::Tool in MCP::Server::\"files\"",
        "resource is MCP::Resource in MCP::Server::\"bank\"",
        "resource == MCP::Tool::\"bank/pay\"",
        "resource == MCP::Tool::\"files/list\"",
        "resource == MCP::Tool::\"files/find\"",
        "resource == MCP::Prompt::\"bank/letter\"",
        "resource == MCP::Resource::\"bank/bank://open/1\"",
    ]);
    let condition = one_of(&[
        "true",
        // Arguments.
        "context has arguments && context.arguments has amount && context.arguments.amount < 3",
        "context has arguments && context.arguments has amount && context.arguments.amount * 4611686018427387904 > 0",
        "context has arguments && context.arguments has path && context.arguments.path like \"a*\"",
        "context has arguments && context.arguments has urgent && context.arguments.urgent",
        "context has arguments.to && context.arguments.to == \"a\"",
        "context.request.scopes.contains(\"s\") || (context has arguments && context.arguments has to && context.arguments.to == \"a\")",
        "context has arguments",
        // Facts.
        "context.request.scopes.contains(\"s\")",
        "context.request has source_ip && context.request.source_ip.isLoopback()",
        "resource in MCP::Server::\"bank\" && context.request.time < datetime(\"2030-01-01\")",
        "context.request.time.toTime() >= duration(\"9h\")",
        "context.request has session && context.request.session == \"one\"",
        "context has request.client_name && context.request.client_name == \"shell\"",
        "context.request has token_age_seconds && context.request.token_age_seconds < 60",
        "context.request has token_age_seconds && context.request.token_age_seconds * 4611686018427387904 > 0",
        "context.request has protocol_version",
        "[context.request].contains(context.request)",
        // Neither.
        "action in MCP::Action::\"bank-write\"",
        "action in MCP::Action::\"call_destructive_tool\" || context.request.scopes.contains(\"s\")",
        "resource is MCP::Tool && resource.read_only",
        "resource is MCP::Tool && resource.server has region && resource.server.region == \"eu\"",
        "resource is MCP::Tool && resource.name like \"*t*\"",
        "resource is MCP::Resource && resource.uri like \"*open*\"",
        "resource == MCP::Tool::\"files/other\"",
        "[resource].contains(MCP::Prompt::\"bank/pay\")",
        "principal is MCP::User && principal.hasTag(\"department\") && principal.getTag(\"department\") == \"finance\"",
        "principal is MCP::User && principal has client",
        "principal is MCP::Client && principal has client && principal.client like \"robot*\"",
        "principal in MCP::Group::\"tellers\" && principal.id == \"robot\"",
    ]);
    let effect = one_of(&["permit", "permit", "permit", "forbid"]);
    let clause = one_of(&["when", "when", "unless"]);
    (effect, principal, action, resource, clause, condition).prop_map(
        |(effect, principal, action, resource, clause, condition)| {
            format!("{effect}({principal}, {action}, {resource}) {clause} {{ {condition} }};")
        },
    )
}

/// Arguments of `thing`, the last ones not of the declared type.
fn arguments(thing: Thing) -> Vec<Value> {
    match thing {
        ("Tool", "bank/pay") => (0..5)
            .map(|n| json!({"to": if n % 2 == 0 { "a" } else { "b" }, "amount": n}))
            .chain([json!({"to": "a", "amount": "1"})])
            .collect(),
        ("Tool", "files/read") => {
            vec![json!({"path": "abc"}), json!({"path": "b"}), json!({"path": "abc", "more": 1})]
        }
        ("Tool", "bank/book") => vec![
            json!({"lines": [{"amount": 1}]}),
            json!({"lines": [], "urgent": true}),
            json!({"urgent": true}),
        ],
        _ => vec![json!({})],
    }
}

/// Everything about a request but who asks for what.
#[derive(Clone, Debug)]
struct Circumstances {
    arguments: prop::sample::Index,
    time_ms: i64,
    scopes: Vec<String>,
    source_ip: Option<&'static str>,
    session: Option<&'static str>,
    client_name: Option<&'static str>,
    token_age_seconds: Option<i64>,
    protocol_version: Option<&'static str>,
}

impl Circumstances {
    fn facts(&self) -> RequestFacts<'_> {
        RequestFacts {
            calls: &[],
            time_ms: self.time_ms,
            scopes: &self.scopes,
            source_ip: self.source_ip,
            session: self.session,
            client_name: self.client_name,
            token_age_seconds: self.token_age_seconds,
            protocol_version: self.protocol_version,
        }
    }
}

fn circumstances() -> impl Strategy<Value = Circumstances> {
    let text = |texts: &'static [Option<&'static str>]| prop::sample::select(texts);
    (
        any::<prop::sample::Index>(),
        prop::sample::select(&[MORNING, NOON, YEARS_LATER][..]),
        any::<bool>(),
        text(&[None, Some("127.0.0.1"), Some("10.0.0.1")]),
        text(&[None, Some("one"), Some("two")]),
        text(&[None, Some("shell")]),
        prop::sample::select(&[None, Some(1), Some(59), Some(61)][..]),
        text(&[None, Some("2025-11-25")]),
    )
        .prop_map(
            |(arguments, time_ms, scope, source_ip, session, client_name, age, version)| {
                Circumstances {
                    arguments,
                    time_ms,
                    scopes: if scope { vec!["s".to_owned()] } else { Vec::new() },
                    source_ip,
                    session,
                    client_name,
                    token_age_seconds: age,
                    protocol_version: version,
                }
            },
        )
}

/// One request: who, for what, how.
type Step = (Who, Thing, Circumstances);

/// Requests that come after each other: of few callers under few circumstances, so that most were
/// made before, and something else in between.
fn steps(count: usize) -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(circumstances(), 1..4).prop_flat_map(move |few| {
        let step = (
            prop::sample::select(&EVERYBODY[..]),
            prop::sample::select(&THINGS[..]),
            prop::sample::select(few),
        );
        prop::collection::vec(step, count)
    })
}

/// The text of those `policies` that can apply to anything: others are refused when configured,
/// which is not the question here.
fn applicable(policies: &[String]) -> String {
    let text = |policies: &[&String]| {
        let numbered = policies.iter().enumerate();
        numbered.map(|(n, policy)| format!("@id(\"p{n}\") {policy}\n")).collect::<String>()
    };
    let all: Vec<&String> = policies.iter().collect();
    let refused = PolicyEngine::compile(&config(&text(&all)), &servers()).err().unwrap_or_default();
    let lines: HashSet<usize> = refused
        .iter()
        .map(|problem| problem.path.split(':').nth(1).unwrap().parse().unwrap())
        .collect();
    let kept: Vec<&String> = (1..)
        .zip(all)
        .filter(|(line, _)| !lines.contains(line))
        .map(|(_, policy)| policy)
        .collect();
    text(&kept)
}

/// What the requests for one kind of thing came to.
#[derive(Default)]
struct Tally {
    requests: usize,
    permitted: usize,
    refused: usize,
    failed: usize,
    mistyped: usize,
    shown: usize,
    hidden: usize,
    only_shown: usize,
}

/// An engine and plain Cedar with the same policies.
struct Both {
    text: String,
    engine: PolicyEngine,
    plain: Plain,
    principals: Vec<(Who, Principal)>,
}

impl Both {
    fn new(policies: &[String]) -> Self {
        let text = applicable(policies);
        let engine = engine(&text);
        let principals = EVERYBODY.into_iter().map(|who| (who, who.principal(&engine))).collect();
        Self { plain: Plain::new(&text), text, engine, principals }
    }

    /// Puts one request to both and compares call and list.
    fn compare(&self, step: &Step, tally: &mut Tally) -> Result<(), TestCaseError> {
        let (who, thing, circumstances) = step;
        let facts = circumstances.facts();
        let all = arguments(*thing);
        let arguments = circumstances.arguments.get(&all);
        let expected = self.plain.ask(*who, *thing, arguments, &facts);
        let any = all.iter().any(|arguments| {
            let answer = self.plain.ask(*who, *thing, arguments, &facts);
            answer.is_some_and(|answer| answer.permitted)
        });

        let (_, principal) = self.principals.iter().find(|(known, _)| known == who).unwrap();
        let ours = json(&arguments.to_string());
        let (server, name) = thing.1.split_once('/').unwrap_or((thing.1, ""));
        let target = match thing.0 {
            "Tool" => Target::Tool { server, name, arguments: &ours },
            "Prompt" => Target::Prompt { server, name },
            "Resource" => Target::Resource { server, uri: name },
            "connect" => Target::Server(server, ServerAction::Connect),
            "use_tasks" => Target::Server(server, ServerAction::UseTasks),
            _ => Target::Server(server, ServerAction::SetLogLevel),
        };
        let decision = self.engine.decide(principal, &target, &facts);
        let visible = self.engine.visible(principal, &target, &facts);
        let about = || format!("{step:?} {arguments} {decision:?} {}", self.text);

        tally.requests += 1;
        let failed = matches!(decision.outcome, Outcome::Deny(Refusal::Error(_)));
        match &expected {
            Some(expected) => {
                prop_assert_eq!(decision.is_permit(), expected.permitted, "{}", about());
                prop_assert_eq!(failed, expected.failed, "{}", about());
                let found: BTreeSet<String> =
                    decision.policies.iter().map(ToString::to_string).collect();
                if !failed {
                    prop_assert_eq!(&found, &expected.reasons, "{}", about());
                }
                tally.permitted += usize::from(expected.permitted);
                tally.failed += usize::from(failed);
                tally.refused += usize::from(!expected.permitted && !failed);
            }
            None => {
                let told = matches!(decision.outcome, Outcome::Deny(Refusal::InvalidArguments(_)));
                prop_assert!(!decision.is_permit(), "{}", about());
                prop_assert!(failed || told == visible, "{}", about());
                tally.mistyped += 1;
            }
        }
        let invisible = matches!(decision.outcome, Outcome::Deny(Refusal::Invisible));
        prop_assert!(!(invisible && visible), "{}", about());
        prop_assert!(visible || !any, "hidden and permitted: {}", about());
        if !has_own_action(*thing) {
            prop_assert_eq!(visible, any, "without arguments lists are exact: {}", about());
        }
        tally.shown += usize::from(visible && any);
        tally.only_shown += usize::from(visible && !any);
        tally.hidden += usize::from(!visible);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn decisions_and_lists_agree_with_plain_cedar_whatever_was_asked_before(
        policies in prop::collection::vec(policy(), 1..12),
        steps in steps(40),
    ) {
        let both = Both::new(&policies);
        for step in &steps {
            both.compare(step, &mut Tally::default())?;
        }
    }
}

#[test]
fn ten_thousand_random_requests_are_answered_as_by_plain_cedar() {
    const SETS: usize = 200;
    const STEPS: usize = 50;
    let mut runner = TestRunner::deterministic();
    let mut tallies: BTreeMap<&str, Tally> = BTreeMap::new();
    let mut policies = 0;
    for _ in 0..SETS {
        let set = prop::collection::vec(policy(), 1..16);
        let set = set.new_tree(&mut runner).unwrap().current();
        let both = Both::new(&set);
        policies += both.text.lines().count();
        for step in steps(STEPS).new_tree(&mut runner).unwrap().current() {
            let kind = match step.1 {
                thing if has_own_action(thing) => "tool with typed arguments",
                ("Tool", _) => "tool",
                ("Prompt", _) => "prompt",
                ("Resource", _) => "resource",
                _ => "server",
            };
            if let Err(error) = both.compare(&step, tallies.entry(kind).or_default()) {
                panic!("{error}");
            }
        }
    }
    let table = table(&tallies, SETS, policies);
    if wants_table() {
        write_table(&table);
    }
    // Where `usize` is narrower, other requests come of the same seed: there is no table for them.
    if cfg!(target_pointer_width = "32") {
        return;
    }
    let written = include_str!("../../../../docs/policy-agreement.md");
    assert!(written == table, "docs/policy-agreement.md is old: run this test with WRITE_DOCS=1");
}

#[expect(clippy::disallowed_methods, reason = "a test that documents")]
fn wants_table() -> bool {
    std::env::var_os("WRITE_DOCS").is_some()
}

#[expect(clippy::disallowed_methods, reason = "a test that documents")]
fn write_table(table: &str) {
    std::fs::write("../../docs/policy-agreement.md", table).unwrap();
}

fn table(tallies: &BTreeMap<&str, Tally>, sets: usize, policies: usize) -> String {
    let requests: usize = tallies.values().map(|tally| tally.requests).sum();
    let mut text = format!(
        "# Calls and lists against plain Cedar\n\n\
         Written by a test ([agreement.rs](../plugin/policy/tests/policy/agreement.rs)); do not edit.\n\n\
         {requests} random requests of six callers, put in random order to {sets} engines with {policies} random\n\
         policies between them, and to plain Cedar: its own authoriser over all policies and all entities, its\n\
         own JSON formats, its own check of the request. Policies have scopes of every form, forbids, groups of\n\
         groups, roles, tags, attributes, arguments, facts of the request, and conditions that overflow. Most\n\
         requests come again after others, so that what engines remember is compared too.\n\n\
         Every call was answered alike: decision, deciding policies, errors. Everything that plain Cedar would\n\
         permit with some of the tried arguments was listed. What has no typed arguments was listed exactly when\n\
         it was permitted.\n\n\
         | asked for | requests | permitted | refused | a policy failed | arguments or caller of another type | listed and callable | listed, not callable with what was tried | not listed | disagreements |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n"
    );
    for (kind, tally) in tallies {
        text.push_str(&format!(
            "| {kind} | {} | {} | {} | {} | {} | {} | {} | {} | 0 |\n",
            tally.requests,
            tally.permitted,
            tally.refused,
            tally.failed,
            tally.mistyped,
            tally.shown,
            tally.only_shown,
            tally.hidden
        ));
    }
    text
}
