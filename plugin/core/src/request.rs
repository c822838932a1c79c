//! Reads a request: from header fields to what the client asks of which server.
//!
//! Everything about a request that needs neither policy nor the outside is settled here, in two
//! steps: [`Head`] when the header fields are there, [`Asked`] when the body is. Sources: Streamable
//! HTTP of the revisions 2025-03-26 to 2026-07-28.

use std::rc::Rc;

use toolgate_protocol::headers::Headers;
use toolgate_protocol::json::{Json, Object};
use toolgate_protocol::jsonrpc::{Body, Id, Kind, Message, MessageError};
use toolgate_protocol::mcp::{self, Era, McpError, Operation, Version};

use crate::audit::{AuditRecord, short_digest};
use crate::batch::Batch;
use crate::config::CallerAudit;
use crate::counting::Counting;
use crate::credentials::linking;
use crate::denial::{Denial, Reason};
use crate::event::{HostFacts, Timestamp};
use crate::facts::{Facts, Stop};
use crate::federation::{
    Access, Claims, Goal, HOPS, Portal, PortalSession, Rekeyed, Resumption, SessionKey,
    SessionLevel, asked_in, rename, resolve,
};
use crate::gateway::Gateway;
use crate::identity::approvals;
use crate::identity::{AskedEndpoint, Known, KnownCaller, Proof, RequiredScopes};
use crate::policies::Policies;
use crate::secret::Secret;

/// Every MCP endpoint lies under this path.
const ENDPOINTS: &str = "/mcp";

/// The HTTP methods of an MCP endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HttpMethod {
    /// Carries a message.
    Post,
    /// Opens a stream of the server's messages; legacy era only.
    Get,
    /// Ends a session; legacy era only.
    Delete,
}

/// A request whose header fields are acceptable.
pub(crate) struct Head {
    pub(crate) http_method: HttpMethod,
    /// The server it is for. Behind a portal that is known once the message is; until then there is
    /// no server of this name.
    pub(crate) server: Rc<str>,
    /// Whether the path ended in a slash, by which clients then know the endpoint.
    pub(crate) slash: bool,
    /// The last part of its path, by which clients know the endpoint.
    pub(crate) endpoint: Rc<str>,
    /// The portal it came through.
    pub(crate) portal: Option<Rc<Portal>>,
    /// Who asks; none as long as that depends on an answer of the token's issuer.
    pub(crate) caller: Option<Rc<KnownCaller>>,
    /// The policies that decide on it, from when the caller is known.
    pub(crate) policies: Option<Rc<Policies>>,
    pub(crate) headers: Headers,
    pub(crate) source: Option<String>,
    /// What the host vouches for.
    pub(crate) host: HostFacts,
    /// Session id as the client knows it.
    pub(crate) session: Option<String>,
    /// The same as its server knows it.
    pub(crate) server_session: Option<String>,
    /// The session at a portal.
    pub(crate) portal_session: Option<PortalSession>,
    /// The gateways that the request has passed.
    pub(crate) hops: Rc<str>,
    /// `MCP-Protocol-Version` as it was sent.
    pub(crate) version: Option<String>,
}

impl Head {
    /// The bearer token that the caller presented, which was verified.
    pub(crate) fn bearer(&self) -> Option<&str> {
        self.caller.as_ref().filter(|caller| caller.proof == Proof::Token)?;
        let value = self.headers.single("authorization").ok().flatten()?;
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    }
}

/// A whole request that was understood.
pub(crate) struct Asked {
    pub(crate) head: Head,
    pub(crate) message: Option<Message>,
    /// The messages of a batch, instead of the one.
    pub(crate) batch: Option<Batch>,
    pub(crate) era: Era,
    /// The revision the client says; legacy clients up to 2025-03-26 say none.
    pub(crate) revision: Option<Version>,
    /// What is known of earlier calls.
    pub(crate) counting: Counting,
    /// When it was read.
    pub(crate) began: Timestamp,
    /// Whom a message through a portal is for.
    pub(crate) goal: Option<Goal>,
    /// What the request was called before it got an id of the gateway's own.
    pub(crate) rekeyed: Option<Rekeyed>,
    /// What it says of the client that a server of the legacy era is not told in the request.
    pub(crate) claims: Claims,
    /// The sealed session of the question that it answers, or of the stream that it goes on with.
    pub(crate) asked_in: Option<String>,
    /// The event after which it goes on, by its server's own id.
    pub(crate) resumes_after: Option<String>,
    /// The log level of its session at a portal.
    pub(crate) level: SessionLevel,
    /// Whether the body is what the server of a portal reads.
    pub(crate) prepared: bool,
    /// Whether the client was asked to link an account, and has answered.
    pub(crate) has_linked: bool,
    /// The message as it goes on: the parsed one, serialised again. Taken when it is sent.
    pub(crate) body: Vec<u8>,
    /// Its length in bytes.
    pub(crate) body_length: usize,
    /// The approval that came in the message, and does not go on.
    pub(crate) approval: Option<Secret>,
}

impl Gateway {
    /// Reads the header fields of a request.
    ///
    /// # Errors
    /// A [`Denial`]; `audit` then holds what was known before it.
    pub(crate) fn read_head(
        &self,
        headers: Headers,
        source: Option<String>,
        host: HostFacts,
        now: Timestamp,
        audit: &mut AuditRecord,
    ) -> Result<Head, Denial> {
        if self.awaits_policies() {
            let message = "the gateway has no policies yet; try again later";
            return Err(Denial::new(Reason::PoliciesUnavailable, message));
        }
        let header = |name: &str| headers.single(name).map_err(Denial::from);
        let path = header(":path")?.unwrap_or_default();
        let path = path.split_once('?').map_or(path, |(path, _)| path);
        let whole = path.strip_prefix(ENDPOINTS);
        let name = whole.map(|name| name.strip_suffix('/').unwrap_or(name));
        let name =
            name.and_then(|name| if name.is_empty() { Some("") } else { name.strip_prefix('/') });
        let Some(name) = name.filter(|name| !name.contains('/')) else {
            return Err(unknown_server());
        };
        let http_method = match header(":method")?.unwrap_or_default() {
            "POST" => HttpMethod::Post,
            "GET" => HttpMethod::Get,
            "DELETE" => HttpMethod::Delete,
            _ => return Err(http_method_refused("GET, POST, DELETE")),
        };
        let version = header("mcp-protocol-version")?.map(str::to_owned);
        if http_method != HttpMethod::Post {
            // What no token would change is said before one is asked for: a client that tries whether
            // there is a stream must not be sent to log in.
            match version.as_deref().map(Version::parse) {
                None => {}
                Some(Some(version)) if version.era() == Era::Legacy => {
                    audit.protocol_version = Some(version.as_str());
                }
                Some(Some(_)) => return Err(http_method_refused("POST")),
                Some(None) => return Err(unsupported_version(version.unwrap_or_default(), false)),
            }
            let name = if http_method == HttpMethod::Get { "GET" } else { "DELETE" };
            audit.mcp_method = Some(name.into());
        }
        let slash = whole.is_some_and(|whole| whole.ends_with('/'));
        let session = header("mcp-session-id")?.map(str::to_owned);
        // Visible ASCII and nothing else (2025-11-25, "Session management"): no list of several.
        if session.as_deref().is_some_and(|id| !id.bytes().all(|byte| byte.is_ascii_graphic())) {
            let message = "header mcp-session-id is no session id";
            return Err(Denial::new(Reason::Header, message));
        }
        audit.session = session.as_deref().map(short_digest);
        let hops: Rc<str> = header(HOPS)?.unwrap_or_default().into();
        let mut head = Head {
            http_method,
            server: name.into(),
            slash,
            endpoint: name.into(),
            portal: None,
            caller: None,
            policies: None,
            headers,
            source,
            host,
            session,
            server_session: None,
            portal_session: None,
            hops,
            version,
        };
        let known = self.servers.get_key_value(&head.server).map(|(name, _)| Rc::clone(name));
        let portals = self.federation.as_ref().filter(|_| known.is_none());
        head.portal = portals.and_then(|portals| portals.portal(&head.endpoint)).map(Rc::clone);
        audit.server.clone_from(&known);
        audit.portal = head.portal.as_ref().map(|portal| Rc::clone(&portal.name));
        match self.identify(&mut head, &Facts::default(), now, audit) {
            // It is found out once the body is there, which one host does not take later.
            Ok(()) | Err(Stop::Need(_)) => {}
            Err(Stop::Deny(denial)) => return Err(denial),
            Err(Stop::Answer(_) | Stop::Shared(_)) => {
                return Err(Denial::new(Reason::Internal, "nothing was asked yet"));
            }
        }
        head.server = match (known, &head.portal) {
            (Some(server), _) => server,
            (None, Some(_)) => Rc::from(""),
            (None, None) => return Err(unknown_server()),
        };
        // A portal has no stream of its own; what a server's stream would have gone on to say, it has.
        let resumes = http_method == HttpMethod::Get && head.headers.contains("last-event-id");
        if head.portal.is_some() && http_method != HttpMethod::Post && !resumes {
            return Err(http_method_refused("POST"));
        }
        self.check_hops(&head.hops)?;
        if http_method == HttpMethod::Post {
            check_body_headers(&head.headers, self.limits.request_bytes)?;
        }
        Ok(head)
    }

    /// The scopes that every request to an endpoint needs; `None` where there is no such endpoint.
    /// Behind a portal each server has its own.
    pub(crate) fn required_scopes(&self, endpoint: &str) -> Option<&RequiredScopes> {
        const NONE: &RequiredScopes = &RequiredScopes::NONE;
        match self.servers.get(endpoint) {
            Some(server) => Some(&server.scopes),
            None => self.federation.as_ref()?.portal(endpoint).map(|_| NONE),
        }
    }

    /// Finds out who asks, with what was found out for the request, and opens the caller's session.
    ///
    /// # Errors
    /// [`Stop`] with what has to be found out first, or with the refusal.
    pub(crate) fn identify(
        &self,
        head: &mut Head,
        facts: &Facts,
        now: Timestamp,
        audit: &mut AuditRecord,
    ) -> Result<(), Stop> {
        let name = &*head.endpoint;
        let endpoint =
            AskedEndpoint { server: name, slash: head.slash, scopes: self.required_scopes(name) };
        let policies = self.policies();
        let known = Known { policies: &policies, facts, host: &head.host };
        let mut tokens = self.tokens.borrow_mut();
        let caller =
            self.identity.caller(&head.headers, endpoint, known, &mut tokens, now, audit)?;
        audit.principal = Some(Rc::clone(&caller.subject));
        audit.principal_type = Some(caller.type_name());
        audit.caller = match self.audit.caller {
            CallerAudit::Memberships if caller.kind.is_some() => Some(caller.memberships()),
            _ => None,
        };
        audit.issuer.clone_from(&caller.issuer);
        audit.client.clone_from(&caller.client);
        // In the modern era the field means nothing and does not go on.
        let era = head.version.as_deref().and_then(Version::parse).map(Version::era);
        if let Some(id) = &head.session
            && era != Some(Era::Modern)
        {
            match &head.portal {
                None => {
                    head.server_session = Some(self.sessions.open(&caller.owner, name, id)?);
                }
                Some(portal) => {
                    let plain = self.sessions.open_portal(&caller.owner, &portal.name, id)?;
                    head.portal_session = Some(PortalSession::read(&plain)?);
                }
            }
        }
        head.caller = Some(caller);
        head.policies = Some(policies);
        Ok(())
    }
}

impl Head {
    /// The policies that decide on it.
    ///
    /// # Errors
    /// A [`Denial`] when the caller is not known yet: nobody may do anything then.
    pub(crate) fn policies(&self) -> Result<&Policies, Denial> {
        let unknown = || Denial::new(Reason::Internal, "the caller is not known");
        self.policies.as_deref().ok_or_else(unknown)
    }

    /// Who asks.
    ///
    /// # Errors
    /// A [`Denial`] when that is not known: nobody may do anything then.
    pub(crate) fn caller(&self) -> Result<&KnownCaller, Denial> {
        let unknown = || Denial::new(Reason::Internal, "the caller is not known");
        self.caller.as_deref().ok_or_else(unknown)
    }
}

impl Asked {
    /// Reads the body that belongs to `head`: none for GET and DELETE.
    ///
    /// # Errors
    /// A [`Denial`] for the message with this id; `audit` then holds what could be read of it.
    pub(crate) fn read(
        head: Head,
        body: &[u8],
        audit: &mut AuditRecord,
    ) -> Result<Self, (Denial, Option<Id>)> {
        if head.http_method != HttpMethod::Post {
            return match body {
                [] => {
                    let mut asked = Self::without_message(head);
                    asked.enter_stream(audit).map_err(|denial| (denial, None))?;
                    Ok(asked)
                }
                _ => {
                    let message = "this request must not have a body";
                    Err((Denial::new(Reason::UnexpectedBody, message), None))
                }
            };
        }
        let parsed = if allows_batches(&head) {
            Body::parse(body)
        } else {
            Message::parse(body).map(Body::Single)
        };
        let body = parsed.map_err(|error| {
            audit.jsonrpc_id = error.id().map(ToString::to_string);
            let reason = match &error {
                MessageError::Json(error) => Reason::Json(error.fault()),
                MessageError::Invalid { fault, .. } => Reason::Message(*fault),
            };
            (Denial::new(reason, error.to_string()), error.id().cloned())
        })?;
        match body {
            Body::Single(message) => {
                let id = message.id().cloned();
                Self::read_message(head, message, audit).map_err(|denial| (denial, id))
            }
            Body::Batch(messages) => {
                Self::read_batch(head, messages, audit).map_err(|denial| (denial, None))
            }
        }
    }

    /// A batch is of the legacy era: a message of it that says otherwise spoils it.
    fn read_batch(
        head: Head,
        mut messages: Vec<Message>,
        audit: &mut AuditRecord,
    ) -> Result<Self, Denial> {
        audit.mcp_method = Some("batch".into());
        let mut revision = None;
        for message in &mut messages {
            // Of no use in a batch, and for the gateway alone.
            approvals::take(message)?;
            (_, revision) = era(&head, message)?;
        }
        audit.protocol_version = revision.map(Version::as_str);
        Ok(Self { batch: Some(Batch::new(messages)), revision, ..Self::without_message(head) })
    }

    /// Sets what goes on of the batch.
    pub(crate) fn set_batch(&mut self, batch: Batch) {
        self.body = batch.to_bytes();
        self.body_length = self.body.len();
        self.batch = Some(batch);
    }

    fn read_message(
        head: Head,
        mut message: Message,
        audit: &mut AuditRecord,
    ) -> Result<Self, Denial> {
        audit.jsonrpc_id = message.id().map(ToString::to_string);
        audit.mcp_method = Some(match message.kind() {
            Kind::Request { method, .. } | Kind::Notification { method } => {
                method.chars().take(128).collect()
            }
            Kind::Response { .. } => "response".into(),
        });
        let (era, version) = era(&head, &message)?;
        audit.protocol_version = version.map(Version::as_str);
        if era == Era::Modern {
            check_mirrors(&head.headers, &message)?;
        }
        let approval = approvals::take(&mut message)?;
        let has_linked = era == Era::Modern && linking::take_answer(&mut message);
        let mut asked = Self {
            head,
            message: Some(message),
            batch: None,
            era,
            revision: version,
            counting: Counting::default(),
            began: Timestamp::default(),
            goal: None,
            rekeyed: None,
            claims: Claims::default(),
            asked_in: None,
            resumes_after: None,
            level: SessionLevel::default(),
            prepared: false,
            has_linked,
            body: Vec::new(),
            body_length: 0,
            approval,
        };
        asked.operation()?;
        asked.enter_portal(audit);
        asked.body = asked.message.as_ref().map(Message::to_bytes).unwrap_or_default();
        asked.body_length = asked.body.len();
        Ok(asked)
    }

    fn without_message(head: Head) -> Self {
        let era = Era::Legacy;
        Self {
            head,
            message: None,
            batch: None,
            era,
            revision: None,
            counting: Counting::default(),
            began: Timestamp::default(),
            goal: None,
            rekeyed: None,
            claims: Claims::default(),
            asked_in: None,
            resumes_after: None,
            level: SessionLevel::default(),
            prepared: false,
            has_linked: false,
            body: Vec::new(),
            body_length: 0,
            approval: None,
        }
    }

    /// What is asked for; `None` for the requests without a message.
    ///
    /// # Errors
    /// A [`Denial`] when the message is no acceptable MCP of its era.
    pub(crate) fn operation(&self) -> Result<Option<Operation<'_>>, Denial> {
        self.message.as_ref().map(|message| self.operation_of(message)).transpose()
    }

    /// What one message asks for.
    ///
    /// # Errors
    /// A [`Denial`] when it is no acceptable MCP of its era.
    pub(crate) fn operation_of<'a>(&self, message: &'a Message) -> Result<Operation<'a>, Denial> {
        mcp::operation(message, self.revision).map_err(|error| match error {
            McpError::UnknownMethod(..) if self.era == Era::Modern => {
                Denial::from(error).with_status(404)
            }
            error => error.into(),
        })
    }

    /// Puts a message through a portal into the words of the server that it is for.
    fn enter_portal(&mut self, audit: &mut AuditRecord) {
        let (Some(portal), Some(message)) = (&self.head.portal, &mut self.message) else { return };
        self.asked_in = asked_in(message);
        let goal = resolve(portal, message);
        self.head.server = goal.server(portal);
        self.goal = Some(goal);
        audit.server = (!self.head.server.is_empty()).then(|| Rc::clone(&self.head.server));
    }

    /// Puts what a client says of a stream through a portal into the words of the server that it is of.
    ///
    /// # Errors
    /// A [`Denial`] for an event that no server sent through this portal.
    fn enter_stream(&mut self, audit: &mut AuditRecord) -> Result<(), Denial> {
        let Some(portal) = &self.head.portal else { return Ok(()) };
        let seen = self.head.headers.single("last-event-id")?.unwrap_or_default();
        let Some(Resumption { member, session, event }) = Resumption::read(portal, seen) else {
            let message = "last-event-id is no event of this endpoint's";
            return Err(Denial::new(Reason::InvalidParams, message).with_status(400));
        };
        let goal = Goal::Member(member);
        self.head.server = goal.server(portal);
        audit.server = Some(Rc::clone(&self.head.server));
        self.goal = Some(goal);
        self.asked_in = Some(session);
        self.resumes_after = Some(event);
        Ok(())
    }

    /// The approval that came with the request.
    ///
    /// # Errors
    /// A [`Denial`] when there are several.
    pub(crate) fn sent_approval(&self) -> Result<Option<Secret>, Denial> {
        let header = self.head.headers.single(approvals::HEADER)?;
        match (header, &self.approval) {
            (Some(header), Some(meta)) if header != meta.expose() => {
                let message = "the header field and the message hold different approvals: send one";
                Err(Denial::new(Reason::ApprovalInvalid, message))
            }
            (Some(approval), _) => Ok(Some(Secret::new(approval.to_owned()))),
            (None, Some(approval)) => Ok(Some(Secret::new(approval.expose().to_owned()))),
            (None, None) => Ok(None),
        }
    }

    /// Whether the server of a portal has a session of this client alone.
    pub(crate) fn has_own_session(&self) -> bool {
        self.era == Era::Legacy && self.head.portal_session.is_some()
    }

    /// Whether a server of the legacy era can ask its client something in a stream.
    pub(crate) fn can_be_asked_in_stream(&self) -> bool {
        let session = self.head.portal_session.as_ref().filter(|_| self.has_own_session());
        session.is_some_and(|session| {
            let asked = ["elicitation", "sampling", "roots"];
            asked.iter().any(|asked| session.capabilities.contains(asked))
        })
    }

    /// The session in which a server of the legacy era is asked.
    ///
    /// # Errors
    /// A [`Denial`] when the caller is not known.
    pub(crate) fn session_key(&self, access: Access) -> Result<SessionKey, Denial> {
        let server = Rc::clone(&self.head.server);
        let own = self.head.portal_session.as_ref().filter(|_| self.has_own_session());
        Ok(match own {
            Some(PortalSession { id, capabilities }) => SessionKey {
                server,
                owner: format!("session {id}").into(),
                capabilities: Rc::clone(capabilities),
                access,
            },
            None => {
                let owner = format!("principal {}", self.head.caller()?.owner).into();
                let capabilities = self.claims.capabilities.clone().unwrap_or_default();
                SessionKey { server, owner, capabilities, access }
            }
        })
    }

    /// Puts the server's own name where a shortened one stands.
    pub(crate) fn lengthen(&mut self, member: usize, own: &str) {
        let Some(message) = &mut self.message else { return };
        rename(message, own);
        self.body = message.to_bytes();
        self.body_length = self.body.len();
        self.goal = Some(Goal::Member(member));
    }

    /// The protocol version that the client's header names.
    pub(crate) fn version(&self) -> Option<&str> {
        self.head.version.as_deref()
    }

    /// What the client calls itself.
    pub(crate) fn client_name(&self) -> Option<&str> {
        mcp::client_name(self.message.as_ref()?)
    }
}

/// Batches are of revision 2025-03-26 only, whose clients name no version in the header: it is of the
/// next one, which says that its absence means 2025-03-26.
fn allows_batches(head: &Head) -> bool {
    match head.version.as_deref() {
        // The messages of a batch could be for several servers.
        _ if head.portal.is_some() => false,
        None => true,
        Some(version) => Version::parse(version) == Some(Version::V2025_03_26),
    }
}

/// What a caller learns of a server that is not there, or not there for it.
pub(crate) fn unknown_server() -> Denial {
    Denial::new(Reason::UnknownServer, "there is no MCP server at this path")
}

fn http_method_refused(allowed: &str) -> Denial {
    Denial::new(Reason::HttpMethod, format!("this endpoint accepts {allowed}"))
        .with_header("allow", allowed.to_owned())
}

fn check_body_headers(headers: &Headers, most: usize) -> Result<(), Denial> {
    let header = |name: &str| headers.single(name).map_err(Denial::from);
    let content_type = header("content-type")?.unwrap_or_default();
    let mut parts = content_type.split(';').map(str::trim);
    let is_json = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/json"));
    let is_utf8 = parts.all(|parameter| {
        matches!(
            parameter.to_ascii_lowercase().as_str(),
            "" | "charset=utf-8" | "charset=\"utf-8\""
        )
    });
    if !is_json || !is_utf8 {
        let message = "the body must be application/json in UTF-8";
        return Err(Denial::new(Reason::ContentType, message));
    }
    if header("content-encoding")?
        .is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity"))
    {
        let message = "the body must not be encoded: send it without Content-Encoding";
        return Err(Denial::new(Reason::ContentEncoding, message));
    }
    let length = header("content-length")?.map(str::parse::<usize>);
    if length.is_some_and(|length| length.map_or(true, |length| length > most)) {
        return Err(body_too_large(most));
    }
    Ok(())
}

pub(crate) fn body_too_large(most: usize) -> Denial {
    Denial::new(Reason::BodyTooLarge, format!("the body is larger than {most} bytes"))
}

/// A body that the host holds where the gateway cannot read it.
pub(crate) fn body_withheld(setting: &str) -> Denial {
    let message = format!(
        "the body is larger than the proxy keeps in memory; whoever runs it can raise {setting}"
    );
    Denial::new(Reason::BodyTooLarge, message)
}

/// The era a message belongs to. What header and body say of it must agree, since servers look at
/// one or the other.
fn era(head: &Head, message: &Message) -> Result<(Era, Option<Version>), Denial> {
    let invalid = |error: McpError| Denial::from(error).with_status(400);
    let said = head.version.as_deref();
    let claimed = mcp::claimed_version(message).map_err(invalid)?;
    if let Some(claimed) = claimed.filter(|_| said != claimed) {
        return Err(Denial::new(
            Reason::HeaderMismatch,
            format!(
                "MCP-Protocol-Version is {:?} and the body's _meta says {claimed:?}",
                said.unwrap_or("absent")
            ),
        ));
    }
    let version = match said.map(Version::parse) {
        Some(None) => {
            return Err(unsupported_version(
                said.unwrap_or_default().to_owned(),
                claimed.is_some(),
            ));
        }
        other => other.flatten(),
    };
    match version.map_or(Era::Legacy, Version::era) {
        Era::Modern => {
            let is_notification = matches!(message.kind(), Kind::Notification { .. });
            if claimed.is_some() || !is_notification {
                mcp::check_modern_meta(message).map_err(invalid)?;
            }
            Ok((Era::Modern, version))
        }
        // No revision before 2026-07-28 is claimed in a body.
        Era::Legacy => match claimed {
            Some(claimed) => Err(unsupported_version(claimed.to_owned(), true)),
            None => Ok((Era::Legacy, version)),
        },
    }
}

fn unsupported_version(requested: String, modern: bool) -> Denial {
    let versions = Version::ALL.iter().rev().filter(|v| !modern || v.era() == Era::Modern);
    let supported = versions.map(|version| Json::from(version.as_str())).collect();
    let requested: String = requested.chars().take(64).collect();
    Denial::new(Reason::ProtocolVersion, format!("protocol version {requested:?} is not supported"))
        .with_data("supported", Json::Array(supported))
        .with_data("requested", Json::from(requested))
}

/// Compares `Mcp-Method` and `Mcp-Name` with the body (2026-07-28, standard request headers).
fn check_mirrors(headers: &Headers, message: &Message) -> Result<(), Denial> {
    let is_request = matches!(message.kind(), Kind::Request { .. });
    for (name, _) in headers.iter().filter(|(name, _)| name.starts_with("mcp-param-")) {
        headers
            .mirrored(name)
            .map_err(|error| Denial::new(Reason::HeaderMismatch, error.to_string()))?;
    }
    for (name, value) in
        [("mcp-method", message.method()), ("mcp-name", mcp::mirrored_name(message))]
    {
        let mirrored = headers
            .mirrored(name)
            .map_err(|error| Denial::new(Reason::HeaderMismatch, error.to_string()))?;
        match (mirrored.as_deref(), value) {
            (Some(mirrored), Some(value)) if mirrored == value => {}
            (None, Some(_)) if is_request => {
                return Err(Denial::new(
                    Reason::HeaderMismatch,
                    format!("header {name} is missing; it must repeat the body"),
                ));
            }
            (None, _) => {}
            // A name beside a method that has none means nothing and does not go on.
            (Some(_), None) => {}
            (Some(_), Some(_)) => {
                return Err(Denial::new(
                    Reason::HeaderMismatch,
                    format!("header {name} contradicts the body"),
                ));
            }
        }
    }
    Ok(())
}

/// An empty set of parameters, for requests that have none.
pub(crate) fn no_arguments() -> Json {
    Json::Object(Object::default())
}
