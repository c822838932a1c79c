//! The answer of a server to a call that the gateway made: one JSON-RPC message out of a JSON body or
//! a buffered event stream, or what is wrong with it.
//!
//! Nothing of such an answer passes to a client as it is, and no answer can do more than fail: what is
//! no JSON, not for this request or too large only says so. Not here: what results mean.

use toolgate_protocol::headers::Headers;
use toolgate_protocol::json::{Json, Object};
use toolgate_protocol::sse::EventSplitter;

use crate::event::CallOutcome;

/// Why a server is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It could not be reached, broke off, or did not answer in time.
    Unreachable,
    /// It did not accept the gateway's credential.
    Unauthorized,
    /// The credential for it could not be had.
    Credential,
    /// What it answered is no MCP answer to what it was asked.
    Answer,
    /// Its answer, or its list, is larger than the limit.
    TooLarge,
    /// It speaks no version of MCP that the gateway speaks.
    Version,
    /// It answered with an error.
    Error,
    /// It knows nothing of what it is told.
    Forgotten,
}

impl Fault {
    /// The word for it in records and notes.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "server_unreachable",
            Self::Unauthorized => "server_unauthorized",
            Self::Credential => "credential_unavailable",
            Self::Answer => "server_answer",
            Self::TooLarge => "server_too_large",
            Self::Version => "server_version",
            Self::Error => "server_error",
            Self::Forgotten => "server_forgot",
        }
    }
}

/// What a server said.
#[derive(Debug)]
pub(crate) enum Said {
    /// The result of the request.
    Result(Object),
    /// A JSON-RPC error with this code; `status` is HTTP's.
    Error { status: u16, code: i64 },
    /// An HTTP error without a JSON-RPC one.
    Refused { status: u16 },
}

/// Reads the answer to the request with the id `id`.
///
/// # Errors
/// The [`Fault`] of a server that gave none.
pub(crate) fn read(outcome: &CallOutcome, id: &str) -> Result<Said, Fault> {
    let (status, headers, body) = match outcome {
        CallOutcome::Response { status, headers, body } => (*status, headers, body),
        CallOutcome::TooLarge => return Err(Fault::TooLarge),
        CallOutcome::Failed => return Err(Fault::Unreachable),
    };
    match status {
        401 | 403 => return Err(Fault::Unauthorized),
        500.. => return Err(Fault::Unreachable),
        ..=199 | 300..=399 => return Err(Fault::Answer),
        _ => {}
    }
    let message = message(headers, body, id);
    let said = message.as_ref().and_then(|message| {
        if let Some(code) = message.at(&["error", "code"]) {
            let Json::Integer(code) = code else { return None };
            return Some(Said::Error { status, code: *code });
        }
        message.get("result")?.as_object().cloned().map(Said::Result)
    });
    match said {
        Some(said) => Ok(said),
        None if status >= 400 => Ok(Said::Refused { status }),
        None => Err(Fault::Answer),
    }
}

/// The message for `id` in a body. An error may come without an id.
fn message(headers: &Headers, body: &[u8], id: &str) -> Option<Json> {
    let answers = |message: &Json| match message.get("id") {
        Some(Json::String(text)) => text == id,
        None | Some(Json::Null) => message.get("error").is_some(),
        Some(_) => false,
    };
    let kind = headers.single("content-type").ok().flatten().unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("text/event-stream") {
        return Json::parse(body).ok().filter(answers);
    }
    let mut found = None;
    let mut splitter = EventSplitter::new(body.len());
    let _whole_body_is_within_the_cap = splitter.push(body, |event| {
        let data = event.data().filter(|data| found.is_none() && !data.is_empty());
        if let Some(message) = data.and_then(|data| Json::parse(&data).ok()) {
            let is_answer = message.get("method").is_none() && answers(&message);
            found = is_answer.then_some(message);
        }
    });
    found
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn response(status: u16, content_type: &str, body: &str) -> CallOutcome {
        CallOutcome::Response {
            status,
            headers: Headers::from_pairs([("content-type", content_type)]),
            body: body.as_bytes().to_vec(),
        }
    }

    #[test]
    fn a_result_is_found_in_a_body_and_in_a_stream() {
        let json = r#"{"jsonrpc":"2.0","id":"g1","result":{"a":1}}"#;
        let stream = format!(
            ": hi\n\nid: 1\ndata:\n\ndata: {{\"jsonrpc\":\"2.0\",\"method\":\"m\",\"id\":\"g1\"}}\n\ndata: {json}\n\n"
        );
        for outcome in [
            response(200, "application/json; charset=utf-8", json),
            response(200, "text/event-stream", &stream),
        ] {
            let Ok(Said::Result(result)) = read(&outcome, "g1") else { panic!("no result") };
            assert_eq!(result.get("a"), Some(&Json::Integer(1)));
        }
    }

    #[test]
    fn what_is_no_answer_is_a_fault_and_nothing_worse() {
        for (outcome, fault) in [
            (CallOutcome::Failed, Fault::Unreachable),
            (CallOutcome::TooLarge, Fault::TooLarge),
            (response(502, "text/html", "<html>"), Fault::Unreachable),
            (response(401, "application/json", "{}"), Fault::Unauthorized),
            (response(302, "text/html", ""), Fault::Answer),
            (response(200, "text/html", "<html>"), Fault::Answer),
            (response(200, "application/json", "{\"data\": {\"da"), Fault::Answer),
            (
                response(200, "application/json", r#"{"jsonrpc":"2.0","id":"g2","result":{}}"#),
                Fault::Answer,
            ),
            (
                response(200, "application/json", r#"{"jsonrpc":"2.0","id":1,"result":{}}"#),
                Fault::Answer,
            ),
            (
                response(200, "application/json", r#"{"jsonrpc":"2.0","id":"g1","result":[]}"#),
                Fault::Answer,
            ),
            (response(200, "text/event-stream", "data: {\"id\":\"g1\""), Fault::Answer),
        ] {
            assert_eq!(read(&outcome, "g1").unwrap_err(), fault);
        }
    }

    #[test]
    fn an_error_of_a_server_is_told_from_a_refusal_of_http() {
        let error = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"no"}}"#;
        assert!(matches!(
            read(&response(400, "application/json", error), "g1"),
            Ok(Said::Error { status: 400, code: -32000 })
        ));
        assert!(matches!(
            read(&response(404, "text/plain", "Not Found"), "g1"),
            Ok(Said::Refused { status: 404 })
        ));
    }
}
