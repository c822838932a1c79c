//! What a portal answers itself: who it is, what it offers, lists, and the small talk of sessions.
//!
//! It offers what every server may have and what the gateway can carry through: tools, prompts,
//! resources, completions and log messages. It does not offer what it could not keep: a stream of its own,
//! changes of lists, subscriptions (docs/federation.md). Nothing but a list asks a server.

use std::rc::Rc;

use toolgate_protocol::json::{Json, Object};
use toolgate_protocol::jsonrpc::{Id, Kind};
use toolgate_protocol::mcp::{Era, META_CLIENT_CAPABILITIES, Operation, Version};

use super::portal::Portal;
use super::portal_session::PortalSession;
use crate::audit::{AuditRecord, short_digest};
use crate::denial::{Denial, LocalReply, Reason};
use crate::event::Timestamp;
use crate::facts::{Facts, Stop};
use crate::gateway::Gateway;
use crate::request::Asked;

/// The extension by which clients say that they follow tasks, and servers that they give them.
const EXTENSION_TASKS: &str = "io.modelcontextprotocol/tasks";

/// How long what a portal says of itself is good for, in milliseconds.
const TTL_MS: i64 = 3_600_000;

impl Gateway {
    /// The portal's own answer to a request.
    ///
    /// # Errors
    /// [`Stop`] with what is missing or with the refusal; for a caller who may connect to none of its
    /// servers, a portal does not exist.
    pub(crate) fn answer_at_portal(
        &self,
        portal: &Rc<Portal>,
        asked: &Asked,
        facts: &Facts,
        now: Timestamp,
        audit: &mut AuditRecord,
    ) -> Result<LocalReply, Stop> {
        let Some(message) = &asked.message else {
            return Err(Denial::new(Reason::HttpMethod, "this endpoint accepts POST").into());
        };
        let (id, method) = match message.kind() {
            Kind::Request { id, method } => (id, method.as_str()),
            Kind::Notification { .. } | Kind::Response { .. } => {
                // Nothing that is said here concerns one server.
                self.members_for(portal, asked, now)?;
                return Ok(LocalReply { status: 202, headers: Vec::new(), body: Vec::new() });
            }
        };
        if let Some(Operation::List(kind)) = asked.operation()? {
            if message.params().is_some_and(|params| params.get("cursor").is_some()) {
                // Lists of a portal have one page: no cursor came from it.
                return Err(
                    Denial::new(Reason::InvalidParams, "the cursor is not known here").into()
                );
            }
            let result = self.merged_list(portal, asked, kind, facts, now, audit)?;
            return Ok(reply(id, &result));
        }
        let result = match method {
            "server/discover" => self.discovered(portal),
            "initialize" => {
                let params = message.params();
                let version = params.and_then(|params| params.get("protocolVersion"));
                let version = version.and_then(Json::as_str).and_then(Version::parse);
                let version = version.filter(|version| version.era() == Era::Legacy);
                self.initialized(portal, version.unwrap_or(Version::V2025_11_25))
            }
            "ping" => Object::default(),
            "logging/setLevel" if asked.level.is_set() => Object::default(),
            _ => {
                let message = format!("{method} is not offered by an endpoint of several servers");
                let status = if asked.era == Era::Modern { 404 } else { 200 };
                return Err(Denial::new(Reason::UnknownMethod, message).with_status(status).into());
            }
        };
        self.members_for(portal, asked, now)?;
        let mut reply = reply(id, &Json::Object(result).to_bytes());
        if method == "initialize" {
            let capabilities = message.params().and_then(|params| params.get("capabilities"));
            let session = PortalSession::begin(self.next_record_id(), capabilities).write();
            let owner = &asked.head.caller()?.owner;
            let id = self.sessions.seal_portal(owner, &portal.name, &session);
            audit.session = id.as_deref().map(short_digest);
            reply.headers.extend(id.map(|id| ("mcp-session-id", id)));
        }
        Ok(reply)
    }

    fn discovered(&self, portal: &Portal) -> Object {
        let mut result = Object::default();
        result.set("resultType", "complete".into());
        let versions = vec![Version::V2026_07_28.as_str().into()];
        result.set("supportedVersions", Json::Array(versions));
        // Tasks pass, whichever server gives them, to clients that say they can follow them.
        let tasks: Object = [(EXTENSION_TASKS, Object::default().into())].into_iter().collect();
        let mut capabilities = capabilities();
        capabilities.set("logging", Object::default().into());
        capabilities.set("extensions", tasks.into());
        result.set("capabilities", capabilities.into());
        self.instruct(portal, &mut result);
        result.set("ttlMs", Json::Integer(TTL_MS));
        result.set("cacheScope", "private".into());
        let mut meta = Object::default();
        meta.set(super::META_SERVER_INFO, self.portal_info(portal));
        result.set("_meta", meta.into());
        result
    }

    fn initialized(&self, portal: &Portal, version: Version) -> Object {
        let mut result = Object::default();
        result.set("protocolVersion", version.as_str().into());
        let mut capabilities = capabilities();
        if self.offers_log_levels() {
            capabilities.set("logging", Object::default().into());
        }
        result.set("capabilities", capabilities.into());
        result.set("serverInfo", self.portal_info(portal));
        self.instruct(portal, &mut result);
        result
    }

    /// Whether clients of the legacy era can say which log messages they want: that is of a session, and
    /// on one host the memory that workers share may not be there, which is found out too late.
    pub(crate) fn offers_log_levels(&self) -> bool {
        self.has_log_levels() && self.takes_late_bodies()
    }

    fn instruct(&self, portal: &Portal, result: &mut Object) {
        if let Some(instructions) = &portal.instructions {
            result.set("instructions", Json::from(&**instructions));
        }
    }

    /// Name and version of what answers.
    pub(super) fn portal_info(&self, portal: &Portal) -> Json {
        let gateway = self.federation.as_ref().map_or("toolgate", |federation| &federation.gateway);
        let mut info = Object::default();
        info.set("name", format!("{gateway} {}", portal.name).into());
        info.set("version", env!("CARGO_PKG_VERSION").into());
        info.into()
    }
}

fn capabilities() -> Object {
    let offered = ["tools", "prompts", "resources", "completions"];
    offered.into_iter().map(|name| (name, Object::default().into())).collect()
}

/// What a modern client is told that asks for a task which no server gave: without the extension, that it
/// lacks that (2026-07-28, error codes; extension `io.modelcontextprotocol/tasks`).
pub(crate) fn lacks_tasks(asked: &Asked) -> Option<Denial> {
    let params = asked.message.as_ref()?.params()?;
    let said = params.get("_meta")?.get(META_CLIENT_CAPABILITIES)?;
    if asked.era == Era::Legacy || said.at(&["extensions", EXTENSION_TASKS]).is_some() {
        return None;
    }
    let tasks: Object = [(EXTENSION_TASKS, Object::default().into())].into_iter().collect();
    let required: Object = [("extensions", tasks.into())].into_iter().collect();
    let message = format!("a task is for clients that declare {EXTENSION_TASKS}");
    let denial = Denial::new(Reason::InvalidParams, message).with_status(400).with_code(-32021);
    Some(denial.with_data("requiredCapabilities", required.into()))
}

fn reply(id: &Id, result: &[u8]) -> LocalReply {
    let mut body = Vec::with_capacity(result.len() + 64);
    body.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
    Json::from(id.clone()).write(&mut body);
    body.extend_from_slice(b",\"result\":");
    body.extend_from_slice(result);
    body.push(b'}');
    let headers = vec![("content-type", "application/json".to_owned())];
    LocalReply { status: 200, headers, body }
}
