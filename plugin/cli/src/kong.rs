//! Kong: finds the plugin in a declarative configuration and says what Kong makes of its
//! configuration on the way to the filter.
//!
//! Not here: whether Kong accepts the rest of the file; `kong config parse` says so.

use serde_json::{Map, Value};

use crate::document::{Found, PLUGIN, Variables, join, through_double, walk};

/// Whether a document is a declarative configuration of Kong, with or without the plugin.
pub(crate) fn recognises(document: &Value) -> bool {
    ["_format_version", "filter_chains", "services", "routes", "filters", "plugins"]
        .iter()
        .any(|field| document.get(field).is_some())
}

/// Finds the plugin's configurations: those of filters and of plugins with its name.
pub(crate) fn find(document: &Value) -> Vec<Found> {
    let mut found = Vec::new();
    walk(document, "", &mut |value, path| {
        for list in ["filters", "plugins"] {
            let entries = value.get(list).and_then(Value::as_array);
            for (index, entry) in entries.into_iter().flatten().enumerate() {
                if entry.get("name").and_then(Value::as_str) == Some(PLUGIN) {
                    let path = join(&format!("{}[{index}]", join(path, list)), "config");
                    let document = document_of(entry.get("config").unwrap_or(&Value::Null));
                    // Kong hands none on by itself; what its operator arranged is not in this file.
                    found.push(Found { path, document, variables: Variables::Unknown });
                }
            }
        }
    });
    found
}

fn document_of(config: &Value) -> Vec<u8> {
    match config {
        Value::Null => Vec::new(),
        Value::String(text) => text.as_bytes().to_vec(),
        _ => through_lua(config).to_string().into_bytes(),
    }
}

/// What the filter gets of an object: Lua has one kind of number. That it cannot tell an empty list from
/// an empty object is undone by the filter.
fn through_lua(value: &Value) -> Value {
    match value {
        Value::Number(number) => through_double(number),
        Value::Array(elements) => elements.iter().map(through_lua).collect(),
        Value::Object(members) => members
            .iter()
            .map(|(name, member)| (name.clone(), through_lua(member)))
            .collect::<Map<_, _>>()
            .into(),
        Value::Null | Value::Bool(_) | Value::String(_) => value.clone(),
    }
}
