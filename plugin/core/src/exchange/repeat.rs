//! A request whose server refused its credential, made once more with another one. The refusal is held
//! meanwhile: nothing of it has reached the client.
//!
//! A server that answers 401 or 403 did not do what it was asked, so that asking again does nothing
//! twice. It is asked by a call of the gateway, since no host sends a request again with other header
//! fields, and its answer comes as a whole: what is to stay open is not asked for again, nor what may
//! lead to questions to the client. The answer goes through all that any answer goes through. Where no
//! other credential can be had, the refusal is the answer. Not here: which credentials may be outdated
//! (`credentials`), what becomes of an answer (`response`).

use std::collections::BTreeMap;
use std::mem;
use std::time::Duration;

use toolgate_protocol::headers::Headers;
use toolgate_protocol::jsonrpc::Message;
use toolgate_protocol::mcp::Operation;

use super::{MOST_ROUNDS, Phase, Sent, Step};
use crate::audit::AuditRecord;
use crate::calls::FinishedCall;
use crate::credentials::{Echoes, Injected};
use crate::denial::{Denial, Reason};
use crate::event::{
    CallId, CallOutcome, Effect, Event, FieldValue, Flow, HeadEdit, HttpCall, ServerReply,
    Timestamp,
};
use crate::facts::{Fact, Facts, Need, Stop};
use crate::federation::Fault;
use crate::gateway::{Gateway, Server};
use crate::request::{Asked, HttpMethod};
use crate::response::Answer;
use crate::secret::Secret;
use crate::upstream;

/// How long the answer to a request that is made again may take.
const LONGEST: Duration = Duration::from_secs(60);

/// Header fields of an answer that belong to the connection, or that the host writes itself.
const OF_THE_CONNECTION: [&str; 9] = [
    "connection",
    "content-length",
    "date",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A request that is made once more.
pub(super) struct Repeat {
    asked: Box<Asked>,
    /// What is known of it, as it was sent at first.
    sent: Sent,
    refusal: Whole,
    /// Whether all of the refusal is there.
    ended: bool,
    facts: Facts,
    pub(super) calls: BTreeMap<CallId, Need>,
    rounds: usize,
    stage: Stage,
}

enum Stage {
    /// The credentials are fetched anew.
    Fetching,
    /// It was made with these.
    Made(Vec<Injected>),
    /// The refusal will be the answer. Whether it helps to try again.
    GivenUp { renewed: bool },
}

/// An answer of a server, whole.
pub(crate) struct Whole {
    pub(crate) headers: Headers,
    pub(crate) body: Vec<u8>,
}

impl Whole {
    /// The answer of a call.
    ///
    /// # Errors
    /// The [`Fault`] where there is no whole answer.
    pub(crate) fn read(outcome: &CallOutcome) -> Result<Self, Fault> {
        match outcome {
            CallOutcome::Response { status, headers, body } => {
                let fields = headers.iter().filter(|(name, _)| !name.starts_with(':'));
                let status = (":status", status.to_string().into_bytes());
                let all = std::iter::once(status);
                let all = all.chain(fields.map(|(name, value)| (name, value.to_vec())));
                Ok(Self { headers: Headers::from_pairs(all), body: body.clone() })
            }
            CallOutcome::TooLarge => Err(Fault::TooLarge),
            CallOutcome::Failed => Err(Fault::Unreachable),
        }
    }

    /// Whether the server did not accept the credential.
    pub(crate) fn is_refusal(&self) -> bool {
        is_refusal(&self.headers)
    }
}

/// Whether these are the header fields of an answer by which a server does not accept the credential.
pub(super) fn is_refusal(headers: &Headers) -> bool {
    matches!(headers.single(":status"), Ok(Some("401" | "403")))
}

impl Step<'_> {
    /// Whether a refused request can be made once more.
    pub(super) fn can_repeat(&self, asked: &Asked, sent: &Sent) -> bool {
        let is_answered_at_once = match asked.operation() {
            Ok(Some(Operation::Listen { .. })) | Err(_) => false,
            Ok(Some(_)) => true,
            // A batch is answered as a whole, GET opens a stream.
            Ok(None) => asked.batch.is_some(),
        };
        let asks_nothing = sent.exposure.as_ref().is_none_or(|exposure| !exposure.may_ask());
        self.gateway.takes_late_bodies()
            && asked.head.http_method == HttpMethod::Post
            && is_answered_at_once
            && asks_nothing
    }

    /// Begins to make a refused request once more.
    pub(super) fn begin_repeat(
        &mut self,
        asked: Box<Asked>,
        sent: Sent,
        headers: &Headers,
        ended: bool,
    ) -> (Phase, Flow) {
        self.audit.upstream_status = Answer::read(headers, ended).status;
        let refusal = Whole { headers: headers.clone(), body: Vec::new() };
        let (facts, calls, rounds) = (Facts::default(), BTreeMap::new(), 0);
        let stage = Stage::Fetching;
        self.repeat(Box::new(Repeat { asked, sent, refusal, ended, facts, calls, rounds, stage }))
    }

    /// Takes a piece of the refusal.
    pub(super) fn refusal_piece(
        &mut self,
        mut repeat: Box<Repeat>,
        chunk: &[u8],
        end: bool,
    ) -> (Phase, Flow) {
        // The host need not keep it as well.
        self.out.push(Effect::ReplaceChunk(Vec::new()));
        if repeat.refusal.body.len() + chunk.len() > self.gateway.limits.list_bytes {
            return self.repeat_failed(*repeat, Fault::TooLarge);
        }
        repeat.refusal.body.extend_from_slice(chunk);
        repeat.ended = end;
        match repeat.stage {
            Stage::GivenUp { renewed } => self.give_up(repeat, renewed),
            Stage::Fetching | Stage::Made(_) => (Phase::ExpectRepeat(repeat), Flow::Hold),
        }
    }

    /// A call is over: one that fetched, or the request itself.
    pub(super) fn repeat_call_done(
        &mut self,
        mut repeat: Box<Repeat>,
        done: &FinishedCall,
    ) -> (Phase, Flow) {
        self.audit.credential_echoed |= done.echoed;
        if repeat.calls.remove(&done.id).is_none() {
            return (Phase::ExpectRepeat(repeat), Flow::Hold);
        }
        match &done.learned {
            Some((_, Fact::Repeated(Ok(answer)))) => {
                let Repeat { asked, sent, stage, .. } = *repeat;
                let Stage::Made(injected) = stage else { return (Phase::Poisoned, Flow::Hold) };
                let refused = sent.injected;
                self.answer_whole(asked, Sent { injected, refused, ..sent }, answer, false)
            }
            Some((_, Fact::Repeated(Err(fault)))) => self.repeat_failed(*repeat, *fault),
            learned => {
                if let Some((need, fact)) = learned {
                    repeat.facts.insert(need.clone(), fact.clone());
                }
                if repeat.calls.is_empty() {
                    self.repeat(repeat)
                } else {
                    (Phase::ExpectRepeat(repeat), Flow::Hold)
                }
            }
        }
    }

    /// Makes the request with new credentials, or begins to fetch them.
    fn repeat(&mut self, mut repeat: Box<Repeat>) -> (Phase, Flow) {
        let Some(server) = self.gateway.servers.get(&repeat.asked.head.server) else {
            return self.give_up(repeat, true);
        };
        loop {
            let mut record = AuditRecord::default();
            let (asked, facts) = (&repeat.asked, &repeat.facts);
            match self.gateway.credentials_for(server, asked, facts, self.now, &mut record) {
                Ok(injected) => return self.make_again(server, repeat, injected, record),
                Err(Stop::Need(needs)) if repeat.rounds < MOST_ROUNDS => {
                    repeat.rounds += 1;
                    let Some(begun) = self.begin(needs, &mut repeat.facts) else {
                        return self.give_up(repeat, true);
                    };
                    self.out.extend(begun.made);
                    if !begun.awaited.is_empty() {
                        repeat.calls = begun.awaited;
                        return (Phase::ExpectRepeat(repeat), Flow::Hold);
                    }
                }
                // It cannot be had now.
                Err(_) => {
                    self.audit.detail = record.detail;
                    return self.give_up(repeat, true);
                }
            }
        }
    }

    fn make_again(
        &mut self,
        server: &Server,
        mut repeat: Box<Repeat>,
        injected: Vec<Injected>,
        record: AuditRecord,
    ) -> (Phase, Flow) {
        let mut pairs = injected.iter().zip(&repeat.sent.injected);
        if pairs.all(|(new, old)| new.fetched.has_values_of(&old.fetched)) {
            self.audit.detail = Some("the credential was fetched anew and is the same".into());
            return self.give_up(repeat, false);
        }
        let made =
            self.gateway.made_again(server, &repeat.asked, &repeat.sent, &injected, self.now);
        let Some(call) = made else { return self.give_up(repeat, true) };
        self.audit.credential_retried = true;
        self.audit.credential_source = record.credential_source;
        self.audit.credential_version = record.credential_version;
        self.audit.credential_lease = record.credential_lease;
        self.audit.credentials = record.credentials;
        let mut calls = self.gateway.calls.borrow_mut();
        let exchange = *self.id.get_or_insert_with(|| calls.next_exchange());
        let need = Need::Repeat(exchange);
        let id = calls.add(need.clone(), &call, vec![exchange], self.now);
        repeat.calls.insert(id, need);
        repeat.stage = Stage::Made(injected);
        self.out.push(Effect::Call { id, call });
        (Phase::ExpectRepeat(repeat), Flow::Hold)
    }

    /// Answers with the refusal, once all of it is there.
    fn give_up(&mut self, mut repeat: Box<Repeat>, renewed: bool) -> (Phase, Flow) {
        if !repeat.ended {
            repeat.stage = Stage::GivenUp { renewed };
            return (Phase::ExpectRepeat(repeat), Flow::Hold);
        }
        let Repeat { asked, sent, refusal, .. } = *repeat;
        self.answer_whole(asked, sent, &refusal, renewed)
    }

    fn repeat_failed(&mut self, repeat: Repeat, fault: Fault) -> (Phase, Flow) {
        if let Some(id) = *self.id {
            self.gateway.calls.borrow_mut().leave(id, repeat.calls.into_keys());
        }
        let denial = match fault {
            Fault::TooLarge => {
                let message = "the server's answer is larger than the gateway accepts";
                Denial::new(Reason::ServerTooLarge, message)
            }
            _ => {
                let message =
                    "the request was sent again with a new credential, and no whole answer came";
                Denial::new(Reason::ServerUnreachable, message)
            }
        };
        self.deny_asked(denial, &repeat.asked)
    }

    /// Answers the client with an answer of its server that is there as a whole: what an answer goes
    /// through that passes piece by piece, this one does at once.
    fn answer_whole(
        &mut self,
        asked: Box<Asked>,
        sent: Sent,
        answer: &Whole,
        renewed: bool,
    ) -> (Phase, Flow) {
        let Whole { headers, body } = answer;
        let mut effects = Vec::new();
        let outer = mem::take(self.out);
        // A refusal without a body gets one that says what became of it.
        let is_unauthorized = matches!(headers.single(":status"), Ok(Some("401")));
        let end = body.is_empty() && !is_unauthorized;
        let (mut phase, _) = self.pass_on(asked, sent, headers, end, renewed);
        if !end {
            let before = self.out.len();
            let event = Event::ResponseBody { chunk: body, end: true };
            (phase, _) = phase.step(event, self);
            self.mask_body(body, true, before);
        }
        drop(phase);
        mem::swap(self.out, &mut effects);
        *self.out = outer;
        let mut edit = HeadEdit::default();
        let mut goes_on = None;
        for effect in effects {
            match effect {
                Effect::EditResponse(all) => edit = all,
                Effect::ReplaceChunk(bytes) => goes_on = Some(bytes),
                // A question of the server, or what tells it that nobody can be asked.
                Effect::Reply(reply) => return self.reply(reply),
                other => self.out.push(other),
            }
        }
        let body = goes_on.unwrap_or_else(|| body.clone());
        self.out.push(Effect::Answer(edited(headers, &edit, body)));
        (Phase::Replied, Flow::Hold)
    }
}

impl Gateway {
    /// The call that is the request once more, with these credentials; `None` where something else than
    /// the credential has changed as well.
    fn made_again(
        &self,
        server: &Server,
        asked: &Asked,
        sent: &Sent,
        injected: &[Injected],
        now: Timestamp,
    ) -> Option<HttpCall> {
        let mut request = upstream::request(server, asked, sent.filter_lists, injected).ok()?;
        if sent.exposure.is_some() {
            let bridge = self.bridge(server, asked, injected, &Facts::default(), now).ok()?;
            self.carry(&bridge, asked, &mut request.edit);
        }
        let HeadEdit { remove, set } = request.edit;
        let is_edited = |name: &str| {
            remove.iter().any(|removed| removed == name) || set.iter().any(|(set, _)| set == name)
        };
        let mut fields = Vec::new();
        for (name, value) in asked.head.headers.iter().filter(|(name, _)| !is_edited(name)) {
            let value = String::from_utf8(value.to_vec()).ok()?;
            fields.push((name.to_owned(), FieldValue::Public(value)));
        }
        fields.extend(set);
        // The host writes these itself.
        fields.retain(|(name, _)| {
            !name.starts_with(':') && name != "host" && !OF_THE_CONNECTION.contains(&&**name)
        });
        let body = match &asked.batch {
            Some(batch) => batch.to_bytes(),
            None => asked.message.as_ref().map(Message::to_bytes)?,
        };
        Some(HttpCall {
            cluster: request.cluster,
            scheme: request.scheme,
            authority: request.authority,
            method: "POST",
            path: request.path.to_string(),
            headers: Vec::new(),
            credentials: fields,
            body: Some(Secret::new(String::from_utf8(body).ok()?)),
            timeout: LONGEST,
            most_bytes: self.limits.list_bytes,
            // Its answer is searched like any other, header fields and all.
            echoes: Echoes::default(),
        })
    }
}

/// What the client gets of an answer.
fn edited(headers: &Headers, edit: &HeadEdit, body: Vec<u8>) -> ServerReply {
    let HeadEdit { remove, set } = edit;
    let mut fields: Vec<(String, String)> = Vec::new();
    for (name, value) in headers.iter() {
        let is_gone = remove.iter().any(|removed| removed == name)
            || set.iter().any(|(set, _)| set == name)
            || OF_THE_CONNECTION.contains(&name)
            || name.starts_with("x-envoy-");
        if let (false, Ok(value)) = (is_gone, std::str::from_utf8(value)) {
            fields.push((name.to_owned(), value.to_owned()));
        }
    }
    fields.extend(set.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())));
    let status = fields.iter().find(|(name, _)| name == ":status");
    let status = status.and_then(|(_, status)| status.parse().ok()).unwrap_or(502);
    fields.retain(|(name, _)| !name.starts_with(':'));
    ServerReply { status, headers: fields, body }
}
