//! What one worker remembers of vaults and authorization servers, bounded over all callers.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::{Fetched, VaultToken, Wanted, WantedLogin};
use crate::event::Timestamp;

/// Most values, and most logins, that are remembered at a time.
const MOST: usize = 4096;

/// Values and logins.
#[derive(Default)]
pub(crate) struct CredentialCache {
    values: BTreeMap<Wanted, Rc<Fetched>>,
    logins: BTreeMap<WantedLogin, Rc<VaultToken>>,
}

impl CredentialCache {
    /// A value whose time is not over.
    pub(crate) fn value(&self, wanted: &Wanted, now: Timestamp) -> Option<&Rc<Fetched>> {
        self.values.get(wanted).filter(|fetched| now < fetched.expires)
    }

    /// A login whose time is not over.
    pub(crate) fn login(&self, wanted: &WantedLogin, now: Timestamp) -> Option<&Rc<VaultToken>> {
        self.logins.get(wanted).filter(|login| now < login.expires)
    }

    /// Every value that is remembered.
    pub(crate) fn values(&self) -> impl Iterator<Item = (&Wanted, &Rc<Fetched>)> {
        self.values.iter()
    }

    /// Remembers a value. When there are too many, those go that are over, and then those that nobody
    /// has used for the longest time.
    pub(crate) fn keep(&mut self, wanted: &Wanted, fetched: &Rc<Fetched>, now: Timestamp) {
        if self.values.len() >= MOST && !self.values.contains_key(wanted) {
            self.values.retain(|_, fetched| now < fetched.expires);
            if self.values.len() >= MOST {
                let mut uses: Vec<Timestamp> =
                    self.values.values().map(|fetched| fetched.used.get()).collect();
                // An eighth at a time, so that this is not done for every new caller.
                let (_, oldest_kept, _) = uses.select_nth_unstable(MOST / 8);
                let oldest_kept = *oldest_kept;
                self.values.retain(|_, fetched| fetched.used.get() > oldest_kept);
            }
        }
        // The token of the caller was for the call only.
        let wanted = Wanted { caller: None, ..wanted.clone() };
        self.values.insert(wanted, Rc::clone(fetched));
    }

    /// Remembers a login. When there are too many, those go that are over, and then the oldest.
    pub(crate) fn keep_login(
        &mut self,
        wanted: &WantedLogin,
        login: &Rc<VaultToken>,
        now: Timestamp,
    ) {
        if self.logins.len() >= MOST && !self.logins.contains_key(wanted) {
            self.logins.retain(|_, login| now < login.expires);
            if self.logins.len() >= MOST {
                let mut times: Vec<Timestamp> =
                    self.logins.values().map(|login| login.obtained).collect();
                let (_, oldest_kept, _) = times.select_nth_unstable(MOST / 8);
                let oldest_kept = *oldest_kept;
                self.logins.retain(|_, login| login.obtained > oldest_kept);
            }
        }
        let wanted = WantedLogin { caller: None, ..wanted.clone() };
        self.logins.insert(wanted, Rc::clone(login));
    }

    /// Forgets a value.
    pub(crate) fn forget(&mut self, wanted: &Wanted) {
        self.values.remove(wanted);
    }

    /// Forgets a login.
    pub(crate) fn forget_login(&mut self, wanted: &WantedLogin) {
        self.logins.remove(wanted);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::secret::Secret;

    fn at(seconds: u64) -> Timestamp {
        Timestamp(Duration::from_secs(seconds))
    }

    fn wanted(user: usize) -> Wanted {
        let per = format!("secret/data/{user}");
        Wanted { per: Some(per.into()), ..Wanted::by_all(&"key".into()) }
    }

    #[test]
    fn the_memory_is_bounded_over_all_callers_and_keeps_what_is_used() {
        let mut cache = CredentialCache::default();
        for user in 0..MOST * 2 {
            let fetched = Rc::new(Fetched::lasting(Rc::new(Secret::new("x".into()))));
            fetched.used.set(at(user as u64));
            cache.keep(&wanted(user), &fetched, at(0));
            // The first caller calls all the time.
            if let Some(first) = cache.value(&wanted(0), at(0)) {
                first.used.set(at(user as u64));
            }
            assert!(cache.values.len() <= MOST);
        }
        assert!(cache.value(&wanted(0), at(0)).is_some());
        assert!(cache.value(&wanted(1), at(0)).is_none());
        assert!(cache.value(&wanted(MOST * 2 - 1), at(0)).is_some());
    }
}
