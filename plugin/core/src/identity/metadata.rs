//! Protected resource metadata (RFC 9728): by what a client that knows only a URL finds out where to
//! log in and what for.
//!
//! Each MCP endpoint is a protected resource of its own, with its document where section 3.1 has it:
//! the well-known path put between host and path. The document at the root describes the gateway as a
//! whole. All of it is public: names of servers are no secret once `public_url` is set.

use toolgate_policy::Problem;
use toolgate_protocol::headers::Headers;
use toolgate_protocol::json::{Json, Object};

use super::dpop;
use crate::denial::LocalReply;

/// Where documents are (RFC 9728 section 3).
const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// Where MCP endpoints are, under the public URL.
const ENDPOINTS: &str = "/mcp";

/// Seconds for which a document may be remembered.
pub(super) const CACHE: &str = "max-age=300";

/// How clients reach the gateway.
pub(super) struct PublicUrl {
    /// Scheme, host and port.
    origin: String,
    /// What comes before the gateway's own paths; usually nothing.
    prefix: String,
}

/// One protected resource.
pub(super) struct Endpoint<'a> {
    public: &'a PublicUrl,
    /// Its path under the public URL; none for the gateway as a whole.
    path: String,
}

/// What a request for metadata asks for.
pub(crate) enum Asked {
    /// A document.
    Document {
        /// The server's name; none for the gateway as a whole.
        server: Option<String>,
        /// Whether the path ends in a slash, which then is part of the resource's identifier.
        slash: bool,
        /// Whether only the header fields are wanted.
        head: bool,
    },
    /// What a page may do.
    Preflight,
    /// A method that documents do not have.
    OtherMethod,
}

impl PublicUrl {
    /// Reads the configured URL.
    pub(super) fn compile(url: &str, problems: &mut Vec<Problem>) -> Option<Self> {
        let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        let (host, prefix) = match rest.map(|rest| rest.find('/').map(|at| rest.split_at(at))) {
            Some(Some((host, prefix))) => (host, prefix),
            Some(None) => (rest.unwrap_or_default(), ""),
            None => ("", ""),
        };
        let bare = host.rsplit_once(':').map_or(host, |(bare, _)| bare);
        let is_local = matches!(bare, "localhost" | "127.0.0.1" | "[::1]");
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
        let message = if !crate::cors::is_origin(&format!("https://{host}")) {
            "is not a URL with scheme and host in lower case"
        } else if url.starts_with("http://") && !is_local {
            "is not protected by TLS: tokens would be sent in the clear"
        } else if prefix.ends_with('/')
            || !prefix.chars().all(|c| c == '/' || plain(c))
            || prefix.split('/').any(|part| part == "." || part == "..")
        {
            "has a path that is not usable"
        } else {
            let origin = url.get(..url.len() - prefix.len()).unwrap_or(url).to_owned();
            return Some(Self { origin, prefix: prefix.to_owned() });
        };
        problems.push(Problem {
            path: "identity.public_url".into(),
            message: format!("{url:?} {message}"),
            help: Some("for example \"https://mcp.example\", without a slash at the end".into()),
        });
        None
    }

    /// The resource that is the gateway as a whole.
    pub(super) fn gateway(&self) -> Endpoint<'_> {
        Endpoint { public: self, path: String::new() }
    }

    /// What comes before the gateway's own paths.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The URL of one of the gateway's own paths.
    pub(super) fn own(&self, path: &str) -> String {
        format!("{}{}{path}", self.origin, self.prefix)
    }

    /// The resource that is the endpoint of this server.
    pub(super) fn server(&self, name: &str, slash: bool) -> Endpoint<'_> {
        let end = if slash { "/" } else { "" };
        let separator = if name.is_empty() { "" } else { "/" };
        Endpoint { public: self, path: format!("{ENDPOINTS}{separator}{name}{end}") }
    }

    /// What a request asks for, when it is one for metadata.
    pub(super) fn asked(&self, headers: &Headers) -> Option<Asked> {
        let path = headers.single(":path").ok()??;
        let path = path.split_once('?').map_or(path, |(path, _)| path);
        let method = headers.single(":method").ok()??;
        let rest = path.strip_prefix(WELL_KNOWN)?;
        let (server, slash) = match rest {
            "" | "/" => (None, false),
            _ => {
                let path = rest.strip_prefix(&*self.prefix)?;
                let path = path.strip_prefix(ENDPOINTS)?;
                let bare = path.strip_suffix('/').unwrap_or(path);
                let name = if bare.is_empty() { bare } else { bare.strip_prefix('/')? };
                (Some(name.to_owned()), bare != path)
            }
        };
        Some(match method {
            "GET" => Asked::Document { server, slash, head: false },
            "HEAD" => Asked::Document { server, slash, head: true },
            "OPTIONS" => Asked::Preflight,
            _ => Asked::OtherMethod,
        })
    }
}

impl Endpoint<'_> {
    /// Its identifier: the URL that clients know it by (RFC 9728 section 3.3: exactly this).
    pub(super) fn resource(&self) -> String {
        let PublicUrl { origin, prefix } = self.public;
        format!("{origin}{prefix}{}", self.path)
    }

    /// Where its document is.
    pub(super) fn metadata_url(&self) -> String {
        let PublicUrl { origin, prefix } = self.public;
        if self.path.is_empty() {
            return format!("{origin}{WELL_KNOWN}");
        }
        format!("{origin}{WELL_KNOWN}{prefix}{}", self.path)
    }

    /// Its document (RFC 9728 section 2).
    pub(super) fn document(
        &self,
        authorization_servers: &[String],
        scopes: &[String],
        head: bool,
    ) -> LocalReply {
        let list =
            |texts: &[String]| Json::Array(texts.iter().map(|t| t.as_str().into()).collect());
        let mut document = Object::default();
        document.set("resource", self.resource().as_str().into());
        document.set("authorization_servers", list(authorization_servers));
        if !scopes.is_empty() {
            document.set("scopes_supported", list(scopes));
        }
        document.set("bearer_methods_supported", Json::Array(vec!["header".into()]));
        let algorithms = dpop::ALGORITHMS.iter().map(|name| (*name).into()).collect();
        document.set("dpop_signing_alg_values_supported", Json::Array(algorithms));
        let body = if head { Vec::new() } else { Json::Object(document).to_bytes() };
        let headers = vec![
            ("content-type", "application/json".to_owned()),
            ("cache-control", CACHE.to_owned()),
            ("access-control-allow-origin", "*".to_owned()),
        ];
        LocalReply { status: 200, headers, body }
    }
}

/// The answer to a page that asks whether it may read a document: every page may.
pub(super) fn preflight() -> LocalReply {
    let headers = vec![
        ("access-control-allow-origin", "*".to_owned()),
        ("access-control-allow-methods", "GET, HEAD, OPTIONS".to_owned()),
        ("access-control-allow-headers", "mcp-protocol-version".to_owned()),
        ("access-control-max-age", "600".to_owned()),
    ];
    LocalReply { status: 204, headers, body: Vec::new() }
}
