//! Proofs of possession (DPoP, RFC 9449): a token that is bound to a key works only beside a proof,
//! signed with that key, for this one request.
//!
//! The key comes with the proof and is believed only when it is the one that the issuer wrote into the
//! token (`cnf.jkt`). What is cheap is checked first, so that a signature is checked only for the holder
//! of a token of that very key.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use jsonwebtoken::jwk::{Jwk, ThumbprintHash};
use sha2::{Digest, Sha256};
use toolgate_protocol::headers::Headers;
use toolgate_protocol::json::Json;

use super::challenge::Refused;
use super::issuer::{Parsed, seconds};
use super::keys::{Keys, algorithm};
use super::tokens::TokenDigest;
use crate::denial::Reason;
use crate::event::Timestamp;

/// Algorithms of proofs, as challenges and metadata name them.
pub(super) const ALGORITHMS: &[&str] = &["ES256", "ES384", "EdDSA", "PS256", "RS256"];

/// Longest proof in bytes: one with an RSA key of 4096 bits has about 1600.
const LONGEST_PROOF: usize = 4096;

/// Longest `jti` in bytes.
const LONGEST_ID: usize = 256;

/// How long a proof is good after it was made, beside the leeway between clocks.
const LIFE: Duration = Duration::from_secs(60);

/// Most proofs that one worker remembers, whoever's they are.
const MOST_PROOFS: usize = 1 << 16;

/// Members of a JSON Web Key that are nobody's but its owner's (RFC 7518 sections 6.2.2, 6.3.2, 6.4.1).
const PRIVATE: &[&str] = &["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// The request that a proof has to be for.
pub(super) struct Proven<'a> {
    pub(super) headers: &'a Headers,
    /// URL of the endpoint as clients know it.
    pub(super) url: &'a str,
    /// SHA-256 of the token.
    pub(super) token: &'a TokenDigest,
    /// RFC 7638 thumbprint of the key that the token is bound to.
    pub(super) thumbprint: &'a str,
}

/// Proofs that were accepted and are still good, so that none is accepted twice (RFC 9449 section 11.1).
#[derive(Default)]
pub(crate) struct SeenProofs {
    /// When each was made, in seconds since the epoch, by a digest of its key and `jti`.
    made: HashMap<[u8; 16], u64>,
    /// What was made until then may have been forgotten, and is refused.
    forgotten: u64,
}

/// Checks the proof of a request (RFC 9449 section 4.3) and remembers it.
///
/// # Errors
/// [`Refused`] with the first thing that is wrong.
pub(super) fn check(
    proven: &Proven<'_>,
    leeway: Duration,
    now: Timestamp,
    seen: &mut SeenProofs,
) -> Result<(), Refused> {
    let proof = match proven.headers.single("dpop") {
        Ok(Some(proof)) => proof,
        Ok(None) => return Err(invalid("the token is bound to a key: send a proof in DPoP")),
        Err(_) => return Err(invalid("send one proof in DPoP")),
    };
    if proof.len() > LONGEST_PROOF {
        return Err(invalid("the proof is larger than the gateway accepts"));
    }
    let proof = Parsed::read(proof).map_err(|_| invalid("the proof is not a JSON Web Token"))?;
    let text =
        |object: &Json, name: &str| object.get(name).and_then(Json::as_str).map(str::to_owned);

    if text(&proof.header, "typ").as_deref() != Some("dpop+jwt") {
        return Err(invalid("the proof's typ is not dpop+jwt"));
    }
    if proof.header.get("crit").is_some() {
        return Err(invalid("the proof has critical header parameters"));
    }
    let algorithm = text(&proof.header, "alg")
        .filter(|name| ALGORITHMS.contains(&name.as_str()))
        .and_then(|name| algorithm(&name))
        .ok_or_else(|| invalid("the proof's algorithm is not accepted"))?;
    let key = public_key(&proof.header)?;
    let thumbprint = key.thumbprint(ThumbprintHash::SHA256).ok();
    if thumbprint.as_deref() != Some(proven.thumbprint) {
        return Err(invalid("the proof is made with another key than the token's"));
    }

    if text(&proof.claims, "htm").as_deref() != proven.headers.single(":method").ok().flatten() {
        return Err(invalid("the proof is for another method"));
    }
    let url = text(&proof.claims, "htu").as_deref().and_then(normalized);
    if url.is_none() || url != normalized(proven.url) {
        return Err(invalid("the proof is for another URL"));
    }
    if text(&proof.claims, "ath") != Some(URL_SAFE_NO_PAD.encode(proven.token)) {
        return Err(invalid("the proof is for another token"));
    }
    let made = seconds(&proof.claims, "iat").ok().flatten();
    let made = made.ok_or_else(|| invalid("the proof does not say when it was made"))?;
    let earliest = now.seconds().saturating_sub((LIFE + leeway).as_secs());
    if made < earliest || made > now.after(leeway).seconds() {
        return Err(invalid("the proof was not made just now"));
    }
    let id = text(&proof.claims, "jti")
        .filter(|id| !id.is_empty() && id.len() <= LONGEST_ID)
        .ok_or_else(|| invalid("the proof has no usable jti"))?;

    if !is_signed(&proof, &key, algorithm) {
        return Err(invalid("the proof's signature is not valid"));
    }
    if !seen.insert(proven.thumbprint, &id, made, earliest) {
        return Err(invalid("the proof was used before"));
    }
    Ok(())
}

impl SeenProofs {
    /// Remembers a proof; false for one that was, or may have been, there before.
    fn insert(&mut self, thumbprint: &str, id: &str, made: u64, earliest: u64) -> bool {
        if made <= self.forgotten {
            return false;
        }
        // A thumbprint has a fixed length: no two pairs make the same text.
        let digest = Sha256::new().chain_update(thumbprint).chain_update(id).finalize();
        let Some(digest) = digest.first_chunk().copied() else { return false };
        if self.made.len() >= MOST_PROOFS {
            self.made.retain(|_, made| *made >= earliest);
        }
        if self.made.len() >= MOST_PROOFS {
            // All are good still: give up the older half, and with it whatever else is as old.
            let mut all: Vec<u64> = self.made.values().copied().collect();
            let middle = all.len() / 2;
            self.forgotten = *all.select_nth_unstable(middle).1;
            self.made.retain(|_, made| *made > self.forgotten);
            if made <= self.forgotten {
                return false;
            }
        }
        match self.made.get(&digest) {
            Some(known) if *known >= earliest => false,
            _ => {
                self.made.insert(digest, made);
                true
            }
        }
    }
}

/// The key that a proof brings, which must be a public one.
fn public_key(header: &Json) -> Result<Jwk, Refused> {
    let key = header.get("jwk").filter(|key| key.as_object().is_some());
    let key = key.ok_or_else(|| invalid("the proof brings no key"))?;
    if PRIVATE.iter().any(|member| key.get(member).is_some()) {
        return Err(invalid("the proof brings a private key"));
    }
    serde_json::from_slice(&key.to_bytes()).map_err(|_| invalid("the proof's key is not usable"))
}

fn is_signed(proof: &Parsed<'_>, key: &Jwk, algorithm: Algorithm) -> bool {
    let keys = Keys::of(std::slice::from_ref(key), &[algorithm], |_, _| {});
    keys.verify(None, algorithm, proof.signed.as_bytes(), proof.signature)
}

/// A URL as it is compared (RFC 9449 section 4.3: without query and fragment, normalised as RFC 3986
/// section 6.2 has it): scheme and host in lower case, no default port, a path. Escapes are not
/// undone: no endpoint has one.
fn normalized(url: &str) -> Option<String> {
    let url = url.split(['?', '#']).next()?;
    let (scheme, rest) = url.split_once("://")?;
    let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let scheme = scheme.to_ascii_lowercase();
    let port = match scheme.as_str() {
        "https" => ":443",
        "http" => ":80",
        _ => return None,
    };
    let authority = authority.to_ascii_lowercase();
    let host = authority.strip_suffix(port).unwrap_or(&authority);
    (!host.is_empty()).then(|| format!("{scheme}://{host}{path}"))
}

fn invalid(message: &'static str) -> Refused {
    Refused::new(Reason::InvalidProof, message)
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn urls_are_compared_without_what_means_nothing() {
        let plain = normalized("https://mcp.example/mcp/billing");
        for same in [
            "HTTPS://MCP.example/mcp/billing",
            "https://mcp.example:443/mcp/billing",
            "https://mcp.example/mcp/billing?x=1#y",
        ] {
            assert_eq!(normalized(same), plain, "{same}");
        }
        for other in [
            "http://mcp.example/mcp/billing",
            "https://mcp.example:444/mcp/billing",
            "https://mcp.example/mcp/Billing",
            "https://mcp.example/mcp/billing/",
            "https://mcp.example@evil.example/mcp/billing",
        ] {
            assert_ne!(normalized(other), plain, "{other}");
        }
        assert_eq!(normalized("/mcp/billing"), None);
        assert_eq!(normalized("ftp://mcp.example/"), None);
    }

    #[test]
    fn a_full_memory_forgets_the_older_half_and_accepts_nothing_as_old() {
        let mut seen = SeenProofs::default();
        for number in 0..MOST_PROOFS {
            let made = 1000 + (number / 1024) as u64;
            assert!(seen.insert("key", &number.to_string(), made, 1000));
        }
        assert!(seen.insert("key", "newest", 1064, 1000));
        assert!(seen.made.len() <= MOST_PROOFS / 2 + 1);
        assert!(!seen.insert("key", "0", 1000, 1000), "forgotten, and refused all the same");
        assert!(!seen.insert("key", "never seen, but as old", 1032, 1000));
        assert!(!seen.insert("key", "newest", 1064, 1000), "still known");
        assert!(seen.insert("key", "another", 1064, 1000));
    }

    #[test]
    fn the_same_id_is_another_proof_with_another_key_or_when_it_is_long_over() {
        let mut seen = SeenProofs::default();
        assert!(seen.insert("key", "id", 1000, 900));
        assert!(!seen.insert("key", "id", 1001, 900));
        assert!(seen.insert("yek", "id", 1000, 900));
        assert!(seen.insert("key", "id", 1200, 1100));
    }
}
