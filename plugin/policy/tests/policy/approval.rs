//! `@approval`: what is only permitted once somebody has approved it.

#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use toolgate_policy::{ApprovalNeeded, Approvers, Outcome, PolicyEngine, Refusal};

use crate::support::{call, config, engine, ids, refusal, sees, servers, texts};

const SMALL: &str = r#"{"to": "x", "amount": 5}"#;
const LARGE: &str = r#"{"to": "x", "amount": 500}"#;

/// Small payments are permitted, larger ones have to be approved, huge ones are forbidden.
const PAYMENTS: &str = r#"
@id("small") permit(principal, action == MCP::Action::"bank/pay", resource)
  when { context.arguments.amount < 100 };
@id("approved") @approval("security") @advice("ask security")
permit(principal, action == MCP::Action::"bank/pay", resource);
@id("huge") forbid(principal, action == MCP::Action::"bank/pay", resource)
  when { context.arguments.amount > 1000 };
"#;

fn group(name: &str) -> Approvers {
    Approvers::Group(name.to_owned())
}

fn needed(approvers: Vec<Approvers>, advice: &[&str]) -> Outcome {
    let advice = advice.iter().map(ToString::to_string).collect();
    Outcome::Approval(ApprovalNeeded { approvers, advice })
}

fn problems(policies: &str) -> Vec<String> {
    texts(&PolicyEngine::compile(&config(policies), &servers()).err().unwrap_or_default())
}

#[test]
fn a_call_that_only_a_permit_with_approval_permits_needs_one() {
    let engine = engine(PAYMENTS);
    let decision = call(&engine, "bank/pay", LARGE);
    assert_eq!(decision.outcome, needed(vec![group("security")], &["ask security"]));
    assert_eq!(ids(&decision), ["approved"]);
    assert!(!decision.is_permit());
    assert_eq!(engine.asks_for_approval(), Some("approved"));
}

#[test]
fn a_permit_without_approval_makes_it_needless() {
    let decision = call(&engine(PAYMENTS), "bank/pay", SMALL);
    assert_eq!(decision.outcome, Outcome::Permit);
    assert_eq!(ids(&decision), ["approved", "small"]);
}

#[test]
fn what_is_forbidden_nobody_can_approve() {
    let decision = call(&engine(PAYMENTS), "bank/pay", r#"{"to": "x", "amount": 5000}"#);
    assert!(matches!(refusal(&decision), Refusal::Arguments { .. }));
    assert_eq!(ids(&decision), ["huge"]);
}

#[test]
fn what_can_be_approved_is_listed() {
    let only =
        r#"@id("a") @approval permit(principal, action == MCP::Action::"bank/pay", resource);"#;
    let engine = engine(only);
    assert!(sees(&engine, "bank/pay"));
    assert_eq!(call(&engine, "bank/pay", LARGE).outcome, needed(vec![Approvers::Anyone], &[]));
}

#[test]
fn of_several_permits_each_says_who_may_approve() {
    let several = r#"
@id("a") @approval("security") @advice("b") permit(principal, action in MCP::Action::"call_tool", resource);
@id("b") @approval("finance") @advice("a") permit(principal, action == MCP::Action::"bank/pay", resource);
@id("c") @approval("finance") permit(principal, action, resource == MCP::Tool::"bank/pay");
@id("d") @approval permit(principal, action, resource is MCP::Tool);
"#;
    let approvers = vec![Approvers::Anyone, group("finance"), group("security")];
    let decision = call(&engine(several), "bank/pay", LARGE);
    assert_eq!(decision.outcome, needed(approvers, &["a", "b"]));
    assert_eq!(ids(&decision), ["a", "b", "c", "d"]);
}

#[test]
fn without_such_a_policy_nothing_asks_for_approval() {
    let plain = r#"@id("a") permit(principal, action in MCP::Action::"call_tool", resource);"#;
    assert_eq!(engine(plain).asks_for_approval(), None);
}

#[test]
fn approval_on_a_forbid_is_rejected() {
    let found = problems(
        r#"@id("a") @approval forbid(principal, action == MCP::Action::"bank/pay", resource);"#,
    );
    let [problem] = &found[..] else { panic!("{found:?}") };
    assert!(problem.starts_with("policy.policies:1:1: `@approval` on a forbid"), "{problem}");
}

#[test]
fn approval_on_more_than_calls_of_tools_is_rejected() {
    for scope in [
        "principal, action, resource",
        "principal, action == MCP::Action::\"connect\", resource",
        "principal, action in MCP::Action::\"mcp\", resource",
        "principal, action in [MCP::Action::\"call_tool\", MCP::Action::\"connect\"], resource",
        "principal, action, resource in MCP::Server::\"bank\"",
        "principal, action, resource is MCP::Prompt",
    ] {
        let found = problems(&format!("@id(\"a\") @approval permit({scope});"));
        assert!(
            found.iter().any(|problem| problem.contains("not only about calls of tools")),
            "{scope}: {found:?}"
        );
    }
}

#[test]
fn a_group_of_approvers_has_a_name() {
    for name in [" ", "a ", "a\\nb"] {
        let found = problems(&format!(
            "@id(\"a\") @approval(\"{name}\") permit(principal, action == MCP::Action::\"bank/pay\", resource);"
        ));
        assert!(found.iter().any(|problem| problem.contains("no name of a group")), "{found:?}");
    }
}
