//! What a message means in MCP: the revisions, the methods of each, and what a caller must be
//! allowed to do for the message to pass.
//!
//! One table names every method that passes; a method that is not in it is refused. Sources: the
//! schemas of the revisions 2024-11-05 to 2026-07-28. Not here: HTTP headers (`headers`), policy.

use std::fmt;

use crate::json::{Json, Object};
use crate::jsonrpc::{Kind, Message, look_alike};

/// A revision of the MCP specification, in order of publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 2024-11-05
    V2024_11_05,
    /// 2025-03-26, the first with Streamable HTTP.
    V2025_03_26,
    /// 2025-06-18
    V2025_06_18,
    /// 2025-11-25, the last with sessions.
    V2025_11_25,
    /// 2026-07-28, stateless.
    V2026_07_28,
}

/// How a revision opens a conversation: the two are different protocols on one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Era {
    /// Up to 2025-11-25: `initialize`, sessions, GET streams.
    Legacy,
    /// From 2026-07-28: every request stands alone and says its version.
    Modern,
}

/// `_meta` key that carries the protocol version of a modern request.
pub const META_PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
/// `_meta` key that carries the client's capabilities of a modern request.
pub const META_CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
/// `_meta` key that carries name and version of the client.
pub const META_CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";

impl Version {
    /// Every revision, oldest first.
    pub const ALL: [Self; 5] = [
        Self::V2024_11_05,
        Self::V2025_03_26,
        Self::V2025_06_18,
        Self::V2025_11_25,
        Self::V2026_07_28,
    ];

    /// The revision with this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.as_str() == name)
    }

    /// The name of the revision, a date.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V2024_11_05 => "2024-11-05",
            Self::V2025_03_26 => "2025-03-26",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
            Self::V2026_07_28 => "2026-07-28",
        }
    }

    /// The era this revision belongs to.
    #[must_use]
    pub fn era(self) -> Era {
        if self < Self::V2026_07_28 { Era::Legacy } else { Era::Modern }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// What a message from a client asks for: all that a decision about it depends on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operation<'a> {
    /// Opens or keeps up a conversation, or answers the server: `initialize`, `ping`,
    /// `server/discover`, notifications, responses.
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
        /// The parameters; [`listen_uris`] reads them.
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

/// Why a well-formed message is not acceptable MCP.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum McpError {
    /// The method does not exist in this era: code -32601.
    #[error("method {0:?} does not exist in MCP {1}")]
    UnknownMethod(String, &'static str),
    /// A parameter is missing, mistyped or ambiguous: code -32602.
    #[error("{0}")]
    InvalidParams(String),
}

#[derive(Clone, Copy)]
enum Form {
    Request,
    Notification,
}

/// What a method asks for, before its parameters are read.
#[derive(Clone, Copy)]
enum Asks {
    Connect,
    List(ListKind),
    CallTool,
    GetPrompt,
    ReadResource,
    Complete,
    Listen,
    SetLogLevel,
    Task,
    Tasks,
}

use Asks::{
    CallTool, Complete, Connect, GetPrompt, List, Listen, ReadResource, SetLogLevel, Task, Tasks,
};
use Form::{Notification, Request};

/// Every method that passes: name, form, exists in the legacy era, exists in the modern era.
///
/// Within the legacy era a method of a later revision passes an earlier one: the server refuses
/// what it does not know, and what the method asks for is decided on either way.
const METHODS: &[(&str, Form, bool, bool, Asks)] = &[
    ("tools/call", Request, true, true, CallTool),
    ("tools/list", Request, true, true, List(ListKind::Tools)),
    ("initialize", Request, true, false, Connect),
    ("ping", Request, true, false, Connect),
    ("server/discover", Request, false, true, Connect),
    ("prompts/get", Request, true, true, GetPrompt),
    ("prompts/list", Request, true, true, List(ListKind::Prompts)),
    ("resources/read", Request, true, true, ReadResource),
    ("resources/list", Request, true, true, List(ListKind::Resources)),
    ("resources/templates/list", Request, true, true, List(ListKind::ResourceTemplates)),
    ("resources/subscribe", Request, true, false, ReadResource),
    ("resources/unsubscribe", Request, true, false, ReadResource),
    ("completion/complete", Request, true, true, Complete),
    ("logging/setLevel", Request, true, false, SetLogLevel),
    ("subscriptions/listen", Request, false, true, Listen),
    ("tasks/get", Request, true, true, Task),
    ("tasks/cancel", Request, true, true, Task),
    ("tasks/result", Request, true, false, Task),
    ("tasks/update", Request, false, true, Task),
    ("tasks/list", Request, true, false, Tasks),
    ("notifications/initialized", Notification, true, false, Connect),
    ("notifications/cancelled", Notification, true, true, Connect),
    ("notifications/progress", Notification, true, false, Connect),
    ("notifications/roots/list_changed", Notification, true, false, Connect),
    ("notifications/tasks/status", Notification, true, false, Connect),
];

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
    "protocolVersion",
    "capabilities",
    "clientInfo",
    "notifications",
    "requestId",
    "progressToken",
    "inputResponses",
    "requestState",
];

/// Reads what a client's message asks for.
///
/// # Errors
/// [`McpError`] when the method does not exist in `era`, or a parameter that names its object is
/// missing, mistyped or has a look-alike beside it.
pub fn operation(message: &Message, era: Era) -> Result<Operation<'_>, McpError> {
    let (method, is_request) = match message.kind() {
        Kind::Request { method, .. } => (method, true),
        Kind::Notification { method } => (method, false),
        Kind::Response { .. } if era == Era::Legacy => return Ok(Operation::Connect),
        Kind::Response { .. } => {
            return Err(McpError::InvalidParams(
                "clients do not send responses in MCP 2026-07-28".into(),
            ));
        }
    };
    let asks = METHODS
        .iter()
        .find(|(name, form, legacy, modern, _)| {
            name == method
                && matches!(form, Form::Request) == is_request
                && match era {
                    Era::Legacy => *legacy,
                    Era::Modern => *modern,
                }
        })
        .map(|(.., asks)| *asks)
        .ok_or_else(|| {
            let revisions = match era {
                Era::Legacy => "up to 2025-11-25",
                Era::Modern => "2026-07-28",
            };
            McpError::UnknownMethod(method.chars().take(80).collect(), revisions)
        })?;
    let params = message.params();
    if let Some(params) = params
        && let Some(key) = look_alike(params, KNOWN_PARAMS)
    {
        return Err(McpError::InvalidParams(format!(
            "parameter {key:?} looks like a known parameter but is not spelled as one"
        )));
    }
    read_params(asks, params)
}

fn read_params(asks: Asks, params: Option<&Object>) -> Result<Operation<'_>, McpError> {
    Ok(match asks {
        Asks::Connect => Operation::Connect,
        Asks::List(kind) => Operation::List(kind),
        Asks::SetLogLevel => Operation::SetLogLevel,
        Asks::CallTool => {
            let arguments = params.and_then(|params| params.get("arguments"));
            if let Some(other) = arguments.filter(|value| value.as_object().is_none()) {
                return Err(McpError::InvalidParams(format!(
                    "params.arguments is {}; it must be an object",
                    other.kind()
                )));
            }
            Operation::CallTool { name: text(params, "name")?, arguments }
        }
        Asks::GetPrompt => Operation::GetPrompt { name: text(params, "name")? },
        Asks::ReadResource => Operation::ReadResource { uri: text(params, "uri")? },
        Asks::Complete => completion(params)?,
        Asks::Listen => {
            listen_uris(params)?;
            Operation::Listen { params }
        }
        Asks::Task => Operation::Task { id: Some(text(params, "taskId")?) },
        Asks::Tasks => Operation::Task { id: None },
    })
}

/// The resources that a `subscriptions/listen` asks to follow.
///
/// # Errors
/// [`McpError::InvalidParams`] when the filter is not shaped as the specification says.
pub fn listen_uris(params: Option<&Object>) -> Result<Vec<&str>, McpError> {
    let invalid = |what: &str| McpError::InvalidParams(format!("params.notifications{what}"));
    let filter = match params.and_then(|params| params.get("notifications")) {
        None => return Ok(Vec::new()),
        Some(Json::Object(filter)) => filter,
        Some(other) => return Err(invalid(&format!(" is {}; it must be an object", other.kind()))),
    };
    if let Some(key) = look_alike(filter, &["resourceSubscriptions", "taskIds"]) {
        return Err(invalid(&format!(" has {key:?}, which only looks like a known member")));
    }
    let Some(subscriptions) = filter.get("resourceSubscriptions") else {
        return Ok(Vec::new());
    };
    let must = || invalid(".resourceSubscriptions must be an array of strings");
    let uris = subscriptions.as_array().ok_or_else(must)?;
    uris.iter().map(|uri| uri.as_str().ok_or_else(must)).collect()
}

/// A completion is decided on as the prompt or resource whose argument it completes.
fn completion(params: Option<&Object>) -> Result<Operation<'_>, McpError> {
    let reference = match params.and_then(|params| params.get("ref")) {
        Some(Json::Object(reference)) => reference,
        Some(other) => {
            return Err(McpError::InvalidParams(format!(
                "params.ref is {}; it must be an object",
                other.kind()
            )));
        }
        None => return Err(McpError::InvalidParams("params.ref is missing".into())),
    };
    if let Some(key) = look_alike(reference, &["type", "name", "uri"]) {
        return Err(McpError::InvalidParams(format!(
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

fn text<'a>(params: Option<&'a Object>, key: &str) -> Result<&'a str, McpError> {
    match params.and_then(|params| params.get(key)) {
        Some(Json::String(text)) => Ok(text),
        Some(other) => {
            Err(McpError::InvalidParams(format!("{key} is {}; it must be a string", other.kind())))
        }
        None => Err(McpError::InvalidParams(format!("{key} is missing"))),
    }
}

/// The protocol version a modern request claims in its `_meta`.
///
/// # Errors
/// [`McpError::InvalidParams`] when `_meta` is there in a shape that no client sends, or has a
/// look-alike of a key that the gateway reads.
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

fn meta(message: &Message) -> Result<Option<&Object>, McpError> {
    match message.params().and_then(|params| params.get("_meta")) {
        None => Ok(None),
        Some(Json::Object(meta)) => {
            let known = [META_PROTOCOL_VERSION, META_CLIENT_CAPABILITIES, META_CLIENT_INFO];
            match look_alike(meta, &known) {
                Some(key) => Err(McpError::InvalidParams(format!(
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

#[cfg(test)]
mod tests {
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn message(method: &str, params: &str) -> Message {
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
        Message::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_call_is_read_with_its_name_and_arguments() {
        let call = message("tools/call", r#"{"name":"refund","arguments":{"amount":1}}"#);
        let Operation::CallTool { name, arguments } = operation(&call, Era::Legacy).unwrap() else {
            panic!("not a call");
        };
        assert_eq!(name, "refund");
        assert_eq!(arguments.unwrap().get("amount"), Some(&Json::Integer(1)));
    }

    #[test]
    fn a_method_outside_its_era_does_not_exist() {
        for (method, era) in [
            ("initialize", Era::Modern),
            ("ping", Era::Modern),
            ("logging/setLevel", Era::Modern),
            ("resources/subscribe", Era::Modern),
            ("server/discover", Era::Legacy),
            ("subscriptions/listen", Era::Legacy),
            ("tools/execute", Era::Legacy),
            ("TOOLS/CALL", Era::Legacy),
            ("notifications/initialized", Era::Legacy),
        ] {
            let refused = message(method, "{}");
            assert!(
                matches!(operation(&refused, era), Err(McpError::UnknownMethod(..))),
                "{method} as a request in {era:?}"
            );
        }
    }

    #[test]
    fn a_completion_is_the_prompt_or_resource_it_completes() {
        let prompt = message("completion/complete", r#"{"ref":{"type":"ref/prompt","name":"p"}}"#);
        assert_eq!(operation(&prompt, Era::Legacy), Ok(Operation::GetPrompt { name: "p" }));
        let resource =
            message("completion/complete", r#"{"ref":{"type":"ref/resource","uri":"a://{b}"}}"#);
        assert_eq!(
            operation(&resource, Era::Modern),
            Ok(Operation::ReadResource { uri: "a://{b}" })
        );
    }

    #[test]
    fn a_parameter_that_names_the_object_must_be_there_and_be_text() {
        for (method, params) in [
            ("tools/call", "{}"),
            ("tools/call", r#"{"name":7}"#),
            ("tools/call", r#"{"name":["a"]}"#),
            ("tools/call", r#"{"name":"a","arguments":[1]}"#),
            ("tools/call", r#"{"name":"a","Name":"b"}"#),
            ("tools/call", r#"{"name":"a","arguments\u0000":{}}"#),
            ("resources/read", r#"{"uri":null}"#),
            ("completion/complete", r#"{"ref":{"type":"ref/tool","name":"p"}}"#),
            ("completion/complete", r#"{"ref":"p"}"#),
            ("tasks/get", "{}"),
        ] {
            let refused = message(method, params);
            assert!(
                matches!(operation(&refused, Era::Legacy), Err(McpError::InvalidParams(_))),
                "{method} {params}"
            );
        }
    }

    #[test]
    fn every_resource_of_a_subscription_is_named() {
        let listen = message(
            "subscriptions/listen",
            r#"{"notifications":{"toolsListChanged":true,"resourceSubscriptions":["a:1","a:2"]}}"#,
        );
        assert_eq!(listen_uris(listen.params()).unwrap(), ["a:1", "a:2"]);
        let mistyped = message(
            "subscriptions/listen",
            r#"{"notifications":{"resourceSubscriptions":["a:1",2]}}"#,
        );
        assert!(operation(&mistyped, Era::Modern).is_err());
    }

    #[test]
    fn a_modern_request_needs_its_meta() {
        let bare = message("tools/list", "{}");
        assert!(check_modern_meta(&bare).is_err());
        let full = message(
            "tools/list",
            r#"{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}"#,
        );
        assert_eq!(check_modern_meta(&full), Ok(()));
        assert_eq!(claimed_version(&full).unwrap(), Some("2026-07-28"));
    }
}
