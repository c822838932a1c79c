//! A WebAssembly module as a host sees it before anything runs, and what is wrong with it.
//!
//! Not here: what the module does; `tests/harness` runs it.

use wasmparser::{BinaryReaderError, ExternalKind, Parser, Payload, TypeRef};

use crate::hosts;

/// The most that `toolgate.wasm` may have, in bytes. It was 5,400,000 before sessions were sealed, servers
/// federated, keys fetched and fractions read exactly, and 6,600,000 before approvals, policy bundles, metrics
/// and logins by way of the gateway.
pub(crate) const SIZE_BUDGET: usize = 6_800_000;

/// What a host looks for in a plugin of this ABI; the filter does nothing without these.
const EXPORTED_FUNCTIONS: &[&str] = &[
    "_initialize",
    "proxy_abi_version_0_2_1",
    "proxy_on_configure",
    "proxy_on_context_create",
    "proxy_on_delete",
    "proxy_on_done",
    "proxy_on_http_call_response",
    "proxy_on_log",
    "proxy_on_memory_allocate",
    "proxy_on_request_body",
    "proxy_on_request_headers",
    "proxy_on_request_trailers",
    "proxy_on_response_body",
    "proxy_on_response_headers",
    "proxy_on_vm_start",
];

/// The imports and exports of a module, and its size.
#[derive(Default)]
pub(crate) struct Artifact {
    pub(crate) size: usize,
    pub(crate) imports: Vec<Import>,
    pub(crate) exported_functions: Vec<String>,
    pub(crate) exported_memories: Vec<String>,
}

/// Something a module wants from its host.
pub(crate) struct Import {
    module: String,
    name: String,
    is_function: bool,
}

impl Artifact {
    /// Reads a module.
    ///
    /// # Errors
    /// Where the bytes are not a WebAssembly module.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, BinaryReaderError> {
        let mut artifact = Self { size: bytes.len(), ..Self::default() };
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        let import = import?;
                        artifact.imports.push(Import {
                            module: import.module.to_owned(),
                            name: import.name.to_owned(),
                            is_function: matches!(import.ty, TypeRef::Func(_)),
                        });
                    }
                }
                Payload::ExportSection(section) => {
                    for export in section {
                        let export = export?;
                        match export.kind {
                            ExternalKind::Func => &mut artifact.exported_functions,
                            ExternalKind::Memory => &mut artifact.exported_memories,
                            _ => continue,
                        }
                        .push(export.name.to_owned());
                    }
                }
                _ => {}
            }
        }
        Ok(artifact)
    }

    /// Problems with its size.
    pub(crate) fn size_problems(&self, budget: usize) -> Vec<String> {
        if self.size <= budget {
            return Vec::new();
        }
        vec![format!("{} bytes are {} more than the budget", self.size, self.size - budget)]
    }

    /// Problems with what it imports.
    pub(crate) fn import_problems(&self) -> Vec<String> {
        let problem = |Import { module, name, is_function }: &Import| {
            if !is_function {
                Some(format!("`{module}.{name}` is imported and is not a function"))
            } else if !hosts::provide(module, name) {
                Some(format!("`{module}.{name}` is imported, which not every host provides"))
            } else {
                None
            }
        };
        self.imports.iter().filter_map(problem).collect()
    }

    /// Problems with what it exports.
    pub(crate) fn export_problems(&self) -> Vec<String> {
        let missing = |name: &str| format!("`{name}` is not exported");
        let mut problems: Vec<String> = EXPORTED_FUNCTIONS
            .iter()
            .filter(|name| !self.exported_functions.iter().any(|exported| exported == *name))
            .map(|name| missing(name))
            .collect();
        if !self.exported_memories.iter().any(|name| name == "memory") {
            problems.push(missing("memory"));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(text: &str) -> Artifact {
        Artifact::read(&wat::parse_str(text).unwrap()).unwrap()
    }

    fn complete_except(left_out: &str) -> Artifact {
        let functions: String = EXPORTED_FUNCTIONS
            .iter()
            .filter(|name| **name != left_out)
            .map(|name| format!("(func (export {name:?}))"))
            .collect();
        let memory = if left_out == "memory" { "" } else { r#"(memory (export "memory") 1)"# };
        module(&format!("(module {memory} {functions})"))
    }

    #[test]
    fn a_file_over_the_budget_fails() {
        let artifact = module("(module)");
        assert_eq!(artifact.size_problems(artifact.size), [""; 0]);
        assert_eq!(
            artifact.size_problems(artifact.size - 3),
            [format!("{} bytes are 3 more than the budget", artifact.size)]
        );
    }

    #[test]
    fn imports_that_both_hosts_provide_pass() {
        let artifact = module(
            r#"(module
                (import "env" "proxy_log" (func (param i32 i32 i32) (result i32)))
                (import "wasi_snapshot_preview1" "random_get" (func (param i32 i32) (result i32))))"#,
        );
        assert_eq!(artifact.imports.len(), 2);
        assert_eq!(artifact.import_problems(), [""; 0]);
    }

    #[test]
    fn every_other_import_fails_with_its_name() {
        for (module_name, name) in [
            ("env", "proxy_get_log_level"),
            ("env", "proxy_get_header_map_size"),
            ("env", "abort"),
            ("wasi_snapshot_preview1", "sched_yield"),
            ("wasi_snapshot_preview1", "proxy_log"),
            ("wasi_unstable", "random_get"),
            ("__wbindgen_placeholder__", "__wbindgen_throw"),
        ] {
            let artifact = module(&format!("(module (import {module_name:?} {name:?} (func)))"));
            let problem =
                format!("`{module_name}.{name}` is imported, which not every host provides");
            assert_eq!(artifact.import_problems(), [problem]);
        }
    }

    #[test]
    fn an_import_that_is_not_a_function_fails() {
        let artifact = module(r#"(module (import "env" "proxy_log" (memory 1)))"#);
        assert_eq!(
            artifact.import_problems(),
            ["`env.proxy_log` is imported and is not a function"]
        );
    }

    #[test]
    fn every_required_export_is_missed() {
        assert_eq!(complete_except("").export_problems(), [""; 0]);
        for name in EXPORTED_FUNCTIONS.iter().chain(&["memory"]) {
            let problem = format!("`{name}` is not exported");
            assert_eq!(complete_except(name).export_problems(), [problem]);
        }
    }

    #[test]
    fn an_export_of_another_kind_does_not_count() {
        let artifact = module(r#"(module (func (export "memory")))"#);
        assert!(artifact.export_problems().contains(&"`memory` is not exported".to_owned()));
    }

    #[test]
    fn bytes_that_are_no_module_are_an_error() {
        assert!(Artifact::read(b"not wasm").is_err());
        let whole = wat::parse_str(r#"(module (func (export "f")))"#).unwrap();
        assert!(Artifact::read(&whole[..whole.len() - 2]).is_err());
    }
}
