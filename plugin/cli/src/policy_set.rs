//! A policy set to ask questions of: from a configuration, or from a folder of Cedar files.
//!
//! A folder holds `*.cedar`, at most one `*.cedarschema` and `*.counters.yaml`, and any `*.entities.json`; its servers are the
//! `MCP::Server`s among the entities, since there is no gateway to say so. Not here: questions.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use cedar_policy::SchemaFragment;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;
use toolgate_core::Gateway;
use toolgate_core::config::Config;
use toolgate_policy::{PolicyConfig, PolicyEngine, PolicyOutline, PolicyText};

use crate::check::{self, Problem};
use crate::document;
use crate::report;
use crate::terminal::{Colour, Terminal, plain};

/// Policies that are valid, with what they were made from.
pub(crate) struct PolicySet {
    /// Where it was read from, as it was given.
    pub(crate) file: PathBuf,
    pub(crate) engine: PolicyEngine,
    pub(crate) config: PolicyConfig,
    pub(crate) servers: Vec<String>,
    pub(crate) policies: Vec<PolicyOutline>,
    /// The issuer of tokens, where there is only one.
    pub(crate) issuer: Option<String>,
    /// Whether it was read from a folder.
    pub(crate) is_folder: bool,
    /// Action ids of the tools whose arguments are typed.
    typed: BTreeSet<String>,
}

/// Why a command cannot do its work.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something cannot be used at all.
    Unusable(String),
    /// Policies or the configuration around them are not valid.
    Invalid {
        /// The file or folder.
        file: String,
        problems: Vec<Problem>,
    },
}

impl Failure {
    /// That `what` cannot be used.
    pub(crate) fn unusable(what: impl std::fmt::Display, error: impl std::fmt::Display) -> Self {
        Self::Unusable(format!("{what}: {error}"))
    }

    /// Says it to people.
    pub(crate) fn write_text(&self, terminal: &mut Terminal<'_>) -> io::Result<()> {
        match self {
            Self::Unusable(error) => {
                let label = terminal.coloured(Colour::Red, "error: ");
                terminal.indented("", &label, "  ", error)
            }
            Self::Invalid { file, problems } => {
                let verdict = terminal.coloured(Colour::Red, "not valid");
                terminal.line(&format!("{}: {verdict}", plain(file)))?;
                problems.iter().try_for_each(|found| report::problem("", found, terminal))
            }
        }
    }
}

/// `{"error": TEXT}`, with `"problems"` when policies are not valid.
impl Serialize for Failure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut members = serializer.serialize_map(None)?;
        match self {
            Self::Unusable(error) => members.serialize_entry("error", error)?,
            Self::Invalid { file, problems } => {
                members.serialize_entry("error", &format!("{file}: not valid"))?;
                members.serialize_entry("problems", problems)?;
            }
        }
        members.end()
    }
}

impl PolicySet {
    /// Reads `file`: a folder of policies, or a file that `check` takes.
    pub(crate) fn load(file: &Path) -> Result<Self, Failure> {
        if file.is_dir() { Self::of_folder(file) } else { Self::of_file(file) }
    }

    fn of_folder(folder: &Path) -> Result<Self, Failure> {
        let Folder { config, schema_file, entity_files } = Folder::read(folder)?;
        let servers = declared_servers(&config.entities);
        let name = |problem: &toolgate_core::Problem| Problem {
            path: in_folder(folder, &schema_file, &entity_files, &problem.path),
            message: problem.message.clone(),
            help: problem.help.clone(),
        };
        match PolicyEngine::compile(&config, &servers) {
            Ok(engine) => Ok(Self::new(folder, engine, config, servers, None, true)),
            Err(problems) => Err(Failure::Invalid {
                file: folder.display().to_string(),
                problems: problems.iter().map(name).collect(),
            }),
        }
    }

    fn of_file(file: &Path) -> Result<Self, Failure> {
        let shown = &file.display();
        let found = document::read(file).map_err(|error| Failure::unusable(shown, error))?;
        let mut sets: Vec<Self> = Vec::new();
        for found in found {
            let placeholder = |_: &str| Some(check::PLACEHOLDER.to_owned());
            let invalid = |problems: &[toolgate_core::Problem]| Failure::Invalid {
                file: shown.to_string(),
                problems: check::listed(problems),
            };
            Gateway::check(&found.document, &placeholder).map_err(|found| invalid(&found))?;
            // It compiled, so it is a configuration.
            let config: Config = serde_json::from_slice(&found.document)
                .map_err(|error| Failure::unusable(shown, error))?;
            let servers: Vec<String> = config.servers.keys().cloned().collect();
            let policy = config.policy.ok_or_else(|| {
                Failure::unusable(
                    shown,
                    "its policies are fetched: give the folder they are made from",
                )
            })?;
            let engine =
                PolicyEngine::compile(&policy, &servers).map_err(|found| invalid(&found))?;
            let issuer = match &config.identity.issuers[..] {
                [only] => Some(only.issuer.clone()),
                _ => None,
            };
            sets.push(Self::new(file, engine, policy, servers, issuer, false));
        }
        let mut sets = sets.into_iter();
        let first = sets.next().ok_or_else(|| Failure::unusable(shown, "it has no policies"))?;
        if sets.any(|set| set.engine.version() != first.engine.version()) {
            let message =
                "it holds several configurations whose policies differ: give a file with one";
            return Err(Failure::unusable(shown, message));
        }
        Ok(first)
    }

    fn new(
        file: &Path,
        engine: PolicyEngine,
        config: PolicyConfig,
        servers: Vec<String>,
        issuer: Option<String>,
        is_folder: bool,
    ) -> Self {
        let policies = config.outline();
        let typed = typed_actions(config.schema.as_deref());
        Self { file: file.to_owned(), engine, config, servers, policies, issuer, is_folder, typed }
    }

    /// The same gateway with other policies.
    ///
    /// # Errors
    /// Why they are not valid.
    pub(crate) fn with_policies(&self, policies: String) -> Result<Self, String> {
        let config = PolicyConfig { policies: PolicyText::One(policies), ..self.config.clone() };
        let engine = PolicyEngine::compile(&config, &self.servers).map_err(|problems| {
            let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
            problems.join("; ")
        })?;
        let (servers, issuer) = (self.servers.clone(), self.issuer.clone());
        Ok(Self::new(&self.file, engine, config, servers, issuer, self.is_folder))
    }

    /// Whether calls of this tool have a type, and so an action of their own.
    pub(crate) fn is_typed(&self, server: &str, tool: &str) -> bool {
        self.typed.contains(&format!("{server}/{tool}"))
    }

    /// Where a policy stands: a file with line and column; for policies that stand in one text in a
    /// configuration, the field.
    pub(crate) fn place(&self, policy: &PolicyOutline) -> String {
        let file = match &policy.file {
            Some(file) if self.is_folder => self.file.join(file).display().to_string(),
            Some(file) => file.clone(),
            None => "policy.policies".to_owned(),
        };
        format!("{file}:{}:{}", policy.line, policy.column)
    }
}

/// The files of a folder.
struct Folder {
    config: PolicyConfig,
    schema_file: Option<String>,
    /// The file of every entity, in order, and its index in that file.
    entity_files: Vec<(String, usize)>,
}

impl Folder {
    fn read(folder: &Path) -> Result<Self, Failure> {
        let failed = |path: &Path, error: &dyn std::fmt::Display| {
            Failure::Unusable(format!("{}: {error}", path.display()))
        };
        let entries = std::fs::read_dir(folder).map_err(|error| failed(folder, &error))?;
        let mut files: Vec<PathBuf> = Vec::new();
        for entry in entries {
            files.push(entry.map_err(|error| failed(folder, &error))?.path());
        }
        files.sort();
        let mut policies = BTreeMap::new();
        let mut schemas: Vec<(String, String)> = Vec::new();
        let mut entities = Vec::new();
        let mut entity_files = Vec::new();
        let (mut counters, mut counter_files) = (BTreeMap::new(), 0);
        for path in files {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let read = || std::fs::read_to_string(&path).map_err(|error| failed(&path, &error));
            if name.ends_with(".cedar") {
                policies.insert(name.to_owned(), read()?);
            } else if name.ends_with(".cedarschema") {
                schemas.push((name.to_owned(), read()?));
            } else if name.ends_with(".entities.json") {
                let found: Vec<Value> =
                    serde_json::from_str(&read()?).map_err(|error| failed(&path, &error))?;
                entity_files.extend((0..found.len()).map(|index| (name.to_owned(), index)));
                entities.extend(found);
            } else if name.ends_with(".counters.yaml") {
                counter_files += 1;
                counters =
                    serde_saphyr::from_str(&read()?).map_err(|error| failed(&path, &error))?;
            }
        }
        if counter_files > 1 {
            return Err(failed(folder, &"more than one file `*.counters.yaml`: join them"));
        }
        if policies.is_empty() {
            return Err(failed(folder, &"there is no file `*.cedar` in it"));
        }
        if schemas.len() > 1 {
            return Err(failed(folder, &"more than one file `*.cedarschema`: join them"));
        }
        let (schema_file, schema) = schemas.pop().unzip();
        let name = folder.canonicalize().ok();
        let name = name.as_deref().and_then(Path::file_name).and_then(|name| name.to_str());
        let config = PolicyConfig {
            name: name.unwrap_or("policies").to_owned(),
            policies: PolicyText::Files(policies),
            schema,
            entities,
            counters,
            mode: toolgate_policy::PolicyMode::default(),
        };
        Ok(Self { config, schema_file, entity_files })
    }
}

/// The names of the servers among `entities`.
fn declared_servers(entities: &[Value]) -> Vec<String> {
    let servers: BTreeSet<String> = entities
        .iter()
        .filter_map(|entity| entity.get("uid"))
        .map(|uid| uid.get("__entity").unwrap_or(uid))
        .filter(|uid| uid.get("type").and_then(Value::as_str) == Some("MCP::Server"))
        .filter_map(|uid| uid.get("id")?.as_str().map(str::to_owned))
        .collect();
    servers.into_iter().collect()
}

/// The path of a problem, with the files of a folder in place of the fields of a configuration.
fn in_folder(
    folder: &Path,
    schema_file: &Option<String>,
    entity_files: &[(String, usize)],
    path: &str,
) -> String {
    let shown = |file: &str, rest: &str| format!("{}{rest}", folder.join(file).display());
    if let Some(rest) = path.strip_prefix("policy.policies[\"")
        && let Some((file, rest)) = rest.split_once("\"]")
    {
        return shown(file, rest);
    }
    if let Some(rest) = path.strip_prefix("policy.schema")
        && let Some(file) = schema_file
    {
        return shown(file, rest);
    }
    if let Some(rest) = path.strip_prefix("policy.entities[")
        && let Some((index, rest)) = rest.split_once(']')
        && let Some((file, index)) = index.parse().ok().and_then(|at: usize| entity_files.get(at))
    {
        return shown(file, &format!("[{index}]{rest}"));
    }
    path.to_owned()
}

/// The actions that stand for one tool: their ids contain a slash, as no others do.
fn typed_actions(schema: Option<&str>) -> BTreeSet<String> {
    let Some(Ok((fragment, _))) = schema.map(SchemaFragment::from_cedarschema_str) else {
        return BTreeSet::new();
    };
    let json = fragment.to_json_value().unwrap_or_default();
    let actions = json.get("MCP").and_then(|mcp| mcp.get("actions")).and_then(Value::as_object);
    let ids = actions.into_iter().flat_map(|actions| actions.keys());
    ids.filter(|id| id.contains('/')).cloned().collect()
}
