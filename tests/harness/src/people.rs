//! Tokens: of the demo's people, and broken in every way that has to be refused.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac as _};
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::scenario::{Altered, ApprovalScript};
use crate::{configuration, repository};

/// A key that is not the demo's.
const OTHER_KEY: [u8; 32] = [7; 32];

/// The key that signs proofs of possession; its thumbprint is in the scenarios.
const PROOF_KEY: [u8; 32] = [9; 32];

/// The key that signs approvals; its public half is in the scenarios.
const APPROVAL_KEY: [u8; 32] = [11; 32];

/// Signs tokens with the demo's key, which signs nothing else.
pub struct Issuer {
    key: SigningKey,
    other: SigningKey,
}

/// The public half of the key that signs `new-key` tokens.
#[must_use]
pub fn new_key() -> Value {
    let mut key = public_key(&OTHER_KEY);
    key["kid"] = json!("demo-2027");
    key
}

/// The public half of the key that signs approvals.
#[must_use]
pub fn approval_key() -> Value {
    public_key(&APPROVAL_KEY)
}

/// An approval by carol of what a refusal demands: the `data` of its error.
///
/// # Errors
/// When nothing was demanded.
pub fn approval(demand: &Value, script: &ApprovalScript, now: Duration) -> Result<String, String> {
    static MADE: AtomicU64 = AtomicU64::new(0);
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    let approval = demand.get("approval").ok_or("nothing was refused for want of an approval")?;
    let made = i64::try_from(now.as_secs()).map_err(|error| error.to_string())? + script.made;
    let mut header = json!({"typ": demand["typ"], "alg": "ES256", "kid": "approvals-2026"});
    let mut claims = json!({
        "iss": demand["issuers"][0],
        "aud": demand["aud"],
        "sub": "carol",
        "groups": demand.get("groups"),
        "iat": made,
        "exp": made + 300,
        "jti": format!("{}-{number}", now.as_nanos()),
        "approval": approval,
    });
    for (part, patch) in [(&mut claims, &script.claims), (&mut header, &script.header)] {
        if let Some(patch) = patch {
            configuration::merge(part, patch);
        }
    }
    signed(&header, &claims, if script.forged { &OTHER_KEY } else { &APPROVAL_KEY })
}

fn signed(header: &Value, claims: &Value, key: &[u8; 32]) -> Result<String, String> {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", encode(header), encode(claims));
    let key = SigningKey::from_slice(key).map_err(|error| error.to_string())?;
    let signature: Signature = key.sign(signed.as_bytes());
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes())))
}

fn public_key(secret: &[u8; 32]) -> Value {
    let key = SigningKey::from_slice(secret).ok();
    let point = key.map(|key| key.verifying_key().to_encoded_point(false));
    let part = |bytes: Option<&[u8]>| URL_SAFE_NO_PAD.encode(bytes.unwrap_or_default());
    let x = point.as_ref().and_then(|point| point.x()).map(|x| &**x);
    let y = point.as_ref().and_then(|point| point.y()).map(|y| &**y);
    json!({"kty": "EC", "crv": "P-256", "x": part(x), "y": part(y)})
}

/// A proof (RFC 9449 section 4.2) that whoever holds this token makes this request.
///
/// # Errors
/// When the key is not usable, which it is.
pub fn proof(
    token: &str,
    method: &str,
    url: &str,
    altered: &Altered,
    now: Duration,
) -> Result<String, String> {
    static MADE: AtomicU64 = AtomicU64::new(0);
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    let mut header = json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": public_key(&PROOF_KEY)});
    let mut claims = json!({
        "jti": format!("{}-{number}", now.as_nanos()),
        "htm": method,
        "htu": url,
        "iat": now.as_secs(),
        "ath": URL_SAFE_NO_PAD.encode(Sha256::digest(token)),
    });
    for (part, patch) in [(&mut claims, &altered.claims), (&mut header, &altered.header)] {
        if let Some(patch) = patch {
            configuration::merge(part, patch);
        }
    }
    signed(&header, &claims, &PROOF_KEY)
}

impl Issuer {
    /// The demo's issuer.
    ///
    /// # Errors
    /// What is wrong with the key's file.
    pub fn demo() -> Result<Self, String> {
        let text = repository::read("scripts/stack/demo-key.json")?;
        let key: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let secret = key.get("d").and_then(Value::as_str).ok_or("the demo key has no d")?;
        let secret = URL_SAFE_NO_PAD.decode(secret).map_err(|error| error.to_string())?;
        let key = SigningKey::from_slice(&secret).map_err(|error| error.to_string())?;
        let other = SigningKey::from_slice(&OTHER_KEY).map_err(|error| error.to_string())?;
        Ok(Self { key, other })
    }

    /// The token that a scenario means by `name`, at this time: a person's name, or a person's name
    /// with what is wrong after a colon: `alice:expired`.
    ///
    /// # Errors
    /// When there is no such kind of token.
    pub fn token(&self, name: &str, altered: &Altered, now: Duration) -> Result<String, String> {
        let (person, fault) = name.split_once(':').unwrap_or((name, ""));
        let now = now.as_secs();
        let groups = match person {
            "alice" => json!(["finance"]),
            "bob" => json!(["engineering"]),
            _ => json!([]),
        };
        let mut claims = json!({
            "iss": "https://idp.demo.toolgate.example",
            "aud": "http://127.0.0.1:10000/mcp",
            "sub": person,
            "client_id": "demo-agent",
            "groups": groups,
            "scope": "mcp:tools",
            "iat": now,
            "exp": now + 3600,
        });
        let mut header = json!({"alg": "ES256", "kid": "demo-2026", "typ": "at+jwt"});
        let mut key = &self.key;
        match fault {
            "" => {}
            "short-lived" => claims["exp"] = json!(now + 60),
            "expired" => claims["exp"] = json!(now - 3600),
            "early" => claims["nbf"] = json!(now + 3600),
            "other-audience" => claims["aud"] = json!("https://elsewhere.example"),
            "other-issuer" => claims["iss"] = json!("https://elsewhere.example"),
            "no-expiry" => claims["exp"] = Value::Null,
            "walking" => claims["sub"] = json!("x/../alice"),
            "no-subject" => claims["sub"] = json!(""),
            "groups-as-text" => claims["groups"] = json!("finance"),
            "forged" => key = &self.other,
            "unknown-key" => header["kid"] = json!("other"),
            "id-token" => header["typ"] = json!("oauth-id-jag+jwt"),
            "critical" => header["crit"] = json!(["b64"]),
            "unsigned" => header["alg"] = json!("none"),
            "symmetric" => header["alg"] = json!("HS256"),
            "nonsense" => return Ok("nonsense".into()),
            "other-kid" => header["kid"] = json!("../../../../dev/null"),
            "large" => claims["padding"] = json!("x".repeat(20 << 10)),
            "huge" => claims["padding"] = json!("x".repeat(1 << 20)),
            // What the issuer signs with after `rotated`.
            "new-key" => {
                key = &self.other;
                header["kid"] = json!("demo-2027");
            }
            "confused" | "cut" | "twice" => {}
            other => return Err(format!("there is no kind of token {other:?}")),
        }
        if fault == "no-expiry"
            && let Some(claims) = claims.as_object_mut()
        {
            claims.remove("exp");
        }
        for (part, patch) in [(&mut claims, &altered.claims), (&mut header, &altered.header)] {
            if let Some(patch) = patch {
                configuration::merge(part, patch);
            }
        }
        let encode = |text: String| URL_SAFE_NO_PAD.encode(text);
        let mut claims = claims.to_string();
        if fault == "twice" {
            // Which of the two a parser takes is its own affair.
            claims = claims.replacen('{', "{\"sub\":\"alice\",", 1);
        }
        if fault == "confused" {
            // HMAC with what everybody knows, in the hope that it is taken for the shared secret.
            header["alg"] = json!("HS256");
            let signed = format!("{}.{}", encode(header.to_string()), encode(claims));
            let known = repository::read("scripts/stack/demo-jwks.json")?;
            let mac = <Hmac<Sha256> as hmac::Mac>::new_from_slice(known.as_bytes());
            let mac = mac.map_err(|error| error.to_string())?.chain_update(&signed).finalize();
            return Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.into_bytes())));
        }
        let signed = format!("{}.{}", encode(header.to_string()), encode(claims));
        if fault == "cut" {
            return Ok(signed.get(..signed.len() / 2).unwrap_or_default().to_owned());
        }
        let signature: Signature = key.sign(signed.as_bytes());
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes())))
    }
}
