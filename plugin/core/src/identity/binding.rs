//! Tokens that are of use to the holder of a certificate (RFC 8705 section 3) or of a key (RFC 9449
//! section 6) only, both written as RFC 7800 has it.
//!
//! The issuer writes into the token what it is bound to (`cnf`). What the gateway cannot check is
//! refused: a bound token in the wrong hands must not work because nobody looked.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use toolgate_protocol::json::Json;

use super::challenge::Refused;
use crate::event::HostFacts;

/// What a token is bound to.
#[derive(Default)]
pub(super) struct Binding {
    /// The SHA-256 of the certificate of whoever may use it.
    certificate: Option<[u8; 32]>,
    /// The thumbprint (RFC 7638) of the key that signs its proofs, as it is written.
    key: Option<String>,
}

impl Binding {
    /// Reads the `cnf` claim.
    ///
    /// # Errors
    /// [`Refused`] for a binding that the gateway does not know.
    pub(super) fn read(claims: &Json) -> Result<Self, Refused> {
        let unknown =
            || Refused::invalid("the token is bound in a way that cannot be checked here");
        let members = match claims.get("cnf") {
            None => return Ok(Self::default()),
            Some(Json::Object(members)) => members,
            Some(_) => return Err(unknown()),
        };
        let mut binding = Self::default();
        for (name, value) in members.iter() {
            let text = value.as_str().ok_or_else(unknown)?;
            let digest = URL_SAFE_NO_PAD.decode(text).ok().and_then(|d| d.try_into().ok());
            let digest: [u8; 32] = digest.ok_or_else(unknown)?;
            match name {
                "x5t#S256" => binding.certificate = Some(digest),
                "jkt" => binding.key = Some(text.to_owned()),
                _ => return Err(unknown()),
            }
        }
        Ok(binding)
    }

    /// The thumbprint of the key that has to sign a proof for each request.
    pub(super) fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Checks that the request comes over a connection of whom the token is bound to.
    pub(super) fn check_certificate(&self, host: &HostFacts) -> Result<(), Refused> {
        let Some(expected) = &self.certificate else { return Ok(()) };
        let presented = host.certificate.as_deref().and_then(super::api_keys::digest);
        match presented {
            Some(presented) if presented == *expected => Ok(()),
            Some(_) => Err(Refused::invalid("the token is bound to another certificate")),
            None => Err(Refused::invalid(
                "the token is bound to a certificate, and the connection shows none",
            )),
        }
    }
}
