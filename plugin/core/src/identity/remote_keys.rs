//! Keys that an issuer publishes (RFC 7517, JWK Set), as they are fetched, renewed and kept.
//!
//! They are fetched before they are needed (`tick`) and renewed ahead. A token of a key that is not
//! among them causes at most one fetch in a while, whoever sends how many. What is no set of usable
//! keys changes nothing: the last good ones are kept, for a bounded time. Not here: how calls are made
//! and shared (`calls`).

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use jsonwebtoken::Algorithm;
use jsonwebtoken::jwk::Jwk;
use toolgate_policy::Problem;
use toolgate_protocol::json::Json;

use super::endpoint::{AuthorizationEndpoint, EndpointConfig, check_seconds};
use super::keys::Keys;
use crate::config::RemoteKeysConfig;
use crate::event::{CallOutcome, HttpCall, Timestamp};

/// Largest set that is read, in bytes.
const MOST_BYTES: usize = 256 << 10;

/// Most keys of one set that are looked at.
const MOST_KEYS: usize = 64;

/// Keys of one issuer that are fetched, and what one worker has of them.
pub(super) struct RemoteKeys {
    endpoint: AuthorizationEndpoint,
    refresh: Duration,
    unknown_key: Duration,
    keep: Duration,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    /// The last good ones.
    held: Option<(Rc<Keys>, Timestamp)>,
    /// When the last call was over, whatever came of it.
    asked: Option<Timestamp>,
}

/// What is at hand for a token.
pub(super) enum AtHand {
    /// These may have signed it.
    Keys(Rc<Keys>),
    /// Nothing; they have to be fetched.
    Missing,
}

/// Why there are no keys. `Display` is for the audit record; it holds nothing the issuer said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeysError {
    /// No answer in time.
    #[error("the issuer's keys could not be fetched: no answer")]
    Unreachable,
    /// Another status than 200.
    #[error("the issuer's keys could not be fetched: status {0}")]
    Status(u16),
    /// More than is read.
    #[error("the issuer's keys are larger than the gateway reads")]
    TooLarge,
    /// No JWK Set.
    #[error("the issuer's answer is not a JSON Web Key Set")]
    Garbage,
    /// No key in it can check a signature of an accepted algorithm.
    #[error("none of the issuer's keys fits the accepted algorithms")]
    NoKey,
}

impl RemoteKeys {
    pub(super) fn compile(
        config: RemoteKeysConfig,
        path: &str,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let ages = [
            ("refresh_seconds", config.refresh_seconds, 10),
            ("unknown_key_seconds", config.unknown_key_seconds, 1),
            ("keep_seconds", config.keep_seconds, config.refresh_seconds),
        ];
        check_seconds(&ages, path, problems);
        let RemoteKeysConfig { cluster, scheme, authority, path: at, timeout_ms, .. } = config;
        let endpoint = EndpointConfig { cluster, scheme, authority, path: at, timeout_ms };
        Self {
            endpoint: AuthorizationEndpoint::compile(endpoint, path, problems),
            refresh: Duration::from_secs(config.refresh_seconds),
            unknown_key: Duration::from_secs(config.unknown_key_seconds),
            keep: Duration::from_secs(config.keep_seconds),
            state: RefCell::default(),
        }
    }

    /// The keys that are at hand.
    pub(super) fn at_hand(&self, now: Timestamp) -> AtHand {
        match &self.state.borrow().held {
            Some((keys, fetched)) if now.since(*fetched) < self.keep => {
                AtHand::Keys(Rc::clone(keys))
            }
            _ => AtHand::Missing,
        }
    }

    /// Whether to ask again, though there are keys, since none of them made a signature: not more than
    /// once in a while.
    pub(super) fn may_ask_again(&self, now: Timestamp) -> bool {
        let asked = self.state.borrow().asked;
        asked.is_none_or(|asked| now.since(asked) >= self.unknown_key)
    }

    /// Whether to ask before the keys are used, since nothing has renewed them: one host has no timer.
    pub(super) fn is_overdue(&self, now: Timestamp) -> bool {
        self.state.borrow().asked.is_none_or(|asked| now.since(asked) >= self.refresh * 2)
    }

    /// Whether they should be fetched by now, though nobody waits for them.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        let state = self.state.borrow();
        match &state.held {
            None => true,
            Some((_, fetched)) => now.since(*fetched) >= self.refresh,
        }
    }

    pub(super) fn call(&self) -> HttpCall {
        self.endpoint.get(MOST_BYTES)
    }

    /// Takes an answer.
    pub(super) fn learn(
        &self,
        outcome: &CallOutcome,
        allowed: &[Algorithm],
        now: Timestamp,
    ) -> Result<Rc<Keys>, KeysError> {
        let read = read(outcome, allowed).map(Rc::new);
        let mut state = self.state.borrow_mut();
        state.asked = Some(now);
        if let Ok(keys) = &read {
            state.held = Some((Rc::clone(keys), now));
        }
        read
    }
}

fn read(outcome: &CallOutcome, allowed: &[Algorithm]) -> Result<Keys, KeysError> {
    let body = match outcome {
        CallOutcome::Failed => return Err(KeysError::Unreachable),
        CallOutcome::TooLarge => return Err(KeysError::TooLarge),
        CallOutcome::Response { status: 200, body, .. } => body,
        CallOutcome::Response { status: 502..=504, .. } => return Err(KeysError::Unreachable),
        CallOutcome::Response { status, .. } => return Err(KeysError::Status(*status)),
    };
    // The strict parser goes first: what is ambiguous is no set of keys.
    let document = Json::parse(body).map_err(|_| KeysError::Garbage)?;
    let keys = document.get("keys").and_then(Json::as_array).ok_or(KeysError::Garbage)?;
    let usable: Vec<Jwk> = keys
        .iter()
        .take(MOST_KEYS)
        // Keys of kinds that are not known are for others (RFC 7517 section 5).
        .filter_map(|key| serde_json::from_slice(&key.to_bytes()).ok())
        .collect();
    let keys = Keys::of(&usable, allowed, |_, _| {});
    if keys.is_empty() { Err(KeysError::NoKey) } else { Ok(keys) }
}
