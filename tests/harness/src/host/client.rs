//! The client's end of an exchange: what the proxy sends, and what `content-length` makes of it.

use super::http::{ClientChunk, LocalReply};
use super::vm::Exchange;

impl Exchange {
    /// The response head goes out as the filter left it.
    pub(crate) fn send_head(&mut self) {
        let headers = &self.response.headers;
        self.observed.status = headers.text(":status").and_then(|status| status.parse().ok());
        self.observed.headers = headers.iter().filter(|(name, _)| !name.starts_with(':')).collect();
        self.response.headers_sent = true;
    }

    /// Body bytes go out; what exceeds `content-length` is lost.
    pub(crate) fn send_body(&mut self, moment: u64, mut bytes: Vec<u8>) {
        let promised =
            if self.is_bodiless() { Some(0) } else { self.observed.headers.content_length() };
        if let Some(promised) = promised {
            bytes.truncate(promised.saturating_sub(self.delivered()));
        }
        if !bytes.is_empty() {
            self.observed.chunks.push(ClientChunk { moment, bytes });
        }
    }

    /// The end goes out. A client that was promised more waits.
    pub(crate) fn send_end(&mut self) {
        let promised = self.observed.headers.content_length().unwrap_or(0);
        self.observed.hangs = !self.is_bodiless() && self.delivered() < promised;
        self.observed.complete = !self.observed.hangs;
        self.response.end_sent = true;
    }

    pub(crate) fn note_local_reply(&mut self, status: u16, details: &str, by_filter: bool) {
        if self.observed.local_reply.is_none() {
            self.observed.local_reply =
                Some(LocalReply { status, details: details.to_owned(), by_filter });
        }
    }

    pub(crate) fn is_head_request(&self) -> bool {
        self.original.headers.text(":method") == Some("HEAD")
    }

    fn is_bodiless(&self) -> bool {
        self.is_head_request() || matches!(self.observed.status, Some(100..=199 | 204 | 304))
    }

    fn delivered(&self) -> usize {
        self.observed.chunks.iter().map(|chunk| chunk.bytes.len()).sum()
    }
}
