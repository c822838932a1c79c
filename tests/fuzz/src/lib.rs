//! What must hold for any bytes, as checks that panic where it does not.
//!
//! Each check is a fuzz target (`fuzz/`, by cargo-fuzz) and runs in every `scripts/test native` over the corpus
//! and a bounded number of its mutations (`tests/bounded.rs`).
#![allow(clippy::panic, reason = "a check that fails panics, for fuzzers to see")]

use toolgate_protocol::headers::{Headers, encode_mirrored};
use toolgate_protocol::json::Json;
use toolgate_protocol::jsonrpc::{Body, Message};
use toolgate_protocol::list::filter_lists;
use toolgate_protocol::mcp::{self, Version};
use toolgate_protocol::mirror::{MAX_MIRRORS, Mirror};
use toolgate_protocol::sse::EventSplitter;

/// One check.
pub type Check = fn(&[u8]);

/// Every check by the name of its fuzz target and of its folder in the corpus.
pub const CHECKS: &[(&str, Check)] =
    &[("message", message), ("events", events), ("answer", answer), ("mirror", mirror)];

/// Bytes are refused, or become messages that mean the same after they were serialised again.
pub fn message(bytes: &[u8]) {
    let Ok(body) = Body::parse(bytes) else { return };
    let messages = match &body {
        Body::Single(message) => std::slice::from_ref(message),
        Body::Batch(messages) => messages.as_slice(),
    };
    for message in messages {
        let again = message.to_bytes();
        assert_eq!(Message::parse(&again).as_ref(), Ok(message), "read again");
        // Whatever it asks for, saying so must not fail.
        for version in Version::ALL.into_iter().map(Some).chain([None]) {
            let _may_be_refused = mcp::operation(message, version);
        }
        let _may_be_refused = mcp::claimed_version(message);
        let _may_be_refused = mcp::check_modern_meta(message);
        let _may_be_absent = (mcp::mirrored_name(message), mcp::client_name(message));
    }
    same_to_serde_json(bytes, &Json::parse(bytes).map(|json| json.to_bytes()).unwrap_or_default());
}

/// A strict document and its second form mean the same to another parser.
fn same_to_serde_json(bytes: &[u8], again: &[u8]) {
    let read = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes);
    match (read(bytes), read(again)) {
        (Ok(first), Ok(second)) => assert_eq!(first, second, "to serde_json"),
        // It reads no deeper than 128 levels; the strict parser stops at 64.
        (first, second) => panic!("serde_json refuses: {first:?}, {second:?}"),
    }
}

/// However a stream is cut, its events are the same, their bytes are those of the stream, and no more is held
/// than allowed. The first byte says how it is cut.
pub fn events(bytes: &[u8]) {
    const CAP: usize = 512;
    let Some((size, stream)) = bytes.split_first() else { return };
    let split = |size: usize| {
        let mut splitter = EventSplitter::new(CAP);
        let (mut raw, mut data) = (Vec::new(), Vec::new());
        for chunk in stream.chunks(size.max(1)) {
            let pushed = splitter.push(chunk, |event| {
                raw.extend_from_slice(event.raw());
                data.extend(event.data());
                if event.data().is_some() {
                    let _edited = event.with_data(b"{}");
                }
            });
            assert!(splitter.held() <= CAP + 1, "{} bytes are held", splitter.held());
            if pushed.is_err() {
                return (raw, data, None);
            }
        }
        let held = splitter.held();
        (raw, data, Some(held))
    };
    let whole = split(stream.len());
    let (raw, _, held) = &whole;
    assert!(stream.starts_with(raw), "the bytes of the events are not the stream's");
    if let Some(held) = held {
        assert_eq!(raw.len() + held, stream.len(), "bytes are lost");
    }
    assert_eq!(split(usize::from(*size)), whole, "cut by {size}");
    assert_eq!(split(1), whole, "byte by byte");
}

/// An answer of a server is refused, or becomes one in which nothing is listed that must not be seen.
pub fn answer(bytes: &[u8]) {
    let Ok(mut message) = Json::parse_answer(bytes) else { return };
    let original = message.clone();
    let seen = filter_lists(&mut message, |_, name, _| name.len().is_multiple_of(2));
    assert_eq!(seen.edited, message != original, "what was edited is not what it was");
    let again = filter_lists(&mut message, |_, name, _| {
        assert!(name.len().is_multiple_of(2), "{name:?} must not be seen");
        true
    });
    assert_eq!((again.shown, again.hidden), (seen.shown, 0), "filtering twice");
}

/// A text survives its header, and no schema makes reading marks fail. The bytes are both.
pub fn mirror(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let headers = Headers::from_pairs([("mcp-name", encode_mirrored(&text))]);
    assert_eq!(headers.mirrored("mcp-name"), Ok(Some(text.clone().into_owned())));
    let raw = Headers::from_pairs([("mcp-param-a", bytes.to_vec())]);
    let arguments = Json::Object([("a", Json::from(&*text))].into_iter().collect());
    if let Some(mirror) = Mirror::new("a", vec!["a".into()]) {
        let _may_differ = mirror.check(&raw, &arguments);
    }
    if let Ok(schema) = Json::parse(bytes) {
        let marks = Mirror::of_schema(&schema).unwrap_or_default();
        assert!(marks.len() <= MAX_MIRRORS, "{} marks", marks.len());
    }
}
