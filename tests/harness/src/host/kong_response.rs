//! How Kong moves a response through the filter: nginx's header and body filters, and local replies.
//!
//! Follows kong-host.md §5 and `ngx_http_proxy_wasm.c`.

use super::http::{Headers, LogLevel};
use super::kong::{length, line_count};
use super::vm::{Hold, Phase};
use super::{Called, Host};

impl Host {
    pub(super) fn kong_response_headers(&mut self, id: u32, headers: Headers, end: bool) {
        let rules = self.vm().settings.kong.clone();
        let Some(exchange) = self.open_exchange(id) else { return };
        exchange.responding = true;
        exchange.upstream_length = headers.content_length();
        exchange.response.headers = headers;
        exchange.response.ended = end;
        if !exchange.bypass {
            let before = exchange.response.headers.clone();
            // `ngx_http_proxy_wasm.c`: "eof: 0" here too.
            let eos = end && !rules.eos_never_in_headers;
            let arguments = [line_count(&exchange.response.headers), u32::from(eos)];
            let called =
                self.kong_callback(id, Phase::ResponseHeaders, "on_response_headers", &arguments);
            if called == Called::Trapped {
                self.kong_response_trapped(id, before);
            } else {
                self.run_deferred();
                if !called.continues()
                    && !self.kong_response_paused(id, rules.response_headers_pause_ignored)
                {
                    return;
                }
            }
        }
        let Some(exchange) = self.open_exchange(id) else { return };
        exchange.send_head();
        if end {
            self.kong_response_data(id, Vec::new(), true);
        }
    }

    /// kong-host.md §5: Pause in response_headers ignored (warning). Whether the response goes on.
    fn kong_response_paused(&mut self, id: u32, ignored: bool) -> bool {
        if ignored {
            self.vm_mut().log(
                LogLevel::Warn,
                "\"ResponseHeaders\" returned \"PAUSE\": local response expected",
            );
        } else if let Some(exchange) = self.open_exchange(id) {
            exchange.response.hold = Hold::All;
        }
        ignored
    }

    /// kong-host.md §5: trap in response callbacks → response passes unmodified.
    fn kong_response_trapped(&mut self, id: u32, before: Headers) {
        let passes = self.vm().settings.kong.response_trap_passes;
        self.kong_trapped(id);
        let Some(exchange) = self.open_exchange(id) else { return };
        if passes {
            exchange.response.headers = before;
        } else {
            exchange.observed.reset = true;
            self.end_exchange(id);
        }
    }

    pub(super) fn kong_response_data(&mut self, id: u32, chunk: Vec<u8>, end: bool) {
        let rules = self.vm().settings.kong.clone();
        let buffers = self.vm().settings.response_buffers;
        let Some(exchange) = self.open_exchange(id) else { return };
        if exchange.response.hold == Hold::All {
            return;
        }
        // A local reply made in the response headers replaces whatever the upstream still sends.
        let chunk = match exchange.override_body.as_mut() {
            Some(body) => std::mem::take(body),
            None => chunk,
        };
        exchange.response.ended = end;
        // kong-host.md §5: HEAD: no body callback.
        let silent =
            exchange.bypass || (exchange.is_head_request() && rules.no_body_callback_for_head);
        if silent {
            return self.kong_pass(id, chunk, end);
        }
        let response = &mut exchange.response;
        if response.buffering {
            response.held.extend(chunk);
            if response.held.len() < buffers && !end && rules.response_buffers_once {
                return;
            }
        } else {
            response.held = chunk;
        }
        let whole = std::mem::take(&mut response.held);
        let size = whole.len();
        let promised = exchange.upstream_length.filter(|length| *length > 0);
        let before: usize = exchange.response_seen;
        exchange.response_seen = before + size;
        let eos = match promised {
            // kong-host.md §5: eof = chunk_len == content_length; split over several chunks never true.
            Some(promised) if rules.eos_only_when_chunk_is_content_length => size == promised,
            Some(promised) => before + size >= promised && end,
            // kong-host.md §5: final n=0,eos=true for chunked.
            None => end && (size == 0 || exchange.response.buffering),
        };
        let carried_end = eos && end;
        let paused = if size > 0 || eos { self.kong_body_callback(id, whole, eos) } else { false };
        if paused && !end {
            return;
        }
        if end && promised.is_none() && !carried_end {
            self.kong_body_callback(id, Vec::new(), true);
        }
        if end {
            self.kong_pass(id, Vec::new(), true);
        }
    }

    /// One `on_response_body`; whether the proxy now buffers.
    fn kong_body_callback(&mut self, id: u32, chunk: Vec<u8>, eos: bool) -> bool {
        let rules = self.vm().settings.kong.clone();
        let Some(exchange) = self.open_exchange(id) else { return false };
        let raw = chunk.clone();
        let arguments = [length(&chunk), u32::from(eos)];
        exchange.response.chunk = Some(chunk);
        exchange.response.buffering = false;
        let called = self.kong_callback(id, Phase::ResponseBody, "on_response_body", &arguments);
        if called == Called::Trapped {
            let headers = self.open_exchange(id).map(|exchange| exchange.response.headers.clone());
            self.kong_response_trapped(id, headers.unwrap_or_default());
            self.kong_pass(id, raw, false);
            return false;
        }
        self.run_deferred();
        let Some(exchange) = self.open_exchange(id) else { return false };
        let chunk = exchange.response.chunk.take().unwrap_or_default();
        if !called.continues() {
            // kong-host.md §5: Pause = host buffering once; second Pause is an error.
            if !exchange.buffered_once || !rules.response_buffers_once {
                exchange.buffered_once = true;
                exchange.response.buffering = true;
                exchange.response.held = chunk;
                return true;
            }
            let text = "invalid \"on_response_body\" return action (PAUSE): response body buffering already requested";
            self.vm_mut().log(LogLevel::Error, text);
        }
        self.kong_pass(id, chunk, false);
        false
    }

    /// To the client.
    fn kong_pass(&mut self, id: u32, chunk: Vec<u8>, end: bool) {
        let moment = self.vm().moment;
        let Some(exchange) = self.open_exchange(id) else { return };
        let held = std::mem::take(&mut exchange.response.held);
        exchange.send_body(moment, held);
        exchange.send_body(moment, chunk);
        if end {
            exchange.send_end();
            self.end_exchange(id);
        }
    }

    // === replies that do not come from the upstream ===

    /// `proxy_send_local_response`.
    pub(super) fn kong_local_reply(
        &mut self,
        id: u32,
        status: u16,
        details: &str,
        additional: &Headers,
        mut body: Vec<u8>,
    ) {
        let rules = self.vm().settings.kong.clone();
        let Some(exchange) = self.open_exchange(id) else { return };
        exchange.note_local_reply(status, details, true);
        // `ngx_http_wasm_stash_local_response` appends a line feed.
        if !body.is_empty() && rules.local_reply_ends_in_newline {
            body.push(b'\n');
        }
        if exchange.responding {
            exchange.response.headers.set(":status", status.to_string());
            // kong-host.md §5: in response_headers: status+body replaced, but headers ignored and old
            // Content-Length kept → client hangs.
            if !rules.local_reply_in_response_headers_hangs {
                exchange.response.headers.set("content-length", body.len().to_string());
                for (name, value) in additional.iter() {
                    exchange.response.headers.set(name, value);
                }
            }
            exchange.override_body = Some(body);
            return;
        }
        let mut headers = Headers::from([(":status", status.to_string())]);
        for (name, value) in additional.iter() {
            headers.set(name, value);
        }
        if !body.is_empty() {
            if headers.get("content-type").is_none() {
                headers.add("content-type", "text/plain");
            }
            headers.set("content-length", body.len().to_string());
        }
        exchange.request.hold = Hold::Open;
        // kong-host.md §5: the filter's own response callbacks still run on it.
        self.kong_response_headers(id, headers, body.is_empty());
        if !body.is_empty() {
            self.kong_response_data(id, body, true);
        }
    }

    /// kong-host.md §5: Kong-generated pages: response callbacks not run.
    pub(super) fn kong_error(&mut self, id: u32, status: u16) {
        let skip = self.vm().settings.kong.own_errors_skip_filter;
        let Some(exchange) = self.open_exchange(id) else { return };
        exchange.note_local_reply(status, "kong", false);
        exchange.bypass |= skip;
        let body = format!("{{\"message\":\"{status}\"}}").into_bytes();
        let headers = Headers::from([
            (":status", status.to_string()),
            ("content-type", "application/json; charset=utf-8".to_owned()),
            ("content-length", body.len().to_string()),
        ]);
        self.kong_response_headers(id, headers, false);
        self.kong_response_data(id, body, true);
    }

    pub(super) fn kong_upstream_reset(&mut self, id: u32) {
        let Some(exchange) = self.open_exchange(id) else { return };
        if exchange.responding {
            exchange.observed.reset = true;
            self.end_exchange(id);
        } else {
            self.kong_error(id, 502);
        }
    }
}
