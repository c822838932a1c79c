//! Files of the repository, wherever the tests run.

use std::path::{Path, PathBuf};

/// The path of a file of the repository.
#[must_use]
pub fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(relative)
}

/// The text of a file of the repository.
///
/// # Errors
/// The path and what is wrong with it.
pub fn read(relative: &str) -> Result<String, String> {
    std::fs::read_to_string(path(relative)).map_err(|error| format!("{relative}: {error}"))
}
