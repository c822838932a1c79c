//! Cedar's extension values from text. Their constructors are looked up once: finding one by its name
//! in a policy's expression costs more than calling it.

use std::sync::LazyLock;

use cedar_policy_core::ast::{ExtensionFunction, Name, PartialValue, Value};
use cedar_policy_core::extensions::Extensions;

/// A constructor that takes one text.
pub(crate) struct Constructor(Option<&'static ExtensionFunction>);

pub(crate) static DATETIME: LazyLock<Constructor> = LazyLock::new(|| Constructor::new("datetime"));
pub(crate) static DECIMAL: LazyLock<Constructor> = LazyLock::new(|| Constructor::new("decimal"));
pub(crate) static IP: LazyLock<Constructor> = LazyLock::new(|| Constructor::new("ip"));

impl Constructor {
    fn new(name: &str) -> Self {
        let name = name.parse::<Name>().ok();
        Self(name.and_then(|name| Extensions::all_available().func(&name).ok()))
    }

    /// The value, if Cedar takes `text` for one.
    pub(crate) fn value(&self, text: &str) -> Option<Value> {
        match self.0?.call(&[Value::from(text)]).ok()? {
            PartialValue::Value(value) => Some(value),
            PartialValue::Residual(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn every_constructor_takes_its_own_text_and_no_other() {
        let texts = ["2026-11-23T11:09:30.000Z", "1.5", "10.0.0.0/8"];
        for (constructor, own) in [(&DATETIME, 0), (&DECIMAL, 1), (&IP, 2)] {
            for (index, text) in texts.into_iter().enumerate() {
                assert_eq!(constructor.value(text).is_some(), index == own, "{text}");
            }
        }
    }
}
