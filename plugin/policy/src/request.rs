//! What is asked for and what is known of the request, and how the latter becomes Cedar's `Request`
//! record.
//!
//! Arguments of tools are converted in `arguments`.

use cedar_policy::{Context, RestrictedExpression};
use toolgate_protocol::json::Json;

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
}

impl Target<'_> {
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

impl RequestFacts<'_> {
    /// The record of schema type `MCP::Request`.
    ///
    /// # Errors
    /// The reason, when a fact has no Cedar form: what is wrongly known must not be passed over, or
    /// a forbid that looks at it would not see it.
    pub(crate) fn to_record(self) -> Result<RestrictedExpression, String> {
        let text = |text: &str| RestrictedExpression::new_string(text.to_owned());
        let mut members = vec![
            ("time".to_owned(), RestrictedExpression::new_datetime(datetime_text(self.time_ms)?)),
            (
                "scopes".to_owned(),
                RestrictedExpression::new_set(self.scopes.iter().map(|scope| text(scope))),
            ),
        ];
        if let Some(address) = self.source_ip {
            // Parsed here too: Cedar's `ip` takes ranges, a source address is never one.
            let address: std::net::IpAddr =
                address.parse().map_err(|_| "`source_ip` is not an IP address".to_owned())?;
            members.push((
                "source_ip".to_owned(),
                RestrictedExpression::new_ip(address.to_canonical().to_string()),
            ));
        }
        for (name, value) in [
            ("session", self.session),
            ("client_name", self.client_name),
            ("protocol_version", self.protocol_version),
        ] {
            members.extend(value.map(|value| (name.to_owned(), text(value))));
        }
        if let Some(seconds) = self.token_age_seconds {
            members.push(("token_age_seconds".to_owned(), RestrictedExpression::new_long(seconds)));
        }
        RestrictedExpression::new_record(members).map_err(|error| error.to_string())
    }
}

/// `context`: the request and, for a typed tool, its arguments.
pub(crate) fn context(
    request: RestrictedExpression,
    arguments: Option<RestrictedExpression>,
) -> Result<Context, String> {
    let arguments = arguments.map(|arguments| ("arguments".to_owned(), arguments));
    Context::from_pairs([("request".to_owned(), request)].into_iter().chain(arguments))
        .map_err(|error| error.to_string())
}

/// `time_ms` as Cedar writes a datetime, e.g. `2026-11-23T11:09:30.000Z`.
fn datetime_text(time_ms: i64) -> Result<String, String> {
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
    if !(0..=9999).contains(&year) {
        return Err("`time_ms` is not within the years 0 to 9999".to_owned());
    }
    let (seconds, millis) = (in_day / 1000, in_day % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    Ok(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z"))
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
            let context = context(facts.to_record().unwrap(), None).unwrap();
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
            assert!(datetime_text(beyond).is_err());
        }
    }

    #[test]
    fn a_source_address_that_is_none_is_an_error() {
        for wrong in ["", "10.0.0.0/8", "10.0.0.1:80", "localhost"] {
            let facts = RequestFacts { source_ip: Some(wrong), ..RequestFacts::default() };
            assert!(facts.to_record().is_err(), "{wrong}");
        }
    }
}
