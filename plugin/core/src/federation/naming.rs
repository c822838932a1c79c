//! Names of several servers under one roof: every tool, prompt, resource and task gets a name that
//! says whose it is, and every such name leads back to exactly one server and one name there.
//!
//! Tools and prompts are `prefix__name`, resources and templates `qualifier+uri`, tasks and requests
//! of servers `qualifier+id`. A name that does not fit what clients accept is shortened, with a
//! digest of the whole; only a catalogue of the server's names leads back from such a one. Pure
//! functions: nothing here knows a portal or a policy.

use sha2::{Digest, Sha256};

/// Stands between a prefix and a server's own name. A prefix never holds it.
pub(crate) const SEPARATOR: &str = "__";

/// Stands between a qualifier and a URI or an identifier. A qualifier never holds it.
const MARK: char = '+';

/// The scheme of MCP Apps: hosts recognise an app by it, so that it stays in front.
const APP_SCHEME: &str = "ui://";

/// Hexadecimal digits at the end of a shortened name: 64 bits of a SHA-256.
const DIGITS: usize = 16;

/// Shortest limit on names that leaves room for a prefix, its separator and a digest.
pub(crate) const SHORTEST_LIMIT: usize = 40;

/// Longest prefix under a limit on names: what is left holds a digest and eight letters.
pub(crate) fn longest_prefix(limit: usize) -> usize {
    limit.saturating_sub(SEPARATOR.len() + 8 + 1 + DIGITS)
}

/// Whether `prefix` can stand before a separator without ambiguity.
pub(crate) fn is_prefix(prefix: &str) -> bool {
    !prefix.is_empty() && is_plain(prefix) && !prefix.contains(SEPARATOR) && !prefix.ends_with('_')
}

/// The name that clients see of `name` at the server with this prefix, at most `limit` characters.
/// An empty prefix adds nothing.
pub(crate) fn exposed(prefix: &str, name: &str, limit: usize) -> String {
    let mut exposed = String::with_capacity(prefix.len() + SEPARATOR.len() + name.len());
    exposed.push_str(prefix);
    if !prefix.is_empty() {
        exposed.push_str(SEPARATOR);
    }
    let room = limit.saturating_sub(exposed.len());
    // A name that looks shortened is shortened itself, so that none can pass for another.
    if is_plain(name) && name.len() <= room && !is_shortened(name) {
        exposed.push_str(name);
        return exposed;
    }
    let head = room.saturating_sub(1 + DIGITS);
    exposed.extend(name.chars().take(head).map(|c| if is_plain_char(c) { c } else { '-' }));
    exposed.push('_');
    for byte in Sha256::digest(name).iter().take(DIGITS / 2) {
        exposed
            .extend([byte >> 4, byte & 15].map(|digit| {
                char::from(if digit < 10 { b'0' + digit } else { b'a' + digit - 10 })
            }));
    }
    exposed
}

/// Prefix and rest of an exposed name.
pub(crate) fn split(exposed: &str) -> Option<(&str, &str)> {
    exposed.split_once(SEPARATOR).filter(|(prefix, rest)| !prefix.is_empty() && !rest.is_empty())
}

/// Whether a name ends like a shortened one, so that only a catalogue says what it stands for.
pub(crate) fn is_shortened(name: &str) -> bool {
    let Some((_, digits)) = name.rsplit_once('_') else { return false };
    digits.len() == DIGITS
        && digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// What stands before the URIs of a server: its prefix as the beginning of a scheme (RFC 3986,
/// section 3.1: letters, digits, `+`, `-`, `.`, a letter first; parsers lower it).
pub(crate) fn qualifier(prefix: &str) -> String {
    let lowered = prefix.chars().map(|c| if c == '_' { '-' } else { c.to_ascii_lowercase() });
    let first = prefix.chars().next().is_some_and(|c| c.is_ascii_alphabetic());
    (!first).then_some('s').into_iter().chain(lowered).collect()
}

/// The URI, template, task or request that clients see instead of the server's own.
pub(crate) fn qualified(qualifier: &str, own: &str) -> String {
    match own.strip_prefix(APP_SCHEME) {
        Some(rest) => format!("{APP_SCHEME}{qualifier}{MARK}{rest}"),
        None => format!("{qualifier}{MARK}{own}"),
    }
}

/// Qualifier, in lower case, and the server's own URI or identifier.
pub(crate) fn unqualified(qualified: &str) -> Option<(String, String)> {
    let (scheme, rest) = match qualified.strip_prefix(APP_SCHEME) {
        Some(rest) => (APP_SCHEME, rest),
        None => ("", qualified),
    };
    let (qualifier, own) = rest.split_once(MARK)?;
    (!qualifier.is_empty()).then(|| (qualifier.to_ascii_lowercase(), format!("{scheme}{own}")))
}

/// Whether every client accepts a name of these characters (2025-11-25 and later, tool names).
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.chars().all(is_plain_char)
}

fn is_plain_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn a_usual_name_leads_back_to_its_server_and_its_own_name() {
        for name in ["refund", "a__b", "_x", "v1.2-list", "__", "x"] {
            let exposed = exposed("billing", name, 64);
            assert_eq!(split(&exposed), Some(("billing", name)));
            assert!(!is_shortened(&exposed));
        }
    }

    #[test]
    fn a_name_that_clients_would_refuse_is_shortened_and_stays_distinct() {
        let long = "n".repeat(300);
        let longer = "n".repeat(301);
        let names =
            ["files/read", "files.read ", "löschen", "", &long, &longer, "x_0123456789abcdef"];
        let mut seen = std::collections::BTreeSet::new();
        for name in names {
            let exposed = exposed("billing", name, 64);
            assert!(exposed.len() <= 64, "{exposed}");
            assert!(is_plain(&exposed) && is_shortened(&exposed), "{exposed}");
            assert_eq!(split(&exposed).unwrap().0, "billing");
            assert!(seen.insert(exposed));
        }
    }

    #[test]
    fn no_two_prefixes_can_make_one_name() {
        assert!(is_prefix("billing") && is_prefix("a_b") && is_prefix("_a") && is_prefix("a.b"));
        for ambiguous in ["", "a__b", "a_", "__", "ä", "a b", "a/b"] {
            assert!(!is_prefix(ambiguous), "{ambiguous:?}");
        }
    }

    #[test]
    fn uris_lead_back_also_when_a_parser_lowered_their_scheme() {
        for own in ["billing://terms", "test://a/{id}/data", "ui://chart/x", "a+b:c+d", "plain", ""]
        {
            let seen = qualified("s2-bill.ing", own);
            assert_eq!(unqualified(&seen), Some(("s2-bill.ing".into(), own.to_owned())), "{seen}");
        }
        assert_eq!(qualified("crm", "ui://chart/x"), "ui://crm+chart/x");
        assert_eq!(unqualified("CRM+note://1"), Some(("crm".into(), "note://1".into())));
        assert_eq!(unqualified("note://1"), None);
        assert_eq!(unqualified("+x"), None);
    }

    #[test]
    fn a_qualifier_begins_a_valid_scheme() {
        assert_eq!(qualifier("Bill_ing.2"), "bill-ing.2");
        assert_eq!(qualifier("2nd"), "s2nd");
        assert_eq!(qualifier("_a"), "s-a");
    }
}
