//! As much of Elasticsearch as Filebeat, Fluent Bit, Logstash and Vector ask for before and while they send: who answers, which
//! licence, that templates and policies are there, and `_bulk`. There is no index: documents are events of the source that
//! the token is bound to, or of the one named like the index.
//!
//! Source: Elasticsearch reference, "Bulk API"; clients refuse servers without `X-Elastic-Product`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use pipeproof_ingest::receive::{BulkAction, Framing, bulk_actions};
use serde_json::{Value, json};

use super::ApiError;
use super::body::read;
use super::sender::{Sender, bound};
use crate::node::Shared;

/// The version whose answers these are.
const VERSION: &str = "8.17.0";

fn product(answer: impl IntoResponse) -> Response {
    let mut response = answer.into_response();
    let product = (HeaderName::from_static("x-elastic-product"), HeaderValue::from_static("Elasticsearch"));
    response.headers_mut().insert(product.0, product.1);
    response
}

/// The answer to who is no sender; any sender may ask.
fn stranger(sender: &Sender) -> Option<Response> {
    sender.as_ref().err().map(|refusal| refused(&ApiError::from(*refusal)))
}

fn refused(error: &ApiError) -> Response {
    let status = error.status().as_u16();
    product(error.answer(json!({ "error": { "type": error.code(), "reason": error.message() }, "status": status })))
}

/// `GET /`.
pub(crate) async fn root(State(shared): State<Arc<Shared>>, Extension(sender): Extension<Sender>) -> Response {
    if let Some(refused) = stranger(&sender) {
        return refused;
    }
    product(Json(json!({
        "name": "pipeproof",
        "cluster_name": "pipeproof",
        "cluster_uuid": shared.keys.instance().id(),
        "version": {
            "number": VERSION, "build_flavor": "default", "build_type": "pipeproof", "build_snapshot": false,
            "lucene_version": "9.12.0", "minimum_wire_compatibility_version": "7.17.0",
            "minimum_index_compatibility_version": "7.0.0",
        },
        "tagline": "You Know, for Search",
    })))
}

/// `GET /_license`, `GET /_xpack`.
pub(crate) async fn license(Extension(sender): Extension<Sender>) -> Response {
    if let Some(refused) = stranger(&sender) {
        return refused;
    }
    let license = json!({ "uid": "pipeproof", "type": "basic", "mode": "basic", "status": "active" });
    product(Json(json!({ "license": license, "features": { "ilm": { "available": true, "enabled": true } } })))
}

/// `GET /_cluster/health`.
pub(crate) async fn health(State(shared): State<Arc<Shared>>, Extension(sender): Extension<Sender>) -> Response {
    if let Some(refused) = stranger(&sender) {
        return refused;
    }
    let status = if shared.not_ready().is_none() { "green" } else { "red" };
    product(Json(json!({ "cluster_name": "pipeproof", "status": status, "number_of_nodes": 1, "timed_out": false })))
}

/// A template, policy, pipeline or data stream that a client looks for: there is none, and it may put one.
pub(crate) async fn absent(Extension(sender): Extension<Sender>) -> Response {
    if let Some(refused) = stranger(&sender) {
        return refused;
    }
    let error = json!({ "type": "resource_not_found_exception", "reason": "there is nothing to look up here" });
    product((StatusCode::NOT_FOUND, Json(json!({ "error": error, "status": 404 }))))
}

/// The same put: it says how an index would be built, and there is none to build.
pub(crate) async fn acknowledged(Extension(sender): Extension<Sender>) -> Response {
    if let Some(refused) = stranger(&sender) {
        return refused;
    }
    product(Json(json!({ "acknowledged": true })))
}

/// `POST /_bulk`, `PUT /_bulk`.
pub(crate) async fn bulk(
    State(shared): State<Arc<Shared>>,
    Extension(sender): Extension<Sender>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    take(&shared, &sender, None, headers, body).await
}

/// The same under an index.
pub(crate) async fn bulk_into(
    State(shared): State<Arc<Shared>>,
    Path(index): Path<String>,
    Extension(sender): Extension<Sender>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    take(&shared, &sender, Some(index), headers, body).await
}

async fn take(
    shared: &Arc<Shared>,
    sender: &Sender,
    index: Option<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let started = Instant::now();
    let taken = async {
        let allowed = bound(shared, sender, index.as_deref())?;
        let body = read(shared, allowed.standing(), &headers, body).await?;
        let (headers, body) = plain(shared, headers, body);
        let actions = bulk_actions(&body, shared.receiver.limits().items_max);
        allowed.take(shared, Framing::Bulk, headers, BTreeMap::new(), body).await?;
        Ok(actions)
    };
    match taken.await {
        Err(error) => refused(&error),
        Ok(actions) => {
            let items: Vec<Value> =
                (0_u64..).zip(&actions).map(|(number, action)| result(action, number, index.as_deref())).collect();
            let errors = actions.iter().any(|action| !action.has_document());
            let took = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            product(Json(json!({ "took": took, "errors": errors, "items": items })))
        }
    }
}

/// The body as the actions stand in it. What cannot be decompressed goes on as it is, and is kept as a dead letter.
fn plain(shared: &Shared, mut headers: HeaderMap, body: Bytes) -> (HeaderMap, Bytes) {
    match shared.receiver.inflated(&headers, &body) {
        Ok(plain) => {
            headers.remove(header::CONTENT_ENCODING);
            (headers, plain)
        }
        Err(_) => (headers, body),
    }
}

/// What became of an action. Nothing can be deleted, and that is said; that it was asked for is kept like any event.
fn result(action: &BulkAction, number: u64, index: Option<&str>) -> Value {
    let index = action.index.as_deref().or(index).unwrap_or("events");
    let id = action.id.clone().unwrap_or_else(|| format!("{number}"));
    let mut said = json!({ "_index": index, "_id": id });
    if action.has_document() {
        let shards = json!({ "total": 1, "successful": 1, "failed": 0 });
        let (result, status) = if action.verb == "update" { ("updated", 200) } else { ("created", 201) };
        for (name, value) in
            [("_version", json!(1)), ("result", json!(result)), ("_shards", shards), ("status", json!(status))]
        {
            said[name] = value;
        }
    } else {
        said["status"] = 400.into();
        said["error"] = json!({ "type": "illegal_argument_exception", "reason": "events are never deleted" });
    }
    json!({ action.verb.as_str(): said })
}
