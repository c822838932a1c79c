//! Properties: what the filter may ask about the exchange, and what it leaves for the access log.
//!
//! Both proxies take a path whose segments are joined with NUL. Envoy walks it as attributes; Kong reads it with
//! dots (kong-host.md §3).

use super::abi::{Answer, Guest, Status, trap};
use super::settings::Profile;
use super::vm::{Exchange, Phase, Vm};

/// A value before the proxy's own encoding.
enum Value {
    Text(String),
    Bytes(Vec<u8>),
    Integer(i64),
    Flag(bool),
}

impl Value {
    fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// envoy-host.md: raw little-endian integers. kong-host.md §3: decimal strings.
    fn encode(self, raw: bool) -> Vec<u8> {
        match self {
            Self::Text(text) => text.into_bytes(),
            Self::Bytes(bytes) => bytes,
            Self::Integer(number) if raw => number.to_le_bytes().to_vec(),
            Self::Integer(number) => number.to_string().into_bytes(),
            Self::Flag(flag) if raw => vec![u8::from(flag)],
            Self::Flag(flag) => flag.to_string().into_bytes(),
        }
    }
}

pub(crate) fn get(guest: &mut Guest<'_>, path: (i32, i32), to: (i32, i32)) -> Answer {
    let path = guest.read_text(path.0, path.1)?;
    let vm = guest.vm();
    let (value, raw) = match vm.profile() {
        Profile::Envoy => (get_on_envoy(vm, &path), vm.settings.envoy.properties_are_raw),
        Profile::Kong => (get_on_kong(vm, &path)?, !vm.settings.kong.properties_are_strings),
    };
    let value = value.ok_or(Status::NotFound)?.encode(raw);
    guest.give(&value, to.0, to.1)
}

pub(crate) fn set(guest: &mut Guest<'_>, path: (i32, i32), value: (i32, i32)) -> Answer {
    let path = guest.read_text(path.0, path.1)?;
    let value = guest.read(value.0, value.1)?;
    let vm = guest.vm();
    match vm.profile() {
        Profile::Envoy => {
            // Filter state of the stream; a root context has none. A path of several segments keeps its NULs in
            // the name, which is why the access log cannot resolve it.
            let exchange = vm.exchange_mut().ok_or(Status::NotFound)?;
            exchange.observed.properties.insert(format!("wasm.{path}"), value);
            Ok(())
        }
        Profile::Kong => set_on_kong(vm, &path.replace('\0', "."), value),
    }
}

fn get_on_envoy(vm: &Vm, path: &str) -> Option<Value> {
    let parts: Vec<&str> = path.split('\0').collect();
    match parts.as_slice() {
        ["plugin_name"] | ["plugin_root_id"] => Some(Value::text("toolgate")),
        ["plugin_vm_id"] => Some(Value::text("")),
        ["node", "id"] | ["xds", "node", "id"] => Some(Value::text("node")),
        ["node", "cluster"] => Some(Value::text("cluster")),
        [first, rest @ ..] => {
            let exchange = vm.exchange()?;
            if let Some(value) = attribute(vm, exchange, first, rest) {
                return Some(value);
            }
            let state = match (*first, rest) {
                ("filter_state", [name]) => (*name).to_owned(),
                (name, []) => format!("wasm.{name}"),
                _ => return None,
            };
            exchange.observed.properties.get(&state).cloned().map(Value::Bytes)
        }
        [] => None,
    }
}

/// The attributes both proxies know, under Envoy's names.
fn attribute(vm: &Vm, exchange: &Exchange, first: &str, rest: &[&str]) -> Option<Value> {
    let client = &exchange.original.client;
    let integer = |number: usize| Value::Integer(i64::try_from(number).unwrap_or(i64::MAX));
    let nanoseconds = |time: std::time::Duration| {
        Value::Integer(i64::try_from(time.as_nanos()).unwrap_or(i64::MAX))
    };
    let request = |name: &str| exchange.request.headers.text(name).map(Value::text);
    let certificate = client.tls.as_ref().and_then(|tls| tls.certificate.as_ref());
    let address = |address: &str| Value::text(format!("{address}:{}", client.port));
    let kong = vm.profile() == Profile::Kong;
    Some(match (first, rest) {
        ("request", ["path"]) => request(":path")?,
        ("request", ["url_path"]) => {
            Value::text(exchange.request.headers.text(":path")?.split('?').next()?)
        }
        ("request", ["query"]) => Value::text(
            exchange.request.headers.text(":path")?.split_once('?').map_or("", |(_, query)| query),
        ),
        ("request", ["host"]) => request(":authority")?,
        ("request", ["scheme"]) => request(":scheme")?,
        ("request", ["method"]) => request(":method")?,
        ("request", ["referer"]) => request("referer")?,
        ("request", ["useragent"]) => request("user-agent")?,
        ("request", ["id"]) => request("x-request-id")?,
        ("request", ["protocol"]) => Value::text(client.protocol.clone()),
        ("request", ["headers", name]) => {
            Value::Bytes(exchange.request.headers.get(name)?.to_vec())
        }
        ("request", ["time"]) => nanoseconds(exchange.started),
        // Envoy knows it only when the stream is over.
        ("request", ["duration"]) if kong || vm.phase == Phase::Log => {
            nanoseconds(vm.now.saturating_sub(exchange.started))
        }
        ("request", ["size" | "total_size"]) => {
            integer(exchange.original.body.iter().map(Vec::len).sum())
        }
        ("response", ["code"]) => {
            let status = exchange
                .observed
                .status
                .or_else(|| exchange.response.headers.text(":status")?.parse().ok())?;
            Value::Integer(i64::from(status))
        }
        ("response", ["code_details"]) => {
            let details = exchange.observed.local_reply.as_ref().map(|reply| reply.details.clone());
            Value::text(details.unwrap_or_else(|| "via_upstream".to_owned()))
        }
        ("response", ["flags"]) => Value::Integer(0),
        ("response", ["size" | "total_size"]) => {
            integer(exchange.observed.chunks.iter().map(|c| c.bytes.len()).sum())
        }
        ("response", ["headers", name]) => {
            Value::Bytes(exchange.response.headers.get(name)?.to_vec())
        }
        ("source", ["address"]) if kong => Value::text(client.address.clone()),
        ("source", ["address"]) => address(&client.address),
        ("source", ["port"]) => Value::Integer(i64::from(client.port)),
        ("destination", ["address"]) => Value::text("192.0.2.1:8443"),
        ("destination", ["port"]) => Value::Integer(8443),
        ("connection", ["id"]) => Value::Integer(1),
        ("connection", ["mtls"]) => Value::Flag(certificate.is_some()),
        ("connection", ["requested_server_name"]) => {
            Value::text(client.tls.as_ref()?.server_name.clone())
        }
        ("connection", ["tls_version"]) => {
            client.tls.as_ref()?;
            Value::text("TLSv1.3")
        }
        ("connection", ["subject_peer_certificate"]) => Value::text(certificate?.subject.clone()),
        ("connection", ["uri_san_peer_certificate"]) if !kong => {
            Value::text(certificate?.uri_san.clone())
        }
        ("connection", ["dns_san_peer_certificate"]) if !kong => {
            Value::text(certificate?.dns_san.clone())
        }
        // kong-host.md §3: garbage bytes appended.
        ("upstream", ["address"]) if exchange.upstream_announced => {
            let mut value = b"198.51.100.7:8080".to_vec();
            if vm.settings.kong(|rules| rules.upstream_address_is_garbled) {
                value.extend([0x00, 0x7f, 0xe2, 0x03]);
            }
            Value::Bytes(value)
        }
        ("upstream", ["port"]) if exchange.upstream_announced => Value::Integer(8080),
        ("xds", ["route_name"]) | ("route_name", []) if !kong => Value::text("mcp"),
        ("xds", ["cluster_name"]) | ("cluster_name", [])
            if !kong && exchange.upstream_announced =>
        {
            Value::text(exchange.upstream.target.clone().unwrap_or_default())
        }
        _ => return None,
    })
}

/// nginx variables that the filter may read, with what they say.
fn variable(exchange: &Exchange, name: &str) -> Option<String> {
    let own = exchange.observed.properties.get(&format!("ngx.{name}"));
    if let Some(value) = own {
        return Some(String::from_utf8_lossy(value).into_owned());
    }
    let header = |name: &str| exchange.original.headers.text(name).map(str::to_owned);
    match name {
        "request_id" => Some("0123456789abcdef0123456789abcdef".to_owned()),
        "pid" => Some("42".to_owned()),
        "request_uri" | "upstream_uri" => header(":path"),
        "uri" => header(":path").and_then(|path| path.split('?').next().map(str::to_owned)),
        "request_method" => header(":method"),
        "scheme" => header(":scheme"),
        "host" => header(":authority"),
        "remote_addr" => Some(exchange.original.client.address.clone()),
        "remote_port" => Some(exchange.original.client.port.to_string()),
        "upstream_host" => Some(String::new()),
        _ => None,
    }
}

fn get_on_kong(vm: &mut Vm, path: &str) -> Answer<Option<Value>> {
    let path = path.replace('\0', ".");
    let in_root = vm.in_root();
    if path == "plugin_name" && in_root && vm.settings.kong.plugin_name_in_configure_crashes {
        // kong-host.md §3: plugin_name in on_configure SEGFAULTS the worker.
        if vm.phase == Phase::Configure {
            vm.crashed = true;
            return trap("segmentation fault: plugin_name in on_configure");
        }
    }
    // kong-host.md §3: root contexts: any dotted path → InternalFailure.
    if in_root && path.contains('.') && vm.settings.kong.root_properties_fail {
        return Err(Status::InternalFailure.into());
    }
    // kong-host.md §3: kong.response.source is broken: Lua error → trap.
    if path == "kong.response.source" && vm.settings.kong.response_source_traps {
        return trap("could not get \"kong.response.source\"");
    }
    let server_name = vm.settings.server_name.clone();
    if path == "plugin_name" || path == "plugin_root_id" {
        return Ok(Some(Value::text("toolgate")));
    }
    let Some(exchange) = vm.exchange() else { return Ok(None) };
    if let Some(name) = path.strip_prefix("ngx.") {
        return Ok(variable(exchange, name).map(Value::Text));
    }
    if path.starts_with("kong.") {
        if let Some(value) = exchange.observed.properties.get(&path) {
            return Ok(Some(Value::Bytes(value.clone())));
        }
        let host = exchange.original.headers.text(":authority").unwrap_or_default();
        return Ok(match path.as_str() {
            "kong.version" => Some(Value::text("3.9.3")),
            "kong.node.id" => Some(Value::text("5ce1fb2c-3d20-4c4e-9cf7-0b3a5b2f5b5e")),
            "kong.nginx.subsystem" => Some(Value::text("http")),
            "kong.client.protocol" | "kong.request.forwarded_scheme" => {
                exchange.original.headers.text(":scheme").map(Value::text)
            }
            "kong.request.forwarded_host" => Some(Value::text(host)),
            "kong.request.forwarded_port" | "kong.request.port" => Some(Value::Integer(8000)),
            "kong.route_name" | "kong.service_name" => Some(Value::text("mcp")),
            "kong.route_id" | "kong.service_id" => {
                Some(Value::text("9f5b1c6e-0000-4000-8000-000000000001"))
            }
            "kong.router.route" => Some(Value::text(r#"{"name":"mcp"}"#)),
            "kong.router.service" => {
                let host = &vm.settings.service_host;
                Some(Value::text(format!(r#"{{"host":"{host}","name":"mcp","port":9}}"#)))
            }
            "kong.service.response.status" if exchange.upstream_announced => exchange
                .response
                .headers
                .text(":status")
                .and_then(|s| s.parse().ok())
                .map(Value::Integer),
            _ => None,
        });
    }
    // kong-host.md §3: request.host = the server's own hostname:port.
    if path == "request.host" && vm.settings.kong.authority_is_server_name {
        return Ok(Some(Value::Text(server_name)));
    }
    let (first, rest) = path.split_once('.').unwrap_or((&path, ""));
    let rest: Vec<&str> = match rest.split_once('.') {
        Some(("headers", name)) => vec!["headers", name],
        _ if rest.is_empty() => Vec::new(),
        _ => vec![rest],
    };
    Ok(attribute(vm, exchange, first, &rest))
}

fn set_on_kong(vm: &mut Vm, path: &str, value: Vec<u8>) -> Answer {
    let rules = vm.settings.kong.clone();
    if vm.in_root() {
        // kong-host.md §3: root contexts: any dotted path → InternalFailure.
        let failure =
            if rules.root_properties_fail { Status::InternalFailure } else { Status::NotFound };
        return Err(failure.into());
    }
    let exchange = vm.exchange_mut().ok_or(Status::NotFound)?;
    let settable = matches!(
        path,
        "kong.service.target"
            | "kong.service.request.scheme"
            | "kong.service.upstream"
            | "kong.response.status"
            | "ngx.upstream_uri"
            | "ngx.upstream_host"
    ) || path.starts_with("kong.ctx.shared.");
    if path == "kong.service.target" {
        let text = String::from_utf8_lossy(&value);
        match text.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()) {
            Some((host, _)) if rules.target_sets_upstream_host => {
                let host = host.as_bytes().to_vec();
                exchange.observed.properties.insert("ngx.upstream_host".to_owned(), host);
            }
            None if rules.malformed_target_traps => {
                return trap("could not set \"kong.service.target\"");
            }
            _ => {}
        }
    }
    if settable {
        exchange.observed.properties.insert(path.to_owned(), value);
        return Ok(());
    }
    // kong-host.md §3: unknown kong.* set → trap.
    if path.starts_with("kong.") && rules.unknown_kong_property_traps {
        return trap(format!("could not set {path:?}"));
    }
    // kong-host.md §3: read-only ngx var set → InternalFailure.
    let known_variable =
        path.strip_prefix("ngx.").is_some_and(|name| variable(exchange, name).is_some());
    if known_variable && rules.read_only_variable_is_internal_failure {
        return Err(Status::InternalFailure.into());
    }
    // kong-host.md §3: unknown other namespaces: set returns NotFound.
    if !known_variable && !path.starts_with("kong.") && rules.unknown_property_is_not_found {
        return Err(Status::NotFound.into());
    }
    exchange.observed.properties.insert(path.to_owned(), value);
    Ok(())
}
