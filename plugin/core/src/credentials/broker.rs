//! Which credential a request gets: from this exchange, from memory, or as a need; and what answers
//! leave in memory.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use super::linking;
use super::vault::{Login, lease_answer, login_answer};
use super::{
    CredentialCache, CredentialError, Fetched, Injected, Lease, REFRESHED_AFTER, Source, Vault,
    VaultSecret, VaultToken, Wanted, WantedLogin, Written,
};
use crate::audit::{AuditRecord, CredentialUse, digest, short_digest};
use crate::denial::{Denial, Reason};
use crate::event::{CallOutcome, HttpCall, Timestamp};
use crate::facts::{Facts, Need, Stop};
use crate::gateway::{Gateway, Server};
use crate::request::Asked;
use crate::secret::Secret;

/// A token that is refused though it is younger than this was not revoked: the vault's policies
/// forbid what was asked.
const SURELY_VALID: Duration = Duration::from_secs(1);

/// A credential that a server refuses though it is younger than this would be no other if it were
/// fetched again.
const SURELY_CURRENT: Duration = Duration::from_secs(5);

impl Gateway {
    /// The credentials that `server` wants, in the order of its injections.
    ///
    /// # Errors
    /// [`Stop`] with all that have to be fetched, or because one cannot be had.
    pub(crate) fn credentials_for(
        &self,
        server: &Server,
        asked: &Asked,
        facts: &Facts,
        now: Timestamp,
        audit: &mut AuditRecord,
    ) -> Result<Vec<Injected>, Stop> {
        let mut injected = Vec::with_capacity(server.credentials.len());
        let mut needs = BTreeSet::new();
        audit.credentials.clear();
        for (index, injection) in server.credentials.iter().enumerate() {
            audit.credential = Some(match &audit.credential {
                Some(before) if index > 0 => format!("{before},{}", injection.credential).into(),
                _ => Rc::clone(&injection.credential),
            });
            match self.credential(&injection.credential, asked, facts, now, audit) {
                Ok((wanted, fetched)) => {
                    if server.credentials.len() > 1 {
                        audit.credentials.push(CredentialUse {
                            name: Rc::clone(&injection.credential),
                            source: audit.credential_source,
                            version: audit.credential_version,
                            lease: audit.credential_lease.clone(),
                        });
                    }
                    let secret_fields = Rc::clone(&injection.secret_fields);
                    injected.push(Injected { wanted, fetched, secret_fields });
                }
                Err(Stop::Need(more)) => needs.extend(more),
                Err(denied) => return Err(denied),
            }
        }
        if needs.is_empty() { Ok(injected) } else { Err(Stop::Need(needs.into_iter().collect())) }
    }

    fn credential(
        &self,
        name: &Rc<str>,
        asked: &Asked,
        facts: &Facts,
        now: Timestamp,
        audit: &mut AuditRecord,
    ) -> Result<(Wanted, Rc<Fetched>), Stop> {
        let wanted = self.wanted(name, asked, audit)?;
        if let Some(result) = facts.credential(&wanted) {
            return match result {
                Ok(fetched) => {
                    self.note(fetched, fetched.source, now, audit);
                    Ok((wanted, Rc::clone(fetched)))
                }
                Err(error) => Err(self.refusal(&wanted, *error, asked, audit).into()),
            };
        }
        if let Some(Source::Static(fetched)) = self.source(name) {
            let fetched = fetched
                .as_ref()
                .ok_or_else(|| self.refusal(&wanted, CredentialError::Unset, asked, audit))?;
            self.note(fetched, fetched.source, now, audit);
            return Ok((wanted, Rc::clone(fetched)));
        }
        let at_hand = self.secrets.borrow().value(&wanted, now).map(Rc::clone);
        if let Some(fetched) = at_hand {
            self.note(&fetched, "cache", now, audit);
            return Ok((wanted, fetched));
        }
        if let Some(Source::Vault(secret)) = self.source(name) {
            self.vault_token(secret, &wanted, facts, now).map_err(|missing| match missing {
                MissingToken::Login(login) => Stop::from(Need::VaultLogin(login)),
                MissingToken::Never(error) => self.refusal(&wanted, error, asked, audit).into(),
            })?;
        }
        if let Some(Source::Oauth(token)) = self.source(name)
            && self.token_endpoints.get(&token.endpoint).is_none_or(|e| e.client_secret.is_none())
        {
            return Err(self.refusal(&wanted, CredentialError::Unset, asked, audit).into());
        }
        Err(Need::Credential(wanted).into())
    }

    /// The value of a credential that a decision has found already.
    pub(crate) fn found(
        &self,
        wanted: &Wanted,
        facts: &Facts,
        now: Timestamp,
    ) -> Option<Rc<Fetched>> {
        if let Some(Ok(fetched)) = facts.credential(wanted) {
            return Some(Rc::clone(fetched));
        }
        if let Source::Static(fetched) = self.source(&wanted.name)? {
            return fetched.clone();
        }
        self.secrets.borrow().value(wanted, now).map(Rc::clone)
    }

    fn note(
        &self,
        fetched: &Fetched,
        source: &'static str,
        now: Timestamp,
        audit: &mut AuditRecord,
    ) {
        fetched.note_use(now);
        audit.credential_source = Some(source);
        audit.credential_version = fetched.version;
        audit.credential_lease =
            fetched.lease.as_ref().map(|lease| short_digest(lease.id.expose()));
    }

    fn source(&self, name: &Rc<str>) -> Option<&Source> {
        self.credentials.get(name).map(|credential| &credential.source)
    }

    fn vault_of(&self, secret: &VaultSecret) -> Option<&Vault> {
        self.vaults.get(&secret.vault)
    }

    /// What has to be looked up for this caller.
    fn wanted(
        &self,
        name: &Rc<str>,
        asked: &Asked,
        audit: &mut AuditRecord,
    ) -> Result<Wanted, Denial> {
        let mut wanted = Wanted::by_all(name);
        let needs_caller = match self.source(name) {
            Some(Source::Vault(secret)) => {
                if secret.path.is_per_caller() {
                    let path = secret.path.path(asked.head.caller()?).map_err(|error| {
                        audit.detail = Some(error.to_string());
                        self.not_linked(name, asked)
                    })?;
                    let path: Rc<str> = path.into();
                    wanted.per = Some(Rc::clone(&path));
                    wanted.path = Some(path);
                }
                matches!(
                    self.vault_of(secret).map(|vault| &vault.login),
                    Some(Login::Caller { .. })
                )
            }
            Some(Source::Oauth(token)) => token.grant.is_per_caller(),
            Some(Source::Static(_)) | None => false,
        };
        if needs_caller {
            let token = asked.head.bearer().ok_or_else(|| {
                audit.detail = Some("the caller presented no token".into());
                self.not_linked(name, asked)
            })?;
            // What one token may have is not for another, though the caller be the same.
            wanted.per = Some(digest(token.as_bytes()).into());
            wanted.caller = Some(Rc::new(Secret::new(token.to_owned())));
        }
        Ok(wanted)
    }

    fn refusal(
        &self,
        wanted: &Wanted,
        error: CredentialError,
        asked: &Asked,
        audit: &mut AuditRecord,
    ) -> Denial {
        audit.detail = Some(error.to_string());
        match error {
            CredentialError::Missing | CredentialError::Forbidden if wanted.per.is_some() => {
                self.not_linked(&wanted.name, asked)
            }
            _ => Denial::new(
                Reason::Credential,
                "the credential for this server is not available at the moment; try again later",
            ),
        }
    }

    /// There is nothing for this caller, and trying again will not help.
    fn not_linked(&self, name: &Rc<str>, asked: &Asked) -> Denial {
        let link = self.credentials.get(name).and_then(|credential| credential.link_url.as_deref());
        let Some(url) = link else {
            let message =
                "there is no credential for you at this server; ask whoever runs the gateway";
            return Denial::new(Reason::CredentialNotLinked, message);
        };
        linking::refusal(asked, url, || self.next_record_id())
    }

    /// The login that a secret of a vault is read with.
    fn wanted_login(secret: &VaultSecret, vault: &Vault, wanted: &Wanted) -> WantedLogin {
        let is_callers = matches!(vault.login, Login::Caller { .. });
        WantedLogin {
            vault: Rc::clone(&secret.vault),
            per: wanted.per.clone().filter(|_| is_callers),
            caller: wanted.caller.clone().filter(|_| is_callers),
        }
    }

    /// The token for the vault that holds a secret.
    fn vault_token(
        &self,
        secret: &VaultSecret,
        wanted: &Wanted,
        facts: &Facts,
        now: Timestamp,
    ) -> Result<Rc<Secret>, MissingToken> {
        let vault = self.vault_of(secret).ok_or(MissingToken::Never(CredentialError::Unset))?;
        match &vault.login {
            Login::Token(token) => return Ok(Rc::clone(token)),
            Login::Unset => return Err(MissingToken::Never(CredentialError::Unset)),
            Login::Method { .. } | Login::Caller { .. } => {}
        }
        let wanted = Self::wanted_login(secret, vault, wanted);
        match facts.login(&wanted) {
            Some(Ok(login)) => return Ok(Rc::clone(&login.token)),
            Some(Err(error)) => return Err(MissingToken::Never(*error)),
            None => {}
        }
        match self.secrets.borrow().login(&wanted, now) {
            Some(login) => Ok(Rc::clone(&login.token)),
            None => Err(MissingToken::Login(wanted)),
        }
    }

    /// The login that a value was read with, while its time is not over.
    fn login_of<'a>(
        &self,
        wanted: &Wanted,
        secrets: &'a CredentialCache,
        now: Timestamp,
    ) -> Option<&'a VaultToken> {
        let Source::Vault(secret) = self.source(&wanted.name)? else { return None };
        let login = Self::wanted_login(secret, self.vault_of(secret)?, wanted);
        secrets.login(&login, now).map(|login| &**login)
    }

    /// The call for [`Need::VaultLogin`].
    pub(crate) fn login_call(&self, wanted: &WantedLogin) -> Option<HttpCall> {
        self.vaults.get(&wanted.vault)?.login_call(wanted.caller.as_deref())
    }

    /// The call for [`Need::LoginRenewal`].
    pub(crate) fn renew_login_call(
        &self,
        wanted: &WantedLogin,
        now: Timestamp,
    ) -> Option<HttpCall> {
        let secrets = self.secrets.borrow();
        let login = secrets.login(wanted, now)?;
        Some(self.vaults.get(&wanted.vault)?.renew_login_call(&login.token))
    }

    /// The call for [`Need::Credential`].
    pub(crate) fn fetch_call(
        &self,
        wanted: &Wanted,
        facts: &Facts,
        now: Timestamp,
    ) -> Option<HttpCall> {
        match self.source(&wanted.name)? {
            Source::Vault(secret) => {
                let token = self.vault_token(secret, wanted, facts, now).ok()?;
                let shared;
                let path = match &wanted.path {
                    Some(path) => &**path,
                    None => {
                        shared = secret.path.sample();
                        &shared
                    }
                };
                Some(self.vault_of(secret)?.read_call(path, &token))
            }
            Source::Oauth(token) => {
                self.token_endpoints.get(&token.endpoint)?.call(token, wanted.caller.as_deref())
            }
            Source::Static(_) => None,
        }
    }

    /// The call for [`Need::LeaseRenewal`].
    pub(crate) fn renew_lease_call(&self, wanted: &Wanted, now: Timestamp) -> Option<HttpCall> {
        let Source::Vault(secret) = self.source(&wanted.name)? else { return None };
        let token = self.vault_token(secret, wanted, &Facts::default(), now).ok()?;
        let secrets = self.secrets.borrow();
        let lease = secrets.value(wanted, now)?.lease.as_ref()?;
        Some(self.vault_of(secret)?.renew_lease_call(lease, &token))
    }

    /// What the answer to a login, made at `since`, says.
    pub(crate) fn learn_login(
        &self,
        wanted: &WantedLogin,
        outcome: &CallOutcome,
        since: Timestamp,
        now: Timestamp,
    ) -> Result<Rc<VaultToken>, CredentialError> {
        let login = Rc::new(login_answer(outcome, since, now)?);
        self.secrets.borrow_mut().keep_login(wanted, &login, now);
        Ok(login)
    }

    /// What the answer to the renewal of a login, made at `since`, says: the same token for longer, or
    /// none any more.
    pub(crate) fn learn_renewed_login(
        &self,
        wanted: &WantedLogin,
        outcome: &CallOutcome,
        since: Timestamp,
        now: Timestamp,
    ) -> Result<(), CredentialError> {
        let mut secrets = self.secrets.borrow_mut();
        match login_answer(outcome, since, now) {
            Ok(mut renewed) => {
                let Some(login) = secrets.login(wanted, now) else { return Ok(()) };
                renewed.token = Rc::clone(&login.token);
                renewed.obtained = login.obtained;
                // Less and less: it nears the longest life that it may have.
                renewed.renewable &= renewed.given >= login.given / 2;
                renewed.given = login.given;
                secrets.keep_login(wanted, &Rc::new(renewed), now);
                Ok(())
            }
            Err(error) => {
                if error.is_final() {
                    secrets.forget_login(wanted);
                }
                Err(error)
            }
        }
    }

    /// What the answer to a fetch, made at `since`, says; `None` when the login that it was made with
    /// is no good any more, and another may be.
    pub(crate) fn learn_credential(
        &self,
        wanted: &Wanted,
        outcome: &CallOutcome,
        since: Timestamp,
        now: Timestamp,
    ) -> Option<Result<Rc<Fetched>, CredentialError>> {
        let fetched = match self.source(&wanted.name)? {
            Source::Vault(secret) => {
                let vault = self.vault_of(secret)?;
                let login = Self::wanted_login(secret, vault, wanted);
                let mut fetched = secret.read_answer(outcome, since, now);
                let mut secrets = self.secrets.borrow_mut();
                let known = secrets.login(&login, now).map(Rc::clone);
                if let Ok(fetched) = &mut fetched
                    && fetched.lease.is_some()
                    && let Some(known) = &known
                {
                    fetched.ends_with(known, since);
                }
                let logs_in = matches!(vault.login, Login::Method { .. } | Login::Caller { .. });
                if logs_in && matches!(fetched, Err(CredentialError::Forbidden)) {
                    let suspect = match &known {
                        // Another exchange has found out already.
                        None => true,
                        Some(known) if known.obtained > since => true,
                        // It may have been revoked: it is forgotten, and a new login tells.
                        Some(known) => since.since(known.obtained) >= SURELY_VALID,
                    };
                    if suspect {
                        if known.is_some_and(|known| known.obtained <= since) {
                            secrets.forget_login(&login);
                        }
                        return None;
                    }
                }
                fetched
            }
            Source::Oauth(token) => token.read_answer(outcome, since, now),
            Source::Static(_) => return None,
        };
        let mut secrets = self.secrets.borrow_mut();
        let fetched = fetched.map(Rc::new);
        match &fetched {
            Ok(fetched) => secrets.keep(wanted, fetched, now),
            // It was answered that there is none (any more).
            Err(error) if error.is_final() => secrets.forget(wanted),
            Err(_) => {}
        }
        Some(fetched)
    }

    /// What the answer to the renewal of a lease, made at `since`, says: the same value for longer, or
    /// none any more.
    pub(crate) fn learn_renewed_lease(
        &self,
        wanted: &Wanted,
        outcome: &CallOutcome,
        since: Timestamp,
        now: Timestamp,
    ) -> Result<(), CredentialError> {
        let mut secrets = self.secrets.borrow_mut();
        match lease_answer(outcome) {
            Ok((lent, renewable)) => {
                let Some(old) = secrets.value(wanted, now) else { return Ok(()) };
                let Some(lease) = &old.lease else { return Ok(()) };
                let mut renewed = Fetched {
                    values: old.values.clone(),
                    source: old.source,
                    version: old.version,
                    lease: Some(Lease {
                        id: Secret::new(lease.id.expose().to_owned()),
                        // Less and less: it nears the longest time that it may last, and a new one
                        // is read before that.
                        renewable: renewable && lent >= lease.given / 2,
                        given: lease.given,
                    }),
                    obtained: old.obtained,
                    refresh: since.after(lent.mul_f64(REFRESHED_AFTER)),
                    expires: since.after(lent),
                    used: Cell::new(old.used.get()),
                    is_used: Cell::new(false),
                    written: Written::default(),
                };
                if let Some(known) = self.login_of(wanted, &secrets, now) {
                    renewed.ends_with(known, since);
                }
                secrets.keep(wanted, &Rc::new(renewed), now);
                Ok(())
            }
            Err(error) => {
                if error.is_final() {
                    // Revoked: whoever asks next gets a new one.
                    secrets.forget(wanted);
                }
                Err(error)
            }
        }
    }

    /// A server refused these credentials: those that may have changed since they were fetched are
    /// forgotten. Whether another may be had than one of them: it is fetched when it is needed next, or
    /// somebody has fetched it meanwhile.
    pub(crate) fn refused_by_server(&self, injected: &[Injected], now: Timestamp) -> bool {
        let mut secrets = self.secrets.borrow_mut();
        let mut is_outdated = false;
        for Injected { wanted, fetched, .. } in injected {
            if matches!(self.source(&wanted.name), Some(Source::Static(_)) | None) {
                continue;
            }
            let held = secrets.value(wanted, now);
            if held.is_some_and(|held| !held.has_values_of(fetched)) {
                is_outdated = true;
            } else if now.since(held.unwrap_or(fetched).obtained) >= SURELY_CURRENT {
                secrets.forget(wanted);
                is_outdated = true;
            }
        }
        is_outdated
    }

    /// The same of credentials that a call of the gateway's own was made with, at `since`. Whether the
    /// call can be made with another.
    pub(crate) fn is_outdated(&self, access: &[Wanted], since: Timestamp, now: Timestamp) -> bool {
        let mut secrets = self.secrets.borrow_mut();
        let mut is_outdated = false;
        for wanted in access {
            let Some(held) = secrets.value(wanted, now) else { continue };
            if held.obtained > since {
                is_outdated = true;
            } else if since.since(held.obtained) >= SURELY_CURRENT {
                secrets.forget(wanted);
                is_outdated = true;
            }
        }
        is_outdated
    }

    /// What should be renewed or fetched anew by now: values that are in use, and the logins for them.
    /// What rests on the token of a caller ends with it.
    pub(crate) fn due(&self, now: Timestamp) -> Vec<Need> {
        let secrets = self.secrets.borrow();
        let mut due = BTreeSet::new();
        for (wanted, fetched) in secrets.values() {
            if !fetched.is_used.get() || now >= fetched.expires {
                continue;
            }
            match self.source(&wanted.name) {
                Some(Source::Vault(secret)) => {
                    let Some(vault) = self.vault_of(secret) else { continue };
                    if matches!(vault.login, Login::Caller { .. }) {
                        continue;
                    }
                    let login = Self::wanted_login(secret, vault, wanted);
                    let known = secrets.login(&login, now);
                    if let Some(known) = known
                        && known.renewable
                        && now >= known.refresh
                    {
                        due.insert(Need::LoginRenewal(login.clone()));
                    }
                    if now < fetched.refresh {
                        continue;
                    }
                    let same_login = match known {
                        Some(known) => known.obtained <= fetched.obtained,
                        // With a token of the configuration nobody logs in.
                        None => matches!(vault.login, Login::Token(_)),
                    };
                    match &fetched.lease {
                        Some(lease) if lease.renewable && same_login => {
                            due.insert(Need::LeaseRenewal(wanted.clone()));
                        }
                        _ => match self.vault_token(secret, wanted, &Facts::default(), now) {
                            Ok(_) => {
                                due.insert(Need::Credential(wanted.clone()));
                            }
                            // The value follows with a later tick.
                            Err(MissingToken::Login(login)) => {
                                due.insert(Need::VaultLogin(login));
                            }
                            Err(MissingToken::Never(_)) => {}
                        },
                    }
                }
                Some(Source::Oauth(token))
                    if !token.grant.is_per_caller() && now >= fetched.refresh =>
                {
                    due.insert(Need::Credential(wanted.clone()));
                }
                Some(Source::Oauth(_) | Source::Static(_)) | None => {}
            }
        }
        due.into_iter().collect()
    }
}

/// Why there is no token for a vault.
enum MissingToken {
    /// Nobody has logged in yet.
    Login(WantedLogin),
    /// There will be none.
    Never(CredentialError),
}
