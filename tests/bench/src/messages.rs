//! What is asked and what is answered.

use serde_json::{Value, json};

/// The answer to a call of a tool.
pub(crate) fn call_answer() -> String {
    json!({
        "jsonrpc": "2.0",
        "id": 1,
        "result": {"content": [{"type": "text", "text": "refunded 40.00 EUR of invoice I-1001"}], "isError": false},
    })
    .to_string()
}

/// A list of tools with descriptions and schemas of a usual size; `first` lead it.
pub(crate) fn list_answer(first: &[&str], count: usize) -> String {
    let names = first.iter().map(ToString::to_string);
    let others = (first.len()..count).map(|index| format!("tool-{index}"));
    let tools: Vec<Value> = names.chain(others).map(|name| tool(&name)).collect();
    json!({"jsonrpc": "2.0", "id": 1, "result": {"tools": tools}}).to_string()
}

fn tool(name: &str) -> Value {
    json!({
        "name": name,
        "title": format!("The tool {name}"),
        "description": format!("What {name} does, in a sentence or two, so that a model knows when to call it and when it had better not."),
        "inputSchema": {
            "type": "object",
            "properties": {
                "invoice": {"type": "string", "description": "Number of the invoice"},
                "amount": {"type": "integer", "minimum": 1, "description": "Amount in whole euros"},
                "reason": {"type": "string", "maxLength": 400, "description": "Why"},
            },
            "required": ["invoice", "amount"],
        },
        "annotations": {"readOnlyHint": false, "destructiveHint": false, "openWorldHint": false},
    })
}

/// A call of a tool.
pub(crate) fn call(name: &str, arguments: &Value) -> String {
    let params = json!({"name": name, "arguments": arguments});
    json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string()
}

/// The question for all tools.
pub(crate) fn list() -> String {
    json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).to_string()
}

/// A request of a client that speaks 2025-11-25.
pub(crate) fn request(server: &str, body: &str, token: &str) -> Vec<u8> {
    let head = [
        format!("POST /mcp/{server} HTTP/1.1"),
        "host: 127.0.0.1:10000".to_owned(),
        "user-agent: bench/1.0".to_owned(),
        "accept: application/json, text/event-stream".to_owned(),
        "content-type: application/json".to_owned(),
        format!("authorization: Bearer {token}"),
        "mcp-protocol-version: 2025-11-25".to_owned(),
        "mcp-session-id: 3f8c2f6e-6f0e-4f53-9d5b-8f3a3c1d2e4f".to_owned(),
        format!("content-length: {}", body.len()),
    ];
    format!("{}\r\n\r\n{body}", head.join("\r\n")).into_bytes()
}
