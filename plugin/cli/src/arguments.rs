//! The command line: its commands and options, and what `--help` says of them.
//!
//! `docs/command-line.md` is made from this. Not here: what commands do.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Operates Toolgate, the MCP gateway for Envoy and Kong.
#[derive(Parser)]
#[command(name = "toolgate", version, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Check configurations and policies as the plugin would when it is configured.
    ///
    /// A file is a plugin configuration (JSON or YAML), an Envoy configuration with Toolgate in it
    /// (a Wasm filter whose `name` or `root_id` is "toolgate"), or a declarative configuration of
    /// Kong with Toolgate in it (a filter or plugin named "toolgate"). A folder is a policy set:
    /// `*.cedar`, at most one `*.cedarschema` and any `*.entities.json`, whose `MCP::Server`s are its
    /// servers.
    ///
    /// The exit code is 0 when everything is valid, 1 when there are problems, 2 when a file could
    /// not be used.
    Check(Check),
    /// Ask policies test cases and compare the answers.
    ///
    /// Says of every policy set which of its policies no case exercises: a policy is exercised by a
    /// case whose answer it determines.
    ///
    /// The exit code is 0 when all cases passed, 1 when one failed (with --require-coverage also when
    /// a policy is not exercised), 2 when policies or a case could not be used.
    Test(Test),
}

#[derive(Args)]
pub(crate) struct Check {
    /// Files or folders to check.
    #[arg(required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Take the environment variables that the configuration names from this process, and call it a
    /// problem when one is missing. Otherwise they are only listed, and one that the host does not
    /// hand on is a warning.
    #[arg(long)]
    pub(crate) environment: bool,
    /// Write one JSON document instead of text.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Test {
    /// Configurations or folders of policies.
    #[arg(required = true)]
    pub(crate) policies: Vec<PathBuf>,
    /// A file with cases, or a folder with such files; may be given several times. Without it the
    /// cases of a folder are in its `cases/` or `cases.yaml`.
    #[arg(long, value_name = "PATH")]
    pub(crate) cases: Vec<PathBuf>,
    /// Fail when there is a policy that no case exercises.
    #[arg(long)]
    pub(crate) require_coverage: bool,
    /// Write one JSON document instead of text.
    #[arg(long)]
    pub(crate) json: bool,
}
