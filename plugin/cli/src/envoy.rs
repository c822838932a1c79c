//! Envoy: finds the plugin in a bootstrap, a listener or any part of them, and says what Envoy makes
//! of its configuration on the way to the filter.
//!
//! Field names may be written in both ways that protobuf's JSON mapping allows. Not here: whether
//! Envoy accepts the rest of the file; `envoy --mode validate` says so.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::document::{Found, PLUGIN, Syntax, Variables, join, through_double, walk};

const WASM: &str = "/envoy.extensions.filters.http.wasm.v3.Wasm";
/// Wraps messages of any type; control planes write it.
const TYPED_STRUCTS: [&str; 2] = ["/xds.type.v3.TypedStruct", "/udpa.type.v1.TypedStruct"];
const STRUCT: &str = "/google.protobuf.Struct";
const STRING: &str = "/google.protobuf.StringValue";

/// Whether a document is a configuration of Envoy, with or without the plugin.
pub(crate) fn recognises(document: &Value) -> bool {
    let own_fields = [
        ("static_resources", "staticResources"),
        ("dynamic_resources", "dynamicResources"),
        ("resources", "resources"),
        ("http_filters", "httpFilters"),
        ("typed_config", "typedConfig"),
        ("@type", "@type"),
    ];
    let is_listener = field(document, "address", "address").is_some();
    is_listener || own_fields.iter().any(|(snake, camel)| field(document, snake, camel).is_some())
}

/// Finds the plugin's configurations.
///
/// # Errors
/// Where one is of a type that cannot be read.
pub(crate) fn find(document: &Value, syntax: Syntax) -> Result<Vec<Found>, String> {
    let mut found = Vec::new();
    let mut error = None;
    walk(document, "", &mut |value, path| {
        let Some((plugin, path)) = wasm_plugin(value, path) else { return };
        match configuration(plugin, &path, syntax) {
            Ok(configuration) => found.push(configuration),
            Err(problem) => error = error.take().or(Some(problem)),
        }
    });
    error.map_or(Ok(found), Err)
}

/// The `PluginConfig` of Toolgate, if this is a Wasm filter that runs it.
fn wasm_plugin<'a>(value: &'a Value, path: &str) -> Option<(&'a Value, String)> {
    let kind = value.get("@type")?.as_str()?;
    let (message, path) = if kind.ends_with(WASM) {
        (value, path.to_owned())
    } else if TYPED_STRUCTS.iter().any(|name| kind.ends_with(name))
        && field(value, "type_url", "typeUrl")?.as_str()?.ends_with(WASM)
    {
        (value.get("value")?, join(path, "value"))
    } else {
        return None;
    };
    let plugin = message.get("config")?;
    let is_named = |name: Option<&Value>| name.and_then(Value::as_str) == Some(PLUGIN);
    (is_named(plugin.get("name")) || is_named(field(plugin, "root_id", "rootId")))
        .then(|| (plugin, join(&path, "config")))
}

fn configuration(plugin: &Value, path: &str, syntax: Syntax) -> Result<Found, String> {
    let path = join(path, "configuration");
    let configuration = plugin.get("configuration").unwrap_or(&Value::Null);
    let kind = configuration.get("@type").and_then(Value::as_str).unwrap_or_default();
    let value = configuration.get("value");
    let document = match value {
        _ if configuration.is_null() => Vec::new(),
        Some(value) if kind.ends_with(STRUCT) => as_struct(value, syntax).to_string().into_bytes(),
        Some(Value::String(text)) if kind.ends_with(STRING) => text.as_bytes().to_vec(),
        _ => {
            return Err(format!(
                "{path}: give the configuration as a google.protobuf.Struct or a \
                 google.protobuf.StringValue, with its `value`"
            ));
        }
    };
    let path = if value.is_some() { join(&path, "value") } else { path };
    Ok(Found { path, document, variables: variables(plugin) })
}

/// `vm_config.environment_variables`: a plugin sees no other variable.
fn variables(plugin: &Value) -> Variables {
    let listed = field(plugin, "vm_config", "vmConfig")
        .and_then(|vm| field(vm, "environment_variables", "environmentVariables"))
        .unwrap_or(&Value::Null);
    let names = field(listed, "host_env_keys", "hostEnvKeys").and_then(Value::as_array);
    let values = field(listed, "key_values", "keyValues").and_then(Value::as_object);
    let from_host: BTreeSet<String> =
        names.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    let fixed: BTreeMap<String, String> = values
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .collect();
    Variables::Listed { from_host, fixed }
}

/// What the filter gets of a `Struct`. From YAML, Envoy takes as numbers only those that fit into 32
/// bits; all others become strings (`ValueUtil::loadFromYaml`).
fn as_struct(value: &Value, syntax: Syntax) -> Value {
    match value {
        Value::Number(number) => match syntax {
            Syntax::Json => through_double(number),
            Syntax::Yaml if number.as_i64().is_some_and(|whole| i32::try_from(whole).is_ok()) => {
                value.clone()
            }
            Syntax::Yaml => Value::String(number.to_string()),
        },
        Value::Array(elements) => {
            elements.iter().map(|element| as_struct(element, syntax)).collect()
        }
        Value::Object(members) => members
            .iter()
            .map(|(name, member)| (name.clone(), as_struct(member, syntax)))
            .collect::<Map<_, _>>()
            .into(),
        Value::Null | Value::Bool(_) | Value::String(_) => value.clone(),
    }
}

fn field<'a>(message: &'a Value, snake: &str, camel: &str) -> Option<&'a Value> {
    message.get(snake).or_else(|| message.get(camel))
}
