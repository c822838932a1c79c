//! What was found out about callers and targets that were asked about recently.
//!
//! Bounded over all callers: [`MOST_BYTES`] together, and what was not asked for lately is forgotten.
//! It dies with the engine, and with it everything that an old configuration's policies said.
//!
//! INVARIANT: an entry is only found by the very [`Principal`](crate::Principal) it was made for. Its
//! key starts with the address of that, which the entry itself keeps from being given to another.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;

use crate::call_kind::CallKind;
use crate::catalog::Catalog;
use crate::index::Index;
use crate::names;
use crate::principal::Known;
use crate::recent::Recent;
use crate::request::{ServerAction, Target};
use crate::standing::Standing;

/// Most bytes that are spent on remembering, estimated from above: what callers share is counted for
/// each target. Enough for three callers of a thousand tools each.
const MOST_BYTES: usize = 32 << 20;

/// Longest name of a target that is remembered by, in bytes.
const MOST_NAME: usize = 2048;

/// The actions on the tools, prompts and resources of which the configuration says nothing, with what
/// stands for them in keys.
const MEMBERS: [(u8, &str); 3] =
    [(b't', CallKind::UNSAID.action()), (b'p', "get_prompt"), (b'r', "read_resource")];

/// Everything that was asked for recently.
#[derive(Debug)]
pub(crate) struct Standings {
    recent: RefCell<Recent<Rc<Standing>>>,
    /// Kind and id of every tool, prompt and resource that the configuration tells from others.
    distinct: HashSet<Box<[u8]>>,
    /// Those of [`MEMBERS`] whose policies tell even those apart that the configuration does not name.
    told_apart: Vec<u8>,
    /// Where keys are written, kept for the next one.
    key: RefCell<Vec<u8>>,
}

impl Standings {
    pub(crate) fn new(index: &Index, catalog: &Catalog) -> Self {
        let mut distinct = HashSet::new();
        let tools = index.actions().filter(|id| names::split_member_id(id).is_some());
        for id in tools.chain(catalog.tools()) {
            distinct.insert([b"t", id.as_bytes()].concat().into());
        }
        for uid in index.named() {
            let kind: &[u8] = match uid.type_name() {
                ty if *ty == *names::TOOL => b"t",
                ty if *ty == *names::PROMPT => b"p",
                _ => b"r",
            };
            distinct.insert([kind, uid.id().unescaped().as_bytes()].concat().into());
        }
        Self {
            recent: RefCell::new(Recent::new(MOST_BYTES)),
            distinct,
            told_apart: MEMBERS
                .into_iter()
                .filter(|(_, action)| index.looks_at_names(action))
                .map(|(kind, _)| kind)
                .collect(),
            key: RefCell::default(),
        }
    }

    /// The standing of `principal` before `target`, from memory or made by `make`. What cannot be made
    /// is not remembered.
    ///
    /// Tools, prompts and resources of one server that neither the configuration names nor any policy
    /// looks at more closely have one standing together: all that policies could see of them is the
    /// same. It is that of whichever was asked about first.
    ///
    /// # Errors
    /// Those of `make`.
    pub(crate) fn of(
        &self,
        principal: &Rc<Known>,
        target: &Target<'_>,
        make: impl FnOnce() -> Result<Option<Standing>, String>,
    ) -> Result<Option<Rc<Standing>>, String> {
        let (kind, server, name) = match target {
            Target::Server(server, ServerAction::Connect) => (b'c', *server, None),
            Target::Server(server, ServerAction::SetLogLevel) => (b'l', *server, None),
            Target::Server(server, ServerAction::UseTasks) => (b'u', *server, None),
            Target::Tool { server, name, .. } => (b't', *server, Some(*name)),
            Target::Prompt { server, name } => (b'p', *server, Some(*name)),
            Target::Resource { server, uri } => (b'r', *server, Some(*uri)),
        };
        let mut key = self.key.borrow_mut();
        key.clear();
        key.extend_from_slice(&Rc::as_ptr(principal).addr().to_ne_bytes());
        let prefix = key.len();
        key.push(kind);
        key.extend_from_slice(server.as_bytes());
        if let Some(name) = name {
            if name.len() > MOST_NAME {
                return Ok(make()?.map(Rc::new));
            }
            let class = key.len();
            // No server has this in its name.
            key.push(b'/');
            key.extend_from_slice(name.as_bytes());
            let id = key.get(prefix..).unwrap_or_default();
            if !self.told_apart.contains(&kind) && !self.distinct.contains(id) {
                key.truncate(class);
            }
        }
        let mut recent = self.recent.borrow_mut();
        if let Some(standing) = recent.get(&key) {
            return Ok(Some(standing));
        }
        let Some(standing) = make()?.map(Rc::new) else { return Ok(None) };
        recent.insert(&key, Rc::clone(&standing), standing.weight() + 4 * key.len());
        Ok(Some(standing))
    }
}
