//! One HTTP request in the proxy: callbacks become events, effects become host calls.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;
use toolgate_core::{
    CallId, CallOutcome, Effect, Event, Exchange, Flow, Gateway, HeadEdit, Headers, HttpCall,
    LocalReply, Timestamp, UpstreamRequest,
};

use crate::abi::{self, Buffer, Map, Status};
use crate::calls;
use crate::host::{Host, Unroutable};
use crate::lost::{self, Beginning, Lost, send_reply};

/// One request and its response.
pub(crate) struct HttpExchange {
    exchange: Exchange,
    gateway: Option<Rc<Gateway>>,
    host: Host,
    calls: BTreeMap<u32, CallId>,
    /// Whether this context saw the request begin. One that did not belongs to an exchange that is lost.
    beginning: Rc<Beginning>,
    /// Kong: host of the Service that the request was routed to.
    service_host: Option<String>,
    /// Whether the gateway has seen all of the request.
    request_ended: bool,
    /// Whether a request could not be prepared for its server: it must not go on.
    unsendable: bool,
    /// What is still to come of a response body whose length was given.
    response_left: Option<usize>,
}

impl HttpExchange {
    pub(crate) fn new(gateway: Option<Rc<Gateway>>, host: Host) -> Self {
        Self {
            exchange: Exchange::new(gateway.clone()),
            gateway,
            host,
            calls: BTreeMap::new(),
            beginning: Beginning::newborn(),
            service_host: None,
            request_ended: false,
            unsendable: false,
            response_left: None,
        }
    }

    /// Handles an event and carries out its effects.
    fn handle(&mut self, event: Event<'_>) -> Flow {
        let mut effects = Vec::new();
        let mut flow = self.exchange.handle(event, now(), &mut effects);
        // A call that could not even be made is over at once, which has effects in turn.
        while let Some(failed) = self.carry_out(&mut effects) {
            let event = Event::CallDone { id: failed, outcome: CallOutcome::Failed };
            flow = self.exchange.handle(event, now(), &mut effects);
        }
        if self.unsendable { Flow::Hold } else { flow }
    }

    /// Carries effects out; returns the call that failed at once, if one did.
    fn carry_out(&mut self, effects: &mut Vec<Effect>) -> Option<CallId> {
        let mut failed = None;
        for effect in effects.drain(..) {
            match effect {
                Effect::Call { id, call } => match dispatch(self.host, &call) {
                    Some(token) => {
                        self.calls.insert(token, id);
                    }
                    None => failed = Some(id),
                },
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
                    send_reply(&reply);
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
                Effect::Audit(record) => self.host.audit(&record),
            }
        }
        failed
    }
}

impl HttpExchange {
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

    /// Whether this context began in the middle of an exchange.
    fn is_lost(&mut self) -> bool {
        if self.beginning.was_seen() || !self.host.loses_contexts() {
            return false;
        }
        if self.beginning.lost() == Lost::Found {
            log::error!(
                "an exchange was lost when a filter of this worker failed: nothing of it passes"
            );
        }
        self.poison();
        true
    }
}

impl Context for HttpExchange {
    fn on_http_call_response(
        &mut self,
        token: u32,
        _headers: usize,
        _size: usize,
        _trailers: usize,
    ) {
        if self.is_lost() {
            self.share_record();
            return self.beginning.refuse();
        }
        let Some(id) = self.calls.remove(&token) else { return };
        let headers = abi::headers(Map::CallResponse).unwrap_or_default();
        let headers = Headers::from_pairs(headers);
        let status =
            headers.single(":status").ok().flatten().and_then(|status| status.parse().ok());
        let outcome = match status {
            Some(status) => CallOutcome::Response {
                status,
                body: abi::buffer(Buffer::CallResponseBody).unwrap_or_default(),
            },
            None => CallOutcome::Failed,
        };
        if self.handle(Event::CallDone { id, outcome }) == Flow::Forward
            && let Err(Status(status)) = abi::resume_request()
        {
            log::error!("a request could not be resumed: status {status}");
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
        let end = self.host.is_bodyless(&headers, end);
        self.request_ended = end;
        let reads_source = self.gateway.as_ref().is_some_and(|gateway| gateway.reads_source());
        let source = if reads_source { self.host.source() } else { None };
        self.service_host = self.host.service_host();
        match self.handle(Event::RequestHead { headers, source, end }) {
            Flow::Forward => Action::Continue,
            Flow::Hold if end || self.host.pauses_for_body() => Action::Pause,
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
        let most = self.gateway.as_ref().map_or(0, |gateway| gateway.request_bytes());
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
                let setting = self.host.body_memory_setting();
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
        let _forwarded_either_way = self.handle(Event::ResponseHead { headers, end });
        self.share_record();
        Action::Continue
    }

    fn on_http_response_body(&mut self, size: usize, end: bool) -> Action {
        if self.is_lost() {
            self.beginning.response_body(size);
            return Action::Continue;
        }
        // One host does not always say which piece is the last; the length that was given does.
        self.response_left = self.response_left.map(|left| left.saturating_sub(size));
        let end = end || self.response_left == Some(0);
        if self.exchange.reads_response() {
            let chunk = abi::buffer(Buffer::ResponseBody).unwrap_or_default();
            let _forwarded_either_way = self.handle(Event::ResponseBody { chunk: &chunk, end });
        }
        Action::Continue
    }

    fn on_log(&mut self) {
        let _record_says_so = self.is_lost();
        let _nothing_to_hold = self.handle(Event::Closed);
    }
}

impl Drop for HttpExchange {
    fn drop(&mut self) {
        self.calls.keys().copied().for_each(calls::abandon);
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

fn now() -> Timestamp {
    // A host without a clock leaves the epoch, at which every token and lease lies in the future or
    // is refused.
    Timestamp(Duration::from_nanos(abi::current_time().unwrap_or(0)))
}

fn dispatch(host: Host, call: &HttpCall) -> Option<u32> {
    let mut headers: Vec<(&str, &str)> =
        vec![(":method", call.method), (":path", &call.path), (":authority", &call.authority)];
    headers.extend(host.call_scheme(call).map(|scheme| (":scheme", scheme)));
    headers.extend(call.headers.iter().map(|(name, value)| (*name, value.expose())));
    let body = call.body.as_ref().map(|body| body.expose().as_bytes());
    match calls::make(&call.cluster, headers, body, call.timeout) {
        Ok(token) => Some(token),
        Err(Status(status)) => {
            log::error!("a call to {} could not be made: status {status}", call.cluster);
            None
        }
    }
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
