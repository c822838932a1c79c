//! The scenario suite against `target/toolgate.wasm` in a real Kong. Run by `scripts/kong`, which finds
//! one: the program that the variable `KONG` names, or a container of the image `KONG_IMAGE` by the
//! engine `KONG_ENGINE`.

use std::process::ExitCode;

use toolgate_harness::kong_proxy::{Kong, Program};
use toolgate_harness::scenario::DriverKind;
use toolgate_harness::suite;

fn program() -> Result<Program, String> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    match (variable("KONG"), variable("KONG_ENGINE"), variable("KONG_IMAGE")) {
        (Some(program), ..) => Ok(Program::Installed(program)),
        (None, Some(engine), Some(image)) => Ok(Program::Container { engine, image }),
        _ => Err("no Kong is named: run scripts/kong".into()),
    }
}

fn main() -> ExitCode {
    suite::run(DriverKind::Kong, |scenarios| Kong::start(program()?, scenarios))
}
