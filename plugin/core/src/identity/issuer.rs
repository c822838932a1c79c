//! One issuer of access tokens: what it signs with, for whom, and where its claims stand.
//!
//! Tokens are JSON Web Tokens in the profile of RFC 9068, verified as RFC 8725 advises: the algorithm
//! must be on the issuer's list and fit the key, issuer and audience must match exactly, and a token
//! that says less than it must is refused. Nothing that a token carries about keys is believed.

use std::rc::Rc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use jsonwebtoken::jwk::JwkSet;
use toolgate_policy::{Caller, PolicyEngine, Problem};
use toolgate_protocol::json::Json;

use super::challenge::Refused;
use super::keys::{Keys, algorithm};
use super::{Admission, KnownCaller, claims};
use crate::config::{ClaimsConfig, IssuerConfig};
use crate::event::Timestamp;

/// Types of tokens that are access tokens (RFC 9068 section 2.1), in lower case.
const STRICT_TYPES: &[&str] = &["at+jwt", "application/at+jwt"];

/// Claims that only ID tokens have (OpenID Connect Core 1.0, sections 2 and 3.3.2.11).
const ID_TOKEN_CLAIMS: &[&str] = &["at_hash", "c_hash", "nonce"];

/// Header parameters that bring a key or say where one is. A token does not get to say which key
/// verifies it (RFC 8725 section 3.10).
const KEY_PARAMETERS: &[&str] = &["jwk", "jku", "x5u"];

/// Longest key identifier that is compared, in bytes.
const LONGEST_KEY_ID: usize = 512;

/// One issuer, compiled.
pub(super) struct Issuer {
    pub(super) name: Rc<str>,
    pub(super) prefix: String,
    /// What clients are told to log in at.
    pub(super) authorization_server: String,
    audiences: Vec<String>,
    keys: Keys,
    algorithms: Vec<Algorithm>,
    claims: ClaimsConfig,
    strict_type: bool,
}

/// A token, taken apart; nothing of it is verified.
pub(super) struct Parsed<'a> {
    signed: &'a str,
    signature: &'a str,
    header: Json,
    pub(super) claims: Json,
}

/// How long a token is good for.
pub(super) struct Validity {
    /// Until then, leeway included.
    pub(super) expires: Timestamp,
    /// When it was issued, in seconds since the epoch.
    pub(super) issued: Option<u64>,
}

impl<'a> Parsed<'a> {
    /// Takes a token apart (RFC 7515 section 3.1).
    pub(super) fn read(token: &'a str) -> Result<Self, Refused> {
        let not_jwt = || Refused::invalid("the token is not a JSON Web Token");
        let (signed, signature) = token.rsplit_once('.').ok_or_else(not_jwt)?;
        let (header, payload) = signed.split_once('.').ok_or_else(not_jwt)?;
        let header = segment(header, "header")?;
        let claims = segment(payload, "payload")?;
        Ok(Self { signed, signature, header, claims })
    }

    /// Checks `exp`, `nbf` and `iat` (RFC 7519 section 4.1).
    pub(super) fn validity(&self, leeway: Duration, now: Timestamp) -> Result<Validity, Refused> {
        let claims = &self.claims;
        let expires =
            seconds(claims, "exp")?.ok_or_else(|| Refused::invalid("the token has no exp"))?;
        let expires = Timestamp(Duration::from_secs(expires)).after(leeway);
        if now >= expires {
            return Err(Refused::expired());
        }
        let latest = now.after(leeway).seconds();
        if seconds(claims, "nbf")?.is_some_and(|begins| begins > latest) {
            return Err(Refused::invalid("the token is not valid yet"));
        }
        let issued = seconds(claims, "iat")?;
        if issued.is_some_and(|issued| issued > latest) {
            return Err(Refused::invalid("the token was issued in the future"));
        }
        Ok(Validity { expires, issued })
    }
}

impl Issuer {
    pub(super) fn compile(
        config: IssuerConfig,
        has_public_url: bool,
        path: &str,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut problem = |field: &str, message: String, help: Option<&str>| {
            problems.push(Problem {
                path: format!("{path}.{field}"),
                message,
                help: help.map(Into::into),
            });
        };
        if config.issuer.is_empty() || config.issuer.contains(|c: char| c.is_control()) {
            problem("issuer", "the issuer is empty or has control characters".into(), None);
        }
        if config.audiences.is_empty() && !has_public_url {
            problem(
                "audiences",
                "no audience is accepted".into(),
                Some("set `identity.public_url`, or name the audiences that its tokens have"),
            );
        }
        let server = config.authorization_server.as_ref().unwrap_or(&config.issuer);
        if has_public_url && !is_server_url(server) {
            problem(
                if config.authorization_server.is_some() {
                    "authorization_server"
                } else {
                    "issuer"
                },
                format!("{server:?} is not a URL that clients could log in at"),
                Some("set `authorization_server` to the https URL of the authorization server"),
            );
        }
        let mut allowed = Vec::new();
        for (index, name) in config.algorithms.iter().enumerate() {
            match algorithm(name) {
                Some(algorithm) => allowed.push(algorithm),
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
        let claims = &config.claims;
        for pointer in [&claims.subject, &claims.groups, &claims.roles]
            .into_iter()
            .chain(&claims.client)
            .chain(&claims.scopes)
            .chain(claims.tags.values())
            .filter(|pointer| !pointer.starts_with('/'))
        {
            problem(
                "claims",
                format!("{pointer:?} is not a JSON pointer"),
                Some("begin with a slash: \"/groups\""),
            );
        }
        let set = match serde_json::from_value::<JwkSet>(config.jwks) {
            Ok(set) => set,
            Err(error) => {
                problem("jwks", format!("not a JSON Web Key Set: {error}"), None);
                JwkSet { keys: Vec::new() }
            }
        };
        let keys = Keys::of(&set.keys, &allowed, |index, message| {
            problem(&format!("jwks.keys[{index}]"), message, None);
        });
        if keys.is_empty() && !allowed.is_empty() {
            problem("jwks", "no key fits the accepted algorithms".into(), None);
        }
        Self {
            authorization_server: server.clone(),
            name: config.issuer.into(),
            prefix: config.principal_prefix,
            audiences: config.audiences,
            keys,
            algorithms: allowed,
            claims: config.claims,
            strict_type: config.strict_type,
        }
    }

    /// Checks the header and the signature with the keys that its `kid` and `alg` leave.
    pub(super) fn check_signature(&self, token: &Parsed<'_>) -> Result<(), Refused> {
        let Parsed { header, claims, signed, signature } = token;
        if header.get("crit").is_some() {
            return Err(Refused::invalid("the token has critical header parameters"));
        }
        if KEY_PARAMETERS.iter().any(|name| header.get(name).is_some()) {
            return Err(Refused::invalid("the token brings a key or the address of one"));
        }
        self.check_type(header, claims)?;
        let algorithm = header
            .get("alg")
            .and_then(Json::as_str)
            .and_then(algorithm)
            .filter(|algorithm| self.algorithms.contains(algorithm))
            .ok_or_else(|| Refused::invalid("the token's algorithm is not accepted"))?;
        let id = match header.get("kid") {
            None => None,
            Some(Json::String(id)) if id.len() <= LONGEST_KEY_ID => Some(id.as_str()),
            Some(_) => return Err(Refused::invalid("the token's kid is not usable")),
        };
        if self.keys.verify(id, algorithm, signed.as_bytes(), signature) {
            Ok(())
        } else {
            Err(Refused::invalid("the token's signature is not valid"))
        }
    }

    /// Refuses what the issuer signed for another use (RFC 8725 section 3.12): ID tokens, and the
    /// assertions that are exchanged for access tokens elsewhere.
    fn check_type(&self, header: &Json, claims: &Json) -> Result<(), Refused> {
        let wrong = || Refused::invalid("the token's type is not an access token");
        let kind = match header.get("typ") {
            None => None,
            Some(kind) => Some(kind.as_str().ok_or_else(wrong)?.to_ascii_lowercase()),
        };
        let accepted = match kind.as_deref() {
            Some(kind) if STRICT_TYPES.contains(&kind) => return Ok(()),
            // Issuers before RFC 9068 say JWT or nothing.
            None | Some("jwt") => !self.strict_type,
            Some(_) => false,
        };
        // Some issuers say in the claims what the header leaves open (Keycloak, Cognito).
        let says_id = [("typ", "ID"), ("token_use", "id")]
            .iter()
            .any(|(name, value)| claims.get(name).and_then(Json::as_str) == Some(value));
        if !accepted || says_id || ID_TOKEN_CLAIMS.iter().any(|name| claims.get(name).is_some()) {
            return Err(wrong());
        }
        Ok(())
    }

    /// What the token's audiences admit to. `resource` says which of the gateway's own resources an
    /// audience is, without a slash at its end.
    pub(super) fn admission(
        &self,
        claims: &Json,
        resource: impl Fn(&str) -> Option<Admission>,
    ) -> Result<Admission, Refused> {
        let mut endpoints = Vec::new();
        let audiences: &[Json] = match claims.get("aud") {
            Some(Json::Array(audiences)) => audiences,
            Some(audience) => std::slice::from_ref(audience),
            None => &[],
        };
        for audience in audiences.iter().filter_map(Json::as_str) {
            // RFC 8707 identifiers come with and without a slash; both name the resource.
            let audience = audience.strip_suffix('/').unwrap_or(audience);
            if self.audiences.iter().any(|own| own.strip_suffix('/').unwrap_or(own) == audience) {
                return Ok(Admission::Gateway);
            }
            match resource(audience) {
                Some(Admission::Gateway) => return Ok(Admission::Gateway),
                Some(Admission::Endpoints(names)) => endpoints.extend(names),
                None => {}
            }
        }
        if endpoints.is_empty() {
            return Err(Refused::invalid("the token was issued for another audience"));
        }
        Ok(Admission::Endpoints(endpoints))
    }

    /// The caller that verified claims speak of.
    pub(super) fn caller(
        &self,
        claims: &Json,
        validity: Validity,
        admission: Admission,
        policy: &PolicyEngine,
    ) -> Result<KnownCaller, Refused> {
        let subject = claims::pointed(claims, &self.claims.subject)
            .and_then(Json::as_str)
            .filter(|subject| !subject.is_empty())
            .ok_or_else(|| Refused::invalid("the token has no subject"))?;
        let subject = format!("{}{subject}", self.prefix);
        let client = claims::first_text(claims, &self.claims.client);
        let caller = Caller {
            id: subject.clone(),
            issuer: self.name.to_string(),
            client: client.clone(),
            groups: claims::names(claims, &self.claims.groups)?,
            roles: claims::names(claims, &self.claims.roles)?,
            claims: claims::tags(claims, &self.claims),
        };
        let principal = policy.principal(&caller).map_err(|error| {
            Refused::invalid(format!("the token's claims are not usable: {error}"))
        })?;
        Ok(KnownCaller {
            principal,
            // Issuers are known texts of the configuration, and none of them holds a line break.
            owner: format!("{}\n{subject}", self.name).into(),
            subject: subject.into(),
            issuer: Some(Rc::clone(&self.name)),
            client: client.map(Into::into),
            scopes: claims::scopes(claims, &self.claims.scopes),
            issued: validity.issued,
            admission,
            expires: Some(validity.expires),
        })
    }
}

/// One part of a token: strict JSON in base64url (RFC 7515 section 2). A member that is given twice is
/// refused with it, since parsers pick different ones.
fn segment(text: &str, name: &str) -> Result<Json, Refused> {
    let bytes = URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| Refused::invalid(format!("the token's {name} is not base64url")))?;
    match Json::parse(&bytes) {
        Ok(json @ Json::Object(_)) => Ok(json),
        _ => Err(Refused::invalid(format!("the token's {name} is not a strict JSON object"))),
    }
}

/// A NumericDate (RFC 7519 section 2).
fn seconds(claims: &Json, name: &str) -> Result<Option<u64>, Refused> {
    match claims.get(name) {
        None => Ok(None),
        Some(Json::Integer(value)) if *value >= 0 => Ok(Some(value.unsigned_abs())),
        // Fractions are allowed; the whole seconds before them decide.
        Some(Json::Float(value)) if *value >= 0.0 => Ok(Some(*value as u64)),
        Some(_) => Err(Refused::invalid(format!("the token's {name} is not a number of seconds"))),
    }
}

/// An issuer identifier (RFC 8414 section 2): https without query and fragment; http on this machine.
fn is_server_url(url: &str) -> bool {
    let local = ["http://localhost", "http://127.0.0.1", "http://[::1]"].iter().any(|local| {
        url.strip_prefix(local).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/']))
    });
    let plain = url.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\"\\".contains(&byte));
    plain && (local || url.strip_prefix("https://").is_some_and(|rest| !rest.is_empty()))
}
