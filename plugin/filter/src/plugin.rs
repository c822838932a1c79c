//! The plugin's root context: one for each configuration on each worker.

use std::rc::Rc;
use std::time::Duration;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::ContextType;
use toolgate_core::Gateway;

use crate::abi::{self, Buffer, Status};
use crate::configuration;
use crate::exchange::HttpExchange;
use crate::host::Host;
use crate::metrics;
use crate::shared;
use crate::worker::{self, Tokens, Worker};

/// How often the gateway is told that time has passed.
const TICK: Duration = Duration::from_secs(1);

/// A configured plugin. Without a gateway it refuses every request.
pub(crate) struct Plugin {
    id: u32,
    worker: Option<Rc<Worker>>,
    /// Calls of this root context, those of an earlier configuration among them.
    tokens: Rc<Tokens>,
    ticks: bool,
}

impl Plugin {
    /// The root context with this id.
    pub(crate) fn new(id: u32) -> Self {
        Self { id, worker: None, tokens: Rc::default(), ticks: false }
    }

    fn configured(&mut self, gateway: Option<Gateway>, host: Host) {
        if gateway.is_some() && host.has_a_timer() && !self.ticks {
            self.ticks = true;
            if let Err(Status(status)) = abi::set_tick_period(TICK) {
                log::error!("there is no timer: status {status}");
            }
        }
        let tokens = Rc::clone(&self.tokens);
        self.worker = Some(Worker::new(gateway.map(Rc::new), host, self.id, tokens));
    }
}

impl Context for Plugin {
    fn on_http_call_response(
        &mut self,
        token: u32,
        _headers: usize,
        size: usize,
        _trailers: usize,
    ) {
        let call = self.tokens.borrow_mut().remove(&token);
        if let Some((worker, id)) = call {
            worker.on_call_done(id, worker::outcome(size));
        }
    }
}

impl RootContext for Plugin {
    fn on_configure(&mut self, _size: usize) -> bool {
        let host = Host::detect();
        let bytes = abi::buffer(Buffer::PluginConfiguration).unwrap_or_default();
        let document = match host.writes_by_lua() {
            true => configuration::from_lua(bytes),
            false => Ok(configuration::document(bytes)),
        };
        let document = document.unwrap_or_else(|problem| {
            log::error!("toolgate configuration: {problem}");
            Vec::new()
        });
        let environment = |name: &str| std::env::var(name).ok();
        match Gateway::compile(&document, &environment) {
            Ok(gateway) if gateway.needs_a_timer() && !host.has_a_timer() => {
                log::error!(
                    "toolgate configuration: policy_bundle: this host has no timer to fetch policies by; give them in `policy`"
                );
                self.configured(None, host);
                host.accepts_bad_configuration()
            }
            Ok(gateway) => {
                // Record ids must differ between workers; nothing secret hangs on it, since the
                // randomness of one host is not for secrets.
                gateway.set_record_seed(getrandom::u64().unwrap_or_default());
                for warning in gateway.warnings() {
                    log::warn!("toolgate configuration: {warning}");
                }
                for cluster in gateway.server_clusters().filter(|name| !host.can_name(name)) {
                    log::error!(
                        "toolgate configuration: cluster {cluster:?} is not host:port: its server cannot be reached"
                    );
                }
                shared::prepare(&gateway, host);
                log::info!("toolgate is configured: policy set {}", gateway.policy_set());
                self.configured(Some(gateway), host);
                count(true, host);
                true
            }
            Err(problems) => {
                for problem in &problems {
                    log::error!("toolgate configuration: {problem}");
                }
                self.configured(None, host);
                count(false, host);
                host.accepts_bad_configuration()
            }
        }
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn on_tick(&mut self) {
        if let Some(worker) = &self.worker {
            worker.on_tick();
        }
    }

    // No queue is registered: this is how `abi::enter_root` enters.
    fn on_queue_ready(&mut self, _queue: u32) {
        if let Some(worker) = &self.worker {
            worker.on_entered();
        }
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        // A host asks for none before it has configured the plugin; if one did, nothing would pass.
        let worker = self
            .worker
            .clone()
            .unwrap_or_else(|| Worker::new(None, Host::Envoy, self.id, Rc::clone(&self.tokens)));
        Some(Box::new(HttpExchange::new(id, worker)))
    }
}

fn count(accepted: bool, host: Host) {
    if host.has_metrics() {
        metrics::count_configuration(accepted);
    }
}
