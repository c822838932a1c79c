//! Published vectors through the gateway's own verification: header, choice of key, signature. What
//! they are and where they are from: tests/vectors/README.md.

use serde_json::{Value, json};
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

const ALL: &[&str] =
    &["ES256", "ES384", "EdDSA", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512"];

/// An issuer with this key alone, or what is wrong with the key.
fn issuer(key: &Value, algorithms: &[&str]) -> Result<Issuer, Vec<Problem>> {
    let config = json!({
        "issuer": "https://idp.example", "audiences": ["a"], "algorithms": algorithms, "jwks": {"keys": [key]},
    });
    let mut problems = Vec::new();
    let config = serde_json::from_value(config).unwrap();
    let issuer = Issuer::compile(config, &mut |_, _| None, false, "i", &mut problems);
    if problems.is_empty() { Ok(issuer) } else { Err(problems) }
}

/// Whether the issuer accepts a JWS whose payload may be anything.
fn accepts(issuer: &Issuer, jws: &str) -> bool {
    let parts: Vec<&str> = jws.split('.').collect();
    let [header, payload, signature] = parts.as_slice() else { return false };
    let Ok(header) = segment(header, "header") else { return false };
    let end = jws.len() - signature.len() - 1;
    let signed = jws.get(..end).unwrap();
    assert!(signed.ends_with(payload));
    let token = Parsed { signed, signature, header, claims: Json::Object(Default::default()) };
    let Ok(signer) = issuer.check_header(&token) else { return false };
    issuer.check_signature(&token, &signer, &Facts::default(), Timestamp::default()).is_ok()
}

fn hexadecimal(text: &Value) -> Vec<u8> {
    let digits = text.as_str().unwrap();
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(digits.get(at..at + 2).unwrap(), 16).unwrap())
        .collect()
}

/// What a group of cases says of one case.
fn groups(text: &str) -> Vec<Value> {
    let file: Value = serde_json::from_str(text).unwrap();
    file["groups"].as_array().unwrap().clone()
}

#[test]
fn the_examples_of_the_standards_are_accepted_or_refused() {
    let (mut accepted, mut refused) = (0, 0);
    for group in groups(include_str!("../../../../../tests/vectors/rfc.json")) {
        let about = &group["about"];
        let issuer = issuer(&group["key"], ALL);
        let jws = group["cases"][0][2].as_str().unwrap();
        let accepts = |jws| issuer.as_ref().is_ok_and(|issuer| accepts(issuer, jws));
        if group["cases"][0][3] == "refused" {
            assert!(!accepts(jws), "{about}");
            refused += 1;
            continue;
        }
        assert!(accepts(jws), "{about}");
        let mut changed: Vec<&str> = jws.split('.').collect();
        let other = format!("{}A", changed[1]);
        changed[1] = &other;
        assert!(!accepts(&changed.join(".")), "{about}");
        accepted += 1;
    }
    assert_eq!((accepted, refused), (5, 5));
}

#[test]
fn wycheproofs_signed_texts_are_accepted_or_refused_as_it_says() {
    let text = include_str!("../../../../../tests/vectors/wycheproof/json_web_signature.json");
    let (mut accepted, mut refused) = (0, 0);
    for group in groups(text) {
        let issuer = issuer(&group["key"], ALL);
        for case in group["cases"].as_array().unwrap() {
            let (jws, result) = (case[2].as_str().unwrap(), case[3].as_str().unwrap());
            let accepts = issuer.as_ref().is_ok_and(|issuer| accepts(issuer, jws));
            let why = format!("{} {}", group["about"], case);
            match (accepts, result) {
                (true, "valid") => accepted += 1,
                (false, "invalid") => refused += 1,
                // Symmetric keys and P-521 are not accepted for anything here, and a key that names its
                // algorithm for no other (RFC 7517 section 4.4).
                (false, "valid" | "acceptable") => {
                    let own = group["algorithm"].as_str().unwrap();
                    let said = segment(jws.split('.').next().unwrap(), "header");
                    let said = said.ok().and_then(|said| Some(said.get("alg")?.as_str()? != own));
                    let other = said.unwrap_or(false);
                    assert!(
                        !ALL.contains(&own) || other || result == "acceptable",
                        "refused: {why}"
                    );
                    refused += 1;
                }
                _ => panic!("accepted: {why}"),
            }
        }
    }
    assert!(accepted >= 30 && refused >= 300, "{accepted} accepted, {refused} refused");
}

#[test]
fn wycheproofs_signatures_are_accepted_or_refused_as_it_says() {
    for text in [
        include_str!("../../../../../tests/vectors/wycheproof/ecdsa_p256_sha256.json"),
        include_str!("../../../../../tests/vectors/wycheproof/ecdsa_p384_sha384.json"),
        include_str!("../../../../../tests/vectors/wycheproof/ed25519.json"),
        include_str!("../../../../../tests/vectors/wycheproof/rsa_2048_sha256.json"),
        include_str!("../../../../../tests/vectors/wycheproof/rsa_pss_2048_sha256.json"),
    ] {
        let (mut accepted, mut refused) = (0, 0);
        for group in groups(text) {
            let name = group["algorithm"].as_str().unwrap();
            let issuer = issuer(&group["key"], &[name]);
            for case in group["cases"].as_array().unwrap() {
                let result = case[4].as_str().unwrap();
                let signature = URL_SAFE_NO_PAD.encode(hexadecimal(&case[3]));
                let made = issuer.as_ref().is_ok_and(|issuer| match &issuer.source {
                    Source::Keys(keys) => {
                        let algorithm = algorithm(name).unwrap();
                        keys.verify(None, algorithm, &hexadecimal(&case[2]), &signature)
                    }
                    _ => false,
                });
                match (made, result) {
                    (true, "valid") => accepted += 1,
                    (false, "invalid" | "acceptable") => refused += 1,
                    _ => panic!("{name} {result} {made}: {case}"),
                }
            }
        }
        assert!(accepted > 5 && refused > 30, "{accepted} accepted, {refused} refused");
    }
}
