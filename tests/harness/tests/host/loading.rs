//! Loading, and what belongs to the worker rather than to an exchange.

use std::time::Duration;

use toolgate_harness::host::{Host, HostError, HttpRequest, KongRules, Profile, Settings, Step};

use super::wat::{envoy, host_with, kong, kong_without, module, said};
use super::{call, done, upstream, yes};

fn load(settings: Settings, text: &str) -> Result<Host, HostError> {
    Host::from_bytes(text.as_bytes(), settings, b"", &[])
}

#[test]
fn unknown_import_fails_the_load_and_is_named() {
    let text = r#"(module (import "env" "proxy_frobnicate" (func)) (func (export "proxy_abi_version_0_2_1")))"#;
    for profile in [Profile::Envoy, Profile::Kong] {
        let error = load(Settings::new(profile), text).err();
        assert_eq!(
            error,
            Some(HostError::Import {
                module: "env".to_owned(),
                name: "proxy_frobnicate".to_owned()
            })
        );
    }
}

#[test]
fn log_level_may_be_imported_on_envoy_only() {
    let text = r#"(module
        (import "env" "proxy_get_log_level" (func (param i32) (result i32)))
        (func (export "proxy_abi_version_0_2_1")))"#;
    assert!(load(Settings::new(Profile::Envoy), text).is_ok());
    assert!(matches!(load(Settings::new(Profile::Kong), text), Err(HostError::Import { .. })));
    let mut settings = Settings::new(Profile::Kong);
    settings.kong = KongRules::all_but("log_level_import_fails").expect("a rule");
    assert!(load(settings, text).is_ok());
}

#[test]
fn module_without_abi_version_is_refused() {
    assert_eq!(load(Settings::new(Profile::Envoy), "(module)").err(), Some(HostError::AbiVersion));
}

#[test]
fn garbage_does_not_compile() {
    assert!(matches!(
        load(Settings::new(Profile::Envoy), "not wasm"),
        Err(HostError::Compile { .. })
    ));
}

#[test]
fn missing_file_is_named() {
    let error = Host::load("/nonexistent.wasm".as_ref(), Profile::Envoy, b"", &[]).err();
    assert!(error.is_some_and(|error| error.to_string().contains("/nonexistent.wasm")));
}

const REJECTS: &str =
    r#"(func (export "proxy_on_configure") (param i32 i32) (result i32) (i32.const 0))"#;

#[test]
fn rejected_configuration_closes_envoy() {
    let mut host = envoy(REJECTS);
    assert!(!host.configured());
    let id = host.begin(HttpRequest::new("GET", "/"));
    assert_eq!(done(&mut host, id).status, Some(503));
}

#[test]
fn rejected_configuration_opens_kong() {
    let mut host = kong(REJECTS);
    assert!(!host.configured());
    let id = host.begin(HttpRequest::new("GET", "/"));
    upstream(&mut host, id);
    assert!(host.observed(id).is_some_and(|seen| seen.callbacks.is_empty()));

    let mut host = kong_without("bad_configuration_is_open", REJECTS);
    let id = host.begin(HttpRequest::new("GET", "/"));
    assert_eq!(done(&mut host, id).status, Some(500));
}

const READS_CONFIGURATION: &str = r#"
    (func (export "proxy_on_configure") (param i32 i32) (result i32)
      (call $say_number (local.get 1))
      (call $say_body (i32.const 7))
      (i32.const 1))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
      (call $say_number (call $get_buffer (i32.const 7) (i32.const 0) (i32.const 9) (i32.const 0) (i32.const 4)))
      (i32.const 0))"#;

#[test]
fn configuration_can_be_read_while_configuring() {
    for mut host in [envoy(READS_CONFIGURATION), kong(READS_CONFIGURATION)] {
        assert!(host.configured());
        assert_eq!(said(&host), ["13", "configuration"]);
        let id = host.begin(HttpRequest::new("GET", "/"));
        upstream(&mut host, id);
    }
}

#[test]
fn configuration_is_gone_for_envoys_streams() {
    let mut host = envoy(READS_CONFIGURATION);
    let id = host.begin(HttpRequest::new("GET", "/"));
    upstream(&mut host, id);
    assert_eq!(said(&host).last().map(String::as_str), Some("1"), "NotFound");
}

const SAYS_ENVIRONMENT: &str = r#"
    (func (export "proxy_on_vm_start") (param i32 i32) (result i32)
      (drop (call $environ_sizes (i32.const 0) (i32.const 4)))
      (drop (call $environ (i32.const 64) (i32.const 128)))
      (call $say (i32.const 128) (i32.load (i32.const 4)))
      (i32.const 1))"#;

#[test]
fn environment_is_given_on_envoy_and_bare_on_kong() {
    assert_eq!(said(&envoy(SAYS_ENVIRONMENT)), ["TOKEN=secret\0RUST_BACKTRACE=1\0"]);
    assert_eq!(said(&kong(SAYS_ENVIRONMENT)), ["RUST_BACKTRACE=1\0"]);
    let off = kong_without("environment_is_bare", SAYS_ENVIRONMENT);
    assert_eq!(said(&off), ["TOKEN=secret\0RUST_BACKTRACE=1\0"]);
}

#[test]
fn randomness_follows_the_seed() {
    let draws = r#"(func (export "proxy_on_vm_start") (param i32 i32) (result i32)
      (drop (call $random (i32.const 64) (i32.const 4)))
      (call $say_number (i32.and (i32.load (i32.const 64)) (i32.const 0xffff)))
      (i32.const 1))"#;
    let drawn = |seed| {
        let mut settings = Settings::new(Profile::Envoy);
        settings.seed = seed;
        said(&host_with(settings, draws))
    };
    assert_eq!(drawn(1), drawn(1));
    assert_ne!(drawn(1), drawn(2));
}

const TICKS: &str = r#"
    (func (export "proxy_on_configure") (param i32 i32) (result i32)
      (call $say_number (call $set_tick (i32.const 5000)))
      (i32.const 1))
    (func (export "proxy_on_tick") (param i32)
      (drop (call $time (i32.const 64)))
      (call $say_number (i32.wrap_i64 (i64.div_u (i64.load (i32.const 64)) (i64.const 1000000000)))))"#;

#[test]
fn time_stands_still_until_it_is_set() {
    let mut host = envoy(TICKS);
    assert_eq!(host.tick_period(), Some(Duration::from_secs(5)));
    host.set_time(Duration::from_secs(100));
    host.tick();
    host.tick();
    host.set_time(Duration::from_secs(105));
    host.tick();
    assert_eq!(said(&host), ["0", "100", "100", "105"]);
}

#[test]
fn no_period_no_tick() {
    assert!(!envoy("").tick());
}

#[test]
fn call_from_a_tick_is_a_root_call() {
    let ticks = r#"
        (func (export "proxy_on_configure") (param i32 i32) (result i32)
          (drop (call $set_tick (i32.const 1))) (i32.const 1))
        (func (export "proxy_on_tick") (param i32) (call $call_out @get_auth))
        (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32)
          (call $say_number (local.get 0)) (call $say_body (i32.const 4)))"#;
    for mut host in [envoy(ticks), kong(ticks)] {
        host.tick();
        let pending = host.root_call().expect("a call");
        assert_eq!((pending.exchange, pending.cluster.as_str()), (None, "auth"));
        assert!(host.answer_call(pending.token, yes()));
        assert_eq!(said(&host), ["0", "1", r#"{"ok":true}"#]);
        assert!(!host.answer_call(pending.token, yes()), "a call is answered once");
    }
}

#[test]
fn metrics_count_and_outlive_the_instance() {
    let counts = r#"
        (func (export "proxy_on_configure") (param i32 i32) (result i32)
          (drop (call $define (i32.const 0) @"requests" (i32.const 8))) (i32.const 1))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
          (drop (call $increment (i32.load (i32.const 8)) (i64.const 2))) (unreachable))"#;
    let mut host = kong(counts);
    assert_eq!(host.metric("requests"), Some(0));
    for _ in 0..2 {
        let id = host.begin(HttpRequest::new("GET", "/"));
        done(&mut host, id);
    }
    assert_eq!(host.metric("requests"), Some(4));
    assert_eq!(host.metric("others"), None);
}

#[test]
fn bad_metric_is_a_status_on_envoy_and_a_trap_on_kong() {
    let body = r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (call $say_number (call $increment (i32.const 77) (i64.const 1))) (i32.const 0))"#;
    let mut host = envoy(body);
    let id = host.begin(HttpRequest::new("GET", "/"));
    upstream(&mut host, id);
    assert_eq!(said(&host), ["1"]);
    let mut host = kong(body);
    let id = host.begin(HttpRequest::new("GET", "/"));
    assert!(done(&mut host, id).trapped);
}

/// Sets "k" to "one", then to "two" with cas 0, then reads it and deletes it with its cas.
const SHARES: &str = r#"
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
      (call $say_number (call $set_shared @"k" @"one" (i32.const 0)))
      (call $say_number (call $set_shared @"k" @"two" (i32.const 0)))
      (call $say_number (call $get_shared @"k" (i32.const 0) (i32.const 4) (i32.const 8)))
      (call $say_result)
      (call $say_number (call $set_shared @"k" (i32.const 0) (i32.const 0) (i32.load (i32.const 8))))
      (i32.const 0))"#;

fn shares(mut host: Host) -> (Vec<String>, bool) {
    let id = host.begin(HttpRequest::new("GET", "/"));
    host.step(id);
    let kept = host.shared_data().value(b"k").is_some();
    (said(&host), kept)
}

#[test]
fn cas_zero_overwrites_on_envoy_only() {
    assert_eq!(shares(envoy(SHARES)).0, ["0", "0", "0", "two", "0"]);
    assert_eq!(shares(kong(SHARES)).0, ["0", "8", "0", "one", "0"]);
    assert_eq!(
        shares(kong_without("cas_zero_never_overwrites", SHARES)).0,
        ["0", "0", "0", "two", "0"]
    );
}

#[test]
fn null_value_deletes_on_kong_only() {
    assert!(shares(envoy(SHARES)).1);
    assert!(!shares(kong(SHARES)).1);
    assert!(shares(kong_without("null_value_deletes", SHARES)).1);
}

#[test]
fn shared_data_without_a_zone_traps_on_kong() {
    let mut host = kong_without("shared_zone_configured", SHARES);
    let id = host.begin(HttpRequest::new("GET", "/"));
    assert!(done(&mut host, id).trapped);
}

#[test]
fn shared_data_belongs_to_the_process() {
    let settings = Settings::new(Profile::Kong);
    let mut first = host_with(settings.clone(), SHARES);
    settings.shared_data.evict(b"k");
    let id = first.begin(HttpRequest::new("GET", "/"));
    first.step(id);
    assert!(settings.shared_data.keys().is_empty());
    let writes = r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (drop (call $set_shared @"w" @"1" (i32.const 0))) (i32.const 0))"#;
    let mut second = host_with(settings.clone(), writes);
    let id = second.begin(HttpRequest::new("GET", "/"));
    second.step(id);
    assert!(first.shared_data().value(b"w").is_some());
}

#[test]
fn queues_work_on_envoy_and_trap_on_kong() {
    let body = r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
      (call $say_number (call $register @"q" (i32.const 8)))
      (call $say_number (call $dequeue (i32.load (i32.const 8)) (i32.const 0) (i32.const 4)))
      (call $say_number (call $enqueue (i32.load (i32.const 8)) @"item"))
      (call $say_number (call $dequeue (i32.load (i32.const 8)) (i32.const 0) (i32.const 4)))
      (call $say_result)
      (i32.const 0))"#;
    for mut host in [envoy(body), kong_without("shared_queues_trap", body)] {
        let id = host.begin(HttpRequest::new("GET", "/"));
        upstream(&mut host, id);
        assert_eq!(said(&host), ["0", "7", "0", "0", "item"]);
    }
    let mut host = kong(body);
    let id = host.begin(HttpRequest::new("GET", "/"));
    assert!(done(&mut host, id).trapped);
}

#[test]
fn two_exchanges_on_one_vm_get_their_own_answers() {
    let body = r#"
        (func (export "proxy_on_request_headers") (param $id i32) (param i32 i32) (result i32)
          (call $call_out @get_auth)
          ;; remember which context dispatched: 256 + token
          (i32.store (i32.add (i32.const 256) (i32.load (i32.const 8))) (local.get $id))
          (i32.const 1))
        (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32)
          (drop (call $effective (i32.load (i32.add (i32.const 256) (local.get 1)))))
          (call $say_body (i32.const 4))
          (drop (call $get_value (i32.const 6) @"x-for" (i32.const 0) (i32.const 4)))
          (drop (call $replace (i32.const 0) @"x-decided" (i32.load (i32.const 0)) (i32.load (i32.const 4))))
          (drop (call $continue (i32.const 0))))"#;
    // Kong's tokens are 0 and 1: too close for 4-byte slots, but its calls act on their own context anyway.
    for mut host in [envoy(body), kong(body)] {
        let first = host.begin(HttpRequest::new("GET", "/first"));
        let second = host.begin(HttpRequest::new("GET", "/second"));
        let first_call = call(&mut host, first);
        let second_call = call(&mut host, second);
        assert_eq!(host.step(first), Step::Held { calls: 1 });
        let answer = |name: &str| toolgate_harness::host::CallOutcome::Response {
            headers: super::head(200, &[("x-for", name)]),
            body: name.into(),
        };
        host.answer_call(second_call.token, answer("second"));
        assert_eq!(upstream(&mut host, second).headers.text("x-decided"), Some("second"));
        assert_eq!(host.step(first), Step::Held { calls: 1 });
        host.answer_call(first_call.token, answer("first"));
        assert_eq!(upstream(&mut host, first).headers.text("x-decided"), Some("first"));
    }
}

#[test]
fn second_load_of_a_module_comes_from_the_cache() {
    let text = module("");
    let started = std::time::Instant::now();
    for _ in 0..20 {
        load(Settings::new(Profile::Envoy), &text).expect("loads");
    }
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn out_of_bounds_is_a_status_on_envoy_and_a_trap_on_kong() {
    let body = r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (call $say_number (call $set_property (i32.const 0x7fffffff) (i32.const 5) @"v")) (i32.const 0))"#;
    let mut host = envoy(body);
    let id = host.begin(HttpRequest::new("GET", "/"));
    upstream(&mut host, id);
    assert_eq!(said(&host), ["6"]);
    let mut host = kong(body);
    let id = host.begin(HttpRequest::new("GET", "/"));
    assert!(done(&mut host, id).trapped);
}
