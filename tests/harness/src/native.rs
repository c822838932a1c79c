//! The driver without a proxy: the core alone, with a clock that moves when it is told to.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use toolgate_core::{
    CallOutcome, Effect, Event, Exchange, Flow, Gateway, HeadEdit, Headers, HostFacts, HttpCall,
    LocalReply, Measurement, MetricKind, ServerReply, SharedAccess, SharedValue, Timestamp,
    UpstreamRequest,
};
use toolgate_protocol::json::Json;

use crate::configuration;
use crate::play::{Driver, Observed, Request, Session};
use crate::scenario::{DriverKind, Scenario};
use crate::world::{Answer, Asked, Reply, World, secret};

/// When scenarios with a virtual clock begin: 2026-11-23T12:00:00Z.
pub const BEGIN: Duration = Duration::from_secs(1_795_435_200);

/// The core, natively.
pub struct Native;

struct NativeSession {
    gateway: Rc<Gateway>,
    world: Arc<World>,
    now: Duration,
    lenient: bool,
    shared: SharedMemory,
}

impl Driver for Native {
    fn kind(&self) -> DriverKind {
        DriverKind::Native
    }

    fn start(&self, scenario: &Scenario, world: Arc<World>) -> Result<Box<dyn Session>, String> {
        let plugin = configuration::plugin(scenario.configuration.as_ref())?;
        let gateway = Rc::new(gateway(&plugin)?);
        gateway.measure();
        // What the stricter host cannot do is played as the other one does it.
        let lenient = scenario.except.contains_key(&DriverKind::WasmKong);
        if lenient {
            gateway.share_calls();
        }
        Ok(Box::new(NativeSession {
            gateway,
            world,
            now: BEGIN,
            lenient,
            shared: SharedMemory::default(),
        }))
    }
}

/// The gateway of a plugin configuration, with the planted secrets as its environment.
///
/// # Errors
/// Everything that is wrong with the configuration.
pub fn gateway(plugin: &Value) -> Result<Gateway, String> {
    Gateway::compile(plugin.to_string().as_bytes(), &environment)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}

fn environment(name: &str) -> Option<String> {
    Some(secret(name.strip_prefix("TOOLGATE_VAULT_")?).to_owned())
}

impl Session for NativeSession {
    fn now(&self) -> Duration {
        self.now
    }

    fn advance(&mut self, by: Duration) {
        self.now += by;
    }

    fn tick(&mut self) {
        let now = Timestamp(self.now);
        for (id, call) in self.gateway.tick(now) {
            let _nobody_waits = self.gateway.finish_call(id, call_out(&self.world, &call), now);
        }
    }

    fn exchange(&mut self, request: &Request) -> Result<Observed, String> {
        let mut run = Run::new(Rc::clone(&self.gateway), &self.world, self.now);
        run.takes_late_bodies = self.lenient;
        run.shared = Rc::clone(&self.shared);
        run.request(request)?;
        let mut observed = run.finish()?;
        observed.metrics = Some(self.measured());
        Ok(observed)
    }

    fn logs(&mut self) -> String {
        String::new()
    }
}

impl NativeSession {
    fn measured(&self) -> BTreeMap<String, u64> {
        let mut metrics = BTreeMap::new();
        self.gateway.take_measurements(|Measurement { series, value }| {
            if let Some((kind, name)) = self.gateway.metric(series) {
                let more = if kind == MetricKind::Counter { value } else { 1 };
                *metrics.entry(name.to_string()).or_default() += more;
            }
        });
        metrics
    }
}

/// Slots by their keys, each with its version.
pub type SharedMemory = Rc<RefCell<BTreeMap<String, SharedValue>>>;

/// Does what an exchange asks for of the shared memory.
fn access(memory: &SharedMemory, access: SharedAccess) -> Event<'static> {
    let mut memory = memory.borrow_mut();
    match access {
        SharedAccess::Read(slots) => {
            let none = || SharedValue { bytes: Vec::new(), version: 0 };
            let read = |key: String| memory.get(&key).cloned().unwrap_or_else(none);
            Event::SharedRead(slots.into_iter().map(|slot| Some(read(slot.key()))).collect())
        }
        SharedAccess::Write { slot, value } => {
            let key = slot.key();
            let version = memory.get(&key).map_or(0, |known| known.version);
            let is_current = version == value.version;
            if is_current {
                memory.insert(key, SharedValue { version: version + 1, ..value });
            }
            Event::SharedWritten(is_current)
        }
    }
}

/// One exchange under way.
pub struct Run<'a> {
    exchange: Exchange,
    gateway: Rc<Gateway>,
    world: &'a World,
    now: Timestamp,
    observed: Observed,
    upstream: Option<UpstreamRequest>,
    body: Option<Vec<u8>>,
    replied: bool,
    /// Fails every call with this number or a later one, to see that the gateway then refuses.
    pub fail_calls_from: Option<usize>,
    /// The memory that workers share.
    pub shared: SharedMemory,
    /// How many calls were made.
    pub calls: usize,
    /// Where a server's answer is cut into pieces, instead of where the world cuts it.
    pub response_cuts: Option<Vec<usize>>,
    /// Whether a request's body may be replaced after calls, and a response's head held.
    pub takes_late_bodies: bool,
}

impl<'a> Run<'a> {
    /// A new exchange of a gateway, in a world, at this time.
    #[must_use]
    pub fn new(gateway: Rc<Gateway>, world: &'a World, now: Duration) -> Self {
        Self {
            exchange: Exchange::new(Some(Rc::clone(&gateway))),
            gateway,
            world,
            now: Timestamp(now),
            observed: Observed::default(),
            upstream: None,
            body: None,
            replied: false,
            fail_calls_from: None,
            shared: SharedMemory::default(),
            calls: 0,
            response_cuts: None,
            takes_late_bodies: false,
        }
    }

    /// Sends the request, and the server's answer if it reaches one.
    ///
    /// # Errors
    /// When the gateway breaks a rule that no host could carry out.
    pub fn request(&mut self, request: &Request) -> Result<(), String> {
        // On the wire `Host` is `:authority`.
        let host = request.headers.iter().find(|(name, _)| name == "host");
        let mut pairs = vec![
            (":method".to_owned(), request.method.clone()),
            (":path".to_owned(), request.path.clone()),
            (":authority".to_owned(), host.map_or("127.0.0.1:10000", |(_, host)| host).to_owned()),
        ];
        pairs.extend(request.headers.iter().filter(|(name, _)| name != "host").cloned());
        let head = Headers::from_pairs(pairs.clone());
        let bodyless = request.pieces.is_empty();
        let source = Some("127.0.0.1".to_owned());
        let host = HostFacts {
            certificate: request.host.certificate.clone(),
            caller: request.host.caller.clone().map(String::into_bytes),
        };
        let _held = self.event(Event::HostFacts(host))?;
        let mut flow = self.event(Event::RequestHead { headers: head, source, end: bodyless })?;
        for (index, piece) in request.pieces.iter().enumerate() {
            if self.replied {
                break;
            }
            let end = index + 1 == request.pieces.len() && !request.trailers;
            flow = self.event(Event::RequestBody { chunk: piece, end })?;
        }
        if request.trailers && !self.replied {
            flow = self.event(Event::RequestTrailers)?;
        }
        let Some(upstream) = self.upstream.take() else {
            return match (flow, self.replied) {
                (Flow::Forward, false) => Err("the request goes on without a decision".into()),
                (Flow::Hold, false) => Err("the request is held for ever".into()),
                (_, true) => Ok(()),
            };
        };
        let answer = {
            let body = match self.body.take() {
                Some(body) => body,
                None if bodyless => Vec::new(),
                None => as_the_gateway_writes(&request.pieces.concat())?,
            };
            self.world.answer(asked(&upstream, &pairs, &request.method, body))
        };
        match answer {
            Answer::Silence if request.abort => Ok(()),
            Answer::Silence => Err("the server is silent and the client waits for ever".into()),
            Answer::Nobody => self.respond(&Reply {
                status: 503,
                headers: vec![("content-type".into(), "text/plain".into())],
                chunks: vec![b"upstream connect error or disconnect/reset before headers".to_vec()],
                trailers: Vec::new(),
            }),
            Answer::Reply(mut reply) => {
                // As Envoy's router does.
                reply.headers.push(("x-envoy-upstream-service-time".into(), "1".into()));
                self.respond(&reply)
            }
        }
    }

    /// Ends the exchange.
    ///
    /// # Errors
    /// When the gateway writes no record.
    pub fn finish(mut self) -> Result<Observed, String> {
        let _nothing_follows = self.event(Event::Closed)?;
        Ok(self.observed)
    }

    fn respond(&mut self, reply: &Reply) -> Result<(), String> {
        let mut pairs = vec![(":status".to_owned(), reply.status.to_string())];
        pairs.extend(reply.headers.clone());
        self.observed.headers = pairs.clone();
        let end = reply.chunks.is_empty();
        let head = Event::ResponseHead { headers: Headers::from_pairs(pairs), end };
        let _goes_on_in_any_case = self.event(head)?;
        if self.replied {
            return Ok(());
        }
        let chunks = match &self.response_cuts {
            Some(cuts) => cut(&reply.chunks.concat(), cuts),
            None => reply.chunks.clone(),
        };
        for (index, chunk) in chunks.iter().enumerate() {
            let before = self.observed.body.len();
            self.observed.body.extend(chunk);
            let end = index + 1 == chunks.len();
            if self.exchange.reads_response() {
                let mut effects = Vec::new();
                let event = Event::ResponseBody { chunk, end };
                let held = self.exchange.holds_response();
                let _goes_on_in_any_case = self.exchange.handle(event, self.now, &mut effects);
                for effect in effects {
                    match effect {
                        Effect::ReplaceChunk(bytes) => {
                            self.observed.body.truncate(before);
                            self.observed.body.extend(bytes);
                        }
                        Effect::Call { id, call } => {
                            let outcome = self.call(&call);
                            let done = self.gateway.finish_call(id, outcome, self.now);
                            if !done.waiting().is_empty() {
                                return Err("an exchange waits for a call in its response".into());
                            }
                        }
                        Effect::Reply(reply) if held => {
                            self.reply(reply);
                            return Ok(());
                        }
                        Effect::Answer(reply) if held => {
                            self.answer(reply);
                            return Ok(());
                        }
                        _ => return Err("a response has an effect that it must not have".into()),
                    }
                }
                if held && self.exchange.holds_response() && self.observed.body.len() > before {
                    return Err("bytes of a response go on before its head".into());
                }
            }
        }
        let status = self.observed.headers.iter().find(|(name, _)| name == ":status");
        self.observed.status = status.and_then(|(_, status)| status.parse().ok());
        Ok(())
    }

    fn event(&mut self, event: Event<'_>) -> Result<Flow, String> {
        let mut effects = Vec::new();
        let mut flow = self.exchange.handle(event, self.now, &mut effects);
        let mut called = false;
        let mut queue: std::collections::VecDeque<Effect> = effects.into();
        while let Some(effect) = queue.pop_front() {
            match effect {
                Effect::Shared(wanted) => {
                    if flow == Flow::Forward {
                        return Err("the request goes on while it is being counted".into());
                    }
                    let mut effects = Vec::new();
                    let done = access(&self.shared, wanted);
                    flow = self.exchange.handle(done, self.now, &mut effects);
                    queue.extend(effects);
                }
                Effect::Call { id, call } => {
                    if flow == Flow::Forward {
                        return Err("the request goes on while a call is under way".into());
                    }
                    called = true;
                    let outcome = self.call(&call);
                    let done = self.gateway.finish_call(id, outcome, self.now);
                    let mut effects = Vec::new();
                    flow = self.exchange.handle(Event::CallDone(&done), self.now, &mut effects);
                    queue.extend(effects);
                }
                Effect::ReplaceRequestBody(bytes) if called && !self.takes_late_bodies => {
                    return Err(format!("a body of {} bytes comes too late", bytes.len()));
                }
                Effect::ReplaceRequestBody(bytes) => self.body = Some(bytes),
                Effect::SendUpstream(request) => self.upstream = Some(request),
                Effect::Reply(reply) => {
                    if flow == Flow::Forward {
                        return Err("the request goes on although it was answered".into());
                    }
                    self.replied = true;
                    self.reply(reply);
                }
                Effect::Answer(reply) => {
                    if !called || flow == Flow::Forward {
                        return Err("a response is answered that was not held".into());
                    }
                    self.answer(reply);
                }
                Effect::EditResponse(edit) => apply(&edit, &mut self.observed.headers),
                Effect::ReplaceChunk(_) => return Err("there is no piece to replace".into()),
                Effect::Audit(record) => {
                    let mut fields = std::collections::BTreeMap::new();
                    record.each_field(|name, value| {
                        fields.insert(name.to_owned(), value.to_owned());
                    });
                    self.observed.audit.push(fields);
                }
            }
        }
        Ok(flow)
    }

    fn reply(&mut self, reply: LocalReply) {
        self.observed.status = Some(reply.status);
        self.observed.headers =
            reply.headers.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect();
        self.observed.body = reply.body;
    }

    fn answer(&mut self, reply: ServerReply) {
        self.replied = true;
        self.observed.status = Some(reply.status);
        self.observed.headers = reply.headers;
        self.observed.body = reply.body;
    }

    fn call(&mut self, call: &HttpCall) -> CallOutcome {
        self.calls += 1;
        if self.fail_calls_from.is_some_and(|first| self.calls > first) {
            return CallOutcome::Failed;
        }
        call_out(self.world, call)
    }
}

/// Makes a call of the gateway.
fn call_out(world: &World, call: &HttpCall) -> CallOutcome {
    let asked = Asked {
        cluster: call.cluster.to_string(),
        method: call.method.into(),
        path: call.path.clone(),
        headers: call
            .headers
            .iter()
            .map(|(n, v)| ((*n).to_owned(), v.expose().to_owned()))
            .chain(call.credentials.iter().map(|(n, v)| (n.clone(), v.expose().to_owned())))
            .collect(),
        body: call.body.as_ref().map(|body| body.expose().as_bytes().to_vec()).unwrap_or_default(),
    };
    match world.answer(asked) {
        Answer::Reply(reply) => CallOutcome::Response {
            status: reply.status,
            headers: Headers::from_pairs(reply.headers),
            body: reply.chunks.concat(),
        },
        Answer::Silence | Answer::Nobody => CallOutcome::Failed,
    }
}

/// Bytes in pieces, cut at these positions; an empty body is one empty piece.
#[must_use]
pub fn cut(bytes: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.dedup();
    let pieces = cuts.windows(2).filter_map(|pair| bytes.get(*pair.first()?..*pair.last()?));
    let pieces: Vec<Vec<u8>> = pieces.map(<[u8]>::to_vec).collect();
    if pieces.is_empty() { vec![Vec::new()] } else { pieces }
}

/// The request that a host makes of the client's and the gateway's changes.
fn asked(
    upstream: &UpstreamRequest,
    pairs: &[(String, String)],
    method: &str,
    body: Vec<u8>,
) -> Asked {
    let mut headers: Vec<(String, String)> =
        pairs.iter().filter(|(name, _)| !name.starts_with(':')).cloned().collect();
    apply(&upstream.edit, &mut headers);
    headers.push(("host".into(), upstream.authority.to_string()));
    let changed =
        headers.iter().find(|(name, _)| name == ":method").map(|(_, value)| value.clone());
    headers.retain(|(name, _)| name != ":method");
    Asked {
        cluster: upstream.cluster.to_string(),
        method: changed.unwrap_or_else(|| method.to_owned()),
        path: upstream.path.to_string(),
        headers,
        body,
    }
}

/// What the client sent, which may only go on when it is what the gateway would have written.
fn as_the_gateway_writes(body: &[u8]) -> Result<Vec<u8>, String> {
    let message = Json::parse(body).map_err(|error| error.to_string())?;
    if message.to_bytes() == body {
        Ok(body.to_vec())
    } else {
        Err("the client's own bytes would go upstream".into())
    }
}

fn apply(edit: &HeadEdit, headers: &mut Vec<(String, String)>) {
    headers.retain(|(name, _)| !edit.remove.contains(name));
    for (name, value) in &edit.set {
        headers.retain(|(known, _)| known != name);
        headers.push((name.clone(), value.expose().to_owned()));
    }
}
