//! Credentials for servers: where they come from, what they are attached as, how long they are used.
//!
//! Values live in the memory of one worker, in types that cannot be printed, until their time is over.
//! Not here: the configuration's shape (`config::credentials`), the calls themselves (`calls`).

mod broker;
mod cache;
mod compile;
mod echo;
mod inject;
pub(crate) mod linking;
mod oauth;
pub(crate) mod passthrough;
mod template;
mod vault;

use std::cell::Cell;
use std::cmp::Ordering;
use std::rc::Rc;
use std::time::Duration;

pub(crate) use self::cache::CredentialCache;
pub(crate) use self::compile::Broker;
use self::echo::Written;
pub(crate) use self::echo::{EchoMask, Echoes};
pub(crate) use self::inject::{Injected, Injection, Place, with_parameter};
pub(crate) use self::oauth::{AccessToken, TokenEndpoint, basic_login};
pub(crate) use self::template::percent_encoded;
pub(crate) use self::vault::{Vault, VaultSecret, VaultToken};
use crate::event::Timestamp;
use crate::secret::Secret;

/// What lasts for a time is fetched anew once this share of the time is over.
const REFRESHED_AFTER: f64 = 0.75;

/// Longest credential in bytes: what proxies accept as one header field.
const LONGEST_CREDENTIAL: usize = 8 << 10;

/// Largest answer of a vault or an authorization server that is read, in bytes.
const LARGEST_ANSWER: usize = 64 << 10;

/// A credential, compiled.
pub(crate) struct Credential {
    pub(crate) source: Source,
    /// Where a caller can link an account, when nothing is there for it.
    pub(crate) link_url: Option<Rc<str>>,
}

/// Where a credential comes from.
pub(crate) enum Source {
    /// A vault.
    Vault(VaultSecret),
    /// A token endpoint.
    Oauth(AccessToken),
    /// The configuration; none where it names a variable that is not set.
    Static(Option<Rc<Fetched>>),
}

/// A credential that is wanted, and for whom. Two are the same when one value serves both.
#[derive(Clone)]
pub(crate) struct Wanted {
    pub(crate) name: Rc<str>,
    /// What sets it apart from other callers': their path, or the digest of their token. `None` where
    /// one value serves all.
    pub(crate) per: Option<Rc<str>>,
    /// The path of this caller's, where it has one of its own.
    pub(crate) path: Option<Rc<str>>,
    /// The token that the caller presented, where fetching rests on it.
    pub(crate) caller: Option<Rc<Secret>>,
}

/// A login that is wanted, and for whom.
#[derive(Clone)]
pub(crate) struct WantedLogin {
    pub(crate) vault: Rc<str>,
    /// The digest of the caller's token, where the login is the caller's.
    pub(crate) per: Option<Rc<str>>,
    /// That token.
    pub(crate) caller: Option<Rc<Secret>>,
}

/// A credential's value with what audit says of it.
pub(crate) struct Fetched {
    /// The fields that were configured; the first is the credential, and there is one at least.
    pub(crate) values: Vec<Rc<Secret>>,
    pub(crate) source: &'static str,
    pub(crate) version: Option<u64>,
    pub(crate) lease: Option<Lease>,
    pub(crate) obtained: Timestamp,
    /// Fetched anew from then on, if it is used.
    pub(crate) refresh: Timestamp,
    /// Used until then.
    pub(crate) expires: Timestamp,
    /// When a request used it last.
    pub(crate) used: Cell<Timestamp>,
    /// Whether one has used it since it was fetched.
    pub(crate) is_used: Cell<bool>,
    /// How a server may write it that sends it back.
    pub(crate) written: Written,
}

/// What a vault has lent.
pub(crate) struct Lease {
    /// Whoever holds it can end it.
    pub(crate) id: Secret,
    pub(crate) renewable: bool,
    /// For how long it was lent.
    pub(crate) given: Duration,
}

/// Why there is no credential. `Display` is for the audit record; it holds nothing that a vault or an
/// authorization server said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CredentialError {
    /// The configuration takes something from a variable that is not set.
    #[error("an environment variable of the configuration is not set")]
    Unset,
    /// No answer in time.
    #[error("the vault did not answer")]
    Unreachable,
    /// The token or login is not accepted, or policy of the vault forbids the path.
    #[error("the vault refused access")]
    Forbidden,
    /// Nothing is at this path, or there is nothing for this caller.
    #[error("the vault has nothing at this path")]
    Missing,
    /// Another status than 200.
    #[error("the vault answered with status {0}")]
    Status(u16),
    /// An answer that no secret is as large as.
    #[error("the vault's answer is larger than any secret")]
    TooLarge,
    /// Status 200 with a body that is not what the interface promises.
    #[error("the vault's answer could not be understood")]
    Garbage,
    /// The secret has no such field, or it is not text.
    #[error("the secret has no text in the configured field")]
    Field,
    /// The value cannot be a header field: empty, too long, or with control characters.
    #[error("the secret's value cannot be sent in a header")]
    Value,
}

impl CredentialError {
    /// Whether it is an answer: what was good until now is not any more. Otherwise something is
    /// broken, and what is at hand stays good until its own end.
    fn is_final(self) -> bool {
        match self {
            Self::Forbidden | Self::Missing | Self::Field | Self::Value => true,
            Self::Unset | Self::Unreachable | Self::Status(_) | Self::TooLarge | Self::Garbage => {
                false
            }
        }
    }
}

impl Fetched {
    /// A value that stays as it is.
    pub(crate) fn lasting(value: Rc<Secret>) -> Self {
        let never = Timestamp(Duration::MAX);
        Self {
            values: vec![value],
            source: "static",
            version: None,
            lease: None,
            obtained: Timestamp::default(),
            refresh: never,
            expires: never,
            used: Cell::default(),
            is_used: Cell::default(),
            written: Written::default(),
        }
    }

    /// What was lent at `since` ends with the login that it was lent to: the vault takes it back then.
    fn ends_with(&mut self, login: &VaultToken, since: Timestamp) {
        self.expires = self.expires.min(login.ends);
        let life = self.expires.since(since);
        self.refresh = self.refresh.min(since.after(life.mul_f64(REFRESHED_AFTER)));
    }

    /// Whether it is the same secret as another, whenever each was fetched.
    pub(crate) fn has_values_of(&self, other: &Self) -> bool {
        let pairs = self.values.iter().zip(&other.values);
        self.values.len() == other.values.len()
            && pairs.into_iter().all(|(one, other)| one.expose() == other.expose())
    }

    /// A request uses it.
    fn note_use(&self, now: Timestamp) {
        self.used.set(now);
        self.is_used.set(true);
    }
}

/// Whether a header field can carry this credential as it is.
pub(crate) fn is_sendable(value: &str) -> bool {
    !value.is_empty()
        && value.len() <= LONGEST_CREDENTIAL
        && value.bytes().all(|byte| matches!(byte, b' '..=b'~'))
        && value.trim() == value
}

impl Wanted {
    /// What is the same for all callers.
    pub(crate) fn by_all(name: &Rc<str>) -> Self {
        Self { name: Rc::clone(name), per: None, path: None, caller: None }
    }

    fn key(&self) -> (&str, Option<&str>) {
        (&self.name, self.per.as_deref())
    }
}

impl WantedLogin {
    fn key(&self) -> (&str, Option<&str>) {
        (&self.vault, self.per.as_deref())
    }
}

impl PartialEq for Wanted {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Wanted {}

impl PartialOrd for Wanted {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Wanted {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialEq for WantedLogin {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for WantedLogin {}

impl PartialOrd for WantedLogin {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for WantedLogin {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}
