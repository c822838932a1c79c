//! Turns a configuration into a gateway, or into the list of everything that is wrong with it.
//!
//! All that can be decided before the first request is decided here. Not here: the shape of the
//! document (`shape`), reading it from anywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use toolgate_policy::{MOST_UNCHECKED, Problem, Validation};
use toolgate_protocol::mirror::Mirror;

use crate::audit::AuditFields;
use crate::config::{Config, ServerConfig, SessionsConfig};
use crate::cors;
use crate::credentials::Broker;
use crate::federation::Federation;
use crate::gateway::{Gateway, Server};
use crate::hosts;
use crate::identity::approvals::{self, Approvals};
use crate::identity::{Identity, RequiredScopes};
use crate::metrics::Metrics;
use crate::mirrors::{self, MirroredTools};
use crate::policies::{self, Policies};
use crate::secret::{Secret, SecretSource};
use crate::session::{MOST_KEYS, SHORTEST_KEY, SessionKeys, Sessions};
use crate::shape;

/// Headers that no credential may be put into, since the gateway or the host writes them.
pub(crate) const RESERVED_HEADERS: &[&str] = &[
    "accept",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "mcp-method",
    "mcp-name",
    "mcp-protocol-version",
    "mcp-session-id",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What the gateway may look up while it is compiled.
pub trait Environment {
    /// The value of an environment variable of the host.
    fn variable(&self, name: &str) -> Option<String>;
}

impl<F: Fn(&str) -> Option<String>> Environment for F {
    fn variable(&self, name: &str) -> Option<String> {
        self(name)
    }
}

impl Gateway {
    /// Compiles a configuration document.
    ///
    /// # Errors
    /// Every [`Problem`] with the path of its field.
    pub fn compile(document: &[u8], environment: &dyn Environment) -> Result<Self, Vec<Problem>> {
        Self::compile_with(document, environment, false)
    }

    /// Compiles a configuration document and validates all its policies, also those that say they were
    /// checked: what [`Self::compile`] then believes is found out here.
    ///
    /// # Errors
    /// Every [`Problem`] with the path of its field.
    pub fn check(document: &[u8], environment: &dyn Environment) -> Result<Self, Vec<Problem>> {
        Self::compile_with(document, environment, true)
    }

    fn compile_with(
        document: &[u8],
        environment: &dyn Environment,
        validates_all: bool,
    ) -> Result<Self, Vec<Problem>> {
        let config: Config = shape::read(document)?;
        let mut compiler =
            Compiler { environment, problems: Vec::new(), warnings: Vec::new(), validates_all };
        match compiler.gateway(config) {
            Some(gateway) => Ok(gateway.with_warnings(compiler.warnings)),
            None => Err(compiler.problems),
        }
    }
}

pub(crate) struct Compiler<'a> {
    environment: &'a dyn Environment,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    validates_all: bool,
}

impl Compiler<'_> {
    pub(crate) fn problem(
        &mut self,
        path: impl Into<String>,
        message: impl Into<String>,
        help: &str,
    ) {
        let help = (!help.is_empty()).then(|| help.to_owned());
        self.problems.push(Problem { path: path.into(), message: message.into(), help });
    }

    fn gateway(&mut self, mut config: Config) -> Option<Gateway> {
        let limits = std::mem::take(&mut config.limits);
        for (name, value) in [
            ("request_bytes", limits.request_bytes),
            ("list_bytes", limits.list_bytes),
            ("event_bytes", limits.event_bytes),
            ("token_bytes", limits.token_bytes),
        ] {
            if value == 0 || value > 64 << 20 {
                self.problem(
                    format!("limits.{name}"),
                    format!("{value} is not a usable limit"),
                    "choose a number of bytes between 1 and 67108864",
                );
            }
        }
        let audit_fields = self.audit_fields(&config.audit.fields);
        if config.servers.is_empty() {
            self.problem("servers", "there is no server", "add at least one");
        }
        for (index, origin) in config.origins.iter().enumerate() {
            if !cors::is_origin(origin) {
                let help = "write scheme, host and port as browsers do: \"https://app.example\", in lower case, without a path";
                self.problem(
                    format!("origins[{index}]"),
                    format!("{origin:?} is not an origin"),
                    help,
                );
            }
        }
        for (index, host) in config.hosts.iter().enumerate() {
            if !hosts::is_host(host) {
                let help = "write a name or an address, with a port or without one for every port: \"gateway.example\", \"localhost:10000\", \"[::1]\"";
                self.problem(format!("hosts[{index}]"), format!("{host:?} is not a host"), help);
            }
        }
        let server_names: Vec<String> = config.servers.keys().cloned().collect();
        let broker = self.broker(&mut config);
        let servers: BTreeMap<Rc<str>, Server> = config
            .servers
            .into_iter()
            .map(|(name, server)| (name.as_str().into(), self.server(&name, server, &broker)))
            .collect();
        let federation = config
            .federation
            .map(|federation| Federation::compile(federation, &server_names, &mut self.problems));
        let sessions = self.sessions(config.sessions, config.production);
        let mut endpoints = server_names.clone();
        endpoints.extend(federation.iter().flat_map(Federation::endpoints).map(str::to_owned));
        let mut problems = Vec::new();
        let public_url = config.identity.public_url.clone();
        let leeway = Duration::from_secs(config.identity.leeway_seconds);
        let approvals = config.approvals.map(|approvals| {
            Approvals::compile(approvals, public_url.as_deref(), leeway, &mut problems)
        });
        let identity = Identity::compile(
            config.identity,
            &endpoints,
            limits.token_bytes,
            &mut |path, source| self.secret(path, source).flatten(),
            &mut problems,
        )
        .with_approvals(approvals);
        self.problems.extend(problems);
        let is_given = config.policy.is_some();
        let bundle = config.policy_bundle.map(|bundle| self.policy_bundle(bundle, is_given));
        if !is_given && bundle.is_none() {
            let help = "give them here, or say where they are fetched: policy_bundle";
            self.problem("policy", "there are no policies", help);
        }
        let policy = config.policy.unwrap_or_else(policies::none);
        let checked = config.policy_checked.as_deref();
        if checked.is_some() && !is_given {
            let help = "take it out: what is fetched says itself that it was checked";
            self.problem("policy_checked", "there is no `policy` that was checked", help);
        }
        if self.validates_all && checked.is_some_and(|checked| checked != policy.checked()) {
            self.problem(
                "policy_checked",
                "these are not the policies and the schema that were checked, or other rules hold",
                &format!("if there are no other problems, set it to {}", policy.checked()),
            );
        }
        let validation = match self.validates_all {
            true => Validation::Full,
            false => policies::validation(checked),
        };
        let policies = match Policies::compile(&policy, &server_names, &identity, validation) {
            Ok(policies) => policies,
            Err(problems) => {
                self.problems.extend(problems);
                return None;
            }
        };
        if self.validates_all && checked.is_none() && policies.engine.has_to_be_checked() {
            self.problem(
                "policy_checked",
                format!("more than {MOST_UNCHECKED} policies or tools with types are not validated by the plugin"),
                &format!("if there are no other problems, set it to {}", policy.checked()),
            );
        }
        if !policies.are_enforced() {
            self.warnings.push(Problem {
                path: "policy.mode".into(),
                message: "policy is NOT enforced: whoever the gateway knows may do everything at every server, and audit says what would be denied".into(),
                help: Some("for introducing the gateway only; take `mode: shadow` out to enforce".into()),
            });
        }
        if !self.problems.is_empty() {
            return None;
        }
        let mut tools: BTreeMap<Rc<str>, BTreeSet<String>> = servers
            .iter()
            .map(|(name, server)| (Rc::clone(name), server.mirrored.keys().cloned().collect()))
            .collect();
        let typed = policies.engine.tools();
        for (server, tool) in typed.chain(federation.iter().flat_map(Federation::tools)) {
            if let Some(tools) = tools.get_mut(server) {
                tools.insert(tool.to_owned());
            }
        }
        let gateway =
            Gateway::new(servers, identity, policies, broker, limits, config.origins, config.audit);
        Some(
            gateway
                .with_sessions(sessions)
                .with_federation(federation)
                .with_policy_bundle(bundle)
                .with_hosts(config.hosts)
                .with_audit_fields(audit_fields)
                .with_metrics(Metrics::new(tools)),
        )
    }

    fn audit_fields(&mut self, names: &[String]) -> AuditFields {
        AuditFields::named(names).unwrap_or_else(|unknown| {
            for index in unknown {
                let name = names.get(index).map_or("", String::as_str);
                self.problem(
                    format!("audit.fields[{index}]"),
                    format!("{name:?} is not a field of audit records"),
                    "docs/audit.md has their names; \"all\" is every field",
                );
            }
            AuditFields::default()
        })
    }

    fn server(&mut self, name: &str, mut config: ServerConfig, broker: &Broker) -> Server {
        let path = format!("servers.{name}");
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > 64 || !name.chars().all(allowed) || name.starts_with('.')
        {
            self.problem(
                &path,
                "not a usable server name",
                "use 1 to 64 letters, digits, '-', '_' or '.'; it is part of the URL",
            );
        }
        self.host_name(&format!("{path}.cluster"), &config.cluster);
        if let Some(authority) = &config.authority {
            self.host_name(&format!("{path}.authority"), authority);
        }
        let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '#' | '%' | '\\' | '?');
        if !config.path.starts_with('/')
            || !config.path.chars().all(plain)
            || config.path.contains("..")
        {
            self.problem(
                format!("{path}.path"),
                format!("{:?} is not a usable path", config.path),
                "begin with a slash; no query, no escapes",
            );
        }
        for (index, header) in config.forward_headers.iter().enumerate() {
            let at = format!("{path}.forward_headers[{index}]");
            if !is_header_name(header) {
                self.problem(at, format!("{header:?} is not a header name in lower case"), "");
            } else if matches!(
                header.as_str(),
                "authorization" | "dpop" | "cookie" | "proxy-authorization" | approvals::HEADER
            ) || RESERVED_HEADERS.contains(&header.as_str())
                || header.starts_with("x-toolgate-")
            {
                self.problem(
                    at,
                    format!("{header:?} is never forwarded"),
                    "the caller's credentials stay here; the others are written by the gateway",
                );
            }
        }
        let credentials = self.injections(&path, &mut config, broker);
        let scopes =
            RequiredScopes::compile(config.scopes, &format!("{path}.scopes"), &mut self.problems);
        let mirrored = self.mirrored(&format!("{path}.mirrored"), config.mirrored);
        let cluster: Rc<str> = config.cluster.into();
        Server {
            authority: config.authority.map_or_else(|| Rc::clone(&cluster), Into::into),
            cluster,
            scheme: config.scheme,
            path: config.path.into(),
            credentials,
            passthrough: config.passthrough.map(Into::into),
            forward_headers: config.forward_headers,
            scopes,
            mirrored,
            normalize_accept: config.normalize_accept,
        }
    }

    fn mirrored(
        &mut self,
        path: &str,
        config: BTreeMap<String, BTreeMap<String, String>>,
    ) -> MirroredTools {
        let mut tools = MirroredTools::new();
        for (tool, headers) in config {
            let mut mirrors = Vec::new();
            for (name, pointer) in headers {
                match mirrors::pointer(&pointer).and_then(|path| Mirror::new(&name, path)) {
                    Some(mirror) => mirrors.push(mirror),
                    None => self.problem(
                        format!("{path}.{tool}.{name}"),
                        format!("{pointer:?} is no argument that Mcp-Param-{name:?} can repeat"),
                        "write the header's name without Mcp-Param-, and a JSON pointer: Region: /region",
                    ),
                }
            }
            tools.insert(tool, mirrors);
        }
        tools
    }

    fn sessions(&mut self, config: SessionsConfig, production: bool) -> Sessions {
        if config.keys.is_empty() {
            if production {
                self.problem(
                    "sessions.keys",
                    "sessions would be whose who learns their ids, in production",
                    "give a key of 32 characters or more, the same to every gateway: openssl rand -base64 32",
                );
            }
            return Sessions::Unbound;
        }
        if config.keys.len() > MOST_KEYS {
            self.problem(
                "sessions.keys",
                format!("{} keys are too many", config.keys.len()),
                "keep the new key first and the old ones until their sessions are over; at most 4",
            );
        }
        let mut keys = Vec::new();
        for (index, source) in config.keys.into_iter().enumerate() {
            let path = format!("sessions.keys[{index}]");
            let Some(Some(key)) = self.secret(&path, source) else { continue };
            if key.expose().len() < SHORTEST_KEY {
                self.problem(
                    path,
                    format!("the key is shorter than {SHORTEST_KEY} characters"),
                    "make one with: openssl rand -base64 32",
                );
            }
            keys.push(key);
        }
        SessionKeys::new(&keys).map_or(Sessions::Unset, Sessions::Sealed)
    }

    /// The secret of a source. `Some(None)` where it stands in a variable that is not set: what
    /// needs it then fails, and everything else works.
    pub(crate) fn secret(&mut self, path: &str, source: SecretSource) -> Option<Option<Secret>> {
        let (path, secret) = match source {
            SecretSource::Value(secret) => (format!("{path}.value"), secret),
            SecretSource::Environment(name) => {
                let path = format!("{path}.environment");
                let Some(value) = self.environment.variable(&name) else {
                    self.warnings.push(Problem {
                        path,
                        message: format!("the environment variable {name:?} is not set; requests that need it will fail"),
                        help: Some("set it for the host and let the host pass it on to the plugin (Envoy: vm_config.environment_variables.host_env_keys)".into()),
                    });
                    return Some(None);
                };
                (path, Secret::new(value))
            }
        };
        let text = secret.expose();
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            self.problem(
                path,
                "the secret is empty or holds white space or control characters",
                "",
            );
            return None;
        }
        Some(Some(secret))
    }

    pub(crate) fn host_name(&mut self, path: &str, name: &str) {
        let plain = |c: char| {
            c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '[' | ']' | '|')
        };
        if name.is_empty() || name.len() > 253 || !name.chars().all(plain) {
            self.problem(
                path,
                format!("{name:?} is not a usable name"),
                "use letters, digits and - _ . : [ ] |",
            );
        }
    }

    /// Parts of vault paths stand for themselves in a URL: nothing to escape, nowhere to walk to.
    pub(crate) fn vault_path(&mut self, path: &str, value: &str) {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
        let segments_name =
            value.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
        if value.len() > 512 || !value.chars().all(plain) || !segments_name {
            self.problem(
                path,
                format!("{value:?} is not a usable path in a vault"),
                "use letters, digits, - _ . and single slashes between the parts",
            );
        }
    }
}

pub(crate) fn is_header_name(name: &str) -> bool {
    let token = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_')
    };
    !name.is_empty() && name.len() <= 128 && name.bytes().all(token)
}
