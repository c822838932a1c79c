//! A gateway with two servers, "files" and "bank", and short ways to ask it.

use serde_json::json;
use toolgate_policy::{
    Caller, Decision, Outcome, PolicyConfig, PolicyEngine, PolicyText, Principal, Problem, Refusal,
    RequestFacts, ServerAction, Target,
};
use toolgate_protocol::json::Json;

/// 2026-11-23T12:00:00Z
pub(crate) const NOON: i64 = 1_795_435_200_000;

/// Four hours before.
pub(crate) const MORNING: i64 = NOON - 4 * 3_600_000;

/// 2031-01-01T00:00:00Z
pub(crate) const YEARS_LATER: i64 = 1_924_992_000_000;

pub(crate) const SCHEMA: &str = r#"
namespace MCP {
  type Line = { amount: Long };
  action "bank-write" in [call_tool];
  action "bank/pay" in ["bank-write"] appliesTo {
    principal: [User, Client, Anonymous], resource: [Tool],
    context: { request: Request, arguments: { to: String, amount: Long, memo?: String } },
  };
  action "bank/book" in [call_tool] appliesTo {
    principal: [User, Anonymous], resource: [Tool],
    context: { request: Request, arguments: {
      lines: Set<Line>, price?: decimal, on?: datetime, from?: ipaddr, urgent?: Bool,
      extra?: { __entity?: String, __extn?: { fn?: String, arg?: String }, type?: String } } },
  };
  action "files/read" in [call_tool] appliesTo {
    principal: [User, Client, Anonymous], resource: [Tool],
    context: { request: Request, arguments: { path: String } },
  };
}"#;

pub(crate) fn config(policies: &str) -> PolicyConfig {
    PolicyConfig {
        name: "test".to_owned(),
        policies: PolicyText::One(policies.to_owned()),
        schema: Some(SCHEMA.to_owned()),
        entities: vec![
            json!({"uid": {"type": "MCP::Group", "id": "tellers"},
                   "parents": [{"type": "MCP::Group", "id": "bankers"}]}),
            json!({"uid": {"type": "MCP::Group", "id": "bankers"},
                   "parents": [{"type": "MCP::Group", "id": "staff"}]}),
            json!({"uid": {"type": "MCP::Group", "id": "staff"}}),
            json!({"uid": {"type": "MCP::Server", "id": "bank"},
                   "attrs": {"region": "eu", "trust": "internal", "tags": ["money"]}}),
            json!({"uid": {"type": "MCP::Tool", "id": "files/list"},
                   "attrs": {"read_only": true, "destructive": false}}),
            json!({"uid": {"type": "MCP::Tool", "id": "files/read"},
                   "attrs": {"read_only": true, "destructive": false}}),
            json!({"uid": {"type": "MCP::Tool", "id": "bank/letter"},
                   "attrs": {"destructive": false}}),
        ],
        counters: std::collections::BTreeMap::new(),
        mode: toolgate_policy::PolicyMode::default(),
    }
}

pub(crate) fn servers() -> Vec<String> {
    vec!["files".to_owned(), "bank".to_owned()]
}

#[track_caller]
pub(crate) fn engine(policies: &str) -> PolicyEngine {
    match PolicyEngine::compile(&config(policies), &servers()) {
        Ok(engine) => engine,
        Err(problems) => panic!("{}", texts(&problems).join("\n")),
    }
}

pub(crate) fn texts(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

pub(crate) fn caller(id: &str, groups: &[&str]) -> Caller {
    Caller {
        id: id.to_owned(),
        issuer: "https://idp.example".to_owned(),
        groups: groups.iter().map(ToString::to_string).collect(),
        ..Caller::default()
    }
}

pub(crate) fn alice(engine: &PolicyEngine) -> Principal {
    engine.principal(&caller("alice", &["tellers"])).unwrap()
}

pub(crate) fn facts() -> RequestFacts<'static> {
    RequestFacts { time_ms: NOON, ..RequestFacts::default() }
}

pub(crate) fn json(text: &str) -> Json {
    Json::parse(text.as_bytes()).unwrap()
}

/// What `alice` gets for calling `tool`, e.g. `bank/pay`.
pub(crate) fn call(engine: &PolicyEngine, tool: &str, arguments: &str) -> Decision {
    let (server, name) = tool.split_once('/').unwrap();
    let arguments = json(arguments);
    let target = Target::Tool { server, name, arguments: &arguments };
    engine.decide(&alice(engine), &target, &facts())
}

pub(crate) fn connect(engine: &PolicyEngine, server: &str) -> Decision {
    engine.decide(&alice(engine), &Target::Server(server, ServerAction::Connect), &facts())
}

/// Whether `alice` sees `tool`.
pub(crate) fn sees(engine: &PolicyEngine, tool: &str) -> bool {
    let (server, name) = tool.split_once('/').unwrap();
    let target = Target::Tool { server, name, arguments: &Json::Null };
    engine.visible(&alice(engine), &target, &facts())
}

pub(crate) fn ids(decision: &Decision) -> Vec<&str> {
    decision.policies.iter().map(AsRef::as_ref).collect()
}

#[track_caller]
pub(crate) fn refusal(decision: &Decision) -> &Refusal {
    match &decision.outcome {
        Outcome::Deny(refusal) => refusal,
        Outcome::Permit | Outcome::Approval(_) => panic!("permitted by {:?}", decision.policies),
    }
}

#[track_caller]
pub(crate) fn invalid(decision: &Decision) -> &str {
    match refusal(decision) {
        Refusal::InvalidArguments(message) => message,
        other => panic!("{other:?}"),
    }
}
