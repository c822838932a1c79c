//! A strict JSON tree: what it accepts, every JSON parser reads the same way.
//!
//! The gateway decides on this tree and forwards it re-serialised, so a document that two parsers
//! could read differently must never get through. Refused beyond RFC 8259: duplicate keys, integers
//! that a double cannot hold exactly, nesting over [`MAX_DEPTH`], a byte order mark, lone
//! surrogates, invalid UTF-8. Not here: what the members of a message mean (`jsonrpc`, `mcp`).

mod error;

use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use zeroize::{Zeroize, Zeroizing};

pub use error::{JsonError, JsonFault};

/// Deepest nesting of arrays and objects that is accepted. Cedar's own stack guard is off on
/// WebAssembly, so the bound must be set before values reach it.
pub const MAX_DEPTH: usize = 64;

/// Largest integer that every parser holds exactly: 2^53 - 1 (RFC 8259 section 6).
pub const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

/// Objects up to this size are searched for duplicate keys pair by pair, larger ones by hashing.
const SMALL_OBJECT: usize = 16;

/// One JSON value. Objects keep the order of their members.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number written without fraction or exponent, within ±(2^53 - 1) in all that clients send.
    Integer(i64),
    /// Any other number: finite, as the nearest double.
    Float(f64),
    /// A string without lone surrogates.
    String(String),
    /// An array.
    Array(Vec<Json>),
    /// An object with distinct keys.
    Object(Object),
}

/// The members of a JSON object: distinct keys, in the order they were written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object(Vec<(String, Json)>);

impl Json {
    /// Reads exactly one strict JSON document.
    ///
    /// # Errors
    /// [`JsonError`] with line and column when the bytes are not JSON, or are JSON that parsers
    /// read differently (see the module description).
    pub fn parse(bytes: &[u8]) -> Result<Self, JsonError> {
        Self::read(bytes, false)
    }

    /// Reads a document that nothing is decided on and that goes on to a client: as [`Json::parse`], but
    /// for large numbers. Servers write the bounds of 64 bits into schemas, and a whole list must not be
    /// withheld for that. Whole numbers of 64 bits with a sign stay what they are; larger ones become
    /// the nearest double, which is what most clients make of them.
    ///
    /// # Errors
    /// As [`Json::parse`].
    pub fn parse_answer(bytes: &[u8]) -> Result<Self, JsonError> {
        Self::read(bytes, true)
    }

    /// Reads a document that holds secrets: as [`Json::parse`], and nothing of it is left behind but the
    /// tree, which is its owner's to [wipe](Self::wipe).
    ///
    /// The parser puts strings with escapes together in memory of its own. A string before the document
    /// makes that memory as large as it gets, so that it leaves no copies where it grows; one after the
    /// document is written over what was there.
    ///
    /// # Errors
    /// As [`Json::parse`], but that the place of the error is counted from elsewhere.
    pub fn parse_secret(bytes: &[u8]) -> Result<Self, JsonError> {
        let filler = bytes.len() + 2;
        let mut padded = Zeroizing::new(Vec::with_capacity(bytes.len() + 2 * filler + 8));
        let fill = |padded: &mut Vec<u8>| {
            padded.extend_from_slice(b"\"\\n");
            padded.resize(padded.len() + filler, b' ');
            padded.push(b'"');
        };
        fill(&mut padded);
        padded.extend_from_slice(bytes);
        // No string goes on over the end of a line.
        padded.push(b'\n');
        fill(&mut padded);
        let fault = Cell::new(None);
        let mut reader = serde_json::Deserializer::from_slice(&padded);
        let seed = Seed { depth: 0, large_numbers: false, fault: &fault };
        reader
            .deserialize_str(Unread)
            .and_then(|()| seed.deserialize(&mut reader))
            .and_then(|value| reader.deserialize_str(Unread).map(|()| value))
            .and_then(|value| reader.end().map(|()| value))
            .map_err(|error| JsonError::new(&error, fault.get(), bytes))
    }

    fn read(bytes: &[u8], large_numbers: bool) -> Result<Self, JsonError> {
        let fault = Cell::new(None);
        let mut reader = serde_json::Deserializer::from_slice(bytes);
        Seed { depth: 0, large_numbers, fault: &fault }
            .deserialize(&mut reader)
            .and_then(|value| reader.end().map(|()| value))
            .map_err(|error| JsonError::new(&error, fault.get(), bytes))
    }

    /// The bytes of this value without insignificant white space.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(256);
        self.write(&mut bytes);
        bytes
    }

    /// Appends the bytes of this value.
    pub fn write(&self, out: &mut Vec<u8>) {
        // Writing into memory a tree whose keys are strings and whose numbers are finite cannot
        // fail; if it did, the truncated text is not JSON and the server refuses it.
        let written = serde_json::to_writer(&mut *out, self);
        debug_assert!(written.is_ok(), "a Json value always serialises");
    }

    /// The text of a string value.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The members of an object value.
    #[must_use]
    pub fn as_object(&self) -> Option<&Object> {
        match self {
            Self::Object(object) => Some(object),
            _ => None,
        }
    }

    /// The members of an object value, to be changed.
    #[must_use]
    pub fn as_object_mut(&mut self) -> Option<&mut Object> {
        match self {
            Self::Object(object) => Some(object),
            _ => None,
        }
    }

    /// The elements of an array value.
    #[must_use]
    pub fn as_array(&self) -> Option<&[Json]> {
        match self {
            Self::Array(elements) => Some(elements),
            _ => None,
        }
    }

    /// The elements of an array value, to be changed.
    #[must_use]
    pub fn as_array_mut(&mut self) -> Option<&mut Vec<Json>> {
        match self {
            Self::Array(elements) => Some(elements),
            _ => None,
        }
    }

    /// The member `key` when this is an object that has it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Json> {
        self.as_object()?.get(key)
    }

    /// The value at a path of keys, e.g. `["_meta", "progressToken"]`.
    #[must_use]
    pub fn at(&self, path: &[&str]) -> Option<&Json> {
        path.iter().try_fold(self, |value, key| value.get(key))
    }

    /// Overwrites every text in it: it held a secret, and its memory will be used again.
    pub fn wipe(&mut self) {
        match self {
            Self::String(text) => text.zeroize(),
            Self::Array(values) => values.iter_mut().for_each(Self::wipe),
            Self::Object(Object(members)) => members.iter_mut().for_each(|(_, value)| value.wipe()),
            Self::Null | Self::Bool(_) | Self::Integer(_) | Self::Float(_) => {}
        }
    }

    /// What kind of value this is, in the words of an error message.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a number",
            Self::String(_) => "a string",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
        }
    }
}

impl Object {
    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Json> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// The value of `key`, to be changed.
    #[must_use]
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Json> {
        self.0.iter_mut().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// Sets `key`, replacing a value that is there.
    pub fn set(&mut self, key: &str, value: Json) {
        match self.get_mut(key) {
            Some(present) => *present = value,
            None => self.0.push((key.to_owned(), value)),
        }
    }

    /// Takes `key` out.
    pub fn remove(&mut self, key: &str) -> Option<Json> {
        let index = self.0.iter().position(|(name, _)| name == key)?;
        Some(self.0.remove(index).1)
    }

    /// The members in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Json)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// How many members there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no member.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a member; false, and nothing is added, when the key is there already.
    fn insert_new(&mut self, key: String, value: Json, seen: &mut HashSet<String>) -> bool {
        let duplicate = if self.0.len() < SMALL_OBJECT {
            self.get(&key).is_some()
        } else {
            if seen.is_empty() {
                seen.extend(self.0.iter().map(|(name, _)| name.clone()));
            }
            !seen.insert(key.clone())
        };
        if !duplicate {
            self.0.push((key, value));
        }
        !duplicate
    }
}

/// Builds an object from distinct keys; of a key given twice the last value stays.
impl<K: Into<String>> FromIterator<(K, Json)> for Object {
    fn from_iter<I: IntoIterator<Item = (K, Json)>>(members: I) -> Self {
        let mut object = Self::default();
        for (key, value) in members {
            object.set(&key.into(), value);
        }
        object
    }
}

impl From<Object> for Json {
    fn from(object: Object) -> Self {
        Self::Object(object)
    }
}

impl From<&str> for Json {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

impl From<String> for Json {
    fn from(text: String) -> Self {
        Self::String(text)
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Integer(value) => serializer.serialize_i64(*value),
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::String(value) => serializer.serialize_str(value),
            Self::Array(elements) => {
                let mut sequence = serializer.serialize_seq(Some(elements.len()))?;
                for element in elements {
                    sequence.serialize_element(element)?;
                }
                sequence.end()
            }
            Self::Object(object) => object.serialize(serializer),
        }
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// A string that the parser puts together and nobody reads.
struct Unread;

impl Visitor<'_> for Unread {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a string")
    }

    fn visit_str<E: de::Error>(self, _text: &str) -> Result<(), E> {
        Ok(())
    }
}

/// Deserialises a value that lies `depth` containers deep.
#[derive(Clone, Copy)]
struct Seed<'a> {
    depth: usize,
    /// Whether numbers that not every parser holds exactly are accepted.
    large_numbers: bool,
    /// The rule of this module that stopped the parser.
    fault: &'a Cell<Option<JsonFault>>,
}

impl Seed<'_> {
    fn deeper<E: de::Error>(self) -> Result<Self, E> {
        if self.depth >= MAX_DEPTH {
            let message = format_args!("nested deeper than {MAX_DEPTH} levels");
            return Err(self.refuse(JsonFault::TooDeep, message));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }

    fn refuse<E: de::Error>(self, fault: JsonFault, message: impl fmt::Display) -> E {
        self.fault.set(Some(fault));
        E::custom(message)
    }

    fn unsafe_number<E: de::Error>(self, number: impl fmt::Display) -> E {
        self.refuse(
            JsonFault::UnsafeNumber,
            format_args!(
                "number {number} is beyond ±(2^53 - 1), where parsers disagree; send it as a string"
            ),
        )
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Json;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Json, E> {
        match i64::try_from(value) {
            Ok(integer) if self.large_numbers || value <= MAX_SAFE_INTEGER => {
                Ok(Json::Integer(integer))
            }
            Err(_) if self.large_numbers => Ok(Json::Float(value as f64)),
            _ => Err(self.unsafe_number(value)),
        }
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Json, E> {
        if self.large_numbers || value.unsigned_abs() <= MAX_SAFE_INTEGER {
            Ok(Json::Integer(value))
        } else {
            Err(self.unsafe_number(value))
        }
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Json, E> {
        // serde_json falls back to a double for integers beyond 64 bits: those are refused like
        // all others beyond 2^53. What was written with an exponent is refused with them, since
        // from here they look alike.
        let is_safe = self.large_numbers || value.abs() <= MAX_SAFE_INTEGER as f64;
        if !value.is_finite() || !is_safe {
            return Err(E::custom(format_args!(
                "number {value:e} is beyond ±(2^53 - 1), where parsers disagree; send it as a string"
            )));
        }
        Ok(Json::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Json, A::Error> {
        let seed = self.deeper()?;
        let mut elements = Vec::new();
        while let Some(element) = sequence.next_element_seed(seed)? {
            elements.push(element);
        }
        Ok(Json::Array(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let seed = self.deeper()?;
        let mut object = Object::default();
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value_seed(seed)?;
            if !object.insert_new(key, value, &mut seen) {
                let message = "an object has the same key twice";
                return Err(self.refuse(JsonFault::DuplicateKey, message));
            }
        }
        Ok(Json::Object(object))
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn check_refused(text: &str, why: &str) {
        let error = Json::parse(text.as_bytes()).expect_err(text).to_string();
        assert!(error.contains(why), "{text}: {error}");
    }

    #[test]
    fn a_document_that_holds_secrets_is_read_like_any_other() {
        for text in [
            r#"{"data":{"key":"a\u0026b\"c\\"},"n":1}"#,
            r#""\u00e9""#,
            " 7 ",
            "[]",
            "",
            "{",
            r#"{}"\"#,
            r#"{"a":""#,
            r#"{"a":"\"#,
            r#"{} "x""#,
            r#""a" "b""#,
            r#"{"a":1,"a":2}"#,
            "9007199254740993",
            "\u{feff}{}",
        ] {
            let (plain, secret) =
                (Json::parse(text.as_bytes()), Json::parse_secret(text.as_bytes()));
            assert_eq!(plain.as_ref().ok(), secret.as_ref().ok(), "{text}");
        }
    }

    #[test]
    fn every_rule_has_its_own_fault() {
        let deep = "[".repeat(MAX_DEPTH + 1);
        let utf16: Vec<u8> = "{}".encode_utf16().flat_map(u16::to_be_bytes).collect();
        let cases: [(&[u8], JsonFault); 13] = [
            (b"{", JsonFault::Syntax),
            (b"\xef\xbb\xbf{}", JsonFault::ByteOrderMark),
            (b"\xef\xbb\xbf{\"a\":1,\"a\":2}", JsonFault::ByteOrderMark),
            (b"\"\xff\"", JsonFault::NotUtf8),
            (b"\xff\xfe{\0}\0", JsonFault::NotUtf8),
            (&utf16, JsonFault::NotUtf8),
            (br#""\ud800""#, JsonFault::LoneSurrogate),
            (br#""\ud800x""#, JsonFault::LoneSurrogate),
            (br#""\udc00\ud800""#, JsonFault::LoneSurrogate),
            (br#"{"a":1,"\u0061":2}"#, JsonFault::DuplicateKey),
            (b"9007199254740992", JsonFault::UnsafeNumber),
            (b"1e400", JsonFault::UnsafeNumber),
            (deep.as_bytes(), JsonFault::TooDeep),
        ];
        for (bytes, fault) in cases {
            let error = Json::parse(bytes).expect_err("not strict JSON");
            assert_eq!(error.fault(), fault, "{error}: {}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn what_is_accepted_is_serialised_with_the_same_meaning() {
        for text in [
            r#"{"a":[1,-2,0.5,true,null,"é\n"],"b":{}}"#,
            "9007199254740991",
            "-9007199254740991",
            r#""😀""#,
        ] {
            let value = Json::parse(text.as_bytes()).expect(text);
            let ours: serde_json::Value = serde_json::from_slice(&value.to_bytes()).unwrap();
            let theirs: serde_json::Value = serde_json::from_str(text).unwrap();
            assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn members_keep_their_order() {
        let value = Json::parse(br#"{"z":1,"a":2,"m":3}"#).unwrap();
        assert_eq!(value.to_bytes(), br#"{"z":1,"a":2,"m":3}"#);
    }

    #[test]
    fn a_key_given_twice_is_refused_at_any_depth_and_size() {
        check_refused(r#"{"name":"a","name":"b"}"#, "same key twice");
        check_refused(r#"{"a":[{"x":1,"\u0078":2}]}"#, "same key twice");
        let many: Vec<String> = (0..40).map(|n| format!("\"k{n}\":0")).collect();
        let text = format!("{{{},\"k20\":1}}", many.join(","));
        check_refused(&text, "same key twice");
    }

    #[test]
    fn numbers_that_parsers_read_differently_are_refused() {
        check_refused("9007199254740992", "2^53");
        check_refused("-9007199254740992", "2^53");
        check_refused("123456789012345678901234567890", "2^53");
        check_refused("1e400", "number out of range");
        check_refused("1e17", "2^53");
    }

    #[test]
    fn servers_may_write_large_numbers_and_nothing_else_that_is_refused() {
        let again = |text: &str| {
            Json::parse_answer(text.as_bytes())
                .map(|json| String::from_utf8(json.to_bytes()).unwrap())
        };
        for text in ["9223372036854775807", "-9223372036854775808", "9007199254740993", "7", "1e17"]
        {
            let read = again(text).unwrap();
            assert_eq!(read.parse::<f64>(), text.parse::<f64>(), "{text} became {read}");
        }
        assert_eq!(again("9223372036854775807").unwrap(), "9223372036854775807");
        assert_eq!(again("18446744073709551615").unwrap(), "1.8446744073709552e+19");
        for text in [r#"{"a":1,"a":2}"#, r#""\ud800""#, "1e999", "\u{feff}1"] {
            assert!(Json::parse_answer(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn text_that_is_not_plain_json_is_refused() {
        for text in [
            "",
            " ",
            "{",
            "{}{}",
            "{} x",
            "[1,]",
            "{\"a\":1,}",
            "NaN",
            "'a'",
            "01",
            "+1",
            ".5",
            "\u{feff}{}",
            r#""\ud800""#,
            r#""\udc00\ud800""#,
            "\"\u{1}\"",
            "{a:1}",
            "// x\n{}",
            "\"",
        ] {
            assert!(Json::parse(text.as_bytes()).is_err(), "{text:?}");
        }
        assert!(Json::parse(b"\"\xff\"").is_err());
        assert!(Json::parse(b"\"\xed\xa0\x80\"").is_err(), "a surrogate encoded as UTF-8");
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(Json::parse(deep(MAX_DEPTH).as_bytes()).is_ok());
        check_refused(&deep(MAX_DEPTH + 1), "nested deeper");
        check_refused(&deep(100_000), "nested deeper");
    }
}
