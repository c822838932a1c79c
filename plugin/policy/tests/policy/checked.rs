//! Policies that were validated before, and those that are too many to be where somebody waits.

#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use toolgate_policy::{MOST_UNCHECKED, PolicyConfig, PolicyEngine, Validation};

use crate::support::{call, config, servers, texts};

const PAY: &str = r#"@id("pay") permit(principal, action == MCP::Action::"bank/pay", resource)
  when { context.arguments.amount < 100 };"#;

fn compiled(
    config: &PolicyConfig,
    validation: Validation<'_>,
) -> Result<PolicyEngine, Vec<String>> {
    PolicyEngine::compile_with(config, &servers(), validation).map_err(|found| texts(&found))
}

/// So many policies about one tool.
fn many(count: usize) -> PolicyConfig {
    let policies: Vec<String> =
        (0..count).map(|number| PAY.replace("pay\")", &format!("{number}\")"))).collect();
    config(&policies.join("\n"))
}

#[test]
fn what_was_checked_decides_as_if_it_were_checked_now() {
    let config = config(PAY);
    let checked = compiled(&config, Validation::Checked(&config.checked())).unwrap();
    let full = compiled(&config, Validation::Full).unwrap();
    for arguments in [r#"{"to": "x", "amount": 5}"#, r#"{"to": "x", "amount": 500}"#, "{}"] {
        assert_eq!(call(&checked, "bank/pay", arguments), call(&full, "bank/pay", arguments));
    }
    assert_eq!(checked.version(), full.version());
}

#[test]
fn what_was_checked_is_not_validated_again_and_an_error_still_denies() {
    let config = config(&PAY.replace("amount < 100", "amuont < 100"));
    assert!(compiled(&config, Validation::Full).is_err());
    let engine = compiled(&config, Validation::Checked(&config.checked())).unwrap();
    let decision = call(&engine, "bank/pay", r#"{"to": "x", "amount": 5}"#);
    assert!(!decision.is_permit());
    assert_eq!(decision.errors.len(), 1);
}

#[test]
fn other_policies_than_were_checked_are_rejected() {
    let checked = config(PAY).checked();
    let reworded = config(&format!("{PAY} "));
    let other_schema = PolicyConfig { schema: None, ..config(PAY) };
    for other in [&reworded, &other_schema] {
        let found = compiled(other, Validation::Checked(&checked)).unwrap_err();
        let [problem] = &found[..] else { panic!("{found:?}") };
        assert!(problem.starts_with("policy_checked: these are not the policies"), "{problem}");
        assert!(!problem.contains("sha256:"), "whoever copies it has checked nothing: {problem}");
    }
    assert!(compiled(&config(PAY), Validation::Checked("sha256:")).is_err());
    assert_ne!(reworded.checked(), checked);
    assert_ne!(other_schema.checked(), checked);
}

#[test]
fn names_of_servers_are_looked_at_whatever_was_checked() {
    let config = config(
        r#"@id("a") permit(principal, action in MCP::Action::"call_tool", resource in MCP::Server::"nowhere");"#,
    );
    let found = compiled(&config, Validation::Checked(&config.checked())).unwrap_err();
    assert!(found[0].contains("unknown server `nowhere`"), "{found:?}");
}

#[test]
fn too_many_policies_have_to_be_checked_before() {
    let config = many(MOST_UNCHECKED + 1);
    let found = compiled(&config, Validation::Bounded).unwrap_err();
    let [problem] = &found[..] else { panic!("{found:?}") };
    assert!(problem.starts_with("policy_checked: 1001 policies"), "{problem}");
    assert!(problem.contains("toolgate check"), "{problem}");
    let engine = compiled(&config, Validation::Checked(&config.checked())).unwrap();
    assert!(engine.has_to_be_checked());
    assert!(!compiled(&many(2), Validation::Bounded).unwrap().has_to_be_checked());
}
