//! Verified tokens, remembered by digest so that a signature is checked once.

use std::collections::HashMap;
use std::rc::Rc;

use super::KnownCaller;
use crate::event::Timestamp;

/// Most verified tokens that one worker remembers, whoever's they are.
const MOST_TOKENS: usize = 4096;

/// The SHA-256 of a token.
pub(super) type TokenDigest = [u8; 32];

/// Verified tokens by their SHA-256. Lives as long as the configuration that verified them.
#[derive(Default)]
pub(crate) struct TokenCache {
    callers: HashMap<TokenDigest, Rc<KnownCaller>>,
}

/// What is remembered of a token.
pub(super) enum Remembered {
    /// It is valid.
    Valid(Rc<KnownCaller>),
    /// It was, and its time is over.
    Expired,
    /// Nothing.
    Unknown,
}

impl TokenCache {
    pub(super) fn get(&mut self, digest: &TokenDigest, now: Timestamp) -> Remembered {
        match self.callers.get(digest) {
            None => Remembered::Unknown,
            Some(caller) if caller.expires.is_some_and(|expires| now < expires) => {
                Remembered::Valid(Rc::clone(caller))
            }
            Some(_) => {
                self.callers.remove(digest);
                Remembered::Expired
            }
        }
    }

    pub(super) fn insert(&mut self, digest: TokenDigest, caller: Rc<KnownCaller>, now: Timestamp) {
        if self.callers.len() >= MOST_TOKENS {
            self.callers.retain(|_, caller| caller.expires.is_some_and(|expires| now < expires));
        }
        if self.callers.len() >= MOST_TOKENS {
            // All are alive: begin anew, which costs each caller one verification.
            self.callers.clear();
        }
        self.callers.insert(digest, caller);
    }
}
