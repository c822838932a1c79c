//! The scopes that requests need, and what a scope stands for.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use toolgate_policy::Problem;
use toolgate_protocol::mcp::{Operation, Subscriptions};

use crate::config::ScopesConfig;

/// The scopes that requests to one server need.
pub(crate) struct RequiredScopes(ScopesConfig);

/// What scopes stand for besides themselves, all the way down.
pub(super) struct ScopeHierarchy(BTreeMap<String, BTreeSet<String>>);

impl RequiredScopes {
    /// None at all.
    pub(crate) const NONE: Self = Self(ScopesConfig {
        required: Vec::new(),
        tools: BTreeMap::new(),
        prompts: BTreeMap::new(),
        resources: BTreeMap::new(),
    });

    /// Compiles `servers.NAME.scopes`; `path` is its path.
    pub(crate) fn compile(config: ScopesConfig, path: &str, problems: &mut Vec<Problem>) -> Self {
        check_all(&config.required, &format!("{path}.required"), problems);
        for (kind, map) in [
            ("tools", &config.tools),
            ("prompts", &config.prompts),
            ("resources", &config.resources),
        ] {
            for (name, scopes) in map {
                check_all(scopes, &format!("{path}.{kind}.{name}"), problems);
            }
        }
        Self(config)
    }

    /// What every request needs.
    pub(crate) fn always(&self) -> &[String] {
        &self.0.required
    }

    /// What this request needs besides.
    pub(crate) fn further(&self, operation: Option<&Operation<'_>>) -> Cow<'_, [String]> {
        let found = match operation {
            Some(Operation::Listen { params }) => {
                // What cannot be read was refused before this.
                let asked = Subscriptions::read(*params).unwrap_or_default();
                let scopes = asked.uris.iter().filter_map(|uri| self.0.resources.get(*uri));
                return scopes.flatten().cloned().collect();
            }
            Some(Operation::CallTool { name, .. }) => self.0.tools.get(*name),
            Some(Operation::GetPrompt { name }) => self.0.prompts.get(*name),
            Some(Operation::ReadResource { uri }) => self.0.resources.get(*uri),
            _ => None,
        };
        found.map_or(&[][..], Vec::as_slice).into()
    }

    /// Everything that some request needs, each scope once.
    pub(crate) fn all(&self) -> Vec<String> {
        let ScopesConfig { required, tools, prompts, resources } = &self.0;
        let further = [tools, prompts, resources].into_iter().flat_map(BTreeMap::values).flatten();
        let mut all: Vec<String> = Vec::new();
        for scope in required.iter().chain(further) {
            if !all.contains(scope) {
                all.push(scope.clone());
            }
        }
        all
    }
}

impl ScopeHierarchy {
    /// Compiles `identity.scope_hierarchy`.
    pub(super) fn compile(
        config: &BTreeMap<String, Vec<String>>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut closed = BTreeMap::new();
        for (scope, implied) in config {
            let path = format!("identity.scope_hierarchy.{scope}");
            check_all(std::slice::from_ref(scope), &path, problems);
            check_all(implied, &path, problems);
            let mut found = BTreeSet::new();
            let mut waiting: Vec<&String> = implied.iter().collect();
            while let Some(next) = waiting.pop() {
                if found.insert(next.clone()) {
                    waiting.extend(config.get(next).into_iter().flatten());
                }
            }
            found.remove(scope);
            closed.insert(scope.clone(), found);
        }
        Self(closed)
    }

    /// Adds to `scopes` what they stand for.
    pub(super) fn widen(&self, scopes: &mut Vec<String>) {
        let implied: BTreeSet<&String> =
            scopes.iter().filter_map(|scope| self.0.get(scope)).flatten().collect();
        let new: Vec<String> =
            implied.into_iter().filter(|scope| !scopes.contains(scope)).cloned().collect();
        scopes.extend(new);
    }
}

/// RFC 6749 section 3.3: visible ASCII but for the double quote and the backslash.
fn check_all(scopes: &[String], path: &str, problems: &mut Vec<Problem>) {
    let allowed = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    for scope in scopes {
        let (message, help) = if scope == "offline_access" {
            ("asks for a refresh token, which is between the client and its issuer", "leave it out")
        } else if scope.is_empty() || scope.len() > 256 || !scope.bytes().all(allowed) {
            ("is not a scope", "use visible ASCII without spaces and quotes")
        } else {
            continue;
        };
        problems.push(Problem {
            path: path.to_owned(),
            message: format!("{scope:?} {message}"),
            help: Some(help.into()),
        });
    }
}
