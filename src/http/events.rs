//! `POST /v1/events/{source}`: authenticity, limits, unwrapping and redaction by `ingest`, then the log, then 2xx.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::HeaderMap;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use pipeproof_engine::failpoint::Failpoint;
use pipeproof_engine::record::CollectionMode;
use pipeproof_ingest::log::AppendError;
use pipeproof_ingest::receive::Request;
use serde_json::json;

use super::answers::Asked;
use super::{Answer, ApiError};
use crate::node::Shared;
use crate::registry::{Caller, TokenRefusal};
use crate::scope::Scope;

/// Header by which an import says that it loads history.
pub(crate) const MODE_HEADER: &str = "x-pipeproof-mode";

pub(crate) async fn receive(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    Asked(query): Asked<BTreeMap<String, String>>,
    Extension(caller): Extension<Result<Caller, TokenRefusal>>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    // Who may not send is told before a byte of the body is read; whether the source exists is told only to who may send.
    let bearer = match &caller {
        Ok(caller) if Scope::EventsWrite.granted_by(&caller.scopes) => {
            if caller.source.as_deref().is_some_and(|bound| bound != name) {
                return Err(ApiError::new(403, "other_source", "the token is bound to another source"));
            }
            Some(caller.id.clone())
        }
        Ok(_) => return Err(ApiError::new(403, "scope_missing", "the token lacks the scope `events:write`")),
        Err(TokenRefusal::Missing) => None,
        Err(refusal) => return Err((*refusal).into()),
    };
    let Some(source) = shared.source(&name) else {
        return Err(match bearer {
            Some(_) => ApiError::new(
                404,
                "unknown_source",
                format!("there is no source `{name}`: add it with `pipeproof sources add`"),
            ),
            None => TokenRefusal::Missing.into(),
        });
    };
    if let Some(reason) = shared.not_ready() {
        return Err(ApiError::unavailable(format!("events are not accepted just now: {reason}")));
    }
    let mode = mode(&headers)?;
    let body = read_body(&headers, body, shared.receiver.limits().body_bytes_max).await?;
    let received = shared.clock.now();
    let receiver = Arc::clone(&shared);
    // Unwrapping and redacting megabytes would hold up the runtime.
    let work = move || {
        let request = Request { source: &source, headers: &headers, query: &query, body, received, bearer, mode };
        let records = receiver.receiver.accept(request)?;
        let leaves: Result<Vec<Bytes>, _> = records.iter().map(|record| record.encode().map(Bytes::from)).collect();
        Ok((source.source_type, leaves))
    };
    let accepted: Result<_, pipeproof_ingest::receive::Refusal> =
        tokio::task::spawn_blocking(work).await.map_err(super::answers::internal("receive events"))?;
    let (source_type, leaves) =
        accepted.map_err(|refusal| ApiError::new(refusal.status(), refusal.code(), refusal.to_string()))?;
    let leaves = leaves.map_err(|error| ApiError::new(413, "record_too_large", error.to_string()))?;
    let count = leaves.len() as u64;
    if count > 0 {
        let timer = shared.metrics.append_seconds.start_timer();
        Failpoint::ReceiveBeforeAppend.pass();
        shared.log.append(leaves).await.map_err(|error| match error {
            AppendError::TooLarge(_) => ApiError::new(413, "record_too_large", error.to_string()),
            AppendError::Busy | AppendError::Stopped(_) => ApiError::unavailable(error.to_string()),
        })?;
        timer.observe_duration();
        Failpoint::ReceiveAfterAppend.pass();
    }
    shared.metrics.accepted.with_label_values(&[source_type.name()]).inc_by(count);
    Ok(Json(json!({ "accepted": count })))
}

fn mode(headers: &HeaderMap) -> Result<CollectionMode, ApiError> {
    match headers.get(MODE_HEADER).map(|value| value.as_bytes()) {
        None | Some(b"live") => Ok(CollectionMode::Live),
        Some(b"backfill") => Ok(CollectionMode::Backfill),
        Some(_) => Err(ApiError::bad_request(format!("{MODE_HEADER} is live or backfill"))),
    }
}

/// Reads the body up to the limit; one that says it is larger is refused unread.
async fn read_body(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let too_large =
        || ApiError::new(413, "body_too_large", format!("the body is larger than {limit} bytes: send it in parts"));
    let said =
        headers.get(axum::http::header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if said.is_some_and(|said| said > limit as u64) {
        return Err(too_large());
    }
    let mut bytes = BytesMut::new();
    let mut stream = body.into_data_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| ApiError::bad_request("the body ended before it was complete"))?;
        if bytes.len() + chunk.len() > limit {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}
