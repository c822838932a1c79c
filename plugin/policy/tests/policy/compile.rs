//! What a configuration may not say, and how its author hears of it.

#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use toolgate_policy::{PolicyConfig, PolicyEngine, PolicyText};

use crate::support::*;

/// Every problem of `config` as text.
#[track_caller]
fn problems(config: &PolicyConfig) -> Vec<String> {
    match PolicyEngine::compile(config, &servers()) {
        Ok(_) => panic!("it compiles"),
        Err(problems) => texts(&problems),
    }
}

#[track_caller]
fn check(config: &PolicyConfig, path: &str, message: &str) {
    let found = problems(config);
    assert!(
        found.iter().any(|text| text.starts_with(path) && text.contains(message)),
        "{path}: {message}\n--- found\n{}",
        found.join("\n")
    );
}

#[track_caller]
fn check_policy(policy: &str, path: &str, message: &str) {
    check(&config(policy), path, message);
}

#[track_caller]
fn check_schema(schema: &str, path: &str, message: &str) {
    let schema = Some(format!("namespace MCP {{\n{schema}\n}}"));
    check(&PolicyConfig { schema, ..config("") }, path, message);
}

#[track_caller]
fn check_entity(entity: Value, path: &str, message: &str) {
    check(&PolicyConfig { entities: vec![entity], ..config("") }, path, message);
}

#[test]
fn all_problems_are_found_at_once_each_with_its_place() {
    let config = PolicyConfig {
        policies: PolicyText::Files(BTreeMap::from([
            ("a.cedar".to_owned(), "permit(principal, action, resource)".to_owned()),
            (
                "b.cedar".to_owned(),
                "// first\npermit(principal, action, resource);\n\n  @id(\"x\") permit(principal, \
                 action, resource)\n  when { context.request.tyme == 1 };\n"
                    .to_owned(),
            ),
        ])),
        entities: vec![json!({"uid": {"type": "MCP::Server", "id": "nowhere"}})],
        ..config("")
    };
    let found = problems(&config).join("\n");
    for expected in [
        "policy.policies[\"a.cedar\"]:1:36: ",
        "policy.policies[\"b.cedar\"]:2:1: the policy has no `@id`",
        "policy.policies[\"b.cedar\"]:5:10: ",
        "policy.entities[0].uid: unknown server `nowhere`",
    ] {
        assert!(found.contains(expected), "{expected}\n--- found\n{found}");
    }
}

#[test]
fn policies_without_usable_ids_are_refused() {
    let all = "permit(principal, action, resource);";
    check_policy(all, "policy.policies:1:1", "no `@id`");
    check_policy(&format!("@id(\"\") {all}"), "policy.policies:1:1", "`@id` is empty");
    let twice = format!("@id(\"a\") {all}\n@id(\"a\") {all}");
    check_policy(&twice, "policy.policies:2:1", "the id `a` is taken");
    let mut config = config("");
    config.policies = PolicyText::Files(BTreeMap::from([
        ("a".to_owned(), format!("@id(\"a\") {all}")),
        ("b".to_owned(), format!("\n@id(\"a\") {all}")),
    ]));
    check(&config, "policy.policies[\"b\"]:2:1", "the id `a` is taken");
}

#[test]
fn unknown_annotations_are_refused_never_ignored() {
    check_policy(
        "@id(\"a\") @other(\"x\") permit(principal, action, resource);",
        "policy.policies:1:1",
        "unknown annotation `@other`",
    );
    for (path, scope, message) in [
        ("x", "principal, action, resource", "`@redact` names `x`"),
        ("result.a", "principal, action, resource", "no record holds a result"),
        ("arguments", "principal, action, resource", "a path without a name"),
        ("arguments.a,", "principal, action, resource", "`@redact` names ``"),
        (
            "arguments.a",
            "principal, action == MCP::Action::\"connect\", resource",
            "a policy that is not about tools",
        ),
        (
            "arguments.memoo",
            "principal, action == MCP::Action::\"bank/pay\", resource",
            "`arguments.memoo`, which no tool of the policy has",
        ),
    ] {
        check_policy(
            &format!("@id(\"a\") @redact(\"{path}\") permit({scope});"),
            "policy.policies:1:1",
            message,
        );
    }
    check_policy(
        "@id(\"a\") @mode(\"shadow\") @redact(\"arguments.a\") permit(principal, action, resource);",
        "policy.policies:1:1",
        "on a policy in shadow",
    );
    check_policy(
        "@id(\"a\") @advice(\" \") permit(principal, action, resource);",
        "policy.policies:1:1",
        "`@advice` is empty",
    );
    check_policy(
        "@id(\"a\") @mode(\"enforce\") permit(principal, action, resource);",
        "policy.policies:1:1",
        "`@mode` is \"enforce\"",
    );
    check_policy(
        "@id(\"a\") @limit(\"5/m\") permit(principal, action, resource);",
        "policy.policies:1:1",
        "`@limit` is reserved for quotas",
    );
    engine("@id(\"a\") @advice(\"b\") @description(\"c\") permit(principal, action, resource);");
}

#[test]
fn policies_that_do_not_fit_the_schema_are_refused() {
    let pay = |condition: &str| {
        format!(
            "@id(\"a\") permit(principal, action == MCP::Action::\"bank/pay\", resource)\nwhen {{ {condition} }};"
        )
    };
    for (condition, message) in [
        ("context.arguments.amout > 1", "amout"),
        ("context.arguments.amount > \"1\"", "unexpected type"),
        ("context.arguments.memo == \"a\"", "memo"),
        ("context.request.tyme > datetime(\"2026-01-01\")", "tyme"),
        ("principal.id == \"alice\"", "id"),
        ("MCP::Server::\"bank\".region == \"eu\"", "region"),
        ("resource.server.nmae == \"bank\"", "nmae"),
        ("context.arguments.to.length > 1", "unexpected type"),
    ] {
        check_policy(&pay(condition), "policy.policies:2:", message);
    }
    // Arguments of untyped tools do not exist for policies.
    check_policy(
        "@id(\"a\") permit(principal, action in MCP::Action::\"call_tool\", resource) when { context.arguments.x == 1 };",
        "policy.policies:1:",
        "arguments",
    );
}

#[test]
fn a_dereference_beyond_the_slice_is_refused() {
    check_policy(
        "@id(\"a\") permit(principal, action, resource is MCP::Tool)\nwhen { MCP::Server::\"bank\".name == \"x\" };",
        "policy.policies:2:",
        "",
    );
}

#[test]
fn policies_that_never_apply_are_refused() {
    check_policy(
        "@id(\"a\") forbid(principal, action == MCP::Action::\"connect\", resource is MCP::Tool);",
        "policy.policies:1:",
        "applicable action",
    );
    check_policy(
        "@id(\"a\") forbid(principal, action == MCP::Action::\"connect\", resource) when { resource is MCP::Tool };",
        "policy.policies:1:",
        "impossible",
    );
}

#[test]
fn names_that_do_not_exist_are_refused() {
    for (scope, message) in [
        ("principal, action == MCP::Action::\"bank/pya\", resource", "bank/pya"),
        ("principal, action, resource in MCP::Server::\"bnak\"", "unknown server `bnak`"),
        ("principal, action, resource == MCP::Tool::\"bnak/pay\"", "unknown server `bnak`"),
        ("principal, action, resource == MCP::Prompt::\"letter\"", "`server/name`"),
        ("principal, action, resource in MCP::Gateway::\"x\"", "the gateway is called `toolgate`"),
        ("principal in MCP::Gruop::\"x\", action, resource", "Gruop"),
        ("principal == MCP::Anonymous::\"x\", action, resource", "Anonymous"),
    ] {
        check_policy(&format!("@id(\"a\") forbid({scope});"), "policy.policies:1:", message);
    }
    check_policy(
        "@id(\"a\") forbid(principal, action, resource) when { MCP::ListingFacts::\"now\" == MCP::ListingFacts::\"now\" };",
        "policy.policies:1:",
        "not for policies",
    );
}

#[test]
fn an_equality_that_would_miss_typed_tools_is_refused() {
    check_policy(
        "@id(\"a\") forbid(principal, action == MCP::Action::\"call_tool\", resource);",
        "policy.policies:1:1",
        "misses tools with an action of their own",
    );
}

#[test]
fn templates_are_refused() {
    check_policy(
        "@id(\"a\") permit(principal == ?principal, action, resource);",
        "policy.policies:1:1",
        "template",
    );
}

#[test]
fn schemas_that_do_not_parse_or_clash_are_refused() {
    check_schema("action x appliesTo {", "policy.schema:", "");
    check_schema("action a in [nothing];", "policy.schema", "nothing");
    check_schema("action connect;", "policy.schema", "connect");
    check_schema("type Request = { a: Long };", "policy.schema", "Request");
    check_schema("entity Invoice;", "policy.schema:2:1", "entity type `Invoice`");
    let other = Some("namespace Mine { type A = Long; }".to_owned());
    check(&PolicyConfig { schema: other, ..config("") }, "policy.schema", "namespace `Mine`");
}

/// What happens when the schemas of two servers are put into one text and contradict each other.
#[test]
fn schemas_of_servers_that_contradict_each_other_are_refused_where_they_do() {
    let tool = |id: &str, ty: &str| {
        format!(
            "action \"{id}\" in [call_tool] appliesTo {{ principal: [User], resource: [Tool], context: {{ request: Request, arguments: {{ a: {ty} }} }} }};\n"
        )
    };
    let twice = tool("bank/x", "Long") + &tool("bank/x", "String");
    check_schema(&twice, "policy.schema:2:8", "`bank/x` is declared twice");
    let types = format!("type Id = Long;\n{}type Id = String;", tool("bank/x", "Id"));
    check_schema(&types, "policy.schema:2:6", "Id");
    let namespaces =
        format!("{} }}\nnamespace MCP {{ {}", tool("bank/x", "Long"), tool("files/x", "Long"));
    check_schema(&namespaces, "policy.schema:4:11", "MCP");
}

#[test]
fn tool_actions_of_another_shape_are_refused() {
    let action = |id: &str, parent: &str, principal: &str, resource: &str, context: &str| {
        format!(
            "action \"{id}\" {parent} appliesTo {{ principal: [{principal}], resource: [{resource}], context: {context} }};"
        )
    };
    let context = "{ request: Request, arguments: { a: Long } }";
    for (schema, message) in [
        (action("bnak/pay", "in [call_tool]", "User", "Tool", context), "unknown server `bnak`"),
        (action("pay", "in [call_tool]", "User", "Tool", context), "`server/tool`"),
        (action("bank/", "in [call_tool]", "User", "Tool", context), "`server/tool`"),
        (action("bank/x", "", "User", "Tool", context), "does not lie in `call_tool`"),
        (action("bank/x", "in [connect]", "User", "Tool", context), "does not lie in"),
        (action("bank/x", "in [call_tool]", "Group", "Tool", context), "principals"),
        (action("bank/x", "in [call_tool]", "User", "Server", context), "resource is not"),
        (action("bank/x", "in [call_tool]", "User", "Tool, Prompt", context), "resource is not"),
    ] {
        check_schema(&schema, "policy.schema:2:8", message);
    }
    for context in [
        "{ request: Request }",
        "{ arguments: { a: Long } }",
        "{ request: Request, arguments?: { a: Long } }",
        "{ request?: Request, arguments: { a: Long } }",
        "{ request: { time: datetime }, arguments: { a: Long } }",
        "{ request: Request, arguments: Long }",
        "{ request: Request, arguments: { a: Long }, more: Long }",
    ] {
        let schema = action("bank/x", "in [call_tool]", "User", "Tool", context);
        check_schema(&schema, "policy.schema:2:8", "its context is not");
    }
}

#[test]
fn argument_types_without_a_json_form_are_refused() {
    for (ty, message) in [
        ("User", "`arguments.a` is of type `"),
        ("duration", "`arguments.a` is of type `duration`"),
        ("Set<Group>", "`arguments.a[]` is of type `"),
        ("{ b: { c: duration } }", "`arguments.a.b.c` is of type `duration`"),
        ("Mine", "`arguments.a.b` is of type `duration`"),
    ] {
        let schema = format!(
            "action \"bank/x\" in [call_tool] appliesTo {{ principal: [User], resource: [Tool], context: {{ request: Request, arguments: {{ a: {ty} }} }} }};\ntype Mine = {{ b: duration }};"
        );
        check_schema(&schema, "policy.schema:2:8", message);
    }
}

#[test]
fn types_that_explode_are_refused() {
    let mut schema = "type T0 = { a: Long };\n".to_owned();
    for n in 1..15 {
        schema += &format!("type T{n} = {{ a: T{0}, b: T{0} }};\n", n - 1);
    }
    schema += "action \"bank/x\" in [call_tool] appliesTo { principal: [User], resource: [Tool], context: { request: Request, arguments: T14 } };";
    check_schema(&schema, "policy.schema", "more than 1000 members");
}

#[test]
fn common_types_and_groups_may_be_declared_in_any_order() {
    let schema = "namespace MCP {
      action \"bank/x\" in [inner] appliesTo {
        principal: User, resource: Tool, context: Context };
      type Context = { request: MCP::Request, arguments: Arguments };
      type Arguments = { \"odd name\"?: __cedar::String, tags: Set<Long> };
      action inner in [outer]; action outer in [MCP::Action::\"call_tool\"];
    }";
    let config = PolicyConfig {
        schema: Some(schema.to_owned()),
        ..config(
            "@id(\"a\") permit(principal, action in MCP::Action::\"outer\", resource) when { context.arguments has \"odd name\" };",
        )
    };
    let engine = PolicyEngine::compile(&config, &servers())
        .unwrap_or_else(|problems| panic!("{}", texts(&problems).join("\n")));
    assert!(call(&engine, "bank/x", r#"{"odd name": "a", "tags": [1]}"#).is_permit());
    assert!(!call(&engine, "bank/x", r#"{"tags": [1]}"#).is_permit());
}

#[test]
fn entities_that_do_not_conform_are_refused() {
    let uid = |ty: &str, id: &str| json!({"type": format!("MCP::{ty}"), "id": id});
    for (entity, path, message) in [
        (json!(7), "policy.entities[0]", "an entity is an object"),
        (json!({"uid": "a"}), "policy.entities[0].uid", "type and id"),
        (json!({"uid": uid("Group", "a"), "tag": 1}), "policy.entities[0]", "unknown member `tag`"),
        (json!({"uid": uid("Group", "a"), "attrs": {"x": 1}}), "policy.entities[0]", "x"),
        (
            json!({"uid": uid("Group", "a"), "parents": [uid("Role", "b")]}),
            "policy.entities[0]",
            "Role",
        ),
        (json!({"uid": uid("Server", "nowhere")}), "policy.entities[0].uid", "unknown server"),
        (
            json!({"uid": uid("Server", "bank"), "attrs": {"region": 7}}),
            "policy.entities[0]",
            "region",
        ),
        (
            json!({"uid": uid("Server", "bank"), "attrs": {"regoin": "eu"}}),
            "policy.entities[0]",
            "regoin",
        ),
        (
            json!({"uid": uid("Server", "bank"), "attrs": {"name": "eu"}}),
            "policy.entities[0].attrs",
            "`name` follows",
        ),
        (
            json!({"uid": uid("Server", "bank"), "parents": [uid("Group", "a")]}),
            "policy.entities[0].parents",
            "only",
        ),
        (
            json!({"uid": uid("Tool", "bank/pay"), "attrs": {"read_only": "yes"}}),
            "policy.entities[0]",
            "read_only",
        ),
        (json!({"uid": uid("Tool", "nowhere/pay")}), "policy.entities[0].uid", "unknown server"),
        (json!({"uid": uid("Tool", "pay")}), "policy.entities[0].uid", "`server/tool`"),
        (json!({"uid": uid("User", "root")}), "policy.entities[0].uid", "not configured"),
        (json!({"uid": uid("Action", "root")}), "policy.entities[0].uid", "not configured"),
    ] {
        check_entity(entity, path, message);
    }
    let twice = json!({"uid": uid("Group", "a")});
    let config = PolicyConfig { entities: vec![twice.clone(), twice], ..config("") };
    check(&config, "policy.entities[1]", "declared twice");
}

#[test]
fn groups_that_lie_in_each_other_are_refused() {
    let group = |id: &str, parent: &str| {
        json!({"uid": {"type": "MCP::Group", "id": id},
               "parents": [{"type": "MCP::Group", "id": parent}]})
    };
    let config = PolicyConfig { entities: vec![group("a", "b"), group("b", "a")], ..config("") };
    check(&config, "policy.entities", "cycle");
}

#[test]
fn names_of_servers_and_of_the_set_are_checked() {
    let found = PolicyEngine::compile(&config(""), &["a/b".to_owned()]).unwrap_err();
    assert!(texts(&found).iter().any(|text| text.starts_with("servers: ")), "{found:?}");
    check(&PolicyConfig { name: "a@b".to_owned(), ..config("") }, "policy.name", "`@`");
}

#[test]
fn a_configuration_is_read_strictly_with_one_text_or_several() {
    let one: PolicyConfig = serde_json::from_value(json!({"name": "a", "policies": ""})).unwrap();
    assert!(matches!(one.policies, PolicyText::One(_)));
    let files = json!({"name": "a", "policies": {"a.cedar": ""}, "schema": null, "entities": []});
    let files: PolicyConfig = serde_json::from_value(files).unwrap();
    assert!(matches!(files.policies, PolicyText::Files(_)));
    let unknown = json!({"name": "a", "policies": "", "polices": ""});
    assert!(serde_json::from_value::<PolicyConfig>(unknown).is_err());
}

#[test]
fn the_version_names_everything_that_decides() {
    let all = "@id(\"a\") permit(principal, action, resource);";
    let version = |config: &PolicyConfig, servers: &[&str]| {
        let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
        PolicyEngine::compile(config, &servers).unwrap().version().to_owned()
    };
    let base = version(&config(all), &["files", "bank"]);
    assert!(base.starts_with("test@") && base.len() == 5 + 16, "{base}");
    assert_eq!(base, version(&config(all), &["bank", "files"]));
    let mut other = config(all);
    other.entities.pop();
    let mut versions = vec![
        base,
        version(&config(&format!("{all}\n")), &["files", "bank"]),
        version(&config(all), &["files", "bank", "more"]),
        version(&other, &["files", "bank"]),
    ];
    let schema = Some(format!("{SCHEMA}\n"));
    versions.push(version(&PolicyConfig { schema, ..config(all) }, &["files", "bank"]));
    versions.sort();
    versions.dedup();
    assert_eq!(versions.len(), 5);
}

#[test]
fn one_wrong_policy_among_many_is_found_and_only_that() {
    let tools = 80;
    let actions: String = (0..tools)
        .map(|tool| {
            format!(
                "action \"bank/tool-{tool}\" in [\"bank-write\"] appliesTo {{ principal: [User, Client, Anonymous], \
                 resource: [Tool], context: {{ request: Request, arguments: {{ amount: Long }} }} }};\n"
            )
        })
        .collect();
    let schema = SCHEMA.trim_end().strip_suffix('}').unwrap().to_owned() + &actions + "}";
    let policies = |wrong: &[(usize, &str)]| {
        let policy = |tool: usize| {
            let other = (tool + 40) % tools;
            let condition = match wrong.iter().find(|(place, _)| *place == tool) {
                Some((_, condition)) => (*condition).to_owned(),
                // An action that only all of the schema has.
                None if tool == 7 => format!("action != MCP::Action::\"bank/tool-{other}\""),
                None => "context.arguments.amount < 3".to_owned(),
            };
            format!(
                "@id(\"p{tool}\") permit(principal, action == MCP::Action::\"bank/tool-{tool}\", resource) when {{ {condition} }};\n"
            )
        };
        let config = PolicyConfig {
            schema: Some(schema.clone()),
            ..config(&(0..tools).map(policy).collect::<String>())
        };
        PolicyEngine::compile(&config, &servers()).map_err(|problems| texts(&problems))
    };
    assert!(policies(&[]).is_ok());
    let problems =
        policies(&[(33, "context.arguments.amount like \"3\""), (71, "false")]).unwrap_err();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].starts_with("policy.policies:34:"), "{problems:?}");
    assert!(problems[1].starts_with("policy.policies:72:"), "{problems:?}");
}
