//! Clients that act for themselves: principals of a type of their own.

#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use toolgate_policy::{
    Caller, CallerKind, PolicyConfig, PolicyEngine, Principal, Refusal, ServerAction, Target,
};
use toolgate_protocol::json::Json;

use crate::support::*;

fn client(engine: &PolicyEngine, id: &str, groups: &[&str]) -> Principal {
    let caller = Caller { kind: CallerKind::Client, ..caller(id, groups) };
    engine.principal(&caller).unwrap()
}

const CONNECT: Target<'static> = Target::Server("bank", ServerAction::Connect);

#[test]
fn a_user_and_a_client_of_one_id_are_two_principals() {
    let engine = engine(
        r#"@id("user") permit(principal == MCP::User::"alice", action == MCP::Action::"connect", resource == MCP::Server::"bank");
           @id("client") permit(principal == MCP::Client::"alice", action == MCP::Action::"connect", resource == MCP::Server::"files");"#,
    );
    let files = Target::Server("files", ServerAction::Connect);
    // In both orders, so that nothing that is remembered of one is said of the other.
    for _ in 0..2 {
        let (user, client) = (alice(&engine), client(&engine, "alice", &[]));
        for (principal, target, permitted) in [
            (&user, CONNECT, true),
            (&client, CONNECT, false),
            (&client, files, true),
            (&user, files, false),
        ] {
            assert_eq!(engine.decide(principal, &target, &facts()).is_permit(), permitted);
            assert_eq!(engine.visible(principal, &target, &facts()), permitted);
        }
    }
}

#[test]
fn a_client_has_groups_roles_claims_and_a_name_like_a_user() {
    let engine = engine(
        r#"@id("a") permit(principal is MCP::Client in MCP::Group::"staff", action, resource)
             when { principal has client && principal.client == "nightly" &&
                    principal.hasTag("department") && principal.getTag("department") == "finance" };
           @id("b") permit(principal in MCP::Role::"auditor", action, resource);"#,
    );
    let nightly = Caller {
        kind: CallerKind::Client,
        client: Some("nightly".to_owned()),
        claims: [("department".to_owned(), "finance".to_owned())].into(),
        roles: vec!["auditor".to_owned()],
        ..caller("0oa1", &["tellers"])
    };
    let found = engine.decide(&engine.principal(&nightly).unwrap(), &CONNECT, &facts());
    assert_eq!(ids(&found), ["a", "b"]);
    let person = engine.principal(&Caller { kind: CallerKind::User, ..nightly }).unwrap();
    assert_eq!(ids(&engine.decide(&person, &CONNECT, &facts())), ["b"]);
}

#[test]
fn what_is_written_for_users_is_not_for_clients() {
    let engine = engine(r#"@id("users") permit(principal is MCP::User, action, resource);"#);
    let robot = client(&engine, "robot", &["staff"]);
    let decision = engine.decide(&robot, &CONNECT, &facts());
    assert_eq!(refusal(&decision), &Refusal::Invisible);
    assert!(!engine.visible(&robot, &CONNECT, &facts()));
}

#[test]
fn an_action_without_clients_is_loaded_advised_on_and_says_why_it_is_not_there_for_one() {
    let engine = engine(r#"@id("all") permit(principal, action, resource);"#);
    let robot = client(&engine, "robot", &["staff"]);
    let arguments = json(r#"{"lines": []}"#);
    // Its action is declared for `[User, Anonymous]`, as before there were clients.
    let book = Target::Tool { server: "bank", name: "book", arguments: &arguments };
    let decision = engine.decide(&robot, &book, &facts());
    assert_eq!(refusal(&decision), &Refusal::Invisible);
    assert!(decision.errors.is_empty());
    assert!(!engine.visible(&robot, &book, &facts()));
    assert_eq!(
        engine.left_out(&robot, &book).unwrap(),
        "policy.schema has MCP::Action::\"bank/book\" for no caller of type MCP::Client"
    );
    assert_eq!(engine.left_out(&alice(&engine), &book), None);
    assert!(engine.decide(&alice(&engine), &book, &facts()).is_permit());
    let other = Target::Tool { server: "bank", name: "other", arguments: &Json::Null };
    assert!(engine.decide(&robot, &other, &facts()).is_permit());

    let [advice] = &texts(&engine.advice())[..] else { panic!("{:?}", engine.advice()) };
    assert!(advice.starts_with("policy.schema: "), "{advice}");
    assert!(advice.contains("permitted `bank/book`, clients"), "{advice}");
    assert!(advice.contains("help: write `principal: [User, Client, Anonymous]`"), "{advice}");
}

#[test]
fn an_action_that_is_meant_for_users_or_for_everybody_needs_no_advice() {
    for principals in ["[User]", "[Client]", "[User, Client]", "[User, Client, Anonymous]"] {
        let config = PolicyConfig {
            schema: Some(SCHEMA.replace("[User, Anonymous]", principals)),
            ..config(r#"@id("all") permit(principal, action, resource);"#)
        };
        let engine = PolicyEngine::compile(&config, &servers()).unwrap();
        assert!(engine.advice().is_empty(), "{principals}");
    }
    let config = PolicyConfig {
        schema: Some(SCHEMA.replace("[User, Anonymous]", "[User, Role]")),
        ..config("")
    };
    let problems = texts(&PolicyEngine::compile(&config, &servers()).unwrap_err());
    assert!(problems[0].contains("not among `User`, `Client` and `Anonymous`"), "{problems:?}");
}
