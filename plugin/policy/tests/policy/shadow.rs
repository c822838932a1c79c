//! Policies in shadow: evaluated, and without any effect.

#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use toolgate_policy::{
    PolicyConfig, PolicyEngine, PolicyMode, Refusal, ServerAction, ShadowDecision, Target,
};
use toolgate_protocol::json::Json;

use crate::support::{alice, call, config, connect, engine, facts, json, refusal, sees, servers};

const PAY: &str = r#"{"to": "x", "amount": 5}"#;

/// Two policies that decide.
const IN_FORCE: &str = r#"
@id("pay") permit(principal, action == MCP::Action::"bank/pay", resource)
  when { context.arguments.amount < 100 };
@id("read") permit(principal, action == MCP::Action::"files/read", resource);
"#;

/// And of each kind one that does not, in the same places.
const IN_SHADOW: &str = r#"
@id("less") @mode("shadow") forbid(principal, action == MCP::Action::"bank/pay", resource)
  when { context.arguments.amount > 3 };
@id("book") @mode("shadow") permit(principal, action == MCP::Action::"bank/book", resource);
@id("errs") @mode("shadow") forbid(principal, action == MCP::Action::"files/read", resource)
  when { context.request.time.toTime().toMilliseconds() + 9223372036854775807 > 0 };
@id("all") @mode("shadow") permit(principal, action == MCP::Action::"connect", resource);
"#;

fn in_shadow(engine: &PolicyEngine, tool: &str, arguments: &str) -> Option<ShadowDecision> {
    let (server, name) = tool.split_once('/').unwrap();
    let arguments = json(arguments);
    let target = Target::Tool { server, name, arguments: &arguments };
    let decided = engine.decide(&alice(engine), &target, &facts());
    engine.shadow(&alice(engine), &target, &facts(), &decided)
}

fn ids(shadow: &ShadowDecision) -> Vec<&str> {
    shadow.policies.iter().map(AsRef::as_ref).collect()
}

#[test]
fn policies_in_shadow_change_neither_decisions_nor_lists() {
    let (plain, both) = (engine(IN_FORCE), engine(&format!("{IN_FORCE}{IN_SHADOW}")));
    for (tool, arguments) in [
        ("bank/pay", PAY),
        ("bank/pay", r#"{"to": "x", "amount": 500}"#),
        ("bank/pay", "{}"),
        ("bank/book", r#"{"lines": []}"#),
        ("files/read", r#"{"path": "x"}"#),
        ("files/other", "{}"),
    ] {
        assert_eq!(call(&both, tool, arguments), call(&plain, tool, arguments), "{tool}");
        assert_eq!(sees(&both, tool), sees(&plain, tool), "{tool}");
    }
    assert_eq!(connect(&both, "bank"), connect(&plain, "bank"));
}

#[test]
fn what_they_would_decide_is_told_with_those_that_would_determine_it() {
    let engine = engine(&format!("{IN_FORCE}{IN_SHADOW}"));
    let pay = in_shadow(&engine, "bank/pay", PAY).unwrap();
    assert!(matches!(refusal(&pay.decision), Refusal::Arguments { .. }));
    assert_eq!(ids(&pay), ["less"]);
    let book = in_shadow(&engine, "bank/book", r#"{"lines": []}"#).unwrap();
    assert!(book.decision.is_permit());
    assert_eq!(ids(&book), ["book"]);
    let read = in_shadow(&engine, "files/read", r#"{"path": "x"}"#).unwrap();
    assert!(matches!(refusal(&read.decision), Refusal::Error(_)));
    assert_eq!(ids(&read), ["errs"]);
    assert!(in_shadow(&engine, "bank/pay", r#"{"to": "x", "amount": 2}"#).is_none());
    let list = |tool: &str| {
        let (server, name) = tool.split_once('/').unwrap();
        let target = Target::Tool { server, name, arguments: &Json::Null };
        engine.visible_in_shadow(&alice(&engine), &target, &facts())
    };
    assert_eq!(list("bank/book"), Some(true));
    assert_eq!(list("files/read"), Some(false));
}

#[test]
fn without_policies_in_shadow_nothing_is_told() {
    let engine = engine(IN_FORCE);
    assert!(in_shadow(&engine, "bank/pay", PAY).is_none());
    let target = Target::Server("bank", ServerAction::Connect);
    assert_eq!(engine.visible_in_shadow(&alice(&engine), &target, &facts()), None);
}

#[test]
fn a_set_in_shadow_is_another_version_and_tells_every_decision() {
    let shadow = PolicyConfig { mode: PolicyMode::Shadow, ..config(IN_FORCE) };
    let shadow = PolicyEngine::compile(&shadow, &servers()).unwrap();
    assert_eq!(shadow.mode(), PolicyMode::Shadow);
    assert_ne!(shadow.version(), engine(IN_FORCE).version());
    let permitted = in_shadow(&shadow, "bank/pay", PAY).unwrap();
    assert!(permitted.decision.is_permit());
    assert_eq!(ids(&permitted), ["pay"]);
    assert!(!in_shadow(&shadow, "bank/book", r#"{"lines": []}"#).unwrap().decision.is_permit());
}
