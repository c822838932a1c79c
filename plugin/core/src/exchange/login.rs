//! Exchanges in which a client logs in by way of the gateway: they end in an answer of the gateway's own,
//! and nothing of them is decided by policy. What is asked and answered is `identity::login`'s.

use std::collections::BTreeMap;

use toolgate_protocol::headers::Headers;

use super::{MOST_ROUNDS, Phase, Step};
use crate::audit::Outcome;
use crate::denial::LocalReply;
use crate::event::{CallId, Flow, Timestamp};
use crate::facts::{Facts, Need};
use crate::identity::{Form, Halt, Login, Recognised, Refusal};

/// A login that waits for the authorization server.
pub(super) struct Waiting {
    pub(super) login: Login,
    pub(super) facts: Facts,
    pub(super) calls: BTreeMap<CallId, Need>,
    pub(super) rounds: usize,
    pub(super) since: Timestamp,
}

impl Step<'_> {
    /// Answers a client that logs in by way of the gateway; `None` for all other requests.
    pub(super) fn login(&mut self, headers: &Headers, end: bool) -> Option<(Phase, Flow)> {
        let recognised = self.gateway.identity.login(headers)?;
        let method = headers.single(":method").ok().flatten().unwrap_or_default();
        self.audit.mcp_method = Some(method.chars().take(16).collect());
        Some(match recognised {
            Err(refusal) => self.refuse_login(refusal),
            Ok(Recognised::Answer(reply)) => self.answer_login(reply),
            Ok(Recognised::Login(login)) => self.log_in(login, Facts::default(), 0),
            Ok(Recognised::Form(form)) if end => self.read_form(form, Vec::new()),
            Ok(Recognised::Form(form)) => {
                (Phase::ExpectForm { form, body: Vec::new() }, Flow::Hold)
            }
        })
    }

    /// Takes a piece of a form.
    pub(super) fn form_piece(
        &mut self,
        form: Form,
        mut body: Vec<u8>,
        chunk: &[u8],
        end: bool,
    ) -> (Phase, Flow) {
        if let Err(refusal) = form.check_length(body.len() + chunk.len()) {
            return self.refuse_login(refusal);
        }
        body.extend_from_slice(chunk);
        if end {
            self.read_form(form, body)
        } else {
            (Phase::ExpectForm { form, body }, Flow::Hold)
        }
    }

    fn read_form(&mut self, form: Form, body: Vec<u8>) -> (Phase, Flow) {
        self.audit.detail = Some(form.as_str().into());
        match self.gateway.identity.login_with(form, body) {
            Ok(login) => self.log_in(login, Facts::default(), 0),
            Err(refusal) => self.refuse_login(refusal),
        }
    }

    /// Answers a login, as soon as what it needs is known.
    pub(super) fn log_in(
        &mut self,
        login: Login,
        mut facts: Facts,
        mut rounds: usize,
    ) -> (Phase, Flow) {
        self.audit.detail = Some(login.as_str().into());
        loop {
            let need = match self.gateway.identity.log_in(&login, &facts, self.now) {
                Ok(reply) => return self.answer_login(reply),
                Err(Halt::Refused(refusal)) => return self.refuse_login(refusal),
                Err(Halt::Need(need)) => need,
            };
            rounds += 1;
            let begun =
                (rounds <= MOST_ROUNDS).then(|| self.begin(vec![need], &mut facts)).flatten();
            let Some(begun) = begun else {
                return self.refuse_login(Refusal::endless());
            };
            if !begun.awaited.is_empty() {
                self.out.extend(begun.made);
                let (calls, since) = (begun.awaited, self.now);
                let waiting = Waiting { login, facts, calls, rounds, since };
                return (Phase::ExpectAuthorizationServer(Box::new(waiting)), Flow::Hold);
            }
        }
    }

    /// Goes on with a login when a call is over.
    pub(super) fn login_call_done(
        &mut self,
        mut waiting: Box<Waiting>,
        done: &crate::calls::FinishedCall,
    ) -> (Phase, Flow) {
        if waiting.calls.remove(&done.id).is_some()
            && let Some((need, fact)) = &done.learned
        {
            waiting.facts.insert(need.clone(), fact.clone());
        }
        if !waiting.calls.is_empty() {
            return (Phase::ExpectAuthorizationServer(waiting), Flow::Hold);
        }
        *self.calls += self.now.since(waiting.since);
        let Waiting { login, facts, rounds, .. } = *waiting;
        self.log_in(login, facts, rounds)
    }

    pub(super) fn refuse_login(&mut self, refusal: Refusal) -> (Phase, Flow) {
        self.note(&refusal.denial());
        if refusal.detail.is_some() {
            self.audit.detail.clone_from(&refusal.detail);
        }
        self.reply(refusal.into_reply())
    }

    fn answer_login(&mut self, reply: LocalReply) -> (Phase, Flow) {
        self.audit.decision = Outcome::Allow;
        self.reply(reply)
    }
}
