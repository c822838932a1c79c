//! The scenario suite against `target/toolgate.wasm` in a real Envoy: the program that the variable
//! `ENVOY` names, or `envoy` on the path.

use std::process::ExitCode;

use toolgate_harness::envoy::Envoy;
use toolgate_harness::scenario::DriverKind;
use toolgate_harness::suite;

fn main() -> ExitCode {
    let program = std::env::var("ENVOY").unwrap_or_else(|_| "envoy".into());
    suite::run(DriverKind::Envoy, |scenarios| Envoy::start(&program, scenarios))
}
