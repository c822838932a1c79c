//! Batches, which only revision 2025-03-26 has: several messages in one body, each decided on by itself.
//!
//! The messages of a batch do not depend on each other (JSON-RPC 2.0 section 6), and a client gets for each
//! what it would get for it alone: what policy refuses is answered by the gateway, the rest goes on, and
//! the refusals are added to the server's answers. Not here: what an envelope is (`jsonrpc`), one decision
//! (`decide`).

use toolgate_protocol::json::{Json, Object};
use toolgate_protocol::jsonrpc::{Id, Message, MessageFault};

use crate::audit::AuditRecord;
use crate::decide::refuse_in_batch;
use crate::denial::{Denial, Reason};
use crate::event::Timestamp;
use crate::gateway::Gateway;
use crate::request::{Asked, unknown_server};

/// The messages of a batch and what was settled about them.
pub(crate) struct Batch {
    /// The messages that go on.
    pub(crate) messages: Vec<Message>,
    /// The answers to those that do not.
    pub(crate) refusals: Vec<Json>,
    /// The ids of all requests, for an error that is about all of them.
    pub(crate) ids: Vec<Id>,
}

/// What goes on of a batch.
pub(crate) enum Admission {
    /// Some of it.
    Some,
    /// No request: these answers are all that the client gets.
    Refused(Vec<Json>),
    /// Nothing, and nothing of it is answered.
    Nothing(Denial),
}

impl Batch {
    pub(crate) fn new(messages: Vec<Message>) -> Self {
        let ids = messages.iter().filter_map(Message::answer_id).cloned().collect();
        Self { messages, refusals: Vec::new(), ids }
    }

    /// The messages that go on, as they go on.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![b'['];
        for (index, message) in self.messages.iter().enumerate() {
            if index > 0 {
                bytes.push(b',');
            }
            message.body().write(&mut bytes);
        }
        bytes.push(b']');
        bytes
    }

    /// The error that answers every request of the batch.
    pub(crate) fn errors(&self, denial: &Denial) -> Vec<u8> {
        let answers = self.ids.iter().map(|id| denial.answer(Some(id))).collect();
        Json::Array(answers).to_bytes()
    }
}

impl Gateway {
    /// Takes out of a batch what the caller may not do. What stays is decided on again with the whole
    /// request, so that this can only take away.
    pub(crate) fn admit(
        &self,
        asked: &Asked,
        batch: &mut Batch,
        now: Timestamp,
        audit: &mut AuditRecord,
    ) -> Admission {
        let mut elements = Vec::new();
        let mut first: Option<Denial> = None;
        let mut admitted = Vec::new();
        for message in std::mem::take(&mut batch.messages) {
            let mut record = AuditRecord::default();
            let refused = asked
                .operation_of(&message)
                .and_then(|operation| {
                    refuse_initialize(&message)?;
                    self.refuse_counted(asked, &operation)?;
                    let server = self.servers.get(&asked.head.server).ok_or_else(unknown_server)?;
                    let needed =
                        self.authorize(server, asked, Some(operation), now, &mut record)?;
                    refuse_in_batch(needed)
                })
                .err();
            elements.push(element(&message, &record, refused.as_ref()));
            match refused {
                None => admitted.push(message),
                Some(denial) => {
                    batch.refusals.extend(message.answer_id().map(|id| denial.answer(Some(id))));
                    first.get_or_insert(denial);
                }
            }
        }
        audit.batch = Some(Json::Array(elements));
        if first.as_ref().is_some_and(|denial| denial.reason() == Reason::UnknownServer) {
            // There is no server for this caller, whatever it asks.
            return first.map_or(Admission::Some, Admission::Nothing);
        }
        let asks = admitted.iter().any(|message| message.answer_id().is_some());
        match first {
            // Without a request nothing comes back that the refusals could be added to.
            Some(_) if !asks && !batch.refusals.is_empty() => {
                Admission::Refused(std::mem::take(&mut batch.refusals))
            }
            Some(denial) if admitted.is_empty() => Admission::Nothing(denial),
            _ => {
                batch.messages = admitted;
                Admission::Some
            }
        }
    }
}

/// `initialize` must stand alone (2025-03-26, Lifecycle).
fn refuse_initialize(message: &Message) -> Result<(), Denial> {
    match message.method() {
        Some("initialize") => {
            let reason = Reason::Message(MessageFault::Batch);
            Err(Denial::new(reason, "initialize must not be part of a batch"))
        }
        _ => Ok(()),
    }
}

/// What the record says of one message.
fn element(message: &Message, record: &AuditRecord, refused: Option<&Denial>) -> Json {
    let text = |text: &str| Json::from(text.chars().take(256).collect::<String>());
    let mut element = Object::default();
    if let Some(id) = message.id() {
        element.set("jsonrpc_id", text(&id.to_string()));
    }
    element.set("mcp_method", text(message.method().unwrap_or("response")));
    if let Some(tool) = &record.tool {
        element.set("tool", text(tool));
    }
    if let Some(prompt) = &record.prompt {
        element.set("prompt", text(prompt));
    }
    if let Some(resource) = &record.resource {
        element.set("resource", text(resource));
    }
    if let Some(arguments) = &record.arguments {
        element.set("arguments", Json::from(arguments.clone()));
    }
    if !record.policies.is_empty() {
        let policies = record.policies.iter().map(|policy| text(policy)).collect();
        element.set("policies", Json::Array(policies));
    }
    if let Some(decision) = record.shadow_decision {
        element.set("shadow_decision", Json::from(decision));
    }
    if !record.shadow_policies.is_empty() {
        let policies = record.shadow_policies.iter().map(|policy| text(policy)).collect();
        element.set("shadow_policies", Json::Array(policies));
    }
    element.set("decision", Json::from(if refused.is_some() { "deny" } else { "allow" }));
    if let Some(denial) = refused {
        element.set("reason", Json::from(denial.reason().as_str()));
    }
    element.into()
}
