//! What servers list: fetched page by page, remembered for as long as each server says, bounded.
//!
//! A server's list depends on the credential that it is fetched with: one that serves all callers makes
//! one list for all, one of a caller's own a list that is that caller's. What a caller sees of it policy
//! decides each time. A list that
//! is too long, that does not end or that cannot be read is a fault of its server and of no other.
//! Not here: how lists of several servers become one (`lists`).

use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;
use std::time::Duration;

use toolgate_protocol::json::{Json, Object};
use toolgate_protocol::mcp::{Era, ListKind};

use super::answer::{self, Fault, Said};
use super::peers::{Access, ID, SURELY_OPEN, SessionKey, era_of};
use crate::event::{CallOutcome, HttpCall, Timestamp};
use crate::facts::Facts;
use crate::gateway::Gateway;

/// Longest list of one server, in elements.
const MOST_ELEMENTS: usize = 5_000;

/// Most pages of one list.
pub(crate) const MOST_PAGES: usize = 50;

/// Longest cursor that is taken from a server, in bytes.
const LONGEST_CURSOR: usize = 4 << 10;

/// Longest time that a list is remembered, whatever its server says.
const LONGEST_TTL: Duration = Duration::from_secs(24 * 3600);

/// Most that a worker remembers of all lists, in bytes as they came.
const MOST_BYTES: usize = 64 << 20;

/// Most lists of which a worker has the beginning.
const MOST_BEGUN: usize = 1024;

/// Which list of which server.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CatalogueKey {
    pub(crate) server: Rc<str>,
    pub(crate) kind: Kind,
    /// The gateways that the request for it has passed: behind another gateway this decides what there
    /// is. Empty but where gateways stand behind one another.
    pub(crate) hops: Rc<str>,
    pub(crate) access: Access,
    /// What servers may list by.
    pub(crate) offer: Offer,
}

/// What a client can do, as servers are told when they are asked for a list; as JSON, empty for nothing.
/// What cannot be carried to a server's era is not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Offer {
    /// To servers of the modern era, with the request.
    pub(crate) modern: Rc<str>,
    /// To servers of the legacy era, with the session.
    pub(crate) legacy: Rc<str>,
}

/// What is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Tools,
    Prompts,
    Resources,
    Templates,
}

/// A whole list.
#[derive(Debug)]
pub(crate) struct Catalogue {
    /// Own name (or URI, or template) and the element as the server gave it.
    pub(crate) elements: Vec<(String, Object)>,
    pub(crate) until: Timestamp,
    bytes: usize,
}

/// Lists of one worker.
#[derive(Default)]
pub(crate) struct Catalogues {
    whole: BTreeMap<CatalogueKey, Rc<Catalogue>>,
    begun: BTreeMap<CatalogueKey, Begun>,
    bytes: usize,
}

/// The first pages of a list.
struct Begun {
    catalogue: Catalogue,
    seen: HashSet<String>,
    ttl: Duration,
    cursor: Rc<str>,
    pages: usize,
    since: Timestamp,
}

impl Kind {
    pub(crate) fn of(kind: ListKind) -> Self {
        match kind {
            ListKind::Tools => Self::Tools,
            ListKind::Prompts => Self::Prompts,
            ListKind::Resources => Self::Resources,
            ListKind::ResourceTemplates => Self::Templates,
        }
    }

    /// Method, member of the result, member that names an element.
    pub(crate) fn words(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Tools => ("tools/list", "tools", "name"),
            Self::Prompts => ("prompts/list", "prompts", "name"),
            Self::Resources => ("resources/list", "resources", "uri"),
            Self::Templates => ("resources/templates/list", "resourceTemplates", "uriTemplate"),
        }
    }
}

impl Catalogues {
    /// The whole list, if it is still good.
    pub(crate) fn find(&self, key: &CatalogueKey, now: Timestamp) -> Option<Rc<Catalogue>> {
        self.whole.get(key).filter(|catalogue| now < catalogue.until).map(Rc::clone)
    }

    /// Where the next page of a list begins that is being fetched.
    pub(crate) fn cursor(&self, key: &CatalogueKey) -> Option<Rc<str>> {
        self.begun.get(key).map(|begun| Rc::clone(&begun.cursor))
    }

    /// A server said that its lists are not what they were.
    pub(crate) fn forget(&mut self, server: &str) {
        let gone = |key: &CatalogueKey| &*key.server == server;
        self.whole.retain(|key, catalogue| {
            if gone(key) {
                self.bytes = self.bytes.saturating_sub(catalogue.bytes);
            }
            !gone(key)
        });
        self.begun.retain(|key, _| !gone(key));
    }

    fn keep(&mut self, key: &CatalogueKey, catalogue: Catalogue) -> Rc<Catalogue> {
        self.begun.remove(key);
        let catalogue = Rc::new(catalogue);
        if catalogue.bytes > MOST_BYTES {
            return catalogue;
        }
        if let Some(before) = self.whole.remove(key) {
            self.bytes = self.bytes.saturating_sub(before.bytes);
        }
        while self.bytes + catalogue.bytes > MOST_BYTES {
            let first = self.whole.iter().min_by_key(|(_, catalogue)| catalogue.until);
            let Some(first) = first.map(|(key, _)| key.clone()) else { break };
            if let Some(gone) = self.whole.remove(&first) {
                self.bytes = self.bytes.saturating_sub(gone.bytes);
            }
        }
        self.bytes += catalogue.bytes;
        self.whole.insert(key.clone(), Rc::clone(&catalogue));
        catalogue
    }

    /// Takes one page; `Some` when the list is whole or of no use.
    fn page(
        &mut self,
        key: &CatalogueKey,
        result: &Object,
        page: Page,
        limits: (usize, Duration),
        now: Timestamp,
    ) -> Option<Result<Rc<Catalogue>, Fault>> {
        let (most_bytes, default_ttl) = limits;
        let (_, member, name) = key.kind.words();
        let Some(elements) = result.get(member).and_then(Json::as_array) else {
            return self.fail(key, Fault::Answer);
        };
        let ttl = match result.get("ttlMs") {
            Some(Json::Integer(ms)) => Duration::from_millis(u64::try_from(*ms).unwrap_or(0)),
            _ => default_ttl,
        };
        let mut begun = match (&page.cursor, self.begun.remove(key)) {
            (None, _) => Begun {
                catalogue: Catalogue { elements: Vec::new(), until: now, bytes: 0 },
                seen: HashSet::new(),
                ttl,
                cursor: "".into(),
                pages: 0,
                since: page.since,
            },
            (Some(cursor), Some(begun)) if begun.cursor == *cursor => begun,
            // Somebody else has brought this page, or the list has begun anew.
            (Some(_), Some(begun)) => {
                self.begun.insert(key.clone(), begun);
                return None;
            }
            (Some(_), None) => return None,
        };
        begun.pages += 1;
        begun.ttl = begun.ttl.min(ttl);
        begun.catalogue.bytes += page.bytes;
        for element in elements {
            let Some(element) = element.as_object() else { continue };
            let own = element.get(name).and_then(Json::as_str).unwrap_or_default();
            // Of two with one name the first counts: a later one hides nothing.
            if !own.is_empty() && begun.seen.insert(own.to_owned()) {
                begun.catalogue.elements.push((own.to_owned(), element.clone()));
            }
        }
        if begun.catalogue.elements.len() > MOST_ELEMENTS || begun.catalogue.bytes > most_bytes {
            return self.fail(key, Fault::TooLarge);
        }
        let next = result.get("nextCursor").and_then(Json::as_str).filter(|next| !next.is_empty());
        let Some(next) = next else {
            begun.catalogue.until = now.after(begun.ttl.min(LONGEST_TTL));
            return Some(Ok(self.keep(key, begun.catalogue)));
        };
        if begun.pages >= MOST_PAGES || next.len() > LONGEST_CURSOR || *next == *begun.cursor {
            return self.fail(key, Fault::TooLarge);
        }
        begun.cursor = next.into();
        if self.begun.len() >= MOST_BEGUN {
            self.begun.retain(|_, begun| now.since(begun.since) < Duration::from_secs(60));
        }
        if self.begun.len() >= MOST_BEGUN {
            return self.fail(key, Fault::TooLarge);
        }
        self.begun.insert(key.clone(), begun);
        None
    }

    fn fail<T>(&mut self, key: &CatalogueKey, fault: Fault) -> Option<Result<T, Fault>> {
        self.begun.remove(key);
        Some(Err(fault))
    }
}

/// One page of a list as it arrived.
struct Page {
    cursor: Option<Rc<str>>,
    bytes: usize,
    since: Timestamp,
}

impl Gateway {
    /// The session in which the gateway itself asks a server of the legacy era for a list.
    pub(crate) fn own_session(key: &CatalogueKey) -> SessionKey {
        let (server, access) = (Rc::clone(&key.server), Rc::clone(&key.access));
        SessionKey { server, owner: "".into(), capabilities: Rc::clone(&key.offer.legacy), access }
    }

    /// The call for a page of a list.
    pub(crate) fn catalogue_call(
        &self,
        key: &CatalogueKey,
        cursor: Option<&Rc<str>>,
        facts: &Facts,
        now: Timestamp,
    ) -> Option<HttpCall> {
        let (method, ..) = key.kind.words();
        let mut params = Object::default();
        if let Some(cursor) = cursor {
            params.set("cursor", Json::from(&**cursor));
        }
        let era = self.peers.borrow().era(&key.server, now);
        let session = match era {
            Some(Era::Legacy) => {
                Some(self.peers.borrow_mut().session(&Self::own_session(key), now)?)
            }
            _ => {
                params.set("_meta", self.modern_meta(&key.offer.modern));
                None
            }
        };
        let to = (&key.server, &key.access);
        self.server_call(to, method, params, (session.as_deref(), &key.hops), facts, now)
    }

    /// What the answer says; `None` when there is more to ask, or to ask in another way.
    pub(crate) fn learn_catalogue(
        &self,
        key: &CatalogueKey,
        cursor: Option<&Rc<str>>,
        outcome: &CallOutcome,
        since: Timestamp,
        now: Timestamp,
    ) -> Option<Result<Rc<Catalogue>, Fault>> {
        let federation = self.federation.as_ref()?;
        let mut catalogues = self.catalogues.borrow_mut();
        let said = match answer::read(outcome, ID) {
            Ok(said) => said,
            Err(fault) => return catalogues.fail(key, fault),
        };
        let mut peers = self.peers.borrow_mut();
        let era = peers.era(&key.server, now);
        match said {
            Said::Result(result) => {
                if era.is_none() {
                    peers.set_era(&key.server, Era::Modern, now);
                }
                let bytes = match outcome {
                    CallOutcome::Response { body, .. } => body.len(),
                    _ => 0,
                };
                let page = Page { cursor: cursor.cloned(), bytes, since };
                let limits = (self.limits.list_bytes, federation.ttl);
                let listed = catalogues.page(key, &result, page, limits, now);
                if let (Some(Ok(listed)), Kind::Tools) = (&listed, key.kind) {
                    // Calls through a portal have to repeat arguments like any other.
                    for (own, tool) in &listed.elements {
                        self.mirrors.learn(&key.server, own, tool.get("inputSchema"));
                    }
                }
                listed
            }
            // It has none of these at all.
            Said::Error { code: -32601, .. } => {
                let until = now.after(federation.ttl);
                let none = Catalogue { elements: Vec::new(), until, bytes: 0 };
                Some(Ok(catalogues.keep(key, none)))
            }
            said if era == Some(Era::Legacy) => {
                let session = Self::own_session(key);
                let known = peers.session(&session, now);
                let status = match said {
                    Said::Error { status, .. } | Said::Refused { status } => status,
                    Said::Result(_) => 200,
                };
                // It has forgotten the session: a new one is opened, once.
                let is_old = |opened: Timestamp| since.since(opened) >= SURELY_OPEN;
                if matches!(status, 400 | 404)
                    && known.is_none_or(|known| known.id.is_some() && is_old(known.opened))
                {
                    peers.forget(&session);
                    return None;
                }
                catalogues.fail(key, Fault::Error)
            }
            said => match era_of(&said) {
                Ok(Era::Legacy) => {
                    peers.set_era(&key.server, Era::Legacy, now);
                    None
                }
                Ok(Era::Modern) => catalogues.fail(key, Fault::Error),
                Err(fault) => catalogues.fail(key, fault),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    const LIMITS: (usize, Duration) = (1 << 20, Duration::from_secs(60));

    fn key() -> CatalogueKey {
        CatalogueKey {
            server: "a".into(),
            kind: Kind::Tools,
            hops: "".into(),
            access: Rc::new([]),
            offer: Offer::default(),
        }
    }

    fn take(
        catalogues: &mut Catalogues,
        cursor: Option<&str>,
        result: &str,
    ) -> Option<Result<Rc<Catalogue>, Fault>> {
        let result = Json::parse(result.as_bytes()).unwrap().as_object().unwrap().clone();
        let now = Timestamp(Duration::from_secs(1000));
        let page = Page { cursor: cursor.map(Into::into), bytes: 100, since: now };
        catalogues.page(&key(), &result, page, LIMITS, now)
    }

    #[test]
    fn pages_become_one_list_that_is_kept_for_the_shortest_time_said() {
        let mut catalogues = Catalogues::default();
        let first = r#"{"tools":[{"name":"a"},{"name":"b"},{"title":"none"},7],"nextCursor":"2","ttlMs":5000}"#;
        assert!(take(&mut catalogues, None, first).is_none());
        assert_eq!(catalogues.cursor(&key()).as_deref(), Some("2"));
        // The same page again, from another exchange, changes nothing.
        let second = r#"{"tools":[{"name":"b","x":1},{"name":"c"}],"ttlMs":9000}"#;
        assert!(take(&mut catalogues, Some("other"), second).is_none());
        let list = take(&mut catalogues, Some("2"), second).unwrap().unwrap();
        let names: Vec<_> = list.elements.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert!(list.elements[1].1.get("x").is_none(), "the first of two with one name counts");
        assert_eq!(list.until, Timestamp(Duration::from_secs(1005)));
        let at = |seconds| Timestamp(Duration::from_secs(seconds));
        assert!(catalogues.find(&key(), at(1004)).is_some());
        assert!(catalogues.find(&key(), at(1005)).is_none());
    }

    #[test]
    fn a_list_that_does_not_end_or_is_too_long_is_a_fault_and_leaves_nothing() {
        let mut catalogues = Catalogues::default();
        let same = r#"{"tools":[],"nextCursor":"2"}"#;
        assert!(take(&mut catalogues, None, same).is_none());
        assert_eq!(take(&mut catalogues, Some("2"), same).unwrap().unwrap_err(), Fault::TooLarge);
        let page = |number: usize| format!(r#"{{"tools":[],"nextCursor":"{number}"}}"#);
        assert!(take(&mut catalogues, None, &page(1)).is_none());
        let mut ended = None;
        for number in 1..=MOST_PAGES {
            ended = take(&mut catalogues, Some(&number.to_string()), &page(number + 1));
            if ended.is_some() {
                assert_eq!(number, MOST_PAGES - 1);
                break;
            }
        }
        assert_eq!(ended.unwrap().unwrap_err(), Fault::TooLarge);
        let tools: Vec<String> =
            (0..=MOST_ELEMENTS).map(|number| format!(r#"{{"name":"t{number}"}}"#)).collect();
        let long = format!(r#"{{"tools":[{}]}}"#, tools.join(","));
        assert_eq!(take(&mut catalogues, None, &long).unwrap().unwrap_err(), Fault::TooLarge);
        assert_eq!(
            take(&mut catalogues, None, r#"{"prompts":[]}"#).unwrap().unwrap_err(),
            Fault::Answer
        );
        assert!(catalogues.begun.is_empty() && catalogues.whole.is_empty());
    }

    #[test]
    fn what_is_kept_of_all_lists_is_bounded() {
        let mut catalogues = Catalogues::default();
        for number in 0..100_u64 {
            let key = CatalogueKey {
                server: number.to_string().into(),
                kind: Kind::Tools,
                hops: "".into(),
                access: Rc::new([]),
                offer: Offer::default(),
            };
            let until = Timestamp(Duration::from_secs(number));
            catalogues.keep(&key, Catalogue { elements: Vec::new(), until, bytes: MOST_BYTES / 4 });
            assert!(catalogues.bytes <= MOST_BYTES);
        }
        assert_eq!(catalogues.whole.len(), 4);
        catalogues.forget("99");
        assert_eq!((catalogues.whole.len(), catalogues.bytes), (3, MOST_BYTES / 4 * 3));
    }
}
