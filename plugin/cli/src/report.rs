//! Says what was found: text for people, JSON for programs.

use std::io::{self, Write};

use crate::check::{ConfigurationReport, FileReport, Problem, Report};

const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";
const RESET: &str = "\x1b[0m";

/// Writes a report as one JSON document.
pub(crate) fn write_json(report: &Report, output: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *output, report)?;
    writeln!(output)
}

/// Writes a report for people.
pub(crate) fn write_text(report: &Report, colours: bool, output: &mut dyn Write) -> io::Result<()> {
    let mut writer = Writer { colours, output };
    report.files.iter().try_for_each(|file| writer.file(file))
}

struct Writer<'a> {
    colours: bool,
    output: &'a mut dyn Write,
}

impl Writer<'_> {
    fn file(&mut self, file: &FileReport) -> io::Result<()> {
        if let Some(error) = &file.error {
            let verdict = self.coloured(RED, "cannot be used");
            writeln!(self.output, "{}: {verdict}", plain(&file.file))?;
            return self.indented("  ", "    ", error);
        }
        file.configurations.iter().try_for_each(|found| self.configuration(&file.file, found))
    }

    fn configuration(&mut self, file: &str, found: &ConfigurationReport) -> io::Result<()> {
        let verdict = match found.problems.len() {
            0 => self.coloured(GREEN, "valid"),
            1 => self.coloured(RED, "1 problem"),
            count => self.coloured(RED, &format!("{count} problems")),
        };
        writeln!(self.output, "{}: {verdict}", plain(file))?;
        if !found.path.is_empty() {
            writeln!(self.output, "  at {}", plain(&found.path))?;
        }
        if let Some(policy_set) = &found.policy_set {
            writeln!(self.output, "  policy set {}", plain(policy_set))?;
        }
        for problem in &found.problems {
            self.problem("", problem)?;
        }
        for warning in &found.warnings {
            let label = self.coloured(YELLOW, "warning: ");
            self.problem(&label, warning)?;
        }
        if !found.environment.is_empty() {
            let names: Vec<&str> = found.environment.iter().map(String::as_str).collect();
            let needs = self.coloured(YELLOW, "needs from the environment of the host");
            writeln!(self.output, "  {needs}: {}", plain(&names.join(", ")))?;
        }
        Ok(())
    }

    fn problem(&mut self, label: &str, problem: &Problem) -> io::Result<()> {
        let path = if problem.path.is_empty() { "the document" } else { &problem.path };
        write!(self.output, "  {label}")?;
        self.indented("", "    ", &format!("{path}: {}", problem.message))?;
        match &problem.help {
            Some(help) => self.indented("    ", "      ", &format!("help: {help}")),
            None => Ok(()),
        }
    }

    /// Writes lines of text: `first` goes before the first, `others` before the others.
    fn indented(&mut self, first: &str, others: &str, text: &str) -> io::Result<()> {
        text.lines().enumerate().try_for_each(|(index, line)| {
            let indent = if index == 0 { first } else { others };
            writeln!(self.output, "{indent}{}", plain(line))
        })
    }

    fn coloured(&self, colour: &str, text: &str) -> String {
        if self.colours { format!("{colour}{text}{RESET}") } else { text.to_owned() }
    }
}

/// Text of a file, harmless to a terminal.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}
