//! Compiling a filter: the wasmtime engine, its code cache on disk, the imports of the profile.
//!
//! Cranelift needs seconds for a filter with Cedar in it. wasmtime's own cache (keyed by the wasm, the compiler
//! version and its settings) keeps the machine code under `target/`, without `unsafe` on our side.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};

use wasmtime::{Cache, CacheConfig, Config, Engine, InstancePre, Linker, Module, Store};

use super::abi;
use super::vm::Vm;
use super::wasi;

/// Why a filter could not be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostError {
    /// The file could not be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// It is not a module that wasmtime compiles.
    Compile {
        /// What wasmtime said.
        reason: String,
    },
    /// It imports something this proxy does not offer.
    Import {
        /// Import module, e.g. `env`.
        module: String,
        /// Import name.
        name: String,
    },
    /// It names no ABI version that the proxies speak.
    AbiVersion,
    /// It could not be instantiated.
    Start {
        /// What wasmtime said.
        reason: String,
    },
    /// It killed the worker process while starting (Kong starts it again, and again).
    WorkerCrashed,
}

impl fmt::Display for HostError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, reason } => {
                write!(formatter, "cannot read `{}`: {reason}", path.display())
            }
            Self::Compile { reason } => write!(formatter, "cannot compile the filter: {reason}"),
            Self::Import { module, name } => {
                write!(
                    formatter,
                    "the filter imports `{module}.{name}`, which this proxy does not offer"
                )
            }
            Self::AbiVersion => {
                write!(formatter, "the filter exports no known `proxy_abi_version_*`")
            }
            Self::Start { reason } => write!(formatter, "cannot start the filter: {reason}"),
            Self::WorkerCrashed => {
                write!(formatter, "the filter crashes the worker while it starts")
            }
        }
    }
}

impl std::error::Error for HostError {}

/// Where the compiled code is kept.
fn cache_directory() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target"),
        PathBuf::from,
    );
    let directory = target.join("wasmtime-cache");
    // wasmtime wants an absolute, existing path.
    let created = std::fs::create_dir_all(&directory).and_then(|()| directory.canonicalize());
    created.unwrap_or(directory)
}

/// One engine for the process: its modules can be shared by every host.
fn engine() -> Result<&'static Engine, HostError> {
    static ENGINE: OnceLock<Result<Engine, HostError>> = OnceLock::new();
    ENGINE
        .get_or_init(|| {
            let mut cache = CacheConfig::new();
            cache.with_directory(cache_directory());
            let mut config = Config::new();
            // Without a cache the tests are slow, not wrong.
            config.cache(Cache::new(cache).ok());
            Engine::new(&config)
                .map_err(|error| HostError::Compile { reason: format!("{error:#}") })
        })
        .as_ref()
        .map_err(Clone::clone)
}

/// The module of these bytes, compiled at most once per process.
fn module(wasm: &[u8]) -> Result<Module, HostError> {
    static MODULES: Mutex<BTreeMap<(u64, usize), Module>> = Mutex::new(BTreeMap::new());
    let mut hasher = DefaultHasher::new();
    wasm.hash(&mut hasher);
    let key = (hasher.finish(), wasm.len());
    let mut modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(module) = modules.get(&key) {
        return Ok(module.clone());
    }
    let module = Module::new(engine()?, wasm)
        .map_err(|error| HostError::Compile { reason: format!("{error:#}") })?;
    modules.insert(key, module.clone());
    Ok(module)
}

/// Compiles and links; fails for what the proxy of that profile would refuse.
pub(crate) fn prepare(wasm: &[u8], vm: Vm) -> Result<(Store<Vm>, InstancePre<Vm>), HostError> {
    let module = module(wasm)?;
    if !module.exports().any(|export| {
        ["proxy_abi_version_0_1_0", "proxy_abi_version_0_2_0", "proxy_abi_version_0_2_1"]
            .contains(&export.name())
    }) {
        return Err(HostError::AbiVersion);
    }
    let start = |error: wasmtime::Error| HostError::Start { reason: format!("{error:#}") };
    let mut linker = Linker::new(module.engine());
    // kong-host.md §4: importing proxy_get_log_level makes instantiation fail.
    let log_level = !vm.settings.kong(|rules| rules.log_level_import_fails);
    abi::link(&mut linker, log_level).map_err(start)?;
    wasi::link(&mut linker).map_err(start)?;
    let mut store = Store::new(module.engine(), vm);
    let offered: BTreeSet<(String, String)> = linker
        .iter(&mut store)
        .map(|(module, name, _)| (module.to_owned(), name.to_owned()))
        .collect();
    for import in module.imports() {
        let (module, name) = (import.module().to_owned(), import.name().to_owned());
        if !offered.contains(&(module.clone(), name.clone())) {
            return Err(HostError::Import { module, name });
        }
    }
    let module = linker.instantiate_pre(&module).map_err(start)?;
    Ok((store, module))
}
