//! Checks `toolgate.wasm` as a file: `check-artifact target/toolgate.wasm`.
//!
//! One line per check, then `N passed, N failed`; the exit code is 0 when every check passed.
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing),
    allow(clippy::string_slice)
)]

mod artifact;
mod hosts;

use std::io::{self, Write};
use std::process::ExitCode;

use artifact::{Artifact, SIZE_BUDGET};

fn main() -> io::Result<ExitCode> {
    let mut output = io::stdout().lock();
    let Some(path) = std::env::args_os().nth(1) else {
        writeln!(output, "usage: check-artifact FILE")?;
        return Ok(ExitCode::from(2));
    };
    let artifact = match std::fs::read(&path)
        .map_err(|error| error.to_string())
        .and_then(|bytes| Artifact::read(&bytes).map_err(|error| error.to_string()))
    {
        Ok(artifact) => artifact,
        Err(error) => {
            writeln!(output, "{}: {error}\n0 passed, 1 failed", path.display())?;
            return Ok(ExitCode::FAILURE);
        }
    };
    let exports = artifact.exported_functions.len() + artifact.exported_memories.len();
    let checks = [
        (
            format!("size: {} bytes, the budget is {SIZE_BUDGET}", artifact.size),
            artifact.size_problems(SIZE_BUDGET),
        ),
        (
            format!("imports: {}, none but what both hosts provide", artifact.imports.len()),
            artifact.import_problems(),
        ),
        (format!("exports: {exports}, with all that hosts look for"), artifact.export_problems()),
    ];
    let mut failed = 0;
    for (claim, problems) in &checks {
        failed += usize::from(!problems.is_empty());
        writeln!(output, "{} {claim}", if problems.is_empty() { "ok    " } else { "FAILED" })?;
        for problem in problems {
            writeln!(output, "         {problem}")?;
        }
    }
    writeln!(output, "{} passed, {failed} failed", checks.len() - failed)?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
