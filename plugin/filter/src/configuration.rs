//! The configuration as the host hands it over: JSON text, or a `google.protobuf.Struct`.
//!
//! Envoy's configuration may hold the plugin's as a `Struct`, so that it is YAML like the rest. Its
//! documentation promises the plugin JSON then; Envoy 1.40 hands over the message's wire format. Kong's
//! has been through Lua, which knows one kind of number and one kind of empty table.

use prost::Message as _;
use prost_types::value::Kind;
use prost_types::{Struct, Value};

/// Largest whole number that a double of a `Struct` says exactly.
const LARGEST_EXACT: f64 = 9_007_199_254_740_991.0;

/// The configuration as JSON text. Bytes that are neither form come back as they are, for the
/// gateway to say what is wrong with them.
pub(crate) fn document(bytes: Vec<u8>) -> Vec<u8> {
    if serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok() {
        return bytes;
    }
    match Struct::decode(bytes.as_slice()) {
        Ok(message) if !message.fields.is_empty() => {
            serde_json::to_vec(&object(message)).unwrap_or(bytes)
        }
        _ => bytes,
    }
}

/// Fields that are lists; Lua makes an empty object of an empty one.
const LISTS: &[&str] = &[
    "algorithms",
    "audiences",
    "client",
    "clients",
    "entities",
    "fields",
    "forward_headers",
    "further_credentials",
    "groups",
    "issuers",
    "keys",
    "origins",
    "parents",
    "property",
    "required",
    "roles",
    "scopes",
    "subjects",
    "tags",
    "token_digests",
    "token_ids",
];

/// The configuration as it was before Kong read and wrote it by Lua, as far as that can be known.
///
/// # Errors
/// A number that Lua cannot have kept exactly, so that nobody knows what was written.
pub(crate) fn from_lua(bytes: Vec<u8>) -> Result<Vec<u8>, String> {
    // Text that is no JSON is for the gateway to refuse.
    let Ok(mut document) = serde_json::from_slice(&bytes) else { return Ok(bytes) };
    if restore(&mut document)? {
        Ok(serde_json::to_vec(&document).unwrap_or(bytes))
    } else {
        Ok(bytes)
    }
}

/// Whether anything had to be restored.
fn restore(value: &mut serde_json::Value) -> Result<bool, String> {
    let mut changed = false;
    match value {
        serde_json::Value::Number(number)
            if number.as_f64().is_none_or(|number| number.abs() > LARGEST_EXACT) =>
        {
            return Err(format!(
                "{number} is a number that Kong cannot hand over exactly; write it as text"
            ));
        }
        serde_json::Value::Array(elements) => {
            for element in elements {
                changed |= restore(element)?;
            }
        }
        serde_json::Value::Object(members) => {
            for (name, member) in members {
                let is_empty = member.as_object().is_some_and(serde_json::Map::is_empty);
                if is_empty && LISTS.contains(&name.as_str()) {
                    *member = serde_json::Value::Array(Vec::new());
                    changed = true;
                } else {
                    changed |= restore(member)?;
                }
            }
        }
        _ => {}
    }
    Ok(changed)
}

fn object(message: Struct) -> serde_json::Value {
    message.fields.into_iter().map(|(name, value)| (name, json(value))).collect()
}

fn json(value: Value) -> serde_json::Value {
    match value.kind {
        None | Some(Kind::NullValue(_)) => serde_json::Value::Null,
        // A Struct has doubles only; whole numbers were written as such.
        #[expect(clippy::cast_possible_truncation, reason = "whole and within 53 bits")]
        Some(Kind::NumberValue(number))
            if number.trunc() == number && number.abs() <= LARGEST_EXACT =>
        {
            serde_json::Value::from(number as i64)
        }
        Some(Kind::NumberValue(number)) => serde_json::Value::from(number),
        Some(Kind::StringValue(text)) => text.into(),
        Some(Kind::BoolValue(truth)) => truth.into(),
        Some(Kind::StructValue(message)) => object(message),
        Some(Kind::ListValue(list)) => list.values.into_iter().map(json).collect(),
    }
}
