//! What Envoy and Kong do differently, in one place: the rest of the filter sees one host.
//!
//! Sources: both hosts' observed behaviour, docs/hosts.md.

use std::rc::Rc;

use toolgate_core::{AuditRecord, Headers, UpstreamRequest};

use crate::abi::{self, Map, Status};

/// The header by which Envoy's route table finds the upstream. Envoy takes it out of every client's
/// request before the filter runs, so that only the filter can have set it.
const UPSTREAM_HEADER: &str = "x-toolgate-upstream";

/// Which proxy runs the filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    Envoy,
    Kong,
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

    /// Whether a request whose body is still to come is held at its header fields. Kong reads the
    /// body only once the header fields went on; it forwards nothing before the body was seen.
    pub(crate) fn pauses_for_body(self) -> bool {
        self == Self::Envoy
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

    /// Sends the request where the gateway decided: upstream, path and `Host`.
    pub(crate) fn route(self, request: &UpstreamRequest) -> Result<(), Status> {
        match self {
            Self::Envoy => {
                abi::set_header(Map::Request, ":path", &request.path)?;
                abi::set_header(Map::Request, ":authority", &request.authority)?;
                abi::set_header(Map::Request, UPSTREAM_HEADER, &request.cluster)
            }
            Self::Kong => {
                abi::set_property("ngx\0upstream_uri", request.path.as_bytes())?;
                abi::set_property("ngx\0upstream_host", request.authority.as_bytes())?;
                abi::set_property("kong\0service\0target", request.cluster.as_bytes())
            }
        }
    }

    /// Writes the record of an exchange where the host's access log reads it.
    pub(crate) fn audit(self, record: &AuditRecord) {
        match self {
            Self::Envoy => record.each_field(|name, value| {
                let path: Rc<str> = format!("toolgate.{name}").into();
                if let Err(Status(status)) = abi::set_property(&path, value.as_bytes()) {
                    log::error!("audit field {name} could not be written: status {status}");
                }
            }),
            Self::Kong => {
                let json = record.to_json();
                log::info!("toolgate audit {json}");
                if let Err(Status(status)) =
                    abi::set_property("kong\0ctx\0shared\0toolgate", json.as_bytes())
                {
                    log::error!("the audit record could not be shared: status {status}");
                }
            }
        }
    }
}
