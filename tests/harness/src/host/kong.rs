//! How Kong moves a request through the filter: nginx phases, calls, traps and the worker's end.
//!
//! Follows kong-host.md (the section is named at each rule) and, where it is silent, `ngx_wasm_module`. The
//! response side is in `kong_response`.

use super::http::{CallOutcome, Headers, HttpRequest, LogLevel, Step, UpstreamRequest};
use super::vm::{Call, Exchange, Hold, Phase, ROOT, Stage, Vm};
use super::{Called, Host};

impl Host {
    pub(super) fn kong_exchange(&self, request: HttpRequest) -> Exchange {
        let settings = &self.vm().settings;
        let mut headers = request.headers.clone();
        let host = headers.get(":authority").map(<[u8]>::to_vec);
        // kong-host.md §3: request.host and :authority = the server's own hostname:port, NOT the client's Host.
        if settings.kong.authority_is_server_name {
            headers.set(":authority", settings.server_name.as_bytes());
        }
        // `ngx_proxy_wasm_maps_get_path`.
        if let (true, Some(path)) = (settings.kong.path_is_decoded, headers.get(":path")) {
            let path = decoded(path);
            headers.set(":path", path);
        }
        if let (Some(host), None) = (host, headers.get("host")) {
            headers.add("host", host);
        }
        let mut exchange = Exchange::new(request, headers, self.vm().now);
        exchange.request.held = exchange.original.body.concat();
        exchange
    }

    pub(super) fn kong_step(&mut self, id: u32) -> Step {
        loop {
            if let Some(call) = self.vm_mut().announce_call(id) {
                return Step::Call(call);
            }
            let calls = self.vm().calls_of(id);
            // kong-host.md §5: on_request_headers Pause: body callback comes only after resume.
            let body_waits = self.vm().settings.kong.headers_pause_holds_body;
            let Some(exchange) = self.open_exchange(id) else { return Step::Done };
            let held = exchange.request.hold == Hold::All;
            match exchange.stage {
                Stage::Headers => self.kong_request_headers(id),
                Stage::Body if !held || !body_waits => self.kong_request_body(id),
                Stage::Body => return Step::Held { calls },
                Stage::Proxy if exchange.response.hold == Hold::All => return Step::Held { calls },
                Stage::Proxy if exchange.upstream_announced => return Step::AwaitUpstream,
                Stage::Proxy if held => return Step::Held { calls },
                Stage::Proxy => {
                    let upstream = upstream_request(exchange);
                    let upstream = self.vm().amend(id, upstream);
                    let Some(exchange) = self.open_exchange(id) else { return Step::Done };
                    exchange.upstream_announced = true;
                    exchange.upstream = upstream.clone();
                    exchange.observed.upstream = Some(upstream.clone());
                    return Step::Upstream(upstream);
                }
            }
        }
    }

    // === request ===

    fn kong_request_headers(&mut self, id: u32) {
        let open = self.vm().settings.kong.bad_configuration_is_open;
        let eos = !self.vm().settings.kong.eos_never_in_headers;
        let configured = self.configured;
        let Some(exchange) = self.open_exchange(id) else { return };
        exchange.stage = Stage::Body;
        if !configured {
            // kong-host.md §5: on_configure false/trap at Kong start → every route WITHOUT the filter.
            exchange.bypass = true;
            exchange.stage = Stage::Proxy;
            if !open {
                self.kong_error(id, 500);
            }
            return;
        }
        // kong-host.md §5: eos always false in on_http_request_headers.
        let end = eos && exchange.original.body.is_empty();
        let arguments = [line_count(&exchange.request.headers), u32::from(end)];
        let called =
            self.kong_callback(id, Phase::RequestHeaders, "on_request_headers", &arguments);
        self.kong_requested(id, called);
    }

    fn kong_request_body(&mut self, id: u32) {
        // kong-host.md §5: no body → on_http_request_body never called; else once, whole, eos=true.
        let whole = self.vm().settings.kong.body_called_once;
        if std::mem::take(&mut self.vm_mut().trap_before_body) {
            self.kong_revive();
        }
        let Some(exchange) = self.open_exchange(id) else { return };
        exchange.stage = Stage::Proxy;
        if exchange.request.held.is_empty() || exchange.bypass {
            return;
        }
        let mut called = Called::Returned(0);
        if whole {
            let arguments = [length(&exchange.request.held), 1];
            called = self.kong_callback(id, Phase::RequestBody, "on_request_body", &arguments);
        } else {
            exchange.request.held.clear();
            let mut chunks = exchange.original.body.clone();
            chunks.push(Vec::new());
            let last = chunks.len() - 1;
            for (index, chunk) in chunks.into_iter().enumerate() {
                let Some(exchange) = self.open_exchange(id) else { return };
                exchange.request.held.extend(chunk);
                let arguments = [length(&exchange.request.held), u32::from(index == last)];
                called = self.kong_callback(id, Phase::RequestBody, "on_request_body", &arguments);
                if called == Called::Trapped
                    || self.open_exchange(id).is_none_or(|exchange| exchange.stashed)
                {
                    break;
                }
            }
        }
        self.kong_requested(id, called);
        self.kong_request_trailers(id);
    }

    /// kong-host.md §4: trailers are never called.
    fn kong_request_trailers(&mut self, id: u32) {
        if self.vm().settings.kong.trailers_never_come {
            return;
        }
        let Some(exchange) = self.open_exchange(id) else { return };
        let Some(trailers) = &exchange.original.trailers else { return };
        let arguments = [line_count(trailers)];
        let called =
            self.kong_callback(id, Phase::RequestTrailers, "on_request_trailers", &arguments);
        if called == Called::Trapped {
            self.kong_requested(id, called);
        }
    }

    /// What a request callback left behind.
    fn kong_requested(&mut self, id: u32, called: Called) {
        let rules = self.vm().settings.kong.clone();
        if called == Called::Trapped {
            self.kong_trapped(id);
            // kong-host.md §5: request_headers/request_body trap → 500.
            if rules.request_trap_is_500 {
                self.kong_error(id, 500);
            } else if let Some(exchange) = self.open_exchange(id) {
                exchange.stage = Stage::Proxy;
            }
            return;
        }
        let stashed = self.open_exchange(id).is_some_and(|exchange| exchange.stashed);
        self.run_deferred();
        let calls = self.vm().calls_of(id);
        let Some(exchange) = self.open_exchange(id) else { return };
        // kong-host.md §5: local response: returned action is ignored.
        if stashed {
            return;
        }
        if !called.continues() {
            exchange.request.hold = Hold::All;
        } else if calls > 0 && rules.dispatch_then_continue_crashes {
            // kong-host.md §5: dispatch + return Continue: response filters are skipped, and see `kong_answer`.
            exchange.continued_with_calls = true;
            exchange.bypass = true;
        }
    }

    /// A stream callback in whatever instance lives.
    pub(super) fn kong_callback(
        &mut self,
        id: u32,
        phase: Phase,
        name: &str,
        arguments: &[u32],
    ) -> Called {
        if !self.create_context(id) {
            return Called::Trapped;
        }
        self.callback(id, phase, name, arguments)
    }

    /// `proxy_continue_stream`, or the end of the last call.
    pub(super) fn kong_resume(&mut self, id: u32) {
        let waits = self.vm().settings.kong.resume_waits_for_all_calls;
        let calls = self.vm().calls_of(id);
        if let Some(exchange) = self.open_exchange(id) {
            exchange.resume_requested = true;
            // kong-host.md §5: request resumes only when all finished, regardless of resume calls.
            if calls == 0 || !waits {
                exchange.request.hold = Hold::Open;
            }
        }
    }

    // === calls ===

    pub(super) fn kong_answer(&mut self, call: &Call, outcome: CallOutcome) -> bool {
        let rules = self.vm().settings.kong.clone();
        let id = call.context;
        let over = self.vm().exchanges.get(&id).is_some_and(|exchange| exchange.over);
        if over && rules.dispatch_then_continue_crashes {
            // kong-host.md §5: the WORKER SEGFAULTS when the call returns after the request ended.
            self.kong_crash("a dispatch returned after its request ended");
            return false;
        }
        let (count, size) = match &outcome {
            CallOutcome::Response { headers, body } => (line_count(headers), length(body)),
            _ => (0, 0),
        };
        let token = call.request.token;
        if id != ROOT && !self.create_context(id) {
            self.kong_trapped(id);
            return false;
        }
        self.note(id, "on_http_call_response", &[token, count, size, 0]);
        self.vm_mut().answered = Some(outcome);
        let arguments = [ROOT, token, count, size, 0];
        let called = self.call(id, Phase::CallResponse, "proxy_on_http_call_response", &arguments);
        self.vm_mut().answered = None;
        if called == Called::Trapped {
            self.kong_trapped(id);
            match self.open_exchange(id) {
                // kong-host.md §5: trap in on_http_call_response → request is PROXIED UPSTREAM (fail open).
                Some(exchange) if rules.call_trap_proxies => {
                    exchange.bypass = true;
                    exchange.request.hold = Hold::Open;
                    exchange.stage = Stage::Proxy;
                }
                Some(_) => self.kong_error(id, 500),
                None => {}
            }
            return true;
        }
        self.run_deferred();
        let remaining = self.vm().calls_of(id);
        if let Some(exchange) = self.open_exchange(id)
            && remaining == 0
            // kong-host.md §5: after the last callback it resumes by itself even without resume.
            && (rules.resumes_by_itself || exchange.resume_requested)
        {
            exchange.request.hold = Hold::Open;
        }
        true
    }

    // === traps ===

    pub(super) fn kong_trapped(&mut self, id: u32) {
        if let Some(exchange) = self.vm_mut().exchanges.get_mut(&id) {
            exchange.observed.trapped = true;
            exchange.bypass = true;
        }
        if self.vm().crashed {
            self.kong_crash("segmentation fault");
        } else {
            self.kong_revive();
        }
    }

    /// kong-host.md §5: a trap destroys the shared instance: every in-flight request continues with a fresh empty
    /// HTTP context (request_headers not re-run), on_configure re-runs.
    pub(super) fn kong_revive(&mut self) {
        let rules = self.vm().settings.kong.clone();
        if !rules.trap_empties_contexts {
            return;
        }
        for exchange in self.vm_mut().exchanges.values_mut() {
            exchange.created = false;
        }
        // kong-host.md §5: the old tick timer keeps firing on the new root.
        let timers = &mut self.vm_mut().timers;
        timers.truncate(1);
        for timer in timers.iter_mut() {
            timer.stale = true;
        }
        if !rules.stale_timer_fires {
            timers.clear();
        }
        self.configured = self.start(false).unwrap_or(false);
    }

    /// The worker process dies: every connection is cut, and a new worker starts from nothing.
    pub(super) fn kong_crash(&mut self, reason: &str) {
        self.crashes += 1;
        let vm = self.vm_mut();
        vm.log(LogLevel::Critical, format!("worker process exited on signal 11: {reason}"));
        vm.crashed = false;
        vm.calls.clear();
        vm.timers.clear();
        for exchange in vm.exchanges.values_mut() {
            exchange.observed.reset |= !exchange.over;
            exchange.over = true;
            exchange.created = false;
        }
        self.configured = self.start(true).unwrap_or(false);
    }
}

/// A path as nginx understands it (`ngx_http_parse_complex_uri`), and the query as it came.
fn decoded(path: &[u8]) -> Vec<u8> {
    let end = path.iter().position(|byte| *byte == b'?').unwrap_or(path.len());
    let (path, query) = path.split_at(end);
    let mut plain = Vec::new();
    let mut rest = path;
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match code.filter(|_| byte == b'%') {
            Some(code) => {
                plain.push(code);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                plain.push(byte);
                rest = after;
            }
        }
    }
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut is_folder = true;
    for segment in plain.split(|byte| *byte == b'/') {
        is_folder = matches!(segment, b"" | b"." | b"..");
        match segment {
            b"" | b"." => {}
            b".." => drop(kept.pop()),
            segment => kept.push(segment),
        }
    }
    let mut path: Vec<u8> = kept.iter().flat_map(|segment| [b"/", *segment].concat()).collect();
    if is_folder {
        path.push(b'/');
    }
    path.extend(query);
    path
}

/// What goes upstream, before the rules of the profile.
fn upstream_request(exchange: &Exchange) -> UpstreamRequest {
    let property = |name: &str| {
        exchange
            .observed
            .properties
            .get(name)
            .map(|value| String::from_utf8_lossy(value).into_owned())
    };
    UpstreamRequest {
        headers: exchange.request.headers.clone(),
        body: exchange.request.held.clone(),
        trailers: None,
        target: property("kong.service.target"),
        address: None,
        scheme: property("kong.service.request.scheme"),
        complete: true,
    }
}

impl Vm {
    /// What nginx puts into the request it sends, whatever the filter's header map says.
    fn amend(&self, id: u32, mut upstream: UpstreamRequest) -> UpstreamRequest {
        let rules = &self.settings.kong;
        let Some(exchange) = self.exchanges.get(&id) else { return upstream };
        let variable = |name: &str| exchange.observed.properties.get(name).cloned();
        upstream.address = upstream.target.clone().map(|target| match target.rsplit_once(':') {
            Some((_, port)) if rules.target_keeps_service_address => {
                format!("{}:{port}", self.settings.service_host)
            }
            _ => target,
        });
        let headers = &mut upstream.headers;
        // kong-host.md §5: :path set has no effect upstream; §3: ngx.upstream_uri has.
        let original = exchange.original.headers.get(":path").map(<[u8]>::to_vec);
        if let Some(path) = variable("ngx.upstream_uri") {
            headers.set(":path", path);
        } else if let (true, Some(path)) = (rules.path_set_has_no_effect, original) {
            headers.set(":path", path);
        }
        // kong-host.md §5: "host" set has no effect upstream; §3: ngx.upstream_host has.
        let service =
            upstream.target.clone().unwrap_or_else(|| "black-hole.invalid".to_owned()).into_bytes();
        let set_host = (!rules.host_set_has_no_effect)
            .then(|| headers.get("host").map(<[u8]>::to_vec))
            .flatten();
        let client_host = exchange.original.headers.get(":authority");
        let set_host = set_host.filter(|host| Some(host.as_slice()) != client_host);
        headers.set(":authority", variable("ngx.upstream_host").or(set_host).unwrap_or(service));
        headers.remove("host");
        headers.set(":scheme", upstream.scheme.clone().unwrap_or_else(|| "http".to_owned()));
        // kong-host.md §5: content-length recomputed (chunked too).
        headers.remove("transfer-encoding");
        if !exchange.original.body.is_empty() {
            headers.set("content-length", upstream.body.len().to_string());
        }
        upstream
    }
}

/// nginx keeps pseudo-headers outside its lists.
pub(super) fn line_count(headers: &Headers) -> u32 {
    let count = headers.iter().filter(|(name, _)| !name.starts_with(':')).count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

pub(super) fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}
