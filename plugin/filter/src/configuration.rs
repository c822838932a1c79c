//! The configuration as the host hands it over: JSON text, or a `google.protobuf.Struct`.
//!
//! Envoy's configuration may hold the plugin's as a `Struct`, so that it is YAML like the rest. Its
//! documentation promises the plugin JSON then; Envoy 1.40 hands over the message's wire format.

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
