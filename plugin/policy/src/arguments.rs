//! Arguments of a typed tool: JSON into Cedar values along a type that is known beforehand.
//!
//! The type leads, the data follows: no member of the data can select what it is read as, so the
//! escapes of Cedar's own JSON format (`__entity`, `__extn`) are plain members here, and recursion
//! is as deep as the declared type, whatever is sent. A member that is not declared is refused: a
//! forbid could not see it. Not here: JSON Schema; servers check their own.

use std::fmt;

use cedar_policy_core::ast::Value;
use toolgate_protocol::json::{Json, Object};

use crate::values;

/// Most values, at all depths together, that one call may hold.
pub(crate) const MAX_VALUES: usize = 10_000;

/// The type of an argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ArgumentType {
    /// JSON booleans.
    Bool,
    /// JSON integers; numbers with a fraction or exponent are none, not even `5.0`.
    Long,
    /// JSON strings.
    String,
    /// JSON numbers with at most four digits after the point, and strings that hold one.
    Decimal,
    /// JSON strings that hold an RFC 3339 date or date and time, at most to the millisecond.
    Datetime,
    /// JSON strings that hold an address or a range of addresses.
    Ip,
    /// JSON arrays; order and repetition are lost to policies, not to the server.
    Set(Box<ArgumentType>),
    /// JSON objects with these members and no others.
    Record(RecordType),
}

/// The members an object may and must have.
pub(crate) type RecordType = Vec<Member>;

/// A member of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) ty: ArgumentType,
    pub(crate) required: bool,
}

/// Converts the `arguments` of a call; `null` counts as no arguments.
///
/// # Errors
/// A text for the caller, with the path and the type that is expected there, without the value.
pub(crate) fn convert(members: &RecordType, arguments: &Json) -> Result<Value, String> {
    let mut reader = Reader { path: vec![Step::Member("arguments")], values: 0 };
    match arguments {
        Json::Null => reader.record(members, &Object::default()),
        Json::Object(object) => reader.record(members, object),
        other => Err(reader.expected("an object", other)),
    }
}

/// Where the reader is, and how much it has read.
struct Reader<'a> {
    path: Vec<Step<'a>>,
    values: usize,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Member(&'a str),
    Element(usize),
}

impl<'a> Reader<'a> {
    fn value(&mut self, ty: &'a ArgumentType, json: &'a Json) -> Result<Value, String> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(format!("`arguments` holds more than {MAX_VALUES} values"));
        }
        match (ty, json) {
            (ArgumentType::Bool, Json::Bool(value)) => Ok((*value).into()),
            (ArgumentType::Long, Json::Integer(value)) => Ok((*value).into()),
            (ArgumentType::String, Json::String(value)) => Ok(value.as_str().into()),
            (ArgumentType::Decimal, Json::Integer(_) | Json::Float(_) | Json::String(_)) => {
                decimal_text(json)
                    .and_then(|text| values::DECIMAL.value(&text))
                    .ok_or_else(|| self.expected(ty, json))
            }
            (ArgumentType::Datetime, Json::String(value)) => datetime_text(value)
                .and_then(|text| values::DATETIME.value(&text))
                .ok_or_else(|| self.expected(ty, json)),
            (ArgumentType::Ip, Json::String(value)) => {
                values::IP.value(value).ok_or_else(|| self.expected(ty, json))
            }
            (ArgumentType::Set(element), Json::Array(elements)) => {
                let mut values = Vec::with_capacity(elements.len().min(MAX_VALUES));
                for (index, json) in elements.iter().enumerate() {
                    self.path.push(Step::Element(index));
                    values.push(self.value(element, json)?);
                    self.path.pop();
                }
                Ok(Value::set(values, None))
            }
            (ArgumentType::Record(members), Json::Object(object)) => self.record(members, object),
            _ => Err(self.expected(ty, json)),
        }
    }

    fn record(&mut self, members: &'a RecordType, object: &'a Object) -> Result<Value, String> {
        // First the unknown ones: a caller that misspells an optional member hears of it.
        if let Some((name, _)) =
            object.iter().find(|(name, _)| members.iter().all(|member| member.name != *name))
        {
            self.path.push(Step::Member(name));
            let known: Vec<_> = members.iter().map(|member| member.name.as_str()).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(format!("unknown member `{self}`, expected members: {known}"));
        }
        let mut pairs = Vec::with_capacity(object.len());
        for member in members {
            self.path.push(Step::Member(&member.name));
            match object.get(&member.name) {
                None | Some(Json::Null) if !member.required => {}
                None => {
                    return Err(format!("missing member `{self}`, expected {}", member.ty));
                }
                Some(json) => pairs.push((member.name.as_str(), self.value(&member.ty, json)?)),
            }
            self.path.pop();
        }
        Ok(Value::record(pairs, None))
    }

    fn expected(&self, ty: impl fmt::Display, found: &Json) -> String {
        format!("`{self}` must be {ty}, found {}", found.kind())
    }
}

/// The path in the arguments, e.g. `arguments.lines[2].amount`, cut where names are long.
impl fmt::Display for Reader<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.path.iter().enumerate() {
            match step {
                Step::Member(name) => {
                    let separator = if index == 0 { "" } else { "." };
                    let short: String = name.chars().take(64).collect();
                    write!(formatter, "{separator}{}", short.escape_debug())?;
                }
                Step::Element(element) => write!(formatter, "[{element}]")?,
            }
        }
        Ok(())
    }
}

/// In the words of an error message.
impl fmt::Display for ArgumentType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Bool => "a boolean",
            Self::Long => "an integer, written without fraction or exponent",
            Self::String => "a string",
            Self::Decimal => {
                "a number with at most 4 digits after the point, within ±922337203685477.5807"
            }
            Self::Datetime => "an RFC 3339 date or date-time, at most to the millisecond",
            Self::Ip => "an IP address or range",
            Self::Set(element) => return write!(formatter, "an array, each element {element}"),
            Self::Record(_) => "an object",
        })
    }
}

/// A number as Cedar's `decimal` reads it, which takes one to four digits after a point. Whether it
/// is within range Cedar tells.
fn decimal_text(json: &Json) -> Option<String> {
    let text = match json {
        Json::Integer(value) => value.to_string(),
        // The shortest text that reads back as this double: what the caller wrote, unless it wrote
        // more digits than a double holds, and what is forwarded to the server in any case.
        Json::Float(value) => value.to_string(),
        Json::String(value) => value.clone(),
        _ => return None,
    };
    Some(if text.contains('.') { text } else { format!("{text}.0") })
}

/// An RFC 3339 date or date-time as Cedar's `datetime` reads it, which takes exactly no or three
/// digits of a second and an offset without a colon. What else is wrong with it Cedar tells.
fn datetime_text(text: &str) -> Option<String> {
    let Some((date, time)) = text.split_once('T') else {
        return Some(text.to_owned());
    };
    let zone = time.find(['Z', '+', '-'])?;
    let (time, zone) = time.split_at_checked(zone)?;
    let zone = match zone.as_bytes() {
        [b'Z'] => zone.to_owned(),
        [b'+' | b'-', _, _, b':', _, _] => zone.replace(':', ""),
        _ => return None,
    };
    let time = match time.split_once('.') {
        None => time.to_owned(),
        Some((seconds, fraction)) => {
            let digits = fraction.trim_end_matches('0');
            if fraction.is_empty() || digits.len() > 3 {
                return None;
            }
            format!("{seconds}.{digits:0<3}")
        }
    };
    Some(format!("{date}T{time}{zone}"))
}
