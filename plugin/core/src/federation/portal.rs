//! A portal: an endpoint with several servers behind it. Says which server a name leads to, and under
//! which name a server's own things are shown.
//!
//! Finding the server of a call costs two look-ups, however many servers there are. Not here: who may
//! use what (policy decides on the server's own names), what servers list (`catalogue`).

use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::Rc;

use super::naming;

/// An endpoint with several servers behind it, compiled.
pub(crate) struct Portal {
    /// What it is called in records: its path after `/mcp/`, or `/mcp`.
    pub(crate) name: Rc<str>,
    pub(crate) instructions: Option<Rc<str>>,
    pub(crate) members: Vec<Member>,
    /// Prefix to member.
    pub(crate) prefixes: BTreeMap<String, usize>,
    /// Qualifier to member.
    pub(crate) qualifiers: BTreeMap<String, usize>,
    /// Beginning of URIs that stay as they are, to member. None is the beginning of another.
    pub(crate) uris: BTreeMap<String, usize>,
    /// Names that are configured one by one: member and own name.
    pub(crate) tools: BTreeMap<String, (usize, String)>,
    pub(crate) prompts: BTreeMap<String, (usize, String)>,
    /// Longest name that clients are shown.
    pub(crate) name_length: usize,
}

/// A server in a portal.
pub(crate) struct Member {
    pub(crate) server: Rc<str>,
    /// Before names; may be empty.
    pub(crate) prefix: String,
    /// Before URIs; never empty.
    pub(crate) qualifier: String,
    pub(crate) tools: Selection,
    pub(crate) prompts: Selection,
    pub(crate) resources: bool,
}

/// Which of a server's tools or prompts are in a portal.
#[derive(Default)]
pub(crate) struct Selection {
    /// Those that are configured, by their own names.
    pub(crate) entries: BTreeMap<String, Entry>,
    /// Whether all others are there, too.
    pub(crate) rest: bool,
}

/// How a tool or prompt appears.
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) title: Option<String>,
    pub(crate) description: Option<String>,
}

/// What has a name of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    Tool,
    Prompt,
}

/// Where a name leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// To this member, where it is called so.
    Own(usize, String),
    /// To this member; only a catalogue says how it is called there.
    Shortened(usize),
}

impl Portal {
    /// Where the name of a tool or prompt leads, `None` if nowhere.
    pub(crate) fn find(&self, named: Named, exposed: &str) -> Option<Found> {
        let table = match named {
            Named::Tool => &self.tools,
            Named::Prompt => &self.prompts,
        };
        if let Some((member, own)) = table.get(exposed) {
            return Some(Found::Own(*member, own.clone()));
        }
        let (prefix, rest) = naming::split(exposed)?;
        let index = *self.prefixes.get(prefix)?;
        let member = self.members.get(index)?;
        let selection = member.selection(named);
        if !selection.rest || selection.entries.contains_key(rest) {
            return None;
        }
        if naming::is_shortened(rest) {
            return Some(Found::Shortened(index));
        }
        // One name for each: another spelling of it leads nowhere.
        (naming::exposed(prefix, rest, self.name_length) == exposed)
            .then(|| Found::Own(index, rest.to_owned()))
    }

    /// The member and own URI (or identifier) of a qualified one.
    pub(crate) fn find_qualified(&self, qualified: &str) -> Option<(usize, String)> {
        let (qualifier, own) = naming::unqualified(qualified)?;
        Some((*self.qualifiers.get(&qualifier)?, own))
    }

    /// The member and own URI of one that clients use.
    pub(crate) fn find_uri(&self, seen: &str) -> Option<(usize, String)> {
        self.find_qualified(seen).or_else(|| Some((self.beginning_of(seen)?, seen.to_owned())))
    }

    /// The URI that clients see instead of a member's own.
    pub(crate) fn shown_uri(&self, member: usize, own: &str) -> String {
        // What would lead to another server does not stay as it is.
        if self.beginning_of(own) == Some(member) && self.find_qualified(own).is_none() {
            return own.to_owned();
        }
        let qualifier = self.members.get(member).map_or("", |member| &member.qualifier);
        naming::qualified(qualifier, own)
    }

    /// The member whose URIs begin like this one, where they stay as they are.
    fn beginning_of(&self, uri: &str) -> Option<usize> {
        // Of all beginnings up to it the last: none is the beginning of another.
        let upto = (Bound::Unbounded, Bound::Included(uri));
        let (beginning, member) = self.uris.range::<str, _>(upto).next_back()?;
        uri.starts_with(beginning.as_str()).then_some(*member)
    }

    /// The name under which a member's own tool or prompt is shown; `None` if it is not.
    pub(crate) fn exposed(&self, member: &Member, named: Named, own: &str) -> Option<String> {
        let selection = member.selection(named);
        match selection.entries.get(own) {
            Some(entry) => Some(entry.name.clone()),
            None if selection.rest => Some(naming::exposed(&member.prefix, own, self.name_length)),
            None => None,
        }
    }
}

impl Member {
    pub(crate) fn selection(&self, named: Named) -> &Selection {
        match named {
            Named::Tool => &self.tools,
            Named::Prompt => &self.prompts,
        }
    }
}
