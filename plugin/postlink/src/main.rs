//! The last step of `scripts/build`: `postlink IN OUT` copies the plugin with two exports' names exchanged.
//!
//! The SDK exports `proxy_on_http_call_response` and panics in it when it does not know the call. A second
//! definition of that name does not link, and no linker of WebAssembly renames an export. So the filter
//! exports its guard under another name of the same length, and the names are exchanged where they stand:
//! the host calls the guard, which calls the SDK with the calls that the SDK knows
//! (`plugin/filter/src/calls.rs`).

use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;

use wasmparser::{ExternalKind, Parser, Payload};

/// What the host calls when an outgoing call has been answered.
const CALLBACK: &str = "proxy_on_http_call_response";

/// The filter's own function for it, as the compiler exports it.
const GUARD: &str = "toolgate_guards_call_answer";

fn main() -> ExitCode {
    let mut paths = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(from), Some(to), None) = (paths.next(), paths.next(), paths.next()) else {
        return failed("usage: postlink IN OUT");
    };
    let linked = match std::fs::read(&from) {
        Ok(linked) => linked,
        Err(error) => return failed(&format!("{}: {error}", from.display())),
    };
    let guarded = match guarded(linked) {
        Ok(guarded) => guarded,
        Err(problem) => return failed(&format!("{}: {problem}", from.display())),
    };
    match std::fs::write(&to, guarded) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&format!("{}: {error}", to.display())),
    }
}

#[expect(clippy::print_stderr, reason = "a program for people")]
fn failed(problem: &str) -> ExitCode {
    eprintln!("error: {problem}");
    ExitCode::FAILURE
}

/// The module with the names of callback and guard exchanged.
///
/// # Errors
/// Where the module is none, or does not export both as functions.
fn guarded(mut module: Vec<u8>) -> Result<Vec<u8>, String> {
    let callback = place(&module, CALLBACK)?;
    let guard = place(&module, GUARD)?;
    for (place, name) in [(callback, GUARD), (guard, CALLBACK)] {
        let bytes = module.get_mut(place).ok_or("the module ends early")?;
        if bytes.len() != name.len() {
            return Err(format!("{CALLBACK} and {GUARD} must be equally long"));
        }
        bytes.copy_from_slice(name.as_bytes());
    }
    Ok(module)
}

/// Where the name of an exported function stands.
fn place(module: &[u8], name: &str) -> Result<Range<usize>, String> {
    let broken = |error: wasmparser::BinaryReaderError| format!("no WebAssembly module: {error}");
    for payload in Parser::new(0).parse_all(module) {
        let Payload::ExportSection(section) = payload.map_err(broken)? else { continue };
        for export in section.into_iter_with_offsets() {
            let (at, export) = export.map_err(broken)?;
            if export.name == name && export.kind == ExternalKind::Func {
                return name_at(module, at, name)
                    .ok_or_else(|| format!("the export of {name} has another form than expected"));
            }
        }
    }
    Err(format!("{name} is not exported"))
}

/// Where the name of the export that begins here stands, after its length in one byte.
fn name_at(module: &[u8], export: u64, name: &str) -> Option<Range<usize>> {
    let begin = usize::try_from(export).ok()? + 1;
    let place = begin..begin + name.len();
    let length = module.get(begin - 1).copied().map(usize::from);
    (length == Some(name.len()) && module.get(place.clone()) == Some(name.as_bytes()))
        .then_some(place)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn module(text: &str) -> Vec<u8> {
        wat::parse_str(text).unwrap()
    }

    fn exports(module: &[u8]) -> Vec<(String, u32)> {
        let mut found = Vec::new();
        for payload in Parser::new(0).parse_all(module) {
            if let Payload::ExportSection(section) = payload.unwrap() {
                let named = section.into_iter().map(Result::unwrap);
                found.extend(named.map(|export| (export.name.to_owned(), export.index)));
            }
        }
        found
    }

    #[test]
    fn the_host_calls_the_guard_and_the_sdk_is_still_there_for_it() {
        let linked = module(&format!(
            r#"(module (func) (func) (func)
                 (export "proxy_on_log" (func 0))
                 (export "{CALLBACK}" (func 1))
                 (export "{GUARD}" (func 2)))"#
        ));
        let expected = [("proxy_on_log", 0), (GUARD, 1), (CALLBACK, 2)];
        let expected: Vec<_> = expected.map(|(name, index)| (name.to_owned(), index)).into();
        assert_eq!(exports(&guarded(linked).unwrap()), expected);
    }

    #[test]
    fn a_module_without_callback_or_guard_is_refused() {
        for (text, problem) in [
            (
                format!(r#"(module (func (export "{CALLBACK}")))"#),
                format!("{GUARD} is not exported"),
            ),
            (
                format!(r#"(module (func (export "{GUARD}")))"#),
                format!("{CALLBACK} is not exported"),
            ),
            (
                format!(r#"(module (func (export "{GUARD}")) (memory (export "{CALLBACK}") 1))"#),
                format!("{CALLBACK} is not exported"),
            ),
        ] {
            assert_eq!(guarded(module(&text)), Err(problem));
        }
        assert!(guarded(b"no module".to_vec()).unwrap_err().contains("no WebAssembly module"));
    }
}
