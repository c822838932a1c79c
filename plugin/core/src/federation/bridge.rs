//! Carries a request over from the era of its client to the era of its server, and the answer back.
//!
//! What a client of the legacy era says in `initialize` a modern server is told with every request; a
//! server of the legacy era gets a session, opened when it is needed. Many callers may share such a
//! session, so that ids of requests and progress tokens become the gateway's own there. What cannot be
//! carried is refused, and never asked for: a server is not told that the client could be asked
//! anything unless the answer could get back (`rounds`). Not here: when (`exchange`), names (`request`).

use std::rc::Rc;

use toolgate_protocol::headers::encode_mirrored;
use toolgate_protocol::json::{Json, Object};
use toolgate_protocol::jsonrpc::{Id, Kind, Message};
use toolgate_protocol::mcp::{
    Era, META_CLIENT_CAPABILITIES, META_CLIENT_INFO, META_PROTOCOL_VERSION, Operation, Version,
    mirrored_name,
};

use super::peers::{Access, Session, SessionKey};
use super::request::Goal;
use super::rounds::{Claims, LEVELS, META_LOG_LEVEL, Resumed};
use crate::credentials::Injected;
use crate::denial::{Denial, Reason};
use crate::event::{FieldValue, HeadEdit, Timestamp};
use crate::facts::{Facts, Need, Stop};
use crate::gateway::{Gateway, Server};
use crate::request::Asked;

/// Methods of the legacy era that the modern one has nothing for. Tasks have another form in each.
const LEGACY_ONLY: &[&str] =
    &["resources/subscribe", "resources/unsubscribe", "tasks/result", "tasks/get", "tasks/cancel"];

/// Methods of the modern era that the legacy one has nothing for, likewise.
const MODERN_ONLY: &[&str] = &["subscriptions/listen", "tasks/get", "tasks/update", "tasks/cancel"];

/// How one request is carried.
pub(crate) struct Bridge {
    /// Era of the server.
    pub(crate) to: Era,
    /// Its session, where it has them.
    pub(crate) session: Option<(SessionKey, Rc<Session>)>,
    /// The earlier call that it goes on with.
    pub(crate) resumed: Option<Resumed>,
}

/// What a request was called before it got the gateway's own id.
#[derive(Clone, Debug)]
pub(crate) struct Rekeyed {
    /// The gateway's.
    pub(crate) own: String,
    /// The client's.
    pub(crate) id: Id,
    /// The client's progress token, where it gave one.
    pub(crate) progress: Option<Json>,
}

impl Gateway {
    /// How the request is carried to its server.
    ///
    /// # Errors
    /// [`Stop`] with what has to be found out or opened before, or with the refusal of what cannot be
    /// carried.
    pub(crate) fn bridge(
        &self,
        server: &Server,
        asked: &Asked,
        injected: &[Injected],
        facts: &Facts,
        now: Timestamp,
    ) -> Result<Bridge, Stop> {
        let method = asked.message.as_ref().and_then(Message::method);
        if server.passthrough.is_some() {
            // Only the caller's own request carries its token: nothing can be found out before.
            return Ok(Bridge { to: asked.era, session: None, resumed: None });
        }
        let server = &asked.head.server;
        let access: Access = injected.iter().map(|injected| injected.wanted.clone()).collect();
        if let Some(sealed) = &asked.asked_in {
            // The server waits for it in the session in which it asked, whoever opened that.
            let session = self.session_asked_in(asked, sealed)?;
            let session = Some((asked.session_key(access)?, Rc::new(session)));
            return Ok(Bridge { to: Era::Legacy, session, resumed: None });
        }
        let own_era = self.peers.borrow().era(server, now);
        let to = match (self.known_era(asked, now), own_era) {
            (Some(era), _) => era,
            // Whether it opens a session says whether it speaks the client's era, too.
            (None, Some(_)) => Era::Legacy,
            (None, None) => match facts.era(server, &access) {
                Some(Ok(era)) => *era,
                Some(Err(fault)) => return Err(super::unavailable(*fault).into()),
                None => return Err(Need::Era(Rc::clone(server), access).into()),
            },
        };
        if to == Era::Modern {
            let lost = method.is_none_or(|method| LEGACY_ONLY.contains(&method));
            if asked.era == Era::Legacy && lost {
                let message = format!(
                    "the server speaks MCP 2026-07-28, which has no {}",
                    method.unwrap_or("requests of servers")
                );
                return Err(Denial::new(Reason::UnknownMethod, message).into());
            }
            return Ok(Bridge { to, session: None, resumed: None });
        }
        if asked.era == Era::Modern
            && let Some(method) = method.filter(|method| MODERN_ONLY.contains(method))
        {
            let message = format!(
                "the server speaks no later MCP than 2025-11-25, which has no {method} of this form"
            );
            return Err(Denial::new(Reason::UnknownMethod, message).with_status(404).into());
        }
        if asked.era == Era::Modern
            && let Some((resumed, session)) = self.resumed(asked, &access, facts)?
        {
            let session = Some((asked.session_key(access)?, Rc::new(session)));
            return Ok(Bridge { to, session, resumed: Some(resumed) });
        }
        let key = asked.session_key(access)?;
        let session = self.peers.borrow_mut().session(&key, now);
        let session = match (session, facts.session(&key)) {
            (Some(session), _) => session,
            (None, Some(Ok(session))) => Rc::clone(session),
            (None, Some(Err(fault))) => return Err(super::unavailable(*fault).into()),
            (None, None) => return Err(Need::Session(key).into()),
        };
        if let Some(need) = self.untold_level(&key, asked, facts, now) {
            return Err(need.into());
        }
        Ok(Bridge { to, session: Some((key, session)), resumed: None })
    }

    /// Era in which the server is spoken to, as far as it is known.
    fn known_era(&self, asked: &Asked, now: Timestamp) -> Option<Era> {
        self.peers.borrow().era_for(&asked.head.server, asked.has_own_session(), now)
    }

    /// Makes the body what its server reads, if the era of that is known.
    pub(crate) fn prepare_known(&self, asked: &mut Asked, now: Timestamp) {
        if !asked.prepared
            && matches!(asked.goal, Some(Goal::Member(_)))
            && let Some(era) = self.known_era(asked, now)
        {
            self.prepare(asked, Some(era), now);
        }
    }

    /// Makes the body what a server of this era reads; of an unknown one, what both read.
    pub(crate) fn prepare(&self, asked: &mut Asked, to: Option<Era>, now: Timestamp) {
        if asked.prepared {
            return;
        }
        asked.prepared = true;
        if (asked.era, to) == (Era::Modern, Some(Era::Modern)) {
            return;
        }
        let shared = to != Some(Era::Modern) && !asked.has_own_session();
        let askable = to == Some(Era::Legacy) && self.can_ask(&asked.head.server, now);
        let level = self.level_for(asked, now).and_then(|level| LEVELS.get(level));
        let (from, Some(message)) = (asked.era, &mut asked.message) else { return };
        let Kind::Request { id, .. } = message.kind() else { return };
        let id = id.clone();
        let Some(body) = message.body_mut().as_object_mut() else { return };
        if body.get("params").is_none() {
            body.set("params", Object::default().into());
        }
        if shared {
            let own = format!("toolgate-{}", self.next_record_id());
            body.set("id", own.as_str().into());
            let meta = member(body, "params").and_then(|params| member(params, "_meta"));
            let progress = meta.and_then(|meta| {
                let progress = meta.get("progressToken").cloned()?;
                meta.set("progressToken", own.as_str().into());
                Some(progress)
            });
            asked.rekeyed = Some(Rekeyed { own, id, progress });
        }
        let Some(params) = member(body, "params") else { return };
        match (from, to) {
            (Era::Legacy, None | Some(Era::Modern)) => {
                if params.get("_meta").is_none() {
                    params.set("_meta", Object::default().into());
                }
                let claims = self.modern_meta("");
                let claims = claims.as_object().into_iter().flat_map(Object::iter);
                if let Some(meta) = member(params, "_meta") {
                    claims.for_each(|(key, value)| meta.set(key, value.clone()));
                    if let Some(level) = level {
                        meta.set(META_LOG_LEVEL, Json::from(*level));
                    }
                }
            }
            (Era::Modern, Some(Era::Legacy)) => {
                // The state stays where `resumed` reads it: such a message itself goes nowhere.
                let claims = [
                    META_PROTOCOL_VERSION,
                    META_CLIENT_CAPABILITIES,
                    META_CLIENT_INFO,
                    META_LOG_LEVEL,
                ];
                if let Some(meta) = member(params, "_meta") {
                    asked.claims = Claims::read(meta, askable);
                    claims.into_iter().for_each(|key| _ = meta.remove(key));
                }
            }
            _ => {}
        }
        asked.body = message.to_bytes();
        asked.body_length = asked.body.len();
    }

    /// Makes the header fields what a server of this era reads.
    pub(crate) fn carry(&self, bridge: &Bridge, asked: &Asked, edit: &mut HeadEdit) {
        let mut set = |name: &str, value: String| {
            edit.set.retain(|(known, _)| known != name);
            edit.set.push((name.to_owned(), FieldValue::Public(value)));
        };
        set(super::HOPS, self.passed(&asked.head.hops));
        match (asked.era, bridge.to, &bridge.session) {
            (Era::Legacy, Era::Modern, _) => {
                set("mcp-protocol-version", Version::V2026_07_28.as_str().into());
                let message = asked.message.as_ref();
                if let Some(method) = message.and_then(Message::method) {
                    set("mcp-method", encode_mirrored(method));
                }
                if let Some(name) = message.and_then(mirrored_name) {
                    set("mcp-name", encode_mirrored(name));
                }
                let name = &asked.head.server;
                if let (
                    Ok(Some(Operation::CallTool { name: tool, arguments: Some(arguments) })),
                    Some(server),
                ) = (asked.operation(), self.servers.get(name))
                {
                    // Such a client knows nothing of fields that repeat arguments.
                    let fields = self.mirrors.fields(&server.mirrored, name, tool, arguments);
                    fields.into_iter().for_each(|(field, value)| set(&field, value));
                }
            }
            (_, Era::Legacy, Some((_, session))) => {
                if let Some(event) = &asked.resumes_after {
                    set("last-event-id", event.clone());
                }
                set("mcp-protocol-version", session.version.as_str().into());
                if let Some(id) = &session.id {
                    set("mcp-session-id", id.to_string());
                }
                // Which clients mirror into header fields the legacy era does not know.
                let is_mirror = |name: &str| {
                    name == "mcp-method" || name == "mcp-name" || name.starts_with("mcp-param-")
                };
                edit.set.retain(|(name, _)| !is_mirror(name));
                let mirrors = asked.head.headers.iter().map(|(name, _)| name);
                edit.remove.extend(mirrors.filter(|name| is_mirror(name)).map(str::to_owned));
                if let Some(resumed) = &bridge.resumed {
                    edit.set.retain(|(name, _)| name != "content-type");
                    edit.remove.push("content-type".to_owned());
                    let fields = [
                        (":method", "GET"),
                        ("accept", "text/event-stream"),
                        ("content-length", "0"),
                        ("last-event-id", &resumed.event),
                    ];
                    for (name, value) in fields {
                        edit.set.retain(|(known, _)| known != name);
                        edit.set.push((name.to_owned(), FieldValue::Public(value.to_owned())));
                    }
                }
            }
            _ => {}
        }
    }

    /// Whether a request may have come this way.
    ///
    /// # Errors
    /// When it has passed this gateway before, or more gateways than are allowed.
    pub(crate) fn check_hops(&self, hops: &str) -> Result<(), Denial> {
        let Some(federation) = self.federation.as_ref().filter(|_| !hops.is_empty()) else {
            return Ok(());
        };
        let passed = || hops.split(',').map(str::trim);
        if passed().any(|gateway| *gateway == *federation.gateway) {
            let message =
                format!("the request has passed the gateway {:?} before", federation.gateway);
            return Err(Denial::new(Reason::Loop, message));
        }
        if passed().count() > federation.hops {
            let message = format!("the request has passed more than {} gateways", federation.hops);
            return Err(Denial::new(Reason::Loop, message));
        }
        Ok(())
    }

    /// The gateways that a request has passed, this one the last.
    pub(crate) fn passed(&self, before: &str) -> String {
        let own = self.federation.as_ref().map_or("", |federation| &federation.gateway);
        if before.is_empty() { own.to_owned() } else { format!("{before}, {own}") }
    }
}

fn member<'a>(object: &'a mut Object, key: &str) -> Option<&'a mut Object> {
    object.get_mut(key).and_then(Json::as_object_mut)
}
