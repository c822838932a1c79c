//! Checks files and gathers what is to be said of each.
//!
//! Not here: how it is said (`report`), where configurations stand in a file (`document`).

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use toolgate_core::Gateway;
use toolgate_core::config::Config;

use crate::document::{self, Found, Variables};
use crate::policy_set::{Failure, PolicySet};
use crate::terminal::Terminal;
use crate::{Findings, UNUSABLE, report};

/// Stands for the value of a variable that only the host has.
pub(crate) const PLACEHOLDER: &str = "placeholder";

/// Where the values of environment variables come from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Environment {
    /// From nowhere: whoever checks a configuration need not hold its secrets.
    Placeholders,
    /// From this process.
    Process,
}

/// What there is to say of all files.
#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) valid: bool,
    pub(crate) files: Vec<FileReport>,
}

/// What there is to say of one file.
#[derive(Serialize)]
pub(crate) struct FileReport {
    pub(crate) file: String,
    /// Why the file could not be used at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    pub(crate) configurations: Vec<ConfigurationReport>,
}

/// What there is to say of one plugin configuration.
#[derive(Serialize)]
pub(crate) struct ConfigurationReport {
    /// Where it stands in the file; empty when it is the file.
    pub(crate) path: String,
    pub(crate) valid: bool,
    /// Name and hash of its policies, when it compiles.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) policy_set: Option<String>,
    /// What the configuration can say as `policy_checked`, when they are valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) policy_checked: Option<String>,
    /// The environment variables that the host must have.
    pub(crate) environment: BTreeSet<String>,
    pub(crate) problems: Vec<Problem>,
    /// What the filter warns of and goes on: secrets that it has no way to get.
    pub(crate) warnings: Vec<Problem>,
    /// What is valid and may not be meant.
    pub(crate) advice: Vec<Problem>,
}

/// What the filter would say.
#[derive(Debug, Serialize)]
pub(crate) struct Problem {
    pub(crate) path: String,
    pub(crate) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) help: Option<String>,
}

impl Report {
    /// Checks files.
    pub(crate) fn new(files: &[PathBuf], environment: Environment) -> Self {
        let files: Vec<_> = files.iter().map(|file| FileReport::new(file, environment)).collect();
        Self { valid: files.iter().all(FileReport::is_valid), files }
    }
}

impl Findings for Report {
    /// 0: valid; 1: problems; 2: a file could not be used.
    fn exit_code(&self) -> u8 {
        if self.files.iter().any(|file| file.error.is_some()) {
            UNUSABLE
        } else {
            u8::from(!self.valid)
        }
    }

    fn write_text(&self, terminal: &mut Terminal<'_>) -> io::Result<()> {
        report::write_text(self, terminal)
    }
}

impl FileReport {
    fn new(file: &Path, environment: Environment) -> Self {
        if file.is_dir() {
            return Self::of_folder(file);
        }
        let (error, configurations) = match document::read(file) {
            Ok(found) => {
                let report = |found| ConfigurationReport::new(found, environment);
                (None, found.into_iter().map(report).collect())
            }
            Err(error) => (Some(error), Vec::new()),
        };
        Self { file: file.display().to_string(), error, configurations }
    }

    /// A policy set without a gateway.
    fn of_folder(folder: &Path) -> Self {
        let set = PolicySet::load(folder);
        let loaded = set.as_ref().ok();
        let policy_set = loaded.map(|set| set.engine.version().to_owned());
        let policy_checked = loaded.map(|set| set.config.checked());
        let advice = loaded.map(|set| listed(&set.engine.advice())).unwrap_or_default();
        let (error, problems) = match set {
            Ok(_) => (None, Vec::new()),
            Err(Failure::Invalid { problems, .. }) => (None, problems),
            Err(Failure::Unusable(error)) => (Some(error), Vec::new()),
        };
        let found = ConfigurationReport {
            path: String::new(),
            valid: problems.is_empty(),
            policy_set,
            policy_checked,
            environment: BTreeSet::new(),
            problems,
            warnings: Vec::new(),
            advice,
        };
        let configurations = if error.is_some() { Vec::new() } else { vec![found] };
        Self { file: folder.display().to_string(), error, configurations }
    }

    fn is_valid(&self) -> bool {
        self.error.is_none() && self.configurations.iter().all(|found| found.valid)
    }
}

impl ConfigurationReport {
    fn new(found: Found, environment: Environment) -> Self {
        let needed = RefCell::default();
        let variable = |name: &str| variable(name, &found.variables, environment, &needed);
        let compiled = Gateway::check(&found.document, &variable);
        let mut advice = Vec::new();
        let (policy_set, mut problems, mut warnings) = match compiled {
            Ok(gateway) => {
                advice = listed(&gateway.advice());
                (Some(gateway.policy_set().to_string()), Vec::new(), listed(gateway.warnings()))
            }
            Err(problems) => (None, listed(&problems), Vec::new()),
        };
        if environment == Environment::Process {
            // Who gives the environment of the host wants to know that it is complete.
            problems.append(&mut warnings);
        }
        Self {
            path: found.path,
            valid: problems.is_empty(),
            policy_checked: policy_set.as_ref().and_then(|_| policy_checked(&found.document)),
            policy_set,
            environment: needed.into_inner(),
            problems,
            warnings,
            advice,
        }
    }
}

/// The digest of the policies in a configuration that is valid.
fn policy_checked(document: &[u8]) -> Option<String> {
    let config: Config = serde_json::from_slice(document).ok()?;
    Some(config.policy?.checked())
}

pub(crate) fn listed(problems: &[toolgate_core::Problem]) -> Vec<Problem> {
    let problem = |problem: &toolgate_core::Problem| Problem {
        path: problem.path.clone(),
        message: problem.message.clone(),
        help: problem.help.clone(),
    };
    problems.iter().map(problem).collect()
}

/// The variable as the plugin would see it.
fn variable(
    name: &str,
    variables: &Variables,
    environment: Environment,
    needed: &RefCell<BTreeSet<String>>,
) -> Option<String> {
    if let Variables::Listed { from_host, fixed } = variables {
        if let Some(value) = fixed.get(name) {
            return Some(value.clone());
        }
        if !from_host.contains(name) {
            return None;
        }
    }
    needed.borrow_mut().insert(name.to_owned());
    match environment {
        Environment::Placeholders => Some(PLACEHOLDER.to_owned()),
        Environment::Process => std::env::var(name).ok(),
    }
}
