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
use toolgate_policy::{Caller, CallerKind, PolicyEngine, Problem};
use toolgate_protocol::json::Json;

use super::binding::Binding;
use super::challenge::Refused;
use super::introspection::Introspection;
use super::keys::{Keys, algorithm};
use super::remote_keys::{AtHand, RemoteKeys};
use super::{Admission, KnownCaller, Proof, Unproven, claims, owner};
use crate::config::{ClaimsConfig, IssuerConfig, PrincipalConfig};
use crate::event::Timestamp;
use crate::facts::{Facts, Need};
use crate::secret::{Secret, SecretSource};

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
    /// What its keys are asked for by. Who signs tokens and who signs approvals may have one name.
    pub(super) keys: Rc<str>,
    /// What clients are told to log in at.
    pub(super) authorization_server: String,
    audiences: Vec<String>,
    /// How its tokens are verified.
    pub(super) source: Source,
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) claims: Claims,
    strict_type: bool,
}

/// How claims of one issuer become a principal.
pub(super) struct Claims {
    pub(super) issuer: Rc<str>,
    pub(super) prefix: String,
    pub(super) config: ClaimsConfig,
}

/// How tokens are verified.
pub(super) enum Source {
    /// With these keys.
    Keys(Keys),
    /// With keys that the issuer publishes.
    Remote(RemoteKeys),
    /// By asking the issuer.
    Introspection(Introspection),
}

/// A token, taken apart; nothing of it is verified.
pub(super) struct Parsed<'a> {
    pub(super) signed: &'a str,
    pub(super) signature: &'a str,
    pub(super) header: Json,
    pub(super) claims: Json,
}

/// Who is said to have signed a token.
pub(super) struct Signer<'a> {
    id: Option<&'a str>,
    algorithm: Algorithm,
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
}

/// Checks `exp`, `nbf` and `iat` (RFC 7519 section 4.1).
pub(super) fn validity(
    claims: &Json,
    leeway: Duration,
    now: Timestamp,
) -> Result<Validity, Refused> {
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

impl Source {
    /// The one way that the configuration names, and the algorithms that are accepted.
    fn compile(
        config: &mut IssuerConfig,
        secret: &mut dyn FnMut(&str, SecretSource) -> Option<Secret>,
        path: &str,
        problems: &mut Vec<Problem>,
    ) -> (Self, Vec<Algorithm>) {
        let mut report = |field: &str, message: String, help: Option<&str>| {
            let path = format!("{path}.{field}");
            problems.push(Problem { path, message, help: help.map(Into::into) });
        };
        let mut algorithms = Vec::new();
        for (index, name) in config.algorithms.iter().enumerate() {
            match algorithm(name) {
                Some(algorithm) => algorithms.push(algorithm),
                None => report(
                    &format!("algorithms[{index}]"),
                    format!("{name:?} is not accepted"),
                    Some("use ES256, ES384, EdDSA, PS256 to PS512 or RS256 to RS512"),
                ),
            }
        }
        let ways = (config.jwks.take(), config.remote_jwks.take(), config.introspection.take());
        if config.algorithms.is_empty() && ways.2.is_none() {
            let help = Some("for example [\"ES256\"]");
            report("algorithms", "no algorithm is accepted".into(), help);
        }
        let source = match ways {
            (Some(jwks), None, None) => {
                let set = serde_json::from_value::<JwkSet>(jwks).unwrap_or_else(|error| {
                    report("jwks", format!("not a JSON Web Key Set: {error}"), None);
                    JwkSet { keys: Vec::new() }
                });
                let keys = Keys::of(&set.keys, &algorithms, |index, message| {
                    report(&format!("jwks.keys[{index}]"), message, None);
                });
                if keys.is_empty() && !algorithms.is_empty() {
                    report("jwks", "no key fits the accepted algorithms".into(), None);
                }
                Self::Keys(keys)
            }
            (None, Some(remote), None) => {
                let path = format!("{path}.remote_jwks");
                Self::Remote(RemoteKeys::compile(remote, &path, problems))
            }
            (None, None, Some(mut introspection)) => {
                let path = format!("{path}.introspection");
                let source = std::mem::replace(
                    &mut introspection.client_secret,
                    SecretSource::Environment(String::new()),
                );
                let secret = secret(&format!("{path}.client_secret"), source);
                let compiled =
                    Introspection::compile(introspection, secret.as_ref(), &path, problems);
                Self::Introspection(compiled)
            }
            _ => {
                let message = "it is not clear how its tokens are verified";
                let help = Some("give one of jwks, remote_jwks and introspection");
                report("jwks", message.into(), help);
                Self::Keys(Keys::default())
            }
        };
        (source, algorithms)
    }
}

impl Issuer {
    pub(super) fn compile(
        mut config: IssuerConfig,
        secret: &mut dyn FnMut(&str, SecretSource) -> Option<Secret>,
        has_public_url: bool,
        path: &str,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let (source, algorithms) = Source::compile(&mut config, secret, path, problems);
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
        let authorization_server = server.clone();
        let name: Rc<str> = config.issuer.into();
        let claims = Claims {
            issuer: Rc::clone(&name),
            prefix: config.principal_prefix,
            config: config.claims,
        };
        claims.check(path, problems);
        Self {
            authorization_server,
            keys: Rc::clone(&name),
            name,
            audiences: config.audiences,
            source,
            algorithms,
            claims,
            strict_type: config.strict_type,
        }
    }

    /// The same issuer, with keys of its own for approvals.
    pub(super) fn for_approvals(self) -> Self {
        // No issuer of tokens has a line break in its name.
        Self { keys: format!("approvals\n{}", self.name).into(), ..self }
    }

    /// Checks the header of a token, which costs nothing.
    ///
    /// # Errors
    /// [`Refused`] for what no key would make good.
    pub(super) fn check_header<'t>(&self, token: &'t Parsed<'_>) -> Result<Signer<'t>, Refused> {
        check_parameters(&token.header)?;
        self.check_type(&token.header, &token.claims)?;
        self.signer(token)
    }

    /// Who is said to have signed a token, whatever it is for.
    ///
    /// # Errors
    /// [`Refused`] for what no key would make good.
    pub(super) fn signer<'t>(&self, token: &'t Parsed<'_>) -> Result<Signer<'t>, Refused> {
        let header = &token.header;
        check_parameters(header)?;
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
        Ok(Signer { id, algorithm })
    }

    /// Checks the signature with the keys that `kid` and `alg` leave.
    ///
    /// # Errors
    /// The need for keys that are not there, or that may be newer than those at hand.
    pub(super) fn check_signature(
        &self,
        token: &Parsed<'_>,
        signer: &Signer<'_>,
        facts: &Facts,
        now: Timestamp,
    ) -> Result<(), Unproven> {
        let Signer { id, algorithm } = signer;
        let made =
            |keys: &Keys| keys.verify(*id, *algorithm, token.signed.as_bytes(), token.signature);
        let refused = || Refused::invalid("the token's signature is not valid").into();
        let need = || Need::Keys(Rc::clone(&self.keys)).into();
        let remote = match &self.source {
            Source::Keys(keys) if made(keys) => return Ok(()),
            Source::Keys(_) | Source::Introspection(_) => return Err(refused()),
            Source::Remote(remote) => remote,
        };
        match (facts.keys(&self.keys), remote.at_hand(now)) {
            // What was fetched for this request has the last word.
            (Some(Ok(keys)), _) if made(keys) => Ok(()),
            (Some(Ok(_)), _) => Err(refused()),
            (None, AtHand::Keys(_)) if remote.is_overdue(now) => Err(need()),
            (_, AtHand::Keys(keys)) if made(&keys) => Ok(()),
            (None, AtHand::Keys(_)) if remote.may_ask_again(now) => Err(need()),
            (_, AtHand::Keys(_)) => Err(refused()),
            (None, AtHand::Missing) => Err(need()),
            (Some(Err(error)), AtHand::Missing) => Err(Refused::unavailable(error).into()),
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

    /// The caller of whom the issuer says this when it is asked about a token.
    pub(super) fn introspected(
        &self,
        answer: &Json,
        introspection: &Introspection,
        resource: impl Fn(&str) -> Option<Admission>,
        leeway: Duration,
        now: Timestamp,
        policy: &PolicyEngine,
    ) -> Result<KnownCaller, Refused> {
        let said = answer.get("iss").map(Json::as_str);
        if said.is_some_and(|issuer| issuer != Some(&*self.name)) {
            return Err(Refused::invalid("the token's issuer is not accepted here"));
        }
        // RFC 7662 section 2.2: times and audience may be missing.
        let mut validity = match answer.get("exp") {
            Some(_) => validity(answer, leeway, now)?,
            None => Validity { expires: Timestamp(Duration::MAX), issued: seconds(answer, "iat")? },
        };
        validity.expires = validity.expires.min(now.after(introspection.ttl));
        let admission = match answer.get("aud") {
            None if !introspection.requires_audience => Admission::Gateway,
            _ => self.admission(answer, resource)?,
        };
        self.claims.caller(answer, validity, admission, policy)
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
}

impl Claims {
    /// Checks where claims are looked for. `path` is that of what has them.
    pub(super) fn check(&self, path: &str, problems: &mut Vec<Problem>) {
        let ClaimsConfig { subject, groups, roles, client, scopes, tags, principal, client_when } =
            &self.config;
        for pointer in [subject, groups, roles]
            .into_iter()
            .chain(client)
            .chain(scopes)
            .chain(tags.values())
            .chain(client_when.keys())
            .filter(|pointer| !pointer.starts_with('/'))
        {
            problems.push(Problem {
                path: format!("{path}.claims"),
                message: format!("{pointer:?} is not a JSON pointer"),
                help: Some("begin with a slash: \"/groups\"".into()),
            });
        }
        if *principal != PrincipalConfig::ByToken && !client_when.is_empty() {
            problems.push(Problem {
                path: format!("{path}.claims.client_when"),
                message: "what callers are does not depend on claims here".into(),
                help: Some("leave it out, or set `principal` to by_token".into()),
            });
        }
    }

    /// For whom the caller acts of whom verified claims speak.
    fn kind(&self, claims: &Json, subject: &str, client: Option<&str>) -> CallerKind {
        let says_client = |(pointer, value): (&String, &Option<String>)| {
            let claim = claims::pointed(claims, pointer).and_then(claims::text);
            claim.is_some_and(|claim| value.as_ref().is_none_or(|value| *value == claim))
        };
        let is_client = match self.config.principal {
            PrincipalConfig::User => false,
            PrincipalConfig::Client => true,
            // RFC 9068 section 2.2: without a resource owner `sub` is the client's.
            PrincipalConfig::ByToken => {
                client == Some(subject) || self.config.client_when.iter().any(says_client)
            }
        };
        if is_client { CallerKind::Client } else { CallerKind::User }
    }

    /// The caller that verified claims speak of.
    pub(super) fn caller(
        &self,
        claims: &Json,
        validity: Validity,
        admission: Admission,
        policy: &PolicyEngine,
    ) -> Result<KnownCaller, Refused> {
        let subject = claims::pointed(claims, &self.config.subject)
            .and_then(Json::as_str)
            .filter(|subject| !subject.is_empty())
            .ok_or_else(|| Refused::invalid("the token has no subject"))?;
        let client = claims::first_text(claims, &self.config.client);
        let kind = self.kind(claims, subject, client.as_deref());
        let subject = format!("{}{subject}", self.prefix);
        let caller = Caller {
            kind,
            id: subject.clone(),
            issuer: self.issuer.to_string(),
            client: client.clone(),
            groups: claims::names(claims, &self.config.groups)?,
            roles: claims::names(claims, &self.config.roles)?,
            claims: claims::tags(claims, &self.config),
        };
        let principal = policy.principal(&caller).map_err(|error| {
            Refused::invalid(format!("the token's claims are not usable: {error}"))
        })?;
        Ok(KnownCaller {
            principal,
            kind: Some(kind),
            owner: owner(kind, &self.issuer, &subject),
            subject: subject.into(),
            issuer: Some(Rc::clone(&self.issuer)),
            client: client.map(Into::into),
            groups: caller.groups,
            roles: caller.roles,
            scopes: claims::scopes(claims, &self.config.scopes),
            issued: validity.issued,
            // Who asks for it knows whether these are the claims of a token.
            proof: Proof::Other,
            admission,
            binding: Binding::read(claims)?,
            expires: Some(validity.expires),
        })
    }
}

/// Refuses headers that want more than a signature checked, or that bring the key to do it with.
fn check_parameters(header: &Json) -> Result<(), Refused> {
    if header.get("crit").is_some() {
        return Err(Refused::invalid("the token has critical header parameters"));
    }
    if KEY_PARAMETERS.iter().any(|name| header.get(name).is_some()) {
        return Err(Refused::invalid("the token brings a key or the address of one"));
    }
    Ok(())
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
pub(super) fn seconds(claims: &Json, name: &str) -> Result<Option<u64>, Refused> {
    match claims.get(name) {
        None => Ok(None),
        Some(Json::Integer(value)) if *value >= 0 => Ok(Some(value.unsigned_abs())),
        // Fractions are allowed; the whole seconds before them decide.
        Some(Json::Float(value)) if *value >= 0.0 => Ok(Some(*value as u64)),
        Some(_) => Err(Refused::invalid(format!("the token's {name} is not a number of seconds"))),
    }
}

/// An issuer identifier (RFC 8414 section 2): https without query and fragment; http on this machine.
pub(super) fn is_server_url(url: &str) -> bool {
    let local = ["http://localhost", "http://127.0.0.1", "http://[::1]"].iter().any(|local| {
        url.strip_prefix(local).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/']))
    });
    let plain = url.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\"\\".contains(&byte));
    plain && (local || url.strip_prefix("https://").is_some_and(|rest| !rest.is_empty()))
}

#[cfg(test)]
mod vectors;
