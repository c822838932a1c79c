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
use super::peers::SessionKey;
use super::portal::Portal;
use super::request::exposed_id;
use crate::denial::{Denial, Reason};
use crate::request::Asked;

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
}

/// What becomes of a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Exposed {
    Same,
    Changed(Vec<u8>),
    /// Nothing that this client could be told.
    Dropped,
}

impl Exposure {
    pub(crate) fn new(portal: Rc<Portal>, member: usize) -> Self {
        let eras = (Era::Modern, Era::Modern);
        Self { portal, member, eras, rekeyed: None, session: None }
    }

    /// Says how the request was carried.
    pub(crate) fn bridged(&mut self, asked: &Asked, bridge: Bridge) {
        self.eras = (asked.era, bridge.to);
        self.rekeyed.clone_from(&asked.rekeyed);
        self.session = bridge.session.map(|(key, _)| key);
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
            rekeyed,
            completes: (client, server) == (Era::Modern, Era::Legacy),
            wants_input: false,
        };
        let parts = message.members();
        let has = |name: &str| parts.iter().any(|(key, _)| key == name);
        // Modern servers ask nothing, and clients of that era could not answer.
        if client == Era::Modern && has("method") && has("id") {
            return Ok(Exposed::Dropped);
        }
        walk.message(parts);
        if walk.wants_input && client == Era::Legacy {
            let message =
                "the tool asks for input in a way that this client's version of MCP does not have";
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

struct Walk<'a> {
    edits: Edits<'a>,
    portal: &'a Portal,
    member: usize,
    qualifier: &'a str,
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
                    if let Some(exposed) = exposed_id(self.qualifier, &id) {
                        self.edits.replace(value, &exposed.into());
                    }
                }
                "id" => self.own(value, |rekeyed| match &rekeyed.id {
                    Id::Integer(number) => Some((*number).into()),
                    Id::String(text) => Some(text.as_str().into()),
                }),
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
                // The result of a task that is done.
                "result" => self.body(value),
                "_meta" => {
                    for (key, value) in value.members() {
                        if key == RELATED_TASK {
                            self.named(value);
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
    lists_changed: bool,
}

enum Mode {
    Json { body: Vec<u8>, most: usize },
    Events(EventSplitter),
    Drop,
}

impl ExposureFilter {
    /// For one JSON document of at most `most` bytes.
    pub(crate) fn json(exposure: Exposure, id: Option<Id>, most: usize) -> Self {
        Self { exposure, id, mode: Mode::Json { body: Vec::new(), most }, lists_changed: false }
    }

    /// For a stream of events of at most `most` bytes each.
    pub(crate) fn events(exposure: Exposure, id: Option<Id>, most: usize) -> Self {
        Self { exposure, id, mode: Mode::Events(EventSplitter::new(most)), lists_changed: false }
    }

    /// The server, if it has just said that its lists are not what they were.
    pub(crate) fn changed_lists(&mut self) -> Option<Rc<str>> {
        let Exposure { portal, member, .. } = &self.exposure;
        let changed = std::mem::take(&mut self.lists_changed);
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
                    Ok(Exposed::Same | Exposed::Dropped) => {
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
                match events(splitter, &self.exposure, &mut self.lists_changed, chunk, out) {
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
    lists_changed: &mut bool,
    chunk: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Reason> {
    let mut failed = None;
    let pushed = splitter.push(chunk, |event| {
        if failed.is_some() {
            return;
        }
        match event.data().filter(|data| !data.is_empty()) {
            None => out.extend_from_slice(event.raw()),
            Some(data) => {
                *lists_changed |= memmem::find(&data, b"/list_changed\"").is_some();
                match exposure.message(&data) {
                    Ok(Exposed::Same) => out.extend_from_slice(event.raw()),
                    Ok(Exposed::Dropped) => {}
                    Ok(Exposed::Changed(changed)) => {
                        out.extend(event.with_data(&one_line(changed)))
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
                r#"{"method":"notifications/progress","params":{"progressToken":"own-1"}}"#,
                r#"{"method":"notifications/progress","params":{"progressToken":"mine"}}"#,
            ),
            (r#"{"id":3,"method":"sampling/createMessage","params":{}}"#, ""),
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
