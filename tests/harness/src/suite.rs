//! Runs the scenario suite through one driver as named tests: `--list`, filters and reports are the
//! ones of the standard test harness.

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};

use crate::people::Issuer;
use crate::play::{Driver, play};
use crate::repository;
use crate::scenario::{DriverKind, Scenario, read_all};

/// Runs every scenario that is for a driver, which `make` makes for the scenarios it will be given.
#[must_use]
pub fn run<D: Driver + Send + Sync + 'static>(
    kind: DriverKind,
    make: impl FnOnce(&[Scenario]) -> Result<D, String>,
) -> ExitCode {
    let mut arguments = Arguments::from_args();
    if kind == DriverKind::Kong {
        // Its records land in one log.
        arguments.test_threads = Some(1);
    }
    match trials(kind, make) {
        Ok(trials) => libtest_mimic::run(&arguments, trials).exit_code(),
        Err(problem) => {
            let refused =
                vec![Trial::test("the_suite_can_be_read", move || Err(Failed::from(problem)))];
            libtest_mimic::run(&arguments, refused).exit_code()
        }
    }
}

fn trials<D: Driver + Send + Sync + 'static>(
    kind: DriverKind,
    make: impl FnOnce(&[Scenario]) -> Result<D, String>,
) -> Result<Vec<Trial>, String> {
    let mut scenarios = read_all(&repository::path("tests/scenarios"))?;
    scenarios.retain(|scenario| scenario.is_for(kind));
    let issuer = Arc::new(Issuer::demo()?);
    let driver = Arc::new(make(&scenarios)?);
    let trial = |scenario: Scenario| {
        let (driver, issuer) = (Arc::clone(&driver), Arc::clone(&issuer));
        Trial::test(scenario.name.clone(), move || {
            play(&*driver, &issuer, &scenario).map_err(Failed::from)
        })
    };
    Ok(scenarios.into_iter().map(trial).collect())
}
