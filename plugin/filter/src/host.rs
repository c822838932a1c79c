//! What Envoy and Kong do differently, in one place: the rest of the filter sees one host.
//!
//! Every difference with what was observed of it and the test that guards it: docs/kong.md. Not here:
//! Kong's way of losing contexts (`lost`), audit records in Kong's log (`kong_log`).

use serde::Deserialize;
use toolgate_core::{
    AuditFields, AuditRecord, Headers, HostFacts, HostQuestions, HttpCall, UpstreamRequest,
};

use crate::abi::{self, Map, Status};
use crate::kong_log;

/// The header by which Envoy's route table finds the upstream. Envoy takes it out of every client's
/// request before the filter runs, so that only the filter can have set it.
const UPSTREAM_HEADER: &str = "x-toolgate-upstream";

/// What the names of the record and of its fields begin with in Envoy's filter state.
const AUDIT_PREFIX: &str = "toolgate.";

/// Between the parts of a property's path.
const SEPARATOR: &str = "\u{0}";

/// Which proxy runs the filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    Envoy,
    Kong,
}

/// Why a request could not be sent where the gateway decided.
#[derive(Debug)]
pub(crate) enum Unroutable {
    /// A host call failed.
    Call(Status),
    /// Kong: the upstream's name is not `host:port`.
    Name,
    /// Kong: the Service of the route is another machine than the upstream, or could not be read.
    Service(Option<String>),
}

impl From<Status> for Unroutable {
    fn from(status: Status) -> Self {
        Self::Call(status)
    }
}

impl std::fmt::Display for Unroutable {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Call(Status(status)) => write!(formatter, "status {status}"),
            Self::Name => write!(formatter, "on Kong a server's `cluster` is host:port"),
            Self::Service(Some(host)) => {
                write!(
                    formatter,
                    "the Service of this route has the host {host:?}; it must have the server's"
                )
            }
            Self::Service(None) => write!(formatter, "the Service of this route could not be read"),
        }
    }
}

impl Host {
    /// Tells the hosts apart while the plugin is configured. Envoy answers that it does not know
    /// this property; Kong fails on every property read outside of a request.
    pub(crate) fn detect() -> Self {
        match abi::property("kong\0version") {
            Ok(_) => Self::Kong,
            Err(status) if status == Status::INTERNAL_FAILURE => Self::Kong,
            Err(_) => Self::Envoy,
        }
    }

    /// What `on_configure` says of a configuration that is not valid. Envoy then keeps the last good
    /// one or does not start. Kong would serve every route without the filter, so it must hear yes,
    /// and the filter refuses every request.
    pub(crate) fn accepts_bad_configuration(self) -> bool {
        self == Self::Kong
    }

    /// Whether the configuration has been read and written by Lua on its way here.
    pub(crate) fn writes_by_lua(self) -> bool {
        self == Self::Kong
    }

    /// Whether callbacks may come for a context that never saw its request: Kong makes every context
    /// anew when any filter of the worker traps, and goes on in the middle.
    pub(crate) fn loses_contexts(self) -> bool {
        self == Self::Kong
    }

    /// Whether the callback of one context may let another go on. On Kong `set_effective_context` does
    /// nothing, and a request goes on by itself when its own calls are over.
    pub(crate) fn wakes_others(self) -> bool {
        self == Self::Envoy
    }

    /// Whether there is a timer that may make calls. On Kong, timers of an instance that has trapped fire
    /// on in the one that replaces it, and a call from such a timer traps in turn.
    pub(crate) fn has_a_timer(self) -> bool {
        self == Self::Envoy
    }

    /// Whether a request whose body is still to come is held at its header fields. Kong reads the
    /// body only once the header fields went on; it forwards nothing before the body was seen.
    pub(crate) fn pauses_for_body(self) -> bool {
        self == Self::Envoy
    }

    /// The setting that decides how large a body the filter can read.
    pub(crate) fn body_memory_setting(self) -> &'static str {
        match self {
            Self::Envoy => "per_connection_buffer_limit_bytes",
            Self::Kong => "nginx_http_client_body_buffer_size",
        }
    }

    /// Whether nothing follows the header fields. Kong never says so, and calls back for no body.
    pub(crate) fn is_bodyless(self, headers: &Headers, end: bool) -> bool {
        match self {
            Self::Envoy => end,
            Self::Kong => {
                let length = headers.single("content-length").ok().flatten();
                end || (!headers.contains("transfer-encoding")
                    && matches!(length, None | Some("0")))
            }
        }
    }

    /// Address of the client, without its port.
    pub(crate) fn source(self) -> Option<String> {
        let bytes = abi::property("source\0address").ok()?;
        let address = String::from_utf8(bytes).ok()?;
        let host = match address.rsplit_once(':') {
            // An IPv6 address without a port has more than one colon and no brackets.
            Some((host, _)) if host.starts_with('[') || !host.contains(':') => host,
            _ => &address,
        };
        Some(host.trim_start_matches('[').trim_end_matches(']').to_owned())
    }

    /// What the host vouches for in answer to the gateway's questions; `None` when there are none.
    pub(crate) fn facts(self, questions: &HostQuestions<'_>) -> Option<HostFacts> {
        if !questions.certificate && questions.caller.is_none() {
            return None;
        }
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).ok().filter(|text| !text.is_empty());
        // Envoy: the digest of the certificate that was verified in the handshake. Kong has none.
        let certificate = (questions.certificate && self == Self::Envoy)
            .then(|| abi::property("connection\0sha256_peer_certificate_digest").ok())
            .flatten();
        let caller = questions.caller.and_then(|path| abi::property(&path.join(SEPARATOR)).ok());
        Some(HostFacts { certificate: certificate.and_then(text), caller })
    }

    /// Kong: the host of the route's Service, whose address Kong has looked up before the filter runs.
    pub(crate) fn service_host(self) -> Option<String> {
        #[derive(Deserialize)]
        struct Service {
            host: String,
        }
        if self == Self::Envoy {
            return None;
        }
        let json = abi::property("kong\0router\0service").ok()?;
        serde_json::from_slice::<Service>(&json).ok().map(|service| service.host)
    }

    /// Whether a server's name can be routed to.
    pub(crate) fn can_name(self, cluster: &str) -> bool {
        self == Self::Envoy || host_of(cluster).is_some()
    }

    /// The scheme that a call of the gateway itself must name. On Envoy the cluster decides.
    pub(crate) fn call_scheme(self, call: &HttpCall) -> Option<&'static str> {
        (self == Self::Kong).then(|| call.scheme.as_str())
    }

    /// Sends the request where the gateway decided: upstream, path and `Host`.
    pub(crate) fn route(
        self,
        request: &UpstreamRequest,
        service_host: Option<&str>,
    ) -> Result<(), Unroutable> {
        match self {
            Self::Envoy => {
                abi::set_header(Map::Request, ":path", &request.path)?;
                abi::set_header(Map::Request, ":authority", &request.authority)?;
                abi::set_header(Map::Request, UPSTREAM_HEADER, &request.cluster)?;
            }
            Self::Kong => {
                // A target that Kong cannot read traps.
                let host = host_of(&request.cluster).ok_or(Unroutable::Name)?;
                // The target changes the port and not the machine: Kong has looked that up already.
                // Whoever routes a server's path to another Service's machine gets no credential sent.
                if !service_host
                    .is_some_and(|service| bare(service).eq_ignore_ascii_case(bare(host)))
                {
                    return Err(Unroutable::Service(service_host.map(str::to_owned)));
                }
                abi::set_property("ngx\0upstream_uri", request.path.as_bytes())?;
                abi::set_property("ngx\0upstream_host", request.authority.as_bytes())?;
                let scheme = request.scheme.as_str();
                abi::set_property("kong\0service\0request\0scheme", scheme.as_bytes())?;
                abi::set_property("kong\0service\0target", request.cluster.as_bytes())?;
                // The target has written its own name there.
                abi::set_property("ngx\0upstream_host", request.authority.as_bytes())?;
            }
        }
        Ok(())
    }

    /// Whether a key that is not there can be written without writing over what another worker has written
    /// there meanwhile.
    pub(crate) fn creates_shared_data(self) -> bool {
        self == Self::Kong
    }

    /// Whether measurements are recorded. On Kong every error of a metric, a full zone among them, traps,
    /// and a trap loses every exchange of the worker.
    pub(crate) fn has_metrics(self) -> bool {
        self == Self::Envoy
    }

    /// Whether the record is shared while the exchange is under way: what Kong's own plugins log is
    /// settled before the filter's last callbacks.
    pub(crate) fn shares_records_early(self) -> bool {
        self == Self::Kong
    }

    /// Hands a record that is not final to Kong's plugins.
    pub(crate) fn share_record(self, record: &AuditRecord) {
        let json = record.to_json();
        if let Err(Status(status)) =
            abi::set_property("kong\0ctx\0shared\0toolgate", json.as_bytes())
        {
            log::error!("the audit record could not be shared: status {status}");
        }
    }

    /// Writes the record of an exchange where the host's access log reads it.
    pub(crate) fn audit(self, record: &AuditRecord, apart: &AuditFields) {
        match self {
            Self::Envoy => {
                let mut path = AUDIT_PREFIX.to_owned();
                record.each_property(apart, |name, value| {
                    path.truncate(AUDIT_PREFIX.len());
                    path.push_str(name);
                    if let Err(Status(status)) = abi::set_property(&path, value.as_bytes()) {
                        log::error!("audit: {name} could not be written: status {status}");
                    }
                });
            }
            Self::Kong => kong_log::write(record),
        }
    }
}

/// The host of `host:port`, as Kong reads a target.
fn host_of(cluster: &str) -> Option<&str> {
    let (host, port) = cluster.rsplit_once(':')?;
    let plain = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    (plain && !host.is_empty() && port.parse::<u16>().is_ok()).then_some(host)
}

/// A host without the brackets of an IPv6 address.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}
