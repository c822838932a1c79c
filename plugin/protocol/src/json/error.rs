//! Why a document is not strict JSON: one word for each rule, so that each has its own error.

/// The rule that a document breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonFault {
    /// It is no JSON (RFC 8259).
    Syntax,
    /// It begins with a byte order mark, which parsers skip, keep or stumble over (RFC 8259 section 8.1).
    ByteOrderMark,
    /// It is not UTF-8: another encoding, or bytes that parsers replace differently.
    NotUtf8,
    /// A string escapes half of a surrogate pair, which parsers replace, keep or refuse.
    LoneSurrogate,
    /// An object has the same key twice: parsers take the first, the last or both.
    DuplicateKey,
    /// A number that not every parser holds exactly (RFC 8259 section 6).
    UnsafeNumber,
    /// Nested deeper than [`MAX_DEPTH`](super::MAX_DEPTH).
    TooDeep,
}

/// Why bytes are not one strict JSON document. `Display` names the position.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct JsonError {
    fault: JsonFault,
    message: String,
}

impl JsonError {
    /// The rule that is broken.
    #[must_use]
    pub fn fault(&self) -> JsonFault {
        self.fault
    }

    /// What the parser says about `bytes`. `found` is the rule of ours that stopped it, if one did.
    pub(super) fn new(error: &serde_json::Error, found: Option<JsonFault>, bytes: &[u8]) -> Self {
        let text = error.to_string();
        let fault = found.unwrap_or_else(|| fault_of(&text, bytes));
        let message = match fault {
            JsonFault::ByteOrderMark => "it begins with a byte order mark".into(),
            JsonFault::NotUtf8 => "it is not UTF-8".into(),
            _ => text,
        };
        Self { fault, message }
    }
}

/// The rule behind an error of the parser itself. Runs for refused documents only.
fn fault_of(text: &str, bytes: &[u8]) -> JsonFault {
    if bytes.starts_with(b"\xef\xbb\xbf") {
        JsonFault::ByteOrderMark
    } else if std::str::from_utf8(bytes).is_err() || looks_like_utf16(bytes) {
        JsonFault::NotUtf8
    } else if text.starts_with("lone leading surrogate")
        || text.starts_with("unexpected end of hex escape")
    {
        JsonFault::LoneSurrogate
    } else if text.starts_with("number out of range") {
        JsonFault::UnsafeNumber
    } else {
        JsonFault::Syntax
    }
}

/// JSON begins with two ASCII characters, so a NUL among the first two bytes is UTF-16 or UTF-32
/// (RFC 4627 section 3). Such text may well be valid UTF-8 that is full of NUL.
fn looks_like_utf16(bytes: &[u8]) -> bool {
    bytes.iter().take(2).any(|byte| *byte == 0)
}
