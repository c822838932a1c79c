//! What is asked for and what is known of the request, and how the latter becomes Cedar's `Request`
//! record.
//!
//! Arguments of tools are converted in `arguments`.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use cedar_policy_core::ast::{Context, Value};
use toolgate_protocol::json::Json;

use crate::looks::Looks;
use crate::values;

/// What a caller asks for.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// Something of a server itself.
    Server(&'a str, ServerAction),
    /// A call of a tool.
    Tool {
        /// Name of the server in the configuration.
        server: &'a str,
        /// Name of the tool at that server.
        name: &'a str,
        /// The arguments; `null` stands for none. [`crate::PolicyEngine::visible`] ignores them.
        arguments: &'a Json,
    },
    /// A prompt, to get it or to complete its arguments.
    Prompt {
        /// Name of the server in the configuration.
        server: &'a str,
        /// Name of the prompt at that server.
        name: &'a str,
    },
    /// A resource, to read it, subscribe to it or complete its template.
    Resource {
        /// Name of the server in the configuration.
        server: &'a str,
        /// URI of the resource at that server.
        uri: &'a str,
    },
}

/// What is asked of a server itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerAction {
    /// Reaching it at all: initialize, ping, discovery, notifications, streams.
    Connect,
    /// Setting the level of its log messages.
    SetLogLevel,
    /// Asking for, changing, ending or listing tasks.
    UseTasks,
}

/// What is known of a request whatever it asks for: `context.request`.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestFacts<'a> {
    /// When the decision is made: milliseconds since 1970-01-01T00:00:00Z, not after the year 9999.
    pub time_ms: i64,
    /// The scopes of the token.
    pub scopes: &'a [String],
    /// Address of the caller, v4 or v6, without a port.
    pub source_ip: Option<&'a str>,
    /// MCP session id.
    pub session: Option<&'a str>,
    /// What the client calls itself.
    pub client_name: Option<&'a str>,
    /// Seconds since the token was issued.
    pub token_age_seconds: Option<i64>,
    /// MCP protocol version.
    pub protocol_version: Option<&'a str>,
    /// What each counter of the configuration says, in the order of
    /// [`PolicyEngine::counters`](crate::PolicyEngine::counters). A policy that looks at one that is not
    /// known, or not here, cannot be evaluated.
    pub calls: &'a [Count],
}

/// What one counter says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// Name of the counter.
    pub counter: Rc<str>,
    /// How many calls there were; none where that could not be found out.
    pub calls: Option<i64>,
}

impl Target<'_> {
    /// The action of the model that it is; None for a call of a tool, of which there are several.
    pub(crate) fn action(&self) -> Option<&'static str> {
        Some(match self {
            Self::Server(_, ServerAction::Connect) => "connect",
            Self::Server(_, ServerAction::SetLogLevel) => "set_log_level",
            Self::Server(_, ServerAction::UseTasks) => "use_tasks",
            Self::Tool { .. } => return None,
            Self::Prompt { .. } => "get_prompt",
            Self::Resource { .. } => "read_resource",
        })
    }

    /// The name or URI of what is asked for at the server; None for the server itself.
    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            Self::Server(..) => None,
            Self::Tool { name, .. } | Self::Prompt { name, .. } => Some(name),
            Self::Resource { uri, .. } => Some(uri),
        }
    }

    /// The server that is asked.
    #[must_use]
    pub fn server(&self) -> &str {
        match self {
            Self::Server(server, _)
            | Self::Tool { server, .. }
            | Self::Prompt { server, .. }
            | Self::Resource { server, .. } => server,
        }
    }
}

/// Earliest and latest time that Cedar reads: the first and the last millisecond of the years 0 to
/// 9999.
const TIMES: std::ops::RangeInclusive<i64> = -62_167_219_200_000..=253_402_300_799_999;

impl RequestFacts<'_> {
    /// Whether every fact has a form in Cedar, looked at or not: what is wrongly known must not be
    /// passed over.
    ///
    /// # Errors
    /// The reason why one has none.
    pub(crate) fn validate(&self) -> Result<(), String> {
        if !TIMES.contains(&self.time_ms) {
            return Err("`time_ms` is not within the years 0 to 9999".to_owned());
        }
        self.source().map(|_| ())
    }

    /// The members of `MCP::Request` that `looks` names.
    ///
    /// # Errors
    /// The reason, when one of these facts has no Cedar form.
    pub(crate) fn to_record(self, looks: Looks) -> Result<Value, String> {
        let mut members: Vec<(&str, Value)> = Vec::new();
        if looks.at(Looks::TIME) {
            members.push(("time", time(self.time_ms).ok_or("`time_ms` is not a time")?));
        }
        if looks.at(Looks::SCOPES) {
            let scopes = self.scopes.iter().map(|scope| Value::from(scope.as_str()));
            members.push(("scopes", Value::set(scopes, None)));
        }
        if looks.at(Looks::SOURCE_IP)
            && let Some(address) = self.source()?
        {
            let address = values::IP.value(&address.to_string());
            members.push(("source_ip", address.ok_or("`source_ip` is not an IP address")?));
        }
        for (name, look, value) in [
            ("session", Looks::SESSION, self.session),
            ("client_name", Looks::CLIENT_NAME, self.client_name),
            ("protocol_version", Looks::PROTOCOL_VERSION, self.protocol_version),
        ] {
            members.extend(value.filter(|_| looks.at(look)).map(|value| (name, value.into())));
        }
        if let Some(seconds) = self.token_age_seconds.filter(|_| looks.at(Looks::TOKEN_AGE)) {
            members.push(("token_age_seconds", seconds.into()));
        }
        if looks.at(Looks::CALLS) && !self.calls.is_empty() {
            let known = self.calls.iter().filter_map(|count| Some((&*count.counter, count.calls?)));
            let known: Vec<(&str, Value)> =
                known.map(|(name, calls)| (name, calls.into())).collect();
            members.push(("calls", Value::record(known, None)));
        }
        Ok(Value::record(members, None))
    }

    /// Parsed here, since Cedar's `ip` takes ranges too, and a source address is never one.
    fn source(&self) -> Result<Option<IpAddr>, String> {
        let Some(address) = self.source_ip else { return Ok(None) };
        let address: IpAddr =
            address.parse().map_err(|_| "`source_ip` is not an IP address".to_owned())?;
        Ok(Some(address.to_canonical()))
    }
}

/// `context`: the request and, for a typed tool, its arguments.
pub(crate) fn context(request: Value, arguments: Option<Value>) -> Context {
    let arguments = arguments.map(|arguments| ("arguments".into(), arguments));
    Context::Value(Arc::new([("request".into(), request)].into_iter().chain(arguments).collect()))
}

/// The datetime that `time_ms` is. Reading it from text is most of what a policy on time costs, and all
/// elements of a list are decided on at one time, so the last one is kept.
fn time(time_ms: i64) -> Option<Value> {
    thread_local! {
        static LAST: RefCell<Option<(i64, Value)>> = const { RefCell::new(None) };
    }
    LAST.with_borrow_mut(|last| match last {
        Some((known, time)) if *known == time_ms => Some(time.clone()),
        _ => {
            let time = values::DATETIME.value(&datetime_text(time_ms)?)?;
            *last = Some((time_ms, time.clone()));
            Some(time)
        }
    })
}

/// `time_ms` as Cedar writes a datetime, e.g. `2026-11-23T11:09:30.000Z`; None beyond [`TIMES`].
fn datetime_text(time_ms: i64) -> Option<String> {
    if !TIMES.contains(&time_ms) {
        return None;
    }
    const DAY: i64 = 86_400_000;
    let (days, in_day) = (time_ms.div_euclid(DAY), time_ms.rem_euclid(DAY));
    // Days to a date in the proleptic Gregorian calendar: the year starts in March, so that the leap
    // day is its last; an era is 400 years (Howard Hinnant, `civil_from_days`).
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (seconds, millis) = (in_day / 1000, in_day % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    Some(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z"))
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn time_is_written_as_cedar_reads_it() {
        for (time_ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (1_709_164_800_000, "2024-02-29T00:00:00.000Z"),
            (1_795_432_170_123, "2026-11-23T11:09:30.123Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(datetime_text(time_ms).unwrap(), text);
            let facts = RequestFacts { time_ms, ..RequestFacts::default() };
            facts.validate().unwrap();
            let context = context(facts.to_record(Looks::TIME).unwrap(), None).into();
            let read = cedar_policy::eval_expression(
                &cedar_policy::Request::new(
                    "A::\"a\"".parse().unwrap(),
                    "Action::\"a\"".parse().unwrap(),
                    "A::\"a\"".parse().unwrap(),
                    context,
                    None,
                )
                .unwrap(),
                &cedar_policy::Entities::empty(),
                &"context.request.time.toTime().toMilliseconds()".parse().unwrap(),
            );
            assert_eq!(
                read.unwrap(),
                cedar_policy::EvalResult::Long(time_ms.rem_euclid(86_400_000))
            );
        }
        for beyond in [i64::MIN, -62_167_219_200_001, 253_402_300_800_000, i64::MAX] {
            assert!(datetime_text(beyond).is_none());
            let facts = RequestFacts { time_ms: beyond, ..RequestFacts::default() };
            assert!(facts.validate().is_err());
        }
    }

    #[test]
    fn a_source_address_that_is_none_is_an_error() {
        for wrong in ["", "10.0.0.0/8", "10.0.0.1:80", "localhost"] {
            let facts = RequestFacts { source_ip: Some(wrong), ..RequestFacts::default() };
            assert!(facts.validate().is_err(), "{wrong}");
            assert!(facts.to_record(Looks::SOURCE_IP).is_err(), "{wrong}");
        }
    }
}
