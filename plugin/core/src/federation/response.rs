//! A server's answer in the portal's names: URIs, tasks and the ids of its own requests.
//!
//! Most answers hold none of these and pass as they came, byte for byte; of the others nothing but
//! these strings changes. Streams stay streams: each event goes on as soon as it is whole. Not here:
//! lists, which the gateway answers itself.

use std::rc::Rc;

use memchr::memmem;
use toolgate_protocol::jsonrpc::Id;
use toolgate_protocol::sse::EventSplitter;

use super::edit::{Edits, Value};
use super::naming::qualified;
use super::portal::Portal;
use super::request::exposed_id;
use crate::denial::{Denial, Reason};

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
}

impl Exposure {
    pub(crate) fn new(portal: Rc<Portal>, member: usize) -> Self {
        Self { portal, member }
    }

    /// One message of the server in the portal's names; `None` where it stays as it is.
    ///
    /// # Errors
    /// When it is no JSON object: nothing that a server may send.
    pub(crate) fn message(&self, bytes: &[u8]) -> Result<Option<Vec<u8>>, Reason> {
        if !SIGNS.iter().any(|sign| memmem::find(bytes, sign).is_some()) {
            return Ok(None);
        }
        let Some(member) = self.portal.members.get(self.member) else {
            return Err(Reason::Internal);
        };
        let text = std::str::from_utf8(bytes).map_err(|_| Reason::ServerAnswer)?;
        let message = Value::of(text).ok_or(Reason::ServerAnswer)?;
        let mut walk = Walk { edits: Edits::of(text), qualifier: &member.qualifier };
        walk.message(message);
        Ok(walk.edits.apply())
    }
}

struct Walk<'a> {
    edits: Edits<'a>,
    qualifier: &'a str,
}

impl<'a> Walk<'a> {
    fn qualify(&mut self, value: Value<'a>) {
        let qualifier = self.qualifier;
        self.edits.string(value, |own| qualified(qualifier, own));
    }

    fn message(&mut self, message: Value<'a>) {
        let parts = message.members();
        let is_asked = parts.iter().any(|(key, _)| key == "method");
        for (key, value) in parts {
            match key.as_str() {
                "id" if is_asked => {
                    let id = serde_json::from_str(value.written()).unwrap_or_default();
                    if let Some(exposed) = exposed_id(self.qualifier, &id) {
                        self.edits.replace(value, &exposed.into());
                    }
                }
                "params" if is_asked => self.body(value),
                "result" => self.body(value),
                _ => {}
            }
        }
    }

    /// A result, or the parameters of a notification or of a server's request.
    fn body(&mut self, body: Value<'a>) {
        for (key, value) in body.members() {
            match key.as_str() {
                "uri" | "taskId" => self.qualify(value),
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
            if matches!(key.as_str(), "uri" | "uriTemplate" | "taskId") {
                self.qualify(value);
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
                    "uri" => self.qualify(value),
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
}

enum Mode {
    Json { body: Vec<u8>, most: usize },
    Events(EventSplitter),
    Drop,
}

impl ExposureFilter {
    /// For one JSON document of at most `most` bytes.
    pub(crate) fn json(exposure: Exposure, id: Option<Id>, most: usize) -> Self {
        Self { exposure, id, mode: Mode::Json { body: Vec::new(), most } }
    }

    /// For a stream of events of at most `most` bytes each.
    pub(crate) fn events(exposure: Exposure, id: Option<Id>, most: usize) -> Self {
        Self { exposure, id, mode: Mode::Events(EventSplitter::new(most)) }
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
                    Ok(changed) => {
                        out.extend_from_slice(changed.as_ref().unwrap_or(body));
                        return Ok(());
                    }
                    Err(reason) => (reason, false),
                }
            }
            Mode::Events(splitter) => match events(splitter, &self.exposure, chunk, out) {
                Ok(()) => return Ok(()),
                Err(reason) => (reason, true),
            },
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
            Some(data) => match exposure.message(&data) {
                Ok(None) => out.extend_from_slice(event.raw()),
                Ok(Some(changed)) => out.extend(event.with_data(&one_line(changed))),
                Err(reason) => failed = Some(reason),
            },
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
        Exposure::new(Rc::clone(federation.portal("").unwrap()), 0)
    }

    fn exposed(text: &str) -> String {
        let changed = exposure().message(text.as_bytes()).unwrap();
        changed.map_or_else(|| text.to_owned(), |bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn every_place_of_a_uri_gets_the_portals_and_no_other_byte_changes() {
        let own = r#"{ "id":1, "result":{"content":[{"type":"resource_link","uri":"a:1"},{"type":"resource","resource":{"uri":"a:2","text":"uri: a:3"}},{"type":"text","text":"\"uri\":\"a:4\""}],"structuredContent":{"uri":"a:5","n":12345678901234567890}} }"#;
        let seen = r#"{ "id":1, "result":{"content":[{"type":"resource_link","uri":"billing+a:1"},{"type":"resource","resource":{"uri":"billing+a:2","text":"uri: a:3"}},{"type":"text","text":"\"uri\":\"a:4\""}],"structuredContent":{"uri":"a:5","n":12345678901234567890}} }"#;
        assert_eq!(exposed(own), seen);
        for (own, seen) in [
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
            (
                r#"{"id":5,"method":"elicitation/create","params":{"message":"?"}}"#,
                r#"{"id":"billing+i5","method":"elicitation/create","params":{"message":"?"}}"#,
            ),
        ] {
            assert_eq!(exposed(own), seen);
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
