//! Says to people what `check` found.

use std::io;

use crate::check::{ConfigurationReport, FileReport, Problem, Report};
use crate::terminal::{Colour, Terminal, plain};

/// Writes a report for people.
pub(crate) fn write_text(report: &Report, terminal: &mut Terminal<'_>) -> io::Result<()> {
    report.files.iter().try_for_each(|found| file(found, terminal))
}

fn file(file: &FileReport, terminal: &mut Terminal<'_>) -> io::Result<()> {
    if let Some(error) = &file.error {
        let verdict = terminal.coloured(Colour::Red, "cannot be used");
        terminal.line(&format!("{}: {verdict}", plain(&file.file)))?;
        return terminal.indented("  ", "", "    ", error);
    }
    file.configurations.iter().try_for_each(|found| configuration(&file.file, found, terminal))
}

fn configuration(
    file: &str,
    found: &ConfigurationReport,
    terminal: &mut Terminal<'_>,
) -> io::Result<()> {
    let verdict = match found.problems.len() {
        0 => terminal.coloured(Colour::Green, "valid"),
        1 => terminal.coloured(Colour::Red, "1 problem"),
        count => terminal.coloured(Colour::Red, &format!("{count} problems")),
    };
    terminal.line(&format!("{}: {verdict}", plain(file)))?;
    if !found.path.is_empty() {
        terminal.line(&format!("  at {}", plain(&found.path)))?;
    }
    if let Some(policy_set) = &found.policy_set {
        terminal.line(&format!("  policy set {}", plain(policy_set)))?;
    }
    if let Some(checked) = &found.policy_checked {
        terminal.line(&format!("  policy_checked: {}", plain(checked)))?;
    }
    for found in &found.problems {
        problem("", found, terminal)?;
    }
    for warning in &found.warnings {
        let label = terminal.coloured(Colour::Yellow, "warning: ");
        problem(&label, warning, terminal)?;
    }
    for advice in &found.advice {
        let label = terminal.coloured(Colour::Yellow, "advice: ");
        problem(&label, advice, terminal)?;
    }
    if !found.environment.is_empty() {
        let names: Vec<&str> = found.environment.iter().map(String::as_str).collect();
        let needs = terminal.coloured(Colour::Yellow, "needs from the environment of the host");
        terminal.line(&format!("  {needs}: {}", plain(&names.join(", "))))?;
    }
    Ok(())
}

/// Writes a problem with its help, `label` before it.
pub(crate) fn problem(
    label: &str,
    problem: &Problem,
    terminal: &mut Terminal<'_>,
) -> io::Result<()> {
    let path = if problem.path.is_empty() { "the document" } else { &problem.path };
    terminal.indented("  ", label, "    ", &format!("{path}: {}", problem.message))?;
    match &problem.help {
        Some(help) => terminal.indented("    ", "", "      ", &format!("help: {help}")),
        None => Ok(()),
    }
}
