//! Servers that answer every request with the same bytes, as fast as they can: one thread for all.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, poll};

use crate::http::Received;

/// A server with one answer.
pub(crate) struct Upstream {
    listener: TcpListener,
    answer: Vec<u8>,
    seen: Arc<Seen>,
}

/// What reaches a server, for as long as somebody looks.
pub(crate) struct Seen {
    last: Mutex<Vec<u8>>,
    looks: AtomicBool,
}

impl Seen {
    /// The last request, in lower case.
    pub(crate) fn last(&self) -> String {
        let bytes = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).to_ascii_lowercase()
    }

    /// No longer keeps requests.
    pub(crate) fn stop(&self) {
        self.looks.store(false, Ordering::Relaxed);
    }

    fn keep(&self, request: &[u8]) {
        if self.looks.load(Ordering::Relaxed) {
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = request.to_vec();
        }
    }
}

struct Connection {
    stream: TcpStream,
    received: Received,
    upstream: usize,
}

impl Upstream {
    /// Listens on a port of its own for requests that are answered with this JSON.
    pub(crate) fn new(body: &str) -> std::io::Result<Self> {
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        Ok(Self {
            listener: TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?,
            answer: answer.into_bytes(),
            seen: Arc::new(Seen { last: Mutex::default(), looks: AtomicBool::new(true) }),
        })
    }

    pub(crate) fn port(&self) -> std::io::Result<u16> {
        Ok(self.listener.local_addr()?.port())
    }

    pub(crate) fn seen(&self) -> Arc<Seen> {
        Arc::clone(&self.seen)
    }
}

/// Serves for as long as the process lives.
pub(crate) fn serve(upstreams: Vec<Upstream>) {
    std::thread::spawn(move || {
        let mut connections: Vec<Connection> = Vec::new();
        loop {
            let ready: Vec<bool> = {
                let listeners =
                    upstreams.iter().map(|each| PollFd::new(&each.listener, PollFlags::IN));
                let streams =
                    connections.iter().map(|each| PollFd::new(&each.stream, PollFlags::IN));
                let mut watched: Vec<PollFd<'_>> = listeners.chain(streams).collect();
                if poll(&mut watched, None).is_err() {
                    continue;
                }
                watched.iter().map(|each| !each.revents().is_empty()).collect()
            };
            let (accepting, readable) = ready.split_at(upstreams.len());
            let mut readable = readable.iter();
            connections.retain_mut(|connection| {
                !readable.next().is_some_and(|ready| *ready)
                    || upstreams
                        .get(connection.upstream)
                        .is_some_and(|upstream| connection.answer(upstream))
            });
            for (index, upstream) in upstreams.iter().enumerate() {
                if accepting.get(index).is_some_and(|ready| *ready)
                    && let Ok((stream, _)) = upstream.listener.accept()
                {
                    let _slower_without = stream.set_nodelay(true);
                    let received = Received::default();
                    connections.push(Connection { stream, received, upstream: index });
                }
            }
        }
    });
}

impl Connection {
    /// Reads what there is and answers a whole request; false when the connection is over.
    fn answer(&mut self, upstream: &Upstream) -> bool {
        match self.received.read(&mut self.stream) {
            Ok(false) => true,
            Ok(true) => {
                upstream.seen.keep(self.received.bytes());
                self.received.clear();
                self.stream.write_all(&upstream.answer).is_ok()
            }
            Err(error) => error.kind() == ErrorKind::Interrupted,
        }
    }
}

impl Received {
    /// Takes one read's worth from `stream`; true when a message is whole.
    pub(crate) fn read(&mut self, stream: &mut TcpStream) -> std::io::Result<bool> {
        let mut piece = [0; 65536];
        let count = stream.read(&mut piece)?;
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.push(piece.get(..count).unwrap_or_default());
        Ok(self.is_whole())
    }
}
