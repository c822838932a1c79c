//! `toolgate approve`: signs the approval that a refused call asks for.
//!
//! For people who approve by hand, and as the smallest service of approvals there is. Nothing is signed
//! unseen: the arguments are given, and must be those of the call. Not here: what the gateway makes of an
//! approval (`toolgate-core`).

use std::io::{self, Read as _};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use p256::pkcs8::DecodePrivateKey as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::Findings;
use crate::arguments::Approve;
use crate::policy_set::Failure;
use crate::terminal::Terminal;

/// What was made.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Made {
    /// An approval.
    Approval(String),
    /// The public half of the key, as a JSON Web Key Set.
    Jwks(Value),
}

/// What a refusal says that an approval must say.
#[derive(Deserialize)]
struct Demand {
    approval: Value,
    typ: String,
    aud: String,
    issuers: Vec<String>,
    max_age_seconds: u64,
    #[serde(default)]
    groups: Vec<String>,
}

/// Does what `options` ask for.
///
/// # Errors
/// Why nothing is signed.
pub(crate) fn run(options: &Approve) -> Result<Made, Failure> {
    let key = key(&options.key)?;
    if options.jwks {
        return Ok(Made::Jwks(json!({"keys": [public(&key)]})));
    }
    let missing = |option: &str| Failure::unusable(option, "it is missing");
    let demand = demand(options.request.as_deref().ok_or_else(|| missing("REQUEST"))?)?;
    let issuer = options.issuer.as_ref().ok_or_else(|| missing("--issuer"))?;
    let approver = options.approver.as_ref().ok_or_else(|| missing("--approver"))?;
    let arguments = options.arguments.as_ref().ok_or_else(|| missing("--arguments"))?;
    let arguments = crate::explain::json_or_file("--arguments", arguments)?;
    let digest = hex(&Sha256::digest(arguments.to_canonical_bytes()));
    if demand.approval.get("arguments").and_then(Value::as_str) != Some(&digest) {
        let message = "these are not the arguments of the call that was refused";
        return Err(Failure::unusable("--arguments", message));
    }
    if !demand.issuers.contains(issuer) {
        let known = demand.issuers.join(", ");
        let message = format!("the gateway takes no approvals of {issuer:?}, but of {known}");
        return Err(Failure::unusable("--issuer", message));
    }
    if !demand.groups.is_empty() && !demand.groups.iter().any(|it| options.group.contains(it)) {
        let message =
            format!("an approver of one of these is needed: {}", demand.groups.join(", "));
        return Err(Failure::unusable("--group", message));
    }
    if options.seconds > demand.max_age_seconds {
        let message = format!("the gateway takes at most {} seconds", demand.max_age_seconds);
        return Err(Failure::unusable("--seconds", message));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // It has to differ from others, and need not be secret.
    let unique = format!("{} {} {digest}", now.as_nanos(), std::process::id());
    let id: String = hex(&Sha256::digest(unique)).chars().take(32).collect();
    let header = json!({"typ": demand.typ, "alg": "ES256"});
    let claims = json!({
        "iss": issuer,
        "aud": demand.aud,
        "sub": approver,
        "groups": options.group,
        "iat": now.as_secs(),
        "exp": now.as_secs().saturating_add(options.seconds),
        "jti": id,
        "approval": demand.approval,
    });
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", encode(&header), encode(&claims));
    let signature: Signature = key.sign(signed.as_bytes());
    Ok(Made::Approval(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes()))))
}

/// The private key in a PEM file.
fn key(file: &Path) -> Result<SigningKey, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::unusable(file.display(), error);
    let pem = std::fs::read_to_string(file).map_err(|error| failed(&error))?;
    SigningKey::from_pkcs8_pem(&pem).map_err(|error| {
        failed(&format!(
            "not a private key of the curve P-256 in PEM ({error}); make one with: \
             openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out FILE"
        ))
    })
}

fn public(key: &SigningKey) -> Value {
    let point = key.verifying_key().to_encoded_point(false);
    let part = |bytes: Option<&[u8]>| URL_SAFE_NO_PAD.encode(bytes.unwrap_or_default());
    let (x, y) = (point.x().map(|x| &**x), point.y().map(|y| &**y));
    json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "x": part(x), "y": part(y)})
}

/// What a file demands: the answer to the refused call, its error, or the error's `data`.
fn demand(file: &Path) -> Result<Demand, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::unusable(file.display(), error);
    let mut text = Vec::new();
    if file == Path::new("-") {
        io::stdin().lock().read_to_end(&mut text).map_err(|error| failed(&error))?;
    } else {
        text = std::fs::read(file).map_err(|error| failed(&error))?;
    }
    let found: Value = serde_json::from_slice(&text).map_err(|error| failed(&error))?;
    let data = found.pointer("/error/data").or_else(|| found.get("data")).unwrap_or(&found);
    Demand::deserialize(data)
        .map_err(|error| failed(&format!("it is no refusal for want of an approval: {error}")))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Findings for Made {
    /// 0: it was made.
    fn exit_code(&self) -> u8 {
        0
    }

    fn write_text(&self, terminal: &mut Terminal<'_>) -> io::Result<()> {
        match self {
            Self::Approval(approval) => terminal.line(approval),
            Self::Jwks(set) => terminal.document(&(serde_json::to_string_pretty(set)? + "\n")),
        }
    }
}
