//! Which credential a request gets: from this exchange, from memory, or as a need; and what answers
//! leave in memory.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use super::{
    Credential, Fetched, KvCredential, Login, Vault, VaultError, VaultToken, login_answer,
};
use crate::audit::AuditRecord;
use crate::denial::{Denial, Reason};
use crate::event::{CallOutcome, HttpCall, Timestamp};
use crate::facts::{Facts, Need, Stop};
use crate::gateway::{Gateway, Injection, Server};
use crate::secret::Secret;

/// A token that is refused though it is younger than this was not revoked: the vault's policies
/// forbid what was asked.
const SURELY_VALID: Duration = Duration::from_secs(1);

impl Gateway {
    /// The credential that `server` wants.
    ///
    /// # Errors
    /// [`Stop`] when it has to be fetched, or when it cannot be had.
    pub(crate) fn credential<'a>(
        &'a self,
        server: &'a Server,
        facts: &Facts,
        now: Timestamp,
        audit: &mut AuditRecord,
    ) -> Result<Option<(&'a Injection, Rc<Fetched>)>, Stop> {
        let Some(injection) = &server.credential else { return Ok(None) };
        let name = &injection.credential;
        audit.credential = Some(Rc::clone(name));
        let fetched = match facts.credential(name) {
            Some(Ok(fetched)) => {
                audit.credential_source = Some("vault");
                Rc::clone(fetched)
            }
            Some(Err(error)) => return Err(unavailable(*error, audit).into()),
            None => match self.at_hand(name, now).map_err(|error| unavailable(error, audit))? {
                Some((source, fetched)) => {
                    audit.credential_source = Some(source);
                    fetched
                }
                None => {
                    let (vault, credential) = self.kept_in(name).ok_or_else(no_vault)?;
                    self.vault_token(vault, credential, facts, now)
                        .map_err(|missing| missing.stop(audit))?;
                    return Err(Need::Credential(Rc::clone(name)).into());
                }
            },
        };
        fetched.used.set(true);
        audit.credential_version = fetched.version;
        Ok(Some((injection, fetched)))
    }

    /// A credential that need not be fetched, and where it comes from.
    fn at_hand(
        &self,
        name: &str,
        now: Timestamp,
    ) -> Result<Option<(&'static str, Rc<Fetched>)>, VaultError> {
        if let Some(Credential::Static(fetched)) = self.credentials.get(name) {
            let fetched = fetched.as_ref().ok_or(VaultError::Unset)?;
            return Ok(Some(("static", Rc::clone(fetched))));
        }
        let secrets = self.secrets.borrow();
        let fetched = secrets.values.get(name).filter(|fetched| now < fetched.expires);
        Ok(fetched.map(|fetched| ("cache", Rc::clone(fetched))))
    }

    /// A credential of a vault, and the vault.
    fn kept_in(&self, name: &str) -> Option<(&Vault, &KvCredential)> {
        match self.credentials.get(name)? {
            Credential::Kv(credential) => Some((self.vaults.get(&credential.vault)?, credential)),
            Credential::Static(_) => None,
        }
    }

    /// The token for the vault that holds a credential.
    fn vault_token(
        &self,
        vault: &Vault,
        credential: &KvCredential,
        facts: &Facts,
        now: Timestamp,
    ) -> Result<Rc<Secret>, MissingToken> {
        match &vault.login {
            Login::Token(token) => return Ok(Rc::clone(token)),
            Login::Unset => return Err(MissingToken::Never(VaultError::Unset)),
            Login::AppRole { .. } => {}
        }
        let name = &credential.vault;
        match facts.login(name) {
            Some(Ok(login)) => return Ok(Rc::clone(&login.token)),
            Some(Err(error)) => return Err(MissingToken::Never(*error)),
            None => {}
        }
        match self.secrets.borrow().tokens.get(name).filter(|login| now < login.expires) {
            Some(login) => Ok(Rc::clone(&login.token)),
            None => Err(MissingToken::Login(Need::VaultLogin(Rc::clone(name)))),
        }
    }

    /// The call for [`Need::Credential`].
    pub(crate) fn read_call(&self, name: &str, facts: &Facts, now: Timestamp) -> Option<HttpCall> {
        let (vault, credential) = self.kept_in(name)?;
        let token = self.vault_token(vault, credential, facts, now).ok()?;
        Some(vault.read_call(credential, token))
    }

    /// What the answer to a login says.
    pub(crate) fn learn_login(
        &self,
        vault: &Rc<str>,
        outcome: &CallOutcome,
        now: Timestamp,
    ) -> Result<Rc<VaultToken>, VaultError> {
        let login = Rc::new(login_answer(outcome, now)?);
        self.secrets.borrow_mut().tokens.insert(Rc::clone(vault), Rc::clone(&login));
        Ok(login)
    }

    /// What the answer to a read, made at `since`, says; `None` when the login that it was made with
    /// is no good any more, and another may be.
    pub(crate) fn learn_credential(
        &self,
        name: &Rc<str>,
        outcome: &CallOutcome,
        since: Timestamp,
        now: Timestamp,
    ) -> Option<Result<Rc<Fetched>, VaultError>> {
        let (vault, credential) = self.kept_in(name)?;
        let fetched = credential.read_answer(outcome, now).map(Rc::new);
        let mut secrets = self.secrets.borrow_mut();
        match &fetched {
            Ok(fetched) => {
                secrets.values.insert(Rc::clone(name), Rc::clone(fetched));
            }
            Err(VaultError::Forbidden) if matches!(vault.login, Login::AppRole { .. }) => {
                let suspect = match secrets.tokens.get(&credential.vault) {
                    // Another exchange has found out already.
                    None => true,
                    Some(login) if login.obtained > since => true,
                    // It may have been revoked: it is forgotten, and a new login tells.
                    Some(login) => since.since(login.obtained) >= SURELY_VALID,
                };
                if suspect {
                    secrets.tokens.retain(|vault, login| {
                        *vault != credential.vault || login.obtained > since
                    });
                    return None;
                }
            }
            Err(_) => {}
        }
        Some(fetched)
    }

    /// What should be fetched anew by now: values that are in use, and the logins for them.
    pub(crate) fn due(&self, now: Timestamp) -> Vec<Need> {
        let secrets = self.secrets.borrow();
        let mut due = BTreeSet::new();
        for (name, fetched) in &secrets.values {
            if !fetched.used.get() || now >= fetched.expires {
                continue;
            }
            let Some((vault, credential)) = self.kept_in(name) else { continue };
            let login = secrets.tokens.get(&credential.vault);
            if login.is_some_and(|login| now >= login.refresh) {
                due.insert(Need::VaultLogin(Rc::clone(&credential.vault)));
            }
            if now < fetched.refresh {
                continue;
            }
            match self.vault_token(vault, credential, &Facts::default(), now) {
                Ok(_) => due.insert(Need::Credential(Rc::clone(name))),
                // The value follows with a later tick.
                Err(MissingToken::Login(login)) => due.insert(login),
                Err(MissingToken::Never(_)) => false,
            };
        }
        due.into_iter().collect()
    }
}

/// Why there is no token for a vault.
enum MissingToken {
    /// Nobody has logged in yet.
    Login(Need),
    /// There will be none.
    Never(VaultError),
}

impl MissingToken {
    fn stop(self, audit: &mut AuditRecord) -> Stop {
        match self {
            Self::Login(need) => need.into(),
            Self::Never(error) => unavailable(error, audit).into(),
        }
    }
}

fn no_vault() -> Denial {
    Denial::new(Reason::Internal, "a credential is configured without its vault")
}

fn unavailable(error: VaultError, audit: &mut AuditRecord) -> Denial {
    audit.detail = Some(error.to_string());
    Denial::new(
        Reason::Credential,
        "the credential for this server is not available at the moment; try again later",
    )
}
