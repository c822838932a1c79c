//! The state behind the host calls: what the proxy of one worker remembers.
//!
//! It is the data of the wasmtime store; the host calls change it, the exchange machines read it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::http::{
    CallOutcome, ExchangeId, Headers, HttpRequest, LogLevel, LogLine, Observed, PendingCall,
    UpstreamRequest,
};
use super::settings::{Profile, Settings};
use super::shared::{Metrics, Queues};

/// Context id of the one root context.
pub(crate) const ROOT: u32 = 1;

/// Which callback is running: Kong allows most host calls in some of them only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Idle,
    Start,
    Configure,
    Tick { stale: bool },
    Create,
    RequestHeaders,
    RequestBody,
    RequestTrailers,
    ResponseHeaders,
    ResponseBody,
    CallResponse,
    Log,
    Done,
}

/// What a host call asks the proxy to do once the callback has returned.
#[derive(Debug)]
pub(crate) enum Deferred {
    Reply { exchange: u32, status: u16, details: String, headers: Headers, body: Vec<u8> },
    ResumeRequest(u32),
    ResumeResponse(u32),
    Close(u32),
}

/// A dispatched call until it is answered.
#[derive(Debug)]
pub(crate) struct Call {
    /// Context that dispatched it.
    pub(crate) context: u32,
    pub(crate) request: PendingCall,
    /// Handed to the test already.
    pub(crate) announced: bool,
}

/// A tick timer; `stale` ones belong to an instance that trapped (Kong).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timer {
    pub(crate) period: Duration,
    pub(crate) stale: bool,
}

/// What the client has sent and the proxy has not yet processed.
#[derive(Debug)]
pub(crate) enum Inbound {
    Data { chunk: Vec<u8>, end: bool },
    Trailers(Headers),
}

/// How a direction of a stream is stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Hold {
    /// It flows.
    #[default]
    Open,
    /// Stopped at the filter, whose body callbacks still come (Envoy's StopIteration).
    AtFilter,
    /// Stopped; nothing is delivered to the filter either (StopAllIteration, and Kong's pause).
    All,
}

/// One direction of an exchange, as far as the filter can see and change it.
#[derive(Debug, Default)]
pub(crate) struct Direction {
    pub(crate) headers: Headers,
    /// The filter may look at `headers`.
    pub(crate) visible: bool,
    pub(crate) trailers: Option<Headers>,
    /// Chunk of the running callback.
    pub(crate) chunk: Option<Vec<u8>>,
    /// What the proxy holds for the filter.
    pub(crate) held: Vec<u8>,
    /// `held` is what the filter sees instead of `chunk`.
    pub(crate) buffering: bool,
    pub(crate) hold: Hold,
    /// Headers went on.
    pub(crate) headers_sent: bool,
    /// The sender is done.
    pub(crate) ended: bool,
    /// The end went on.
    pub(crate) end_sent: bool,
    pub(crate) inbox: VecDeque<Inbound>,
}

impl Direction {
    /// The bytes the filter may read and write now.
    pub(crate) fn visible_body(&mut self) -> Option<&mut Vec<u8>> {
        if self.buffering { Some(&mut self.held) } else { self.chunk.as_mut() }
    }
}

/// One exchange.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) original: HttpRequest,
    pub(crate) started: Duration,
    pub(crate) request: Direction,
    pub(crate) response: Direction,
    pub(crate) upstream: UpstreamRequest,
    pub(crate) upstream_announced: bool,
    pub(crate) observed: Observed,
    /// `proxy_on_context_create` ran in the living instance.
    pub(crate) created: bool,
    /// The filter takes no more part (a failed VM, Kong after a trap, dispatch-and-continue).
    pub(crate) bypass: bool,
    /// The response began: local replies now replace it directly or reset the stream.
    pub(crate) responding: bool,
    pub(crate) over: bool,
    /// Kong: what runs next on the request side.
    pub(crate) stage: Stage,
    /// Kong: a local reply waits for the callback to return.
    pub(crate) stashed: bool,
    /// Kong: body of a local reply made in the response headers.
    pub(crate) override_body: Option<Vec<u8>>,
    /// Kong: the response body was paused once.
    pub(crate) buffered_once: bool,
    /// Kong: `content-length` of the upstream's response.
    pub(crate) upstream_length: Option<usize>,
    /// Kong: body bytes of the upstream that the filter was shown.
    pub(crate) response_seen: usize,
    /// Kong: continued with calls under way.
    pub(crate) continued_with_calls: bool,
    /// Kong: `proxy_continue_stream` was called.
    pub(crate) resume_requested: bool,
}

/// Where a Kong request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Headers,
    Body,
    Proxy,
}

impl Exchange {
    pub(crate) fn new(original: HttpRequest, headers: Headers, started: Duration) -> Self {
        Self {
            original,
            started,
            request: Direction { headers, ..Direction::default() },
            response: Direction::default(),
            upstream: UpstreamRequest::default(),
            upstream_announced: false,
            observed: Observed::default(),
            created: false,
            bypass: false,
            responding: false,
            over: false,
            stage: Stage::Headers,
            stashed: false,
            override_body: None,
            buffered_once: false,
            upstream_length: None,
            response_seen: 0,
            continued_with_calls: false,
            resume_requested: false,
        }
    }
}

/// Everything one worker remembers.
#[derive(Debug)]
pub(crate) struct Vm {
    pub(crate) settings: Settings,
    pub(crate) configuration: Vec<u8>,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) now: Duration,
    /// Counts inputs from outside.
    pub(crate) moment: u64,
    pub(crate) logs: Vec<LogLine>,
    pub(crate) queues: Queues,
    pub(crate) metrics: Metrics,
    pub(crate) exchanges: BTreeMap<u32, Exchange>,
    pub(crate) calls: BTreeMap<u32, Call>,
    pub(crate) last_token: Option<u32>,
    /// The answered call, while its callback runs.
    pub(crate) answered: Option<CallOutcome>,
    pub(crate) timers: Vec<Timer>,
    pub(crate) current: u32,
    pub(crate) effective: Option<u32>,
    pub(crate) phase: Phase,
    pub(crate) deferred: Vec<Deferred>,
    /// Envoy: a local reply was sent in this callback.
    pub(crate) stopped: bool,
    /// State of `random_get`.
    pub(crate) random: u64,
    /// Another filter traps between the head and the body of the next request (Kong).
    pub(crate) trap_before_body: bool,
    /// The worker process died (Kong).
    pub(crate) crashed: bool,
    /// Ids are never reused.
    pub(crate) next_context: u32,
}

impl Vm {
    pub(crate) fn new(
        settings: Settings,
        configuration: &[u8],
        environment: &[(String, String)],
    ) -> Self {
        let random = settings.seed;
        Self {
            settings,
            configuration: configuration.to_vec(),
            environment: environment.to_vec(),
            now: Duration::ZERO,
            moment: 0,
            logs: Vec::new(),
            queues: Queues::default(),
            metrics: Metrics::default(),
            exchanges: BTreeMap::new(),
            calls: BTreeMap::new(),
            last_token: None,
            answered: None,
            timers: Vec::new(),
            current: 0,
            effective: None,
            phase: Phase::Idle,
            deferred: Vec::new(),
            stopped: false,
            random,
            trap_before_body: false,
            crashed: false,
            next_context: ROOT + 1,
        }
    }

    pub(crate) fn profile(&self) -> Profile {
        self.settings.profile
    }

    /// The context host calls act on.
    pub(crate) fn context(&self) -> u32 {
        self.effective.unwrap_or(self.current)
    }

    pub(crate) fn exchange(&self) -> Option<&Exchange> {
        self.exchanges.get(&self.context())
    }

    pub(crate) fn exchange_mut(&mut self) -> Option<&mut Exchange> {
        let context = self.context();
        self.exchanges.get_mut(&context)
    }

    /// Whether host calls act on the root context.
    pub(crate) fn in_root(&self) -> bool {
        self.exchange().is_none()
    }

    pub(crate) fn log(&mut self, level: LogLevel, text: impl Into<String>) {
        self.logs.push(LogLine { level, by_filter: false, text: text.into() });
    }

    /// Unanswered calls of a context.
    pub(crate) fn calls_of(&self, context: u32) -> usize {
        self.calls.values().filter(|call| call.context == context).count()
    }

    /// The first call of a context that the test has not been given yet.
    pub(crate) fn announce_call(&mut self, context: u32) -> Option<PendingCall> {
        let call =
            self.calls.values_mut().find(|call| call.context == context && !call.announced)?;
        call.announced = true;
        Some(call.request.clone())
    }

    pub(crate) fn add_call(&mut self, mut request: PendingCall) -> u32 {
        let context = self.context();
        let token = match (self.profile(), self.last_token) {
            // kong-host.md §5: token ids start at 0.
            (Profile::Kong, None) if self.settings.kong.tokens_start_at_zero => 0,
            (Profile::Kong, None) => 1,
            (Profile::Kong, Some(last)) => last + 1,
            // Envoy keeps the kind of call in the two low bits: 4, 8, 12, ...
            (Profile::Envoy, last) => last.unwrap_or(0) + 4,
        };
        self.last_token = Some(token);
        request.token = token;
        request.exchange = self.exchanges.contains_key(&context).then_some(ExchangeId(context));
        self.calls.insert(token, Call { context, request, announced: false });
        token
    }

    /// A deterministic byte: what a test draws twice from one seed is the same.
    pub(crate) fn random_byte(&mut self) -> u8 {
        // splitmix64
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let [byte, ..] = (mixed ^ (mixed >> 31)).to_le_bytes();
        byte
    }
}
