//! Values that must not be seen: no `Debug`, no `Display`, no `Serialize`, wiped when dropped.
//!
//! The one way to the text is [`Secret::expose`], so that every place that handles it is found by
//! searching for that word.

use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

/// A secret text: a vault token, a credential, a login.
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a text into custody.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// These texts one after the other. As large as it gets from the start: a text that grows leaves
    /// copies behind.
    #[must_use]
    pub fn joined(parts: &[&str]) -> Self {
        let mut text = String::with_capacity(parts.iter().map(|part| part.len()).sum());
        parts.iter().for_each(|part| text.push_str(part));
        Self::new(text)
    }

    /// The text, for the one place that sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

/// Where a secret of the configuration stands.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum SecretSource {
    /// In the configuration itself. Whoever reads the configuration reads it.
    Value(#[cfg_attr(feature = "schema", schemars(with = "String"))] Secret),
    /// In an environment variable of the host, which must pass it on to the plugin.
    Environment(String),
}
