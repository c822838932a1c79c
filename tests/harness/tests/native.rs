//! The scenario suite against the core alone.

use std::process::ExitCode;

use toolgate_harness::native::Native;
use toolgate_harness::scenario::DriverKind;
use toolgate_harness::suite;

fn main() -> ExitCode {
    suite::run(DriverKind::Native, |_| Ok(Native))
}
