//! Turns the configuration of vaults, token endpoints, credentials and injections into what requests
//! use, or into problems.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use super::inject::Format;
use super::oauth::Grant;
use super::template::Template;
use super::vault::{Engine, Login};
use super::{
    AccessToken, Credential, Fetched, Injection, Place, Source, TokenEndpoint, Vault, VaultSecret,
};
use crate::compile::{Compiler, RESERVED_HEADERS, is_header_name};
use crate::config::{
    Config, CredentialConfig, DynamicConfig, InjectionConfig, KvConfig, LoginConfig, OauthConfig,
    Scheme, ServerConfig, TokenEndpointConfig, VaultConfig,
};
use crate::endpoint::Endpoint;
use crate::secret::{Secret, SecretSource};
use crate::upstream::FORWARDED;

/// The part of a gateway that this compiles.
pub(crate) struct Broker {
    pub(crate) vaults: BTreeMap<Rc<str>, Vault>,
    pub(crate) token_endpoints: BTreeMap<Rc<str>, TokenEndpoint>,
    pub(crate) credentials: BTreeMap<Rc<str>, Credential>,
    /// The fields of each credential, for the formats that name them.
    fields: BTreeMap<String, Vec<String>>,
}

/// What other parts of the configuration may name.
struct Names {
    vaults: Vec<String>,
    token_endpoints: Vec<String>,
    production: bool,
}

impl Compiler<'_> {
    /// Compiles vaults, token endpoints and credentials; takes them out of `config`.
    pub(crate) fn broker(&mut self, config: &mut Config) -> Broker {
        let vaults = std::mem::take(&mut config.vaults);
        let endpoints = std::mem::take(&mut config.token_endpoints);
        let credentials = std::mem::take(&mut config.credentials);
        let names = Names {
            vaults: vaults.keys().cloned().collect(),
            token_endpoints: endpoints.keys().cloned().collect(),
            production: config.production,
        };
        let fields =
            credentials.iter().map(|(name, config)| (name.clone(), fields(config))).collect();
        Broker {
            vaults: vaults
                .into_iter()
                .filter_map(|(name, vault)| Some((name.as_str().into(), self.vault(&name, vault)?)))
                .collect(),
            token_endpoints: endpoints
                .into_iter()
                .filter_map(|(name, endpoint)| {
                    Some((name.as_str().into(), self.token_endpoint(&name, endpoint)?))
                })
                .collect(),
            credentials: credentials
                .into_iter()
                .filter_map(|(name, credential)| {
                    Some((name.as_str().into(), self.credential(&name, credential, &names)?))
                })
                .collect(),
            fields,
        }
    }

    /// Compiles the injections of a server; takes them out of `config`.
    pub(crate) fn injections(
        &mut self,
        server: &str,
        config: &mut ServerConfig,
        broker: &Broker,
    ) -> Vec<Injection> {
        let first = config.credential.take().map(|first| (format!("{server}.credential"), first));
        let further = std::mem::take(&mut config.further_credentials);
        let further = further.into_iter().enumerate().map(|(index, injection)| {
            (format!("{server}.further_credentials[{index}]"), injection)
        });
        let mut injections: Vec<Injection> = Vec::new();
        for (path, injection) in first.into_iter().chain(further) {
            if injection.query.is_some() && !config.credentials_in_query {
                self.problem(
                    format!("{path}.query"),
                    "credentials in queries end up in logs",
                    "use a header; where the server takes nothing else, set `credentials_in_query` for it",
                );
            }
            let Some(injection) = self.injection(&path, injection, broker) else { continue };
            if injections.iter().any(|other| other.place == injection.place) {
                self.problem(&path, "another credential goes to the same place", "");
            }
            let is_authorization = injection.place == Place::Header("authorization".into());
            if is_authorization && config.passthrough.is_some() {
                self.problem(
                    &path,
                    "`passthrough` puts the caller's token into the same header",
                    "",
                );
            }
            injections.push(injection);
        }
        injections
    }

    fn injection(
        &mut self,
        path: &str,
        config: InjectionConfig,
        broker: &Broker,
    ) -> Option<Injection> {
        let fields = broker.fields.get(&config.name);
        if fields.is_none() {
            self.problem(
                format!("{path}.name"),
                format!("there is no credential {:?}", config.name),
                "add it under `credentials`",
            );
        }
        let place = match (config.header, config.query) {
            (None, Some(query)) => self.query_parameter(path, query),
            (Some(header), None) => self.credential_header(path, &header),
            (None, None) if config.basic.is_some() => Some(Place::Header("authorization".into())),
            (Some(_), Some(_)) | (None, None) => {
                self.problem(path, "it needs `header` or `query`, one of them", "");
                None
            }
        };
        let (key, text, basic) = match (config.format, config.basic) {
            (Some(_), Some(_)) => {
                self.problem(path, "it has both `format` and `basic`", "remove one");
                return None;
            }
            (None, Some(basic)) => ("basic", basic, true),
            (format, None) => ("format", format.unwrap_or_else(|| "{}".into()), false),
        };
        match Format::parse(&text, fields.map_or(&[], Vec::as_slice), basic) {
            Ok(format) => Some(Injection {
                credential: config.name.into(),
                place: place?,
                secret_fields: format.secret_fields(),
                format,
            }),
            Err(problem) => {
                let help = "for example \"Bearer {}\"";
                self.problem(format!("{path}.{key}"), format!("{text:?}: {problem}"), help);
                None
            }
        }
    }

    fn credential_header(&mut self, path: &str, name: &str) -> Option<Place> {
        let header = name.to_ascii_lowercase();
        if !is_header_name(&header) || RESERVED_HEADERS.contains(&header.as_str()) {
            self.problem(
                format!("{path}.header"),
                format!("{name:?} cannot carry a credential"),
                "for example \"authorization\" or \"x-api-key\"",
            );
            return None;
        }
        if FORWARDED.contains(&header.as_str()) || header.starts_with("mcp-param-") {
            self.problem(
                format!("{path}.header"),
                format!("{name:?} is a header that clients may send"),
                "choose one that the gateway does not forward",
            );
            return None;
        }
        Some(Place::Header(header))
    }

    fn query_parameter(&mut self, path: &str, name: String) -> Option<Place> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > 128 || !name.bytes().all(plain) {
            self.problem(format!("{path}.query"), format!("{name:?} is not a usable name"), "");
            return None;
        }
        Some(Place::Query(name))
    }

    fn credential(
        &mut self,
        name: &str,
        config: CredentialConfig,
        names: &Names,
    ) -> Option<Credential> {
        let path = format!("credentials.{name}");
        match config {
            CredentialConfig::Kv(config) => self.kv(&format!("{path}.kv"), config, names),
            CredentialConfig::Dynamic(config) => {
                self.dynamic(&format!("{path}.dynamic"), config, names)
            }
            CredentialConfig::ClientCredentials(config) => {
                let path = format!("{path}.client_credentials");
                Some(self.access_token(&path, config, Grant::ClientCredentials, names))
            }
            CredentialConfig::TokenExchange(config) => {
                let path = format!("{path}.token_exchange");
                if config.audience.is_none() && config.resource.is_none() {
                    self.problem(
                        &path,
                        "it does not say which server the token is for",
                        "name it by `resource` or `audience`: a token for everything is no better than the caller's own",
                    );
                }
                Some(self.access_token(&path, config, Grant::TokenExchange, names))
            }
            CredentialConfig::JwtBearer(config) => {
                let path = format!("{path}.jwt_bearer");
                Some(self.access_token(&path, config, Grant::JwtBearer, names))
            }
            CredentialConfig::Static(source) => {
                let path = format!("{path}.static");
                if names.production {
                    self.problem(
                        &path,
                        "a fixed value in production",
                        "keep it in a vault, or remove `production`",
                    );
                }
                let value = self.secret(&path, source)?.map(Rc::new);
                let value = value.map(|value| Rc::new(Fetched::lasting(value)));
                Some(Credential { source: Source::Static(value), link_url: None })
            }
        }
    }

    fn kv(&mut self, path: &str, config: KvConfig, names: &Names) -> Option<Credential> {
        self.named(&format!("{path}.vault"), "vault", &config.vault, &names.vaults, "vaults");
        self.vault_path(&format!("{path}.mount"), &config.mount);
        let engine = match config.version {
            1 => Engine::Kv1,
            2 => Engine::Kv2,
            other => {
                self.problem(
                    format!("{path}.version"),
                    format!("{other} is no version of the engine"),
                    "choose 1 or 2",
                );
                return None;
            }
        };
        let data = if engine == Engine::Kv2 { "data/" } else { "" };
        let before = format!("/v1/{}/{data}", config.mount);
        let template = self.template(&format!("{path}.path"), &before, &config.path);
        let fields = self.fields(path, config.field, config.fields);
        if config.ttl_seconds == 0 {
            self.problem(
                format!("{path}.ttl_seconds"),
                "0 would ask the vault for every request",
                "choose at least 1",
            );
        }
        Some(Credential {
            source: Source::Vault(VaultSecret {
                vault: config.vault.into(),
                engine,
                path: template?,
                fields,
                ttl: Some(Duration::from_secs(config.ttl_seconds)),
            }),
            link_url: self.link(path, config.link_url),
        })
    }

    fn dynamic(&mut self, path: &str, config: DynamicConfig, names: &Names) -> Option<Credential> {
        self.named(&format!("{path}.vault"), "vault", &config.vault, &names.vaults, "vaults");
        let template = self.template(&format!("{path}.path"), "/v1/", &config.path)?;
        Some(Credential {
            source: Source::Vault(VaultSecret {
                vault: config.vault.into(),
                engine: Engine::Dynamic,
                path: template,
                fields: self.fields(path, config.field, config.fields),
                ttl: None,
            }),
            link_url: self.link(path, config.link_url),
        })
    }

    fn access_token(
        &mut self,
        path: &str,
        config: OauthConfig,
        grant: Grant,
        names: &Names,
    ) -> Credential {
        let at = format!("{path}.endpoint");
        let known = &names.token_endpoints;
        self.named(&at, "token endpoint", &config.endpoint, known, "token_endpoints");
        Credential {
            source: Source::Oauth(AccessToken {
                endpoint: config.endpoint.into(),
                grant,
                scope: config.scope,
                resource: config.resource,
                audience: config.audience,
            }),
            link_url: self.link(path, config.link_url),
        }
    }

    fn named(&mut self, path: &str, what: &str, name: &str, known: &[String], section: &str) {
        if !known.iter().any(|known| known == name) {
            self.problem(
                path,
                format!("there is no {what} {name:?}"),
                &format!("add it under `{section}`"),
            );
        }
    }

    fn template(&mut self, at: &str, before: &str, text: &str) -> Option<Template> {
        match Template::parse(&format!("{before}{text}")) {
            Ok(template) => {
                let sample = template.sample();
                self.vault_path(at, sample.strip_prefix(before).unwrap_or_default());
                Some(template)
            }
            Err(problem) => {
                let help = "claims are {sub}, {client}, {iss} and each of them as {sha256(sub)}";
                self.problem(at, format!("{text:?}: {problem}"), help);
                None
            }
        }
    }

    /// Pointers to the fields; a name without a slash is a field at the top.
    fn fields(&mut self, path: &str, first: String, further: Vec<String>) -> Vec<String> {
        if first.is_empty() || further.iter().any(String::is_empty) {
            self.problem(format!("{path}.field"), "the field is empty", "");
        }
        let pointer = |field: String| match field.starts_with('/') {
            true => field,
            false => format!("/{}", field.replace('~', "~0").replace('/', "~1")),
        };
        std::iter::once(first).chain(further).map(pointer).collect()
    }

    fn link(&mut self, path: &str, url: Option<String>) -> Option<Rc<str>> {
        let url = url?;
        let usable = url.starts_with("https://") || url.starts_with("http://127.0.0.1");
        if !usable || !url.bytes().all(|byte| byte.is_ascii_graphic()) {
            self.problem(
                format!("{path}.link_url"),
                format!("{url:?} is not a URL that people can be sent to"),
                "begin with https://",
            );
        }
        Some(url.into())
    }

    fn endpoint(
        &mut self,
        path: &str,
        cluster: String,
        scheme: Scheme,
        authority: Option<String>,
        timeout_ms: u64,
    ) -> Endpoint {
        self.host_name(&format!("{path}.cluster"), &cluster);
        if let Some(authority) = &authority {
            self.host_name(&format!("{path}.authority"), authority);
        }
        if !(1..=60_000).contains(&timeout_ms) {
            self.problem(
                format!("{path}.timeout_ms"),
                format!("{timeout_ms} is not usable"),
                "choose 1 to 60000 milliseconds",
            );
        }
        Endpoint::new(cluster, scheme, authority, Duration::from_millis(timeout_ms))
    }

    fn token_endpoint(&mut self, name: &str, config: TokenEndpointConfig) -> Option<TokenEndpoint> {
        let path = format!("token_endpoints.{name}");
        let TokenEndpointConfig { cluster, scheme, authority, timeout_ms, .. } = config;
        let endpoint = self.endpoint(&path, cluster, scheme, authority, timeout_ms);
        let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '#' | '\\');
        if !config.path.starts_with('/') || !config.path.chars().all(plain) {
            self.problem(
                format!("{path}.path"),
                format!("{:?} is not a usable path", config.path),
                "begin with a slash",
            );
        }
        let client_secret = self.secret(&format!("{path}.client_secret"), config.client_secret)?;
        Some(TokenEndpoint {
            endpoint,
            path: config.path,
            client_id: config.client_id,
            client_secret,
            authentication: config.authentication,
        })
    }

    fn vault(&mut self, name: &str, config: VaultConfig) -> Option<Vault> {
        let path = format!("vaults.{name}");
        let VaultConfig { cluster, scheme, authority, timeout_ms, namespace, login } = config;
        let endpoint = self.endpoint(&path, cluster, scheme, authority, timeout_ms);
        if let Some(namespace) = &namespace {
            self.vault_path(&format!("{path}.namespace"), namespace);
        }
        let login = self.login(&format!("{path}.login"), login)?;
        Some(Vault { endpoint, namespace, login })
    }

    fn login(&mut self, path: &str, config: LoginConfig) -> Option<Login> {
        Some(match config {
            LoginConfig::Token(source) => match self.secret(&format!("{path}.token"), source)? {
                Some(token) => Login::Token(Rc::new(token)),
                None => Login::Unset,
            },
            LoginConfig::AppRole(role) => {
                let at = format!("{path}.app_role");
                self.vault_path(&format!("{at}.mount"), &role.mount);
                let role_id = self.secret(&format!("{at}.role_id"), role.role_id);
                let secret_id = self.secret(&format!("{at}.secret_id"), role.secret_id);
                match (role_id?, secret_id?) {
                    (Some(role_id), Some(secret_id)) => Login::Method {
                        mount: role.mount,
                        public: Vec::new(),
                        secret: vec![("role_id", role_id), ("secret_id", secret_id)],
                    },
                    _ => Login::Unset,
                }
            }
            LoginConfig::Jwt(config) => {
                let at = format!("{path}.jwt");
                self.vault_path(&format!("{at}.mount"), &config.mount);
                match config.token {
                    Some(token) => self.login_by_token(&at, config.mount, config.role, token)?,
                    None => Login::Caller { mount: config.mount, role: config.role },
                }
            }
            LoginConfig::Kubernetes(config) => {
                let at = format!("{path}.kubernetes");
                self.vault_path(&format!("{at}.mount"), &config.mount);
                self.login_by_token(&at, config.mount, config.role, config.token)?
            }
        })
    }

    fn login_by_token(
        &mut self,
        path: &str,
        mount: String,
        role: String,
        token: SecretSource,
    ) -> Option<Login> {
        let token: Option<Secret> = self.secret(&format!("{path}.token"), token)?;
        Some(match token {
            Some(token) => {
                Login::Method { mount, public: vec![("role", role)], secret: vec![("jwt", token)] }
            }
            None => Login::Unset,
        })
    }
}

fn fields(config: &CredentialConfig) -> Vec<String> {
    let (first, further) = match config {
        CredentialConfig::Kv(config) => (&config.field, &config.fields),
        CredentialConfig::Dynamic(config) => (&config.field, &config.fields),
        _ => return Vec::new(),
    };
    std::iter::once(first).chain(further).cloned().collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde_json::{Value, json};
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// The paths of what is wrong about credentials of a gateway that is, or is not, in production.
    fn problems(production: bool) -> Vec<String> {
        let jwks: Value =
            serde_json::from_str(include_str!("../../../../scripts/stack/demo-jwks.json")).unwrap();
        let document = json!({
            "production": production,
            "servers": {"everything": {"cluster": "everything"}},
            "identity": {"issuers": [{
                "issuer": "https://idp.example",
                "audiences": ["https://mcp.example"],
                "algorithms": ["ES256"],
                "jwks": jwks,
            }]},
            "vaults": {"main": {"cluster": "vault", "login": {"token": {"value": "planted"}}}},
            "credentials": {
                "one": {"static": {"value": "planted-one"}},
                "stored": {"kv": {"vault": "main", "path": "mcp/{sub}/github", "field": "token"}},
                "two": {"static": {"value": "planted-two"}},
            },
            "policy": {"name": "none", "policies": ""},
        });
        let compiled = crate::Gateway::compile(document.to_string().as_bytes(), &|_: &str| None);
        let found = compiled.err().unwrap_or_default();
        let paths = found.into_iter().map(|problem| problem.path);
        paths
            .filter(|path| ["credentials", "sessions"].iter().any(|p| path.starts_with(p)))
            .collect()
    }

    #[test]
    fn production_refuses_every_fixed_value_and_no_other_source() {
        let of_credentials = |mut found: Vec<String>| {
            found.retain(|path| path.starts_with("credentials"));
            found
        };
        assert_eq!(of_credentials(problems(false)), [""; 0]);
        let fixed = ["credentials.one.static", "credentials.two.static"];
        assert_eq!(of_credentials(problems(true)), fixed);
    }

    #[test]
    fn production_refuses_sessions_that_are_bound_to_nobody() {
        let sessions = |found: Vec<String>| found.iter().any(|path| path == "sessions.keys");
        assert!(!sessions(problems(false)));
        assert!(sessions(problems(true)));
    }
}
