//! The demo policies do what their README says.

#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use serde_json::Value;
use toolgate_policy::{
    Outcome, PolicyConfig, PolicyEngine, PolicyText, Refusal, RequestFacts, ServerAction, Target,
};
use toolgate_protocol::json::Json;

use crate::support::{caller, json, texts};

fn demo() -> PolicyEngine {
    let entities = include_str!("../../../../policies/demo.entities.json");
    let policies = include_str!("../../../../policies/demo.cedar");
    let schema = include_str!("../../../../policies/demo.cedarschema");
    let entities: Vec<Value> = serde_json::from_str(entities).unwrap();
    let config = PolicyConfig {
        name: "demo".to_owned(),
        policies: PolicyText::Files([("demo.cedar".to_owned(), policies.to_owned())].into()),
        schema: Some(schema.to_owned()),
        entities,
        counters: std::collections::BTreeMap::new(),
        mode: toolgate_policy::PolicyMode::default(),
    };
    PolicyEngine::compile(&config, &["everything".to_owned(), "billing".to_owned()])
        .unwrap_or_else(|problems| panic!("{}", texts(&problems).join("\n")))
}

#[test]
fn the_table_of_the_readme_holds() {
    let engine = demo();
    let facts = RequestFacts::default();
    let none = Json::Null;
    let tool = |server, name| Target::Tool { server, name, arguments: &none };
    // staff, engineering, finance, nobody
    let everybody = [true, true, true, false];
    let finance = [false, false, true, false];
    let nobody = [false; 4];
    for (target, seen) in [
        (Target::Server("everything", ServerAction::Connect), everybody),
        (tool("everything", "echo"), everybody),
        (tool("everything", "get-sum"), everybody),
        (tool("everything", "get-env"), nobody),
        (Target::Prompt { server: "everything", name: "simple-prompt" }, everybody),
        (Target::Resource { server: "everything", uri: "demo://resource/1" }, everybody),
        (Target::Server("everything", ServerAction::SetLogLevel), everybody),
        (Target::Server("everything", ServerAction::UseTasks), everybody),
        (Target::Server("billing", ServerAction::UseTasks), nobody),
        (Target::Server("billing", ServerAction::Connect), finance),
        (Target::Server("billing", ServerAction::SetLogLevel), nobody),
        (tool("billing", "list_invoices"), finance),
        (tool("billing", "statement"), finance),
        (tool("billing", "refund"), finance),
        (tool("billing", "delete_customer"), nobody),
        (tool("billing", "new_tool"), nobody),
        (Target::Prompt { server: "billing", name: "dunning_letter" }, finance),
        (Target::Prompt { server: "billing", name: "other" }, nobody),
        (Target::Resource { server: "billing", uri: "billing://terms" }, finance),
        (Target::Resource { server: "billing", uri: "billing://ledger" }, nobody),
    ] {
        for (groups, seen) in [&["staff"][..], &["engineering"], &["finance"], &[]].iter().zip(seen)
        {
            let principal = engine.principal(&caller("someone", groups)).unwrap();
            assert_eq!(engine.visible(&principal, &target, &facts), seen, "{groups:?} {target:?}");
        }
        assert!(!engine.visible(&engine.anonymous(), &target, &facts), "anonymous {target:?}");
    }
}

#[test]
fn finance_refunds_up_to_100_and_is_told_what_to_do_beyond() {
    let engine = demo();
    let finance = engine.principal(&caller("fiona", &["finance"])).unwrap();
    let refund = |amount: &str| {
        let arguments = json(&format!(r#"{{"invoice": "I-1", "amount": {amount}}}"#));
        let target = Target::Tool { server: "billing", name: "refund", arguments: &arguments };
        engine.decide(&finance, &target, &RequestFacts::default())
    };
    assert_eq!(refund("100").policies, ["finance-small-refunds".into()]);
    for amount in ["101", "0", "-5", "9007199254740991"] {
        let Outcome::Deny(Refusal::Arguments { advice }) = refund(amount).outcome else {
            panic!("{amount}");
        };
        assert_eq!(advice.len(), 1);
        assert!(advice[0].starts_with("Refunds over 100 need a person"));
    }
    for amount in ["99.5", "\"50\"", "null", "{}"] {
        let outcome = refund(amount).outcome;
        assert!(matches!(outcome, Outcome::Deny(Refusal::InvalidArguments(_))), "{amount}");
    }
}
