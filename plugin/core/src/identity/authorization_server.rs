//! The authorization server's own metadata (RFC 8414, OpenID Connect Discovery), as it is fetched, kept
//! and handed on to clients that ask the gateway's host for it.
//!
//! Clients of revision 2025-03-26 take the host of an endpoint for its authorization server. They get the
//! document as it is; where the gateway stands in for the authorization server (`login`), everybody gets
//! one that names the gateway's endpoints. Not here: what comes to those endpoints.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use toolgate_policy::Problem;
use toolgate_protocol::json::{Json, Object};

use super::endpoint::{AuthorizationEndpoint, EndpointConfig, check_seconds};
use super::login;
use super::metadata::PublicUrl;
use crate::config::{OAuthProxyConfig, ServerMetadataConfig};
use crate::event::{CallOutcome, HttpCall, Timestamp};

/// Largest document that is read, in bytes.
const MOST_BYTES: usize = 64 << 10;

/// Members that stay true of the authorization server when clients reach it through the gateway. All
/// others go, since they name endpoints, keys of proofs and habits that are not the gateway's: a proof
/// (RFC 9449) for its token endpoint is for another URL, and it does not send `iss` (RFC 9207).
const KEPT: &[&str] = &[
    "claims_supported",
    "client_id_metadata_document_supported",
    "code_challenge_methods_supported",
    "end_session_endpoint",
    "grant_types_supported",
    "id_token_signing_alg_values_supported",
    "jwks_uri",
    "op_policy_uri",
    "op_tos_uri",
    "registration_endpoint",
    "response_modes_supported",
    "response_types_supported",
    "revocation_endpoint",
    "revocation_endpoint_auth_methods_supported",
    "scopes_supported",
    "service_documentation",
    "subject_types_supported",
    "token_endpoint_auth_methods_supported",
    "ui_locales_supported",
    "userinfo_endpoint",
];

/// The authorization server that clients are led to by way of the gateway.
pub(super) struct AuthorizationServer {
    endpoint: AuthorizationEndpoint,
    /// What its document must call it.
    issuer: String,
    refresh: Duration,
    keep: Duration,
    /// How the gateway stands in for it; none where it only hands the document on.
    pub(super) proxy: Option<OAuthProxyConfig>,
    /// The last good document.
    held: RefCell<Option<(Rc<ServerMetadata>, Timestamp)>>,
}

/// What an authorization server says of itself.
pub(crate) struct ServerMetadata {
    document: Json,
    /// Where people log in.
    pub(super) authorization_endpoint: String,
    /// Where codes become tokens: a path of the server that the document is from.
    pub(super) token_path: Option<String>,
}

/// Why there is no document. `Display` is for the audit record; it holds nothing the server said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MetadataError {
    /// No answer in time.
    #[error("the authorization server's metadata could not be fetched: no answer")]
    Unreachable,
    /// Another status than 200.
    #[error("the authorization server's metadata could not be fetched: status {0}")]
    Status(u16),
    /// More than is read.
    #[error("the authorization server's metadata is larger than the gateway reads")]
    TooLarge,
    /// Not the document of an authorization server.
    #[error("the authorization server's answer is not its metadata")]
    Garbage,
    /// Of another issuer (RFC 8414 section 3.3).
    #[error("the metadata is another issuer's")]
    OtherIssuer,
    /// Its token endpoint is at another host than the document.
    #[error("the token endpoint is not at the host of the metadata")]
    TokenHost,
}

/// What is at hand for a client that asks.
pub(super) enum AtHand {
    /// A document that is new enough.
    Fresh(Rc<ServerMetadata>),
    /// One that should be fetched anew, and will do if that fails.
    Stale(Rc<ServerMetadata>),
    /// Nothing.
    Missing,
}

impl AuthorizationServer {
    /// `issuer` is the identifier that its document must have; `path` that of the issuer's configuration.
    pub(super) fn compile(
        config: ServerMetadataConfig,
        proxy: Option<OAuthProxyConfig>,
        issuer: String,
        path: &str,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let ServerMetadataConfig { cluster, scheme, authority, path: at, timeout_ms, .. } = config;
        let endpoint = EndpointConfig { cluster, scheme, authority, path: at, timeout_ms };
        let own = format!("{path}.authorization_server_metadata");
        let ages = [
            ("refresh_seconds", config.refresh_seconds, 10),
            ("keep_seconds", config.keep_seconds, config.refresh_seconds),
        ];
        check_seconds(&ages, &own, problems);
        Self {
            endpoint: AuthorizationEndpoint::compile(endpoint, &own, problems),
            issuer,
            refresh: Duration::from_secs(config.refresh_seconds),
            keep: Duration::from_secs(config.keep_seconds),
            proxy,
            held: RefCell::default(),
        }
    }

    pub(super) fn at_hand(&self, now: Timestamp) -> AtHand {
        match &*self.held.borrow() {
            Some((metadata, fetched)) if now.since(*fetched) < self.refresh => {
                AtHand::Fresh(Rc::clone(metadata))
            }
            Some((metadata, fetched)) if now.since(*fetched) < self.keep => {
                AtHand::Stale(Rc::clone(metadata))
            }
            _ => AtHand::Missing,
        }
    }

    /// The call that reads the document.
    pub(super) fn metadata_call(&self) -> HttpCall {
        self.endpoint.get(MOST_BYTES)
    }

    /// The call that hands a form on to the token endpoint.
    pub(super) fn token_call(
        &self,
        metadata: &ServerMetadata,
        request: &login::TokenRequest,
    ) -> Option<HttpCall> {
        let path = metadata.token_path.clone()?;
        Some(self.endpoint.post_to(path, request.form(), request.login(), MOST_BYTES))
    }

    /// Takes an answer to [`AuthorizationServer::metadata_call`].
    pub(super) fn learn(
        &self,
        outcome: &CallOutcome,
        now: Timestamp,
    ) -> Result<Rc<ServerMetadata>, MetadataError> {
        let read = Rc::new(self.read(outcome)?);
        *self.held.borrow_mut() = Some((Rc::clone(&read), now));
        Ok(read)
    }

    fn read(&self, outcome: &CallOutcome) -> Result<ServerMetadata, MetadataError> {
        let body = match outcome {
            CallOutcome::Failed => return Err(MetadataError::Unreachable),
            CallOutcome::TooLarge => return Err(MetadataError::TooLarge),
            CallOutcome::Response { status: 200, body, .. } => body,
            CallOutcome::Response { status: 502..=504, .. } => {
                return Err(MetadataError::Unreachable);
            }
            CallOutcome::Response { status, .. } => return Err(MetadataError::Status(*status)),
        };
        let document = Json::parse(body).map_err(|_| MetadataError::Garbage)?;
        let text = |name: &str| document.get(name).and_then(Json::as_str);
        // Entra and others write a slash at the end where the configuration has none, or leave it out.
        let bare = |issuer: &str| issuer.strip_suffix('/').unwrap_or(issuer).to_owned();
        match text("issuer") {
            Some(issuer) if bare(issuer) == bare(&self.issuer) => {}
            Some(_) => return Err(MetadataError::OtherIssuer),
            None => return Err(MetadataError::Garbage),
        }
        let url = |name: &str| text(name).filter(|url| is_endpoint_url(url));
        let authorization_endpoint =
            url("authorization_endpoint").ok_or(MetadataError::Garbage)?.to_owned();
        let token_endpoint = url("token_endpoint").ok_or(MetadataError::Garbage)?;
        // The gateway knows the way to one server. Which host a document names is not for it to follow.
        let token_path = token_endpoint
            .split_once("://")
            .and_then(|(_, rest)| rest.split_once('/'))
            .filter(|(host, _)| host.eq_ignore_ascii_case(self.endpoint.authority()))
            .map(|(_, path)| format!("/{path}"));
        Ok(ServerMetadata { authorization_endpoint, token_path, document })
    }

    /// The document for clients of the gateway.
    pub(super) fn document(&self, metadata: &ServerMetadata, public: &PublicUrl) -> Json {
        let Some(proxy) = &self.proxy else { return metadata.document.clone() };
        let own = |path: &str| Json::from(public.own(path).as_str());
        let mut document = Object::default();
        document.set("issuer", public.gateway().resource().as_str().into());
        document.set("authorization_endpoint", own(login::AUTHORIZE));
        document.set("token_endpoint", own(login::TOKEN));
        // Servers that say nothing of it do it all the same, and clients must refuse those that do not
        // say it (2025-11-25, "Authorization Code Protection").
        document.set("code_challenge_methods_supported", Json::Array(vec!["S256".into()]));
        document.set("response_types_supported", Json::Array(vec!["code".into()]));
        for name in KEPT {
            if let Some(value) = metadata.document.get(name) {
                document.set(name, value.clone());
            }
        }
        if proxy.client_id.is_some() {
            document.set("registration_endpoint", own(login::REGISTER));
            let none = Json::Array(vec!["none".into()]);
            document.set("token_endpoint_auth_methods_supported", none);
        }
        Json::Object(document)
    }
}

/// An endpoint that a browser or the gateway may be sent to (RFC 6749 section 3.1: no fragment).
fn is_endpoint_url(url: &str) -> bool {
    let local = ["http://localhost", "http://127.0.0.1", "http://[::1]"];
    let rest = url.strip_prefix("https://").or_else(|| {
        let local = local.iter().find_map(|local| url.strip_prefix(local));
        local.filter(|rest| rest.starts_with([':', '/'])).map(|_| url)
    });
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"#\"\\<>".contains(&byte);
    url.bytes().all(plain) && rest.is_some_and(|rest| rest.contains('/'))
}
