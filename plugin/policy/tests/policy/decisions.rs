//! Who gets what, and what is said about it.

#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use std::collections::BTreeMap;

use toolgate_policy::{
    Caller, MAX_MEMBERSHIPS, Outcome, PolicyConfig, PolicyEngine, PrincipalError, Refusal,
    RequestFacts, ServerAction, Target,
};
use toolgate_protocol::json::Json;

use crate::support::*;

const PERMIT_ALL: &str = r#"@id("all") permit(principal, action, resource);"#;

#[test]
fn nothing_is_permitted_without_a_permit() {
    let engine = engine("");
    assert_eq!(refusal(&connect(&engine, "files")), &Refusal::Invisible);
    for tool in ["files/list", "bank/pay", "bank/unheard-of"] {
        let decision = call(&engine, tool, r#"{"to": "bob", "amount": 1}"#);
        assert_eq!(refusal(&decision), &Refusal::Invisible);
        assert!(decision.policies.is_empty() && decision.errors.is_empty());
    }
}

#[test]
fn a_forbid_wins_over_every_permit() {
    let engine = engine(
        r#"@id("all") permit(principal, action, resource);
           @id("mine") permit(principal == MCP::User::"alice", action, resource);
           @id("no") forbid(principal, action in MCP::Action::"call_tool", resource in MCP::Server::"bank");"#,
    );
    assert_eq!(ids(&call(&engine, "files/list", "{}")), ["all", "mine"]);
    let decision = call(&engine, "bank/pay", r#"{"to": "bob", "amount": 1}"#);
    assert_eq!(refusal(&decision), &Refusal::Invisible);
    assert_eq!(ids(&decision), ["no"]);
    assert!(connect(&engine, "bank").is_permit());
}

#[test]
fn an_error_in_a_forbid_denies_and_is_reported() {
    let engine = engine(
        r#"@id("all") permit(principal, action, resource);
           @id("sum") forbid(principal, action == MCP::Action::"bank/pay", resource)
             when { context.arguments.amount * 4611686018427387904 > 100 };"#,
    );
    let decision = call(&engine, "bank/pay", r#"{"to": "bob", "amount": 9}"#);
    assert_eq!(refusal(&decision), &Refusal::Error(vec!["sum".into()]));
    assert_eq!(decision.errors[0].policy.as_deref(), Some("sum"));
    assert!(decision.errors[0].message.contains("overflow"), "{decision:?}");
    assert!(call(&engine, "bank/pay", r#"{"to": "bob", "amount": 0}"#).is_permit());
}

#[test]
fn an_error_in_a_permit_denies_even_when_another_permits() {
    let engine = engine(
        r#"@id("all") permit(principal, action, resource);
           @id("sum") permit(principal, action == MCP::Action::"bank/pay", resource)
             when { context.arguments.amount * 4611686018427387904 > 100 };"#,
    );
    let decision = call(&engine, "bank/pay", r#"{"to": "bob", "amount": 9}"#);
    assert_eq!(refusal(&decision), &Refusal::Error(vec!["sum".into()]));
}

#[test]
fn an_error_whatever_the_arguments_are_denies_and_hides() {
    let engine = engine(
        r#"@id("all") permit(principal, action, resource);
           @id("sum") forbid(principal, action == MCP::Action::"bank/pay", resource)
             when { context.request has token_age_seconds &&
                    context.request.token_age_seconds * 2 > 100 };"#,
    );
    let arguments = json(r#"{"to": "bob", "amount": 9}"#);
    let target = Target::Tool { server: "bank", name: "pay", arguments: &arguments };
    let facts = RequestFacts { token_age_seconds: Some(i64::MAX), ..facts() };
    let decision = engine.decide(&alice(&engine), &target, &facts);
    assert_eq!(refusal(&decision), &Refusal::Error(vec!["sum".into()]));
    assert!(!engine.visible(&alice(&engine), &target, &facts));
    let wrong = Target::Tool { server: "bank", name: "pay", arguments: &Json::Null };
    let decision = engine.decide(&alice(&engine), &wrong, &facts);
    assert_eq!(refusal(&decision), &Refusal::Error(vec!["sum".into()]));
}

#[test]
fn action_in_a_group_reaches_every_action_of_the_group() {
    let group = |group: &str| {
        format!(r#"@id("p") permit(principal, action in MCP::Action::"{group}", resource);"#)
    };
    let pay = r#"{"to": "bob", "amount": 1}"#;
    let write = engine(&group("bank-write"));
    assert!(call(&write, "bank/pay", pay).is_permit());
    assert!(!call(&write, "files/read", r#"{"path": "a"}"#).is_permit());
    let tools = engine(&group("call_tool"));
    assert!(call(&tools, "bank/pay", pay).is_permit());
    assert!(call(&tools, "files/list", "{}").is_permit());
    assert!(!connect(&tools, "bank").is_permit());
    let all = engine(&group("mcp"));
    assert!(call(&all, "bank/pay", pay).is_permit());
    assert!(connect(&all, "bank").is_permit());
}

#[test]
fn action_in_a_group_holds_in_conditions_too() {
    let engine = engine(
        r#"@id("all") permit(principal, action, resource);
           @id("no") forbid(principal, action, resource)
             when { action in MCP::Action::"bank-write" };"#,
    );
    assert!(!sees(&engine, "bank/pay"));
    let decision = call(&engine, "bank/pay", r#"{"to": "bob", "amount": 1}"#);
    assert_eq!(ids(&decision), ["no"]);
    assert!(call(&engine, "files/list", "{}").is_permit());
}

#[test]
fn membership_follows_the_configured_groups_all_the_way() {
    let engine = engine(
        r#"@id("p") permit(principal in MCP::Group::"staff", action, resource);
           @id("r") permit(principal in MCP::Role::"auditor", action, resource);"#,
    );
    let target = Target::Server("files", ServerAction::Connect);
    let permitted = |caller: &Caller| {
        let principal = engine.principal(caller).unwrap();
        engine.decide(&principal, &target, &facts()).is_permit()
    };
    assert!(permitted(&caller("a", &["tellers"])));
    assert!(permitted(&caller("a", &["staff"])));
    assert!(permitted(&caller("a", &["visitors", "bankers", "bankers"])));
    assert!(!permitted(&caller("a", &["visitors"])));
    assert!(!permitted(&caller("staff", &[])));
    assert!(permitted(&Caller { roles: vec!["auditor".to_owned()], ..caller("a", &[]) }));
    assert!(!permitted(&Caller { roles: vec!["staff".to_owned()], ..caller("a", &["auditor"]) }));
    assert!(!engine.decide(&engine.anonymous(), &target, &facts()).is_permit());
}

#[test]
fn claims_are_tags() {
    let engine = engine(
        r#"@id("p") permit(principal is MCP::User, action, resource)
             when { principal.hasTag("department") && principal.getTag("department") == "law" &&
                    principal.issuer == "https://idp.example" &&
                    principal has client && principal.client == "agent" };"#,
    );
    let target = Target::Server("files", ServerAction::Connect);
    let lawyer = Caller {
        claims: BTreeMap::from([("department".to_owned(), "law".to_owned())]),
        client: Some("agent".to_owned()),
        ..caller("a", &[])
    };
    let decide = |caller: &Caller| {
        engine.decide(&engine.principal(caller).unwrap(), &target, &facts()).is_permit()
    };
    assert!(decide(&lawyer));
    assert!(!decide(&Caller { claims: BTreeMap::new(), ..lawyer.clone() }));
    assert!(!decide(&Caller { client: None, ..lawyer }));
}

#[test]
fn too_many_memberships_are_refused() {
    let engine = engine(PERMIT_ALL);
    let many = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>();
    let mut caller = Caller { groups: many(MAX_MEMBERSHIPS), ..caller("a", &[]) };
    assert!(engine.principal(&caller).is_ok());
    caller.groups = many(MAX_MEMBERSHIPS + 1);
    assert_eq!(
        engine.principal(&caller).unwrap_err(),
        PrincipalError::TooMany { what: "groups", count: MAX_MEMBERSHIPS + 1 }
    );
}

#[test]
fn anonymous_gets_what_names_it() {
    let engine = engine(
        r#"@id("p") permit(principal is MCP::Anonymous, action, resource == MCP::Server::"files");
           @id("q") permit(principal == MCP::Anonymous::"anonymous", action == MCP::Action::"files/read", resource)
             when { context.arguments.path like "public/*" };"#,
    );
    let anonymous = engine.anonymous();
    let connect = Target::Server("files", ServerAction::Connect);
    assert!(engine.decide(&anonymous, &connect, &facts()).is_permit());
    assert!(!engine.decide(&alice(&engine), &connect, &facts()).is_permit());
    for (path, permitted) in [("public/a", true), ("private/a", false)] {
        let arguments = json(&format!(r#"{{"path": "{path}"}}"#));
        let target = Target::Tool { server: "files", name: "read", arguments: &arguments };
        assert!(engine.visible(&anonymous, &target, &facts()));
        assert_eq!(engine.decide(&anonymous, &target, &facts()).is_permit(), permitted);
    }
}

#[test]
fn a_tool_that_is_declared_for_users_does_not_exist_for_anonymous() {
    let config = PolicyConfig {
        schema: Some(SCHEMA.replace("principal: [User, Client, Anonymous]", "principal: [User]")),
        ..config(PERMIT_ALL)
    };
    let engine = PolicyEngine::compile(&config, &servers()).unwrap();
    let arguments = json(r#"{"path": "a"}"#);
    let target = Target::Tool { server: "files", name: "read", arguments: &arguments };
    assert!(engine.decide(&alice(&engine), &target, &facts()).is_permit());
    let decision = engine.decide(&engine.anonymous(), &target, &facts());
    assert_eq!(refusal(&decision), &Refusal::Invisible);
    assert!(decision.errors.is_empty());
    assert!(!engine.visible(&engine.anonymous(), &target, &facts()));
}

#[test]
fn prompts_resources_and_server_actions_are_decided_one_by_one() {
    let engine = engine(
        r#"@id("prompt") permit(principal, action == MCP::Action::"get_prompt", resource == MCP::Prompt::"bank/letter");
           @id("uris") permit(principal, action == MCP::Action::"read_resource", resource in MCP::Server::"bank")
             when { resource.scheme == "bank" && resource.uri like "bank://open/*" };
           @id("log") permit(principal, action == MCP::Action::"set_log_level", resource == MCP::Server::"bank");"#,
    );
    let permitted = |target: Target<'_>| engine.decide(&alice(&engine), &target, &facts());
    assert!(permitted(Target::Prompt { server: "bank", name: "letter" }).is_permit());
    assert!(!permitted(Target::Prompt { server: "bank", name: "other" }).is_permit());
    assert!(!permitted(Target::Prompt { server: "files", name: "letter" }).is_permit());
    assert!(permitted(Target::Resource { server: "bank", uri: "bank://open/1" }).is_permit());
    assert!(
        permitted(Target::Resource { server: "bank", uri: "BANK://open/1" }).policies.is_empty()
    );
    assert!(!permitted(Target::Resource { server: "bank", uri: "bank://shut/1" }).is_permit());
    assert!(!permitted(Target::Resource { server: "files", uri: "bank://open/1" }).is_permit());
    assert!(permitted(Target::Server("bank", ServerAction::SetLogLevel)).is_permit());
    assert!(!permitted(Target::Server("files", ServerAction::SetLogLevel)).is_permit());
    assert!(!permitted(Target::Server("bank", ServerAction::Connect)).is_permit());
}

#[test]
fn attributes_come_from_configuration_and_default_to_the_worst() {
    let engine = engine(
        r#"@id("safe") permit(principal, action in MCP::Action::"call_tool", resource)
             when { resource.read_only && !resource.destructive };
           @id("eu") permit(principal, action == MCP::Action::"bank/pay", resource)
             when { resource.server has region && resource.server.region == "eu" &&
                    resource.server.tags.contains("money") && resource.open_world && !resource.idempotent };"#,
    );
    assert!(call(&engine, "files/list", "{}").is_permit());
    assert!(!call(&engine, "files/other", "{}").is_permit());
    assert_eq!(ids(&call(&engine, "bank/pay", r#"{"to": "b", "amount": 1}"#)), ["eu"]);
}

#[test]
fn unknown_servers_do_not_exist_for_anyone() {
    let engine = engine(PERMIT_ALL);
    assert_eq!(refusal(&connect(&engine, "elsewhere")), &Refusal::Invisible);
    assert_eq!(refusal(&call(&engine, "elsewhere/pay", "{}")), &Refusal::Invisible);
    assert!(!sees(&engine, "elsewhere/pay"));
}

#[test]
fn a_name_cannot_be_mistaken_for_an_action_or_another_server() {
    let engine = engine(
        r#"@id("p") permit(principal, action == MCP::Action::"bank/pay", resource);
           @id("q") permit(principal, action == MCP::Action::"connect", resource);"#,
    );
    for name in ["", "connect", "call_tool", "bank/pay", "../bank/pay", "pay\u{0}"] {
        let arguments = json(r#"{"to": "b", "amount": 1}"#);
        let target = Target::Tool { server: "files", name, arguments: &arguments };
        assert!(!engine.decide(&alice(&engine), &target, &facts()).is_permit(), "{name}");
    }
}

#[test]
fn facts_of_the_request_decide() {
    let engine = engine(
        r#"@id("hours") permit(principal, action == MCP::Action::"connect", resource)
             when { context.request.time.toTime() >= duration("8h") && context.request.time.toTime() < duration("18h") };
           @id("scope") permit(principal, action in MCP::Action::"call_tool", resource)
             when { context.request.scopes.contains("files:read") };
           @id("net") forbid(principal, action, resource)
             unless { context.request has source_ip && context.request.source_ip.isInRange(ip("10.0.0.0/8")) };"#,
    );
    let inside = RequestFacts { source_ip: Some("10.1.2.3"), ..facts() };
    let connect = Target::Server("files", ServerAction::Connect);
    let decide = |target: &Target<'_>, facts: &RequestFacts<'_>| {
        engine.decide(&alice(&engine), target, facts).is_permit()
    };
    assert!(decide(&connect, &inside));
    assert!(decide(&connect, &RequestFacts { source_ip: Some("::ffff:10.1.2.3"), ..inside }));
    assert!(!decide(&connect, &RequestFacts { source_ip: None, ..inside }));
    assert!(!decide(&connect, &RequestFacts { source_ip: Some("11.0.0.1"), ..inside }));
    assert!(!decide(&connect, &RequestFacts { time_ms: NOON + 6 * 3_600_000, ..inside }));
    let arguments = json(r#"{"path": "a"}"#);
    let read = Target::Tool { server: "files", name: "read", arguments: &arguments };
    let (right, wrong) = (["files:read".to_owned()], ["files:reader".to_owned()]);
    assert!(decide(&read, &RequestFacts { scopes: &right, ..inside }));
    assert!(!decide(&read, &RequestFacts { scopes: &wrong, ..inside }));
}

#[test]
fn a_fact_without_cedar_form_denies_and_is_reported() {
    let engine = engine(PERMIT_ALL);
    let target = Target::Server("files", ServerAction::Connect);
    for facts in [
        RequestFacts { source_ip: Some("10.0.0.1:443"), ..facts() },
        RequestFacts { time_ms: i64::MAX, ..facts() },
    ] {
        let decision = engine.decide(&alice(&engine), &target, &facts);
        assert_eq!(refusal(&decision), &Refusal::Error(Vec::new()));
        assert_eq!(decision.errors.len(), 1);
        assert!(!engine.visible(&alice(&engine), &target, &facts));
    }
}

#[test]
fn refused_arguments_carry_the_advice_of_forbids_or_else_of_permits() {
    let engine = engine(
        r#"@id("small") @advice("at most 100")
           permit(principal in MCP::Group::"staff", action == MCP::Action::"bank/pay", resource)
             when { context.arguments.amount <= 100 };
           @id("boss") @advice("bosses only")
           permit(principal in MCP::Group::"bosses", action == MCP::Action::"bank/pay", resource)
             when { context.arguments.amount <= 1000 };
           @id("mallory") @advice("not to mallory")
           forbid(principal, action == MCP::Action::"bank/pay", resource)
             when { context.arguments.to == "mallory" };"#,
    );
    let advice = |arguments: &str| {
        let decision = call(&engine, "bank/pay", arguments);
        let ids: Vec<String> = decision.policies.iter().map(ToString::to_string).collect();
        match decision.outcome {
            Outcome::Deny(Refusal::Arguments { advice }) => (advice, ids),
            other => panic!("{other:?}"),
        }
    };
    assert!(call(&engine, "bank/pay", r#"{"to": "bob", "amount": 100}"#).is_permit());
    assert_eq!(advice(r#"{"to": "bob", "amount": 101}"#), (vec!["at most 100".to_owned()], vec![]));
    assert_eq!(
        advice(r#"{"to": "mallory", "amount": 1}"#),
        (vec!["not to mallory".to_owned()], vec!["mallory".to_owned()])
    );
}

#[test]
fn who_may_not_use_a_tool_learns_nothing_from_its_arguments() {
    let engine = engine(r#"@id("p") permit(principal in MCP::Group::"bosses", action, resource);"#);
    for arguments in [r#"{"to": "b", "amount": 1}"#, r#"{"amount": "x"}"#, "null", "[]"] {
        let decision = call(&engine, "bank/pay", arguments);
        assert_eq!(refusal(&decision), &Refusal::Invisible, "{arguments}");
        assert_eq!(decision, call(&engine, "bank/unheard-of", arguments));
    }
}
