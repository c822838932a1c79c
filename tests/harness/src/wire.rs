//! HTTP/1.1 on loopback, as little of it as the real proxy's tests need: a client that decides where
//! a body is cut, and upstreams that answer as the world says.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::play::{Observed, Request};
use crate::world::{Answer, Asked, Reply, World};

/// How long a peer may be silent before the test gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// Sends a request to a port of this machine and reads the answer to its end. A request that is to
/// be aborted is cut once `asked` is true.
///
/// # Errors
/// When the peer breaks the protocol or the connection.
pub fn exchange(
    port: u16,
    request: &Request,
    asked: &dyn Fn() -> bool,
) -> Result<Observed, String> {
    exchange_within(PATIENCE, port, request, asked)
}

/// Like [`exchange`], with a peer that may be silent for so long.
///
/// # Errors
/// When the peer breaks the protocol or the connection.
pub fn exchange_within(
    patience: Duration,
    port: u16,
    request: &Request,
    asked: &dyn Fn() -> bool,
) -> Result<Observed, String> {
    let failed = |error: std::io::Error| format!("the connection failed: {error}");
    let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(failed)?;
    stream.set_read_timeout(Some(patience)).map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    let chunked = request.pieces.len() > 1 || request.trailers;
    let mut head = format!("{} {} HTTP/1.1\r\nconnection: close\r\n", request.method, request.path);
    if !request.headers.iter().any(|(name, _)| name == "host") {
        head.push_str("host: 127.0.0.1:10000\r\n");
    }
    for (name, value) in &request.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    match request.pieces.as_slice() {
        _ if chunked => head.push_str("transfer-encoding: chunked\r\n"),
        [piece] => head.push_str(&format!("content-length: {}\r\n", piece.len())),
        _ => {}
    }
    head.push_str("\r\n");
    // A peer that has answered early may have closed its side: what it said is what counts.
    let _answered_early = send(&mut stream, &head, request, chunked);
    if request.abort {
        let begin = Instant::now();
        while !asked() {
            if begin.elapsed() > PATIENCE {
                return Err("no upstream was asked".into());
            }
            std::thread::park_timeout(Duration::from_millis(2));
        }
        return Ok(Observed::default());
    }
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(_) if !bytes.is_empty() => {}
        Err(error) => return Err(failed(error)),
    }
    read_answer(&bytes)
        .ok_or_else(|| format!("no HTTP answer: {:?}", String::from_utf8_lossy(&bytes)))
}

fn send(
    stream: &mut TcpStream,
    head: &str,
    request: &Request,
    chunked: bool,
) -> std::io::Result<()> {
    stream.write_all(head.as_bytes())?;
    for piece in &request.pieces {
        if chunked {
            write!(stream, "{:x}\r\n", piece.len())?;
        }
        stream.write_all(piece)?;
        if chunked {
            stream.write_all(b"\r\n")?;
        }
        stream.flush()?;
    }
    match (chunked, request.trailers) {
        (true, true) => stream.write_all(b"0\r\nx-trailer: 1\r\n\r\n"),
        (true, false) => stream.write_all(b"0\r\n\r\n"),
        _ => Ok(()),
    }
}

fn read_answer(bytes: &[u8]) -> Option<Observed> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(bytes.get(..end)?).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<(String, String)> = fields(lines).collect();
    let body = bytes.get(end + 4..)?;
    let chunked = headers.iter().any(|(n, v)| n == "transfer-encoding" && v.contains("chunked"));
    let (body, trailers) = if chunked { unchunked(body) } else { (body.to_vec(), &b""[..]) };
    let mut headers = headers;
    headers.extend(fields(std::str::from_utf8(trailers).ok()?.split("\r\n")));
    Some(Observed { status: Some(status), headers, body, audit: Vec::new(), metrics: None })
}

fn fields<'a>(lines: impl Iterator<Item = &'a str>) -> impl Iterator<Item = (String, String)> {
    lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
}

/// A body without the lengths of its pieces, and what stands after it.
fn unchunked(mut bytes: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut body = Vec::new();
    while let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") {
        let size = bytes.get(..end).and_then(|line| std::str::from_utf8(line).ok());
        let size = size.and_then(|line| usize::from_str_radix(line.trim(), 16).ok()).unwrap_or(0);
        let Some(chunk) = bytes.get(end + 2..end + 2 + size) else { break };
        if size == 0 {
            return (body, bytes.get(end + 2..).unwrap_or_default());
        }
        body.extend_from_slice(chunk);
        bytes = bytes.get(end + 4 + size..).unwrap_or_default();
    }
    (body, b"")
}

/// Serves an upstream on a port of its own, for as long as the test runs, as the world in `slot`
/// says. Returns the port.
///
/// # Errors
/// When no port can be had.
pub fn listen(cluster: &str, slot: Arc<Mutex<Option<Arc<World>>>>) -> Result<u16, String> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(|error| error.to_string())?;
    let port = listener.local_addr().map_err(|error| error.to_string())?.port();
    let cluster = cluster.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let world = slot.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let cluster = cluster.clone();
            std::thread::spawn(move || {
                // A peer that goes away in the middle is part of some scenarios.
                let _gone = world.map(|world| serve(stream, &cluster, &world));
            });
        }
    });
    Ok(port)
}

/// Serves one connection, request after request.
fn serve(mut stream: TcpStream, cluster: &str, world: &World) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some(asked) = read_request(&mut reader, cluster)? {
        let is_last = asked.header("connection").is_some_and(|value| value == "close");
        match world.answer(asked) {
            Answer::Reply(reply) => write_reply(&mut stream, &reply)?,
            Answer::Nobody => return Ok(()),
            Answer::Silence => {
                // Until the peer has had enough.
                let mut rest = Vec::new();
                reader.read_to_end(&mut rest)?;
                return Ok(());
            }
        }
        if is_last {
            return Ok(());
        }
    }
    Ok(())
}

/// Reads a request; none where the peer closes its side.
///
/// # Errors
/// When the connection breaks.
pub fn read_request(
    reader: &mut BufReader<TcpStream>,
    cluster: &str,
) -> std::io::Result<Option<Asked>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let method = words.next().unwrap_or_default().to_owned();
    let path = words.next().unwrap_or_default().to_owned();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut asked = Asked { cluster: cluster.to_owned(), method, path, headers, body: Vec::new() };
    if asked.header("transfer-encoding").is_some() {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim(), 16).unwrap_or(0);
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk)?;
            chunk.truncate(size);
            asked.body.extend(chunk);
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = asked.header("content-length").and_then(|l| l.parse().ok()) {
        asked.body = vec![0; length];
        reader.read_exact(&mut asked.body)?;
    }
    Ok(Some(asked))
}

fn write_reply(stream: &mut TcpStream, reply: &Reply) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 {} Scenario\r\n", reply.status)?;
    for (name, value) in &reply.headers {
        write!(stream, "{name}: {value}\r\n")?;
    }
    if reply.chunks.is_empty() {
        return stream.write_all(b"content-length: 0\r\n\r\n");
    }
    stream.write_all(b"transfer-encoding: chunked\r\n\r\n")?;
    for chunk in &reply.chunks {
        write!(stream, "{:x}\r\n", chunk.len())?;
        stream.write_all(chunk)?;
        stream.write_all(b"\r\n")?;
        stream.flush()?;
    }
    stream.write_all(b"0\r\n")?;
    for (name, value) in &reply.trailers {
        write!(stream, "{name}: {value}\r\n")?;
    }
    stream.write_all(b"\r\n")
}
