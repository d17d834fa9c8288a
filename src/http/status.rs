//! Health, readiness, metrics and positions.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use pipeproof_reports::deliver::store_outbox;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Answer;
use super::answers::internal;
use crate::node::Shared;

/// How long metrics wait for what the store says: less than whoever asks for them waits.
const STORE_TIMEOUT: Duration = Duration::from_secs(1);

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
    set(&shared.metrics.sealed, *shared.sealed.borrow());
    set(&shared.metrics.log_first, shared.log.first());
    set(&shared.metrics.clock_ahead, shared.clock.ahead().as_secs());
    set(&shared.metrics.item_sets_made_room, shared.store.item_sets_made_room());
    let targets = shared.deliverer.borrow().as_ref().map(|deliverer| deliverer.states()).unwrap_or_default();
    let (mut waiting, until) = (Vec::new(), Instant::now() + STORE_TIMEOUT);
    for target in &targets {
        // A store that does not answer has its own word for that: the other metrics are needed then more than ever.
        let asked = tokio::time::timeout_at(until, store_outbox::waiting(&shared.store, &target.name));
        waiting.push(asked.await.ok().and_then(Result::ok));
    }
    shared.check_invariants();
    // From here on nothing waits: two who ask at once do not see each other's half of it.
    let _whole = shared.metrics.whole.lock().unwrap_or_else(PoisonError::into_inner);
    shared.metrics.targets.tell(&targets, &waiting, shared.clock.now());
    shared.metrics.tls_not_after.reset();
    for (endpoint, not_after) in shared.tls.ends() {
        shared.metrics.tls_not_after.with_label_values(&[endpoint.as_str()]).set(not_after.as_micros() / 1_000_000);
    }
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
