//! The entities that do not depend on the caller's token: the hierarchy of groups, the servers and
//! their tools with the operator's attributes, and the defaults of everything not configured.
//!
//! Built once. A decision takes from here the few entities it needs and no more, since Cedar's cost
//! grows with what it is given.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use cedar_policy::{Entities, Entity, EntityTypeName, EntityUid, Schema};
use cedar_policy_core::ast;
use serde_json::{Map, Value, json};

use crate::call_kind::{self, CallKind};
use crate::closure::{Closed, closed};
use crate::config::Problem;
use crate::names;
use crate::request::Target;

/// Configured groups and the groups around them.
#[derive(Debug, Default)]
pub(crate) struct Groups(HashMap<String, Entity>);

/// Everything that can be called, with attributes.
#[derive(Debug)]
pub(crate) struct Catalog {
    pub(crate) groups: Groups,
    gateway: EntityUid,
    servers: HashMap<String, Server>,
    /// Configured tools by entity id; all others have the defaults.
    tools: HashMap<String, Closed>,
    /// What calls of these are.
    kinds: HashMap<String, CallKind>,
}

/// A server, alone and with what it lies in.
#[derive(Debug)]
struct Server {
    entity: Entity,
    closed: Closed,
}

/// What a target is in Cedar.
pub(crate) struct Located {
    pub(crate) uid: EntityUid,
    /// Itself and what it lies in.
    pub(crate) entities: Closed,
    /// What it lies in, innermost first.
    pub(crate) ancestors: Vec<EntityUid>,
}

impl Groups {
    /// The groups called `ids` and all groups around them, each once. A group that is not
    /// configured lies in no other.
    pub(crate) fn around(&self, ids: &[String]) -> Vec<Entity> {
        let mut seen = HashSet::new();
        let mut open: Vec<EntityUid> = ids.iter().map(|id| names::uid(&names::GROUP, id)).collect();
        let mut found = Vec::new();
        while let Some(uid) = open.pop() {
            if !seen.insert(uid.clone()) {
                continue;
            }
            match self.0.get(uid.id().unescaped()) {
                Some(group) => {
                    let (_, _, parents) = group.clone().into_inner();
                    open.extend(parents);
                    found.push(group.clone());
                }
                None => found.push(Entity::with_uid(uid)),
            }
        }
        found
    }
}

impl Catalog {
    /// Reads the configured `entities` and adds the `servers` without one.
    ///
    /// # Errors
    /// Everything that is wrong: unknown servers, attributes that do not fit the schema, entities
    /// that are not the configuration's to declare, groups that lie in each other.
    pub(crate) fn compile(
        entities: &[Value],
        servers: &BTreeSet<&str>,
        schema: &Schema,
    ) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut seen = HashSet::new();
        let mut groups = Groups::default();
        let mut declared_servers = HashMap::new();
        let mut tools = Vec::new();
        for (index, value) in entities.iter().enumerate() {
            let path = format!("policy.entities[{index}]");
            let declared = match Declared::read(value, servers) {
                Ok(declared) => declared,
                Err((member, message)) => {
                    problems.push(Problem::new(format!("{path}{member}"), message));
                    continue;
                }
            };
            if !seen.insert(declared.uid.clone()) {
                problems.push(Problem::new(path, format!("`{}` is declared twice", declared.uid)));
                continue;
            }
            let id = declared.uid.id().unescaped().to_owned();
            let kind = declared.uid.type_name().clone();
            match Entity::from_json_value(declared.complete, Some(schema)) {
                Ok(entity) if kind == *names::GROUP => _ = groups.0.insert(id, entity),
                Ok(entity) if kind == *names::SERVER => _ = declared_servers.insert(id, entity),
                Ok(entity) => tools.push((id, entity)),
                Err(error) => problems.push(Problem::new(path, full_message(&error))),
            }
        }
        // Building the set is what finds cycles.
        if let Err(error) = Entities::from_entities(groups.0.values().cloned(), None) {
            problems.push(Problem::new("policy.entities", full_message(&error)));
        }
        for server in servers {
            if !declared_servers.contains_key(*server) {
                let complete = Declared::server(server, Map::new());
                match Entity::from_json_value(complete, Some(schema)) {
                    Ok(entity) => _ = declared_servers.insert((*server).to_owned(), entity),
                    Err(error) => problems.push(Problem::new("servers", full_message(&error))),
                }
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Self::close(groups, declared_servers, tools, call_kind::of_tools(entities))
            .map_err(|message| vec![Problem::new("policy.entities", message)])
    }

    /// Puts together what each server and each configured tool lies in.
    fn close(
        groups: Groups,
        declared_servers: HashMap<String, Entity>,
        declared_tools: Vec<(String, Entity)>,
        kinds: HashMap<String, CallKind>,
    ) -> Result<Self, String> {
        let gateway = names::uid(&names::GATEWAY, names::GATEWAY_ID);
        let mut servers = HashMap::new();
        for (id, entity) in declared_servers {
            let closed = closed([entity.clone(), Entity::with_uid(gateway.clone())])?;
            servers.insert(id, Server { entity, closed });
        }
        let mut tools = HashMap::new();
        for (id, entity) in declared_tools {
            let server = names::split_member_id(&id).and_then(|(server, _)| servers.get(server));
            let server = server.ok_or_else(|| format!("`{id}` has no server"))?;
            let closed =
                closed([entity, server.entity.clone(), Entity::with_uid(gateway.clone())])?;
            tools.insert(id, closed);
        }
        Ok(Self { groups, gateway, servers, tools, kinds })
    }

    /// The ids of the tools that the configuration describes.
    pub(crate) fn tools(&self) -> impl Iterator<Item = &str> {
        self.tools.keys().map(String::as_str)
    }

    /// What a call of the tool with this id is.
    pub(crate) fn kind(&self, id: &str) -> CallKind {
        self.kinds.get(id).copied().unwrap_or(CallKind::UNSAID)
    }

    /// The entities of `target`, unless its server is not one of the gateway's.
    pub(crate) fn locate(&self, target: &Target<'_>) -> Option<Located> {
        let server = self.servers.get(target.server())?;
        let within = server.entity.uid();
        let gateway = self.gateway.clone();
        let (uid, itself) = match target {
            Target::Server(..) => {
                let entities = server.closed.clone();
                return Some(Located { uid: within, entities, ancestors: vec![gateway] });
            }
            Target::Tool { server: name, name: tool, .. } => {
                let id = names::member_id(name, tool);
                let uid = names::uid(&names::TOOL, &id);
                if let Some(tool) = self.tools.get(&id) {
                    let entities = tool.clone();
                    return Some(Located { uid, entities, ancestors: vec![within, gateway] });
                }
                (uid, default_tool(tool))
            }
            Target::Prompt { server: name, name: prompt } => {
                let uid = names::uid(&names::PROMPT, names::member_id(name, prompt));
                (uid, vec![("name", text(prompt))])
            }
            Target::Resource { server: name, uri } => {
                let uid = names::uid(&names::RESOURCE, names::member_id(name, uri));
                let scheme = uri.split_once(':').map_or("", |(scheme, _)| scheme);
                (uid, vec![("uri", text(uri)), ("scheme", text(&scheme.to_ascii_lowercase()))])
            }
        };
        let itself = member(uid.clone(), &within, &gateway, itself);
        let entities = server.closed.iter().cloned().chain([Arc::new(itself)]).collect();
        Some(Located { uid, entities, ancestors: vec![within, gateway] })
    }
}

/// An entity of the configuration, completed with the defaults.
struct Declared {
    uid: EntityUid,
    complete: Value,
}

impl Declared {
    /// Reads `value`; on error the path of the member and what is wrong with it.
    fn read(value: &Value, servers: &BTreeSet<&str>) -> Result<Self, (&'static str, String)> {
        let object = value.as_object().ok_or_else(|| ("", "an entity is an object".to_owned()))?;
        for key in object.keys() {
            if !["uid", "attrs", "parents"].contains(&key.as_str()) {
                let message = format!("unknown member `{key}`, expected uid, attrs or parents");
                return Err(("", message));
            }
        }
        let uid = object.get("uid").and_then(read_uid).ok_or_else(|| {
            let example = r#"{"type": "MCP::Tool", "id": "server/tool"}"#;
            (".uid", format!("expected the entity's type and id, e.g. {example}"))
        })?;
        let attributes = match object.get("attrs") {
            None => Map::new(),
            Some(Value::Object(attributes)) => attributes.clone(),
            Some(_) => return Err((".attrs", "expected an object".to_owned())),
        };
        let parents = match object.get("parents") {
            None => Vec::new(),
            Some(Value::Array(parents)) => parents.clone(),
            Some(_) => return Err((".parents", "expected an array".to_owned())),
        };
        let id = uid.id().unescaped();
        let known = |server: &str| {
            if servers.contains(server) {
                Ok(())
            } else {
                Err((".uid", format!("unknown server `{server}`")))
            }
        };
        let derived = |names: &[&str], parent: EntityUid| {
            if let Some(name) = names.iter().find(|name| attributes.contains_key(**name)) {
                return Err((".attrs", format!("`{name}` follows from the id, leave it out")));
            }
            if parents.iter().any(|value| read_uid(value).as_ref() != Some(&parent)) {
                return Err((".parents", format!("`{uid}` lies in `{parent}` only")));
            }
            Ok(())
        };
        let complete = if *uid.type_name() == *names::GROUP {
            json!({"uid": uid_json(&uid), "attrs": attributes, "parents": parents})
        } else if *uid.type_name() == *names::SERVER {
            known(id)?;
            derived(&["name"], names::uid(&names::GATEWAY, names::GATEWAY_ID))?;
            Self::server(id, attributes)
        } else if *uid.type_name() == *names::TOOL {
            let (server, name) = names::split_member_id(id)
                .ok_or_else(|| (".uid", format!("`{id}` is not of the form `server/tool`")))?;
            known(server)?;
            derived(&["name", "server"], names::uid(&names::SERVER, server))?;
            Self::tool(id, server, name, attributes)
        } else {
            let message = format!(
                "`{}` entities are not configured: groups, servers and tools are",
                uid.type_name()
            );
            return Err((".uid", message));
        };
        Ok(Self { uid, complete })
    }

    fn server(id: &str, mut attributes: Map<String, Value>) -> Value {
        attributes.insert("name".to_owned(), id.into());
        attributes.entry("tags").or_insert_with(|| json!([]));
        json!({
            "uid": uid_json(&names::uid(&names::SERVER, id)),
            "attrs": attributes,
            "parents": [uid_json(&names::uid(&names::GATEWAY, names::GATEWAY_ID))],
        })
    }

    fn tool(id: &str, server: &str, name: &str, mut attributes: Map<String, Value>) -> Value {
        let server = uid_json(&names::uid(&names::SERVER, server));
        attributes.insert("name".to_owned(), name.into());
        attributes.insert("server".to_owned(), json!({"__entity": server}));
        attributes.entry("tags").or_insert_with(|| json!([]));
        for (hint, value) in DEFAULT_HINTS {
            attributes.entry(hint).or_insert(Value::Bool(value));
        }
        json!({
            "uid": uid_json(&names::uid(&names::TOOL, id)),
            "attrs": attributes,
            "parents": [server],
        })
    }
}

/// What MCP has a client assume of a tool without annotations.
const DEFAULT_HINTS: [(&str, bool); 4] =
    [("read_only", false), ("destructive", true), ("idempotent", false), ("open_world", true)];

fn default_tool(name: &str) -> Vec<(&'static str, ast::Value)> {
    let mut attributes = vec![("name", text(name)), ("tags", ast::Value::empty_set(None))];
    attributes.extend(DEFAULT_HINTS.map(|(hint, value)| (hint, value.into())));
    attributes
}

/// A tool, prompt or resource of `server`, which lies in `gateway`.
fn member(
    uid: EntityUid,
    server: &EntityUid,
    gateway: &EntityUid,
    attributes: Vec<(&'static str, ast::Value)>,
) -> ast::Entity {
    let server: &ast::EntityUID = server.as_ref();
    let gateway: &ast::EntityUID = gateway.as_ref();
    let attributes = attributes
        .into_iter()
        .chain([("server", ast::Value::from(ast::Literal::from(server.clone())))]);
    ast::Entity::new_with_attr_partial_value(
        uid.into(),
        attributes.map(|(name, value)| (name.into(), value.into())),
        HashSet::from([gateway.clone()]),
        HashSet::from([server.clone()]),
        [],
    )
}

fn text(text: &str) -> ast::Value {
    text.into()
}

/// `{"type": .., "id": ..}`, bare or under `__entity`.
fn read_uid(value: &Value) -> Option<EntityUid> {
    let value = value.get("__entity").unwrap_or(value);
    let ty: EntityTypeName = value.get("type")?.as_str()?.parse().ok()?;
    Some(names::uid(&ty, value.get("id")?.as_str()?))
}

fn uid_json(uid: &EntityUid) -> Value {
    json!({"type": uid.type_name().to_string(), "id": uid.id().unescaped()})
}

/// An error with its causes, in one line.
pub(crate) fn full_message(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !message.contains(&text) {
            message.push_str(": ");
            message.push_str(&text);
        }
        cause = error.source();
    }
    message
}
