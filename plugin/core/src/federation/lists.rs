//! One list of what all servers of a portal list: in a stable order, in the portal's names, and of each
//! server what the caller may see.
//!
//! Servers that cannot be asked are left out and named; the others do not wait for them. With warm
//! catalogues nothing is asked of anybody. Not here: fetching (`catalogue`).

use std::collections::HashSet;
use std::rc::Rc;

use toolgate_policy::{ServerAction, Target};
use toolgate_protocol::json::{Json, Object};
use toolgate_protocol::mcp::{Era, ListKind};

use super::answer::Fault;
use super::catalogue::{Catalogue, CatalogueKey, Kind};
use super::peers::Access;
use super::portal::{Member, Named, Portal};
use crate::audit::AuditRecord;
use crate::event::Timestamp;
use crate::facts::{Facts, Need, Stop};
use crate::gateway::Gateway;
use crate::identity::AskedEndpoint;
use crate::request::{Asked, unknown_server};
use crate::shadow::ShadowLists;

/// `_meta` member that names the servers that a list leaves out.
const LEFT_OUT: &str = "dev.toolgate/leftOut";

/// Longest that a merged list is said to be good for, in milliseconds.
const LONGEST_TTL_MS: i64 = 60_000;

/// What is there of one server.
enum State {
    Here(Rc<Catalogue>),
    Missing(Vec<Need>),
    LeftOut(Fault),
}

impl Gateway {
    /// The result of a list method at a portal, serialised.
    ///
    /// # Errors
    /// [`Stop`] with everything that is to be fetched; or unknown, where the caller may connect to
    /// none of the servers.
    pub(crate) fn merged_list(
        &self,
        portal: &Portal,
        asked: &Asked,
        kind: ListKind,
        facts: &Facts,
        now: Timestamp,
        audit: &mut AuditRecord,
    ) -> Result<Vec<u8>, Stop> {
        let mut needs = Vec::new();
        let mut parts = Vec::new();
        let mut left_out = Vec::new();
        let members = self.members_for(portal, asked, now)?;
        for (index, member) in members.into_iter().filter(|(_, member)| lists(member, kind)) {
            match self.catalogue(member, Kind::of(kind), asked, facts, now) {
                State::Here(catalogue) => parts.push((index, catalogue)),
                State::Missing(missing) => needs.extend(missing),
                State::LeftOut(fault) => left_out.push((&*member.server, fault)),
            }
        }
        if !needs.is_empty() {
            return Err(Stop::Need(needs));
        }
        let mut merger = Merger { portal, out: Vec::new(), seen: HashSet::new(), collided: 0 };
        let (mut listed, mut hidden) = (0, 0);
        let mut in_shadow = ShadowLists::default();
        let mut ttl = LONGEST_TTL_MS;
        for (index, catalogue) in &parts {
            let Some(member) = portal.members.get(*index) else { continue };
            let left = catalogue.until.milliseconds().saturating_sub(now.milliseconds());
            ttl = ttl.min(left.max(0));
            for (own, element) in &catalogue.elements {
                let target = target(kind, &member.server, own);
                if !self.listed(asked, &target, now, &mut in_shadow) {
                    hidden += 1;
                } else if merger.add((*index, member), Kind::of(kind), own, element) {
                    listed += 1;
                }
            }
        }
        audit.listed = Some(listed);
        audit.hidden = Some(hidden);
        audit.count_shadow(in_shadow);
        let (_, member, _) = Kind::of(kind).words();
        let mut result = Vec::with_capacity(merger.out.len() + 256);
        result.extend_from_slice(b"{\"");
        result.extend_from_slice(member.as_bytes());
        result.extend_from_slice(b"\":[");
        result.append(&mut merger.out);
        result.push(b']');
        let mut meta = Object::default();
        if !left_out.is_empty() {
            let note = |(server, fault): &(&str, Fault)| {
                let pairs = [("server", Json::from(*server)), ("reason", fault.as_str().into())];
                Json::Object(pairs.into_iter().collect())
            };
            meta.set(LEFT_OUT, Json::Array(left_out.iter().map(note).collect()));
            let words: Vec<String> = left_out
                .iter()
                .map(|(server, fault)| format!("{server}:{}", fault.as_str()))
                .collect();
            audit.left_out = Some(words.join(","));
            ttl = 0;
        }
        if merger.collided > 0 {
            audit.detail = Some(format!(
                "{} elements have a name that another server's has already and are left out",
                merger.collided
            ));
        }
        let mut rest = Object::default();
        if asked.era == Era::Modern {
            rest.set("resultType", "complete".into());
            rest.set("ttlMs", Json::Integer(ttl));
            rest.set("cacheScope", "private".into());
            meta.set(super::META_SERVER_INFO, self.portal_info(portal));
        }
        if !meta.is_empty() {
            rest.set("_meta", meta.into());
        }
        for (key, value) in rest.iter() {
            result.push(b',');
            Json::from(key).write(&mut result);
            result.push(b':');
            value.write(&mut result);
        }
        result.push(b'}');
        Ok(result)
    }

    /// The servers of a portal that the caller may connect to, with their places in it.
    ///
    /// # Errors
    /// Unknown, when there is none: the portal then does not exist for this caller.
    pub(crate) fn members_for<'a>(
        &self,
        portal: &'a Portal,
        asked: &Asked,
        now: Timestamp,
    ) -> Result<Vec<(usize, &'a Member)>, Stop> {
        let caller = asked.head.caller()?;
        let may = |(_, member): &(usize, &Member)| {
            let server = &*member.server;
            let target = Target::Server(server, ServerAction::Connect);
            let scopes = self.servers.get(server).map(|server| &server.scopes);
            let endpoint = AskedEndpoint { server, slash: false, scopes };
            self.identity.check_scopes(caller, endpoint, &[]).is_ok()
                && self.permits(asked, &target, now)
        };
        let members: Vec<_> = portal.members.iter().enumerate().filter(may).collect();
        if members.is_empty() { Err(unknown_server().into()) } else { Ok(members) }
    }

    /// A server's list, from memory, as needs, or why there is none.
    fn catalogue(
        &self,
        member: &Member,
        kind: Kind,
        asked: &Asked,
        facts: &Facts,
        now: Timestamp,
    ) -> State {
        let Some(server) = self.servers.get(&member.server) else {
            return State::LeftOut(Fault::Unreachable);
        };
        if server.passthrough.is_some() {
            // Only the caller's own request carries its token.
            return State::LeftOut(Fault::Credential);
        }
        let injected =
            match self.credentials_for(server, asked, facts, now, &mut AuditRecord::default()) {
                Ok(injected) => injected,
                Err(Stop::Need(needs)) => return State::Missing(needs),
                Err(_) => return State::LeftOut(Fault::Credential),
            };
        let access: Access = injected.into_iter().map(|injected| injected.wanted).collect();
        let hops = Rc::clone(&asked.head.hops);
        let server = Rc::clone(&member.server);
        let offer = self.offer(asked, &server, now);
        let key = CatalogueKey { server, kind, hops, access, offer };
        if let Some(catalogue) = self.catalogues.borrow().find(&key, now) {
            return State::Here(catalogue);
        }
        let cursor = self.catalogues.borrow().cursor(&key);
        match facts.catalogue(&key) {
            Some(Ok(catalogue)) => return State::Here(Rc::clone(catalogue)),
            Some(Err(fault)) => return State::LeftOut(*fault),
            None => {}
        }
        let federation_timeout = self.federation.as_ref().map(|federation| federation.timeout);
        // A round of calls lasts as long as its slowest, at most one timeout. Whoever needs more than one
        // (a credential, further pages) has as long again, so that one silent server costs no other's list.
        if federation_timeout.is_some_and(|timeout| now.since(asked.began) >= timeout * 2) {
            return State::LeftOut(Fault::Unreachable);
        }
        let era = self.peers.borrow().era(&member.server, now);
        if era == Some(Era::Legacy) {
            let session = Self::own_session(&key);
            if self.peers.borrow_mut().session(&session, now).is_none() {
                return match facts.session(&session) {
                    Some(Err(fault)) => State::LeftOut(*fault),
                    _ => State::Missing(vec![Need::Session(session)]),
                };
            }
        }
        State::Missing(vec![Need::Catalogue(key, cursor)])
    }

    /// The own name of a tool or prompt that is shown under a shortened one.
    ///
    /// # Errors
    /// [`Stop`] when the server's list has to be fetched, or cannot be.
    pub(crate) fn lengthened(
        &self,
        (portal, member, named, exposed): (&Portal, &Member, Named, &str),
        asked: &Asked,
        facts: &Facts,
        now: Timestamp,
    ) -> Result<Option<String>, Stop> {
        let kind = match named {
            Named::Tool => Kind::Tools,
            Named::Prompt => Kind::Prompts,
        };
        match self.catalogue(member, kind, asked, facts, now) {
            State::Missing(needs) => Err(Stop::Need(needs)),
            State::LeftOut(fault) => Err(super::unavailable(fault).into()),
            State::Here(catalogue) => Ok(catalogue
                .elements
                .iter()
                .map(|(own, _)| own)
                .find(|own| portal.exposed(member, named, own).as_deref() == Some(exposed))
                .cloned()),
        }
    }
}

struct Merger<'a> {
    portal: &'a Portal,
    out: Vec<u8>,
    seen: HashSet<String>,
    collided: usize,
}

impl Merger<'_> {
    /// Adds an element of a server; false where the portal does not have it.
    fn add(
        &mut self,
        (index, member): (usize, &Member),
        kind: Kind,
        own: &str,
        element: &Object,
    ) -> bool {
        let named = match kind {
            Kind::Tools => Some(Named::Tool),
            Kind::Prompts => Some(Named::Prompt),
            Kind::Resources | Kind::Templates => None,
        };
        let exposed = match named {
            Some(named) => self.portal.exposed(member, named, own),
            None => Some(self.portal.shown_uri(index, own)),
        };
        let Some(exposed) = exposed else { return false };
        if self.seen.contains(&exposed) {
            self.collided += 1;
            return false;
        }
        let entry = named.and_then(|named| member.selection(named).entries.get(own));
        let (.., name) = kind.words();
        let mut changed: Vec<(&str, Json)> = vec![(name, exposed.as_str().into())];
        if let Some(entry) = entry {
            let texts = [("title", &entry.title), ("description", &entry.description)];
            changed.extend(
                texts.into_iter().filter_map(|(key, text)| Some((key, text.as_deref()?.into()))),
            );
        }
        let shown = |own: &str| self.portal.shown_uri(index, own);
        if let Some(meta) = element.get("_meta").and_then(|meta| app_meta(meta, shown)) {
            changed.push(("_meta", meta));
        }
        if !self.out.is_empty() {
            self.out.push(b',');
        }
        write(element, changed, &mut self.out);
        self.seen.insert(exposed);
        true
    }
}

/// Writes an object with some members other than they are.
fn write(object: &Object, changed: Vec<(&str, Json)>, out: &mut Vec<u8>) {
    out.push(b'{');
    let kept = object.iter().filter(|(key, _)| !changed.iter().any(|(name, _)| name == key));
    let members = changed.iter().map(|(key, value)| (*key, value)).chain(kept);
    for (index, (key, value)) in members.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        Json::from(key).write(out);
        out.push(b':');
        value.write(out);
    }
    out.push(b'}');
}

/// A tool's `_meta` with the portal's URI of its app (MCP Apps, `_meta.ui.resourceUri`).
fn app_meta(meta: &Json, shown: impl Fn(&str) -> String) -> Option<Json> {
    const FLAT: &str = "ui/resourceUri";
    let nested = meta.at(&["ui", "resourceUri"]).and_then(Json::as_str);
    let flat = meta.get(FLAT).and_then(Json::as_str);
    if nested.is_none() && flat.is_none() {
        return None;
    }
    let (nested, flat) = (nested.map(str::to_owned), flat.map(str::to_owned));
    let mut meta = meta.clone();
    let object = meta.as_object_mut()?;
    if let Some(uri) = flat {
        object.set(FLAT, shown(&uri).into());
    }
    if let (Some(uri), Some(ui)) = (nested, object.get_mut("ui").and_then(Json::as_object_mut)) {
        ui.set("resourceUri", shown(&uri).into());
    }
    Some(meta)
}

/// Whether a portal has anything of this kind of a server.
fn lists(member: &Member, kind: ListKind) -> bool {
    let has = |named| {
        let selection = member.selection(named);
        selection.rest || !selection.entries.is_empty()
    };
    match kind {
        ListKind::Tools => has(Named::Tool),
        ListKind::Prompts => has(Named::Prompt),
        ListKind::Resources | ListKind::ResourceTemplates => member.resources,
    }
}

fn target<'a>(kind: ListKind, server: &'a str, name: &'a str) -> Target<'a> {
    match kind {
        ListKind::Tools => Target::Tool { server, name, arguments: &Json::Null },
        ListKind::Prompts => Target::Prompt { server, name },
        ListKind::Resources | ListKind::ResourceTemplates => Target::Resource { server, uri: name },
    }
}
