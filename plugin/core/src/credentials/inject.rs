//! How credentials are attached to a request: which header or query parameter, in which form.

use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::template::percent_encoded;
use super::{Fetched, Wanted};
use crate::secret::Secret;

/// How a credential is attached, compiled.
pub(crate) struct Injection {
    pub(crate) credential: Rc<str>,
    pub(crate) place: Place,
    /// The value.
    pub(crate) format: Format,
    /// Numbers of the fields in it that nobody may see: all but a user's name.
    pub(crate) secret_fields: Rc<[usize]>,
}

/// Where a credential goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A header field.
    Header(String),
    /// A parameter of the query.
    Query(String),
}

/// A value with fields of a secret in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    parts: Vec<Part>,
    /// Whether it is user and password of the Basic scheme (RFC 7617).
    basic: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    /// The field with this number.
    Field(usize),
}

/// A credential that goes with a request.
pub(crate) struct Injected {
    /// What it was looked up by; it is forgotten when the server refuses it.
    pub(crate) wanted: Wanted,
    pub(crate) fetched: Rc<Fetched>,
    /// Numbers of the fields that nobody may see.
    pub(crate) secret_fields: Rc<[usize]>,
}

impl Format {
    /// Reads a format, in which `{}` is the first of `fields` and `{name}` any of them.
    ///
    /// # Errors
    /// What is wrong with it, for whoever configures.
    pub(crate) fn parse(text: &str, fields: &[String], basic: bool) -> Result<Self, String> {
        if !text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return Err("it has other characters than visible ASCII".into());
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, following) = after.split_once('}').ok_or("a `{` has no `}`")?;
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            let named = |field: &String| field.strip_prefix('/') == Some(name) || field == name;
            let index = match name {
                "" => Some(0),
                _ => fields.iter().position(named),
            };
            parts.push(Part::Field(index.ok_or(format!("the credential has no field {name:?}"))?));
            rest = following;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        if !parts.iter().any(|part| matches!(part, Part::Field(_))) {
            return Err("it does not hold the secret: write `{}` where it goes".into());
        }
        if basic && !text.contains(':') {
            return Err("user and password are separated by a colon".into());
        }
        Ok(Self { parts, basic })
    }

    /// Numbers of the fields that nobody may see: all but those that are the name of a user, before the
    /// colon of the Basic scheme.
    pub(crate) fn secret_fields(&self) -> Rc<[usize]> {
        let is_colon = |part: &Part| matches!(part, Part::Text(text) if text.contains(':'));
        let password = if self.basic { self.parts.iter().position(is_colon) } else { None };
        let parts = self.parts.iter().skip(password.unwrap_or_default());
        parts
            .filter_map(|part| if let Part::Field(index) = part { Some(*index) } else { None })
            .collect()
    }

    /// The value with the secret in it. `None` where the secret lacks a field, which it was checked for.
    pub(crate) fn filled(&self, fetched: &Fetched) -> Option<Secret> {
        let mut size = 0;
        for part in &self.parts {
            size += match part {
                Part::Text(text) => text.len(),
                Part::Field(index) => fetched.values.get(*index)?.expose().len(),
            };
        }
        // Large enough from the start: a text that grows leaves copies behind.
        let mut filled = String::with_capacity(size);
        for part in &self.parts {
            match part {
                Part::Text(text) => filled.push_str(text),
                Part::Field(index) => filled.push_str(fetched.values.get(*index)?.expose()),
            }
        }
        let filled = Secret::new(filled);
        if self.basic {
            let encoded = Secret::new(STANDARD.encode(filled.expose()));
            return Some(Secret::joined(&["Basic ", encoded.expose()]));
        }
        Some(filled)
    }
}

/// A query with another parameter.
pub(crate) fn with_parameter(query: Option<Secret>, name: &str, value: &Secret) -> Secret {
    let value = Secret::new(percent_encoded(value.expose()));
    let name = percent_encoded(name);
    match query {
        None => Secret::joined(&[&name, "=", value.expose()]),
        Some(query) => Secret::joined(&[query.expose(), "&", &name, "=", value.expose()]),
    }
}
