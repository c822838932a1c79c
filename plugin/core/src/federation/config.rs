//! Several servers behind one endpoint, as it is written. Not here: what is wrong with it (`compile`).

use std::collections::BTreeMap;

use serde::Deserialize;

/// Several servers behind one endpoint: `/mcp` for all of them, `/mcp/{portal}` for a selection.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FederationConfig {
    /// How servers appear behind `/mcp`, by name. All servers are there, named here or not.
    #[serde(default)]
    pub servers: BTreeMap<String, MemberConfig>,
    /// Selections of servers by name; each is reached under `/mcp/{name}`. A selection is a
    /// convenience, no boundary: who may use what is policy's, whatever the path.
    #[serde(default)]
    pub portals: BTreeMap<String, PortalConfig>,
    /// Longest name of a tool or prompt that clients are shown, in characters: 40 to 128. Longer
    /// names are shortened, with a digest at their end.
    #[serde(default = "default_name_length")]
    pub name_length: usize,
    /// Longest call to a server for a list, in milliseconds; a server that takes longer is left out.
    #[serde(default = "default_timeout")]
    pub timeout_ms: u64,
    /// How long a server's lists are remembered where the server does not say, in seconds.
    #[serde(default = "default_ttl")]
    pub ttl_seconds: u64,
    /// What this gateway is called among gateways that stand behind one another. A request that has
    /// passed it before is refused.
    #[serde(default = "default_gateway")]
    pub gateway: String,
    /// How many gateways a request may have passed before this one.
    #[serde(default = "default_hops")]
    pub hops: usize,
}

/// A selection of servers behind one endpoint.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PortalConfig {
    /// Its servers by name.
    pub servers: BTreeMap<String, MemberConfig>,
    /// What clients are told of it, for their models.
    #[serde(default)]
    pub instructions: Option<String>,
}

/// How one server appears behind an endpoint that it shares.
#[derive(Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct MemberConfig {
    /// What stands before the names of its tools and prompts; the server's name where nothing is
    /// given. Empty for names as they are: `tools` and `prompts` must then name them all.
    #[serde(default)]
    pub prefix: Option<String>,
    /// Its tools by their own names, and how they appear; all of them where nothing is given. The
    /// name `*` stands for all that are not named.
    #[serde(default)]
    pub tools: Option<BTreeMap<String, EntryConfig>>,
    /// Its prompts, likewise.
    #[serde(default)]
    pub prompts: Option<BTreeMap<String, EntryConfig>>,
    /// Whether its resources and resource templates are there; they are where nothing is said.
    #[serde(default)]
    pub resources: Option<bool>,
    /// Beginnings of its URIs that stay as they are, `docs://`. Before every other URI stands the
    /// server's name.
    #[serde(default)]
    pub uris: Vec<String>,
}

/// How one tool or prompt appears.
#[derive(Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct EntryConfig {
    /// The name that clients are shown, instead of prefix and own name.
    #[serde(default)]
    pub name: Option<String>,
    /// The title that clients are shown.
    #[serde(default)]
    pub title: Option<String>,
    /// The description that clients and their models are shown.
    #[serde(default)]
    pub description: Option<String>,
}

fn default_name_length() -> usize {
    64
}

fn default_timeout() -> u64 {
    2_000
}

fn default_ttl() -> u64 {
    60
}

fn default_gateway() -> String {
    "toolgate".into()
}

fn default_hops() -> usize {
    4
}
