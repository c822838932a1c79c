//! What a request becomes on its way to a server: only headers that are on a list go on, and the
//! body is the parsed message, serialised again.

use std::rc::Rc;

use toolgate_protocol::headers::{Headers, encode_mirrored};
use toolgate_protocol::mcp::{Era, mirrored_name};

use crate::credentials::{Injected, Place, passthrough, with_parameter};
use crate::denial::{Denial, Reason};
use crate::event::{FieldValue, HeadEdit, UpstreamRequest};
use crate::gateway::Server;
use crate::request::{Asked, HttpMethod};
use crate::secret::Secret;

/// Headers of the client that go on to every server. All others are taken out, the client's
/// `Authorization` and cookies among them, and whatever could steer the proxy itself.
pub(crate) const FORWARDED: &[&str] = &[
    "accept-language",
    "baggage",
    "forwarded",
    "last-event-id",
    "mcp-protocol-version",
    "mcp-session-id",
    "traceparent",
    "tracestate",
    "user-agent",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
];

/// Builds the request for `server`; `injected` are its credentials, in the order of its injections. `filters` when the answer may be edited.
///
/// # Errors
/// [`Denial`] when what the server takes cannot be attached.
pub(crate) fn request(
    server: &Server,
    asked: &Asked,
    filters: bool,
    injected: &[Injected],
) -> Result<UpstreamRequest, Denial> {
    let era = asked.era;
    let mut edit = HeadEdit { remove: removed(server, asked), set: Vec::new() };
    let mut set = |name: &str, value: String| {
        edit.set.push((name.to_owned(), FieldValue::Public(value)));
    };
    let is_post = asked.head.http_method == HttpMethod::Post;
    if server.normalize_accept {
        // Servers refuse requests that do not accept both, and not every client says so.
        let accept =
            if is_post { "application/json, text/event-stream" } else { "text/event-stream" };
        set("accept", accept.into());
    }
    if filters || !injected.is_empty() {
        // What may be edited, or holds a credential, must be readable.
        set("accept-encoding", "identity".into());
    }
    if is_post {
        set("content-type", "application/json".into());
        set("content-length", asked.body_length.to_string());
    }
    if let (Era::Modern, Some(message)) = (era, &asked.message) {
        // They were compared with the body; from here on they are made from it.
        if let Some(method) = message.method() {
            set("mcp-method", encode_mirrored(method));
        }
        if let Some(name) = mirrored_name(message) {
            set("mcp-name", encode_mirrored(name));
        }
    }
    if era == Era::Legacy
        && let Some(session) = &asked.head.server_session
        && asked.head.session.as_ref() != Some(session)
    {
        set("mcp-session-id", session.clone());
    }
    let mut query: Option<Secret> = None;
    for (injection, Injected { fetched, .. }) in server.credentials.iter().zip(injected) {
        let value = injection.format.filled(fetched).ok_or_else(|| {
            Denial::new(Reason::Internal, "a credential lacks a field that its format names")
        })?;
        match &injection.place {
            Place::Header(name) => {
                edit.set.push((name.clone(), FieldValue::Secret(Rc::new(value))));
            }
            Place::Query(name) => query = Some(with_parameter(query, name, &value)),
        }
    }
    if let Some(audience) = &server.passthrough {
        let token = passthrough::token(asked, audience)?;
        edit.set.push(("authorization".to_owned(), FieldValue::Secret(Rc::new(token))));
    }
    spare(&mut edit, &asked.head.headers);
    let path = match query {
        None => Rc::clone(&server.path),
        Some(query) => format!("{}?{}", server.path, query.expose()).into(),
    };
    Ok(UpstreamRequest {
        cluster: Rc::clone(&server.cluster),
        scheme: server.scheme,
        authority: Rc::clone(&server.authority),
        path,
        edit,
    })
}

/// Takes out of `edit` what `headers` make needless: each field is a call of the host.
fn spare(edit: &mut HeadEdit, headers: &Headers) {
    let HeadEdit { remove, set } = edit;
    set.retain(|(name, value)| {
        let mut arrived = headers.iter().filter(|(present, _)| present == name);
        let (Some((_, arrived)), None) = (arrived.next(), arrived.next()) else { return true };
        // To set a field that is there once replaces it; of more, some hosts replace only the first.
        remove.retain(|removed| removed != name);
        // What a secret is compared with takes a time that tells of it.
        !matches!(value, FieldValue::Public(value) if value.as_bytes() == arrived)
    });
}

fn removed(server: &Server, asked: &Asked) -> Vec<String> {
    let (headers, era) = (&asked.head.headers, asked.era);
    let goes_on = |name: &str| {
        name.starts_with(':')
            || name == "host"
            || FORWARDED.contains(&name)
            || server.forward_headers.iter().any(|forwarded| forwarded == name)
            || (name == "accept" && !server.normalize_accept)
            || (era == Era::Modern && name.starts_with("mcp-param-"))
    };
    let mut removed: Vec<String> = headers
        .iter()
        .map(|(name, _)| name)
        .filter(|name| !goes_on(name))
        .map(Into::into)
        .collect();
    if era == Era::Modern {
        // Sessions and resumption do not exist in this era.
        removed.extend(["mcp-session-id".to_owned(), "last-event-id".to_owned()]);
    }
    if asked.head.portal.is_some() {
        // The portal's sessions are not the server's, and what one server sent is not another's.
        removed.extend(["mcp-session-id".to_owned(), "last-event-id".to_owned()]);
    }
    removed.sort_unstable();
    removed.dedup();
    removed
}
