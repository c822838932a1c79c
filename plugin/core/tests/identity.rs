//! What a configuration of `identity` must not say.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use serde_json::{Value, json};
use toolgate_core::Gateway;
#[cfg(all(target_family = "wasm", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// The paths of everything that is wrong with a configuration that has this `identity`.
fn problems(identity: &Value, more: &Value) -> Vec<String> {
    let mut document = json!({
        "servers": {"everything": {"cluster": "everything"}},
        "identity": identity,
        "policy": {"name": "none", "policies": ""},
    });
    for (key, value) in more.as_object().unwrap() {
        document[key] = value.clone();
    }
    match Gateway::compile(document.to_string().as_bytes(), &|_: &str| None) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.into_iter().map(|problem| problem.path).collect(),
    }
}

fn issuer() -> Value {
    let jwks: Value =
        serde_json::from_str(include_str!("../../../scripts/stack/demo-jwks.json")).unwrap();
    json!({"issuer": "https://idp.example", "algorithms": ["ES256"], "jwks": jwks})
}

#[test]
fn a_public_url_is_one_that_tokens_may_be_sent_to() {
    for url in [
        "https://mcp.example",
        "https://mcp.example:8443/gateway",
        "http://127.0.0.1:10000",
        "http://localhost:10000",
        "http://[::1]:10000",
    ] {
        let identity = json!({"public_url": url, "issuers": [issuer()]});
        assert_eq!(problems(&identity, &json!({})), [""; 0], "{url}");
    }
    for url in [
        "",
        "mcp.example",
        "ftp://mcp.example",
        "http://mcp.example",
        "https://mcp.example/",
        "https://mcp.example/a/",
        "https://mcp.example/../a",
        "https://mcp.example?x=1",
        "https://MCP.example",
        "https://user@mcp.example",
        "https://mcp.example/a\"b",
    ] {
        let identity = json!({"public_url": url, "issuers": [issuer()]});
        assert_eq!(problems(&identity, &json!({})), ["identity.public_url"], "{url}");
    }
}

#[test]
fn everything_wrong_is_said_at_once() {
    let mut odd = issuer();
    odd["issuer"] = json!("accounts");
    odd["algorithms"] = json!(["ES256", "HS256"]);
    odd["claims"] = json!({"tags": {"tenant": "tid"}});
    let identity = json!({
        "public_url": "https://mcp.example",
        "issuers": [odd],
        "scope_hierarchy": {"all": ["a b"]},
        "denied": {"token_digests": ["abc"]},
    });
    let more = json!({
        "servers": {"everything": {"cluster": "c", "scopes": {"required": ["offline_access"], "tools": {"echo": ["\""]}}}},
        "sessions": {"keys": [{"value": "short"}]},
    });
    let mut found = problems(&identity, &more);
    found.sort();
    assert_eq!(
        found,
        [
            "identity.denied.token_digests[0]",
            "identity.issuers[0].algorithms[1]",
            "identity.issuers[0].claims",
            "identity.issuers[0].issuer",
            "identity.scope_hierarchy.all",
            "servers.everything.scopes.required",
            "servers.everything.scopes.tools.echo",
            "sessions.keys[0]",
        ]
    );
}

#[test]
fn without_a_public_url_an_audience_has_to_be_named() {
    let identity = json!({"issuers": [issuer()]});
    assert_eq!(problems(&identity, &json!({})), ["identity.issuers[0].audiences"]);
}
