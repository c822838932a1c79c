//! The compiled gateway: what a configuration says, ready for requests, and what one worker
//! remembers. Shared by the exchanges of a worker; a new configuration makes a new gateway.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use toolgate_policy::Problem;

use crate::audit::AuditFields;
use crate::calls::Calls;
use crate::config::{AuditConfig, Limits, Scheme};
use crate::credentials::{Broker, Credential, CredentialCache, Injection, TokenEndpoint, Vault};
use crate::event::HostQuestions;
use crate::federation::{Catalogues, Federation, Peers};
use crate::identity::{Identity, RequiredScopes, TokenCache};
use crate::metrics::Metrics;
use crate::mirrors::{LearnedMirrors, MirroredTools};
use crate::policies::Policies;
use crate::policy_bundle::PolicyBundle;
use crate::session::Sessions;

/// One configuration, compiled. Made by [`Gateway::compile`], used through
/// [`Exchange`](crate::Exchange).
pub struct Gateway {
    pub(crate) servers: BTreeMap<Rc<str>, Server>,
    pub(crate) identity: Identity,
    pub(crate) policies: RefCell<Rc<Policies>>,
    pub(crate) policy_bundle: Option<PolicyBundle>,
    pub(crate) vaults: BTreeMap<Rc<str>, Vault>,
    pub(crate) token_endpoints: BTreeMap<Rc<str>, TokenEndpoint>,
    pub(crate) credentials: BTreeMap<Rc<str>, Credential>,
    pub(crate) limits: Limits,
    pub(crate) origins: Vec<String>,
    pub(crate) hosts: Vec<String>,
    pub(crate) audit: AuditConfig,
    pub(crate) audit_fields: AuditFields,
    pub(crate) tokens: RefCell<TokenCache>,
    pub(crate) secrets: RefCell<CredentialCache>,
    pub(crate) sessions: Sessions,
    pub(crate) federation: Option<Federation>,
    pub(crate) mirrors: LearnedMirrors,
    pub(crate) peers: RefCell<Peers>,
    pub(crate) catalogues: RefCell<Catalogues>,
    pub(crate) calls: RefCell<Calls>,
    pub(crate) metrics: Metrics,
    warnings: Vec<Problem>,
    record_seed: Cell<u64>,
    record_count: Cell<u64>,
}

/// One MCP server, compiled.
pub(crate) struct Server {
    pub(crate) cluster: Rc<str>,
    pub(crate) scheme: Scheme,
    pub(crate) authority: Rc<str>,
    pub(crate) path: Rc<str>,
    pub(crate) credentials: Vec<Injection>,
    /// The audience that a caller's token must have to be passed on.
    pub(crate) passthrough: Option<Rc<str>>,
    pub(crate) forward_headers: Vec<String>,
    pub(crate) scopes: RequiredScopes,
    pub(crate) mirrored: MirroredTools,
    pub(crate) normalize_accept: bool,
}

impl Gateway {
    pub(crate) fn new(
        servers: BTreeMap<Rc<str>, Server>,
        identity: Identity,
        policies: Policies,
        broker: Broker,
        limits: Limits,
        origins: Vec<String>,
        audit: AuditConfig,
    ) -> Self {
        Self {
            servers,
            identity,
            policies: RefCell::new(Rc::new(policies)),
            policy_bundle: None,
            vaults: broker.vaults,
            token_endpoints: broker.token_endpoints,
            credentials: broker.credentials,
            limits,
            origins,
            hosts: Vec::new(),
            audit,
            audit_fields: AuditFields::default(),
            tokens: RefCell::default(),
            secrets: RefCell::default(),
            sessions: Sessions::Unbound,
            federation: None,
            mirrors: LearnedMirrors::default(),
            peers: RefCell::default(),
            catalogues: RefCell::default(),
            calls: RefCell::default(),
            metrics: Metrics::default(),
            warnings: Vec::new(),
            record_seed: Cell::new(0),
            record_count: Cell::new(0),
        }
    }

    pub(crate) fn with_sessions(mut self, sessions: Sessions) -> Self {
        self.sessions = sessions;
        self
    }

    pub(crate) fn with_federation(mut self, federation: Option<Federation>) -> Self {
        self.federation = federation;
        self
    }

    pub(crate) fn with_metrics(mut self, metrics: Metrics) -> Self {
        self.metrics = metrics;
        self
    }

    pub(crate) fn with_audit_fields(mut self, audit_fields: AuditFields) -> Self {
        self.audit_fields = audit_fields;
        self
    }

    pub(crate) fn with_policy_bundle(mut self, bundle: Option<PolicyBundle>) -> Self {
        self.policy_bundle = bundle;
        self
    }

    pub(crate) fn with_hosts(mut self, hosts: Vec<String>) -> Self {
        self.hosts = hosts;
        self
    }

    pub(crate) fn with_warnings(mut self, warnings: Vec<Problem>) -> Self {
        self.warnings = warnings;
        self
    }

    /// What is not as it should be, though the gateway can run: secrets that are not there.
    #[must_use]
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    /// What is valid in the policies and may not be meant.
    #[must_use]
    pub fn advice(&self) -> Vec<Problem> {
        self.policies.borrow().engine.advice()
    }

    /// Sets the number that makes the record ids of this worker differ from those of others. It
    /// need not be secret, only different.
    pub fn set_record_seed(&self, seed: u64) {
        self.record_seed.set(seed);
    }

    /// What the host is asked about each request, to be told with [`Event::HostFacts`](crate::Event).
    #[must_use]
    pub fn host_questions(&self) -> HostQuestions<'_> {
        self.identity.host_questions()
    }

    /// Name and hash of the policy set that decides.
    #[must_use]
    pub fn policy_set(&self) -> Rc<str> {
        Rc::clone(&self.policies.borrow().set)
    }

    /// The policies in force. Whoever begins with them goes on with them.
    pub(crate) fn policies(&self) -> Rc<Policies> {
        Rc::clone(&self.policies.borrow())
    }

    /// The host's names for the MCP servers.
    pub fn server_clusters(&self) -> impl Iterator<Item = &str> {
        self.servers.values().map(|server| &*server.cluster)
    }

    /// Whether anything depends on the address that requests come from: otherwise the host need not
    /// be asked.
    #[must_use]
    pub fn reads_source(&self) -> bool {
        // Policies that are fetched may, before the request that they decide on is over.
        self.policy_bundle.is_some() || self.policies.borrow().engine.looks_at_source()
    }

    /// Largest request body that is read, in bytes. A host may refuse to hold more.
    #[must_use]
    pub fn request_bytes(&self) -> usize {
        self.limits.request_bytes
    }

    pub(crate) fn next_record_id(&self) -> String {
        let count = self.record_count.get().wrapping_add(1);
        self.record_count.set(count);
        format!("{:016x}-{count:x}", self.record_seed.get())
    }
}
