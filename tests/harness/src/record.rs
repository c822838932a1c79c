//! Audit records as the proxies write them: JSON, read as fields in text.

use std::collections::BTreeMap;

use serde_json::Value;

/// The fields of a record that apply, each as the text that stands in a log field; `None` if it is no object.
#[must_use]
pub fn fields(record: &Value) -> Option<BTreeMap<String, String>> {
    let applying = record.as_object()?.iter().filter(|(_, value)| !value.is_null());
    Some(applying.map(|(name, value)| (name.clone(), flat(value))).collect())
}

/// The fields of a record in JSON.
///
/// # Errors
/// That it is none.
pub fn parse(json: &str) -> Result<BTreeMap<String, String>, String> {
    serde_json::from_str(json)
        .ok()
        .and_then(|value| fields(&value))
        .ok_or_else(|| format!("a record is no JSON object: {json}"))
}

fn flat(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) if values.iter().all(Value::is_string) => {
            values.iter().map(flat).collect::<Vec<_>>().join(",")
        }
        other => other.to_string(),
    }
}
