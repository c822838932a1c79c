//! How Envoy moves a response through the filter, and the replies that do not come from the upstream.
//!
//! The response side of `envoy`; the same sources.

use super::envoy::{join_data, local_reply_headers, size_of};
use super::http::Headers;
use super::vm::{Deferred, Hold, Inbound, Phase};
use super::{Called, Host};

impl Host {
    // === response ===

    pub(super) fn envoy_response_headers(&mut self, id: u32, headers: Headers, end: bool) {
        let Some(exchange) = self.open_exchange(id) else { return };
        exchange.responding = true;
        exchange.response.headers = headers;
        exchange.response.visible = true;
        exchange.response.ended = end;
        if exchange.bypass {
            return self.release_response(id);
        }
        if self.failed {
            return self.fail_stream(id);
        }
        let Some(exchange) = self.open_exchange(id) else { return };
        let arguments = [exchange.response.headers.count().cast_unsigned(), u32::from(end)];
        let called = self.callback(id, Phase::ResponseHeaders, "on_response_headers", &arguments);
        if !self.envoy_called(id, called) {
            return;
        }
        let pause = self.headers_pause();
        let Some(exchange) = self.open_exchange(id) else { return };
        if exchange.response.headers_sent {
            return;
        }
        if called.continues() {
            exchange.response.visible = false;
            self.release_response(id);
        } else {
            exchange.response.hold = pause;
        }
    }

    pub(super) fn envoy_response_data(&mut self, id: u32, chunk: Vec<u8>, end: bool) {
        if self.failed {
            return self.fail_stream(id);
        }
        let limit = self.buffer_limit();
        let Some(exchange) = self.open_exchange(id) else { return };
        let response = &mut exchange.response;
        if response.hold == Hold::All {
            response.inbox.push_back(Inbound::Data { chunk, end });
            return;
        }
        response.ended = end;
        if response.buffering {
            response.held.extend(chunk);
            response.chunk = Some(Vec::new());
        } else {
            response.chunk = Some(chunk);
        }
        if !exchange.bypass {
            let size = size_of(exchange.response.visible_body());
            let called =
                self.callback(id, Phase::ResponseBody, "on_response_body", &[size, u32::from(end)]);
            if !self.envoy_called(id, called) {
                return;
            }
            let Some(exchange) = self.open_exchange(id) else { return };
            if !called.continues() {
                let response = &mut exchange.response;
                response.held.extend(response.chunk.take().unwrap_or_default());
                response.buffering = true;
                response.hold = Hold::AtFilter;
                if response.held.len() > limit {
                    let details = "response_payload_too_large";
                    self.envoy_local_reply(
                        id,
                        500,
                        details,
                        &Headers::new(),
                        b"Internal Server Error".to_vec(),
                        false,
                    );
                }
                return;
            }
        }
        if let Some(exchange) = self.open_exchange(id) {
            let response = &mut exchange.response;
            response.held.extend(response.chunk.take().unwrap_or_default());
        }
        self.release_response(id);
    }

    /// Headers if they are still here, whatever is held, and the end if it came.
    fn release_response(&mut self, id: u32) {
        let moment = self.vm().moment;
        let Some(exchange) = self.open_exchange(id) else { return };
        exchange.response.buffering = false;
        exchange.response.hold = Hold::Open;
        if !exchange.response.headers_sent {
            exchange.send_head();
        }
        let held = std::mem::take(&mut exchange.response.held);
        exchange.send_body(moment, held);
        if exchange.response.ended {
            exchange.send_end();
            self.end_exchange(id);
        }
    }

    fn resume_response(&mut self, id: u32) {
        let Some(exchange) = self.open_exchange(id) else { return };
        if !exchange.responding || exchange.response.hold == Hold::Open {
            return;
        }
        join_data(&mut exchange.response.inbox);
        let waiting = exchange.response.inbox.pop_front();
        self.release_response(id);
        if let Some(Inbound::Data { chunk, end }) = waiting {
            self.envoy_response_data(id, chunk, end);
        }
    }

    pub(super) fn envoy_upstream_reset(&mut self, id: u32) {
        let Some(exchange) = self.open_exchange(id) else { return };
        if exchange.responding {
            return self.reset_stream(id);
        }
        let body = "upstream connect error or disconnect/reset before headers. reset reason: connection termination";
        let details = "upstream_reset_before_response_started{connection_termination}";
        self.envoy_local_reply(id, 503, details, &Headers::new(), body.into(), false);
    }

    // === local replies, failures ===

    /// `FilterManager::sendLocalReply`: through the filter before a response began, past it until its head is
    /// out, and a reset after that.
    pub(super) fn envoy_local_reply(
        &mut self,
        id: u32,
        status: u16,
        details: &str,
        additional: &Headers,
        body: Vec<u8>,
        by_filter: bool,
    ) {
        let through_filter = self.vm().settings.envoy.local_reply_passes_filter;
        let Some(exchange) = self.open_exchange(id) else { return };
        exchange.note_local_reply(status, details, by_filter);
        if exchange.response.headers_sent {
            return self.reset_stream(id);
        }
        let direct = exchange.responding || !through_filter;
        let headers = local_reply_headers(status, additional, &body);
        let end = body.is_empty();
        if direct {
            exchange.bypass = true;
            exchange.response.hold = Hold::Open;
            exchange.response.held.clear();
        }
        let bypass = exchange.bypass;
        self.envoy_response_headers(id, headers, end);
        if !end {
            self.envoy_reply_data(id, body, bypass);
        }
        // The filter is told of the end of the stream all the same.
        if let Some(exchange) = self.vm_mut().exchanges.get_mut(&id) {
            exchange.request.inbox.clear();
        }
    }

    fn envoy_reply_data(&mut self, id: u32, body: Vec<u8>, bypass: bool) {
        // A failed VM's own 503 has no body; any other reply of a stream that failed meanwhile is cut short.
        if self.failed && !bypass {
            return self.fail_stream(id);
        }
        let moment = self.vm().moment;
        match self.open_exchange(id) {
            Some(exchange) if bypass => {
                exchange.response.ended = true;
                exchange.send_body(moment, body);
                exchange.send_end();
                self.end_exchange(id);
            }
            Some(_) => self.envoy_response_data(id, body, true),
            None => {}
        }
    }

    /// `Context::failStream`: a 503 that the VM does not see, once per stream.
    pub(super) fn fail_stream(&mut self, id: u32) {
        let Some(exchange) = self.open_exchange(id) else { return };
        if exchange.bypass {
            return;
        }
        exchange.bypass = true;
        self.envoy_local_reply(id, 503, "wasm_fail_stream", &Headers::new(), Vec::new(), false);
    }

    fn reset_stream(&mut self, id: u32) {
        if let Some(exchange) = self.open_exchange(id) {
            exchange.observed.reset = true;
            self.end_exchange(id);
        }
    }

    /// Settles what a stream callback left behind; whether its action still counts.
    pub(super) fn envoy_called(&mut self, id: u32, called: Called) -> bool {
        if called == Called::Trapped {
            self.instance_trapped();
            self.fail_stream(id);
            return false;
        }
        let responding = self.open_exchange(id).is_some_and(|exchange| exchange.responding);
        self.run_deferred();
        // A local reply or a reset took the stream over.
        self.open_exchange(id).is_some_and(|exchange| exchange.responding == responding)
    }

    pub(super) fn envoy_deferred(&mut self, deferred: Deferred) {
        match deferred {
            Deferred::Reply { exchange, status, details, headers, body } => {
                self.envoy_local_reply(exchange, status, &details, &headers, body, true);
            }
            Deferred::ResumeRequest(id) => self.resume_request(id),
            Deferred::ResumeResponse(id) => self.resume_response(id),
            Deferred::Close(id) => self.reset_stream(id),
        }
    }
}
