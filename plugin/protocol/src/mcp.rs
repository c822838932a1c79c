//! What a message means in MCP: the revisions, the methods of each, and what a caller must be
//! allowed to do for the message to pass.
//!
//! One table names every method that passes (`METHODS`); a method that is not in it is refused.
//! Not here: HTTP headers (`headers`), policy.

mod meta;
mod method;
mod operation;
mod version;

pub use meta::{
    META_CLIENT_CAPABILITIES, META_CLIENT_INFO, META_PROTOCOL_VERSION, check_modern_meta,
    claimed_version, client_name,
};
pub use method::{Asks, METHODS, Method};
pub use operation::{ListKind, McpError, Operation, Subscriptions, mirrored_name, operation};
pub use version::{Era, Version};

#[cfg(test)]
mod tests {
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::json::Json;
    use crate::jsonrpc::Message;

    const MODERN: Option<Version> = Some(Version::V2026_07_28);

    fn message(method: &str, params: &str) -> Message {
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
        Message::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_call_is_read_with_its_name_and_arguments() {
        let call = message("tools/call", r#"{"name":"refund","arguments":{"amount":1}}"#);
        let Operation::CallTool { name, arguments } = operation(&call, None).unwrap() else {
            panic!("not a call");
        };
        assert_eq!(name, "refund");
        assert_eq!(arguments.unwrap().get("amount"), Some(&Json::Integer(1)));
    }

    #[test]
    fn a_method_outside_its_era_does_not_exist() {
        for (method, era) in [
            ("initialize", MODERN),
            ("ping", MODERN),
            ("logging/setLevel", MODERN),
            ("resources/subscribe", MODERN),
            ("server/discover", None),
            ("subscriptions/listen", None),
            ("tools/execute", None),
            ("TOOLS/CALL", None),
            ("notifications/initialized", None),
        ] {
            let refused = message(method, "{}");
            assert!(
                matches!(operation(&refused, era), Err(McpError::UnknownMethod(..))),
                "{method} as a request in {era:?}"
            );
        }
    }

    #[test]
    fn a_method_exists_in_the_revisions_of_its_row_and_in_no_other() {
        let exists = |name: &str, version| Method::find(name, true, version).is_some();
        for (name, first, last) in [
            ("tools/call", "2024-11-05", "2026-07-28"),
            ("resources/subscribe", "2024-11-05", "2025-11-25"),
            ("tasks/result", "2025-11-25", "2025-11-25"),
            ("tasks/get", "2025-11-25", "2026-07-28"),
            ("tasks/update", "2026-07-28", "2026-07-28"),
        ] {
            for version in Version::ALL {
                let expected = first <= version.as_str() && version.as_str() <= last;
                assert_eq!(exists(name, Some(version)), expected, "{name} in {version}");
            }
            assert_eq!(exists(name, None), first < "2026-07-28", "{name} unsaid");
        }
    }

    #[test]
    fn a_parameter_that_may_be_absent_may_be_null() {
        for (method, params) in [
            ("tools/list", r#"{"cursor":null,"_meta":null}"#),
            ("tools/call", r#"{"name":"a","arguments":null}"#),
        ] {
            let read = message(method, params);
            assert!(operation(&read, None).is_ok(), "{method} {params}");
            assert_eq!(claimed_version(&read), Ok(None));
        }
    }

    #[test]
    fn a_completion_is_the_prompt_or_resource_it_completes() {
        let prompt = message("completion/complete", r#"{"ref":{"type":"ref/prompt","name":"p"}}"#);
        assert_eq!(operation(&prompt, None), Ok(Operation::GetPrompt { name: "p" }));
        let resource =
            message("completion/complete", r#"{"ref":{"type":"ref/resource","uri":"a://{b}"}}"#);
        assert_eq!(operation(&resource, MODERN), Ok(Operation::ReadResource { uri: "a://{b}" }));
    }

    #[test]
    fn a_parameter_that_names_the_object_must_be_there_and_be_text() {
        for (method, params) in [
            ("tools/call", "{}"),
            ("tools/call", r#"{"name":7}"#),
            ("tools/call", r#"{"name":["a"]}"#),
            ("tools/call", r#"{"name":"a","arguments":[1]}"#),
            ("tools/call", r#"{"name":"a","Name":"b"}"#),
            ("tools/call", r#"{"name":"a","arguments\u0000":{}}"#),
            ("resources/read", r#"{"uri":null}"#),
            ("completion/complete", r#"{"ref":{"type":"ref/tool","name":"p"}}"#),
            ("completion/complete", r#"{"ref":"p"}"#),
            ("tasks/get", "{}"),
            ("tasks/get", r#"{"taskId":4}"#),
            ("tools/call", r#"{"name":"a","task":true}"#),
            ("tools/call", r#"{"name":"a","requestState":{}}"#),
            ("tools/call", r#"{"name":"a","inputResponses":{"k":[]}}"#),
            ("prompts/get", r#"{"name":"a","arguments":"x"}"#),
            ("tools/list", r#"{"cursor":1}"#),
            ("logging/setLevel", "{}"),
            ("initialize", r#"{"protocolVersion":20250326}"#),
        ] {
            let refused = message(method, params);
            assert!(
                matches!(
                    operation(&refused, None),
                    Err(McpError::InvalidParams(_)
                        | McpError::InvalidName(_)
                        | McpError::LookAlike(_))
                ),
                "{method} {params}"
            );
        }
    }

    #[test]
    fn every_resource_of_a_subscription_is_named() {
        let listen = message(
            "subscriptions/listen",
            r#"{"notifications":{"toolsListChanged":true,"resourceSubscriptions":["a:1","a:2"]}}"#,
        );
        assert_eq!(Subscriptions::read(listen.params()).unwrap().uris, ["a:1", "a:2"]);
        let tasks = message("subscriptions/listen", r#"{"notifications":{"taskIds":["t"]}}"#);
        assert_eq!(Subscriptions::read(tasks.params()).unwrap().tasks, ["t"]);
        let mistyped = message(
            "subscriptions/listen",
            r#"{"notifications":{"resourceSubscriptions":["a:1",2]}}"#,
        );
        assert!(operation(&mistyped, MODERN).is_err());
    }

    #[test]
    fn a_modern_request_needs_its_meta() {
        let bare = message("tools/list", "{}");
        assert!(check_modern_meta(&bare).is_err());
        let full = message(
            "tools/list",
            r#"{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}"#,
        );
        assert_eq!(check_modern_meta(&full), Ok(()));
        assert_eq!(claimed_version(&full).unwrap(), Some("2026-07-28"));
    }
}
