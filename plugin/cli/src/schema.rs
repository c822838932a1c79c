//! `toolgate schema`: from a server's list of tools to the text of `policy.schema`.
//!
//! Not here: types (`typing`), the live list (`mcp_client`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io;

use serde::Serialize;
use serde_json::{Map, Value, json};
use toolgate_core::Secret;
use toolgate_policy::{PolicyConfig, PolicyEngine, PolicyText};

use crate::Findings;
use crate::arguments::Schema;
use crate::mcp_client::{self, Header};
use crate::policy_set::Failure;
use crate::terminal::{Colour, Terminal, plain};
use crate::typing::{self, CedarType, Member, Typed};

/// What was made of the tools of all servers.
#[derive(Serialize)]
pub(crate) struct Made {
    /// The text for `policy.schema`.
    schema: String,
    /// `MCP::Tool` entities with what the servers say of their tools.
    entities: Vec<Value>,
    tools: usize,
    typed: usize,
    warnings: Vec<Warning>,
    /// Which of them to write as text.
    #[serde(skip)]
    writes: Writes,
}

/// Something that the author of policies must know.
#[derive(Serialize)]
struct Warning {
    tool: String,
    message: String,
}

#[derive(Clone, Copy)]
enum Writes {
    Schema,
    Entities,
}

/// Makes the schema that `options` ask for.
///
/// # Errors
/// What could not be used.
pub(crate) fn run(options: &Schema) -> Result<Made, Failure> {
    let headers = headers(options)?;
    let mut servers: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    let mut urls = 0;
    for source in &options.sources {
        let (server, from) = source.split_once('=').ok_or_else(|| {
            Failure::unusable(source, "write SERVER=URL or SERVER=FILE, e.g. billing=tools.json")
        })?;
        if server.is_empty() || server.contains('/') || servers.contains_key(server) {
            let message = "the server's name is empty, contains `/` or was given before";
            return Err(Failure::unusable(source, message));
        }
        let is_url = from.starts_with("http://") || from.starts_with("https://");
        urls += usize::from(is_url);
        if urls > 1 && !headers.is_empty() {
            let message = "headers go to one server only: ask the servers one by one";
            return Err(Failure::unusable(source, message));
        }
        let tools = if is_url {
            mcp_client::tools(from, &headers)
        } else {
            std::fs::read_to_string(from).map_err(|error| error.to_string()).and_then(of_file)
        };
        servers.insert(server, tools.map_err(|error| Failure::unusable(source, error))?);
    }
    let mut made = make(&servers);
    made.writes = if options.entities { Writes::Entities } else { Writes::Schema };
    // Whatever a server says, what is written here is what the plugin takes.
    let config = PolicyConfig {
        name: "schema".to_owned(),
        policies: PolicyText::One(String::new()),
        schema: Some(made.schema.clone()),
        entities: made.entities.clone(),
        counters: BTreeMap::new(),
        mode: toolgate_policy::PolicyMode::default(),
    };
    let names: Vec<String> = servers.keys().map(|name| (*name).to_owned()).collect();
    match PolicyEngine::compile(&config, &names) {
        Ok(_) => Ok(made),
        Err(problems) => Err(Failure::Invalid {
            file: "the schema".to_owned(),
            problems: crate::check::listed(&problems),
        }),
    }
}

/// The headers to send; their values come from variables and files, since a command line is seen by
/// others.
fn headers(options: &Schema) -> Result<Vec<Header>, Failure> {
    let variable = |name: &str| {
        std::env::var(name)
            .map_err(|_| Failure::unusable(name, "the environment variable is not set"))
    };
    let file = |name: &str| {
        let text = std::fs::read_to_string(name).map_err(|error| Failure::unusable(name, error))?;
        Ok(text.trim_end_matches(['\r', '\n']).to_owned())
    };
    let bearer = |token: String| Header {
        name: "authorization".to_owned(),
        value: Secret::new(format!("Bearer {token}")),
    };
    let mut headers = Vec::new();
    if let Some(name) = &options.token_env {
        headers.push(bearer(variable(name)?));
    }
    if let Some(name) = &options.token_file {
        headers.push(bearer(file(name)?));
    }
    for (option, given, read) in [
        (
            "--header-env",
            &options.header_env,
            &variable as &dyn Fn(&str) -> Result<String, Failure>,
        ),
        ("--header-file", &options.header_file, &file),
    ] {
        for header in given {
            let (name, from) = header
                .split_once('=')
                .ok_or_else(|| Failure::unusable(option, format!("{header:?} has no `=`")))?;
            headers.push(Header { name: name.to_owned(), value: Secret::new(read(from)?) });
        }
    }
    Ok(headers)
}

/// The tools in a file: an array, or the result or the whole answer of tools/list.
fn of_file(text: String) -> Result<Vec<Value>, String> {
    let mut document: Value =
        serde_json::from_str(&text).map_err(|error| format!("not valid JSON: {error}"))?;
    if let Some(result) = document.get_mut("result").map(Value::take) {
        document = result;
    }
    if let Some(tools) = document.get_mut("tools").map(Value::take) {
        document = tools;
    }
    match document {
        Value::Array(tools) => Ok(tools),
        _ => Err("there is no list of tools in it".to_owned()),
    }
}

fn make(servers: &BTreeMap<&str, Vec<Value>>) -> Made {
    let mut schema =
        "// The types of tools' arguments, made by `toolgate schema` from what the servers \
                      say of their tools.\n// Review them before they are put in force: what is \
                      declared here is what policies can rely on. Put what `--entities` writes \
                      into the entities:\n// by these a tool only reads or may destroy \
                      something.\nnamespace MCP {\n"
            .to_owned();
    let mut made = Made {
        schema: String::new(),
        entities: Vec::new(),
        tools: 0,
        typed: 0,
        warnings: Vec::new(),
        writes: Writes::Schema,
    };
    for (server, tools) in servers {
        let mut seen = BTreeSet::new();
        for tool in tools {
            made.tools += 1;
            let name = tool.get("name").and_then(Value::as_str).unwrap_or_default();
            let id = format!("{server}/{name}");
            let mut warn = |message: String| {
                made.warnings.push(Warning { tool: id.clone(), message });
            };
            if name.is_empty() || !seen.insert(name) {
                warn("it has no name, or one that another tool has: it is left out".to_owned());
                continue;
            }
            made.entities.extend(entity(&id, tool.get("annotations")));
            match typing::of_tool(tool.get("inputSchema").unwrap_or(&Value::Null)) {
                Ok(typed) => {
                    made.typed += 1;
                    write_action(&mut schema, &id, &typed, group(tool.get("annotations")));
                    typed.warnings.into_iter().for_each(warn);
                }
                Err(reason) => {
                    let message =
                        format!("it has no type, so policies do not see its arguments: {reason}");
                    let _infallible =
                        writeln!(schema, "\n  // {}: {}", quoted(&id), plain(&message));
                    warn(message);
                }
            }
        }
    }
    schema.push_str("}\n");
    Made { schema, ..made }
}

/// The group that the action of a tool with these annotations lies in, as the entities say it that are
/// made of them.
fn group(annotations: Option<&Value>) -> &'static str {
    let hint = |name: &str| annotations.and_then(|hints| hints.get(name)?.as_bool());
    match (hint("readOnlyHint"), hint("destructiveHint")) {
        (Some(true), _) => "call_read_only_tool",
        (_, Some(false)) => "call_tool",
        _ => "call_destructive_tool",
    }
}

fn write_action(schema: &mut String, id: &str, typed: &Typed, group: &str) {
    schema.push('\n');
    for warning in &typed.warnings {
        let _infallible = writeln!(schema, "  // {}", plain(warning));
    }
    let _infallible = writeln!(
        schema,
        "  action {} in [{group}] appliesTo {{\n    principal: [User, Client, Anonymous],\n    resource: \
         [Tool],\n    context: {{\n      request: Request,\n      arguments: {},\n    }},\n  }};",
        quoted(id),
        record(&typed.members, "      ")
    );
}

/// A record type whose first line is indented by `indent`.
fn record(members: &[Member], indent: &str) -> String {
    if members.is_empty() {
        return "{}".to_owned();
    }
    let mut text = "{\n".to_owned();
    for member in members {
        let inner = format!("{indent}  ");
        let mark = if member.required { "" } else { "?" };
        let ty = word(&member.ty, &inner);
        let notes = plain(&member.notes.join("; "));
        let notes = if notes.is_empty() { notes } else { format!(" // {notes}") };
        let _infallible = writeln!(text, "{inner}{}{mark}: {ty},{notes}", attribute(&member.name));
    }
    text.push_str(indent);
    text.push('}');
    text
}

fn word(ty: &CedarType, indent: &str) -> String {
    let name = match ty {
        CedarType::Bool => "Bool",
        CedarType::Long => "Long",
        CedarType::String => "String",
        CedarType::Decimal => "decimal",
        CedarType::Datetime => "datetime",
        CedarType::Ip => "ipaddr",
        CedarType::Set(element) => return format!("Set<{}>", word(element, indent)),
        CedarType::Record(members) => return record(members, indent),
    };
    name.to_owned()
}

/// The name of an attribute: as it is where Cedar takes it so.
fn attribute(name: &str) -> String {
    let mut letters = name.chars();
    let first = letters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    let plain = first && letters.all(|c| c.is_ascii_alphanumeric() || c == '_');
    // Words of the language, and what Cedar keeps for itself.
    let reserved = ["__cedar", "else", "false", "has", "if", "in", "is", "like", "then", "true"];
    if plain && !reserved.contains(&name) { name.to_owned() } else { quoted(name) }
}

/// A text as Cedar writes it.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.escape_debug())
}

/// What a server says of a tool beside its arguments, as an entity of the configuration.
fn entity(id: &str, annotations: Option<&Value>) -> Option<Value> {
    let annotations = annotations?.as_object()?;
    let mut attributes = Map::new();
    for (hint, name) in [
        ("readOnlyHint", "read_only"),
        ("destructiveHint", "destructive"),
        ("idempotentHint", "idempotent"),
        ("openWorldHint", "open_world"),
    ] {
        if let Some(Value::Bool(value)) = annotations.get(hint) {
            attributes.insert(name.to_owned(), (*value).into());
        }
    }
    // Of a tool that only reads the specification gives `destructiveHint` no meaning.
    if attributes.get("read_only") == Some(&Value::Bool(true)) {
        attributes.insert("destructive".to_owned(), false.into());
    }
    (!attributes.is_empty())
        .then(|| json!({"uid": {"type": "MCP::Tool", "id": id}, "attrs": attributes}))
}

impl Findings for Made {
    /// 0: a schema was made, warnings or not.
    fn exit_code(&self) -> u8 {
        0
    }

    fn write_text(&self, terminal: &mut Terminal<'_>) -> io::Result<()> {
        match self.writes {
            Writes::Schema => terminal.document(&self.schema),
            Writes::Entities => {
                terminal.document(&(serde_json::to_string_pretty(&self.entities)? + "\n"))
            }
        }
    }

    fn write_notes(&self, terminal: &mut Terminal<'_>) -> io::Result<()> {
        for warning in &self.warnings {
            let label = terminal.coloured(Colour::Yellow, "warning: ");
            terminal.indented(
                "",
                &label,
                "  ",
                &format!("{}: {}", warning.tool, warning.message),
            )?;
        }
        let Self { tools, typed, .. } = self;
        terminal.line(&format!("{typed} of {tools} tools have a type"))
    }
}
