//! Audit records in Kong's error log, as `plugin/filter/src/kong_log.rs` writes them.
//!
//! nginx puts its own words before and after what a filter says, and what clients send may stand in
//! them: only what comes first in a line is the filter's.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::record;

/// Where nginx begins to say whose request it was.
const CONTEXT: &str = ", client: ";

/// The records in these lines, in order, each as its fields in text.
#[must_use]
pub fn records<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<BTreeMap<String, String>> {
    let mut pieces: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut records = Vec::new();
    for line in lines {
        if let Some(rest) = after(line, "toolgate audit ") {
            records.extend(first_json(rest));
        } else if let Some((id, last, piece)) = after(line, "toolgate audit-part ").and_then(part) {
            let whole = pieces.entry(id.clone()).or_default();
            whole.push(piece);
            if last {
                records.extend(serde_json::from_str(&whole.concat()));
                pieces.remove(&id);
            }
        }
    }
    records.into_iter().filter_map(|record: Value| record::fields(&record)).collect()
}

/// What follows these words, unless they come from a client.
fn after<'a>(line: &'a str, words: &str) -> Option<&'a str> {
    let (before, rest) = line.split_once(words)?;
    (!before.contains(CONTEXT)).then_some(rest)
}

/// `ID N/COUNT "PIECE"`: the id, whether it is the last piece, and the piece.
fn part(rest: &str) -> Option<(String, bool, String)> {
    let (id, rest) = rest.split_once(' ')?;
    let (number, rest) = rest.split_once(' ')?;
    let (number, count) = number.split_once('/')?;
    let piece = first_json(rest)?.as_str()?.to_owned();
    Some((id.to_owned(), number == count, piece))
}

/// The JSON that a text begins with.
fn first_json(text: &str) -> Option<Value> {
    serde_json::Deserializer::from_str(text).into_iter().next()?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXT_OF_NGINX: &str = r#" while logging request, client: 127.0.0.1, server: kong, request: "POST /mcp/x HTTP/1.1""#;

    #[test]
    fn a_record_is_what_comes_first_in_a_line() {
        let line = format!(
            r#"2026/11/23 12:00:00 [info] 7#0: *3 [proxy-wasm] toolgate audit {{"decision":"allow","policies":["a","b"],"total_us":7}}{CONTEXT_OF_NGINX}"#
        );
        let found = records([line.as_str()]);
        let expected = [("decision", "allow"), ("policies", "a,b"), ("total_us", "7")];
        let expected: BTreeMap<String, String> =
            expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        assert_eq!(found, [expected]);
    }

    #[test]
    fn what_a_client_makes_nginx_write_is_no_record() {
        let line = r#"[error] 7#0: *3 upstream timed out, client: 127.0.0.1, referrer: "toolgate audit {"decision":"allow"}""#;
        assert!(records([line]).is_empty());
    }

    #[test]
    fn a_record_in_pieces_is_put_together() {
        let lines = [
            r#"x toolgate audit-part a-1 1/2 "{\"tool\":\"ec", client: 1"#,
            r#"x toolgate audit-part b-1 1/1 "{\"tool\":\"other\"}", client: 1"#,
            r#"x toolgate audit-part a-1 2/2 "ho\"}", client: 1"#,
        ];
        let tools: Vec<_> =
            records(lines).into_iter().map(|mut record| record.remove("tool")).collect();
        assert_eq!(tools, [Some("other".to_owned()), Some("echo".to_owned())]);
    }
}
