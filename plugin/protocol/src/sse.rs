//! Server-Sent Events as bytes: cuts a stream into whole events and passes them on untouched.
//!
//! Works on bytes, never on text per chunk, since a chunk may end inside a character. All three
//! line endings of the HTML standard (section 9.2.6, "Interpreting an event stream") are known,
//! split anywhere. Not here: what an event's data means.

/// Cuts a stream of chunks into events. Memory is bounded by the cap it was made with.
#[derive(Debug)]
pub struct EventSplitter {
    pending: Vec<u8>,
    line_start: usize,
    /// The last byte was a CR: a LF that follows belongs to the same line ending.
    after_return: bool,
    cap: usize,
}

/// An event larger than the cap: the rest of the stream must not be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is larger than {cap} bytes")]
pub struct EventTooLarge {
    /// The cap in bytes.
    pub cap: usize,
}

/// A complete piece of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    raw: &'a [u8],
}

impl EventSplitter {
    /// A splitter that holds at most `cap` bytes of an unfinished event.
    #[must_use]
    pub fn new(cap: usize) -> Self {
        Self { pending: Vec::new(), line_start: 0, after_return: false, cap }
    }

    /// Takes the next chunk and hands every event that it completes to `each`, in order. Comment
    /// lines between events are handed over as soon as their line ends, so that keep-alives are not
    /// held back.
    ///
    /// # Errors
    /// [`EventTooLarge`] when an unfinished event exceeds the cap.
    pub fn push(
        &mut self,
        chunk: &[u8],
        mut each: impl FnMut(Event<'_>),
    ) -> Result<(), EventTooLarge> {
        for &byte in chunk {
            let continues_ending = byte == b'\n' && self.after_return;
            self.after_return = byte == b'\r';
            if continues_ending && self.pending.is_empty() {
                // The LF of a CRLF whose CR has ended an event already.
                each(Event { raw: b"\n" });
                continue;
            }
            self.pending.push(byte);
            if continues_ending {
                self.line_start = self.pending.len();
            } else if matches!(byte, b'\n' | b'\r') {
                self.end_line(&mut each);
            }
            if self.pending.len() > self.cap {
                return Err(EventTooLarge { cap: self.cap });
            }
        }
        Ok(())
    }

    /// How many bytes of an unfinished event are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.pending.len()
    }

    fn end_line(&mut self, each: &mut impl FnMut(Event<'_>)) {
        let line = self.pending.get(self.line_start..).unwrap_or_default();
        let blank = matches!(line, b"\n" | b"\r");
        let lone_comment = self.line_start == 0 && line.first() == Some(&b':');
        if blank || lone_comment {
            each(Event { raw: &self.pending });
            self.pending.clear();
        }
        self.line_start = self.pending.len();
    }
}

impl<'a> Event<'a> {
    /// The bytes as they came, line endings included.
    #[must_use]
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// The data of the event: its `data` lines joined by LF. `None` when it has no such line.
    #[must_use]
    pub fn data(&self) -> Option<Vec<u8>> {
        let mut data: Option<Vec<u8>> = None;
        for line in lines(self.raw) {
            if let Some(value) = field(line, b"data") {
                match &mut data {
                    Some(joined) => {
                        joined.push(b'\n');
                        joined.extend_from_slice(value);
                    }
                    None => data = Some(value.to_vec()),
                }
            }
        }
        data
    }

    /// The id of the event, by which a client says where it left off; `None` when it has none that could be
    /// said.
    #[must_use]
    pub fn id(&self) -> Option<String> {
        let id = lines(self.raw).filter_map(|line| field(line, b"id")).last()?;
        let id = std::str::from_utf8(id).ok()?;
        // It goes into a header field; the HTML standard ignores an id with NUL.
        (!id.is_empty() && !id.contains(char::is_control)).then(|| id.to_owned())
    }

    /// The event with other data: all lines but `data` stay, `data` (which must hold no line break,
    /// as serialised JSON never does) becomes one line.
    #[must_use]
    pub fn with_data(&self, data: &[u8]) -> Vec<u8> {
        self.with(None, Some(data))
    }

    /// The event with another id or other data, where one is given; neither may hold a line break.
    #[must_use]
    pub fn with(&self, id: Option<&str>, data: Option<&[u8]>) -> Vec<u8> {
        let mut event = Vec::with_capacity(self.raw.len() + data.map_or(0, <[u8]>::len) + 64);
        for line in lines(self.raw).filter(|line| !line.is_empty()) {
            let replaced = (id.is_some() && field(line, b"id").is_some())
                || (data.is_some() && field(line, b"data").is_some());
            if !replaced {
                event.extend_from_slice(line);
                event.push(b'\n');
            }
        }
        let fields = [(&b"id: "[..], id.map(str::as_bytes)), (b"data: ", data)];
        for (name, value) in fields {
            let Some(value) = value else { continue };
            event.extend_from_slice(name);
            event.extend_from_slice(value);
            event.push(b'\n');
        }
        event.push(b'\n');
        event
    }
}

/// The lines of a complete event, without their endings.
fn lines(raw: &[u8]) -> impl Iterator<Item = &[u8]> {
    // One byte order mark may open a stream and is not part of its first line.
    let raw = raw.strip_prefix(b"\xef\xbb\xbf").unwrap_or(raw);
    // Splitting at both CR and LF shows a CRLF as an additional empty line, which means nothing
    // here: empty lines have no field.
    raw.split(|byte| matches!(byte, b'\n' | b'\r'))
}

/// The value of a line that is the field `name`, without the one leading space that is allowed.
fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let rest = line.strip_prefix(name)?;
    match rest.strip_prefix(b":") {
        Some(value) => Some(value.strip_prefix(b" ").unwrap_or(value)),
        // A line that is only the field's name is that field with an empty value.
        None => rest.is_empty().then_some(rest),
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    const STREAM: &[u8] = b": hello\n\nid: 1\nretry: 5\ndata:\n\nevent: message\r\ndata: {\"a\":1,\r\ndata: \"b\":2}\r\n\r\ndata: caf\xc3\xa9\r\r: ping\ndata: x\n\n";

    fn split(chunks: &[&[u8]]) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let (mut raw, mut data) = (Vec::new(), Vec::new());
        let mut splitter = EventSplitter::new(1024);
        for chunk in chunks {
            splitter
                .push(chunk, |event| {
                    raw.push(event.raw().to_vec());
                    data.extend(event.data());
                })
                .unwrap();
        }
        assert_eq!(splitter.held(), 0);
        (raw, data)
    }

    #[test]
    fn every_chunking_gives_the_same_bytes_and_the_same_data() {
        let (raw, data) = split(&[STREAM]);
        assert_eq!(raw.concat(), STREAM);
        let expected: [&[u8]; 4] = [b"", b"{\"a\":1,\n\"b\":2}", "café".as_bytes(), b"x"];
        assert_eq!(data, expected);
        for size in 1..STREAM.len() {
            let chunks: Vec<&[u8]> = STREAM.chunks(size).collect();
            let (again, same) = split(&chunks);
            assert_eq!(again.concat(), STREAM, "chunks of {size}");
            assert_eq!(same, data, "chunks of {size}");
        }
    }

    #[test]
    fn a_keep_alive_comment_passes_before_its_blank_line() {
        let mut splitter = EventSplitter::new(64);
        let mut seen = Vec::new();
        splitter.push(b": ping\n", |event| seen.push(event.raw().to_vec())).unwrap();
        assert_eq!(seen, [b": ping\n".to_vec()]);
    }

    #[test]
    fn an_unterminated_tail_is_never_handed_over() {
        let mut splitter = EventSplitter::new(64);
        let mut seen = 0;
        splitter.push(b"data: secret\n", |_| seen += 1).unwrap();
        assert_eq!((seen, splitter.held()), (0, 13));
    }

    #[test]
    fn a_byte_order_mark_does_not_hide_the_first_event() {
        let (_, data) = split(&[b"\xef\xbb\xbfdata: x\n\n"]);
        assert_eq!(data, [b"x".to_vec()]);
    }

    #[test]
    fn an_event_over_the_cap_is_an_error() {
        let mut splitter = EventSplitter::new(8);
        assert_eq!(splitter.push(b"data: 123456789", |_| {}), Err(EventTooLarge { cap: 8 }));
        // Line endings count like everything else, in one chunk and in many.
        for size in 1..12 {
            let mut splitter = EventSplitter::new(8);
            let refused = b"id: 1234\r\n\r\n"
                .chunks(size)
                .find_map(|chunk| splitter.push(chunk, |_| {}).err());
            assert_eq!(refused, Some(EventTooLarge { cap: 8 }), "chunks of {size}");
            assert!(splitter.held() <= 9);
        }
    }

    #[test]
    fn replaced_data_keeps_the_other_fields() {
        let mut splitter = EventSplitter::new(64);
        let mut seen = Vec::new();
        splitter
            .push(b"id: 7\r\nevent: message\r\ndata: a\r\ndata: b\r\n\r\n", |event| {
                seen.push(event.with_data(b"{}"));
            })
            .unwrap();
        assert_eq!(seen[0], b"id: 7\nevent: message\ndata: {}\n\n");
    }
}
