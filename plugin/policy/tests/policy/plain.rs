//! The same questions, answered by plain Cedar: all policies, all entities, Cedar's own JSON formats
//! and schema checks, and nothing of the engine.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};

use cedar_policy::{
    Authorizer, Context, Decision, Entities, EntityUid, PolicyId, PolicySet, Request, Schema,
    SchemaFragment,
};
use serde_json::{Value, json};
use toolgate_policy::{BASE_SCHEMA, Caller, CallerKind, PolicyEngine, Principal, RequestFacts};

use crate::support::*;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Who {
    Alice,
    Bob,
    Carol,
    /// A client that acts for itself, with the id of a user.
    ClientAlice,
    /// One with groups, roles, claims and a name of its own.
    Robot,
    Anonymous,
}

pub(crate) const EVERYBODY: [Who; 6] =
    [Who::Alice, Who::Bob, Who::Carol, Who::ClientAlice, Who::Robot, Who::Anonymous];

impl Who {
    pub(crate) fn principal(self, engine: &PolicyEngine) -> Principal {
        let caller = match self {
            Self::Alice => caller("alice", &["tellers"]),
            Self::Bob => Caller {
                roles: vec!["auditor".to_owned()],
                claims: [("department".to_owned(), "finance".to_owned())].into(),
                client: Some("cli".to_owned()),
                ..caller("bob", &["guests"])
            },
            Self::Carol => caller("carol", &["bosses", "bankers"]),
            Self::ClientAlice => Caller { kind: CallerKind::Client, ..caller("alice", &[]) },
            Self::Robot => Caller {
                kind: CallerKind::Client,
                roles: vec!["auditor".to_owned()],
                claims: [("department".to_owned(), "finance".to_owned())].into(),
                client: Some("robot-client".to_owned()),
                ..caller("robot", &["tellers"])
            },
            Self::Anonymous => return engine.anonymous(),
        };
        engine.principal(&caller).unwrap()
    }

    fn uid(self) -> Value {
        match self {
            Self::Alice => uid("User", "alice"),
            Self::Bob => uid("User", "bob"),
            Self::Carol => uid("User", "carol"),
            Self::ClientAlice => uid("Client", "alice"),
            Self::Robot => uid("Client", "robot"),
            Self::Anonymous => uid("Anonymous", "anonymous"),
        }
    }

    fn entities(self) -> Vec<Value> {
        let caller = |kind: &str, id: &str, mut attributes: Value, parents: Value, tags: Value| {
            attributes["id"] = json!(id);
            attributes["issuer"] = json!("https://idp.example");
            json!({"uid": uid(kind, id), "attrs": attributes, "parents": parents, "tags": tags})
        };
        let user = |id: &str, attributes: Value, parents: Value, tags: Value| {
            caller("User", id, attributes, parents, tags)
        };
        let auditor = || json!({"uid": uid("Role", "auditor"), "attrs": {}, "parents": []});
        match self {
            Self::Alice => {
                vec![user("alice", json!({}), json!([uid("Group", "tellers")]), json!({}))]
            }
            Self::Bob => vec![
                user(
                    "bob",
                    json!({"client": "cli"}),
                    json!([uid("Group", "guests"), uid("Role", "auditor")]),
                    json!({"department": "finance"}),
                ),
                auditor(),
                json!({"uid": uid("Group", "guests"), "attrs": {}, "parents": []}),
            ],
            Self::Carol => vec![
                user(
                    "carol",
                    json!({}),
                    json!([uid("Group", "bosses"), uid("Group", "bankers")]),
                    json!({}),
                ),
                json!({"uid": uid("Group", "bosses"), "attrs": {}, "parents": []}),
            ],
            Self::ClientAlice => vec![caller("Client", "alice", json!({}), json!([]), json!({}))],
            Self::Robot => vec![
                caller(
                    "Client",
                    "robot",
                    json!({"client": "robot-client"}),
                    json!([uid("Group", "tellers"), uid("Role", "auditor")]),
                    json!({"department": "finance"}),
                ),
                auditor(),
            ],
            Self::Anonymous => Vec::new(),
        }
    }
}

/// What is asked for, by kind: `("Tool", "bank/pay")`, `("connect", "bank")`.
pub(crate) type Thing = (&'static str, &'static str);

/// The schema of `support` with every tool's action in the group that its entity makes it one of.
fn placed() -> String {
    let mut text = SCHEMA.to_owned();
    for (written, placed) in [
        (
            r#""bank/pay" in ["bank-write"]"#,
            r#""bank/pay" in ["bank-write", call_destructive_tool]"#,
        ),
        (r#""bank/book" in [call_tool]"#, r#""bank/book" in [call_destructive_tool]"#),
        (r#""files/read" in [call_tool]"#, r#""files/read" in [call_tool, call_read_only_tool]"#),
    ] {
        assert!(text.contains(written));
        text = text.replace(written, placed);
    }
    text
}

/// What Cedar says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) permitted: bool,
    /// Whether a policy could not be evaluated, which denies.
    pub(crate) failed: bool,
    pub(crate) reasons: BTreeSet<String>,
}

/// All policies, as Cedar has them.
pub(crate) struct Plain {
    schema: Schema,
    policies: PolicySet,
    entities: RefCell<HashMap<(Who, Thing), Entities>>,
}

impl Plain {
    pub(crate) fn new(policies: &str) -> Self {
        let fragments = [BASE_SCHEMA, &placed()]
            .map(|text| SchemaFragment::from_cedarschema_str(text).unwrap().0);
        let policies: PolicySet = policies.parse().unwrap();
        let named = policies
            .policies()
            .map(|policy| policy.new_id(PolicyId::new(policy.annotation("id").unwrap())));
        Self {
            schema: Schema::from_schema_fragments(fragments).unwrap(),
            policies: PolicySet::from_policies(named).unwrap(),
            entities: RefCell::default(),
        }
    }

    /// What Cedar says of `who` and `thing`; None when the arguments are not of the declared type.
    pub(crate) fn ask(
        &self,
        who: Who,
        thing: Thing,
        arguments: &Value,
        facts: &RequestFacts<'_>,
    ) -> Option<Answer> {
        let action = action(thing);
        let mut context = json!({"request": request(facts)});
        if has_own_action(thing) {
            context["arguments"] = arguments.clone();
        }
        let context = Context::from_json_value(context, Some((&self.schema, &action))).ok()?;
        let request = Request::new(
            parsed(&who.uid()),
            action,
            parsed(&resource(thing)),
            context,
            Some(&self.schema),
        )
        .ok()?;
        let mut entities = self.entities.borrow_mut();
        let entities = entities.entry((who, thing)).or_insert_with(|| {
            let all = who.entities().into_iter().chain(everything(thing)).collect();
            Entities::from_json_value(Value::Array(all), Some(&self.schema)).unwrap()
        });
        let response = Authorizer::new().is_authorized(&request, &self.policies, entities);
        let failed = response.diagnostics().errors().count() > 0;
        Some(Answer {
            permitted: response.decision() == Decision::Allow && !failed,
            failed,
            reasons: response.diagnostics().reason().map(ToString::to_string).collect(),
        })
    }
}

pub(crate) fn has_own_action(thing: Thing) -> bool {
    ["bank/pay", "bank/book", "files/read"].contains(&thing.1) && thing.0 == "Tool"
}

fn action((kind, id): Thing) -> EntityUid {
    let action = match kind {
        "Tool" if has_own_action((kind, id)) => id,
        "Tool" if id == "files/list" => "call_read_only_tool",
        "Tool" if id == "bank/letter" => "call_tool",
        "Tool" => "call_destructive_tool",
        "Prompt" => "get_prompt",
        "Resource" => "read_resource",
        server => server,
    };
    parsed(&uid("Action", action))
}

fn resource((kind, id): Thing) -> Value {
    if ["Tool", "Prompt", "Resource"].contains(&kind) { uid(kind, id) } else { uid("Server", id) }
}

fn request(facts: &RequestFacts<'_>) -> Value {
    let extension = |name: &str, text: &str| json!({"__extn": {"fn": name, "arg": text}});
    let time = match facts.time_ms {
        MORNING => "2026-11-23T08:00:00Z",
        NOON => "2026-11-23T12:00:00Z",
        YEARS_LATER => "2031-01-01T00:00:00Z",
        other => panic!("{other}"),
    };
    let mut request = json!({"time": extension("datetime", time), "scopes": facts.scopes});
    if let Some(address) = facts.source_ip {
        request["source_ip"] = extension("ip", address);
    }
    for (name, value) in [
        ("session", facts.session),
        ("client_name", facts.client_name),
        ("protocol_version", facts.protocol_version),
    ] {
        if let Some(value) = value {
            request[name] = json!(value);
        }
    }
    if let Some(age) = facts.token_age_seconds {
        request["token_age_seconds"] = json!(age);
    }
    request
}

/// All entities of `support::config` that are not the caller, written by hand.
fn everything(thing: Thing) -> Vec<Value> {
    let group = |id: &str, parents: Value| json!({"uid": uid("Group", id), "attrs": {}, "parents": parents});
    let mut all = vec![
        group("tellers", json!([uid("Group", "bankers")])),
        group("bankers", json!([uid("Group", "staff")])),
        group("staff", json!([])),
        json!({"uid": uid("Gateway", "toolgate"), "attrs": {}, "parents": []}),
        json!({"uid": uid("Server", "files"), "attrs": {"name": "files", "tags": []},
               "parents": [uid("Gateway", "toolgate")]}),
        json!({"uid": uid("Server", "bank"), "parents": [uid("Gateway", "toolgate")],
               "attrs": {"name": "bank", "region": "eu", "trust": "internal", "tags": ["money"]}}),
    ];
    let (kind, id) = thing;
    let Some((server, name)) = id.split_once('/') else { return all };
    let server = uid("Server", server);
    let reads = ["files/list", "files/read"].contains(&id);
    let safe = reads || id == "bank/letter";
    let attributes = match kind {
        "Tool" => json!({"name": name, "server": server, "tags": [], "read_only": reads,
                         "destructive": !safe, "idempotent": false, "open_world": true}),
        "Prompt" => json!({"name": name, "server": server}),
        _ => json!({"uri": name, "scheme": name.split_once(':').unwrap().0, "server": server}),
    };
    all.push(json!({"uid": uid(kind, id), "attrs": attributes, "parents": [server]}));
    all
}

fn uid(kind: &str, id: &str) -> Value {
    json!({"type": format!("MCP::{kind}"), "id": id})
}

fn parsed(uid: &Value) -> EntityUid {
    EntityUid::from_json(uid.clone()).unwrap()
}
