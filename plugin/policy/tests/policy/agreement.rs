//! Lists and calls agree, and both agree with plain Cedar over all policies at once.

#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use std::collections::HashSet;

use cedar_policy::{
    Authorizer, Context, Decision, Entities, PolicySet, Request, Schema, SchemaFragment,
};
use proptest::prelude::*;
use serde_json::json;
use toolgate_policy::{BASE_SCHEMA, Outcome, PolicyEngine, Refusal, RequestFacts, Target};

use crate::support::*;

const TOOLS: [&str; 5] = ["bank/pay", "files/read", "files/list", "bank/other", "bank/book"];

fn policy() -> impl Strategy<Value = String> {
    let principal = prop::sample::select(vec![
        "principal",
        "principal == MCP::User::\"alice\"",
        "principal in MCP::Group::\"staff\"",
        "principal in MCP::Group::\"bosses\"",
        "principal is MCP::Anonymous",
        "principal is MCP::User in MCP::Group::\"bankers\"",
    ]);
    let action = prop::sample::select(vec![
        "action",
        "action in MCP::Action::\"mcp\"",
        "action in MCP::Action::\"call_tool\"",
        "action in MCP::Action::\"bank-write\"",
        "action == MCP::Action::\"bank/pay\"",
        "action == MCP::Action::\"files/read\"",
        "action in [MCP::Action::\"bank/pay\", MCP::Action::\"files/read\"]",
    ]);
    let resource = prop::sample::select(vec![
        "resource",
        "resource is MCP::Tool",
        "resource in MCP::Server::\"bank\"",
        "resource in MCP::Gateway::\"toolgate\"",
        "resource is MCP::Tool in MCP::Server::\"files\"",
        "resource == MCP::Tool::\"bank/pay\"",
        "resource == MCP::Tool::\"files/list\"",
    ]);
    let condition = prop::sample::select(vec![
        "true",
        "context has arguments && context.arguments has amount && context.arguments.amount < 3",
        "context has arguments && context.arguments has amount && context.arguments.amount * 4611686018427387904 > 0",
        "context has arguments && context.arguments has path && context.arguments.path like \"a*\"",
        "context.request.scopes.contains(\"s\")",
        "context.request has source_ip && context.request.source_ip.isLoopback()",
        "context.request.scopes.contains(\"s\") || (context has arguments && context.arguments has to && context.arguments.to == \"a\")",
        "resource in MCP::Server::\"bank\" && context.request.time < datetime(\"2030-01-01\")",
        "action in MCP::Action::\"bank-write\"",
    ]);
    let effect = prop::sample::select(vec!["permit", "permit", "permit", "forbid"]);
    let clause = prop::sample::select(vec!["when", "when", "unless"]);
    (effect, principal, action, resource, clause, condition).prop_map(
        |(effect, principal, action, resource, clause, condition)| {
            format!("{effect}({principal}, {action}, {resource}) {clause} {{ {condition} }};")
        },
    )
}

fn arguments(tool: &str) -> Vec<serde_json::Value> {
    match tool {
        "bank/pay" => {
            (0..5).map(|n| json!({"to": if n % 2 == 0 { "a" } else { "b" }, "amount": n})).collect()
        }
        "files/read" => vec![json!({"path": "abc"}), json!({"path": "b"})],
        "bank/book" => {
            vec![json!({"lines": [{"amount": 1}]}), json!({"lines": [], "urgent": true})]
        }
        _ => vec![json!({})],
    }
}

/// All entities of `support::config` and of Alice, written by hand.
fn all_entities(tool: &str, schema: &Schema) -> Entities {
    let uid = |ty: &str, id: &str| json!({"type": format!("MCP::{ty}"), "id": id});
    let group = |id: &str, parent: &str| json!({"uid": uid("Group", id), "attrs": {}, "parents": [uid("Group", parent)]});
    let server = tool.split_once('/').unwrap().0;
    let safe = tool == "files/list";
    Entities::from_json_value(
        json!([
            {"uid": uid("User", "alice"), "attrs": {"id": "alice", "issuer": "https://idp.example"},
             "parents": [uid("Group", "tellers")]},
            group("tellers", "bankers"), group("bankers", "staff"),
            {"uid": uid("Group", "staff"), "attrs": {}, "parents": []},
            {"uid": uid("Gateway", "toolgate"), "attrs": {}, "parents": []},
            {"uid": uid("Server", server), "attrs": {"name": server, "tags": []},
             "parents": [uid("Gateway", "toolgate")]},
            {"uid": uid("Tool", tool), "parents": [uid("Server", server)], "attrs": {
                "name": tool.split_once('/').unwrap().1, "server": uid("Server", server),
                "tags": [], "read_only": safe, "destructive": !safe, "idempotent": false,
                "open_world": true}},
        ]),
        Some(schema),
    )
    .unwrap()
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn decisions_and_lists_agree_with_plain_cedar(
        policies in prop::collection::vec(policy(), 1..12),
        scope in any::<bool>(),
        loopback in any::<bool>(),
    ) {
        let text = applicable(&policies);
        let engine = engine(&text);
        let schema = Schema::from_schema_fragments([BASE_SCHEMA, SCHEMA].map(|text| {
            SchemaFragment::from_cedarschema_str(text).unwrap().0
        })).unwrap();
        let plain: PolicySet = text.parse().unwrap();
        let plain = PolicySet::from_policies(plain.policies().map(|policy| {
            policy.new_id(cedar_policy::PolicyId::new(policy.annotation("id").unwrap()))
        })).unwrap();
        let scopes = if scope { vec!["s".to_owned()] } else { Vec::new() };
        let facts = RequestFacts {
            time_ms: NOON,
            scopes: &scopes,
            source_ip: loopback.then_some("127.0.0.1"),
            ..RequestFacts::default()
        };
        for tool in TOOLS {
            let (server, name) = tool.split_once('/').unwrap();
            let entities = all_entities(tool, &schema);
            let own = ["bank/pay", "bank/book", "files/read"].contains(&tool);
            let action: cedar_policy::EntityUid =
                format!("MCP::Action::\"{}\"", if own { tool } else { "call_tool" }).parse().unwrap();
            let mut any = false;
            let mut visible = None;
            for arguments in arguments(tool) {
                let mut request = json!({
                    "time": {"__extn": {"fn": "datetime", "arg": "2026-11-23T12:00:00Z"}},
                    "scopes": scopes,
                });
                if loopback {
                    request["source_ip"] = json!({"__extn": {"fn": "ip", "arg": "127.0.0.1"}});
                }
                let mut context = json!({"request": request});
                if own {
                    context["arguments"] = arguments.clone();
                }
                let context = Context::from_json_value(context, Some((&schema, &action))).unwrap();
                let request = Request::new(
                    "MCP::User::\"alice\"".parse().unwrap(),
                    action.clone(),
                    format!("MCP::Tool::\"{tool}\"").parse().unwrap(),
                    context,
                    Some(&schema),
                ).unwrap();
                let expected = Authorizer::new().is_authorized(&request, &plain, &entities);
                let failed = expected.diagnostics().errors().count() > 0;
                let permitted = expected.decision() == Decision::Allow && !failed;
                any |= permitted;

                let ours = json(&arguments.to_string());
                let target = Target::Tool { server, name, arguments: &ours };
                let decision = engine.decide(&alice(&engine), &target, &facts);
                prop_assert_eq!(decision.is_permit(), permitted, "{} {} {}", tool, arguments, text);
                prop_assert_eq!(
                    matches!(decision.outcome, Outcome::Deny(Refusal::Error(_))), failed,
                    "{} {} {}", tool, arguments, text
                );
                let expected: HashSet<String> =
                    expected.diagnostics().reason().map(ToString::to_string).collect();
                let found: HashSet<String> =
                    decision.policies.iter().map(ToString::to_string).collect();
                if !failed {
                    prop_assert_eq!(&found, &expected, "{} {} {}", tool, arguments, text);
                }

                let seen = engine.visible(&alice(&engine), &target, &facts);
                prop_assert!(*visible.get_or_insert(seen) == seen, "arguments change the list");
                let hidden = matches!(decision.outcome, Outcome::Deny(Refusal::Invisible));
                prop_assert!(!(hidden && seen), "{} {} {}", tool, arguments, text);
            }
            let visible = visible.unwrap_or_default();
            prop_assert!(visible || !any, "hidden and permitted: {} {}", tool, text);
            if !own {
                prop_assert_eq!(visible, any, "untyped lists are exact: {} {}", tool, text);
            }
        }
    }
}
