//! Running the guest: instances, callbacks and what they leave to be done.
//!
//! Shared by both profiles; where they differ, the difference is asked for by name.

use wasmtime::Val;

use super::Host;
use super::engine::HostError;
use super::http::LogLevel;
use super::settings::Profile;
use super::vm::{Deferred, Exchange, Phase, ROOT, Vm};

/// How a call into the guest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Called {
    /// Also when the module does not export the callback: both proxies go on.
    Returned(i32),
    Trapped,
}

impl Called {
    pub(super) fn continues(self) -> bool {
        self == Self::Returned(0)
    }
}

impl Host {
    pub(super) fn vm(&self) -> &Vm {
        self.store.data()
    }

    pub(super) fn vm_mut(&mut self) -> &mut Vm {
        self.store.data_mut()
    }

    pub(super) fn input(&mut self) {
        self.vm_mut().moment += 1;
    }

    /// The exchange, unless it is over.
    pub(super) fn open_exchange(&mut self, id: u32) -> Option<&mut Exchange> {
        self.vm_mut().exchanges.get_mut(&id).filter(|exchange| !exchange.over)
    }

    /// A fresh instance, started and configured; whether the filter accepted its configuration.
    pub(super) fn start(&mut self, whole: bool) -> Result<bool, HostError> {
        let instance = self
            .module
            .instantiate(&mut self.store)
            .map_err(|error| HostError::Start { reason: format!("{error:#}") })?;
        self.instance = Some(instance);
        for name in ["_initialize", "_start"] {
            if instance.get_func(&mut self.store, name).is_some() {
                if self.call(ROOT, Phase::Start, name, &[]) == Called::Trapped {
                    return Ok(false);
                }
                break;
            }
        }
        let size = u32::try_from(self.vm().configuration.len()).unwrap_or(u32::MAX);
        if self.call(ROOT, Phase::Start, "proxy_on_context_create", &[ROOT, 0]) == Called::Trapped {
            return Ok(false);
        }
        // `ngx_proxy_wasm_create_context`: a root context that is made anew after a trap is not told of the VM.
        if whole && !self.accepts(Phase::Start, "proxy_on_vm_start", &[ROOT, 0]) {
            return Ok(false);
        }
        Ok(self.accepts(Phase::Configure, "proxy_on_configure", &[ROOT, size]))
    }

    /// A callback that answers true or false; absent is true.
    pub(super) fn accepts(&mut self, phase: Phase, export: &str, arguments: &[u32]) -> bool {
        if !self.exports(export) {
            return true;
        }
        let called = self.call(ROOT, phase, export, arguments);
        self.vm_mut().deferred.clear();
        matches!(called, Called::Returned(accepted) if accepted != 0)
    }

    pub(super) fn exports(&mut self, name: &str) -> bool {
        self.instance.is_some_and(|instance| instance.get_func(&mut self.store, name).is_some())
    }

    /// Calls into the guest; host calls act on `context`.
    pub(super) fn call(
        &mut self,
        context: u32,
        phase: Phase,
        export: &str,
        arguments: &[u32],
    ) -> Called {
        let Some(function) =
            self.instance.and_then(|instance| instance.get_func(&mut self.store, export))
        else {
            return Called::Returned(0);
        };
        let vm = self.vm_mut();
        vm.current = context;
        vm.effective = None;
        vm.phase = phase;
        vm.stopped = false;
        vm.deferred.clear();
        let values: Vec<Val> =
            arguments.iter().map(|argument| Val::I32(argument.cast_signed())).collect();
        let mut results = vec![Val::I32(0); function.ty(&self.store).results().len()];
        let called = function.call(&mut self.store, &values, &mut results);
        let vm = self.vm_mut();
        vm.phase = Phase::Idle;
        vm.effective = None;
        match called {
            Ok(()) => Called::Returned(results.first().and_then(Val::i32).unwrap_or(0)),
            Err(error) => {
                vm.deferred.clear();
                vm.log(LogLevel::Critical, format!("{export} trapped: {error:?}"));
                Called::Trapped
            }
        }
    }

    /// Calls a stream callback and notes it. The first argument is always the context.
    pub(super) fn callback(
        &mut self,
        id: u32,
        phase: Phase,
        name: &str,
        arguments: &[u32],
    ) -> Called {
        let export = format!("proxy_{name}");
        let mut all = vec![id];
        all.extend(arguments);
        self.note(id, name, arguments);
        let called = self.call(id, phase, &export, &all);
        if called == Called::Trapped
            && let Some(exchange) = self.vm_mut().exchanges.get_mut(&id)
        {
            exchange.observed.trapped = true;
        }
        called
    }

    pub(super) fn note(&mut self, id: u32, name: &str, arguments: &[u32]) {
        if let Some(exchange) = self.vm_mut().exchanges.get_mut(&id) {
            let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
            exchange.observed.callbacks.push(format!("{name}({})", arguments.join(", ")));
        }
    }

    /// Makes the stream's context in the instance, if it is not there; `false` when that trapped.
    pub(super) fn create_context(&mut self, id: u32) -> bool {
        match self.vm_mut().exchanges.get_mut(&id) {
            Some(exchange) if !exchange.created => exchange.created = true,
            _ => return true,
        }
        self.call(id, Phase::Create, "proxy_on_context_create", &[id, ROOT]) != Called::Trapped
    }

    /// What the host calls of the last callback asked for.
    pub(super) fn run_deferred(&mut self) {
        for deferred in std::mem::take(&mut self.vm_mut().deferred) {
            match (self.vm().profile(), deferred) {
                (Profile::Envoy, deferred) => self.envoy_deferred(deferred),
                (Profile::Kong, Deferred::Reply { exchange, status, details, headers, body }) => {
                    self.kong_local_reply(exchange, status, &details, &headers, body);
                }
                (Profile::Kong, Deferred::ResumeRequest(id) | Deferred::ResumeResponse(id)) => {
                    self.kong_resume(id);
                }
                (Profile::Kong, Deferred::Close(_)) => {}
            }
        }
    }

    /// The instance trapped: Envoy fails the VM, Kong makes a new one.
    pub(super) fn instance_trapped(&mut self) {
        match self.vm().profile() {
            Profile::Envoy => self.failed = self.vm().settings.envoy.fail_closed,
            Profile::Kong => self.kong_revive(),
        }
    }

    /// The stream's last callbacks, in the order of the proxy. The exchange stays to be read.
    pub(super) fn end_exchange(&mut self, id: u32) {
        let Some(exchange) = self.open_exchange(id) else { return };
        exchange.over = true;
        let gone = !exchange.created || (exchange.observed.trapped && exchange.bypass);
        let late_call_crashes = exchange.continued_with_calls;
        let kong = self.vm().profile() == Profile::Kong;
        if kong && !late_call_crashes {
            self.vm_mut().calls.retain(|_, call| call.context != id);
        }
        if gone || self.failed {
            return;
        }
        // kong-host.md §5: on_done is called before on_log (Envoy: log, then done).
        let mut last =
            [(Phase::Log, "on_log"), (Phase::Done, "on_done"), (Phase::Done, "on_delete")];
        if self.vm().settings.kong(|rules| rules.done_before_log) {
            last.swap(0, 1);
        }
        for (phase, name) in last {
            if self.callback(id, phase, name, &[]) == Called::Trapped {
                self.instance_trapped();
                break;
            }
        }
        self.vm_mut().deferred.clear();
        if let Some(exchange) = self.vm_mut().exchanges.get_mut(&id) {
            exchange.created = false;
        }
    }
}
