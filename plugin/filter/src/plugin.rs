//! The plugin's root context: one for each configuration on each worker.

use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::ContextType;
use toolgate_core::Gateway;

use crate::abi::{self, Buffer};
use crate::configuration;
use crate::exchange::HttpExchange;
use crate::host::Host;

/// A configured plugin. Without a gateway it refuses every request.
#[derive(Default)]
pub(crate) struct Plugin {
    gateway: Option<Rc<Gateway>>,
    host: Option<Host>,
}

impl Context for Plugin {}

impl RootContext for Plugin {
    fn on_configure(&mut self, _size: usize) -> bool {
        let host = Host::detect();
        self.host = Some(host);
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
                log::info!("toolgate is configured: policy set {}", gateway.policy_set());
                self.gateway = Some(Rc::new(gateway));
                true
            }
            Err(problems) => {
                for problem in &problems {
                    log::error!("toolgate configuration: {problem}");
                }
                self.gateway = None;
                host.accepts_bad_configuration()
            }
        }
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _id: u32) -> Option<Box<dyn HttpContext>> {
        let host = self.host.unwrap_or(Host::Envoy);
        Some(Box::new(HttpExchange::new(self.gateway.clone(), host)))
    }
}
