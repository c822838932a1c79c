//! Where an upstream is that the gateway calls itself: a vault, an authorization server.

use std::rc::Rc;
use std::time::Duration;

use crate::config::Scheme;
use crate::credentials::Echoes;
use crate::event::HttpCall;

/// An upstream that the gateway calls.
pub(crate) struct Endpoint {
    cluster: Rc<str>,
    scheme: Scheme,
    authority: Rc<str>,
    timeout: Duration,
}

impl Endpoint {
    /// The upstream that the host knows by this name; it is addressed by the same where no `authority` is
    /// given.
    pub(crate) fn new(
        cluster: String,
        scheme: Scheme,
        authority: Option<String>,
        timeout: Duration,
    ) -> Self {
        let cluster: Rc<str> = cluster.into();
        let authority = authority.map_or_else(|| Rc::clone(&cluster), Into::into);
        Self { cluster, scheme, authority, timeout }
    }

    /// A call without header fields of its own, whose answer is read up to so many bytes.
    pub(crate) fn call(&self, method: &'static str, path: String, most_bytes: usize) -> HttpCall {
        HttpCall {
            cluster: Rc::clone(&self.cluster),
            scheme: self.scheme,
            authority: Rc::clone(&self.authority),
            method,
            path,
            headers: Vec::new(),
            credentials: Vec::new(),
            body: None,
            timeout: self.timeout,
            most_bytes,
            echoes: Echoes::default(),
        }
    }

    /// The `Host` that it is addressed by.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }
}
