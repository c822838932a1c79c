//! The driver with a real Envoy: one process for the whole suite, started from `envoy/envoy.yaml`.
//!
//! Every scenario has a listener of its own, with its own plugin configuration, upstreams and access
//! log, so that nothing a scenario leaves in memory reaches another.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::configuration::{self, PLUGIN, merge};
use crate::play::{Driver, Observed, Request, Session};
use crate::record;
use crate::repository;
use crate::scenario::{DriverKind, Scenario};
use crate::wire;
use crate::world::{World, secret};

/// How long anything may take on a slow machine before the test gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long to wait before looking again.
const GLANCE: Duration = Duration::from_millis(5);

/// Where the ports of tests begin, and how many one process may look at.
const FIRST_PORT: u16 = 15_000;
const MOST_PORTS: u16 = 5_000;

/// How many of its ports this process has looked at.
static LOOKED_AT: AtomicU16 = AtomicU16::new(0);

/// How many proxies this process has started.
static STARTED: AtomicU16 = AtomicU16::new(0);

/// A real Envoy with a listener for every scenario.
pub struct Envoy {
    process: Mutex<Child>,
    folder: PathBuf,
    places: BTreeMap<String, Place>,
    admin: u16,
}

/// Where one scenario is played.
struct Place {
    port: u16,
    access_log: PathBuf,
    world: Slot,
}

/// The world that the upstreams of a place belong to, while its scenario is played.
type Slot = Arc<Mutex<Option<Arc<World>>>>;

struct EnvoySession {
    port: u16,
    access_log: PathBuf,
    envoy_log: PathBuf,
    records: usize,
    world: Arc<World>,
}

impl Envoy {
    /// Starts `program` with a listener for every scenario.
    ///
    /// # Errors
    /// What kept it from starting, with the last lines of its log.
    pub fn start(program: &str, scenarios: &[Scenario]) -> Result<Self, String> {
        Self::start_with_workers(program, scenarios, 1)
    }

    /// The same with so many workers, each of which has an instance of the plugin.
    ///
    /// # Errors
    /// What kept it from starting, with the last lines of its log.
    pub fn start_with_workers(
        program: &str,
        scenarios: &[Scenario],
        workers: usize,
    ) -> Result<Self, String> {
        // A folder of its own: two suites may run at the same time, and one may start several.
        let (suite, started) = (std::process::id(), STARTED.fetch_add(1, Ordering::Relaxed));
        let folder = repository::path(&format!("target/envoy-suite/{suite}-{started}"));
        std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        let mut bootstrap = configuration::bootstrap()?;
        let listener = bootstrap["static_resources"]["listeners"][0].clone();
        let clusters = bootstrap["static_resources"]["clusters"].clone();
        // Held until everything has its port, so that none is given out twice.
        let mut reserved = Vec::new();
        let admin = free_port(&mut reserved)?;
        bootstrap["admin"]["address"]["socket_address"]["port_value"] = json!(admin);
        bootstrap["static_resources"]["listeners"] = json!([]);
        bootstrap["static_resources"]["clusters"] = json!([]);
        let mut places = BTreeMap::new();
        for (index, scenario) in scenarios.iter().enumerate() {
            let place = Place {
                port: free_port(&mut reserved)?,
                access_log: folder.join(format!("access-{index}.log")),
                // The filter's timer asks before the scenario begins.
                world: Slot::default(),
            };
            let before = World::default();
            before.behave(&scenario.world);
            *place.world.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(before));
            let mut plugin = configuration::plugin(scenario.configuration.as_ref())?;
            let mut clusters = clusters.as_array().cloned().unwrap_or_default();
            // The demo has no identity provider; it is reached like a server.
            if plugin.to_string().contains("\"cluster\":\"idp\"") {
                let mut idp = clusters.first().cloned().unwrap_or_default();
                idp["name"] = json!("idp");
                clusters.push(idp);
            }
            for mut cluster in clusters {
                let name = cluster["name"].as_str().unwrap_or_default().to_owned();
                let own = format!("{name}-{index}");
                let port = wire::listen(&name, Arc::clone(&place.world))?;
                cluster["name"] = json!(own);
                cluster["load_assignment"]["cluster_name"] = json!(own);
                cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]
                    ["socket_address"]["port_value"] = json!(port);
                // Otherwise Envoy leaves trailers of answers out by itself, here and towards clients.
                cluster["typed_extension_protocol_options"] = json!({
                    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                        "explicit_http_config": {"http_protocol_options": {"enable_trailers": true}},
                    },
                });
                push(&mut bootstrap["static_resources"]["clusters"], cluster);
                configuration::rename_clusters(&mut plugin, &|cluster| {
                    (cluster == name).then(|| own.clone())
                });
            }
            push(
                &mut bootstrap["static_resources"]["listeners"],
                own_listener(&listener, index, &place, plugin),
            );
            places.insert(scenario.name.clone(), place);
        }
        let file = folder.join("envoy.yaml");
        std::fs::write(&file, bootstrap.to_string()).map_err(|error| error.to_string())?;
        drop(reserved);
        let process = launch(program, &folder, &file, workers)?;
        let envoy = Self { process: Mutex::new(process), folder, places, admin };
        envoy.wait_until_ready()?;
        Ok(envoy)
    }

    /// The port where a scenario is played.
    #[must_use]
    pub fn port(&self, scenario: &str) -> Option<u16> {
        self.places.get(scenario).map(|place| place.port)
    }

    /// How many requests Envoy has taken and not answered yet, on all listeners.
    #[must_use]
    pub fn active_requests(&self) -> Option<u64> {
        let path = "/stats?filter=^http.mcp.downstream_rq_active$".into();
        let stats = Request { method: "GET".into(), path, ..Request::default() };
        let seen = wire::exchange(self.admin, &stats, &|| true).ok()?;
        String::from_utf8(seen.body).ok()?.rsplit_once(':')?.1.trim().parse().ok()
    }

    /// How many connections each worker has taken on the port of a scenario.
    #[must_use]
    pub fn connections(&self, scenario: &str) -> Option<Vec<u64>> {
        let port = self.port(scenario)?;
        let path = format!("/stats?filter=_{port}.worker_[0-9]*.downstream_cx_total$");
        let stats = Request { method: "GET".into(), path, ..Request::default() };
        let seen = wire::exchange(self.admin, &stats, &|| true).ok()?;
        let text = String::from_utf8(seen.body).ok()?;
        text.lines().map(|line| line.rsplit_once(':')?.1.trim().parse().ok()).collect()
    }

    /// The metrics of the plugin as Prometheus reads them.
    #[must_use]
    pub fn prometheus(&self) -> Option<String> {
        let path = "/stats/prometheus?filter=toolgate_&usedonly".into();
        let stats = Request { method: "GET".into(), path, ..Request::default() };
        let seen = wire::exchange(self.admin, &stats, &|| true).ok()?;
        String::from_utf8(seen.body).ok()
    }

    fn wait_until_ready(&self) -> Result<(), String> {
        let begin = Instant::now();
        let ready = Request { method: "GET".into(), path: "/ready".into(), ..Request::default() };
        loop {
            if wire::exchange(self.admin, &ready, &|| true)
                .is_ok_and(|seen| seen.status == Some(200))
            {
                return Ok(());
            }
            let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
            let ended = process.try_wait().map_err(|error| error.to_string())?;
            if ended.is_some() || begin.elapsed() > PATIENCE * 6 {
                return Err(format!("Envoy is not ready: {}", self.last_words()));
            }
            drop(process);
            std::thread::park_timeout(GLANCE);
        }
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.folder.join("envoy.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        let _gone_already = process.kill();
        let _gone_already = process.wait();
        if !std::thread::panicking() {
            let _left_for_a_look = std::fs::remove_dir_all(&self.folder);
        }
    }
}

impl Driver for Envoy {
    fn kind(&self) -> DriverKind {
        DriverKind::Envoy
    }

    fn start(&self, scenario: &Scenario, world: Arc<World>) -> Result<Box<dyn Session>, String> {
        let place = self.places.get(&scenario.name).ok_or("Envoy has no listener for it")?;
        *place.world.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&world));
        Ok(Box::new(EnvoySession {
            port: place.port,
            access_log: place.access_log.clone(),
            envoy_log: self.folder.join("envoy.log"),
            records: 0,
            world,
        }))
    }
}

impl Session for EnvoySession {
    fn now(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    fn advance(&mut self, _by: Duration) {}

    fn tick(&mut self) {}

    fn exchange(&mut self, request: &Request) -> Result<Observed, String> {
        let world = Arc::clone(&self.world);
        let mut observed = wire::exchange(self.port, request, &|| world.was_asked())?;
        observed.audit = self.new_records()?;
        Ok(observed)
    }

    fn logs(&mut self) -> String {
        let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
        read(&self.access_log) + &read(&self.envoy_log)
    }
}

impl EnvoySession {
    /// The access log's lines that were not there before: at least one, since every exchange has one.
    fn new_records(&mut self) -> Result<Vec<BTreeMap<String, String>>, String> {
        let begin = Instant::now();
        loop {
            let text = std::fs::read_to_string(&self.access_log).unwrap_or_default();
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let lines: Vec<&str> = whole.lines().skip(self.records).collect();
            if !lines.is_empty() {
                self.records += lines.len();
                return lines.into_iter().map(read_line).collect();
            }
            if begin.elapsed() > PATIENCE {
                return Err("the access log has no line for the exchange".into());
            }
            std::thread::park_timeout(GLANCE);
        }
    }
}

/// A line of the access log: the record, and beside it what Envoy knows by itself.
fn read_line(line: &str) -> Result<BTreeMap<String, String>, String> {
    let mut fields = record::parse(line)?;
    if let Some(whole) = fields.remove("record") {
        fields.append(&mut record::parse(&whole)?);
    }
    Ok(fields)
}

fn own_listener(listener: &Value, index: usize, place: &Place, plugin: Value) -> Value {
    let mut own = listener.clone();
    let name = format!("scenario-{index}");
    merge(
        &mut own,
        &json!({"name": name, "address": {"socket_address": {"port_value": place.port}}}),
    );
    let relative = PLUGIN.trim_start_matches("/static_resources/listeners/0");
    if let Some(value) = own.pointer_mut(relative) {
        *value = plugin;
    }
    let wasm = relative.trim_end_matches("/configuration/value");
    if let Some(wasm) = own.pointer_mut(wasm) {
        // Another root id is another root context: a gateway that shares nothing with the others.
        merge(wasm, &json!({"name": name, "root_id": name}));
    }
    let manager = &mut own["filter_chains"][0]["filters"][0]["typed_config"];
    // Envoy waits so long for a client to close after an early answer, and these read until it does.
    manager["delayed_close_timeout"] = json!("0.05s");
    manager["http_protocol_options"]["enable_trailers"] = json!(true);
    let log = &mut manager["access_log"][0];
    log["name"] = json!("envoy.access_loggers.file");
    log["typed_config"]["@type"] =
        json!("type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog");
    log["typed_config"]["path"] = json!(place.access_log);
    own
}

fn launch(program: &str, folder: &Path, file: &Path, workers: usize) -> Result<Child, String> {
    let log = std::fs::File::create(folder.join("envoy.log")).map_err(|error| error.to_string())?;
    let copy = log.try_clone().map_err(|error| error.to_string())?;
    Command::new(program)
        .args(["--log-level", "warning", "--component-log-level", "wasm:info"])
        .args(["--concurrency", &workers.to_string(), "--disable-hot-restart"])
        .args(["--file-flush-interval-msec", "20", "--config-path"])
        .arg(file)
        .current_dir(repository::path("."))
        .env("TOOLGATE_VAULT_ROLE_ID", secret("ROLE_ID"))
        .env("TOOLGATE_VAULT_SECRET_ID", secret("SECRET_ID"))
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(copy)
        .spawn()
        .map_err(|error| format!("{program} could not be started: {error}"))
}

/// A port that nobody uses, and that nobody gets while `reserved` lives. Below those that systems give
/// to outgoing connections, one of which could take it before Envoy does.
fn free_port(reserved: &mut Vec<TcpListener>) -> Result<u16, String> {
    loop {
        let next = LOOKED_AT.fetch_add(1, Ordering::Relaxed);
        if next >= MOST_PORTS {
            return Err("there is no free port".into());
        }
        // Each process begins elsewhere.
        let begin = u16::try_from(std::process::id() % 97).unwrap_or_default() * 100;
        let port = FIRST_PORT + begin + next;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            reserved.push(listener);
            return Ok(port);
        }
    }
}

fn push(array: &mut Value, element: Value) {
    if let Some(array) = array.as_array_mut() {
        array.push(element);
    }
}
