//! A session of a client of the legacy era at a portal: all of it stands in the sealed id, so that every
//! worker and every gateway with the keys knows it and none has to remember it.
//!
//! Sealed are a number that names the session and what the client can be asked. The sessions at servers
//! that belong to it are opened when they are needed, and are a worker's own. Not here: sealing
//! (`session`).

use std::rc::Rc;

use toolgate_protocol::json::{Json, Object};

use crate::denial::{Denial, Reason};

/// Most that is kept of a client's capabilities, in bytes: more would make the id too long.
const MOST_CAPABILITIES: usize = 2 << 10;

/// What a session id says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PortalSession {
    pub(crate) id: Rc<str>,
    /// The client's capabilities as JSON.
    pub(crate) capabilities: Rc<str>,
}

impl PortalSession {
    /// A session that begins. Capabilities that are too large are as none.
    pub(crate) fn begin(id: String, capabilities: Option<&Json>) -> Self {
        let capabilities = capabilities.filter(|capabilities| capabilities.as_object().is_some());
        let capabilities = capabilities.map(Json::to_bytes).unwrap_or_default();
        let capabilities = String::from_utf8(capabilities).unwrap_or_default();
        let capabilities =
            if capabilities.len() > MOST_CAPABILITIES { String::new() } else { capabilities };
        Self { id: id.into(), capabilities: capabilities.into() }
    }

    /// What is sealed.
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut plain = Object::default();
        plain.set("id", Json::from(&*self.id));
        plain.set("capabilities", Json::from(&*self.capabilities));
        Json::Object(plain).to_bytes()
    }

    /// Reads what was sealed.
    ///
    /// # Errors
    /// 404 for what another version of the gateway may have sealed: the client begins anew.
    pub(crate) fn read(plain: &[u8]) -> Result<Self, Denial> {
        let read = || {
            let plain = Json::parse(plain).ok()?;
            let text = |key: &str| Some(Rc::from(plain.get(key)?.as_str()?));
            Some(Self { id: text("id")?, capabilities: text("capabilities")? })
        };
        read().ok_or_else(|| Denial::new(Reason::UnknownSession, "Session not found"))
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn what_is_sealed_is_what_is_read() {
        let capabilities = Json::parse(br#"{"elicitation":{"form":{}}}"#).unwrap();
        let session = PortalSession::begin("7-1".into(), Some(&capabilities));
        assert_eq!(PortalSession::read(&session.write()).unwrap(), session);
        let large = Json::Object([("x", Json::from("y".repeat(3000)))].into_iter().collect());
        assert_eq!(&*PortalSession::begin("7-1".into(), Some(&large)).capabilities, "");
        assert!(PortalSession::read(b"{}").is_err());
    }
}
