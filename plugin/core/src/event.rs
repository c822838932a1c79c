//! The language between the gateway and a host: what happens to an exchange, and what to do about
//! it. Hosts translate; they decide nothing.

use std::rc::Rc;
use std::time::Duration;

use toolgate_protocol::headers::Headers;
use zeroize::Zeroize;

use crate::audit::AuditRecord;
use crate::calls::FinishedCall;
use crate::config::Scheme;
use crate::counting::{SharedAccess, SharedValue};
use crate::credentials::Echoes;
use crate::denial::LocalReply;
use crate::secret::Secret;

/// Time since the Unix epoch. The gateway has no clock: the host says what time it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub Duration);

impl Timestamp {
    /// Whole seconds since the epoch.
    #[must_use]
    pub fn seconds(self) -> u64 {
        self.0.as_secs()
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub fn milliseconds(self) -> i64 {
        i64::try_from(self.0.as_millis()).unwrap_or(i64::MAX)
    }

    /// This much later.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }

    /// How long ago `earlier` was; zero when the clock went back.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// What the host vouches for: facts that no client can write.
#[derive(Clone, Debug, Default)]
pub struct HostFacts {
    /// SHA-256 of the certificate that the client showed, in lower-case hexadecimal digits.
    pub certificate: Option<String>,
    /// Value of the property in which the host says who calls.
    pub caller: Option<Vec<u8>>,
}

/// Which facts a configuration needs of the host.
pub struct HostQuestions<'a> {
    /// Whether the client's certificate matters.
    pub certificate: bool,
    /// Path of the property in which the host says who calls.
    pub caller: Option<&'a [String]>,
}

/// What happens to an exchange.
pub enum Event<'a> {
    /// What the host vouches for. Comes before the header fields, where there is anything.
    HostFacts(HostFacts),
    /// The request's header fields. `end` when no body follows.
    RequestHead {
        /// The fields, pseudo-headers `:method` and `:path` among them.
        headers: Headers,
        /// Address the request came from, without port, where the host knows it.
        source: Option<String>,
        /// Whether there is no body.
        end: bool,
    },
    /// A piece of the request's body.
    RequestBody {
        /// The bytes.
        chunk: &'a [u8],
        /// Whether it is the last.
        end: bool,
    },
    /// The host has a body that it cannot show. A body like that is refused.
    RequestBodyWithheld {
        /// The host's setting that would let it, for whoever runs the host.
        setting: &'static str,
    },
    /// The request has trailers. MCP has no use for them, and a body that ends in them is refused.
    RequestTrailers,
    /// What lies in the slots of [`SharedAccess::Read`], in that order; none where the host cannot say.
    SharedRead(Vec<Option<SharedValue>>),
    /// Whether the write of [`SharedAccess::Write`] was done: not where another came first.
    SharedWritten(bool),
    /// A call that this exchange waits for is over.
    CallDone(&'a FinishedCall),
    /// The response's header fields.
    ResponseHead {
        /// The fields, pseudo-header `:status` among them.
        headers: Headers,
        /// Whether there is no body.
        end: bool,
    },
    /// A piece of the response's body.
    ResponseBody {
        /// The bytes.
        chunk: &'a [u8],
        /// Whether it is the last.
        end: bool,
    },
    /// Nothing more will happen. Every exchange ends with this, whatever came before.
    Closed,
}

/// What the host does next, in this order.
pub enum Effect {
    /// Send this request to an upstream, tell [`Gateway::finish_call`](crate::Gateway::finish_call)
    /// how it went, and report what that returns as [`Event::CallDone`].
    Call {
        /// Identifies the call within its gateway.
        id: CallId,
        /// The request.
        call: HttpCall,
    },
    /// Do this with the memory that workers share and say at once what came of it: the exchange waits,
    /// and its flow is the one of that event. No other effect comes with it.
    Shared(SharedAccess),
    /// Replace the whole body of the request, which is complete and held. Comes with the event that
    /// completed it, at the latest with [`Effect::SendUpstream`], since one host takes no body later.
    ReplaceRequestBody(Vec<u8>),
    /// Send the request on to a server. Ends the hold on the request.
    SendUpstream(UpstreamRequest),
    /// Answer the client; nothing goes upstream.
    Reply(LocalReply),
    /// Answer the client in place of a response that is held.
    Answer(ServerReply),
    /// Change the response's header fields before they go to the client.
    EditResponse(HeadEdit),
    /// Send these bytes instead of the piece of the response body that is at hand.
    ReplaceChunk(Vec<u8>),
    /// Write the record of the exchange. Exactly one for each exchange, when it closes.
    Audit(Box<AuditRecord>),
}

/// What happens to the bytes of the event that was just handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Flow {
    /// They go on.
    Forward,
    /// They wait.
    Hold,
}

/// Identifies a call within its gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId(pub u32);

/// A request that the gateway makes itself.
pub struct HttpCall {
    /// The host's name for the upstream.
    pub cluster: Rc<str>,
    /// How it is spoken to, where the host's name does not say it.
    pub scheme: Scheme,
    /// `Host` of the request.
    pub authority: Rc<str>,
    /// HTTP method.
    pub method: &'static str,
    /// Path, with query.
    pub path: String,
    /// Further header fields.
    pub headers: Vec<(&'static str, FieldValue)>,
    /// Header fields whose names the configuration or a client gives: those that carry credentials, and
    /// all of a client's request that is made again.
    pub credentials: Vec<(String, FieldValue)>,
    /// The body; it may hold a secret.
    pub body: Option<Secret>,
    /// How long to wait for the answer.
    pub timeout: Duration,
    /// Largest answer that is read, in bytes. A host need not hand over a larger one.
    pub most_bytes: usize,
    /// What the answer must not show of the credentials.
    pub(crate) echoes: Echoes,
}

/// How a call went.
pub enum CallOutcome {
    /// It was answered.
    Response {
        /// HTTP status.
        status: u16,
        /// The header fields.
        headers: Headers,
        /// The whole body.
        body: Vec<u8>,
    },
    /// It was answered with a body larger than [`HttpCall::most_bytes`].
    TooLarge,
    /// No answer: not reachable, broken off or too slow.
    Failed,
}

impl CallOutcome {
    /// Overwrites the body: it held a secret, and its memory will be used again.
    pub(crate) fn wipe(self) {
        if let Self::Response { mut body, .. } = self {
            body.zeroize();
        }
    }

    /// The outcome, without a body that is larger than this.
    pub(crate) fn bounded(self, most_bytes: usize) -> Self {
        match self {
            Self::Response { body, .. } if body.len() > most_bytes => Self::TooLarge,
            outcome => outcome,
        }
    }
}

/// An answer of a server, whole. It may hold what only the client is to know, so it cannot be printed.
pub struct ServerReply {
    /// HTTP status.
    pub status: u16,
    /// Header fields.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// Where a request goes and what it becomes on the way.
pub struct UpstreamRequest {
    /// The host's name for the upstream.
    pub cluster: Rc<str>,
    /// How it is spoken to, where the host's name does not say it.
    pub scheme: Scheme,
    /// `Host` of the request.
    pub authority: Rc<str>,
    /// Path, with query.
    pub path: Rc<str>,
    /// Changes to the other header fields.
    pub edit: HeadEdit,
}

/// Changes to header fields: removals first.
#[derive(Default)]
pub struct HeadEdit {
    /// Names of fields to take out.
    pub remove: Vec<String>,
    /// Fields to set, replacing what is there.
    pub set: Vec<(String, FieldValue)>,
}

/// The value of a header field; secret ones cannot be printed.
#[derive(Clone)]
pub enum FieldValue {
    /// Anybody may see it.
    Public(String),
    /// A credential.
    Secret(Rc<Secret>),
}

impl FieldValue {
    /// The value as it is sent.
    #[must_use]
    pub fn expose(&self) -> &str {
        match self {
            Self::Public(value) => value,
            Self::Secret(secret) => secret.expose(),
        }
    }
}
