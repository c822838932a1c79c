//! The test harness: one scenario suite, three drivers.
//!
//! [`scenario`] is what is played, [`world`] the servers and the vault around the gateway, [`play`]
//! compares what came of it. Drivers: [`native`] runs the core alone, [`wasm`] the filter in a test
//! host ([`host`]), [`envoy`] the filter in a real Envoy, [`kong_proxy`] the filter in a real Kong.
#![expect(clippy::indexing_slicing, reason = "JSON values are built and patched by known keys")]

pub mod configuration;
pub mod envoy;
pub mod host;
pub mod kong_felt;
pub mod kong_log;
pub mod kong_meta;
pub mod kong_proxy;
pub mod native;
pub mod people;
pub mod play;
pub mod record;
pub mod repository;
pub mod scenario;
pub mod stand_in;
pub mod suite;
pub mod wasm;
pub mod wire;
pub mod world;
