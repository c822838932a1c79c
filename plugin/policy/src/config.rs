//! What an operator writes: policies, the types of tools, entities; and what is wrong with it.
//!
//! Only the shape is here. What the parts mean is found by [`crate::PolicyEngine::compile`].

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::call_kind;

/// The `policy` part of the gateway's configuration.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PolicyConfig {
    /// Name of the policy set; audit records carry it with the hash of the contents.
    pub name: String,
    /// The policies in Cedar's language.
    pub policies: PolicyText,
    /// What the configuration adds to the schema, in Cedar's schema language, namespace `MCP`: an
    /// action for every tool whose arguments policies look at, groups of actions, common types.
    #[serde(default)]
    pub schema: Option<String>,
    /// Entities in Cedar's JSON format: the hierarchy of `Group`s, the operator's attributes of
    /// `Server`s and `Tool`s. Attributes that have a default may be left out.
    #[serde(default)]
    pub entities: Vec<serde_json::Value>,
    /// Counters of earlier calls, by name: policies read them as `context.request.calls.NAME`.
    #[serde(default)]
    pub counters: BTreeMap<String, CounterConfig>,
    /// Whether the policies decide. With `shadow` everything that they alone would deny goes on, and
    /// audit says `would_deny`: for a gateway that is being introduced.
    #[serde(default)]
    pub mode: PolicyMode,
}

/// What is counted, for how long and for whom.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CounterConfig {
    /// Name of the server whose tools are called.
    pub server: String,
    /// Names of the tools whose calls count; every tool of the server where none is named.
    #[serde(default)]
    pub tools: Vec<String>,
    /// How long a call counts, in seconds.
    pub window_seconds: u64,
    /// Whose calls are counted together.
    #[serde(default)]
    pub per: CountedPer,
    /// Which calls count.
    #[serde(default)]
    pub counts: CountedCalls,
}

/// Whose calls are counted together.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum CountedPer {
    /// Those of one principal. All callers without a token are one.
    #[default]
    Principal,
    /// Those of one principal in one MCP session. Requests without a session cannot be counted.
    Session,
    /// Those of everybody.
    Gateway,
}

/// Which calls count.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum CountedCalls {
    /// Those that policy permitted.
    #[default]
    Permitted,
    /// Those that policy refused.
    Denied,
    /// Both.
    All,
}

/// Whether policies decide.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum PolicyMode {
    /// They do; those with `@mode("shadow")` do not.
    #[default]
    Enforce,
    /// None does: all are as if they had `@mode("shadow")`, and nothing is denied by policy.
    Shadow,
}

/// Cedar policies, in one text or in named files.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum PolicyText {
    /// All policies in one text.
    One(String),
    /// File name to Cedar text. The names appear in messages only; the policies form one set.
    Files(BTreeMap<String, String>),
}

impl PolicyMode {
    pub(crate) fn is_shadow(self) -> bool {
        self == Self::Shadow
    }
}

impl PolicyText {
    /// Every text with the configuration path it stands at.
    pub(crate) fn texts(&self) -> Vec<(String, &str)> {
        match self {
            Self::One(text) => vec![("policy.policies".to_owned(), text)],
            Self::Files(files) => files
                .iter()
                .map(|(name, text)| (format!("policy.policies[{name:?}]"), text.as_str()))
                .collect(),
        }
    }
}

/// How far policies are validated before they are used.
#[derive(Clone, Copy, Debug)]
pub enum Validation<'a> {
    /// All of them, however many there are.
    Full,
    /// All of them; more than [`MOST_UNCHECKED`] are a problem, since they would hold up whoever waits.
    Bounded,
    /// They have been, by whoever names their digest, see [`PolicyConfig::checked`]. Names of servers and
    /// entities are looked at all the same.
    Checked(&'a str),
}

/// Most policies, and most tools with types, that are validated where nobody may be held up.
pub const MOST_UNCHECKED: usize = 1_000;

impl PolicyConfig {
    /// The digest that says which policies under which schema were validated, by which rules:
    /// `sha256:` and 64 hexadecimal digits.
    #[must_use]
    pub fn checked(&self) -> String {
        let mut hash = Sha256::new();
        // Lengths before contents: no two configurations write the same bytes.
        let mut field = |text: &str| {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text.as_bytes());
        };
        field(RULES);
        field(&cedar_policy::get_sdk_version().to_string());
        field(crate::BASE_SCHEMA);
        field(if self.schema.is_some() { "schema" } else { "no schema" });
        field(self.schema.as_deref().unwrap_or_default());
        // Which group the action of a tool lies in follows from the tool's entity.
        let kinds: BTreeMap<_, _> = call_kind::of_tools(&self.entities).into_iter().collect();
        for (id, kind) in kinds {
            field("tool");
            field(&id);
            field(kind.action());
        }
        // Their names are types, what they count is not.
        for name in self.counters.keys() {
            field("counter");
            field(name);
        }
        for (path, text) in self.policies.texts() {
            field(&path);
            field(text);
        }
        let digits: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256:{digits}")
    }
}

/// Stands for the rules of this crate beside Cedar's. Another text makes everything be checked again.
const RULES: &str = "toolgate check 2";

/// One thing that is wrong with a [`PolicyConfig`]. `Display` is one or two lines for a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where: the configuration field, with line and column in a Cedar text, e.g.
    /// `policy.policies["finance.cedar"]:12:5`.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What would be right, when that is known.
    pub help: Option<String>,
}

impl Problem {
    pub(crate) fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into(), help: None }
    }

    pub(crate) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.path, self.message)?;
        match &self.help {
            Some(help) => write!(formatter, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}
