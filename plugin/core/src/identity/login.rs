//! Logging in by way of the gateway, where clients of MCP cannot log in at the authorization server by
//! themselves: it refuses the `resource` parameter that they must send (Entra), or registers nobody (Okta).
//!
//! The gateway then is what clients are told to log in at. It sends browsers on to the authorization
//! server, hands the token endpoint's forms and answers on, and knows one client identifier that somebody
//! has registered there. It issues nothing, keeps nothing and holds no secret of a client; codes go from the
//! authorization server to redirect URIs that are registered there, as ever. Not here: metadata
//! (`authorization_server`).

use std::cmp::Ordering;
use std::fmt;
use std::rc::Rc;

use sha2::{Digest, Sha256};
use toolgate_protocol::headers::Headers;
use toolgate_protocol::json::{Json, Object};

use super::Identity;
use super::authorization_server::{AtHand, AuthorizationServer, MetadataError, ServerMetadata};
use super::metadata::{self, PublicUrl};
use crate::denial::{Denial, LocalReply, Reason};
use crate::event::{CallOutcome, FieldValue, HttpCall, Timestamp};
use crate::facts::{Facts, Need};
use crate::secret::Secret;

/// Where clients of 2025-03-26 look for the authorization server's metadata, and since then all that are
/// told that the gateway is one (RFC 8414 section 3).
const METADATA: &str = "/.well-known/oauth-authorization-server";

/// The same in OpenID Connect Discovery 1.0, section 4.
const OPENID_METADATA: &str = "/.well-known/openid-configuration";

/// Endpoints where the gateway stands in, under the public URL. Some clients make these of the issuer by
/// themselves, and so does 2025-03-26 where there is no metadata.
pub(super) const AUTHORIZE: &str = "/authorize";
pub(super) const TOKEN: &str = "/token";
pub(super) const REGISTER: &str = "/register";

/// Largest form or registration that is read, in bytes.
const MOST_BYTES: usize = 64 << 10;

/// Most redirect URIs of one registration.
const MOST_REDIRECT_URIS: usize = 32;

/// What a client asks the gateway in the authorization server's place.
pub(crate) enum Login {
    /// Its metadata.
    Metadata {
        /// Whether only the header fields are wanted.
        head: bool,
    },
    /// To log somebody in, with these parameters.
    Authorize { query: String },
    /// Tokens, for this form.
    Token(TokenRequest),
    /// To be known as a client.
    Register { body: Vec<u8> },
}

/// What asks for tokens: a form with a code or a refresh token in it, and the client's own login perhaps.
#[derive(Clone)]
pub(crate) struct TokenRequest {
    digest: [u8; 32],
    form: Rc<Secret>,
    login: Option<Rc<Secret>>,
}

/// What the token endpoint answered. It holds tokens, so it cannot be printed.
pub(crate) struct TokenAnswer {
    status: u16,
    fields: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

/// A request that is one for the authorization server's stand-in.
pub(crate) enum Recognised {
    /// What it asks, without a body.
    Login(Login),
    /// What it asks is said by its body; its kind so far.
    Form(Form),
    /// It is answered already.
    Answer(LocalReply),
}

/// What a body is for.
pub(crate) enum Form {
    /// Tokens, with the client's own login.
    Token { login: Option<Rc<Secret>> },
    /// To be known as a client.
    Register,
}

/// Why a login goes no further.
pub(crate) enum Halt {
    /// That depends on what the authorization server says.
    Need(Need),
    /// It is refused.
    Refused(Refusal),
}

/// A refusal in the form that clients of OAuth read.
pub(crate) struct Refusal {
    reason: Reason,
    /// Another status than the reason's own.
    status: Option<u16>,
    /// The word for it (RFC 6749 sections 4.1.2.1 and 5.2, RFC 7591 section 3.2.2).
    error: &'static str,
    message: &'static str,
    /// The methods of an endpoint that was asked with another.
    allow: Option<&'static str>,
    /// For the audit record alone.
    pub(crate) detail: Option<String>,
}

impl Refusal {
    fn new(reason: Reason, error: &'static str, message: &'static str) -> Self {
        Self { reason, status: None, error, message, allow: None, detail: None }
    }

    /// What is wrong with a request (RFC 6749 section 5.2: status 400).
    fn bad(reason: Reason, error: &'static str, message: &'static str) -> Self {
        Self { status: Some(400), ..Self::new(reason, error, message) }
    }

    /// What must not be: the calls do not come to an end.
    pub(crate) fn endless() -> Self {
        Self::new(Reason::Internal, "server_error", "the login did not come to an end")
    }

    fn unavailable(error: &impl ToString) -> Self {
        let message = "the authorization server cannot be asked at the moment; try again later";
        let refusal = Self::new(Reason::IssuerUnavailable, "temporarily_unavailable", message);
        Self { detail: Some(error.to_string()), ..refusal }
    }

    /// The same as it is recorded.
    pub(crate) fn denial(&self) -> Denial {
        let mut denial = Denial::new(self.reason, self.message);
        if let Some(status) = self.status {
            denial = denial.with_status(status);
        }
        match self.allow {
            Some(methods) => denial.with_header("allow", format!("{methods}, OPTIONS")),
            None => denial,
        }
    }

    /// The answer.
    pub(crate) fn into_reply(self) -> LocalReply {
        let mut body = Object::default();
        body.set("error", self.error.into());
        body.set("error_description", self.message.into());
        let mut reply = self.denial().into_reply_with(Json::Object(body).to_bytes(), None);
        reply.headers.push(("cache-control", "no-store".into()));
        reply.headers.push(("access-control-allow-origin", "*".into()));
        reply
    }
}

impl From<Refusal> for Halt {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Login {
    /// What is written down of it.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Metadata { .. } => "authorization server metadata",
            Self::Authorize { .. } => "authorization request",
            Self::Token(_) => "token request",
            Self::Register { .. } => "client registration",
        }
    }
}

impl Form {
    /// What is written down of it.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Token { .. } => "token request",
            Self::Register => "client registration",
        }
    }

    /// Whether a body of this length is read.
    ///
    /// # Errors
    /// [`Refusal`] when it is not.
    pub(crate) fn check_length(&self, length: usize) -> Result<(), Refusal> {
        if length <= MOST_BYTES {
            return Ok(());
        }
        let message = "the request is larger than the gateway reads";
        Err(Refusal::new(Reason::BodyTooLarge, self.invalid(), message))
    }

    /// The refusal of a body that the host does not show, or that is followed by something.
    pub(crate) fn unreadable(&self) -> Refusal {
        Refusal::bad(Reason::UnexpectedBody, self.invalid(), "the body cannot be read")
    }

    fn invalid(&self) -> &'static str {
        match self {
            Self::Token { .. } => "invalid_request",
            Self::Register => "invalid_client_metadata",
        }
    }
}

impl Identity {
    /// What a request asks in the authorization server's place; `None` for all other requests.
    ///
    /// # Errors
    /// [`Refusal`] of what is not asked as it should be.
    pub(crate) fn login(&self, headers: &Headers) -> Option<Result<Recognised, Refusal>> {
        let (public, server) = (self.public.as_ref()?, self.authorization_server.as_ref()?);
        let path = headers.single(":path").ok()??;
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let methods = methods(path, public, server)?;
        let method = headers.single(":method").ok()??;
        if method == "OPTIONS" {
            return Some(Ok(Recognised::Answer(preflight(methods))));
        }
        if !methods.split(", ").any(|known| known == method) {
            let message = "this endpoint has no such method";
            let refusal = Refusal::new(Reason::HttpMethod, "invalid_request", message);
            return Some(Err(Refusal { allow: Some(methods), ..refusal }));
        }
        Some(match path {
            AUTHORIZE => Ok(Recognised::Login(Login::Authorize { query: query.to_owned() })),
            TOKEN => token_form(headers).map(Recognised::Form),
            REGISTER => Ok(Recognised::Form(Form::Register)),
            _ => Ok(Recognised::Login(Login::Metadata { head: method == "HEAD" })),
        })
    }

    /// What a request with this body asks.
    ///
    /// # Errors
    /// [`Refusal`] of a body that is none of its kind.
    pub(crate) fn login_with(&self, form: Form, body: Vec<u8>) -> Result<Login, Refusal> {
        form.check_length(body.len())?;
        let error = form.invalid();
        let login = match form {
            Form::Register => return Ok(Login::Register { body }),
            Form::Token { login } => login,
        };
        let form = String::from_utf8(body).ok().filter(|form| form.is_ascii()).map(Secret::new);
        let Some(form) = form else {
            return Err(Refusal::bad(Reason::InvalidParams, error, "the form is not plain text"));
        };
        let drops = self.authorization_server.as_ref().and_then(|server| server.proxy.as_ref());
        let form = match drops.is_some_and(|proxy| proxy.drop_resource) {
            true => Secret::new(without_resource(form.expose())),
            false => form,
        };
        Ok(Login::Token(TokenRequest::new(form, login)))
    }

    /// The answer, with what was found out for it.
    ///
    /// # Errors
    /// [`Halt`] with what has to be found out first, or with the refusal.
    pub(crate) fn log_in(
        &self,
        login: &Login,
        facts: &Facts,
        now: Timestamp,
    ) -> Result<LocalReply, Halt> {
        let (Some(public), Some(server)) = (&self.public, &self.authorization_server) else {
            return Err(Refusal::unavailable(&"the gateway has no authorization server").into());
        };
        match login {
            Login::Metadata { head } => {
                let document = server.document(&*known(server, facts, now)?, public);
                let body = if *head { Vec::new() } else { document.to_bytes() };
                Ok(json(200, metadata::CACHE, body))
            }
            Login::Authorize { query } => {
                let known = known(server, facts, now)?;
                let drops = server.proxy.as_ref().is_some_and(|proxy| proxy.drop_resource);
                let query = if drops { without_resource(query) } else { query.clone() };
                let endpoint = &known.authorization_endpoint;
                let separator = if endpoint.contains('?') { '&' } else { '?' };
                let headers = vec![
                    ("location", format!("{endpoint}{separator}{query}")),
                    ("cache-control", "no-store".to_owned()),
                ];
                Ok(LocalReply { status: 302, headers, body: Vec::new() })
            }
            Login::Token(request) => {
                // Where it is sent has to be known first; the call is made by the same document.
                let known = known(server, facts, now)?;
                if known.token_path.is_none() {
                    return Err(Refusal::unavailable(&MetadataError::TokenHost).into());
                }
                match facts.token_answer(request) {
                    None => Err(Halt::Need(Need::TokenRequest(request.clone()))),
                    Some(Ok(answer)) => Ok(answer.reply()),
                    Some(Err(error)) => Err(Refusal::unavailable(error).into()),
                }
            }
            Login::Register { body } => Ok(registered(server, body, now)?),
        }
    }

    /// The call for [`Need::ServerMetadata`].
    pub(crate) fn server_metadata_call(&self) -> Option<HttpCall> {
        Some(self.authorization_server.as_ref()?.metadata_call())
    }

    /// What the answer to it says.
    pub(crate) fn learn_server_metadata(
        &self,
        outcome: &CallOutcome,
        now: Timestamp,
    ) -> Option<Result<Rc<ServerMetadata>, MetadataError>> {
        Some(self.authorization_server.as_ref()?.learn(outcome, now))
    }

    /// The call for [`Need::TokenRequest`].
    pub(crate) fn token_call(
        &self,
        request: &TokenRequest,
        facts: &Facts,
        now: Timestamp,
    ) -> Option<HttpCall> {
        let server = self.authorization_server.as_ref()?;
        let metadata = known(server, facts, now).ok()?;
        server.token_call(&metadata, request)
    }
}

/// The methods of an endpoint of the authorization server's stand-in; `None` for all other paths.
fn methods(path: &str, public: &PublicUrl, server: &AuthorizationServer) -> Option<&'static str> {
    const READ: &str = "GET, HEAD";
    let inserted = |well_known: &str| {
        path.strip_prefix(well_known).is_some_and(|rest| rest.is_empty() || rest == public.prefix())
    };
    let proxy = server.proxy.as_ref();
    match path {
        _ if inserted(METADATA) => Some(READ),
        _ if proxy.is_some() && inserted(OPENID_METADATA) => Some(READ),
        AUTHORIZE if proxy.is_some() => Some("GET"),
        TOKEN if proxy.is_some() => Some("POST"),
        REGISTER if proxy.is_some_and(|proxy| proxy.client_id.is_some()) => Some("POST"),
        _ => None,
    }
}

/// The metadata that is at hand, or that was found out for this request.
fn known(
    server: &AuthorizationServer,
    facts: &Facts,
    now: Timestamp,
) -> Result<Rc<ServerMetadata>, Halt> {
    match (facts.server_metadata(), server.at_hand(now)) {
        (Some(Ok(metadata)), _) => Ok(Rc::clone(metadata)),
        (_, AtHand::Fresh(metadata)) | (Some(Err(_)), AtHand::Stale(metadata)) => Ok(metadata),
        (Some(Err(error)), AtHand::Missing) => Err(Refusal::unavailable(error).into()),
        (None, _) => Err(Halt::Need(Need::ServerMetadata)),
    }
}

/// A request for tokens, as far as its header fields say (RFC 6749 section 4.1.3).
fn token_form(headers: &Headers) -> Result<Form, Refusal> {
    let refused =
        |reason, message: &'static str| Err(Refusal::bad(reason, "invalid_request", message));
    let Ok(kind) = headers.single("content-type") else {
        return refused(Reason::RepeatedHeader, "there are two content-type headers");
    };
    let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return refused(Reason::ContentType, "send a form: application/x-www-form-urlencoded");
    }
    match headers.single("authorization") {
        Ok(login) => {
            Ok(Form::Token { login: login.map(|login| Rc::new(Secret::new(login.to_owned()))) })
        }
        Err(_) => refused(Reason::RepeatedHeader, "there are two authorization headers"),
    }
}

/// Parameters without `resource` (RFC 8707), however its name is written; all others as they came.
fn without_resource(parameters: &str) -> String {
    let is_resource = |pair: &&str| {
        let name = pair.split('=').next().unwrap_or_default();
        decoded(name) == b"resource"
    };
    let kept: Vec<&str> = parameters.split('&').filter(|pair| !is_resource(pair)).collect();
    kept.join("&")
}

/// The bytes that a name in a form stands for (URL standard, application/x-www-form-urlencoded).
fn decoded(name: &str) -> Vec<u8> {
    let mut rest = name.as_bytes();
    let mut bytes = Vec::with_capacity(rest.len());
    while let Some((first, after)) = rest.split_first() {
        let digit = |at: usize| after.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        rest = after;
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
                rest = after.get(2..).unwrap_or_default();
            }
            (b'+', ..) => bytes.push(b' '),
            (byte, ..) => bytes.push(*byte),
        }
    }
    bytes
}

/// The answer to a registration (RFC 7591 section 3.2.1): the client that somebody has registered at the
/// authorization server, which also has the last word on redirect URIs.
fn registered(
    server: &AuthorizationServer,
    body: &[u8],
    now: Timestamp,
) -> Result<LocalReply, Refusal> {
    let invalid =
        |error, message: &'static str| Refusal::bad(Reason::InvalidParams, error, message);
    let client_id = server.proxy.as_ref().and_then(|proxy| proxy.client_id.as_deref());
    let client_id = client_id.ok_or_else(|| Refusal::unavailable(&"no client is registered"))?;
    let asked = match Json::parse(body) {
        Ok(asked @ Json::Object(_)) => asked,
        _ => {
            return Err(invalid("invalid_client_metadata", "the body is not a strict JSON object"));
        }
    };
    let uris = asked.get("redirect_uris").and_then(Json::as_array).unwrap_or_default();
    if uris.is_empty()
        || uris.len() > MOST_REDIRECT_URIS
        || uris.iter().any(|u| u.as_str().is_none())
    {
        let message = "name 1 to 32 redirect_uris, each a text";
        return Err(invalid("invalid_redirect_uri", message));
    }
    let mut client = Object::default();
    client.set("client_id", client_id.into());
    client.set("client_id_issued_at", Json::Integer(i64::try_from(now.seconds()).unwrap_or(0)));
    client.set("redirect_uris", Json::Array(uris.to_vec()));
    client.set("token_endpoint_auth_method", "none".into());
    let grants = vec!["authorization_code".into(), "refresh_token".into()];
    client.set("grant_types", Json::Array(grants));
    client.set("response_types", Json::Array(vec!["code".into()]));
    if let Some(name @ Json::String(_)) = asked.get("client_name") {
        client.set("client_name", name.clone());
    }
    Ok(json(201, "no-store", Json::Object(client).to_bytes()))
}

fn json(status: u16, cache: &str, body: Vec<u8>) -> LocalReply {
    let headers = vec![
        ("content-type", "application/json".to_owned()),
        ("cache-control", cache.to_owned()),
        ("access-control-allow-origin", "*".to_owned()),
    ];
    LocalReply { status, headers, body }
}

/// The answer to a page that asks whether it may log in: every page may, since nothing here looks at
/// cookies.
fn preflight(methods: &str) -> LocalReply {
    let headers = vec![
        ("access-control-allow-origin", "*".to_owned()),
        ("access-control-allow-methods", format!("{methods}, OPTIONS")),
        (
            "access-control-allow-headers",
            "authorization, content-type, mcp-protocol-version".to_owned(),
        ),
        ("access-control-max-age", "600".to_owned()),
    ];
    LocalReply { status: 204, headers, body: Vec::new() }
}

impl TokenAnswer {
    /// Reads what the token endpoint says to the client: tokens, or an error (RFC 6749 sections 5.1, 5.2).
    pub(crate) fn read(outcome: &CallOutcome) -> Result<Self, MetadataError> {
        let (status, headers, body) = match outcome {
            CallOutcome::Failed => return Err(MetadataError::Unreachable),
            CallOutcome::TooLarge => return Err(MetadataError::TooLarge),
            CallOutcome::Response { status, headers, body } => (*status, headers, body),
        };
        if !matches!(status, 200 | 400..=499) {
            return Err(MetadataError::Status(status));
        }
        if !matches!(Json::parse(body), Ok(Json::Object(_))) {
            return Err(MetadataError::Garbage);
        }
        let mut fields = Vec::new();
        if let Ok(Some(challenge)) = headers.single("www-authenticate") {
            fields.push(("www-authenticate", challenge.to_owned()));
        }
        Ok(Self { status, fields, body: body.clone() })
    }

    fn reply(&self) -> LocalReply {
        let mut reply = json(self.status, "no-store", self.body.clone());
        reply.headers.extend(self.fields.iter().cloned());
        reply
    }
}

impl TokenRequest {
    fn new(form: Secret, login: Option<Rc<Secret>>) -> Self {
        let digest = Sha256::new()
            .chain_update(login.as_ref().map_or("", |login| login.expose()))
            .chain_update(b"\n")
            .chain_update(form.expose());
        Self { digest: digest.finalize().into(), form: Rc::new(form), login }
    }

    pub(super) fn form(&self) -> Secret {
        Secret::new(self.form.expose().to_owned())
    }

    /// How the client itself logs in, as it was sent.
    pub(super) fn login(&self) -> Option<FieldValue> {
        self.login.clone().map(FieldValue::Secret)
    }
}

impl fmt::Debug for TokenRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TokenRequest")
    }
}

impl PartialEq for TokenRequest {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for TokenRequest {}

impl Ord for TokenRequest {
    fn cmp(&self, other: &Self) -> Ordering {
        self.digest.cmp(&other.digest)
    }
}

impl PartialOrd for TokenRequest {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
