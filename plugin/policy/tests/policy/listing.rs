//! What is listed: exactly what some arguments could be permitted.

#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use toolgate_policy::{RequestFacts, Target};
use toolgate_protocol::json::Json;

use crate::support::*;

#[test]
fn a_typed_tool_is_listed_when_some_arguments_could_be_permitted() {
    let engine = engine(
        r#"@id("p") permit(principal in MCP::Group::"staff", action == MCP::Action::"bank/pay", resource)
             when { context.arguments.amount <= 100 };
           @id("f") forbid(principal, action == MCP::Action::"bank/pay", resource)
             when { context.arguments.to == "mallory" };"#,
    );
    assert!(sees(&engine, "bank/pay"));
    assert!(!sees(&engine, "bank/book"));
    assert!(!sees(&engine, "files/read"));
}

#[test]
fn what_is_known_of_the_request_decides_without_arguments() {
    let policies = [
        r#"context.request.scopes.contains("pay") && context.arguments.amount <= 100"#,
        r#"context.arguments.amount <= 100 && context.request.scopes.contains("pay")"#,
        r#"context has request && context.request has session && context.request.scopes.contains("pay")"#,
        r#"context["request"]["scopes"].contains("pay") && context has arguments.memo"#,
        r#"context has request.session && context.request.session == "s" && context.request.scopes.contains("pay")"#,
        r#"context has arguments.memo && context.arguments.memo == "s" && context.request.scopes.contains("pay")"#,
        r#"!(context.arguments.amount > 100 || !context.request.scopes.contains("pay"))"#,
        r#"if context.request.scopes.contains("pay") then context.arguments.amount < 7 else false"#,
    ];
    let right = ["pay".to_owned()];
    for condition in policies {
        let engine = engine(&format!(
            r#"@id("p") permit(principal, action == MCP::Action::"bank/pay", resource)
                 when {{ {condition} }};"#
        ));
        let target = Target::Tool { server: "bank", name: "pay", arguments: &Json::Null };
        let facts = RequestFacts { session: Some("s"), ..facts() };
        assert!(!engine.visible(&alice(&engine), &target, &facts), "{condition}");
        let facts = RequestFacts { scopes: &right, ..facts };
        assert!(engine.visible(&alice(&engine), &target, &facts), "{condition}");
    }
}

#[test]
fn a_forbid_that_only_depends_on_the_request_hides() {
    let engine = engine(
        r#"@id("p") permit(principal, action, resource);
           @id("net") forbid(principal, action, resource)
             unless { context.request has source_ip && context.request.source_ip.isInRange(ip("10.0.0.0/8")) };"#,
    );
    assert!(!sees(&engine, "bank/pay"));
    assert!(!sees(&engine, "files/list"));
    let inside = RequestFacts { source_ip: Some("10.0.0.1"), ..facts() };
    for name in ["pay", "list"] {
        let target = Target::Tool { server: "bank", name, arguments: &Json::Null };
        assert!(engine.visible(&alice(&engine), &target, &inside), "{name}");
    }
}

#[test]
fn a_forbid_that_holds_for_all_arguments_hides_however_it_is_written() {
    for condition in [
        r#"context.arguments.amount > 100 || !context.request.scopes.contains("pay")"#,
        r#"if context.arguments.amount > 100 then true else !context.request.scopes.contains("pay")"#,
        r#"context has arguments.memo || !context.request.scopes.contains("pay")"#,
    ] {
        let engine = engine(&format!(
            r#"@id("p") permit(principal, action, resource);
               @id("f") forbid(principal, action == MCP::Action::"bank/pay", resource)
                 when {{ {condition} }};"#
        ));
        assert!(!sees(&engine, "bank/pay"), "{condition}");
        let scopes = ["pay".to_owned()];
        let target = Target::Tool { server: "bank", name: "pay", arguments: &Json::Null };
        let facts = RequestFacts { scopes: &scopes, ..facts() };
        assert!(engine.visible(&alice(&engine), &target, &facts), "{condition}");
    }
}

#[test]
fn the_context_as_a_whole_may_be_compared() {
    let engine = engine(
        r#"@id("p") permit(principal, action == MCP::Action::"files/read", resource)
             when { [context].contains({request: context.request, arguments: {path: "a"}}) };"#,
    );
    assert!(sees(&engine, "files/read"));
    assert!(call(&engine, "files/read", r#"{"path": "a"}"#).is_permit());
    assert!(!call(&engine, "files/read", r#"{"path": "b"}"#).is_permit());
}

#[test]
fn a_policy_over_many_tools_may_look_at_arguments_only_some_have() {
    let engine = engine(
        r#"@id("p") permit(principal, action in MCP::Action::"call_tool", resource);
           @id("f") forbid(principal, action in MCP::Action::"call_tool", resource)
             when { context has arguments && context.arguments has path &&
                    context.arguments.path like "*..*" };"#,
    );
    for tool in ["files/read", "bank/pay", "files/list"] {
        assert!(sees(&engine, tool), "{tool}");
    }
    assert!(call(&engine, "bank/pay", r#"{"to": "..", "amount": 1}"#).is_permit());
    assert!(call(&engine, "files/read", r#"{"path": "a"}"#).is_permit());
    assert!(!call(&engine, "files/read", r#"{"path": "../a"}"#).is_permit());
}

#[test]
fn everything_without_typed_arguments_is_listed_exactly_when_permitted() {
    let engine = engine(
        r#"@id("p") permit(principal, action in MCP::Action::"call_tool", resource == MCP::Tool::"files/list");
           @id("q") permit(principal, action == MCP::Action::"get_prompt", resource == MCP::Prompt::"bank/letter");"#,
    );
    assert!(sees(&engine, "files/list") && !sees(&engine, "files/other"));
    for (name, seen) in [("letter", true), ("other", false)] {
        let target = Target::Prompt { server: "bank", name };
        assert_eq!(engine.visible(&alice(&engine), &target, &facts()), seen);
    }
}
