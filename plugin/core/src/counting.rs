//! Counters of earlier calls: which ones a request looks at, which ones it adds to, and in which order.
//!
//! The host keeps the memory that workers share and does nothing but read and write slots of it, at once.
//! What a decision looked at is what its call is added to: a write that comes after another worker's is
//! refused by the host, and the decision is made again on what is there now. So a limit holds for all
//! workers together, exactly. A call counts when policy has permitted it, before anything is fetched for
//! it. Not here: what lies in a slot (`counts`).

use std::collections::{BTreeMap, BTreeSet};

use toolgate_policy::{
    Count, CountedCalls, CountedPer, Counter, PolicyEngine, ServerAction, Target,
};
use toolgate_protocol::json::Json;
use toolgate_protocol::mcp::{Era, Operation};

use crate::audit::AuditRecord;
use crate::counts::{self, Place, SLOTS};
use crate::denial::{Denial, Reason};
use crate::event::Timestamp;
use crate::facts::{Facts, Stop};
use crate::federation::{Goal, LEVEL_SLOTS, NO_LEVELS};
use crate::gateway::Gateway;
use crate::request::{Asked, unknown_server};

/// Most times that a decision is made because others were faster.
const MOST_TRIES: u8 = 32;

/// A slot of the memory that all workers share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SharedSlot {
    /// Of counts of calls.
    Counts(u16),
    /// Of the log levels of sessions at portals.
    Level(u16),
}

impl SharedSlot {
    /// The key that it has in the host's memory.
    #[must_use]
    pub fn key(self) -> String {
        match self {
            Self::Counts(number) => format!("toolgate.counts.{number:04x}"),
            Self::Level(number) => format!("toolgate.levels.{number:04x}"),
        }
    }
}

/// What lies in a slot, as the host found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedValue {
    /// The bytes; none where nothing was written yet.
    pub bytes: Vec<u8>,
    /// What the host calls this state of the slot: another write makes another.
    pub version: u32,
}

/// What a decision does with the shared memory before it goes on.
pub enum SharedAccess {
    /// Read these slots; answered by [`Event::SharedRead`](crate::Event::SharedRead).
    Read(Vec<SharedSlot>),
    /// Write this slot, if it is still what was read; answered by
    /// [`Event::SharedWritten`](crate::Event::SharedWritten).
    Write {
        /// The slot.
        slot: SharedSlot,
        /// What it is to hold.
        value: SharedValue,
    },
}

/// What is known about counters for one request, and what was done.
#[derive(Default)]
pub(crate) struct Counting {
    /// As policies see them.
    pub(crate) counts: Vec<Count>,
    /// Where the counters lie that concern the request, by index.
    places: Vec<Option<Place>>,
    /// What was read there. None where the host could not.
    slots: BTreeMap<SharedSlot, Option<SharedValue>>,
    is_read: bool,
    /// Counters that have this call already.
    added: BTreeSet<usize>,
    /// The write that is under way, and the counters that it adds to.
    writing: Option<(SharedSlot, Vec<usize>)>,
    tries: u8,
}

impl Counting {
    /// Takes what became of a write. After one that came too late everything is read again.
    pub(crate) fn written(&mut self, is_written: bool) {
        let Some((slot, counters)) = self.writing.take() else { return };
        if is_written {
            self.added.extend(counters);
            // What was read of it is over.
            self.slots.remove(&slot);
        } else {
            self.is_read = false;
            self.tries = self.tries.saturating_add(1);
        }
    }

    /// The counts that were looked at, as the record has them.
    fn recorded(&self) -> Option<String> {
        let known = self.counts.iter().filter_map(|count| Some((&count.counter, count.calls?)));
        let texts: Vec<String> = known.map(|(name, calls)| format!("{name}={calls}")).collect();
        (!texts.is_empty()).then(|| texts.join(","))
    }
}

impl Gateway {
    /// The slots that have to be there before any worker counts, for hosts that cannot create one
    /// without writing over another's, and what every one of them holds at first.
    pub fn shared_slots(&self) -> impl Iterator<Item = (SharedSlot, &'static [u8])> {
        // Policies that are fetched may have counters one day.
        let counters = !self.policies.borrow().engine.counters().is_empty();
        let wanted = if counters || self.policy_bundle.is_some() { SLOTS } else { 0 };
        let counts = (0..wanted).map(|slot| (SharedSlot::Counts(slot), counts::EMPTY));
        // Only sessions of portals have levels that the gateway has to know.
        let wanted = if self.has_log_levels() { LEVEL_SLOTS } else { 0 };
        counts.chain((0..wanted).map(|slot| (SharedSlot::Level(slot), NO_LEVELS)))
    }

    /// Reads the counters that a decision looks at, and adds a call that policy permits to those that
    /// count it. Costs nothing where no counter is concerned.
    ///
    /// # Errors
    /// [`Stop::Shared`] as long as something is to be read or written, or the refusal where a call that
    /// must be counted cannot be.
    pub(crate) fn count(
        &self,
        asked: &mut Asked,
        facts: &Facts,
        now: Timestamp,
        audit: &mut AuditRecord,
    ) -> Result<(), Stop> {
        // Nothing in a batch is counted: no call that would have to be goes on (`refuse_counted`).
        // Who is not known yet is decided on by none.
        let Some(policies) = asked.head.policies.clone() else { return Ok(()) };
        let counters = policies.engine.counters();
        if counters.is_empty() || asked.batch.is_some() {
            return Ok(());
        }
        if asked.counting.counts.is_empty() {
            asked.counting.counts = policies.engine.unknown_counts().to_vec();
        }
        self.read_counts(&policies.engine, asked, audit)?;
        let permitted = pending(counters, asked, CountedCalls::Permitted)?;
        if permitted.is_empty() {
            return Ok(());
        }
        let server = self.servers.get(&asked.head.server).ok_or_else(unknown_server)?;
        let operation = asked.operation()?;
        let unrecorded = &mut AuditRecord::default();
        // Where it is refused, or not approved yet, the decision that follows says why.
        match self.authorize(server, asked, operation, now, unrecorded) {
            Err(_) => return Ok(()),
            Ok(Some(needed)) if self.approved(asked, &needed, facts, now, unrecorded).is_err() => {
                return Ok(());
            }
            Ok(_) => {}
        }
        self.add_call(asked, permitted, now, audit)
    }

    /// Adds a call that policy refused to the counters that count refusals.
    ///
    /// # Errors
    /// [`Stop::Shared`] as long as something is to be read or written; other stops change nothing about
    /// the refusal.
    pub(crate) fn count_denied(
        &self,
        asked: &mut Asked,
        denial: &Denial,
        now: Timestamp,
    ) -> Result<(), Stop> {
        let of_policy =
            [Reason::NotVisible, Reason::Arguments, Reason::ArgumentTypes, Reason::PolicyError];
        let Some(policies) = asked.head.policies.clone() else { return Ok(()) };
        if asked.batch.is_some() || !of_policy.contains(&denial.reason()) {
            return Ok(());
        }
        let denied = pending(policies.engine.counters(), asked, CountedCalls::Denied)?;
        if denied.is_empty() {
            return Ok(());
        }
        let unrecorded = &mut AuditRecord::default();
        self.read_counts(&policies.engine, asked, unrecorded)?;
        self.add_call(asked, denied, now, unrecorded)
    }

    /// Refuses a message of a batch that would have to be counted.
    ///
    /// # Errors
    /// The refusal.
    pub(crate) fn refuse_counted(
        &self,
        asked: &Asked,
        operation: &Operation<'_>,
    ) -> Result<(), Denial> {
        let counters = asked.head.policies()?.engine.counters();
        match operation {
            Operation::CallTool { name, .. }
                if counters_of(counters, &asked.head.server, name).next().is_some() =>
            {
                let message = "calls of this tool are counted: send each in a message of its own";
                Err(Denial::new(Reason::NotCounted, message))
            }
            _ => Ok(()),
        }
    }

    /// Takes what the host read, in the order in which it was asked.
    pub(crate) fn learn_counts(
        &self,
        counting: &mut Counting,
        values: Vec<Option<SharedValue>>,
        now: Timestamp,
        audit: &mut AuditRecord,
    ) {
        let mut values = values.into_iter();
        for value in counting.slots.values_mut() {
            *value = values.next().flatten();
        }
        counting.is_read = true;
        for (count, place) in counting.counts.iter_mut().zip(&counting.places) {
            let value = place.and_then(|place| {
                let slot = counting.slots.get(&SharedSlot::Counts(place.slot))?.as_ref()?;
                counts::count(&slot.bytes, &place, now).ok()
            });
            count.calls = value.and_then(|calls| i64::try_from(calls).ok());
        }
        audit.calls = counting.recorded();
    }

    fn read_counts(
        &self,
        engine: &PolicyEngine,
        asked: &mut Asked,
        audit: &mut AuditRecord,
    ) -> Result<(), Stop> {
        if asked.counting.is_read {
            return Ok(());
        }
        if asked.counting.tries > MOST_TRIES {
            return Err(not_counted("other calls were always faster", audit).into());
        }
        let looks = looks_at_calls(engine, asked)?;
        let counted: Vec<usize> = match asked.operation()? {
            Some(Operation::CallTool { name, .. }) => {
                let counters = counters_of(engine.counters(), &asked.head.server, name);
                counters.map(|(index, _)| index).collect()
            }
            _ => Vec::new(),
        };
        let counters = engine.counters().iter().enumerate();
        let mut places = Vec::new();
        for (index, counter) in counters {
            let is_wanted = looks || counted.contains(&index);
            places.push(if is_wanted { self.place(asked, counter)? } else { None });
        }
        let slots: BTreeMap<SharedSlot, Option<SharedValue>> =
            places.iter().flatten().map(|place| (SharedSlot::Counts(place.slot), None)).collect();
        let wanted: Vec<SharedSlot> = slots.keys().copied().collect();
        asked.counting.places = places;
        asked.counting.slots = slots;
        if wanted.is_empty() {
            asked.counting.is_read = true;
            return Ok(());
        }
        Err(Stop::Shared(SharedAccess::Read(wanted)))
    }

    /// Where a counter lies for this caller; none for one that counts within sessions, and there is none.
    fn place(&self, asked: &Asked, counter: &Counter) -> Result<Option<Place>, Denial> {
        let Some(key) = self.sessions.counter_key() else { return Ok(None) };
        let owner = &*asked.head.caller()?.owner;
        let name = &*counter.name;
        let place = |parts: &[&str]| Some(Place::new(&key, parts, counter.window));
        Ok(match counter.per {
            CountedPer::Gateway => place(&[name, "gateway"]),
            CountedPer::Principal => place(&[name, "principal", owner]),
            CountedPer::Session => {
                // In the modern era the field means nothing.
                let session = asked.head.session.as_deref().filter(|_| asked.era == Era::Legacy);
                session.and_then(|session| place(&[name, "session", owner, session]))
            }
        })
    }

    /// Adds the call to those of these counters that lie in the slot of the first.
    fn add_call(
        &self,
        asked: &mut Asked,
        counters: Vec<usize>,
        now: Timestamp,
        audit: &mut AuditRecord,
    ) -> Result<(), Stop> {
        let place =
            |counting: &Counting, index: usize| counting.places.get(index).copied().flatten();
        let counting = &mut asked.counting;
        let slot = counters.first().and_then(|index| place(counting, *index)).map(|it| it.slot);
        let Some(slot) = slot else {
            return Err(not_counted("it is counted within a session, and has none", audit).into());
        };
        let mut places = Vec::new();
        let mut together = Vec::new();
        for index in counters {
            if let Some(place) = place(counting, index).filter(|place| place.slot == slot) {
                places.push(place);
                together.push(index);
            }
        }
        let slot = SharedSlot::Counts(slot);
        let Some(SharedValue { bytes, version }) =
            counting.slots.get(&slot).and_then(Option::as_ref)
        else {
            return Err(not_counted("the memory of all workers could not be read", audit).into());
        };
        let bytes = counts::add(bytes, &places, now)
            .map_err(|error| not_counted(&error.to_string(), audit))?;
        let value = SharedValue { bytes, version: *version };
        counting.writing = Some((slot, together));
        Err(Stop::Shared(SharedAccess::Write { slot, value }))
    }
}

/// A call that must be counted and cannot be does not go on.
fn not_counted(why: &str, audit: &mut AuditRecord) -> Denial {
    audit.detail = Some(format!("the call could not be counted: {why}"));
    Denial::new(Reason::NotCounted, "the call could not be counted; try again later")
}

/// The counters that count this call once it is settled as this, and do not have it yet.
fn pending(
    counters: &[Counter],
    asked: &Asked,
    settled: CountedCalls,
) -> Result<Vec<usize>, Denial> {
    let Some(Operation::CallTool { name, .. }) = asked.operation()? else {
        return Ok(Vec::new());
    };
    let is_pending = |(index, counter): &(usize, &Counter)| {
        (counter.counts == settled || counter.counts == CountedCalls::All)
            && !asked.counting.added.contains(index)
    };
    let counters = counters_of(counters, &asked.head.server, name);
    Ok(counters.filter(is_pending).map(|(index, _)| index).collect())
}

/// The counters that count calls of a tool, each with its index.
fn counters_of<'a>(
    counters: &'a [Counter],
    server: &str,
    tool: &str,
) -> impl Iterator<Item = (usize, &'a Counter)> {
    counters.iter().enumerate().filter(move |(_, counter)| counter.counts_tool(server, tool))
}

/// Whether the policies that can matter to the request look at counters. Of what is decided on
/// element by element, lists among them, all policies can.
fn looks_at_calls(engine: &PolicyEngine, asked: &Asked) -> Result<bool, Denial> {
    let server = &*asked.head.server;
    let of_server = |action| Some(Target::Server(server, action));
    let target = match asked.operation()? {
        _ if matches!(asked.goal, Some(Goal::Portal)) => None,
        Some(Operation::CallTool { name, .. }) => {
            Some(Target::Tool { server, name, arguments: &Json::Null })
        }
        Some(Operation::GetPrompt { name }) => Some(Target::Prompt { server, name }),
        Some(Operation::ReadResource { uri }) => Some(Target::Resource { server, uri }),
        Some(Operation::SetLogLevel) => of_server(ServerAction::SetLogLevel),
        Some(Operation::Task { .. }) => of_server(ServerAction::UseTasks),
        Some(Operation::Connect) => of_server(ServerAction::Connect),
        Some(Operation::List(_) | Operation::Listen { .. }) | None => None,
    };
    let caller = asked.head.caller()?;
    Ok(engine.looks_at_calls(&caller.principal, target.as_ref()))
}
