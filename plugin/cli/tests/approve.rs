//! `toolgate approve`: what it signs, and what it does not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod common;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::{fixture, text};
use p256::ecdsa::signature::Verifier as _;
use p256::ecdsa::{Signature, VerifyingKey};
use serde_json::{Value, json};

const ARGUMENTS: &str = r#"{"amount": 500, "invoice": "INV-1"}"#;

/// `toolgate approve` with these options in place of the right ones.
fn approve(changes: &[(&str, &str)]) -> (String, i32) {
    let mut options = vec![
        ("--key", fixture("approvals/demo-approver.pem")),
        ("--arguments", ARGUMENTS.to_owned()),
        ("--issuer", "https://approvals.example".to_owned()),
        ("--approver", "carol".to_owned()),
        ("--group", "finance-leads".to_owned()),
    ];
    for (name, value) in changes {
        options.retain(|(known, _)| known != name);
        options.push((name, (*value).to_owned()));
    }
    let request = fixture("approvals/refused.json");
    let mut words = vec!["approve", request.as_str()];
    words.extend(options.iter().flat_map(|(name, value)| [*name, value.as_str()]));
    text(&words)
}

fn part(token: &str, index: usize) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(token.trim().split('.').nth(index).unwrap()).unwrap()
}

#[test]
fn an_approval_says_what_the_refusal_demands_and_is_signed_with_the_key() {
    let (token, code) = approve(&[]);
    assert_eq!(code, 0, "{token}");
    let header: Value = serde_json::from_slice(&part(&token, 0)).unwrap();
    assert_eq!(header, json!({"typ": "toolgate-approval+jwt", "alg": "ES256"}));
    let claims: Value = serde_json::from_slice(&part(&token, 1)).unwrap();
    let refused = std::fs::read_to_string(fixture("approvals/refused.json")).unwrap();
    let refused: Value = serde_json::from_str(&refused).unwrap();
    assert_eq!(claims["approval"], refused["error"]["data"]["approval"]);
    assert_eq!(
        (&claims["iss"], &claims["aud"], &claims["sub"], &claims["groups"]),
        (
            &json!("https://approvals.example"),
            &json!("https://mcp.example"),
            &json!("carol"),
            &json!(["finance-leads"])
        )
    );
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 300);
    assert_ne!(claims["jti"], {
        let again: Value = serde_json::from_slice(&part(&approve(&[]).0, 1)).unwrap();
        again["jti"].clone()
    });

    let key = fixture("approvals/demo-approver.pem");
    let (set, code) = text(&["approve", "--key", &key, "--jwks"]);
    assert_eq!(code, 0, "{set}");
    let set: Value = serde_json::from_str(&set).unwrap();
    let coordinate =
        |name: &str| URL_SAFE_NO_PAD.decode(set["keys"][0][name].as_str().unwrap()).unwrap();
    let point = [vec![4], coordinate("x"), coordinate("y")].concat();
    let signed = token.trim().rsplit_once('.').unwrap().0.to_owned();
    let signature = Signature::from_slice(&part(&token, 2)).unwrap();
    VerifyingKey::from_sec1_bytes(&point).unwrap().verify(signed.as_bytes(), &signature).unwrap();
}

#[test]
fn what_the_gateway_would_refuse_is_not_signed() {
    for (option, value, problem) in [
        ("--arguments", r#"{"amount": 501, "invoice": "INV-1"}"#, "not the arguments of the call"),
        ("--arguments", "{", "--arguments"),
        ("--issuer", "https://elsewhere.example", "takes no approvals of"),
        ("--group", "security", "one of these is needed: finance-leads"),
        ("--seconds", "601", "at most 600 seconds"),
        ("--key", "Cargo.toml", "not a private key of the curve P-256"),
    ] {
        let (told, code) = approve(&[(option, value)]);
        assert_eq!(code, 2, "{told}");
        assert!(told.contains(problem), "{option} {value}: {told}");
        assert!(!told.contains("eyJ"), "{told}");
    }
}
