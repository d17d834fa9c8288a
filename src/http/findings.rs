//! Findings, incidents and what people do about them, deliveries.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Extension, Path, State};
use bytes::Bytes;
use pipeproof_engine::control::Control;
use pipeproof_engine::incident::{StepError, Verb};
use pipeproof_engine::rule::Level;
use pipeproof_record::store::{DeliveryFilter, FindingFilter, IncidentFilter};
use serde::Deserialize;
use serde_json::json;

use super::answers::{Asked, internal};
use super::{Answer, ApiError};
use crate::node::Shared;
use crate::registry::Caller;

/// How long a step waits until detection has taken it in.
const STEP_WAIT: Duration = Duration::from_secs(10);
/// Longest note of a step, in bytes.
const NOTE_BYTES_MAX: usize = 4_096;
/// Most rows of a list.
const ROWS_MAX: usize = 1_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FindingQuery {
    rule: Option<String>,
    incident: Option<String>,
    level: Option<Level>,
    before: Option<u64>,
    limit: Option<usize>,
}

pub(crate) async fn list(State(shared): State<Arc<Shared>>, Asked(query): Asked<FindingQuery>) -> Answer {
    let filter = FindingFilter {
        rule: query.rule,
        incident: query.incident,
        level_min: query.level,
        before: query.before,
        limit: query.limit.unwrap_or(100).clamp(1, ROWS_MAX),
        ..FindingFilter::default()
    };
    let findings = shared.store.findings(&filter).await.map_err(internal("list findings"))?;
    Ok(Json(json!({ "findings": findings })))
}

pub(crate) async fn one(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Answer {
    let finding = shared.store.finding(&id).await.map_err(internal("read a finding"))?;
    let finding = finding.ok_or_else(|| ApiError::not_found(format!("there is no finding `{id}`")))?;
    Ok(Json(json!({ "finding": finding })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IncidentQuery {
    status: Option<pipeproof_engine::incident::Status>,
    #[serde(default)]
    open: bool,
    after: Option<String>,
    limit: Option<usize>,
}

pub(crate) async fn incidents(State(shared): State<Arc<Shared>>, Asked(query): Asked<IncidentQuery>) -> Answer {
    let filter = IncidentFilter {
        status: query.status,
        open: query.open,
        after: query.after,
        limit: query.limit.unwrap_or(100).clamp(1, ROWS_MAX),
        ..IncidentFilter::default()
    };
    let incidents = shared.store.incidents(&filter).await.map_err(internal("list incidents"))?;
    Ok(Json(json!({ "incidents": incidents })))
}

pub(crate) async fn incident(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Answer {
    let incident = shared.store.incident(&id).await.map_err(internal("read an incident"))?;
    let incident = incident.ok_or_else(|| ApiError::not_found(format!("there is no incident `{id}`")))?;
    let steps = shared.store.steps(&id).await.map_err(internal("read the steps of an incident"))?;
    let filter = FindingFilter { incident: Some(id), limit: ROWS_MAX, ..FindingFilter::default() };
    let mut findings = shared.store.findings(&filter).await.map_err(internal("read the findings of an incident"))?;
    findings.sort_by_key(|stored| (stored.finding.time, stored.seq));
    Ok(Json(json!({ "incident": incident, "steps": steps, "findings": findings })))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct StepBody {
    note: Option<String>,
    /// On whose behalf, when a tool acts for people.
    actor: Option<String>,
}

pub(crate) async fn step(
    State(shared): State<Arc<Shared>>,
    Path((id, verb)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Answer {
    let verb = Verb::by_people(&verb).ok_or_else(|| {
        let known: Vec<_> = Verb::BY_PEOPLE.iter().map(|verb| verb.name()).collect();
        ApiError::not_found(format!("`{verb}` is not something to do about an incident (known: {})", known.join(", ")))
    })?;
    let body: StepBody = if body.is_empty() {
        StepBody::default()
    } else {
        serde_json::from_slice(&body)
            .map_err(|error| ApiError::bad_request(format!("the body is {{\"note\", \"actor\"}}: {error}")))?
    };
    if body.note.as_ref().is_some_and(|note| note.len() > NOTE_BYTES_MAX) {
        return Err(ApiError::bad_request(format!("the note is longer than {NOTE_BYTES_MAX} bytes")));
    }
    let stored = shared.store.incident(&id).await.map_err(internal("read an incident"))?;
    let stored = stored.ok_or_else(|| ApiError::not_found(StepError::Unknown(id.clone()).to_string()))?;
    stored
        .incident
        .clone()
        .apply(verb, shared.clock.now())
        .map_err(|error| ApiError::new(409, "not_now", error.to_string()))?;
    let actor =
        body.actor.map_or_else(|| format!("token:{}", caller.id), |actor| format!("{actor} (token:{})", caller.id));
    // What somebody types may hold a secret as well as a log line may.
    let note = body.note.map(|note| {
        let (redacted, _) = shared.receiver.redactor().text(&Bytes::from(note));
        String::from_utf8_lossy(&redacted).into_owned()
    });
    let control = Control::IncidentStep { incident: id.clone(), verb, actor, note };
    let index = shared.control(control).await.map_err(|error| ApiError::unavailable(error.to_string()))?;
    if !shared.wait_detected(index, STEP_WAIT).await {
        return Err(ApiError::unavailable(
            "the step is recorded but not yet evaluated: ask for the incident in a moment",
        ));
    }
    let incident = shared.store.incident(&id).await.map_err(internal("read an incident"))?;
    let steps = shared.store.steps(&id).await.map_err(internal("read the steps of an incident"))?;
    match steps.into_iter().rev().find(|stored| stored.step.verb == verb) {
        Some(step) if incident.is_some() => Ok(Json(json!({ "incident": incident, "step": step }))),
        _ => Err(ApiError::new(409, "not_now", "somebody else changed the incident first")),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeliveryQuery {
    target: Option<String>,
    before: Option<i64>,
    limit: Option<usize>,
}

pub(crate) async fn deliveries(State(shared): State<Arc<Shared>>, Asked(query): Asked<DeliveryQuery>) -> Answer {
    let filter = DeliveryFilter {
        target: query.target,
        before: query.before,
        limit: query.limit.unwrap_or(100).clamp(1, ROWS_MAX),
        ..DeliveryFilter::default()
    };
    let deliveries = shared.store.deliveries(&filter).await.map_err(internal("list deliveries"))?;
    let targets = shared.deliverer.borrow().as_ref().map(|deliverer| deliverer.states()).unwrap_or_default();
    Ok(Json(json!({ "deliveries": deliveries, "targets": targets })))
}
