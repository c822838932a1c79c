//! What goes in and comes out of an exchange: the types a test reads and writes.
//!
//! Plain data, no behaviour of any proxy.

use std::collections::BTreeMap;
use std::time::Duration;

/// A header map: ordered, may repeat names, looks names up without case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, Vec<u8>)>);

impl Headers {
    /// No headers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The first value of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The first value of that name, when it is UTF-8.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// Adds a line; others of that name stay.
    pub fn add(&mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) {
        self.0.push((name.into(), value.into()));
    }

    /// Replaces every line of that name with one, in the place of the first.
    pub fn set(&mut self, name: &str, value: impl Into<Vec<u8>>) {
        let value = value.into();
        let mut kept = false;
        self.0.retain_mut(|(known, old)| {
            if !known.eq_ignore_ascii_case(name) {
                return true;
            }
            if kept {
                return false;
            }
            kept = true;
            old.clone_from(&value);
            true
        });
        if !kept {
            self.add(name, value);
        }
    }

    /// Removes every line of that name.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
    }

    /// Every line in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// The number of lines.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no line.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `content-length`, when it is a number.
    #[must_use]
    pub fn content_length(&self) -> Option<usize> {
        self.text("content-length")?.trim().parse().ok()
    }

    pub(crate) fn lowercase_names(mut self) -> Self {
        for (name, _) in &mut self.0 {
            name.make_ascii_lowercase();
        }
        self
    }

    /// The count that callbacks announce.
    pub(crate) fn count(&self) -> i32 {
        i32::try_from(self.len()).unwrap_or(i32::MAX)
    }
}

impl<N: Into<String>, V: Into<Vec<u8>>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(lines: I) -> Self {
        Self(lines.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl<N: Into<String>, V: Into<Vec<u8>>, const COUNT: usize> From<[(N, V); COUNT]> for Headers {
    fn from(lines: [(N, V); COUNT]) -> Self {
        lines.into_iter().collect()
    }
}

/// One exchange of one host; also the id of its context in the filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExchangeId(pub(crate) u32);

/// A request as the client sends it.
#[derive(Clone, Debug, Default)]
pub struct HttpRequest {
    /// Pseudo-headers (`:method`, `:path`, `:authority`, `:scheme`) first. On Kong `:authority` becomes the
    /// `host` header, as nginx reads it.
    pub headers: Headers,
    /// The body as it arrives on the wire; no chunks is no body.
    pub body: Vec<Vec<u8>>,
    /// Trailers, which come instead of an end-of-stream flag.
    pub trailers: Option<Headers>,
    /// Who asks.
    pub client: Client,
}

impl HttpRequest {
    /// A request with the four pseudo-headers and no body.
    #[must_use]
    pub fn new(method: &str, path: &str) -> Self {
        let headers = Headers::from([
            (":authority", "gateway.example"),
            (":path", path),
            (":method", method),
            (":scheme", "https"),
        ]);
        Self { headers, ..Self::default() }
    }

    /// With another header line.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.add(name, value);
        self
    }

    /// With these body chunks (and no `content-length` unless one is added).
    #[must_use]
    pub fn chunks<C: Into<Vec<u8>>>(mut self, chunks: impl IntoIterator<Item = C>) -> Self {
        self.body = chunks.into_iter().map(Into::into).collect();
        self
    }

    /// With a body in one chunk and its `content-length`.
    #[must_use]
    pub fn body(self, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        self.header("content-length", body.len().to_string()).chunks([body])
    }

    /// With trailers.
    #[must_use]
    pub fn trailers(mut self, trailers: impl Into<Headers>) -> Self {
        self.trailers = Some(trailers.into());
        self
    }
}

/// The connection a request came on.
#[derive(Clone, Debug)]
pub struct Client {
    /// IP address.
    pub address: String,
    /// Port.
    pub port: u16,
    /// `HTTP/1.1` or `HTTP/2`.
    pub protocol: String,
    /// Present on a TLS connection.
    pub tls: Option<ClientTls>,
}

impl Default for Client {
    fn default() -> Self {
        Self {
            address: "192.0.2.10".to_owned(),
            port: 40_000,
            protocol: "HTTP/1.1".to_owned(),
            tls: None,
        }
    }
}

/// The TLS side of a client connection.
#[derive(Clone, Debug, Default)]
pub struct ClientTls {
    /// Server name the client asked for.
    pub server_name: String,
    /// The verified client certificate, if one was presented.
    pub certificate: Option<ClientCertificate>,
}

/// A verified client certificate.
#[derive(Clone, Debug, Default)]
pub struct ClientCertificate {
    /// Subject.
    pub subject: String,
    /// First URI subject alternative name, e.g. a SPIFFE id.
    pub uri_san: String,
    /// First DNS subject alternative name.
    pub dns_san: String,
}

/// A call that the filter dispatched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingCall {
    /// Answer it with [`super::Host::answer_call`].
    pub token: u32,
    /// The exchange whose context dispatched it; `None` for a root context.
    pub exchange: Option<ExchangeId>,
    /// Envoy: cluster name. Kong: `host[:port]`.
    pub cluster: String,
    /// As dispatched, plus the `content-length` the proxy adds.
    pub headers: Headers,
    /// Body.
    pub body: Vec<u8>,
    /// Trailers; Kong drops them.
    pub trailers: Headers,
    /// The filter's limit; `None` is none.
    pub timeout: Option<Duration>,
}

/// How a call ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// The server answered.
    Response {
        /// With `:status`.
        headers: Headers,
        /// Whole body.
        body: Vec<u8>,
    },
    /// The stream broke: no headers, no body on either proxy.
    Failed,
    /// No connection. Envoy's router answers 503 to the filter, Kong fails the call.
    Unreachable,
    /// The filter's timeout passed. Envoy's router answers 504 to the filter, Kong fails the call.
    TimedOut,
    /// The name does not resolve. Envoy's router answers 503 to the filter, Kong fails the call.
    Unresolved,
}

impl CallOutcome {
    /// A response with that status, a JSON content type and body.
    #[must_use]
    pub fn json(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let headers = Headers::from([
            (":status", status.to_string()),
            ("content-type", "application/json".to_owned()),
        ]);
        Self::Response { headers, body: body.into() }
    }
}

/// What the proxy sends to where the filter decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamRequest {
    /// With pseudo-headers. Envoy's route table reads these.
    pub headers: Headers,
    /// What was forwarded so far.
    pub body: Vec<u8>,
    /// Trailers, which Kong never forwards.
    pub trailers: Option<Headers>,
    /// Kong only: `kong.service.target`; `None` is the service's own black hole.
    pub target: Option<String>,
    /// Kong only: where nginx connects to; `None` is the service's own black hole.
    pub address: Option<String>,
    /// Kong only: `kong.service.request.scheme`.
    pub scheme: Option<String>,
    /// Whether the whole request was forwarded.
    pub complete: bool,
}

/// What an exchange needs next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The filter dispatched a call. The client's next chunks arrive while it is under way: step again to let
    /// them, or answer at once.
    Call(PendingCall),
    /// The filter holds the request or the response; this many calls are unanswered. With 0, nothing but a tick
    /// can free it: the client hangs.
    Held {
        /// Unanswered calls of this exchange.
        calls: usize,
    },
    /// The whole request goes upstream.
    Upstream(UpstreamRequest),
    /// The upstream has the request; its answer is fed with `upstream_response_head` and so on.
    AwaitUpstream,
    /// Over.
    Done,
}

/// A piece of the response body, as the client received it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientChunk {
    /// [`super::Host::moment`] when it arrived: chunks of one moment came out of one input.
    pub moment: u64,
    /// The bytes; never empty.
    pub bytes: Vec<u8>,
}

/// A local reply, by the filter or by the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalReply {
    /// Status before the response callbacks saw it.
    pub status: u16,
    /// Envoy's response code details.
    pub details: String,
    /// Whether the filter sent it (`false`: the proxy).
    pub by_filter: bool,
}

/// What became of an exchange.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Status the client got; `None`: no response head was sent.
    pub status: Option<u16>,
    /// Response headers without `:status`.
    pub headers: Headers,
    /// Body chunks in order.
    pub chunks: Vec<ClientChunk>,
    /// What reached the upstream, even if only a part.
    pub upstream: Option<UpstreamRequest>,
    /// Properties set by the filter, for the access log. Envoy: `wasm.<path>`; Kong: the dotted path.
    pub properties: BTreeMap<String, Vec<u8>>,
    /// The first local reply.
    pub local_reply: Option<LocalReply>,
    /// The client got the end of the response.
    pub complete: bool,
    /// The connection was cut: after the head by the proxy, or by the worker's end.
    pub reset: bool,
    /// The client waits for bytes that `content-length` promises and nobody sends.
    pub hangs: bool,
    /// The client went away first.
    pub aborted: bool,
    /// A callback of this exchange trapped.
    pub trapped: bool,
    /// Every callback with its numeric arguments, e.g. `on_request_headers(4, 1)`.
    pub callbacks: Vec<String>,
}

impl Observed {
    /// The whole response body.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        self.chunks.iter().flat_map(|chunk| chunk.bytes.iter().copied()).collect()
    }

    /// The whole response body, with replacement characters where it is not UTF-8.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body()).into_owned()
    }
}

/// Severity, as the ABI numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// 0
    Trace,
    /// 1
    Debug,
    /// 2
    Info,
    /// 3
    Warn,
    /// 4
    Error,
    /// 5
    Critical,
}

impl LogLevel {
    pub(crate) fn from_abi(level: i32) -> Option<Self> {
        Some(match level {
            0 => Self::Trace,
            1 => Self::Debug,
            2 => Self::Info,
            3 => Self::Warn,
            4 => Self::Error,
            5 => Self::Critical,
            _ => return None,
        })
    }
}

/// A line in the proxy's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Severity.
    pub level: LogLevel,
    /// Written by the filter (`false`: by the proxy).
    pub by_filter: bool,
    /// Text.
    pub text: String,
}
