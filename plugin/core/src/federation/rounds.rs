//! What a server of the legacy era asks of the user, as a round of a modern request, and the way back
//! (2025-11-25, "Resumability and Redelivery"; 2026-07-28, "Multi Round-Trip Requests").
//!
//! A server of the legacy era asks in the stream of a call and waits. A modern client is asked by a result
//! that ends its request: it calls again with the answer. Between the two nothing is kept here: what is
//! needed to go on stands, sealed, in the result's `requestState`, so that every worker and every gateway
//! with the keys can. The next call brings the server the answer, in its session, and then goes on as the
//! request that resumes the stream of the first after the question (`Last-Event-ID`). A server whose
//! question has no event id cannot be gone on with: it is told that nobody can be asked, and offered
//! nothing of the kind for a while. Not here: which call is carried how (`bridge`), whose names (`response`).

use std::rc::Rc;
use std::time::Duration;

use toolgate_protocol::json::{Json, Object};
use toolgate_protocol::jsonrpc::Message;
use toolgate_protocol::mcp::{Era, META_CLIENT_CAPABILITIES, Version};

use super::answer::Fault;
use super::catalogue::Offer;
use super::edit::Value;
use super::peers::{Access, Session};
use super::request::{exposed_id, own_id};
use super::response::Exposure;
use crate::audit::digest;
use crate::denial::{Denial, Reason};
use crate::event::{CallOutcome, HttpCall, Timestamp};
use crate::facts::{Facts, Need, Stop};
use crate::gateway::Gateway;
use crate::request::Asked;

/// Requests of a legacy server that a modern client can be handed.
const ASKABLE: &[&str] = &["elicitation/create", "sampling/createMessage", "roots/list"];

/// `_meta` member of a modern request that asks for log messages.
pub(super) const META_LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";

/// Levels of log messages, the least urgent first (RFC 5424, as MCP names them).
pub(super) const LEVELS: &[&str] =
    &["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];

/// How long a server whose questions have no event id is offered nothing.
const MUTE_LASTS: Duration = Duration::from_secs(600);

/// Longest event id that is taken from a server, in bytes.
const LONGEST_EVENT_ID: usize = 1024;

/// What a modern request says of its client that a server of the legacy era is not told in the request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claims {
    /// What the client can be asked, as the capabilities of a legacy client; empty for nothing.
    pub(crate) capabilities: Option<Rc<str>>,
    /// The least urgent log message that it wants: a place in [`LEVELS`].
    pub(super) log_level: Option<usize>,
}

impl Claims {
    /// Reads `_meta` of a request. `askable` when what a server asks can reach the client.
    pub(super) fn read(meta: &Object, askable: bool) -> Self {
        let level = meta.get(META_LOG_LEVEL).and_then(Json::as_str);
        let log_level = level.and_then(|level| LEVELS.iter().position(|known| *known == level));
        let said = meta.get(META_CLIENT_CAPABILITIES).filter(|_| askable);
        Self { capabilities: said.and_then(capabilities), log_level }
    }

    /// Whether the client wants the log message with these parameters.
    pub(super) fn wants_log(&self, params: Option<Value<'_>>) -> bool {
        let Some(least) = self.log_level else { return false };
        let members = params.map(Value::members).unwrap_or_default();
        let level = members.iter().find(|(key, _)| key == "level").map(|(_, level)| *level);
        let level: Option<String> =
            level.and_then(|level| serde_json::from_str(level.written()).ok());
        let level = level.and_then(|level| LEVELS.iter().position(|known| *known == level));
        level.is_none_or(|level| level >= least)
    }
}

/// What a legacy server is told of a modern client: what it can be asked in a result. Nothing that would
/// need a stream of its own; of elicitation only forms, since a URL of the legacy era ends in a
/// notification that the modern one does not have.
fn capabilities(said: &Json) -> Option<Rc<str>> {
    let mut offered = Object::default();
    if let Some(elicitation) = said.get("elicitation").and_then(Json::as_object)
        && (elicitation.is_empty() || elicitation.get("form").is_some())
    {
        let form: Object = [("form", Object::default().into())].into_iter().collect();
        offered.set("elicitation", form.into());
    }
    if let Some(sampling) = said.get("sampling").and_then(Json::as_object) {
        let known = ["context", "tools"].into_iter().filter(|key| sampling.get(key).is_some());
        let kept: Object = known.map(|key| (key, Object::default().into())).collect();
        offered.set("sampling", kept.into());
    }
    if said.get("roots").and_then(Json::as_object).is_some() {
        offered.set("roots", Object::default().into());
    }
    if offered.is_empty() {
        return None;
    }
    String::from_utf8(Json::Object(offered).to_bytes()).ok().map(Into::into)
}

/// Extensions by which servers list more, and what a client says of each.
const EXTENSIONS: &[(&str, &str)] = &[
    ("io.modelcontextprotocol/tasks", "{}"),
    ("io.modelcontextprotocol/ui", r#"{"mimeTypes":["text/html;profile=mcp-app"]}"#),
];

/// What a client can do, in one of few forms: clients that are alike share a list, and none can have lists
/// fetched for capabilities that it makes up. `asked` for what servers ask clients, too.
fn known(said: &Json, asked: bool) -> Rc<str> {
    let mut kept = Object::default();
    let parts = [("elicitation", &["form", "url"][..]), ("sampling", &["tools"]), ("roots", &[])];
    for (name, words) in parts.into_iter().filter(|_| asked) {
        let Some(part) = said.get(name).filter(|part| part.as_object().is_some()) else { continue };
        let words = words.iter().filter(|word| part.get(word).is_some());
        let words: Object = words.map(|word| (*word, Object::default().into())).collect();
        kept.set(name, words.into());
    }
    let has = |name: &str| said.at(&["extensions", name]).is_some();
    let extensions = EXTENSIONS.iter().filter(|(name, _)| has(name));
    let extensions: Object = extensions
        .filter_map(|(name, value)| Some((*name, Json::parse(value.as_bytes()).ok()?)))
        .collect();
    if !extensions.is_empty() {
        kept.set("extensions", extensions.into());
    }
    if kept.is_empty() {
        return "".into();
    }
    String::from_utf8(Json::Object(kept).to_bytes()).unwrap_or_default().into()
}

/// What is needed to ask the client of a request something.
#[derive(Clone)]
pub(super) struct Askable {
    /// Whose request it is.
    pub(super) owner: Rc<str>,
    /// What is asked of the server, so that an answer counts for nothing else.
    pub(super) digest: String,
}

/// A question of a server, in the portal's names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Question {
    /// Its id, in the form that names its type.
    id: String,
    method: String,
    /// Its parameters as JSON, where it has any.
    params: Option<String>,
}

/// Where in a stream a question stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    /// Id of its event.
    pub(super) event: String,
    /// Id of the event before, after which the question comes again.
    pub(super) before: Option<String>,
}

/// What is sealed into `requestState`.
#[derive(Debug, PartialEq, Eq)]
struct Round {
    /// Id of the session at the server.
    session: Option<String>,
    version: Version,
    /// Id of the question, in the form that names its type.
    question: String,
    /// Under which key the client was asked.
    key: String,
    event: String,
    before: Option<String>,
    /// The gateway's own id of the call.
    own: String,
    digest: String,
}

/// How a call that was interrupted by a question goes on.
pub(crate) struct Resumed {
    /// After which event.
    pub(crate) event: String,
    /// The gateway's own id of the call.
    pub(crate) own: String,
}

/// An answer on its way to a server that asked.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GivenAnswer {
    server: Rc<str>,
    access: Access,
    session: Option<Rc<str>>,
    version: Version,
    body: Rc<str>,
}

impl Question {
    /// The question in a message of a server; its text is in the portal's names already.
    pub(super) fn read(text: &str, own_id: &serde_json::Value) -> Option<Self> {
        let id = exposed_id("", None, own_id)?;
        let members = Value::of(text)?.members();
        let find =
            |name: &str| members.iter().find(|(key, _)| key == name).map(|(_, value)| *value);
        let method: String = serde_json::from_str(find("method")?.written()).ok()?;
        let params = find("params").map(|params| {
            let mut kept = String::from("{");
            // What belongs to the legacy server's own bookkeeping means nothing in a result.
            let members = params.members();
            let members = members.iter().filter(|(key, _)| key != "_meta" && key != "task");
            for (index, (key, value)) in members.enumerate() {
                if index > 0 {
                    kept.push(',');
                }
                kept.push_str(&serde_json::Value::from(key.as_str()).to_string());
                kept.push(':');
                kept.push_str(value.written());
            }
            kept.push('}');
            kept
        });
        Some(Self { id, method, params })
    }

    /// The method, for records.
    pub(crate) fn method(&self) -> &str {
        &self.method
    }

    fn can_be_handed_on(&self) -> bool {
        ASKABLE.contains(&self.method.as_str())
    }
}

impl Round {
    fn write(&self) -> Vec<u8> {
        let mut plain = Object::default();
        let mut set = |key: &str, value: Option<&str>| {
            if let Some(value) = value {
                plain.set(key, value.into());
            }
        };
        set("session", self.session.as_deref());
        set("version", Some(self.version.as_str()));
        set("question", Some(&self.question));
        set("key", Some(&self.key));
        set("event", Some(&self.event));
        set("before", self.before.as_deref());
        set("own", Some(&self.own));
        set("digest", Some(&self.digest));
        Json::Object(plain).to_bytes()
    }

    fn read(plain: &[u8]) -> Option<Self> {
        let plain = Json::parse(plain).ok()?;
        let text = |key: &str| Some(plain.get(key)?.as_str()?.to_owned());
        Some(Self {
            session: text("session"),
            version: Version::parse(&text("version")?)?,
            question: text("question")?,
            key: text("key")?,
            event: text("event")?,
            before: text("before"),
            own: text("own")?,
            digest: text("digest")?,
        })
    }
}

/// What a request asks its server for, whatever round it is.
pub(super) fn call_digest(message: &Message) -> String {
    let mut asked = Object::default();
    asked.set("method", message.method().unwrap_or_default().into());
    for key in ["name", "uri", "arguments"] {
        if let Some(value) = message.params().and_then(|params| params.get(key)) {
            asked.set(key, value.clone());
        }
    }
    digest(&Json::Object(asked).to_bytes())
}

impl Gateway {
    /// Whether what a server of the legacy era asks can reach a modern client: the state of a round has to
    /// be sealed, and the host has to take a request's last form after calls.
    pub(super) fn can_ask(&self, server: &str, now: Timestamp) -> bool {
        self.takes_late_bodies()
            && self.sessions.seals()
            && !self.peers.borrow().is_mute(server, now)
    }

    /// What a server is told of a client that asks for a list: what it could do in a call.
    pub(super) fn offer(&self, asked: &Asked, server: &str, now: Timestamp) -> Offer {
        if asked.era == Era::Modern {
            let params = asked.message.as_ref().and_then(Message::params);
            let said = params.and_then(|params| params.get("_meta")?.get(META_CLIENT_CAPABILITIES));
            let Some(said) = said else { return Offer::default() };
            let legacy = if self.can_ask(server, now) { capabilities(said) } else { None };
            return Offer { modern: known(said, true), legacy: legacy.unwrap_or_default() };
        }
        let session = asked.head.portal_session.as_ref().filter(|_| asked.has_own_session());
        let said = session.and_then(|session| Json::parse(session.capabilities.as_bytes()).ok());
        said.map_or_else(Offer::default, |said| {
            // A modern server cannot ask such a client anything.
            Offer { modern: known(&said, false), legacy: known(&said, true) }
        })
    }

    /// Names the session of a server in the questions and events of its stream to a client of the legacy
    /// era, whose answers, and whose wish to go on after an event, may come to another worker than the call.
    pub(crate) fn name_session(&self, exposure: &mut Exposure, asked: &Asked) {
        let (Some(session), Some(caller)) = (&exposure.opened, &asked.head.caller) else { return };
        if !asked.has_own_session() {
            return;
        }
        let mut plain = Object::default();
        plain.set("version", session.version.as_str().into());
        if let Some(id) = &session.id {
            plain.set("session", Json::from(&**id));
        }
        let plain = Json::Object(plain).to_bytes();
        let server = &asked.head.server;
        exposure.named = self.sessions.seal_question(&caller.owner, server, &plain);
    }

    /// The session of a server in which it asked what a client answers, or sent the event after which a
    /// client goes on.
    ///
    /// # Errors
    /// A [`Denial`] for what is no such session of this caller's at this server.
    pub(super) fn session_asked_in(&self, asked: &Asked, sealed: &str) -> Result<Session, Denial> {
        let owner = &asked.head.caller()?.owner;
        let plain = self.sessions.open_question(owner, &asked.head.server, sealed);
        let read = |plain: Vec<u8>| {
            let plain = Json::parse(&plain).ok()?;
            let version = Version::parse(plain.get("version")?.as_str()?)?;
            let id = plain.get("session").and_then(Json::as_str).map(Into::into);
            Some(Session { id, version, opened: Timestamp::default() })
        };
        plain.and_then(read).ok_or_else(|| {
            let message = "the answer is to no question that was asked of this caller";
            Denial::new(Reason::InvalidParams, message).with_status(400)
        })
    }

    /// The answer that hands a question of a server to the client; `None` where it cannot be handed on.
    pub(crate) fn ask_client(
        &self,
        exposure: &Exposure,
        question: &Question,
        place: &Place,
    ) -> Option<Vec<u8>> {
        let (askable, rekeyed, session) = exposure.asking()?;
        if !question.can_be_handed_on() || place.event.len() > LONGEST_EVENT_ID {
            return None;
        }
        let round = Round {
            session: session.id.as_deref().map(str::to_owned),
            version: session.version,
            question: question.id.clone(),
            key: question.method.clone(),
            event: place.event.clone(),
            before: place.before.clone().filter(|before| before.len() <= LONGEST_EVENT_ID),
            own: rekeyed.own.clone(),
            digest: askable.digest.clone(),
        };
        let state = self.sessions.seal_round(&askable.owner, exposure.server()?, &round.write())?;
        let json = |text: &str| serde_json::Value::from(text).to_string();
        let params = question.params.as_ref().map(|params| format!(",\"params\":{params}"));
        let id = String::from_utf8(Json::from(rekeyed.id.clone()).to_bytes()).ok()?;
        let key = json(&question.method);
        Some(
            format!(
                r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"input_required","inputRequests":{{{key}:{{"method":{key}{}}}}},"requestState":{}}}}}"#,
                params.unwrap_or_default(),
                json(&state),
            )
            .into_bytes(),
        )
    }

    /// What tells a server that its question reaches nobody; `None` for an id that is none, and where the
    /// host makes no calls while a response passes.
    pub(crate) fn decline(
        &self,
        exposure: &Exposure,
        question: &Question,
        now: Timestamp,
    ) -> Option<Need> {
        if !self.takes_late_bodies() {
            return None;
        }
        let (server, session) = (exposure.server()?, exposure.opened.as_ref()?);
        let mut body = answer_to(&question.id)?;
        if question.method == "ping" {
            body.set("result", Object::default().into());
        } else {
            self.peers.borrow_mut().mute(server, now.after(MUTE_LASTS));
            let mut error = Object::default();
            error.set("code", Json::Integer(-32601));
            error.set("message", "the client of this request cannot be asked".into());
            body.set("error", error.into());
        }
        let access = Rc::clone(&exposure.session.as_ref()?.access);
        Some(Need::Answer(GivenAnswer::new(server, access, session, body)?))
    }

    /// How a call goes on that brings the answer to a question; `None` for a call that brings none.
    ///
    /// # Errors
    /// [`Stop`] when the answer has still to be brought to the server, or when it is for no question that
    /// this caller was asked about this very call.
    pub(super) fn resumed(
        &self,
        asked: &Asked,
        access: &Access,
        facts: &Facts,
    ) -> Result<Option<(Resumed, Session)>, Stop> {
        let Some(message) = &asked.message else { return Ok(None) };
        let params = message.params();
        let Some(state) = params.and_then(|params| params.get("requestState")) else {
            return Ok(None);
        };
        let unknown = || {
            let message = "the requestState is of no question that was asked about this call";
            Denial::new(Reason::InvalidParams, message)
        };
        let server = &asked.head.server;
        let owner = &asked.head.caller()?.owner;
        let plain = state.as_str().and_then(|state| self.sessions.open_round(owner, server, state));
        let round = plain.and_then(|plain| Round::read(&plain)).ok_or_else(unknown)?;
        if round.digest != call_digest(message) {
            return Err(unknown().into());
        }
        let Round { session, version, question, key, event, before, own, .. } = round;
        let session = Session {
            id: session.map(Into::into),
            version,
            // Older than any that would be worth opening again.
            opened: Timestamp::default(),
        };
        let given = params.and_then(|params| params.get("inputResponses")?.get(&key));
        let Some(given) = given else {
            // The question comes again, if the stream has a place before it.
            let event = before.ok_or_else(|| {
                let message = format!("inputResponses lacks the answer to {key:?}");
                Denial::new(Reason::InvalidParams, message)
            })?;
            return Ok(Some((Resumed { event, own }, session)));
        };
        let mut body = answer_to(&question).ok_or_else(unknown)?;
        body.set("result", given.clone());
        let answer =
            GivenAnswer::new(server, Rc::clone(access), &session, body).ok_or_else(unknown)?;
        match facts.answered(&answer) {
            None => Err(Need::Answer(answer).into()),
            Some(Err(fault)) => Err(super::unavailable(*fault).into()),
            Some(Ok(())) => Ok(Some((Resumed { event, own }, session))),
        }
    }

    /// The call that brings an answer to a server.
    pub(crate) fn answer_call(
        &self,
        answer: &GivenAnswer,
        facts: &Facts,
        now: Timestamp,
    ) -> Option<HttpCall> {
        let GivenAnswer { server, access, session, version, body } = answer;
        let session =
            Session { id: session.clone(), version: *version, opened: Timestamp::default() };
        self.post((server, access), body.to_string(), None, (Some(&session), ""), facts, now)
    }

    /// What became of it.
    pub(crate) fn learn_answer(outcome: &CallOutcome) -> Result<(), Fault> {
        match outcome {
            CallOutcome::Response { status: 200..=299, .. } => Ok(()),
            CallOutcome::Response { status: 401 | 403, .. } => Err(Fault::Unauthorized),
            CallOutcome::Response { status: 400..=499, .. } => Err(Fault::Forgotten),
            CallOutcome::TooLarge | CallOutcome::Response { .. } | CallOutcome::Failed => {
                Err(Fault::Unreachable)
            }
        }
    }
}

impl GivenAnswer {
    fn new(server: &Rc<str>, access: Access, session: &Session, body: Object) -> Option<Self> {
        Some(Self {
            server: Rc::clone(server),
            access,
            session: session.id.clone(),
            version: session.version,
            body: String::from_utf8(Json::Object(body).to_bytes()).ok()?.into(),
        })
    }
}

/// The beginning of an answer to the question with this id.
fn answer_to(question: &str) -> Option<Object> {
    let id = own_id(question.strip_prefix('+')?)?;
    let mut body = Object::default();
    body.set("jsonrpc", "2.0".into());
    body.set("id", id);
    Some(body)
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn a_server_is_told_of_what_its_question_can_get_back_from_and_of_nothing_else() {
        for (said, told) in [
            ("{}", None),
            (r#"{"extensions":{"a/b":{}},"experimental":{}}"#, None),
            (r#"{"elicitation":{}}"#, Some(r#"{"elicitation":{"form":{}}}"#)),
            (r#"{"elicitation":{"url":{}}}"#, None),
            (
                r#"{"roots":{"listChanged":true},"sampling":{"tools":{},"x":1},"elicitation":{"form":{},"url":{}}}"#,
                Some(r#"{"elicitation":{"form":{}},"sampling":{"tools":{}},"roots":{}}"#),
            ),
            (r#"{"elicitation":true,"sampling":[]}"#, None),
        ] {
            let said = Json::parse(said.as_bytes()).unwrap();
            assert_eq!(capabilities(&said).as_deref(), told);
        }
    }

    #[test]
    fn a_question_keeps_its_parameters_as_they_are_written() {
        let text = r#"{"jsonrpc":"2.0","id":5,"method":"elicitation/create","params":{"message":"?","_meta":{"progressToken":1},"requestedSchema":{"type":"object","properties":{"n":{"maximum":12345678901234567890.0}}},"task":{"ttl":1}}}"#;
        let question = Question::read(text, &serde_json::json!(5)).unwrap();
        assert_eq!((question.id.as_str(), question.method()), ("+i5", "elicitation/create"));
        assert_eq!(
            question.params.as_deref(),
            Some(
                r#"{"message":"?","requestedSchema":{"type":"object","properties":{"n":{"maximum":12345678901234567890.0}}}}"#
            )
        );
        assert!(Question::read(text, &serde_json::json!(null)).is_none());
        let answer = answer_to(&question.id).unwrap();
        assert_eq!(Json::Object(answer).to_bytes(), br#"{"jsonrpc":"2.0","id":5}"#);
        assert!(answer_to("i5").is_none() && answer_to("+x").is_none());
    }

    #[test]
    fn what_a_round_seals_is_what_it_reads() {
        let round = Round {
            session: None,
            version: Version::V2025_06_18,
            question: "+sa\"b".into(),
            key: "roots/list".into(),
            event: "e_2".into(),
            before: Some("e_1".into()),
            own: "toolgate-1".into(),
            digest: "d".into(),
        };
        assert_eq!(Round::read(&round.write()), Some(round));
        assert!(Round::read(b"{}").is_none() && Round::read(b"").is_none());
    }

    #[test]
    fn what_a_client_can_do_is_told_in_one_of_few_forms() {
        for (said, all, extensions) in [
            ("{}", "", ""),
            (r#"{"elicitation":{},"made":{"up":1}}"#, r#"{"elicitation":{}}"#, ""),
            (
                r#"{"roots":{"listChanged":true},"sampling":{"tools":{"x":1},"y":2}}"#,
                r#"{"sampling":{"tools":{}},"roots":{}}"#,
                "",
            ),
            (
                r#"{"extensions":{"io.modelcontextprotocol/tasks":{"x":1},"a/b":{}}}"#,
                r#"{"extensions":{"io.modelcontextprotocol/tasks":{}}}"#,
                r#"{"extensions":{"io.modelcontextprotocol/tasks":{}}}"#,
            ),
        ] {
            let said = Json::parse(said.as_bytes()).unwrap();
            assert_eq!((&*known(&said, true), &*known(&said, false)), (all, extensions));
        }
    }

    #[test]
    fn a_log_message_is_wanted_from_the_level_that_was_asked_for() {
        let meta = |text: &str| Json::parse(text.as_bytes()).unwrap().as_object().unwrap().clone();
        let none = Claims::read(&meta("{}"), true);
        let warnings =
            Claims::read(&meta(r#"{"io.modelcontextprotocol/logLevel":"warning"}"#), true);
        for (level, wanted) in [("debug", false), ("warning", true), ("emergency", true)] {
            let text = format!(r#"{{"level":"{level}"}}"#);
            assert_eq!(warnings.wants_log(Value::of(&text)), wanted, "{level}");
            assert!(!none.wants_log(Value::of(&text)), "{level}");
        }
    }
}
