//! `pipeproof backup`, `restore` and `doctor`.

use std::path::Path;

use serde_json::{Value, json};

use super::arguments::Format;
use super::stored::{list, with};
use super::{Failure, show};
use crate::backup;
use crate::client::Place;

pub(super) async fn backup(to: &Path, place: &Place, format: Option<Format>) -> Result<(), Failure> {
    let to =
        std::path::absolute(to).map_err(|source| Failure::Io { doing: format!("use {}", to.display()), source })?;
    let written = with(place, async |client| client.post_and_wait("/v1/backup", &json!({ "to": to })).await).await?;
    show::object(&written, format)
}

pub(super) fn restore(from: &Path, place: &Place, format: Option<Format>) -> Result<(), Failure> {
    let manifest = backup::restore(from, &place.data)?;
    let restored = json!({
        "data": place.data, "at": manifest.at, "records": manifest.records, "files": manifest.files.len(),
    });
    show::object(&restored, format)
}

pub(super) async fn doctor(verify: bool, place: &Place, format: Option<Format>) -> Result<(), Failure> {
    if !verify {
        let status = with(place, async |client| client.get("/v1/status").await).await?;
        return show::object(&status, format);
    }
    let answer = with(place, async |client| client.post_and_wait("/v1/doctor", &json!({})).await).await?;
    show::rows(&list(&answer, "checks"), &["check", "holds", "detail"], format)?;
    if answer.get("holds").and_then(Value::as_bool) == Some(true) { Ok(()) } else { Err(Failure::Unverified) }
}
