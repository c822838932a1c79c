//! The demo's configuration, from the very file that users run, with a scenario's changes.

use serde_json::Value;

use crate::repository;
use crate::world::secret;

/// `envoy/envoy.yaml` as a document.
///
/// # Errors
/// What is wrong with the file.
pub fn bootstrap() -> Result<Value, String> {
    let text = repository::read("envoy/envoy.yaml")?;
    serde_saphyr::from_str(&text).map_err(|error| format!("envoy/envoy.yaml: {error}"))
}

/// Where the plugin's configuration stands in the bootstrap.
pub const PLUGIN: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters/0/typed_config/config/configuration/value";

/// The plugin's configuration in the bootstrap, with a merge patch (RFC 7396) applied.
///
/// # Errors
/// When the file is not as it should be.
pub fn plugin(patch: Option<&Value>) -> Result<Value, String> {
    let mut plugin =
        bootstrap()?.pointer(PLUGIN).cloned().ok_or("envoy.yaml has no plugin configuration")?;
    if let Some(patch) = patch {
        merge(&mut plugin, patch);
    }
    Ok(plugin)
}

/// What Kong's configuration has in place of Envoy's: upstreams are `host:port`, and the gateway's own
/// login stands there, since Kong hands no environment on. `address` says where an upstream is.
pub fn adapt_to_kong(plugin: &mut Value, address: impl Fn(&str) -> Option<String>) {
    rename_clusters(plugin, &address);
    if let Some(role) = plugin.pointer_mut("/vaults/main/login/app_role") {
        for (field, name) in [("role_id", "ROLE_ID"), ("secret_id", "SECRET_ID")] {
            role[field] = serde_json::json!({"value": secret(name)});
        }
    }
}

/// Gives upstreams other names, wherever the configuration names them.
pub fn rename_clusters(plugin: &mut Value, name: &impl Fn(&str) -> Option<String>) {
    match plugin {
        Value::Array(elements) => elements.iter_mut().for_each(|each| rename_clusters(each, name)),
        Value::Object(members) => {
            for (key, value) in members.iter_mut() {
                match (key.as_str(), &value) {
                    ("policy", _) => {}
                    ("cluster", Value::String(cluster)) => {
                        if let Some(name) = name(cluster) {
                            *value = Value::String(name);
                        }
                    }
                    _ => rename_clusters(value, name),
                }
            }
        }
        _ => {}
    }
}

/// JSON merge patch, RFC 7396.
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    if let Value::Object(members) = target {
        for (key, change) in changes {
            if change.is_null() {
                members.remove(key);
            } else {
                merge(members.entry(key.clone()).or_insert(Value::Null), change);
            }
        }
    }
}
