//! What an endpoint of several servers costs as servers grow in number: a call, and a list of 20 tools
//! each, the first time and from memory. Servers answer at once here, so that only the gateway counts.

use std::error::Error;
use std::io::{self, Write};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use toolgate_core::{
    CallId, CallOutcome, Effect, Event, Exchange, Gateway, Headers, HttpCall, Timestamp,
};

const TOOLS: usize = 20;

/// Measures and prints.
pub(crate) fn report() -> Result<(), Box<dyn Error>> {
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "\n{:<12} {:>12} {:>12} {:>12} {:>12} {:>12} {:>12}   µs",
        "servers", "call direct", "federated", "list cold", "calls", "list warm", "memory KiB"
    )?;
    for servers in [2, 25, 100] {
        let before = resident();
        let gateway = gateway(servers)?;
        let (cold, calls) = timed(|| list(&gateway))?;
        let warm = usual(Duration::from_millis(500), || list(&gateway).map(drop))?;
        let memory = resident().zip(before).map(|(now, before)| now.saturating_sub(before));
        // The era of a server is known by now, as it is when a client has listed before it calls.
        let time = Duration::from_millis(500);
        let direct = usual(time, || call(&gateway, "/mcp/s-1", "tool-7"))?;
        let federated = usual(time, || call(&gateway, "/mcp", "s-1__tool-7"))?;
        writeln!(
            out,
            "{servers:<12} {direct:>12.1} {federated:>12.1} {cold:>12.0} {calls:>12} {warm:>12.0} {:>12}",
            memory.map_or_else(|| "-".to_owned(), |kib| kib.to_string())
        )?;
    }
    Ok(())
}

fn gateway(servers: usize) -> Result<Rc<Gateway>, Box<dyn Error>> {
    let servers: Value = (0..servers)
        .map(|number| (format!("s-{number}"), json!({"cluster": format!("s-{number}")})))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let plugin = json!({
        "servers": servers,
        "federation": {"ttl_seconds": 3600},
        "identity": {"anonymous": true},
        "policy": {
            "name": "bench",
            "policies": {"all.cedar": "@id(\"all\") permit(principal, action, resource);"},
        },
    });
    let compiled = Gateway::compile(plugin.to_string().as_bytes(), &|_: &str| None);
    Ok(Rc::new(compiled.map_err(|problems| format!("{problems:?}"))?))
}

fn list(gateway: &Rc<Gateway>) -> Result<usize, Box<dyn Error>> {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}});
    exchange(gateway, "/mcp", &body)
}

fn call(gateway: &Rc<Gateway>, path: &str, tool: &str) -> Result<(), Box<dyn Error>> {
    let params = json!({"name": tool, "arguments": {"invoice": "I-1001", "amount": 40}});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
    exchange(gateway, path, &body).map(drop)
}

/// Plays a request up to its decision; the number of calls that the gateway made for it.
fn exchange(gateway: &Rc<Gateway>, path: &str, body: &Value) -> Result<usize, Box<dyn Error>> {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let now = Timestamp(since_epoch);
    let headers = Headers::from_pairs([
        (":method", "POST"),
        (":path", path),
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
    ]);
    let mut exchange = Exchange::new(Some(Rc::clone(gateway)));
    let mut effects = Vec::new();
    let head = Event::RequestHead { headers, source: None, end: false };
    let _held = exchange.handle(head, now, &mut effects);
    let body = body.to_string().into_bytes();
    let _decided =
        exchange.handle(Event::RequestBody { chunk: &body, end: true }, now, &mut effects);
    let mut calls = 0;
    let mut decided = false;
    while !effects.is_empty() {
        for effect in std::mem::take(&mut effects) {
            match effect {
                Effect::Call { id, call } => {
                    calls += 1;
                    finish(gateway, &mut exchange, (id, &call), now, &mut effects);
                }
                Effect::SendUpstream(_) => decided = true,
                Effect::Reply(reply) if reply.status == 200 => decided = true,
                Effect::Reply(reply) => {
                    return Err(String::from_utf8_lossy(&reply.body).into_owned().into());
                }
                _ => {}
            }
        }
    }
    let _recorded = exchange.handle(Event::Closed, now, &mut effects);
    if decided { Ok(calls) } else { Err("nothing was decided".into()) }
}

fn finish(
    gateway: &Gateway,
    exchange: &mut Exchange,
    (id, call): (CallId, &HttpCall),
    now: Timestamp,
    effects: &mut Vec<Effect>,
) {
    let asked: Value = call
        .body
        .as_ref()
        .and_then(|body| serde_json::from_str(body.expose()).ok())
        .unwrap_or_default();
    let tool = |number: usize| {
        json!({
            "name": format!("tool-{number}"),
            "title": "A tool of a bench",
            "description": "Does what its name says, for whoever asks, and nothing besides. ".repeat(3),
            "inputSchema": {"type": "object", "properties": {
                "invoice": {"type": "string", "description": "number of an invoice"},
                "amount": {"type": "integer", "minimum": 1},
                "reason": {"type": "string"},
            }, "required": ["invoice", "amount"]},
        })
    };
    let result = json!({
        "resultType": "complete", "ttlMs": 3_600_000, "cacheScope": "public",
        "tools": (0..TOOLS).map(tool).collect::<Vec<_>>(),
    });
    let answer = json!({"jsonrpc": "2.0", "id": asked["id"], "result": result});
    let outcome = CallOutcome::Response {
        status: 200,
        headers: Headers::from_pairs([("content-type", "application/json")]),
        body: answer.to_string().into_bytes(),
    };
    let done = gateway.finish_call(id, outcome, now);
    let _goes_on = exchange.handle(Event::CallDone(&done), now, effects);
}

/// Microseconds of one run, and what it returns.
fn timed<T>(run: impl FnOnce() -> Result<T, Box<dyn Error>>) -> Result<(f64, T), Box<dyn Error>> {
    let began = Instant::now();
    let value = run()?;
    Ok((began.elapsed().as_secs_f64() * 1e6, value))
}

/// Microseconds of the run in the middle, of as many as fit into this time.
fn usual(
    time: Duration,
    mut run: impl FnMut() -> Result<(), Box<dyn Error>>,
) -> Result<f64, Box<dyn Error>> {
    let end = Instant::now() + time;
    let mut all = Vec::new();
    while Instant::now() < end || all.is_empty() {
        all.push(timed(&mut run)?.0);
    }
    all.sort_by(f64::total_cmp);
    Ok(all.get(all.len() / 2).copied().unwrap_or_default())
}

/// KiB of memory of this process, where the system says.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}
