//! What a call of a tool is by the operator's words about the tool: one that only reads, one that may
//! destroy something, or neither.
//!
//! The words are those of the tool's entity, never the server's own. Not here: which of the model's
//! actions a policy names.

use std::collections::HashMap;

use serde_json::Value;

use crate::names;

/// What a call of a tool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallKind {
    /// The tool only reads. That it destroys nothing follows (MCP, `ToolAnnotations`: the hint means
    /// nothing beside `readOnlyHint`).
    ReadOnly,
    /// It may destroy something.
    Destructive,
    /// It changes something and destroys nothing.
    Other,
}

/// Every kind.
const ALL: [CallKind; 3] = [CallKind::ReadOnly, CallKind::Destructive, CallKind::Other];

impl CallKind {
    /// That of a tool of which nothing is said: MCP's pessimistic defaults.
    pub(crate) const UNSAID: Self = Self::Destructive;

    /// The model's action: what a tool without an action of its own is called with, and what the action
    /// of any other lies in.
    pub(crate) const fn action(self) -> &'static str {
        match self {
            Self::ReadOnly => "call_read_only_tool",
            Self::Destructive => "call_destructive_tool",
            Self::Other => "call_tool",
        }
    }

    /// The kind with this action.
    pub(crate) fn with_action(id: &str) -> Option<Self> {
        ALL.into_iter().find(|kind| kind.action() == id)
    }

    /// The hint that makes a tool one of this kind.
    pub(crate) fn hints(self) -> &'static str {
        match self {
            Self::ReadOnly => "\"read_only\": true",
            Self::Destructive => "\"read_only\": false, \"destructive\": true",
            Self::Other => "\"destructive\": false",
        }
    }
}

/// The kinds of the tools that `entities`, as they are configured, describe, by id. What is wrong with
/// an entity is found where it is read whole.
pub(crate) fn of_tools(entities: &[Value]) -> HashMap<String, CallKind> {
    let is_tool = |uid: &&Value| {
        let kind = uid.get("type").and_then(Value::as_str);
        kind.is_some_and(|kind| kind == names::TOOL.to_string())
    };
    let kind = |entity: &Value| {
        let uid = entity.get("uid").map(|uid| uid.get("__entity").unwrap_or(uid));
        let id = uid.filter(is_tool)?.get("id")?.as_str()?.to_owned();
        let hint = |name: &str| entity.get("attrs")?.get(name)?.as_bool();
        let kind = match (hint("read_only"), hint("destructive")) {
            (Some(true), _) => CallKind::ReadOnly,
            (_, Some(false)) => CallKind::Other,
            _ => CallKind::UNSAID,
        };
        Some((id, kind))
    };
    entities.iter().filter_map(kind).collect()
}
