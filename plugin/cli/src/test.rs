//! `toolgate test`: asks every case, compares the answers, and says which policies no case exercises.
//!
//! Not here: how cases are written (`case`).

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::case::{self, Case, Expected, ExpectedWord, Unusable};
use crate::policy_set::{Failure, PolicySet};
use crate::question::{Answer, ShadowAnswer, Word};
use crate::terminal::{Colour, Terminal, plain};
use crate::{Findings, UNUSABLE};

/// What came out of all policy sets.
#[derive(Serialize)]
pub(crate) struct Report {
    passed: bool,
    sets: Vec<SetReport>,
}

/// What came out of one policy set.
#[derive(Serialize)]
struct SetReport {
    file: String,
    policy_set: String,
    passed: usize,
    failed: usize,
    cases: Vec<CaseReport>,
    coverage: Coverage,
}

/// What came out of one case.
#[derive(Serialize)]
struct CaseReport {
    name: String,
    place: String,
    passed: bool,
    /// What is wrong, one entry for each difference.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<Answer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    listed: Option<bool>,
    /// Whether it could be asked.
    usable: bool,
}

/// Which policies determined the answer of some case.
#[derive(Serialize)]
struct Coverage {
    policies: usize,
    covered: usize,
    uncovered: Vec<Uncovered>,
}

/// A policy that determined no answer.
#[derive(Serialize)]
struct Uncovered {
    id: String,
    place: String,
}

/// Tests every policy set in `files` with the cases in `cases`, or those in its own folder.
///
/// # Errors
/// What could not be used at all.
pub(crate) fn run(
    files: &[PathBuf],
    cases: &[PathBuf],
    require_coverage: bool,
) -> Result<Report, Failure> {
    let mut sets = Vec::new();
    for file in files {
        let set = PolicySet::load(file)?;
        let own = if cases.is_empty() { own_cases(&set)? } else { cases.to_vec() };
        let mut found = Vec::new();
        for path in own {
            found.extend(case::read(&path, &set)?);
        }
        sets.push(SetReport::new(&set, found));
    }
    let covered = |set: &SetReport| !require_coverage || set.coverage.uncovered.is_empty();
    let passed = sets.iter().all(|set| set.failed == 0 && covered(set));
    Ok(Report { passed, sets })
}

/// The cases that belong to a folder of policies.
fn own_cases(set: &PolicySet) -> Result<Vec<PathBuf>, Failure> {
    if !set.is_folder {
        let message = "say where its cases are: --cases PATH";
        return Err(Failure::unusable(set.file.display(), message));
    }
    let places = ["cases", "cases.yaml", "cases.yml", "cases.json"];
    let found: Vec<PathBuf> =
        places.iter().map(|name| set.file.join(name)).filter(|path| Path::exists(path)).collect();
    if found.is_empty() {
        let message = "there is neither `cases/` nor `cases.yaml` in it, and no --cases is given";
        return Err(Failure::unusable(set.file.display(), message));
    }
    Ok(found)
}

impl Findings for Report {
    /// 0: all passed; 1: some did not, or a policy is not exercised that must be; 2: a case could not
    /// be asked.
    fn exit_code(&self) -> u8 {
        let unusable = self.sets.iter().flat_map(|set| &set.cases).any(|case| !case.usable);
        if unusable { UNUSABLE } else { u8::from(!self.passed) }
    }

    fn write_text(&self, terminal: &mut Terminal<'_>) -> io::Result<()> {
        self.sets.iter().try_for_each(|set| set.write_text(terminal))
    }
}

impl SetReport {
    fn new(set: &PolicySet, found: Vec<Result<Case, Unusable>>) -> Self {
        let cases: Vec<CaseReport> =
            found.into_iter().map(|case| CaseReport::new(case, set)).collect();
        let exercised: BTreeSet<&String> = cases
            .iter()
            .filter_map(|case| case.answer.as_ref())
            .flat_map(|answer| {
                let in_shadow = answer.shadow.iter().flat_map(|shadow| &shadow.policies);
                answer.policies.iter().chain(in_shadow)
            })
            .collect();
        let uncovered: Vec<Uncovered> = set
            .policies
            .iter()
            .filter(|policy| !exercised.contains(&policy.id))
            .map(|policy| Uncovered { id: policy.id.clone(), place: set.place(policy) })
            .collect();
        let passed = cases.iter().filter(|case| case.passed).count();
        Self {
            file: set.file.display().to_string(),
            policy_set: set.engine.version().to_owned(),
            passed,
            failed: cases.len() - passed,
            coverage: Coverage {
                policies: set.policies.len(),
                covered: set.policies.len() - uncovered.len(),
                uncovered,
            },
            cases,
        }
    }

    fn write_text(&self, terminal: &mut Terminal<'_>) -> io::Result<()> {
        let colour = if self.failed == 0 { Colour::Green } else { Colour::Red };
        let counts = format!("{} passed, {} failed", self.passed, self.failed);
        let counts = terminal.coloured(colour, &counts);
        terminal.line(&format!("{}: {counts}", plain(&self.file)))?;
        for case in self.cases.iter().filter(|case| !case.passed) {
            let label = if case.usable { "failed " } else { "unusable " };
            let label = terminal.coloured(Colour::Red, label);
            terminal.indented("  ", &label, "    ", &format!("{}: {}", case.place, case.name))?;
            for problem in &case.problems {
                terminal.indented("    ", "", "      ", problem)?;
            }
        }
        let Coverage { policies, covered, uncovered } = &self.coverage;
        terminal.line(&format!("  {covered} of {policies} policies exercised"))?;
        for policy in uncovered {
            let label = terminal.coloured(Colour::Yellow, "not exercised ");
            terminal.indented("  ", &label, "    ", &format!("{}: {}", policy.place, policy.id))?;
        }
        Ok(())
    }
}

impl CaseReport {
    fn new(case: Result<Case, Unusable>, set: &PolicySet) -> Self {
        let unusable = |name, place, message| Self {
            name,
            place,
            passed: false,
            problems: vec![message],
            answer: None,
            listed: None,
            usable: false,
        };
        let Case { name, place, question, expected } = match case {
            Ok(case) => case,
            Err(Unusable { name, place, message }) => return unusable(name, place, message),
        };
        if !set.servers.contains(&question.server) {
            let message = format!(
                "unknown server {:?}; there are: {}",
                question.server,
                set.servers.join(", ")
            );
            return unusable(name, place, message);
        }
        let asks_for_list = matches!(
            expected,
            Expected::Answer { answer: ExpectedWord::Listed | ExpectedWord::Hidden, .. }
        );
        let (answer, listed) = if asks_for_list {
            match question.is_listed(set) {
                Ok(listed) => (None, Some(listed)),
                Err(message) => return unusable(name, place, message),
            }
        } else {
            match question.ask(set) {
                Ok(answer) => (Some(answer), None),
                Err(message) => return unusable(name, place, message),
            }
        };
        let problems = match (&answer, listed) {
            (Some(answer), _) => compare(&expected, answer),
            (None, listed) => compare_list(&expected, listed.unwrap_or(false)),
        };
        Self { name, place, passed: problems.is_empty(), problems, answer, listed, usable: true }
    }
}

/// How a listing differs from what is expected.
fn compare_list(expected: &Expected, listed: bool) -> Vec<String> {
    let found = if listed { ExpectedWord::Listed } else { ExpectedWord::Hidden };
    match expected {
        Expected::Answer { answer, .. } if *answer != found => {
            vec![format!("expected {}, found {}", answer.as_str(), found.as_str())]
        }
        _ => Vec::new(),
    }
}

/// How an answer differs from what is expected.
fn compare(expected: &Expected, found: &Answer) -> Vec<String> {
    let mut problems = Vec::new();
    match expected {
        Expected::Answer { answer, policies, advice, shadow } => {
            if let Some(shadow) = shadow {
                let would_be = found.shadow.as_ref().map_or(found.outcome, |it| it.outcome);
                if shadow.as_str() != would_be.as_str() {
                    problems.push(format!(
                        "expected in shadow {}, found {}",
                        shadow.as_str(),
                        would_be.as_str()
                    ));
                }
            }
            if answer.as_str() != found.outcome.as_str() {
                problems.push(format!("expected {}, found {}", answer.as_str(), told(found)));
            }
            let lists =
                [("policies", policies, &found.policies), ("advice", advice, &found.advice)];
            for (what, expected, found) in lists {
                if let Some(expected) = expected
                    && expected != found
                {
                    problems.push(format!("expected {what} {expected:?}, found {found:?}"));
                }
            }
        }
        Expected::Cedar { allow, reason, num_errors } => {
            if *allow != (found.outcome == Word::Permit) {
                let expected = if *allow { "allow" } else { "deny" };
                problems.push(format!("expected {expected}, found {}", told(found)));
            }
            let missing: Vec<_> = reason.iter().filter(|id| !found.policies.contains(id)).collect();
            if !missing.is_empty() {
                problems.push(format!(
                    "expected among the policies {missing:?}, found {:?}",
                    found.policies
                ));
            }
            if *num_errors != found.errors.len() {
                problems
                    .push(format!("expected {num_errors} errors, found {}", found.errors.len()));
            }
        }
    }
    problems
}

/// An answer in one line.
pub(crate) fn told(answer: &Answer) -> String {
    let mut text = answer.outcome.as_str().to_owned();
    if !answer.policies.is_empty() {
        text.push_str(&format!(" by {}", answer.policies.join(", ")));
    }
    if let Some(message) = &answer.message {
        text.push_str(&format!(": {message}"));
    }
    for error in &answer.errors {
        let policy = error.policy.as_deref().unwrap_or("the request");
        text.push_str(&format!(" ({policy}: {})", error.message));
    }
    if let Some(ShadowAnswer { outcome, policies }) = &answer.shadow {
        let by = if policies.is_empty() { "" } else { " by " };
        text.push_str(&format!("; in shadow {}{by}{}", outcome.as_str(), policies.join(", ")));
    }
    text
}
