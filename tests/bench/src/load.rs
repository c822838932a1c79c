//! Clients that ask again as soon as they are answered: a closed loop over kept connections.

use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::http::Received;

/// How long an answer may take before the bench gives up.
const PATIENCE: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };

/// Connections to one port, all with the same request.
pub(crate) struct Clients {
    request: Vec<u8>,
    connections: Vec<Connection>,
}

struct Connection {
    stream: TcpStream,
    received: Received,
    asked: Option<Instant>,
}

impl Clients {
    pub(crate) fn connect(port: u16, count: usize, request: Vec<u8>) -> io::Result<Self> {
        let connections = (0..count).map(|_| {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
            stream.set_nodelay(true)?;
            Ok(Connection { stream, received: Received::default(), asked: None })
        });
        Ok(Self { request, connections: connections.collect::<io::Result<_>>()? })
    }

    /// Asks once and returns the whole answer.
    pub(crate) fn ask(&mut self) -> io::Result<String> {
        let connection = self.connections.first_mut().ok_or(io::ErrorKind::NotConnected)?;
        connection.stream.write_all(&self.request)?;
        while !connection.received.read(&mut connection.stream)? {}
        let answer = String::from_utf8_lossy(connection.received.bytes()).into_owned();
        connection.received.clear();
        Ok(answer)
    }

    /// Keeps `width` connections busy for `duration`, then waits for what is under way. Calls
    /// `answered` with the time that each answer took.
    pub(crate) fn run(
        &mut self,
        width: usize,
        duration: Duration,
        mut answered: impl FnMut(Duration),
    ) -> io::Result<()> {
        let end = Instant::now() + duration;
        let width = width.min(self.connections.len());
        let (busy, _) = self.connections.split_at_mut(width);
        for connection in busy.iter_mut() {
            connection.send(&self.request)?;
        }
        while busy.iter().any(|connection| connection.asked.is_some()) {
            let ready: Vec<bool> = {
                let mut watched: Vec<PollFd<'_>> =
                    busy.iter().map(|each| PollFd::new(&each.stream, PollFlags::IN)).collect();
                if poll(&mut watched, Some(&PATIENCE))? == 0 {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                watched.iter().map(|each| !each.revents().is_empty()).collect()
            };
            for (connection, _) in busy.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
                if !connection.received.read(&mut connection.stream)? {
                    continue;
                }
                if !connection.received.is_success() {
                    let answer = String::from_utf8_lossy(connection.received.bytes());
                    return Err(io::Error::other(format!("an answer under load: {answer}")));
                }
                connection.received.clear();
                answered(connection.asked.take().map(|asked| asked.elapsed()).unwrap_or_default());
                if Instant::now() < end {
                    connection.send(&self.request)?;
                }
            }
        }
        Ok(())
    }
}

impl Connection {
    fn send(&mut self, request: &[u8]) -> io::Result<()> {
        self.asked = Some(Instant::now());
        self.stream.write_all(request)
    }
}
