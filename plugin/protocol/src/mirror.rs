//! `Mcp-Param-*`: which arguments of a tool its calls repeat in header fields, and whether a call does.
//!
//! A tool's `inputSchema` marks them with `x-mcp-header` (2026-07-28, Streamable HTTP, "Custom headers
//! from tool parameters"). Not here: where the schema comes from, and who may call the tool.

use crate::headers::{HeaderError, Headers, encode_mirrored};
use crate::json::{Json, Object};

/// Most marked arguments of one tool that are read.
pub const MAX_MIRRORS: usize = 32;

/// Deepest property that is read.
const MAX_PATH: usize = 16;

/// Longest name of a header or property that is read, in bytes.
const MAX_NAME: usize = 256;

/// One argument that a header field repeats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    header: String,
    path: Vec<String>,
}

/// Why a call does not repeat an argument as it must.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MirrorError {
    /// The field is ambiguous or not decodable.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The argument is there and the field is not.
    #[error("header {0} is missing; it must repeat an argument of the tool")]
    Missing(String),
    /// The field is there and the argument is not.
    #[error("header {0} is there, and the argument that it repeats is not")]
    Unexpected(String),
    /// They differ, or the argument is of a type that no header repeats.
    #[error("header {0} contradicts the argument that it repeats")]
    Contradicts(String),
}

impl Mirror {
    /// The argument at `path` (names of properties, outermost first), repeated in `Mcp-Param-{name}`.
    /// `None` when the name is no token (RFC 9110 section 5.6.2) or the path leads nowhere.
    #[must_use]
    pub fn new(name: &str, path: Vec<String>) -> Option<Self> {
        let is_usable = !name.is_empty()
            && name.len() <= MAX_NAME
            && name.bytes().all(is_token)
            && (1..=MAX_PATH).contains(&path.len())
            && path.iter().all(|name| name.len() <= MAX_NAME);
        is_usable.then(|| Self { header: format!("mcp-param-{}", name.to_ascii_lowercase()), path })
    }

    /// The arguments that the schema of a tool marks. `None` when a mark is not one that the
    /// specification allows, or there are too many: clients then leave the tool out.
    #[must_use]
    pub fn of_schema(schema: &Json) -> Option<Vec<Self>> {
        let mut found = Vec::new();
        collect(schema, &mut Vec::new(), &mut found)?;
        Some(found)
    }

    /// Name and value of the header field that a call with these arguments has to have; `None` where the
    /// argument is absent, or of a type that no header repeats.
    #[must_use]
    pub fn field(&self, arguments: &Json) -> Option<(&str, String)> {
        let argument = self.path.iter().try_fold(arguments, |value, name| value.get(name))?;
        let value = match argument {
            Json::String(text) => encode_mirrored(text),
            Json::Bool(value) => value.to_string(),
            Json::Integer(integer) => integer.to_string(),
            Json::Float(_) | Json::Null | Json::Array(_) | Json::Object(_) => return None,
        };
        Some((&self.header, value))
    }

    /// Compares the header field with the arguments of a call.
    ///
    /// # Errors
    /// [`MirrorError`] when they do not say the same.
    pub fn check(&self, headers: &Headers, arguments: &Json) -> Result<(), MirrorError> {
        let path = self.path.iter().try_fold(arguments, |value, name| value.get(name));
        let argument = path.filter(|value| **value != Json::Null);
        let header = || self.header.clone();
        match (headers.mirrored(&self.header)?, argument) {
            (None, None) => Ok(()),
            (None, Some(_)) => Err(MirrorError::Missing(header())),
            (Some(_), None) => Err(MirrorError::Unexpected(header())),
            (Some(field), Some(argument)) if says_the_same(&field, argument) => Ok(()),
            (Some(_), Some(_)) => Err(MirrorError::Contradicts(header())),
        }
    }
}

/// Texts are compared as they are, numbers by value: `42.0` is 42.
fn says_the_same(field: &str, argument: &Json) -> bool {
    match argument {
        Json::String(text) => field == text,
        Json::Bool(value) => field == if *value { "true" } else { "false" },
        Json::Integer(_) | Json::Float(_) => {
            let field = Json::parse(field.as_bytes()).ok();
            field.as_ref().and_then(number).is_some_and(|field| Some(field) == number(argument))
        }
        Json::Null | Json::Array(_) | Json::Object(_) => false,
    }
}

/// A number as a double, which holds every integer that [`Json`] does.
fn number(value: &Json) -> Option<f64> {
    match value {
        Json::Integer(integer) => Some(*integer as f64),
        Json::Float(float) => Some(*float),
        _ => None,
    }
}

/// Marks count along `properties` only: below anything else an argument is not there for certain.
fn collect(schema: &Json, path: &mut Vec<String>, found: &mut Vec<Mirror>) -> Option<()> {
    let Some(properties) = schema.get("properties").and_then(Json::as_object) else {
        return Some(());
    };
    for (name, property) in properties.iter() {
        if path.len() >= MAX_PATH {
            return Some(());
        }
        path.push(name.to_owned());
        if let Some(mark) = property.get("x-mcp-header") {
            let mirror = Mirror::new(mark.as_str()?, path.clone())?;
            let is_first = found.iter().all(|other| other.header != mirror.header);
            if !is_first || !is_simple(property.as_object()?) || found.len() >= MAX_MIRRORS {
                return None;
            }
            found.push(mirror);
        }
        collect(property, path, found)?;
        path.pop();
    }
    Some(())
}

fn is_simple(property: &Object) -> bool {
    let kind = property.get("type").and_then(Json::as_str);
    matches!(kind, Some("string" | "integer" | "boolean"))
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn mirrors(schema: &str) -> Option<Vec<Mirror>> {
        Mirror::of_schema(&Json::parse(schema.as_bytes()).unwrap())
    }

    fn check(mirror: &Mirror, field: Option<&str>, arguments: &str) -> Result<(), MirrorError> {
        let fields = field.map(|value| ("Mcp-Param-Region", value));
        let headers = Headers::from_pairs(fields);
        mirror.check(&headers, &Json::parse(arguments.as_bytes()).unwrap())
    }

    #[test]
    fn marks_along_properties_are_found() {
        let found = mirrors(
            r#"{"type":"object","properties":{"region":{"type":"string","x-mcp-header":"Region"},
                "where":{"type":"object","properties":{"row":{"type":"integer","x-mcp-header":"Row"}}},
                "any":{"anyOf":[{"properties":{"x":{"type":"string","x-mcp-header":"X"}}}]}}}"#,
        );
        let expected = [
            Mirror::new("region", vec!["region".into()]).unwrap(),
            Mirror::new("row", vec!["where".into(), "row".into()]).unwrap(),
        ];
        assert_eq!(found.unwrap(), expected);
        assert_eq!(mirrors(r#"{"type":"object"}"#), Some(Vec::new()));
        assert_eq!(mirrors("true"), Some(Vec::new()));
    }

    #[test]
    fn a_mark_that_the_specification_does_not_allow_spoils_the_tool() {
        for property in [
            r#"{"type":"string","x-mcp-header":""}"#,
            r#"{"type":"string","x-mcp-header":"a b"}"#,
            r#"{"type":"string","x-mcp-header":7}"#,
            r#"{"type":"object","x-mcp-header":"A"}"#,
            r#"{"x-mcp-header":"A"}"#,
        ] {
            assert_eq!(mirrors(&format!(r#"{{"properties":{{"a":{property}}}}}"#)), None);
        }
        let twice = r#"{"properties":{"a":{"type":"string","x-mcp-header":"A"},"b":{"type":"string","x-mcp-header":"a"}}}"#;
        assert_eq!(mirrors(twice), None);
    }

    #[test]
    fn header_and_argument_must_say_the_same() {
        let region = Mirror::new("Region", vec!["region".into()]).unwrap();
        for (field, arguments) in [
            (None, "{}"),
            (None, r#"{"region":null}"#),
            (Some("eu"), r#"{"region":"eu"}"#),
            (Some("=?base64?ZXU=?="), r#"{"region":"eu"}"#),
            (Some("=?base64?ZXU="), r#"{"region":"=?base64?ZXU="}"#),
            (Some("42"), r#"{"region":42}"#),
            (Some("42.0"), r#"{"region":42}"#),
            (Some("42"), r#"{"region":42.0}"#),
            (Some("true"), r#"{"region":true}"#),
        ] {
            assert_eq!(check(&region, field, arguments), Ok(()), "{field:?} {arguments}");
        }
        for (field, arguments) in [
            (None, r#"{"region":"eu"}"#),
            (Some("eu"), "{}"),
            (Some("EU"), r#"{"region":"eu"}"#),
            (Some("=?base64?ZX?="), r#"{"region":"eu"}"#),
            (Some("043"), r#"{"region":43}"#),
            (Some("43"), r#"{"region":42}"#),
            (Some("True"), r#"{"region":true}"#),
            (Some("{}"), r#"{"region":{}}"#),
        ] {
            assert!(check(&region, field, arguments).is_err(), "{field:?} {arguments}");
        }
    }
}
