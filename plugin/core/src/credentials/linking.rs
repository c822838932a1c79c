//! A caller for whom there is no credential: where to link an account, said in the way that its client
//! knows.
//!
//! A client that opens URLs says so: in each request of 2026-07-28, which then gets the question as a
//! result (multi round-trip requests), and when a session begins in 2025-11-25, whose error -32042 is for
//! it; of sessions the gateway knows those with its own portals. Any other client gets an error that
//! names the URL. Nobody is asked twice by one request: what comes back with the client's answer and
//! finds nothing still is an error.

use toolgate_protocol::json::{Json, Object};
use toolgate_protocol::jsonrpc::Message;
use toolgate_protocol::mcp::{Era, META_CLIENT_CAPABILITIES, Operation, Version};

use crate::denial::{Denial, Reason};
use crate::request::Asked;

/// The gateway's own key among the questions that a result asks and the answers to them.
const QUESTION: &str = "toolgate.link_account";

/// JSON-RPC code of a refusal that a URL would help (2025-11-25, "URL Elicitation Required Error").
const URL_ELICITATION_REQUIRED: i64 = -32042;

/// The refusal for a caller without an account, whom `url` would help. `id` names the question.
pub(crate) fn refusal(asked: &Asked, url: &str, id: impl FnOnce() -> String) -> Denial {
    let message =
        format!("no account is linked for you at this server: link one at {url}, then try again");
    let denial = Denial::new(Reason::CredentialNotLinked, message.clone())
        .with_data("link_url", Json::from(url));
    let mut question = Object::default();
    question.set("mode", "url".into());
    question.set("message", message.into());
    question.set("url", url.into());
    if asks_within_results(asked) {
        let mut request = Object::default();
        request.set("method", "elicitation/create".into());
        request.set("params", question.into());
        let mut requests = Object::default();
        requests.set(QUESTION, request.into());
        let mut result = Object::default();
        result.set("resultType", "input_required".into());
        result.set("inputRequests", requests.into());
        return denial.with_result(result);
    }
    if knows_the_error(asked) {
        question.set("elicitationId", id().into());
        let questions = Json::Array(vec![question.into()]);
        return denial.with_code(URL_ELICITATION_REQUIRED).with_data("elicitations", questions);
    }
    denial
}

/// Takes the answer to the gateway's own question out of a request, which is nothing for its server.
/// Whether there was one.
pub(crate) fn take_answer(message: &mut Message) -> bool {
    let is_there = |params: &Object| {
        params.get("inputResponses").is_some_and(|answers| answers.get(QUESTION).is_some())
    };
    if !message.params().is_some_and(is_there) {
        return false;
    }
    let params = message.body_mut().as_object_mut().and_then(|body| body.get_mut("params"));
    if let Some(params) = params.and_then(Json::as_object_mut)
        && let Some(answers) = params.get_mut("inputResponses").and_then(Json::as_object_mut)
    {
        answers.remove(QUESTION);
        if answers.is_empty() {
            params.remove("inputResponses");
        }
    }
    true
}

/// Whether the answer may be a question (2026-07-28: of these methods alone, and only what the client
/// declares in the request).
fn asks_within_results(asked: &Asked) -> bool {
    let operation = asked.operation().ok().flatten();
    let may_ask = matches!(
        operation,
        Some(
            Operation::CallTool { .. }
                | Operation::GetPrompt { .. }
                | Operation::ReadResource { .. }
        )
    );
    let params = asked.message.as_ref().and_then(Message::params);
    let declared = params
        .and_then(|params| params.get("_meta")?.get(META_CLIENT_CAPABILITIES))
        .is_some_and(opens_urls);
    asked.era == Era::Modern && may_ask && declared && !asked.has_linked
}

/// Whether the client's session is known to have begun with a client that knows the error.
fn knows_the_error(asked: &Asked) -> bool {
    let session = asked.head.portal_session.as_ref();
    asked.revision == Some(Version::V2025_11_25)
        && session
            .and_then(|session| Json::parse(session.capabilities.as_bytes()).ok())
            .is_some_and(|capabilities| opens_urls(&capabilities))
}

fn opens_urls(capabilities: &Json) -> bool {
    capabilities.at(&["elicitation", "url"]).is_some_and(|url| url.as_object().is_some())
}
