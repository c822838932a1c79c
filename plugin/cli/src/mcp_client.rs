//! The tools of a live server: its tools/list over Streamable HTTP, in sessions or as of 2026-07-28.
//!
//! Everything is bounded: time, bytes, pages. A redirect is not followed, since a credential would go
//! along. Not here: what tools mean (`schema`).

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use toolgate_core::Secret;
use toolgate_protocol::sse::EventSplitter;
use ureq::http::Response;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body};

/// Longest time for one request and its answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Largest answer, in bytes.
const MOST_BYTES: u64 = 16 << 20;

/// Most pages of a list.
const MOST_PAGES: usize = 100;

/// The revisions that are spoken: the older one opens a session, the newer one knows none.
const LEGACY: &str = "2025-11-25";
const MODERN: &str = "2026-07-28";

/// A header that goes with every request.
pub(crate) struct Header {
    pub(crate) name: String,
    pub(crate) value: Secret,
}

/// The elements of `tools/list` of the server at `url`, all pages.
///
/// # Errors
/// What went wrong, without the values of `headers`.
pub(crate) fn tools(url: &str, headers: &[Header]) -> Result<Vec<Value>, String> {
    let mut client = Client::new(url, headers);
    match client.open() {
        Ok(()) => {}
        // A server that has no sessions, or no older revision, says so in many ways.
        Err(error) => {
            client.revision = MODERN;
            client.session = None;
            let tools = client.list();
            return tools
                .map_err(|modern| format!("as of {LEGACY}: {error}; as of {MODERN}: {modern}"));
        }
    }
    let tools = client.list();
    client.close();
    tools
}

struct Client<'a> {
    agent: Agent,
    url: &'a str,
    headers: &'a [Header],
    revision: &'static str,
    session: Option<String>,
    count: u64,
}

impl<'a> Client<'a> {
    fn new(url: &'a str, headers: &'a [Header]) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = TlsConfig::builder()
            .root_certs(system_roots())
            .unversioned_rustls_crypto_provider(provider)
            .build();
        let agent = Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .tls_config(tls)
            .build()
            .new_agent();
        Self { agent, url, headers, revision: LEGACY, session: None, count: 0 }
    }

    /// Opens a session.
    fn open(&mut self) -> Result<(), String> {
        let params = json!({
            "protocolVersion": LEGACY,
            "capabilities": {},
            "clientInfo": client_info(),
        });
        let mut response = self.post("initialize", Some(params))?;
        let session = response.headers().get("mcp-session-id");
        let session = session.and_then(|id| id.to_str().ok()).map(str::to_owned);
        self.result(&mut response)?;
        self.session = session;
        self.post("notifications/initialized", None)?;
        Ok(())
    }

    /// All pages of the list.
    fn list(&mut self) -> Result<Vec<Value>, String> {
        let mut tools = Vec::new();
        let mut cursor: Option<Value> = None;
        for _ in 0..MOST_PAGES {
            let mut params = Map::new();
            if let Some(cursor) = cursor {
                params.insert("cursor".to_owned(), cursor);
            }
            if self.revision == MODERN {
                let meta = json!({
                    "io.modelcontextprotocol/protocolVersion": MODERN,
                    "io.modelcontextprotocol/clientCapabilities": {},
                    "io.modelcontextprotocol/clientInfo": client_info(),
                });
                params.insert("_meta".to_owned(), meta);
            }
            let mut response = self.post("tools/list", Some(params.into()))?;
            let mut result = self.result(&mut response)?;
            match result.get_mut("tools").map(Value::take) {
                Some(Value::Array(page)) => tools.extend(page),
                _ => return Err("the answer to tools/list has no tools".to_owned()),
            }
            match result.get_mut("nextCursor").map(Value::take) {
                None | Some(Value::Null) => return Ok(tools),
                next => cursor = next,
            }
        }
        Err(format!("its list of tools has more than {MOST_PAGES} pages"))
    }

    /// Ends the session; whether it worked does not matter to the list.
    fn close(&self) {
        if let Some(session) = &self.session {
            let mut request = self.agent.delete(self.url).header("mcp-session-id", session);
            for header in self.headers {
                request = request.header(&header.name, header.value.expose());
            }
            drop(request.header("mcp-protocol-version", self.revision).call());
        }
    }

    /// Sends a request, or a notification when there are no `params`.
    fn post(&mut self, method: &str, params: Option<Value>) -> Result<Response<Body>, String> {
        let mut message = json!({"jsonrpc": "2.0", "method": method});
        if let (Some(params), Some(message)) = (params, message.as_object_mut()) {
            self.count += 1;
            message.insert("id".to_owned(), self.count.into());
            message.insert("params".to_owned(), params);
        }
        let mut request = self
            .agent
            .post(self.url)
            .header("accept", "application/json, text/event-stream")
            .header("content-type", "application/json");
        if method != "initialize" {
            request = request.header("mcp-protocol-version", self.revision);
        }
        if self.revision == MODERN {
            request = request.header("mcp-method", method);
        }
        if let Some(session) = &self.session {
            request = request.header("mcp-session-id", session);
        }
        for header in self.headers {
            request = request.header(&header.name, header.value.expose());
        }
        let response =
            request.send(message.to_string()).map_err(|error| format!("{method}: {error}"))?;
        let status = response.status();
        if status.is_success() {
            Ok(response)
        } else {
            Err(format!("{method}: HTTP status {status}"))
        }
    }

    /// The result of the last request, from JSON or from an event stream.
    fn result(&self, response: &mut Response<Body>) -> Result<Value, String> {
        let is_stream = response.body().mime_type() == Some("text/event-stream");
        let mut reader = response.body_mut().with_config().limit(MOST_BYTES).reader();
        let message = if is_stream {
            self.answer_in_stream(&mut reader)?
        } else {
            serde_json::from_reader(&mut reader).map_err(|error| format!("no JSON: {error}"))?
        };
        if let Some(error) = message.get("error") {
            let text = error.get("message").and_then(Value::as_str).unwrap_or_default();
            return Err(format!("the server answers with an error: {text}"));
        }
        let is_answer = message.get("id").and_then(Value::as_u64) == Some(self.count);
        match message {
            Value::Object(mut members) if is_answer => {
                members.remove("result").ok_or_else(|| "the answer has no result".to_owned())
            }
            _ => Err("what it answers is no answer to the request".to_owned()),
        }
    }

    /// The answer in a stream, which may go on after it.
    fn answer_in_stream(&self, reader: &mut impl Read) -> Result<Value, String> {
        let mut splitter = EventSplitter::new(usize::try_from(MOST_BYTES).unwrap_or(usize::MAX));
        let mut chunk = [0; 8192];
        loop {
            let length = reader.read(&mut chunk).map_err(|error| error.to_string())?;
            let read = chunk.get(..length).filter(|read| !read.is_empty());
            let read = read.ok_or("the stream ended without an answer")?;
            let mut answer = None;
            let pushed = splitter.push(read, |event| {
                let message = event.data().and_then(|data| serde_json::from_slice(&data).ok());
                let is_answer = |message: &Value| {
                    message.get("method").is_none()
                        && message.get("id").and_then(Value::as_u64) == Some(self.count)
                };
                answer = answer.take().or(message.filter(is_answer));
            });
            pushed.map_err(|error| error.to_string())?;
            if let Some(answer) = answer {
                return Ok(answer);
            }
        }
    }
}

fn client_info() -> Value {
    json!({"name": "toolgate", "version": env!("CARGO_PKG_VERSION")})
}

/// The certificates that this machine trusts; `SSL_CERT_FILE` and `SSL_CERT_DIR` name others. Without
/// any, no server is believed.
fn system_roots() -> RootCerts {
    let found = rustls_native_certs::load_native_certs().certs;
    let certificates: Vec<Certificate<'static>> = found
        .iter()
        .map(|certificate| Certificate::from_der(certificate.as_ref()).to_owned())
        .collect();
    RootCerts::Specific(Arc::new(certificates))
}
