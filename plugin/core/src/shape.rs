//! Reads the configuration document so that everything wrong with its shape is reported at once.
//!
//! serde stops at the first problem. Here the offending part is cut out of the document and reading
//! begins again, until nothing is wrong or nothing is left. Not here: what values mean (`compile`).

use serde::de::DeserializeOwned;
use serde_json::Value;
use toolgate_policy::Problem;

/// No document has more problems than anybody reads.
const MOST_PROBLEMS: usize = 50;

/// Reads `document` as a `T`.
///
/// # Errors
/// Every problem of shape, with the path of its field: unknown fields, wrong types, missing fields.
pub(crate) fn read<T: DeserializeOwned>(document: &[u8]) -> Result<T, Vec<Problem>> {
    let whole: Value = serde_json::from_slice(document).map_err(|error| {
        vec![Problem {
            path: String::new(),
            message: format!("the configuration is not valid JSON: {error}"),
            help: None,
        }]
    })?;
    let mut rest = whole.clone();
    let mut problems: Vec<Problem> = Vec::new();
    let mut cut: Vec<Vec<Step>> = Vec::new();
    while problems.len() < MOST_PROBLEMS {
        let error = match serde_path_to_error::deserialize::<_, T>(&rest) {
            Ok(value) if problems.is_empty() => return Ok(value),
            Ok(_) => break,
            Err(error) => error,
        };
        let mut path = steps(error.path());
        let message = error.inner().to_string();
        // serde reports an unknown or a missing field at the object that has or lacks it.
        let missing = quoted_after(&message, "missing field ");
        let named = missing.clone().or_else(|| quoted_after(&message, "unknown field "));
        if let Some(name) = named.map(Step::Key)
            && path.last() != Some(&name)
        {
            path.push(name);
        }
        // A field that is missing because it was cut out has been reported already.
        if !cut.contains(&path) {
            problems.push(Problem { path: written(&path), message, help: None });
        }
        // What is missing cannot be cut out, so the object that lacks it is.
        if missing.is_some() {
            path.pop();
        }
        if !remove(&mut rest, &path) {
            break;
        }
        cut.push(path);
    }
    Err(problems)
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Key(String),
    Index(usize),
}

fn steps(path: &serde_path_to_error::Path) -> Vec<Step> {
    use serde_path_to_error::Segment;
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(Step::Index(*index)),
            Segment::Map { key } => Some(Step::Key(key.clone())),
            Segment::Enum { variant } => Some(Step::Key(variant.clone())),
            Segment::Unknown => None,
        })
        .collect()
}

fn written(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Key(key) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(key);
            }
            Step::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

fn quoted_after(message: &str, words: &str) -> Option<String> {
    message.strip_prefix(words)?.strip_prefix('`')?.split('`').next().map(str::to_owned)
}

/// Cuts out what stands at `path`; false when that is the whole document.
fn remove(document: &mut Value, path: &[Step]) -> bool {
    let Some((last, parents)) = path.split_last() else { return false };
    let parent = parents.iter().try_fold(document, |value, step| match step {
        Step::Key(key) => value.get_mut(key),
        Step::Index(index) => value.get_mut(index),
    });
    match (parent, last) {
        (Some(Value::Object(members)), Step::Key(key)) => members.remove(key).is_some(),
        (Some(Value::Array(elements)), Step::Index(index)) if *index < elements.len() => {
            elements.remove(*index);
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Part {
        #[serde(rename = "size")]
        _size: u32,
        #[serde(rename = "name")]
        _name: String,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Whole {
        #[serde(rename = "parts")]
        _parts: BTreeMap<String, Part>,
        #[serde(rename = "list", default)]
        _list: Vec<Part>,
    }

    fn paths(document: &str) -> Vec<String> {
        let problems = read::<Whole>(document.as_bytes()).unwrap_err();
        problems.into_iter().map(|problem| problem.path).collect()
    }

    #[test]
    fn every_problem_of_shape_is_reported_with_its_path() {
        let found = paths(
            r#"{"parts":{"a":{"size":"x","name":1,"colour":2},"b":{"size":1},"c":{"size":1,"name":"n"}},"list":[{"size":1,"name":"x"},{"size":-1,"name":"y"}],"more":1}"#,
        );
        for path in [
            "parts.a.size",
            "parts.a.name",
            "parts.a.colour",
            "parts.b.name",
            "list[1].size",
            "more",
        ] {
            assert!(found.contains(&path.to_owned()), "{path} in {found:?}");
        }
        assert_eq!(found.len(), 6, "{found:?}");
    }

    #[test]
    fn a_missing_section_is_a_problem_of_the_document() {
        assert_eq!(paths("{}"), ["parts"]);
    }
}
