//! Callers that the host has authenticated itself: by a filter before this one, or a plugin.
//!
//! What the host found out comes from a property of the host, which no client can write, or from a
//! header that counts only beside a secret that the host adds, so that it proves that the host's
//! configuration ran that takes both out of clients' requests. Not here: reading properties (the filter).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use toolgate_policy::{PolicyEngine, Problem};
use toolgate_protocol::headers::Headers;
use toolgate_protocol::json::Json;

use super::challenge::Refused;
use super::issuer::{Claims, Validity};
use super::tokens::TokenDigest;
use super::{Admission, KnownCaller};
use crate::config::HostIdentityConfig;
use crate::event::{HostFacts, Timestamp};
use crate::secret::{Secret, SecretSource};

/// The header in which the host proves that it is the host.
const SECRET_HEADER: &str = "x-toolgate-host-secret";

/// How long what the host said is remembered: it says it again with every request.
const REMEMBERED: Duration = Duration::from_secs(60);

/// Shortest secret of the host, in characters.
const SHORTEST_SECRET: usize = 32;

/// Where the host says who calls, compiled.
pub(super) struct HostIdentity {
    /// The property that holds it.
    pub(super) property: Option<Vec<String>>,
    header: Option<(String, Option<[u8; 32]>)>,
    claims: Claims,
}

impl HostIdentity {
    pub(super) fn compile(
        config: HostIdentityConfig,
        secret: &mut dyn FnMut(&str, SecretSource) -> Option<Secret>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut report = |field: &str, message: &str, help: &str| {
            let path = format!("identity.host.{field}");
            problems.push(Problem { path, message: message.into(), help: Some(help.into()) });
        };
        if config.property.is_some() == config.header.is_some() {
            report(
                "property",
                "it is not clear where the host says who calls",
                "give property or header",
            );
        }
        let usable = |part: &String| !part.is_empty() && !part.contains('\0');
        if config.property.as_ref().is_some_and(|path| path.is_empty() || !path.iter().all(usable))
        {
            let help = "for example [metadata, filter_metadata, my.filter, caller]";
            report("property", "not the path of a property", help);
        }
        if config.issuer.is_empty() || config.issuer.contains(char::is_control) {
            report(
                "issuer",
                "the issuer is empty or has control characters",
                "say who authenticates",
            );
        }
        let header = config.header.map(|header| {
            let found = secret("identity.host.header.secret", header.secret);
            if found.as_ref().is_some_and(|found| found.expose().len() < SHORTEST_SECRET) {
                report(
                    "header.secret",
                    "the secret is shorter than 32 characters",
                    "make one with: openssl rand -base64 32",
                );
            }
            (
                header.name.to_ascii_lowercase(),
                found.map(|found| Sha256::digest(found.expose()).into()),
            )
        });
        let claims = Claims {
            issuer: config.issuer.as_str().into(),
            prefix: config.principal_prefix,
            config: config.claims,
        };
        claims.check("identity.host", problems);
        Self { property: config.property, header, claims }
    }

    pub(super) fn prefix(&self) -> &str {
        &self.claims.prefix
    }

    /// What the host says of this request: claims as text; `None` when it says nothing.
    ///
    /// # Errors
    /// [`Refused`] for a header that the host did not vouch for.
    pub(super) fn said<'a>(
        &self,
        headers: &'a Headers,
        host: &'a HostFacts,
    ) -> Result<Option<&'a [u8]>, Refused> {
        let Some((name, secret)) = &self.header else {
            return Ok(host.caller.as_deref().filter(|said| !said.is_empty()));
        };
        let imitated =
            || Refused::invalid("this header is the host's, and the host has not vouched for it");
        let single = |name: &str| headers.single(name).map_err(|_| imitated());
        let Some(said) = single(name)? else { return Ok(None) };
        let sent: [u8; 32] = Sha256::digest(single(SECRET_HEADER)?.unwrap_or_default()).into();
        // Digests are compared, so that the time it takes says nothing of the secret.
        if secret.is_some_and(|secret| secret == sent) {
            Ok(Some(said.as_bytes()))
        } else {
            Err(imitated())
        }
    }

    /// The caller that the host speaks of.
    pub(super) fn caller(
        &self,
        said: &[u8],
        policy: &PolicyEngine,
        now: Timestamp,
    ) -> Result<KnownCaller, Refused> {
        let text = said.trim_ascii();
        let decoded = match text.first() {
            Some(b'{') => text.to_vec(),
            // Envoy's jwt_authn forwards payloads in base64url.
            _ => {
                let bare = text.trim_ascii_end();
                let unpadded = bare.strip_suffix(b"==").or(bare.strip_suffix(b"=")).unwrap_or(bare);
                URL_SAFE_NO_PAD
                    .decode(unpadded)
                    .or_else(|_| STANDARD.decode(bare))
                    .map_err(|_| Refused::invalid("what the host says of the caller is not JSON"))?
            }
        };
        let claims = match Json::parse(&decoded) {
            Ok(claims @ Json::Object(_)) => claims,
            _ => return Err(Refused::invalid("what the host says of the caller is not JSON")),
        };
        let validity = Validity { expires: now.after(REMEMBERED), issued: None };
        self.claims.caller(&claims, validity, Admission::Gateway, policy)
    }

    /// What is remembered of it is kept apart from what is remembered of tokens.
    pub(super) fn digest(said: &[u8]) -> TokenDigest {
        Sha256::new().chain_update(b"host\0").chain_update(said).finalize().into()
    }
}
