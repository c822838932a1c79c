//! `toolgate.wasm`: the gateway as a proxy-wasm plugin.
//!
//! Translates between a proxy and the gateway: host callbacks become events, effects become host
//! calls. It decides nothing. Nothing here panics: on one host a panic lets requests through.
#![allow(missing_docs, reason = "the SDK's macro makes a function without any")]

mod abi;
mod calls;
mod configuration;
mod exchange;
mod host;
mod kong_log;
mod lost;
mod metrics;
mod plugin;
mod shared;
mod worker;

use proxy_wasm::types::LogLevel;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|id| Box::new(plugin::Plugin::new(id)));
}}
