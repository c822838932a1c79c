//! Public keys that check signatures, and which algorithm each may be used with.

use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, DecodingKey};

/// Signature algorithms that are accepted: asymmetric ones, since the gateway holds public keys.
const ALGORITHMS: &[(&str, Algorithm)] = &[
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
];

/// The accepted algorithm of this name (RFC 7518 section 3.1, RFC 8037 section 3.1).
pub(super) fn algorithm(name: &str) -> Option<Algorithm> {
    ALGORITHMS.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm)
}

/// The keys of one issuer, each with the algorithms that it fits.
#[derive(Default)]
pub(crate) struct Keys(Vec<Key>);

struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl Keys {
    /// The usable keys of a set. `problem` is told of those that are not, with their index.
    pub(super) fn of(
        keys: &[Jwk],
        allowed: &[Algorithm],
        mut problem: impl FnMut(usize, String),
    ) -> Self {
        let mut usable = Vec::new();
        for (index, jwk) in keys.iter().enumerate() {
            match Key::of(jwk, allowed) {
                Ok(key) => usable.extend(key),
                Err(message) => problem(index, message),
            }
        }
        Self(usable)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of the keys that `id` and `algorithm` leave made this signature. A key without an id
    /// may be meant by any.
    pub(super) fn verify(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
        signed: &[u8],
        signature: &str,
    ) -> bool {
        self.candidates(id, algorithm).any(|key| {
            jsonwebtoken::crypto::verify(signature, signed, &key.key, algorithm).unwrap_or(false)
        })
    }

    fn candidates(&self, id: Option<&str>, algorithm: Algorithm) -> impl Iterator<Item = &Key> {
        self.0
            .iter()
            .filter(move |key| key.algorithms.contains(&algorithm))
            .filter(move |key| id.is_none() || key.id.is_none() || key.id.as_deref() == id)
    }
}

impl Key {
    /// A key for those of the accepted algorithms that it fits; `None` when it is not for signatures
    /// or fits none.
    fn of(jwk: &Jwk, allowed: &[Algorithm]) -> Result<Option<Self>, String> {
        if jwk.common.public_key_use.as_ref().is_some_and(|usage| *usage != PublicKeyUse::Signature)
        {
            return Ok(None);
        }
        // RFC 7517 section 4.3.
        let operations = jwk.common.key_operations.as_ref();
        if operations.is_some_and(|operations| !operations.contains(&KeyOperations::Verify)) {
            return Ok(None);
        }
        let key = DecodingKey::from_jwk(jwk).map_err(|error| format!("not usable: {error}"))?;
        let only: Option<Algorithm> = match jwk.common.key_algorithm {
            Some(KeyAlgorithm::ES256) => Some(Algorithm::ES256),
            Some(KeyAlgorithm::ES384) => Some(Algorithm::ES384),
            Some(KeyAlgorithm::EdDSA) => Some(Algorithm::EdDSA),
            Some(KeyAlgorithm::PS256) => Some(Algorithm::PS256),
            Some(KeyAlgorithm::PS384) => Some(Algorithm::PS384),
            Some(KeyAlgorithm::PS512) => Some(Algorithm::PS512),
            Some(KeyAlgorithm::RS256) => Some(Algorithm::RS256),
            Some(KeyAlgorithm::RS384) => Some(Algorithm::RS384),
            Some(KeyAlgorithm::RS512) => Some(Algorithm::RS512),
            Some(_) => return Ok(None),
            None => None,
        };
        let algorithms: Vec<Algorithm> = allowed
            .iter()
            .copied()
            .filter(|algorithm| only.is_none_or(|only| only == *algorithm))
            .filter(|algorithm| fits(jwk, *algorithm))
            .collect();
        let id = jwk.common.key_id.clone();
        Ok((!algorithms.is_empty()).then_some(Self { id, algorithms, key }))
    }
}

/// Whether a key of this kind makes signatures of this algorithm (RFC 7518 section 3.1).
fn fits(jwk: &Jwk, algorithm: Algorithm) -> bool {
    match (&jwk.algorithm, algorithm) {
        (AlgorithmParameters::EllipticCurve(key), Algorithm::ES256) => {
            key.curve == EllipticCurve::P256
        }
        (AlgorithmParameters::EllipticCurve(key), Algorithm::ES384) => {
            key.curve == EllipticCurve::P384
        }
        (AlgorithmParameters::OctetKeyPair(key), Algorithm::EdDSA) => {
            key.curve == EllipticCurve::Ed25519
        }
        (
            AlgorithmParameters::RSA(_),
            Algorithm::RS256
            | Algorithm::RS384
            | Algorithm::RS512
            | Algorithm::PS256
            | Algorithm::PS384
            | Algorithm::PS512,
        ) => true,
        _ => false,
    }
}
