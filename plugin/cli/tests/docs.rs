//! The pages for policy authors say what is so: every command in them is run, every policy compiled,
//! every case asked, and the reference of the command line is the command's own help.
//!
//! With `UPDATE_DOCS=1` the reference is written instead of compared.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod common;

use std::collections::BTreeMap;

use cedar_policy::{
    Authorizer, Context, Decision, Entities, Entity, EntityUid, PolicySet, Request,
    RestrictedExpression,
};
use common::{root, text, toolgate};
use serde_json::{Value, json};
use toolgate_policy::{Caller, PolicyConfig, PolicyEngine, PolicyText, RequestFacts, Target};
use toolgate_protocol::json::Json;

/// The fenced blocks of a page: what stands after the fence, and the text.
fn blocks(page: &str) -> Vec<(String, String)> {
    let page = std::fs::read_to_string(root().join(page)).unwrap();
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let indent = line.len() - line.trim_start().len();
        let Some(kind) = line.trim_start().strip_prefix("```") else { continue };
        let body: Vec<&str> = lines
            .by_ref()
            .take_while(|line| line.trim_start() != "```")
            .map(|line| line.get(indent..).unwrap_or_default())
            .collect();
        blocks.push((kind.to_owned(), body.join("\n") + "\n"));
    }
    blocks
}

fn of_kind(page: &str, kind: &str) -> Vec<String> {
    blocks(page).into_iter().filter(|(found, _)| found == kind).map(|(_, text)| text).collect()
}

/// Whether `text` is `pattern`, in which a line `…` stands for any lines and `…` for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut rest = text;
    let mut parts = pattern.split('…').peekable();
    let first = parts.next().unwrap();
    let Some(after) = rest.strip_prefix(first) else { return false };
    rest = after;
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part.trim_start_matches('\n'));
        }
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.is_empty()
}

fn check_console(page: &str) -> usize {
    let mut count = 0;
    for block in of_kind(page, "console") {
        for session in format!("\n{block}").split("\n$ ").skip(1) {
            let (command, expected) = session.split_once('\n').unwrap_or((session, ""));
            let words: Vec<&str> = command.split_whitespace().collect();
            assert_eq!(words[0], "toolgate", "{command}");
            let output = String::from_utf8(toolgate(&words[1..]).stdout).unwrap();
            assert!(
                matches(expected.trim_end(), output.trim_end()),
                "{page}: {command}\n--- expected\n{expected}\n--- found\n{output}"
            );
            count += 1;
        }
    }
    count
}

#[test]
fn every_command_in_the_pages_says_what_the_pages_say() {
    assert!(check_console("docs/policy.md") >= 8);
    assert!(check_console("docs/command-line.md") >= 1);
}

/// The counters that the page declares.
fn counters() -> String {
    of_kind("docs/policy.md", "yaml,counters").join("\n")
}

/// What the page declares, as a configuration with `policies`.
fn config(policies: String) -> PolicyConfig {
    let schemas = of_kind("docs/policy.md", "cedarschema");
    assert_eq!(schemas.len(), 1);
    PolicyConfig {
        mode: toolgate_policy::PolicyMode::default(),
        name: "page".into(),
        policies: PolicyText::One(policies),
        schema: schemas.into_iter().next(),
        entities: vec![json!({"uid": {"type": "MCP::Server", "id": "billing"}})],
        counters: serde_saphyr::from_str(&counters()).unwrap(),
    }
}

#[test]
fn the_policies_and_cases_of_the_page_are_valid_and_pass() {
    let policies = of_kind("docs/policy.md", "cedar").join("\n");
    let config = config(policies.clone());
    let compiled = PolicyEngine::compile(&config, &["billing".to_owned()]);
    assert!(compiled.is_ok(), "{:?}", compiled.err());
    let folder = std::env::temp_dir().join(format!("toolgate-docs-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    write("page.cedar", &policies);
    write("page.counters.yaml", &counters());
    write("page.cedarschema", config.schema.as_deref().unwrap());
    write("page.entities.json", &json!(config.entities).to_string());
    write("cases.yaml", &of_kind("docs/policy.md", "yaml").join("\n"));
    let (told, code) = text(&["test", folder.to_str().unwrap()]);
    assert_eq!(code, 0, "{told}");
    assert!(told.contains("4 passed, 0 failed"), "{told}");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_policy_that_the_page_calls_wrong_is_rejected_as_the_page_says() {
    let found = blocks("docs/policy.md");
    let at = found.iter().position(|(kind, _)| kind == "cedar,rejected").unwrap();
    let problems = PolicyEngine::compile(&config(found[at].1.clone()), &["billing".to_owned()]);
    let told: Vec<String> = problems.unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!((told.join("\n") + "\n", "text"), (found[at + 1].1.clone(), &*found[at + 1].0));
}

#[test]
fn the_translated_policies_decide_as_agentcore_s_own() {
    let original: PolicySet =
        of_kind("docs/policy.md", "cedar,agentcore").join("\n").parse().unwrap();
    let read =
        |name: &str| std::fs::read_to_string(root().join("policies/agentcore").join(name)).unwrap();
    let config = PolicyConfig {
        mode: toolgate_policy::PolicyMode::default(),
        name: "agentcore".into(),
        policies: PolicyText::One(read("policies.cedar")),
        schema: Some(read("policies.cedarschema")),
        entities: serde_json::from_str(&read("policies.entities.json")).unwrap(),
        counters: BTreeMap::new(),
    };
    let servers = ["RefundTool".to_owned(), "OrderTool".to_owned()];
    let engine = PolicyEngine::compile(&config, &servers).unwrap();
    let mut permitted = 0;
    let mut asked = 0;
    for department in [None, Some("service-desk"), Some("sales")] {
        for scope in [None, Some("openid"), Some("openid refund:write")] {
            for (server, tool, amount) in [
                ("RefundTool", "process_refund", Some("1.0")),
                ("RefundTool", "process_refund", Some("499.99")),
                ("RefundTool", "process_refund", Some("500.0")),
                ("OrderTool", "lookup", None),
            ] {
                let claims: BTreeMap<String, String> =
                    [("department", department), ("scope", scope)]
                        .into_iter()
                        .filter_map(|(name, text)| Some((name.to_owned(), text?.to_owned())))
                        .collect();
                let theirs = agentcore(&original, &claims, server, tool, amount);
                let mut arguments = json!({"orderId": "O-1"});
                if let Some(amount) = amount {
                    arguments["amount"] = serde_json::from_str(amount).unwrap();
                }
                let arguments = Json::parse(arguments.to_string().as_bytes()).unwrap();
                let caller = Caller { id: "dana".into(), claims, ..Caller::default() };
                let principal = engine.principal(&caller).unwrap();
                let scopes: Vec<String> =
                    scope.into_iter().flat_map(|s| s.split(' ')).map(str::to_owned).collect();
                let facts = RequestFacts { scopes: &scopes, ..RequestFacts::default() };
                let target = Target::Tool { server, name: tool, arguments: &arguments };
                let ours = engine.decide(&principal, &target, &facts).is_permit();
                assert_eq!(ours, theirs, "{department:?} {scope:?} {tool} {amount:?}");
                asked += 1;
                permitted += u32::from(ours);
            }
        }
    }
    assert_eq!((asked, permitted), (36, 11));
}

/// Whether the original policies allow it, by Cedar.
fn agentcore(
    policies: &PolicySet,
    claims: &BTreeMap<String, String>,
    server: &str,
    tool: &str,
    amount: Option<&str>,
) -> bool {
    let uid = |text: String| text.parse::<EntityUid>().unwrap();
    let user = uid("AgentCore::OAuthUser::\"dana\"".into());
    let action = uid(format!("AgentCore::Action::\"{server}___{tool}\""));
    let arn = "arn:aws:bedrock-agentcore:us-west-2:123456789012:gateway/refunds";
    let gateway = uid(format!("AgentCore::Gateway::\"{arn}\""));
    let target = uid(format!("AgentCore::Action::\"{server}\""));
    let tags = claims
        .iter()
        .map(|(name, text)| (name.clone(), RestrictedExpression::new_string(text.clone())));
    let entities = Entities::from_entities(
        [
            Entity::new_with_tags(user.clone(), [], [], tags).unwrap(),
            Entity::new(action.clone(), [].into(), [target.clone()].into()).unwrap(),
            Entity::with_uid(target),
            Entity::with_uid(gateway.clone()),
        ],
        None,
    )
    .unwrap();
    let order = ("orderId".to_owned(), RestrictedExpression::new_string("O-1".into()));
    let amount = amount.map(|text| ("amount".to_owned(), RestrictedExpression::new_decimal(text)));
    let input = RestrictedExpression::new_record([order].into_iter().chain(amount)).unwrap();
    let context = Context::from_pairs([("input".to_owned(), input)]).unwrap();
    let request = Request::new(user, action, gateway, context, None).unwrap();
    let response = Authorizer::new().is_authorized(&request, policies, &entities);
    assert_eq!(response.diagnostics().errors().count(), 0);
    response.decision() == Decision::Allow
}

#[test]
fn the_reference_of_the_command_line_is_its_help() {
    let path = root().join("docs/command-line.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once("<!-- help -->\n").unwrap();
    let (_, after) = rest.split_once("<!-- end of help -->").unwrap();
    let mut help = String::new();
    let commands =
        ["check", "test", "explain", "diff", "schema", "approve", "bundle", "completions", "man"];
    for command in commands {
        let (told, code) = text(&[command, "--help"]);
        assert_eq!(code, 0);
        let told: Vec<&str> = told.lines().map(str::trim_end).collect();
        help +=
            &format!("\n### toolgate {command}\n\n```text\n{}\n```\n", told.join("\n").trim_end());
    }
    let (overview, _) = text(&["--help"]);
    let listed = overview.lines().filter(|line| line.starts_with("  ") && !line.starts_with("  -"));
    let listed: Vec<&str> = listed.filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(listed, [&commands[..], &["help"]].concat(), "{overview}");
    let expected = format!("{before}<!-- help -->\n{help}\n<!-- end of help -->{after}");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    let page = std::fs::read_to_string(&path).unwrap();
    assert!(page == expected, "docs/command-line.md is not the help: run this with UPDATE_DOCS=1");
}

#[test]
fn the_documents_that_programs_read_have_the_members_that_the_page_names() {
    let audit = common::fixture("diff/audit.jsonl");
    let callers = common::fixture("diff/callers.yaml");
    let new = common::fixture("diff/new");
    let billing = format!("billing={}", common::fixture("tools/billing.json"));
    let commands: [(&str, Vec<&str>); 5] = [
        ("check", vec!["check", "policies"]),
        ("test", vec!["test", "policies"]),
        (
            "explain",
            vec!["explain", "policies", "--anonymous", "--server", "billing", "--tool", "refund"],
        ),
        ("diff", vec!["diff", "policies", &new, "--audit", &audit, "--callers", &callers]),
        ("schema", vec!["schema", &billing]),
    ];
    let page = std::fs::read_to_string(root().join("docs/command-line.md")).unwrap();
    for (name, arguments) in commands {
        let (document, _) = common::json(&arguments);
        let line = page
            .lines()
            .find(|line| line.starts_with(&format!("| `{name}` |")))
            .unwrap_or_else(|| panic!("the page lacks {name}"));
        let mut members: Vec<&str> =
            document.as_object().unwrap().keys().map(String::as_str).collect();
        let mut named: Vec<&str> = line.split('`').skip(3).step_by(2).collect();
        named.retain(|name| !name.contains(' '));
        // What is said only where it applies.
        let optional = ["advice", "message", "errors"];
        members.retain(|name| !optional.contains(name));
        named.retain(|name| !optional.contains(name));
        members.sort_unstable();
        named.sort_unstable();
        assert_eq!(members, named, "{name}");
    }
    let (failure, code) = common::json(&["test", "nowhere.yaml", "--cases", "policies/cases"]);
    assert!(matches!(&failure["error"], Value::String(_)) && code == 2);
}

#[test]
fn completions_and_manual_pages_name_every_command() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let (script, code) = text(&["completions", shell]);
        assert!(code == 0 && script.contains("explain") && script.contains("require-coverage"));
    }
    let (page, code) = text(&["man"]);
    assert!(code == 0 && page.contains(".TH toolgate 1") && page.contains("toolgate\\-explain(1)"));
    let folder = std::env::temp_dir().join(format!("toolgate-man-{}", std::process::id()));
    let (told, code) = text(&["man", "--directory", folder.to_str().unwrap()]);
    assert_eq!((told.as_str(), code), ("", 0));
    assert!(folder.join("toolgate-diff.1").is_file());
    std::fs::remove_dir_all(folder).unwrap();
    let (_, code) = text(&["man", "--directory", "README.md"]);
    assert_eq!(code, 2);
}

#[test]
fn a_bundle_is_the_policy_part_of_a_configuration() {
    let (told, code) = text(&["bundle", "policies/starter/amount-limits"]);
    assert_eq!(code, 0);
    let mut document: Value = serde_json::from_str(&told).unwrap();
    let config: PolicyConfig = serde_json::from_value(document["policy"].take()).unwrap();
    let engine = PolicyEngine::compile(&config, &["billing".to_owned()]).unwrap();
    let (checked, _) = common::json(&["check", "policies/starter/amount-limits"]);
    assert_eq!(checked["files"][0]["configurations"][0]["policy_set"], engine.version());
}

#[test]
fn a_bundle_says_whether_its_policies_decide() {
    let file = std::env::temp_dir().join(format!("toolgate-bundle-{}.json", std::process::id()));
    let valid = std::fs::read_to_string(common::fixture("valid/plain.json")).unwrap();
    let mut config: Value = serde_json::from_str(&valid).unwrap();
    let bundled = |config: &Value| {
        std::fs::write(&file, config.to_string()).unwrap();
        let (told, code) = text(&["bundle", file.to_str().unwrap()]);
        assert_eq!(code, 0, "{told}");
        serde_json::from_str::<Value>(&told).unwrap()["policy"]["mode"].clone()
    };
    assert_eq!(bundled(&config), Value::Null);
    config["policy"]["mode"] = json!("shadow");
    assert_eq!(bundled(&config), "shadow");
    std::fs::remove_file(file).unwrap();
}
