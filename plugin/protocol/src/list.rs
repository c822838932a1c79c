//! Lists in a server's answer: takes out what a caller may not see.
//!
//! Recognises a list by the shape of the result, so that it also finds lists in a replayed or
//! server-initiated stream, where no request tells what the answer is. Not here: who may see what.

use crate::json::Json;
use crate::mcp::ListKind;

/// The members of a result that hold lists, what they list and the member that names an element.
const LISTS: &[(&str, ListKind, &str)] = &[
    ("tools", ListKind::Tools, "name"),
    ("prompts", ListKind::Prompts, "name"),
    ("resources", ListKind::Resources, "uri"),
    ("resourceTemplates", ListKind::ResourceTemplates, "uriTemplate"),
];

/// What filtering a message did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filtered {
    /// Elements that stay.
    pub shown: usize,
    /// Elements that were taken out.
    pub hidden: usize,
    /// Whether the message is not what it was.
    pub edited: bool,
}

/// Takes every element out of the lists of a response that `visible`, which gets its kind, its name
/// and itself, does not vouch for. An element without a name is taken out, too. Shared caches are told that the answer is for this caller only
/// (`cacheScope`, 2026-07-28).
pub fn filter_lists(
    message: &mut Json,
    mut visible: impl FnMut(ListKind, &str, &Json) -> bool,
) -> Filtered {
    let mut filtered = Filtered::default();
    let Some(result) = message.as_object_mut().and_then(|message| message.get_mut("result")) else {
        return filtered;
    };
    let Some(result) = result.as_object_mut() else { return filtered };
    for (member, kind, name) in LISTS {
        let Some(elements) = result.get_mut(member).and_then(Json::as_array_mut) else { continue };
        let before = elements.len();
        elements.retain(|element| {
            let name = element.get(name).and_then(Json::as_str);
            name.is_some_and(|name| visible(*kind, name, element))
        });
        filtered.shown += elements.len();
        filtered.hidden += before - elements.len();
    }
    filtered.edited = filtered.hidden > 0;
    if filtered.shown + filtered.hidden > 0
        && let Some(scope) = result.get_mut("cacheScope")
        && scope.as_str() != Some("private")
    {
        *scope = Json::from("private");
        filtered.edited = true;
    }
    filtered
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn only_what_is_visible_stays_and_all_else_is_untouched() {
        let mut message = Json::parse(
            br#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"a","x":1},{"name":"b"},{"title":"?"},7],"nextCursor":"c","cacheScope":"public"}}"#,
        )
        .unwrap();
        let filtered =
            filter_lists(&mut message, |kind, name, _| kind == ListKind::Tools && name == "a");
        assert_eq!(filtered, Filtered { shown: 1, hidden: 3, edited: true });
        assert_eq!(
            message.to_bytes(),
            br#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"a","x":1}],"nextCursor":"c","cacheScope":"private"}}"#
        );
    }

    #[test]
    fn a_message_without_lists_is_not_edited() {
        let mut message =
            Json::parse(br#"{"jsonrpc":"2.0","id":1,"result":{"content":[]}}"#).unwrap();
        assert!(!filter_lists(&mut message, |_, _, _| false).edited);
    }
}
