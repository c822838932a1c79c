//! A real Envoy with one worker and a listener for every variant, made from `envoy/envoy.yaml`.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// What stands between client and server.
#[derive(Clone, PartialEq)]
pub(crate) enum Filter {
    /// Nothing.
    Plain,
    /// A WebAssembly file that takes no configuration.
    Bare(PathBuf),
    /// Toolgate, this file of it.
    Toolgate(PathBuf),
}

/// What each request leaves in the access log, which is the same for all variants but one.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Log {
    /// Everything that `envoy/envoy.yaml` writes; what no filter has set is `null`.
    Full,
    /// Of that, what Envoy knows by itself.
    Short,
}

/// A listener.
pub(crate) struct Place {
    pub(crate) filter: Filter,
    pub(crate) log: Log,
    /// The server behind it.
    pub(crate) cluster: &'static str,
}

/// A running Envoy. Stops when dropped.
pub(crate) struct Envoy {
    process: Child,
    log: PathBuf,
    pub(crate) ports: Vec<u16>,
}

const MANAGER: &str = "/filter_chains/0/filters/0/typed_config";

impl Envoy {
    /// Starts `program` with a listener for each of `places` in front of `servers`: name and port.
    pub(crate) fn start(
        program: &Path,
        folder: &Path,
        places: &[Place],
        servers: &[(&'static str, u16)],
    ) -> Result<Self, String> {
        let read =
            |path: &str| fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
        let mut bootstrap: Value = serde_saphyr::from_str(&read("envoy/envoy.yaml")?)
            .map_err(|error| format!("envoy/envoy.yaml: {error}"))?;
        let template = bootstrap["static_resources"]["listeners"][0].clone();
        let clusters = servers.iter().map(|(name, port)| {
            let mut cluster = bootstrap["static_resources"]["clusters"][0].clone();
            cluster["name"] = json!(name);
            cluster["load_assignment"] = json!({
                "cluster_name": name,
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(*port)}}]}],
            });
            cluster
        });
        let clusters: Value = clusters.collect();
        // Held until everything has its port, so that none is given out twice.
        let reserved: Vec<TcpListener> = (0..=places.len())
            .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| error.to_string()))
            .collect::<Result<_, _>>()?;
        let mut ports = Vec::new();
        for listener in &reserved {
            ports.push(listener.local_addr().map_err(|error| error.to_string())?.port());
        }
        let admin = ports.pop().unwrap_or_default();
        bootstrap["admin"]["address"] = address(admin);
        bootstrap["static_resources"]["clusters"] = clusters;
        bootstrap["static_resources"]["listeners"] = places
            .iter()
            .zip(&ports)
            .enumerate()
            .map(|(index, (place, port))| listener(&template, index, place, *port))
            .collect::<Result<_, _>>()?;
        let file = folder.join("envoy.json");
        fs::write(&file, bootstrap.to_string()).map_err(|error| error.to_string())?;
        drop(reserved);
        let log = folder.join("envoy.log");
        let errors = File::create(&log).map_err(|error| error.to_string())?;
        let process = Command::new(program)
            .arg("--config-path")
            .arg(&file)
            .args(["--concurrency", "1", "--log-level", "warn", "--use-dynamic-base-id"])
            .args(["--component-log-level", "wasm:error"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        let mut envoy = Self { process, log, ports };
        envoy.wait_until_ready()?;
        Ok(envoy)
    }

    fn wait_until_ready(&mut self) -> Result<(), String> {
        let begin = Instant::now();
        // A listener takes connections once its filter has been compiled.
        while !self
            .ports
            .iter()
            .all(|port| TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).is_ok())
        {
            let ended = self.process.try_wait().map_err(|error| error.to_string())?;
            if ended.is_some() || begin.elapsed() > Duration::from_secs(120) {
                let log = fs::read_to_string(&self.log).unwrap_or_default();
                let lines: Vec<&str> = log.lines().rev().take(5).collect();
                return Err(format!("Envoy does not start: {}", lines.join("\n")));
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
        Ok(())
    }

    /// CPU time of the process so far, over all threads.
    pub(crate) fn cpu(&self) -> Result<Duration, String> {
        let tasks = format!("/proc/{}/task", self.process.id());
        let mut total = 0;
        for task in fs::read_dir(&tasks).map_err(|error| error.to_string())? {
            let path = task.map_err(|error| error.to_string())?.path().join("schedstat");
            // A thread may end in between: what it had spent is lost, which is next to nothing.
            let Ok(text) = fs::read_to_string(path) else { continue };
            let spent = text.split(' ').next().and_then(|spent| spent.parse::<u64>().ok());
            total += spent.ok_or("the kernel does not account threads' time in schedstat")?;
        }
        Ok(Duration::from_nanos(total))
    }

    /// The process, for a profiler.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _gone_already = self.process.kill();
        let _gone_already = self.process.wait();
    }
}

fn address(port: u16) -> Value {
    json!({"socket_address": {"address": "127.0.0.1", "port_value": port}})
}

/// The listener of `envoy/envoy.yaml` as this place has it.
fn listener(template: &Value, index: usize, place: &Place, port: u16) -> Result<Value, String> {
    let mut listener = template.clone();
    listener["name"] = json!(format!("variant-{index}"));
    listener["address"] = address(port);
    let manager = listener.pointer_mut(MANAGER).ok_or("envoy.yaml has another form")?;
    if place.log == Log::Short {
        manager["access_log"][0]["typed_config"]["log_format"]["json_format"]
            .as_object_mut()
            .ok_or("envoy.yaml has another access log")?
            .retain(|_, value| !value.as_str().is_some_and(|value| value.contains("FILTER_STATE")));
    }
    if let Filter::Toolgate(file) = &place.filter {
        let wasm = &mut manager["http_filters"][0]["typed_config"]["config"];
        wasm["vm_config"] = vm(file);
        let plugin = &mut wasm["configuration"]["value"];
        plugin["credentials"]["billing-key"] =
            json!({"static": {"value": "only-the-server-sees-this"}});
        plugin["vaults"] = json!({});
        for server in ["everything", "billing"] {
            plugin["servers"][server]["cluster"] = json!(place.cluster);
        }
        return Ok(listener);
    }
    // Without toolgate there is nothing to keep clients from choosing the route, and one route.
    if let Some(manager) = manager.as_object_mut() {
        manager.remove("early_header_mutation_extensions");
    }
    manager["route_config"]["virtual_hosts"][0]["routes"] = json!([{
        "match": {"prefix": "/"},
        "route": {"cluster": place.cluster, "timeout": "0s", "idle_timeout": "3600s"},
    }]);
    match &place.filter {
        Filter::Bare(file) => {
            let wasm = &mut manager["http_filters"][0]["typed_config"]["config"];
            wasm["vm_config"] = vm(file);
            wasm["configuration"] = Value::Null;
        }
        _ => {
            manager["http_filters"].as_array_mut().ok_or("envoy.yaml has no filters")?.remove(0);
        }
    }
    Ok(listener)
}

fn vm(file: &Path) -> Value {
    json!({
        "vm_id": file.display().to_string(),
        "runtime": "envoy.wasm.runtime.v8",
        "code": {"local": {"filename": file}},
    })
}
