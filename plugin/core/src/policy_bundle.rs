//! Policies that are fetched: asked for by the timer, compiled like those of a configuration, and put in
//! force only when nothing is wrong with them.
//!
//! Whatever goes wrong, the last good ones stay in force, and log and metrics say so. Before the first,
//! those of the configuration decide; where it has none, every request is refused. A document that was
//! seen before is not compiled again, by its ETag (RFC 9110 section 8.8.3) or else by its bytes. Not here:
//! how calls are made (`calls`), what goes on with which policies (`policies`).

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use toolgate_policy::{PolicyConfig, Problem};

use crate::compile::Compiler;
use crate::config::{PolicyBundleConfig, Scheme};
use crate::credentials::Echoes;
use crate::event::{CallOutcome, FieldValue, HttpCall, Timestamp};
use crate::facts::Need;
use crate::gateway::Gateway;
use crate::policies::{self, Policies};
use crate::shape;

/// Largest document that is read, in bytes.
const MOST_BYTES: usize = 8 << 20;

/// Longest ETag that is sent back, in bytes.
const LONGEST_ETAG: usize = 256;

/// Most problems of a document that are told.
const MOST_PROBLEMS: usize = 5;

/// Most notes that wait to be taken.
const MOST_NOTES: usize = 16;

/// Where policies are fetched, compiled, and what one worker knows of them.
pub(crate) struct PolicyBundle {
    cluster: Rc<str>,
    authority: Rc<str>,
    path: String,
    timeout: Duration,
    poll: Duration,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    /// Whether there are policies to decide by.
    is_ready: bool,
    /// When the last call was over, whatever came of it.
    asked: Option<Timestamp>,
    /// What the last document is called, whether or not it could be used.
    etag: Option<String>,
    /// SHA-256 of the same.
    seen: Option<[u8; 32]>,
    /// Whether it could not.
    is_refused: bool,
    /// What was told last, so that it is told once.
    told: Option<PoliciesError>,
    notes: VecDeque<Note>,
}

/// Something that whoever runs the host should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Whether something is wrong.
    pub is_problem: bool,
    /// What.
    pub text: String,
}

/// Why no policies came into force. `Display` holds nothing that a server said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PoliciesError {
    /// No answer in time.
    #[error("no answer")]
    Unreachable,
    /// A status that is neither 200 nor an expected 304.
    #[error("status {0}")]
    Status(u16),
    /// More than is read.
    #[error("the document is larger than {MOST_BYTES} bytes")]
    TooLarge,
    /// Something is wrong with the document.
    #[error("the document is not valid")]
    Invalid,
}

/// The document, as `toolgate bundle` writes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    policy: PolicyConfig,
    #[serde(default)]
    policy_checked: Option<String>,
}

impl Compiler<'_> {
    /// Compiles where policies are fetched. `is_ready` when the configuration has some itself.
    pub(crate) fn policy_bundle(
        &mut self,
        config: PolicyBundleConfig,
        is_ready: bool,
    ) -> PolicyBundle {
        self.host_name("policy_bundle.cluster", &config.cluster);
        if let Some(authority) = &config.authority {
            self.host_name("policy_bundle.authority", authority);
        }
        let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '#' | '\\' | '"');
        if !config.path.starts_with('/')
            || !config.path.chars().all(plain)
            || config.path.split(['/', '?']).any(|part| part == "..")
        {
            let message = format!("{:?} is not a usable path", config.path);
            self.problem("policy_bundle.path", message, "begin with a slash");
        }
        for (field, value, most, unit) in [
            ("timeout_ms", config.timeout_ms, 60_000, "milliseconds"),
            ("poll_seconds", config.poll_seconds, 86_400, "seconds"),
        ] {
            if !(1..=most).contains(&value) {
                let help = format!("choose 1 to {most} {unit}");
                self.problem(
                    format!("policy_bundle.{field}"),
                    format!("{value} is not usable"),
                    &help,
                );
            }
        }
        let cluster: Rc<str> = config.cluster.into();
        PolicyBundle {
            authority: config.authority.map_or_else(|| Rc::clone(&cluster), Into::into),
            cluster,
            path: config.path,
            timeout: Duration::from_millis(config.timeout_ms),
            poll: Duration::from_secs(config.poll_seconds),
            state: RefCell::new(State { is_ready, ..State::default() }),
        }
    }
}

impl State {
    fn note(&mut self, is_problem: bool, text: String) {
        if self.notes.len() >= MOST_NOTES {
            self.notes.pop_front();
        }
        self.notes.push_back(Note { is_problem, text });
    }
}

impl Gateway {
    /// Whether the gateway does something by itself that needs the host to call [`Gateway::tick`].
    #[must_use]
    pub fn needs_a_timer(&self) -> bool {
        self.policy_bundle.is_some()
    }

    /// Hands over what whoever runs the host should know since the last time: for the host's log.
    pub fn take_notes(&self, each: impl FnMut(Note)) {
        if let Some(bundle) = &self.policy_bundle {
            std::mem::take(&mut bundle.state.borrow_mut().notes).into_iter().for_each(each);
        }
    }

    /// Whether there are no policies to decide by.
    pub(crate) fn awaits_policies(&self) -> bool {
        self.policy_bundle.as_ref().is_some_and(|bundle| !bundle.state.borrow().is_ready)
    }

    /// The need for policies, when it is time to ask for them.
    pub(crate) fn policies_due(&self, now: Timestamp) -> Option<Need> {
        let bundle = self.policy_bundle.as_ref()?;
        let state = bundle.state.borrow();
        let is_due = match state.asked {
            // The pause after a failure is long enough.
            Some(_) if !state.is_ready => true,
            Some(asked) => now.since(asked) >= bundle.poll,
            None => true,
        };
        is_due.then_some(Need::Policies)
    }

    /// The call for [`Need::Policies`].
    pub(crate) fn policies_call(&self) -> Option<HttpCall> {
        let bundle = self.policy_bundle.as_ref()?;
        let mut headers = vec![("accept", FieldValue::Public("application/json".into()))];
        if let Some(etag) = &bundle.state.borrow().etag {
            headers.push(("if-none-match", FieldValue::Public(etag.clone())));
        }
        Some(HttpCall {
            cluster: Rc::clone(&bundle.cluster),
            scheme: Scheme::default(),
            authority: Rc::clone(&bundle.authority),
            method: "GET",
            path: bundle.path.clone(),
            headers,
            credentials: Vec::new(),
            body: None,
            timeout: bundle.timeout,
            most_bytes: MOST_BYTES,
            echoes: Echoes::default(),
        })
    }

    /// Takes the answer to it; puts what it holds in force.
    pub(crate) fn learn_policies(
        &self,
        outcome: &CallOutcome,
        now: Timestamp,
    ) -> Option<Result<(), PoliciesError>> {
        let bundle = self.policy_bundle.as_ref()?;
        bundle.state.borrow_mut().asked = Some(now);
        let learned = self.read_policies(bundle, outcome);
        let mut state = bundle.state.borrow_mut();
        if let Err((error, problems)) = &learned
            && state.told.replace(*error) != Some(*error)
        {
            let stays = match state.is_ready {
                true => format!("{} stays in force", self.policies.borrow().set),
                false => "every request is refused until there are some".into(),
            };
            let mut text = format!("policies from {}: {error}; {stays}", bundle.cluster);
            for problem in problems.iter().take(MOST_PROBLEMS) {
                text.push_str("\n  ");
                text.push_str(&problem.to_string());
            }
            if problems.len() > MOST_PROBLEMS {
                text.push_str(&format!("\n  and {} more", problems.len() - MOST_PROBLEMS));
            }
            state.note(true, text);
        } else if learned.is_ok() {
            state.told = None;
        }
        Some(learned.map_err(|(error, _)| error))
    }

    fn read_policies(
        &self,
        bundle: &PolicyBundle,
        outcome: &CallOutcome,
    ) -> Result<(), (PoliciesError, Vec<Problem>)> {
        let plain = |error| Err((error, Vec::new()));
        let (headers, body) = match outcome {
            CallOutcome::Failed => return plain(PoliciesError::Unreachable),
            CallOutcome::TooLarge => return plain(PoliciesError::TooLarge),
            CallOutcome::Response { status: 200, headers, body } => (headers, body),
            CallOutcome::Response { status: 304, .. } if bundle.state.borrow().etag.is_some() => {
                return match bundle.state.borrow().is_refused {
                    true => plain(PoliciesError::Invalid),
                    false => Ok(()),
                };
            }
            CallOutcome::Response { status: 502..=504, .. } => {
                return plain(PoliciesError::Unreachable);
            }
            CallOutcome::Response { status, .. } => return plain(PoliciesError::Status(*status)),
        };
        let etag = headers.single("etag").ok().flatten().filter(|etag| {
            etag.len() <= LONGEST_ETAG && etag.bytes().all(|byte| byte.is_ascii_graphic())
        });
        let digest: [u8; 32] = Sha256::digest(body).into();
        let is_known = {
            let mut state = bundle.state.borrow_mut();
            state.etag = etag.map(str::to_owned);
            state.seen.replace(digest) == Some(digest)
        };
        if is_known {
            return match bundle.state.borrow().is_refused {
                true => plain(PoliciesError::Invalid),
                false => Ok(()),
            };
        }
        let servers: Vec<String> = self.servers.keys().map(ToString::to_string).collect();
        let compiled =
            shape::read::<Document>(body).and_then(|Document { policy, policy_checked }| {
                let validation = policies::validation(policy_checked.as_deref());
                Policies::compile(&policy, &servers, &self.identity, validation)
            });
        let mut state = bundle.state.borrow_mut();
        // Another document may be refused for other reasons.
        state.told = None;
        state.is_refused = compiled.is_err();
        let policies = compiled.map_err(|problems| (PoliciesError::Invalid, problems))?;
        let shadow = if policies.are_enforced() { "" } else { ", which is NOT enforced" };
        state.note(
            !policies.are_enforced(),
            format!("policies from {}: {} is in force{shadow}", bundle.cluster, policies.set),
        );
        state.is_ready = true;
        *self.policies.borrow_mut() = Rc::new(policies);
        self.tokens.borrow_mut().forget_callers();
        Ok(())
    }
}
