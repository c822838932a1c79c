//! Who calls: what a request proves of its caller, and what a client is told that has to log in.
//!
//! A caller is known by an access token of a configured issuer (`issuer`), remembered by digest once it
//! was verified (`tokens`). Clients find out by metadata and challenges where to log in and what for
//! (`metadata`, `challenge`, `scopes`). Not here: what a principal may do (policy).

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use jsonwebtoken::Algorithm;
use sha2::{Digest, Sha256};
use toolgate_policy::{CallerKind, PolicyEngine, Principal, Problem};
use toolgate_protocol::headers::Headers;
use toolgate_protocol::json::{Json, Object};

use crate::audit::AuditRecord;
use crate::config::{DeniedConfig, IdentityConfig, IssuerConfig, OAuthProxyConfig};
use crate::denial::{Denial, LocalReply, Reason};
use crate::event::{CallOutcome, HostFacts, HostQuestions, HttpCall, Timestamp};
use crate::facts::{Facts, Need, Stop};
use crate::policies::Policies;
use crate::secret::{Secret, SecretSource};

mod api_keys;
pub(crate) mod approvals;
mod authorization_server;
mod binding;
mod challenge;
mod claims;
mod dpop;
mod endpoint;
mod host;
pub(crate) mod introspection;
mod issuer;
mod keys;
mod login;
mod metadata;
mod remote_keys;
mod scopes;
mod tokens;

pub(crate) use authorization_server::{MetadataError, ServerMetadata};
pub(crate) use keys::Keys;
pub(crate) use login::{Form, Halt, Login, Recognised, Refusal, TokenAnswer, TokenRequest};
pub(crate) use metadata::Asked as MetadataAsked;
pub(crate) use remote_keys::KeysError;
pub(crate) use scopes::RequiredScopes;
pub(crate) use tokens::TokenCache;

use api_keys::ApiKeys;
use approvals::Approvals;
use authorization_server::AuthorizationServer;
use binding::Binding;
use challenge::{Refused, Scheme};
use host::HostIdentity;
use introspection::{Introspection, PresentedToken};
use issuer::{Issuer, Parsed, Source};
use metadata::PublicUrl;
use remote_keys::RemoteKeys;
use scopes::ScopeHierarchy;
use tokens::TokenDigest;

/// Who may vouch for callers, compiled.
pub(crate) struct Identity {
    public: Option<PublicUrl>,
    issuers: Vec<Issuer>,
    /// The one that clients reach by way of the gateway.
    authorization_server: Option<AuthorizationServer>,
    accepts_anonymous: bool,
    leeway: Duration,
    token_bytes: usize,
    hierarchy: ScopeHierarchy,
    denied: DeniedConfig,
    api_keys: ApiKeys,
    host: Option<HostIdentity>,
    certificates: bool,
    servers: Vec<Rc<str>>,
    approvals: Option<Approvals>,
}

/// The caller of a request, as decisions and audit need it.
pub(crate) struct KnownCaller {
    /// For policy.
    pub(crate) principal: Principal,
    /// For whom it acts; none for a caller without a token.
    pub(crate) kind: Option<CallerKind>,
    /// Subject of the token, or `anonymous`.
    pub(crate) subject: Rc<str>,
    /// Kind, issuer and subject in one, see [`owner`]: no other principal has the same. What is bound to
    /// a principal is bound to this.
    pub(crate) owner: Rc<str>,
    /// Issuer of the token.
    pub(crate) issuer: Option<Rc<str>>,
    /// OAuth client that holds the token.
    pub(crate) client: Option<Rc<str>>,
    /// Groups and roles that the token names.
    pub(crate) groups: Vec<String>,
    pub(crate) roles: Vec<String>,
    /// Scopes the token was given, and what they stand for.
    pub(crate) scopes: Vec<String>,
    /// When the token was issued, in seconds since the epoch.
    pub(crate) issued: Option<u64>,
    /// What proves them.
    pub(crate) proof: Proof,
    /// Where the token is good.
    admission: Admission,
    /// What it is bound to.
    binding: Binding,
    /// When it stops being valid, leeway included.
    expires: Option<Timestamp>,
}

/// What proves who calls. Only a token may be handed on or exchanged: beside every other proof the
/// `Authorization` header holds what nobody has verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// The access token in the `Authorization` header.
    Token,
    /// Something else, or nothing: an API key, the word of the host.
    Other,
}

/// Where a token is good, by its audience.
enum Admission {
    /// At every endpoint.
    Gateway,
    /// At the endpoints of these servers.
    Endpoints(Vec<Rc<str>>),
}

/// What a caller is found out by, besides the header fields.
#[derive(Clone, Copy)]
pub(crate) struct Known<'a> {
    pub(crate) policies: &'a Policies,
    /// What was found out for the request.
    pub(crate) facts: &'a Facts,
    /// What the host vouches for.
    pub(crate) host: &'a HostFacts,
}

/// Why a request proves no caller, yet.
enum Unproven {
    /// It does not.
    Refused(Refused),
    /// That depends on what its issuer says.
    Need(Need),
}

impl From<Refused> for Unproven {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<Need> for Unproven {
    fn from(need: Need) -> Self {
        Self::Need(need)
    }
}

/// Callers that no token tells of.
pub(crate) struct ConfiguredCallers {
    anonymous: Option<Rc<KnownCaller>>,
    api_keys: BTreeMap<TokenDigest, Rc<KnownCaller>>,
}

fn anonymous(principal: Principal) -> KnownCaller {
    KnownCaller {
        principal,
        kind: None,
        subject: "anonymous".into(),
        owner: "".into(),
        issuer: None,
        client: None,
        groups: Vec::new(),
        roles: Vec::new(),
        scopes: Vec::new(),
        issued: None,
        proof: Proof::Other,
        admission: Admission::Gateway,
        binding: Binding::default(),
        expires: None,
    }
}

/// The endpoint that a request asks, for its challenge.
#[derive(Clone, Copy)]
pub(crate) struct AskedEndpoint<'a> {
    /// Name of the server, as the path has it.
    pub(crate) server: &'a str,
    /// Whether the path ends in a slash.
    pub(crate) slash: bool,
    /// The scopes that every request there needs; none where there is no such server.
    pub(crate) scopes: Option<&'a RequiredScopes>,
}

impl Identity {
    /// Compiles the `identity` part of the configuration. `servers` are the names of all servers.
    pub(crate) fn compile(
        config: IdentityConfig,
        servers: &[String],
        token_bytes: usize,
        secret: &mut dyn FnMut(&str, SecretSource) -> Option<Secret>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let others = config.api_keys.keys.len() + usize::from(config.host.is_some());
        if config.issuers.is_empty() && others == 0 && !config.anonymous {
            problems.push(Problem {
                path: "identity.issuers".into(),
                message: "there is no issuer and anonymous callers are not accepted, so that nobody could call".into(),
                help: Some("add an issuer, or set `identity.anonymous` to true".into()),
            });
        }
        let has_public_url = config.public_url.is_some();
        let public = config.public_url.and_then(|url| PublicUrl::compile(&url, problems));
        let mut issuers: Vec<Issuer> = Vec::new();
        let mut authorization_server = None;
        for (index, mut issuer) in config.issuers.into_iter().enumerate() {
            let path = format!("identity.issuers[{index}]");
            let other = authorization_server.is_some();
            let own = authorization_server_of(&mut issuer, has_public_url, other, &path, problems);
            let stood_in = own.as_ref().is_some_and(|server| server.proxy.is_some());
            let mut compiled = Issuer::compile(issuer, secret, has_public_url, &path, problems);
            if let (true, Some(public)) = (stood_in, &public) {
                compiled.authorization_server = public.gateway().resource();
            }
            authorization_server = authorization_server.or(own);
            if issuers.iter().any(|other| other.name == compiled.name) {
                problems.push(Problem {
                    path: format!("{path}.issuer"),
                    message: format!("{:?} is configured twice", compiled.name),
                    help: None,
                });
            }
            issuers.push(compiled);
        }
        let asked = issuers.iter().filter(|i| matches!(i.source, Source::Introspection(_)));
        if asked.count() > 1 {
            problems.push(Problem {
                path: "identity.issuers".into(),
                message:
                    "several issuers have `introspection`; an opaque token does not say whose it is"
                        .into(),
                help: Some("let one have it, and the others sign their tokens".into()),
            });
        }
        let api_keys = ApiKeys::compile(config.api_keys, servers, problems);
        let host = config.host.map(|host| HostIdentity::compile(host, secret, problems));
        let mut prefixes: Vec<(String, &str)> = issuers
            .iter()
            .enumerate()
            .map(|(index, issuer)| (format!("issuers[{index}]"), issuer.claims.prefix.as_str()))
            .collect();
        prefixes.extend(api_keys.prefix().map(|prefix| ("api_keys".into(), prefix)));
        prefixes.extend(host.as_ref().map(|host| ("host".into(), host.prefix())));
        for (index, (name, prefix)) in prefixes.iter().enumerate() {
            // Of "" and "a:" the first could issue the subject "a:bob", too.
            let overlap = |(_, other): &&(String, &str)| {
                other.starts_with(prefix) || prefix.starts_with(other)
            };
            if let Some((other, _)) = prefixes.iter().take(index).find(overlap) {
                problems.push(Problem {
                    path: format!("identity.{name}.principal_prefix"),
                    message: format!("{name} and {other} could vouch for the same principal"),
                    help: Some(
                        "give each its own `principal_prefix`, none the beginning of another"
                            .into(),
                    ),
                });
            }
        }
        let hierarchy = ScopeHierarchy::compile(&config.scope_hierarchy, problems);
        for (index, digest) in config.denied.token_digests.iter().enumerate() {
            if digest.len() != 64 || !digest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
            {
                problems.push(Problem {
                    path: format!("identity.denied.token_digests[{index}]"),
                    message: "not a SHA-256 in 64 lower-case hexadecimal digits".into(),
                    help: Some("printf %s \"$TOKEN\" | sha256sum".into()),
                });
            }
        }
        Self {
            public,
            issuers,
            authorization_server,
            accepts_anonymous: config.anonymous,
            leeway: Duration::from_secs(config.leeway_seconds),
            token_bytes,
            hierarchy,
            denied: config.denied,
            api_keys,
            host,
            certificates: config.certificate_bound_tokens,
            servers: servers.iter().map(|name| name.as_str().into()).collect(),
            approvals: None,
        }
    }

    /// Lets calls be approved.
    pub(crate) fn with_approvals(mut self, approvals: Option<Approvals>) -> Self {
        self.approvals = approvals;
        self
    }

    /// How calls are approved, where they can be.
    pub(crate) fn approvals(&self) -> Option<&Approvals> {
        self.approvals.as_ref()
    }

    /// How the issuer of a caller's token names the caller, without the prefix of the configuration.
    pub(crate) fn own_name<'a>(&self, caller: &'a KnownCaller) -> &'a str {
        let issuers = self.issuers.iter().map(|issuer| issuer.claims.prefix.as_str());
        let others =
            self.api_keys.prefix().into_iter().chain(self.host.as_ref().map(HostIdentity::prefix));
        // None is the beginning of another.
        let mut prefixes = issuers.chain(others).filter(|prefix| !prefix.is_empty());
        prefixes.find_map(|prefix| caller.subject.strip_prefix(prefix)).unwrap_or(&caller.subject)
    }

    /// Those whom the configuration itself knows, as principals of `policy`.
    pub(crate) fn configured_callers(
        &self,
        policy: &PolicyEngine,
        problems: &mut Vec<Problem>,
    ) -> ConfiguredCallers {
        ConfiguredCallers {
            anonymous: self.accepts_anonymous.then(|| Rc::new(anonymous(policy.anonymous()))),
            api_keys: self.api_keys.callers(policy, problems),
        }
    }

    /// What the host is asked about each request.
    pub(crate) fn host_questions(&self) -> HostQuestions<'_> {
        let caller = self.host.as_ref().and_then(|host| host.property.as_deref());
        HostQuestions { certificate: self.certificates, caller }
    }

    /// The caller that a request's header fields prove, with what was found out for the request.
    ///
    /// # Errors
    /// [`Stop`] with what has to be found out first; or with a 401 [`Denial`] with a challenge (RFC 6750
    /// section 3) when there is no valid token, 400 when there is one where none may be, 503 when its
    /// issuer could not be asked.
    pub(crate) fn caller(
        &self,
        headers: &Headers,
        endpoint: AskedEndpoint<'_>,
        known: Known<'_>,
        cache: &mut TokenCache,
        now: Timestamp,
        audit: &mut AuditRecord,
    ) -> Result<Rc<KnownCaller>, Stop> {
        let refused = match self.proven(headers, endpoint, known, cache, now) {
            Ok(caller) => return Ok(caller),
            Err(Unproven::Need(need)) => return Err(need.into()),
            Err(Unproven::Refused(refused)) => refused,
        };
        audit.detail.clone_from(&refused.detail);
        let scopes = endpoint.scopes.map_or(&[][..], RequiredScopes::always);
        let metadata = endpoint.scopes.and(self.public.as_ref());
        let metadata = metadata.map(|public| public.server(endpoint.server, endpoint.slash));
        let scheme = match refused.reason {
            Reason::InvalidProof => Scheme::DPoP,
            _ => scheme(headers),
        };
        Err(refused.into_denial(scheme, metadata.as_ref(), scopes).into())
    }

    fn proven(
        &self,
        headers: &Headers,
        endpoint: AskedEndpoint<'_>,
        known: Known<'_>,
        cache: &mut TokenCache,
        now: Timestamp,
    ) -> Result<Rc<KnownCaller>, Unproven> {
        if has_token_in_url(headers) {
            let message = "an access token in the URL is not accepted: logs would keep it";
            return Err(Refused::new(Reason::TokenInUrl, message).into());
        }
        if let Some(host) = &self.host
            && let Some(said) = host.said(headers, known.host)?
        {
            return self.vouched_for(host, said, known, cache, now);
        }
        let Some(token) = self.token(headers)? else {
            return Ok(known.policies.callers.anonymous.clone().ok_or_else(Refused::no_token)?);
        };
        if token.len() > self.token_bytes {
            return Err(Refused::invalid("the token is larger than the gateway accepts").into());
        }
        let digest: TokenDigest = Sha256::digest(token).into();
        let caller = match known
            .policies
            .callers
            .api_keys
            .get(&digest)
            .cloned()
            .or_else(|| cache.get(&digest, now))
        {
            Some(caller) => caller,
            // What is remembered was looked at before.
            None if !is_token(token) => {
                let message = "the Authorization header does not hold one token";
                return Err(Refused::invalid(message).into());
            }
            None => {
                let caller = Rc::new(self.verify(token, &digest, known, cache, now)?);
                cache.insert(digest, Rc::clone(&caller), now);
                caller
            }
        };
        caller.binding.check_certificate(known.host)?;
        if !caller.is_admitted(endpoint.server) {
            return Err(Refused::invalid("the token was issued for another audience").into());
        }
        self.check_key(&caller, headers, endpoint, &digest, cache, now)?;
        Ok(caller)
    }

    /// Checks that the request was made with the key that the token is bound to, and that what is bound
    /// to none does not pass for more (RFC 9449 sections 7.1 and 7.2). Comes last: a proof is good once.
    fn check_key(
        &self,
        caller: &KnownCaller,
        headers: &Headers,
        endpoint: AskedEndpoint<'_>,
        token: &TokenDigest,
        cache: &mut TokenCache,
        now: Timestamp,
    ) -> Result<(), Refused> {
        let thumbprint = match (caller.binding.key(), scheme(headers)) {
            (None, Scheme::Bearer) => return Ok(()),
            (None, Scheme::DPoP) => {
                return Err(Refused::invalid("the token is not bound to a key: send it as Bearer"));
            }
            (Some(thumbprint), _) => thumbprint,
        };
        let Some(public) = &self.public else {
            let message = "the token is bound to a key, and identity.public_url is not set";
            return Err(Refused::invalid(message));
        };
        if scheme(headers) == Scheme::Bearer {
            let message = "the token is bound to a key: send Authorization: DPoP and a proof";
            return Err(Refused::new(Reason::InvalidProof, message));
        }
        let url = public.server(endpoint.server, endpoint.slash).resource();
        let proven = dpop::Proven { headers, url: &url, token, thumbprint };
        dpop::check(&proven, self.leeway, now, &mut cache.proofs)
    }

    /// The caller that the host has authenticated.
    fn vouched_for(
        &self,
        host: &HostIdentity,
        said: &[u8],
        known: Known<'_>,
        cache: &mut TokenCache,
        now: Timestamp,
    ) -> Result<Rc<KnownCaller>, Unproven> {
        if said.len() > self.token_bytes {
            return Err(
                Refused::invalid("what the host says is larger than the gateway accepts").into()
            );
        }
        let digest = HostIdentity::digest(said);
        let caller = match cache.get(&digest, now) {
            Some(caller) => caller,
            None => {
                let mut caller = host.caller(said, &known.policies.engine, now)?;
                self.hierarchy.widen(&mut caller.scopes);
                if self.is_denied(&caller, None, &digest) {
                    let message = "the caller is refused by the configuration";
                    return Err(Refused::invalid(message).into());
                }
                let caller = Rc::new(caller);
                cache.insert(digest, Rc::clone(&caller), now);
                caller
            }
        };
        // Hosts that verify tokens know nothing of what they are bound to.
        caller.binding.check_certificate(known.host)?;
        if caller.binding.key().is_some() {
            let message =
                "the token is bound to a key, and the host does not say whose the request is";
            return Err(Refused::invalid(message).into());
        }
        Ok(caller)
    }

    /// The token or key of a request: in the one place where it may be.
    fn token<'a>(&self, headers: &'a Headers) -> Result<Option<&'a str>, Refused> {
        let repeated = |error: toolgate_protocol::headers::HeaderError| {
            Refused::new(Reason::Header, error.to_string())
        };
        let key = match &self.api_keys.header {
            Some(name) => headers.single(name).map_err(repeated)?,
            None => None,
        };
        match (bearer(headers)?, key) {
            (Some(_), Some(_)) => Err(Refused::invalid("send a token or a key, not both")),
            (token, key) => Ok(token.or(key)),
        }
    }

    fn verify(
        &self,
        text: &str,
        digest: &TokenDigest,
        Known { policies, facts, .. }: Known<'_>,
        cache: &mut TokenCache,
        now: Timestamp,
    ) -> Result<KnownCaller, Unproven> {
        let policy = &policies.engine;
        let parsed = Parsed::read(text);
        let issuer = match &parsed {
            Ok(token) => {
                let name = token.claims.get("iss").and_then(Json::as_str);
                self.issuers.iter().find(|known| Some(&*known.name) == name)
            }
            // What is no JWT may be opaque.
            Err(_) => {
                self.issuers.iter().find(|known| matches!(known.source, Source::Introspection(_)))
            }
        };
        let token_id: Option<String>;
        let mut caller = match (parsed, issuer) {
            (_, Some(Issuer { source: Source::Introspection(asked), .. })) => {
                let token = PresentedToken::new(*digest, text);
                let answer = said(asked, &token, facts, cache, now)?;
                token_id = answer.get("jti").and_then(Json::as_str).map(str::to_owned);
                let resource = |audience: &str| self.admission(audience);
                let issuer = issuer.ok_or_else(Refused::no_token)?;
                issuer.introspected(&answer, asked, resource, self.leeway, now, policy)?
            }
            (Err(refused), _) => return Err(refused.into()),
            (Ok(_), None) => {
                return Err(Refused::invalid("the token's issuer is not accepted here").into());
            }
            (Ok(token), Some(issuer)) => {
                // What costs nothing comes first: no key is fetched for a token that would be refused
                // with any.
                let signer = issuer.check_header(&token)?;
                let validity = issuer::validity(&token.claims, self.leeway, now)?;
                let admission = issuer.admission(&token.claims, |aud| self.admission(aud))?;
                issuer.check_signature(&token, &signer, facts, now)?;
                token_id = token.claims.get("jti").and_then(Json::as_str).map(str::to_owned);
                issuer.claims.caller(&token.claims, validity, admission, policy)?
            }
        };
        caller.proof = Proof::Token;
        self.hierarchy.widen(&mut caller.scopes);
        if self.is_denied(&caller, token_id.as_deref(), digest) {
            return Err(Refused::invalid("the token has been revoked").into());
        }
        Ok(caller)
    }

    /// The call for [`Need::Keys`].
    pub(crate) fn keys_call(&self, issuer: &str) -> Option<HttpCall> {
        Some(self.remote_keys(issuer)?.0.call())
    }

    /// What the answer to it says.
    pub(crate) fn learn_keys(
        &self,
        issuer: &str,
        outcome: &CallOutcome,
        now: Timestamp,
    ) -> Option<Result<Rc<Keys>, KeysError>> {
        let (remote, algorithms) = self.remote_keys(issuer)?;
        Some(remote.learn(outcome, algorithms, now))
    }

    /// The call for [`Need::Introspection`].
    pub(crate) fn introspection_call(&self, token: &PresentedToken) -> Option<HttpCall> {
        self.issuers.iter().find_map(|issuer| match &issuer.source {
            Source::Introspection(asked) => asked.call(token),
            _ => None,
        })
    }

    /// The keys that should be fetched by now.
    pub(crate) fn due(&self, now: Timestamp) -> impl Iterator<Item = Need> {
        self.with_keys().filter_map(move |issuer| match &issuer.source {
            Source::Remote(remote) if remote.is_due(now) => {
                Some(Need::Keys(Rc::clone(&issuer.keys)))
            }
            _ => None,
        })
    }

    /// The issuers of tokens and of approvals.
    fn with_keys(&self) -> impl Iterator<Item = &Issuer> {
        self.issuers.iter().chain(self.approvals.iter().flat_map(|approvals| &approvals.issuers))
    }

    fn remote_keys(&self, name: &str) -> Option<(&RemoteKeys, &[Algorithm])> {
        self.with_keys().find(|issuer| &*issuer.keys == name).and_then(|issuer| {
            match &issuer.source {
                Source::Remote(remote) => Some((remote, issuer.algorithms.as_slice())),
                _ => None,
            }
        })
    }

    /// Which of the gateway's own resources an audience is.
    fn admission(&self, audience: &str) -> Option<Admission> {
        let public = self.public.as_ref()?;
        if public.gateway().resource() == audience {
            return Some(Admission::Gateway);
        }
        let server =
            self.servers.iter().find(|s| public.server(s, false).resource() == audience)?;
        Some(Admission::Endpoints(vec![Rc::clone(server)]))
    }

    /// Whether the configuration takes back what the token says. Tokens are remembered only as long as
    /// the configuration is the same, so that a new one holds at once.
    fn is_denied(
        &self,
        caller: &KnownCaller,
        token_id: Option<&str>,
        digest: &TokenDigest,
    ) -> bool {
        let DeniedConfig { subjects, clients, token_ids, token_digests } = &self.denied;
        let has = |list: &[String], text: &str| list.iter().any(|denied| denied == text);
        has(subjects, &caller.subject)
            || caller.client.as_ref().is_some_and(|client| has(clients, client))
            || token_id.is_some_and(|id| has(token_ids, id))
            || (!token_digests.is_empty() && has(token_digests, &crate::audit::hex(digest, 32)))
    }

    /// The answer to a request for metadata; `None` for all other requests. `scopes` are those of a
    /// server by name, `None` where there is no such server.
    ///
    /// # Errors
    /// A [`Denial`] for a document that does not exist.
    pub(crate) fn metadata<'a>(
        &self,
        headers: &Headers,
        scopes: impl Fn(&str) -> Option<&'a RequiredScopes>,
    ) -> Option<Result<LocalReply, Denial>> {
        let public = self.public.as_ref()?;
        let servers: Vec<String> =
            self.issuers.iter().map(|issuer| issuer.authorization_server.clone()).collect();
        Some(match public.asked(headers)? {
            MetadataAsked::Preflight => Ok(metadata::preflight()),
            MetadataAsked::OtherMethod => {
                Err(Denial::new(Reason::HttpMethod, "documents are read with GET")
                    .with_header("allow", "GET, HEAD, OPTIONS".into()))
            }
            MetadataAsked::Document { .. } if servers.is_empty() => Err(no_document()),
            MetadataAsked::Document { server: None, head, .. } => {
                let mut all: Vec<String> = Vec::new();
                for scope in
                    self.servers.iter().filter_map(|s| scopes(s)).flat_map(RequiredScopes::all)
                {
                    if !all.contains(&scope) {
                        all.push(scope);
                    }
                }
                Ok(public.gateway().document(&servers, &all, head))
            }
            MetadataAsked::Document { server: Some(name), slash, head } => match scopes(&name) {
                Some(scopes) => {
                    Ok(public.server(&name, slash).document(&servers, &scopes.all(), head))
                }
                None => Err(no_document()),
            },
        })
    }

    /// Whether the token is good for a request that needs these scopes.
    ///
    /// # Errors
    /// A 403 [`Denial`] that names all of them; 401 for a caller without a token.
    pub(crate) fn check_scopes(
        &self,
        caller: &KnownCaller,
        endpoint: AskedEndpoint<'_>,
        further: &[String],
    ) -> Result<(), Denial> {
        let Some(required) = endpoint.scopes else { return Ok(()) };
        let lacks = |scope: &&String| !caller.scopes.contains(scope);
        let needed = || required.always().iter().chain(further);
        if !needed().any(|scope| lacks(&scope)) {
            return Ok(());
        }
        let metadata = self.public.as_ref();
        let metadata = metadata.map(|public| public.server(endpoint.server, endpoint.slash));
        let mut scopes: Vec<String> = Vec::new();
        // What the token has is named again: clients before 2026-07-28 ask for exactly what they are told.
        let kept = required.all().into_iter().filter(|scope| !lacks(&scope));
        for scope in needed().cloned().chain(kept) {
            if !scopes.contains(&scope) {
                scopes.push(scope);
            }
        }
        if caller.issuer.is_none() {
            return Err(Refused::no_token().into_denial(
                Scheme::Bearer,
                metadata.as_ref(),
                &scopes,
            ));
        }
        let missing: Vec<&str> = needed().filter(lacks).map(String::as_str).collect();
        let scheme = match caller.binding.key() {
            Some(_) => Scheme::DPoP,
            None => Scheme::Bearer,
        };
        Err(challenge::insufficient_scope(scheme, metadata.as_ref(), &missing, &scopes))
    }
}

/// What a principal is known by: two have the same only where kind, issuer and subject are. Issuers are
/// known texts of the configuration, none of them is empty or holds a line break, and anonymous callers
/// have the empty text.
fn owner(kind: CallerKind, issuer: &str, subject: &str) -> Rc<str> {
    let before = match kind {
        CallerKind::User => "",
        CallerKind::Client => "\n",
    };
    format!("{before}{issuer}\n{subject}").into()
}

impl KnownCaller {
    /// The type of its principal, as records and approvals have it.
    pub(crate) fn type_name(&self) -> &'static str {
        match self.kind {
            Some(CallerKind::User) => "user",
            Some(CallerKind::Client) => "client",
            None => "anonymous",
        }
    }

    /// Groups, roles and scopes, as records have them.
    pub(crate) fn memberships(&self) -> String {
        let texts =
            |texts: &[String]| Json::Array(texts.iter().map(|it| it.as_str().into()).collect());
        let mut all = Object::default();
        all.set("groups", texts(&self.groups));
        all.set("roles", texts(&self.roles));
        all.set("scopes", texts(&self.scopes));
        String::from_utf8(Json::from(all).to_bytes()).unwrap_or_default()
    }

    fn is_admitted(&self, server: &str) -> bool {
        match &self.admission {
            Admission::Gateway => true,
            Admission::Endpoints(names) => names.iter().any(|name| &**name == server),
        }
    }
}

/// The authorization server that clients reach by way of the gateway, where this issuer has one. `other`
/// when an issuer before it has.
fn authorization_server_of(
    issuer: &mut IssuerConfig,
    has_public_url: bool,
    other: bool,
    path: &str,
    problems: &mut Vec<Problem>,
) -> Option<AuthorizationServer> {
    let (metadata, proxy) =
        (issuer.authorization_server_metadata.take(), issuer.oauth_proxy.take());
    let mut problem = |field: &str, message: &str, help: &str| {
        let path = format!("{path}.{field}");
        problems.push(Problem { path, message: message.into(), help: Some(help.into()) });
    };
    if let Some(OAuthProxyConfig { drop_resource, client_id }) = &proxy {
        if metadata.is_none() {
            let help = "say where the authorization server's metadata is";
            problem("authorization_server_metadata", "oauth_proxy needs it", help);
        }
        if !drop_resource && client_id.is_none() {
            let help = "set drop_resource or client_id, or leave it out";
            problem("oauth_proxy", "clients can as well log in there by themselves", help);
        }
        let plain = |id: &String| {
            (1..=512).contains(&id.len()) && id.bytes().all(|b| matches!(b, b' '..=b'~'))
        };
        if client_id.as_ref().is_some_and(|id| !plain(id)) {
            let help = "use the identifier that the authorization server gave, in visible ASCII";
            problem("oauth_proxy.client_id", "not a client identifier", help);
        }
    }
    let metadata = metadata?;
    if !has_public_url {
        let help = "set `identity.public_url` to what clients reach the gateway by";
        problem("authorization_server_metadata", "nobody is told to ask for it", help);
    }
    if other {
        let help = "let one issuer have it: a host has one such document";
        problem("authorization_server_metadata", "another issuer has it, too", help);
    }
    let name = issuer.authorization_server.as_ref().unwrap_or(&issuer.issuer).clone();
    Some(AuthorizationServer::compile(metadata, proxy, name, path, problems))
}

/// What the issuer says of a token: its claims.
fn said(
    asked: &Introspection,
    token: &PresentedToken,
    facts: &Facts,
    cache: &mut TokenCache,
    now: Timestamp,
) -> Result<Rc<Json>, Unproven> {
    let inactive = || Refused::invalid("the token is not active").into();
    if cache.is_inactive(token.digest(), now) {
        return Err(inactive());
    }
    asked.is_ready().map_err(|error| Refused::unavailable(&error))?;
    match facts.introspection(token) {
        None => Err(Need::Introspection(token.clone()).into()),
        Some(Ok(Some(claims))) => Ok(Rc::clone(claims)),
        Some(Ok(None)) => {
            cache.insert_inactive(*token.digest(), now.after(asked.ttl), now);
            Err(inactive())
        }
        Some(Err(error)) => Err(Refused::unavailable(error).into()),
    }
}

fn no_document() -> Denial {
    Denial::new(Reason::UnknownServer, "there is no protected resource of this name")
}

/// The token of the one `Authorization` header (RFC 6750 section 2.1, RFC 9449 section 7.1), which may be no token.
/// A proxy that joins two headers to one leaves a comma, which no token has.
fn bearer(headers: &Headers) -> Result<Option<&str>, Refused> {
    let value = headers
        .single("authorization")
        .map_err(|error| Refused::new(Reason::Header, error.to_string()))?;
    let Some(value) = value else { return Ok(None) };
    let token = match value.split_once(' ') {
        Some((scheme, token))
            if ["bearer", "dpop"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) =>
        {
            token.trim()
        }
        _ => return Err(Refused::invalid("the Authorization header is not a bearer token")),
    };
    Ok(Some(token))
}

/// Whether this is one token (`token68`, RFC 9110 section 11.2).
fn is_token(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    !text.is_empty() && text.bytes().all(plain)
}

/// How the request sends its token. One without a token would have sent it by itself.
fn scheme(headers: &Headers) -> Scheme {
    // The field was read whole before.
    let value = headers.iter().find(|(name, _)| *name == "authorization");
    match value.and_then(|(_, value)| value.trim_ascii_start().split_first_chunk::<4>()) {
        Some((scheme, [b' ', ..])) if scheme.eq_ignore_ascii_case(b"dpop") => Scheme::DPoP,
        _ => Scheme::Bearer,
    }
}

/// Whether the URL holds an access token (forbidden since RFC 9700 section 4.3.2).
fn has_token_in_url(headers: &Headers) -> bool {
    let path = headers.single(":path").ok().flatten().unwrap_or_default();
    path.split_once('?').is_some_and(|(_, query)| {
        query.split(['&', ';']).any(|pair| pair.split('=').next() == Some("access_token"))
    })
}
