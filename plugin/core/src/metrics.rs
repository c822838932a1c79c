//! Metrics: what exchanges and the gateway's own calls are counted and timed as.
//!
//! A measurement belongs to a series: the name of a metric and the values of its tags, as one text that
//! the host's statistics take (`toolgate_requests_total;server=billing;tool=refund`). Tags hold words of
//! this program and names of the configuration; whatever else a client or a server says counts as
//! `other`. So nobody outside decides how many series there are, and no secret can stand in one. Hosts
//! that take none never say [`Gateway::measure`], and nothing is counted. Not here: what is recorded of
//! a single exchange (`audit`).

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::time::Duration;

use toolgate_protocol::mcp::METHODS;

use crate::audit::{AuditRecord, Outcome};
use crate::event::CallOutcome;
use crate::facts::Need;
use crate::gateway::Gateway;

/// What stands for every name that is not the configuration's.
const OTHER: &str = "other";

/// Most series of one gateway. What comes later is counted with every tag as `other`.
const MOST_SERIES: usize = 8192;

/// Longest value of a tag, in bytes. Names of the configuration that are longer share a series.
const LONGEST_VALUE: usize = 128;

/// What stands for methods in records where there is none of MCP.
const OTHER_METHODS: [&str; 5] = ["batch", "response", "GET", "DELETE", "OPTIONS"];

/// Exchanges that last as long as the client likes: how long says nothing.
const STREAMS: [&str; 2] = ["GET", "subscriptions/listen"];

/// How the values of a series are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// They are added up.
    Counter,
    /// They are sorted by size, each a sample.
    Histogram,
}

/// A metric with values for its tags, within one gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Series(usize);

impl Series {
    /// Series are numbered from 0 as they come up.
    #[must_use]
    pub fn index(self) -> usize {
        self.0
    }
}

/// What is to be added to a counter or put into a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measurement {
    /// The series.
    pub series: Series,
    /// How much.
    pub value: u64,
}

/// The counter of configurations that a host handed over, `accepted` or not.
#[must_use]
pub fn configuration_series(accepted: bool) -> &'static str {
    match accepted {
        true => "toolgate_configurations_total;result=accepted",
        false => "toolgate_configurations_total;result=refused",
    }
}

/// What one gateway measures.
#[derive(Default)]
pub(crate) struct Metrics {
    is_wanted: Cell<bool>,
    /// The tools that the configuration names, by server.
    tools: BTreeMap<Rc<str>, BTreeSet<String>>,
    known: RefCell<Known>,
    pending: RefCell<Vec<Measurement>>,
}

#[derive(Default)]
struct Known {
    by_name: HashMap<Rc<str>, Series>,
    all: Vec<(MetricKind, Rc<str>)>,
    /// Where names are written, kept for the next one.
    name: String,
}

impl Metrics {
    /// For a gateway with these servers and the tools that its configuration names at each.
    pub(crate) fn new(tools: BTreeMap<Rc<str>, BTreeSet<String>>) -> Self {
        Self { tools, ..Self::default() }
    }

    /// Adds to a counter.
    pub(crate) fn count(&self, metric: &'static str, tags: &[(&'static str, &str)], more: u64) {
        if more > 0 {
            self.add(MetricKind::Counter, metric, tags, more);
        }
    }

    /// Puts a time into a histogram of milliseconds.
    fn time(&self, metric: &'static str, tags: &[(&'static str, &str)], took: Duration) {
        let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.add(MetricKind::Histogram, metric, tags, milliseconds);
    }

    fn add(&self, kind: MetricKind, metric: &str, tags: &[(&'static str, &str)], value: u64) {
        if self.is_wanted.get() {
            let series = self.known.borrow_mut().series(kind, metric, tags);
            self.pending.borrow_mut().push(Measurement { series, value });
        }
    }

    /// An exchange is over.
    pub(crate) fn exchange(&self, record: &AuditRecord) {
        if !self.is_wanted.get() {
            return;
        }
        let tools = record.server.as_ref().map(|server| self.tools.get(server));
        let place = match (&record.server, tools) {
            (Some(server), Some(Some(_))) => ("server", &**server),
            (Some(_), _) => ("server", OTHER),
            // The names of portals are the configuration's.
            (None, _) => match &record.portal {
                Some(portal) => ("portal", &**portal),
                None => ("server", OTHER),
            },
        };
        let method = record.mcp_method.as_deref().map_or(OTHER, known_method);
        let tool = record.tool.as_ref().map(|tool| match tools {
            Some(Some(known)) if known.contains(tool) => tool,
            _ => OTHER,
        });
        let decision = record.decision.as_str();
        self.count(
            "toolgate_requests_total",
            &[
                place,
                ("method", method),
                ("tool", tool.unwrap_or_default()),
                ("decision", decision),
                ("reason", record.reason.unwrap_or_default()),
            ],
            1,
        );
        if record.upstream_status.is_some()
            && record.decision != Outcome::Deny
            && !STREAMS.contains(&method)
        {
            let took = Duration::from_micros(record.total_us);
            self.time("toolgate_request_duration_milliseconds", &[place], took);
        }
        let single = record.credentials.is_empty().then_some(&record.credential);
        let single = single.and_then(|name| Some((name.as_ref()?, record.credential_source?)));
        let several = record.credentials.iter().filter_map(|used| Some((&used.name, used.source?)));
        for (credential, source) in single.into_iter().chain(several) {
            let tags = [("credential", &**credential), ("source", source)];
            self.count("toolgate_credentials_total", &tags, 1);
        }
        let left_out = record.left_out.iter().flat_map(|servers| servers.split(','));
        for (server, reason) in left_out.filter_map(|each| each.split_once(':')) {
            let tags = [("server", server), ("reason", reason)];
            self.count("toolgate_left_out_total", &tags, 1);
        }
        if let Some(shadow) = record.shadow_decision {
            let tags = [
                place,
                ("method", method),
                ("tool", tool.unwrap_or_default()),
                ("decision", shadow),
                ("reason", record.shadow_reason.unwrap_or_default()),
            ];
            self.count("toolgate_shadow_decisions_total", &tags, 1);
        }
        let lists = [("would_list", record.shadow_listed), ("would_hide", record.shadow_hidden)];
        for (difference, count) in lists {
            let count = count.and_then(|count| u64::try_from(count).ok()).unwrap_or(0);
            let tags = [place, ("method", method), ("difference", difference)];
            self.count("toolgate_shadow_list_elements_total", &tags, count);
        }
    }

    /// A call of the gateway itself is over.
    pub(crate) fn call(&self, need: &Need, cluster: &str, result: &'static str, took: Duration) {
        let (purpose, cluster) = (("purpose", need.purpose()), ("cluster", cluster));
        self.count("toolgate_outgoing_calls_total", &[purpose, cluster, ("result", result)], 1);
        self.time("toolgate_outgoing_call_duration_milliseconds", &[purpose, cluster], took);
    }
}

impl Known {
    fn series(&mut self, kind: MetricKind, metric: &str, tags: &[(&'static str, &str)]) -> Series {
        self.write(metric, tags.iter().copied());
        if let Some(series) = self.by_name.get(&*self.name) {
            return *series;
        }
        if self.all.len() >= MOST_SERIES {
            let filled = tags.iter().filter(|(_, value)| !value.is_empty());
            self.write(metric, filled.map(|(tag, _)| (*tag, OTHER)));
            if let Some(series) = self.by_name.get(&*self.name) {
                return *series;
            }
        }
        let name: Rc<str> = self.name.as_str().into();
        let series = Series(self.all.len());
        self.all.push((kind, Rc::clone(&name)));
        self.by_name.insert(name, series);
        series
    }

    /// Writes the name of a series. Tags without a value are left out.
    fn write<'a>(&mut self, metric: &str, tags: impl Iterator<Item = (&'static str, &'a str)>) {
        self.name.clear();
        self.name.push_str(metric);
        for (tag, value) in tags.filter(|(_, value)| !value.is_empty()) {
            self.name.push(';');
            self.name.push_str(tag);
            self.name.push('=');
            push_value(&mut self.name, value);
        }
    }
}

/// Appends a value in characters that the names of statistics may have; all others as in URLs.
fn push_value(name: &mut String, value: &str) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let most = name.len() + LONGEST_VALUE;
    for byte in value.bytes() {
        if name.len() + 3 > most {
            return;
        }
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/') {
            name.push(char::from(byte));
        } else {
            name.push('%');
            for nibble in [byte >> 4, byte & 15] {
                name.extend(DIGITS.get(usize::from(nibble)).map(|digit| char::from(*digit)));
            }
        }
    }
}

/// A method as a tag has it: clients may write anything.
fn known_method(method: &str) -> &'static str {
    let of_mcp = METHODS.iter().map(|known| known.name);
    of_mcp.chain(OTHER_METHODS).find(|known| *known == method).unwrap_or(OTHER)
}

impl Gateway {
    /// Says that this host takes measurements. It then has to take them after every exchange and every
    /// call that is over, or they pile up.
    pub fn measure(&self) {
        self.metrics.is_wanted.set(true);
    }

    /// Hands over what was measured since the last time.
    pub fn take_measurements(&self, mut each: impl FnMut(Measurement)) {
        self.metrics.pending.borrow_mut().drain(..).for_each(&mut each);
    }

    /// Kind and name of a series of this gateway: the metric, and for each tag `;tag=value`.
    #[must_use]
    pub fn metric(&self, series: Series) -> Option<(MetricKind, Rc<str>)> {
        self.metrics.known.borrow().all.get(series.0).cloned()
    }
}

/// How a call went, as a tag says it. `is_good` when its answer was what it was made for.
pub(crate) fn call_result(outcome: &CallOutcome, is_good: bool) -> &'static str {
    match outcome {
        _ if is_good => "ok",
        CallOutcome::Failed | CallOutcome::Response { status: 502..=504, .. } => "unreachable",
        CallOutcome::Response { .. } => "refused",
        CallOutcome::TooLarge => "too_large",
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn metrics() -> Metrics {
        let tools = BTreeSet::from(["refund".to_owned()]);
        let metrics = Metrics::new(BTreeMap::from([("billing".into(), tools)]));
        metrics.is_wanted.set(true);
        metrics
    }

    fn measured(metrics: &Metrics) -> Vec<(String, u64)> {
        let known = metrics.known.borrow();
        let pending = metrics.pending.borrow_mut().drain(..).collect::<Vec<_>>();
        pending.into_iter().map(|it| (known.all[it.series.0].1.to_string(), it.value)).collect()
    }

    fn record() -> AuditRecord {
        AuditRecord {
            server: Some("billing".into()),
            mcp_method: Some("tools/call".into()),
            tool: Some("refund".into()),
            decision: Outcome::Allow,
            upstream_status: Some(200),
            total_us: 12_345,
            ..AuditRecord::default()
        }
    }

    #[test]
    fn an_exchange_is_a_count_and_a_time() {
        let metrics = metrics();
        metrics.exchange(&record());
        assert_eq!(
            measured(&metrics),
            [
                (
                    "toolgate_requests_total;server=billing;method=tools/call;tool=refund;decision=allow"
                        .to_owned(),
                    1
                ),
                ("toolgate_request_duration_milliseconds;server=billing".to_owned(), 12),
            ]
        );
    }

    #[test]
    fn what_a_client_writes_is_in_no_series() {
        let metrics = metrics();
        metrics.exchange(&AuditRecord {
            mcp_method: Some("client/wrote".into()),
            tool: Some("client wrote".into()),
            principal: Some("client wrote".into()),
            resource: Some("client wrote".into()),
            decision: Outcome::Deny,
            reason: Some("not_visible"),
            upstream_status: None,
            ..record()
        });
        let name = "toolgate_requests_total;server=billing;method=other;tool=other;decision=deny;reason=not_visible";
        assert_eq!(measured(&metrics), [(name.to_owned(), 1)]);
    }

    #[test]
    fn series_are_bounded_whatever_comes() {
        let metrics = metrics();
        for number in 0..2 * MOST_SERIES {
            metrics.count("toolgate_requests_total", &[("tool", &number.to_string())], 1);
        }
        assert_eq!(metrics.known.borrow().all.len(), MOST_SERIES + 1);
        let counted = measured(&metrics);
        assert_eq!(counted.last().unwrap().0, "toolgate_requests_total;tool=other");
        assert_eq!(counted.len(), 2 * MOST_SERIES);
    }

    #[test]
    fn a_series_has_one_number_however_often_it_comes() {
        let metrics = metrics();
        metrics.exchange(&record());
        metrics.exchange(&record());
        let pending = metrics.pending.borrow().clone();
        assert_eq!(pending[0].series, pending[2].series);
        assert_ne!(pending[0].series, pending[1].series);
    }

    #[test]
    fn values_cannot_look_like_tags_and_are_bounded() {
        let mut name = String::new();
        push_value(&mut name, "a;b=c:d é");
        assert_eq!(name, "a%3Bb%3Dc%3Ad%20%C3%A9");
        name.clear();
        push_value(&mut name, &";".repeat(1000));
        assert!(name.len() <= LONGEST_VALUE);
    }

    #[test]
    fn a_host_that_wants_none_has_nothing_piling_up() {
        let metrics = metrics();
        metrics.is_wanted.set(false);
        metrics.exchange(&record());
        assert!(metrics.pending.borrow().is_empty());
    }

    #[test]
    fn all_that_is_shadow_is_counted() {
        let metrics = metrics();
        metrics.exchange(&AuditRecord {
            shadow_decision: Some("would_deny"),
            shadow_reason: Some("not_visible"),
            shadow_hidden: Some(3),
            upstream_status: None,
            ..record()
        });
        let names: Vec<_> = measured(&metrics).into_iter().skip(1).collect();
        let tags = "server=billing;method=tools/call";
        assert_eq!(
            names,
            [
                (
                    format!(
                        "toolgate_shadow_decisions_total;{tags};tool=refund;decision=would_deny;reason=not_visible"
                    ),
                    1
                ),
                (format!("toolgate_shadow_list_elements_total;{tags};difference=would_hide"), 3),
            ]
        );
    }
}
