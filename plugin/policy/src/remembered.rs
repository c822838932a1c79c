//! One result and the facts it was found under: as long as these are the same, so is it.

use crate::looks::Looks;
use crate::request::{Count, RequestFacts};

/// The last result that depends on nothing but some facts of the request.
#[derive(Debug)]
pub(crate) struct Remembered<T>(Option<(Facts, T)>);

/// Those of the facts that were looked at; the others have their defaults.
#[derive(Debug, Default)]
struct Facts {
    time_ms: i64,
    scopes: Vec<String>,
    source_ip: Option<String>,
    session: Option<String>,
    client_name: Option<String>,
    token_age_seconds: Option<i64>,
    protocol_version: Option<String>,
    calls: Vec<Count>,
}

impl<T> Default for Remembered<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Remembered<T> {
    /// Most bytes of facts that are kept. Results under longer ones are found anew each time.
    pub(crate) const MOST: usize = 1024;

    /// The result, if it was found under the same facts as far as `looks` names them. `looks` is the
    /// same every time.
    pub(crate) fn under(&self, looks: Looks, facts: &RequestFacts<'_>) -> Option<&T> {
        let (known, result) = self.0.as_ref()?;
        known.are(&of(looks, facts)).then_some(result)
    }

    /// Remembers `result` in place of the one before.
    pub(crate) fn remember(&mut self, looks: Looks, facts: &RequestFacts<'_>, result: T) {
        let facts = of(looks, facts);
        let texts = [facts.source_ip, facts.session, facts.client_name, facts.protocol_version];
        let scopes: usize = facts.scopes.iter().map(|scope| scope.len() + 32).sum();
        let length = scopes + texts.into_iter().flatten().map(str::len).sum::<usize>();
        self.0 = (length <= Self::MOST).then(|| (Facts::from(&facts), result));
    }
}

/// `facts` with the defaults for what `looks` does not name.
fn of<'a>(looks: Looks, facts: &RequestFacts<'a>) -> RequestFacts<'a> {
    let at = |look: Looks| looks.at(look);
    RequestFacts {
        time_ms: if at(Looks::TIME) { facts.time_ms } else { 0 },
        scopes: if at(Looks::SCOPES) { facts.scopes } else { &[] },
        source_ip: facts.source_ip.filter(|_| at(Looks::SOURCE_IP)),
        session: facts.session.filter(|_| at(Looks::SESSION)),
        client_name: facts.client_name.filter(|_| at(Looks::CLIENT_NAME)),
        token_age_seconds: facts.token_age_seconds.filter(|_| at(Looks::TOKEN_AGE)),
        protocol_version: facts.protocol_version.filter(|_| at(Looks::PROTOCOL_VERSION)),
        calls: if at(Looks::CALLS) { facts.calls } else { &[] },
    }
}

impl Facts {
    fn from(facts: &RequestFacts<'_>) -> Self {
        // Every field is named, so that a new fact cannot be forgotten here.
        let RequestFacts {
            time_ms,
            scopes,
            source_ip,
            session,
            client_name,
            token_age_seconds,
            protocol_version,
            calls,
        } = *facts;
        Self {
            time_ms,
            scopes: scopes.to_vec(),
            source_ip: source_ip.map(str::to_owned),
            session: session.map(str::to_owned),
            client_name: client_name.map(str::to_owned),
            token_age_seconds,
            protocol_version: protocol_version.map(str::to_owned),
            calls: calls.to_vec(),
        }
    }

    fn are(&self, facts: &RequestFacts<'_>) -> bool {
        let RequestFacts {
            time_ms,
            scopes,
            source_ip,
            session,
            client_name,
            token_age_seconds,
            protocol_version,
            calls,
        } = *facts;
        self.time_ms == time_ms
            && self.scopes == scopes
            && self.source_ip.as_deref() == source_ip
            && self.session.as_deref() == session
            && self.client_name.as_deref() == client_name
            && self.token_age_seconds == token_age_seconds
            && self.protocol_version.as_deref() == protocol_version
            && self.calls == calls
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn every_fact_that_was_looked_at_has_to_be_the_same() {
        let scopes = ["a".to_owned()];
        let calls = [Count { counter: "c".into(), calls: Some(1) }];
        let facts = RequestFacts::default();
        let others = [
            (Looks::TIME, RequestFacts { time_ms: 1, ..facts }),
            (Looks::SCOPES, RequestFacts { scopes: &scopes, ..facts }),
            (Looks::SOURCE_IP, RequestFacts { source_ip: Some("::1"), ..facts }),
            (Looks::SESSION, RequestFacts { session: Some("s"), ..facts }),
            (Looks::CLIENT_NAME, RequestFacts { client_name: Some("c"), ..facts }),
            (Looks::TOKEN_AGE, RequestFacts { token_age_seconds: Some(0), ..facts }),
            (Looks::PROTOCOL_VERSION, RequestFacts { protocol_version: Some(""), ..facts }),
            (Looks::CALLS, RequestFacts { calls: &calls, ..facts }),
        ];
        for (look, other) in others {
            let mut remembered = Remembered::default();
            remembered.remember(look, &facts, 7);
            assert_eq!(remembered.under(look, &facts), Some(&7));
            assert_eq!(remembered.under(look, &other), None, "{other:?}");
            remembered.remember(look, &other, 8);
            assert_eq!(remembered.under(look, &other), Some(&8));
            assert_eq!(remembered.under(look, &facts), None);
            for (unlooked, same) in others.iter().filter(|(unlooked, _)| *unlooked != look) {
                let mut remembered = Remembered::default();
                remembered.remember(look, &facts, 7);
                assert_eq!(remembered.under(look, same), Some(&7), "{unlooked:?}");
            }
        }
    }

    #[test]
    fn long_facts_are_not_kept() {
        let long = "x".repeat(Remembered::<u8>::MOST + 1);
        let facts = RequestFacts { client_name: Some(&long), ..RequestFacts::default() };
        let mut remembered = Remembered::default();
        remembered.remember(Looks::CLIENT_NAME, &facts, 7);
        assert_eq!(remembered.under(Looks::CLIENT_NAME, &facts), None);
        remembered.remember(Looks::SESSION, &facts, 7);
        assert_eq!(remembered.under(Looks::SESSION, &facts), Some(&7));
    }
}
