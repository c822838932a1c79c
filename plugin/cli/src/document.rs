//! Files: reads JSON and YAML and finds the plugin configurations in them.
//!
//! Each comes out as the bytes that the host would hand to the filter. Not here: what hosts do to
//! them on the way (`envoy`, `kong`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;
use serde_saphyr::UserMessageFormatter;

use crate::{envoy, kong};

/// The name that hosts know the plugin by.
pub(crate) const PLUGIN: &str = "toolgate";

/// A plugin configuration in a file.
#[derive(Debug)]
pub(crate) struct Found {
    /// Where it stands in the file; empty when it is the file.
    pub(crate) path: String,
    /// What the host hands to the filter.
    pub(crate) document: Vec<u8>,
    /// What the host lets the filter see of its environment.
    pub(crate) variables: Variables,
}

/// The environment variables that a host hands on to the filter.
#[derive(Debug, PartialEq)]
pub(crate) enum Variables {
    /// The file does not say.
    Unknown,
    /// These only.
    Listed {
        /// Names whose values the host has.
        from_host: BTreeSet<String>,
        /// Values that stand in the file.
        fixed: BTreeMap<String, String>,
    },
}

/// How a file is written. Hosts take numbers differently from the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Syntax {
    Json,
    Yaml,
}

/// Reads the plugin configurations of a file: at least one.
///
/// # Errors
/// Why the file is of no use.
pub(crate) fn read(file: &Path) -> Result<Vec<Found>, String> {
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    let is_json = file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    let syntax = if is_json { Syntax::Json } else { Syntax::Yaml };
    find(&text, syntax)
}

fn find(text: &str, syntax: Syntax) -> Result<Vec<Found>, String> {
    let document: Value = match syntax {
        Syntax::Json => {
            serde_json::from_str(text).map_err(|error| format!("not valid JSON: {error}"))?
        }
        Syntax::Yaml => {
            let problem = |error: serde_saphyr::Error| {
                format!("not valid YAML: {}", error.render_with_formatter(&UserMessageFormatter))
            };
            serde_saphyr::from_str(text).map_err(problem)?
        }
    };
    let found = if envoy::recognises(&document) {
        envoy::find(&document, syntax)?
    } else if kong::recognises(&document) {
        kong::find(&document)
    } else if document.is_object() {
        let document = match syntax {
            Syntax::Json => text.as_bytes().to_vec(),
            Syntax::Yaml => document.to_string().into_bytes(),
        };
        vec![Found { path: String::new(), document, variables: Variables::Unknown }]
    } else {
        return Err("not a configuration: there is no object in it".to_owned());
    };
    if found.is_empty() {
        return Err(format!("there is no plugin named {PLUGIN:?} in it"));
    }
    Ok(found)
}

/// Calls `visit` with every value in `value`, outermost first, and with its path.
pub(crate) fn walk<'a>(value: &'a Value, path: &str, visit: &mut impl FnMut(&'a Value, &str)) {
    visit(value, path);
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                walk(member, &join(path, name), visit);
            }
        }
        Value::Array(elements) => {
            for (index, element) in elements.iter().enumerate() {
                walk(element, &format!("{path}[{index}]"), visit);
            }
        }
        _ => {}
    }
}

/// The path of a member of the object at `path`.
pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// A number that went through a double, as all numbers do in both hosts: whole ones stay whole.
pub(crate) fn through_double(number: &serde_json::Number) -> Value {
    const LARGEST_EXACT: f64 = 9_007_199_254_740_991.0;
    let number = number.as_f64().unwrap_or(f64::NAN);
    #[expect(clippy::cast_possible_truncation, reason = "whole and within 53 bits")]
    if number.trunc() == number && number.abs() <= LARGEST_EXACT {
        Value::from(number as i64)
    } else {
        Value::from(number)
    }
}
