//! Which proxy the host imitates, and every rule of it that a test can switch off.
//!
//! Does not act: the rules are read where they apply (`abi`, `maps`, `buffers`, `kong`, ...).

use std::collections::BTreeSet;

use super::shared::SharedData;

/// The variable that names one rule of Kong to switch off in every test: what fails then shows where the
/// plugin feels the rule (`kong-felt`).
pub const WITHOUT: &str = "KONG_WITHOUT_RULE";

/// Every rule of Kong, or all but one.
#[expect(clippy::panic, reason = "a test must not pass because of a misspelt name")]
fn without_one(name: Option<&str>) -> KongRules {
    match name {
        None => KongRules::default(),
        Some(name) => {
            KongRules::all_but(name).unwrap_or_else(|| panic!("{WITHOUT}: there is no rule {name}"))
        }
    }
}

/// The proxy that the host imitates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Envoy 1.40 with V8 and `failure_policy: FAIL_CLOSED`.
    Envoy,
    /// Kong Gateway 3.9.3 with `ngx_wasm_module` and wasmtime.
    Kong,
}

/// Everything the operator of the proxy decides, and everything a test may change about the host.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The proxy to imitate.
    pub profile: Profile,
    /// Rules read only with [`Profile::Envoy`].
    pub envoy: EnvoyRules,
    /// Rules read only with [`Profile::Kong`].
    pub kong: KongRules,
    /// Clusters that a call may name (Envoy only); `None` accepts every name.
    pub clusters: Option<BTreeSet<String>>,
    /// Largest body that Envoy holds for a filter (`per_connection_buffer_limit_bytes`).
    pub buffer_limit: usize,
    /// Kong's `client_body_buffer_size`: a larger request body lands in a file.
    pub client_body_buffer: usize,
    /// Kong's `wasm_response_body_buffers`, in bytes: what a paused response body may hold.
    pub response_buffers: usize,
    /// Kong's own name and port: what `:authority` and `request.host` say there.
    pub server_name: String,
    /// Kong: host of the Service that the route leads to, whose port is the black hole.
    pub service_host: String,
    /// Shared data of the process: clone one value into several hosts to imitate several workers.
    pub shared_data: SharedData,
    /// Seed of `random_get`; two hosts with one seed draw the same bytes.
    pub seed: u64,
}

impl Settings {
    /// The defaults of that proxy.
    #[must_use]
    pub fn new(profile: Profile) -> Self {
        Self {
            profile,
            envoy: EnvoyRules::default(),
            kong: without_one(std::env::var(WITHOUT).ok().as_deref()),
            clusters: None,
            buffer_limit: 1 << 20,
            client_body_buffer: 8 << 10,
            response_buffers: 16 << 10,
            server_name: "kong:8000".to_owned(),
            service_host: "127.0.0.1".to_owned(),
            shared_data: SharedData::default(),
            seed: 0x7001_6a7e,
        }
    }

    /// The rule is on and the profile is Kong.
    pub(crate) fn kong(&self, rule: fn(&KongRules) -> bool) -> bool {
        self.profile == Profile::Kong && rule(&self.kong)
    }
}

macro_rules! rules {
    ($(#[$outer:meta])* $name:ident { $($(#[$doc:meta])* $rule:ident,)+ }) => {
        $(#[$outer])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name { $($(#[$doc])* pub $rule: bool,)+ }

        impl Default for $name {
            /// Every rule on.
            fn default() -> Self {
                Self { $($rule: true,)+ }
            }
        }

        impl $name {
            /// The name of every rule, for a test that switches off one after the other.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($rule),)+];

            /// Every rule on but the named one; `None` when no rule has that name.
            #[must_use]
            pub fn all_but(name: &str) -> Option<Self> {
                let mut rules = Self::default();
                match name {
                    $(stringify!($rule) => rules.$rule = false,)+
                    _ => return None,
                }
                Some(rules)
            }
        }
    };
}

rules! {
    /// What Envoy does that a filter has to live with. All on by default.
    EnvoyRules {
        /// `allow_on_headers_stop_iteration: true` in `PluginConfig`; off (Envoy's own default), a pause in the
        /// headers holds back the body callbacks too.
        allow_on_headers_stop_iteration,
        /// The end of a body is an empty chunk of its own (HTTP/1.1); off, the last chunk carries the end
        /// (as HTTP/2 may do).
        end_in_empty_chunk,
        /// A header map is gone once its callback returned Continue: reading it is BadArgument.
        headers_gone_after_continue,
        /// A body larger than the buffer limit is answered by the host (413; 500 for a response).
        buffer_limit_enforced,
        /// A call to an unknown cluster, or without `:method`, `:path` or `:authority`, is BadArgument.
        bad_call_is_bad_argument,
        /// A local reply passes the filter's own response callbacks.
        local_reply_passes_filter,
        /// Integers in properties are 8 raw little-endian bytes.
        properties_are_raw,
        /// A failed VM answers 503 to every exchange until it is loaded anew.
        fail_closed,
    }
}

rules! {
    /// What Kong does that a filter has to live with (`kong-host.md`). All on by default; with a rule off the
    /// host behaves there as Envoy does (or, where Envoy has no counterpart, as one would hope).
    KongRules {
        /// §3: property values are decimal strings; off, raw little-endian integers.
        properties_are_strings,
        /// §3: `:authority` and `request.host` name the server, not the client's `Host`.
        authority_is_server_name,
        /// §3: setting an unknown `kong.*` property traps.
        unknown_kong_property_traps,
        /// §3: reading `kong.response.source` traps.
        response_source_traps,
        /// §3: setting a property of an unknown namespace is NotFound.
        unknown_property_is_not_found,
        /// §3: setting a read-only nginx variable is InternalFailure.
        read_only_variable_is_internal_failure,
        /// `kong/runloop/wasm.lua` 3.9.3 (source): a target that is not `host:port` traps.
        malformed_target_traps,
        /// `kong/pdk/service.lua` 3.9.3 (source): setting the target writes its host, without the port, into
        /// `ngx.upstream_host`.
        target_sets_upstream_host,
        /// `Kong.balancer` 3.9.3 (source): the Service's address was looked up before the filter ran, so that the
        /// target changes the port only.
        target_keeps_service_address,
        /// §3: `upstream.address` carries garbage at its end.
        upstream_address_is_garbled,
        /// §3: any dotted property in a root context is InternalFailure.
        root_properties_fail,
        /// §3: `plugin_name` in `on_configure` kills the worker.
        plugin_name_in_configure_crashes,
        /// §4: importing `proxy_get_log_level` fails the load.
        log_level_import_fails,
        /// §4: the tick period may be set in the root context only; elsewhere it traps.
        tick_period_in_root_only,
        /// §4: a second non-zero tick period without a zero between traps.
        second_tick_period_traps,
        /// §4: `done`, `close_stream`, gRPC, `get_status`, `resolve_shared_queue` trap.
        unimplemented_traps,
        /// §4: shared queues need `shm_queue`, which Kong forbids: registering traps.
        shared_queues_trap,
        /// §4: `set_effective_context` is a no-op.
        effective_context_ignored,
        /// §4: trailer callbacks never come.
        trailers_never_come,
        /// §4: the filter's environment has `RUST_BACKTRACE` and `WASMTIME_BACKTRACE_DETAILS` only.
        environment_is_bare,
        /// §5: `end_of_stream` is always false in the header callbacks.
        eos_never_in_headers,
        /// §5: a request body is delivered once, whole, with eos.
        body_called_once,
        /// §5: a pause in the request headers holds back the body callback.
        headers_pause_holds_body,
        /// §5: `get_buffer` ignores the offset.
        get_buffer_ignores_offset,
        /// §5: a request body over `client_body_buffer_size` is announced but cannot be read.
        large_body_is_in_a_file,
        /// §5: `set_buffer` cuts the new content to the size argument.
        set_buffer_cuts_to_size,
        /// §5: the request body out of its two phases traps.
        request_body_out_of_phase_traps,
        /// §5: the response body out of its phase traps.
        response_body_out_of_phase_traps,
        /// §5: writing headers after their phase traps.
        headers_out_of_phase_trap,
        /// §5: setting `:path` does not change what goes upstream.
        path_set_has_no_effect,
        /// `ngx_proxy_wasm_maps_get_path`: `:path` is nginx's `r->uri`, decoded and without dots and double slashes,
        /// and the query as it came.
        path_is_decoded,
        /// §5: setting `:authority` is logged, answered Ok and ignored.
        authority_is_read_only,
        /// §5: setting `host` does not change what goes upstream.
        host_set_has_no_effect,
        /// §5: a dispatch without `:method` or `:path` traps.
        dispatch_needs_method_and_path,
        /// §5: a dispatch in configure, response or log callbacks traps.
        dispatch_out_of_phase_traps,
        /// §5: call tokens start at 0.
        tokens_start_at_zero,
        /// §5: the request stays held until every call is answered, whatever the filter resumed.
        resume_waits_for_all_calls,
        /// §5: after the last call the request resumes by itself.
        resumes_by_itself,
        /// §5: a failed call has a `:dispatch_status` and nothing else.
        failed_call_has_dispatch_status,
        /// §5: a name that does not resolve still reports `:dispatch_status` "ok".
        unresolved_name_says_ok,
        /// §5: dispatch and Continue skips the response filters and kills the worker when the call returns late.
        dispatch_then_continue_crashes,
        /// §5: a second local reply traps.
        second_local_reply_traps,
        /// `ngx_http_wasm_local_response.c` (source): a line feed is appended to the body of a local reply.
        local_reply_ends_in_newline,
        /// §5: a local reply in the response headers keeps the old Content-Length: the client hangs.
        local_reply_in_response_headers_hangs,
        /// §5: a local reply in the response body traps.
        local_reply_in_response_body_traps,
        /// §5: a pause in the response headers is ignored.
        response_headers_pause_ignored,
        /// §5: with a Content-Length a split response never has eos.
        eos_only_when_chunk_is_content_length,
        /// §5: a paused response body is buffered once, up to the buffers' size; a second pause is an error.
        response_buffers_once,
        /// §5: no body callback for HEAD.
        no_body_callback_for_head,
        /// §5: responses that Kong makes itself do not pass the filter.
        own_errors_skip_filter,
        /// §5: `on_done` is called before `on_log`.
        done_before_log,
        /// §5: shared data with cas 0 on an existing key is CasMismatch.
        cas_zero_never_overwrites,
        /// §5: a null value deletes the key.
        null_value_deletes,
        /// §5: shared data without a configured zone traps (the zone exists by default).
        shared_zone_configured,
        /// §5: a metric name over 256 bytes traps.
        long_metric_name_traps,
        /// §5: a trap in the request callbacks is a 500.
        request_trap_is_500,
        /// §5: a trap in `on_http_call_response` sends the request upstream.
        call_trap_proxies,
        /// §5: a trap in the response callbacks leaves the response as it was.
        response_trap_passes,
        /// §5: after a trap every other exchange goes on with an empty context in a fresh instance.
        trap_empties_contexts,
        /// §5: after a trap the old timer keeps firing, and a dispatch from it traps.
        stale_timer_fires,
        /// §5: a rejected configuration leaves every route without the filter.
        bad_configuration_is_open,
    }
}
