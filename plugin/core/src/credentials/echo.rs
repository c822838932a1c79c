//! Credentials that a server sends back: found in its answers, and masked there.
//!
//! A server that shows its request's header fields, in an error page or in a tool for debugging, would
//! hand its credential to the client. Each byte of such an echo becomes `*`, so that lengths that were
//! announced stay true. Answers go on as they come: no more is held back than the end of a piece that
//! could be the beginning of an echo. Not found is what a server has changed on purpose: encrypted,
//! reversed, one character at a time.

use std::cell::OnceCell;
use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use memchr::{memchr, memchr_iter, memmem};
use toolgate_protocol::headers::Headers;
use zeroize::Zeroizing;

use super::template::percent_encoded;
use super::{Fetched, Injected};
use crate::event::{CallOutcome, FieldValue, HeadEdit};
use crate::secret::Secret;

/// Shorter values, in bytes, are not looked for: they stand in texts that have nothing to do with them.
const SHORTEST: usize = 8;

/// What stands in place of each byte of an echo.
const MASK: u8 = b'*';

/// The forms in which a server may write the fields of a credential; made when they are needed first.
#[derive(Default)]
pub(crate) struct Written(OnceCell<Vec<Rc<[Secret]>>>);

impl Written {
    /// The forms of the field with this number.
    fn of(&self, values: &[Rc<Secret>], field: usize) -> Option<Rc<[Secret]>> {
        let forms = self.0.get_or_init(|| values.iter().map(|value| forms(value)).collect());
        forms.get(field).map(Rc::clone)
    }
}

/// What a server could send back of the credentials that it was sent.
#[derive(Clone, Default)]
pub(crate) struct Echoes(Vec<Rc<[Secret]>>);

impl Echoes {
    /// Of the credentials that go with a request.
    pub(crate) fn of<'a>(injected: impl IntoIterator<Item = &'a Injected>) -> Self {
        let mut echoes = Self::default();
        for Injected { fetched, secret_fields, .. } in injected {
            echoes.add(fetched, secret_fields);
        }
        echoes
    }

    /// Adds those fields of a credential that nobody may see.
    pub(crate) fn add(&mut self, fetched: &Fetched, secret_fields: &[usize]) {
        for field in secret_fields {
            let forms = fetched.written.of(&fetched.values, *field);
            self.0.extend(forms.filter(|forms| !forms.is_empty()));
        }
    }

    /// The answer of a call with its body masked, and whether anything in it was.
    pub(crate) fn masked_in(self, outcome: CallOutcome) -> (CallOutcome, bool) {
        match (EchoMask::new(self), outcome) {
            (Some(mut mask), CallOutcome::Response { status, headers, body }) => {
                let body = mask.masked(&body).unwrap_or(body);
                (CallOutcome::Response { status, headers, body }, mask.has_found())
            }
            (_, outcome) => (outcome, false),
        }
    }
}

/// Finds and masks credentials in what one server answers.
pub(crate) struct EchoMask {
    forms: Vec<Rc<[Secret]>>,
    /// The end of what arrived that may be the beginning of an echo: as it came, and as it goes on.
    held: Zeroizing<Vec<u8>>,
    held_masked: Zeroizing<Vec<u8>>,
    found: bool,
}

impl EchoMask {
    /// For the answer to a request that these went with; `None` where there is nothing to look for.
    pub(crate) fn new(Echoes(forms): Echoes) -> Option<Self> {
        let (held, held_masked) = (Zeroizing::default(), Zeroizing::default());
        (!forms.is_empty()).then_some(Self { forms, held, held_masked, found: false })
    }

    /// Whether anything was masked so far.
    pub(crate) fn has_found(&self) -> bool {
        self.found
    }

    /// Takes the next piece of a body; `end` when it is the last. Returns what goes on in its place,
    /// `None` where that is the piece as it came.
    pub(crate) fn push(&mut self, piece: &[u8], end: bool) -> Option<Vec<u8>> {
        if self.held.is_empty() {
            let hold = if end { 0 } else { self.beginning(piece) };
            let masked = self.masked(piece);
            if hold == 0 {
                return masked;
            }
            let mut masked = masked.unwrap_or_else(|| piece.to_vec());
            self.hold(piece, &mut masked, hold);
            return Some(masked);
        }
        let mut all = Zeroizing::new(Vec::with_capacity(self.held.len() + piece.len()));
        all.extend_from_slice(&self.held);
        all.extend_from_slice(piece);
        let mut masked = Vec::with_capacity(all.len());
        masked.extend_from_slice(&self.held_masked);
        masked.extend_from_slice(piece);
        self.mask(&all, &mut masked);
        let hold = if end { 0 } else { self.beginning(&all) };
        self.hold(&all, &mut masked, hold);
        Some(masked)
    }

    /// A whole text with all echoes masked; `None` where there are none.
    pub(crate) fn masked(&mut self, text: &[u8]) -> Option<Vec<u8>> {
        let mut needles = self.forms.iter().flat_map(|forms| forms.iter());
        let is_within = |form: &Secret| {
            // Most header fields are too short, which costs less to see than to search.
            let form = form.expose().as_bytes();
            form.len() <= text.len() && memmem::find(text, form).is_some()
        };
        if !needles.any(is_within) {
            return None;
        }
        let mut masked = text.to_vec();
        self.mask(text, &mut masked);
        Some(masked)
    }

    /// Masks the header fields of an answer in `edit`, which says already what else changes in them.
    pub(crate) fn mask_head(&mut self, headers: &Headers, edit: &mut Option<HeadEdit>) {
        if let Some(edit) = edit {
            for (_, value) in &mut edit.set {
                if let FieldValue::Public(text) = value
                    && let Some(masked) = self.masked(text.as_bytes())
                {
                    *text = String::from_utf8(masked).unwrap_or_default();
                }
            }
        }
        for (name, value) in headers.iter() {
            let is_gone = edit.as_ref().is_some_and(|edit| {
                edit.remove.iter().any(|removed| removed == name)
                    || edit.set.iter().any(|(set, _)| set == name)
            });
            if is_gone || name.starts_with(':') {
                continue;
            }
            let Some(masked) = self.masked(value) else { continue };
            let edit = edit.get_or_insert_default();
            let single = headers.iter().filter(|(other, _)| *other == name).count() == 1;
            match String::from_utf8(masked) {
                Ok(masked) if single => edit.set.push((name.into(), FieldValue::Public(masked))),
                // Of several fields with one name, hosts replace all or the first: none goes on.
                _ => edit.remove.push(name.into()),
            }
        }
    }

    /// Masks every echo of `text` in its copy.
    fn mask(&mut self, text: &[u8], copy: &mut [u8]) {
        for form in self.forms.iter().flat_map(|forms| forms.iter()) {
            let finder = memmem::Finder::new(form.expose());
            let mut from = 0;
            // Echoes may overlap: the next can begin one byte on.
            while let Some(at) = text.get(from..).and_then(|rest| finder.find(rest)) {
                let begin = from + at;
                if let Some(echo) = copy.get_mut(begin..begin + form.expose().len()) {
                    echo.fill(MASK);
                }
                self.found = true;
                from = begin + 1;
            }
        }
    }

    /// How many bytes at the end of `text` may be the beginning of an echo.
    fn beginning(&self, text: &[u8]) -> usize {
        let Some(last) = text.last() else { return 0 };
        let mut longest = 0;
        for form in self.forms.iter().flat_map(|forms| forms.iter()) {
            let form = form.expose().as_bytes();
            let (Some(first), true) = (form.first(), memchr(*last, form).is_some()) else {
                continue;
            };
            let begin = text.len().saturating_sub(form.len().saturating_sub(1));
            let tail = text.get(begin..).unwrap_or_default();
            let begins = memchr_iter(*first, tail)
                .find(|at| tail.get(*at..).is_some_and(|rest| form.starts_with(rest)));
            longest = longest.max(begins.map_or(0, |at| tail.len() - at));
        }
        longest
    }

    /// Keeps the last `hold` bytes back, of what came and of what goes on.
    fn hold(&mut self, came: &[u8], goes_on: &mut Vec<u8>, hold: usize) {
        let keep = came.len().saturating_sub(hold);
        self.held = Zeroizing::new(came.get(keep..).unwrap_or_default().to_vec());
        self.held_masked = Zeroizing::new(goes_on.split_off(keep.min(goes_on.len())));
    }
}

/// The ways in which a value is written by what servers are made of: as it is, in JSON, in JSON within
/// JSON, in a URL, in Base64.
fn forms(value: &Secret) -> Rc<[Secret]> {
    let plain = value.expose();
    if plain.len() < SHORTEST {
        return Rc::default();
    }
    let mut forms = vec![Secret::new(plain.to_owned())];
    let mut add = |form: String| {
        let form = Secret::new(form);
        if form.expose().len() >= SHORTEST && !forms.iter().any(|f| f.expose() == form.expose()) {
            forms.push(form);
        }
    };
    let json = Secret::new(escaped(plain, |c| match c {
        '"' => Some("\\\""),
        '\\' => Some("\\\\"),
        _ => None,
    }));
    let nested = |c: char| match c {
        '"' => Some("\\\\\\\""),
        '\\' => Some("\\\\\\\\"),
        _ => None,
    };
    add(escaped(plain, nested));
    // PHP and older Java libraries escape slashes, too.
    add(escaped(json.expose(), |c| (c == '/').then_some("\\/")));
    // What encoders escape that write for HTML: Go's and Jackson's in lower case, .NET's more and in
    // upper case.
    add(escaped(json.expose(), |c| match c {
        '<' => Some("\\u003c"),
        '>' => Some("\\u003e"),
        '&' => Some("\\u0026"),
        _ => None,
    }));
    add(escaped(plain, |c| match c {
        '"' => Some("\\u0022"),
        '\\' => Some("\\\\"),
        '&' => Some("\\u0026"),
        '\'' => Some("\\u0027"),
        '+' => Some("\\u002B"),
        '<' => Some("\\u003C"),
        '>' => Some("\\u003E"),
        '`' => Some("\\u0060"),
        _ => None,
    }));
    add(json.expose().to_owned());
    add(percent_encoded(plain));
    for shift in 0..3 {
        add(within_base64(plain, shift, |bytes| STANDARD_NO_PAD.encode(bytes)));
        add(within_base64(plain, shift, |bytes| URL_SAFE_NO_PAD.encode(bytes)));
    }
    forms.into()
}

fn escaped(text: &str, escape: impl Fn(char) -> Option<&'static str>) -> String {
    // Large enough from the start: a text that grows leaves copies behind.
    let length = text.chars().map(|c| escape(c).map_or(1, str::len)).sum();
    text.chars().fold(String::with_capacity(length), |mut written, c| {
        let mut one = [0; 4];
        written.push_str(escape(c).unwrap_or_else(|| c.encode_utf8(&mut one)));
        written
    })
}

/// What the Base64 of any text that holds this one, `shift` bytes after a multiple of three, holds: all
/// digits but those at the ends, in which neighbours have a part.
fn within_base64(text: &str, shift: usize, encode: impl Fn(&[u8]) -> String) -> String {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len() + shift));
    bytes.resize(shift, 0);
    bytes.extend_from_slice(text.as_bytes());
    let encoded = Zeroizing::new(encode(&bytes));
    // Of the first digits, so many hold bits of what stands before.
    let begin = (shift * 8).div_ceil(6);
    let end = bytes.len() * 8 / 6;
    encoded.get(begin..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use base64::engine::general_purpose::STANDARD;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    const KEY: &str = "sk-live/51\"ab+cd&ef";

    fn mask_of(values: &[&str]) -> EchoMask {
        let forms = values.iter().map(|value| forms(&Secret::new((*value).to_owned())));
        EchoMask::new(Echoes(forms.collect())).unwrap()
    }

    /// What goes on of a text that arrives in these pieces.
    fn through(values: &[&str], pieces: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut mask = mask_of(values);
        let mut out = Vec::new();
        for (index, piece) in pieces.iter().enumerate() {
            let replaced = mask.push(piece, index + 1 == pieces.len());
            out.extend(replaced.unwrap_or_else(|| piece.to_vec()));
        }
        (out, mask.has_found())
    }

    fn assert_masked(text: &str, echo: &str) {
        let expected = text.replace(echo, &"*".repeat(echo.len()));
        let (out, found) = through(&[KEY], &[text.as_bytes()]);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        assert!(found);
    }

    #[test]
    fn an_echo_is_masked_in_its_length_however_it_is_written() {
        for echo in [
            KEY.to_owned(),
            "sk-live/51\\\"ab+cd&ef".into(),
            "sk-live\\/51\\\"ab+cd&ef".into(),
            "sk-live/51\\\\\\\"ab+cd&ef".into(),
            "sk-live/51\\\"ab+cd\\u0026ef".into(),
            "sk-live/51\\u0022ab\\u002Bcd\\u0026ef".into(),
            percent_encoded(KEY),
        ] {
            assert_masked(&format!("{{\"authorization\":\"Bearer {echo}\"}}"), &echo);
        }
    }

    #[test]
    fn an_echo_within_base64_is_masked_wherever_it_stands() {
        for before in ["", "u:", "us:", "user:", "user-1:"] {
            for after in ["", "x", "xy", "xyz"] {
                let encoded = STANDARD.encode(format!("{before}{KEY}{after}"));
                let (out, found) = through(&[KEY], &[format!("Basic {encoded}").as_bytes()]);
                assert!(found, "{before:?} {after:?}");
                assert_eq!(out.len(), 6 + encoded.len());
                // What is left at the ends are digits that neighbours have a part in.
                let masked = out.iter().filter(|byte| **byte == MASK).count();
                assert!(masked >= KEY.len() * 8 / 6 - 2, "{before:?} {after:?}");
            }
        }
    }

    #[test]
    fn an_echo_is_found_wherever_it_is_cut() {
        let text = format!("data: {{\"a\":\"{KEY}\"}}\n\ndata: {KEY}{KEY}\n\n").into_bytes();
        let (whole, _) = through(&[KEY], &[&text]);
        for first in 0..=text.len() {
            for second in first..=text.len() {
                let pieces = [&text[..first], &text[first..second], &text[second..]];
                assert_eq!(through(&[KEY], &pieces), (whole.clone(), true), "{first} {second}");
            }
        }
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(through(&[KEY], &bytes), (whole, true));
    }

    #[test]
    fn echoes_that_overlap_are_masked_whole_wherever_they_are_cut() {
        let (one, other) = ("abababab", "bababx-abab");
        let text = b"_abababababx-ababababx_aba";
        let (whole, _) = through(&[one, other], &[text]);
        assert_eq!(whole, b"_********************x_aba");
        for cut in 0..=text.len() {
            let pieces = [&text[..cut], &text[cut..]];
            assert_eq!(through(&[one, other], &pieces).0, whole, "{cut}");
        }
    }

    #[test]
    fn nothing_is_held_back_but_what_may_become_an_echo() {
        let mut mask = mask_of(&[KEY]);
        assert_eq!(mask.push(b"data: {}\n\n", false), None);
        assert_eq!(mask.push(b"data: sk-li", false).unwrap(), b"data: ");
        assert_eq!(mask.push(b"ne\n\n", false).unwrap(), b"sk-line\n\n");
        assert_eq!(mask.push(b"data: {}\n\n", false), None);
        assert_eq!(mask.push(b"sk", false).unwrap(), b"");
        assert_eq!(mask.push(b"", true).unwrap(), b"sk");
        assert!(!mask.has_found());
    }

    #[test]
    fn values_that_any_text_may_hold_are_not_looked_for() {
        assert!(forms(&Secret::new("admin".into())).is_empty());
    }

    #[test]
    fn an_echo_in_a_header_field_is_masked_and_repeated_fields_go() {
        let headers = Headers::from_pairs(
            [(":status", "200"), ("x-sent", KEY), ("x-twice", "a"), ("x-twice", KEY), ("x", "b")]
                .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        let mut edit = None;
        mask_of(&[KEY]).mask_head(&headers, &mut edit);
        let edit = edit.unwrap();
        assert_eq!(edit.remove, ["x-twice"]);
        let set: Vec<_> =
            edit.set.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
        assert_eq!(set, [("x-sent", "*".repeat(KEY.len()).as_str())]);
    }
}
