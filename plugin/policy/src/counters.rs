//! Counters of earlier calls: what the configuration names, checked.
//!
//! Policies see them as numbers in `context.request.calls`. Not here: counting, which needs a memory that
//! workers share.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use crate::config::{CountedCalls, CountedPer, CounterConfig, Problem};
use crate::engine::PolicyEngine;
use crate::looks::Looks;
use crate::principal::Principal;
use crate::request::{Count, Target};

/// Most counters of a configuration: a request that looks at one reads them all.
const MOST: usize = 16;

/// The longest that a call counts: 31 days.
const LONGEST: Duration = Duration::from_secs(31 * 86_400);

/// A counter of the configuration.
#[derive(Clone, Debug)]
pub struct Counter {
    /// Its name.
    pub name: Rc<str>,
    /// How long a call counts.
    pub window: Duration,
    /// Whose calls are counted together.
    pub per: CountedPer,
    /// Which calls count.
    pub counts: CountedCalls,
    server: String,
    /// None for all.
    tools: Option<BTreeSet<String>>,
}

impl Counter {
    /// Whether calls of this tool count.
    #[must_use]
    pub fn counts_tool(&self, server: &str, tool: &str) -> bool {
        self.server == server && self.tools.as_ref().is_none_or(|tools| tools.contains(tool))
    }
}

/// All counters, and what they say while nobody has asked.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    all: Vec<Counter>,
    unknown: Vec<Count>,
}

impl Counters {
    /// Checks the configured counters.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub(crate) fn compile(
        config: &BTreeMap<String, CounterConfig>,
        servers: &BTreeSet<&str>,
    ) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        if config.len() > MOST {
            let message = format!("{} counters are too many", config.len());
            let help = format!("a gateway has at most {MOST}");
            problems.push(Problem::new("policy.counters", message).with_help(help));
        }
        for (name, counter) in config {
            let path = format!("policy.counters.{name}");
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            let begins = name.starts_with(|c: char| c.is_ascii_lowercase());
            if !begins || name.len() > 64 || !name.chars().all(plain) || RESERVED.contains(&&**name)
            {
                problems.push(
                    Problem::new(&path, format!("{name:?} is not a usable name of a counter"))
                        .with_help(
                            "write up to 64 small letters, digits and underscores, a letter first, \
                             and no word of Cedar's",
                        ),
                );
            }
            if !servers.contains(counter.server.as_str()) {
                let message = format!("unknown server `{}`", counter.server);
                problems.push(Problem::new(format!("{path}.server"), message));
            }
            for (index, tool) in counter.tools.iter().enumerate().filter(|(_, it)| it.is_empty()) {
                let message = format!("{tool:?} is not the name of a tool");
                problems.push(Problem::new(format!("{path}.tools[{index}]"), message));
            }
            if counter.window_seconds == 0 || counter.window_seconds > LONGEST.as_secs() {
                let message = format!("{} is not usable", counter.window_seconds);
                let help = format!("choose 1 to {} seconds", LONGEST.as_secs());
                problems
                    .push(Problem::new(format!("{path}.window_seconds"), message).with_help(help));
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let all: Vec<Counter> = config
            .iter()
            .map(|(name, counter)| Counter {
                name: name.as_str().into(),
                window: Duration::from_secs(counter.window_seconds),
                per: counter.per,
                counts: counter.counts,
                server: counter.server.clone(),
                tools: (!counter.tools.is_empty()).then(|| counter.tools.iter().cloned().collect()),
            })
            .collect();
        let unknown = |counter: &Counter| Count { counter: Rc::clone(&counter.name), calls: None };
        let unknown = all.iter().map(unknown).collect();
        Ok(Self { all, unknown })
    }

    pub(crate) fn all(&self) -> &[Counter] {
        &self.all
    }

    /// The names of all.
    pub(crate) fn names(&self) -> Vec<Rc<str>> {
        self.all.iter().map(|counter| Rc::clone(&counter.name)).collect()
    }
}

/// Words that Cedar has for itself.
const RESERVED: [&str; 10] =
    ["true", "false", "if", "then", "else", "in", "is", "like", "has", "__cedar"];

impl PolicyEngine {
    /// The counters of the configuration, in order of their names.
    #[must_use]
    pub fn counters(&self) -> &[Counter] {
        self.counters.all()
    }

    /// What is said of every counter where nobody has found it out.
    #[must_use]
    pub fn unknown_counts(&self) -> &[Count] {
        &self.counters.unknown
    }

    /// Whether a policy that can matter to `principal` before `target` looks at a counter; without a
    /// target, whether any policy does. Those in shadow are meant, too.
    #[must_use]
    pub fn looks_at_calls(&self, principal: &Principal, target: Option<&Target<'_>>) -> bool {
        if self.counters.all.is_empty() {
            return false;
        }
        let rules = std::iter::once(&self.enforced).chain(self.with_shadow.as_ref());
        rules.into_iter().any(|rules| match target {
            None => rules.index.looks().at(Looks::CALLS),
            Some(target) => match self.standing(rules, principal, target) {
                Ok(Some(standing)) => standing.looks().at(Looks::CALLS),
                // It is refused, whatever counters say.
                Ok(None) | Err(_) => false,
            },
        })
    }
}
