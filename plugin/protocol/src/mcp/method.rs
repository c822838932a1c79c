//! The one table of what clients send: every method, in which revisions it exists, and what its
//! sender must be allowed to do.
//!
//! Sources: the unions `ClientRequest` and `ClientNotification` in the schemas of the revisions
//! 2024-11-05 to 2026-07-28, and the tasks extension of the last. What a server sends needs no
//! table: it passes to the client that is allowed to have it (`list`).

use super::operation::ListKind;
use super::version::Version;

/// A method that clients may send.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    /// Its name.
    pub name: &'static str,
    /// Whether it is a request; otherwise it is a notification.
    pub is_request: bool,
    /// The first revision that has it.
    pub since: Version,
    /// The last revision that has it.
    pub until: Version,
    /// What it asks for, before its parameters are read.
    pub asks: Asks,
}

/// What a method asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// Opens a conversation: `initialize`.
    Initialize,
    /// Keeps it up; has no parameters of meaning.
    Connect,
    /// Ends a request of the client's own: `notifications/cancelled`.
    Cancel,
    /// Says how far a request of the server's has come: `notifications/progress`.
    Progress,
    /// Lists; each element is decided on by itself.
    List(ListKind),
    /// Calls the tool that it names.
    CallTool,
    /// Gets the prompt that it names.
    GetPrompt,
    /// Reads, or follows, the resource that it names.
    ReadResource,
    /// Completes an argument of the prompt or resource that it refers to.
    Complete,
    /// Follows what it names, each resource by itself.
    Listen,
    /// Sets the level of log messages.
    SetLogLevel,
    /// Asks for, changes or ends the task that it names.
    Task,
    /// Lists tasks.
    ListTasks,
}

impl Asks {
    /// The action of `toolgate.cedarschema` that decides on it, as documentation says it.
    #[must_use]
    pub fn action(self) -> &'static str {
        match self {
            Self::Initialize | Self::Connect | Self::Cancel | Self::Progress => "connect",
            Self::List(_) => "connect, and each element by its own action",
            Self::CallTool => "call_tool",
            Self::GetPrompt => "get_prompt",
            Self::ReadResource => "read_resource",
            Self::Complete => "get_prompt or read_resource, by what it refers to",
            Self::Listen => "connect, read_resource for each URI, use_tasks for tasks",
            Self::SetLogLevel => "set_log_level",
            Self::Task | Self::ListTasks => "use_tasks",
        }
    }
}

const FIRST: Version = Version::V2024_11_05;
const LAST_LEGACY: Version = Version::V2025_11_25;
const MODERN: Version = Version::V2026_07_28;

const fn request(name: &'static str, since: Version, until: Version, asks: Asks) -> Method {
    Method { name, is_request: true, since, until, asks }
}

const fn notification(name: &'static str, until: Version, asks: Asks) -> Method {
    Method { name, is_request: false, since: FIRST, until, asks }
}

/// Every method that passes; what is not here is refused. The most frequent stand first.
pub const METHODS: &[Method] = &[
    request("tools/call", FIRST, MODERN, Asks::CallTool),
    request("tools/list", FIRST, MODERN, Asks::List(ListKind::Tools)),
    request("initialize", FIRST, LAST_LEGACY, Asks::Initialize),
    request("ping", FIRST, LAST_LEGACY, Asks::Connect),
    request("server/discover", MODERN, MODERN, Asks::Connect),
    request("prompts/get", FIRST, MODERN, Asks::GetPrompt),
    request("prompts/list", FIRST, MODERN, Asks::List(ListKind::Prompts)),
    request("resources/read", FIRST, MODERN, Asks::ReadResource),
    request("resources/list", FIRST, MODERN, Asks::List(ListKind::Resources)),
    request("resources/templates/list", FIRST, MODERN, Asks::List(ListKind::ResourceTemplates)),
    request("resources/subscribe", FIRST, LAST_LEGACY, Asks::ReadResource),
    request("resources/unsubscribe", FIRST, LAST_LEGACY, Asks::ReadResource),
    request("completion/complete", FIRST, MODERN, Asks::Complete),
    request("logging/setLevel", FIRST, LAST_LEGACY, Asks::SetLogLevel),
    request("subscriptions/listen", MODERN, MODERN, Asks::Listen),
    request("tasks/get", LAST_LEGACY, MODERN, Asks::Task),
    request("tasks/cancel", LAST_LEGACY, MODERN, Asks::Task),
    request("tasks/result", LAST_LEGACY, LAST_LEGACY, Asks::Task),
    request("tasks/update", MODERN, MODERN, Asks::Task),
    request("tasks/list", LAST_LEGACY, LAST_LEGACY, Asks::ListTasks),
    notification("notifications/initialized", LAST_LEGACY, Asks::Connect),
    // 2026-07-28 has it for stdio only; clients that support both send it over HTTP all the same.
    notification("notifications/cancelled", MODERN, Asks::Cancel),
    notification("notifications/progress", LAST_LEGACY, Asks::Progress),
    notification("notifications/roots/list_changed", LAST_LEGACY, Asks::Connect),
    Method {
        since: LAST_LEGACY,
        ..notification("notifications/tasks/status", LAST_LEGACY, Asks::Connect)
    },
];

impl Method {
    /// The method of this name and form. `version` is the revision the message is of; `None` for a
    /// client of the legacy era that does not say which, as all do up to 2025-03-26.
    #[must_use]
    pub fn find(name: &str, is_request: bool, version: Option<Version>) -> Option<&'static Self> {
        METHODS.iter().find(|method| {
            method.name == name
                && method.is_request == is_request
                && match version {
                    Some(version) => method.since <= version && version <= method.until,
                    None => method.since <= LAST_LEGACY,
                }
        })
    }
}
