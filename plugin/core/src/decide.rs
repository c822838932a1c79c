//! The decision: may this caller do this, with which credential, and where does it go.
//!
//! One function over facts, without side effects on the gateway. A fact that is missing stops it
//! with [`Stop::Need`]; the exchange gets the fact and decides again from the top.

use std::rc::Rc;

use toolgate_policy::{
    ApprovalNeeded, Decision, Outcome, Refusal, RequestFacts, ServerAction, Target,
};
use toolgate_protocol::json::Json;
use toolgate_protocol::mcp::{Era, Operation, Subscriptions};

use crate::audit::{AuditRecord, digest};
use crate::config::ArgumentsAudit;
use crate::credentials::Injected;
use crate::denial::{Denial, Reason};
use crate::event::{Timestamp, UpstreamRequest};
use crate::facts::{Facts, Stop};
use crate::federation::{Exposure, Goal, lacks_tasks};
use crate::gateway::{Gateway, Server};
use crate::identity::approvals::{self, Approved};
use crate::identity::{AskedEndpoint, KnownCaller};
use crate::policies::Policies;
use crate::request::{Asked, no_arguments, unknown_server};
use crate::upstream;

/// A permitted request.
pub(crate) struct Verdict {
    pub(crate) upstream: UpstreamRequest,
    /// Whether the answer may hold lists that the caller must not see whole.
    pub(crate) filter_lists: bool,
    /// How what the server answers appears in the portal that the request came through.
    pub(crate) exposure: Option<Exposure>,
    /// The credentials that go with it.
    pub(crate) injected: Vec<Injected>,
    /// The approval that it uses up.
    pub(crate) approved: Option<Approved>,
    /// Whether it goes without the body, since an earlier call goes on.
    pub(crate) bodyless: bool,
}

impl Gateway {
    /// Decides on a request. `audit` is filled with the grounds of the decision.
    ///
    /// # Errors
    /// [`Stop`] with the missing facts or with the refusal.
    pub(crate) fn decide(
        &self,
        asked: &Asked,
        facts: &Facts,
        now: Timestamp,
        audit: &mut AuditRecord,
    ) -> Result<Verdict, Stop> {
        let mut exposure = self.behind_portal(asked, facts, now, audit)?;
        let name = &*asked.head.server;
        let server = self.servers.get(name).ok_or_else(unknown_server)?;
        let operation = asked.operation()?;
        audit.policy_set = Some(Rc::clone(&asked.head.policies()?.set));
        let needed = match &asked.batch {
            None => self.authorize(server, asked, operation, now, audit)?,
            Some(batch) => {
                for message in &batch.messages {
                    let operation = Some(asked.operation_of(message)?);
                    let mut record = AuditRecord::default();
                    let needed = self.authorize(server, asked, operation, now, &mut record)?;
                    refuse_in_batch(needed)?;
                }
                None
            }
        };
        let approved = match needed {
            Some(needed) => Some(self.approved(asked, &needed, facts, now, audit)?),
            None => None,
        };
        let injected = self.credentials_for(server, asked, facts, now, audit)?;
        let filter_lists = asked.batch.is_some()
            || matches!(operation, Some(Operation::List(_) | Operation::Listen { .. }) | None);
        let mut upstream = upstream::request(server, asked, filter_lists, &injected)?;
        if let Some(exposure) = &mut exposure {
            let bridge = self.bridge(server, asked, &injected, facts, now)?;
            self.carry(&bridge, asked, &mut upstream.edit);
            exposure.bridged(asked, bridge);
        }
        let bodyless = exposure.as_ref().is_some_and(|exposure| exposure.resumes);
        Ok(Verdict { upstream, filter_lists, exposure, injected, approved, bodyless })
    }

    /// Whether policy permits one operation at the server of `asked`, and what it needs besides.
    ///
    /// # Errors
    /// The refusal.
    pub(crate) fn authorize(
        &self,
        server: &Server,
        asked: &Asked,
        operation: Option<Operation<'_>>,
        now: Timestamp,
        audit: &mut AuditRecord,
    ) -> Result<Option<ApprovalNeeded>, Denial> {
        let mut needed = None;
        let name = &*asked.head.server;
        let connect = Target::Server(name, ServerAction::Connect);
        match operation {
            Some(Operation::CallTool { name: tool, arguments }) => {
                audit.tool = Some(shortened(tool));
                let none = no_arguments();
                let arguments = arguments.unwrap_or(&none);
                audit.arguments = self.audited(asked.head.policies()?, name, tool, arguments);
                let target = Target::Tool { server: name, name: tool, arguments };
                needed =
                    self.judge(asked, &target, now, audit, || unknown("tool", tool, asked.era))?;
                if asked.era == Era::Modern {
                    let headers = &asked.head.headers;
                    self.mirrors.check(&server.mirrored, name, tool, arguments, headers)?;
                }
            }
            Some(Operation::GetPrompt { name: prompt }) => {
                audit.prompt = Some(shortened(prompt));
                let target = Target::Prompt { server: name, name: prompt };
                self.permit(asked, &target, now, audit, || unknown("prompt", prompt, asked.era))?;
            }
            Some(Operation::ReadResource { uri }) => {
                audit.resource = Some(shortened(uri));
                let target = Target::Resource { server: name, uri };
                self.permit(asked, &target, now, audit, || unknown("resource", uri, asked.era))?;
            }
            Some(Operation::Listen { params }) => {
                self.permit(asked, &connect, now, audit, unknown_server)?;
                let Subscriptions { uris, tasks } = Subscriptions::read(params)?;
                if !tasks.is_empty() {
                    self.permit_tasks(asked, now, audit)?;
                }
                for uri in uris {
                    audit.resource = Some(shortened(uri));
                    let target = Target::Resource { server: name, uri };
                    self.permit(asked, &target, now, audit, || {
                        unknown("resource", uri, asked.era)
                    })?;
                }
            }
            Some(Operation::SetLogLevel) => {
                let target = Target::Server(name, ServerAction::SetLogLevel);
                self.permit(asked, &target, now, audit, || {
                    Denial::new(Reason::NotPermitted, "you are not permitted to set the log level")
                })?;
            }
            Some(Operation::Task { .. }) => self.permit_tasks(asked, now, audit)?,
            Some(Operation::Connect | Operation::List(_)) | None => {
                self.permit(asked, &connect, now, audit, unknown_server)?;
            }
        }
        let endpoint = AskedEndpoint {
            server: &asked.head.endpoint,
            slash: asked.head.slash,
            scopes: Some(&server.scopes),
        };
        let further = server.scopes.further(operation.as_ref());
        self.identity.check_scopes(asked.head.caller()?, endpoint, &further)?;
        Ok(needed)
    }

    /// Whom a request through a portal is for, as far as the portal can tell.
    fn behind_portal(
        &self,
        asked: &Asked,
        facts: &Facts,
        now: Timestamp,
        audit: &mut AuditRecord,
    ) -> Result<Option<Exposure>, Stop> {
        let (Some(portal), Some(goal)) = (&asked.head.portal, &asked.goal) else {
            return Ok(None);
        };
        match goal {
            Goal::Member(member) => Ok(Some(Exposure::new(Rc::clone(portal), *member))),
            Goal::Nobody(what, name) => {
                let field = match *what {
                    "tool" => &mut audit.tool,
                    "prompt" => &mut audit.prompt,
                    _ => &mut audit.resource,
                };
                *field = Some(shortened(name));
                if let Some(denial) = lacks_tasks(asked).filter(|_| *what == "task") {
                    return Err(denial.into());
                }
                Err(unknown(what, name, asked.era).into())
            }
            Goal::Several => {
                let message = "one stream follows what one server has: open one for each server";
                Err(Denial::new(Reason::InvalidParams, message).into())
            }
            Goal::Portal => {
                self.answer_at_portal(portal, asked, facts, now, audit).and_then(|reply| {
                    let policies = asked.head.policies()?;
                    audit.policy_set = Some(Rc::clone(&policies.set));
                    Err(Stop::Answer(reply))
                })
            }
            Goal::Shortened(..) => {
                let message = "a name was not looked up";
                Err(Denial::new(Reason::Internal, message).into())
            }
        }
    }

    /// Finds out what a shortened name stands for, and puts it into the message.
    ///
    /// # Errors
    /// [`Stop`] when the server's list has to be fetched, or has no such name.
    pub(crate) fn lengthen(
        &self,
        asked: &mut Asked,
        facts: &Facts,
        now: Timestamp,
        audit: &mut AuditRecord,
    ) -> Result<(), Stop> {
        let (Some(portal), Some(Goal::Shortened(index, named, exposed))) =
            (&asked.head.portal, &asked.goal)
        else {
            return Ok(());
        };
        let (index, Some(member)) = (*index, portal.members.get(*index)) else {
            return Err(unknown_server().into());
        };
        let found = self.lengthened((portal, member, *named, exposed), asked, facts, now)?;
        let Some(own) = found else {
            audit.tool = Some(shortened(exposed));
            return Err(unknown("tool", exposed, asked.era).into());
        };
        asked.lengthen(index, &own);
        Ok(())
    }

    /// Whether policy permits this to the caller, whatever the answer would be told.
    pub(crate) fn permits(&self, asked: &Asked, target: &Target<'_>, now: Timestamp) -> bool {
        let (Ok(caller), Ok(policies)) = (asked.head.caller(), asked.head.policies()) else {
            return false;
        };
        let facts = request_facts(asked, caller, now);
        policies.engine.decide(&caller.principal, target, &facts).is_permit()
    }

    /// Whether policy lets the caller of `asked` see this in a list.
    pub(crate) fn visible(&self, asked: &Asked, target: &Target<'_>, now: Timestamp) -> bool {
        let (Ok(caller), Ok(policies)) = (asked.head.caller(), asked.head.policies()) else {
            return false;
        };
        if !policies.are_enforced() {
            return true;
        }
        policies.engine.visible(&caller.principal, target, &request_facts(asked, caller, now))
    }

    fn permit_tasks(
        &self,
        asked: &Asked,
        now: Timestamp,
        audit: &mut AuditRecord,
    ) -> Result<(), Denial> {
        let target = Target::Server(&asked.head.server, ServerAction::UseTasks);
        self.permit(asked, &target, now, audit, || {
            Denial::new(
                Reason::NotPermitted,
                "you are not permitted to use the tasks of this server",
            )
        })
    }

    /// Asks policy about what nobody could approve.
    fn permit(
        &self,
        asked: &Asked,
        target: &Target<'_>,
        now: Timestamp,
        audit: &mut AuditRecord,
        hidden: impl FnOnce() -> Denial,
    ) -> Result<(), Denial> {
        match self.judge(asked, target, now, audit, hidden)? {
            None => Ok(()),
            // No configuration has such a policy.
            Some(_) => {
                Err(Denial::new(Reason::ApprovalRequired, "only calls of tools can be approved"))
            }
        }
    }

    /// Asks policy, and returns what the request needs besides its permission. `hidden` is the answer
    /// that the caller gets for what does not exist.
    fn judge(
        &self,
        asked: &Asked,
        target: &Target<'_>,
        now: Timestamp,
        audit: &mut AuditRecord,
        hidden: impl FnOnce() -> Denial,
    ) -> Result<Option<ApprovalNeeded>, Denial> {
        let caller = asked.head.caller()?;
        let principal = &caller.principal;
        let policies = asked.head.policies()?;
        let engine = &policies.engine;
        let facts = request_facts(asked, caller, now);
        let decision = engine.decide(principal, target, &facts);
        if let Some(shadow) = engine.shadow(principal, target, &facts, &decision) {
            audit.note_shadow(shadow);
        }
        let are_enforced = policies.are_enforced();
        let Decision { outcome, policies, errors } = decision;
        if !are_enforced && outcome != Outcome::Permit {
            return Ok(None);
        }
        audit.policies = policies;
        match outcome {
            Outcome::Permit => Ok(None),
            Outcome::Approval(needed) => Ok(Some(needed)),
            Outcome::Deny(Refusal::Invisible) => {
                audit.detail = engine.left_out(principal, target).or(audit.detail.take());
                Err(hidden())
            }
            Outcome::Deny(Refusal::Arguments { advice }) => {
                let mut message = "policy refuses these arguments".to_owned();
                for advice in &advice {
                    message.push_str(": ");
                    message.push_str(advice);
                }
                let advice = advice.into_iter().map(Json::from).collect();
                Err(Denial::new(Reason::Arguments, message)
                    .with_data("advice", Json::Array(advice)))
            }
            Outcome::Deny(Refusal::InvalidArguments(message)) => {
                Err(Denial::new(Reason::ArgumentTypes, message))
            }
            Outcome::Deny(Refusal::Error(_)) => {
                audit.reason = Some(Reason::PolicyError.as_str());
                audit.detail = Some(
                    errors.into_iter().map(|error| error.message).collect::<Vec<_>>().join("; "),
                );
                Err(hidden())
            }
        }
    }

    /// Whether the call was approved.
    ///
    /// # Errors
    /// [`Stop`] with what is missing, or with the refusal.
    pub(crate) fn approved(
        &self,
        asked: &Asked,
        needed: &ApprovalNeeded,
        facts: &Facts,
        now: Timestamp,
        audit: &mut AuditRecord,
    ) -> Result<Approved, Stop> {
        let caller = asked.head.caller()?;
        let (Some(approvals), Some(_)) = (self.identity.approvals(), &caller.issuer) else {
            let message = "this call needs an approval, which only a caller with a token can get";
            return Err(Denial::new(Reason::ApprovalRequired, message).into());
        };
        let Some(Operation::CallTool { name: tool, arguments }) = asked.operation()? else {
            let message = "only calls of tools can be approved";
            return Err(Denial::new(Reason::ApprovalRequired, message).into());
        };
        let none = no_arguments();
        let call = approvals::Call {
            caller,
            subject: self.identity.own_name(caller),
            server: &asked.head.server,
            tool,
            arguments: arguments.unwrap_or(&none),
            policy_set: &asked.head.policies()?.set,
            needed,
        };
        approvals.check(asked.sent_approval()?.as_ref(), &call, facts, now, audit)
    }

    /// Uses up what a request needs that goes on now.
    pub(crate) fn spend(&self, approved: Option<Approved>) {
        if let (Some(approved), Some(approvals)) = (approved, self.identity.approvals()) {
            approvals.spend(&approved);
        }
    }

    /// What the record holds of a call's arguments.
    fn audited(
        &self,
        policies: &Policies,
        server: &str,
        tool: &str,
        arguments: &Json,
    ) -> Option<String> {
        let redacted = policies.engine.redacted(server, tool, arguments);
        let arguments = redacted.as_ref().unwrap_or(arguments);
        match self.audit.arguments {
            ArgumentsAudit::None => None,
            ArgumentsAudit::Digest => Some(digest(&arguments.to_bytes())),
            ArgumentsAudit::Full => String::from_utf8(arguments.to_bytes()).ok(),
        }
    }
}

/// An approval is about one call, and a batch has one place for it.
pub(crate) fn refuse_in_batch(needed: Option<ApprovalNeeded>) -> Result<(), Denial> {
    match needed {
        None => Ok(()),
        Some(_) => {
            let message = "this call needs an approval: send it by itself";
            Err(Denial::new(Reason::ApprovalRequired, message))
        }
    }
}

pub(crate) fn request_facts<'a>(
    asked: &'a Asked,
    caller: &'a KnownCaller,
    now: Timestamp,
) -> RequestFacts<'a> {
    let head = &asked.head;
    let issued = caller.issued.and_then(|issued| now.seconds().checked_sub(issued));
    RequestFacts {
        time_ms: now.milliseconds(),
        scopes: &caller.scopes,
        source_ip: head.source.as_deref(),
        session: head.session.as_deref(),
        client_name: asked.client_name(),
        token_age_seconds: issued.and_then(|age| i64::try_from(age).ok()),
        protocol_version: asked.version(),
        calls: &asked.counting.counts,
    }
}

/// What a caller learns of a tool, prompt or resource that does not exist for it: the code that
/// servers of the era answer with (2025-11-25 "Error handling"; 2026-07-28 changelog).
fn unknown(kind: &str, name: &str, era: Era) -> Denial {
    let code = if kind == "resource" && era == Era::Legacy { -32002 } else { -32602 };
    Denial::new(Reason::NotVisible, format!("Unknown {kind}: {}", shortened(name))).with_code(code)
}

/// A name as it may stand in records and messages.
fn shortened(name: &str) -> String {
    name.chars().take(256).collect()
}
