//! Test cases: questions with the answers they must have.
//!
//! A file is a list of cases, YAML or JSON. A case is written in MCP's terms or in the shape of
//! `cedar run-tests` (`cedar_case`). Not here: asking (`test`).

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use serde_saphyr::{Spanned, UserMessageFormatter};
use toolgate_protocol::json::Json;

use crate::cedar_case;
use crate::policy_set::{Failure, PolicySet};
use crate::question::{Question, RequestFields, ServerAction, TokenFields, What, Who};

/// A case and where it stands.
pub(crate) struct Case {
    pub(crate) name: String,
    /// File and line.
    pub(crate) place: String,
    pub(crate) question: Question,
    pub(crate) expected: Expected,
}

/// A case that cannot be asked.
pub(crate) struct Unusable {
    pub(crate) name: String,
    pub(crate) place: String,
    pub(crate) message: String,
}

/// The answer that a case must have.
#[derive(Debug)]
pub(crate) enum Expected {
    /// This, as written in a case of MCP.
    Answer {
        answer: ExpectedWord,
        /// Exactly these policies, where it says so.
        policies: Option<Vec<String>>,
        /// Exactly these texts, where it says so.
        advice: Option<Vec<String>>,
        /// What would come out with the policies in shadow, where it says so.
        shadow: Option<ExpectedWord>,
    },
    /// This, as written in a case of Cedar.
    Cedar {
        allow: bool,
        /// At least these policies.
        reason: Vec<String>,
        num_errors: usize,
    },
}

/// What must come out.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ExpectedWord {
    Permit,
    Approval,
    Refused,
    Invalid,
    Invisible,
    Error,
    /// It is listed: some arguments could be permitted.
    Listed,
    /// It is not listed.
    Hidden,
}

impl ExpectedWord {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Permit => "permit",
            Self::Approval => "approval",
            Self::Refused => "refused",
            Self::Invalid => "invalid",
            Self::Invisible => "invisible",
            Self::Error => "error",
            Self::Listed => "listed",
            Self::Hidden => "hidden",
        }
    }
}

/// A case in MCP's terms, as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(rename = "name")]
    _name: String,
    who: Value,
    server: String,
    #[serde(default)]
    tool: Option<String>,
    #[serde(default)]
    prompt: Option<String>,
    #[serde(default)]
    resource: Option<String>,
    #[serde(default)]
    action: Option<ServerAction>,
    #[serde(default)]
    arguments: Option<Value>,
    #[serde(default)]
    request: RequestFields,
    expect: ExpectedWord,
    #[serde(default)]
    policies: Option<Vec<String>>,
    #[serde(default)]
    advice: Option<Vec<String>>,
    #[serde(default)]
    shadow: Option<ExpectedWord>,
}

/// Reads the cases at `path`: a file, or a folder with files.
pub(crate) fn read(path: &Path, set: &PolicySet) -> Result<Vec<Result<Case, Unusable>>, Failure> {
    let mut cases = Vec::new();
    for file in files(path)? {
        let shown = &file.display();
        let text =
            std::fs::read_to_string(&file).map_err(|error| Failure::unusable(shown, error))?;
        // YAML 1.2 contains JSON.
        let found: Vec<Spanned<Value>> = serde_saphyr::from_str(&text).map_err(|error| {
            let error = error.render_with_formatter(&UserMessageFormatter);
            Failure::unusable(shown, format!("not a list of cases: {error}"))
        })?;
        for case in found {
            let place = format!("{shown}:{}", case.referenced.line());
            cases.push(parse(case.value, place, &file, set));
        }
    }
    if cases.is_empty() {
        return Err(Failure::unusable(path.display(), "there are no cases in it"));
    }
    Ok(cases)
}

/// The files with cases at `path`.
fn files(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let failed = |error: std::io::Error| Failure::unusable(path.display(), error);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        let extension = file.extension().and_then(|extension| extension.to_str());
        let is_cases = matches!(extension, Some("json" | "yaml" | "yml"));
        // Entities that cases of Cedar refer to.
        let is_entities = file.to_string_lossy().ends_with(".entities.json");
        if is_cases && !is_entities && file.is_file() {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn parse(value: Value, place: String, file: &Path, set: &PolicySet) -> Result<Case, Unusable> {
    let name = value.get("name").and_then(Value::as_str).unwrap_or("(unnamed)").to_owned();
    let parsed = if cedar_case::recognises(&value) {
        cedar_case::parse(value, file, set)
    } else {
        of_mcp(value)
    };
    match parsed {
        Ok((question, expected)) => Ok(Case { name, place, question, expected }),
        Err(message) => Err(Unusable { name, place, message }),
    }
}

fn of_mcp(value: Value) -> Result<(Question, Expected), String> {
    let written: Written = strictly(value)?;
    let who = match written.who {
        Value::String(word) if word == "anonymous" => Who::Anonymous,
        Value::String(word) => {
            return Err(format!("`who`: {word:?} is neither \"anonymous\" nor an object"));
        }
        fields => {
            let token: TokenFields = strictly(fields).map_err(|error| format!("`who`: {error}"))?;
            Who::Token(Box::new(token))
        }
    };
    let has_arguments = written.arguments.is_some();
    let what = match (written.tool, written.prompt, written.resource, written.action) {
        (Some(name), None, None, None) => {
            What::Tool { name, arguments: arguments(&written.arguments.unwrap_or_default())? }
        }
        (None, Some(name), None, None) => What::Prompt(name),
        (None, None, Some(uri), None) => What::Resource(uri),
        (None, None, None, Some(action)) => What::Server(action),
        _ => return Err("give one of `tool`, `prompt`, `resource` and `action`".to_owned()),
    };
    if has_arguments && !matches!(what, What::Tool { .. }) {
        return Err("only a tool has `arguments`".to_owned());
    }
    let asks_for_list = matches!(written.expect, ExpectedWord::Listed | ExpectedWord::Hidden);
    let says_more =
        written.policies.is_some() || written.advice.is_some() || written.shadow.is_some();
    if asks_for_list && says_more {
        return Err(
            "`listed` and `hidden` follow from all policies together: leave `policies`, `advice` \
                    and `shadow` out"
                .to_owned(),
        );
    }
    let question = Question { who, server: written.server, what, request: written.request };
    let expected = Expected::Answer {
        answer: written.expect,
        policies: written.policies.map(sorted),
        advice: written.advice.map(sorted),
        shadow: written.shadow,
    };
    Ok((question, expected))
}

/// The arguments of a call, read as the gateway reads them.
pub(crate) fn arguments(value: &Value) -> Result<Json, String> {
    Json::parse(value.to_string().as_bytes()).map_err(|error| format!("`arguments`: {error}"))
}

/// Reads a value with the path of what is wrong in the message.
pub(crate) fn strictly<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let message = error.into_inner();
        if path == "." { message.to_string() } else { format!("`{path}`: {message}") }
    })
}

fn sorted(mut texts: Vec<String>) -> Vec<String> {
    texts.sort();
    texts
}
