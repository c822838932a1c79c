//! Scenarios: what a client sends, what it must see, what every upstream must see, what audit must
//! say. Data, not code: the same file runs against the native core, the filter in a test host and a
//! real proxy. A scenario never speaks of host calls.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

/// Several exchanges in one world, in order.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// A claim: what is true when the scenario passes.
    pub name: String,
    /// Changes to the demo's plugin configuration (JSON merge patch, RFC 7396).
    #[serde(default)]
    pub configuration: Option<Value>,
    /// How upstreams behave, by cluster; those not named behave well.
    #[serde(default)]
    pub world: BTreeMap<String, Behaviour>,
    /// Drivers that can play it; all when none is named.
    #[serde(default)]
    pub drivers: Vec<DriverKind>,
    /// Drivers that cannot play it all the same, each with the reason.
    #[serde(default)]
    pub except: BTreeMap<DriverKind, String>,
    /// What happens.
    pub exchanges: Vec<ExchangeScript>,
}

/// Ways to run a scenario.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
pub enum DriverKind {
    /// The core, natively.
    Native,
    /// The filter, in the test host's Envoy profile.
    WasmEnvoy,
    /// The filter, in the test host's Kong profile.
    WasmKong,
    /// The filter, in a real Envoy.
    Envoy,
    /// The filter, in a real Kong.
    Kong,
}

/// How an upstream behaves.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Behaviour {
    /// As it should.
    #[default]
    Well,
    /// As it should, with answers as event streams.
    EventStream,
    /// Nobody listens.
    Down,
    /// Accepts requests and never answers.
    Silent,
    /// Accepts requests and answers once it behaves otherwise.
    Held,
    /// Status 200 with HTML.
    Html,
    /// Status 500 with HTML.
    HtmlError,
    /// Status 502 with HTML: a gateway of its own that does not reach it.
    BadGateway,
    /// Status 500 with JSON.
    Error,
    /// Status 403 to every request.
    Forbidden,
    /// Status 401 to every request.
    Unauthorized,
    /// Status 200, declared as JSON, that is none.
    Garbage,
    /// Status 302 to somewhere else.
    Redirect,
    /// A vault: its tokens were revoked, a new login helps.
    Revoked,
    /// A vault: logins are refused.
    NoLogin,
    /// A vault: the secret has no such field.
    NoField,
    /// A vault: nothing is at the path.
    NoSecret,
    /// A vault: the secret's value cannot be a header field.
    LineBreak,
    /// A server: its lists are larger than the limit, 20 MiB each.
    Huge,
    /// An identity provider: it signs with a new key, which it publishes beside the old one. A vault: it
    /// has another key for billing, which from now on accepts no other (status 401).
    Rotated,
    /// A vault: the same, and billing says 403.
    RotatedForbidden,
    /// An identity provider: it publishes no keys.
    NoKeys,
    /// A server that knows nothing but sessions.
    Legacy,
    /// The same, and it has forgotten the sessions it had.
    LegacyRestarted,
    /// A server of both eras: 2026-07-28, and sessions for who opens one.
    Both,
    /// The same, and it asks the user before a tool answers, in a stream that can be resumed.
    LegacyAsks,
    /// The same, in a stream that cannot be resumed.
    LegacyAsksOnce,
    /// A server of 2026-07-28 that asks the user before a tool answers.
    Asks,
    /// A server whose answers name resources and tasks of its own wherever they can.
    Links,
    /// The same, of the legacy era.
    LegacyLinks,
    /// A server: in the stream of a call it says that its tools are not what they were.
    ListsChange,
    /// A server: its list of tools does not end.
    Endless,
    /// A server: it has 10,000 tools.
    Many,
    /// A server: two of its tools have one name.
    Twins,
    /// A server: the names of its tools are not what clients accept.
    Odd,
    /// A server: what it answers is for another request.
    OtherId,
    /// A server: its lists are compressed although nobody asked.
    Gzip,
    /// A server: it answers within sessions only, of which there is one, `session-1`.
    Sessions,
    /// A server: speaks 2026-07-28 only, and offers no stream to follow.
    Modern,
    /// A server: the schemas in its lists have bounds of 64 bits.
    LargeNumbers,
    /// A server: its event stream ends in the middle of an event.
    CutStream,
    /// A server: its stream tells of updates to more resources than were asked for.
    Updates,
    /// A server: one event of its stream is larger than the limit.
    HugeEvent,
    /// A server: shows what it was sent, header fields and query, in its answers.
    Echoes,
    /// The same in an event stream.
    EchoesEvents,
}

/// One request and what comes of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExchangeScript {
    /// Seconds that pass before it. Only drivers with a clock of their own can do this.
    #[serde(default)]
    pub after_seconds: u64,
    /// How often the host's timer fires before it, after that time. Only drivers with a clock of their
    /// own can do this.
    #[serde(default)]
    pub ticks: u32,
    /// Upstreams that change their ways before it.
    #[serde(default)]
    pub world: BTreeMap<String, Behaviour>,
    /// What the client sends.
    pub request: RequestScript,
    /// What must come of it.
    pub expect: Expectation,
}

/// What the client sends.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestScript {
    /// HTTP method.
    #[serde(default = "post")]
    pub method: String,
    /// Path.
    pub path: String,
    /// Whose token it carries: a person of the demo, or a broken token (see `people`).
    #[serde(default, rename = "as")]
    pub token: Option<String>,
    /// What is different in this token, before it is signed.
    #[serde(default)]
    pub altered: Altered,
    /// A proof of possession (DPoP) for this token, and what is different in it. Without changes it is the
    /// right one for a token that is bound to the key of `people::PROOF_KEY`.
    #[serde(default)]
    pub proof: Option<Altered>,
    /// An approval of what the gateway has last asked to be approved.
    #[serde(default)]
    pub approval: Option<ApprovalScript>,
    /// What the host vouches for.
    #[serde(default)]
    pub host: HostScript,
    /// Header fields besides `content-type`, `accept` and the token. A `null` takes a default away;
    /// `{session}` is the session id that the client was given last, `{truncated}` the same without its
    /// last character; `{event}` is the id of the event that it was sent last.
    #[serde(default)]
    pub headers: BTreeMap<String, Option<String>>,
    /// Header fields to add a second time.
    #[serde(default)]
    pub repeated: Vec<(String, String)>,
    /// A JSON body.
    #[serde(default)]
    pub json: Option<Value>,
    /// A body, literally.
    #[serde(default)]
    pub text: Option<String>,
    /// A body in hexadecimal digits, white space between them.
    #[serde(default)]
    pub hex: Option<String>,
    /// A body of this many bytes.
    #[serde(default)]
    pub bytes: Option<usize>,
    /// How many pieces the body arrives in.
    #[serde(default = "one")]
    pub chunks: usize,
    /// Trailers after the body.
    #[serde(default)]
    pub trailers: bool,
    /// The client goes away once an upstream was asked.
    #[serde(default)]
    pub abort: bool,
}

/// What the host vouches for, besides what a client sends.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostScript {
    /// SHA-256 of the client's certificate, in hexadecimal digits.
    #[serde(default)]
    pub certificate: Option<String>,
    /// What the configured property holds.
    #[serde(default)]
    pub caller: Option<String>,
}

/// What is different in a token.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Altered {
    /// Changes to its claims (JSON merge patch, RFC 7396).
    #[serde(default)]
    pub claims: Option<Value>,
    /// Changes to its header.
    #[serde(default)]
    pub header: Option<Value>,
    /// The scheme it is sent with; `Bearer`.
    #[serde(default)]
    pub scheme: Option<String>,
}

/// An approval, and what is different in it. Without changes it is the right one, by carol.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApprovalScript {
    /// Changes to its claims (JSON merge patch, RFC 7396).
    #[serde(default)]
    pub claims: Option<Value>,
    /// Changes to its header.
    #[serde(default)]
    pub header: Option<Value>,
    /// Seconds from now at which it was made.
    #[serde(default)]
    pub made: i64,
    /// Whether it is signed with a key that is not its issuer's.
    #[serde(default)]
    pub forged: bool,
    /// Where it is sent.
    #[serde(default)]
    pub place: ApprovalPlace,
}

/// Where an approval is sent.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalPlace {
    /// In the header field.
    #[default]
    Header,
    /// In `_meta` of the message.
    Meta,
    /// In both.
    Both,
}

/// What must come of an exchange. What is not named may be anything, but for the rules that hold
/// always: one audit record, no secret anywhere it does not belong.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expectation {
    /// HTTP status for the client.
    #[serde(default)]
    pub status: Option<u16>,
    /// Header fields for the client; `null` for absent, a trailing `*` for "begins with".
    #[serde(default)]
    pub headers: BTreeMap<String, Option<String>>,
    /// A part of the JSON the client gets; of an event stream, of its last message.
    #[serde(default)]
    pub json: Option<Value>,
    /// Names in the list the client gets: all of them, in order.
    #[serde(default)]
    pub listed: Option<Vec<String>>,
    /// Texts in the body the client gets.
    #[serde(default)]
    pub contains: Vec<String>,
    /// Texts that are not in it.
    #[serde(default)]
    pub lacks: Vec<String>,
    /// Fields of the audit record; `null` for absent.
    #[serde(default)]
    pub audit: BTreeMap<String, Option<String>>,
    /// How much each of these series grew, of a histogram the number of samples. Only drivers that see
    /// metrics compare them.
    #[serde(default)]
    pub metrics: BTreeMap<String, u64>,
    /// How many requests each upstream gets; upstreams that are not named get none.
    #[serde(default)]
    pub reaches: BTreeMap<String, usize>,
    /// Parts of the last request that an upstream gets.
    #[serde(default)]
    pub upstream: BTreeMap<String, UpstreamExpectation>,
}

/// Parts of a request that an upstream gets.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamExpectation {
    /// HTTP method.
    #[serde(default)]
    pub method: Option<String>,
    /// Path.
    #[serde(default)]
    pub path: Option<String>,
    /// Header fields; `null` for absent, `$NAME` for a planted secret.
    #[serde(default)]
    pub headers: BTreeMap<String, Option<String>>,
    /// A part of the JSON body.
    #[serde(default)]
    pub json: Option<Value>,
    /// The body, byte for byte.
    #[serde(default)]
    pub text: Option<String>,
}

impl Scenario {
    /// Whether this driver can play it.
    #[must_use]
    pub fn is_for(&self, driver: DriverKind) -> bool {
        let (timed, ticked) = (self.moves_the_clock(), self.fires_the_timer());
        let listed = |driver| self.drivers.is_empty() || self.drivers.contains(&driver);
        if self.except.contains_key(&driver) {
            return false;
        }
        match driver {
            // What holds in the imitation holds in the real one.
            DriverKind::Kong => !timed && (listed(driver) || listed(DriverKind::WasmKong)),
            DriverKind::Envoy => !timed && listed(driver),
            // The filter sets no timer there.
            DriverKind::WasmKong => !ticked && listed(driver),
            _ => listed(driver),
        }
    }

    /// Upstreams that are given the caller's own token, or its login as a client where the gateway stands in
    /// for the authorization server.
    #[must_use]
    pub fn passed_to(&self) -> Vec<String> {
        let servers =
            self.configuration.as_ref().and_then(|changes| changes["servers"].as_object());
        let passed =
            servers.into_iter().flatten().filter(|(_, server)| server["passthrough"].is_string());
        let mut passed: Vec<String> = passed.map(|(name, _)| name.clone()).collect();
        let identity = self.configuration.as_ref().map(|changes| changes["identity"].to_string());
        if identity.is_some_and(|identity| identity.contains("oauth_proxy")) {
            passed.push("idp".into());
        }
        passed
    }

    /// Whether it says how time passes, which no real proxy's clock does.
    #[must_use]
    pub fn moves_the_clock(&self) -> bool {
        self.exchanges.iter().any(|step| step.after_seconds > 0) || self.fires_the_timer()
    }

    /// Whether it fires the host's timer.
    #[must_use]
    pub fn fires_the_timer(&self) -> bool {
        self.exchanges.iter().any(|step| step.ticks > 0)
    }
}

impl RequestScript {
    /// The body, when there is one.
    #[must_use]
    pub fn body(&self) -> Option<Vec<u8>> {
        if let Some(json) = &self.json {
            return Some(json.to_string().into_bytes());
        }
        let text = self.text.as_ref().map(|text| text.clone().into_bytes());
        let hex = || self.hex.as_deref().map(unhex);
        text.or_else(hex).or_else(|| self.bytes.map(|bytes| vec![b' '; bytes]))
    }

    /// The body in its pieces.
    #[must_use]
    pub fn pieces(&self) -> Vec<Vec<u8>> {
        let body = self.body().unwrap_or_default();
        if body.is_empty() {
            return Vec::new();
        }
        let size = body.len().div_ceil(self.chunks.max(1));
        body.chunks(size).map(<[u8]>::to_vec).collect()
    }
}

/// Reads every scenario file of a folder, in order of their names.
///
/// # Errors
/// The file and what is wrong with it.
pub fn read_all(folder: &Path) -> Result<Vec<Scenario>, String> {
    let entries =
        std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut files: Vec<_> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    let mut scenarios: Vec<Scenario> = Vec::new();
    for file in files {
        let name = file.display();
        let text = std::fs::read_to_string(&file).map_err(|error| format!("{name}: {error}"))?;
        let read: Vec<Scenario> =
            serde_saphyr::from_str(&text).map_err(|error| format!("{name}: {error}"))?;
        scenarios.extend(read);
    }
    for (index, scenario) in scenarios.iter().enumerate() {
        if scenarios.iter().take(index).any(|other| other.name == scenario.name) {
            return Err(format!("two scenarios are named {}", scenario.name));
        }
    }
    Ok(scenarios)
}

/// The bytes of hexadecimal digits; a word that is no two digits is left out.
fn unhex(text: &str) -> Vec<u8> {
    text.split_whitespace().filter_map(|word| u8::from_str_radix(word, 16).ok()).collect()
}

fn post() -> String {
    "POST".into()
}

fn one() -> usize {
    1
}
