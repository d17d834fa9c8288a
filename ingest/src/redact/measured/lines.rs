//! Ordinary lines: what builds wrote, and what audit logs and webhooks say, with every secret in it that is known to be one.

use std::path::{Path, PathBuf};

/// A text of a file: where it is from, and itself.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) file: String,
    pub(super) text: String,
}

/// Every line of the logs, and every string of the items, below the fixtures of this package and of the workspace, and below
/// `PIPEPROOF_SAMPLES_DIR`.
pub(super) fn ordinary() -> Vec<Line> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![own.join("tests/fixtures"), own.join("../tests/fixtures"), own.join("../docs")];
    match std::env::var_os("PIPEPROOF_SAMPLES_DIR") {
        Some(folder) => folders.push(folder.into()),
        None => println!("PIPEPROOF_SAMPLES_DIR is not set: only fixtures and documentation are read"),
    }
    let mut found = Vec::new();
    for folder in folders {
        for path in files(&folder) {
            let file = path.strip_prefix(&folder).unwrap().display().to_string();
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            match path.extension().and_then(|kind| kind.to_str()) {
                Some("log" | "md") => {
                    found.extend(text.lines().map(|line| Line { file: file.clone(), text: line.to_owned() }));
                }
                Some("ndjson") => {
                    for line in text.lines() {
                        let value = serde_json::from_str(line).unwrap_or_default();
                        strings(&value, &mut |text| found.push(Line { file: file.clone(), text: text.to_owned() }));
                    }
                }
                _ => {}
            }
        }
    }
    found.retain(|line| !line.text.trim().is_empty());
    found
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn strings(value: &serde_json::Value, each: &mut dyn FnMut(&str)) {
    match value {
        serde_json::Value::String(text) => text.lines().for_each(each),
        serde_json::Value::Array(items) => items.iter().for_each(|item| strings(item, each)),
        serde_json::Value::Object(members) => members.values().for_each(|item| strings(item, each)),
        _ => {}
    }
}
