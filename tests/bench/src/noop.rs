//! Filters that decide nothing, as the proxy's own floor, and what single host calls cost on top.

/// How often a filter makes each kind of host call for one request.
#[derive(Clone, Copy, Default)]
pub(crate) struct HostCalls {
    /// `proxy_get_header_map_pairs`, of the request.
    pub(crate) read_headers: u32,
    /// `proxy_get_buffer_bytes`, of the request's body, which is held until it is whole.
    pub(crate) read_body: u32,
    /// `proxy_set_buffer_bytes`, of the request's body.
    pub(crate) write_body: u32,
    /// `proxy_replace_header_map_value`, each of a header of its own.
    pub(crate) set_headers: u32,
    /// `proxy_remove_header_map_value`, each of a header that is not there.
    pub(crate) remove_headers: u32,
    /// `proxy_set_property`, each of a property of its own, when the exchange is over.
    pub(crate) set_properties: u32,
    /// `proxy_get_current_time_nanoseconds`
    pub(crate) read_clock: u32,
    /// `proxy_get_property`, of the client's address.
    pub(crate) read_property: u32,
}

/// A filter with a callback for everything that toolgate has one for. `body` is what it replaces the
/// request's body by, where it does.
pub(crate) fn filter(calls: HostCalls, body: &str) -> Result<Vec<u8>, String> {
    let HostCalls {
        read_headers,
        read_body,
        write_body,
        set_headers,
        remove_headers,
        set_properties,
        read_clock,
        read_property,
    } = calls;
    let (quoted, length) = (body.replace('"', "\\\""), body.len());
    let holds = i32::from(read_body + write_body > 0);
    // 16: names, of which the last character counts; 64: a value; 512: where results go.
    let text = format!(
        r#"(module
  (import "env" "proxy_get_header_map_pairs" (func $headers (param i32 i32 i32) (result i32)))
  (import "env" "proxy_get_buffer_bytes" (func $body (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_set_buffer_bytes" (func $replace (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_replace_header_map_value" (func $set (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_remove_header_map_value" (func $remove (param i32 i32 i32) (result i32)))
  (import "env" "proxy_set_property" (func $property (param i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_get_property" (func $get (param i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_get_current_time_nanoseconds" (func $clock (param i32) (result i32)))
  (memory (export "memory") 4)
  (data (i32.const 16) "toolgate.field-a")
  (data (i32.const 64) "a value of usual length")
  (data (i32.const 1024) "{quoted}")
  (data (i32.const 320) "source\00address")
  (func $name (param $index i32)
    (i32.store8 (i32.const 31) (i32.add (i32.const 97) (local.get $index))))
  (func $times (param $count i32) (param $what i32)
    (loop $again
      (if (i32.gt_s (local.get $count) (i32.const 0))
        (then
          (local.set $count (i32.sub (local.get $count) (i32.const 1)))
          (call $name (local.get $count))
          (call_indirect (type $call) (local.get $what))
          (br $again)))))
  (type $call (func))
  (table funcref (elem $0 $1 $2 $3 $4 $5 $6 $7))
  (func $0 (drop (call $headers (i32.const 0) (i32.const 512) (i32.const 516))))
  (func $1 (drop (call $body (i32.const 0) (i32.const 0) (i32.const 0x7fffffff) (i32.const 512) (i32.const 516))))
  (func $2 (drop (call $replace (i32.const 0) (i32.const 0) (i32.const 0x7fffffff) (i32.const 1024) (i32.const {length}))))
  (func $3 (drop (call $set (i32.const 0) (i32.const 25) (i32.const 7) (i32.const 64) (i32.const 23))))
  (func $4 (drop (call $remove (i32.const 0) (i32.const 25) (i32.const 7))))
  (func $5 (drop (call $property (i32.const 16) (i32.const 16) (i32.const 64) (i32.const 23))))
  (func $6 (drop (call $clock (i32.const 512))))
  (func $7 (drop (call $get (i32.const 320) (i32.const 14) (i32.const 512) (i32.const 516))))
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 65536))
  (func (export "proxy_on_context_create") (param i32 i32))
  (func (export "proxy_on_vm_start") (param i32 i32) (result i32) (i32.const 1))
  (func (export "proxy_on_configure") (param i32 i32) (result i32) (i32.const 1))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (call $times (i32.const {read_headers}) (i32.const 0))
    (call $times (i32.const {read_property}) (i32.const 7))
    (call $times (i32.const {read_clock}) (i32.const 6))
    (i32.const {holds}))
  (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
    (if (i32.eqz (local.get 2)) (then (return (i32.const {holds}))))
    (call $times (i32.const {read_body}) (i32.const 1))
    (call $times (i32.const {remove_headers}) (i32.const 4))
    (call $times (i32.const {set_headers}) (i32.const 3))
    (call $times (i32.const {write_body}) (i32.const 2))
    (i32.const 0))
  (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) (i32.const 0))
  (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32) (i32.const 0))
  (func (export "proxy_on_done") (param i32) (result i32) (i32.const 1))
  (func (export "proxy_on_log") (param i32)
    (call $times (i32.const {set_properties}) (i32.const 5)))
  (func (export "proxy_on_delete") (param i32)))
"#
    );
    wat::parse_str(text).map_err(|error| error.to_string())
}
