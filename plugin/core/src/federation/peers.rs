//! What the gateway knows of the servers of its portals: the era of each, and the sessions that it has
//! there as a client of its own.
//!
//! A server is asked in the modern form first. What a server of the legacy era answers to that says so
//! (2026-07-28, "Backward compatibility"), and a session is then opened when one is needed. Everything
//! here is one worker's memory and bounded: what is forgotten is found out again. Not here: lists
//! (`catalogue`), which request goes where (`decide`).

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use toolgate_protocol::headers::{Headers, encode_mirrored};
use toolgate_protocol::json::{Json, Object};
use toolgate_protocol::mcp::{
    Era, META_CLIENT_CAPABILITIES, META_CLIENT_INFO, META_PROTOCOL_VERSION, Version,
};

use super::answer::{self, Fault, Said};
use crate::credentials::{Echoes, Place, Wanted, with_parameter};
use crate::event::{CallOutcome, FieldValue, HttpCall, Timestamp};
use crate::facts::Facts;
use crate::gateway::Gateway;
use crate::secret::Secret;

/// How long a server is believed to be of its era.
const ERA_LASTS: Duration = Duration::from_secs(600);

/// Most sessions that a worker keeps.
const MOST_SESSIONS: usize = 4096;

/// How long a session is kept that nobody uses.
const SESSION_IDLES: Duration = Duration::from_secs(1800);

/// Longest session id that is taken from a server.
const LONGEST_ID: usize = 1024;

/// A session that is refused sooner than this was not worth opening again.
pub(super) const SURELY_OPEN: Duration = Duration::from_secs(1);

/// The id of every request that the gateway makes: each is a connection of its own.
pub(super) const ID: &str = "toolgate";

/// The credentials with which a server is asked. What depends on one caller's is that caller's alone.
pub(crate) type Access = Rc<[Wanted]>;

/// Whose session at which server.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SessionKey {
    pub(crate) server: Rc<str>,
    /// The client's session or the principal; empty for the gateway's own.
    pub(crate) owner: Rc<str>,
    /// Capabilities of the client as JSON; empty for none.
    pub(crate) capabilities: Rc<str>,
    pub(crate) access: Access,
}

/// A session at a server of the legacy era.
#[derive(Debug)]
pub(crate) struct Session {
    /// Its id; a server without sessions gives none.
    pub(crate) id: Option<Rc<str>>,
    pub(crate) version: Version,
    pub(crate) opened: Timestamp,
}

/// What a worker knows of servers.
#[derive(Default)]
pub(crate) struct Peers {
    eras: BTreeMap<Rc<str>, (Era, Timestamp)>,
    /// Whether servers of the modern era open sessions of the legacy one, too.
    both: BTreeMap<Rc<str>, (bool, Timestamp)>,
    sessions: BTreeMap<SessionKey, Kept>,
    /// Servers whose questions lead nowhere, and until when that is believed.
    mute: BTreeMap<Rc<str>, Timestamp>,
}

struct Kept {
    session: Rc<Session>,
    /// Whether the server was told that it is open.
    ready: bool,
    used: Timestamp,
    /// Whether the server has levels of log messages, and the one that it was told.
    logs: bool,
    level: Option<usize>,
}

impl Peers {
    pub(crate) fn era(&self, server: &str, now: Timestamp) -> Option<Era> {
        self.eras.get(server).filter(|(_, until)| now < *until).map(|(era, _)| *era)
    }

    pub(super) fn set_era(&mut self, server: &Rc<str>, era: Era, now: Timestamp) {
        self.eras.insert(Rc::clone(server), (era, now.after(ERA_LASTS)));
    }

    /// The era in which a server is spoken to for a client of this one, as far as it is known. For a
    /// client with a session of its own that is the client's, where the server speaks both: only there
    /// can the client be asked something.
    pub(crate) fn era_for(
        &self,
        server: &str,
        has_own_session: bool,
        now: Timestamp,
    ) -> Option<Era> {
        let era = self.era(server, now)?;
        if era == Era::Legacy || !has_own_session {
            return Some(era);
        }
        let (both, _) = self.both.get(server).filter(|(_, until)| now < *until)?;
        Some(if *both { Era::Legacy } else { Era::Modern })
    }

    /// What became of opening a session at a server says whether it has any.
    fn set_both(&mut self, server: &Rc<str>, opened: Result<(), Fault>, now: Timestamp) {
        let both = match opened {
            Ok(()) => true,
            Err(Fault::Error | Fault::Version | Fault::Answer) => false,
            Err(_) => return,
        };
        if self.era(server, now) == Some(Era::Modern) {
            self.both.insert(Rc::clone(server), (both, now.after(ERA_LASTS)));
        }
    }

    /// Whether the questions of a server lead nowhere.
    pub(super) fn is_mute(&self, server: &str, now: Timestamp) -> bool {
        self.mute.get(server).is_some_and(|until| now < *until)
    }

    pub(super) fn mute(&mut self, server: &Rc<str>, until: Timestamp) {
        self.mute.insert(Rc::clone(server), until);
    }

    /// A session that may be used.
    pub(crate) fn session(&mut self, key: &SessionKey, now: Timestamp) -> Option<Rc<Session>> {
        let kept = self.sessions.get_mut(key).filter(|kept| kept.ready)?;
        if now.since(kept.used) > SESSION_IDLES {
            self.sessions.remove(key);
            return None;
        }
        kept.used = now;
        Some(Rc::clone(&kept.session))
    }

    /// Whether a server has nothing to be told of this level of a session.
    pub(super) fn knows_level(&self, key: &SessionKey, level: usize) -> bool {
        let kept = self.sessions.get(key);
        kept.is_none_or(|kept| !kept.logs || kept.level == Some(level))
    }

    pub(super) fn told_level(&mut self, key: &SessionKey, level: usize) {
        if let Some(kept) = self.sessions.get_mut(key) {
            kept.level = Some(level);
        }
    }

    /// Forgets a session that its server does not know any more.
    pub(crate) fn forget(&mut self, key: &SessionKey) {
        self.sessions.remove(key);
    }

    fn keep(&mut self, key: &SessionKey, (session, logs): (Session, bool), now: Timestamp) {
        if self.sessions.len() >= MOST_SESSIONS {
            self.sessions.retain(|_, kept| now.since(kept.used) <= SESSION_IDLES);
        }
        if self.sessions.len() >= MOST_SESSIONS {
            // The one that has been idle for longest: its owner gets a new one.
            let idle = self.sessions.iter().min_by_key(|(_, kept)| kept.used);
            if let Some(key) = idle.map(|(key, _)| key.clone()) {
                self.sessions.remove(&key);
            }
        }
        let session = Rc::new(session);
        let kept = Kept { session, ready: false, used: now, logs, level: None };
        self.sessions.insert(key.clone(), kept);
    }
}

impl Gateway {
    /// The call that finds out the era of a server: `server/discover`, in the modern form.
    pub(crate) fn era_call(
        &self,
        server: &Rc<str>,
        access: &Access,
        facts: &Facts,
        now: Timestamp,
    ) -> Option<HttpCall> {
        let to = (server, access);
        self.server_call(to, "server/discover", Object::default(), (None, ""), facts, now)
    }

    /// What the answer says of the server's era.
    pub(crate) fn learn_era(
        &self,
        server: &Rc<str>,
        outcome: &CallOutcome,
        now: Timestamp,
    ) -> Result<Era, Fault> {
        let era = match answer::read(outcome, ID)? {
            Said::Result(result) => {
                // Servers of the legacy era answer this, too, some of them, and say so.
                let versions = result.get("supportedVersions").and_then(Json::as_array);
                let speaks = |versions: &[Json]| {
                    versions.iter().any(|version| version.as_str() == Some(modern().as_str()))
                };
                if versions.is_none_or(speaks) { Era::Modern } else { Era::Legacy }
            }
            said => era_of(&said)?,
        };
        self.peers.borrow_mut().set_era(server, era, now);
        Ok(era)
    }

    /// The next call on the way to a session: `initialize`, then the word that it is open.
    pub(crate) fn session_call(
        &self,
        key: &SessionKey,
        facts: &Facts,
        now: Timestamp,
    ) -> Option<HttpCall> {
        let opened = self.peers.borrow().sessions.get(key).map(|kept| Rc::clone(&kept.session));
        let mut params = Object::default();
        if opened.is_some() {
            let method = "notifications/initialized";
            let session = (opened.as_deref(), "");
            return self.server_call(
                (&key.server, &key.access),
                method,
                params,
                session,
                facts,
                now,
            );
        }
        params.set("protocolVersion", Version::V2025_11_25.as_str().into());
        let capabilities = Json::parse(key.capabilities.as_bytes()).ok();
        params.set("capabilities", capabilities.unwrap_or_else(|| Object::default().into()));
        params.set("clientInfo", self.client_info());
        let first = Session { id: None, version: Version::V2025_11_25, opened: now };
        let to = (&key.server, &key.access);
        self.server_call(to, "initialize", params, (Some(&first), ""), facts, now)
    }

    /// What became of it; `None` when another call is to come.
    pub(crate) fn learn_session(
        &self,
        key: &SessionKey,
        outcome: &CallOutcome,
        now: Timestamp,
    ) -> Option<Result<Rc<Session>, Fault>> {
        let mut peers = self.peers.borrow_mut();
        if let Some(kept) = peers.sessions.get_mut(key).filter(|kept| !kept.ready) {
            // Servers answer 202; of what else they say, nothing matters but that they are there.
            kept.ready = matches!(outcome, CallOutcome::Response { status, .. } if *status < 500);
            let session = Rc::clone(&kept.session);
            if kept.ready {
                return Some(Ok(session));
            }
            peers.sessions.remove(key);
            return Some(Err(Fault::Unreachable));
        }
        let opened = opened(outcome, now);
        let result = opened.as_ref().map(drop).map_err(|fault| *fault);
        peers.set_both(&key.server, result, now);
        match opened {
            Ok(session) => {
                peers.keep(key, session, now);
                None
            }
            Err(fault) => Some(Err(fault)),
        }
    }

    /// A request of the gateway itself to a server: of the legacy era in this session, or else modern.
    /// `None` when it cannot be made, since the credential for it is not at hand.
    pub(super) fn server_call(
        &self,
        (name, access): (&Rc<str>, &Access),
        method: &str,
        mut params: Object,
        (session, hops): (Option<&Session>, &str),
        facts: &Facts,
        now: Timestamp,
    ) -> Option<HttpCall> {
        if session.is_none() && params.get("_meta").is_none() {
            params.set("_meta", self.modern_meta(""));
        }
        let mut message = Object::default();
        message.set("jsonrpc", "2.0".into());
        if !method.starts_with("notifications/") {
            message.set("id", ID.into());
        }
        message.set("method", method.into());
        if !params.is_empty() {
            message.set("params", params.into());
        }
        let body = String::from_utf8(Json::Object(message).to_bytes()).ok()?;
        self.post((name, access), body, Some(method), (session, hops), facts, now)
    }

    /// A message to a server, of the method `method` where it has one.
    pub(super) fn post(
        &self,
        (name, access): (&Rc<str>, &Access),
        body: String,
        method: Option<&str>,
        (session, hops): (Option<&Session>, &str),
        facts: &Facts,
        now: Timestamp,
    ) -> Option<HttpCall> {
        let federation = self.federation.as_ref()?;
        let server = self.servers.get(name)?;
        let public = |name: &'static str, value: String| (name, FieldValue::Public(value));
        let mut headers = vec![
            public("accept", "application/json, text/event-stream".into()),
            public("content-type", "application/json".into()),
            public(super::HOPS, self.passed(hops)),
        ];
        match session {
            None => {
                headers.push(public("mcp-protocol-version", modern().as_str().into()));
                if let Some(method) = method {
                    headers.push(public("mcp-method", encode_mirrored(method)));
                }
            }
            Some(session) => {
                if method != Some("initialize") {
                    headers.push(public("mcp-protocol-version", session.version.as_str().into()));
                }
                if let Some(id) = &session.id {
                    headers.push(public("mcp-session-id", id.to_string()));
                }
            }
        }
        let mut credentials = Vec::new();
        let mut query: Option<Secret> = None;
        let mut echoes = Echoes::default();
        for (injection, wanted) in server.credentials.iter().zip(&**access) {
            let fetched = self.found(wanted, facts, now)?;
            echoes.add(&fetched, &injection.secret_fields);
            let value = injection.format.filled(&fetched)?;
            match &injection.place {
                Place::Header(name) => {
                    credentials.push((name.clone(), FieldValue::Secret(Rc::new(value))));
                }
                Place::Query(name) => query = Some(with_parameter(query, name, &value)),
            }
        }
        if credentials.len() + usize::from(query.is_some()) < server.credentials.len().min(1) {
            return None;
        }
        Some(HttpCall {
            cluster: Rc::clone(&server.cluster),
            scheme: server.scheme,
            authority: Rc::clone(&server.authority),
            method: "POST",
            path: match query {
                None => server.path.to_string(),
                Some(query) => format!("{}?{}", server.path, query.expose()),
            },
            headers,
            credentials,
            body: Some(Secret::new(body)),
            timeout: federation.timeout,
            most_bytes: self.limits.list_bytes,
            echoes,
        })
    }

    /// `_meta` of a modern request of the gateway, with these capabilities as JSON; empty for none: it offers
    /// nothing by itself that servers could ask it for.
    pub(super) fn modern_meta(&self, capabilities: &str) -> Json {
        let mut meta = Object::default();
        meta.set(META_PROTOCOL_VERSION, modern().as_str().into());
        let capabilities = Json::parse(capabilities.as_bytes()).ok();
        let capabilities = capabilities.unwrap_or_else(|| Object::default().into());
        meta.set(META_CLIENT_CAPABILITIES, capabilities);
        meta.set(META_CLIENT_INFO, self.client_info());
        meta.into()
    }

    fn client_info(&self) -> Json {
        let name = self.federation.as_ref().map_or("toolgate", |federation| &federation.gateway);
        let mut info = Object::default();
        info.set("name", name.into());
        info.set("version", env!("CARGO_PKG_VERSION").into());
        info.into()
    }
}

/// What anything but a result says of the era of a server that was asked in the modern form.
pub(super) fn era_of(said: &Said) -> Result<Era, Fault> {
    match said {
        Said::Result(_) => Ok(Era::Modern),
        // Codes that only the modern era has (2026-07-28, error codes).
        Said::Error { code: -32022, .. } => Err(Fault::Version),
        Said::Error { code: -32021 | -32020, .. } => Ok(Era::Modern),
        Said::Error { .. } | Said::Refused { .. } => Ok(Era::Legacy),
    }
}

fn modern() -> Version {
    Version::V2026_07_28
}

/// The session that the answer to `initialize` opens, and whether it has levels of log messages.
fn opened(outcome: &CallOutcome, now: Timestamp) -> Result<(Session, bool), Fault> {
    let Said::Result(result) = answer::read(outcome, ID)? else { return Err(Fault::Error) };
    let version = result.get("protocolVersion").and_then(Json::as_str).and_then(Version::parse);
    let version = version.filter(|version| version.era() == Era::Legacy).ok_or(Fault::Version)?;
    let no_headers = Headers::default();
    let headers = match outcome {
        CallOutcome::Response { headers, .. } => headers,
        _ => &no_headers,
    };
    let id = headers.single("mcp-session-id").map_err(|_| Fault::Answer)?;
    let is_plain = |id: &&str| id.len() <= LONGEST_ID && id.bytes().all(|b| b.is_ascii_graphic());
    match id {
        Some(id) if !is_plain(&id) => Err(Fault::Answer),
        id => {
            let logs = result.get("capabilities").is_some_and(|it| it.get("logging").is_some());
            Ok((Session { id: id.map(Into::into), version, opened: now }, logs))
        }
    }
}
