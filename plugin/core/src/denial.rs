//! Refusals: every reason the gateway itself has for not passing something on, in one table.
//!
//! Each reason has its HTTP status, its JSON-RPC code and its word in the audit record. Codes of the
//! gateway's own are HTTP-like numbers outside -32768..-32000, since clients read codes in that
//! range as evidence about the server (2026-07-28, error codes). Policy denials and unknown names
//! are HTTP 200: the exchange went well and the JSON-RPC error is the answer, which SDKs hand to
//! the model; a bare 4xx would be read as a broken transport.

use crate::cors;
use toolgate_protocol::headers::HeaderError;
use toolgate_protocol::json::{Json, JsonFault, Object};
use toolgate_protocol::jsonrpc::{Id, MessageFault, error_response};
use toolgate_protocol::mcp::McpError;

/// Why the gateway refuses. The audit record holds [`Reason::as_str`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The configuration is not valid: nothing is served.
    NotConfigured,
    /// No server is configured under this path, or the caller may not connect to it.
    UnknownServer,
    /// The HTTP method is none that MCP uses here.
    HttpMethod,
    /// A web page of an origin that is not configured asks.
    Origin,
    /// The request is addressed to a host that the gateway does not answer to.
    Host,
    /// A header that must be single is not.
    RepeatedHeader,
    /// A header is not plain text, or not of its form.
    Header,
    /// The headers of a 2026-07-28 request contradict its body.
    HeaderMismatch,
    /// A protocol version that does not exist.
    ProtocolVersion,
    /// The body is not `application/json` in UTF-8.
    ContentType,
    /// The body is compressed or otherwise encoded.
    ContentEncoding,
    /// The body is larger than the limit.
    BodyTooLarge,
    /// There is a body where none may be, or trailers after it.
    UnexpectedBody,
    /// The body is not strict JSON, for this reason.
    Json(JsonFault),
    /// The body is not a JSON-RPC message, for this reason.
    Message(MessageFault),
    /// The method does not exist in this era.
    UnknownMethod,
    /// Parameters are missing or mistyped.
    InvalidParams,
    /// What names the object of a request is no text.
    InvalidName,
    /// A parameter only looks like one that is known.
    LookAlikeParam,
    /// No access token was sent.
    NoToken,
    /// The token is not valid here.
    InvalidToken,
    /// The token has expired.
    ExpiredToken,
    /// The proof beside a token that is bound to a key is not valid.
    InvalidProof,
    /// The token's issuer could not be asked, so that the token could not be verified.
    IssuerUnavailable,
    /// An access token stands in the URL.
    TokenInUrl,
    /// The token lacks a scope that the request needs.
    InsufficientScope,
    /// The session does not exist, or is another principal's or server's.
    UnknownSession,
    /// No policy lets the caller know of this tool, prompt or resource.
    NotVisible,
    /// A policy refuses these arguments.
    Arguments,
    /// The arguments are not of the tool's types.
    ArgumentTypes,
    /// Policy does not permit the method.
    NotPermitted,
    /// Evaluating the policies failed.
    PolicyError,
    /// No policies have been fetched yet.
    PoliciesUnavailable,
    /// Policy permits the call once it was approved, and no approval came with it.
    ApprovalRequired,
    /// The approval that came with the call is not good for it.
    ApprovalInvalid,
    /// Whether an approval was used before could not be remembered.
    ApprovalUnavailable,
    /// The credential for the server could not be had.
    Credential,
    /// There is no credential for this caller, and asking again will not help.
    CredentialNotLinked,
    /// The server takes the caller's own token, which is not for it.
    TokenAudience,
    /// The request has passed this gateway before, or too many others.
    Loop,
    /// A call that must be counted could not be.
    NotCounted,
    /// The gateway met a state that must not be.
    Internal,
    /// The server could not be reached or broke off.
    ServerUnreachable,
    /// The server answered with something that is not MCP.
    ServerAnswer,
    /// The server refused the gateway's credential.
    ServerUnauthorized,
    /// A list or an event in the answer is larger than the limit.
    ServerTooLarge,
}

impl Reason {
    /// Audit word, HTTP status and JSON-RPC code.
    fn row(self) -> (&'static str, u16, i64) {
        match self {
            Self::NotConfigured => ("not_configured", 503, 503),
            Self::UnknownServer => ("unknown_server", 404, 404),
            Self::HttpMethod => ("http_method", 405, 405),
            Self::Origin => ("origin", 403, 403),
            Self::Host => ("host", 403, 403),
            Self::RepeatedHeader => ("repeated_header", 400, -32600),
            Self::Header => ("header", 400, -32600),
            Self::HeaderMismatch => ("header_mismatch", 400, -32020),
            Self::ProtocolVersion => ("protocol_version", 400, -32022),
            Self::ContentType => ("content_type", 415, 415),
            Self::ContentEncoding => ("content_encoding", 415, 415),
            Self::BodyTooLarge => ("body_too_large", 413, 413),
            Self::UnexpectedBody => ("unexpected_body", 400, -32600),
            Self::Json(fault) => (json_word(fault), 400, -32700),
            Self::Message(fault) => (message_word(fault), 400, -32600),
            Self::UnknownMethod => ("unknown_method", 200, -32601),
            Self::InvalidParams => ("invalid_params", 200, -32602),
            Self::InvalidName => ("invalid_name", 200, -32602),
            Self::LookAlikeParam => ("look_alike_key", 200, -32602),
            Self::NoToken => ("no_token", 401, 401),
            Self::InvalidToken => ("invalid_token", 401, 401),
            Self::ExpiredToken => ("expired_token", 401, 401),
            Self::InvalidProof => ("invalid_proof", 401, 401),
            Self::IssuerUnavailable => ("issuer_unavailable", 503, 503),
            Self::TokenInUrl => ("token_in_url", 400, 400),
            Self::InsufficientScope => ("insufficient_scope", 403, 403),
            Self::UnknownSession => ("unknown_session", 404, 404),
            Self::NotVisible => ("not_visible", 200, -32602),
            Self::Arguments => ("arguments_refused", 200, 403),
            Self::ArgumentTypes => ("argument_types", 200, -32602),
            Self::NotPermitted => ("not_permitted", 200, 403),
            Self::PolicyError => ("policy_error", 200, 403),
            Self::PoliciesUnavailable => ("policies_unavailable", 503, 503),
            Self::ApprovalRequired => ("approval_required", 200, 403),
            Self::ApprovalInvalid => ("approval_invalid", 200, 403),
            Self::ApprovalUnavailable => ("approval_unavailable", 503, 503),
            Self::Credential => ("credential_unavailable", 503, 503),
            Self::CredentialNotLinked => ("credential_not_linked", 200, 403),
            Self::TokenAudience => ("token_audience", 200, 403),
            Self::Loop => ("loop", 508, 508),
            Self::NotCounted => ("not_counted", 503, 503),
            Self::Internal => ("internal", 500, 500),
            Self::ServerUnreachable => ("server_unreachable", 503, 503),
            Self::ServerAnswer => ("server_answer", 502, 502),
            Self::ServerUnauthorized => ("server_unauthorized", 502, 502),
            Self::ServerTooLarge => ("server_too_large", 502, 502),
        }
    }

    /// The word for this reason in audit records and in `error.data.reason`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.row().0
    }
}

fn json_word(fault: JsonFault) -> &'static str {
    match fault {
        JsonFault::Syntax => "invalid_json",
        JsonFault::ByteOrderMark => "byte_order_mark",
        JsonFault::NotUtf8 => "not_utf8",
        JsonFault::LoneSurrogate => "lone_surrogate",
        JsonFault::DuplicateKey => "duplicate_key",
        JsonFault::UnsafeNumber => "unsafe_number",
        JsonFault::TooDeep => "too_deep",
    }
}

fn message_word(fault: MessageFault) -> &'static str {
    match fault {
        MessageFault::Envelope => "invalid_message",
        MessageFault::Batch => "batch",
        MessageFault::Id => "invalid_id",
        MessageFault::Method => "invalid_method",
        MessageFault::LookAlike => "look_alike_key",
        MessageFault::UnknownMember => "unknown_member",
    }
}

/// A header that cannot be read.
impl From<HeaderError> for Denial {
    fn from(error: HeaderError) -> Self {
        let reason = match error {
            HeaderError::Repeated(_) => Reason::RepeatedHeader,
            HeaderError::NotAscii(_) | HeaderError::BadEncoding(_) => Reason::Header,
        };
        Self::new(reason, error.to_string())
    }
}

/// A message that is no acceptable MCP.
impl From<McpError> for Denial {
    fn from(error: McpError) -> Self {
        let reason = match &error {
            McpError::UnknownMethod(..) => Reason::UnknownMethod,
            McpError::InvalidParams(_) => Reason::InvalidParams,
            McpError::InvalidName(_) => Reason::InvalidName,
            McpError::LookAlike(_) => Reason::LookAlikeParam,
        };
        Self::new(reason, error.to_string())
    }
}

/// A refusal with all that its answer holds.
#[derive(Clone, Debug)]
pub(crate) struct Denial {
    reason: Reason,
    status: u16,
    code: i64,
    message: String,
    data: Object,
    /// The result that says it, in place of the error.
    result: Option<Box<Object>>,
    headers: Vec<(&'static str, String)>,
}

/// An answer that the gateway gives by itself. It may hold tokens, so it cannot be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct LocalReply {
    /// HTTP status.
    pub status: u16,
    /// Header fields, `content-type` among them.
    pub headers: Vec<(&'static str, String)>,
    /// The body: a JSON-RPC message, or a document.
    pub body: Vec<u8>,
}

impl LocalReply {
    /// A JSON document with status 200.
    pub(crate) fn json(body: &Json, origin: Option<&str>) -> Self {
        Self::written_json(body.to_bytes(), origin)
    }

    /// The same of JSON that is written already.
    pub(crate) fn written_json(body: Vec<u8>, origin: Option<&str>) -> Self {
        let mut headers = vec![("content-type", "application/json".to_owned())];
        headers.extend(origin.map(cors::fields).unwrap_or_default());
        Self { status: 200, headers, body }
    }
}

impl Denial {
    /// A refusal. `message` is read by people and models: what is wrong and what to do.
    pub(crate) fn new(reason: Reason, message: impl Into<String>) -> Self {
        let (_, status, code) = reason.row();
        let mut data = Object::default();
        data.set("reason", Json::from(reason.as_str()));
        let (message, headers) = (message.into(), Vec::new());
        Self { reason, status, code, message, data, result: None, headers }
    }

    /// Answers with another HTTP status than the reason's own.
    pub(crate) fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// Answers with another JSON-RPC code than the reason's own.
    pub(crate) fn with_code(mut self, code: i64) -> Self {
        self.code = code;
        self
    }

    /// Adds a member to `error.data`.
    pub(crate) fn with_data(mut self, key: &str, value: Json) -> Self {
        self.data.set(key, value);
        self
    }

    /// Says it by a result, for clients that take one: a request without an id gets the error.
    pub(crate) fn with_result(mut self, result: Object) -> Self {
        self.result = Some(Box::new(result));
        self
    }

    /// Adds a response header.
    pub(crate) fn with_header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Why it is refused.
    #[must_use]
    pub(crate) fn reason(&self) -> Reason {
        self.reason
    }

    /// HTTP status of the answer.
    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    /// The body of the answer: a JSON-RPC error, or the result in its place, for the request with this
    /// id.
    pub(crate) fn body(&self, id: Option<&Id>) -> Vec<u8> {
        self.answer(id).to_bytes()
    }

    /// The answer to the request with this id.
    pub(crate) fn answer(&self, id: Option<&Id>) -> Json {
        if let (Some(result), Some(id)) = (&self.result, id) {
            let mut answer = Object::default();
            answer.set("jsonrpc", "2.0".into());
            answer.set("id", id.clone().into());
            answer.set("result", Json::Object(Object::clone(result)));
            return answer.into();
        }
        error_response(id.cloned(), self.code, &self.message, Some(self.data.clone().into()))
    }

    /// This answer with another body.
    pub(crate) fn into_reply_with(self, body: Vec<u8>, origin: Option<&str>) -> LocalReply {
        let mut reply = self.into_reply(None, origin);
        reply.body = body;
        reply
    }

    /// The whole answer. A refused message without an id is no JSON-RPC exchange, so that only an
    /// HTTP status can say that it was refused.
    pub(crate) fn into_reply(self, id: Option<&Id>, origin: Option<&str>) -> LocalReply {
        let status = if self.status == 200 && id.is_none() { 403 } else { self.status };
        let body = self.body(id);
        let mut headers = self.headers;
        headers.push(("content-type", "application/json".into()));
        headers.extend(origin.map(cors::fields).unwrap_or_default());
        LocalReply { status, headers, body }
    }
}
