//! The policies of a configuration as their author wrote them: where each stands and what it says.
//!
//! For tools that show policies to people. Nothing is validated here; texts that do not parse have no
//! outline, [`crate::PolicyEngine::compile`] says what is wrong with them.

use std::collections::BTreeMap;

use cedar_policy::PolicySet;

use crate::config::{PolicyConfig, PolicyText};
use crate::policies;
use crate::source::Source;

/// What a policy does when it is satisfied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It permits.
    Permit,
    /// It forbids, whatever permits there are.
    Forbid,
}

/// One policy and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyOutline {
    /// Its `@id`; empty when it has none, which no valid configuration contains.
    pub id: String,
    /// Permit or forbid.
    pub effect: Effect,
    /// The file's name in the configuration, where policies stand in named files.
    pub file: Option<String>,
    /// Line of its first character, from one.
    pub line: usize,
    /// Column of its first character, in characters from one.
    pub column: usize,
    /// The policy as it is written, from its first annotation to the semicolon.
    pub text: String,
    /// All annotations.
    pub annotations: BTreeMap<String, String>,
}

impl PolicyConfig {
    /// The policies in the order in which they stand.
    #[must_use]
    pub fn outline(&self) -> Vec<PolicyOutline> {
        let texts: Vec<(Option<&String>, &str)> = match &self.policies {
            PolicyText::One(text) => vec![(None, text)],
            PolicyText::Files(files) => {
                files.iter().map(|(name, text)| (Some(name), text.as_str())).collect()
            }
        };
        let mut outlines = Vec::new();
        for (file, text) in texts {
            let Ok(set) = text.parse::<PolicySet>() else { continue };
            let source = Source::new("", text);
            for (offset, policy) in policies::in_order(&set, text) {
                let (line, column) = source.position(offset);
                outlines.push(PolicyOutline {
                    id: policy.annotation("id").unwrap_or_default().to_owned(),
                    effect: match policy.effect() {
                        cedar_policy::Effect::Permit => Effect::Permit,
                        cedar_policy::Effect::Forbid => Effect::Forbid,
                    },
                    file: file.cloned(),
                    line,
                    column,
                    text: policy.to_cedar().unwrap_or_default(),
                    annotations: policy
                        .annotations()
                        .map(|(name, value)| (name.to_owned(), value.to_owned()))
                        .collect(),
                });
            }
        }
        outlines
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn policies_are_told_with_file_line_and_text() {
        let text = "// a comment\n\n  @id(\"a\")\n  @advice(\"b\")\n  permit(principal, action, resource);\nforbid(principal, action, resource);";
        let config = PolicyConfig {
            name: "x".into(),
            policies: PolicyText::Files(BTreeMap::from([
                ("broken.cedar".to_owned(), "permit(".to_owned()),
                ("some.cedar".to_owned(), text.to_owned()),
            ])),
            schema: None,
            entities: Vec::new(),
            counters: BTreeMap::new(),
            mode: crate::PolicyMode::default(),
        };
        let [first, second] = &config.outline()[..] else { panic!("{:?}", config.outline()) };
        assert_eq!((first.id.as_str(), first.effect), ("a", Effect::Permit));
        assert_eq!(first.file.as_deref(), Some("some.cedar"));
        assert_eq!((first.line, first.column), (3, 3));
        assert!(first.text.starts_with("@id(\"a\")") && first.text.ends_with(';'));
        assert_eq!(first.annotations["advice"], "b");
        assert_eq!((second.id.as_str(), second.effect, second.line), ("", Effect::Forbid, 6));
    }
}
