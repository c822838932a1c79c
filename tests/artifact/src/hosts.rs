//! The functions that every supported host provides: what is in both lists, Envoy's and Kong's.
//!
//! Envoy: proxy-wasm-cpp-host, `exports.h`. Kong 3.9: ngx_wasm_module, `ngx_proxy_wasm_host.c` and
//! `ngx_wasi_preview1_host.c`. On Kong some of them trap when they are called (`proxy_done`,
//! `proxy_close_stream`, `proxy_get_status`, `proxy_resolve_shared_queue`, all of gRPC); the SDK
//! imports them, the filter calls none.

/// The proxy-wasm ABI, version 0.2.1. Not here: `proxy_get_log_level`, which Kong declares with
/// another type, so that a module which imports it does not load.
const PROXY_WASM: &[&str] = &[
    "proxy_add_header_map_value",
    "proxy_call_foreign_function",
    "proxy_close_stream",
    "proxy_continue_stream",
    "proxy_define_metric",
    "proxy_dequeue_shared_queue",
    "proxy_done",
    "proxy_enqueue_shared_queue",
    "proxy_get_buffer_bytes",
    "proxy_get_current_time_nanoseconds",
    "proxy_get_header_map_pairs",
    "proxy_get_header_map_value",
    "proxy_get_metric",
    "proxy_get_property",
    "proxy_get_shared_data",
    "proxy_get_status",
    "proxy_grpc_call",
    "proxy_grpc_cancel",
    "proxy_grpc_close",
    "proxy_grpc_send",
    "proxy_grpc_stream",
    "proxy_http_call",
    "proxy_increment_metric",
    "proxy_log",
    "proxy_record_metric",
    "proxy_register_shared_queue",
    "proxy_remove_header_map_value",
    "proxy_replace_header_map_value",
    "proxy_resolve_shared_queue",
    "proxy_send_local_response",
    "proxy_set_buffer_bytes",
    "proxy_set_effective_context",
    "proxy_set_header_map_pairs",
    "proxy_set_property",
    "proxy_set_shared_data",
    "proxy_set_tick_period_milliseconds",
];

/// WASI, preview 1. Not here: `poll_oneoff` and `sched_yield`, which block a worker of Kong.
const WASI: &[&str] = &[
    "args_get",
    "args_sizes_get",
    "clock_time_get",
    "environ_get",
    "environ_sizes_get",
    "fd_close",
    "fd_fdstat_get",
    "fd_prestat_dir_name",
    "fd_prestat_get",
    "fd_read",
    "fd_seek",
    "fd_write",
    "path_open",
    "proc_exit",
    "random_get",
];

/// Whether every host provides this function.
pub(crate) fn provide(module: &str, function: &str) -> bool {
    match module {
        "env" => PROXY_WASM.contains(&function),
        "wasi_snapshot_preview1" => WASI.contains(&function),
        _ => false,
    }
}
