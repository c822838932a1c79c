//! Verified tokens, remembered by digest so that a signature is checked once.

use std::collections::HashMap;
use std::rc::Rc;

use super::KnownCaller;
use super::dpop::SeenProofs;
use crate::event::Timestamp;

/// Most verified tokens that one worker remembers, whoever's they are.
const MOST_TOKENS: usize = 4096;

/// The SHA-256 of a token.
pub(super) type TokenDigest = [u8; 32];

/// Verified tokens by their SHA-256. Lives as long as the configuration that verified them.
#[derive(Default)]
pub(crate) struct TokenCache {
    callers: HashMap<TokenDigest, Rc<KnownCaller>>,
    /// Tokens that their issuer said are not active, and until when that is believed.
    inactive: HashMap<TokenDigest, Timestamp>,
    /// Proofs that came with tokens.
    pub(super) proofs: SeenProofs,
}

impl TokenCache {
    /// Forgets who callers are: other policies know them otherwise. What is known of tokens stays.
    pub(crate) fn forget_callers(&mut self) {
        self.callers.clear();
    }

    pub(super) fn is_inactive(&self, digest: &TokenDigest, now: Timestamp) -> bool {
        self.inactive.get(digest).is_some_and(|until| now < *until)
    }

    pub(super) fn insert_inactive(
        &mut self,
        digest: TokenDigest,
        until: Timestamp,
        now: Timestamp,
    ) {
        if self.inactive.len() >= MOST_TOKENS {
            self.inactive.retain(|_, until| now < *until);
        }
        if self.inactive.len() >= MOST_TOKENS {
            self.inactive.clear();
        }
        self.inactive.insert(digest, until);
    }

    /// The caller of a token that is still valid. What is not is verified again, which says why.
    pub(super) fn get(&mut self, digest: &TokenDigest, now: Timestamp) -> Option<Rc<KnownCaller>> {
        let caller = self.callers.get(digest)?;
        if caller.expires.is_some_and(|expires| now < expires) {
            return Some(Rc::clone(caller));
        }
        self.callers.remove(digest);
        None
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
