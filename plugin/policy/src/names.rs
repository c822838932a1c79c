//! The entity types of the model and how ids are made from the names of MCP.
//!
//! Not here: which servers and tools there are.

use std::sync::LazyLock;

use cedar_policy::{EntityId, EntityTypeName, EntityUid};
#[cfg(all(test, target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// The namespace of everything.
pub(crate) const NAMESPACE: &str = "MCP";

/// Id of the one `Gateway` entity.
pub(crate) const GATEWAY_ID: &str = "toolgate";

/// Id of the one `Anonymous` entity.
pub(crate) const ANONYMOUS_ID: &str = "anonymous";

/// What stands between a server and its tool, prompt or resource in an id. A server's name must
/// not contain it.
pub(crate) const SEPARATOR: char = '/';

macro_rules! entity_types {
    ($($name:ident = $text:literal;)*) => {
        $(pub(crate) static $name: LazyLock<EntityTypeName> = LazyLock::new(|| {
            #[allow(clippy::expect_used, reason = "a literal that a test parses")]
            $text.parse().expect("an entity type name")
        });)*

        #[cfg(test)]
        #[test]
        fn every_entity_type_is_in_the_base_schema() {
            let schema: cedar_policy::Schema = crate::BASE_SCHEMA.parse().unwrap();
            $(assert!(schema.entity_types().any(|ty| *ty == *$name), "{}", $text);)*
        }
    };
}

entity_types! {
    ANONYMOUS = "MCP::Anonymous";
    CLIENT = "MCP::Client";
    GATEWAY = "MCP::Gateway";
    GROUP = "MCP::Group";
    PROMPT = "MCP::Prompt";
    RESOURCE = "MCP::Resource";
    ROLE = "MCP::Role";
    SERVER = "MCP::Server";
    TOOL = "MCP::Tool";
    USER = "MCP::User";
}

/// The entity `id` of type `ty`.
pub(crate) fn uid(ty: &EntityTypeName, id: impl AsRef<str>) -> EntityUid {
    EntityUid::from_type_name_and_id(ty.clone(), EntityId::new(id))
}

/// The id of what is called `name` at `server`.
pub(crate) fn member_id(server: &str, name: &str) -> String {
    let mut id = String::with_capacity(server.len() + 1 + name.len());
    id.push_str(server);
    id.push(SEPARATOR);
    id.push_str(name);
    id
}

/// The server and the name in the id of a tool, prompt or resource.
pub(crate) fn split_member_id(id: &str) -> Option<(&str, &str)> {
    id.split_once(SEPARATOR)
}
