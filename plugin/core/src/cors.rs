//! Web pages: which may call, and what their browsers have to be told (Fetch standard, CORS).
//!
//! A browser says where a page comes from in `Origin`. A page of an origin that is not configured is
//! refused, which also stops DNS rebinding: the page of a foreign name keeps its own origin. Clients
//! that are no browsers send no `Origin` (2025-11-25, "Security warning" of Streamable HTTP).

use toolgate_protocol::headers::Headers;

use crate::denial::{Denial, LocalReply, Reason};
use crate::event::{FieldValue, HeadEdit};

/// Header fields that MCP clients in browsers send.
const ALLOWED_HEADERS: &str = "authorization, dpop, toolgate-approval, content-type, accept, \
    mcp-protocol-version, mcp-session-id, mcp-method, mcp-name, last-event-id, traceparent, tracestate, baggage";

/// Header fields of answers that they read.
const EXPOSED_HEADERS: &str = "mcp-session-id, mcp-protocol-version, www-authenticate";

/// Seconds for which a browser remembers a preflight.
const PREFLIGHT_SECONDS: &str = "600";

/// The origin of the page that asks; `None` when no page asks.
///
/// # Errors
/// A 403 [`Denial`] for an origin that is not among `allowed`.
pub(crate) fn origin(headers: &Headers, allowed: &[String]) -> Result<Option<String>, Denial> {
    match headers.single("origin")? {
        None => Ok(None),
        Some(origin) if allowed.iter().any(|allowed| allowed == origin) => {
            Ok(Some(origin.to_owned()))
        }
        Some(_) => {
            Err(Denial::new(Reason::Origin, "pages of this origin may not call the gateway"))
        }
    }
}

/// The answer to a preflight request; `None` when it is none.
pub(crate) fn preflight(headers: &Headers, origin: &str) -> Option<LocalReply> {
    let asks = headers.contains("access-control-request-method");
    if !asks || headers.single(":method") != Ok(Some("OPTIONS")) {
        return None;
    }
    let mut allowed = ALLOWED_HEADERS.to_owned();
    // Parameters that tools mirror have names of their own: those that are asked for are allowed.
    let requested = headers.single("access-control-request-headers").ok().flatten();
    for name in requested.unwrap_or_default().split(',').map(str::trim) {
        if name.to_ascii_lowercase().starts_with("mcp-param-") && is_token(name) {
            allowed.push_str(", ");
            allowed.push_str(name);
        }
    }
    let mut headers = fields(origin);
    headers.extend([
        ("access-control-allow-methods", "GET, POST, DELETE, OPTIONS".to_owned()),
        ("access-control-allow-headers", allowed),
        ("access-control-max-age", PREFLIGHT_SECONDS.to_owned()),
    ]);
    Some(LocalReply { status: 204, headers, body: Vec::new() })
}

/// The answer to an `OPTIONS` request that no page sent (RFC 9110 section 9.3.7); `None` for others.
pub(crate) fn options(headers: &Headers) -> Option<LocalReply> {
    let is_options = headers.single(":method") == Ok(Some("OPTIONS"));
    let headers = vec![("allow", "GET, POST, DELETE, OPTIONS".to_owned())];
    is_options.then_some(LocalReply { status: 204, headers, body: Vec::new() })
}

/// What every answer to a page of `origin` says.
pub(crate) fn fields(origin: &str) -> Vec<(&'static str, String)> {
    vec![
        ("access-control-allow-origin", origin.to_owned()),
        ("access-control-expose-headers", EXPOSED_HEADERS.to_owned()),
        ("vary", "origin".to_owned()),
    ]
}

/// Says in a server's answer what the gateway allows, in place of what the server would.
pub(crate) fn edit(origin: &str, edit: &mut HeadEdit) {
    let set = fields(origin).into_iter().map(|(n, v)| (n.to_owned(), FieldValue::Public(v)));
    edit.set.extend(set);
}

/// Whether this is the origin of a web page: scheme, host and port, nothing more (RFC 6454).
pub(crate) fn is_origin(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._:[]".contains(c);
    rest.is_some_and(|host| !host.is_empty() && host.chars().all(plain))
}

fn is_token(name: &str) -> bool {
    name.len() <= 128
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}
