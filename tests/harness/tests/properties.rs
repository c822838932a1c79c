//! What holds however the bytes arrive and whatever fails: properties of the core over the scenarios.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::rc::Rc;

use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, any, proptest};
use proptest::sample::Index;
use toolgate_core::Gateway;
use toolgate_harness::native::{BEGIN, Run, cut, gateway};
use toolgate_harness::people::Issuer;
use toolgate_harness::play::{Observed, Request, request};
use toolgate_harness::scenario::{Scenario, read_all};
use toolgate_harness::world::World;
use toolgate_harness::{configuration, repository};

/// Every exchange of every scenario that needs nothing before it.
fn first_exchanges() -> Vec<(Scenario, Request)> {
    let issuer = Issuer::demo().unwrap();
    let scenarios = read_all(&repository::path("tests/scenarios")).unwrap();
    scenarios
        .into_iter()
        .filter(|scenario| scenario.drivers.is_empty())
        .map(|scenario| {
            let request = request(&scenario.exchanges[0], &issuer, BEGIN).unwrap();
            (scenario, request)
        })
        .collect()
}

fn compiled(scenario: &Scenario) -> Rc<Gateway> {
    let plugin = configuration::plugin(scenario.configuration.as_ref()).unwrap();
    Rc::new(gateway(&plugin).unwrap())
}

fn world(scenario: &Scenario) -> World {
    let world = World::default();
    world.behave(&scenario.world);
    world.behave(&scenario.exchanges[0].world);
    world
}

/// Runs the first exchange of a scenario on a fresh gateway.
fn run(
    scenario: &Scenario,
    request: &Request,
    response_cuts: Option<Vec<usize>>,
) -> (Observed, usize) {
    let world = world(scenario);
    let mut run = Run::new(compiled(scenario), &world, BEGIN);
    run.response_cuts = response_cuts;
    run.request(request).unwrap();
    let observed = run.finish().unwrap();
    (steady(observed), world.take_asked().len())
}

/// Without what differs from run to run.
fn steady(mut observed: Observed) -> Observed {
    for record in &mut observed.audit {
        let lasting: BTreeMap<_, _> = std::mem::take(record)
            .into_iter()
            .filter(|(name, _)| name != "record_id" && !name.ends_with("_us"))
            .collect();
        *record = lasting;
    }
    observed
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_chunking_of_request_and_response_gives_the_same_result(
        which in any::<Index>(),
        request_cuts in vec(any::<usize>(), 0..6),
        response_cuts in vec(any::<usize>(), 0..12),
    ) {
        let exchanges = first_exchanges();
        let (scenario, whole) = which.get(&exchanges);
        let body = whole.pieces.concat();
        let one = Request { pieces: if body.is_empty() { Vec::new() } else { vec![body.clone()] }, ..whole.clone() };
        let many = Request { pieces: if body.is_empty() { Vec::new() } else { cut(&body, &request_cuts) }, ..whole.clone() };
        let expected = run(scenario, &one, Some(Vec::new()));
        let found = run(scenario, &many, Some(response_cuts));
        assert_eq!(found, expected, "{}", scenario.name);
    }
}

#[test]
fn every_single_byte_chunking_of_a_filtered_stream_gives_the_same_result() {
    for (scenario, request) in first_exchanges() {
        if !scenario.name.contains("list") {
            continue;
        }
        let expected = run(&scenario, &request, Some(Vec::new()));
        if expected.0.body.len() > 10_000 {
            continue;
        }
        for size in [1, 2, 3, 5, 11] {
            let cuts = (0..20_000).step_by(size).take_while(|cut| *cut < 3_000).collect();
            assert_eq!(
                run(&scenario, &request, Some(cuts)),
                expected,
                "{} by {size}",
                scenario.name
            );
        }
    }
}

#[test]
fn every_call_that_fails_gives_a_denial_and_nothing_reaches_a_server() {
    let mut tried = 0;
    for (scenario, request) in first_exchanges() {
        let calls = {
            let world = world(&scenario);
            let mut run = Run::new(compiled(&scenario), &world, BEGIN);
            run.request(&request).unwrap();
            run.calls
        };
        for failing in 0..calls {
            let world = world(&scenario);
            let mut run = Run::new(compiled(&scenario), &world, BEGIN);
            run.fail_calls_from = Some(failing);
            run.request(&request).unwrap();
            let observed = run.finish().unwrap();
            let case = format!("{} with call {failing} failing", scenario.name);
            assert_eq!(observed.audit.len(), 1, "{case}");
            // A merged list is what the others have, and says whose is missing.
            let (status, decision) = match observed.audit[0].contains_key("left_out") {
                true => (200, "allow"),
                false => (503, "error"),
            };
            assert_eq!(observed.status, Some(status), "{case}");
            assert_eq!(observed.audit[0]["decision"], decision, "{case}");
            // Whoever was asked was asked by the gateway itself, before the call that failed: a request
            // that went on would be one more.
            let asked = world.take_asked().len();
            assert!(asked <= failing, "{case}: {asked} requests were made");
            tried += 1;
        }
    }
    assert!(tried >= 10, "only {tried} failing calls were tried");
}
