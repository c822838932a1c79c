//! docs/protocol.md, docs/federation.md, docs/authentication.md, docs/credentials.md and docs/policy.md: the
//! table of methods is the filter's, and clauses name scenarios and tests that exist.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use toolgate_harness::repository;
use toolgate_harness::scenario::read_all;
use toolgate_protocol::mcp::{METHODS, Version};

const DOCUMENT: &str = "docs/protocol.md";

/// Documents with clauses, and the files of scenarios that are all about one: each of these backs a clause.
const DOCUMENTS: &[(&str, &[&str])] = &[
    (DOCUMENT, &["messages", "methods", "versions", "batches", "sessions"]),
    (
        "docs/federation.md",
        &["federation", "federated_lists", "federated_eras", "federated_names", "federated_rounds"],
    ),
    (
        "docs/authentication.md",
        &[
            "identity",
            "identity_clients",
            "identity_keys",
            "identity_login",
            "identity_machines",
            "identity_proofs",
            "identity_proxied",
            "identity_refused",
            "identity_sessions",
        ],
    ),
    ("docs/credentials.md", &["credentials", "credential_sources", "credential_echoes"]),
    (
        "docs/policy.md",
        &["approvals", "lists", "policy_bundles", "rollout", "sequence", "tool_groups"],
    ),
];

/// The part of a document under this heading, up to the next one.
fn section(document: &str, heading: &str) -> String {
    let text = repository::read(document).unwrap();
    let (_, rest) = text
        .split_once(&format!("\n## {heading}\n"))
        .unwrap_or_else(|| panic!("{document} has no section {heading}"));
    rest.split("\n## ").next().unwrap().to_owned()
}

/// The table of methods as the filter has it.
fn methods() -> String {
    let mut table = String::from("| method | form |");
    for version in Version::ALL {
        write!(table, " {version} |").unwrap();
    }
    table.push_str(" decided as |\n|---|---|---|---|---|---|---|---|\n");
    for method in METHODS {
        let form = if method.is_request { "request" } else { "notification" };
        write!(table, "| `{}` | {form} |", method.name).unwrap();
        for version in Version::ALL {
            let exists = method.since <= version && version <= method.until;
            table.push_str(if exists { " ✓ |" } else { " – |" });
        }
        writeln!(table, " {} |", method.asks.action()).unwrap();
    }
    table
}

/// What stands in backticks in the last column of a document's clauses.
fn named(document: &str) -> BTreeSet<String> {
    let clauses = section(document, "Clauses");
    let rows = clauses.lines().filter(|line| line.starts_with("| ")).skip(1);
    rows.flat_map(|row| {
        let evidence = row.trim_end_matches('|').rsplit('|').next().unwrap_or_default().to_owned();
        let names: Vec<String> =
            evidence.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        assert!(!names.is_empty(), "a clause without evidence: {row}");
        names
    })
    .collect()
}

/// The names of all test functions of the repository.
fn functions(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && !matches!(name.as_str(), "target" | "node_modules" | "corpus") {
            functions(&path, found);
        } else if matches!(path.extension().and_then(|e| e.to_str()), Some("rs" | "py")) {
            let text = std::fs::read_to_string(&path).unwrap();
            let names = text.lines().filter_map(|line| {
                let line = line.trim_start();
                let rest = line.strip_prefix("fn ").or_else(|| line.strip_prefix("def "))?;
                rest.split('(').next().map(str::to_owned)
            });
            found.extend(names);
        }
    }
}

#[test]
fn the_table_of_methods_is_the_filters() {
    let methods = methods();
    assert!(
        section(DOCUMENT, "Methods").contains(&methods),
        "{DOCUMENT} does not have this table:\n{methods}"
    );
}

#[test]
fn every_clause_names_scenarios_and_tests_that_exist() {
    let scenarios = read_all(&repository::path("tests/scenarios")).unwrap();
    let mut known: BTreeSet<String> = scenarios.into_iter().map(|each| each.name).collect();
    for folder in ["plugin", "tests"] {
        functions(&repository::path(folder), &mut known);
    }
    for (document, _) in DOCUMENTS {
        let missing: Vec<String> = named(document).difference(&known).cloned().collect();
        assert!(missing.is_empty(), "{document} names what does not exist: {missing:?}");
    }
}

#[test]
fn every_scenario_about_the_matter_of_a_document_backs_a_clause_of_it() {
    for (document, files) in DOCUMENTS {
        let named = named(document);
        for file in *files {
            let text = repository::read(&format!("tests/scenarios/{file}.yaml")).unwrap();
            let names = text.lines().filter_map(|line| line.strip_prefix("- name: "));
            let missing: Vec<&str> = names.filter(|name| !named.contains(*name)).collect();
            assert!(
                missing.is_empty(),
                "{document} does not name these of {file}.yaml: {missing:?}"
            );
        }
    }
}
