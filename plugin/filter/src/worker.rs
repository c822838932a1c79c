//! What the contexts of one worker share: the gateway, and the calls it makes.
//!
//! On Envoy every call belongs to the root context, whose callback wakes the exchanges that wait for
//! it: so one call serves many, and its answer arrives also when the exchange that made it is gone.
//! Kong lets no context act on another, and goes on with a request when its own calls are over: there
//! each exchange makes its own. Not here: what is called and who waits (the gateway decides).

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::{Rc, Weak};

use toolgate_core::{CallId, CallOutcome, ExchangeId, Flow, Gateway, Headers, HttpCall};

use crate::abi::{self, Buffer, Map, Status};
use crate::calls;
use crate::exchange::{Exchanging, now};
use crate::host::Host;
use crate::metrics::Recorder;

/// Calls under way, by the host's token.
pub(crate) type Tokens = RefCell<BTreeMap<u32, (Rc<Worker>, CallId)>>;

/// One configured plugin on one worker.
pub(crate) struct Worker {
    pub(crate) gateway: Option<Rc<Gateway>>,
    pub(crate) host: Host,
    metrics: Recorder,
    root: u32,
    tokens: Rc<Tokens>,
    waiting: RefCell<BTreeMap<ExchangeId, Waiting>>,
    /// Calls that the root context is to make.
    outbox: RefCell<Vec<(CallId, HttpCall)>>,
    /// Calls that could not even be made.
    failed: RefCell<Vec<CallId>>,
    /// Whether a callback of the root context is running, in which nothing may enter it.
    in_root: Cell<bool>,
}

/// An exchange that waits for a call, and the context that it lives in.
struct Waiting {
    context: u32,
    exchange: Weak<RefCell<Exchanging>>,
}

impl Worker {
    pub(crate) fn new(
        gateway: Option<Rc<Gateway>>,
        host: Host,
        root: u32,
        tokens: Rc<Tokens>,
    ) -> Rc<Self> {
        if let (Some(gateway), true) = (&gateway, host.wakes_others()) {
            gateway.share_calls();
        }
        if let (Some(gateway), true) = (&gateway, host.has_metrics()) {
            gateway.measure();
        }
        Rc::new(Self {
            gateway,
            host,
            metrics: Recorder::default(),
            root,
            tokens,
            waiting: RefCell::default(),
            outbox: RefCell::default(),
            failed: RefCell::default(),
            in_root: Cell::new(false),
        })
    }

    /// Makes calls; returns those that could not be made and are over at once. Where they belong to the
    /// context that makes them, their tokens go to `own`.
    pub(crate) fn make(
        self: &Rc<Self>,
        calls: Vec<(CallId, HttpCall)>,
        own: &mut BTreeSet<u32>,
    ) -> Vec<CallId> {
        self.outbox.borrow_mut().extend(calls);
        if !self.host.wakes_others() {
            own.extend(self.send_outbox());
        } else if self.in_root.get() {
            self.send_outbox();
        } else {
            // The SDK's dispatcher hands answers to the context whose callback made the call.
            abi::enter_root(self.root);
        }
        std::mem::take(&mut *self.failed.borrow_mut())
    }

    fn send_outbox(self: &Rc<Self>) -> Vec<u32> {
        let calls = std::mem::take(&mut *self.outbox.borrow_mut());
        let mut made = Vec::new();
        for (id, call) in calls {
            match dispatch(self.host, &call) {
                Some(token) => {
                    self.tokens.borrow_mut().insert(token, (Rc::clone(self), id));
                    made.push(token);
                }
                None => self.failed.borrow_mut().push(id),
            }
        }
        made
    }

    /// The root context was entered by [`Worker::make`].
    pub(crate) fn on_entered(self: &Rc<Self>) {
        let _noted_by_the_worker = self.send_outbox();
    }

    /// Time has passed.
    pub(crate) fn on_tick(self: &Rc<Self>) {
        let Some(gateway) = &self.gateway else { return };
        let calls = gateway.tick(now());
        if !calls.is_empty() {
            self.in_root.set(true);
            let failed = self.make(calls, &mut BTreeSet::new());
            self.finish(failed.into_iter().map(|id| (id, CallOutcome::Failed)).collect());
            self.in_root.set(false);
        }
    }

    /// A call of the root context is over.
    pub(crate) fn on_call_done(self: &Rc<Self>, id: CallId, outcome: CallOutcome) {
        self.in_root.set(true);
        self.finish(vec![(id, outcome)]);
        self.in_root.set(false);
    }

    /// Hands finished calls to the exchanges that wait, those that fail at once on the way included.
    fn finish(self: &Rc<Self>, mut finished: Vec<(CallId, CallOutcome)>) {
        let Some(gateway) = &self.gateway else { return };
        while let Some((id, outcome)) = finished.pop() {
            let done = gateway.finish_call(id, outcome, now());
            gateway.take_notes(|note| match note.is_problem {
                true => log::error!("toolgate {}", note.text),
                false => log::info!("toolgate {}", note.text),
            });
            for waiting in done.waiting() {
                let Some((context, exchange)) = self.waiter(*waiting) else { continue };
                // A context that the host has forgotten has nothing to go on with.
                if abi::act_on(context).is_err() {
                    continue;
                }
                let Ok(mut exchange) = exchange.try_borrow_mut() else { continue };
                let (flow, calls) = exchange.call_done(&done);
                drop(exchange);
                if flow == Flow::Forward {
                    resume();
                }
                let failed = self.make(calls, &mut BTreeSet::new());
                finished.extend(failed.into_iter().map(|id| (id, CallOutcome::Failed)));
            }
        }
        // Whatever the host does after this callback is about the root context again.
        let _it_is_alive = abi::act_on(self.root);
        self.record_metrics();
    }

    /// Records what was measured since the last time.
    pub(crate) fn record_metrics(&self) {
        if let Some(gateway) = &self.gateway {
            self.metrics.record(gateway);
        }
    }

    /// Takes the call with this token out of those under way.
    pub(crate) fn take(&self, token: u32) -> Option<(Rc<Self>, CallId)> {
        self.tokens.borrow_mut().remove(&token)
    }

    fn waiter(&self, id: ExchangeId) -> Option<(u32, Rc<RefCell<Exchanging>>)> {
        let waiting = self.waiting.borrow();
        let waiting = waiting.get(&id)?;
        Some((waiting.context, waiting.exchange.upgrade()?))
    }

    /// Notes that an exchange waits, in this context.
    pub(crate) fn waits(&self, id: ExchangeId, context: u32, exchange: &Rc<RefCell<Exchanging>>) {
        let exchange = Rc::downgrade(exchange);
        self.waiting.borrow_mut().insert(id, Waiting { context, exchange });
    }

    /// Notes that an exchange is over.
    pub(crate) fn forget(&self, id: ExchangeId) {
        self.waiting.borrow_mut().remove(&id);
    }
}

/// The answer to a call, as it lies in the host.
pub(crate) fn outcome(size: usize) -> CallOutcome {
    let headers = Headers::from_pairs(abi::headers(Map::CallResponse).unwrap_or_default());
    let status = headers.single(":status").ok().flatten().and_then(|status| status.parse().ok());
    match status {
        // The gateway reads less than this of any answer: the copy is spared.
        Some(_) if size > LARGEST_ANSWER => CallOutcome::TooLarge,
        Some(status) => CallOutcome::Response {
            status,
            headers,
            body: abi::buffer(Buffer::CallResponseBody).unwrap_or_default(),
        },
        None => CallOutcome::Failed,
    }
}

/// Largest answer that is taken over from the host, whatever it is for, in bytes.
const LARGEST_ANSWER: usize = 16 << 20;

/// Lets the request of the active context go on.
pub(crate) fn resume() {
    if let Err(Status(status)) = abi::resume_request() {
        log::error!("a request could not be resumed: status {status}");
    }
}

fn dispatch(host: Host, call: &HttpCall) -> Option<u32> {
    let mut headers: Vec<(&str, &str)> =
        vec![(":method", call.method), (":path", &call.path), (":authority", &call.authority)];
    headers.extend(host.call_scheme(call).map(|scheme| (":scheme", scheme)));
    headers.extend(call.headers.iter().map(|(name, value)| (*name, value.expose())));
    headers.extend(call.credentials.iter().map(|(name, value)| (&**name, value.expose())));
    let body = call.body.as_ref().map(|body| body.expose().as_bytes());
    match calls::make(&call.cluster, headers, body, call.timeout) {
        Ok(token) => Some(token),
        Err(Status(status)) => {
            log::error!("a call to {} could not be made: status {status}", call.cluster);
            None
        }
    }
}
