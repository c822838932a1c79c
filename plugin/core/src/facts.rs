//! What a decision may lack, and what is found out: needs, the calls that meet them, facts.
//!
//! A new kind of fact is one variant of [`Need`] and [`Fact`], one arm each in [`Gateway::call_for`]
//! and [`Gateway::learn`], and a module of its own for what is asked and what answers mean. Not here:
//! which calls are under way and for whom (`calls`), when a fact is needed (`decide`).

use std::collections::BTreeMap;
use std::rc::Rc;

use toolgate_protocol::json::Json;
use toolgate_protocol::mcp::Era;

use crate::calls::ExchangeId;
use crate::counting::SharedAccess;
use crate::credentials::{CredentialError, Fetched, VaultToken, Wanted, WantedLogin};
use crate::denial::{Denial, LocalReply};
use crate::event::{CallOutcome, HttpCall, Timestamp};
use crate::exchange::Whole;
use crate::federation::{Access, Catalogue, CatalogueKey, Fault, GivenAnswer, Session, SessionKey};
use crate::gateway::Gateway;
use crate::identity::introspection::{self, IntrospectionError, PresentedToken};
use crate::identity::{Keys, KeysError, MetadataError, ServerMetadata, TokenAnswer, TokenRequest};
use crate::policy_bundle::PoliciesError;

/// What a decision lacks, or what is done ahead of need. Each is one call.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Need {
    /// A login at a vault.
    VaultLogin(WantedLogin),
    /// A longer life for such a login.
    LoginRenewal(WantedLogin),
    /// The value of a credential.
    Credential(Wanted),
    /// A longer life for what a vault lent.
    LeaseRenewal(Wanted),
    /// The keys that this issuer publishes.
    Keys(Rc<str>),
    /// What this token is good for, as its issuer says.
    Introspection(PresentedToken),
    /// What the authorization server says of itself.
    ServerMetadata,
    /// Its answer to this request for tokens.
    TokenRequest(TokenRequest),
    /// The era of this server.
    Era(Rc<str>, Access),
    /// A session at a server of the legacy era.
    Session(SessionKey),
    /// A server of the legacy era told the level of log messages of a session: the place of its name.
    LogLevel(SessionKey, usize),
    /// A server's list, from this cursor on.
    Catalogue(CatalogueKey, Option<Rc<str>>),
    /// This answer brought to the server that asked.
    Answer(GivenAnswer),
    /// The policies that are to be in force.
    Policies,
    /// The request of this exchange, once more: its server refused the credential.
    Repeat(ExchangeId),
}

/// What was found out, a failure perhaps: a question that failed is not asked again by the same
/// exchange.
#[derive(Clone)]
pub(crate) enum Fact {
    /// Of [`Need::VaultLogin`].
    VaultLogin(Result<Rc<VaultToken>, CredentialError>),
    /// Of [`Need::Credential`].
    Credential(Result<Rc<Fetched>, CredentialError>),
    /// Of [`Need::Keys`].
    Keys(Result<Rc<Keys>, KeysError>),
    /// Of [`Need::Introspection`]: its claims, or none where it is not active.
    Introspection(Result<Option<Rc<Json>>, IntrospectionError>),
    /// Of [`Need::ServerMetadata`].
    ServerMetadata(Result<Rc<ServerMetadata>, MetadataError>),
    /// Of [`Need::TokenRequest`].
    TokenAnswer(Result<Rc<TokenAnswer>, MetadataError>),
    /// Of what no decision waits for.
    Renewal(Result<(), CredentialError>),
    /// Of [`Need::Era`].
    Era(Result<Era, Fault>),
    /// Of [`Need::Session`].
    Session(Result<Rc<Session>, Fault>),
    /// Of [`Need::LogLevel`], whatever became of it: no call waits for its log.
    LogLevel,
    /// Of [`Need::Policies`].
    Policies(Result<(), PoliciesError>),
    /// Of the last page of a [`Need::Catalogue`].
    Catalogue(Result<Rc<Catalogue>, Fault>),
    /// Of [`Need::Answer`].
    Answer(Result<(), Fault>),
    /// Of [`Need::Repeat`].
    Repeated(Result<Rc<Whole>, Fault>),
}

/// Why a decision stopped.
pub(crate) enum Stop {
    /// Facts are missing: all that can be named without knowing the others.
    Need(Vec<Need>),
    /// The memory that workers share has to be read or written.
    Shared(SharedAccess),
    /// No.
    Deny(Denial),
    /// The gateway has the answer itself.
    Answer(LocalReply),
}

impl Need {
    /// Whether what answers it holds a secret.
    pub(crate) fn is_answered_with_secrets(&self) -> bool {
        match self {
            Self::VaultLogin(_) | Self::LoginRenewal(_) => true,
            Self::Credential(_) | Self::LeaseRenewal(_) | Self::TokenRequest(_) => true,
            // Until it has been searched, it may hold one.
            Self::Repeat(_) => true,
            Self::Keys(_) | Self::Introspection(_) | Self::ServerMetadata => false,
            Self::Era(..)
            | Self::Session(_)
            | Self::LogLevel(..)
            | Self::Catalogue(..)
            | Self::Answer(_)
            | Self::Policies => false,
        }
    }
}

impl From<Denial> for Stop {
    fn from(denial: Denial) -> Self {
        Self::Deny(denial)
    }
}

impl From<Need> for Stop {
    fn from(need: Need) -> Self {
        Self::Need(vec![need])
    }
}

/// What was found out for one exchange. Pinned to it, so that nothing that is forgotten meanwhile
/// makes it ask twice.
#[derive(Default)]
pub(crate) struct Facts(BTreeMap<Need, Fact>);

impl Facts {
    pub(crate) fn insert(&mut self, need: Need, fact: Fact) {
        self.0.insert(need, fact);
    }

    /// A login at a vault.
    pub(crate) fn login(
        &self,
        wanted: &WantedLogin,
    ) -> Option<&Result<Rc<VaultToken>, CredentialError>> {
        match self.get(|| Need::VaultLogin(wanted.clone()))? {
            Fact::VaultLogin(login) => Some(login),
            _ => None,
        }
    }

    /// The value of a credential.
    pub(crate) fn credential(
        &self,
        wanted: &Wanted,
    ) -> Option<&Result<Rc<Fetched>, CredentialError>> {
        match self.get(|| Need::Credential(wanted.clone()))? {
            Fact::Credential(fetched) => Some(fetched),
            _ => None,
        }
    }

    /// The keys of an issuer.
    pub(crate) fn keys(&self, issuer: &Rc<str>) -> Option<&Result<Rc<Keys>, KeysError>> {
        match self.get(|| Need::Keys(Rc::clone(issuer)))? {
            Fact::Keys(keys) => Some(keys),
            _ => None,
        }
    }

    /// The era of a server.
    pub(crate) fn era(&self, server: &Rc<str>, access: &Access) -> Option<&Result<Era, Fault>> {
        match self.get(|| Need::Era(Rc::clone(server), Rc::clone(access)))? {
            Fact::Era(era) => Some(era),
            _ => None,
        }
    }

    /// What an issuer says of a token.
    pub(crate) fn introspection(
        &self,
        token: &PresentedToken,
    ) -> Option<&Result<Option<Rc<Json>>, IntrospectionError>> {
        match self.get(|| Need::Introspection(token.clone()))? {
            Fact::Introspection(said) => Some(said),
            _ => None,
        }
    }

    /// What the authorization server says of itself.
    pub(crate) fn server_metadata(&self) -> Option<&Result<Rc<ServerMetadata>, MetadataError>> {
        match self.get(|| Need::ServerMetadata)? {
            Fact::ServerMetadata(metadata) => Some(metadata),
            _ => None,
        }
    }

    /// Its answer to a request for tokens.
    pub(crate) fn token_answer(
        &self,
        request: &TokenRequest,
    ) -> Option<&Result<Rc<TokenAnswer>, MetadataError>> {
        match self.get(|| Need::TokenRequest(request.clone()))? {
            Fact::TokenAnswer(answer) => Some(answer),
            _ => None,
        }
    }

    /// A session at a server.
    pub(crate) fn session(&self, key: &SessionKey) -> Option<&Result<Rc<Session>, Fault>> {
        match self.get(|| Need::Session(key.clone()))? {
            Fact::Session(session) => Some(session),
            _ => None,
        }
    }

    /// Whether anything was found out about a need.
    pub(crate) fn has(&self, need: &Need) -> bool {
        self.0.contains_key(need)
    }

    /// Whether a server has taken an answer.
    pub(crate) fn answered(&self, answer: &GivenAnswer) -> Option<&Result<(), Fault>> {
        match self.get(|| Need::Answer(answer.clone()))? {
            Fact::Answer(taken) => Some(taken),
            _ => None,
        }
    }

    /// A server's whole list, or why there is none.
    pub(crate) fn catalogue(&self, key: &CatalogueKey) -> Option<&Result<Rc<Catalogue>, Fault>> {
        if self.0.is_empty() {
            return None;
        }
        let first = Need::Catalogue(key.clone(), None);
        let pages = self.0.range(first..).map_while(|(need, fact)| match need {
            Need::Catalogue(of, _) if of == key => Some(fact),
            _ => None,
        });
        pages.last().and_then(|fact| match fact {
            Fact::Catalogue(catalogue) => Some(catalogue),
            _ => None,
        })
    }

    /// With warm caches there are no facts, and no need has to be made to find that out.
    fn get(&self, need: impl FnOnce() -> Need) -> Option<&Fact> {
        if self.0.is_empty() { None } else { self.0.get(&need()) }
    }
}

impl Fact {
    /// Whether it is a failure: remembered briefly, so that nothing hammers what does not work.
    pub(crate) fn is_failure(&self) -> bool {
        match self {
            Self::VaultLogin(login) => login.is_err(),
            Self::Credential(fetched) => fetched.is_err(),
            Self::Keys(keys) => keys.is_err(),
            Self::Introspection(said) => said.is_err(),
            Self::ServerMetadata(metadata) => metadata.is_err(),
            // A code is good once: whether it was used is for the authorization server to say.
            Self::TokenAnswer(_) => false,
            Self::Renewal(renewed) => renewed.is_err(),
            Self::Era(era) => era.is_err(),
            Self::Session(session) => session.is_err(),
            Self::LogLevel => false,
            Self::Catalogue(catalogue) => catalogue.is_err(),
            // Each answer is an answer of its own: that one was not taken says nothing of others.
            Self::Answer(_) => false,
            // Likewise.
            Self::Repeated(_) => false,
            Self::Policies(learned) => learned.is_err(),
        }
    }
}

impl Fact {
    /// Whether it is what was asked for.
    pub(crate) fn is_good(&self) -> bool {
        match self {
            Self::Repeated(answer) => answer.as_ref().is_ok_and(|answer| !answer.is_refusal()),
            fact => !fact.is_failure(),
        }
    }
}

impl Need {
    /// With which credentials a server is asked for it, where one is.
    fn access(&self) -> Option<&[Wanted]> {
        match self {
            Self::Era(_, access) => Some(access),
            Self::Session(key) => Some(&key.access),
            Self::Catalogue(key, _) => Some(&key.access),
            _ => None,
        }
    }

    /// What a call for it is made for, in metrics.
    pub(crate) fn purpose(&self) -> &'static str {
        match self {
            Self::VaultLogin(_) => "vault_login",
            Self::LoginRenewal(_) => "vault_login_renewal",
            Self::Credential(_) => "credential",
            Self::LeaseRenewal(_) => "lease_renewal",
            Self::Keys(_) => "keys",
            Self::Introspection(_) => "introspection",
            Self::ServerMetadata => "authorization_server_metadata",
            Self::TokenRequest(_) => "token_request",
            Self::Era(..) => "era",
            Self::Session(_) => "session",
            Self::LogLevel(..) => "log_level",
            Self::Catalogue(..) => "catalogue",
            Self::Answer(_) => "answer",
            Self::Policies => "policies",
            Self::Repeat(_) => "retry",
        }
    }
}

impl Gateway {
    /// The call that meets a need; `None` where there is none to make.
    pub(crate) fn call_for(&self, need: &Need, facts: &Facts, now: Timestamp) -> Option<HttpCall> {
        match need {
            Need::VaultLogin(wanted) => self.login_call(wanted),
            Need::LoginRenewal(wanted) => self.renew_login_call(wanted, now),
            Need::Credential(wanted) => self.fetch_call(wanted, facts, now),
            Need::LeaseRenewal(wanted) => self.renew_lease_call(wanted, now),
            Need::Keys(issuer) => self.identity.keys_call(issuer),
            Need::Introspection(token) => self.identity.introspection_call(token),
            Need::ServerMetadata => self.identity.server_metadata_call(),
            Need::TokenRequest(request) => self.identity.token_call(request, facts, now),
            Need::Era(server, access) => self.era_call(server, access, facts, now),
            Need::Session(key) => self.session_call(key, facts, now),
            Need::LogLevel(key, level) => self.level_call(key, *level, facts, now),
            Need::Policies => self.policies_call(),
            Need::Catalogue(key, cursor) => self.catalogue_call(key, cursor.as_ref(), facts, now),
            Need::Answer(answer) => self.answer_call(answer, facts, now),
            // The exchange makes it.
            Need::Repeat(_) => None,
        }
    }

    /// What the outcome of a call, made at `since`, says of the need; remembers it for others.
    /// `None` when it says nothing that lasts: the decision has to be made again, with what the
    /// gateway has forgotten since.
    pub(crate) fn learn(
        &self,
        need: &Need,
        outcome: &CallOutcome,
        since: Timestamp,
        now: Timestamp,
    ) -> Option<Fact> {
        if let CallOutcome::Response { status: 401 | 403, .. } = outcome
            && need.access().is_some_and(|access| self.is_outdated(access, since, now))
        {
            return None;
        }
        match need {
            Need::VaultLogin(wanted) => {
                Some(Fact::VaultLogin(self.learn_login(wanted, outcome, since, now)))
            }
            Need::LoginRenewal(wanted) => {
                Some(Fact::Renewal(self.learn_renewed_login(wanted, outcome, since, now)))
            }
            Need::Credential(wanted) => {
                self.learn_credential(wanted, outcome, since, now).map(Fact::Credential)
            }
            Need::LeaseRenewal(wanted) => {
                Some(Fact::Renewal(self.learn_renewed_lease(wanted, outcome, since, now)))
            }
            Need::Keys(issuer) => self.identity.learn_keys(issuer, outcome, now).map(Fact::Keys),
            Need::Introspection(_) => Some(Fact::Introspection(introspection::read(outcome))),
            Need::ServerMetadata => {
                self.identity.learn_server_metadata(outcome, now).map(Fact::ServerMetadata)
            }
            Need::TokenRequest(_) => {
                Some(Fact::TokenAnswer(TokenAnswer::read(outcome).map(Rc::new)))
            }
            Need::Policies => Some(Fact::Policies(self.learn_policies(outcome, now)?)),
            Need::Era(server, _) => Some(Fact::Era(self.learn_era(server, outcome, now))),
            Need::Session(key) => self.learn_session(key, outcome, now).map(Fact::Session),
            Need::LogLevel(key, level) => {
                self.learn_level(key, *level, outcome);
                Some(Fact::LogLevel)
            }
            Need::Catalogue(key, cursor) => {
                self.learn_catalogue(key, cursor.as_ref(), outcome, since, now).map(Fact::Catalogue)
            }
            Need::Answer(_) => Some(Fact::Answer(Self::learn_answer(outcome))),
            Need::Repeat(_) => Some(Fact::Repeated(Whole::read(outcome).map(Rc::new))),
        }
    }
}
