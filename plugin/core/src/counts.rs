//! Counts of earlier calls as they lie in the memory that workers share.
//!
//! The memory is a fixed number of slots, over all counters and callers: which slot a counter of a caller
//! is in, and by which tag it is known there, comes from a keyed hash, so that no name lies in it in the
//! clear. A slot holds a few counts, and one that is full takes no more until others have run out: nothing
//! is forgotten to make room, or calling as many would reset a limit. A count is kept in steps of a part
//! of its window; the oldest step counts whole, so that what is said is never less than what was. Not
//! here: which calls count, and the host's memory (`counting`).

use std::time::Duration;

use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use crate::event::Timestamp;

/// How many slots there are.
pub(crate) const SLOTS: u16 = 4096;

/// Most counts in a slot.
const WAYS: usize = 16;

/// In how many steps a window is divided.
const STEPS: u64 = 24;

/// A window touches one step more than it has, wherever it begins.
const KEPT: usize = STEPS as usize + 1;

/// Bytes of a count's tag.
const TAG: usize = 16;

/// What every slot begins with: another layout is another memory.
const LAYOUT: u8 = 1;

/// Where a count lies, and how long its calls count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) slot: u16,
    tag: [u8; TAG],
    /// Length of a step in milliseconds.
    step: u64,
}

/// One count in a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    tag: [u8; TAG],
    step: u64,
    /// The number of the last step with a call.
    last: u64,
    /// Calls in the steps up to that, the last first.
    calls: [u32; KEPT],
}

/// Why there is no count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CountError {
    /// What lies there is none.
    #[error("the shared memory holds something else than counts")]
    Damaged,
    /// As many others have counts there as fit.
    #[error("there is no room for another count")]
    Full,
}

impl Place {
    /// The place of what these parts name together. `key` keeps others from telling whose it is.
    pub(crate) fn new(key: &Hmac<Sha256>, parts: &[&str], window: Duration) -> Self {
        let mut hash = key.clone();
        for part in parts {
            // Lengths before contents: no two lists of parts read the same.
            hash.update(&(part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        let hash: [u8; 32] = hash.finalize().into_bytes().into();
        let mut tag = [0; TAG];
        for (to, from) in tag.iter_mut().zip(hash) {
            *to = from;
        }
        let [.., a, b] = hash;
        let window = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
        let slot = u16::from_be_bytes([a, b]) % SLOTS;
        Self { slot, tag, step: window.div_ceil(STEPS).max(1) }
    }

    fn now(&self, now: Timestamp) -> u64 {
        step_at(now, self.step)
    }
}

fn step_at(now: Timestamp, step: u64) -> u64 {
    u64::try_from(now.0.as_millis()).unwrap_or(u64::MAX).checked_div(step).unwrap_or_default()
}

impl Entry {
    const BYTES: usize = TAG + 8 + 8 + 4 * KEPT;

    fn read(bytes: &[u8]) -> Option<Self> {
        let (tag, rest) = bytes.split_first_chunk()?;
        let (step, rest) = rest.split_first_chunk()?;
        let (last, rest) = rest.split_first_chunk()?;
        let mut calls = [0; KEPT];
        let (numbers, []) = rest.as_chunks() else { return None };
        if numbers.len() != KEPT {
            return None;
        }
        for (to, from) in calls.iter_mut().zip(numbers) {
            *to = u32::from_be_bytes(*from);
        }
        let (step, last) = (u64::from_be_bytes(*step), u64::from_be_bytes(*last));
        (step > 0).then_some(Self { tag: *tag, step, last, calls })
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.tag);
        bytes.extend_from_slice(&self.step.to_be_bytes());
        bytes.extend_from_slice(&self.last.to_be_bytes());
        self.calls.iter().for_each(|calls| bytes.extend_from_slice(&calls.to_be_bytes()));
    }

    /// Whether any of its calls still counts.
    fn is_alive(&self, now: Timestamp) -> bool {
        step_at(now, self.step).saturating_sub(self.last) < KEPT as u64
    }

    /// The calls that count now.
    fn calls(&self, now: Timestamp) -> u64 {
        let passed = step_at(now, self.step).saturating_sub(self.last);
        let left = KEPT.saturating_sub(usize::try_from(passed).unwrap_or(KEPT));
        self.calls.iter().take(left).map(|calls| u64::from(*calls)).sum()
    }

    fn add(&mut self, now: Timestamp) {
        // A clock that went back adds to what it had counted last.
        let current = step_at(now, self.step).max(self.last);
        let passed = usize::try_from(current - self.last).unwrap_or(KEPT).min(KEPT);
        self.calls.rotate_right(passed);
        self.calls.iter_mut().take(passed).for_each(|calls| *calls = 0);
        self.last = current;
        if let Some(calls) = self.calls.first_mut() {
            *calls = calls.saturating_add(1);
        }
    }
}

/// How many calls count at a place of `slot`.
///
/// # Errors
/// When it is no slot.
pub(crate) fn count(slot: &[u8], place: &Place, now: Timestamp) -> Result<u64, CountError> {
    let entries = read(slot)?;
    let own = entries.iter().find(|entry| entry.tag == place.tag && entry.step == place.step);
    Ok(own.map_or(0, |entry| entry.calls(now)))
}

/// `slot` with one call more at each of these places, which all lie in it.
///
/// # Errors
/// When it is no slot, or has no room.
pub(crate) fn add(slot: &[u8], places: &[Place], now: Timestamp) -> Result<Vec<u8>, CountError> {
    let mut entries = read(slot)?;
    entries.retain(|entry| entry.is_alive(now));
    for place in places {
        let known =
            entries.iter_mut().find(|entry| entry.tag == place.tag && entry.step == place.step);
        if let Some(entry) = known {
            entry.add(now);
            continue;
        }
        if entries.len() >= WAYS {
            return Err(CountError::Full);
        }
        let Place { tag, step, .. } = *place;
        let mut entry = Entry { tag, step, last: place.now(now), calls: [0; KEPT] };
        entry.add(now);
        entries.push(entry);
    }
    let mut bytes = Vec::with_capacity(1 + entries.len() * Entry::BYTES);
    bytes.push(LAYOUT);
    entries.iter().for_each(|entry| entry.write(&mut bytes));
    Ok(bytes)
}

/// A slot without counts.
pub(crate) const EMPTY: &[u8] = &[LAYOUT];

fn read(slot: &[u8]) -> Result<Vec<Entry>, CountError> {
    match slot {
        // Nothing was written there yet.
        [] => Ok(Vec::new()),
        [LAYOUT, entries @ ..] => {
            let (entries, rest) = entries.as_chunks::<{ Entry::BYTES }>();
            if entries.len() > WAYS || !rest.is_empty() {
                return Err(CountError::Damaged);
            }
            let read = |bytes: &[u8; Entry::BYTES]| Entry::read(bytes).ok_or(CountError::Damaged);
            entries.iter().map(read).collect()
        }
        _ => Err(CountError::Damaged),
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn key() -> Hmac<Sha256> {
        <Hmac<Sha256> as hmac::Mac>::new_from_slice(b"a key").unwrap()
    }

    fn place(name: &str, window: u64) -> Place {
        Place::new(&key(), &[name], Duration::from_secs(window))
    }

    fn at(milliseconds: u64) -> Timestamp {
        Timestamp(Duration::from_millis(milliseconds))
    }

    const NOON: u64 = 1_795_435_200_000;

    #[test]
    fn a_call_counts_for_its_window_and_not_much_longer() {
        let place = place("a", 3600);
        let slot = add(EMPTY, &[place], at(NOON)).unwrap();
        for (later, expected) in [(0, 1), (3_600_000, 1), (3_600_000 + 2 * 150_000, 0)] {
            assert_eq!(count(&slot, &place, at(NOON + later)).unwrap(), expected, "{later}");
        }
    }

    #[test]
    fn counts_of_others_in_a_slot_are_not_mixed() {
        let (one, other) = (place("a", 60), place("b", 60));
        let slot = add(EMPTY, &[one, one, other], at(NOON)).unwrap();
        assert_eq!(count(&slot, &one, at(NOON)).unwrap(), 2);
        assert_eq!(count(&slot, &other, at(NOON)).unwrap(), 1);
        assert_eq!(count(&slot, &place("a", 61 * 24), at(NOON)).unwrap(), 0);
    }

    #[test]
    fn a_full_slot_takes_no_more_and_forgets_nothing_until_a_count_has_run_out() {
        let mut slot = EMPTY.to_vec();
        let places: Vec<Place> = (0..WAYS).map(|n| place(&n.to_string(), 60)).collect();
        for place in &places {
            slot = add(&slot, &[*place], at(NOON)).unwrap();
        }
        let late = place("late", 60);
        assert_eq!(add(&slot, &[late], at(NOON)), Err(CountError::Full));
        assert!(places.iter().all(|place| count(&slot, place, at(NOON)) == Ok(1)));
        let slot = add(&slot, &[late], at(NOON + 65_000)).unwrap();
        assert_eq!(slot.len(), 1 + Entry::BYTES);
    }

    #[test]
    fn what_is_no_slot_is_no_count() {
        let place = place("a", 60);
        let slot = add(EMPTY, &[place], at(NOON)).unwrap();
        for wrong in [&slot[..slot.len() - 1], &[2], b"something else"] {
            assert_eq!(count(wrong, &place, at(NOON)), Err(CountError::Damaged));
            assert_eq!(add(wrong, &[place], at(NOON)), Err(CountError::Damaged));
        }
        assert_eq!(count(&[], &place, at(NOON)), Ok(0));
    }

    #[test]
    fn places_depend_on_the_key_and_tell_all_parts_apart() {
        let other = <Hmac<Sha256> as hmac::Mac>::new_from_slice(b"another").unwrap();
        let window = Duration::from_secs(60);
        assert_ne!(place("a", 60).tag, Place::new(&other, &["a"], window).tag);
        let (one, two) = (["ab", "c"], ["a", "bc"]);
        assert_ne!(Place::new(&key(), &one, window).tag, Place::new(&key(), &two, window).tag);
    }

    /// The same numbers every time, spread as if by chance.
    fn numbers() -> impl FnMut(u64) -> u64 {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        move |below| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        }
    }

    #[test]
    fn what_is_counted_is_never_less_than_the_window_has_and_at_most_a_step_more() {
        let mut number = numbers();
        for _ in 0..200 {
            let place = place("a", 1 + number(600));
            let window = place.step * STEPS;
            let (mut slot, mut now, mut calls) = (Vec::new(), NOON, Vec::new());
            for _ in 0..60 {
                now += number(40_000);
                slot = add(&slot, &[place], at(now)).unwrap();
                calls.push(now);
                let counted = count(&slot, &place, at(now)).unwrap();
                let within =
                    |span: u64| calls.iter().filter(|call| **call + span > now).count() as u64;
                assert!(counted >= within(window), "{counted}");
                assert!(counted <= within(window + place.step), "{counted}");
            }
        }
    }

    #[test]
    fn no_bytes_make_it_fail_other_than_by_saying_so() {
        let mut number = numbers();
        let place = place("a", 60);
        for length in 0..600 {
            let mut bytes: Vec<u8> = (0..length).map(|_| number(256).to_le_bytes()[0]).collect();
            if let Some(first) = bytes.first_mut() {
                *first = LAYOUT;
            }
            let now = Timestamp(Duration::from_millis(number(u64::MAX)));
            let _either = count(&bytes, &place, now);
            let _either = add(&bytes, &[place], now);
        }
    }
}
