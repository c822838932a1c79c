//! JSON-RPC 2.0 envelopes as MCP uses them: one request, notification or response per body, or in
//! revision 2025-03-26 several.
//!
//! An envelope has the members the specification names and no others, spelled exactly so: a member
//! that another parser might take for a known one is refused. What a method and its parameters mean
//! is `mcp`'s, and when a batch is acceptable the gateway's.

use std::fmt;

use unicode_normalization::UnicodeNormalization;

use crate::json::{Json, JsonError, Object};

/// The identifier of a request: MCP allows integers and strings, never null.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Id {
    /// An integer identifier.
    Integer(i64),
    /// A string identifier.
    String(String),
}

/// One parsed message. It keeps the whole body, so that it can be forwarded re-serialised.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    kind: Kind,
    body: Json,
}

/// Which of the three kinds of message this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Has a method and an id; an answer is expected.
    Request {
        /// Identifier that the answer repeats.
        id: Id,
        /// Name of the method.
        method: String,
    },
    /// Has a method and no id; nothing is answered.
    Notification {
        /// Name of the method.
        method: String,
    },
    /// Answers a request the other side sent.
    Response {
        /// Identifier of that request; absent on an error about a message that could not be read.
        id: Option<Id>,
    },
}

/// What a body holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// One message.
    Single(Message),
    /// Several, in the array of a batch: at least one, at most [`MAX_BATCH`], no two requests with
    /// the same id.
    Batch(Vec<Message>),
}

/// Most messages in a batch.
pub const MAX_BATCH: usize = 100;

/// The rule that an envelope breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageFault {
    /// It is no JSON-RPC 2.0 envelope.
    Envelope,
    /// It is an array where one message is expected, or an array that is no batch.
    Batch,
    /// `id` is null or no string or integer.
    Id,
    /// `method` is no string.
    Method,
    /// A member only looks like one that is known.
    LookAlike,
    /// A member is unknown.
    UnknownMember,
}

/// Why a body is not one acceptable message, with the JSON-RPC error code that says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Not strict JSON: code -32700.
    #[error("the body is not valid JSON: {0}")]
    Json(#[from] JsonError),
    /// JSON, but not a message: code -32600.
    #[error("{reason}")]
    Invalid {
        /// The rule that is broken.
        fault: MessageFault,
        /// What is wrong and what would be right.
        reason: String,
        /// The id of the message, where one could be read.
        id: Option<Id>,
    },
}

impl MessageError {
    /// The JSON-RPC error code (JSON-RPC 2.0 section 5.1).
    #[must_use]
    pub fn code(&self) -> i64 {
        match self {
            Self::Json(_) => -32700,
            Self::Invalid { .. } => -32600,
        }
    }

    /// The id of the refused message, where one could be read.
    #[must_use]
    pub fn id(&self) -> Option<&Id> {
        match self {
            Self::Json(_) => None,
            Self::Invalid { id, .. } => id.as_ref(),
        }
    }
}

impl Message {
    /// Reads one message from a body.
    ///
    /// # Errors
    /// [`MessageError`] when the body is not strict JSON or not one JSON-RPC 2.0 message.
    pub fn parse(bytes: &[u8]) -> Result<Self, MessageError> {
        Self::try_from(Json::parse(bytes)?)
    }

    /// The id that an answer to this message repeats: that of a request.
    #[must_use]
    pub fn answer_id(&self) -> Option<&Id> {
        match &self.kind {
            Kind::Request { id, .. } => Some(id),
            Kind::Notification { .. } | Kind::Response { .. } => None,
        }
    }

    /// Which kind of message this is.
    #[must_use]
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The method of a request or notification.
    #[must_use]
    pub fn method(&self) -> Option<&str> {
        match &self.kind {
            Kind::Request { method, .. } | Kind::Notification { method } => Some(method),
            Kind::Response { .. } => None,
        }
    }

    /// The id, where the message has one.
    #[must_use]
    pub fn id(&self) -> Option<&Id> {
        match &self.kind {
            Kind::Request { id, .. } => Some(id),
            Kind::Notification { .. } => None,
            Kind::Response { id } => id.as_ref(),
        }
    }

    /// The parameters; absent ones read as an empty object would.
    #[must_use]
    pub fn params(&self) -> Option<&Object> {
        self.body.get("params")?.as_object()
    }

    /// The whole message.
    #[must_use]
    pub fn body(&self) -> &Json {
        &self.body
    }

    /// The whole message, to be edited. The envelope must stay what it is.
    #[must_use]
    pub fn body_mut(&mut self) -> &mut Json {
        &mut self.body
    }

    /// The message as bytes, for whoever is next.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.body.to_bytes()
    }
}

impl Body {
    /// Reads one message, or a batch of them.
    ///
    /// # Errors
    /// [`MessageError`] when the body is not strict JSON, or a message of it is none.
    pub fn parse(bytes: &[u8]) -> Result<Self, MessageError> {
        let elements = match Json::parse(bytes)? {
            Json::Array(elements) => elements,
            single => return Message::try_from(single).map(Self::Single),
        };
        let refused =
            |reason: String| MessageError::Invalid { fault: MessageFault::Batch, reason, id: None };
        if elements.is_empty() || elements.len() > MAX_BATCH {
            let count = elements.len();
            return Err(refused(format!(
                "a batch holds 1 to {MAX_BATCH} messages, and this one {count}"
            )));
        }
        let messages: Vec<Message> =
            elements.into_iter().map(Message::try_from).collect::<Result<_, _>>()?;
        let mut ids: Vec<&Id> = messages.iter().filter_map(Message::answer_id).collect();
        ids.sort_unstable();
        if ids.windows(2).any(|pair| pair.first() == pair.last()) {
            return Err(refused("two requests of a batch have the same id".into()));
        }
        Ok(Self::Batch(messages))
    }
}

impl TryFrom<Json> for Message {
    type Error = MessageError;

    fn try_from(body: Json) -> Result<Self, MessageError> {
        let Some(object) = body.as_object() else {
            let (fault, reason) = match body {
                Json::Array(_) => (
                    MessageFault::Batch,
                    "batches are not accepted: send one message per request".into(),
                ),
                other => (
                    MessageFault::Envelope,
                    format!("the body is {}, not a JSON-RPC object", other.kind()),
                ),
            };
            return Err(MessageError::Invalid { fault, reason, id: None });
        };
        let id = match object.get("id") {
            None => None,
            Some(Json::Integer(number)) => Some(Id::Integer(*number)),
            Some(Json::String(text)) => Some(Id::String(text.clone())),
            Some(other) => {
                let reason = format!("`id` is {}; it must be a string or an integer", other.kind());
                return Err(MessageError::Invalid { fault: MessageFault::Id, reason, id: None });
            }
        };
        let kind = read_kind(object, id.clone())
            .map_err(|(fault, reason)| MessageError::Invalid { fault, reason, id })?;
        Ok(Self { kind, body })
    }
}

fn read_kind(object: &Object, id: Option<Id>) -> Result<Kind, (MessageFault, String)> {
    let envelope = |reason: String| (MessageFault::Envelope, reason);
    if let Some(key) = look_alike(object, MEMBERS) {
        let key = quoted(key);
        return Err((
            MessageFault::LookAlike,
            format!("unknown member {key}: it only looks like one of {MEMBERS:?}"),
        ));
    }
    if object.get("jsonrpc").and_then(Json::as_str) != Some("2.0") {
        return Err(envelope("`jsonrpc` must be the string \"2.0\"".into()));
    }
    let (kind, allowed): (_, &[&str]) = match object.get("method") {
        Some(Json::String(method)) => {
            match object.get("params") {
                None | Some(Json::Object(_)) => {}
                Some(other) => {
                    let kind = other.kind();
                    return Err(envelope(format!("`params` is {kind}; it must be an object")));
                }
            }
            let method = method.clone();
            let kind = match id {
                Some(id) => Kind::Request { id, method },
                None => Kind::Notification { method },
            };
            (kind, &["jsonrpc", "id", "method", "params"])
        }
        Some(other) => {
            let reason = format!("`method` is {}; it must be a string", other.kind());
            return Err((MessageFault::Method, reason));
        }
        None => match (object.get("result"), object.get("error")) {
            (Some(_), None) if id.is_some() => {
                (Kind::Response { id }, &["jsonrpc", "id", "result"])
            }
            (None, Some(Json::Object(_))) => (Kind::Response { id }, &["jsonrpc", "id", "error"]),
            (Some(_), Some(_)) => {
                return Err(envelope("a response has `result` or `error`, not both".into()));
            }
            (Some(_), None) => {
                return Err(envelope("a result needs the `id` of its request".into()));
            }
            (None, Some(other)) => {
                let kind = other.kind();
                return Err(envelope(format!("`error` is {kind}; it must be an object")));
            }
            (None, None) => {
                return Err(envelope("there is no `method`, `result` or `error`".into()));
            }
        },
    };
    match object.iter().find(|(key, _)| !allowed.contains(key)) {
        Some((key, _)) => Err((
            MessageFault::UnknownMember,
            format!("unknown member {}: the envelope has only {allowed:?}", quoted(key)),
        )),
        None => Ok(kind),
    }
}

/// The members of envelopes.
const MEMBERS: &[&str] = &["jsonrpc", "id", "method", "params", "result", "error"];

/// A key of `object` that is not one of `known` but that a lax parser could read as one of them.
///
/// Lax parsers exist: Go's `encoding/json` ignored case, Unicode case folding and a trailing NUL
/// (CVE-2026-27896, GHSA-q382-vc8q-7jhj), so a look-alike could carry what was never decided on.
#[must_use]
pub fn look_alike<'a>(object: &'a Object, known: &[&str]) -> Option<&'a str> {
    object.iter().map(|(key, _)| key).find(|key| {
        !known.contains(key) && {
            // Known keys are ASCII, and so are nearly all keys: folding is then a comparison.
            if key.bytes().all(|byte| byte.is_ascii() && byte != 0) {
                known.iter().any(|name| name.eq_ignore_ascii_case(key))
            } else {
                let folded = fold(key);
                known.iter().any(|name| name.eq_ignore_ascii_case(&folded))
            }
        }
    })
}

/// The form under which look-alike keys are equal.
fn fold(key: &str) -> String {
    key.chars().filter(|&character| character != '\0').nfkc().flat_map(char::to_lowercase).collect()
}

/// A key as it may stand in an error message: short and printable.
fn quoted(key: &str) -> String {
    let short: String = key.chars().take(40).collect();
    format!("{short:?}")
}

/// Writes an id as it stands in JSON.
impl fmt::Display for Id {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(number) => write!(formatter, "{number}"),
            Self::String(text) => formatter.write_str(text),
        }
    }
}

impl From<Id> for Json {
    fn from(id: Id) -> Self {
        match id {
            Id::Integer(number) => Self::Integer(number),
            Id::String(text) => Self::String(text),
        }
    }
}

/// An error answer. Without an id it is about a message whose id could not be read, which null says
/// (JSON-RPC 2.0 section 5); clients show an answer that lacks the member as one they cannot read.
#[must_use]
pub fn error_response(id: Option<Id>, code: i64, message: &str, data: Option<Json>) -> Json {
    let mut error: Object =
        [("code", Json::Integer(code)), ("message", Json::from(message))].into_iter().collect();
    if let Some(data) = data {
        error.set("data", data);
    }
    let id = id.map_or(Json::Null, Json::from);
    let members = [("jsonrpc", Json::from("2.0")), ("id", id), ("error", error.into())];
    Json::Object(members.into_iter().collect())
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn check_refused(text: &str, code: i64, why: &str) {
        let error = Message::parse(text.as_bytes()).expect_err(text);
        assert_eq!(error.code(), code, "{text}: {error}");
        assert!(error.to_string().contains(why), "{text}: {error}");
    }

    #[test]
    fn the_three_kinds_are_told_apart() {
        let request = Message::parse(br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#).unwrap();
        assert_eq!(request.kind(), &Kind::Request { id: Id::Integer(1), method: "ping".into() });
        let notification =
            Message::parse(br#"{"jsonrpc":"2.0","method":"x","params":{}}"#).unwrap();
        assert_eq!(notification.kind(), &Kind::Notification { method: "x".into() });
        let response = Message::parse(br#"{"jsonrpc":"2.0","id":"a","result":{}}"#).unwrap();
        assert_eq!(response.kind(), &Kind::Response { id: Some(Id::String("a".into())) });
    }

    #[test]
    fn envelopes_that_parsers_could_read_differently_are_refused() {
        check_refused("[]", -32600, "batches");
        check_refused("7", -32600, "an integer");
        check_refused(r#"{"id":1,"method":"x"}"#, -32600, "`jsonrpc`");
        check_refused(r#"{"jsonrpc":"2.0","id":null,"method":"x"}"#, -32600, "`id` is null");
        check_refused(r#"{"jsonrpc":"2.0","id":1.5,"method":"x"}"#, -32600, "`id` is a number");
        check_refused(r#"{"jsonrpc":"2.0","id":1,"method":["x"]}"#, -32600, "`method` is an array");
        check_refused(r#"{"jsonrpc":"2.0","id":1,"method":"x","params":[1]}"#, -32600, "`params`");
        check_refused(
            r#"{"jsonrpc":"2.0","id":1,"method":"x","Method":"y"}"#,
            -32600,
            "unknown member",
        );
        check_refused(
            r#"{"jsonrpc":"2.0","id":1,"method":"x","result":{}}"#,
            -32600,
            "unknown member",
        );
        check_refused(r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#, -32600, "not both");
        check_refused(r#"{"jsonrpc":"2.0","result":{}}"#, -32600, "needs the `id`");
        check_refused(r#"{"jsonrpc":"2.0","id":1}"#, -32600, "no `method`");
        check_refused("{", -32700, "not valid JSON");
    }

    #[test]
    fn keys_that_lax_parsers_take_for_known_ones_are_found() {
        for key in ["Name", "NAME", "name\0", "\u{ff4e}ame", "argument\u{17f}"] {
            let object: Object = [(key, Json::Null)].into_iter().collect();
            assert_eq!(look_alike(&object, &["name", "arguments"]), Some(key), "{key:?}");
        }
        let honest: Object = [("name", Json::Null), ("names", Json::Null)].into_iter().collect();
        assert_eq!(look_alike(&honest, &["name", "arguments"]), None);
    }

    #[test]
    fn a_batch_holds_messages_and_each_id_once() {
        let request = |id: usize| format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#);
        let batch = |count: usize| {
            let requests: Vec<String> = (0..count).map(request).collect();
            Body::parse(format!("[{}]", requests.join(",")).as_bytes())
        };
        assert!(matches!(batch(2), Ok(Body::Batch(messages)) if messages.len() == 2));
        assert!(batch(MAX_BATCH).is_ok());
        let is_fault = |parsed: Result<Body, MessageError>, expected: MessageFault| matches!(parsed, Err(MessageError::Invalid { fault, .. }) if fault == expected);
        assert!(is_fault(batch(MAX_BATCH + 1), MessageFault::Batch));
        assert!(is_fault(batch(0), MessageFault::Batch));
        let twice = format!("[{0},{0}]", request(1));
        assert!(is_fault(Body::parse(twice.as_bytes()), MessageFault::Batch));
        let nested = format!("[[{}]]", request(1));
        assert!(is_fault(Body::parse(nested.as_bytes()), MessageFault::Batch));
        assert!(is_fault(Body::parse(b"[7]"), MessageFault::Envelope));
    }

    #[test]
    fn an_error_answer_repeats_the_id() {
        let body = error_response(Some(Id::Integer(3)), 403, "no", None).to_bytes();
        assert_eq!(body, br#"{"jsonrpc":"2.0","id":3,"error":{"code":403,"message":"no"}}"#);
    }
}
