//! Small filters in the text format: a prelude of imports and helpers around the callbacks of one test.
//!
//! In a body, `@"text"` stands for the pointer and the size of that text, `@name` for those of named header pairs.
//! Results land in memory: pointer at 0, size at 4, token or number at 8.

use toolgate_harness::host::{Host, Profile, Settings};

const PRELUDE: &str = r#"
  (import "env" "proxy_log" (func $proxy_log (param i32 i32 i32) (result i32)))
  (import "env" "proxy_get_current_time_nanoseconds" (func $time (param i32) (result i32)))
  (import "env" "proxy_set_tick_period_milliseconds" (func $set_tick (param i32) (result i32)))
  (import "env" "proxy_get_buffer_bytes" (func $get_buffer (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_set_buffer_bytes" (func $set_buffer (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_get_header_map_pairs" (func $get_pairs (param i32 i32 i32) (result i32)))
  (import "env" "proxy_set_header_map_pairs" (func $set_pairs (param i32 i32 i32) (result i32)))
  (import "env" "proxy_get_header_map_value" (func $get_value (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_replace_header_map_value" (func $replace (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_remove_header_map_value" (func $remove (param i32 i32 i32) (result i32)))
  (import "env" "proxy_get_property" (func $get_property (param i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_set_property" (func $set_property (param i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_get_shared_data" (func $get_shared (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_set_shared_data" (func $set_shared (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_register_shared_queue" (func $register (param i32 i32 i32) (result i32)))
  (import "env" "proxy_enqueue_shared_queue" (func $enqueue (param i32 i32 i32) (result i32)))
  (import "env" "proxy_dequeue_shared_queue" (func $dequeue (param i32 i32 i32) (result i32)))
  (import "env" "proxy_continue_stream" (func $continue (param i32) (result i32)))
  (import "env" "proxy_close_stream" (func $close (param i32) (result i32)))
  (import "env" "proxy_send_local_response"
    (func $reply (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_http_call"
    (func $http_call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_set_effective_context" (func $effective (param i32) (result i32)))
  (import "env" "proxy_define_metric" (func $define (param i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_increment_metric" (func $increment (param i32 i64) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ_sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_get" (func $environ (param i32 i32) (result i32)))
  (memory (export "memory") 8)
  (global $heap (mut i32) (i32.const 65536))
  (func (export "proxy_abi_version_0_2_1"))
  (func $alloc (export "proxy_on_memory_allocate") (param $size i32) (result i32)
    (global.get $heap)
    (global.set $heap (i32.add (global.get $heap) (i32.add (local.get $size) (i32.const 8)))))
  ;; writes text to the log
  (func $say (param $at i32) (param $size i32)
    (drop (call $proxy_log (i32.const 2) (local.get $at) (local.get $size))))
  ;; writes what the last call returned by pointer and size
  (func $say_result (call $say (i32.load (i32.const 0)) (i32.load (i32.const 4))))
  ;; writes a number below 100000 to the log
  (func $say_number (param $number i32)
    (local $at i32)
    (local.set $at (i32.const 56))
    (loop $digits
      (local.set $at (i32.sub (local.get $at) (i32.const 1)))
      (i32.store8 (local.get $at) (i32.add (i32.const 48) (i32.rem_u (local.get $number) (i32.const 10))))
      (local.set $number (i32.div_u (local.get $number) (i32.const 10)))
      (br_if $digits (local.get $number)))
    (call $say (local.get $at) (i32.sub (i32.const 56) (local.get $at))))
  ;; calls "auth" with the given pairs; the status to the log
  (func $call_out (param $pairs i32) (param $size i32)
    (call $say_number (call $http_call @"auth" (local.get $pairs) (local.get $size) (i32.const 0) (i32.const 0)
      (i32.const 0) (i32.const 0) (i32.const 1000) (i32.const 8))))
  (func $deny (param $status i32)
    (drop (call $reply (local.get $status) @"denied by test" @"denied" @reply_headers (i32.const -1))))
  ;; whole body of kind 0 (request) or 1 (response) to the log
  (func $say_body (param $kind i32)
    (i32.store (i32.const 4) (i32.const 0))
    (drop (call $get_buffer (local.get $kind) (i32.const 0) (i32.const -1) (i32.const 0) (i32.const 4)))
    (call $say_result))
"#;

/// Pairs that every filter may name.
const PAIRS: &[(&str, &[(&str, &str)])] = &[
    ("get_auth", &[(":method", "GET"), (":path", "/check"), (":authority", "auth.example")]),
    ("no_path", &[(":method", "GET"), (":authority", "auth.example")]),
    ("reply_headers", &[("x-reason", "test")]),
    ("twice", &[("x-a", "1"), ("x-a", "2"), ("x-empty", "")]),
];

/// The text of a module with these callbacks.
pub(crate) fn module(body: &str) -> String {
    let mut data = String::new();
    let mut next = 1024;
    let mut place = |bytes: &[u8]| {
        let at = next;
        next += bytes.len() + 1;
        let escaped: String = bytes.iter().map(|byte| format!("\\{byte:02x}")).collect();
        data += &format!("  (data (i32.const {at}) \"{escaped}\")\n");
        format!("(i32.const {at}) (i32.const {})", bytes.len())
    };
    let mut code = format!("{PRELUDE}{body}");
    while let Some((before, rest)) = code.split_once("@\"") {
        let (text, after) = rest.split_once('"').expect("closing quote");
        let placed = place(text.replace("\\0", "\0").as_bytes());
        code = format!("{before}{placed}{after}");
    }
    for (name, pairs) in PAIRS {
        let marker = format!("@{name}");
        if code.contains(&marker) {
            let placed = place(&serialize(pairs));
            code = code.replace(&marker, &placed);
        }
    }
    format!("(module {code}\n{data})")
}

fn serialize(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = (pairs.len() as u32).to_le_bytes().to_vec();
    for (name, value) in pairs {
        bytes.extend((name.len() as u32).to_le_bytes());
        bytes.extend((value.len() as u32).to_le_bytes());
    }
    for (name, value) in pairs {
        bytes.extend([name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
    }
    bytes
}

/// A host with these callbacks under those settings.
pub(crate) fn host_with(settings: Settings, body: &str) -> Host {
    let text = module(body);
    match Host::from_bytes(text.as_bytes(), settings, b"configuration", &environment()) {
        Ok(host) => host,
        Err(error) => panic!("{error}\n{text}"),
    }
}

/// Under the defaults of Envoy.
pub(crate) fn envoy(body: &str) -> Host {
    host_with(Settings::new(Profile::Envoy), body)
}

/// Under the defaults of Kong.
pub(crate) fn kong(body: &str) -> Host {
    host_with(Settings::new(Profile::Kong), body)
}

/// Kong without one of its rules.
pub(crate) fn kong_without(rule: &str, body: &str) -> Host {
    let mut settings = Settings::new(Profile::Kong);
    settings.kong = toolgate_harness::host::KongRules::all_but(rule).expect("a known rule");
    host_with(settings, body)
}

/// Envoy without one of its rules.
pub(crate) fn envoy_without(rule: &str, body: &str) -> Host {
    let mut settings = Settings::new(Profile::Envoy);
    settings.envoy = toolgate_harness::host::EnvoyRules::all_but(rule).expect("a known rule");
    host_with(settings, body)
}

/// What every filter of these tests finds in its environment.
pub(crate) fn environment() -> Vec<(String, String)> {
    vec![("TOKEN".to_owned(), "secret".to_owned()), ("RUST_BACKTRACE".to_owned(), "1".to_owned())]
}

/// What the filter wrote to the log.
pub(crate) fn said(host: &Host) -> Vec<String> {
    host.logs().iter().filter(|line| line.by_filter).map(|line| line.text.clone()).collect()
}
