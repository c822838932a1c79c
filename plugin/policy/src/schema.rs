//! The base schema with what the configuration adds, and the argument types of its tools.
//!
//! The configuration may add actions and common types, nothing else: entities and contexts of the
//! model mean the same in every configuration. Not here: policies.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use cedar_policy::{EntityUid, Schema, SchemaFragment};
use serde_json::{Map, Value, json};

use crate::arguments::{ArgumentType, Member, RecordType};
use crate::call_kind::CallKind;
use crate::config::Problem;
use crate::names;
use crate::source::{self, Source};

/// Where the configuration's schema stands.
const PATH: &str = "policy.schema";

/// Deepest nesting of an argument type, counting named types as levels of their own.
const MAX_DEPTH: usize = 32;

/// Most members of one argument type, at all depths together.
const MAX_MEMBERS: usize = 1_000;

/// The types of callers.
const CALLERS: [&str; 3] = ["User", "Client", "Anonymous"];

/// What listings need beyond the model: an entity that carries what is known of a request while its
/// arguments are not (see `listing`). Policies must not name it.
pub(crate) const LISTING_FACTS: &str = "ListingFacts";

/// The complete schema.
pub(crate) struct CompiledSchema {
    pub(crate) schema: Schema,
    /// The argument types of the tools that have an action, by action id, which is the tool's id.
    pub(crate) arguments: BTreeMap<String, RecordType>,
    /// Actions that are for everybody but clients, as only a schema that does not know these has it.
    pub(crate) without_clients: Vec<String>,
    /// What it was made of, so that a part of it can be.
    parts: Vec<SchemaFragment>,
    added: Option<SchemaFragment>,
}

impl CompiledSchema {
    /// Whether this group of actions lies in `call_tool`, and so holds calls of tools only.
    pub(crate) fn is_within_calls(&self, group: &EntityUid) -> bool {
        let Ok(actions) = self.schema.action_entities() else { return false };
        let mut groups = actions.ancestors(group).into_iter().flatten();
        groups.any(|uid| uid.id().unescaped() == "call_tool")
    }

    /// The schema with the model's actions, all groups and, of the tools, only the actions `ids`.
    /// None when Cedar does not take that.
    ///
    /// Cedar checks every policy against every action. A policy whose scope names its actions is false
    /// for all others, so this says the same of it in a fraction of the time.
    pub(crate) fn with_actions(&self, ids: &BTreeSet<&str>) -> Option<Schema> {
        let mut added = self.added.clone()?.to_json_value().ok()?;
        let actions = added.get_mut(names::NAMESPACE)?.get_mut("actions")?.as_object_mut()?;
        actions.retain(|id, action| {
            ids.contains(id.as_str()) || !action.get("appliesTo").is_some_and(applies)
        });
        let added = SchemaFragment::from_json_value(added).ok()?;
        Schema::from_schema_fragments(self.parts.iter().cloned().chain([added])).ok()
    }
}

/// Adds `text`, the configuration's schema, to the base schema.
///
/// # Errors
/// Everything that is wrong with `text`.
pub(crate) fn compile(
    text: Option<&str>,
    servers: &BTreeSet<&str>,
    counters: &[Rc<str>],
    kinds: &HashMap<String, CallKind>,
) -> Result<CompiledSchema, Vec<Problem>> {
    let hidden = format!(
        "namespace {0} {{ entity {LISTING_FACTS} = {{ request: Request }}; }}",
        names::NAMESPACE
    );
    let base = base(counters)?;
    let types = Types::of(&base)?;
    let parts = vec![base, fragment(&hidden, "base schema")?];
    let (mut fragments, mut written) = (parts.clone(), parts.clone());
    let mut own = None;
    let (mut arguments, mut without_clients) = (BTreeMap::new(), Vec::new());
    let mut problems = Vec::new();
    if let Some(text) = text {
        let added = fragment(text, PATH)?;
        let source = Source::new(PATH, text);
        let mut reader = Added {
            types,
            source,
            servers,
            kinds,
            without_clients: Vec::new(),
            unplaced: Vec::new(),
        };
        arguments = reader.read(&added, &mut problems);
        without_clients = reader.without_clients;
        let placed = placed(&added, &reader.unplaced)?;
        own = Some(placed.clone());
        fragments.push(placed);
        // What Cedar says of the text as it is written has a place in it.
        written.push(added);
    }
    let schema = Schema::from_schema_fragments(fragments);
    let schema =
        schema.map_err(|error| Schema::from_schema_fragments(written).err().unwrap_or(error));
    match schema {
        Ok(schema) if problems.is_empty() => {
            Ok(CompiledSchema { schema, arguments, without_clients, parts, added: own })
        }
        Ok(_) => Err(problems),
        Err(error) => {
            // What Cedar finds wrong comes first: it may be the cause of the others.
            problems.insert(0, source::problem(&Source::new(PATH, text.unwrap_or("")), &error));
            Err(problems)
        }
    }
}

/// The base schema, with `context.request.calls` where there are counters.
fn base(counters: &[Rc<str>]) -> Result<SchemaFragment, Vec<Problem>> {
    const REQUEST: &str = "/MCP/commonTypes/Request/attributes";
    let base = fragment(crate::BASE_SCHEMA, "base schema")?;
    if counters.is_empty() {
        return Ok(base);
    }
    let failed = |message: String| vec![Problem::new("policy.counters", message)];
    let mut json = base.to_json_value().map_err(|error| failed(error.to_string()))?;
    let request = json.pointer_mut(REQUEST).and_then(Value::as_object_mut);
    let request = request.ok_or_else(|| failed("the base schema has no Request".into()))?;
    let long = || json!({"type": "Long", "required": true});
    let calls: Map<String, Value> =
        counters.iter().map(|counter| (counter.to_string(), long())).collect();
    request
        .insert("calls".into(), json!({"type": "Record", "attributes": calls, "required": true}));
    SchemaFragment::from_json_value(json).map_err(|error| failed(error.to_string()))
}

fn fragment(text: &str, path: &str) -> Result<SchemaFragment, Vec<Problem>> {
    match SchemaFragment::from_cedarschema_str(text) {
        Ok((fragment, _warnings)) => Ok(fragment),
        Err(error) => Err(vec![source::problem(&Source::new(path, text), &error)]),
    }
}

/// What a fragment declares, in Cedar's JSON format.
struct Namespaces {
    /// The content of `MCP`.
    ours: Map<String, Value>,
    /// The names of all others.
    others: Vec<String>,
}

fn namespaces(fragment: &SchemaFragment) -> Result<Namespaces, Vec<Problem>> {
    let json = fragment
        .clone()
        .to_json_value()
        .map_err(|error| vec![Problem::new(PATH, error.to_string())])?;
    let mut ours = Map::new();
    let mut others = Vec::new();
    for (name, content) in json.as_object().into_iter().flatten() {
        match content {
            Value::Object(content) if name == names::NAMESPACE => ours = content.clone(),
            _ => others.push(name.clone()),
        }
    }
    Ok(Namespaces { ours, others })
}

/// The common types in reach of an action.
#[derive(Clone, Default)]
struct Types(BTreeMap<String, Value>);

impl Types {
    fn of(fragment: &SchemaFragment) -> Result<Self, Vec<Problem>> {
        Ok(Self(members(&namespaces(fragment)?.ours, "commonTypes")))
    }
}

fn members(namespace: &Map<String, Value>, key: &str) -> BTreeMap<String, Value> {
    let members = namespace.get(key).and_then(Value::as_object).cloned().unwrap_or_default();
    members.into_iter().collect()
}

/// The configuration's fragment, being read.
struct Added<'a> {
    types: Types,
    source: Source<'a>,
    servers: &'a BTreeSet<&'a str>,
    kinds: &'a HashMap<String, CallKind>,
    without_clients: Vec<String>,
    /// Actions that lie in none of the groups that say what a call is, and the one where they belong.
    unplaced: Vec<(String, &'static str)>,
}

impl Added<'_> {
    fn read(
        &mut self,
        fragment: &SchemaFragment,
        problems: &mut Vec<Problem>,
    ) -> BTreeMap<String, RecordType> {
        let Namespaces { ours, others } = match namespaces(fragment) {
            Ok(found) => found,
            Err(mut found) => {
                problems.append(&mut found);
                return BTreeMap::new();
            }
        };
        for other in others {
            problems.push(
                Problem::new(PATH, format!("namespace `{other}` is not `{}`", names::NAMESPACE))
                    .with_help(format!("write `namespace {} {{ .. }}`", names::NAMESPACE)),
            );
        }
        for ty in members(&ours, "entityTypes").keys() {
            problems.push(
                Problem::new(
                    self.source.path_of(&format!("entity {ty}")),
                    format!("entity type `{ty}`: a configuration adds actions and common types"),
                )
                .with_help("say it with a group, a role, a claim of the user, or `tags`"),
            );
        }
        self.types.0.extend(members(&ours, "commonTypes"));
        let actions = members(&ours, "actions");
        let mut arguments = BTreeMap::new();
        for (id, action) in &actions {
            let Some(applies_to) = action.get("appliesTo").filter(|value| applies(value)) else {
                continue; // It only groups others.
            };
            match self.tool_action(id, action, applies_to, &actions) {
                Ok(members) => {
                    problems.extend(self.place(id, action, &actions).err());
                    arguments.insert(id.clone(), members);
                }
                Err(message) => problems.push(
                    Problem::new(
                        self.source.path_of(&format!("\"{id}\"")),
                        format!("action `{id}`: {message}"),
                    )
                    .with_help(
                        "an action of a tool reads `action \"server/tool\" in [call_destructive_tool] \
                         appliesTo { principal: [User, Client, Anonymous], resource: [Tool], context: { \
                         request: Request, arguments: { .. } } };`",
                    ),
                ),
            }
        }
        arguments
    }

    /// The argument type of the tool action `id`.
    fn tool_action(
        &mut self,
        id: &str,
        action: &Value,
        applies_to: &Value,
        actions: &BTreeMap<String, Value>,
    ) -> Result<RecordType, String> {
        match names::split_member_id(id) {
            Some((server, tool)) if !tool.is_empty() => {
                if !self.servers.contains(server) {
                    return Err(format!("unknown server `{server}`"));
                }
            }
            _ => return Err("the id is not of the form `server/tool`".to_owned()),
        }
        let mut groups = BTreeSet::new();
        calls(action, actions, 0, &mut groups);
        if groups.is_empty() {
            return Err("it does not lie in `call_tool`".to_owned());
        }
        let kinds = |key: &str| -> BTreeSet<String> {
            let listed = applies_to.get(key).and_then(Value::as_array);
            listed
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(|name| local_name(name).to_owned())
                .collect()
        };
        let principals = kinds("principalTypes");
        if principals.is_empty() || !principals.iter().all(|name| CALLERS.contains(&&**name)) {
            return Err("its principals are not among `User`, `Client` and `Anonymous`".to_owned());
        }
        if principals.len() == 2 && !principals.contains("Client") {
            self.without_clients.push(id.to_owned());
        }
        if kinds("resourceTypes") != BTreeSet::from(["Tool".to_owned()]) {
            return Err("its resource is not `Tool`".to_owned());
        }
        let context = applies_to.get("context").ok_or("it has no context")?;
        self.context(context)
    }

    /// Finds out whether the action of a tool lies in the group that the tool's entity makes it one of.
    ///
    /// # Errors
    /// The problem when it lies in another.
    fn place(
        &mut self,
        id: &str,
        action: &Value,
        actions: &BTreeMap<String, Value>,
    ) -> Result<(), Problem> {
        let kind = self.kinds.get(id).copied().unwrap_or(CallKind::UNSAID);
        let mut groups = BTreeSet::new();
        calls(action, actions, 0, &mut groups);
        let wrong = groups.iter().find_map(|group| {
            CallKind::with_action(group).filter(|other| ![kind, CallKind::Other].contains(other))
        });
        if let Some(wrong) = wrong {
            let message = format!(
                "action `{id}`: it lies in `{}`, and by `policy.entities` the tool is one of `{}`",
                wrong.action(),
                kind.action()
            );
            let help = format!(
                "write `in [{}]`, or say in entities what the tool does: {{\"uid\": {{\"type\": \
                 \"MCP::Tool\", \"id\": {id:?}}}, \"attrs\": {{{}}}}}",
                kind.action(),
                wrong.hints()
            );
            let path = self.source.path_of(&format!("\"{id}\""));
            return Err(Problem::new(path, message).with_help(help));
        }
        if !groups.contains(kind.action()) {
            self.unplaced.push((id.to_owned(), kind.action()));
        }
        Ok(())
    }

    /// The arguments in the context of an action.
    fn context(&self, context: &Value) -> Result<RecordType, String> {
        let wrong = || "its context is not `{ request: Request, arguments: { .. } }`".to_owned();
        let record = self.record_of(context, 0).ok_or_else(wrong)?;
        let names: Vec<_> = record.keys().map(String::as_str).collect();
        let (Some(request), Some(arguments)) = (record.get("request"), record.get("arguments"))
        else {
            return Err(wrong());
        };
        let is_request =
            request.get("name").and_then(Value::as_str).map(local_name) == Some("Request");
        if names.len() != 2 || !is_request || !required(request) || !required(arguments) {
            return Err(wrong());
        }
        let mut budget = MAX_MEMBERS;
        match self.argument(arguments, "arguments", 0, &mut budget)? {
            ArgumentType::Record(members) => Ok(members),
            _ => Err(wrong()),
        }
    }

    /// The attributes of the record type that `ty` is or names.
    fn record_of<'v>(&'v self, ty: &'v Value, depth: usize) -> Option<&'v Map<String, Value>> {
        if depth > MAX_DEPTH {
            return None;
        }
        if ty.get("type")?.as_str()? == "Record" {
            return ty.get("attributes")?.as_object();
        }
        self.record_of(self.common_type(ty)?, depth + 1)
    }

    /// The definition of the common type that `ty` names.
    fn common_type(&self, ty: &Value) -> Option<&Value> {
        let kind = ty.get("type")?.as_str()?;
        let name = match kind {
            "EntityOrCommon" | "Entity" => ty.get("name")?.as_str()?,
            "String" | "Long" | "Boolean" | "Bool" | "Set" | "Record" | "Extension" => return None,
            name => name,
        };
        self.types.0.get(local_name(name))
    }

    /// The argument type that `ty` describes.
    fn argument(
        &self,
        ty: &Value,
        path: &str,
        depth: usize,
        budget: &mut usize,
    ) -> Result<ArgumentType, String> {
        if depth > MAX_DEPTH {
            return Err(format!("`{path}` is nested deeper than {MAX_DEPTH} levels"));
        }
        if let Some(definition) = self.common_type(ty) {
            return self.argument(definition, path, depth + 1, budget);
        }
        let kind = ty.get("type").and_then(Value::as_str).unwrap_or_default();
        let name = ty.get("name").and_then(Value::as_str).unwrap_or_default();
        let name = if kind == "EntityOrCommon" || kind == "Extension" { name } else { kind };
        match name.strip_prefix("__cedar::").unwrap_or(name) {
            "Bool" | "Boolean" => Ok(ArgumentType::Bool),
            "Long" => Ok(ArgumentType::Long),
            "String" => Ok(ArgumentType::String),
            "decimal" => Ok(ArgumentType::Decimal),
            "datetime" => Ok(ArgumentType::Datetime),
            "ipaddr" => Ok(ArgumentType::Ip),
            "Set" => {
                let element = ty.get("element").ok_or("a set without element type")?;
                let element = self.argument(element, &format!("{path}[]"), depth + 1, budget)?;
                Ok(ArgumentType::Set(Box::new(element)))
            }
            "Record" => {
                if ty.get("additionalAttributes").and_then(Value::as_bool) == Some(true) {
                    return Err(format!("`{path}` is an open record"));
                }
                let mut members = Vec::new();
                for (name, ty) in
                    ty.get("attributes").and_then(Value::as_object).into_iter().flatten()
                {
                    *budget = budget
                        .checked_sub(1)
                        .ok_or_else(|| format!("the type has more than {MAX_MEMBERS} members"))?;
                    members.push(Member {
                        name: name.clone(),
                        ty: self.argument(ty, &format!("{path}.{name}"), depth + 1, budget)?,
                        required: required(ty),
                    });
                }
                Ok(ArgumentType::Record(members))
            }
            other => {
                Err(format!("`{path}` is of type `{other}`, which has no form in JSON arguments"))
            }
        }
    }
}

/// The model's actions for calls of tools that `action` lies in, directly or through groups of the same
/// text.
fn calls<'a>(
    action: &'a Value,
    actions: &'a BTreeMap<String, Value>,
    depth: usize,
    found: &mut BTreeSet<&'a str>,
) {
    let parents = action.get("memberOf").and_then(Value::as_array);
    for id in parents.into_iter().flatten().filter_map(|parent| parent.get("id")?.as_str()) {
        if CallKind::with_action(id).is_some() {
            found.insert(id);
        } else if depth < MAX_DEPTH
            && let Some(group) = actions.get(id)
        {
            calls(group, actions, depth + 1, found);
        }
    }
}

/// `fragment` with each of these actions in the group beside it.
fn placed(
    fragment: &SchemaFragment,
    unplaced: &[(String, &'static str)],
) -> Result<SchemaFragment, Vec<Problem>> {
    if unplaced.is_empty() {
        return Ok(fragment.clone());
    }
    let failed = |message: String| vec![Problem::new(PATH, message)];
    let mut json = fragment.clone().to_json_value().map_err(|error| failed(error.to_string()))?;
    for (id, group) in unplaced {
        let action = json.get_mut(names::NAMESPACE).and_then(|ours| ours.get_mut("actions"));
        let action = action.and_then(|actions| actions.get_mut(id)?.as_object_mut());
        let within = action.map(|action| action.entry("memberOf").or_insert_with(|| json!([])));
        match within.and_then(Value::as_array_mut) {
            Some(groups) => groups.push(json!({"id": group})),
            None => return Err(failed(format!("action `{id}` cannot be put into `{group}`"))),
        }
    }
    SchemaFragment::from_json_value(json).map_err(|error| failed(error.to_string()))
}

/// Whether `applies_to` names any type: of an action that only groups others Cedar writes none.
fn applies(applies_to: &Value) -> bool {
    ["principalTypes", "resourceTypes"].iter().any(|key| {
        applies_to.get(key).and_then(Value::as_array).is_some_and(|types| !types.is_empty())
    })
}

fn required(attribute: &Value) -> bool {
    attribute.get("required").and_then(Value::as_bool).unwrap_or(true)
}

/// A name without the namespace `MCP`.
fn local_name(name: &str) -> &str {
    name.strip_prefix(names::NAMESPACE).and_then(|rest| rest.strip_prefix("::")).unwrap_or(name)
}
