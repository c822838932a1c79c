//! HTTP header fields that MCP reads and mirrors: one value each, compared with the body.
//!
//! Source: 2026-07-28, "Streamable HTTP", standard request headers and value encoding. Not here:
//! which headers go on to the server (the gateway's `upstream`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The header fields of a request or response as the host gives them: names in lower case,
/// pseudo-headers (`:method`, `:path`) among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, Vec<u8>)>);

/// A header field that must be single or plain text is not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Given more than once: parsers pick different ones.
    #[error("header {0} appears more than once")]
    Repeated(String),
    /// Holds bytes outside visible ASCII, space and tab.
    #[error("header {0} is not plain ASCII")]
    NotAscii(String),
    /// Claims the base64 form of 2026-07-28 and is not validly encoded.
    #[error("header {0} has an invalid =?base64?…?= value")]
    BadEncoding(String),
}

impl Headers {
    /// Header fields from name and value; names are lower-cased.
    pub fn from_pairs<N: Into<String>, V: Into<Vec<u8>>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let lower = |name: N| {
            let mut name: String = name.into();
            name.make_ascii_lowercase();
            name
        };
        Self(pairs.into_iter().map(|(name, value)| (lower(name), value.into())).collect())
    }

    /// All fields in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// Whether there is a field of this name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|(present, _)| present == name)
    }

    /// The value of a field that must be single and plain ASCII, surrounding white space removed
    /// (RFC 9110 section 5.5). `name` in lower case.
    ///
    /// # Errors
    /// [`HeaderError`] when it is given twice or holds other bytes.
    pub fn single(&self, name: &str) -> Result<Option<&str>, HeaderError> {
        let mut values = self.0.iter().filter(|(present, _)| present == name);
        let Some((_, value)) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(HeaderError::Repeated(name.to_owned()));
        }
        match std::str::from_utf8(value) {
            Ok(text) if is_plain(value) => Ok(Some(text.trim_matches([' ', '\t']))),
            _ => Err(HeaderError::NotAscii(name.to_owned())),
        }
    }

    /// The value of a field that mirrors a name of the body: decoded where it is in the base64 form.
    ///
    /// # Errors
    /// [`HeaderError`] as for [`Headers::single`], or when the base64 form is invalid.
    pub fn mirrored(&self, name: &str) -> Result<Option<String>, HeaderError> {
        let Some(value) = self.single(name)? else { return Ok(None) };
        decode_mirrored(value).map(Some).ok_or_else(|| HeaderError::BadEncoding(name.to_owned()))
    }
}

const ENCODED_PREFIX: &str = "=?base64?";
const ENCODED_SUFFIX: &str = "?=";

/// The value of a mirrored header for this text: itself, or its base64 form where a header cannot
/// carry it or where it would be read as that form.
#[must_use]
pub fn encode_mirrored(text: &str) -> String {
    let plain = is_plain(text.as_bytes())
        && text.trim_matches([' ', '\t']) == text
        && encoded_part(text).is_none();
    if plain {
        text.to_owned()
    } else {
        format!("{ENCODED_PREFIX}{}{ENCODED_SUFFIX}", STANDARD.encode(text))
    }
}

/// Whether these are visible ASCII, spaces and tabs. Not one branch for each byte: tokens are long.
fn is_plain(bytes: &[u8]) -> bool {
    let is_plain = |byte: u8| (byte == b'\t') | byte.wrapping_sub(b' ').lt(&0x5f);
    bytes.iter().fold(true, |plain, byte| plain & is_plain(*byte))
}

fn decode_mirrored(value: &str) -> Option<String> {
    match encoded_part(value) {
        None => Some(value.to_owned()),
        Some(encoded) => String::from_utf8(STANDARD.decode(encoded).ok()?).ok(),
    }
}

fn encoded_part(value: &str) -> Option<&str> {
    value.strip_prefix(ENCODED_PREFIX)?.strip_suffix(ENCODED_SUFFIX)
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn a_header_given_twice_is_ambiguous() {
        let headers =
            Headers::from_pairs([("Mcp-Name", "a"), ("mcp-name", "b"), ("Accept", " x ")]);
        assert_eq!(headers.single("mcp-name"), Err(HeaderError::Repeated("mcp-name".into())));
        assert_eq!(headers.single("accept"), Ok(Some("x")));
        assert_eq!(headers.single("origin"), Ok(None));
    }

    #[test]
    fn any_text_survives_the_mirrored_form() {
        for text in ["refund", "a b", " a", "naïve", "=?base64?eA==?=", "", "\u{7f}", "a\tb", "\n"]
        {
            let encoded = encode_mirrored(text);
            assert!(encoded.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~')), "{text:?}");
            let headers = Headers::from_pairs([("mcp-name", encoded)]);
            assert_eq!(headers.mirrored("mcp-name"), Ok(Some(text.to_owned())), "{text:?}");
        }
    }

    #[test]
    fn visible_ascii_spaces_and_tabs_are_plain_and_no_other_byte() {
        for byte in 0..=u8::MAX {
            let expected = matches!(byte, b'\t' | b' '..=b'~');
            assert_eq!(is_plain(&[b'a', byte, b'a']), expected, "{byte}");
        }
    }

    #[test]
    fn a_broken_base64_form_is_refused() {
        for value in ["=?base64?x?=", "=?base64?eA=?=", "=?base64?/w==?=", "=?base64?e A==?="] {
            let headers = Headers::from_pairs([("mcp-name", value)]);
            assert!(headers.mirrored("mcp-name").is_err(), "{value}");
        }
    }
}
