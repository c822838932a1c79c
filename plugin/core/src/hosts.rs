//! Which names the gateway answers to (DNS rebinding: a page that makes its own name lead to the
//! gateway's address still sends that name as `Host`; 2025-11-25, "Security warning" of Streamable HTTP).

use toolgate_protocol::headers::Headers;

use crate::denial::{Denial, Reason};

/// Checks the host that a request is addressed to. Without configured `hosts` every one is accepted.
///
/// # Errors
/// A 403 [`Denial`] for a host that is not among them, or an ambiguous one.
pub(crate) fn check(headers: &Headers, hosts: &[String]) -> Result<(), Denial> {
    if hosts.is_empty() {
        return Ok(());
    }
    // Kong shows the client's `Host` as it came and its own name as `:authority`; Envoy has only the latter.
    let host = match headers.single("host")? {
        Some(host) => Some(host),
        None => headers.single(":authority")?,
    };
    let host = host.unwrap_or_default();
    let is_known = hosts.iter().any(|known| {
        known.eq_ignore_ascii_case(host) || known.eq_ignore_ascii_case(without_port(host))
    });
    if is_known {
        return Ok(());
    }
    Err(Denial::new(Reason::Host, "the gateway does not answer to this host"))
}

/// Whether this may stand in the configuration: a name or address, with a port or for every port.
pub(crate) fn is_host(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    !text.is_empty() && text.len() <= 253 && text.chars().all(plain)
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn a_host_without_a_port_stands_for_every_port() {
        let hosts = ["Gateway.example".to_owned(), "[::1]".to_owned(), "local:8080".to_owned()];
        let accepts =
            |host: &str| check(&Headers::from_pairs([(":authority", host)]), &hosts).is_ok();
        for host in ["gateway.example", "GATEWAY.example:443", "[::1]", "[::1]:80", "local:8080"] {
            assert!(accepts(host), "{host}");
        }
        for host in ["", "evil.example", "gateway.example.evil", "local", "local:80", "::1"] {
            assert!(!accepts(host), "{host}");
        }
        assert!(check(&Headers::default(), &[]).is_ok());
        assert!(check(&Headers::default(), &hosts).is_err());
    }
}
