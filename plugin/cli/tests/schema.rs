//! `toolgate schema`, run as operators run it: on the real lists of the demo's servers, on lists that are
//! odd, and on live servers that speak either revision.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod common;
mod peer;

use common::{fixture, json, root, text, toolgate};
use peer::{Peer, Speaks};
use serde_json::{Value, json};
use toolgate_policy::{
    Caller, Outcome, PolicyConfig, PolicyEngine, PolicyText, Problem, Refusal, RequestFacts, Target,
};
use toolgate_protocol::json::Json;

/// The schema that is made of lists in files, and its warnings.
fn made(sources: &[&str]) -> Value {
    let sources: Vec<String> = sources
        .iter()
        .map(|name| format!("{name}={}", fixture(&format!("tools/{name}.json"))))
        .collect();
    let sources: Vec<&str> = sources.iter().map(String::as_str).collect();
    let (report, code) = json(&[&["schema"], &sources[..]].concat());
    assert_eq!(code, 0, "{report}");
    report
}

fn compile(made: &Value, servers: &[&str], policies: &str) -> Result<PolicyEngine, Vec<Problem>> {
    let config = PolicyConfig {
        counters: std::collections::BTreeMap::new(),
        name: "made".into(),
        policies: PolicyText::One(policies.to_owned()),
        schema: Some(made["schema"].as_str().unwrap().to_owned()),
        entities: made["entities"].as_array().unwrap().clone(),
        mode: toolgate_policy::PolicyMode::default(),
    };
    let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
    PolicyEngine::compile(&config, &servers)
}

fn call(engine: &PolicyEngine, tool: &str, arguments: &Value) -> Outcome {
    let (server, name) = tool.split_once('/').unwrap();
    let arguments = Json::parse(arguments.to_string().as_bytes()).unwrap();
    let caller = Caller { id: "alice".into(), ..Caller::default() };
    let principal = engine.principal(&caller).unwrap();
    let target = Target::Tool { server, name, arguments: &arguments };
    engine.decide(&principal, &target, &RequestFacts::default()).outcome
}

#[test]
fn the_types_of_the_demo_s_servers_hold() {
    let made = made(&["billing", "everything"]);
    assert_eq!((&made["tools"], &made["typed"]), (&json!(16), &json!(16)));
    let engine = compile(
        &made,
        &["billing", "everything"],
        "@id(\"small\") permit (principal, action == MCP::Action::\"billing/refund\", resource)
           when { context.arguments.amount <= 100 };
         @id(\"sum\") permit (principal, action == MCP::Action::\"everything/get-sum\", resource)
           when { context.arguments.a.lessThan(decimal(\"10.5\")) };
         @id(\"read\") permit (principal, action in MCP::Action::\"call_tool\", resource is MCP::Tool)
           when { resource.read_only };",
    )
    .unwrap_or_else(|problems| panic!("{problems:?}"));
    let refund = |arguments| call(&engine, "billing/refund", &arguments);
    assert_eq!(refund(json!({"invoice": "a", "amount": 100})), Outcome::Permit);
    let refused = Outcome::Deny(Refusal::Arguments { advice: Vec::new() });
    assert_eq!(refund(json!({"invoice": "a", "amount": 101})), refused);
    for wrong in [
        json!({"invoice": "a", "amount": 1.5}),
        json!({"invoice": "a", "amount": "1"}),
        json!({"amount": 1}),
        json!({"invoice": "a", "amount": 1, "more": 1}),
    ] {
        let outcome = refund(wrong);
        assert!(matches!(outcome, Outcome::Deny(Refusal::InvalidArguments(_))), "{outcome:?}");
    }
    assert_eq!(call(&engine, "everything/get-sum", &json!({"a": 1, "b": 2.25})), Outcome::Permit);
    // What the servers say of their tools is there for policies, once an operator put it in force.
    assert_eq!(call(&engine, "billing/statement", &json!({})), Outcome::Permit);
    let invisible = Outcome::Deny(Refusal::Invisible);
    assert_eq!(call(&engine, "billing/delete_customer", &json!({"customer": "a"})), invisible);
}

#[test]
fn a_policy_that_mistypes_an_argument_is_rejected_with_line_and_fix() {
    let made = made(&["billing"]);
    for (condition, message, help) in [
        (
            "context.arguments.amuont <= 100",
            "attribute `arguments.amuont`",
            "did you mean `amount`?",
        ),
        ("context.arguments.amount <= \"100\"", "expected Long but saw String", ""),
        ("context.arguments.reason == \"x\"", "unable to guarantee safety", "has"),
    ] {
        let policy = format!(
            "@id(\"a\") permit (principal, action == MCP::Action::\"billing/refund\", resource)\n\
             when {{ {condition} }};"
        );
        let problems = compile(&made, &["billing"], &policy).unwrap_err();
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        let [problem] = &problems[..] else { panic!("{told:?}") };
        assert!(problem.path.starts_with("policy.policies:2:"), "{told:?}");
        assert!(problem.message.contains(message), "{told:?}");
        assert!(problem.help.as_deref().unwrap_or_default().contains(help), "{told:?}");
    }
}

#[test]
fn odd_names_are_quoted_and_what_has_no_type_is_said() {
    let made = made(&["odd"]);
    let schema = made["schema"].as_str().unwrap();
    for part in [
        "action \"odd/create-issue\" in [call_tool]",
        "\"if\"?: Long,",
        "weight?: decimal,",
        "due?: datetime,",
        "\"a b\": Bool,",
        "// \"odd/any\": it has no type, so policies do not see its arguments",
        "\"odd/weird\\\"name\\n// permit\"",
        "// one of \"\\n}\"",
    ] {
        assert!(schema.contains(part), "{part}\n{schema}");
    }
    let warnings: Vec<String> = made["warnings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|warning| format!("{}: {}", warning["tool"], warning["message"]))
        .collect();
    let expected =
        ["arguments.weight", "arguments.anything", "it has no type", "another tool", "no name"];
    assert_eq!(warnings.len(), expected.len(), "{warnings:?}");
    assert!(
        warnings.iter().zip(expected).all(|(found, part)| found.contains(part)),
        "{warnings:?}"
    );
    assert_eq!(made["entities"][1]["attrs"], json!({"read_only": true, "destructive": false}));
    compile(&made, &["odd"], "").unwrap();
}

#[test]
fn the_schema_goes_to_the_output_and_warnings_to_the_other_stream() {
    let source = format!("odd={}", fixture("tools/odd.json"));
    let output = toolgate(&["schema", &source]);
    assert_eq!(output.status.code(), Some(0));
    let (schema, notes) = (String::from_utf8(output.stdout), String::from_utf8(output.stderr));
    assert!(schema.unwrap().starts_with("// The types of tools' arguments"));
    let notes = notes.unwrap();
    assert!(notes.starts_with("warning: odd/create-issue: `arguments.weight`"), "{notes}");
    assert!(notes.ends_with("2 of 5 tools have a type\n"), "{notes}");
    let entities = toolgate(&["schema", &source, "--entities"]).stdout;
    let entities: Value = serde_json::from_slice(&entities).unwrap();
    assert_eq!(entities[0]["uid"], json!({"type": "MCP::Tool", "id": "odd/create-issue"}));
}

#[test]
fn live_servers_of_every_revision_are_asked_page_by_page() {
    for speaks in [Speaks::LegacyJson, Speaks::LegacyStream, Speaks::Modern] {
        let peer = Peer::start(speaks);
        let source = format!("live={}", peer.url);
        let (report, code) = json(&["schema", &source]);
        assert_eq!((code, &report["typed"]), (0, &json!(2)), "{speaks:?}: {report}");
        let schema = report["schema"].as_str().unwrap();
        assert!(schema.contains("\"live/first\"") && schema.contains("\"live/second\""));
        let closes = peer.requests().iter().any(|request| request.starts_with("DELETE"));
        assert_eq!(closes, speaks != Speaks::Modern, "{speaks:?}");
    }
}

#[test]
fn credentials_come_from_variables_and_files_and_are_never_told() {
    let peer = Peer::start(Speaks::LegacyJson);
    let source = format!("live={}", peer.url);
    let directory = std::env::temp_dir().join(format!("toolgate-schema-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let file = directory.join("token");
    std::fs::write(&file, "s.xyzzy-file\n").unwrap();
    let run = |options: &[&str]| {
        std::process::Command::new(env!("CARGO_BIN_EXE_toolgate"))
            .args(["schema", &source])
            .args(options)
            .env("A_KEY", "s.xyzzy-variable")
            .current_dir(root())
            .output()
            .unwrap()
    };
    let output = run(&["--token-file", file.to_str().unwrap(), "--header-env", "x-key=A_KEY"]);
    assert_eq!(output.status.code(), Some(0));
    let requests = peer.requests();
    let sent = |request: &String| {
        request.contains("authorization: Bearer s.xyzzy-file\r\n")
            && request.contains("x-key: s.xyzzy-variable\r\n")
    };
    assert!(!requests.is_empty() && requests.iter().all(sent), "{requests:?}");
    let failing = [
        run(&["--token-env", "NOT_SET"]),
        run(&["--header-env", "bad name=A_KEY"]),
        run(&["--header-env", "x-key=A_KEY", "second=http://127.0.0.1:1/"]),
    ];
    assert!(failing.iter().all(|output| output.status.code() == Some(2)), "{failing:?}");
    for output in failing.iter().chain([&output]) {
        let told = [&output.stdout[..], &output.stderr[..]].concat();
        assert!(!String::from_utf8(told).unwrap().contains("xyzzy"));
    }
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_server_that_does_not_answer_so_is_refused_with_the_reason() {
    for (speaks, part) in [
        (Speaks::Redirects, "HTTP status 307"),
        (Speaks::Refuses, "HTTP status 401"),
        (Speaks::Garbage, "no JSON"),
        (Speaks::WithoutEnd, "more than 100 pages"),
    ] {
        let peer = Peer::start(speaks);
        let (report, code) = json(&["schema", &format!("live={}", peer.url)]);
        let error = report["error"].as_str().unwrap_or_default();
        assert!(code == 2 && error.contains(part), "{speaks:?}: {report}");
    }
}

#[test]
fn sources_that_cannot_be_used_say_why() {
    for (source, part) in [
        ("tools.json", "SERVER=URL or SERVER=FILE"),
        ("=tools.json", "name is empty"),
        ("a/b=tools.json", "contains `/`"),
        ("a=nowhere.json", "No such file"),
        ("a=README.md", "not valid JSON"),
        ("a=policies/demo.entities.json", ""),
    ] {
        let (report, code) = json(&["schema", source]);
        let error = report["error"].as_str().unwrap_or_default();
        // Entities are a list of objects without names: nothing is made of them.
        assert!(code == 2 || report["typed"] == 0, "{source}: {report}");
        assert!(error.contains(part), "{source}: {report}");
    }
    let (told, code) = text(&["schema", "a=nowhere.json"]);
    assert!(code == 2 && told.starts_with("error: a=nowhere.json"), "{told}");
}
