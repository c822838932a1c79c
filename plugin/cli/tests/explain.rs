//! `toolgate explain`, run as policy authors run it.
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

fn explain(policies: &str, options: &[&str]) -> Value {
    let (report, code) = json(&[&["explain", policies], options].concat());
    assert_eq!(code, 0, "{report}");
    report
}

/// Id, effect, status and what other arguments could do, of every policy that is concerned.
fn concerned(report: &Value) -> Vec<[&str; 4]> {
    let policies = report["concerned"].as_array().unwrap();
    policies
        .iter()
        .map(|policy| {
            assert!(policy["place"].is_string() && policy["text"].is_string());
            ["id", "effect", "status", "other_arguments"]
                .map(|name| policy[name].as_str().unwrap_or_default())
        })
        .collect()
}

fn changes(report: &Value) -> String {
    let changes = report["changes"].as_array().unwrap();
    changes.iter().map(|change| change.as_str().unwrap()).collect::<Vec<_>>().join("\n")
}

const ALICE: [&str; 4] = ["--subject", "alice", "--group", "finance"];
const REFUND: [&str; 4] = ["--server", "billing", "--tool", "refund"];

#[test]
fn a_permit_is_explained_by_the_policy_that_gave_it() {
    let arguments = ["--arguments", r#"{"invoice": "a", "amount": 40}"#];
    let report = explain("policies", &[&ALICE[..], &REFUND, &arguments].concat());
    assert_eq!(report["outcome"], "permit");
    assert_eq!(report["policies"], json!(["finance-small-refunds"]));
    assert_eq!(report["action"], "MCP::Action::\"billing/refund\"");
    let expected = ["finance-small-refunds", "permit", "applies", "could_permit"];
    assert_eq!(concerned(&report), [expected]);
    assert!(changes(&report).contains("without permit `finance-small-refunds`"));
}

#[test]
fn refused_arguments_name_the_permit_that_others_could_satisfy() {
    let arguments = ["--arguments", r#"{"invoice": "a", "amount": 400}"#];
    let report = explain("policies", &[&ALICE[..], &REFUND, &arguments].concat());
    assert_eq!((&report["outcome"], &report["listed"]), (&json!("refused"), &json!(true)));
    assert_eq!(report["policies"], json!([]));
    let expected = ["finance-small-refunds", "permit", "condition_not_met", "could_permit"];
    assert_eq!(concerned(&report), [expected]);
    let changes = changes(&report);
    assert!(changes.contains("policies/demo.cedar:") && changes.contains("Refunds over 100"));
}

#[test]
fn arguments_of_another_type_are_explained_without_asking_policies() {
    let arguments = ["--arguments", r#"{"invoice": "a", "amount": "4"}"#];
    let report = explain("policies", &[&ALICE[..], &REFUND, &arguments].concat());
    assert_eq!(report["outcome"], "invalid");
    assert_eq!(concerned(&report)[0][2], "not_evaluated");
    assert!(changes(&report).contains("`arguments.amount` must be an integer"));
}

#[test]
fn what_is_invisible_names_whom_the_permits_are_for() {
    let bob = ["--subject", "bob", "--group", "engineering"];
    let report = explain("policies", &[&bob[..], &REFUND].concat());
    assert_eq!((&report["outcome"], &report["listed"]), (&json!("invisible"), &json!(false)));
    let expected = ["finance-small-refunds", "permit", "other_principal", "cannot_permit"];
    assert_eq!(concerned(&report), [expected]);
    assert!(changes(&report).contains("principal in MCP::Group::\"finance\""));
}

#[test]
fn a_forbid_that_nothing_avoids_is_named_with_its_place() {
    let tool = ["--server", "everything", "--tool", "get-env"];
    let report = explain("policies", &[&ALICE[..], &tool].concat());
    assert_eq!(report["outcome"], "invisible");
    let found = concerned(&report);
    assert!(found.contains(&["staff-use-everything", "permit", "applies", ""]), "{found:?}");
    assert!(found.contains(&["nobody-reads-the-environment", "forbid", "applies", ""]));
    assert!(
        changes(&report).contains("forbid `nobody-reads-the-environment` (policies/demo.cedar:")
    );
}

#[test]
fn where_no_policy_is_about_it_that_is_said() {
    let prompt = ["--server", "billing", "--prompt", "other"];
    let report = explain("policies", &[&ALICE[..], &prompt].concat());
    assert_eq!(concerned(&report).len(), 0);
    assert!(changes(&report).contains("none is about this action and resource"));
}

#[test]
fn a_policy_that_cannot_be_evaluated_is_named() {
    let options = ["--subject", "a", "--group", "team", "--server", "bank", "--tool", "pay"];
    let arguments = ["--arguments", r#"{"amount": 9007199254740991}"#];
    let report = explain(&fixture("cases/set"), &[&options[..], &arguments].concat());
    assert_eq!(report["outcome"], "error");
    let found = concerned(&report);
    assert!(found.contains(&["overflow", "forbid", "errs", "could_avoid"]), "{found:?}");
    assert!(changes(&report).contains("forbid `overflow`"));
}

#[test]
fn groups_around_groups_roles_claims_and_time_are_looked_at() {
    let set = fixture("explain-set");
    let tool = ["--server", "files", "--tool", "read", "--subject", "a"];
    let at = |time: &'static str, more: &[&str]| {
        let report = explain(&set, &[&tool[..], &["--time", time], more].concat());
        report["outcome"].as_str().unwrap().to_owned()
    };
    let noon = "2026-11-23T12:00:00Z";
    assert_eq!(at(noon, &["--group", "inner"]), "permit");
    assert_eq!(at("2026-11-23T23:00:00Z", &["--group", "inner"]), "invisible");
    assert_eq!(at("2026-11-23T23:00:00+11:00", &["--group", "inner"]), "permit");
    assert_eq!(at(noon, &["--role", "reader"]), "permit");
    assert_eq!(at(noon, &["--claim", "level=3"]), "permit");
    assert_eq!(at(noon, &["--claim", "level=2"]), "invisible");
    assert_eq!(at(noon, &["--scope", "files:read"]), "permit");
    assert_eq!(at(noon, &["--source-ip", "10.1.2.3"]), "permit");
    assert_eq!(at(noon, &["--source-ip", "11.1.2.3"]), "invisible");
}

#[test]
fn people_read_the_same_with_the_text_of_the_policies() {
    let arguments = ["--arguments", r#"{"invoice": "a", "amount": 400}"#];
    let (told, code) = text(&[&["explain", "policies"], &ALICE[..], &REFUND, &arguments].concat());
    assert_eq!(code, 0);
    for part in [
        "refused: MCP::User::\"alice\" MCP::Action::\"billing/refund\" MCP::Tool::\"billing/refund\"",
        "in lists: yes",
        "the caller is told: Refunds over 100",
        "    when { context.arguments.amount > 0 && context.arguments.amount <= 100 };",
        "what would change it:",
    ] {
        assert!(told.contains(part), "{told}");
    }
    assert!(!told.contains('\x1b'), "{told}");
}

#[test]
fn a_question_that_cannot_be_asked_says_why() {
    for (options, part) in [
        (vec!["--server", "bnak", "--tool", "pay"], "unknown server \"bnak\""),
        (vec!["--server", "billing", "--tool", "refund", "--arguments", "{"], "--arguments"),
        (vec!["--server", "billing", "--tool", "refund", "--arguments", "@no.json"], "no.json"),
        (vec!["--server", "billing", "--action", "connect", "--claim", "x"], "NAME=TEXT"),
        (vec!["--server", "billing", "--action", "connect", "--time", "noon"], "RFC 3339"),
        (vec!["--server", "billing", "--action", "connect", "--source-ip", "here"], "source_ip"),
    ] {
        let (report, code) = json(&[&["explain", "policies"], &ALICE[..], &options].concat());
        if part == "source_ip" {
            // The gateway itself answers with an error when it does not know where a request is from.
            assert!(report.to_string().contains(part) && report["outcome"] == "error", "{report}");
            continue;
        }
        let error = report["error"].as_str().unwrap_or_default();
        assert!(code == 2 && error.contains(part), "{options:?}: {report}");
    }
}

#[test]
fn a_tool_that_is_not_declared_for_clients_says_so() {
    let set = fixture("cases/set");
    let client = ["--subject", "a", "--as", "client", "--group", "team"];
    let pay = ["--server", "bank", "--tool", "pay", "--arguments", r#"{"amount": 1}"#];
    let report = explain(&set, &[&client[..], &pay].concat());
    assert_eq!(report["principal"], "MCP::Client::\"a\"");
    assert_eq!((&report["outcome"], &report["listed"]), (&json!("invisible"), &json!(false)));
    assert_eq!(
        changes(&report),
        "policy.schema has MCP::Action::\"bank/pay\" for no caller of type MCP::Client: its \
         principals would have to list that type"
    );
    let connect = ["--server", "bank", "--action", "connect", "--subject", "robot"];
    assert_eq!(explain(&set, &[&connect[..], &["--as", "client"]].concat())["outcome"], "permit");
    assert_eq!(explain(&set, &connect)["outcome"], "invisible");
}
