//! Session ids as clients see them: sealed, so that each is of use to its own principal only.
//!
//! What has to be remembered of a session stands, encrypted and authenticated, in the id itself, so
//! that every worker and every gateway with the same keys can open it and none has to remember it.
//! Bound into each id are its purpose, its owner and its server; whoever presents it as anything else
//! learns only that there is no such session (404). Session ids are no proof of identity: the token
//! is (2025-11-25, "Security Best Practices", session hijacking). Not here: who the owner is.

use aes_gcm_siv::aead::{Aead as _, KeyInit as _, Payload};
use aes_gcm_siv::{Aes256GcmSiv, Nonce};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use crate::denial::{Denial, Reason};
use crate::secret::Secret;

/// Shortest secret that a key is made of, in characters: 32 of base64 are 192 bits.
pub(crate) const SHORTEST_KEY: usize = 32;

/// Most keys that may be configured: each costs a try for an id that none of them made.
pub(crate) const MOST_KEYS: usize = 4;

/// Longest sealed id in bytes that is looked at: what proxies accept as one header field.
const LONGEST_SEALED: usize = 8 << 10;

const NONCE_BYTES: usize = 12;

/// What an id is for, so that none can stand for another kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The session id of one server.
    Session,
    /// The session id of an endpoint of several servers.
    Portal,
    /// The state of a call whose server has asked the client something.
    Round,
    /// The session in which a server has asked the client something.
    Question,
}

impl Purpose {
    fn label(self) -> &'static [u8] {
        match self {
            Self::Session => b"session",
            Self::Portal => b"portal",
            Self::Round => b"round",
            Self::Question => b"question",
        }
    }
}

/// What an id is bound to: it opens for exactly these.
#[derive(Clone, Copy)]
pub(crate) struct Bound<'a> {
    pub(crate) purpose: Purpose,
    /// The principal, in a form that no other principal has.
    pub(crate) owner: &'a str,
    /// The server or endpoint.
    pub(crate) server: &'a str,
}

/// How the session ids of servers are shown to clients.
pub(crate) enum Sessions {
    /// As the servers made them: no key is configured.
    Unbound,
    /// Sealed.
    Sealed(SessionKeys),
    /// Keys are configured, and none of them is there.
    Unset,
}

/// Keys in the order of the configuration: the first seals, all of them open.
pub(crate) struct SessionKeys(Vec<SessionKey>);

struct SessionKey {
    cipher: Aes256GcmSiv,
    nonces: Hmac<Sha256>,
    counters: Hmac<Sha256>,
}

impl Sessions {
    /// The server's own id of the session that a client names.
    ///
    /// # Errors
    /// A 404 [`Denial`] for an id that is not of this owner's sessions at this server: the client
    /// then begins a new one (2025-11-25, "Session Management"). 503 when no key can be had.
    pub(crate) fn open(&self, owner: &str, server: &str, id: &str) -> Result<String, Denial> {
        match self {
            Self::Unbound => Ok(id.to_owned()),
            Self::Sealed(keys) => keys
                .open(Bound { purpose: Purpose::Session, owner, server }, id)
                .and_then(|plain| String::from_utf8(plain).ok())
                .ok_or_else(|| Denial::new(Reason::UnknownSession, "Session not found")),
            Self::Unset => Err(Denial::new(
                Reason::NotConfigured,
                "sessions are not available: the gateway's session key is not set",
            )),
        }
    }

    /// The id that a client gets for a server's; `None` when it must not get any.
    pub(crate) fn seal(&self, owner: &str, server: &str, id: &str) -> Option<String> {
        match self {
            Self::Unbound => Some(id.to_owned()),
            Self::Sealed(keys) => {
                keys.seal(Bound { purpose: Purpose::Session, owner, server }, id.as_bytes())
            }
            Self::Unset => None,
        }
    }
}

impl Sessions {
    /// The key by which it is hashed whose calls a counter counts. Without a key in the configuration
    /// everybody knows it.
    pub(crate) fn counter_key(&self) -> Option<Hmac<Sha256>> {
        match self {
            Self::Sealed(keys) => keys.0.first().map(|key| key.counters.clone()),
            Self::Unbound | Self::Unset => {
                <Hmac<Sha256> as hmac::Mac>::new_from_slice(b"toolgate counters").ok()
            }
        }
    }

    /// A hash of these parts that nobody without the keys can make; `None` where no key is configured.
    pub(crate) fn hash(&self, parts: &[&str]) -> Option<[u8; 32]> {
        let Self::Sealed(keys) = self else { return None };
        let mut hash = keys.0.first()?.counters.clone();
        for part in parts {
            // Lengths before contents: no two lists of parts read the same.
            hash.update(&(part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        Some(hash.finalize().into_bytes().into())
    }

    /// What was sealed into the session id of an endpoint of several servers.
    ///
    /// # Errors
    /// A 404 [`Denial`] for an id that is not of this owner's sessions there, which is every id where
    /// no key is configured; 503 when no key can be had.
    pub(crate) fn open_portal(
        &self,
        owner: &str,
        portal: &str,
        id: &str,
    ) -> Result<Vec<u8>, Denial> {
        let unknown = || Denial::new(Reason::UnknownSession, "Session not found");
        match self {
            Self::Unbound => Err(unknown()),
            Self::Sealed(keys) => keys
                .open(Bound { purpose: Purpose::Portal, owner, server: portal }, id)
                .ok_or_else(unknown),
            Self::Unset => self.open(owner, portal, id).map(String::into_bytes),
        }
    }

    /// Whether there is a key to seal with.
    pub(crate) fn seals(&self) -> bool {
        matches!(self, Self::Sealed(_))
    }

    /// The state of a call at a server that waits for its caller's answer; `None` where no key is
    /// configured, or where it would be too long.
    pub(crate) fn seal_round(&self, owner: &str, server: &str, plain: &[u8]) -> Option<String> {
        let Self::Sealed(keys) = self else { return None };
        keys.seal(Bound { purpose: Purpose::Round, owner, server }, plain)
    }

    /// What was sealed into the state of a call of this owner at this server.
    pub(crate) fn open_round(&self, owner: &str, server: &str, state: &str) -> Option<Vec<u8>> {
        let Self::Sealed(keys) = self else { return None };
        keys.open(Bound { purpose: Purpose::Round, owner, server }, state)
    }

    /// The session of a server in which it asks this owner something.
    pub(crate) fn seal_question(&self, owner: &str, server: &str, plain: &[u8]) -> Option<String> {
        let Self::Sealed(keys) = self else { return None };
        keys.seal(Bound { purpose: Purpose::Question, owner, server }, plain)
    }

    /// What was sealed into a question of this server to this owner.
    pub(crate) fn open_question(&self, owner: &str, server: &str, sealed: &str) -> Option<Vec<u8>> {
        let Self::Sealed(keys) = self else { return None };
        keys.open(Bound { purpose: Purpose::Question, owner, server }, sealed)
    }

    /// A session id of an endpoint of several servers; `None` where no key is configured.
    pub(crate) fn seal_portal(&self, owner: &str, portal: &str, plain: &[u8]) -> Option<String> {
        match self {
            Self::Sealed(keys) => {
                keys.seal(Bound { purpose: Purpose::Portal, owner, server: portal }, plain)
            }
            Self::Unbound | Self::Unset => None,
        }
    }
}

impl SessionKeys {
    /// Keys made of secrets; `None` when there is no secret.
    pub(crate) fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Option<Self> {
        let keys: Vec<_> = secrets.into_iter().filter_map(SessionKey::new).collect();
        (!keys.is_empty()).then_some(Self(keys))
    }

    /// Seals `plain` as visible ASCII that a header can carry. The same input gives the same id: the
    /// nonce comes from a keyed hash of what is sealed, since one host has no randomness to speak of,
    /// and this cipher (RFC 8452) keeps its promises even where nonces repeat. `None` when the id
    /// would be longer than a header may be.
    pub(crate) fn seal(&self, bound: Bound<'_>, plain: &[u8]) -> Option<String> {
        let key = self.0.first()?;
        let associated = associated(bound)?;
        let mut nonce = key.nonces.clone();
        nonce.update(&associated);
        nonce.update(plain);
        let nonce = nonce.finalize().into_bytes();
        let nonce: [u8; NONCE_BYTES] = nonce.get(..NONCE_BYTES)?.try_into().ok()?;
        let payload = Payload { msg: plain, aad: &associated };
        let sealed = key.cipher.encrypt(&Nonce::from(nonce), payload).ok()?;
        let id = URL_SAFE_NO_PAD.encode([&nonce[..], &sealed].concat());
        (id.len() <= LONGEST_SEALED).then_some(id)
    }

    /// Opens an id that [`SessionKeys::seal`] made for exactly this; `None` for everything else.
    pub(crate) fn open(&self, bound: Bound<'_>, id: &str) -> Option<Vec<u8>> {
        if id.len() > LONGEST_SEALED {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(id).ok()?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_BYTES>()?;
        let nonce = Nonce::from(*nonce);
        let associated = associated(bound)?;
        self.0.iter().find_map(|key| {
            let payload = Payload { msg: sealed, aad: &associated };
            key.cipher.decrypt(&nonce, payload).ok()
        })
    }
}

impl SessionKey {
    /// Two keys of one secret, each by HMAC under its own label (NIST SP 800-108, one block).
    fn new(secret: &Secret) -> Option<Self> {
        let derived = |label: &[u8]| {
            let mac = <Hmac<Sha256> as hmac::Mac>::new_from_slice(secret.expose().as_bytes());
            Some(mac.ok()?.chain_update(label).finalize().into_bytes())
        };
        let cipher = derived(b"toolgate session encryption")?;
        let nonces = derived(b"toolgate session nonce")?;
        let counters = derived(b"toolgate counters")?;
        Some(Self {
            cipher: Aes256GcmSiv::new_from_slice(&cipher).ok()?,
            nonces: <Hmac<Sha256> as hmac::Mac>::new_from_slice(&nonces).ok()?,
            counters: <Hmac<Sha256> as hmac::Mac>::new_from_slice(&counters).ok()?,
        })
    }
}

/// The parts of `bound`, each with its length before it, so that no two sets read the same.
fn associated(bound: Bound<'_>) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for part in [bound.purpose.label(), bound.owner.as_bytes(), bound.server.as_bytes()] {
        bytes.extend_from_slice(&u32::try_from(part.len()).ok()?.to_be_bytes());
        bytes.extend_from_slice(part);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    // Not a secret of anybody.
    const OLD: &str = "0123456789abcdef0123456789abcdef";
    const NEW: &str = "fedcba9876543210fedcba9876543210";

    fn keys(secrets: &[&str]) -> SessionKeys {
        let secrets: Vec<Secret> =
            secrets.iter().map(|text| Secret::new((*text).to_owned())).collect();
        SessionKeys::new(&secrets).unwrap()
    }

    fn bound<'a>(owner: &'a str, server: &'a str) -> Bound<'a> {
        Bound { purpose: Purpose::Session, owner, server }
    }

    #[test]
    fn an_id_opens_for_its_owner_and_server_only() {
        let keys = keys(&[OLD]);
        let id = keys.seal(bound("alice", "billing"), b"session-1").unwrap();
        assert!(id.bytes().all(|byte| byte.is_ascii_graphic()));
        assert!(!id.contains("session-1"));
        assert_eq!(keys.open(bound("alice", "billing"), &id).unwrap(), b"session-1");
        for (owner, server) in [
            ("bob", "billing"),
            ("alice", "everything"),
            ("alicebilling", ""),
            ("alic", "ebilling"),
        ] {
            assert!(keys.open(bound(owner, server), &id).is_none(), "{owner} {server}");
        }
    }

    #[test]
    fn no_changed_shortened_or_foreign_id_opens() {
        let keys = keys(&[OLD]);
        let id = keys.seal(bound("alice", "billing"), b"session-1").unwrap();
        for index in 0..id.len() {
            let mut changed = id.clone().into_bytes();
            changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            // The last character carries bits that stand for nothing; they must be zero.
            assert!(keys.open(bound("alice", "billing"), &changed).is_none(), "{index}");
            assert!(
                keys.open(bound("alice", "billing"), id.get(..index).unwrap()).is_none(),
                "{index}"
            );
        }
        let long = "A".repeat(LONGEST_SEALED + 1);
        for foreign in ["", "session-1", "=", "é", "AAAAAAAAAAAAAAAA", long.as_str()] {
            assert!(keys.open(bound("alice", "billing"), foreign).is_none(), "{foreign}");
        }
    }

    #[test]
    fn a_new_key_seals_and_the_old_one_still_opens() {
        let id = keys(&[OLD]).seal(bound("alice", "billing"), b"session-1").unwrap();
        let rotated = keys(&[NEW, OLD]);
        assert_eq!(rotated.open(bound("alice", "billing"), &id).unwrap(), b"session-1");
        let renewed = rotated.seal(bound("alice", "billing"), b"session-1").unwrap();
        assert_ne!(renewed, id);
        assert!(keys(&[OLD]).open(bound("alice", "billing"), &renewed).is_none());
        assert!(keys(&[NEW]).open(bound("alice", "billing"), &renewed).is_some());
    }

    #[test]
    fn one_session_has_one_id_and_two_have_nothing_in_common() {
        let keys = keys(&[OLD]);
        let first = keys.seal(bound("alice", "billing"), b"session-1").unwrap();
        assert_eq!(first, keys.seal(bound("alice", "billing"), b"session-1").unwrap());
        let second = keys.seal(bound("alice", "billing"), b"session-2").unwrap();
        assert_ne!(first.get(..16), second.get(..16), "nonces differ");
        assert!(keys.seal(bound("alice", "billing"), &[0; LONGEST_SEALED]).is_none());
    }
}
