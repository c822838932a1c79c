//! Where an authorization server answers the gateway's own questions.

use std::rc::Rc;
use std::time::Duration;

use toolgate_policy::Problem;

use crate::config::Scheme;
use crate::endpoint::Endpoint;
use crate::event::{FieldValue, HttpCall};
use crate::secret::Secret;

/// What the configuration says of an endpoint.
pub(super) struct EndpointConfig {
    pub(super) cluster: String,
    pub(super) scheme: Scheme,
    pub(super) authority: Option<String>,
    pub(super) path: String,
    pub(super) timeout_ms: u64,
}

/// One endpoint of an authorization server, compiled.
pub(super) struct AuthorizationEndpoint {
    endpoint: Endpoint,
    path: String,
}

/// Checks how long what an issuer publishes is used: fields of the configuration at `path`, each with its
/// value and the least that it may be, in seconds.
pub(super) fn check_seconds(ages: &[(&str, u64, u64)], path: &str, problems: &mut Vec<Problem>) {
    for (field, seconds, least) in ages {
        if !(*least..=30 * 86_400).contains(seconds) {
            problems.push(Problem {
                path: format!("{path}.{field}"),
                message: format!("{seconds} is not usable"),
                help: Some(format!("choose {least} to 2592000 seconds")),
            });
        }
    }
}

impl AuthorizationEndpoint {
    pub(super) fn compile(config: EndpointConfig, path: &str, problems: &mut Vec<Problem>) -> Self {
        let mut problem = |field: &str, message: String, help: &str| {
            let path = format!("{path}.{field}");
            problems.push(Problem { path, message, help: Some(help.into()) });
        };
        for (field, name) in
            [("cluster", Some(&config.cluster)), ("authority", config.authority.as_ref())]
        {
            if let Some(name) = name.filter(|name| !is_host_name(name)) {
                let help = "use letters, digits and - _ . : [ ] |";
                problem(field, format!("{name:?} is not a usable name"), help);
            }
        }
        let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '#' | '\\' | '"');
        if !config.path.starts_with('/')
            || !config.path.chars().all(plain)
            || config.path.split(['/', '?']).any(|part| part == "..")
        {
            let help = "begin with a slash, as in the URL that the server's own metadata gives";
            problem("path", format!("{:?} is not a usable path", config.path), help);
        }
        if !(1..=60_000).contains(&config.timeout_ms) {
            let help = "choose 1 to 60000 milliseconds";
            problem("timeout_ms", format!("{} is not usable", config.timeout_ms), help);
        }
        let EndpointConfig { cluster, scheme, authority, path, timeout_ms } = config;
        let timeout = Duration::from_millis(timeout_ms);
        Self { endpoint: Endpoint::new(cluster, scheme, authority, timeout), path }
    }

    /// A call that reads a document, of at most this many bytes.
    pub(super) fn get(&self, most_bytes: usize) -> HttpCall {
        let mut call = self.endpoint.call("GET", self.path.clone(), most_bytes);
        call.headers.push(("accept", FieldValue::Public("application/json".into())));
        call
    }

    /// A call that posts a form with the gateway's own login.
    pub(super) fn post(&self, form: Secret, login: &Rc<Secret>, most_bytes: usize) -> HttpCall {
        let login = Some(FieldValue::Secret(Rc::clone(login)));
        self.post_to(self.path.clone(), form, login, most_bytes)
    }

    /// A call that posts a form to another path of the same server, with this `Authorization`.
    pub(super) fn post_to(
        &self,
        path: String,
        form: Secret,
        login: Option<FieldValue>,
        most_bytes: usize,
    ) -> HttpCall {
        let mut call = self.get(most_bytes);
        call.method = "POST";
        call.path = path;
        let form_type = "application/x-www-form-urlencoded";
        call.headers.push(("content-type", FieldValue::Public(form_type.into())));
        call.headers.extend(login.map(|login| ("authorization", login)));
        call.body = Some(form);
        call
    }

    /// The `Host` that it is addressed by.
    pub(super) fn authority(&self) -> &str {
        self.endpoint.authority()
    }
}

fn is_host_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:[]|".contains(c);
    !name.is_empty() && name.len() <= 253 && name.chars().all(plain)
}
