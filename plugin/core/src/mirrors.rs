//! Which arguments the calls of a tool repeat in `Mcp-Param-*`, and the check that they do.
//!
//! A tool's schema says it, and the gateway knows schemas from two places: the configuration
//! (`servers.NAME.mirrored`), and the lists that pass through a worker. Until a worker has seen a list
//! that names the tool it knows only the former; then nothing but the encoding of the fields is checked.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use toolgate_protocol::headers::Headers;
use toolgate_protocol::json::Json;
use toolgate_protocol::mirror::Mirror;

use crate::denial::{Denial, Reason};

/// Most tools whose marks a worker remembers, over all servers. More are not learned.
const MOST_TOOLS: usize = 4096;

/// Longest name of a tool that is remembered, in bytes.
const LONGEST_NAME: usize = 256;

/// The repeated arguments of tools, by name of the tool.
pub(crate) type MirroredTools = BTreeMap<String, Vec<Mirror>>;

/// What one worker learned from lists.
#[derive(Default)]
pub(crate) struct LearnedMirrors(RefCell<Learned>);

#[derive(Default)]
struct Learned {
    servers: BTreeMap<Rc<str>, MirroredTools>,
    tools: usize,
}

impl LearnedMirrors {
    /// Remembers the marks in the schema of a listed tool, and forgets earlier ones.
    pub(crate) fn learn(&self, server: &Rc<str>, name: &str, schema: Option<&Json>) {
        if name.len() > LONGEST_NAME {
            return;
        }
        let marks = schema.and_then(Mirror::of_schema).unwrap_or_default();
        let mut learned = self.0.borrow_mut();
        let Learned { servers, tools } = &mut *learned;
        let known = servers.get_mut(server).and_then(|known| known.get_mut(name));
        match known {
            Some(known) if !marks.is_empty() => *known = marks,
            Some(_) => {
                servers.get_mut(server).and_then(|known| known.remove(name));
                *tools -= 1;
            }
            None if marks.is_empty() || *tools >= MOST_TOOLS => {}
            None => {
                servers.entry(Rc::clone(server)).or_default().insert(name.to_owned(), marks);
                *tools += 1;
            }
        }
    }

    /// Compares the fields of a call with its arguments. What is `configured` for the tool counts; where
    /// nothing is, what was learned does.
    ///
    /// # Errors
    /// A 400 [`Denial`] when they do not say the same.
    pub(crate) fn check(
        &self,
        configured: &MirroredTools,
        server: &str,
        tool: &str,
        arguments: &Json,
        headers: &Headers,
    ) -> Result<(), Denial> {
        let learned = self.0.borrow();
        let learned = learned.servers.get(server).and_then(|tools| tools.get(tool));
        for mirror in configured.get(tool).or(learned).into_iter().flatten() {
            mirror
                .check(headers, arguments)
                .map_err(|error| Denial::new(Reason::HeaderMismatch, error.to_string()))?;
        }
        Ok(())
    }

    /// The fields that a call has to have, for a client that cannot write them.
    pub(crate) fn fields(
        &self,
        configured: &MirroredTools,
        server: &str,
        tool: &str,
        arguments: &Json,
    ) -> Vec<(String, String)> {
        let learned = self.0.borrow();
        let learned = learned.servers.get(server).and_then(|tools| tools.get(tool));
        let mirrors = configured.get(tool).or(learned).into_iter().flatten();
        let fields = mirrors.filter_map(|mirror| mirror.field(arguments));
        fields.map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// The names that a JSON pointer (RFC 6901) leads along; `None` when it is none, or empty.
pub(crate) fn pointer(text: &str) -> Option<Vec<String>> {
    let names = text.strip_prefix('/')?.split('/');
    Some(names.map(|name| name.replace("~1", "/").replace("~0", "~")).collect())
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn schema(marked: bool) -> Json {
        let mark = if marked { r#","x-mcp-header":"Region""# } else { "" };
        let text = format!(r#"{{"properties":{{"r":{{"type":"string"{mark}}}}}}}"#);
        Json::parse(text.as_bytes()).unwrap()
    }

    fn refuses(learned: &LearnedMirrors, name: &str) -> bool {
        let arguments = Json::parse(br#"{"r":"eu"}"#).unwrap();
        let none = BTreeMap::new();
        learned.check(&none, "a", name, &arguments, &Headers::default()).is_err()
    }

    #[test]
    fn the_last_list_counts() {
        let learned = LearnedMirrors::default();
        assert!(!refuses(&learned, "t"));
        learned.learn(&"a".into(), "t", Some(&schema(true)));
        assert!(refuses(&learned, "t"));
        learned.learn(&"b".into(), "t", Some(&schema(false)));
        assert!(refuses(&learned, "t"), "another server's tool");
        learned.learn(&"a".into(), "t", Some(&schema(false)));
        assert!(!refuses(&learned, "t"));
    }

    #[test]
    fn what_is_remembered_is_bounded_over_all_servers() {
        let learned = LearnedMirrors::default();
        for number in 0..MOST_TOOLS + 10 {
            learned.learn(
                &format!("s{}", number % 7).into(),
                &number.to_string(),
                Some(&schema(true)),
            );
        }
        assert_eq!(learned.0.borrow().tools, MOST_TOOLS);
        learned.learn(&"s0".into(), "0", Some(&schema(false)));
        learned.learn(&"a".into(), "t", Some(&schema(true)));
        assert!(refuses(&learned, "t"), "a place that was given back is used");
    }

    #[test]
    fn pointers_are_unescaped() {
        assert_eq!(pointer("/a~1b/c~0d"), Some(vec!["a/b".into(), "c~d".into()]));
        assert_eq!(pointer("a"), None);
    }
}
