//! API keys: for machines that cannot log in. The configuration holds their digests only.

use std::collections::BTreeMap;
use std::rc::Rc;

use toolgate_policy::{Caller, CallerKind, PolicyEngine, Problem};

use super::binding::Binding;
use super::tokens::TokenDigest;
use super::{Admission, KnownCaller, Proof, owner};
use crate::config::{ApiKeyConfig, ApiKeysConfig, KeyPrincipalConfig};
use crate::event::Timestamp;

/// What stands for the issuer of those who hold a key.
pub(super) const ISSUER: &str = "api_keys";

/// Keys by their SHA-256.
pub(super) struct ApiKeys {
    /// The header that carries a key besides `Authorization: Bearer`, in lower case.
    pub(super) header: Option<String>,
    /// Who holds which.
    keys: Vec<(TokenDigest, ApiKeyConfig)>,
    prefix: String,
    /// For whom they act.
    kind: CallerKind,
}

impl ApiKeys {
    pub(super) fn compile(
        config: ApiKeysConfig,
        servers: &[String],
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut report = |path: String, message: String, help: &str| {
            problems.push(Problem { path, message, help: Some(help.into()) });
        };
        let mut keys: Vec<(TokenDigest, ApiKeyConfig)> = Vec::new();
        for (index, key) in config.keys.into_iter().enumerate() {
            let path = format!("identity.api_keys.keys[{index}]");
            if key.name.is_empty() || key.name.len() > 128 || key.name.contains(char::is_control) {
                report(format!("{path}.name"), "not a usable name".into(), "name the machine");
            }
            for server in key.servers.iter().filter(|server| !servers.contains(server)) {
                let message = format!("there is no server {server:?}");
                report(format!("{path}.servers"), message, "name servers of `servers`");
            }
            match digest(&key.sha256) {
                None => report(
                    format!("{path}.sha256"),
                    "not a SHA-256 in 64 lower-case hexadecimal digits".into(),
                    "make a key with `openssl rand -hex 32`, and its digest with `printf %s \"$KEY\" | sha256sum`",
                ),
                Some(digest)
                    if keys
                        .iter()
                        .any(|(known, other)| *known == digest || other.name == key.name) =>
                {
                    report(
                        path,
                        format!("{:?} has the key or name of another", key.name),
                        "give each machine its own",
                    );
                }
                Some(digest) => keys.push((digest, key)),
            }
        }
        let header = config.header.map(|header| header.to_ascii_lowercase());
        if let Some(header) = &header
            && !["x-api-key", "api-key"].contains(&header.as_str())
            && !header.starts_with("x-")
        {
            let message = format!("{header:?} is not a header for keys");
            report("identity.api_keys.header".into(), message, "for example \"x-api-key\"");
        }
        let kind = match config.principal {
            KeyPrincipalConfig::User => CallerKind::User,
            KeyPrincipalConfig::Client => CallerKind::Client,
        };
        Self { header, keys, prefix: config.principal_prefix, kind }
    }

    pub(super) fn prefix(&self) -> Option<&str> {
        (!self.keys.is_empty()).then_some(self.prefix.as_str())
    }

    /// Those who hold a key, as principals of `policy`, by the SHA-256 of the key. What is looked up is
    /// the digest of what was sent, so that the time it takes says nothing of the keys there are.
    ///
    /// # Errors
    /// The problem with each that cannot be one.
    pub(super) fn callers(
        &self,
        policy: &PolicyEngine,
        problems: &mut Vec<Problem>,
    ) -> BTreeMap<TokenDigest, Rc<KnownCaller>> {
        let mut callers = BTreeMap::new();
        for (index, (digest, key)) in self.keys.iter().enumerate() {
            let subject = format!("{}{}", self.prefix, key.name);
            let caller = Caller {
                kind: self.kind,
                id: subject.clone(),
                issuer: ISSUER.into(),
                client: None,
                groups: key.groups.clone(),
                roles: key.roles.clone(),
                claims: BTreeMap::new(),
            };
            match policy.principal(&caller) {
                Err(error) => problems.push(Problem {
                    path: format!("identity.api_keys.keys[{index}]"),
                    message: error.to_string(),
                    help: None,
                }),
                Ok(principal) => {
                    let servers = key.servers.iter().map(|name| name.as_str().into()).collect();
                    let admission = if key.servers.is_empty() {
                        Admission::Gateway
                    } else {
                        Admission::Endpoints(servers)
                    };
                    let caller = KnownCaller {
                        principal,
                        kind: Some(self.kind),
                        owner: owner(self.kind, ISSUER, &subject),
                        subject: subject.into(),
                        issuer: Some(ISSUER.into()),
                        client: None,
                        groups: key.groups.clone(),
                        roles: key.roles.clone(),
                        scopes: key.scopes.clone(),
                        issued: None,
                        proof: Proof::Other,
                        admission,
                        binding: Binding::default(),
                        expires: Some(Timestamp(std::time::Duration::MAX)),
                    };
                    callers.insert(*digest, Rc::new(caller));
                }
            }
        }
        callers
    }
}

/// A SHA-256 as it is written.
pub(super) fn digest(text: &str) -> Option<TokenDigest> {
    if text.len() != 64 || !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let mut digest = TokenDigest::default();
    for (index, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(digest)
}
