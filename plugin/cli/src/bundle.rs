//! `toolgate bundle`: a folder of policies as the `policy` part of a configuration.
//!
//! Not here: what is wrong with them (`policy_set`).

use std::io;
use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};
use toolgate_policy::{PolicyMode, PolicyText};

use crate::Findings;
use crate::policy_set::{Failure, PolicySet};
use crate::terminal::Terminal;

/// The `policy` part.
#[derive(Serialize)]
pub(crate) struct Bundle {
    policy: Value,
    /// What says that they were validated.
    #[serde(skip_serializing_if = "Option::is_none")]
    policy_checked: Option<String>,
}

/// Makes the `policy` part of the folder or configuration `policies`.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn run(policies: &Path, checked: bool) -> Result<Bundle, Failure> {
    let config = PolicySet::load(policies)?.config;
    let policy_checked = checked.then(|| config.checked());
    let texts = match config.policies {
        PolicyText::One(text) => text.into(),
        PolicyText::Files(files) => json!(files),
    };
    let mut policy = json!({"name": config.name, "policies": texts, "entities": config.entities});
    if let (Some(schema), Some(members)) = (config.schema, policy.as_object_mut()) {
        members.insert("schema".to_owned(), schema.into());
    }
    if let (PolicyMode::Shadow, Some(members)) = (config.mode, policy.as_object_mut()) {
        members.insert("mode".to_owned(), "shadow".into());
    }
    if let (false, Some(members)) = (config.counters.is_empty(), policy.as_object_mut()) {
        members.insert("counters".to_owned(), json!(config.counters));
    }
    Ok(Bundle { policy, policy_checked })
}

impl Findings for Bundle {
    /// 0: it was made.
    fn exit_code(&self) -> u8 {
        0
    }

    fn write_text(&self, terminal: &mut Terminal<'_>) -> io::Result<()> {
        terminal.document(&(serde_json::to_string_pretty(self)? + "\n"))
    }
}
