//! Contexts that begin in the middle of an exchange, and what becomes of their exchanges: nothing.
//!
//! When any filter of a Kong worker traps, the context of every exchange under way is made anew, and
//! Kong goes on with callbacks whose beginning nobody remembers. Nothing is known of such a request, so
//! nothing of it passes: it is answered with 500, or its answer is blanked.

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

impl Lost {
    /// The request, or a call for it, comes: the client is answered, once.
    pub(crate) fn refuse(&mut self) {
        if *self == Self::Found {
            *self = Self::Replied;
            reply();
        }
    }

    /// The answer's head comes.
    pub(crate) fn response_head(&mut self) {
        if *self != Self::Found {
            return;
        }
        *self = Self::HeadReplaced;
        for name in SPOKEN {
            report(abi::remove_header(Map::Response, name));
        }
        report(abi::set_header(Map::Response, ":status", "500"));
        report(abi::set_header(Map::Response, "content-type", "application/json"));
    }

    /// A piece of the answer comes. Where the head is gone already, perhaps with a length, the piece
    /// becomes blanks: a client that was promised bytes would wait for them for ever.
    pub(crate) fn response_body(&mut self, size: usize) {
        let blanks = vec![b' '; size];
        let bytes: &[u8] = match self {
            Self::Replied => return,
            Self::HeadReplaced => INTERNAL_ERROR,
            Self::Ended => b"",
            Self::Found => &blanks,
        };
        if *self == Self::HeadReplaced {
            *self = Self::Ended;
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
