//! What a message asks for, read from its method and parameters: all that a decision depends on.
//!
//! Parameters that name the object of a request must be there and be text. Others are checked for
//! their type where the gateway or a server could read them in more than one way. A parameter that
//! may be absent may be null, which no parser takes for anything else.

use crate::json::{Json, Object};
use crate::jsonrpc::{Kind, Message, look_alike};

use super::method::{Asks, Method};
use super::version::Version;

/// What a message from a client asks for: all that a decision about it depends on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operation<'a> {
    /// Opens or keeps up a conversation, or answers the server: `initialize`, `ping`,
    /// `server/discover`, notifications, and the responses to elicitation, sampling and roots that
    /// clients of the legacy era post.
    Connect,
    /// Lists what the server offers; the answer is filtered by policy.
    List(ListKind),
    /// `tools/call`
    CallTool {
        /// Name of the tool.
        name: &'a str,
        /// Arguments of the call; `None` where the client sent none.
        arguments: Option<&'a Json>,
    },
    /// `prompts/get`, and `completion/complete` for a prompt.
    GetPrompt {
        /// Name of the prompt.
        name: &'a str,
    },
    /// `resources/read`, `resources/subscribe`, `resources/unsubscribe`, and `completion/complete`
    /// for a resource (then possibly a template).
    ReadResource {
        /// URI of the resource.
        uri: &'a str,
    },
    /// `subscriptions/listen`: opens a stream, and reads every resource it names.
    Listen {
        /// The parameters; [`Subscriptions::read`] reads them.
        params: Option<&'a Object>,
    },
    /// `logging/setLevel`
    SetLogLevel,
    /// `tasks/*`: asks for, changes or ends work that an earlier call began.
    Task {
        /// Identifier of the task; absent in `tasks/list`.
        id: Option<&'a str>,
    },
}

/// What a list holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListKind {
    /// `tools/list`
    Tools,
    /// `prompts/list`
    Prompts,
    /// `resources/list`
    Resources,
    /// `resources/templates/list`
    ResourceTemplates,
}

/// What a `subscriptions/listen` asks to follow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscriptions<'a> {
    /// URIs of resources.
    pub uris: Vec<&'a str>,
    /// Identifiers of tasks (extension `io.modelcontextprotocol/tasks`).
    pub tasks: Vec<&'a str>,
}

/// Why a well-formed message is not acceptable MCP.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum McpError {
    /// The method does not exist in this revision: code -32601.
    #[error("method {0:?} does not exist in MCP {1}")]
    UnknownMethod(String, &'static str),
    /// A parameter is missing or mistyped: code -32602.
    #[error("{0}")]
    InvalidParams(String),
    /// A parameter that names what is asked for is no text: code -32602.
    #[error("{0}")]
    InvalidName(String),
    /// A parameter only looks like one that is known: code -32602.
    #[error("{0}")]
    LookAlike(String),
}

/// Parameters that name what is asked for, or that the gateway reads: no look-alike of them passes.
const KNOWN_PARAMS: &[&str] = &[
    "_meta",
    "name",
    "arguments",
    "uri",
    "ref",
    "argument",
    "context",
    "cursor",
    "level",
    "taskId",
    "task",
    "progress",
    "protocolVersion",
    "capabilities",
    "clientInfo",
    "notifications",
    "requestId",
    "progressToken",
    "inputResponses",
    "requestState",
];

/// Reads what a client's message asks for. `version` is the revision it is of; `None` for a legacy
/// client that does not say which.
///
/// # Errors
/// [`McpError`] when the method does not exist in the revision, or a parameter is missing, mistyped
/// or has a look-alike beside it.
pub fn operation(message: &Message, version: Option<Version>) -> Result<Operation<'_>, McpError> {
    let (method, is_request) = match message.kind() {
        Kind::Request { method, .. } => (method, true),
        Kind::Notification { method } => (method, false),
        Kind::Response { .. } if version < Some(Version::V2026_07_28) => {
            return Ok(Operation::Connect);
        }
        Kind::Response { .. } => {
            return Err(McpError::InvalidParams(
                "clients do not send responses in MCP 2026-07-28".into(),
            ));
        }
    };
    let found = Method::find(method, is_request, version).ok_or_else(|| {
        let revision = version.map_or("up to 2025-11-25", Version::as_str);
        McpError::UnknownMethod(method.chars().take(80).collect(), revision)
    })?;
    let params = message.params();
    if let Some(params) = params
        && let Some(key) = look_alike(params, KNOWN_PARAMS)
    {
        return Err(McpError::LookAlike(format!(
            "parameter {key:?} looks like a known parameter but is not spelled as one"
        )));
    }
    read_params(found.asks, params)
}

fn read_params(asks: Asks, params: Option<&Object>) -> Result<Operation<'_>, McpError> {
    object(params, "_meta")?;
    Ok(match asks {
        Asks::Connect => Operation::Connect,
        Asks::Initialize => {
            optional(params, "protocolVersion", "a string", |value| value.as_str().is_some())?;
            object(params, "capabilities")?;
            object(params, "clientInfo")?;
            Operation::Connect
        }
        Asks::Cancel => {
            identifier(params, "requestId")?;
            Operation::Connect
        }
        Asks::Progress => {
            identifier(params, "progressToken")?;
            Operation::Connect
        }
        Asks::List(kind) => {
            optional(params, "cursor", "a string", |value| value.as_str().is_some())?;
            Operation::List(kind)
        }
        Asks::SetLogLevel => {
            text(params, "level")?;
            Operation::SetLogLevel
        }
        Asks::CallTool => {
            let name = text(params, "name")?;
            // 2025-11-25 asks for a task with it, 2026-07-28 answers the server's questions.
            object(params, "task")?;
            answers(params)?;
            Operation::CallTool { name, arguments: object(params, "arguments")? }
        }
        Asks::GetPrompt => {
            object(params, "arguments")?;
            answers(params)?;
            Operation::GetPrompt { name: text(params, "name")? }
        }
        Asks::ReadResource => {
            answers(params)?;
            Operation::ReadResource { uri: text(params, "uri")? }
        }
        Asks::Complete => completion(params)?,
        Asks::Listen => {
            Subscriptions::read(params)?;
            Operation::Listen { params }
        }
        Asks::Task => {
            answers(params)?;
            Operation::Task { id: Some(text(params, "taskId")?) }
        }
        Asks::ListTasks => Operation::Task { id: None },
    })
}

/// What a client answers to the `inputRequests` of an earlier round (2026-07-28, multi round-trip
/// requests): one object for each key, and the server's own state, untouched.
fn answers(params: Option<&Object>) -> Result<(), McpError> {
    optional(params, "requestState", "a string", |value| value.as_str().is_some())?;
    if let Some(Json::Object(responses)) = object(params, "inputResponses")?
        && let Some((key, other)) = responses.iter().find(|(_, one)| one.as_object().is_none())
    {
        let key: String = key.chars().take(80).collect();
        return Err(McpError::InvalidParams(format!(
            "inputResponses[{key:?}] is {}; it must be an object",
            other.kind()
        )));
    }
    Ok(())
}

impl<'a> Subscriptions<'a> {
    /// Reads the parameters of a `subscriptions/listen`.
    ///
    /// # Errors
    /// [`McpError`] when the filter is not shaped as the specification says.
    pub fn read(params: Option<&'a Object>) -> Result<Self, McpError> {
        let Some(Json::Object(filter)) = object(params, "notifications")? else {
            return Ok(Self::default());
        };
        if let Some(key) = look_alike(filter, &["resourceSubscriptions", "taskIds"]) {
            return Err(McpError::LookAlike(format!(
                "params.notifications has {key:?}, which only looks like a known member"
            )));
        }
        let texts = |key: &str| {
            let must = || {
                McpError::InvalidName(format!(
                    "params.notifications.{key} must be an array of strings"
                ))
            };
            match filter.get(key) {
                None | Some(Json::Null) => Ok(Vec::new()),
                Some(Json::Array(texts)) => {
                    texts.iter().map(|text| text.as_str().ok_or_else(must)).collect()
                }
                Some(_) => Err(must()),
            }
        };
        Ok(Self { uris: texts("resourceSubscriptions")?, tasks: texts("taskIds")? })
    }
}

/// A completion is decided on as the prompt or resource whose argument it completes.
fn completion(params: Option<&Object>) -> Result<Operation<'_>, McpError> {
    object(params, "argument")?;
    object(params, "context")?;
    let Some(Json::Object(reference)) = object(params, "ref")? else {
        return Err(McpError::InvalidParams("params.ref is missing".into()));
    };
    if let Some(key) = look_alike(reference, &["type", "name", "uri"]) {
        return Err(McpError::LookAlike(format!(
            "params.ref has {key:?}, which only looks like a known member"
        )));
    }
    match reference.get("type").and_then(Json::as_str) {
        Some("ref/prompt") => Ok(Operation::GetPrompt { name: text(Some(reference), "name")? }),
        Some("ref/resource") => Ok(Operation::ReadResource { uri: text(Some(reference), "uri")? }),
        _ => Err(McpError::InvalidParams(
            "params.ref.type must be \"ref/prompt\" or \"ref/resource\"".into(),
        )),
    }
}

/// A parameter that names what is asked for.
fn text<'a>(params: Option<&'a Object>, key: &str) -> Result<&'a str, McpError> {
    match params.and_then(|params| params.get(key)) {
        Some(Json::String(text)) => Ok(text),
        Some(other) => {
            Err(McpError::InvalidName(format!("{key} is {}; it must be a string", other.kind())))
        }
        None => Err(McpError::InvalidParams(format!("{key} is missing"))),
    }
}

/// A parameter that is an object where it is there.
fn object<'a>(params: Option<&'a Object>, key: &str) -> Result<Option<&'a Json>, McpError> {
    optional(params, key, "an object", |value| value.as_object().is_some())
}

/// A parameter that repeats an identifier the other side chose. Only 2025-11-25 lets it be absent.
fn identifier(params: Option<&Object>, key: &str) -> Result<(), McpError> {
    let is_identifier = |value: &Json| matches!(value, Json::String(_) | Json::Integer(_));
    optional(params, key, "a string or an integer", is_identifier).map(|_| ())
}

/// A parameter of a certain type where it is there and not null.
fn optional<'a>(
    params: Option<&'a Object>,
    key: &str,
    expected: &str,
    is_expected: impl Fn(&Json) -> bool,
) -> Result<Option<&'a Json>, McpError> {
    match params.and_then(|params| params.get(key)) {
        None | Some(Json::Null) => Ok(None),
        Some(value) if is_expected(value) => Ok(Some(value)),
        Some(other) => Err(McpError::InvalidParams(format!(
            "params.{key} is {}; it must be {expected}",
            other.kind()
        ))),
    }
}

/// The header `Mcp-Name` of a modern request: the name of what it asks for (2026-07-28, transports).
#[must_use]
pub fn mirrored_name(message: &Message) -> Option<&str> {
    let key = match message.method()? {
        "tools/call" | "prompts/get" => "name",
        "resources/read" => "uri",
        "tasks/get" | "tasks/update" | "tasks/cancel" => "taskId",
        _ => return None,
    };
    message.params()?.get(key)?.as_str()
}
