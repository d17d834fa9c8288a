//! Ordinary text: what builds wrote, documentation, and what audit logs, webhooks and reports say.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use engine::source::SourceType;
use pipeproof_engine as engine;

use crate::decode::tests::samples::items_of_all_types;

/// Lines of logs and of documentation: file, line.
pub(super) fn of_logs() -> Vec<(String, String)> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for folder in [own.join("tests/fixtures/build_logs"), own.join("../docs"), own.join("..")] {
        for path in files(&folder) {
            let file = path.file_name().unwrap().to_string_lossy().into_owned();
            let text = std::fs::read_to_string(&path).unwrap();
            let lines = text.lines().filter(|line| !line.trim().is_empty());
            found.extend(lines.map(|line| (file.clone(), line.to_owned())));
        }
    }
    found
}

/// Logs, texts and lock files of a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let wanted = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "log" || kind == "md" || kind == "lock");
    let mut found: Vec<_> = entries.filter(wanted).collect();
    found.sort();
    found
}

/// Items of all types: file, type, item, how many lines of text its strings have.
pub(super) fn of_items() -> Vec<(String, SourceType, Bytes, usize)> {
    let lines = |body: &Bytes| match serde_json::from_slice(body) {
        Ok(value) => strings(&value),
        Err(_) => String::from_utf8_lossy(body).lines().count(),
    };
    items_of_all_types().into_iter().map(|(file, kind, body)| (file, kind, body.clone(), lines(&body))).collect()
}

fn strings(value: &serde_json::Value) -> usize {
    match value {
        serde_json::Value::String(text) => text.lines().count(),
        serde_json::Value::Array(items) => items.iter().map(strings).sum(),
        serde_json::Value::Object(members) => members.values().map(strings).sum(),
        _ => 0,
    }
}
