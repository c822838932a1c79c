//! How Envoy moves an exchange through the filter: the filter manager around one wasm filter and the router.
//!
//! Follows envoy-host.md and `filter_manager.cc`, `context.cc` (Envoy) and `context.cc` (proxy-wasm-cpp-host).

use super::http::{CallOutcome, Headers, HttpRequest, Step, UpstreamRequest};
use super::vm::{Call, Exchange, Hold, Inbound, Phase, ROOT, Stage};
use super::{Called, Host};

impl Host {
    pub(super) fn envoy_exchange(&self, request: HttpRequest) -> Exchange {
        let headers = request.headers.clone().lowercase_names();
        let mut exchange = Exchange::new(request, headers, self.vm().now);
        let HttpRequest { body, trailers, .. } = &exchange.original;
        // envoy-host.md: per chunk, then n=0|total, eos=true. Trailers come instead of the end.
        let last = body.len().saturating_sub(1);
        let separate_end = self.vm().settings.envoy.end_in_empty_chunk;
        for (index, chunk) in body.iter().enumerate() {
            let end = index == last && trailers.is_none() && !separate_end;
            exchange.request.inbox.push_back(Inbound::Data { chunk: chunk.clone(), end });
        }
        match trailers {
            Some(trailers) => {
                exchange
                    .request
                    .inbox
                    .push_back(Inbound::Trailers(trailers.clone().lowercase_names()));
            }
            None if !body.is_empty() && separate_end => {
                exchange.request.inbox.push_back(Inbound::Data { chunk: Vec::new(), end: true });
            }
            None => {}
        }
        exchange
    }

    pub(super) fn envoy_step(&mut self, id: u32) -> Step {
        loop {
            if let Some(call) = self.vm_mut().announce_call(id) {
                return Step::Call(call);
            }
            let calls = self.vm().calls_of(id);
            let Some(exchange) = self.open_exchange(id) else { return Step::Done };
            if exchange.stage == Stage::Headers {
                exchange.stage = Stage::Proxy;
                self.envoy_request_headers(id);
                continue;
            }
            if !exchange.responding
                && exchange.request.hold != Hold::All
                && let Some(inbound) = exchange.request.inbox.pop_front()
            {
                match inbound {
                    Inbound::Data { chunk, end } => self.envoy_request_data(id, chunk, end),
                    Inbound::Trailers(trailers) => self.envoy_request_trailers(id, trailers),
                }
                continue;
            }
            if exchange.upstream.complete && !exchange.upstream_announced && !exchange.responding {
                exchange.upstream_announced = true;
                return Step::Upstream(exchange.upstream.clone());
            }
            let response = &exchange.response;
            let ended = response.ended
                || response
                    .inbox
                    .iter()
                    .any(|data| matches!(data, Inbound::Data { end: true, .. }));
            let waiting = exchange.upstream_announced && !(ended && exchange.responding);
            return if waiting { Step::AwaitUpstream } else { Step::Held { calls } };
        }
    }

    // === request ===

    fn envoy_request_headers(&mut self, id: u32) {
        if self.failed {
            return self.fail_stream(id);
        }
        if !self.create_context(id) {
            self.instance_trapped();
            return self.fail_stream(id);
        }
        let Some(exchange) = self.open_exchange(id) else { return };
        let end = exchange.request.inbox.is_empty();
        exchange.request.visible = true;
        exchange.request.ended = end;
        let arguments = [exchange.request.headers.count().cast_unsigned(), u32::from(end)];
        let called = self.callback(id, Phase::RequestHeaders, "on_request_headers", &arguments);
        if !self.envoy_called(id, called) {
            return;
        }
        let pause = self.headers_pause();
        let Some(exchange) = self.open_exchange(id) else { return };
        if called.continues() {
            exchange.request.visible = false;
            release_request(exchange);
        } else {
            exchange.request.hold = pause;
        }
    }

    fn envoy_request_data(&mut self, id: u32, chunk: Vec<u8>, end: bool) {
        if self.failed {
            return self.fail_stream(id);
        }
        let limit = self.buffer_limit();
        let Some(exchange) = self.open_exchange(id) else { return };
        let request = &mut exchange.request;
        request.ended = end;
        if request.buffering {
            request.held.extend(chunk);
            request.chunk = Some(Vec::new());
            if request.held.len() > limit {
                return self.request_too_large(id);
            }
        } else {
            request.chunk = Some(chunk);
        }
        let size = size_of(request.visible_body());
        let called =
            self.callback(id, Phase::RequestBody, "on_request_body", &[size, u32::from(end)]);
        if !self.envoy_called(id, called) {
            return;
        }
        let Some(exchange) = self.open_exchange(id) else { return };
        let request = &mut exchange.request;
        request.buffering = false;
        request.held.extend(request.chunk.take().unwrap_or_default());
        if called.continues() {
            release_request(exchange);
        } else {
            request.buffering = true;
            request.hold = Hold::AtFilter;
            if request.held.len() > limit {
                self.request_too_large(id);
            }
        }
    }

    fn envoy_request_trailers(&mut self, id: u32, trailers: Headers) {
        if self.failed {
            return self.fail_stream(id);
        }
        let Some(exchange) = self.open_exchange(id) else { return };
        let count = trailers.count().cast_unsigned();
        exchange.request.trailers = Some(trailers);
        exchange.request.ended = true;
        let called = self.callback(id, Phase::RequestTrailers, "on_request_trailers", &[count]);
        if !self.envoy_called(id, called) {
            return;
        }
        let Some(exchange) = self.open_exchange(id) else { return };
        if called.continues() {
            release_request(exchange);
        } else {
            exchange.request.hold = Hold::AtFilter;
        }
    }

    fn request_too_large(&mut self, id: u32) {
        let details = "request_payload_too_large";
        self.envoy_local_reply(
            id,
            413,
            details,
            &Headers::new(),
            b"Payload Too Large".to_vec(),
            false,
        );
    }

    pub(super) fn resume_request(&mut self, id: u32) {
        let Some(exchange) = self.open_exchange(id) else { return };
        let hold = exchange.request.hold;
        if exchange.responding || hold == Hold::Open {
            return;
        }
        release_request(exchange);
        if hold == Hold::All {
            // The body arrived meanwhile and is raised from this filter on, in one piece.
            join_data(&mut exchange.request.inbox);
        }
    }

    // === calls ===

    /// Calls belong to the root context: they are answered even when the stream is gone.
    pub(super) fn envoy_answer(&mut self, call: &Call, outcome: CallOutcome) -> bool {
        if self.failed {
            return false;
        }
        let outcome = router_answer(outcome);
        let (count, size) = match &outcome {
            CallOutcome::Response { headers, body } => {
                (headers.count().cast_unsigned(), length(body))
            }
            _ => (0, 0),
        };
        let token = call.request.token;
        self.note(call.context, "on_http_call_response", &[token, count, size, 0]);
        self.vm_mut().answered = Some(outcome);
        let arguments = [ROOT, token, count, size, 0];
        let called =
            self.call(ROOT, Phase::CallResponse, "proxy_on_http_call_response", &arguments);
        self.vm_mut().answered = None;
        if called == Called::Trapped {
            if let Some(exchange) = self.vm_mut().exchanges.get_mut(&call.context) {
                exchange.observed.trapped = true;
            }
            // The stream itself is not told: it stays held, which is closed enough.
            self.instance_trapped();
        }
        self.run_deferred();
        true
    }

    // === settings ===

    pub(super) fn headers_pause(&self) -> Hold {
        if self.vm().settings.envoy.allow_on_headers_stop_iteration {
            Hold::AtFilter
        } else {
            Hold::All
        }
    }

    pub(super) fn buffer_limit(&self) -> usize {
        let settings = &self.vm().settings;
        if settings.envoy.buffer_limit_enforced { settings.buffer_limit } else { usize::MAX }
    }
}

/// `commonContinue`: what is held goes to the router, and the end with it if it came.
fn release_request(exchange: &mut Exchange) {
    let Exchange { request, upstream, observed, .. } = exchange;
    request.hold = Hold::Open;
    request.buffering = false;
    if !request.headers_sent {
        request.headers_sent = true;
        // The route is looked up from what the headers say now.
        *upstream =
            UpstreamRequest { headers: request.headers.clone(), ..UpstreamRequest::default() };
    }
    upstream.body.append(&mut request.held);
    if request.ended && request.inbox.is_empty() {
        upstream.complete = true;
        upstream.trailers.clone_from(&request.trailers);
    }
    observed.upstream = Some(upstream.clone());
}

pub(super) fn join_data(inbox: &mut std::collections::VecDeque<Inbound>) {
    let mut joined = Vec::new();
    let mut ended = false;
    let mut any = false;
    while let Some(Inbound::Data { .. }) = inbox.front() {
        if let Some(Inbound::Data { chunk, end }) = inbox.pop_front() {
            joined.extend(chunk);
            ended = end;
            any = true;
        }
    }
    if any {
        inbox.push_front(Inbound::Data { chunk: joined, end: ended });
    }
}

/// `Http::Utility::prepareLocalReply`.
pub(super) fn local_reply_headers(status: u16, additional: &Headers, body: &[u8]) -> Headers {
    let mut headers = Headers::from([(":status", status.to_string())]);
    for (name, value) in additional.iter() {
        headers.add(name, value);
    }
    headers.remove("content-length");
    if body.is_empty() {
        headers.remove("content-type");
    } else {
        headers.add("content-length", body.len().to_string());
        if headers.get("content-type").is_none() {
            headers.add("content-type", "text/plain");
        }
    }
    headers
}

/// What the router of the async client makes of a call that gets no answer.
fn router_answer(outcome: CallOutcome) -> CallOutcome {
    let local = |status: u16, body: &str| {
        let headers = local_reply_headers(status, &Headers::new(), body.as_bytes());
        CallOutcome::Response { headers, body: body.into() }
    };
    match outcome {
        CallOutcome::Response { headers, body } => {
            CallOutcome::Response { headers: headers.lowercase_names(), body }
        }
        CallOutcome::Unreachable => local(
            503,
            "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure",
        ),
        CallOutcome::Unresolved => local(503, "no healthy upstream"),
        CallOutcome::TimedOut => local(504, "upstream request timeout"),
        CallOutcome::Failed => CallOutcome::Failed,
    }
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

pub(super) fn size_of(body: Option<&mut Vec<u8>>) -> u32 {
    body.map_or(0, |body| length(body))
}
