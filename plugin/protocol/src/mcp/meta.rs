//! `_meta` of a request: what a modern one must say of itself, and what the client calls itself.

use crate::json::{Json, Object};
use crate::jsonrpc::{Message, look_alike};

use super::operation::McpError;

/// `_meta` key that carries the protocol version of a modern request.
pub const META_PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
/// `_meta` key that carries the client's capabilities of a modern request.
pub const META_CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
/// `_meta` key that carries name and version of the client.
pub const META_CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";

/// The protocol version a modern request claims in its `_meta`.
///
/// # Errors
/// [`McpError::InvalidParams`] when `_meta` is there in a shape that no client sends,
/// [`McpError::LookAlike`] when it has a look-alike of a key that the gateway reads.
pub fn claimed_version(message: &Message) -> Result<Option<&str>, McpError> {
    let Some(meta) = meta(message)? else { return Ok(None) };
    match meta.get(META_PROTOCOL_VERSION) {
        None => Ok(None),
        Some(Json::String(version)) => Ok(Some(version)),
        Some(other) => Err(McpError::InvalidParams(format!(
            "params._meta[{META_PROTOCOL_VERSION:?}] is {}; it must be a string",
            other.kind()
        ))),
    }
}

/// Whether a modern request carries the `_meta` members that it must.
///
/// # Errors
/// [`McpError::InvalidParams`] naming the first missing member (2026-07-28, "Base protocol, _meta").
pub fn check_modern_meta(message: &Message) -> Result<(), McpError> {
    let present = meta(message)?;
    for key in [META_PROTOCOL_VERSION, META_CLIENT_CAPABILITIES] {
        if present.and_then(|meta| meta.get(key)).is_none() {
            return Err(McpError::InvalidParams(format!("params._meta[{key:?}] is missing")));
        }
    }
    match present.and_then(|meta| meta.get(META_CLIENT_CAPABILITIES)) {
        Some(Json::Object(_)) => Ok(()),
        _ => Err(McpError::InvalidParams(format!(
            "params._meta[{META_CLIENT_CAPABILITIES:?}] must be an object"
        ))),
    }
}

pub(super) fn meta(message: &Message) -> Result<Option<&Object>, McpError> {
    match message.params().and_then(|params| params.get("_meta")) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::Object(meta)) => {
            let known = [META_PROTOCOL_VERSION, META_CLIENT_CAPABILITIES, META_CLIENT_INFO];
            match look_alike(meta, &known) {
                Some(key) => Err(McpError::LookAlike(format!(
                    "params._meta has {key:?}, which only looks like a known member"
                ))),
                None => Ok(Some(meta)),
            }
        }
        Some(other) => Err(McpError::InvalidParams(format!(
            "params._meta is {}; it must be an object",
            other.kind()
        ))),
    }
}

/// Self-reported name of the client: of `initialize` or of a modern request's `_meta`. Not proof.
#[must_use]
pub fn client_name(message: &Message) -> Option<&str> {
    let params = message.params()?;
    params
        .get("clientInfo")
        .or_else(|| params.get("_meta")?.get(META_CLIENT_INFO))?
        .get("name")?
        .as_str()
}
