//! The example configurations are what they say: the documented policies, and wiring that fails
//! closed even without the filter.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use serde_json::{Value, json};
use toolgate_harness::{configuration, repository};

fn kong() -> Value {
    serde_saphyr::from_str(&repository::read("kong/kong.yml").unwrap()).unwrap()
}

fn plugins() -> [(&'static str, Value); 2] {
    let kong = kong()["services"][0]["filter_chains"][0]["filters"][0]["config"].clone();
    [("envoy.yaml", configuration::plugin(None).unwrap()), ("kong.yml", kong)]
}

#[test]
fn the_policies_in_the_examples_are_the_ones_in_policies() {
    let trimmed = |text: &str| text.trim().to_owned();
    for (file, plugin) in plugins() {
        let policy = &plugin["policy"];
        for (found, source) in [
            (&policy["policies"]["demo.cedar"], "policies/demo.cedar"),
            (&policy["schema"], "policies/demo.cedarschema"),
        ] {
            let text = repository::read(source).unwrap();
            assert_eq!(trimmed(found.as_str().unwrap()), trimmed(&text), "{file}: {source}");
        }
        let entities: Value =
            serde_json::from_str(&repository::read("policies/demo.entities.json").unwrap())
                .unwrap();
        assert_eq!(policy["entities"], entities, "{file}");
    }
}

#[test]
fn the_examples_compile() {
    for (file, plugin) in plugins() {
        let compiled = toolgate_harness::native::gateway(&plugin);
        assert!(compiled.is_ok(), "{file}: {:?}", compiled.err());
    }
}

#[test]
fn envoy_has_no_way_to_a_server_but_by_the_header_that_only_the_filter_sets() {
    let bootstrap = configuration::bootstrap().unwrap();
    let manager = &bootstrap["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]
        ["typed_config"];
    let removed = &manager["early_header_mutation_extensions"][0]["typed_config"]["mutations"];
    assert_eq!(*removed, json!([{"remove": "x-toolgate-upstream"}]));
    let wasm = &manager["http_filters"][0]["typed_config"]["config"];
    assert_eq!(wasm["failure_policy"], "FAIL_CLOSED");
    assert_eq!(wasm["allow_on_headers_stop_iteration"], true);
    let routes = manager["route_config"]["virtual_hosts"][0]["routes"].as_array().unwrap();
    let (chosen, rest) = routes.split_first().unwrap();
    assert_eq!(chosen["match"]["headers"][0]["name"], "x-toolgate-upstream");
    assert_eq!(chosen["route"]["cluster_header"], "x-toolgate-upstream");
    assert!(!rest.is_empty());
    for route in rest {
        assert!(route.get("route").is_none(), "{route}");
        assert_eq!(route["direct_response"]["status"], 503);
    }
}

#[test]
fn envoy_holds_more_than_the_gateway_reads() {
    let bootstrap = configuration::bootstrap().unwrap();
    let held =
        bootstrap["static_resources"]["listeners"][0]["per_connection_buffer_limit_bytes"].as_u64();
    let read = configuration::plugin(None).unwrap()["limits"]["request_bytes"].as_u64();
    assert!(held > read, "{held:?} {read:?}");
}

#[test]
fn kong_has_no_way_to_a_server_but_by_the_target_that_only_the_filter_sets() {
    assert_eq!(kong()["services"][0]["url"], "http://127.0.0.1:9");
}
