//! One request through the gateway, its response and its record: the state machine.
//!
//! Each phase takes an event and says what comes next. What a phase does not expect holds: nothing
//! goes on that was not decided on. Not here: the decision (`decide`), the response (`response`).

use std::collections::BTreeMap;
use std::mem;
use std::rc::Rc;
use std::time::Duration;

use toolgate_policy::Target;
use toolgate_protocol::headers::Headers;
use toolgate_protocol::json::Json;
use toolgate_protocol::jsonrpc::Message;
use toolgate_protocol::mcp::{Era, ListKind};

use crate::audit::{AuditFields, AuditRecord, Outcome};
use crate::batch::Admission;
use crate::calls::{Begun, ExchangeId};
use crate::cors;
use crate::credentials::{EchoMask, Echoes, Injected};
use crate::decide::Verdict;
use crate::denial::{Denial, LocalReply, Reason};
use crate::disclosure;
use crate::event::{CallId, Effect, Event, FieldValue, Flow, HeadEdit, HostFacts, Timestamp};
use crate::facts::{Fact, Facts, Need, Stop};
use crate::federation::{Exposure, ExposureFilter, Goal, MOST_PAGES};
use crate::gateway::Gateway;
use crate::hosts;
use crate::identity::Form;
use crate::request::{Asked, Head, body_too_large, body_withheld};
use crate::response::{Answer, Awaited, Handling, Piece, ResponseFilter};
use crate::session::Sessions;
use crate::shadow::ShadowLists;

mod login;
mod repeat;

pub(crate) use self::repeat::Whole;

/// Most rounds of calls for one request to one server: a stale login, a new one, a read, a session, the
/// pages of a list, and some to spare.
const MOST_ROUNDS: usize = MOST_PAGES + 10;

/// One request through the gateway, its response and its record.
pub struct Exchange {
    gateway: Option<Rc<Gateway>>,
    phase: Phase,
    audit: Box<AuditRecord>,
    began: Option<Timestamp>,
    calls: Duration,
    /// Known once it has to wait.
    id: Option<ExchangeId>,
    /// Origin of the web page that asks.
    origin: Option<String>,
    /// What the host vouches for.
    host: HostFacts,
    /// Takes out of the answer what the server shows of its credentials.
    mask: Option<EchoMask>,
}

enum Phase {
    ExpectRequestHead,
    ExpectRequestBody {
        head: Box<Head>,
        body: Vec<u8>,
    },
    ExpectFacts {
        asked: Box<Asked>,
        facts: Facts,
        calls: BTreeMap<CallId, Need>,
        rounds: usize,
        since: Timestamp,
    },
    /// A client logs in by way of the gateway; its form is read.
    ExpectForm {
        form: Form,
        body: Vec<u8>,
    },
    /// The same, until the authorization server has answered.
    ExpectAuthorizationServer(Box<login::Waiting>),
    /// The memory that workers share is being read or written.
    ExpectShared {
        asked: Box<Asked>,
        facts: Facts,
        /// Calls that are under way meanwhile.
        calls: BTreeMap<CallId, Need>,
        rounds: usize,
        /// The refusal that is being counted.
        denied: Option<Denial>,
    },
    ExpectResponseHead {
        asked: Box<Asked>,
        sent: Sent,
    },
    /// The server refused the credential: the request is made once more, and the refusal waits.
    ExpectRepeat(Box<repeat::Repeat>),
    /// The response goes on in a portal's names.
    ExposeResponse {
        filter: ExposureFilter,
    },
    FilterResponse {
        asked: Box<Asked>,
        filter: ResponseFilter,
        /// What then puts it into a portal's names.
        exposing: Option<ExposureFilter>,
    },
    /// The response goes on as it comes.
    Proxied,
    /// The gateway has answered: what still arrives of the request is held, the answer goes on.
    Replied,
    /// The record is written.
    Closed,
    /// A step did not finish. Holds.
    Poisoned,
}

/// What is known of a request that was sent on.
struct Sent {
    filter_lists: bool,
    exposure: Option<Exposure>,
    injected: Vec<Injected>,
    /// Those that the server refused before.
    refused: Vec<Injected>,
}

/// Calls that meet needs.
#[derive(Default)]
struct Begin {
    /// Those that this exchange makes.
    made: Vec<Effect>,
    /// Those that it waits for: its own, and those that others make.
    awaited: BTreeMap<CallId, Need>,
}

/// What a step hands on.
struct Step<'a> {
    gateway: &'a Gateway,
    now: Timestamp,
    audit: &'a mut AuditRecord,
    out: &'a mut Vec<Effect>,
    calls: &'a mut Duration,
    id: &'a mut Option<ExchangeId>,
    origin: &'a mut Option<String>,
    host: &'a mut HostFacts,
    mask: &'a mut Option<EchoMask>,
}

impl Exchange {
    /// An exchange of a gateway. Without one, since the configuration was not accepted, every
    /// request is refused.
    #[must_use]
    pub fn new(gateway: Option<Rc<Gateway>>) -> Self {
        Self {
            gateway,
            phase: Phase::ExpectRequestHead,
            audit: Box::default(),
            began: None,
            calls: Duration::ZERO,
            id: None,
            origin: None,
            host: HostFacts::default(),
            mask: None,
        }
    }

    /// Takes an event; adds to `out` what the host has to do, in order, and returns what happens to
    /// the bytes of the event.
    pub fn handle(&mut self, event: Event<'_>, now: Timestamp, out: &mut Vec<Effect>) -> Flow {
        let began = *self.began.get_or_insert(now);
        // INVARIANT: a step that does not finish leaves a phase that holds.
        let phase = mem::replace(&mut self.phase, Phase::Poisoned);
        if let Event::Closed = event {
            if !matches!(phase, Phase::Closed) {
                out.push(Effect::Audit(self.close(&phase, began, now)));
            }
            self.phase = Phase::Closed;
            return Flow::Forward;
        }
        let Some(gateway) = &self.gateway else {
            let (phase, flow) = refuse_unconfigured(phase, &mut self.audit, out);
            self.phase = phase;
            return flow;
        };
        let mut step = Step {
            gateway,
            now,
            audit: &mut self.audit,
            out,
            calls: &mut self.calls,
            id: &mut self.id,
            origin: &mut self.origin,
            host: &mut self.host,
            mask: &mut self.mask,
        };
        let body =
            if let Event::ResponseBody { chunk, end } = event { Some((chunk, end)) } else { None };
        let before = step.out.len();
        let (phase, flow) = phase.step(event, &mut step);
        if let Some((chunk, end)) = body {
            step.mask_body(chunk, end, before);
        }
        let decided = matches!(phase, Phase::ExpectResponseHead { .. } | Phase::Replied);
        if decided && self.audit.decided_us.is_none() {
            self.audit.decided_us = Some(microseconds(now.since(began)));
        }
        self.phase = phase;
        flow
    }

    /// The record as it stands, for hosts whose access log may be written before the exchange closes.
    /// The record of [`Effect::Audit`] has the same id and the last word.
    #[must_use]
    pub fn record_so_far(&mut self, now: Timestamp) -> AuditRecord {
        self.identify_record();
        let mut audit = (*self.audit).clone();
        if let Phase::Poisoned = self.phase {
            fail(&mut audit, Reason::Internal);
        }
        audit.total_us = microseconds(now.since(self.began.unwrap_or(now)));
        audit
    }

    /// The fields of the record that the host writes apart.
    #[must_use]
    pub fn audit_fields(&self) -> &AuditFields {
        self.gateway.as_ref().map_or(AuditFields::NONE, |gateway| &gateway.audit_fields)
    }

    fn identify_record(&mut self) {
        if let (true, Some(gateway)) = (self.audit.record_id.is_empty(), &self.gateway) {
            self.audit.record_id = gateway.next_record_id();
        }
    }

    /// Its id, while it waits for calls, be they its own or not: the host hands it each that is
    /// [finished](Gateway::finish_call) and names it.
    #[must_use]
    pub fn waits_as(&self) -> Option<ExchangeId> {
        self.id.filter(|_| self.phase.awaited().is_some())
    }

    /// Whether the response's header fields have to wait: what its body says may yet make another answer
    /// of it. Only where the host can hold them ([`Gateway::share_calls`]).
    #[must_use]
    pub fn holds_response(&self) -> bool {
        match &self.phase {
            Phase::ExposeResponse { filter } => filter.holds(),
            Phase::ExpectRepeat(_) => true,
            _ => false,
        }
    }

    /// Whether the gateway has to see the response's body; otherwise the host need not read it.
    #[must_use]
    pub fn reads_response(&self) -> bool {
        match self.phase {
            Phase::FilterResponse { .. } | Phase::ExposeResponse { .. } => true,
            Phase::ExpectRepeat(_) => true,
            Phase::Proxied => self.mask.is_some(),
            _ => false,
        }
    }

    fn close(&mut self, phase: &Phase, began: Timestamp, now: Timestamp) -> Box<AuditRecord> {
        self.identify_record();
        if let (Some(gateway), Some(id), Some(calls)) = (&self.gateway, self.id, phase.awaited()) {
            gateway.calls.borrow_mut().leave(id, calls.keys().copied());
        }
        let mut audit = mem::take(&mut self.audit);
        match phase {
            Phase::Poisoned => fail(&mut audit, Reason::Internal),
            // The host itself refused it before the gateway saw anything of it.
            Phase::ExpectRequestHead => {
                audit.decision = Outcome::Deny;
                audit.reason = Some("host_refused");
            }
            _ if audit.decision == Outcome::Abort => audit.reason = Some("client_closed"),
            _ => {}
        }
        if self.calls > Duration::ZERO {
            audit.calls_us = Some(microseconds(self.calls));
        }
        audit.total_us = microseconds(now.since(began));
        if let Some(gateway) = &self.gateway {
            gateway.metrics.exchange(&audit);
        }
        audit
    }
}

impl Phase {
    /// The calls that the exchange waits for.
    fn awaited(&self) -> Option<&BTreeMap<CallId, Need>> {
        match self {
            Self::ExpectFacts { calls, .. } => Some(calls),
            Self::ExpectAuthorizationServer(waiting) => Some(&waiting.calls),
            Self::ExpectRepeat(repeat) => Some(&repeat.calls),
            _ => None,
        }
    }

    fn step(self, event: Event<'_>, step: &mut Step<'_>) -> (Self, Flow) {
        match (self, event) {
            (Self::ExpectRequestHead, Event::HostFacts(facts)) => {
                *step.host = facts;
                (Self::ExpectRequestHead, Flow::Hold)
            }
            (Self::ExpectRequestHead, Event::RequestHead { headers, source, end }) => {
                if let Err(denial) = hosts::check(&headers, &step.gateway.hosts) {
                    return step.deny(denial, None);
                }
                if let Some(reply) = step.metadata(&headers).or_else(|| step.login(&headers, end)) {
                    return reply;
                }
                match cors::origin(&headers, &step.gateway.origins) {
                    Err(denial) => return step.deny(denial, None),
                    Ok(origin) => *step.origin = origin,
                }
                if let Some(reply) = step.preflight(&headers) {
                    return reply;
                }
                let host = mem::take(step.host);
                match step.gateway.read_head(headers, source, host, step.now, step.audit) {
                    Err(denial) => step.deny(denial, None),
                    Ok(head) if end => step.read(head, &[]),
                    Ok(head) => (
                        Self::ExpectRequestBody { head: Box::new(head), body: Vec::new() },
                        Flow::Hold,
                    ),
                }
            }
            (Self::ExpectRequestBody { head, mut body }, Event::RequestBody { chunk, end }) => {
                let most = step.gateway.limits.request_bytes;
                if body.len() + chunk.len() > most {
                    return step.deny(body_too_large(most), None);
                }
                // The usual body is one piece: it is read where it lies.
                if end && body.is_empty() {
                    return step.read(*head, chunk);
                }
                body.extend_from_slice(chunk);
                if end {
                    step.read(*head, &body)
                } else {
                    (Self::ExpectRequestBody { head, body }, Flow::Hold)
                }
            }
            (Self::ExpectRequestBody { .. }, Event::RequestBodyWithheld { setting }) => {
                step.audit.detail = Some(format!("the host could not show the body: {setting}"));
                step.deny(body_withheld(setting), None)
            }
            (Self::ExpectRequestBody { .. }, Event::RequestTrailers) => {
                let message = "requests with trailers are not accepted";
                step.deny(Denial::new(Reason::UnexpectedBody, message), None)
            }
            (
                Self::ExpectFacts { asked, mut facts, mut calls, rounds, since },
                Event::CallDone(done),
            ) => {
                step.audit.credential_echoed |= done.echoed;
                if calls.remove(&done.id).is_some()
                    && let Some((need, fact)) = &done.learned
                {
                    facts.insert(need.clone(), fact.clone());
                }
                // One host goes on only when the last call is over. On the other whoever can go further
                // does: a list that has come whole, or cannot be had, leads to no further call.
                let leads_on = done
                    .learned
                    .as_ref()
                    .is_none_or(|(_, fact)| !matches!(fact, Fact::Catalogue(_)));
                let goes_on = calls.is_empty() || (leads_on && step.gateway.takes_late_bodies());
                if !goes_on {
                    return (Self::ExpectFacts { asked, facts, calls, rounds, since }, Flow::Hold);
                }
                *step.calls += step.now.since(since);
                step.decide(asked, facts, calls, rounds)
            }
            (Self::ExpectForm { form, body }, Event::RequestBody { chunk, end }) => {
                step.form_piece(form, body, chunk, end)
            }
            (
                Self::ExpectForm { form, .. },
                Event::RequestBodyWithheld { .. } | Event::RequestTrailers,
            ) => step.refuse_login(form.unreadable()),
            (Self::ExpectAuthorizationServer(waiting), Event::CallDone(done)) => {
                step.login_call_done(waiting, done)
            }
            // The body of a request that is answered without it.
            (phase @ Self::ExpectAuthorizationServer(_), Event::RequestBody { .. }) => {
                (phase, Flow::Hold)
            }
            (
                Self::ExpectShared { mut asked, facts, calls, rounds, denied },
                Event::SharedRead(values),
            ) => {
                let (now, audit) = (step.now, &mut *step.audit);
                if asked.level.is_under_way {
                    asked.level.read(values);
                } else {
                    step.gateway.learn_counts(&mut asked.counting, values, now, audit);
                }
                step.counted(asked, facts, calls, rounds, denied)
            }
            (
                Self::ExpectShared { mut asked, facts, calls, rounds, denied },
                Event::SharedWritten(is_written),
            ) => {
                if asked.level.is_under_way {
                    asked.level.written(is_written);
                } else {
                    asked.counting.written(is_written);
                }
                step.counted(asked, facts, calls, rounds, denied)
            }
            // An empty last piece after the head said that nothing follows.
            (phase @ Self::ExpectFacts { .. }, Event::RequestBody { chunk: [], .. }) => {
                (phase, Flow::Hold)
            }
            (
                phase @ (Self::ExpectResponseHead { .. } | Self::ExpectRepeat(_)),
                Event::RequestBody { chunk: [], .. },
            ) => (phase, Flow::Forward),
            (Self::ExpectResponseHead { asked, sent }, Event::ResponseHead { headers, end }) => {
                step.response_head(asked, sent, &headers, end)
            }
            (Self::ExpectRepeat(repeat), Event::ResponseBody { chunk, end }) => {
                step.refusal_piece(repeat, chunk, end)
            }
            (Self::ExpectRepeat(repeat), Event::CallDone(done)) => {
                step.repeat_call_done(repeat, done)
            }
            (Self::ExposeResponse { mut filter }, Event::ResponseBody { chunk, end }) => {
                let mut bytes = Vec::new();
                let held = filter.holds();
                if let Err(reason) = filter.push(chunk, end, &mut bytes) {
                    fail(step.audit, reason);
                }
                if let Some(server) = filter.changed_lists() {
                    step.gateway.catalogues.borrow_mut().forget(&server);
                }
                match step.questions(&mut filter) {
                    // The client gets it as a whole answer, and the server sees the stream break off.
                    Some(asked) if held => return step.answer_asked(asked),
                    Some(asked) => {
                        bytes.extend_from_slice(b"data: ");
                        bytes.extend(asked);
                        bytes.extend_from_slice(b"\n\n");
                    }
                    None => {}
                }
                step.out.push(Effect::ReplaceChunk(bytes));
                let next = if end { Self::Proxied } else { Self::ExposeResponse { filter } };
                (next, Flow::Forward)
            }
            // A call that nobody waits for could not even be made.
            (phase @ Self::ExposeResponse { .. }, Event::CallDone(_)) => (phase, Flow::Forward),
            (
                Self::FilterResponse { asked, mut filter, mut exposing },
                Event::ResponseBody { chunk, end },
            ) => {
                let mut bytes = Vec::new();
                let gateway = step.gateway;
                let now = step.now;
                let server = Rc::clone(&asked.head.server);
                let mut in_shadow = ShadowLists::default();
                let mut visible = |kind: ListKind, name: &str, element: &Json| {
                    if kind == ListKind::Tools && asked.era == Era::Modern {
                        gateway.mirrors.learn(&server, name, element.get("inputSchema"));
                    }
                    gateway.listed(&asked, &listed(kind, &server, name), now, &mut in_shadow)
                };
                let pushed = filter.push(chunk, end, &mut visible, &mut bytes);
                if let Err(reason) = &pushed {
                    fail(step.audit, *reason);
                }
                let as_it_came = matches!(pushed, Ok(Piece::AsItCame));
                if let Some(exposing) = &mut exposing {
                    let mut exposed = Vec::new();
                    let passed = if as_it_came { chunk } else { &bytes };
                    if let Err(reason) = exposing.push(passed, end, &mut exposed) {
                        fail(step.audit, reason);
                    }
                    if let Some(server) = exposing.changed_lists() {
                        gateway.catalogues.borrow_mut().forget(&server);
                    }
                    step.out.push(Effect::ReplaceChunk(exposed));
                } else if !as_it_came {
                    step.out.push(Effect::ReplaceChunk(bytes));
                }
                step.audit.count_shadow(in_shadow);
                step.audit.listed = filter.listed();
                step.audit.hidden = filter.hidden();
                let next = if end {
                    Self::Proxied
                } else {
                    Self::FilterResponse { asked, filter, exposing }
                };
                (next, Flow::Forward)
            }
            (Self::Proxied, Event::ResponseBody { .. }) => (Self::Proxied, Flow::Forward),
            (Self::Replied, Event::ResponseHead { .. } | Event::ResponseBody { .. }) => {
                (Self::Replied, Flow::Forward)
            }
            (Self::Replied, _) => (Self::Replied, Flow::Hold),
            // The host itself ended the request before the gateway did: its answer goes on, since
            // nothing went upstream.
            (
                Self::ExpectRequestHead
                | Self::ExpectRequestBody { .. }
                | Self::ExpectFacts { .. }
                | Self::ExpectForm { .. }
                | Self::ExpectAuthorizationServer(_),
                Event::ResponseHead { headers, .. },
            ) => {
                step.audit.decision = Outcome::Error;
                step.audit.reason = Some("host_replied");
                step.audit.detail = headers.single(":status").ok().flatten().map(Into::into);
                (Self::Replied, Flow::Forward)
            }
            // INVARIANT: whatever is not expected holds, for good.
            _ => (Self::Poisoned, Flow::Hold),
        }
    }
}

impl Step<'_> {
    fn read(&mut self, head: Head, body: &[u8]) -> (Phase, Flow) {
        match Asked::read(head, body, self.audit) {
            Ok(mut asked) => {
                asked.began = self.now;
                if let Ok(policies) = asked.head.policies() {
                    asked.counting.counts = policies.engine.unknown_counts().to_vec();
                }
                if asked.batch.is_some() && asked.head.caller.is_none() {
                    // What may go on has to be settled while the host still takes a body.
                    let message = "the token has to be verified first: send a message by itself";
                    let denial = Denial::new(Reason::IssuerUnavailable, message);
                    return self.deny_asked(denial, &asked);
                }
                if let Some(refused) = self.admit(&mut asked) {
                    return refused;
                }
                // Whoever writes as the gateway does has its body go on where it lies.
                if asked.body == body {
                    asked.body = Vec::new();
                }
                self.decide(Box::new(asked), Facts::default(), BTreeMap::new(), 0)
            }
            Err((denial, id)) => self.deny(denial, id.as_ref()),
        }
    }

    /// Takes out of a batch what the caller may not do; the answer when nothing of it goes on.
    fn admit(&mut self, asked: &mut Asked) -> Option<(Phase, Flow)> {
        let mut batch = asked.batch.take()?;
        match self.gateway.admit(asked, &mut batch, self.now, self.audit) {
            Admission::Some => {
                asked.set_batch(batch);
                None
            }
            Admission::Nothing(denial) => Some(self.deny(denial, None)),
            Admission::Refused(refusals) => {
                self.audit.decision = Outcome::Deny;
                self.audit.reason = Some("batch_refused");
                let reply = LocalReply::json(&Json::Array(refusals), self.origin.as_deref());
                Some(self.reply(reply))
            }
        }
    }

    /// Decides, with the calls that are still under way; or begins those that the decision lacks.
    fn decide(
        &mut self,
        asked: Box<Asked>,
        facts: Facts,
        mut calls: BTreeMap<CallId, Need>,
        rounds: usize,
    ) -> (Phase, Flow) {
        let (phase, flow) = self.decide_with(asked, facts, &mut calls, rounds);
        if let (Some(id), false) = (*self.id, matches!(phase, Phase::ExpectFacts { .. })) {
            // It is decided, whatever these would bring.
            self.gateway.calls.borrow_mut().leave(id, calls.into_keys());
        }
        (phase, flow)
    }

    fn decide_with(
        &mut self,
        mut asked: Box<Asked>,
        mut facts: Facts,
        under_way: &mut BTreeMap<CallId, Need>,
        mut rounds: usize,
    ) -> (Phase, Flow) {
        // An endpoint of several servers may have as much to ask of each.
        let servers = if asked.head.portal.is_some() { self.gateway.servers.len() } else { 1 };
        loop {
            let was_short = matches!(asked.goal, Some(Goal::Shortened(..)));
            let identified = match asked.head.caller {
                Some(_) => Ok(()),
                None => self.gateway.identify(&mut asked.head, &facts, self.now, self.audit),
            };
            let decided = identified
                .and_then(|()| self.gateway.lengthen(&mut asked, &facts, self.now, self.audit))
                .and_then(|()| self.gateway.log_level(&mut asked, self.now))
                .and_then(|()| {
                    self.gateway.prepare_known(&mut asked, self.now);
                    self.gateway.count(&mut asked, &facts, self.now, self.audit)?;
                    self.gateway.decide(&asked, &facts, self.now, self.audit)
                });
            if was_short && rounds > 0 && decided.is_ok() && !self.gateway.takes_late_bodies() {
                let message = "the names of this server have just been read; call again";
                return self.deny_asked(Denial::new(Reason::ServerUnreachable, message), &asked);
            }
            let mut needs = match decided {
                Ok(Verdict { upstream, filter_lists, exposure, injected, approved, bodyless }) => {
                    self.audit.decision = Outcome::Allow;
                    self.gateway.spend(approved);
                    if bodyless {
                        asked.body = Vec::new();
                        self.out.push(Effect::ReplaceRequestBody(Vec::new()));
                    }
                    self.replace_body(&mut asked);
                    self.out.push(Effect::SendUpstream(upstream));
                    let sent = Sent { filter_lists, exposure, injected, refused: Vec::new() };
                    return (Phase::ExpectResponseHead { asked, sent }, Flow::Forward);
                }
                Err(Stop::Shared(access)) => {
                    self.out.push(Effect::Shared(access));
                    let (calls, denied) = (mem::take(under_way), None);
                    let phase = Phase::ExpectShared { asked, facts, calls, rounds, denied };
                    return (phase, Flow::Hold);
                }
                Err(Stop::Deny(denial)) => return self.refuse(asked, denial),
                Err(Stop::Answer(reply)) => return self.answer(reply),
                Err(Stop::Need(needs)) => needs,
            };
            rounds += 1;
            needs.retain(|need| !under_way.values().any(|known| known == need));
            let may_go_on = rounds <= MOST_ROUNDS.saturating_mul(servers);
            let begun = may_go_on.then(|| self.begin(needs, &mut facts)).flatten();
            let Some(calls) = begun else {
                let denial = Denial::new(Reason::Internal, "the decision did not come to an end");
                return self.deny_asked(denial, &asked);
            };
            under_way.extend(calls.awaited);
            if !under_way.is_empty() {
                match asked.goal {
                    // What it must be is known when its server is.
                    Some(Goal::Shortened(..)) => {}
                    Some(Goal::Member(_)) if self.gateway.takes_late_bodies() => {}
                    Some(Goal::Member(_)) => {
                        self.gateway.prepare(&mut asked, None, self.now);
                        self.replace_body(&mut asked);
                    }
                    _ => self.replace_body(&mut asked),
                }
                self.out.extend(calls.made);
                let (calls, since) = (mem::take(under_way), self.now);
                return (Phase::ExpectFacts { asked, facts, calls, rounds, since }, Flow::Hold);
            }
        }
    }

    /// Goes on after something was read or written of the memory that workers share.
    fn counted(
        &mut self,
        asked: Box<Asked>,
        facts: Facts,
        calls: BTreeMap<CallId, Need>,
        rounds: usize,
        denied: Option<Denial>,
    ) -> (Phase, Flow) {
        match denied {
            None => self.decide(asked, facts, calls, rounds),
            Some(denial) => self.refuse(asked, denial),
        }
    }

    /// Refuses what was decided on, once it is counted where that is wanted.
    fn refuse(&mut self, mut asked: Box<Asked>, denial: Denial) -> (Phase, Flow) {
        if let Err(Stop::Shared(access)) = self.gateway.count_denied(&mut asked, &denial, self.now)
        {
            self.out.push(Effect::Shared(access));
            let (facts, calls, rounds) = (Facts::default(), BTreeMap::new(), 0);
            let denied = Some(denial);
            return (Phase::ExpectShared { asked, facts, calls, rounds, denied }, Flow::Hold);
        }
        self.deny_asked(denial, &asked)
    }

    /// Begins what meets these needs, all at once; facts that are known already go to `facts`.
    /// `None` when one of them cannot be met.
    fn begin(&mut self, needs: Vec<Need>, facts: &mut Facts) -> Option<Begin> {
        let id = *self.id.get_or_insert_with(|| self.gateway.calls.borrow_mut().next_exchange());
        let mut begin = Begin::default();
        for need in needs {
            match self.gateway.begin(&need, facts, id, self.now) {
                Begun::Call(id, call) => {
                    begin.made.push(Effect::Call { id, call });
                    begin.awaited.insert(id, need);
                }
                Begun::UnderWay(id) => {
                    begin.awaited.insert(id, need);
                }
                Begun::Known(fact) => facts.insert(need, fact),
                Begun::Impossible => {
                    self.gateway.calls.borrow_mut().leave(id, begin.awaited.into_keys());
                    return None;
                }
            }
        }
        Some(begin)
    }

    /// Hands the body over while the host still takes it; once.
    fn replace_body(&mut self, asked: &mut Asked) {
        if !asked.body.is_empty() {
            self.out.push(Effect::ReplaceRequestBody(mem::take(&mut asked.body)));
        }
    }

    fn response_head(
        &mut self,
        asked: Box<Asked>,
        sent: Sent,
        headers: &Headers,
        end: bool,
    ) -> (Phase, Flow) {
        let renewed =
            repeat::is_refusal(headers) && self.gateway.refused_by_server(&sent.injected, self.now);
        if renewed && self.can_repeat(&asked, &sent) {
            return self.begin_repeat(asked, sent, headers, end);
        }
        self.pass_on(asked, sent, headers, end, renewed)
    }

    /// Lets an answer pass. `renewed` when its server refused the credential and the next request may
    /// have another.
    fn pass_on(
        &mut self,
        asked: Box<Asked>,
        sent: Sent,
        headers: &Headers,
        end: bool,
        renewed: bool,
    ) -> (Phase, Flow) {
        let Sent { filter_lists, exposure, injected, refused } = sent;
        *self.mask = EchoMask::new(Echoes::of(injected.iter().chain(&refused)));
        let answer = Answer::read(headers, end);
        self.audit.upstream_status = answer.status;
        let limits = &self.gateway.limits;
        let Handling { failure, mut edit, mut filter } = answer.handling(
            filter_lists,
            Awaited::of(&asked),
            renewed,
            self.mask.is_some(),
            limits,
        );
        if renewed && self.audit.detail.is_none() {
            self.audit.detail =
                Some("the credential is forgotten; the next request fetches it".into());
        }
        if let Some(reason) = failure {
            fail(self.audit, reason);
            if reason == Reason::ServerUnreachable && !disclosure::forwarded(headers) {
                // As far as can be told, it was the host that answered.
                self.audit.upstream_status = None;
            }
        }
        if let Some(origin) = &*self.origin {
            cors::edit(origin, edit.get_or_insert_default());
        }
        let mut exposing = None;
        if let Some(mut exposure) = exposure {
            if let Some(key) = exposure.session.as_ref().filter(|_| answer.status == Some(404)) {
                // The client cannot tell that this is not about its own session.
                self.gateway.peers.borrow_mut().forget(key);
                let ended = answer.session_ended(&Awaited::of(&asked));
                fail(self.audit, Reason::ServerUnreachable);
                (edit, filter) = (ended.edit, ended.filter);
            } else if exposure.resumes && filter.is_none() && !answer.is_stream() {
                let ended = answer.not_resumed(&Awaited::of(&asked));
                fail(self.audit, Reason::ServerUnreachable);
                (edit, filter) = (ended.edit, ended.filter);
            }
            if answer.is_stream() {
                self.gateway.name_session(&mut exposure, &asked);
            }
            let edit = edit.get_or_insert_default();
            edit.remove.push("mcp-session-id".into());
            // What policy takes out of a stream is named as its server names it.
            let is_filtered = filter_lists && failure.is_none();
            if filter.is_none() || is_filtered {
                exposing = answer.exposing(exposure, asked.message.as_ref(), limits, edit);
            }
        } else {
            self.seal_session(&asked, headers, &mut edit);
        }
        disclosure::remove(headers, &mut edit);
        if let Some(mask) = &mut *self.mask {
            mask.mask_head(headers, &mut edit);
            self.audit.credential_echoed |= mask.has_found();
        }
        self.out.extend(edit.map(Effect::EditResponse));
        let phase = match (filter, exposing) {
            (Some(filter), exposing) => Phase::FilterResponse { asked, filter, exposing },
            (None, Some(filter)) => Phase::ExposeResponse { filter },
            (None, None) => Phase::Proxied,
        };
        (phase, Flow::Forward)
    }

    /// Deals with what a server of the legacy era asks in an answer to a modern client: the answer for
    /// the client, when it is the client's turn. What cannot be handed on the server is told.
    fn questions(&mut self, filter: &mut ExposureFilter) -> Option<Vec<u8>> {
        for (question, place) in filter.questions() {
            let exposure = filter.exposure();
            let asked =
                place.and_then(|place| self.gateway.ask_client(exposure, &question, &place));
            if asked.is_some() {
                self.audit.detail = Some(format!("the server asks: {}", question.method()));
                // Whatever follows comes again when the call goes on.
                filter.close();
                return asked;
            }
            let need = self.gateway.decline(exposure, &question, self.now);
            let call = need.and_then(|need| self.gateway.begin_in_background(need, self.now));
            self.out.extend(call.map(|(id, call)| Effect::Call { id, call }));
        }
        None
    }

    /// Answers with what a server asks, in place of an answer of which nothing has gone on.
    fn answer_asked(&mut self, body: Vec<u8>) -> (Phase, Flow) {
        self.reply(LocalReply::written_json(body, self.origin.as_deref()))
    }

    /// Masks what goes on of a piece of the response's body: what the effects from `before` on put in
    /// its place, or else the piece itself.
    fn mask_body(&mut self, chunk: &[u8], end: bool, before: usize) {
        let Some(mask) = &mut *self.mask else { return };
        let mut effects = self.out.iter_mut().skip(before);
        let replaced =
            effects.find(|effect| matches!(effect, Effect::ReplaceChunk(_) | Effect::Reply(_)));
        match replaced {
            // A question of the server, as a whole answer.
            Some(Effect::Reply(reply)) => {
                if let Some(masked) = mask.masked(&reply.body) {
                    reply.body = masked;
                }
            }
            Some(Effect::ReplaceChunk(bytes)) => {
                if let Some(masked) = mask.push(bytes, end) {
                    *bytes = masked;
                }
            }
            Some(_) => {}
            None => self.out.extend(mask.push(chunk, end).map(Effect::ReplaceChunk)),
        }
        self.audit.credential_echoed |= mask.has_found();
    }

    /// Answers a client that asks where to log in, which needs no token and is for every page.
    fn metadata(&mut self, headers: &Headers) -> Option<(Phase, Flow)> {
        let gateway = self.gateway;
        let scopes = |name: &str| gateway.required_scopes(name);
        let answer = gateway.identity.metadata(headers, scopes)?;
        let method = headers.single(":method").ok().flatten().unwrap_or_default();
        self.audit.mcp_method = Some(method.chars().take(16).collect());
        self.audit.detail = Some("protected resource metadata".into());
        Some(match answer {
            Err(denial) => self.deny(denial, None),
            Ok(reply) => {
                self.audit.decision = Outcome::Allow;
                self.reply(reply)
            }
        })
    }

    /// Shows the client the session id of its server in the form that only this client can use.
    fn seal_session(&self, asked: &Asked, headers: &Headers, edit: &mut Option<HeadEdit>) {
        const FIELD: &str = "mcp-session-id";
        let (sessions, head) = (&self.gateway.sessions, &asked.head);
        if matches!(sessions, Sessions::Unbound) || !headers.contains(FIELD) {
            return;
        }
        let edit = edit.get_or_insert_default();
        let id = headers.single(FIELD).ok().flatten();
        // The usual answer repeats the id of the request, whose form the client has sent.
        let known = head.session.as_ref().filter(|_| id == head.server_session.as_deref());
        let sealed = known
            .cloned()
            .or_else(|| sessions.seal(&head.caller.as_ref()?.owner, &head.server, id?));
        match sealed {
            Some(sealed) => edit.set.push((FIELD.into(), FieldValue::Public(sealed))),
            None => edit.remove.push(FIELD.into()),
        }
    }

    /// Answers a browser that asks what a page may do, which needs no token.
    fn preflight(&mut self, headers: &Headers) -> Option<(Phase, Flow)> {
        let reply = match self.origin.as_deref() {
            Some(origin) => cors::preflight(headers, origin)?,
            None => cors::options(headers)?,
        };
        self.audit.decision = Outcome::Allow;
        self.audit.mcp_method = Some("OPTIONS".into());
        Some(self.reply(reply))
    }

    /// Answers what the gateway can answer itself.
    fn answer(&mut self, mut reply: LocalReply) -> (Phase, Flow) {
        self.audit.decision = Outcome::Allow;
        reply.headers.extend(self.origin.as_deref().map(cors::fields).unwrap_or_default());
        self.reply(reply)
    }

    /// Answers the client; what still arrives of the request is held.
    fn reply(&mut self, reply: LocalReply) -> (Phase, Flow) {
        self.out.push(Effect::Reply(reply));
        (Phase::Replied, Flow::Hold)
    }

    fn deny_asked(&mut self, denial: Denial, asked: &Asked) -> (Phase, Flow) {
        if let Some(batch) = &asked.batch {
            let body = batch.errors(&denial);
            self.note(&denial);
            let reply = denial.into_reply_with(body, self.origin.as_deref());
            return self.reply(reply);
        }
        let id = asked.message.as_ref().and_then(Message::answer_id).cloned();
        self.deny(denial, id.as_ref())
    }

    fn deny(
        &mut self,
        denial: Denial,
        id: Option<&toolgate_protocol::jsonrpc::Id>,
    ) -> (Phase, Flow) {
        self.note(&denial);
        self.reply(denial.into_reply(id, self.origin.as_deref()))
    }

    fn note(&mut self, denial: &Denial) {
        let reason = denial.reason();
        self.audit.decision = match reason {
            Reason::Credential
            | Reason::IssuerUnavailable
            | Reason::ApprovalUnavailable
            | Reason::PoliciesUnavailable
            | Reason::Internal
            | Reason::NotCounted
            | Reason::NotConfigured
            | Reason::ServerUnreachable
            | Reason::ServerAnswer
            | Reason::ServerUnauthorized
            | Reason::ServerTooLarge => Outcome::Error,
            _ => Outcome::Deny,
        };
        self.audit.reason.get_or_insert(reason.as_str());
    }
}

fn refuse_unconfigured(
    phase: Phase,
    audit: &mut AuditRecord,
    out: &mut Vec<Effect>,
) -> (Phase, Flow) {
    if let Phase::Replied = phase {
        // Only the answer below can still pass.
        return (Phase::Replied, Flow::Forward);
    }
    fail(audit, Reason::NotConfigured);
    let message = "the gateway has no valid configuration; its log says why";
    out.push(Effect::Reply(Denial::new(Reason::NotConfigured, message).into_reply(None, None)));
    (Phase::Replied, Flow::Hold)
}

fn fail(audit: &mut AuditRecord, reason: Reason) {
    audit.decision = Outcome::Error;
    audit.reason = Some(reason.as_str());
}

/// An element of a list as policy knows it.
fn listed<'a>(kind: ListKind, server: &'a str, name: &'a str) -> Target<'a> {
    match kind {
        ListKind::Tools => Target::Tool { server, name, arguments: &Json::Null },
        ListKind::Prompts => Target::Prompt { server, name },
        ListKind::Resources | ListKind::ResourceTemplates => Target::Resource { server, uri: name },
    }
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
