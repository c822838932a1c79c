//! A proxy-wasm host for tests: loads a real filter and behaves around it as Envoy or Kong does.
//!
//! State, not expectations: header maps, bodies, properties, shared data, pending calls and timers live here, and
//! a test sees what a client, the upstreams and the access log would see. One [`Host`] is one worker with one VM;
//! several exchanges may be open on it. Nothing happens by itself: time stands still, calls wait for
//! [`Host::answer_call`], the upstream for [`Host::upstream_response_head`].
//!
//! What each proxy does is written down in `envoy`, `kong`, `maps`, `buffers`, `stream` and `properties`, each
//! rule under its name in [`EnvoyRules`] and [`KongRules`]. Not imitated: other filters, retries, timeouts that
//! fire by themselves, response trailers, HTTP wire formats, subrequests, gRPC, access-log formats.

mod abi;
mod buffers;
mod client;
mod engine;
mod envoy;
mod envoy_response;
mod http;
mod kong;
mod kong_response;
mod maps;
mod properties;
mod run;
mod settings;
mod shared;
mod stores;
mod stream;
mod vm;
mod wasi;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use wasmtime::{Instance, InstancePre, Store};

pub use self::engine::HostError;
pub use self::http::{
    CallOutcome, Client, ClientCertificate, ClientChunk, ClientTls, ExchangeId, Headers,
    HttpRequest, LocalReply, LogLevel, LogLine, Observed, PendingCall, Step, UpstreamRequest,
};
pub use self::settings::{EnvoyRules, KongRules, Profile, Settings, WITHOUT};
pub use self::shared::SharedData;

use self::run::Called;
use self::vm::{Call, Phase, ROOT, Timer, Vm};

/// One worker of the proxy, with the filter loaded.
pub struct Host {
    store: Store<Vm>,
    module: InstancePre<Vm>,
    instance: Option<Instance>,
    configured: bool,
    /// Envoy: the VM failed and every stream is closed.
    failed: bool,
    crashes: usize,
}

impl Host {
    /// Loads a filter under the defaults of that proxy.
    ///
    /// # Errors
    /// The file is unreadable, does not compile, imports what the proxy does not offer, has no known ABI version,
    /// or kills the worker. A rejected configuration is no error: see [`Host::configured`].
    pub fn load(
        wasm: &Path,
        profile: Profile,
        configuration: &[u8],
        environment: &[(String, String)],
    ) -> Result<Self, HostError> {
        Self::load_with(wasm, Settings::new(profile), configuration, environment)
    }

    /// Loads a filter under other settings.
    ///
    /// # Errors
    /// As [`Host::load`].
    pub fn load_with(
        wasm: &Path,
        settings: Settings,
        configuration: &[u8],
        environment: &[(String, String)],
    ) -> Result<Self, HostError> {
        let bytes = std::fs::read(wasm).map_err(|error| HostError::Unreadable {
            path: wasm.to_path_buf(),
            reason: error.to_string(),
        })?;
        Self::from_bytes(&bytes, settings, configuration, environment)
    }

    /// Loads a filter from memory: wasm, or the text format.
    ///
    /// # Errors
    /// As [`Host::load`].
    pub fn from_bytes(
        wasm: &[u8],
        settings: Settings,
        configuration: &[u8],
        environment: &[(String, String)],
    ) -> Result<Self, HostError> {
        let (store, module) = engine::prepare(wasm, Vm::new(settings, configuration, environment))?;
        let mut host =
            Self { store, module, instance: None, configured: false, failed: false, crashes: 0 };
        host.configured = host.start(true)?;
        if host.vm().crashed {
            return Err(HostError::WorkerCrashed);
        }
        // Envoy has no plugin then, and `FAIL_CLOSED`.
        host.failed = !host.configured && host.vm().profile() == Profile::Envoy;
        Ok(host)
    }

    /// Whether the filter accepted its configuration (and started at all).
    #[must_use]
    pub fn configured(&self) -> bool {
        self.configured
    }

    /// Envoy: the VM trapped (or rejected its configuration) and answers 503 to everything.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.failed
    }

    /// Kong: how often the worker process died and was started anew.
    #[must_use]
    pub fn crashes(&self) -> usize {
        self.crashes
    }

    /// Sets the clock, in time since the epoch. It never advances by itself.
    pub fn set_time(&mut self, unix: Duration) {
        self.vm_mut().now = unix;
    }

    /// The period the filter asked ticks for.
    #[must_use]
    pub fn tick_period(&self) -> Option<Duration> {
        self.vm().timers.iter().rev().find(|timer| !timer.stale).map(|timer| timer.period)
    }

    /// Fires every timer once, without advancing the clock; `false` when there is none. Calls dispatched by it
    /// come from [`Host::root_call`].
    pub fn tick(&mut self) -> bool {
        self.input();
        let timers: Vec<Timer> = self.vm().timers.clone();
        for timer in &timers {
            self.fire(*timer);
        }
        !timers.is_empty()
    }

    fn fire(&mut self, timer: Timer) {
        if self.failed {
            return;
        }
        let phase = Phase::Tick { stale: timer.stale };
        let called = self.call(ROOT, phase, "proxy_on_tick", &[ROOT]);
        if called == Called::Trapped {
            self.instance_trapped();
        }
        self.run_deferred();
    }

    /// A call from a root context that was not handed out yet.
    pub fn root_call(&mut self) -> Option<PendingCall> {
        self.vm_mut().announce_call(ROOT)
    }

    /// Every line in the proxy's log, oldest first.
    #[must_use]
    pub fn logs(&self) -> &[LogLine] {
        &self.vm().logs
    }

    /// The value of a metric by the name the filter gave it; of a histogram, the number of samples.
    #[must_use]
    pub fn metric(&self, name: &str) -> Option<u64> {
        self.vm().metrics.by_name(name)
    }

    /// The values of all metrics by name; of histograms, the number of samples.
    #[must_use]
    pub fn metrics(&self) -> BTreeMap<String, u64> {
        self.vm().metrics.all()
    }

    /// The shared data of the process.
    #[must_use]
    pub fn shared_data(&self) -> &SharedData {
        &self.vm().settings.shared_data
    }

    /// Counts the inputs so far: what carries one moment came out of one input.
    #[must_use]
    pub fn moment(&self) -> u64 {
        self.vm().moment
    }

    /// Begins an exchange. Nothing runs before the first [`Host::step`].
    pub fn begin(&mut self, request: HttpRequest) -> ExchangeId {
        self.input();
        let id = self.vm().next_context;
        self.vm_mut().next_context += 1;
        let exchange = match self.vm().profile() {
            Profile::Envoy => self.envoy_exchange(request),
            Profile::Kong => self.kong_exchange(request),
        };
        self.vm_mut().exchanges.insert(id, exchange);
        ExchangeId(id)
    }

    /// Runs until the exchange needs something from outside or is over.
    pub fn step(&mut self, id: ExchangeId) -> Step {
        self.input();
        match self.vm().profile() {
            Profile::Envoy => self.envoy_step(id.0),
            Profile::Kong => self.kong_step(id.0),
        }
    }

    /// Answers a call; `false` when nobody waits for it any more.
    pub fn answer_call(&mut self, token: u32, outcome: CallOutcome) -> bool {
        self.input();
        let Some(call) = self.vm_mut().calls.remove(&token) else { return false };
        match self.vm().profile() {
            Profile::Envoy => self.envoy_answer(&call, outcome),
            Profile::Kong => self.kong_answer(&call, outcome),
        }
    }

    /// Hands the filter, in this exchange, the answer to a call that no instance of it remembers.
    pub fn answer_unknown_call(&mut self, id: ExchangeId, token: u32) -> bool {
        let request = PendingCall {
            token,
            exchange: Some(id),
            cluster: String::new(),
            headers: Headers::new(),
            body: Vec::new(),
            trailers: Headers::new(),
            timeout: None,
        };
        self.vm_mut().calls.insert(token, Call { context: id.0, request, announced: true });
        self.answer_call(token, CallOutcome::json(200, "{}"))
    }

    /// The upstream's response head, with `:status`; `end` when no body follows.
    pub fn upstream_response_head(&mut self, id: ExchangeId, headers: Headers, end: bool) {
        self.input();
        match self.vm().profile() {
            Profile::Envoy => {
                let mut headers = headers.lowercase_names();
                // The router's; its own replies have none.
                headers.add("x-envoy-upstream-service-time", "1");
                self.envoy_response_headers(id.0, headers, end);
            }
            Profile::Kong => self.kong_response_headers(id.0, headers, end),
        }
    }

    /// A piece of the upstream's response body. A chunked response ends with an empty chunk, as on the wire.
    pub fn upstream_response_body(&mut self, id: ExchangeId, chunk: &[u8], end: bool) {
        self.input();
        match self.vm().profile() {
            Profile::Envoy => self.envoy_response_data(id.0, chunk.to_vec(), end),
            Profile::Kong => self.kong_response_data(id.0, chunk.to_vec(), end),
        }
    }

    /// The connection to the upstream broke, or could not be made.
    pub fn upstream_reset(&mut self, id: ExchangeId) {
        self.input();
        match self.vm().profile() {
            Profile::Envoy => self.envoy_upstream_reset(id.0),
            Profile::Kong => self.kong_upstream_reset(id.0),
        }
    }

    /// The client goes away.
    pub fn client_aborts(&mut self, id: ExchangeId) {
        self.input();
        if let Some(exchange) = self.open_exchange(id.0) {
            exchange.observed.aborted = true;
            self.end_exchange(id.0);
        }
    }

    /// Another filter of this worker traps. Kong makes every context of the worker anew.
    pub fn another_filter_traps(&mut self) {
        self.input();
        self.instance_trapped();
    }

    /// Kong: another filter of this worker will trap between the head and the body of the next request.
    pub fn another_filter_traps_before_the_body(&mut self) {
        self.vm_mut().trap_before_body = true;
    }

    /// What the client and the upstream have seen so far.
    #[must_use]
    pub fn observed(&self, id: ExchangeId) -> Option<&Observed> {
        self.vm().exchanges.get(&id.0).map(|exchange| &exchange.observed)
    }

    /// Ends the exchange (a client still waiting goes away) and forgets it.
    pub fn finish(&mut self, id: ExchangeId) -> Observed {
        self.client_aborts(id);
        self.vm_mut().exchanges.remove(&id.0).map(|exchange| exchange.observed).unwrap_or_default()
    }
}
