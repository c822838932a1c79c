//! A program that behaves like `kong` as far as `scripts/kong` uses it, with the test host's Kong profile
//! behind a real listener: what the script does can be tried where no Kong is.
//!
//! It knows the commands `version`, `start` and `stop`, the settings of [`crate::kong_proxy::settings`],
//! Services told apart by `Host`, one filter each, and one request at a time.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::host::{CallOutcome, Headers, Host, HttpRequest, Profile, Settings, Step};
use crate::play::{Observed, Request};
use crate::wire;
use crate::world::Asked;

/// How long it may take to start.
const START: Duration = Duration::from_secs(20);

/// Header fields that belong to one connection.
const OF_THE_CONNECTION: &[&str] = &["connection", "content-length", "transfer-encoding", "host"];

/// Runs a command.
///
/// # Errors
/// What a person has to know.
pub fn run(arguments: &[String]) -> Result<String, String> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["version"] => Ok("3.9.3\n".into()),
        ["start", "--conf", conf] => start(Path::new(conf)),
        ["stop", "--prefix", prefix] => stop(&Path::new(prefix).join("pids/nginx.pid")),
        ["serve", body_buffer] => serve(body_buffer.parse().map_err(|_| "not a size")?),
        _ => Err(format!("no such command: {words:?}")),
    }
}

fn setting(name: &str) -> Result<String, String> {
    std::env::var(name).map_err(|_| format!("{name} is not set"))
}

fn start(conf: &Path) -> Result<String, String> {
    let text =
        std::fs::read_to_string(conf).map_err(|error| format!("{}: {error}", conf.display()))?;
    let mut lines = text.lines().filter_map(|line| line.split_once(" = "));
    let buffer = lines
        .find(|(name, _)| *name == "nginx_http_client_body_buffer_size")
        .and_then(|(_, size)| size.strip_suffix('m')?.parse::<usize>().ok())
        .map_or(8 << 10, |mebibytes| mebibytes << 20);
    let pids = PathBuf::from(setting("KONG_PREFIX")?).join("pids");
    std::fs::create_dir_all(&pids).map_err(|error| format!("{}: {error}", pids.display()))?;
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.args(["serve", &buffer.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut served = command.spawn().map_err(|error| error.to_string())?;
    let listen = setting("KONG_PROXY_LISTEN")?;
    let begin = Instant::now();
    while TcpStream::connect(&listen).is_err() {
        if served.try_wait().is_ok_and(|ended| ended.is_some()) || begin.elapsed() > START {
            return Err(format!("it does not listen on {listen}"));
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    let pid = served.id().to_string();
    std::fs::write(pids.join("nginx.pid"), pid).map_err(|error| error.to_string())?;
    Ok("Kong started\n".into())
}

fn stop(pid: &Path) -> Result<String, String> {
    let number = std::fs::read_to_string(pid).map_err(|_| "nginx not running in prefix")?;
    let ended = Command::new("kill").arg(number.trim()).status();
    std::fs::remove_file(pid).map_err(|error| error.to_string())?;
    match ended {
        Ok(status) if status.success() => Ok("Kong stopped\n".into()),
        _ => Err("could not send signal".into()),
    }
}

/// A Service with its filter, which is loaded when the first request comes.
struct Service {
    hosts: Vec<String>,
    machine: String,
    configuration: String,
    filter: Option<Host>,
    /// Lines of the filter's log that are in Kong's.
    logged: usize,
}

fn serve(body_buffer: usize) -> Result<String, String> {
    let file = setting("KONG_DECLARATIVE_CONFIG")?;
    let text = std::fs::read_to_string(&file).map_err(|error| format!("{file}: {error}"))?;
    let document: Value =
        serde_json::from_str(&text).map_err(|error| format!("{file}: {error}"))?;
    let services = document["services"].as_array().ok_or("no services")?;
    let mut services = services
        .iter()
        .map(|service| service_of(service).ok_or_else(|| format!("no Service: {service}")))
        .collect::<Result<Vec<_>, _>>()?;
    let wasm = PathBuf::from(setting("KONG_WASM_FILTERS_PATH")?).join("toolgate.wasm");
    let log = setting("KONG_PROXY_ERROR_LOG")?;
    let mut log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&log)
        .map_err(|error| format!("{log}: {error}"))?;
    let listener =
        TcpListener::bind(setting("KONG_PROXY_LISTEN")?).map_err(|error| error.to_string())?;
    for stream in listener.incoming().flatten() {
        // A client that goes away has had its answer.
        let _gone = answer(stream, &mut services, &wasm, body_buffer, &mut log);
    }
    Ok(String::new())
}

fn service_of(service: &Value) -> Option<Service> {
    let hosts = service["routes"][0]["hosts"].as_array()?;
    let machine = service["url"].as_str()?.strip_prefix("http://")?;
    let filter = &service["filter_chains"][0]["filters"][0];
    (filter["name"] == "toolgate").then_some(Service {
        hosts: hosts.iter().filter_map(|host| host.as_str().map(str::to_owned)).collect(),
        machine: machine.split(':').next()?.to_owned(),
        configuration: filter["config"].to_string(),
        filter: None,
        logged: 0,
    })
}

fn answer(
    mut stream: TcpStream,
    services: &mut [Service],
    wasm: &Path,
    body_buffer: usize,
    log: &mut File,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let Some(asked) = wire::read_request(&mut reader, "kong")? else { return Ok(()) };
    let host = asked.header("host").unwrap_or_default().to_owned();
    let Some(service) = services.iter_mut().find(|service| service.hosts.contains(&host)) else {
        return stream.write_all(
            b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        );
    };
    if service.filter.is_none() {
        let mut settings = Settings::new(Profile::Kong);
        settings.client_body_buffer = body_buffer;
        settings.service_host.clone_from(&service.machine);
        let configuration = service.configuration.as_bytes();
        let filter = Host::load_with(wasm, settings, configuration, &[]);
        service.filter = Some(filter.map_err(|error| std::io::Error::other(error.to_string()))?);
    }
    let Some(filter) = &mut service.filter else { return Ok(()) };
    filter.set_time(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
    let seen = pass(filter, &asked);
    if let Some(status) = seen.status {
        write!(stream, "HTTP/1.1 {status} Stand-in\r\nconnection: close\r\n")?;
        for (name, value) in seen.headers.iter() {
            if !OF_THE_CONNECTION.contains(&name.to_ascii_lowercase().as_str()) {
                write!(stream, "{name}: {}\r\n", String::from_utf8_lossy(value))?;
            }
        }
        let body = seen.body();
        write!(stream, "content-length: {}\r\n\r\n", body.len())?;
        stream.write_all(&body)?;
    }
    for line in filter.logs().iter().skip(service.logged) {
        let place = format!("client: 127.0.0.1, server: kong, host: {host:?}");
        writeln!(log, "[info] 1#0: *1 [proxy-wasm][\"toolgate\" #1] {}, {place}", line.text)?;
    }
    service.logged = filter.logs().len();
    Ok(())
}

/// Plays one request through the filter, with real connections for what it asks for.
fn pass(filter: &mut Host, asked: &Asked) -> crate::host::Observed {
    let mut request = HttpRequest::new(&asked.method, &asked.path);
    for (name, value) in &asked.headers {
        match name.as_str() {
            "host" => request.headers.set(":authority", value.as_bytes()),
            "connection" => {}
            name => request.headers.add(name, value.as_bytes()),
        }
    }
    if !asked.body.is_empty() {
        request = request.chunks([asked.body.clone()]);
    }
    let id = filter.begin(request);
    loop {
        match filter.step(id) {
            Step::Call(call) => {
                let patience = call.timeout.unwrap_or(START);
                let outcome = match send(&call.cluster, &call.headers, call.body, patience) {
                    Some(seen) => CallOutcome::Response { headers: head(&seen), body: seen.body },
                    None => CallOutcome::Failed,
                };
                filter.answer_call(call.token, outcome);
            }
            Step::Upstream(upstream) => {
                let address = upstream.address.unwrap_or_default();
                match send(&address, &upstream.headers, upstream.body, START) {
                    Some(seen) => {
                        filter.upstream_response_head(id, head(&seen), seen.body.is_empty());
                        if !seen.body.is_empty() {
                            filter.upstream_response_body(id, &seen.body, false);
                            filter.upstream_response_body(id, b"", true);
                        }
                    }
                    None => filter.upstream_reset(id),
                }
            }
            Step::AwaitUpstream | Step::Done | Step::Held { .. } => return filter.finish(id),
        }
    }
}

/// Asks an upstream on loopback. None where nobody answers.
fn send(address: &str, headers: &Headers, body: Vec<u8>, patience: Duration) -> Option<Observed> {
    let port = address.strip_prefix("127.0.0.1:")?.parse().ok()?;
    let text = |name: &str| headers.text(name).unwrap_or_default().to_owned();
    let mut request =
        Request { method: text(":method"), path: text(":path"), ..Request::default() };
    request.headers.push(("host".into(), text(":authority")));
    for (name, value) in headers.iter().filter(|(name, _)| !name.starts_with(':')) {
        if !OF_THE_CONNECTION.contains(&name) {
            let value = String::from_utf8_lossy(value).into_owned();
            request.headers.push((name.to_owned(), value));
        }
    }
    if !body.is_empty() {
        request.pieces = vec![body];
    }
    wire::exchange_within(patience, port, &request, &|| true).ok()
}

fn head(seen: &Observed) -> Headers {
    let status = seen.status.unwrap_or_default().to_string();
    let mut head = Headers::from([(":status", status)]);
    for (name, value) in &seen.headers {
        if name != "content-length" && name != "transfer-encoding" {
            head.add(name.as_str(), value.as_bytes());
        }
    }
    head
}
