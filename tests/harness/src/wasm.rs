//! The driver with the real filter: `toolgate.wasm` in a test host that behaves like a proxy.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::configuration;
use crate::host::{
    CallOutcome, Headers, Host, HttpRequest, PendingCall, Profile, Settings, Step, UpstreamRequest,
};
use crate::kong_log;
use crate::native::BEGIN;
use crate::play::{Driver, Observed, Request, Session};
use crate::record;
use crate::repository;
use crate::scenario::{DriverKind, Scenario};
use crate::world::{Answer, Asked, World, secret};

/// Where Kong finds the upstreams.
const KONG_UPSTREAMS: &[(&str, &str)] = &[
    ("everything", "127.0.0.1:3001"),
    ("billing", "127.0.0.1:3002"),
    ("idp", "127.0.0.1:3010"),
    ("vault", "127.0.0.1:8200"),
];

/// The name of the upstream at this address.
fn upstream_at(address: &str) -> &str {
    KONG_UPSTREAMS.iter().find(|(_, at)| *at == address).map_or(address, |(name, _)| name)
}

/// The filter in a test host.
pub struct Wasm {
    /// Which proxy the host is like.
    pub profile: Profile,
}

struct WasmSession {
    host: Host,
    profile: Profile,
    world: Arc<World>,
    now: Duration,
    /// Lines of the log that were read for records.
    read: usize,
    /// The metrics as they were after the exchange before.
    metrics: BTreeMap<String, u64>,
}

impl Driver for Wasm {
    fn kind(&self) -> DriverKind {
        match self.profile {
            Profile::Envoy => DriverKind::WasmEnvoy,
            Profile::Kong => DriverKind::WasmKong,
        }
    }

    fn start(&self, scenario: &Scenario, world: Arc<World>) -> Result<Box<dyn Session>, String> {
        let wasm = repository::path("target/toolgate.wasm");
        let environment: Vec<(String, String)> = ["ROLE_ID", "SECRET_ID"]
            .map(|name| (format!("TOOLGATE_VAULT_{name}"), secret(name).to_owned()))
            .into();
        let mut plugin = configuration::plugin(scenario.configuration.as_ref())?;
        if self.profile == Profile::Kong {
            let address = |name: &str| {
                KONG_UPSTREAMS
                    .iter()
                    .find(|(known, _)| *known == name)
                    .map(|(_, at)| (*at).to_owned())
            };
            configuration::adapt_to_kong(&mut plugin, address);
        }
        // As envoy.yaml and kong.conf set them.
        let mut settings = Settings::new(self.profile);
        settings.buffer_limit = 4 << 20;
        settings.client_body_buffer = 1 << 20;
        let mut host =
            Host::load_with(&wasm, settings, plugin.to_string().as_bytes(), &environment)
                .map_err(|error| format!("{}: {error}; run scripts/build first", wasm.display()))?;
        if !host.configured() {
            return Err(format!("the configuration was not accepted: {:?}", host.logs()));
        }
        host.set_time(BEGIN);
        let metrics = host.metrics();
        Ok(Box::new(WasmSession {
            host,
            profile: self.profile,
            world,
            now: BEGIN,
            read: 0,
            metrics,
        }))
    }
}

impl Session for WasmSession {
    fn now(&self) -> Duration {
        self.now
    }

    fn advance(&mut self, by: Duration) {
        self.now += by;
        self.host.set_time(self.now);
    }

    fn tick(&mut self) {
        self.host.tick();
        self.answer_root_calls();
    }

    fn exchange(&mut self, request: &Request) -> Result<Observed, String> {
        let id = self.host.begin(http_request(request));
        loop {
            match self.host.step(id) {
                Step::Call(call) => self.answer(call),
                Step::Upstream(upstream) => {
                    let answer = match self.route(upstream) {
                        Some(asked) => self.world.answer(asked),
                        None => Answer::Nobody,
                    };
                    match answer {
                        Answer::Reply(reply) => {
                            let end = reply.chunks.is_empty();
                            self.host.upstream_response_head(
                                id,
                                head(reply.status, &reply.headers),
                                end,
                            );
                            for (index, chunk) in reply.chunks.iter().enumerate() {
                                let end = index + 1 == reply.chunks.len();
                                self.host.upstream_response_body(id, chunk, end);
                            }
                        }
                        Answer::Nobody => self.host.upstream_reset(id),
                        Answer::Silence => self.host.client_aborts(id),
                    }
                }
                Step::AwaitUpstream | Step::Done => break,
                Step::Held { calls } => {
                    return Err(format!("the request is held for ever, {calls} calls pending"));
                }
            }
        }
        let seen = self.host.finish(id);
        if seen.trapped {
            return Err(format!("the filter trapped: {:?}", self.host.logs()));
        }
        if seen.hangs {
            return Err("the client would wait for ever".into());
        }
        let headers = seen
            .headers
            .iter()
            .map(|(name, value)| (name.to_owned(), String::from_utf8_lossy(value).into_owned()))
            .collect();
        Ok(Observed {
            status: seen.status,
            headers,
            body: seen.body(),
            audit: self.audit(&seen.properties),
            metrics: self.new_metrics(),
        })
    }

    fn logs(&mut self) -> String {
        self.host.logs().iter().map(|line| format!("{line:?}\n")).collect()
    }
}

impl WasmSession {
    /// Answers a call of the filter.
    fn answer(&mut self, call: PendingCall) {
        let asked = asked(upstream_at(&call.cluster), &call.headers, call.body);
        let outcome = match self.world.answer(asked) {
            Answer::Reply(reply) => CallOutcome::Response {
                headers: head(reply.status, &reply.headers),
                body: reply.chunks.concat(),
            },
            Answer::Silence => CallOutcome::TimedOut,
            Answer::Nobody => CallOutcome::Unreachable,
        };
        self.host.answer_call(call.token, outcome);
    }

    fn answer_root_calls(&mut self) {
        while let Some(call) = self.host.root_call() {
            self.answer(call);
        }
    }

    /// What the proxy's own configuration does: on Envoy the route table of envoy.yaml, on Kong the
    /// service's target. None where the filter chose no upstream.
    fn route(&self, upstream: UpstreamRequest) -> Option<Asked> {
        let mut headers = upstream.headers;
        let cluster = match self.profile {
            Profile::Envoy => headers.text("x-toolgate-upstream")?.to_owned(),
            Profile::Kong => upstream_at(&upstream.address?).to_owned(),
        };
        headers.remove("x-toolgate-upstream");
        Some(asked(&cluster, &headers, upstream.body))
    }

    /// The record as the access log of the proxy would have it.
    fn audit(&mut self, properties: &BTreeMap<String, Vec<u8>>) -> Vec<BTreeMap<String, String>> {
        match self.profile {
            Profile::Envoy => {
                let whole = properties.get("wasm.toolgate.record").map(Vec::as_slice);
                let read = |bytes: &[u8]| record::parse(&String::from_utf8_lossy(bytes));
                whole.map(read).into_iter().filter_map(Result::ok).collect()
            }
            Profile::Kong => self.new_kong_records(),
        }
    }

    /// What was added to metrics since the last time. On Kong there are none, whatever a scenario says.
    fn new_metrics(&mut self) -> Option<BTreeMap<String, u64>> {
        let now = self.host.metrics();
        let before = std::mem::replace(&mut self.metrics, now.clone());
        let growth = |(name, value): (String, u64)| {
            let before = before.get(&name).copied().unwrap_or(0);
            (value > before).then(|| (name, value - before))
        };
        (self.profile == Profile::Envoy || !now.is_empty())
            .then(|| now.into_iter().filter_map(growth).collect())
    }

    /// The records in the error log that were not there before.
    fn new_kong_records(&mut self) -> Vec<BTreeMap<String, String>> {
        let lines: Vec<&str> =
            self.host.logs().iter().skip(self.read).map(|line| line.text.as_str()).collect();
        self.read += lines.len();
        kong_log::records(lines)
    }
}

fn http_request(request: &Request) -> HttpRequest {
    let mut http = HttpRequest::new(&request.method, &request.path);
    // Envoy takes this header away before any filter runs (early_header_mutation in envoy.yaml).
    for (name, value) in request.headers.iter().filter(|(name, _)| name != "x-toolgate-upstream") {
        if name == "host" {
            http.headers.set(":authority", value.as_bytes());
        } else {
            http = http.header(name, value.as_bytes());
        }
    }
    let length: usize = request.pieces.iter().map(Vec::len).sum();
    if length > 0 && !request.trailers {
        http = http.header("content-length", length.to_string());
    }
    http = http.chunks(request.pieces.clone());
    if request.trailers {
        http = http.header("transfer-encoding", "chunked").trailers([("x-trailer", "1")]);
    }
    http
}

fn head(status: u16, headers: &[(String, String)]) -> Headers {
    let mut head = Headers::from([(":status", status.to_string())]);
    for (name, value) in headers {
        head.add(name.as_str(), value.as_bytes());
    }
    head
}

fn asked(cluster: &str, headers: &Headers, body: Vec<u8>) -> Asked {
    let text = |name: &str| headers.text(name).unwrap_or_default().to_owned();
    Asked {
        cluster: cluster.to_owned(),
        method: text(":method"),
        path: text(":path"),
        // On the wire `:authority` is `Host`.
        headers: headers
            .iter()
            .map(|(name, value)| (if name == ":authority" { "host" } else { name }, value))
            .filter(|(name, _)| !name.starts_with(':'))
            .map(|(name, value)| (name.to_owned(), String::from_utf8_lossy(value).into_owned()))
            .collect(),
        body,
    }
}
