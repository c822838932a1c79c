//! Runs the command as people do.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// A file beside the tests.
#[allow(dead_code, reason = "not every test has fixtures")]
pub(crate) fn fixture(name: &str) -> String {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    directory.join(name).display().to_string()
}

/// Runs `toolgate` with `arguments` in the repository's root.
pub(crate) fn toolgate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_toolgate"))
        .args(arguments)
        .current_dir(root())
        .output()
        .unwrap()
}

/// What it writes, and its exit code.
pub(crate) fn text(arguments: &[&str]) -> (String, i32) {
    let output = toolgate(arguments);
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    (String::from_utf8(output.stdout).unwrap(), output.status.code().unwrap())
}

/// The document it writes with `--json`, and its exit code.
#[allow(dead_code, reason = "not every test reads documents")]
pub(crate) fn json(arguments: &[&str]) -> (Value, i32) {
    let (text, code) = text(&[arguments, &["--json"]].concat());
    (serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")), code)
}
