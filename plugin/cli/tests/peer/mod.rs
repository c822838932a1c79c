//! A small MCP server for tests, on a port of its own, that answers in one of several ways.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// How a server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// 2025-11-25 with a session, in JSON.
    LegacyJson,
    /// The same in event streams that go on after the answer.
    LegacyStream,
    /// 2026-07-28 only.
    Modern,
    /// It says to go elsewhere.
    Redirects,
    /// It wants a credential.
    Refuses,
    /// It is no MCP server.
    Garbage,
    /// There is always a next page.
    WithoutEnd,
}

/// A running server. Its thread ends with the process.
pub(crate) struct Peer {
    pub(crate) url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Peer {
    pub(crate) fn start(speaks: Speaks) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let seen = Arc::clone(&seen);
                // A connection that the client has left is no matter.
                std::thread::spawn(move || drop(serve(speaks, stream, &seen)));
            }
        });
        Self { url, requests }
    }

    /// The head of every request so far, names in lower case.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn serve(speaks: Speaks, stream: TcpStream, seen: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    loop {
        let mut head = String::new();
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if let Some((name, value)) = line.split_once(": ") {
                let name = name.to_ascii_lowercase();
                if name == "content-length" {
                    length = value.trim().parse().unwrap();
                }
                line = format!("{name}: {value}");
            }
            head += &line;
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        seen.lock().unwrap().push(head.clone());
        let message: Value = serde_json::from_slice(&body).unwrap_or_default();
        let answer = answer(speaks, &head, &message);
        writer.write_all(answer.as_bytes())?;
        // Only a connection that was said to end does: the client sends the next request on any other.
        if answer.contains("connection: close\r\n") {
            return Ok(());
        }
    }
}

fn answer(speaks: Speaks, head: &str, message: &Value) -> String {
    let plain = |status: &str, headers: &str, body: &str| {
        format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
    };
    let is_modern = head.contains("mcp-protocol-version: 2026-07-28\r\n");
    match speaks {
        Speaks::Redirects => {
            return plain("307 Temporary Redirect", "location: http://127.0.0.1:1/\r\n", "");
        }
        Speaks::Refuses => return plain("401 Unauthorized", "", ""),
        Speaks::Garbage => return plain("200 OK", "content-type: text/html\r\n", "<html>"),
        Speaks::Modern if !is_modern => return plain("400 Bad Request", "", ""),
        _ => {}
    }
    let method = message["method"].as_str().unwrap_or_default();
    let result = match method {
        "initialize" => json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}}),
        "tools/list" => {
            assert_eq!(is_modern, head.contains("mcp-method: tools/list\r\n"));
            assert_eq!(is_modern, message["params"]["_meta"].is_object());
            assert!(is_modern || head.contains("mcp-session-id: a-session\r\n"));
            let tool = |name: &str| json!({"name": name, "inputSchema": {"type": "object"}});
            match (&message["params"]["cursor"], speaks) {
                (_, Speaks::WithoutEnd) => json!({"tools": [], "nextCursor": "again"}),
                (Value::Null, _) => json!({"tools": [tool("first")], "nextCursor": "next"}),
                _ => json!({"tools": [tool("second")]}),
            }
        }
        _ => return plain("202 Accepted", "", ""),
    };
    let body = json!({"jsonrpc": "2.0", "id": message["id"], "result": result}).to_string();
    let session = "mcp-session-id: a-session\r\n";
    if speaks == Speaks::LegacyStream {
        // A notification first, and then the answer.
        let note = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {}});
        return format!(
            "HTTP/1.1 200 OK\r\n{session}content-type: text/event-stream\r\nconnection: close\r\n\r\n\
             : hello\n\ndata: {note}\n\ndata: {body}\n\n: and more"
        );
    }
    plain("200 OK", &format!("{session}content-type: application/json\r\n"), &body)
}
