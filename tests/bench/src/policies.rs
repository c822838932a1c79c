//! What a decision costs as policies and tools grow in number, and what their configuration does.

use std::error::Error;
use std::fmt::Write as _;
use std::hint::black_box;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use toolgate_policy::{
    Caller, PolicyConfig, PolicyEngine, PolicyText, Principal, RequestFacts, Target, Validation,
};
use toolgate_protocol::json::Json;

const SERVER: &str = "s";
const ARGUMENTS: &[u8] =
    br#"{"invoice":"I-1001","amount":40,"reason":"late","urgent":false,"tags":["a","b"]}"#;

/// `tools` typed tools and `policies` policies: one permits every caller's group some tool with an
/// amount, in turn; the last two look at a scope and at the time of all calls.
fn config(tools: usize, policies: usize) -> PolicyConfig {
    let mut schema = "namespace MCP {\n".to_owned();
    for tool in 0..tools {
        let _infallible = writeln!(
            schema,
            "action \"{SERVER}/tool-{tool}\" in [call_tool] appliesTo {{ principal: [User, Client, Anonymous], \
             resource: [Tool], context: {{ request: Request, arguments: {{ invoice: String, amount: Long, \
             reason?: String, urgent?: Bool, tags?: Set<String> }} }} }};"
        );
    }
    schema.push_str("}\n");
    let mut text =
        "@id(\"scope\") forbid(principal, action in MCP::Action::\"call_tool\", resource) \
         unless { context.request.scopes.contains(\"mcp:tools\") };\n\
         @id(\"time\") forbid(principal, action in MCP::Action::\"call_tool\", resource) \
         unless { context.request.time < datetime(\"2100-01-01\") };\n"
            .to_owned();
    for policy in 2..policies {
        // Every tool has a policy for `staff`, and others for groups that the caller is not in.
        let group = if policy - 2 < tools { 0 } else { policy };
        let _infallible = writeln!(
            text,
            "@id(\"p{policy}\") permit(principal in MCP::Group::\"g{group}\", \
             action == MCP::Action::\"{SERVER}/tool-{}\", resource) \
             when {{ context.arguments.amount <= {} }};",
            (policy - 2) % tools,
            policy + 100,
        );
    }
    PolicyConfig {
        counters: std::collections::BTreeMap::new(),
        name: "bench".to_owned(),
        policies: PolicyText::One(text),
        schema: Some(schema),
        entities: Vec::new(),
        mode: toolgate_policy::PolicyMode::default(),
    }
}

fn caller(engine: &PolicyEngine) -> Result<Principal, Box<dyn Error>> {
    let caller = Caller {
        id: "alice".into(),
        issuer: "https://idp.example".into(),
        groups: (0..5).map(|group| format!("g{}", group * 100_000)).collect(),
        claims: [("sub", "alice"), ("scope", "mcp:tools")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        ..Caller::default()
    };
    Ok(engine.principal(&caller)?)
}

/// Prints the table.
pub(crate) fn report() -> Result<(), Box<dyn Error>> {
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "\n{:<24} {:>12} {:>12} {:>12} {:>12} {:>12} {:>12} {:>12} {:>10}",
        "typed tools, policies",
        "configured",
        "if checked",
        "call, first",
        "call",
        "list, first",
        "new caller",
        "list again",
        "memory"
    )?;
    for (tools, policies) in [(8, 10), (98, 100), (500, 1000), (998, 1000)] {
        let before = memory();
        let scopes = ["mcp:tools".to_owned()];
        let facts = RequestFacts {
            time_ms: 1_795_435_200_000,
            scopes: &scopes,
            source_ip: Some("127.0.0.1"),
            session: Some("3f8c2f6e-6f0e-4f53-9d5b-8f3a3c1d2e4f"),
            protocol_version: Some("2025-11-25"),
            ..RequestFacts::default()
        };
        let config = config(tools, policies);
        let begin = Instant::now();
        let engine = PolicyEngine::compile(&config, &[SERVER.to_owned()])
            .map_err(|problems| format!("{problems:?}"))?;
        let configured = begin.elapsed();
        let arguments = Json::parse(ARGUMENTS)?;
        let call = |principal: &Principal, facts: &RequestFacts<'_>| {
            let target = Target::Tool { server: SERVER, name: "tool-3", arguments: &arguments };
            engine.decide(principal, &target, facts)
        };
        let names: Vec<String> = (0..tools).map(|tool| format!("tool-{tool}")).collect();
        let list = |principal: &Principal, facts: &RequestFacts<'_>| {
            let tool = |name| Target::Tool { server: SERVER, name, arguments: &Json::Null };
            names.iter().filter(|name| engine.visible(principal, &tool(name), facts)).count()
        };
        let principal = caller(&engine)?;
        if !call(&principal, &facts).is_permit() || list(&caller(&engine)?, &facts) != tools {
            return Err("the policies of the bench do not permit what they should".into());
        }
        // Another engine, since that one has answered.
        let digest = config.checked();
        let begin = Instant::now();
        let checked = Validation::Checked(&digest);
        let fresh = PolicyEngine::compile_with(&config, &[SERVER.to_owned()], checked)
            .map_err(|problems| format!("{problems:?}"))?;
        let configured_checked = begin.elapsed();
        let first = {
            let principal = caller(&fresh)?;
            let tool = |name| Target::Tool { server: SERVER, name, arguments: &Json::Null };
            let begin = Instant::now();
            for name in &names {
                black_box(fresh.visible(&principal, &tool(name), &facts));
            }
            begin.elapsed()
        };
        drop(fresh);
        let first_call = lowest(50, || {
            let principal = caller(&engine)?;
            let begin = Instant::now();
            black_box(call(&principal, &facts));
            Ok(begin.elapsed())
        })?;
        let new_caller = lowest(10, || {
            let principal = caller(&engine)?;
            let begin = Instant::now();
            black_box(list(&principal, &facts));
            Ok(begin.elapsed())
        })?;
        // The clock goes on, and a policy looks at it.
        let mut time_ms = facts.time_ms;
        let mut later = || {
            time_ms += 1;
            RequestFacts { time_ms, ..facts }
        };
        let again = lowest(10, || {
            let facts = later();
            let begin = Instant::now();
            black_box(list(&principal, &facts));
            Ok(begin.elapsed())
        })?;
        let warm = lowest(200, || {
            let facts = later();
            let begin = Instant::now();
            for _ in 0..8 {
                black_box(call(&principal, &facts));
            }
            Ok(begin.elapsed() / 8)
        })?;
        let memory = memory().saturating_sub(before) >> 20;
        let row = [
            format!("{} ms", configured.as_millis()),
            format!("{} ms", configured_checked.as_millis()),
            microseconds(first_call),
            microseconds(warm),
            milliseconds(first),
            milliseconds(new_caller),
            milliseconds(again),
        ];
        write!(out, "{:<24}", format!("{tools}, {policies}"))?;
        for cell in row {
            write!(out, " {cell:>12}")?;
        }
        writeln!(out, " {:>10}", format!("{memory} MiB"))?;
    }
    Ok(())
}

fn lowest(
    times: usize,
    mut measure: impl FnMut() -> Result<Duration, Box<dyn Error>>,
) -> Result<Duration, Box<dyn Error>> {
    let mut lowest = Duration::MAX;
    for _ in 0..times {
        lowest = lowest.min(measure()?);
    }
    Ok(lowest)
}

fn microseconds(duration: Duration) -> String {
    format!("{:.2} µs", duration.as_secs_f64() * 1e6)
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1e3)
}

/// How many bytes the program has.
fn memory() -> usize {
    #[cfg(target_arch = "wasm32")]
    return std::arch::wasm32::memory_size(0) << 16;
    #[cfg(not(target_arch = "wasm32"))]
    {
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let resident = pages.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
        resident.unwrap_or_default() << 12
    }
}
