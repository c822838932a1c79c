//! `toolgate diff OLD NEW`: puts recorded calls or cases to two policy sets and lists every decision that
//! changes.
//!
//! Not here: how records become questions (`recorded`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use clap::ValueEnum;
use serde::Serialize;

use crate::Findings;
use crate::arguments::Diff;
use crate::case::{self, Expected, ExpectedWord};
use crate::policy_set::{Failure, PolicySet};
use crate::question::{Answer, Question, What, Word};
use crate::recorded::{self, Callers, Line, Recorded};
use crate::terminal::{Colour, Terminal, plain};
use crate::test;

/// Most changes that are listed; all are counted.
const MOST_CHANGES: usize = 10_000;

/// Longest line of a log that is read, in bytes.
const LONGEST_LINE: usize = 4 << 20;

/// Which changes make the exit code 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FailOn {
    /// Every one.
    Any,
    /// What was denied and is permitted, or needed an approval and needs none.
    Permits,
    /// What was permitted and is denied, or needs an approval.
    Denials,
    /// None.
    Never,
}

/// What changes from one policy set to the other.
#[derive(Serialize)]
pub(crate) struct Comparison {
    old: String,
    new: String,
    /// Questions that were put to both.
    asked: u64,
    /// Of these, whose answers differ.
    changed: u64,
    /// Each change once, with how often it was found.
    changes: Vec<Change>,
    /// Decisions that could not be asked again, by reason.
    not_replayed: BTreeMap<String, u64>,
    /// Calls whose arguments were not recorded, though they matter: only whether the tool is listed was
    /// compared.
    without_arguments: u64,
    /// Decisions that OLD does not repeat as they were recorded: what is known of callers and requests is
    /// not what was known then.
    unfaithful: u64,
    /// Lines that are no decisions of policies.
    other_lines: u64,
    #[serde(skip)]
    fails: bool,
}

/// One decision that changes.
#[derive(Serialize)]
struct Change {
    /// Where it was found first: a case, or a line of a log.
    place: String,
    principal: String,
    action: String,
    resource: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    arguments: Option<serde_json::Value>,
    old: Found,
    new: Found,
    count: u64,
}

/// What one policy set says.
#[derive(Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Found {
    Answer(Answer),
    Listed(bool),
}

impl Found {
    fn differs(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Answer(old), Self::Answer(new)) => old.outcome != new.outcome,
            (old, new) => old != new,
        }
    }

    /// How much it lets through: nothing, what somebody has approved, everything.
    fn openness(&self) -> u8 {
        match self {
            Self::Answer(Answer { outcome: Word::Permit, .. }) | Self::Listed(true) => 2,
            Self::Answer(Answer { outcome: Word::Approval, .. }) => 1,
            Self::Answer(_) | Self::Listed(false) => 0,
        }
    }

    fn told(&self) -> String {
        match self {
            Self::Answer(answer) => test::told(answer),
            Self::Listed(true) => "listed".to_owned(),
            Self::Listed(false) => "hidden".to_owned(),
        }
    }
}

/// Compares as `options` say.
///
/// # Errors
/// What could not be used.
pub(crate) fn run(options: &Diff) -> Result<Comparison, Failure> {
    let old = PolicySet::load(&options.old)?;
    let new = PolicySet::load(&options.new)?;
    if options.audit.is_empty() && options.cases.is_empty() {
        let message = "say what to ask: --audit FILE or --cases PATH";
        return Err(Failure::Unusable(message.to_owned()));
    }
    let callers = match &options.callers {
        Some(file) => recorded::callers(file)?,
        None => Callers::new(),
    };
    let mut comparer = Comparer {
        fail_on: options.fail_on,
        seen: BTreeMap::new(),
        comparison: Comparison {
            old: old.engine.version().to_owned(),
            new: new.engine.version().to_owned(),
            asked: 0,
            changed: 0,
            changes: Vec::new(),
            not_replayed: BTreeMap::new(),
            without_arguments: 0,
            unfaithful: 0,
            other_lines: 0,
            fails: false,
        },
        old,
        new,
    };
    for path in &options.cases {
        comparer.cases(path)?;
    }
    for file in &options.audit {
        comparer.log(file, &callers)?;
    }
    Ok(comparer.comparison)
}

struct Comparer {
    old: PolicySet,
    new: PolicySet,
    fail_on: FailOn,
    /// The index of each change that was found.
    seen: BTreeMap<String, usize>,
    comparison: Comparison,
}

impl Comparer {
    fn cases(&mut self, path: &Path) -> Result<(), Failure> {
        for case in case::read(path, &self.old)? {
            match case {
                Ok(case) => {
                    let lists = matches!(
                        case.expected,
                        Expected::Answer {
                            answer: ExpectedWord::Listed | ExpectedWord::Hidden,
                            ..
                        }
                    );
                    let place = format!("{}: {}", case.place, case.name);
                    self.compare(&case.question, lists, place);
                }
                Err(unusable) => self.lose(unusable.message),
            }
        }
        Ok(())
    }

    fn log(&mut self, file: &Path, callers: &Callers) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::unusable(file.display(), error);
        let mut lines = BufReader::new(File::open(file).map_err(failed)?);
        let mut number = 0;
        let mut line = Vec::new();
        while read_line(&mut lines, &mut line).map_err(failed)? {
            number += 1;
            match recorded::read(&String::from_utf8_lossy(&line), callers) {
                Line::Other => self.comparison.other_lines += 1,
                Line::Lost(reason) => self.lose(reason),
                Line::Decision(recorded) => {
                    self.replay(&recorded, format!("{}:{number}", file.display()));
                }
            }
        }
        Ok(())
    }

    fn replay(&mut self, recorded: &Recorded, place: String) {
        let Recorded { question, has_arguments, outcome } = recorded;
        let matter = match &question.what {
            What::Tool { name, .. } => {
                let server = &question.server;
                self.old.is_typed(server, name) || self.new.is_typed(server, name)
            }
            _ => false,
        };
        if matter && !has_arguments {
            self.comparison.without_arguments += 1;
            self.compare(question, true, place);
            return;
        }
        if let Some(Found::Answer(answer)) = self.compare(question, false, place)
            && answer.outcome != *outcome
        {
            self.comparison.unfaithful += 1;
        }
    }

    fn lose(&mut self, reason: String) {
        *self.comparison.not_replayed.entry(reason).or_default() += 1;
    }

    /// Asks both; returns what the old one says.
    fn compare(&mut self, question: &Question, lists: bool, place: String) -> Option<Found> {
        let ask = |set: &PolicySet| {
            if lists {
                question.is_listed(set).map(Found::Listed)
            } else {
                question.ask(set).map(Found::Answer)
            }
        };
        let (old, new) = match (ask(&self.old), ask(&self.new)) {
            (Ok(old), Ok(new)) => (old, new),
            (Err(reason), _) | (_, Err(reason)) => {
                self.lose(reason);
                return None;
            }
        };
        self.comparison.asked += 1;
        if old.differs(&new) {
            self.change(question, &old, new, place);
        }
        Some(old)
    }

    fn change(&mut self, question: &Question, old: &Found, new: Found, place: String) {
        self.comparison.changed += 1;
        self.comparison.fails |= match self.fail_on {
            FailOn::Any => true,
            FailOn::Permits => old.openness() < new.openness(),
            FailOn::Denials => old.openness() > new.openness(),
            FailOn::Never => false,
        };
        let (kind, id) = question.principal();
        let principal = format!("{kind}::{id:?}");
        let (kind, id) = question.resource();
        let resource = format!("{kind}::{id:?}");
        let arguments = match (&question.what, old) {
            (What::Tool { arguments, .. }, Found::Answer(_)) => {
                serde_json::from_slice(&arguments.to_bytes()).ok()
            }
            _ => None,
        };
        let action = format!("MCP::Action::{:?}", question.action(&self.new));
        let key =
            format!("{principal} {resource} {action} {arguments:?} {} {}", old.told(), new.told());
        if let Some(change) =
            self.seen.get(&key).and_then(|at| self.comparison.changes.get_mut(*at))
        {
            change.count += 1;
        } else if self.comparison.changes.len() < MOST_CHANGES {
            self.seen.insert(key, self.comparison.changes.len());
            let old = old.clone();
            self.comparison.changes.push(Change {
                place,
                principal,
                action,
                resource,
                arguments,
                old,
                new,
                count: 1,
            });
        }
    }
}

/// Reads a line; false at the end. Of a line that is too long the rest is left out.
fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let mut found = false;
    loop {
        let chunk = reader.fill_buf()?;
        if chunk.is_empty() {
            return Ok(found);
        }
        found = true;
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(chunk.len(), |end| end + 1);
        let room = LONGEST_LINE.saturating_sub(line.len());
        line.extend(chunk.iter().take(used.min(room)));
        reader.consume(used);
        if end.is_some() {
            return Ok(true);
        }
    }
}

impl Findings for Comparison {
    /// 0: nothing changes that --fail-on asks about; 1: something does.
    fn exit_code(&self) -> u8 {
        u8::from(self.fails)
    }

    fn write_text(&self, terminal: &mut Terminal<'_>) -> io::Result<()> {
        terminal.line(&format!("{} -> {}", plain(&self.old), plain(&self.new)))?;
        for change in &self.changes {
            let colour = if change.new.openness() > 0 { Colour::Yellow } else { Colour::Red };
            let label = terminal.coloured(colour, "changed ");
            let times =
                if change.count > 1 { format!(" ({}x)", change.count) } else { String::new() };
            terminal.indented("  ", &label, "    ", &format!("{}{times}", change.place))?;
            let arguments = change.arguments.as_ref().map(ToString::to_string).unwrap_or_default();
            let asked =
                format!("{} {} {} {arguments}", change.principal, change.action, change.resource);
            terminal.indented("    ", "", "      ", asked.trim_end())?;
            terminal.indented("    ", "old: ", "      ", &change.old.told())?;
            terminal.indented("    ", "new: ", "      ", &change.new.told())?;
        }
        let counts = format!("{} of {} decisions change", self.changed, self.asked);
        let colour = if self.changed == 0 { Colour::Green } else { Colour::Red };
        terminal.line(&terminal.coloured(colour, &counts))?;
        let listed: u64 = self.changes.iter().map(|change| change.count).sum();
        if listed < self.changed {
            terminal.line(&format!("  only the first {MOST_CHANGES} are listed"))?;
        }
        for (reason, count) in &self.not_replayed {
            let label = terminal.coloured(Colour::Yellow, "not replayed ");
            terminal.indented("  ", &label, "    ", &format!("{count}: {reason}"))?;
        }
        for (count, text) in [
            (
                self.without_arguments,
                "calls without their arguments (audit.arguments is not `full`): only whether the tool is \
                 listed was compared",
            ),
            (
                self.unfaithful,
                "decisions that OLD does not repeat as they were recorded: check --callers and that OLD \
                 is what was in force",
            ),
            (self.other_lines, "lines that are no decisions of policies"),
        ] {
            if count > 0 {
                let label = terminal.coloured(Colour::Yellow, "note ");
                terminal.indented("  ", &label, "    ", &format!("{count} {text}"))?;
            }
        }
        Ok(())
    }
}
