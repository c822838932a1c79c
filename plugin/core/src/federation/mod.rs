//! Several servers behind one endpoint: `/mcp` for all, `/mcp/{portal}` for a selection.
//!
//! A call through a portal becomes the call that the server's own endpoint would have got, before
//! anything is decided: names are the server's own again (`request`), and what follows, policy above
//! all, does not know the difference. What goes back gets the portal's names (`response`). Lists are
//! the gateway's own answers, from what it remembers of each server (`catalogue`).

mod answer;
mod bridge;
mod catalogue;
mod compile;
pub(crate) mod config;
mod edit;
mod endpoint;
mod levels;
mod lists;
mod naming;
mod peers;
mod portal;
mod portal_session;
mod request;
mod response;
mod rounds;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use crate::denial::{Denial, Reason};

pub(crate) use answer::Fault;
pub(crate) use bridge::Rekeyed;
pub(crate) use catalogue::{Catalogue, CatalogueKey, Catalogues, MOST_PAGES};
pub(crate) use endpoint::lacks_tasks;
pub(crate) use levels::{EMPTY as NO_LEVELS, SLOTS as LEVEL_SLOTS, SessionLevel};
pub(crate) use peers::{Access, Peers, Session, SessionKey};
pub(crate) use portal::Portal;
pub(crate) use portal_session::PortalSession;
pub(crate) use request::{Goal, Resumption, asked_in, rename, resolve};
pub(crate) use response::{Exposure, ExposureFilter};
pub(crate) use rounds::{Claims, GivenAnswer};

/// What the endpoint of all servers is called where portals have names.
const ROOT: &str = "/mcp";

/// Header field that names the gateways a request has passed, so that none sees it twice.
pub(crate) const HOPS: &str = "x-toolgate-hops";

/// `_meta` member of a modern result that says who answers.
const META_SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";

/// What a caller is told of a server that cannot be asked.
pub(crate) fn unavailable(fault: Fault) -> Denial {
    let (reason, message) = match fault {
        Fault::Credential => (
            Reason::Credential,
            "the credential for this server is not available at the moment; try again later",
        ),
        Fault::Unauthorized => (
            Reason::ServerUnauthorized,
            "the server did not accept the credential that the gateway holds for it",
        ),
        Fault::Unreachable => {
            (Reason::ServerUnreachable, "the server cannot be reached; try again later")
        }
        Fault::TooLarge => {
            (Reason::ServerTooLarge, "the server's answer is larger than the gateway accepts")
        }
        Fault::Forgotten => (
            Reason::ServerUnreachable,
            "the server does not wait for this answer any more; make the call anew, without requestState",
        ),
        Fault::Answer | Fault::Error | Fault::Version => {
            (Reason::ServerAnswer, "the server answered with something that the gateway cannot use")
        }
    };
    Denial::new(reason, message)
}

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

    /// The tools that portals name one by one: the server and the tool's own name.
    pub(crate) fn tools(&self) -> impl Iterator<Item = (&str, &str)> {
        let portals = std::iter::once(&self.root).chain(self.portals.values());
        portals.flat_map(|portal| &portal.members).flat_map(|member| {
            member.tools.entries.keys().map(|own| (&*member.server, own.as_str()))
        })
    }

    /// The portal at a path after `/mcp`: empty, or a name.
    pub(crate) fn portal(&self, name: &str) -> Option<&Rc<Portal>> {
        if name.is_empty() { Some(&self.root) } else { self.portals.get(name) }
    }
}
