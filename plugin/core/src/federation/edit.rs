//! Changes single strings of a JSON text and leaves every other byte as it is.
//!
//! A server's result may hold what the strict tree refuses or would write differently: integers beyond
//! 2^53, numbers with a meaning in their digits. So the text is checked once and not read into a tree:
//! the walk goes only into the members that it is looking for, and what it wants changed is cut out
//! and replaced.

use serde::de::IgnoredAny;

/// A value of a JSON text, where it stands there.
#[derive(Clone, Copy)]
pub(super) struct Value<'a> {
    text: &'a str,
    start: usize,
    end: usize,
}

/// What is to change in a text.
pub(super) struct Edits<'a> {
    text: &'a str,
    /// Where, and what stands there instead; in the order of the text.
    changes: Vec<(usize, usize, String)>,
}

impl<'a> Value<'a> {
    /// The value that a text is; `None` if it is no JSON.
    pub(super) fn of(text: &'a str) -> Option<Self> {
        // INVARIANT: what follows walks through well-formed JSON only.
        serde_json::from_str::<IgnoredAny>(text).ok()?;
        let start = skip_space(text.as_bytes(), 0);
        Some(Self { text, start, end: skip_value(text.as_bytes(), start) })
    }

    /// The value as it is written.
    pub(super) fn written(self) -> &'a str {
        self.text.get(self.start..self.end).unwrap_or_default()
    }

    /// The members of an object in order, repeated ones included; none of anything else.
    pub(super) fn members(self) -> Vec<(String, Self)> {
        self.parts(b'{')
            .filter_map(|(key, value)| Some((serde_json::from_str(key?.written()).ok()?, value)))
            .collect()
    }

    /// The elements of an array; none of anything else.
    pub(super) fn elements(self) -> Vec<Self> {
        self.parts(b'[').map(|(_, value)| value).collect()
    }

    fn parts(self, opening: u8) -> impl Iterator<Item = (Option<Self>, Self)> {
        let bytes = self.text.as_bytes();
        let mut at = match bytes.get(self.start) {
            Some(byte) if *byte == opening => self.start + 1,
            _ => self.end,
        };
        std::iter::from_fn(move || {
            at = skip_space(bytes, at);
            if at + 1 >= self.end {
                return None;
            }
            let mut part = || {
                let start = skip_space(bytes, at);
                at = skip_value(bytes, start);
                let value = Self { text: self.text, start, end: at };
                // The colon or comma behind it, or what closes the whole.
                at = skip_space(bytes, at) + 1;
                value
            };
            let key = (opening == b'{').then(&mut part);
            Some((key, part()))
        })
    }
}

fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at).is_some_and(u8::is_ascii_whitespace) {
        at += 1;
    }
    at
}

/// The end of the value that begins at `at` in well-formed JSON.
fn skip_value(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0_usize;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at += 1;
                while let Some(byte) = bytes.get(at).filter(|byte| **byte != b'"') {
                    at += if *byte == b'\\' { 2 } else { 1 };
                }
                at += 1;
                if depth == 0 {
                    return at.min(bytes.len());
                }
            }
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' if depth > 0 => {
                depth -= 1;
                at += 1;
                if depth == 0 {
                    return at;
                }
            }
            // A scalar ends where something else begins.
            b',' | b'}' | b']' | b':' if depth == 0 => return at,
            _ if depth == 0 && byte.is_ascii_whitespace() => return at,
            _ => at += 1,
        }
    }
    at.min(bytes.len())
}

impl<'a> Edits<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        Self { text, changes: Vec::new() }
    }

    /// Replaces a value of the text by a string, where it is a string.
    pub(super) fn string(&mut self, value: Value<'a>, change: impl FnOnce(&str) -> String) {
        if let Ok(own) = serde_json::from_str::<String>(value.written()) {
            self.replace(value, &change(&own).into());
        }
    }

    /// Adds the beginning of an object's members, as they are written.
    pub(super) fn open(&mut self, object: Value<'a>, written: &str) {
        let after = self.changes.last().map_or(0, |(_, end, _)| *end);
        if object.start >= after && object.written().starts_with('{') {
            self.changes.push((object.start + 1, object.start + 1, written.to_owned()));
        }
    }

    /// Replaces a value of the text.
    pub(super) fn replace(&mut self, value: Value<'a>, changed: &serde_json::Value) {
        // INVARIANT: changes stand in the order of the text and do not overlap.
        let after = self.changes.last().map_or(0, |(_, end, _)| *end);
        if value.start >= after && value.end <= self.text.len() {
            self.changes.push((value.start, value.end, changed.to_string()));
        }
    }

    /// The text with all changes; `None` where there is none.
    pub(super) fn apply(self) -> Option<Vec<u8>> {
        if self.changes.is_empty() {
            return None;
        }
        let bytes = self.text.as_bytes();
        let mut out = Vec::with_capacity(bytes.len() + self.changes.len() * 32);
        let mut at = 0;
        for (start, end, changed) in &self.changes {
            out.extend_from_slice(bytes.get(at..*start).unwrap_or_default());
            out.extend_from_slice(changed.as_bytes());
            at = *end;
        }
        out.extend_from_slice(bytes.get(at..).unwrap_or_default());
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    /// The text, taken apart and put together again.
    fn rebuilt(value: Value<'_>) -> serde_json::Value {
        match value.written().as_bytes().first() {
            Some(b'{') => {
                value.members().into_iter().map(|(key, value)| (key, rebuilt(value))).collect()
            }
            Some(b'[') => value.elements().into_iter().map(rebuilt).collect(),
            _ => serde_json::from_str(value.written()).unwrap(),
        }
    }

    #[test]
    fn a_walk_finds_what_a_parser_finds() {
        for text in [
            "{}",
            " [ ] ",
            r#" {"a" : [1, -2.5e3 ,true,null,"]}\\\"{[" ] , "b\u0022" :{"c":{},"d":[[],[{}]]}, "":"" } "#,
            "[0]",
            "7",
            r#""x""#,
            "{\n\t\"a\"\r\n:\n1\n}",
        ] {
            let expected: serde_json::Value = serde_json::from_str(text).unwrap();
            assert_eq!(rebuilt(Value::of(text).unwrap()), expected, "{text}");
        }
        for broken in ["", "{", "[1,]", "{\"a\":}", "\"\\", "{} {}"] {
            assert!(Value::of(broken).is_none(), "{broken}");
        }
    }
}
