//! `toolgate`: what operators and policy authors run beside the proxy.
//!
//! Every command answers with the code that the filter runs. Not here: what is wrong with a
//! configuration (`toolgate-core`), what policies decide (`toolgate-policy`).

mod approve;
mod arguments;
mod bundle;
mod case;
mod cedar_case;
mod check;
mod concern;
mod diff;
mod document;
mod envoy;
mod explain;
mod kong;
mod mcp_client;
mod policy_set;
mod question;
mod recorded;
mod report;
mod schema;
mod terminal;
mod test;
mod typing;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use serde::Serialize;

use arguments::{Arguments, Command};
use check::Environment;
use policy_set::Failure;
use terminal::Terminal;

/// The exit code when something could not be used.
const UNUSABLE: u8 = 2;

fn main() -> ExitCode {
    let mut output = io::stdout().lock();
    let written = run(Arguments::parse().command, &mut output);
    match written.and_then(|code| output.flush().map(|()| code)) {
        Ok(code) => ExitCode::from(code),
        // Nobody is left to be told.
        Err(_) => ExitCode::from(UNUSABLE),
    }
}

/// What a command found: said as text or as JSON.
trait Findings: Serialize {
    /// The exit code that says it.
    fn exit_code(&self) -> u8;
    /// Says it to people.
    fn write_text(&self, terminal: &mut Terminal<'_>) -> io::Result<()>;
    /// Says beside a document, on the other stream, what is no part of it.
    fn write_notes(&self, _terminal: &mut Terminal<'_>) -> io::Result<()> {
        Ok(())
    }
}

/// Runs a command; returns its exit code.
fn run(command: Command, output: &mut dyn Write) -> io::Result<u8> {
    match command {
        Command::Check(options) => {
            let environment =
                if options.environment { Environment::Process } else { Environment::Placeholders };
            tell(options.json, output, Ok(check::Report::new(&options.files, environment)))
        }
        Command::Test(options) => {
            let found = test::run(&options.policies, &options.cases, options.require_coverage);
            tell(options.json, output, found)
        }
        Command::Explain(options) => tell(options.json, output, explain::run(*options)),
        Command::Diff(options) => tell(options.json, output, diff::run(&options)),
        Command::Schema(options) => tell(options.json, output, schema::run(&options)),
        Command::Approve(options) => tell(options.json, output, approve::run(&options)),
        Command::Bundle { policies, checked } => {
            tell(false, output, bundle::run(&policies, checked))
        }
        Command::Completions { shell } => {
            // It takes a writer that fails for a fault of the program, so it gets one that never does.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "toolgate", &mut script);
            output.write_all(&script).map(|()| 0)
        }
        Command::Man { directory } => manual(directory, output),
    }
}

/// Writes manual pages: to `output`, or all into a folder.
fn manual(directory: Option<PathBuf>, output: &mut dyn Write) -> io::Result<u8> {
    let Some(directory) = directory else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Arguments::command()).render(&mut page)?;
        return output.write_all(&page).map(|()| 0);
    };
    let written = std::fs::create_dir_all(&directory)
        .and_then(|()| clap_mangen::generate_to(Arguments::command(), &directory));
    match written {
        Ok(()) => Ok(0),
        Err(error) => {
            tell::<check::Report>(false, output, Err(Failure::unusable(directory.display(), error)))
        }
    }
}

/// Says what a command found, or why it could not do its work.
fn tell<F: Findings>(
    json: bool,
    output: &mut dyn Write,
    findings: Result<F, Failure>,
) -> io::Result<u8> {
    let colours = io::stdout().is_terminal() && terminal::colours_are_wanted();
    match findings {
        Ok(findings) => {
            if json {
                terminal::write_json(&findings, output)?;
            } else {
                findings.write_text(&mut Terminal::new(output, colours))?;
                let mut errors = io::stderr().lock();
                let colours = errors.is_terminal() && terminal::colours_are_wanted();
                findings.write_notes(&mut Terminal::new(&mut errors, colours))?;
            }
            Ok(findings.exit_code())
        }
        Err(failure) => {
            if json {
                terminal::write_json(&failure, output)?;
            } else {
                failure.write_text(&mut Terminal::new(output, colours))?;
            }
            Ok(UNUSABLE)
        }
    }
}
