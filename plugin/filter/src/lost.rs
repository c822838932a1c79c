//! Contexts that begin in the middle of an exchange, and what becomes of their exchanges: nothing.
//!
//! When any filter of a Kong worker traps, the context of every exchange under way is made anew, and
//! Kong goes on with callbacks whose beginning nobody remembers. Nothing is known of such a request, so
//! nothing of it passes: it is answered with 500, or its answer is blanked.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use toolgate_core::LocalReply;

use crate::abi::{self, Buffer, Map, Status};

/// What a client gets instead of an answer.
pub(crate) const INTERNAL_ERROR: &[u8] = br#"{"jsonrpc":"2.0","error":{"code":500,"message":"the gateway failed; its log says why","data":{"reason":"internal"}}}"#;

/// Header fields of a server's answer that say something about its body, or to whoever reads them.
const SPOKEN: &[&str] = &[
    "content-length",
    "content-encoding",
    "content-disposition",
    "etag",
    "last-modified",
    "link",
    "location",
    "mcp-session-id",
    "set-cookie",
    "www-authenticate",
];

/// How much of a lost exchange has been dealt with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Lost {
    /// Nothing yet.
    #[default]
    Found,
    /// The client was answered in place of the request; the answer passes.
    Replied,
    /// The answer's head was replaced; its body is to follow.
    HeadReplaced,
    /// The error is out; nothing follows.
    Ended,
}

/// Whether a context saw its request begin, and if not, what became of the exchange.
#[derive(Default)]
pub(crate) struct Beginning {
    seen: Cell<bool>,
    lost: Cell<Lost>,
}

thread_local! {
    /// Of the context that was made last.
    static NEWBORN: RefCell<Weak<Beginning>> = const { RefCell::new(Weak::new()) };
}

/// Answers the request at hand where its context was made just now for a call that nobody remembers.
///
/// Kong makes the context of a lost exchange right before its first callback. So the context that was made
/// last is the one of the request at hand, unless that has been made and answered before.
pub(crate) fn refuse_newborn() {
    let newborn = NEWBORN.with_borrow(Weak::upgrade);
    if let Some(newborn) = newborn.filter(|newborn| !newborn.was_seen()) {
        log::error!("a call was answered that a filter made before it failed");
        newborn.refuse();
    }
}

impl Beginning {
    /// Of a context that is made now.
    pub(crate) fn newborn() -> Rc<Self> {
        let newborn = Rc::new(Self::default());
        NEWBORN.set(Rc::downgrade(&newborn));
        newborn
    }

    /// The request begins.
    pub(crate) fn is_seen(&self) {
        self.seen.set(true);
    }

    /// Whether the context saw the request begin.
    pub(crate) fn was_seen(&self) -> bool {
        self.seen.get()
    }

    /// How much of the exchange has been dealt with, where it is lost.
    pub(crate) fn lost(&self) -> Lost {
        self.lost.get()
    }

    /// The request, or a call for it, comes: the client is answered, once.
    pub(crate) fn refuse(&self) {
        if self.lost() == Lost::Found {
            self.lost.set(Lost::Replied);
            reply();
        }
    }

    /// The answer's head comes.
    pub(crate) fn response_head(&self) {
        if self.lost() != Lost::Found {
            return;
        }
        self.lost.set(Lost::HeadReplaced);
        for name in SPOKEN {
            report(abi::remove_header(Map::Response, name));
        }
        report(abi::set_header(Map::Response, ":status", "500"));
        report(abi::set_header(Map::Response, "content-type", "application/json"));
    }

    /// A piece of the answer comes. Where the head is gone already, perhaps with a length, the piece
    /// becomes blanks: a client that was promised bytes would wait for them for ever.
    pub(crate) fn response_body(&self, size: usize) {
        let blanks = vec![b' '; size];
        let bytes: &[u8] = match self.lost() {
            Lost::Replied => return,
            Lost::HeadReplaced => INTERNAL_ERROR,
            Lost::Ended => b"",
            Lost::Found => &blanks,
        };
        if self.lost() == Lost::HeadReplaced {
            self.lost.set(Lost::Ended);
        }
        report(abi::replace_buffer(Buffer::ResponseBody, bytes));
    }
}

/// Answers with an internal error.
pub(crate) fn reply() {
    send_reply(&LocalReply {
        status: 500,
        headers: vec![("content-type", "application/json".into())],
        body: INTERNAL_ERROR.to_vec(),
    });
}

/// Answers the client.
pub(crate) fn send_reply(reply: &LocalReply) {
    if let Err(Status(status)) = abi::reply(reply.status, &reply.headers, &reply.body) {
        log::error!("an answer could not be sent: status {status}");
    }
}

fn report(result: Result<(), Status>) {
    match result {
        Ok(()) | Err(Status::NOT_FOUND) => {}
        Err(Status(status)) => log::error!("a lost answer could not be edited: status {status}"),
    }
}
