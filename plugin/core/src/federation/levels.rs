//! The least urgent log messages that a session at a portal wants (2025-11-25, "Logging").
//!
//! A client of the legacy era says it once, to one worker, about every server of the portal. It is kept in
//! the memory that all workers share, and a server learns it with the next request to it: one of the
//! legacy era by `logging/setLevel` in the client's session there, a modern one in the request itself. The
//! memory is bounded: of sessions that share a slot the one that said it longest ago is forgotten, and gets
//! what servers send by themselves. Not here: which log messages a modern client is shown (`rounds`).

use std::rc::Rc;

use toolgate_policy::{ServerAction, Target};
use toolgate_protocol::json::{Json, Object};
use toolgate_protocol::jsonrpc::{Kind, Message};

use super::peers::SessionKey;
use super::request::Goal;
use super::rounds::LEVELS;
use crate::counting::{SharedAccess, SharedSlot, SharedValue};
use crate::denial::{Denial, Reason};
use crate::event::{CallOutcome, HttpCall, Timestamp};
use crate::facts::{Facts, Need, Stop};
use crate::gateway::Gateway;
use crate::request::Asked;

/// Slots of the shared memory for levels.
pub(crate) const SLOTS: u16 = 256;

/// Most sessions of one slot.
const MOST_SESSIONS: usize = 32;

/// Bytes of a session's tag: two sessions of one tag are as unlikely as a forged one.
const TAG: usize = 16;

/// What an empty slot holds: the form of those that are not.
pub(crate) const EMPTY: &[u8] = &[LAYOUT];

const LAYOUT: u8 = 1;

/// Most times that a level is written because others were faster.
const MOST_TRIES: u8 = 32;

/// What is known of the level of one request's session, and what was done.
#[derive(Default)]
pub(crate) struct SessionLevel {
    /// What its client has said: a place in [`LEVELS`].
    level: Option<usize>,
    /// What lies in the slot; none where the host could not say.
    value: Option<SharedValue>,
    is_read: bool,
    is_written: bool,
    /// Whether the next word of the shared memory is for this.
    pub(crate) is_under_way: bool,
    tries: u8,
}

impl SessionLevel {
    /// Takes what the host read.
    pub(crate) fn read(&mut self, values: Vec<Option<SharedValue>>) {
        self.is_under_way = false;
        self.is_read = true;
        self.value = values.into_iter().next().flatten();
    }

    /// Takes what became of a write. After one that came too late the slot is read again.
    pub(crate) fn written(&mut self, is_written: bool) {
        self.is_under_way = false;
        self.is_written = is_written;
        self.is_read = is_written;
        self.tries = self.tries.saturating_add(1);
    }

    /// Whether the level that this request sets is known to all workers.
    pub(super) fn is_set(&self) -> bool {
        self.is_written
    }
}

impl Gateway {
    /// Whether there are sessions whose levels the gateway has to know.
    pub(crate) fn has_log_levels(&self) -> bool {
        self.federation.is_some() && self.sessions.seals()
    }

    /// Finds out, or sets, the level of the session of a request at a portal.
    ///
    /// # Errors
    /// [`Stop::Shared`] as long as something is to be read or written, or the refusal.
    pub(crate) fn log_level(&self, asked: &mut Asked, now: Timestamp) -> Result<(), Stop> {
        let Some((slot, tag)) = self.level_place(asked) else { return Ok(()) };
        let said = said(asked)?;
        let is_for_server = matches!(asked.goal, Some(Goal::Member(_)))
            && matches!(asked.message.as_ref().map(Message::kind), Some(Kind::Request { .. }));
        if asked.level.is_written || (said.is_none() && !is_for_server) {
            return Ok(());
        }
        if !asked.level.is_read {
            asked.level.is_under_way = true;
            return Err(Stop::Shared(SharedAccess::Read(vec![slot])));
        }
        let Some(level) = said else {
            let value = asked.level.value.as_ref();
            asked.level.level = value.and_then(|value| find(&value.bytes, &tag));
            return Ok(());
        };
        self.permit_level(asked, now)?;
        let value = asked.level.value.as_ref().filter(|_| asked.level.tries < MOST_TRIES);
        let Some(SharedValue { bytes, version }) = value else {
            let message = "the log level could not be remembered; try again later";
            return Err(Denial::new(Reason::NotCounted, message).into());
        };
        let value = SharedValue { bytes: with(bytes, &tag, level), version: *version };
        asked.level.is_under_way = true;
        Err(Stop::Shared(SharedAccess::Write { slot, value }))
    }

    /// Where the level of the request's session lies; none where it has none.
    fn level_place(&self, asked: &Asked) -> Option<(SharedSlot, [u8; TAG])> {
        let offered = asked.has_own_session() && self.offers_log_levels();
        let session = asked.head.portal_session.as_ref().filter(|_| offered)?;
        let portal = asked.head.portal.as_ref()?;
        let owner = &asked.head.caller.as_ref()?.owner;
        let hash = self.sessions.hash(&["level", owner, &portal.name, &session.id])?;
        let (tag, rest) = hash.split_first_chunk()?;
        let slot = u16::from(*rest.first()?) % SLOTS;
        Some((SharedSlot::Level(slot), *tag))
    }

    /// Whether the caller may set the level of any server of the portal: those of the others stay as they are.
    fn permit_level(&self, asked: &Asked, now: Timestamp) -> Result<(), Stop> {
        let Some(portal) = &asked.head.portal else { return Ok(()) };
        let members = self.members_for(portal, asked, now)?;
        let may = |server: &str| {
            self.permits(asked, &Target::Server(server, ServerAction::SetLogLevel), now)
        };
        if members.iter().any(|(_, member)| may(&member.server)) {
            return Ok(());
        }
        let message = "you are not permitted to set the log level";
        Err(Denial::new(Reason::NotPermitted, message).into())
    }

    /// The level that the server of a request is told, where its session has one and policy lets the caller
    /// set it there.
    pub(super) fn level_for(&self, asked: &Asked, now: Timestamp) -> Option<usize> {
        let level = asked.level.level?;
        let target = Target::Server(&asked.head.server, ServerAction::SetLogLevel);
        self.permits(asked, &target, now).then_some(level)
    }

    /// What a server of the legacy era lacks to know the level of this session.
    pub(super) fn untold_level(
        &self,
        key: &SessionKey,
        asked: &Asked,
        facts: &Facts,
        now: Timestamp,
    ) -> Option<Need> {
        let level = self.level_for(asked, now)?;
        let need = Need::LogLevel(key.clone(), level);
        let is_known = self.peers.borrow().knows_level(key, level) || facts.has(&need);
        (!is_known).then_some(need)
    }

    /// The call for [`Need::LogLevel`].
    pub(crate) fn level_call(
        &self,
        key: &SessionKey,
        level: usize,
        facts: &Facts,
        now: Timestamp,
    ) -> Option<HttpCall> {
        let session = self.peers.borrow_mut().session(key, now);
        let pinned = || facts.session(key).and_then(|session| session.as_ref().ok()).map(Rc::clone);
        let session = session.or_else(pinned)?;
        let params: Object = [("level", Json::from(*LEVELS.get(level)?))].into_iter().collect();
        let to = (&key.server, &key.access);
        self.server_call(to, "logging/setLevel", params, (Some(&session), ""), facts, now)
    }

    /// What became of it: whoever was there to hear it is not told again.
    pub(crate) fn learn_level(&self, key: &SessionKey, level: usize, outcome: &CallOutcome) {
        if matches!(outcome, CallOutcome::Response { status, .. } if *status < 500) {
            self.peers.borrow_mut().told_level(key, level);
        }
    }
}

/// The level that a request sets; none for all others.
fn said(asked: &Asked) -> Result<Option<usize>, Denial> {
    let message = asked.message.as_ref();
    let Some(message) = message.filter(|it| it.method() == Some("logging/setLevel")) else {
        return Ok(None);
    };
    let level = message.params().and_then(|params| params.get("level")).and_then(Json::as_str);
    let level = level.and_then(|level| LEVELS.iter().position(|known| *known == level));
    match level {
        Some(level) => Ok(Some(level)),
        None => {
            let message = format!("level must be one of {}", LEVELS.join(", "));
            Err(Denial::new(Reason::InvalidParams, message))
        }
    }
}

/// The sessions of a slot, the one that said something last first.
fn sessions(slot: &[u8]) -> impl Iterator<Item = (&[u8; TAG], u8)> {
    let entries = slot.split_first().filter(|(layout, _)| **layout == LAYOUT);
    let entries = entries.map(|(_, entries)| entries).unwrap_or_default();
    entries.chunks_exact(TAG + 1).filter_map(|entry| {
        let (tag, level) = entry.split_first_chunk()?;
        Some((tag, *level.first()?))
    })
}

fn find(slot: &[u8], tag: &[u8; TAG]) -> Option<usize> {
    let (_, level) = sessions(slot).find(|(known, _)| *known == tag)?;
    Some(usize::from(level)).filter(|level| *level < LEVELS.len())
}

fn with(slot: &[u8], tag: &[u8; TAG], level: usize) -> Vec<u8> {
    let mut written = EMPTY.to_vec();
    let first = (tag, u8::try_from(level).unwrap_or(u8::MAX));
    let others = sessions(slot).filter(|(known, _)| *known != tag).take(MOST_SESSIONS - 1);
    for (tag, level) in std::iter::once(first).chain(others) {
        written.extend_from_slice(tag);
        written.push(level);
    }
    written
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn what_a_session_said_last_is_found_and_sessions_are_told_apart() {
        let (one, other) = ([1; TAG], [2; TAG]);
        let slot = with(&with(EMPTY, &one, 3), &other, 5);
        assert_eq!((find(&slot, &one), find(&slot, &other)), (Some(3), Some(5)));
        let slot = with(&slot, &one, 7);
        assert_eq!((find(&slot, &one), find(&slot, &other)), (Some(7), Some(5)));
        assert_eq!(find(&slot, &[3; TAG]), None);
        for damaged in [&[][..], &[9, 1, 2], &[LAYOUT, 1, 2], &[LAYOUT]] {
            assert_eq!(find(damaged, &one), None);
            assert_eq!(find(&with(damaged, &one, 2), &one), Some(2));
        }
    }

    #[test]
    fn a_full_slot_forgets_the_session_that_said_it_longest_ago() {
        let mut slot = EMPTY.to_vec();
        for number in 0..=MOST_SESSIONS {
            slot = with(&slot, &[u8::try_from(number).unwrap(); TAG], 1);
        }
        assert_eq!(find(&slot, &[0; TAG]), None);
        assert_eq!(find(&slot, &[1; TAG]), Some(1));
        assert_eq!(slot.len(), 1 + MOST_SESSIONS * (TAG + 1));
    }
}
