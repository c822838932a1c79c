//! Calls that the gateway makes itself: which are under way, who waits for them, what failed lately.
//!
//! Where the host can wake one exchange from the call of another ([`Gateway::share_calls`]), a need is
//! met once for all who have it at that moment, and the answer is remembered even when nobody waits
//! any more. Elsewhere every exchange makes its own. Not here: what is called for a need and what
//! answers mean (`facts`).

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use crate::credentials::Echoes;
use crate::event::{CallId, CallOutcome, HttpCall, Timestamp};
use crate::facts::{Fact, Facts, Need};
use crate::gateway::Gateway;
use crate::metrics::call_result;

/// How long the first failure is believed; each further one twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest that a failure is believed.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// Most failures that are remembered at a time.
const MOST_FAILURES: usize = 1024;

/// Hosts end calls by their timeout; one that did not so long after it is not waited for.
const GRACE: Duration = Duration::from_secs(5);

/// Identifies an exchange within its gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExchangeId(pub(crate) u64);

/// Calls of one worker.
#[derive(Default)]
pub(crate) struct Calls {
    shared: bool,
    last_call: u32,
    last_exchange: u64,
    under_way: BTreeMap<CallId, UnderWay>,
    failures: BTreeMap<Need, Failure>,
}

struct UnderWay {
    need: Need,
    cluster: Rc<str>,
    waiting: Vec<ExchangeId>,
    since: Timestamp,
    /// The host must have answered by then.
    until: Timestamp,
    most_bytes: usize,
    echoes: Echoes,
}

struct Failure {
    fact: Fact,
    pause: Duration,
    until: Timestamp,
}

/// What is done about a need.
pub(crate) enum Begun {
    /// This call has to be made.
    Call(CallId, HttpCall),
    /// Somebody else makes it.
    UnderWay(CallId),
    /// It failed a moment ago.
    Known(Fact),
    /// There is no call for it.
    Impossible,
}

/// A call that is over: the host hands it to every exchange that waits for it.
pub struct FinishedCall {
    pub(crate) id: CallId,
    pub(crate) learned: Option<(Need, Fact)>,
    /// Whether a server sent back a credential.
    pub(crate) echoed: bool,
    waiting: Vec<ExchangeId>,
}

impl FinishedCall {
    /// The exchanges that wait for it; empty when it was made in the background, or when all are gone.
    #[must_use]
    pub fn waiting(&self) -> &[ExchangeId] {
        &self.waiting
    }
}

impl Calls {
    pub(crate) fn next_exchange(&mut self) -> ExchangeId {
        self.last_exchange = self.last_exchange.wrapping_add(1);
        ExchangeId(self.last_exchange)
    }

    /// The exchange does not wait any more. Its calls go on: others may need what they bring.
    pub(crate) fn leave(&mut self, exchange: ExchangeId, calls: impl Iterator<Item = CallId>) {
        for id in calls {
            if let Some(call) = self.under_way.get_mut(&id) {
                call.waiting.retain(|waiting| *waiting != exchange);
            }
        }
    }

    fn find(&mut self, need: &Need, now: Timestamp) -> Option<(CallId, &mut UnderWay)> {
        self.under_way
            .iter_mut()
            .find(|(_, call)| call.need == *need && now < call.until)
            .map(|(id, call)| (*id, call))
    }

    fn failure(&self, need: &Need, now: Timestamp) -> Option<Fact> {
        self.failures.get(need).filter(|failure| now < failure.until).map(|f| f.fact.clone())
    }

    /// Notes a call that this exchange waits for.
    pub(crate) fn add(
        &mut self,
        need: Need,
        call: &HttpCall,
        waiting: Vec<ExchangeId>,
        now: Timestamp,
    ) -> CallId {
        // What a host never answers, though nobody waits for it, is forgotten here.
        self.under_way.retain(|_, call| now < call.until || !call.waiting.is_empty());
        self.last_call = self.last_call.wrapping_add(1);
        let id = CallId(self.last_call);
        let until = now.after(call.timeout).after(GRACE);
        let (cluster, most_bytes) = (Rc::clone(&call.cluster), call.most_bytes);
        let echoes = call.echoes.clone();
        let under_way = UnderWay { need, cluster, waiting, since: now, until, most_bytes, echoes };
        self.under_way.insert(id, under_way);
        id
    }

    fn remember(&mut self, need: &Need, fact: Option<&Fact>, now: Timestamp) {
        let Some(fact) = fact else { return };
        if !fact.is_failure() {
            self.failures.remove(need);
            return;
        }
        let before = self.failures.get(need).map_or(Duration::ZERO, |failure| failure.pause);
        let pause = (before * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        if self.failures.len() >= MOST_FAILURES {
            self.failures.retain(|_, failure| now < failure.until);
        }
        if self.failures.len() >= MOST_FAILURES {
            // Forgetting a failure costs one more call.
            self.failures.pop_first();
        }
        let failure = Failure { fact: fact.clone(), pause, until: now.after(pause) };
        self.failures.insert(need.clone(), failure);
    }
}

impl Gateway {
    /// Says that this host can hand a [`FinishedCall`] to exchanges that did not make the call, also
    /// after the one that did is gone; that it takes a request's body after calls; and that it can hold a
    /// response's header fields back and still answer otherwise.
    pub fn share_calls(&self) {
        self.calls.borrow_mut().shared = true;
    }

    /// Whether this host takes a request's body after calls, too: the one that shares calls does.
    pub(crate) fn takes_late_bodies(&self) -> bool {
        self.calls.borrow().shared
    }

    /// Turns the outcome of a call into what it teaches.
    #[must_use]
    pub fn finish_call(&self, id: CallId, outcome: CallOutcome, now: Timestamp) -> FinishedCall {
        let Some(call) = self.calls.borrow_mut().under_way.remove(&id) else {
            return FinishedCall { id, learned: None, echoed: false, waiting: Vec::new() };
        };
        let (outcome, echoed) = call.echoes.masked_in(outcome.bounded(call.most_bytes));
        let fact = self.learn(&call.need, &outcome, call.since, now);
        let is_good = fact.as_ref().is_some_and(Fact::is_good);
        let result = call_result(&outcome, is_good);
        self.metrics.call(&call.need, &call.cluster, result, now.since(call.since));
        if call.need.is_answered_with_secrets() {
            outcome.wipe();
        }
        self.calls.borrow_mut().remember(&call.need, fact.as_ref(), now);
        let learned = fact.map(|fact| (call.need, fact));
        FinishedCall { id, learned, echoed, waiting: call.waiting }
    }

    /// What the gateway does by itself as time passes: calls that fetch anew what will end soon. The
    /// host makes them and reports [`Gateway::finish_call`]. It may ask at any time and as often as it
    /// likes, usually every second.
    pub fn tick(&self, now: Timestamp) -> Vec<(CallId, HttpCall)> {
        let due = self.due(now).into_iter().chain(self.identity.due(now));
        let due = due.chain(self.policies_due(now));
        due.filter_map(|need| self.begin_in_background(need, now)).collect()
    }

    pub(crate) fn begin_in_background(
        &self,
        need: Need,
        now: Timestamp,
    ) -> Option<(CallId, HttpCall)> {
        let mut calls = self.calls.borrow_mut();
        if calls.find(&need, now).is_some() || calls.failure(&need, now).is_some() {
            return None;
        }
        let call = self.call_for(&need, &Facts::default(), now)?;
        Some((calls.add(need, &call, Vec::new(), now), call))
    }

    /// Begins to meet a need of an exchange.
    pub(crate) fn begin(
        &self,
        need: &Need,
        facts: &Facts,
        exchange: ExchangeId,
        now: Timestamp,
    ) -> Begun {
        let mut calls = self.calls.borrow_mut();
        if let Some(fact) = calls.failure(need, now) {
            return Begun::Known(fact);
        }
        if calls.shared
            && let Some((id, call)) = calls.find(need, now)
        {
            call.waiting.push(exchange);
            return Begun::UnderWay(id);
        }
        match self.call_for(need, facts, now) {
            Some(call) => Begun::Call(calls.add(need.clone(), &call, vec![exchange], now), call),
            None => Begun::Impossible,
        }
    }
}
