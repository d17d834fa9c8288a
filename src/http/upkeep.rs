//! Backups and the doctor.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::json;

use super::answers::{Body, internal};
use super::{Answer, ApiError};
use crate::backup::{self, BackupError};
use crate::doctor;
use crate::node::Shared;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BackupBody {
    /// A folder on the server's machine that does not exist or is empty.
    to: PathBuf,
}

pub(crate) async fn backup(State(shared): State<Arc<Shared>>, Body(body): Body<BackupBody>) -> Answer {
    let manifest = backup::write(&shared, &body.to).await.map_err(|error| match error {
        BackupError::Asked(message) => ApiError::bad_request(message),
        other => internal("write a backup")(other),
    })?;
    let bytes: u64 = manifest.files.iter().map(|file| file.bytes).sum();
    Ok(Json(json!({
        "to": body.to, "at": manifest.at, "records": manifest.records, "files": manifest.files.len(), "bytes": bytes,
    })))
}

pub(crate) async fn verify(State(shared): State<Arc<Shared>>) -> Answer {
    let checks = doctor::verify(&shared).await.map_err(internal("check the data"))?;
    let holds = checks.iter().all(|check| check.holds);
    Ok(Json(json!({ "holds": holds, "checks": checks })))
}
