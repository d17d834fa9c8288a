//! `POST /v1/events/{source}`: authenticity, limits, unwrapping and redaction by `ingest`, then the log, then 2xx. Firehose
//! and a Kubernetes API server that asks are answered in their own forms.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use pipeproof_ingest::receive::Framing;
use serde_json::json;

use super::ApiError;
use super::admission;
use super::answers::Asked;
use super::body::read;
use super::sender::{MODE_HEADER, Sender, allowed, bound};
use crate::intake::Taken;
use crate::node::Shared;

/// Header that names a request of Firehose; the answer must name it again.
const FIREHOSE_REQUEST: &str = "x-amz-firehose-request-id";

pub(crate) async fn receive(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    Asked(query): Asked<BTreeMap<String, String>>,
    Extension(sender): Extension<Sender>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let firehose = headers.get(FIREHOSE_REQUEST).and_then(|id| id.to_str().ok()).map(str::to_owned);
    let taken = async {
        let allowed = allowed(&shared, &sender, &headers, &name).await?;
        let body = read(&shared, allowed.standing(), &headers, body).await?;
        // Who loads history asks for nothing, and counts what was taken.
        let asks = !headers.contains_key(MODE_HEADER);
        let review = asks.then(|| admission::answer(allowed.source.source_type, &body)).flatten();
        let taken = allowed.take(&shared, Framing::Values, headers, query, body).await?;
        Ok::<_, ApiError>((taken, review))
    }
    .await;
    match (firehose, taken) {
        (Some(request), taken) => firehose_answer(&shared, &request, taken),
        (None, Ok((_, Some(review)))) => Json(review).into_response(),
        (None, Ok((taken, None))) => accepted(&taken).into_response(),
        (None, Err(error)) => error.into_response(),
    }
}

/// What Okta asks once before it sends to an event hook: to say its challenge again (Okta, "Event hooks", verification).
pub(crate) async fn challenge(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    Extension(sender): Extension<Sender>,
    headers: HeaderMap,
) -> Result<Json<serde_json::Value>, ApiError> {
    allowed(&shared, &sender, &headers, &name).await?.has_token()?;
    let challenge = headers.get("x-okta-verification-challenge").and_then(|challenge| challenge.to_str().ok());
    match challenge.filter(|challenge| challenge.len() <= 256) {
        Some(challenge) => Ok(Json(json!({ "verification": challenge }))),
        None => Err(ApiError::new(405, "method_not_allowed", "events are sent with POST")),
    }
}

/// OPA's decision logs: `POST /logs`, or below it where its configuration names a partition.
pub(crate) async fn opa(
    State(shared): State<Arc<Shared>>,
    Extension(sender): Extension<Sender>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<serde_json::Value>, ApiError> {
    let allowed = bound(&shared, &sender, None)?;
    let body = read(&shared, allowed.standing(), &headers, body).await?;
    let taken = allowed.take(&shared, Framing::Values, headers, BTreeMap::new(), body).await?;
    Ok(accepted(&taken))
}

/// How many records were accepted, and where in the log they stand.
fn accepted(taken: &Taken) -> Json<serde_json::Value> {
    let mut answer = json!({ "accepted": taken.count() });
    if taken.count() > 0 {
        answer["records"] = json!({ "from": taken.records.start, "to": taken.records.end });
    }
    Json(answer)
}

/// Amazon Data Firehose, "HTTP endpoint delivery request and response specifications".
fn firehose_answer<T>(shared: &Shared, request: &str, taken: Result<T, ApiError>) -> Response {
    let mut answer = json!({ "requestId": request, "timestamp": shared.clock.now().as_micros() / 1_000 });
    match taken {
        Ok(_) => Json(answer).into_response(),
        Err(error) => {
            answer["errorMessage"] = error.message().into();
            error.answer(answer)
        }
    }
}
