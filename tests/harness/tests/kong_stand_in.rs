//! What `scripts/kong` does with a real Kong, done with a stand-in for it: that every scenario finds its
//! Service, upstreams and records over real connections.

use std::process::ExitCode;

use toolgate_harness::kong_proxy::{Kong, Program};
use toolgate_harness::scenario::DriverKind;
use toolgate_harness::suite;

fn main() -> ExitCode {
    let stand_in = env!("CARGO_BIN_EXE_stand-in-kong").to_owned();
    suite::run(DriverKind::Kong, |scenarios| Kong::start(Program::Installed(stand_in), scenarios))
}
