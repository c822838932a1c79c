//! `kong/toolgate.meta.json`: what Kong has to know of the filter, made from the types that the filter
//! reads its configuration with.
//!
//! Kong validates by JSON Schema draft-4, which the generator does not speak: its newer words are put
//! into those of draft-4, and every type stands where it is used, so that Kong has no reference to follow.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use toolgate_core::config::Config;

/// Words that say nothing to draft-4, or something else.
const DROPPED: &[&str] = &["$schema", "definitions", "format", "title"];

/// The file's contents.
#[must_use]
pub fn text() -> String {
    let meta = json!({"config_schema": schema()});
    format!("{meta:#}\n")
}

/// The schema of the filter's configuration.
#[must_use]
pub fn schema() -> Value {
    let mut settings = SchemaSettings::draft07();
    settings.inline_subschemas = true;
    let schema = settings.into_generator().into_root_schema_for::<Config>().to_value();
    let mut schema = draft4(schema);
    // The filter has no timer there to fetch policies by: they stand in the configuration.
    if let Some(properties) = schema["properties"].as_object_mut() {
        properties.remove("policy_bundle");
    }
    if let Some(required) = schema["required"].as_array_mut() {
        required.push(json!("policy"));
    }
    schema["$schema"] = json!("http://json-schema.org/draft-04/schema#");
    schema
}

fn draft4(schema: Value) -> Value {
    let Value::Object(members) = schema else {
        // `true` allows everything, which draft-4 says by saying nothing.
        return if schema == json!(true) { json!({}) } else { schema };
    };
    let mut converted = Map::new();
    for (word, value) in members {
        match (word.as_str(), value) {
            (word, _) if DROPPED.contains(&word) => {}
            ("const", value) => {
                converted.insert("enum".into(), json!([value]));
            }
            ("properties", Value::Object(properties)) => {
                let properties =
                    properties.into_iter().map(|(name, schema)| (name, draft4(schema)));
                converted.insert(word, Value::Object(properties.collect()));
            }
            ("anyOf" | "oneOf" | "allOf", Value::Array(schemas)) => {
                converted.insert(word, schemas.into_iter().map(draft4).collect());
            }
            ("additionalProperties" | "items" | "not", schema @ Value::Object(_)) => {
                converted.insert(word, draft4(schema));
            }
            ("items", Value::Bool(_)) => {
                converted.insert(word, json!({}));
            }
            (_, value) => {
                converted.insert(word, value);
            }
        }
    }
    Value::Object(converted)
}
