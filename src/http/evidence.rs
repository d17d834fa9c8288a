//! SQL, KPIs, evidence packs and the trust anchor.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use pipeproof_engine::control::Control;
use pipeproof_engine::time::Timestamp;
use pipeproof_record::sql::{Limits, Sql};
use pipeproof_reports::kpi::KpiRequest;
use serde::Deserialize;
use serde_json::json;

use super::answers::{Asked, Body, internal};
use super::{Answer, ApiError};
use crate::evidence::{EvidenceError, Request, kpi_report};
use crate::node::Shared;
use crate::registry::Caller;

/// How long a query waits for the lake to take in what was detected; then it runs on what is there.
const FRESH: Duration = Duration::from_secs(5);

fn refused(error: EvidenceError) -> ApiError {
    match error {
        EvidenceError::Request(message) => ApiError::bad_request(message),
        EvidenceError::Node(error) => internal("build evidence")(error),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SqlBody {
    query: String,
}

pub(crate) async fn sql(State(shared): State<Arc<Shared>>, Body(body): Body<SqlBody>) -> Answer {
    if !shared.flush_lake(FRESH).await {
        tracing::info!("a query runs before the lake has taken in everything");
    }
    let pinned = shared.lake.pin();
    let asked = shared.background.run(async move {
        let session = Sql::over(&pinned, None, Limits::CONSOLE).await.map_err(internal("open the lake"))?;
        Ok::<_, ApiError>(session.query_json(&body.query, &[]).await)
    });
    match asked.await.map_err(internal("run a query"))?? {
        Ok(rows) => Ok(Json(json!({ "columns": rows.columns, "rows": rows.rows, "truncated": rows.truncated }))),
        Err(error) if error.is_askers() => Err(ApiError::new(400, "query_refused", error.to_string())),
        Err(error) => Err(internal("run a query")(error)),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KpiQuery {
    from: Timestamp,
    to: Timestamp,
    as_of: Option<Timestamp>,
}

pub(crate) async fn kpi(State(shared): State<Arc<Shared>>, Asked(query): Asked<KpiQuery>) -> Answer {
    if query.from >= query.to {
        return Err(ApiError::bad_request("`from` must be before `to`"));
    }
    let request = KpiRequest::new(query.from, query.to, query.as_of.unwrap_or_else(|| shared.clock.now()));
    let (report, _rows) = kpi_report(&shared, request).await.map_err(refused)?;
    Ok(Json(json!({ "kpi": report, "text": report.to_text() })))
}

pub(crate) async fn list(State(shared): State<Arc<Shared>>) -> Answer {
    let packs = shared.store.packs().await.map_err(internal("list packs"))?;
    Ok(Json(json!({ "packs": packs })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BuildBody {
    framework: String,
    from: Timestamp,
    to: Timestamp,
    as_of: Option<Timestamp>,
}

pub(crate) async fn build(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Body(body): Body<BuildBody>,
) -> Answer {
    let request = Request { framework: body.framework, from: body.from, to: body.to, as_of: body.as_of };
    let actor = format!("token:{}", caller.id);
    // On a task of its own: a client that goes away does not leave half a pack behind.
    let node = Arc::clone(&shared);
    let work = tokio::spawn(async move {
        let background = Arc::clone(&node);
        background.background.run(async move { crate::evidence::build(&node, &request, &actor).await }).await
    });
    let pack = work.await.map_err(internal("build evidence"))?.map_err(internal("build evidence"))?.map_err(refused)?;
    Ok(Json(json!({
        "pack": pack.pack, "path": pack.path, "digest": pack.digest, "framework": pack.framework,
        "from": pack.from, "to": pack.to, "as_of": pack.as_of, "created": pack.created,
        "results": pack.body.get("results"), "bytes": pack.body.get("bytes"),
    })))
}

pub(crate) async fn download(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    let pack = shared.store.pack(&name).await.map_err(internal("read a pack"))?;
    let pack = pack.ok_or_else(|| ApiError::not_found(format!("there is no pack `{name}`")))?;
    let bytes = tokio::fs::read(&pack.path).await.map_err(internal("read a pack"))?;
    let control = Control::PackDownloaded { pack: pack.pack.clone(), actor: format!("token:{}", caller.id) };
    shared.control(control).await.map_err(|error| ApiError::unavailable(error.to_string()))?;
    let disposition = format!("attachment; filename=\"{}.zip\"", pack.pack);
    let headers = [(header::CONTENT_TYPE, "application/zip".to_owned()), (header::CONTENT_DISPOSITION, disposition)];
    Ok((headers, bytes).into_response())
}

pub(crate) async fn anchor(State(shared): State<Arc<Shared>>) -> Answer {
    let public = shared.keys.public();
    Ok(Json(json!({
        "instance": public.instance.id(),
        "identity": public.instance.identity(),
        "fingerprint": public.fingerprint(),
        "pem": public.anchor_pem(),
    })))
}
