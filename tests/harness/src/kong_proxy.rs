//! The driver with a real Kong: one process for the whole suite, started with `kong/kong.conf` and a
//! declarative configuration made of `kong/kong.yml`, on loopback only.
//!
//! Every scenario has a Service and a Route of its own, told apart by `Host`, with its own filter chain
//! and upstreams. Scenarios are played one after the other, since all records land in one error log.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::play::{Driver, Observed, Request, Session};
use crate::scenario::{DriverKind, Scenario};
use crate::world::World;
use crate::{configuration, kong_log, repository, wire};

/// How long anything may take on a slow machine before the test gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long Kong may take to start: it compiles the filter.
const START: Duration = Duration::from_secs(180);

/// How long to wait before looking again.
const GLANCE: Duration = Duration::from_millis(10);

/// Where Kong comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// The `kong` command of this machine.
    Installed(String),
    /// A container.
    Container {
        /// `docker` or `podman`.
        engine: String,
        /// The image.
        image: String,
    },
}

/// A real Kong with a Service for every scenario.
pub struct Kong {
    program: Program,
    container: String,
    folder: PathBuf,
    /// Where an installed Kong keeps its own files and sockets.
    prefix: PathBuf,
    port: u16,
    places: BTreeMap<String, Place>,
}

/// Where one scenario is played.
struct Place {
    host: String,
    world: Slot,
}

/// The world that the upstreams of a place belong to, while its scenario is played.
type Slot = Arc<Mutex<Option<Arc<World>>>>;

struct KongSession {
    port: u16,
    host: String,
    log: PathBuf,
    world: Arc<World>,
}

impl Kong {
    /// Starts Kong with a Service for every scenario.
    ///
    /// # Errors
    /// What kept it from starting, with the last lines of its log.
    pub fn start(program: Program, scenarios: &[Scenario]) -> Result<Self, String> {
        let id = std::process::id();
        let folder = repository::path(&format!("target/kong-suite/{id}"));
        std::fs::create_dir_all(folder.join("filters")).map_err(failed)?;
        let folder = folder.canonicalize().map_err(failed)?;
        for (from, to) in [
            ("target/toolgate.wasm", "filters/toolgate.wasm"),
            ("kong/toolgate.meta.json", "filters/toolgate.meta.json"),
            ("kong/kong.conf", "kong.conf"),
        ] {
            std::fs::copy(repository::path(from), folder.join(to))
                .map_err(|error| format!("{from}: {error}; run scripts/build first"))?;
        }
        let mut services = Vec::new();
        let mut places = BTreeMap::new();
        for (index, scenario) in scenarios.iter().enumerate() {
            let place = Place { host: format!("scenario-{index}.test"), world: Slot::default() };
            let mut ports = BTreeMap::new();
            for name in ["everything", "billing", "vault", "idp"] {
                ports.insert(name, wire::listen(name, Arc::clone(&place.world))?);
            }
            let mut plugin = configuration::plugin(scenario.configuration.as_ref())?;
            configuration::adapt_to_kong(&mut plugin, |name| {
                ports.get(name).map(|port| format!("127.0.0.1:{port}"))
            });
            services.push(own_service(&example_service()?, index, &place.host, plugin));
            places.insert(scenario.name.clone(), place);
        }
        let document = json!({"_format_version": "3.0", "services": services});
        std::fs::write(folder.join("kong.json"), document.to_string()).map_err(failed)?;
        let port = free_port()?;
        let container = format!("toolgate-kong-{id}");
        let prefix = std::env::temp_dir().join(&container);
        let kong = Self { program, container, folder, prefix, port, places };
        kong.launch()?;
        kong.wait_until_ready()?;
        Ok(kong)
    }

    fn launch(&self) -> Result<(), String> {
        let settings = settings(&self.folder, self.port);
        open_to_readers(&self.folder)?;
        let mut command = match &self.program {
            Program::Installed(program) => {
                let mut command = Command::new(program);
                command.args(["start", "--conf"]).arg(self.folder.join("kong.conf"));
                // A root's Kong has workers that are another user and may not enter every home, and
                // its sockets' names may have 107 bytes: a short place that everybody may enter.
                std::fs::create_dir(&self.prefix)
                    .map_err(|error| format!("{}: {error}", self.prefix.display()))?;
                may_be_used_by_others(&self.prefix, 0o755)?;
                command.envs(settings).env("KONG_PREFIX", &self.prefix);
                command
            }
            Program::Container { engine, image } => {
                // Kong is another user there, who writes its logs here.
                may_be_used_by_others(&self.folder, 0o777)?;
                let mut command = Command::new(engine);
                // Kong and the upstreams, which are in this process, share one loopback.
                command.args(["run", "--detach", "--network", "host", "--name", &self.container]);
                let shared = format!("{0}:{0}:z", self.folder.display());
                command.args(["--volume", &shared, "--volume"]);
                command
                    .arg(format!("{}/kong.conf:/etc/kong/kong.conf:ro,z", self.folder.display()));
                for (name, value) in settings {
                    command.arg("--env").arg(format!("{name}={value}"));
                }
                command.arg(image);
                command
            }
        };
        run(&mut command).map_err(|problem| format!("{problem}\n{}", self.last_words()))
    }

    fn wait_until_ready(&self) -> Result<(), String> {
        let begin = Instant::now();
        let nobody = vec![("host".to_owned(), "nobody.test".to_owned())];
        let request = Request {
            method: "GET".into(),
            path: "/".into(),
            headers: nobody,
            ..Request::default()
        };
        loop {
            // Kong answers 404 where it has no Route.
            if wire::exchange(self.port, &request, &|| true)
                .is_ok_and(|seen| seen.status == Some(404))
            {
                return Ok(());
            }
            if begin.elapsed() > START {
                return Err(format!("Kong is not ready after {START:?}\n{}", self.last_words()));
            }
            if !self.runs() {
                return Err(format!("Kong has ended\n{}", self.last_words()));
            }
            std::thread::park_timeout(GLANCE * 10);
        }
    }

    /// Whether the container runs. An installed Kong says by itself when it cannot start.
    fn runs(&self) -> bool {
        let Program::Container { engine, .. } = &self.program else { return true };
        let mut command = Command::new(engine);
        command.args(["inspect", "--format", "{{.State.Running}}", &self.container]);
        command.output().is_ok_and(|said| said.stdout.starts_with(b"true"))
    }

    fn last_words(&self) -> String {
        let mut words = tail(&self.folder.join("error.log"));
        if let Program::Container { engine, .. } = &self.program {
            let logs =
                Command::new(engine).args(["logs", "--tail", "30", &self.container]).output();
            for text in logs.iter().flat_map(|logs| [&logs.stdout, &logs.stderr]) {
                words.push_str(&String::from_utf8_lossy(text));
            }
        }
        words
    }
}

impl Drop for Kong {
    fn drop(&mut self) {
        let mut command = match &self.program {
            Program::Installed(program) => {
                let mut command = Command::new(program);
                command.args(["stop", "--prefix"]).arg(&self.prefix);
                command
            }
            Program::Container { engine, .. } => {
                let mut command = Command::new(engine);
                command.args(["rm", "--force", &self.container]);
                command
            }
        };
        // The folder stays: its log says more than the tests do.
        let _gone_already = run(&mut command);
        if matches!(self.program, Program::Installed(_)) {
            let begin = Instant::now();
            // Kong was told to end; its files are taken away when it has.
            while self.prefix.join("pids/nginx.pid").exists() && begin.elapsed() < PATIENCE {
                std::thread::park_timeout(GLANCE);
            }
            let _not_there = std::fs::remove_dir_all(&self.prefix);
        }
    }
}

impl Driver for Kong {
    fn kind(&self) -> DriverKind {
        DriverKind::Kong
    }

    fn start(&self, scenario: &Scenario, world: Arc<World>) -> Result<Box<dyn Session>, String> {
        let place = self.places.get(&scenario.name).ok_or("Kong has no Service for it")?;
        *place.world.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&world));
        let log = self.folder.join("error.log");
        Ok(Box::new(KongSession { port: self.port, host: place.host.clone(), log, world }))
    }
}

impl Session for KongSession {
    fn now(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    fn advance(&mut self, _by: Duration) {}

    fn tick(&mut self) {}

    fn exchange(&mut self, request: &Request) -> Result<Observed, String> {
        let mut request = request.clone();
        request.headers.push(("host".into(), self.host.clone()));
        let before = self.log_text().len();
        let world = Arc::clone(&self.world);
        let seen = wire::exchange(self.port, &request, &|| world.was_asked());
        let whole = seen.and_then(|mut seen| {
            seen.audit = self.new_records(before)?;
            Ok(seen)
        });
        whole.map_err(|problem| format!("{problem}\nKong's error log ends:\n{}", tail(&self.log)))
    }

    fn logs(&mut self) -> String {
        self.log_text()
    }
}

impl KongSession {
    fn log_text(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The records after this much of the log: at least one, since every exchange has one.
    fn new_records(&self, before: usize) -> Result<Vec<BTreeMap<String, String>>, String> {
        let begin = Instant::now();
        loop {
            let text = self.log_text();
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let records = kong_log::records(whole.get(before..).unwrap_or_default().lines());
            if !records.is_empty() {
                return Ok(records);
            }
            if begin.elapsed() > PATIENCE {
                return Err("the error log has no record of the exchange".into());
            }
            std::thread::park_timeout(GLANCE);
        }
    }
}

/// The Service of `kong/kong.yml`.
///
/// # Errors
/// What is wrong with the file.
pub fn example_service() -> Result<Value, String> {
    let text = repository::read("kong/kong.yml")?;
    let document: Value =
        serde_saphyr::from_str(&text).map_err(|error| format!("kong/kong.yml: {error}"))?;
    document.pointer("/services/0").cloned().ok_or_else(|| "kong/kong.yml has no Service".into())
}

/// The example's Service for one scenario: its own name, `Host` and configuration. Every path leads to
/// the filter, which has to refuse those that MCP does not have.
#[must_use]
pub fn own_service(example: &Value, index: usize, host: &str, plugin: Value) -> Value {
    let mut service = example.clone();
    let name = format!("scenario-{index}");
    service["name"] = json!(name);
    service["routes"][0]["name"] = json!(name);
    service["routes"][0]["hosts"] = json!([host]);
    service["routes"][0]["paths"] = json!(["/"]);
    service["filter_chains"][0]["name"] = json!(name);
    service["filter_chains"][0]["filters"][0]["config"] = plugin;
    service
}

/// What differs from `kong/kong.conf`: places, and loopback only.
#[must_use]
pub fn settings(folder: &Path, port: u16) -> BTreeMap<&'static str, String> {
    let place = |name: &str| folder.join(name).display().to_string();
    BTreeMap::from([
        ("KONG_DATABASE", "off".into()),
        ("KONG_DECLARATIVE_CONFIG", place("kong.json")),
        ("KONG_WASM", "on".into()),
        ("KONG_WASM_FILTERS_PATH", place("filters")),
        ("KONG_PROXY_LISTEN", format!("127.0.0.1:{port}")),
        ("KONG_ADMIN_LISTEN", "off".into()),
        ("KONG_ADMIN_GUI_LISTEN", "off".into()),
        ("KONG_STATUS_LISTEN", "off".into()),
        ("KONG_PROXY_ERROR_LOG", place("error.log")),
        ("KONG_PROXY_ACCESS_LOG", place("access.log")),
        ("KONG_NGINX_WORKER_PROCESSES", "1".into()),
        ("KONG_ANONYMOUS_REPORTS", "off".into()),
    ])
}

fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let done = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{name} could not be started: {error}"))?;
    if done.status.success() {
        return Ok(());
    }
    let said = [done.stdout, done.stderr].concat();
    Err(format!("{name} ended with {}: {}", done.status, String::from_utf8_lossy(&said)))
}

/// Lets other users read what lies in a folder, whatever this user's habits (umask) are.
fn open_to_readers(folder: &Path) -> Result<(), String> {
    may_be_used_by_others(folder, 0o755)?;
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            open_to_readers(&path)?;
        } else {
            may_be_used_by_others(&path, 0o644)?;
        }
    }
    Ok(())
}

fn may_be_used_by_others(path: &Path, mode: u32) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed)
}

/// The last lines of a log.
fn tail(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().rev().take(30).collect();
    lines.into_iter().rev().map(|line| format!("{line}\n")).collect()
}

fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(failed)?;
    Ok(listener.local_addr().map_err(failed)?.port())
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn failed(error: std::io::Error) -> String {
    error.to_string()
}
