//! A request through a portal, in the words of the server that it is for.
//!
//! Everything a client's message says in the portal's names becomes the server's own before policy is
//! asked: tool, prompt, URI, the object of a completion, task, and the id of a server's request that
//! is answered. Not here: whether the caller may.

use std::rc::Rc;

use toolgate_protocol::json::{Json, Object};
use toolgate_protocol::jsonrpc::{Id, Kind, Message};

use super::naming;
use super::portal::{Found, Named, Portal};

/// Whom a message through a portal is for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    /// This member of the portal; the message now speaks its language.
    Member(usize),
    /// This member; only its catalogue says what the name stands for there.
    Shortened(usize, Named, String),
    /// The portal itself.
    Portal,
    /// Nobody: the name leads nowhere. Says what it is a name of, and the name.
    Nobody(&'static str, String),
    /// Several members at once, for what only one can do.
    Several,
}

impl Goal {
    /// The server that a message is for; empty, which is no server's name, where it is for none.
    pub(crate) fn server(&self, portal: &Portal) -> Rc<str> {
        let member = match self {
            Self::Member(member) | Self::Shortened(member, ..) => portal.members.get(*member),
            Self::Portal | Self::Nobody(..) | Self::Several => None,
        };
        member.map_or_else(|| "".into(), |member| Rc::clone(&member.server))
    }
}

/// Finds out whom `message` is for and puts it into that server's words.
pub(crate) fn resolve(portal: &Portal, message: &mut Message) -> Goal {
    let method = match message.kind() {
        Kind::Request { method, .. } | Kind::Notification { method } => method.clone(),
        Kind::Response { .. } => return response(portal, message.body_mut()),
    };
    let params = message.body_mut().as_object_mut().and_then(|body| body.get_mut("params"));
    let Some(params) = params.and_then(Json::as_object_mut) else { return Goal::Portal };
    match method.as_str() {
        "tools/call" => named(portal, Named::Tool, params, "name"),
        "prompts/get" => named(portal, Named::Prompt, params, "name"),
        "resources/read" | "resources/subscribe" | "resources/unsubscribe" => {
            qualified(portal, params, "uri", "resource")
        }
        "tasks/get" | "tasks/result" | "tasks/update" | "tasks/cancel" => {
            qualified(portal, params, "taskId", "task")
        }
        "subscriptions/listen" => followed(portal, params),
        "completion/complete" => {
            let Some(reference) = params.get_mut("ref").and_then(Json::as_object_mut) else {
                return Goal::Portal;
            };
            match reference.get("type").and_then(Json::as_str) {
                Some("ref/prompt") => named(portal, Named::Prompt, reference, "name"),
                _ => qualified(portal, reference, "uri", "resource"),
            }
        }
        _ => Goal::Portal,
    }
}

/// A stream that follows resources and tasks, all of one server: what tells of others is another stream.
/// Changes of lists are not followed here, and are left out as the server would leave out what it has not.
fn followed(portal: &Portal, params: &mut Object) -> Goal {
    let Some(filter) = params.get_mut("notifications").and_then(Json::as_object_mut) else {
        return Goal::Portal;
    };
    let mut goal = Goal::Portal;
    for (key, what) in [("resourceSubscriptions", "resource"), ("taskIds", "task")] {
        let seen = filter.get_mut(key).and_then(Json::as_array_mut);
        for element in seen.into_iter().flatten() {
            let seen = element.as_str().unwrap_or_default();
            let found = match what {
                "resource" => portal.find_uri(seen).filter(|(member, _)| {
                    portal.members.get(*member).is_some_and(|member| member.resources)
                }),
                _ => portal.find_qualified(seen),
            };
            let Some((member, own)) = found else { return Goal::Nobody(what, seen.to_owned()) };
            if goal != Goal::Portal && goal != Goal::Member(member) {
                return Goal::Several;
            }
            goal = Goal::Member(member);
            *element = own.into();
        }
    }
    for key in ["toolsListChanged", "promptsListChanged", "resourcesListChanged"] {
        let _left_out = filter.remove(key);
    }
    goal
}

/// Puts the server's own name where a shortened one stands, once a catalogue has told it.
pub(crate) fn rename(message: &mut Message, own: &str) {
    let params = message.body_mut().as_object_mut().and_then(|body| body.get_mut("params"));
    let Some(params) = params.and_then(Json::as_object_mut) else { return };
    match params.get_mut("ref").and_then(Json::as_object_mut) {
        Some(reference) => reference.set("name", own.into()),
        None => params.set("name", own.into()),
    }
}

fn named(portal: &Portal, named: Named, object: &mut Object, key: &str) -> Goal {
    let what = match named {
        Named::Tool => "tool",
        Named::Prompt => "prompt",
    };
    let Some(exposed) = object.get(key).and_then(Json::as_str) else {
        return Goal::Nobody(what, String::new());
    };
    match portal.find(named, exposed) {
        Some(Found::Own(member, own)) => {
            object.set(key, own.into());
            Goal::Member(member)
        }
        Some(Found::Shortened(member)) => Goal::Shortened(member, named, exposed.to_owned()),
        None => Goal::Nobody(what, exposed.to_owned()),
    }
}

fn qualified(portal: &Portal, object: &mut Object, key: &str, what: &'static str) -> Goal {
    let seen = object.get(key).and_then(Json::as_str).unwrap_or_default();
    let found = match what {
        "resource" => portal.find_uri(seen),
        _ => portal.find_qualified(seen),
    };
    let Some((member, own)) = found else {
        return Goal::Nobody(what, seen.to_owned());
    };
    if what == "resource" && !portal.members.get(member).is_some_and(|member| member.resources) {
        return Goal::Nobody(what, seen.to_owned());
    }
    object.set(key, own.into());
    Goal::Member(member)
}

/// An answer to a request of a server: its id says whose, and of which type it was.
fn response(portal: &Portal, body: &mut Json) -> Goal {
    let seen = body.get("id").and_then(Json::as_str).unwrap_or_default().to_owned();
    let own = portal.find_qualified(&seen).and_then(|(member, own)| Some((member, own_id(&own)?)));
    match (own, body.as_object_mut()) {
        (Some((member, id)), Some(body)) => {
            body.set("id", id);
            Goal::Member(member)
        }
        _ => Goal::Nobody("request", seen),
    }
}

/// The sealed session in which the question was asked that a message answers, where its id names one.
pub(crate) fn asked_in(message: &Message) -> Option<String> {
    let Kind::Response { id: Some(Id::String(seen)) } = message.kind() else { return None };
    let (_, own) = naming::unqualified(seen)?;
    let (sealed, _) = own.strip_prefix(IN_SESSION)?.split_once('.')?;
    Some(sealed.to_owned())
}

/// What begins the id of a question, or of an event, that names the session of its server.
const IN_SESSION: char = 'x';

/// An event of a server's stream, after which a client wants what else there was.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Resumption {
    pub(crate) member: usize,
    /// The sealed session of the stream.
    pub(crate) session: String,
    /// The event's id as its server gave it.
    pub(crate) event: String,
}

impl Resumption {
    /// What the id of an event says that a client names.
    pub(crate) fn read(portal: &Portal, seen: &str) -> Option<Self> {
        let (member, own) = portal.find_qualified(seen)?;
        let (session, event) = own.strip_prefix(IN_SESSION)?.split_once('.')?;
        let event = event.strip_prefix(EVENT)?.to_owned();
        Some(Self { member, session: session.to_owned(), event })
    }
}

/// What begins the server's own id of an event.
const EVENT: char = 'e';

/// The id that clients see of an event of a server, in this sealed session.
pub(super) fn exposed_event(qualifier: &str, sealed: &str, event: &str) -> String {
    naming::qualified(qualifier, &format!("{IN_SESSION}{sealed}.{EVENT}{event}"))
}

/// The id that clients see of a server's request, asked in this sealed session.
pub(super) fn exposed_id(
    qualifier: &str,
    sealed: Option<&str>,
    id: &serde_json::Value,
) -> Option<String> {
    let sealed = sealed.map(|sealed| format!("{IN_SESSION}{sealed}.")).unwrap_or_default();
    match id {
        serde_json::Value::Number(number) if number.is_i64() => {
            Some(naming::qualified(qualifier, &format!("{sealed}i{number}")))
        }
        serde_json::Value::String(text) => {
            Some(naming::qualified(qualifier, &format!("{sealed}s{text}")))
        }
        _ => None,
    }
}

/// The id that a client's form of it stands for, without the qualifier.
pub(super) fn own_id(own: &str) -> Option<Json> {
    match own.split_at_checked(1)? {
        ("i", digits) => digits.parse().ok().map(Json::Integer),
        ("s", text) => Some(text.into()),
        ("x", sealed) => own_id(sealed.split_once('.')?.1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::super::Federation;
    use super::*;

    fn resolved(text: &str) -> (Goal, String) {
        let config = serde_json::from_value(serde_json::json!({
            "servers": {"hidden": {"resources": false}},
        }))
        .unwrap();
        let servers = ["billing".to_owned(), "hidden".to_owned()];
        let federation = Federation::compile(config, &servers, &mut Vec::new());
        let mut message = Message::parse(text.as_bytes()).unwrap();
        let goal = resolve(federation.portal("").unwrap(), &mut message);
        (goal, String::from_utf8(message.to_bytes()).unwrap())
    }

    #[test]
    fn what_names_one_thing_is_for_its_server_in_its_own_words() {
        for (method, params, own) in [
            ("tools/call", r#"{"name":"billing__refund"}"#, r#"{"name":"refund"}"#),
            ("prompts/get", r#"{"name":"billing__a"}"#, r#"{"name":"a"}"#),
            ("resources/read", r#"{"uri":"billing+b://c"}"#, r#"{"uri":"b://c"}"#),
            ("tasks/get", r#"{"taskId":"billing+7"}"#, r#"{"taskId":"7"}"#),
            (
                "subscriptions/listen",
                r#"{"notifications":{"toolsListChanged":true,"resourceSubscriptions":["billing+a:1","billing+a:2"],"taskIds":["billing+7"]}}"#,
                r#"{"notifications":{"resourceSubscriptions":["a:1","a:2"],"taskIds":["7"]}}"#,
            ),
            (
                "completion/complete",
                r#"{"ref":{"type":"ref/resource","uri":"billing+t://{x}"}}"#,
                r#"{"ref":{"type":"ref/resource","uri":"t://{x}"}}"#,
            ),
        ] {
            let text = |params: &str| {
                format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#)
            };
            assert_eq!(resolved(&text(params)), (Goal::Member(0), text(own)));
        }
    }

    #[test]
    fn an_answer_goes_to_the_server_that_asked_with_the_id_it_gave() {
        for (seen, own) in [
            ("billing+i5", "5"),
            ("billing+s5", r#""5""#),
            ("billing+sa+b", r#""a+b""#),
            ("billing+xAbc.i5", "5"),
            ("billing+xAbc.sx.i5", r#""x.i5""#),
        ] {
            let (goal, body) =
                resolved(&format!(r#"{{"jsonrpc":"2.0","id":"{seen}","result":{{}}}}"#));
            assert_eq!(goal, Goal::Member(0));
            assert_eq!(body, format!(r#"{{"jsonrpc":"2.0","id":{own},"result":{{}}}}"#));
        }
        let (goal, _) = resolved(r#"{"jsonrpc":"2.0","id":5,"result":{}}"#);
        assert!(matches!(goal, Goal::Nobody("request", _)));
    }

    #[test]
    fn the_id_of_an_event_leads_to_its_server_its_session_and_its_own_id() {
        let federation = Federation::compile(
            serde_json::from_str("{}").unwrap(),
            &["billing".to_owned()],
            &mut Vec::new(),
        );
        let portal = federation.portal("").unwrap();
        for own in ["e-1", "a.b+c", ""] {
            let seen = exposed_event("billing", "Ab_c", own);
            let read = Resumption::read(portal, &seen).unwrap();
            assert_eq!((read.member, &*read.session, &*read.event), (0, "Ab_c", own));
        }
        for seen in ["", "e-1", "billing+e-1", "billing+xAb.i5", "other+xAb.ee-1", "billing+xAb"] {
            assert_eq!(Resumption::read(portal, seen), None, "{seen}");
        }
    }

    #[test]
    fn a_stream_follows_what_one_server_has() {
        let listen = |filter: &str| {
            resolved(&format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{{"notifications":{filter}}}}}"#
            ))
            .0
        };
        assert_eq!(listen(r#"{"toolsListChanged":true}"#), Goal::Portal);
        let both = r#"{"resourceSubscriptions":["billing+a:1"],"taskIds":["hidden+7"]}"#;
        assert_eq!(listen(both), Goal::Several);
        assert_eq!(listen(r#"{"taskIds":["hidden+7","hidden+8"]}"#), Goal::Member(1));
    }

    #[test]
    fn a_name_that_leads_nowhere_is_for_nobody() {
        for (method, params) in [
            ("tools/call", r#"{"name":"refund"}"#),
            ("tools/call", r#"{"name":"other__refund"}"#),
            ("tools/call", r#"{"name":"billing__files/read"}"#),
            ("resources/read", r#"{"uri":"b://c"}"#),
            ("resources/read", r#"{"uri":"hidden+b://c"}"#),
            ("tasks/get", r#"{"taskId":"7"}"#),
            ("subscriptions/listen", r#"{"notifications":{"resourceSubscriptions":["a:1"]}}"#),
            (
                "subscriptions/listen",
                r#"{"notifications":{"resourceSubscriptions":["hidden+a:1"]}}"#,
            ),
        ] {
            let text =
                format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
            assert!(matches!(resolved(&text).0, Goal::Nobody(..)), "{method} {params}");
        }
    }
}
