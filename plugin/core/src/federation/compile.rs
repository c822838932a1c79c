//! Turns the configuration of a federation into portals, or says everything that is wrong with it.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use toolgate_policy::Problem;

use super::config::{EntryConfig, FederationConfig, MemberConfig, PortalConfig};
use super::naming;
use super::portal::{Entry, Member, Named, Portal, Selection};
use super::{Federation, ROOT};

/// Stands for every tool or prompt that is not named.
const REST: &str = "*";

struct Compiler<'a> {
    servers: &'a [String],
    name_length: usize,
    problems: &'a mut Vec<Problem>,
}

impl Federation {
    /// Compiles the federation of a gateway with these servers. What is wrong is added to
    /// `problems`; the result is then of no use.
    pub(crate) fn compile(
        config: FederationConfig,
        servers: &[String],
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut compiler = Compiler { servers, name_length: config.name_length, problems };
        compiler.numbers(&config);
        let mut members = config.servers;
        for server in servers {
            members.entry(server.clone()).or_default();
        }
        let all = PortalConfig { servers: members, instructions: None };
        let root = Rc::new(compiler.portal("federation", ROOT, all));
        let mut portals = BTreeMap::new();
        for (name, portal) in config.portals {
            let path = format!("federation.portals.{name}");
            compiler.portal_name(&path, &name);
            let portal = Rc::new(compiler.portal(&path, &name, portal));
            portals.insert(Rc::from(name.as_str()), portal);
        }
        Self {
            root,
            portals,
            timeout: Duration::from_millis(config.timeout_ms),
            ttl: Duration::from_secs(config.ttl_seconds),
            gateway: config.gateway.into(),
            hops: config.hops,
        }
    }
}

impl Compiler<'_> {
    fn problem(&mut self, path: impl Into<String>, message: impl Into<String>, help: &str) {
        let help = (!help.is_empty()).then(|| help.to_owned());
        self.problems.push(Problem { path: path.into(), message: message.into(), help });
    }

    fn numbers(&mut self, config: &FederationConfig) {
        let FederationConfig { name_length, timeout_ms, ttl_seconds, hops, gateway, .. } = config;
        if !(naming::SHORTEST_LIMIT..=128).contains(name_length) {
            self.problem(
                "federation.name_length",
                format!("{name_length} is not a usable length"),
                "choose 40 to 128 characters; 64 is what all models accept",
            );
        }
        if !(1..=60_000).contains(timeout_ms) {
            self.problem(
                "federation.timeout_ms",
                format!("{timeout_ms} is not usable"),
                "choose 1 to 60000 milliseconds",
            );
        }
        if !(1..=86_400).contains(ttl_seconds) {
            self.problem(
                "federation.ttl_seconds",
                format!("{ttl_seconds} is not usable"),
                "choose 1 to 86400 seconds",
            );
        }
        if *hops > 16 {
            self.problem("federation.hops", format!("{hops} is not usable"), "choose 0 to 16");
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if gateway.is_empty() || gateway.len() > 64 || !gateway.chars().all(plain) {
            self.problem(
                "federation.gateway",
                format!("{gateway:?} is not a usable name"),
                "use 1 to 64 letters, digits, '-', '_' or '.'",
            );
        }
    }

    fn portal_name(&mut self, path: &str, name: &str) {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > 64 || !name.chars().all(plain) || name.starts_with('.') {
            self.problem(
                path,
                "not a usable portal name",
                "use 1 to 64 letters, digits, '-', '_' or '.'; it is part of the URL",
            );
        }
        if self.servers.iter().any(|server| server == name) {
            self.problem(
                path,
                format!("there is a server {name:?}, and both would be /mcp/{name}"),
                "give the portal another name",
            );
        }
    }

    fn portal(&mut self, path: &str, name: &str, config: PortalConfig) -> Portal {
        let mut portal = Portal {
            name: name.into(),
            instructions: config.instructions.map(Into::into),
            members: Vec::new(),
            prefixes: BTreeMap::new(),
            qualifiers: BTreeMap::new(),
            uris: BTreeMap::new(),
            tools: BTreeMap::new(),
            prompts: BTreeMap::new(),
            name_length: self.name_length,
        };
        if config.servers.is_empty() {
            self.problem(format!("{path}.servers"), "there is no server", "add at least one");
        }
        for (server, member) in config.servers {
            let path = format!("{path}.servers.{server}");
            if !self.servers.contains(&server) {
                self.problem(
                    &path,
                    format!("there is no server {server:?}"),
                    "add it under `servers`",
                );
            }
            self.uris(&path, &mut portal, &member.uris);
            let member = self.member(&path, &server, member);
            self.add(&path, &mut portal, member);
        }
        self.renamed(path, &portal);
        portal
    }

    fn member(&mut self, path: &str, server: &str, config: MemberConfig) -> Member {
        let prefix = config.prefix.unwrap_or_else(|| server.to_owned());
        let longest = naming::longest_prefix(self.name_length);
        if !prefix.is_empty() && (!naming::is_prefix(&prefix) || prefix.len() > longest) {
            self.problem(
                format!("{path}.prefix"),
                format!("{prefix:?} cannot stand before names"),
                &format!(
                    "choose 1 to {longest} letters, digits, '-', '.' or single '_', with no '_' at the end"
                ),
            );
        }
        let tools = self.selection(&format!("{path}.tools"), &prefix, config.tools);
        let prompts = self.selection(&format!("{path}.prompts"), &prefix, config.prompts);
        let qualifier = naming::qualifier(if prefix.is_empty() { server } else { &prefix });
        let resources = config.resources.unwrap_or(true);
        Member { server: server.into(), prefix, qualifier, tools, prompts, resources }
    }

    /// Adds the beginnings of URIs that stay as they are, of the member that comes next.
    fn uris(&mut self, path: &str, portal: &mut Portal, beginnings: &[String]) {
        let path = format!("{path}.uris");
        for beginning in beginnings {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
            let scheme = beginning.split_once(':').map_or("", |(scheme, _)| scheme);
            let letter = scheme.starts_with(|c: char| c.is_ascii_lowercase());
            if !letter || !scheme.chars().all(plain) || beginning.contains(char::is_whitespace) {
                self.problem(
                    &path,
                    format!("{beginning:?} is not the beginning of a URI"),
                    "write a scheme in small letters, and as much behind it as tells its URIs from others': docs://",
                );
            }
            let overlaps = |known: &&String| {
                known.starts_with(beginning.as_str()) || beginning.starts_with(known.as_str())
            };
            if let Some(other) = portal.uris.keys().find(overlaps) {
                let message = format!("{beginning:?} and {other:?} begin the same URIs");
                self.problem(&path, message, "name beginnings of which none begins another");
            }
            portal.uris.insert(beginning.clone(), portal.members.len());
        }
    }

    fn selection(
        &mut self,
        path: &str,
        prefix: &str,
        config: Option<BTreeMap<String, EntryConfig>>,
    ) -> Selection {
        let rest = config.as_ref().is_none_or(|entries| entries.contains_key(REST));
        if rest && prefix.is_empty() {
            self.problem(
                path,
                "without a prefix every name must be known beforehand, so that none hides another",
                "name what is to be there, `{}` for nothing, or give a prefix",
            );
        }
        let mut selection = Selection { entries: BTreeMap::new(), rest };
        for (own, entry) in config.into_iter().flatten().filter(|(own, _)| own != REST) {
            let name = match entry.name {
                None => naming::exposed(prefix, &own, self.name_length),
                Some(name) => {
                    // A name that would be shortened is one that clients do not accept.
                    if naming::exposed("", &name, self.name_length) != name {
                        self.problem(
                            format!("{path}.{own}.name"),
                            format!("{name:?} is not a usable name"),
                            &format!(
                                "use 1 to {} letters, digits, '-', '_' or '.'",
                                self.name_length
                            ),
                        );
                    }
                    name
                }
            };
            let EntryConfig { title, description, .. } = entry;
            selection.entries.insert(own, Entry { name, title, description });
        }
        selection
    }

    fn add(&mut self, path: &str, portal: &mut Portal, member: Member) {
        let index = portal.members.len();
        if !member.prefix.is_empty()
            && let Some(other) = portal.prefixes.insert(member.prefix.clone(), index)
        {
            let other = portal.members.get(other).map_or("", |other| &other.server);
            self.problem(
                format!("{path}.prefix"),
                format!("the server {other:?} has this prefix, too"),
                "give one of them another prefix",
            );
        } else if let Some(other) = portal.qualifiers.insert(member.qualifier.clone(), index) {
            let other = portal.members.get(other).map_or("", |other| &other.server);
            self.problem(
                format!("{path}.prefix"),
                format!(
                    "its URIs would begin with \"{}+\" like those of the server {other:?}",
                    member.qualifier
                ),
                "give one of them a prefix that differs in more than case and '_'",
            );
        }
        for (named, what) in [(Named::Tool, "tools"), (Named::Prompt, "prompts")] {
            for (own, entry) in &member.selection(named).entries {
                let table = match named {
                    Named::Tool => &mut portal.tools,
                    Named::Prompt => &mut portal.prompts,
                };
                let Some((other, theirs)) = table.insert(entry.name.clone(), (index, own.clone()))
                else {
                    continue;
                };
                let other = portal.members.get(other).map_or(&*member.server, |o| &o.server);
                self.problem(
                    format!("{path}.{what}.{own}"),
                    format!("{:?} is also the name of {theirs:?} at {other:?}", entry.name),
                    "give one of them another `name`",
                );
            }
        }
        portal.members.push(member);
    }

    /// A configured name must not be one that a server could come to have under its prefix.
    fn renamed(&mut self, path: &str, portal: &Portal) {
        for (named, what, table) in
            [(Named::Tool, "tools", &portal.tools), (Named::Prompt, "prompts", &portal.prompts)]
        {
            for (name, (member, own)) in table {
                let Some(member) = portal.members.get(*member) else { continue };
                let is_own = naming::exposed(&member.prefix, own, self.name_length) == *name;
                let other = naming::split(name).and_then(|(prefix, _)| portal.prefixes.get(prefix));
                let Some(other) = other.and_then(|other| portal.members.get(*other)) else {
                    continue;
                };
                let own_prefix = !member.prefix.is_empty() && is_own;
                if !own_prefix && other.selection(named).rest {
                    self.problem(
                        format!("{path}.servers.{}.{what}.{own}", member.server),
                        format!("{name:?} could be a name of the server {:?}", other.server),
                        "choose a name that does not begin with a server's prefix and \"__\"",
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use serde_json::{Value, json};

    use super::super::portal::Found;
    use super::*;

    fn compile(config: Value, servers: &[&str]) -> (Federation, Vec<String>) {
        let config = serde_json::from_value(config).unwrap();
        let servers: Vec<String> = servers.iter().map(|name| (*name).to_owned()).collect();
        let mut problems = Vec::new();
        let federation = Federation::compile(config, &servers, &mut problems);
        (federation, problems.into_iter().map(|problem| problem.path).collect())
    }

    #[test]
    fn all_servers_are_behind_the_root_with_nothing_configured() {
        let (federation, problems) = compile(json!({}), &["billing", "everything"]);
        assert!(problems.is_empty(), "{problems:?}");
        let found = federation.root.find(Named::Tool, "billing__refund");
        assert_eq!(found, Some(Found::Own(0, "refund".into())));
        assert_eq!(federation.root.find(Named::Tool, "refund"), None);
        assert_eq!(federation.root.find(Named::Tool, "crm__refund"), None);
    }

    #[test]
    fn a_renamed_tool_has_one_name_and_an_unselected_one_none() {
        let (federation, problems) = compile(
            json!({"portals": {"desk": {"servers": {
                "billing": {"tools": {"refund": {"name": "give_back"}, "statement": {}}},
                "everything": {"prefix": "", "tools": {"echo": {}}, "prompts": {}},
            }}}}),
            &["billing", "everything"],
        );
        assert!(problems.is_empty(), "{problems:?}");
        let desk = &federation.portals["desk"];
        assert_eq!(desk.find(Named::Tool, "give_back"), Some(Found::Own(0, "refund".into())));
        assert_eq!(
            desk.find(Named::Tool, "billing__statement"),
            Some(Found::Own(0, "statement".into()))
        );
        assert_eq!(desk.find(Named::Tool, "echo"), Some(Found::Own(1, "echo".into())));
        for unknown in ["billing__refund", "billing__other", "refund", "everything__echo"] {
            assert_eq!(desk.find(Named::Tool, unknown), None, "{unknown}");
        }
    }

    #[test]
    fn a_uri_that_stays_as_it_is_leads_back_to_its_server_and_no_other() {
        let (federation, problems) = compile(
            json!({"portals": {"desk": {"servers": {
                "billing": {"uris": ["docs://bills/", "ui://"]},
                "crm": {"uris": ["docs://crm/", "crm-notes:"]},
                "wiki": {},
            }}}}),
            &["billing", "crm", "wiki"],
        );
        assert!(problems.is_empty(), "{problems:?}");
        let desk = &federation.portals["desk"];
        for (member, own, seen) in [
            (0, "docs://bills/7", "docs://bills/7"),
            (0, "docs://bills", "billing+docs://bills"),
            (0, "docs://crm/7", "billing+docs://crm/7"),
            (0, "ui://chart", "ui://chart"),
            // What would lead to another server does not stay as it is.
            (0, "ui://crm+chart", "ui://billing+crm+chart"),
            (1, "docs://crm/{id}", "docs://crm/{id}"),
            (1, "crm-notes:1", "crm-notes:1"),
            (1, "docs://a", "crm+docs://a"),
            (2, "docs://crm/7", "wiki+docs://crm/7"),
        ] {
            assert_eq!(desk.shown_uri(member, own), seen);
            assert_eq!(desk.find_uri(seen), Some((member, own.to_owned())));
        }
        for nobodys in ["docs://a", "docs:", "", "zzz:", "a"] {
            assert_eq!(desk.find_uri(nobodys), None, "{nobodys}");
        }
        assert_eq!(federation.root.find_uri("docs://crm/7"), None);
    }

    #[test]
    fn every_collision_is_a_problem_of_its_own() {
        let (_, problems) = compile(
            json!({
                "servers": {"a_b": {"prefix": "x"}, "c": {"prefix": "x"}, "nobody": {}},
                "name_length": 20,
                "portals": {
                    "c": {"servers": {}},
                    "d": {"servers": {"a_b": {"prefix": ""}, "c": {"prefix": "u__"}}},
                    "e": {"servers": {
                        "a_b": {"tools": {"t": {"name": "c__t"}, "u": {"name": "no good"}}},
                        "c": {},
                        "A_B": {},
                    }},
                    "f": {"servers": {
                        "a_b": {"prefix": "", "tools": {"t": {}}, "prompts": {}, "uris": ["docs:"]},
                        "c": {"prefix": "", "tools": {"t": {}}, "prompts": {}, "uris": ["docs://x"]},
                        "A_B": {"uris": ["no scheme"]},
                    }},
                },
            }),
            &["a_b", "A_B", "c"],
        );
        for path in [
            "federation.name_length",
            "federation.servers.c.prefix",
            "federation.servers.nobody",
            "federation.portals.c",
            "federation.portals.c.servers",
            "federation.portals.d.servers.a_b.tools",
            "federation.portals.d.servers.a_b.prompts",
            "federation.portals.d.servers.c.prefix",
            "federation.portals.e.servers.a_b.prefix",
            "federation.portals.e.servers.a_b.tools.t",
            "federation.portals.e.servers.a_b.tools.u.name",
            "federation.portals.f.servers.c.tools.t",
            "federation.portals.f.servers.c.uris",
            "federation.portals.f.servers.A_B.uris",
        ] {
            assert!(problems.iter().any(|problem| problem == path), "{path} of {problems:#?}");
        }
    }
}
