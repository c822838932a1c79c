//! Several servers behind one endpoint: `/mcp` for all, `/mcp/{portal}` for a selection.
//!
//! A call through a portal becomes the call that the server's own endpoint would have got, before
//! anything is decided: names are the server's own again (`request`), and what follows, policy above
//! all, does not know the difference. What goes back gets the portal's names (`response`). Lists are
//! the gateway's own answers, from what it remembers of each server (`catalogue`).

mod compile;
pub(crate) mod config;
mod edit;
mod naming;
mod portal;
mod request;
mod response;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

pub(crate) use portal::Portal;
pub(crate) use request::{Goal, resolve};
pub(crate) use response::{Exposure, ExposureFilter};

/// What the endpoint of all servers is called where portals have names.
const ROOT: &str = "/mcp";

/// All portals of a gateway.
pub(crate) struct Federation {
    root: Rc<Portal>,
    portals: BTreeMap<Rc<str>, Rc<Portal>>,
    /// How long a list waits for a server.
    pub(crate) timeout: Duration,
    /// How long lists are remembered whose server does not say.
    pub(crate) ttl: Duration,
    /// What this gateway is called among gateways.
    pub(crate) gateway: Rc<str>,
    /// How many gateways a request may have passed before.
    pub(crate) hops: usize,
}

impl Federation {
    /// The last parts of the paths of all portals; the root's is empty.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = &str> {
        std::iter::once("").chain(self.portals.keys().map(|name| &**name))
    }

    /// The portal at a path after `/mcp`: empty, or a name.
    pub(crate) fn portal(&self, name: &str) -> Option<&Rc<Portal>> {
        if name.is_empty() { Some(&self.root) } else { self.portals.get(name) }
    }
}
