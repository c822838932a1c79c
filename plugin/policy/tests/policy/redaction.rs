//! `@redact`: what records may hold of arguments.

#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use crate::support::{engine, json};

#[test]
fn redacted_arguments_are_taken_out_wherever_the_scope_names_the_tool() {
    let engine = engine(
        r#"
@id("pay") @redact("arguments.memo") permit(principal in MCP::Group::"nobody",
  action == MCP::Action::"bank/pay", resource) when { context.arguments.amount < 3 };
@id("book") @redact("arguments.lines.amount, arguments.extra") forbid(principal,
  action == MCP::Action::"bank/book", resource);
@id("others") @redact("arguments.secret.word") permit(principal,
  action in MCP::Action::"call_tool", resource in MCP::Server::"files");
"#,
    );
    for (server, tool, arguments, expected) in [
        ("bank", "pay", r#"{"memo":"x","amount":5}"#, Some(r#"{"memo":"[redacted]","amount":5}"#)),
        ("bank", "pay", r#"{"amount":5}"#, Some(r#"{"amount":5}"#)),
        (
            "bank",
            "book",
            r#"{"lines":[{"amount":1},{"amount":[2]}],"extra":{"type":"x"}}"#,
            Some(
                r#"{"lines":[{"amount":"[redacted]"},{"amount":"[redacted]"}],"extra":"[redacted]"}"#,
            ),
        ),
        (
            "files",
            "any",
            r#"{"secret":{"word":"x","other":1}}"#,
            Some(r#"{"secret":{"word":"[redacted]","other":1}}"#),
        ),
        ("files", "any", r#"{"secret":"x"}"#, Some(r#"{"secret":"[redacted]"}"#)),
        ("bank", "any", r#"{"secret":{"word":"x"}}"#, None),
    ] {
        let found = engine.redacted(server, tool, &json(arguments));
        assert_eq!(found, expected.map(json), "{server}/{tool} {arguments}");
    }
    assert!(crate::support::engine("").redacted("bank", "pay", &json("{}")).is_none());
}
