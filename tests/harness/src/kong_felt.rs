//! `docs/kong-felt.md`: what fails with `toolgate.wasm` when the test host stops behaving like Kong in one
//! respect. The rows are made by the program `kong-felt`.

use std::collections::BTreeSet;

/// What stands before the rows.
pub const HEAD: &str = "\
# What the plugin feels of Kong's rules

Made by `cargo run -p toolgate-harness --bin kong-felt`, which runs the scenarios and `kong_rules` with
`toolgate.wasm` once for each rule of [kong.md](kong.md), with that rule switched off. Where nothing fails, the
plugin does the same with the rule and without it, as a plugin for two hosts should; that the rule is
there and makes a difference to a filter is shown by the host test that kong.md names.

| rule | what fails without it |
|---|---|
";

/// Names of failing tests in one cell before they are counted only.
const NAMED: usize = 3;

/// The row of a rule.
#[must_use]
pub fn row(rule: &str, failing: &BTreeSet<String>) -> String {
    let mut cell: Vec<String> =
        failing.iter().take(NAMED).map(|name| format!("`{name}`")).collect();
    match failing.len().checked_sub(NAMED) {
        Some(more @ 1..) => cell.push(format!("and {more} more")),
        _ if failing.is_empty() => cell.push("nothing".into()),
        _ => {}
    }
    format!("| `{rule}` | {} |\n", cell.join(", "))
}

/// The failing tests in what the standard test harness says.
#[must_use]
pub fn failing(said: &str) -> BTreeSet<String> {
    let mut failing = BTreeSet::new();
    let mut listing = false;
    for line in said.lines() {
        match line.strip_prefix("    ") {
            _ if line == "failures:" => listing = true,
            Some(name) if listing && !name.contains([' ', ':']) => {
                failing.insert(name.to_owned());
            }
            _ if line.starts_with("test result") => listing = false,
            _ => {}
        }
    }
    failing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failing_tests_are_found_in_what_the_test_harness_says() {
        let said = "running 2 tests\n.F\nfailures:\n\n---- a_test stdout ----\n    note: run with\n\nfailures:\n    a_test\n    b_test\n\ntest result: FAILED. 0 passed\n";
        assert_eq!(failing(said), ["a_test", "b_test"].map(str::to_owned).into());
        assert!(failing("running 1 test\n.\ntest result: ok. 1 passed\n").is_empty());
    }

    #[test]
    fn a_row_names_the_first_and_counts_the_rest() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(row("r", &names(&[])), "| `r` | nothing |\n");
        assert_eq!(row("r", &names(&["a"])), "| `r` | `a` |\n");
        assert_eq!(
            row("r", &names(&["a", "b", "c", "d"])),
            "| `r` | `a`, `b`, `c`, and 1 more |\n"
        );
    }
}
