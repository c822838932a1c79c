//! `toolgate test`, run as policy authors run it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod common;

use common::{fixture, json, text};
use serde_json::Value;

/// The problems of every case, by name.
fn problems(report: &Value) -> Vec<(&str, String)> {
    let cases = report["sets"][0]["cases"].as_array().unwrap();
    cases
        .iter()
        .map(|case| {
            let problems = case["problems"].as_array().into_iter().flatten();
            let problems: Vec<&str> = problems.map(|text| text.as_str().unwrap()).collect();
            (case["name"].as_str().unwrap(), problems.join("; "))
        })
        .collect()
}

fn run(cases: &str) -> (Value, i32) {
    json(&["test", &fixture("cases/set"), "--cases", &fixture(cases)])
}

#[test]
fn the_demo_s_cases_pass_on_its_files_and_on_both_configurations() {
    for policies in ["policies", "envoy/envoy.yaml", "kong/kong.yml"] {
        let arguments = ["test", policies, "--cases", "policies/cases", "--require-coverage"];
        let (report, code) = json(&arguments);
        assert_eq!(code, 0, "{policies}: {:?}", problems(&report));
        assert_eq!(report["sets"][0]["coverage"]["uncovered"].as_array().unwrap().len(), 0);
    }
}

#[test]
fn answers_that_are_as_expected_pass() {
    for cases in ["cases/passing.yaml", "cases/cedar.json"] {
        let (report, code) = run(cases);
        assert_eq!(code, 0, "{:?}", problems(&report));
        assert_eq!(report["passed"], true);
        assert_eq!(report["sets"][0]["failed"], 0);
    }
}

#[test]
fn every_difference_is_told_with_the_place_of_the_case() {
    let (report, code) = run("cases/failing.yaml");
    assert_eq!(code, 1);
    let expected = [
        ("wrong outcome", "expected permit, found refused"),
        (
            "wrong policies and advice",
            "expected policies [\"small\"], found []; expected advice [\"At most 11.\"], found [\"At most 10.\"]",
        ),
        ("wrong listing", "expected listed, found hidden"),
    ];
    let found = problems(&report);
    assert_eq!(found, expected.map(|(name, text)| (name, text.to_owned())));
    let place = report["sets"][0]["cases"][1]["place"].as_str().unwrap();
    assert!(place.ends_with("cases/failing.yaml:7"), "{place}");
}

#[test]
fn a_case_that_cannot_be_asked_says_why_and_is_never_passed() {
    let (report, code) = run("cases/unusable.yaml");
    assert_eq!(code, 2);
    let expected = [
        ("misspelt field", "unknown field `expects`"),
        ("misspelt member of who", "unknown field `group`"),
        ("two targets", "give one of `tool`"),
        ("no target", "give one of `tool`"),
        ("unknown server", "unknown server \"bnak\"; there are: bank, files"),
        ("not a time", "\"noon\" is not an RFC 3339 time"),
        ("arguments of a prompt", "only a tool has `arguments`"),
        ("policies of a listing", "leave `policies`, `advice` and `shadow` out"),
        ("unknown word", "unknown variant `denied`"),
        ("a number that no double holds", "`arguments`"),
    ];
    let found = problems(&report);
    assert_eq!(found.len(), expected.len());
    for ((name, message), (expected_name, part)) in found.iter().zip(expected) {
        assert!(*name == expected_name && message.contains(part), "{name}: {message}");
    }
}

#[test]
fn a_cedar_case_that_the_gateway_would_never_ask_is_refused() {
    let (report, code) = run("cases/cedar-unusable.json");
    assert_eq!(code, 2);
    let expected = [
        "the gateway would ask for MCP::Action::\"bank/pay\"",
        "the model has no entity type `Photo`",
        "`request.context.mfa`",
        "nobody is a `MCP::Group`",
    ];
    let found = problems(&report);
    assert_eq!(found.len(), expected.len());
    for ((name, message), part) in found.iter().zip(expected) {
        assert!(message.contains(part), "{name}: {message}");
    }
}

#[test]
fn a_policy_that_no_case_exercises_is_named_with_its_place_and_fails_when_it_must_not_be() {
    let arguments = ["test", &fixture("cases/set"), "--cases", &fixture("cases/passing.yaml")];
    let (report, code) = json(&arguments);
    assert_eq!(code, 0);
    let uncovered = &report["sets"][0]["coverage"]["uncovered"];
    let ids: Vec<_> = uncovered.as_array().unwrap().iter().map(|policy| &policy["id"]).collect();
    assert_eq!(ids, ["overflow", "never-asked"]);
    assert!(uncovered[1]["place"].as_str().unwrap().ends_with("cases/set/some.cedar:16:1"));
    let (told, code) = text(&[&arguments[..], &["--require-coverage"]].concat());
    assert_eq!(code, 1);
    assert!(told.contains("3 of 5 policies exercised"), "{told}");
}

#[test]
fn without_usable_policies_or_cases_nothing_is_tested() {
    for (arguments, part) in [
        (vec!["test", "envoy/envoy.yaml"], "say where its cases are"),
        (vec!["test", "kong"], "there is no file `*.cedar` in it"),
        (vec!["test", "nowhere.yaml", "--cases", "policies/cases"], "No such file"),
        (vec!["test", "policies", "--cases", "README.md"], "not a list of cases"),
        (vec!["test", "policies", "--cases", "scripts"], "there are no cases in it"),
    ] {
        let (report, code) = json(&arguments);
        let error = report["error"].as_str().unwrap_or_default();
        assert!(code == 2 && error.contains(part), "{arguments:?}: {error}");
    }
}

#[test]
fn folders_that_are_not_valid_name_files_and_lines() {
    let folder = fixture("invalid-set");
    let (report, code) = json(&["check", &folder]);
    assert_eq!(code, 1);
    let problems = report["files"][0]["configurations"][0]["problems"].as_array().unwrap();
    let paths: Vec<&str> =
        problems.iter().map(|problem| problem["path"].as_str().unwrap()).collect();
    let expected =
        [format!("{folder}/bad.cedar:2:8"), format!("{folder}/bad.entities.json[1].uid")];
    assert_eq!(paths, expected, "{problems:?}");
    let (report, code) = json(&["test", &folder, "--cases", "policies/cases"]);
    assert_eq!((code, report["problems"].as_array().map(Vec::len)), (2, Some(2)));
}

#[test]
fn answers_in_shadow_are_compared_and_count_as_exercise() {
    let set = fixture("shadow");
    let (report, code) = json(&["test", &set, "--require-coverage"]);
    assert_eq!(code, 0, "{:?}", problems(&report));
    let cases = report["sets"][0]["cases"].as_array().unwrap();
    assert_eq!(cases[0]["answer"]["outcome"], "permit");
    assert_eq!(cases[0]["answer"]["shadow"]["outcome"], "invisible");
    assert_eq!(cases[0]["answer"]["shadow"]["policies"][0], "no-edit");
    assert_eq!(cases[2]["answer"]["shadow"], Value::Null);
}

#[test]
fn another_answer_in_shadow_than_expected_fails() {
    let (set, case) = (fixture("shadow"), fixture("cases/shadow-failing.yaml"));
    let (report, code) = json(&["test", &set, "--cases", &case]);
    assert_eq!(code, 1);
    assert_eq!(problems(&report)[0].1, "expected in shadow permit, found invisible");
}
