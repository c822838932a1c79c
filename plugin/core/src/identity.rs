//! Who calls: verifies the access token and makes a principal of it.
//!
//! Tokens are JSON Web Tokens in the profile of RFC 9068, verified as RFC 8725 advises: the
//! algorithm must be on the issuer's list and fit the key, issuer and audience must match exactly,
//! and a token that says less than it must is refused. Verified tokens are remembered by digest, so
//! that a signature is checked once. Not here: what a principal may do (policy), opaque tokens.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{Jwk, JwkSet, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use sha2::{Digest, Sha256};
use toolgate_policy::{Caller, PolicyEngine, Principal, Problem};
use toolgate_protocol::headers::Headers;
use toolgate_protocol::json::Json;

use crate::config::{ClaimsConfig, IdentityConfig, IssuerConfig};
use crate::denial::{Denial, Reason};
use crate::event::Timestamp;

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

/// Most verified tokens that one worker remembers.
const MOST_TOKENS: usize = 4096;

/// Most claims that become tags of a principal, and the longest of them in bytes. What is beyond is
/// left out: a policy that asks for it finds no tag.
const MOST_TAGS: usize = 64;
const LONGEST_TAG: usize = 4096;

/// Who may vouch for callers, compiled.
pub(crate) struct Identity {
    issuers: Vec<Issuer>,
    anonymous: Option<Rc<KnownCaller>>,
    leeway: Duration,
    token_bytes: usize,
}

/// The caller of a request, as decisions and audit need it.
pub(crate) struct KnownCaller {
    /// For policy.
    pub(crate) principal: Principal,
    /// Subject of the token, or `anonymous`.
    pub(crate) subject: Rc<str>,
    /// Issuer and subject in one: no other principal has the same. What is bound to a principal is
    /// bound to this.
    pub(crate) owner: Rc<str>,
    /// Issuer of the token.
    pub(crate) issuer: Option<Rc<str>>,
    /// OAuth client that holds the token.
    pub(crate) client: Option<Rc<str>>,
    /// Scopes the token was given.
    pub(crate) scopes: Vec<String>,
    /// When the token was issued, in seconds since the epoch.
    pub(crate) issued: Option<u64>,
    /// When it stops being valid, leeway included.
    expires: Option<Timestamp>,
}

/// Verified tokens by their SHA-256. Lives as long as the configuration that verified them.
#[derive(Default)]
pub(crate) struct TokenCache {
    callers: HashMap<[u8; 32], Rc<KnownCaller>>,
}

struct Issuer {
    name: Rc<str>,
    prefix: String,
    audiences: Vec<String>,
    keys: Vec<Key>,
    claims: ClaimsConfig,
}

struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl Identity {
    /// Compiles the `identity` part of the configuration.
    pub(crate) fn compile(
        config: IdentityConfig,
        token_bytes: usize,
        problems: &mut Vec<Problem>,
    ) -> Self {
        if config.issuers.is_empty() && !config.anonymous {
            problems.push(Problem {
                path: "identity.issuers".into(),
                message: "there is no issuer and anonymous callers are not accepted, so that nobody could call".into(),
                help: Some("add an issuer, or set `identity.anonymous` to true".into()),
            });
        }
        let mut issuers: Vec<Issuer> = Vec::new();
        for (index, issuer) in config.issuers.into_iter().enumerate() {
            let path = format!("identity.issuers[{index}]");
            let compiled = Issuer::compile(issuer, &path, problems);
            if issuers.iter().any(|other| other.name == compiled.name) {
                problems.push(Problem {
                    path: format!("{path}.issuer"),
                    message: format!("{:?} is configured twice", compiled.name),
                    help: None,
                });
            } else if issuers.iter().any(|other| other.prefix == compiled.prefix) {
                problems.push(Problem {
                    path: format!("{path}.principal_prefix"),
                    message: "two issuers could vouch for the same principal".into(),
                    help: Some("give every issuer its own `principal_prefix`".into()),
                });
            }
            issuers.push(compiled);
        }
        let leeway = Duration::from_secs(config.leeway_seconds);
        Self { issuers, anonymous: None, leeway, token_bytes }
    }

    /// Lets requests without a token be decided on as this principal.
    pub(crate) fn with_anonymous(mut self, principal: Principal) -> Self {
        self.anonymous = Some(Rc::new(KnownCaller {
            principal,
            subject: "anonymous".into(),
            owner: "".into(),
            issuer: None,
            client: None,
            scopes: Vec::new(),
            issued: None,
            expires: None,
        }));
        self
    }

    /// The caller that a request's headers prove.
    ///
    /// # Errors
    /// A 401 [`Denial`] with a challenge (RFC 6750 section 3) when there is no valid token.
    pub(crate) fn caller(
        &self,
        headers: &Headers,
        policy: &PolicyEngine,
        cache: &mut TokenCache,
        now: Timestamp,
    ) -> Result<Rc<KnownCaller>, Denial> {
        let Some(token) = bearer(headers)? else {
            return self.anonymous.clone().ok_or_else(|| {
                challenge(Reason::NoToken, "an access token is needed: send Authorization: Bearer")
            });
        };
        if token.len() > self.token_bytes {
            return Err(invalid("the token is larger than the gateway accepts"));
        }
        let digest: [u8; 32] = Sha256::digest(token).into();
        if let Some(caller) = cache.callers.get(&digest) {
            if caller.expires.is_some_and(|expires| now < expires) {
                return Ok(Rc::clone(caller));
            }
            cache.callers.remove(&digest);
            return Err(expired());
        }
        let caller = Rc::new(self.verify(token, policy, now)?);
        cache.insert(digest, Rc::clone(&caller), now);
        Ok(caller)
    }

    fn verify(
        &self,
        token: &str,
        policy: &PolicyEngine,
        now: Timestamp,
    ) -> Result<KnownCaller, Denial> {
        let (signed, signature) =
            token.rsplit_once('.').ok_or_else(|| invalid("the token is not a JSON Web Token"))?;
        let (header, payload) =
            signed.split_once('.').ok_or_else(|| invalid("the token is not a JSON Web Token"))?;
        let header = segment(header, "header")?;
        let claims = segment(payload, "payload")?;

        let issuer = claims.get("iss").and_then(Json::as_str);
        let issuer = self
            .issuers
            .iter()
            .find(|known| Some(&*known.name) == issuer)
            .ok_or_else(|| invalid("the token's issuer is not accepted here"))?;
        issuer.check_signature(&header, signed, signature)?;
        let validity = self.check_times(&claims, now)?;
        issuer.check_audience(&claims)?;
        issuer.caller(&claims, validity, policy)
    }

    /// Checks `exp`, `nbf` and `iat`; returns when the token ends and when it was issued.
    fn check_times(
        &self,
        claims: &Json,
        now: Timestamp,
    ) -> Result<(Timestamp, Option<u64>), Denial> {
        let expires = seconds(claims, "exp")?.ok_or_else(|| invalid("the token has no exp"))?;
        let expires = Timestamp(Duration::from_secs(expires)).after(self.leeway);
        if now >= expires {
            return Err(expired());
        }
        let latest = now.after(self.leeway).seconds();
        if seconds(claims, "nbf")?.is_some_and(|begins| begins > latest) {
            return Err(invalid("the token is not valid yet"));
        }
        let issued = seconds(claims, "iat")?;
        if issued.is_some_and(|issued| issued > latest) {
            return Err(invalid("the token was issued in the future"));
        }
        Ok((expires, issued))
    }
}

impl Issuer {
    fn compile(config: IssuerConfig, path: &str, problems: &mut Vec<Problem>) -> Self {
        let mut problem = |field: &str, message: String, help: Option<&str>| {
            problems.push(Problem {
                path: format!("{path}.{field}"),
                message,
                help: help.map(Into::into),
            });
        };
        if config.issuer.is_empty() {
            problem("issuer", "the issuer is empty".into(), None);
        }
        if config.audiences.is_empty() {
            problem(
                "audiences",
                "no audience is accepted".into(),
                Some("name the public URL of this gateway, as RFC 8707 has it"),
            );
        }
        let mut allowed = Vec::new();
        for (index, name) in config.algorithms.iter().enumerate() {
            match ALGORITHMS.iter().find(|(known, _)| known == name) {
                Some((_, algorithm)) => allowed.push(*algorithm),
                None => problem(
                    &format!("algorithms[{index}]"),
                    format!("{name:?} is not accepted"),
                    Some("use ES256, ES384, EdDSA, PS256 to PS512 or RS256 to RS512"),
                ),
            }
        }
        if config.algorithms.is_empty() {
            problem(
                "algorithms",
                "no algorithm is accepted".into(),
                Some("for example [\"ES256\"]"),
            );
        }
        for pointer in [&config.claims.groups, &config.claims.roles]
            .into_iter()
            .chain(&config.claims.client)
            .filter(|pointer| !pointer.starts_with('/'))
        {
            problem(
                "claims",
                format!("{pointer:?} is not a JSON pointer"),
                Some("begin with a slash: \"/groups\""),
            );
        }
        let keys = match serde_json::from_value::<JwkSet>(config.jwks) {
            Ok(set) => set,
            Err(error) => {
                problem("jwks", format!("not a JSON Web Key Set: {error}"), None);
                JwkSet { keys: Vec::new() }
            }
        };
        let mut compiled = Vec::new();
        for (index, jwk) in keys.keys.iter().enumerate() {
            match Key::compile(jwk, &allowed) {
                Ok(Some(key)) => compiled.push(key),
                Ok(None) => {}
                Err(message) => problem(&format!("jwks.keys[{index}]"), message, None),
            }
        }
        if compiled.is_empty() && !allowed.is_empty() {
            problem("jwks", "no key fits the accepted algorithms".into(), None);
        }
        Self {
            name: config.issuer.into(),
            prefix: config.principal_prefix,
            audiences: config.audiences,
            keys: compiled,
            claims: config.claims,
        }
    }

    /// Checks the signature with the keys that the header's `kid` and `alg` leave.
    fn check_signature(&self, header: &Json, signed: &str, signature: &str) -> Result<(), Denial> {
        if header.get("crit").is_some() {
            return Err(invalid("the token has critical header parameters"));
        }
        // RFC 9068 section 2.1; tokens of older servers say JWT or nothing.
        let kind = header.get("typ").map(|kind| kind.as_str().unwrap_or_default());
        let accepted = ["at+jwt", "application/at+jwt", "jwt"];
        if kind.is_some_and(|kind| !accepted.contains(&kind.to_ascii_lowercase().as_str())) {
            return Err(invalid("the token's type is not an access token"));
        }
        let algorithm = header
            .get("alg")
            .and_then(Json::as_str)
            .and_then(|name| ALGORITHMS.iter().find(|(known, _)| *known == name))
            .map(|(_, algorithm)| *algorithm)
            .ok_or_else(|| invalid("the token's algorithm is not accepted"))?;
        let id = header.get("kid").map(|id| id.as_str().unwrap_or_default());
        let verified = self
            .keys
            .iter()
            .filter(|key| key.algorithms.contains(&algorithm))
            .filter(|key| id.is_none() || key.id.is_none() || key.id.as_deref() == id)
            .any(|key| {
                jsonwebtoken::crypto::verify(signature, signed.as_bytes(), &key.key, algorithm)
                    .unwrap_or(false)
            });
        if verified { Ok(()) } else { Err(invalid("the token's signature is not valid")) }
    }

    fn check_audience(&self, claims: &Json) -> Result<(), Denial> {
        let accepted = |audience: &Json| {
            // RFC 8707 identifiers come with and without a trailing slash; both name the resource.
            audience.as_str().is_some_and(|audience| {
                let audience = audience.strip_suffix('/').unwrap_or(audience);
                self.audiences.iter().any(|own| own.strip_suffix('/').unwrap_or(own) == audience)
            })
        };
        let matches = match claims.get("aud") {
            Some(Json::Array(audiences)) => audiences.iter().any(accepted),
            Some(audience) => accepted(audience),
            None => false,
        };
        if matches { Ok(()) } else { Err(invalid("the token was issued for another audience")) }
    }

    fn caller(
        &self,
        claims: &Json,
        (expires, issued): (Timestamp, Option<u64>),
        policy: &PolicyEngine,
    ) -> Result<KnownCaller, Denial> {
        let subject = claims
            .get("sub")
            .and_then(Json::as_str)
            .filter(|subject| !subject.is_empty())
            .ok_or_else(|| invalid("the token has no sub"))?;
        let subject = format!("{}{subject}", self.prefix);
        let client = self
            .claims
            .client
            .iter()
            .find_map(|pointer| pointed(claims, pointer)?.as_str().map(str::to_owned));
        let caller = Caller {
            id: subject.clone(),
            issuer: self.name.to_string(),
            client: client.clone(),
            groups: names(claims, &self.claims.groups)?,
            roles: names(claims, &self.claims.roles)?,
            claims: tags(claims),
        };
        let principal = policy
            .principal(&caller)
            .map_err(|error| invalid(&format!("the token's claims are not usable: {error}")))?;
        Ok(KnownCaller {
            principal,
            // Issuers are known texts of the configuration, and none of them holds a line break.
            owner: format!("{}\n{subject}", self.name).into(),
            subject: subject.into(),
            issuer: Some(Rc::clone(&self.name)),
            client: client.map(Into::into),
            scopes: scopes(claims),
            issued,
            expires: Some(expires),
        })
    }
}

impl Key {
    /// A key for those of the accepted algorithms that it fits; `None` when it is not for
    /// signatures or fits none.
    fn compile(jwk: &Jwk, allowed: &[Algorithm]) -> Result<Option<Self>, String> {
        if jwk.common.public_key_use.as_ref().is_some_and(|usage| *usage != PublicKeyUse::Signature)
        {
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
    use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve};
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

impl TokenCache {
    fn insert(&mut self, digest: [u8; 32], caller: Rc<KnownCaller>, now: Timestamp) {
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

/// The token of the one `Authorization` header (RFC 6750 section 2.1).
fn bearer(headers: &Headers) -> Result<Option<&str>, Denial> {
    let value = headers
        .single("authorization")
        .map_err(|error| Denial::new(Reason::Header, error.to_string()))?;
    let Some(value) = value else { return Ok(None) };
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(token.trim())),
        _ => Err(invalid("the Authorization header is not a bearer token")),
    }
}

/// One part of a token: strict JSON in base64url (RFC 7515 section 2).
fn segment(text: &str, name: &str) -> Result<Json, Denial> {
    let bytes = URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| invalid(&format!("the token's {name} is not base64url")))?;
    match Json::parse(&bytes) {
        Ok(json @ Json::Object(_)) => Ok(json),
        _ => Err(invalid(&format!("the token's {name} is not a strict JSON object"))),
    }
}

/// A NumericDate (RFC 7519 section 2).
fn seconds(claims: &Json, name: &str) -> Result<Option<u64>, Denial> {
    match claims.get(name) {
        None => Ok(None),
        Some(Json::Integer(value)) if *value >= 0 => Ok(Some(value.unsigned_abs())),
        // Fractions are allowed; the whole seconds before them decide.
        Some(Json::Float(value)) if *value >= 0.0 => Ok(Some(*value as u64)),
        Some(_) => Err(invalid(&format!("the token's {name} is not a number of seconds"))),
    }
}

/// The value at a JSON pointer (RFC 6901) through objects.
fn pointed<'a>(claims: &'a Json, pointer: &str) -> Option<&'a Json> {
    pointer
        .strip_prefix('/')?
        .split('/')
        .try_fold(claims, |value, token| value.get(&token.replace("~1", "/").replace("~0", "~")))
}

fn names(claims: &Json, pointer: &str) -> Result<Vec<String>, Denial> {
    let wrong = || invalid(&format!("the token's claim {pointer} is not an array of strings"));
    match pointed(claims, pointer) {
        None | Some(Json::Null) => Ok(Vec::new()),
        Some(Json::Array(names)) => {
            names.iter().map(|name| name.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
        }
        Some(_) => Err(wrong()),
    }
}

/// Scopes as one string (RFC 9068 section 2.2.3) or as an array (`scp` of some servers).
fn scopes(claims: &Json) -> Vec<String> {
    match claims.get("scope").or_else(|| claims.get("scp")) {
        Some(Json::String(scopes)) => {
            scopes.split(' ').filter(|s| !s.is_empty()).map(Into::into).collect()
        }
        Some(Json::Array(scopes)) => {
            scopes.iter().filter_map(|scope| scope.as_str().map(Into::into)).collect()
        }
        _ => Vec::new(),
    }
}

/// Claims as text: strings as they are, everything else as JSON; null is no claim.
fn tags(claims: &Json) -> BTreeMap<String, String> {
    let Some(claims) = claims.as_object() else { return BTreeMap::new() };
    claims
        .iter()
        .filter_map(|(name, value)| {
            let text = match value {
                Json::Null => return None,
                Json::String(text) => text.clone(),
                other => String::from_utf8(other.to_bytes()).ok()?,
            };
            (text.len() <= LONGEST_TAG && name.len() <= LONGEST_TAG)
                .then(|| (name.to_owned(), text))
        })
        .take(MOST_TAGS)
        .collect()
}

fn challenge(reason: Reason, message: &str) -> Denial {
    let value = match reason {
        Reason::NoToken => "Bearer".to_owned(),
        // A quoted string must not be left by what it quotes (RFC 9110 section 5.6.4).
        _ => {
            let quotable = |c: &char| matches!(c, ' '..='~') && !matches!(c, '"' | '\\');
            let description: String = message.chars().filter(quotable).collect();
            format!("Bearer error=\"invalid_token\", error_description=\"{description}\"")
        }
    };
    Denial::new(reason, message).with_header("www-authenticate", value)
}

fn invalid(message: &str) -> Denial {
    challenge(Reason::InvalidToken, message)
}

fn expired() -> Denial {
    challenge(Reason::ExpiredToken, "the token has expired")
}
