//! Which rules of Kong the plugin feels: `cargo run -p toolgate-harness --bin kong-felt >docs/kong-felt.md`.
//!
//! Runs the scenario suite and the tests of `kong_rules` with `target/toolgate.wasm` once for each rule,
//! with that rule switched off, and writes down what fails. Takes some ten minutes.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

use std::collections::BTreeSet;
use std::process::{Command, ExitCode};

use toolgate_harness::host::{KongRules, WITHOUT};
use toolgate_harness::{kong_felt, repository};

fn main() -> ExitCode {
    match failing(None) {
        Ok(none) if none.is_empty() => {}
        Ok(some) => {
            eprintln!("these fail with every rule on: {some:?}");
            return ExitCode::FAILURE;
        }
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::FAILURE;
        }
    }
    print!("{}", kong_felt::HEAD);
    for rule in KongRules::NAMES {
        match failing(Some(rule)) {
            Ok(failing) => print!("{}", kong_felt::row(rule, &failing)),
            Err(problem) => {
                eprintln!("{rule}: {problem}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

/// The tests that fail without a rule.
fn failing(rule: Option<&str>) -> Result<BTreeSet<String>, String> {
    let mut command = Command::new("cargo");
    command.args(["test", "--locked", "--quiet", "--no-fail-fast", "-p", "toolgate-harness"]);
    command.args(["--test", "kong", "--test", "kong_rules"]);
    command.current_dir(repository::path(""));
    match rule {
        Some(rule) => command.env(WITHOUT, rule),
        None => command.env_remove(WITHOUT),
    };
    let done = command.output().map_err(|error| format!("cargo could not be started: {error}"))?;
    let said = String::from_utf8_lossy(&done.stdout);
    let failing = kong_felt::failing(&said);
    if failing.is_empty() != done.status.success() {
        return Err(format!("cargo ended with {}:\n{said}", done.status));
    }
    Ok(failing)
}
