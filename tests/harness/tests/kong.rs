//! The scenario suite against `target/toolgate.wasm` in a test host that behaves like Kong.

use std::process::ExitCode;

use toolgate_harness::host::Profile;
use toolgate_harness::scenario::DriverKind;
use toolgate_harness::suite;
use toolgate_harness::wasm::Wasm;

fn main() -> ExitCode {
    suite::run(DriverKind::WasmKong, |_| Ok(Wasm { profile: Profile::Kong }))
}
