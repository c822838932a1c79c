//! `notifications/resources/updated` in a server's stream: which resource it speaks of.
//!
//! Not here: who may hear of it.

use crate::json::Json;

/// Method of the notification (2025-11-25 "Resources", 2026-07-28 "Subscriptions").
const METHOD: &str = "notifications/resources/updated";

/// Says that a resource has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResourceUpdate<'a> {
    /// The URI of the resource, which may lie below one that was subscribed to. `None` when the
    /// message names none, so that nobody can be said to be permitted to hear of it.
    pub uri: Option<&'a str>,
}

impl<'a> ResourceUpdate<'a> {
    /// Reads a message of a server; `None` when it is another one.
    #[must_use]
    pub fn read(message: &'a Json) -> Option<Self> {
        let is_update = message.get("method").and_then(Json::as_str) == Some(METHOD);
        let uri = || message.get("params")?.get("uri")?.as_str();
        is_update.then(|| Self { uri: uri() })
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn uri_of(message: &str) -> Option<Option<String>> {
        let message = Json::parse_answer(message.as_bytes()).unwrap();
        ResourceUpdate::read(&message).map(|update| update.uri.map(str::to_owned))
    }

    #[test]
    fn an_update_is_known_by_its_method_and_names_a_uri_or_none() {
        let with = |params: &str| {
            format!(r#"{{"jsonrpc":"2.0","method":"notifications/resources/updated"{params}}}"#)
        };
        assert_eq!(uri_of(&with(r#","params":{"uri":"a:1"}"#)), Some(Some("a:1".into())));
        for nameless in ["", r#","params":{"uri":7}"#, r#","params":[]"#, r#","params":{}"#] {
            assert_eq!(uri_of(&with(nameless)), Some(None), "{nameless}");
        }
        assert_eq!(uri_of(r#"{"jsonrpc":"2.0","method":"notifications/message"}"#), None);
        assert_eq!(uri_of(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#), None);
    }
}
