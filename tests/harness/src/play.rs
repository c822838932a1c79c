//! Plays scenarios through a driver and compares what came of them with what must.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::configuration;
use crate::people::{self, Issuer};
use crate::scenario::{
    ApprovalPlace, DriverKind, ExchangeScript, Expectation, HostScript, RequestScript, Scenario,
    UpstreamExpectation,
};
use crate::world::{Asked, SECRETS, World, is_meant, secret};

/// How long a request may be on its way to an upstream when nobody waits for it.
const LATEST_REQUEST: Duration = Duration::from_secs(10);

/// A way to run exchanges.
pub trait Driver {
    /// Which one it is.
    fn kind(&self) -> DriverKind;
    /// A gateway with the configuration of this scenario in this world.
    ///
    /// # Errors
    /// What kept it from starting.
    fn start(&self, scenario: &Scenario, world: Arc<World>) -> Result<Box<dyn Session>, String>;
}

/// A running gateway.
pub trait Session {
    /// What time it is for the gateway.
    fn now(&self) -> Duration;
    /// Lets time pass.
    fn advance(&mut self, by: Duration);
    /// Fires the host's timer once, where it has one, and lets the calls that come of it end.
    fn tick(&mut self);
    /// Runs one exchange to its end.
    ///
    /// # Errors
    /// What the driver could not do; what the gateway did wrong is for the comparison.
    fn exchange(&mut self, request: &Request) -> Result<Observed, String>;
    /// Everything the gateway has written to logs so far.
    fn logs(&mut self) -> String;
}

/// A request, ready to be sent.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// HTTP method.
    pub method: String,
    /// Path.
    pub path: String,
    /// Header fields without pseudo-headers and length.
    pub headers: Vec<(String, String)>,
    /// What the host vouches for.
    pub host: HostScript,
    /// The body in its pieces; none for no body.
    pub pieces: Vec<Vec<u8>>,
    /// Trailers after the body.
    pub trailers: bool,
    /// The client goes away once an upstream was asked.
    pub abort: bool,
}

/// What came of a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// HTTP status for the client; none when it got no answer.
    pub status: Option<u16>,
    /// Header fields for the client.
    pub headers: Vec<(String, String)>,
    /// The body for the client.
    pub body: Vec<u8>,
    /// Audit records, each as its fields.
    pub audit: Vec<BTreeMap<String, String>>,
    /// What was added to each series since the exchange before, of a histogram the number of samples;
    /// none where the driver cannot see that.
    pub metrics: Option<BTreeMap<String, u64>>,
}

/// Plays one scenario.
///
/// # Errors
/// Everything that was not as it must be.
pub fn play(driver: &dyn Driver, issuer: &Issuer, scenario: &Scenario) -> Result<(), String> {
    let world = Arc::new(World::default());
    world.behave(&scenario.world);
    let mut session = driver.start(scenario, Arc::clone(&world))?;
    let mut problems = Vec::new();
    let mut tokens = Vec::new();
    // What the client was last asked to have approved.
    let mut demanded = Value::Null;
    // The session id that the client was given last, and the state of a call that goes on
    // or the id of what a server asks.
    let (mut given, mut state) = (String::new(), String::new());
    // The id of the event that it was sent last.
    let mut event = String::new();
    for (index, script) in scenario.exchanges.iter().enumerate() {
        world.behave(&script.world);
        session.advance(Duration::from_secs(script.after_seconds));
        for _ in 0..script.ticks {
            session.tick();
        }
        let mut request = request(script, issuer, session.now())?;
        for (_, value) in request.headers.iter_mut().filter(|(_, value)| value == "{session}") {
            value.clone_from(&given);
        }
        for (_, value) in request.headers.iter_mut().filter(|(_, value)| value == "{truncated}") {
            value.clone_from(&given);
            let _last = value.pop();
        }
        for (_, value) in request.headers.iter_mut().filter(|(_, value)| value == "{event}") {
            value.clone_from(&event);
        }
        for piece in &mut request.pieces {
            let text = String::from_utf8_lossy(piece);
            if text.contains("{state}") {
                *piece = text.replace("{state}", &state).into_bytes();
            }
        }
        let approval = match &script.request.approval {
            Some(approval) => Some(people::approval(&demanded, approval, session.now())?),
            None => None,
        };
        if let Some(approval) = &approval {
            carry(approval, &script.request, &mut request);
            tokens.push(approval.clone());
        }
        tokens.extend(
            request.headers.iter().find(|(n, _)| n == "authorization").map(|(_, v)| v.clone()),
        );
        let observed = session.exchange(&request)?;
        if let Some((_, id)) = observed.headers.iter().find(|(name, _)| name == "mcp-session-id") {
            given.clone_from(id);
        }
        if let Some(data) = last_json(&observed.body)
            .and_then(|answer| answer.pointer("/error/data").cloned())
            .filter(|data| data.get("approval").is_some())
        {
            demanded = data;
        }
        let sealed = last_json(&observed.body).and_then(|json| {
            let asked = json.get("method").and(json.get("id"));
            let state = json.pointer("/result/requestState").or(asked)?;
            state.as_str().map(str::to_owned)
        });
        state = sealed.unwrap_or(state);
        let text = String::from_utf8_lossy(&observed.body).into_owned();
        let mut ids = text.lines().filter_map(|line| line.strip_prefix("id: "));
        event = ids.next_back().map_or(event, str::to_owned);
        if matches!(driver.kind(), DriverKind::Envoy | DriverKind::Kong) {
            world.wait_until_asked(&script.expect.reaches, LATEST_REQUEST);
        }
        let asked = world.take_asked();
        let mut found = Vec::new();
        compare(&script.expect, &observed, &asked, &mut found);
        let token = request.headers.iter().find(|(n, _)| n == "authorization");
        let token = token.map(|(_, value)| value.as_str());
        leaks(&observed, &asked, token, &scenario.passed_to(), &mut found);
        if let Some(approval) = &approval {
            approval_leaks(approval, &observed, &asked, &mut found);
        }
        problems.extend(found.into_iter().map(|problem| format!("exchange {index}: {problem}")));
    }
    let logs = session.logs();
    let planted = SECRETS.iter().map(|(_, value)| (*value).to_owned());
    for value in planted.chain(tokens.iter().filter_map(|token| signature(token))) {
        if logs.contains(&value) {
            problems.push(format!("a log holds the secret {value}"));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join("\n")) }
}

/// Puts an approval where a script says.
fn carry(approval: &str, script: &RequestScript, request: &mut Request) {
    let place = script.approval.as_ref().map(|approval| approval.place).unwrap_or_default();
    if place != ApprovalPlace::Meta {
        request.headers.push(("toolgate-approval".into(), approval.into()));
    }
    if place != ApprovalPlace::Header {
        let meta = serde_json::json!({"params": {"_meta": {"dev.toolgate/approval": approval}}});
        let mut script = script.clone();
        let each = |message: &mut Value| configuration::merge(message, &meta);
        match &mut script.json {
            Some(Value::Array(messages)) => messages.iter_mut().for_each(each),
            Some(message) => each(message),
            None => {}
        }
        request.pieces = script.pieces();
    }
}

/// What must hold always: an approval is for the gateway alone.
fn approval_leaks(
    approval: &str,
    observed: &Observed,
    asked: &[Asked],
    problems: &mut Vec<String>,
) {
    let Some(signature) = signature(approval) else { return };
    if format!("{:?}", observed.audit).contains(&signature) {
        problems.push("audit sees the approval".into());
    }
    for asked in asked {
        let headers = format!("{:?}", asked.headers);
        if headers.contains(&signature) || String::from_utf8_lossy(&asked.body).contains(&signature)
        {
            problems.push(format!("{} sees the approval", asked.cluster));
        }
    }
}

/// The request that a script means.
///
/// # Errors
/// When the script names a token that does not exist.
pub fn request(script: &ExchangeScript, issuer: &Issuer, now: Duration) -> Result<Request, String> {
    let script = &script.request;
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    headers.insert("user-agent".into(), "scenario/1".into());
    if script.method == "POST" {
        headers.insert("content-type".into(), "application/json".into());
        headers.insert("accept".into(), "application/json, text/event-stream".into());
    }
    if let Some(token) = &script.token {
        let scheme = script.altered.scheme.as_deref();
        let scheme = scheme.unwrap_or(if script.proof.is_some() { "DPoP" } else { "Bearer" });
        let token = issuer.token(token, &script.altered, now)?;
        if let Some(altered) = &script.proof {
            let path = script.path.split('?').next().unwrap_or_default();
            let url = format!("http://127.0.0.1:10000{path}");
            let proof = crate::people::proof(&token, &script.method, &url, altered, now)?;
            headers.insert("dpop".into(), proof);
        }
        headers.insert("authorization".into(), format!("{scheme} {token}"));
    }
    for (name, value) in &script.headers {
        match value {
            Some(value) => headers.insert(name.clone(), value.clone()),
            None => headers.remove(name),
        };
    }
    let mut headers: Vec<(String, String)> = headers.into_iter().collect();
    headers.extend(script.repeated.clone());
    Ok(Request {
        method: script.method.clone(),
        path: script.path.clone(),
        headers,
        host: script.host.clone(),
        pieces: script.pieces(),
        trailers: script.trailers,
        abort: script.abort,
    })
}

fn compare(expect: &Expectation, observed: &Observed, asked: &[Asked], problems: &mut Vec<String>) {
    if expect.status.is_some() && expect.status != observed.status {
        let body = String::from_utf8_lossy(&observed.body);
        problems.push(format!("status is {:?}, not {:?}: {body}", observed.status, expect.status));
    }
    compare_headers(&expect.headers, &observed.headers, "the client's header", problems);
    let json = last_json(&observed.body);
    if let Some(part) = &expect.json {
        match &json {
            Some(json) => subset(part, json, "the client's body", problems),
            None => problems.push(format!(
                "the client's body is no JSON: {:?}",
                String::from_utf8_lossy(&observed.body)
            )),
        }
    }
    if let Some(expected) = &expect.listed {
        let listed = json.as_ref().and_then(listed_names).unwrap_or_default();
        if &listed != expected {
            problems.push(format!("{listed:?} are listed, not {expected:?}"));
        }
    }
    let text = String::from_utf8_lossy(&observed.body);
    for part in expect.contains.iter().filter(|part| !text.contains(part.as_str())) {
        problems.push(format!("the client's body lacks {part:?}: {text:?}"));
    }
    for part in expect.lacks.iter().filter(|part| text.contains(part.as_str())) {
        problems.push(format!("the client's body holds {part:?}"));
    }
    compare_audit(expect, observed, problems);
    compare_metrics(expect, observed, problems);
    for cluster in ["everything", "billing", "vault"] {
        let count = asked.iter().filter(|asked| asked.cluster == cluster).count();
        let expected = expect.reaches.get(cluster).copied().unwrap_or(0);
        if count != expected {
            problems.push(format!("{cluster} got {count} requests, not {expected}"));
        }
    }
    // A real proxy's timer fetches keys when it likes: they are counted where a scenario says so.
    if let Some(expected) = expect.reaches.get("idp") {
        let count = asked.iter().filter(|asked| asked.cluster == "idp").count();
        if count != *expected {
            problems.push(format!("idp got {count} requests, not {expected}"));
        }
    }
    for (cluster, expected) in &expect.upstream {
        match asked.iter().rfind(|asked| &asked.cluster == cluster) {
            Some(asked) => compare_upstream(expected, asked, problems),
            None => problems.push(format!("{cluster} got no request")),
        }
    }
}

fn compare_audit(expect: &Expectation, observed: &Observed, problems: &mut Vec<String>) {
    let [record] = observed.audit.as_slice() else {
        problems.push(format!("{} audit records, not one", observed.audit.len()));
        return;
    };
    for (field, expected) in &expect.audit {
        let found = record.get(field);
        let matches = match (expected, found) {
            (None, None) => true,
            (Some(expected), Some(found)) => matches_text(expected, found),
            _ => false,
        };
        if !matches {
            problems.push(format!("audit field {field} is {found:?}, not {expected:?}"));
        }
    }
}

fn compare_metrics(expect: &Expectation, observed: &Observed, problems: &mut Vec<String>) {
    let Some(metrics) = &observed.metrics else { return };
    for (series, expected) in &expect.metrics {
        let found = metrics.get(series).copied().unwrap_or(0);
        if found != *expected {
            problems.push(format!("metric {series} grew by {found}, not {expected}: {metrics:?}"));
        }
    }
}

fn compare_upstream(expected: &UpstreamExpectation, asked: &Asked, problems: &mut Vec<String>) {
    let name = &asked.cluster;
    if expected.method.as_ref().is_some_and(|method| method != &asked.method) {
        problems.push(format!("{name} got method {}", asked.method));
    }
    if expected.path.as_ref().is_some_and(|path| path != &asked.path) {
        problems.push(format!("{name} got path {}", asked.path));
    }
    compare_headers(&expected.headers, &asked.headers, &format!("{name}'s header"), problems);
    if let Some(part) = &expected.json {
        match serde_json::from_slice(&asked.body) {
            Ok(json) => subset(part, &json, &format!("{name}'s body"), problems),
            Err(error) => problems.push(format!("{name} got a body that is no JSON: {error}")),
        }
    }
    let text = String::from_utf8_lossy(&asked.body);
    if expected.text.as_ref().is_some_and(|expected| expected != &text) {
        problems.push(format!("{name} got the body {text:?}"));
    }
}

fn compare_headers(
    expected: &BTreeMap<String, Option<String>>,
    found: &[(String, String)],
    whose: &str,
    problems: &mut Vec<String>,
) {
    for (name, expected) in expected {
        let values: Vec<&str> =
            found.iter().filter(|(known, _)| known == name).map(|(_, v)| v.as_str()).collect();
        let matches = match (expected, values.as_slice()) {
            (None, []) => true,
            (Some(expected), [value]) => matches_text(expected, value),
            _ => false,
        };
        if !matches {
            problems.push(format!("{whose} {name} is {values:?}, not {expected:?}"));
        }
    }
}

/// `$NAME` is a planted secret, a trailing `*` means "begins with".
fn matches_text(expected: &str, found: &str) -> bool {
    if let Some(name) = expected.strip_prefix('$') {
        return found == secret(name);
    }
    match expected.strip_suffix('*') {
        Some(beginning) => found.starts_with(beginning),
        None => expected == found,
    }
}

/// Whether everything in `part` is in `whole`: members of objects, all elements of arrays.
fn subset(part: &Value, whole: &Value, path: &str, problems: &mut Vec<String>) {
    match (part, whole) {
        (Value::Object(part), Value::Object(members)) => {
            for (key, value) in part {
                match members.get(key) {
                    Some(found) => subset(value, found, &format!("{path}.{key}"), problems),
                    None if value.is_null() => {}
                    None => problems.push(format!("{path} has no {key}: {whole}")),
                }
            }
        }
        (Value::String(expected), Value::String(found)) if matches_text(expected, found) => {}
        _ if part == whole => {}
        _ => problems.push(format!("{path} is {whole}, not {part}")),
    }
}

/// The JSON of a body; of an event stream, its last message.
fn last_json(body: &[u8]) -> Option<Value> {
    if let Ok(json) = serde_json::from_slice(body) {
        return Some(json);
    }
    let text = std::str::from_utf8(body).ok()?;
    let data = text
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("data:").filter(|d| !d.trim().is_empty()))?;
    serde_json::from_str(data).ok()
}

fn listed_names(message: &Value) -> Option<Vec<String>> {
    let result = message.get("result")?;
    let list = ["tools", "prompts", "resources", "resourceTemplates"]
        .iter()
        .find_map(|member| result.get(*member))?
        .as_array()?;
    let name = |element: &Value| {
        let name = element.get("uri").or_else(|| element.get("name"))?;
        name.as_str().map(str::to_owned)
    };
    Some(list.iter().filter_map(name).collect())
}

/// What must hold always: no secret reaches the client or audit, none an upstream that it is not
/// for, and the client's token reaches nobody.
fn leaks(
    observed: &Observed,
    asked: &[Asked],
    token: Option<&str>,
    passed_to: &[String],
    problems: &mut Vec<String>,
) {
    let headers: String = observed.headers.iter().map(|(n, v)| format!("{n}: {v}\n")).collect();
    let seen = format!(
        "{headers}{}{:?}{:?}",
        String::from_utf8_lossy(&observed.body),
        observed.audit,
        observed.metrics
    );
    for (name, value) in SECRETS {
        if seen.contains(value) {
            problems.push(format!("the client, audit or a metric sees the secret {name}"));
        }
        for asked in asked {
            let headers: String =
                asked.headers.iter().map(|(n, v)| format!("{n}: {v}\n")).collect();
            let sent = format!("{} {headers}{}", asked.path, String::from_utf8_lossy(&asked.body));
            let meant = is_meant(name, &asked.cluster);
            if !meant && sent.contains(value) {
                problems.push(format!("{} sees the secret {name}", asked.cluster));
            }
        }
    }
    for asked in asked {
        // A server may be given a token of its own there, and by its name even the caller's.
        let carried = asked.header("authorization").filter(|value| token == Some(*value));
        if (carried.is_some() && !passed_to.contains(&asked.cluster))
            || asked.header("cookie").is_some()
        {
            problems.push(format!("{} sees the client's credentials", asked.cluster));
        }
    }
}

/// The part of a bearer token that is worth stealing.
fn signature(header: &str) -> Option<String> {
    header
        .rsplit_once('.')
        .map(|(_, signature)| signature.to_owned())
        .filter(|text| text.len() > 20)
}
