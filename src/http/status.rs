//! Health, readiness, metrics and positions.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::Answer;
use super::answers::internal;
use crate::node::Shared;

pub(crate) async fn healthz() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

pub(crate) async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    match shared.not_ready() {
        None => {
            Json(json!({ "status": "ready", "caught_up": shared.caught_up.load(Ordering::Relaxed) })).into_response()
        }
        Some(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "not ready", "reason": reason }))).into_response()
        }
    }
}

pub(crate) async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let set = |gauge: &prometheus::IntGauge, value: u64| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    set(&shared.metrics.log_durable, *shared.log.durable().borrow());
    set(&shared.metrics.detected, *shared.detected.borrow());
    set(&shared.metrics.archived, *shared.archived.borrow());
    set(&shared.metrics.log_first, shared.log.first());
    set(&shared.metrics.clock_ahead, shared.clock.ahead().as_secs());
    set(&shared.metrics.item_sets_made_room, shared.store.item_sets_made_room());
    for (endpoint, not_after) in shared.tls.ends() {
        shared.metrics.tls_not_after.with_label_values(&[endpoint.as_str()]).set(not_after.as_micros() / 1_000_000);
    }
    shared.check_invariants();
    set(&shared.metrics.queued_bytes, shared.log.queued().1 as u64);
    shared.metrics.ready.set(i64::from(shared.not_ready().is_none()));
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], shared.metrics.text()).into_response()
}

pub(crate) async fn status(State(shared): State<Arc<Shared>>) -> Answer {
    let counts = shared.store.counts().await.map_err(internal("count what the store holds"))?;
    Ok(Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "run": shared.run,
        "instance": shared.keys.instance().id(),
        "ready": shared.not_ready().is_none(),
        "reason": shared.not_ready(),
        "caught_up": shared.caught_up.load(Ordering::Relaxed),
        "log_first": shared.log.first(),
        "durable": *shared.log.durable().borrow(),
        "detected": *shared.detected.borrow(),
        "archived": *shared.archived.borrow(),
        "rule_set": shared.rules.head().digest,
        "rule_set_deciding": shared.rules.deciding(),
        "configuration_trouble": shared.configuration_trouble(),
        "rules_trouble": shared.rules.trouble(),
        "counts": counts,
    })))
}
