//! `toolgate`: what operators run beside the proxy.
//!
//! `toolgate check FILE...` says of a configuration what the filter would say of it, by the same
//! code, before a rollout. Not here: what is wrong with a configuration (`toolgate-core`).

mod check;
mod document;
mod envoy;
mod kong;
mod report;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use check::{Environment, Report};

/// Operates Toolgate, the MCP gateway for Envoy and Kong.
#[derive(Parser)]
#[command(name = "toolgate", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check configurations as the plugin would when it is configured.
    ///
    /// A file is a plugin configuration (JSON or YAML), an Envoy configuration with Toolgate in it
    /// (a Wasm filter whose `name` or `root_id` is "toolgate"), or a declarative configuration of
    /// Kong with Toolgate in it (a filter or plugin named "toolgate").
    ///
    /// The exit code is 0 when everything is valid, 1 when there are problems, 2 when a file could
    /// not be used.
    Check {
        /// Files to check.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Take the environment variables that the configuration names from this process, and call
        /// it a problem when one is missing. Otherwise they are only listed, and one that the host
        /// does not hand on is a warning.
        #[arg(long)]
        environment: bool,
        /// Write one JSON document instead of text.
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    let Command::Check { files, environment, json } = Arguments::parse().command;
    let environment = if environment { Environment::Process } else { Environment::Placeholders };
    let report = Report::new(&files, environment);
    let mut output = io::stdout().lock();
    let written = if json {
        report::write_json(&report, &mut output)
    } else {
        let colours = output.is_terminal() && colours_are_wanted();
        report::write_text(&report, colours, &mut output)
    };
    match written.and_then(|()| output.flush()) {
        Ok(()) => ExitCode::from(report.exit_code()),
        // Nobody is left to be told.
        Err(_) => ExitCode::from(2),
    }
}

/// <https://no-color.org>
fn colours_are_wanted() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|terminal| terminal != "dumb")
}
