//! Texts with claims of the caller in them: `mcp/{sub}/github`.
//!
//! A placeholder is a verified claim and nothing else, so that a caller cannot choose what stands
//! there. In a path it stays one segment that means itself: what could be read as a separator, a step
//! upwards or an escape is refused, not rewritten, so that no two claims become the same path.

use toolgate_policy::CallerKind;

use crate::audit::digest;
use crate::identity::KnownCaller;

/// Longest value of a claim in bytes.
const LONGEST_CLAIM: usize = 256;

/// A text with placeholders, compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Claim { claim: Claim, hashed: bool },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Claim {
    /// Who the caller is: `sub` with the issuer's `principal_prefix`.
    Subject,
    /// The OAuth client that holds the token.
    Client,
    /// The token's issuer.
    Issuer,
    /// For whom the caller acts: `user` or `client`.
    Type,
}

/// Why a template cannot be filled in for a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateError {
    /// The caller has no such claim; anonymous ones have none at all.
    #[error("the caller has no claim that the configuration needs")]
    Absent,
    /// A client would be given what a user of the same name has (RFC 9068 section 5).
    #[error("the caller is a client, and `{{sub}}` without `{{type}}` names users")]
    OfUsers,
    /// The claim's value cannot be one segment of a path.
    #[error("a claim of the caller cannot stand in a path")]
    Unsafe,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// What is wrong with it, for whoever configures.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, following) = after.split_once('}').ok_or("a `{` has no `}`".to_owned())?;
            if before.contains('}') {
                return Err("a `}` has no `{`".into());
            }
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            let (name, hashed) =
                match name.strip_prefix("sha256(").and_then(|n| n.strip_suffix(')')) {
                    Some(name) => (name, true),
                    None => (name, false),
                };
            let claim = match name {
                "sub" => Claim::Subject,
                "client" => Claim::Client,
                "iss" => Claim::Issuer,
                "type" => Claim::Type,
                _ => return Err(format!("there is no claim {{{name}}}")),
            };
            parts.push(Part::Claim { claim, hashed });
            rest = following;
        }
        if rest.contains('}') {
            return Err("a `}` has no `{`".into());
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self(parts))
    }

    /// Whether it differs from caller to caller.
    pub(crate) fn is_per_caller(&self) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Claim { .. }))
    }

    /// The text with every placeholder as `x`: what can be checked before there is a caller.
    pub(crate) fn sample(&self) -> String {
        self.0
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.as_str(),
                Part::Claim { .. } => "x",
            })
            .collect()
    }

    /// The path for this caller, each claim one segment or a part of one.
    ///
    /// # Errors
    /// [`TemplateError`]; nothing is asked of anybody then.
    pub(crate) fn path(&self, caller: &KnownCaller) -> Result<String, TemplateError> {
        self.filled(caller, |value| {
            is_segment(value).then(|| percent_encoded(value)).ok_or(TemplateError::Unsafe)
        })
    }

    fn filled(
        &self,
        caller: &KnownCaller,
        escape: impl Fn(&str) -> Result<String, TemplateError>,
    ) -> Result<String, TemplateError> {
        let has = |wanted: &Claim| {
            let of = |part: &Part| matches!(part, Part::Claim { claim, .. } if claim == wanted);
            self.0.iter().any(of)
        };
        let is_client = caller.kind == Some(CallerKind::Client);
        if is_client && has(&Claim::Subject) && !has(&Claim::Type) {
            return Err(TemplateError::OfUsers);
        }
        let mut filled = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => filled.push_str(text),
                Part::Claim { claim, hashed } => {
                    let value = claim.of(caller).ok_or(TemplateError::Absent)?;
                    match hashed {
                        true => filled.push_str(&digest(value.as_bytes())),
                        false => filled.push_str(&escape(value)?),
                    }
                }
            }
        }
        Ok(filled)
    }
}

impl Claim {
    fn of<'a>(&self, caller: &'a KnownCaller) -> Option<&'a str> {
        // An anonymous caller has no issuer, and nothing that it is called is a claim.
        let issuer = caller.issuer.as_deref()?;
        match self {
            Self::Subject => Some(&caller.subject),
            Self::Client => caller.client.as_deref(),
            Self::Issuer => Some(issuer),
            Self::Type => Some(caller.type_name()),
        }
    }
}

/// Whether a value is one segment of a path however often servers on the way decode it.
fn is_segment(value: &str) -> bool {
    !value.is_empty()
        && value.len() <= LONGEST_CLAIM
        && value != "."
        && !value.contains("..")
        && !value.chars().any(|c| c.is_control() || matches!(c, '/' | '\\' | '%' | '\u{fffd}'))
        // Some servers strip them, and then two callers would be one.
        && value.trim() == value
}

/// Every byte but the unreserved ones of RFC 3986 section 2.3 as `%XX`.
pub(crate) fn percent_encoded(value: &str) -> String {
    use std::fmt::Write as _;
    let is_plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    // It may be a secret: a text that grows leaves copies behind.
    let length = value.bytes().map(|byte| if is_plain(byte) { 1 } else { 3 }).sum();
    let mut encoded = String::with_capacity(length);
    for byte in value.bytes() {
        if is_plain(byte) {
            encoded.push(char::from(byte));
        } else {
            let _infallible = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn segment(value: &str) -> Option<String> {
        is_segment(value).then(|| percent_encoded(value))
    }

    #[test]
    fn a_claim_is_one_segment_of_a_path_or_none() {
        assert_eq!(segment("alice"), Some("alice".into()));
        assert_eq!(segment("auth0|7 é@x"), Some("auth0%7C7%20%C3%A9%40x".into()));
        let long = "a".repeat(10 << 10);
        for walking in [
            "", ".", "..", "a/../b", "../admin", "a/b", r"a\b", "a%2fb", "%2e%2e", "a\0b", "a\nb",
            "a\u{85}b", " a", "a ", "..a", &long,
        ] {
            assert_eq!(segment(walking), None, "{walking:?}");
        }
    }

    #[test]
    fn a_template_knows_its_claims_and_no_others() {
        let template = Template::parse("mcp/{sub}/{sha256(iss)}/x").unwrap();
        assert!(template.is_per_caller());
        assert_eq!(template.sample(), "mcp/x/x/x");
        assert!(!Template::parse("mcp/billing").unwrap().is_per_caller());
        for broken in ["{", "}", "a{sub", "a}b{sub}", "{groups}", "{}", "{sha256(x)}", "{{sub}}"] {
            assert!(Template::parse(broken).is_err(), "{broken}");
        }
    }
}
