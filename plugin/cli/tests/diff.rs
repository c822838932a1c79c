//! `toolgate diff`, run as operators run it before a rollout.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod common;

use common::{fixture, json, text};
use serde_json::{Value, json};

fn compare(old: &str, new: &str, options: &[&str]) -> (Value, i32) {
    json(&[&["diff", old, new], options].concat())
}

fn replay(options: &[&str]) -> (Value, i32) {
    let (audit, callers) = (fixture("diff/audit.jsonl"), fixture("diff/callers.yaml"));
    let given = ["--audit", &audit, "--callers", &callers];
    compare("policies", &fixture("diff/new"), &[&given[..], options].concat())
}

/// Resource, old and new outcome and count of every change.
fn changes(report: &Value) -> Vec<(String, Value, Value, u64)> {
    let outcome = |found: &Value| match found {
        Value::Object(members) if members.contains_key("listed") => members["listed"].clone(),
        found => found["answer"]["outcome"].clone(),
    };
    report["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| {
            let resource = change["resource"].as_str().unwrap().to_owned();
            let count = change["count"].as_u64().unwrap();
            (resource, outcome(&change["old"]), outcome(&change["new"]), count)
        })
        .collect()
}

#[test]
fn recorded_calls_that_would_be_decided_otherwise_are_listed_once_each() {
    let (report, code) = replay(&[]);
    assert_eq!(code, 1);
    let refund = "MCP::Tool::\"billing/refund\"".to_owned();
    let environment = "MCP::Tool::\"everything/get-env\"".to_owned();
    let expected = [
        (refund, json!("permit"), json!("refused"), 2),
        (environment, json!("invisible"), json!("permit"), 1),
    ];
    assert_eq!(changes(&report), expected);
    assert_eq!(report["changes"][0]["arguments"], json!({"invoice": "INV-1", "amount": 80}));
    assert!(report["changes"][0]["place"].as_str().unwrap().ends_with("audit.jsonl:2"));
}

#[test]
fn what_could_not_be_replayed_is_counted_with_the_reason() {
    let (report, _) = replay(&[]);
    assert_eq!((&report["asked"], &report["changed"]), (&json!(7), &json!(3)));
    // The refund of which only a digest was recorded: whether it is listed was compared.
    assert_eq!(report["without_arguments"], 1);
    let lost = report["not_replayed"].as_object().unwrap();
    let reasons: Vec<_> = lost.keys().collect();
    assert!(reasons.len() == 1 && reasons[0].contains("\"carol\""), "{reasons:?}");
    // Bob was let in as the record has it, and today's policies would not.
    assert_eq!((&report["unfaithful"], &report["other_lines"]), (&json!(1), &json!(2)));
    let (told, _) = {
        let (audit, callers) = (fixture("diff/audit.jsonl"), fixture("diff/callers.yaml"));
        text(&["diff", "policies", &fixture("diff/new"), "--audit", &audit, "--callers", &callers])
    };
    for part in [
        "3 of 7 decisions change",
        "(2x)",
        "old: permit by finance-small-refunds",
        "new: refused",
        "audit.arguments is not `full`",
        "does not repeat as they were recorded",
    ] {
        assert!(told.contains(part), "{part}\n{told}");
    }
}

#[test]
fn the_exit_code_asks_for_the_changes_that_matter() {
    for (fail_on, old_code, reversed_code) in
        [("any", 1, 1), ("permits", 1, 1), ("denials", 1, 1), ("never", 0, 0)]
    {
        let (_, code) = replay(&["--fail-on", fail_on]);
        assert_eq!(code, old_code, "{fail_on}");
        let (_, code) = compare(
            &fixture("diff/new"),
            "policies",
            &["--cases", "policies/cases", "--fail-on", fail_on],
        );
        assert_eq!(code, reversed_code, "{fail_on}");
    }
    // Between these only a denial of the demo's cases is lifted, and none is added.
    let cases = ["--cases", &fixture("diff/environment.yaml"), "--fail-on"];
    let new = fixture("diff/new");
    assert_eq!(compare("policies", &new, &[&cases[..], &["permits"]].concat()).1, 1);
    assert_eq!(compare("policies", &new, &[&cases[..], &["denials"]].concat()).1, 0);
}

#[test]
fn cases_are_put_to_both_without_what_they_expect() {
    let (report, code) =
        compare("envoy/envoy.yaml", &fixture("diff/new"), &["--cases", "policies/cases"]);
    assert_eq!(code, 1);
    let changed: Vec<String> =
        report["changes"].as_array().unwrap().iter().map(|c| c["place"].to_string()).collect();
    assert_eq!(changed.len(), 2, "{changed:?}");
    assert!(changed[0].contains("nobody reads the environment"));
    assert!(changed[1].contains("a small refund is permitted"));
    let (report, code) = compare("envoy/envoy.yaml", "policies", &["--cases", "policies/cases"]);
    assert_eq!((code, &report["changed"]), (0, &json!(0)));
}

#[test]
fn a_comparison_of_nothing_is_refused() {
    let (report, code) = compare("policies", "policies", &[]);
    assert!(code == 2 && report["error"].as_str().unwrap().contains("--audit FILE or --cases"));
    for options in [["--audit", "nowhere.jsonl"], ["--callers", "nowhere.yaml"]] {
        let given = [&options[..], &["--cases", "policies/cases"]].concat();
        let (report, code) = compare("policies", "policies", &given);
        assert!(code == 2 && report["error"].as_str().unwrap().contains("No such file"));
    }
}

#[test]
fn a_record_of_a_client_is_asked_again_as_a_client() {
    let set = fixture("cases/set");
    let (audit, callers) = (fixture("diff/clients.jsonl"), fixture("diff/clients.yaml"));
    let (report, code) = compare(&set, &set, &["--audit", &audit, "--callers", &callers]);
    assert_eq!((code, &report["asked"], &report["changed"]), (0, &json!(2), &json!(0)));
    // Each is decided on as it was recorded.
    assert_eq!(report["unfaithful"], json!(0), "{report}");
}

#[test]
fn records_that_hold_memberships_need_no_file_of_callers() {
    let audit = fixture("diff/memberships.jsonl");
    let (report, code) = compare("policies", &fixture("diff/new"), &["--audit", &audit]);
    assert_eq!((code, &report["asked"], &report["not_replayed"]), (1, &json!(2), &json!({})));
    assert_eq!(report["unfaithful"], json!(0), "{report}");
    let refund = "MCP::Tool::\"billing/refund\"".to_owned();
    assert_eq!(changes(&report), [(refund, json!("permit"), json!("refused"), 1)]);
    assert_eq!(report["changes"][0]["principal"], "MCP::User::\"dora\"");
}
