//! Groups of tools by what they do: `call_read_only_tool` and `call_destructive_tool`.

#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use serde_json::{Value, json};
use toolgate_policy::{PolicyConfig, PolicyEngine, Target, Validation};
use toolgate_protocol::json::Json;

use crate::support::*;

fn group(action: &str) -> String {
    format!(r#"@id("p") permit(principal, action in MCP::Action::"{action}", resource);"#)
}

/// Tools with valid arguments, and the action that a call of each is in beside `call_tool`.
const TOOLS: [(&str, &str, Option<&str>); 7] = [
    // Without actions of their own: read-only, additive, and those of which nothing is said.
    ("files/list", "{}", Some("call_read_only_tool")),
    ("bank/letter", "{}", None),
    ("files/find", "{}", Some("call_destructive_tool")),
    ("bank/other", r#"{"anything": 1}"#, Some("call_destructive_tool")),
    // With one: read-only, and two of which nothing is said, one of them in a group of the configuration.
    ("files/read", r#"{"path": "a"}"#, Some("call_read_only_tool")),
    ("bank/pay", r#"{"to": "bob", "amount": 1}"#, Some("call_destructive_tool")),
    ("bank/book", r#"{"lines": []}"#, Some("call_destructive_tool")),
];

#[test]
fn calls_and_lists_are_in_the_group_that_the_operator_s_words_give() {
    for action in ["call_tool", "call_read_only_tool", "call_destructive_tool"] {
        let engine = engine(&group(action));
        for (tool, arguments, within) in TOOLS {
            let expected = action == "call_tool" || within == Some(action);
            assert_eq!(call(&engine, tool, arguments).is_permit(), expected, "{action} {tool}");
            assert_eq!(sees(&engine, tool), expected, "{action} {tool}");
        }
        assert!(!connect(&engine, "bank").is_permit());
    }
}

#[test]
fn the_actions_of_a_call_are_told_the_own_one_first() {
    let engine = engine("");
    let actions =
        |server, name| engine.actions(&Target::Tool { server, name, arguments: &Json::Null });
    assert_eq!(actions("files", "list")[0], "call_read_only_tool");
    assert_eq!(actions("bank", "letter"), ["call_tool", "mcp"]);
    let pay = actions("bank", "pay");
    assert_eq!(pay[0], "bank/pay");
    for group in ["bank-write", "call_destructive_tool", "call_tool", "mcp"] {
        assert!(pay.contains(&group), "{pay:?}");
    }
    assert!(actions("nowhere", "x").is_empty());
}

#[test]
fn a_policy_that_looks_at_names_tells_tools_of_a_group_apart() {
    let engine = engine(
        r#"@id("p") permit(principal, action in MCP::Action::"call_destructive_tool", resource)
             when { resource.name like "a*" };"#,
    );
    // Of these the configuration says nothing, and what is remembered of one must not be said of another.
    for (tool, permitted) in [("bank/abc", true), ("bank/xyz", false), ("bank/abd", true)] {
        assert_eq!(call(&engine, tool, "{}").is_permit(), permitted, "{tool}");
        assert_eq!(sees(&engine, tool), permitted, "{tool}");
    }
}

#[test]
fn arguments_of_the_tools_of_a_group_are_redacted() {
    let engine = engine(
        r#"@id("p") @redact("arguments.secret") forbid(principal, action in MCP::Action::"call_destructive_tool", resource);"#,
    );
    let secret = json(r#"{"secret":1}"#);
    let redacted = json(r#"{"secret":"[redacted]"}"#);
    assert_eq!(engine.redacted("bank", "other", &secret), Some(redacted));
    assert_eq!(engine.redacted("files", "list", &secret), None);
}

fn with(schema: &str, entities: Vec<Value>) -> Result<PolicyEngine, Vec<String>> {
    let config = PolicyConfig { schema: Some(schema.to_owned()), entities, ..config("") };
    PolicyEngine::compile(&config, &servers()).map_err(|found| texts(&found))
}

fn declared(groups: &str) -> String {
    format!(
        "namespace MCP {{ action \"own\" in [call_destructive_tool];\n\
         action \"files/x\" in [{groups}] appliesTo {{ principal: [User], resource: [Tool],\n\
         context: {{ request: Request, arguments: {{}} }} }}; }}"
    )
}

fn described(attributes: Value) -> Vec<Value> {
    vec![json!({"uid": {"type": "MCP::Tool", "id": "files/x"}, "attrs": attributes})]
}

#[test]
fn an_action_in_another_group_than_its_tool_is_rejected_with_the_fix() {
    let destructive = json!({"read_only": false});
    let additive = json!({"destructive": false});
    for (groups, attributes, fix) in [
        (
            "call_read_only_tool",
            json!({}),
            "write `in [call_destructive_tool]`, or say in entities what the tool does: {\"uid\": {\"type\": \"MCP::Tool\", \"id\": \"files/x\"}, \"attrs\": {\"read_only\": true}}",
        ),
        ("call_read_only_tool", destructive, "write `in [call_destructive_tool]`"),
        ("call_tool, call_read_only_tool", additive.clone(), "write `in [call_tool]`"),
        ("own", additive, "\"attrs\": {\"read_only\": false, \"destructive\": true}"),
        ("own, call_tool", json!({"read_only": true}), "write `in [call_read_only_tool]`"),
        (
            "call_read_only_tool, call_destructive_tool",
            json!({"read_only": true}),
            "call_read_only_tool",
        ),
    ] {
        let problems = with(&declared(groups), described(attributes)).unwrap_err();
        let [problem] = &problems[..] else { panic!("{problems:?}") };
        assert!(
            problem.starts_with("policy.schema:2:8: action `files/x`: it lies in"),
            "{problem}"
        );
        assert!(problem.contains(fix), "{problem}");
    }
}

#[test]
fn an_action_in_its_group_or_in_no_other_is_taken() {
    for (groups, attributes, group) in [
        ("call_tool", json!({}), "call_destructive_tool"),
        ("call_destructive_tool", json!({}), "call_destructive_tool"),
        ("own", json!({}), "call_destructive_tool"),
        ("call_tool", json!({"read_only": true}), "call_read_only_tool"),
        // What it destroys means nothing of a tool that only reads.
        (
            "call_read_only_tool",
            json!({"read_only": true, "destructive": true}),
            "call_read_only_tool",
        ),
        ("call_tool", json!({"destructive": false}), "call_tool"),
    ] {
        let engine = with(&declared(groups), described(attributes)).unwrap();
        let arguments = Json::Null;
        let target = Target::Tool { server: "files", name: "x", arguments: &arguments };
        let actions = engine.actions(&target);
        assert!(actions.contains(&group), "{groups} {actions:?}");
        let kinds = actions.iter().filter(|id| id.starts_with("call_") && **id != "call_tool");
        assert!(kinds.count() <= 1, "{groups} {actions:?}");
    }
}

#[test]
fn an_equality_that_would_miss_tools_of_the_group_is_rejected() {
    for action in ["call_read_only_tool", "call_destructive_tool"] {
        let policy = group(action).replace("action in", "action ==");
        let problems = PolicyEngine::compile(&config(&policy), &servers()).unwrap_err();
        let [problem] = &texts(&problems)[..] else { panic!("{problems:?}") };
        let fix = format!("help: write `action in MCP::Action::\"{action}\"`");
        assert!(problem.contains(&fix), "{problem}");
    }
}

#[test]
fn what_was_checked_is_checked_again_when_a_tool_comes_into_another_group() {
    let before = config(&group("call_read_only_tool"));
    let mut after = before.clone();
    after.entities.push(
        json!({"uid": {"type": "MCP::Tool", "id": "bank/pay"}, "attrs": {"read_only": true}}),
    );
    assert_ne!(before.checked(), after.checked());
    let stale = before.checked();
    assert!(PolicyEngine::compile_with(&after, &servers(), Validation::Checked(&stale)).is_err());
    // Other words about a tool change nothing about what was checked.
    let mut tagged = before.clone();
    tagged
        .entities
        .push(json!({"uid": {"type": "MCP::Server", "id": "files"}, "attrs": {"tags": ["x"]}}));
    assert_eq!(before.checked(), tagged.checked());
}
