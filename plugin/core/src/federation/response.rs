//! A server's answer in the portal's names: URIs, tasks and the ids of its own requests.
//!
//! Most answers hold none of these and pass as they came, byte for byte; of the others nothing but
//! these strings changes. Streams stay streams: each event goes on as soon as it is whole. Not here:
//! lists, which the gateway answers itself.

use std::rc::Rc;

use memchr::memmem;
use toolgate_protocol::jsonrpc::Id;
use toolgate_protocol::mcp::Era;
use toolgate_protocol::sse::EventSplitter;

use super::bridge::{Bridge, Rekeyed};
use super::edit::{Edits, Value};
use super::naming::qualified;
use super::peers::{Session, SessionKey};
use super::portal::Portal;
use super::request::{exposed_event, exposed_id};
use super::rounds::{Askable, Claims, Place, Question, call_digest};
use crate::denial::{Denial, Reason};
use crate::request::Asked;

/// Most that waits with the header fields of an answer, in bytes: what a stream begins with before its
/// first message is short.
const MOST_HELD: usize = 4 << 10;

/// Most questions of one stream that its server is told reach nobody.
const MOST_DECLINED: usize = 16;

/// `_meta` member that names the request of a stream of subscriptions (2026-07-28, subscriptions).
const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";

/// What an answer must hold for anything in it to change. Escapes are looked into, since a key may be
/// written with them.
const SIGNS: &[&[u8]] = &[b"ri\"", b"riTemplate", b"taskId", b"\"method\"", b"\\u00"];

/// `_meta` member that names the task of a message (2025-11-25, tasks).
const RELATED_TASK: &str = "io.modelcontextprotocol/related-task";

/// How one server's things appear in a portal.
#[derive(Clone)]
pub(crate) struct Exposure {
    portal: Rc<Portal>,
    member: usize,
    /// Era of the client and of the server.
    eras: (Era, Era),
    rekeyed: Option<Rekeyed>,
    /// The session in which the server was asked.
    pub(crate) session: Option<SessionKey>,
    pub(super) opened: Option<Rc<Session>>,
    /// What is needed to ask the client, where it can be asked in an answer.
    askable: Option<Askable>,
    claims: Claims,
    /// The sealed session of the server's stream, for a client of the legacy era.
    pub(super) named: Option<String>,
    /// Whether an earlier call goes on, which only a stream can.
    pub(crate) resumes: bool,
    /// Whether the server may ask a client of the legacy era something in its stream.
    asks_in_stream: bool,
}

/// What becomes of a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Exposed {
    Same,
    Changed(Vec<u8>),
    /// Nothing that this client could be told.
    Dropped,
    /// A question of a server to a client of the other era.
    Asked(Question),
}

impl Exposure {
    pub(crate) fn new(portal: Rc<Portal>, member: usize) -> Self {
        let eras = (Era::Modern, Era::Modern);
        Self {
            portal,
            member,
            eras,
            rekeyed: None,
            session: None,
            opened: None,
            askable: None,
            claims: Claims::default(),
            named: None,
            resumes: false,
            asks_in_stream: false,
        }
    }

    /// Says how the request was carried.
    pub(crate) fn bridged(&mut self, asked: &Asked, bridge: Bridge) {
        self.eras = (asked.era, bridge.to);
        self.rekeyed.clone_from(&asked.rekeyed);
        self.claims = asked.claims.clone();
        if let (Some(resumed), Some(rekeyed)) = (bridge.resumed, &mut self.rekeyed) {
            rekeyed.own = resumed.own;
            self.resumes = true;
        }
        if asked.claims.capabilities.is_some()
            && let (Some(message), Some(caller)) = (&asked.message, &asked.head.caller)
        {
            let (owner, digest) = (Rc::clone(&caller.owner), call_digest(message));
            self.askable = Some(Askable { owner, digest });
        }
        if let Some((key, opened)) = bridge.session {
            self.asks_in_stream = asked.can_be_asked_in_stream();
            self.session = Some(key);
            self.opened = Some(opened);
        }
    }

    /// What is needed to ask the client something, where it can be asked.
    pub(super) fn asking(&self) -> Option<(&Askable, &Rekeyed, &Session)> {
        Some((self.askable.as_ref()?, self.rekeyed.as_ref()?, self.opened.as_deref()?))
    }

    /// Whether the answer may hold what its server asks the client, or is the rest of an earlier one.
    pub(crate) fn may_ask(&self) -> bool {
        self.resumes || self.asking().is_some() || self.asks_in_stream
    }

    /// The server that answers.
    pub(super) fn server(&self) -> Option<&Rc<str>> {
        self.portal.members.get(self.member).map(|member| &member.server)
    }

    /// The id that the client sees of an event, where it can come back with it.
    fn event(&self, own: &str) -> Option<String> {
        let member = self.portal.members.get(self.member)?;
        Some(exposed_event(&member.qualifier, self.named.as_deref()?, own))
    }

    /// One message of the server in the portal's names and in the client's era.
    ///
    /// # Errors
    /// When it is no JSON: nothing that a server may send.
    pub(crate) fn message(&self, bytes: &[u8]) -> Result<Exposed, Reason> {
        let is_plain = self.eras.0 == self.eras.1 && self.rekeyed.is_none();
        if is_plain && !SIGNS.iter().any(|sign| memmem::find(bytes, sign).is_some()) {
            return Ok(Exposed::Same);
        }
        let Some(member) = self.portal.members.get(self.member) else {
            return Err(Reason::Internal);
        };
        let text = std::str::from_utf8(bytes).map_err(|_| Reason::ServerAnswer)?;
        let message = Value::of(text).ok_or(Reason::ServerAnswer)?;
        let (client, server) = self.eras;
        let rekeyed = self.rekeyed.as_ref();
        let mut walk = Walk {
            edits: Edits::of(text),
            portal: &self.portal,
            member: self.member,
            qualifier: &member.qualifier,
            named: self.named.as_deref(),
            rekeyed,
            completes: (client, server) == (Era::Modern, Era::Legacy),
            wants_input: false,
        };
        let parts = message.members();
        let has = |name: &str| parts.iter().any(|(key, _)| key == name);
        let is_asked = has("method");
        let part = |name: &str| parts.iter().find(|(key, _)| key == name).map(|(_, value)| *value);
        let own_id = part("id").filter(|_| is_asked).map(Value::written);
        if client == Era::Modern && is_asked {
            match own_id {
                // Modern servers ask nothing, and clients of that era could not answer.
                Some(_) if server == Era::Modern => return Ok(Exposed::Dropped),
                // A modern client hears of the log only what it asked for.
                None if server == Era::Legacy
                    && part("method").map(Value::written) == Some("\"notifications/message\"")
                    && !self.claims.wants_log(part("params")) =>
                {
                    return Ok(Exposed::Dropped);
                }
                _ => {}
            }
        }
        walk.message(parts);
        if let Some(id) = own_id.filter(|_| client == Era::Modern) {
            let id = serde_json::from_str(id).unwrap_or_default();
            let changed = walk.edits.apply();
            let changed = changed.as_deref().map_or(Ok(text), std::str::from_utf8);
            let changed = changed.map_err(|_| Reason::Internal)?;
            return Ok(Question::read(changed, &id).map_or(Exposed::Dropped, Exposed::Asked));
        }
        if walk.wants_input && client == Era::Legacy {
            let message = "the server asks for input as MCP 2026-07-28 does, which this client's version does not have; use a client of 2026-07-28";
            let id = parts_id(message_id(text).as_ref(), rekeyed);
            return Ok(Exposed::Changed(
                Denial::new(Reason::ServerAnswer, message).body(id.as_ref()),
            ));
        }
        Ok(walk.edits.apply().map_or(Exposed::Same, Exposed::Changed))
    }
}

/// The id of a message, where it has one that JSON-RPC knows.
fn message_id(text: &str) -> Option<Id> {
    let message: serde_json::Value = serde_json::from_str(text).ok()?;
    match message.get("id")? {
        serde_json::Value::Number(number) => number.as_i64().map(Id::Integer),
        serde_json::Value::String(text) => Some(Id::String(text.clone())),
        _ => None,
    }
}

/// The id by which the client knows an answer.
fn parts_id(own: Option<&Id>, rekeyed: Option<&Rekeyed>) -> Option<Id> {
    match (own, rekeyed) {
        (Some(Id::String(own)), Some(rekeyed)) if *own == rekeyed.own => Some(rekeyed.id.clone()),
        (own, _) => own.cloned(),
    }
}

/// The id that the client gave, as JSON.
fn given_id(rekeyed: &Rekeyed) -> Option<serde_json::Value> {
    Some(match &rekeyed.id {
        Id::Integer(number) => (*number).into(),
        Id::String(text) => text.as_str().into(),
    })
}

struct Walk<'a> {
    edits: Edits<'a>,
    portal: &'a Portal,
    member: usize,
    qualifier: &'a str,
    /// The sealed session in which a server asks, for a client of the legacy era.
    named: Option<&'a str>,
    rekeyed: Option<&'a Rekeyed>,
    /// Whether results have to say that they are whole.
    completes: bool,
    /// Whether the result asks the client for something.
    wants_input: bool,
}

impl<'a> Walk<'a> {
    fn qualify(&mut self, value: Value<'a>) {
        let qualifier = self.qualifier;
        self.edits.string(value, |own| qualified(qualifier, own));
    }

    fn uri(&mut self, value: Value<'a>) {
        let (portal, member) = (self.portal, self.member);
        self.edits.string(value, |own| portal.shown_uri(member, own));
    }

    fn message(&mut self, parts: Vec<(String, Value<'a>)>) {
        let is_asked = parts.iter().any(|(key, _)| key == "method");
        for (key, value) in parts {
            match key.as_str() {
                "id" if is_asked => {
                    let id = serde_json::from_str(value.written()).unwrap_or_default();
                    if let Some(exposed) = exposed_id(self.qualifier, self.named, &id) {
                        self.edits.replace(value, &exposed.into());
                    }
                }
                "id" => self.own(value, given_id),
                "params" if is_asked => self.body(value),
                "result" => {
                    let members = value.members();
                    let kind = members.iter().find(|(key, _)| key == "resultType");
                    let kind = kind.map(|(_, kind)| kind.written());
                    self.wants_input |= kind == Some("\"input_required\"");
                    if self.completes && kind.is_none() {
                        let end = if members.is_empty() { "" } else { "," };
                        let has = |name: &str| members.iter().any(|(key, _)| key == name);
                        // What is read may be kept, in the modern era, for as long as the result says.
                        let kept = if has("contents") && !has("ttlMs") {
                            ",\"ttlMs\":0,\"cacheScope\":\"private\""
                        } else {
                            ""
                        };
                        let members = format!("\"resultType\":\"complete\"{kept}{end}");
                        self.edits.open(value, &members);
                    }
                    self.body(value);
                }
                _ => {}
            }
        }
    }

    /// Puts what the client gave where the gateway's own id stands.
    fn own(&mut self, value: Value<'a>, given: impl FnOnce(&Rekeyed) -> Option<serde_json::Value>) {
        let Some(rekeyed) = self.rekeyed else { return };
        let own: Result<String, _> = serde_json::from_str(value.written());
        if own.is_ok_and(|own| own == rekeyed.own)
            && let Some(given) = given(rekeyed)
        {
            self.edits.replace(value, &given);
        }
    }

    /// A result, or the parameters of a notification or of a server's request.
    fn body(&mut self, body: Value<'a>) {
        for (key, value) in body.members() {
            match key.as_str() {
                "uri" => self.uri(value),
                "taskId" => self.qualify(value),
                "progressToken" => self.own(value, |rekeyed| {
                    let progress = rekeyed.progress.as_ref()?;
                    serde_json::from_slice(&progress.to_bytes()).ok()
                }),
                "contents" | "resources" | "tasks" | "resourceTemplates" => {
                    value.elements().into_iter().for_each(|element| self.named(element));
                }
                "content" => self.content(value),
                "messages" => {
                    for message in value.elements() {
                        for (key, value) in message.members() {
                            if key == "content" {
                                self.content(value);
                            }
                        }
                    }
                }
                "task" => self.named(value),
                "inputRequests" => {
                    for (_, request) in value.members() {
                        for (key, value) in request.members() {
                            if key == "params" {
                                self.body(value);
                            }
                        }
                    }
                }
                // What a server says that it will tell of.
                "notifications" => {
                    for (key, value) in value.members() {
                        for element in value.elements() {
                            match key.as_str() {
                                "resourceSubscriptions" => self.uri(element),
                                "taskIds" => self.qualify(element),
                                _ => {}
                            }
                        }
                    }
                }
                // The result of a task that is done.
                "result" => self.body(value),
                "_meta" => {
                    for (key, value) in value.members() {
                        match key.as_str() {
                            RELATED_TASK => self.named(value),
                            SUBSCRIPTION => self.own(value, given_id),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// An object that is named by a member of its own.
    fn named(&mut self, object: Value<'a>) {
        for (key, value) in object.members() {
            match key.as_str() {
                "uri" | "uriTemplate" => self.uri(value),
                "taskId" => self.qualify(value),
                _ => {}
            }
        }
    }

    /// One piece of content, or several.
    fn content(&mut self, content: Value<'a>) {
        let pieces = content.elements();
        let pieces = if pieces.is_empty() { vec![content] } else { pieces };
        for piece in pieces {
            for (key, value) in piece.members() {
                match key.as_str() {
                    "uri" => self.uri(value),
                    "resource" => self.named(value),
                    // What a tool gave, in a message to a model.
                    "content" => self.content(value),
                    _ => {}
                }
            }
        }
    }
}

/// Puts a response body into the portal's names as it passes.
pub(crate) struct ExposureFilter {
    exposure: Exposure,
    id: Option<Id>,
    mode: Mode,
    seen: Seen,
    /// What waits with the header fields, as long as the answer may yet become a question.
    held: Option<Vec<u8>>,
}

/// What a stream has told the gateway.
#[derive(Default)]
struct Seen {
    lists_changed: bool,
    /// Whether anything has come that the client must not wait for.
    urgent: bool,
    /// Ids of the last event that had one, and of the one before.
    place: Place,
    questions: Vec<(Question, Option<Place>)>,
    /// How many there were.
    asked: usize,
}

enum Mode {
    Json { body: Vec<u8>, most: usize },
    Events(EventSplitter),
    Drop,
}

impl ExposureFilter {
    /// For one JSON document of at most `most` bytes.
    pub(crate) fn json(exposure: Exposure, id: Option<Id>, most: usize) -> Self {
        let mode = Mode::Json { body: Vec::new(), most };
        Self { exposure, id, mode, seen: Seen::default(), held: None }
    }

    /// For a stream of events of at most `most` bytes each.
    pub(crate) fn events(exposure: Exposure, id: Option<Id>, most: usize) -> Self {
        let held = exposure.asking().map(|_| Vec::new());
        let mode = Mode::Events(EventSplitter::new(most));
        Self { exposure, id, mode, seen: Seen::default(), held }
    }

    /// Whether the response's header fields have to wait.
    pub(crate) fn holds(&self) -> bool {
        self.held.is_some()
    }

    /// Questions of the server that have come since the last time, with their places in the stream.
    pub(crate) fn questions(&mut self) -> Vec<(Question, Option<Place>)> {
        std::mem::take(&mut self.seen.questions)
    }

    /// Whose answer it is.
    pub(crate) fn exposure(&self) -> &Exposure {
        &self.exposure
    }

    /// Lets nothing more of the answer pass: a question has become the answer. What was held is gone.
    pub(crate) fn close(&mut self) {
        self.mode = Mode::Drop;
        self.held = None;
    }

    /// The server, if it has just said that its lists are not what they were.
    pub(crate) fn changed_lists(&mut self) -> Option<Rc<str>> {
        let Exposure { portal, member, .. } = &self.exposure;
        let changed = std::mem::take(&mut self.seen.lists_changed);
        changed.then(|| portal.members.get(*member)).flatten().map(|m| Rc::clone(&m.server))
    }

    /// Takes the next piece of the body and appends to `out` what goes on instead.
    ///
    /// # Errors
    /// The reason when the rest of the answer cannot pass; `out` then holds what ends it.
    pub(crate) fn push(
        &mut self,
        chunk: &[u8],
        end: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), Reason> {
        let Some(mut held) = self.held.take() else { return self.pass(chunk, end, out) };
        let passed = self.pass(chunk, end, &mut held);
        if passed.is_err() || end || self.seen.urgent || held.len() > MOST_HELD {
            out.append(&mut held);
        } else {
            self.held = Some(held);
        }
        passed
    }

    fn pass(&mut self, chunk: &[u8], end: bool, out: &mut Vec<u8>) -> Result<(), Reason> {
        let failed = match &mut self.mode {
            Mode::Drop => return Ok(()),
            Mode::Json { body, most } if body.len() + chunk.len() > *most => {
                (Reason::ServerTooLarge, false)
            }
            Mode::Json { body, .. } => {
                body.extend_from_slice(chunk);
                if !end {
                    return Ok(());
                }
                match self.exposure.message(body) {
                    Ok(Exposed::Same | Exposed::Dropped | Exposed::Asked(_)) => {
                        out.append(body);
                        return Ok(());
                    }
                    Ok(Exposed::Changed(changed)) => {
                        out.extend(changed);
                        return Ok(());
                    }
                    Err(reason) => (reason, false),
                }
            }
            Mode::Events(splitter) => {
                match events(splitter, &self.exposure, &mut self.seen, chunk, out) {
                    Ok(()) => return Ok(()),
                    Err(reason) => (reason, true),
                }
            }
        };
        let (reason, in_stream) = failed;
        self.mode = Mode::Drop;
        let message = "the server's answer could not be read and was withheld";
        let error = Denial::new(reason, message).body(self.id.as_ref());
        if in_stream {
            out.extend_from_slice(b"data: ");
        }
        out.extend_from_slice(&error);
        if in_stream {
            out.extend_from_slice(b"\n\n");
        }
        Err(reason)
    }
}

fn events(
    splitter: &mut EventSplitter,
    exposure: &Exposure,
    seen: &mut Seen,
    chunk: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Reason> {
    let mut failed = None;
    let pushed = splitter.push(chunk, |event| {
        if failed.is_some() {
            return;
        }
        let place = event.id().map(|event| {
            let before = Some(std::mem::take(&mut seen.place.event));
            Place { event, before: before.filter(|before| !before.is_empty()) }
        });
        let id = place.as_ref().and_then(|place| exposure.event(&place.event));
        if let Some(place) = &place {
            seen.place = place.clone();
        }
        let as_it_came = |out: &mut Vec<u8>| match &id {
            Some(id) => out.extend(event.with(Some(id), None)),
            None => out.extend_from_slice(event.raw()),
        };
        match event.data().filter(|data| !data.is_empty()) {
            None => {
                // A comment shows the client that somebody is there.
                seen.urgent |= event.raw().starts_with(b":");
                as_it_came(out);
            }
            Some(data) => {
                seen.lists_changed |= memmem::find(&data, b"/list_changed\"").is_some();
                match exposure.message(&data) {
                    Ok(Exposed::Same) => {
                        seen.urgent = true;
                        as_it_came(out);
                    }
                    Ok(Exposed::Dropped) => {}
                    Ok(Exposed::Changed(changed)) => {
                        seen.urgent = true;
                        out.extend(event.with(id.as_deref(), Some(&one_line(changed))));
                    }
                    Ok(Exposed::Asked(question)) => {
                        seen.asked += 1;
                        if seen.asked <= MOST_DECLINED {
                            seen.questions.push((question, place));
                        }
                    }
                    Err(reason) => failed = Some(reason),
                }
            }
        }
    });
    match (failed, pushed) {
        (Some(reason), _) => Err(reason),
        (None, Err(_)) => Err(Reason::ServerTooLarge),
        (None, Ok(())) => Ok(()),
    }
}

/// Line breaks of a JSON text stand between its tokens only, where a space does as well.
fn one_line(mut text: Vec<u8>) -> Vec<u8> {
    text.iter_mut().filter(|byte| matches!(**byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
    text
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::super::Federation;
    use super::*;

    fn exposure() -> Exposure {
        let config = serde_json::from_str("{}").unwrap();
        let servers = ["billing".to_owned()];
        let federation = Federation::compile(config, &servers, &mut Vec::new());
        let mut exposure = Exposure::new(Rc::clone(federation.portal("").unwrap()), 0);
        exposure.eras = (Era::Legacy, Era::Legacy);
        exposure
    }

    fn exposed(text: &str) -> String {
        exposed_by(&exposure(), text)
    }

    fn exposed_by(exposure: &Exposure, text: &str) -> String {
        match exposure.message(text.as_bytes()).unwrap() {
            Exposed::Same => text.to_owned(),
            Exposed::Changed(bytes) => String::from_utf8(bytes).unwrap(),
            Exposed::Dropped => String::new(),
            Exposed::Asked(question) => format!("asked {}", question.method()),
        }
    }

    #[test]
    fn an_answer_of_the_legacy_era_becomes_one_that_a_modern_client_reads() {
        let mut exposure = exposure();
        exposure.eras = (Era::Modern, Era::Legacy);
        exposure.rekeyed = Some(Rekeyed {
            own: "own-1".into(),
            id: Id::Integer(7),
            progress: Some("mine".into()),
        });
        for (own, seen) in [
            (
                r#"{"id":"own-1","result":{"content":[]}}"#,
                r#"{"id":7,"result":{"resultType":"complete","content":[]}}"#,
            ),
            (
                r#"{"id":"own-1","result":{"contents":[]}}"#,
                r#"{"id":7,"result":{"resultType":"complete","ttlMs":0,"cacheScope":"private","contents":[]}}"#,
            ),
            (r#"{"id":"own-1","result":{}}"#, r#"{"id":7,"result":{"resultType":"complete"}}"#),
            (r#"{"id":"own-1","error":{"code":1}}"#, r#"{"id":7,"error":{"code":1}}"#),
            (
                r#"{"method":"x","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":"own-1"}}}"#,
                r#"{"method":"x","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":7}}}"#,
            ),
            (
                r#"{"method":"notifications/progress","params":{"progressToken":"own-1"}}"#,
                r#"{"method":"notifications/progress","params":{"progressToken":"mine"}}"#,
            ),
            (
                r#"{"id":3,"method":"sampling/createMessage","params":{}}"#,
                "asked sampling/createMessage",
            ),
            (r#"{"method":"notifications/message","params":{"level":"error"}}"#, ""),
            (
                r#"{"id":"other","result":{}}"#,
                r#"{"id":"other","result":{"resultType":"complete"}}"#,
            ),
        ] {
            assert_eq!(exposed_by(&exposure, own), seen);
        }
    }

    #[test]
    fn what_a_client_of_the_legacy_era_cannot_be_asked_is_an_error() {
        let mut exposure = exposure();
        exposure.eras = (Era::Legacy, Era::Modern);
        let asks = r#"{"id":7,"result":{"resultType":"input_required","inputRequests":{}}}"#;
        let seen = exposed_by(&exposure, asks);
        assert!(seen.contains("\"id\":7") && seen.contains("error"), "{seen}");
    }

    #[test]
    fn every_place_of_a_uri_gets_the_portals_and_no_other_byte_changes() {
        let own = r#"{ "id":1, "result":{"content":[{"type":"resource_link","uri":"a:1"},{"type":"resource","resource":{"uri":"a:2","text":"uri: a:3"}},{"type":"text","text":"\"uri\":\"a:4\""}],"structuredContent":{"uri":"a:5","n":12345678901234567890}} }"#;
        let seen = r#"{ "id":1, "result":{"content":[{"type":"resource_link","uri":"billing+a:1"},{"type":"resource","resource":{"uri":"billing+a:2","text":"uri: a:3"}},{"type":"text","text":"\"uri\":\"a:4\""}],"structuredContent":{"uri":"a:5","n":12345678901234567890}} }"#;
        assert_eq!(exposed(own), seen);
        for (own, seen) in [
            (
                r#"{"id":5,"method":"elicitation/create","params":{"message":"?"}}"#,
                r#"{"id":"billing+i5","method":"elicitation/create","params":{"message":"?"}}"#,
            ),
            (
                r#"{"result":{"contents":[{"uri":"a:1"}]}}"#,
                r#"{"result":{"contents":[{"uri":"billing+a:1"}]}}"#,
            ),
            (
                r#"{"result":{"messages":[{"role":"user","content":{"type":"resource","resource":{"\u0075ri":"a:1"}}}]}}"#,
                r#"{"result":{"messages":[{"role":"user","content":{"type":"resource","resource":{"\u0075ri":"billing+a:1"}}}]}}"#,
            ),
            (
                r#"{"method":"notifications/resources/updated","params":{"uri":"a:1"}}"#,
                r#"{"method":"notifications/resources/updated","params":{"uri":"billing+a:1"}}"#,
            ),
            (
                r#"{"method":"notifications/subscriptions/acknowledged","params":{"notifications":{"resourceSubscriptions":["a:1"],"taskIds":["7"]}}}"#,
                r#"{"method":"notifications/subscriptions/acknowledged","params":{"notifications":{"resourceSubscriptions":["billing+a:1"],"taskIds":["billing+7"]}}}"#,
            ),
            (
                r#"{"result":{"resultType":"input_required","inputRequests":{"k":{"method":"sampling/createMessage","params":{"messages":[{"content":[{"type":"resource_link","uri":"a:1"}]}]}}}}}"#,
                r#"{"result":{"resultType":"input_required","inputRequests":{"k":{"method":"sampling/createMessage","params":{"messages":[{"content":[{"type":"resource_link","uri":"billing+a:1"}]}]}}}}}"#,
            ),
            (
                r#"{"result":{"resultType":"task","taskId":"7","_meta":{"io.modelcontextprotocol/related-task":{"taskId":"7"}}}}"#,
                r#"{"result":{"resultType":"task","taskId":"billing+7","_meta":{"io.modelcontextprotocol/related-task":{"taskId":"billing+7"}}}}"#,
            ),
        ] {
            let mut exposure = exposure();
            if own.contains("input_required") {
                exposure.eras = (Era::Modern, Era::Modern);
            }
            assert_eq!(exposed_by(&exposure, own), seen);
        }
    }

    #[test]
    fn a_stream_goes_on_event_by_event_however_it_is_cut() {
        let own = "data: {\"method\":\"notifications/progress\",\"params\":{}}\r\n\r\n: hi\n\ndata: {\"id\":1,\ndata: \"result\":{\"contents\":[{\"uri\":\"a:1\"}]}}\n\n";
        let seen = "data: {\"method\":\"notifications/progress\",\"params\":{}}\r\n\r\n: hi\n\ndata: {\"id\":1, \"result\":{\"contents\":[{\"uri\":\"billing+a:1\"}]}}\n\n";
        for size in 1..own.len() {
            let mut filter = ExposureFilter::events(exposure(), None, 1000);
            let mut out = Vec::new();
            for chunk in own.as_bytes().chunks(size) {
                filter.push(chunk, false, &mut out).unwrap();
            }
            filter.push(b"", true, &mut out).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), seen, "pieces of {size}");
        }
    }

    #[test]
    fn an_answer_over_the_limit_ends_in_an_error() {
        let mut filter = ExposureFilter::json(exposure(), Some(Id::Integer(3)), 8);
        let mut out = Vec::new();
        assert_eq!(filter.push(b"{\"result\":", false, &mut out), Err(Reason::ServerTooLarge));
        assert!(String::from_utf8(out).unwrap().contains("\"id\":3"));
    }
}
