//! As much of HTTP/1.1 as both ends of the bench need: when a message is whole.

/// The bytes of one message, so far.
#[derive(Default)]
pub(crate) struct Received {
    bytes: Vec<u8>,
    /// Where the body begins and how it ends, once the head is there.
    body: Option<(usize, Length)>,
}

#[derive(Clone, Copy)]
enum Length {
    Bytes(usize),
    Chunked,
}

impl Received {
    pub(crate) fn push(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(piece);
        if self.body.is_none() {
            self.body = read_head(&self.bytes);
        }
    }

    pub(crate) fn is_whole(&self) -> bool {
        match self.body {
            None => false,
            Some((begin, Length::Bytes(length))) => self.bytes.len() >= begin + length,
            // No JSON of the bench ends like the last chunk does.
            Some((_, Length::Chunked)) => self.bytes.ends_with(b"\r\n0\r\n\r\n"),
        }
    }

    pub(crate) fn is_success(&self) -> bool {
        self.bytes.starts_with(b"HTTP/1.1 200 ")
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.body = None;
    }
}

fn read_head(bytes: &[u8]) -> Option<(usize, Length)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(bytes.get(..end)?).ok()?;
    let mut length = Length::Bytes(0);
    for (name, value) in head.lines().filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            length = Length::Bytes(value.trim().parse().ok()?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            length = Length::Chunked;
        }
    }
    Some((end + 4, length))
}
