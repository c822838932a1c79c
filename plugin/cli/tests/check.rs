//! `toolgate check`, run as operators run it, on the files beside this one.
//!
//! `valid/` and `invalid/` hold the same configurations in every form that hosts take. The problems
//! an invalid file must report, and no others, stand in `NAME.problems`: the path of a field and a
//! part of the message.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use toolgate_core::Gateway;

const VARIABLE: &str = "EXAMPLE_VAULT_TOKEN";

fn fixtures(directory: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(directory);
    let mut files: Vec<PathBuf> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension != "problems"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn toolgate(arguments: &[&str], files: &[PathBuf], variable: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_toolgate"));
    command.args(arguments).args(files).env_remove(VARIABLE);
    if let Some(value) = variable {
        command.env(VARIABLE, value);
    }
    command.output().unwrap()
}

/// The report of one file, and the exit code.
fn check(file: &Path) -> (Value, i32) {
    let output = toolgate(&["check", "--json"], &[file.to_owned()], None);
    let mut report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let code = output.status.code().unwrap();
    assert_eq!(report["valid"], code == 0, "{}", file.display());
    (report["files"][0].take(), code)
}

/// Path and message of every problem of a file.
fn problems(report: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    report["configurations"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|configuration| configuration["problems"].as_array().unwrap())
        .map(|problem| (text(&problem["path"]), text(&problem["message"])))
        .collect()
}

#[test]
fn valid_files_are_valid() {
    for file in fixtures("valid") {
        let (report, code) = check(&file);
        assert_eq!((code, problems(&report)), (0, Vec::new()), "{}", file.display());
    }
}

#[test]
fn every_form_of_a_configuration_is_the_same_configuration() {
    let mut policy_sets: Vec<Value> = Vec::new();
    for file in fixtures("valid") {
        let (report, _) = check(&file);
        for configuration in report["configurations"].as_array().unwrap() {
            policy_sets.push(configuration["policy_set"].clone());
        }
    }
    assert!(policy_sets.len() > fixtures("valid").len(), "one file has two");
    policy_sets.dedup();
    assert_eq!(policy_sets.len(), 1, "{policy_sets:?}");
}

#[test]
fn the_repository_s_own_examples_are_valid() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let (report, code) = check(&root.join("kong/kong.yml"));
    assert_eq!((code, problems(&report)), (0, Vec::new()));
    let (report, code) = check(&root.join("envoy/envoy.yaml"));
    assert_eq!((code, problems(&report)), (0, Vec::new()));
    assert_eq!(
        report["configurations"][0]["environment"],
        serde_json::json!(["TOOLGATE_VAULT_ROLE_ID", "TOOLGATE_VAULT_SECRET_ID"])
    );
}

#[test]
fn invalid_files_report_all_their_problems_and_no_others() {
    for file in fixtures("invalid") {
        let name = file.file_name().unwrap().to_str().unwrap();
        let stem = name.split('.').next().unwrap();
        let expected =
            std::fs::read_to_string(fixture(&format!("invalid/{stem}.problems"))).unwrap();
        let (report, code) = check(&file);
        assert_eq!(code, 1, "{name}");
        let reported = problems(&report);
        let told: String =
            reported.iter().map(|(path, message)| format!("{path}: {message}\n")).collect();
        assert_eq!(reported.len(), expected.lines().count(), "{name} reports:\n{told}");
        for ((path, message), line) in reported.iter().zip(expected.lines()) {
            let (expected_path, part) = line.split_once(": ").unwrap();
            assert!(
                path == expected_path && message.contains(part),
                "{name} lacks {line:?}, it reports:\n{told}"
            );
        }
    }
}

#[test]
fn the_problems_are_the_ones_the_filter_would_log() {
    let files = fixtures("invalid").into_iter().chain(fixtures("valid"));
    for file in files.filter(|file| file.extension().unwrap() == "json") {
        let (report, _) = check(&file);
        if report["configurations"][0]["path"] != "" {
            continue;
        }
        let environment = |_: &str| Some("a-token".to_owned());
        let logged: Vec<(String, String)> =
            match Gateway::compile(&std::fs::read(&file).unwrap(), &environment) {
                Ok(_) => Vec::new(),
                Err(problems) => {
                    problems.into_iter().map(|problem| (problem.path, problem.message)).collect()
                }
            };
        assert_eq!(problems(&report), logged, "{}", file.display());
    }
}

#[test]
fn unusable_files_say_why() {
    let reasons = [
        ("broken.json", "not valid JSON"),
        ("broken.yaml", "not valid YAML"),
        ("bytes.envoy.yaml", "google.protobuf.Struct"),
        ("duplicate-key.yaml", "duplicate mapping key `servers`"),
        ("list.yaml", "there is no object in it"),
        ("without-toolgate.envoy.yaml", "there is no plugin named \"toolgate\""),
        ("without-toolgate.kong.yaml", "there is no plugin named \"toolgate\""),
        ("not-there.yaml", "No such file"),
    ];
    for (name, reason) in reasons {
        let (report, code) = check(&fixture(&format!("unusable/{name}")));
        let error = report["error"].as_str().unwrap_or_default();
        assert!(code == 2 && error.contains(reason), "{name}: {code} {error}");
    }
    assert_eq!(fixtures("unusable").len(), reasons.len() - 1);
}

#[test]
fn variables_are_listed_and_not_required() {
    let (report, code) = check(&fixture("valid/plain.yaml"));
    assert_eq!(code, 0);
    assert_eq!(report["configurations"][0]["environment"], serde_json::json!([VARIABLE]));
}

#[test]
fn a_variable_that_envoy_does_not_hand_on_is_a_warning() {
    for file in fixtures("warned") {
        let (report, code) = check(&file);
        let configuration = &report["configurations"][0];
        assert_eq!((code, problems(&report)), (0, Vec::new()));
        let warnings = configuration["warnings"].as_array().unwrap();
        assert_eq!(warnings.len(), 1);
        assert_eq!(warnings[0]["path"], "vaults.main.login.token.environment");
        // It is of no use that the host has it.
        let output = toolgate(&["check", "--environment"], &[file], Some("a-token"));
        assert_eq!(output.status.code(), Some(1));
    }
}

#[test]
fn with_environment_variables_are_required_and_looked_at() {
    let files = [fixture("valid/plain.yaml")];
    let code = |value: Option<&str>| {
        toolgate(&["check", "--environment"], &files, value).status.code().unwrap()
    };
    assert_eq!(code(Some("a-token")), 0);
    assert_eq!(code(Some("not a token")), 1);
    assert_eq!(code(None), 1);
}

#[test]
fn a_value_of_a_variable_is_never_told() {
    let files = [fixture("valid/plain.yaml")];
    for value in ["s.xyzzy", "s.xyzzy with white space"] {
        for arguments in [&["check", "--environment"][..], &["check", "--environment", "--json"]] {
            let output = toolgate(arguments, &files, Some(value));
            let told = [output.stdout, output.stderr].concat();
            assert!(!String::from_utf8(told).unwrap().contains("xyzzy"));
        }
    }
}

#[test]
fn every_file_is_reported_and_the_worst_decides_the_exit_code() {
    let files = [
        fixture("unusable/list.yaml"),
        fixture("invalid/shape.kong.yaml"),
        fixture("valid/plain.yaml"),
    ];
    let output = toolgate(&["check"], &files, None);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(2));
    for verdict in ["list.yaml: cannot be used", "shape.kong.yaml: 6 problems", "plain.yaml: valid"]
    {
        assert!(text.contains(verdict), "{text}");
    }
}

#[test]
fn text_names_place_problem_and_help_without_colours() {
    let output = toolgate(&["check"], &[fixture("invalid/one-of-two.envoy.yaml")], None);
    let text = String::from_utf8(output.stdout).unwrap();
    let text = text.replace(env!("CARGO_MANIFEST_DIR"), "");
    let plugin = "filter_chains[0].filters[0].typed_config.http_filters";
    let name = "/tests/fixtures/invalid/one-of-two.envoy.yaml";
    let (first, second) = text.split_once("1 problem\n").unwrap();
    assert!(first.starts_with(&format!("{name}: valid\n  at {plugin}[0]")), "{text}");
    assert_eq!(
        second,
        format!(
            "  at {plugin}[1].typed_config.config.configuration.value\n  servers: there is no \
             server\n    help: add at least one\n"
        )
    );
}

#[test]
fn version_is_the_workspace_s() {
    let output = toolgate(&["--version"], &[], None);
    let expected = format!("toolgate {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}

/// A configuration of these policies, checked; what is reported.
fn checked(policies: &str, digest: Option<&str>) -> (Value, i32) {
    let text = std::fs::read_to_string(fixture("valid/plain.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    config["policy"]["policies"] = policies.into();
    if let Some(digest) = digest {
        config["policy_checked"] = digest.into();
    }
    let file = format!("toolgate-checked-{}-{}.json", std::process::id(), config.to_string().len());
    let file = std::env::temp_dir().join(file);
    std::fs::write(&file, config.to_string()).unwrap();
    let found = check(&file);
    std::fs::remove_file(file).unwrap();
    found
}

#[test]
fn the_digest_that_check_writes_is_the_one_that_a_configuration_needs() {
    let policy = |number: usize| {
        format!(
            "@id(\"p{number}\") permit (principal, action == MCP::Action::\"connect\", resource);\n"
        )
    };
    let many: String = (0..=1000).map(policy).collect();
    let (report, code) = checked(&many, None);
    assert_eq!(code, 1, "{report}");
    let problem = &report["configurations"][0]["problems"][0];
    assert_eq!(problem["path"], "policy_checked");
    let help = problem["help"].as_str().unwrap();
    let digest = help.split_whitespace().last().unwrap();

    let (report, code) = checked(&many, Some(digest));
    assert_eq!(code, 0, "{report}");
    assert_eq!(report["configurations"][0]["policy_checked"], digest);

    let (report, code) = checked(&(many.clone() + &policy(2000)), Some(digest));
    assert_eq!(code, 1, "{report}");
    let problem = &report["configurations"][0]["problems"][0];
    assert!(problem["message"].as_str().unwrap().contains("not the policies"), "{report}");

    // What the digest is of, and wrong all the same, is found out here.
    let wrong = "@id(\"p\") permit (principal, action == MCP::Action::\"conect\", resource);";
    let (report, code) = checked(wrong, Some(digest));
    assert_eq!(code, 1, "{report}");
    let problems = report["configurations"][0]["problems"].as_array().unwrap();
    assert!(
        problems.iter().any(|problem| problem["message"].as_str().unwrap().contains("conect")),
        "{report}"
    );
}

#[test]
fn actions_that_leave_clients_out_are_advised_on_and_valid() {
    let (report, code) = check(&fixture("cases/set"));
    assert_eq!(code, 0);
    let advice = &report["configurations"][0]["advice"];
    assert_eq!(advice[0]["path"], "policy.schema");
    assert!(advice[0]["message"].as_str().unwrap().contains("`bank/pay`, clients"), "{advice}");
    let output = toolgate(&["check"], &[fixture("cases/set")], None);
    assert!(String::from_utf8(output.stdout).unwrap().contains("  advice: policy.schema: "));
    let (report, _) = check(&fixture("../../../../policies"));
    assert_eq!(report["configurations"][0]["advice"], serde_json::json!([]));
}
