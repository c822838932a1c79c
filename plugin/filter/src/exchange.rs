//! One HTTP request in the proxy: callbacks become events, effects become host calls.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;
use toolgate_core::{
    CallId, CallOutcome, Effect, Event, Exchange, ExchangeId, FinishedCall, Flow, HeadEdit,
    Headers, HttpCall, LocalReply, Timestamp, UpstreamRequest,
};

use crate::abi::{self, Buffer, Map, Status};
use crate::calls;
use crate::host::{Host, Unroutable};
use crate::lost::{self, Beginning, Lost, send_reply};
use crate::shared;
use crate::worker::{self, Worker};

/// The context of one request and its response.
pub(crate) struct HttpExchange {
    context: u32,
    worker: Rc<Worker>,
    /// Shared with the worker while it waits for calls.
    state: Rc<RefCell<Exchanging>>,
    /// As what the worker knows it, if it does.
    known_as: Option<ExchangeId>,
    /// Whether this context saw the request begin. One that did not belongs to an exchange that is lost.
    beginning: Rc<Beginning>,
    /// Kong: calls of this exchange that are not over.
    calls: BTreeSet<u32>,
    /// Whether the gateway has seen all of the request.
    request_ended: bool,
    /// What is still to come of a response body whose length was given.
    response_left: Option<usize>,
}

/// The exchange and what its effects act on.
pub(crate) struct Exchanging {
    exchange: Exchange,
    host: Host,
    /// Kong: host of the Service that the request was routed to.
    service_host: Option<String>,
    /// Whether a request could not be prepared for its server: it must not go on.
    unsendable: bool,
    /// Whether the client was given an answer of the filter's.
    replied: bool,
}

impl HttpExchange {
    pub(crate) fn new(context: u32, worker: Rc<Worker>) -> Self {
        let state = Exchanging {
            exchange: Exchange::new(worker.gateway.clone()),
            host: worker.host,
            service_host: None,
            unsendable: false,
            replied: false,
        };
        Self {
            context,
            worker,
            state: Rc::new(RefCell::new(state)),
            known_as: None,
            beginning: Beginning::newborn(),
            calls: BTreeSet::new(),
            request_ended: false,
            response_left: None,
        }
    }

    /// Handles an event, carries out its effects and makes its calls.
    fn handle(&mut self, event: Event<'_>) -> Flow {
        let Ok(mut state) = self.state.try_borrow_mut() else {
            log::error!("an exchange was called from within itself");
            return Flow::Hold;
        };
        let (mut flow, mut calls) = state.handle(event);
        drop(state);
        // A call that could not even be made is over at once, which has effects in turn.
        while !calls.is_empty() {
            let failed = self.worker.make(std::mem::take(&mut calls), &mut self.calls);
            for id in failed {
                let Some(gateway) = &self.worker.gateway else { continue };
                let done = gateway.finish_call(id, CallOutcome::Failed, now());
                let Ok(mut state) = self.state.try_borrow_mut() else { continue };
                let (next, more) = state.call_done(&done);
                flow = next;
                calls.extend(more);
            }
        }
        self.note_waiting();
        flow
    }

    fn note_waiting(&mut self) {
        if !self.host().wakes_others() {
            return;
        }
        let waits_as = self.state.try_borrow().ok().and_then(|state| state.exchange.waits_as());
        if let Some(id) = waits_as
            && self.known_as.replace(id) != Some(id)
        {
            self.worker.waits(id, self.context, &self.state);
        }
    }

    fn host(&self) -> Host {
        self.worker.host
    }

    fn holds_response(&self) -> bool {
        self.state.try_borrow().is_ok_and(|state| state.exchange.holds_response())
    }

    fn has_replied(&self) -> bool {
        self.state.try_borrow().is_ok_and(|state| state.replied)
    }

    fn share_record(&mut self) {
        if let Ok(mut state) = self.state.try_borrow_mut() {
            state.share_record();
        }
    }

    /// Whether this context began in the middle of an exchange.
    fn is_lost(&mut self) -> bool {
        if self.beginning.was_seen() || !self.host().loses_contexts() {
            return false;
        }
        if self.beginning.lost() == Lost::Found {
            log::error!(
                "an exchange was lost when a filter of this worker failed: nothing of it passes"
            );
        }
        if let Ok(mut state) = self.state.try_borrow_mut() {
            state.poison();
        }
        true
    }
}

impl Exchanging {
    /// Handles an event and carries out its effects, but for the calls: they are returned.
    fn handle(&mut self, event: Event<'_>) -> (Flow, Vec<(CallId, HttpCall)>) {
        let mut effects = Vec::new();
        let mut flow = self.exchange.handle(event, now(), &mut effects);
        while let Some(Effect::Shared(access)) =
            effects.pop_if(|effect| matches!(effect, Effect::Shared(_)))
        {
            let done = shared::access(&access, self.host);
            flow = self.exchange.handle(done, now(), &mut effects);
        }
        let calls = self.carry_out(effects);
        (if self.unsendable { Flow::Hold } else { flow }, calls)
    }

    /// Hands over a call that is finished.
    pub(crate) fn call_done(&mut self, done: &FinishedCall) -> (Flow, Vec<(CallId, HttpCall)>) {
        self.handle(Event::CallDone(done))
    }

    fn carry_out(&mut self, effects: Vec<Effect>) -> Vec<(CallId, HttpCall)> {
        let mut calls = Vec::new();
        for effect in effects {
            match effect {
                // Done when it came.
                Effect::Shared(_) => {}
                Effect::Call { id, call } => calls.push((id, call)),
                Effect::ReplaceRequestBody(bytes) => {
                    if let Err(status) = abi::replace_buffer(Buffer::RequestBody, &bytes) {
                        self.fail(&status.into());
                    }
                }
                Effect::SendUpstream(request) if !self.unsendable => {
                    self.share_record();
                    if let Err(reason) = self.send_upstream(&request) {
                        self.fail(&reason);
                    }
                }
                Effect::SendUpstream(_) => {}
                Effect::Reply(reply) => {
                    self.share_record();
                    self.replied = true;
                    send_reply(&reply);
                }
                Effect::Answer(reply) => {
                    self.share_record();
                    self.replied = true;
                    if let Err(Status(status)) =
                        abi::reply(reply.status, &reply.headers, &reply.body)
                    {
                        log::error!("an answer could not be sent: status {status}");
                    }
                }
                Effect::EditResponse(edit) => {
                    if let Err(Status(status)) = edit_headers(Map::Response, &edit) {
                        log::error!("a response could not be edited: status {status}");
                    }
                }
                Effect::ReplaceChunk(bytes) => {
                    if let Err(Status(status)) = abi::replace_buffer(Buffer::ResponseBody, &bytes) {
                        log::error!("a response body could not be replaced: status {status}");
                    }
                }
                Effect::Audit(record) => self.host.audit(&record, self.exchange.audit_fields()),
            }
        }
        calls
    }

    fn send_upstream(&self, request: &UpstreamRequest) -> Result<(), Unroutable> {
        edit_headers(Map::Request, &request.edit)?;
        self.host.route(request, self.service_host.as_deref())
    }

    /// Half an edit must not go out: the client gets an answer instead.
    fn fail(&mut self, reason: &Unroutable) {
        log::error!("a request could not be prepared for its server: {reason}");
        if !self.unsendable {
            self.unsendable = true;
            self.poison();
            self.share_record();
            lost::reply();
        }
    }

    fn share_record(&mut self) {
        if self.host.shares_records_early() {
            self.host.share_record(&self.exchange.record_so_far(now()));
        }
    }

    /// Tells the gateway what cannot come now: it holds for good, and the record says `internal`.
    fn poison(&mut self) {
        let _held = self.exchange.handle(Event::RequestTrailers, now(), &mut Vec::new());
    }
}

impl Context for HttpExchange {
    fn on_http_call_response(
        &mut self,
        token: u32,
        _headers: usize,
        size: usize,
        _trailers: usize,
    ) {
        if self.is_lost() {
            self.share_record();
            return self.beginning.refuse();
        }
        self.calls.remove(&token);
        let Some((worker, id)) = self.worker.take(token) else { return };
        let Some(gateway) = &worker.gateway else { return };
        let done = gateway.finish_call(id, worker::outcome(size), now());
        if self.handle(Event::CallDone(&done)) == Flow::Forward {
            worker::resume();
        }
    }
}

impl HttpContext for HttpExchange {
    fn on_http_request_headers(&mut self, _count: usize, end: bool) -> Action {
        self.beginning.is_seen();
        let Ok(headers) = abi::headers(Map::Request) else {
            send_reply(&LocalReply {
                status: 400,
                headers: vec![("content-type", "application/json".into())],
                body: lost::INTERNAL_ERROR.to_vec(),
            });
            return Action::Pause;
        };
        let headers = Headers::from_pairs(headers);
        let end = self.host().is_bodyless(&headers, end);
        self.request_ended = end;
        let gateway = self.worker.gateway.as_ref();
        let reads_source = gateway.is_some_and(|gateway| gateway.reads_source());
        let source = if reads_source { self.host().source() } else { None };
        if let Ok(mut state) = self.state.try_borrow_mut() {
            state.service_host = self.host().service_host();
        }
        let questions = gateway.map(|gateway| gateway.host_questions());
        if let Some(facts) = questions.and_then(|questions| self.host().facts(&questions)) {
            let _held = self.handle(Event::HostFacts(facts));
        }
        match self.handle(Event::RequestHead { headers, source, end }) {
            Flow::Forward => Action::Continue,
            Flow::Hold if end || self.host().pauses_for_body() => Action::Pause,
            Flow::Hold => Action::Continue,
        }
    }

    fn on_http_request_body(&mut self, size: usize, end: bool) -> Action {
        if self.is_lost() {
            self.share_record();
            self.beginning.refuse();
            return Action::Pause;
        }
        if self.request_ended {
            // The host goes on handing over what is held; a decision has been made or is under way.
            return self.hand_over(&[], end);
        }
        // The host holds the pieces; the gateway reads them when they are complete or too many.
        let most = self.worker.gateway.as_ref().map_or(0, |gateway| gateway.request_bytes());
        if !end && size <= most {
            return Action::Pause;
        }
        self.request_ended = true;
        match abi::buffer(Buffer::RequestBody) {
            Some(body) => self.hand_over(&body, end),
            None if size == 0 => self.hand_over(&[], end),
            // The host has a body that it cannot show.
            None if size > most => self.hand_over(&vec![0; most.saturating_add(1)], end),
            None => {
                let setting = self.host().body_memory_setting();
                log::error!("a request body of {size} bytes could not be read: raise {setting}");
                let _refused = self.handle(Event::RequestBodyWithheld { setting });
                Action::Pause
            }
        }
    }

    fn on_http_request_trailers(&mut self, _count: usize) -> Action {
        if self.handle(Event::RequestTrailers) == Flow::Forward {
            Action::Continue
        } else {
            Action::Pause
        }
    }

    fn on_http_response_headers(&mut self, _count: usize, end: bool) -> Action {
        if self.is_lost() {
            self.share_record();
            self.beginning.response_head();
            return Action::Continue;
        }
        let headers = Headers::from_pairs(abi::headers(Map::Response).unwrap_or_default());
        self.response_left =
            headers.single("content-length").ok().flatten().and_then(|length| length.parse().ok());
        let had_replied = self.has_replied();
        let _forwarded_either_way = self.handle(Event::ResponseHead { headers, end });
        self.share_record();
        let is_answered = self.has_replied() && !had_replied;
        if self.holds_response() || is_answered { Action::Pause } else { Action::Continue }
    }

    fn on_http_response_body(&mut self, size: usize, end: bool) -> Action {
        if self.is_lost() {
            self.beginning.response_body(size);
            return Action::Continue;
        }
        // One host does not always say which piece is the last; the length that was given does.
        self.response_left = self.response_left.map(|left| left.saturating_sub(size));
        let end = end || self.response_left == Some(0);
        if self.state.try_borrow().is_ok_and(|state| state.exchange.reads_response()) {
            let chunk = abi::buffer(Buffer::ResponseBody).unwrap_or_default();
            let held = self.holds_response();
            let flow = self.handle(Event::ResponseBody { chunk: &chunk, end });
            // What held the head back may have become an answer of its own, which then goes instead.
            if self.holds_response() || (held && flow == Flow::Hold) {
                return Action::Pause;
            }
        }
        Action::Continue
    }

    /// No trailers of an answer go on: MCP has none, and a server could show its credential there.
    fn on_http_response_trailers(&mut self, _count: usize) -> Action {
        for (name, _) in abi::headers(Map::ResponseTrailers).unwrap_or_default() {
            if let Err(Status(status)) = abi::remove_header(Map::ResponseTrailers, &name) {
                log::error!("a trailer of an answer could not be removed: status {status}");
            }
        }
        // They stand for the end of the body.
        if !self.is_lost() && self.holds_response() {
            let had_replied = self.has_replied();
            let _its_end_was_told = self.handle(Event::ResponseBody { chunk: &[], end: true });
            let is_answered = self.has_replied() && !had_replied;
            if self.holds_response() || is_answered {
                return Action::Pause;
            }
        }
        Action::Continue
    }

    fn on_log(&mut self) {
        let _record_says_so = self.is_lost();
        let _nothing_to_hold = self.handle(Event::Closed);
        self.worker.record_metrics();
        if let Some(id) = self.known_as.take() {
            self.worker.forget(id);
        }
    }
}

impl Drop for HttpExchange {
    fn drop(&mut self) {
        for token in std::mem::take(&mut self.calls) {
            self.worker.take(token);
            calls::abandon(token);
        }
    }
}

impl HttpExchange {
    fn hand_over(&mut self, chunk: &[u8], end: bool) -> Action {
        match self.handle(Event::RequestBody { chunk, end }) {
            Flow::Forward => Action::Continue,
            Flow::Hold => Action::Pause,
        }
    }
}

/// What time it is.
pub(crate) fn now() -> Timestamp {
    // A host without a clock leaves the epoch, at which every token and lease lies in the future or
    // is refused.
    Timestamp(Duration::from_nanos(abi::current_time().unwrap_or(0)))
}

fn edit_headers(map: Map, edit: &HeadEdit) -> Result<(), Status> {
    for name in &edit.remove {
        match abi::remove_header(map, name) {
            // A field that is not there is as good as removed.
            Ok(()) | Err(Status::NOT_FOUND) => {}
            Err(status) => return Err(status),
        }
    }
    for (name, value) in &edit.set {
        abi::set_header(map, name, value.expose())?;
    }
    Ok(())
}
