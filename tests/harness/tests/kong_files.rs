//! What stands in `kong/`, `docs/kong.md` and the filter's source is what it says.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};
use toolgate_harness::host::KongRules;
use toolgate_harness::kong_proxy::{example_service, own_service, settings};
use toolgate_harness::scenario::{DriverKind, read_all};
use toolgate_harness::{configuration, kong_meta, native, repository};

fn yaml(file: &str) -> Value {
    serde_saphyr::from_str(&repository::read(file).unwrap()).unwrap()
}

/// The filter's configuration in the example for filter chains, and in the one for plugins.
fn examples() -> [(&'static str, Value); 2] {
    let chain = "/services/0/filter_chains/0/filters/0/config";
    let plugin = "/services/0/routes/0/plugins/0/config";
    [("kong/kong.yml", chain), ("kong/kong-plugin.yml", plugin)]
        .map(|(file, at)| (file, yaml(file).pointer(at).unwrap().clone()))
}

// === kong/ ===

#[test]
fn the_meta_file_is_made_from_the_types() {
    let committed = repository::read("kong/toolgate.meta.json").unwrap();
    assert!(
        committed == kong_meta::text(),
        "the configuration's types have changed; run this and commit the result:\n\
         cargo run --locked -q -p toolgate-harness --bin kong-meta >target/meta.json && \
         mv target/meta.json kong/toolgate.meta.json"
    );
}

#[test]
fn the_schema_speaks_draft_4_only() {
    const WORDS: &[&str] = &[
        "$schema",
        "additionalProperties",
        "anyOf",
        "default",
        "description",
        "enum",
        "items",
        "minimum",
        "oneOf",
        "properties",
        "required",
        "type",
    ];
    fn check(schema: &Value) {
        for (word, value) in schema.as_object().unwrap() {
            assert!(WORDS.contains(&word.as_str()), "{word} in {schema}");
            match word.as_str() {
                "properties" => value.as_object().unwrap().values().for_each(check),
                "anyOf" | "oneOf" => value.as_array().unwrap().iter().for_each(check),
                "items" => check(value),
                "additionalProperties" if value.is_object() => check(value),
                _ => {}
            }
        }
    }
    check(&kong_meta::schema());
}

#[test]
fn both_examples_say_the_same_and_fail_closed() {
    let [(_, chain), (_, plugin)] = examples();
    assert_eq!(chain, plugin);
    for file in ["kong/kong.yml", "kong/kong-plugin.yml"] {
        let service = &yaml(file)["services"][0];
        assert_eq!(service["url"], "http://127.0.0.1:9", "{file}: nobody listens at port 9");
        assert_eq!(service["retries"], 0, "{file}: a retry asks a server twice");
        let names = [
            &service["filter_chains"][0]["filters"][0]["name"],
            &service["routes"][0]["plugins"][0]["name"],
        ];
        assert!(names.contains(&&json!("toolgate")), "{file}");
    }
}

#[test]
fn servers_on_several_machines_have_a_service_for_each_and_one_configuration() {
    let document = yaml("kong/several-machines.yml");
    let shared = &document["_ignore"][0];
    let problems = invalid(&kong_meta::schema(), shared, "several-machines.yml");
    assert!(problems.is_empty(), "{problems:?}");
    let compiled = native::gateway(shared);
    assert!(compiled.is_ok(), "{:?}", compiled.err());
    let mut reached = BTreeSet::new();
    for service in document["services"].as_array().unwrap() {
        assert_eq!(service["retries"], 0);
        assert_eq!(service["filter_chains"][0]["filters"][0]["config"], *shared);
        let path = service["routes"][0]["paths"][0].as_str().unwrap();
        let server = path.strip_prefix("/mcp/").unwrap();
        let (host, _) =
            shared["servers"][server]["cluster"].as_str().unwrap().split_once(':').unwrap();
        let scheme = shared["servers"][server]["scheme"].as_str().unwrap_or("http");
        assert_eq!(
            service["url"],
            format!("{scheme}://{host}:9"),
            "{server}: its machine, and nobody there"
        );
        assert_eq!(service["tls_verify"].as_bool().unwrap_or(false), scheme == "https", "{server}");
        reached.insert(server);
    }
    let servers = shared["servers"].as_object().unwrap();
    assert_eq!(reached, servers.keys().map(String::as_str).collect::<BTreeSet<_>>());
}

#[test]
fn kong_accepts_the_examples_and_the_filter_what_kong_makes_of_them() {
    for (file, plugin) in examples() {
        let problems = invalid(&kong_meta::schema(), &plugin, file);
        assert!(problems.is_empty(), "{problems:?}");
        let compiled = native::gateway(&plugin);
        assert!(compiled.is_ok(), "{file}: {:?}", compiled.err());
    }
}

#[test]
fn kong_accepts_the_configuration_of_every_scenario() {
    for scenario in read_all(&repository::path("tests/scenarios")).unwrap() {
        let mut plugin = configuration::plugin(scenario.configuration.as_ref()).unwrap();
        if plugin.get("policy_bundle").is_some() {
            continue;
        }
        configuration::adapt_to_kong(&mut plugin, |_| Some("127.0.0.1:1".into()));
        let problems = invalid(&kong_meta::schema(), &plugin, &scenario.name);
        assert!(problems.is_empty(), "{problems:?}");
    }
}

#[test]
fn kong_refuses_a_configuration_of_the_wrong_shape() {
    let [(_, good), _] = examples();
    for patch in [
        json!({"servers": {"everything": {"cluster": 7}}}),
        json!({"servers": {"everything": {"scheme": "ftp"}}}),
        json!({"colour": "red"}),
        json!({"policy": null}),
        json!({"policy_bundle": {"cluster": "127.0.0.1:1", "path": "/"}}),
        json!({"limits": {"request_bytes": -1}}),
        json!({"vaults": {"main": {"login": {"password": {"value": "x"}}}}}),
    ] {
        let mut plugin = good.clone();
        configuration::merge(&mut plugin, &patch);
        assert!(!invalid(&kong_meta::schema(), &plugin, "").is_empty(), "{patch}");
    }
}

#[test]
fn kong_conf_lets_the_filter_see_every_body_and_share_its_counters() {
    let conf = repository::read("kong/kong.conf").unwrap();
    let lines: BTreeMap<&str, &str> = conf
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(" = "))
        .collect();
    let mebibytes =
        |name: &str| lines[name].strip_suffix('m').unwrap().parse::<u64>().unwrap() << 20;
    let [(_, plugin), _] = examples();
    let most = plugin["limits"]["request_bytes"].as_u64().unwrap();
    assert!(mebibytes("nginx_http_client_body_buffer_size") >= most);
    assert!(mebibytes("nginx_http_client_max_body_size") > most, "the filter answers, not nginx");
    assert_eq!((lines["wasm"], lines["log_level"]), ("on", "info"));
    // Without a zone, what counters share makes the filter fail.
    assert!(mebibytes("nginx_wasm_shm_kv") >= 16 << 20);
}

/// What a validator of draft-4 finds, as far as the schema uses it.
fn invalid(schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let is = |kind: &str| match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        _ => value.is_object(),
    };
    match &schema["type"] {
        Value::String(kind) if !is(kind) => problems.push(format!("{at} is no {kind}")),
        Value::Array(kinds) if !kinds.iter().any(|kind| is(kind.as_str().unwrap())) => {
            problems.push(format!("{at} is none of {kinds:?}"));
        }
        _ => {}
    }
    if schema["enum"].as_array().is_some_and(|values| !values.contains(value)) {
        problems.push(format!("{at} is none of {}", schema["enum"]));
    }
    if let (Some(least), Some(number)) = (schema["minimum"].as_f64(), value.as_f64())
        && number < least
    {
        problems.push(format!("{at} is below {least}"));
    }
    for (word, most) in [("anyOf", usize::MAX), ("oneOf", 1)] {
        if let Some(schemas) = schema[word].as_array() {
            let fitting =
                schemas.iter().filter(|schema| invalid(schema, value, at).is_empty()).count();
            if fitting == 0 || fitting > most {
                problems.push(format!("{at} fits {fitting} of {word}"));
            }
        }
    }
    if let Some(elements) = value.as_array().filter(|_| schema["items"].is_object()) {
        for element in elements {
            problems.extend(invalid(&schema["items"], element, &format!("{at}[]")));
        }
    }
    if let Some(members) = value.as_object() {
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !members.contains_key(name) {
                problems.push(format!("{at} has no {name}"));
            }
        }
        for (name, member) in members {
            let at = format!("{at}.{name}");
            match (schema["properties"].get(name), &schema["additionalProperties"]) {
                (Some(schema), _) => problems.extend(invalid(schema, member, &at)),
                (None, Value::Bool(false)) => problems.push(format!("{at} is not known")),
                (None, schema) if schema.is_object() => {
                    problems.extend(invalid(schema, member, &at))
                }
                _ => {}
            }
        }
    }
    problems
}

// === scripts/kong ===

#[test]
fn a_scenarios_service_is_the_examples_with_its_own_host_and_configuration() {
    let example = example_service().unwrap();
    let own = own_service(&example, 7, "scenario-7.test", json!({"servers": {}}));
    assert_eq!(own["url"], example["url"]);
    assert_eq!(own["retries"], example["retries"]);
    assert_eq!(own["routes"][0]["hosts"], json!(["scenario-7.test"]));
    assert_eq!(own["routes"][0]["paths"], json!(["/"]));
    assert_eq!(own["routes"][0]["strip_path"], false);
    let filter = &own["filter_chains"][0]["filters"][0];
    assert_eq!(*filter, json!({"name": "toolgate", "config": {"servers": {}}}));
}

#[test]
fn a_tested_kong_listens_on_loopback_only() {
    for (name, value) in settings(Path::new("/folder"), 4711) {
        if name.ends_with("_LISTEN") {
            assert!(value == "off" || value == "127.0.0.1:4711", "{name}={value}");
        }
    }
}

// === the filter's source ===

fn filter_sources() -> Vec<(String, String)> {
    let folder = repository::path("plugin/filter/src");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.map(|file| (file.display().to_string(), std::fs::read_to_string(file).unwrap())).collect()
}

#[test]
fn the_filter_calls_nothing_of_the_sdk_that_panics() {
    let manifest = repository::read("plugin/filter/Cargo.toml").unwrap();
    for lint in ["unwrap_used", "expect_used", "panic", "indexing_slicing", "string_slice"] {
        assert!(manifest.contains(&format!("{lint} = \"deny\"")), "{lint}");
    }
    for (file, text) in filter_sources() {
        // The one call whose tokens the SDK's dispatcher has to know.
        let text = text.replace("hostcalls::dispatch_http_call(", "");
        for word in [
            "hostcalls::",
            "self.get_http",
            "self.set_http",
            "self.add_http",
            "self.remove_http",
            "self.send_http",
            "self.resume_http",
            "self.dispatch_http",
            "self.get_property",
            "self.set_property",
            "self.get_current_time",
            "self.get_plugin",
            "self.set_tick",
            "self.get_shared",
            "self.set_shared",
            "unreachable!",
            "assert!",
            "assert_eq!",
        ] {
            assert!(!text.contains(word), "{file}: {word}");
        }
    }
}

#[test]
fn the_filter_declares_only_the_calls_it_makes() {
    const IMPORTS: &[&str] = &[
        "proxy_continue_stream",
        "proxy_define_metric",
        "proxy_get_buffer_bytes",
        "proxy_get_current_time_nanoseconds",
        "proxy_get_header_map_pairs",
        "proxy_get_property",
        "proxy_get_shared_data",
        "proxy_increment_metric",
        "proxy_record_metric",
        "proxy_remove_header_map_value",
        "proxy_replace_header_map_value",
        "proxy_send_local_response",
        "proxy_set_buffer_bytes",
        "proxy_set_effective_context",
        "proxy_set_property",
        "proxy_set_shared_data",
        "proxy_set_tick_period_milliseconds",
    ];
    let mut declared = BTreeSet::new();
    for (file, text) in filter_sources() {
        for line in text.lines().filter_map(|line| line.strip_prefix("    fn proxy_")) {
            assert!(file.ends_with("abi.rs"), "{file} declares proxy_{line}");
            declared.insert(format!("proxy_{}", line.split('(').next().unwrap()));
        }
    }
    assert_eq!(declared.iter().map(String::as_str).collect::<Vec<_>>(), IMPORTS);
    let wasm = std::fs::read(repository::path("target/toolgate.wasm")).unwrap_or_default();
    let holds = |name: &str| wasm.windows(name.len()).any(|window| window == name.as_bytes());
    assert!(!holds("proxy_get_log_level"), "Kong refuses to load a filter that imports it");
}

#[test]
fn the_filter_reads_and_sets_known_properties_only() {
    const KNOWN: &[&str] = &[
        // Read on Envoy only.
        r"connection\0sha256_peer_certificate_digest",
        r"kong\0ctx\0shared\0toolgate",
        r"kong\0router\0service",
        r"kong\0service\0request\0scheme",
        r"kong\0service\0target",
        r"kong\0version",
        r"ngx\0upstream_host",
        r"ngx\0upstream_uri",
        r"source\0address",
    ];
    let mut named = BTreeSet::new();
    for (_, text) in filter_sources() {
        let strings = text.split('"').filter(|part| part.contains(r"\0") && !part.contains(' '));
        named.extend(strings.map(str::to_owned));
    }
    assert_eq!(named.iter().map(String::as_str).collect::<Vec<_>>(), KNOWN);
}

// === docs/kong.md ===

/// The cells of every table row whose first cell is a name in backticks.
fn rows(text: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| {
        let line = line.strip_prefix("| `")?;
        Some(line.trim_end_matches(" |").split(" | ").map(|cell| cell.replace('`', "")).collect())
    };
    text.lines().filter_map(cells).collect()
}

/// Every test function of these files.
fn tests_in(files: &[&str]) -> BTreeSet<String> {
    let text: String = files.iter().map(|file| repository::read(file).unwrap()).collect();
    let named = text.split("#[test]").skip(1).filter_map(|rest| rest.trim().strip_prefix("fn "));
    named.filter_map(|rest| rest.split('(').next()).map(str::to_owned).collect()
}

#[test]
fn every_rule_stands_in_the_table_with_what_guards_it() {
    let text = repository::read("docs/kong.md").unwrap();
    let table: BTreeMap<String, Vec<String>> = rows(&text)
        .into_iter()
        .filter(|row| row.len() == 5)
        .map(|row| (row[0].clone(), row))
        .collect();
    let rules: BTreeSet<&str> = KongRules::NAMES.iter().copied().collect();
    assert_eq!(table.keys().map(String::as_str).collect::<BTreeSet<_>>(), rules);
    let harness = "tests/harness/tests";
    let host = ["kong", "kong_response", "loading"].map(|file| format!("{harness}/host/{file}.rs"));
    let host = tests_in(&host.each_ref().map(String::as_str));
    let files = ["kong_rules", "kong_files"].map(|file| format!("{harness}/{file}.rs"));
    let mut guards = tests_in(&files.each_ref().map(String::as_str));
    let scenarios = read_all(&repository::path("tests/scenarios")).unwrap();
    let played = scenarios.into_iter().filter(|scenario| scenario.is_for(DriverKind::WasmKong));
    guards.extend(played.map(|scenario| scenario.name));
    for (rule, row) in &table {
        assert!(host.contains(&row[3]), "{rule}: there is no host test {}", row[3]);
        assert!(guards.contains(&row[4]), "{rule}: nothing guards it under the name {}", row[4]);
    }
}

#[test]
fn what_the_plugin_feels_is_written_down_for_every_rule() {
    let text = repository::read("docs/kong-felt.md").unwrap();
    let (_, table) = text.split_once("|---|---|").unwrap();
    let written: BTreeSet<String> = rows(table).into_iter().map(|row| row[0].clone()).collect();
    let rules: BTreeSet<String> = KongRules::NAMES.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(
        written, rules,
        "cargo run --locked -q -p toolgate-harness --bin kong-felt >target/felt.md && mv target/felt.md docs/kong-felt.md"
    );
}

#[test]
fn every_scenario_that_does_not_apply_is_listed_with_the_reason() {
    let text = repository::read("docs/kong.md").unwrap();
    let (_, list) = text.split_once("## Scenarios that do not apply").unwrap();
    let listed: BTreeMap<String, String> =
        rows(list).into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    let mut left_out = BTreeMap::new();
    for scenario in read_all(&repository::path("tests/scenarios")).unwrap() {
        let missing: Vec<&str> = [("wasm_kong", DriverKind::WasmKong), ("kong", DriverKind::Kong)]
            .into_iter()
            .filter(|(_, driver)| !scenario.is_for(*driver))
            .filter(|(_, driver)| match driver {
                DriverKind::WasmKong => !scenario.fires_the_timer(),
                _ => !scenario.moves_the_clock(),
            })
            .map(|(name, _)| name)
            .collect();
        if !missing.is_empty() {
            left_out.insert(scenario.name, missing.join(", "));
        }
    }
    assert_eq!(listed, left_out);
}
