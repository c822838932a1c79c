//! Reads the configuration document so that everything wrong with its shape is reported at once.
//!
//! serde stops at the first problem. Here what is wrong is mended, by cutting out what cannot be read
//! and filling in what is missing, and reading begins again until nothing is wrong or nothing is
//! left. Not here: what values mean (`compile`).

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use toolgate_policy::Problem;
use toolgate_protocol::json::Json;

/// No document has more problems than anybody reads.
const MOST_PROBLEMS: usize = 50;

/// Reads `document` as a `T`.
///
/// # Errors
/// Every problem of shape, with the path of its field: unknown fields, wrong types, missing fields.
pub(crate) fn read<T: DeserializeOwned>(document: &[u8]) -> Result<T, Vec<Problem>> {
    // The strict parser refuses what serde_json would read in a way that nobody meant: of a key
    // that is given twice, the last.
    let not_json = |error: String| {
        let message = format!("the configuration is not valid JSON: {error}");
        vec![Problem { path: String::new(), message, help: None }]
    };
    Json::parse(document).map_err(|error| not_json(error.to_string()))?;
    let mut rest: Value =
        serde_json::from_slice(document).map_err(|error| not_json(error.to_string()))?;
    let mut problems: Vec<Problem> = Vec::new();
    // Where something was cut out or filled in: what is wrong there has been reported.
    let mut mended: Vec<Vec<Step>> = Vec::new();
    for _ in 0..MOST_PROBLEMS {
        let FirstProblem { path, message, is_missing } = match attempt::<T>(&rest) {
            Ok(value) if problems.is_empty() => return Ok(value),
            Ok(_) => break,
            Err(problem) => problem,
        };
        if !mended.iter().any(|mended| path.starts_with(mended)) {
            problems.push(Problem { path: written(&path), message, help: None });
        }
        let filled = is_missing && fill::<T>(&mut rest, &path);
        // What cannot be filled in is cut out with the object that lacks it.
        let parent = path.split_last().map_or(&[] as &[Step], |(_, parent)| parent);
        if !filled && !remove(&mut rest, if is_missing { parent } else { &path }) {
            break;
        }
        mended.push(path);
    }
    Err(problems)
}

/// The first problem that serde has with a document.
struct FirstProblem {
    path: Vec<Step>,
    message: String,
    is_missing: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Key(String),
    Index(usize),
}

fn attempt<T: DeserializeOwned>(document: &Value) -> Result<T, FirstProblem> {
    serde_path_to_error::deserialize::<_, T>(document).map_err(|error| {
        let mut path = steps(error.path());
        let message = error.inner().to_string();
        // serde reports an unknown or a missing field at the object that has or lacks it.
        let missing = quoted_after(&message, "missing field ");
        let is_missing = missing.is_some();
        let named = missing.or_else(|| quoted_after(&message, "unknown field "));
        if let Some(name) = named.map(Step::Key)
            && path.last() != Some(&name)
        {
            path.push(name);
        }
        FirstProblem { path, message, is_missing }
    })
}

/// Puts something in place of a missing field that lets serde go on to the next problem.
fn fill<T: DeserializeOwned>(document: &mut Value, path: &[Step]) -> bool {
    let Some((Step::Key(name), parents)) = path.split_last() else { return false };
    for placeholder in [json!(""), json!(0), json!([]), json!({}), json!(false)] {
        let Some(Value::Object(parent)) = at(document, parents) else { return false };
        parent.insert(name.clone(), placeholder);
        if attempt::<T>(document).map_or_else(|problem| problem.path != path, |_| true) {
            return true;
        }
    }
    if let Some(Value::Object(parent)) = at(document, parents) {
        parent.remove(name);
    }
    false
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

fn at<'a>(document: &'a mut Value, path: &[Step]) -> Option<&'a mut Value> {
    path.iter().try_fold(document, |value, step| match step {
        Step::Key(key) => value.get_mut(key),
        Step::Index(index) => value.get_mut(index),
    })
}

/// Cuts out what stands at `path`; false when that is the whole document.
fn remove(document: &mut Value, path: &[Step]) -> bool {
    let Some((last, parents)) = path.split_last() else { return false };
    match (at(document, parents), last) {
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
    use std::collections::BTreeMap;

    use serde::Deserialize;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

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
            r#"{"parts":{"a":{"size":"x","name":1,"colour":2},"b":{},"c":{"size":1,"name":"n"}},"list":[{"size":1,"name":"x"},{"size":-1,"name":"y"}],"more":1}"#,
        );
        for path in [
            "parts.a.size",
            "parts.a.name",
            "parts.a.colour",
            "parts.b.size",
            "parts.b.name",
            "list[1].size",
            "more",
        ] {
            assert!(found.contains(&path.to_owned()), "{path} in {found:?}");
        }
        assert_eq!(found.len(), 7, "{found:?}");
    }

    #[test]
    fn a_missing_section_is_a_problem_of_the_document() {
        assert_eq!(paths("{}"), ["parts"]);
    }

    #[test]
    fn a_key_that_is_given_twice_is_a_problem() {
        let problems = read::<Whole>(br#"{"parts":{},"parts":{}}"#).unwrap_err();
        assert!(problems[0].message.contains("same key twice"), "{problems:?}");
    }
}
