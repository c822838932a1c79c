//! Approvals: what somebody signs who lets one call of another go on, once.
//!
//! An approval is a JSON Web Token of a type of its own, from an issuer of approvals, about one call:
//! this caller, this tool of this server, these arguments, these policies. It is good once and for a
//! short time. What it has to say is what the refusal for want of it says ([`Approvals::demand`]).
//! Checked as RFC 8725 advises, what is cheap first, so that no key is fetched for what would be refused
//! with any. Not here: which calls need one (policy), when one is spent (`exchange`).

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use sha2::{Digest, Sha256};
use toolgate_policy::{ApprovalNeeded, Approvers, CallerKind, Problem};
use toolgate_protocol::json::{Json, Object};
use toolgate_protocol::jsonrpc::Message;

use super::issuer::{Issuer, Parsed, is_server_url, seconds};
use super::{KnownCaller, Unproven};
use crate::audit::{AuditRecord, digest};
use crate::config::{ApprovalIssuerConfig, ApprovalsConfig, ClaimsConfig, IssuerConfig};
use crate::denial::{Denial, Reason};
use crate::event::Timestamp;
use crate::facts::{Facts, Need, Stop};
use crate::secret::Secret;

/// The `typ` of approvals: no issuer signs them for another use.
const TYPE: &str = "toolgate-approval+jwt";

/// Header field that carries an approval.
pub(crate) const HEADER: &str = "toolgate-approval";

/// The same as errors write it.
const HEADER_NAME: &str = "Toolgate-Approval";

/// Member of a message's `_meta` that carries an approval.
pub(crate) const META: &str = "dev.toolgate/approval";

/// Longest approval in bytes.
const LONGEST: usize = 8192;

/// Longest `sub` and `jti` in bytes: they stand in records.
const LONGEST_NAME: usize = 256;

/// Longest life of an approval that can be configured.
const LONGEST_LIFE: Duration = Duration::from_secs(86_400);

/// Most approvals that one worker remembers as used, whoever's they are.
const MOST_USED: usize = 1 << 16;

/// Who signs approvals, compiled, and which were used.
pub(crate) struct Approvals {
    pub(super) issuers: Vec<Issuer>,
    audience: String,
    url: Option<String>,
    max_age: Duration,
    leeway: Duration,
    used: RefCell<Used>,
}

/// A call that needs an approval.
pub(crate) struct Call<'a> {
    pub(crate) caller: &'a KnownCaller,
    /// The caller's name as its issuer knows it, without the prefix that the gateway adds.
    pub(crate) subject: &'a str,
    pub(crate) server: &'a str,
    pub(crate) tool: &'a str,
    pub(crate) arguments: &'a Json,
    pub(crate) policy_set: &'a str,
    pub(crate) needed: &'a ApprovalNeeded,
}

/// A call was approved, and its approval is not used yet.
pub(crate) struct Approved {
    key: UsedKey,
    until: Timestamp,
}

/// Digest of an approval's issuer and `jti`.
type UsedKey = [u8; 16];

/// Approvals that were used and are not over.
#[derive(Default)]
struct Used {
    until: HashMap<UsedKey, Timestamp>,
}

impl Approvals {
    /// Compiles the `approvals` part of the configuration. `public_url` is that of the gateway.
    pub(crate) fn compile(
        config: ApprovalsConfig,
        public_url: Option<&str>,
        leeway: Duration,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut problem = |field: &str, message: String, help: &str| {
            let path = format!("approvals.{field}");
            problems.push(Problem { path, message, help: Some(help.into()) });
        };
        let audience = config.audience.as_deref().or(public_url).unwrap_or_default().to_owned();
        if audience.is_empty() || audience.chars().any(char::is_control) {
            let message = "approvals are for no gateway in particular".to_owned();
            problem("audience", message, "name this gateway, or set `identity.public_url`");
        }
        if config.issuers.is_empty() {
            problem("issuers", "nobody signs approvals".into(), "add an issuer");
        }
        if let Some(url) = config.url.as_ref().filter(|url| !is_server_url(url)) {
            let help = "write where a person or a client can ask for an approval";
            problem("url", format!("{url:?} is not an https URL"), help);
        }
        let max_age = Duration::from_secs(config.max_age_seconds);
        if !(Duration::from_secs(1)..=LONGEST_LIFE).contains(&max_age) {
            let message = format!("{} is not usable", config.max_age_seconds);
            problem("max_age_seconds", message, "choose 1 to 86400 seconds");
        }
        let mut issuers: Vec<Issuer> = Vec::new();
        for (index, issuer) in config.issuers.into_iter().enumerate() {
            let path = format!("approvals.issuers[{index}]");
            if issuers.iter().any(|other| *other.name == *issuer.issuer) {
                problems.push(Problem {
                    path: format!("{path}.issuer"),
                    message: format!("{:?} is configured twice", issuer.issuer),
                    help: None,
                });
            }
            issuers.push(compile_issuer(issuer, &audience, &path, problems));
        }
        Self { issuers, audience, url: config.url, max_age, leeway, used: RefCell::default() }
    }

    /// Whether this call was approved. `sent` is the approval that came with it.
    ///
    /// # Errors
    /// [`Stop`] with the need for an issuer's keys, or with a refusal that says what has to be signed.
    pub(crate) fn check(
        &self,
        sent: Option<&Secret>,
        call: &Call<'_>,
        facts: &Facts,
        now: Timestamp,
        audit: &mut AuditRecord,
    ) -> Result<Approved, Stop> {
        let Some(sent) = sent else { return Err(self.required(call).into()) };
        let mut refused = |message: &'static str| {
            audit.detail = Some(message.into());
            Stop::from(self.invalid(call, message))
        };
        let claims = match self.read(sent.expose(), call, facts, now) {
            Ok(claims) => claims,
            Err(Fault::Wrong(message)) => return Err(refused(message)),
            Err(Fault::Need(need)) => return Err(need.into()),
            Err(Fault::Unavailable(detail)) => {
                audit.detail = detail;
                let message = "the approval cannot be verified at the moment; try again later";
                return Err(Denial::new(Reason::IssuerUnavailable, message).into());
            }
        };
        let state = self.used.borrow_mut().state(&claims.key, now);
        let result = match state {
            UseState::Fresh => Ok(Approved { key: claims.key, until: claims.until }),
            UseState::Used => Err(refused("it was used before: every call needs its own")),
            UseState::Full => {
                let message = "too many approvals were used lately; try again later";
                Err(Denial::new(Reason::ApprovalUnavailable, message).into())
            }
        };
        audit.approver = Some(claims.approver.into());
        audit.approval_id = Some(claims.id);
        result
    }

    /// Uses an approval up: the call goes on.
    pub(crate) fn spend(&self, approved: &Approved) {
        self.used.borrow_mut().until.insert(approved.key, approved.until);
    }

    /// Reads an approval and compares it with the call.
    fn read(
        &self,
        token: &str,
        call: &Call<'_>,
        facts: &Facts,
        now: Timestamp,
    ) -> Result<Claims, Fault> {
        if token.len() > LONGEST {
            return Err(Fault::Wrong("it is larger than the gateway accepts"));
        }
        let token = Parsed::read(token).map_err(|_| Fault::Wrong("it is not a JSON Web Token"))?;
        let claims = &token.claims;
        let text =
            |object: &Json, name: &str| object.get(name).and_then(Json::as_str).map(str::to_owned);
        if text(&token.header, "typ").as_deref() != Some(TYPE) {
            return Err(Fault::Wrong("its typ is not toolgate-approval+jwt"));
        }
        let name = text(claims, "iss");
        let issuer = self.issuers.iter().find(|issuer| Some(&*issuer.name) == name.as_deref());
        let issuer = issuer.ok_or(Fault::Wrong("its issuer signs no approvals here"))?;
        let signer = issuer
            .signer(&token)
            .map_err(|_| Fault::Wrong("its header names no accepted algorithm and key"))?;
        let audiences = match claims.get("aud") {
            Some(Json::Array(audiences)) => audiences.as_slice(),
            Some(audience) => std::slice::from_ref(audience),
            None => &[],
        };
        if !audiences.iter().any(|audience| audience.as_str() == Some(&*self.audience)) {
            return Err(Fault::Wrong("it is for another gateway"));
        }
        let until = self.until(claims, now)?;
        let name = |claim: &str| {
            text(claims, claim).filter(|name| {
                !name.is_empty()
                    && name.len() <= LONGEST_NAME
                    && !name.chars().any(char::is_control)
            })
        };
        let approver = name("sub").ok_or(Fault::Wrong("it does not say who approves"))?;
        let id = name("jti").ok_or(Fault::Wrong("it has no usable jti"))?;
        self.compare(claims, call)?;
        // Whichever issuer calls them so: better to refuse somebody's namesake than the caller's own.
        if approver == call.subject || approver == *call.caller.subject {
            return Err(Fault::Wrong("callers cannot approve their own calls"));
        }
        if !may_approve(claims, &call.needed.approvers)? {
            return Err(Fault::Wrong("its approver is in no group that may approve this"));
        }
        match issuer.check_signature(&token, &signer, facts, now) {
            Ok(()) => {}
            Err(Unproven::Need(need)) => return Err(Fault::Need(need)),
            Err(Unproven::Refused(refused)) if refused.reason == Reason::IssuerUnavailable => {
                return Err(Fault::Unavailable(refused.detail));
            }
            Err(Unproven::Refused(_)) => return Err(Fault::Wrong("its signature is not valid")),
        }
        // Neither text has a line break in it.
        let digest = Sha256::digest(format!("{}\n{id}", issuer.name));
        let key = digest.first_chunk().copied().ok_or(Fault::Wrong("it has no usable jti"))?;
        Ok(Claims { approver, id, key, until })
    }

    /// Until when it is good, leeway included.
    fn until(&self, claims: &Json, now: Timestamp) -> Result<Timestamp, Fault> {
        let time =
            |name| seconds(claims, name).map_err(|_| Fault::Wrong("its times are no numbers"));
        let issued = time("iat")?.ok_or(Fault::Wrong("it does not say when it was made"))?;
        let ends = time("exp")?.ok_or(Fault::Wrong("it does not end"))?;
        let latest = now.after(self.leeway).seconds();
        if issued > latest || time("nbf")?.is_some_and(|begins| begins > latest) {
            return Err(Fault::Wrong("it is not valid yet"));
        }
        if ends.saturating_sub(issued) > self.max_age.as_secs() {
            return Err(Fault::Wrong("it is good for longer than the gateway accepts"));
        }
        let until = Timestamp(Duration::from_secs(ends)).after(self.leeway);
        if now >= until { Err(Fault::Wrong("it has expired")) } else { Ok(until) }
    }

    /// Compares what was approved with what is asked for.
    fn compare(&self, claims: &Json, call: &Call<'_>) -> Result<(), Fault> {
        let said = claims.get("approval").and_then(Json::as_object);
        let said = said.ok_or(Fault::Wrong("it has no claim `approval`"))?;
        let expected = bound(call);
        let same = |name: &str| said.get(name).is_some() && said.get(name) == expected.get(name);
        for (name, message) in [
            ("principal", "it is for another caller"),
            ("server", "it is for another server"),
            ("tool", "it is for another tool"),
            ("arguments", "it is for other arguments"),
            ("policy_set", "it was made under other policies"),
        ] {
            if !same(name) {
                return Err(Fault::Wrong(message));
            }
        }
        if said.len() != expected.len() {
            // It may say a condition that nobody here would keep.
            return Err(Fault::Wrong("its claim `approval` has members that are not known"));
        }
        Ok(())
    }

    fn required(&self, call: &Call<'_>) -> Denial {
        let place = match &self.url {
            Some(url) => format!(" at {url}"),
            None => String::new(),
        };
        let mut message = format!(
            "this call needs an approval: have what error.data.approval says signed{place}, and send \
             the call again with it in {HEADER_NAME}"
        );
        for advice in &call.needed.advice {
            message.push_str(": ");
            message.push_str(advice);
        }
        self.demand(Denial::new(Reason::ApprovalRequired, message), call)
    }

    fn invalid(&self, call: &Call<'_>, message: &'static str) -> Denial {
        let message = format!("the approval is not good for this call: {message}");
        self.demand(Denial::new(Reason::ApprovalInvalid, message), call)
    }

    /// Says in `denial` what has to be signed, by whom, and where it is sent.
    fn demand(&self, denial: Denial, call: &Call<'_>) -> Denial {
        let texts =
            |texts: &mut dyn Iterator<Item = &str>| Json::Array(texts.map(Json::from).collect());
        let mut groups = Vec::new();
        for approvers in &call.needed.approvers {
            match approvers {
                Approvers::Group(group) => groups.push(group.as_str()),
                // Then it does not matter who else may.
                Approvers::Anyone => {
                    groups.clear();
                    break;
                }
            }
        }
        let life = i64::try_from(self.max_age.as_secs()).unwrap_or(i64::MAX);
        let mut denial = denial
            .with_data("approval", bound(call).into())
            .with_data("typ", TYPE.into())
            .with_data("aud", self.audience.as_str().into())
            .with_data("issuers", texts(&mut self.issuers.iter().map(|issuer| &*issuer.name)))
            .with_data("max_age_seconds", Json::Integer(life))
            .with_data("header", HEADER_NAME.into())
            .with_data("meta", META.into());
        if !groups.is_empty() {
            denial = denial.with_data("groups", texts(&mut groups.into_iter()));
        }
        if let Some(url) = &self.url {
            denial = denial.with_data("url", url.as_str().into());
        }
        if !call.needed.advice.is_empty() {
            let mut advice = call.needed.advice.iter().map(String::as_str);
            denial = denial.with_data("advice", texts(&mut advice));
        }
        denial
    }
}

/// What an approval says that is good for this call.
struct Claims {
    approver: String,
    id: String,
    key: UsedKey,
    until: Timestamp,
}

/// Why an approval cannot be used.
enum Fault {
    /// It is wrong: for the caller and the record.
    Wrong(&'static str),
    /// The keys of its issuer are missing.
    Need(Need),
    /// They cannot be had, for this reason.
    Unavailable(Option<String>),
}

enum UseState {
    Fresh,
    Used,
    /// Whether it was used could not be remembered.
    Full,
}

impl Used {
    fn state(&mut self, key: &UsedKey, now: Timestamp) -> UseState {
        if self.until.get(key).is_some_and(|until| now < *until) {
            return UseState::Used;
        }
        if self.until.len() >= MOST_USED {
            self.until.retain(|_, until| now < *until);
        }
        if self.until.len() >= MOST_USED { UseState::Full } else { UseState::Fresh }
    }
}

/// Takes an approval out of a message: it is for the gateway alone.
///
/// # Errors
/// A [`Denial`] for one that is no text.
pub(crate) fn take(message: &mut Message) -> Result<Option<Secret>, Denial> {
    // The usual message has none, and is not taken apart.
    let meta = message.params().and_then(|params| params.get("_meta"));
    if meta.is_none_or(|meta| meta.get(META).is_none()) {
        return Ok(None);
    }
    let params = message.body_mut().as_object_mut().and_then(|body| body.get_mut("params"));
    let Some(params) = params.and_then(Json::as_object_mut) else { return Ok(None) };
    let Some(meta) = params.get_mut("_meta").and_then(Json::as_object_mut) else { return Ok(None) };
    let taken = meta.remove(META);
    if meta.is_empty() {
        params.remove("_meta");
    }
    match taken {
        Some(Json::String(approval)) => Ok(Some(Secret::new(approval))),
        _ => {
            let message = format!("params._meta[{META:?}] must be a string");
            Err(Denial::new(Reason::InvalidParams, message))
        }
    }
}

/// The claim `approval` of an approval for this call.
fn bound(call: &Call<'_>) -> Object {
    let mut principal = Object::default();
    principal.set("iss", Json::from(call.caller.issuer.as_deref().unwrap_or_default()));
    principal.set("sub", Json::from(&*call.caller.subject));
    if call.caller.kind == Some(CallerKind::Client) {
        principal.set("type", Json::from(call.caller.type_name()));
    }
    let mut bound = Object::default();
    bound.set("principal", principal.into());
    bound.set("server", call.server.into());
    bound.set("tool", call.tool.into());
    // The order of members means nothing, and clients do not keep it.
    bound.set("arguments", digest(&call.arguments.to_canonical_bytes()).into());
    bound.set("policy_set", call.policy_set.into());
    bound
}

/// Whether the approver is one of these.
fn may_approve(claims: &Json, approvers: &[Approvers]) -> Result<bool, Fault> {
    let groups = super::claims::names(claims, "/groups")
        .map_err(|_| Fault::Wrong("its claim `groups` is not an array of strings"))?;
    Ok(approvers.iter().any(|approvers| match approvers {
        Approvers::Anyone => true,
        Approvers::Group(group) => groups.contains(group),
    }))
}

fn compile_issuer(
    config: ApprovalIssuerConfig,
    audience: &str,
    path: &str,
    problems: &mut Vec<Problem>,
) -> Issuer {
    let ApprovalIssuerConfig { issuer, algorithms, jwks, remote_jwks } = config;
    let config = IssuerConfig {
        issuer,
        audiences: vec![audience.to_owned()],
        algorithms,
        jwks,
        remote_jwks,
        introspection: None,
        claims: ClaimsConfig::default(),
        principal_prefix: String::new(),
        strict_type: true,
        authorization_server: None,
        authorization_server_metadata: None,
        oauth_proxy: None,
    };
    let mut found = Vec::new();
    let issuer = Issuer::compile(config, &mut |_, _| None, false, path, &mut found).for_approvals();
    for problem in &mut found {
        // What issuers of tokens can have besides.
        problem.help = problem.help.take().map(|help| {
            help.replace(
                "one of jwks, remote_jwks and introspection",
                "one of jwks and remote_jwks",
            )
        });
    }
    problems.append(&mut found);
    issuer
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp(Duration::from_secs(seconds))
    }

    fn key(number: usize) -> UsedKey {
        let mut key = UsedKey::default();
        key[..8].copy_from_slice(&(number as u64).to_be_bytes());
        key
    }

    #[test]
    fn a_full_memory_takes_no_approval_until_others_are_over() {
        let mut used = Used::default();
        for number in 0..MOST_USED {
            used.until.insert(key(number), at(100 + (number % 2) as u64));
        }
        assert!(matches!(used.state(&key(MOST_USED), at(99)), UseState::Full));
        assert!(matches!(used.state(&key(7), at(99)), UseState::Used));
        assert_eq!(used.until.len(), MOST_USED);
        assert!(matches!(used.state(&key(MOST_USED), at(100)), UseState::Fresh));
        assert_eq!(used.until.len(), MOST_USED / 2);
    }
}
