//! Cases in the shape of `cedar run-tests`: a request in Cedar's terms, entities, a decision.
//!
//! Such a file can be run with Cedar's own command, too. Who calls is read from the principal's entity;
//! all other entities are in the gateway's configuration, and those are the ones that count here. What
//! the gateway would never ask Cedar is refused. Not here: asking.

use std::path::Path;

use cedar_policy::EntityUid;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::case::{Expected, arguments, strictly};
use crate::policy_set::PolicySet;
use crate::question::{Kind, Question, RequestFields, ServerAction, TokenFields, What, Who};

/// The types of entities that the gateway builds from its configuration and the request.
const CONFIGURED: [&str; 9] = [
    "MCP::Action",
    "MCP::Anonymous",
    "MCP::Gateway",
    "MCP::Group",
    "MCP::Prompt",
    "MCP::Resource",
    "MCP::Role",
    "MCP::Server",
    "MCP::Tool",
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default, rename = "name")]
    _name: Option<String>,
    request: WrittenRequest,
    entities: Value,
    decision: Decision,
    reason: Vec<String>,
    num_errors: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRequest {
    principal: String,
    action: String,
    resource: String,
    #[serde(default)]
    context: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Decision {
    Allow,
    Deny,
}

/// Whether a case is written so.
pub(crate) fn recognises(case: &Value) -> bool {
    case.get("decision").is_some() || case.get("num_errors").is_some()
}

/// Reads a case of `file`.
///
/// # Errors
/// What is wrong with it, or why the gateway would not ask so.
pub(crate) fn parse(
    case: Value,
    file: &Path,
    set: &PolicySet,
) -> Result<(Question, Expected), String> {
    let written: Written = strictly(case)?;
    let entities = entities(written.entities, file)?;
    let WrittenRequest { principal, action, resource, mut context } = written.request;
    let uid = |name: &str, text: &str| -> Result<EntityUid, String> {
        text.parse().map_err(|error| format!("`request.{name}`: {error}"))
    };
    let principal = uid("principal", &principal)?;
    let action = uid("action", &action)?;
    let resource = uid("resource", &resource)?;

    let (mut request, scopes) = request(context.remove("request").unwrap_or_default())?;
    let typed_arguments = context.remove("arguments");
    if let Some(name) = context.keys().next() {
        return Err(format!(
            "`request.context.{name}`: a context has `request` and, for a typed tool, `arguments`"
        ));
    }
    let who = who(&principal, &entities, scopes)?;
    let (server, what) = what(&resource, action.id().unescaped(), typed_arguments)?;
    // The time of a case must be given: `cedar run-tests` knows no default.
    request.time.get_or_insert_with(|| crate::question::DEFAULT_TIME.to_owned());
    let question = Question { who, server, what, request };
    let expected = question.action(set);
    if action.type_name().to_string() != "MCP::Action" || action.id().unescaped() != expected {
        return Err(format!(
            "`request.action`: the gateway would ask for MCP::Action::{expected:?}, not {action}"
        ));
    }
    let expected = Expected::Cedar {
        allow: matches!(written.decision, Decision::Allow),
        reason: written.reason,
        num_errors: written.num_errors,
    };
    Ok((question, expected))
}

/// The entities of a case, which may stand in a file beside it.
fn entities(value: Value, file: &Path) -> Result<Vec<Value>, String> {
    let value = match value {
        Value::String(name) => {
            let beside = file.parent().unwrap_or(Path::new(".")).join(&name);
            let text = std::fs::read_to_string(&beside)
                .map_err(|error| format!("`entities`: {}: {error}", beside.display()))?;
            serde_json::from_str(&text)
                .map_err(|error| format!("`entities`: {}: {error}", beside.display()))?
        }
        value => value,
    };
    strictly(value).map_err(|error| format!("`entities`: {error}"))
}

/// The caller, from its entity.
fn who(principal: &EntityUid, entities: &[Value], scopes: Vec<String>) -> Result<Who, String> {
    let mut own = None;
    for entity in entities {
        let uid = entity.get("uid").map(uid_parts).ok_or("`entities`: one has no `uid`")?;
        let (kind, id) = uid.ok_or("`entities`: a `uid` has no type and id")?;
        if kind == principal.type_name().to_string() && id == principal.id().unescaped() {
            own = Some(entity);
        } else if kind_of(&kind).is_none() && !CONFIGURED.contains(&kind.as_str()) {
            return Err(format!("`entities`: the model has no entity type `{kind}`"));
        }
    }
    let kind = match principal.type_name().to_string().as_str() {
        "MCP::Anonymous" => return Ok(Who::Anonymous),
        name => {
            kind_of(name).ok_or_else(|| format!("`request.principal`: nobody is a `{name}`"))?
        }
    };
    let mut token = TokenFields {
        kind,
        subject: principal.id().unescaped().to_owned(),
        scopes,
        ..TokenFields::default()
    };
    let Some(entity) = own else { return Ok(Who::Token(Box::new(token))) };
    let attribute = |name: &str| entity.get("attrs")?.get(name)?.as_str().map(str::to_owned);
    token.issuer = attribute("issuer");
    token.client = attribute("client");
    for parent in entity.get("parents").and_then(Value::as_array).into_iter().flatten() {
        match uid_parts(parent) {
            Some((kind, id)) if kind == "MCP::Group" => token.groups.push(id),
            Some((kind, id)) if kind == "MCP::Role" => token.roles.push(id),
            _ => return Err("`entities`: a caller lies in groups and roles only".to_owned()),
        }
    }
    let tags = entity.get("tags").and_then(Value::as_object);
    token.claims =
        tags.into_iter().flatten().map(|(name, value)| (name.clone(), value.clone())).collect();
    Ok(Who::Token(Box::new(token)))
}

/// The kind of callers that are entities of this type.
fn kind_of(type_name: &str) -> Option<Kind> {
    [Kind::User, Kind::Client].into_iter().find(|kind| kind.type_name() == type_name)
}

/// The server and what is asked of it.
fn what(
    resource: &EntityUid,
    action: &str,
    typed_arguments: Option<Value>,
) -> Result<(String, What), String> {
    let id = resource.id().unescaped();
    let kind = resource.type_name().to_string();
    if kind == "MCP::Server" {
        // Of another action the caller says that it is not what the gateway would ask.
        let action = ServerAction::with_id(action).unwrap_or(ServerAction::Connect);
        return Ok((id.to_owned(), What::Server(action)));
    }
    let (server, name) = id
        .split_once('/')
        .ok_or_else(|| format!("`request.resource`: {id:?} is not of the form `server/name`"))?;
    let name = name.to_owned();
    let what = match kind.as_str() {
        "MCP::Tool" => {
            let given = plain_values(typed_arguments.unwrap_or_default());
            What::Tool { name, arguments: arguments(&given)? }
        }
        "MCP::Prompt" => What::Prompt(name),
        "MCP::Resource" => What::Resource(name),
        other => return Err(format!("`request.resource`: nothing is asked of a `{other}`")),
    };
    Ok((server.to_owned(), what))
}

/// `context.request`, and the scopes in it.
fn request(value: Value) -> Result<(RequestFields, Vec<String>), String> {
    let Value::Object(mut members) = plain_values(value) else {
        return Err("`request.context.request` is missing or no object".to_owned());
    };
    let scopes = members.remove("scopes").unwrap_or_default();
    let scopes = if scopes.is_null() {
        Vec::new()
    } else {
        strictly(scopes).map_err(|error| format!("`request.context.request.scopes`: {error}"))?
    };
    let fields =
        strictly(members.into()).map_err(|error| format!("`request.context.request`: {error}"))?;
    Ok((fields, scopes))
}

/// `value` with Cedar's extension values as the text they are made from.
fn plain_values(value: Value) -> Value {
    match value {
        Value::Array(elements) => elements.into_iter().map(plain_values).collect(),
        Value::Object(members) => {
            let extension = members.get("__extn").or(Some(&Value::Null));
            let text = extension.and_then(|call| call.get("arg")).and_then(Value::as_str);
            match text {
                Some(text) if members.len() == 1 => Value::from(text),
                _ => members
                    .into_iter()
                    .map(|(name, member)| (name, plain_values(member)))
                    .collect::<Map<_, _>>()
                    .into(),
            }
        }
        other => other,
    }
}

/// Type and id in `{"type": .., "id": ..}`, bare or under `__entity`.
fn uid_parts(value: &Value) -> Option<(String, String)> {
    let value = value.get("__entity").unwrap_or(value);
    Some((value.get("type")?.as_str()?.to_owned(), value.get("id")?.as_str()?.to_owned()))
}
