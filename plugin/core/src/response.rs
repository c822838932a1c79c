//! The response on its way to the client: passed on as it comes, filtered, or replaced.
//!
//! Nothing here holds header fields back, since one of the hosts cannot: what may change is known
//! from them alone. Bodies that are filtered are held whole (JSON) or event by event (SSE), each
//! within a limit; a filtered body that cannot be read never passes. Not here: who may see what.

use toolgate_protocol::headers::Headers;
use toolgate_protocol::json::Json;
use toolgate_protocol::jsonrpc::{Id, Message};
use toolgate_protocol::list::{Filtered, filter_lists};
use toolgate_protocol::mcp::ListKind;
use toolgate_protocol::sse::EventSplitter;
use toolgate_protocol::update::ResourceUpdate;

use crate::config::Limits;
use crate::denial::{Denial, Reason};
use crate::event::{FieldValue, HeadEdit};
use crate::federation::{Exposure, ExposureFilter};
use crate::request::Asked;

/// What the header fields of a server's answer say.
pub(crate) struct Answer {
    pub(crate) status: Option<u16>,
    form: Form,
    encoded: bool,
    end: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    EventStream,
    Other,
}

/// Header fields that speak of the very bytes of a body.
const BODY_FIELDS: [&str; 4] = ["content-length", "etag", "digest", "content-digest"];

/// Whether an element of a list may be seen, or a resource whose update the message tells.
pub(crate) type Visible<'a> = dyn FnMut(ListKind, &str, &Json) -> bool + 'a;

/// Changes a response body on its way.
pub(crate) struct ResponseFilter {
    mode: Mode,
    awaited: Awaited,
    seen: Option<Filtered>,
}

/// Whose answer the client waits for.
pub(crate) enum Awaited {
    /// Nobody's: notifications, responses, GET, DELETE.
    Nothing,
    /// That of the request with this id.
    One(Id),
    /// Those of a batch, to which the gateway's refusals are added.
    Batch {
        /// The ids of all its requests.
        ids: Vec<Id>,
        /// Answers of the gateway that were not handed over yet.
        refusals: Vec<Json>,
    },
}

impl Awaited {
    /// What the client of `asked` waits for.
    pub(crate) fn of(asked: &Asked) -> Self {
        if let Some(batch) = &asked.batch {
            let asks = batch.messages.iter().any(|message| message.answer_id().is_some());
            let (ids, refusals) = (batch.ids.clone(), batch.refusals.clone());
            return if asks { Self::Batch { ids, refusals } } else { Self::Nothing };
        }
        let id = asked.message.as_ref().and_then(Message::answer_id);
        id.map_or(Self::Nothing, |id| Self::One(id.clone()))
    }

    /// The body that says this to whoever waits.
    fn error(&self, denial: &Denial) -> Vec<u8> {
        match self {
            Self::Nothing => denial.body(None),
            Self::One(id) => denial.body(Some(id)),
            Self::Batch { ids, .. } => {
                Json::Array(ids.iter().map(|id| denial.answer(Some(id))).collect()).to_bytes()
            }
        }
    }

    /// The refusals, once.
    fn take_refusals(&mut self) -> Vec<Json> {
        match self {
            Self::Batch { refusals, .. } => std::mem::take(refusals),
            _ => Vec::new(),
        }
    }
}

enum Mode {
    /// One JSON document, held until it is whole.
    Json { body: Vec<u8>, most: usize },
    /// Events, each held until it is whole.
    Events(EventSplitter),
    /// These bytes instead of the body.
    Replace(Vec<u8>),
    /// Nothing more passes.
    Drop,
}

/// What becomes of a piece of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// It goes on as it came.
    AsItCame,
    /// Other bytes go on instead.
    Replaced,
}

/// How to handle an answer.
#[derive(Default)]
pub(crate) struct Handling {
    /// Why it is replaced, where it is no answer of an MCP server.
    pub(crate) failure: Option<Reason>,
    /// Changes to its header fields.
    pub(crate) edit: Option<HeadEdit>,
    /// Changes to its body.
    pub(crate) filter: Option<ResponseFilter>,
}

impl Answer {
    /// Reads the header fields of an answer. `end` when no body follows.
    pub(crate) fn read(headers: &Headers, end: bool) -> Self {
        let single = |name: &str| headers.single(name).ok().flatten();
        let content_type = single("content-type").unwrap_or_default();
        let kind = content_type.split(';').next().unwrap_or_default().trim();
        let form = if kind.eq_ignore_ascii_case("application/json") {
            Form::Json
        } else if kind.eq_ignore_ascii_case("text/event-stream") {
            Form::EventStream
        } else {
            Form::Other
        };
        let encoded = headers.contains("content-encoding")
            && single("content-encoding")
                .is_none_or(|value| !value.eq_ignore_ascii_case("identity"));
        let empty = end || single("content-length") == Some("0");
        Self { status: single(":status").and_then(|s| s.parse().ok()), form, encoded, end: empty }
    }

    /// How the answer to `message` is handled. `renewed` when the credential that it was sent with is
    /// fetched anew for the next request; `searched` when it is searched for that credential.
    pub(crate) fn handling(
        &self,
        filter_lists: bool,
        awaited: Awaited,
        renewed: bool,
        searched: bool,
        limits: &Limits,
    ) -> Handling {
        let status = self.status.unwrap_or(0);
        let refuse = |reason: Reason, text: &str| self.replaced(reason, text, &awaited);
        match (status, self.form) {
            (502..=504, Form::Other) => {
                refuse(Reason::ServerUnreachable, "the server cannot be reached; try again later")
            }
            (401, _) if renewed => refuse(
                Reason::ServerUnauthorized,
                "the server did not accept the credential that the gateway held for it; try again, the gateway then sends a new one",
            ),
            (401, _) => refuse(
                Reason::ServerUnauthorized,
                "the server did not accept the credential that the gateway holds for it; trying again at once does not help",
            ),
            (..=199 | 300..=399, _) => {
                refuse(Reason::ServerAnswer, "the server answered with something that is not MCP")
            }
            // Acknowledgements and ends of sessions: the status says it all, and what some servers
            // write beneath it is nothing a client reads.
            (200..=299, Form::Other) if matches!(awaited, Awaited::Nothing) => Handling {
                failure: None,
                edit: Some(self.without_body()),
                filter: Some(ResponseFilter { mode: Mode::Drop, awaited, seen: None }),
            },
            (200..=299 | 500.., Form::Other) if !self.end => {
                refuse(Reason::ServerAnswer, "the server answered with something that is not MCP")
            }
            _ if searched && self.encoded && !self.end => refuse(
                Reason::ServerAnswer,
                "the server answered in an encoding it was not asked for",
            ),
            (200..=299, _) if filter_lists && self.encoded => refuse(
                Reason::ServerAnswer,
                "the server sent a list in an encoding it was not asked for",
            ),
            (200..=299, Form::Json | Form::EventStream) if filter_lists && !self.end => {
                let mode = match self.form {
                    Form::EventStream => Mode::Events(EventSplitter::new(limits.event_bytes)),
                    _ => Mode::Json { body: Vec::new(), most: limits.list_bytes },
                };
                let edit = HeadEdit { remove: BODY_FIELDS.map(Into::into).into(), set: Vec::new() };
                let filter = Some(ResponseFilter { mode, awaited, seen: None });
                Handling { failure: None, edit: Some(edit), filter }
            }
            _ => Handling::default(),
        }
    }

    /// How an answer is put into a portal's names, where it may hold any: bodies of another form hold
    /// none. `edit` then loses what was true of the server's own bytes.
    pub(crate) fn exposing(
        &self,
        exposure: Exposure,
        message: Option<&Message>,
        limits: &Limits,
        edit: &mut HeadEdit,
    ) -> Option<ExposureFilter> {
        let id = message.and_then(Message::id).cloned();
        let filter = match self.form {
            _ if self.end || self.encoded => return None,
            Form::Other => return None,
            Form::Json => ExposureFilter::json(exposure, id, limits.list_bytes),
            Form::EventStream => ExposureFilter::events(exposure, id, limits.event_bytes),
        };
        edit.remove.extend(BODY_FIELDS.map(Into::into));
        Some(filter)
    }

    /// In place of a 404 about a session at a server that the client knows nothing of.
    pub(crate) fn session_ended(&self, awaited: &Awaited) -> Handling {
        let text = "the server had ended the session; call again, and a new one is opened";
        self.broken_off(text, awaited)
    }

    /// In place of an answer to a call that was to go on at its server.
    pub(crate) fn not_resumed(&self, awaited: &Awaited) -> Handling {
        let text = "the server does not go on with this call; make it anew, without requestState";
        self.broken_off(text, awaited)
    }

    /// Whether it is a stream of events.
    pub(crate) fn is_stream(&self) -> bool {
        self.status == Some(200) && self.form == Form::EventStream && !self.end
    }

    fn broken_off(&self, text: &str, awaited: &Awaited) -> Handling {
        let mut ended = self.replaced(Reason::ServerUnreachable, text, awaited);
        if let Some(edit) = &mut ended.edit {
            edit.set.retain(|(name, _)| name != ":status");
            edit.set.push((":status".into(), FieldValue::Public("503".into())));
        }
        ended
    }

    /// An error of the gateway in place of the answer. One that came without a body gets none: its
    /// status has to say it all.
    fn replaced(&self, reason: Reason, text: &str, awaited: &Awaited) -> Handling {
        let denial = Denial::new(reason, text);
        // What the host says about reaching the server is more exact than our own status.
        let status = match self.status {
            Some(status @ 502..=504) => status,
            _ => denial.status(),
        };
        let public = |name: &str, value: String| (name.to_owned(), FieldValue::Public(value));
        let removed =
            ["content-length", "content-encoding", "www-authenticate", "location", "etag"];
        let mut edit = HeadEdit {
            remove: removed.map(Into::into).into(),
            set: vec![public(":status", status.to_string())],
        };
        if !self.end {
            edit.set.push(public("content-type", "application/json".into()));
        }
        let mode = Mode::Replace(awaited.error(&denial));
        let filter = ResponseFilter { mode, awaited: Awaited::Nothing, seen: None };
        Handling { failure: Some(reason), edit: Some(edit), filter: Some(filter) }
    }

    fn without_body(&self) -> HeadEdit {
        let names = ["content-length", "content-encoding", "content-type"];
        let remove = if self.end { Vec::new() } else { names.map(Into::into).into() };
        HeadEdit { remove, set: Vec::new() }
    }
}

impl ResponseFilter {
    /// Takes the next piece of the body and appends to `out` what goes on instead, if anything does.
    ///
    /// # Errors
    /// The reason when the rest of the answer cannot pass; `out` then holds what ends it.
    pub(crate) fn push(
        &mut self,
        chunk: &[u8],
        end: bool,
        visible: &mut Visible<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Piece, Reason> {
        let result = match &mut self.mode {
            Mode::Drop => Ok(Piece::Replaced),
            Mode::Replace(bytes) => {
                out.append(bytes);
                Ok(Piece::Replaced)
            }
            Mode::Json { body, most } if body.len() + chunk.len() > *most => {
                Err((Reason::ServerTooLarge, false))
            }
            // A list in one piece is read where it lies, and most callers see all of it.
            Mode::Json { body, .. } if end && body.is_empty() => {
                json(chunk, self.awaited.take_refusals(), visible, &mut self.seen, out)
                    .map(|edited| if edited { Piece::Replaced } else { Piece::AsItCame })
            }
            Mode::Json { body, .. } => {
                body.extend_from_slice(chunk);
                let refusals = if end { self.awaited.take_refusals() } else { Vec::new() };
                let read = if end {
                    json(body, refusals, visible, &mut self.seen, out).map(|edited| {
                        if !edited {
                            out.append(body);
                        }
                    })
                } else {
                    Ok(())
                };
                read.map(|()| Piece::Replaced)
            }
            Mode::Events(splitter) => {
                for refusal in self.awaited.take_refusals() {
                    out.extend_from_slice(b"event: message\ndata: ");
                    refusal.write(out);
                    out.extend_from_slice(b"\n\n");
                }
                events(splitter, chunk, visible, &mut self.seen, out).map(|()| Piece::Replaced)
            }
        };
        result.map_err(|(reason, in_stream)| {
            let message = "the server's answer could not be read and was withheld";
            let error = self.awaited.error(&Denial::new(reason, message));
            if in_stream {
                out.extend_from_slice(b"data: ");
                out.extend_from_slice(&error);
                out.extend_from_slice(b"\n\n");
            } else {
                out.extend_from_slice(&error);
            }
            self.mode = Mode::Drop;
            reason
        })
    }

    /// Elements of lists that the caller was shown so far.
    pub(crate) fn listed(&self) -> Option<usize> {
        self.seen.map(|seen| seen.shown)
    }

    /// Elements of lists and updates of resources that were taken out so far.
    pub(crate) fn hidden(&self) -> Option<usize> {
        self.seen.map(|seen| seen.hidden)
    }
}

/// Filters the lists of a document; false, with nothing in `out`, when it may go on as it came.
fn json(
    body: &[u8],
    refusals: Vec<Json>,
    visible: &mut Visible<'_>,
    seen: &mut Option<Filtered>,
    out: &mut Vec<u8>,
) -> Result<bool, (Reason, bool)> {
    let mut message = Json::parse_answer(body).map_err(|_| (Reason::ServerAnswer, false))?;
    let edited = match filter_message(&mut message, visible, seen) {
        Ok(Filtering::Same) => false,
        Ok(Filtering::Edited) => true,
        // The one document that is the answer is no notification.
        Ok(Filtering::Withheld) => return Err((Reason::ServerAnswer, false)),
        Err(reason) => return Err((reason, false)),
    };
    if !refusals.is_empty() {
        let mut answers = match message {
            Json::Array(answers) => answers,
            single => vec![single],
        };
        answers.extend(refusals);
        Json::Array(answers).write(out);
        return Ok(true);
    }
    if edited {
        message.write(out);
    }
    Ok(edited)
}

fn events(
    splitter: &mut EventSplitter,
    chunk: &[u8],
    visible: &mut Visible<'_>,
    seen: &mut Option<Filtered>,
    out: &mut Vec<u8>,
) -> Result<(), (Reason, bool)> {
    let mut failed = None;
    let pushed = splitter.push(chunk, |event| {
        if failed.is_some() {
            return;
        }
        match event.data().filter(|data| !data.is_empty()) {
            None => out.extend_from_slice(event.raw()),
            Some(data) => match Json::parse_answer(&data) {
                Err(_) => failed = Some(Reason::ServerAnswer),
                Ok(mut message) => match filter_message(&mut message, visible, seen) {
                    Ok(Filtering::Edited) => out.extend(event.with_data(&message.to_bytes())),
                    Ok(Filtering::Same) => out.extend_from_slice(event.raw()),
                    // With its id: who resumes does so after an event that it has seen.
                    Ok(Filtering::Withheld) => {}
                    Err(reason) => failed = Some(reason),
                },
            },
        }
    });
    match (failed, pushed) {
        (Some(reason), _) => Err((reason, true)),
        (None, Err(_)) => Err((Reason::ServerTooLarge, true)),
        (None, Ok(())) => Ok(()),
    }
}

/// What became of a message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Filtering {
    Same,
    Edited,
    /// Nothing of it passes.
    Withheld,
}

/// Filters one message, or each message of a batch: lists, and updates of resources.
fn filter_message(
    message: &mut Json,
    visible: &mut Visible<'_>,
    seen: &mut Option<Filtered>,
) -> Result<Filtering, Reason> {
    if let Some(messages) = message.as_array_mut() {
        return filter_batch(messages, visible, seen);
    }
    if message.as_object().is_none() {
        return Err(Reason::ServerAnswer);
    }
    if let Some(update) = ResourceUpdate::read(message)
        && !update.uri.is_some_and(|uri| visible(ListKind::Resources, uri, message))
    {
        seen.get_or_insert_default().hidden += 1;
        return Ok(Filtering::Withheld);
    }
    let filtered = filter_lists(message, visible);
    if filtered.shown + filtered.hidden > 0 {
        let total = seen.get_or_insert_default();
        total.shown += filtered.shown;
        total.hidden += filtered.hidden;
    }
    Ok(if filtered.edited { Filtering::Edited } else { Filtering::Same })
}

fn filter_batch(
    messages: &mut Vec<Json>,
    visible: &mut Visible<'_>,
    seen: &mut Option<Filtered>,
) -> Result<Filtering, Reason> {
    let (before, mut edited, mut failed) = (messages.len(), false, None);
    messages.retain_mut(|message| {
        let filtered = match message.as_object() {
            Some(_) => filter_message(message, visible, seen),
            None => Err(Reason::ServerAnswer),
        };
        match filtered {
            Ok(filtering) => {
                edited |= filtering == Filtering::Edited;
                filtering != Filtering::Withheld
            }
            Err(reason) => {
                failed = Some(reason);
                true
            }
        }
    });
    match failed {
        Some(reason) => Err(reason),
        None if messages.is_empty() && before > 0 => Ok(Filtering::Withheld),
        None if edited || messages.len() < before => Ok(Filtering::Edited),
        None => Ok(Filtering::Same),
    }
}
