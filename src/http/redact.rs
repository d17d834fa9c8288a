//! Redaction of stored records: asked for, and listed.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Path, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answers::{Body, internal};
use super::{Answer, ApiError};
use crate::node::{PARTITION, Shared};
use crate::redaction::{self, Mandate, Ordered, RedactionError};
use crate::registry::Caller;

/// Longest name of a person, in bytes.
const NAME_BYTES_MAX: usize = 256;
/// Longest reason, in bytes.
const REASON_BYTES_MAX: usize = 4_096;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    /// Why; it must not say what is to go.
    reason: String,
    approved_by: Option<String>,
    /// On whose behalf, when a tool acts for people.
    actor: Option<String>,
}

impl Asked {
    fn mandate(self, caller: &Caller) -> Result<Mandate, ApiError> {
        for (name, text) in [("actor", &self.actor), ("approved_by", &self.approved_by)] {
            if text.as_ref().is_some_and(|text| text.len() > NAME_BYTES_MAX || text.chars().any(char::is_control)) {
                return Err(ApiError::bad_request(format!("`{name}` is a name of up to {NAME_BYTES_MAX} bytes")));
            }
        }
        let reason = self.reason.trim();
        if reason.is_empty() || reason.len() > REASON_BYTES_MAX {
            return Err(ApiError::bad_request(format!("`reason` is a text of 1 to {REASON_BYTES_MAX} bytes")));
        }
        let token = format!("token:{}", caller.id);
        let filled = |text: Option<String>| text.filter(|text| !text.trim().is_empty());
        let actor = filled(self.actor);
        Ok(Mandate {
            reason: reason.to_owned(),
            author: actor.clone().unwrap_or_else(|| token.clone()),
            actor: actor.map_or_else(|| token.clone(), |actor| format!("{actor} ({token})")),
            approved_by: filled(self.approved_by),
        })
    }
}

pub(crate) async fn redact(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(event): Path<String>,
    Body(asked): Body<Asked>,
) -> Answer {
    let mandate = asked.mandate(&caller)?;
    let position = redaction::named(&event).map_err(refused)?;
    // On a task of its own: a client that goes away does not leave it half done.
    let work = tokio::spawn(async move { redaction::redact(&shared, position, &mandate).await });
    let (order, ordered) = work.await.map_err(internal("redact a record"))?.map_err(refused)?;
    Ok(Json(told(order, &ordered)))
}

pub(crate) async fn list(State(shared): State<Arc<Shared>>) -> Answer {
    let registry = shared.registry();
    let all: Vec<Value> = registry.redactions.iter().rev().map(|(order, ordered)| told(*order, ordered)).collect();
    Ok(Json(json!({ "redactions": all })))
}

fn told(order: u64, ordered: &Ordered) -> Value {
    let Ordered { at, order: what, done } = ordered;
    let record = |index: &u64| format!("{PARTITION}-{index}");
    json!({
        "redaction": record(&order),
        "at": at,
        "records": what.records.iter().map(record).collect::<Vec<_>>(),
        "source": what.source,
        "reason": what.reason,
        "actor": what.actor,
        "approved_by": what.approved_by,
        "approval": what.approval,
        "done": done.is_some(),
        "dropped": done.as_ref().map(|done| done.dropped),
        "out_of_reach": done.as_ref().map(|done| json!({
            "packs": done.packs,
            "targets": done.targets,
            "backups": "copies of the data folder made before: remove them, or restore and redact again",
            "senders": "whatever the sender, its log files and proxies keep",
        })),
    })
}

fn refused(error: RedactionError) -> ApiError {
    match error {
        RedactionError::Asked(message) => ApiError::bad_request(message),
        RedactionError::Unknown(message) => ApiError::not_found(message),
        RedactionError::Later(message) => ApiError::unavailable(message),
        error @ RedactionError::Unfinished { .. } => {
            tracing::error!(error = %crate::chain(&error), "a redaction is not done yet");
            ApiError::new(500, "unfinished", error.to_string())
        }
        RedactionError::Node(error) => internal("redact a record")(error),
    }
}
