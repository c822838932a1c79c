//! What servers say of the software they are made of: nothing that a client needs, and a help to
//! whoever looks for a known hole.

use toolgate_protocol::headers::Headers;

use crate::event::HeadEdit;

/// Fields that name products or their versions. `Server` is RFC 9110 section 10.2.4, which warns of
/// detail; the others are what frameworks add by default.
const FIELDS: [&str; 5] =
    ["server", "x-powered-by", "x-aspnet-version", "x-aspnetmvc-version", "x-generator"];

/// Takes these fields out of an answer; one that has none of them is not touched.
pub(crate) fn remove(headers: &Headers, edit: &mut Option<HeadEdit>) {
    for field in FIELDS.into_iter().filter(|field| headers.contains(field)) {
        edit.get_or_insert_default().remove.push(field.into());
    }
}

/// Whether the answer came from a server, as far as the host says: Envoy's router adds this field to
/// what it forwards, and to nothing that it says itself. Other hosts do not say.
pub(crate) fn forwarded(headers: &Headers) -> bool {
    headers.contains("x-envoy-upstream-service-time")
}
